//! Random faults for as long as you like, and an account of every run time at the end.
//!
//! ```sh
//! cargo run --example soak --all-features -- 300 7
//! cargo run --example soak --all-features -- 60 7 virtual
//! ```
//!
//! The arguments are seconds (3), the seed of the chances (42), and `virtual` for a clock that is
//! turned by hand. Some hundred tasks run on four executors and three stores, with every policy
//! there is, while tasks are paused, resumed, deleted and added again, runs are cancelled and asked
//! for, executors and stores die, stores fail, and code fails, panics, hangs and takes too long.
//! Then every run time between the start of a schedule and its pause or deletion must have exactly
//! one outcome, events and run records must agree, and nothing may be left running. If not, it says
//! what is wrong, and the status is 1.

mod account;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use account::{Account, Listener, Slot};
use actix::prelude::*;
use callboard::backoff::Backoff;
use callboard::executor::message::Status;
use callboard::executor::{CustomExecutor, ExecutorAddr, ExecutorSource, Job, Keep, Runner};
use callboard::prelude::*;
use callboard::scheduler::SchedulerStatus;
use callboard::store::{BackendSource, Faults, MemoryBackend, Op, SledStore, StoreError};
use callboard::task::{Coalesce, Overlap, Retry};
use callboard::testing::VirtualClock;

const TASKS: usize = 240;
const STORES: [&str; 3] = ["memory", "shaky", "durable"];
const EXECUTORS: [&str; 4] = ["async", "several", "pool", "fragile"];

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

    fn one_of<T: Copy>(&mut self, things: &[T]) -> T {
        things[self.roll(things.len() as u64) as usize]
    }
}

/// Drives runs on its own arbiter, and panics there when it is armed.
struct Fragile(Arc<AtomicBool>);

impl Runner for Fragile {
    fn kind(&self) -> &'static str {
        "fragile"
    }

    fn start(&mut self, job: Job) {
        assert!(!self.0.swap(false, Ordering::SeqCst), "the executor dies");
        if let Some(started) = job.begin() {
            actix::spawn(started.drive());
        }
    }
}

/// Keeps the address of the latest actor, to look at its counts.
struct Seen<S>(S, Arc<Mutex<Option<ExecutorAddr>>>);

impl<S: ExecutorSource> ExecutorSource for Seen<S> {
    fn start(&mut self, keep: Keep) -> ExecutorAddr {
        let addr = self.0.start(keep);
        *self.1.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(addr.clone());
        addr
    }
}

fn registry(is_virtual: bool) -> Registry {
    Registry::new()
        .register("works", |_: TaskContext, ()| async {})
        .register("naps", |run: TaskContext, ()| async move {
            run.sleep(Duration::from_millis(run.run_id().serial % 700)).await
        })
        .register("fails", |_: TaskContext, ()| async { Err::<(), _>("on purpose") })
        .register("is moody", |run: TaskContext, ()| async move {
            match run.run_id().serial % 4 {
                0 => Err("not in the mood"),
                1 => panic!("in a mood"),
                2 => {
                    run.sleep(Duration::from_secs(3600)).await;
                    Ok(())
                }
                _ => Ok(()),
            }
        })
        .register("panics", |_: TaskContext, ()| async { assert!(std::thread::panicking(), "on purpose") })
        .register_blocking("blocks", move |run: TaskContext, ()| {
            // While code blocks, a virtual clock stands still.
            let end = run.clock().monotonic() + Duration::from_millis(run.run_id().serial % 300);
            while !is_virtual && !run.is_cancelled() && run.clock().monotonic() < end {
                std::thread::sleep(Duration::from_millis(1));
            }
            if run.is_cancelled() { Err("asked to stop") } else { Ok(()) }
        })
        .register("ends its arbiter", |_: TaskContext, ()| async {
            Arbiter::current().stop();
        })
}

/// Time that passes by itself, or is turned.
enum Time {
    Real(Clock),
    Virtual(VirtualClock),
}

impl Time {
    fn clock(&self) -> Clock {
        match self {
            Self::Real(clock) => clock.clone(),
            Self::Virtual(time) => time.clock(),
        }
    }

