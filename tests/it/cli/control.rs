use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use super::Place;

/// Runs a command that must succeed and returns what it says.
fn said(place: &Place, args: &[&str]) -> String {
    let said = place.run(args);
    assert_eq!((said.code, &*said.err), (0, ""), "{args:?}: {said:?}");
    said.out
}

#[test]
fn a_task_is_added_paused_resumed_run_and_removed() {
    let place = Place::new();
    let service = place.serve(&[]);
    assert_eq!(said(&place, &["list"]), "no tasks\n");
    let added = said(
        &place,
        &["add", "--id", "a", "--cron", "0 3 1 1 *", "--shell", "echo hi", "--timezone", "Europe/Lisbon"],
    );
    assert!(
        added.starts_with("a added; it runs next on ") && added.contains("-01-01 03:00:00 +00:00 (in "),
        "{added}"
    );
    let paused = said(&place, &["pause", "a"]);
    assert_eq!(paused, "a paused\n");
    let list = said(&place, &["list"]);
    assert!(list.contains("ID") && list.contains("paused"), "{list}");
    assert!(said(&place, &["list", "--state", "scheduled"]).contains("no tasks"));
    assert!(said(&place, &["resume", "a"]).starts_with("a resumed; it runs next on "));
    assert!(said(&place, &["run", "a"]).starts_with("a runs now, as run "));
    service.line_with(&["a", "executed", "hi"]);
    place.until(&["inspect", "a"], |answer| answer["runs"][0]["end"]["outcome"] == "executed");
    let inspected = said(&place, &["inspect", "a"]);
    for part in
        ["handler        shell", "misfire grace  unlimited", "next runs", "latest runs", "executed", "hi"]
    {
        assert!(inspected.contains(part), "{part}:\n{inspected}");
    }
    assert_eq!(inspected.matches("-01-01 03:00:00").count(), 5, "{inspected}");
    assert_eq!(said(&place, &["remove", "a"]), "a removed\n");
    let odd = [
        "add",
        "--id",
        "a",
        "--replace",
        "--cron",
        "30 2 * * *",
        "--shell",
        "true",
        "--timezone",
        "Europe/Berlin",
    ];
    assert!(said(&place, &odd).contains("\nwarning: 02:30 "));
    assert!(said(&place, &["inspect", "a"]).contains("\nwarning: 02:30 "));
    place.run(&["remove", "a"]);
    assert_eq!(said(&place, &["list"]), "no tasks\n");
    service.stop();
}

#[test]
fn every_answer_can_be_json() {
    let place = Place::new();
    let service = place.serve(&[]);
    let added = place.json(&[
        "add",
        "--id",
        "a",
        "--every",
        "1h30m",
        "--http",
        "POST",
        "http://127.0.0.1:9/",
        "--header",
        "X-A: b",
        "--body",
        "text",
        "--timeout",
        "2s",
        "--name",
        "Label",
        "--max-instances",
        "3",
        "--misfire-grace",
        "1m",
        "--paused",
    ]);
    let task = &added["task"];
    assert_eq!(task["id"], "a");
    assert_eq!(task["name"], "Label");
    assert_eq!(task["paused"], true);
    assert_eq!(task["max_instances"], 3);
    assert_eq!(task["misfire_grace"], 60_000);
    assert_eq!(task["trigger"]["type"], "interval");
    assert_eq!(task["args"]["headers"], json!({ "X-A": "b" }));
    assert_eq!(place.json(&["list"])[0]["id"], "a");
    assert_eq!(place.json(&["list", "nothing like it"]), json!([]));
    assert_eq!(place.json(&["resume", "a"])["task"]["paused"], false);
    assert_eq!(place.json(&["pause", "a"])["task"]["paused"], true);
    assert!(place.json(&["run", "a"])["run"].is_string());
    let inspected = place.json(&["inspect", "a"]);
    assert_eq!(inspected["next"].as_array().unwrap().len(), 5);
    assert_eq!(place.json(&["remove", "a"])["id"], "a");
    let handler = place.json(&[
        "add",
        "--at",
        "2090-01-01T00:00:00",
        "--handler",
        "shell",
        "--args",
        r#"{"command":"true"}"#,
    ]);
    assert_eq!(handler["task"]["id"].as_str().unwrap().len(), 36, "an id is made up");
    service.stop();
}

