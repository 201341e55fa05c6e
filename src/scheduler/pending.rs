//! Tasks that wait for the start.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::actor::{Scheduler, Settings};
use super::plan;
use crate::error::Error;
use crate::task::{Alias, StoredTask, Task, TaskChanges, TaskId, TaskInfo};

/// A task that waits for the start.
#[derive(Clone)]
pub(super) struct Pending {
    pub task: Task,
    /// When it was added: its schedule counts from then.
    pub since: DateTime<Utc>,
    /// Whether an earlier start may have put it into its store and not heard so.
    pub perhaps_there: bool,
    /// Whether it could not be committed: it is not tried again before its store is opened again,
    /// the next start, or a change of it.
    pub left_out: bool,
    /// Another one after each change.
    edition: u64,
}

/// What a waiting task is found by.
type Name = (Alias, TaskId);

/// The waiting tasks, in the order in which they were added, found by store and id.
#[derive(Default)]
pub(super) struct PendingTasks {
    by_name: HashMap<Name, u64>,
    in_order: BTreeMap<u64, Pending>,
    serial: u64,
    editions: u64,
}

impl PendingTasks {
    pub(super) fn len(&self) -> usize {
        self.in_order.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Pending> {
        self.in_order.values()
    }

    fn put(&mut self, serial: u64, pending: Pending) {
        self.editions += 1;
        self.in_order.insert(serial, Pending { edition: self.editions, left_out: false, ..pending });
    }

    /// One could not be committed. If it was changed meanwhile, it is tried as it is now.
    pub(super) fn leave_out(&mut self, serial: u64, committed: &Pending) -> Option<TaskId> {
        let pending = self.in_order.get_mut(&serial)?;
        pending.left_out = pending.edition == committed.edition;
        pending.task.id.clone()
    }

    /// Tries those again that could not be committed: all, or those of a store.
    pub(super) fn try_again(&mut self, store: Option<&Alias>) {
        for ((alias, _), serial) in &self.by_name {
            if store.is_none_or(|store| store == alias)
                && let Some(pending) = self.in_order.get_mut(serial)
            {
                pending.left_out = false;
            }
        }
    }

    /// Takes one out that was committed. If it was changed meanwhile, it waits on as it is now.
    fn take(&mut self, serial: u64, committed: &Pending, name: &Name) {
        if self.in_order.get(&serial).is_some_and(|pending| pending.edition == committed.edition) {
            self.in_order.remove(&serial);
            if self.by_name.get(name) == Some(&serial) {
                self.by_name.remove(name);
            }
        }
    }

    /// Forgets the one of this name.
    pub(super) fn forget(&mut self, store: &Alias, id: &TaskId) -> bool {
        let serial = self.by_name.remove(&(store.clone(), id.clone()));
        serial.is_some_and(|serial| self.in_order.remove(&serial).is_some())
    }

    /// Drops the tasks of a store, or all; says how many there were.
    pub(super) fn clear(&mut self, store: Option<&Alias>) -> usize {
        let before = self.in_order.len();
        let Self { by_name, in_order, .. } = self;
        by_name.retain(|(alias, _), serial| {
            let stays = store.is_some_and(|store| store != alias);
            if !stays {
                in_order.remove(serial);
            }
            stays
        });
        before - in_order.len()
    }
}

impl Scheduler {
    /// The first task that can be committed: not one of a store that is not open.
    pub(super) fn first_pending(&self) -> Option<u64> {
        let ready = |pending: &Pending| {
            let store = pending.task.store.as_ref().unwrap_or(&self.settings.defaults.store);
            let slot = self.estate.stores.get(store);
            !pending.left_out && slot.is_none_or(|slot| slot.addr.is_some())
        };
        let mut waiting = self.estate.pending.in_order.iter();
        waiting.find(|(_, pending)| ready(pending)).map(|(serial, _)| *serial)
    }

    /// The first task that can be committed, which is begun with.
    pub(super) fn begin_pending(&mut self) -> Option<(u64, Pending)> {
        let serial = self.first_pending()?;
        let pending = self.estate.pending.in_order.get_mut(&serial)?;
        let begun = pending.clone();
        pending.perhaps_there = true;
        Some((serial, begun))
    }

    /// A waiting task is in its store.
    pub(super) fn no_longer_waits(&mut self, serial: u64, committed: &Pending) {
        let store = committed.task.store.as_ref().unwrap_or(&self.settings.defaults.store);
        if let Some(id) = &committed.task.id {
            self.estate.pending.take(serial, committed, &(store.clone(), id.clone()));
        }
    }

