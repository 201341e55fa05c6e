//! However a command ends: what it said is kept, and it is ended in one way.

use std::fs;

use serde_json::Value;

use super::{Place, Service, alive, eventually};

/// A command that says something on both streams, notes its number, and waits; when it is asked to
/// end it says so, if it listens.
fn talker(place: &Place, listens: bool) -> String {
    let note = place.path().join("pid");
    let end = if listens { "echo put away; exit 0" } else { "" };
    format!(
        "trap '{end}' TERM; echo half done; echo oh dear >&2; echo $$ > {0}.new; mv {0}.new {0}; \
         while :; do sleep 0.05; done",
        note.display()
    )
}

fn pid(place: &Place) -> String {
    let note = place.path().join("pid");
    eventually("the command has begun", || note.exists());
    let pid = fs::read_to_string(&note).unwrap().trim().to_owned();
    fs::remove_file(note).unwrap();
    pid
}

fn latest(place: &Place) -> Value {
    let ended = |answer: &Value| answer["runs"][0]["end"].is_object();
    place.until(&["inspect", "a"], ended)["runs"][0]["end"].clone()
}

/// Both streams are there to be seen, wherever an end is told.
fn shows_what_it_said(place: &Place, service: &Service, end: &Value) {
    let outcome = end["outcome"].as_str().unwrap();
    // The shell may have something to add.
    assert!(end["output"]["stderr"].as_str().unwrap().starts_with("oh dear\n"), "{end}");
    assert!(end["output"]["stdout"].as_str().unwrap().starts_with("half done\n"), "{end}");
    service.line_with(&["  a  ", outcome, "stderr: oh dear", "stdout: half done"]);
    for command in ["inspect", "why"] {
        let text = place.run(&[command, "a"]).out;
        assert!(text.contains("stderr: oh dear") && text.contains("stdout: half done"), "{command}: {text}");
    }
}

fn add(place: &Place, command: &str, more: &[&str]) {
    let add = ["add", "--id", "a", "--replace", "--cron", "0 3 1 1 *", "--shell", command];
    place.json(&[&add[..], more].concat());
}

#[test]
fn what_a_command_said_stays_and_it_can_put_away_its_things() {
    let place = Place::new();
    place.config(
        "[scheduler]\ngrace = '100ms'\n[task.limited]\ncron = '0 3 1 1 *'\nshell = 'true'\ntimeout = '1s'\n",
    );
    let service = place.serve(&[]);
    let put_away = "half done\nput away\n";

    add(&place, "echo half done; echo oh dear >&2; exit 3", &[]);
    place.json(&["run", "a"]);
    let end = latest(&place);
    assert_eq!((&end["outcome"], &end["error"]), (&"failed".into(), &"exit code 3".into()));
    shows_what_it_said(&place, &service, &end);

    // Its own timeout.
    add(&place, &talker(&place, true), &["--timeout", "500ms"]);
    place.json(&["run", "a"]);
    let first = pid(&place);
    let end =
        place.until(&["inspect", "a"], |answer| answer["runs"][0]["end"]["outcome"] == "timed_out")["runs"]
            [0]["end"]
            .clone();
    assert_eq!(end["output"]["stdout"], put_away, "{end}");
    assert!(!alive(&first));
    shows_what_it_said(&place, &service, &end);

    // Somebody cancels it.
    add(&place, &talker(&place, true), &[]);
    let run = place.json(&["run", "a"])["run"].as_str().unwrap().to_owned();
    let second = pid(&place);
    place.json(&["cancel", &run]);
    let end =
        place.until(&["inspect", "a"], |answer| answer["runs"][0]["end"]["outcome"] == "cancelled")["runs"]
            [0]["end"]
            .clone();
    assert_eq!(end["output"]["stdout"], put_away, "{end}");
    assert!(!alive(&second));
    shows_what_it_said(&place, &service, &end);

    // The service is stopped, and its grace is over.
    place.json(&["run", "a"]);
    let third = pid(&place);
    service.signal(rustix::process::Signal::TERM);
    let (code, rest) = service.end();
    assert_eq!(code, 9, "{rest}");
    assert!(rest.contains("interrupted") && rest.contains("put away"), "{rest}");
    assert!(!alive(&third));
    let service = place.serve(&[]);
    let end = latest(&place);
    assert_eq!(
        (&end["outcome"], &end["output"]["stdout"]),
        (&"interrupted".into(), &put_away.into()),
        "{end}"
    );
    service.stop();
}

