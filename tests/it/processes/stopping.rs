//! Cancelled, timed out, drained: what runs is stopped, with everything it has started.

use callboard::executor::message::Drained;

use super::*;

/// Short, so that a test does not wait for it long; what has to end by itself has more.
const GRACE: Duration = Duration::from_millis(300);

#[test]
fn asynchronous_code_is_dropped_and_its_worker_kept() {
    on_stage(async {
        let mut play = Play::new(pool(1)).await;
        let pid = play.pid().await;
        for handler in ["endless", "stubborn"] {
            let run = play.submit(handler, Value::Null).await;
            assert!(play.stage.cancel(run.id).await);
            assert_eq!(play.end().await.outcome, Outcome::Cancelled);
            assert!(!play.stage.cancel(run.id).await);
        }
        play.stage.is_empty().await;
        assert_eq!(play.pid().await, pid);
    });
}

#[test]
fn code_that_does_not_listen_is_killed_when_it_is_cancelled() {
    on_stage(async {
        let place = tempfile::tempdir().unwrap();
        for handler in ["hang", "ignore SIGTERM", "family"] {
            let note = place.path().join(handler);
            let mut play = Play::new(pool(1).grace(GRACE)).await;
            let run = play.submit(handler, note.to_str().unwrap()).await;
            let pids = match handler {
                "family" => noted_family(&note),
                _ => vec![noted_pid(&note)],
            };
            assert!(play.stage.cancel(run.id).await);
            assert_eq!(play.end().await.outcome, Outcome::Cancelled, "{handler}");
            play.stage.is_empty().await;
            gone(&pids);
            assert!(!pids.contains(&play.pid().await));
        }
    });
}

/// Starts a run that may take no longer than `limit`.
async fn submit_limited(play: &mut Play, handler: &str, note: &Path, limit: Duration) {
    let run = play.run(handler, note.to_str().unwrap());
    let task = Arc::new(TaskSpec { timeout: Some(limit), ..TaskSpec::clone(&run.task) });
    let run = play.stage.run(&task, &run.code);
    play.stage.submit([run]).await;
}

#[test]
fn a_timeout_kills_everything_that_the_run_has_started() {
    on_stage(async {
        let place = tempfile::tempdir().unwrap();
        for handler in ["ignore SIGTERM, sleeping", "sleeping family"] {
            let note = place.path().join(handler);
            let mut play = Play::new(pool(1).grace(GRACE)).await;
            submit_limited(&mut play, handler, &note, Duration::from_secs(60)).await;
            let pids = match handler {
                "sleeping family" => noted_family(&note),
                _ => vec![noted_pid(&note)],
            };
            play.time.advance(Duration::from_secs(59)).await;
            assert_eq!(play.stage.status().await.running, 1);
            play.time.advance(Duration::from_secs(1)).await;
            let end = play.end().await;
            assert_eq!(end.outcome, Outcome::TimedOut { after_ms: 60_000 }, "{handler}");
            assert_eq!(end.duration, Duration::from_secs(60));
            assert!(pids.iter().all(|pid| !lives(*pid)), "{handler}: nobody is left when the end is told");
            play.stage.is_empty().await;
            assert!(!pids.contains(&play.pid().await));
        }
    });
}

#[test]
fn code_that_blocks_is_killed_when_its_time_is_over() {
    on_stage(async {
        let place = tempfile::tempdir().unwrap();
        let note = place.path().join("hang");
        let time = VirtualClock::starting_at("2026-03-01T08:00:00Z");
        let mut pool = pool(1).grace(GRACE);
        // A run that works keeps a virtual clock still.
        let mut play = Play { stage: Stage::new(&mut pool, callboard::clock::Clock::system()).await, time };
        play.pid().await;
        submit_limited(&mut play, "hang", &note, Duration::from_secs(2)).await;
        let pid = noted_pid(&note);
        assert_eq!(play.end().await.outcome, Outcome::TimedOut { after_ms: 2000 });
        assert!(!lives(pid));
        play.stage.is_empty().await;
        assert_ne!(play.pid().await, pid);
    });
}

#[test]
fn a_run_is_cancelled_before_its_worker_is_ready() {
    on_stage(async {
        let mut play = Play::new(pool(1)).await;
        let run = play.submit("endless", Value::Null).await;
        assert!(play.stage.cancel(run.id).await);
        assert_eq!(play.end().await.outcome, Outcome::Cancelled);
        assert!(play.pid().await > 0);
        play.stage.is_empty().await;
    });
}

/// The worker's run waits for the clock, and others for the worker.
#[test]
fn a_full_pool_lets_time_pass_while_its_runs_wait_for_the_clock() {
    on_stage(async {
        let mut play = Play::new(pool(1)).await;
        let began = play.time.clock().now();
        let runs = [play.run("sleep", 10), play.run("sleep", 10), play.run("sleep", 10)];
        play.stage.submit_shared(runs.into_iter().map(Arc::new).collect()).await;
        let turned =
            tokio::time::timeout(Duration::from_secs(30), play.time.advance(Duration::from_secs(60)));
        assert!(turned.await.is_ok(), "the clock stands still: {:?}", play.time);
        for place in 0..3 {
            let end = play.end().await;
            assert!(end.outcome.is_success(), "{end:?}");
            assert_eq!((end.started_at.unwrap() - began).num_seconds(), 10 * place);
        }
        play.stage.is_empty().await;
    });
}

#[test]
fn draining_lets_runs_end_within_the_grace() {
    on_stage(async {
        let mut play = Play::new(pool(2)).await;
        play.submit("sleep", 10).await;
        let drained = play.stage.drain(Duration::from_secs(60));
        play.stage.status().await;
        play.time.advance(Duration::from_secs(10)).await;
        assert_eq!(drained.await, Drained { interrupted: 0 });
        assert!(play.end().await.outcome.is_success());
    });
}

#[test]
fn draining_cuts_off_families() {
    on_stage(async {
        let place = tempfile::tempdir().unwrap();
        let mut play = Play::new(pool(2)).await;
        let notes = ["one", "other"].map(|name| place.path().join(name));
        for note in &notes {
            play.submit("family", note.to_str().unwrap()).await;
        }
        let pids = notes.map(|note| noted_family(&note)).concat();
        assert_eq!(play.stage.drain(Duration::ZERO).await, Drained { interrupted: 2 });
        for _ in 0..2 {
            assert!(matches!(play.end().await.outcome, Outcome::Interrupted { .. }));
        }
        play.stage.is_empty().await;
        gone(&pids);
    });
}
