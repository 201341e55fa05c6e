//! Runs that take longer than they may.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use tokio::sync::Semaphore;

use super::*;
use crate::clock::Clock;
use crate::task::Overlap;

pub(super) async fn suite<S: ExecutorSource>(make: &impl Fn() -> S, limits: Limits) {
    a_future_is_dropped(make()).await;
    whoever_is_in_time_is_left_alone(make()).await;
    the_next_in_line_comes_in(make()).await;
    many_time_out_at_once(make()).await;
    code_that_blocks_is_asked(make()).await;
    if !limits.inline {
        code_that_blocks_counts_until_it_returns(make()).await;
    }
}

const LIMIT: Duration = Duration::from_secs(3);

/// Says when it is dropped.
struct Signal(Arc<AtomicBool>);

impl Drop for Signal {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

async fn a_future_is_dropped(source: impl ExecutorSource) {
    let (mut stage, time) = stage(source).await;
    let (dropped, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let code = {
        let (dropped, asked) = (dropped.clone(), asked.clone());
        Code::from_async(move |context: TaskContext, ()| {
            let (dropped, asked) = (Signal(dropped.clone()), asked.clone());
            async move {
                context.sleep(Duration::from_secs(60)).await;
                asked.store(true, Ordering::SeqCst);
                drop(dropped);
            }
        })
    };
    let run = stage.run(&task("slow", |task| task.timeout(LIMIT)), &code);
    let began = stage.clock.now();
    stage.submit([run]).await;
    time.advance(Duration::from_secs(2)).await;
    assert!(!dropped.load(Ordering::SeqCst));
    time.advance(Duration::from_secs(8)).await;
    let (run, end) = stage.end().await;
    assert_eq!(end.outcome, Outcome::TimedOut { after_ms: 3000 });
    assert_eq!((end.started_at, end.ended_at), (Some(began), began + TimeDelta::seconds(3)));
    assert_eq!(end.duration, LIMIT);
    assert!(run.is_cancelled(), "what the code has started can see it");
    assert!(dropped.load(Ordering::SeqCst) && !asked.load(Ordering::SeqCst));
    stage.is_empty().await;
}

async fn whoever_is_in_time_is_left_alone(source: impl ExecutorSource) {
    let (mut stage, time) = stage(source).await;
    let code = Code::from_async(|context: TaskContext, ()| async move {
        context.sleep(Duration::from_millis(2999)).await;
        Ok::<_, std::fmt::Error>(context.is_cancelled())
    });
    let run = stage.run(&task("quick", |task| task.timeout(LIMIT)), &code);
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
    let runs: Vec<_> = (0..3).map(|_| stage.run(&task, &sleeper())).collect();
    stage.submit(runs).await;
    let began = stage.clock.now();
    time.advance(Duration::from_secs(60)).await;
    for turn in 0..3 {
        let (_, end) = stage.end().await;
        assert_eq!(end.outcome, Outcome::TimedOut { after_ms: 3000 });
        assert_eq!(end.started_at, Some(began + TimeDelta::seconds(3 * turn)));
    }
    stage.is_empty().await;
}

async fn many_time_out_at_once(source: impl ExecutorSource) {
    let (mut stage, time) = stage(source).await;
    let task = task("slow", |task| task.timeout(LIMIT).max_instances(2));
    let runs: Vec<_> = (0..2).map(|_| stage.run(&task, &sleeper())).collect();
    stage.submit(runs).await;
    time.advance(LIMIT).await;
    for _ in 0..2 {
        assert_eq!(stage.end().await.1.outcome, Outcome::TimedOut { after_ms: 3000 });
    }
    stage.is_empty().await;
}

/// In real time: while code blocks, a virtual clock stands still.
async fn code_that_blocks_is_asked(mut source: impl ExecutorSource) {
    let mut stage = Stage::new(&mut source, Clock::system()).await;
    let task = task("stubborn", |task| task.timeout(Duration::from_millis(5)));
    for _ in 0..2 {
        let run = stage.part(&task, "stubborn");
        stage.submit([run]).await;
        let (run, end) = stage.end().await;
        assert_eq!(end.outcome, Outcome::TimedOut { after_ms: 5 });
        assert!(end.duration >= Duration::from_millis(5) && run.is_cancelled());
    }
    let run = stage.part(&task, "ok");
    stage.submit([run]).await;
    assert!(stage.end().await.1.outcome.is_success());
    stage.is_empty().await;
}

async fn code_that_blocks_counts_until_it_returns(mut source: impl ExecutorSource) {
    let mut stage = Stage::new(&mut source, Clock::system()).await;
    let asked = Arc::new(Semaphore::new(0));
    let asks = asked.clone();
    let (release, held) = mpsc::channel::<()>();
    let held = Arc::new(std::sync::Mutex::new(held));
    let code = Code::from_blocking(move |context: TaskContext, ()| {
        while !context.is_cancelled() {
            std::thread::yield_now();
        }
        asks.add_permits(1);
        held.lock().expect("no panic").recv().expect("released");
        Ok::<_, std::fmt::Error>("done all the same")
    });
    let task = task("stubborn", |task| task.timeout(Duration::from_millis(5)));
    let run = stage.run(&task, &code);
    stage.submit([run]).await;
    asked.acquire().await.expect("open").forget();
    assert_eq!(stage.status().await.instances, [("stubborn".to_owned(), 1)]);
    let another = stage.run(&task, &code);
    stage.submit([another]).await;
    let full = Outcome::Refused { reason: Refusal::MaxInstances { max: 1 } };
    assert_eq!(stage.end().await.1.outcome, full);
    release.send(()).expect("it waits");
    assert_eq!(stage.end().await.1.outcome, Outcome::TimedOut { after_ms: 5 });
    stage.is_empty().await;
}
