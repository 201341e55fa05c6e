//! Executors: which there are, and how each is made.

use std::collections::{BTreeMap, BTreeSet};

use super::choice;
use super::value::{Kind, Section};
#[cfg(all(unix, feature = "process"))]
use crate::executor::ProcessPool;
use crate::executor::{AsyncExecutor, DebugExecutor, ThreadPool};
use crate::scheduler::Builder;

/// An executor, as settings describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExecutorSettings {
    /// Futures on one arbiter.
    Async {
        /// How many runs of single handlers go on at once; others wait.
        limits: BTreeMap<String, u32>,
    },
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

/// What worker processes find in their environment besides what their parent has.
#[cfg_attr(not(all(unix, feature = "process")), expect(dead_code))]
pub(super) struct WorkerEnvironment<'a> {
    /// Names and values.
    pub(super) given: &'a [(&'a str, String)],
    /// What is kept from them.
    pub(super) hidden: BTreeSet<String>,
}

impl ExecutorSettings {
    /// `builder` with the executor under `alias`.
    #[cfg_attr(not(all(unix, feature = "process")), expect(unused_variables))]
    pub(super) fn add_to(
        &self,
        builder: Builder,
        alias: &str,
        environment: &WorkerEnvironment<'_>,
    ) -> Builder {
        match self {
            Self::Async { limits } => {
                let limited = |executor: AsyncExecutor, (handler, runs): (&String, &u32)| {
                    executor.limit_handler(handler, *runs as usize)
                };
                builder.executor(alias, limits.iter().fold(AsyncExecutor::new(), limited))
            }
            Self::ThreadPool { workers } => builder.executor(alias, ThreadPool::new(*workers as usize)),
            #[cfg(all(unix, feature = "process"))]
            Self::ProcessPool { workers, recycle_after } => {
                let mut pool = ProcessPool::new(*workers as usize);
                if let Some(runs) = recycle_after {
                    pool = pool.recycle_after(u64::from(*runs));
                }
                for (name, value) in environment.given {
                    pool = pool.env(name, value);
                }
                builder.executor(alias, environment.hidden.iter().fold(pool, ProcessPool::env_remove))
            }
            Self::Debug => builder.executor(alias, DebugExecutor::new()),
        }
    }

    /// Reads one.
    pub(super) fn from_section(mut section: Section<'_>) -> Option<Self> {
        let kind = section.text("type");
        let workers = section.count("workers");
        let recycle_after = section.count("recycle_after");
        let limits = limits(&mut section);
        let alien = |key: &str, given: bool, of: &str| {
            if given {
                section.problem(None, key, format!("only {of} has {key}; leave it out"));
            }
            given
        };
        const POOLS: &str = "a \"threadpool\" or a \"processpool\"";
        const PROCESSES: &str = "a \"processpool\"";
        const FUTURES: &str = "an \"async\" executor";
        let executor = match kind.as_deref() {
            Some("async") => {
                let alien = alien("workers", workers.is_some(), POOLS)
                    | alien("recycle_after", recycle_after.is_some(), PROCESSES);
                (!alien).then_some(Self::Async { limits: limits.unwrap_or_default() })
            }
            Some("debug") => {
                let alien = alien("workers", workers.is_some(), POOLS)
                    | alien("recycle_after", recycle_after.is_some(), PROCESSES)
                    | alien("limits", limits.is_some(), FUTURES);
                (!alien).then_some(Self::Debug)
            }
            Some("threadpool") => {
                let alien = alien("recycle_after", recycle_after.is_some(), PROCESSES)
                    | alien("limits", limits.is_some(), FUTURES);
                (!alien).then_some(Self::ThreadPool { workers: workers.unwrap_or(WORKERS) })
            }
            #[cfg(all(unix, feature = "process"))]
            Some("processpool") => {
                let alien = alien("limits", limits.is_some(), FUTURES);
                (!alien).then_some(Self::ProcessPool { workers: workers.unwrap_or(WORKERS), recycle_after })
            }
            other => {
                section.problem(None, "type", choice(other, types()));
                None
            }
        };
        section.finish();
        executor
    }
}

/// How many runs of which handlers go on at once.
fn limits(section: &mut Section<'_>) -> Option<BTreeMap<String, u32>> {
    const KEY: &str = "limits";
    let value = section.take(KEY)?;
    let wrong = |line| {
        let form = "must be a table of handlers and whole numbers of at least 1, such as { shell = 50 }";
        section.problem(line, KEY, form);
    };
    let Kind::Table(table) = value.kind else {
        wrong(value.line);
        return None;
    };
    let mut limits = BTreeMap::new();
    for (handler, value) in table {
        let number = match &value.kind {
            Kind::Integer(number) => u32::try_from(*number).ok(),
            Kind::Text(text) => text.parse().ok(),
            _ => None,
        };
        match number.filter(|number| *number > 0) {
            Some(number) => drop(limits.insert(handler, number)),
            None => wrong(value.line),
        }
    }
    Some(limits)
}

/// How many workers a pool has that names no number.
const WORKERS: u32 = 4;

/// The types of executors that are built in.
fn types() -> &'static str {
    if cfg!(all(unix, feature = "process")) {
        "\"async\", \"threadpool\", \"processpool\" or \"debug\""
    } else {
        "\"async\", \"threadpool\" or \"debug\" (\"processpool\" takes the cargo feature `process`, on Unix)"
    }
}
