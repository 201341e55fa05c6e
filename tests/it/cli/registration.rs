//! The configuration across restarts: what one task lacks keeps no other from running, a task is
//! never in two stores, and what has run does not run again.

use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::{Place, Service, eventually};

/// How often a task has run: each run of `note` appends a line to the file of its task.
fn runs(place: &Place, id: &str) -> usize {
    fs::read_to_string(place.path().join("ran").join(id)).map_or(0, |text| text.lines().count())
}

fn note(place: &Place) -> String {
    fs::create_dir_all(place.path().join("ran")).unwrap();
    format!("shell = 'echo x >> {}/$CALLBOARD_TASK'", place.path().join("ran").display())
}

/// Until the service has come by once more, so that what is due has run.
fn beat(place: &Place) {
    let before = runs(place, "beat");
    eventually("two more beats", || runs(place, "beat") >= before + 2);
}

fn stored(place: &Place) -> Vec<Value> {
    place.json(&["list", "--sort", "id"]).as_array().unwrap().clone()
}

fn ids(place: &Place) -> Vec<String> {
    stored(place).iter().map(|task| task["id"].as_str().unwrap().to_owned()).collect()
}

/// Starts a service that says all these lines before it runs.
fn serve_saying(place: &Place, lines: &[&str]) -> Service {
    let service = place.spawn(&[]);
    let mut said = String::new();
    loop {
        let line = service.line("");
        said += &format!("{line}\n");
        if line.contains("running") {
            break;
        }
    }
    for line in lines {
        assert!(said.contains(line), "{line}: {said}");
    }
    service
}

#[test]
fn what_is_wrong_with_one_task_is_said_and_left_and_the_rest_starts() {
    let place = Place::new();
    let note = note(&place);
    let good = format!("[store.default]\ntype = 'file'\n[task.beat]\nevery = '200ms'\n{note}\n");
    place.config(&format!(
        "{good}[task.bad]\nevery = '200ms'\n{note}\n[task.edited]\nevery = '200ms'\n{note}\n"
    ));
    let service = place.serve(&[]);
    eventually("it has run", || runs(&place, "bad") > 0 && runs(&place, "edited") > 0);
    service.stop();
    let record = place.data().join("store-file/tasks/bad.json");
    fs::write(&record, "{ this is no task").unwrap();
    let (bad, edited) = (runs(&place, "bad"), runs(&place, "edited"));

    let large = "x".repeat(70_000);
    let config = format!(
        "{good}[task.bad]\nevery = '200ms'\n{note}\n\
         [task.ended]\ncron = '* * * * *'\nend_at = 2020-01-01\n{note}\n\
         [task.past]\nat = 2020-01-01\n{note}\n\
         [task.large]\nevery = '200ms'\n{note}\nuserdata = {{ x = '{large}' }}\n\
         [task.edited]\nevery = '1h'\nhandler = 'nosuch'\n\
         [task.lost]\nevery = '200ms'\nexecutor = 'nosuch'\n{note}\n\
         [task.stray]\nevery = '200ms'\nstore = 'nosuch'\n{note}\n"
    );
    place.config(&config);
    let service = serve_saying(
        &place,
        &[
            "not added, because their time is over: ended, past",
            "left out: callboard.toml:6: task.bad: ",
            ": task.large: ",
            ": task.edited: ",
            "task.lost: no executor is called `nosuch`; there are: default",
            "task.stray: no store is called `nosuch`; there are: default",
        ],
    );
    beat(&place);
    assert_eq!(fs::read_to_string(&record).unwrap(), "{ this is no task", "it is left as it is");
    assert_eq!(ids(&place), ["beat", "edited"]);
    // The definition that is stored goes on, because the new one cannot be had.
    eventually("it goes on", || runs(&place, "edited") > edited);
    assert_eq!(runs(&place, "bad"), bad);
    service.stop();

    let said = place.run(&["serve", "--config", "callboard.toml", "--strict"]);
    assert!(said.code != 0 && said.code != 9, "{said:?}");
    for name in
        ["task.bad", "task.ended", "task.past", "task.large", "task.edited", "task.lost", "task.stray"]
    {
        assert!(said.err.contains(&format!(": {name}: ")), "{name}: {said:?}");
    }
    place.config(&good);
    place.serve(&["--strict"]).stop();
    assert_eq!(fs::read_to_string(&record).unwrap(), "{ this is no task");
}

