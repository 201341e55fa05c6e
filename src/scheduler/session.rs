//! Changes to one task: read, decide, write if nobody else did meanwhile, or start again.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};

use super::actor::Settings;
use super::plan::PlanError;
use super::why;
use crate::error::Error;
use crate::store::message::{Change, Commit, Delete, Expect, Get, Put, Then};
use crate::store::{StoreAddr, StoreError};
use crate::task::{Alias, RunId, StoredTask, TaskId, TaskSpec};
use crate::timer;

/// How often a change is tried against a task that others keep changing.
const TRIES: usize = 100;

/// The answer of a store, or an error when it takes longer than a store may.
pub(super) fn within<T>(
    settings: &Settings,
    answer: impl Future<Output = Result<T, StoreError>> + 'static,
) -> impl Future<Output = Result<T, StoreError>> + 'static {
    within_time(settings, settings.store_deadline, answer)
}

/// The same, of one that may take another time.
pub(super) fn within_time<T>(
    settings: &Settings,
    deadline: Duration,
    answer: impl Future<Output = Result<T, StoreError>> + 'static,
) -> impl Future<Output = Result<T, StoreError>> + 'static {
    let clock = settings.clock.clone();
    async move {
        let answer = Box::pin(answer);
        match select(answer, Box::pin(async move { timer::sleep_as_limit(&clock, deadline).await })).await {
            Either::Left((answer, _)) => answer,
            Either::Right(_) => Err(StoreError::unavailable(format!(
                "it did not answer within {} s; when it is only slow, give it more with `store_deadline`",
                deadline.as_secs()
            ))),
        }
    }
}

/// The stores a message may concern, to be asked in order.
pub(super) struct Session {
    pub stores: Vec<(Alias, StoreAddr)>,
    /// The trouble with a store that cannot be asked.
    pub down: Option<Error>,
    pub settings: Arc<Settings>,
    /// For the record of run times that a change passes over.
    pub skipping: RunId,
}

/// What a change comes to.
pub(super) enum Decision {
    /// This takes the task's place.
    Put(Arc<TaskSpec>, crate::task::TaskState),
    /// Only the state changes.
    State(crate::task::TaskState),
    /// The task goes.
    Remove,
    /// All is as it should be.
    Nothing,
}

impl From<Then> for Decision {
    fn from(then: Then) -> Self {
        match then {
            Then::State(state) => Self::State(state),
            Then::Task(StoredTask { spec, state }) => Self::Put(spec, state),
            Then::Remove => Self::Remove,
        }
    }
}

/// Why a change was not carried out, as far as is known.
pub(super) struct Unchanged {
    pub error: Error,
    /// The task, when the store was told to remove it and did not answer.
    pub removing: Option<TaskId>,
}

impl From<Error> for Unchanged {
    fn from(error: Error) -> Self {
        Self { error, removing: None }
    }
}

/// What a change has done.
pub(super) struct Changed {
    pub store: Alias,
    pub id: TaskId,
    /// The task as it is now; `None` when it was removed.
    pub task: Option<StoredTask>,
    /// Whether anything was written.
    pub written: bool,
    /// Whether that was the end of its schedule.
    pub finished: bool,
}

impl Settings {
    /// A stored task whose trigger has the implementations of its custom parts, as far as they are
    /// registered here.
    pub(super) fn resolved(&self, task: StoredTask) -> StoredTask {
        if task.spec.trigger.is_resolved() {
            return task;
        }
        match self.registry.resolve(&task.spec.trigger) {
            Ok(trigger) => {
                let spec = TaskSpec { trigger, ..(*task.spec).clone() };
                StoredTask { spec: Arc::new(spec), state: task.state }
            }
            // Whoever asks it for its next run is told what is missing.
            Err(_) => task,
        }
    }
}

