//! Workers and programs that behave as badly as they can: others go on, and nobody is left.

use callboard::clock::Clock;
use callboard::executor::message::Drained;
use std::fs::File;
use std::io::Write;

use super::crashes::{hello, refusal, script};
use super::*;

const PLACE: &str = "CALLBOARD_ODD";

/// Says as much as it can, for ever.
pub(super) fn flood(how: &str) {
    let much = "much\n".repeat(20_000);
    match how {
        "stdout" => while std::io::stdout().write_all(much.as_bytes()).is_ok() {},
        "stderr" => while std::io::stderr().write_all(much.as_bytes()).is_ok() {},
        _ => loop {
            tracing::info!("much");
        },
    }
}

/// Has its children hold its output in a session of their own, where nobody finds them, and aborts.
pub(super) fn leave_and_abort(note: &str) {
    let script = "echo $$ > \"$1\".draft; mv \"$1\".draft \"$1\"; exec sleep 3600";
    Command::new("setsid").args(["sh", "-c", script, "sh", note]).spawn().unwrap().wait().unwrap();
}

/// Starts a child that has something to do before it ends.
#[expect(clippy::zombie_processes, reason = "the pool is to see to it")]
pub(super) fn start_a_tidy_child(note: &str) {
    let script = "trap 'kill $!; sleep 0.5; : > \"$1\".done; exit' TERM; sleep 3600 & echo $$ > \"$1\".draft; mv \"$1\".draft \"$1\"; wait";
    Command::new("sh").args(["-c", script, "sh", note]).spawn().unwrap();
}

/// Nothing to say from now on.
pub(super) fn close_output() {
    let nothing = File::open("/dev/null").unwrap();
    rustix::stdio::dup2_stdout(&nothing).unwrap();
    rustix::stdio::dup2_stderr(&nothing).unwrap();
}

pub(super) fn nested(levels: usize) -> Value {
    (0..levels).fold(Value::Null, |inner, _| json!([inner]))
}

impl Play {
    /// On the machine's clock.
    async fn in_real_time(mut pool: ProcessPool) -> Self {
        let time = VirtualClock::starting_at("2026-03-01T08:00:00Z");
        Self { stage: Stage::new(&mut pool, Clock::system()).await, time }
    }

    async fn submit_limited(&mut self, handler: &str, args: impl Into<Value>, limit: Duration) {
        let run = self.run(handler, args);
        let task = Arc::new(TaskSpec { timeout: Some(limit), ..TaskSpec::clone(&run.task) });
        let run = self.stage.run(&task, &run.code);
        self.stage.submit([run]).await;
    }

    async fn soon(&mut self) -> RunEnd {
        actix_rt::time::timeout(PATIENCE, self.end()).await.expect("an end")
    }
}

/// Wants to hear everything, and forgets it.
struct Listener;

