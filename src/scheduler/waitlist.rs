//! Who waits for what: the tasks that are due and cannot run, because what is to run them is not there
//! or has no room. In their stores they stay due; here is whom to wake when what they wait for comes.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::store::message::{Deferral, Until};
use crate::task::{Alias, Refusal, Run, TaskId, Wait};

/// What a task waits for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Lack {
    /// An executor of this alias that works.
    Executor(Alias),
    /// Room in the executor.
    Room(Alias),
    /// Code under this name.
    Handler(String),
}

/// A task that waits.
#[derive(Debug, Clone)]
pub(super) struct Waiter {
    pub lack: Lack,
    pub reason: Refusal,
    /// When it is due: who has waited longest comes first.
    pub due: DateTime<Utc>,
    pub revision: u64,
    pub since: DateTime<Utc>,
}

/// The tasks that are called back to a store.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Recalls {
    pub tasks: Vec<Deferral>,
    /// The executors that have room for them.
    pub rooms: BTreeSet<Alias>,
}

#[derive(Default)]
pub(super) struct Waitlist {
    tasks: HashMap<Alias, HashMap<TaskId, Waiter>>,
    /// Those who have not been called, by what they wait for.
    lines: BTreeMap<Lack, BTreeSet<(DateTime<Utc>, Alias, TaskId)>>,
    /// Those who were called, and whose store does not know yet.
    called: BTreeMap<Alias, VecDeque<(Lack, Deferral)>>,
    /// How often an executor has told that it has room.
    news: BTreeMap<Alias, u64>,
    /// Runs that were written down for an executor that was gone then.
    stranded: BTreeMap<Alias, Vec<Arc<Run>>>,
}

impl Waitlist {
    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// How many tasks wait.
    pub(super) fn len(&self) -> usize {
        self.tasks.values().map(HashMap::len).sum()
    }

    /// How many wait for an executor, whatever for.
    pub(super) fn for_executor(&self, executor: &Alias) -> usize {
        self.of(&Lack::Executor(executor.clone())) + self.of(&Lack::Room(executor.clone()))
    }

    /// How many have not been called who wait for this.
    pub(super) fn of(&self, lack: &Lack) -> usize {
        self.lines.get(lack).map_or(0, BTreeSet::len)
    }

    /// Since when a task waits.
    pub(super) fn since(&self, store: &Alias, id: &TaskId) -> Option<DateTime<Utc>> {
        Some(self.tasks.get(store)?.get(id)?.since)
    }

    /// A task waits, or goes on to. Whether it is the first one that waits for this.
    pub(super) fn wait(&mut self, store: &Alias, id: &TaskId, waiter: Waiter) -> bool {
        self.leave(store, id);
        let line = self.lines.entry(waiter.lack.clone()).or_default();
        let first = line.is_empty();
        line.insert((waiter.due, store.clone(), id.clone()));
        self.tasks.entry(store.clone()).or_default().insert(id.clone(), waiter);
        first
    }

    /// A task waits no longer: it runs, was changed, or is gone.
    pub(super) fn leave(&mut self, store: &Alias, id: &TaskId) {
        let Some(tasks) = self.tasks.get_mut(store) else { return };
        let Some(waiter) = tasks.remove(id) else { return };
        if tasks.is_empty() {
            self.tasks.remove(store);
        }
        self.leave_line(&waiter.lack, &(waiter.due, store.clone(), id.clone()));
    }

    fn leave_line(&mut self, lack: &Lack, place: &(DateTime<Utc>, Alias, TaskId)) {
        if let Some(line) = self.lines.get_mut(lack) {
            line.remove(place);
            if line.is_empty() {
                self.lines.remove(lack);
            }
        }
    }

    /// Somebody has changed a task, or removed it. It is called as well: what was heard of that may be
    /// older than its waiting. Whether it waited.
    pub(super) fn forget(&mut self, store: &Alias, id: &TaskId) -> bool {
        let waiter = self.tasks.get(store).and_then(|tasks| tasks.get(id)).cloned();
        let Some(Waiter { lack, revision, .. }) = waiter else { return false };
        self.leave(store, id);
        let deferral = Deferral { id: id.clone(), revision, until: Until::Now };
        self.called.entry(store.clone()).or_default().push_back((lack, deferral));
        true
    }

