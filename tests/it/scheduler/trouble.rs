//! Stores in trouble while requests keep coming, and what is still owed to them.

use callboard::backoff::Backoff;
use callboard::scheduler::SchedulerState;
use callboard::scheduler::message::{Crash, RemoveAllTasks};
use callboard::store::message::*;
use callboard::store::{
    Backend, BackendSource, Capabilities, Faults, MemoryBackend, MemoryStore, Op, Reply, SledStore,
    StoreError,
};
use callboard::task::{Fate, OwnerId, Retry, RunId, RunRecord, Source, StoredTask};

use super::retry::{ends, second};
use super::*;

fn down() -> StoreError {
    StoreError::unavailable("the network is down")
}

async fn faulty_board(faults: &Faults, history: usize) -> (Handle, VirtualClock, Ran) {
    let store = BackendSource::keeping(faults.around(MemoryBackend::default().history(history)));
    board(move |b| b.store("default", store).store_retry(secs(1))).await
}

/// Until the faults that wait have befallen somebody.
async fn befallen(faults: &Faults) {
    while faults.left() > 0 {
        tokio::task::yield_now().await;
    }
}

/// Each instant at which it was told that a store is in trouble, and that it works again.
fn count(told: &[Event], mask: EventMask) -> usize {
    told.iter().filter(|event| event.mask() == mask).count()
}

/// Whoever asks a store that is down, and however often, does not keep it from being tried again.
#[actix::test]
async fn a_store_is_opened_again_also_when_requests_fail_all_the_time() {
    let faults = Faults::new();
    let (scheduler, time, ran) = faulty_board(&faults, 0).await;
    let mut events = scheduler.events(EventMask::STORE_RECOVERED).await.unwrap();
    scheduler.add(every(10).id("a")).await.unwrap();
    time.advance(secs(1)).await;
    for round in 0..100 {
        faults.fail(Op::Put, down());
        scheduler.pause_task("a").await.unwrap_err();
        time.advance(Duration::from_millis(300)).await;
        assert_eq!(faults.left(), 0, "{round}");
    }
    let recovered = heard(&mut events).len();
    assert!(recovered >= 10, "opened {recovered} times in 30 s");
    assert!(ran.count("a") >= 3, "{:?}", ran.of("a"));
}

/// A request finds that the store is down while a tick is under way that then ends well.
#[actix::test]
async fn what_a_store_owes_is_settled_also_when_a_tick_ends_well_meanwhile() {
    let faults = Faults::new();
    let (scheduler, time, ran) = faulty_board(&faults, 10).await;
    let mut events = scheduler.events(EventMask::ALL).await.unwrap();
    scheduler.add(every(1000).id("a").first_run(at(900_000))).await.unwrap();
    scheduler.add(every(1000).id("gone").first_run(at(900_000))).await.unwrap();
    scheduler.add(Task::new("note").id("b").trigger(Date::at(at(10)))).await.unwrap();
    time.advance(secs(5)).await;
    let tick = faults.hold(Op::TakeDue);
    let turn = time.advance(secs(5));
    let ask = async {
        befallen(&faults).await;
        faults.lose(Op::Commit, down());
        scheduler.run_task("a").await.unwrap_err();
        faults.lose(Op::Delete, down());
        scheduler.delete_task("gone").await.unwrap_err();
        drop(tick);
    };
    futures::join!(turn, ask);
    time.advance(secs(100)).await;
    let told = heard(&mut events);
    assert_eq!(ran.of("b"), [at(10)], "the tick ended well");
    assert_eq!((ends(&told, "a").len(), ran.count("a")), (1, 0), "{told:#?}");
    assert_eq!(ends(&told, "a")[0].2, "interrupted");
    let gone = |event: &&Event| matches!(event, Event::TaskRemoved { id, .. } if id.as_str() == "gone");
    assert_eq!(told.iter().filter(gone).count(), 1, "{told:#?}");
    assert_eq!(scheduler.status().await.unwrap().running, 0);
    let unavailable = count(&told, EventMask::STORE_UNAVAILABLE);
    assert_eq!((unavailable, count(&told, EventMask::STORE_RECOVERED)), (1, 1), "{told:#?}");
}

