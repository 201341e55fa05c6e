//! Futures under ids. Time is virtual throughout.

use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::prelude::*;
use callboard::clock::Clock;
use callboard::keyed::message::{Cancel, Schedule};
use callboard::keyed::{KeyedError, KeyedScheduler, SpawnError, Spawner, spawn};
use callboard::testing::VirtualClock;
use callboard::timer::sleep;
use chrono::{DateTime, NaiveDate, TimeZone, Utc};
use futures::FutureExt;
use futures::future::BoxFuture;
use proptest::prelude::*;

const S: Duration = Duration::from_secs(1);

struct Stage {
    time: VirtualClock,
    clock: Clock,
    keyed: KeyedScheduler<&'static str>,
    said: Said,
}

/// What the futures have said, and when, in seconds from the start.
#[derive(Clone)]
struct Said(Arc<Mutex<Vec<(i64, String)>>>, Clock, DateTime<Utc>);

impl Said {
    fn new(clock: &Clock) -> Self {
        Self(Arc::default(), clock.clone(), clock.now())
    }

    fn say(&self, word: impl Into<String>) {
        let at = (self.1.now() - self.2).num_seconds();
        self.0.lock().unwrap().push((at, word.into()));
    }

    fn take(&self) -> Vec<(i64, String)> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    fn expect(&self, expected: &[(i64, &str)]) {
        let said = self.take();
        let said: Vec<_> = said.iter().map(|(at, word)| (*at, word.as_str())).collect();
        assert_eq!(said, expected);
    }
}

