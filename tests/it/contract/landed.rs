//! What every version that ever landed wrote is read by this one.
//!
//! `tests/fixtures/store/vN.jsonl` has the rows of a whole store as format N wrote them, a key and a
//! value a line; [`tasks`] and [`runs`] are what they mean. The latest file is also what is written
//! today, byte for byte: a change of the format that forgets to raise the version fails here.
//!
//! After raising a version (`store/envelope.rs`), write the next file with
//! `CALLBOARD_LAND=tests/fixtures/store/vN.jsonl cargo test --all-features land_the_format -- --ignored`,
//! and never touch those before it.
//!
//! `export-vN.jsonl` and `sealed-vN.jsonl` are exports of such a store, plain and encrypted with [`KEY`], from the
//! format on that was the latest when they landed: `CALLBOARD_LAND=N cargo test --all-features land_the_exports --
//! --ignored` writes the next.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ::redb::{Database, TableDefinition};
use callboard::backoff::Backoff;
use callboard::store::contract::{sample, start};
use callboard::store::message::*;
use callboard::store::{FileStore, ImportMode, Keyring, RedbStore, SledStore, StoreSource};
use callboard::task::{
    Alias, Attempt, Backfill, Coalesce, Fire, MisfireGrace, Outcome, Overlap, Refusal, Retry, RunEnd,
    RunRecord, Skip, Source, Span, StoredTask, TaskSpec, TaskState, WhenFinished,
};
use callboard::trigger::{
    And, CalendarInterval, Cron, Crontab, Custom, Date, Except, Fold, Gap, Interval, Or, Quartz, Trigger,
};
use chrono::{DateTime, NaiveDate, Utc};
use chrono_tz::Tz;
use serde_json::{Value, json};

use super::sled::{Running, id, run};
use super::system;

/// The formats there are.
const FORMATS: &[u32] = &[1, 2, 3];

/// The formats of which there are exports.
const EXPORTED: &[u32] = &[3];

/// What the encrypted ones are encrypted with.
const KEY: &str = "6d1f0c5a44c1a9a1c8a4f0f7b6e2d3c4b5a69788796a5b4c3d2e1f0011223344";

/// The task that has runs.
const RUNNING: &str = "запуски ▶ 走";

