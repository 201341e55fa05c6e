//! Exports and imports where something is damaged, cut off, in the way, or not yet readable.

use std::fs;
use std::path::{Path, PathBuf};

use callboard::store::contract::{sample, start};
use callboard::store::message::*;
use callboard::store::{FileStore, ImportMode, Imported, Keyring, RedbStore, SledStore, StoreError, Vault};
use callboard::task::{Outcome, OwnerId, RunEnd, StoredTask};

use super::sled::{Running, id, moved_on, run};
use super::system;

/// A sled store with the tasks `a`, `b` and `c`. `a` has a run that ended and one that did not; `gone`
/// was removed, and had a run.
fn fill(path: &Path) {
    fill_with(SledStore::open(path).unwrap());
}

fn fill_with(source: SledStore) {
    system(async {
        let (store, _) = Running::open_with(source).await.unwrap();
        let a = store.put("a").await;
        store.0.commit(Commit { changes: vec![moved_on(&a, vec![run("a", 1), run("a", 2)])] }).await.unwrap();
        let end = RunEnd::unstarted(Outcome::Cancelled, start());
        store.0.finish(Finish { ends: vec![(run("a", 1).id, id("a"), end.clone())] }).await.unwrap();
        store.put("b").await;
        store.put("c").await;
        let gone = store.put("gone").await;
        store.0.commit(Commit { changes: vec![moved_on(&gone, vec![run("gone", 3)])] }).await.unwrap();
        store.0.finish(Finish { ends: vec![(run("gone", 3).id, id("gone"), end)] }).await.unwrap();
        store.0.delete(Delete { id: id("gone"), revision: None }).await.unwrap();
        store.0.close(Close).await.unwrap();
        store.stop().await;
    });
}

fn vault(path: &Path) -> Vault {
    SledStore::open(path).unwrap().vault().unwrap()
}

fn export(path: &Path, file: &Path) -> Exported {
    let mut vault = vault(path);
    let exported = vault.export(file, false, |_| {}).unwrap();
    vault.close().unwrap();
    exported
}

fn import(path: &Path, file: &Path, mode: ImportMode) -> Result<Imported, StoreError> {
    let mut vault = vault(path);
    let imported = vault.import(file, mode, |_| {});
    vault.close().unwrap();
    imported
}

/// Changes rows of a store behind its back.
fn tamper(path: &Path, change: impl FnOnce(&::sled::Db)) {
    let db = ::sled::open(path).unwrap();
    change(&db);
    db.flush().unwrap();
}

fn tasks(path: &Path) -> Vec<StoredTask> {
    system(async {
        let (store, opened) = Running::open_with(SledStore::open(path).unwrap()).await.unwrap();
        assert_eq!(opened.unreadable, []);
        let tasks = store.0.list(List).await.unwrap();
        store.0.close(Close).await.unwrap();
        store.stop().await;
        tasks
    })
}

/// Places for a store, another, and an export.
fn places() -> (tempfile::TempDir, [PathBuf; 3]) {
    let base = tempfile::tempdir().unwrap();
    let places = ["from", "to", "all.jsonl"].map(|name| base.path().join(name));
    (base, places)
}

/// A run that nobody could read when it was imported is interrupted like any other once the key is there.
#[test]
fn a_run_that_had_not_ended_ends_when_its_key_comes() {
    let (_base, [from, to, file]) = places();
    let ring = Keyring::generate().unwrap();
    let sealed = || SledStore::open(&from).unwrap().encrypt(ring.clone());
    fill_with(sealed());
    let mut source = sealed().vault().unwrap();
    source.export(&file, false, |_| {}).unwrap();
    source.close().unwrap();
    // From a file, and from a store that has not got the key either.
    for by_file in [true, false] {
        let mut target = RedbStore::open(&to).unwrap().vault().unwrap();
        let imported = match by_file {
            true => target.import(&file, ImportMode::Replace, |_| {}).unwrap(),
            false => {
                let mut source = vault(&from);
                let imported = target.import_from(&mut source, ImportMode::Replace, |_| {}).unwrap();
                source.close().unwrap();
                imported
            }
        };
        assert_eq!((imported.tasks, imported.unreadable), (0, 9));
        target.close().unwrap();
        system(async {
            let source = RedbStore::open(&to).unwrap().encrypt(ring.clone());
            let (store, opened) = Running::open_as(source, OwnerId(9)).await.unwrap();
            let interrupted: Vec<_> = opened.interrupted.iter().map(|run| run.id.serial).collect();
            assert_eq!((opened.unreadable.len(), interrupted), (0, vec![2]), "by file: {by_file}");
            assert_eq!(opened.latest_owner, Some(OwnerId(1)));
            store.0.close(Close).await.unwrap();
            store.stop().await;
        });
    }
}