/// Says its word when it is dropped.
struct Last(Said, &'static str);

impl Drop for Last {
    fn drop(&mut self) {
        self.0.say(self.1);
    }
}

impl Stage {
    fn new() -> Self {
        let time = VirtualClock::starting_at("2026-07-01T12:00:00Z");
        let clock = time.clock();
        let keyed = KeyedScheduler::start("stage", clock.clone()).unwrap();
        Self { said: Said::new(&clock), time, clock, keyed }
    }

    /// Says `word` at once and its end after `secs`.
    fn act(&self, word: &'static str, secs: u32) -> impl Future<Output = ()> + Send + use<> {
        let (said, clock) = (self.said.clone(), self.clock.clone());
        async move {
            said.say(word);
            if secs > 0 {
                drop(sleep(&clock, S * secs).await);
                said.say(format!("{word}, done"));
            }
        }
    }
}

fn fail(number: u8) {
    panic!("number {number}");
}

/// The log of this thread while it lives.
struct Log(Arc<Mutex<Vec<u8>>>, #[expect(dead_code)] tracing::subscriber::DefaultGuard);

impl Log {
    fn keep() -> Self {
        #[derive(Clone, Default)]
        struct Pen(Arc<Mutex<Vec<u8>>>);
        impl io::Write for Pen {
            fn write(&mut self, text: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().write(text)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let pen = Pen::default();
        let text = pen.0.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .without_time()
            .with_writer(move || pen.clone())
            .finish();
        Self(text, tracing::subscriber::set_default(subscriber))
    }

    /// The lines of callboard since the last call, without the module.
    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap();
        let lines = text.lines().filter(|line| line.contains("callboard::keyed"));
        lines
            .map(|line| {
                let (level, rest) = line.trim().split_once(' ').unwrap();
                format!("{level} {}", rest.split_once(": ").unwrap().1)
            })
            .collect()
    }
}

#[actix::test]
async fn now_at_and_later() {
    let stage = Stage::new();
    let keyed = &stage.keyed;
    let naive = NaiveDate::from_ymd_opt(2026, 7, 1).unwrap().and_hms_opt(12, 0, 3).unwrap();
    let kolkata = chrono_tz::Asia::Kolkata.with_ymd_and_hms(2026, 7, 1, 17, 30, 4).unwrap();
    let utc = stage.clock.now() + S * 5;
    let past = chrono_tz::America::New_York.with_ymd_and_hms(2026, 7, 1, 7, 59, 59).unwrap();
    assert!(keyed.schedule_at(utc, "utc", stage.act("utc", 0)).await.unwrap());
    assert!(keyed.schedule_at(kolkata, "zone", stage.act("zone", 0)).await.unwrap());
    assert!(keyed.schedule_at(naive, "naive", stage.act("naive", 0)).await.unwrap());
    assert!(keyed.schedule_at(utc.fixed_offset(), "fixed", stage.act("fixed", 0)).await.unwrap());
    assert!(keyed.schedule_later(S * 2, "later", stage.act("later", 0)).await.unwrap());
    assert!(keyed.schedule_later(Duration::MAX, "never", stage.act("never", 0)).await.unwrap());
    assert_eq!(keyed.count().await.unwrap(), 6);
    stage.said.expect(&[]);
    assert!(keyed.schedule("now", stage.act("now", 0)).await.unwrap());
    assert!(keyed.schedule_at(past, "past", stage.act("past", 0)).await.unwrap());
    assert!(keyed.schedule_at(stage.clock.now(), "this", stage.act("this", 0)).await.unwrap());
    assert!(keyed.schedule_later(Duration::ZERO, "zero", stage.act("zero", 0)).await.unwrap());
    stage.time.settle().await;
    stage.said.expect(&[(0, "now"), (0, "past"), (0, "this"), (0, "zero")]);
    stage.time.advance(Duration::from_secs(400 * 86_400)).await;
    stage.said.expect(&[(2, "later"), (3, "naive"), (4, "zone"), (5, "utc"), (5, "fixed")]);
    assert_eq!(keyed.count().await.unwrap(), 1);
    assert!(keyed.contains("never").await.unwrap());
    assert_eq!(keyed.name(), "stage");
}

#[actix::test]
async fn a_second_future_under_a_live_id_is_dropped_unrun() {
    let (stage, log) = (Stage::new(), Log::keep());
    let keyed = &stage.keyed;
    assert!(keyed.schedule_later(S, "a", stage.act("first", 2)).await.unwrap());
    for (at, what) in [(0, "waits"), (2, "runs")] {
        let last = Last(stage.said.clone(), "dropped");
        let said = stage.said.clone();
        let second = async move {
            said.say("second");
            drop(last);
        };
        assert!(!keyed.schedule("a", second).await.unwrap(), "{what}");
        assert_eq!(stage.said.take().last().unwrap(), &(at, "dropped".to_owned()));
        assert_eq!(
            log.lines(),
            ["DEBUG the id is live; the second future is dropped scheduler=stage id=\"a\""]
        );
        stage.time.advance(S * 2).await;
    }
    stage.said.expect(&[(3, "first, done")]);
    assert!(!keyed.contains("a").await.unwrap());
    assert!(keyed.schedule("a", stage.act("third", 0)).await.unwrap());
    stage.time.settle().await;
    stage.said.expect(&[(4, "third")]);
}

#[actix::test]
async fn cancelling_drops_the_future_wherever_it_stands() {
    let (stage, log) = (Stage::new(), Log::keep());
    let keyed = &stage.keyed;
    for (advance, words) in [(0, vec![(0, "gone")]), (2, vec![(1, "runs"), (2, "gone")])] {
        let last = Last(stage.said.clone(), "gone");
        let act = stage.act("runs", 100);
        let future = async move {
            act.await;
            drop(last);
        };
        keyed.schedule_later(S, "a", future).await.unwrap();
        stage.time.advance(S * advance).await;
        assert!(keyed.cancel("a").await.unwrap());
        stage.said.expect(&words);
        assert!(!keyed.contains("a").await.unwrap());
    }
    assert!(log.lines().is_empty());
    assert!(!keyed.cancel("a").await.unwrap());
    assert_eq!(
        log.lines(),
        ["WARN nothing is scheduled under this id; nothing was cancelled scheduler=stage id=\"a\""]
    );
    keyed.schedule("a", stage.act("a", 9)).await.unwrap();
    keyed.schedule_later(S * 5, "b", stage.act("b", 9)).await.unwrap();
    stage.time.advance(S).await;
    assert_eq!(keyed.cancel_all().await.unwrap(), 2);
    assert_eq!(keyed.cancel_all().await.unwrap(), 0);
    assert_eq!(keyed.count().await.unwrap(), 0);
    stage.time.advance(S * 100).await;
    stage.said.expect(&[(2, "a")]);
    assert!(log.lines().is_empty());
}

#[actix::test]
async fn a_future_that_cancels_itself_goes_on_and_leaves_its_successor_alone() {
    for (delay, all) in [(0, false), (1, false), (0, true), (1, true)] {
        let stage = Stage::new();
        let (own, said, rest) = (stage.keyed.clone(), stage.said.clone(), stage.act("rest", 2));
        let next = stage.act("next", 10);
        let first = async move {
            match all {
                false => assert!(own.cancel("a").await.unwrap()),
                true => assert_eq!(own.cancel_all().await.unwrap(), 2),
            }
            assert!(!own.contains("a").await.unwrap());
            assert!(own.schedule_later(S, "a", next).await.unwrap());
            rest.await;
            said.say("end");
            Ok::<(), KeyedError>(())
        };
        stage.keyed.schedule_later(S * 9, "other", stage.act("other", 0)).await.unwrap();
        stage.keyed.schedule_later(S * delay, "a", first).await.unwrap();
        let from = i64::from(delay);
        stage.time.advance(S * (delay + 4)).await;
        stage.said.expect(&[(from, "rest"), (from + 1, "next"), (from + 2, "rest, done"), (from + 2, "end")]);
        assert!(stage.keyed.contains("a").await.unwrap());
        assert_eq!(stage.keyed.contains("other").await.unwrap(), !all);
        // The successor is somebody else: it can be cut off.
        assert!(stage.keyed.cancel("a").await.unwrap());
        stage.time.advance(S * 60).await;
        assert_eq!(stage.said.take().len(), usize::from(!all));
    }
}

#[actix::test]
async fn only_its_own_code_spares_a_future() {
    let stage = Stage::new();
    let keyed = &stage.keyed;
    keyed.schedule("victim", stage.act("victim", 9)).await.unwrap();
    let (other, said) = (keyed.clone(), stage.said.clone());
    let culprit = async move {
        said.say(format!("cut: {}", other.cancel("victim").await.unwrap()));
        // What is called by the future's code is its own, whoever waits for it.
        actix_rt::spawn(other.cancel("culprit"));
        actix_rt::task::yield_now().await;
        said.say(format!("I live: {}", other.contains("culprit").await.unwrap()));
    };
    keyed.submit(Schedule::local("culprit", move || culprit)).await.unwrap();
    stage.time.advance(S * 20).await;
    stage.said.expect(&[(0, "victim"), (0, "cut: true"), (0, "I live: false")]);
    // Spawned code is not the future's own.
    let (own, act) = (keyed.clone(), stage.act("spawner", 9));
    let local = move || async move {
        actix_rt::spawn(async move { own.cancel("spawner").await });
        act.await;
    };
    keyed.submit(Schedule::local("spawner", local)).await.unwrap();
    stage.time.settle().await;
    actix_rt::task::yield_now().await;
    stage.time.advance(S * 20).await;
    stage.said.expect(&[(20, "spawner")]);
}

#[actix::test]
async fn errors_and_panics_are_logged_with_name_and_id_and_harm_nobody() {
    struct Bomb;
    fn throw() {
        std::panic::panic_any(Bomb);
    }
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("in the drop");
        }
    }
    let (stage, log) = (Stage::new(), Log::keep());
    let keyed = &stage.keyed;
    keyed.schedule_later(S, "bystander", stage.act("bystander", 3)).await.unwrap();
    let expect = async |id: &str, line: &str, tail: &str| {
        stage.time.settle().await;
        assert_eq!(log.lines(), [format!("ERROR {line} scheduler=stage id=\"{id}\" {tail}")], "{id}");
        assert_eq!(keyed.count().await.unwrap(), 1, "{id}");
    };
    keyed.schedule("error", async { Err::<u8, _>(io::Error::other("no luck")) }).await.unwrap();
    expect("error", "a keyed future failed", "error=no luck").await;
    keyed.schedule("text", async { Err::<(), _>("as text") }).await.unwrap();
    expect("text", "a keyed future failed", "error=as text").await;
    keyed.schedule("panic", async { fail(7) }).await.unwrap();
    expect("panic", "a keyed future panicked", "panic=number 7").await;
    let odd = async { throw() };
    keyed.schedule("odd", odd).await.unwrap();
    expect("odd", "a keyed future panicked", "panic=(a value that is not text)").await;
    let make = || -> std::future::Ready<()> { panic!("in the making") };
    keyed.submit(Schedule::local("make", make)).await.unwrap();
    expect("make", "a keyed future panicked", "panic=in the making").await;
    let bomb = || {
        let bomb = Bomb;
        async move {
            std::future::pending::<()>().await;
            drop(bomb);
        }
    };
    keyed.schedule("bomb", bomb()).await.unwrap();
    stage.time.settle().await;
    assert!(!keyed.schedule("bomb", bomb()).await.unwrap());
    assert_eq!(log.lines().len(), 2);
    assert!(keyed.cancel("bomb").await.unwrap());
    expect("bomb", "a keyed future panicked while it was cancelled", "panic=in the drop").await;
    // One that was set free by itself is still heard of.
    let own = keyed.clone();
    let free = async move {
        own.cancel("free").await?;
        Err::<(), Box<dyn std::error::Error + Send + Sync>>("too late".into())
    };
    keyed.schedule("free", free).await.unwrap();
    expect("free", "a keyed future failed", "error=too late").await;
    keyed.schedule("fine", async { Ok::<_, io::Error>(3) }).await.unwrap();
    stage.time.advance(S * 10).await;
    assert!(log.lines().is_empty());
    stage.said.expect(&[(1, "bystander"), (4, "bystander, done")]);
}

#[actix::test]
async fn a_clock_that_is_set_moves_times_and_leaves_delays() {
    let stage = Stage::new();
    let start = stage.clock.now();
    let keyed = &stage.keyed;
    let said = Arc::new(Mutex::new(Vec::new()));
    for (id, at) in [("delay", None), ("time", Some(start + S * 3600))] {
        let (said, clock) = (said.clone(), stage.clock.clone());
        let schedule = Schedule::new(id, async move { said.lock().unwrap().push((id, clock.monotonic())) });
        let schedule = match at {
            None => schedule.after(S * 3600),
            Some(at) => schedule.at(at),
        };
        keyed.submit(schedule).await.unwrap();
    }
    stage.time.advance(S * 10).await;
    stage.time.set(start - S * 7200).await;
    stage.time.advance(S * 10).await;
    stage.time.set(start + S * 7200).await;
    assert_eq!(*said.lock().unwrap(), [("time", S * 20)]);
    stage.time.advance(S * 3579).await;
    assert_eq!(said.lock().unwrap().len(), 1);
    stage.time.advance(S).await;
    assert_eq!(said.lock().unwrap()[1], ("delay", S * 3600));
}

/// What is set under a clock that is ahead for a while is met by the clock that is right.
#[actix::test]
async fn a_clock_that_was_ahead_moves_no_delay_and_no_time() {
    let stage = Stage::new();
    let start = stage.clock.now();
    let years = S * (10 * 365 * 86_400);
    let keyed = &stage.keyed;
    let said = Arc::new(Mutex::new(Vec::new()));
    let note = |id: &'static str| {
        let (said, clock) = (said.clone(), stage.clock.clone());
        Schedule::new(id, async move { said.lock().unwrap().push((id, clock.now())) })
    };
    keyed.submit(note("delay before").after(S * 3600)).await.unwrap();
    keyed.submit(note("time").at(start + years * 2)).await.unwrap();
    stage.time.advance(S * 10).await;
    stage.time.set(start + years).await;
    keyed.submit(note("delay ahead").after(S * 60)).await.unwrap();
    keyed.submit(note("time ahead").at(start + S * 1800)).await.unwrap();
    stage.time.settle().await;
    // By that clock it was past.
    assert_eq!(*said.lock().unwrap(), [("time ahead", start + years)]);
    stage.time.advance(S * 5).await;
    stage.time.set(start + S * 15).await;
    stage.time.advance(S * 7200).await;
    let told = said.lock().unwrap()[1..].to_vec();
    assert_eq!(told, [("delay ahead", start + S * 70), ("delay before", start + S * 3600)]);
    assert!(keyed.contains("time").await.unwrap());
    stage.time.set(start + years * 2).await;
    assert_eq!(said.lock().unwrap().len(), 4);
}

