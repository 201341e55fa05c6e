//! Tasks whose next runs were worked out by other rules of time zones, worked out by those in force,
//! store by store and page by page.
//!
//! A store keeps by which rules its tasks are planned, and is told of new ones when the last page is
//! written: what a kill cuts short is begun anew, and finds unchanged what was done. Until then none of
//! its runs begin, so that nothing runs at the time that a law has done away with.

use std::sync::Arc;

use actix::fut::wrap_future;
use actix::prelude::*;
use chrono::{DateTime, Utc};

use super::actor::{Scheduler, Settings};
use super::plan;
use super::replan::Replanning;
use super::session::within;
use crate::clock::Busy;
use crate::event::Event;
use crate::store::message::{Change, Commit, Get, KeepRules, KeptRules, Leaf, Then};
use crate::store::{StoreAddr, StoreError};
use crate::task::{Alias, StoredTask, TaskId};
use crate::timezones::Release;
use crate::trigger::Zones;

/// How many tasks are worked out and written together, however large the pages of a store are.
const BATCH: usize = 512;

/// How often a task is worked out again that others keep changing.
const TRIES: usize = 100;

/// A pass through the tasks of a store.
struct Pass {
    store: Alias,
    addr: StoreAddr,
    generation: u64,
    zones: Arc<Zones>,
    moved: u64,
    busy: Busy,
}

/// What a page came to.
#[derive(Default)]
struct Leafed {
    moved: Vec<(TaskId, DateTime<Utc>, Option<DateTime<Utc>>)>,
    finished: Vec<(TaskId, bool)>,
    next_due: Option<DateTime<Utc>>,
    /// Where to go on.
    next: Option<usize>,
}

fn kept(zones: &Zones) -> KeptRules {
    KeptRules { digest: zones.digest(), release: Release::of(zones) }
}

impl Scheduler {
    /// A store was opened, and said by which rules its tasks are planned.
    pub(super) fn look_for_other_rules(&mut self, store: &Alias, rules: Option<KeptRules>) {
        let digest = self.settings.zones.get().digest();
        if let Some(slot) = self.estate.stores.get_mut(store) {
            slot.rules = rules.or(slot.rules.take());
            if slot.rules.as_ref().is_none_or(|rules| rules.digest != digest) {
                slot.rezoning.want();
            }
        }
    }

    /// Works out again what waits for that, in the stores that can be asked.
    pub(super) fn rezone_stores(&mut self, ctx: &mut Context<Self>) {
        if !self.is_open() {
            return;
        }
        let ready = self.estate.stores.iter().filter(|(_, slot)| slot.can_rezone());
        let ready: Vec<Alias> = ready.map(|(alias, _)| alias.clone()).collect();
        for store in ready {
            let (zones, busy) = (self.settings.zones.get(), self.clock().busy());
            let Some(slot) = self.estate.stores.get_mut(&store) else { continue };
            let Some(addr) = slot.addr.clone() else { continue };
            slot.rezoning = Replanning::UnderWay;
            let generation = slot.generation;
            self.rezone_leaf(Pass { store, addr, generation, zones, moved: 0, busy }, 0, ctx);
        }
    }

    fn rezone_leaf(&mut self, pass: Pass, from: usize, ctx: &mut Context<Self>) {
        let (settings, addr, zones) = (self.settings.clone(), pass.addr.clone(), pass.zones.clone());
        let now = self.clock().now();
        let work = async move {
            let mut leafed = Leafed::default();
            let done = leaf(&settings, &addr, &zones, now, from, &mut leafed).await;
            (leafed, done)
        };
        ctx.spawn(wrap_future::<_, Self>(work).map(move |(leafed, done), scheduler, ctx| {
            scheduler.rezoned_leaf(pass, leafed, done, ctx);
        }));
    }

    /// What was written is told, also where the store failed after it.
    fn rezoned_leaf(
        &mut self,
        mut pass: Pass,
        leafed: Leafed,
        done: Result<(), StoreError>,
        ctx: &mut Context<Self>,
    ) {
        // Otherwise it is opened anew, and looked at then.
        let current =
            self.estate.stores.get(&pass.store).is_some_and(|slot| slot.generation == pass.generation);
        if !current {
            return;
        }
        let Leafed { moved, finished, next_due, next } = leafed;
        if let (Some(due), Some(slot)) = (next_due, self.estate.stores.get_mut(&pass.store)) {
            slot.note_due(due);
        }
        pass.moved += moved.len() as u64;
        let mut events = Vec::new();
        for (id, from, to) in moved {
            let next = to.map_or_else(|| "none".to_owned(), |to| to.to_rfc3339());
            tracing::info!(
                scheduler = %self.settings.name, store = %pass.store, task = %id, %from, to = %next,
                "the next run was moved, because the rules of its time zone have changed"
            );
            events.push(Event::TaskMoved { id, store: pass.store.clone(), from, to });
        }
        events.retain(|event| self.wants(event.mask()));
        self.publish(events);
        for (id, gone) in finished {
            self.schedule_over(id, &pass.store, gone);
        }
        match (done, next) {
            (Err(error), _) => self.rezoning_failed(&pass.store, &error, ctx),
            (Ok(()), Some(next)) => self.rezone_leaf(pass, next, ctx),
            (Ok(()), None) => self.keep_rules(pass, ctx),
        }
    }

