//! A task is deleted and added again while something of the former one is still under way.

use callboard::backoff::Backoff;
use callboard::store::{BackendSource, Faults, MemoryBackend, Op, SledStore, StoreError};
use callboard::task::{Fate, Retry};

use super::retry::{ends, second};
use super::*;

fn again(times: u32) -> Retry {
    Retry::times(times).backoff(Backoff::fixed(secs(3)))
}

/// Its first run fails after 5 s, those after it go well after 20 s.
fn first_fails() -> Task {
    let runs = Arc::new(Mutex::new(0));
    Task::from_fn(move |run: TaskContext, ()| {
        let first = {
            let mut runs = runs.lock().unwrap();
            *runs += 1;
            *runs == 1
        };
        async move {
            run.sleep(secs(if first { 5 } else { 20 })).await;
            if first { Err("no paper") } else { Ok(()) }
        }
    })
    .id("a")
    .max_instances(2)
    .retry(again(2))
}

/// What a task has run that is deleted and added again, with a first run at once, `before` seconds
/// after it was added and while its run goes on.
async fn ends_of_both(before: i64) {
    let (scheduler, time, _) = board(|b| b).await;
    let mut events = scheduler.events(EventMask::ALL).await.unwrap();
    let task = first_fails();
    time.advance_to(at(10 - before)).await;
    scheduler.add(task.clone().trigger(Date::at(at(10)))).await.unwrap();
    time.advance_to(at(10)).await;
    time.settle().await;
    assert_eq!(scheduler.task("a").await.unwrap().running, 1);
    scheduler.delete_task("a").await.unwrap();
    scheduler.add(task.trigger(Date::at(at(10)))).await.unwrap();
    time.settle().await;
    let info = scheduler.task("a").await.unwrap();
    assert_eq!((info.running, info.state.attempts.len()), (2, 1), "the count is what is really running");
    time.advance(secs(6)).await;
    let info = scheduler.task("a").await.unwrap();
    assert_eq!((info.running, info.state.attempts.len()), (1, 1), "its own run goes on");
    assert_eq!(info.state.attempts[0].at, None);
    time.advance(secs(60)).await;
    let told = heard(&mut events);
    assert_eq!(
        ends(&told, "a"),
        [(10, 1, "failed", None), (10, 1, "executed", None)],
        "{before} s: the one that failed has no task that would try it again: {told:#?}"
    );
    assert_eq!(told.iter().filter(|event| matches!(event, Event::TaskRemoved { .. })).count(), 2);
    assert!(scheduler.task("a").await.unwrap_err().is_not_found());
    assert_eq!(scheduler.status().await.unwrap().running, 0);
}

#[actix::test]
async fn the_end_of_a_run_is_not_taken_for_that_of_a_task_added_since() {
    ends_of_both(5).await;
}

/// Nothing but chance tells two tasks apart that were added at the same instant.
#[actix::test]
async fn nor_is_it_when_both_were_added_at_one_instant() {
    ends_of_both(0).await;
}

#[actix::test]
async fn a_fill_in_of_a_deleted_task_does_not_settle_that_of_the_next() {
    let (scheduler, time, _) = board(|b| b).await;
    let mut events = scheduler.events(EventMask::RUN_ENDED).await.unwrap();
    let task = first_fails().trigger(Interval::seconds(1000).start_at(at(0))).first_run(at(9000));
    time.advance_to(at(1500)).await;
    for _ in 0..2 {
        scheduler.add(task.clone()).await.unwrap();
        scheduler.backfill("a", at(0), at(1), secs(1)).await.unwrap();
        time.settle().await;
        assert_eq!(scheduler.task("a").await.unwrap().state.attempts.len(), 1);
        if scheduler.task("a").await.unwrap().running == 1 {
            scheduler.delete_task("a").await.unwrap();
        }
    }
    time.advance(secs(6)).await;
    let info = scheduler.task("a").await.unwrap();
    assert_eq!((info.running, info.state.attempts[0].at), (1, None));
    time.advance(secs(60)).await;
    assert_eq!(ends(&heard(&mut events), "a"), [(0, 1, "failed", None), (0, 1, "executed", None)]);
    assert!(scheduler.task("a").await.unwrap().state.attempts.is_empty());
}

