//! What all stores in directories do about places that are full, read-only, taken, newer or damaged.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use callboard::event::{Event, EventMask};
use callboard::scheduler::Scheduler;
use callboard::store::contract::{sample, start};
use callboard::store::message::*;
use callboard::store::{MemoryStore, StoreError};
use callboard::task::{OwnerId, Task, TaskSpec};

use super::sled::{Running, snapshot};
use super::{Kind, system};
use crate::scheduler::{Ran, at, board, every, heard, secs};

async fn open(kind: Kind, path: &Path) -> Result<(Running, Opened), StoreError> {
    Running::open_with(kind.open(path)).await
}

/// A small file system of its own; gone when dropped.
struct Mount(PathBuf);

impl Mount {
    /// `None`, with a notice, where nobody may mount anything.
    fn new(path: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(path)
            .stderr(Stdio::null())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(path.to_owned()));
        }
        println!("skipped: it takes a user who may mount a tmpfs");
        None
    }

    fn remount(&self, how: &str) {
        let status =
            Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(&self.0).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Whoever still has a file open there may keep it.
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

#[test]
fn a_full_disk_is_an_error_and_what_was_acknowledged_stays() {
    for kind in Kind::ALL {
        let base = tempfile::tempdir().unwrap();
        let Some(mount) = Mount::new(&base.path().join("small"), "40m") else { return };
        let path = mount.0.join("store");
        system(async {
            let (store, _) = open(kind, &path).await.unwrap();
            store.put("first").await;
            fs::write(mount.0.join("ballast"), vec![7; 24 << 20]).unwrap();
            let large = |index: usize| {
                let mut task = sample(&format!("{index:05}"), start());
                task.spec = TaskSpec { args: "x".repeat(30_000).into(), ..(*task.spec).clone() }.into();
                task
            };
            let (mut acknowledged, mut failure) = (0, None);
            while failure.is_none() {
                let put = Put { task: large(acknowledged), expect: Expect::Absent };
                match store.0.put(put).await {
                    Ok(()) => acknowledged += 1,
                    Err(error) => failure = Some(error),
                }
                assert!(acknowledged < 1000, "{kind:?}: there is no room for that many");
            }
            let error = failure.unwrap();
            assert!(error.is_retryable(), "{kind:?}: {error:?}");
            assert!(acknowledged > 10, "{kind:?}: {acknowledged}");
            assert!(store.0.list(List).await.unwrap_err().is_retryable(), "{kind:?}: it is down");
            // While there is no room it opens and fails again, or does not open.
            let reopened = store.0.open(Open { owner: OwnerId(1), now: start() }).await;
            if let Err(error) = &reopened {
                assert!(error.is_retryable(), "{kind:?}: {error:?}");
            }
            fs::remove_file(mount.0.join("ballast")).unwrap();
            let all = acknowledged + 1..=acknowledged + 2;
            // With room it opens, and has what was acknowledged.
            let reopened = store.0.open(Open { owner: OwnerId(1), now: start() }).await;
            reopened.unwrap();
            let there = store.ids().await.len();
            assert!(all.contains(&there), "{kind:?}: {there} of {acknowledged}");
            store.put("later").await;
            store.stop().await;
            let (store, opened) = open(kind, &path).await.unwrap();
            assert_eq!((store.ids().await.len(), opened.unreadable.len()), (there + 1, 0), "{kind:?}");
            store.stop().await;
        });
    }
}

#[test]
fn a_read_only_place_is_an_error_and_nothing_else() {
    for kind in Kind::ALL {
        let base = tempfile::tempdir().unwrap();
        let Some(mount) = Mount::new(&base.path().join("small"), "16m") else { return };
        let path = mount.0.join("store");
        system(async {
            let (store, _) = open(kind, &path).await.unwrap();
            store.put("a").await;
            store.0.close(Close).await.unwrap();
            store.stop().await;
            mount.remount("ro");
            let before = snapshot(&path);
            for place in [&path, &mount.0.join("new")] {
                let error = open(kind, place).await.map(|_| ()).unwrap_err();
                assert!(matches!(error, StoreError::Unavailable { .. }), "{kind:?}: {error:?}");
                assert!(error.to_string().contains("Read-only"), "{kind:?}: {error}");
            }
            assert!(snapshot(&path) == before, "{kind:?}");
            mount.remount("rw");
            let (store, _) = open(kind, &path).await.unwrap();
            assert_eq!(store.ids().await, ["a"], "{kind:?}");
            store.stop().await;
        });
    }
}

#[test]
fn a_file_in_the_way_of_the_directory_is_an_error() {
    for kind in Kind::ALL {
        let base = tempfile::tempdir().unwrap();
        fs::write(base.path().join("file"), "mine").unwrap();
        system(async {
            let below = base.path().join("file/store");
            let error = open(kind, &below).await.map(|_| ()).unwrap_err();
            assert!(error.is_retryable() && error.to_string().contains("file/store"), "{kind:?}: {error}");
            assert_eq!(fs::read_to_string(base.path().join("file")).unwrap(), "mine");
        });
    }
}

#[test]
fn a_newer_directory_is_left_alone() {
    for kind in Kind::ALL {
        let base = tempfile::tempdir().unwrap();
        let path = base.path();
        system(async {
            let (store, _) = open(kind, path).await.unwrap();
            store.put("a").await;
            store.0.close(Close).await.unwrap();
            store.stop().await;
            let (mark, text) = match kind {
                Kind::File => ("callboard-files.json", r#"{"about":[],"format":7}"#),
                _ => ("callboard-store.json", r#"{"format":7,"batch":1}"#),
            };
            fs::write(path.join(mark), text).unwrap();
            let before = snapshot(path);
            // Not even when damaged directories are to make room.
            for set_aside in [false, true] {
                let opened = Running::open_with(kind.open_with(path, set_aside)).await;
                let error = opened.map(|_| ()).unwrap_err();
                assert!(matches!(error, StoreError::Damaged { .. }), "{kind:?}: {error:?}");
                assert!(error.to_string().contains("format 7"), "{kind:?}: {error}");
                assert!(snapshot(path) == before, "{kind:?}");
            }
        });
    }
}

#[test]
fn a_directory_has_one_kind_of_store() {
    for kind in Kind::ALL {
        let base = tempfile::tempdir().unwrap();
        system(async {
            open(kind, base.path()).await.unwrap().0.stop().await;
            let before = snapshot(base.path());
            for other in Kind::ALL.into_iter().filter(|other| *other != kind) {
                let error = open(other, base.path()).await.map(|_| ()).unwrap_err().to_string();
                let named = format!("tasks of a {} store", format!("{kind:?}").to_lowercase());
                assert!(error.contains(&named) && error.contains("directory of its own"), "{error}");
            }
            assert!(snapshot(base.path()) == before);
        });
    }
}

/// Another process with a store, at work until it is killed or its standard input ends, and how many tasks
/// it has found.
fn other_process(kind: Kind, path: &Path) -> (Child, usize) {
    let mut other = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "contract::places::hold_a_store", "--nocapture", "--ignored"])
        .env("CALLBOARD_HOLD", path)
        .env("CALLBOARD_HOLD_KIND", format!("{kind:?}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(other.stdout.take().unwrap()).lines();
    let there = lines.find_map(|line| line.unwrap().split_once("held besides ")?.1.parse().ok());
    (other, there.unwrap())
}

#[test]
fn the_process_that_has_a_directory_is_named_and_its_death_frees_it() {
    for kind in Kind::ALL {
        let base = tempfile::tempdir().unwrap();
        let (mut other, _) = other_process(kind, base.path());
        system(async {
            let error = open(kind, base.path()).await.map(|_| ()).unwrap_err();
            let named = matches!(&error, StoreError::InUse { holder: Some(pid), .. } if *pid == other.id());
            assert!(named, "{kind:?}: {error:?}");
            assert!(error.to_string().contains(&format!("process {}", other.id())), "{error}");
            other.kill().unwrap();
            other.wait().unwrap();
            let (store, _) = open(kind, base.path()).await.unwrap();
            assert_eq!(store.ids().await, ["held"], "{kind:?}");
            store.stop().await;
        });
    }
}

#[test]
#[ignore = "the other process of `the_process_that_has_a_directory_is_named_and_its_death_frees_it`"]
fn hold_a_store() {
    let Some(path) = std::env::var_os("CALLBOARD_HOLD") else { return };
    let kind = Kind::named(&std::env::var("CALLBOARD_HOLD_KIND").unwrap());
    system(async {
        let (store, _) = open(kind, Path::new(&path)).await.unwrap();
        let there = store.ids().await.len();
        store.put("held").await;
        println!("\nheld besides {there}");
        std::io::read_to_string(std::io::stdin()).unwrap();
    });
}

fn damage(kind: Kind, path: &Path) {
    match kind {
        Kind::Sled => fs::write(path.join("db"), [0xab; 1 << 16]).unwrap(),
        Kind::Redb => fs::write(path.join("tasks.redb"), [0xab; 1 << 16]).unwrap(),
        Kind::File => fs::remove_dir_all(path.join("tasks")).unwrap(),
    }
}

#[test]
fn damaged_data_is_set_aside_only_when_that_is_asked_for() {
    for kind in Kind::ALL {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("store");
        system(async {
            let (store, _) = open(kind, &path).await.unwrap();
            store.put("lost").await;
            store.0.close(Close).await.unwrap();
            store.stop().await;
            damage(kind, &path);
            let before = snapshot(&path);
            let error = open(kind, &path).await.map(|_| ()).unwrap_err().to_string();
            assert!(
                error.contains("callboard store import") && error.contains("Nothing was deleted"),
                "{error}"
            );
            assert!(snapshot(&path) == before, "{kind:?}");

            let asked = || kind.open_with(&path, true);
            let (store, opened) = Running::open_with(asked()).await.unwrap();
            let aside = opened.set_aside.unwrap();
            assert!(aside.reason.contains("damaged"), "{kind:?}: {}", aside.reason);
            assert!(aside.place.starts_with(&format!("{}.damaged-2", path.display())), "{}", aside.place);
            let moved = snapshot(Path::new(&aside.place));
            let below = |files: &std::collections::BTreeMap<PathBuf, Vec<u8>>, root: &Path| {
                let names = files
                    .iter()
                    .map(|(path, bytes)| (path.strip_prefix(root).unwrap().to_owned(), bytes.clone()));
                names.collect::<Vec<_>>()
            };
            assert_eq!(below(&moved, Path::new(&aside.place)), below(&before, &path), "{kind:?}");
            assert_eq!(store.ids().await, [""; 0]);
            store.put("new").await;
            store.stop().await;
            let (store, opened) = Running::open_with(asked()).await.unwrap();
            assert_eq!((opened.set_aside, store.ids().await), (None, vec!["new".to_owned()]), "{kind:?}");
            store.stop().await;
        });
    }
}

/// A scheduler whose store cannot be written to tells it, goes on with its other stores, and comes back
/// to it.
#[actix::test]
async fn a_scheduler_serves_its_other_stores_meanwhile() {
    for kind in Kind::ALL {
        let base = tempfile::tempdir().unwrap();
        let Some(mount) = Mount::new(&base.path().join("small"), "24m") else { return };
        let place = mount.0.join("store");
        let (scheduler, time, ran) =
            board(|b| b.store("default", MemoryStore::new()).store("disk", kind.open(&place))).await;
        let mut events =
            scheduler.events(EventMask::STORE_UNAVAILABLE | EventMask::STORE_RECOVERED).await.unwrap();
        scheduler.add(every(10).id("memory")).await.unwrap();
        scheduler.add(every(10).id("disk").store("disk")).await.unwrap();
        time.advance(secs(20)).await;
        assert_eq!((ran.count("memory"), ran.count("disk")), (3, 3), "{kind:?}");
        // Full to the last byte.
        let ballast = mount.0.join("ballast");
        let chunk = vec![7; 4096];
        let mut file = fs::File::create(&ballast).unwrap();
        while std::io::Write::write_all(&mut file, &chunk).is_ok() {}
        drop(file);
        let mut full = 0;
        while heard(&mut events).is_empty() {
            let large = Task::new("note").trigger(callboard::trigger::Interval::seconds(1000)).store("disk");
            scheduler.add(large.args("x".repeat(30_000))).await.ok();
            time.advance(secs(1)).await;
            full += 1;
            assert!(full < 300, "{kind:?}: it never fails");
        }
        let (before, stuck) = (ran.count("memory"), ran.count("disk"));
        time.advance(secs(100)).await;
        assert_eq!(ran.count("memory") - before, 10, "{kind:?}");
        let status = scheduler.status().await.unwrap();
        let disk = status.stores.iter().find(|store| store.alias.as_str() == "disk").unwrap();
        assert!(disk.problem.is_some() || ran.count("disk") > stuck, "{kind:?}");
        fs::remove_file(&ballast).unwrap();
        time.advance(secs(130)).await;
        let told = heard(&mut events);
        assert!(told.iter().any(|event| matches!(event, Event::StoreRecovered { .. })), "{kind:?}: {told:?}");
        assert!(ran.count("disk") > stuck, "{kind:?}");
        let last = *ran.of("disk").last().unwrap();
        assert!(last >= at((full + 200) as i64 / 10 * 10), "{kind:?}: {last}");
        let mut once = ran.of("disk");
        once.dedup();
        assert_eq!(once.len(), ran.count("disk"), "{kind:?}: no run time twice");
        scheduler.shutdown(callboard::scheduler::Shutdown::now()).await.unwrap();
    }
}

#[actix::test]
async fn a_scheduler_tells_that_data_was_set_aside() {
    let base = tempfile::tempdir().unwrap();
    let path = base.path().join("store");
    let (store, _) = open(Kind::File, &path).await.unwrap();
    store.0.close(Close).await.unwrap();
    store.stop().await;
    damage(Kind::File, &path);
    let scheduler = Scheduler::builder()
        .registry(Ran::default().registry())
        .store("default", Kind::File.open_with(&path, true))
        .build()
        .unwrap();
    let mut events = scheduler.events(EventMask::STORE_SET_ASIDE).await.unwrap();
    scheduler.send(callboard::scheduler::message::Start::default()).await.unwrap().unwrap();
    let told = loop {
        match heard(&mut events).pop() {
            Some(event) => break event,
            None => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    let Event::StoreSetAside { place, cause, .. } = told else { panic!("{told:?}") };
    assert!(Path::new(&place).exists() && cause.contains("`tasks` is missing"), "{place}: {cause}");
    scheduler.shutdown(callboard::scheduler::Shutdown::now()).await.unwrap();
}
