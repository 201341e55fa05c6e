//! What is loaded is what was saved, whatever it is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use callboard::backoff::Backoff;
use callboard::store::contract::{sample, start};
use callboard::store::message::*;
use callboard::store::{Keyring, StoreError};
use callboard::task::{
    Alias, Attempt, Backfill, Coalesce, Fire, MisfireGrace, Outcome, Overlap, Refusal, Retry, RunEnd,
    RunRecord, Source, StoredTask, TaskId, TaskSpec, TaskState, WhenFinished,
};
use callboard::trigger::{Date, Interval, Trigger};
use chrono::{DateTime, Utc};
use proptest::prelude::*;
use serde_json::Value;

use super::sled::{Running, id, moved_on, run};
use super::{Kind, system};

/// Any nanosecond that chrono can tell.
fn time() -> impl Strategy<Value = DateTime<Utc>> {
    let seconds = prop_oneof![
        DateTime::<Utc>::MIN_UTC.timestamp()..DateTime::<Utc>::MAX_UTC.timestamp(),
        -62_135_596_800_i64..253_402_300_800,
        -3_i64..3,
        2_147_483_646_i64..2_147_483_650
    ];
    let nanos = prop_oneof![Just(0), Just(1), Just(999_999_999), 0..1_000_000_000_u32];
    (seconds, nanos).prop_filter_map("no time", |(seconds, nanos)| DateTime::from_timestamp(seconds, nanos))
}

/// The times that people write: of the years 1 to 9999.
fn civil_time() -> impl Strategy<Value = DateTime<Utc>> {
    let seconds = -62_135_596_800_i64..253_402_300_800;
    (seconds, 0..1_000_000_000_u32)
        .prop_filter_map("no time", |(seconds, nanos)| DateTime::from_timestamp(seconds, nanos))
}