    /// All was looked at: the store is told so.
    fn keep_rules(&mut self, pass: Pass, ctx: &mut Context<Self>) {
        let rules = kept(&pass.zones);
        let told = within(&self.settings, pass.addr.keep_rules(KeepRules(rules.clone())));
        ctx.spawn(wrap_future::<_, Self>(told).map(move |told, scheduler, ctx| {
            let Some(slot) = scheduler.estate.stores.get_mut(&pass.store) else { return };
            if slot.generation != pass.generation {
                return;
            }
            if let Err(error) = told {
                return scheduler.rezoning_failed(&pass.store, &error, ctx);
            }
            let to = rules.release.clone();
            let from = slot.rules.replace(rules).map(|rules| rules.release);
            slot.rezoning.end();
            // Of a store that begins, or that does not keep them, nothing is new.
            if pass.moved > 0 || from.is_some() {
                let former = from.as_ref().map_or_else(|| "unknown".to_owned(), Release::to_string);
                tracing::warn!(
                    scheduler = %scheduler.settings.name, store = %pass.store, tasks = pass.moved, from = %former, to = %to,
                    "the rules of time zones have changed: the next runs of so many tasks were moved"
                );
                scheduler.tell(Event::TasksMoved { store: pass.store.clone(), tasks: pass.moved, from, to });
            }
            scheduler.arm(ctx);
            // A virtual clock stands still until the alarm is set.
            drop(pass.busy);
        }));
    }

    fn rezoning_failed(&mut self, store: &Alias, error: &StoreError, ctx: &mut Context<Self>) {
        if let Some(slot) = self.estate.stores.get_mut(store) {
            slot.rezoning.reset();
        }
        self.store_failed(store, error);
        self.arm(ctx);
    }
}

/// Works out again the tasks of a page, batch by batch: others have their turn in between.
async fn leaf(
    settings: &Settings,
    store: &StoreAddr,
    zones: &Zones,
    now: DateTime<Utc>,
    from: usize,
    leafed: &mut Leafed,
) -> Result<(), StoreError> {
    let page = within(settings, store.leaf(Leaf { from })).await?;
    leafed.next = page.next;
    let mut tasks = page.tasks.into_iter().peekable();
    while tasks.peek().is_some() {
        let mut batch: Vec<StoredTask> = tasks.by_ref().take(BATCH).collect();
        for _ in 0..TRIES {
            let (changes, told) = plan_all(settings, batch.drain(..), zones, now);
            if changes.is_empty() {
                break;
            }
            let committed = within(settings, store.commit(Commit { changes })).await?;
            leafed.next_due = [leafed.next_due, committed.next_due].into_iter().flatten().min();
            for (index, told) in told.into_iter().enumerate() {
                if committed.refused.binary_search(&index).is_ok() {
                    // Somebody has changed it meanwhile.
                    batch.extend(within(settings, store.get(Get { id: told.id })).await?);
                    continue;
                }
                leafed.moved.extend(told.moved.map(|(from, to)| (told.id.clone(), from, to)));
                leafed.finished.extend(told.finished.map(|gone| (told.id, gone)));
            }
        }
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// What is told of a task once its change is written.
struct Told {
    id: TaskId,
    moved: Option<(DateTime<Utc>, Option<DateTime<Utc>>)>,
    /// Its schedule has ended, and whether it is gone.
    finished: Option<bool>,
}

fn plan_all(
    settings: &Settings,
    tasks: impl Iterator<Item = StoredTask>,
    zones: &Zones,
    now: DateTime<Utc>,
) -> (Vec<Change>, Vec<Told>) {
    let (mut changes, mut all) = (Vec::new(), Vec::new());
    for task in tasks {
        let task = settings.resolved(task);
        let id = task.spec.id.clone();
        match plan::rezone(&task, now, zones) {
            Ok(None) => {}
            Ok(Some(plan::Rezone { then, moved, finished })) => {
                let finished = finished.then_some(then == Then::Remove);
                all.push(Told { id: id.clone(), moved, finished });
                changes.push(Change { id, revision: task.state.revision, then, runs: Vec::new() });
            }
            Err(error) => {
                let error = error.about(&id);
                tracing::error!(
                    scheduler = %settings.name, task = %id, %error,
                    "the next run could not be worked out by the new rules of time zones, and stays where it is"
                );
            }
        }
    }
    (changes, all)
}
