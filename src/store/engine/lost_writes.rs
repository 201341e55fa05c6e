//! Power cuts: what a device had not been told to sync is lost, or is there in part.
//!
//! A [`Tap`] stands around the disk of a store. When a sync returns, it keeps a copy of the
//! directory: that is what the device has promised. What the store writes after it may be lost or
//! not, block by block, until the next sync returns. So a directory after a power cut is the copy of
//! one sync with some of the blocks of the next one put in; which ones, chance says. Any such
//! directory has to open, with everything that was acknowledged, and with a change that was under
//! way wholly or not at all.
//!
//! What this does not test: that a sync reaches the device (the copy is made of what the system has,
//! and the system would give it out without any sync as well), a device that lies about syncs, and
//! that names are lost by themselves.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use chrono::{DateTime, TimeDelta, Utc};

use super::*;
use crate::store::message::*;
use crate::store::{BackendSource, StoreAddr, StoreSource};
use crate::task::{OwnerId, RunId, RunRecord, Source, StoredTask, Task, TaskDefaults, TaskId, TaskState};
use crate::trigger::Interval;

/// The files of a directory, by their paths within it.
type Image = BTreeMap<PathBuf, Vec<u8>>;

/// Stands for a directory that may be empty.
const DIRECTORY: &str = ".directory";

/// What a device writes at once, or not.
const BLOCK: usize = 4096;

fn image(path: &Path) -> Image {
    fn add(image: &mut Image, top: &Path, at: &Path) {
        for entry in fs::read_dir(at).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                image.insert(path.strip_prefix(top).unwrap().join(DIRECTORY), Vec::new());
                add(image, top, &path);
            } else if let Ok(bytes) = fs::read(&path) {
                // One that went away meanwhile was none to be kept.
                image.insert(path.strip_prefix(top).unwrap().to_owned(), bytes);
            }
        }
    }
    let mut files = Image::new();
    add(&mut files, path, path);
    files
}

fn restore(image: &Image, path: &Path) {
    for (name, bytes) in image {
        let file = path.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        if !name.ends_with(DIRECTORY) {
            fs::write(file, bytes).unwrap();
        }
    }
}

/// A place whose disk keeps an image at each sync.
#[derive(Debug, Clone)]
struct Tap<P> {
    place: P,
    synced: Arc<Mutex<Image>>,
}

struct Tapped<D> {
    disk: D,
    path: PathBuf,
    synced: Arc<Mutex<Image>>,
}

impl<P: Place> Place for Tap<P> {
    type Disk = Tapped<P::Disk>;

    fn path(&self) -> &Path {
        self.place.path()
    }

    fn open(&self) -> Result<Self::Disk, StoreError> {
        let path = self.place.path().to_owned();
        let disk = self.place.open()?;
        *self.synced.lock().unwrap() = image(&path);
        Ok(Tapped { disk, path, synced: self.synced.clone() })
    }
}

impl<D: Disk> Disk for Tapped<D> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.disk.get(key)
    }

    fn scan(&self, prefix: &[u8], order: Order, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.disk.scan(prefix, order, visit)
    }

    fn scan_beyond(
        &self,
        prefix: &[u8],
        past: &[u8],
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        self.disk.scan_beyond(prefix, past, order, visit)
    }

    fn apply(&mut self, changes: Changes) -> Result<(), StoreError> {
        self.disk.apply(changes)
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.disk.sync()?;
        *self.synced.lock().unwrap() = image(&self.path);
        Ok(())
    }

    fn set_identity(&mut self, identity: Uuid) -> Result<(), StoreError> {
        self.disk.set_identity(identity)?;
        *self.synced.lock().unwrap() = image(&self.path);
        Ok(())
    }

    fn untidy(&self) -> Option<Duration> {
        self.disk.untidy()
    }

    fn tidy(&mut self) -> Result<(), StoreError> {
        self.disk.tidy()
    }

    fn close(self) -> Result<(), StoreError> {
        self.disk.close()
    }
}

/// What may be lost of what a store writes between two syncs of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Torn {
    /// Any blocks of any file.
    Blocks,
    /// The end of the named file; other files are written and synced one by one.
    Tail(&'static str),
}

/// Chance that is the same each time (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % sides
    }
}

/// What is left when the power goes between two moments.
fn after_power_cut(synced: &Image, later: &Image, torn: Torn, dice: &mut Dice) -> Image {
    let mut left = synced.clone();
    match torn {
        Torn::Tail(name) => {
            let name = Path::new(name);
            let (before, after) = (&synced[name], later.get(name));
            if let Some(after) = after.filter(|after| after.starts_with(before)) {
                let kept = match dice.roll(3) {
                    0 => after.len(),
                    _ => before.len() + dice.roll(after.len() - before.len() + 1),
                };
                left.insert(name.to_owned(), after[..kept].to_vec());
            }
        }
        Torn::Blocks => {
            // All, none, or about half of the blocks.
            let odds = dice.roll(3);
            for (name, after) in later {
                let before = left.entry(name.clone()).or_default();
                if odds == 1 || dice.roll(2) == 0 {
                    before.resize(after.len().max(before.len()), 0);
                }
                for (index, block) in after.chunks(BLOCK).enumerate() {
                    let arrives = match odds {
                        0 => false,
                        1 => true,
                        _ => dice.roll(2) == 0,
                    };
                    if let Some(place) = before.get_mut(index * BLOCK..index * BLOCK + block.len())
                        && arrives
                    {
                        place.copy_from_slice(block);
                    }
                }
            }
            left.retain(|name, bytes| synced.contains_key(name) || !bytes.is_empty());
        }
    }
    left
}