#[actix::test]
async fn futures_need_not_be_send_and_messages_need_no_handle() {
    let stage = Stage::new();
    let (said, clock) = (stage.said.clone(), stage.clock.clone());
    let make = move || async move {
        let word = Rc::new("local");
        drop(sleep(&clock, S).await);
        said.say(*word);
    };
    stage.keyed.addr().do_send(Schedule::local("local", make).after(S));
    stage.keyed.addr().do_send(Schedule::new("cut", stage.act("cut", 0)).after(S));
    assert!(stage.keyed.addr().send(Cancel::new("cut")).await.unwrap());
    stage.time.advance(S * 2).await;
    stage.said.expect(&[(2, "local")]);
}

#[actix::test]
async fn futures_outlive_the_handles() {
    let stage = Stage::new();
    let (wait, act) = (stage.act("wait", 1), stage.act("now", 5));
    let Stage { time, keyed, said, .. } = stage;
    let actor = keyed.addr().downgrade();
    keyed.schedule_later(S * 2, "wait", wait).await.unwrap();
    keyed.schedule("now", act).await.unwrap();
    drop(keyed);
    time.advance(S * 4).await;
    assert!(actor.upgrade().is_some());
    time.advance(S * 4).await;
    said.expect(&[(0, "now"), (2, "wait"), (3, "wait, done"), (5, "now, done")]);
    for _ in 0..10 {
        actix_rt::task::yield_now().await;
    }
    assert!(actor.upgrade().is_none(), "the actor ends with the last future");
}

