//! Runs that are due while others of their task go on.

use std::sync::Mutex;
use std::sync::mpsc;

use tokio::sync::Semaphore;

use super::*;
use crate::task::{Overlap, RunEnd, TaskSpec};

pub(super) async fn suite<S: ExecutorSource>(make: &impl Fn() -> S, limits: Limits) {
    a_line_is_kept(make()).await;
    whoever_waits_can_be_late(make()).await;
    whoever_waits_can_be_cancelled(make()).await;
    forced_runs_go_past(make()).await;
    a_long_line_ends(make()).await;
    a_line_and_a_drain(make()).await;
    a_line_and_a_cut(make()).await;
    the_running_one_is_cancelled(make()).await;
    if !limits.inline {
        code_that_does_not_stop_is_waited_for(make()).await;
    }
    all_are_allowed(make()).await;
    more_instances_than_before(make()).await;
}

fn overlapping(overlap: Overlap) -> Arc<TaskSpec> {
    task("t", |task| task.overlap(overlap))
}

/// A log of what runs, in order, and code that notes its run and then waits for a permit.
fn noting(gate: &Arc<Semaphore>) -> (Arc<Mutex<Vec<u64>>>, Code) {
    let log = Arc::new(Mutex::new(Vec::new()));
    let (notes, gate) = (log.clone(), gate.clone());
    let code = Code::from_async(move |context: TaskContext, ()| {
        let gate = gate.clone();
        notes.lock().expect("no panic").push(context.run_id().serial);
        async move { gate.acquire().await.expect("open").forget() }
    });
    (log, code)
}

/// The next run that ends, and how.
async fn outcome(stage: &mut Stage) -> (u64, RunEnd) {
    let (run, end) = stage.end().await;
    (run.id.serial, end)
}

async fn a_line_is_kept(source: impl ExecutorSource) {
    let (mut stage, _) = stage(source).await;
    let gate = Arc::new(Semaphore::new(0));
    let (log, code) = noting(&gate);
    let task = overlapping(Overlap::Queue(2));
    let runs: Vec<_> = (0..5).map(|_| stage.run(&task, &code)).collect();
    stage.submit(runs).await;
    for serial in [4, 5] {
        let (ended, end) = outcome(&mut stage).await;
        assert_eq!(ended, serial);
        assert_eq!(end.outcome, Outcome::Refused { reason: Refusal::TaskQueueFull { limit: 2 } });
    }
    let status = stage.status().await;
    assert_eq!(status.running + status.queued, 3);
    assert!(status.queued >= 2, "{status:?}");
    assert_eq!(status.instances, [("t".to_owned(), 1)], "what waits takes no instance");
    for serial in [1, 2, 3] {
        gate.add_permits(1);
        let (ended, end) = outcome(&mut stage).await;
        assert_eq!((ended, end.outcome.is_success()), (serial, true));
        if serial == 1 {
            let later = stage.run(&task, &code);
            stage.submit([later]).await;
        }
    }
    gate.add_permits(1);
    assert_eq!(outcome(&mut stage).await.0, 6);
    assert_eq!(*log.lock().expect("no panic"), [1, 2, 3, 6]);
    stage.is_empty().await;
}

async fn whoever_waits_can_be_late(source: impl ExecutorSource) {
    let (mut stage, time) = stage(source).await;
    let task = task("t", |task| task.overlap(Overlap::Queue(9)).misfire_grace(Duration::from_secs(15)));
    let runs: Vec<_> = (0..4).map(|_| stage.run(&task, &sleeper())).collect();
    stage.submit(runs).await;
    let began = stage.clock.now();
    time.advance(Duration::from_secs(60)).await;
    for (late, lasts) in [(0, true), (10, true), (20, false), (20, false)] {
        let (_, end) = outcome(&mut stage).await;
        match lasts {
            true => assert_eq!(end.started_at, Some(began + TimeDelta::seconds(late)), "{end:?}"),
            false => assert_eq!(end.outcome, Outcome::Missed { late_ms: 1000 * late as u64 }),
        }
    }
    stage.is_empty().await;
}