    /// The waiting task of this id, in the store or in any.
    fn waiting(&self, id: &TaskId, store: Option<&Alias>) -> Result<(Alias, u64), Error> {
        let found = |alias: &Alias| {
            let serial = self.estate.pending.by_name.get(&(alias.clone(), id.clone()))?;
            Some((alias.clone(), *serial))
        };
        let found = match store {
            Some(store) if !self.estate.stores.contains_key(store) => return Err(self.unknown_store(store)),
            Some(store) => found(store),
            None => {
                let default = &self.settings.defaults.store;
                found(default).or_else(|| self.estate.stores.keys().find_map(found))
            }
        };
        found.ok_or_else(|| Error::UnknownTask(id.clone()))
    }

    /// Lets a task wait. What can be known before the start is said now.
    pub(super) fn wait_for_start(&mut self, task: Task, since: DateTime<Utc>) -> Result<TaskId, Error> {
        let pending = Pending { task, since, perhaps_there: false, left_out: false, edition: 0 };
        let info = self.checked(&pending)?;
        let name = (info.store.clone(), info.id().clone());
        let waiting = &mut self.estate.pending;
        let serial = match waiting.by_name.get(&name) {
            Some(serial) if pending.task.replace_existing => *serial,
            Some(_) => return Err(Error::TaskExists(name.1)),
            None => {
                waiting.serial += 1;
                waiting.serial
            }
        };
        waiting.by_name.insert(name, serial);
        waiting.put(serial, pending);
        Ok(info.id().clone())
    }

    /// The snapshot of a task, if it could be committed as far as can be told.
    fn checked(&self, pending: &Pending) -> Result<TaskInfo, Error> {
        let info = pending.info(&self.settings)?;
        self.check_spec(&info.spec, &info.store)?;
        match self.estate.stores.contains_key(&info.store) {
            true => Ok(info),
            false => Err(self.unknown_store(&info.store)),
        }
    }

    /// Changes a waiting task, unless that makes it invalid.
    fn change_waiting(
        &mut self,
        id: &TaskId,
        store: Option<&Alias>,
        change: impl FnOnce(&mut Task),
    ) -> Result<TaskInfo, Error> {
        let (_, serial) = self.waiting(id, store)?;
        let Some(mut pending) = self.estate.pending.in_order.get(&serial).cloned() else {
            return Err(Error::UnknownTask(id.clone()));
        };
        change(&mut pending.task);
        let info = self.checked(&pending)?;
        self.estate.pending.put(serial, pending);
        Ok(info)
    }

    pub(super) fn update_waiting(
        &mut self,
        id: &TaskId,
        store: Option<&Alias>,
        changes: TaskChanges,
    ) -> Result<TaskInfo, Error> {
        self.change_waiting(id, store, |task| task.change(changes))
    }

    pub(super) fn pause_waiting(
        &mut self,
        id: &TaskId,
        store: Option<&Alias>,
        paused: bool,
    ) -> Result<TaskInfo, Error> {
        self.change_waiting(id, store, |task| task.paused = paused)
    }

    pub(super) fn delete_waiting(&mut self, id: &TaskId, store: Option<&Alias>) -> Result<(), Error> {
        let (store, _) = self.waiting(id, store)?;
        self.estate.pending.forget(&store, id);
        self.retire_life(id, &store);
        Ok(())
    }

    pub(super) fn waiting_info(&self, id: &TaskId, store: Option<&Alias>) -> Result<TaskInfo, Error> {
        let (_, serial) = self.waiting(id, store)?;
        match self.estate.pending.in_order.get(&serial) {
            Some(pending) => pending.info(&self.settings),
            None => Err(Error::UnknownTask(id.clone())),
        }
    }
}

impl Pending {
    /// The snapshot of the task as it would be committed.
    pub(super) fn info(&self, settings: &Settings) -> Result<TaskInfo, Error> {
        let Self { task, since, .. } = self;
        let store = task.store.clone().unwrap_or_else(|| settings.defaults.store.clone());
        let (first_run, paused) = (task.first_run, task.paused);
        let mut spec = task.clone().resolve(&settings.defaults, settings.timezone)?;
        spec.trigger = settings.registry.resolve(&spec.trigger)?;
        let (now, zones) = (settings.clock.now(), settings.zones.get());
        let state = plan::add(&spec, first_run, paused, task.spread, (*since, now), &zones)
            .map_err(|error| error.about(&spec.id))?;
        Ok(TaskInfo::new(store, StoredTask { spec: Arc::new(spec), state }, true, 0, &zones))
    }
}
