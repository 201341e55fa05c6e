use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use chrono::{DateTime, Utc};
use futures::channel::oneshot;
use rustc_hash::FxHashMap;

use super::history::History;
use super::opening::Known;
use super::sweep::Sweep;
use super::writer::{Writer, answer};
use super::{Batch, Place, ROW_LIMIT, Rules, keys};
use crate::store::envelope::{Codec, Kind};
use crate::store::message::*;
use crate::store::{Backend, Capabilities, ListPart, MemoryBackend, Reply, StoreError};
use crate::task::{Handler, RunRecord, StoredTask, TaskId, TaskSpec};

/// A store that answers from memory and writes through to the disk at `P`.
pub(in crate::store) struct Engine<P: Place> {
    pub(super) place: P,
    pub(super) rules: Rules,
    /// `None` before it is opened and after a failure.
    pub(super) writer: Option<Writer>,
    pub(super) codec: Codec,
    pub(super) tasks: MemoryBackend,
    pub(super) unreadable: FxHashMap<String, (Cause, String)>,
    pub(super) history: History,
    /// What was set aside and has not been told yet.
    pub(super) asides: (mpsc::Sender<SetAside>, mpsc::Receiver<SetAside>),
    /// Threads that hang in an opening.
    pub(super) left_behind: Vec<JoinHandle<()>>,
    /// The store that was open last. Nothing is made in its place.
    pub(super) known: Option<Known>,
    /// Why it could not be opened again, while it is missing.
    pub(super) not_opened: Option<StoreError>,
}

impl<P: Place> Engine<P> {
    pub(in crate::store) fn new(place: P, rules: Rules) -> Self {
        Self {
            place,
            rules,
            writer: None,
            codec: Codec::plain(),
            tasks: MemoryBackend::default(),
            unreadable: FxHashMap::default(),
            history: History::default(),
            asides: mpsc::channel(),
            left_behind: Vec::new(),
            known: None,
            not_opened: None,
        }
    }

    /// The writer, if memory is true.
    fn writer(&mut self) -> Result<&mut Writer, StoreError> {
        let working = match &self.writer {
            Some(writer) => writer.check(),
            None => return Err(self.closed()),
        };
        if working.is_err() {
            self.tasks = MemoryBackend::default();
            self.history = History::default();
        }
        working?;
        match &mut self.writer {
            Some(writer) => Ok(writer),
            None => Err(StoreError::unavailable("it is not open")),
        }
    }

    /// Why there is no writer.
    fn closed(&self) -> StoreError {
        self.not_opened.clone().unwrap_or_else(|| StoreError::unavailable("it is not open"))
    }

    /// A record that cannot be read is not written over.
    fn check_readable(&self, id: &TaskId) -> Result<(), StoreError> {
        match self.unreadable.get(id.as_str()) {
            None => Ok(()),
            Some((cause, reason)) => {
                let (place, reason) = (format!("the record of task `{id}`"), reason.clone());
                let advice = cause.advice().to_owned();
                Err(match cause.may_pass() {
                    true => StoreError::Unreadable { place, reason, advice },
                    false => StoreError::Damaged { place, reason, advice },
                })
            }
        }
    }