/// What decodes in no store is not counted as a task that was imported.
#[test]
fn records_that_do_not_decode_are_told() {
    let (base, [from, to, file]) = places();
    fill(&from);
    tamper(&from, |db| {
        db.insert("sa", b"S\x02j{\"id\":\"a\"}".as_slice()).unwrap();
        db.insert("sb", db.get("sc").unwrap().unwrap()).unwrap();
    });
    let exported = export(&from, &file);
    assert_eq!((exported.tasks, exported.unreadable), (3, 2));
    let ring = Keyring::generate().unwrap();
    let mut sealed = RedbStore::open(&to).unwrap().encrypt(ring.clone()).vault().unwrap();
    let imported = sealed.import(&file, ImportMode::IntoEmpty, |_| {}).unwrap();
    assert_eq!((imported.tasks, imported.runs, imported.unreadable), (1, 3, 2));
    assert_eq!(sealed.check(|_| {}).unwrap().quarantine.len(), 2);
    sealed.close().unwrap();
    let other = base.path().join("other");
    let mut moved = FileStore::open(&other).unwrap().vault().unwrap();
    let mut source = vault(&from);
    let imported = moved.import_from(&mut source, ImportMode::IntoEmpty, |_| {}).unwrap();
    assert_eq!((imported.tasks, imported.unreadable), (1, 2));
    source.close().unwrap();
    moved.close().unwrap();
    // Nor is it put among what is sound.
    let sound = base.path().join("sound");
    system(async {
        let (store, _) = Running::open(&sound).await.unwrap();
        store.put("mine").await;
        store.stop().await;
    });
    let imported = import(&sound, &file, ImportMode::Merge).unwrap();
    assert_eq!((imported.tasks, imported.left_out, imported.unreadable), (1, 4, 0), "no half tasks");
    assert_eq!(tasks(&sound).len(), 2);
}

/// Half a task is no task.
#[test]
fn half_a_task_is_told() {
    let (_base, [from, to, file]) = places();
    fill(&from);
    tamper(&from, |db| drop(db.remove("tb").unwrap()));
    assert_eq!(export(&from, &file).unreadable, 1);
    let imported = import(&to, &file, ImportMode::IntoEmpty).unwrap();
    assert_eq!((imported.tasks, imported.unreadable), (3, 1));
    system(async {
        let (store, _) = Running::open(&from).await.unwrap();
        let live = to.with_extension("jsonl");
        assert_eq!(store.0.export(Export { path: live, plain: false }).await.unwrap().unreadable, 1);
        store.stop().await;
    });
}

/// A merge brings back what is beyond help, and nothing else: what can be read stays as it is.
#[test]
fn what_is_damaged_comes_back_with_a_merge() {
    let (_base, [from, _, file]) = places();
    fill(&from);
    export(&from, &file);
    system(async {
        let (store, _) = Running::open(&from).await.unwrap();
        for task in store.0.list(List).await.unwrap() {
            store.0.commit(Commit { changes: vec![moved_on(&task, Vec::new())] }).await.unwrap();
        }
        store.0.close(Close).await.unwrap();
        store.stop().await;
    });
    let later = tasks(&from);
    tamper(&from, |db| {
        db.insert("sa", b"S\x02j{".as_slice()).unwrap();
        db.remove("tb").unwrap();
        db.insert("sc", b"S\x63j{}".as_slice()).unwrap();
    });
    let imported = import(&from, &file, ImportMode::Merge).unwrap();
    assert_eq!((imported.kept, imported.restored, imported.left_out), (2, 1, 0), "{imported:?}");
    system(async {
        let (store, opened) = Running::open(&from).await.unwrap();
        let unreadable: Vec<_> = opened.unreadable.iter().map(|it| (&*it.id, it.cause)).collect();
        assert_eq!(unreadable, [("c", Cause::Newer)], "a newer program reads that");
        let found = store.0.list(List).await.unwrap();
        let revision = |tasks: &[StoredTask], name: &str| {
            tasks.iter().find(|task| task.spec.id == id(name)).map(|task| task.state.revision)
        };
        assert_eq!(revision(&found, "a"), revision(&later, "a"), "its state could be read");
        assert_eq!(revision(&found, "b"), Some(1), "its state was missing");
        store.0.close(Close).await.unwrap();
        store.stop().await;
    });
}

