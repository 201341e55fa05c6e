use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::sled::Batch;
use chrono::{DateTime, Utc};
use rustc_hash::FxHashMap;

use super::disk::Disk;
use super::history::History;
use super::load::Loaded;
use super::{Options, ROW_LIMIT, keys};
use crate::store::envelope::{Kind, decode, encode};
use crate::store::message::*;
use crate::store::{Backend, Capabilities, MemoryBackend, Reply, StoreError};
use crate::task::{Handler, Outcome, RunEnd, RunRecord, StoredTask, TaskId, TaskSpec};

/// The [`Backend`] of [`SledStore`](super::SledStore).
pub struct SledBackend {
    options: Options,
    /// `None` before it is opened and after a failed write.
    disk: Option<Disk>,
    tasks: MemoryBackend,
    unreadable: FxHashMap<String, String>,
    history: History,
}

impl SledBackend {
    pub(super) fn new(options: Options) -> Self {
        Self {
            options,
            disk: None,
            tasks: MemoryBackend::default(),
            unreadable: FxHashMap::default(),
            history: History::default(),
        }
    }

    fn disk(disk: &mut Option<Disk>) -> Result<&mut Disk, StoreError> {
        disk.as_mut().ok_or_else(|| StoreError::unavailable("its directory is not open"))
    }

    /// A record that cannot be read is not written over.
    fn check_readable(&self, id: &TaskId) -> Result<(), StoreError> {
        match self.unreadable.get(id.as_str()) {
            None => Ok(()),
            Some(reason) => Err(StoreError::Damaged {
                place: format!("the record of task `{id}`"),
                reason: reason.clone(),
                advice: "use another id, or a version of callboard that can read it".to_owned(),
            }),
        }
    }

    /// Completes `batch` and writes it, after memory has changed already. After a failure nobody
    /// knows what the disk holds, and memory is not what is stored: the store is down until it is
    /// opened again.
    fn write(
        &mut self,
        mut batch: Batch,
        complete: impl FnOnce(&mut Self, &mut Batch) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let written = complete(self, &mut batch).and_then(|()| Self::disk(&mut self.disk)?.write(batch));
        if written.is_err() {
            self.disk = None;
            self.tasks = MemoryBackend::default();
            self.history = History::default();
        }
        written
    }

    fn open_disk(&self) -> Result<Disk, StoreError> {
        // sled lets go of its files a moment after it was dropped, and a killed process a moment
        // after its successor was started.
        let mut patience = 20;
        loop {
            match Disk::open(&self.options.path, self.options.cache) {
                Err(StoreError::InUse { .. }) if patience > 0 => {
                    patience -= 1;
                    std::thread::sleep(Duration::from_millis(25));
                }
                other => return other,
            }
        }
    }

    fn open_now(&mut self, Open { owner, now }: Open) -> Result<Opened, StoreError> {
        if self.disk.is_none() {
            self.disk = Some(self.open_disk()?);
        }
        let loaded = Loaded::from_disk(Self::disk(&mut self.disk)?)?;
        self.tasks = loaded.tasks;
        self.unreadable = loaded.unreadable.iter().map(|u| (u.id.clone(), u.reason.clone())).collect();
        let mut unreadable = loaded.unreadable;
        unreadable.extend(loaded.unreadable_runs);
        unreadable.sort_by(|a, b| a.id.cmp(&b.id));
        self.history = History::new(self.options.history, self.options.removed, loaded.gone);
        let (mut batch, mut interrupted) = (Batch::default(), Vec::new());
        for record in loaded.open_runs {
            let run = record.id;
            self.history.resume(record);
            if run.owner != owner {
                let reason = "the scheduler that started it ended before the run did".to_owned();
                let end = RunEnd::unstarted(Outcome::Interrupted { reason }, now);
                interrupted.extend(self.history.end(&mut batch, run, end)?);
            }
        }
        if !interrupted.is_empty() {
            self.write(batch, |_, _| Ok(()))?;
        }
        Ok(Opened {
            capabilities: self.capabilities(),
            interrupted,
            unreadable,
            next_due: self.tasks.first_due(),
        })
    }

    fn put_now(&mut self, request: Put) -> Result<(), StoreError> {
        Self::disk(&mut self.disk)?;
        let (id, spec) = (request.task.spec.id.clone(), request.task.spec.clone());
        self.check_readable(&id)?;
        let state = encode(Kind::State, &request.task.state)
            .map_err(|reason| StoreError::Unstorable { id: id.clone(), reason })?;
        let there = self.tasks.get_now(&id);
        let mut batch = Batch::default();
        // Pausing a task does not write its arguments again.
        if there.is_none_or(|there| !Arc::ptr_eq(&there.spec, &spec)) {
            batch.insert(keys::spec(&id), encoded_spec(&request.task)?);
        }
        self.tasks.put_now(request)?;
        batch.insert(keys::state(&id), state);
        self.write(batch, |_, _| Ok(()))
    }

    fn delete_now(&mut self, request: Delete) -> Result<StoredTask, StoreError> {
        Self::disk(&mut self.disk)?;
        self.check_readable(&request.id)?;
        let task = self.tasks.delete_now(request)?;
        self.write(Batch::default(), |store, batch| store.forget(batch, task.spec.id.clone()))?;
        Ok(task)
    }

    /// Removes the records of a task that is gone from memory already.
    fn forget(&mut self, batch: &mut Batch, id: TaskId) -> Result<(), StoreError> {
        batch.remove(keys::spec(&id));
        batch.remove(keys::state(&id));
        let tasks = &self.tasks;
        self.history.leave(Self::disk(&mut self.disk)?, batch, id, |id| tasks.find(id).is_some())
    }

