//! The scheduler's actor dies while something is on its way to it or from it: nothing gets lost.

use callboard::clock::Busy;
use callboard::scheduler::SchedulerState;
use callboard::scheduler::message::{Crash, RestoreStore};
use callboard::store::message::*;
use callboard::store::{Backend, BackendSource, Capabilities, Faults, MemoryBackend, Op, Reply, StoreError};
use callboard::task::{Run, RunId, RunRecord, StoredTask};
use futures::channel::oneshot;

use super::*;

/// An executor that keeps what it is given until it is told what to do with it.
struct Holder {
    attached: Option<Attach>,
    runs: Vec<Arc<Run>>,
    _keep: Keep,
}

impl Holder {
    fn new(keep: Keep) -> Self {
        Self { attached: None, runs: Vec::new(), _keep: keep }
    }
}

impl Actor for Holder {
    type Context = Context<Self>;
}

/// On the scheduler's own arbiter, or on one of its own.
#[derive(Clone, Default)]
struct HolderSource {
    own: bool,
    latest: Arc<Mutex<Option<Addr<Holder>>>>,
}

impl HolderSource {
    fn latest(&self) -> Addr<Holder> {
        self.latest.lock().unwrap().clone().unwrap()
    }
}

impl ExecutorSource for HolderSource {
    fn start(&mut self, keep: Keep) -> ExecutorAddr {
        let addr = if self.own {
            Holder::start_in_arbiter(&Arbiter::new().handle(), |_| Holder::new(keep))
        } else {
            Holder::new(keep).start()
        };
        *self.latest.lock().unwrap() = Some(addr.clone());
        ExecutorAddr::new(addr)
    }
}

impl Handler<Attach> for Holder {
    type Result = ();
    fn handle(&mut self, attach: Attach, _: &mut Self::Context) {
        self.attached = Some(attach);
    }
}

impl Handler<Submit> for Holder {
    type Result = ();
    fn handle(&mut self, submit: Submit, _: &mut Self::Context) {
        self.runs.extend(submit.runs);
    }
}

impl Handler<Cancel> for Holder {
    type Result = bool;
    fn handle(&mut self, _: Cancel, _: &mut Self::Context) -> bool {
        false
    }
}

impl Handler<Drain> for Holder {
    type Result = MessageResult<Drain>;
    fn handle(&mut self, _: Drain, _: &mut Self::Context) -> Self::Result {
        MessageResult(Drained::default())
    }
}

impl Handler<Status> for Holder {
    type Result = MessageResult<Status>;
    fn handle(&mut self, _: Status, _: &mut Self::Context) -> Self::Result {
        MessageResult(ExecutorStatus { running: self.runs.len(), ..ExecutorStatus::default() })
    }
}

/// Hears nothing until somebody lets go.
#[derive(Message)]
#[rtype(result = "()")]
struct Block(std::sync::mpsc::Receiver<()>);

impl Handler<Block> for Holder {
    type Result = ();
    fn handle(&mut self, Block(free): Block, _: &mut Self::Context) {
        free.recv().ok();
    }
}

/// Ends its runs, or itself; the scheduler is to die some turns of the arbiter later. The clock stands
/// still until that has happened.
#[derive(Message)]
#[rtype(result = "()")]
struct Strike {
    scheduler: Option<Addr<Scheduler>>,
    turns: usize,
    die: bool,
    busy: Busy,
}

impl Handler<Strike> for Holder {
    type Result = ();
    fn handle(&mut self, Strike { scheduler, turns, die, busy }: Strike, _: &mut Self::Context) {
        if let Some(scheduler) = scheduler {
            let busy = busy.clone();
            actix::spawn(async move {
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
                scheduler.send(Crash).await.unwrap_err();
                drop(busy);
            });
        }
        assert!(!die, "on purpose");
        let attached = self.attached.as_ref().unwrap();
        let now = attached.clock.now();
        let end = || RunEnd::unstarted(Outcome::Executed { value: serde_json::Value::Null }, now);
        let ends = self.runs.drain(..).map(|run| (run, end())).collect();
        attached.notices.do_send(RunsEnded { ends, busy: attached.clock.busy() });
    }
}

