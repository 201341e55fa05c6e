//! Every example runs, ends by itself, and says what its header promises.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Where cargo puts examples: beside the program. A run that built only this test has not built
/// them.
fn built(name: &str) -> PathBuf {
    static BUILD: OnceLock<()> = OnceLock::new();
    let target = Path::new(env!("CARGO_BIN_EXE_callboard")).parent().unwrap();
    let path = target.join("examples").join(name);
    if !path.exists() {
        BUILD.get_or_init(|| {
            let status = Command::new(env!("CARGO"))
                .args(["build", "--examples", "--all-features", "--target-dir"])
                .arg(target.parent().unwrap())
                .current_dir(env!("CARGO_MANIFEST_DIR"))
                .status()
                .unwrap();
            assert!(status.success());
        });
    }
    path
}

fn run(name: &str) -> String {
    let output = Command::new(built(name)).env("RUST_BACKTRACE", "0").output().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{name}: {out}{}", String::from_utf8_lossy(&output.stderr));
    out
}

/// Whether these texts stand in `text` one after the other.
fn in_order(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => panic!("no {part:?}, or too early:\n{text}"),
        }
    }
}

#[test]
fn hello() {
    let out = run("hello");
    assert!(out.matches("hello, world").count() >= 3, "{out}");
    in_order(&out, &["hello, world", "runs so far"]);
}

#[test]
fn supervised_actor() {
    let out = run("supervised_actor");
    let round = [
        "a clerk is at work",
        "another comes in 20ms",
        "it panicked",
        "another comes in 40ms",
        "no more clerks",
        "limit",
        "6 letters delivered",
    ];
    in_order(&out, &[&round[..], &["2 restarts", "somebody asked"], &round[..], &["4 restarts"]].concat());
}

#[test]
fn actix_web() {
    in_order(&run("actix_web"), &["answer: HTTP/1.1 201 Created", "reminder: tea", "stopped"]);
}

#[test]
fn control_by_messages() {
    let out = run("control_by_messages");
    in_order(
        &out,
        &["run 3 of `work`", "paused: true; now one by hand", "run 4 of `work` has ended (Manual)"],
    );
}

#[test]
fn watch_events() {
    let out = run("watch_events");
    in_order(
        &out,
        &[
            "works   added",
            "works   executed",
            "panics  removed",
            "task_modified",
            "no more events; 0 were lost",
        ],
    );
    assert!(out.contains("fails   failed    No such file or directory"), "{out}");
    assert!(out.contains("panics  panicked"), "{out}");
}

#[test]
fn custom_executor() {
    in_order(
        &run("custom_executor"),
        &["first begins", "first ends", "second begins", "second ends", "third begins", "third ends"],
    );
}

#[test]
fn custom_store() {
    in_order(&run("custom_store"), &["the file has ", "found `monthly`, ", "paused: true"]);
}

#[test]
fn process_pool() {
    let out = run("process_pool");
    for line in [
        "square: 144",
        "crash: failed, its worker process was killed by signal 6 (SIGABRT)",
        "greet: null",
        "sleep: timed_out, took longer than 500 ms",
    ] {
        assert!(out.contains(line), "{line}: {out}");
    }
    assert!(!out.contains("hello"), "what a worker prints is an event of tracing: {out}");
}

#[test]
fn declared_tasks() {
    let out = run("declared_tasks");
    for line in ["greet runs ", "sweep runs ", "disk runs ", "morning: good morning"] {
        assert!(out.contains(line), "{out}");
    }
    in_order(&out, &["sweep: done", "sweep: done", "5 tasks now"]);
}

#[test]
fn messages() {
    in_order(
        &run("messages"),
        &[
            "executed: \"invoice 1 to Ada\"",
            "failed: Ada has moved",
            "interrupted: the actor that got `send_invoice` ended",
            "executed: \"invoice 1 to Ada\"",
        ],
    );
}

#[test]
fn lifecycle() {
    in_order(
        &run("lifecycle"),
        &[
            "set-up: the log is open",
            "tick: line 1",
            "tick: line 3",
            "log has run ",
            "clean-up: closed after ",
        ],
    );
}

#[test]
fn periodic() {
    in_order(
        &run("periodic"),
        &[
            "greet: hello",
            "twice: enabled, next run ",
            "twice: disabled after 2 of 2 runs",
            "there is no `account` with the key 8",
        ],
    );
}

#[test]
fn every_example_has_a_test_and_a_header() {
    let this = include_str!("examples.rs");
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    for entry in std::fs::read_dir(examples).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.file_stem().unwrap().to_str().unwrap();
            let header = std::fs::read_to_string(&path).unwrap();
            assert!(header.starts_with("//! ") && header.contains(&format!("--example {name}")), "{name}");
            // Those that answer questions or measure for minutes are run elsewhere.
            let elsewhere = ["vectors", "load"].contains(&name);
            assert!(elsewhere || this.contains(&format!("fn {name}()")), "{name} has no test here");
        }
    }
}
