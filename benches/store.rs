//! What a store costs: the scheduler's tick on a memory store of a million tasks, and changes that
//! the embedded stores acknowledge.
//!
//! Throughput is in tasks: criterion's `elem/s` are tasks a second.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use callboard::store::message::*;
use callboard::store::{
    Backend, FileStore, MemoryBackend, MemoryStore, RedbStore, Reply, SledStore, StoreAddr, StoreError,
    StoreSource,
};
use callboard::task::{Alias, Fire, Handler, OwnerId, StoredTask, TaskId, TaskSpec, TaskState};
use callboard::trigger::{Interval, Trigger};
use chrono::{DateTime, TimeDelta, Utc};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

const TASKS: usize = 1_000_000;
const BATCH: usize = 1000;
/// Every task runs once in this time, so that a tick of one batch lasts a millisecond.
const PERIOD: TimeDelta = TimeDelta::seconds(1);

fn begin() -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_225_600, 0).unwrap_or_default()
}

fn tasks(count: usize) -> impl Iterator<Item = StoredTask> {
    let executor = Alias::default_alias();
    let handler = Handler::Named("noop".into());
    let trigger = Trigger::Interval(Arc::new(Interval::seconds(1)));
    (0..count).map(move |index| {
        // Not in the order in which they are added: neighbours in time are not neighbours in memory.
        let due = begin() + PERIOD / count as i32 * (index * 7_919 % count) as i32;
        let id = TaskId::new(format!("task-{index:07}")).expect("a valid id");
        let spec = TaskSpec::new(id, handler.clone(), trigger.clone());
        let spec = TaskSpec { executor: executor.clone(), ..spec };
        let next = Some(Fire { nominal: due, due });
        StoredTask { spec: Arc::new(spec), state: TaskState { next, ..TaskState::new(begin()) } }
    })
}

fn now<T>(reply: Reply<T>) -> T {
    match reply {
        Reply::Now(Ok(value)) => value,
        Reply::Now(Err(error)) => panic!("{error}"),
        Reply::Later(_) => panic!("these backends answer at once"),
    }
}

fn advance(task: StoredTask) -> Change {
    let state = task.state;
    let next = state.next.map(|fire| Fire { nominal: fire.nominal + PERIOD, due: fire.due + PERIOD });
    Change {
        id: task.spec.id.clone(),
        revision: state.revision,
        then: Then::State(TaskState {
            revision: state.revision + 1,
            last_run: state.next.map(|fire| fire.nominal),
            runs: state.runs + 1,
            next,
            ..state
        }),
        runs: Vec::new(),
    }
}

fn filled(count: usize) -> MemoryBackend {
    let mut store = MemoryBackend::default();
    for task in tasks(count) {
        now(store.put(Put { task, expect: Expect::Absent }));
    }
    store
}