/// Turns the clock when the scheduler's actor has died, until long after its successor is at work;
/// answers with the events.
async fn revived(time: &VirtualClock, events: &mut EventStream) -> Vec<Event> {
    time.advance(secs(30)).await;
    let told = heard(events);
    let back = told.iter().any(|event| matches!(event, Event::SchedulerRestarted { .. }));
    assert!(back, "the scheduler did not come back: {told:#?}");
    told
}

fn once() -> Task {
    Task::new("note").id("once").trigger(Date::at(at(10)))
}

/// The words of the outcomes of a task.
fn outcomes(told: &[Event], id: &str) -> Vec<&'static str> {
    let reports = told.iter().filter_map(Event::report).filter(|report| report.task_id().as_str() == id);
    reports.map(|report| report.end.outcome.word()).collect()
}

/// Whoever is told of the death turns the clock, and no smaller steps are needed for its sake: also
/// when nothing else is to be done on the way.
#[actix::test]
async fn a_scheduler_that_died_is_back_after_one_large_step() {
    for death in 0..100 {
        let (scheduler, time, ran) = board(|b| b).await;
        let mut events = scheduler.events(EventMask::ALL).await.unwrap();
        scheduler.add(every(1000).id("a")).await.unwrap();
        time.advance(secs(25)).await;
        assert!(matches!(scheduler.send(Crash).await, Err(callboard::Error::Died)));
        time.settle().await;
        time.advance(secs(15)).await;
        let told = heard(&mut events);
        let back = told.iter().any(|event| matches!(event, Event::SchedulerRestarted { .. }));
        assert!(back, "death {death}: {told:#?}");
        assert_eq!(scheduler.task("a").await.unwrap().running, 0);
        time.advance(secs(1000)).await;
        assert_eq!(ran.count("a"), 2);
    }
}

#[actix::test]
async fn the_end_of_a_run_on_its_way_to_a_dying_scheduler_arrives() {
    for turns in 0..6 {
        let source = HolderSource::default();
        let holder = source.clone();
        let (scheduler, time, _) = board(move |b| b.executor("default", source)).await;
        let mut events = scheduler.events(EventMask::ALL).await.unwrap();
        scheduler.add(once()).await.unwrap();
        time.advance(secs(10)).await;
        assert_eq!(scheduler.status().await.unwrap().running, 1);
        holder.latest().do_send(Strike {
            scheduler: scheduler.addr(),
            turns,
            die: false,
            busy: time.clock().busy(),
        });
        let told = revived(&time, &mut events).await;
        assert_eq!(outcomes(&told, "once"), ["executed"], "after {turns} turns: {told:#?}");
        assert_eq!(scheduler.status().await.unwrap().running, 0, "after {turns} turns");
    }
}

#[actix::test]
async fn an_executor_that_dies_with_the_scheduler_is_replaced_all_the_same() {
    for turns in 0..8 {
        let source = HolderSource::default();
        let holder = source.clone();
        let (scheduler, time, _) = board(move |b| b.executor("default", source)).await;
        let mut events = scheduler.events(EventMask::ALL).await.unwrap();
        scheduler.add(once()).await.unwrap();
        time.advance(secs(10)).await;
        holder.latest().do_send(Strike {
            scheduler: scheduler.addr(),
            turns,
            die: true,
            busy: time.clock().busy(),
        });
        let told = revived(&time, &mut events).await;
        assert_eq!(outcomes(&told, "once"), ["interrupted"], "after {turns} turns: {told:#?}");
        assert_eq!(scheduler.status().await.unwrap().executors[0].problem, None, "after {turns} turns");
        scheduler.add(every(1).id("more")).await.unwrap();
        time.advance(secs(1)).await;
        holder.latest().do_send(Strike { scheduler: None, turns: 0, die: false, busy: time.clock().busy() });
        time.settle().await;
        assert_eq!(scheduler.status().await.unwrap().running, 0, "after {turns} turns");
        assert!(outcomes(&heard(&mut events), "more").contains(&"executed"), "after {turns} turns");
    }
}