    /// Writes `batch`, after memory has changed already, and answers when that is durable.
    fn write<T: 'static>(&mut self, batch: Batch, answer: T) -> Reply<T> {
        match self.writer() {
            Ok(writer) => {
                let written = writer.write(batch);
                Reply::later(async move { written.await.map(|()| answer) })
            }
            Err(error) => Reply::Now(Err(error)),
        }
    }

    /// Answers when everything that memory knows by now is durable. What is told after that was
    /// never only a wish.
    pub(super) fn settled<T: 'static>(&mut self, answer: Result<T, StoreError>) -> Reply<T> {
        match self.writer() {
            Ok(writer) if writer.is_even() => Reply::Now(answer),
            Ok(writer) => {
                let written = writer.write(Batch::default());
                Reply::later(async move { written.await.and(answer) })
            }
            Err(down) => Reply::Now(Err(match answer {
                // Whatever the store holds.
                Err(error @ (StoreError::Unstorable { .. } | StoreError::TooLarge { .. })) => error,
                _ => down,
            })),
        }
    }

    /// What a change comes to that was refused, or whose batch was not made.
    fn reply<T: 'static>(&mut self, made: Result<(Batch, T), StoreError>) -> Reply<T> {
        match made {
            Ok((batch, answer)) => self.write(batch, answer),
            Err(error) => self.settled(Err(error)),
        }
    }

    /// Every task there is, in memory or in quarantine, and those removed that have records still.
    fn known(&self) -> BTreeSet<TaskId> {
        let named = self.unreadable.keys().filter_map(|id| TaskId::new(id).ok());
        self.tasks.ids().into_iter().chain(named).chain(self.history.gone().cloned()).collect()
    }

    fn sweep<T: 'static>(
        &mut self,
        make: impl FnOnce(BTreeSet<TaskId>, oneshot::Sender<Result<T, StoreError>>) -> Sweep,
    ) -> Reply<T> {
        let (known, (done, receipt)) = (self.known(), oneshot::channel());
        match self.writer() {
            Ok(writer) => {
                writer.sweep(make(known, done));
                Reply::later(answer(receipt))
            }
            Err(error) => Reply::Now(Err(error)),
        }
    }

    #[cfg(feature = "encryption")]
    fn rekey_now(&mut self) -> Result<Codec, StoreError> {
        let identity = self.writer()?.identity();
        let mut codec = self.rules.codec(identity)?;
        let Some(cipher) = &mut codec.cipher else { return Err(super::NO_KEYS) };
        // A key that was taken away too early is in memory still: what it sealed gets the current one.
        if let Some(present) = &self.codec.cipher {
            cipher.keys = cipher.keys.clone().older(&present.keys);
        }
        // What is written from now on has the current key; the writer follows in this order.
        self.codec = codec.clone();
        self.history.write_with(codec.clone());
        Ok(codec)
    }

    fn put_now(&mut self, request: Put) -> Result<(Batch, ()), StoreError> {
        self.writer()?;
        let (id, spec) = (request.task.spec.id.clone(), request.task.spec.clone());
        self.check_readable(&id)?;
        let row = keys::state(&id);
        let state = self.codec.encode(Kind::State, &row, &request.task.state);
        let state = state.map_err(|reason| StoreError::Unstorable { id: id.clone(), reason })?;
        check_size(&id, &state)?;
        let there = self.tasks.get_now(&id);
        let mut batch = Batch::default();
        // Pausing a task does not write its arguments again.
        if there.is_none_or(|there| !Arc::ptr_eq(&there.spec, &spec)) {
            batch.insert(keys::spec(&id), encoded_spec(&self.codec, &request.task)?);
        }
        self.tasks.put_now(request)?;
        batch.insert(row, state);
        Ok((batch, ()))
    }

    fn delete_now(&mut self, request: Delete) -> Result<(Batch, StoredTask), StoreError> {
        self.writer()?;
        self.check_readable(&request.id)?;
        let task = self.tasks.delete_now(request)?;
        let mut batch = Batch::default();
        self.forget(&mut batch, task.spec.id.clone());
        Ok((batch, task))
    }

    /// Removes the records of a task that is gone from memory already.
    fn forget(&mut self, batch: &mut Batch, id: TaskId) {
        batch.remove(keys::spec(&id));
        batch.remove(keys::state(&id));
        self.history.leave(batch, id, is_there(&self.tasks, &self.unreadable));
    }

    fn commit_now(&mut self, mut request: Commit) -> Result<(Batch, Committed), StoreError> {
        self.writer()?;
        // Everything that can be refused is, before memory changes.
        let mut writes = Vec::with_capacity(request.changes.len());
        for change in &mut request.changes {
            let failed = |reason| StoreError::Unstorable { id: change.id.clone(), reason };
            let row = keys::state(&change.id);
            let written = |state| self.codec.encode(Kind::State, &row, state).map_err(failed);
            let (spec, state) = match &change.then {
                Then::State(state) => (None, Some(written(state)?)),
                Then::Task(task) => (Some(encoded_spec(&self.codec, task)?), Some(written(&task.state)?)),
                Then::Remove => (None, None),
            };
            writes.push((change.id.clone(), spec, state, std::mem::take(&mut change.runs)));
        }
        let committed = self.tasks.commit_now(request);
        let mut refused = committed.refused.iter().copied().peekable();
        let mut batch = Batch::default();
        for (index, (id, spec, state, runs)) in writes.into_iter().enumerate() {
            if refused.next_if_eq(&index).is_some() {
                continue;
            }
            self.history.begin(&mut batch, &id, runs).inspect_err(|error| self.spoil(error))?;
            if let Some(spec) = spec {
                batch.insert(keys::spec(&id), spec);
            }
            match state {
                Some(state) => batch.insert(keys::state(&id), state),
                None => self.forget(&mut batch, id),
            }
        }
        Ok((batch, committed))
    }

    fn finish_now(&mut self, Finish { ends }: Finish) -> Result<(Batch, ()), StoreError> {
        self.writer()?;
        let mut batch = Batch::default();
        for (run, _, end) in ends {
            let exists = is_there(&self.tasks, &self.unreadable);
            self.history.end(&mut batch, run, end, exists).inspect_err(|error| self.spoil(error))?;
        }
        Ok((batch, ()))
    }

    fn remove_all_now(&mut self) -> Result<(Batch, usize), StoreError> {
        self.writer()?;
        let ids = self.tasks.ids();
        self.tasks = MemoryBackend::default();
        let removed = ids.len();
        let mut batch = Batch::default();
        ids.into_iter().for_each(|id| self.forget(&mut batch, id));
        Ok((batch, removed))
    }

    /// Memory has changed and the disk will not: the store is down.
    fn spoil(&self, error: &StoreError) {
        if let Some(writer) = &self.writer {
            writer.spoil(error);
        }
    }

    /// Answers from memory, at once.
    fn recall<T>(&mut self, ask: impl FnOnce(&mut MemoryBackend) -> Reply<T>) -> Reply<T> {
        match self.writer() {
            Ok(_) => ask(&mut self.tasks),
            Err(error) => Reply::Now(Err(error)),
        }
    }
}

