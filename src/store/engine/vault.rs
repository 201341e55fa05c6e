//! A store that is opened for maintenance, while nobody runs it.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::export::{ExportReader, ExportWriter};
use super::import::{self, ImportMode, Imported, Origin};
use super::load::{each, gone, notes};
use super::opening::{guarded, open_patiently};
use super::sweep::{check, nameless, quarantined, rows_of};
use super::{Changes, Disk, Place, Rules, identity, keys};
use crate::store::StoreError;
use crate::store::envelope::Codec;
#[cfg(feature = "encryption")]
use crate::store::message::Rekeyed;
use crate::store::message::{Checked, Exported};
use crate::task::TaskId;

/// A [`Disk`] of any kind, that can be closed.
trait AnyDisk: Disk {
    fn shut(self: Box<Self>) -> Result<(), StoreError>;
}

impl<D: Disk> AnyDisk for D {
    fn shut(self: Box<Self>) -> Result<(), StoreError> {
        (*self).close()
    }
}

/// How far something has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is done.
    pub done: u64,
    /// What there is to do, in the same unit.
    pub total: u64,
}

/// An embedded store that is opened for maintenance: to be checked, exported, filled from an export
/// or from another store, or written again with another key.
///
/// It holds the directory as a running store does: while a scheduler has the store,
/// [`InUse`](StoreError::InUse) is all there is. Everything here blocks. What can be done while a
/// scheduler runs is done with messages: [`Check`](crate::store::message::Check),
/// [`Export`](crate::store::message::Export) and [`Rekey`](crate::store::message::Rekey).
///
/// ```no_run
/// use callboard::store::{ImportMode, RedbStore, SledStore};
///
/// let mut from = SledStore::open("data/store")?.vault()?;
/// let mut to = RedbStore::open("data/store-redb")?.vault()?;
/// let moved = to.import_from(&mut from, ImportMode::IntoEmpty, |_| {})?;
/// println!("{} tasks and {} run records", moved.tasks, moved.runs);
/// from.close()?;
/// to.close()?;
/// # Ok::<(), callboard::store::StoreError>(())
/// ```
pub struct Vault {
    disk: Box<dyn AnyDisk>,
    rules: Rules,
    pub(super) path: PathBuf,
    pub(super) identity: Uuid,
    pub(super) codec: Codec,
}

