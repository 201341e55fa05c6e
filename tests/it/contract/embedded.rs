//! What the embedded stores keep and forget, whatever is done to them in which order.

use std::path::Path;
use std::time::Duration;

use callboard::prelude::*;
use callboard::store::ROW_LIMIT;
use callboard::store::contract::{sample, start};
use callboard::store::message::*;
use callboard::task::{MAX_ATTEMPTS, Outcome, Overlap, OwnerId, Retry, RunEnd, RunId, RunRecord, StoredTask};
use callboard::testing::VirtualClock;
use chrono::TimeDelta;
use futures::future::{join_all, try_join_all};
use futures::poll;

use super::sled::{Running, id, moved_on, run};
use super::{Kind, system};
use crate::scheduler::{Ran, board, secs};

async fn open(kind: Kind, path: &Path) -> Running {
    Running::open_with(kind.open(path)).await.unwrap().0
}

/// Tests on a fresh directory of each kind.
fn each(test: impl AsyncFn(Kind, &Path)) {
    for kind in Kind::ALL {
        let base = tempfile::tempdir().unwrap();
        system(test(kind, &base.path().join("store")));
    }
}

fn ended(run: &RunRecord) -> (RunId, TaskId, RunEnd) {
    (run.id, run.task.clone(), RunEnd::unstarted(Outcome::Cancelled, start()))
}

async fn runs(store: &Running, name: &str) -> Vec<RunRecord> {
    store.0.runs(Runs { id: id(name), limit: 99 }).await.unwrap()
}

#[test]
fn a_change_that_was_taken_is_made_though_nobody_waits() {
    each(async |kind, path| {
        let store = open(kind, path).await;
        let mut put = Box::pin(store.0.put(Put { task: sample("a", start()), expect: Expect::Absent }));
        assert!(poll!(&mut put).is_pending());
        // Answered after the change was taken, and before it was made.
        store.0.next_due(NextDue).await.unwrap();
        drop(put);
        assert_eq!(store.ids().await, ["a"], "{kind:?}");
        store.stop().await;
        assert_eq!(open(kind, path).await.ids().await, ["a"], "{kind:?}");
    });
}

#[test]
fn what_is_refused_leaves_no_records() {
    each(async |kind, path| {
        let store = open(kind, path).await;
        let (good, stale) = (store.put("good").await, store.put("stale").await);
        store.0.commit(Commit { changes: vec![moved_on(&stale, vec![])] }).await.unwrap();
        let changes = ["stale", "good", "nobody"].map(|name| {
            let task = if name == "good" { good.clone() } else { sample(name, start()) };
            moved_on(&task, vec![run(name, 1), run(name, 2)])
        });
        let committed = store.0.commit(Commit { changes: changes.to_vec() }).await.unwrap();
        assert_eq!(committed.refused, [0, 2], "{kind:?}");
        // Ends of runs that were never begun, of one that was, twice, and of one of somebody else.
        let (strange, known) = (run("stale", 7), run("good", 2));
        let other = RunRecord { id: RunId { owner: OwnerId(9), serial: 1 }, ..run("good", 1) };
        let ends = [&strange, &known, &known, &other].map(ended).to_vec();
        store.0.finish(Finish { ends }).await.unwrap();
        store.stop().await;
        let (store, opened) = Running::open_as(kind.open(path), OwnerId(2)).await.unwrap();
        let interrupted: Vec<_> = opened.interrupted.iter().map(|run| run.id.serial).collect();
        assert_eq!((interrupted, opened.unreadable.len()), (vec![1], 0), "{kind:?}");
        for (name, count) in [("good", 2), ("stale", 0), ("nobody", 0)] {
            assert_eq!(runs(&store, name).await.len(), count, "{kind:?} {name}");
        }
    });
}

