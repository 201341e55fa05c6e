//! A clock that was ahead for a while, and is corrected: next runs are worked out again.

mod beside;
mod killed;
mod pages;

use callboard::store::{FileStore, RedbStore, SledStore};
use callboard::task::{Fate, Outcome, Retry, ScheduleState, WhenFinished};

use super::*;

const YEAR: i64 = 365 * 86_400;

fn cron(id: &str) -> Task {
    Task::new("note").id(id).trigger("0 * * * *")
}

/// The next run time of a task, in seconds from the start.
async fn next(scheduler: &Handle, id: &str) -> Option<i64> {
    scheduler.task(id).await.unwrap().next_run_time().map(|at| (at - self::at(0)).num_seconds())
}

fn replanned(told: &[Event]) -> Vec<(u64, Vec<String>, Vec<String>)> {
    let names = |ids: &[TaskId]| ids.iter().map(ToString::to_string).collect();
    told.iter()
        .filter_map(|event| match event {
            Event::TasksReplanned { tasks, back, over, .. } => Some((*tasks, names(back), names(over))),
            _ => None,
        })
        .collect()
}

#[actix::test]
async fn after_a_jump_back_runs_go_on_from_the_corrected_time() {
    let (scheduler, time, ran) = board(|b| b).await;
    let mut events = scheduler.events(EventMask::ALL).await.unwrap();
    scheduler.add(cron("cron")).await.unwrap();
    scheduler.add(every(1000).id("every")).await.unwrap();
    scheduler.add(every(1000).id("paused").paused(true)).await.unwrap();
    scheduler.add(Task::new("note").id("once").trigger(Date::at(at(YEAR)))).await.unwrap();
    scheduler.add(Task::new("note").id("later").trigger(Date::at(at(20 * YEAR)))).await.unwrap();
    time.advance(secs(10)).await;
    time.set(at(10 * YEAR)).await;
    time.advance(secs(5)).await;
    assert_eq!(ran.of("once"), [at(YEAR)]);
    assert_eq!((ran.count("cron"), ran.count("every")), (2, 2), "all that passed are one run");
    assert!(next(&scheduler, "cron").await.unwrap() > 10 * YEAR);

    time.set(at(15)).await;
    assert_eq!((next(&scheduler, "cron").await, next(&scheduler, "every").await), (Some(3600), Some(1000)));
    assert_eq!(next(&scheduler, "later").await, Some(20 * YEAR));
    assert!(scheduler.task("once").await.unwrap_err().is_not_found(), "it ran, and is over");
    let told = replanned(&heard(&mut events));
    assert_eq!(told, [(2, vec![], vec!["once".to_owned()])]);
    time.advance(secs(4000)).await;
    assert_eq!(ran.of("cron").split_off(2), [at(3600)]);
    assert_eq!(ran.of("every").split_off(2), [1000, 2000, 3000, 4000].map(at));

    // The run time that ran is had when its time comes.
    let had = ran.of("cron")[1];
    time.set(had - chrono::TimeDelta::seconds(10)).await;
    let before = ran.count("cron");
    time.advance(secs(15)).await;
    assert_eq!(ran.of("cron").iter().filter(|at| **at == had).count(), 1);
    time.advance(secs(3600)).await;
    assert!(ran.count("cron") > before);
}

#[actix::test]
async fn smaller_jumps_change_nothing_and_the_bound_is_a_setting() {
    for (bound, again) in [(None, false), (Some(secs(1800)), true)] {
        let set = |b: Builder| bound.map_or_else(Scheduler::builder, |bound| b.replan_after_jump(bound));
        let time = VirtualClock::starting_at(START);
        let ran = Ran::default();
        let builder = set(Scheduler::builder()).clock(time.clock()).registry(ran.registry());
        let scheduler = builder.start().await.unwrap();
        scheduler.add(every(600).id("a")).await.unwrap();
        time.set(at(3500)).await;
        time.set(at(5)).await;
        assert_eq!(next(&scheduler, "a").await, Some(if again { 600 } else { 3600 }));
        scheduler.shutdown(Shutdown::now()).await.unwrap();
    }
    let error = Scheduler::builder().replan_after_jump(secs(0)).build().unwrap_err();
    assert!(error.to_string().contains("replan_after_jump"), "{error}");
}

