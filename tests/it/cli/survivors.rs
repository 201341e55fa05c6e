//! Nothing that commands have begun outlives a service that is killed; many commands at once.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{Place, Service, alive, eventually};

fn processes() -> impl Iterator<Item = String> {
    let entries = fs::read_dir("/proc").unwrap().map_while(Result::ok);
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.parse::<u32>().is_ok())
}

/// The processes whose environment has this variable and that are not only waiting to be buried.
fn with_mark(mark: &str) -> Vec<String> {
    let marked = |pid: &String| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes())
    };
    processes().filter(marked).collect()
}

/// State and parent of a process.
fn stat(pid: &str) -> Option<(String, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}

fn children(service: &Service) -> Vec<(String, String)> {
    let child = |pid: String| {
        stat(&pid).filter(|(_, parent)| *parent == service.pid()).map(|(state, _)| (pid, state))
    };
    processes().filter_map(child).collect()
}

pub(super) fn companion(service: &Service) -> Option<String> {
    let is_one = |pid: &String| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).nth(1) == Some(b"reap")
    };
    children(service).into_iter().map(|(pid, _)| pid).find(is_one)
}

fn signal(pid: &str, signal: Signal) {
    kill_process(Pid::from_raw(pid.parse().unwrap()).unwrap(), signal).unwrap();
}

/// A service with a dozen tasks that begin together, each of which leaves something behind; and the variable
/// by which that is known.
fn beginning(place: &Place, round: u32, grace: &str) -> (Service, String) {
    let name = thread::current().name().unwrap_or_default().replace(':', "-");
    let mark = format!("ROUND={name}-{}-{round}", std::process::id());
    let mut text = format!("[scheduler]\ngrace = '{grace}'\n");
    for n in 0..12 {
        text += &format!(
            "[task.t{n}]\nevery = '1s'\nmax_instances = 100\n\
             shell = {{ command = 'setsid sleep 611 & sleep 612', env = {{ ROUND = '{}' }} }}\n",
            mark.trim_start_matches("ROUND=")
        );
    }
    place.config(&text);
    let service = place.serve(&[]);
    eventually("commands have begun", || !with_mark(&mark).is_empty());
    // Somewhere among the starts of the others.
    thread::sleep(Duration::from_millis(u64::from(round) * 3));
    (service, mark)
}

#[test]
fn a_kill_while_commands_begin_leaves_none() {
    for round in 0..10u32 {
        let place = Place::new();
        let (service, mark) = beginning(&place, round, "10s");
        service.kill();
        eventually("nothing outlives the service", || with_mark(&mark).is_empty());
        // Nor does something begin later.
        thread::sleep(Duration::from_millis(200));
        assert_eq!(with_mark(&mark), Vec::<String>::new());
    }
}

#[test]
fn a_stop_while_commands_begin_leaves_none() {
    for round in 0..6u32 {
        let place = Place::new();
        let (service, mark) = beginning(&place, round, "200ms");
        service.signal(if round % 2 == 0 { Signal::TERM } else { Signal::INT });
        let (code, rest) = service.end();
        assert!(code == 9 && rest.contains("cut off"), "{code}: {rest}");
        eventually("nothing outlives the service", || with_mark(&mark).is_empty());
        thread::sleep(Duration::from_millis(200));
        assert_eq!(with_mark(&mark), Vec::<String>::new());
    }
}

#[test]
fn a_companion_that_is_gone_is_replaced_and_knows_what_is_at_work() {
    let place = Place::new();
    let service = place.serve(&[]);
    let note = place.path().join("pids");
    let command =
        format!("setsid sleep 600 & echo $$ $! > {0}.new; mv {0}.new {0}; sleep 600", note.display());
    place.json(&["add", "--id", "long", "--cron", "0 3 1 1 *", "--shell", &command]);
    place.json(&["run", "long"]);
    eventually("the command has begun", || note.exists());
    let pids = fs::read_to_string(&note).unwrap();
    for _ in 0..2 {
        let first = companion(&service).unwrap();
        signal(&first, Signal::KILL);
        eventually("another companion is there", || {
            companion(&service).is_some_and(|second| second != first)
        });
    }
    assert!(pids.split_whitespace().all(alive), "the command goes on");
    // One that is stopped is replaced when there is something to tell it.
    let listening = || {
        let pid = companion(&service)?;
        let waits = || stat(&pid).is_some_and(|(state, _)| state == "S");
        (waits() && {
            thread::sleep(Duration::from_millis(300));
            waits()
        })
        .then(|| pid.clone())
    };
    eventually("the companion listens", || listening().is_some());
    let stopped = companion(&service).unwrap();
    signal(&stopped, Signal::STOP);
    place.json(&["add", "--id", "short", "--cron", "0 3 1 1 *", "--shell", "true"]);
    place.json(&["run", "short"]);
    eventually("another companion is there", || companion(&service).is_some_and(|pid| pid != stopped));
    // Or wakes up when the service dies.
    eventually("the companion listens", || listening().is_some());
    signal(&companion(&service).unwrap(), Signal::STOP);
    service.kill();
    eventually("nothing outlives the service", || !pids.split_whitespace().any(alive));
}

