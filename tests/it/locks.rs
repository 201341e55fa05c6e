//! Locks between processes: of several that run the same tasks, one begins the runs, and another takes
//! over when it dies.

mod lifecycles;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use callboard::prelude::*;
use callboard::scheduler::{Builder, LockStatus};
use callboard::store::{FileStore, RedbStore, SledStore};
use callboard::testing::VirtualClock;
use callboard::trigger::Interval;

use crate::scheduler::{Ran, START, at, every, heard, secs};

fn lock_in(dir: &Path) -> String {
    dir.join("{store}-{pgrp}.lock").display().to_string()
}

async fn lock_of(scheduler: &Handle) -> LockStatus {
    scheduler.status().await.unwrap().stores[0].lock.clone().unwrap()
}

/// A scheduler that shares the clock and the lock of others.
async fn rival(time: &VirtualClock, dir: &Path) -> (Handle, EventStream, Ran) {
    let ran = Ran::default();
    let builder = Scheduler::builder().clock(time.clock()).registry(ran.registry());
    let scheduler = builder.lock_path(lock_in(dir)).build().unwrap();
    let mask = EventMask::LOCK_TAKEN | EventMask::LOCK_AWAITED | EventMask::LOCK_LOST;
    let events = scheduler.events(mask).await.unwrap();
    scheduler.send(callboard::scheduler::message::Start::default()).await.unwrap().unwrap();
    (scheduler, events, ran)
}

#[actix::test]
async fn one_of_two_ticks_and_the_other_takes_over_from_then_on() {
    let base = tempfile::tempdir().unwrap();
    let time = VirtualClock::starting_at(START);
    let (first, mut told_first, ran_first) = rival(&time, base.path()).await;
    let task = || every(2).id("a").coalesce(false);
    first.add(task()).await.unwrap();
    // The startup delay: with a lock one second.
    time.advance(Duration::from_millis(900)).await;
    assert_eq!(ran_first.count("a"), 0);
    time.advance(secs(4)).await;
    let before = ran_first.count("a");
    assert!(before >= 2, "{before}");
    assert!(matches!(heard(&mut told_first)[..], [Event::LockTaken { .. }]));

    let (second, mut told, ran) = rival(&time, base.path()).await;
    second.add(task()).await.unwrap();
    time.advance(secs(20)).await;
    assert_eq!((ran_first.count("a"), ran.count("a")), (before + 10, 0));
    let told_second = heard(&mut told);
    let [Event::LockAwaited { cause, .. }] = &told_second[..] else { panic!("{told_second:?}") };
    assert!(cause.contains(&format!("process {}", std::process::id())), "{cause}");
    let (holds, waits) = (lock_of(&first).await, lock_of(&second).await);
    assert!(holds.held && !waits.held && waits.holder == Some(std::process::id()), "{waits:?}");
    let pid = fs::read_to_string(&holds.path).unwrap();
    assert_eq!(pid.trim(), std::process::id().to_string(), "for people");
    // It serves everything else.
    second.run_task("a").await.unwrap();
    time.advance(secs(1)).await;
    assert_eq!(ran.count("a"), 1);

    let moment = time.clock().now();
    first.shutdown(Shutdown::now()).await.unwrap();
    time.advance(secs(10)).await;
    assert!(matches!(heard(&mut told)[..], [Event::LockTaken { .. }]));
    let runs: Vec<_> = ran.of("a").into_iter().skip(1).collect();
    assert!((4..=5).contains(&runs.len()), "{runs:?}");
    assert!(runs.iter().all(|nominal| *nominal > moment), "the times before were the other's: {runs:?}");
    assert!(lock_of(&second).await.held);
    second.shutdown(Shutdown::now()).await.unwrap();
}

#[actix::test]
async fn a_lock_whose_file_is_removed_is_lost_and_taken_again() {
    let base = tempfile::tempdir().unwrap();
    let time = VirtualClock::starting_at(START);
    let (scheduler, mut events, ran) = rival(&time, base.path()).await;
    scheduler.add(every(10).id("a")).await.unwrap();
    time.advance(secs(20)).await;
    let path = lock_of(&scheduler).await.path;
    fs::remove_file(&path).unwrap();
    time.advance(secs(20)).await;
    let told = heard(&mut events);
    let kinds: Vec<_> = told.iter().map(Event::mask).collect();
    assert_eq!(kinds, [EventMask::LOCK_TAKEN, EventMask::LOCK_LOST, EventMask::LOCK_TAKEN]);
    assert!(path.exists());
    assert_eq!(ran.of("a"), [0, 10, 20, 30, 40].map(at), "nobody else had it");
    scheduler.shutdown(Shutdown::now()).await.unwrap();
}

