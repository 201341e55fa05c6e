//! Requests no sensible program makes: each is answered, and nobody else is hurt.

use callboard::scheduler::message::{OpenEvents, RemoveExecutor, RestoreExecutor};
use callboard::store::{BackendSource, Faults, MemoryBackend, Op, StoreError};
use callboard::supervision::RestartPolicy;
use callboard::task::{Alias, Overlap, Retry};

use super::*;

fn restarts(events: &[Event]) -> usize {
    events.iter().filter(|event| matches!(event, Event::SchedulerRestarted { .. })).count()
}

#[actix::test]
async fn a_grace_without_end_is_a_grace() {
    for grace in [Duration::MAX, Duration::MAX - secs(1), secs(u64::MAX / 1000)] {
        let (scheduler, time, _) = board(|b| b).await;
        let mut events = scheduler.events(EventMask::ALL).await.unwrap();
        scheduler.add(Task::new("nap").args(5).id("short").trigger(Date::at(at(0)))).await.unwrap();
        time.advance(secs(1)).await;
        turning(&time, scheduler.shutdown(Shutdown::wait(grace))).await.unwrap();
        time.settle().await;
        let told = heard(&mut events);
        assert_eq!(restarts(&told), 0, "{grace:?}: {told:#?}");
        assert!(told.iter().any(|event| matches!(event, Event::TaskExecuted(_))), "{told:#?}");
        assert!(matches!(told.last(), Some(Event::SchedulerShutdown)), "{told:#?}");
    }
}

#[actix::test]
async fn a_stream_of_any_capacity_is_opened() {
    let (scheduler, time, _) = board(|b| b).await;
    let mut first = scheduler.events(EventMask::TASK_EXECUTED).await.unwrap();
    let open = |capacity| scheduler.send(OpenEvents { mask: EventMask::TASK_EXECUTED, capacity });
    let mut endless = open(usize::MAX).await.unwrap().unwrap();
    let mut none = open(0).await.unwrap().unwrap();
    scheduler.add(every(10).id("a")).await.unwrap();
    time.advance(secs(30)).await;
    assert_eq!((heard(&mut first).len(), heard(&mut endless).len()), (4, 4));
    let caught = heard(&mut none).len();
    assert!(caught >= 1 && caught as u64 + none.lagged() == 4, "{caught} {}", none.lagged());
}

#[actix::test]
async fn a_store_that_is_never_tried_again_is_still_only_unavailable() {
    let faults = Faults::new();
    let store = BackendSource::keeping(faults.around(MemoryBackend::default()));
    let (scheduler, time, _) = board(move |b| b.store("default", store).store_retry(Duration::MAX)).await;
    let mut events = scheduler.events(EventMask::ALL).await.unwrap();
    scheduler.add(every(10).id("a")).await.unwrap();
    time.advance(secs(15)).await;
    faults.fail(Op::TakeDue, StoreError::unavailable("the disk is out"));
    time.advance(secs(30)).await;
    let told = heard(&mut events);
    assert_eq!(restarts(&told), 0, "{told:#?}");
    assert!(told.iter().any(|event| matches!(event, Event::StoreUnavailable { .. })), "{told:#?}");
    assert!(scheduler.status().await.unwrap().stores[0].problem.is_some());
}

#[actix::test]
async fn absurd_options_of_a_task_hurt_nobody() {
    let (scheduler, time, ran) = board(|b| b).await;
    let mut events = scheduler.events(EventMask::ALL).await.unwrap();
    let bold = |id: &str| Task::new("nap").args(5).id(id).trigger(Interval::seconds(10));
    let tasks = [
        bold("grace").misfire_grace(Duration::MAX),
        bold("timeout").timeout(Duration::MAX),
        bold("instances").max_instances(u32::MAX),
        bold("queue").overlap(Overlap::Queue(u32::MAX)),
        bold("runs").max_runs(u64::MAX),
        Task::new("fail")
            .id("retry")
            .trigger(Interval::seconds(10))
            .retry(Retry::times(u32::MAX).backoff(callboard::backoff::Backoff::fixed(Duration::MAX))),
        Task::new("fail")
            .id("storm")
            .trigger(Date::at(at(0)))
            .retry(Retry::times(3).backoff(callboard::backoff::Backoff::NONE)),
    ];
    let mut taken = Vec::new();
    for task in tasks {
        // Refused or taken: either is an answer.
        match scheduler.add(task).await {
            Ok(id) => taken.push(id),
            Err(error) => assert!(matches!(error, callboard::Error::Task(_)), "{error:?}"),
        }
    }
    scheduler.add(every(10).id("witness")).await.unwrap();
    time.advance(secs(100)).await;
    let told = heard(&mut events);
    assert_eq!(restarts(&told), 0, "{told:#?}");
    assert_eq!(ran.count("witness"), 11);
    for id in taken {
        let ended = told.iter().filter(|e| e.report().is_some() && e.task_id() == Some(&id)).count();
        assert!(ended >= 1, "{id} has ended {ended} times");
    }
}

