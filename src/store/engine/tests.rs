//! The engine on a disk that the test holds in its hand.

mod trouble;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, mpsc};

use chrono::{DateTime, TimeDelta, Utc};
use futures::FutureExt;
use futures::future::join_all;

use super::*;
use crate::store::envelope::Codec;
use crate::store::message::*;
use crate::store::{BackendSource, StoreAddr, StoreSource};
use crate::task::{
    Outcome, OwnerId, RunEnd, RunId, RunRecord, Source, StoredTask, Task, TaskDefaults, TaskId, TaskState,
};
use crate::trigger::Interval;

/// What becomes of a sync.
type Word = Result<(), String>;
type Table = BTreeMap<Vec<u8>, Vec<u8>>;

/// A device, what is on it, and what it does when it is asked to sync.
#[derive(Clone, Default)]
struct Device(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    synced: Table,
    applied: Table,
    syncs: usize,
    /// Syncs that begin are told here, and wait for the word.
    gate: Option<(mpsc::Sender<()>, mpsc::Receiver<Word>)>,
    panics: bool,
    /// How long it takes to show anything.
    slow: Duration,
    /// Rows that were shown, and rows that were changed.
    work: (usize, usize),
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Device")
    }
}

/// The test's side of the gate.
struct Gate {
    begun: mpsc::Receiver<()>,
    word: mpsc::Sender<Word>,
}

impl Device {
    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        work(&mut self.0.lock().unwrap())
    }

    /// From now on, each sync waits.
    fn gate(&self) -> Gate {
        let ((tell, begun), (word, hear)) = (mpsc::channel(), mpsc::channel());
        self.with(|inner| inner.gate = Some((tell, hear)));
        Gate { begun, word }
    }

    fn syncs(&self) -> usize {
        self.with(|inner| inner.syncs)
    }

    async fn start(&self, durability: Durability) -> StoreAddr {
        let (device, rules) = (self.clone(), Rules { durability, ..Rules::default() });
        let mut source = BackendSource::new(move || Engine::new(device.clone(), rules.clone()));
        let store = source.start(Box::new(()));
        open(&store).await;
        store
    }
}

impl Place for Device {
    type Disk = Self;

    fn path(&self) -> &std::path::Path {
        std::path::Path::new("the device")
    }

    fn open(&self) -> Result<Self, StoreError> {
        // What was not synced is gone, as after a power cut.
        self.with(|inner| inner.applied = inner.synced.clone());
        Ok(self.clone())
    }
}

impl Disk for Device {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.with(|inner| {
            inner.work.0 += 1;
            inner.applied.get(key).cloned()
        }))
    }

    fn scan(&self, prefix: &[u8], order: Order, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let (table, slow) = self.with(|inner| (inner.applied.clone(), inner.slow));
        std::thread::sleep(slow);
        let mut found = table
            .range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .collect::<Vec<_>>();
        if order == Order::Descending {
            found.reverse();
        }
        for (key, value) in found {
            self.with(|inner| inner.work.0 += 1);
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn scan_beyond(
        &self,
        prefix: &[u8],
        past: &[u8],
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        self.scan(prefix, order, &mut |key, value| {
            let is_beyond = if order == Order::Ascending { key > past } else { key < past };
            if is_beyond { visit(key, value) } else { ControlFlow::Continue(()) }
        })
    }

    fn apply(&mut self, changes: Changes) -> Result<(), StoreError> {
        self.with(|inner| {
            assert!(!inner.panics, "the database panics");
            inner.work.1 += changes.len();
            for (key, value) in changes {
                match value {
                    Some(value) => inner.applied.insert(key, value),
                    None => inner.applied.remove(&key),
                };
            }
        });
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        let gate = self.with(|inner| inner.gate.take());
        if let Some((tell, hear)) = gate {
            tell.send(()).ok();
            let word = hear.recv().unwrap_or(Ok(()));
            self.with(|inner| inner.gate = Some((tell, hear)));
            word.map_err(StoreError::unavailable)?;
        }
        self.with(|inner| {
            inner.syncs += 1;
            inner.synced = inner.applied.clone();
        });
        Ok(())
    }

    fn close(self) -> Result<(), StoreError> {
        Ok(())
    }
}

pub(super) fn begin() -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_225_600, 0).unwrap()
}

