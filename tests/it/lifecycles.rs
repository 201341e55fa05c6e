//! Tasks with a set-up, ticks and a clean-up.

use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use callboard::Error;
use callboard::prelude::*;
use callboard::scheduler::message::Crash;
use callboard::store::SledStore;
use callboard::task::Lifecycle;
use callboard::testing::VirtualClock;

use crate::scheduler::{START, at, board, every, heard, secs};

/// What happened, in order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn note(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

/// The state: not `Send`, and it tells when it is dropped.
struct State {
    ticks: Rc<AtomicUsize>,
    log: Log,
}

impl Drop for State {
    fn drop(&mut self) {
        self.log.note("dropped");
    }
}

/// Ticks every ten seconds and notes everything.
fn pulse(log: &Log) -> Lifecycle<State> {
    let (made, ticked, cleaned) = (log.clone(), log.clone(), log.clone());
    Lifecycle::new("pulse", async move || {
        made.note("set up");
        Ok::<_, String>(State { ticks: Rc::default(), log: made.clone() })
    })
    .tick(Interval::seconds(10), async move |state: &mut State, run: TaskContext| {
        let ticks = state.ticks.fetch_add(1, SeqCst) + 1;
        // A wait in between does not let another tick in.
        run.sleep(Duration::from_millis(10)).await;
        assert_eq!(state.ticks.load(SeqCst), ticks);
        ticked.note(format!("tick {ticks} of {}", (run.nominal() - at(0)).num_seconds()));
        Ok::<_, String>(ticks)
    })
    .clean_up(async move |state: State| {
        cleaned.note(format!("clean up after {}", state.ticks.load(SeqCst)));
    })
}

#[actix::test]
async fn set_up_then_ticks_then_clean_up_each_time_the_scheduler_runs() {
    let log = Log::default();
    let time = VirtualClock::starting_at(START);
    let scheduler = Scheduler::builder().clock(time.clock()).build().unwrap();
    let mut events = scheduler.events(EventMask::LIFECYCLE | EventMask::RUN_ENDED).await.unwrap();
    assert_eq!(scheduler.add_lifecycle(pulse(&log)).await.unwrap().as_str(), "pulse");
    time.advance(secs(30)).await;
    assert!(log.take().is_empty(), "nothing before the start");

    scheduler.start().await.unwrap();
    time.advance(secs(15)).await;
    assert_eq!(log.take(), ["set up", "tick 1 of 30", "tick 2 of 40"]);
    assert!(scheduler.task("pulse").await.unwrap().state.runs == 2);
    scheduler.shutdown(Shutdown::wait(secs(5))).await.unwrap();
    assert_eq!(log.take(), ["clean up after 2", "dropped"]);
    scheduler.shutdown(Shutdown::wait(secs(5))).await.unwrap();
    assert!(log.take().is_empty(), "once for each set-up");
    let told: Vec<_> = heard(&mut events)
        .iter()
        .map(|event| match event {
            Event::LifecycleSetUp { .. } => "set up".to_owned(),
            Event::LifecycleCleanedUp { .. } => "cleaned up".to_owned(),
            event => event.report().unwrap().end.outcome.word().to_owned(),
        })
        .collect();
    assert_eq!(told, ["set up", "executed", "executed", "cleaned up"]);

    // Another start is another life, with a state of its own.
    scheduler.start_paused().await.unwrap();
    time.settle().await;
    scheduler.resume().await.unwrap();
    time.advance(secs(6)).await;
    assert_eq!(log.take(), ["set up", "tick 1 of 50"]);
    scheduler.shutdown(Shutdown::now()).await.unwrap();
    assert_eq!(log.take(), ["clean up after 1", "dropped"]);
}

#[actix::test]
async fn a_tick_that_fails_panics_or_is_cut_off_leaves_the_state_to_the_next() {
    let log = Log::default();
    let (scheduler, time, _) = board(|b| b).await;
    let mut ends = scheduler.events(EventMask::RUN_ENDED).await.unwrap();
    let cleaned = log.clone();
    let lifecycle = Lifecycle::new("count", async || Ok::<_, String>(0))
        .tick(Interval::seconds(10), async |count: &mut u32, run: TaskContext| {
            *count += 1;
            match *count {
                1 => Err("first"),
                2 => panic!("second"),
                3 => {
                    run.sleep(secs(1_000_000)).await;
                    Ok(())
                }
                _ => Ok(()),
            }
        })
        .clean_up(async move |count: u32| cleaned.note(format!("after {count}")));
    scheduler.add_lifecycle(lifecycle).await.unwrap();
    time.advance(secs(25)).await;
    let ended = heard(&mut ends);
    let words: Vec<_> = ended.iter().map(|event| event.report().unwrap().end.outcome.clone()).collect();
    let [Outcome::Failed { error }, Outcome::Panicked { message }] = &words[..] else { panic!("{words:?}") };
    assert_eq!((error.as_str(), without_place(message)), ("first", "second"));
    // The third tick goes on; it is cut off, and then the state is cleaned up.
    scheduler.shutdown(Shutdown::now()).await.unwrap();
    assert_eq!(log.take(), ["after 3"]);
    let last = heard(&mut ends);
    assert_eq!(last[0].report().unwrap().end.outcome.word(), "interrupted");
}