/// A clock that is set back delays neither the look at the lock, nor the runs of who has it.
#[actix::test]
async fn the_take_over_does_not_mind_a_clock_that_is_set_back() {
    let base = tempfile::tempdir().unwrap();
    let time = VirtualClock::starting_at(START);
    let (first, _, _) = rival(&time, base.path()).await;
    time.advance(secs(5)).await;
    let (second, mut told, ran) = rival(&time, base.path()).await;
    time.advance(secs(5)).await;
    assert!(matches!(heard(&mut told)[..], [Event::LockAwaited { .. }]));
    time.set(at(-3600)).await;
    first.shutdown(Shutdown::now()).await.unwrap();
    time.advance(secs(5)).await;
    assert!(matches!(heard(&mut told)[..], [Event::LockTaken { .. }]));
    second.add(every(2).id("a")).await.unwrap();
    time.advance(secs(10)).await;
    assert!(ran.count("a") >= 4, "{:?}", ran.of("a"));
    time.set(at(-7200)).await;
    second.add(every(2).id("b")).await.unwrap();
    time.advance(secs(10)).await;
    assert!(ran.count("b") >= 4, "{:?}", ran.of("b"));
    second.shutdown(Shutdown::now()).await.unwrap();
}

#[actix::test]
async fn a_lock_whose_directory_goes_is_taken_again_when_that_is_back() {
    let base = tempfile::tempdir().unwrap();
    let place = base.path().join("locks");
    fs::create_dir(&place).unwrap();
    let time = VirtualClock::starting_at(START);
    let (scheduler, mut events, ran) = rival(&time, &place).await;
    scheduler.add(every(10).id("a")).await.unwrap();
    time.advance(secs(5)).await;
    fs::rename(&place, base.path().join("elsewhere")).unwrap();
    time.advance(secs(30)).await;
    let problem = lock_of(&scheduler).await.problem.unwrap();
    assert!(problem.contains("cannot be locked"), "{problem}");
    let so_far = ran.count("a");
    time.advance(secs(30)).await;
    assert_eq!(ran.count("a"), so_far, "without the lock nothing runs");
    fs::create_dir(&place).unwrap();
    time.advance(secs(20)).await;
    assert!(ran.count("a") > so_far && lock_of(&scheduler).await.held);
    let kinds: Vec<_> = heard(&mut events).iter().map(Event::mask).collect();
    let lost = [EventMask::LOCK_LOST, EventMask::LOCK_AWAITED];
    assert_eq!(kinds, [&[EventMask::LOCK_TAKEN][..], &lost, &[EventMask::LOCK_TAKEN]].concat());
    scheduler.shutdown(Shutdown::now()).await.unwrap();
}

#[actix::test]
async fn the_lock_stays_when_the_schedulers_actor_dies() {
    let base = tempfile::tempdir().unwrap();
    let time = VirtualClock::starting_at(START);
    let (scheduler, mut events, ran) = rival(&time, base.path()).await;
    scheduler.add(every(10).id("a")).await.unwrap();
    time.advance(secs(20)).await;
    scheduler.send(callboard::scheduler::message::Crash).await.unwrap_err();
    time.advance_to(at(60)).await;
    assert_eq!(ran.of("a"), [0, 10, 20, 30, 40, 50, 60].map(at));
    assert_eq!(heard(&mut events).len(), 1, "it was taken once");
    assert!(lock_of(&scheduler).await.held);
    scheduler.shutdown(Shutdown::now()).await.unwrap();
}

#[actix::test]
async fn a_startup_delay_needs_no_lock() {
    let time = VirtualClock::starting_at(START);
    let ran = Ran::default();
    let builder = Scheduler::builder().clock(time.clock()).registry(ran.registry());
    let scheduler = builder.startup_delay(secs(25)).start().await.unwrap();
    scheduler.add(every(10).id("a")).await.unwrap();
    time.advance(secs(24)).await;
    assert_eq!(ran.count("a"), 0);
    time.advance(secs(10)).await;
    assert_eq!(ran.of("a"), [20, 30].map(at), "late runs become one");
    assert_eq!(scheduler.status().await.unwrap().stores[0].lock, None);
    scheduler.shutdown(Shutdown::now()).await.unwrap();
}

#[actix::test]
async fn bad_paths_are_refused() {
    let error = |set: fn(Builder) -> Builder| set(Scheduler::builder()).build().unwrap_err();
    let told = error(|b| b.lock_path("/run/{shop}.lock"));
    assert!(told.is_invalid() && told.to_string().contains("`{shop}`"), "{told}");
    let told =
        error(|b| b.lock_path("/run/lock").store("a", MemoryStore::new()).store("b", MemoryStore::new()));
    assert!(told.to_string().contains("put `{store}` into it"), "{told}");

    let base = tempfile::tempdir().unwrap();
    let nowhere = base.path().join("no/such/{store}.lock").display().to_string();
    let told = Scheduler::builder().lock_path(nowhere).start().await.unwrap_err();
    assert!(told.is_invalid() && told.to_string().contains("no/such/default.lock"), "{told}");

    let directory = base.path().display().to_string();
    let told = Scheduler::builder().lock_path(directory).start().await.unwrap_err();
    assert!(told.is_invalid() && told.to_string().contains("choose another"), "{told}");

    let one = base.path().join("lock").display().to_string();
    let scheduler = Scheduler::builder().lock_path(one).start().await.unwrap();
    let told = scheduler.add_store("second", MemoryStore::new()).await.unwrap_err();
    assert!(told.to_string().contains("put `{store}` into it"), "{told}");
    scheduler.shutdown(Shutdown::now()).await.unwrap();
}