    /// The same of all tasks of a store: it was opened anew, or all were removed. Whether any waited.
    pub(super) fn forget_store(&mut self, store: &Alias) -> bool {
        let tasks: Vec<TaskId> =
            self.tasks.get(store).map(|tasks| tasks.keys().cloned().collect()).unwrap_or_default();
        for id in &tasks {
            self.forget(store, id);
        }
        !tasks.is_empty()
    }

    /// A store is gone.
    pub(super) fn drop_store(&mut self, store: &Alias) {
        self.forget_store(store);
        self.called.remove(store);
    }

    /// Why a task waits, if this revision of it does.
    pub(super) fn told(&self, store: &Alias, id: &TaskId, revision: u64) -> Option<Wait> {
        let waiter = self.tasks.get(store)?.get(id)?;
        (waiter.revision == revision).then(|| Wait { since: waiter.since, reason: waiter.reason.to_string() })
    }

    /// Why each task waits that does, at which revision.
    pub(super) fn all_told(&self) -> HashMap<(Alias, TaskId), (u64, Wait)> {
        let all = self.tasks.iter().flat_map(|(store, tasks)| {
            tasks.iter().map(move |(id, waiter)| {
                let wait = Wait { since: waiter.since, reason: waiter.reason.to_string() };
                ((store.clone(), id.clone()), (waiter.revision, wait))
            })
        });
        all.collect()
    }

    /// Calls at most so many of those who wait for this, the longest due first. Whether there were any.
    pub(super) fn call(&mut self, lack: &Lack, most: usize) -> bool {
        let mut called = false;
        let Some(line) = self.lines.get_mut(lack) else { return called };
        for _ in 0..most {
            let Some((_, store, id)) = line.pop_first() else { break };
            let waiter = self.tasks.get(&store).and_then(|tasks| tasks.get(&id));
            if let Some(Waiter { revision, .. }) = waiter {
                let deferral = Deferral { id, revision: *revision, until: Until::Now };
                self.called.entry(store).or_default().push_back((lack.clone(), deferral));
                called = true;
            }
        }
        if line.is_empty() {
            self.lines.remove(lack);
        }
        called
    }

    /// At most so many of those who were called, for their store to hear.
    pub(super) fn take_called(&mut self, store: &Alias, most: usize) -> Recalls {
        let mut recalls = Recalls::default();
        let Some(called) = self.called.get_mut(store) else { return recalls };
        for (lack, deferral) in called.drain(..most.min(called.len())) {
            if let Lack::Room(executor) = lack {
                recalls.rooms.insert(executor);
            }
            recalls.tasks.push(deferral);
        }
        if called.is_empty() {
            self.called.remove(store);
        }
        recalls
    }

    /// The stores that do not know who was called.
    pub(super) fn stores_called(&self) -> impl Iterator<Item = &Alias> {
        self.called.keys()
    }

    /// Whether some were called whose store does not know.
    pub(super) fn has_called(&self, store: &Alias) -> bool {
        self.called.contains_key(store)
    }

    /// An executor has room: whoever was told before that it has none may have been told too early.
    pub(super) fn note_room(&mut self, executor: &Alias) {
        *self.news.entry(executor.clone()).or_default() += 1;
    }

    /// How often it has told so.
    pub(super) fn news(&self, executor: &Alias) -> u64 {
        self.news.get(executor).copied().unwrap_or_default()
    }

    /// Runs were written down, and their executor is gone: they begin when there is one again.
    pub(super) fn strand(&mut self, executor: &Alias, runs: Vec<Arc<Run>>) {
        self.stranded.entry(executor.clone()).or_default().extend(runs);
    }

    /// The runs that wait to be handed to this executor.
    pub(super) fn take_stranded(&mut self, executor: &Alias) -> Vec<Arc<Run>> {
        self.stranded.remove(executor).unwrap_or_default()
    }