#[test]
fn thousands_at_once_are_all_there() {
    each(async |kind, path| {
        // Files take much longer than rows.
        let many = if kind == Kind::File { 200 } else { 10_000 };
        let store = open(kind, path).await;
        let names: Vec<_> = (0..many).map(|index| format!("{index:05}")).collect();
        let tasks: Vec<_> = names.iter().map(|name| sample(name, start())).collect();
        let put = |task: &StoredTask| store.0.put(Put { task: task.clone(), expect: Expect::Absent });
        try_join_all(tasks.iter().map(put)).await.unwrap();
        let change = |(index, task): (usize, &StoredTask)| {
            moved_on(task, vec![run(task.spec.id.as_str(), index as u64)])
        };
        let changes: Vec<_> = tasks.iter().enumerate().map(change).collect();
        let ends = changes.iter().flat_map(|change| &change.runs).map(ended).collect();
        assert_eq!(store.0.commit(Commit { changes }).await.unwrap().refused, [0; 0], "{kind:?}");
        store.0.finish(Finish { ends }).await.unwrap();
        store.stop().await;
        let (store, opened) = Running::open_with(kind.open(path)).await.unwrap();
        assert_eq!((opened.interrupted.len(), opened.unreadable.len()), (0, 0), "{kind:?}");
        assert_eq!(store.ids().await, names, "{kind:?}");
        let found = join_all([0, 1, many / 2, many - 1].map(|index| runs(&store, &names[index]))).await;
        assert!(found.iter().all(|runs| runs.len() == 1 && runs[0].end.is_some()), "{kind:?}");
        assert_eq!(store.0.remove_all(RemoveAll).await.unwrap(), many, "{kind:?}");
        store.stop().await;
        assert_eq!(open(kind, path).await.ids().await.len(), 0, "{kind:?}");
    });
}

#[test]
fn ids_of_any_shape_are_kept_apart() {
    each(async |kind, path| {
        let long = "я".repeat(127);
        let shapes = [
            "a",
            "a ",
            "A",
            "a/b",
            "../a",
            ".",
            "..",
            "a%2Fb",
            "a.json",
            "con",
            "é",
            "e\u{301}",
            "💰",
            &long,
            &long[..252],
            "0",
        ];
        let store = open(kind, path).await;
        for (index, name) in shapes.iter().enumerate() {
            let task = store.put(name).await;
            let change = moved_on(&task, vec![run(name, index as u64)]);
            store.0.commit(Commit { changes: vec![change] }).await.unwrap();
        }
        store.stop().await;
        let (store, opened) = Running::open_with(kind.open(path)).await.unwrap();
        assert_eq!(opened.unreadable, [], "{kind:?}");
        let (mut found, mut expected) = (store.ids().await, shapes.map(str::to_owned));
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{kind:?}");
        for (index, name) in shapes.iter().enumerate() {
            let serials: Vec<_> = runs(&store, name).await.iter().map(|run| run.id.serial).collect();
            assert_eq!(serials, [index as u64], "{kind:?} {name}");
        }
    });
}

/// A task that runs once is removed when its run begins. When nothing is kept of removed tasks, or many
/// others are removed meanwhile, nobody comes for its record after the end.
#[test]
fn the_end_of_a_run_whose_task_is_forgotten_leaves_nothing() {
    each(async |kind, path| {
        let (store, _) = Running::open_with(kind.keeping(path, 100, 1)).await.unwrap();
        for (index, name) in ["first", "second", "again", "last"].into_iter().enumerate() {
            let task = store.put(name).await;
            let mut change = moved_on(&task, vec![run(name, index as u64)]);
            change.then = Then::Remove;
            store.0.commit(Commit { changes: vec![change] }).await.unwrap();
        }
        // Added again, it has a history again.
        store.put("again").await;
        let ends = [run("first", 0), run("again", 2), run("last", 3)].iter().map(ended).collect();
        store.0.finish(Finish { ends }).await.unwrap();
        let kept = async |store: &Running| {
            let names = ["first", "second", "again", "last"];
            join_all(names.map(|name| runs(store, name))).await.iter().map(Vec::len).collect::<Vec<_>>()
        };
        assert_eq!(kept(&store).await, [0, 1, 1, 1], "{kind:?}: the second has not ended");
        store.stop().await;
        let again = Running::open_as(kind.keeping(path, 100, 1), OwnerId(2)).await;
        let (store, opened) = again.unwrap();
        assert_eq!(opened.interrupted.len(), 1, "{kind:?}: and is told of");
        assert_eq!(kept(&store).await, [0, 0, 1, 1], "{kind:?}");
    });
}

