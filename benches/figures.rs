//! What each store does in a second, how long it takes to open, and how large it gets: a row for
//! each figure. What is measured is acknowledged when it is on the device; what only
//! prepares a measurement is not waited for.
//!
//! ```text
//! cargo bench --bench figures --all-features                     all stores, some minutes
//! cargo bench --bench figures --all-features -- redb             one of them
//! cargo bench --bench figures --all-features -- redb sled quick  a tenth of the sizes
//! ```

use std::path::Path;
use std::time::{Duration, Instant};

use callboard::store::contract::sample;
use callboard::store::message::*;
use callboard::store::{Durability, FileStore, MemoryStore, RedbStore, SledStore, StoreAddr, StoreSource};
use callboard::task::{Fire, Outcome, OwnerId, RunEnd, RunId, RunRecord, Source, StoredTask, TaskState};
use chrono::{DateTime, TimeDelta, Utc};

const OWNER: OwnerId = OwnerId(1);
/// Every task runs once in this time.
const PERIOD: TimeDelta = TimeDelta::seconds(1);
/// How long adds and commits are measured.
const WHILE: Duration = Duration::from_secs(3);

fn begin() -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_225_600, 0).unwrap_or_default()
}

fn task(index: usize) -> StoredTask {
    sample(&format!("task-{index:07}"), begin())
}

/// Opens the store of a kind, and says how long that took.
async fn open(kind: &str, path: &Path, durability: Durability) -> (StoreAddr, Duration) {
    let mut source: Box<dyn StoreSource> = match kind {
        "memory" => Box::new(MemoryStore::new()),
        "sled" => Box::new(SledStore::open(path).expect("a path").durability(durability)),
        "redb" => Box::new(RedbStore::open(path).expect("a path").durability(durability)),
        _ => {
            // A million files take their time.
            let limit = Duration::from_secs(600);
            Box::new(FileStore::open(path).expect("a path").durability(durability).open_limit(limit))
        }
    };
    let began = Instant::now();
    let store = source.start(Box::new(()));
    store.open(Open { owner: OWNER, now: begin() }).await.expect("an open store");
    (store, began.elapsed())
}

async fn add(store: &StoreAddr, indices: std::ops::Range<usize>) {
    let put = |index| store.put(Put { task: task(index), expect: Expect::Absent });
    for added in futures::future::join_all(indices.map(put)).await {
        added.expect("a task is put");
    }
}

/// A store with so many tasks, closed.
async fn filled(kind: &str, path: &Path, count: usize) {
    let (store, _) = open(kind, path, Durability::Interval(Duration::from_secs(1))).await;
    for from in (0..count).step_by(1000) {
        add(&store, from..count.min(from + 1000)).await;
    }
    store.close(Close).await.expect("a closed store");
}

/// An open store with so many tasks.
async fn stocked(kind: &str, path: &Path, count: usize, durability: Durability) -> StoreAddr {
    if kind == "memory" {
        let (store, _) = open(kind, path, durability).await;
        add(&store, 0..count).await;
        return store;
    }
    filled(kind, path, count).await;
    open(kind, path, durability).await.0
}

/// Moves due tasks on as a tick does, with a record of each run; answers with the runs.
async fn tick(store: &StoreAddr, limit: usize, serial: &mut u64) -> Vec<(RunId, RunRecord)> {
    let next = store.next_due(NextDue).await.expect("an answer").unwrap_or_default();
    let due = store.take_due(TakeDue { now: next, limit }).await.expect("due tasks");
    let mut runs = Vec::with_capacity(due.tasks.len());
    let changes = due.tasks.into_iter().map(|task| {
        *serial += 1;
        let next =
            task.state.next.map(|fire| Fire { nominal: fire.nominal + PERIOD, due: fire.due + PERIOD });
        let id = RunId { owner: OWNER, serial: *serial };
        let record = RunRecord {
            id,
            task: task.spec.id.clone(),
            nominal: task.state.next.map_or(begin(), |fire| fire.nominal),
            coalesced: 0,
            span: None,
            source: Source::Scheduled,
            attempt: 1,
            submitted_at: begin(),
            offset: None,
            end: None,
        };
        runs.push((id, record.clone()));
        let state =
            TaskState { revision: task.state.revision + 1, runs: *serial, next, ..task.state.clone() };
        let (id, revision) = (task.spec.id.clone(), task.state.revision);
        Change { id, revision, then: Then::State(state), runs: vec![record] }
    });
    let commit = Commit { changes: changes.collect() };
    assert!(store.commit(commit).await.expect("a commit").refused.is_empty());
    runs
}