/// The same for the end of a run, which is to be tried again.
#[actix::test]
async fn an_end_that_a_store_owes_is_written_also_when_a_tick_ends_well_meanwhile() {
    let faults = Faults::new();
    let (scheduler, time, _) = faulty_board(&faults, 10).await;
    let mut events = scheduler.events(EventMask::ALL).await.unwrap();
    let fails = Task::new("flaky").args(2).id("fails").trigger(Date::at(at(10)));
    scheduler.add(fails.retry(Retry::times(1).backoff(Backoff::fixed(secs(3))))).await.unwrap();
    scheduler
        .add(Task::new("nap").args(5).id("plain").trigger(Interval::seconds(1000)).first_run(at(5)))
        .await
        .unwrap();
    // Due in the moment in which the two end.
    scheduler.add(Task::new("note").id("b").trigger(Date::at(at(10)))).await.unwrap();
    time.advance(secs(9)).await;
    // The tick that submits `fails` is the first of two: the second finds nothing and ends well.
    faults.fail(Op::Get, down());
    faults.fail(Op::Finish, down());
    time.advance(secs(100)).await;
    assert_eq!(faults.left(), 0);
    let told = heard(&mut events);
    let words: Vec<_> = ends(&told, "fails").iter().map(|end| (end.1, end.2)).collect();
    assert_eq!(words, [(1, "failed"), (2, "executed")], "{told:#?}");
    let account = scheduler.why("plain", at(5), at(5)).await.unwrap();
    assert_eq!(account.times[0].fate, Fate::Executed, "{account:?}");
}

/// A store that opens and then does not answer what it is asked about runs in doubt.
#[actix::test]
async fn a_store_that_opens_and_says_nothing_is_asked_less_and_less() {
    let faults = Faults::new();
    let (scheduler, time, ran) = faulty_board(&faults, 0).await;
    let mut events = scheduler.events(EventMask::STORE_RECOVERED).await.unwrap();
    scheduler.add(every(1000).id("a").first_run(at(10))).await.unwrap();
    time.advance(secs(5)).await;
    faults.fail(Op::Commit, down());
    (0..6).for_each(|_| faults.fail(Op::Get, down()));
    time.advance(secs(5)).await;
    let mut opened = Vec::new();
    for second in 1..=150 {
        time.advance(secs(1)).await;
        opened.extend(heard(&mut events).iter().map(|_| second));
    }
    assert_eq!(faults.left(), 0, "{opened:?}");
    let waits: Vec<_> = opened.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!((opened[0], &waits[..]), (1, &[2, 4, 8, 16, 32, 60][..]), "{opened:?}");
    assert_eq!(ran.of("a"), [at(10)], "and its run is not lost");
}

/// Reading a store again that works is no trouble for what is under way.
#[actix::test]
async fn a_store_that_is_read_again_costs_no_run() {
    let faults = Faults::new();
    let (scheduler, time, ran) = faulty_board(&faults, 10).await;
    let mut events = scheduler.events(EventMask::ALL).await.unwrap();
    scheduler.add(every(10).id("a").first_run(at(10))).await.unwrap();
    scheduler.add(every(1000).id("hand").first_run(at(900_000))).await.unwrap();
    time.advance(secs(5)).await;
    let tick = faults.hold(Op::Commit);
    let turn = time.advance(secs(5));
    let again = async {
        befallen(&faults).await;
        scheduler.recheck_store("default").await.unwrap();
        let asked = faults.hold(Op::Commit);
        let ask = async {
            befallen(&faults).await;
            scheduler.recheck_store("default").await.unwrap();
            drop(asked);
        };
        let (run, ()) = futures::join!(scheduler.run_task("hand"), ask);
        run.unwrap();
        drop(tick);
    };
    futures::join!(turn, again);
    time.advance(secs(10)).await;
    let told = heard(&mut events);
    assert_eq!(ran.of("a"), [at(10), at(20)], "{told:#?}");
    assert_eq!(ran.of("hand"), [at(10)], "{told:#?}");
    assert_eq!(count(&told, EventMask::TASK_INTERRUPTED), 0);
}

