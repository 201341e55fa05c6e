use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use chrono::{DateTime, Utc};
use futures::channel::oneshot;

use super::flight::Flight;
use super::lives::{Leaving, LifeSlot};
use super::locks::LockPath;
use super::pending::PendingTasks;
use super::replan::Farewells;
use super::slot::{ExecutorSlot, StoreSlot};
use super::turn::Turns;
use super::usher::Usher;
use super::waitlist::Waitlist;
use super::wake::{Seen, Wake};
use super::zones::{InForce, Watched};
use super::{SchedulerState, Started};
use crate::clock::{Busy, Clock};
use crate::error::Error;
use crate::event::{Event, EventBus, EventMask, Publish, Wanted, Watch};
use crate::task::{Alias, OwnerId, Registry, RunId, TaskDefaults, TaskId};
use crate::timezones::Timezones;
use crate::trigger::Zone;

/// The actor that conducts: it owns the lifecycle, the timer, the aliases of stores and executors,
/// the tasks that wait for the start and the runs in flight. See the [module](super).
///
/// Build one with [`Scheduler::builder`]; talk to it through its [`Handle`](super::Handle) or with
/// the messages of [`message`](super::message).
pub struct Scheduler {
    pub(super) settings: Arc<Settings>,
    pub(super) estate: Estate,
    pub(super) bus: Addr<EventBus>,
    /// The kinds of events anybody listens to; others are not built.
    pub(super) wanted: EventMask,
    pub(super) wake: Wake,
    /// The timer of the next look at the time zone database.
    pub(super) zones_nap: Option<SpawnHandle>,
    /// The timer of the startup delay, while it lasts.
    pub(super) held_back: Option<SpawnHandle>,
    /// Tasks that waited for their store are being committed.
    pub(super) committing: bool,
    pub(super) last_seen: DateTime<Utc>,
    /// The control messages under way, by task.
    pub(super) turns: Turns,
    /// Who asked for a start while one was under way.
    pub(super) starting: Vec<oneshot::Sender<Result<Started, Error>>>,
    /// Who waits for the shutdown under way.
    pub(super) stopping: Vec<oneshot::Sender<()>>,
    /// Shutdown tasks not submitted yet, and who waits for them.
    pub(super) shutdown_runs: usize,
    pub(super) shutdown_bell: Option<oneshot::Sender<()>>,
    /// Who passes notices on to this actor and its successors.
    pub(super) usher: Addr<Usher>,
    /// Keeps a virtual clock still until it has begun.
    pub(super) beginning: Option<Busy>,
    /// Where the estate goes when the actor dies.
    pub(super) will: std::sync::mpsc::Sender<Estate>,
    /// Dropped last: it tells the guardian that the actor has ended.
    pub(super) _keep: Box<dyn Send>,
}

/// What does not change while the scheduler lives.
#[derive(Debug)]
pub(super) struct Settings {
    pub name: String,
    pub identity: String,
    pub registry: Registry,
    pub timezone: Zone,
    pub zones: InForce,
    /// Where they are from; `None` when they were handed in.
    pub timezones: Option<Timezones>,
    /// Whether its files are looked at now and then.
    pub watches_timezones: bool,
    pub clock: Clock,
    pub defaults: TaskDefaults,
    pub store_retry: Duration,
    pub store_deadline: Duration,
    pub batch: usize,
    pub lock_path: Option<LockPath>,
    pub startup_delay: Duration,
    pub strict: bool,
    /// After how long a run that cannot begin is refused, where the builder says so.
    pub unroutable_after: Option<Duration>,
    /// A clock set back by more than this was ahead.
    pub replan_after_jump: chrono::TimeDelta,
}

