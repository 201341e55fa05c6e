//! Runs that are due while others of their task go on.

use super::*;
use crate::task::{Overlap, Run, RunEnd, TaskSpec};

pub(super) async fn suite<S: ExecutorSource>(make: &impl Fn() -> S, limits: Limits) {
    a_line_is_kept(make()).await;
    whoever_waits_can_be_late(make()).await;
    whoever_waits_can_be_cancelled(make()).await;
    forced_runs_go_past(make()).await;
    a_long_line_ends(make()).await;
    a_line_and_a_drain(make()).await;
    a_line_and_a_cut(make()).await;
    the_running_one_is_cancelled(make()).await;
    if !limits.inline && !limits.kills {
        code_that_does_not_stop_is_waited_for(make()).await;
    }
    all_are_allowed(make()).await;
    more_instances_than_before(make()).await;
}

fn overlapping(overlap: Overlap) -> Arc<TaskSpec> {
    task("t", |task| task.overlap(overlap))
}

/// Runs that wait at `gate`.
fn gated<const N: usize>(stage: &mut Stage, task: &Arc<TaskSpec>, gate: &Gate) -> [Run; N] {
    std::array::from_fn(|_| stage.part_with(task, "gated", gate.args()))
}

/// Runs that take ten seconds.
fn sleepers<const N: usize>(stage: &mut Stage, task: &Arc<TaskSpec>) -> [Run; N] {
    std::array::from_fn(|_| stage.part_with(task, "sleep", 10))
}

/// The next run that ends, and how.
async fn outcome(stage: &mut Stage) -> (u64, RunEnd) {
    let (run, end) = stage.end().await;
    (run.id.serial, end)
}

async fn a_line_is_kept(source: impl ExecutorSource) {
    let (mut stage, _) = stage(source).await;
    let gate = Gate::new();
    let task = overlapping(Overlap::Queue(2));
    let runs: [_; 5] = gated(&mut stage, &task, &gate);
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
        gate.open(1);
        let (ended, end) = outcome(&mut stage).await;
        assert_eq!((ended, end.outcome.is_success()), (serial, true));
        if serial == 1 {
            let later: [_; 1] = gated(&mut stage, &task, &gate);
            stage.submit(later).await;
        }
    }
    gate.open(1);
    assert_eq!(outcome(&mut stage).await.0, 6);
    assert_eq!(gate.peak(), 1);
    stage.is_empty().await;
}

async fn whoever_waits_can_be_late(source: impl ExecutorSource) {
    let (mut stage, time) = stage(source).await;
    let task = task("t", |task| task.overlap(Overlap::Queue(9)).misfire_grace(Duration::from_secs(15)));
    let runs: [_; 4] = sleepers(&mut stage, &task);
    stage.submit(runs).await;
    let began = stage.clock.now();
    time.advance(Duration::from_secs(60)).await;
    for (late, runs) in [(0, true), (10, true), (20, false), (20, false)] {
        let (_, end) = outcome(&mut stage).await;
        match runs {
            true => assert_eq!(end.started_at, Some(began + TimeDelta::seconds(late)), "{end:?}"),
            false => assert_eq!(end.outcome, Outcome::Missed { late_ms: 1000 * late as u64 }),
        }
    }
    stage.is_empty().await;
}

async fn whoever_waits_can_be_cancelled(source: impl ExecutorSource) {
    let (mut stage, _) = stage(source).await;
    let gate = Gate::new();
    let runs: [_; 4] = gated(&mut stage, &overlapping(Overlap::Queue(9)), &gate);
    let ids = [0, 1, 2, 3].map(|index: usize| runs[index].id);
    stage.submit(runs).await;
    gate.reached().await;
    assert!(stage.cancel(ids[2]).await);
    assert!(!stage.cancel(ids[2]).await, "once");
    let (ended, end) = outcome(&mut stage).await;
    assert_eq!((ended, end.outcome, end.started_at), (3, Outcome::Cancelled, None));
    // The end of the one going on lets the next one in, however it ends.
    assert!(stage.cancel(ids[0]).await);
    let (ended, end) = outcome(&mut stage).await;
    assert_eq!((ended, end.outcome), (1, Outcome::Cancelled));
    // The one that was cancelled may stand at the gate still.
    gate.open(3);
    for serial in [2, 4] {
        let (ended, end) = outcome(&mut stage).await;
        assert_eq!((ended, end.outcome.is_success()), (serial, true));
    }
    stage.is_empty().await;
}

