//! Tasks whose next runs are worked out again, store by store and page by page: the clock had been ahead.
//!
//! What it goes by is in the tasks themselves: a time that must be past and is later than now was taken
//! from a wrong clock. So a pass that a kill cuts short is found at the next start, and one that was
//! never begun, because the clock was corrected while nothing ran, too. The tasks that show it most
//! clearly are the last to be written.

use actix::fut::wrap_future;
use actix::prelude::*;
use chrono::{DateTime, TimeDelta, Utc};
use futures::future::join_all;

use super::actor::{Scheduler, Settings};
use super::plan;
use super::session::within;
use crate::clock::Busy;
use crate::event::Event;
use crate::store::message::{Change, Commit, FindRuns, Found, Get, Leaf, Then};
use crate::store::{StoreAddr, StoreError};
use crate::task::{Alias, RunId, StoredTask, TaskId};

/// Tasks that are looked at together.
const PAGE: usize = 500;

/// Records of one task that are looked through.
const RECORDS: usize = 10_000;

/// Tasks that an event names.
const NAMED: usize = 100;

/// How often a task is worked out again that others keep changing.
const TRIES: usize = 100;

/// A clock that shows less has not been set yet: nothing follows from it.
const PLAUSIBLE: i64 = 1_577_836_800; // 2020-01-01T00:00:00Z

/// What is to be done about a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Replanning {
    #[default]
    No,
    /// It waits until the store can be asked.
    Wanted,
    UnderWay,
    /// The clock was set back once more meanwhile.
    Again,
}

impl Replanning {
    pub(super) fn want(&mut self) {
        *self = match self {
            Self::No | Self::Wanted => Self::Wanted,
            Self::UnderWay | Self::Again => Self::Again,
        };
    }

    /// It was cut short.
    pub(super) fn reset(&mut self) {
        if *self != Self::No {
            *self = Self::Wanted;
        }
    }

    pub(super) fn end(&mut self) {
        *self = if *self == Self::Again { Self::Wanted } else { Self::No };
    }
}

/// The tasks that went while the clock may have been ahead, and when, as far as it said.
#[derive(Default)]
pub(super) struct Farewells(std::collections::VecDeque<(DateTime<Utc>, Alias, TaskId)>);

impl Farewells {
    pub(super) fn note(&mut self, at: DateTime<Utc>, store: &Alias, id: &TaskId) {
        if self.0.len() == NAMED {
            self.0.pop_front();
        }
        self.0.push_back((at, store.clone(), id.clone()));
    }

    /// Those of a store that went at times that have not come yet.
    fn after(&mut self, now: DateTime<Utc>, store: &Alias) -> Vec<TaskId> {
        let of_then = |(at, alias, _): &(DateTime<Utc>, Alias, TaskId)| *at > now && alias == store;
        let ids = self.0.iter().filter(|farewell| of_then(farewell)).map(|(.., id)| id.clone()).collect();
        self.0.retain(|farewell| !of_then(farewell));
        ids
    }
}

/// What was worked out again.
#[derive(Default)]
struct Replanned {
    tasks: u64,
    back: Vec<TaskId>,
    finished: Vec<(TaskId, bool)>,
    next_due: Option<DateTime<Utc>>,
}

/// What is looked for, in this order: what shows a wrong clock most clearly is written last, so that it
/// is found again after a kill.
#[derive(Clone, Copy, PartialEq)]
enum Pass {
    Near,
    Far,
}

/// A store whose tasks are worked out again.
struct Work {
    store: Alias,
    addr: StoreAddr,
    generation: u64,
    records: bool,
    now: DateTime<Utc>,
    /// For the records of what is passed over.
    before: RunId,
    pass: Pass,
    replanned: Replanned,
    busy: Busy,
}