fn begin() -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_225_600, 0).unwrap()
}

fn sample(id: &str, size: usize) -> StoredTask {
    let task = Task::new("handler").id(id).trigger(Interval::seconds(1)).args("x".repeat(size));
    let spec = task.resolve(&TaskDefaults::default(), crate::trigger::Zone::UTC).unwrap();
    StoredTask { spec: Arc::new(spec), state: TaskState::new(begin()) }
}

async fn start<P: Place>(place: &P) -> StoreAddr {
    let place = place.clone();
    let mut source = BackendSource::new(move || Engine::new(place.clone(), Rules::default()));
    let store = source.start(Box::new(()));
    store.open(Open { owner: OwnerId(1), now: begin() }).await.unwrap();
    store
}

/// Tasks with the numbers of their runs.
type State = BTreeMap<TaskId, (StoredTask, usize)>;

async fn state(store: &StoreAddr) -> State {
    let mut state = State::new();
    for task in store.list(List).await.unwrap() {
        let id = task.spec.id.clone();
        let runs = store.runs(Runs { id: id.clone(), limit: 999 }).await.unwrap().len();
        state.insert(id, (task, runs));
    }
    state
}

/// One change, chosen by chance, and what becomes of `state` by it.
async fn change(store: &StoreAddr, state: &mut State, serial: u64, dice: &mut Dice) {
    let id = TaskId::new(format!("task {}", dice.roll(20))).unwrap();
    let Some((task, runs)) = state.get(&id).cloned() else {
        let size = if dice.roll(5) == 0 { 20_000 } else { dice.roll(500) };
        let task = sample(id.as_str(), size);
        state.insert(id, (task.clone(), 0));
        return store.put(Put { task, expect: Expect::Absent }).await.unwrap();
    };
    if dice.roll(8) == 0 {
        state.remove(&id);
        store.delete(Delete { id: id.clone(), revision: None }).await.unwrap();
        // So that runs of before are not counted when it comes back.
        return;
    }
    let revision = task.state.revision;
    let after = TaskState { revision: revision + 1, runs: serial, ..task.state.clone() };
    let at = begin() + TimeDelta::seconds(serial as i64);
    let run = RunRecord {
        id: RunId { owner: OwnerId(1), serial },
        task: id.clone(),
        nominal: at,
        offset: None,
        coalesced: 0,
        span: None,
        source: Source::Scheduled,
        attempt: 1,
        submitted_at: at,
        end: None,
    };
    let then = Then::State(after.clone());
    let change = Change { id: id.clone(), revision, then, runs: vec![run] };
    state.insert(id, (StoredTask { state: after, ..task }, runs + 1));
    assert!(store.commit(Commit { changes: vec![change] }).await.unwrap().refused.is_empty());
}

/// Cuts the power again and again while a store is changed; `place` is the store in a directory.
pub(in crate::store) fn survives<P: Place>(place: impl Fn(&Path) -> P, torn: Torn, seed: u64) {
    let mut dice = Dice(seed | 1);
    actix_rt::System::new().block_on(async {
        let base = tempfile::tempdir().unwrap();
        let tap = Tap { place: place(&base.path().join("live")), synced: Arc::default() };
        let store = start(&tap).await;
        let (mut acknowledged, mut lost, mut kept) = (State::new(), 0, 0);
        for serial in 1..=120 {
            let before = tap.synced.lock().unwrap().clone();
            let mut after = acknowledged.clone();
            change(&store, &mut after, serial, &mut dice).await;
            // Runs of a task that was deleted stay, and count when it comes back: ask.
            after = state(&store).await.into_iter().filter(|(id, _)| after.contains_key(id)).collect();
            let later = tap.synced.lock().unwrap().clone();
            if serial % 4 == 0 {
                let context = format!("seed {seed}, change {serial}");
                // What was acknowledged before this change, and perhaps the change.
                let left = after_power_cut(&before, &later, torn, &mut dice);
                let found = reopened(&place, &left, &context).await;
                assert!(
                    found == acknowledged || found == after,
                    "{context}: neither as before nor as after it"
                );
                lost += usize::from(found == acknowledged);
                kept += usize::from(found == after);
                // With nothing that came later: the change as well.
                let found = reopened(&place, &later, &context).await;
                assert!(found == after, "{context}: an acknowledged change is lost");
            }
            acknowledged = after;
        }
        assert!(lost > 3 && kept > 3, "{lost} changes were lost and {kept} kept: chance has no say");
    });
}

async fn reopened<P: Place>(place: &impl Fn(&Path) -> P, image: &Image, context: &str) -> State {
    let base = tempfile::tempdir().unwrap();
    let path = base.path().join("left");
    restore(image, &path);
    let place = place(&path);
    let mut source = BackendSource::new(move || Engine::new(place.clone(), Rules::default()));
    let store = source.start(Box::new(()));
    // The same owner: its runs are not written off, so that states can be compared.
    let opened = store.open(Open { owner: OwnerId(1), now: begin() }).await;
    let opened = opened.unwrap_or_else(|error| panic!("{context}: it does not open: {error}"));
    assert!(opened.unreadable.is_empty(), "{context}: {:?}", opened.unreadable);
    let found = state(&store).await;
    store.close(Close).await.unwrap();
    found
}
