//! What every disk must bear: each of its methods fails or panics once, and nothing that was
//! acknowledged is lost. Run by the tests of each embedded store on its own disk.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, mpsc};

use futures::FutureExt;
use futures::channel::oneshot;

use super::tests::{begin, id, sample, system};
use super::*;
use crate::store::message::*;
use crate::store::{BackendSource, StoreAddr, StoreSource};
use crate::task::{OwnerId, RunId};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Open,
    Get,
    Scan,
    Apply,
    Sync,
    Close,
    Drop,
}

#[derive(Debug)]
enum Fault {
    /// An error instead of the work.
    Fail,
    /// An error after the work.
    Late,
    Panic,
    /// Tells that it has begun, and waits.
    Hang(mpsc::Sender<()>, mpsc::Receiver<()>),
}

/// What is to go wrong next, once each.
#[derive(Clone, Default, Debug)]
struct Plan(Arc<Mutex<VecDeque<(Method, Fault)>>>);

impl Plan {
    fn add(&self, method: Method, fault: Fault) {
        self.0.lock().unwrap().push_back((method, fault));
    }

    fn is_done(&self) -> bool {
        self.0.lock().unwrap().is_empty()
    }

    fn next(&self, method: Method) -> Option<Fault> {
        let mut plan = self.0.lock().unwrap();
        let index = plan.iter().position(|(at, _)| *at == method)?;
        plan.remove(index).map(|(_, fault)| fault)
    }

    fn call<T>(&self, method: Method, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        let failed = || StoreError::unavailable("it fails on purpose");
        match self.next(method) {
            None => work(),
            Some(Fault::Fail) => Err(failed()),
            Some(Fault::Late) => work().and(Err(failed())),
            Some(Fault::Panic) => panic!("it panics on purpose"),
            Some(Fault::Hang(begun, go_on)) => {
                begun.send(()).ok();
                go_on.recv().ok();
                work()
            }
        }
    }
}

#[derive(Clone, Debug)]
struct Shaky<P> {
    place: P,
    plan: Plan,
}

struct ShakyDisk<D> {
    disk: Option<D>,
    plan: Plan,
}

impl<P: Place> Place for Shaky<P> {
    type Disk = ShakyDisk<P::Disk>;

    fn path(&self) -> &Path {
        self.place.path()
    }

    fn open(&self) -> Result<Self::Disk, StoreError> {
        let disk = self.plan.call(Method::Open, || self.place.open())?;
        Ok(ShakyDisk { disk: Some(disk), plan: self.plan.clone() })
    }

    fn reopen(&self, identity: Uuid) -> Result<Self::Disk, StoreError> {
        let disk = self.plan.call(Method::Open, || self.place.reopen(identity))?;
        Ok(ShakyDisk { disk: Some(disk), plan: self.plan.clone() })
    }
}

impl<D: Disk> Disk for ShakyDisk<D> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.plan.call(Method::Get, || self.disk.as_ref().unwrap().get(key))
    }

    fn scan(&self, prefix: &[u8], order: Order, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.plan.call(Method::Scan, || self.disk.as_ref().unwrap().scan(prefix, order, visit))
    }

    fn scan_beyond(
        &self,
        prefix: &[u8],
        past: &[u8],
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        self.plan.call(Method::Scan, || self.disk.as_ref().unwrap().scan_beyond(prefix, past, order, visit))
    }

    fn apply(&mut self, changes: Changes) -> Result<(), StoreError> {
        self.plan.call(Method::Apply, || self.disk.as_mut().unwrap().apply(changes))
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.plan.call(Method::Sync, || self.disk.as_mut().unwrap().sync())
    }

    fn set_identity(&mut self, identity: Uuid) -> Result<(), StoreError> {
        self.disk.as_mut().unwrap().set_identity(identity)
    }

    fn check_place(&self) -> Result<(), StoreError> {
        self.disk.as_ref().unwrap().check_place()
    }

    fn check_identity(&self) -> Result<(), StoreError> {
        self.disk.as_ref().unwrap().check_identity()
    }

    fn untidy(&self) -> Option<Duration> {
        self.disk.as_ref().unwrap().untidy()
    }

    fn tidy(&mut self) -> Result<(), StoreError> {
        self.disk.as_mut().unwrap().tidy()
    }

    fn close(mut self) -> Result<(), StoreError> {
        let disk = self.disk.take().unwrap();
        self.plan.call(Method::Close, || disk.close())
    }
}

