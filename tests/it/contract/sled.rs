//! The sled store on directories that are not as they should be, and what it keeps.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use callboard::store::contract::{sample, start};
use callboard::store::message::*;
use callboard::store::{Durability, ROW_LIMIT, SledStore, StoreAddr, StoreError, StoreSource};
use callboard::task::{Outcome, OwnerId, RunEnd, RunId, RunRecord, Source, StoredTask, TaskId, TaskState};
use futures::channel::oneshot;

use super::damaged::damaged;
use super::{Kind, system};

/// A store at work, and the news of its end.
pub(super) struct Running(pub(super) StoreAddr, oneshot::Receiver<()>);

impl Running {
    pub(super) async fn open(path: &Path) -> Result<(Self, Opened), StoreError> {
        Self::open_with(SledStore::open(path)?).await
    }

    pub(super) async fn open_with(source: impl StoreSource) -> Result<(Self, Opened), StoreError> {
        Self::open_as(source, OwnerId(1)).await
    }

    pub(super) async fn open_as(
        mut source: impl StoreSource,
        owner: OwnerId,
    ) -> Result<(Self, Opened), StoreError> {
        let (keep, ended) = oneshot::channel::<()>();
        let store = source.start(Box::new(keep));
        match store.open(Open { owner, now: start() }).await {
            Ok(opened) => Ok((Self(store, ended), opened)),
            Err(error) => {
                drop(store);
                ended.await.unwrap_err();
                Err(error)
            }
        }
    }

    pub(super) async fn put(&self, id: &str) -> StoredTask {
        let task = sample(id, start());
        self.0.put(Put { task: task.clone(), expect: Expect::Absent }).await.unwrap();
        task
    }

    pub(super) async fn ids(&self) -> Vec<String> {
        self.0.list(List).await.unwrap().iter().map(|task| task.spec.id.to_string()).collect()
    }

    pub(super) async fn stop(self) {
        drop(self.0);
        self.1.await.unwrap_err();
    }
}

pub(super) fn id(text: &str) -> TaskId {
    TaskId::new(text).unwrap()
}

pub(super) fn moved_on(task: &StoredTask, runs: Vec<RunRecord>) -> Change {
    let state = TaskState { revision: task.state.revision + 1, ..task.state.clone() };
    Change { id: task.spec.id.clone(), revision: task.state.revision, then: Then::State(state), runs }
}

pub(super) fn run(task: &str, serial: u64) -> RunRecord {
    RunRecord {
        id: RunId { owner: OwnerId(1), serial },
        task: id(task),
        nominal: start(),
        offset: None,
        coalesced: 0,
        span: None,
        source: Source::Scheduled,
        attempt: 1,
        submitted_at: start(),
        end: None,
    }
}

/// All files under a directory with their bytes.
pub(super) fn snapshot(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(snapshot(&path));
        } else {
            files.insert(path.clone(), fs::read(path).unwrap());
        }
    }
    files
}

/// sled makes its directory in steps, and a process can be killed between any two of them.
#[test]
fn a_beginning_that_is_cut_short_is_no_damage() {
    let base = tempfile::tempdir().unwrap();
    system(async {
        let made = base.path().join("made");
        Running::open(&made).await.unwrap().0.stop().await;
        let conf = fs::read(made.join("conf")).unwrap();
        for length in 0..=conf.len() {
            let path = base.path().join(length.to_string());
            fs::create_dir_all(path.join("blobs")).unwrap();
            fs::write(path.join("conf"), &conf[..length]).unwrap();
            let (store, opened) = Running::open(&path).await.unwrap();
            assert_eq!(opened.unreadable, []);
            store.put("a").await;
            store.stop().await;
            let (store, _) = Running::open(&path).await.unwrap();
            assert_eq!(store.ids().await, ["a"], "{length} of {} bytes", conf.len());
            store.stop().await;
        }
        // What somebody else calls so is theirs.
        let path = base.path().join("theirs");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("conf"), "colour = blue, size = 7").unwrap();
        let before = snapshot(&path);
        let error = Running::open(&path).await.map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("data of another program"), "{error}");
        let lock = path.join("callboard-store.lock");
        assert!(snapshot(&path).into_iter().filter(|(file, _)| *file != lock).eq(before));
    });
}