/// What a successor inherits when the actor dies of a panic.
#[derive(Default)]
pub(super) struct Estate {
    pub state: Lifecycle,
    pub stores: BTreeMap<Alias, StoreSlot>,
    pub executors: BTreeMap<Alias, ExecutorSlot>,
    pub pending: PendingTasks,
    pub flight: Flight,
    pub waitlist: Waitlist,
    pub lives: BTreeMap<TaskId, LifeSlot>,
    /// Lives that end, of lifecycles that are gone.
    pub leaving: Vec<Leaving>,
    pub owner: Option<OwnerId>,
    pub serial: u64,
    /// Tells slots of one alias apart over time.
    pub generation: u64,
    /// What tells that somebody has set the clock.
    pub seen: Seen,
    /// Tasks whose schedules have ended of late.
    pub farewells: Farewells,
    /// What is known of the time zone database.
    pub watched: Watched,
    /// The latest time at which a task was added.
    pub latest_added: DateTime<Utc>,
    /// What ends with the scheduler, once no handle is left.
    pub retired: Option<(ArbiterHandle, Option<System>)>,
}

/// Where the scheduler is in its life.
pub(super) struct Lifecycle {
    pub state: SchedulerState,
    /// How often it was started; only the outermost shutdown acts.
    pub depth: u32,
    pub started_at: Option<(DateTime<Utc>, Duration)>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self { state: SchedulerState::Stopped, depth: 0, started_at: None }
    }
}

impl Scheduler {
    /// Sets up a scheduler.
    pub fn builder() -> super::Builder {
        super::Builder::new()
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.settings.clock
    }

    pub(super) fn state(&self) -> SchedulerState {
        self.estate.state.state
    }

    /// Whether stores and executors are at work, or being raised.
    pub(super) fn is_raised(&self) -> bool {
        self.is_open() || self.state() == SchedulerState::Starting
    }

    /// Whether stores and executors are at work.
    pub(super) fn is_open(&self) -> bool {
        matches!(
            self.state(),
            SchedulerState::Running | SchedulerState::Paused | SchedulerState::ShuttingDown
        )
    }

    /// Publishes events, all of which somebody may want.
    pub(super) fn publish(&self, events: Vec<Event>) {
        if !events.is_empty() {
            self.bus.do_send(Publish { events, busy: self.clock().busy() });
        }
    }

    /// Publishes one event, if anybody wants its kind.
    pub(super) fn tell(&self, event: Event) {
        if self.wanted.intersects(event.mask()) {
            self.publish(vec![event]);
        }
    }

    pub(super) fn wants(&self, kind: EventMask) -> bool {
        self.wanted.intersects(kind)
    }

    pub(super) fn owner(&mut self) -> OwnerId {
        let now = self.settings.clock.now();
        *self.estate.owner.get_or_insert_with(|| OwnerId::generate(now))
    }

    pub(super) fn next_run_id(&mut self) -> RunId {
        self.estate.serial += 1;
        RunId { owner: self.owner(), serial: self.estate.serial }
    }

    /// The aliases of stores, for messages to people.
    pub(super) fn store_names(&self) -> Vec<String> {
        self.estate.stores.keys().map(Alias::to_string).collect()
    }

    /// The aliases of executors, for messages to people.
    pub(super) fn executor_names(&self) -> Vec<String> {
        self.estate.executors.keys().map(Alias::to_string).collect()
    }
}

impl Actor for Scheduler {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.bus.do_send(Watch(ctx.address().recipient()));
        self.inherit(ctx);
        self.estate.seen.begin(&self.settings.clock);
        self.beginning = None;
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        // Nobody to inherit means that the whole system ends.
        self.will.send(std::mem::take(&mut self.estate)).ok();
    }
}

impl Handler<Wanted> for Scheduler {
    type Result = ();

    fn handle(&mut self, Wanted(mask): Wanted, _: &mut Self::Context) {
        self.wanted = mask;
    }
}

#[cfg(feature = "testing")]
impl Handler<super::message::Crash> for Scheduler {
    type Result = ();

    fn handle(&mut self, _: super::message::Crash, _: &mut Self::Context) {
        panic!("asked to");
    }
}

impl std::fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scheduler")
            .field("name", &self.settings.name)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}