impl<D> Drop for ShakyDisk<D> {
    fn drop(&mut self) {
        // The real one lets go of its files, whatever this one does.
        self.disk = None;
        assert!(self.plan.next(Method::Drop).is_none(), "it panics in its drop on purpose");
    }
}

/// One store at a place that is shaken.
struct House<P: Place> {
    source: BackendSource<Engine<Shaky<P>>>,
    plan: Plan,
    store: StoreAddr,
    ended: oneshot::Receiver<()>,
}

impl<P: Place> House<P> {
    fn new(place: P, durability: Durability) -> Self {
        let plan = Plan::default();
        let (place, rules) = (Shaky { place, plan: plan.clone() }, Rules { durability, ..Rules::default() });
        let mut source = BackendSource::new(move || Engine::new(place.clone(), rules.clone()));
        let (keep, ended) = oneshot::channel::<()>();
        let store = source.start(Box::new(keep));
        Self { source, plan, store, ended }
    }

    /// The actor dies and another takes its place.
    async fn again(self) -> Self {
        let Self { mut source, plan, store, ended } = self;
        drop(store);
        ended.await.unwrap_err();
        let (keep, ended) = oneshot::channel::<()>();
        let store = source.start(Box::new(keep));
        Self { source, plan, store, ended }
    }

    async fn open(&self) -> Result<Opened, StoreError> {
        self.store.open(Open { owner: OwnerId(1), now: begin() }).await
    }

    fn put(&self, id: &str) -> impl Future<Output = Result<(), StoreError>> + use<P> {
        self.store.put(Put { task: sample(id), expect: Expect::Absent })
    }

    async fn ids(&self) -> BTreeSet<String> {
        let tasks = self.store.list(List).await.unwrap();
        tasks.iter().map(|task| task.spec.id.to_string()).collect()
    }

    async fn runs(&self) -> Result<(), StoreError> {
        self.store.runs(Runs { id: id("before"), limit: 9 }).await.map(drop)
    }

    /// No question is answered and no change is taken.
    async fn is_down(&self) {
        let (now, limit) = (begin(), 9);
        let run = RunId { owner: OwnerId(1), serial: 1 };
        let end = crate::task::RunEnd::unstarted(crate::task::Outcome::Cancelled, begin());
        let answers = [
            self.put("later").await.err(),
            self.runs().await.err(),
            self.store.get(Get { id: id("before") }).await.err(),
            self.store.list(List).await.err(),
            self.store.delete(Delete { id: id("before"), revision: None }).await.err(),
            self.store.take_due(TakeDue { now, limit }).await.err(),
            self.store.next_due(NextDue).await.err(),
            self.store.commit(Commit { changes: vec![] }).await.err(),
            self.store.finish(Finish { ends: vec![(run, id("before"), end)] }).await.err(),
            self.store.remove_all(RemoveAll).await.err(),
        ];
        for (index, answer) in answers.into_iter().enumerate() {
            let error = answer.unwrap_or_else(|| panic!("answer {index} is no error"));
            assert!(error.is_retryable() && error.to_string().contains("on purpose"), "{index}: {error}");
        }
    }
}

fn simple_faults() -> [Fault; 3] {
    [Fault::Fail, Fault::Late, Fault::Panic]
}

/// A disk at `place`, which is empty, survives everything.
pub(in crate::store) fn suite<P: Place>(place: impl Fn(&Path) -> P) {
    let base = tempfile::tempdir().unwrap();
    let place = |name: &str| place(&base.path().join(name));
    system(async {
        changes_and_questions(place("changes")).await;
        openings(place("openings")).await;
        closings(place("closings")).await;
        ends(place("ends")).await;
        hanging(place("hanging")).await;
        rivals(place("rivals")).await;
        relaxed(place("relaxed")).await;
    });
}

