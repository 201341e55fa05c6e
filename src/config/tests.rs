use super::*;
use crate::backoff::Backoff;
use crate::store::{Durability, Exports};
use crate::task::{Coalesce, Overlap, Retry, WhenFinished};

fn problems(text: &str) -> String {
    Settings::from_toml(text, "test.toml").map(|_| ()).unwrap_err().to_string()
}

const TASK: &str = "[task.a]\nevery = '5s'\nshell = 'true'\n";

#[test]
fn an_empty_file_is_a_service_without_tasks() {
    let settings = Settings::from_toml("", "test").unwrap();
    assert!(settings.tasks.is_empty());
    assert_eq!(settings.grace, DEFAULT_GRACE);
    assert_eq!(settings.stores.len(), 1);
}

#[test]
fn everything_can_be_said() {
    let text = r#"
        [scheduler]
        name = "night"
        timezone = "Europe/Lisbon"
        grace = "1m"
        store_retry = "2s"
        lock_path = "{store}.lock"
        startup_delay = "3s"
        replan_after_jump = "2h"
        [defaults]
        max_instances = "3"
        coalesce = "false"
        overlap = "queue 2"
        timeout = "10m"
        retry = 2
        recover = true
        misfire_grace = "90s"
        executor = "pool"
        [store.default]
        type = "memory"
        history = 0
        [store.kept]
        type = "sled"
        path = "here"
        [executor.pool]
        type = "threadpool"
        workers = 2
        [task."a b.c"]
        every = "1h30m"
        http = "POST http://localhost/"
        executor = "pool"
        store = "kept"
        userdata = { team = "ops" }
        misfire_grace = "unlimited"
        timeout = "unlimited"
        coalesce = "earliest"
        overlap = "cancel_running"
        retry = { times = 3, first = "2s", factor = 3, cap = "1m", jitter = 0.5 }
        start_at = 2027-01-01T00:00:00
        end_at = "2028-01-01T00:00:00Z"
        max_runs = 10
        description = "posts the day"
        when_finished = "keep"
        first_run_now = true
    "#;
    let settings = Settings::from_toml(text, "test").unwrap();
    assert_eq!(settings.timezone, chrono_tz::Europe::Lisbon);
    assert_eq!(settings.defaults.max_instances, 3);
    let delay = Duration::from_secs(3);
    assert_eq!((settings.lock_path.as_deref(), settings.startup_delay), (Some("{store}.lock"), Some(delay)));
    assert_eq!(settings.replan_after_jump, Some(Duration::from_secs(7200)));
    assert_eq!(settings.defaults.coalesce, crate::task::Coalesce::All);
    assert_eq!(
        settings.stores[&Alias::default_alias()],
        StoreSettings::Memory(History { most: Some(0), ..History::default() })
    );
    assert_eq!(settings.executors[&Alias::new("pool").unwrap()], ExecutorSettings::ThreadPool { workers: 2 });
    let TaskDefaults { overlap, timeout, retry, recover, .. } = settings.defaults;
    assert_eq!((overlap, timeout), (Overlap::Queue(2), Some(Duration::from_secs(600))));
    assert_eq!((retry, recover), (Some(Retry::times(2)), true));
    let task = &settings.tasks[0];
    let spec = task.task().resolve(&settings.defaults, settings.timezone).unwrap();
    assert_eq!((spec.overlap, spec.timeout, spec.recover), (Overlap::CancelRunning, None, true));
    let backoff =
        Backoff::exponential(Duration::from_secs(2), Duration::from_secs(60)).factor(3.0).jitter(0.5);
    assert_eq!(spec.retry, Some(Retry::times(3).backoff(backoff)));
    assert_eq!((spec.coalesce, spec.max_runs), (Coalesce::Earliest, Some(10)));
    assert_eq!(spec.description.as_deref(), Some("posts the day"));
    assert_eq!(spec.when_finished, WhenFinished::Keep);
    let times = [spec.start_at, spec.end_at].map(|at| at.unwrap().to_rfc3339());
    assert_eq!(times, ["2027-01-01T00:00:00+00:00", "2028-01-01T00:00:00+00:00"]);
    assert_eq!(task.id().as_str(), "a b.c");
    assert_eq!(task.handler(), "http");
    assert_eq!(task.args(), &serde_json::json!({ "method": "POST", "url": "http://localhost/" }));
}