#[test]
fn what_cannot_be_done_has_a_reason_and_a_code() {
    let place = Place::new();
    let service = place.serve(&[]);
    let add = ["add", "--id", "a", "--every", "1h", "--shell", "sleep 600"];
    place.json(&add);
    let cases: [(&[&str], i32, &str); 6] = [
        (&["pause", "nosuch"], 7, "there is no task `nosuch`"),
        (&["inspect", "nosuch"], 7, "there is no task `nosuch`"),
        (&["remove", "nosuch"], 7, "there is no task `nosuch`"),
        (&["run", "nosuch"], 7, "there is no task `nosuch`"),
        (&add, 8, "a task `a` exists already"),
        (
            &["add", "--id", "b", "--every", "1h", "--shell", "true", "--executor", "fast"],
            3,
            "no executor is called `fast`",
        ),
    ];
    for (args, code, message) in cases {
        let said = place.run(args);
        assert_eq!(said.code, code, "{said:?}");
        assert!(said.err.contains(message) && said.out.is_empty(), "{said:?}");
    }
    place.until(&["inspect", "a"], |answer| answer["task"]["running"] == 1);
    let said = place.run(&["run", "a"]);
    assert_eq!(said.code, 8, "{said:?}");
    assert!(said.err.contains("max_instances"), "{said:?}");
    place.json(&["add", "--id", "a", "--every", "2h", "--shell", "true", "--replace"]);
    drop(service);
}

#[test]
fn without_a_service_every_command_says_so() {
    let place = Place::new();
    let commands: [&[&str]; 7] = [
        &["list"],
        &["inspect", "a"],
        &["pause", "a"],
        &["resume", "a"],
        &["remove", "a"],
        &["run", "a"],
        &["add", "--every", "5s", "--shell", "true"],
    ];
    let refused = |place: &Place| {
        for args in commands {
            let said = place.run(args);
            assert_eq!(said.code, 4, "{said:?}");
            assert!(said.err.contains("no service runs on the data directory data"), "{said:?}");
            assert!(said.err.contains("callboard serve --data data"), "{said:?}");
        }
    };
    refused(&place);
    // A dead service leaves its socket behind; that is no service, and no obstacle for the next.
    place.serve(&[]).kill();
    assert!(place.data().join("callboard.sock").exists());
    refused(&place);
    let service = place.serve(&[]);
    assert_eq!(said(&place, &["list"]), "no tasks\n");
    service.stop();
    assert!(!place.data().join("callboard.sock").exists());
}

#[test]
fn the_socket_belongs_to_its_owner() {
    let place = Place::new();
    let service = place.serve(&[]);
    let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(place.data()), 0o700);
    assert_eq!(mode(place.data().join("callboard.sock")), 0o600);
    service.stop();
}

#[test]
fn whatever_is_written_to_the_socket_it_goes_on() {
    let place = Place::new();
    let service = place.serve(&[]);
    let socket = place.data().join("callboard.sock");
    let ask = |bytes: &[u8]| -> Value {
        let mut stream = UnixStream::connect(&socket).unwrap();
        // The service may hang up before it has read all of it.
        let _ = stream.write_all(bytes);
        let mut line = String::new();
        let _ = BufReader::new(stream).read_line(&mut line);
        serde_json::from_str(&line).unwrap_or(Value::Null)
    };
    for nonsense in [
        &b"hello\n"[..],
        b"\n",
        b"\xff\xfe\n",
        b"[]\n",
        b"{\"v\":1,\"do\":\"dance\"}\n",
        b"{\"v\":99,\"do\":\"list\"}\n",
    ] {
        let reply = ask(nonsense);
        assert_eq!((&reply["v"], &reply["error"]["kind"]), (&json!(1), &json!("usage")), "{reply}");
    }
    assert_eq!(ask(b"{\"v\":1,\"do\":\"pause\",\"id\":\"x\"}\n")["error"]["kind"], "not_found");
    assert_eq!(ask(b"{\"v\":1,\"do\":\"pause\",\"id\":\"\"}\n")["error"]["kind"], "invalid");
    // Numbers that nobody should have to work off.
    for limit in ["4000000000", "10001", "0"] {
        let request = format!(
            "{{\"v\":1,\"do\":\"why\",\"id\":\"x\",\"from\":\"0001-01-01T00:00:00Z\",\
             \"to\":\"9999-12-31T00:00:00Z\",\"limit\":{limit}}}\n"
        );
        let error = &ask(request.as_bytes())["error"];
        let told = error["message"].as_str().unwrap();
        assert!(error["kind"] == "invalid" && told.contains("from 1 to 10000"), "{told}");
    }
    let long = vec![b'x'; 300 * 1024];
    let reply = ask(&long);
    assert!(
        reply.is_null() || reply["error"]["message"].as_str().unwrap().contains("bytes long at most"),
        "{reply}"
    );
    // Many requests on one connection, and one that hangs up in the middle of a line.
    let mut stream = UnixStream::connect(&socket).unwrap();
    stream.write_all(b"{\"v\":1,\"do\":\"list\"}\n{\"v\":1,\"do\":\"list\"}\n{\"v\":1").unwrap();
    let mut lines = BufReader::new(&stream).lines();
    for _ in 0..2 {
        let reply: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(
            (&reply["v"], &reply["ok"]),
            (&json!(1), &json!({ "tasks": [], "unasked": [] })),
            "{reply}"
        );
        assert!(reply["rules"]["source"].is_string() && reply["rules"]["digest"].is_string(), "{reply}");
    }
    drop(stream);
    assert_eq!(said(&place, &["list"]), "no tasks\n");
    service.stop();
}