/// The message is in the mailbox of an executor that is busy; whoever sent it is gone before it is read.
#[actix::test]
async fn runs_that_a_dying_scheduler_has_submitted_are_run() {
    let source = HolderSource { own: true, ..HolderSource::default() };
    let holder = source.clone();
    let (scheduler, time, _) = board(move |b| b.executor("default", source)).await;
    let mut events = scheduler.events(EventMask::ALL).await.unwrap();
    scheduler.add(once()).await.unwrap();
    scheduler.add(every(1000).id("by hand").first_run(at(9000))).await.unwrap();
    let (free, blocked) = std::sync::mpsc::channel();
    holder.latest().do_send(Block(blocked));
    let mut told = Vec::new();
    let turning = time.clone();
    let turn = async move { turning.advance(secs(10)).await };
    let crash = async {
        // The clock goes on when the first is taken: only then is the second one asked for.
        let asked = scheduler.run_task("by hand");
        let mut asked = Box::pin(asked);
        let submitted =
            |told: &[Event]| told.iter().filter(|event| matches!(event, Event::TaskSubmitted(_))).count();
        while submitted(&told) < 2 {
            told.extend(heard(&mut events));
            if submitted(&told) > 0 {
                assert!(futures::poll!(&mut asked).is_pending());
            }
            tokio::task::yield_now().await;
        }
        scheduler.send(Crash).await.unwrap_err();
        free.send(()).unwrap();
        asked.await.unwrap_err();
    };
    futures::join!(turn, crash);
    told.extend(revived(&time, &mut events).await);
    holder.latest().do_send(Strike { scheduler: None, turns: 0, die: false, busy: time.clock().busy() });
    time.settle().await;
    told.extend(heard(&mut events));
    assert_eq!(outcomes(&told, "once"), ["executed"], "{told:#?}");
    assert_eq!(outcomes(&told, "by hand"), ["executed"], "{told:#?}");
}

/// Nobody is left to end the shutdown but the successor.
#[actix::test]
async fn a_scheduler_that_dies_while_it_shuts_down_shuts_down() {
    let (scheduler, time, ran) = board(|b| b).await;
    let mut events = scheduler.events(EventMask::ALL).await.unwrap();
    scheduler.add(Task::new("nap").args(1000).id("long").trigger(Date::at(at(10)))).await.unwrap();
    scheduler.add(every(7).id("a")).await.unwrap();
    time.advance(secs(10)).await;
    let turning = time.clone();
    let shutdown = scheduler.shutdown(Shutdown::wait(secs(300)));
    let crash = async {
        while scheduler.status().await.unwrap().state != SchedulerState::ShuttingDown {}
        turning.advance(secs(1)).await;
        scheduler.send(Crash).await.unwrap_err();
    };
    let (error, ()) = futures::join!(shutdown, crash);
    assert!(error.unwrap_err().is_retryable());
    let mut told = revived(&time, &mut events).await;
    scheduler.shutdown(Shutdown::now()).await.unwrap();
    while outcomes(&told, "long").is_empty() {
        told.push(futures::StreamExt::next(&mut events).await.unwrap());
    }
    told.extend(heard(&mut events));
    assert_eq!(outcomes(&told, "long"), ["interrupted"]);
    assert_eq!(scheduler.status().await.unwrap().state, SchedulerState::Stopped);
    let before = ran.count("a");
    scheduler.send(callboard::scheduler::message::Start::default()).await.unwrap().unwrap();
    time.advance(secs(70)).await;
    assert!(ran.count("a") > before + 5);
}

type Ends = Arc<Mutex<Vec<(RunId, TaskId, RunEnd)>>>;

/// A store that wants to know how runs end, and once says late that it did not hear.
struct Ledger {
    tasks: MemoryBackend,
    ends: Ends,
    late: Arc<Mutex<Option<oneshot::Receiver<()>>>>,
}

macro_rules! passed_on {
    ($($method:ident($request:ident) -> $answer:ty),+ $(,)?) => {$(
        fn $method(&mut self, request: $request) -> Reply<$answer> {
            self.tasks.$method(request)
        }
    )+};
}

impl Backend for Ledger {
    fn capabilities(&self) -> Capabilities {
        Capabilities { durable: true, ..self.tasks.capabilities() }
    }

    fn open(&mut self, request: Open) -> Reply<Opened> {
        let Reply::Now(Ok(opened)) = self.tasks.open(request) else { unreachable!("it is in memory") };
        Reply::Now(Ok(Opened { capabilities: self.capabilities(), ..opened }))
    }

    fn finish(&mut self, Finish { ends }: Finish) -> Reply<()> {
        match self.late.lock().unwrap().take() {
            Some(bell) => Reply::later(async move {
                bell.await.ok();
                Err(StoreError::unavailable("the disk was full"))
            }),
            None => {
                self.ends.lock().unwrap().extend(ends);
                Reply::Now(Ok(()))
            }
        }
    }

