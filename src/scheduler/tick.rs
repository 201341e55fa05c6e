//! The hot path: take what is due, decide, commit, submit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use actix::prelude::*;
use chrono::{DateTime, TimeDelta, Utc};

use super::SchedulerState;
use super::actor::Scheduler;
use super::locks::StoreLock;
use super::plan::{self, Blocked, TurnedAway};
use super::session::within;
use super::settle::schedule_ended;
use super::waiting::Booking;
use super::waitlist::{Lack, Recalls};
use super::wake::readable;
use crate::clock::Busy;
use crate::event::Event;
use crate::executor::message::Seats;
use crate::store::message::{Change, Commit, Committed, Defer, Deferral, Due, NextDue, TakeDue, Then};
use crate::store::{StoreAddr, StoreError};
use crate::task::{Alias, Outcome, Run, RunEnd, StoredTask, TaskId};

/// One store's tick under way.
pub(super) struct Tick {
    store: Alias,
    generation: u64,
    busy: Busy,
    /// Executors that have room for tasks that were brought back.
    rooms: BTreeSet<Alias>,
}

/// What a tick has decided, while the store writes it down.
struct Cargo {
    /// Runs to submit, by the index of their change.
    runs: Vec<(usize, Arc<Run>)>,
    /// Runs that ended before they began.
    ended: Vec<(usize, Arc<Run>, RunEnd)>,
    /// Tasks whose schedule has ended, and whether they go.
    finished: Vec<(usize, TaskId, bool)>,
    /// Tasks whose trigger failed.
    stalled: Vec<(usize, TaskId, String)>,
    /// The places that executors keep for the runs.
    seats: BTreeMap<Alias, Seats>,
}

/// What was decided about a batch.
struct Decided {
    changes: Vec<Change>,
    cargo: Cargo,
    /// Tasks that wait.
    deferrals: Vec<Deferral>,
    /// Whether something was left as it is, to be looked at again at once.
    again: bool,
}

impl Scheduler {
    /// The timer has rung.
    pub(super) fn woke(&mut self, busy: Busy, ctx: &mut Context<Self>) {
        self.wake.rung();
        self.last_seen = self.clock().now();
        self.look_at_clock();
        let now = self.last_seen;
        self.retry_stores(now, &busy, ctx);
        self.look_at_locks(now, &busy, ctx);
        self.replan_stores(&busy, ctx);
        if self.ticks() {
            let due: Vec<Alias> = self
                .estate
                .stores
                .iter()
                .filter(|(alias, slot)| {
                    let due = || slot.next_due.is_some_and(|due| due <= now);
                    slot.is_ready() && (due() || self.estate.waitlist.has_called(alias))
                })
                .map(|(alias, _)| alias.clone())
                .collect();
            for alias in due {
                self.begin_tick(&alias, busy.clone(), ctx);
            }
        }
        self.arm(ctx);
    }

    /// Looks whether somebody has set the wall clock since the last look.
    fn look_at_clock(&mut self) -> bool {
        let Some(jump) = self.estate.seen.look(&self.settings.clock) else { return false };
        let way = if jump < TimeDelta::zero() { "back" } else { "forward" };
        tracing::warn!(scheduler = %self.settings.name, by_ms = jump.num_milliseconds(), "the clock was set {way} by {}", readable(jump));
        self.tell(Event::ClockJumped { by_ms: jump.num_milliseconds() });
        if jump < TimeDelta::zero() {
            self.estate.stores.values_mut().for_each(|slot| slot.clock_set_back(jump));
            self.clock_was_ahead(jump);
        }
        true
    }

    /// Arms the timer for the earliest thing to do.
    pub(super) fn arm(&mut self, ctx: &mut Context<Self>) {
        self.rezone_stores(ctx);
        self.watch_zones(ctx);
        let running = self.ticks();
        let mut next = self.estate.stores.values().filter_map(|slot| slot.wants_attention(running)).min();
        if running && self.has_called() {
            next = Some(next.unwrap_or(DateTime::<Utc>::MAX_UTC).min(self.settings.clock.now()));
        }
        if self.is_open() {
            // What is armed for was planned by what the clock shows now: one that is set right before the timer
            // rings is known by that to have been ahead.
            if self.look_at_clock() {
                next = Some(self.settings.clock.now());
            }
            self.wake.arm(next, &self.settings.clock, ctx);
        } else {
            self.wake.disarm(ctx);
        }
    }

    /// Whether runs begin when they are due.
    pub(super) fn ticks(&self) -> bool {
        self.state() == SchedulerState::Running && self.held_back.is_none()
    }

