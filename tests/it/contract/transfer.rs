//! Exports, imports, and moves between stores.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use callboard::event::{Event, EventMask};
use callboard::scheduler::{Scheduler, Shutdown};
use callboard::store::contract::{sample, start};
use callboard::store::message::*;
use callboard::store::{
    Exports, FileStore, ImportMode, Keyring, Keys, RedbStore, SledStore, StoreError, StoreSource, Vault,
};
use callboard::task::{Outcome, OwnerId, RunEnd, RunRecord, StoredTask};
use futures::{FutureExt, StreamExt};

use super::sled::{Running, id, moved_on, run, snapshot};
use super::system;

const TASKS: usize = 40;

/// A store with tasks, runs that ended, runs that did not, and the runs of a task that is gone.
async fn fill(source: impl StoreSource) -> Content {
    let (store, _) = Running::open_with(source).await.unwrap();
    for index in 0..TASKS {
        let name = format!("task {index:02} ☕");
        let task = store.put(&name).await;
        let runs = vec![run(&name, 2 * index as u64), run(&name, 2 * index as u64 + 1)];
        store.0.commit(Commit { changes: vec![moved_on(&task, runs)] }).await.unwrap();
        let end = RunEnd::unstarted(Outcome::Failed { error: "no".to_owned() }, start());
        store
            .0
            .finish(Finish { ends: vec![(run(&name, 2 * index as u64).id, id(&name), end)] })
            .await
            .unwrap();
    }
    store.0.delete(Delete { id: id("task 07 ☕"), revision: None }).await.unwrap();
    let content = Content::of(&store).await;
    store.0.close(Close).await.unwrap();
    store.stop().await;
    content
}

#[derive(Debug, PartialEq)]
struct Content {
    tasks: Vec<StoredTask>,
    runs: Vec<Vec<RunRecord>>,
}

impl Content {
    async fn of(store: &Running) -> Self {
        let mut runs = Vec::new();
        for index in 0..TASKS {
            let id = id(&format!("task {index:02} ☕"));
            runs.push(store.0.runs(Runs { id, limit: 99 }).await.unwrap());
        }
        Self { tasks: store.0.list(List).await.unwrap(), runs }
    }

    async fn read(source: impl StoreSource) -> Self {
        let (store, opened) = Running::open_with(source).await.unwrap();
        assert_eq!(opened.unreadable, []);
        let content = Self::of(&store).await;
        store.stop().await;
        content
    }
}

fn into(
    vault: Result<Vault, StoreError>,
    file: &Path,
    mode: ImportMode,
) -> Result<callboard::store::Imported, StoreError> {
    let mut vault = vault.unwrap();
    let imported = vault.import(file, mode, |_| {});
    vault.close().unwrap();
    imported
}

fn export(vault: Result<Vault, StoreError>, file: &Path, plain: bool) -> Exported {
    let mut vault = vault.unwrap();
    let mut latest = 0;
    let exported = vault.export(file, plain, |progress| latest = progress.done).unwrap();
    assert_eq!(latest, TASKS as u64, "each task, and the one that is gone");
    vault.close().unwrap();
    exported
}

macro_rules! pairs {
    ($($from:ident -> $($to:ident),+;)+) => {$($({
        let base = tempfile::tempdir().unwrap();
        let (from, to) = (base.path().join("from"), base.path().join("to"));
        let file = base.path().join("exports/all.jsonl");
        let content = system(fill($from::open(&from).unwrap()));
        let exported = export($from::open(&from).unwrap().vault(), &file, false);
        assert_eq!((exported.tasks, exported.runs, exported.unreadable), (39, 80, 0));
        let imported = into($to::open(&to).unwrap().vault(), &file, ImportMode::IntoEmpty).unwrap();
        assert_eq!((imported.tasks, imported.runs, imported.unreadable), (39, 80, 0));
        assert_eq!(system(Content::read($to::open(&to).unwrap())), content);

        let again = into($to::open(&to).unwrap().vault(), &file, ImportMode::IntoEmpty).unwrap_err();
        assert!(matches!(again, StoreError::Occupied { .. }) && again.to_string().contains("--replace"), "{again}");
        for mode in [ImportMode::Merge, ImportMode::Replace, ImportMode::Merge] {
            let imported = into($to::open(&to).unwrap().vault(), &file, mode).unwrap();
            let expected = if mode == ImportMode::Replace { (39, 80, 0) } else { (0, 0, 39) };
            assert_eq!((imported.tasks, imported.runs, imported.kept), expected, "{mode:?}");
            assert_eq!(system(Content::read($to::open(&to).unwrap())), content, "{mode:?}");
        }

        let moved = base.path().join("moved");
        let mut source = $from::open(&from).unwrap().vault().unwrap();
        let mut target = $to::open(&moved).unwrap().vault().unwrap();
        let imported = target.import_from(&mut source, ImportMode::IntoEmpty, |_| {}).unwrap();
        assert_eq!((imported.tasks, imported.runs), (39, 80));
        assert_eq!(target.check(|_| {}).unwrap(), source.check(|_| {}).unwrap());
        target.close().unwrap();
        source.close().unwrap();
        assert_eq!(system(Content::read($to::open(&moved).unwrap())), content);
    })+)+};
}