/// The same of a store that is on a disk, with runs and their ends going on.
#[actix::test]
async fn a_store_on_a_disk_that_is_read_again_costs_no_run() {
    let base = tempfile::tempdir().unwrap();
    let store = SledStore::open(base.path().join("store")).unwrap();
    let (scheduler, time, ran) = board(move |b| b.store("default", store)).await;
    let mut events = scheduler.events(EventMask::TASK_INTERRUPTED).await.unwrap();
    for id in 0..10 {
        scheduler.add(every(1).id(format!("task-{id}"))).await.unwrap();
    }
    let turn = time.advance(secs(30));
    let again = async {
        for _ in 0..20 {
            scheduler.recheck_store("default").await.unwrap();
        }
    };
    futures::join!(turn, again);
    assert!(heard(&mut events).is_empty());
    let all: Vec<_> = (0..=30).map(at).collect();
    assert!((0..10).all(|id| ran.of(&format!("task-{id}")) == all));
    scheduler.shutdown(Shutdown::now()).await.unwrap();
}

type Opens = Box<dyn FnMut(&mut MemoryBackend, Open) -> Reply<Opened> + Send>;
type Gets = Box<dyn FnMut(&mut MemoryBackend, Get) -> Reply<Option<StoredTask>> + Send>;

/// A backend that a test has its own way with.
struct Hooked {
    backend: MemoryBackend,
    open: Opens,
    get: Gets,
    /// The runs whose ends it was told.
    ended: Arc<Mutex<Vec<RunId>>>,
}

impl Hooked {
    fn new() -> Self {
        Self {
            backend: MemoryBackend::default().history(10),
            open: Box::new(|backend, request| backend.open(request)),
            get: Box::new(|backend, request| backend.get(request)),
            ended: Arc::default(),
        }
    }
}

impl Backend for Hooked {
    fn capabilities(&self) -> Capabilities {
        self.backend.capabilities()
    }
    fn open(&mut self, request: Open) -> Reply<Opened> {
        (self.open)(&mut self.backend, request)
    }
    fn put(&mut self, request: Put) -> Reply<()> {
        self.backend.put(request)
    }
    fn delete(&mut self, request: Delete) -> Reply<StoredTask> {
        self.backend.delete(request)
    }
    fn get(&mut self, request: Get) -> Reply<Option<StoredTask>> {
        (self.get)(&mut self.backend, request)
    }
    fn list(&mut self, request: List) -> Reply<Vec<StoredTask>> {
        self.backend.list(request)
    }
    fn take_due(&mut self, request: TakeDue) -> Reply<Due> {
        self.backend.take_due(request)
    }
    fn defer(&mut self, request: Defer) -> Reply<Option<DateTime<Utc>>> {
        self.backend.defer(request)
    }
    fn commit(&mut self, request: Commit) -> Reply<Committed> {
        self.backend.commit(request)
    }
    fn finish(&mut self, request: Finish) -> Reply<()> {
        self.ended.lock().unwrap().extend(request.ends.iter().map(|(run, ..)| *run));
        self.backend.finish(request)
    }
    fn next_due(&mut self, request: NextDue) -> Reply<Option<DateTime<Utc>>> {
        self.backend.next_due(request)
    }
    fn runs(&mut self, request: Runs) -> Reply<Vec<RunRecord>> {
        self.backend.runs(request)
    }
    fn remove_all(&mut self, request: RemoveAll) -> Reply<usize> {
        self.backend.remove_all(request)
    }
    fn close(&mut self, request: Close) -> Reply<()> {
        self.backend.close(request)
    }
}

/// The record of the task `bad` cannot be read while this is so.
fn spoilt() -> (Hooked, Arc<Mutex<bool>>) {
    let spoilt = Arc::new(Mutex::new(false));
    let at_open = spoilt.clone();
    let open = move |backend: &mut MemoryBackend, request| match backend.open(request) {
        Reply::Now(Ok(mut opened)) if *at_open.lock().unwrap() => {
            let (id, reason) = ("bad".to_owned(), "a moth".to_owned());
            opened.unreadable.push(Unreadable { id, cause: Cause::Corrupt, reason });
            // It is left out of everything else.
            opened.unsettled.iter_mut().for_each(|ids| ids.retain(|id| id.as_str() != "bad"));
            Reply::Now(Ok(opened))
        }
        opened => opened,
    };
    let at_get = spoilt.clone();
    let get = move |backend: &mut MemoryBackend, request: Get| {
        if *at_get.lock().unwrap() && request.id.as_str() == "bad" {
            return Reply::Now(Err(StoreError::Damaged {
                place: "the record of task `bad`".to_owned(),
                reason: "a moth".to_owned(),
                advice: "restore it".to_owned(),
            }));
        }
        backend.get(request)
    };
    (Hooked { open: Box::new(open), get: Box::new(get), ..Hooked::new() }, spoilt)
}

