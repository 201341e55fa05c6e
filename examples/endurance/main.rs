//! So many runs a second on a durable store, for minutes, while one thing after the other goes wrong;
//! at the end, what became of each run time, how late runs were, and what the process has kept.
//!
//! ```sh
//! tests/soak.sh redb 10 2000       # ten minutes, release build
//! cargo run --example endurance --all-features -- redb 60 2000 7
//! ```
//!
//! The arguments are the store (`sled`, `redb` or `file`), seconds (60), runs a second (2000), the seed of
//! the chances (1), and `calm` for a run without faults. As many tasks as runs a second run each second, a
//! twentieth of them on a thread pool that is too small when its code is slow. Meanwhile, by chance:
//! executors panic, lose their arbiter, are full, or are removed and added again; the directory of the
//! store is moved away and back; no descriptor is left; the scheduler is paused; somebody opens a stream
//! of events and never reads it; somebody lists everything and asks why.
//!
//! A run time that has no outcome is lost; one that has two, or whose code ran twice, is doubled. When
//! there is one of either, the status is 1.

mod books;
mod process;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use actix::prelude::*;
use books::{Books, Listener};
use callboard::backoff::Backoff;
use callboard::executor::{CustomExecutor, Job, Runner};
use callboard::prelude::*;
use callboard::scheduler::message::OpenEvents;
use callboard::store::{FileStore, RedbStore, SledStore};
use callboard::task::Overlap;
use chrono::TimeDelta;

/// A fault counts as over so long after it was mended: what had waited has run by then.
const AFTERMATH: Duration = Duration::from_secs(8);

/// SplitMix64: the same chances for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides.max(1)
    }

    fn ms(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.roll(to - from))
    }
}

/// Drives runs on its own arbiter, and panics there when it is armed.
struct Fragile(Arc<AtomicBool>);

impl Runner for Fragile {
    fn kind(&self) -> &'static str {
        "fragile"
    }

    fn start(&mut self, job: Job) {
        assert!(!self.0.swap(false, SeqCst), "the executor dies");
        if let Some(started) = job.begin() {
            actix::spawn(started.drive());
        }
    }
}

/// What the faults have a hand in.
struct Levers {
    bomb: Arc<AtomicBool>,
    /// How long each run on the small pool takes, in milliseconds.
    slow: Arc<AtomicU64>,
    store: PathBuf,
}

fn registry(books: &Books, slow: Arc<AtomicU64>) -> Registry {
    let (here, there) = (books.clone(), books.clone());
    Registry::new()
        .register("note", move |run: TaskContext, index: usize| {
            here.ran(index, run.nominal(), run.clock().now());
            async {}
        })
        .register_blocking("note slowly", move |run: TaskContext, index: usize| {
            there.ran(index, run.nominal(), run.clock().now());
            std::thread::sleep(Duration::from_millis(slow.load(SeqCst)));
        })
        .register("ends its arbiter", |_: TaskContext, ()| async {
            Arbiter::current().stop();
        })
}

fn small_pool() -> ThreadPool {
    ThreadPool::new(2).queue(50)
}

fn policy() -> RestartPolicy {
    let backoff = Backoff::exponential(Duration::from_millis(20), Duration::from_millis(500));
    RestartPolicy::always().unlimited(Duration::from_secs(1)).backoff(backoff)
}

async fn start(kind: &str, levers: &Levers, books: &Books) -> Result<Handle, Box<dyn std::error::Error>> {
    let armed = levers.bomb.clone();
    let fragile = CustomExecutor::new(move || Fragile(armed.clone())).on_own_arbiter();
    let builder = Scheduler::builder()
        .registry(registry(books, levers.slow.clone()))
        .store_retry(Duration::from_millis(100));
    let path = &levers.store;
    let builder = match kind {
        "sled" => builder.store("default", SledStore::open(path)?),
        "redb" => builder.store("default", RedbStore::open(path)?),
        "file" => builder.store("default", FileStore::open(path)?),
        other => return Err(format!("{other:?} is no store; valid are sled, redb and file").into()),
    };
    let builder = builder
        .restart(policy())
        .executor("async", AsyncExecutor::new().arbiters(2))
        .restart(policy())
        .executor("fragile", fragile)
        .restart(policy())
        .executor("small", small_pool())
        .restart(policy());
    Ok(builder.start().await?)
}

