//! The other embedded durable store: [redb](https://docs.rs/redb) in a directory.

mod disk;
mod untouched;

use std::path::Path;

use disk::RedbPlace;

use super::engine::{Engine, Rules, cache_setting, check_directory, embedded_store};
use super::{BackendSource, StoreError};

/// Keeps tasks, and what became of their runs, in a directory, with redb: an embedded durable store
/// on an engine that is maintained.
///
/// It promises and does what [`SledStore`](super::SledStore) does, and has the same settings: memory
/// answers, a thread of the store's own writes, changes that wait share one transaction and one
/// `fsync`. What is acknowledged is there again after the process was killed or the power was cut
/// (see [`Durability`](super::Durability) for another bargain). One process at a time can have the
/// directory. redb repairs a file that was not closed, and trusts one that was, so a start has it
/// check every checksum first, with what it would write kept in memory: it reads the file several times.
///
/// ```no_run
/// use callboard::store::RedbStore;
///
/// let store = RedbStore::open("data/tasks")?.cache(32 << 20).history(20);
/// # Ok::<(), callboard::store::StoreError>(())
/// ```
///
/// # Errors
/// As those of [`SledStore`](super::SledStore): when the scheduler starts, and never with anything
/// deleted, [`InUse`](StoreError::InUse), [`Damaged`](StoreError::Damaged) or
/// [`Unavailable`](StoreError::Unavailable).
pub struct RedbStore {
    place: RedbPlace,
    rules: Rules,
    source: Option<BackendSource<Engine<RedbPlace>>>,
}

impl RedbStore {
    /// The store in the directory `path`, which is made when the scheduler starts. Its data is in
    /// the file `tasks.redb`.
    ///
    /// # Errors
    /// [`Damaged`](StoreError::Damaged) when `path` is something else than a directory.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Ok(Self::at(check_directory(path.as_ref())?))
    }

    /// The same, of a path that is looked at when the scheduler starts.
    pub(crate) fn at(path: std::path::PathBuf) -> Self {
        Self { place: RedbPlace { path, cache: 16 << 20 }, rules: Rules::default(), source: None }
    }
}

embedded_store!(RedbStore);
cache_setting!(RedbStore);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::engine::lost_writes::{Torn, survives};

    #[test]
    fn nothing_acknowledged_is_lost_whatever_fails() {
        crate::store::engine::faults::suite(|path: &Path| RedbPlace {
            path: path.to_owned(),
            cache: 1 << 20,
        });
    }

    #[test]
    fn a_power_cut_takes_nothing_that_was_acknowledged() {
        for seed in [1, 2] {
            survives(|path| RedbPlace { path: path.to_owned(), cache: 16 << 20 }, Torn::Blocks, seed);
        }
    }
}