#[test]
fn everything_goes_from_any_store_to_any_other() {
    pairs! {
        SledStore -> RedbStore, FileStore;
        RedbStore -> FileStore, SledStore;
        FileStore -> SledStore, RedbStore, FileStore;
    }
}

#[test]
fn what_is_there_wins_over_what_is_merged() {
    let base = tempfile::tempdir().unwrap();
    let (from, to) = (base.path().join("from"), base.path().join("to"));
    let file = base.path().join("all.jsonl");
    system(fill(RedbStore::open(&from).unwrap()));
    export(RedbStore::open(&from).unwrap().vault(), &file, false);
    let open = || SledStore::open(&to).unwrap();
    system(async {
        let (store, _) = Running::open_with(open()).await.unwrap();
        let task = store.put("task 03 ☕").await;
        store.put("mine").await;
        store
            .0
            .commit(Commit { changes: vec![moved_on(&task, vec![run("task 03 ☕", 900)])] })
            .await
            .unwrap();
        store.stop().await;
    });
    let imported = into(open().vault(), &file, ImportMode::Merge).unwrap();
    assert_eq!((imported.tasks, imported.runs, imported.kept), (38, 80, 1));
    system(async {
        let (store, _) = Running::open_with(open()).await.unwrap();
        assert_eq!(store.ids().await.len(), 40);
        let runs = store.0.runs(Runs { id: id("task 03 ☕"), limit: 9 }).await.unwrap();
        assert_eq!(runs.iter().map(|run| run.id.serial).collect::<Vec<_>>(), [900, 7, 6]);
        store.stop().await;
    });
}

#[test]
fn a_damaged_export_is_refused_as_a_whole() {
    let base = tempfile::tempdir().unwrap();
    let (from, to) = (base.path().join("from"), base.path().join("to"));
    let file = base.path().join("all.jsonl");
    system(fill(RedbStore::open(&from).unwrap()));
    export(RedbStore::open(&from).unwrap().vault(), &file, false);
    let intact = fs::read(&file).unwrap();
    let mut vault = RedbStore::open(&to).unwrap().vault().unwrap();
    let mut refused = |bytes: &[u8], what: &str| {
        fs::write(&file, bytes).unwrap();
        let error = vault.import(&file, ImportMode::Replace, |_| {}).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{what}: {error:?}");
        assert!(error.to_string().contains("all.jsonl"), "{what}: {error}");
        assert_eq!(vault.check(|_| {}).unwrap(), Checked::default(), "{what}");
    };
    for part in 0..60 {
        let length = intact.len() * part / 60;
        refused(&intact[..length], &format!("cut off at {length}"));
    }
    refused(&intact[..intact.len() - 1], "without its last byte");
    for part in 0..80 {
        let mut bytes = intact.clone();
        let at = bytes.len() * part / 80;
        bytes[at] ^= 1 << (part % 8);
        refused(&bytes, &format!("a bit flipped at {at}"));
    }
    let lines: Vec<&[u8]> = intact.split_inclusive(|byte| *byte == b'\n').collect();
    refused(&[&lines[..5], &lines[6..]].concat().concat(), "a line is missing");
    refused(&[&lines[..5], &lines[4..]].concat().concat(), "a line is there twice");
    refused(&[intact.as_slice(), lines[3]].concat(), "a line after the last");
    refused(
        b"{\"callboard\":\"store export\",\"format\":9,\"store\":\"\",\"created_at\":\"\"}\n",
        "a newer format",
    );
    drop(vault);
    fs::write(&file, &intact).unwrap();
    into(RedbStore::open(&to).unwrap().vault(), &file, ImportMode::IntoEmpty).unwrap();
}