impl Scheduler {
    /// The wall clock was set back by `jump`.
    pub(super) fn clock_was_ahead(&mut self, jump: TimeDelta) {
        let now = self.clock().now();
        if jump.abs() > self.settings.replan_after_jump && now.timestamp() >= PLAUSIBLE {
            self.estate.stores.values_mut().for_each(|slot| slot.replanning.want());
        }
    }

    /// A store was opened, and knows of this time that must be past.
    pub(super) fn look_for_wrong_times(&mut self, store: &Alias, latest: Option<DateTime<Utc>>) {
        let now = self.clock().now();
        let bound = now.checked_add_signed(self.settings.replan_after_jump);
        // One that cannot say is looked through.
        let wrong = latest.is_none_or(|latest| bound.is_some_and(|bound| latest > bound));
        if let Some(slot) = self.estate.stores.get_mut(store)
            && now.timestamp() >= PLAUSIBLE
            && wrong
        {
            slot.replanning.want();
        }
    }

    /// Works out again what waits for that, in the stores that can be asked.
    pub(super) fn replan_stores(&mut self, busy: &Busy, ctx: &mut Context<Self>) {
        let ready = self.estate.stores.iter().filter(|(_, slot)| slot.can_replan());
        let ready: Vec<Alias> = ready.map(|(alias, _)| alias.clone()).collect();
        for alias in ready {
            self.replan_store(&alias, busy.clone(), ctx);
        }
    }

    fn replan_store(&mut self, alias: &Alias, busy: Busy, ctx: &mut Context<Self>) {
        let before = self.next_run_id();
        let now = self.clock().now();
        let Some(slot) = self.estate.stores.get_mut(alias) else { return };
        let Some(addr) = slot.addr.clone() else { return };
        slot.replanning = Replanning::UnderWay;
        let (generation, records) = (slot.generation, slot.capabilities.keeps_records());
        let replanned = Replanned::default();
        let work = Work {
            store: alias.clone(),
            addr,
            generation,
            records,
            now,
            before,
            pass: Pass::Near,
            replanned,
            busy,
        };
        self.replan_page(work, 0, ctx);
    }

    /// Page by page, so that the tasks of one run while the next is worked out.
    fn replan_page(&mut self, mut work: Work, from: usize, ctx: &mut Context<Self>) {
        let settings = self.settings.clone();
        let page = async move {
            let next = replan_page(&settings, &mut work, from).await;
            (work, next)
        };
        ctx.spawn(wrap_future::<_, Self>(page).map(move |(mut work, next), scheduler, ctx| {
            let Some(slot) = scheduler.estate.stores.get_mut(&work.store) else { return };
            if slot.generation != work.generation {
                // It is opened anew, and looked at then.
                return;
            }
            let news = work.replanned.next_due.take().is_some_and(|due| slot.note_due(due));
            match (next, work.pass) {
                (Ok(Some(next)), _) => {
                    if news {
                        scheduler.arm(ctx);
                    }
                    return scheduler.replan_page(work, next, ctx);
                }
                (Ok(None), Pass::Near) => {
                    work.pass = Pass::Far;
                    return scheduler.replan_page(work, 0, ctx);
                }
                (Ok(None), Pass::Far) => {
                    slot.replanning.end();
                    scheduler.replanned(&work.store, work.replanned, work.now);
                }
                (Err(error), _) => {
                    slot.replanning.end();
                    slot.replanning.want();
                    scheduler.store_failed(&work.store, &error);
                }
            }
            scheduler.replan_stores(&work.busy, ctx);
            scheduler.arm(ctx);
            // A virtual clock stands still until the alarm is set.
            drop(work.busy);
        }));
    }

