//! From settings to a scheduler: the one place that knows which store and which executor is which.

use std::path::Path;

use super::{ExecutorSettings, Settings, StoreSettings};
use crate::executor::{AsyncExecutor, DebugExecutor, ThreadPool};
use crate::scheduler::{Builder, Scheduler};
use crate::store::{MemoryStore, StoreError};

impl Settings {
    /// A scheduler's builder with these settings. Stores are opened, in `data` where their paths
    /// are relative; the tasks are not added, and the handlers are for the caller to register.
    pub fn builder(&self, data: &Path) -> Result<Builder, StoreError> {
        let mut builder =
            Scheduler::builder().name(&self.name).timezone(self.timezone).defaults(self.defaults.clone());
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
                #[cfg(all(unix, feature = "process"))]
                ExecutorSettings::ProcessPool { workers, recycle_after } => {
                    let mut pool = crate::executor::ProcessPool::new(*workers as usize);
                    if let Some(runs) = recycle_after {
                        pool = pool.recycle_after(u64::from(*runs));
                    }
                    builder.executor(alias, pool)
                }
                ExecutorSettings::Debug => builder.executor(alias, DebugExecutor::new()),
            };
        }
        Ok(builder)
    }
}