impl Vault {
    pub(in crate::store) fn open<P: Place>(place: &P, rules: &Rules) -> Result<Self, StoreError> {
        let (disk, identity) = guarded(|| {
            let mut disk = open_patiently(place, None)?;
            let identity = identity::establish(&mut disk)?;
            Ok((disk, identity))
        })?;
        let codec = rules.codec(identity)?;
        Ok(Self {
            disk: Box::new(disk),
            rules: rules.clone(),
            path: place.path().to_owned(),
            identity,
            codec,
        })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads everything and lists what cannot be read. `progress` is told of each task.
    ///
    /// # Errors
    /// What the database says.
    pub fn check(&mut self, mut progress: impl FnMut(Progress)) -> Result<Checked, StoreError> {
        guarded(|| self.check_now(&mut progress))
    }

    fn check_now(&self, progress: &mut dyn FnMut(Progress)) -> Result<Checked, StoreError> {
        import::check_complete(&*self.disk, &self.path)?;
        let (tasks, since) = (self.tasks()?, notes(self.disk())?);
        let mut checked = Checked::default();
        for (task, done) in tasks.iter().zip(1..) {
            let rows = rows_of(self.disk(), task)?;
            for (row, unread, bytes) in check(&self.codec, task, &rows, &mut checked) {
                let since = since.get(&row.key()).copied();
                checked.quarantine.push(quarantined(&row, unread, bytes, since));
            }
            progress(Progress { done, total: tasks.len() as u64 });
        }
        for (prefix, record) in [(keys::SPEC, "spec"), (keys::STATE, "state"), (keys::RUN, "run")] {
            each(self.disk(), prefix, |key, bytes| {
                if keys::Row::at(key).is_none() {
                    let id = String::from_utf8_lossy(key.get(1..).unwrap_or_default()).into_owned();
                    checked.quarantine.push(nameless(id, record, bytes));
                }
                Ok(())
            })?;
        }
        Ok(checked)
    }

    /// Writes everything to the file `path`: aside first, synced, then renamed. What is encrypted
    /// stays so, bound to this store, unless it is to be `plain`.
    ///
    /// # Errors
    /// What the system says; then no file is left, or the one that was there.
    pub fn export(
        &mut self,
        path: impl AsRef<Path>,
        plain: bool,
        mut progress: impl FnMut(Progress),
    ) -> Result<Exported, StoreError> {
        guarded(|| self.export_now(path.as_ref(), plain, &mut progress))
    }

    fn export_now(
        &self,
        path: &Path,
        plain: bool,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Exported, StoreError> {
        import::check_complete(&*self.disk, &self.path)?;
        let tasks = self.tasks()?;
        let mut writer = ExportWriter::create(path, self.identity, plain)?;
        for (number, task) in gone(self.disk())? {
            writer.gone(number, &task)?;
        }
        for (task, done) in tasks.iter().zip(1..) {
            writer.task(self.disk(), &self.codec, &rows_of(self.disk(), task)?)?;
            progress(Progress { done, total: tasks.len() as u64 });
        }
        writer.finish()
    }

    /// Fills the store from an export. The file is read to its end before anything is written, and
    /// what was written is compared with it. An import that is cut off can be repeated; until then
    /// the store does not open.
    ///
    /// # Errors
    /// [`Damaged`](StoreError::Damaged) when the file is not, to the last byte, what an export wrote;
    /// [`Occupied`](StoreError::Occupied) when the store holds something and `mode` does not say what
    /// becomes of it.
    pub fn import(
        &mut self,
        path: impl AsRef<Path>,
        mode: ImportMode,
        mut progress: impl FnMut(Progress),
    ) -> Result<Imported, StoreError> {
        self.import_export(&ExportReader::open(path.as_ref())?, mode, &mut progress)
    }

    /// The same with a file that was read already.
    pub(crate) fn import_export(
        &mut self,
        file: &ExportReader,
        mode: ImportMode,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Imported, StoreError> {
        guarded(|| import::import(Origin::File(file), self, mode, progress))
    }

    /// Fills the store from another one, which stays as it is; as [`import`](Self::import) does.
    ///
    /// # Errors
    /// As those of [`import`](Self::import).
    pub fn import_from(
        &mut self,
        other: &mut Vault,
        mode: ImportMode,
        mut progress: impl FnMut(Progress),
    ) -> Result<Imported, StoreError> {
        guarded(|| {
            import::check_complete(&*other.disk, &other.path)?;
            import::import(Origin::Store(other), self, mode, &mut progress)
        })
    }

    /// Writes everything with the current key that was written with another, or with none.
    ///
    /// # Errors
    /// [`Unsupported`](StoreError::Unsupported) when the store was given no keys.
    #[cfg(feature = "encryption")]
    pub fn rekey(&mut self, mut progress: impl FnMut(Progress)) -> Result<Rekeyed, StoreError> {
        guarded(|| self.rekey_now(&mut progress))
    }

    #[cfg(feature = "encryption")]
    fn rekey_now(&mut self, progress: &mut dyn FnMut(Progress)) -> Result<Rekeyed, StoreError> {
        import::check_complete(&*self.disk, &self.path)?;
        if self.codec.cipher.is_none() {
            return Err(super::NO_KEYS);
        }
        let tasks = self.tasks()?;
        let mut rekeyed = super::sweep::begin_rekey(&self.codec);
        for (task, done) in tasks.iter().zip(1..) {
            let mut changes = Changes::new();
            super::sweep::renew(&self.codec, rows_of(self.disk(), task)?, &mut rekeyed, &mut changes);
            self.apply(changes)?;
            if done % 256 == 0 {
                self.sync()?;
            }
            progress(Progress { done, total: tasks.len() as u64 });
        }
        self.sync()?;
        Ok(rekeyed)
    }

    /// Lets go of the directory.
    ///
    /// # Errors
    /// What the database says about what it had not written yet.
    pub fn close(self) -> Result<(), StoreError> {
        guarded(|| self.disk.shut())
    }

    pub(super) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    pub(super) fn apply(&mut self, changes: Changes) -> Result<(), StoreError> {
        if changes.is_empty() { Ok(()) } else { self.disk.apply(changes) }
    }

    pub(super) fn sync(&mut self) -> Result<(), StoreError> {
        self.disk.sync()
    }

    /// Every id under which there is something.
    pub(super) fn tasks(&self) -> Result<BTreeSet<TaskId>, StoreError> {
        let mut tasks: BTreeSet<TaskId> = gone(self.disk())?.into_iter().map(|(_, task)| task).collect();
        for prefix in [keys::SPEC, keys::STATE, keys::RUN] {
            each(self.disk(), prefix, |key, _| {
                if let Some(row) = keys::Row::at(key)
                    && !tasks.contains(row.task())
                {
                    tasks.insert(row.task().clone());
                }
                Ok(())
            })?;
        }
        Ok(tasks)
    }

    pub(super) fn is_empty(&self) -> Result<bool, StoreError> {
        Ok(gone(self.disk())?.is_empty() && self.count()? == 0)
    }

    /// How many rows about tasks there are.
    pub(super) fn count(&self) -> Result<u64, StoreError> {
        import::count(self.disk())
    }

    /// Removes everything about tasks.
    pub(super) fn clear(&mut self) -> Result<(), StoreError> {
        let mut all = Changes::new();
        for prefix in [keys::SPEC, keys::STATE, keys::RUN, keys::OPEN_RUN, keys::GONE, keys::QUARANTINE] {
            each(self.disk(), prefix, |key, _| {
                all.push((key.to_vec(), None));
                Ok(())
            })?;
        }
        for batch in all.chunks(1000) {
            self.apply(batch.to_vec())?;
            self.sync()?;
        }
        Ok(())
    }

    /// Takes the identity of the store that it is filled from.
    pub(super) fn adopt(&mut self, identity: Uuid) -> Result<(), StoreError> {
        import::adopt(self, identity)?;
        self.disk.set_identity(identity)?;
        self.identity = identity;
        self.codec = self.rules.codec(identity)?;
        Ok(())
    }

    /// What reads the records of an origin: that of a store itself, else this store's keys.
    pub(super) fn codec_of(&self, identity: Uuid, origin: &Origin<'_>) -> Result<Codec, StoreError> {
        match origin {
            Origin::Store(vault) => Ok(vault.codec.clone()),
            Origin::File(_) => self.rules.codec_to_read(identity),
        }
    }

    pub(super) fn differs(&self, what: &str, fresh: bool) -> StoreError {
        super::damaged(
            &self.path,
            &format!("after the import there is {what} that was not imported so"),
            if fresh { "repeat it with `--replace`" } else { "repeat it with `--merge`" },
        )
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("path", &self.path).finish_non_exhaustive()
    }
}