    fn begin_tick(&mut self, alias: &Alias, busy: Busy, ctx: &mut Context<Self>) {
        let Some(slot) = self.estate.stores.get_mut(alias) else { return };
        let Some(addr) = slot.addr.clone() else { return };
        slot.ticking = true;
        let Recalls { tasks, rooms } = self.estate.waitlist.take_called(alias, self.settings.batch);
        let tick = Tick { store: alias.clone(), generation: slot.generation, busy, rooms };
        let now = self.settings.clock.now();
        let take = TakeDue { now, limit: self.settings.batch };
        let settings = self.settings.clone();
        let due = async move {
            if !tasks.is_empty() {
                within(&settings, addr.defer(Defer { tasks })).await?;
            }
            within(&settings, addr.take_due(take)).await
        };
        let due = due.into_actor(self);
        ctx.spawn(due.map(move |due, scheduler, ctx| scheduler.took(tick, now, due, ctx)));
    }

    /// Whether the tick still concerns the store of its alias.
    fn is_current(&self, tick: &Tick) -> bool {
        self.estate.stores.get(&tick.store).is_some_and(|slot| slot.generation == tick.generation)
    }

    fn took(
        &mut self,
        tick: Tick,
        now: DateTime<Utc>,
        due: Result<Due, StoreError>,
        ctx: &mut Context<Self>,
    ) {
        if !self.is_current(&tick) {
            return;
        }
        let due = match due {
            Ok(due) => due,
            Err(error) => return self.tick_failed(tick, error, ctx),
        };
        // A scheduler that was paused while the store answered, or lost its lock, leaves the tasks where
        // they are.
        if due.tasks.is_empty() || !self.may_tick(&tick.store) {
            self.call_more(&tick, &BTreeSet::new(), ctx);
            return self.ask_next_due(tick, ctx);
        }
        let Some(booking) = self.book(&tick.store, &due.tasks) else {
            self.call_more(&tick, &BTreeSet::new(), ctx);
            return self.booked(tick, now, due, Booking::default(), ctx);
        };
        ctx.spawn(booking.into_actor(self).map(move |booking, scheduler, ctx| {
            if !scheduler.is_current(&tick) {
                return;
            }
            scheduler.call_more(&tick, &booking.seats.keys().cloned().collect(), ctx);
            if !scheduler.may_tick(&tick.store) {
                return scheduler.ask_next_due(tick, ctx);
            }
            scheduler.booked(tick, now, due, booking, ctx);
        }));
    }

    /// Of the tasks that were brought back for room in an executor none asked for it: others may have it.
    fn call_more(&mut self, tick: &Tick, asked: &BTreeSet<Alias>, ctx: &mut Context<Self>) {
        for executor in tick.rooms.difference(asked) {
            self.call_waiting(&Lack::Room(executor.clone()), self.settings.batch, ctx);
        }
    }

    /// It is known what can run: that is decided, and the rest put off.
    fn booked(
        &mut self,
        tick: Tick,
        now: DateTime<Utc>,
        due: Due,
        booking: Booking,
        ctx: &mut Context<Self>,
    ) {
        let Decided { changes, cargo, deferrals, again } = self.decide(&tick.store, due.tasks, booking, now);
        let more = due.more || again;
        let Some(addr) = self.estate.stores.get(&tick.store).and_then(|slot| slot.addr.clone()) else {
            return;
        };
        if deferrals.is_empty() {
            return self.commit(tick, now, more, addr, changes, cargo, ctx);
        }
        let deferred = within(&self.settings, addr.defer(Defer { tasks: deferrals })).into_actor(self);
        ctx.spawn(deferred.map(move |deferred, scheduler, ctx| {
            let deferred = match deferred {
                Ok(next_due) if scheduler.is_current(&tick) => Ok(next_due),
                Ok(_) => Err(None),
                Err(error) => Err(Some(error)),
            };
            match deferred {
                Ok(next_due) if changes.is_empty() => scheduler.end_tick(tick, next_due, more, ctx),
                Ok(_) => scheduler.commit(tick, now, more, addr, changes, cargo, ctx),
                Err(error) => {
                    // Nothing was written down.
                    let runs = cargo.runs.into_iter().map(|(_, run)| run);
                    for run in runs.chain(cargo.ended.into_iter().map(|(_, run, _)| run)) {
                        scheduler.estate.flight.leave(&run);
                    }
                    if let Some(error) = error.filter(|_| scheduler.is_current(&tick)) {
                        scheduler.tick_failed(tick, error, ctx);
                    }
                }
            }
        }));
    }

