//! What became of each run time, and why.

use callboard::scheduler::message::{ResumeTask, Why};
use callboard::store::MemoryStore;
use callboard::task::{Account, Fate, Source};
use proptest::prelude::*;

use super::*;

/// The fates from the start to some second, `+0 executed, +10 coalesced, …`.
async fn fates(scheduler: &Handle, id: &str, to: i64) -> String {
    let account = scheduler.why(id, at(0), at(to)).await.unwrap();
    assert_eq!(account.next, None);
    told(&account)
}

fn told(account: &Account) -> String {
    let word = |time: &callboard::task::RunTime| {
        format!("+{} {}", (time.nominal - at(0)).num_seconds(), time.fate.word())
    };
    account.times.iter().map(word).collect::<Vec<_>>().join(", ")
}

async fn reason(scheduler: &Handle, id: &str, second: i64) -> String {
    let account = scheduler.why(id, at(second), at(second)).await.unwrap();
    let [time] = &account.times[..] else { panic!("{account:?}") };
    time.reason.clone()
}

#[actix::test]
async fn runs_say_how_they_ended() {
    let (scheduler, time, _) = board(|b| b).await;
    let add = |handler: &str| Task::new(handler).id(handler).trigger(Interval::seconds(10));
    scheduler.add(add("note")).await.unwrap();
    scheduler.add(add("fail")).await.unwrap();
    scheduler.add(add("panic")).await.unwrap();
    scheduler.add(add("nap").args(15)).await.unwrap();
    time.advance(secs(12)).await;
    assert_eq!(fates(&scheduler, "note", 20).await, "+0 executed, +10 executed, +20 waiting");
    assert_eq!(reason(&scheduler, "note", 20).await, "not due yet; it is due at 2027-01-01T00:00:20Z");
    assert_eq!(fates(&scheduler, "fail", 10).await, "+0 failed, +10 failed");
    assert_eq!(reason(&scheduler, "fail", 10).await, "failed: no paper");
    let panicked = reason(&scheduler, "panic", 0).await;
    assert!(panicked.starts_with("panicked: out of ink (at "), "{panicked}");
    assert_eq!(fates(&scheduler, "nap", 10).await, "+0 running, +10 refused");
    assert_eq!(
        reason(&scheduler, "nap", 0).await,
        "its run was submitted at 2027-01-01T00:00:00Z and is going on"
    );
    let refused = reason(&scheduler, "nap", 10).await;
    assert!(refused.starts_with("refused: as many runs of the task are going on"), "{refused}");
    time.advance(secs(5)).await;
    assert_eq!(reason(&scheduler, "nap", 0).await, "executed");
    let error = scheduler.why("nobody", at(0), at(9)).await.unwrap_err();
    assert!(error.is_not_found(), "{error}");
}

#[actix::test]
async fn late_run_times_say_what_ran_for_them() {
    let (scheduler, time, _) = board(|b| b).await;
    scheduler.pause().await.unwrap();
    scheduler.add(every(10).id("one")).await.unwrap();
    let all = every(10).coalesce(false).max_instances(9);
    scheduler.add(all.clone().id("two").max_catch_up(2)).await.unwrap();
    scheduler.add(every(10).id("graced").misfire_grace(secs(3))).await.unwrap();
    time.advance(secs(35)).await;
    assert_eq!(reason(&scheduler, "one", 0).await, "due since 35 s; the scheduler is paused");
    scheduler.resume().await.unwrap();
    time.settle().await;
    let coalesced = "+0 coalesced, +10 coalesced, +20 coalesced, +30 executed, +40 waiting";
    assert_eq!(fates(&scheduler, "one", 40).await, coalesced);
    assert_eq!(
        reason(&scheduler, "one", 10).await,
        "coalesced into the run of 2027-01-01T00:00:30Z: executed, for 3 other run times as well"
    );
    assert_eq!(
        fates(&scheduler, "two", 40).await,
        "+0 missed, +10 missed, +20 executed, +30 executed, +40 waiting"
    );
    let missed = "missed: 25 s late, and more run times were due together than max_catch_up lets run";
    assert_eq!(reason(&scheduler, "two", 10).await, missed);
    assert_eq!(
        reason(&scheduler, "graced", 30).await,
        "missed: 5 s late, more than its misfire grace, for 3 other run times as well"
    );
    assert!(reason(&scheduler, "graced", 20).await.starts_with("coalesced into the run of"));
}