    passed_on! {
        put(Put) -> (), delete(Delete) -> StoredTask, get(Get) -> Option<StoredTask>,
        list(List) -> Vec<StoredTask>, take_due(TakeDue) -> Due, defer(Defer) -> Option<DateTime<Utc>>, commit(Commit) -> Committed,
        next_due(NextDue) -> Option<DateTime<Utc>>, runs(Runs) -> Vec<RunRecord>,
        remove_all(RemoveAll) -> usize, close(Close) -> (),
    }
}

#[actix::test]
async fn ends_that_a_dying_scheduler_was_writing_down_are_written() {
    let (bell, late) = oneshot::channel();
    let (ends, late) = (Ends::default(), Arc::new(Mutex::new(Some(late))));
    let ledger = Ledger { tasks: MemoryBackend::default(), ends: ends.clone(), late: late.clone() };
    let source = RecorderSource::new(&Ran::default());
    let (scheduler, time, _) =
        board(move |b| b.store("default", BackendSource::keeping(ledger)).executor("default", source)).await;
    let mut events = scheduler.events(EventMask::ALL).await.unwrap();
    scheduler.add(once()).await.unwrap();
    let turning = time.clone();
    let turn = async move { turning.advance(secs(10)).await };
    let crash = async {
        while late.lock().unwrap().is_some() {
            tokio::task::yield_now().await;
        }
        scheduler.send(Crash).await.unwrap_err();
        drop(bell);
    };
    futures::join!(turn, crash);
    revived(&time, &mut events).await;
    let written = ends.lock().unwrap();
    let written: Vec<_> = written.iter().map(|(_, task, end)| (task.as_str(), end.outcome.word())).collect();
    assert_eq!(written, [("once", "executed")]);
}

#[actix::test]
async fn a_run_in_doubt_ends_when_its_store_is_removed() {
    let faults = Faults::new();
    let store = BackendSource::keeping(faults.around(MemoryBackend::default()));
    let (scheduler, time, _) = board(move |b| b.store("default", store)).await;
    let mut events = scheduler.events(EventMask::ALL).await.unwrap();
    scheduler.add(once()).await.unwrap();
    let down = || StoreError::unavailable("the network is down");
    faults.lose(Op::Commit, down());
    (0..9).for_each(|_| faults.fail(Op::Open, down()));
    time.advance(secs(15)).await;
    assert_eq!(scheduler.status().await.unwrap().running, 1, "nobody knows yet");
    scheduler.remove_store("default").await.unwrap();
    time.settle().await;
    assert_eq!(scheduler.status().await.unwrap().running, 0);
    assert_eq!(outcomes(&heard(&mut events), "once"), ["interrupted"]);
}

#[actix::test]
async fn the_last_death_of_a_store_is_told_and_it_can_be_restored() {
    let faults = Faults::new();
    let store = BackendSource::keeping(faults.around(MemoryBackend::default()));
    let policy = RestartPolicy::on_failure().max(1, secs(3600));
    let (scheduler, time, ran) = board(move |b| b.store("default", store).restart(policy)).await;
    let mut events = scheduler.events(EventMask::ALL).await.unwrap();
    scheduler.add(every(10).id("a")).await.unwrap();
    faults.panic(Op::TakeDue);
    faults.panic(Op::TakeDue);
    time.advance(secs(100)).await;
    let told = heard(&mut events);
    let mut causes = told.iter().filter_map(|event| match event {
        Event::StoreUnavailable { cause, .. } => Some(cause.as_str()),
        _ => None,
    });
    let last = causes.next_back().unwrap_or_default();
    assert!(last.contains("for good") && last.contains("`RestoreStore`"), "{told:#?}");
    assert!(scheduler.status().await.unwrap().stores[0].problem.is_some());
    assert_eq!(faults.left(), 0);
    scheduler.send(RestoreStore("default".try_into().unwrap())).await.unwrap().unwrap();
    time.advance(secs(20)).await;
    assert!(ran.count("a") >= 2);
    assert_eq!(scheduler.status().await.unwrap().stores[0].problem, None);
    assert!(heard(&mut events).iter().any(|event| matches!(event, Event::StoreRecovered { .. })));
}
