//! The file store: what its files look like, and what becomes of them in trouble.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use callboard::store::contract::{sample, start};
use callboard::store::message::*;
use callboard::store::{Durability, FileStore, StoreError};
use callboard::task::{Outcome, OwnerId, RunEnd, RunId};

use super::sled::{Running, id, moved_on, run, snapshot};
use super::system;

async fn open(path: &Path) -> Result<(Running, Opened), StoreError> {
    Running::open_with(FileStore::open(path)?).await
}

async fn close(store: Running) {
    store.0.close(Close).await.unwrap();
    store.stop().await;
}

fn task_file(base: &Path, name: &str) -> PathBuf {
    base.join("tasks").join(format!("{name}.json"))
}

fn runs_file(base: &Path, name: &str) -> PathBuf {
    base.join("tasks").join(format!("{name}.runs.jsonl"))
}

/// A directory with the tasks `a`, `b` and `c`.
async fn filled(path: &Path) {
    let (store, _) = open(path).await.unwrap();
    for name in ["a", "b", "c"] {
        store.put(name).await;
    }
    close(store).await;
}

#[test]
fn a_task_is_a_file_that_people_can_read_and_edit() {
    let base = tempfile::tempdir().unwrap();
    let path = base.path().join("new/store");
    system(async {
        let (store, _) = open(&path).await.unwrap();
        let task = store.put("weekly").await;
        close(store).await;
        let file = task_file(&path, "weekly");
        let text = fs::read_to_string(&file).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[1].starts_with(r#"  "sum": ""#) && lines[2] == r#"  "id": "weekly","#, "{text}");
        assert!(text.contains(r#"      "handler": "handler","#), "{text}");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&path), mode(&path.join("tasks"))), (0o700, 0o700));
            for file in snapshot(&path).keys() {
                assert_eq!(mode(file), 0o600, "{}", file.display());
            }
        }

        let edited = text.replace(r#""max_instances": 1"#, r#""max_instances": 7"#);
        assert_ne!(edited, text);
        fs::write(&file, &edited).unwrap();
        let (store, opened) = open(&path).await.unwrap();
        assert!(opened.unreadable[0].reason.contains("removes the line `sum`"), "{:?}", opened.unreadable);
        close(store).await;
        assert_eq!(fs::read_to_string(&file).unwrap(), edited, "it is left alone");
        let unsummed: String = edited.lines().filter(|line| !line.contains("\"sum\"")).collect();
        fs::write(&file, unsummed).unwrap();
        let (store, opened) = open(&path).await.unwrap();
        assert_eq!(opened.unreadable, []);
        let found = store.0.get(Get { id: id("weekly") }).await.unwrap().unwrap();
        assert_eq!((found.spec.max_instances, found.state), (7, task.state));
    });
}

#[test]
fn whatever_an_id_is_it_has_a_file_of_its_own() {
    let base = tempfile::tempdir().unwrap();
    let long = |end: &str| format!("{}{end}", "ü/".repeat(80));
    let ids = [
        "a",
        "A",
        "../../etc/passwd",
        ".",
        "..",
        ".hidden",
        "CON",
        "con.json",
        "a.runs",
        "a b",
        "день 💰",
        "x~y",
        "%41",
        "trailing.",
        "-rf *",
        "a.json",
        &long("1"),
        &long("2"),
        &"M".repeat(255),
    ];
    system(async {
        let (store, _) = open(base.path()).await.unwrap();
        let mut tasks = Vec::new();
        for id in ids {
            let task = store.put(id).await;
            let change = moved_on(&task, vec![run(id, 1)]);
            store.0.commit(Commit { changes: vec![change] }).await.unwrap();
            tasks.push(id);
        }
        close(store).await;
        let files = snapshot(base.path());
        let inside = files.keys().filter(|file| file.starts_with(base.path().join("tasks"))).count();
        assert_eq!(inside, ids.len() * 2);
        let lower: std::collections::BTreeSet<_> =
            files.keys().map(|file| file.to_str().unwrap().to_lowercase()).collect();
        assert_eq!(lower.len(), files.len(), "also where capitals are no difference");

        let (store, opened) = open(base.path()).await.unwrap();
        assert_eq!(opened.unreadable, []);
        let mut found = store.ids().await;
        found.sort();
        tasks.sort();
        assert_eq!(found, tasks);
        for id in ids {
            let runs = store.0.runs(Runs { id: super::sled::id(id), limit: 9 }).await.unwrap();
            assert_eq!(runs, [run(id, 1)]);
            store.0.delete(Delete { id: super::sled::id(id), revision: None }).await.unwrap();
        }
        close(store).await;
        let left = snapshot(base.path());
        let tasks = left.keys().filter(|file| file.extension().is_some_and(|end| end == "json"));
        assert_eq!(tasks.filter(|file| file.starts_with(base.path().join("tasks"))).count(), 0);
    });
}

#[test]
fn a_damaged_file_is_reported_and_the_others_work() {
    let base = tempfile::tempdir().unwrap();
    let path = base.path();
    let file = task_file(path, "b");
    type Damage = fn(&mut Vec<u8>);
    let damages: [(Damage, &str); 7] = [
        (|bytes| bytes.truncate(bytes.len() / 2), "sum"),
        (|bytes| bytes.clear(), "does not decode"),
        (|bytes| bytes[40] ^= 1, "sum"),
        (|bytes| bytes.iter_mut().rev().take(30).for_each(|byte| *byte = 0xff), "sum"),
        (|bytes| *bytes = b"{\"id\":\"b\",\"tusk\":1}".to_vec(), "unknown field `tusk`"),
        (|bytes| *bytes = b"{\"id\":\"a\"}".to_vec(), "that of another task, `a`"),
        (
            |bytes| {
                *bytes = b"{\"id\":\"b\",\"spec\":{\"kind\":\"S\",\"version\":9,\"content\":{}}}".to_vec()
            },
            "format 9",
        ),
    ];
    system(async {
        filled(path).await;
        let intact = fs::read(&file).unwrap();
        for (index, (damage, because)) in damages.into_iter().enumerate() {
            let mut bytes = intact.clone();
            damage(&mut bytes);
            fs::write(&file, &bytes).unwrap();
            let (store, opened) = open(path).await.unwrap();
            assert_eq!(opened.unreadable.len(), 1, "{index}: {:?}", opened.unreadable);
            let Unreadable { id: reported, reason, .. } = &opened.unreadable[0];
            assert!(reported == "b" && reason.contains(because), "{index}: {reason}");
            assert_eq!(store.ids().await, ["a", "c"]);
            let put = Put { task: sample("b", start()), expect: Expect::Absent };
            assert!(store.0.put(put).await.unwrap_err().to_string().contains(because));
            let d = store.put("d").await;
            store.0.delete(Delete { id: d.spec.id.clone(), revision: None }).await.unwrap();
            assert_eq!(store.0.remove_all(RemoveAll).await.unwrap(), 2);
            close(store).await;
            assert_eq!(fs::read(&file).unwrap(), bytes, "{index}: it is left alone");
            let (store, _) = open(path).await.unwrap();
            store.put("a").await;
            store.put("c").await;
            close(store).await;
        }
        fs::write(&file, intact).unwrap();
        let (store, opened) = open(path).await.unwrap();
        assert_eq!((store.ids().await.len(), opened.unreadable.len()), (3, 0));
    });
}

#[test]
fn what_is_none_of_the_stores_is_left_alone() {
    let base = tempfile::tempdir().unwrap();
    let path = base.path();
    system(async {
        filled(path).await;
        let foreign = [
            "notes.txt",
            "tasks/README",
            "tasks/Backup.json",
            "tasks/a b.json",
            "tasks/x.runs.jsonl.bak",
            "tasks/Draft of a.json.new",
            "tasks/A.runs.jsonl.new",
            "tasks/a~old.json.new",
        ];
        for name in foreign {
            fs::write(path.join(name), "mine").unwrap();
        }
        // What was being written when the process died.
        fs::write(path.join("tasks/a.json.new"), "{\"id\":").unwrap();
        let (store, opened) = open(path).await.unwrap();
        assert_eq!((store.ids().await.len(), opened.unreadable.len()), (3, 0));
        assert_eq!(store.0.remove_all(RemoveAll).await.unwrap(), 3);
        close(store).await;
        for name in foreign {
            assert_eq!(fs::read_to_string(path.join(name)).unwrap(), "mine");
        }
        assert!(!path.join("tasks/a.json.new").exists());
    });
}

/// The process died before the files were written: everything is in the journal.
#[test]
fn the_journal_has_what_the_files_have_not() {
    let base = tempfile::tempdir().unwrap();
    let path = base.path();
    system(async {
        let (store, _) = open(path).await.unwrap();
        let task = store.put("a").await;
        store
            .0
            .commit(Commit { changes: vec![moved_on(&task, vec![run("a", 1), run("a", 2)])] })
            .await
            .unwrap();
        let end = RunEnd::unstarted(Outcome::Cancelled, start());
        let ends = vec![(RunId { owner: OwnerId(1), serial: 1 }, id("a"), end)];
        store.0.finish(Finish { ends }).await.unwrap();
        store.put("gone").await;
        store.0.delete(Delete { id: id("gone"), revision: None }).await.unwrap();
        let killed = tempfile::tempdir().unwrap();
        let copy = killed.path();
        fs::create_dir(copy.join("tasks")).unwrap();
        for (file, bytes) in snapshot(path) {
            fs::write(copy.join(file.strip_prefix(path).unwrap()), bytes).unwrap();
        }
        let journal = fs::read(copy.join("journal.jsonl")).unwrap();
        assert!(!task_file(copy, "a").exists() && !journal.is_empty());
        // Whatever was written of the files before it died, and of the next line of the journal.
        fs::write(task_file(copy, "a"), "{").unwrap();
        fs::write(copy.join("journal.jsonl"), [&journal, b"{\"sum\":\"123".as_slice()].concat()).unwrap();
        for _ in 0..2 {
            let (store, opened) = open(copy).await.unwrap();
            assert_eq!((store.ids().await, opened.unreadable), (vec!["a".to_owned()], vec![]));
            let runs = store.0.runs(Runs { id: id("a"), limit: 9 }).await.unwrap();
            assert_eq!(runs.iter().map(|run| run.end.is_some()).collect::<Vec<_>>(), [false, true]);
            close(store).await;
            assert_eq!(fs::read(copy.join("journal.jsonl")).unwrap(), b"");
            assert!(!copy.join("journal.old.jsonl").exists() && task_file(copy, "a").exists());
        }
    });
}

/// A broken line after which others were acknowledged is damage; the last one is a write that nobody
/// was told of.
#[test]
fn a_damaged_journal_is_not_skipped() {
    let base = tempfile::tempdir().unwrap();
    let path = base.path();
    system(async {
        let (store, _) = open(path).await.unwrap();
        for name in ["a", "b", "c"] {
            store.put(name).await;
        }
        let journal = fs::read_to_string(path.join("journal.jsonl")).unwrap();
        close(store).await;
        for name in ["a", "b", "c"] {
            fs::remove_file(task_file(path, name)).unwrap();
        }
        let broken = journal.replacen("\"revision\":1", "\"revision\":3", 2);
        fs::write(path.join("journal.jsonl"), &broken).unwrap();
        let before = snapshot(path);
        let error = open(path).await.map(|_| ()).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
        assert!(error.to_string().contains("line 1 of `journal.jsonl`"), "{error}");
        assert!(snapshot(path) == before);
        let last = journal.lines().last().unwrap();
        // Two of them: the first one was acknowledged before the second was written.
        let second = journal.lines().nth(1).unwrap();
        let both =
            journal.replace(last, &last[..last.len() - 5]).replace(second, &second.replace("id", "di"));
        fs::write(path.join("journal.jsonl"), both).unwrap();
        let error = open(path).await.map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("line 2 of `journal.jsonl`"), "{error}");
        let torn = journal.replace(last, &last[..last.len() - 5]);
        // Nobody writes at the end of a journal that has its other name.
        fs::write(path.join("journal.old.jsonl"), &torn).unwrap();
        fs::write(path.join("journal.jsonl"), "").unwrap();
        let error = open(path).await.map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("line 3 of `journal.old.jsonl`"), "{error}");
        fs::remove_file(path.join("journal.old.jsonl")).unwrap();
        fs::write(path.join("journal.jsonl"), torn).unwrap();
        let (store, _) = open(path).await.unwrap();
        assert_eq!(store.ids().await, ["a", "b"]);
        store.0.remove_all(RemoveAll).await.unwrap();
        close(store).await;
        // An editor has its own idea of where lines end.
        let edited = journal.trim_end().replace('\n', "\r\n\n");
        fs::write(path.join("journal.jsonl"), edited).unwrap();
        let (store, _) = open(path).await.unwrap();
        assert_eq!(store.ids().await, ["a", "b", "c"]);
    });
}

#[test]
fn damage_to_the_directory_is_told_and_nothing_is_touched() {
    type Damage = fn(&Path);
    let cases: [(&str, Damage); 6] = [
        ("`runs-and-removed.json` is missing", |path| {
            fs::remove_file(path.join("runs-and-removed.json")).unwrap()
        }),
        ("`tasks` is missing", |path| fs::remove_dir_all(path.join("tasks")).unwrap()),
        ("`journal.jsonl` is missing", |path| fs::remove_file(path.join("journal.jsonl")).unwrap()),
        ("`callboard-files.json` is missing", |path| {
            fs::remove_file(path.join("callboard-files.json")).unwrap()
        }),
        ("callboard-files.json", |path| fs::write(path.join("callboard-files.json"), "{").unwrap()),
        ("runs-and-removed.json", |path| fs::write(path.join("runs-and-removed.json"), "{}").unwrap()),
    ];
    for (reason, damage) in cases {
        let base = tempfile::tempdir().unwrap();
        system(async {
            filled(base.path()).await;
            damage(base.path());
            let before = snapshot(base.path());
            for _ in 0..2 {
                let error = open(base.path()).await.map(|_| ()).unwrap_err();
                assert!(matches!(error, StoreError::Damaged { .. }), "{reason}: {error:?}");
                assert!(error.to_string().contains(reason), "{reason}: {error}");
                assert!(snapshot(base.path()) == before, "{reason}");
            }
        });
    }
}

/// The process died before a change was in the file of its task, and the file was damaged then. When it has
/// been repaired, the change is there.
#[test]
fn what_a_task_was_to_become_waits_for_its_file() {
    let base = tempfile::tempdir().unwrap();
    let killed = tempfile::tempdir().unwrap();
    let path = killed.path();
    system(async {
        filled(base.path()).await;
        let (store, _) = open(base.path()).await.unwrap();
        let b = store.0.get(Get { id: id("b") }).await.unwrap().unwrap();
        store.0.commit(Commit { changes: vec![moved_on(&b, vec![run("b", 1)])] }).await.unwrap();
        copy(base.path(), path);
        store.stop().await;
        let file = task_file(path, "b");
        let whole = fs::read(&file).unwrap();
        fs::write(&file, &whole[..whole.len() - 40]).unwrap();
        for round in 0..3 {
            let (store, opened) = open(path).await.unwrap();
            assert_eq!((opened.unreadable.len(), store.ids().await.len()), (1, 2), "{round}");
            // Others go on meanwhile, and get to their files.
            store.put(&format!("another {round}")).await;
            close(store).await;
            assert!(
                task_file(path, &format!("another%20{round}")).exists()
                    && !path.join("journal.old.jsonl").exists()
            );
            let (store, _) = open(path).await.unwrap();
            store.0.delete(Delete { id: id(&format!("another {round}")), revision: None }).await.unwrap();
            close(store).await;
        }
        fs::write(&file, &whole).unwrap();
        for _ in 0..2 {
            let (store, opened) = open(path).await.unwrap();
            assert_eq!(opened.unreadable, []);
            let found = store.0.get(Get { id: id("b") }).await.unwrap().unwrap();
            assert_eq!(found.state.revision, b.state.revision + 1);
            assert_eq!(store.0.runs(Runs { id: id("b"), limit: 9 }).await.unwrap().len(), 1);
            close(store).await;
            assert_eq!(fs::read(path.join("journal.jsonl")).unwrap(), b"");
        }
    });
}

/// People copy files before they change them.
#[test]
fn copies_of_files_take_the_place_of_none() {
    let base = tempfile::tempdir().unwrap();
    let path = base.path();
    let long = "ж".repeat(120);
    system(async {
        let (store, _) = open(path).await.unwrap();
        let mut tasks = Vec::new();
        for name in ["a", &long] {
            let task = store.put(name).await;
            store.0.commit(Commit { changes: vec![moved_on(&task, vec![run(name, 1)])] }).await.unwrap();
        }
        close(store).await;
        let all: Vec<_> =
            fs::read_dir(path.join("tasks")).unwrap().map(|entry| entry.unwrap().path()).collect();
        let mut copies = Vec::new();
        for file in &all {
            let (name, end) = file.file_name().unwrap().to_str().unwrap().split_once('.').unwrap();
            for copied in
                ["old", "1", "0123456789abcdef0123456789abcdef", "0123456789abcdef0123456789abcdef~2"]
            {
                copies.push(file.with_file_name(format!("{name}~{copied}.{end}")));
                fs::copy(file, copies.last().unwrap()).unwrap();
            }
        }
        let before = snapshot(path);
        for _ in 0..2 {
            let (store, opened) = open(path).await.unwrap();
            tasks = store.ids().await;
            tasks.sort();
            assert_eq!(tasks, ["a", &long]);
            // A copy with a name as the store makes them is reported.
            for Unreadable { id, reason, .. } in &opened.unreadable {
                assert!(id.contains('~') && reason.contains("a copy needs an id"), "{id}: {reason}");
            }
            for name in ["a", &long] {
                let runs = store.0.runs(Runs { id: id(name), limit: 9 }).await.unwrap();
                assert_eq!(runs.len(), 1, "{name}");
                let task = store.0.get(Get { id: id(name) }).await.unwrap().unwrap();
                store.0.commit(Commit { changes: vec![moved_on(&task, vec![])] }).await.unwrap();
            }
            close(store).await;
        }
        let after = snapshot(path);
        assert!(copies.iter().all(|copy| after[copy] == before[copy]));
        let changed = |file: &PathBuf| after[file] != before[file];
        assert!(all.iter().filter(|file| file.extension().unwrap() == "json").all(changed));
        assert!(!tasks.is_empty());
    });
}

/// What is in the place of the file of one task is no trouble of the others.
#[cfg(unix)]
#[test]
fn a_thing_that_is_no_file_is_reported_and_the_others_work() {
    type Thing = fn(&Path);
    let things: [(&str, Thing); 4] = [
        ("directory", |path| fs::create_dir(path).unwrap()),
        ("leads nowhere", |path| std::os::unix::fs::symlink("gone", path).unwrap()),
        ("symbolic links", |path| std::os::unix::fs::symlink(path, path).unwrap()),
        ("denied", |path| {
            use std::os::unix::fs::PermissionsExt;
            fs::write(path, "{}").unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o0)).unwrap();
        }),
    ];
    for (because, thing) in things {
        let base = tempfile::tempdir().unwrap();
        let file = task_file(base.path(), "b");
        system(async {
            filled(base.path()).await;
            fs::remove_file(&file).unwrap();
            thing(&file);
            if because == "denied" && fs::read(&file).is_ok() {
                // Nothing is denied to root.
                return;
            }
            let there = fs::symlink_metadata(&file).unwrap().file_type();
            let (store, opened) = open(base.path()).await.unwrap();
            assert_eq!(opened.unreadable.len(), 1, "{because}: {:?}", opened.unreadable);
            let Unreadable { id, reason, .. } = &opened.unreadable[0];
            assert!(id == "b" && reason.to_lowercase().contains(because), "{because}: {reason}");
            assert_eq!(store.ids().await, ["a", "c"]);
            let put = Put { task: sample("b", start()), expect: Expect::Absent };
            store.0.put(put).await.unwrap_err();
            store.put("d").await;
            close(store).await;
            assert_eq!(fs::symlink_metadata(&file).unwrap().file_type(), there);
        });
    }
}