#[test]
fn a_second_store_that_does_not_open_keeps_only_its_own_tasks_waiting() {
    let place = Place::new();
    let note = note(&place);
    let stores = "[scheduler]\nstore_retry = '100ms'\n[store.archive]\ntype = 'file'\npath = 'archive'\n";
    let task = |id: &str, store: &str| format!("[task.{id}]\nevery = '100ms'\nstore = '{store}'\n{note}\n");
    let here = task("beat", "default") + &task("stays", "archive");
    place.config(&format!("{stores}{here}{}", task("leaves", "archive")));
    let service = place.serve(&[]);
    eventually("all run", || runs(&place, "stays") > 0 && runs(&place, "leaves") > 0);
    service.stop();
    let (archive, aside) = (place.data().join("archive"), place.path().join("aside"));
    fs::rename(&archive, &aside).unwrap();
    fs::write(&archive, "in the way").unwrap();
    let left = runs(&place, "leaves");

    // It has left the file while its store was away: it never runs again.
    place.config(&format!("{stores}{here}{}", task("new", "archive")));
    let said = place.run(&["serve", "--config", "callboard.toml", "--strict"]);
    assert_eq!(said.code, 6, "{said:?}");
    assert!(said.err.contains("store `archive`"), "{said:?}");
    let service = serve_saying(&place, &["store archive is down; 2 tasks of the configuration wait for it"]);
    beat(&place);
    // The tasks of the store that works are listed all the same.
    let listed = place.run(&["list"]);
    assert!(listed.code == 10 && listed.out.contains("beat"), "{listed:?}");
    assert!(listed.err.contains("the tasks of archive are not listed: ") && !listed.out.contains("stays"));
    let listed = place.run(&["list", "--json"]);
    let tasks: Value = serde_json::from_str(&listed.out).unwrap();
    assert!(listed.code == 10 && tasks.as_array().unwrap().len() == 1, "{listed:?}");
    let stays = runs(&place, "stays");
    fs::remove_file(&archive).unwrap();
    fs::rename(&aside, &archive).unwrap();
    service.line("removed, because they left the configuration: leaves");
    eventually("it goes on", || runs(&place, "stays") > stays && runs(&place, "new") > 0);
    beat(&place);
    assert_eq!(runs(&place, "leaves"), left);
    assert_eq!(ids(&place), ["beat", "new", "stays"]);
    service.stop();
}

#[test]
fn what_has_finished_is_known_for_as_long_as_it_stands_in_the_file() {
    let place = Place::new();
    let note = note(&place);
    let soon = callboard::clock::Clock::system().now() + chrono::TimeDelta::seconds(2);
    let once = format!(
        "[task.once]\nevery = '100ms'\nmax_runs = 1\n{note}\n\
         [task.thrice]\nevery = '100ms'\nmax_runs = 3\nwhen_finished = 'remove'\n{note}\n\
         [task.kept]\nevery = '100ms'\nmax_runs = 1\nwhen_finished = 'keep'\n{note}\n\
         [task.at]\nat = '{}'\n{note}\n",
        soon.to_rfc3339()
    );
    let beat_task = format!("[task.beat]\nevery = '200ms'\n{note}\n");
    place.config(&format!("{once}{beat_task}"));
    let counted = || ["once", "thrice", "kept", "at"].map(|id| runs(&place, id));
    let service = serve_saying(&place, &["task thrice: when_finished = \"remove\" waits until it leaves"]);
    eventually("all have run", || counted() == [1, 3, 1, 1]);
    beat(&place);
    assert_eq!(ids(&place), ["at", "beat", "kept", "once", "thrice"]);
    service.stop();
    for restart in 0..3 {
        let service = place.serve(&[]);
        beat(&place);
        assert_eq!(counted(), [1, 3, 1, 1], "restart {restart}");
        assert_eq!(place.json(&["inspect", "once"])["task"]["schedule_state"], "finished");
        service.kill();
    }
    // What leaves the file is forgotten, and is new when it comes back.
    place.config(&beat_task);
    let service =
        serve_saying(&place, &["removed, because they left the configuration: at, kept, once, thrice"]);
    assert_eq!(ids(&place), ["beat"]);
    service.stop();
    place.config(&format!("{once}{beat_task}"));
    let service = serve_saying(&place, &["not added, because their time is over: at"]);
    eventually("all have run again", || counted() == [2, 6, 2, 1]);
    service.stop();
}

