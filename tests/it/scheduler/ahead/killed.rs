//! A process that is killed while it works out next runs again, batch by batch.

use std::path::PathBuf;

use callboard::store::{FileStore, RedbStore, SledStore, StoreSource};
use callboard::task::TaskQuery;
use callboard::trigger::{Context, Custom, CustomTrigger, Trigger};
use futures::future::join_all;
use serde_json::{Value, json};

use super::*;

/// Several batches.
const TASKS: usize = 1300;

/// One in each batch: asked for its next run, it copies the files of the store, as a kill at that moment
/// would leave them. All batches before its own are written, and nothing of it is.
const THIEVES: [usize; 3] = [100, 700, 1200];

type Copies = Arc<Mutex<Option<(PathBuf, PathBuf)>>>;

/// Each hour.
#[derive(Debug)]
struct Thief(Copies);

impl CustomTrigger for Thief {
    fn next(
        &self,
        params: &Value,
        from: DateTime<Utc>,
        cx: &Context<'_>,
    ) -> Result<Option<DateTime<Utc>>, String> {
        if let Some((store, copies)) = &*self.0.lock().unwrap() {
            let to = copies.join(params["batch"].to_string());
            if !to.exists() {
                match store.is_dir() {
                    true => copy(store, &to),
                    false => drop(std::fs::copy(store, to).unwrap()),
                }
            }
        }
        let hourly: Trigger = "0 * * * *".parse().unwrap();
        hourly.next(from, cx).map_err(|error| error.to_string())
    }
}

/// Some run while the clock is ahead, and some are too late for that.
fn tasks() -> Vec<Task> {
    let one = |n: usize| {
        let task = Task::new("note").id(format!("t{n:04}"));
        let task = match THIEVES.iter().position(|thief| *thief == n) {
            Some(batch) => task.trigger(Custom::new("thief", json!({ "batch": batch }))),
            None => task.trigger("0 * * * *"),
        };
        if n.is_multiple_of(2) { task } else { task.misfire_grace(secs(60)) }
    };
    (0..TASKS).map(one).collect()
}

async fn scheduler(
    time: &VirtualClock,
    ran: &Ran,
    store: impl StoreSource,
    copies: &Copies,
) -> (Handle, EventStream) {
    let scheduler = Scheduler::builder()
        .clock(time.clock())
        .registry(ran.registry().register_trigger("thief", Thief(copies.clone())))
        .store("default", store)
        .build()
        .unwrap();
    let events = scheduler.events(EventMask::ALL).await.unwrap();
    scheduler.start().await.unwrap();
    (scheduler, events)
}

/// How many tasks were worked out again.
fn again(events: &mut EventStream) -> u64 {
    replanned(&heard(events)).into_iter().map(|(tasks, ..)| tasks).sum()
}

async fn killed<S: StoreSource>(open: impl Fn(&Path) -> S) {
    let files = tempfile::tempdir().unwrap();
    let (path, copies) = (files.path().join("store"), Copies::default());
    let (time, ran) = (VirtualClock::new(at(10)), Ran::default());
    let (first, mut events) = scheduler(&time, &ran, open(&path), &copies).await;
    let tasks = tasks();
    // Those added at once get into any order, and each thief stays in its batch.
    for batch in [0..500, 500..520, 520..1020, 1020..1030, 1030..TASKS] {
        for added in join_all(tasks[batch].iter().map(|task| first.add(task.clone()))).await {
            added.unwrap();
        }
    }
    time.set(at(30 * 86_400 + 1800)).await;
    let counts: Vec<_> = (0..TASKS).map(|n| ran.count(&format!("t{n:04}"))).collect();
    assert!(counts.iter().enumerate().all(|(n, count)| *count == (n + 1) % 2), "{counts:?}");
    heard(&mut events);
    *copies.lock().unwrap() = Some((path, files.path().into()));
    time.set(at(20)).await;
    *copies.lock().unwrap() = None;
    assert_eq!(again(&mut events), TASKS as u64);
    first.shutdown(Shutdown::now()).await.unwrap();

    let mut left = vec![TASKS as u64 + 1];
    for batch in 0..THIEVES.len() {
        let (time, ran) = (VirtualClock::new(at(20)), Ran::default());
        let store = open(&files.path().join(batch.to_string()));
        let (next, mut events) = scheduler(&time, &ran, store, &copies).await;
        time.settle().await;
        left.push(again(&mut events));
        for task in next.tasks(TaskQuery::new()).await.unwrap() {
            assert_eq!(task.next_run_time(), Some(at(3600)), "batch {batch}: {}", task.spec.id);
        }
        time.advance_to(at(3700)).await;
        for n in 0..TASKS {
            assert_eq!(ran.of(&format!("t{n:04}")), [at(3600)], "batch {batch}: {n}");
        }
        next.shutdown(Shutdown::now()).await.unwrap();
    }
    assert_eq!(left[1], TASKS as u64, "nothing of the first batch was written");
    assert!(left.is_sorted_by(|more, fewer| more > fewer), "{left:?}");
}

#[actix::test]
async fn a_kill_half_way_leaves_no_task_under_the_wrong_clock_in_sled() {
    killed(|path| SledStore::open(path).unwrap()).await;
}

#[actix::test]
async fn a_kill_half_way_leaves_no_task_under_the_wrong_clock_in_redb() {
    killed(|path| RedbStore::open(path).unwrap()).await;
}

#[actix::test]
async fn a_kill_half_way_leaves_no_task_under_the_wrong_clock_in_files() {
    killed(|path| FileStore::open(path).unwrap()).await;
}