#[actix::test]
async fn run_times_that_were_passed_over_say_so() {
    let (scheduler, time, _) = board(|b| b).await;
    for id in ["skips", "catches up", "changes", "goes"] {
        scheduler.add(every(10).id(id)).await.unwrap();
    }
    scheduler.add(every(10).id("later").first_run(at(25))).await.unwrap();
    time.advance(secs(15)).await;
    for id in ["skips", "catches up", "changes", "goes"] {
        scheduler.pause_task(id).await.unwrap();
    }
    time.advance(secs(20)).await;
    let paused = "+0 executed, +10 executed, +20 paused, +30 paused, +40 paused";
    assert_eq!(fates(&scheduler, "skips", 40).await, paused);
    assert_eq!(
        reason(&scheduler, "skips", 20).await,
        "the task is paused; it is skipped when the task is resumed, unless with catch_up"
    );
    scheduler.resume_task("skips").await.unwrap();
    scheduler.send(ResumeTask::new(TaskId::new("catches up").unwrap(), true)).await.unwrap().unwrap();
    scheduler.reschedule_task("changes", Interval::seconds(7)).await.unwrap();
    scheduler.delete_task("goes").await.unwrap();
    time.settle().await;
    let before = "+0 executed, +10 executed";
    assert_eq!(
        fates(&scheduler, "skips", 40).await,
        format!("{before}, +20 skipped, +30 skipped, +40 waiting")
    );
    assert_eq!(reason(&scheduler, "skips", 30).await, "skipped: the task was paused");
    assert_eq!(
        fates(&scheduler, "catches up", 40).await,
        format!("{before}, +20 coalesced, +30 executed, +40 waiting")
    );
    // The trigger it has now had no run times before 35, and counts from 10; what the other one's came to is on record.
    assert_eq!(fates(&scheduler, "changes", 38).await, format!("{before}, +20 skipped, +38 paused"));
    assert_eq!(fates(&scheduler, "goes", 99).await, format!("{before}, +20 skipped"));
    let gone = scheduler.why("goes", at(20), at(20)).await.unwrap();
    let run = gone.times[0].run.as_ref().unwrap();
    assert_eq!((run.coalesced, run.span.unwrap().until), (1, at(35)), "two: at 20 and at 30");
    assert_eq!(
        fates(&scheduler, "later", 30).await,
        "+0 outside, +10 outside, +20 outside, +25 executed, +30 executed"
    );
    assert_eq!(
        reason(&scheduler, "later", 10).await,
        "before the first run that was asked for, at 2027-01-01T00:00:25Z"
    );
}

#[actix::test]
async fn runs_by_hand_are_listed_and_times_before_the_task_are_named() {
    let (scheduler, time, _) = board(|b| b).await;
    time.advance(secs(3600)).await;
    let hourly = Task::new("note").id("hourly").trigger("0 * * * *");
    time.advance(secs(60)).await;
    scheduler.add(hourly).await.unwrap();
    time.advance(secs(60)).await;
    scheduler.run_task("hourly").await.unwrap();
    time.advance(secs(3600)).await;
    assert_eq!(
        fates(&scheduler, "hourly", 7200).await,
        "+0 outside, +3600 outside, +3720 executed, +7200 executed"
    );
    assert_eq!(
        reason(&scheduler, "hourly", 3600).await,
        "before the task was added, at 2027-01-01T01:01:00Z"
    );
    assert_eq!(reason(&scheduler, "hourly", 3720).await, "run by hand: executed");
    let account = scheduler.why("hourly", at(3720), at(3720)).await.unwrap();
    assert_eq!(account.times[0].run.as_ref().unwrap().source, Source::Manual);
    scheduler.reschedule_task("hourly", Date::at(at(9000))).await.unwrap();
    time.advance(secs(7200)).await;
    assert_eq!(fates(&scheduler, "hourly", 99_999).await, "+3720 executed, +7200 executed, +9000 executed");
}

#[actix::test]
async fn a_store_says_how_much_it_keeps() {
    let (scheduler, time, _) =
        board(|b| b.store("two", MemoryStore::new().history(2)).store("none", MemoryStore::new().history(0)))
            .await;
    scheduler.add(every(10).id("a").store("two").coalesce(false)).await.unwrap();
    scheduler.add(every(10).id("b").store("none")).await.unwrap();
    for _ in 0..5 {
        time.advance(secs(10)).await;
    }
    assert_eq!(
        fates(&scheduler, "a", 50).await,
        "+0 forgotten, +10 forgotten, +20 forgotten, +30 forgotten, +40 executed, +50 executed"
    );
    assert_eq!(
        reason(&scheduler, "a", 0).await,
        "no record of it is kept any more (kept are the latest 2 runs of a task, at most 32 MiB of records)"
    );
    assert_eq!(reason(&scheduler, "b", 0).await, "its store keeps no records of runs");
    assert_eq!(scheduler.history("a", 9).await.unwrap().len(), 2);
    assert_eq!(scheduler.history("b", 9).await.unwrap().len(), 0);
}

