//! Filling a store with what an export or another store holds.

use std::hash::BuildHasher;
use std::path::Path;

use rustc_hash::{FxBuildHasher, FxHashSet};
use serde::Serialize;
use uuid::Uuid;

use super::export::{Entry, ExportReader};
use super::keys::Row;
use super::load::{each, gone};
use super::opening::guarded;
use super::sweep::{examine, kind, read_run, rows_of};
use super::vault::{Progress, Vault};
use super::{Changes, Disk, damaged, identity, keys};
use crate::store::StoreError;
use crate::store::envelope::Codec;
use crate::task::{RunId, TaskId};

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
    /// It stays: of two tasks of the same id that of the store wins. Run records are united. Only a
    /// record of the store that is damaged beyond help (see [`Cause`](crate::store::message::Cause)), or
    /// missing, is taken from the import.
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
    /// Records that were damaged in the store, and are as they are in the import now.
    pub restored: u64,
    /// Records that cannot be read, and were written as they are: in an empty store they are the same
    /// as before, and readable when the reason is gone. Tasks without their other half are among them.
    pub unreadable: u64,
    /// Records that cannot be read and were left out, because the store held something already.
    pub left_out: u64,
}

/// What is under [`IMPORTING`](keys::IMPORTING) while a store that held something is added to. Anything
/// else: what the store holds is a part of what was to be in it.
const MERGING: &[u8] = b"m";
const FILLING: &[u8] = b"f";

/// An error when an import into the store at `path` was cut off.
pub(super) fn check_complete<D: Disk + ?Sized>(disk: &D, path: &Path) -> Result<(), StoreError> {
    match cut_off(disk)? {
        None => Ok(()),
        Some(how) => Err(damaged(path, "an import into it was cut off", how)),
    }
}

/// How the import is repeated that was cut off, if one was.
fn cut_off<D: Disk + ?Sized>(disk: &D) -> Result<Option<&'static str>, StoreError> {
    Ok(disk.get(keys::IMPORTING)?.map(|mark| how_to_repeat(&mark)))
}

fn how_to_repeat(mark: &[u8]) -> &'static str {
    match mark == MERGING {
        true => "repeat it with `--merge`",
        false => "repeat it with `--replace`",
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
    fn steps(&self) -> Result<u64, StoreError> {
        match self {
            Self::File(file) => Ok(file.end.records),
            Self::Store(vault) => Ok(vault.tasks()?.len() as u64),
        }
    }

    /// Shows everything, and how many steps were done.
    fn each(&self, mut visit: impl FnMut(Entry, u64) -> Result<(), StoreError>) -> Result<(), StoreError> {
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
                let mut open_runs = FxHashSet::default();
                each(disk, keys::OPEN_RUN, |key, _| {
                    open_runs.extend(keys::run_of(key));
                    Ok(())
                })?;
                for task in vault.tasks()? {
                    step += 1;
                    for (row, value) in rows_of(disk, &task)? {
                        let open = matches!(&row, Row::Run(_, run) if open_runs.contains(run));
                        visit(Entry::Row(row, value, open), step)?;
                    }
                }
                Ok(())
            }
        }
    }
}

/// An import under way.
struct Import {
    /// What reads the origin.
    from: Codec,
    /// What the target is read and written with.
    to: Codec,
    mode: ImportMode,
    /// The rows that were in the target and stay, by a number made from each.
    stayed: FxHashSet<u64>,
    /// Tasks of which one half was seen: all of them, when something is added to a store.
    halves: FxHashSet<TaskId>,
    /// The removed tasks that the target knows of.
    known_gone: FxHashSet<TaskId>,
    next_gone: u64,
    /// The owner that sorts last among those whose runs are in the target.
    latest_owner: u64,
    imported: Imported,
}