#[test]
fn policies_that_cannot_be_are_refused_with_their_places() {
    let task = |line: &str| problems(&format!("[task.a]\nevery = '5s'\nshell = 'true'\n{line}\n"));
    for (line, said) in [
        ("coalesce = 'sometimes'", "latest, earliest or all"),
        ("overlap = 'queue 0'", "queue N (at least 1)"),
        ("timeout = '0s'", "shorter than a millisecond"),
        ("retry = -1", "a whole number of 0 or more"),
        ("retry = { first = '1s' }", "task.a.retry.times: is missing"),
        ("retry = { times = 1, jitter = 2 }", "a number from 0 to 1"),
        ("retry = { times = 1, last = '1s' }", "unknown key"),
        ("start_at = 'soon'", "soon"),
        ("end_at = '2027-01-01'\nstart_at = '2027-01-02'", "task.a.end_at"),
        ("max_runs = 0", "at least 1"),
        ("when_finished = 'celebrate'", "remove or keep"),
    ] {
        let found = task(line);
        assert!(found.contains(said) && found.contains(":4"), "{line}: {found}");
    }
    let json =
        serde_json::json!({ "id": "a", "every": "5s", "shell": "true", "start_at": "2027-01-01T00:00:00" });
    let error = TaskSettings::from_json(json).unwrap_err().to_string();
    assert!(error.contains("names no zone"), "{error}");
}

#[test]
fn all_problems_are_reported_with_their_lines() {
    let text = "[scheduler]\ntimezone = 'Europe/Lisbo'\nnme = 'x'\n[task.a]\nevery = 5\nshell = 'true'\ncolour = 1\n[tusk]\n";
    let all = problems(text);
    let lines: Vec<&str> = all.lines().collect();
    assert_eq!(lines.len(), 5, "{all}");
    assert!(lines[0].starts_with("test.toml:2: scheduler.timezone: is \"Europe/Lisbo\""), "{all}");
    assert!(
        lines[1].starts_with("test.toml:3: scheduler.nme: unknown key; valid here are name, timezone"),
        "{all}"
    );
    assert!(lines[2].contains(":5: task.a.every: is the number 5") && lines[2].contains("\"5s\""), "{all}");
    assert!(lines[3].contains(":7: task.a.colour: unknown key") && lines[3].contains("cron, every"), "{all}");
    assert!(lines[4].contains(":8: tusk: unknown key; valid here are scheduler, defaults"), "{all}");
}

/// Every key that the documentation of the module shows, by section.
fn documented() -> BTreeMap<String, Vec<String>> {
    let mut sections: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut section = String::new();
    let text = include_str!("mod.rs").lines().map_while(|line| line.strip_prefix("//!"));
    for line in text.map(str::trim_start) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.split([']', '.']).next()) {
            section = name.to_owned();
        } else if let Some((key, _)) = line.split_once(" = ")
            && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        {
            sections.entry(section.clone()).or_default().push(key.to_owned());
        }
    }
    sections
}

#[cfg(all(unix, feature = "process", feature = "sled", feature = "encryption"))]
#[test]
fn an_unknown_key_is_answered_with_all_that_are_valid_and_the_one_that_was_meant() {
    let documented = documented();
    assert_eq!(documented.keys().collect::<Vec<_>>(), ["defaults", "executor", "scheduler", "store", "task"]);
    for (section, head) in [
        ("scheduler", "[scheduler]"),
        ("defaults", "[defaults]"),
        ("store", "[store.x]\ntype = 'sled'"),
        ("executor", "[executor.x]\ntype = 'processpool'"),
        ("task", TASK),
    ] {
        let known = &documented[section];
        assert!(known.len() > 2, "{section}");
        let found = problems(&format!("{head}\nqqqqqq = 1"));
        assert!(!found.contains("did you mean"), "{found}");
        let listed: Vec<_> = found.split("valid here are ").nth(1).unwrap().split(", ").collect();
        for key in known {
            assert!(listed.contains(&key.as_str()), "{section}: {key} is not in {listed:?}");
            // With two letters the other way round, a letter too many, a capital.
            let swapped =
                format!("{}{}{}", &key[..1], key[1..3].chars().rev().collect::<String>(), &key[3..]);
            for slip in [swapped, format!("{key}s"), key.to_uppercase(), key.replace('_', "-")] {
                if listed.contains(&slip.as_str()) {
                    continue;
                }
                let found = problems(&format!("{head}\n{slip} = 1"));
                assert!(found.contains(&format!("; did you mean {key}?")), "{slip}: {found}");
            }
        }
    }
    let found = problems(&format!("{TASK}[tasks.b]\nevery = '5s'"));
    assert!(found.contains("tasks: unknown key") && found.contains("did you mean task?"), "{found}");
}

