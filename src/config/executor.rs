//! Executors: which there are, and how each is made.

use std::collections::BTreeSet;

use super::choice;
use super::value::Section;
#[cfg(all(unix, feature = "process"))]
use crate::executor::ProcessPool;
use crate::executor::{AsyncExecutor, DebugExecutor, ThreadPool};
use crate::scheduler::Builder;

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

/// What worker processes find in their environment besides what their parent has.
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
            Self::Async => builder.executor(alias, AsyncExecutor::new()),
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
                let executor = if kind == "async" { Self::Async } else { Self::Debug };
                (!alien).then_some(executor)
            }
            Some("threadpool") => {
                let alien = alien("recycle_after", recycle_after.is_some(), PROCESSES);
                (!alien).then_some(Self::ThreadPool { workers: workers.unwrap_or(WORKERS) })
            }
            #[cfg(all(unix, feature = "process"))]
            Some("processpool") => {
                Some(Self::ProcessPool { workers: workers.unwrap_or(WORKERS), recycle_after })
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
