use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use chrono::TimeDelta;

use super::actor::{Estate, Scheduler, Settings};
use super::arbiter;
use super::handle::Handle;
use super::locks::{LockPath, StoreLock};
use super::message::Start;
use super::slot::{ExecutorSlot, StoreSlot};
use super::turn::Turns;
use super::usher::Usher;
use super::wake::Wake;
use super::zones::{InForce, Watched};
use crate::clock::Clock;
use crate::error::Error;
use crate::event::{EventBus, EventMask};
use crate::executor::{AsyncExecutor, ExecutorSource};
use crate::store::{MemoryStore, StoreSource};
use crate::supervision::{Guardian, Link, RestartPolicy};
use crate::task::{Alias, Registry, TaskDefaults};
use crate::timezones::Timezones;
use crate::trigger::{Zone, Zones};

/// Sets up a scheduler; from [`Scheduler::builder`].
///
/// Nothing needs to be set: unless a store of that name is added there is a memory store called
/// `default`, and unless an executor of that name is added an async executor called `default`, whatever
/// else there is.
///
/// ```
/// use callboard::prelude::*;
///
/// # #[actix::main]
/// # async fn main() -> Result<(), callboard::Error> {
/// let scheduler = Scheduler::builder()
///     .name("letters")
///     .timezone(chrono_tz::Europe::Lisbon)
///     .defaults(TaskDefaults { max_instances: 4, ..TaskDefaults::default() })
///     .start()
///     .await?;
/// scheduler.shutdown(Shutdown::now()).await
/// # }
/// ```
pub struct Builder {
    name: String,
    identity: Option<String>,
    registry: Registry,
    timezone: Zone,
    timezones: Option<Timezones>,
    zones: Option<Arc<Zones>>,
    clock: Clock,
    defaults: TaskDefaults,
    store_retry: Duration,
    store_deadline: Duration,
    batch: usize,
    lock_path: Option<String>,
    startup_delay: Option<Duration>,
    strict: bool,
    unroutable_after: Option<Duration>,
    replan_after_jump: Duration,
    stores: Vec<(String, Box<dyn StoreSource>, Option<RestartPolicy>)>,
    executors: Vec<(String, Box<dyn ExecutorSource>, Option<RestartPolicy>)>,
    latest: Option<Latest>,
}