/// With its lock or its journal gone, a store acknowledges nothing that the next one would not find.
#[cfg(unix)]
#[test]
fn a_store_whose_files_are_taken_away_is_down() {
    for (name, because) in [("callboard-store.lock", "lock"), ("journal.jsonl", "journal.jsonl")] {
        let base = tempfile::tempdir().unwrap();
        system(async {
            filled(base.path()).await;
            let (store, _) = open(base.path()).await.unwrap();
            fs::rename(base.path().join(name), base.path().join("elsewhere")).unwrap();
            let put = Put { task: sample("d", start()), expect: Expect::Absent };
            let error = store.0.put(put).await.unwrap_err();
            assert!(error.is_retryable() && error.to_string().contains(because), "{error}");
            fs::rename(base.path().join("elsewhere"), base.path().join(name)).unwrap();
            store.stop().await;
            let (store, _) = open(base.path()).await.unwrap();
            assert_eq!(store.ids().await.len(), 3);
        });
    }
}

#[test]
fn broken_lines_of_runs_are_kept_and_do_no_harm() {
    let base = tempfile::tempdir().unwrap();
    let file = runs_file(base.path(), "a");
    system(async {
        let source = || FileStore::open(base.path()).unwrap().history(4);
        let (store, _) = Running::open_with(source()).await.unwrap();
        let mut task = store.put("a").await;
        let mut ended = async |store: &Running, serials: std::ops::Range<u64>| {
            for serial in serials {
                let mut record = run("a", serial);
                record.end = Some(RunEnd::unstarted(Outcome::Cancelled, start()));
                store.0.commit(Commit { changes: vec![moved_on(&task, vec![record])] }).await.unwrap();
                task.state.revision += 1;
            }
        };
        ended(&store, 1..4).await;
        close(store).await;
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(text.lines().count(), 4, "{text}");
        // One is damaged, and the last one is cut off.
        let text = text.replacen("cancelled", "canceled!", 1);
        fs::write(&file, &text[..text.len() - 9]).unwrap();
        let broken: Vec<_> = fs::read_to_string(&file).unwrap().lines().map(str::to_owned).collect();

        let (store, opened) = Running::open_with(source()).await.unwrap();
        assert_eq!(opened.unreadable, []);
        let serials = async |store: &Running| -> Vec<u64> {
            let runs = store.0.runs(Runs { id: id("a"), limit: 99 }).await.unwrap();
            runs.iter().map(|run| run.id.serial).collect()
        };
        assert_eq!(serials(&store).await, [2]);
        ended(&store, 4..20).await;
        close(store).await;
        // Often enough that the file is written anew.
        let mut longest = 0;
        for round in 2..12 {
            let (store, _) = Running::open_with(source()).await.unwrap();
            ended(&store, round * 10..(round + 1) * 10).await;
            close(store).await;
            longest = longest.max(fs::read_to_string(&file).unwrap().lines().count());
        }
        let (store, _) = Running::open_with(source()).await.unwrap();
        let there = serials(&store).await;
        assert!(there[0] == 119 && (4..=5).contains(&there.len()), "{there:?}");
        close(store).await;
        let text = fs::read_to_string(&file).unwrap();
        assert!(longest < 60 && !text.contains("-5\""), "{longest} lines at most; in the end {text}");
        assert!(text.contains(&broken[1]) && text.contains(&broken[3]), "{text}");
        let (store, _) = Running::open_with(source()).await.unwrap();
        assert_eq!(serials(&store).await, there);
    });
}

