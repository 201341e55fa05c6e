//! The end of the play: asked for by a run, or while executors come and go.

use std::sync::atomic::{AtomicUsize, Ordering};

use callboard::executor::{CustomExecutor, DebugExecutor, Job, Runner, ThreadPool};
use callboard::scheduler::SchedulerState;

use super::*;

/// Runs each task on a thread of its own.
struct ThreadEach;

impl Runner for ThreadEach {
    fn kind(&self) -> &'static str {
        "thread each"
    }

    fn start(&mut self, job: Job) {
        std::thread::spawn(|| {
            let Some(started) = job.begin() else { return };
            System::new().block_on(started.drive());
        });
    }
}

/// A run waits for the shutdown, which waits for the run: on the machine's clock, because blocking code
/// holds a virtual one still.
async fn shut_down_from_inside(executor: impl ExecutorSource, blocking: bool) {
    let stage: Arc<Mutex<Option<Handle>>> = Arc::default();
    let (inside, outside) = (stage.clone(), stage.clone());
    let handle = |stage: &Mutex<Option<Handle>>| stage.lock().unwrap().clone().unwrap();
    let registry = Registry::new()
        .register("curtain", move |_: TaskContext, ()| {
            let handle = handle(&inside);
            async move { handle.shutdown(Shutdown::wait(Duration::from_millis(50))).await }
        })
        .register_blocking("curtain, blocking", move |_: TaskContext, ()| {
            futures::executor::block_on(handle(&outside).shutdown(Shutdown::wait(Duration::from_millis(50))))
        });
    let scheduler =
        Scheduler::builder().registry(registry).executor("default", executor).start().await.unwrap();
    *stage.lock().unwrap() = Some(scheduler.clone());
    let mut events = scheduler.events(EventMask::RUN_ENDED | EventMask::SCHEDULER_SHUTDOWN).await.unwrap();
    let handler = if blocking { "curtain, blocking" } else { "curtain" };
    scheduler.add(Task::new(handler).id("curtain").trigger(Interval::hours(1))).await.unwrap();
    let mut told = Vec::new();
    while !matches!(told.last(), Some(Event::SchedulerShutdown)) {
        told.push(futures::StreamExt::next(&mut events).await.unwrap());
    }
    let ended: Vec<_> =
        told.iter().filter_map(Event::report).map(|report| report.end.outcome.word()).collect();
    assert_eq!(ended, ["interrupted"], "{told:#?}");
    let status = scheduler.status().await.unwrap();
    assert_eq!((status.state, status.running), (SchedulerState::Stopped, 0));
    stage.lock().unwrap().take();
}

#[actix::test]
async fn a_run_may_end_the_play_on_any_executor() {
    shut_down_from_inside(AsyncExecutor::new(), false).await;
    shut_down_from_inside(AsyncExecutor::new(), true).await;
    shut_down_from_inside(AsyncExecutor::new().arbiters(2), false).await;
    shut_down_from_inside(AsyncExecutor::new().limit(1), true).await;
    shut_down_from_inside(AsyncExecutor::new().on_current(), false).await;
    shut_down_from_inside(AsyncExecutor::new().on_current(), true).await;
    shut_down_from_inside(ThreadPool::new(1), false).await;
    shut_down_from_inside(ThreadPool::new(1), true).await;
    shut_down_from_inside(DebugExecutor::new(), false).await;
    shut_down_from_inside(CustomExecutor::new(|| ThreadEach), false).await;
    shut_down_from_inside(CustomExecutor::new(|| ThreadEach).on_own_arbiter(), true).await;
}

/// The factory of the runner panics, on the scheduler's arbiter or on the executor's own.
#[actix::test]
async fn an_executor_that_dies_while_it_starts_is_started_again_or_given_up() {
    for own in [false, true] {
        for deaths in [2, usize::MAX] {
            let starts = Arc::new(AtomicUsize::new(0));
            let count = starts.clone();
            let source = CustomExecutor::new(move || {
                assert!(count.fetch_add(1, Ordering::SeqCst) >= deaths, "no stage yet");
                ThreadEach
            });
            let source = if own { source.on_own_arbiter() } else { source };
            let policy = RestartPolicy::on_failure().max(3, secs(3600));
            let (scheduler, time, ran) = board(move |b| {
                b.executor("default", source).restart(policy).executor("other", AsyncExecutor::new())
            })
            .await;
            let mut events = scheduler.events(EventMask::ALL).await.unwrap();
            scheduler.add(every(10).id("a")).await.unwrap();
            scheduler.add(every(10).id("witness").executor("other")).await.unwrap();
            let mut told = Vec::new();
            // An arbiter of its own is a thread that the clock does not wait for.
            for _ in 0..200 {
                time.advance(secs(1)).await;
                told.extend(heard(&mut events));
                std::thread::sleep(Duration::from_millis(1));
                tokio::task::yield_now().await;
            }
            let ends: Vec<_> = told.iter().filter_map(Event::report).collect();
            let of = |id: &str| {
                let of = ends.iter().filter(|report| report.task_id().as_str() == id);
                of.map(|report| 1 + report.run.coalesced).sum::<u64>()
            };
            assert_eq!(of("witness"), 21, "each run time has one outcome");
            match deaths {
                2 => assert_eq!(of("a"), 21, "each run time has one outcome"),
                // Those that wait for good have none yet; some may have been handed to one that died with them.
                _ => assert!(of("a") <= 4, "{}", of("a")),
            }
            assert_eq!(scheduler.task("a").await.unwrap().waiting.is_some(), deaths != 2);
            assert_eq!(ran.count("witness"), 21);
            let failed = told.iter().filter(|event| matches!(event, Event::ExecutorFailed { .. })).count();
            let problem = scheduler.status().await.unwrap().executors[0].problem.clone();
            if deaths == 2 {
                assert!(ran.count("a") >= 10, "{}", ran.count("a"));
                assert_eq!((failed, problem), (0, None));
            } else {
                assert_eq!((ran.count("a"), failed), (0, 1));
                assert!(problem.unwrap().contains("RestoreExecutor"));
                assert_eq!(starts.load(Ordering::SeqCst), 4, "the first start and three more");
            }
            scheduler.shutdown(Shutdown::now()).await.unwrap();
            assert_eq!(scheduler.status().await.unwrap().running, 0);
        }
    }
}

