//! The contract of the stores, on each of them.

mod actor;
mod damaged;
mod descriptors;
mod embedded;
mod file;
mod history;
mod identity;
mod killed;
mod landed;
mod network;
mod places;
mod redb;
mod restored;
mod round_trip;
mod sealed;
mod sled;
mod transfer;

use callboard::store::contract::{durable, random, suite};
use callboard::store::{FileStore, Keep, Keyring, MemoryStore, RedbStore, SledStore, StoreAddr, StoreSource};
use proptest::prelude::*;

fn system<T>(future: impl Future<Output = T>) -> T {
    actix_rt::System::new().block_on(future)
}

/// Fresh directories under one that is removed at the end.
fn sled_stores(base: &std::path::Path) -> impl FnMut() -> SledStore {
    let mut count = 0;
    move || {
        count += 1;
        SledStore::open(base.join(count.to_string())).unwrap()
    }
}

fn redb_stores(base: &std::path::Path) -> impl FnMut() -> RedbStore {
    let mut count = 0;
    move || {
        count += 1;
        RedbStore::open(base.join(count.to_string())).unwrap()
    }
}

fn file_stores(base: &std::path::Path) -> impl FnMut() -> FileStore {
    let mut count = 0;
    move || {
        count += 1;
        FileStore::open(base.join(count.to_string())).unwrap()
    }
}

/// The stores that keep their tasks in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Sled,
    Redb,
    File,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Sled, Self::Redb, Self::File];

    pub(crate) fn open(self, path: &std::path::Path) -> AnyStore {
        self.open_with(path, false)
    }

    /// Encrypted, when there are keys.
    fn sealed(self, path: &std::path::Path, keys: Option<&Keyring>) -> AnyStore {
        let Some(keys) = keys else { return self.open(path) };
        AnyStore(match self {
            Self::Sled => Box::new(SledStore::open(path).unwrap().encrypt(keys.clone())),
            Self::Redb => Box::new(RedbStore::open(path).unwrap().encrypt(keys.clone())),
            Self::File => Box::new(FileStore::open(path).unwrap().encrypt(keys.clone())),
        })
    }

    fn open_with(self, path: &std::path::Path, set_aside: bool) -> AnyStore {
        AnyStore(match self {
            Self::Sled => Box::new(SledStore::open(path).unwrap().set_aside(set_aside)),
            Self::Redb => Box::new(RedbStore::open(path).unwrap().set_aside(set_aside)),
            Self::File => Box::new(FileStore::open(path).unwrap().set_aside(set_aside)),
        })
    }

    /// With so many run records of a task, and those of so many removed tasks.
    fn keeping(self, path: &std::path::Path, runs: usize, removed: usize) -> AnyStore {
        macro_rules! keeping {
            ($store:ident) => {
                Box::new($store::open(path).unwrap().history(runs).history_of_removed(removed))
            };
        }
        AnyStore(match self {
            Self::Sled => keeping!(SledStore),
            Self::Redb => keeping!(RedbStore),
            Self::File => keeping!(FileStore),
        })
    }

    fn named(word: &str) -> Self {
        Self::ALL.into_iter().find(|kind| format!("{kind:?}") == word).unwrap()
    }
}

pub(crate) struct AnyStore(pub(crate) Box<dyn StoreSource>);

impl StoreSource for AnyStore {
    fn start(&mut self, keep: Keep) -> StoreAddr {
        self.0.start(keep)
    }
}

#[test]
fn the_memory_store_keeps_the_contract() {
    system(suite(MemoryStore::new));
}

#[test]
fn the_sled_store_keeps_the_contract() {
    let base = tempfile::tempdir().unwrap();
    system(suite(sled_stores(base.path())));
}

#[test]
fn what_sled_acknowledged_is_there_after_a_restart() {
    let base = tempfile::tempdir().unwrap();
    system(durable(|| SledStore::open(base.path().join("store")).unwrap()));
}

#[test]
fn the_redb_store_keeps_the_contract() {
    let base = tempfile::tempdir().unwrap();
    system(suite(redb_stores(base.path())));
}

#[test]
fn what_redb_acknowledged_is_there_after_a_restart() {
    let base = tempfile::tempdir().unwrap();
    system(durable(|| RedbStore::open(base.path().join("store")).unwrap()));
}

#[test]
fn the_file_store_keeps_the_contract() {
    let base = tempfile::tempdir().unwrap();
    system(suite(file_stores(base.path())));
}

#[test]
fn what_files_acknowledged_is_there_after_a_restart() {
    let base = tempfile::tempdir().unwrap();
    system(durable(|| FileStore::open(base.path().join("store")).unwrap()));
}

/// A store that was started by hand is a source as well.
#[test]
fn the_suite_runs_on_addresses() {
    system(suite(|| MemoryStore::new().start(Box::new(()))));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..Default::default() })]

    #[test]
    fn the_memory_store_agrees_with_the_model(seed in any::<u64>()) {
        system(random(MemoryStore::new, seed, 300));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..Default::default() })]

    #[test]
    fn the_sled_store_agrees_with_the_model(seed in any::<u64>()) {
        let base = tempfile::tempdir().unwrap();
        system(random(sled_stores(base.path()), seed, 120));
    }

    #[test]
    fn the_file_store_agrees_with_the_model(seed in any::<u64>()) {
        let base = tempfile::tempdir().unwrap();
        system(random(file_stores(base.path()), seed, 120));
    }

    #[test]
    fn the_redb_store_agrees_with_the_model(seed in any::<u64>()) {
        let base = tempfile::tempdir().unwrap();
        system(random(redb_stores(base.path()), seed, 120));
    }
}