/// The record of a task that has a run going on is spoilt: that is its own trouble, not its store's.
#[actix::test]
async fn one_record_that_cannot_be_read_does_not_take_the_store_down() {
    for in_doubt in [false, true] {
        let faults = Faults::new();
        let (backend, spoilt) = spoilt();
        let store = BackendSource::keeping(faults.around(backend));
        let (scheduler, time, ran) = board(move |b| b.store("default", store).store_retry(secs(1))).await;
        let mut events = scheduler.events(EventMask::ALL).await.unwrap();
        let bad = Task::new("nap").args(5).id("bad").trigger(Date::at(at(10)));
        scheduler.add(bad.retry(Retry::times(1))).await.unwrap();
        scheduler.add(every(10).id("good").first_run(at(15))).await.unwrap();
        time.advance(secs(9)).await;
        if in_doubt {
            faults.lose(Op::Commit, down());
        }
        time.advance(secs(1)).await;
        *spoilt.lock().unwrap() = true;
        scheduler.recheck_store("default").await.unwrap();
        time.advance(secs(100)).await;
        let told = heard(&mut events);
        let trouble = count(&told, EventMask::STORE_UNAVAILABLE);
        assert_eq!(trouble, usize::from(in_doubt), "{in_doubt}: {told:#?}");
        assert!(ran.count("good") >= 10, "{in_doubt}: {:?}", ran.of("good"));
        if !in_doubt {
            assert_eq!(ends(&told, "bad"), [(10, 1, "executed", None)]);
        }
        // What cannot be known now is known when the record can be read again.
        *spoilt.lock().unwrap() = false;
        scheduler.recheck_store("default").await.unwrap();
        time.advance(secs(10)).await;
        assert_eq!(scheduler.status().await.unwrap().running, 0, "{in_doubt}");
        if in_doubt {
            assert_eq!(ends(&heard(&mut events), "bad")[0].2, "interrupted");
        }
    }
}

/// A scheduler that is not started yet, with a memory store that goes wrong as `faults` say.
fn stopped(faults: &Faults) -> (Handle, VirtualClock, Ran) {
    let (time, ran) = (VirtualClock::starting_at(START), Ran::default());
    let store = BackendSource::keeping(faults.around(MemoryBackend::default().history(10)));
    let builder = Scheduler::builder().clock(time.clock()).registry(ran.registry());
    (builder.store("default", store).build().unwrap(), time, ran)
}

/// What is asked of a task while the start commits it, or the next one, holds afterwards.
#[actix::test]
async fn a_change_that_comes_while_tasks_are_being_committed_is_not_lost() {
    for behind in [0, 1] {
        let faults = Faults::new();
        let (scheduler, time, ran) = stopped(&faults);
        for id in ["paused", "changed", "deleted", "replaced", "last"] {
            scheduler.add(every(10).id(id).first_run(at(10))).await.unwrap();
        }
        let puts: Vec<_> = (0..5).map(|_| faults.hold(Op::Put)).collect();
        let change = async {
            let mut asked = Vec::new();
            for (index, put) in puts.into_iter().enumerate() {
                while faults.left() + index > 4 {
                    tokio::task::yield_now().await;
                }
                assert_eq!(scheduler.status().await.unwrap().state, SchedulerState::Starting);
                let scheduler = scheduler.clone();
                let asking = scheduler.clone();
                asked.push(actix::spawn(async move {
                    match index.checked_sub(behind) {
                        Some(0) => drop(asking.pause_task("paused").await.unwrap()),
                        Some(1) => {
                            let anew = TaskChanges::new().name("anew");
                            drop(asking.update_task("changed", anew).await.unwrap());
                        }
                        Some(2) => asking.delete_task("deleted").await.unwrap(),
                        Some(3) if behind == 0 => {
                            let anew = every(10).id("replaced").name("anew").replace_existing(true);
                            drop(asking.add(anew).await.unwrap());
                        }
                        _ => {}
                    }
                }));
                // By then it was asked, if not answered.
                for _ in 0..3 {
                    scheduler.status().await.unwrap();
                }
                drop(put);
            }
            asked
        };
        let (started, asked) = futures::join!(scheduler.start(), change);
        started.unwrap();
        for asked in asked {
            asked.await.unwrap();
        }
        assert!(scheduler.task("paused").await.unwrap().state.paused);
        assert_eq!(scheduler.task("changed").await.unwrap().spec.label(), "anew");
        assert_eq!(scheduler.task("replaced").await.unwrap().spec.label() == "anew", behind == 0);
        assert!(scheduler.task("deleted").await.unwrap_err().is_not_found());
        time.advance(secs(10)).await;
        assert_eq!((ran.count("paused"), ran.count("deleted"), ran.count("last")), (0, 0, 1));
        scheduler.shutdown(Shutdown::now()).await.unwrap();
    }
}