    #[expect(clippy::too_many_arguments, reason = "it is the second half of the function above")]
    fn commit(
        &mut self,
        tick: Tick,
        now: DateTime<Utc>,
        more: bool,
        addr: StoreAddr,
        changes: Vec<Change>,
        cargo: Cargo,
        ctx: &mut Context<Self>,
    ) {
        let commit = within(&self.settings, addr.commit(Commit { changes })).into_actor(self);
        ctx.spawn(commit.map(move |committed, scheduler, ctx| {
            scheduler.committed(tick, now, more, cargo, committed, ctx);
        }));
    }

    fn ask_next_due(&mut self, tick: Tick, ctx: &mut Context<Self>) {
        let Some(addr) = self.estate.stores.get(&tick.store).and_then(|slot| slot.addr.clone()) else {
            return;
        };
        let next = within(&self.settings, addr.next_due(NextDue)).into_actor(self);
        ctx.spawn(next.map(move |next, scheduler, ctx| {
            if scheduler.is_current(&tick) {
                match next {
                    Ok(next) => scheduler.end_tick(tick, next, false, ctx),
                    Err(error) => scheduler.tick_failed(tick, error, ctx),
                }
            }
        }));
    }

    /// Plans every task, and gives each planned run its place in flight.
    fn decide(
        &mut self,
        store: &Alias,
        tasks: Vec<StoredTask>,
        mut booking: Booking,
        now: DateTime<Utc>,
    ) -> Decided {
        let records_kept =
            self.estate.stores.get(store).is_some_and(|slot| slot.capabilities.keeps_records());
        let mut cargo = Cargo {
            runs: Vec::with_capacity(tasks.len()),
            ended: Vec::new(),
            finished: Vec::new(),
            stalled: Vec::new(),
            seats: std::mem::take(&mut booking.seats),
        };
        let (mut deferrals, mut again, mut effort) = (Vec::new(), false, 0);
        let zones = self.settings.zones.get();
        let lock = self.estate.stores.get(store).and_then(|slot| slot.lock.as_ref());
        let others_until = lock.and_then(StoreLock::others_until);
        let mut changes = Vec::with_capacity(tasks.len());
        for (place, task) in tasks.into_iter().enumerate() {
            if effort > plan::TURN {
                // Others have their turn; what is left is due still.
                again = true;
                break;
            }
            let index = changes.len();
            let mut task = self.settings.resolved(task);
            if let Some(until) = others_until {
                plan::pass_over(&mut task, until, &zones);
            }
            // One that lingers only goes.
            let want = self.want(&task.spec).or_else(|| booking.short.remove(&place));
            let want = want.filter(|_| task.state.leaves_at.is_none());
            if want.as_ref().is_some_and(|want| self.is_stale(want)) {
                again = true;
                continue;
            }
            let refusal = want.as_ref().map(|want| want.reason.clone());
            let mut plan = match want {
                None => plan::tick(&task, &zones, now, || self.estate.flight.running(store, &task.spec.id)),
                Some(want) => match plan::blocked(&task, &zones, now, self.patience(store, &task, now)) {
                    Blocked::Wait(until) => {
                        deferrals.push(self.let_wait(store, &task, want, until, now));
                        continue;
                    }
                    Blocked::Over(plan) => *plan,
                },
            };
            effort += plan.effort;
            plan.linger(&task, now, self.settings.replan_after_jump);
            if !self.estate.waitlist.is_empty() {
                self.estate.waitlist.leave(store, &task.spec.id);
            }
            let mut records = Vec::with_capacity(usize::from(records_kept));
            if let Some(missed) = plan.missed {
                let late = (now - missed.first.due).num_milliseconds().max(0) as u64;
                let end = RunEnd::unstarted(Outcome::Missed { late_ms: late }, now);
                let run = self.board(&task, store, &zones, |run| {
                    run.nominal = missed.first.nominal;
                    run.due = missed.first.due;
                    run.coalesced = missed.count - 1;
                    run.span = plan.missed_span();
                    run.submitted_at = now;
                });
                if records_kept {
                    records.push(crate::task::RunRecord { end: Some(end.clone()), ..run.record(now) });
                }
                self.estate.flight.doom(&run, end.clone());
                cargo.ended.push((index, run, end));
            }
            for planned in plan.runs() {
                let run = self.board(&task, store, &zones, |run| {
                    run.nominal = planned.fire.nominal;
                    run.due = planned.fire.due;
                    run.coalesced = planned.coalesced;
                    run.span = plan.span_of(&planned, task.state.next, now);
                    run.source = planned.source;
                    run.attempt = planned.attempt;
                    run.submitted_at = now;
                });
                let late_ms = (now - planned.fire.due).num_milliseconds().max(0) as u64;
                let outcome = match (planned.turned_away, &refusal) {
                    (Some(TurnedAway::Missed), _) => Some(Outcome::Missed { late_ms }),
                    (Some(TurnedAway::Refused), Some(reason)) => {
                        Some(Outcome::Refused { reason: reason.clone() })
                    }
                    _ => None,
                };
                let end = outcome.map(|outcome| RunEnd::unstarted(outcome, now));
                if records_kept {
                    records.push(crate::task::RunRecord { end: end.clone(), ..run.record(now) });
                }
                match end {
                    Some(end) => {
                        self.estate.flight.doom(&run, end.clone());
                        cargo.ended.push((index, run, end));
                    }
                    None => cargo.runs.push((index, run)),
                }
            }
            if plan.finished {
                cargo.finished.push((index, task.spec.id.clone(), plan.then == Then::Remove));
            }
            if let Some(error) = plan.stalled {
                cargo.stalled.push((index, task.spec.id.clone(), error.to_string()));
            }
            changes.push(Change {
                id: task.spec.id.clone(),
                revision: task.state.revision,
                then: plan.then,
                runs: records,
            });
        }
        Decided { changes, cargo, deferrals, again }
    }