/// The timeout of the task, a later run that takes the place, and what does not listen.
#[test]
fn the_next_run_begins_when_the_command_before_is_gone() {
    for executor in ["async", "processpool"] {
        let place = Place::new();
        let stubborn = talker(&place, false);
        let tidy = talker(&place, true);
        place.config(&format!(
            "[executor.default]\ntype = '{executor}'\n\
             [task.a]\ncron = '0 3 1 1 *'\nshell = {{ command = {stubborn:?}, kill_after = '1500ms' }}\n\
             [task.b]\ncron = '0 3 1 1 *'\nshell = {tidy:?}\ntimeout = '500ms'\n\
             [task.c]\ncron = '0 3 1 1 *'\nshell = {tidy:?}\noverlap = 'cancel_running'\n"
        ));
        let service = place.serve(&[]);
        let run = |id: &str| place.json(&["run", id])["run"].as_str().unwrap().to_owned();
        let first = run("a");
        let stubborn = pid(&place);
        place.json(&["cancel", &first]);
        assert!(alive(&stubborn), "it does not listen, and has its time");
        // As long as it lives, it counts.
        let refused = place.run(&["run", "a"]);
        assert!(alive(&stubborn) && refused.code != 0, "{refused:?}");
        let end_of = |id: &str, outcome: &str| {
            let found = |answer: &Value| {
                let runs = answer["runs"].as_array().unwrap();
                runs.iter().map(|run| run["end"].clone()).find(|end| end["outcome"] == outcome)
            };
            found(&place.until(&["inspect", id], |answer| found(answer).is_some())).unwrap()
        };
        let end = end_of("a", "cancelled");
        assert!(!alive(&stubborn));
        assert!(end["duration"].as_u64().unwrap() > 1_500_000_000, "{end}");

        run("b");
        let overdue = pid(&place);
        let end = end_of("b", "timed_out");
        assert_eq!(end["output"]["stdout"], "half done\nput away\n", "{executor}: {end}");
        assert!(!alive(&overdue));

        run("c");
        let replaced = pid(&place);
        let last = run("c");
        let successor = pid(&place);
        assert!(!alive(&replaced) && alive(&successor));
        let end = end_of("c", "cancelled");
        assert_eq!(end["output"]["stdout"], "half done\nput away\n", "{executor}: {end}");
        place.json(&["cancel", &last]);
        eventually("the last one is gone", || !alive(&successor));
        service.stop();
    }
}

#[test]
fn what_holds_its_output_open_or_floods_it_holds_up_nobody() {
    let place = Place::new();
    let service = place.serve(&[]);
    for (command, executed) in [
        ("exec >&- 2>&-; sleep 0.2", true),
        ("yes & sleep 0.3", true),
        ("yes", false),
        ("head -c 3000000 /dev/urandom; head -c 3000000 /dev/zero >&2", true),
        ("setsid sleep 600 & echo $! ; sleep 0.1", true),
    ] {
        add(&place, command, &["--timeout", "3s", "--kill-after", "1s"]);
        let run = place.json(&["run", "a"])["run"].clone();
        let find = |answer: &Value| {
            let runs = answer["runs"].as_array().unwrap().clone();
            runs.into_iter().find(|record| record["id"] == run && record["end"].is_object())
        };
        let end =
            find(&place.until(&["inspect", "a"], |answer| find(answer).is_some())).unwrap()["end"].clone();
        let expected = if executed { "executed" } else { "timed_out" };
        assert_eq!(end["outcome"], expected, "{command}: {end}");
        let said = if executed { &end["value"] } else { &end["output"] };
        assert!(said["stdout"].as_str().unwrap().len() < 64 << 10, "{command}");
        assert!(end["duration"].as_u64().unwrap() < 8_000_000_000, "{command}: {end}");
        if command.contains("setsid") {
            // It has left its group on purpose, and its run has ended well.
            let pid = said["stdout"].as_str().unwrap().trim().parse().unwrap();
            let pid = rustix::process::Pid::from_raw(pid).unwrap();
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
    service.stop();
}
