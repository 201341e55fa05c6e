//! A disk that fails when nobody looks, hangs, or is damaged.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::clock::Clock;
use crate::event::{Event, EventMask, EventStream};
use crate::scheduler::{Builder, Handle, Scheduler, Shutdown};
use crate::store::{Backend, Reply};
use crate::task::TaskContext;

/// A place whose opening hangs until the sender is gone, the first time.
#[derive(Clone)]
struct Hanging(Device, Arc<Mutex<Option<mpsc::Receiver<()>>>>);

impl std::fmt::Debug for Hanging {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hanging")
    }
}

impl Place for Hanging {
    type Disk = Device;

    fn path(&self) -> &std::path::Path {
        self.0.path()
    }

    fn open(&self) -> Result<Device, StoreError> {
        let hangs = self.1.lock().unwrap().take();
        if let Some(hangs) = hangs {
            hangs.recv().unwrap_err();
        }
        self.0.open()
    }
}

#[test]
fn an_opening_that_hangs_is_left_behind_and_tried_again() {
    system(async {
        let (word, hangs) = mpsc::channel();
        let place = Hanging(Device::default(), Arc::new(Mutex::new(Some(hangs))));
        let rules = Rules { open_limit: Duration::from_millis(20), ..Rules::default() };
        let mut source = BackendSource::new(move || Engine::new(place.clone(), rules.clone()));
        let store = source.start(Box::new(()));
        let request = Open { owner: OwnerId(1), now: begin() };
        let error = store.open(request.clone()).await.unwrap_err();
        assert!(error.is_retryable() && error.to_string().contains("`open_limit`"), "{error}");
        store.open(request).await.unwrap();
        put(&store, "a").await.unwrap();
        drop(word);
        assert_eq!(store.list(List).await.unwrap().len(), 1);
    });
}

/// It failed after the change was looked at and before it was refused: what it was refused for may
/// never have been stored.
#[test]
fn a_refusal_is_not_told_by_a_store_that_has_failed_since() {
    system(async {
        let device = Device::default();
        let mut engine = Engine::new(device.clone(), Rules::default());
        let Reply::Now(Ok(_)) = engine.open(Open { owner: OwnerId(1), now: begin() }) else {
            panic!("there is nothing to write")
        };
        let gate = device.gate();
        let Reply::Later(put) = engine.put(Put { task: sample("a"), expect: Expect::Absent }) else {
            panic!("it is not durable yet")
        };
        gate.begun.recv().unwrap();
        gate.word.send(Err("the cable was pulled".to_owned())).unwrap();
        put.await.unwrap_err();
        let mut settled = |refusal| match engine.settled::<()>(Err(refusal)) {
            Reply::Now(Err(error)) => error,
            _ => panic!("it is down"),
        };
        let error = settled(StoreError::Exists(id("a")));
        assert!(error.is_retryable() && error.to_string().contains("cable"), "{error}");
        let error = settled(StoreError::TooLarge { id: id("b"), size: 2, limit: 1 });
        assert!(matches!(error, StoreError::TooLarge { .. }), "it is so in any store: {error}");
    });
}

/// A scheduler with one store on a device, that syncs for nobody, and the news of its trouble.
async fn watched(device: &Device, set: impl FnOnce(Builder) -> Builder) -> (Handle, EventStream) {
    let rules = Rules { durability: Durability::Interval(Duration::ZERO), ..Rules::default() };
    let place = device.clone();
    let source = BackendSource::new(move || Engine::new(place.clone(), rules.clone()));
    let registry = crate::task::Registry::new().register("handler", |_: TaskContext, ()| async {});
    let builder = Scheduler::builder().registry(registry).store("default", source);
    let scheduler = set(builder.store_retry(Duration::from_millis(10))).start().await.unwrap();
    let mask = EventMask::STORE_UNAVAILABLE | EventMask::STORE_RECOVERED;
    let events = scheduler.events(mask).await.unwrap();
    // By which rules its tasks are planned is written once it works; what the tests hold up comes after that.
    while !device.with(|inner| inner.synced.contains_key(keys::RULES)) {
        tokio::task::yield_now().await;
    }
    (scheduler, events)
}

/// A task is acknowledged, and then the device fails.
async fn lose(device: &Device, scheduler: &Handle) {
    let gate = device.gate();
    let later = crate::trigger::Date::at(Clock::system().now() + TimeDelta::days(1));
    scheduler.add(Task::new("handler").id("a").trigger(later)).await.unwrap();
    gate.begun.recv().unwrap();
    gate.word.send(Err("the cable was pulled".to_owned())).unwrap();
}

async fn next(events: &mut EventStream) -> Event {
    let told = futures::StreamExt::next(events);
    tokio::time::timeout(Duration::from_secs(30), told).await.unwrap().unwrap()
}

