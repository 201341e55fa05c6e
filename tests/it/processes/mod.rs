//! The process pool, with real processes: this test binary again, running only the test
//! `act_as_a_worker`.

mod crashes;
mod logs;
mod odd;
mod orphans;
mod pool;
mod stopping;
mod zones;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::System;
use callboard::executor::contract::{self, Limits, Stage, suite, task};
use callboard::executor::{ProcessPool, worker};
use callboard::task::{Handler, Outcome, Registry, Run, RunEnd, TaskContext, TaskSpec};
use callboard::testing::VirtualClock;
use rustix::process::{Pid, Signal, getpid, kill_process};
use serde_json::{Value, json};

/// How long anything may take before a test gives up on it.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
#[ignore = "the worker of the other tests"]
fn act_as_a_worker() {
    worker::run_if_asked(registry);
}

fn worker_args() -> [&'static str; 4] {
    ["--exact", "processes::act_as_a_worker", "--nocapture", "--ignored"]
}

fn pool(workers: usize) -> ProcessPool {
    ProcessPool::new(workers).program(std::env::current_exe().unwrap()).args(worker_args())
}

/// What the workers can do.
fn registry() -> Registry {
    contract::registry()
        .register("pid", |_: TaskContext, ()| async { Ok::<_, String>(std::process::id()) })
        .register("echo", |_: TaskContext, value: Value| async { Ok::<_, String>(value) })
        .register("local", |run: TaskContext, _: Value| async move {
            Ok::<_, String>(run.local_time().to_string())
        })
        .register("context", |run: TaskContext, ()| async move { Ok::<_, String>(context(&run)) })
        .register_blocking("exit", |_: TaskContext, status: i32| -> () { std::process::exit(status) })
        .register_blocking("abort", |_: TaskContext, ()| -> () { std::process::abort() })
        .register_blocking("signal", |_: TaskContext, signal: i32| {
            let signal = Signal::from_named_raw(signal).ok_or("no such signal")?;
            // The first SIGSEGV goes to the handler that looks for overflows of the stack.
            for _ in 0..100 {
                kill_process(getpid(), signal).map_err(|error| error.to_string())?;
                std::thread::sleep(Duration::from_millis(10));
            }
            Err::<(), _>("still alive".to_owned())
        })
        .register_blocking("hang", |_: TaskContext, note: String| {
            write(&note, std::process::id());
            std::thread::sleep(Duration::from_secs(3600));
        })
        .register("ignore SIGTERM", |_: TaskContext, note: String| async move {
            let terminate = tokio::signal::unix::SignalKind::terminate();
            let _handled = tokio::signal::unix::signal(terminate).unwrap();
            write(&note, std::process::id());
            std::thread::sleep(Duration::from_secs(3600));
        })
        .register("ignore SIGTERM, sleeping", |run: TaskContext, note: String| async move {
            let terminate = tokio::signal::unix::SignalKind::terminate();
            let _handled = tokio::signal::unix::signal(terminate).unwrap();
            write(&note, std::process::id());
            run.sleep(Duration::from_secs(3600)).await;
        })
        .register_blocking("family", |_: TaskContext, note: String| {
            start_a_family(&note);
            std::thread::sleep(Duration::from_secs(3600));
        })
        .register("sleeping family", |run: TaskContext, note: String| async move {
            start_a_family(&note);
            run.sleep(Duration::from_secs(3600)).await;
        })
        .register_blocking("note", |_: TaskContext, note: String| write(&note, std::process::id()))
        .register("talk", |_: TaskContext, ()| async { logs::talk() })
        .register("babble", |_: TaskContext, lines: usize| async move {
            (0..lines).for_each(|line| println!("line {line}"));
        })
        .register("heed SIGTERM", |run: TaskContext, note: String| async move {
            let terminate = tokio::signal::unix::SignalKind::terminate();
            let mut asked = tokio::signal::unix::signal(terminate).unwrap();
            odd::start_a_tidy_child(&note);
            let sleep = run.sleep(Duration::from_secs(3600));
            futures::future::select(Box::pin(sleep), Box::pin(asked.recv())).await;
        })
        .register_blocking("flood", |_: TaskContext, how: String| odd::flood(&how))
        .register_blocking("leave and abort", |_: TaskContext, note: String| -> () {
            std::thread::spawn(move || odd::leave_and_abort(&note));
            std::thread::sleep(Duration::from_secs(1));
            std::process::abort()
        })
        .register_blocking("close output", |_: TaskContext, ()| odd::close_output())
        .register(
            "nested",
            |_: TaskContext, levels: usize| async move { Ok::<_, String>(odd::nested(levels)) },
        )
        .register_blocking("last words", |_: TaskContext, note: String| {
            write(&note, std::process::id());
            println!("the end is near");
            std::thread::sleep(Duration::from_secs(3600));
        })
        .register("big", |_: TaskContext, bytes: usize| async move { Ok::<_, String>("x".repeat(bytes)) })
        .register_blocking("environment", |_: TaskContext, name: String| {
            let mut typed = String::new();
            std::io::stdin().read_line(&mut typed).map_err(|error| error.to_string())?;
            Ok::<_, String>(json!([std::env::var(name).ok(), typed]))
        })
}