impl tracing::Subscriber for Listener {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Read(String);
        impl tracing::field::Visit for Read {
            fn record_debug(&mut self, _: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0 += &format!("{value:?}");
            }
        }
        event.record(&mut Read(String::new()));
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

fn floods_end_on_time(how: &'static str) {
    // Somebody listens, who is slower than those who talk.
    let _ = tracing::subscriber::set_global_default(Listener);
    on_stage(async {
        let mut play = Play::in_real_time(pool(2)).await;
        play.pid().await;
        play.submit_limited("flood", how, Duration::from_secs(2)).await;
        // Others have their turn meanwhile.
        play.submit("pid", Value::Null).await;
        let ends = [play.soon().await.outcome, play.soon().await.outcome];
        assert!(ends.contains(&Outcome::TimedOut { after_ms: 2000 }), "{how}: {ends:?}");
        assert!(ends.iter().any(Outcome::is_success), "{how}: {ends:?}");
        play.stage.is_empty().await;
    });
}

#[test]
fn a_flood_of_messages_ends_on_time() {
    on_stage(async {
        let place = tempfile::tempdir().unwrap();
        // Of a run that nobody knows.
        let run = callboard::task::RunId { owner: callboard::task::OwnerId(1), serial: 1 };
        let message = json!({ "idle": { "run": run, "heard": 0 } }).to_string();
        let mut frame = b"CBW\x03\0\0\0".to_vec();
        frame.push(message.len().try_into().unwrap());
        frame.extend(message.as_bytes());
        let flood = place.path().join("flood");
        fs::write(&flood, frame.repeat(20_000)).unwrap();
        let text = hello() + "head -c 8 <&0 >/dev/null; exec cat $(yes \"$0\" | head -n 5000) >&0";
        let pool = script(&text).args([flood.to_str().unwrap()]);
        let mut play = Play::in_real_time(pool).await;
        play.submit_limited("ok", Value::Null, Duration::from_secs(1)).await;
        assert_eq!(play.soon().await.outcome, Outcome::TimedOut { after_ms: 1000 });
    });
}

#[test]
fn a_flood_of_output_ends_on_time() {
    floods_end_on_time("stdout");
}

#[test]
fn a_flood_of_errors_ends_on_time() {
    floods_end_on_time("stderr");
}

#[test]
fn a_flood_of_events_ends_on_time() {
    floods_end_on_time("events");
}

#[test]
fn a_worker_that_retires_takes_nobody_s_place_in_the_queue() {
    on_stage(async {
        let mut play = Play::new(pool(1).queue(0).recycle_after(1)).await;
        let mut pids = Vec::new();
        for _ in 0..5 {
            pids.push(play.pid().await);
        }
        pids.dedup();
        assert_eq!(pids.len(), 5);
    });
}

#[test]
fn an_overdue_run_is_tried_again_by_a_fresh_worker() {
    use callboard::backoff::Backoff;
    use callboard::prelude::*;
    use callboard::task::Retry;
    use futures::StreamExt;

    on_stage(async {
        let place = tempfile::tempdir().unwrap();
        let note = place.path().join("hang");
        let pool = pool(1).recycle_after(1).queue(0).grace(Duration::from_millis(100));
        let scheduler =
            Scheduler::builder().registry(registry()).executor("default", pool).start().await.unwrap();
        let mut ends = scheduler.events(EventMask::RUN_ENDED).await.unwrap();
        let task = Task::new("hang").id("hang").args(note.to_str().unwrap()).trigger(Date::now());
        let retry = Retry::times(2).backoff(Backoff::fixed(Duration::from_millis(10)));
        scheduler.add(task.timeout(Duration::from_secs(2)).retry(retry)).await.unwrap();
        let mut pids = std::collections::BTreeSet::new();
        for attempt in 1..=3 {
            let ended = ends.next();
            let event = actix_rt::time::timeout(PATIENCE, ended).await.expect("an end").unwrap();
            let report = event.report().unwrap();
            assert_eq!(report.run.attempt, attempt);
            assert_eq!(report.end.outcome, Outcome::TimedOut { after_ms: 2000 });
            pids.insert(noted_pid(&note));
            fs::remove_file(&note).unwrap();
        }
        assert_eq!(pids.len(), 3);
        gone(&pids.into_iter().collect::<Vec<_>>());
        scheduler.shutdown(Shutdown::now()).await.unwrap();
    });
}

#[test]
fn places_that_fail_together_fail_once() {
    on_stage(async {
        let mut play = Play::new(ProcessPool::new(16).program("/bin/sh").args(["-c", "exit 1"])).await;
        let runs: Vec<_> = (0..16).map(|_| play.run("pid", Value::Null)).collect();
        play.stage.submit(runs).await;
        for _ in 0..16 {
            refusal(play.end().await.outcome);
        }
        let text = refusal(play.outcome("pid", Value::Null).await);
        let left = text.split("the next try is in ").nth(1).unwrap_or_else(|| panic!("{text}"));
        let left: u64 = left.split(' ').next().unwrap().parse().unwrap();
        assert!(left <= 250, "{text}");
    });
}

#[test]
fn the_end_of_an_overdue_run_is_told_when_its_group_is_gone() {
    on_stage(async {
        let place = tempfile::tempdir().unwrap();
        let note = place.path().join("child");
        // It ends at once when it is asked to; what it has started needs a moment.
        let mut play = Play::new(pool(1).grace(PATIENCE)).await;
        play.submit_limited("heed SIGTERM", note.to_str().unwrap(), Duration::from_secs(60)).await;
        let child = noted_pid(&note);
        play.time.advance(Duration::from_secs(60)).await;
        assert_eq!(play.end().await.outcome, Outcome::TimedOut { after_ms: 60_000 });
        assert!(!lives(child));
        assert!(note.with_extension("done").exists(), "it had its time");
        assert!(!lives(child));
        play.pid().await;
    });
}

#[test]
fn what_is_nested_too_deep_has_failed_and_costs_no_worker() {
    on_stage(async {
        let mut play = Play::new(pool(1)).await;
        let pid = play.pid().await;
        assert_eq!(play.value("echo", nested(100)).await, nested(100));
        let error = play.error("echo", nested(126)).await;
        assert!(
            error.contains("the task cannot be sent to a worker process") && error.contains("deep"),
            "{error}"
        );
        let error = play.error("nested", 126).await;
        assert!(error.contains("cannot leave the worker process") && error.contains("deep"), "{error}");
        assert_eq!(play.pid().await, pid);
    });
}

#[test]
fn a_worker_that_says_why_it_gives_up_is_quoted() {
    on_stage(async {
        let message = r#"{"broken":{"problem":"no more paper"}}"#;
        let broken = format!(r"printf 'CBW\003\000\000\000\0{:o}{message}' >&0; ", message.len());
        let text = hello() + "head -c 8 <&0 >/dev/null; " + &broken + "exit 70";
        let mut play = Play::new(script(&text)).await;
        let error = play.error("ok", Value::Null).await;
        assert!(error.contains("no more paper"), "{error}");
    });
}

#[test]
fn children_that_hide_and_hold_the_output_hold_up_nobody() {
    on_stage(async {
        let place = tempfile::tempdir().unwrap();
        let note = place.path().join("hidden");
        let mut play = Play::new(pool(1)).await;
        play.submit("leave and abort", note.to_str().unwrap()).await;
        let hidden = noted_pid(&note);
        let end = play.soon().await;
        let hidden_lives = lives(hidden);
        kill_process(as_pid(hidden), Signal::KILL).unwrap();
        assert!(hidden_lives, "that is what the guide says");
        let error = "its worker process was killed by signal 6 (SIGABRT)".to_owned();
        assert_eq!(end.outcome, Outcome::Failed { error });
        play.pid().await;
    });
}

#[test]
fn a_worker_without_output_goes_on() {
    on_stage(async {
        let mut play = Play::new(pool(1)).await;
        let pid = play.pid().await;
        assert!(play.outcome("close output", Value::Null).await.is_success());
        assert_eq!(play.pid().await, pid);
        assert!(play.outcome("babble", 10).await.is_success());
        assert_eq!(play.pid().await, pid);
    });
}

#[test]
fn a_drain_ends_workers_that_work_are_stuck_or_start() {
    on_stage(async {
        let place = tempfile::tempdir().unwrap();
        let [busy, stuck, starting] = ["busy", "stuck", "starting"].map(|name| place.path().join(name));
        // Two workers get ready, the third does not.
        let text =
            "cd \"$0\"; mkdir one || mkdir two || { echo $$ > starting; exec sleep 3600; }; exec \"$@\"";
        let mut args = vec!["-c".to_owned(), text.to_owned(), place.path().to_str().unwrap().to_owned()];
        args.push(std::env::current_exe().unwrap().to_str().unwrap().to_owned());
        args.extend(worker_args().map(str::to_owned));
        let pool = ProcessPool::new(3).program("/bin/sh").args(args).grace(Duration::from_secs(60));
        let mut play = Play::in_real_time(pool).await;
        play.submit("hang", busy.to_str().unwrap()).await;
        play.submit("ignore SIGTERM", stuck.to_str().unwrap()).await;
        let pids = vec![noted_pid(&busy), noted_pid(&stuck)];
        play.submit("ok", Value::Null).await;
        let pid = until("the start of the third", || fs::read_to_string(&starting).ok()?.trim().parse().ok());
        let pids = [pids, vec![pid]].concat();
        let begin = Instant::now();
        assert_eq!(play.stage.drain(Duration::from_millis(200)).await, Drained { interrupted: 3 });
        assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
        for _ in 0..3 {
            assert!(matches!(play.end().await.outcome, Outcome::Interrupted { .. }));
        }
        play.stage.is_empty().await;
        gone(&pids);
    });
}

/// Ends the arbiter of whoever hears a worker say so.
struct Saboteur;

impl tracing::Subscriber for Saboteur {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "callboard::worker"
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Read;
        impl tracing::field::Visit for Read {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                if field.name() == "message" && format!("{value:?}").contains("the end is near") {
                    actix::Arbiter::current().stop();
                }
            }
        }
        event.record(&mut Read);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// In a process of its own: a subscriber is everybody's.
#[test]
fn a_pool_whose_arbiter_ends_leaves_nobody_and_comes_back() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "processes::odd::lose_an_arbiter", "--nocapture", "--ignored"])
        .env(PLACE, "here")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
