//! `callboard store`: with the service running and without.

use std::fs;

use serde_json::Value;

use super::{Place, Said};

const KEY: &str = "9f1c5a44c1a9a1c8a4f0f7b6e2d3c4b5a69788796a5b4c3d2e1f00112233445f";
const OTHER_KEY: &str = "0f1c5a44c1a9a1c8a4f0f7b6e2d3c4b5a69788796a5b4c3d2e1f00112233445f";

const TASKS: &str = "
[task.a]
cron = '0 3 1 1 *'
shell = 'echo the crown jewels'
[task.b]
cron = '0 3 1 1 *'
shell = 'true'
";

/// A place whose service was started once, ran a task, and was stopped.
fn used(store: &str) -> Place {
    let place = Place::new();
    place.config(&format!("{store}\n{TASKS}"));
    let service = place.serve(&[]);
    assert_eq!(place.run(&["run", "a"]).code, 0);
    service.line_with(&["a", "executed"]);
    place.until(&["inspect", "a"], |answer| answer["runs"][0]["end"]["outcome"] == "executed");
    service.stop();
    place
}

fn store(place: &Place, args: &[&str]) -> Said {
    place.run(&[&["store"], args].concat())
}

fn ok(place: &Place, args: &[&str]) -> String {
    let said = store(place, args);
    assert_eq!((said.code, &*said.err), (0, ""), "{args:?}: {said:?}");
    said.out
}

fn fails(place: &Place, args: &[&str], code: i32, because: &str) {
    let said = store(place, args);
    assert!(said.code == code && said.err.contains(because), "{args:?}: {said:?}");
}

#[test]
fn a_store_is_exported_restored_and_moved() {
    let place = used("");
    assert_eq!(ok(&place, &["check"]), "2 tasks and 1 run records can be read\n");
    let said = ok(&place, &["export", "all.jsonl"]);
    assert!(said.starts_with("2 tasks and 1 run records are in all.jsonl (SHA-256 "), "{said}");
    let text = fs::read_to_string(place.path().join("all.jsonl")).unwrap();
    assert!(text.contains("crown jewels") && text.lines().count() == 2 + 5, "{text}");

    let moved = ok(&place, &["migrate", "default", "redb:moved"]);
    assert!(moved.starts_with("2 tasks and 1 run records were written to "), "{moved}");
    let checked: Value = place.json(&["store", "check", "--store", "redb:moved"]);
    assert_eq!((&checked["tasks"], &checked["runs"]), (&2.into(), &1.into()));
    fails(&place, &["migrate", "default", "redb:moved"], 8, "--replace");
    let imported: Value = place.json(&["store", "import", "all.jsonl", "--store", "redb:moved", "--merge"]);
    assert_eq!((&imported["tasks"], &imported["kept"]), (&0.into(), &2.into()));
    fails(&place, &["import", "all.jsonl"], 8, "holds something already");

    // As after the loss of the store.
    fs::remove_dir_all(place.data().join("store")).unwrap();
    fails(&place, &["check"], 7, "there is no store in ");
    assert!(!place.data().join("store").exists(), "looking makes nothing");
    ok(&place, &["import", "all.jsonl"]);
    let service = place.serve(&[]);
    let task = place.json(&["inspect", "a"]);
    assert_eq!(task["runs"][0]["end"]["value"]["stdout"], "the crown jewels\n");
    service.stop();

    fs::write(place.path().join("cut.jsonl"), &text[..text.len() / 2]).unwrap();
    fails(&place, &["import", "cut.jsonl", "--replace"], 6, "cut.jsonl is damaged");
    assert_eq!(ok(&place, &["check"]), "2 tasks and 1 run records can be read\n");
    fails(&place, &["import", "nosuch.jsonl", "--replace"], 1, "nosuch.jsonl");
    for (file, code, because) in [
        ("nosuch.jsonl", 1, "cannot read nosuch.jsonl: "),
        ("cut.jsonl", 6, "cut.jsonl is damaged"),
        ("/dev/stdin", 1, "no regular file"),
        ("-", 2, "no file here"),
    ] {
        fails(&place, &["import", file, "--store", "redb:fresh"], code, because);
        assert!(!place.path().join("fresh").exists(), "{file}: nothing is made for it");
    }
    fails(&place, &["export", "-"], 2, "no file here");
    fails(&place, &["export", "."], 1, "no regular file");
    // A directory that somebody took for that of the store.
    let before = fs::read_dir(place.data()).unwrap().count();
    for command in ["check", "rekey"] {
        fails(&place, &[command, "--store", "redb:data"], 7, "there is no store in ");
    }
    assert_eq!(fs::read_dir(place.data()).unwrap().count(), before, "looking makes nothing");
    std::os::unix::fs::symlink(place.path().join("moved"), place.path().join("linked")).unwrap();
    fails(&place, &["migrate", "redb:moved", "redb:linked", "--replace"], 3, "twice");
    fails(&place, &["check", "--store", "nosuch"], 7, "there is no store `nosuch`");
    fails(&place, &["check", "--store", "tape:x"], 7, "sled:data/store");
    fails(&place, &["migrate", "default", "default"], 3, "twice");
    fails(&place, &["rekey"], 3, "it has none");
    assert_eq!(store(&place, &["import", "all.jsonl", "--replace", "--merge"]).code, 2);
}