impl Session {
    /// The task, and where it is. A store that does not answer matters only when no other has it.
    pub(super) async fn find(&self, id: &TaskId) -> Result<(Alias, StoreAddr, StoredTask), Error> {
        let mut trouble = self.down.clone();
        for (alias, addr) in &self.stores {
            match within(&self.settings, addr.get(Get { id: id.clone() })).await {
                Ok(Some(task)) => {
                    return Ok((alias.clone(), addr.clone(), self.settings.resolved(task)));
                }
                Ok(None) => {}
                Err(error) => {
                    trouble.get_or_insert(Error::store(alias, error));
                }
            }
        }
        Err(trouble.unwrap_or_else(|| Error::UnknownTask(id.clone())))
    }

    /// Changes a task as `decide` says. When somebody changes it meanwhile, `decide` is asked again
    /// about the newer task.
    pub(super) async fn change(
        &self,
        id: &TaskId,
        decide: impl Fn(&StoredTask) -> Result<Decision, Error>,
    ) -> Result<Changed, Unchanged> {
        let mut latest = None;
        for _ in 0..TRIES {
            let (store, addr, task) = self.find(id).await?;
            let was_finished = task.is_finished();
            let (then, task) = match decide(&task)? {
                Decision::Nothing => {
                    return Ok(Changed {
                        store,
                        id: id.clone(),
                        task: Some(task),
                        written: false,
                        finished: false,
                    });
                }
                Decision::Remove => (Then::Remove, task),
                Decision::State(state) => (Then::State(state), task),
                Decision::Put(spec, state) => (Then::Task(StoredTask { spec, state }), task),
            };
            let after = match &then {
                Then::State(state) => Some(StoredTask { spec: task.spec.clone(), state: state.clone() }),
                Then::Task(after) => Some(after.clone()),
                Then::Remove => None,
            };
            match self.write(&addr, &task, then, after.as_ref()).await {
                Ok(()) => {
                    let finished = !was_finished && after.as_ref().is_some_and(StoredTask::is_finished);
                    return Ok(Changed { store, id: id.clone(), task: after, written: true, finished });
                }
                Err(error @ StoreError::Changed(_)) => latest = Some(Error::store(&store, error)),
                Err(error) => {
                    let removing = (after.is_none() && error.is_retryable()).then(|| id.clone());
                    return Err(Unchanged { error: Error::store(&store, error), removing });
                }
            }
        }
        Err(latest.unwrap_or_else(|| Error::UnknownTask(id.clone())).into())
    }

    /// Writes what becomes of a task, and with it a record of the run times that pass over by it.
    async fn write(
        &self,
        addr: &StoreAddr,
        before: &StoredTask,
        then: Then,
        after: Option<&StoredTask>,
    ) -> Result<(), StoreError> {
        let (id, revision) = (before.spec.id.clone(), before.state.revision);
        let now = self.settings.clock.now();
        let skipped = why::passed_over(
            before,
            after.map(|after| &after.state),
            now,
            self.skipping,
            &self.settings.zones.get(),
        );
        match (skipped, after) {
            (Some(skipped), _) => {
                let change = Change { id: id.clone(), revision, then, runs: vec![skipped] };
                let commit = Commit { changes: vec![change] };
                let committed = within(&self.settings, addr.commit(commit)).await?;
                if committed.refused.is_empty() { Ok(()) } else { Err(StoreError::Changed(id)) }
            }
            (None, Some(after)) => self.put(addr, after.clone(), Expect::Revision(revision)).await,
            (None, None) => {
                let delete = Delete { id, revision: Some(revision) };
                within(&self.settings, addr.delete(delete)).await.map(drop)
            }
        }
    }

    pub(super) async fn put(
        &self,
        addr: &StoreAddr,
        task: StoredTask,
        expect: Expect,
    ) -> Result<(), StoreError> {
        within(&self.settings, addr.put(Put { task, expect })).await
    }
}

impl PlanError {
    /// The error for the user, about a task.
    pub(super) fn about(self, id: &TaskId) -> Error {
        match self {
            Self::Task(error) => error.into(),
            Self::Search(source) => Error::Search { id: id.clone(), source },
        }
    }
}