#[test]
fn the_files_follow_within_moments() {
    let base = tempfile::tempdir().unwrap();
    system(async {
        let (store, _) = open(base.path()).await.unwrap();
        store.put("a").await;
        let file = task_file(base.path(), "a");
        for _ in 0..1000 {
            if file.exists() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(fs::read_to_string(&file).unwrap().contains("\"id\": \"a\""));
        store.stop().await;
    });
}

#[test]
fn a_file_that_was_broken_under_the_store_takes_it_down_and_is_reported() {
    let base = tempfile::tempdir().unwrap();
    system(async {
        filled(base.path()).await;
        let (store, _) = open(base.path()).await.unwrap();
        fs::write(task_file(base.path(), "b"), "{").unwrap();
        let b = store.0.get(Get { id: id("b") }).await.unwrap().unwrap();
        store.0.commit(Commit { changes: vec![moved_on(&b, vec![])] }).await.unwrap();
        let closed = store.0.close(Close).await.unwrap_err();
        assert!(
            matches!(closed, StoreError::Damaged { .. }) && closed.to_string().contains("b.json"),
            "{closed}"
        );
        store.stop().await;
        let (store, opened) = open(base.path()).await.unwrap();
        assert_eq!((opened.unreadable[0].id.as_str(), store.ids().await.len()), ("b", 2));
        assert_eq!(fs::read_to_string(task_file(base.path(), "b")).unwrap(), "{");
    });
}

#[test]
fn a_relaxed_store_keeps_what_it_was_closed_with() {
    let base = tempfile::tempdir().unwrap();
    system(async {
        let hour = Durability::Interval(Duration::from_secs(3600));
        let source = FileStore::open(base.path()).unwrap().durability(hour);
        let (store, _) = Running::open_with(source).await.unwrap();
        store.put("a").await;
        assert_eq!(fs::read(base.path().join("journal.jsonl")).unwrap(), b"");
        close(store).await;
        assert!(task_file(base.path(), "a").exists());
    });
}

/// Where the directories are that each layout of the past has left, as of a moment at which the program
/// was killed.
fn landed(format: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/store/files-v{format}"))
}

fn copy(from: &Path, to: &Path) {
    for (file, bytes) in snapshot(from) {
        let file = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, bytes).unwrap();
    }
}

