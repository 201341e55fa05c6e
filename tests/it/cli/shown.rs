//! What is shown: nothing that a terminal would obey, and no secrets.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use serde_json::Value;

use super::{Place, Said};

const SECRET: &str = "hunter2";

/// Whether a terminal would obey something in it.
fn obeyed(text: &str) -> bool {
    text.contains(|c: char| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{feff}')
    })
}

fn check(said: &Said) {
    for text in [&said.out, &said.err] {
        assert!(!obeyed(text), "{text:?}");
        assert!(!text.contains(SECRET), "{text}");
    }
}

#[test]
fn names_outputs_and_errors_are_only_shown() {
    let place = Place::new();
    let log = place.path().join("log");
    let service = place.spawn_after(&format!("exec 2>{}", log.display()), |command| {
        command.env("CALLBOARD_LOG", "debug");
    });
    service.line("running");
    let bad = "a\r\u{1b}[2J\u{9b}31m\u{202e}\u{2028}z";
    let print = "printf 'x\\r\\033[2J\\302\\2331m\\342\\200\\256\\342\\200\\250z'";
    place.json(&["add", "--id", "good", "--cron", "0 3 1 1 *", "--shell", print, "--name", bad]);
    let fails = format!("{print} >&2; exit 3");
    place.json(&["add", "--id", "fails", "--cron", "0 3 1 1 *", "--shell", &fails]);
    place.json(&["add", "--id", "lost", "--cron", "0 3 1 1 *", "--shell", "true", "--cwd", bad]);
    for id in ["good", "fails", "lost"] {
        place.json(&["run", id]);
        assert!(!obeyed(&service.line_with(&[id, "took"])));
        place.until(&["inspect", id], |answer| !answer["runs"][0]["end"].is_null());
        for args in [&["inspect", id][..], &["why", id], &["inspect", id, "--json"], &["why", id, "--json"]] {
            check(&place.run(args));
        }
    }
    let inspected = place.run(&["inspect", "good"]);
    assert!(inspected.out.contains(r"a\r\u{1b}[2J\u{9b}31m\u{202e}\u{2028}z"), "{inspected:?}");
    assert_eq!(place.json(&["inspect", "good"])["task"]["name"], bad, "as JSON it is what it is");
    for args in [&["list"][..], &["list", "--json"], &["list", bad], &["inspect", bad], &["next", bad]] {
        check(&place.run(args));
    }
    assert!(!obeyed(&service.stop()));
    let log = fs::read_to_string(log).unwrap();
    assert!(!obeyed(&log) && log.contains("fails"), "{log:?}");
}

#[test]
fn arguments_that_are_refused_are_only_shown() {
    const BAD: &str = "a\r\u{1b}[2J\u{9b}31m\u{202e}\nz token=hunter2";
    let place = Place::new();
    let commands = "serve next store version list inspect why pause resume reschedule remove run cancel backfill add \
                    bogus help";
    let options = "--config --data --grace --store --key-file --timezone --after --id --count --state --sort --from --to \
                   --every --limit --next-run --cron --at --trigger --shell --http --handler --args --cwd --env --header \
                   --timeout --kill-after --redirects --max-instances --misfire-grace --executor --json";
    let (bad_option, value) = (format!("--{BAD}"), format!("x{BAD}"));
    for command in commands.split_whitespace() {
        // A word too many, an option that is none, one with another word behind it, one without a task.
        for args in
            [&[command, BAD, BAD][..], &[command, &bad_option], &[command, "--json", BAD], &[command, BAD]]
        {
            let said = place.run(args);
            check(&said);
            assert_ne!(said.code, 0, "{args:?}: {said:?}");
        }
        for option in options.split_whitespace() {
            let option = option.strip_suffix('=').unwrap_or(option);
            for args in
                [&[command, &format!("{option}={value}")][..], &[command, "x", option, &value, option]]
            {
                let said = place.run(args);
                check(&said);
                assert_ne!(said.code, 0, "{args:?}: {said:?}");
            }
        }
    }
    // Named as it was given, with the escapes that stand for it.
    let said = place.run(&["next", "@daily", "--timezone", BAD]);
    assert!(said.code == 2 && said.err.contains(r"a\r\u{1b}[2J\u{9b}31m\u{202e}\nz token=***"), "{said:?}");
    // No id as it was given, and one as it is shown.
    let said = place.run(&["next", "@daily", "--id", "a\u{1b}"]);
    assert!(
        said.code == 2 && said.err.contains(r"'a\u{1b}'") && said.err.contains("control character"),
        "{said:?}"
    );
    // What is no text at all.
    let mut command = place.command(&["next", "@daily", "--id"]);
    command.arg(OsStr::from_bytes(b"a\xff\x1b"));
    let output = command.output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && !obeyed(&err) && err.contains("UTF-8"), "{err:?}");
}

