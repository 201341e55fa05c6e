//! A scheduler described by data: a TOML file (or the same as JSON).
//!
//! ```toml
//! [scheduler]
//! name = "night watch"            # shown in logs. Default: callboard
//! timezone = "Europe/Lisbon"      # for tasks that name none. Default: UTC
//! grace = "30s"                   # how long a shutdown waits for runs. Default: 10s
//! store_retry = "5s"              # how soon a failed store is tried again
//! lock_path = "{store}.lock"      # of several processes only the holder of a store's lock begins its
//!                                 #   runs; relative to the data directory. Default: no locks
//! startup_delay = "1s"            # before the first run. Default: 0s, with a lock_path 1s
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
//! history = 100                   # not of memory; how many run records of a task are kept
//! history_age = "30d"             # not of memory; and how long at most. Default: for ever
//! exports = { every = "1h", keep = 7, dir = "store.exports" }
//!                                 # not of memory; taken while it runs. Default: none; of `keep` and
//!                                 #   `dir` as shown, beside the store
//! key_file = "/etc/callboard/keys" # not of memory; what encrypts it: a file with keys, one a line, the
//!                                 #   current one first; or key_env = "NAME", or key = "…". Default: plain
//! refuse_plain = false            # with keys: whether records that are plain are left alone
//!
//! [executor.default]              # default: async
//! type = "async"                  # or "threadpool", "processpool" (where that is built in), "debug"
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
//!                                 #   cwd relative to where the service was started;
//!                                 # or http = "POST https://…" (or a table),
//!                                 # or handler = "name", args = { … }
//! name = "Nightly backup"
//! timezone = "Europe/Berlin"
//! paused = false                  # how it is added the first time
//! misfire_grace = "1h"            # and every other key of [defaults]
//! start_at = "2027-01-01T00:00:00"  # run times before it are none, nor are those
//! end_at = "2028-01-01T00:00:00"  #   after this one; without an offset: in the task's zone
//! max_runs = 100                  # the schedule ends after so many scheduled runs
//! when_finished = "remove"        # or "keep": what becomes of the task then
//! first_run_now = false           # whether it runs once at the moment it is added
//! userdata = { team = "ops" }
//! ```
//!
//! Every key may be left out; an empty file is a valid one. A key or a value that is not valid is
//! refused, with its place and what would be valid, and all of them are reported at once. Lengths
//! of time are text with a unit ([`parse_duration`]).

mod duration;
mod policy;
mod resolve;
#[cfg(any(feature = "file", feature = "sled", feature = "redb"))]
mod store;
mod task;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
#[cfg(any(feature = "file", feature = "sled", feature = "redb"))]
use std::path::PathBuf;
use std::time::Duration;

use chrono_tz::Tz;

pub use duration::{DurationError, parse_duration};
#[cfg(all(feature = "encryption", any(feature = "file", feature = "sled", feature = "redb")))]
pub use store::KeySettings;
pub use task::TaskSettings;

#[cfg(any(feature = "file", feature = "sled", feature = "redb"))]
use crate::store::{Durability, Exports};
use crate::task::{Alias, TaskDefaults};
use policy::Policies;
use value::{Kind, Problems, Section, Table, Value};

/// How long a shutdown waits for runs unless told otherwise.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(10);

/// A scheduler's settings, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The scheduler's name. Default: `callboard`.
    pub name: String,
    /// The zone of tasks that name none. Default: UTC.
    pub timezone: Tz,
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
    /// Options of tasks that leave them out.
    pub defaults: TaskDefaults,
    /// The stores by alias.
    pub stores: BTreeMap<Alias, StoreSettings>,
    /// The executors by alias.
    pub executors: BTreeMap<Alias, ExecutorSettings>,
    /// The tasks, by id.
    pub tasks: Vec<TaskSettings>,
    /// What the settings were read from, for messages.
    pub origin: String,
}

/// A store, as settings describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreSettings {
    /// Gone at the end of the process.
    Memory,
    /// The embedded store, in a directory.
    #[cfg(feature = "sled")]
    Sled(Directory),
    /// The other embedded store, in a directory.
    #[cfg(feature = "redb")]
    Redb(Directory),
    /// A file for each task, in a directory.
    #[cfg(feature = "file")]
    File(Directory),
}

/// The directory of a durable store.
#[cfg(any(feature = "file", feature = "sled", feature = "redb"))]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// Relative to the data directory.
    pub path: PathBuf,
    /// When a change is acknowledged. Default: on the device.
    pub durability: Durability,
    /// Whether a damaged one is set aside for a fresh one. Default: no.
    pub set_aside: bool,
    /// How many run records of a task are kept. Default: the store's, 100.
    pub history: Option<u32>,
    /// How long run records are kept. Default: for ever.
    pub history_age: Option<Duration>,
    /// Exports that are taken while the store runs; a relative directory is below the data
    /// directory. Default: none.
    pub exports: Option<Exports>,
    /// What it is encrypted with. Default: nothing.
    #[cfg(feature = "encryption")]
    pub keys: Option<KeySettings>,
    /// With keys: whether records that are plain are left alone as unreadable. Default: no.
    #[cfg(feature = "encryption")]
    pub refuse_plain: bool,
}