/// Each companion is stopped as it comes.
#[test]
fn companions_that_are_stopped_hold_up_no_command() {
    let place = Place::new();
    let note = place.path().join("runs");
    place.config(&format!(
        "[task.often]\nevery = '100ms'\nshell = 'echo run >> {}'\ntimeout = '20s'\n",
        note.display()
    ));
    let service = place.serve(&[]);
    let runs = || fs::read_to_string(&note).unwrap_or_default().lines().count();
    let mut stopped = BTreeSet::new();
    let mut at_work = |more: usize| {
        let before = runs();
        eventually("commands begin and end", || {
            if let Some(pid) = companion(&service)
                && stopped.insert(pid.clone())
            {
                // One that is gone by now was replaced.
                let _ = kill_process(Pid::from_raw(pid.parse().unwrap()).unwrap(), Signal::STOP);
            }
            runs() >= before + more
        });
        stopped.len()
    };
    while at_work(5) < 5 {}
    place.json(&["list"]);
    at_work(30);
    let said = service.stop();
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn many_commands_at_once_wait_for_their_turn() {
    let place = Place::new();
    let mut text = String::from("[executor.default]\ntype = 'async'\nlimits = { shell = 5 }\n");
    for n in 0..60 {
        text += &format!("[task.t{n}]\ncron = '0 3 1 1 *'\nshell = 'sleep 0.2'\ntimeout = '20s'\n");
    }
    place.config(&text);
    // Fewer descriptors than all of them together would take.
    let service = place.spawn_after("ulimit -n 160", |_| ());
    service.line("running");
    let mut at_once = 0;
    for n in 0..60 {
        place.json(&["run", &format!("t{n}")]);
        let children = children(&service);
        at_once = at_once.max(children.len());
        let zombies = children.iter().filter(|(_, state)| state == "Z").count();
        assert!(zombies <= 5, "{children:?}");
    }
    let ended = |answer: &Value| answer["runs"][0]["end"].is_object();
    for n in 0..60 {
        let id = format!("t{n}");
        let end = &place.until(&["inspect", &id], ended)["runs"][0]["end"];
        assert_eq!(end["outcome"], "executed", "{end}");
        // Counted from the real start.
        assert!(end["duration"].as_u64().unwrap() < 5_000_000_000, "{end}");
    }
    assert!(at_once <= 6, "five commands and the companion: {at_once}");
    eventually("no zombie is left", || children(&service).len() == 1);
    service.stop();
}

/// A machine that stood still: what had ended before is no overdue run, of a command and of a request.
#[test]
fn a_pause_of_the_service_counts_for_no_run() {
    let place = Place::new();
    let note = place.path().join("begun");
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    place.config(&format!(
        "[task.a]\ncron = '0 3 1 1 *'\nshell = 'touch {0}; sleep 1'\ntimeout = '3s'\n\
         [task.b]\ncron = '0 3 1 1 *'\nhttp = 'http://{1}/'\ntimeout = '3s'\n",
        note.display(),
        server.local_addr().unwrap()
    ));
    let service = place.serve(&[]);
    for id in ["a", "b"] {
        place.json(&["run", id]);
    }
    let (mut peer, _) = server.accept().unwrap();
    eventually("the command has begun", || note.exists());
    service.signal(Signal::STOP);
    thread::sleep(Duration::from_secs(1));
    peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").unwrap();
    thread::sleep(Duration::from_secs(5));
    service.signal(Signal::CONT);
    let ended = |answer: &Value| answer["runs"][0]["end"].is_object();
    for id in ["a", "b"] {
        let end = &place.until(&["inspect", id], ended)["runs"][0]["end"];
        assert_eq!(end["outcome"], "executed", "{id}: {end}");
    }
    let end = &place.json(&["inspect", "a"])["runs"][0]["end"];
    assert!(end["duration"].as_u64().unwrap() < 3_000_000_000, "{end}");
    service.stop();
}