/// The clock was wrong, and somebody set it back between two lives of a program.
#[test]
fn what_ran_last_is_the_latest_though_the_clock_went_back() {
    each(async |kind, path| {
        for (life, year) in [2030, 2026, 2026, 2027].into_iter().enumerate() {
            let time = VirtualClock::starting_at(&format!("{year}-01-01T00:00:00Z"));
            let builder = Scheduler::builder().clock(time.clock()).registry(Ran::default().registry());
            let scheduler = builder.store("default", kind.keeping(path, 8, 100)).start().await.unwrap();
            if life == 0 {
                let task =
                    Task::new("note").id("a").trigger(Date::at(start() + chrono::TimeDelta::days(10_000)));
                scheduler.add(task).await.unwrap();
            }
            let mut made = Vec::new();
            for _ in 0..6 {
                made.push(scheduler.run_task("a").await.unwrap());
                time.advance(std::time::Duration::from_secs(1)).await;
            }
            made.reverse();
            let found: Vec<_> =
                scheduler.history("a", 6).await.unwrap().into_iter().map(|run| run.id).collect();
            assert_eq!(found, made, "{kind:?}, life {life}");
            scheduler.shutdown(Shutdown::now()).await.unwrap();
        }
    });
}

/// A first start that was killed between its mark and its seal leaves data without a seal; without
/// one, data that is cut off later would pass for less data.
#[test]
fn data_without_a_seal_gets_one_at_once() {
    each(async |kind, path| {
        if matches!(kind, Kind::File) {
            return;
        }
        let store = open(kind, path).await;
        store.put("a").await;
        store.stop().await;
        let seal = path.join("callboard-store.json");
        std::fs::remove_file(&seal).unwrap();
        let store = open(kind, path).await;
        assert!(seal.exists(), "{kind:?}");
        assert_eq!(store.ids().await, ["a"], "{kind:?}");
        store.stop().await;
    });
}

/// The state of a task names its runs that may be tried again; it has to fit a row, however many of
/// them there are.
#[actix::test]
async fn a_task_with_very_many_runs_fits_its_row() {
    let base = tempfile::tempdir().unwrap();
    let store = Kind::Redb.open(base.path());
    let (scheduler, time, _) = board(|b| b.store("default", store)).await;
    let task = Task::new("hang").id("crowd").trigger(Interval::every(Duration::from_millis(1001)));
    let task = task.overlap(Overlap::Allow).max_instances(1000).recover(true);
    scheduler.add(task.retry(Retry::times(3))).await.unwrap();
    for _ in 0..4 {
        time.advance(secs(100)).await;
    }
    let task = scheduler.pause_task("crowd").await.unwrap();
    assert!(task.state.runs > MAX_ATTEMPTS as u64, "{}", task.state.runs);
    assert_eq!(task.state.attempts.len(), MAX_ATTEMPTS);
    // As long as an attempt can be.
    let mut state = task.state;
    for attempt in &mut state.attempts {
        let late = attempt.nominal + TimeDelta::nanoseconds(123_456_789);
        (attempt.nominal, attempt.due, attempt.at) = (late, late, Some(late));
        (attempt.coalesced, attempt.number, attempt.interrupted) = (1_000_000, 1000, 10);
    }
    let size = serde_json::to_vec(&state).unwrap().len();
    assert!(size < ROW_LIMIT - 1024, "{size}");
    scheduler.shutdown(Shutdown::now()).await.unwrap();
}
