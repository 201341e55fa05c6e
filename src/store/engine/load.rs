use std::ops::ControlFlow::{self, Break, Continue};
use std::sync::Arc;

use rustc_hash::FxHashSet;

use super::{Disk, Order, keys};
use crate::store::envelope::{Kind, decode};
use crate::store::message::{SetAside, Unreadable};
use crate::store::{MemoryBackend, StoreError};
use crate::task::{RunRecord, StoredTask, TaskId, TaskSpec, TaskState};

/// What a disk holds.
#[derive(Default)]
pub(super) struct Loaded {
    pub tasks: MemoryBackend,
    /// Tasks that cannot be read.
    pub unreadable: Vec<Unreadable>,
    /// Runs without an end that cannot be read. Their tasks are not to suffer for it.
    pub unreadable_runs: Vec<Unreadable>,
    /// Runs without an end.
    pub open_runs: Vec<RunRecord>,
    /// Tasks that were removed, in that order.
    pub gone: Vec<(u64, TaskId)>,
    /// The damaged directory that this one has taken the place of.
    pub set_aside: Option<SetAside>,
}

impl Loaded {
    /// Reads everything but the run records that have ended. Everything must be synced.
    pub(super) fn from_disk<D: Disk>(disk: &D) -> Result<Self, StoreError> {
        let mut loaded = Self::default();
        loaded.load_tasks(disk)?;
        loaded.find_orphans(disk)?;
        loaded.load_open_runs(disk)?;
        loaded.load_gone(disk)?;
        Ok(loaded)
    }

    fn load_tasks<D: Disk>(&mut self, disk: &D) -> Result<(), StoreError> {
        each(disk, keys::SPEC, |key, spec| {
            let id = match keys::id_of(key) {
                Ok(id) => id,
                Err(text) => {
                    let reason = "its id is not one that a task can have".to_owned();
                    self.unreadable.push(Unreadable { id: text, reason });
                    return Ok(());
                }
            };
            let state = disk.get(&keys::state(&id))?;
            match read_task(&id, spec, state.as_deref()) {
                Ok(task) => self.tasks.insert(task)?,
                Err(reason) => self.unreadable.push(Unreadable { id: id.into(), reason }),
            }
            Ok(())
        })
    }

    fn find_orphans<D: Disk>(&mut self, disk: &D) -> Result<(), StoreError> {
        let mut reported: FxHashSet<_> = self.unreadable.iter().map(|u| u.id.clone()).collect();
        each(disk, keys::STATE, |key, _| {
            let known = keys::id_of(key).map(|id| (self.tasks.find(&id).is_some(), id));
            let id = match known {
                Ok((true, _)) => return Ok(()),
                Ok((false, id)) => id.into(),
                Err(text) => text,
            };
            if reported.insert(id.clone()) {
                self.unreadable.push(Unreadable { id, reason: "its spec is missing".to_owned() });
            }
            Ok(())
        })
    }

    fn load_open_runs<D: Disk>(&mut self, disk: &D) -> Result<(), StoreError> {
        each(disk, keys::OPEN_RUN, |key, task| {
            let named = std::str::from_utf8(task).ok().and_then(|text| TaskId::new(text).ok());
            let (Some(run), Some(task)) = (keys::run_of(key), named) else { return Ok(()) };
            let Some(bytes) = disk.get(&keys::run(&task, run))? else { return Ok(()) };
            match decode::<RunRecord>(Kind::Run, &bytes) {
                Ok(record) => self.open_runs.push(record),
                Err(reason) => {
                    let reason = format!("the record of its run {run}: {reason}");
                    self.unreadable_runs.push(Unreadable { id: task.into(), reason });
                }
            }
            Ok(())
        })
    }

    fn load_gone<D: Disk>(&mut self, disk: &D) -> Result<(), StoreError> {
        each(disk, keys::GONE, |key, task| {
            let named = std::str::from_utf8(task).ok().and_then(|text| TaskId::new(text).ok());
            if let (Some(number), Some(task)) = (keys::number_of(key), named) {
                self.gone.push((number, task));
            }
            Ok(())
        })
    }
}

/// Shows `visit` everything under a prefix, until it fails.
fn each<D: Disk>(
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

fn read_task(id: &TaskId, spec: &[u8], state: Option<&[u8]>) -> Result<StoredTask, String> {
    let spec: TaskSpec = decode(Kind::Spec, spec).map_err(|reason| format!("its spec: {reason}"))?;
    if spec.id != *id {
        return Err(format!("its spec is that of another task, `{}`", spec.id));
    }
    let state = state.ok_or_else(|| "its state is missing".to_owned())?;
    let state: TaskState = decode(Kind::State, state).map_err(|reason| format!("its state: {reason}"))?;
    Ok(StoredTask { spec: Arc::new(spec), state })
}