#[actix::test]
async fn what_was_only_passed_over_is_open_again_and_what_ran_is_had() {
    let (scheduler, time, ran) = board(|b| b).await;
    let mut events = scheduler.events(EventMask::ALL).await.unwrap();
    let dated = |id: &str, day: i64| Task::new("note").id(id).trigger(Date::at(at(day * 86_400)));
    scheduler.add(dated("missed", 10).misfire_grace(secs(60))).await.unwrap();
    scheduler.add(dated("ran", 10)).await.unwrap();
    let keep = |task: Task| task.when_finished(WhenFinished::Keep);
    scheduler.add(keep(dated("kept", 10).misfire_grace(secs(60)))).await.unwrap();
    scheduler.add(every(3600).id("ends").end_at(at(30 * 86_400))).await.unwrap();
    scheduler.add(every(3600).id("counted").max_runs(3).misfire_grace(secs(60))).await.unwrap();
    let all = every(86_400).id("all").coalesce(false).max_catch_up(2).max_instances(9);
    scheduler.add(all).await.unwrap();
    time.advance(secs(10)).await;
    time.set(at(YEAR + 100)).await;
    time.advance(secs(5)).await;
    time.set(at(20)).await;
    let told = heard(&mut events);
    let [(_, back, over)] = &replanned(&told)[..] else { panic!("{told:#?}") };
    assert_eq!((back.len(), &over[..]), (3, &["ran".to_owned()][..]), "{back:?}");
    assert!(["missed", "kept", "ends"].iter().all(|id| back.iter().any(|back| back == id)), "{back:?}");
    assert_eq!(next(&scheduler, "missed").await, Some(10 * 86_400));
    assert_eq!(next(&scheduler, "ends").await, Some(3600));
    assert_eq!(scheduler.task("missed").await.unwrap().schedule_state, ScheduleState::Scheduled);
    assert_eq!(scheduler.task("counted").await.unwrap().state.fired, 1);

    let account = scheduler.why("all", at(86_400), at(YEAR + 1)).await.unwrap();
    let waits = account.times.iter().find(|time| time.nominal == at(86_400)).unwrap();
    assert_eq!(waits.fate, Fate::Waiting);
    assert!(waits.reason.contains("ahead") && waits.reason.contains("open again"), "{}", waits.reason);
    let executed = |time: &&callboard::task::RunTime| time.fate == Fate::Executed;
    assert_eq!(account.times.iter().filter(executed).count(), 2, "{account:#?}");
    let records = scheduler.history("missed", 10).await.unwrap();
    let end = records[0].end.clone().unwrap();
    assert!(matches!(end.outcome, Outcome::Missed { .. }) && end.wrong_clock == Some(at(20)), "{records:#?}");

    time.advance(secs(40 * 86_400)).await;
    assert_eq!(ran.of("missed"), [at(10 * 86_400)]);
    assert_eq!(ran.of("kept"), [at(10 * 86_400)]);
    assert_eq!(ran.of("ran"), [at(10 * 86_400)]);
    assert_eq!(ran.of("counted"), [0, 3600, 7200].map(at));
    assert!(scheduler.task("ends").await.unwrap_err().is_not_found());
    assert_eq!(ran.count("ends"), 30 * 24 + 1, "each hour once");
}

#[actix::test]
async fn what_was_set_under_the_wrong_clock_counts_from_the_right_one() {
    let (scheduler, time, ran) = board(|b| b).await;
    scheduler.add(every(100).id("resumed")).await.unwrap();
    scheduler
        .add(Task::new("fail").id("retried").trigger(Interval::days(1)).retry(Retry::times(5)))
        .await
        .unwrap();
    time.advance(secs(1)).await;
    scheduler.pause_task("resumed").await.unwrap();
    time.set(at(10 * YEAR)).await;
    scheduler.resume_task("resumed").await.unwrap();
    scheduler.add(every(100).id("added")).await.unwrap();
    scheduler.add(Task::new("note").id("now").trigger(Date::now())).await.unwrap();
    scheduler.add(cron("first").first_run_now()).await.unwrap();
    scheduler.add(cron("fixed").first_run(at(10 * YEAR + 7200))).await.unwrap();
    time.settle().await;
    time.set(at(50)).await;
    assert_eq!(next(&scheduler, "resumed").await, Some(100));
    assert_eq!(next(&scheduler, "added").await, Some(150), "it ran when it was added");
    assert_eq!(next(&scheduler, "first").await, Some(3600));
    assert_eq!(next(&scheduler, "fixed").await, Some(10 * YEAR + 7200));
    let info = scheduler.task("added").await.unwrap();
    assert!([info.state.created_at, info.state.modified_at].iter().all(|time| *time <= at(50)));
    assert_eq!(ran.count("now"), 1);
    for attempt in scheduler.task("retried").await.unwrap().state.attempts {
        assert!(attempt.at.is_none_or(|time| time < at(3600)), "{attempt:?}");
    }
    let account = scheduler.why("added", at(0), at(200)).await.unwrap();
    assert_eq!(account.times.last().unwrap().fate, Fate::Waiting, "{account:#?}");
}

