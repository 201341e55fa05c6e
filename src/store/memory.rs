use std::collections::BTreeSet;
use std::fmt;
use std::hash::{Hash, Hasher};

use chrono::{DateTime, Utc};
use hashbrown::HashTable;
use rustc_hash::{FxHashMap, FxHasher};

use super::message::*;
use super::recent::Recent;
use super::retention::Retention;
use super::{
    Backend, BackendSource, Capabilities, Keep, ListPart, Reply, StoreAddr, StoreError, StoreSource, in_order,
};
use crate::task::{RunRecord, StoredTask, TaskId};

/// So many places are looked at for a part of a list.
const PART: usize = 512;

/// Keeps tasks in memory: fast, closures allowed, nothing left after the process has ended.
///
/// It survives the death of its actor: the tasks go to the successor. It keeps the latest run records,
/// [32 MiB](Self::history_size) of them. A change costs O(log n); a task costs some 150 bytes beyond the
/// task itself and its records.
///
/// ```
/// use callboard::store::{MemoryStore, StoreSource};
///
/// # actix_rt::System::new().block_on(async {
/// // What `Scheduler::builder().store("default", MemoryStore::new())` does with it:
/// let store = MemoryStore::new().start(Box::new(()));
/// # drop(store) });
/// ```
pub struct MemoryStore {
    retention: Retention,
    source: BackendSource<MemoryBackend>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::keeping(Retention::MEMORY)
    }

    fn keeping(retention: Retention) -> Self {
        Self { retention, source: BackendSource::keeping(MemoryBackend::default().keeping(retention)) }
    }

    /// The most run records of a task that are kept; 0 for none, which spares some time at each run.
    /// Default: no such limit, as many as [`history_size`](Self::history_size) has room for.
    pub fn history(self, runs: usize) -> Self {
        Self::keeping(Retention { most: Some(runs), ..self.retention })
    }

    /// How many records of a task stay while others have more to give, and how many of its failures:
    /// its latest. Default: 20.
    pub fn history_least(self, runs: usize) -> Self {
        Self::keeping(Retention { least: runs, ..self.retention })
    }

    /// How long run records are kept, counted from the submission of a run; older ones go when another
    /// run is recorded, but for the latest of each task ([`history_least`](Self::history_least)).
    /// Default: for ever.
    pub fn history_age(self, age: std::time::Duration) -> Self {
        Self::keeping(Retention { age: chrono::TimeDelta::from_std(age).ok(), ..self.retention })
    }

    /// How much memory the run records of all tasks may take together, removed tasks included, in bytes;
    /// 0 for none. When that is too little, the oldest records go of runs that went well, then the oldest
    /// of the others, and at last the tasks give up in turn what they were to keep. Runs that have not
    /// ended are always kept. Default: 32 MiB, some 80,000 records that say little.
    pub fn history_size(self, bytes: u64) -> Self {
        Self::keeping(Retention { size: bytes, ..self.retention })
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl StoreSource for MemoryStore {
    fn start(&mut self, keep: Keep) -> StoreAddr {
        self.source.start(keep)
    }

    fn keeps_closures(&self) -> Option<bool> {
        self.source.keeps_closures()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryStore")
    }
}

/// The [`Backend`] of [`MemoryStore`].
///
/// Tasks lie in a slab. Both indices hold slots and not tasks: a hash table that finds the slot of
/// an id (the id's text is only in the task), and an ordered set of due times.
#[derive(Default)]
pub struct MemoryBackend {
    tasks: Vec<Option<StoredTask>>,
    free: Vec<u32>,
    by_id: HashTable<u32>,
    due: BTreeSet<DueKey>,
    /// The tasks that are put off, by slot: their place in `due` is another one, or none.
    deferred: FxHashMap<u32, Until>,
    /// The run records, if any are kept.
    recent: Option<Recent>,
    /// By which rules of time zones the next runs were worked out.
    rules: Option<KeptRules>,
}

/// A due time and a slot in one number, so that comparing two is one comparison: 64 bits of
/// seconds (moved so that times before 1970 sort first), 32 of nanoseconds, 32 of slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct DueKey(u128);

impl DueKey {
    fn new(due: DateTime<Utc>, slot: u32) -> Self {
        let seconds = (due.timestamp() as u64) ^ (1 << 63);
        Self(u128::from(seconds) << 64 | u128::from(due.timestamp_subsec_nanos()) << 32 | u128::from(slot))
    }

    fn slot(self) -> u32 {
        self.0 as u32
    }
}

fn hash(id: &TaskId) -> u64 {
    let mut hasher = FxHasher::default();
    id.hash(&mut hasher);
    hasher.finish()
}

fn find(tasks: &[Option<StoredTask>], by_id: &HashTable<u32>, id: &TaskId) -> Option<u32> {
    let task = |slot: u32| tasks.get(slot as usize).and_then(Option::as_ref);
    by_id.find(hash(id), |slot| task(*slot).is_some_and(|task| task.spec.id == *id)).copied()
}

impl MemoryBackend {
    /// Keeps so many run records of each task at most; see [`MemoryStore::history`]. Default: none.
    pub fn history(self, runs: usize) -> Self {
        self.keeping(Retention { most: Some(runs), ..Retention::MEMORY })
    }

    fn keeping(mut self, retention: Retention) -> Self {
        let any = retention.most != Some(0) && retention.size > 0;
        self.recent = any.then(|| Recent::new(retention));
        self
    }

    pub(in crate::store) fn find(&self, id: &TaskId) -> Option<u32> {
        find(&self.tasks, &self.by_id, id)
    }

    fn task(&self, slot: u32) -> Option<&StoredTask> {
        self.tasks.get(slot as usize)?.as_ref()
    }

    fn task_mut(&mut self, slot: u32) -> Option<&mut StoredTask> {
        self.tasks.get_mut(slot as usize)?.as_mut()
    }

    fn enter(&mut self, slot: u32) {
        let Some(task) = self.tasks.get(slot as usize).and_then(Option::as_ref) else { return };
        if let Some(due) = task.state.due() {
            self.due.insert(DueKey::new(due, slot));
        }
        let tasks = &self.tasks;
        let rehash = |slot: &u32| {
            tasks.get(*slot as usize).and_then(Option::as_ref).map_or(0, |task| hash(&task.spec.id))
        };
        self.by_id.insert_unique(hash(&task.spec.id), slot, rehash);
    }

    pub(in crate::store) fn insert(&mut self, task: StoredTask) -> Result<(), StoreError> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                let slot = u32::try_from(self.tasks.len()).map_err(|_| {
                    StoreError::unavailable("it is full: a memory store holds 4,294,967,296 tasks")
                })?;
                self.tasks.push(None);
                slot
            }
        };
        if let Some(place) = self.tasks.get_mut(slot as usize) {
            *place = Some(task);
        }
        self.enter(slot);
        Ok(())
    }

    /// Puts `change` in place of the task's present state, and moves it in the due index.
    fn change(&mut self, slot: u32, change: impl FnOnce(&mut StoredTask)) {
        let before = self.due_at(slot);
        if !self.deferred.is_empty() {
            self.deferred.remove(&slot);
        }
        let Some(task) = self.task_mut(slot) else { return };
        change(task);
        let after = task.state.due();
        if before != after {
            if let Some(due) = before {
                self.due.remove(&DueKey::new(due, slot));
            }
            if let Some(due) = after {
                self.due.insert(DueKey::new(due, slot));
            }
        }
    }

    fn remove(&mut self, slot: u32) -> Option<StoredTask> {
        let due = self.due_at(slot);
        let task = self.tasks.get_mut(slot as usize)?.take()?;
        if let Some(due) = due {
            self.due.remove(&DueKey::new(due, slot));
        }
        if !self.deferred.is_empty() {
            self.deferred.remove(&slot);
        }
        if let Ok(entry) = self.by_id.find_entry(hash(&task.spec.id), |other| *other == slot) {
            entry.remove();
        }
        self.free.push(slot);
        Some(task)
    }

    pub(in crate::store) fn first_due(&self) -> Option<DateTime<Utc>> {
        self.due_at(self.due.first()?.slot())
    }

    /// When the task in this slot is handed out.
    fn due_at(&self, slot: u32) -> Option<DateTime<Utc>> {
        let due = self.task(slot)?.state.due()?;
        if self.deferred.is_empty() {
            return Some(due);
        }
        self.deferred.get(&slot).map_or(Some(due), |until| until.from(due))
    }

    pub(in crate::store) fn defer_now(&mut self, Defer { tasks }: Defer) -> Option<DateTime<Utc>> {
        for Deferral { id, revision, until } in tasks {
            let Some(slot) = self.find(&id) else { continue };
            if self.task(slot).is_none_or(|task| task.state.revision != revision) {
                continue;
            }
            if let Some(before) = self.due_at(slot) {
                self.due.remove(&DueKey::new(before, slot));
            }
            match until {
                Until::Now => self.deferred.remove(&slot),
                until => self.deferred.insert(slot, until),
            };
            if let Some(after) = self.due_at(slot) {
                self.due.insert(DueKey::new(after, slot));
            }
        }
        self.first_due()
    }

    pub(in crate::store) fn get_now(&self, id: &TaskId) -> Option<&StoredTask> {
        self.task(self.find(id)?)
    }

    #[cfg(feature = "_durable")]
    pub(in crate::store) fn ids(&self) -> Vec<TaskId> {
        self.tasks.iter().flatten().map(|task| task.spec.id.clone()).collect()
    }

    /// The tasks at some places.
    pub(in crate::store) fn part_now(&self, from: usize) -> ListPart {
        let end = from.saturating_add(PART).min(self.tasks.len());
        let some = self.tasks.get(from.min(end)..end).unwrap_or_default();
        let next = (end < self.tasks.len()).then_some(end);
        ListPart { tasks: some.iter().flatten().cloned().collect(), next }
    }

    /// The tasks with an attempt that is going on.
    pub(in crate::store) fn unsettled(&self) -> Vec<TaskId> {
        let going_on = |task: &&StoredTask| task.state.attempts.iter().any(|attempt| attempt.at.is_none());
        self.tasks.iter().flatten().filter(going_on).map(|task| task.spec.id.clone()).collect()
    }

    /// Makes both indices from the tasks alone: a panic may have left them half changed.
    fn reindex(&mut self) {
        self.free.clear();
        self.by_id.clear();
        self.due.clear();
        self.deferred.clear();
        for slot in 0..self.tasks.len() as u32 {
            if self.task(slot).is_some() {
                self.enter(slot);
            } else {
                self.free.push(slot);
            }
        }
    }

    pub(in crate::store) fn put_now(&mut self, Put { task, expect }: Put) -> Result<(), StoreError> {
        let id = &task.spec.id;
        match (self.find(id), expect) {
            (None, Expect::Absent) => self.insert(task),
            (Some(_), Expect::Absent) => Err(StoreError::Exists(id.clone())),
            (None, Expect::Revision(_)) => Err(StoreError::NotFound(id.clone())),
            (Some(slot), Expect::Revision(revision)) => {
                if self.task(slot).is_none_or(|there| there.state.revision != revision) {
                    return Err(StoreError::Changed(id.clone()));
                }
                self.change(slot, |there| *there = task);
                Ok(())
            }
        }
    }

    /// The latest of the times in its tasks that must be past.
    pub(in crate::store) fn latest_time(&self) -> DateTime<Utc> {
        let times = self.tasks.iter().flatten().map(|task| task.state.latest_time());
        times.max().unwrap_or(DateTime::UNIX_EPOCH)
    }

    pub(in crate::store) fn delete_now(
        &mut self,
        Delete { id, revision }: Delete,
    ) -> Result<StoredTask, StoreError> {
        let Some(slot) = self.find(&id) else { return Err(StoreError::NotFound(id)) };
        let there = self.task(slot).map(|task| task.state.revision);
        if revision.is_some() && revision != there {
            return Err(StoreError::Changed(id));
        }
        self.remove(slot).ok_or(StoreError::NotFound(id))
    }

    pub(in crate::store) fn commit_now(&mut self, Commit { changes }: Commit) -> Committed {
        let mut refused = Vec::new();
        for (index, change) in changes.into_iter().enumerate() {
            let slot = self.find(&change.id);
            let there = slot.and_then(|slot| self.task(slot)).map(|task| task.state.revision);
            match (slot, change.then) {
                (Some(slot), then) if there == Some(change.revision) => match then {
                    Then::State(state) => self.change(slot, |task| task.state = state),
                    Then::Task(task) => self.change(slot, |there| *there = task),
                    Then::Remove => drop(self.remove(slot)),
                },
                _ => refused.push(index),
            }
        }
        Committed { refused, next_due: self.first_due() }
    }
}

