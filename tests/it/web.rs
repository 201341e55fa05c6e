//! An actix-web server and a scheduler in one program: a real process, real signals, runs going on.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use actix_web::web::{Data, Path as UrlPath};
use actix_web::{App, HttpResponse, HttpServer, Responder, rt};
use callboard::prelude::*;
use callboard::store::FileStore;
use callboard::web::WebError;
use rustix::process::{Pid, Signal, kill_process};

const PLACE: &str = "CALLBOARD_WEB_PLACE";
const WORKERS: &str = "CALLBOARD_WEB_WORKERS";
const ISOLATED: &str = "CALLBOARD_WEB_ISOLATED";
const GRACE: &str = "CALLBOARD_WEB_GRACE";
/// A program that ended because runs were cut off by a second signal.
const CUT_OFF: i32 = 3;

fn note(place: &Path, line: &str) {
    let mut file = OpenOptions::new().append(true).create(true).open(place.join("lines")).unwrap();
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
}

async fn run_now(millis: UrlPath<u64>, scheduler: Data<Handle>) -> impl Responder {
    let task = Task::new("slow").args(*millis).trigger(Date::now());
    match scheduler.add(task).await {
        Ok(id) => HttpResponse::Created().body(id.to_string()),
        Err(error) => HttpResponse::InternalServerError().body(error.to_string()),
    }
}

async fn slow_request(place: Data<PathBuf>) -> impl Responder {
    note(&place, "request begins");
    rt::time::sleep(Duration::from_millis(1500)).await;
    note(&place, "request ends");
    HttpResponse::Ok().body("late")
}

async fn shut_down(scheduler: Data<Handle>) -> impl Responder {
    let scheduler = scheduler.get_ref().clone();
    // The request that asks for it is not to wait for it.
    rt::spawn(async move { scheduler.shutdown(Shutdown::default().force()).await });
    HttpResponse::Accepted()
}

/// The program that the tests start: this test binary, running only this.
#[test]
#[ignore = "a program that other tests start"]
fn program() {
    let Some(place) = std::env::var_os(PLACE).map(PathBuf::from) else { return };
    let number = |name: &str| std::env::var(name).unwrap().parse::<u64>().unwrap();
    let (workers, isolated, grace) = (number(WORKERS) as usize, number(ISOLATED) == 1, number(GRACE));
    let ended = rt::System::new().block_on(async {
        let lines = place.clone();
        let registry = Registry::new().register("slow", move |run: TaskContext, millis: u64| {
            let lines = lines.clone();
            async move {
                note(&lines, "run begins");
                run.sleep(Duration::from_millis(millis)).await;
                note(&lines, "run ends");
            }
        });
        let store = FileStore::open(place.join("store")).unwrap();
        let builder = Scheduler::builder().registry(registry).store("default", store);
        let scheduler = if isolated { builder.start_isolated().unwrap() } else { builder.build().unwrap() };
        let (data, lines) = (Data::new(scheduler.clone()), Data::new(place.clone()));
        let server = HttpServer::new(move || {
            App::new()
                .app_data(data.clone())
                .app_data(lines.clone())
                .route("/run/{millis}", actix_web::web::post().to(run_now))
                .route("/slow", actix_web::web::get().to(slow_request))
                .route("/shutdown", actix_web::web::post().to(shut_down))
        });
        let server = server.workers(workers).bind(("127.0.0.1", 0)).unwrap();
        let address = server.addrs()[0];
        let run = callboard::web::run(server, scheduler).shutdown(Shutdown::wait(Duration::from_secs(grace)));
        let stop = run.server();
        let asked = place.join("stop");
        rt::spawn(async move {
            while !asked.exists() {
                rt::time::sleep(Duration::from_millis(20)).await;
            }
            stop.stop(true).await;
        });
        fs::write(place.join("address.new"), address.to_string()).unwrap();
        fs::rename(place.join("address.new"), place.join("address")).unwrap();
        run.await
    });
    let code = match ended {
        Ok(()) => 0,
        Err(WebError::CutOff) => CUT_OFF,
        Err(error) => {
            note(&place, &format!("{error:?}"));
            1
        }
    };
    note(&place, "ended");
    std::process::exit(code);
}

/// A program under test; killed when a test gives up.
struct Program {
    dir: tempfile::TempDir,
    child: Child,
    address: SocketAddr,
}

