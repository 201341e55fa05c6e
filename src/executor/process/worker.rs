//! Being a worker: what the processes of a [`ProcessPool`](super::super::ProcessPool) do.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use rustix::process::{Signal, getpgrp, getpid, kill_current_process_group};
use serde_json::Value;
use tokio::sync::mpsc;

use super::forward;
use super::keeper::{ASKED, name_of};
use super::remote::RemoteClock;
use super::wire::{Frames, FromWorker, Order, ToWorker, WireError, encode};
use crate::clock::{Busy, Clock};
use crate::executor::deadline::Keeper;
use crate::executor::job::{Desk, Job};
use crate::executor::reports::{Report, reports};
use crate::executor::slot::Instances;
use crate::task::{Alias, Outcome, Registry, Run, RunEnd, RunId, panics};

/// The status of a worker that cannot go on.
const CANNOT: i32 = 70;

/// Call this before anything else in `main` of a program that has a
/// [`ProcessPool`](super::super::ProcessPool), with the code that its tasks name.
///
/// In a process that a pool has started it serves runs and never returns; in any other it returns
/// at once, and `registry` is not called. A worker knows that it is one by its standard input, which
/// the variable `CALLBOARD_WORKER` names: programs that a worker starts inherit the variable, and are
/// no workers. It can be called in an asynchronous `main` as well.
///
/// Without the call a worker would be the whole program once more. The pool of such a program refuses
/// every run, and the one that has started it is told why.
///
/// ```
/// use callboard::executor::worker;
/// use callboard::task::{Registry, TaskContext};
///
/// fn registry() -> Registry {
///     Registry::new().register("greet", |_: TaskContext, name: String| async move { println!("hello, {name}") })
/// }
///
/// fn main() {
///     worker::run_if_asked(registry);
///     // Here the program begins.
/// }
/// ```
pub fn run_if_asked(registry: impl FnOnce() -> Registry + Send + 'static) {
    let Some(socket) = asked() else { return };
    // A stopped worker would not notice that its pool is gone: that wakes it. In any other state
    // the signal does nothing.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::CONT));
    // A thread of its own: the caller may be in a runtime already.
    let thread = std::thread::Builder::new().name("callboard-runs".to_owned());
    let status = match thread.spawn(move || serve(socket, registry)) {
        Ok(thread) => thread.join().unwrap_or(CANNOT),
        Err(_) => CANNOT,
    };
    std::process::exit(status);
}

/// The socket to the pool, when this process was started as a worker.
fn asked() -> Option<OwnedFd> {
    let name = std::env::var(ASKED).ok()?;
    let socket = std::io::stdin().as_fd().try_clone_to_owned().ok()?;
    let socket = File::from(socket);
    (name_of(&socket).ok()? == name).then(|| socket.into())
}

/// Whether this process was started as a worker and went on as if it were not. Its pool is told.
pub(super) fn unheeded() -> bool {
    let Some(socket) = asked() else { return false };
    let problem = "its `main` does not call `callboard::executor::worker::run_if_asked` before anything else"
        .to_owned();
    Outlet(Arc::new(Mutex::new(socket.into()))).say(&FromWorker::Broken { problem });
    true
}

/// Where a worker speaks.
#[derive(Clone)]
pub(super) struct Outlet(Arc<Mutex<UnixStream>>);

impl Outlet {
    fn socket(&self) -> MutexGuard<'_, UnixStream> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Says something that is short. When the pool is gone, the reading thread ends the process.
    pub(super) fn say(&self, message: &FromWorker) {
        let _ = self.try_say(message);
    }

    /// The run has failed.
    fn failed(&self, run: RunId, error: String) {
        let outcome = Outcome::Failed { error };
        let lasted = Duration::ZERO;
        self.say(&FromWorker::Ended { run, outcome, output: None, backtrace: None, took: None, lasted });
    }

    fn try_say(&self, message: &FromWorker) -> Result<(), WireError> {
        let frame = encode(message)?;
        let _ = self.socket().write_all(&frame);
        Ok(())
    }
}

/// The whole life of a worker; its status at the end.
fn serve(socket: OwnedFd, registry: impl FnOnce() -> Registry) -> i32 {
    let outlet = Outlet(Arc::new(Mutex::new(socket.into())));
    match prepare(&outlet, registry) {
        Ok(work) => actix_rt::System::new().block_on(work_off(work, &outlet)),
        Err(problem) => {
            outlet.say(&FromWorker::Broken { problem });
            return CANNOT;
        }
    }
    0
}

fn prepare(
    outlet: &Outlet,
    registry: impl FnOnce() -> Registry,
) -> Result<mpsc::UnboundedReceiver<Work>, String> {
    let failed = |error: std::io::Error| format!("it cannot set itself up: {error}");
    // What tasks read is not what the pool says, and what they start does not hold the socket.
    let nothing = File::open("/dev/null").map_err(failed)?;
    rustix::stdio::dup2_stdin(&nothing).map_err(|error| failed(error.into()))?;
    let ear = outlet.socket().try_clone().map_err(failed)?;
    panics::listen();
    forward::install(outlet.clone());
    let (orders, work) = mpsc::unbounded_channel();
    let known = Arc::new(OnceLock::new());
    let reader =
        Reader { ear, outlet: outlet.clone(), registry: known.clone(), orders: Some(orders), current: None };
    // Before the registry is made, which may take its time: the pool may be gone meanwhile.
    let thread = std::thread::Builder::new().name("callboard-orders".to_owned());
    thread.spawn(move || reader.listen()).map_err(failed)?;
    let registry = registry();
    registry.check().map_err(|error| error.to_string())?;
    let _ = known.set(registry);
    outlet.say(&FromWorker::Hello { version: env!("CARGO_PKG_VERSION").to_owned() });
    Ok(work)
}