    /// All runs that wait to be handed over.
    pub(super) fn take_all_stranded(&mut self) -> Vec<Arc<Run>> {
        std::mem::take(&mut self.stranded).into_values().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    fn alias(name: &str) -> Alias {
        Alias::new(name).unwrap()
    }

    fn id(name: &str) -> TaskId {
        TaskId::new(name).unwrap()
    }

    fn waiter(lack: &Lack, due: i64, since: i64) -> Waiter {
        let reason = Refusal::UnknownExecutor { executor: "pool".to_owned() };
        Waiter { lack: lack.clone(), reason, due: at(due), revision: 1, since: at(since) }
    }

    fn ids(recalls: &Recalls) -> Vec<&str> {
        recalls.tasks.iter().map(|task| task.id.as_str()).collect()
    }

    #[test]
    fn who_is_due_longest_is_called_first_and_only_by_what_was_lacking() {
        let (room, gone) = (Lack::Room(alias("pool")), Lack::Executor(alias("gpu")));
        let (store, mut list) = (alias("default"), Waitlist::default());
        assert!(list.wait(&store, &id("b"), waiter(&room, 2, 9)));
        assert!(!list.wait(&store, &id("a"), waiter(&room, 1, 9)));
        list.wait(&store, &id("c"), waiter(&room, 3, 9));
        assert!(list.wait(&store, &id("d"), waiter(&gone, 0, 9)));
        assert_eq!((list.len(), list.for_executor(&alias("pool"))), (4, 3));
        assert!(list.call(&room, 2));
        let recalls = list.take_called(&store, 1);
        assert_eq!((ids(&recalls), recalls.rooms.len()), (vec!["a"], 1));
        assert!(list.has_called(&store));
        assert_eq!(ids(&list.take_called(&store, 9)), ["b"]);
        assert!(!list.has_called(&store));
        assert_eq!((list.of(&room), list.of(&gone)), (1, 1));
        // Who was called waits until something is decided about it.
        assert_eq!(list.since(&store, &id("a")), Some(at(9)));
        list.leave(&store, &id("a"));
        assert_eq!(list.since(&store, &id("a")), None);
    }

    #[test]
    fn two_stores_may_have_the_same_id() {
        let (gone, mut list) = (Lack::Executor(alias("gpu")), Waitlist::default());
        for store in ["one", "two"] {
            list.wait(&alias(store), &id("a"), waiter(&gone, 0, 0));
        }
        list.leave(&alias("one"), &id("a"));
        assert!(list.told(&alias("one"), &id("a"), 1).is_none());
        assert!(list.told(&alias("two"), &id("a"), 1).is_some());
        assert!(list.told(&alias("two"), &id("a"), 2).is_none(), "a changed task does not wait");
        assert!(list.forget_store(&alias("two")));
        assert!(list.is_empty() && !list.call(&gone, 9));
        // What was heard of it may be older than its waiting.
        assert_eq!(ids(&list.take_called(&alias("two"), 9)), ["a"]);
        list.wait(&alias("two"), &id("a"), waiter(&gone, 0, 0));
        list.drop_store(&alias("two"));
        assert!(list.is_empty() && !list.has_called(&alias("two")));
    }

    proptest! {
        /// Whatever happens, in whatever order: who waits is called once for each time it began to wait,
        /// and nobody is called who does not wait.
        #[test]
        fn nobody_is_forgotten_and_nobody_is_called_for_nothing(
            steps in prop::collection::vec((0usize..5, 0usize..6, 0usize..2, 0usize..4), 0..200)
        ) {
            let lacks = [Lack::Executor(alias("x")), Lack::Room(alias("x")), Lack::Handler("x".to_owned())];
            let stores = [alias("one"), alias("two")];
            let mut list = Waitlist::default();
            // What each waits for, and whether it has been called.
            let mut model: BTreeMap<(usize, usize), (usize, bool)> = BTreeMap::new();
            for (step, name, store, number) in steps {
                let key = (store, name);
                let name = id(&name.to_string());
                match step {
                    0 | 1 => {
                        let lack = number % 3;
                        list.wait(&stores[store], &name, waiter(&lacks[lack], number as i64, 0));
                        model.insert(key, (lack, false));
                    }
                    2 => {
                        list.leave(&stores[store], &name);
                        model.remove(&key);
                    }
                    3 => {
                        list.call(&lacks[number % 3], number);
                        for (store, alias) in stores.iter().enumerate() {
                            for deferral in list.take_called(alias, 99).tasks {
                                let key = (store, deferral.id.as_str().parse().unwrap());
                                let there = model.get_mut(&key);
                                prop_assert!(there.is_some(), "{key:?} does not wait");
                                let (lack, called) = there.unwrap();
                                prop_assert!(*lack == number % 3 && !*called);
                                *called = true;
                            }
                        }
                    }
                    _ => {
                        list.drop_store(&stores[store]);
                        model.retain(|(other, _), _| *other != store);
                    }
                }
                prop_assert_eq!(list.len(), model.len());
                for (lack, name) in lacks.iter().enumerate() {
                    let waiting = model.values().filter(|(its, called)| *its == lack && !called).count();
                    prop_assert_eq!(list.of(name), waiting);
                }
            }
        }
    }
}