#[actix::test]
async fn an_arbiter_that_ends_takes_its_futures_along() {
    let time = VirtualClock::starting_at("2026-07-01T12:00:00Z");
    let arbiter = Arbiter::new();
    let keyed = KeyedScheduler::<u32>::start_on(&arbiter.handle(), "away", time.clock()).unwrap();
    let said = Said::new(&time.clock());
    let (word, last) = (said.clone(), Last(said.clone(), "gone"));
    let future = async move {
        word.say("there");
        std::future::pending::<()>().await;
        drop(last);
    };
    keyed.schedule(1, future).await.unwrap();
    keyed.schedule_later(S, 2, async {}).await.unwrap();
    time.advance(S * 2).await;
    assert!(keyed.contains(1).await.unwrap() && !keyed.contains(2).await.unwrap());
    let handle = arbiter.handle();
    arbiter.stop();
    arbiter.join().unwrap();
    said.expect(&[(0, "there"), (2, "gone")]);
    assert_eq!(keyed.schedule(3, async {}).await, Err(KeyedError::Gone));
    assert_eq!(keyed.cancel_all().await, Err(KeyedError::Gone));
    assert!(matches!(
        KeyedScheduler::<u32>::start_on(&handle, "late", time.clock()),
        Err(KeyedError::NoArbiter)
    ));
    // The clock is not held up by what is gone.
    time.advance(S).await;
    let nowhere = std::thread::spawn(|| KeyedScheduler::<u32>::start("nowhere", Clock::system()).err());
    assert_eq!(nowhere.join().unwrap(), Some(KeyedError::NoArbiter));
}