impl Program {
    fn start(workers: u32, isolated: bool, grace: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "web::program", "--ignored", "--nocapture"])
            .env(PLACE, dir.path())
            .env(WORKERS, workers.to_string())
            .env(ISOLATED, u8::from(isolated).to_string())
            .env(GRACE, grace.to_string())
            .spawn()
            .unwrap();
        let mut program = Self { dir, child, address: ([127, 0, 0, 1], 0).into() };
        let address = program.dir.path().join("address");
        program.wait(|program| {
            let text = fs::read_to_string(&address).ok();
            text.is_some_and(|text| {
                program.address = text.parse().unwrap();
                true
            })
        });
        program
    }

    /// Waits until `is_so`, at most half a minute.
    fn wait(&mut self, mut is_so: impl FnMut(&mut Self) -> bool) {
        let limit = Instant::now() + Duration::from_secs(30);
        while !is_so(self) {
            assert!(Instant::now() < limit, "{}", self.lines());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn lines(&self) -> String {
        fs::read_to_string(self.dir.path().join("lines")).unwrap_or_default()
    }

    fn wait_for(&mut self, line: &str) {
        self.wait(|program| program.lines().lines().any(|there| there == line));
    }

    /// Sends a request without waiting for its answer.
    fn send(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        write!(stream, "{request} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .unwrap();
        stream
    }

    fn ask(&self, request: &str) -> String {
        answer(self.send(request))
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        self.wait(|program| {
            status = program.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// How the runs ended, as the store has it.
    fn outcomes(&self) -> Vec<String> {
        let store = FileStore::open(self.dir.path().join("store")).unwrap();
        actix::System::new().block_on(async {
            let scheduler = Scheduler::builder().store("default", store).start().await.unwrap();
            let mut words = Vec::new();
            for id in fs::read_to_string(self.dir.path().join("ids")).unwrap().lines() {
                for record in scheduler.history(id, 10).await.unwrap() {
                    words.push(record.end.unwrap().outcome.word().to_owned());
                }
            }
            scheduler.shutdown(Shutdown::now()).await.unwrap();
            words
        })
    }

    /// Begins a run of this length, and waits until its code is running.
    fn begin_run(&mut self, millis: u32) {
        let created = self.ask(&format!("POST /run/{millis}"));
        assert!(created.starts_with("HTTP/1.1 201"), "{created}");
        let id = created.lines().last().unwrap();
        let mut ids = OpenOptions::new().append(true).create(true).open(self.dir.path().join("ids")).unwrap();
        writeln!(ids, "{id}").unwrap();
        self.wait_for("run begins");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn answer(mut stream: TcpStream) -> String {
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    text
}

#[test]
fn a_signal_lets_runs_and_requests_end() {
    std::thread::scope(|scope| {
        for signal in [Signal::TERM, Signal::INT] {
            for (workers, isolated) in [(1, false), (3, false), (1, true), (3, true)] {
                scope.spawn(move || lets_all_end(signal, workers, isolated));
            }
        }
    });
}

fn lets_all_end(signal: Signal, workers: u32, isolated: bool) {
    let mut program = Program::start(workers, isolated, 30);
    program.begin_run(2500);
    let request = program.send("GET /slow");
    program.wait_for("request begins");
    program.signal(signal);
    let late = answer(request);
    assert!(late.starts_with("HTTP/1.1 200") && late.ends_with("late"), "{signal:?} {workers}: {late}");
    let status = program.ended();
    let case = format!("{signal:?}, {workers} workers, isolated {isolated}: {status}\n{}", program.lines());
    assert_eq!(status.code(), Some(0), "{case}");
    let words = ["run begins", "request begins", "request ends", "run ends", "ended"];
    assert_eq!(program.lines().lines().collect::<Vec<_>>(), words, "{case}");
    assert!(TcpStream::connect(program.address).is_err(), "{case}");
    assert_eq!(program.outcomes(), ["executed"], "{case}");
}

#[test]
fn what_has_not_ended_within_the_grace_is_interrupted() {
    let mut program = Program::start(1, false, 1);
    program.begin_run(60_000);
    program.signal(Signal::TERM);
    assert_eq!(program.ended().code(), Some(0));
    assert!(!program.lines().contains("run ends"));
    assert_eq!(program.outcomes(), ["interrupted"]);
}

#[test]
fn a_second_signal_ends_at_once() {
    for isolated in [false, true] {
        let mut program = Program::start(1, isolated, 300);
        program.begin_run(60_000);
        program.signal(Signal::TERM);
        // One that follows at once is taken for an echo of the first.
        program.signal(Signal::TERM);
        std::thread::sleep(Duration::from_millis(900));
        assert!(program.child.try_wait().unwrap().is_none(), "{}", program.lines());
        program.signal(Signal::TERM);
        assert_eq!(program.ended().code(), Some(CUT_OFF), "{}", program.lines());
        assert_eq!(program.outcomes(), ["interrupted"]);
    }
}

#[test]
fn quit_ends_at_once() {
    let mut program = Program::start(1, false, 300);
    program.begin_run(60_000);
    program.signal(Signal::QUIT);
    assert_eq!(program.ended().code(), Some(CUT_OFF), "{}", program.lines());
}

#[test]
fn a_server_that_is_stopped_takes_the_scheduler_along_in_order() {
    for isolated in [false, true] {
        let mut program = Program::start(2, isolated, 30);
        program.begin_run(1500);
        fs::write(program.dir.path().join("stop"), "").unwrap();
        assert_eq!(program.ended().code(), Some(0), "{}", program.lines());
        assert!(program.lines().contains("run ends"));
        assert_eq!(program.outcomes(), ["executed"]);
    }
}

#[test]
fn a_scheduler_that_is_shut_down_takes_the_server_along() {
    for isolated in [false, true] {
        let mut program = Program::start(2, isolated, 30);
        program.begin_run(1500);
        assert!(program.ask("POST /shutdown").starts_with("HTTP/1.1 202"));
        assert_eq!(program.ended().code(), Some(0), "{}", program.lines());
        assert!(program.lines().contains("run ends"));
        assert_eq!(program.outcomes(), ["executed"]);
    }
}

#[actix_web::test]
async fn a_run_that_is_dropped_has_begun_nothing() {
    let scheduler = Scheduler::builder().build().unwrap();
    let server = HttpServer::new(App::new).workers(1).bind(("127.0.0.1", 0)).unwrap();
    let address = server.addrs()[0];
    drop(callboard::web::run(server, scheduler.clone()));
    assert!(TcpStream::connect(address).is_err());
    assert!(!scheduler.status().await.unwrap().is_running());
}
