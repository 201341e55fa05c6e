//! A store is not its path but the one that was opened there: what becomes of it when its directory
//! vanishes, comes back, or is another one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use callboard::event::{Event, EventMask};
use callboard::scheduler::{Scheduler, Shutdown};
use callboard::store::StoreError;
use callboard::store::contract::{sample, start};
use callboard::store::message::*;
use callboard::task::{OwnerId, Task};
use callboard::trigger::Interval;

use super::sled::{Running, snapshot};
use super::{Kind, system};
use crate::scheduler::Ran;

async fn open(kind: Kind, path: &Path) -> Running {
    Running::open_with(kind.open(path)).await.unwrap().0
}

async fn close(store: Running) {
    store.0.close(Close).await.unwrap();
    store.stop().await;
}

async fn reopen(store: &Running) -> Result<Opened, StoreError> {
    store.0.open(Open { owner: OwnerId(1), now: start() }).await
}

/// The ids of its tasks, but for that of the change which was not acknowledged: it may have happened.
async fn ids(store: &Running) -> Vec<String> {
    let mut ids = store.ids().await;
    ids.retain(|id| !id.starts_with("later"));
    ids
}

/// A store with these tasks in a directory, closed.
async fn made(kind: Kind, path: &Path, ids: &[&str]) {
    let store = open(kind, path).await;
    for id in ids {
        store.put(id).await;
    }
    close(store).await;
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

fn data(kind: Kind) -> &'static str {
    match kind {
        Kind::Sled => "db",
        Kind::Redb => "tasks.redb",
        Kind::File => "callboard-files.json",
    }
}

/// It acknowledges nothing, says why, and makes nothing in its place.
async fn is_gone(kind: Kind, store: &Running, because: &str) {
    static CHANGES: AtomicUsize = AtomicUsize::new(0);
    let task = sample(&format!("later {}", CHANGES.fetch_add(1, Ordering::Relaxed)), start());
    let error = store.0.put(Put { task, expect: Expect::Absent }).await.unwrap_err();
    assert!(error.is_retryable(), "{kind:?}: {error}");
    let error = reopen(store).await.unwrap_err();
    assert!(matches!(error, StoreError::Gone { .. }), "{kind:?}: {error:?}");
    assert!(error.to_string().contains(because), "{kind:?}: {error}");
    assert!(store.0.list(List).await.is_err(), "{kind:?}: it is down");
}

#[test]
fn a_directory_that_vanishes_is_missed_and_comes_back() {
    for kind in Kind::ALL {
        let base = tempfile::tempdir().unwrap();
        let [path, backup, away] = ["store", "backup", "away"].map(|name| base.path().join(name));
        system(async {
            let store = open(kind, &path).await;
            store.put("a").await;
            // Moved away and back.
            fs::rename(&path, &away).unwrap();
            is_gone(kind, &store, "the directory is missing").await;
            assert!(!path.exists(), "{kind:?}");
            fs::rename(&away, &path).unwrap();
            reopen(&store).await.unwrap();
            assert_eq!(ids(&store).await, ["a"], "{kind:?}");
            // Removed, with an empty directory in its place, and restored from a backup.
            store.put("b").await;
            close(store).await;
            copy(&path, &backup);
            let store = open(kind, &path).await;
            store.put("c").await;
            fs::remove_dir_all(&path).unwrap();
            fs::create_dir(&path).unwrap();
            is_gone(kind, &store, "the directory is empty").await;
            assert_eq!(fs::read_dir(&path).unwrap().count(), 0, "{kind:?}: nothing was made");
            fs::remove_dir(&path).unwrap();
            copy(&backup, &path);
            reopen(&store).await.unwrap();
            assert_eq!(ids(&store).await, ["a", "b"], "{kind:?}");
            store.put("d").await;
            close(store).await;
            let store = open(kind, &path).await;
            assert_eq!(ids(&store).await, ["a", "b", "d"], "{kind:?}");
            store.stop().await;
        });
    }
}

#[test]
fn a_directory_above_it_that_vanishes_takes_it_along() {
    for kind in Kind::ALL {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("volume/data/store");
        system(async {
            let store = open(kind, &path).await;
            store.put("a").await;
            fs::rename(base.path().join("volume"), base.path().join("away")).unwrap();
            is_gone(kind, &store, "the directory is missing").await;
            fs::write(base.path().join("volume"), "a file").unwrap();
            is_gone(kind, &store, "the directory is missing").await;
            fs::remove_file(base.path().join("volume")).unwrap();
            fs::rename(base.path().join("away"), base.path().join("volume")).unwrap();
            reopen(&store).await.unwrap();
            assert_eq!(ids(&store).await, ["a"], "{kind:?}");
            store.stop().await;
        });
    }
}