#[test]
fn a_time_needs_no_seconds() {
    for at in ["2026-12-31T09:00Z", "'2026-12-31T09:00Z'", "2026-12-31 10:00+01:00", "2026-12-31T09:00:00Z"] {
        let read = |text: &str| Settings::from_toml(text, "test").map(|settings| settings.tasks[0].clone());
        let task = read(&format!("[task.a]\nat = {at}\nshell = 'true'")).unwrap();
        assert_eq!(task.trigger(), &"once at 2026-12-31T09:00:00Z".parse().unwrap(), "{at}");
        let window = read(&format!("{TASK}start_at = {at}\nend_at = {at}")).unwrap().task();
        let spec = window.resolve(&TaskDefaults::default(), crate::trigger::Zone::UTC).unwrap();
        let nine = Some("2026-12-31T09:00:00Z".parse().unwrap());
        assert_eq!((spec.start_at, spec.end_at), (nine, nine), "{at}");
        let trigger = format!("{{ type = 'interval', seconds = 5, start_at = {at} }}");
        read(&format!("[task.a]\ntrigger = {trigger}\nshell = 'true'")).unwrap();
    }
}

#[test]
fn syntax_errors_name_the_line() {
    assert!(problems("[scheduler]\nname = \n").contains("test.toml:2: this is no TOML"));
    assert!(problems(&format!("{TASK}{TASK}")).contains("test.toml:4: "));
}

#[test]
fn a_task_says_when_and_what_exactly_once() {
    let cases = [
        ("[task.a]\nshell = 'x'", "says not when"),
        ("[task.a]\nevery = '5s'", "says not what"),
        ("[task.a]\nevery = '5s'\nat = 2027-01-01T00:00:00Z\nshell = 'x'", "every and at"),
        ("[task.a]\nevery = '5s'\nhttp = 'x'\nshell = 'x'", "only one"),
        ("[task.a]\nevery = '5s'\nshell = 'x'\nargs = {}", "belongs to `handler`"),
        ("[task.a]\nevery = '0s'\nshell = 'x'", "is zero"),
        ("[task.\"\"]\nevery = '5s'\nshell = 'x'", "id is empty"),
        ("[task.a]\nevery = '5s'\nshell = 'x'\nmax_instances = 0", "at least 1"),
        ("[task.a]\nevery = '5s'\nshell = 'x'\nuserdata = 1", "must be a table"),
        ("[store.x]\ntype = 'redis'", "it must be \"sled\", \"redb\", \"file\" or \"memory\""),
        ("[store.x]\ntype = 'memory'\npath = 'x'", "a memory store has no path"),
        ("[store.x]\ntype = 'memory'\ndurability = 'fsync'", "a memory store has no durability"),
        (
            "[store.x]\ntype = 'memory'\ndurability = 'fsync'",
            "test.toml:3: store.x.durability: a memory store has no",
        ),
        ("[store.x]\ntype = 'memory'\nhistory_size = 5", "write \"5B\" for bytes"),
        ("[store.x]\ntype = 'redb'\nhistory_size = '5 buckets'", "history_size: is \"5 buckets"),
        ("[store.x]\ntype = 'redb'\nhistory_size = '99999999999GB'", "it must be a size such as"),
        ("[store.x]\ntype = 'redb'\nhistory_age = 7", "history_age: is the number 7"),
        ("[store.x]\ntype = 'redb'\nhistory_least = -1", "a whole number of 0 or more"),
        ("[store.x]\ntype = 'memory'\nset_aside = true", "a memory store has no set_aside"),
        ("[store.x]\ntype = 'memory'\nkey_env = 'KEY'", "a memory store has no key_env"),
        ("[store.x]\ntype = 'sled'\nexports = 5", "store.x.exports: is the number 5; it must be a table"),
        ("[store.x]\ntype = 'sled'\nexports = { keep = 3 }", "store.x.exports.every: is missing"),
        ("[store.x]\ntype = 'sled'\nexports = { every = '1h', keep = 0 }", "at least 1"),
        ("[store.x]\ntype = 'sled'\ndurability = 'often'", "store.x.durability"),
        ("[store.x]\ntype = 'sled'\ndurability = true", "or \"fsync\""),
        (
            "[store.x]\ntype = 'sled'\ncache = 5",
            "valid here are type, path, durability, set_aside, history, history_least, history_age, history_size, exports",
        ),
        ("[executor.x]\nworkers = 2", "type: is missing"),
        ("[executor.x]\ntype = 'debug'\nlimits = { shell = 2 }", "only an \"async\" executor has limits"),
        ("[executor.x]\ntype = 'async'\nlimits = { shell = 0 }", "limits: must be a table of handlers"),
        ("[executor.x]\ntype = 'async'\nlimits = 5", "limits: must be a table of handlers"),
        (
            "[executor.x]\ntype = 'async'\nworkers = 2",
            "only a \"threadpool\" or a \"processpool\" has workers",
        ),
        ("[executor.x]\ntype = 'threadpool'\nrecycle_after = 2", "only a \"processpool\" has recycle_after"),
        ("[executor.x]\ntype = 'process'", "it must be \"async\", \"threadpool\""),
        ("task = 5", "it must be a table"),
    ];
    for (text, expected) in cases {
        let found = problems(text);
        assert!(found.contains(expected), "{text}: {found}");
    }
}

