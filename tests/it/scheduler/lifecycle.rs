//! Start, stop, pause; stores and executors that come and go.

use callboard::Error;
use callboard::scheduler::SchedulerState;
use callboard::task::ScheduleState;

use super::*;

async fn stopped() -> (Handle, VirtualClock, Ran) {
    let time = VirtualClock::starting_at(START);
    let ran = Ran::default();
    let handle = Scheduler::builder().clock(time.clock()).registry(ran.registry()).build().unwrap();
    (handle, time, ran)
}

#[actix::test]
async fn tasks_added_before_the_start_wait_for_it() {
    let (scheduler, time, ran) = stopped().await;
    scheduler.add(every(10).id("a")).await.unwrap();
    scheduler.add(every(10).id("b")).await.unwrap();
    scheduler.add(every(10).id("c")).await.unwrap();
    assert!(matches!(scheduler.add(every(9).id("a")).await, Err(Error::TaskExists(_))));
    assert!(scheduler.add(Task::new("nobody").trigger(Interval::seconds(1))).await.is_err());
    let info = scheduler.update_task("a", TaskChanges::new().name("first")).await.unwrap();
    assert_eq!((info.spec.label(), info.schedule_state), ("first", ScheduleState::Pending));
    scheduler.pause_task("b").await.unwrap();
    scheduler.delete_task("c").await.unwrap();
    assert_eq!(scheduler.tasks(TaskQuery::new()).await.unwrap().len(), 2);
    assert_eq!(scheduler.status().await.unwrap().pending, 2);
    time.advance(secs(60)).await;
    assert_eq!(ran.count("a"), 0);

    scheduler.start().await.unwrap();
    time.advance(secs(10)).await;
    assert_eq!(ran.of("a"), [at(60), at(70)]);
    assert_eq!(scheduler.task("a").await.unwrap().spec.label(), "first");
    assert_eq!(scheduler.task("b").await.unwrap().schedule_state, ScheduleState::Paused);
    assert_eq!(scheduler.status().await.unwrap().pending, 0);
}

#[actix::test]
async fn starts_nest_and_shutdown_works_from_every_state() {
    let (scheduler, time, ran) = stopped().await;
    scheduler.shutdown(Shutdown::now()).await.unwrap();
    scheduler.add(every(10).id("a")).await.unwrap();
    scheduler.start().await.unwrap();
    scheduler.start().await.unwrap();
    scheduler.shutdown(Shutdown::now()).await.unwrap();
    assert!(scheduler.status().await.unwrap().is_running(), "only the outermost shutdown acts");
    scheduler.shutdown(Shutdown::now()).await.unwrap();
    assert_eq!(scheduler.status().await.unwrap().state, SchedulerState::Stopped);
    scheduler.shutdown(Shutdown::now()).await.unwrap();
    let ran_so_far = ran.count("a");
    time.advance(secs(100)).await;
    assert_eq!(ran.count("a"), ran_so_far);

    // It can be started again, with the tasks its store kept.
    scheduler.start_paused().await.unwrap();
    assert_eq!(scheduler.status().await.unwrap().state, SchedulerState::Paused);
    scheduler.start().await.unwrap();
    scheduler.shutdown(Shutdown::now().force()).await.unwrap();
    assert_eq!(scheduler.status().await.unwrap().state, SchedulerState::Stopped);
    let guard = scheduler.scope(Shutdown::now()).await.unwrap();
    time.advance(secs(10)).await;
    assert!(ran.count("a") > ran_so_far);
    drop(guard);
    scheduler.shutdown(Shutdown::now()).await.unwrap();
    assert_eq!(scheduler.status().await.unwrap().state, SchedulerState::Stopped);
}

#[actix::test]
async fn shutdown_lets_runs_end_and_then_cuts_them_off() {
    let (scheduler, time, _) = board(|b| b).await;
    let mut events = scheduler.events(EventMask::RUN_ENDED | EventMask::SCHEDULER_SHUTDOWN).await.unwrap();
    scheduler.add(Task::new("nap").args(5).id("short").trigger(Date::at(at(0)))).await.unwrap();
    scheduler.add(Task::new("hang").id("long").trigger(Date::at(at(0)))).await.unwrap();
    time.advance(secs(1)).await;
    turning(&time, scheduler.shutdown(Shutdown::wait(secs(20)))).await.unwrap();
    time.settle().await;
    let told = heard(&mut events);
    let words: Vec<_> =
        told.iter().filter_map(|e| Some((e.task_id()?.as_str(), e.report()?.end.outcome.word()))).collect();
    assert_eq!(words, [("short", "executed"), ("long", "interrupted")]);
    assert!(matches!(told.last(), Some(Event::SchedulerShutdown)));
}