/// It is not known whether the run of the former task was decided: the present one does not tell.
#[actix::test]
async fn a_run_in_doubt_is_not_judged_by_a_task_added_since() {
    let faults = Faults::new();
    let store = BackendSource::keeping(faults.around(MemoryBackend::default()));
    let (scheduler, time, ran) = board(move |b| b.store("default", store)).await;
    let mut events = scheduler.events(EventMask::ALL).await.unwrap();
    scheduler.add(every(1000).id("a").first_run(at(10))).await.unwrap();
    let down = || StoreError::unavailable("the network is down");
    faults.lose(Op::Commit, down());
    time.advance(secs(10)).await;
    assert_eq!(scheduler.status().await.unwrap().running, 1, "nobody knows yet");
    scheduler.delete_task("a").await.unwrap();
    scheduler.add(every(1000).id("a").first_run(at(10))).await.unwrap();
    time.advance(secs(30)).await;
    assert_eq!(faults.left(), 0);
    let told = heard(&mut events);
    assert_eq!(ends(&told, "a"), [(10, 1, "interrupted", None), (10, 1, "executed", None)], "{told:#?}");
    assert_eq!(ran.of("a").into_iter().map(second).collect::<Vec<_>>(), [10]);
}

#[actix::test]
async fn a_removal_that_was_not_answered_is_told_before_the_task_is_added_again() {
    let faults = Faults::new();
    let store = BackendSource::keeping(faults.around(MemoryBackend::default()));
    let (scheduler, time, _) = board(move |b| b.store("default", store)).await;
    let mut events = scheduler.events(EventMask::ALL).await.unwrap();
    scheduler.add(every(1000).id("a").first_run(at(500))).await.unwrap();
    faults.lose(Op::Delete, StoreError::unavailable("the network is down"));
    scheduler.delete_task("a").await.unwrap_err();
    scheduler.add(every(1000).id("a").first_run(at(500))).await.unwrap();
    time.advance(secs(60)).await;
    let told = heard(&mut events);
    let told: Vec<_> = told
        .iter()
        .filter_map(|event| match event {
            Event::TaskAdded { .. } => Some("added"),
            Event::TaskRemoved { .. } => Some("removed"),
            _ => None,
        })
        .collect();
    assert_eq!(told, ["added", "removed", "added"]);
}

#[actix::test]
async fn what_a_deleted_task_would_have_tried_again_is_no_more_waited_for() {
    let (scheduler, time, _) = board(|b| b).await;
    let task = Task::new("fail").id("a").trigger(Date::at(at(10))).retry(again(2));
    scheduler.add(task).await.unwrap();
    time.advance(secs(11)).await;
    let told = async || {
        let account = scheduler.why("a", at(10), at(10)).await.unwrap();
        (account.times[0].fate, account.times[0].reason.clone())
    };
    assert_eq!(told().await.0, Fate::Retrying);
    scheduler.delete_task("a").await.unwrap();
    let (fate, reason) = told().await;
    assert!(fate == Fate::Failed && reason.contains("removed before it was tried again"), "{reason}");
    scheduler.add(every(1000).id("a").first_run(at(500))).await.unwrap();
    assert_eq!(told().await, (fate, reason), "nor by the task that has its id now");
}

/// The process is killed while a run of either goes on: the record that is told to come again is that
/// of the task that is there.
#[actix::test]
async fn after_a_crash_the_run_of_the_present_task_comes_again_and_not_that_of_the_former() {
    let base = tempfile::tempdir().unwrap();
    let place = base.path().join("store");
    let store = SledStore::open(&place).unwrap();
    let (scheduler, time, _) = board(move |b| b.store("default", store)).await;
    let task = || Task::new("nap").args(100).id("a").trigger(Date::at(at(10))).max_instances(2).recover(true);
    scheduler.add(task()).await.unwrap();
    time.advance(secs(10)).await;
    scheduler.delete_task("a").await.unwrap();
    scheduler.add(task()).await.unwrap();
    time.settle().await;
    assert_eq!(scheduler.task("a").await.unwrap().running, 2);
    let copied = base.path().join("copy");
    copy(&place, &copied);
    scheduler.shutdown(Shutdown::now()).await.unwrap();

    let time = VirtualClock::new(at(20));
    let (scheduler, mut events) = successor(&time, &Ran::default(), &copied).await;
    time.advance(secs(200)).await;
    let told = heard(&mut events);
    let mut cut_off: Vec<_> = told
        .iter()
        .filter_map(|event| match event {
            Event::RunInterrupted { record, .. } => {
                Some((record.id, record.end.as_ref().unwrap().retry_at.map(second)))
            }
            _ => None,
        })
        .collect();
    cut_off.sort();
    let retries: Vec<_> = cut_off.into_iter().map(|(_, again)| again).collect();
    assert_eq!(retries, [None, Some(20)], "{told:#?}");
    assert_eq!(ends(&told, "a"), [(10, 2, "executed", None)]);
    scheduler.shutdown(Shutdown::now()).await.unwrap();
}