#[test]
fn another_store_in_its_place_is_not_taken_for_it() {
    for kind in Kind::ALL {
        let base = tempfile::tempdir().unwrap();
        let [path, foreign, empty, away] =
            ["store", "foreign", "empty", "away"].map(|name| base.path().join(name));
        system(async {
            made(kind, &foreign, &["theirs"]).await;
            made(kind, &empty, &[]).await;
            let store = open(kind, &path).await;
            store.put("a").await;
            fs::rename(&path, &away).unwrap();
            for other in [&foreign, &empty] {
                copy(other, &path);
                let before = snapshot(&path);
                is_gone(kind, &store, "another store is there").await;
                let after = snapshot(&path);
                assert!(before == after, "{kind:?}: it was not touched");
                fs::remove_dir_all(&path).unwrap();
            }
            fs::rename(&away, &path).unwrap();
            reopen(&store).await.unwrap();
            assert_eq!(ids(&store).await, ["a"], "{kind:?}");
            close(store).await;
            // Whoever starts with it has it.
            fs::remove_dir_all(&path).unwrap();
            copy(&foreign, &path);
            let store = open(kind, &path).await;
            assert_eq!(ids(&store).await, ["theirs"], "{kind:?}");
            store.stop().await;
        });
    }
}

#[test]
fn a_data_file_that_is_removed_or_replaced_under_it_is_noticed() {
    for kind in Kind::ALL {
        let base = tempfile::tempdir().unwrap();
        let [path, foreign, away] = ["store", "foreign", "away"].map(|name| base.path().join(name));
        let names: &[&str] = match kind {
            Kind::File => &["tasks", "callboard-store.lock"],
            _ => &[data(kind), "callboard-store.lock"],
        };
        for name in names {
            system(async {
                made(kind, &foreign, &["theirs"]).await;
                let store = open(kind, &path).await;
                store.put("a").await;
                fs::rename(path.join(name), &away).unwrap();
                let put = || store.0.put(Put { task: sample("later", start()), expect: Expect::Absent });
                let error = put().await.unwrap_err().to_string();
                assert!(error.contains(&format!("`{name}` is missing")), "{kind:?}: {error}");
                copy(&foreign.join(name), &path.join(name));
                if *name == data(kind) {
                    let error = reopen(&store).await.unwrap_err();
                    assert!(error.to_string().contains("another store"), "{kind:?}: {error}");
                }
                let replaced = path.join(name);
                if replaced.is_dir() { fs::remove_dir_all(replaced) } else { fs::remove_file(replaced) }
                    .unwrap();
                fs::rename(&away, path.join(name)).unwrap();
                reopen(&store).await.unwrap();
                assert!(ids(&store).await.contains(&"a".to_owned()), "{kind:?}");
                store.stop().await;
                fs::remove_dir_all(&path).unwrap();
                fs::remove_dir_all(&foreign).unwrap();
            });
        }
    }
}

/// Whoever writes over the files of a store in mid-run, with those of another one or of a backup, is noticed
/// although it is the same files by device and inode.
#[test]
fn a_store_that_is_written_over_is_noticed_when_nothing_is_asked() {
    for kind in Kind::ALL {
        let base = tempfile::tempdir().unwrap();
        let [path, foreign] = ["store", "foreign"].map(|name| base.path().join(name));
        system(async {
            made(kind, &foreign, &["theirs"]).await;
            let store = open(kind, &path).await;
            store.put("a").await;
            let opened = reopen(&store).await.unwrap();
            for entry in fs::read_dir(&foreign).unwrap().flatten() {
                if entry.path().is_file() {
                    fs::write(path.join(entry.file_name()), fs::read(entry.path()).unwrap()).unwrap();
                }
            }
            let told = opened.failures.unwrap().next().await.unwrap();
            assert!(told.to_string().contains("somebody has written"), "{kind:?}: {told}");
            let error = reopen(&store).await.unwrap_err().to_string();
            assert!(error.contains("another store") || error.contains("damaged"), "{kind:?}: {error}");
            store.stop().await;
        });
    }
}

/// A store of an earlier version has no identity. It is given one, and a backup from before that is taken for
/// the store when it is put back.
#[test]
fn a_store_without_an_identity_is_given_one() {
    for kind in [Kind::Sled, Kind::Redb] {
        let base = tempfile::tempdir().unwrap();
        let [path, old] = ["store", "old"].map(|name| base.path().join(name));
        system(async {
            made(kind, &old, &["a"]).await;
            forget_identity(kind, &old);
            copy(&old, &path);
            let store = open(kind, &path).await;
            store.put("b").await;
            fs::remove_dir_all(&path).unwrap();
            is_gone(kind, &store, "the directory is missing").await;
            copy(&old, &path);
            reopen(&store).await.unwrap();
            assert_eq!(ids(&store).await, ["a"], "{kind:?}");
            close(store).await;
            let seal = fs::read_to_string(path.join("callboard-store.json")).unwrap();
            assert!(seal.contains("\"store\":"), "{kind:?}: {seal}");
        });
    }
}

/// The key of the identity's row.
const IDENTITY: &[u8] = b"i";