/// Two that remove, one that adds: whoever is told that it was added has it.
#[actix::test]
async fn a_removal_takes_only_what_was_there_when_it_was_asked_for() {
    let (scheduler, time, ran) = board(|b| b.executor("default", AsyncExecutor::new())).await;
    scheduler.add_executor("other", AsyncExecutor::new()).await.unwrap();
    scheduler
        .add(Task::new("nap").args(60).id("long").executor("other").trigger(Date::at(at(0))))
        .await
        .unwrap();
    time.advance(secs(1)).await;
    let alias: Alias = "other".try_into().unwrap();
    let remove = |grace| scheduler.send(RemoveExecutor { alias: alias.clone(), grace });
    let patient = remove(secs(30));
    let mut patient = Box::pin(patient);
    assert!(futures::poll!(&mut patient).is_pending());
    scheduler.status().await.unwrap();
    // The second one is told that it is gone, or that it is not there any more.
    let hasty = remove(Duration::ZERO);
    let add = async {
        let second = hasty.await.unwrap();
        let mut added = scheduler.add_executor("other", AsyncExecutor::new()).await;
        while added.as_ref().is_err_and(callboard::Error::is_conflict) {
            added = scheduler.add_executor("other", AsyncExecutor::new()).await;
            tokio::task::yield_now().await;
        }
        added.unwrap();
        second
    };
    let (first, second) = turning(&time, async { futures::join!(patient, add) }).await;
    first.unwrap().unwrap();
    second.ok();
    scheduler.add(every(10).id("a").executor("other")).await.unwrap();
    time.advance(secs(30)).await;
    assert!(
        ran.count("a") >= 3,
        "the new executor is there: {:?}",
        scheduler.status().await.unwrap().executors
    );
}

#[actix::test]
async fn a_removal_of_a_store_takes_only_what_was_there_when_it_was_asked_for() {
    let faults = Faults::new();
    let (scheduler, time, ran) = board(|b| b).await;
    scheduler
        .add_store("other", BackendSource::keeping(faults.around(MemoryBackend::default())))
        .await
        .unwrap();
    let release = faults.hold(Op::Close);
    let first = scheduler.remove_store("other");
    let mut first = Box::pin(first);
    assert!(futures::poll!(&mut first).is_pending());
    scheduler.status().await.unwrap();
    let mut second = Box::pin(scheduler.remove_store("other"));
    assert!(futures::poll!(&mut second).is_pending());
    assert!(scheduler.add_store("other", MemoryStore::new()).await.unwrap_err().is_conflict());
    assert!(futures::poll!(&mut second).is_pending(), "it is not gone yet");
    release.send(()).ok();
    second.await.unwrap();
    scheduler.add_store("other", MemoryStore::new()).await.unwrap();
    first.await.unwrap();
    scheduler.add(every(10).id("a").store("other")).await.unwrap();
    time.advance(secs(30)).await;
    assert!(ran.count("a") >= 3);
}

/// The first store is still being opened when it is removed; the next one of its name stays.
#[actix::test]
async fn a_store_removed_while_it_is_added_does_not_take_its_successor_along() {
    let faults = Faults::new();
    let (scheduler, time, ran) = board(|b| b).await;
    let release = faults.hold(Op::Open);
    let slow = BackendSource::keeping(faults.around(MemoryBackend::default()));
    let mut first = Box::pin(scheduler.add_store("other", slow));
    assert!(futures::poll!(&mut first).is_pending());
    scheduler.status().await.unwrap();
    let removing = scheduler.remove_store("other");
    let add = async {
        removing.await.unwrap();
        scheduler.add_store("other", MemoryStore::new()).await
    };
    let first = async {
        let first = first.await;
        release.send(()).ok();
        first
    };
    let (first, added) = futures::join!(first, add);
    assert!(first.is_err(), "it was removed before it was open");
    added.unwrap();
    scheduler.add(every(10).id("a").store("other")).await.unwrap();
    time.advance(secs(30)).await;
    assert!(ran.count("a") >= 3, "{:?}", scheduler.status().await.unwrap().stores);
}

/// In each state it can be in, from the back-off to the end of its budget.
#[actix::test]
async fn restoring_an_executor_is_answered_in_every_state() {
    let ran = Ran::default();
    let source = RecorderSource::with_bomb(&ran);
    let policy =
        RestartPolicy::on_failure().max(1, secs(3600)).backoff(callboard::backoff::Backoff::fixed(secs(100)));
    let (scheduler, time, _) = board(move |b| b.executor("default", source).restart(policy)).await;
    let mut events = scheduler.events(EventMask::ALL).await.unwrap();
    let restore = |alias: &str| scheduler.send(RestoreExecutor(alias.try_into().unwrap()));
    assert!(restore("nobody").await.unwrap().unwrap_err().is_not_found());
    restore("default").await.unwrap().unwrap();
    scheduler.add(Task::new("note").id("bomb").trigger(Interval::seconds(10))).await.unwrap();
    time.advance(secs(1)).await;
    assert!(scheduler.status().await.unwrap().executors[0].problem.is_some(), "it waits for the back-off");
    // Instead of the rest of the wait, and once only.
    restore("default").await.unwrap().unwrap();
    restore("default").await.unwrap().unwrap();
    assert_eq!(scheduler.status().await.unwrap().executors[0].problem, None);
    time.advance(secs(10)).await;
    scheduler.pause_task("bomb").await.unwrap();
    // The wait that was called off does not start a second one.
    time.advance(secs(300)).await;
    assert_eq!(scheduler.status().await.unwrap().executors[0].problem, None);
    scheduler.add(every(10).id("a")).await.unwrap();
    time.advance(secs(30)).await;
    assert_eq!(ran.count("a"), 4);
    let told = heard(&mut events);
    let interrupted = told.iter().filter(|event| matches!(event, Event::TaskInterrupted(_))).count();
    assert_eq!((interrupted, restarts(&told)), (2, 0), "{told:#?}");
    scheduler.shutdown(Shutdown::now()).await.unwrap();
    assert!(restore("default").await.unwrap().is_err(), "nothing is at work");
}
