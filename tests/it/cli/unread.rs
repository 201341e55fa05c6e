//! Others who do not read, do not write, or ask for too much.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use serde_json::{Value, json};

use super::{Place, eventually, wait};

fn runs(tasks: &Value) -> u64 {
    tasks.as_array().unwrap().iter().map(|task| task["runs"].as_u64().unwrap()).min().unwrap_or(0)
}

fn stops_in_time(child: &mut Child) {
    let begin = Instant::now();
    kill_process(Pid::from_child(child), Signal::TERM).unwrap();
    assert_eq!(wait(child).code(), Some(0));
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
}

#[test]
fn a_log_that_nobody_reads_holds_nothing_up() {
    for executor in ["async", "threadpool", "processpool"] {
        let place = Place::new();
        let workers = if executor == "async" { "" } else { "workers = 2" };
        place.config(&format!(
            "[executor.default]\ntype = '{executor}'\n{workers}\n\
             [task.fails]\nevery = '50ms'\nshell = 'head -c 9000 /dev/zero | tr \"\\\\0\" x >&2; exit 1'\n"
        ));
        let mut command = place.serve_command(&[]);
        command.env("CALLBOARD_LOG", "trace").stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        eventually("the socket is there", || place.data().join("callboard.sock").exists());
        // A pipe holds 64 KiB; the log of a few runs is longer.
        place.until(&["list"], |tasks| runs(tasks) > 20);
        stops_in_time(&mut child);
        let mut log = Vec::new();
        child.stderr.take().unwrap().read_to_end(&mut log).unwrap();
        assert!(log.len() > 50_000, "{executor}: the pipe was full: {}", log.len());
    }
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

#[test]
fn silent_connections_are_few_and_keep_nobody_out() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let place = Place::new();
    let service = place.spawn_after("ulimit -n 256", |_| ());
    service.line("running");
    place.json(&["add", "--id", "tick", "--every", "100ms", "--shell", "true"]);
    let socket = place.data().join("callboard.sock");
    let silent: Vec<UnixStream> = (0..1100).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    let before = runs(&place.json(&["list"]));
    place.until(&["list"], |tasks| runs(tasks) > before + 5);
    assert!(descriptors(service.pid()) < 128, "{}", descriptors(service.pid()));
    assert_eq!(place.json(&["inspect", "tick"])["task"]["store"], "default");
    // The first ones made room.
    let mut byte = [0];
    assert_eq!((&silent[0]).read(&mut byte).unwrap_or(0), 0);
    drop(silent);
    service.stop();
}

#[test]
fn descriptors_that_are_gone_end_nothing() {
    let place = Place::new();
    let mut service = place.spawn_after("ulimit -n 80", |_| ());
    service.line("running");
    place.json(&["add", "--id", "tick", "--every", "50ms", "--shell", "true"]);
    // Each run takes some descriptors for a while.
    for n in 0..40 {
        let id = format!("long{n}");
        let answer = place.run(&["add", "--id", &id, "--at", "2090-01-01", "--shell", "sleep 2"]);
        assert_eq!(answer.code, 0, "{answer:?}");
    }
    for n in 0..40 {
        place.run(&["run", &format!("long{n}")]);
    }
    let cpu = || -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", service.pid())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let (begin, used) = (Instant::now(), cpu());
    let before = runs(&place.until(&["list"], |tasks| !tasks.as_array().unwrap().is_empty()));
    place.until(&["inspect", "tick"], |answer| {
        answer["task"]["runs"].as_u64().unwrap() > before + 5
            && answer["runs"][0]["end"]["outcome"] == "executed"
            && begin.elapsed() > Duration::from_secs(3)
    });
    let ticks = cpu() - used;
    assert!(ticks * 10 < begin.elapsed().as_millis() as u64, "it spins: {ticks} ticks");
    assert!(service.running());
    service.stop();
}

/// What the service answers to one line.
fn ask(place: &Place, line: &str) -> Value {
    let mut stream = UnixStream::connect(place.data().join("callboard.sock")).unwrap();
    let _ = stream.write_all(format!("{line}\n").as_bytes());
    let mut answer = String::new();
    let _ = BufReader::new(stream).read_line(&mut answer);
    serde_json::from_str(&answer).unwrap_or(Value::Null)
}

#[test]
fn requests_are_bounded_where_they_arrive() {
    let place = Place::new();
    let service = place.serve(&[]);
    place.json(&["add", "--id", "a", "--cron", "* * * * * *", "--shell", "true", "--paused"]);
    let begin = Instant::now();
    let why = |limit: u32| {
        json!({
            "v": 1, "do": "why", "id": "a", "from": "0001-01-01T00:00:00Z", "to": "9999-01-01T00:00:00Z",
            "limit": limit,
        })
    };
    assert_eq!(ask(&place, &why(4_000_000_000).to_string())["error"]["kind"], "invalid");
    assert!(ask(&place, &why(10_000).to_string())["ok"]["times"].as_array().unwrap().len() <= 10_000);
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        for depth in [500, 40_000] {
            let task = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            let answer = ask(&place, &format!("{{\"v\":1,\"do\":\"add\",\"task\":{task}}}"));
            let kind = &answer["error"]["kind"];
            assert!(answer.is_null() || kind == "usage" || kind == "invalid", "{answer}");
        }
    }
    let answer =
        ask(&place, r#"{"v":1,"do":"backfill","id":"a","from":"2026-01-01","to":"2026-01-02","every":0}"#);
    assert!(answer["ok"]["task"].is_object(), "{answer}");
    assert!(begin.elapsed() < Duration::from_secs(25), "{:?}", begin.elapsed());
    place.json(&["list"]);
    service.stop();
}

#[test]
fn who_does_not_read_is_hung_up_on() {
    let place = Place::new();
    let service = place.serve(&[]);
    for n in 0..40 {
        let body = "x".repeat(50_000);
        let id = format!("t{n}");
        place.json(&["add", "--id", &id, "--at", "2090-01-01", "--shell", "true", "--name", &body]);
    }
    let before = descriptors(service.pid());
    let socket = place.data().join("callboard.sock");
    let deaf: Vec<UnixStream> = (0..20)
        .map(|_| {
            let mut stream = UnixStream::connect(&socket).unwrap();
            stream.write_all(b"{\"v\":1,\"do\":\"list\"}\n").unwrap();
            stream
        })
        .collect();
    // They keep nobody from being answered meanwhile.
    place.json(&["inspect", "t0"]);
    eventually("they are gone", || descriptors(service.pid()) <= before + 1);
    drop(deaf);
    service.stop();
}