/// What is told of a panic, without its place in this file.
fn without_place(told: &str) -> &str {
    told.split_once(" (at ").map_or(told, |(told, _)| told)
}

#[actix::test]
async fn a_set_up_that_fails_is_told_of_and_nothing_ticks() {
    for again in [false, true] {
        let (scheduler, time, _) = board(|b| b).await;
        let mut events = scheduler.events(EventMask::LIFECYCLE | EventMask::RUN_ENDED).await.unwrap();
        let tries = Arc::new(AtomicUsize::new(0));
        let log = Log::default();
        let (tried, cleaned) = (tries.clone(), log.clone());
        let lifecycle = Lifecycle::new("late", async move || match tried.fetch_add(1, SeqCst) {
            0 => Err("no paper"),
            1 => panic!("no ink"),
            _ => Ok("state"),
        })
        .tick(Interval::seconds(10), async |state: &mut &str, _: TaskContext| Ok::<_, String>(state.len()))
        .clean_up(async move |_: &str| cleaned.note("clean up"))
        .set_up_again(again);
        scheduler.add_lifecycle(lifecycle).await.unwrap();
        time.advance(secs(15)).await;
        scheduler.shutdown(Shutdown::now()).await.unwrap();
        let told: Vec<_> = heard(&mut events)
            .into_iter()
            .map(|event| match event {
                Event::LifecycleFailed { step, cause, .. } => format!("{step}: {cause}"),
                Event::LifecycleSetUp { .. } => "set up".to_owned(),
                Event::LifecycleCleanedUp { .. } => "cleaned up".to_owned(),
                event => {
                    let outcome = event.report().unwrap().end.outcome.clone();
                    outcome.problem().unwrap_or_else(|| "executed".to_owned())
                }
            })
            .collect();
        if again {
            let expected = [
                "set-up: no paper",
                "set-up: it panicked: no ink",
                "its set-up failed: it panicked: no ink",
                "set up",
                "executed",
                "cleaned up",
            ];
            assert_eq!(told.iter().map(|told| without_place(told)).collect::<Vec<_>>(), expected);
            assert_eq!(log.take(), ["clean up"]);
        } else {
            let failed = "its set-up failed: no paper";
            assert_eq!(told, ["set-up: no paper", failed, failed]);
            assert!(log.take().is_empty(), "there was nothing to clean up");
            assert_eq!(tries.load(SeqCst), 1);
        }
    }
}

