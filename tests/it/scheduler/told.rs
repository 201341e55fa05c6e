//! What is meant by a name, and what is said of a run.

use callboard::executor::AsyncExecutor;
use callboard::task::{Coalesce, Fate, Overlap, ScheduleState};

use super::*;

#[actix::test]
async fn the_same_id_in_two_stores_is_two_tasks() {
    let (scheduler, time, ran) = board(|b| b.store("spare", MemoryStore::new())).await;
    let long = Task::new("nap").args(1000).id("a").trigger(Interval::hours(1));
    scheduler.add(long).await.unwrap();
    scheduler.add(every(10).id("a").store("spare")).await.unwrap();
    time.advance(secs(35)).await;
    let listed = scheduler.tasks(TaskQuery::new()).await.unwrap();
    let running: Vec<_> = listed.iter().map(|task| (task.store.as_str(), task.running)).collect();
    assert!(running.contains(&("default", 1)) && running.contains(&("spare", 0)), "{running:?}");
    // The back-fill of one does not wait for runs of the other.
    let of_spare = |mut request: callboard::scheduler::message::BackfillTask| {
        request.store = Some("spare".try_into().unwrap());
        request
    };
    let request =
        callboard::scheduler::message::BackfillTask::new("a".parse().unwrap(), at(0), at(30), secs(1));
    scheduler.send(of_spare(request)).await.unwrap().unwrap();
    time.advance(secs(4)).await;
    assert_eq!(ran.count("a"), 7, "{:?}", ran.of("a"));
    // Without a store the one in the default store is meant.
    assert_eq!(scheduler.task("a").await.unwrap().store.as_str(), "default");
    scheduler.pause_task("a").await.unwrap();
    let listed = scheduler.tasks(TaskQuery::new().state(ScheduleState::Paused)).await.unwrap();
    assert_eq!(listed.iter().map(|task| task.store.as_str()).collect::<Vec<_>>(), ["default"]);
    scheduler.delete_task("a").await.unwrap();
    assert_eq!(scheduler.task("a").await.unwrap().store.as_str(), "spare", "then the first that has it");
}

#[actix::test]
async fn what_is_added_leaves_the_default_where_it_is() {
    let (scheduler, time, ran) =
        board(|b| b.executor("pool", AsyncExecutor::new()).store("archive", MemoryStore::new())).await;
    let status = scheduler.status().await.unwrap();
    let executors: Vec<_> = status.executors.iter().map(|executor| executor.alias.as_str()).collect();
    let stores: Vec<_> = status.stores.iter().map(|store| store.alias.as_str()).collect();
    assert_eq!((executors, stores), (vec!["default", "pool"], vec!["archive", "default"]));
    scheduler.add(every(10).id("a")).await.unwrap();
    time.advance(secs(1)).await;
    assert_eq!(ran.of("a"), [at(0)]);
}

#[actix::test]
async fn only_what_is_due_runs_when_that_is_asked_for() {
    let (scheduler, time, ran) = board(|b| b).await;
    scheduler.add(every(10).id("a").paused(true)).await.unwrap();
    time.advance(secs(25)).await;
    assert!(scheduler.run_task_if_due("a").await.unwrap().is_some());
    time.settle().await;
    assert_eq!(ran.of("a"), [at(20)], "the latest, for those before it");
    assert_eq!(scheduler.run_task_if_due("a").await.unwrap(), None, "and once");
    let refused =
        scheduler.send(callboard::scheduler::message::RunTask::new("a".parse().unwrap()).only_if_due());
    let refused = refused.await.unwrap().unwrap_err();
    assert!(refused.to_string().contains("2027-01-01T00:00:30+00:00"), "{refused}");
    scheduler.run_task("a").await.unwrap();
    time.settle().await;
    assert_eq!(ran.of("a"), [at(20), at(25)], "without that it runs all the same");
    scheduler.resume_task("a").await.unwrap();
    time.advance(secs(5)).await;
    assert_eq!(ran.of("a"), [at(20), at(25), at(30)]);
}

#[actix::test]
async fn what_is_said_of_a_run_is_its_cause() {
    let (scheduler, time, _) = board(|b| b.executor("one", AsyncExecutor::new().limit(1))).await;
    let nap = |id: &str| Task::new("nap").args(15).id(id).trigger(Interval::seconds(10));
    scheduler.add(nap("replaced").overlap(Overlap::CancelRunning)).await.unwrap();
    scheduler.add(nap("somebody").trigger(Interval::hours(1))).await.unwrap();
    scheduler.add(Task::new("fail").id("late").trigger(Interval::seconds(10))).await.unwrap();
    scheduler.add(every(10).id("backlog").coalesce(Coalesce::All).max_catch_up(1)).await.unwrap();
    scheduler.add(every(10).id("grace").misfire_grace(secs(2)).coalesce(Coalesce::All)).await.unwrap();
    scheduler
        .add(Task::new("nap").args(500).id("first").executor("one").trigger(Interval::hours(1)))
        .await
        .unwrap();
    scheduler.add(every(3600).id("queued").executor("one")).await.unwrap();
    time.advance(secs(12)).await;
    assert_eq!(scheduler.task("queued").await.map(|task| (task.running, task.queued)).unwrap(), (0, 1));
    let run = scheduler.history("somebody", 1).await.unwrap()[0].id;
    scheduler.cancel_run(run).await.unwrap();
    scheduler.pause().await.unwrap();
    time.advance(secs(60)).await;
    scheduler.resume().await.unwrap();
    time.settle().await;
    for (id, from, fate, words) in [
        ("replaced", 0, Fate::Cancelled, "cancelled: a later run of the task took its place"),
        ("somebody", 0, Fate::Cancelled, "somebody cancelled its run"),
        ("late", 70, Fate::Failed, "failed: no paper, for 5 other run times as well"),
        ("backlog", 20, Fate::Missed, "more run times were due together than max_catch_up lets run"),
        ("grace", 20, Fate::Missed, "more than its misfire grace"),
        ("queued", 0, Fate::Running, "waits in its executor for its turn"),
        ("first", 0, Fate::Running, "is going on"),
    ] {
        let account = scheduler.why(id, at(from), at(from)).await.unwrap();
        let time = &account.times[0];
        assert!(time.fate == fate && time.reason.contains(words), "{id}: {time:?}");
    }
}
