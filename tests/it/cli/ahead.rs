//! The program on a machine whose clock is ahead for a while, and is set right.

use std::path::PathBuf;
use std::time::Duration;
use std::{fs, thread};

use callboard::clock::Clock;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use super::{Place, Service, eventually, faketime};

/// The wall clock of a service: a file says how far it is ahead.
struct Dial {
    library: PathBuf,
    file: PathBuf,
}

impl Dial {
    /// `None` where clocks cannot be set.
    fn new(place: &Place) -> Option<Self> {
        let dial = Self { library: faketime()?, file: place.path().join("dial") };
        dial.set("+0");
        Some(dial)
    }

    fn set(&self, ahead: &str) {
        let new = self.file.with_extension("new");
        fs::write(&new, format!("{ahead}\n")).unwrap();
        fs::rename(new, &self.file).unwrap();
    }

    /// A service that lives by it, with its elapsed time as it is.
    fn serve(&self, place: &Place) -> Service {
        let service = place.spawn_by(|place| {
            let mut command = place.serve_command(&[]);
            command.env("LD_PRELOAD", &self.library).env("FAKETIME_TIMESTAMP_FILE", &self.file);
            command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
            command
        });
        service.line("running");
        service
    }
}

/// The lines up to one with all of these texts.
fn lines_to(service: &Service, texts: &[&str]) -> Vec<String> {
    let mut lines = Vec::new();
    while !lines.last().is_some_and(|line: &String| texts.iter().all(|text| line.contains(text))) {
        lines.push(service.line(""));
    }
    lines
}

fn next(task: &Value) -> Option<DateTime<Utc>> {
    task["next"]["nominal"].as_str()?.parse().ok()
}

/// Whether the next runs of all tasks lie within this of now.
fn all_within(place: &Place, length: TimeDelta) -> bool {
    let list = place.json(&["list"]);
    let until = Clock::system().now() + length;
    list.as_array().unwrap().iter().all(|task| next(task).is_some_and(|next| next < until))
}

#[test]
fn runs_go_on_when_a_clock_that_was_ahead_is_set_right() {
    let place = Place::new();
    let Some(dial) = Dial::new(&place) else { return };
    place.config(
        "[task.beat]\nevery = '200ms'\nshell = 'true'\n[task.hourly]\ncron = '0 * * * *'\nshell = 'true'\n",
    );
    let service = dial.serve(&place);
    let beats = |more: u64| {
        let runs = |answer: &Value| answer["task"]["runs"].as_u64().unwrap();
        let before = runs(&place.json(&["inspect", "beat"]));
        place.until(&["inspect", "beat"], |answer| runs(answer) > before + more);
    };
    beats(2);
    dial.set("+10y");
    service.line_with(&["hourly", "executed"]);
    dial.set("+0");
    let told = lines_to(&service, &["next runs of 2 tasks were worked out again"]);
    // The log has it, too.
    let warned = |line: &&String| line.contains("the clock was set back") && !line.contains("WARN");
    let warned: Vec<_> = told.iter().filter(warned).collect();
    assert_eq!(warned, ["the clock was set back by 3650d"], "{told:#?}");
    assert!(all_within(&place, TimeDelta::hours(2)));
    beats(5);
    let rest = service.stop();
    assert!(!rest.contains("the clock"), "{rest}");

    let service = dial.serve(&place);
    assert!(all_within(&place, TimeDelta::hours(2)));
    beats(2);
    let rest = service.stop();
    assert!(!rest.contains("the clock"), "{rest}");
}

/// Nothing is due meanwhile: what people do is all that makes the service look at its clock.
#[test]
fn what_is_planned_under_a_clock_that_is_ahead_for_a_moment_is_worked_out_again() {
    let place = Place::new();
    let Some(dial) = Dial::new(&place) else { return };
    place.config(
        "[task.rare]\nevery = '30d'\npaused = true\nshell = 'true'\n\
         [task.tried]\ncron = '0 3 1 1 *'\nshell = 'exit 3'\nretry = { times = 3, first = '1h', cap = '1h' }\n",
    );
    let service = dial.serve(&place);
    dial.set("+10y");
    place.json(&["add", "--id", "new", "--cron", "0 * * * *", "--shell", "true"]);
    place.json(&["resume", "rare"]);
    place.json(&["run", "tried"]);
    let attempt = |answer: &Value| -> Option<DateTime<Utc>> {
        answer["task"]["attempts"][0]["at"].as_str()?.parse().ok()
    };
    place.until(&["inspect", "tried"], |answer| attempt(answer).is_some());
    dial.set("+0");
    let told = lines_to(&service, &["were worked out again"]);
    assert!(told.iter().any(|line| line == "the clock was set back by 3650d"), "{told:#?}");
    let inspect = |id: &str| place.json(&["inspect", id])["task"].clone();
    let now = Clock::system().now();
    assert!(next(&inspect("new")).unwrap() < now + TimeDelta::hours(2));
    assert!(next(&inspect("rare")).unwrap() < now + TimeDelta::days(31));
    assert!(next(&inspect("tried")).unwrap() < now + TimeDelta::days(367));
    // A delay is longer or shorter by chance.
    let again = attempt(&place.json(&["inspect", "tried"])).unwrap();
    assert!(again < now + TimeDelta::hours(3), "{again}");
    service.stop();
}

/// Killed in the midst of it, or before, or after: the successor does what is left.
#[test]
fn what_a_kill_leaves_under_the_wrong_clock_the_next_service_works_out_again() {
    /// With the one that makes the service look at its clock often.
    const TASKS: usize = 1500;
    let place = Place::new();
    let Some(dial) = Dial::new(&place) else { return };
    let task = |n: usize| format!("[task.t{n}]\ncron = '0 3 1 * *'\nmisfire_grace = '1s'\nshell = 'true'\n");
    let beat = "[task.beat]\nevery = '200ms'\nshell = 'true'\n".to_owned();
    place.config(&(1..TASKS).map(task).chain([beat]).collect::<String>());
    let mut service = dial.serve(&place);
    // Between these a kill is early and late.
    let (mut early, mut late) = (Duration::ZERO, Duration::from_secs(2));
    let mut halves = Vec::new();
    while halves.len() < 6 && !halves.iter().any(|left| (1..TASKS).contains(left)) {
        let far = Clock::system().now() + TimeDelta::days(365);
        dial.set("+10y");
        eventually("all are planned by the wrong clock", || {
            let list = place.json(&["list"]);
            list.as_array().unwrap().iter().all(|task| next(task).is_some_and(|next| next > far))
        });
        dial.set("+0");
        lines_to(&service, &["the clock was set back"]);
        let moment = (early + late) / 2;
        thread::sleep(moment);
        service.kill();
        service = dial.serve(&place);
        eventually("all are planned by the right clock", || all_within(&place, TimeDelta::days(32)));
        // It is told before the end of a run that begins after it.
        place.json(&["run", "t1"]);
        let lines = lines_to(&service, &["t1 ", "executed"]);
        let left = lines.iter().find_map(|line| line.split("next runs of ").nth(1)?.split(' ').next());
        let left = left.map_or(0, |left| left.parse().unwrap());
        match left {
            0 => late = moment,
            TASKS => early = moment,
            _ => {}
        }
        halves.push(left);
        assert_eq!(place.json(&["list"]).as_array().unwrap().len(), TASKS);
    }
    service.stop();
    println!("left for the successor, of {TASKS}: {halves:?}");
    assert!(halves.iter().any(|left| (1..TASKS).contains(left)), "{halves:?}");
}
