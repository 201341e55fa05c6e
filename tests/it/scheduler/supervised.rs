//! Executors and stores that are stopped, or whose thread ends: what was going on has an outcome, what
//! becomes due meanwhile is kept or recorded, and a successor takes their place.

use callboard::store::message::*;
use callboard::store::{Backend, BackendSource, Capabilities, MemoryBackend, Reply, StoreAddr, StoreSource};
use callboard::task::{RunRecord, StoredTask};

use super::retry::ends;
use super::*;

/// Every run time of a task that runs every ten seconds, up to `last`, has one outcome.
fn accounted(told: &[Event], id: &str, last: i64) {
    let mut seen = Vec::new();
    for report in told.iter().filter_map(Event::report) {
        if report.task_id().as_str() == id && report.end.retry_at.is_none() {
            let nominal = (report.run.nominal - at(0)).num_seconds() / 10;
            seen.extend(nominal - report.run.coalesced as i64..=nominal);
        }
    }
    seen.sort();
    assert_eq!(seen, (0..=last / 10).collect::<Vec<_>>(), "{told:#?}");
}

fn count(told: &[Event], mask: EventMask) -> usize {
    told.iter().filter(|event| event.mask() == mask).count()
}

/// An executor that lets runs go on for ever, and stops when it is given a run of the task `stop`.
struct Quitter {
    runs: Vec<Arc<callboard::task::Run>>,
    attached: Option<Attach>,
    _keep: Keep,
}

impl Actor for Quitter {
    type Context = Context<Self>;
}

#[derive(Clone)]
struct QuitterSource;

impl ExecutorSource for QuitterSource {
    fn start(&mut self, keep: Keep) -> ExecutorAddr {
        ExecutorAddr::new(Quitter { runs: Vec::new(), attached: None, _keep: keep }.start())
    }
}

impl Handler<Attach> for Quitter {
    type Result = ();
    fn handle(&mut self, attach: Attach, _: &mut Self::Context) {
        self.attached = Some(attach);
    }
}

impl Handler<Submit> for Quitter {
    type Result = ();
    fn handle(&mut self, Submit { runs, busy, .. }: Submit, ctx: &mut Self::Context) {
        if runs.iter().any(|run| run.task.id.as_str() == "stop" && run.attempt == 1) {
            return ctx.stop();
        }
        let (long, short): (Vec<_>, Vec<_>) =
            runs.into_iter().partition(|run| run.task.id.as_str() == "long" && run.attempt == 1);
        self.runs.extend(long);
        let attached = self.attached.as_ref().unwrap();
        let now = attached.clock.now();
        let end = || RunEnd::unstarted(Outcome::Executed { value: serde_json::Value::Null }, now);
        let ends = short.into_iter().map(|run| (run, end())).collect();
        attached.notices.do_send(RunsEnded { ends, busy });
    }
}

impl Handler<Cancel> for Quitter {
    type Result = bool;
    fn handle(&mut self, _: Cancel, _: &mut Self::Context) -> bool {
        false
    }
}

impl Handler<Drain> for Quitter {
    type Result = MessageResult<Drain>;
    fn handle(&mut self, _: Drain, _: &mut Self::Context) -> Self::Result {
        MessageResult(Drained::default())
    }
}

impl Handler<Status> for Quitter {
    type Result = MessageResult<Status>;
    fn handle(&mut self, _: Status, _: &mut Self::Context) -> Self::Result {
        MessageResult(ExecutorStatus { running: self.runs.len(), ..ExecutorStatus::default() })
    }
}

