//! What every executor must do, as one suite, for tests: [`suite`] takes an executor through it.

mod grace;
mod overlap;
mod parts;
mod timeout;

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;

use super::ExecutorSource;
use super::message::Drained;
pub use super::stage::{Stage, task};
use crate::task::{Alias, Outcome, Refusal};
use crate::testing::VirtualClock;
pub use parts::registry;
use parts::{Gate, all_endings};

/// What an executor cannot do by its nature.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// Blocking code holds up the executor itself, so nothing can be asked of it meanwhile.
    pub inline: bool,
    /// Code that does not stop when it is asked to is stopped all the same, with its process.
    pub kills: bool,
}

/// Takes executors made by `make` through the contract; panics where one breaks it. Call it in an
/// actix system. Needs two places at least for runs that wait.
pub async fn suite<S: ExecutorSource>(make: impl Fn() -> S, limits: Limits) {
    ends_tell_what_happened(make()).await;
    durations_are_exact(make()).await;
    instances_are_limited(make()).await;
    every_end_gives_its_instance_back(make()).await;
    ids_of_two_stores_are_two_tasks(make()).await;
    ten_thousand_at_once_all_end(make()).await;
    runs_are_cancelled(make(), limits).await;
    runs_before_attach_wait_for_it(make()).await;
    draining_an_idle_executor(make()).await;
    draining_waits(make()).await;
    draining_cuts_off_after_the_grace(make()).await;
    draining_cuts_off_at_once(make(), limits).await;
    draining_before_attach(make()).await;
    overlap::suite(&make, limits).await;
    timeout::suite(&make, limits).await;
    grace::suite(&make).await;
}

fn time() -> VirtualClock {
    VirtualClock::starting_at("2026-03-01T08:00:00Z")
}

async fn stage<S: ExecutorSource>(mut source: S) -> (Stage, VirtualClock) {
    let time = time();
    (Stage::new(&mut source, time.clock()).await, time)
}

/// Whether a run ended as expected: where it panicked is told behind the message.
fn check(outcome: &Outcome, expected: &Outcome) {
    match (outcome, expected) {
        (Outcome::Panicked { message }, Outcome::Panicked { message: expected }) => {
            let place = message.strip_prefix(expected).expect("the message");
            assert!(place.starts_with(" (at ") && place.contains("parts.rs:"), "{message}");
        }
        _ => assert_eq!(outcome, expected),
    }
}

async fn ends_tell_what_happened(source: impl ExecutorSource) {
    let (mut stage, _) = stage(source).await;
    let task = task("letter", |task| task);
    for (handler, expected) in all_endings() {
        let mut run = stage.part(&task, handler);
        run.attempt = 3;
        run.nominal -= TimeDelta::seconds(2);
        run.due -= TimeDelta::seconds(1);
        let (id, nominal, now) = (run.id, run.nominal, stage.clock.now());
        stage.submit([run]).await;
        let (run, end) = stage.end().await;
        check(&end.outcome, &expected);
        assert_eq!((run.id, run.nominal, run.attempt), (id, nominal, 3));
        assert_eq!((end.started_at, end.ended_at), (Some(now), now));
        assert_eq!(end.lateness(run.due), TimeDelta::seconds(1));
    }
    let run = stage.part_with(&task, "number", "seven");
    stage.submit([run]).await;
    let Outcome::Failed { error } = stage.end().await.1.outcome else { panic!("must not decode") };
    assert!(error.contains("arguments do not decode") && error.contains("seven"), "{error}");
    stage.is_empty().await;
}

async fn durations_are_exact(source: impl ExecutorSource) {
    let (mut stage, time) = stage(source).await;
    let run = stage.part_with(&task("slow", |task| task), "sleep", 90);
    let began = stage.clock.now();
    stage.submit([run]).await;
    time.advance(Duration::from_secs(600)).await;
    let (_, end) = stage.end().await;
    assert!(end.outcome.is_success());
    assert_eq!(end.duration, Duration::from_secs(90));
    assert_eq!((end.started_at, end.ended_at), (Some(began), began + TimeDelta::seconds(90)));
}

