//! Runs whose code has time to end by itself, and what runs have to show.

use super::*;
use crate::clock::Clock;

pub(super) async fn suite<S: ExecutorSource>(make: &impl Fn() -> S) {
    what_fails_shows_what_it_has(make()).await;
    a_cancelled_run_counts_until_it_has_ended(make()).await;
    so_does_one_whose_time_is_over(make()).await;
    a_drain_waits_for_its_end(make()).await;
    the_grace_is_kept(make()).await;
}

/// In real time, for the code waits for its gates.
async fn real(mut source: impl ExecutorSource) -> Stage {
    Stage::new(&mut source, Clock::system()).await
}

/// Has `handler` run as far as its first gate.
async fn begin(
    stage: &mut Stage,
    handler: &str,
    limit: Option<Duration>,
    exit: &Gate,
) -> Arc<crate::task::Run> {
    let entry = Gate::new();
    let task = task("tidy", |task| match limit {
        Some(limit) => task.timeout(limit),
        None => task,
    });
    let run = Arc::new(stage.part_with(&task, handler, vec![entry.args(), exit.args()]));
    stage.submit_shared(vec![run.clone()]).await;
    entry.reached().await;
    entry.open(1);
    run
}

/// The run has been asked to stop: it counts until it passes `exit`, and ends like this.
async fn ends_at(stage: &mut Stage, exit: &Gate, expected: Outcome) {
    exit.reached().await;
    assert_eq!(stage.status().await.instances, [("tidy".to_owned(), 1)]);
    let another = stage.part(&task("tidy", |task| task), "ok");
    stage.submit([another]).await;
    let full = Outcome::Refused { reason: Refusal::MaxInstances { max: 1 } };
    assert_eq!(stage.end().await.1.outcome, full);
    exit.open(1);
    let (_, end) = stage.end().await;
    assert_eq!((end.outcome, end.output), (expected, Some(Box::new("half done".into()))));
    stage.is_empty().await;
}

async fn what_fails_shows_what_it_has(source: impl ExecutorSource) {
    let (mut stage, _) = stage(source).await;
    let task = task("shown", |task| task);
    let shown = |text: &str| Some(Box::new(text.into()));
    for (handler, output) in
        [("shows", None), ("shows and fails", shown("all of it")), ("shows and panics", shown("a part"))]
    {
        let run = stage.part(&task, handler);
        stage.submit([run]).await;
        let (_, end) = stage.end().await;
        assert_eq!((end.outcome.is_success(), end.output), (handler == "shows", output), "{handler}");
    }
    stage.is_empty().await;
}

async fn a_cancelled_run_counts_until_it_has_ended(source: impl ExecutorSource) {
    let mut stage = real(source).await;
    let exit = Gate::new();
    let run = begin(&mut stage, "tidy", None, &exit).await;
    assert!(stage.cancel(run.id).await);
    ends_at(&mut stage, &exit, Outcome::Cancelled).await;
}

async fn so_does_one_whose_time_is_over(source: impl ExecutorSource) {
    let mut stage = real(source).await;
    let exit = Gate::new();
    begin(&mut stage, "tidy", Some(Duration::from_millis(300)), &exit).await;
    ends_at(&mut stage, &exit, Outcome::TimedOut { after_ms: 300 }).await;
}

async fn a_drain_waits_for_its_end(source: impl ExecutorSource) {
    let mut stage = real(source).await;
    let exit = Gate::new();
    begin(&mut stage, "tidy", None, &exit).await;
    let drained = stage.drain(Duration::ZERO);
    exit.reached().await;
    exit.open(1);
    let (_, end) = stage.end().await;
    assert!(matches!(end.outcome, Outcome::Interrupted { .. }), "{end:?}");
    assert_eq!(end.output, Some(Box::new("half done".into())));
    assert_eq!(drained.await, Drained { interrupted: 1 });
    stage.is_empty().await;
}

/// Code that has had its time and has not ended is cut off.
async fn the_grace_is_kept(source: impl ExecutorSource) {
    let mut stage = real(source).await;
    let never = Gate::new();
    let run = begin(&mut stage, "untidy", None, &never).await;
    assert!(stage.cancel(run.id).await);
    assert_eq!(stage.end().await.1.outcome, Outcome::Cancelled);
    begin(&mut stage, "untidy", None, &never).await;
    assert_eq!(stage.drain(Duration::ZERO).await, Drained { interrupted: 1 });
    assert!(matches!(stage.end().await.1.outcome, Outcome::Interrupted { .. }));
    stage.is_empty().await;
}