/// An executor, as settings describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExecutorSettings {
    /// Futures on one arbiter.
    Async,
    /// Threads for blocking code.
    ThreadPool {
        /// How many.
        workers: u32,
    },
    /// Processes of their own for runs that may crash or have to be killed.
    #[cfg(all(unix, feature = "process"))]
    ProcessPool {
        /// How many.
        workers: u32,
        /// After how many runs each is replaced; `None` for never.
        recycle_after: Option<u32>,
    },
    /// Inline, one run after the other.
    Debug,
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
            timezone: Tz::UTC,
            grace: DEFAULT_GRACE,
            store_retry: None,
            lock_path: None,
            startup_delay: None,
            defaults: TaskDefaults::default(),
            stores: BTreeMap::from([(Alias::default_alias(), StoreSettings::default())]),
            executors: BTreeMap::from([(Alias::default_alias(), ExecutorSettings::Async)]),
            tasks: Vec::new(),
            origin: "the defaults".to_owned(),
        }
    }
}

impl Default for StoreSettings {
    /// sled where it is there, else memory.
    fn default() -> Self {
        #[cfg(feature = "sled")]
        return Self::Sled(Directory::new(SLED_PATH));
        #[cfg(not(feature = "sled"))]
        Self::Memory
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
        if let Some(section) = root.section("scheduler") {
            settings.scheduler(section);
        }
        if let Some(section) = root.section("defaults") {
            settings.defaults(section);
        }
        for (name, section) in root.named("store") {
            let Some(alias) = alias(&name, &section) else { continue };
            if let Some(store) = store_settings(section) {
                settings.stores.insert(alias, store);
            }
        }
        for (name, section) in root.named("executor") {
            let Some(alias) = alias(&name, &section) else { continue };
            if let Some(executor) = executor(section) {
                settings.executors.insert(alias, executor);
            }
        }
        for (id, section) in root.named("task") {
            settings.tasks.extend(TaskSettings::from_file(&id, section, &settings));
        }
        root.finish();
        let problems = problems.into_vec();
        if problems.is_empty() {
            Ok(settings)
        } else {
            Err(ConfigError { origin: settings.origin, problems })
        }
    }

    fn scheduler(&mut self, mut section: Section<'_>) {
        set(&mut self.name, section.text("name"));
        set(&mut self.timezone, section.parsed("timezone", ZONE));
        set(&mut self.grace, section.duration("grace"));
        self.store_retry = section.duration("store_retry");
        self.lock_path = section.text("lock_path");
        self.startup_delay = section.duration("startup_delay");
        section.finish();
    }

    fn defaults(&mut self, mut section: Section<'_>) {
        let defaults = &mut self.defaults;
        Policies::read(&mut section).set_defaults(defaults);
        set(&mut defaults.executor, section.parsed("executor", ALIAS));
        set(&mut defaults.store, section.parsed("store", ALIAS));
        if let Some(schedule) = section.parsed("schedule", SCHEDULE) {
            defaults.schedule = Some(schedule);
        }
        section.finish();
    }

    /// An error about these settings that was found later, by whoever knows what the handlers
    /// take.
    pub fn refuse(&self, problems: Vec<Problem>) -> ConfigError {
        ConfigError { origin: self.origin.clone(), problems }
    }
}

#[cfg(feature = "sled")]
const SLED_PATH: &str = "store";
/// Not that of sled: who changes the type finds the tasks of before when they change it back.
#[cfg(feature = "redb")]
const REDB_PATH: &str = "store-redb";
#[cfg(feature = "file")]
const FILE_PATH: &str = "store-file";
const ZONE: &str = "the name of a time zone, such as \"Europe/Lisbon\" or \"UTC\"";
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