/// Every key of a task, by a name for the task: the lines of before and after.
const EDITS: [(&str, &str); 34] = [
    ("executor", "every = '40d'|every = '40d'\nexecutor = 'pool'"),
    ("store", "every = '40d'|every = '40d'\nstore = 'archive'"),
    ("store_and_every", "every = '40d'|every = '80d'\nstore = 'archive'"),
    ("store_paused", "every = '40d'|every = '40d'\nstore = 'archive'\npaused = true"),
    ("timezone", "every = '40d'|every = '40d'\ntimezone = 'Asia/Tokyo'"),
    ("timezone_of_cron", "cron = '0 3 1 1 *'|cron = '0 3 1 1 *'\ntimezone = 'Asia/Tokyo'"),
    ("cron_to_every", "cron = '0 3 1 1 *'|every = '60d'"),
    ("every_to_cron", "every = '40d'|cron = '0 3 1 1 *'"),
    ("every_longer", "every = '40d'|every = '80d'"),
    ("every_shorter", "every = '80d'|every = '40d'"),
    ("at", "at = '2037-01-01T00:00:00Z'|at = '2038-01-01T00:00:00Z'"),
    ("trigger", "trigger = 'every 40d'|trigger = { type = 'interval', seconds = 6912000 }"),
    ("args", "every = '40d'|every = '40d'\nname = 'other'\nuserdata = { a = 1 }"),
    ("max_runs_more", "every = '40d'\nmax_runs = 1|every = '40d'\nmax_runs = 9"),
    ("max_runs_less", "every = '40d'\nmax_runs = 9|every = '40d'\nmax_runs = 1"),
    ("max_runs_gone", "every = '40d'\nmax_runs = 1|every = '40d'"),
    ("start_at", "every = '40d'|every = '40d'\nstart_at = 2037-01-01"),
    ("start_at_past", "every = '40d'|every = '40d'\nstart_at = 2020-01-01"),
    ("end_at", "every = '40d'|every = '40d'\nend_at = 2038-01-01"),
    ("end_at_past", "every = '40d'|every = '40d'\nend_at = 2020-01-01"),
    ("paused", "every = '40d'|every = '40d'\npaused = true"),
    ("first_run_now", "every = '40d'|every = '40d'\nfirst_run_now = true"),
    ("name", "every = '40d'|every = '40d'\nname = 'another'"),
    ("userdata", "every = '40d'|every = '40d'\nuserdata = { team = 'ops' }"),
    ("retry", "every = '40d'|every = '40d'\nretry = 3"),
    ("recover", "every = '40d'|every = '40d'\nrecover = true"),
    ("timeout", "every = '40d'|every = '40d'\ntimeout = '10m'"),
    ("overlap", "every = '40d'|every = '40d'\noverlap = 'queue 3'"),
    ("coalesce", "every = '40d'|every = '40d'\ncoalesce = 'all'"),
    ("max_catch_up", "every = '40d'|every = '40d'\nmax_catch_up = 7"),
    ("max_instances", "every = '40d'|every = '40d'\nmax_instances = 3"),
    ("misfire_grace", "every = '40d'|every = '40d'\nmisfire_grace = '5m'"),
    ("when_finished", "every = '40d'|every = '40d'\nwhen_finished = 'remove'"),
    ("shell_to_http", "every = '40d'|every = '40d'"),
];

