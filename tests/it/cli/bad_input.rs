use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::Place;

/// Starts a service that must refuse to start.
fn refused(place: &Place, code: i32, messages: &[&str]) {
    let said = place.run(&["serve", "--config", "callboard.toml"]);
    assert_eq!(said.code, code, "{said:?}");
    for message in messages {
        assert!(said.err.contains(message), "{message}: {}", said.err);
    }
    assert!(!said.err.contains("panicked"), "{}", said.err);
}

#[test]
fn a_configuration_is_refused_with_every_problem_and_its_line() {
    let place = Place::new();
    let long = "x".repeat(256);
    let config = [
        "[scheduler]",
        "timezon = 'UTC'",
        "[task.a]",
        "every = '5s'",
        "handler = 'nosuch'",
        "[task.b]",
        "cron = '0 0 31 2 *'",
        "shell = 'true'",
        "[task.c]",
        "trigger = { type = 'interval', seconds = 5, start_at = '2027-01-02', end_at = '2027-01-01' }",
        "shell = 'true'",
        "[task.\"\"]",
        "every = '5s'",
        "shell = 'true'",
        &format!("[task.{long}]"),
        "every = '5s'",
        "shell = 'true'",
    ];
    place.config(&config.join("\n"));
    refused(
        &place,
        3,
        &[
            "callboard.toml:2: scheduler.timezon: unknown key; valid here are name, timezones, timezone, grace, store_retry",
            "callboard.toml:6: task.b: the trigger never fires",
            "callboard.toml:10: task.c.trigger: ",
            "callboard.toml:12: task.\"\": id is empty",
            "callboard.toml:15: task.xxx",
            "id is 256 bytes long; the longest allowed is 255",
        ],
    );
    assert!(!place.data().exists(), "a configuration that is refused touches nothing");
}

#[test]
fn handlers_and_arguments_are_checked_before_the_start() {
    let place = Place::new();
    place.config(
        "[task.a]\nevery = '5s'\nshell = { command = 'x', timeout = 5 }\n[task.b]\nevery = '5s'\nshell = { comand = 'x' }\n\
         [task.c]\nevery = '5s'\nhttp = 'localhost'\n",
    );
    refused(
        &place,
        3,
        &[
            "callboard.toml:1: task.a: shell: a length of time must be text with a unit",
            "callboard.toml:4: task.b: shell: unknown field `comand`, expected one of `command`, `cwd`",
            "callboard.toml:7: task.c: http: url \"localhost\" is none",
        ],
    );
}

#[test]
fn a_file_that_is_not_there_or_no_toml_is_named() {
    let place = Place::new();
    refused(&place, 3, &["callboard.toml: cannot be read: No such file"]);
    place.config("[task.a\nevery = ");
    refused(&place, 3, &["callboard.toml:1: this is no TOML"]);
}

#[test]
fn what_add_is_given_is_checked() {
    let place = Place::new();
    let service = place.serve(&[]);
    let long = "x".repeat(256);
    let cases: [(&[&str], &str); 13] = [
        (&["--id", "", "--every", "5s", "--shell", "true"], "id is empty"),
        (&["--id", &long, "--every", "5s", "--shell", "true"], "256 bytes long"),
        (&["--id", "a\nb", "--every", "5s", "--shell", "true"], "control character"),
        (&["--every", "5", "--shell", "true"], "no unit"),
        (&["--every", "0s", "--shell", "true"], "every"),
        (&["--cron", "0 0 31 2 *", "--shell", "true"], "never fires"),
        (&["--cron", "* * *", "--shell", "true"], "cron"),
        (&["--at", "2001-01-01", "--shell", "true"], "never fires"),
        (&["--at", "soon", "--shell", "true"], "soon"),
        (&["--every", "5s", "--handler", "nosuch"], "there is no handler \"nosuch\"; there are: http, shell"),
        (&["--every", "5s", "--handler", "shell", "--args", "{\"command\": 5}"], "expected a string"),
        (&["--every", "5s", "--handler", "shell", "--args", "{"], "--args: \"{\" is no JSON"),
        (&["--every", "5s", "--http", "GET", "ftp://x/"], "--http: url"),
    ];
    for (args, message) in cases {
        let said = place.run(&[&["add"], args].concat());
        assert_eq!(said.code, 3, "{said:?}");
        assert!(said.err.contains(message), "{message}: {said:?}");
    }
    let usage: [&[&str]; 5] = [
        &["add", "--shell", "true"],
        &["add", "--every", "5s"],
        &["add", "--every", "5s", "--at", "2027-01-01", "--shell", "true"],
        &["add", "--every", "5s", "--shell", "true", "--args", "{}"],
        &["dance"],
    ];
    for args in usage {
        assert_eq!(place.run(args).code, 2, "{args:?}");
    }
    assert_eq!(place.json(&["list"]), serde_json::json!([]), "nothing was added");
    service.stop();
}

#[test]
fn a_second_service_on_the_same_data_is_refused() {
    let place = Place::new();
    let service = place.serve(&[]);
    let said = place.run(&["serve"]);
    assert_eq!(said.code, 5, "{said:?}");
    let pid = service.child.id().to_string();
    assert!(
        said.err.contains(&format!("another service (process {pid}) runs on the data directory data")),
        "{said:?}"
    );
    // The first one is none the worse for it.
    assert_eq!(place.json(&["list"]), serde_json::json!([]));
    service.stop();
}

#[test]
fn a_path_too_long_for_a_socket_is_explained() {
    let place = Place::new();
    let long = "d".repeat(120);
    for args in [["serve", "--data", &long], ["list", "--data", &long]] {
        let said = place.run(&args);
        assert_eq!(said.code, 3, "{said:?}");
        assert!(said.err.contains("choose a shorter --data directory"), "{said:?}");
    }
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let place = Place::new();
    fs::write(place.path().join("data"), "a file").unwrap();
    let said = place.run(&["serve"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("cannot make the data directory data"), "{said:?}");
}

#[test]
fn others_who_can_look_inside_are_a_warning() {
    let place = Place::new();
    fs::create_dir(place.data()).unwrap();
    fs::set_permissions(place.data(), fs::Permissions::from_mode(0o755)).unwrap();
    let service = place.spawn(&[]);
    service.line("others can look into the data directory data (mode 755)");
    service.line("running");
    service.stop();
}

/// All files below a directory, with their contents.
fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

#[test]
fn a_damaged_store_is_refused_and_left_as_it_is() {
    for damage in ["garbage", "truncated", "empty"] {
        let place = Place::new();
        place.config("[task.a]\nevery = '100ms'\nshell = 'true'\n");
        let service = place.serve(&[]);
        service.line_with(&["a", "executed"]);
        service.stop();
        let store = place.data().join("store");
        let victim = store.join("db");
        let mut bytes = fs::read(&victim).unwrap();
        assert!(bytes.len() > 100);
        match damage {
            "garbage" => bytes.iter_mut().for_each(|byte| *byte ^= 0x5a),
            "truncated" => bytes.truncate(bytes.len() / 3),
            _ => bytes.clear(),
        }
        fs::write(&victim, &bytes).unwrap();
        let before = files(&store);
        let said = place.run(&["serve", "--config", "callboard.toml"]);
        assert_eq!(said.code, 6, "{damage}: {said:?}");
        assert!(said.err.contains("Nothing was deleted"), "{damage}: {said:?}");
        assert!(said.err.contains("data/store"), "{damage}: {said:?}");
        assert_eq!(files(&store), before, "{damage}: what was there is there");
    }
}
