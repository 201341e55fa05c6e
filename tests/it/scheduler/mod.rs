//! The scheduler through its handle, on the virtual clock.

mod absurd;
mod ahead;
mod backfill;
mod bounds;
mod cancel;
mod combined;
mod control;
mod curtain;
mod deaths;
mod dense;
mod faults;
mod hours;
mod late;
mod law;
mod lifecycle;
mod lines;
mod model;
mod overlap;
mod partial;
mod policies;
mod readded;
mod recover;
mod retry;
mod standstill;
mod starved;
mod supervised;
mod told;
mod trouble;
mod upheaval;
mod waiting;
mod why;
mod window;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::prelude::*;
use callboard::executor::message::*;
use callboard::executor::{ExecutorAddr, ExecutorSource, Keep};
use callboard::prelude::*;
use callboard::scheduler::Builder;
use callboard::task::{RunEnd, TaskId};
use callboard::testing::VirtualClock;
use chrono::{DateTime, Utc};

pub(crate) const START: &str = "2027-01-01T00:00:00Z";

/// What ran, for which nominal times.
#[derive(Clone, Default)]
pub(crate) struct Ran(Arc<Mutex<BTreeMap<TaskId, Vec<DateTime<Utc>>>>>);

impl Ran {
    fn note(&self, id: &TaskId, nominal: DateTime<Utc>) {
        self.0.lock().unwrap().entry(id.clone()).or_default().push(nominal);
    }

    pub(crate) fn of(&self, id: &str) -> Vec<DateTime<Utc>> {
        self.0.lock().unwrap().get(id).cloned().unwrap_or_default()
    }

    pub(crate) fn count(&self, id: &str) -> usize {
        self.of(id).len()
    }

    /// A registry with handlers `note` (notes the run), `fail`, `panic`, and `hang` (until it is
    /// cancelled or cut off).
    pub(crate) fn registry(&self) -> Registry {
        let ran = self.clone();
        Registry::new()
            .register("note", move |run: TaskContext, _: serde_json::Value| {
                ran.note(run.task_id(), run.nominal());
                async {}
            })
            .register("fail", |_: TaskContext, ()| async { Err::<(), _>("no paper") })
            .register("panic", |_: TaskContext, ()| async {
                if true {
                    panic!("out of ink");
                }
            })
            .register("hang", |run: TaskContext, ()| async move {
                run.sleep(Duration::from_secs(1_000_000)).await
            })
            // Ends well at the attempt its argument names.
            .register("flaky", |run: TaskContext, attempt: u32| async move {
                if run.attempt() < attempt { Err(format!("attempt {}", run.attempt())) } else { Ok(()) }
            })
            .register("nap", |run: TaskContext, seconds: u64| async move {
                run.sleep(Duration::from_secs(seconds)).await;
            })
    }
}

/// A scheduler with a memory store on a virtual clock that starts at [`START`].
pub(crate) async fn board(set: impl FnOnce(Builder) -> Builder) -> (Handle, VirtualClock, Ran) {
    let time = VirtualClock::starting_at(START);
    let ran = Ran::default();
    let builder = Scheduler::builder().clock(time.clock()).registry(ran.registry());
    let scheduler = set(builder).start().await.unwrap();
    (scheduler, time, ran)
}

pub(super) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// The scheduler of another process, on the files that one has left; with all its events.
pub(super) async fn successor(time: &VirtualClock, ran: &Ran, left: &Path) -> (Handle, EventStream) {
    let next = Scheduler::builder()
        .clock(time.clock())
        .registry(ran.registry())
        .store("default", callboard::store::SledStore::open(left).unwrap())
        .build()
        .unwrap();
    let events = next.events(EventMask::ALL).await.unwrap();
    next.start().await.unwrap();
    (next, events)
}

pub(crate) fn every(seconds: u64) -> Task {
    Task::new("note").trigger(Interval::seconds(seconds))
}

pub(crate) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(START).unwrap().to_utc() + chrono::TimeDelta::seconds(seconds)
}

/// Turns the clock, second after second, until `work` has ended: a request is on its way to another
/// thread for a while that the clock does not know of.
pub(crate) async fn turning<T>(time: &VirtualClock, work: impl Future<Output = T>) -> T {
    let turn = async {
        loop {
            time.advance(secs(1)).await;
            tokio::task::yield_now().await;
        }
    };
    match futures::future::select(std::pin::pin!(work), std::pin::pin!(turn)).await {
        futures::future::Either::Left((done, _)) => done,
        futures::future::Either::Right((never, _)) => never,
    }
}

/// The events that are there by now.
pub(crate) fn heard(stream: &mut EventStream) -> Vec<Event> {
    use futures::{FutureExt, StreamExt};
    std::iter::from_fn(|| stream.next().now_or_never().flatten()).collect()
}

/// An executor of the user's own: notes each run when it is submitted, and ends it at once.
/// A task called `bomb` may make it panic.
pub(crate) struct Recorder {
    ran: Ran,
    bomb: bool,
    notices: Option<Recipient<RunsEnded>>,
    clock: Clock,
    _keep: Keep,
}

#[derive(Clone)]
pub(crate) struct RecorderSource {
    ran: Ran,
    bomb: bool,
}

impl RecorderSource {
    pub(crate) fn new(ran: &Ran) -> Self {
        Self { ran: ran.clone(), bomb: false }
    }

    pub(crate) fn with_bomb(ran: &Ran) -> Self {
        Self { ran: ran.clone(), bomb: true }
    }
}

impl ExecutorSource for RecorderSource {
    fn start(&mut self, keep: Keep) -> ExecutorAddr {
        let (ran, bomb) = (self.ran.clone(), self.bomb);
        ExecutorAddr::new(Recorder { ran, bomb, notices: None, clock: Clock::system(), _keep: keep }.start())
    }
}

impl Actor for Recorder {
    type Context = Context<Self>;
}

impl Handler<Attach> for Recorder {
    type Result = ();
    fn handle(&mut self, attach: Attach, _: &mut Self::Context) {
        self.notices = Some(attach.notices);
        self.clock = attach.clock;
    }
}

impl Handler<Submit> for Recorder {
    type Result = ();
    fn handle(&mut self, Submit { runs, busy, .. }: Submit, _: &mut Self::Context) {
        let is_bomb = |run: &Arc<callboard::task::Run>| run.task.id.as_str() == "bomb";
        assert!(!(self.bomb && runs.iter().any(is_bomb)), "boom");
        let now = self.clock.now();
        let end = |run: Arc<callboard::task::Run>| {
            self.ran.note(&run.task.id, run.nominal);
            let outcome = Outcome::Executed { value: serde_json::Value::Null };
            (run, RunEnd { started_at: Some(now), ..RunEnd::unstarted(outcome, now) })
        };
        let ends = runs.into_iter().map(end).collect();
        self.notices.as_ref().unwrap().do_send(RunsEnded { ends, busy });
    }
}

impl Handler<Cancel> for Recorder {
    type Result = bool;
    fn handle(&mut self, _: Cancel, _: &mut Self::Context) -> bool {
        false
    }
}

impl Handler<Drain> for Recorder {
    type Result = MessageResult<Drain>;
    fn handle(&mut self, _: Drain, _: &mut Self::Context) -> Self::Result {
        MessageResult(Drained::default())
    }
}

impl Handler<Status> for Recorder {
    type Result = MessageResult<Status>;
    fn handle(&mut self, _: Status, _: &mut Self::Context) -> Self::Result {
        MessageResult(ExecutorStatus::default())
    }
}