impl Backend for MemoryBackend {
    fn capabilities(&self) -> Capabilities {
        Capabilities { closures: true, records: self.recent.is_some(), ..Capabilities::default() }
    }

    fn open(&mut self, Open { owner, now }: Open) -> Reply<Opened> {
        self.reindex();
        let mut recent = self.recent.take();
        let interrupted = recent.as_mut().map(|recent| {
            recent.reindex(|task| self.find(task).is_some());
            recent.interrupt(owner, now, |task| self.find(task).is_some())
        });
        self.recent = recent;
        let opened = Opened {
            capabilities: self.capabilities(),
            interrupted: interrupted.unwrap_or_default(),
            next_due: self.first_due(),
            unsettled: Some(self.unsettled()),
            latest_time: Some(self.latest_time()),
            rules: self.rules.clone(),
            ..Opened::default()
        };
        Reply::Now(Ok(opened))
    }

    fn put(&mut self, request: Put) -> Reply<()> {
        self.put_now(request).into()
    }

    fn delete(&mut self, request: Delete) -> Reply<StoredTask> {
        let deleted = self.delete_now(request);
        if let (Ok(task), Some(recent)) = (&deleted, &mut self.recent) {
            recent.leave(&task.spec.id);
        }
        deleted.into()
    }

    fn get(&mut self, request: Get) -> Reply<Option<StoredTask>> {
        Reply::Now(Ok(self.get_now(&request.id).cloned()))
    }

