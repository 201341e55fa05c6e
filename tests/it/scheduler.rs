//! The scheduler through its handle, on the virtual clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use callboard::prelude::*;
use callboard::testing::VirtualClock;

pub(crate) fn counting(name: &str) -> (Registry, Arc<AtomicU64>) {
    let count = Arc::new(AtomicU64::new(0));
    let counter = count.clone();
    let registry = Registry::new().register(name, move |_: TaskContext, ()| {
        let counter = counter.clone();
        async move {
            counter.fetch_add(1, Ordering::SeqCst);
        }
    });
    (registry, count)
}

#[actix::test]
async fn a_year_of_a_daily_task_takes_no_time() {
    let time = VirtualClock::starting_at("2027-01-01T00:00:00Z");
    let (registry, count) = counting("daily");
    let began = std::time::Instant::now();
    let scheduler = Scheduler::builder().clock(time.clock()).registry(registry).start().await.unwrap();
    scheduler.add(Task::new("daily").id("daily").trigger(Interval::seconds(86_400))).await.unwrap();
    time.advance(Duration::from_secs(365 * 86_400)).await;
    assert_eq!(count.load(Ordering::SeqCst), 366);
    let info = scheduler.task("daily").await.unwrap();
    assert_eq!((info.state.runs, info.running), (366, 0));
    scheduler.shutdown(Shutdown::default()).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}