#[actix::test]
async fn nor_is_it_when_all_tasks_are_removed() {
    let faults = Faults::new();
    let (scheduler, time, ran) = stopped(&faults);
    for id in ["a", "b", "c"] {
        scheduler.add(every(10).id(id).first_run(at(10))).await.unwrap();
    }
    faults.hold(Op::Put).send(()).unwrap();
    let put = faults.hold(Op::Put);
    let mut removed = None;
    let remove = async {
        befallen(&faults).await;
        assert_eq!(scheduler.status().await.unwrap().state, SchedulerState::Starting);
        let asking = scheduler.clone();
        removed =
            Some(actix::spawn(async move { asking.send(RemoveAllTasks { store: None }).await.unwrap() }));
        for _ in 0..3 {
            scheduler.status().await.unwrap();
        }
        drop(put);
    };
    let (started, ()) = futures::join!(scheduler.start(), remove);
    started.unwrap();
    assert_eq!(removed.unwrap().await.unwrap().unwrap(), 3);
    time.advance(secs(10)).await;
    assert!(scheduler.tasks(TaskQuery::new()).await.unwrap().is_empty());
    assert!(["a", "b", "c"].into_iter().all(|id| ran.count(id) == 0));
}

/// A task was put into its store, and nobody heard of it: that is no other task in the way of the
/// next start.
#[actix::test]
async fn a_start_whose_store_did_not_answer_can_be_tried_again() {
    for crash in [false, true] {
        let faults = Faults::new();
        let (scheduler, time, ran) = stopped(&faults);
        let mut events = scheduler.events(EventMask::TASK_ADDED).await.unwrap();
        scheduler.add(every(10).id("a").first_run(at(10))).await.unwrap();
        if crash {
            let put = faults.hold(Op::Put);
            let strike = async {
                befallen(&faults).await;
                scheduler.send(Crash).await.unwrap_err();
                drop(put);
            };
            let (started, ()) = futures::join!(scheduler.start(), strike);
            started.unwrap_err();
            time.advance(secs(5)).await;
            scheduler.start().await.unwrap();
        } else {
            // It waits until the store works again, and nothing else waits for it.
            faults.lose(Op::Put, down());
            let left_out = scheduler.start().await.unwrap().tasks;
            assert!(matches!(&left_out[..], [(id, callboard::Error::Store { .. })] if id.as_str() == "a"));
            time.advance(secs(5)).await;
        }
        time.advance_to(at(20)).await;
        assert_eq!(heard(&mut events).len(), 1);
        assert_eq!((ran.of("a"), scheduler.status().await.unwrap().pending), (vec![at(10), at(20)], 0));
        scheduler.shutdown(Shutdown::now()).await.unwrap();
        // One that somebody else has put there is.
        scheduler.add(every(7).id("a")).await.unwrap();
        let left_out = scheduler.start().await.unwrap().tasks;
        assert!(matches!(left_out[..], [(_, callboard::Error::TaskExists(_))]), "{crash}: {left_out:?}");
        assert_eq!(scheduler.status().await.unwrap().pending, 1);
    }
}

