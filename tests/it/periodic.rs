//! Periodic tasks in sisy's manner, on ordinary tasks and stores.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use callboard::Error;
use callboard::prelude::*;
use callboard::store::SledStore;
use callboard::task::{ObjectCall, Objects, Periodic, PeriodicInfo, TaskError};
use callboard::testing::VirtualClock;
use callboard::trigger::IntoTrigger;
use serde_json::json;

use crate::scheduler::{Ran, START, at, board, heard, secs};

async fn info(scheduler: &Handle, id: &str) -> PeriodicInfo {
    PeriodicInfo::from(&scheduler.task(id).await.unwrap())
}

fn seconds(times: &[i64]) -> Vec<chrono::DateTime<chrono::Utc>> {
    times.iter().copied().map(at).collect()
}

#[actix::test]
async fn a_task_has_a_label_a_schedule_userdata_and_times() {
    let (scheduler, time, ran) = board(|b| b).await;
    time.advance(secs(30)).await;
    scheduler.add(Periodic::new("note").id("plain")).await.unwrap();
    let given = Periodic::new("note")
        .id("given")
        .label("Every five minutes")
        .schedule("*/5 * * * *")
        .userdata(json!({ "list": "weekly" }));
    scheduler.add(given).await.unwrap();
    scheduler.add(Periodic::new("nap").id("nap").userdata(7)).await.unwrap();
    let plain = info(&scheduler, "plain").await;
    assert_eq!((plain.label.as_str(), plain.schedule.as_str()), ("note", "* * * * *"));
    assert_eq!((plain.last_run, plain.next_run, plain.running), (None, Some(at(60)), false));
    assert_eq!((plain.created_at, plain.modified_at, plain.enabled), (at(30), at(30), true));
    let given = info(&scheduler, "given").await;
    assert_eq!((given.label.as_str(), given.schedule.as_str()), ("Every five minutes", "*/5 * * * *"));
    assert_eq!((given.userdata, given.key), (json!({ "list": "weekly" }), None));

    time.advance(secs(35)).await;
    let napping = info(&scheduler, "nap").await;
    assert_eq!((napping.running, napping.last_run, napping.next_run), (true, Some(at(60)), Some(at(120))));
    time.advance(secs(600)).await;
    assert_eq!(ran.of("given"), seconds(&[300, 600]));
    assert_eq!(ran.count("plain"), 11);

    scheduler.pause_task("plain").await.unwrap();
    let paused = info(&scheduler, "plain").await;
    assert_eq!((paused.enabled, paused.next_run, paused.created_at), (false, None, at(30)));
    assert_eq!(paused.modified_at, at(665));
    scheduler.add(Periodic::new("note").id("off").enabled(false)).await.unwrap();
    time.advance(secs(600)).await;
    assert_eq!((ran.count("plain"), ran.count("off")), (11, 0));
    scheduler.resume_task("off").await.unwrap();
    time.advance(secs(60)).await;
    assert_eq!(ran.count("off"), 1);
}

#[actix::test]
async fn the_default_schedule_is_a_setting() {
    let schedule = "*/20 * * * * *".into_trigger().unwrap();
    let defaults = TaskDefaults { schedule: Some(schedule), ..TaskDefaults::default() };
    let (scheduler, time, ran) = board(|b| b.defaults(defaults)).await;
    scheduler.add(Periodic::new("note").id("a")).await.unwrap();
    time.advance(secs(59)).await;
    assert_eq!(ran.of("a"), seconds(&[0, 20, 40]));
    // It is no trigger for tasks that forgot theirs.
    let forgot = scheduler.add(Task::new("note")).await.unwrap_err();
    assert!(matches!(forgot, Error::Task(TaskError::NoTrigger)), "{forgot}");

    let settings = callboard::config::Settings::from_toml("defaults.schedule = '@hourly'", "a test").unwrap();
    assert_eq!(settings.defaults.schedule.unwrap().to_string(), "@hourly");
}

