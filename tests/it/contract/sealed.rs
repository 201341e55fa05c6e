//! Stores with keys: the contract, what can be seen, and what is in quarantine until the right key is
//! there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use callboard::event::{Event, EventMask};
use callboard::scheduler::{Handle, Scheduler, Shutdown};
use callboard::store::contract::{durable, random, sample, start, suite};
use callboard::store::message::*;
use callboard::store::{FileStore, Keyring, Keys, RedbStore, SledStore, StoreError, StoreSource};
use callboard::task::{Outcome, OwnerId, Registry, RunEnd, StoredTask, Task, TaskContext, TaskId, TaskSpec};
use futures::StreamExt;
use proptest::prelude::*;

use super::sled::{Running, id, moved_on, run, snapshot};
use super::system;

fn key() -> Keyring {
    Keyring::generate().unwrap()
}

/// Directories one after another.
fn fresh<S>(base: &Path, make: impl Fn(&Path) -> S) -> impl FnMut() -> S {
    let mut count = 0;
    move || {
        count += 1;
        make(&base.join(count.to_string()))
    }
}

macro_rules! on_each_store {
    ($($kind:ident: $store:ident),+ $(,)?) => {$(
        mod $kind {
            use super::*;

            fn open(path: &Path, keys: &Keys) -> $store {
                $store::open(path).unwrap().encrypt(keys.clone())
            }

            #[test]
            fn keeps_the_contract_with_keys() {
                let (base, keys) = (tempfile::tempdir().unwrap(), Keys::new(key()));
                system(suite(fresh(base.path(), |path| open(path, &keys).refuse_plain(true))));
                system(durable(|| open(&base.path().join("durable"), &keys).refuse_plain(true)));
                system(random(fresh(&base.path().join("random"), |path| open(path, &keys)), 7, 200));
            }

            #[test]
            fn shows_nothing_of_its_tasks() {
                shows_nothing(open);
            }

            #[test]
            fn keeps_what_it_has_no_key_for() {
                keeps_what_it_has_no_key_for_at(open);
            }

            #[test]
            fn takes_over_a_plain_store() {
                takes_over(|path| $store::open(path).unwrap(), open, |path, keys| open(path, keys).refuse_plain(true));
            }

            #[test]
            fn changes_keys_at_work() {
                changes_keys(open);
            }
        }
    )+};
}

on_each_store! { sled: SledStore, redb: RedbStore, file: FileStore }

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_store_with_keys_agrees_with_the_model(seed in any::<u64>()) {
        let (base, keys) = (tempfile::tempdir().unwrap(), Keys::new(key()));
        system(random(fresh(base.path(), |path| RedbStore::open(path).unwrap().encrypt(keys.clone())), seed, 120));
    }
}

const SECRET: &str = "the crown jewels";

fn secret_task(name: &str) -> StoredTask {
    let mut task = sample(name, start());
    task.spec = Arc::new(TaskSpec { args: SECRET.into(), ..TaskSpec::clone(&task.spec) });
    task
}

fn shows_nothing<S: StoreSource>(open: impl Fn(&Path, &Keys) -> S) {
    let (base, ring) = (tempfile::tempdir().unwrap(), key());
    let path = base.path().join("store");
    system(async {
        let (store, _) = Running::open_with(open(&path, &Keys::new(ring.clone()))).await.unwrap();
        let task = secret_task("visible");
        store.0.put(Put { task: task.clone(), expect: Expect::Absent }).await.unwrap();
        store.0.commit(Commit { changes: vec![moved_on(&task, vec![run("visible", 1)])] }).await.unwrap();
        let end = RunEnd::unstarted(Outcome::Failed { error: SECRET.to_owned() }, start());
        store.0.finish(Finish { ends: vec![(run("visible", 1).id, id("visible"), end)] }).await.unwrap();
        store.0.close(Close).await.unwrap();
        store.stop().await;
    });
    let contains = |wanted: &[u8]| {
        snapshot(&path).values().any(|bytes| bytes.windows(wanted.len()).any(|window| window == wanted))
    };
    assert!(contains(b"visible"), "ids are not hidden");
    // The first revision is nobody's business, either.
    for hidden in [SECRET, "revision", "handler", "failed"] {
        assert!(!contains(hidden.as_bytes()), "{hidden} can be seen");
    }
    for key in ring.to_text().lines() {
        assert!(!contains(key.as_bytes()));
    }
}