#[actix::test]
async fn an_executor_that_stops_is_replaced_and_what_it_ran_is_interrupted() {
    let (scheduler, time, _) = board(|b| b.executor("default", QuitterSource)).await;
    let mut events = scheduler.events(EventMask::ALL).await.unwrap();
    let once = |id: &str, second| Task::new("note").id(id).trigger(Date::at(at(second)));
    scheduler.add(once("long", 5)).await.unwrap();
    scheduler.add(once("stop", 25).recover(true)).await.unwrap();
    scheduler.add(every(10).id("a").first_run(at(0))).await.unwrap();
    time.advance(secs(100)).await;
    let told = heard(&mut events);
    assert_eq!(
        (count(&told, EventMask::EXECUTOR_RESTARTED), count(&told, EventMask::EXECUTOR_FAILED)),
        (1, 0)
    );
    assert_eq!(ends(&told, "long"), [(5, 1, "interrupted", None)]);
    let stop = ends(&told, "stop");
    assert_eq!((stop[0], stop.last().unwrap().2), ((25, 1, "interrupted", Some(25)), "executed"), "{stop:?}");
    accounted(&told, "a", 100);
    let status = scheduler.status().await.unwrap();
    assert_eq!((status.running, &status.executors[0].problem), (0, &None));
}

#[actix::test]
async fn an_executor_that_stops_and_is_not_started_again_is_told_of() {
    let policy = callboard::supervision::RestartPolicy::on_failure();
    let (scheduler, time, _) = board(|b| b.executor("default", QuitterSource).restart(policy)).await;
    let mut events = scheduler.events(EventMask::ALL).await.unwrap();
    scheduler.add(Task::new("note").id("stop").trigger(Date::at(at(25)))).await.unwrap();
    time.advance(secs(30)).await;
    let told = heard(&mut events);
    assert_eq!(count(&told, EventMask::EXECUTOR_FAILED), 1, "{told:?}");
    assert!(
        scheduler.status().await.unwrap().executors[0].problem.as_ref().unwrap().contains("RestoreExecutor")
    );
}

#[actix::test]
async fn a_thread_that_a_task_ends_is_replaced_and_what_it_ran_is_interrupted() {
    let time = VirtualClock::starting_at(START);
    let ran = Ran::default();
    let registry = ran.registry().register("vandal", |run: TaskContext, ()| async move {
        if run.attempt() == 1 {
            Arbiter::current().stop();
            run.sleep(secs(1_000_000)).await;
        }
    });
    let scheduler = Scheduler::builder()
        .clock(time.clock())
        .registry(registry)
        .executor("default", AsyncExecutor::new())
        .executor("other", AsyncExecutor::new())
        .start()
        .await
        .unwrap();
    let mut events = scheduler.events(EventMask::ALL).await.unwrap();
    let once = |name: &str, second| Task::new(name).id(name).trigger(Date::at(at(second)));
    scheduler.add(once("hang", 5)).await.unwrap();
    scheduler.add(once("vandal", 25).recover(true)).await.unwrap();
    scheduler.add(every(10).id("a")).await.unwrap();
    scheduler.add(every(10).id("elsewhere").executor("other")).await.unwrap();
    time.advance(secs(25)).await;
    time.advance(secs(75)).await;
    let told = heard(&mut events);
    // The executor itself lives elsewhere.
    assert_eq!(
        (count(&told, EventMask::EXECUTOR_RESTARTED), count(&told, EventMask::EXECUTOR_FAILED)),
        (0, 0)
    );
    assert_eq!(ends(&told, "hang"), [(5, 1, "interrupted", None)]);
    let vandal = ends(&told, "vandal");
    assert_eq!((vandal[0].2, vandal.last().unwrap().2), ("interrupted", "executed"), "{vandal:?}");
    accounted(&told, "a", 100);
    accounted(&told, "elsewhere", 100);
    assert_eq!(ran.count("elsewhere"), 11, "the other executor did not notice");
    assert_eq!(scheduler.status().await.unwrap().running, 0);
}

/// Keeps the address of the store that it started last.
struct Watched<S>(S, Arc<Mutex<Option<StoreAddr>>>);

impl<S: StoreSource> StoreSource for Watched<S> {
    fn start(&mut self, keep: Keep) -> StoreAddr {
        let addr = self.0.start(keep);
        *self.1.lock().unwrap() = Some(addr.clone());
        addr
    }
}

/// A store that lives on an arbiter of its own, which ends while the store looks up what is due.
pub(super) struct Mortal {
    pub(super) backend: MemoryBackend,
    pub(super) armed: Arc<std::sync::atomic::AtomicBool>,
}