/// Processes that run the same task; each notes its runs in one file.
struct Processes {
    base: tempfile::TempDir,
    all: Vec<Child>,
}

impl Processes {
    fn start(count: usize, store: &str) -> Self {
        let base = tempfile::tempdir().unwrap();
        let mut processes = Self { base, all: Vec::new() };
        (0..count).for_each(|_| processes.add(store));
        processes
    }

    fn add(&mut self, store: &str) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "locks::run_until_killed", "--nocapture", "--ignored"])
            .env("CALLBOARD_LOCKS", self.base.path())
            .env("CALLBOARD_LOCKS_STORE", store)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.any(|line| line.unwrap().contains("ready"));
        self.all.push(child);
        assert!(ready);
    }

    /// The runs so far: by which process, for when.
    fn runs(&self) -> Vec<(u32, String)> {
        let text = fs::read_to_string(notes(self.base.path())).unwrap_or_default();
        let run = |line: &str| {
            let (pid, nominal) = line.split_once(' ').unwrap();
            (pid.parse().unwrap(), nominal.to_owned())
        };
        text.lines().map(run).collect()
    }

    /// Waits for five more runs of one process, which is answered.
    fn five_of_one(&self, but: &[u32]) -> u32 {
        let patience = Instant::now() + Duration::from_secs(60);
        loop {
            let runs = self.runs();
            let latest = runs.last().map_or(0, |(pid, _)| *pid);
            if !but.contains(&latest) && runs.iter().filter(|(pid, _)| *pid == latest).count() >= 5 {
                return latest;
            }
            assert!(Instant::now() < patience, "nobody runs: {runs:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn kill(&mut self, pid: u32) {
        let child = self.all.iter_mut().find(|child| child.id() == pid).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in &mut self.all {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

fn notes(base: &Path) -> PathBuf {
    base.join("runs")
}

/// Kills the one that runs, again and again: one runs at a time, and no run time is run twice.
fn take_over(store: &str) {
    let mut processes = Processes::start(3, store);
    let mut dead = Vec::new();
    for _ in 0..2 {
        let holder = processes.five_of_one(&dead);
        processes.kill(holder);
        dead.push(holder);
    }
    dead.push(processes.five_of_one(&dead));
    let runs = processes.runs();
    let mut holders: Vec<u32> = runs.iter().map(|(pid, _)| *pid).collect();
    holders.dedup();
    assert_eq!(holders, dead, "{store}: one after the other");
    let nominal: BTreeSet<_> = runs.iter().map(|(_, nominal)| nominal).collect();
    assert_eq!(nominal.len(), runs.len(), "{store}: no run time twice: {runs:?}");
}

#[test]
fn processes_with_memory_stores_take_over_from_each_other() {
    take_over("memory");
}

#[test]
fn processes_take_over_a_file_store_from_each_other() {
    take_over("file");
}

#[test]
fn processes_take_over_a_sled_store_from_each_other() {
    take_over("sled");
}

#[test]
fn processes_take_over_a_redb_store_from_each_other() {
    take_over("redb");
}

#[test]
#[ignore = "a process of the tests above"]
fn run_until_killed() {
    let Some(base) = std::env::var_os("CALLBOARD_LOCKS").map(PathBuf::from) else { return };
    let store = std::env::var("CALLBOARD_LOCKS_STORE").unwrap();
    let path = notes(&base);
    let registry = Registry::new().register("note", move |run: TaskContext, ()| {
        let line = format!("{} {}\n", std::process::id(), run.nominal().to_rfc3339());
        let mut file = fs::OpenOptions::new().append(true).create(true).open(&path).unwrap();
        file.write_all(line.as_bytes()).unwrap();
        async {}
    });
    actix_rt::System::new().block_on(async {
        let builder = Scheduler::builder()
            .registry(registry)
            .lock_path(lock_in(&base))
            .startup_delay(Duration::from_millis(50))
            .store_retry(Duration::from_millis(100));
        let place = base.join("store");
        let scheduler = match store.as_str() {
            "file" => builder.store("default", FileStore::open(place).unwrap()),
            "sled" => builder.store("default", SledStore::open(place).unwrap()),
            "redb" => builder.store("default", RedbStore::open(place).unwrap()),
            _ => builder,
        };
        let scheduler = scheduler.build().unwrap();
        // The same run times in each process.
        let trigger = Interval::every(Duration::from_millis(100)).start_at(at(-31_536_000));
        let task = Task::new("note").id("note").trigger(trigger).replace_existing(true);
        // Before the start: where another process has the store, the task waits for it.
        scheduler.add(task).await.unwrap();
        scheduler.send(callboard::scheduler::message::Start::default()).await.unwrap().unwrap();
        println!("ready");
        let (sender, ended) = futures::channel::oneshot::channel::<()>();
        std::thread::spawn(move || {
            std::io::read_to_string(std::io::stdin()).ok();
            drop(sender);
        });
        ended.await.ok();
    });
}
