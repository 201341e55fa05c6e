//! A start with something that does not work: the rest runs. Stores that are held, tasks that move.

use callboard::Error;
use callboard::scheduler::SchedulerState;
use callboard::scheduler::message::TaskList;
use callboard::store::{BackendSource, Faults, MemoryBackend, Op, StoreError};
use callboard::task::ScheduleState;

use super::*;

fn down() -> StoreError {
    StoreError::unavailable("the network is down")
}

/// A store does not open for more than half a minute.
fn stay_shut(faults: &Faults) {
    (0..7).for_each(|_| faults.fail(Op::Open, down()));
}

/// A stopped scheduler with a store that works and one that may not.
fn two_stores(strict: bool) -> (Handle, VirtualClock, Ran, Faults) {
    let (time, ran, faults) = (VirtualClock::starting_at(START), Ran::default(), Faults::new());
    let builder = Scheduler::builder().clock(time.clock()).registry(ran.registry()).strict(strict);
    let builder = builder
        .store("default", MemoryStore::new())
        .store("far", BackendSource::keeping(faults.around(MemoryBackend::default())));
    (builder.build().unwrap(), time, ran, faults)
}

async fn state(scheduler: &Handle, id: &str) -> ScheduleState {
    let tasks =
        scheduler.send(callboard::scheduler::message::ListTasks(TaskQuery::new().store("default"))).await;
    let tasks = tasks.unwrap().unwrap().complete().unwrap();
    tasks.iter().find(|task| task.id().as_str() == id).unwrap().schedule_state
}

#[actix::test]
async fn a_store_that_cannot_be_opened_at_the_start_is_opened_later_and_the_rest_runs() {
    let (scheduler, time, ran, faults) = two_stores(false);
    scheduler.add(every(10).id("near")).await.unwrap();
    scheduler.add(every(10).id("far").store("far")).await.unwrap();
    stay_shut(&faults);
    let started = scheduler.start().await.unwrap();
    assert!(
        matches!(&started.stores[..], [(store, Error::Store { .. })] if store.as_str() == "far"),
        "{started:?}"
    );
    assert!(started.tasks.is_empty() && !started.is_complete());
    time.advance(secs(30)).await;
    assert_eq!((ran.count("near"), ran.count("far")), (4, 0));
    let status = scheduler.status().await.unwrap();
    assert_eq!((status.state, status.pending), (SchedulerState::Running, 1));
    assert!(status.stores.iter().any(|store| store.problem.is_some()));

    time.advance(secs(300)).await;
    assert_eq!(scheduler.status().await.unwrap().pending, 0);
    assert!(ran.count("far") > 5, "it is put into its store when that opens");
}

#[actix::test]
async fn tasks_are_listed_although_another_store_cannot_be_asked() {
    let (scheduler, time, _ran, faults) = two_stores(false);
    scheduler.add(every(10).id("near")).await.unwrap();
    scheduler.add(every(10).id("far").store("far")).await.unwrap();
    stay_shut(&faults);
    scheduler.start().await.unwrap();
    time.settle().await;
    let ids = |list: &TaskList| list.tasks.iter().map(|task| task.id().to_string()).collect::<Vec<_>>();
    let query = || TaskQuery::new().sort(callboard::task::SortKey::Id);
    let is_down = |list: &TaskList| matches!(&list.unasked[..], [(store, Error::Store { .. })] if store.as_str() == "far");
    // One that has not been opened; what waits for it is pending, and known.
    let some = scheduler.list_tasks(query()).await.unwrap();
    assert!(is_down(&some) && ids(&some) == ["far", "near"], "{some:?}");
    time.advance(secs(300)).await;
    let all = scheduler.list_tasks(query()).await.unwrap();
    assert!(all.unasked.is_empty() && ids(&all) == ["far", "near"], "{all:?}");
    // One that fails while it is asked.
    faults.fail(Op::List, down());
    let some = scheduler.list_tasks(query()).await.unwrap();
    assert!(is_down(&some) && ids(&some) == ["near"], "{some:?}");
    faults.fail(Op::List, down());
    assert!(matches!(scheduler.tasks(query()).await, Err(Error::Store { .. })), "all of them, or an error");
    assert_eq!(scheduler.tasks(query().store("default")).await.unwrap().len(), 1);
    faults.fail(Op::List, down());
    assert!(is_down(&scheduler.list_tasks(query().store("far")).await.unwrap()));
    scheduler.shutdown(Shutdown::now()).await.unwrap();
}