#[test]
fn a_newer_directory_is_known_by_its_data_too() {
    damaged(Kind::Sled, "format 7", |path| {
        fs::remove_file(path.join("callboard-store.json")).unwrap();
        let db = ::sled::open(path).unwrap();
        db.insert("m", b"M\x01j{\"format\":7,\"batch\":9}").unwrap();
    });
}

#[test]
fn the_data_of_another_program_is_left_alone() {
    let base = tempfile::tempdir().unwrap();
    let db = ::sled::open(base.path()).unwrap();
    db.insert("somebody", "else").unwrap();
    drop(db);
    let error = system(async { Running::open(base.path()).await.map(|_| ()).unwrap_err() });
    assert!(error.to_string().contains("another program"), "{error}");
    assert_eq!(::sled::open(base.path()).unwrap().len(), 1);
}

#[test]
fn a_file_is_no_directory() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = SledStore::open(file.path()).unwrap_err();
    assert!(
        matches!(error, StoreError::Damaged { .. }) && error.to_string().contains("a directory"),
        "{error}"
    );
}

#[test]
fn what_cannot_be_read_is_reported_and_left_alone() {
    let base = tempfile::tempdir().unwrap();
    system(async {
        let (store, _) = Running::open(base.path()).await.unwrap();
        for name in ["fine", "newer", "broken", "stateless", "orphan", "copied"] {
            store.put(name).await;
        }
        store.stop().await;

        let db = ::sled::open(base.path()).unwrap();
        db.insert("snewer", b"S\x09j{}").unwrap();
        db.insert("tbroken", b"T\x01j{\"revision\":").unwrap();
        db.remove("tstateless").unwrap();
        db.remove("sorphan").unwrap();
        db.insert("scopied", db.get("sfine").unwrap().unwrap()).unwrap();
        db.insert(b"s\xff\xfe", b"").unwrap();
        let records =
            || db.iter().filter(|entry| !entry.as_ref().unwrap().0.starts_with(b"m")).map(Result::unwrap);
        let before: Vec<_> = records().collect();
        drop(db);

        let (store, opened) = Running::open(base.path()).await.unwrap();
        let reported: Vec<_> = opened.unreadable.iter().map(|u| (u.id.as_str(), u.reason.as_str())).collect();
        let expected = [
            ("broken", "does not decode"),
            ("copied", "that of another task, `fine`"),
            ("newer", "format 9"),
            ("orphan", "spec is missing"),
            ("stateless", "state is missing"),
            ("\u{fffd}\u{fffd}", "not one that a task can have"),
        ];
        assert_eq!(reported.len(), expected.len(), "{reported:?}");
        for ((id, reason), (expected, because)) in reported.into_iter().zip(expected) {
            assert!(id == expected && reason.contains(because), "{id}: {reason}");
        }
        assert_eq!(store.ids().await, ["fine"]);
        assert_eq!(store.0.take_due(TakeDue { now: start(), limit: 9 }).await.unwrap().tasks.len(), 1);
        let refused =
            store.0.put(Put { task: sample("newer", start()), expect: Expect::Absent }).await.unwrap_err();
        assert!(refused.to_string().contains("format 9"), "{refused}");
        store.0.get(Get { id: id("newer") }).await.unwrap_err();
        store.0.delete(Delete { id: id("broken"), revision: None }).await.unwrap_err();
        let stale = moved_on(&sample("broken", start()), vec![run("broken", 1)]);
        assert_eq!(store.0.commit(Commit { changes: vec![stale] }).await.unwrap().refused, [0]);
        assert_eq!(store.0.remove_all(RemoveAll).await.unwrap(), 1);
        store.stop().await;

        let db = ::sled::open(base.path()).unwrap();
        for (key, value) in before.iter().filter(|(key, _)| !key.ends_with(b"fine")) {
            assert_eq!(db.get(key).unwrap().as_ref(), Some(value), "{key:?}");
        }
    });
}

