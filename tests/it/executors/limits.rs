//! Handlers of which only some runs go on at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;

use callboard::executor::message::Drained;
use callboard::task::TaskSpec;
use proptest::prelude::*;

use super::*;

/// A task of a handler.
fn of(handler: &str, id: &str) -> Arc<TaskSpec> {
    task(id, |task| {
        // What a task is made with is its handler; the rest is as the stage has it.
        let trigger = callboard::trigger::Trigger::Shutdown;
        drop(task);
        callboard::task::Task::new(handler).id(id).trigger(trigger).max_instances(1000)
    })
}

/// What code has done: its runs in the order of their begins, and how many went on at once, of each handler.
#[derive(Default)]
struct Seen {
    begun: Vec<u64>,
    now: BTreeMap<String, usize>,
    most: BTreeMap<String, usize>,
}

/// Notes the end of a run, also of one that is cut off.
struct Leaves {
    seen: Arc<Mutex<Seen>>,
    handler: String,
}

impl Drop for Leaves {
    fn drop(&mut self) {
        *self.seen.lock().unwrap().now.get_mut(&self.handler).unwrap() -= 1;
    }
}

/// Code that notes when it begins, waits for a permit, and notes its end.
fn noting(seen: &Arc<Mutex<Seen>>, handler: &str, gate: &Arc<Semaphore>) -> Code {
    let (seen, handler, gate) = (seen.clone(), handler.to_owned(), gate.clone());
    Code::from_async(move |context: TaskContext, ()| {
        let (gate, leaves) = (gate.clone(), Leaves { seen: seen.clone(), handler: handler.clone() });
        {
            let mut seen = seen.lock().unwrap();
            seen.begun.push(context.run_id().serial);
            let now = seen.now.entry(handler.clone()).or_default();
            *now += 1;
            let now = *now;
            let most = seen.most.entry(handler.clone()).or_default();
            *most = now.max(*most);
        }
        async move {
            let _leaves = leaves;
            gate.acquire().await.unwrap().forget();
        }
    })
}

#[test]
fn limits_of_handlers_keep_the_contract() {
    on_stage(suite(|| AsyncExecutor::new().limit_handler("test", 2), Limits::default()));
    let several = || AsyncExecutor::new().arbiters(2).limit(9).limit_handler("test", 5);
    on_stage(suite(several, Limits::default()));
    on_stage(suite(|| AsyncExecutor::new().on_current().limit_handler("test", 3), Limits::default()));
}

#[test]
fn whoever_has_no_place_stands_in_line_and_others_go_past() {
    on_stage(async {
        let mut stage = stage(AsyncExecutor::new().limit_handler("few", 2)).await;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (closed, open) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(1000)));
        let (few, many) = (of("few", "few"), of("many", "many"));
        let held = noting(&seen, "few", &closed);
        let free = noting(&seen, "many", &open);
        // 1 to 6 are of the few; 7 to 9 of the others.
        let mut runs: Vec<_> = (0..6).map(|_| stage.run(&few, &held)).collect();
        let ids: Vec<_> = runs.iter().map(|run| run.id).collect();
        runs.extend((0..3).map(|_| stage.run(&many, &free)));
        stage.submit(runs).await;
        for serial in 7..=9 {
            assert_eq!(stage.end().await.0.id.serial, serial, "nobody of the others waits");
        }
        assert_eq!(seen.lock().unwrap().begun, [1, 2, 7, 8, 9]);
        let status = stage.status().await;
        assert_eq!((status.running, status.queued), (2, 4));

        // The place of one that is cancelled in line is nobody's.
        assert!(stage.cancel(ids[3]).await);
        let (run, end) = stage.end().await;
        assert_eq!((run.id, end.outcome, end.started_at), (ids[3], Outcome::Cancelled, None));
        for (ended, begun) in [(1, 3), (2, 5), (3, 6)] {
            closed.add_permits(1);
            assert_eq!(stage.end().await.0.id.serial, ended);
            while seen.lock().unwrap().begun.last() != Some(&begun) {
                stage.status().await;
            }
        }
        closed.add_permits(2);
        for _ in 0..2 {
            assert!(stage.end().await.1.outcome.is_success());
        }
        assert_eq!(seen.lock().unwrap().most["few"], 2);
        stage.is_empty().await;
    });
}

#[test]
fn a_line_that_is_drained_is_interrupted_without_running() {
    on_stage(async {
        let mut stage = stage(AsyncExecutor::new().limit_handler("few", 1)).await;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let held = noting(&seen, "few", &Arc::new(Semaphore::new(0)));
        let few = of("few", "few");
        let runs: Vec<_> = (0..4).map(|_| stage.run(&few, &held)).collect();
        stage.submit(runs).await;
        assert_eq!(stage.drain(Duration::ZERO).await, Drained { interrupted: 4 });
        for _ in 0..4 {
            assert!(matches!(stage.end().await.1.outcome, Outcome::Interrupted { .. }));
        }
        assert!(seen.lock().unwrap().begun.len() <= 1);
        stage.is_empty().await;
    });
}