fn time(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn fire(nominal: &str, due: &str) -> Option<Fire> {
    Some(Fire { nominal: time(nominal), due: time(due) })
}

fn task(
    name: &str,
    spec: impl FnOnce(TaskSpec) -> TaskSpec,
    state: impl FnOnce(TaskState) -> TaskState,
) -> StoredTask {
    let plain = TaskSpec::clone(&sample(name, start()).spec);
    let added = TaskState::new(time("2026-11-21T09:30:00.123456789Z"));
    StoredTask { spec: Arc::new(spec(plain)), state: state(added) }
}

/// Every kind of trigger, every option, times of all centuries: what a format could say.
fn tasks(format: u32) -> Vec<StoredTask> {
    let day = |year, month, day| NaiveDate::from_ymd_opt(year, month, day).unwrap();
    let kinds: Vec<(&str, Trigger)> = vec![
        ("date", trigger(Date::at(time("2038-01-19T03:14:08.000000001Z")))),
        (
            "date without an offset",
            trigger(
                Date::at(day(1969, 12, 31).and_hms_nano_opt(23, 59, 59, 5).unwrap())
                    .timezone(Tz::Europe__Berlin),
            ),
        ),
        ("interval", trigger(Interval::minutes(90))),
        (
            "interval with everything",
            trigger(
                Interval::every(Duration::from_millis(1500))
                    .start_at(time("1901-02-03T04:05:06.789Z"))
                    .end_at(time("2499-12-31T23:59:59.999999999Z"))
                    .timezone(Tz::America__New_York)
                    .jitter(Duration::from_millis(250)),
            ),
        ),
        ("cron", trigger(Cron::builder().day_of_week("mon,wed,fri").hour(8).minute(1).second("5,35"))),
        (
            "cron with everything",
            trigger(
                Cron::builder()
                    .year("2026-2030")
                    .month("1-3")
                    .day("last")
                    .week("*/2")
                    .hour("*")
                    .start_at(time("2026-01-01T00:00:00Z"))
                    .end_at(time("2030-01-01T00:00:00Z"))
                    .timezone(Tz::Asia__Kolkata)
                    .jitter(Duration::from_secs(3))
                    .gap(Gap::Skip)
                    .fold(Fold::Both),
            ),
        ),
        ("crontab", trigger("30 8 * * 1-5".parse::<Trigger>().unwrap())),
        ("crontab of six fields", trigger(Crontab::parse("15 30 8 * * 1-5").unwrap())),
        ("quartz", trigger(Quartz::parse("0 30 8 ? * 2-6").unwrap())),
        (
            "calendar interval",
            trigger(
                CalendarInterval::builder()
                    .years(1)
                    .months(2)
                    .weeks(3)
                    .days(4)
                    .at(2, 30, 5)
                    .start_date(day(2026, 1, 31))
                    .end_date(day(2099, 12, 31))
                    .timezone(Tz::Australia__Lord_Howe)
                    .fold(Fold::Second),
            ),
        ),
        ("or", trigger(Or::of(Interval::hours(1)).or("0 9 * * *".parse::<Trigger>().unwrap()))),
        (
            "and",
            trigger(
                And::of(Interval::minutes(5)).and(Interval::minutes(7)).tolerance(Duration::from_secs(1)),
            ),
        ),
        (
            "except",
            trigger(
                Except::of("0 9 * * *".parse::<Trigger>().unwrap())
                    .date(day(2026, 12, 25))
                    .range(time("2026-08-01T00:00:00Z"), time("2026-08-15T12:00:00.5Z"))
                    .days(day(2027, 1, 1), day(2027, 1, 6))
                    .trigger(Interval::days(3).start_at(time("2026-11-21T09:00:00Z"))),
            ),
        ),
        ("custom", trigger(Custom::new("tides", json!({ "port": "Lisboa", "offsets": [1.5, -2] })))),
        ("shutdown", Trigger::Shutdown),
    ];
    let mut tasks: Vec<_> = kinds
        .into_iter()
        .map(|(name, trigger)| task(name, |spec| TaskSpec { trigger, ..spec }, |state| state))
        .collect();
    let same = |spec: TaskSpec| spec;
    tasks.extend([
        task("paused", same, |state| TaskState {
            paused: true,
            next: fire("2026-11-21T10:30:00Z", "2026-11-21T10:30:00.250Z"),
            ..state
        }),
        task("before 1970", same, |state| TaskState {
            revision: u64::MAX,
            runs: 9_007_199_254_740_993,
            next: fire("1969-12-31T23:59:59.999999999Z", "1970-01-01T00:00:00Z"),
            last_run: Some(time("1583-01-01T00:00:00.000001Z")),
            anchor: time("0001-01-01T00:00:00Z"),
            ..state
        }),
        task("after 2038", same, |state| TaskState {
            revision: 7,
            next: fire("9999-12-31T23:59:59.999999999Z", "9999-12-31T23:59:59.999999999Z"),
            last_run: Some(time("2106-02-07T06:28:16Z")),
            modified_at: time("2262-04-11T23:47:16.854775808Z"),
            ..state
        }),
        task("naïve café ☕ 日本語 👩‍🚀 \"'\\/ {}", same, |state| state),
        task(&"é".repeat(127), same, |state| state),
        task(
            "every option",
            |spec| TaskSpec {
                name: Some("Ein Name".into()),
                args: json!({ "list": "weekly", "numbers": [1, 2.5, -3e-9, u64::MAX], "nothing": null }),
                timezone: Tz::America__Argentina__Buenos_Aires.into(),
                executor: Alias::new("pool").unwrap(),
                coalesce: Coalesce::All,
                max_catch_up: 3,
                max_instances: 4,
                misfire_grace: MisfireGrace::Within(Duration::from_millis(1500)),
                userdata: json!({ "team": "ops" }),
                ..spec
            },
            |state| state,
        ),
        task(RUNNING, same, |state| TaskState { revision: 2, runs: 12, ..state }),
    ]);
    if format >= 2 {
        tasks.extend(tasks_of_format_2());
    }
    if format >= 3 {
        tasks.push(task("begins", same, |state| TaskState {
            begins: Some(time("2027-01-01T00:00:00.000000001Z")),
            ..state
        }));
    }
    tasks.sort_by(|a, b| a.spec.id.cmp(&b.spec.id));
    tasks
}

fn tasks_of_format_2() -> Vec<StoredTask> {
    let of = |name: &str, coalesce, overlap, retry: Option<Retry>| {
        let start_at = time("1969-07-20T20:17:40.000000001Z");
        let spec = |spec| TaskSpec {
            coalesce,
            overlap,
            retry,
            timeout: Some(Duration::from_millis(90_001)),
            recover: true,
            start_at: Some(start_at),
            end_at: Some(time("2150-01-01T00:00:00.25Z")),
            max_runs: Some(u64::MAX),
            when_finished: WhenFinished::Keep,
            ..spec
        };
        let attempt = |number, at| Attempt {
            nominal: start_at,
            due: time("1969-07-20T20:17:41Z"),
            coalesced: 2,
            source: Source::Backfill,
            number,
            interrupted: 0,
            at,
        };
        let backfill = Backfill {
            next: start_at,
            until: time("2026-01-01T00:00:00Z"),
            every_ms: 250,
            at: time("2026-11-21T09:30:00.5Z"),
        };
        task(name, spec, |state| TaskState {
            fired: 11,
            attempts: vec![attempt(1, None), attempt(4, Some(start_at))],
            backfill: Some(Box::new(backfill)),
            ..state
        })
    };
    let backoff = Backoff::exponential(Duration::from_secs(5), Duration::from_secs(300)).jitter(0.2);
    vec![
        of("earliest", Coalesce::Earliest, Overlap::Queue(3), Some(Retry::times(4).backoff(backoff))),
        of("latest", Coalesce::Latest, Overlap::CancelRunning, Some(Retry::times(0))),
        of("overlapping", Coalesce::All, Overlap::Allow, None),
    ]
}

fn trigger(source: impl callboard::trigger::IntoTrigger) -> Trigger {
    source.into_trigger().unwrap()
}

/// Every end that a run can have, and none; latest first.
fn runs(format: u32) -> Vec<RunRecord> {
    let text = || "äußerst: schlecht\n\u{0}\u{1f4a5}".to_owned();
    let refused = |reason| Outcome::Refused { reason };
    let outcomes = [
        Outcome::Executed { value: json!({ "sent": 3, "ratio": 0.1 }) },
        Outcome::Executed { value: Value::Null },
        Outcome::Failed { error: text() },
        Outcome::Panicked { message: text() },
        Outcome::TimedOut { after_ms: 1500 },
        Outcome::Cancelled,
        Outcome::Missed { late_ms: u64::MAX },
        refused(Refusal::MaxInstances { max: 2 }),
        refused(Refusal::UnknownExecutor { executor: "pool".to_owned() }),
        refused(Refusal::UnknownHandler { handler: "send".to_owned() }),
        refused(Refusal::ExecutorUnavailable { executor: "pool".to_owned(), reason: text() }),
        refused(Refusal::QueueFull { executor: "pool".to_owned(), limit: 10 }),
        Outcome::Coalesced { into: time("2026-11-21T09:30:00.5Z") },
        Outcome::Interrupted { reason: text() },
    ];
    let ended = outcomes.into_iter().zip(1..).map(|(outcome, serial)| {
        let mut end = RunEnd::unstarted(outcome, time("2026-11-21T09:30:01.000000001Z"));
        if serial % 2 == 0 {
            end.started_at = Some(time("1969-07-20T20:17:40.25Z"));
            end.duration = Duration::from_nanos(1_500_000_001);
        }
        RunRecord { end: Some(end), ..run(RUNNING, serial) }
    });
    let open = RunRecord {
        nominal: time("2040-02-29T12:00:00.000000007Z"),
        coalesced: 41,
        source: Source::Manual,
        attempt: 3,
        ..run(RUNNING, 20)
    };
    let shutdown = RunRecord { source: Source::Shutdown, ..run(RUNNING, 21) };
    let mut runs: Vec<_> = ended.chain([open, shutdown]).collect();
    if format >= 2 {
        let failed = Outcome::Failed { error: text() };
        let mut end = RunEnd::unstarted(failed, time("2026-11-21T09:30:01Z"));
        end.retry_at = Some(time("2026-11-21T09:30:06.5Z"));
        runs.push(RunRecord { source: Source::Backfill, attempt: 2, end: Some(end), ..run(RUNNING, 22) });
    }
    if format >= 3 {
        let span = |from, until| Some(Span { from: time(from), until: time(until) });
        let end = |because| RunEnd::unstarted(Outcome::Skipped { because }, time("2026-11-21T09:40:00Z"));
        let skips = [Skip::Paused, Skip::Rescheduled, Skip::Removed].into_iter().zip(23..);
        runs.extend(skips.map(|(because, serial)| RunRecord {
            coalesced: 9,
            span: span("1969-07-20T20:17:40.25Z", "2026-11-21T09:40:00.000000001Z"),
            end: Some(end(because)),
            ..run(RUNNING, serial)
        }));
    }
    runs.reverse();
    runs
}

fn latest() -> u32 {
    FORMATS.iter().copied().max().unwrap()
}

type Rows = Vec<(Vec<u8>, Vec<u8>)>;

fn file(format: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/store/v{format}.jsonl"))
}

fn fixture(format: u32) -> Rows {
    let text = fs::read_to_string(file(format)).unwrap();
    let row = |line: &str| -> (Vec<u8>, Vec<u8>) {
        let [key, value]: [String; 2] = serde_json::from_str(line).unwrap();
        (key.into_bytes(), value.into_bytes())
    };
    text.lines().map(row).collect()
}

/// What is written today.
async fn written() -> Rows {
    let base = tempfile::tempdir().unwrap();
    write(SledStore::open(base.path()).unwrap()).await;
    ::sled::open(base.path())
        .unwrap()
        .iter()
        .map(Result::unwrap)
        .map(|(key, value)| (key.to_vec(), value.to_vec()))
        .collect()
}

async fn write(source: impl StoreSource) {
    let (store, _) = Running::open_with(source).await.unwrap();
    for mut task in tasks(latest()) {
        let then = task.state.clone();
        if task.spec.id == id(RUNNING) {
            task.state.revision = 1;
        }
        store.0.put(Put { task, expect: Expect::Absent }).await.unwrap();
        if then.revision == 2 {
            let runs = runs(latest()).into_iter().rev().collect();
            let change = Change { id: id(RUNNING), revision: 1, then: Then::State(then), runs };
            assert_eq!(store.0.commit(Commit { changes: vec![change] }).await.unwrap().refused, [0; 0]);
        }
    }
    store.stop().await;
}

/// Rows whose content is chance, or counts.
fn is_about_the_store(key: &[u8]) -> bool {
    matches!(key.first(), Some(b'm' | b'i' | b'l'))
}

#[test]
#[ignore = "writes the fixture of a new format"]
fn land_the_format() {
    let Some(path) = std::env::var_os("CALLBOARD_LAND") else { return };
    let rows = system(written());
    let line = |(key, value): &(Vec<u8>, Vec<u8>)| {
        let row = [std::str::from_utf8(key).unwrap(), std::str::from_utf8(value).unwrap()];
        serde_json::to_string(&row).unwrap() + "\n"
    };
    fs::write(path, rows.iter().map(line).collect::<String>()).unwrap();
}

fn exported(kind: &str, format: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/store/{kind}-v{format}.jsonl"))
}

#[test]
#[ignore = "writes the exports of a new format"]
fn land_the_exports() {
    let Ok(format) = std::env::var("CALLBOARD_LAND") else { return };
    let base = tempfile::tempdir().unwrap();
    for kind in ["export", "sealed"] {
        let open = || match (kind, RedbStore::open(base.path().join(kind)).unwrap()) {
            ("sealed", store) => store.encrypt(Keyring::parse(KEY).unwrap()),
            (_, store) => store,
        };
        system(write(open()));
        let mut vault = open().vault().unwrap();
        vault.export(exported(kind, format.parse().unwrap()), false, |_| {}).unwrap();
        vault.close().unwrap();
    }
}

#[test]
fn exports_of_every_format_are_read() {
    assert!(EXPORTED.contains(&latest()), "land the exports of the latest format");
    for format in EXPORTED {
        for kind in ["export", "sealed"] {
            let base = tempfile::tempdir().unwrap();
            let open = || {
                let store = FileStore::open(base.path()).unwrap();
                store.encrypt(Keyring::parse(KEY).unwrap()).refuse_plain(true)
            };
            let mut vault = open().vault().unwrap();
            let imported = vault.import(exported(kind, *format), ImportMode::IntoEmpty, |_| {}).unwrap();
            assert_eq!((imported.tasks, imported.unreadable), (tasks(*format).len() as u64, 0), "{kind}");
            vault.close().unwrap();
            system(is_all_there(open(), *format, &format!("{kind} of format {format}")));
        }
    }
    // It is the seal that was read, and it is bound to what it was.
    let sealed = fs::read_to_string(exported("sealed", latest())).unwrap();
    assert!(!sealed.contains("content") && sealed.contains("\"bytes\""));
}

#[test]
fn the_format_does_not_change_unnoticed() {
    let latest = latest();
    let rows = |rows: Rows| -> Vec<_> {
        let kept = rows.into_iter().filter(|(key, _)| !is_about_the_store(key));
        kept.map(|(key, value)| {
            // The keys of an object have no order that anybody reads.
            let head = value.iter().position(|byte| *byte == b'{').unwrap_or(value.len());
            let (head, rest) = value.split_at(head);
            let object: Result<serde_json::Value, _> = serde_json::from_slice(rest);
            let rest =
                object.map_or_else(|_| rest.escape_ascii().to_string(), |object| format!("{object:?}"));
            format!("{} → {}{rest}", key.escape_ascii(), head.escape_ascii())
        })
        .collect()
    };
    let (landed, today) = (rows(fixture(latest)), rows(system(written())));
    for (landed, today) in landed.iter().zip(&today) {
        assert_eq!(
            today, landed,
            "what is written is not what format {latest} is: raise the version of this kind of record"
        );
    }
    assert_eq!(landed.len(), today.len());
}

async fn is_all_there(source: impl StoreSource, format: u32, what: &str) {
    let (store, opened) = Running::open_with(source).await.unwrap();
    assert_eq!(opened.unreadable, [], "{what}");
    let mut found = store.0.list(List).await.unwrap();
    found.sort_by(|a, b| a.spec.id.cmp(&b.spec.id));
    let expected = tasks(format);
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected, "{what}: task {}", expected.spec.id);
    }
    assert_eq!(found.len(), expected.len(), "{what}");
    let found = store.0.runs(Runs { id: id(RUNNING), limit: 99 }).await.unwrap();
    let expected = runs(format);
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected, "{what}: run {}", expected.id);
    }
    assert_eq!(found.len(), expected.len(), "{what}");
    store.stop().await;
}

/// The seal beside the data, as format 1 wrote it.
fn seal(dir: &Path) {
    fs::write(dir.join("callboard-store.json"), r#"{"format":1,"batch":1}"#).unwrap();
}

#[test]
fn directories_of_every_format_are_read() {
    for format in FORMATS {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("sled");
        let db = ::sled::open(&dir).unwrap();
        for (key, value) in fixture(*format) {
            db.insert(key, value).unwrap();
        }
        db.flush().unwrap();
        drop(db);
        seal(&dir);
        system(is_all_there(SledStore::open(&dir).unwrap(), *format, &format!("format {format} in sled")));

        let dir = base.path().join("redb");
        fs::create_dir(&dir).unwrap();
        let db = Database::create(dir.join("tasks.redb")).unwrap();
        let writing = db.begin_write().unwrap();
        let mut table = writing.open_table(TableDefinition::<'_, &[u8], &[u8]>::new("callboard")).unwrap();
        for (key, value) in fixture(*format) {
            table.insert(key.as_slice(), value.as_slice()).unwrap();
        }
        drop(table);
        writing.commit().unwrap();
        drop(db);
        seal(&dir);
        system(is_all_there(RedbStore::open(&dir).unwrap(), *format, &format!("format {format} in redb")));
    }
}
