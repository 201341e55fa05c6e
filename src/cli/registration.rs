//! The tasks of the configuration become those of the stores: what one task lacks keeps no other
//! from running, and what cannot be read stays as it is.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use futures::StreamExt;
use futures::stream;

use super::exit::{Exit, Failure};
use crate::Error;
use crate::clock::Clock;
use crate::config::{Problem, Settings, TaskSettings};
use crate::scheduler::Handle;
use crate::scheduler::message::{DeleteTask, MoveTask};
use crate::task::{Alias, TaskId, TaskInfo, TaskQuery};
use crate::trigger::Context;

/// How many requests are under way at once: durable stores write those together.
const AT_ONCE: usize = 256;

/// What is known of the stores and the tasks of the configuration, from one look to the next.
pub(super) struct Registration {
    handle: Handle,
    settings: Rc<Settings>,
    /// The tasks of the configuration, by id.
    listed: BTreeMap<TaskId, usize>,
    /// Whether there is a file: without one nothing is known about what has left it.
    from_file: bool,
    /// Tasks that are not registered yet.
    outstanding: BTreeSet<TaskId>,
    /// Stores that have not been compared with the configuration yet. None of their runs begin: a
    /// task that has left the configuration does not run again.
    held: BTreeSet<Alias>,
    /// Those that have been.
    compared: BTreeSet<Alias>,
}

/// What registration has done, and what it has left.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// The tasks of all stores that are open, those to be added included.
    pub(super) tasks: usize,
    /// Those that were there before.
    pub(super) kept: usize,
    pub(super) removed: Vec<String>,
    /// What was moved to another store, or was in two.
    pub(super) moved: Vec<String>,
    /// Tasks that are not there and whose time is over.
    pub(super) over: Vec<String>,
    /// Tasks that something is wrong with.
    pub(super) left_out: Vec<LeftOut>,
    /// How many tasks that are not there yet run first at places of their own.
    pub(super) spread: usize,
    /// How many tasks wait for a store that is down.
    pub(super) waiting: BTreeMap<Alias, usize>,
    /// What the configuration says and is ignored.
    pub(super) ignored: Vec<String>,
    pub(super) warnings: Vec<String>,
}

/// A task that is not registered, as far as can be done.
#[derive(Debug)]
pub(super) struct LeftOut {
    pub(super) id: TaskId,
    pub(super) problem: Problem,
    exit: Exit,
}

/// What came of adding tasks.
#[derive(Debug, Default)]
pub(super) struct Added {
    /// Those that something is wrong with.
    pub(super) left_out: Vec<LeftOut>,
    /// What the configuration says of tasks that are there, and is ignored.
    pub(super) ignored: Vec<String>,
}

impl Changes {
    /// Whether there is nothing to tell.
    pub(super) fn is_empty(&self) -> bool {
        self.removed.is_empty()
            && self.moved.is_empty()
            && self.left_out.is_empty()
            && self.ignored.is_empty()
    }

    /// For whoever wants all or nothing: what is missing.
    pub(super) fn strictly(&self, settings: &Settings) -> Result<(), Failure> {
        let mut problems: Vec<_> = self.left_out.iter().map(|left| left.problem.clone()).collect();
        let mut exit = self.left_out.first().map(|left| left.exit);
        for over in &self.over {
            exit.get_or_insert(Exit::Invalid);
            let task = settings.tasks.iter().find(|task| task.id().as_str() == over);
            problems
                .extend(task.map(|task| task.problem("its time is over; take it out, or give it another")));
        }
        match exit {
            None => Ok(()),
            Some(exit) => Err(Failure::new(exit, settings.refuse(problems))),
        }
    }
}

/// A copy of a task in a store, and where it goes.
struct Move {
    id: TaskId,
    from: Alias,
    to: Alias,
}

/// What is to be done, in this order.
#[derive(Default)]
struct Steps {
    remove: Vec<(TaskId, Alias)>,
    moves: Vec<Move>,
    change: Vec<usize>,
    add: Vec<usize>,
}