pub(super) fn sample(id: &str) -> StoredTask {
    let task = Task::new("handler").id(id).trigger(Interval::seconds(1));
    let spec = task.resolve(&TaskDefaults::default(), crate::trigger::Zone::UTC).unwrap();
    let next = Some(crate::task::Fire { nominal: begin(), due: begin() });
    StoredTask { spec: Arc::new(spec), state: TaskState { next, ..TaskState::new(begin()) } }
}

pub(super) fn id(text: &str) -> TaskId {
    TaskId::new(text).unwrap()
}

async fn open(store: &StoreAddr) -> Opened {
    store.open(Open { owner: OwnerId(1), now: begin() }).await.unwrap()
}

fn put(store: &StoreAddr, id: &str) -> impl Future<Output = Result<(), StoreError>> + Unpin + use<> {
    Box::pin(store.put(Put { task: sample(id), expect: Expect::Absent }))
}

async fn due(store: &StoreAddr) -> usize {
    let now = begin() + TimeDelta::seconds(1);
    store.take_due(TakeDue { now, limit: 99 }).await.unwrap().tasks.len()
}

pub(super) fn system<T>(future: impl Future<Output = T>) -> T {
    actix_rt::System::new().block_on(future)
}

#[test]
fn changes_that_wait_share_a_sync_and_the_store_answers_meanwhile() {
    system(async {
        let device = Device::default();
        let store = device.start(Durability::Fsync).await;
        let gate = device.gate();
        let mut first = put(&store, "first");
        assert!((&mut first).now_or_never().is_none());
        gate.begun.recv().unwrap();
        // The device is busy. Nine more come in, and what is due is told.
        let mut others: Vec<_> = (0..9).map(|index| put(&store, &index.to_string())).collect();
        assert_eq!(due(&store).await, 10);
        assert_eq!(store.next_due(NextDue).await.unwrap(), Some(begin()));
        assert!((&mut first).now_or_never().is_none(), "what is not synced is not acknowledged");
        assert!(others.iter_mut().all(|other| other.now_or_never().is_none()));
        let syncs = device.syncs();
        gate.word.send(Ok(())).unwrap();
        first.await.unwrap();
        gate.word.send(Ok(())).unwrap();
        assert!(join_all(others).await.iter().all(Result::is_ok));
        assert_eq!(device.syncs() - syncs, 2, "one for the first, one for all that waited");
    });
}

#[test]
fn nobody_is_told_of_what_is_not_durable() {
    system(async {
        let device = Device::default();
        let store = device.start(Durability::Fsync).await;
        let gate = device.gate();
        let mut first = put(&store, "a");
        assert!((&mut first).now_or_never().is_none());
        gate.begun.recv().unwrap();
        let mut rival = put(&store, "a");
        let mut get = Box::pin(store.get(Get { id: id("a") }));
        let mut list = Box::pin(store.list(List));
        let mut delete = Box::pin(store.delete(Delete { id: id("b"), revision: None }));
        assert_eq!(due(&store).await, 1, "they have been handled");
        assert!((&mut rival).now_or_never().is_none());
        assert!((&mut get).now_or_never().is_none());
        assert!((&mut list).now_or_never().is_none());
        assert!((&mut delete).now_or_never().is_none());
        gate.word.send(Ok(())).unwrap();
        drop(gate.word);
        first.await.unwrap();
        assert!(matches!(rival.await, Err(StoreError::Exists(_))));
        assert!(matches!(delete.await, Err(StoreError::NotFound(_))));
        assert_eq!((get.await.unwrap().is_some(), list.await.unwrap().len()), (true, 1));
        assert!(store.get(Get { id: id("a") }).await.unwrap().is_some(), "at once when nothing waits");
    });
}

