//! Past windows that are run on request.

use callboard::Error;
use callboard::store::SledStore;
use callboard::task::{Retry, ScheduleState, Source, TaskError, WhenFinished};

use super::*;

/// The back-filled runs of a task: when each began, and for which second.
fn filled(told: &[Event], id: &str) -> Vec<(i64, i64)> {
    let second = |time: DateTime<Utc>| (time - at(0)).num_seconds();
    told.iter()
        .filter_map(Event::report)
        .filter(|report| report.run.source == Source::Backfill && report.task_id().as_str() == id)
        .map(|report| (second(report.run.due), second(report.run.nominal)))
        .collect()
}

#[actix::test]
async fn a_past_window_runs_in_order_and_beside_the_schedule() {
    let (scheduler, time, ran) = board(|b| b).await;
    let mut events = scheduler.events(EventMask::RUN_ENDED).await.unwrap();
    scheduler.add(every(10).id("a").start_at(at(0)).end_at(at(60)).max_runs(6)).await.unwrap();
    time.advance(secs(31)).await;
    let before = scheduler.task("a").await.unwrap();
    let info = scheduler.backfill("a", at(-25), at(10), secs(2)).await.unwrap();
    assert_eq!(info.state.backfill.as_ref().unwrap().next, at(-20));
    assert_eq!((info.state.next, info.state.last_run), (before.state.next, before.state.last_run));
    time.advance(secs(9)).await;
    let told = heard(&mut events);
    assert_eq!(filled(&told, "a"), [(31, -20), (33, -10), (35, 0)], "the end of the window is outside");
    let info = scheduler.task("a").await.unwrap();
    assert_eq!((info.state.fired, info.next_run_time()), (5, Some(at(50))));
    assert_eq!(info.state.backfill, None);
    assert_eq!(ran.of("a"), [0, 10, 20, 30, -20, -10, 0, 40].map(at));
}

#[actix::test]
async fn what_cannot_be_filled_is_refused_and_named() {
    let (scheduler, time, _) = board(|b| b).await;
    scheduler.add(Task::new("note").id("a").trigger("0 * * * *")).await.unwrap();
    time.advance(secs(7200)).await;
    let refuse = async |from, to, every| scheduler.backfill("a", at(from), at(to), every).await.unwrap_err();
    let field = |error: Error| match error {
        Error::Task(TaskError::Invalid { field, .. }) => field,
        other => panic!("{other}"),
    };
    assert_eq!(field(refuse(0, 0, secs(1)).await), "to");
    assert_eq!(field(refuse(0, 7201, secs(1)).await), "to");
    assert_eq!(field(refuse(0, 3600, Duration::ZERO).await), "every");
    assert_eq!(field(refuse(0, 3600, Duration::MAX).await), "every");
    assert_eq!(field(refuse(1, 3600, secs(1)).await), "from", "no run time in between");
    assert!(scheduler.backfill("b", at(0), at(3600), secs(1)).await.unwrap_err().is_not_found());
    assert!(!scheduler.cancel_backfill("a").await.unwrap());

    scheduler.backfill("a", at(-36_000), at(3600), secs(10)).await.unwrap();
    time.settle().await;
    let error = refuse(0, 3600, secs(1)).await;
    assert!(error.is_conflict(), "{error}");
    assert!(error.to_string().contains("2026-12-31T15:00:00"), "how far it is: {error}");
    assert!(scheduler.cancel_backfill("a").await.unwrap());
    let runs = scheduler.task("a").await.unwrap().state.runs;
    time.advance(secs(100)).await;
    assert_eq!(scheduler.task("a").await.unwrap().state.runs, runs);
    assert!(scheduler.backfill("a", at(0), at(3600), secs(1)).await.is_ok());
}

