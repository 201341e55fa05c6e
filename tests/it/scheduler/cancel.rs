//! Stopping one run.

use callboard::Error;
use callboard::executor::ThreadPool;
use callboard::task::{OwnerId, Retry, RunId};

use super::retry::ends;
use super::*;

#[actix::test]
async fn a_run_that_goes_on_is_cancelled_and_not_tried_again() {
    let (scheduler, time, _) = board(|b| b).await;
    let mut events = scheduler.events(EventMask::RUN_ENDED).await.unwrap();
    let hang = |id: &str| Task::new("hang").id(id).trigger(Interval::seconds(1000));
    scheduler.add(hang("a").retry(Retry::times(3)).recover(true)).await.unwrap();
    scheduler.add(hang("b").first_run(at(500))).await.unwrap();
    time.advance(secs(1)).await;
    let run = scheduler.run_task("b").await.unwrap();
    time.settle().await;
    assert!(scheduler.cancel_run(run).await.unwrap());
    time.settle().await;
    assert!(!scheduler.cancel_run(run).await.unwrap(), "it is not going on any more");
    assert!(!scheduler.cancel_run(RunId { owner: OwnerId(1), serial: 1 }).await.unwrap());
    let told = heard(&mut events);
    assert_eq!(ends(&told, "b"), [(1, 1, "cancelled", None)]);
    assert_eq!(scheduler.status().await.unwrap().running, 1, "the other goes on");

    let fact = scheduler.task("a").await.unwrap();
    assert_eq!(fact.state.attempts.len(), 1);
    // The run of the schedule, by the id that its record or event has.
    let of_a = RunId { owner: run.owner, serial: run.serial - 1 };
    assert!(scheduler.cancel_run(of_a).await.unwrap());
    time.advance(secs(100)).await;
    assert_eq!(ends(&heard(&mut events), "a"), [(0, 1, "cancelled", None)]);
    assert!(scheduler.task("a").await.unwrap().state.attempts.is_empty());
    scheduler.shutdown(Shutdown::now()).await.unwrap();
    assert!(matches!(scheduler.cancel_run(run).await, Err(Error::NotRunning)));
}

#[actix::test]
async fn a_run_that_waits_in_its_executor_never_begins() {
    let (gate, opened) = std::sync::mpsc::channel::<()>();
    let opened = std::sync::Mutex::new(opened);
    let ran = Ran::default();
    let registry = ran.registry().register_blocking("wait", move |_: TaskContext, ()| {
        opened.lock().unwrap().recv().ok();
    });
    let time = VirtualClock::starting_at(START);
    let scheduler = Scheduler::builder()
        .clock(time.clock())
        .registry(registry)
        .executor("default", ThreadPool::new(1))
        .start()
        .await
        .unwrap();
    let mut events = scheduler.events(EventMask::RUN_ENDED).await.unwrap();
    scheduler.add(Task::new("wait").id("first").trigger(Date::at(at(1000)))).await.unwrap();
    scheduler.add(every(1000).id("second").first_run(at(1000))).await.unwrap();
    scheduler.run_task("first").await.unwrap();
    let run = scheduler.run_task("second").await.unwrap();
    assert!(scheduler.cancel_run(run).await.unwrap());
    drop(gate);
    time.settle().await;
    assert_eq!(ran.count("second"), 0);
    assert_eq!(ends(&heard(&mut events), "second"), [(0, 1, "cancelled", None)]);
    scheduler.shutdown(Shutdown::now()).await.unwrap();
}