#[test]
fn a_task_from_json_has_the_same_keys() {
    let json = serde_json::json!({ "id": "a", "every": "5s", "shell": "true", "replace": true });
    assert_eq!(TaskSettings::from_json(json).unwrap().id().as_str(), "a");
    let json = serde_json::json!({ "id": "", "every": "5s", "shell": "true" });
    assert!(TaskSettings::from_json(json).unwrap_err().to_string().contains("id is empty"));
    let json = serde_json::json!({ "id": "x".repeat(300), "evry": "5s", "shell": "true" });
    assert_eq!(TaskSettings::from_json(json).unwrap_err().problems.len(), 3);
    assert!(TaskSettings::from_json(serde_json::json!(5)).is_err());
    assert!(TaskSettings::from_json(serde_json::Value::Null).is_err());
}

#[cfg(all(feature = "sled", feature = "redb", feature = "file"))]
#[test]
fn durable_stores_have_a_place_and_a_promise() {
    let read = |text: &str| {
        let settings = Settings::from_toml(text, "test").unwrap();
        settings.stores[&Alias::default_alias()].clone()
    };
    let directory = |path: &str, durability| Directory { durability, ..Directory::new(path) };
    let sled = |path: &str, durability| StoreSettings::Sled(directory(path, durability));
    let redb = |path: &str, durability| StoreSettings::Redb(directory(path, durability));
    let often = Durability::Interval(Duration::from_millis(200));
    assert_eq!(read(""), sled("store", Durability::Fsync));
    assert_eq!(
        read("[store.default]\ntype = 'sled'\ndurability = 'fsync'"),
        sled("store", Durability::Fsync)
    );
    assert_eq!(read("[store.default]\ntype = 'redb'"), redb("store-redb", Durability::Fsync));
    let file = Directory { set_aside: true, ..directory("store-file", often) };
    let text = "[store.default]\ntype = 'file'\ndurability = '200ms'\nset_aside = true";
    assert_eq!(read(text), StoreSettings::File(file));
    let text = "[store.default]\ntype = 'sled'\nexports = { every = '1h', keep = 3, dir = 'backups' }";
    let exports = Exports::every(Duration::from_secs(3600)).keep(3).dir("backups");
    assert_eq!(
        read(text),
        StoreSettings::Sled(Directory { exports: Some(exports), ..Directory::new("store") })
    );
    let text = "[store.default]\ntype = 'file'\nhistory = 1000\nhistory_age = '30d'\n\
                history_least = 0\nhistory_size = '64 MiB'";
    let age = Some(Duration::from_secs(30 * 86_400));
    let history = History { most: Some(1000), least: Some(0), age, size: Some(64 << 20) };
    let kept = Directory { history, ..Directory::new("store-file") };
    assert_eq!(read(text), StoreSettings::File(kept));
    let text = "[store.default]\ntype = 'redb'\npath = 'here'\ndurability = '200ms'";
    assert_eq!(read(text), redb("here", often));
    let directory = std::path::Path::new("/nowhere");
    assert!(Settings::from_toml(text, "test").unwrap().builder(directory).is_ok(), "opened at the start");
}