impl Registration {
    pub(super) fn new(handle: Handle, settings: Rc<Settings>, from_file: bool) -> Self {
        let listed: BTreeMap<TaskId, usize> =
            settings.tasks.iter().enumerate().map(|(at, task)| (task.id().clone(), at)).collect();
        let outstanding = listed.keys().cloned().collect();
        Self {
            handle,
            settings,
            listed,
            from_file,
            outstanding,
            held: BTreeSet::new(),
            compared: BTreeSet::new(),
        }
    }

    /// What has to be done before any task may run: what has left the configuration goes, what names
    /// another store moves there, what is different changes. The answer has also what is to be added,
    /// which runs need not wait for.
    ///
    /// `unreadable` are the tasks whose records cannot be read, and where these are.
    pub(super) async fn prepare(
        &mut self,
        unreadable: &BTreeMap<String, Alias>,
    ) -> Result<(Changes, Vec<usize>), Failure> {
        let mut changes = Changes::default();
        let (stored, open) = self.look().await?;
        let Steps { remove, moves, change, add } = self.compare(&stored, &open, unreadable, &mut changes);
        changes.kept = stored.len() - remove.len();
        changes.tasks = changes.kept + add.len();

        let handle = &self.handle;
        let removed = stream::iter(remove).map(|(id, store)| async move {
            let deleted = handle.send(DeleteTask::new(id.clone()).store(store)).await;
            (id, deleted.and_then(|deleted| deleted))
        });
        let removed: Vec<_> = removed.buffer_unordered(AT_ONCE).collect().await;
        let moved = stream::iter(moves).map(|Move { id, from, to }| async move {
            let request = MoveTask::new(id.clone(), to).store(from);
            (id, handle.send(request).await.and_then(|moved| moved.map(drop)))
        });
        let moved: Vec<_> = moved.buffer_unordered(AT_ONCE).collect().await;
        let settings = self.settings.clone();
        let (mut troubled, mut failed) = (BTreeSet::new(), BTreeSet::new());
        for (id, result) in removed.into_iter().chain(moved) {
            match result {
                Ok(()) => {}
                // Somebody was faster.
                Err(Error::UnknownTask(_)) => {}
                Err(error) => {
                    if let Error::Store { store, source } = &error
                        && source.is_retryable()
                    {
                        failed.insert(store.clone());
                    }
                    troubled.insert(id.clone());
                    changes.left_out.push(self.left_out(id, error));
                }
            }
        }
        // What ought to be gone from it may be there still.
        for store in failed {
            self.handle.pause_store(store.as_str()).await?;
            self.held.insert(store);
        }
        let well = |at: &usize| !troubled.contains(settings.tasks[*at].id());
        let change: Vec<_> = change.into_iter().filter(well).collect();
        let unchanged: Vec<_> = stored
            .iter()
            .filter(|info| TaskSettings::is_from_file(&info.spec.userdata) && open.contains(&info.store))
            .filter_map(|info| self.listed.get(info.id()).copied())
            .filter(|at| well(at) && !change.contains(at))
            .map(|at| settings.tasks[at].id().clone())
            .collect();
        let add: Vec<_> = add.into_iter().filter(well).collect();
        let Added { left_out, ignored } = self.add(change).await;
        changes.left_out.extend(left_out);
        changes.ignored.extend(ignored);
        for id in unchanged {
            self.outstanding.remove(&id);
        }
        Ok((changes, add))
    }

    /// Adds tasks, or changes those that are there.
    pub(super) async fn add(&mut self, tasks: Vec<usize>) -> Added {
        let (handle, settings) = (&self.handle, &self.settings);
        let added = stream::iter(tasks).map(|at| async move {
            let task = &settings.tasks[at];
            (task.id().clone(), handle.register(task.task()).await)
        });
        let added: Vec<_> = added.buffer_unordered(AT_ONCE).collect().await;
        let Added { mut left_out, mut ignored } = Added::default();
        for (id, result) in added {
            match result {
                Ok(added) => {
                    self.outstanding.remove(&id);
                    // What else the configuration says in vain is told once, and not at every edit.
                    let told = added.kept.iter().filter(|kept| kept.option == "timezone");
                    ignored.extend(told.map(|kept| format!("task {id}: timezone: {}", kept.reason)));
                }
                Err(error) => left_out.push(self.left_out(id, error)),
            }
        }
        left_out.sort_by_key(|left| left.problem.line);
        ignored.sort();
        Added { left_out, ignored }
    }