    fn committed(
        &mut self,
        tick: Tick,
        now: DateTime<Utc>,
        more: bool,
        cargo: Cargo,
        committed: Result<Committed, StoreError>,
        ctx: &mut Context<Self>,
    ) {
        let committed = match committed {
            Ok(committed) if self.is_current(&tick) => committed,
            other => {
                // Whether it was written down is not known; nothing was submitted.
                let runs = cargo.runs.into_iter().map(|(_, run)| (run, None));
                let ended = cargo.ended.into_iter().map(|(_, run, end)| (run, Some(end)));
                let doubtful = runs.chain(ended).collect();
                let removed = cargo.finished.into_iter().filter(|(.., gone)| *gone).map(|(_, id, _)| id);
                self.perhaps_removed(&tick.store, removed);
                let (store, current) = (tick.store.clone(), self.is_current(&tick));
                match other {
                    Err(error) if current => self.tick_failed(tick, error, ctx),
                    _ => {}
                }
                return self.doubt(&store, doubtful, ctx);
            }
        };
        let refused = |index: &usize| committed.refused.binary_search(index).is_ok();
        let mut submit = Vec::with_capacity(cargo.runs.len());
        for (index, run) in cargo.runs {
            if refused(&index) {
                self.estate.flight.leave(&run);
            } else {
                submit.push(run);
            }
        }
        let mut ended = Vec::new();
        for (index, run, end) in cargo.ended {
            if refused(&index) {
                self.estate.flight.leave(&run);
            } else {
                ended.push((run, end));
            }
        }
        self.submit(submit, cargo.seats, tick.busy.clone());
        self.end_recorded(ended);

        let mut events = Vec::new();
        for (_, id, cause) in cargo.stalled.into_iter().filter(|(index, ..)| !refused(index)) {
            tracing::error!(scheduler = %self.settings.name, store = %tick.store, task = %id, %cause, "the trigger failed; the task was paused");
            events.push(Event::TaskStalled { id, store: tick.store.clone(), cause });
        }
        for (_, id, gone) in cargo.finished.into_iter().filter(|(index, ..)| !refused(index)) {
            if gone {
                self.retire_life(&id, &tick.store);
                self.estate.farewells.note(now, &tick.store, &id);
            }
            let event = schedule_ended(id, &tick.store, gone);
            if self.wants(event.mask()) {
                events.push(event);
            }
        }
        self.publish(events);
        let more = more || committed.next_due.is_some_and(|due| due <= now);
        self.end_tick(tick, committed.next_due, more, ctx);
    }

    fn end_tick(&mut self, tick: Tick, next_due: Option<DateTime<Utc>>, more: bool, ctx: &mut Context<Self>) {
        let Some(slot) = self.estate.stores.get_mut(&tick.store) else { return };
        slot.end_tick(next_due);
        // Another request may have found trouble meanwhile: that ends when the store is opened again.
        let works = slot.problem.is_none();
        if works {
            slot.failures = 0;
        }
        let more = more || self.estate.waitlist.has_called(&tick.store);
        if more && works && self.may_tick(&tick.store) {
            self.begin_tick(&tick.store, tick.busy, ctx);
        }
        self.arm(ctx);
    }

    fn tick_failed(&mut self, tick: Tick, error: StoreError, ctx: &mut Context<Self>) {
        if let Some(slot) = self.estate.stores.get_mut(&tick.store) {
            slot.ticking = false;
            slot.release_waiting();
        }
        self.store_failed(&tick.store, &error);
        self.arm(ctx);
    }
}
