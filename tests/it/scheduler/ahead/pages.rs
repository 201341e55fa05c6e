//! A store of many tasks: some run while others are worked out again.

use std::time::Instant;

use callboard::clock::{Busy, BusyCount, Clock, TimeSource};
use callboard::store::{BackendSource, Faults, MemoryBackend, Op};
use chrono::TimeDelta;
use futures::StreamExt;
use futures::channel::oneshot;

use super::*;

const TASKS: usize = 1500;
/// Of 512 tasks.
const PAGES: usize = 3;

/// A wall clock that is set by hand over time that passes: a virtual one stands still while next runs are
/// worked out.
struct Dial {
    began: Instant,
    ahead: Mutex<TimeDelta>,
}

struct Uncounted;

impl BusyCount for Uncounted {
    fn begin(&self) {}
    fn end(&self) {}
}

impl TimeSource for Dial {
    fn now(&self) -> DateTime<Utc> {
        let passed = TimeDelta::from_std(self.began.elapsed()).unwrap();
        START.parse::<DateTime<Utc>>().unwrap() + passed + *self.ahead.lock().unwrap()
    }

    fn monotonic(&self) -> Duration {
        self.began.elapsed()
    }

    fn alarm(self: Arc<Self>, at: DateTime<Utc>) -> oneshot::Receiver<Busy> {
        let (ring, rung) = oneshot::channel();
        // Whoever waits looks at the clock again.
        let left = (at - self.now()).to_std().unwrap_or_default().min(Duration::from_millis(100));
        actix_rt::spawn(async move {
            actix_rt::time::sleep(left).await;
            ring.send(self.busy()).ok();
        });
        rung
    }

    fn busy(self: Arc<Self>) -> Busy {
        Busy::counted(Arc::new(Uncounted))
    }
}

#[actix::test]
async fn tasks_of_a_page_run_while_the_next_is_worked_out_again() {
    let dial = Arc::new(Dial { began: Instant::now(), ahead: Mutex::new(TimeDelta::zero()) });
    let (ran, faults) = (Ran::default(), Faults::new());
    let scheduler = Scheduler::builder()
        .clock(Clock::from_source(dial.clone()))
        .registry(ran.registry())
        .store("default", BackendSource::keeping(faults.around(MemoryBackend::default())))
        .start()
        .await
        .unwrap();
    let beat = Interval::every(Duration::from_millis(50));
    scheduler.add(Task::new("note").id("beat").trigger(beat)).await.unwrap();
    for n in 0..TASKS {
        scheduler.add(cron(&format!("t{n}")).misfire_grace(secs(60))).await.unwrap();
    }
    let mut events = scheduler.events(EventMask::ALL).await.unwrap();
    *dial.ahead.lock().unwrap() = TimeDelta::seconds(10 * YEAR + 1800);
    let far = at(5 * YEAR);
    let mut left = TASKS;
    while left > 0 {
        // Each is too late for its run of the first hour, and planned for one in ten years.
        if let Event::TaskMissed(report) = events.next().await.unwrap()
            && report.task_id().as_str() != "beat"
        {
            left -= 1;
        }
    }

    // All pages are looked through for what is not far ahead; then the first is worked out, and the second is
    // waited for.
    (0..=PAGES).for_each(|_| drop(faults.hold(Op::List)));
    let release = faults.hold(Op::List);
    *dial.ahead.lock().unwrap() = TimeDelta::zero();
    loop {
        match events.next().await.unwrap() {
            Event::TaskExecuted(report) if report.run.nominal < far => break,
            Event::TasksReplanned { .. } | Event::StoreUnavailable { .. } => panic!("the rest is worked out"),
            _ => {}
        }
    }
    drop(release);
    while !matches!(events.next().await.unwrap(), Event::TasksReplanned { tasks, .. } if tasks >= TASKS as u64)
    {
    }
    let tasks = scheduler.tasks(callboard::task::TaskQuery::new()).await.unwrap();
    assert!(tasks.len() == TASKS + 1 && tasks.iter().all(|task| task.next_run_time().unwrap() < far));
    scheduler.shutdown(Shutdown::now()).await.unwrap();
}