/// Those in line wait for those who run: with all places of a handler taken, time goes on.
#[test]
fn a_line_keeps_no_clock_still() {
    on_stage(async {
        let time = VirtualClock::starting_at("2026-01-01T00:00:00Z");
        let mut stage = Stage::new(&mut AsyncExecutor::new().limit_handler("few", 2), time.clock()).await;
        let sleep = Code::from_async(|context: TaskContext, ()| async move {
            context.sleep(Duration::from_secs(10)).await;
        });
        let few = of("few", "few");
        let runs: Vec<_> = (0..6).map(|_| stage.run(&few, &sleep)).collect();
        let begin = time.clock().now();
        stage.submit(runs).await;
        time.advance(Duration::from_secs(100)).await;
        let mut ends = Vec::new();
        for _ in 0..6 {
            let (run, end) = stage.end().await;
            assert_eq!(end.duration, Duration::from_secs(10), "waiting in line is no running");
            ends.push((run.id.serial, (end.ended_at - begin).num_seconds()));
        }
        assert_eq!(ends, [(1, 10), (2, 10), (3, 20), (4, 20), (5, 30), (6, 30)]);
        stage.is_empty().await;
    });
}

#[test]
fn several_arbiters_share_the_places() {
    for (arbiters, limit) in [(2, 2), (3, 7), (4, 2), (4, 1), (8, 5)] {
        on_stage(async {
            let source = AsyncExecutor::new().arbiters(arbiters).limit_handler("few", limit);
            let mut stage = stage(source).await;
            let seen = Arc::new(Mutex::new(Seen::default()));
            let gate = Arc::new(Semaphore::new(0));
            let held = noting(&seen, "few", &gate);
            let few = of("few", "few");
            let runs: Vec<_> = (0..60).map(|_| stage.run(&few, &held)).collect();
            stage.submit(runs).await;
            // All places are taken before anybody leaves.
            while seen.lock().unwrap().begun.len() < limit {
                stage.status().await;
            }
            gate.add_permits(60);
            for _ in 0..60 {
                assert!(stage.end().await.1.outcome.is_success());
            }
            assert_eq!(seen.lock().unwrap().most["few"], limit, "{arbiters} arbiters");
            stage.is_empty().await;
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever comes in whatever order: no more than may go on at once, each handler in its order, and every
    /// run has one end.
    #[test]
    fn no_mixture_breaks_a_limit(
        handlers in prop::collection::vec(0usize..4, 1..60),
        limits in prop::array::uniform3(1usize..4),
        all in 1usize..9,
        cancelled in prop::collection::btree_set(0usize..60, 0..6),
    ) {
        const NAMES: [&str; 4] = ["a", "b", "c", "free"];
        on_stage(async move {
            let source = (0..3).fold(AsyncExecutor::new().limit(all), |source, at| {
                source.limit_handler(NAMES[at], limits[at])
            });
            let mut stage = stage(source).await;
            let seen = Arc::new(Mutex::new(Seen::default()));
            let gate = Arc::new(Semaphore::new(0));
            let tasks = NAMES.map(|name| (of(name, name), noting(&seen, name, &gate)));
            let runs: Vec<_> = handlers.iter().map(|at| stage.run(&tasks[*at].0, &tasks[*at].1)).collect();
            let ids: Vec<_> = runs.iter().map(|run| run.id).collect();
            stage.submit(runs).await;
            for at in cancelled.into_iter().filter(|at| *at < ids.len()) {
                stage.cancel(ids[at]).await;
            }
            gate.add_permits(handlers.len());
            for _ in 0..handlers.len() {
                let (_, end) = stage.end().await;
                assert!(matches!(end.outcome, Outcome::Executed { .. } | Outcome::Cancelled), "{end:?}");
            }
            stage.is_empty().await;
            let seen = seen.lock().unwrap();
            for (name, most) in &seen.most {
                let at = NAMES.iter().position(|known| known == name).unwrap();
                assert!(*most <= limits.get(at).copied().unwrap_or(usize::MAX).min(all), "{name}: {most}");
            }
            for (at, name) in NAMES.iter().enumerate() {
                let of = |serial: &&u64| handlers[usize::try_from(**serial).unwrap() - 1] == at;
                assert!(seen.begun.iter().filter(of).is_sorted(), "{name}");
            }
        });
    }
}