fn name() -> impl Strategy<Value = String> {
    "\\PC{1,60}".prop_filter("too long", |text| text.len() <= 255 && TaskId::new(text).is_ok())
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 20, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::hash_map(any::<String>(), inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn trigger() -> impl Strategy<Value = Trigger> {
    prop_oneof![
        civil_time().prop_map(|at| Trigger::Date(Arc::new(Date::at(at)))),
        (1_u64..1_000_000).prop_map(|n| Trigger::Interval(Arc::new(Interval::seconds(n)))),
        Just(Trigger::Shutdown),
    ]
}

fn state() -> impl Strategy<Value = TaskState> {
    let fire = (time(), time()).prop_map(|(nominal, due)| Fire { nominal, due });
    let times = (prop::option::of(fire), prop::option::of(time()), time(), time(), time());
    let counts = (any::<u64>(), any::<u64>());
    (any::<u64>(), counts, any::<bool>(), times, (attempts(), backfill())).prop_map(
        |(
            revision,
            (runs, fired),
            paused,
            (next, last_run, anchor, created_at, modified_at),
            (attempts, backfill),
        )| TaskState {
            revision,
            next,
            begins: last_run,
            begun: last_run,
            last_run,
            runs,
            fired,
            attempts,
            backfill,
            paused,
            anchor,
            modified_at,
            set_at: last_run,
            ..TaskState::new(created_at)
        },
    )
}

fn attempts() -> impl Strategy<Value = Vec<Attempt>> {
    let attempt = (time(), time(), any::<u64>(), any::<u32>(), any::<u32>(), prop::option::of(time()));
    prop::collection::vec(
        attempt.prop_map(|(nominal, due, coalesced, number, interrupted, at)| Attempt {
            nominal,
            due,
            coalesced,
            source: Source::Backfill,
            number,
            interrupted,
            at,
        }),
        0..3,
    )
}

fn backfill() -> impl Strategy<Value = Option<Box<Backfill>>> {
    let backfill = (time(), time(), any::<u64>(), time());
    prop::option::of(
        backfill.prop_map(|(next, until, every_ms, at)| Box::new(Backfill { next, until, every_ms, at })),
    )
}

/// Sets every option that says what is done about runs.
fn policies() -> impl Strategy<Value = TaskSpec> {
    let coalesce = prop_oneof![Just(Coalesce::Latest), Just(Coalesce::Earliest), Just(Coalesce::All)];
    let overlap = prop_oneof![
        Just(Overlap::Skip),
        (1_u32..).prop_map(Overlap::Queue),
        Just(Overlap::CancelRunning),
        Just(Overlap::Allow),
    ];
    let backoff = (any::<u64>(), any::<u64>()).prop_map(|(first, cap)| {
        Backoff::exponential(Duration::from_nanos(first), Duration::from_nanos(cap)).factor(1.7).jitter(0.3)
    });
    let retry = prop::option::of((any::<u32>(), backoff).prop_map(|(n, b)| Retry::times(n).backoff(b)));
    let timeout = prop::option::of(any::<u32>().prop_map(|ms| Duration::from_millis(ms.into())));
    let window = (prop::option::of(time()), prop::option::of(time()), prop::option::of(1_u64..));
    let finished = prop_oneof![Just(WhenFinished::Remove), Just(WhenFinished::Keep)];
    (coalesce, overlap, retry, timeout, any::<bool>(), window, finished).prop_map(
        |(coalesce, overlap, retry, timeout, recover, (start_at, end_at, max_runs), when_finished)| {
            TaskSpec {
                coalesce,
                overlap,
                retry,
                timeout,
                recover,
                start_at,
                end_at,
                max_runs,
                when_finished,
                ..(*sample("a", start()).spec).clone()
            }
        },
    )
}

fn task() -> impl Strategy<Value = StoredTask> {
    let names = (name(), prop::option::of(name()), name());
    let numbers = (1_u32.., 1_u32.., prop::option::of(any::<u32>()), 0..chrono_tz::TZ_VARIANTS.len());
    (names, json(), json(), trigger(), numbers, policies(), state()).prop_map(
        |((id, label, executor), args, userdata, trigger, numbers, policies, state)| {
            let spec = TaskSpec {
                name: label.map(Into::into),
                args,
                userdata,
                trigger,
                executor: Alias::new(executor).unwrap(),
                max_catch_up: numbers.0,
                max_instances: numbers.1,
                misfire_grace: numbers.2.map_or(MisfireGrace::Unlimited, |ms| {
                    MisfireGrace::Within(Duration::from_millis(ms.into()))
                }),
                timezone: chrono_tz::TZ_VARIANTS[numbers.3].into(),
                id: sample(&id, start()).spec.id.clone(),
                ..policies
            };
            StoredTask { spec: spec.into(), state }
        },
    )
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        json().prop_map(|value| Outcome::Executed { value }),
        any::<String>().prop_map(|error| Outcome::Failed { error }),
        any::<String>().prop_map(|message| Outcome::Panicked { message }),
        any::<u64>().prop_map(|after_ms| Outcome::TimedOut { after_ms }),
        Just(Outcome::Cancelled),
        any::<u64>().prop_map(|late_ms| Outcome::Missed { late_ms }),
        any::<u32>().prop_map(|max| Outcome::Refused { reason: Refusal::MaxInstances { max } }),
        any::<u32>().prop_map(|limit| Outcome::Refused { reason: Refusal::TaskQueueFull { limit } }),
        any::<String>()
            .prop_map(|executor| Outcome::Refused { reason: Refusal::UnknownExecutor { executor } }),
        time().prop_map(|into| Outcome::Coalesced { into }),
        any::<String>().prop_map(|reason| Outcome::Interrupted { reason }),
    ]
}

fn end() -> impl Strategy<Value = RunEnd> {
    let times = (prop::option::of(time()), prop::option::of(time()), time());
    (outcome(), times, any::<u64>(), prop::option::of(any::<String>())).prop_map(
        |(outcome, (started_at, retry_at, ended_at), nanos, backtrace)| RunEnd {
            outcome,
            started_at,
            ended_at,
            duration: Duration::from_nanos(nanos),
            output: backtrace.clone().map(|text| Box::new(Value::String(text))),
            backtrace: backtrace.map(String::into_boxed_str),
            retry_at,
            replaced: false,
            wrong_clock: retry_at,
        },
    )
}

fn records() -> impl Strategy<Value = Vec<RunRecord>> {
    let record = (time(), time(), any::<u64>(), any::<u32>(), prop::option::of(end()));
    prop::collection::vec(record, 0..20).prop_map(|records| {
        let numbered = records.into_iter().zip(1..);
        let record = |((nominal, submitted_at, coalesced, attempt, end), serial)| RunRecord {
            nominal,
            submitted_at,
            coalesced,
            attempt,
            end,
            source: Source::Manual,
            ..run("a", serial)
        };
        numbered.map(record).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..Default::default() })]

    #[test]
    fn of_tasks(
        tasks in prop::collection::vec(task(), 1..40),
        kind in prop::sample::select(&Kind::ALL),
        sealed in any::<bool>(),
    ) {
        let base = tempfile::tempdir().unwrap();
        let keys = sealed.then(|| Keyring::generate().unwrap());
        let tasks: BTreeMap<_, _> = tasks.into_iter().map(|task| (task.spec.id.clone(), task)).collect();
        system(async {
            let (store, _) = Running::open_with(kind.sealed(base.path(), keys.as_ref())).await.unwrap();
            for task in tasks.values() {
                store.0.put(Put { task: task.clone(), expect: Expect::Absent }).await.unwrap();
            }
            store.stop().await;
            let (store, opened) = Running::open_with(kind.sealed(base.path(), keys.as_ref())).await.unwrap();
            assert_eq!(opened.unreadable, []);
            for (id, task) in &tasks {
                assert_eq!(store.0.get(Get { id: id.clone() }).await.unwrap().as_ref(), Some(task));
            }
            assert_eq!(store.ids().await.len(), tasks.len());
            store.stop().await;
        });
    }

    #[test]
    fn of_runs(
        mut records in records(),
        kind in prop::sample::select(&Kind::ALL),
        sealed in any::<bool>(),
    ) {
        let base = tempfile::tempdir().unwrap();
        let keys = sealed.then(|| Keyring::generate().unwrap());
        system(async {
            let (store, _) = Running::open_with(kind.sealed(base.path(), keys.as_ref())).await.unwrap();
            let task = store.put("a").await;
            let runs = records.clone();
            store.0.commit(Commit { changes: vec![moved_on(&task, runs)] }).await.unwrap();
            store.stop().await;
            let (store, _) = Running::open_with(kind.sealed(base.path(), keys.as_ref())).await.unwrap();
            records.reverse();
            assert_eq!(store.0.runs(Runs { id: id("a"), limit: 99 }).await.unwrap(), records);
            store.stop().await;
        });
    }
}

/// A task is refused rather than acknowledged and lost.
#[test]
fn what_could_not_be_read_again_is_refused() {
    let base = tempfile::tempdir().unwrap();
    system(async {
        let (store, _) = Running::open_with(Kind::Sled.open(base.path())).await.unwrap();
        let mut task = sample("a", start());
        let far = DateTime::<Utc>::MAX_UTC;
        task.spec =
            TaskSpec { trigger: Trigger::Date(Arc::new(Date::at(far))), ..(*task.spec).clone() }.into();
        let put = store.0.put(Put { task: task.clone(), expect: Expect::Absent }).await;
        store.stop().await;
        let (store, opened) = Running::open_with(Kind::Sled.open(base.path())).await.unwrap();
        assert_eq!(opened.unreadable, []);
        let found = store.0.get(Get { id: id("a") }).await.unwrap();
        match put {
            Ok(()) => assert_eq!(found, Some(task)),
            Err(error) => {
                assert!(matches!(error, StoreError::Unstorable { .. }), "{error:?}");
                assert_eq!(found, None);
            }
        }
    });
}
