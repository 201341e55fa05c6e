use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::channel::{mpsc, oneshot};
use futures::future::{Either, FusedFuture, LocalBoxFuture, Shared, poll_fn, ready, select};
use futures::{FutureExt, StreamExt};
use serde_json::Value;

use super::panics::{Panic, catch, catch_in, listen};
use super::{AsyncCode, Failure, Task, TaskContext, TaskFuture, TaskReturn};
use crate::clock::{Busy, Clock};
use crate::timer;
use crate::trigger::IntoTrigger;

type SetUp<S> = Box<dyn Fn() -> LocalBoxFuture<'static, Result<S, Failure>> + Send + Sync>;
type Tick<S> =
    Box<dyn for<'a> Fn(&'a mut S, TaskContext) -> LocalBoxFuture<'a, Result<Value, Failure>> + Send + Sync>;
type CleanUp<S> = Box<dyn Fn(S) -> LocalBoxFuture<'static, Result<Value, Failure>> + Send + Sync>;

/// A task with a set-up, ticks, and a clean-up, around a state of your own: a connection that each
/// tick uses, say.
///
/// ```
/// use callboard::prelude::*;
/// use callboard::task::Lifecycle;
///
/// # #[actix::main]
/// # async fn main() -> Result<(), callboard::Error> {
/// use std::fs::File;
/// use std::io::Write;
///
/// let pulse = Lifecycle::new("pulse", async || File::options().append(true).open("/dev/null"))
///     .tick(Interval::seconds(10), async |log: &mut File, run: TaskContext| writeln!(log, "{}", run.nominal()))
///     .clean_up(async |mut log: File| log.flush());
///
/// let scheduler = Scheduler::builder().start().await?;
/// scheduler.add_lifecycle(pulse).await?;
/// # scheduler.shutdown(Shutdown::default()).await
/// # }
/// ```
///
/// - **Set-up** runs at each start of the scheduler, or at once when it is running. What it returns
///   is the state. When it fails, an event says so, there is nothing to clean up, and ticks fail
///   without being called; see [`set_up_again`](Self::set_up_again).
/// - **Ticks** are the runs of an ordinary task, whose id and handler are the lifecycle's name. They
///   have `&mut` to the state, one at a time: where several may run at once, they wait for each
///   other. A tick that fails, panics or is cut off leaves the state as it is then, and the next
///   tick has it.
/// - **Clean-up** runs once for each set-up that succeeded: at the shutdown, after the shutdown
///   triggers and the ends of all runs, however the scheduler is shut down; or after the last tick
///   when the task is removed. It owns the state, and may take
///   [its time](Self::clean_up_within). Without one, the state is dropped.
///
/// All three run on one arbiter, made for this lifecycle; the state never leaves it and need not be
/// `Send`. They may block their thread: nobody else is on it. The executor of the task decides when
/// a tick begins; it has to be one that runs code in this process.
///
/// Of several processes that share a store, each has its own set-up, state and clean-up; the ticks
/// come to that process whose store it is at the time.
pub struct Lifecycle<S> {
    name: String,
    set_up: SetUp<S>,
    set_up_again: bool,
    task: Task,
    tick: Option<Tick<S>>,
    clean_up: CleanUp<S>,
    clean_up_within: Duration,
}

