//! A scheduler described by data: a TOML file (or the same as JSON).
//!
//! ```toml
//! [scheduler]
//! name = "night watch"            # shown in logs. Default: callboard
//! timezone = "Europe/Lisbon"      # for tasks that name none. Default: UTC
//! timezones = "newest"            # the database that says what clocks show: "newest" (default), "system",
//!                                 #   "bundled", or the path of a directory of TZif files
//! grace = "30s"                   # how long a shutdown waits for runs. Default: 10s
//! store_retry = "5s"              # how soon a failed store is tried again
//! lock_path = "{store}.lock"      # of several processes only the holder of a store's lock begins its
//!                                 #   runs; relative to the data directory. Default: no locks
//! unroutable_after = "10m"        # how long a run waits for its executor or handler, before it is
//!                                 #   refused. Default: without an end; 10m in a shared store
//! startup_delay = "1s"            # before the first run. Default: 0s, with a lock_path 1s
//! replan_after_jump = "1h"        # a clock that is set back by more was ahead: next runs are worked out again
//! spread = true                   # whether intervals that name no start run first at places of their own
//!                                 #   within one length. Default: those that more than 20 tasks have
//!
//! [defaults]                      # for tasks that leave an option out
//! max_instances = 1               # runs of one task at once
//! coalesce = "latest"             # of run times that are due together the latest runs; or
//!                                 #   "earliest", or "all" (`true` is the latest, `false` all)
//! max_catch_up = 100              # of "all": how many of them run
//! overlap = "skip"                # a run that is due while max_instances go on: "skip", "queue 3",
//!                                 #   "cancel_running", "allow"
//! misfire_grace = "unlimited"     # how late a run may start
//! timeout = "unlimited"           # how long a run may take
//! retry = 0                       # how often a run that failed is tried again; or
//!                                 #   { times = 3, first = "1s", factor = 2, cap = "5m", jitter = 0.2 }
//! recover = false                 # whether a run that was interrupted is begun again
//! executor = "default"
//! store = "default"
//! schedule = "* * * * *"          # of periodic tasks that a program adds without one
//!
//! [store.default]                 # default: sled, in the data directory
//! type = "sled"                   # or "redb" (where that is built in), "file", "memory"
//! path = "store"                  # not of memory; relative to the data directory. Default: "store",
//!                                 #   "store-redb" for redb, "store-file" for file
//! durability = "fsync"            # not of memory; or a length of time: acknowledged at once, on the
//!                                 #   device that much later at most
//! set_aside = false               # not of memory; whether damaged data makes room for an empty store
//! history_age = "7d"              # how long run records are kept; of memory: for ever
//! history_size = "256MiB"         # how large all of them may be together; of memory: 32MiB
//! history_least = 20              # the latest of each task, and of its failures, that stay in any case
//! history = 1000                  # the most of a task. Default: no such limit; 0 for none
//! exports = { every = "1h", keep = 7, dir = "store.exports" }
//!                                 # not of memory; taken while it runs. Default: none; of `keep` and
//!                                 #   `dir` as shown, beside the store
//! key_file = "/etc/callboard/keys" # not of memory; what encrypts it: a file with keys, one a line, the
//!                                 #   current one first; or key_env = "NAME", or key = "…". Default: plain
//! refuse_plain = false            # with keys: whether records that are plain are left alone
//!
//! [executor.default]              # default: async
//! type = "async"                  # or "threadpool", "processpool" (where that is built in), "debug"
//! limits = { shell = 50 }         # of an async one only: how many runs of a handler go on at once; the
//!                                 #   others wait. Default: none; the program's own handlers have some
//!
//! [executor.pool]
//! type = "threadpool"
//! workers = 4                     # of the pools only: runs at once. Default: 4
//!
//! [executor.apart]
//! type = "processpool"
//! workers = 2
//! recycle_after = 100             # of a processpool only: a worker ends after so many runs.
//!                                 #   Default: never
//!
//! [task.backup]                   # the key is the task's id; quote it when it has spaces or dots
//! cron = "0 3 * * *"              # or every = "5m", or at = "2027-01-01T00:00:00+01:00",
//!                                 # or trigger = { type = "calendar_interval", months = 1, … }
//! shell = "make backup"           # or { command = "…", cwd = "…", env = { … }, timeout = "10m" },
//!                                 #   cwd relative to where the service was started, env_clear = true
//!                                 #   for HOME, PATH, LANG, TZ, USER, SHELL and env alone;
//!                                 # or http = "POST https://…" (or a table),
//!                                 # or handler = "name", args = { … }
//! name = "Nightly backup"
//! description = "The accounts; call the night desk when it fails"   # free text for people
//! timezone = "Europe/Berlin"
//! paused = false                  # how it is added the first time; ignored when it is there, and said
//! misfire_grace = "1h"            # and every other key of [defaults]
//! start_at = "2027-01-01T00:00:00"  # run times before it are none, nor are those
//! end_at = "2028-01-01T00:00:00"  #   after this one; without an offset: in the task's zone
//! max_runs = 100                  # the schedule ends after so many scheduled runs
//! when_finished = "keep"          # in a file a task is kept as finished for as long as it stands there;
//!                                 #   "remove" is for tasks from elsewhere
//! spread = false                  # whether its interval runs first at a place of its own
//! first_run_now = false           # whether it runs once at the moment it is added the first time
//! userdata = { team = "ops" }
//! ```
//!
//! Every key may be left out; an empty file is a valid one. A key or a value that is not valid is
//! refused, with its place and what would be valid, and all of them are reported at once. Lengths
//! of time are text with a unit ([`parse_duration`]). Whether the store, the executor and the handler
//! that a task names are there shows when it is added: that keeps no other task from being added.