#[actix::test]
async fn a_storm_of_cancels() {
    const MANY: u32 = 10_000;
    let time = VirtualClock::starting_at("2026-07-01T12:00:00Z");
    let keyed = KeyedScheduler::<u32>::start("storm", time.clock()).unwrap();
    let ran = Arc::new(AtomicUsize::new(0));
    let count = |ran: &Arc<AtomicUsize>| {
        let ran = ran.clone();
        async move {
            ran.fetch_add(1, Ordering::Relaxed);
        }
    };
    for id in 0..MANY {
        keyed.schedule_later(S, id, count(&ran)).await.unwrap();
    }
    // Two at once for each even id: one of them finds it.
    let cancels = (0..MANY).step_by(2).flat_map(|id| [keyed.cancel(id), keyed.cancel(id)]);
    let found = futures::future::join_all(cancels).await;
    assert_eq!(found.into_iter().filter(|found| *found == Ok(true)).count(), MANY as usize / 2);
    assert_eq!(keyed.count().await.unwrap(), MANY as usize / 2);
    time.advance(S).await;
    assert_eq!(ran.load(Ordering::Relaxed), MANY as usize / 2);
    assert_eq!(keyed.count().await.unwrap(), 0);
    // The same id over and over.
    for _ in 0..MANY {
        assert!(keyed.schedule_later(S, 0, count(&ran)).await.unwrap());
        assert!(keyed.cancel(0).await.unwrap());
    }
    time.advance(S).await;
    assert_eq!(ran.load(Ordering::Relaxed), MANY as usize / 2);
}