macro_rules! passes_on {
    ($($op:ident($message:ident) -> $answer:ty;)*) => {$(
        fn $op(&mut self, request: $message) -> Reply<$answer> {
            self.backend.$op(request)
        }
    )*};
}

impl Backend for Mortal {
    fn capabilities(&self) -> Capabilities {
        Capabilities { blocking: true, ..self.backend.capabilities() }
    }

    fn defer(&mut self, request: Defer) -> Reply<Option<DateTime<Utc>>> {
        self.backend.defer(request)
    }

    fn take_due(&mut self, request: TakeDue) -> Reply<Due> {
        if self.armed.swap(false, std::sync::atomic::Ordering::Relaxed) {
            Arbiter::current().stop();
            return Reply::later(std::future::pending());
        }
        self.backend.take_due(request)
    }

    /// Does not know what is unsettled.
    fn open(&mut self, request: Open) -> Reply<Opened> {
        match self.backend.open(request) {
            Reply::Now(opened) => Reply::Now(opened.map(|opened| Opened { unsettled: None, ..opened })),
            later => later,
        }
    }

    passes_on! {
        put(Put) -> ();
        delete(Delete) -> StoredTask;
        get(Get) -> Option<StoredTask>;
        list(List) -> Vec<StoredTask>;
        commit(Commit) -> Committed;
        finish(Finish) -> ();
        next_due(NextDue) -> Option<DateTime<Utc>>;
        runs(Runs) -> Vec<RunRecord>;
        remove_all(RemoveAll) -> usize;
        close(Close) -> ();
    }
}

/// The events up to second 100 of a scheduler whose store dies at second 25 or so.
async fn survives(source: impl StoreSource, kill: impl AsyncFnOnce(&VirtualClock)) -> Vec<Event> {
    let (scheduler, time, ran) = board(move |b| b.store("default", source)).await;
    let mut events = scheduler.events(EventMask::ALL).await.unwrap();
    let retry = callboard::task::Retry::times(2);
    scheduler.add(every(10).id("a")).await.unwrap();
    scheduler.add(Task::new("nap").args(20).id("nap").trigger(Date::at(at(15))).retry(retry)).await.unwrap();
    time.advance(secs(25)).await;
    kill(&time).await;
    for _ in 0..2000 {
        if scheduler.status().await.unwrap().stores[0].problem.is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
        tokio::task::yield_now().await;
    }
    assert!(scheduler.task("a").await.unwrap_err().is_retryable(), "it is down");
    time.advance_to(at(100)).await;
    let told = heard(&mut events);
    accounted(&told, "a", 100);
    assert_eq!(ends(&told, "nap"), [(15, 1, "executed", None)], "runs do not mind");
    assert!(scheduler.task("nap").await.unwrap_err().is_not_found(), "and their ends are written");
    let status = scheduler.status().await.unwrap();
    assert_eq!((status.running, &status.stores[0].problem), (0, &None));
    assert!(ran.count("a") > 5);
    told
}

#[actix::test]
async fn a_store_that_stops_is_replaced_and_no_run_time_is_lost() {
    let latest = Arc::new(Mutex::new(None));
    let source = Watched(BackendSource::keeping(MemoryBackend::default()), latest.clone());
    let told = survives(source, async |_: &VirtualClock| {
        let addr = latest.lock().unwrap().clone().unwrap();
        // Somebody else closes it: it stops as it would for its scheduler.
        addr.close(Close).await.unwrap();
    })
    .await;
    assert_eq!(
        (count(&told, EventMask::STORE_UNAVAILABLE), count(&told, EventMask::STORE_RECOVERED)),
        (1, 1)
    );
}

#[actix::test]
async fn a_store_whose_thread_ends_is_replaced_and_no_run_time_is_lost() {
    let armed = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let backend = Mortal { backend: MemoryBackend::default(), armed: armed.clone() };
    let told = survives(BackendSource::keeping(backend), async |time: &VirtualClock| {
        armed.store(true, std::sync::atomic::Ordering::Relaxed);
        time.advance(secs(5)).await;
    })
    .await;
    assert_eq!(
        (count(&told, EventMask::STORE_UNAVAILABLE), count(&told, EventMask::STORE_RECOVERED)),
        (1, 1)
    );
}
