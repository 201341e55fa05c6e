//! The code that the suite has run: by name, so that it is there in other processes as well.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use futures::channel::oneshot;

use super::Stage;
use crate::task::{Handler, Outcome, Registry, Run, TaskContext, TaskSpec};

/// The code that [`suite`](super::suite) has run. An executor that runs code elsewhere than in the
/// process of the test needs it there.
pub fn registry() -> Registry {
    Registry::new()
        .register("ok", |_: TaskContext, ()| async {})
        .register("sent", |_: TaskContext, ()| async { Ok::<_, Unsent>("sent") })
        .register_blocking("sent, blocking", |_: TaskContext, ()| Ok::<_, Unsent>("sent"))
        .register("failing", |_: TaskContext, ()| async { failing() })
        .register_blocking("failing, blocking", |_: TaskContext, ()| failing())
        .register("fright", |_: TaskContext, ()| async { fright() })
        .register_blocking("fright, blocking", |_: TaskContext, ()| fright())
        .register("fright at once", |context: TaskContext, ()| {
            // Before there is a future.
            assert!(context.is_cancelled(), "not now");
            async {}
        })
        .register("fright without words", |_: TaskContext, ()| async { wordless() })
        .register("bomb", |_: TaskContext, ()| {
            let bomb = Bomb;
            std::future::poll_fn(move |_| {
                let _held = &bomb;
                std::task::Poll::Ready(())
            })
        })
        .register("number", |_: TaskContext, _: u32| async {})
        .register("sleep", |context: TaskContext, seconds: u64| async move {
            context.sleep(Duration::from_secs(seconds)).await;
        })
        .register("gated", |_: TaskContext, gate: SocketAddr| pass(gate))
        .register_blocking("gated, blocking", |_: TaskContext, gate: SocketAddr| {
            // Does not care whether it is asked to stop.
            let passed = TcpStream::connect(gate).and_then(|mut gate| gate.read_exact(&mut [0]));
            passed.map_err(|error| error.to_string())
        })
        .register("in time", |context: TaskContext, ms: u64| async move {
            context.sleep(Duration::from_millis(ms)).await;
            Ok::<_, String>(context.is_cancelled())
        })
        .register("endless", |_: TaskContext, ()| std::future::pending::<()>())
        .register("shows", |context: TaskContext, ()| async move { context.set_output("in vain".into()) })
        .register("shows and fails", |context: TaskContext, ()| async move {
            context.set_output("a part".into());
            context.set_output("all of it".into());
            Err::<(), _>("no luck")
        })
        .register("shows and panics", |context: TaskContext, ()| async move {
            context.set_output("a part".into());
            fright()
        })
        .register("tidy", |context: TaskContext, gates: [SocketAddr; 2]| {
            put_away(context, gates, Duration::from_secs(600))
        })
        .register("untidy", |context: TaskContext, gates: [SocketAddr; 2]| {
            put_away(context, gates, Duration::from_millis(20))
        })
        .register_blocking("stubborn", |context: TaskContext, ()| {
            // Blocks until it is asked to stop.
            while !context.is_cancelled() {
                std::thread::yield_now();
            }
            Err::<(), _>("asked to stop")
        })
}

/// Handlers of both kinds, and how they end.
pub(super) fn all_endings() -> Vec<(&'static str, Outcome)> {
    let text = || Outcome::Executed { value: "sent".into() };
    let failed = || Outcome::Failed {
        error: Unsent(std::fmt::Error).to_string() + ": " + &std::fmt::Error.to_string(),
    };
    let panicked = |message: &str| Outcome::Panicked { message: message.to_owned() };
    vec![
        ("sent", text()),
        ("sent, blocking", text()),
        ("failing", failed()),
        ("failing, blocking", failed()),
        ("fright", panicked("stage fright")),
        ("fright, blocking", panicked("stage fright")),
        ("fright at once", panicked("not now")),
        ("fright without words", panicked("(a value that is not text)")),
        // What the future holds panics when the future is dropped.
        ("bomb", panicked("dropped")),
    ]
}

impl Stage {
    /// A run of `task` with one of the suite's handlers, due now.
    pub(super) fn part(&mut self, task: &Arc<TaskSpec>, handler: &str) -> Run {
        self.part_with(task, handler, serde_json::Value::Null)
    }

    pub(super) fn part_with(
        &mut self,
        task: &Arc<TaskSpec>,
        handler: &str,
        args: impl Into<serde_json::Value>,
    ) -> Run {
        static REGISTRY: OnceLock<Registry> = OnceLock::new();
        let code = REGISTRY.get_or_init(registry).find(handler).expect("the suite has it");
        let handler = Handler::Named(handler.into());
        let task = Arc::new(TaskSpec { handler, args: args.into(), ..TaskSpec::clone(task) });
        self.run(&task, code)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the letter was not sent")]
struct Unsent(#[source] std::fmt::Error);

fn failing() -> Result<(), Unsent> {
    Err(Unsent(std::fmt::Error))
}

fn fright() {
    panic!("stage {}", "fright")
}

fn wordless() {
    std::panic::panic_any(7)
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("dropped");
        }
    }
}

/// Lets runs pass, in whatever process they are, as many as the test says.
pub(super) struct Gate {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<TcpStream>,
    peak: usize,
    permits: usize,
    closed: bool,
}

impl Gate {
    pub(super) fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::<Mutex<State>>::default();
        let gate = Self { address, state: state.clone() };
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut state = lock(&state);
                if state.closed {
                    break;
                }
                state.waiting.push_back(stream);
                state.peak = state.peak.max(state.waiting.len());
                state.let_pass();
            }
        });
        gate
    }

    /// Lets so many runs pass that wait, or will.
    pub(super) fn open(&self, runs: usize) {
        let mut state = lock(&self.state);
        state.permits += runs;
        state.let_pass();
    }

    /// Waits until a run waits here.
    pub(super) async fn reached(&self) {
        while lock(&self.state).waiting.is_empty() {
            tokio::task::yield_now().await;
        }
    }

    /// The most runs that have waited at once.
    pub(super) fn peak(&self) -> usize {
        lock(&self.state).peak
    }

    /// What a run that is to wait takes as its argument.
    pub(super) fn args(&self) -> String {
        self.address.to_string()
    }
}

impl State {
    fn let_pass(&mut self) {
        while self.permits > 0
            && let Some(mut run) = self.waiting.pop_front()
        {
            self.permits -= 1;
            run.write_all(b"!").expect("it waits");
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        lock(&self.state).closed = true;
        // Wakes the thread up to see it.
        let _ = TcpStream::connect(self.address);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Waits until it is asked to stop, and then for its second gate, for which it has `grace`.
async fn put_away(
    context: TaskContext,
    [entry, exit]: [SocketAddr; 2],
    grace: Duration,
) -> Result<(), &'static str> {
    context.set_cancel_grace(grace);
    context.set_output("half done".into());
    pass(entry).await;
    context.cancelled().await;
    pass(exit).await;
    Err("it was put away")
}

/// Waits at a gate; on a thread, because this needs no runtime.
async fn pass(gate: SocketAddr) {
    let (passed, wait) = oneshot::channel();
    std::thread::spawn(move || {
        if let Ok(mut gate) = TcpStream::connect(gate)
            && let Ok(1) = gate.read(&mut [0])
        {
            let _ = passed.send(());
        }
    });
    if wait.await.is_err() {
        std::future::pending::<()>().await;
    }
}
