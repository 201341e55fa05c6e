//! The durable store for people: a directory with a file for each task.

#[cfg(test)]
mod crashes;
mod device;
mod disk;
mod indices;
mod journal;
mod name;
mod pending;
mod place;
#[cfg(test)]
mod power;
mod runs;
mod scan;
mod settle;
#[cfg(test)]
mod tap;
#[cfg(all(test, target_os = "linux"))]
mod tests;
mod text;

use std::path::Path;

use disk::FilePlace;

use super::engine::{Engine, Rules, check_directory, embedded_store};
use super::{BackendSource, StoreError};

/// Keeps tasks, and what became of their runs, in a directory with a JSON file for each task: to be
/// read, copied, versioned and, while the program is stopped, edited by people.
///
/// It promises what [`SledStore`](super::SledStore) promises: what is acknowledged is there again after
/// the process was killed or the power was cut (see [`Durability`](super::Durability) for another
/// bargain), and every change is there wholly or not at all. It does so by a journal, which changes that
/// wait at the same time share; a moment later (a second, or longer when much changes) they are in the
/// files, each of which is written aside, synced and renamed; nobody waits for that. It suits hundreds or thousands of tasks;
/// for more, or for many runs a second, [`SledStore`](super::SledStore) and `RedbStore` are faster.
///
/// ```text
/// callboard-files.json       what this directory is, for people and for the store
/// callboard-store.lock       held by the process that has the store; its id is in it
/// journal.jsonl              changes that are not in the files yet
/// journal.old.jsonl          those that are being brought there, while that goes on
/// runs-and-removed.json      which runs have not ended, which tasks were removed
/// tasks/weekly.json          a task: what it is, how far it has come
/// tasks/weekly.runs.jsonl    its runs
/// ```
///
/// Files are for their owner alone (mode 0600, the directory 0700). Their names are the ids as far as
/// these are safe in the names of files: capitals become `+` and the small letter, other characters `%`
/// and the digits of their bytes, and very long ids are cut and told apart by a number. Each file
/// begins with a sum of its content; whoever edits it removes that line. Files in the directory that
/// are none of the store's are left alone.
///
/// ```no_run
/// use callboard::store::FileStore;
///
/// let store = FileStore::open("data/tasks")?.history(20);
/// # Ok::<(), callboard::store::StoreError>(())
/// ```
///
/// # Errors
/// As those of [`SledStore`](super::SledStore), when the scheduler starts. A single file that cannot be
/// read is reported in [`Opened`](super::message::Opened) and left alone: its task does not run, and the
/// others do.
pub struct FileStore {
    place: FilePlace,
    rules: Rules,
    source: Option<BackendSource<Engine<FilePlace>>>,
}

impl FileStore {
    /// The store in the directory `path`, which is made when the scheduler starts.
    ///
    /// # Errors
    /// [`Damaged`](StoreError::Damaged) when `path` is something else than a directory.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Ok(Self::at(check_directory(path.as_ref())?))
    }

    /// The same, of a path that is looked at when the scheduler starts.
    pub(crate) fn at(path: std::path::PathBuf) -> Self {
        Self { place: FilePlace { path }, rules: Rules::default(), source: None }
    }
}

embedded_store!(FileStore);

#[cfg(test)]
mod promise {
    use super::*;
    use crate::store::engine::lost_writes::{Torn, survives};

    #[test]
    fn nothing_acknowledged_is_lost_whatever_fails() {
        crate::store::engine::faults::suite(|path: &Path| FilePlace { path: path.to_owned() });
    }

    #[test]
    fn a_power_cut_takes_nothing_that_was_acknowledged() {
        for seed in [1, 2] {
            survives(|path| FilePlace { path: path.to_owned() }, Torn::Tail("journal.jsonl"), seed);
        }
    }
}
