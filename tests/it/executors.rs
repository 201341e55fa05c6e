//! Every executor through the one suite, and what each has for itself.

mod limits;

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use actix::System;
use callboard::clock::Clock;
use callboard::executor::contract::{Limits, Stage, suite, task};
use callboard::executor::message::{Drain, Drained};
use callboard::executor::{
    AsyncExecutor, CustomExecutor, DebugExecutor, ExecutorSource, Job, Runner, ThreadPool,
};
use callboard::task::{Code, Outcome, Refusal, TaskContext};
use callboard::testing::VirtualClock;
use tokio::sync::Semaphore;

fn on_stage(test: impl Future<Output = ()>) {
    System::new().block_on(test);
}

#[test]
fn the_async_executor_keeps_the_contract() {
    on_stage(suite(AsyncExecutor::new, Limits::default()));
}

#[test]
fn several_arbiters_keep_the_contract() {
    on_stage(suite(|| AsyncExecutor::new().arbiters(3), Limits::default()));
}

#[test]
fn the_current_arbiter_keeps_the_contract() {
    on_stage(suite(|| AsyncExecutor::new().on_current(), Limits::default()));
}

#[test]
fn a_limit_keeps_the_contract() {
    on_stage(suite(|| AsyncExecutor::new().limit(2), Limits::default()));
}

#[test]
fn the_thread_pool_keeps_the_contract() {
    on_stage(suite(|| ThreadPool::new(2), Limits::default()));
}

#[test]
fn the_debug_executor_keeps_the_contract() {
    on_stage(suite(DebugExecutor::new, Limits { inline: true, ..Limits::default() }));
}

/// The smallest runner there can be: a thread for each run.
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

#[test]
fn a_custom_runner_keeps_the_contract() {
    on_stage(suite(|| CustomExecutor::new(|| ThreadEach).on_own_arbiter(), Limits::default()));
}

/// Takes jobs and forgets them.
struct Careless;

impl Runner for Careless {
    fn kind(&self) -> &'static str {
        "careless"
    }

    fn start(&mut self, job: Job) {
        drop(job);
    }
}

fn ok() -> Code {
    Code::from_async(|_: TaskContext, ()| async {})
}

fn waiting(gate: &Arc<Semaphore>) -> Code {
    let gate = gate.clone();
    Code::from_async(move |_: TaskContext, ()| {
        let gate = gate.clone();
        async move { gate.acquire().await.unwrap().forget() }
    })
}

async fn stage(mut source: impl ExecutorSource) -> Stage {
    Stage::new(&mut source, VirtualClock::starting_at("2026-01-01T00:00:00Z").clock()).await
}

#[test]
fn a_job_that_is_dropped_has_an_end_all_the_same() {
    on_stage(async {
        let mut stage = stage(CustomExecutor::new(|| Careless)).await;
        for _ in 0..3 {
            let run = stage.run(&task("lost", |task| task), &ok());
            stage.submit([run]).await;
            let (_, end) = stage.end().await;
            assert!(matches!(end.outcome, Outcome::Interrupted { .. }));
        }
        stage.is_empty().await;
    });
}

#[test]
fn what_waits_for_a_place_is_cancelled_or_interrupted_without_running() {
    fn check<S: ExecutorSource>(source: S) {
        on_stage(async {
            let mut stage = stage(source).await;
            let gate = Arc::new(Semaphore::new(0));
            let task = task("t", |task| task.max_instances(9));
            let runs: Vec<_> = (0..4).map(|_| stage.run(&task, &waiting(&gate))).collect();
            let ids: Vec<_> = runs.iter().map(|run| run.id).collect();
            stage.submit(runs).await;
            assert!(stage.cancel(ids[2]).await);
            let (run, end) = stage.end().await;
            assert_eq!((run.id, end.outcome, end.started_at), (ids[2], Outcome::Cancelled, None));
            gate.add_permits(1);
            let (run, end) = stage.end().await;
            assert!(run.id == ids[0] && end.outcome.is_success());
            assert_eq!(stage.drain(Duration::ZERO).await, Drained { interrupted: 2 });
            stage.is_empty().await;
        });
    }
    check(AsyncExecutor::new().limit(1));
    check(ThreadPool::new(1));
}