#[cfg(feature = "_durable")]
mod directory;
mod duration;
mod executor;
mod options;
mod spread;
mod store;
mod task;
mod value;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "_durable")]
pub use directory::Directory;
#[cfg(all(feature = "encryption", feature = "_durable"))]
pub use directory::KeySettings;
pub use duration::{DurationError, parse_duration};
pub use executor::ExecutorSettings;
use executor::WorkerEnvironment;
pub use spread::SPREAD_ABOVE;
pub use store::{History, StoreSettings};
pub use task::TaskSettings;

use crate::clock::Clock;
use crate::scheduler::{Builder, Scheduler};
use crate::store::StoreError;
use crate::task::{Alias, TaskDefaults};
use crate::timezones::Timezones;
use crate::trigger::{Zone, Zones};
use value::{Kind, Problems, Section, Table, Value};

/// How long a shutdown waits for runs unless told otherwise.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(10);

/// A scheduler's settings, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The scheduler's name. Default: `callboard`.
    pub name: String,
    /// The zone of tasks that name none. Default: UTC.
    pub timezone: Zone,
    /// Which time zone database says what clocks show. Default: the newest on the machine.
    pub timezones: Timezones,
    /// How long a shutdown waits for runs. Default: [`DEFAULT_GRACE`].
    pub grace: Duration,
    /// How soon a failed store is tried again, if not as the scheduler thinks best.
    pub store_retry: Option<Duration>,
    /// Where the locks between processes are, as
    /// [`Builder::lock_path`](crate::scheduler::Builder::lock_path) has it; relative to the data
    /// directory. Default: there are none.
    pub lock_path: Option<String>,
    /// How long after its start the scheduler begins the first run, if not as it thinks best.
    pub startup_delay: Option<Duration>,
    /// How long a run waits that cannot begin, if not as
    /// [the scheduler](crate::scheduler::Builder::unroutable_after) thinks best.
    pub unroutable_after: Option<Duration>,
    /// By how much more than this the clock has to be set back for next runs to be worked out again.
    pub replan_after_jump: Option<Duration>,
    /// Whether tasks whose interval names no start run first at
    /// [places of their own](crate::task::Task::spread) within one length. Default: those of an interval
    /// that more than [`SPREAD_ABOVE`] tasks have.
    pub spread: Option<bool>,
    /// Options of tasks that leave them out.
    pub defaults: TaskDefaults,
    /// The stores by alias.
    pub stores: BTreeMap<Alias, StoreSettings>,
    /// The executors by alias.
    pub executors: BTreeMap<Alias, ExecutorSettings>,
    /// The tasks, by id. Those of a file are kept when their schedule has ended
    /// ([`WhenFinished::Keep`](crate::task::WhenFinished::Keep)): whoever adds them at each start would
    /// begin anew with one that is gone.
    pub tasks: Vec<TaskSettings>,
    /// What the settings were read from, for messages.
    pub origin: String,
}

/// One thing that is wrong with settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The line of the file, where there is one.
    pub line: Option<usize>,
    /// The key with its path, as in `task.backup.every`; empty when the problem is not with a key.
    pub key: String,
    /// What is wrong and what would be valid.
    pub message: String,
}