#[actix::test]
async fn outside_of_its_window_a_task_does_not_run_and_after_it_it_is_disabled() {
    let folder = tempfile::tempdir().unwrap();
    let time = VirtualClock::starting_at(START);
    let ran = Ran::default();
    let open = || {
        Scheduler::builder()
            .clock(time.clock())
            .registry(ran.registry())
            .store("default", SledStore::open(folder.path()).unwrap())
            .start()
    };
    let scheduler = open().await.unwrap();
    let windowed = || Periodic::new("note").start_running(at(90)).end_running(at(200));
    scheduler.add(windowed().id("waits")).await.unwrap();
    scheduler.add(windowed().id("eager").wait_for_schedule(false)).await.unwrap();
    time.advance(secs(300)).await;
    assert_eq!(ran.of("waits"), seconds(&[120, 180]));
    assert_eq!(ran.of("eager"), seconds(&[90, 120, 180]));
    let done = info(&scheduler, "waits").await;
    assert_eq!((done.enabled, done.next_run, done.runs), (false, None, 2));
    assert_eq!((done.start_running, done.end_running), (Some(at(90)), Some(at(200))));
    scheduler.shutdown(Shutdown::now()).await.unwrap();

    // Disabled, not lost: also not by a restart, and a longer window enables it.
    let scheduler = open().await.unwrap();
    assert!(!info(&scheduler, "waits").await.enabled);
    scheduler.update_task("waits", TaskChanges::new().end_at(at(400))).await.unwrap();
    assert!(info(&scheduler, "waits").await.enabled);
    time.advance(secs(300)).await;
    assert_eq!(ran.of("waits"), seconds(&[120, 180, 300, 360]));
    scheduler.shutdown(Shutdown::now()).await.unwrap();
}

#[actix::test]
async fn without_waiting_it_runs_at_once_and_then_on_schedule() {
    let (scheduler, time, ran) = board(|b| b).await;
    time.advance(secs(10)).await;
    scheduler.add(Periodic::new("note").id("a").wait_for_schedule(false)).await.unwrap();
    scheduler.add(Periodic::new("note").id("b").wait_for_schedule(true)).await.unwrap();
    time.advance(secs(120)).await;
    assert_eq!(ran.of("a"), seconds(&[10, 60, 120]));
    assert_eq!(ran.of("b"), seconds(&[60, 120]));
}

#[actix::test]
async fn iterations_are_run_and_then_it_is_disabled() {
    let (scheduler, time, ran) = board(|b| b).await;
    time.advance(secs(10)).await;
    scheduler.add(Periodic::new("note").id("three").iterations(3)).await.unwrap();
    scheduler.add(Periodic::new("note").id("ever").iterations(0)).await.unwrap();
    scheduler.add(Periodic::run_iterations("note", 2).id("fast")).await.unwrap();
    let now = Periodic::run_iterations("note", 2).id("now").schedule("* * * * *").run_immediately(true);
    scheduler.add(now).await.unwrap();
    let late = Periodic::run_iterations("note", 2).id("late").delay_until(at(100)).schedule("* * * * *");
    scheduler.add(late.clone()).await.unwrap();
    scheduler.add(late.id("late, at once").run_immediately(true)).await.unwrap();
    scheduler.add(Periodic::run_once("note").id("once")).await.unwrap();
    scheduler.add(Periodic::run_once("note").id("once, late").delay_until(at(77))).await.unwrap();
    time.advance(secs(600)).await;
    assert_eq!(ran.of("three"), seconds(&[60, 120, 180]));
    assert_eq!(ran.count("ever"), 10);
    assert_eq!(ran.of("fast"), seconds(&[10, 11]));
    assert_eq!(ran.of("now"), seconds(&[10, 60]));
    assert_eq!(ran.of("late"), seconds(&[120, 180]));
    assert_eq!(ran.of("late, at once"), seconds(&[100, 120]));
    assert_eq!(ran.of("once"), seconds(&[10]));
    assert_eq!(ran.of("once, late"), seconds(&[77]));
    for (id, iterations) in [("three", 3), ("fast", 2), ("now", 2), ("once", 1), ("once, late", 1)] {
        let done = info(&scheduler, id).await;
        assert_eq!((done.enabled, done.iterations, done.runs), (false, iterations, iterations), "{id}");
    }
    assert!(info(&scheduler, "ever").await.enabled);

    let past = Periodic::run_once("note").delay_until(at(600));
    let refused = scheduler.add(past).await.unwrap_err();
    assert!(refused.is_invalid());
    assert!(
        refused.to_string().starts_with("delay_until is 2027-01-01T00:10:00+00:00, which is past"),
        "{refused}"
    );
    let past = Periodic::run_iterations("note", 3).delay_until(at(0));
    assert!(scheduler.add(past).await.is_err());
    assert_eq!(scheduler.tasks(TaskQuery::new()).await.unwrap().len(), 8, "nothing was added");
}