#[test]
fn a_full_pool_says_so() {
    on_stage(async {
        let mut stage = stage(ThreadPool::new(1).queue(2)).await;
        let gate = Arc::new(Semaphore::new(0));
        let task = task("t", |task| task.max_instances(9));
        let runs: Vec<_> = (0..5).map(|_| stage.run(&task, &waiting(&gate))).collect();
        stage.submit(runs).await;
        for _ in 0..2 {
            let full = Refusal::QueueFull { executor: "default".to_owned(), limit: 2 };
            assert_eq!(stage.end().await.1.outcome, Outcome::Refused { reason: full });
        }
        gate.add_permits(3);
        for _ in 0..3 {
            assert!(stage.end().await.1.outcome.is_success());
        }
        stage.is_empty().await;
    });
}

/// Who hears that a run has ended finds its thread free.
#[test]
fn the_end_of_a_run_makes_room_in_a_pool_without_a_queue() {
    use callboard::task::Overlap;
    on_stage(async {
        let mut stage = stage(ThreadPool::new(1).queue(0)).await;
        let blocking = Code::from_blocking(|_: TaskContext, ()| {});
        let line = task("line", |task| task.overlap(Overlap::Queue(1000)));
        for code in [&blocking, &ok()] {
            let runs: Vec<_> = (0..300).map(|_| stage.run(&line, code)).collect();
            stage.submit(runs).await;
            for _ in 0..300 {
                let (_, end) = stage.end().await;
                assert!(end.outcome.is_success(), "{end:?}");
            }
            for _ in 0..300 {
                let run = stage.run(&line, code);
                stage.submit([run]).await;
                let (_, end) = stage.end().await;
                assert!(end.outcome.is_success(), "{end:?}");
            }
        }
        stage.is_empty().await;
    });
}

#[test]
fn a_pool_has_no_more_threads_than_it_may_and_keeps_them_through_panics() {
    on_stage(async {
        let mut stage = stage(ThreadPool::new(2)).await;
        let task = task("t", |task| task.max_instances(1000));
        let (names, seen) = mpsc::channel();
        let code = Code::from_blocking(move |_: TaskContext, ()| {
            names.send(std::thread::current().id()).unwrap();
            assert!(std::thread::panicking(), "on purpose");
        });
        let runs: Vec<_> = (0..200).map(|_| stage.run(&task, &code)).collect();
        stage.submit(runs).await;
        for _ in 0..200 {
            assert!(matches!(stage.end().await.1.outcome, Outcome::Panicked { .. }));
        }
        let threads: std::collections::HashSet<_> = seen.try_iter().collect();
        assert!(threads.len() <= 2, "{threads:?}");
    });
}