#[test]
fn no_edit_of_any_key_makes_a_second_task_or_a_run_too_many() {
    let place = Place::new();
    let note = note(&place);
    let head = format!(
        "[store.archive]\ntype = 'file'\npath = 'archive'\n[executor.pool]\ntype = 'threadpool'\n[executor.default]\n\
         type = 'async'\n[task.beat]\nevery = '200ms'\n{note}\n"
    );
    let config = |after: bool| {
        let mut text = head.clone();
        for (id, edit) in EDITS {
            let (before, later) = edit.split_once('|').unwrap();
            let when = if after { later } else { before };
            let what = match (id, after) {
                ("shell_to_http", true) => "http = 'GET http://127.0.0.1:9/'",
                _ => &note,
            };
            write!(text, "[task.{id}]\n{when}\n{what}\n").unwrap();
        }
        text
    };
    place.config(&config(false));
    let service = place.serve(&[]);
    // Each has run once, and the next time is far away.
    for (id, _) in EDITS {
        // Refused where its first run goes on.
        place.run(&["run", id]);
    }
    eventually("all have run", || EDITS.iter().all(|(id, _)| runs(&place, id) > 0));
    place.until(&["list"], |list| list.as_array().unwrap().iter().all(|task| task["running"] == 0));
    let before = stored(&place);
    let counted = EDITS.map(|(id, _)| runs(&place, id));
    place.json(&["pause", "store"]);
    service.stop();

    for (round, after) in [(1, true), (2, true), (3, false), (4, false), (5, true)] {
        place.config(&config(after));
        let service = match round {
            1 => serve_saying(
                &place,
                &[
                    "task store: moved from store default to store archive",
                    "task store_and_every: moved from store default to store archive",
                    "task paused: paused = true is ignored",
                    "task first_run_now: first_run_now = true is ignored",
                ],
            ),
            3 => serve_saying(&place, &["task store: moved from store archive to store default"]),
            _ => place.serve(&[]),
        };
        beat(&place);
        let list = stored(&place);
        let mut names: Vec<_> = EDITS.iter().map(|(id, _)| *id).chain(["beat"]).collect();
        names.sort_unstable();
        assert_eq!(ids(&place), names, "round {round}: each task is there once");
        for ((id, _), count) in EDITS.iter().zip(counted) {
            assert_eq!(runs(&place, id), count, "round {round}: {id} has not run again");
            let of = |list: &[Value]| list.iter().find(|task| task["id"] == *id).unwrap().clone();
            let (was, is) = (of(&before), of(&list));
            assert_eq!(is["runs"], was["runs"], "round {round}: {id}");
            assert_eq!(is["created_at"], was["created_at"], "round {round}: {id} is the same task");
            let moved = after && ["store", "store_and_every", "store_paused"].contains(id);
            assert_eq!(is["store"], if moved { "archive" } else { "default" }, "round {round}: {id}");
            assert_eq!(is["paused"], *id == "store", "round {round}: {id}");
            let history = place.json(&["inspect", id])["runs"].as_array().unwrap().len();
            assert!(history > 0, "round {round}: the history of {id} is where it was");
        }
        if round % 2 == 0 { service.kill() } else { drop(service.stop()) }
    }
}

#[test]
fn two_copies_of_a_task_that_a_cut_off_move_has_left_become_one() {
    let place = Place::new();
    let note = note(&place);
    let stores = "[store.default]\ntype = 'file'\npath = 'a'\n[store.archive]\ntype = 'file'\npath = 'b'\n";
    let task = |store: &str| format!("[task.x]\nevery = '1h'\nstore = '{store}'\n{note}\n");
    let beat_task = format!("[task.beat]\nevery = '200ms'\n{note}\n");
    place.config(&format!("{stores}{}{beat_task}", task("default")));
    let service = place.serve(&[]);
    // It runs once when it is added, and then an hour later.
    place.until(&["inspect", "x"], |answer| answer["runs"][0]["end"]["outcome"] == "executed");
    service.stop();
    let count = runs(&place, "x");
    assert_eq!(count, 1);
    let (from, to) = (place.data().join("a/tasks/x.json"), place.data().join("b/tasks/x.json"));
    let record = fs::read(&from).unwrap();
    // As a kill between the two writes of a move leaves it, whatever the file says at the next start.
    for named in ["archive", "default", "archive"] {
        for path in [&from, &to] {
            fs::write(path, &record).unwrap();
        }
        place.config(&format!("{stores}{}{beat_task}", task(named)));
        let service = place.serve(&[]);
        beat(&place);
        assert_eq!(ids(&place), ["beat", "x"], "{named}");
        assert_eq!(runs(&place, "x"), count, "{named}");
        service.stop();
    }
}