#[test]
fn a_failed_sync_fails_all_that_wait_and_takes_the_store_down() {
    system(async {
        let device = Device::default();
        let store = device.start(Durability::Fsync).await;
        put(&store, "before").await.unwrap();
        let gate = device.gate();
        let mut first = put(&store, "a");
        assert!((&mut first).now_or_never().is_none());
        gate.begun.recv().unwrap();
        let others: Vec<_> = (0..5).map(|index| put(&store, &index.to_string())).collect();
        assert_eq!(due(&store).await, 1 + 1 + 5);
        gate.word.send(Err("the cable was pulled".to_owned())).unwrap();
        drop(gate.word);
        for lost in std::iter::once(first.await).chain(join_all(others).await) {
            let error = lost.unwrap_err();
            assert!(error.is_retryable() && error.to_string().contains("cable"), "{error}");
        }
        for _ in 0..2 {
            let error = store.next_due(NextDue).await.unwrap_err();
            assert!(error.is_retryable() && error.to_string().contains("cable"), "{error}");
            put(&store, "later").await.unwrap_err();
            store.get(Get { id: id("before") }).await.unwrap_err();
        }
        open(&store).await;
        let there = store.list(List).await.unwrap();
        assert_eq!(there, [sample("before")], "memory is what the device has");
        put(&store, "a").await.unwrap();
    });
}

#[test]
fn a_panic_of_the_database_is_a_failure() {
    system(async {
        let device = Device::default();
        let store = device.start(Durability::Fsync).await;
        device.with(|inner| inner.panics = true);
        // The lock is poisoned by the panic, as a database may be.
        let error = put(&store, "a").await.unwrap_err();
        assert!(error.to_string().contains("the database panics"), "{error}");
        assert!(store.list(List).await.unwrap_err().is_retryable());
    });
}

#[test]
fn at_intervals_nobody_waits_for_the_device() {
    system(async {
        let device = Device::default();
        let store = device.start(Durability::Interval(Duration::from_secs(3600))).await;
        let (syncs, rows) = (device.syncs(), device.with(|inner| inner.synced.len()));
        for index in 0..20 {
            put(&store, &index.to_string()).await.unwrap();
        }
        assert_eq!(store.list(List).await.unwrap().len(), 20);
        assert_eq!(device.syncs(), syncs);
        store.close(Close).await.unwrap();
        let written = device.with(|inner| inner.synced.len()) - rows;
        assert_eq!((device.syncs() - syncs, written), (1, 40));
    });
}

/// Zero: after each group, for which nobody waits.
#[test]
fn the_shortest_interval_syncs_always() {
    system(async {
        let device = Device::default();
        let store = device.start(Durability::Interval(Duration::ZERO)).await;
        let (gate, rows) = (device.gate(), device.with(|inner| inner.synced.len()));
        put(&store, "a").await.unwrap();
        gate.begun.recv().unwrap();
        assert_eq!(device.with(|inner| inner.synced.len()), rows);
        gate.word.send(Ok(())).unwrap();
        drop(gate.word);
        store.close(Close).await.unwrap();
        assert_eq!(device.with(|inner| inner.synced.len()), rows + 2);
    });
}

/// Numbers can come from an import, where anything may have been written.
#[test]
fn the_last_number_of_a_removed_task_is_no_panic() {
    let gone = vec![(3, id("a")), (u64::MAX, id("b"))];
    let rules = Rules { removed: 2, ..Rules::default() };
    let mut history = history::History::new(Codec::plain(), &rules, gone, None);
    let mut batch = Batch::default();
    history.leave(&mut batch, id("c"), |_| false);
    let forgotten: Vec<_> =
        batch.chores.iter().filter(|chore| matches!(chore, Chore::Forgotten(..))).collect();
    assert!(matches!(forgotten[..], [Chore::Forgotten(_, task)] if *task == id("a")), "{:?}", batch.chores);
    history.leave(&mut batch, id("d"), |_| false);
    assert_eq!(history.gone().cloned().collect::<Vec<_>>(), [id("c"), id("d")]);
    // What is left on the disk is the same, in the same order.
    let mut rows = BTreeMap::from([(keys::gone(3), vec![]), (keys::gone(u64::MAX), vec![])]);
    for (key, value) in batch.changes {
        match value {
            Some(value) => rows.insert(key, value),
            None => rows.remove(&key),
        };
    }
    assert_eq!(rows.into_values().collect::<Vec<_>>(), [b"c", b"d"]);
}