/// Whether a store was emptied is found out when it works again.
#[actix::test]
async fn a_removal_of_all_tasks_that_was_not_answered_is_told() {
    for written in [true, false] {
        let faults = Faults::new();
        let (scheduler, time, _) = faulty_board(&faults, 0).await;
        let mut events = scheduler.events(EventMask::ALL).await.unwrap();
        for id in ["a", "b"] {
            scheduler.add(every(10).id(id).first_run(at(900_000))).await.unwrap();
        }
        time.advance(secs(5)).await;
        match written {
            true => faults.lose(Op::RemoveAll, down()),
            false => faults.fail(Op::RemoveAll, down()),
        }
        scheduler.send(RemoveAllTasks { store: None }).await.unwrap().unwrap_err();
        scheduler.add(every(10).id("c").first_run(at(900_000))).await.unwrap();
        time.advance(secs(60)).await;
        let told = heard(&mut events);
        assert_eq!(count(&told, EventMask::ALL_TASKS_REMOVED), usize::from(written), "{told:#?}");
        let (unavailable, recovered) =
            (count(&told, EventMask::STORE_UNAVAILABLE), count(&told, EventMask::STORE_RECOVERED));
        assert_eq!((unavailable, recovered), (1, 1));
    }
}

/// What was decided about a run that does not begin stands, also when who decided it dies before it
/// hears that it is written down.
#[actix::test]
async fn the_end_of_a_run_that_did_not_begin_survives_the_scheduler() {
    let faults = Faults::new();
    let (scheduler, time, _) = faulty_board(&faults, 10).await;
    let mut events = scheduler.events(EventMask::ALL).await.unwrap();
    let all = Task::new("note").trigger(Interval::seconds(10)).coalesce(false).max_catch_up(1);
    scheduler.add(all.id("late").first_run(at(10))).await.unwrap();
    scheduler.pause().await.unwrap();
    time.advance(secs(35)).await;
    let commit = faults.hold(Op::Commit);
    let strike = async {
        befallen(&faults).await;
        scheduler.send(Crash).await.unwrap_err();
        drop(commit);
    };
    let resume = async {
        scheduler.resume().await.unwrap();
        time.advance(secs(4)).await;
    };
    futures::join!(resume, strike);
    time.advance(secs(10)).await;
    let told = heard(&mut events);
    let of_first = ends(&told, "late").into_iter().find(|end| end.0 == 10);
    assert_eq!(of_first.map(|end| end.2), Some("missed"), "{told:#?}");
    let account = scheduler.why("late", at(10), at(10)).await.unwrap();
    assert_eq!(account.times[0].fate, Fate::Missed);
}

/// Ends that are on their way when a store is removed are written: it may come back.
#[actix::test]
async fn a_store_that_is_removed_has_the_ends_of_its_runs() {
    let faults = Faults::new();
    let backend = Hooked::new();
    let ended = backend.ended.clone();
    let spare = BackendSource::keeping(faults.around(backend));
    let (scheduler, time, _) =
        board(move |b| b.store("default", MemoryStore::new()).store("spare", spare)).await;
    let mut events = scheduler.events(EventMask::TASK_EXECUTED).await.unwrap();
    for (id, first) in [("a", 10), ("b", 900), ("c", 900)] {
        scheduler.add(every(1000).id(id).first_run(at(first)).store("spare")).await.unwrap();
    }
    time.advance(secs(5)).await;
    let finish = faults.hold(Op::Finish);
    let remove = async {
        befallen(&faults).await;
        for id in ["b", "c"] {
            scheduler.run_task(id).await.unwrap();
        }
        while scheduler.status().await.unwrap().running > 0 {
            tokio::task::yield_now().await;
        }
        let asking = scheduler.clone();
        let asked = actix::spawn(async move { asking.remove_store("spare").await });
        for _ in 0..3 {
            scheduler.status().await.unwrap();
        }
        drop(finish);
        asked.await.unwrap().unwrap();
    };
    futures::join!(time.advance(secs(5)), remove);
    assert_eq!(heard(&mut events).len(), 3);
    assert_eq!(ended.lock().unwrap().len(), 3);
}

/// A run by hand after the clock was set back: the schedule has run what comes until then.
#[actix::test]
async fn no_run_time_runs_twice_after_the_clock_was_set_back() {
    let (scheduler, time, ran) = board(|b| b).await;
    scheduler.add(every(10).id("a")).await.unwrap();
    time.advance(secs(100)).await;
    time.set(at(50)).await;
    scheduler.run_task("a").await.unwrap();
    scheduler.reschedule_task("a", Interval::seconds(5)).await.unwrap();
    time.advance(secs(100)).await;
    let mut seconds: Vec<_> = ran.of("a").into_iter().map(second).collect();
    seconds.sort_unstable();
    let before = seconds.len();
    seconds.dedup();
    assert_eq!(seconds.len(), before - 1, "all but 50, which somebody ran by hand: {:?}", ran.of("a"));
}