/// Settings that were refused: everything that is wrong with them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, or what else the settings came from.
    pub origin: String,
    /// What is wrong, in the order of the file; never empty.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Problem { line, key, message }) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&self.origin)?;
            if let Some(line) = line {
                write!(f, ":{line}")?;
            }
            match key.as_str() {
                "" => write!(f, ": {message}")?,
                key => write!(f, ": {key}: {message}")?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: "callboard".to_owned(),
            timezone: Zone::UTC,
            timezones: Timezones::default(),
            grace: DEFAULT_GRACE,
            store_retry: None,
            lock_path: None,
            startup_delay: None,
            unroutable_after: None,
            replan_after_jump: None,
            spread: None,
            defaults: TaskDefaults::default(),
            stores: BTreeMap::from([(Alias::default_alias(), StoreSettings::default())]),
            executors: BTreeMap::from([(
                Alias::default_alias(),
                ExecutorSettings::Async { limits: BTreeMap::new() },
            )]),
            tasks: Vec::new(),
            origin: "the defaults".to_owned(),
        }
    }
}

impl Settings {
    /// Reads a TOML file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let origin = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::from_toml(&text, origin),
            Err(error) => {
                let message = format!("cannot be read: {error}");
                Err(ConfigError {
                    origin,
                    problems: vec![Problem { line: None, key: String::new(), message }],
                })
            }
        }
    }

    /// Reads TOML; `origin` is what messages call it.
    ///
    /// ```
    /// use callboard::config::Settings;
    ///
    /// let settings = Settings::from_toml(r#"
    ///     [task.tick]
    ///     every = "5s"
    ///     shell = "date"
    /// "#, "example")?;
    /// assert_eq!(settings.tasks[0].id().as_str(), "tick");
    ///
    /// let error = Settings::from_toml("[task.tick]\nevry = '5s'\n", "example").unwrap_err();
    /// assert!(error.to_string().contains("example:2: task.tick.evry: unknown key; valid here are"));
    /// # Ok::<(), callboard::config::ConfigError>(())
    /// ```
    pub fn from_toml(text: &str, origin: impl Into<String>) -> Result<Self, ConfigError> {
        let problems = Problems::default();
        let table = value::from_toml(text, &problems);
        Self::build(table, origin.into(), problems)
    }

    /// Reads the same as JSON: an object of objects.
    pub fn from_json(json: serde_json::Value, origin: impl Into<String>) -> Result<Self, ConfigError> {
        let problems = Problems::default();
        let table = match Value::from_json(json).map(|value| value.kind) {
            Some(Kind::Table(table)) => table,
            None => Table::new(),
            Some(_) => {
                problems.add(None, "", "must be an object");
                Table::new()
            }
        };
        Self::build(table, origin.into(), problems)
    }

    fn build(table: Table, origin: String, problems: Problems) -> Result<Self, ConfigError> {
        let mut settings = Self { origin, ..Self::default() };
        let mut root = Section::root(table, &problems);
        let mut zones = None;
        if let Some(section) = root.section("scheduler") {
            zones = settings.scheduler(section);
        }
        // Without the setting it never fails.
        let rules = || Some(Timezones::default().load(Clock::system().now()).ok()?.zones);
        let zones = zones.or_else(rules).unwrap_or_else(|| Zones::bundled().clone());
        if let Some(section) = root.section("defaults") {
            settings.defaults(section);
        }
        for (name, section) in root.named("store") {
            let Some(alias) = alias(&name, &section) else { continue };
            if let Some(store) = StoreSettings::from_section(section) {
                settings.stores.insert(alias, store);
            }
        }
        for (name, section) in root.named("executor") {
            let Some(alias) = alias(&name, &section) else { continue };
            if let Some(executor) = ExecutorSettings::from_section(section) {
                settings.executors.insert(alias, executor);
            }
        }
        for (id, section) in root.named("task") {
            settings.tasks.extend(TaskSettings::from_file(&id, section, &settings, &zones));
        }
        settings.spread_tasks();
        root.finish();
        let problems = problems.into_vec();
        if problems.is_empty() {
            Ok(settings)
        } else {
            Err(ConfigError { origin: settings.origin, problems })
        }
    }

    /// The answer is the rules that are in use, where the file says which.
    fn scheduler(&mut self, mut section: Section<'_>) -> Option<Arc<Zones>> {
        set(&mut self.name, section.text("name"));
        let line = section.peek("timezones").and_then(|(_, line)| line);
        let mut zones = None;
        // Read before any zone is named: a name may be one that only this database has.
        if let Some(source) = section.parsed::<Timezones>("timezones", TIMEZONES) {
            match source.load(Clock::system().now()) {
                Ok(loaded) => zones = Some(loaded.zones),
                Err(error) => section.problem(line, "timezones", error.to_string()),
            }
            self.timezones = source;
        }
        set(&mut self.timezone, section.parsed("timezone", ZONE));
        set(&mut self.grace, section.duration("grace"));
        self.store_retry = section.duration("store_retry");
        self.lock_path = section.text("lock_path");
        self.startup_delay = section.duration("startup_delay");
        self.unroutable_after = section.duration("unroutable_after");
        self.replan_after_jump = section.duration("replan_after_jump");
        self.spread = section.flag("spread");
        section.finish();
        zones
    }

    fn defaults(&mut self, mut section: Section<'_>) {
        let defaults = &mut self.defaults;
        options::defaults(&mut section, defaults);
        set(&mut defaults.store, section.parsed("store", ALIAS));
        if let Some(schedule) = section.parsed("schedule", SCHEDULE) {
            defaults.schedule = Some(schedule);
        }
        section.finish();
    }

    /// A scheduler's builder with these settings. Stores are opened, in `data` where their paths
    /// are relative; the tasks are not added, and the handlers are for the caller to register.
    pub fn builder(&self, data: &Path) -> Result<Builder, StoreError> {
        self.builder_with(data, &[])
    }

    /// Lets at most so many runs of a handler go on at once, on each async executor that has no limit for
    /// it.
    pub fn limit_handler(&mut self, handler: &str, runs: u32) {
        for executor in self.executors.values_mut() {
            if let ExecutorSettings::Async { limits } = executor {
                limits.entry(handler.to_owned()).or_insert(runs);
            }
        }
    }

    /// The names of the environment variables that hold secrets: the keys of stores. Worker processes
    /// do not inherit them, and a program that starts others should keep them from those, too.
    pub fn secret_variables(&self) -> BTreeSet<String> {
        #[cfg(all(feature = "encryption", feature = "_durable"))]
        return self.stores.values().filter_map(|store| store.key_variable().map(str::to_owned)).collect();
        #[cfg(not(all(feature = "encryption", feature = "_durable")))]
        return BTreeSet::new();
    }

    /// The same, with variables for the environment of worker processes.
    pub(crate) fn builder_with(
        &self,
        data: &Path,
        workers: &[(&str, String)],
    ) -> Result<Builder, StoreError> {
        let workers = WorkerEnvironment { given: workers, hidden: self.secret_variables() };
        let mut builder =
            Scheduler::builder().name(&self.name).timezone(self.timezone).defaults(self.defaults.clone());
        builder = builder.timezones(self.timezones.clone());
        if let Some(wait) = self.store_retry {
            builder = builder.store_retry(wait);
        }
        if let Some(template) = &self.lock_path {
            builder = builder.lock_path(match Path::new(template).is_absolute() {
                true => template.clone(),
                // The braces of the directory are its own.
                false => {
                    let data = data.display().to_string().replace('{', "{{").replace('}', "}}");
                    Path::new(&data).join(template).display().to_string()
                }
            });
        }
        if let Some(delay) = self.startup_delay {
            builder = builder.startup_delay(delay);
        }
        if let Some(time) = self.unroutable_after {
            builder = builder.unroutable_after(time);
        }
        if let Some(jump) = self.replan_after_jump {
            builder = builder.replan_after_jump(jump);
        }
        for (alias, store) in &self.stores {
            builder = store.add_to(builder, alias.as_str(), data)?;
        }
        for (alias, executor) in &self.executors {
            builder = executor.add_to(builder, alias.as_str(), &workers);
        }
        Ok(builder)
    }

    /// An error about these settings that was found later, by whoever knows what the handlers
    /// take.
    pub fn refuse(&self, problems: Vec<Problem>) -> ConfigError {
        ConfigError { origin: self.origin.clone(), problems }
    }
}

const ZONE: &str = "the name of a time zone, such as \"Europe/Lisbon\" or \"UTC\"";
const TIMEZONES: &str = "newest, system, bundled, or the path of a directory of TZif files";
const SCHEDULE: &str = "a trigger as text, such as \"*/5 * * * *\" or \"every 30s\"";
const ALIAS: &str = "the name of one, in quotes";

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

fn alias(name: &str, section: &Section<'_>) -> Option<Alias> {
    Alias::new(name).map_err(|error| section.problem(None, "", error.to_string())).ok()
}

fn choice(given: Option<&str>, valid: &str) -> String {
    match given {
        Some(given) => format!("is {given:?}; it must be {valid}"),
        None => format!("is missing; it must be {valid}"),
    }
}

#[cfg(test)]
mod tests;
