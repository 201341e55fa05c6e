//! The engine on a disk that the test holds in its hand.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, mpsc};

use chrono::{DateTime, TimeDelta, Utc};
use futures::FutureExt;
use futures::future::join_all;

use super::*;
use crate::event::{Event, EventMask};
use crate::scheduler::{Scheduler, Shutdown};
use crate::store::envelope::Codec;
use crate::store::message::*;
use crate::store::{Backend, BackendSource, MemoryBackend, Reply, StoreAddr, StoreSource};
use crate::task::{
    OwnerId, RunId, RunRecord, Source, StoredTask, Task, TaskContext, TaskDefaults, TaskId, TaskState,
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
        Ok(self.with(|inner| inner.applied.get(key).cloned()))
    }

    fn scan(&self, prefix: &[u8], order: Order, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let table = self.with(|inner| inner.applied.clone());
        let mut found = table
            .range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .collect::<Vec<_>>();
        if order == Order::Descending {
            found.reverse();
        }
        for (key, value) in found {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn apply(&mut self, changes: Changes) -> Result<(), StoreError> {
        self.with(|inner| {
            assert!(!inner.panics, "the database panics");
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
    let spec = task.resolve(&TaskDefaults::default(), chrono_tz::Tz::UTC).unwrap();
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

/// A place whose opening hangs until the sender is gone, the first time.
#[derive(Clone)]
struct Hanging(Device, Arc<Mutex<Option<mpsc::Receiver<()>>>>);

impl std::fmt::Debug for Hanging {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hanging")
    }
}

impl Place for Hanging {
    type Disk = Device;

    fn path(&self) -> &std::path::Path {
        self.0.path()
    }

    fn open(&self) -> Result<Device, StoreError> {
        let hangs = self.1.lock().unwrap().take();
        if let Some(hangs) = hangs {
            hangs.recv().unwrap_err();
        }
        self.0.open()
    }
}

#[test]
fn an_opening_that_hangs_is_left_behind_and_tried_again() {
    system(async {
        let (word, hangs) = mpsc::channel();
        let place = Hanging(Device::default(), Arc::new(Mutex::new(Some(hangs))));
        let rules = Rules { open_limit: Duration::from_millis(20), ..Rules::default() };
        let mut source = BackendSource::new(move || Engine::new(place.clone(), rules.clone()));
        let store = source.start(Box::new(()));
        let request = Open { owner: OwnerId(1), now: begin() };
        let error = store.open(request.clone()).await.unwrap_err();
        assert!(error.is_retryable() && error.to_string().contains("`open_limit`"), "{error}");
        store.open(request).await.unwrap();
        put(&store, "a").await.unwrap();
        drop(word);
        assert_eq!(store.list(List).await.unwrap().len(), 1);
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

/// It failed after the change was looked at and before it was refused: what it was refused for may
/// never have been stored.
#[test]
fn a_refusal_is_not_told_by_a_store_that_has_failed_since() {
    system(async {
        let device = Device::default();
        let mut engine = Engine::new(device.clone(), Rules::default());
        let Reply::Now(Ok(_)) = engine.open(Open { owner: OwnerId(1), now: begin() }) else {
            panic!("there is nothing to write")
        };
        let gate = device.gate();
        let Reply::Later(put) = engine.put(Put { task: sample("a"), expect: Expect::Absent }) else {
            panic!("it is not durable yet")
        };
        gate.begun.recv().unwrap();
        gate.word.send(Err("the cable was pulled".to_owned())).unwrap();
        put.await.unwrap_err();
        let mut settled = |refusal| match engine.settled::<()>(Err(refusal)) {
            Reply::Now(Err(error)) => error,
            _ => panic!("it is down"),
        };
        let error = settled(StoreError::Exists(id("a")));
        assert!(error.is_retryable() && error.to_string().contains("cable"), "{error}");
        let error = settled(StoreError::TooLarge { id: id("b"), size: 2, limit: 1 });
        assert!(matches!(error, StoreError::TooLarge { .. }), "it is so in any store: {error}");
    });
}

/// What was acknowledged is lost: that is told at once, and not when somebody asks for it.
#[test]
fn a_failure_that_nobody_waited_for_is_told_and_mended() {
    system(async {
        let device = Device::default();
        let (place, rules) =
            (device.clone(), Rules { durability: Durability::Interval(Duration::ZERO), ..Rules::default() });
        let source = BackendSource::new(move || Engine::new(place.clone(), rules.clone()));
        let registry = crate::task::Registry::new().register("handler", |_: TaskContext, ()| async {});
        let builder = Scheduler::builder().registry(registry).store("default", source);
        let builder = builder.store_retry(Duration::from_millis(10));
        let scheduler = builder.start().await.unwrap();
        let mut events =
            scheduler.events(EventMask::STORE_UNAVAILABLE | EventMask::STORE_RECOVERED).await.unwrap();
        let gate = device.gate();
        let later = crate::trigger::Date::at(crate::clock::Clock::system().now() + TimeDelta::days(1));
        scheduler.add(Task::new("handler").id("a").trigger(later)).await.unwrap();
        gate.begun.recv().unwrap();
        gate.word.send(Err("the cable was pulled".to_owned())).unwrap();
        drop(gate.word);
        let mut next = async || {
            let told = futures::StreamExt::next(&mut events);
            tokio::time::timeout(Duration::from_secs(30), told).await.unwrap()
        };
        let told = next().await;
        let Some(Event::StoreUnavailable { cause, .. }) = &told else { panic!("{told:?}") };
        assert!(cause.contains("cable"), "{cause}");
        let told = next().await;
        assert!(matches!(told, Some(Event::StoreRecovered { .. })), "{told:?}");
        scheduler.shutdown(Shutdown::now()).await.unwrap();
    });
}

/// A directory whose data is damaged, and a device that has no room for a fresh one at first.
#[derive(Clone, Debug)]
struct Damaged {
    path: std::path::PathBuf,
    device: Device,
    errors: Arc<Mutex<Vec<StoreError>>>,
}

impl Place for Damaged {
    type Disk = Device;

    fn path(&self) -> &Path {
        &self.path
    }

    fn open(&self) -> Result<Device, StoreError> {
        let error = self.errors.lock().unwrap().pop();
        error.map_or_else(|| self.device.open(), Err)
    }
}

#[test]
fn what_was_set_aside_is_told_although_the_fresh_store_did_not_open_at_once() {
    system(async {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("store");
        std::fs::create_dir(&path).unwrap();
        // As people write it.
        let path = std::path::PathBuf::from(format!("{}/", path.display()));
        let errors = vec![StoreError::unavailable("there is no room"), unreadable(&path, "it is torn")];
        let place = Damaged { path, device: Device::default(), errors: Arc::new(Mutex::new(errors)) };
        let rules = Rules { set_aside: true, ..Rules::default() };
        let mut source = BackendSource::new(move || Engine::new(place.clone(), rules.clone()));
        let store = source.start(Box::new(()));
        let request = Open { owner: OwnerId(1), now: begin() };
        let error = store.open(request.clone()).await.unwrap_err();
        assert!(error.to_string().contains("no room"), "{error}");
        let aside = open(&store).await.set_aside.unwrap();
        let begin = base.path().join("store.damaged-2").display().to_string();
        assert!(aside.place.starts_with(&begin) && Path::new(&aside.place).is_dir(), "{aside:?}");
        assert!(aside.reason.contains("torn"), "{aside:?}");
        assert_eq!(open(&store).await.set_aside, None, "once");
    });
}

/// A place whose every opening hangs until the sender is gone.
#[derive(Clone, Debug)]
struct Stuck {
    device: Device,
    begun: Arc<std::sync::atomic::AtomicUsize>,
    word: Arc<Mutex<mpsc::Receiver<()>>>,
}

impl Place for Stuck {
    type Disk = Device;

    fn path(&self) -> &Path {
        self.device.path()
    }

    fn open(&self) -> Result<Device, StoreError> {
        self.begun.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.word.lock().unwrap().recv().unwrap_err();
        self.device.open()
    }
}

#[test]
fn threads_that_hang_do_not_become_ever_more() {
    system(async {
        let (word, hear) = mpsc::channel();
        let begun = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let place =
            Stuck { device: Device::default(), begun: begun.clone(), word: Arc::new(Mutex::new(hear)) };
        let rules = Rules { open_limit: Duration::from_millis(5), ..Rules::default() };
        let mut source = BackendSource::new(move || Engine::new(place.clone(), rules.clone()));
        let store = source.start(Box::new(()));
        let request = Open { owner: OwnerId(1), now: begin() };
        for _ in 0..20 {
            assert!(store.open(request.clone()).await.unwrap_err().is_retryable());
        }
        assert!((1..=4).contains(&begun.load(std::sync::atomic::Ordering::Relaxed)), "{begun:?}");
        drop(word);
        while store.open(request.clone()).await.is_err() {}
        put(&store, "a").await.unwrap();
    });
}

/// A task whose turn it is has its old records looked at once, and counted once.
#[test]
fn old_records_are_looked_for_once_a_change() {
    let mut tasks = MemoryBackend::default();
    tasks.insert(sample("a")).unwrap();
    let rules = Rules { age: Some(TimeDelta::seconds(1)), ..Rules::default() };
    let mut history = history::History::new(Codec::plain(), &rules, Vec::new(), None);
    for serial in 0..4 {
        let record = RunRecord {
            id: RunId { owner: OwnerId(1), serial },
            task: id("a"),
            nominal: begin(),
            coalesced: 0,
            span: None,
            source: Source::Scheduled,
            attempt: 1,
            submitted_at: begin(),
            end: None,
        };
        let mut batch = Batch::default();
        history.begin(&mut batch, &id("a"), vec![record], &tasks).unwrap();
        let ages = batch.chores.iter().filter(|chore| matches!(chore, Chore::Ages(..))).count();
        assert_eq!(ages, 1, "{:?}", batch.chores);
    }
}