    fn list(&mut self, _: List) -> Reply<Vec<StoredTask>> {
        let mut tasks: Vec<_> = self.tasks.iter().flatten().cloned().collect();
        tasks.sort_unstable_by(in_order);
        Reply::Now(Ok(tasks))
    }

    fn list_part(&mut self, from: usize) -> Reply<ListPart> {
        Reply::Now(Ok(self.part_now(from)))
    }

    fn take_due(&mut self, TakeDue { now, limit }: TakeDue) -> Reply<Due> {
        let end = DueKey::new(now, u32::MAX);
        let mut due = self.due.range(..=end).map(|key| key.slot());
        let tasks: Vec<_> = due.by_ref().take(limit).filter_map(|slot| self.task(slot).cloned()).collect();
        let more = due.next().is_some();
        Reply::Now(Ok(Due { tasks, more }))
    }

    fn defer(&mut self, request: Defer) -> Reply<Option<DateTime<Utc>>> {
        Reply::Now(Ok(self.defer_now(request)))
    }

    fn commit(&mut self, mut request: Commit) -> Reply<Committed> {
        if self.recent.is_none() {
            return Reply::Now(Ok(self.commit_now(request)));
        }
        let take = |change: &mut Change| {
            (change.id.clone(), std::mem::take(&mut change.runs), change.then == Then::Remove)
        };
        let runs: Vec<_> = request.changes.iter_mut().map(take).collect();
        let committed = self.commit_now(request);
        if let Some(recent) = &mut self.recent {
            let mut refused = committed.refused.iter().copied().peekable();
            for (index, (id, runs, removed)) in runs.into_iter().enumerate() {
                if refused.next_if_eq(&index).is_none() {
                    recent.begin(&id, runs);
                    if removed {
                        recent.leave(&id);
                    }
                }
            }
        }
        Reply::Now(Ok(committed))
    }