/// A handler `work` that takes ten seconds and counts how many of it go on at once.
fn worker() -> (Registry, Arc<AtomicUsize>) {
    let (going, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = most.clone();
    let registry = Registry::new().register("work", move |run: TaskContext, ()| {
        let (going, most) = (going.clone(), most.clone());
        async move {
            most.fetch_max(going.fetch_add(1, SeqCst) + 1, SeqCst);
            run.sleep(secs(10)).await;
            going.fetch_sub(1, SeqCst);
        }
    });
    (registry, seen)
}

#[actix::test]
async fn runs_overlap_only_where_that_is_allowed() {
    for (allow, iterations) in [(false, 0), (false, 5), (true, 0), (true, 5)] {
        let (registry, most) = worker();
        let (scheduler, time, _) = board(|b| b.registry(registry)).await;
        let mut ends = scheduler.events(EventMask::RUN_ENDED).await.unwrap();
        let task = Periodic::new("work").schedule("*/4 * * * * *").allow_overlap(allow);
        scheduler.add(task.id("work").iterations(iterations)).await.unwrap();
        time.advance(secs(59)).await;
        let executed = heard(&mut ends).iter().filter(|e| matches!(e, Event::TaskExecuted(_))).count();
        match (allow, iterations) {
            // Those of 0, 12, 24, 36 and 48; those between were refused.
            (false, 0) => assert_eq!((most.load(SeqCst), executed), (1, 5)),
            (false, _) => assert_eq!((most.load(SeqCst), executed), (1, 5), "all of them, one by one"),
            (true, 0) => assert_eq!((most.load(SeqCst), executed), (3, 13)),
            (true, _) => assert_eq!((most.load(SeqCst), executed), (3, 5)),
        }
        assert_eq!(info(&scheduler, "work").await.allow_overlap, allow);
    }
}

/// What a method is called with.
#[derive(Debug, Clone)]
struct Account {
    name: &'static str,
    balance: u32,
}

type Accounts = Arc<Mutex<BTreeMap<u32, Account>>>;

fn bank(accounts: &Accounts, log: &Arc<Mutex<Vec<String>>>) -> Registry {
    let (shelf, charged) = (accounts.clone(), log.clone());
    let accounts = Objects::new("account", move |key: u32| {
        let found = match key {
            13 => Err("the shelf is locked"),
            key => Ok(shelf.lock().unwrap().get(&key).cloned()),
        };
        async move { found }
    });
    Registry::new().objects(
        accounts
            .method("charge", move |_: TaskContext, account: Account, amount: u32| {
                charged.lock().unwrap().push(format!("{} {}", account.name, account.balance + amount));
                async move { Ok::<_, String>(account.balance + amount) }
            })
            .method("audit", |_: TaskContext, account: Account, ()| async move {
                if account.balance > 100 { Err("too rich") } else { Ok(()) }
            }),
    )
}

#[actix::test]
async fn a_task_bound_to_an_object_loads_it_by_its_key() {
    let (accounts, log) = (Accounts::default(), Arc::default());
    accounts.lock().unwrap().insert(7, Account { name: "Ada", balance: 10 });
    let (scheduler, time, _) = board(|b| b.registry(bank(&accounts, &log))).await;
    let mut ends = scheduler.events(EventMask::RUN_ENDED).await.unwrap();
    let charge = |key: u32| Periodic::new("account.charge").of(key).userdata(5);
    scheduler.add(charge(7).id("charge")).await.unwrap();
    let bound = info(&scheduler, "charge").await;
    assert_eq!((bound.key, bound.userdata), (Some(json!(7)), json!(5)));
    let mut next = async |time: &VirtualClock| {
        time.advance(secs(60)).await;
        let ended = heard(&mut ends);
        let outcomes: Vec<_> =
            ended.iter().map(|event| event.report().unwrap().end.outcome.clone()).collect();
        outcomes.last().unwrap().clone()
    };
    assert_eq!(next(&time).await, Outcome::Executed { value: 15.into() });
    // Each run sees the object as it is then.
    accounts.lock().unwrap().get_mut(&7).unwrap().balance = 200;
    assert_eq!(next(&time).await, Outcome::Executed { value: 205.into() });
    accounts.lock().unwrap().remove(&7);
    let gone = next(&time).await.problem().unwrap();
    assert!(gone.starts_with("there is no `account` with the key 7"), "{gone}");
    accounts.lock().unwrap().insert(7, Account { name: "Bob", balance: 1 });
    assert!(next(&time).await.is_success(), "it goes on when there is one again");
    scheduler.delete_task("charge").await.unwrap();
    assert_eq!(log.lock().unwrap().last().unwrap(), "Bob 6");

    let failing = [
        (charge(13), "`account` with the key 13 was not loaded: the shelf is locked"),
        (charge(7).userdata("five"), "the userdata does not decode"),
        (Periodic::new("account.charge").of("seven"), "\"seven\" is no key of `account`"),
        (Periodic::new("account.charge").userdata(5), "the arguments do not decode"),
    ];
    for (task, problem) in failing {
        scheduler.add(task.id("failing")).await.unwrap();
        let told = next(&time).await.problem().unwrap();
        assert!(told.contains(problem), "{told}");
        scheduler.delete_task("failing").await.unwrap();
    }
    // The same without sisy's words.
    let audit = Task::new("account.audit").args(ObjectCall::new(7, ())).trigger("* * * * *").id("audit");
    scheduler.add(audit).await.unwrap();
    assert!(next(&time).await.is_success());
}

#[actix::test]
async fn what_is_not_valid_is_refused_when_the_task_is_made() {
    let (scheduler, ..) = board(|b| b).await;
    let long = "x".repeat(256);
    let map = BTreeMap::from([((1, 2), 3)]);
    let note = || Periodic::new("note");
    for (task, problem) in [
        (note().schedule("61 * * * *"), "minute"),
        (note().schedule("every now and then"), "trigger"),
        (note().label(""), "label is empty"),
        (note().label("two\nlines"), "label contains a control character"),
        (note().label(&long), "label is 256 bytes long"),
        (note().userdata(&map), "JSON"),
        (note().of(&map), "JSON"),
        (note().id(""), "id is empty"),
        (Periodic::new(""), "handler is empty"),
    ] {
        let made = task.clone().task().unwrap_err().to_string();
        assert!(made.contains(problem), "{made}");
        let refused = scheduler.add(task).await.unwrap_err();
        assert!(refused.is_invalid());
        assert!(refused.to_string().contains(problem), "{refused}");
    }
    for (task, problem) in [
        (Periodic::new("nobody"), "no handler is registered under `nobody`"),
        (note().start_running(at(60)).end_running(at(30)), "end_at is"),
    ] {
        let refused = scheduler.add(task).await.unwrap_err().to_string();
        assert!(refused.contains(problem), "{refused}");
    }
    assert!(scheduler.tasks(TaskQuery::new()).await.unwrap().is_empty());
}