#[actix::test]
async fn a_start_without_any_store_or_a_strict_one_without_one_store_fails_and_leaves_nothing() {
    let (scheduler, _, _, faults) = two_stores(true);
    scheduler.add(every(10).id("near")).await.unwrap();
    faults.fail(Op::Open, down());
    assert!(matches!(scheduler.start().await, Err(Error::Store { store, .. }) if store.as_str() == "far"));
    let status = scheduler.status().await.unwrap();
    assert_eq!((status.state, status.pending), (SchedulerState::Stopped, 1));
    assert!(scheduler.start().await.unwrap().is_complete());

    let faults = Faults::new();
    faults.fail(Op::Open, down());
    let store = BackendSource::keeping(faults.around(MemoryBackend::default()));
    let time = VirtualClock::starting_at(START);
    let error = Scheduler::builder().clock(time.clock()).store("default", store).start().await.unwrap_err();
    assert!(matches!(error, Error::Store { .. }), "{error:?}");
}

#[actix::test]
async fn one_pending_task_that_cannot_be_added_keeps_no_other_waiting() {
    for strict in [false, true] {
        let (scheduler, time, ran, _) = two_stores(strict);
        scheduler.start().await.unwrap();
        scheduler.add(every(10).id("b").first_run(at(50))).await.unwrap();
        scheduler.shutdown(Shutdown::now()).await.unwrap();
        for id in ["a", "b", "c"] {
            scheduler.add(every(10).id(id)).await.unwrap();
        }
        let started = scheduler.start().await;
        if strict {
            assert!(matches!(started, Err(Error::TaskExists(_))), "{started:?}");
            assert_eq!(scheduler.status().await.unwrap().state, SchedulerState::Stopped);
            continue;
        }
        let left_out = started.unwrap().tasks;
        assert!(matches!(&left_out[..], [(id, Error::TaskExists(_))] if id.as_str() == "b"), "{left_out:?}");
        time.advance(secs(20)).await;
        assert_eq!((ran.count("a"), ran.count("b"), ran.count("c")), (3, 0, 3));
        assert_eq!(scheduler.status().await.unwrap().pending, 1, "it is not lost");

        // What is added under its name takes its place; and it can be deleted.
        scheduler.add(every(10).id("b").replace_existing(true)).await.unwrap();
        assert_eq!(scheduler.status().await.unwrap().pending, 0);
        assert_eq!(state(&scheduler, "b").await, ScheduleState::Scheduled);
    }
}

#[actix::test]
async fn a_task_that_waits_for_its_store_can_be_deleted() {
    let (scheduler, time, ran, faults) = two_stores(false);
    scheduler.add(every(10).id("far").store("far")).await.unwrap();
    stay_shut(&faults);
    scheduler.start().await.unwrap();
    // Whether the store has another one of that id is not known.
    let deleted = scheduler.delete_task("far").await;
    assert!(deleted.is_ok() || deleted.is_err_and(|error| error.is_retryable()));
    assert_eq!(scheduler.status().await.unwrap().pending, 0);
    time.advance(secs(300)).await;
    assert_eq!(ran.count("far"), 0);
}

