//! No worker outlives its pool, however that ends.

use callboard::executor::message::Drain;

use super::*;

const PLACE: &str = "CALLBOARD_ORPHANS";

#[test]
fn a_pool_that_is_dropped_leaves_nobody() {
    let place = tempfile::tempdir().unwrap();
    let note = place.path().join("family");
    let mut pids = Vec::new();
    on_stage(async {
        let mut play = Play::new(pool(2)).await;
        pids.push(play.pid().await);
        play.submit("family", note.to_str().unwrap()).await;
        pids.extend(noted_family(&note));
        // The last address of the executor's actor goes with the stage.
        drop(play);
        gone(&pids);
    });
}

#[test]
fn a_pool_that_is_shut_down_leaves_nobody() {
    use callboard::prelude::*;

    on_stage(async {
        let place = tempfile::tempdir().unwrap();
        let note = place.path().join("family");
        let scheduler =
            Scheduler::builder().registry(registry()).executor("default", pool(2)).start().await.unwrap();
        let task = Task::new("family").id("family").args(note.to_str().unwrap()).trigger(Date::now());
        scheduler.add(task).await.unwrap();
        let note = note.clone();
        let pids = actix_web::web::block(move || noted_family(&note)).await.unwrap();
        scheduler.shutdown(Shutdown::now()).await.unwrap();
        gone(&pids);
    });
}

/// The other process keeps a pool with a run and is killed in its midst.
#[test]
fn a_process_that_is_killed_leaves_nobody() {
    for stopped in [false, true] {
        let place = tempfile::tempdir().unwrap();
        let mut other = apart("processes::orphans::keep_a_pool", PLACE, place.path());
        let pids = noted_family(&place.path().join("family"));
        let idle = noted_pid(&place.path().join("idle"));
        if stopped {
            // Nor does one that cannot notice anything.
            kill_process(as_pid(pids[0]), Signal::STOP).unwrap();
        }
        other.kill().unwrap();
        other.wait().unwrap();
        gone(&pids);
        gone(&[idle]);
    }
}

#[test]
#[ignore = "the process that `a_process_that_is_killed_leaves_nobody` kills"]
fn keep_a_pool() {
    let Some(place) = std::env::var_os(PLACE) else { return };
    let place = Path::new(&place);
    on_stage(async {
        let mut play = Play::new(pool(2)).await;
        play.value("note", place.join("idle").to_str().unwrap()).await;
        play.submit("family", place.join("family").to_str().unwrap()).await;
        play.submit("note", place.join("idle").to_str().unwrap()).await;
        std::future::pending::<()>().await;
    });
}

#[test]
fn an_executor_whose_actor_ends_takes_its_workers_along() {
    on_stage(async {
        let place = tempfile::tempdir().unwrap();
        let note = place.path().join("family");
        let mut play = Play::new(pool(1)).await;
        play.submit("family", note.to_str().unwrap()).await;
        let pids = noted_family(&note);
        let executor = play.stage.executor.clone();
        executor.drain(Drain { grace: Duration::ZERO }).await.unwrap();
        gone(&pids);
        // A second time there is nothing to do.
        executor.drain(Drain { grace: Duration::ZERO }).await.unwrap();
    });
}