#[actix::test]
async fn a_task_may_shut_the_scheduler_down() {
    let (scheduler, time, _) = board(|b| b).await;
    let handle = scheduler.clone();
    let task = Task::from_fn(move |_: TaskContext, ()| {
        let handle = handle.clone();
        async move { handle.shutdown(Shutdown::now()).await }
    });
    let mut events = scheduler.events(EventMask::SCHEDULER_SHUTDOWN).await.unwrap();
    scheduler.add(task.trigger(Date::at(at(5)))).await.unwrap();
    let told = turning(&time, futures::StreamExt::next(&mut events)).await;
    assert!(matches!(told, Some(Event::SchedulerShutdown)));
}

#[actix::test]
async fn shutdown_triggers_run_at_the_shutdown() {
    let (scheduler, time, ran) = board(|b| b).await;
    scheduler
        .add(Task::new("note").id("sweep").trigger(callboard::trigger::Trigger::Shutdown))
        .await
        .unwrap();
    time.advance(secs(1000)).await;
    assert_eq!(ran.count("sweep"), 0);
    assert_eq!(scheduler.task("sweep").await.unwrap().schedule_state, ScheduleState::Scheduled);
    scheduler.shutdown(Shutdown::wait(secs(5))).await.unwrap();
    assert_eq!(ran.of("sweep"), [at(1000)]);
}

#[actix::test]
async fn stores_and_executors_come_and_go_while_it_runs() {
    let (scheduler, time, ran) = board(|b| b).await;
    let mut events = scheduler.events(EventMask::ALL).await.unwrap();
    scheduler.add_store("spare", MemoryStore::new()).await.unwrap();
    assert!(scheduler.add_store("spare", MemoryStore::new()).await.unwrap_err().is_conflict());
    let recorded = Ran::default();
    scheduler.add_executor("recorder", RecorderSource::new(&recorded)).await.unwrap();
    assert!(scheduler.add_executor("recorder", AsyncExecutor::new()).await.unwrap_err().is_conflict());
    scheduler.add(every(10).id("a").store("spare").executor("recorder")).await.unwrap();
    time.advance(secs(15)).await;
    assert_eq!(recorded.of("a"), [at(0), at(10)], "an executor of the user's own runs it");
    assert_eq!(ran.count("a"), 0);

    // Without its executor it waits, and says for what.
    scheduler.remove_executor("recorder", secs(1)).await.unwrap();
    heard(&mut events);
    time.advance(secs(10)).await;
    let told = heard(&mut events);
    assert!(told.iter().all(|event| event.report().is_none()), "{told:?}");
    let task = scheduler.task("a").await.unwrap();
    assert_eq!(task.next_run_time(), Some(at(20)));
    assert!(task.waiting.unwrap().reason.contains("no executor is called `recorder`"));

    scheduler.remove_store("spare").await.unwrap();
    assert!(scheduler.task("a").await.unwrap_err().is_not_found());
    assert!(scheduler.remove_store("spare").await.unwrap_err().is_not_found());
    assert!(scheduler.remove_executor("recorder", secs(1)).await.unwrap_err().is_not_found());
    time.advance(secs(100)).await;
    let status = scheduler.status().await.unwrap();
    assert_eq!((status.stores.len(), status.executors.len()), (1, 1));
    assert_eq!(status.uptime_ms, Some(125_000));
}

#[test]
fn it_runs_on_a_thread_of_its_own_without_an_actix_system() {
    let ran = Ran::default();
    let scheduler = Scheduler::builder().registry(ran.registry()).start_isolated().unwrap();
    let other = Scheduler::builder().registry(ran.registry()).start_isolated().unwrap();
    futures::executor::block_on(async {
        use futures::StreamExt;
        let mut events = scheduler.events(EventMask::TASK_EXECUTED).await.unwrap();
        scheduler.add(every(3600).id("a")).await.unwrap();
        assert!(events.next().await.is_some());
        assert!(other.task("a").await.is_err(), "two schedulers in one process share nothing");
        scheduler.shutdown(Shutdown::now()).await.unwrap();
        other.shutdown(Shutdown::now()).await.unwrap();
    });
    assert_eq!(ran.count("a"), 1);
}

#[actix::test]
async fn a_one_shot_whose_time_passes_before_the_start_runs_late() {
    let (scheduler, time, ran) = stopped().await;
    scheduler.add(Task::new("note").id("once").trigger(Date::at(at(10)))).await.unwrap();
    time.advance(secs(60)).await;
    assert_eq!(scheduler.tasks(TaskQuery::new()).await.unwrap().len(), 1);
    scheduler.start().await.unwrap();
    time.advance(secs(1)).await;
    assert_eq!(ran.of("once"), [at(10)]);
}

#[actix::test]
async fn a_trigger_with_a_part_for_the_shutdown_stays_for_it() {
    use callboard::trigger::{IntoTrigger, Or, Trigger};
    let (scheduler, time, ran) = board(|b| b).await;
    let date = Date::at(at(5)).into_trigger().unwrap();
    let both = Or::of(date).or(Trigger::Shutdown);
    scheduler.add(Task::new("note").id("both").trigger(both)).await.unwrap();
    time.advance(secs(100)).await;
    assert_eq!(ran.of("both"), [at(5)]);
    scheduler.shutdown(Shutdown::default()).await.unwrap();
    assert_eq!(ran.of("both"), [at(5), at(100)]);
}