fn store_settings(mut section: Section<'_>) -> Option<StoreSettings> {
    let kind = section.text("type");
    let path = section.text("path");
    #[cfg(any(feature = "file", feature = "sled", feature = "redb"))]
    let durable = store::DURABLE;
    #[cfg(not(any(feature = "file", feature = "sled", feature = "redb")))]
    let durable = ["path", "durability", "set_aside", "history", "history_age"];
    let given: Vec<_> = durable.iter().map(|key| (*key, section.peek(key).is_some())).collect();
    // The word reads as the longest of times.
    let durability = section.duration_or("durability", "fsync");
    let set_aside = section.flag("set_aside").unwrap_or(false);
    #[cfg(any(feature = "file", feature = "sled", feature = "redb"))]
    let directory = {
        let exports = store::exports(&mut section);
        let (history, history_age) = (section.count("history"), section.duration("history_age"));
        #[cfg(feature = "encryption")]
        let (keys, refuse_plain) = store::keys(&mut section);
        #[cfg(not(feature = "encryption"))]
        store::keys(&mut section);
        move |usual: &str| Directory {
            durability: promise(durability),
            set_aside,
            history,
            history_age,
            exports,
            #[cfg(feature = "encryption")]
            keys,
            #[cfg(feature = "encryption")]
            refuse_plain,
            ..Directory::new(path.unwrap_or_else(|| usual.to_owned()))
        }
    };
    #[cfg(not(any(feature = "file", feature = "sled", feature = "redb")))]
    let _checked = (path, durability, set_aside, section.count("history"), section.duration("history_age"));
    let store = match kind.as_deref() {
        Some("memory") => {
            for (key, _) in given.iter().filter(|(_, given)| *given) {
                let message = format!("a memory store has no {key}; leave it out, or use another type");
                section.problem(None, key, message);
            }
            given.iter().all(|(_, given)| !given).then_some(StoreSettings::Memory)
        }
        #[cfg(feature = "sled")]
        Some("sled") => Some(StoreSettings::Sled(directory(SLED_PATH))),
        #[cfg(feature = "redb")]
        Some("redb") => Some(StoreSettings::Redb(directory(REDB_PATH))),
        #[cfg(feature = "file")]
        Some("file") => Some(StoreSettings::File(directory(FILE_PATH))),
        other => {
            section.problem(None, "type", choice(other, &store_types()));
            None
        }
    };
    section.finish();
    store
}

/// The types of stores, those that are built in first.
fn store_types() -> String {
    let durable = [
        ("sled", cfg!(feature = "sled")),
        ("redb", cfg!(feature = "redb")),
        ("file", cfg!(feature = "file")),
    ];
    let (mut there, mut missing) = (Vec::new(), Vec::new());
    for (kind, built_in) in durable {
        if built_in { there.push(format!("\"{kind}\"")) } else { missing.push(format!("\"{kind}\"")) }
    }
    let mut text = "\"memory\"".to_owned();
    if !there.is_empty() {
        text = format!("{} or {text}", there.join(", "));
    }
    if !missing.is_empty() {
        text.push_str(&format!(" ({} takes the cargo feature of that name)", missing.join(" or ")));
    }
    text
}

#[cfg(any(feature = "file", feature = "sled", feature = "redb"))]
fn promise(given: Option<Duration>) -> Durability {
    match given {
        None | Some(Duration::MAX) => Durability::Fsync,
        Some(interval) => Durability::Interval(interval),
    }
}

fn executor(mut section: Section<'_>) -> Option<ExecutorSettings> {
    let kind = section.text("type");
    let workers = section.count("workers");
    let recycle_after = section.count("recycle_after");
    let alien = |key: &str, given: bool, of: &str| {
        if given {
            section.problem(None, key, format!("only {of} has {key}; leave it out"));
        }
        given
    };
    const POOLS: &str = "a \"threadpool\" or a \"processpool\"";
    const PROCESSES: &str = "a \"processpool\"";
    let executor = match kind.as_deref() {
        Some(kind @ ("async" | "debug")) => {
            let alien = alien("workers", workers.is_some(), POOLS)
                | alien("recycle_after", recycle_after.is_some(), PROCESSES);
            let executor = if kind == "async" { ExecutorSettings::Async } else { ExecutorSettings::Debug };
            (!alien).then_some(executor)
        }
        Some("threadpool") => {
            let alien = alien("recycle_after", recycle_after.is_some(), PROCESSES);
            (!alien).then_some(ExecutorSettings::ThreadPool { workers: workers.unwrap_or(WORKERS) })
        }
        #[cfg(all(unix, feature = "process"))]
        Some("processpool") => {
            Some(ExecutorSettings::ProcessPool { workers: workers.unwrap_or(WORKERS), recycle_after })
        }
        other => {
            section.problem(None, "type", choice(other, executor_types()));
            None
        }
    };
    section.finish();
    executor
}

/// How many workers a pool has that names no number.
const WORKERS: u32 = 4;

/// The types of executors that are built in.
fn executor_types() -> &'static str {
    if cfg!(all(unix, feature = "process")) {
        "\"async\", \"threadpool\", \"processpool\" or \"debug\""
    } else {
        "\"async\", \"threadpool\" or \"debug\" (\"processpool\" takes the cargo feature `process`, on Unix)"
    }
}

fn choice(given: Option<&str>, valid: &str) -> String {
    match given {
        Some(given) => format!("is {given:?}; it must be {valid}"),
        None => format!("is missing; it must be {valid}"),
    }
}

#[cfg(test)]
mod tests;
