//! From settings to a scheduler: the one place that knows which store and which executor is which.

use std::path::Path;

#[cfg(any(feature = "file", feature = "sled", feature = "redb"))]
use super::Directory;
use super::{ExecutorSettings, Settings, StoreSettings};
use crate::executor::{AsyncExecutor, DebugExecutor, ThreadPool};
use crate::scheduler::{Builder, Scheduler};
#[cfg(feature = "file")]
use crate::store::FileStore;
#[cfg(feature = "redb")]
use crate::store::RedbStore;
#[cfg(feature = "sled")]
use crate::store::SledStore;
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
                #[cfg(feature = "sled")]
                StoreSettings::Sled(Directory { path, durability, set_aside }) => {
                    let store = SledStore::open(data.join(path))?.durability(*durability);
                    builder.store(alias.as_str(), store.set_aside(*set_aside))
                }
                #[cfg(feature = "redb")]
                StoreSettings::Redb(Directory { path, durability, set_aside }) => {
                    let store = RedbStore::open(data.join(path))?.durability(*durability);
                    builder.store(alias.as_str(), store.set_aside(*set_aside))
                }
                #[cfg(feature = "file")]
                StoreSettings::File(Directory { path, durability, set_aside }) => {
                    let store = FileStore::open(data.join(path))?.durability(*durability);
                    builder.store(alias.as_str(), store.set_aside(*set_aside))
                }
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