impl<S: 'static> Lifecycle<S> {
    /// A lifecycle called `name`, which is the id and the handler of its task. `set_up` makes the
    /// state.
    pub fn new<F, E>(name: impl Into<String>, set_up: F) -> Self
    where
        F: AsyncFn() -> Result<S, E> + Send + Sync + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        let name = name.into();
        let task = Task::new(&name).id(name.as_str()).replace_existing(true);
        let set_up = Arc::new(set_up);
        Self {
            name,
            set_up: Box::new(move || {
                let set_up = set_up.clone();
                async move {
                    let made = set_up().await;
                    made.map_err(|error| Failure::from_error(&*error.into()))
                }
                .boxed_local()
            }),
            set_up_again: false,
            task,
            tick: None,
            clean_up: Box::new(|state| {
                drop(state);
                ready(Ok(Value::Null)).boxed_local()
            }),
            clean_up_within: Duration::from_secs(30),
        }
    }

    /// What is done at each run time of `trigger`. Every lifecycle has this.
    pub fn tick<F, R>(mut self, trigger: impl IntoTrigger, tick: F) -> Self
    where
        F: AsyncFn(&mut S, TaskContext) -> R + Send + Sync + 'static,
        R: TaskReturn + 'static,
    {
        let tick = Arc::new(tick);
        self.task = self.task.trigger(trigger);
        self.tick = Some(Box::new(move |state, run| {
            let tick = tick.clone();
            async move { tick(state, run).await.into_result() }.boxed_local()
        }));
        self
    }

    /// What is done with the state in the end.
    pub fn clean_up<F, R>(mut self, clean_up: F) -> Self
    where
        F: AsyncFn(S) -> R + Send + Sync + 'static,
        R: TaskReturn + 'static,
    {
        let clean_up = Arc::new(clean_up);
        self.clean_up = Box::new(move |state| {
            let clean_up = clean_up.clone();
            async move { clean_up(state).await.into_result() }.boxed_local()
        });
        self
    }

    /// How long the clean-up may take before it is cut off. Default: 30 s. A shutdown waits for it
    /// within its own grace, and at least a moment; after that it goes on in the background, for as
    /// long as the program lives.
    pub fn clean_up_within(mut self, time: Duration) -> Self {
        self.clean_up_within = time;
        self
    }

    /// Whether a set-up that failed is tried again before the next tick. Default: no; it is tried
    /// again at the next start.
    pub fn set_up_again(mut self, again: bool) -> Self {
        self.set_up_again = again;
        self
    }

    /// Sets options of the ticks' task: its store, its executor, and so on.
    pub fn task(mut self, set: impl FnOnce(Task) -> Task) -> Self {
        self.task = set(self.task);
        self
    }

    /// Waits for the set-up; `None` when the end came first, which drops it.
    async fn begin(&self, stage: &mut LifeStage) -> Option<Result<S, Failure>> {
        let mut made = catch_in((self.set_up)());
        let made = poll_fn(|cx| {
            // A virtual clock stands still while the set-up works, not while it waits.
            let working = stage.busy.take().unwrap_or_else(|| stage.clock.busy());
            if stage.end.poll_unpin(cx).is_ready() {
                return Poll::Ready(None);
            }
            stage.ticks.take_in(cx);
            let made = made.poll_unpin(cx);
            if made.is_ready() {
                stage.busy = Some(working);
            }
            made.map(Some)
        });
        let made = made.await?.unwrap_or_else(|panic| Err(panicked(panic)));
        (stage.tell)(LifeStep::SetUp, made.as_ref().map(drop).map_err(Failure::clone));
        Some(made)
    }

    /// The next run that asks for a tick; `None` when it is time to clean up.
    async fn next(&self, stage: &mut LifeStage) -> Option<TickOrder> {
        poll_fn(|cx| {
            if stage.end.is_terminated() || stage.end.poll_unpin(cx).is_ready() {
                return Poll::Ready(None);
            }
            let next = stage.ticks.poll_next(cx);
            // What held the clock until here is passed on to the run, or is over.
            if let Poll::Ready(Some(order)) = &next {
                order.run.set_working(true);
            }
            stage.busy = None;
            next
        })
        .await
    }

    /// One tick; nothing when nobody waits for it any more.
    async fn carry_out(
        &self,
        state: &mut S,
        run: TaskContext,
        ticks: &mut TickQueue,
        answer: &mut oneshot::Sender<Ticked>,
    ) -> Option<Ticked> {
        let tick = self.tick.as_ref()?;
        let mut work = catch_in(async move { tick(state, run).await }.boxed_local());
        let ticked = poll_fn(|cx| {
            ticks.take_in(cx);
            match work.poll_unpin(cx) {
                Poll::Pending => answer.poll_canceled(cx).map(|()| None),
                ticked => ticked.map(Some),
            }
        });
        match ticked.await {
            Some(ticked) => Some(ticked),
            None => {
                // Its drop is the user's code and may panic; the state is to outlive that.
                if let Err(Panic { message, .. }) = catch(|| drop(work)) {
                    tracing::error!(lifecycle = %self.name, panic = %message, "a tick panicked while it was cut off");
                }
                None
            }
        }
    }

    async fn live(&self, mut stage: LifeStage) {
        listen();
        wait_for_the_last(&mut stage).await;
        let Some(mut state) = self.begin(&mut stage).await else { return };
        loop {
            let Some(TickOrder { run, mut answer, .. }) = self.next(&mut stage).await else { break };
            if state.is_err() && self.set_up_again {
                stage.busy = Some(stage.clock.busy());
                run.set_working(false);
                match self.begin(&mut stage).await {
                    Some(made) => state = made,
                    None => break,
                }
                run.set_working(true);
                stage.busy = None;
            }
            let ticked = match &mut state {
                Ok(state) => self.carry_out(state, run, &mut stage.ticks, &mut answer).await,
                Err(cause) => Some(Ok(Err(Failure::new(format!("its set-up failed: {cause}"))))),
            };
            stage.busy = Some(stage.clock.busy());
            if let Some(ticked) = ticked {
                // Whoever asked may be gone.
                answer.send(ticked).ok();
            }
        }
        let Ok(state) = state else { return };
        let work = catch_in((self.clean_up)(state));
        let limit = timer::sleep_as_limit(&stage.clock, self.clean_up_within);
        let cleaned = match select(Box::pin(work), Box::pin(limit)).await {
            Either::Left((cleaned, _)) => cleaned.unwrap_or_else(|panic| Err(panicked(panic))),
            Either::Right(_) => {
                Err(Failure::new(format!("it took longer than {} ms", self.clean_up_within.as_millis())))
            }
        };
        (stage.tell)(LifeStep::CleanUp, cleaned.map(drop));
    }
}