#[actix::test]
async fn spawned_futures_are_logged_but_for_what_is_expected() {
    let log = Log::keep();
    let name = "helper";
    assert_eq!(spawn(name, async { Ok::<_, io::Error>(5) }).await.unwrap(), 5);
    assert!(log.lines().is_empty());
    let lost = spawn(name, async { Err::<(), _>(io::Error::other("lost")) }).await;
    assert!(matches!(lost, Err(SpawnError::Failed(error)) if error.is::<io::Error>()));
    assert_eq!(log.lines(), ["ERROR a spawned future failed name=helper error=lost"]);
    let calm = Spawner::new(name)
        .suppress::<std::fmt::Error>()
        .suppress_if(|error: &io::Error| error.kind() == io::ErrorKind::NotFound);
    assert!(calm.spawn(async { Err::<(), _>(std::fmt::Error) }).await.is_err());
    assert!(calm.spawn(async { Err::<(), io::Error>(io::ErrorKind::NotFound.into()) }).await.is_err());
    let boxed: Box<dyn std::error::Error + Send + Sync> = Box::new(std::fmt::Error);
    assert!(calm.spawn(async { Err::<(), _>(boxed) }).await.is_err());
    assert!(log.lines().is_empty());
    assert!(calm.spawn(async { Err::<(), _>(io::Error::other("other")) }).await.is_err());
    assert_eq!(log.lines(), ["ERROR a spawned future failed name=helper error=other"]);
    let panicked = calm.spawn(async { fail(8) }).await;
    assert!(matches!(panicked, Err(SpawnError::Panicked(text)) if text == "number 8"));
    assert_eq!(log.lines(), ["ERROR a spawned future panicked name=helper panic=number 8"]);
    let endless = calm.spawn(std::future::pending::<()>());
    endless.cancel();
    assert!(matches!(endless.await, Err(SpawnError::Cancelled)));
    assert!(log.lines().is_empty());
}

#[actix::test]
async fn spawned_futures_run_on_the_arbiter_of_choice() {
    let arbiter = Arbiter::new();
    let here = std::thread::current().id();
    let there = Spawner::new("there").on(&arbiter.handle());
    let id = async { Ok::<_, io::Error>(std::thread::current().id()) };
    assert_ne!(there.spawn(id).await.unwrap(), here);
    let id = async { Ok::<_, io::Error>(std::thread::current().id()) };
    assert_eq!(spawn("here", id).await.unwrap(), here);
    let local = there.spawn_local(|| async { Ok::<_, io::Error>(*Rc::new(3)) });
    assert_eq!(local.await.unwrap(), 3);
    let cut = there.spawn(std::future::pending::<()>());
    arbiter.stop();
    arbiter.join().unwrap();
    assert!(matches!(cut.await, Err(SpawnError::Lost)));
    let log = Log::keep();
    assert!(matches!(there.spawn(async {}).await, Err(SpawnError::Lost)));
    assert_eq!(log.lines().len(), 1);
    // A virtual clock waits for what was spawned.
    let time = VirtualClock::starting_at("2026-07-01T12:00:00Z");
    let said = Said::new(&time.clock());
    let (word, clock) = (said.clone(), time.clock());
    let nap = async move {
        drop(sleep(&clock, S).await);
        word.say("a second");
        drop(sleep(&clock, S).await);
        word.say("two");
    };
    drop(Spawner::new("nap").clock(time.clock()).spawn(nap));
    time.advance(S * 9).await;
    said.expect(&[(1, "a second"), (2, "two")]);
}

/// What a random future does when its time has come.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Plain,
    Panics,
    /// Frees its id.
    Frees,
    /// Frees its id and schedules a plain one, two seconds later, under it.
    Succeeds,
}

#[derive(Debug, Clone)]
enum Step {
    Schedule { id: u8, delay: u64, lasts: u64, kind: Kind },
    Cancel(u8),
    CancelAll,
    Advance(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![
        3 => Just(Kind::Plain),
        1 => Just(Kind::Panics),
        2 => Just(Kind::Frees),
        2 => Just(Kind::Succeeds),
    ];
    prop_oneof![
        8 => (0..4u8, 0..4u64, 0..5u64, kind)
            .prop_map(|(id, delay, lasts, kind)| Step::Schedule { id, delay, lasts, kind }),
        3 => (0..4u8).prop_map(Step::Cancel),
        1 => Just(Step::CancelAll),
        5 => (0..4u64).prop_map(Step::Advance),
    ]
}

/// What should happen, in plain words.
#[derive(Default)]
struct Model {
    now: u64,
    live: BTreeMap<u8, u32>,
    /// Start or end of each future that has one ahead: (time, is an end, serial).
    ahead: Vec<(u64, bool, u32)>,
    acts: Vec<(u8, u64, Kind)>,
    said: Vec<(u64, bool, u32)>,
}

impl Model {
    fn schedule(&mut self, id: u8, at: u64, lasts: u64, kind: Kind) -> bool {
        if self.live.contains_key(&id) {
            return false;
        }
        self.live.insert(id, self.acts.len() as u32);
        self.ahead.push((at, false, self.acts.len() as u32));
        self.acts.push((id, lasts, kind));
        true
    }

