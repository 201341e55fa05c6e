//! What a callboard scheduler can do on this machine.
//!
//! ```text
//! cargo run --release --example load -- intervals 100000 20
//! cargo run --release --example load -- burst 100000
//! ```
//!
//! `intervals N SECONDS` keeps N tasks on one-second intervals, spread over the second, and prints
//! the fires achieved, CPU per fire, lateness, and memory per task. `burst N` adds N one-shots that
//! are due at one instant and prints how fast they ran. Events are on: a listener counts every run
//! that ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::prelude::*;
use callboard::event::ListenerId;
use callboard::prelude::*;
use chrono::{DateTime, TimeDelta, Utc};

/// Log-linear buckets of microseconds: 32 a doubling, which is 3 % resolution.
struct Lateness(Vec<AtomicU64>);

impl Lateness {
    fn new() -> Self {
        Self((0..64 * 32).map(|_| AtomicU64::new(0)).collect())
    }

    fn bucket(micros: u64) -> usize {
        let value = micros.max(1);
        let doubling = 63 - value.leading_zeros() as usize;
        let fine = if doubling >= 5 {
            (value >> (doubling - 5)) as usize & 31
        } else {
            (value << (5 - doubling)) as usize & 31
        };
        doubling * 32 + fine
    }

    fn note(&self, late: TimeDelta) {
        let micros = late.num_microseconds().unwrap_or(i64::MAX).max(0) as u64;
        self.0[Self::bucket(micros)].fetch_add(1, Ordering::Relaxed);
    }

    fn clear(&self) {
        self.0.iter().for_each(|bucket| bucket.store(0, Ordering::Relaxed));
    }

    /// The lateness, in milliseconds, that `share` of the runs did not exceed.
    fn quantile(&self, share: f64) -> f64 {
        let total: u64 = self.0.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum();
        let wanted = (total as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (index, bucket) in self.0.iter().enumerate() {
            seen += bucket.load(Ordering::Relaxed);
            if seen >= wanted.max(1) {
                let (doubling, fine) = (index / 32, index % 32);
                return (1u64 << doubling) as f64 * (1.0 + fine as f64 / 32.0) / 1000.0;
            }
        }
        0.0
    }
}

/// Counts the runs that ended: what "events on" means here.
struct Audience(Arc<AtomicU64>);

impl Actor for Audience {
    type Context = Context<Self>;
}

impl Handler<Event> for Audience {
    type Result = ();

