//! What is asked for, delayed or filled while the clock is ahead.

use callboard::task::{Periodic, PeriodicInfo};

use super::*;

/// Nothing is due and no timer is armed: the jump is found by what is planned in it.
#[actix::test]
async fn a_startup_delay_is_elapsed_time_and_what_is_added_in_it_is_worked_out_again() {
    let (scheduler, time, ran) = board(|b| b.startup_delay(secs(60))).await;
    let mut events = scheduler.events(EventMask::ALL).await.unwrap();
    scheduler.add(every(1000).id("before")).await.unwrap();
    time.advance(secs(30)).await;
    time.set(at(10 * YEAR)).await;
    scheduler.add(every(1000).id("ahead")).await.unwrap();
    scheduler.add(cron("cron")).await.unwrap();
    time.advance(secs(10)).await;
    time.set(at(40)).await;
    time.advance(secs(19)).await;
    assert_eq!((ran.count("before"), ran.count("ahead")), (0, 0));
    time.advance(secs(2)).await;
    assert_eq!(replanned(&heard(&mut events)), [(2, vec![], vec![])]);
    assert_eq!(ran.of("before"), [at(0)]);
    assert_eq!(next(&scheduler, "cron").await, Some(3600));
    time.advance(secs(3600)).await;
    assert_eq!(ran.of("before"), [0, 1000, 2000, 3000].map(at));
    let runs = ran.of("ahead");
    assert!(runs.len() >= 3 && runs.iter().all(|run| *run <= at(3661)), "{runs:?}");
    assert!(runs.windows(2).all(|two| two[1] - two[0] == secs_of(1000)), "{runs:?}");
    assert_eq!(ran.of("cron"), [at(3600)]);
    scheduler.shutdown(Shutdown::now()).await.unwrap();
}

fn secs_of(seconds: i64) -> chrono::TimeDelta {
    chrono::TimeDelta::seconds(seconds)
}

/// The scheduler is paused, and its timer looks at nothing.
#[actix::test]
async fn what_is_added_under_a_wrong_clock_while_all_is_paused_is_worked_out_again() {
    let (scheduler, time, ran) = board(|b| b).await;
    scheduler.pause().await.unwrap();
    time.set(at(10 * YEAR)).await;
    scheduler.add(cron("cron")).await.unwrap();
    scheduler.add(every(1000).id("every")).await.unwrap();
    time.set(at(20)).await;
    scheduler.resume().await.unwrap();
    time.settle().await;
    assert_eq!(next(&scheduler, "cron").await, Some(3600));
    time.advance(secs(3600)).await;
    assert_eq!((ran.count("cron"), ran.count("every") >= 3), (1, true), "{:?}", ran.of("every"));
    scheduler.shutdown(Shutdown::now()).await.unwrap();
}

#[actix::test]
async fn periodic_tasks_go_on_with_what_is_left_of_their_runs_and_their_window() {
    let (scheduler, time, ran) = board(|b| b).await;
    let hourly = |id: &str| Periodic::new("note").id(id).schedule("0 * * * *");
    time.advance(secs(10)).await;
    scheduler.add(hourly("counted").iterations(3)).await.unwrap();
    scheduler.add(hourly("ends").end_running(at(86_400))).await.unwrap();
    scheduler.add(hourly("delayed").delay_until(at(7200))).await.unwrap();
    time.set(at(10 * YEAR + 10)).await;
    time.settle().await;
    let info = async |id: &str| PeriodicInfo::from(&scheduler.task(id).await.unwrap());
    assert!(!info("ends").await.enabled || info("ends").await.next_run.is_none(), "it is over");
    let had: Vec<_> = ["counted", "ends", "delayed"].map(|id| ran.of(id)).into();
    time.set(at(20)).await;
    assert_eq!(info("counted").await.next_run, Some(at(3600)));
    assert_eq!(info("ends").await.next_run, Some(at(3600)));
    assert_eq!(info("delayed").await.next_run, Some(at(7200)));
    time.advance(secs(2 * 86_400)).await;
    let later = |id: &str, had: &[DateTime<Utc>]| ran.of(id)[had.len()..].to_vec();
    // One of three was had while the clock was ahead.
    assert_eq!((had[0].len(), later("counted", &had[0])), (1, [3600, 7200].map(at).to_vec()));
    let all = |from: i64, to: i64| (from..=to).map(|hour| at(hour * 3600)).collect::<Vec<_>>();
    let mut ends = ran.of("ends");
    ends.sort();
    assert_eq!(ends, all(1, 24), "each hour of its day once");
    assert_eq!(later("delayed", &had[2]), all(2, 48));
    scheduler.shutdown(Shutdown::now()).await.unwrap();
}

/// A back-fill goes on at its pace from the corrected time, and fills nothing that is still to come.
#[actix::test]
async fn back_fills_go_on_from_the_corrected_time() {
    let (scheduler, time, ran) = board(|b| b).await;
    let mut events = scheduler.events(EventMask::RUN_ENDED).await.unwrap();
    for id in ["before", "ahead"] {
        scheduler.add(cron(id)).await.unwrap();
    }
    time.advance(secs(10)).await;
    scheduler.backfill("before", at(-36_000), at(0), secs(60)).await.unwrap();
    time.advance(secs(70)).await;
    assert!(scheduler.task("before").await.unwrap().state.backfill.is_some());
    time.set(at(10 * YEAR + 10)).await;
    scheduler.backfill("ahead", at(-7200), at(10 * YEAR), secs(60)).await.unwrap();
    time.advance(secs(5)).await;
    time.set(at(100)).await;
    let under_way = scheduler.task("ahead").await.unwrap().state.backfill.unwrap();
    assert!(under_way.until <= at(100) && under_way.at <= at(160), "{under_way:?}");
    time.advance(secs(3400)).await;
    for id in ["before", "ahead"] {
        assert_eq!(scheduler.task(id).await.unwrap().state.backfill, None, "{id}");
    }
    let filled = |told: &[Event], id: &str| {
        let runs = told.iter().filter_map(Event::report).filter(|report| {
            report.run.source == callboard::task::Source::Backfill && report.task_id().as_str() == id
        });
        runs.map(|report| report.run.nominal).collect::<Vec<_>>()
    };
    let told = heard(&mut events);
    assert_eq!(filled(&told, "before"), (-10..0).map(|hour| at(hour * 3600)).collect::<Vec<_>>());
    assert_eq!(filled(&told, "ahead"), [-7200, -3600, 0].map(at));
    let before = ran.count("ahead");
    time.advance(secs(200)).await;
    assert_eq!(ran.of("ahead")[before..], [at(3600)], "scheduled, as ever");
    scheduler.shutdown(Shutdown::now()).await.unwrap();
}
