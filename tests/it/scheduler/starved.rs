//! A program that embeds a scheduler, on a system that gives no more threads.

use std::process::Command;
use std::time::Duration;

use actix::System;
use callboard::Error;
use callboard::executor::{AsyncExecutor, ThreadPool};
use callboard::prelude::*;

/// Told by which a process knows that it is to be the program.
const LIMITED: &str = "CALLBOARD_TEST_LIMITED";

#[test]
fn where_there_are_no_threads_a_scheduler_says_so() {
    if std::env::var_os(LIMITED).is_some() {
        return System::new().block_on(embedded());
    }
    if !rustix::process::geteuid().is_root() {
        println!("skipped: it takes root, to become a user who has no other processes");
        return;
    }
    let dir = tempfile::TempDir::new().unwrap();
    let user = (u32::MAX / 2 + 13 + std::process::id()).to_string();
    let program = dir.path().join("it");
    if std::fs::hard_link(std::env::current_exe().unwrap(), &program).is_err() {
        std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    }
    let own = Command::new("chmod").arg("755").arg(dir.path()).status().unwrap();
    assert!(own.success());
    let name = "scheduler::starved::where_there_are_no_threads_a_scheduler_says_so";
    let (mut refused, mut built) = (0, 0);
    for limit in 1..=8 {
        let limit = format!("--nproc={limit}:{limit}");
        let output = Command::new("setpriv")
            .args(["--reuid", &user, "--clear-groups", "prlimit", &limit])
            .arg(&program)
            .args(["--exact", name, "--nocapture", "--test-threads", "1"])
            .env(LIMITED, "1")
            .env("TMPDIR", dir.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("1 passed"), "{limit}: {said}{err}");
        refused += usize::from(said.contains("REFUSED"));
        built += usize::from(said.contains("BUILT"));
    }
    assert!(refused > 0 && built > 0, "{refused} {built}");
}

/// What a program does; whatever has no thread is an answer.
async fn embedded() {
    let builder = Scheduler::builder().executor("pool", ThreadPool::new(2));
    let scheduler = match builder.build() {
        Ok(scheduler) => scheduler,
        Err(Error::Setting { setting: "thread", reason }) => {
            assert!(reason.contains("raise the limit"), "{reason}");
            return println!("REFUSED");
        }
        Err(error) => panic!("{error}"),
    };
    println!("BUILT");
    scheduler.start().await.unwrap();
    // Its arbiters have no threads: it is one that dies and is started again.
    let added = scheduler.add_executor("more", AsyncExecutor::new().arbiters(20)).await;
    println!("{added:?}");
    let status = scheduler.status().await.unwrap();
    assert!(status.executors.iter().any(|executor| executor.alias.as_str() == "pool"), "{status:?}");
    scheduler.shutdown(Shutdown::wait(Duration::from_secs(1))).await.unwrap();
}