/// After a new layout: `CALLBOARD_LAND=<the number of the layout>` makes its directory, once and for all.
#[test]
#[ignore = "writes a fixture"]
fn land_the_layout() {
    let Ok(format) = std::env::var("CALLBOARD_LAND") else { return };
    let base = tempfile::tempdir().unwrap();
    let source = || FileStore::open(base.path()).unwrap().history(4);
    let long = "ж".repeat(120);
    system(async {
        let (store, _) = Running::open_with(source()).await.unwrap();
        for name in ["Weekly", &long, "gone"] {
            let mut task = store.put(name).await;
            for serial in 1..=6 {
                let mut record = run(name, serial);
                record.end = (serial != 5).then(|| RunEnd::unstarted(Outcome::Cancelled, start()));
                store.0.commit(Commit { changes: vec![moved_on(&task, vec![record])] }).await.unwrap();
                task.state.revision += 1;
            }
        }
        close(store).await;
        let (store, _) = Running::open_with(source()).await.unwrap();
        store.0.delete(Delete { id: id("gone"), revision: None }).await.unwrap();
        let task = store.0.get(Get { id: id("Weekly") }).await.unwrap().unwrap();
        let change = moved_on(&task, vec![run("Weekly", 7)]);
        store.0.commit(Commit { changes: vec![change] }).await.unwrap();
        store.put("late").await;
        let to = landed(format.parse().unwrap());
        copy(base.path(), &to);
        fs::remove_file(to.join("callboard-store.lock")).unwrap();
        assert!(!to.join("tasks/late.json").exists());
        store.stop().await;
    });
}