/// A run record that cannot be read does its task no harm.
#[test]
fn a_broken_run_record_is_reported_and_its_task_goes_on() {
    let base = tempfile::tempdir().unwrap();
    system(async {
        let (store, _) = Running::open(base.path()).await.unwrap();
        let task = store.put("a").await;
        store
            .0
            .commit(Commit { changes: vec![moved_on(&task, vec![run("a", 1), run("a", 2)])] })
            .await
            .unwrap();
        store.stop().await;
        let key = [b"ra\0".as_slice(), &1_u64.to_be_bytes(), &2_u64.to_be_bytes()].concat();
        let db = ::sled::open(base.path()).unwrap();
        assert!(db.insert(&key, b"R\x01j{").unwrap().is_some());
        drop(db);
        let (store, opened) = Running::open(base.path()).await.unwrap();
        assert_eq!(opened.unreadable.len(), 1);
        assert!(opened.unreadable[0].reason.contains("run 0000000000000001-2"), "{:?}", opened.unreadable);
        assert_eq!(store.0.runs(Runs { id: id("a"), limit: 9 }).await.unwrap(), [run("a", 1)]);
        store.0.delete(Delete { id: id("a"), revision: None }).await.unwrap();
        store.stop().await;
        assert_eq!(::sled::open(base.path()).unwrap().get(&key).unwrap().unwrap(), b"R\x01j{");
    });
}

/// A write that fails takes the store down: it acknowledges nothing until it has been opened
/// again, which reads what is really there.
#[test]
fn a_failed_write_takes_the_store_down_until_it_is_opened_again() {
    let base = tempfile::tempdir().unwrap();
    system(async {
        let (store, _) = Running::open(base.path()).await.unwrap();
        // Where the seal would be written.
        let obstacle = base.path().join("callboard-store.json.new");
        fs::create_dir(&obstacle).unwrap();
        let (mut acknowledged, mut failure) = (0, None);
        while failure.is_none() {
            let task = sample(&format!("{acknowledged:04}"), start());
            match store.0.put(Put { task, expect: Expect::Absent }).await {
                Ok(()) => acknowledged += 1,
                Err(error) => failure = Some(error),
            }
            assert!(acknowledged < 1000, "the seal is renewed from time to time");
        }
        assert!(failure.as_ref().is_some_and(StoreError::is_retryable), "{failure:?}");
        assert!(store.0.list(List).await.unwrap_err().is_retryable());
        assert!(store.0.take_due(TakeDue { now: start(), limit: 9 }).await.is_err());
        fs::remove_dir(obstacle).unwrap();
        store.0.open(Open { owner: OwnerId(1), now: start() }).await.unwrap();
        // The write that failed may have happened.
        let there = store.ids().await.len();
        assert!(there == acknowledged || there == acknowledged + 1, "{there} of {acknowledged}");
        store.put("later").await;
    });
}

#[test]
fn too_large_a_task_is_refused() {
    let base = tempfile::tempdir().unwrap();
    system(async {
        let (store, _) = Running::open(base.path()).await.unwrap();
        let mut task = sample("a", start());
        let mut spec = (*task.spec).clone();
        spec.args = "x".repeat(ROW_LIMIT).into();
        task.spec = spec.into();
        let error = store.0.put(Put { task, expect: Expect::Absent }).await.unwrap_err();
        let (size, limit) = match error {
            StoreError::TooLarge { size, limit, .. } => (size, limit),
            other => panic!("{other:?}"),
        };
        assert!(size > limit && limit == ROW_LIMIT);
        assert_eq!(store.ids().await, [""; 0]);
    });
}

