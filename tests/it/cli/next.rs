use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use super::{Place, drain, wait};

#[test]
fn run_times_are_printed_with_offset_and_distance() {
    let place = Place::new();
    let said = place.run(&[
        "next",
        "30 2 * * *",
        "--timezone",
        "Europe/Berlin",
        "--after",
        "2090-03-25T12:00:00",
        "--count",
        "2",
    ]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.starts_with("at 02:30 every day, Europe/Berlin\n"), "{said:?}");
    assert!(said.out.contains("\nwarning: 02:30 does not exist on 2090-03-26"), "{said:?}");
    assert!(said.out.contains("Sun 2090-03-26 03:00:00 +02:00  in "), "{said:?}");
    assert!(said.out.contains("Mon 2090-03-27 02:30:00 +02:00"), "{said:?}");
}

#[test]
fn a_trigger_can_be_json_and_so_can_the_answer() {
    let place = Place::new();
    let trigger = r#"{"type":"interval","days":1,"start_at":"2026-03-28T09:00:00"}"#;
    let answer = place.json(&[
        "next",
        trigger,
        "--timezone",
        "Europe/Berlin",
        "--after",
        "2026-03-28",
        "--count",
        "2",
    ]);
    assert_eq!(answer["next"], json!(["2026-03-28T09:00:00+01:00", "2026-03-29T10:00:00+02:00"]));
    assert_eq!((&answer["timezone"], &answer["exhausted"]), (&json!("Europe/Berlin"), &json!(false)));
    let once = place.run(&["next", r#"{"type":"date","run_at":"2090-01-01T00:00:00Z"}"#]);
    assert!(once.out.ends_with("and no more\n"), "{once:?}");
}

#[test]
fn what_is_no_trigger_or_never_fires_is_refused() {
    let place = Place::new();
    for (args, message) in [
        (&["next", "0 0 31 2 *"][..], "never fires"),
        (&["next", "61 * * * *"], "minute"),
        (&["next", "hello"], "hello"),
        (&["next", "{\"type\":\"nosuch\"}"], "nosuch"),
        (&["next", "{"], "trigger"),
        (&["next", "0 0 * * *", "--after", "soon"], "--after: \"soon\" is no time"),
    ] {
        let said = place.run(args);
        assert_eq!(said.code, 3, "{said:?}");
        assert!(said.err.contains(message), "{message}: {said:?}");
    }
    for args in [
        &["next"][..],
        &["next", "0 0 * * *", "--timezone", "Nowhere"],
        &["next", "0 0 * * *", "--count", "0"],
        &["next", "--jsonl", "--count", "3"],
    ] {
        assert_eq!(place.run(args).code, 2, "{args:?}");
    }
}

/// What `next --jsonl` answers to these lines.
fn answers(lines: &[u8]) -> Vec<Value> {
    let mut child = Place::new()
        .command(&["next", "--jsonl"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let out = drain(child.stdout.take().unwrap());
    child.stdin.take().unwrap().write_all(lines).unwrap();
    assert!(wait(&mut child).success());
    out.join().unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn lines_are_answered_whatever_they_are() {
    let good = r#"{"id":"x","trigger":{"type":"crontab","expression":"0 9 * * 1"},"timezone":"UTC","after":"2026-01-01T00:00:00Z","count":1}"#;
    let mut lines = format!("{good}\nhello\n{{}}\n\n5\n{good}").into_bytes();
    lines.extend(b"\n\xff\xfe\n");
    let answers = answers(&lines);
    assert_eq!(answers.len(), 6, "{answers:#?}");
    let expected = json!({ "id": "x", "got": ["2026-01-05T09:00:00+00:00"], "exhausted": false });
    assert_eq!((&answers[0], &answers[4]), (&expected, &expected));
    assert!([1, 2, 3, 5].into_iter().all(|at| answers[at]["error"].is_string()), "{answers:#?}");
}

#[test]
fn the_tables_are_answered_as_they_say() {
    let tables = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tables");
    let mut lines = String::new();
    for entry in fs::read_dir(&tables).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            lines += &fs::read_to_string(path).unwrap();
        }
    }
    let questions: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let answers = answers(lines.as_bytes());
    assert_eq!(answers.len(), questions.len());
    for (question, answer) in questions.iter().zip(&answers) {
        assert_eq!(answer["id"], question["id"]);
        match question["error"] == true {
            true => assert!(answer["error"].is_string(), "{question}\n{answer}"),
            false => {
                assert_eq!(answer["got"], question["expect"], "{question}");
                assert_eq!(answer["exhausted"], question["exhausted"], "{question}");
            }
        }
    }
}