fn keeps_what_it_has_no_key_for_at<S: StoreSource>(open: impl Fn(&Path, &Keys) -> S) {
    let (base, right, wrong) = (tempfile::tempdir().unwrap(), key(), key());
    system(async {
        let (store, _) = Running::open_with(open(base.path(), &Keys::new(right.clone()))).await.unwrap();
        let task = store.put("a").await;
        store.put("b").await;
        store
            .0
            .commit(Commit { changes: vec![moved_on(&task, vec![run("a", 1), run("a", 2)])] })
            .await
            .unwrap();
        let end = RunEnd::unstarted(Outcome::Cancelled, start());
        store.0.finish(Finish { ends: vec![(run("a", 1).id, id("a"), end)] }).await.unwrap();
        let (tasks, runs) = (store.0.list(List).await.unwrap(), Runs { id: id("a"), limit: 9 });
        let before = store.0.runs(runs.clone()).await.unwrap();
        store.stop().await;

        let keys = Keys::new(wrong);
        let (store, opened) = Running::open_with(open(base.path(), &keys)).await.unwrap();
        let reported: Vec<_> = opened.unreadable.iter().map(|it| (&*it.id, it.cause)).collect();
        let expected = ["a", "a", "b"].map(|id| (id, Cause::UnknownKey));
        assert_eq!(reported, expected, "two tasks, and the run of one that has no end");
        assert!(opened.unreadable.iter().all(|it| it.reason.contains(&right.current().to_string())));
        assert_eq!((store.ids().await.len(), opened.healed.len()), (0, 0));
        let put = store.0.put(Put { task: sample("a", start()), expect: Expect::Absent }).await.unwrap_err();
        assert!(put.to_string().contains("give the store the key"), "{put}");
        store.0.delete(Delete { id: id("a"), revision: None }).await.unwrap_err();
        let checked = store.0.check(Check).await.unwrap();
        assert_eq!((checked.tasks, checked.runs, checked.quarantine.len()), (0, 0, 6));
        let records: BTreeSet<_> = checked.quarantine.iter().map(|it| (&*it.id, &*it.record)).collect();
        assert!(
            records.contains(&("a", "spec")) && records.contains(&("a", "0000000000000001-2")),
            "{records:?}"
        );
        assert!(checked.quarantine.iter().all(|it| it.cause == Cause::UnknownKey && it.bytes.len() > 50));
        assert!(checked.quarantine.iter().any(|it| it.since == Some(start())));
        // Others go on meanwhile.
        store.put("c").await;

        // The right key is found, and nothing else is done.
        keys.replace(key().older(&right));
        let opened = store.0.open(Open { owner: OwnerId(1), now: start() }).await.unwrap();
        assert_eq!((opened.unreadable.len(), opened.healed), (1, vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(opened.unreadable[0].id, "c", "the key it was written with was not kept");
        assert_eq!(store.0.list(List).await.unwrap(), tasks);
        assert_eq!(store.0.runs(runs).await.unwrap(), before);
        let opened = store.0.open(Open { owner: OwnerId(1), now: start() }).await.unwrap();
        assert_eq!(opened.healed, [""; 0], "told once");
        store.stop().await;
    });
}

fn takes_over<P: StoreSource, S: StoreSource>(
    plain: impl Fn(&Path) -> P,
    open: impl Fn(&Path, &Keys) -> S,
    strict: impl Fn(&Path, &Keys) -> S,
) {
    let (base, keys) = (tempfile::tempdir().unwrap(), Keys::new(key()));
    let path = base.path().join("store");
    system(async {
        let (store, _) = Running::open_with(plain(&path)).await.unwrap();
        let a = store.put("a").await;
        store.put("b").await;
        store.0.commit(Commit { changes: vec![moved_on(&a, vec![run("a", 1)])] }).await.unwrap();
        let refused = store.0.rekey(Rekey).await.unwrap_err();
        assert!(
            matches!(refused, StoreError::Unsupported { .. }) && refused.to_string().contains("has none")
        );
        let tasks = store.0.list(List).await.unwrap();
        store.stop().await;

        let (store, opened) = Running::open_with(strict(&path, &keys)).await.unwrap();
        assert!(opened.unreadable.iter().all(|it| it.cause == Cause::NotEncrypted));
        assert_eq!((opened.unreadable.len(), store.ids().await.len()), (3, 0));
        store.stop().await;

        let (store, opened) = Running::open_with(open(&path, &keys)).await.unwrap();
        assert_eq!((opened.unreadable.len(), opened.healed.len()), (0, 2));
        assert_eq!(store.0.list(List).await.unwrap(), tasks);
        let rekeyed = store.0.rekey(Rekey).await.unwrap();
        assert_eq!((rekeyed.rewritten, rekeyed.current, rekeyed.unreadable), (5, 0, 0));
        let rekeyed = store.0.rekey(Rekey).await.unwrap();
        assert_eq!((rekeyed.rewritten, rekeyed.current, rekeyed.unreadable), (0, 5, 0));
        store.stop().await;

        let (store, opened) = Running::open_with(strict(&path, &keys)).await.unwrap();
        assert_eq!(opened.unreadable, []);
        assert_eq!(store.0.list(List).await.unwrap(), tasks);
        store.stop().await;
        let (store, opened) = Running::open_with(plain(&path)).await.unwrap();
        assert!(
            opened.unreadable.iter().all(|it| it.cause == Cause::UnknownKey) && store.ids().await.is_empty()
        );
        store.stop().await;
    });
}

fn changes_keys<S: StoreSource>(open: impl Fn(&Path, &Keys) -> S) {
    const TASKS: usize = 700;
    let (base, old, new) = (tempfile::tempdir().unwrap(), key(), key());
    let keys = Keys::new(old.clone());
    system(async {
        let (store, _) = Running::open_with(open(base.path(), &keys)).await.unwrap();
        let tasks: Vec<_> = (0..TASKS).map(|index| secret_task(&format!("{index:04}"))).collect();
        let put = |task: &StoredTask| store.0.put(Put { task: task.clone(), expect: Expect::Absent });
        futures::future::try_join_all(tasks.iter().map(put)).await.unwrap();
        keys.replace(new.clone().older(&old));
        let rekey = store.0.rekey(Rekey);
        // Meanwhile every other task moves on, has a run, and more tasks come.
        let changes = tasks.iter().step_by(2).map(|task| {
            let name = task.spec.id.to_string();
            store.0.commit(Commit { changes: vec![moved_on(task, vec![run(&name, 1)])] })
        });
        let more = (0..50).map(|index| put(&secret_task(&format!("more {index}")))).collect::<Vec<_>>();
        let (rekeyed, changed, more) =
            futures::join!(rekey, futures::future::join_all(changes), futures::future::join_all(more));
        let rekeyed = rekeyed.unwrap();
        assert_eq!((rekeyed.key, rekeyed.unreadable), (new.current().to_string(), 0));
        assert!(rekeyed.rewritten >= TASKS as u64, "{}", rekeyed.rewritten);
        assert!(changed.iter().all(|committed| committed.as_ref().unwrap().refused.is_empty()));
        assert!(more.iter().all(Result::is_ok));
        let there = store.0.list(List).await.unwrap();
        store.stop().await;

        let (store, opened) = Running::open_with(open(base.path(), &Keys::new(new))).await.unwrap();
        assert_eq!(opened.unreadable, [], "the old key is not needed any more");
        assert_eq!(store.0.list(List).await.unwrap(), there);
        let checked = store.0.check(Check).await.unwrap();
        assert_eq!((checked.tasks, checked.runs), (TASKS as u64 + 50, TASKS as u64 / 2));
        assert_eq!(checked.quarantine, []);
        store.stop().await;
    });
}

/// Whoever takes the old key away before the store at work was told of the new one has done no harm.
#[test]
fn a_key_that_was_taken_away_too_early_is_in_memory_still() {
    let (base, old, new) = (tempfile::tempdir().unwrap(), key(), key());
    let keys = Keys::new(old);
    let open = || RedbStore::open(base.path()).unwrap().encrypt(keys.clone());
    system(async {
        let (store, _) = Running::open_with(open()).await.unwrap();
        let task = store.put("a").await;
        store.0.commit(Commit { changes: vec![moved_on(&task, vec![run("a", 1)])] }).await.unwrap();
        let tasks = store.0.list(List).await.unwrap();
        keys.replace(new.clone());
        let rekeyed = store.0.rekey(Rekey).await.unwrap();
        assert_eq!((rekeyed.rewritten, rekeyed.unreadable), (3, 0));
        assert_eq!(rekeyed.key, new.current().to_string());
        store.stop().await;
        let (store, opened) = Running::open_with(open()).await.unwrap();
        assert_eq!((opened.unreadable.len(), store.0.list(List).await.unwrap()), (0, tasks));
        store.stop().await;
    });
}

/// A record that was put elsewhere by somebody who can write to the files, but has not got the key.
#[test]
fn a_copied_record_is_not_believed() {
    let (base, ring) = (tempfile::tempdir().unwrap(), key());
    let keys = Keys::new(ring);
    let (one, other) = (base.path().join("one"), base.path().join("other"));
    let open = |path: &Path| SledStore::open(path).unwrap().encrypt(keys.clone());
    system(async {
        for path in [&one, &other] {
            let (store, _) = Running::open_with(open(path)).await.unwrap();
            let task = store.put("a").await;
            store.put("b").await;
            store
                .0
                .commit(Commit { changes: vec![moved_on(&task, vec![run("a", 1), run("a", 2)])] })
                .await
                .unwrap();
            store.stop().await;
        }
        let db = ::sled::open(&one).unwrap();
        let theirs = ::sled::open(&other).unwrap();
        // The state of another task, the spec of another store, the run of another time.
        db.insert("tb", db.get("ta").unwrap().unwrap()).unwrap();
        db.insert("sa", theirs.get("sa").unwrap().unwrap()).unwrap();
        let run = |serial: u64| [b"ra\0".as_slice(), &1_u64.to_be_bytes(), &serial.to_be_bytes()].concat();
        db.insert(run(2), db.get(run(1)).unwrap().unwrap()).unwrap();
        drop((db, theirs));
        let (store, opened) = Running::open_with(open(&one)).await.unwrap();
        let reported: Vec<_> = opened.unreadable.iter().map(|it| (&*it.id, it.cause)).collect();
        assert_eq!(reported, [("a", Cause::Forged), ("a", Cause::Forged), ("b", Cause::Forged)]);
        assert_eq!(store.ids().await.len(), 0);
        assert_eq!(store.0.runs(Runs { id: id("a"), limit: 9 }).await.unwrap().len(), 1);
        store.stop().await;
    });
}

#[test]
fn keys_that_cannot_be_had_leave_everything_alone() {
    let base = tempfile::tempdir().unwrap();
    let (path, file) = (base.path().join("store"), base.path().join("keys"));
    let open = || RedbStore::open(&path).unwrap().encrypt(Keys::file(&file));
    system(async {
        let error = Running::open_with(open()).await.map(|_| ()).unwrap_err();
        assert!(matches!(error, StoreError::Keys(_)) && error.is_retryable(), "{error:?}");
        assert!(error.to_string().contains("keys"), "{error}");
        fs::write(&file, &*key().to_text()).unwrap();
        let (store, _) = Running::open_with(open()).await.unwrap();
        store.put("a").await;
        store.stop().await;
        fs::write(&file, "not a key").unwrap();
        let error = Running::open_with(open()).await.map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("key 1 is not valid"), "{error}");
    });
}

async fn scheduler(path: &Path, keys: &Keys) -> Handle {
    let registry = Registry::new().register("note", |_: TaskContext, ()| async {});
    let store = SledStore::open(path).unwrap().encrypt(keys.clone());
    Scheduler::builder().registry(registry).store("default", store).start().await.unwrap()
}

/// Everything at once, as the users of a scheduler see it.
#[test]
fn a_task_comes_back_with_its_key() {
    let (base, right, wrong) = (tempfile::tempdir().unwrap(), key(), key());
    let hourly = || Task::new("note").id("hourly").trigger("0 * * * *");
    let id = right.current().to_string();
    let names_the_key = |text: &str| {
        assert!(text.contains("its key is missing") && text.contains(&id), "{text}");
        assert!(!text.contains("damaged"), "{text}");
    };
    system(async {
        let handle = scheduler(base.path(), &Keys::new(right.clone())).await;
        handle.add(hourly()).await.unwrap();
        handle.shutdown(Shutdown::now()).await.unwrap();

        let keys = Keys::new(wrong.clone());
        let registry = Registry::new().register("note", |_: TaskContext, ()| async {});
        let store = SledStore::open(base.path()).unwrap().encrypt(keys.clone());
        let handle = Scheduler::builder().registry(registry).store("default", store).build().unwrap();
        let mask = EventMask::RECORD_UNREADABLE | EventMask::RECORD_READABLE | EventMask::TASK_EXECUTED;
        let mut events = handle.events(mask).await.unwrap();
        handle.start().await.unwrap();
        match events.next().await.unwrap() {
            Event::RecordUnreadable { id, cause, .. } => {
                assert_eq!(id, "hourly");
                names_the_key(&cause);
            }
            other => panic!("{other:?}"),
        }
        // Whoever asks about it hears that its key is missing, and which, not that it is damaged.
        let day = chrono::TimeDelta::days(1);
        let now = chrono::DateTime::UNIX_EPOCH;
        let why = callboard::scheduler::message::Why::new(TaskId::new("hourly").unwrap(), now, now + day, 9);
        for error in [
            handle.task("hourly").await.unwrap_err(),
            handle.pause_task("hourly").await.unwrap_err(),
            handle.run_task("hourly").await.unwrap_err(),
            handle.add(hourly()).await.unwrap_err(),
            handle.send(why).await.unwrap().unwrap_err(),
        ] {
            names_the_key(&error.to_string());
            assert!(error.to_string().contains("give the store the key"), "{error}");
        }
        let status = handle.status().await.unwrap().stores.swap_remove(0);
        assert_eq!(status.unreadable_because.len(), 1);
        names_the_key(&status.unreadable_because[0]);
        for bad in handle.check_store("default").await.unwrap().quarantine {
            names_the_key(&bad.reason);
        }
        assert_eq!(handle.status().await.unwrap().stores[0].unreadable, 1);
        let quarantine = handle.check_store("default").await.unwrap().quarantine;
        assert!(quarantine.len() == 2 && quarantine.iter().all(|it| it.id == "hourly"), "{quarantine:?}");
        // Looked at again, it is not told again.
        handle.recheck_store("default").await.unwrap();

        keys.replace(wrong.older(&right));
        let rekeyed = handle.rekey_store("default").await.unwrap();
        assert_eq!((rekeyed.rewritten, rekeyed.unreadable), (2, 0));
        match events.next().await.unwrap() {
            Event::RecordReadable { id, .. } => assert_eq!(id, "hourly"),
            other => panic!("{other:?}"),
        }
        assert_eq!(handle.status().await.unwrap().stores[0].unreadable, 0);
        assert!(handle.task("hourly").await.unwrap().next_run_time().is_some());
        handle.run_task("hourly").await.unwrap();
        assert!(matches!(events.next().await, Some(Event::TaskExecuted(_))));
        assert!(handle.check_store("nosuch").await.is_err());
        handle.shutdown(Shutdown::now()).await.unwrap();
        // The old key is not needed any more.
        let handle = scheduler(base.path(), &keys).await;
        assert_eq!(handle.status().await.unwrap().stores[0].unreadable, 0);
        assert!(handle.task("hourly").await.is_ok());
        handle.shutdown(Shutdown::now()).await.unwrap();
    });
}

/// A handler that is missing makes no record unreadable: its runs are refused, and the task stays.
#[test]
fn a_missing_handler_is_no_matter_of_the_store() {
    let (base, keys) = (tempfile::tempdir().unwrap(), Keys::new(key()));
    system(async {
        let handle = scheduler(base.path(), &keys).await;
        handle.add(Task::new("note").id("hourly").trigger("0 * * * *")).await.unwrap();
        handle.shutdown(Shutdown::now()).await.unwrap();

        let store = SledStore::open(base.path()).unwrap().encrypt(keys.clone());
        let handle = Scheduler::builder().store("default", store).start().await.unwrap();
        let refused = handle.run_task("hourly").await.unwrap_err().to_string();
        assert!(refused.contains("no handler is registered under `note`"), "{refused}");
        assert!(handle.task("hourly").await.is_ok());
        assert_eq!(handle.check_store("default").await.unwrap().quarantine, []);
        handle.shutdown(Shutdown::now()).await.unwrap();

        let handle = scheduler(base.path(), &keys).await;
        let mut events = handle.events(EventMask::TASK_EXECUTED).await.unwrap();
        handle.run_task("hourly").await.unwrap();
        assert!(matches!(events.next().await, Some(Event::TaskExecuted(_))));
        handle.shutdown(Shutdown::now()).await.unwrap();
    });
}