    async fn pass(&self, time: Duration) {
        match self {
            Self::Real(_) => actix::clock::sleep(time).await,
            Self::Virtual(clock) => {
                clock.advance(time).await;
                // Those on other threads whom no clock knows of.
                actix::clock::sleep(Duration::from_millis(1)).await;
            }
        }
    }
}

/// Whether nothing runs, and every store is there to be told of ends.
fn is_quiet(status: &SchedulerStatus) -> bool {
    status.running == 0 && status.stores.iter().all(|store| store.problem.is_none())
}

struct Soak {
    scheduler: Handle,
    time: Time,
    dice: Dice,
    slots: Vec<Slot>,
    account: Account,
    faults: Faults,
    bomb: Arc<AtomicBool>,
    executors: [(&'static str, Arc<Mutex<Option<ExecutorAddr>>>); 4],
    did: std::collections::BTreeMap<&'static str, u64>,
}

impl Soak {
    async fn new(
        seed: u64,
        is_virtual: bool,
        place: &std::path::Path,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let time = match is_virtual {
            false => Time::Real(Clock::system()),
            true => Time::Virtual(VirtualClock::starting_at("2027-01-01T00:00:00Z")),
        };
        let (faults, bomb) = (Faults::new(), Arc::new(AtomicBool::new(false)));
        let executors = EXECUTORS.map(|name| (name, Arc::<Mutex<Option<ExecutorAddr>>>::default()));
        let seen = |index: usize| executors[index].1.clone();
        let policy = || {
            let backoff = Backoff::exponential(Duration::from_millis(20), Duration::from_millis(500));
            RestartPolicy::always().unlimited(Duration::from_secs(1)).backoff(backoff)
        };
        let armed = bomb.clone();
        let fragile = CustomExecutor::new(move || Fragile(armed.clone())).on_own_arbiter();
        let scheduler = Scheduler::builder()
            .clock(time.clock())
            .registry(registry(is_virtual))
            .store_retry(Duration::from_millis(50))
            .store("memory", MemoryStore::new())
            .store("shaky", BackendSource::keeping(faults.around(MemoryBackend::default())))
            .restart(policy())
            .store("durable", SledStore::open(place)?)
            .executor("async", Seen(AsyncExecutor::new(), seen(0)))
            .restart(policy())
            .executor("several", Seen(AsyncExecutor::new().arbiters(3), seen(1)))
            .restart(policy())
            .executor("pool", Seen(ThreadPool::new(TASKS), seen(2)))
            .restart(policy())
            .executor("fragile", Seen(fragile, seen(3)))
            .restart(policy())
            .start()
            .await?;
        let account = Account::default();
        scheduler.add_listener(EventMask::ALL, Listener(account.clone()).start().recipient()).await?;
        for executor in ["async", "several"] {
            let vandal = Task::new("ends its arbiter").id(format!("vandal-{executor}")).executor(executor);
            scheduler.add(vandal.store("memory").trigger("@yearly")).await?;
        }
        let slots = (0..TASKS).map(Slot::new).collect();
        let did = std::collections::BTreeMap::new();
        Ok(Self { scheduler, time, dice: Dice(seed), slots, account, faults, bomb, executors, did })
    }

    /// A task with options by chance.
    fn task(&mut self, slot: usize) -> (Task, chrono::DateTime<chrono::Utc>, Duration) {
        let dice = &mut self.dice;
        let handlers = ["works", "works", "naps", "naps", "fails", "is moody", "panics", "blocks"];
        let store = STORES[slot % STORES.len()];
        let period = dice.ms(if store == "durable" { 400 } else { 60 }, 900);
        let first = self.time.clock().now() + dice.ms(0, 300);
        let overlap =
            [Overlap::Skip, Overlap::Queue(1), Overlap::Queue(5), Overlap::CancelRunning, Overlap::Allow];
        let backoff = Backoff::exponential(Duration::from_millis(30), Duration::from_millis(400)).jitter(0.3);
        let retry = (dice.roll(3) == 0).then(|| Retry::times(1 + dice.roll(3) as u32).backoff(backoff));
        let handler = dice.one_of(&handlers);
        // What may hang has a limit.
        let limited = handler == "is moody" || dice.roll(2) == 0;
        let timeout = limited.then(|| dice.ms(50, 500));
        let slot = &mut self.slots[slot];
        slot.life += 1;
        let mut task = Task::new(handler)
            .id(slot.id.as_str())
            .store(store)
            .executor(dice.one_of(&EXECUTORS))
            .trigger(Interval::every(period).start_at(first))
            .coalesce(dice.one_of(&[Coalesce::Latest, Coalesce::Earliest, Coalesce::All]))
            .max_instances(1 + dice.roll(2) as u32)
            .max_catch_up(1 + dice.roll(20) as u32)
            .overlap(dice.one_of(&overlap))
            .timeout(timeout)
            .retry(retry)
            .recover(dice.roll(4) == 0)
            .userdata(slot.life)
            .replace_existing(true);
        if dice.roll(4) == 0 {
            task = task.misfire_grace(dice.ms(20, 200));
        }
        (task, first, period)
    }

    /// One thing that goes wrong, or that somebody does.
    async fn act(&mut self) {
        let slot = self.dice.roll(TASKS as u64) as usize;
        let what = match self.dice.roll(100) {
            0..30 => self.toggle(slot).await,
            30..48 => self.delete_or_add(slot).await,
            48..63 => self.run(slot).await,
            63..83 => self.cancel().await,
            83..85 => {
                self.bomb.store(true, Ordering::SeqCst);
                "executor panics"
            }
            85..87 => {
                let vandal = self.dice.one_of(&["vandal-async", "vandal-several"]);
                self.scheduler.run_task(vandal).await.ok();
                "arbiter ends"
            }
            87..89 => {
                self.faults.panic(self.dice.one_of(&[Op::TakeDue, Op::Commit]));
                "store panics"
            }
            89..94 => {
                let op = self.dice.one_of(&[Op::TakeDue, Op::Commit, Op::Put, Op::NextDue]);
                self.faults.fail(op, StoreError::unavailable("on purpose"));
                "store fails"
            }
            94..96 => {
                self.faults.lose(Op::Commit, StoreError::unavailable("on purpose"));
                "answer lost"
            }
            _ => {
                self.scheduler.pause().await.ok();
                let stall = self.dice.ms(50, 400);
                self.time.pass(stall).await;
                self.scheduler.resume().await.ok();
                "stall"
            }
        };
        *self.did.entry(what).or_default() += 1;
    }

    /// Asks again until the answer is final.
    async fn settle<T, F: Future<Output = Result<T, callboard::Error>>>(
        &self,
        mut ask: impl FnMut(Handle) -> F,
    ) -> (Result<T, callboard::Error>, bool) {
        let mut first = true;
        loop {
            match ask(self.scheduler.clone()).await {
                Err(error) if error.is_retryable() => {
                    first = false;
                    self.time.pass(Duration::from_millis(10)).await;
                }
                answer => return (answer, first),
            }
        }
    }

    async fn toggle(&mut self, slot: usize) -> &'static str {
        let id = self.slots[slot].id.clone();
        if self.slots[slot].active {
            let (info, _) = self
                .settle(|board| {
                    let id = id.clone();
                    async move { board.pause_task(id).await }
                })
                .await;
            if let Ok(info) = info {
                self.slots[slot].ended(info.state.next.map(|next| next.nominal));
                return "pause";
            }
        } else if self.slots[slot].there {
            let (info, first) = self
                .settle(|board| {
                    let id = id.clone();
                    async move { board.resume_task(id).await }
                })
                .await;
            if let Ok(Some(info)) = info {
                // A first answer that was lost: it may have run since.
                self.slots[slot].began(info.next_run_time().filter(|_| first));
                return "resume";
            }
        }
        "nothing"
    }

    async fn delete_or_add(&mut self, slot: usize) -> &'static str {
        let id = self.slots[slot].id.clone();
        if self.slots[slot].there {
            let (deleted, _) = self
                .settle(|board| {
                    let id = id.clone();
                    async move { board.delete_task(id).await }
                })
                .await;
            assert!(
                deleted.as_ref().is_ok_and(|()| true) || deleted.is_err_and(|error| error.is_not_found())
            );
            self.slots[slot].deleted();
            return "delete";
        }
        self.add(slot).await;
        "add"
    }

