//! Runs that fail and are tried again.

use callboard::backoff::Backoff;
use callboard::scheduler::message::{Crash, ResumeTask};
use callboard::store::{BackendSource, Faults, MemoryBackend, Op, SledStore, StoreError};
use callboard::task::{MAX_WAITING, Retry, ScheduleState, WhenFinished};
use proptest::prelude::*;

use super::*;

/// Tried again after three seconds, so many times.
fn again(times: u32) -> Retry {
    Retry::times(times).backoff(Backoff::fixed(secs(3)))
}

fn flaky(attempt: u32) -> Task {
    Task::new("flaky").args(attempt)
}

/// An end: second of the run time, number of the attempt, outcome, second of the next attempt.
pub(crate) type End = (i64, u32, &'static str, Option<i64>);

pub(crate) fn second(time: DateTime<Utc>) -> i64 {
    (time - at(0)).num_seconds()
}

/// The ends told of a task, in order.
pub(crate) fn ends(told: &[Event], id: &str) -> Vec<End> {
    let reports = told.iter().filter_map(|event| Some((event, event.report()?)));
    reports
        .filter(|(_, report)| report.task_id().as_str() == id)
        .map(|(event, report)| {
            let retry_at = report.end.retry_at.map(second);
            assert_eq!(retry_at.is_some(), matches!(event, Event::TaskRetried(_)), "{event:?}");
            (second(report.run.nominal), report.run.attempt, report.end.outcome.word(), retry_at)
        })
        .collect()
}

#[actix::test]
async fn a_run_that_fails_is_tried_again_and_the_schedule_goes_on() {
    let (scheduler, time, _) = board(|b| b).await;
    let mut events = scheduler.events(EventMask::TASK).await.unwrap();
    scheduler.add(flaky(3).id("a").trigger(Interval::seconds(10)).retry(again(3))).await.unwrap();
    scheduler.add(Task::new("panic").id("b").trigger(Interval::seconds(10)).retry(again(1))).await.unwrap();
    time.advance(secs(18)).await;
    let told = heard(&mut events);
    let failed =
        |nominal: i64, attempt: u32| (nominal, attempt, "failed", Some(nominal + 3 * i64::from(attempt)));
    assert_eq!(
        ends(&told, "a"),
        [
            failed(0, 1),
            failed(0, 2),
            (0, 3, "executed", None),
            failed(10, 1),
            failed(10, 2),
            (10, 3, "executed", None)
        ]
        .into_iter()
        .filter(|(nominal, attempt, ..)| nominal + 3 * i64::from(attempt - 1) <= 18)
        .collect::<Vec<_>>()
    );
    assert_eq!(
        ends(&told, "b"),
        [
            (0, 1, "panicked", Some(3)),
            (0, 2, "panicked", None),
            (10, 1, "panicked", Some(13)),
            (10, 2, "panicked", None)
        ]
    );
    let errors: Vec<_> = told.iter().filter(|event| matches!(event, Event::TaskError(_))).collect();
    assert_eq!(errors.len(), 2, "only the last attempt is an error");
    let info = scheduler.task("a").await.unwrap();
    assert_eq!((info.next_run_time(), info.state.fired, info.state.runs), (Some(at(20)), 2, 6));
    assert!(info.state.attempts.is_empty());
    assert_eq!(scheduler.status().await.unwrap().running, 0);
}

#[actix::test]
async fn a_schedule_that_has_ended_waits_for_its_last_attempt() {
    let (scheduler, time, _) = board(|b| b).await;
    let mut events = scheduler.events(EventMask::TASK).await.unwrap();
    let once = |id: &str, attempt| flaky(attempt).id(id).trigger(Date::at(at(10))).retry(again(2));
    scheduler.add(once("good", 3)).await.unwrap();
    scheduler.add(once("bad", 9)).await.unwrap();
    scheduler.add(once("kept", 2).when_finished(WhenFinished::Keep)).await.unwrap();
    time.advance(secs(14)).await;
    let info = scheduler.task("good").await.unwrap();
    assert_eq!((info.next_run_time(), info.schedule_state), (None, ScheduleState::Scheduled));
    assert_eq!(info.state.attempts[0].at, Some(at(16)));
    assert_eq!(scheduler.task("kept").await.unwrap().schedule_state, ScheduleState::Finished);
    time.advance(secs(10)).await;
    let told = heard(&mut events);
    for id in ["good", "bad"] {
        assert!(scheduler.task(id).await.unwrap_err().is_not_found());
        let of_task: Vec<_> =
            told.iter().filter(|e| e.task_id().is_some_and(|task| task.as_str() == id)).collect();
        assert!(matches!(of_task.last(), Some(Event::TaskRemoved { .. })), "{of_task:?}");
        assert_eq!(ends(&told, id).len(), 3);
    }
}

#[actix::test]
async fn a_pause_holds_attempts_back_and_a_delete_drops_them() {
    let (scheduler, time, _) = board(|b| b).await;
    let mut events = scheduler.events(EventMask::RUN_ENDED).await.unwrap();
    let task =
        |id: &str| flaky(9).id(id).trigger(Interval::seconds(1000)).retry(again(2)).misfire_grace(secs(1));
    for id in ["paused", "deleted", "plain"] {
        scheduler.add(task(id)).await.unwrap();
    }
    time.advance(secs(1)).await;
    scheduler.pause_task("paused").await.unwrap();
    scheduler.delete_task("deleted").await.unwrap();
    scheduler.update_task("plain", TaskChanges::new().retry(None)).await.unwrap();
    time.advance(secs(30)).await;
    let told = heard(&mut events);
    let first = (0, 1, "failed", Some(3));
    assert_eq!((ends(&told, "paused"), ends(&told, "deleted")), (vec![first], vec![first]));
    assert_eq!(ends(&told, "plain"), [first, (0, 2, "failed", None)], "what was promised is the last");
    // The pause is no lateness.
    scheduler.send(ResumeTask::new("paused".parse().unwrap(), false)).await.unwrap().unwrap();
    time.advance(secs(30)).await;
    assert_eq!(ends(&heard(&mut events), "paused"), [(0, 2, "failed", Some(34)), (0, 3, "failed", None)]);
    assert_eq!(scheduler.task("paused").await.unwrap().next_run_time(), Some(at(1000)));
}

#[actix::test]
async fn an_attempt_that_is_refused_or_late_has_its_outcome() {
    let (scheduler, time, _) = board(|b| b).await;
    let mut events = scheduler.events(EventMask::RUN_ENDED).await.unwrap();
    // The first fails at once, and while the second run goes on there is no place for its attempt.
    let code = |run: TaskContext, ()| async move {
        match run.nominal() == at(0) {
            true => Err("no"),
            false => {
                run.sleep(secs(5)).await;
                Ok(())
            }
        }
    };
    scheduler
        .add(Task::from_fn(code).id("a").trigger(Interval::seconds(2)).end_at(at(2)).retry(again(3)))
        .await
        .unwrap();
    scheduler
        .add(flaky(9).id("late").trigger(Date::at(at(0))).retry(again(3)).misfire_grace(secs(2)))
        .await
        .unwrap();
    time.advance(secs(1)).await;
    time.settle().await;
    time.advance(secs(3)).await;
    scheduler.pause().await.unwrap();
    time.advance(secs(6)).await;
    scheduler.resume().await.unwrap();
    time.advance(secs(60)).await;
    let told = heard(&mut events);
    assert_eq!(
        ends(&told, "a"),
        [
            (0, 1, "failed", Some(3)),
            (0, 2, "refused", Some(6)),
            (2, 1, "executed", None),
            (0, 3, "failed", Some(13)),
            (0, 4, "failed", None)
        ]
    );
    assert_eq!(
        ends(&told, "late"),
        [(0, 1, "failed", Some(3)), (0, 2, "failed", Some(6)), (0, 3, "missed", None)]
    );
}

#[actix::test]
async fn what_waits_does_not_pile_up() {
    let (scheduler, time, _) = board(|b| b).await;
    let mut events = scheduler.events(EventMask::TASK_ERROR).await.unwrap();
    let retry = Retry::times(1).backoff(Backoff::fixed(secs(10_000)));
    scheduler.add(flaky(9).id("a").trigger(Interval::seconds(1)).retry(retry)).await.unwrap();
    time.advance(secs(MAX_WAITING as u64 + 9)).await;
    assert_eq!(scheduler.task("a").await.unwrap().state.attempts.len(), MAX_WAITING);
    assert_eq!(heard(&mut events).len(), 10, "the others have failed for good");
}

#[actix::test]
async fn a_removal_whose_answer_is_lost_is_told_once() {
    for lose in [false, true] {
        let faults = Faults::new();
        let store = BackendSource::keeping(faults.around(MemoryBackend::default()));
        let (scheduler, time, _) = board(move |b| b.store("default", store)).await;
        let mut events = scheduler.events(EventMask::ALL).await.unwrap();
        let nap = Task::new("nap").args(1).id("a").trigger(Date::at(at(0))).retry(again(1));
        scheduler.add(nap).await.unwrap();
        time.advance(Duration::from_millis(500)).await;
        let trouble = StoreError::unavailable("the connection broke");
        if lose {
            faults.lose(Op::Commit, trouble)
        } else {
            faults.fail(Op::Commit, trouble)
        }
        time.advance(secs(60)).await;
        let told = heard(&mut events);
        let removed = told.iter().filter(|event| matches!(event, Event::TaskRemoved { .. })).count();
        assert_eq!((removed, ends(&told, "a")), (1, vec![(0, 1, "executed", None)]), "{told:#?}");
    }
}

#[actix::test]
async fn back_off_and_jitter_are_the_same_each_time() {
    let told = async || {
        let (scheduler, time, _) = board(|b| b).await;
        let mut events = scheduler.events(EventMask::RUN_ENDED).await.unwrap();
        let backoff = Backoff::exponential(secs(10), secs(60)).jitter(0.5);
        scheduler
            .add(flaky(9).id("a").trigger(Date::at(at(0))).retry(Retry::times(5).backoff(backoff)))
            .await
            .unwrap();
        time.advance(secs(1000)).await;
        let told = heard(&mut events);
        told.iter().map(|e| e.report().unwrap().end.clone()).collect::<Vec<_>>()
    };
    let (one, other) = (told().await, told().await);
    let at = |ends: &[Arc<RunEnd>]| ends.iter().map(|end| end.retry_at).collect::<Vec<_>>();
    assert_eq!(at(&one), at(&other));
    let delays: Vec<_> =
        one.iter().filter_map(|end| Some((end.retry_at? - end.ended_at).num_seconds())).collect();
    assert_eq!(delays.len(), 5);
    for (delay, full) in delays.iter().zip([10, 20, 40, 60, 60]) {
        assert!((full / 2 - 1..=full).contains(delay), "{delays:?}");
    }
}

#[actix::test]
async fn a_run_by_hand_is_tried_again_as_one() {
    let (scheduler, time, _) = board(|b| b).await;
    let mut events = scheduler.events(EventMask::TASK_SUBMITTED).await.unwrap();
    scheduler.add(flaky(2).id("a").trigger(Date::at(at(1000))).retry(again(2)).paused(true)).await.unwrap();
    scheduler.resume_task("a").await.unwrap();
    scheduler.run_task("a").await.unwrap();
    time.advance(secs(10)).await;
    let runs: Vec<_> = heard(&mut events)
        .into_iter()
        .map(|event| match event {
            Event::TaskSubmitted(fact) => (fact.0.source, fact.0.attempt, second(fact.0.nominal)),
            other => panic!("{other:?}"),
        })
        .collect();
    use callboard::task::Source::Manual;
    assert_eq!(runs, [(Manual, 1, 0), (Manual, 2, 0)]);
    assert_eq!(scheduler.task("a").await.unwrap().state.fired, 0);
}

/// Every nominal time has one end that is final, and the attempts before it are numbered in order.
fn one_outcome_each(ends: &[End]) -> BTreeMap<i64, &'static str> {
    let mut seen: BTreeMap<i64, (u32, Option<&'static str>)> = BTreeMap::new();
    for (nominal, attempt, word, retry_at) in ends {
        let entry = seen.entry(*nominal).or_insert((0, None));
        assert_eq!((entry.0 + 1, entry.1), (*attempt, None), "{nominal}: {ends:?}");
        *entry = (*attempt, retry_at.is_none().then_some(word));
    }
    seen.into_iter().filter_map(|(nominal, (_, word))| Some((nominal, word?))).collect()
}

#[actix::test]
async fn trouble_with_the_store_at_the_end_loses_no_end() {
    let trouble = || StoreError::unavailable("the disk is full");
    for op in [Op::Get, Op::Commit] {
        for lose in [false, true] {
            for (attempt, last) in [(9, "failed"), (2, "executed")] {
                let faults = Faults::new();
                let store = BackendSource::keeping(faults.around(MemoryBackend::default()));
                let (scheduler, time, _) = board(move |b| b.store("default", store)).await;
                let mut events = scheduler.events(EventMask::ALL).await.unwrap();
                // The run goes on for a second, so that its commit is not the one that is hit.
                let code = move |run: TaskContext, ()| async move {
                    run.sleep(secs(1)).await;
                    if run.attempt() < attempt { Err("no") } else { Ok(()) }
                };
                scheduler
                    .add(Task::from_fn(code).id("a").trigger(Interval::seconds(100)).retry(again(2)))
                    .await
                    .unwrap();
                time.advance(Duration::from_millis(500)).await;
                if lose {
                    faults.lose(op, trouble());
                } else {
                    faults.fail(op, trouble());
                }
                time.advance(secs(90)).await;
                assert_eq!(faults.left(), 0, "{op:?}");
                let told = heard(&mut events);
                let outcomes = one_outcome_each(&ends(&told, "a"));
                assert_eq!(outcomes, BTreeMap::from([(0, last)]), "{op:?} {lose}: {told:#?}");
                let info = scheduler.task("a").await.unwrap();
                assert!(info.state.attempts.is_empty(), "{info:?}");
                assert_eq!(info.next_run_time(), Some(at(100)));
            }
        }
    }
}

#[actix::test]
async fn a_scheduler_that_dies_while_an_end_is_written_tells_of_it_once() {
    for op in [Op::Get, Op::Commit] {
        let faults = Faults::new();
        let store = BackendSource::keeping(faults.around(MemoryBackend::default()));
        let (scheduler, time, _) = board(move |b| b.store("default", store)).await;
        let mut events = scheduler.events(EventMask::ALL).await.unwrap();
        let code = |run: TaskContext, ()| async move {
            run.sleep(secs(1)).await;
            Err::<(), _>("no")
        };
        scheduler
            .add(Task::from_fn(code).id("a").trigger(Interval::seconds(100)).retry(again(2)))
            .await
            .unwrap();
        time.advance(Duration::from_millis(500)).await;
        let held = faults.hold(op);
        let turning = time.clone();
        let turn = async move { turning.advance(secs(90)).await };
        let crash = async {
            while faults.left() > 0 {
                tokio::task::yield_now().await;
            }
            scheduler.send(Crash).await.unwrap_err();
            drop(held);
        };
        futures::join!(turn, crash);
        time.advance(secs(5)).await;
        let told = heard(&mut events);
        assert_eq!(one_outcome_each(&ends(&told, "a")), BTreeMap::from([(0, "failed")]), "{op:?}: {told:#?}");
        assert_eq!(ends(&told, "a").len(), 3);
        assert!(scheduler.task("a").await.unwrap().state.attempts.is_empty());
    }
}

#[actix::test]
async fn what_waits_to_be_tried_again_outlives_the_process() {
    let base = tempfile::tempdir().unwrap();
    let store = SledStore::open(base.path().join("store")).unwrap();
    let (scheduler, time, ran) = board(move |b| b.store("default", store)).await;
    scheduler.add(flaky(3).id("a").trigger(Interval::seconds(1000)).retry(again(3))).await.unwrap();
    time.advance(secs(4)).await;
    let records = scheduler.history("a", 9).await.unwrap();
    let shown: Vec<_> = records
        .iter()
        .map(|record| {
            let end = record.end.as_ref().unwrap();
            (record.attempt, end.outcome.word(), end.retry_at.map(second), second(record.submitted_at))
        })
        .collect();
    assert_eq!(shown, [(2, "failed", Some(6), 3), (1, "failed", Some(3), 0)]);
    // The process is killed: what it leaves is what is on disk by now.
    let left = base.path().join("left");
    copy(&base.path().join("store"), &left);
    let time = VirtualClock::starting_at("2027-01-01T00:01:00Z");
    let (next, mut events) = successor(&time, &ran, &left).await;
    time.advance(secs(10)).await;
    assert_eq!(ends(&heard(&mut events), "a"), [(0, 3, "executed", None)]);
    let info = next.task("a").await.unwrap();
    assert_eq!((info.next_run_time(), info.state.attempts.len()), (Some(at(1000)), 0));
    assert_eq!(next.history("a", 9).await.unwrap().len(), 3);
    next.shutdown(Shutdown::now()).await.unwrap();
    scheduler.shutdown(Shutdown::now()).await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever fails, how often and for how long it runs: each nominal time comes to one outcome,
    /// and runs come when the trigger says, in the memory store and in one on disk.
    #[test]
    fn each_nominal_time_has_one_final_outcome(
        fails in proptest::collection::vec((0u32..5, 0u64..7), 1..9),
        times in 0u32..4, delay in 0u64..12, instances in 1u32..4, durable: bool,
    ) {
        actix::System::new().block_on(async move {
            let base = tempfile::tempdir().unwrap();
            let path = base.path().join("store");
            let set = |b: Builder| if durable { b.store("default", SledStore::open(&path).unwrap()) } else { b };
            let time = VirtualClock::starting_at(START);
            let count = fails.len() as i64;
            let plan = fails.clone();
            // Fails so often, each time after so long.
            let registry = Registry::new().register("planned", move |run: TaskContext, ()| {
                let index = (second(run.nominal()) / 10) as usize;
                let (fails, length) = plan[index];
                async move {
                    run.sleep(secs(length)).await;
                    if run.attempt() <= fails { Err("as planned") } else { Ok(()) }
                }
            });
            let builder = Scheduler::builder().clock(time.clock()).registry(registry);
            let scheduler = set(builder).start().await.unwrap();
            let mut events = scheduler.events(EventMask::ALL).await.unwrap();
            let retry = Retry::times(times).backoff(Backoff::fixed(secs(delay)));
            let task = Task::new("planned").id("a").trigger(Interval::seconds(10)).max_runs(count as u64);
            scheduler.add(task.retry(retry).max_instances(instances).when_finished(WhenFinished::Keep)).await.unwrap();
            time.advance(secs(1000)).await;
            let told = heard(&mut events);
            let ends = ends(&told, "a");
            let outcomes = one_outcome_each(&ends);
            let nominal: Vec<_> = outcomes.keys().copied().collect();
            assert_eq!(nominal, (0..count).map(|n| n * 10).collect::<Vec<_>>(), "{ends:?}");
            let firsts: Vec<_> = told
                .iter()
                .filter_map(|event| match event {
                    Event::TaskSubmitted(fact) if fact.0.attempt == 1 => Some((fact.0.nominal, fact.0.due)),
                    _ => None,
                })
                .collect();
            assert!(firsts.iter().all(|(nominal, due)| nominal == due), "the schedule does not shift");
            assert_eq!(firsts.len() as i64, count);
            for (nominal, word) in outcomes {
                let (fails, _) = fails[(nominal / 10) as usize];
                let last = ends.iter().rfind(|end| end.0 == nominal).unwrap();
                match word {
                    "executed" => assert!(last.1 > fails, "{ends:?}"),
                    "failed" => assert_eq!(last.1, times + 1, "{ends:?}"),
                    "refused" => assert!(last.1 == 1 || last.1 == times + 1, "{ends:?}"),
                    other => panic!("{other}"),
                }
            }
            let info = scheduler.task("a").await.unwrap();
            assert_eq!((info.schedule_state, info.state.fired as i64), (ScheduleState::Finished, count));
            if durable {
                let records = scheduler.history("a", 1000).await.unwrap();
                assert_eq!(records.len(), ends.len());
                let last = records.iter().filter(|record| record.end.as_ref().unwrap().retry_at.is_none());
                assert_eq!(last.count() as i64, count);
            }
            scheduler.shutdown(Shutdown::now()).await.unwrap();
        });
    }
}