/// What was added last.
enum Latest {
    Store,
    Executor,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            name: "callboard".to_owned(),
            identity: None,
            registry: Registry::new(),
            timezone: Zone::UTC,
            timezones: None,
            zones: None,
            clock: Clock::system(),
            defaults: TaskDefaults::default(),
            store_retry: Duration::from_secs(1),
            store_deadline: Duration::from_secs(30),
            batch: 2048,
            lock_path: None,
            startup_delay: None,
            strict: false,
            unroutable_after: None,
            replan_after_jump: Duration::from_secs(3600),
            stores: Vec::new(),
            executors: Vec::new(),
            latest: None,
        }
    }

    /// A name, for logs and status pages. Default: `callboard`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The scheduler's identity among those that share a store. Default: its name.
    pub fn identity(mut self, identity: impl Into<String>) -> Self {
        self.identity = Some(identity.into());
        self
    }

    /// The code that tasks may name.
    pub fn registry(mut self, registry: Registry) -> Self {
        self.registry = registry;
        self
    }

    /// The zone in which triggers are read that name none. Default: UTC.
    pub fn timezone(mut self, zone: impl Into<Zone>) -> Self {
        self.timezone = zone.into();
        self
    }

    /// Which time zone database says what clocks show. It is read when the scheduler is built. Default:
    /// the system's or the bundled one, whichever is newer ([`Timezones::Newest`]).
    ///
    /// While the scheduler works its files are looked at every minute. When they have changed, their rules
    /// are in force from then on, and next runs are moved to where these say they are: see the
    /// [guide](crate::guide::time#when-the-law-changes). One that cannot be used changes nothing. With a
    /// virtual clock only a database that was set here is looked at.
    ///
    /// ```
    /// use callboard::prelude::*;
    /// use callboard::timezones::Timezones;
    ///
    /// # #[actix::main]
    /// # async fn main() -> Result<(), callboard::Error> {
    /// let scheduler = Scheduler::builder().timezones(Timezones::Bundled).start().await?;
    /// assert_eq!(scheduler.status().await?.timezones.source, "bundled");
    /// # scheduler.shutdown(Shutdown::now()).await
    /// # }
    /// ```
    pub fn timezones(mut self, source: Timezones) -> Self {
        (self.timezones, self.zones) = (Some(source), None);
        self
    }

    /// The rules of time zones themselves, in place of a [source](Self::timezones) of them.
    pub fn zones(mut self, zones: Arc<Zones>) -> Self {
        (self.timezones, self.zones) = (None, Some(zones));
        self
    }

    /// A source of rules, and what was read from it a moment ago.
    #[cfg(feature = "cli")]
    pub(crate) fn timezones_read(mut self, source: Timezones, zones: Arc<Zones>) -> Self {
        (self.timezones, self.zones) = (Some(source), Some(zones));
        self
    }

    /// The clock. Default: the machine's.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// What tasks are given that leave an option out.
    pub fn defaults(mut self, defaults: TaskDefaults) -> Self {
        self.defaults = defaults;
        self
    }

    /// Adds a store under an alias.
    pub fn store(mut self, alias: impl Into<String>, source: impl StoreSource) -> Self {
        self.stores.push((alias.into(), Box::new(source), None));
        self.latest = Some(Latest::Store);
        self
    }

    /// Adds an executor under an alias.
    pub fn executor(mut self, alias: impl Into<String>, source: impl ExecutorSource) -> Self {
        self.executors.push((alias.into(), Box::new(source), None));
        self.latest = Some(Latest::Executor);
        self
    }

    /// What is done when the actor of the store or executor added last dies. Default: it is started
    /// again, at most five times a minute, after a growing delay.
    pub fn restart(mut self, policy: RestartPolicy) -> Self {
        let slot = match self.latest {
            Some(Latest::Store) => self.stores.last_mut().map(|(_, _, slot)| slot),
            Some(Latest::Executor) => self.executors.last_mut().map(|(_, _, slot)| slot),
            None => None,
        };
        if let Some(slot) = slot {
            *slot = Some(policy);
        }
        self
    }

    /// How long to wait before a store that failed is tried again; doubles up to sixty times this.
    /// Default: 1 s.
    pub fn store_retry(mut self, delay: Duration) -> Self {
        self.store_retry = delay;
        self
    }

    /// How long a store may take to answer before it counts as unavailable. One that fails may take
    /// twice as long at each further try to be opened, up to eight times this. Default: 30 s.
    pub fn store_deadline(mut self, deadline: Duration) -> Self {
        self.store_deadline = deadline;
        self
    }

    /// How many due tasks are dealt with at a time. Default: 2048.
    pub fn batch(mut self, tasks: usize) -> Self {
        self.batch = tasks;
        self
    }

    /// Of several processes that run the same program, lets only one begin the runs of each store: the
    /// one that holds the store's lock, a file at this path. `{store}` in it stands for the store's
    /// alias, `{pgrp}` for the process group (cargo feature `lock`), `{ppid}` for the parent process,
    /// `{{` for a brace. The others serve everything else, and look again after each
    /// [`store_retry`](Self::store_retry); when the holder dies, the system frees its lock and one of
    /// them takes over. [`StoreStatus::lock`](super::StoreStatus::lock) and the events
    /// [`LockTaken`](crate::event::Event::LockTaken), [`LockAwaited`](crate::event::Event::LockAwaited)
    /// and [`LockLost`](crate::event::Event::LockLost) tell. Default: no locks.
    ///
    /// A store that one process can open at a time is opened by the one that comes first; in the others
    /// it is unavailable, is tried again after each `store_retry`, and their pending tasks wait for it.
    ///
    /// The directory must exist, on a file system of this machine. Nobody should remove the file; if
    /// somebody does, the holder notices within ten seconds.
    ///
    /// ```
    /// use callboard::prelude::*;
    ///
    /// # #[actix::main]
    /// # async fn main() -> Result<(), callboard::Error> {
    /// let path = std::env::temp_dir().join("callboard-example-{store}-{ppid}.lock");
    /// let scheduler = Scheduler::builder().lock_path(path.display().to_string()).start().await?;
    /// # scheduler.shutdown(Shutdown::now()).await
    /// # }
    /// ```
    pub fn lock_path(mut self, template: impl Into<String>) -> Self {
        self.lock_path = Some(template.into());
        self
    }

    /// How long after its start the scheduler begins the first run. Default: none; one second with a
    /// [`lock_path`](Self::lock_path).
    pub fn startup_delay(mut self, delay: Duration) -> Self {
        self.startup_delay = Some(delay);
        self
    }

    /// Whether a start fails, and leaves nothing running, when any store cannot be opened or any
    /// pending task cannot be put into its store. Default: no. Then whatever works is started, and
    /// [`Started`](super::Started) says what was left out; only when no store at all opens does the
    /// start fail.
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// How long a run waits that cannot begin, because its executor is not there, has failed, is being
    /// started again or is full, or because its handler is not registered. Then it is refused, once, with
    /// an outcome; one with a [`misfire_grace`](crate::task::Task::misfire_grace) that is over before is
    /// missed. Until then the task stays due in its store. Default: without an end; 10 minutes in a store
    /// that [several schedulers share](crate::store::Capabilities::shared).
    pub fn unroutable_after(mut self, time: Duration) -> Self {
        self.unroutable_after = Some(time);
        self
    }

    /// By how much more than this the wall clock has to be set back for next runs to be worked out again:
    /// then it is taken to have been ahead, and what it made pass over is open again. After a smaller jump
    /// next runs stay where they are. More in the
    /// [guide](crate::guide::semantics#when-the-clock-is-set). Default: an hour.
    pub fn replan_after_jump(mut self, jump: Duration) -> Self {
        self.replan_after_jump = jump;
        self
    }

    /// Builds the scheduler, stopped: tasks that are added now wait for the start. It lives on an
    /// arbiter of its own.
    ///
    /// Unless the bundled one is the newest, a time zone database is read here, on this thread, for some
    /// ten milliseconds. Whoever may not wait so long hands over [`zones`](Self::zones) that were loaded
    /// elsewhere.
    ///
    /// # Errors
    /// When a setting is not valid, the [database](Self::timezones) cannot be read, or the system has no thread for it.
    ///
    /// # Panics
    /// Outside an actix system.
    pub fn build(self) -> Result<Handle, Error> {
        let (settings, estate) = self.settle()?;
        let settings = Arc::new(settings);
        let clock = settings.clock.clone();
        let (owner, link) = Link::new();
        let arbiter = arbiter::start().map_err(no_thread)?;
        let handle = Handle::new(link, arbiter.handle());
        arbiter.spawn_fn(move || {
            let bus = EventBus::new().start();
            let (will, inherited) = std::sync::mpsc::channel();
            will.send(estate).ok();
            let factory = move |keep, usher: Addr<Usher>| {
                let now = settings.clock.now();
                Scheduler {
                    usher,
                    settings: settings.clone(),
                    estate: inherited.try_recv().unwrap_or_default(),
                    bus: bus.clone(),
                    // Until the bus says what is: a successor has news from its first moment.
                    wanted: EventMask::ALL,
                    wake: Wake::default(),
                    zones_nap: None,
                    held_back: None,
                    committing: false,
                    last_seen: now,
                    turns: Turns::default(),
                    starting: Vec::new(),
                    stopping: Vec::new(),
                    shutdown_runs: 0,
                    shutdown_bell: None,
                    beginning: Some(settings.clock.busy()),
                    will: will.clone(),
                    _keep: keep,
                }
                .start()
            };
            let policy = RestartPolicy::always().unlimited(Duration::from_secs(60));
            Usher::start(owner, |usher| {
                let factory = {
                    let usher = usher.clone();
                    move |keep| factory(keep, usher.clone())
                };
                Guardian::new("scheduler", policy, clock, factory, usher.recipient()).start()
            });
        });
        Ok(handle)
    }

    /// Builds and starts the scheduler.
    ///
    /// # Errors
    /// When a setting is not valid, or no store can be opened; nothing is left running then. With
    /// [`strict`](Self::strict), when anything is left out. Otherwise
    /// [`status`](Handle::status) has the stores that are down and the number of tasks that wait;
    /// [`build`](Self::build) and [`Handle::start`] say it in their answer.
    ///
    /// # Panics
    /// Outside an actix system.
    pub async fn start(self) -> Result<Handle, Error> {
        let handle = self.build()?;
        handle.send(Start::default()).await??;
        Ok(handle)
    }

    /// Starts the scheduler on a thread with an actix system of its own, for programs that have
    /// none. The handle can be used from any thread and any executor of futures; the thread ends
    /// after the shutdown, when no handle is left.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_isolated(self) -> Result<Handle, Error>
    where
        Self: Send,
    {
        let (report, started) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name("callboard".to_owned()).spawn(move || {
            let system = System::new();
            let result = system.block_on(self.start());
            let up = result.is_ok();
            report.send(result.map(|handle| handle.owning_system())).ok();
            if up {
                system.run().ok();
            }
        });
        match thread {
            Ok(_) => started.recv().unwrap_or(Err(Error::Gone)),
            Err(error) => Err(no_thread(error)),
        }
    }

    fn settle(mut self) -> Result<(Settings, Estate), Error> {
        self.registry.check()?;
        for (setting, value) in [("store_retry", self.store_retry), ("store_deadline", self.store_deadline)] {
            if value.is_zero() {
                let reason = "is 0; it must be longer".to_owned();
                return Err(Error::Setting { setting, reason });
            }
        }
        let replan_after_jump = match TimeDelta::from_std(self.replan_after_jump) {
            Ok(jump) if jump >= TimeDelta::seconds(1) => jump,
            Ok(_) => {
                let reason = "is less than 1 s; smaller jumps are the daily work of time servers".to_owned();
                return Err(Error::Setting { setting: "replan_after_jump", reason });
            }
            Err(_) => TimeDelta::MAX,
        };
        if self.batch == 0 {
            return Err(Error::Setting {
                setting: "batch",
                reason: "is 0; it must be at least 1".to_owned(),
            });
        }
        let none =
            |mut aliases: Box<dyn Iterator<Item = &String> + '_>| aliases.all(|alias| alias != "default");
        if none(Box::new(self.stores.iter().map(|(alias, ..)| alias))) {
            self.stores.push(("default".to_owned(), Box::new(MemoryStore::new()), None));
        }
        if none(Box::new(self.executors.iter().map(|(alias, ..)| alias))) {
            self.executors.push(("default".to_owned(), Box::new(AsyncExecutor::new()), None));
        }
        let lock_path = self.lock_path.as_deref().map(LockPath::parse).transpose()?;
        if let Some(lock_path) = lock_path.as_ref().filter(|_| self.stores.len() > 1) {
            lock_path.check_several()?;
        }
        let mut estate = Estate { stores: BTreeMap::new(), executors: BTreeMap::new(), ..Estate::default() };
        let policy = RestartPolicy::always();
        for (alias, source, own) in self.stores {
            let alias = Alias::new(alias)?;
            let mut slot = StoreSlot::new(0, source, own.unwrap_or(policy));
            slot.lock = lock_path.as_ref().map(|lock_path| StoreLock::new(lock_path.of(&alias)));
            if estate.stores.insert(alias.clone(), slot).is_some() {
                return Err(Error::AliasTaken { kind: "store", alias });
            }
        }
        for (alias, source, own) in self.executors {
            let alias = Alias::new(alias)?;
            let slot = ExecutorSlot::new(0, source, own.unwrap_or(policy));
            if estate.executors.insert(alias.clone(), slot).is_some() {
                return Err(Error::AliasTaken { kind: "executor", alias });
            }
        }
        let watches_timezones = self.timezones.is_some() || !self.clock.is_virtual();
        let timezones = match self.zones {
            Some(_) => self.timezones,
            None => Some(self.timezones.unwrap_or_default()),
        };
        let mut seen = None;
        let zones = match self.zones {
            Some(zones) => zones,
            None => {
                // First, so that what changes meanwhile is noticed.
                seen = timezones.as_ref().map(Timezones::look);
                let loaded = timezones.clone().unwrap_or_default().load(self.clock.now())?;
                for warning in loaded.warnings {
                    tracing::warn!(scheduler = %self.name, "{warning}");
                }
                loaded.zones
            }
        };
        tracing::info!(scheduler = %self.name, timezones = %crate::timezones::named(&zones), "the rules of time zones");
        if zones.rules(self.timezone).is_none() {
            let reason = format!(
                "is {}, which the time zone database in use ({}) does not have",
                self.timezone,
                crate::timezones::named(&zones)
            );
            return Err(Error::Setting { setting: "timezone", reason });
        }
        estate.watched = Watched::new(seen, self.clock.monotonic());
        let settings = Settings {
            identity: self.identity.unwrap_or_else(|| self.name.clone()),
            name: self.name,
            registry: self.registry,
            timezone: self.timezone,
            zones: InForce::new(zones),
            timezones,
            watches_timezones,
            clock: self.clock,
            defaults: self.defaults,
            store_retry: self.store_retry,
            store_deadline: self.store_deadline,
            batch: self.batch,
            startup_delay: self.startup_delay.unwrap_or(match lock_path {
                Some(_) => Duration::from_secs(1),
                None => Duration::ZERO,
            }),
            unroutable_after: self.unroutable_after,
            lock_path,
            strict: self.strict,
            replan_after_jump,
        };
        Ok((settings, estate))
    }
}

fn no_thread(error: std::io::Error) -> Error {
    let reason =
        format!("cannot start one: {error}; raise the limit of threads or of open files, and try again");
    Error::Setting { setting: "thread", reason }
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").field("name", &self.name).finish_non_exhaustive()
    }
}