async fn changes_and_questions<P: Place>(place: P) {
    let mut house = House::new(place, Durability::Fsync);
    house.open().await.unwrap();
    house.put("before").await.unwrap();
    let mut there = BTreeSet::from(["before".to_owned()]);
    for (number, method) in [Method::Apply, Method::Sync, Method::Scan].into_iter().enumerate() {
        for (kind, fault) in simple_faults().into_iter().enumerate() {
            let what = format!("{method:?} {fault:?}");
            let name = format!("{number} {kind}");
            house.plan.add(method, fault);
            let failed = if method == Method::Scan { house.runs().await } else { house.put(&name).await };
            let error = failed.unwrap_err();
            assert!(error.to_string().contains("on purpose"), "{what}: {error}");
            assert!(house.plan.is_done(), "{what}");
            house.is_down().await;
            house.open().await.unwrap();
            // What failed may have happened.
            let mut found = house.ids().await;
            if found.contains(&name) {
                there.insert(name);
            }
            assert_eq!(found, there, "{what}");
            let after = format!("after {number} {kind}");
            house.put(&after).await.unwrap();
            there.insert(after);
            house = house.again().await;
            house.open().await.unwrap();
            found = house.ids().await;
            assert_eq!(found, there, "{what}");
        }
    }
}

async fn openings<P: Place>(place: P) {
    let mut house = House::new(place, Durability::Fsync);
    house.plan.add(Method::Apply, Fault::Fail);
    assert!(house.open().await.unwrap_err().is_retryable(), "while it is made");
    house.open().await.unwrap();
    house.put("before").await.unwrap();
    for method in [Method::Open, Method::Get, Method::Scan] {
        for fault in simple_faults() {
            let what = format!("{method:?} {fault:?}");
            house = house.again().await;
            house.plan.add(method, fault);
            let error = house.open().await.unwrap_err();
            assert!(error.is_retryable() && error.to_string().contains("on purpose"), "{what}: {error}");
            house.store.list(List).await.unwrap_err();
            house.open().await.unwrap();
            assert_eq!(house.ids().await.len(), 1, "{what}");
        }
    }
    // Opened again while it works, and that fails. A scan may be one of the upkeep, which nobody asked for.
    for fault in simple_faults() {
        house.plan.add(Method::Get, fault);
        house.open().await.unwrap_err();
        assert!(house.put("later").await.unwrap_err().is_retryable());
        house.open().await.unwrap();
        assert_eq!(house.ids().await.len(), 1);
    }
}

async fn closings<P: Place>(place: P) {
    let mut house = House::new(place, Durability::Fsync);
    for (index, fault) in simple_faults().into_iter().enumerate() {
        house.open().await.unwrap();
        assert_eq!(house.ids().await.len(), index);
        house.put(&index.to_string()).await.unwrap();
        house.plan.add(Method::Close, fault);
        let error = house.store.close(Close).await.unwrap_err();
        assert!(error.to_string().contains("on purpose"), "{error}");
        house = house.again().await;
    }
}

/// The thread dies with its disk: of an error and then of a panic, and in its last moment.
async fn ends<P: Place>(place: P) {
    let mut house = House::new(place, Durability::Fsync);
    house.open().await.unwrap();
    house.put("before").await.unwrap();
    house.plan.add(Method::Sync, Fault::Fail);
    house.plan.add(Method::Drop, Fault::Panic);
    house.put("lost").await.unwrap_err();
    house.is_down().await;
    house.open().await.unwrap();
    house.plan.add(Method::Drop, Fault::Panic);
    house.put("after").await.unwrap();
    house = house.again().await;
    assert!(house.plan.is_done());
    house.open().await.unwrap();
    assert!(house.ids().await.is_superset(&["before".to_owned(), "after".to_owned()].into()));
    // While it is made, and what was made goes badly, too.
    house = house.again().await;
    house.plan.add(Method::Scan, Fault::Fail);
    house.plan.add(Method::Drop, Fault::Panic);
    house.open().await.unwrap_err();
    house.open().await.unwrap();
    assert!(house.ids().await.contains("after"));
}