#[test]
fn an_import_that_was_cut_off_is_noticed() {
    let base = tempfile::tempdir().unwrap();
    let (path, file) = (base.path().join("store"), base.path().join("all.jsonl"));
    let open = || SledStore::open(&path).unwrap();
    let content = system(fill(open()));
    export(open().vault(), &file, false);
    let db = ::sled::open(&path).unwrap();
    db.insert("x", "1").unwrap();
    db.remove("ttask 00 ☕").unwrap();
    drop(db);
    system(async {
        let error = Running::open_with(open()).await.map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("an import into it was cut off"), "{error}");
    });
    assert!(
        into(open().vault(), &file, ImportMode::IntoEmpty).unwrap_err().to_string().contains("--replace")
    );
    into(open().vault(), &file, ImportMode::Replace).unwrap();
    assert_eq!(system(Content::read(open())), content);
}

#[test]
fn an_encrypted_store_is_exported_encrypted() {
    let base = tempfile::tempdir().unwrap();
    let (from, file, readable) =
        (base.path().join("from"), base.path().join("sealed.jsonl"), base.path().join("plain.jsonl"));
    let (ring, other) = (Keyring::generate().unwrap(), Keyring::generate().unwrap());
    let open = || FileStore::open(&from).unwrap().encrypt(ring.clone());
    // Half of it is from the time before there were keys.
    system(async {
        let (store, _) = Running::open_with(FileStore::open(&from).unwrap()).await.unwrap();
        store.put("older").await;
        store.stop().await;
    });
    let content = system(fill(open()));
    let sealed = {
        let mut vault = open().vault().unwrap();
        let exported = vault.export(&file, false, |_| {}).unwrap();
        assert_eq!((exported.tasks, exported.unreadable), (40, 0));
        vault.export(&readable, true, |_| {}).unwrap();
        vault.close().unwrap();
        fs::read_to_string(&file).unwrap()
    };
    assert!(!sealed.contains("handler") && !sealed.contains("content") && sealed.contains("older"));
    let readable_text = fs::read_to_string(&readable).unwrap();
    assert!(readable_text.contains("\"handler\":\"handler\"") && !readable_text.contains("bytes"));

    // With the key, into a store with another; without it, as it is, to be read when the key is there.
    let to = base.path().join("to");
    let open_to = || SledStore::open(&to).unwrap().encrypt(other.clone().older(&ring));
    let imported = into(open_to().vault(), &file, ImportMode::IntoEmpty).unwrap();
    assert_eq!((imported.tasks, imported.unreadable), (40, 0));
    let only_new = SledStore::open(&to).unwrap().encrypt(other.clone());
    assert_eq!(system(Content::read(only_new)), content);

    let blind = base.path().join("blind");
    let imported = into(RedbStore::open(&blind).unwrap().vault(), &file, ImportMode::IntoEmpty).unwrap();
    assert_eq!((imported.tasks, imported.runs, imported.unreadable), (0, 0, 160));
    let mut vault = RedbStore::open(&blind).unwrap().vault().unwrap();
    assert_eq!(vault.check(|_| {}).unwrap().quarantine.len(), 160);
    vault.close().unwrap();
    assert_eq!(
        system(Content::read(RedbStore::open(&blind).unwrap().encrypt(ring.clone()))).tasks,
        content.tasks
    );
    let mut vault = SledStore::open(base.path().join("occupied")).unwrap().vault().unwrap();
    assert_eq!(vault.import(&readable, ImportMode::IntoEmpty, |_| {}).unwrap().tasks, 40);
    let merged = vault.import(&file, ImportMode::Merge, |_| {}).unwrap();
    assert_eq!((merged.tasks, merged.kept), (0, 40), "what is there already needs no key");
    vault.close().unwrap();
}

/// A store at work is exported as it was when that was asked for, whatever happens meanwhile.
#[test]
fn an_export_is_of_one_moment() {
    let base = tempfile::tempdir().unwrap();
    let file = base.path().join("all.jsonl");
    for name in ["sled", "redb", "file"] {
        let path = base.path().join(name);
        system(async {
            let opened = match name {
                "sled" => Running::open_with(SledStore::open(&path).unwrap()).await,
                "redb" => Running::open_with(RedbStore::open(&path).unwrap()).await,
                _ => Running::open_with(FileStore::open(&path).unwrap()).await,
            };
            let (store, _) = opened.unwrap();
            let tasks: Vec<_> = (0..1500).map(|index| sample(&format!("{index:04}"), start())).collect();
            let put = |task: &StoredTask| store.0.put(Put { task: task.clone(), expect: Expect::Absent });
            futures::future::try_join_all(tasks.iter().map(put)).await.unwrap();
            let before = store.0.list(List).await.unwrap();
            let export = store.0.export(Export { path: file.clone(), plain: false });
            let change = |task: &StoredTask| {
                let runs = vec![run(task.spec.id.as_str(), 5)];
                store.0.commit(Commit { changes: vec![moved_on(task, runs)] })
            };
            let changes = tasks.iter().rev().step_by(3).map(change).collect::<Vec<_>>();
            let delete =
                |task: &StoredTask| store.0.delete(Delete { id: task.spec.id.clone(), revision: None });
            let gone = tasks.iter().skip(1).step_by(3).map(delete).collect::<Vec<_>>();
            let added = put(&sample("more", start()));
            let (exported, changed, gone, added) = futures::join!(
                export,
                futures::future::join_all(changes),
                futures::future::join_all(gone),
                added
            );
            let exported = exported.unwrap();
            assert!(changed.iter().all(Result::is_ok) && gone.iter().all(Result::is_ok) && added.is_ok());
            assert_eq!((exported.tasks, exported.runs, exported.unreadable), (1500, 0, 0), "{name}");
            store.stop().await;
            let copy = base.path().join(format!("{name} copy"));
            into(RedbStore::open(&copy).unwrap().vault(), &file, ImportMode::IntoEmpty).unwrap();
            let (store, _) = Running::open_with(RedbStore::open(&copy).unwrap()).await.unwrap();
            assert!(store.0.list(List).await.unwrap() == before, "{name}");
            store.stop().await;
        });
    }
}