/// The same for a task file that somebody has spoiled.
#[test]
fn a_damaged_file_comes_back_with_a_merge() {
    let (_base, [from, to, file]) = places();
    fill(&from);
    export(&from, &file);
    let open = || FileStore::open(&to).unwrap();
    let mut target = open().vault().unwrap();
    target.import(&file, ImportMode::IntoEmpty, |_| {}).unwrap();
    target.close().unwrap();
    fs::write(to.join("tasks/a.json"), "rubbish").unwrap();
    let mut target = open().vault().unwrap();
    let imported = target.import(&file, ImportMode::Merge, |_| {}).unwrap();
    assert_eq!((imported.kept, imported.restored), (2, 2), "{imported:?}");
    assert_eq!(target.check(|_| {}).unwrap().quarantine, []);
    target.close().unwrap();
    system(async {
        let (store, opened) = Running::open_with(open()).await.unwrap();
        assert_eq!((opened.unreadable.len(), store.ids().await.len()), (0, 3));
        store.stop().await;
    });
}

/// A rekey that is killed leaves records of both keys, which both read; repeated, it finishes.
#[test]
fn a_rekey_that_was_cut_off_is_repeated() {
    let (_base, [from, ..]) = places();
    let (old, new) = (Keyring::generate().unwrap(), Keyring::generate().unwrap());
    fill_with(SledStore::open(&from).unwrap().encrypt(old.clone()));
    let open = |ring: &Keyring| SledStore::open(&from).unwrap().encrypt(ring.clone()).vault().unwrap();
    let both = new.clone().older(&old);
    let mut target = open(&both);
    target.rekey(|progress| assert!(progress.done < 2, "the power is gone")).unwrap_err();
    drop(target);
    let bad = |ring: &Keyring| {
        let mut target = open(ring);
        let bad = target.check(|_| {}).unwrap().quarantine.len();
        target.close().unwrap();
        bad
    };
    assert!(bad(&both) == 0 && bad(&old) > 0 && bad(&new) > 0);
    let mut target = open(&both);
    let rekeyed = target.rekey(|_| {}).unwrap();
    assert!(rekeyed.rewritten > 0 && rekeyed.current > 0 && rekeyed.unreadable == 0, "{rekeyed:?}");
    target.close().unwrap();
    assert_eq!(bad(&new), 0);
}

#[test]
fn a_merge_of_what_is_there_changes_nothing() {
    let (base, [from, _, file]) = places();
    fill(&from);
    let lines = |file: &Path| -> Vec<String> {
        fs::read_to_string(file).unwrap().lines().skip(1).map(str::to_owned).collect()
    };
    export(&from, &file);
    import(&from, &file, ImportMode::Merge).unwrap();
    let again = base.path().join("again.jsonl");
    export(&from, &again);
    let without_sum = |mut lines: Vec<String>| lines.drain(..lines.len() - 1).collect::<Vec<_>>();
    assert_eq!(without_sum(lines(&again)), without_sum(lines(&file)));
}

/// Whoever follows the advice after an import that was cut off loses nothing that was there before it.
#[test]
fn a_merge_that_was_cut_off_is_repeated_as_a_merge() {
    let (_base, [from, to, file]) = places();
    fill(&from);
    export(&from, &file);
    system(async {
        let (store, _) = Running::open(&to).await.unwrap();
        store.put("mine").await;
        store.stop().await;
    });
    // What is noted, and that it is a merge, shows an import that fails half way.
    let mut target = vault(&to);
    let broken = target.import(&file, ImportMode::Merge, |progress| {
        assert!(progress.done <= progress.total);
        if progress.done == progress.total / 2 {
            panic!("the power is gone");
        }
    });
    let error = broken.unwrap_err().to_string();
    assert!(error.contains("cut off, repeat it with `--merge`"), "{error}");
    drop(target);
    let advised = |error: StoreError, advice: &str, other: &str| {
        let text = error.to_string();
        assert!(text.contains("cut off") && text.contains(advice) && !text.contains(other), "{text}");
    };
    advised(vault(&to).check(|_| {}).unwrap_err(), "--merge", "--replace");
    advised(import(&to, &file, ImportMode::IntoEmpty).unwrap_err(), "--merge", "--replace");
    import(&to, &file, ImportMode::Merge).unwrap();
    assert_eq!(tasks(&to).len(), 4);

    // One that was to fill the store left a part of what was to be there: that is no store to add to.
    tamper(&to, |db| drop(db.insert("x", "f").unwrap()));
    advised(vault(&to).check(|_| {}).unwrap_err(), "--replace", "--merge");
    advised(import(&to, &file, ImportMode::Merge).unwrap_err(), "--replace", "--merge");
    import(&to, &file, ImportMode::Replace).unwrap();
    assert_eq!(tasks(&to).len(), 3);
}