/// A run of a task: how many rows are looked at, and how many are changed.
async fn work_of(device: &Device, store: &StoreAddr, task: &mut StoredTask, serial: u64) -> (usize, usize) {
    let before = device.with(|inner| inner.work);
    let run = RunId { owner: OwnerId(1), serial };
    let submitted_at = begin() + TimeDelta::seconds(serial as i64);
    let record = RunRecord {
        id: run,
        task: task.spec.id.clone(),
        nominal: submitted_at,
        offset: None,
        coalesced: 0,
        span: None,
        source: Source::Scheduled,
        attempt: 1,
        submitted_at,
        end: None,
    };
    let state = TaskState { revision: task.state.revision + 1, ..task.state.clone() };
    let change = Change {
        id: task.spec.id.clone(),
        revision: task.state.revision,
        then: Then::State(state.clone()),
        runs: vec![record],
    };
    task.state = state;
    assert_eq!(store.commit(Commit { changes: vec![change] }).await.unwrap().refused, [0; 0]);
    let end = RunEnd::unstarted(Outcome::Executed { value: serde_json::Value::Null }, submitted_at);
    store.finish(Finish { ends: vec![(run, task.spec.id.clone(), end)] }).await.unwrap();
    let after = device.with(|inner| inner.work);
    (after.0 - before.0, after.1 - before.1)
}

/// With records that go at each run, and with many tasks that have many: as many rows are touched.
#[test]
fn what_a_run_costs_does_not_grow_with_records_or_tasks() {
    actix_rt::System::new().block_on(async {
        let mut worst = Vec::new();
        for (tasks, runs) in [(1, 100), (1, 600), (60, 100), (60, 600)] {
            let device = Device::default();
            let retention = Retention { size: 60_000, least: 3, ..Retention::DURABLE };
            let rules = Rules { retention, ..Rules::default() };
            let made = device.clone();
            let mut source = BackendSource::new(move || Engine::new(made.clone(), rules.clone()));
            let store = source.start(Box::new(()));
            open(&store).await;
            let mut all: Vec<_> = (0..tasks).map(|index| sample(&format!("task {index}"))).collect();
            for task in &all {
                store.put(Put { task: task.clone(), expect: Expect::Absent }).await.unwrap();
            }
            let mut most = (0, 0);
            for serial in 0..runs {
                let task = &mut all[serial as usize % tasks];
                let (looks, changes) = work_of(&device, &store, task, serial).await;
                most = (most.0.max(looks), most.1.max(changes));
            }
            worst.push(most);
            let kept =
                device.with(|inner| inner.applied.keys().filter(|key| key.starts_with(keys::RUN)).count());
            assert!(kept < 600 && (runs < 600 || kept > 100), "{kept} records of {runs} are kept");
            store.close(Close).await.unwrap();
        }
        // State, record and mark of the run at its begin and at its end, and what goes meanwhile.
        assert!(worst.iter().all(|(looks, changes)| *looks == 0 && *changes <= 12), "{worst:?}");
    });
}

/// A clock that is years ahead for some minutes takes no records along.
#[test]
fn a_clock_that_is_ahead_for_a_while_takes_no_records() {
    actix_rt::System::new().block_on(async {
        let device = Device::default();
        let store = device.start(Durability::Fsync).await;
        let mut task = sample("a");
        store.put(Put { task: task.clone(), expect: Expect::Absent }).await.unwrap();
        let ten_years = 10 * 365 * 86_400;
        for serial in (0..50).chain(ten_years..ten_years + 50).chain(100..150) {
            work_of(&device, &store, &mut task, serial).await;
        }
        let runs = store.runs(Runs { id: id("a"), limit: 999 }).await.unwrap();
        assert_eq!(runs.len(), 150);
        store.close(Close).await.unwrap();
    });
}