/// Fills `target`, and compares what is in it then with what was to be.
pub(super) fn import(
    origin: Origin<'_>,
    target: &mut Vault,
    mode: ImportMode,
    progress: &mut dyn FnMut(Progress),
) -> Result<Imported, StoreError> {
    let fresh = target.is_empty()? || mode == ImportMode::Replace;
    check_mode(target, mode, fresh)?;
    let total = origin.steps()? * 2;
    let mark = if fresh { FILLING } else { MERGING };
    // By which rules the tasks that come are planned is not known.
    target.apply(vec![(keys::RULES.to_vec(), None), (keys::IMPORTING.to_vec(), Some(mark.to_vec()))])?;
    target.sync()?;
    let mode = if fresh { ImportMode::Replace } else { mode };
    let mut tell = |done| progress(Progress { done, total });
    guarded(|| fill(&origin, target, mode, total / 2, &mut tell)).map_err(|error| cut_off_by(error, fresh))
}

/// What is to be done after an import that failed in the midst: what it has written is a part.
fn cut_off_by(error: StoreError, fresh: bool) -> StoreError {
    match error {
        StoreError::Unavailable { reason, source } => {
            let how = how_to_repeat(if fresh { FILLING } else { MERGING });
            StoreError::Unavailable { reason: format!("{reason}; the import was cut off, {how}"), source }
        }
        other => other,
    }
}

/// The import itself, and the comparison, each of so many steps.
fn fill(
    origin: &Origin<'_>,
    target: &mut Vault,
    mode: ImportMode,
    steps: u64,
    tell: &mut dyn FnMut(u64),
) -> Result<Imported, StoreError> {
    let fresh = mode == ImportMode::Replace;
    if fresh {
        target.clear()?;
        // What is bound to the identity of the origin goes on being readable.
        target.adopt(origin.identity())?;
    }
    let there = gone(target.disk())?;
    let mut import = Import {
        from: target.codec_of(origin.identity(), origin)?,
        to: target.codec.clone(),
        mode,
        stayed: FxHashSet::default(),
        halves: FxHashSet::default(),
        next_gone: there.last().map_or(0, |(number, _)| number.saturating_add(1)),
        known_gone: there.into_iter().map(|(_, task)| task).collect(),
        latest_owner: target.disk().get(keys::LATEST_OWNER)?.and_then(|at| keys::number_of(&at)).unwrap_or(0),
        imported: Imported::default(),
    };
    if !fresh {
        origin.each(|entry, _| {
            if let Entry::Row(row, bytes, _) = entry
                && examine(&import.from, &row, &bytes).is_ok()
            {
                import.note_half(&row);
            }
            Ok(())
        })?;
    }
    let mut changes = Changes::new();
    origin.each(|entry, done| {
        import.make(entry, target.disk(), &mut changes)?;
        if changes.len() >= BATCH {
            target.apply(std::mem::take(&mut changes))?;
            target.sync()?;
        }
        tell(done);
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
        tell(steps + done);
        Ok(())
    })?;
    if fresh && target.count()? != compared {
        return Err(target.differs("another number of records", fresh));
    }
    if fresh {
        import.imported.unreadable += import.halves.len() as u64;
    }
    target.apply(vec![(keys::IMPORTING.to_vec(), None)])?;
    target.sync()?;
    Ok(import.imported)
}

/// Whether what the target holds allows such an import.
fn check_mode(target: &Vault, mode: ImportMode, fresh: bool) -> Result<(), StoreError> {
    let (path, mark) = (target.path.display(), target.disk().get(keys::IMPORTING)?);
    let reason = match mark.map(|mark| mark == MERGING) {
        _ if fresh => return Ok(()),
        // What is there is no store that something could be added to.
        Some(false) => format!("an import that was to fill {path} was cut off; repeat it with `--replace`"),
        _ if mode == ImportMode::Merge => return Ok(()),
        Some(true) => format!(
            "an import into {path} was cut off; repeat it with `--merge`, which keeps what the store held before"
        ),
        None => format!("{path} holds something already; import with `--replace` or `--merge`"),
    };
    Err(StoreError::Occupied { reason })
}