#[actix::test]
async fn when_the_task_goes_the_clean_up_comes_after_the_last_tick() {
    for way in ["delete", "delete all", "the schedule ends", "delete while it ticks"] {
        let log = Log::default();
        let (scheduler, time, _) = board(|b| b).await;
        let lifecycle = match way {
            "the schedule ends" => pulse(&log).task(|task| task.trigger(Date::at(at(5)))),
            _ => pulse(&log).task(|task| task.first_run(at(5))),
        };
        scheduler.add_lifecycle(lifecycle).await.unwrap();
        let again = scheduler.add_lifecycle(pulse(&log)).await.unwrap_err();
        assert!(matches!(again, Error::Task(_)), "{again}");
        // The tick takes ten milliseconds.
        let so_far = if way == "delete while it ticks" { secs(5) } else { secs(6) };
        time.advance(so_far).await;
        match way {
            "delete all" => drop(scheduler.remove_all_tasks(None).await.unwrap()),
            "the schedule ends" => assert!(scheduler.task("pulse").await.is_err()),
            _ => scheduler.delete_task("pulse").await.unwrap(),
        }
        time.advance(secs(60)).await;
        // On an arbiter of its own; nothing holds the clock for it.
        while log.0.lock().unwrap().len() < 4 {
            actix::clock::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(log.take(), ["set up", "tick 1 of 5", "clean up after 1", "dropped"], "{way}");
        scheduler.shutdown(Shutdown::now()).await.unwrap();
        assert!(log.take().is_empty());
        // The name is free.
        scheduler.start().await.unwrap();
        assert!(log.take().is_empty(), "it is forgotten");
        scheduler.add_lifecycle(pulse(&log)).await.unwrap();
        scheduler.shutdown(Shutdown::now()).await.unwrap();
    }
}

#[actix::test]
async fn a_lifecycle_is_added_anew_while_the_last_tick_of_the_old_one_goes_on() {
    for stop in [false, true] {
        let log = Log::default();
        let (scheduler, time, _) = board(|b| b).await;
        scheduler.add_lifecycle(pulse(&log)).await.unwrap();
        // In the midst of a tick, which takes ten milliseconds. Once more before that is over.
        for _ in 0..2 {
            time.advance(Duration::from_millis(1)).await;
            scheduler.delete_task("pulse").await.unwrap();
            scheduler.add_lifecycle(pulse(&log)).await.unwrap();
        }
        let again = scheduler.add_lifecycle(pulse(&log)).await.unwrap_err();
        assert!(matches!(again, Error::Task(_)), "{again}");
        assert_eq!(log.take(), ["set up"], "two lives do not overlap");
        if !stop {
            time.advance(Duration::from_millis(20)).await;
            // Nothing holds the clock for the clean-up.
            while log.0.lock().unwrap().len() < 4 {
                actix::clock::sleep(Duration::from_millis(1)).await;
            }
            time.advance(secs(25)).await;
        }
        scheduler.shutdown(Shutdown::now()).await.unwrap();
        let lines = log.take();
        if stop {
            assert_eq!(lines, ["clean up after 1", "dropped"]);
        } else {
            assert_eq!(lines[..4], ["tick 1 of 0", "clean up after 1", "dropped", "set up"], "{lines:?}");
            assert_eq!(lines[4..6], ["tick 1 of 10", "tick 2 of 20"], "{lines:?}");
            assert_eq!(lines[6..], ["clean up after 2", "dropped"], "{lines:?}");
        }
        assert_eq!(scheduler.status().await.unwrap().running, 0);
    }
}

fn fall(place: &str) {
    assert!(place.is_empty(), "{place}");
}

#[actix::test]
async fn panics_of_each_step_say_where() {
    let (scheduler, time, _) = board(|b| b).await;
    let mut events = scheduler.events(EventMask::LIFECYCLE | EventMask::RUN_ENDED).await.unwrap();
    let tries = AtomicUsize::new(0);
    let lifecycle = Lifecycle::new("fright", async move || {
        assert!(tries.fetch_add(1, SeqCst) > 0, "on the way in");
        Ok::<_, String>(())
    })
    .tick(Interval::seconds(10), async |(): &mut (), run: TaskContext| {
        run.sleep(secs(1)).await;
        fall("on stage");
    })
    .clean_up(async |()| fall("on the way out"))
    .set_up_again(true);
    scheduler.add_lifecycle(lifecycle).await.unwrap();
    time.advance(secs(5)).await;
    scheduler.shutdown(Shutdown::now()).await.unwrap();
    let told: Vec<_> = heard(&mut events)
        .into_iter()
        .filter_map(|event| match event {
            Event::LifecycleFailed { cause, .. } => Some(cause),
            Event::LifecycleSetUp { .. } => None,
            event => event.report().unwrap().end.outcome.problem(),
        })
        .collect();
    for (told, what) in told.iter().zip(["on the way in", "on stage", "on the way out"]) {
        assert!(told.contains(&format!("{what} (at tests/it/lifecycles.rs:")), "{told}");
    }
    assert_eq!(told.len(), 3, "{told:?}");
}

#[actix::test]
async fn clean_up_survives_the_death_of_the_scheduler_s_actor() {
    let log = Log::default();
    let (scheduler, time, _) = board(|b| b).await;
    scheduler.add_lifecycle(pulse(&log)).await.unwrap();
    time.advance(secs(1)).await;
    scheduler.send(Crash).await.unwrap_err();
    time.advance(secs(10)).await;
    scheduler.shutdown(Shutdown::now()).await.unwrap();
    assert_eq!(log.take(), ["set up", "tick 1 of 0", "tick 2 of 10", "clean up after 2", "dropped"]);
}

#[actix::test]
async fn a_shutdown_does_not_wait_for_what_hangs() {
    let (scheduler, time, _) = board(|b| b).await;
    let mut events = scheduler.events(EventMask::LIFECYCLE).await.unwrap();
    let clock = time.clock();
    let sleep = move || drop_busy(callboard::timer::sleep(&clock, secs(1_000)));
    let (begin, end) = (sleep.clone(), sleep);
    let stuck = Lifecycle::new("never begins", async move || {
        begin().await;
        Ok::<_, String>(())
    })
    .tick("@yearly", async |(): &mut (), _: TaskContext| {});
    let slow = Lifecycle::new("hardly ends", async || Ok::<_, String>(()))
        .tick("@yearly", async |(): &mut (), _: TaskContext| {})
        .clean_up(async move |()| end().await)
        .clean_up_within(secs(100));
    scheduler.add_lifecycle(slow).await.unwrap();
    scheduler.add_lifecycle(stuck).await.unwrap();
    // Others run on time, whatever is being set up.
    scheduler.add(every(10).id("other")).await.unwrap();
    time.advance(secs(20)).await;
    assert_eq!(scheduler.task("other").await.unwrap().state.runs, 3);
    let began = time.clock().now();
    let stopped = AtomicBool::new(false);
    let shutdown = async {
        scheduler.shutdown(Shutdown::wait(secs(2))).await.unwrap();
        stopped.store(true, SeqCst);
    };
    let turning = async {
        while !stopped.load(SeqCst) {
            time.advance(Duration::from_millis(100)).await;
            actix::clock::sleep(Duration::from_millis(1)).await;
        }
    };
    futures::join!(shutdown, turning);
    let took = (time.clock().now() - began).to_std().unwrap();
    assert!(took < secs(90), "{took:?}");
    let told = heard(&mut events);
    assert!(matches!(told[..], [Event::LifecycleSetUp { .. }]), "{told:?}");
    // In the background the clean-up has its time, and then is cut off.
    time.advance(secs(200)).await;
    scheduler.start().await.unwrap();
    time.settle().await;
    let mut told = heard(&mut events);
    while !told.iter().any(|event| matches!(event, Event::LifecycleFailed { step: "clean-up", .. })) {
        actix::clock::sleep(Duration::from_millis(1)).await;
        told.extend(heard(&mut events));
    }
}

async fn drop_busy<T>(wait: impl Future<Output = T>) {
    drop(wait.await);
}

#[actix::test]
async fn a_lifecycle_is_checked_when_it_is_added() {
    let (scheduler, ..) = board(|b| b).await;
    let made = || Lifecycle::new("note", async || Ok::<_, String>(()));
    let tick = async |(): &mut (), _: TaskContext| {};
    let refused = async |lifecycle| scheduler.add_lifecycle(lifecycle).await.unwrap_err().to_string();
    assert!(refused(made()).await.contains("no trigger"));
    assert!(refused(made().tick("61 * * * *", tick)).await.contains("61"));
    let taken = refused(made().tick("@yearly", tick)).await;
    assert!(taken.contains("two things are registered under `note`"), "{taken}");
    let nameless = Lifecycle::new("", async || Ok::<_, String>(())).tick("@yearly", tick);
    assert!(refused(nameless).await.contains("id is empty"));
}

#[actix::test]
async fn ticks_in_a_durable_store_find_the_lifecycle_of_the_next_program() {
    let folder = tempfile::tempdir().unwrap();
    let time = VirtualClock::starting_at(START);
    let log = Log::default();
    for _ in 0..2 {
        let scheduler = Scheduler::builder()
            .clock(time.clock())
            .store("default", SledStore::open(folder.path()).unwrap())
            .build()
            .unwrap();
        scheduler.add_lifecycle(pulse(&log)).await.unwrap();
        scheduler.start().await.unwrap();
        time.advance(secs(16)).await;
        scheduler.shutdown(Shutdown::wait(secs(1))).await.unwrap();
    }
    let first = ["set up", "tick 1 of 0", "tick 2 of 10", "clean up after 2", "dropped"];
    let second = ["set up", "tick 1 of 20", "tick 2 of 30", "clean up after 2", "dropped"];
    assert_eq!(log.take(), [first, second].concat());
}

#[actix::test]
async fn of_several_that_share_a_lock_all_set_up_and_clean_up_and_one_ticks() {
    let folder = tempfile::tempdir().unwrap();
    let time = VirtualClock::starting_at(START);
    let open = async |log: &Log| {
        let builder = Scheduler::builder().clock(time.clock()).startup_delay(Duration::ZERO);
        let lock = folder.path().join("{store}.lock").to_str().unwrap().to_owned();
        let scheduler = builder.lock_path(lock).build().unwrap();
        scheduler.add_lifecycle(pulse(log)).await.unwrap();
        scheduler.start().await.unwrap();
        time.settle().await;
        scheduler
    };
    let (first, second) = (Log::default(), Log::default());
    let holder = open(&first).await;
    time.advance(secs(5)).await;
    let waiting = open(&second).await;
    time.advance(secs(10)).await;
    assert_eq!(first.take(), ["set up", "tick 1 of 0", "tick 2 of 10"]);
    assert_eq!(second.take(), ["set up"]);

    // The other one takes over, and cleans up what it set up.
    holder.shutdown(Shutdown::now()).await.unwrap();
    assert_eq!(first.take(), ["clean up after 2", "dropped"]);
    time.advance(secs(21)).await;
    waiting.shutdown(Shutdown::now()).await.unwrap();
    let lines = second.take();
    assert!(lines.len() > 3 && lines[0].starts_with("tick 1 of "), "{lines:?}");
    assert_eq!(lines.last().unwrap(), "dropped");
}
