//! What the scheduler knows of each store and executor.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use futures::channel::oneshot;
use futures::future::AbortHandle;

use super::keeper::Keeper;
use super::ledger::Ledger;
use super::locks::StoreLock;
use super::replan::Replanning;
use crate::error::Error;
use crate::executor::{ExecutorAddr, ExecutorSource};
use crate::store::message::KeptRules;
use crate::store::{Capabilities, StoreAddr, StoreError, StoreSource};
use crate::supervision::RestartPolicy;
use crate::task::{Alias, TaskId};

/// So many reasons for which records cannot be read are shown.
const REASONS: usize = 8;

pub(super) struct StoreSlot {
    /// Tells it from a later one of the same alias.
    pub serial: u64,
    /// Who waits for it to be gone, once it is being removed.
    pub leaving: Option<Vec<oneshot::Sender<()>>>,
    pub keeper: Keeper<Box<dyn StoreSource>>,
    /// The lock between processes; `None` when there is none.
    pub lock: Option<StoreLock>,
    /// The actor, opened or not.
    pub child: Option<StoreAddr>,
    /// The actor, once it is open.
    pub addr: Option<StoreAddr>,
    pub generation: u64,
    pub capabilities: Capabilities,
    /// Whether it can keep closures, as far as is known.
    pub closures: Option<bool>,
    pub next_due: Option<DateTime<Utc>>,
    pub ticking: bool,
    /// The earliest due time of what was written while a tick was under way: the tick's answer may
    /// be older than that.
    noted: Option<DateTime<Utc>>,
    /// What is owed between it and the scheduler.
    pub ledger: Ledger,
    /// Whether somebody has paused it: none of its runs begin.
    pub paused: bool,
    /// How many moves of tasks from or to it are under way: none of its runs begin meanwhile.
    pub moves: u32,
    /// What is the matter with it.
    pub problem: Option<String>,
    pub retry_at: Option<DateTime<Utc>>,
    pub failures: u32,
    /// Whether next runs are to be worked out again.
    pub replanning: Replanning,
    /// Whether next runs are to be worked out by other rules of time zones.
    pub rezoning: Replanning,
    /// By which rules its next runs were worked out, as far as is known.
    pub rules: Option<KeptRules>,
    /// The tasks whose records cannot be read, and why: nobody needs to be told twice.
    pub unreadable: BTreeSet<(String, String)>,
    after_tick: Vec<oneshot::Sender<()>>,
    pub opening: Vec<oneshot::Sender<Result<(), Error>>>,
    /// Ends whoever listens for what fails in it while nobody asks.
    pub listening: Option<AbortHandle>,
}

impl StoreSlot {
    pub(super) fn new(serial: u64, source: Box<dyn StoreSource>, policy: RestartPolicy) -> Self {
        Self {
            serial,
            leaving: None,
            closures: source.keeps_closures(),
            keeper: Keeper::Source(source, policy),
            lock: None,
            child: None,
            addr: None,
            generation: 0,
            capabilities: Capabilities::default(),
            next_due: None,
            ticking: false,
            noted: None,
            ledger: Ledger::default(),
            paused: false,
            moves: 0,
            problem: None,
            retry_at: None,
            failures: 0,
            replanning: Replanning::No,
            rezoning: Replanning::No,
            rules: None,
            unreadable: BTreeSet::new(),
            after_tick: Vec::new(),
            opening: Vec::new(),
            listening: None,
        }
    }

    /// The error of a store that cannot be asked.
    pub(super) fn down(&self, alias: &Alias) -> Error {
        let reason = self.problem.clone().unwrap_or_else(|| "it is not open yet".to_owned());
        Error::Store { store: alias.clone(), source: StoreError::unavailable(reason) }
    }

    /// Whether a tick may begin. Not while runs are in doubt: a tick moves on the tasks that tell
    /// whether these were decided.
    pub(super) fn is_ready(&self) -> bool {
        self.addr.is_some()
            && !self.ticking
            && self.problem.is_none()
            && !self.ledger.has_unanswered()
            && self.may_begin()
    }

    /// Whether its runs may begin here: nobody holds it, no other process may begin them, and they are
    /// planned by the rules of time zones that are in force.
    pub(super) fn may_begin(&self) -> bool {
        !self.paused && self.moves == 0 && self.has_lock() && self.rezoning == Replanning::No
    }

    /// What is the matter with its unreadable records.
    pub(super) fn reasons(&self) -> Vec<String> {
        let reasons: BTreeSet<&String> = self.unreadable.iter().map(|(_, reason)| reason).collect();
        reasons.into_iter().take(REASONS).cloned().collect()
    }