impl<P: Place> Backend for Engine<P> {
    fn capabilities(&self) -> Capabilities {
        Capabilities { durable: true, records: true, closures: false, blocking: true, shared: false }
    }

    fn open(&mut self, request: Open) -> Reply<Opened> {
        match self.open_now(request) {
            Ok((batch, opened)) if batch.is_empty() => Reply::Now(Ok(opened)),
            Ok((batch, opened)) => self.write(batch, opened),
            Err(error) => Reply::Now(Err(error)),
        }
    }

    fn put(&mut self, request: Put) -> Reply<()> {
        let made = self.put_now(request);
        self.reply(made)
    }

    fn delete(&mut self, request: Delete) -> Reply<StoredTask> {
        let made = self.delete_now(request);
        self.reply(made)
    }

    fn get(&mut self, request: Get) -> Reply<Option<StoredTask>> {
        let found = self.check_readable(&request.id).map(|()| self.tasks.get_now(&request.id).cloned());
        self.settled(found)
    }

    fn list(&mut self, request: List) -> Reply<Vec<StoredTask>> {
        match self.tasks.list(request) {
            Reply::Now(tasks) => self.settled(tasks),
            later @ Reply::Later(_) => later,
        }
    }

    fn list_part(&mut self, from: usize) -> Reply<ListPart> {
        if let Err(error) = self.writer() {
            return Reply::Now(Err(error));
        }
        let part = self.tasks.part_now(from);
        // When the last one is told, what all of them say is durable.
        if part.next.is_some() { Reply::Now(Ok(part)) } else { self.settled(Ok(part)) }
    }

    fn defer(&mut self, request: Defer) -> Reply<Option<DateTime<Utc>>> {
        self.recall(|tasks| tasks.defer(request))
    }

    fn take_due(&mut self, request: TakeDue) -> Reply<Due> {
        self.recall(|tasks| tasks.take_due(request))
    }

    fn commit(&mut self, request: Commit) -> Reply<Committed> {
        let made = self.commit_now(request);
        self.reply(made)
    }