    /// Looks again after a store or a record works again: registers what could not be before.
    pub(super) async fn again(&mut self, unreadable: &BTreeMap<String, Alias>) -> Result<Changes, Failure> {
        let (mut changes, add) = self.prepare(unreadable).await?;
        self.release().await?;
        let Added { left_out, ignored } = self.add(add).await;
        changes.left_out.extend(left_out);
        changes.ignored.extend(ignored);
        Ok(changes)
    }

    /// Lets the tasks of stores run that have been compared with the configuration.
    pub(super) async fn release(&mut self) -> Result<(), Failure> {
        for status in self.handle.status().await?.stores {
            if status.paused && status.problem.is_none() && !self.held.contains(&status.alias) {
                self.handle.resume_store(status.alias.as_str()).await?;
            }
        }
        Ok(())
    }

    /// Whether a store or a record that works again may let a task be registered, or may hold one that
    /// has left the configuration.
    pub(super) fn is_incomplete(&self) -> bool {
        !self.held.is_empty() || !self.outstanding.is_empty()
    }

    /// The tasks of the stores that are open; the others are held until they are.
    async fn look(&mut self) -> Result<(Vec<TaskInfo>, BTreeSet<Alias>), Failure> {
        let (mut stored, mut open) = (Vec::new(), BTreeSet::new());
        for store in self.handle.status().await?.stores {
            let tasks = match store.problem {
                None => self.handle.tasks(TaskQuery::new().store(store.alias.as_str())).await.ok(),
                Some(_) => None,
            };
            match tasks {
                Some(tasks) => {
                    stored.extend(tasks);
                    self.held.remove(&store.alias);
                    self.compared.insert(store.alias.clone());
                    open.insert(store.alias);
                }
                None if self.held.contains(&store.alias) || self.compared.contains(&store.alias) => {}
                None => {
                    self.handle.pause_store(store.alias.as_str()).await?;
                    self.held.insert(store.alias);
                }
            }
        }
        Ok((stored, open))
    }

    fn compare(
        &self,
        stored: &[TaskInfo],
        open: &BTreeSet<Alias>,
        unreadable: &BTreeMap<String, Alias>,
        changes: &mut Changes,
    ) -> Steps {
        let mut steps = Steps::default();
        let mut copies: HashMap<&TaskId, Vec<&TaskInfo>> = HashMap::new();
        let mut others: HashMap<&TaskId, Vec<&Alias>> = HashMap::new();
        for info in stored {
            match TaskSettings::is_from_file(&info.spec.userdata) {
                true => copies.entry(info.id()).or_default().push(info),
                false => others.entry(info.id()).or_default().push(&info.store),
            }
        }
        for (id, copies) in &copies {
            if !self.listed.contains_key(*id) {
                self.unlisted(copies, &mut steps, changes);
            }
        }
        let (now, zones) = (Clock::system().now(), super::time::rules());
        for (id, at) in self.listed.iter().filter(|(id, _)| self.outstanding.contains(*id)) {
            let task = &self.settings.tasks[*at];
            let named = task.store(&self.settings);
            let copies = copies.get(id).map_or(&[][..], Vec::as_slice);
            if self.settings.stores.contains_key(&named) && !open.contains(&named) {
                *changes.waiting.entry(named).or_default() += 1;
                continue;
            }
            if !open.contains(&named) {
                let known = self.settings.stores.keys().map(Alias::to_string).collect();
                let error = Error::UnknownStore { alias: named.to_string(), known };
                changes.left_out.push(self.left_out(id.clone(), error));
                continue;
            }
            let elsewhere = unreadable.get(id.as_str()).filter(|store| **store != named);
            if let Some(store) = elsewhere.filter(|_| copies.is_empty()) {
                let problem = task.problem(format!(
                    "its record in store {store} cannot be read, so it cannot be moved to store {named}; see \
                     `callboard store check --store {store}`"
                ));
                changes.left_out.push(LeftOut { id: id.clone(), problem, exit: Exit::Damaged });
                continue;
            }
            if let Some(other) =
                others.get(id).and_then(|stores| stores.iter().find(|store| ***store != named))
            {
                changes.warnings.push(format!(
                    "task {id}: store {other} has another task of this id, which is not of the configuration"
                ));
            }
            let Some(kept) = self.settle_copies(id, copies, &named, &mut steps, changes) else {
                match task.is_over(&self.settings, now, &zones)
                    && !others.get(id).is_some_and(|s| s.contains(&&named))
                {
                    true => changes.over.push(id.to_string()),
                    false => {
                        self.warn(task, changes);
                        changes.ignored.extend(task.unheeded(None));
                        changes.spread += usize::from(task.is_spread());
                        steps.add.push(*at);
                    }
                }
                continue;
            };
            self.warn(task, changes);
            if task.spec(&self.settings).map_or(true, |spec| spec != *kept.spec) {
                changes.ignored.extend(task.unheeded(Some(kept)));
                steps.change.push(*at);
            }
        }
        changes.removed.sort();
        steps
    }

