//! What goes wrong in a worker is one failed run with its cause, and nothing else.

use super::*;

#[test]
fn values_errors_and_panics_come_back() {
    on_stage(async {
        let mut play = Play::new(pool(1)).await;
        let value = json!({ "text": "ä\u{0}\n", "number": 0.1, "list": [null, true, -1, u64::MAX] });
        assert_eq!(play.value("echo", value.clone()).await, value);
        assert_eq!(play.value("big", 3 << 20).await.as_str().unwrap().len(), 3 << 20);
        assert_eq!(
            play.error("failing", Value::Null).await,
            format!("the letter was not sent: {}", std::fmt::Error)
        );
        let panicked = play.outcome("fright", Value::Null).await;
        let Outcome::Panicked { message } = panicked else { panic!("{panicked:?}") };
        assert!(message.starts_with("stage fright (at ") && message.contains("parts.rs"), "{message}");
        let error = play.error("number", "seven").await;
        assert!(error.contains("arguments do not decode") && error.contains("seven"), "{error}");
        let error = play.error("unheard of", Value::Null).await;
        assert!(error.contains("the registry of the worker process lacks its handler"), "{error}");
        assert!(error.contains("`unheard of`") && error.contains("echo"), "{error}");
        // None of these has cost the worker its life.
        let pid = play.pid().await;
        play.outcome("fright, blocking", Value::Null).await;
        assert_eq!(play.pid().await, pid);
    });
}

#[test]
fn a_worker_knows_what_the_run_is_about() {
    on_stage(async {
        let mut play = Play::new(pool(1)).await;
        let mut run = play.run("context", Value::Null);
        run.attempt = 3;
        run.coalesced = 7;
        run.source = callboard::task::Source::Manual;
        run.nominal -= chrono::TimeDelta::seconds(2);
        run.due -= chrono::TimeDelta::milliseconds(1);
        let expected = context(&TaskContext::new(Arc::new(run), play.time.clock(), play.time.clock().busy()));
        let mut run = play.run("context", Value::Null);
        run.id.serial = 1;
        run.attempt = 3;
        run.coalesced = 7;
        run.source = callboard::task::Source::Manual;
        run.nominal -= chrono::TimeDelta::seconds(2);
        run.due -= chrono::TimeDelta::milliseconds(1);
        play.stage.submit([run]).await;
        assert_eq!(play.end().await.outcome, Outcome::Executed { value: expected });
    });
}

#[test]
fn each_way_to_die_is_one_failed_run_with_its_cause() {
    on_stage(async {
        let mut play = Play::new(pool(1)).await;
        let mut pids = vec![play.pid().await];
        let deaths = [
            ("abort", Value::Null, "was killed by signal 6 (SIGABRT)"),
            ("signal", json!(Signal::SEGV.as_raw()), "was killed by signal 11 (SIGSEGV)"),
            ("signal", json!(Signal::KILL.as_raw()), "was killed by signal 9 (SIGKILL)"),
            ("exit", json!(3), "exited with status 3"),
            ("exit", json!(0), "exited with status 0"),
        ];
        for (handler, args, cause) in deaths {
            assert_eq!(play.error(handler, args).await, format!("its worker process {cause}"));
            let pid = play.pid().await;
            assert!(!pids.contains(&pid), "a fresh worker");
            pids.push(pid);
        }
        assert!(pids[..pids.len() - 1].iter().all(|pid| !lives(*pid)), "buried before the end was told");
    });
}

#[test]
fn one_that_is_killed_from_outside_fails_alone() {
    on_stage(async {
        let place = tempfile::tempdir().unwrap();
        let (victim, witness) = (place.path().join("victim"), place.path().join("witness"));
        let mut play = Play::new(pool(2)).await;
        let killed = play.submit("hang", victim.to_str().unwrap()).await;
        let other = play.submit("hang", witness.to_str().unwrap()).await;
        let pid = noted_pid(&victim);
        let spared = noted_pid(&witness);
        kill_process(as_pid(pid), Signal::KILL).unwrap();
        let (run, end) = play.stage.end().await;
        assert_eq!(run.id, killed.id);
        let error = "its worker process was killed by signal 9 (SIGKILL)".to_owned();
        assert_eq!(end.outcome, Outcome::Failed { error });
        assert!(lives(spared));
        assert_ne!(play.submit("pid", Value::Null).await.id, other.id);
        assert!(play.end().await.outcome.is_success());
        assert_eq!(play.stage.status().await.running, 1);
    });
}

#[test]
fn one_that_dies_idle_is_replaced_and_nobody_fails() {
    on_stage(async {
        let mut play = Play::new(pool(1)).await;
        let pid = play.pid().await;
        kill_process(as_pid(pid), Signal::KILL).unwrap();
        gone(&[pid]);
        // Also when nobody has told the pool yet.
        assert_ne!(play.pid().await, pid);
    });
}

/// A program that is a worker of nobody's making: a shell script, whose standard input is the pipe.
pub(super) fn script(text: &str) -> ProcessPool {
    ProcessPool::new(1).program("/bin/sh").args(["-c", text]).grace(Duration::from_millis(200))
}