    fn handle(&mut self, _: Event, _: &mut Self::Context) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// User and system time of this process, in seconds, and its resident memory in bytes.
fn usage() -> (f64, u64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (((ticks(11) + ticks(12)) / 100.0), ticks(21) as u64 * 4096)
}

struct Bench {
    scheduler: Handle,
    ran: Arc<AtomicU64>,
    heard: Arc<AtomicU64>,
    late: Arc<Lateness>,
    _listener: ListenerId,
}

async fn bench() -> Result<Bench, callboard::Error> {
    let (ran, late) = (Arc::new(AtomicU64::new(0)), Arc::new(Lateness::new()));
    let (counter, lateness) = (ran.clone(), late.clone());
    let registry = Registry::new().register("noop", move |run: TaskContext, ()| {
        lateness.note(run.clock().now() - run.nominal());
        counter.fetch_add(1, Ordering::Relaxed);
        std::future::ready(())
    });
    let scheduler = Scheduler::builder().registry(registry).start().await?;
    let heard = Arc::new(AtomicU64::new(0));
    let audience = Audience(heard.clone()).start();
    let listener = scheduler.add_listener(EventMask::RUN_ENDED, audience.recipient()).await?;
    Ok(Bench { scheduler, ran, heard, late, _listener: listener })
}

/// Adds `tasks` in parallel windows, so that the round trips overlap.
async fn add_all(scheduler: &Handle, tasks: impl Iterator<Item = Task>) -> Result<(), callboard::Error> {
    use futures::{StreamExt, TryStreamExt};
    futures::stream::iter(tasks)
        .map(|task| scheduler.add(task))
        .buffered(256)
        .try_for_each(|_| async { Ok(()) })
        .await
}

fn whole_second_after(now: DateTime<Utc>, seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(now.timestamp() + seconds, 0).unwrap_or(now)
}

async fn intervals(count: u64, window: u64) -> Result<(), callboard::Error> {
    let Bench { scheduler, ran, heard, late, .. } = bench().await?;
    let clock = Clock::system();
    let (_, memory_before) = usage();
    let base = whole_second_after(clock.now(), 2 + count as i64 / 100_000);
    let began = clock.monotonic();
    let tasks = (0..count).map(|i| {
        let start = base + TimeDelta::nanoseconds((i * 1_000_000_000 / count) as i64);
        // Not `first_run`: after that one the runs would follow the moments at which the tasks were added.
        Task::new("noop").id(format!("task-{i}")).trigger(Interval::seconds(1).start_at(start))
    });
    add_all(&scheduler, tasks).await?;
    let adding = clock.monotonic() - began;
    let (_, memory) = usage();
    println!(
        "added {count} tasks in {:.2} s, {:.2} µs each",
        adding.as_secs_f64(),
        adding.as_secs_f64() * 1e6 / count as f64
    );
    println!("memory {} bytes a task", (memory - memory_before) / count);

    let from = base + TimeDelta::milliseconds(3750);
    actix_rt::time::sleep((from - clock.now()).to_std().unwrap_or_default()).await;
    late.clear();
    let (cpu_before, _) = usage();
    let (ran_before, heard_before) = (ran.load(Ordering::Relaxed), heard.load(Ordering::Relaxed));
    actix_rt::time::sleep(Duration::from_secs(window)).await;
    let fires = ran.load(Ordering::Relaxed) - ran_before;
    let events = heard.load(Ordering::Relaxed) - heard_before;
    let (cpu, memory) = usage();
    println!(
        "fired {fires} of {} ({:.4}), {events} events heard",
        count * window,
        fires as f64 / (count * window) as f64
    );
    println!("cpu {:.2} µs a fire", (cpu - cpu_before) * 1e6 / fires as f64);
    println!(
        "late p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, max {:.2} ms",
        late.quantile(0.5),
        late.quantile(0.99),
        late.quantile(0.999),
        late.quantile(1.0)
    );
    println!("memory {} bytes a task after the window", memory.saturating_sub(memory_before) / count);
    scheduler.shutdown(Shutdown::default()).await
}

async fn burst(count: u64) -> Result<(), callboard::Error> {
    let Bench { scheduler, ran, heard, late, .. } = bench().await?;
    let clock = Clock::system();
    let at = whole_second_after(clock.now(), 3 + count as i64 / 50_000);
    add_all(&scheduler, (0..count).map(|i| Task::new("noop").id(format!("shot-{i}")).trigger(Date::at(at))))
        .await?;
    println!("added {count} one-shots, {} ms before they are due", (at - clock.now()).num_milliseconds());
    let (cpu_before, _) = usage();
    while ran.load(Ordering::Relaxed) < count {
        actix_rt::time::sleep(Duration::from_millis(1)).await;
    }
    let took = clock.now() - at;
    while heard.load(Ordering::Relaxed) < count {
        actix_rt::time::sleep(Duration::from_millis(1)).await;
    }
    let told = clock.now() - at;
    let (cpu, _) = usage();
    let rate = |took: TimeDelta| count as f64 * 1e3 / took.num_milliseconds().max(1) as f64;
    println!(
        "{count} ran within {} ms: {:.0} runs/s; all heard of after {} ms: {:.0}/s",
        took.num_milliseconds(),
        rate(took),
        told.num_milliseconds(),
        rate(told)
    );
    println!(
        "cpu {:.2} µs each; first late {:.2} ms, last {:.2} ms",
        (cpu - cpu_before) * 1e6 / count as f64,
        late.quantile(0.0),
        late.quantile(1.0)
    );
    scheduler.shutdown(Shutdown::default()).await
}

#[actix::main]
async fn main() -> Result<(), callboard::Error> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number =
        |index: usize, default: u64| args.get(index).and_then(|text| text.parse().ok()).unwrap_or(default);
    match args.first().map(String::as_str) {
        Some("burst") => burst(number(1, 100_000)).await,
        Some("intervals") | None => intervals(number(1, 10_000), number(2, 5)).await,
        Some(other) => {
            eprintln!("unknown: {other}; say `intervals N SECONDS` or `burst N`");
            Ok(())
        }
    }
}
