//! A process that is killed while it moves the tasks of a store, page by page.

use std::collections::BTreeSet;
use std::path::PathBuf;

use callboard::store::{FileStore, RedbStore, StoreSource};
use callboard::trigger::{Context, Custom, CustomTrigger};
use futures::future::join_all;
use serde_json::{Value, json};

use super::*;

/// Several pages.
const TASKS: usize = 1300;

/// One in each page: asked for its next run, it copies the files of the store, as a kill at that moment
/// would leave them. All pages before its own are written, and nothing of it is.
const THIEVES: [usize; 3] = [100, 700, 1200];

type Copies = Arc<Mutex<Option<(PathBuf, PathBuf)>>>;

/// Noon, on the clock of the task's zone.
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
            let to = copies.join(params["page"].to_string());
            if !to.exists() {
                match store.is_dir() {
                    true => copy(store, &to),
                    false => drop(std::fs::copy(store, to).unwrap()),
                }
            }
        }
        let noon: callboard::trigger::Trigger = "0 12 * * *".parse().unwrap();
        noon.next(from, cx).map_err(|error| error.to_string())
    }
}

/// The tasks by their ids, each with the time of day that it promises.
fn tasks() -> Vec<(String, Task, (u32, u32))> {
    let one = |n: usize| {
        let id = format!("t{n:04}");
        if let Some(page) = THIEVES.iter().position(|thief| *thief == n) {
            let thief = Custom::new("thief", json!({ "page": page }));
            return (id.clone(), Task::new("note").id(id).trigger(thief), (12, 0));
        }
        // Before and after the change, by either law.
        let (hour, minute) = (8 + n as u32 % 2, n as u32 % 60);
        (id.clone(), task(&id, &format!("{minute} {hour} * * *")), (hour, minute))
    };
    (0..TASKS).map(one).collect()
}

async fn scheduler(
    database: &Database,
    time: &VirtualClock,
    ran: &Ran,
    store: impl StoreSource,
    copies: &Copies,
) -> (Handle, EventStream) {
    let scheduler = Scheduler::builder()
        .clock(time.clock())
        .registry(ran.registry().register_trigger("thief", Thief(copies.clone())))
        .timezones(Timezones::Path(database.0.path().into()))
        .timezone("America/Vancouver".parse::<callboard::trigger::Zone>().unwrap())
        .store("default", store)
        .build()
        .unwrap();
    let events = scheduler.events(EventMask::ALL).await.unwrap();
    scheduler.start().await.unwrap();
    (scheduler, events)
}

/// The tasks that were moved, in this order, and how many the store was said to have moved, from whose rules.
fn moved(told: &[Event]) -> (Vec<String>, Vec<(u64, Option<Release>)>) {
    let tasks = told.iter().filter_map(|event| match event {
        Event::TaskMoved { id, .. } => Some(id.to_string()),
        _ => None,
    });
    let stores = told.iter().filter_map(|event| match event {
        Event::TasksMoved { tasks, from, .. } => Some((*tasks, from.clone())),
        _ => None,
    });
    (tasks.collect(), stores.collect())
}

async fn killed<S: StoreSource>(open: impl Fn(&Path) -> S) {
    const CHANGE: &str = "2026-11-02T16:30:00Z";
    let begin = "2026-11-02T12:00:00Z";
    let files = tempfile::tempdir().unwrap();
    let (path, copies) = (files.path().join("store"), Copies::default());
    let (database, time, ran) = (Database::new(), VirtualClock::starting_at(begin), Ran::default());
    let (first, mut events) = scheduler(&database, &time, &ran, open(&path), &copies).await;
    let tasks = tasks();
    // Those of a batch get into any order, and each thief stays in its page.
    for batch in [0..500, 500..520, 520..1020, 1020..1030, 1030..TASKS] {
        for added in join_all(tasks[batch].iter().map(|(_, task, _)| first.add(task.clone()))).await {
            added.unwrap();
        }
    }
    time.advance_to(utc(CHANGE)).await;
    let had: Vec<_> = tasks.iter().map(|(id, ..)| ran.of(id)).collect();
    assert!(had.iter().any(|runs| runs.is_empty()) && had.iter().any(|runs| !runs.is_empty()));
    heard(&mut events);
    *copies.lock().unwrap() = Some((path, files.path().into()));
    database.put("2026f", "America/Vancouver");
    first.reload_timezones().await.unwrap();
    time.settle().await;
    *copies.lock().unwrap() = None;
    let (all, whole) = moved(&heard(&mut events));
    assert_eq!((all.len(), whole), (TASKS, vec![(TASKS as u64, Some(database.release("2026a")))]));
    first.shutdown(Shutdown::now()).await.unwrap();

    let mut left = vec![TASKS + 1];
    for page in 0..THIEVES.len() {
        let (time, ran) = (VirtualClock::starting_at(CHANGE), Ran::default());
        let store = open(&files.path().join(page.to_string()));
        let (next, mut events) = scheduler(&database, &time, &ran, store, &copies).await;
        time.settle().await;
        // What was written is not moved again, all else is, and nothing else.
        let (again, whole) = moved(&heard(&mut events));
        // Until the last page is written, the store says that it was planned by the former rules.
        assert_eq!(whole, [(again.len() as u64, Some(database.release("2026a")))], "page {page}");
        let rest: BTreeSet<_> = all[TASKS - again.len()..].iter().collect();
        assert_eq!(again.iter().collect::<BTreeSet<_>>(), rest, "page {page}");
        assert_eq!(again.len(), rest.len(), "page {page}: each once");
        left.push(again.len());

        time.advance_to(utc("2026-11-04T12:00:00Z")).await;
        for ((id, _, (hour, minute)), had) in tasks.iter().zip(&had) {
            let runs = daily(&[(*hour, *minute)]).into_iter().map(|wall| expected(wall, utc(CHANGE)));
            let runs: Vec<_> =
                runs.filter(|at| (utc(begin)..utc("2026-11-04T12:00:00Z")).contains(at)).collect();
            assert_eq!([had.clone(), ran.of(id)].concat(), runs, "page {page}: {id}");
        }
        next.shutdown(Shutdown::now()).await.unwrap();
    }
    assert_eq!(left[1], TASKS, "nothing of the first page was written");
    assert!(left.is_sorted_by(|more, fewer| more > fewer), "{left:?}");
}

#[actix::test]
async fn a_kill_half_way_leaves_no_task_unmoved_in_sled() {
    killed(|path| SledStore::open(path).unwrap()).await;
}

#[actix::test]
async fn a_kill_half_way_leaves_no_task_unmoved_in_redb() {
    killed(|path| RedbStore::open(path).unwrap()).await;
}

#[actix::test]
async fn a_kill_half_way_leaves_no_task_unmoved_in_files() {
    killed(|path| FileStore::open(path).unwrap()).await;
}