    async fn add(&mut self, slot: usize) {
        let (task, first, period) = self.task(slot);
        let (added, _) = self
            .settle(|board| {
                let task = task.clone();
                async move { board.add(task).await }
            })
            .await;
        match added {
            Ok(_) => {
                let in_time = self.time.clock().now() < first;
                self.slots[slot].added(first, period, in_time);
            }
            Err(error) => self.account.complain(format!("a task is not added: {error}")),
        }
    }

    async fn run(&mut self, slot: usize) -> &'static str {
        if self.slots[slot].there
            && let Ok(run) = self.scheduler.run_task(self.slots[slot].id.as_str()).await
        {
            self.account.promised(run);
        }
        "run"
    }

    async fn cancel(&mut self) -> &'static str {
        let chance = self.dice.roll(u64::MAX);
        match self.account.one_in_flight(chance) {
            Some(run) => match self.scheduler.cancel_run(run).await {
                Ok(true) => "cancel",
                _ => "cancel too late",
            },
            None => "nothing",
        }
    }

    /// Lets everything come to its end, and looks at what is left.
    async fn finish(&mut self) {
        for slot in 0..TASKS {
            if self.slots[slot].active {
                self.toggle(slot).await;
            }
        }
        self.bomb.store(false, Ordering::SeqCst);
        for _ in 0..3000 {
            self.time.pass(Duration::from_millis(10)).await;
            if self.scheduler.status().await.is_ok_and(|status| is_quiet(&status)) {
                break;
            }
        }
        match self.scheduler.status().await {
            Ok(status) if is_quiet(&status) => {}
            other => self.account.complain(format!("runs are left: {other:?}")),
        }
        for (name, addr) in &self.executors {
            let addr = addr.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
            let status = match addr {
                Some(addr) => addr.status(Status).await,
                None => continue,
            };
            match status {
                Ok(status) if status.running + status.queued == 0 && status.instances.is_empty() => {}
                other => {
                    self.account.complain(format!("executor {name} counts what is not there: {other:?}"))
                }
            }
        }
        for slot in self.slots.iter().filter(|slot| slot.there) {
            match self.scheduler.task(slot.id.as_str()).await {
                Ok(info) => self.account.waiting(slot, &info),
                Err(error) => self.account.complain(format!("{} is gone: {error}", slot.id)),
            }
            match self.scheduler.history(slot.id.as_str(), 100).await {
                Ok(records) => self.account.compare(slot, &records),
                Err(error) => self.account.complain(format!("no history of {}: {error}", slot.id)),
            }
        }
    }
}