/// How a shell says hello.
pub(super) fn hello() -> String {
    let message = format!(r#"{{"hello":{{"version":"{}"}}}}"#, env!("CARGO_PKG_VERSION"));
    format!(r"printf 'CBW\003\000\000\000\0{:o}{}' >&0; ", message.len(), message)
}

#[test]
fn rubbish_on_the_pipe_is_one_failed_run() {
    on_stage(async {
        let cases = [
            ("echo rubbish >&0; sleep 1000", r#"it begins with "rubbish\n""#),
            (r"printf 'CBW\007' >&0; sleep 1000", "version 7 of the worker protocol"),
            (r"printf 'CBW\003\377\000\000\000' >&0; sleep 1000", "longer than the 16777216"),
            (r"printf 'CBW\003\000\000\000\002{}' >&0; sleep 1000", "cannot be read"),
            (r"printf 'CBW\003\000\000\000\002{' >&0; exec <&-; sleep 1000", "breaks off after 9 bytes"),
            ("exec <&-; sleep 1000", "closed its pipe and was killed"),
            (r"printf 'CBW\003\000\000\000\002{' >&0; exit 4", "exited with status 4"),
        ];
        for (text, problem) in cases {
            // It waits for the run first, so that it is in the midst of it.
            let mut play = Play::new(script(&(hello() + "head -c 8 <&0 >/dev/null; " + text))).await;
            let error = play.error("ok", Value::Null).await;
            assert!(error.starts_with("its worker process ") && error.contains(problem), "{text}: {error}");
        }
    });
}

#[test]
fn what_cannot_cross_has_failed_and_says_why() {
    on_stage(async {
        let mut play = Play::new(pool(1)).await;
        let pid = play.pid().await;
        let error = play.error("big", 17 << 20).await;
        assert!(error.contains("the value it returned cannot leave the worker process"), "{error}");
        assert!(error.contains("longer than the 16777216 that are allowed"), "{error}");
        let error = play.error("echo", "x".repeat(17 << 20)).await;
        assert!(error.contains("the task cannot be sent to a worker process"), "{error}");
        assert_eq!(play.pid().await, pid);
    });
}

pub(super) fn refusal(outcome: Outcome) -> String {
    match outcome {
        Outcome::Refused { reason } => reason.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_worker_that_cannot_be_started_is_a_reason_and_no_hang() {
    on_stage(async {
        let ours = env!("CARGO_PKG_VERSION");
        let cases = [
            (ProcessPool::new(1).program("/no/such/program"), "`/no/such/program` cannot be started"),
            (script("sleep 1000").start_limit(Duration::from_millis(100)), "it said nothing within 0.1 s"),
            (
                script("echo the reason >&2; exit 9"),
                "exited with status 9 before it was ready; its last words: the reason",
            ),
            (script("echo Hello >&0; sleep 1000"), r#"it begins with "Hello\n""#),
            (script(&hello().replace(ours, "9.9.9")), "it is of version 9.9.9 of callboard"),
        ];
        for (pool, problem) in cases {
            let mut play = Play::new(pool).await;
            let text = refusal(play.outcome("ok", Value::Null).await);
            assert!(text.starts_with("executor `default` takes no runs: no worker process"), "{text}");
            assert!(text.contains(problem), "{problem}: {text}");
        }
    });
}

#[test]
fn a_program_that_forgets_to_ask_is_told_so_and_starts_no_workers() {
    on_stage(async {
        let args = ["--exact", "processes::crashes::forget_to_ask", "--nocapture", "--ignored"];
        let program = std::env::current_exe().unwrap();
        let mut play = Play::new(ProcessPool::new(1).program(program).args(args)).await;
        let text = refusal(play.outcome("ok", Value::Null).await);
        assert!(
            text.contains("its `main` does not call `callboard::executor::worker::run_if_asked`"),
            "{text}"
        );
    });
}

#[test]
#[ignore = "the program of `a_program_that_forgets_to_ask_is_told_so_and_starts_no_workers`"]
fn forget_to_ask() {
    if std::env::var_os("CALLBOARD_WORKER").is_none() {
        return;
    }
    on_stage(async {
        let mut play = Play::new(pool(1)).await;
        let text = refusal(play.outcome("ok", Value::Null).await);
        assert!(text.contains("was itself started as a worker"), "{text}");
        std::future::pending::<()>().await;
    });
}

#[test]
fn after_a_start_that_failed_the_next_try_waits() {
    on_stage(async {
        let place = tempfile::tempdir().unwrap();
        let tries = place.path().join("tries");
        let mut play = Play::new(script(&format!("echo try >> {}; exit 1", tries.display()))).await;
        let runs: Vec<_> = (0..200)
            .map(|_| play.run("ok", Value::Null))
            .map(|mut run| {
                run.beyond_max_instances = true;
                run
            })
            .collect();
        play.stage.submit(runs).await;
        for _ in 0..200 {
            let text = refusal(play.end().await.outcome);
            assert!(text.contains("exited with status 1"), "{text}");
        }
        play.stage.is_empty().await;
        let count = || fs::read_to_string(&tries).unwrap().lines().count();
        assert!(count() <= 3, "{} tries", count());
        // It does try again.
        let (before, begin) = (count(), Instant::now());
        while count() == before {
            assert!(begin.elapsed() < PATIENCE);
            refusal(play.outcome("ok", Value::Null).await);
            actix::clock::sleep(Duration::from_millis(10)).await;
        }
    });
}