impl Import {
    /// Adds what becomes of an entry to `changes`.
    fn make(&mut self, entry: Entry, target: &dyn Disk, changes: &mut Changes) -> Result<(), StoreError> {
        let (row, bytes, is_open) = match entry {
            Entry::Gone(number, task) => {
                changes.extend(self.make_gone(number, task));
                return Ok(());
            }
            Entry::Row(row, bytes, is_open) => (row, bytes, is_open),
        };
        let key = row.key();
        let mut restored = 0;
        if self.mode == ImportMode::Merge
            && let Some(there) = target.get(&key)?
        {
            if examine(&self.to, &row, &there).map_or_else(|unread| unread.cause.may_pass(), |()| true) {
                self.stayed.insert(number_of(&key));
                self.imported.kept += u64::from(matches!(row, Row::Spec(_)));
                return Ok(());
            }
            restored = 1;
        }
        let read = examine(&self.from, &row, &bytes);
        if self.mode == ImportMode::Merge && (read.is_err() || self.would_be_half(&row, target)?) {
            self.stayed.insert(number_of(&key));
            self.imported.left_out += 1;
            return Ok(());
        }
        let value = match self.from.open(kind(&row), &key, &bytes) {
            Ok(plain) => self
                .to
                .close(kind(&row), &key, &plain)
                .map_err(|reason| StoreError::Unstorable { id: row.task().clone(), reason })?,
            Err(_) => bytes.clone(),
        };
        match &read {
            Ok(()) => {
                self.imported.tasks += u64::from(matches!(row, Row::Spec(_)));
                self.imported.runs += u64::from(matches!(row, Row::Run(..)));
                self.imported.restored += restored;
            }
            Err(_) => self.imported.unreadable += 1,
        }
        match &row {
            Row::Run(task, run) => {
                self.latest_owner = self.latest_owner.max(run.owner.0);
                // One that cannot be read yet must have its end when it can.
                let is_open = read_run(&self.from, &row, &bytes).map_or(is_open, |run| run.end.is_none());
                if is_open {
                    changes.push(open_run(task, *run));
                }
            }
            _ if self.mode == ImportMode::Merge => {}
            row => self.note_half(row),
        }
        changes.push((key, Some(value)));
        Ok(())
    }

    fn make_gone(&mut self, number: u64, task: TaskId) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
        let number = match self.mode {
            ImportMode::Merge if self.known_gone.contains(&task) => return None,
            ImportMode::Merge => {
                let number = self.next_gone;
                self.next_gone = number.saturating_add(1);
                number
            }
            _ => number,
        };
        Some((keys::gone(number), Some(task.as_str().as_bytes().to_vec())))
    }

    /// Compares what is in the target with what the origin has. Answers whether it is a row about a
    /// task that must be there.
    fn is_there(&self, entry: Entry, target: &Vault) -> Result<bool, StoreError> {
        let Entry::Row(row, bytes, _) = entry else { return Ok(false) };
        let key = row.key();
        if self.stayed.contains(&number_of(&key)) {
            return Ok(false);
        }
        let found = target.disk().get(&key)?;
        let same = match (self.from.open(kind(&row), &key, &bytes), &found) {
            (Ok(wanted), Some(found)) => {
                self.to.open(kind(&row), &key, found).is_ok_and(|found| *found == *wanted)
            }
            (Err(_), Some(found)) => *found == bytes,
            (_, None) => false,
        };
        if same {
            return Ok(true);
        }
        let what = match &row {
            Row::Spec(id) | Row::State(id) => format!("what is there of task `{id}`"),
            Row::Run(id, run) => format!("what is there of run {run} of task `{id}`"),
        };
        Err(target.differs(&what, self.mode == ImportMode::Replace))
    }

    fn note_half(&mut self, row: &Row) {
        if let Row::Spec(task) | Row::State(task) = row
            && !self.halves.remove(task)
        {
            self.halves.insert(task.clone());
        }
    }

    /// Whether a row would be half a task in the target, because the other half is nowhere.
    fn would_be_half(&self, row: &Row, target: &dyn Disk) -> Result<bool, StoreError> {
        let other = match row {
            Row::Spec(task) => keys::state(task),
            Row::State(task) => keys::spec(task),
            Row::Run(..) => return Ok(false),
        };
        Ok(self.halves.contains(row.task()) && target.get(&other)?.is_none())
    }
}

/// The row that says that a run has not ended.
fn open_run(task: &TaskId, run: RunId) -> (Vec<u8>, Option<Vec<u8>>) {
    (keys::open_run(run), Some(task.as_str().as_bytes().to_vec()))
}

/// A number for a row: smaller than its key, and hardly ever that of another.
fn number_of(key: &[u8]) -> u64 {
    FxBuildHasher.hash_one(key)
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
