//! What a service does when the system gives less than before, while it runs: whatever cannot begin waits,
//! nothing is lost, and everybody else is served.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{Place, Service, eventually};

fn lines(place: &Place, name: &str) -> usize {
    fs::read_to_string(place.path().join(name)).map_or(0, |text| text.lines().count())
}

/// More commands than there are descriptors for, which somebody has let begin at once: those that cannot
/// begin hold nothing that others need.
#[test]
fn commands_without_descriptors_wait_and_keep_nobody_waiting() {
    let place = Place::new();
    let mut text = String::from(
        "[executor.default]\ntype = 'async'\nlimits = { shell = 1000 }\n\
         [task.beat]\nevery = '500ms'\nshell = 'true'\n",
    );
    let soon = callboard::clock::Clock::system().now() + chrono::TimeDelta::seconds(4);
    for n in 0..300 {
        write!(text, "[task.t{n}]\nat = '{}'\nshell = 'echo x >> ran'\n", soon.to_rfc3339()).unwrap();
    }
    place.config(&text);
    let service = place.spawn_after("ulimit -n 200", |_| ());
    service.line("running");
    let mut longest = Duration::ZERO;
    let begin = Instant::now();
    while lines(&place, "ran") < 300 {
        assert!(begin.elapsed() < Duration::from_secs(100), "{} have run", lines(&place, "ran"));
        let asked = Instant::now();
        assert_eq!(place.json(&["inspect", "beat"])["task"]["id"], "beat");
        longest = longest.max(asked.elapsed());
    }
    assert!(longest < Duration::from_secs(10), "{longest:?}");
    let ended = |list: &Value| list.as_array().unwrap().iter().all(|task| task["running"] == 0);
    place.until(&["list"], ended);
    for n in 0..300 {
        let id = format!("t{n}");
        if n % 30 == 0 {
            let runs = place.json(&["inspect", &id])["runs"].as_array().unwrap().clone();
            assert_eq!(runs.len(), 1, "{runs:?}");
            assert_eq!(runs[0]["end"]["outcome"], "executed", "{runs:?}");
        }
    }
    assert_eq!(lines(&place, "ran"), 300, "each has run once");
    service.stop();
}

/// The system tells by a signal that ends whoever does not hear it.
#[test]
fn a_file_that_may_not_grow_takes_down_its_store_alone() {
    let place = Place::new();
    let big = "echo 12345678901234567890123456789012345678901234567890 >&2; echo x >> ran";
    place.config(&format!(
        "[scheduler]\nstore_retry = '200ms'\n[store.default]\ntype = 'file'\n[store.other]\ntype = 'memory'\n\
         [task.files]\nevery = '50ms'\nshell = '{big}'\n\
         [task.other]\nevery = '100ms'\nshell = 'echo x >> other'\nstore = 'other'\n"
    ));
    let mut service = place.spawn_after("ulimit -S -f 20", |_| ());
    service.line("running");
    service.line_with(&["store default does not work", "File too large"]);
    let other = lines(&place, "other");
    eventually("the others run", || lines(&place, "other") > other + 3);
    assert!(service.running());
    let raise = ["--pid", &service.pid().to_string(), "--fsize=unlimited:"];
    assert!(Command::new("prlimit").args(raise).status().unwrap().success());
    service.line("store default works again");
    let ran = lines(&place, "ran");
    eventually("it runs again", || lines(&place, "ran") > ran + 3);
    service.stop();
}

/// A service of a user who has no other processes, so that a limit on processes is its own. `None` where
/// nobody may become that user.
fn of_a_stranger(place: &Place) -> Option<Service> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: it takes root, to become a user who has no other processes");
        return None;
    }
    let user = stranger();
    let program = place.path().join("callboard");
    fs::copy(env!("CARGO_BIN_EXE_callboard"), &program).unwrap();
    let own = Command::new("chown").args(["-R", &user]).arg(place.path()).status().unwrap();
    assert!(own.success());
    let service = place.spawn_by(|place| {
        let serve = place.serve_command(&[]);
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &user, "--clear-groups"]).arg(&program).args(serve.get_args());
        command.current_dir(place.path()).env_remove("CALLBOARD_LOG").stdin(std::process::Stdio::null());
        command
    });
    service.line("running");
    Some(service)
}

/// Who that is.
fn stranger() -> String {
    (u32::MAX / 2 + 7 + std::process::id()).to_string()
}

/// Sets the soft limit of processes and threads.
fn limit(service: &Service, most: u32) {
    let (user, pid, most) = (stranger(), service.pid().to_string(), format!("--nproc={most}:"));
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &user, "--clear-groups", "prlimit", "--pid", &pid, &most]);
    assert!(command.status().unwrap().success());
}

#[test]
fn without_processes_and_threads_runs_wait_and_the_service_goes_on() {
    let place = Place::new();
    place.config(
        "[executor.pool]\ntype = 'threadpool'\nworkers = 4\n\
         [task.often]\nevery = '100ms'\nshell = 'echo x >> often'\n\
         [task.pooled]\nevery = '100ms'\nshell = 'echo x >> pooled'\nexecutor = 'pool'\n",
    );
    let Some(service) = of_a_stranger(&place) else { return };
    eventually("both run", || lines(&place, "often") > 2 && lines(&place, "pooled") > 2);
    limit(&service, 1);
    service.line_with(&["a command cannot be started yet"]);
    let (often, pooled) = (lines(&place, "often"), lines(&place, "pooled"));
    for round in 0..5 {
        let list = place.json(&["list"]);
        assert_eq!(list.as_array().unwrap().len(), 2 + usize::from(round > 0));
        place.json(&["add", "--id", "new", "--replace", "--at", "2090-01-01", "--shell", "true"]);
    }
    assert!(lines(&place, "often") <= often + 1 && lines(&place, "pooled") <= pooled + 4);
    // The companion cannot be replaced, and will be.
    let companion = super::survivors::companion(&service).unwrap();
    kill_process(Pid::from_raw(companion.parse().unwrap()).unwrap(), Signal::KILL).unwrap();
    service.line_with(&["no companion process"]);
    limit(&service, 1000);
    eventually("they run again", || {
        lines(&place, "often") > often + 2 && lines(&place, "pooled") > pooled + 4
    });
    eventually("another companion is there", || {
        super::survivors::companion(&service).is_some_and(|other| other != companion)
    });
    for id in ["often", "pooled"] {
        let answer = place.json(&["inspect", id]);
        for run in answer["runs"].as_array().unwrap().iter().filter(|run| !run["end"].is_null()) {
            let end = &run["end"];
            // While one waits there is no instance for the next.
            let skipped = end["outcome"] == "refused" && end["reason"]["refusal"] == "max_instances";
            assert!(skipped || end["outcome"] == "executed", "{run}");
        }
    }
    // It ends as well as ever when there is nothing.
    limit(&service, 1);
    service.signal(Signal::TERM);
    let (code, rest) = service.end();
    assert!(code == 0 || (code == 9 && rest.contains("cut off")), "{code}: {rest}");
    assert!(!rest.contains("panicked"), "{rest}");
}