#[ignore = "the process of `a_pool_whose_arbiter_ends_leaves_nobody_and_comes_back`"]
fn lose_an_arbiter() {
    use callboard::prelude::*;
    use futures::StreamExt;

    if std::env::var_os(PLACE).is_none() {
        return;
    }
    tracing::subscriber::set_global_default(Saboteur).unwrap();
    on_stage(async {
        let place = tempfile::tempdir().unwrap();
        let note = place.path().join("family");
        let scheduler =
            Scheduler::builder().registry(registry()).executor("default", pool(2)).start().await.unwrap();
        let mut ends = scheduler.events(EventMask::RUN_ENDED).await.unwrap();
        let last = Task::new("last words").id("last").args(note.to_str().unwrap()).trigger(Date::now());
        scheduler.add(last).await.unwrap();
        let event = actix_rt::time::timeout(PATIENCE, ends.next()).await.expect("an end").unwrap();
        let outcome = &event.report().unwrap().end.outcome;
        assert!(matches!(outcome, Outcome::Interrupted { .. }), "{outcome:?}");
        let pid = noted_pid(&note);
        gone(&[pid]);
        let executors = async || scheduler.status().await.unwrap().executors;
        until_async("the executor's return", async || executors().await[0].problem.is_none()).await;
        let task = Task::new("pid").id("pid").trigger(Date::now());
        scheduler.add(task).await.unwrap();
        let event = actix_rt::time::timeout(PATIENCE, ends.next()).await.expect("an end").unwrap();
        assert!(event.report().unwrap().end.outcome.is_success(), "{event:?}");
        scheduler.shutdown(Shutdown::now()).await.unwrap();
    });
}