    fn finish(&mut self, request: Finish) -> Reply<()> {
        let made = self.finish_now(request);
        self.reply(made)
    }

    fn next_due(&mut self, request: NextDue) -> Reply<Option<DateTime<Utc>>> {
        self.recall(|tasks| tasks.next_due(request))
    }

    fn runs(&mut self, Runs { id, limit }: Runs) -> Reply<Vec<RunRecord>> {
        match self.writer() {
            Ok(writer) => Reply::later(writer.runs(id, limit)),
            Err(error) => Reply::Now(Err(error)),
        }
    }

    fn find_runs(&mut self, request: FindRuns) -> Reply<Found> {
        let kept = Some(self.rules.retention.kept());
        match self.writer() {
            Ok(writer) => {
                let found = writer.find(request);
                Reply::later(async move { Ok(Found { kept, ..found.await? }) })
            }
            Err(error) => Reply::Now(Err(error)),
        }
    }

    fn remove_all(&mut self, _: RemoveAll) -> Reply<usize> {
        let made = self.remove_all_now();
        self.reply(made)
    }

    fn check(&mut self, _: Check) -> Reply<Checked> {
        self.sweep(Sweep::check)
    }

    #[cfg(feature = "encryption")]
    fn rekey(&mut self, _: Rekey) -> Reply<Rekeyed> {
        match self.rekey_now() {
            Ok(codec) => self.sweep(|known, done| Sweep::rekey(known, codec, done)),
            Err(error) => Reply::Now(Err(error)),
        }
    }

    fn export(&mut self, Export { path, plain }: Export) -> Reply<Exported> {
        self.sweep(|known, done| Sweep::export(known, path, plain, done))
    }

    fn keep_rules(&mut self, KeepRules(rules): KeepRules) -> Reply<()> {
        match Codec::plain().encode(Kind::Rules, keys::RULES, &rules) {
            Ok(rules) => {
                let mut batch = Batch::default();
                batch.insert(keys::RULES.to_vec(), rules);
                self.write(batch, ())
            }
            Err(reason) => Reply::Now(Err(StoreError::unavailable(reason))),
        }
    }

    fn close(&mut self, _: Close) -> Reply<()> {
        match self.writer.take() {
            Some(writer) => Reply::later(writer.close()),
            None => Reply::Now(Ok(())),
        }
    }
}

/// Whether there is such a task; one that cannot be read is.
pub(super) fn is_there<T>(
    tasks: &MemoryBackend,
    unreadable: &FxHashMap<String, T>,
) -> impl Fn(&TaskId) -> bool {
    |id| tasks.find(id).is_some() || unreadable.contains_key(id.as_str())
}

fn encoded_spec(codec: &Codec, task: &StoredTask) -> Result<Vec<u8>, StoreError> {
    let id = &task.spec.id;
    if matches!(task.spec.handler, Handler::Closure(_)) {
        let reason = "a closure cannot be written down; register the code under a name, or keep the task \
                      in a memory store";
        return Err(StoreError::Unstorable { id: id.clone(), reason: reason.to_owned() });
    }
    let unstorable = |reason| StoreError::Unstorable { id: id.clone(), reason };
    let row = keys::spec(id);
    let bytes = codec.encode(Kind::Spec, &row, &*task.spec).map_err(unstorable)?;
    // Better refused now than acknowledged and unreadable after a restart.
    codec
        .decode::<TaskSpec>(Kind::Spec, &row, &bytes)
        .map_err(|unread| unstorable(format!("written down, it cannot be read again: {}", unread.reason)))?;
    check_size(id, &bytes)?;
    Ok(bytes)
}

fn check_size(id: &TaskId, row: &[u8]) -> Result<(), StoreError> {
    match row.len() {
        size if size > ROW_LIMIT => Err(StoreError::TooLarge { id: id.clone(), size, limit: ROW_LIMIT }),
        _ => Ok(()),
    }
}

impl<P: Place> fmt::Debug for Engine<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("place", &self.place)
            .field("rules", &self.rules)
            .field("open", &self.writer.is_some())
            .finish_non_exhaustive()
    }
}