/// Two lives of one lifecycle do not overlap.
async fn wait_for_the_last(stage: &mut LifeStage) {
    let Some(mut before) = stage.before.take() else { return };
    poll_fn(|cx| {
        stage.ticks.take_in(cx);
        let ended = before.poll_unpin(cx).map(drop);
        if ended.is_pending() {
            // It may wait for the clock.
            stage.busy = None;
        }
        ended
    })
    .await;
}

fn panicked(panic: Panic) -> Failure {
    Failure::new(format!("it panicked: {}", panic.message))
}

impl<S> fmt::Debug for Lifecycle<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lifecycle").field("task", &self.task).finish_non_exhaustive()
    }
}

type Ticked = Result<Result<Value, Failure>, Panic>;

/// What came of a step of a lifecycle.
pub(crate) type Told = Box<dyn Fn(LifeStep, Result<(), Failure>)>;

/// The steps of a lifecycle that are not runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LifeStep {
    SetUp,
    CleanUp,
}

/// Ends when a life has.
pub(crate) type LifeEnded = Shared<oneshot::Receiver<()>>;

/// What one life of a lifecycle is given.
pub(crate) struct LifeStage {
    /// The life before, which may not have ended yet.
    pub(crate) before: Option<LifeEnded>,
    pub(crate) ticks: TickQueue,
    /// Sent, or dropped, when it is time to clean up.
    pub(crate) end: oneshot::Receiver<()>,
    pub(crate) clock: Clock,
    /// Keeps a virtual clock still while the life is between two steps; at first until the set-up
    /// has begun.
    pub(crate) busy: Option<Busy>,
    pub(crate) tell: Told,
}

/// A run asks for a tick.
pub(crate) struct TickOrder {
    run: TaskContext,
    answer: oneshot::Sender<Ticked>,
    /// Keeps a virtual clock still until the order is known here.
    sent: Busy,
}

/// The runs that ask for a tick, in order. One that has to wait holds up no virtual clock, for
/// what it waits for may wait for the clock.
pub(crate) struct TickQueue {
    orders: mpsc::UnboundedReceiver<TickOrder>,
    waiting: VecDeque<TickOrder>,
}

impl TickQueue {
    pub(crate) fn new(orders: mpsc::UnboundedReceiver<TickOrder>) -> Self {
        Self { orders, waiting: VecDeque::new() }
    }

    /// Takes notice of the orders that have come.
    fn take_in(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(mut order)) = self.orders.poll_next_unpin(cx) {
            order.sent = Busy::default();
            self.waiting.push_back(order);
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<TickOrder>> {
        match self.waiting.pop_front() {
            Some(order) => Poll::Ready(Some(order)),
            None => self.orders.poll_next_unpin(cx),
        }
    }
}

/// A lifecycle whatever its state.
#[derive(Clone)]
pub(crate) struct AnyLifecycle {
    pub(crate) task: Task,
    life: Arc<dyn Live>,
}

trait Live: Send + Sync {
    fn live(self: Arc<Self>, stage: LifeStage) -> LocalBoxFuture<'static, ()>;
}

impl<S: 'static> Live for Lifecycle<S> {
    fn live(self: Arc<Self>, stage: LifeStage) -> LocalBoxFuture<'static, ()> {
        async move { Lifecycle::live(&self, stage).await }.boxed_local()
    }
}

impl<S: 'static> From<Lifecycle<S>> for AnyLifecycle {
    fn from(lifecycle: Lifecycle<S>) -> Self {
        Self { task: lifecycle.task.clone(), life: Arc::new(lifecycle) }
    }
}

impl AnyLifecycle {
    /// One life, from the set-up to the clean-up: on the thread where it is polled.
    pub(crate) fn live(&self, stage: LifeStage) -> LocalBoxFuture<'static, ()> {
        self.life.clone().live(stage)
    }
}

/// The code of the ticks' task: asks the life for a tick.
pub(crate) struct TickCode(pub(crate) mpsc::UnboundedSender<TickOrder>);

impl AsyncCode for TickCode {
    fn call(&self, run: TaskContext, _: &Value) -> TaskFuture {
        let (answer, ticked) = oneshot::channel();
        let sent = run.clock().busy();
        run.set_working(false);
        let ordered = self.0.unbounded_send(TickOrder { run, answer, sent });
        async move {
            let gone = || Failure::Interrupted("the lifecycle was ended before the tick was".to_owned());
            ordered.map_err(|_| gone())?;
            match ticked.await {
                Ok(Ok(result)) => result,
                // Goes on to the run, which it ends as panicked.
                Ok(Err(panic)) => panic.pass_on(),
                Err(_) => Err(gone()),
            }
        }
        .boxed_local()
    }
}