async fn instances_are_limited(source: impl ExecutorSource) {
    let (mut stage, _) = stage(source).await;
    let task = task("few", |task| task.max_instances(2));
    let gate = Gate::new();
    for _ in 0..3 {
        let runs: Vec<_> = (0..5).map(|_| stage.part_with(&task, "gated", gate.args())).collect();
        stage.submit(runs).await;
        for _ in 0..3 {
            let refused = Outcome::Refused { reason: Refusal::MaxInstances { max: 2 } };
            assert_eq!(stage.end().await.1.outcome, refused);
        }
        let status = stage.status().await;
        assert_eq!(status.instances, [("few".to_owned(), 2)]);
        assert_eq!(status.running + status.queued, 2);
        gate.open(2);
        for _ in 0..2 {
            assert!(stage.end().await.1.outcome.is_success());
        }
        stage.is_empty().await;
    }
    assert!(gate.peak() <= 2);

    let waiting: Vec<_> = (0..2).map(|_| stage.part_with(&task, "gated", gate.args())).collect();
    let mut forced = stage.part_with(&task, "gated", gate.args());
    forced.beyond_max_instances = true;
    stage.submit(waiting).await;
    stage.submit([forced]).await;
    gate.open(3);
    for _ in 0..3 {
        assert!(stage.end().await.1.outcome.is_success());
    }
    stage.is_empty().await;
}

async fn every_end_gives_its_instance_back(source: impl ExecutorSource) {
    let (mut stage, _) = stage(source).await;
    let task = task("single", |task| task.misfire_grace(Duration::from_secs(5)));
    // By the time an end is heard of, its instance is back: the next run is let in at once.
    for (handler, expected) in all_endings() {
        let run = stage.part(&task, handler);
        stage.submit([run]).await;
        check(&stage.end().await.1.outcome, &expected);
        stage.is_empty().await;
    }
    let mut late = stage.part(&task, "ok");
    late.due -= TimeDelta::milliseconds(5001);
    stage.submit([late]).await;
    let (_, end) = stage.end().await;
    assert_eq!((end.outcome, end.started_at), (Outcome::Missed { late_ms: 5001 }, None));

    let cancelled = Arc::new(stage.part(&task, "endless"));
    stage.submit_shared(vec![cancelled.clone()]).await;
    cancelled.cancel();
    assert_eq!(stage.end().await.1.outcome, Outcome::Cancelled);

    let mut just_in_time = stage.part(&task, "ok");
    just_in_time.due -= TimeDelta::seconds(5);
    stage.submit([just_in_time]).await;
    assert!(stage.end().await.1.outcome.is_success());
    stage.is_empty().await;
}

async fn ids_of_two_stores_are_two_tasks(source: impl ExecutorSource) {
    let (mut stage, _) = stage(source).await;
    let gate = Gate::new();
    let task = task("same", |task| task);
    let one = stage.part_with(&task, "gated", gate.args());
    let mut other = stage.part_with(&task, "gated", gate.args());
    other.store = Alias::new("other").expect("an alias");
    stage.submit([one, other]).await;
    let instances = [("default/same".to_owned(), 1), ("other/same".to_owned(), 1)];
    assert_eq!(stage.status().await.instances, instances);
    gate.open(2);
    for _ in 0..2 {
        assert!(stage.end().await.1.outcome.is_success());
    }
    stage.is_empty().await;
}

async fn ten_thousand_at_once_all_end(source: impl ExecutorSource) {
    let (mut stage, _) = stage(source).await;
    let tasks: Vec<_> =
        (0..100).map(|n| task(&format!("task {n}"), |task| task.max_instances(100))).collect();
    let endings = all_endings();
    let runs: Vec<_> = (0..10_000).map(|n| stage.part(&tasks[n % 100], endings[n % 4].0)).collect();
    stage.submit(runs).await;
    let mut seen = std::collections::HashSet::new();
    for _ in 0..10_000 {
        let (run, end) = stage.end().await;
        assert!(matches!(end.outcome, Outcome::Executed { .. } | Outcome::Failed { .. }), "{end:?}");
        assert!(seen.insert(run.id), "two ends of one run");
    }
    stage.is_empty().await;
}

async fn runs_are_cancelled(source: impl ExecutorSource, limits: Limits) {
    let (mut stage, _) = stage(source).await;
    let task = task("long", |task| task.max_instances(3));
    let handlers = if limits.inline { &["endless"][..] } else { &["endless", "stubborn"] };
    for handler in handlers {
        let run = stage.part(&task, handler);
        let id = run.id;
        assert!(!stage.cancel(id).await, "nobody knows it yet");
        stage.submit([run]).await;
        assert!(stage.cancel(id).await);
        let (run, end) = stage.end().await;
        assert_eq!((run.id, end.outcome), (id, Outcome::Cancelled));
        assert!(!stage.cancel(id).await, "it has ended");
    }
    stage.is_empty().await;
}