/// Asks page by page, with as few as one run time a page.
async fn in_pages(scheduler: &Handle, id: &TaskId, to: i64, limit: usize) -> Account {
    let (mut from, to) = (at(0), at(to));
    let mut times = Vec::new();
    loop {
        let page = scheduler.send(Why::new(id.clone(), from, to, limit)).await.unwrap().unwrap();
        times.extend(page.times);
        match page.next {
            Some(next) => {
                assert!(next > from && next <= to, "from {from} on to {next}");
                from = next;
            }
            None => return Account { task: id.clone(), times, next: None },
        }
    }
}

#[derive(Debug, Clone)]
enum Op {
    Pause,
    Resume { catch_up: bool },
    Reschedule(u8),
    Run,
    PauseAll,
    ResumeAll,
    Advance(u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => Just(Op::Pause),
        3 => any::<bool>().prop_map(|catch_up| Op::Resume { catch_up }),
        1 => (3..20u8).prop_map(Op::Reschedule),
        1 => Just(Op::Run),
        1 => Just(Op::PauseAll),
        2 => Just(Op::ResumeAll),
        8 => (0..40u8).prop_map(Op::Advance),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens to a task, each run time has one outcome, and pages say the same as the whole.
    #[test]
    fn every_run_time_has_one_outcome(ops in proptest::collection::vec(op(), 1..40), late in 0..3u8, limit in 1..9usize) {
        actix::System::new().block_on(accounted(ops, late, limit));
    }
}

async fn accounted(ops: Vec<Op>, late: u8, limit: usize) {
    let (scheduler, time, _) = board(|b| b.store("default", MemoryStore::new().history(10_000))).await;
    let id = TaskId::new("a").unwrap();
    let task = every(5).id("a").max_instances(100);
    let task = match late {
        0 => task,
        1 => task.coalesce(false).max_catch_up(2),
        _ => task.misfire_grace(secs(2)),
    };
    scheduler.add(task).await.unwrap();
    // When each trigger was set, its first run time, and its period.
    let (mut now, mut triggers) = (0, vec![(0, 0, 5)]);
    for op in ops.clone() {
        match op {
            Op::Pause => drop(scheduler.pause_task("a").await.unwrap()),
            Op::Resume { catch_up } => {
                drop(scheduler.send(ResumeTask::new(id.clone(), catch_up)).await.unwrap().unwrap());
            }
            Op::Reschedule(period) => {
                let before = scheduler.task("a").await.unwrap().state.anchor;
                let info = scheduler.reschedule_task("a", Interval::seconds(period.into())).await.unwrap();
                if info.state.anchor != before || triggers.last().unwrap().2 != i64::from(period) {
                    let first = (info.state.anchor - at(0)).num_seconds();
                    triggers.push((now, first, i64::from(period)));
                }
            }
            Op::Run => {
                scheduler.run_task("a").await.unwrap();
                // A schedule that is set at the very instant of a run begins after it.
                time.advance(secs(1)).await;
                now += 1;
            }
            Op::PauseAll => scheduler.pause().await.unwrap(),
            Op::ResumeAll => scheduler.resume().await.unwrap(),
            Op::Advance(seconds) => {
                time.advance(secs(seconds.into())).await;
                now += i64::from(seconds);
            }
        }
        time.settle().await;
    }
    scheduler.resume().await.unwrap();
    scheduler.resume_task("a").await.unwrap();
    time.advance(secs(1)).await;
    now += 1;

    let account = in_pages(&scheduler, &id, now, 10_000).await;
    assert_eq!(in_pages(&scheduler, &id, now, limit).await, account, "in pages of {limit}: {ops:?}");
    let unsettled: Vec<_> = account
        .times
        .iter()
        .filter(|time| !time.fate.is_settled() || matches!(time.fate, Fate::Unknown | Fate::Forgotten))
        .collect();
    assert!(unsettled.is_empty(), "{unsettled:?} after {ops:?}");
    // The run times of all triggers that it had, from the records alone.
    let records = scheduler.history("a", 100_000).await.unwrap();
    for (index, (_, since, period)) in triggers.iter().enumerate() {
        let until = triggers.get(index + 1).map_or(now, |(next, ..)| *next);
        for second in (*since..until).step_by(*period as usize) {
            let owner = |record: &&callboard::task::RunRecord| {
                let stands_for = record.span.is_some_and(|span| span.contains(at(second)));
                record.source == Source::Scheduled && (record.nominal == at(second) || stands_for)
            };
            let count = records.iter().filter(owner).count();
            assert_eq!(count, 1, "{second} has {count} outcomes after {ops:?}: {records:#?}");
        }
    }
    scheduler.shutdown(Shutdown::now()).await.unwrap();
}
