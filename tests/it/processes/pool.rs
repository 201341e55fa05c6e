//! How many workers there are, how long they live, and who waits for them.

use std::collections::HashSet;

use callboard::task::Refusal;

use super::*;

#[test]
fn there_are_no_more_workers_than_there_may_be() {
    on_stage(async {
        let mut play = Play::new(pool(3)).await;
        let runs: Vec<_> = (0..60).map(|_| play.run("pid", Value::Null)).collect();
        play.stage.submit(runs).await;
        let mut pids = HashSet::new();
        for _ in 0..60 {
            let Outcome::Executed { value } = play.end().await.outcome else { panic!("must run") };
            pids.insert(value.as_u64().unwrap());
        }
        assert!((1..=3).contains(&pids.len()), "{pids:?}");
        play.stage.is_empty().await;
    });
}

#[test]
fn a_worker_is_replaced_after_its_number_of_runs() {
    on_stage(async {
        let mut play = Play::new(pool(1).recycle_after(3)).await;
        let mut pids = Vec::new();
        for _ in 0..9 {
            pids.push(play.pid().await);
        }
        let distinct: HashSet<_> = pids.iter().collect();
        assert_eq!(distinct.len(), 3, "{pids:?}");
        assert!(pids.chunks(3).all(|three| three.iter().all(|pid| *pid == three[0])), "{pids:?}");
        gone(&pids);
    });
}

#[test]
fn a_full_queue_says_so() {
    on_stage(async {
        let mut play = Play::new(pool(1).queue(2)).await;
        let runs: Vec<_> = (0..5).map(|_| play.run("endless", Value::Null)).collect();
        let ids: Vec<_> = runs.iter().map(|run| run.id).collect();
        play.stage.submit(runs).await;
        for id in &ids[3..] {
            let (run, end) = play.stage.end().await;
            let full = Refusal::QueueFull { executor: "default".to_owned(), limit: 2 };
            assert_eq!((run.id, end.outcome), (*id, Outcome::Refused { reason: full }));
        }
        // The last of them waits; it never began.
        assert!(play.stage.cancel(ids[2]).await);
        let (run, end) = play.stage.end().await;
        assert_eq!((run.id, end.outcome, end.started_at), (ids[2], Outcome::Cancelled, None));
        assert!(play.stage.cancel(ids[0]).await);
        assert!(play.stage.cancel(ids[1]).await);
        for _ in 0..2 {
            assert_eq!(play.end().await.outcome, Outcome::Cancelled);
        }
        play.stage.is_empty().await;
    });
}

#[test]
fn what_a_run_prints_cannot_stop_it() {
    on_stage(async {
        // More than a pipe holds, read while the run goes on.
        let mut play = Play::new(pool(1)).await;
        assert!(play.outcome("babble", 50_000).await.is_success());
    });
}

#[test]
fn workers_have_their_environment_and_nothing_to_read() {
    on_stage(async {
        let mut play = Play::new(pool(1).env("CALLBOARD_TEST_WORD", "password")).await;
        assert_eq!(play.value("environment", "CALLBOARD_TEST_WORD").await, json!(["password", ""]));
    });
}