#[test]
fn thousands_of_tasks_are_registered_while_others_run_and_a_signal_is_obeyed() {
    let place = Place::new();
    let note = note(&place);
    let beat_task = format!("[task.beat]\nevery = '100ms'\n{note}\n");
    place.config(&beat_task);
    place.serve(&[]).stop();
    let mut config = beat_task;
    for number in 0..8000 {
        write!(config, "[task.t{number}]\ncron = '0 3 1 1 *'\nshell = 'true'\n").unwrap();
    }
    place.config(&config);

    let service = place.spawn(&[]);
    service.line("8001 tasks (1 of them kept from before)");
    // It answers, and what was there runs, while the rest is being added.
    let before = runs(&place, "beat");
    assert!(ids(&place).contains(&"beat".to_owned()));
    eventually("it runs", || runs(&place, "beat") > before);
    service.stop();

    let service = place.spawn(&[]);
    service.line("8001 tasks");
    let begin = Instant::now();
    service.signal(Signal::TERM);
    let (code, rest) = service.end();
    assert_eq!(code, 0, "{rest}");
    assert!(rest.ends_with("stopped\n"), "{rest}");
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());

    // What was not registered is at the next start.
    let service = place.serve(&[]);
    assert_eq!(ids(&place).len(), 8001);
    service.stop();
}

#[test]
fn equal_intervals_of_a_file_do_not_run_together() {
    const TASKS: usize = 6000;
    let place = Place::new();
    let note = note(&place);
    let mut config = format!("[store.default]\ntype = 'memory'\n[task.beat]\nevery = '200ms'\n{note}\n");
    for number in 0..TASKS {
        write!(config, "[task.t{number}]\nevery = '1h'\n{note}\n").unwrap();
    }
    write!(config, "[task.first]\nevery = '1h'\nfirst_run_now = true\n{note}\n").unwrap();
    write!(config, "[task.at_once]\nevery = '1h'\nspread = false\n{note}\n").unwrap();
    place.config(&config);
    let service = serve_saying(&place, &["6000 tasks run first at places of their own"]);
    eventually("what is not spread runs at once", || runs(&place, "first") + runs(&place, "at_once") == 2);
    beat(&place);
    let tasks = stored(&place);
    let of_many = |task: &&Value| task["id"].as_str().unwrap().starts_with('t');
    let mut minutes = [0; 60];
    for task in tasks.iter().filter(of_many) {
        let next: chrono::DateTime<chrono::Utc> = task["next"]["nominal"].as_str().unwrap().parse().unwrap();
        minutes[(next.timestamp() / 60 % 60) as usize] += 1;
    }
    assert!(minutes.iter().all(|tasks| (40..200).contains(tasks)), "{minutes:?}");
    let ran: u64 = tasks.iter().filter(of_many).map(|task| task["runs"].as_u64().unwrap()).sum();
    assert!(ran < 1000, "{ran} ran since the start");

    // What is shown beforehand is what was planned.
    let planned = &place.json(&["inspect", "t17"]);
    let next = place.json(&["next", "every 1h", "--id", "t17", "--spread", "--count", "1"]);
    assert_eq!(next["next"][0].as_str().unwrap()[14..23], planned["next"][0].as_str().unwrap()[14..23]);
    let why = place.json(&["why", "t17"]);
    let times = why["times"].as_array().unwrap();
    assert_eq!(times.last().unwrap()["nominal"], planned["task"]["next"]["nominal"], "{why}");
    let wrong = place.run(&["next", "0 * * * *", "--id", "t17", "--spread"]);
    assert!(wrong.code == 3 && wrong.err.contains("an interval that names no start"), "{wrong:?}");
    service.stop();
}