/// Starts a child that does not mind SIGTERM, and a child of that one.
#[expect(clippy::zombie_processes, reason = "that it is left behind is the point")]
fn start_a_family(note: &str) {
    let script = "trap '' TERM; sleep 3600 & echo $! > \"$1\"; wait; sleep 3600";
    let child = Command::new("sh").args(["-c", script, "sh", note]).spawn().unwrap();
    write(&format!("{note}.pids"), json!([std::process::id(), child.id()]));
}

fn context(run: &TaskContext) -> Value {
    let whole = run.run();
    json!({
        "task": run.task_id(), "run": run.run_id(), "nominal": run.nominal(), "due": whole.due,
        "attempt": run.attempt(), "source": run.source(), "coalesced": whole.coalesced,
        "store": whole.store, "beyond_max_instances": whole.beyond_max_instances, "userdata": whole.task.userdata,
        "now": run.clock().now(),
    })
}

/// Writes all at once: whoever sees the file sees all of it.
fn write(path: &str, value: impl ToString) {
    let draft = format!("{path}.draft");
    fs::write(&draft, value.to_string()).unwrap();
    fs::rename(draft, path).unwrap();
}

fn on_stage(test: impl Future<Output = ()>) {
    System::new().block_on(test);
}

/// A pool at work, on a virtual clock.
struct Play {
    stage: Stage,
    time: VirtualClock,
}

impl Play {
    async fn new(mut pool: ProcessPool) -> Self {
        let time = VirtualClock::starting_at("2026-03-01T08:00:00Z");
        Self { stage: Stage::new(&mut pool, time.clock()).await, time }
    }

    fn run(&mut self, handler: &str, args: impl Into<Value>) -> Run {
        let task = task(handler, |task| task.max_instances(100));
        let named = Handler::Named(handler.into());
        let task = Arc::new(TaskSpec { handler: named, args: args.into(), ..TaskSpec::clone(&task) });
        let registry = registry();
        // A handler that only the pool's process knows.
        let code = registry.find(handler).or_else(|_| registry.find("ok")).unwrap();
        self.stage.run(&task, code)
    }

    async fn submit(&mut self, handler: &str, args: impl Into<Value>) -> Arc<Run> {
        let run = Arc::new(self.run(handler, args));
        self.stage.submit_shared(vec![run.clone()]).await;
        run
    }

    async fn end(&mut self) -> RunEnd {
        self.stage.end().await.1
    }

    /// Runs `handler`, alone, to its end; no instance is left.
    async fn outcome(&mut self, handler: &str, args: impl Into<Value>) -> Outcome {
        let run = self.submit(handler, args).await;
        let (ended, end) = self.stage.end().await;
        assert_eq!(ended.id, run.id);
        self.stage.is_empty().await;
        end.outcome
    }