async fn hanging<P: Place>(place: P) {
    let mut house = House::new(place, Durability::Fsync);
    house.open().await.unwrap();
    house.put("before").await.unwrap();
    let hang = |house: &House<P>| {
        let ((tell, begun), (go_on, wait)) = (mpsc::channel(), mpsc::channel());
        house.plan.add(Method::Sync, Fault::Hang(tell, wait));
        (begun, go_on)
    };
    let (begun, go_on) = hang(&house);
    let mut put = Box::pin(house.put("a"));
    assert!((&mut put).now_or_never().is_none());
    begun.recv().unwrap();
    let now = begin();
    let due = house.store.take_due(TakeDue { now, limit: 9 }).await.unwrap();
    assert_eq!(due.tasks.len(), 2, "it answers meanwhile");
    let mut opened = Box::pin(house.open());
    assert!((&mut opened).now_or_never().is_none());
    drop(go_on);
    put.await.unwrap();
    opened.await.unwrap();
    // Whoever asked has gone; the change was taken all the same. And so has the actor: its end is told
    // when the files are free, not before.
    let (begun, go_on) = hang(&house);
    let mut put = Box::pin(house.put("b"));
    assert!((&mut put).now_or_never().is_none());
    begun.recv().unwrap();
    drop(put);
    let mut again = Box::pin(house.again());
    assert!((&mut again).now_or_never().is_none());
    drop(go_on);
    house = again.await;
    house.open().await.unwrap();
    assert_eq!(house.ids().await, ["a", "b", "before"].map(str::to_owned).into());
}

/// A store that is down has let go of its files. Should somebody take them meanwhile, it stays down.
async fn rivals<P: Place>(place: P) {
    let house = House::new(place.clone(), Durability::Fsync);
    house.open().await.unwrap();
    house.put("before").await.unwrap();
    let rival = House::new(place, Durability::Fsync);
    let error = rival.open().await.unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }) && error.is_retryable(), "{error}");
    house.plan.add(Method::Sync, Fault::Panic);
    house.put("lost").await.unwrap_err();
    rival.open().await.unwrap();
    rival.put("theirs").await.unwrap();
    assert!(matches!(house.open().await.unwrap_err(), StoreError::InUse { .. }));
    house.put("ours").await.unwrap_err();
    rival.store.close(Close).await.unwrap();
    house.open().await.unwrap();
    let found = house.ids().await;
    assert!(found.contains("theirs") && found.contains("before") && !found.contains("ours"), "{found:?}");
}

/// Nobody waits for the device, and it is written to all the same: in time, and at the end.
async fn relaxed<P: Place>(place: P) {
    let mut house = House::new(place, Durability::Interval(Duration::from_millis(20)));
    house.open().await.unwrap();
    let (tell, begun) = mpsc::channel();
    let (go_on, wait) = mpsc::channel();
    house.plan.add(Method::Sync, Fault::Hang(tell, wait));
    house.put("a").await.unwrap();
    begun.recv().unwrap();
    drop(go_on);
    // A failure that nobody waited for is told to the next who asks.
    let (tell, begun) = mpsc::channel();
    house.plan.add(Method::Sync, Fault::Panic);
    house.plan.add(Method::Sync, Fault::Hang(tell, mpsc::channel().1));
    house.put("b").await.unwrap();
    while house.store.next_due(NextDue).await.is_ok() {
        std::thread::sleep(Duration::from_millis(1));
    }
    house.is_down().await;
    house.open().await.unwrap();
    assert!(house.ids().await.contains("a"), "it was on the device");
    house.put("c").await.unwrap();
    begun.recv().unwrap();
    house.put("d").await.unwrap();
    house = house.again().await;
    house.open().await.unwrap();
    assert!(house.ids().await.is_superset(&["a", "c", "d"].map(str::to_owned).into()));
}