fn memory(c: &mut Criterion) {
    let mut store = filled(TASKS);
    let mut group = c.benchmark_group("memory store, 1,000,000 tasks");
    group.throughput(Throughput::Elements(BATCH as u64));
    let due = |store: &mut MemoryBackend| {
        let time = now(store.next_due(NextDue)).expect("something is always due");
        TakeDue { now: time + PERIOD, limit: BATCH }
    };
    group.bench_function("take 1000 due tasks", |b| {
        b.iter(|| {
            let request = due(&mut store);
            black_box(now(store.take_due(request)))
        });
    });
    group.bench_function("commit 1000 changes", |b| {
        b.iter_custom(|rounds| {
            let mut total = Duration::ZERO;
            for _ in 0..rounds {
                let request = due(&mut store);
                let changes = now(store.take_due(request)).tasks.into_iter().map(advance).collect();
                let began = Instant::now();
                black_box(now(store.commit(Commit { changes })));
                total += began.elapsed();
            }
            total
        });
    });
    group.bench_function("take and commit 1000", |b| {
        b.iter(|| {
            let request = due(&mut store);
            let changes = now(store.take_due(request)).tasks.into_iter().map(advance).collect();
            now(store.commit(Commit { changes }))
        });
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("put and delete one task", |b| {
        let task = sample_task();
        b.iter_batched(
            || task.clone(),
            |task| {
                let id = task.spec.id.clone();
                now(store.put(Put { task, expect: Expect::Absent }));
                now(store.delete(Delete { id, revision: None }))
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn sample_task() -> StoredTask {
    let mut task = tasks(1).next().expect("one task");
    task.spec =
        Arc::new(TaskSpec { id: TaskId::new("another").expect("a valid id"), ..(*task.spec).clone() });
    task
}

/// The same through the actor and its mailbox.
fn actor(c: &mut Criterion) {
    let system = actix_rt::System::new();
    let store = system.block_on(async { MemoryStore::new().start(Box::new(())) });
    system.block_on(fill(&store, TASKS));
    let mut group = c.benchmark_group("memory store actor, 1,000,000 tasks");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("take and commit 1000", |b| {
        b.iter(|| system.block_on(tick(&store)).expect("a tick"))
    });
    group.finish();
}

fn sled(c: &mut Criterion) {
    embedded(c, "sled store", |path| SledStore::open(path).expect("a path"));
}

fn redb(c: &mut Criterion) {
    embedded(c, "redb store", |path| RedbStore::open(path).expect("a path"));
}

fn file(c: &mut Criterion) {
    embedded(c, "file store", |path| FileStore::open(path).expect("a path"));
}

fn embedded<S: StoreSource>(c: &mut Criterion, name: &str, make: impl Fn(&Path) -> S) {
    let system = actix_rt::System::new();
    let open = |directory: &tempfile::TempDir| {
        system.block_on(async {
            let store = make(directory.path()).start(Box::new(()));
            store.open(Open { owner: OwnerId(1), now: begin() }).await.expect("an open store");
            store
        })
    };
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(&directory);
    system.block_on(fill(&store, 10_000));
    let mut group = c.benchmark_group(format!("{name}, 10,000 tasks"));
    group.sample_size(20);
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("take and commit 1000", |b| {
        b.iter(|| system.block_on(tick(&store)).expect("a tick"))
    });
    group.finish();

    // Many clients who add at once, each waiting for its acknowledgement.
    let mut group = c.benchmark_group(format!("{name}, acknowledged adds"));
    group.sample_size(10);
    for clients in [1, 16, 256] {
        let directory = tempfile::tempdir().expect("a directory");
        let store = open(&directory);
        let sample = sample_task();
        let mut serial = 0_u64;
        group.throughput(Throughput::Elements(clients));
        group.bench_function(format!("{clients} clients"), |b| {
            b.iter_batched(
                || {
                    let fresh = |index| {
                        let id = TaskId::new(format!("added-{index}")).expect("a valid id");
                        let spec = TaskSpec { id, ..(*sample.spec).clone() };
                        StoredTask { spec: Arc::new(spec), state: sample.state.clone() }
                    };
                    serial += clients;
                    (serial - clients..serial).map(fresh).collect::<Vec<_>>()
                },
                |tasks| {
                    let put = |task| store.put(Put { task, expect: Expect::Absent });
                    let all = futures::future::join_all(tasks.into_iter().map(put));
                    system.block_on(all).into_iter().for_each(|added| added.expect("a task is put"));
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

async fn fill(store: &StoreAddr, count: usize) {
    let tasks: Vec<_> = tasks(count).collect();
    for some in tasks.chunks(1000) {
        let put = |task: &StoredTask| store.put(Put { task: task.clone(), expect: Expect::Absent });
        for added in futures::future::join_all(some.iter().map(put)).await {
            added.expect("a task is put");
        }
    }
}

async fn tick(store: &StoreAddr) -> Result<Committed, StoreError> {
    let next = store.next_due(NextDue).await?.unwrap_or_default();
    let due = store.take_due(TakeDue { now: next + PERIOD, limit: BATCH }).await?;
    store.commit(Commit { changes: due.tasks.into_iter().map(advance).collect() }).await
}

criterion_group!(benches, memory, actor, sled, redb, file);
criterion_main!(benches);