/// What a directory is found with by the program that comes after.
async fn told(path: &Path) -> Vec<(String, Vec<u64>)> {
    let (store, opened) = Running::open_with(FileStore::open(path).unwrap()).await.unwrap();
    assert_eq!(opened.unreadable, []);
    let mut told = Vec::new();
    for name in store.ids().await {
        let runs = store.0.runs(Runs { id: id(&name), limit: 99 }).await.unwrap();
        told.push((name, runs.iter().map(|run| run.id.serial).collect()));
    }
    store.stop().await;
    told.sort();
    told
}

#[test]
fn directories_of_every_layout_are_read_and_belong_to_this_one_then() {
    for format in [1, 2] {
        let base = tempfile::tempdir().unwrap();
        copy(&landed(format), base.path());
        let long = "ж".repeat(120);
        let expected = [
            ("Weekly".to_owned(), vec![7, 6, 5, 4, 3]),
            ("late".to_owned(), vec![]),
            (long, vec![6, 5, 4, 3, 2]),
        ];
        system(async {
            for _ in 0..2 {
                let told = told(base.path()).await;
                let first = |runs: &[u64]| runs.iter().copied().take(4).collect::<Vec<_>>();
                let names: Vec<_> = told.iter().map(|(name, runs)| (name.as_str(), first(runs))).collect();
                let there: Vec<_> =
                    expected.iter().map(|(name, runs)| (name.as_str(), first(runs))).collect();
                assert_eq!(names, there, "layout {format}");
                let mark = fs::read_to_string(base.path().join("callboard-files.json")).unwrap();
                assert!(mark.contains("\"format\": 2"), "{mark}");
            }
            let (store, _) = open(base.path()).await.unwrap();
            let gone = store.0.runs(Runs { id: id("gone"), limit: 99 }).await.unwrap();
            assert!(gone.len() >= 4, "{gone:?}");
            close(store).await;
            assert!(!base.path().join("tasks/gone.json").exists() && task_file(base.path(), "late").exists());
        });
    }
}