/// Something that goes wrong for a while; answers what it was.
async fn trouble(scheduler: &Handle, levers: &Levers, dice: &mut Dice) -> &'static str {
    match dice.roll(10) {
        0 => {
            levers.bomb.store(true, SeqCst);
            "an executor panics"
        }
        1 => {
            scheduler.run_task("vandal").await.ok();
            "an arbiter ends"
        }
        2 => {
            levers.slow.store(200, SeqCst);
            actix::clock::sleep(dice.ms(1000, 4000)).await;
            levers.slow.store(0, SeqCst);
            "the small pool is full"
        }
        3 => {
            scheduler.remove_executor("small", Duration::from_millis(200)).await.ok();
            actix::clock::sleep(dice.ms(100, 3000)).await;
            while let Err(error) = scheduler.add_executor("small", small_pool()).await
                && error.is_retryable()
            {
                actix::clock::sleep(Duration::from_millis(50)).await;
            }
            "an executor is removed and added"
        }
        4 => {
            let away = levers.store.with_extension("away");
            if std::fs::rename(&levers.store, &away).is_ok() {
                actix::clock::sleep(dice.ms(500, 3000)).await;
                bring_back(&away, &levers.store);
            }
            "the store's directory is moved away and back"
        }
        5 => {
            let held = process::take_all_descriptors();
            actix::clock::sleep(dice.ms(500, 3000)).await;
            drop(held);
            "no descriptor is left"
        }
        6 => {
            scheduler.pause().await.ok();
            actix::clock::sleep(dice.ms(200, 2000)).await;
            while scheduler.resume().await.is_err_and(|error| error.is_retryable()) {
                actix::clock::sleep(Duration::from_millis(50)).await;
            }
            "the scheduler is paused"
        }
        7 => {
            let stream = scheduler.send(OpenEvents { mask: EventMask::ALL, capacity: 16 }).await;
            actix::clock::sleep(dice.ms(1000, 4000)).await;
            drop(stream);
            "a reader of events does not read"
        }
        8 => {
            for _ in 0..5 {
                scheduler.tasks(TaskQuery::new()).await.ok();
                scheduler.history("task 1", 1000).await.ok();
            }
            "everything is listed"
        }
        _ => {
            let now = Clock::system().now();
            for _ in 0..5 {
                scheduler.why("task 1", now - TimeDelta::days(1000), now + TimeDelta::days(1000)).await.ok();
            }
            "somebody asks why"
        }
    }
}

/// Moves the directory back to where the store looks for it; what somebody made there meanwhile is not the
/// store's.
fn bring_back(away: &Path, store: &Path) {
    if std::fs::rename(away, store).is_err() {
        std::fs::remove_dir_all(store).ok();
        if let Err(error) = std::fs::rename(away, store) {
            eprintln!("the directory could not be moved back: {error}");
        }
    }
}

