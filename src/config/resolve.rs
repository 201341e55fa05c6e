//! From settings to a scheduler: the one place that knows which store and which executor is which.

use std::path::Path;

use super::{ExecutorSettings, Settings, StoreSettings};
use crate::executor::{AsyncExecutor, DebugExecutor, ThreadPool};
use crate::scheduler::{Builder, Scheduler};
use crate::store::{MemoryStore, StoreError};

impl Settings {
    /// A scheduler's builder with these settings. Stores are opened, in `data` where their paths
    /// are relative; the tasks are not added, and the handlers are for the caller to register.
    #[cfg_attr(
        not(any(feature = "file", feature = "sled", feature = "redb")),
        expect(unused_variables, reason = "memory needs no directory")
    )]
    pub fn builder(&self, data: &Path) -> Result<Builder, StoreError> {
        let mut builder =
            Scheduler::builder().name(&self.name).timezone(self.timezone).defaults(self.defaults.clone());
        if let Some(wait) = self.store_retry {
            builder = builder.store_retry(wait);
        }
        for (alias, store) in &self.stores {
            builder = match store {
                StoreSettings::Memory => builder.store(alias.as_str(), MemoryStore::new()),
                #[cfg(any(feature = "file", feature = "sled", feature = "redb"))]
                durable => durable.add_to(builder, alias.as_str(), data)?,
            };
        }
        for (alias, executor) in &self.executors {
            let alias = alias.as_str();
            builder = match executor {
                ExecutorSettings::Async => builder.executor(alias, AsyncExecutor::new()),
                ExecutorSettings::ThreadPool { workers } => {
                    builder.executor(alias, ThreadPool::new(*workers as usize))
                }
                ExecutorSettings::Debug => builder.executor(alias, DebugExecutor::new()),
            };
        }
        Ok(builder)
    }
}
