//! The embedded durable store: [sled](https://docs.rs/sled/0.34) in a directory.

mod backend;
mod check;
mod disk;
mod history;
mod keys;
mod load;

use std::fmt;
use std::path::{Path, PathBuf};

pub use backend::SledBackend;

use super::{BackendSource, Keep, StoreAddr, StoreError, StoreSource};

/// The most bytes a task may take when it is written down: 64 KiB. sled keeps larger rows outside
/// its log, where they are never synced.
pub const ROW_LIMIT: usize = 64 * 1024;

/// Keeps tasks, and what became of their runs, in a directory: the embedded durable store.
///
/// What is acknowledged is there again after the process was killed. Every change is one atomic
/// batch. The tasks are in memory as well, as in a [`MemoryStore`](super::MemoryStore), which answers
/// everything that is asked; sled is written to, and read at the start.
///
/// The actor has an arbiter of its own, because it waits for the disk. One process at a time can
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
    options: Options,
    source: Option<BackendSource<SledBackend>>,
}

#[derive(Debug, Clone)]
struct Options {
    path: PathBuf,
    cache: u64,
    history: usize,
    removed: usize,
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
            return Err(check::damaged(&path, "it is a file where a directory belongs", advice));
        }
        Ok(Self { options: Options { path, cache: 16 << 20, history: 100, removed: 10_000 }, source: None })
    }

    /// The size of sled's own cache in bytes. Default: 16 MiB.
    pub fn cache(mut self, bytes: u64) -> Self {
        self.options.cache = bytes;
        self
    }

    /// How many run records of a task are kept; up to a quarter more before the oldest go. Runs
    /// that have not ended are always kept. Default: 100.
    pub fn history(mut self, runs: usize) -> Self {
        self.options.history = runs;
        self
    }

    /// How many removed tasks keep their run records; when more are removed, the records of those
    /// removed first go. Default: 10,000.
    pub fn history_of_removed(mut self, tasks: usize) -> Self {
        self.options.removed = tasks;
        self
    }
}

impl StoreSource for SledStore {
    fn start(&mut self, keep: Keep) -> StoreAddr {
        let options = &self.options;
        self.source
            .get_or_insert_with(|| {
                let options = options.clone();
                BackendSource::new(move || SledBackend::new(options.clone()))
            })
            .start(keep)
    }
}

impl fmt::Debug for SledStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.options, f)
    }
}