/// The alarm has not rung yet when the clock is set back: before the first one, or before that of a
/// successor of the scheduler's actor.
#[actix::test]
async fn a_clock_that_is_set_back_before_the_first_alarm_holds_nothing_up() {
    for crash in [false, true] {
        let faults = Faults::new();
        let (scheduler, time, ran) = faulty_board(&faults, 0).await;
        let mut events =
            scheduler.events(EventMask::CLOCK_JUMPED | EventMask::STORE_RECOVERED).await.unwrap();
        scheduler.add(every(1000).id("a").first_run(at(900_000))).await.unwrap();
        if crash {
            scheduler.send(Crash).await.unwrap_err();
            time.advance(secs(5)).await;
        }
        faults.fail(Op::Put, down());
        scheduler.pause_task("a").await.unwrap_err();
        time.set(at(-100_000)).await;
        time.advance(secs(10)).await;
        let told = heard(&mut events);
        assert!(matches!(told[..], [Event::ClockJumped { .. }, Event::StoreRecovered { .. }]), "{told:#?}");
        assert_eq!(ran.count("a"), 0);
    }
}

/// The history of a time that has not come yet, by a clock that was set back since.
#[actix::test]
async fn why_knows_what_ran_before_the_clock_was_set_back() {
    let base = tempfile::tempdir().unwrap();
    let store = SledStore::open(base.path().join("store")).unwrap();
    let (scheduler, time, _) = board(move |b| b.store("default", store)).await;
    scheduler.add(every(10).id("a").first_run(at(86_400))).await.unwrap();
    time.advance_to(at(86_430)).await;
    time.set(at(60)).await;
    scheduler.run_task("a").await.unwrap();
    time.settle().await;
    let account = scheduler.why("a", at(86_400), at(86_430)).await.unwrap();
    let fates: Vec<_> = account.times.iter().map(|time| time.fate).collect();
    assert_eq!(fates, [Fate::Executed; 4], "{account:#?}");
    scheduler.shutdown(Shutdown::now()).await.unwrap();
}

/// Another process had the very number of this one: the runs that it began and never ended are not
/// taken for this one's.
#[actix::test]
async fn an_owner_with_the_number_of_an_earlier_one_takes_another() {
    let owners: Arc<Mutex<Vec<OwnerId>>> = Arc::default();
    let opened = owners.clone();
    let open = move |backend: &mut MemoryBackend, request: Open| {
        let mut owners = opened.lock().unwrap();
        owners.push(request.owner);
        let earlier = owners[0];
        let record = RunRecord {
            id: RunId { owner: earlier, serial: 1 },
            task: "a".parse().unwrap(),
            nominal: at(-10),
            offset: None,
            coalesced: 0,
            span: None,
            source: Source::Scheduled,
            attempt: 1,
            submitted_at: at(-10),
            end: None,
        };
        match backend.open(request) {
            Reply::Now(Ok(mut opened)) => {
                opened.interrupted.extend((owners.len() > 1).then_some(record));
                Reply::Now(Ok(Opened { latest_owner: Some(earlier), ..opened }))
            }
            other => other,
        }
    };
    let (time, ran) = (VirtualClock::starting_at(START), Ran::default());
    let store = BackendSource::keeping(Hooked { open: Box::new(open), ..Hooked::new() });
    let builder = Scheduler::builder().clock(time.clock()).registry(ran.registry());
    let scheduler = builder.store("default", store).build().unwrap();
    let mut events = scheduler.events(EventMask::TASK_INTERRUPTED).await.unwrap();
    scheduler.add(every(1000).id("a").first_run(at(10))).await.unwrap();
    scheduler.start().await.unwrap();
    time.advance(secs(10)).await;
    let told = heard(&mut events);
    assert!(matches!(&told[..], [Event::RunInterrupted { record, .. }] if record.nominal == at(-10)));
    let run = scheduler.run_task("a").await.unwrap();
    time.settle().await;
    let owners = owners.lock().unwrap().clone();
    assert_eq!(owners.len(), 2, "it was opened again");
    assert!(owners[0] < owners[1] && run.owner == owners[1], "{owners:?}, {run:?}");
    assert_eq!(ran.count("a"), 2);
}