    fn finish(&mut self, Finish { ends }: Finish) -> Reply<()> {
        let Self { tasks, by_id, recent, .. } = self;
        if let Some(recent) = recent {
            let exists = |task: &TaskId| find(tasks, by_id, task).is_some();
            ends.into_iter().for_each(|(run, _, end)| recent.end(run, end, exists));
        }
        Reply::Now(Ok(()))
    }

    fn next_due(&mut self, _: NextDue) -> Reply<Option<DateTime<Utc>>> {
        Reply::Now(Ok(self.first_due()))
    }

    fn runs(&mut self, Runs { id, limit }: Runs) -> Reply<Vec<RunRecord>> {
        Reply::Now(Ok(self.recent.as_ref().map(|recent| recent.latest(&id, limit)).unwrap_or_default()))
    }

    fn find_runs(&mut self, request: FindRuns) -> Reply<Found> {
        Reply::Now(Ok(self.recent.as_ref().map(|recent| recent.find(&request)).unwrap_or_default()))
    }

    fn remove_all(&mut self, _: RemoveAll) -> Reply<usize> {
        let removed = self.by_id.len();
        // Not `clear`: a million tasks leave nothing behind.
        let mut recent = self.recent.take();
        if let Some(recent) = &mut recent {
            self.tasks.iter().flatten().for_each(|task| recent.leave(&task.spec.id));
        }
        *self = Self { recent, rules: self.rules.take(), ..Self::default() };
        Reply::Now(Ok(removed))
    }

    fn keep_rules(&mut self, KeepRules(rules): KeepRules) -> Reply<()> {
        self.rules = Some(rules);
        Reply::Now(Ok(()))
    }

    fn close(&mut self, _: Close) -> Reply<()> {
        Reply::Now(Ok(()))
    }
}

impl fmt::Debug for MemoryBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBackend")
            .field("tasks", &self.by_id.len())
            .field("due", &self.due.len())
            .finish_non_exhaustive()
    }
}