/// What gets the name of the export while it is imported is not taken for it.
#[test]
fn an_export_that_is_replaced_meanwhile_is_imported_all_the_same() {
    let (base, [from, to, file]) = places();
    fill(&from);
    export(&from, &file);
    let aside = base.path().join("newer");
    fs::write(&aside, "something else").unwrap();
    let mut target = vault(&to);
    let imported = target
        .import(&file, ImportMode::Replace, |progress| {
            if progress.done == 1 {
                fs::rename(&aside, &file).unwrap();
            }
        })
        .unwrap();
    assert_eq!(imported.tasks, 3);
    target.close().unwrap();
}

#[test]
fn what_was_changed_on_its_way_is_named() {
    let (_base, [from, to, file]) = places();
    fill(&from);
    export(&from, &file);
    let text = fs::read_to_string(&file).unwrap();
    for changed in [text.replace('\n', "\r\n"), format!("\u{feff}{text}")] {
        fs::write(&file, changed).unwrap();
        let error = import(&to, &file, ImportMode::IntoEmpty).unwrap_err().to_string();
        assert!(error.contains("copy the export again, as binary data"), "{error}");
    }
    let long = [text.lines().next().unwrap(), "\n", &"x".repeat(65 << 20)].concat();
    fs::write(&file, long).unwrap();
    let error = import(&to, &file, ImportMode::IntoEmpty).unwrap_err().to_string();
    assert!(error.contains("too long"), "{error}");
}

/// A task that somebody has made very large in the file of a file store is in exports that can be imported.
#[test]
fn large_records_come_back() {
    let (base, [from, to, file]) = places();
    system(async {
        let (store, _) = Running::open_with(FileStore::open(&from).unwrap()).await.unwrap();
        let mut task = sample("large", start());
        std::sync::Arc::make_mut(&mut task.spec).args = "here".into();
        store.0.put(Put { task, expect: Expect::Absent }).await.unwrap();
        store.0.close(Close).await.unwrap();
        store.stop().await;
    });
    let path = from.join("tasks/large.json");
    let text = fs::read_to_string(&path).unwrap();
    let lines = text.lines().filter(|line| !line.contains("\"sum\""));
    let text =
        lines.collect::<Vec<_>>().join("\n").replace("\"here\"", &format!("{:?}", "x".repeat(2 << 20)));
    fs::write(&path, text).unwrap();
    let mut source = FileStore::open(&from).unwrap().vault().unwrap();
    assert_eq!(source.export(&file, false, |_| {}).unwrap().unreadable, 0);
    source.close().unwrap();
    for name in ["redb", "file"] {
        let to = base.path().join(name);
        let mut target = match name {
            "redb" => RedbStore::open(&to).unwrap().vault().unwrap(),
            _ => FileStore::open(&to).unwrap().vault().unwrap(),
        };
        assert_eq!(target.import(&file, ImportMode::IntoEmpty, |_| {}).unwrap().tasks, 1, "{name}");
        target.close().unwrap();
    }
    assert_eq!(import(&to, &file, ImportMode::IntoEmpty).unwrap().tasks, 1);
}

/// Whatever lies where an export is to be written, it is not written through.
#[cfg(unix)]
#[test]
fn an_export_has_its_file_for_itself() {
    use std::os::unix::fs::{MetadataExt, symlink};

    let (base, [from, _, file]) = places();
    fill(&from);
    let part = base.path().join("all.jsonl.part");
    let victim = base.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    symlink(&victim, &part).unwrap();
    export(&from, &file);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
    // What an export that was killed has left, readable for all.
    fs::write(&part, "a part").unwrap();
    export(&from, &file);
    assert!(!part.exists() && file.metadata().unwrap().mode() & 0o777 == 0o600);
    // Another one is under way.
    let other = fs::File::create(&part).unwrap();
    other.lock().unwrap();
    let mut vault = vault(&from);
    let error = vault.export(&file, false, |_| {}).unwrap_err();
    assert!(matches!(error, StoreError::File { .. }), "{error:?}");
    assert!(error.to_string().contains("another export to it is under way"), "{error}");
    assert!(part.exists() && error.is_retryable());
    drop(other);
    // What is no file is not replaced by one, and not waited for.
    for (path, made) in [(base.path().to_owned(), true), (PathBuf::from("/dev/null"), true)] {
        assert_eq!(path.exists(), made);
        let error = vault.export(&path, false, |_| {}).unwrap_err().to_string();
        assert!(error.contains("no regular file"), "{error}");
        let error = vault.import(&path, ImportMode::Replace, |_| {}).unwrap_err().to_string();
        assert!(error.contains("no regular file"), "{error}");
    }
    assert_eq!(vault.check(|_| {}).unwrap().tasks, 3);
    vault.close().unwrap();
}
