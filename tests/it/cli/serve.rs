use std::fs;
use std::io::Read;
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;

use super::{Place, alive, eventually, kill_in_mid_run, wait};

const CONFIG: &str = r#"
[scheduler]
timezone = "Europe/Lisbon"

[task.tick]
every = "300ms"
shell = "echo said $CALLBOARD_TASK"

[task.fails]
cron = "* * * * * *"
shell = "echo oh no >&2; exit 3"

[task.rare]
cron = "0 3 1 1 *"
shell = "true"
"#;

#[test]
fn every_run_has_a_line() {
    let place = Place::new();
    place.config(CONFIG);
    let service = place.spawn(&[]);
    assert!(service.line("callboard ").contains("3 tasks (0 of them kept from before), data in data"));
    assert!(service.line("control socket").contains("data/callboard.sock"));
    let ran = service.line_with(&["tick", "executed", "took", "late"]);
    assert!(ran.ends_with("said tick"), "{ran}");
    service.line_with(&["fails", "failed", "exit code 3; stderr: oh no"]);
    let rest = service.stop();
    assert!(rest.contains("stopping; runs have 10s to end"), "{rest}");
    assert!(rest.ends_with("stopped\n"), "{rest}");
}

#[test]
fn as_json_every_line_is_an_event() {
    let place = Place::new();
    place.config(CONFIG);
    let service = place.spawn(&["--json"]);
    let started: Value = serde_json::from_str(&service.line("service_started")).unwrap();
    assert_eq!(started["tasks"], 3);
    let ran: Value = serde_json::from_str(&service.line("task_executed")).unwrap();
    assert_eq!((&ran["id"], &ran["outcome"]), (&"tick".into(), &"executed".into()));
    assert_eq!(ran["value"]["stdout"], "said tick\n");
    assert!(ran["late_ms"].is_i64() && ran["duration_ms"].is_f64(), "{ran}");
    for line in service.stop().lines() {
        serde_json::from_str::<Value>(line).unwrap_or_else(|_| panic!("{line}"));
    }
}

#[test]
fn after_a_sigkill_it_goes_on_where_it_was() {
    let place = Place::new();
    place.config(CONFIG);
    let service = place.serve(&[]);
    service.line_with(&["tick", "executed"]);
    place.json(&["pause", "tick"]);
    place.json(&["add", "--id", "mine", "--cron", "0 4 1 1 *", "--shell", "true", "--name", "By hand"]);
    let rare = place.json(&["inspect", "rare"]);
    let tick = place.until(&["inspect", "tick"], |answer| answer["task"]["running"] == 0);
    let mine = place.json(&["inspect", "mine"]);
    service.kill();

    let service = place.spawn(&[]);
    service.line("4 tasks (4 of them kept from before)");
    service.line("running");
    assert_eq!(place.json(&["inspect", "rare"])["task"], rare["task"]);
    assert_eq!(place.json(&["inspect", "mine"])["task"], mine["task"]);
    let again = place.json(&["inspect", "tick"]);
    for kept in ["paused", "runs", "last_run", "next", "created_at"] {
        assert_eq!(again["task"][kept], tick["task"][kept], "{kept}");
    }
    assert_eq!(again["task"]["paused"], true);
    assert_eq!(again["runs"], tick["runs"], "the history is there as well");
    place.json(&["resume", "tick"]);
    service.line_with(&["tick", "executed"]);
    service.stop();
}

#[test]
fn a_run_that_a_sigkill_cut_off_is_reported_and_its_processes_end() {
    let place = Place::new();
    place.config("[task.long]\nat = 2000-01-01T00:00:00Z\nshell = 'true'\n");
    let service = place.serve(&[]);
    kill_in_mid_run(&place, service);

    let service = place.spawn(&[]);
    service.line_with(&["long", "interrupted", "ended before the run did"]);
    service.line("running");
    let inspected = place.json(&["inspect", "long"]);
    assert_eq!(inspected["runs"][0]["end"]["outcome"], "interrupted", "{inspected}");
    service.stop();
}

#[test]
fn a_task_that_leaves_the_file_goes_and_others_stay() {
    let place = Place::new();
    place.config(CONFIG);
    let service = place.serve(&[]);
    place.json(&["add", "--id", "mine", "--every", "1h", "--shell", "true"]);
    service.stop();
    place.config(
        "[task.rare]\ncron = '0 5 1 1 *'\nshell = 'true'\n[task.past]\nat = 2020-01-01\nshell = 'true'\n\
         [task.odd]\ncron = '30 2 * * *'\ntimezone = 'Europe/Berlin'\nshell = 'true'\n",
    );
    let service = place.spawn(&[]);
    let removed = service.line("removed, because they left the configuration");
    assert!(removed.contains("fails") && removed.contains("tick") && !removed.contains("mine"), "{removed}");
    service.line("not added, because their time is over: past");
    service.line("warning: task odd: 02:30 does not exist");
    service.line("running");
    let ids: Vec<_> =
        place.json(&["list", "--sort", "id"]).as_array().unwrap().iter().map(|t| t["id"].clone()).collect();
    assert_eq!(ids, ["mine", "odd", "rare"]);
    let rare = place.json(&["inspect", "rare"]);
    assert!(rare["next"][0].as_str().unwrap().contains("-01-01T05:00:00"), "the new trigger counts: {rare}");
    assert!(place.run(&["remove", "rare"]).out.contains("unless you take it out of the configuration"));
    service.stop();
}

