//! Filling a store with what an export or another store holds.

use std::path::Path;

use rustc_hash::FxHashSet;
use serde::Serialize;
use uuid::Uuid;

use super::export::{Entry, ExportReader};
use super::keys::Row;
use super::load::{each, gone};
use super::sweep::{kind, read_run, rows_of};
use super::vault::{Progress, Vault};
use super::{Changes, Disk, damaged, identity, keys};
use crate::store::StoreError;
use crate::store::envelope::Codec;
use crate::task::TaskId;

/// So many changes are one batch.
const BATCH: usize = 1000;

/// What becomes of what a store holds already when something is imported into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ImportMode {
    /// It must hold nothing; otherwise the import is refused. The default.
    #[default]
    IntoEmpty,
    /// It goes: afterwards the store holds what was imported, and nothing else.
    Replace,
    /// It stays: of two tasks of the same id that of the store wins. Run records are united.
    Merge,
}

/// What an import did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// Tasks that were written.
    pub tasks: u64,
    /// Run records that were written.
    pub runs: u64,
    /// Tasks that were there already and stayed as they were.
    pub kept: u64,
    /// Records that cannot be read, and were written as they are: in an empty store they are the same
    /// as before, and readable when the reason is gone.
    pub unreadable: u64,
    /// Records that cannot be read and were left out, because the store held something already.
    pub left_out: u64,
}

/// An error when an import into the store at `path` was cut off.
pub(super) fn check_complete<D: Disk + ?Sized>(disk: &D, path: &Path) -> Result<(), StoreError> {
    match disk.get(keys::IMPORTING)? {
        None => Ok(()),
        Some(_) => Err(damaged(
            path,
            "an import into it was cut off",
            "import again, with `--replace` if the store was to be emptied or was empty",
        )),
    }
}

/// Where things come from.
pub(super) enum Origin<'a> {
    File(&'a ExportReader),
    Store(&'a mut Vault),
}

impl Origin<'_> {
    fn identity(&self) -> Uuid {
        match self {
            Self::File(file) => file.store,
            Self::Store(vault) => vault.identity,
        }
    }

    /// How many steps [`each`](Self::each) has, roughly.
    fn steps(&mut self) -> Result<u64, StoreError> {
        match self {
            Self::File(file) => Ok(file.end.records),
            Self::Store(vault) => Ok(vault.tasks()?.len() as u64),
        }
    }

    /// Shows everything, and how many steps were done.
    fn each(
        &mut self,
        mut visit: impl FnMut(Entry, u64) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut step = 0;
        match self {
            Self::File(file) => file.each(|entry| {
                step += 1;
                visit(entry, step)
            }),
            Self::Store(vault) => {
                let disk = vault.disk();
                for (number, task) in gone(disk)? {
                    visit(Entry::Gone(number, task), 0)?;
                }
                for task in vault.tasks()? {
                    step += 1;
                    for (row, value) in rows_of(vault.disk(), &task)? {
                        visit(Entry::Row(row, value), step)?;
                    }
                }
                Ok(())
            }
        }
    }
}

/// What an entry becomes in the target.
enum Made {
    /// Rows to write: the record, and what belongs to it.
    Rows(Changes),
    /// It is not written.
    Nothing,
}

/// An import under way.
struct Import {
    /// What reads the origin.
    from: Codec,
    /// What the target is read and written with.
    to: Codec,
    mode: ImportMode,
    /// The tasks that were in the target.
    there: FxHashSet<TaskId>,
    next_gone: u64,
    /// The owner that sorts last among those whose runs are in the target.
    latest_owner: u64,
    imported: Imported,
}

/// Fills `target`, and compares what is in it then with what was to be.
pub(super) fn import(
    mut origin: Origin<'_>,
    target: &mut Vault,
    mode: ImportMode,
    progress: &mut dyn FnMut(Progress),
) -> Result<Imported, StoreError> {
    let (cut_off, empty) = (target.disk().get(keys::IMPORTING)?.is_some(), target.is_empty()?);
    let fresh = empty || mode == ImportMode::Replace;
    if !fresh && mode == ImportMode::IntoEmpty {
        let path = target.path.display();
        let reason = match cut_off {
            true => format!("an import into {path} was cut off; repeat it with `--replace`"),
            false => format!("{path} holds something already; import with `--replace` or `--merge`"),
        };
        return Err(StoreError::Occupied { reason });
    }
    let total = origin.steps()? * 2;
    target.apply(vec![(keys::IMPORTING.to_vec(), Some(b"1".to_vec()))])?;
    target.sync()?;
    if fresh {
        target.clear()?;
        // What is bound to the identity of the origin goes on being readable.
        target.adopt(origin.identity())?;
    }
    let mut import = Import {
        from: target.codec_of(origin.identity(), &origin)?,
        to: target.codec.clone(),
        mode: if fresh { ImportMode::Replace } else { mode },
        there: target.whole_tasks()?,
        next_gone: gone(target.disk())?.last().map_or(0, |(number, _)| number + 1),
        latest_owner: target.disk().get(keys::LATEST_OWNER)?.and_then(|at| keys::number_of(&at)).unwrap_or(0),
        imported: Imported::default(),
    };
    let mut changes = Changes::new();
    origin.each(|entry, done| {
        if let Made::Rows(rows) = import.make(entry, target.disk())? {
            changes.extend(rows);
        }
        if changes.len() >= BATCH {
            target.apply(std::mem::take(&mut changes))?;
            target.sync()?;
        }
        progress(Progress { done, total });
        Ok(())
    })?;
    // So that no later owner is taken for one whose runs came along.
    if import.latest_owner > 0 {
        changes.push((keys::LATEST_OWNER.to_vec(), Some(import.latest_owner.to_be_bytes().to_vec())));
    }
    target.apply(changes)?;
    target.sync()?;

    let mut compared = 0;
    origin.each(|entry, done| {
        compared += u64::from(import.is_there(entry, target)?);
        progress(Progress { done: total / 2 + done, total });
        Ok(())
    })?;
    let Imported { tasks, runs, unreadable, .. } = import.imported;
    if import.mode == ImportMode::Replace && target.count()? != compared {
        return Err(target.differs("another number of records"));
    }
    debug_assert!(compared >= tasks + runs + unreadable);
    target.apply(vec![(keys::IMPORTING.to_vec(), None)])?;
    target.sync()?;
    Ok(import.imported)
}

