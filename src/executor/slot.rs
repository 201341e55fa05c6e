//! Who counts the running instances: the one place there is.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::task::{Alias, Overlap, Run, RunId, TaskId, TaskSpec};

/// The runs in flight and, with them, how many there are of each task. An instance is taken with
/// the entry of its run and given back with it, and an entry can be removed once.
#[derive(Default)]
pub(super) struct Instances {
    /// Ids are unique within a store only. There are few stores, so a list will do.
    counts: Vec<(Alias, FxHashMap<TaskId, Tally>)>,
    entries: Vec<Entry>,
    free: Vec<u32>,
}

/// The runs of one task in flight: how many, and the ends of the chain that their entries form in
/// the order in which they were let in.
struct Tally {
    count: u32,
    oldest: u32,
    newest: u32,
}

/// No entry.
const NONE: u32 = u32::MAX;

#[derive(Default)]
struct Entry {
    /// Counts the uses of the place, so that a key of an earlier one opens nothing.
    turn: u32,
    flight: Option<Flight>,
}

struct Flight {
    run: Arc<Run>,
    store: usize,
    /// The runs of the same task that were let in before and after it.
    older: u32,
    newer: u32,
}

/// Names one entry; of no use once the entry has been removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    index: u32,
    turn: u32,
}

impl Instances {
    /// Takes an instance for `run`; `None` when as many as allowed are taken.
    pub(super) fn admit(&mut self, run: &Arc<Run>) -> Option<Key> {
        let store = match self.store(run) {
            Some(store) => store,
            None => {
                self.counts.push((run.store.clone(), FxHashMap::default()));
                self.counts.len() - 1
            }
        };
        let none = || Tally { count: 0, oldest: NONE, newest: NONE };
        let tally = self.counts[store].1.entry(run.task.id.clone()).or_insert_with(none);
        let limited = run.task.overlap != Overlap::Allow && !run.beyond_max_instances;
        if tally.count >= run.task.max_instances && limited {
            if tally.count == 0 {
                self.counts[store].1.remove(&run.task.id);
            }
            return None;
        }
        let flight = Some(Flight { run: run.clone(), store, older: tally.newest, newer: NONE });
        let key = match self.free.pop() {
            Some(index) => {
                let entry = &mut self.entries[index as usize];
                entry.turn = entry.turn.wrapping_add(1);
                entry.flight = flight;
                Key { index, turn: entry.turn }
            }
            None => {
                let index = self.entries.len() as u32;
                self.entries.push(Entry { turn: 0, flight });
                Key { index, turn: 0 }
            }
        };
        tally.count += 1;
        let before = std::mem::replace(&mut tally.newest, key.index);
        match before {
            NONE => tally.oldest = key.index,
            before => self.link(before, |flight| flight.newer = key.index),
        }
        Some(key)
    }

    /// Whether a run of this task would be let in.
    pub(super) fn has_one_for(&self, store: &Alias, task: &TaskSpec) -> bool {
        let tallies = self.counts.iter().find(|(alias, _)| alias == store);
        let count = tallies.and_then(|(_, tallies)| tallies.get(&task.id)).map_or(0, |tally| tally.count);
        task.overlap == Overlap::Allow || count < task.max_instances
    }

    fn store(&self, run: &Run) -> Option<usize> {
        self.counts.iter().position(|(alias, _)| *alias == run.store)
    }

    fn link(&mut self, index: u32, set: impl FnOnce(&mut Flight)) {
        if let Some(flight) = &mut self.entries[index as usize].flight {
            set(flight);
        }
    }

    /// Gives the instance back; `None` when that has been done.
    pub(super) fn give_back(&mut self, key: Key) -> Option<Arc<Run>> {
        let entry = self.entries.get_mut(key.index as usize).filter(|entry| entry.turn == key.turn)?;
        let Flight { run, store, older, newer } = entry.flight.take()?;
        self.free.push(key.index);
        let tallies = &mut self.counts[store].1;
        if let Some(tally) = tallies.get_mut(&run.task.id) {
            tally.count -= 1;
            if tally.count == 0 {
                tallies.remove(&run.task.id);
                return Some(run);
            }
            if older == NONE {
                tally.oldest = newer;
            }
            if newer == NONE {
                tally.newest = older;
            }
        }
        if older != NONE {
            self.link(older, |flight| flight.newer = newer);
        }
        if newer != NONE {
            self.link(newer, |flight| flight.older = older);
        }
        Some(run)
    }

