//! Looking without touching: lists, previews, the timeline, history.

use std::collections::HashSet;
use std::sync::Arc;

use actix::fut::{ready, wrap_future};
use actix::prelude::*;
use chrono::{DateTime, Utc};

use super::actor::Scheduler;
use super::lifecycle::Permit;
use super::message::*;
use super::session::within;
use super::slices::{self, MOST_ACCOUNTED, MOST_RECORDS};
use super::why::{self, Question};
use crate::error::Error;
use crate::event::{EventStream, ListenerId, OpenStream, Subscribe, Unsubscribe};
use crate::store::message::{FindRuns, Found, List, Runs};
use crate::task::{Account, Alias, Run, RunId, RunRecord, StoredTask, TaskId, TaskInfo, TaskQuery};
use crate::trigger::{SearchError, ZonedTime};

/// So many records are looked at for one account.
const RECORDS: usize = 4 * MOST_ACCOUNTED;

/// What of a task is in flight, and what it waits for.
#[derive(Default)]
struct Flying {
    flight: HashSet<RunId>,
    /// Those that wait in their executor.
    queued: HashSet<RunId>,
    waiting: Option<String>,
}

type Answer<T> = ResponseActFuture<Scheduler, Result<T, Error>>;

fn fail<T: 'static>(error: Error) -> Answer<T> {
    Box::pin(ready(Err(error)))
}

impl Scheduler {
    /// What of a task is in flight, in the store that has it.
    fn flying(&self, id: &TaskId, task: Option<&(Alias, StoredTask)>) -> Flying {
        let here = |run: &&Arc<Run>| run.task.id == *id && task.is_none_or(|(store, _)| run.store == *store);
        let of_task = self.estate.flight.iter().filter(here);
        let waiting =
            task.and_then(|(store, task)| self.estate.waitlist.told(store, id, task.state.revision));
        Flying {
            flight: of_task.clone().map(|run| run.id).collect(),
            queued: of_task.filter(|run| run.is_queued()).map(|run| run.id).collect(),
            waiting: waiting.map(|wait| wait.reason),
        }
    }

    /// Snapshots of the tasks a query selects, in its order.
    fn select(&mut self, query: TaskQuery) -> Answer<TaskList> {
        let (mut listed, mut unasked) = (Vec::new(), Vec::new());
        for pending in self.estate.pending.iter() {
            match pending.info(&self.settings) {
                Ok(info) => listed.push(info),
                Err(error) => return fail(error),
            }
        }
        let mut stores = Vec::new();
        if self.permit() == Permit::Open {
            let wanted = |alias: &str| query.store_alias().is_none_or(|store| store == alias);
            for (alias, slot) in &self.estate.stores {
                if !wanted(alias.as_str()) {
                    continue;
                }
                match &slot.addr {
                    Some(addr) => stores.push((alias.clone(), addr.clone())),
                    None => unasked.push((alias.clone(), slot.down(alias))),
                }
            }
        }
        let settings = self.settings.clone();
        let read = async move {
            let mut tasks = Vec::new();
            for (alias, addr) in stores {
                match within(&settings, addr.list(List)).await {
                    Ok(found) => {
                        tasks.extend(found.into_iter().map(|task| (alias.clone(), settings.resolved(task))));
                    }
                    Err(error) => {
                        let error = Error::store(&alias, error);
                        unasked.push((alias, error));
                    }
                }
            }
            (tasks, unasked)
        };
        Box::pin(wrap_future::<_, Self>(read).then(move |(tasks, unasked), scheduler, _| {
            let standing = scheduler.standing();
            wrap_future(async move {
                let tasks = slices::snapshots(listed, tasks, &standing, query).await;
                Ok(TaskList { tasks, unasked })
            })
        }))
    }
}

impl Handler<GetTask> for Scheduler {
    type Result = Answer<TaskInfo>;

    fn handle(&mut self, GetTask { id, store }: GetTask, _: &mut Self::Context) -> Self::Result {
        if self.permit() == Permit::Pending {
            return Box::pin(ready(self.waiting_info(&id, store.as_ref())));
        }
        let session = match self.session(store.as_ref()) {
            Ok(session) => session,
            Err(error) => return fail(error),
        };
        let found = async move { session.find(&id).await };
        Box::pin(wrap_future::<_, Self>(found).map(|found, scheduler, _| {
            let (store, _, task) = found?;
            Ok(scheduler.info(store, task))
        }))
    }
}

impl Handler<ListTasks> for Scheduler {
    type Result = Answer<TaskList>;

    fn handle(&mut self, ListTasks(query): ListTasks, _: &mut Self::Context) -> Self::Result {
        self.select(query)
    }
}

impl Handler<Preview> for Scheduler {
    type Result = Answer<Vec<ZonedTime>>;

    fn handle(&mut self, request: Preview, ctx: &mut Self::Context) -> Self::Result {
        let Preview { id, store, count } = request;
        let found = Handler::<GetTask>::handle(self, GetTask { id, store }, ctx);
        Box::pin(found.then(move |found, scheduler, _| {
            let (now, zones) = (scheduler.clock().now(), scheduler.settings.zones.get());
            wrap_future(async move {
                let info = found?;
                let task = StoredTask { spec: info.spec, state: info.state };
                let zone = task.spec.trigger.zone(&task.spec.context(task.state.anchor, &zones));
                let times = slices::preview(&task, now, count, &zones).await;
                let times = times.map_err(|source| Error::Search { id: task.spec.id.clone(), source })?;
                Ok(times.into_iter().map(|at| zones.time(at, zone)).collect())
            })
        }))
    }
}

