//! How long the embedded stores keep run records.

use std::path::Path;
use std::time::Duration;

use callboard::store::contract::start;
use callboard::store::message::*;
use callboard::store::{FileStore, RedbStore, SledStore, StoreSource};
use callboard::task::{Outcome, RunEnd, RunRecord, StoredTask};
use chrono::TimeDelta;

use super::sled::{Running, id, run};
use super::system;

/// The serials of the records that are kept, newest first.
async fn kept(store: &Running, task: &str) -> Vec<u64> {
    let runs = store.0.runs(Runs { id: id(task), limit: 999 }).await.unwrap();
    runs.iter().map(|run| run.id.serial).collect()
}

/// A run that was submitted `second` seconds after the start, and has ended.
fn ended(task: &str, serial: u64, second: i64) -> RunRecord {
    let at = start() + TimeDelta::seconds(second);
    let end = Some(RunEnd::unstarted(Outcome::Cancelled, at));
    RunRecord { nominal: at, submitted_at: at, end, ..run(task, serial) }
}

/// Records runs of a task that stays as it is.
async fn commit(store: &Running, task: &StoredTask, runs: Vec<RunRecord>) {
    let there = store.0.get(Get { id: task.spec.id.clone() }).await.unwrap().unwrap();
    let change = super::sled::moved_on(&there, runs);
    let committed = store.0.commit(Commit { changes: vec![change] }).await.unwrap();
    assert_eq!(committed.refused, [0; 0]);
}

async fn records_go_by_count_and_by_age(source: impl StoreSource) {
    let (store, _) = Running::open_with(source).await.unwrap();
    let (busy, idle, gone) = (store.put("busy").await, store.put("idle").await, store.put("gone").await);
    commit(&store, &idle, vec![run("idle", 1)]).await;
    commit(&store, &idle, (2..5).map(|serial| ended("idle", serial, serial as i64)).collect()).await;
    commit(&store, &gone, vec![ended("gone", 1, 1), ended("gone", 2, 90)]).await;
    store.0.delete(Delete { id: id("gone"), revision: None }).await.unwrap();
    for serial in 1..=30 {
        commit(&store, &busy, vec![ended("busy", serial, serial as i64)]).await;
    }
    let many = kept(&store, "busy").await;
    assert_eq!(many, (11..=30).rev().collect::<Vec<_>>(), "by count");
    assert_eq!(kept(&store, "idle").await, [4, 3, 2, 1]);
    // A hundred seconds later all of those are too old.
    for serial in 31..=40 {
        commit(&store, &busy, vec![ended("busy", serial, 100 + serial as i64)]).await;
    }
    assert_eq!(kept(&store, "busy").await, (31..=40).rev().collect::<Vec<_>>());
    assert_eq!(kept(&store, "idle").await, [1], "what has not ended stays, though others run instead");
    assert_eq!(kept(&store, "gone").await, [2], "so do the records of removed tasks go");
    let found = FindRuns { id: id("busy"), from: start(), to: start() + TimeDelta::days(1), limit: 99 };
    let text = store.0.find_runs(found).await.unwrap().kept.unwrap();
    assert_eq!(text, "the latest 20 runs of a task, runs of the last 100 s, at most 256 MiB of records");
    store.stop().await;
}

const AGE: Duration = Duration::from_secs(100);

fn at(name: &str, check: impl FnOnce(&Path)) {
    let base = tempfile::tempdir().unwrap();
    check(&base.path().join(name));
}

#[test]
fn records_of_sled_go_by_count_and_by_age() {
    at("sled", |path| {
        let store = SledStore::open(path).unwrap().history(20).history_least(0).history_age(AGE);
        system(records_go_by_count_and_by_age(store));
    });
}

#[test]
fn records_of_redb_go_by_count_and_by_age() {
    at("redb", |path| {
        let store = RedbStore::open(path).unwrap().history(20).history_least(0).history_age(AGE);
        system(records_go_by_count_and_by_age(store));
    });
}

#[test]
fn records_of_files_go_by_count_and_by_age() {
    at("files", |path| {
        let store = FileStore::open(path).unwrap().history(20).history_least(0).history_age(AGE);
        system(records_go_by_count_and_by_age(store));
    });
}

/// A store that holds more than it is to keep, as one of an earlier version may: what is too much goes while
/// nobody asks for anything, the successes first.
async fn what_is_too_much_goes_bit_by_bit(name: &str, path: &Path) {
    let open = |size, least| -> Box<dyn StoreSource> {
        match name {
            "sled" => Box::new(SledStore::open(path).unwrap().history_size(size).history_least(least)),
            "redb" => Box::new(RedbStore::open(path).unwrap().history_size(size).history_least(least)),
            _ => Box::new(FileStore::open(path).unwrap().history_size(size).history_least(least)),
        }
    };
    let (store, _) = Running::open_with(super::AnyStore(open(1 << 30, 20))).await.unwrap();
    for task in ["a", "b", "c"] {
        let there = store.put(task).await;
        let record = |serial| {
            let mut record = ended(task, serial, serial as i64);
            let value = serde_json::Value::Null;
            if serial % 10 != 0 {
                record.end.as_mut().unwrap().outcome = Outcome::Executed { value };
            }
            record
        };
        commit(&store, &there, (1..=400).map(record).collect()).await;
    }
    store.stop().await;
    let (store, _) = Running::open_with(super::AnyStore(open(10_000, 5))).await.unwrap();
    let mut count = usize::MAX;
    for _ in 0..1000 {
        let all = [kept(&store, "a").await, kept(&store, "b").await, kept(&store, "c").await];
        count = all.iter().map(Vec::len).sum();
        if count <= 60 {
            for serials in all {
                assert_eq!(serials[..5], [400, 399, 398, 397, 396], "{name}: the latest stay");
                let failures: Vec<_> = serials.into_iter().filter(|serial| serial % 10 == 0).collect();
                assert_eq!(
                    failures[..5],
                    [400, 390, 380, 370, 360],
                    "{name}: and the latest that went wrong"
                );
            }
            break;
        }
        actix::clock::sleep(Duration::from_millis(10)).await;
    }
    assert!((20..=60).contains(&count), "{name}: {count}");
    store.stop().await;
}

#[test]
fn a_store_that_holds_more_than_it_keeps_lets_go_of_it() {
    for name in ["sled", "redb", "files"] {
        at(name, |path| system(what_is_too_much_goes_bit_by_bit(name, path)));
    }
}
