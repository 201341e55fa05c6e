use std::collections::BTreeMap;
use std::ops::ControlFlow::{self, Break, Continue};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use rustc_hash::{FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};

use super::{Disk, Order, keys};
use crate::store::envelope::{Codec, Kind, Unread};
use crate::store::message::{Cause, KeptRules, Unreadable};
use crate::store::{MemoryBackend, StoreError};
use crate::task::{OwnerId, RunRecord, StoredTask, TaskId, TaskSpec, TaskState};

/// What a disk holds.
#[derive(Default)]
pub(super) struct Loaded {
    /// What it was read with.
    pub codec: Codec,
    pub tasks: MemoryBackend,
    /// Tasks that cannot be read.
    pub unreadable: Vec<Bad>,
    /// Runs without an end that cannot be read. Their tasks are not to suffer for it.
    pub unreadable_runs: Vec<Bad>,
    /// Runs without an end.
    pub open_runs: Vec<RunRecord>,
    /// Tasks that were removed, in that order.
    pub gone: Vec<(u64, TaskId)>,
    /// Until when records may be missing.
    pub gone_until: Option<DateTime<Utc>>,
    /// The owner that sorts last among those who began runs.
    pub latest_owner: Option<OwnerId>,
    /// By which rules of time zones the next runs of its tasks were worked out.
    pub rules: Option<KeptRules>,
    /// The rows that were in quarantine before, and since when.
    pub noted: FxHashMap<Vec<u8>, DateTime<Utc>>,
}

/// A record that cannot be read.
#[derive(Debug, Clone)]
pub(super) struct Bad {
    /// Its key.
    pub row: Vec<u8>,
    pub what: Unreadable,
}

impl Bad {
    pub(super) fn new(row: impl Into<Vec<u8>>, id: impl Into<String>, unread: Unread) -> Self {
        let what = Unreadable { id: id.into(), cause: unread.cause, reason: unread.reason };
        Self { row: row.into(), what }
    }
}

/// Since when a record is in quarantine.
#[derive(Serialize, Deserialize)]
pub(super) struct Note {
    pub since: DateTime<Utc>,
}

impl Loaded {
    /// Every task that may have records, with whether it is there.
    pub(super) fn with_records(&self) -> BTreeMap<TaskId, bool> {
        let mut tasks: BTreeMap<_, _> = self.gone.iter().map(|(_, task)| (task.clone(), false)).collect();
        let named = self.unreadable.iter().filter_map(|bad| TaskId::new(&bad.what.id).ok());
        tasks.extend(self.tasks.ids().into_iter().chain(named).map(|task| (task, true)));
        tasks
    }

    /// Reads everything but the run records that have ended. Everything must be synced.
    pub(super) fn from_disk<D: Disk>(disk: &D, codec: Codec) -> Result<Self, StoreError> {
        let mut loaded = Self { codec, ..Self::default() };
        loaded.load_tasks(disk)?;
        loaded.find_orphans(disk)?;
        loaded.load_open_runs(disk)?;
        loaded.load_gone(disk)?;
        loaded.noted = notes(disk)?;
        loaded.gone_until = gone_until(disk)?;
        // What cannot be read says nothing: the tasks are looked at, and it is written again.
        let rules = disk.get(keys::RULES)?;
        loaded.rules = rules.and_then(|rules| Codec::plain().decode(Kind::Rules, keys::RULES, &rules).ok());
        let latest = disk.get(keys::LATEST_OWNER)?;
        // Runs that an earlier version has imported may be those of a later owner.
        let open = loaded.open_runs.iter().map(|record| record.id.owner).max();
        loaded.latest_owner = latest.and_then(|key| keys::number_of(&key)).map(OwnerId).max(open);
        Ok(loaded)
    }

    fn load_tasks<D: Disk>(&mut self, disk: &D) -> Result<(), StoreError> {
        each(disk, keys::SPEC, |key, spec| {
            let id = match keys::id_of(key) {
                Ok(id) => id,
                Err(text) => {
                    self.unreadable.push(Bad::new(key, text, no_id()));
                    return Ok(());
                }
            };
            let state = disk.get(&keys::state(&id))?;
            match read_task(&self.codec, &id, spec, state.as_deref()) {
                Ok(task) => self.tasks.insert(task)?,
                Err((row, unread)) => self.unreadable.push(Bad::new(row, id, unread)),
            }
            Ok(())
        })
    }

    fn find_orphans<D: Disk>(&mut self, disk: &D) -> Result<(), StoreError> {
        let mut reported: FxHashSet<_> = self.unreadable.iter().map(|bad| bad.what.id.clone()).collect();
        let tasks = &self.tasks;
        let known = |key: &[u8]| keys::id_of(key).is_ok_and(|id| tasks.find(&id).is_some());
        disk.scan_others(keys::STATE, &known, &mut |key, _| {
            let id = keys::id_of(key).map_or_else(|text| text, String::from);
            if reported.insert(id.clone()) {
                self.unreadable.push(Bad::new(key, id, missing("its spec")));
            }
            Continue(())
        })
    }