/// The clock is corrected while nothing runs: what is stored tells that it was ahead.
#[actix::test]
async fn a_correction_between_two_lives_is_found_at_the_start() {
    type Open = fn(&Path, Builder) -> Builder;
    let stores: [Open; 3] = [
        |path, b| b.store("default", SledStore::open(path.join("sled")).unwrap()),
        |path, b| b.store("default", RedbStore::open(path.join("redb")).unwrap()),
        |path, b| b.store("default", FileStore::open(path.join("file")).unwrap()),
    ];
    for open in stores {
        let base = tempfile::tempdir().unwrap();
        let ran = Ran::default();
        let start = async |time: &VirtualClock| {
            let builder = Scheduler::builder().clock(time.clock()).registry(ran.registry());
            open(base.path(), builder).start().await.unwrap()
        };
        let time = VirtualClock::starting_at(START);
        let scheduler = start(&time).await;
        let added = (0..600).map(|n| scheduler.add(every(3600).id(format!("t{n}"))));
        assert!(futures::future::join_all(added).await.iter().all(Result::is_ok));
        scheduler.add(every(3600).id("ends").end_at(at(YEAR))).await.unwrap();
        time.set(at(10 * YEAR)).await;
        time.advance(secs(5)).await;
        scheduler.shutdown(Shutdown::now()).await.unwrap();

        let time = VirtualClock::new(at(60));
        let scheduler = start(&time).await;
        time.advance(secs(1)).await;
        for id in ["t0", "t599", "ends"] {
            assert_eq!(next(&scheduler, id).await, Some(3600), "{id}");
        }
        scheduler.shutdown(Shutdown::now()).await.unwrap();
        let scheduler = start(&time).await;
        assert_eq!(next(&scheduler, "t0").await, Some(3600), "and that is kept");
        scheduler.shutdown(Shutdown::now()).await.unwrap();
    }
}

#[actix::test]
async fn a_clock_that_is_not_set_yet_changes_nothing() {
    let base = tempfile::tempdir().unwrap();
    let (scheduler, time, ran) = board(|b| b.store("default", SledStore::open(base.path()).unwrap())).await;
    scheduler.add(every(3600).id("a")).await.unwrap();
    time.advance(secs(10_000)).await;
    let before = scheduler.task("a").await.unwrap().state;
    scheduler.shutdown(Shutdown::now()).await.unwrap();
    let time = VirtualClock::starting_at("1970-01-01T00:00:10Z");
    let (scheduler, _) = successor(&time, &ran, base.path()).await;
    time.advance(secs(10)).await;
    assert_eq!(scheduler.task("a").await.unwrap().state, before);
    scheduler.shutdown(Shutdown::now()).await.unwrap();
}

/// A task that ended too late, with run times passed over, lingers: adding it anew finds no obstacle.
#[actix::test]
async fn a_task_that_lingers_makes_room_and_goes() {
    let (scheduler, time, ran) = board(|b| b).await;
    let mut events = scheduler.events(EventMask::ALL).await.unwrap();
    let ends = || every(3600).id("a").end_at(at(86_400));
    for id in ["a", "b"] {
        scheduler.add(ends().id(id)).await.unwrap();
    }
    time.advance(secs(1)).await;
    scheduler.pause().await.unwrap();
    time.advance(secs(10 * 86_400)).await;
    scheduler.resume().await.unwrap();
    time.settle().await;
    assert_eq!(scheduler.task("a").await.unwrap().schedule_state, ScheduleState::Finished);
    scheduler.add(every(86_400).id("a")).await.unwrap();
    time.advance(secs(60)).await;
    assert_eq!(scheduler.task("a").await.unwrap().state.runs, 1);
    time.advance(secs(8 * 86_400)).await;
    assert!(scheduler.task("b").await.unwrap_err().is_not_found());
    let removed = |event: &Event| matches!(event, Event::TaskRemoved { id, .. } if id.as_str() == "b");
    assert!(heard(&mut events).iter().any(removed));
    assert_eq!(ran.count("b"), 2, "at the beginning, and once too late");
}
