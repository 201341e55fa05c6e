//! Tasks that are due and cannot run: told apart before anything is decided, put off in their stores, and
//! called back when what they wait for is there.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use chrono::{DateTime, TimeDelta, Utc};
use futures::FutureExt;
use futures::future::join_all;

use super::actor::Scheduler;
use super::slot::StoreSlot;
use super::waitlist::{Lack, Waiter};
use crate::executor::ExecutorAddr;
use crate::executor::message::{Reserve, Reserved, Seats, Vacant};
use crate::store::message::{Deferral, Until};
use crate::task::{Alias, Handler as TaskHandler, Refusal, StoredTask, TaskInfo, TaskSpec};

/// How long a run waits in a shared store, unless the builder says otherwise.
const UNROUTABLE_AFTER: Duration = Duration::from_secs(600);

/// How soon an executor is asked again that did not answer, and of whose end nobody has told.
const ASK_AGAIN: TimeDelta = TimeDelta::seconds(1);

/// Why a task cannot run.
#[derive(Debug, Clone)]
pub(super) struct Want {
    pub lack: Lack,
    pub reason: Refusal,
    /// When it is worth while to look again, if nobody will tell.
    pub again: Option<DateTime<Utc>>,
    /// What had been told of the executor's room when it said that it has none.
    pub news: Option<u64>,
}

/// What executors were asked for the tasks of a batch.
struct Asked {
    executor: Alias,
    /// Which tasks, by their index in the batch.
    tasks: Vec<usize>,
    /// What was known of its room then.
    news: u64,
    answer: Result<Reserved, MailboxError>,
}

/// What executors have room for.
#[derive(Default)]
pub(super) struct Booking {
    /// The tasks for which there is no room, by their index in the batch.
    pub short: HashMap<usize, Want>,
    pub seats: BTreeMap<Alias, Seats>,
}

impl Scheduler {
    /// Why a run of a task cannot even be handed to an executor.
    pub(super) fn want(&self, spec: &TaskSpec) -> Option<Want> {
        let want = |lack, reason| Some(Want { lack, reason, again: None, news: None });
        if let TaskHandler::Named(name) = &spec.handler
            && self.code(name).is_none()
        {
            let handler = name.to_string();
            return want(Lack::Handler(handler.clone()), Refusal::UnknownHandler { handler });
        }
        let (lack, executor) = (Lack::Executor(spec.executor.clone()), spec.executor.to_string());
        match self.estate.executors.get(&spec.executor) {
            None => want(lack, Refusal::UnknownExecutor { executor }),
            Some(slot) => {
                let reason = slot.problem.clone()?;
                want(lack, Refusal::ExecutorUnavailable { executor, reason })
            }
        }
    }

    /// Asks the bounded executors for room for a batch; `None` when there is nobody to ask.
    pub(super) fn book(
        &self,
        store: &Alias,
        tasks: &[StoredTask],
    ) -> Option<impl Future<Output = Booking> + use<>> {
        if !self
            .estate
            .executors
            .values()
            .any(|slot| slot.addr.as_ref().is_some_and(ExecutorAddr::is_bounded))
        {
            return None;
        }
        let mut groups: BTreeMap<&Alias, Vec<usize>> = BTreeMap::new();
        for (index, task) in tasks.iter().enumerate() {
            let slot = self.estate.executors.get(&task.spec.executor);
            let bounded = slot.and_then(|slot| slot.addr.as_ref()).is_some_and(ExecutorAddr::is_bounded);
            if bounded && self.want(&task.spec).is_none() {
                groups.entry(&task.spec.executor).or_default().push(index);
            }
        }
        if groups.is_empty() {
            return None;
        }
        let mut asked = Vec::with_capacity(groups.len());
        for (executor, indices) in groups {
            let specs =
                indices.iter().filter_map(|index| Some((store.clone(), tasks.get(*index)?.spec.clone())));
            let Some(answer) = self.reserve(executor, specs.collect()) else { continue };
            let (executor, news) = (executor.clone(), self.estate.waitlist.news(executor));
            asked.push(answer.map(move |answer| Asked { executor, tasks: indices, news, answer }));
        }
        let now = self.clock().clone();
        Some(async move { booking(join_all(asked).await, now.now()) })
    }

    /// Asks an executor for a place for each of these tasks.
    pub(super) fn reserve(
        &self,
        executor: &Alias,
        tasks: Vec<(Alias, Arc<TaskSpec>)>,
    ) -> Option<impl Future<Output = Result<Reserved, MailboxError>> + use<>> {
        let addr = self.estate.executors.get(executor)?.addr.as_ref()?;
        let others = self.estate.waitlist.of(&Lack::Room(executor.clone())) > 0;
        Some(addr.reserve(Reserve { tasks, others, notices: self.usher.clone().recipient() }))
    }

    /// Whether a task was told that there is no room, and there has been some since.
    pub(super) fn is_stale(&self, want: &Want) -> bool {
        match (&want.lack, want.news) {
            (Lack::Room(executor), Some(news)) => self.estate.waitlist.news(executor) != news,
            _ => false,
        }
    }

