//! One rule for times without an offset: the zone that is named, else the task's, else the service's.

use serde_json::json;

use super::Place;

#[test]
fn a_time_without_an_offset_is_on_the_clock_of_the_task() {
    let place = Place::new();
    place.config(
        "[scheduler]\ntimezone = 'America/New_York'\n\
         [task.own]\ncron = '0 3 * * *'\ntimezone = 'Europe/Berlin'\nshell = 'true'\n\
         [task.none]\ncron = '0 3 * * *'\nshell = 'true'\n",
    );
    let service = place.serve(&[]);
    // The command without its times, the times, and the instant that comes of them. In January Berlin
    // is an hour ahead, New York five behind, Tokyo nine ahead of UTC.
    let tokyo: &[&str] = &["--timezone", "Asia/Tokyo"];
    for (id, more, from, to, instant) in [
        ("own", &[][..], "2026-01-10T03:00", "2026-01-10T03:01", "2026-01-10T02:00:00Z"),
        ("none", &[], "2026-01-10T03:00", "2026-01-10T03:01", "2026-01-10T08:00:00Z"),
        ("own", tokyo, "2026-01-10T11:00", "2026-01-10T11:01", "2026-01-10T02:00:00Z"),
        ("none", tokyo, "2026-01-10T17:00", "2026-01-10 17:01", "2026-01-10T08:00:00Z"),
        ("own", tokyo, "2026-01-10T02:00:00Z", "2026-01-10T02:01:00+00:00", "2026-01-10T02:00:00Z"),
    ] {
        let window = [&["--from", from, "--to", to], more].concat();
        let why = place.json(&[&["why", id], &window[..]].concat());
        let nominal: Vec<_> = why["times"].as_array().unwrap().iter().map(|it| &it["nominal"]).collect();
        // A run that fills in is listed beside what became of the time itself.
        assert!(!nominal.is_empty() && nominal.iter().all(|it| *it == instant), "{id} {window:?}: {why}");
        let filled = place.json(&[&["backfill", id], &window[..]].concat());
        assert_eq!(filled["task"]["backfill"]["next"], instant, "{id} {window:?}: {filled}");
        place.until(&["inspect", id], |answer| answer["task"]["backfill"].is_null());
    }

    for (more, instant) in [
        (&[][..], "2090-01-01T05:00:00Z"),
        (tokyo, "2089-12-31T15:00:00Z"),
        (&["--timezone", "UTC"], "2090-01-01T00:00:00Z"),
    ] {
        let added = place.json(&[&["add", "--at", "2090-01-01T00:00", "--shell", "true"], more].concat());
        assert_eq!(added["task"]["next"]["nominal"], instant, "{more:?}: {added}");
    }

    for (id, more, instant) in [
        ("own", &[][..], "2089-12-31T23:00:00Z"),
        ("none", &[], "2090-01-01T05:00:00Z"),
        ("own", tokyo, "2089-12-31T15:00:00Z"),
        ("none", tokyo, "2089-12-31T15:00:00Z"),
    ] {
        let set = place.json(&[&["reschedule", id, "--next-run", "2090-01-01T00:00"], more].concat());
        assert_eq!(set["task"]["next"]["nominal"], instant, "{id} {more:?}: {set}");
    }

    // Only its records are left: the service's clock.
    place.json(&[
        "add",
        "--id",
        "gone",
        "--cron",
        "0 3 * * *",
        "--timezone",
        "Europe/Berlin",
        "--shell",
        "true",
    ]);
    place.json(&["run", "gone"]);
    place.until(&["inspect", "gone"], |answer| !answer["runs"][0]["end"].is_null());
    place.json(&["remove", "gone"]);
    let window = ["why", "gone", "--from", "2026-01-10T03:00", "--to", "2026-01-10T03:01"];
    assert_eq!(place.json(&window)["timezone"], "America/New_York");
    assert_eq!(place.json(&[&window, tokyo].concat())["timezone"], "Asia/Tokyo");

    // A trigger without a service has its own clock.
    let own = r#"{"type":"crontab","expression":"0 3 * * *","timezone":"Europe/Berlin"}"#;
    for (trigger, more, after, first) in [
        (own, &[][..], "2026-01-10T03:00", "2026-01-10T03:00:00+01:00"),
        (own, tokyo, "2026-01-10T11:01", "2026-01-11T03:00:00+01:00"),
        ("0 3 * * *", tokyo, "2026-01-10T03:00", "2026-01-10T03:00:00+09:00"),
        ("0 3 * * *", &[], "2026-01-10T03:00", "2026-01-10T03:00:00+00:00"),
    ] {
        let next = place.json(&[&["next", trigger, "--count", "1", "--after", after], more].concat());
        assert_eq!(next["next"], json!([first]), "{trigger} {more:?}");
    }
    service.stop();
}

const EITHER: &str = r#"{"type":"or","triggers":[
    {"type":"crontab","expression":"0 1 * * *"},{"type":"crontab","expression":"H H * * *"}]}"#;

#[test]
fn what_h_stands_for_takes_the_id_of_a_task() {
    let place = Place::new();
    let service = place.serve(&[]);
    for trigger in ["H 3 * * *", EITHER] {
        let said = place.run(&["next", trigger]);
        assert!(said.code == 3 && said.err.contains("--id"), "{said:?}");
        place.json(&["add", "--id", "nightly", "--trigger", trigger, "--shell", "true", "--replace"]);
        let task = &place.json(&["inspect", "nightly"])["next"];
        let next = &place.json(&["next", trigger, "--id", "nightly"])["next"];
        assert_eq!(next, task);
    }
    assert_eq!(place.run(&["next", "0 3 * * *", "--id", ""]).code, 2);
    service.stop();
}