#[test]
fn secrets_are_masked_wherever_they_are_shown() {
    let place = Place::new();
    let log = place.path().join("log");
    for json in [false, true] {
        let service = place.spawn_by(|place| {
            let mut command = place.serve_command(if json { &["--json"] } else { &[] });
            command.env("CALLBOARD_LOG", "trace");
            command
        });
        service.line(if json { "service_started" } else { "running" });
        let url = format!("http://ann:{SECRET}@127.0.0.1:1/a?token={SECRET}&n=1");
        let header = format!("Authorization: Bearer {SECRET}");
        let http = [
            "--http",
            "GET",
            &url,
            "--header",
            &header,
            "--header",
            "X-Api-Key: hunter2",
            "--header",
            "N: 1",
        ];
        let print = "echo \"Set-Cookie: $COOKIE\"; echo $N; PASSWORD=hunter2 curl -H 'X-Auth-Token: hunter2' x >/dev/null 2>&1; echo \"token=$COOKIE\" >&2; false";
        let env = ["--env", "COOKIE=hunter2", "--env", "DB_PASSWORD=hunter2", "--env", "N=5"];
        let add = ["add", "--cron", "0 3 1 1 *", "--replace", "--id"];
        let added = place.run(&[&add[..], &["web"], &http[..], &["--json"]].concat());
        assert_eq!(added.code, 0, "{added:?}");
        check(&added);
        check(&place.run(&[&add[..], &["sh", "--shell", print], &env[..], &["--json"]].concat()));
        let bad_url = format!("ftp://ann:{SECRET}@x/");
        let refused = place.run(&[&add[..], &["bad", "--http", "GET", &bad_url]].concat());
        assert_eq!(refused.code, 3, "{refused:?}");
        check(&refused);
        for id in ["web", "sh"] {
            place.json(&["run", id]);
            let line = service.line_with(&[id, if json { "task_error" } else { "failed  " }]);
            assert!(!line.contains(SECRET), "{line}");
            for args in [&["inspect", id][..], &["why", id], &["pause", id], &["resume", id]] {
                check(&place.run(args));
                check(&place.run(&[args, &["--json"]].concat()));
            }
        }
        check(&place.run(&["list"]));
        check(&place.run(&["list", "--json"]));
        let inspected = place.json(&["inspect", "web"]);
        let args = &inspected["task"]["args"];
        assert_eq!(
            args["headers"],
            serde_json::json!({ "Authorization": "***", "X-Api-Key": "***", "N": "1" })
        );
        assert_eq!(args["url"], "http://ann:***@127.0.0.1:1/a?token=***&n=1");
        assert_eq!(place.json(&["inspect", "sh"])["task"]["args"]["env"]["N"], "5");
        let rest = service.stop();
        assert!(!rest.contains(SECRET), "{rest}");
    }
    // What is stored is what was given.
    let export = log.with_file_name("export.jsonl");
    assert_eq!(place.run(&["store", "export", export.to_str().unwrap()]).code, 0);
    let exported = fs::read_to_string(export).unwrap();
    let lines: Vec<Value> = exported.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.len() > 2 && exported.contains(&format!("Bearer {SECRET}")), "{exported}");
}