impl Handler<Timeline> for Scheduler {
    type Result = Answer<Vec<(DateTime<Utc>, TaskId)>>;

    fn handle(&mut self, Timeline { query, until, limit }: Timeline, _: &mut Self::Context) -> Self::Result {
        let now = self.clock().now();
        Box::pin(self.select(query).then(move |tasks, scheduler, _| {
            let zones = scheduler.settings.zones.get();
            wrap_future(async move { slices::timeline(tasks?.complete()?, now, until, limit, &zones).await })
        }))
    }
}

impl Handler<History> for Scheduler {
    type Result = Answer<Vec<RunRecord>>;

    fn handle(&mut self, History { id, store, limit }: History, _: &mut Self::Context) -> Self::Result {
        let session = match self.session(store.as_ref()) {
            Ok(session) => session,
            Err(error) => return fail(error),
        };
        let limit = limit.min(MOST_RECORDS);
        Box::pin(wrap_future(async move {
            for (alias, addr) in &session.stores {
                let runs = within(&session.settings, addr.runs(Runs { id: id.clone(), limit })).await;
                let runs = runs.map_err(|error| Error::store(alias, error))?;
                if !runs.is_empty() {
                    return Ok(runs);
                }
            }
            if let Some(trouble) = session.down {
                return Err(trouble);
            }
            Ok(Vec::new())
        }))
    }
}

impl Handler<Why> for Scheduler {
    type Result = Answer<Account>;

    fn handle(&mut self, request: Why, _: &mut Self::Context) -> Self::Result {
        let Why { id, store, from, to, limit } = request;
        let session = match self.session(store.as_ref()) {
            Ok(session) => session,
            Err(error) => return fail(error),
        };
        let limit = limit.clamp(1, MOST_ACCOUNTED);
        let read = async move {
            let mut task = None;
            match session.find(&id).await {
                Ok((alias, _, found)) => task = Some((alias, found)),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
            let mut records = Found::default();
            for (alias, addr) in &session.stores {
                if task.as_ref().is_some_and(|(store, _)| store != alias) {
                    continue;
                }
                let find = FindRuns { id: id.clone(), from, to, limit: RECORDS };
                let found = within(&session.settings, addr.find_runs(find)).await;
                records = found.map_err(|error| Error::store(alias, error))?;
                if records.oldest.is_some() {
                    break;
                }
            }
            if task.is_none() && records.oldest.is_none() {
                return Err(Error::UnknownTask(id));
            }
            Ok((id, task, records))
        };
        Box::pin(wrap_future::<_, Self>(read).then(move |read: Result<_, Error>, scheduler, _| {
            let (now, state) = (scheduler.clock().now(), scheduler.state());
            let zones = scheduler.settings.zones.get();
            let asked = read
                .as_ref()
                .map_or_else(|_| Flying::default(), |(id, task, _)| scheduler.flying(id, task.as_ref()));
            wrap_future(async move {
                let (id, task, found): (TaskId, Option<(Alias, StoredTask)>, Found) = read?;
                let task = task.map(|(_, task)| task);
                let Flying { flight, queued, waiting } = &asked;
                let waiting = waiting.as_deref();
                let zones = &*zones;
                let question =
                    Question { now, from, to, limit, scheduler: state, flight, queued, waiting, zones };
                let account = async {
                    // What comes after the records that were read is for the next answer.
                    let end = found.rest.map_or(to, |rest| rest.max(from).min(to));
                    let fires = match &task {
                        Some(task) => slices::between(task, from, end, limit + 1, zones).await?,
                        None => Vec::new(),
                    };
                    Ok(why::account(task.as_ref(), found, fires, &question))
                };
                let account: Result<_, SearchError> = account.await;
                let (times, next) = account.map_err(|source| Error::Search { id: id.clone(), source })?;
                Ok(Account { task: id, times, next })
            })
        }))
    }
}

impl Handler<AddListener> for Scheduler {
    type Result = Answer<ListenerId>;

    fn handle(&mut self, AddListener { mask, listener }: AddListener, _: &mut Self::Context) -> Self::Result {
        let id = self.bus.send(Subscribe { mask, listener });
        Box::pin(wrap_future::<_, Self>(id).map(move |id, scheduler, _| {
            scheduler.wanted |= mask;
            Ok(id?)
        }))
    }
}

impl Handler<RemoveListener> for Scheduler {
    type Result = Answer<bool>;

    fn handle(&mut self, RemoveListener(id): RemoveListener, _: &mut Self::Context) -> Self::Result {
        let removed = self.bus.send(Unsubscribe(id));
        Box::pin(wrap_future(async move { Ok(removed.await?) }))
    }
}

impl Handler<OpenEvents> for Scheduler {
    type Result = Answer<EventStream>;

    fn handle(&mut self, OpenEvents { mask, capacity }: OpenEvents, _: &mut Self::Context) -> Self::Result {
        let stream = self.bus.send(OpenStream { mask, capacity });
        Box::pin(wrap_future::<_, Self>(stream).map(move |stream, scheduler, _| {
            scheduler.wanted |= mask;
            Ok(stream?)
        }))
    }
}
