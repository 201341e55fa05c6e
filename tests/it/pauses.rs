//! A process that is stopped for a while, as a machine is that is suspended: what ended meanwhile has ended,
//! and is not overdue.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};
use std::{fs, thread};

use callboard::executor::{ProcessPool, ThreadPool, worker};
use callboard::prelude::*;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PLACE: &str = "CALLBOARD_PAUSES_PLACE";
const ADDRESS: &str = "CALLBOARD_PAUSES_ADDRESS";

/// The time-out of each run.
const TIMEOUT: Duration = Duration::from_secs(3);

const EXECUTORS: [&str; 3] = ["default", "threads", "processes"];

/// Code that says that it is there, and ends when it is told to.
fn registry() -> Registry {
    Registry::new()
        .register("wait", |run: TaskContext, address: SocketAddr| async move {
            let mut peer = tokio::net::TcpStream::connect(address).await.map_err(text)?;
            peer.write_all(format!("{}\n", run.task_id()).as_bytes()).await.map_err(text)?;
            // A run takes some time.
            run.sleep(Duration::from_millis(5)).await;
            peer.read_u8().await.map(drop).map_err(text)
        })
        .register_blocking("wait blocking", |run: TaskContext, address: SocketAddr| {
            let mut peer = TcpStream::connect(address).map_err(text)?;
            peer.set_read_timeout(Some(Duration::from_millis(50))).map_err(text)?;
            peer.write_all(format!("{}\n", run.task_id()).as_bytes()).map_err(text)?;
            while peer.read_exact(&mut [0]).is_err() {
                if run.is_cancelled() {
                    return Err("nobody told it to end".to_owned());
                }
            }
            Ok(())
        })
}

fn text(error: std::io::Error) -> String {
    error.to_string()
}

#[test]
#[ignore = "a worker of the program"]
fn act_as_a_worker() {
    worker::run_if_asked(registry);
}

/// The program that is stopped: this test binary, running only this.
#[test]
#[ignore = "a program that the test starts"]
fn program() {
    let Some(place) = std::env::var_os(PLACE).map(PathBuf::from) else { return };
    let address: SocketAddr = std::env::var(ADDRESS).unwrap().parse().unwrap();
    let workers = ["--exact", "pauses::act_as_a_worker", "--nocapture", "--ignored"];
    actix::System::new().block_on(async {
        let processes = ProcessPool::new(2).program(std::env::current_exe().unwrap()).args(workers);
        let scheduler = Scheduler::builder()
            .registry(registry())
            .executor("threads", ThreadPool::new(2))
            .executor("processes", processes)
            .start()
            .await
            .unwrap();
        let mut ends = serde_json::Map::new();
        let mut left = Vec::new();
        for executor in EXECUTORS {
            let code = if executor == "threads" { "wait blocking" } else { "wait" };
            for word in ["ends", "stays"] {
                let id = format!("{executor} {word}");
                let task = Task::new(code).id(id.as_str()).args(address).executor(executor);
                scheduler.add(task.timeout(TIMEOUT).trigger(Date::now())).await.unwrap();
                left.push(id);
            }
        }
        while let Some(id) = left.pop() {
            let records = scheduler.history(id.as_str(), 1).await.unwrap();
            match records.into_iter().next().and_then(|record| record.end) {
                Some(end) => {
                    let took = end.duration.as_millis() as u64;
                    ends.insert(id, json!([end.outcome.word(), took]));
                }
                None => {
                    left.insert(0, id);
                    actix::clock::sleep(Duration::from_millis(20)).await;
                }
            }
        }
        fs::write(place.join("ends.new"), Value::Object(ends).to_string()).unwrap();
        fs::rename(place.join("ends.new"), place.join("ends")).unwrap();
        scheduler.shutdown(Shutdown::now()).await.unwrap();
    });
}

/// Killed when the test gives up.
struct Program(Child);

impl Program {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }
}

impl Program {
    /// Waits until it stands still.
    fn is_stopped(&self) {
        let stopped = waitpid(Some(Pid::from_child(&self.0)), WaitOptions::UNTRACED).unwrap().unwrap().1;
        assert!(stopped.stopped(), "{stopped:?}");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_end_that_is_there_after_a_pause_counts_before_a_time_out_that_passed_in_it() {
    let place = tempfile::tempdir().unwrap();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "pauses::program", "--ignored", "--nocapture"])
        .env(PLACE, place.path())
        .env(ADDRESS, server.local_addr().unwrap().to_string())
        .spawn()
        .unwrap();
    let program = Program(child);
    let mut peers = Vec::new();
    for _ in 0..EXECUTORS.len() * 2 {
        let (mut peer, _) = server.accept().unwrap();
        let mut id = Vec::new();
        while id.last() != Some(&b'\n') {
            let mut byte = [0];
            peer.read_exact(&mut byte).unwrap();
            id.extend(byte);
        }
        peers.push((String::from_utf8(id).unwrap(), peer));
    }
    // All go on, and none has been told to end.
    program.signal(Signal::STOP);
    program.is_stopped();
    for (_, peer) in peers.iter_mut().filter(|(id, _)| id.trim_end().ends_with("ends")) {
        peer.write_all(b"!").unwrap();
    }
    // The time-outs pass, and more than what is taken for a pause.
    thread::sleep(TIMEOUT + Duration::from_secs(2));
    program.signal(Signal::CONT);

    let ends = place.path().join("ends");
    let limit = Instant::now() + Duration::from_secs(30);
    while !ends.exists() {
        assert!(Instant::now() < limit, "not all runs have ended");
        thread::sleep(Duration::from_millis(10));
    }
    let ends: Value = serde_json::from_str(&fs::read_to_string(ends).unwrap()).unwrap();
    for executor in EXECUTORS {
        assert_eq!(ends[format!("{executor} ends")][0], "executed", "{ends}");
        assert_eq!(ends[format!("{executor} stays")][0], "timed_out", "{ends}");
    }
    // The work ended when it did, and not when that was seen.
    let took = ends["processes ends"][1].as_u64().unwrap();
    assert!((1..TIMEOUT.as_millis() as u64).contains(&took), "{ends}");
}
