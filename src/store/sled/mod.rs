//! The embedded durable store: [sled](https://docs.rs/sled/0.34) in a directory.

mod check;
mod disk;

use std::path::Path;

use disk::SledPlace;

use super::engine::{Engine, Rules, cache_setting, check_directory, embedded_store};
use super::{BackendSource, StoreError};

/// Keeps tasks, and what became of their runs, in a directory: the embedded durable store.
///
/// What is acknowledged is there again after the process was killed or the power was cut (see
/// [`Durability`](super::Durability) for another bargain). Every change is one atomic batch. The tasks are in memory as
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
        Ok(Self::at(check_directory(path.as_ref())?))
    }

    /// The same, of a path that is looked at when the scheduler starts.
    pub(crate) fn at(path: std::path::PathBuf) -> Self {
        Self { place: SledPlace { path, cache: 16 << 20 }, rules: Rules::default(), source: None }
    }
}

embedded_store!(SledStore);
cache_setting!(SledStore);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::engine::lost_writes::{Torn, survives};

    #[test]
    fn nothing_acknowledged_is_lost_whatever_fails() {
        crate::store::engine::faults::suite(|path: &Path| SledPlace {
            path: path.to_owned(),
            cache: 1 << 20,
        });
    }

    #[test]
    fn a_power_cut_takes_nothing_that_was_acknowledged() {
        for seed in [1, 2] {
            survives(|path| SledPlace { path: path.to_owned(), cache: 16 << 20 }, Torn::Blocks, seed);
        }
    }
}