#[test]
fn history_is_bounded_and_what_still_runs_is_kept() {
    let base = tempfile::tempdir().unwrap();
    system(async {
        let source = SledStore::open(base.path()).unwrap().history(8);
        let (store, _) = Running::open_with(source).await.unwrap();
        let mut task = store.put("a").await;
        for serial in 1..=40 {
            let change = moved_on(&task, vec![run("a", serial)]);
            task.state.revision += 1;
            store.0.commit(Commit { changes: vec![change] }).await.unwrap();
            // The first never ends; the others end with much to say.
            if serial > 1 {
                let error = "ü".repeat(ROW_LIMIT);
                let end = RunEnd::unstarted(Outcome::Failed { error }, start());
                let ends = vec![(RunId { owner: OwnerId(1), serial }, id("a"), end)];
                store.0.finish(Finish { ends }).await.unwrap();
            }
        }
        let runs = store.0.runs(Runs { id: id("a"), limit: 99 }).await.unwrap();
        let serials: Vec<_> = runs.iter().map(|run| run.id.serial).collect();
        assert_eq!(serials.len(), 9, "the latest 8, and the first, which has not ended");
        assert_eq!((serials[0], serials[1], serials[serials.len() - 1]), (40, 39, 1));
        let told = runs[0].end.as_ref().and_then(|end| end.outcome.problem()).unwrap();
        assert!(told.starts_with("üü") && told.ends_with('…') && told.len() < 5000, "{}", told.len());
    });
}

/// One-shot tasks with ids of their own do not fill the disk.
#[test]
fn the_history_of_removed_tasks_is_bounded() {
    let base = tempfile::tempdir().unwrap();
    system(async {
        let source = || SledStore::open(base.path()).unwrap().history_of_removed(100);
        let (store, _) = Running::open_with(source()).await.unwrap();
        let mut changes = Vec::new();
        for index in 0..110 {
            let name = format!("{index:05}");
            let task = store.put(&name).await;
            let mut change = moved_on(&task, vec![run(&name, index as u64)]);
            change.then = Then::Remove;
            for record in &mut change.runs {
                record.end = Some(RunEnd::unstarted(Outcome::Cancelled, start()));
            }
            changes.push(change);
        }
        let last = changes.split_off(20);
        store.0.commit(Commit { changes }).await.unwrap();
        store.put("00000").await;
        store.stop().await;
        let (store, _) = Running::open_with(source()).await.unwrap();
        store.0.commit(Commit { changes: last }).await.unwrap();
        let kept = async |name: &str| store.0.runs(Runs { id: id(name), limit: 9 }).await.unwrap().len();
        assert_eq!(kept("00000").await, 1, "it was added again");
        assert_eq!((kept("00001").await, kept("00009").await, kept("00010").await), (0, 0, 1));
        assert_eq!(kept("00109").await, 1);
    });
}

/// sled keeps what is too large for its log in files of their own. No row is, but neighbours
/// together are: they are written and found like others.
#[test]
fn large_neighbours_are_there_after_a_restart() {
    let base = tempfile::tempdir().unwrap();
    system(async {
        let large = |index: usize| {
            let mut task = sample(&format!("{index:02}"), start());
            let spec = (*task.spec).clone();
            task.spec =
                callboard::task::TaskSpec { args: "x".repeat(ROW_LIMIT - 2000).into(), ..spec }.into();
            task
        };
        let (store, _) = Running::open(base.path()).await.unwrap();
        for index in 0..40 {
            store.0.put(Put { task: large(index), expect: Expect::Absent }).await.unwrap();
        }
        assert!(fs::read_dir(base.path().join("blobs")).unwrap().count() > 0, "what this test is about");
        store.stop().await;
        let (store, opened) = Running::open(base.path()).await.unwrap();
        assert_eq!(opened.unreadable, []);
        for index in 0..40 {
            let task = large(index);
            let found = store.0.get(Get { id: task.spec.id.clone() }).await.unwrap();
            assert_eq!(found, Some(task));
        }
    });
}

#[test]
fn a_relaxed_store_keeps_what_it_was_closed_with() {
    let base = tempfile::tempdir().unwrap();
    system(async {
        let hour = Durability::Interval(std::time::Duration::from_secs(3600));
        let source = SledStore::open(base.path()).unwrap().durability(hour);
        let (store, _) = Running::open_with(source).await.unwrap();
        for index in 0..300 {
            store.put(&format!("{index:03}")).await;
        }
        store.0.close(Close).await.unwrap();
        store.stop().await;
        let (store, _) = Running::open(base.path()).await.unwrap();
        assert_eq!(store.ids().await.len(), 300);
    });
}