    fn replanned(&mut self, store: &Alias, replanned: Replanned, now: DateTime<Utc>) {
        let Replanned { tasks, mut back, finished, .. } = replanned;
        for (id, gone) in finished {
            self.schedule_over(id, store, gone);
        }
        let mut over = self.estate.farewells.after(now, store);
        over.retain(|id| !back.contains(id));
        if tasks == 0 && over.is_empty() {
            return;
        }
        let names = |ids: &[TaskId]| ids.iter().map(TaskId::as_str).collect::<Vec<_>>().join(", ");
        tracing::warn!(
            scheduler = %self.settings.name, store = %store, tasks, back = %names(&back), over = %names(&over),
            "the clock had been ahead: next runs were worked out again; `back` are tasks that had ended \
             meanwhile, `over` those that ran for the last time"
        );
        back.truncate(NAMED);
        self.tell(Event::TasksReplanned { store: store.clone(), tasks, back, over });
    }
}

/// Works out again the tasks of a page that know of times later than now; answers where the next page is.
async fn replan_page(settings: &Settings, work: &mut Work, from: usize) -> Result<Option<usize>, StoreError> {
    let Work { addr, records, now, before, pass, replanned, .. } = work;
    let far = now.checked_add_signed(settings.replan_after_jump).unwrap_or(DateTime::<Utc>::MAX_UTC);
    let page = within(settings, addr.leaf(Leaf { from })).await?;
    let wrong = page.tasks.into_iter().filter(|task| {
        let latest = plan::latest_time(task);
        latest > *now && (latest > far) == (*pass == Pass::Far)
    });
    let mut wrong = wrong.peekable();
    while wrong.peek().is_some() {
        let batch = wrong.by_ref().take(PAGE).collect();
        replan_batch(settings, addr, *records, (*now, *before), batch, replanned).await?;
    }
    Ok(page.next)
}

async fn replan_batch(
    settings: &Settings,
    store: &StoreAddr,
    records: bool,
    (now, before): (DateTime<Utc>, RunId),
    mut tasks: Vec<StoredTask>,
    replanned: &mut Replanned,
) -> Result<(), StoreError> {
    for _ in 0..TRIES {
        let found = tasks.iter().map(|task| {
            let wanted = records && task.state.last_run.is_some_and(|last| last > now);
            let id = task.spec.id.clone();
            let request = FindRuns { id, from: now, to: DateTime::<Utc>::MAX_UTC, limit: RECORDS };
            let runs = wanted.then(|| within(settings, store.find_runs(request)));
            async move {
                match runs {
                    Some(runs) => runs.await,
                    None => Ok(Found::default()),
                }
            }
        });
        let found = join_all(found).await;
        let (mut changes, mut told) = (Vec::new(), Vec::new());
        for (task, found) in tasks.drain(..).zip(found) {
            let task = settings.resolved(task);
            let id = task.spec.id.clone();
            match plan::replan(&task, &found?.runs, now, before, &settings.zones.get()) {
                Ok(plan::Replan { then, marked, back, finished }) => {
                    told.push((
                        id.clone(),
                        back,
                        (finished && !task.is_finished()).then_some(then == Then::Remove),
                    ));
                    let runs = if records { marked } else { Vec::new() };
                    changes.push(Change { id, revision: task.state.revision, then, runs });
                }
                Err(error) => {
                    let error = error.about(&id);
                    tracing::error!(store = %settings.name, task = %id, %error, "the next run could not be worked out again");
                }
            }
        }
        if changes.is_empty() {
            return Ok(());
        }
        let committed = within(settings, store.commit(Commit { changes })).await?;
        replanned.next_due = [replanned.next_due, committed.next_due].into_iter().flatten().min();
        for (index, (id, back, finished)) in told.into_iter().enumerate() {
            if committed.refused.binary_search(&index).is_ok() {
                // Somebody has changed it meanwhile.
                let present = within(settings, store.get(Get { id })).await?;
                tasks.extend(present.filter(|task| plan::latest_time(task) > now));
                continue;
            }
            replanned.tasks += 1;
            if back {
                replanned.back.push(id.clone());
            }
            replanned.finished.extend(finished.map(|gone| (id, gone)));
        }
        if tasks.is_empty() {
            return Ok(());
        }
    }
    Ok(())
}