/// What was acknowledged is lost: that is told at once, and not when somebody asks for it.
#[test]
fn a_failure_that_nobody_waited_for_is_told_and_mended() {
    system(async {
        let device = Device::default();
        let (scheduler, mut events) = watched(&device, |builder| builder).await;
        lose(&device, &scheduler).await;
        let told = next(&mut events).await;
        let Event::StoreUnavailable { cause, .. } = &told else { panic!("{told:?}") };
        assert!(cause.contains("cable"), "{cause}");
        let told = next(&mut events).await;
        assert!(matches!(told, Event::StoreRecovered { .. }), "{told:?}");
        scheduler.shutdown(Shutdown::now()).await.unwrap();
    });
}

/// Each try reads everything anew.
#[test]
fn a_store_that_takes_longer_to_open_than_it_may_is_given_more_time() {
    system(async {
        let device = Device::default();
        let (scheduler, mut events) =
            watched(&device, |builder| builder.store_deadline(Duration::from_millis(150))).await;
        device.with(|inner| inner.slow = Duration::from_millis(60));
        lose(&device, &scheduler).await;
        let told = next(&mut events).await;
        assert!(matches!(told, Event::StoreUnavailable { .. }), "{told:?}");
        let told = next(&mut events).await;
        assert!(matches!(told, Event::StoreRecovered { .. }), "{told:?}");
        scheduler.shutdown(Shutdown::now()).await.unwrap();
    });
}

/// A directory whose data is damaged, and a device that has no room for a fresh one at first.
#[derive(Clone, Debug)]
struct Damaged {
    path: PathBuf,
    device: Device,
    errors: Arc<Mutex<Vec<StoreError>>>,
}

impl Place for Damaged {
    type Disk = Device;

    fn path(&self) -> &Path {
        &self.path
    }

    fn open(&self) -> Result<Device, StoreError> {
        let error = self.errors.lock().unwrap().pop();
        error.map_or_else(|| self.device.open(), Err)
    }
}

#[test]
fn what_was_set_aside_is_told_although_the_fresh_store_did_not_open_at_once() {
    system(async {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("store");
        std::fs::create_dir(&path).unwrap();
        // As people write it.
        let path = PathBuf::from(format!("{}/", path.display()));
        let errors = vec![StoreError::unavailable("there is no room"), unreadable(&path, "it is torn")];
        let place = Damaged { path, device: Device::default(), errors: Arc::new(Mutex::new(errors)) };
        let rules = Rules { set_aside: true, ..Rules::default() };
        let mut source = BackendSource::new(move || Engine::new(place.clone(), rules.clone()));
        let store = source.start(Box::new(()));
        let request = Open { owner: OwnerId(1), now: begin() };
        let error = store.open(request.clone()).await.unwrap_err();
        assert!(error.to_string().contains("no room"), "{error}");
        let aside = open(&store).await.set_aside.unwrap();
        let begin = base.path().join("store.damaged-2").display().to_string();
        assert!(aside.place.starts_with(&begin) && Path::new(&aside.place).is_dir(), "{aside:?}");
        assert!(aside.reason.contains("torn"), "{aside:?}");
        assert_eq!(open(&store).await.set_aside, None, "once");
    });
}

/// A place whose every opening hangs until the sender is gone.
#[derive(Clone, Debug)]
struct Stuck {
    device: Device,
    begun: Arc<AtomicUsize>,
    word: Arc<Mutex<mpsc::Receiver<()>>>,
}

impl Place for Stuck {
    type Disk = Device;

    fn path(&self) -> &Path {
        self.device.path()
    }

    fn open(&self) -> Result<Device, StoreError> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.word.lock().unwrap().recv().unwrap_err();
        self.device.open()
    }
}

#[test]
fn threads_that_hang_do_not_become_ever_more() {
    system(async {
        let (word, hear) = mpsc::channel();
        let begun = Arc::new(AtomicUsize::new(0));
        let place =
            Stuck { device: Device::default(), begun: begun.clone(), word: Arc::new(Mutex::new(hear)) };
        let rules = Rules { open_limit: Duration::from_millis(5), ..Rules::default() };
        let mut source = BackendSource::new(move || Engine::new(place.clone(), rules.clone()));
        let store = source.start(Box::new(()));
        let request = Open { owner: OwnerId(1), now: begin() };
        for _ in 0..20 {
            assert!(store.open(request.clone()).await.unwrap_err().is_retryable());
        }
        assert!((1..=4).contains(&begun.load(Ordering::Relaxed)), "{begun:?}");
        drop(word);
        while store.open(request.clone()).await.is_err() {}
        put(&store, "a").await.unwrap();
    });
}