#[actix::test]
async fn it_waits_for_a_place_and_for_the_end_of_a_pause() {
    let (scheduler, time, _) = board(|b| b).await;
    let mut events = scheduler.events(EventMask::RUN_ENDED).await.unwrap();
    let task = Task::new("nap").args(5).id("a").trigger("* * * * *").first_run(at(4));
    scheduler.add(task).await.unwrap();
    time.advance(secs(1)).await;
    scheduler.backfill("a", at(-300), at(0), secs(1)).await.unwrap();
    // Runs from 1 to 6, and so refuses the scheduled run of 4.
    time.advance(secs(13)).await;
    let told = heard(&mut events);
    assert_eq!(filled(&told, "a"), [(1, -300), (6, -240)]);
    let refused: Vec<_> = told.iter().filter(|event| matches!(event, Event::TaskMaxInstances(_))).collect();
    assert!(
        refused.iter().all(|event| event.report().unwrap().run.source == Source::Scheduled),
        "{refused:?}"
    );
    scheduler.pause_task("a").await.unwrap();
    time.advance(secs(1000)).await;
    assert_eq!(filled(&heard(&mut events), "a").len(), 1, "the one that was going on");
    scheduler.resume_task("a").await.unwrap();
    time.advance(secs(30)).await;
    let nominal: Vec<_> = filled(&heard(&mut events), "a").iter().map(|(_, nominal)| *nominal).collect();
    assert_eq!(nominal, [-120, -60]);
}

#[actix::test]
async fn a_schedule_that_has_ended_waits_for_it() {
    let (scheduler, time, ran) = board(|b| b).await;
    scheduler.add(every(10).id("a").max_runs(2)).await.unwrap();
    scheduler.add(every(10).id("kept").max_runs(1).when_finished(WhenFinished::Keep)).await.unwrap();
    time.advance(secs(5)).await;
    assert_eq!(scheduler.task("kept").await.unwrap().schedule_state, ScheduleState::Finished);
    for id in ["a", "kept"] {
        scheduler.backfill(id, at(-100), at(0), secs(2)).await.unwrap();
    }
    time.advance(secs(10)).await;
    assert_eq!(scheduler.task("a").await.unwrap().schedule_state, ScheduleState::Scheduled);
    time.advance(secs(10)).await;
    assert!(scheduler.task("a").await.unwrap_err().is_not_found());
    assert_eq!(scheduler.task("kept").await.unwrap().schedule_state, ScheduleState::Finished);
    assert_eq!((ran.count("a"), ran.count("kept")), (12, 11));
}

#[actix::test]
async fn it_goes_on_after_a_restart_and_tries_again() {
    let base = tempfile::tempdir().unwrap();
    let store = SledStore::open(base.path().join("store")).unwrap();
    let (scheduler, time, _) = board(move |b| b.store("default", store)).await;
    let mut events = scheduler.events(EventMask::RUN_ENDED).await.unwrap();
    let retry = Retry::times(1).backoff(callboard::backoff::Backoff::fixed(secs(1)));
    let task = Task::new("flaky").args(2).id("a").trigger("* * * * *").first_run(at(6000)).retry(retry);
    scheduler.add(task).await.unwrap();
    scheduler.backfill("a", at(-300), at(0), secs(10)).await.unwrap();
    time.advance(secs(15)).await;
    scheduler.shutdown(Shutdown::now()).await.unwrap();
    time.advance(secs(100)).await;
    scheduler.start().await.unwrap();
    time.advance(secs(100)).await;
    let told = heard(&mut events);
    let mut runs: Vec<_> = told
        .iter()
        .filter_map(Event::report)
        .map(|report| {
            ((report.run.nominal - at(0)).num_seconds(), report.run.attempt, report.end.outcome.word())
        })
        .collect();
    runs.sort();
    let expected =
        [-300, -240, -180, -120, -60].map(|nominal| [(nominal, 1, "failed"), (nominal, 2, "executed")]);
    assert_eq!(runs, expected.concat());
    assert_eq!(scheduler.task("a").await.unwrap().state.backfill, None);
    scheduler.shutdown(Shutdown::now()).await.unwrap();
}
