//! Tasks that do nothing: from a submission to the notice of its last end, and the whole way from
//! falling due to the next run written down.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use callboard::clock::Clock;
use callboard::executor::contract::{Stage, task};
use callboard::executor::{AsyncExecutor, DebugExecutor, ExecutorSource, ThreadPool};
use callboard::prelude::{Interval, Registry, Scheduler, Task};
use callboard::task::{Code, TaskContext, TaskSpec};
use callboard::testing::VirtualClock;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn nothing() -> Code {
    Code::from_async(|_: TaskContext, ()| async {})
}

/// Waits once, and is woken at once.
fn waiting() -> Code {
    Code::from_async(|_: TaskContext, ()| {
        let mut first = true;
        std::future::poll_fn(move |cx| {
            if std::mem::take(&mut first) {
                cx.waker().wake_by_ref();
                return std::task::Poll::Pending;
            }
            std::task::Poll::Ready(())
        })
    })
}

fn measure(c: &mut Criterion, name: &str, mut source: impl ExecutorSource, code: Code, batch: usize) {
    let system = actix::System::new();
    let tasks: Vec<Arc<TaskSpec>> = (0..batch).map(|n| task(&format!("task-{n}"), |task| task)).collect();
    let mut stage = system.block_on(Stage::new(&mut source, Clock::system()));
    let mut group = c.benchmark_group("dispatch");
    group.throughput(Throughput::Elements(batch as u64)).sample_size(10);
    group.bench_function(BenchmarkId::new(name, batch), |bencher| {
        bencher.iter_custom(|rounds| {
            let mut spent = Duration::ZERO;
            for _ in 0..rounds {
                let runs: Vec<_> = tasks.iter().map(|task| Arc::new(stage.run(task, &code))).collect();
                let began = Instant::now();
                system.block_on(async {
                    stage.submit_shared(runs).await;
                    for _ in 0..batch {
                        black_box(stage.end().await);
                    }
                });
                spent += began.elapsed();
            }
            spent
        });
    });
    group.finish();
}

fn dispatch(c: &mut Criterion) {
    for batch in [1, 1000, 100_000] {
        measure(c, "async", AsyncExecutor::new(), nothing(), batch);
    }
    measure(c, "async, current arbiter", AsyncExecutor::new().on_current(), nothing(), 100_000);
    measure(c, "async, two arbiters", AsyncExecutor::new().arbiters(2), nothing(), 100_000);
    measure(c, "async, code that waits", AsyncExecutor::new(), waiting(), 100_000);
    measure(c, "debug", DebugExecutor::new(), nothing(), 100_000);
    measure(c, "threads", ThreadPool::new(2), Code::from_blocking(|_: TaskContext, ()| ()), 100_000);
}

/// The whole way, through scheduler, memory store and executor: `count` tasks fall due at one
/// instant of a virtual clock, all run, and their next run is written.
fn end_to_end(c: &mut Criterion) {
    let mut group = c.benchmark_group("end to end");
    group.sample_size(10);
    for count in [1u64, 1000, 100_000] {
        let system = actix::System::new();
        let time = VirtualClock::starting_at("2027-01-01T00:00:00Z");
        let scheduler = system.block_on(async {
            let registry = Registry::new().register("nothing", |_: TaskContext, ()| async {});
            let builder = Scheduler::builder().clock(time.clock()).registry(registry);
            let scheduler = builder.start().await.expect("the scheduler starts");
            for number in 0..count {
                let task = Task::new("nothing").id(format!("task-{number}")).trigger(Interval::seconds(1));
                scheduler.add(task).await.expect("the task is added");
            }
            time.advance(Duration::from_secs(1)).await;
            scheduler
        });
        group.throughput(Throughput::Elements(count));
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| system.block_on(time.advance(Duration::from_secs(1))));
        });
        drop(scheduler);
    }
    group.finish();
}

criterion_group!(benches, dispatch, end_to_end);
criterion_main!(benches);
