//! The embedded durable store: [sled](https://docs.rs/sled/0.34) in a directory.

mod check;
mod disk;

use std::fmt;
use std::path::Path;

use disk::SledPlace;

use super::engine::{Durability, Engine, Rules, damaged};
use super::{BackendSource, Keep, StoreAddr, StoreError, StoreSource};

/// Keeps tasks, and what became of their runs, in a directory: the embedded durable store.
///
/// What is acknowledged is there again after the process was killed or the power was cut (see
/// [`Durability`] for another bargain). Every change is one atomic batch. The tasks are in memory as
/// well, as in a [`MemoryStore`](super::MemoryStore), which answers everything that is asked; sled is
/// written to, and read at the start.
///
/// A thread of the store's own waits for the disk, so that the actor can answer meanwhile; changes
/// that wait at the same time share one `fsync`. After a write that failed the store is down, and
/// says so, until it is opened again; the scheduler does that. One process at a time can
/// have the directory. Before sled opens existing files it opens a copy of them: sled erases what
/// it cannot read, and a damaged directory is to stay as it was found. So a start reads the files
/// twice and needs room for them twice.
///
/// ```no_run
/// use callboard::store::SledStore;
///
/// let store = SledStore::open("data/tasks")?.cache(32 << 20).history(20);
/// # Ok::<(), callboard::store::StoreError>(())
/// ```
///
/// # Errors
/// The directory is opened when the scheduler starts. Then, and never with anything deleted:
/// [`InUse`](StoreError::InUse) when another process has it (and still has it half a second later),
/// [`Damaged`](StoreError::Damaged) when
/// its files are cut off, overwritten, missing or of a newer version, and
/// [`Unavailable`](StoreError::Unavailable) when the system refuses to read or write. A single
/// record that cannot be read is reported in [`Opened`](super::message::Opened) and left alone.
pub struct SledStore {
    place: SledPlace,
    rules: Rules,
    source: Option<BackendSource<Engine<SledPlace>>>,
}

impl SledStore {
    /// The store in the directory `path`, which is made when the scheduler starts.
    ///
    /// # Errors
    /// [`Damaged`](StoreError::Damaged) when `path` is something else than a directory.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref().to_owned();
        if path.exists() && !path.is_dir() {
            let advice = "give the store the path of a directory";
            return Err(damaged(&path, "it is a file where a directory belongs", advice));
        }
        Ok(Self { place: SledPlace { path, cache: 16 << 20 }, rules: Rules::default(), source: None })
    }

    /// The size of sled's own cache in bytes. Default: 16 MiB.
    pub fn cache(mut self, bytes: u64) -> Self {
        self.place.cache = bytes;
        self
    }

    /// When a change is acknowledged. Default: [`Durability::Fsync`].
    pub fn durability(mut self, durability: Durability) -> Self {
        self.rules.durability = durability;
        self
    }

    /// How many run records of a task are kept; up to a quarter more before the oldest go. Runs
    /// that have not ended are always kept. Default: 100.
    pub fn history(mut self, runs: usize) -> Self {
        self.rules.history = runs;
        self
    }

    /// How many removed tasks keep their run records; when more are removed, the records of those
    /// removed first go. Default: 10,000.
    pub fn history_of_removed(mut self, tasks: usize) -> Self {
        self.rules.removed = tasks;
        self
    }
}

impl StoreSource for SledStore {
    fn start(&mut self, keep: Keep) -> StoreAddr {
        let (place, rules) = (&self.place, &self.rules);
        self.source
            .get_or_insert_with(|| {
                let (place, rules) = (place.clone(), rules.clone());
                BackendSource::new(move || Engine::new(place.clone(), rules.clone()))
            })
            .start(keep)
    }
}

impl fmt::Debug for SledStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SledStore").field("place", &self.place).field("rules", &self.rules).finish()
    }
}