fn forget_identity(kind: Kind, path: &Path) {
    let mut seal: serde_json::Value =
        serde_json::from_slice(&fs::read(path.join("callboard-store.json")).unwrap()).unwrap();
    seal.as_object_mut().unwrap().remove("store").unwrap();
    fs::write(path.join("callboard-store.json"), seal.to_string()).unwrap();
    match kind {
        Kind::Sled => {
            let db = ::sled::open(path).unwrap();
            db.remove(IDENTITY).unwrap().unwrap();
            db.flush().unwrap();
        }
        _ => {
            let db = ::redb::Database::open(path.join("tasks.redb")).unwrap();
            let writing = db.begin_write().unwrap();
            let table = ::redb::TableDefinition::<&[u8], &[u8]>::new("callboard");
            assert!(writing.open_table(table).unwrap().remove(IDENTITY).unwrap().is_some());
            writing.commit().unwrap();
        }
    }
}

#[test]
fn a_store_that_was_moved_or_copied_while_nobody_had_it_opens() {
    for kind in Kind::ALL {
        let base = tempfile::tempdir().unwrap();
        let [path, moved, copied] = ["store", "moved", "copied"].map(|name| base.path().join(name));
        system(async {
            made(kind, &path, &["a"]).await;
            copy(&path, &copied);
            fs::rename(&path, &moved).unwrap();
            for place in [&moved, &copied] {
                let store = open(kind, place).await;
                assert_eq!(ids(&store).await, ["a"], "{kind:?}");
                store.stop().await;
            }
        });
    }
}

/// What is half copied is neither taken for a damaged store that is to be set aside, nor for all there is.
#[test]
fn a_backup_that_is_still_being_copied_is_waited_for() {
    for kind in Kind::ALL {
        let base = tempfile::tempdir().unwrap();
        let [path, backup] = ["store", "backup"].map(|name| base.path().join(name));
        system(async {
            made(kind, &path, &["a", "b"]).await;
            copy(&path, &backup);
            let (store, _) = Running::open_with(kind.open_with(&path, true)).await.unwrap();
            fs::remove_dir_all(&path).unwrap();
            is_gone(kind, &store, "the directory is missing").await;
            fs::create_dir(&path).unwrap();
            let half: Vec<PathBuf> = snapshot(&backup).into_keys().collect();
            for file in half.iter().filter(|file| file.is_file()) {
                let to = path.join(file.strip_prefix(&backup).unwrap());
                fs::create_dir_all(to.parent().unwrap()).unwrap();
                let bytes = fs::read(file).unwrap();
                fs::write(&to, &bytes[..bytes.len() / 2]).unwrap();
            }
            reopen(&store).await.unwrap_err();
            assert!(path.exists(), "{kind:?}: it was not set aside");
            fs::remove_dir_all(&path).unwrap();
            copy(&backup, &path);
            reopen(&store).await.unwrap();
            assert_eq!(ids(&store).await, ["a", "b"], "{kind:?}");
            store.stop().await;
        });
    }
}

/// A scheduler with nothing to do tells of it all the same, and goes on when it is back.
#[actix::test]
async fn a_scheduler_that_is_idle_tells_of_it() {
    for kind in Kind::ALL {
        let base = tempfile::tempdir().unwrap();
        let [path, away] = ["store", "away"].map(|name| base.path().join(name));
        let scheduler = Scheduler::builder()
            .registry(Ran::default().registry())
            .store("default", kind.open(&path))
            .store_retry(Duration::from_millis(100))
            .build()
            .unwrap();
        scheduler.send(callboard::scheduler::message::Start::default()).await.unwrap().unwrap();
        let kinds = EventMask::STORE_UNAVAILABLE | EventMask::STORE_RECOVERED;
        let mut events = scheduler.events(kinds).await.unwrap();
        scheduler.add(Task::new("note").id("rare").trigger(Interval::seconds(100_000))).await.unwrap();
        fs::rename(&path, &away).unwrap();
        let begin = Instant::now();
        let told = futures::StreamExt::next(&mut events).await.unwrap();
        assert!(begin.elapsed() < Duration::from_secs(20), "{kind:?}");
        assert!(
            matches!(&told, Event::StoreUnavailable { cause, .. } if cause.contains("the directory is missing")),
            "{kind:?}: {told:?}"
        );
        let status = scheduler.status().await.unwrap();
        let problem = status.stores[0].problem.clone().unwrap();
        assert!(problem.contains("put it back"), "{kind:?}: {problem}");
        fs::rename(&away, &path).unwrap();
        let told = futures::StreamExt::next(&mut events).await.unwrap();
        assert!(matches!(told, Event::StoreRecovered { .. }), "{kind:?}: {told:?}");
        assert_eq!(scheduler.tasks(callboard::task::TaskQuery::new()).await.unwrap().len(), 1, "{kind:?}");
        scheduler.shutdown(Shutdown::now()).await.unwrap();
    }
}