#[actix::test]
async fn thousands_of_tasks_may_wait_for_the_start() {
    let (scheduler, time, ran) = stopped().await;
    for number in 0..5000 {
        scheduler.add(every(10).id(format!("task-{number}"))).await.unwrap();
    }
    scheduler.start().await.unwrap();
    time.advance(secs(1)).await;
    assert!((0..5000).all(|number| ran.count(&format!("task-{number}")) == 1));
}

#[actix::test]
async fn waiting_tasks_are_found_by_their_store_and_changed_whole_or_not_at_all() {
    let time = VirtualClock::starting_at(START);
    let builder = Scheduler::builder().clock(time.clock()).registry(Ran::default().registry());
    let scheduler =
        builder.store("default", MemoryStore::new()).store("spare", MemoryStore::new()).build().unwrap();
    scheduler.add(every(10).id("a")).await.unwrap();
    scheduler.add(every(10).id("a").store("spare")).await.unwrap();
    let unknown = TaskChanges::new().name("new").executor("gpu");
    assert!(scheduler.update_task("a", unknown).await.unwrap_err().is_not_found());
    assert_eq!(scheduler.task("a").await.unwrap().spec.label(), "note");
    use callboard::scheduler::message::{DeleteTask, GetTask, PauseTask};
    let store = |alias: &str| alias.try_into().unwrap();
    let id = || "a".try_into().unwrap();
    assert!(scheduler.send(PauseTask::new(id()).store(store("attic"))).await.unwrap().is_err());
    scheduler.send(DeleteTask::new(id()).store(store("spare"))).await.unwrap().unwrap();
    assert!(scheduler.send(GetTask::new(id()).store(store("spare"))).await.unwrap().is_err());
    assert!(scheduler.send(GetTask::new(id()).store(store("default"))).await.unwrap().is_ok());
    scheduler.start().await.unwrap();
    assert_eq!(scheduler.tasks(TaskQuery::new()).await.unwrap().len(), 1);
}

/// A scheduler that is not started, and a store of it that takes its time.
fn slow_to_start() -> (Handle, VirtualClock, Ran, callboard::store::Faults) {
    use callboard::store::{BackendSource, Faults, MemoryBackend};
    let (time, ran, faults) = (VirtualClock::starting_at(START), Ran::default(), Faults::new());
    let store = BackendSource::keeping(faults.around(MemoryBackend::default()));
    let builder = Scheduler::builder().clock(time.clock()).registry(ran.registry()).store("default", store);
    (builder.build().unwrap(), time, ran, faults)
}

#[actix::test]
async fn what_is_added_during_the_start_is_at_work_after_it() {
    let (scheduler, time, ran, faults) = slow_to_start();
    let release = faults.hold(callboard::store::Op::Open);
    let add = async {
        while scheduler.status().await.unwrap().state != SchedulerState::Starting {}
        scheduler.add_executor("late", AsyncExecutor::new()).await.unwrap();
        scheduler.add_store("late", MemoryStore::new()).await.unwrap();
        scheduler.add(every(10).id("a").store("late").executor("late")).await.unwrap();
        assert_eq!(scheduler.status().await.unwrap().state, SchedulerState::Starting);
        release.send(()).unwrap();
    };
    let (started, ()) = futures::join!(scheduler.start(), add);
    started.unwrap();
    time.advance(secs(30)).await;
    let status = scheduler.status().await.unwrap();
    assert_eq!(ran.count("a"), 4, "{status:?}");
    assert!(status.executors.iter().all(|executor| executor.problem.is_none()), "{status:?}");
    assert!(status.stores.iter().all(|store| store.problem.is_none()), "{status:?}");
}

#[actix::test]
async fn whoever_starts_it_while_it_starts_hears_how_that_ended() {
    use callboard::store::{Op, StoreError};
    for works in [true, false] {
        let (scheduler, _time, _, faults) = slow_to_start();
        if !works {
            faults.fail(Op::List, StoreError::unavailable("not today"));
            faults.fail(Op::Open, StoreError::unavailable("not today"));
        }
        let (first, second) = futures::join!(scheduler.start(), scheduler.start());
        let state = scheduler.status().await.unwrap().state;
        if works {
            assert_eq!((first.is_ok(), second.is_ok(), state), (true, true, SchedulerState::Running));
            // They nest, whoever came first.
            scheduler.shutdown(Shutdown::now()).await.unwrap();
            assert!(scheduler.status().await.unwrap().is_running());
            scheduler.shutdown(Shutdown::now()).await.unwrap();
        } else {
            assert_eq!((first.is_err(), second.is_err(), state), (true, true, SchedulerState::Stopped));
        }
        scheduler.start().await.unwrap();
        scheduler.shutdown(Shutdown::now()).await.unwrap();
        assert_eq!(scheduler.status().await.unwrap().state, SchedulerState::Stopped);
    }
}