#[test]
fn a_running_service_exports_and_keeps_others_away() {
    let place = Place::new();
    place.config(TASKS);
    let service = place.serve(&[]);
    assert_eq!(
        ok(&place, &["check", "--config", "callboard.toml"]),
        "2 tasks and 0 run records can be read\n"
    );
    ok(&place, &["export", "all.jsonl"]);
    assert!(fs::read_to_string(place.path().join("all.jsonl")).unwrap().contains("crown jewels"));
    fails(&place, &["import", "all.jsonl", "--replace"], 5, "another service (process ");
    fails(&place, &["migrate", "default", "file:copy"], 5, "another service (process ");
    fails(&place, &["check", "--store", "sled:data/store"], 5, "is in use by process ");
    service.stop();
}

#[test]
fn keys_are_changed_while_the_service_runs() {
    let settings = "[store.default]\ntype = 'redb'\nkey_file = 'keys'";
    let place = Place::new();
    fs::create_dir(place.data()).unwrap();
    let keys = place.data().join("keys");
    fs::write(&keys, KEY).unwrap();
    place.config(&format!("{settings}\n{TASKS}"));
    let service = place.serve(&[]);
    // First the new one, then that of before.
    fs::write(&keys, format!("{OTHER_KEY} # of this year\n{KEY}\n")).unwrap();
    let rekeyed = place.json(&["store", "rekey", "--config", "callboard.toml"]);
    assert_eq!((&rekeyed["rewritten"], &rekeyed["unreadable"]), (&4.into(), &0.into()), "{rekeyed}");
    fs::write(&keys, OTHER_KEY).unwrap();
    service.stop();
    let config = ["--config", "callboard.toml"];
    let said = ok(&place, &[&["check"], config.as_slice()].concat());
    assert_eq!(said, "2 tasks and 0 run records can be read\n");
    ok(&place, &[&["export", "sealed.jsonl"], config.as_slice()].concat());
    ok(&place, &[&["export", "plain.jsonl", "--plain"], config.as_slice()].concat());
    let contains = |file: &str| fs::read_to_string(place.path().join(file)).unwrap().contains("crown jewels");
    assert_eq!((contains("sealed.jsonl"), contains("plain.jsonl")), (false, true));

    // With another key nothing is readable, and nothing is lost.
    fs::write(&keys, KEY).unwrap();
    let said = store(&place, &[&["check"], config.as_slice()].concat());
    assert!(said.code == 10 && said.err.contains("4 records cannot be read"), "{said:?}");
    assert!(
        said.out.contains("0 tasks and 0 run records") && said.out.contains("not among those"),
        "{said:?}"
    );
    assert!(!said.out.contains(KEY) && !said.err.contains(KEY));
    assert!(said.out.contains("\nunknown_key: give the store that key"), "{said:?}");
    // A backup is taken all the same, and whoever takes it by the clock hears of it.
    let said = store(&place, &[&["export", "blind.jsonl"], config.as_slice()].concat());
    assert!(said.code == 10 && said.err.contains("the export is complete"), "{said:?}");
    assert!(said.out.starts_with("2 tasks and 0 run records are in blind.jsonl"), "{said:?}");
    assert_eq!(store(&place, &[&["rekey"], config.as_slice()].concat()).code, 10);
    // Keys that would not be used are refused.
    let given = [&["check", "--key-file", "wrong"], config.as_slice()].concat();
    fails(&place, &given, 3, "leave --key-file out");
    // A key where its file belongs.
    let said = store(&place, &["check", "--store", "redb:moved", "--key-file", KEY]);
    assert!(said.code == 3 && !said.err.contains(KEY), "{said:?}");
    for name in ["key_file", "key_env"] {
        fs::write(
            place.path().join("wrong.toml"),
            format!("[store.default]\ntype = 'redb'\n{name} = '{KEY}'"),
        )
        .unwrap();
        let said = store(&place, &["check", "--config", "wrong.toml"]);
        assert!(said.code == 3 && said.err.contains(name) && !said.err.contains(KEY), "{said:?}");
    }
    // What cannot be read is moved as it is, and told.
    fs::write(place.path().join("wrong"), KEY).unwrap();
    let wrong = |args: &[&str]| store(&place, &[args, &["--key-file", "wrong"]].concat());
    for args in [
        ["import", "sealed.jsonl", "--store", "redb:moved"],
        ["migrate", "redb:moved", "file:again", "--replace"],
    ] {
        let said = wrong(&args);
        assert!(said.code == 10 && said.out.starts_with("0 tasks"), "{said:?}");
        assert!(said.err.contains("4 records cannot be read; they were written as they are"), "{said:?}");
        assert!(said.err.contains("callboard store check"), "{said:?}");
    }
    let right = ["check", "--store", "file:again", "--key-file", "right"];
    fs::write(place.path().join("right"), OTHER_KEY).unwrap();
    assert_eq!(ok(&place, &right), "2 tasks and 0 run records can be read\n");
    let key_file = ["--key-file", "right"];
    fs::write(place.path().join("right"), OTHER_KEY).unwrap();
    ok(&place, &[&["check", "--store", "redb:data/store-redb"], key_file.as_slice()].concat());
    fs::write(&keys, "rubbish").unwrap();
    fails(&place, &[&["check"], config.as_slice()].concat(), 3, "key 1 is not valid");
    fs::write(&keys, OTHER_KEY).unwrap();
    let service = place.serve(&[]);
    assert_eq!(place.json(&["list"]).as_array().unwrap().len(), 2);
    service.stop();
}

#[test]
fn exports_are_taken_while_the_service_runs() {
    let place = Place::new();
    place.config(&format!(
        "[store.default]\ntype = 'sled'\nexports = {{ every = '1s', keep = 2, dir = 'backups' }}\n{TASKS}"
    ));
    let service = place.serve(&[]);
    let dir = place.data().join("backups");
    let begin = std::time::Instant::now();
    let complete = || {
        let files = fs::read_dir(&dir).into_iter().flatten().map(|entry| entry.unwrap().path());
        // One that is being written has another name.
        let files = files.filter(|path| path.extension().is_some_and(|kind| kind == "jsonl"));
        files.filter(|path| fs::read_to_string(path).unwrap_or_default().contains("\"tasks\":2")).max()
    };
    while complete().is_none() {
        assert!(begin.elapsed() < super::PATIENCE);
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    service.stop();
    // That one may have gone while the service ended: only the last two are kept.
    let latest = complete().unwrap();
    let said = ok(&place, &["import", latest.to_str().unwrap(), "--replace"]);
    assert!(said.starts_with("2 tasks and"), "{said}");
}