    async fn value(&mut self, handler: &str, args: impl Into<Value>) -> Value {
        match self.outcome(handler, args).await {
            Outcome::Executed { value } => value,
            other => panic!("{handler}: {other:?}"),
        }
    }

    async fn error(&mut self, handler: &str, args: impl Into<Value>) -> String {
        match self.outcome(handler, args).await {
            Outcome::Failed { error } => error,
            other => panic!("{handler}: {other:?}"),
        }
    }

    async fn pid(&mut self) -> i32 {
        self.value("pid", Value::Null).await.as_i64().unwrap().try_into().unwrap()
    }
}

/// Looks again and again until there is something.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(begin.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What a task has written.
fn noted(path: &Path) -> String {
    until(&format!("a note at {}", path.display()), || fs::read_to_string(path).ok())
}

fn noted_pid(path: &Path) -> i32 {
    noted(path).trim().parse().unwrap()
}

/// The pids of a `family`.
fn noted_family(path: &Path) -> Vec<i32> {
    let mut family: Vec<i32> = serde_json::from_str(&noted(&path.with_extension("pids"))).unwrap();
    family.push(until("the pid of the grandchild", || fs::read_to_string(path).ok()?.trim().parse().ok()));
    assert!(family.iter().all(|pid| lives(*pid)), "{family:?}");
    family
}

/// A process of its own that runs one of the ignored tests; the variable tells it that it is asked to.
fn apart(test: &str, variable: &str, place: &Path) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--ignored"])
        .env(variable, place)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn lives(pid: i32) -> bool {
    crate::cli::alive(&pid.to_string())
}

fn gone(pids: &[i32]) {
    until(&format!("the end of {pids:?}"), || pids.iter().all(|pid| !lives(*pid)).then_some(()));
}

fn as_pid(pid: i32) -> Pid {
    Pid::from_raw(pid).unwrap()
}

#[test]
fn the_process_pool_keeps_the_contract() {
    on_stage(suite(|| pool(2), Limits { kills: true, ..Limits::default() }));
}

#[test]
fn a_program_that_is_no_worker_goes_on() {
    // Neither by itself, nor when it inherits the variable.
    worker::run_if_asked(|| unreachable!());
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "processes::not_a_worker", "--nocapture", "--ignored"])
        .env("CALLBOARD_WORKER", "1:2")
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
#[ignore = "the process of `a_program_that_is_no_worker_goes_on`"]
fn not_a_worker() {
    worker::run_if_asked(|| unreachable!());
}

#[test]
fn closures_are_refused_when_they_are_added_and_when_they_come_all_the_same() {
    use callboard::prelude::*;
    use callboard::task::{Code, Refusal, TaskError};

    on_stage(async {
        let scheduler = Scheduler::builder().executor("processes", pool(1)).start().await.unwrap();
        let closure = || Task::from_fn(|_: TaskContext, ()| async {}).id("closure").trigger("@hourly");
        let error = scheduler.add(closure().executor("processes")).await.unwrap_err();
        assert!(matches!(&error, callboard::Error::Task(TaskError::ClosureNotPortable { .. })), "{error:?}");
        assert!(error.to_string().contains("register the code under a name"), "{error}");
        assert!(error.is_invalid());
        scheduler.shutdown(Shutdown::now()).await.unwrap();

        let mut play = Play::new(pool(1)).await;
        let code = Code::from_async(|_: TaskContext, ()| async {});
        let closure = Handler::Closure(code.clone());
        let task = Arc::new(TaskSpec { handler: closure, ..TaskSpec::clone(&task("closure", |task| task)) });
        let run = play.stage.run(&task, &code);
        play.stage.submit([run]).await;
        let reason = Refusal::ClosureNotPortable { executor: "default".to_owned() };
        assert_eq!(play.end().await.outcome, Outcome::Refused { reason });
        play.stage.is_empty().await;
    });
}