#[test]
fn why_says_what_became_of_each_run_time() {
    let place = Place::new();
    let service = place.serve(&[]);
    said(&place, &["add", "--id", "a", "--cron", "0 3 1 1 *", "--shell", "exit 3"]);
    let line = said(&place, &["why", "a"]);
    assert!(line.contains("-01-01 03:00:00 +00:00  waiting  not due yet; it is due at "), "{line}");
    said(&place, &["run", "a"]);
    let answer = place.until(&["why", "a"], |answer| answer["times"][0]["fate"] == "failed");
    assert_eq!(answer["times"][0]["run"]["source"], "manual");
    let lines = said(&place, &["why", "a"]);
    assert!(lines.contains("failed   run by hand: failed: "), "{lines}");
    let past = ["why", "a", "--from", "2020-01-01", "--to", "2021-12-31T00:00"];
    let lines = said(&place, &past);
    assert_eq!(lines.matches("outside  before the task was added, at ").count(), 2, "{lines}");
    let page = said(&place, &[&past[..], &["--limit", "1"]].concat());
    assert!(page.ends_with("there are more; go on with --from 2021-01-01T03:00:00Z\n"), "{page}");
    said(&place, &["remove", "a"]);
    assert!(said(&place, &["why", "a"]).contains("run by hand"), "its records stay");
    for (args, code, words) in [
        (&["why", "nobody"][..], 7, "nobody"),
        (&["why", "a", "--from", "tomorrow"], 3, "--from"),
        (&["why", "a", "--from", "2021-01-01", "--to", "2020-01-01"], 3, "--from is later than --to"),
    ] {
        let said = place.run(args);
        assert!(said.code == code && said.err.contains(words), "{args:?}: {said:?}");
    }
    service.stop();
}

#[test]
fn a_run_is_cancelled_and_a_past_window_is_filled() {
    let place = Place::new();
    let service = place.serve(&[]);
    place.json(&["add", "--id", "slow", "--cron", "0 3 1 1 *", "--shell", "sleep 600"]);
    let run = place.json(&["run", "slow"])["run"].as_str().unwrap().to_owned();
    assert!(said(&place, &["inspect", "slow"]).contains(&run), "the run that goes on can be found");
    assert_eq!(said(&place, &["cancel", &run]), format!("run {run} was asked to stop\n"));
    place.until(&["inspect", "slow"], |answer| answer["runs"][0]["end"]["outcome"] == "cancelled");
    let again = place.run(&["cancel", &run]);
    assert!(again.code == 7 && again.err.contains("is not going on"), "{again:?}");
    assert_eq!(place.run(&["cancel", "the last one"]).code, 3);

    place.json(&["add", "--id", "past", "--cron", "0 * * * *", "--shell", "true"]);
    let window =
        ["backfill", "past", "--from", "2026-01-01", "--to", "2026-01-01T03:00", "--timezone", "UTC"];
    let filled = said(&place, &[&window[..], &["--every", "50ms"]].concat());
    assert!(
        filled.starts_with("past is being back-filled, beginning with the run of Thu 2026-01-01 00:00:00")
    );
    place.until(&["inspect", "past"], |answer| {
        answer["task"]["runs"] == 3 && answer["task"]["backfill"].is_null()
    });
    let long = [&window[..], &["--every", "1h"]].concat();
    said(&place, &long);
    assert!(said(&place, &["inspect", "past"]).contains("back-fill"));
    let second = place.run(&long);
    assert!(second.code == 8 && second.err.contains("being back-filled already"), "{second:?}");
    assert_eq!(said(&place, &["backfill", "past", "--cancel"]), "the back-fill of past was called off\n");
    assert_eq!(place.run(&["backfill", "past", "--cancel"]).code, 8);
    assert_eq!(place.run(&["backfill", "past", "--from", "soon", "--to", "2026-01-02"]).code, 3);
    assert_eq!(place.run(&["backfill", "past", "--from", "2026-01-01"]).code, 2);
    service.stop();
}