#[test]
fn an_export_that_cannot_be_written_harms_nobody() {
    let base = tempfile::tempdir().unwrap();
    let blocked = base.path().join("file");
    fs::write(&blocked, "").unwrap();
    system(async {
        let (store, _) = Running::open(&base.path().join("store")).await.unwrap();
        store.put("a").await;
        let path = blocked.join("all.jsonl");
        let error = store.0.export(Export { path, plain: false }).await.unwrap_err();
        assert!(error.is_retryable(), "{error:?}");
        store.put("b").await;
        let path = base.path().join("all.jsonl");
        assert_eq!(store.0.export(Export { path, plain: false }).await.unwrap().tasks, 2);
        store.stop().await;
    });
    let parts = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "part");
    assert!(!snapshot(base.path()).keys().any(parts));
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    files.sort();
    files
}

#[test]
fn exports_are_taken_and_the_oldest_go() {
    let base = tempfile::tempdir().unwrap();
    let (path, dir) = (base.path().join("store"), base.path().join("store.exports"));
    fs::create_dir(&dir).unwrap();
    let foreign = dir.join("callboard-other-20200101T000000Z.jsonl");
    fs::write(&foreign, "").unwrap();
    let old = dir.join("callboard-store-20200101T000000Z.jsonl");
    fs::write(&old, "").unwrap();
    let cut_off = dir.join("callboard-store-20200101T000000Z.jsonl.part");
    fs::write(&cut_off, "").unwrap();
    let exports = Exports::every(Duration::from_secs(1)).keep(2);
    system(async {
        let source = RedbStore::open(&path).unwrap().exports(exports);
        let (store, _) = Running::open_with(source).await.unwrap();
        let begin = Instant::now();
        for round in 0_u64.. {
            store.put(&format!("{round:04}")).await;
            let taken = files(&dir);
            if taken.len() == 3 && !taken.contains(&old) {
                break;
            }
            assert!(begin.elapsed() < Duration::from_secs(30), "{taken:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        store.stop().await;
    });
    assert!(!cut_off.exists());
    assert!(foreign.exists(), "what is not of this store is left alone");
    let latest = files(&dir).pop().unwrap();
    let name = latest.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("callboard-store-20") && name.ends_with("Z.jsonl"), "{name}");
    let copy = base.path().join("copy");
    let imported = into(SledStore::open(&copy).unwrap().vault(), &latest, ImportMode::IntoEmpty).unwrap();
    assert!(imported.tasks > 0);
}

/// An export of a store in which nothing happens any more fails: that is told once, and it is tried again.
#[actix::test]
async fn an_export_that_failed_is_told_and_tried_again() {
    let base = tempfile::tempdir().unwrap();
    let (path, dir) = (base.path().join("store"), base.path().join("exports"));
    fs::write(&dir, "in the way").unwrap();
    let exports = Exports::every(Duration::from_secs(60)).dir(&dir);
    let source = RedbStore::open(&path).unwrap().exports(exports);
    let scheduler = Scheduler::builder().store("default", source).build().unwrap();
    let mut events = scheduler.events(EventMask::STORE_EXPORT_FAILED).await.unwrap();
    scheduler.start_paused().await.unwrap();
    let told = tokio::time::timeout(Duration::from_secs(30), events.next()).await.unwrap();
    let Some(Event::StoreExportFailed { store, cause }) = told else { panic!("{told:?}") };
    assert!(store.as_str() == "default" && cause.contains("exports"), "{cause}");
    fs::remove_file(&dir).unwrap();
    let begin = Instant::now();
    while files(&dir).is_empty() {
        assert!(begin.elapsed() < Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(events.next().now_or_never().is_none(), "once");
    scheduler.shutdown(Shutdown::now()).await.unwrap();
}

/// Once the old key is gone nobody reads what was exported with it.
#[test]
fn a_new_key_is_a_reason_for_an_export() {
    let base = tempfile::tempdir().unwrap();
    let (path, dir) = (base.path().join("store"), base.path().join("store.exports"));
    let keyring = Keyring::generate().unwrap();
    let keys = Keys::new(keyring.clone());
    let exports = Exports::every(Duration::from_secs(1)).keep(9);
    system(async {
        let source = RedbStore::open(&path).unwrap().encrypt(keys.clone()).exports(exports);
        let (store, _) = Running::open_with(source).await.unwrap();
        store.put("a").await;
        let begin = Instant::now();
        let holds = |wanted: &str| {
            let text = |path: &PathBuf| fs::read_to_string(path).is_ok_and(|text| text.contains(wanted));
            files(&dir).iter().filter(|path| text(path)).count()
        };
        while holds("\"task\":\"a\"") == 0 {
            assert!(begin.elapsed() < Duration::from_secs(30));
            std::thread::sleep(Duration::from_millis(20));
        }
        let before = files(&dir);
        keys.replace(Keyring::generate().unwrap().older(&keyring));
        assert_eq!(store.0.rekey(Rekey).await.unwrap().rewritten, 2);
        while files(&dir) == before {
            assert!(begin.elapsed() < Duration::from_secs(30), "none is taken");
            std::thread::sleep(Duration::from_millis(20));
        }
        store.stop().await;
    });
}

/// The runs that came along with an import are those of others, whatever the numbers of their owners.
#[test]
fn whoever_comes_after_an_import_is_none_of_the_owners_in_it() {
    let base = tempfile::tempdir().unwrap();
    let [from, to] = ["from", "to"].map(|name| base.path().join(name));
    system(async {
        let source = SledStore::open(&from).unwrap();
        let (store, _) = Running::open_as(source, OwnerId(7)).await.unwrap();
        let task = store.put("a").await;
        let mut record = run("a", 1);
        record.id.owner = OwnerId(7);
        store.0.commit(Commit { changes: vec![moved_on(&task, vec![record])] }).await.unwrap();
        store.0.close(Close).await.unwrap();
        store.stop().await;
        for (kept, owner) in [(ImportMode::Replace, 3), (ImportMode::Merge, 7)] {
            let mut source = SledStore::open(&from).unwrap().vault().unwrap();
            let mut vault = RedbStore::open(&to).unwrap().vault().unwrap();
            vault.import_from(&mut source, kept, |_| {}).unwrap();
            vault.close().unwrap();
            source.close().unwrap();
            let (store, opened) =
                Running::open_as(RedbStore::open(&to).unwrap(), OwnerId(owner)).await.unwrap();
            assert_eq!(opened.latest_owner, Some(OwnerId(7)), "{kept:?}: the scheduler takes a later one");
            store.0.close(Close).await.unwrap();
            store.stop().await;
        }
    });
}

#[test]
fn a_store_at_work_is_not_opened_for_maintenance() {
    let base = tempfile::tempdir().unwrap();
    system(async {
        let (store, _) = Running::open(base.path()).await.unwrap();
        let error = SledStore::open(base.path()).unwrap().vault().unwrap_err();
        assert!(matches!(error, StoreError::InUse { .. }), "{error:?}");
        store.stop().await;
    });
}

#[test]
fn keys_are_changed_while_nobody_is_at_work() {
    let base = tempfile::tempdir().unwrap();
    let (old, new) = (Keyring::generate().unwrap(), Keyring::generate().unwrap());
    let keys = Keys::new(old.clone());
    let open = || RedbStore::open(base.path()).unwrap().encrypt(keys.clone());
    let content = system(fill(open()));
    keys.replace(new.clone().older(&old));
    let mut vault = open().vault().unwrap();
    let rekeyed = vault.rekey(|_| {}).unwrap();
    assert_eq!((rekeyed.rewritten, rekeyed.unreadable), (39 * 2 + 80, 0));
    vault.close().unwrap();
    keys.replace(new);
    assert_eq!(system(Content::read(open())), content);
    let mut plain = RedbStore::open(base.path()).unwrap().vault().unwrap();
    assert!(matches!(plain.rekey(|_| {}), Err(StoreError::Unsupported { .. })));
    plain.close().unwrap();
}