async fn whoever_waits_can_be_cancelled(source: impl ExecutorSource) {
    let (mut stage, _) = stage(source).await;
    let gate = Arc::new(Semaphore::new(0));
    let (log, code) = noting(&gate);
    let runs: Vec<_> = (0..4).map(|_| stage.run(&overlapping(Overlap::Queue(9)), &code)).collect();
    let ids: Vec<_> = runs.iter().map(|run| run.id).collect();
    stage.submit(runs).await;
    assert!(stage.cancel(ids[2]).await);
    assert!(!stage.cancel(ids[2]).await, "once");
    let (ended, end) = outcome(&mut stage).await;
    assert_eq!((ended, end.outcome, end.started_at), (3, Outcome::Cancelled, None));
    // The end of the one going on lets the next one in, however it ends.
    assert!(stage.cancel(ids[0]).await);
    let (ended, end) = outcome(&mut stage).await;
    assert_eq!((ended, end.outcome), (1, Outcome::Cancelled));
    gate.add_permits(2);
    for serial in [2, 4] {
        assert_eq!(outcome(&mut stage).await.0, serial);
    }
    let log = log.lock().expect("no panic").clone();
    assert!(log.ends_with(&[2, 4]) && !log.contains(&3), "{log:?}");
    stage.is_empty().await;
}

async fn forced_runs_go_past(source: impl ExecutorSource) {
    let (mut stage, _) = stage(source).await;
    let gate = Arc::new(Semaphore::new(0));
    let (_, code) = noting(&gate);
    let task = overlapping(Overlap::Queue(1));
    let runs = [stage.run(&task, &code), stage.run(&task, &code)];
    stage.submit(runs).await;
    let mut forced = stage.run(&task, &code);
    forced.force = true;
    stage.submit([forced]).await;
    assert_eq!(stage.status().await.instances, [("t".to_owned(), 2)]);
    gate.add_permits(1);
    let (first, _) = outcome(&mut stage).await;
    assert!([1, 3].contains(&first));
    // One goes on still, which is all there may be.
    assert_eq!(stage.status().await.instances, [("t".to_owned(), 1)]);
    gate.add_permits(2);
    assert_eq!((outcome(&mut stage).await.0, outcome(&mut stage).await.0), (4 - first, 2));
    stage.is_empty().await;
}

async fn a_long_line_ends(source: impl ExecutorSource) {
    let (mut stage, _) = stage(source).await;
    let task = overlapping(Overlap::Queue(u32::MAX));
    let codes = all_endings();
    let runs: Vec<_> = (0..2000).map(|n| stage.part(&task, codes[n % 4].0)).collect();
    stage.submit(runs).await;
    for serial in 1..=2000 {
        assert_eq!(outcome(&mut stage).await.0, serial);
    }
    stage.is_empty().await;
}

async fn a_line_and_a_drain(source: impl ExecutorSource) {
    let (mut stage, time) = stage(source).await;
    let task = overlapping(Overlap::Queue(9));
    let runs: Vec<_> = (0..4).map(|_| stage.run(&task, &sleeper())).collect();
    stage.submit(runs).await;
    let drained = stage.drain(Duration::from_secs(25));
    stage.status().await;
    time.advance(Duration::from_secs(25)).await;
    assert_eq!(drained.await, Drained { interrupted: 2 });
    let mut words = Vec::new();
    for _ in 0..4 {
        let (serial, end) = outcome(&mut stage).await;
        words.push((serial, end.outcome.word()));
    }
    words.sort();
    assert_eq!(words, [(1, "executed"), (2, "executed"), (3, "interrupted"), (4, "interrupted")]);
    stage.is_empty().await;
}

async fn a_line_and_a_cut(source: impl ExecutorSource) {
    let (mut stage, _) = stage(source).await;
    let (log, code) = noting(&Arc::new(Semaphore::new(0)));
    let runs: Vec<_> = (0..3).map(|_| stage.run(&overlapping(Overlap::Queue(9)), &code)).collect();
    stage.submit(runs).await;
    assert_eq!(stage.drain(Duration::ZERO).await, Drained { interrupted: 3 });
    for _ in 0..3 {
        assert!(matches!(outcome(&mut stage).await.1.outcome, Outcome::Interrupted { .. }));
    }
    assert!(log.lock().expect("no panic").len() <= 1, "what waited did not run");
    stage.is_empty().await;
}