    fn commit_now(&mut self, mut request: Commit) -> Result<Committed, StoreError> {
        Self::disk(&mut self.disk)?;
        let mut writes = Vec::with_capacity(request.changes.len());
        for change in &mut request.changes {
            let state = match &change.then {
                Then::State(state) => {
                    let failed = |reason| StoreError::Unstorable { id: change.id.clone(), reason };
                    Some(encode(Kind::State, state).map_err(failed)?)
                }
                Then::Remove => None,
            };
            writes.push((change.id.clone(), state, std::mem::take(&mut change.runs)));
        }
        let committed = self.tasks.commit_now(request);
        let mut refused = committed.refused.iter().copied().peekable();
        self.write(Batch::default(), |store, batch| {
            for (index, (id, state, runs)) in writes.into_iter().enumerate() {
                if refused.next_if_eq(&index).is_some() {
                    continue;
                }
                store.history.begin(Self::disk(&mut store.disk)?, batch, &id, runs)?;
                match state {
                    Some(state) => batch.insert(keys::state(&id), state),
                    None => store.forget(batch, id)?,
                }
            }
            Ok(())
        })?;
        Ok(committed)
    }

    fn finish_now(&mut self, Finish { ends }: Finish) -> Result<(), StoreError> {
        Self::disk(&mut self.disk)?;
        self.write(Batch::default(), |store, batch| {
            for (run, _, end) in ends {
                store.history.end(batch, run, end)?;
            }
            Ok(())
        })
    }

    fn remove_all_now(&mut self) -> Result<usize, StoreError> {
        Self::disk(&mut self.disk)?;
        let ids = self.tasks.ids();
        self.tasks = MemoryBackend::default();
        let removed = ids.len();
        self.write(Batch::default(), |store, batch| {
            ids.into_iter().try_for_each(|id| store.forget(batch, id))
        })?;
        Ok(removed)
    }

    /// Answers from memory, if what is there is true.
    fn recall<T>(&mut self, ask: impl FnOnce(&mut MemoryBackend) -> Reply<T>) -> Reply<T> {
        match Self::disk(&mut self.disk) {
            Ok(_) => ask(&mut self.tasks),
            Err(error) => Reply::Now(Err(error)),
        }
    }
}

impl Backend for SledBackend {
    fn capabilities(&self) -> Capabilities {
        Capabilities { durable: true, closures: false, blocking: true, shared: false }
    }

    fn open(&mut self, request: Open) -> Reply<Opened> {
        self.open_now(request).into()
    }

    fn put(&mut self, request: Put) -> Reply<()> {
        self.put_now(request).into()
    }

    fn delete(&mut self, request: Delete) -> Reply<StoredTask> {
        self.delete_now(request).into()
    }

    fn get(&mut self, request: Get) -> Reply<Option<StoredTask>> {
        match self.check_readable(&request.id) {
            Ok(()) => self.recall(|tasks| tasks.get(request)),
            Err(error) => Reply::Now(Err(error)),
        }
    }

    fn list(&mut self, request: List) -> Reply<Vec<StoredTask>> {
        self.recall(|tasks| tasks.list(request))
    }

    fn take_due(&mut self, request: TakeDue) -> Reply<Due> {
        self.recall(|tasks| tasks.take_due(request))
    }

    fn commit(&mut self, request: Commit) -> Reply<Committed> {
        self.commit_now(request).into()
    }

    fn finish(&mut self, request: Finish) -> Reply<()> {
        self.finish_now(request).into()
    }

    fn next_due(&mut self, request: NextDue) -> Reply<Option<DateTime<Utc>>> {
        self.recall(|tasks| tasks.next_due(request))
    }

    fn runs(&mut self, Runs { id, limit }: Runs) -> Reply<Vec<RunRecord>> {
        Self::disk(&mut self.disk).and_then(|disk| self.history.latest(disk, &id, limit)).into()
    }

    fn remove_all(&mut self, _: RemoveAll) -> Reply<usize> {
        self.remove_all_now().into()
    }

    fn close(&mut self, _: Close) -> Reply<()> {
        self.disk.take().map_or(Ok(()), Disk::close).into()
    }
}

fn encoded_spec(task: &StoredTask) -> Result<Vec<u8>, StoreError> {
    let id = &task.spec.id;
    if matches!(task.spec.handler, Handler::Closure(_)) {
        let reason = "a closure cannot be written down; register the code under a name, or keep the task \
                      in a memory store";
        return Err(StoreError::Unstorable { id: id.clone(), reason: reason.to_owned() });
    }
    let unstorable = |reason| StoreError::Unstorable { id: id.clone(), reason };
    let bytes = encode(Kind::Spec, &*task.spec).map_err(unstorable)?;
    // Better refused now than acknowledged and unreadable after a restart.
    decode::<TaskSpec>(Kind::Spec, &bytes)
        .map_err(|reason| unstorable(format!("written down, it cannot be read again: {reason}")))?;
    if bytes.len() > ROW_LIMIT {
        return Err(StoreError::TooLarge { id: id.clone(), size: bytes.len(), limit: ROW_LIMIT });
    }
    Ok(bytes)
}

impl fmt::Debug for SledBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SledBackend")
            .field("options", &self.options)
            .field("open", &self.disk.is_some())
            .finish_non_exhaustive()
    }
}
