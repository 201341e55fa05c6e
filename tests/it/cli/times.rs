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
