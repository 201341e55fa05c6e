//! Overlap policies and timeouts through the scheduler; and those who block where they should not.

use std::sync::mpsc;

use callboard::task::{Coalesce, Overlap, TaskChanges};

use super::*;

fn nap(seconds: u64) -> Task {
    Task::new("nap").args(seconds).id("a").trigger(Interval::seconds(10))
}

/// Nominal second, word, and the second it began.
fn story(told: &[Event]) -> Vec<(i64, &'static str, Option<i64>)> {
    let mut ends: Vec<_> = told
        .iter()
        .filter_map(Event::report)
        .map(|report| {
            let began = report.end.started_at.map(|began| (began - at(0)).num_seconds());
            ((report.run.nominal - at(0)).num_seconds(), report.end.outcome.word(), began)
        })
        .collect();
    ends.sort();
    ends
}

async fn play(task: Task, seconds: u64) -> Vec<(i64, &'static str, Option<i64>)> {
    let (scheduler, time, _) = board(|b| b).await;
    let mut events = scheduler.events(EventMask::RUN_ENDED).await.unwrap();
    scheduler.add(task).await.unwrap();
    time.advance(secs(seconds)).await;
    let told = heard(&mut events);
    scheduler.pause().await.unwrap();
    time.advance(secs(200)).await;
    assert_eq!(scheduler.status().await.unwrap().running, 0);
    story(&told)
}

#[actix::test]
async fn each_policy_has_its_timeline() {
    let skip = [(0, "executed", Some(0)), (10, "refused", None), (20, "executed", Some(20))];
    assert_eq!(play(nap(15), 39).await[..3], skip);
    let queue = [(0, "executed", Some(0)), (10, "executed", Some(15)), (20, "executed", Some(30))];
    assert_eq!(play(nap(15).overlap(Overlap::Queue(9)), 46).await[..3], queue);
    let cancel = [(0, "cancelled", Some(0)), (10, "cancelled", Some(10)), (20, "cancelled", Some(20))];
    assert_eq!(play(nap(15).overlap(Overlap::CancelRunning), 39).await[..3], cancel);
    let allow = [(0, "executed", Some(0)), (10, "executed", Some(10)), (20, "executed", Some(20))];
    assert_eq!(play(nap(15).overlap(Overlap::Allow), 39).await[..3], allow);
    let limit = [(0, "timed_out", Some(0)), (10, "timed_out", Some(10))];
    assert_eq!(play(nap(15).timeout(secs(5)), 19).await, limit);
}

#[actix::test]
async fn runs_that_catch_up_stand_in_line() {
    let (scheduler, time, _) = board(|b| b).await;
    let mut events = scheduler.events(EventMask::RUN_ENDED).await.unwrap();
    scheduler.pause().await.unwrap();
    scheduler.add(nap(1).coalesce(Coalesce::All).overlap(Overlap::Queue(2))).await.unwrap();
    time.advance(secs(35)).await;
    scheduler.resume().await.unwrap();
    time.advance(secs(4)).await;
    let expected = [
        (0, "executed", Some(35)),
        (10, "executed", Some(36)),
        (20, "executed", Some(37)),
        (30, "refused", None),
    ];
    assert_eq!(story(&heard(&mut events)), expected);
}

#[actix::test]
async fn a_task_that_is_deleted_and_added_again_finds_the_run_that_goes_on() {
    let (scheduler, time, _) = board(|b| b).await;
    let mut events = scheduler.events(EventMask::RUN_ENDED).await.unwrap();
    scheduler.add(nap(1000).timeout(secs(15))).await.unwrap();
    time.advance(secs(1)).await;
    scheduler.delete_task("a").await.unwrap();
    time.advance(secs(1)).await;
    scheduler.add(nap(1)).await.unwrap();
    time.advance(secs(20)).await;
    let expected =
        [(0, "timed_out", Some(0)), (2, "refused", None), (12, "refused", None), (22, "executed", Some(22))];
    time.advance(secs(2)).await;
    assert_eq!(story(&heard(&mut events)), expected);
    let info = scheduler.update_task("a", TaskChanges::new().overlap(Overlap::Allow)).await.unwrap();
    assert_eq!((info.running, info.spec.overlap), (0, Overlap::Allow));
}

#[actix::test]
async fn a_listener_that_blocks_holds_nobody_up() {
    struct Deaf(mpsc::Receiver<()>);
    impl Actor for Deaf {
        type Context = Context<Self>;
    }
    impl Handler<Event> for Deaf {
        type Result = ();
        fn handle(&mut self, _: Event, _: &mut Self::Context) {
            self.0.recv().ok();
        }
    }
    let (scheduler, time, ran) = board(|b| b).await;
    let (release, blocked) = mpsc::channel();
    let arbiter = Arbiter::new();
    let deaf = Deaf::start_in_arbiter(&arbiter.handle(), |_| Deaf(blocked));
    scheduler.add_listener(EventMask::ALL, deaf.recipient()).await.unwrap();
    let mut events = scheduler.events(EventMask::TASK_EXECUTED).await.unwrap();
    scheduler.add(every(10).id("a")).await.unwrap();
    time.advance(secs(1000)).await;
    assert_eq!((ran.count("a"), heard(&mut events).len()), (101, 101));
    scheduler.shutdown(Shutdown::now()).await.unwrap();
    drop(release);
}

/// In real time: while code blocks, a virtual clock stands still.
#[actix::test]
async fn a_task_that_blocks_its_arbiter_holds_up_its_own_executor_only() {
    let (release, blocked) = mpsc::channel::<()>();
    let blocked = Arc::new(Mutex::new(blocked));
    let ran = Ran::default();
    let registry = ran.registry().register("block", move |_: TaskContext, ()| {
        let blocked = blocked.clone();
        async move {
            blocked.lock().unwrap().recv().ok();
        }
    });
    let scheduler = Scheduler::builder()
        .registry(registry)
        .executor("default", AsyncExecutor::new())
        .executor("other", AsyncExecutor::new())
        .executor("pool", ThreadPool::new(2))
        .start()
        .await
        .unwrap();
    scheduler.add(Task::new("block").id("block").trigger(Date::now())).await.unwrap();
    let often = || Task::new("note").trigger(Interval::every(Duration::from_millis(5)));
    scheduler.add(often().id("a").executor("other")).await.unwrap();
    scheduler.add(often().id("b").executor("pool")).await.unwrap();
    while ran.count("a") < 5 || ran.count("b") < 5 {
        actix::clock::sleep(Duration::from_millis(1)).await;
    }
    // The scheduler answers, and can be shut down.
    assert!(scheduler.status().await.unwrap().running >= 1);
    scheduler.delete_task("b").await.unwrap();
    let stopped = scheduler.shutdown(Shutdown::now()).await;
    drop(release);
    stopped.unwrap();
}