#[actix::test]
async fn a_store_that_is_paused_begins_no_runs_and_others_do() {
    let (scheduler, time, ran, faults) = two_stores(false);
    scheduler.pause_store("nowhere").await.unwrap_err();
    scheduler.start().await.unwrap();
    scheduler.add(every(10).id("near")).await.unwrap();
    scheduler.add(every(10).id("far").store("far")).await.unwrap();
    time.advance(secs(15)).await;
    scheduler.pause_store("far").await.unwrap();
    let before = ran.count("far");
    time.advance(secs(40)).await;
    assert_eq!((before, ran.count("far")), (2, 2));
    assert!(ran.count("near") > 4);
    let paused = |status: &callboard::scheduler::SchedulerStatus| -> Vec<bool> {
        status.stores.iter().map(|store| store.paused).collect()
    };
    assert_eq!(paused(&scheduler.status().await.unwrap()), [false, true]);

    // Also when it is opened again meanwhile.
    faults.fail(Op::Get, down());
    scheduler.pause_task("far").await.unwrap_err();
    time.advance(secs(40)).await;
    assert_eq!(ran.count("far"), 2);
    scheduler.resume_store("far").await.unwrap();
    time.advance(secs(10)).await;
    assert!(ran.count("far") > 2);
}

#[actix::test]
async fn a_task_moves_with_its_state_and_is_never_in_two_stores() {
    let (scheduler, time, ran, _) = two_stores(false);
    scheduler.start().await.unwrap();
    scheduler.add(every(10).id("a").max_runs(6)).await.unwrap();
    time.advance(secs(15)).await;
    scheduler.pause_task("a").await.unwrap();
    let before = scheduler.task("a").await.unwrap();
    let moved = scheduler.move_task("a", "far").await.unwrap();
    assert_eq!(
        (moved.store.as_str(), moved.state.paused, moved.state.runs),
        ("far", true, before.state.runs)
    );
    assert_eq!((moved.state.next, moved.state.created_at), (before.state.next, before.state.created_at));
    assert_eq!(scheduler.tasks(TaskQuery::new()).await.unwrap().len(), 1);
    assert_eq!(scheduler.move_task("a", "far").await.unwrap().store.as_str(), "far", "it is there already");
    scheduler.resume_task("a").await.unwrap();
    time.advance(secs(100)).await;
    assert_eq!(ran.count("a"), 6, "its runs are counted on");

    assert!(scheduler.move_task("a", "default").await.unwrap_err().is_not_found(), "its schedule has ended");
    scheduler.add(every(10).id("b")).await.unwrap();
    time.advance(secs(1)).await;
    scheduler.add(every(10).id("b").store("far")).await.unwrap();
    assert!(matches!(scheduler.move_task("b", "far").await, Err(Error::TaskExists(_))));
    assert!(scheduler.move_task("b", "nowhere").await.unwrap_err().is_not_found());
    scheduler.add(Task::new("hang").id("long").trigger(every_hour())).await.unwrap();
    // Its first run begins at once.
    time.advance(secs(1)).await;
    assert!(matches!(scheduler.move_task("long", "far").await, Err(Error::TaskRuns(_))));
    scheduler.shutdown(Shutdown::now()).await.unwrap();
}

fn every_hour() -> Interval {
    Interval::seconds(3600)
}

#[actix::test]
async fn a_move_that_is_cut_off_anywhere_leaves_one_task_after_the_next() {
    for (op, from, to) in [(Op::Put, "default", "far"), (Op::Delete, "far", "default")] {
        for written in [true, false] {
            let (scheduler, time, ran, faults) = two_stores(false);
            scheduler.start().await.unwrap();
            scheduler.add(every(10).id("a").store(from)).await.unwrap();
            time.advance(secs(15)).await;
            match written {
                true => faults.lose(op, down()),
                false => faults.fail(op, down()),
            }
            let told = scheduler.move_task("a", to).await.unwrap_err();
            assert!(told.is_retryable(), "{op:?} {written} {told:?}");
            // The store works again; the task has run on, where it was or is.
            time.advance(secs(120)).await;
            assert_eq!(scheduler.move_task("a", to).await.unwrap().store.as_str(), to, "{op:?} {written}");
            let tasks = scheduler.tasks(TaskQuery::new()).await.unwrap();
            assert_eq!(tasks.len(), 1, "{op:?} {written}");
            let before = ran.count("a");
            time.advance(secs(30)).await;
            assert_eq!(ran.count("a"), before + 3, "{op:?} {written}");
        }
    }
}