#[test]
fn runs_may_end_within_the_grace() {
    let place = Place::new();
    let service = place.serve(&["--grace", "20s"]);
    let begun = place.path().join("begun");
    let command = format!("touch {}; sleep 1; echo finished", begun.display());
    place.json(&["add", "--id", "slow", "--cron", "0 3 1 1 *", "--shell", &command]);
    place.json(&["run", "slow"]);
    eventually("the run has begun", || begun.exists());
    let rest = service.stop();
    assert!(rest.contains("executed") && rest.contains("finished"), "{rest}");
}

#[test]
fn what_takes_longer_than_the_grace_is_cut_off() {
    let place = Place::new();
    let service = place.serve(&["--grace", "100ms"]);
    let pid = place.path().join("pid");
    let command = format!("echo $$ > {0}.new; mv {0}.new {0}; sleep 600", pid.display());
    place.json(&["add", "--id", "long", "--cron", "0 3 1 1 *", "--shell", &command]);
    place.json(&["run", "long"]);
    eventually("the run has begun", || pid.exists());
    service.signal(Signal::INT);
    let (code, rest) = service.end();
    assert_eq!(code, 9, "{rest}");
    assert!(rest.contains("interrupted") && rest.contains("1 runs were cut off"), "{rest}");
    let pid = fs::read_to_string(pid).unwrap();
    eventually("the process group is gone", || !alive(&pid));
}

#[test]
fn a_second_signal_stops_at_once() {
    let place = Place::new();
    let mut service = place.serve(&["--grace", "10m"]);
    let pid = place.path().join("pid");
    let command = format!("echo $$ > {0}.new; mv {0}.new {0}; sleep 600", pid.display());
    place.json(&["add", "--id", "long", "--cron", "0 3 1 1 *", "--shell", &command]);
    place.json(&["run", "long"]);
    eventually("the run has begun", || pid.exists());
    service.signal(Signal::TERM);
    service.line("stopping");
    // One that follows on its heels is an echo, as when a whole process group is told.
    service.signal(Signal::TERM);
    let begin = std::time::Instant::now();
    while service.running() {
        service.signal(Signal::TERM);
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert!(begin.elapsed() > std::time::Duration::from_millis(300));
    let (code, rest) = service.end();
    assert_eq!(code, 9, "{rest}");
    assert!(rest.contains("stopped at once"), "{rest}");
    let pid = fs::read_to_string(pid).unwrap();
    eventually("the process group is gone", || !alive(&pid));
}

#[test]
fn a_shutdown_task_runs_when_the_service_ends() {
    let place = Place::new();
    place.config("[task.bye]\ntrigger = 'shutdown'\nshell = 'echo good bye'\n");
    let rest = place.serve(&[]).stop();
    assert!(rest.contains("bye") && rest.contains("good bye"), "{rest}");
}

#[test]
fn a_reader_that_goes_away_does_not_end_the_service() {
    let place = Place::new();
    let mut child = place.command(&["serve"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    let mut first = [0];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    // Both pipes are closed now; runs go on all the same.
    eventually("the socket is there", || place.data().join("callboard.sock").exists());
    place.json(&["add", "--id", "tick", "--every", "100ms", "--shell", "echo hello"]);
    place.json(&["add", "--id", "fails", "--every", "100ms", "--shell", "exit 1"]);
    place.until(&["list"], |tasks| {
        tasks.as_array().unwrap().iter().all(|task| task["runs"].as_u64() > Some(2))
    });
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(wait(&mut child).code(), Some(0));
}

#[test]
fn a_reader_that_does_not_read_holds_nothing_up() {
    let place = Place::new();
    let mut child =
        place.command(&["serve", "--json"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    eventually("the socket is there", || place.data().join("callboard.sock").exists());
    // Each run fills a quarter of the pipe.
    let command = "head -c 20000 /dev/zero | tr '\\0' x";
    place.json(&["add", "--id", "loud", "--every", "50ms", "--shell", command]);
    place.until(&["list"], |tasks| tasks[0]["runs"].as_u64() > Some(8));
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(wait(&mut child).code(), Some(0));
}

#[test]
fn the_example_configuration_shows_what_it_promises() {
    let place = Place::new();
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/callboard.toml");
    let service = place.spawn(&["--config", example]);
    service.line("6 tasks");
    // In whatever order they come.
    let mut wanted = vec![
        ("heartbeat", "executed"),
        ("fails", "failed"),
        ("slow", "refused"),
        ("on-the-tens", "executed"),
    ];
    while !wanted.is_empty() {
        let line = service.line("  ");
        wanted.retain(|(task, outcome)| !(line.contains(task) && line.contains(outcome)));
    }
    service.stop();
}