async fn runs_before_attach_wait_for_it(mut source: impl ExecutorSource) {
    let time = time();
    let executor = source.start(Box::new(()));
    let mut stage = Stage::unattached(executor, time.clock());
    let run = stage.part(&task("early", |task| task), "ok");
    stage.submit([run]).await;
    stage.attach().await;
    assert!(stage.end().await.1.outcome.is_success());
}

async fn draining_an_idle_executor(source: impl ExecutorSource) {
    let (mut stage, _) = stage(source).await;
    for _ in 0..2 {
        assert_eq!(stage.drain(Duration::from_secs(60)).await, Drained::default());
    }
    let run = stage.part(&task("after", |task| task), "ok");
    stage.submit([run]).await;
    let (_, end) = stage.end().await;
    let Outcome::Refused { reason: Refusal::ExecutorUnavailable { executor, .. } } = end.outcome else {
        panic!("{end:?}")
    };
    assert_eq!(executor, "default");
    assert_eq!(stage.drain(Duration::ZERO).await, Drained::default());
    stage.is_empty().await;
}

async fn draining_waits(source: impl ExecutorSource) {
    let (mut stage, time) = stage(source).await;
    let run = stage.part_with(&task("sleeper", |task| task), "sleep", 10);
    stage.submit([run]).await;
    let drains = [stage.drain(Duration::from_secs(60)), stage.drain(Duration::from_secs(11))];
    // Handled after the drains: their alarms are set.
    stage.status().await;
    time.advance(Duration::from_secs(10)).await;
    for drain in drains {
        assert_eq!(drain.await, Drained { interrupted: 0 });
    }
    assert!(stage.end().await.1.outcome.is_success());
    stage.is_empty().await;
}

async fn draining_cuts_off_after_the_grace(source: impl ExecutorSource) {
    let (mut stage, time) = stage(source).await;
    let task = task("sleeper", |task| task.max_instances(2));
    let runs = [stage.part_with(&task, "sleep", 10), stage.part_with(&task, "sleep", 10)];
    stage.submit(runs).await;
    let drains = [stage.drain(Duration::from_secs(60)), stage.drain(Duration::from_secs(9))];
    stage.status().await;
    let end = stage.clock.now() + TimeDelta::seconds(9);
    time.advance(Duration::from_secs(9)).await;
    for drain in drains {
        assert_eq!(drain.await, Drained { interrupted: 2 });
    }
    for _ in 0..2 {
        let (_, ended) = stage.end().await;
        assert!(matches!(ended.outcome, Outcome::Interrupted { .. }), "{ended:?}");
        assert_eq!(ended.ended_at, end);
    }
    stage.is_empty().await;
}

async fn draining_cuts_off_at_once(source: impl ExecutorSource, limits: Limits) {
    let (mut stage, _) = stage(source).await;
    let task = task("endless", |task| task.max_instances(10));
    let handlers = if limits.inline { &["endless"][..] } else { &["endless", "stubborn"] };
    let runs: Vec<_> = (0..6).map(|n| stage.part(&task, handlers[n % handlers.len()])).collect();
    stage.submit(runs).await;
    let mut interrupted = 0;
    let drained = stage.drain(Duration::ZERO).await;
    for _ in 0..6 {
        let (_, end) = stage.end().await;
        assert!(matches!(end.outcome, Outcome::Interrupted { .. }), "{end:?}");
        interrupted += 1;
    }
    assert_eq!(drained, Drained { interrupted });
    stage.is_empty().await;
}

async fn draining_before_attach(mut source: impl ExecutorSource) {
    let time = time();
    let executor = source.start(Box::new(()));
    let mut stage = Stage::unattached(executor, time.clock());
    let run = stage.part(&task("early", |task| task), "ok");
    stage.submit([run]).await;
    assert_eq!(stage.drain(Duration::from_secs(60)).await, Drained::default());
    stage.attach().await;
    let (_, end) = stage.end().await;
    assert!(
        matches!(end.outcome, Outcome::Refused { reason: Refusal::ExecutorUnavailable { .. } }),
        "{end:?}"
    );
    stage.is_empty().await;
}