async fn forced_runs_go_past(source: impl ExecutorSource) {
    let (mut stage, _) = stage(source).await;
    let gate = Gate::new();
    let task = overlapping(Overlap::Queue(1));
    let runs: [_; 2] = gated(&mut stage, &task, &gate);
    stage.submit(runs).await;
    let [mut forced] = gated(&mut stage, &task, &gate);
    forced.beyond_max_instances = true;
    stage.submit([forced]).await;
    assert_eq!(stage.status().await.instances, [("t".to_owned(), 2)]);
    gate.open(1);
    let (first, _) = outcome(&mut stage).await;
    assert!([1, 3].contains(&first));
    // One goes on still, which is all there may be.
    assert_eq!(stage.status().await.instances, [("t".to_owned(), 1)]);
    gate.open(2);
    assert_eq!((outcome(&mut stage).await.0, outcome(&mut stage).await.0), (4 - first, 2));
    stage.is_empty().await;
}

async fn a_long_line_ends(source: impl ExecutorSource) {
    let (mut stage, _) = stage(source).await;
    let task = overlapping(Overlap::Queue(u32::MAX));
    let endings = all_endings();
    let runs: Vec<_> = (0..1000).map(|n| stage.part(&task, endings[n % 4].0)).collect();
    stage.submit(runs).await;
    for serial in 1..=1000 {
        assert_eq!(outcome(&mut stage).await.0, serial);
    }
    stage.is_empty().await;
}

async fn a_line_and_a_drain(source: impl ExecutorSource) {
    let (mut stage, time) = stage(source).await;
    let runs: [_; 4] = sleepers(&mut stage, &overlapping(Overlap::Queue(9)));
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
    let gate = Gate::new();
    let runs: [_; 3] = gated(&mut stage, &overlapping(Overlap::Queue(9)), &gate);
    stage.submit(runs).await;
    assert_eq!(stage.drain(Duration::ZERO).await, Drained { interrupted: 3 });
    for _ in 0..3 {
        assert!(matches!(outcome(&mut stage).await.1.outcome, Outcome::Interrupted { .. }));
    }
    assert!(gate.peak() <= 1, "what waited did not run");
    stage.is_empty().await;
}

async fn the_running_one_is_cancelled(source: impl ExecutorSource) {
    let (mut stage, time) = stage(source).await;
    let task = task("t", |task| task.overlap(Overlap::CancelRunning).max_instances(2));
    for _ in 0..2 {
        let run: [_; 1] = sleepers(&mut stage, &task);
        stage.submit(run).await;
    }
    time.advance(Duration::from_secs(1)).await;
    let third: [_; 1] = sleepers(&mut stage, &task);
    stage.submit(third).await;
    let (serial, end) = outcome(&mut stage).await;
    assert_eq!((serial, end.outcome), (1, Outcome::Cancelled), "the one going on longest");
    time.advance(Duration::from_secs(60)).await;
    for serial in [2, 3] {
        let (ended, end) = outcome(&mut stage).await;
        assert_eq!((ended, end.outcome.is_success()), (serial, true));
    }
    stage.is_empty().await;

    // Due together: the last one wins.
    let runs: [_; 5] = sleepers(&mut stage, &task);
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
    let gate = Gate::new();
    let task = overlapping(Overlap::CancelRunning);
    let first = stage.part_with(&task, "gated, blocking", gate.args());
    stage.submit([first]).await;
    gate.reached().await;
    for _ in 0..2 {
        let run = stage.part_with(&task, "gated, blocking", gate.args());
        stage.submit([run]).await;
    }
    let (replaced, end) = outcome(&mut stage).await;
    assert_eq!((replaced, end.outcome, end.started_at), (2, Outcome::Cancelled, None));
    assert_eq!(stage.status().await.instances, [("t".to_owned(), 1)]);
    gate.open(2);
    let (first, _) = outcome(&mut stage).await;
    let (last, end) = outcome(&mut stage).await;
    assert_eq!((first, last, end.outcome.is_success()), (1, 3, true));
    stage.is_empty().await;
}

async fn all_are_allowed(source: impl ExecutorSource) {
    let (mut stage, time) = stage(source).await;
    let runs: [_; 2] = sleepers(&mut stage, &overlapping(Overlap::Allow));
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
    let gate = Gate::new();
    let before = overlapping(Overlap::Queue(9));
    // The run that waits has the task as it was, and comes when there is room by that.
    let waiting = task("t", |task| task.overlap(Overlap::Queue(9)).max_instances(2));
    let first: [_; 1] = gated(&mut stage, &before, &gate);
    stage.submit(first).await;
    let second: [_; 1] = gated(&mut stage, &before, &gate);
    stage.submit(second).await;
    let third: [_; 1] = gated(&mut stage, &waiting, &gate);
    let id = third[0].id;
    stage.submit(third).await;
    assert_eq!(stage.status().await.instances, [("t".to_owned(), 1)]);
    assert!(stage.cancel(id).await);
    let (serial, end) = outcome(&mut stage).await;
    assert_eq!((serial, end.outcome, end.started_at), (3, Outcome::Cancelled, None));
    gate.open(2);
    for serial in [1, 2] {
        assert_eq!(outcome(&mut stage).await.0, serial);
    }
    stage.is_empty().await;
}