#[test]
fn the_debug_executor_has_finished_when_the_submission_is_answered() {
    on_stage(async {
        let stage = &mut stage(DebugExecutor::new()).await;
        let (log, seen) = mpsc::channel();
        let code = {
            Code::from_async(move |context: TaskContext, ()| {
                log.send(context.run_id().serial).unwrap();
                async {}
            })
        };
        let tasks: Vec<_> = (0..5).map(|n| task(&n.to_string(), |task| task)).collect();
        let runs: Vec<_> = tasks.iter().map(|task| stage.run(task, &code)).collect();
        stage.submit(runs).await;
        assert_eq!(seen.try_iter().collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    });
}

#[test]
fn a_task_that_ends_its_arbiter_loses_its_own_runs_only() {
    on_stage(async {
        let mut stage = Stage::new(&mut AsyncExecutor::new().arbiters(2), Clock::system()).await;
        let task = task("t", |task| task.max_instances(100));
        // The first share goes to the actor's own arbiter, the second to the other.
        let gate = Arc::new(Semaphore::new(0));
        let vandal = Code::from_async(|_: TaskContext, ()| {
            actix::Arbiter::current().stop();
            std::future::pending::<()>()
        });
        let runs = [stage.run(&task, &waiting(&gate)), stage.run(&task, &vandal)];
        let vandal = runs[1].id;
        stage.submit(runs).await;
        let (run, end) = stage.end().await;
        assert!(run.id == vandal && matches!(end.outcome, Outcome::Interrupted { .. }), "{end:?}");
        gate.add_permits(1);
        assert!(stage.end().await.1.outcome.is_success());
        for _ in 0..4 {
            let run = stage.run(&task, &ok());
            stage.submit([run]).await;
            let (_, end) = stage.end().await;
            assert!(end.outcome.is_success(), "{end:?}");
        }
    });
}

#[test]
fn code_is_dropped_when_its_time_is_over() {
    struct Signal(mpsc::Sender<bool>, TaskContext);
    impl Drop for Signal {
        fn drop(&mut self) {
            self.0.send(self.1.is_cancelled()).unwrap();
        }
    }
    fn check<S: ExecutorSource>(mut source: S) {
        on_stage(async {
            let time = VirtualClock::starting_at("2026-01-01T00:00:00Z");
            let mut stage = Stage::new(&mut source, time.clock()).await;
            let (dropped, signal) = mpsc::channel();
            let code = Code::from_async(move |context: TaskContext, ()| {
                let held = Signal(dropped.clone(), context.clone());
                async move {
                    context.sleep(Duration::from_secs(60)).await;
                    drop(held);
                }
            });
            let run = stage.run(&task("slow", |task| task.timeout(Duration::from_secs(3))), &code);
            stage.submit([run]).await;
            time.advance(Duration::from_millis(2999)).await;
            assert!(signal.try_recv().is_err(), "too early");
            time.advance(Duration::from_millis(1)).await;
            assert_eq!(stage.end().await.1.outcome, Outcome::TimedOut { after_ms: 3000 });
            assert_eq!(signal.try_recv(), Ok(true), "what it started can see that it is to stop");
        });
    }
    check(AsyncExecutor::new());
    check(ThreadPool::new(1));
    check(DebugExecutor::new());
    check(CustomExecutor::new(|| ThreadEach));
}

/// The run waits for the drain, and the drain for the run: the grace ends it.
#[test]
fn a_run_may_drain_its_own_executor() {
    fn check<S: ExecutorSource>(mut source: S) {
        on_stage(async {
            let time = VirtualClock::starting_at("2026-01-01T00:00:00Z");
            let mut stage = Stage::new(&mut source, time.clock()).await;
            let executor = stage.executor.clone();
            let code = Code::from_async(move |context: TaskContext, ()| {
                let drained = executor.drain(Drain { grace: Duration::from_secs(5) });
                async move {
                    let long = context.sleep(Duration::from_secs(60));
                    futures::future::select(std::pin::pin!(drained), std::pin::pin!(long)).await;
                }
            });
            let run = stage.run(&task("curtain", |task| task), &code);
            let curtain = run.id;
            stage.submit([run]).await;
            loop {
                let probe = stage.run(&task("probe", |task| task), &ok());
                stage.submit([probe]).await;
                if matches!(stage.end().await.1.outcome, Outcome::Refused { .. }) {
                    break;
                }
            }
            time.advance(Duration::from_secs(5)).await;
            let (run, end) = stage.end().await;
            assert_eq!(run.id, curtain);
            assert!(matches!(end.outcome, Outcome::Interrupted { .. }), "{end:?}");
            assert_eq!(stage.drain(Duration::ZERO).await, Drained { interrupted: 1 });
            stage.is_empty().await;
        });
    }
    check(AsyncExecutor::new());
    check(ThreadPool::new(2));
    check(DebugExecutor::new());
}

/// Whoever drained it did not wait for the end, and let go of its address.
#[test]
fn an_executor_that_nobody_holds_keeps_no_clock_still() {
    fn check<S: ExecutorSource>(mut source: S) {
        on_stage(async {
            let time = VirtualClock::starting_at("2026-01-01T00:00:00Z");
            let mut stage = Stage::new(&mut source, time.clock()).await;
            let (alive, ended) = mpsc::channel::<()>();
            let code = Code::from_async(move |context: TaskContext, ()| {
                let alive = alive.clone();
                async move {
                    context.sleep(Duration::from_secs(1_000_000)).await;
                    drop(alive);
                }
            });
            let run = stage.run(&task("endless", |task| task), &code);
            drop(code);
            stage.submit([run]).await;
            let drain = stage.drain(Duration::from_secs(60));
            stage.status().await;
            drop(drain);
            drop(stage);
            let turn = async {
                time.advance(Duration::from_secs(120)).await;
                // What it ran is dropped, perhaps on another thread.
                while ended.try_recv() != Err(mpsc::TryRecvError::Disconnected) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(10), turn).await.expect("time goes on");
        });
    }
    check(AsyncExecutor::new());
    check(AsyncExecutor::new().arbiters(2));
    check(AsyncExecutor::new().on_current());
    check(DebugExecutor::new());
}

#[test]
fn absurd_limits_are_limits() {
    fn check<S: ExecutorSource>(source: S, runs: usize, refused: usize) {
        on_stage(async {
            let mut stage = stage(source).await;
            let gate = Arc::new(Semaphore::new(0));
            let task = task("t", |task| task.max_instances(u32::MAX));
            let all: Vec<_> = (0..runs).map(|_| stage.run(&task, &waiting(&gate))).collect();
            stage.submit(all).await;
            for _ in 0..refused {
                let outcome = stage.end().await.1.outcome;
                assert!(matches!(outcome, Outcome::Refused { reason: Refusal::QueueFull { .. } }));
            }
            gate.add_permits(runs);
            for _ in refused..runs {
                assert!(stage.end().await.1.outcome.is_success());
            }
            stage.is_empty().await;
        });
    }
    check(ThreadPool::new(0).queue(0), 3, 2);
    check(ThreadPool::new(0).queue(usize::MAX), 50, 0);
    check(ThreadPool::new(usize::MAX).queue(0), 50, 0);
    check(ThreadPool::new(usize::MAX).queue(usize::MAX), 50, 0);
    check(AsyncExecutor::new().arbiters(0).limit(0), 50, 0);
    check(AsyncExecutor::new().arbiters(usize::MAX).limit(2), 50, 0);
    check(AsyncExecutor::new().limit(usize::MAX), 50, 0);
}

/// The hook of the program is called as before, and the message says where.
#[test]
fn a_panic_is_told_with_its_place_and_to_the_hook_of_the_program() {
    // A hook is everybody's: this needs a process of its own.
    const ALONE: &str = "CALLBOARD_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let name = "executors::a_panic_is_told_with_its_place_and_to_the_hook_of_the_program";
        let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
        let output = alone.args(["--exact", name]).env(ALONE, "1").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let (told, hook) = mpsc::channel();
    std::panic::set_hook(Box::new(move |info| {
        let _ = told.send(info.to_string());
    }));
    on_stage(async {
        let mut stage = stage(ThreadPool::new(1)).await;
        let line = line!() + 1;
        let code = Code::from_blocking(|_: TaskContext, ()| assert!(std::thread::panicking(), "no ink"));
        // The code's own business.
        let caught = Code::from_blocking(|_: TaskContext, ()| {
            let _ = std::panic::catch_unwind(|| panic!("caught"));
            if true {
                std::panic::resume_unwind(Box::new("from elsewhere"));
            }
        });
        let task = task("t", |task| task);
        let run = stage.run(&task, &code);
        stage.submit([run]).await;
        let (_, end) = stage.end().await;
        let Outcome::Panicked { message } = end.outcome else { panic!("it panicked") };
        assert_eq!(message.split_once(":").unwrap().0, format!("no ink (at {}", file!()));
        assert!(message.contains(&format!(":{line}:")), "{message}");
        let asked = ["RUST_BACKTRACE", "RUST_LIB_BACKTRACE"]
            .iter()
            .any(|name| std::env::var(name).is_ok_and(|value| value != "0"));
        assert_eq!(end.backtrace.is_some(), asked);
        let run = stage.run(&task, &caught);
        stage.submit([run]).await;
        // No hook is told of this one.
        let Outcome::Panicked { message } = stage.end().await.1.outcome else { panic!("it panicked") };
        assert!(message.starts_with("from elsewhere"), "{message}");
    });
    let told: Vec<_> = hook.try_iter().filter(|text| text.contains("no ink")).collect();
    assert_eq!(told.len(), 1, "{told:?}");
}