/// A run that is to be done.
struct Work {
    run: Arc<Run>,
    executor: Alias,
    clock: Clock,
}

/// Does runs one after the other until there are no more.
async fn work_off(mut work: mpsc::UnboundedReceiver<Work>, outlet: &Outlet) {
    while let Some(work) = work.recv().await {
        let run = work.run.id;
        let Done { outcome, output, backtrace, took, lasted, busy } = carry_out(work).await;
        // What it has printed comes before its end.
        let _ = std::io::stdout().flush();
        let end = FromWorker::Ended { run, outcome, output, backtrace, took, lasted };
        if let Err(error) = outlet.try_say(&end) {
            outlet.failed(run, format!("the value it returned cannot leave the worker process: {error}"));
        }
        drop(busy);
    }
}

/// How a run ended.
struct Done {
    outcome: Outcome,
    output: Option<Box<Value>>,
    backtrace: Option<Box<str>>,
    took: Option<Duration>,
    lasted: Duration,
    busy: Busy,
}

async fn carry_out(Work { run, executor, clock }: Work) -> Done {
    let (ends, reports) = reports();
    let desk = Arc::new(Desk {
        alias: executor,
        scheduler: String::new(),
        clock: clock.clone(),
        ends,
        keeper: Keeper::default(),
    });
    if let Some(key) = Instances::default().admit(&run) {
        // Whether it is too late to begin was judged by the pool.
        Job::new(run.clone(), desk, key, clock.busy()).begin_anyhow().drive().await;
    }
    let mut ended = Vec::with_capacity(1);
    reports.read(&mut ended);
    match ended.pop() {
        Some(Report { end: RunEnd { outcome, output, backtrace, duration, .. }, busy, .. }) => {
            let took = run.work_over().map(|_| duration);
            Done { outcome, output, backtrace, took, lasted: duration, busy }
        }
        None => {
            let outcome = Outcome::Failed { error: "the run ended without an outcome".to_owned() };
            let lasted = Duration::ZERO;
            Done { outcome, output: None, backtrace: None, took: None, lasted, busy: clock.busy() }
        }
    }
}

/// Hears what the pool says, on a thread that no task can hold up.
struct Reader {
    ear: UnixStream,
    outlet: Outlet,
    /// Empty until the worker is ready; no run comes before.
    registry: Arc<OnceLock<Registry>>,
    orders: Option<mpsc::UnboundedSender<Work>>,
    /// The latest run.
    current: Option<(Arc<Run>, Option<Arc<RemoteClock>>)>,
}

impl Reader {
    fn listen(mut self) {
        let mut frames = Frames::default();
        let mut buffer = [0; 16 << 10];
        loop {
            match frames.next() {
                Ok(Some(message)) => self.hear(message),
                Ok(None) => match self.ear.read(&mut buffer) {
                    Ok(count @ 1..) => frames.push(&buffer[..count]),
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    // The pool is gone.
                    _ => end_with_the_group(),
                },
                Err(error) => {
                    let problem = format!("what the pool says cannot be understood: {error}");
                    self.outlet.say(&FromWorker::Broken { problem });
                    end_with_the_group();
                }
            }
        }
    }

    fn hear(&mut self, message: ToWorker) {
        match message {
            ToWorker::Run(order) => self.begin(*order),
            ToWorker::Cancel { run: id } => {
                if let Some((run, clock)) = self.current(id) {
                    if let Some(clock) = clock {
                        clock.called();
                    }
                    run.cancel();
                }
            }
            ToWorker::Ring { run: id, alarm, time } => {
                if let Some((_, Some(clock))) = self.current(id) {
                    clock.ring(alarm, time);
                }
            }
            ToWorker::Retire => self.orders = None,
        }
    }

    fn current(&self, id: RunId) -> Option<&(Arc<Run>, Option<Arc<RemoteClock>>)> {
        self.current.as_ref().filter(|(run, _)| run.id == id)
    }

    fn begin(&mut self, mut order: Order) {
        // That is the pool's to see to: it ends what the run has started as well.
        Arc::make_mut(&mut order.task).timeout = None;
        forward::want(&order.level);
        let code = match self.registry.get_or_init(Registry::new).find(order.task.handler.name()) {
            Ok(code) => code.clone(),
            Err(error) => {
                let error = format!("the registry of the worker process lacks its handler: {error}");
                return self.outlet.failed(order.id, error);
            }
        };
        let mut run = Run::new(order.id, order.task, order.store, order.nominal, code);
        run.due = order.due;
        run.offset = order.offset;
        run.coalesced = order.coalesced;
        run.source = order.source;
        run.attempt = order.attempt;
        run.beyond_max_instances = order.beyond_max_instances;
        let outlet = self.outlet.clone();
        run.on_cancel_grace(move |grace| outlet.say(&FromWorker::CancelGrace { run: order.id, grace }));
        let run = Arc::new(run);
        let remote = order.time.map(|time| Arc::new(RemoteClock::new(order.id, time, self.outlet.clone())));
        let clock = remote.clone().map_or_else(Clock::system, |remote| Clock::from_source(remote));
        self.current = Some((run.clone(), remote));
        self.outlet.say(&FromWorker::Begun { run: order.id });
        if let Some(orders) = &self.orders {
            let _ = orders.send(Work { run, executor: order.executor, clock });
        }
    }
}

/// Ends this process and every other one of its group.
fn end_with_the_group() -> ! {
    if getpgrp() == getpid() {
        let _ = kill_current_process_group(Signal::KILL);
    }
    std::process::exit(CANNOT)
}