async fn the_running_one_is_cancelled(source: impl ExecutorSource) {
    let (mut stage, time) = stage(source).await;
    let task = task("t", |task| task.overlap(Overlap::CancelRunning).max_instances(2));
    for _ in 0..2 {
        let run = stage.run(&task, &sleeper());
        stage.submit([run]).await;
    }
    time.advance(Duration::from_secs(1)).await;
    let third = stage.run(&task, &sleeper());
    stage.submit([third]).await;
    let (serial, end) = outcome(&mut stage).await;
    assert_eq!((serial, end.outcome), (1, Outcome::Cancelled), "the one going on longest");
    time.advance(Duration::from_secs(60)).await;
    for serial in [2, 3] {
        let (ended, end) = outcome(&mut stage).await;
        assert_eq!((ended, end.outcome.is_success()), (serial, true));
    }
    stage.is_empty().await;

    // Due together: the last one wins.
    let runs: Vec<_> = (0..5).map(|_| stage.run(&task, &sleeper())).collect();
    stage.submit(runs).await;
    time.advance(Duration::from_secs(60)).await;
    let mut executed = Vec::new();
    for _ in 0..5 {
        let (serial, end) = outcome(&mut stage).await;
        match end.outcome {
            Outcome::Executed { .. } => executed.push(serial),
            other => assert_eq!(other, Outcome::Cancelled),
        }
    }
    executed.sort();
    assert_eq!(executed, [5, 8]);
    stage.is_empty().await;
}

async fn code_that_does_not_stop_is_waited_for(source: impl ExecutorSource) {
    let (mut stage, _) = stage(source).await;
    let (release, held) = mpsc::channel();
    let held = Arc::new(Mutex::new(held));
    let begun = Arc::new(Semaphore::new(0));
    let begins = begun.clone();
    let code = Code::from_blocking(move |_: TaskContext, ()| {
        begins.add_permits(1);
        held.lock().expect("no panic").recv().expect("released");
    });
    let task = overlapping(Overlap::CancelRunning);
    let first = stage.run(&task, &code);
    stage.submit([first]).await;
    begun.acquire().await.expect("open").forget();
    for _ in 0..2 {
        let run = stage.run(&task, &code);
        stage.submit([run]).await;
    }
    let (replaced, end) = outcome(&mut stage).await;
    assert_eq!((replaced, end.outcome, end.started_at), (2, Outcome::Cancelled, None));
    assert_eq!(stage.status().await.instances, [("t".to_owned(), 1)]);
    for _ in 0..2 {
        release.send(()).expect("somebody waits");
    }
    let (first, _) = outcome(&mut stage).await;
    let (last, end) = outcome(&mut stage).await;
    assert_eq!((first, last, end.outcome.is_success()), (1, 3, true));
    stage.is_empty().await;
}

async fn all_are_allowed(source: impl ExecutorSource) {
    let (mut stage, time) = stage(source).await;
    let task = overlapping(Overlap::Allow);
    let runs = [stage.run(&task, &sleeper()), stage.run(&task, &sleeper())];
    stage.submit(runs).await;
    assert_eq!(stage.status().await.instances, [("t".to_owned(), 2)]);
    time.advance(Duration::from_secs(10)).await;
    for _ in 0..2 {
        assert!(outcome(&mut stage).await.1.outcome.is_success());
    }
    stage.is_empty().await;
}

/// The task was changed while runs of it waited: those come first.
async fn more_instances_than_before(source: impl ExecutorSource) {
    let (mut stage, _) = stage(source).await;
    let gate = Arc::new(Semaphore::new(0));
    let (log, code) = noting(&gate);
    let before = overlapping(Overlap::Queue(9));
    let runs: Vec<_> = (0..2).map(|_| stage.run(&before, &code)).collect();
    stage.submit(runs).await;
    let after = task("t", |task| task.overlap(Overlap::Queue(9)).max_instances(2));
    let run = stage.run(&after, &code);
    stage.submit([run]).await;
    gate.add_permits(3);
    for _ in 0..3 {
        assert!(outcome(&mut stage).await.1.outcome.is_success());
    }
    let log = log.lock().expect("no panic").clone();
    assert_eq!(log, [1, 2, 3]);
    stage.is_empty().await;
}