async fn end(store: &StoreAddr, runs: Vec<(RunId, RunRecord)>) {
    let end = RunEnd::unstarted(Outcome::Executed { value: 7.into() }, begin());
    let ends = runs.into_iter().map(|(id, record)| (id, record.task, end.clone())).collect();
    store.finish(Finish { ends }).await.expect("ends are written");
}

fn size(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).expect("a directory").flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => size(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

async fn figures(kind: &str, scale: usize) {
    let row = |what: &str, figure: String| println!("| {kind} | {what} | {figure} |");
    for clients in [1, 16, 256] {
        let place = tempfile::tempdir().expect("a directory");
        let (store, _) = open(kind, place.path(), Durability::Fsync).await;
        let (began, mut added) = (Instant::now(), 0);
        while began.elapsed() < WHILE {
            add(&store, added..added + clients).await;
            added += clients;
        }
        let rate = added as f64 / began.elapsed().as_secs_f64();
        row(&format!("acknowledged adds a second, {clients} at a time"), format!("{rate:.0}"));
        store.close(Close).await.expect("a closed store");
    }
    for batch in [1, 100, 10_000] {
        let place = tempfile::tempdir().expect("a directory");
        let store = stocked(kind, place.path(), batch, Durability::Fsync).await;
        let (mut took, mut serial, mut commits) = (Duration::ZERO, 0, 0);
        while took < WHILE {
            let began = Instant::now();
            let begun = tick(&store, batch, &mut serial).await;
            took += began.elapsed();
            commits += 1;
            // Runs that never end would be kept, and be in the way of the next ones.
            end(&store, begun).await;
        }
        let took = took.as_secs_f64();
        let (commits, runs) = (f64::from(commits) / took, serial as f64 / took);
        row(&format!("commits a second, {batch} runs each"), format!("{commits:.1} ({runs:.0} runs)"));
        store.close(Close).await.expect("a closed store");
    }
    let place = tempfile::tempdir().expect("a directory");
    let (tasks, runs) = (1000, 1_000_000 / scale as u64);
    let store = stocked(kind, place.path(), tasks, Durability::Interval(Duration::from_secs(1))).await;
    let (began, mut serial) = (Instant::now(), 0);
    while serial < runs {
        let begun = tick(&store, tasks, &mut serial).await;
        end(&store, begun).await;
    }
    let took = began.elapsed().as_secs_f64();
    store.close(Close).await.expect("a closed store");
    let rate = serial as f64 / took;
    if kind == "memory" {
        // Nothing on a disk, and nothing to open.
        return row(&format!("runs a second, {tasks} tasks"), format!("{rate:.0}"));
    }
    let megabytes = size(place.path()) as f64 / 1e6;
    row(
        &format!("size after {runs} runs of {tasks} tasks, 100 records each kept"),
        format!("{megabytes:.1} MB ({rate:.0} runs a second, synced every second)"),
    );
    for count in [100_000 / scale, 1_000_000 / scale] {
        let place = tempfile::tempdir().expect("a directory");
        filled(kind, place.path(), count).await;
        let (store, took) = open(kind, place.path(), Durability::Fsync).await;
        row(&format!("opening {count} tasks"), format!("{:.2} s", took.as_secs_f64()));
        store.close(Close).await.expect("a closed store");
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let asked = |word: &str| words.iter().any(|given| given == word);
    let scale = if asked("quick") { 10 } else { 1 };
    let kinds = ["memory", "sled", "redb", "file"];
    let all = !kinds.iter().any(|kind| asked(kind));
    println!("| store | what | figure |\n|---|---|---|");
    for kind in kinds.into_iter().filter(|kind| all || asked(kind)) {
        actix_rt::System::new().block_on(figures(kind, scale));
    }
}