    /// Whether next runs are to be worked out again, and can be: runs in doubt are judged by the tasks as
    /// they are.
    pub(super) fn can_replan(&self) -> bool {
        let works =
            self.addr.is_some() && self.problem.is_none() && !self.ledger.has_unanswered() && self.has_lock();
        self.replanning == Replanning::Wanted && works
    }

    /// Whether next runs are to be worked out by other rules of time zones, and can be.
    pub(super) fn can_rezone(&self) -> bool {
        let works =
            self.addr.is_some() && self.problem.is_none() && !self.ledger.has_unanswered() && self.has_lock();
        let stands = !self.ticking && self.moves == 0 && self.replanning != Replanning::UnderWay;
        self.rezoning == Replanning::Wanted && works && stands
    }

    /// Whether the record of a task is among those that could not be read when the store was opened.
    pub(super) fn is_unreadable(&self, id: &TaskId) -> bool {
        let first = (id.to_string(), String::new());
        self.unreadable.range(first..).next().is_some_and(|(unreadable, _)| unreadable == id.as_str())
    }

    /// Whether no other process may begin its runs.
    pub(super) fn has_lock(&self) -> bool {
        self.lock.as_ref().is_none_or(StoreLock::is_held)
    }

    /// When the timer must ring for this store.
    pub(super) fn wants_attention(&self, running: bool) -> Option<DateTime<Utc>> {
        let work = match self.retry_at {
            Some(retry) => Some(retry),
            None if running && self.is_ready() => self.next_due,
            None => None,
        };
        work.into_iter().chain(self.lock.as_ref().and_then(StoreLock::look_at)).min()
    }

    /// The wall clock was moved by `jump`, backwards: what waits for a time of it is to wait no
    /// longer for that.
    pub(super) fn clock_set_back(&mut self, jump: TimeDelta) {
        self.retry_at = self.retry_at.and_then(|at| at.checked_add_signed(jump));
        if let Some(lock) = &mut self.lock {
            lock.clock_set_back(jump);
        }
    }

    /// Something is due at `due`; says whether that is news.
    pub(super) fn note_due(&mut self, due: DateTime<Utc>) -> bool {
        let earlier = |known: Option<DateTime<Utc>>| known.is_none_or(|known| due < known);
        if self.ticking && earlier(self.noted) {
            self.noted = Some(due);
        }
        let news = earlier(self.next_due);
        if news {
            self.next_due = Some(due);
        }
        news
    }

    /// The tick under way has ended, and the store said when its next task is due.
    pub(super) fn end_tick(&mut self, next_due: Option<DateTime<Utc>>) {
        self.ticking = false;
        self.next_due = [next_due, self.noted.take()].into_iter().flatten().min();
        self.release_waiting();
    }

    /// Rings when the tick under way has submitted what it decided; `None` when there is none.
    pub(super) fn after_tick(&mut self) -> Option<oneshot::Receiver<()>> {
        self.ticking.then(|| {
            let (bell, wait) = oneshot::channel();
            self.after_tick.push(bell);
            wait
        })
    }

    pub(super) fn release_waiting(&mut self) {
        for bell in self.after_tick.drain(..) {
            bell.send(()).ok();
        }
    }

    /// Forgets what was under way with an actor that is gone.
    pub(super) fn reset(&mut self, generation: u64) {
        self.generation = generation;
        if let Some(lock) = &mut self.lock {
            lock.forget_look();
        }
        self.addr = None;
        self.ticking = false;
        self.noted = None;
        self.replanning.reset();
        self.rezoning.reset();
        self.moves = 0;
        self.ledger.reopened();
        self.release_waiting();
    }
}

pub(super) struct ExecutorSlot {
    /// Tells it from a later one of the same alias.
    pub serial: u64,
    pub keeper: Keeper<Box<dyn ExecutorSource>>,
    pub addr: Option<ExecutorAddr>,
    /// Its actor, while it is being removed.
    pub leaving: Option<ExecutorAddr>,
    /// Why it takes no runs.
    pub problem: Option<String>,
    /// Whether its actor has died, or stopped, and has no successor yet.
    pub down: bool,
    /// Whether it can run closures.
    pub closures: bool,
}

impl ExecutorSlot {
    pub(super) fn new(serial: u64, source: Box<dyn ExecutorSource>, policy: RestartPolicy) -> Self {
        Self {
            serial,
            leaving: None,
            closures: source.runs_closures(),
            keeper: Keeper::Source(source, policy),
            addr: None,
            problem: Some("it has not been started".to_owned()),
            down: false,
        }
    }
}