/// The program was killed between two steps of bringing a journal to the files.
#[test]
fn a_journal_that_was_half_brought_to_the_files_is_whole() {
    type Step = fn(&Path);
    let join = |path: &Path, name: &str| path.join(name);
    let steps: [(&str, Step); 5] = [
        ("it has its other name and no successor", |path| {
            fs::rename(path.join("journal.jsonl"), path.join("journal.old.jsonl")).unwrap();
        }),
        ("it has a successor", |path| {
            fs::rename(path.join("journal.jsonl"), path.join("journal.old.jsonl")).unwrap();
            fs::write(path.join("journal.jsonl"), "").unwrap();
        }),
        ("the successor has changes", |path| {
            let text = fs::read_to_string(path.join("journal.jsonl")).unwrap();
            let (first, rest) = text.split_at(text.find('\n').unwrap() + 1);
            fs::write(path.join("journal.old.jsonl"), first).unwrap();
            fs::write(path.join("journal.jsonl"), rest).unwrap();
        }),
        ("the next start was killed as it put them together", |path| {
            let text = fs::read_to_string(path.join("journal.jsonl")).unwrap();
            let rest = &text[text.find('\n').unwrap() + 1..];
            fs::write(path.join("journal.old.jsonl"), &text[..text.len() - 20]).unwrap();
            fs::write(path.join("journal.jsonl"), rest).unwrap();
        }),
        ("some files are written", |path| {
            fs::rename(path.join("journal.jsonl"), path.join("journal.old.jsonl")).unwrap();
            fs::write(path.join("journal.jsonl"), "").unwrap();
            fs::remove_file(path.join("tasks/gone.json")).unwrap();
            fs::write(path.join("tasks/late.json.new"), "{").unwrap();
        }),
    ];
    let whole = tempfile::tempdir().unwrap();
    copy(&landed(2), whole.path());
    system(async {
        let expected = told(whole.path()).await;
        for (step, cut) in steps {
            let base = tempfile::tempdir().unwrap();
            copy(&landed(2), base.path());
            cut(base.path());
            assert_eq!(told(base.path()).await, expected, "{step}");
            let (store, _) = open(base.path()).await.unwrap();
            close(store).await;
            assert!(!join(base.path(), "journal.old.jsonl").exists(), "{step}");
            assert_eq!(told(base.path()).await, expected, "{step}, closed");
        }
    });
}
