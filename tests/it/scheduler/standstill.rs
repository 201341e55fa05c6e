//! When a virtual clock stands still, and when it may not.

use callboard::executor::{AsyncExecutor, ThreadPool};

use super::*;

/// Runs wait for a place while those who have one wait for the clock: each begins at the very instant
/// at which the one before it has ended.
async fn full(name: &str, executor: impl ExecutorSource) {
    let (scheduler, time, _) = board(move |b| b.executor("default", executor)).await;
    let mut events = scheduler.events(EventMask::TASK_EXECUTED).await.unwrap();
    for id in ["a", "b", "c", "d", "e"] {
        let task = Task::new("nap").args(10).id(id).trigger(Date::at(at(10)));
        scheduler.add(task.misfire_grace(secs(1000))).await.unwrap();
    }
    // Until it has hung for long, in real time.
    let turned = tokio::time::timeout(secs(20), time.advance(secs(100))).await;
    assert!(turned.is_ok(), "{name}: the clock stands still, {time:?}");
    let told = heard(&mut events);
    let mut began: Vec<_> = told.iter().filter_map(|event| event.report()?.end.started_at).collect();
    began.sort();
    assert_eq!(began, [10, 20, 30, 40, 50].map(at), "{name}");
    scheduler.shutdown(Shutdown::now()).await.unwrap();
}

#[actix::test]
async fn a_full_executor_lets_time_pass_while_its_runs_wait_for_the_clock() {
    for _ in 0..20 {
        full("async", AsyncExecutor::new().limit(1)).await;
        full("async, here", AsyncExecutor::new().limit(1).on_current()).await;
        full("threads", ThreadPool::new(1)).await;
    }
}

/// Blocking code works while it runs, and so does whoever waits behind it.
#[actix::test]
async fn time_does_not_pass_while_work_is_queued() {
    for _ in 0..20 {
        for executor in ["async", "threads"] {
            let set = |b: Builder| match executor {
                "async" => b.executor("default", AsyncExecutor::new().limit(1)),
                _ => b.executor("default", ThreadPool::new(1)),
            };
            let registry = Registry::new().register_blocking("work", |_: TaskContext, ()| {
                std::thread::yield_now();
            });
            let (scheduler, time, _) = board(move |b| set(b.registry(registry))).await;
            let mut events = scheduler.events(EventMask::TASK_EXECUTED).await.unwrap();
            for id in ["a", "b", "c", "d", "e"] {
                scheduler.add(Task::new("work").id(id).trigger(Date::at(at(10)))).await.unwrap();
            }
            time.advance(secs(100)).await;
            let told = heard(&mut events);
            let began: Vec<_> = told.iter().filter_map(|event| event.report()?.end.started_at).collect();
            assert_eq!(began, [at(10); 5], "{executor}");
            scheduler.shutdown(Shutdown::now()).await.unwrap();
        }
    }
}