    /// The runs in flight of the task that `run` is of, the one let in first at the beginning.
    pub(super) fn of_task<'a>(&'a self, run: &Run) -> impl Iterator<Item = &'a Arc<Run>> + use<'a> {
        let tally = self.store(run).and_then(|store| self.counts[store].1.get(&run.task.id));
        let mut next = tally.map_or(NONE, |tally| tally.oldest);
        std::iter::from_fn(move || {
            let flight = self.entries.get(next as usize)?.flight.as_ref()?;
            next = flight.newer;
            Some(&flight.run)
        })
    }

    /// How many runs are in flight.
    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// The runs in flight, in no order.
    pub(super) fn runs(&self) -> impl Iterator<Item = &Arc<Run>> {
        self.entries.iter().filter_map(|entry| entry.flight.as_ref()).map(|flight| &flight.run)
    }

    /// The run called `id`, if it is in flight. Looks at all of them: made for the rare request.
    pub(super) fn find(&self, id: RunId) -> Option<&Arc<Run>> {
        self.runs().find(|run| run.id == id)
    }

    /// Gives every instance back.
    pub(super) fn give_all_back(&mut self) -> Vec<Arc<Run>> {
        let keys: Vec<_> =
            (0u32..).zip(&self.entries).map(|(index, entry)| Key { index, turn: entry.turn }).collect();
        keys.into_iter().filter_map(|key| self.give_back(key)).collect()
    }

    /// The tasks with a run in flight, in order, and how many there are. A task's store is named
    /// when more than one store has runs.
    pub(super) fn by_task(&self) -> Vec<(String, u32)> {
        let one_store = self.counts.iter().filter(|(_, counts)| !counts.is_empty()).count() < 2;
        let mut list: Vec<_> = self
            .counts
            .iter()
            .flat_map(|(store, counts)| {
                counts.iter().map(move |(task, tally)| {
                    (if one_store { task.to_string() } else { format!("{store}/{task}") }, tally.count)
                })
            })
            .collect();
        list.sort();
        list
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::task::{Code, OwnerId, Task, TaskContext, TaskDefaults};
    use crate::trigger::Trigger;

    proptest! {
        /// Runs come and go in any order, keys are used again and again: the counts are what a
        /// list of the runs says.
        #[test]
        fn counts_are_what_is_in_flight(steps in prop::collection::vec((0usize..4, any::<bool>(), 0usize..50), 0..200)) {
            let code = Code::from_async(|_: TaskContext, ()| async {});
            let tasks: Vec<_> = (0..4u32)
                .map(|n| {
                    let task = Task::new("x").id(n.to_string()).trigger(Trigger::Shutdown).max_instances(n + 1);
                    Arc::new(task.resolve(&TaskDefaults::default(), crate::trigger::Zone::UTC).unwrap())
                })
                .collect();
            let mut instances = Instances::default();
            let mut flying: Vec<(Key, usize, u64)> = Vec::new();
            let mut landed: Vec<Key> = Vec::new();
            for (serial, (task, come, which)) in steps.into_iter().enumerate() {
                if come {
                    let id = RunId { owner: OwnerId(1), serial: serial as u64 };
                    let run = Run::new(id, tasks[task].clone(), Alias::default_alias(), chrono::DateTime::UNIX_EPOCH, code.clone());
                    let there = flying.iter().filter(|(_, other, _)| *other == task).count();
                    match instances.admit(&Arc::new(run)) {
                        Some(key) => {
                            prop_assert!(there <= task);
                            flying.push((key, task, serial as u64));
                        }
                        None => prop_assert_eq!(there, task + 1),
                    }
                } else if !flying.is_empty() {
                    let (key, task, _) = flying.swap_remove(which % flying.len());
                    let run = instances.give_back(key);
                    prop_assert_eq!(run.map(|run| run.task.id.to_string()), Some(task.to_string()));
                    landed.push(key);
                }
                for key in &landed {
                    prop_assert!(instances.give_back(*key).is_none());
                }
                prop_assert_eq!(instances.len(), flying.len());
                for (task, spec) in tasks.iter().enumerate() {
                    let id = RunId { owner: OwnerId(1), serial: 0 };
                    let like = Run::new(id, spec.clone(), Alias::default_alias(), chrono::DateTime::UNIX_EPOCH, code.clone());
                    let mut there: Vec<_> = flying.iter().filter(|(_, other, _)| *other == task).map(|(.., serial)| *serial).collect();
                    there.sort();
                    prop_assert_eq!(instances.of_task(&like).map(|run| run.id.serial).collect::<Vec<_>>(), there);
                }
                for (task, count) in instances.by_task() {
                    let there = flying.iter().filter(|(_, other, _)| other.to_string() == task).count();
                    prop_assert_eq!(there, count as usize);
                }
            }
            prop_assert_eq!(instances.give_all_back().len(), flying.len());
            prop_assert!(instances.by_task().is_empty());
        }
    }
}