#[actix::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number =
        |index: usize, default| args.get(index).and_then(|text| text.parse().ok()).unwrap_or(default);
    let (seconds, seed): (u64, u64) = (number(0, 3), number(1, 42));
    let is_virtual = args.get(2).is_some_and(|word| word == "virtual");
    // What panics does so on purpose, some thousand times.
    std::panic::set_hook(Box::new(|_| {}));
    let place = std::env::temp_dir().join(format!("callboard-soak-{}", std::process::id()));
    let mut soak = Soak::new(seed, is_virtual, &place).await?;
    for slot in 0..TASKS {
        soak.add(slot).await;
    }
    let clock = soak.time.clock();
    let end = clock.monotonic() + Duration::from_secs(seconds);
    while clock.monotonic() < end {
        soak.act().await;
        let pause = soak.dice.ms(0, 30);
        soak.time.pass(pause).await;
    }
    soak.finish().await;
    soak.scheduler.shutdown(Shutdown::wait(Duration::from_secs(5))).await?;
    std::fs::remove_dir_all(&place).ok();
    let did: Vec<_> = soak.did.iter().map(|(what, times)| format!("{what} {times}")).collect();
    println!("seed {seed}, {seconds} s, {TASKS} tasks: {}", did.join(", "));
    let problems = soak.account.close(&soak.slots);
    if problems > 0 {
        eprintln!("{problems} problems");
        std::process::exit(1);
    }
    println!("every run time has one outcome, and nothing is left");
    Ok(())
}
