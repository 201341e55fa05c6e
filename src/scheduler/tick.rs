//! The hot path: take what is due, decide, commit, submit.

use std::collections::HashMap;
use std::sync::Arc;

use actix::prelude::*;
use chrono::{DateTime, TimeDelta, Utc};

use super::SchedulerState;
use super::actor::Scheduler;
use super::locks::StoreLock;
use super::plan;
use super::session::within;
use super::settle::schedule_ended;
use crate::clock::Busy;
use crate::event::{Event, EventMask, RunFact};
use crate::store::StoreError;
use crate::store::message::{Change, Commit, Committed, Due, NextDue, TakeDue, Then};
use crate::task::{
    Alias, Code, Failure, Handler, Outcome, Refusal, Run, RunEnd, Source, StoredTask, TaskContext, TaskId,
    TaskSpec,
};

/// One store's tick under way.
pub(super) struct Tick {
    store: Alias,
    generation: u64,
    busy: Busy,
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
}

impl Scheduler {
    /// The timer has rung.
    pub(super) fn woke(&mut self, busy: Busy, ctx: &mut Context<Self>) {
        self.wake.rung();
        self.last_seen = self.clock().now();
        if let Some(jump) = self.estate.seen.look(&self.settings.clock) {
            tracing::warn!(scheduler = %self.settings.name, by_ms = jump.num_milliseconds(), "the clock jumped");
            self.tell(Event::ClockJumped { by_ms: jump.num_milliseconds() });
            if jump < TimeDelta::zero() {
                self.estate.stores.values_mut().for_each(|slot| slot.clock_set_back(jump));
            }
        }
        let now = self.last_seen;
        self.retry_stores(now, &busy, ctx);
        self.look_at_locks(now, &busy, ctx);
        if self.ticks() {
            let due: Vec<Alias> = self
                .estate
                .stores
                .iter()
                .filter(|(_, slot)| slot.is_ready() && slot.next_due.is_some_and(|due| due <= now))
                .map(|(alias, _)| alias.clone())
                .collect();
            for alias in due {
                self.begin_tick(&alias, busy.clone(), ctx);
            }
        }
        self.arm(ctx);
    }