#[test]
fn the_next_run_is_set_on_the_clock_of_the_task_and_outlives_a_kill() {
    let place = Place::new();
    place.config(
        "[scheduler]\ntimezone = 'Europe/Berlin'\n[task.beat]\nevery = '40d'\nshell = 'true'\n\
         [task.tokyo]\ncron = '0 3 * * *'\ntimezone = 'Asia/Tokyo'\nshell = 'true'\n",
    );
    let service = place.serve(&[]);
    let next = |id: &str| place.json(&["inspect", id])["next"][0].clone();
    for (id, options, instant, shown) in [
        ("beat", &["2099-07-01T00:30"][..], "2099-07-01T00:30:00+02:00", "Wed 2099-07-01 00:30:00 +02:00"),
        ("tokyo", &["2099-01-01T00:30"], "2099-01-01T00:30:00+09:00", "Thu 2099-01-01 00:30:00 +09:00"),
        ("tokyo", &["2099-01-01T00:30", "--timezone", "UTC"], "2099-01-01T09:30:00+09:00", "09:30:00 +09:00"),
        ("tokyo", &["2099-01-02T00:30Z"], "2099-01-02T09:30:00+09:00", "Fri 2099-01-02 09:30:00 +09:00"),
    ] {
        let said = place.run(&[&["reschedule", id, "--next-run"], options].concat());
        assert_eq!(said.code, 0, "{said:?}");
        assert!(said.out.starts_with(&format!("{id} rescheduled; it runs next on ")), "{said:?}");
        assert!(said.out.contains(shown), "{said:?}");
        assert_eq!(next(id), instant);
    }
    // What comes after it is the trigger's, and why tells of it.
    assert_eq!(place.json(&["inspect", "tokyo"])["next"][1], "2099-01-03T03:00:00+09:00");
    let why = place.json(&["why", "tokyo"]);
    let times = why["times"].as_array().unwrap();
    let last = times.last().unwrap_or_else(|| panic!("{why}"));
    assert_eq!(
        (&last["nominal"], &last["fate"]),
        (&"2099-01-02T00:30:00Z".into(), &"waiting".into()),
        "{why}"
    );
    let all = place.json(&["why", "tokyo", "--from", "2099-01-02T00:00Z", "--to", "2099-01-03T19:00Z"]);
    let all: Vec<_> = all["times"].as_array().unwrap().iter().map(|time| time["nominal"].clone()).collect();
    assert_eq!(all, ["2099-01-02T00:30:00Z", "2099-01-02T18:00:00Z", "2099-01-03T18:00:00Z"]);
    for (id, time, code, words) in [
        ("tokyo", "2020-01-01", 3, "which is past; choose a time to come"),
        ("tokyo", "tomorrow", 3, "is no time; write for instance"),
        ("nobody", "2099-01-01", 7, "there is no task `nobody`"),
    ] {
        let said = place.run(&["reschedule", id, "--next-run", time]);
        assert!(said.code == code && said.err.contains(words), "{said:?}");
    }
    assert_eq!(place.run(&["pause", "tokyo"]).out, "tokyo paused\n");
    let said = place.run(&["reschedule", "tokyo", "--next-run", "2099-02-01"]);
    assert_eq!(said.out, "tokyo rescheduled; it is paused\n");
    service.kill();
    let service = place.serve(&[]);
    assert_eq!(next("beat"), "2099-07-01T00:30:00+02:00");
    let said = place.run(&["resume", "tokyo"]);
    assert!(said.out.contains("it runs next on Sun 2099-02-01 00:00:00 +09:00"), "{said:?}");
    service.stop();
}

#[test]
fn what_only_a_new_task_takes_is_said_to_whoever_gave_it() {
    let place = Place::new();
    let service = place.serve(&[]);
    let add = |options: &[&str]| {
        let said = place.run(&[&["add", "--id", "a", "--shell", "true"], options].concat());
        assert_eq!(said.code, 0, "{said:?}");
        said.out
    };
    assert_eq!(add(&["--every", "40d", "--paused"]), "a added; it is paused\n");
    place.json(&["resume", "a"]);
    let said = add(&["--every", "50d", "--paused", "--replace"]);
    assert!(said.starts_with("a replaced; it runs next on "), "{said}");
    assert!(
        said.contains("\nnot taken: paused: the task is there already and is not paused; pause it"),
        "{said}"
    );
    let said = add(&["--every", "50d", "--timezone", "Asia/Tokyo", "--replace"]);
    assert!(said.contains("\nnot taken: timezone: the run times stay as they are"), "{said}");
    let said = add(&["--every", "50d", "--timezone", "Asia/Tokyo", "--replace"]);
    assert!(said.starts_with("a is there already, just so; it runs next on "), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    let answer = place.run(&[
        "add",
        "--id",
        "a",
        "--shell",
        "true",
        "--every",
        "60d",
        "--paused",
        "--replace",
        "--json",
    ]);
    let answer: serde_json::Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!((&answer["added"], &answer["kept"][0]["option"]), (&"changed".into(), &"paused".into()));
    service.stop();
}