    /// A task of the configuration as it was that is not in it.
    fn unlisted(&self, copies: &[&TaskInfo], steps: &mut Steps, changes: &mut Changes) {
        if self.from_file {
            changes.removed.extend(copies.first().map(|info| info.id().to_string()));
            steps.remove.extend(copies.iter().map(|info| (info.id().clone(), info.store.clone())));
            return;
        }
        // A move between stores was cut off: what happened last counts.
        let Some(best) = latest(copies) else { return };
        for copy in copies.iter().filter(|copy| copy.store != best.store && same(copy, best)) {
            let (id, store) = (copy.id(), &copy.store);
            changes
                .moved
                .push(format!("task {id}: it was in store {store} as well, and stays in {}", best.store));
            steps.remove.push((id.clone(), store.clone()));
        }
    }

    /// Of the copies of a task one is to be left, in the store that it names. Answers with it as it is.
    fn settle_copies<'a>(
        &self,
        id: &TaskId,
        copies: &[&'a TaskInfo],
        named: &Alias,
        steps: &mut Steps,
        changes: &mut Changes,
    ) -> Option<&'a TaskInfo> {
        let there = copies.iter().find(|copy| copy.store == *named).copied();
        // Copies of one task differ by a move that was cut off; the rest are strangers.
        let kin: Vec<_> =
            copies.iter().filter(|copy| there.is_none_or(|there| same(copy, there))).copied().collect();
        let best = latest(&kin)?;
        for copy in copies.iter().filter(|copy| copy.store != *named) {
            let from = &copy.store;
            if copy.store == best.store {
                changes.moved.push(format!("task {id}: moved from store {from} to store {named}"));
                let (id, from, to) = (id.clone(), from.clone(), named.clone());
                steps.moves.push(Move { id, from, to });
            } else {
                changes
                    .moved
                    .push(format!("task {id}: it was in store {from} as well, and stays in {named}"));
                steps.remove.push((id.clone(), from.clone()));
            }
        }
        Some(best)
    }

    fn warn(&self, task: &TaskSettings, changes: &mut Changes) {
        let zone = task.timezone().unwrap_or(self.settings.timezone);
        let zones = super::time::rules();
        let cx = Context::new(zone, Clock::system().now(), task.id().as_str()).with_zones(&zones);
        let warnings = task.trigger().warnings(&cx);
        changes.warnings.extend(warnings.iter().map(|warning| format!("task {}: {warning}", task.id())));
    }

    fn left_out(&self, id: TaskId, error: Error) -> LeftOut {
        let Failure { exit, message } = Failure::from(error);
        let problem = match self.listed.get(&id) {
            Some(at) => self.settings.tasks[*at].problem(message),
            None => Problem { line: None, key: format!("task.{id}"), message },
        };
        LeftOut { id, problem, exit }
    }
}

/// Whether two copies are of one task, which was added once.
fn same(a: &TaskInfo, b: &TaskInfo) -> bool {
    a.state.created_at == b.state.created_at
}

/// The copy that has come farthest.
fn latest<'a>(copies: &[&'a TaskInfo]) -> Option<&'a TaskInfo> {
    copies.iter().copied().max_by_key(|copy| (copy.state.revision, copy.state.modified_at))
}