impl Import {
    fn make(&mut self, entry: Entry, target: &dyn Disk) -> Result<Made, StoreError> {
        let (row, bytes) = match entry {
            Entry::Gone(number, task) => return Ok(self.make_gone(number, &task)),
            Entry::Row(row, bytes) => (row, bytes),
        };
        let is_run = matches!(row, Row::Run(..));
        let stays = match is_run {
            true => self.mode == ImportMode::Merge && target.get(&row.key())?.is_some(),
            false => self.there.contains(row.task()),
        };
        if stays {
            self.imported.kept += u64::from(matches!(row, Row::Spec(_)));
            return Ok(Made::Nothing);
        }
        let key = row.key();
        let Some(value) = self.translate(&row, &bytes)? else {
            if self.mode == ImportMode::Merge {
                self.imported.left_out += 1;
                return Ok(Made::Nothing);
            }
            self.imported.unreadable += 1;
            return Ok(Made::Rows(vec![(key, Some(bytes))]));
        };
        let mut rows = Vec::with_capacity(2);
        if let Row::Run(task, run) = &row {
            self.imported.runs += 1;
            self.latest_owner = self.latest_owner.max(run.owner.0);
            let open = read_run(&self.from, &row, &bytes).is_ok_and(|record| record.end.is_none());
            if open {
                rows.push((keys::open_run(*run), Some(task.as_str().as_bytes().to_vec())));
            }
        }
        self.imported.tasks += u64::from(matches!(row, Row::Spec(_)));
        rows.push((key, Some(value)));
        Ok(Made::Rows(rows))
    }

    fn make_gone(&mut self, number: u64, task: &TaskId) -> Made {
        let number = match self.mode {
            ImportMode::Merge => {
                self.next_gone += 1;
                self.next_gone - 1
            }
            _ => number,
        };
        Made::Rows(vec![(keys::gone(number), Some(task.as_str().as_bytes().to_vec()))])
    }

    /// A record of the origin as the target writes it; nothing when it cannot be read.
    fn translate(&self, row: &Row, bytes: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let key = row.key();
        let Ok(plain) = self.from.open(kind(row), &key, bytes) else { return Ok(None) };
        let sealed = self.to.close(kind(row), &key, &plain);
        sealed.map(Some).map_err(|reason| StoreError::Unstorable { id: row.task().clone(), reason })
    }

    /// Compares what is in the target with what the origin has. Answers whether it is a row about a
    /// task that must be there.
    fn is_there(&self, entry: Entry, target: &Vault) -> Result<bool, StoreError> {
        let Entry::Row(row, bytes) = entry else { return Ok(false) };
        if self.there.contains(row.task()) && !matches!(row, Row::Run(..)) {
            return Ok(false);
        }
        let key = row.key();
        let found = target.disk().get(&key)?;
        let same = match (self.from.open(kind(&row), &key, &bytes), &found) {
            (Ok(wanted), Some(found)) => {
                self.to.open(kind(&row), &key, found).is_ok_and(|found| *found == *wanted)
                    // The record of a run that the target had already.
                    || self.mode == ImportMode::Merge
            }
            (Err(_), Some(found)) => *found == bytes || self.mode == ImportMode::Merge,
            (Err(_), None) => self.mode == ImportMode::Merge,
            (Ok(_), None) => false,
        };
        if same {
            return Ok(found.is_some());
        }
        let what = match &row {
            Row::Spec(id) | Row::State(id) => format!("what is there of task `{id}`"),
            Row::Run(id, run) => format!("what is there of run {run} of task `{id}`"),
        };
        Err(target.differs(&what))
    }
}

/// Counts the rows about tasks.
pub(super) fn count(disk: &dyn Disk) -> Result<u64, StoreError> {
    let mut count = 0;
    for prefix in [keys::SPEC, keys::STATE, keys::RUN] {
        each(disk, prefix, |_, _| {
            count += 1;
            Ok(())
        })?;
    }
    Ok(count)
}

/// Makes another store of this identity.
pub(super) fn adopt(target: &mut Vault, identity: Uuid) -> Result<(), StoreError> {
    target.apply(vec![identity::row(identity)?])
}