    /// Arms the timer for the earliest thing to do.
    pub(super) fn arm(&mut self, ctx: &mut Context<Self>) {
        let running = self.ticks();
        let next = self.estate.stores.values().filter_map(|slot| slot.wants_attention(running)).min();
        if self.is_open() {
            self.estate.seen.begin(&self.settings.clock);
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
        let tick = Tick { store: alias.clone(), generation: slot.generation, busy };
        let now = self.settings.clock.now();
        let due = addr.take_due(TakeDue { now, limit: self.settings.batch });
        let due = within(&self.settings, due).into_actor(self);
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
            return self.ask_next_due(tick, ctx);
        }
        let (changes, cargo) = self.decide(&tick.store, due.tasks, now);
        let Some(addr) = self.estate.stores.get(&tick.store).and_then(|slot| slot.addr.clone()) else {
            return;
        };
        let commit = within(&self.settings, addr.commit(Commit { changes })).into_actor(self);
        ctx.spawn(commit.map(move |committed, scheduler, ctx| {
            scheduler.committed(tick, now, due.more, cargo, committed, ctx);
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
    fn decide(&mut self, store: &Alias, tasks: Vec<StoredTask>, now: DateTime<Utc>) -> (Vec<Change>, Cargo) {
        let records_kept =
            self.estate.stores.get(store).is_some_and(|slot| slot.capabilities.keeps_records());
        let mut cargo = Cargo {
            runs: Vec::with_capacity(tasks.len()),
            ended: Vec::new(),
            finished: Vec::new(),
            stalled: Vec::new(),
        };
        let lock = self.estate.stores.get(store).and_then(|slot| slot.lock.as_ref());
        let others_until = lock.and_then(StoreLock::others_until);
        let mut changes = Vec::with_capacity(tasks.len());
        for (index, task) in tasks.into_iter().enumerate() {
            let mut task = self.settings.resolved(task);
            if let Some(until) = others_until {
                plan::pass_over(&mut task, until);
            }
            let refusal = self.refusal(&task.spec);
            let plan = plan::tick(&task, now, refusal.as_ref(), || self.estate.flight.running(&task.spec.id));
            let mut records = Vec::new();
            if let Some(missed) = plan.missed {
                let late = (now - missed.first.due).num_milliseconds().max(0) as u64;
                let end = RunEnd::unstarted(Outcome::Missed { late_ms: late }, now);
                let run = self.board(&task, store, |run| {
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
                let run = self.board(&task, store, |run| {
                    run.nominal = planned.fire.nominal;
                    run.due = planned.fire.due;
                    run.coalesced = planned.coalesced;
                    run.span = plan.span_of(&planned, task.state.next, now);
                    run.source = planned.source;
                    run.attempt = planned.attempt;
                    run.submitted_at = now;
                });
                let end = refusal.clone().map(|reason| RunEnd {
                    retry_at: planned.retry_at,
                    ..RunEnd::unstarted(Outcome::Refused { reason }, now)
                });
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
        (changes, cargo)
    }

    /// Makes a run and takes it on board.
    pub(super) fn board(
        &mut self,
        StoredTask { spec, state }: &StoredTask,
        store: &Alias,
        set: impl FnOnce(&mut Run),
    ) -> Arc<Run> {
        let id = self.next_run_id();
        let code = match &spec.handler {
            Handler::Named(name) => self.code(name).cloned(),
            Handler::Closure(code) => Some(code.clone()),
        };
        let code = code.unwrap_or_else(|| {
            // Never run: `refusal` turns the run away first.
            Code::from_async(|_: TaskContext, _: serde_json::Value| async {
                Err::<(), _>(Failure::new("no such handler"))
            })
        });
        self.estate.flight.board(|slot| {
            let mut run = Run::new(id, spec.clone(), store.clone(), DateTime::UNIX_EPOCH, code);
            (run.slot, run.added_at) = (slot, state.created_at);
            set(&mut run);
            run
        })
    }

    /// Why the runs of a task cannot even be handed to an executor.
    pub(super) fn refusal(&self, spec: &TaskSpec) -> Option<Refusal> {
        if let Handler::Named(name) = &spec.handler
            && self.code(name).is_none()
        {
            return Some(Refusal::UnknownHandler { handler: name.to_string() });
        }
        let executor = &spec.executor;
        match self.estate.executors.get(executor) {
            None => Some(Refusal::UnknownExecutor { executor: executor.to_string() }),
            Some(slot) => slot.problem.as_ref().map(|problem| Refusal::ExecutorUnavailable {
                executor: executor.to_string(),
                reason: problem.clone(),
            }),
        }
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
        self.submit(submit, tick.busy.clone(), ctx);
        self.end_recorded(ended);

        let mut events = Vec::new();
        for (_, id, cause) in cargo.stalled.into_iter().filter(|(index, ..)| !refused(index)) {
            tracing::error!(scheduler = %self.settings.name, store = %tick.store, task = %id, %cause, "the trigger failed; the task was paused");
            events.push(Event::TaskStalled { id, store: tick.store.clone(), cause });
        }
        for (_, id, gone) in cargo.finished.into_iter().filter(|(index, ..)| !refused(index)) {
            if gone {
                self.retire_life(&id, &tick.store);
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

    /// Hands runs to their executors, one message each.
    pub(super) fn submit(&mut self, runs: Vec<Arc<Run>>, busy: Busy, ctx: &mut Context<Self>) {
        if self.wants(EventMask::TASK_SUBMITTED) {
            self.publish(runs.iter().map(|run| Event::TaskSubmitted(RunFact(run.clone()))).collect());
        }
        let mut rest = runs;
        while let Some(first) = rest.first() {
            // Nearly always all runs go to one executor, and nothing is copied.
            let executor = first.task.executor.clone();
            let batch;
            if rest.iter().all(|run| run.task.executor.same(&executor)) {
                batch = std::mem::take(&mut rest);
            } else {
                (batch, rest) = rest.into_iter().partition(|run| run.task.executor == executor);
            }
            self.submit_batch(&executor, batch, busy.clone(), ctx);
        }
    }

    fn submit_batch(&mut self, executor: &Alias, runs: Vec<Arc<Run>>, busy: Busy, ctx: &mut Context<Self>) {
        let Some(addr) = self.estate.executors.get(executor).and_then(|slot| slot.addr.clone()) else {
            return self.interrupt(runs, "its executor went away before it began", ctx);
        };
        for run in &runs {
            self.estate.flight.depart(run);
        }
        drop(self.hand_over(&addr, runs, busy));
    }

    fn end_tick(&mut self, tick: Tick, next_due: Option<DateTime<Utc>>, more: bool, ctx: &mut Context<Self>) {
        let Some(slot) = self.estate.stores.get_mut(&tick.store) else { return };
        slot.end_tick(next_due);
        // Another request may have found trouble meanwhile: that ends when the store is opened again.
        let works = slot.problem.is_none();
        if works {
            slot.failures = 0;
        }
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

    /// How many runs of each task are in flight, for listings.
    pub(super) fn running_counts(&self) -> HashMap<TaskId, u32> {
        let mut counts = HashMap::new();
        for run in self.estate.flight.iter() {
            *counts.entry(run.task.id.clone()).or_insert(0) += 1;
        }
        counts
    }

    /// A run asked for by somebody or by the shutdown trigger.
    pub(super) fn board_on_demand(
        &mut self,
        task: &StoredTask,
        store: &Alias,
        source: Source,
        force: bool,
        now: DateTime<Utc>,
    ) -> Arc<Run> {
        self.board(task, store, |run| {
            (run.nominal, run.due, run.submitted_at) = (now, now, now);
            run.source = source;
            run.force = force;
        })
    }
}