    /// Lets a task wait, and says how its store is to put it off.
    pub(super) fn let_wait(
        &mut self,
        store: &Alias,
        StoredTask { spec, state }: &StoredTask,
        Want { lack, reason, again, .. }: Want,
        until: Until,
        now: DateTime<Utc>,
    ) -> Deferral {
        let since = self.estate.waitlist.since(store, &spec.id).unwrap_or(now);
        let due = state.due().unwrap_or(now);
        let news = self.estate.waitlist.wait(
            store,
            &spec.id,
            Waiter { lack, reason: reason.clone(), due, revision: state.revision, since },
        );
        if news {
            tracing::warn!(
                scheduler = %self.settings.name, store = %store, executor = %spec.executor, task = %spec.id, %reason,
                "a task is due and waits"
            );
        }
        let until = match (until, again) {
            (Until::Recalled, Some(again)) => Until::At(again),
            (Until::At(until), Some(again)) => Until::At(until.min(again)),
            (until, _) => until,
        };
        Deferral { id: spec.id.clone(), revision: state.revision, until }
    }

    /// From when on it is an outcome that the task cannot run.
    pub(super) fn patience(
        &self,
        store: &Alias,
        task: &StoredTask,
        now: DateTime<Utc>,
    ) -> Option<DateTime<Utc>> {
        let shared = || self.estate.stores.get(store).is_some_and(|slot| slot.capabilities.shared);
        let after = self.settings.unroutable_after.or_else(|| shared().then_some(UNROUTABLE_AFTER))?;
        let since = self.estate.waitlist.since(store, &task.spec.id).unwrap_or(now);
        since.checked_add_signed(TimeDelta::from_std(after).ok()?)
    }

    /// What tasks wait for is there: at most so many are brought back.
    pub(super) fn call_waiting(&mut self, lack: &Lack, most: usize, ctx: &mut Context<Self>) {
        if self.estate.waitlist.call(lack, most) {
            self.arm(ctx);
        }
    }

    /// Whether a store that works has to hear of tasks that are brought back.
    pub(super) fn has_called(&self) -> bool {
        let mut stores = self.estate.waitlist.stores_called();
        stores.any(|store| self.estate.stores.get(store).is_some_and(StoreSlot::is_ready))
    }

    /// An executor works (again): whoever waits for it is brought back, and what was decided for it
    /// meanwhile is handed over.
    pub(super) fn executor_works(&mut self, alias: &Alias, ctx: &mut Context<Self>) {
        let stranded = self.estate.waitlist.take_stranded(alias);
        if !stranded.is_empty() {
            let busy = self.clock().busy();
            self.hand_out(stranded, BTreeMap::new(), busy);
        }
        self.estate.waitlist.note_room(alias);
        self.call_waiting(&Lack::Executor(alias.clone()), usize::MAX, ctx);
        self.call_waiting(&Lack::Room(alias.clone()), usize::MAX, ctx);
    }

    /// Code has been registered under a name: whoever waits for it is brought back.
    pub(super) fn handler_registered(&mut self, name: &str, ctx: &mut Context<Self>) {
        self.call_waiting(&Lack::Handler(name.to_owned()), usize::MAX, ctx);
    }

    /// The snapshot of a task, with what it waits for.
    pub(super) fn with_wait(&self, info: TaskInfo) -> TaskInfo {
        let waiting = self.estate.waitlist.told(&info.store, info.id(), info.state.revision);
        info.waiting(waiting)
    }
}

/// What the answers come to.
fn booking(asked: Vec<Asked>, now: DateTime<Utc>) -> Booking {
    let mut booking = Booking::default();
    for Asked { executor, tasks, news, answer } in asked {
        match answer {
            Ok(Reserved { granted, seats, problem }) => {
                let limit = seats.count();
                let reason =
                    problem.unwrap_or_else(|| Refusal::QueueFull { executor: executor.to_string(), limit });
                for (place, index) in tasks.into_iter().enumerate() {
                    if granted.get(place) != Some(&true) {
                        let lack = Lack::Room(executor.clone());
                        let want = Want { lack, reason: reason.clone(), again: None, news: Some(news) };
                        booking.short.insert(index, want);
                    }
                }
                booking.seats.insert(executor, seats);
            }
            Err(_) => {
                let reason = Refusal::ExecutorUnavailable {
                    executor: executor.to_string(),
                    reason: "its actor has ended".to_owned(),
                };
                let again = now.checked_add_signed(ASK_AGAIN);
                for index in tasks {
                    let lack = Lack::Executor(executor.clone());
                    booking.short.insert(index, Want { lack, reason: reason.clone(), again, news: None });
                }
            }
        }
    }
    booking
}

impl Handler<Vacant> for Scheduler {
    type Result = ();

    fn handle(&mut self, Vacant { executor, places, busy }: Vacant, ctx: &mut Self::Context) {
        self.estate.waitlist.note_room(&executor);
        self.call_waiting(&Lack::Room(executor), places, ctx);
        drop(busy);
    }
}
