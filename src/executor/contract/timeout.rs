//! Runs that take longer than they may.

use super::*;
use crate::clock::Clock;
use crate::task::Overlap;

pub(super) async fn suite<S: ExecutorSource>(make: &impl Fn() -> S, limits: Limits) {
    it_ends_when_its_time_is_over(make()).await;
    whoever_is_in_time_is_left_alone(make()).await;
    the_next_in_line_comes_in(make()).await;
    several_time_out_at_once(make()).await;
    code_that_blocks_is_stopped(make()).await;
    if !limits.inline && !limits.kills {
        code_that_does_not_stop_counts_until_it_returns(make()).await;
    }
}

const LIMIT: Duration = Duration::from_secs(3);
const LATE: Outcome = Outcome::TimedOut { after_ms: 3000 };

async fn it_ends_when_its_time_is_over(source: impl ExecutorSource) {
    let (mut stage, time) = stage(source).await;
    let run = stage.part_with(&task("slow", |task| task.timeout(LIMIT)), "sleep", 60);
    let began = stage.clock.now();
    stage.submit([run]).await;
    time.advance(Duration::from_secs(2)).await;
    assert_eq!(stage.status().await.instances, [("slow".to_owned(), 1)]);
    time.advance(Duration::from_secs(8)).await;
    let (_, end) = stage.end().await;
    assert_eq!(end.outcome, LATE);
    assert_eq!((end.started_at, end.ended_at), (Some(began), began + TimeDelta::seconds(3)));
    assert_eq!(end.duration, LIMIT);
    stage.is_empty().await;
}

async fn whoever_is_in_time_is_left_alone(source: impl ExecutorSource) {
    let (mut stage, time) = stage(source).await;
    let run = stage.part_with(&task("quick", |task| task.timeout(LIMIT)), "in time", 2999);
    stage.submit([run]).await;
    time.advance(Duration::from_secs(60)).await;
    let (run, end) = stage.end().await;
    assert_eq!(end.outcome, Outcome::Executed { value: false.into() });
    assert!(!run.is_cancelled());
    stage.is_empty().await;
}

/// The time of a run begins with its code, and its end makes room.
async fn the_next_in_line_comes_in(source: impl ExecutorSource) {
    let (mut stage, time) = stage(source).await;
    let task = task("slow", |task| task.timeout(LIMIT).overlap(Overlap::Queue(5)));
    let runs: Vec<_> = (0..3).map(|_| stage.part_with(&task, "sleep", 10)).collect();
    stage.submit(runs).await;
    let began = stage.clock.now();
    time.advance(Duration::from_secs(60)).await;
    for turn in 0..3 {
        let (_, end) = stage.end().await;
        assert_eq!(end.outcome, LATE);
        assert_eq!(end.started_at, Some(began + TimeDelta::seconds(3 * turn)));
    }
    stage.is_empty().await;
}

async fn several_time_out_at_once(source: impl ExecutorSource) {
    let (mut stage, time) = stage(source).await;
    let task = task("slow", |task| task.timeout(LIMIT).max_instances(2));
    let runs: Vec<_> = (0..2).map(|_| stage.part_with(&task, "sleep", 10)).collect();
    stage.submit(runs).await;
    time.advance(LIMIT).await;
    for _ in 0..2 {
        assert_eq!(stage.end().await.1.outcome, LATE);
    }
    stage.is_empty().await;
}

/// In real time: while code blocks, a virtual clock stands still.
async fn code_that_blocks_is_stopped(mut source: impl ExecutorSource) {
    let mut stage = Stage::new(&mut source, Clock::system()).await;
    let task = task("stubborn", |task| task.timeout(Duration::from_millis(5)));
    for _ in 0..2 {
        let run = stage.part(&task, "stubborn");
        stage.submit([run]).await;
        let (_, end) = stage.end().await;
        assert_eq!(end.outcome, Outcome::TimedOut { after_ms: 5 });
        assert!(end.duration >= Duration::from_millis(5));
    }
    stage.is_empty().await;
}

async fn code_that_does_not_stop_counts_until_it_returns(mut source: impl ExecutorSource) {
    let mut stage = Stage::new(&mut source, Clock::system()).await;
    let gate = Gate::new();
    let task = task("stubborn", |task| task.timeout(Duration::from_millis(5)));
    let run = Arc::new(stage.part_with(&task, "gated, blocking", gate.args()));
    stage.submit_shared(vec![run.clone()]).await;
    run.cancelled().await;
    assert_eq!(stage.status().await.instances, [("stubborn".to_owned(), 1)]);
    let another = stage.part_with(&task, "gated, blocking", gate.args());
    stage.submit([another]).await;
    let full = Outcome::Refused { reason: Refusal::MaxInstances { max: 1 } };
    assert_eq!(stage.end().await.1.outcome, full);
    gate.open(1);
    let (_, end) = stage.end().await;
    assert_eq!(end.outcome, Outcome::TimedOut { after_ms: 5 }, "whatever it returned");
    stage.is_empty().await;
}