    fn cancel(&mut self, id: u8) -> bool {
        let Some(serial) = self.live.remove(&id) else { return false };
        self.ahead.retain(|event| event.2 != serial);
        true
    }

    fn advance(&mut self, by: u64) {
        let to = self.now + by;
        while let Some(event) = self.ahead.iter().copied().filter(|event| event.0 <= to).min() {
            self.ahead.retain(|other| *other != event);
            self.said.push(event);
            let (at, end, serial) = event;
            let (id, lasts, kind) = self.acts[serial as usize];
            let own = self.live.get(&id) == Some(&serial);
            match (end, kind) {
                (false, Kind::Frees | Kind::Succeeds) => {
                    self.live.remove(&id);
                    self.ahead.push((at + lasts, true, serial));
                    if kind == Kind::Succeeds {
                        self.schedule(id, at + 2, 1, Kind::Plain);
                    }
                }
                (false, _) => self.ahead.push((at + lasts, true, serial)),
                (true, _) => drop(own.then(|| self.live.remove(&id))),
            }
        }
        self.now = to;
    }
}

#[derive(Clone)]
struct Actors {
    keyed: KeyedScheduler<u8>,
    clock: Clock,
    start: DateTime<Utc>,
    /// When, which id, whether it is the end.
    said: Arc<Mutex<Vec<(u64, u8, bool)>>>,
}

impl Actors {
    fn say(&self, id: u8, end: bool) {
        let at = (self.clock.now() - self.start).num_seconds() as u64;
        self.said.lock().unwrap().push((at, id, end));
    }

    /// Boxed, because it may schedule another of its kind.
    fn act(self, id: u8, lasts: u64, kind: Kind) -> BoxFuture<'static, ()> {
        async move {
            self.say(id, false);
            if matches!(kind, Kind::Frees | Kind::Succeeds) {
                assert_eq!(self.keyed.cancel(id).await, Ok(true));
            }
            if kind == Kind::Succeeds {
                let next = self.clone().act(id, 1, Kind::Plain);
                assert_eq!(self.keyed.schedule_later(S * 2, id, next).await, Ok(true));
            }
            drop(sleep(&self.clock, S * lasts as u32).await);
            self.say(id, true);
            assert!(kind != Kind::Panics, "on purpose");
        }
        .boxed()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_interleaving_does_what_the_model_does(steps in prop::collection::vec(step(), 1..60)) {
        actix_rt::System::new().block_on(async {
            let time = VirtualClock::starting_at("2026-07-01T12:00:00Z");
            let keyed = KeyedScheduler::<u8>::start("model", time.clock()).unwrap();
            let said = Arc::default();
            let actors = Actors { keyed: keyed.clone(), clock: time.clock(), start: time.clock().now(), said };
            let mut model = Model::default();
            for step in steps {
                match step {
                    Step::Schedule { id, delay, lasts, kind } => {
                        let taken = model.schedule(id, model.now + delay, lasts, kind);
                        let act = actors.clone().act(id, lasts, kind);
                        assert_eq!(keyed.schedule_later(S * delay as u32, id, act).await, Ok(taken));
                    }
                    Step::Cancel(id) => assert_eq!(keyed.cancel(id).await, Ok(model.cancel(id))),
                    Step::CancelAll => {
                        let ids: Vec<u8> = model.live.keys().copied().collect();
                        assert_eq!(keyed.cancel_all().await, Ok(ids.len()));
                        assert!(ids.into_iter().all(|id| model.cancel(id)));
                    }
                    Step::Advance(by) => {
                        time.advance(S * by as u32).await;
                        model.advance(by);
                    }
                }
                time.settle().await;
                model.advance(0);
                let mut expected: Vec<_> =
                    model.said.iter().map(|(at, end, act)| (*at, model.acts[*act as usize].0, *end)).collect();
                let mut said = actors.said.lock().unwrap().clone();
                expected.sort_unstable();
                said.sort_unstable();
                assert_eq!(said, expected);
                for id in 0..4 {
                    assert_eq!(keyed.contains(id).await, Ok(model.live.contains_key(&id)), "{id}");
                }
                assert_eq!(keyed.count().await, Ok(model.live.len()));
            }
        });
    }
}