    fn load_open_runs<D: Disk>(&mut self, disk: &D) -> Result<(), StoreError> {
        each(disk, keys::OPEN_RUN, |key, task| {
            let named = std::str::from_utf8(task).ok().and_then(|text| TaskId::new(text).ok());
            let (Some(run), Some(task)) = (keys::run_of(key), named) else { return Ok(()) };
            let row = keys::run(&task, run);
            let Some(bytes) = disk.get(&row)? else { return Ok(()) };
            match self.codec.decode::<RunRecord>(Kind::Run, &row, &bytes) {
                Ok(record) => self.open_runs.push(record),
                Err(unread) => {
                    let unread = unread.of(&format!("the record of its run {run}"));
                    self.unreadable_runs.push(Bad::new(row, task, unread));
                }
            }
            Ok(())
        })
    }

    fn load_gone<D: Disk>(&mut self, disk: &D) -> Result<(), StoreError> {
        self.gone = gone(disk)?;
        Ok(())
    }
}

/// The tasks that were removed and have run records still, with the numbers in their keys.
pub(super) fn gone<D: Disk + ?Sized>(disk: &D) -> Result<Vec<(u64, TaskId)>, StoreError> {
    let mut gone = Vec::new();
    each(disk, keys::GONE, |key, task| {
        let named = std::str::from_utf8(task).ok().and_then(|text| TaskId::new(text).ok());
        if let (Some(number), Some(task)) = (keys::number_of(key), named) {
            gone.push((number, task));
        }
        Ok(())
    })?;
    Ok(gone)
}

/// Until when records may be missing.
pub(super) fn gone_until<D: Disk + ?Sized>(disk: &D) -> Result<Option<DateTime<Utc>>, StoreError> {
    let time = disk.get(keys::GONE_UNTIL)?.and_then(|bytes| Some(i64::from_be_bytes(*bytes.first_chunk()?)));
    Ok(time.and_then(DateTime::from_timestamp_millis))
}

/// Since when which rows are in quarantine.
pub(super) fn notes<D: Disk + ?Sized>(disk: &D) -> Result<FxHashMap<Vec<u8>, DateTime<Utc>>, StoreError> {
    let mut notes = FxHashMap::default();
    each(disk, keys::QUARANTINE, |key, note| {
        // One that cannot be read is written again.
        if let (Some(row), Ok(Note { since })) =
            (key.strip_prefix(keys::QUARANTINE), Codec::plain().decode(Kind::Quarantine, key, note))
        {
            notes.insert(row.to_vec(), since);
        }
        Ok(())
    })?;
    Ok(notes)
}

/// Shows `visit` everything under a prefix, until it fails.
pub(super) fn each<D: Disk + ?Sized>(
    disk: &D,
    prefix: &[u8],
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut failure = Ok(());
    disk.scan(prefix, Order::Ascending, &mut |key, value| -> ControlFlow<()> {
        failure = visit(key, value);
        if failure.is_ok() { Continue(()) } else { Break(()) }
    })?;
    failure
}

/// An id that no task can have.
pub(super) fn no_id() -> Unread {
    Unread::new(Cause::Corrupt, "its id is not one that a task can have")
}

/// A part of a task that is not there.
pub(super) fn missing(part: &str) -> Unread {
    Unread::new(Cause::Incomplete, format!("{part} is missing"))
}

/// Reads a task; else the row that cannot be read, and why.
fn read_task(
    codec: &Codec,
    id: &TaskId,
    spec: &[u8],
    state: Option<&[u8]>,
) -> Result<StoredTask, (Vec<u8>, Unread)> {
    let rows = (keys::spec(id), keys::state(id));
    let spec = read_spec(codec, id, spec).map_err(|unread| (rows.0.clone(), unread.of("its spec")))?;
    let state = state.ok_or_else(|| (rows.0, missing("its state")))?;
    let state = codec.decode::<TaskState>(Kind::State, &rows.1, state);
    let state = state.map_err(|unread| (rows.1, unread.of("its state")))?;
    Ok(StoredTask { spec: Arc::new(spec), state })
}

/// Reads a spec, which must be that of its row.
pub(super) fn read_spec(codec: &Codec, id: &TaskId, bytes: &[u8]) -> Result<TaskSpec, Unread> {
    let spec: TaskSpec = codec.decode(Kind::Spec, &keys::spec(id), bytes)?;
    if spec.id != *id {
        return Err(Unread::new(Cause::Forged, format!("it is that of another task, `{}`", spec.id)));
    }
    Ok(spec)
}