#[cfg(all(feature = "sled", feature = "encryption"))]
#[test]
fn keys_are_named_and_never_shown() {
    let secret = "9f1c5a44c1a9a1c8a4f0f7b6e2d3c4b5a69788796a5b4c3d2e1f00112233445f";
    let read = |line: &str| {
        let text = format!("[store.default]\ntype = 'sled'\n{line}");
        Settings::from_toml(&text, "test").map(|settings| settings.stores[&Alias::default_alias()].clone())
    };
    let keys = |line: &str| match read(line).unwrap() {
        StoreSettings::Sled(directory) => directory.keys.unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(keys("key_file = 'keys'"), KeySettings::File("keys".into()));
    assert_eq!(keys("key_env = 'KEYS'"), KeySettings::Variable("KEYS".to_owned()));
    let given = keys(&format!("key = '{secret}'\nrefuse_plain = true"));
    assert!(matches!(given, KeySettings::Given(_)) && !format!("{given:?}").contains(&secret[..8]));
    let refused = |line: &str| read(line).unwrap_err().to_string();
    let short = refused(&format!("key = '{}'", &secret[2..]));
    assert!(short.contains("default.key: key 1 is not valid") && !short.contains(&secret[2..12]), "{short}");
    assert!(refused("key = 5").contains("must be text"));
    assert!(refused("key_env = 'A'\nkey_file = 'b'").contains("more than one place"));
    assert!(refused("refuse_plain = true").contains("needs keys"));
}

#[cfg(all(unix, feature = "process"))]
#[test]
fn a_process_pool_has_its_keys() {
    let executor = |keys: &str| {
        let text = format!("[executor.x]\ntype = 'processpool'\n{keys}");
        Settings::from_toml(&text, "test").unwrap().executors[&Alias::new("x").unwrap()].clone()
    };
    assert_eq!(executor(""), ExecutorSettings::ProcessPool { workers: 4, recycle_after: None });
    assert_eq!(
        executor("workers = 2\nrecycle_after = '100'"),
        ExecutorSettings::ProcessPool { workers: 2, recycle_after: Some(100) }
    );
    let error = problems("[executor.x]\ntype = 'processpool'\nrecycle_after = 0");
    assert!(error.contains("executor.x.recycle_after"), "{error}");
}

#[test]
fn limits_of_handlers_are_those_of_the_file_or_the_program() {
    let text = "[executor.x]\ntype = 'async'\nlimits = { shell = 5, other = '7' }\n";
    let mut settings = Settings::from_toml(text, "test").unwrap();
    settings.limit_handler("shell", 32);
    settings.limit_handler("http", 64);
    let limits = |name: &str| match &settings.executors[&Alias::new(name).unwrap()] {
        ExecutorSettings::Async { limits } => {
            limits.iter().map(|(handler, runs)| (handler.as_str(), *runs)).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(limits("x"), [("http", 64), ("other", 7), ("shell", 5)]);
    assert_eq!(limits("default"), [("http", 64), ("shell", 32)]);
}

#[test]
fn an_interval_that_many_tasks_have_is_spread_unless_something_else_is_said() {
    use std::fmt::Write;

    let spread = |text: &str| -> Vec<String> {
        let settings = Settings::from_toml(text, "file").unwrap();
        let spread = settings.tasks.iter().filter(|task| task.task().spread);
        spread.map(|task| task.id().to_string()).collect()
    };
    let mut many = String::new();
    for number in 0..=SPREAD_ABOVE {
        // The same length, whatever it is called.
        let every = if number % 2 == 0 { "1h" } else { "60m" };
        write!(many, "[task.t{number:02}]\nevery = '{every}'\nshell = 'true'\n").unwrap();
    }
    let few = many.rsplit_once("[task.").unwrap().0;
    let others = "[task.at_once]\nevery = '1h'\nspread = false\nshell = 'true'\n\
                  [task.first]\nevery = '1h'\nfirst_run_now = true\nshell = 'true'\n\
                  [task.begins]\nevery = '1h'\nstart_at = 2099-01-01\nshell = 'true'\n\
                  [task.own]\ntrigger = 'every 1h from 2099-01-01T00:00:00Z'\nshell = 'true'\n\
                  [task.cron]\ncron = '0 * * * *'\nshell = 'true'\n\
                  [task.two]\nevery = '2h'\nshell = 'true'\n";
    let all: Vec<String> = (0..=SPREAD_ABOVE).map(|number| format!("t{number:02}")).collect();
    assert_eq!(spread(few), [""; 0]);
    assert_eq!(spread(&format!("{many}{others}")), all);
    assert_eq!(spread(&format!("[scheduler]\nspread = false\n{many}")), [""; 0]);
    let open = Settings::from_toml(&format!("[scheduler]\nspread = true\n{others}"), "file").unwrap();
    let open: Vec<_> =
        open.tasks.iter().filter(|task| task.task().spread && task.open_interval().is_some()).collect();
    assert_eq!(open.iter().map(|task| task.id().as_str()).collect::<Vec<_>>(), ["two"]);
}