#[actix::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number =
        |index: usize, default| args.get(index).and_then(|text| text.parse().ok()).unwrap_or(default);
    let kind = args.first().map_or("redb", String::as_str);
    let (seconds, rate, seed): (u64, u64, u64) = (number(1, 60), number(2, 2000), number(3, 1));
    let is_calm = args.get(4).is_some_and(|word| word == "calm");
    // What panics does so on purpose.
    std::panic::set_hook(Box::new(|_| {}));
    process::limit_descriptors(2048);
    let base = tempfile_dir()?;
    let levers = Levers { bomb: Arc::default(), slow: Arc::default(), store: base.join("store") };
    let clock = Clock::system();
    // Everything is added before the first run time.
    let lead = 5 + rate / 200;
    let begin = clock.now() + TimeDelta::seconds(lead as i64);
    let books = Books::new(begin, rate as usize, seconds as usize);
    let scheduler = start(kind, &levers, &books).await?;
    let listener = Listener(books.clone()).start().recipient();
    scheduler.add_listener(EventMask::RUN_ENDED, listener).await?;
    let vandal = Task::new("ends its arbiter").id("vandal").executor("async").trigger("@yearly");
    scheduler.add(vandal).await?;
    let mut adds = Vec::new();
    for index in 0..rate as usize {
        let first = books.first(index);
        let (handler, executor) = match index % 20 {
            0 => ("note slowly", "small"),
            odd if odd % 2 == 1 => ("note", "fragile"),
            _ => ("note", "async"),
        };
        let task = Task::new(handler)
            .id(format!("task {index}"))
            .args(index)
            .executor(executor)
            .trigger(Interval::seconds(1).start_at(first))
            .end_at(first + TimeDelta::seconds(seconds as i64) - TimeDelta::milliseconds(500))
            .coalesce(false)
            .max_catch_up(10_000)
            .overlap(Overlap::Allow);
        adds.push(scheduler.add(task));
        if adds.len() == 200 || index + 1 == rate as usize {
            for added in futures::future::join_all(adds.drain(..)).await {
                added?;
            }
        }
    }
    if clock.now() > begin {
        return Err("the tasks were not added in time; try fewer".into());
    }
    let (rss, descriptors) = (process::rss(), process::descriptors());
    let mut dice = Dice(seed);
    let mut did = std::collections::BTreeMap::<_, u64>::new();
    let end = clock.monotonic() + Duration::from_secs(lead + seconds);
    let mut most = process::Most::default();
    actix::clock::sleep(Duration::from_secs(lead)).await;
    while clock.monotonic() < end {
        most.look();
        let left = end.saturating_sub(clock.monotonic());
        actix::clock::sleep(dice.ms(300, 4000).min(left)).await;
        // The last faults are mended before the last run times.
        if !is_calm && left > Duration::from_secs(10).min(Duration::from_secs(seconds / 4)) {
            books.trouble_begins(clock.now());
            *did.entry(trouble(&scheduler, &levers, &mut dice).await).or_default() += 1;
            books.trouble_ends(clock.now() + TimeDelta::from_std(AFTERMATH)?);
        }
    }
    // Whatever waits has its time.
    for _ in 0..600 {
        most.look();
        let is_quiet = scheduler.status().await.is_ok_and(|status| status.running == 0);
        if is_quiet && books.is_complete() {
            break;
        }
        actix::clock::sleep(Duration::from_millis(200)).await;
    }
    let account = books.close();
    println!("{kind}, {rate} runs a second for {seconds} s, seed {seed}");
    let did: Vec<_> = did.iter().map(|(what, times)| format!("{what} {times}")).collect();
    println!("faults: {}", if did.is_empty() { "none".to_owned() } else { did.join(", ") });
    println!("{account}");
    println!(
        "memory: {} MB at the begin, {} MB at the end, {} MB at most",
        rss >> 20,
        process::rss() >> 20,
        process::peak_rss() >> 20
    );
    println!(
        "descriptors: {descriptors} at the begin, {} at the end, {} at most; zombies: {} at the end, {} at most",
        process::descriptors(),
        most.descriptors,
        process::zombies(),
        most.zombies
    );
    scheduler.shutdown(Shutdown::wait(Duration::from_secs(10))).await?;
    std::fs::remove_dir_all(&base).ok();
    if account.lost + account.doubled > 0 {
        std::process::exit(1);
    }
    Ok(())
}

/// A directory of its own, where `TMPDIR` says.
fn tempfile_dir() -> std::io::Result<PathBuf> {
    let path = std::env::temp_dir().join(format!("callboard-endurance-{}", std::process::id()));
    std::fs::create_dir_all(&path)?;
    Ok(path)
}