/// Whoever dies while runs may still end is not started again, and its runs have one end.
#[actix::test]
async fn an_executor_that_dies_during_the_shutdown_holds_nobody_up() {
    let (killer, blade) = std::sync::mpsc::channel();
    let blade = Mutex::new(Some(blade));
    let ran = Ran::default();
    let registry = ran.registry().register("vandal", move |_: TaskContext, ()| {
        let blade = blade.lock().unwrap().take();
        async move {
            let arbiter = Arbiter::current();
            std::thread::spawn(move || {
                blade.unwrap().recv().ok();
                arbiter.stop();
            });
            std::future::pending::<()>().await;
        }
    });
    let scheduler = Scheduler::builder()
        .registry(registry)
        .executor("default", AsyncExecutor::new())
        .executor("other", AsyncExecutor::new())
        .start()
        .await
        .unwrap();
    let mut events = scheduler.events(EventMask::ALL).await.unwrap();
    let beside = |id: &str| Task::new("hang").id(id).trigger(Interval::hours(1));
    scheduler.add(beside("beside")).await.unwrap();
    scheduler.add(beside("elsewhere").executor("other")).await.unwrap();
    scheduler.add(Task::new("vandal").id("vandal").trigger(Interval::hours(1))).await.unwrap();
    while scheduler.status().await.unwrap().running < 3 {
        tokio::task::yield_now().await;
    }
    let shutdown = scheduler.shutdown(Shutdown::wait(Duration::from_millis(500)));
    let kill = async {
        while scheduler.status().await.unwrap().state != SchedulerState::ShuttingDown {
            tokio::task::yield_now().await;
        }
        killer.send(()).unwrap();
    };
    let (stopped, ()) = futures::join!(shutdown, kill);
    stopped.unwrap();
    let mut told = Vec::new();
    while !matches!(told.last(), Some(Event::SchedulerShutdown)) {
        told.push(futures::StreamExt::next(&mut events).await.unwrap());
    }
    let mut ends: Vec<_> = told
        .iter()
        .filter_map(Event::report)
        .map(|report| (report.task_id().to_string(), report.end.outcome.word()))
        .collect();
    ends.sort();
    let interrupted = |id: &str| (id.to_owned(), "interrupted");
    assert_eq!(ends, ["beside", "elsewhere", "vandal"].map(interrupted));
    assert!(
        !told
            .iter()
            .any(|event| matches!(event, Event::ExecutorRestarted { .. } | Event::ExecutorFailed { .. }))
    );
    assert_eq!(scheduler.status().await.unwrap().running, 0);
}

/// The death of a successor in the moment of its birth, again and again, counts once each.
#[actix::test]
async fn an_executor_that_is_killed_twice_in_a_row_interrupts_each_run_once() {
    let ran = Ran::default();
    let source = RecorderSource::with_bomb(&ran);
    let policy = RestartPolicy::always().max(10, secs(3600)).backoff(callboard::backoff::Backoff::NONE);
    let (scheduler, time, _) = board(move |b| b.executor("default", source).restart(policy)).await;
    let mut events = scheduler.events(EventMask::ALL).await.unwrap();
    let bomb = Task::new("note").id("bomb").trigger(Interval::seconds(1)).max_runs(6);
    scheduler.add(bomb).await.unwrap();
    scheduler.add(every(1).id("a")).await.unwrap();
    time.advance(secs(20)).await;
    let told = heard(&mut events);
    let mut seen = std::collections::BTreeMap::new();
    for report in told.iter().filter_map(Event::report) {
        *seen.entry(report.run.id).or_insert(0) += 1;
    }
    assert!(seen.values().all(|times| *times == 1), "{told:#?}");
    let of = |id: &str, mask: EventMask| {
        let of_task =
            |event: &&Event| event.mask() == mask && event.task_id().is_some_and(|task| task.as_str() == id);
        told.iter().filter(of_task).count()
    };
    assert_eq!(of("bomb", EventMask::TASK_INTERRUPTED) + of("bomb", EventMask::TASK_REFUSED), 6);
    assert_eq!(
        of("a", EventMask::TASK_EXECUTED)
            + of("a", EventMask::TASK_INTERRUPTED)
            + of("a", EventMask::TASK_REFUSED),
        21
    );
    assert_eq!(scheduler.status().await.unwrap().executors[0].problem, None);
}