async fn until_async(what: &str, look: impl AsyncFn() -> bool) {
    let begin = Instant::now();
    while !look().await {
        assert!(begin.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        actix_rt::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The pool's process is killed while its worker has not come to its registry's end yet.
#[test]
fn a_worker_that_is_never_ready_does_not_outlive_its_pool() {
    let place = tempfile::tempdir().unwrap();
    let mut other = apart("processes::odd::keep_a_pool_that_is_never_ready", PLACE, place.path());
    let pids = noted_family(&place.path().join("family"));
    other.kill().unwrap();
    other.wait().unwrap();
    gone(&pids);
}

#[test]
#[ignore = "the process that `a_worker_that_is_never_ready_does_not_outlive_its_pool` kills"]
fn keep_a_pool_that_is_never_ready() {
    if std::env::var_os(PLACE).is_none() {
        return;
    }
    on_stage(async {
        let args = ["--exact", "processes::odd::be_never_ready", "--nocapture", "--ignored"];
        let mut play =
            Play::new(ProcessPool::new(1).program(std::env::current_exe().unwrap()).args(args)).await;
        play.submit("ok", Value::Null).await;
        std::future::pending::<()>().await;
    });
}

#[test]
#[ignore = "the worker of `keep_a_pool_that_is_never_ready`"]
fn be_never_ready() {
    worker::run_if_asked(|| {
        let place = std::env::var_os(PLACE).unwrap();
        start_a_family(Path::new(&place).join("family").to_str().unwrap());
        std::thread::sleep(Duration::from_secs(3600));
        Registry::new()
    });
}
