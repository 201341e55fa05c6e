//! The program as its users start it: the built binary, real files, real signals.

mod ahead;
mod bad_input;
mod control;
mod doors;
mod endings;
mod floods;
mod handlers;
mod next;
mod registration;
mod scarce;
mod serve;
mod shown;
mod signals;
mod starved;
mod store;
mod stored;
mod survivors;
mod times;
mod unread;
mod vanish;
mod zones;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// How long anything may take before a test gives up on it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Kills the service while the command of its task `long` runs: nothing of it stays behind.
fn kill_in_mid_run(place: &Place, service: Service) {
    let pids = place.path().join("pids");
    let command = format!("sleep 600 & echo $$ $! $PPID > {0}.new; mv {0}.new {0}; wait", pids.display());
    place.json(&["add", "--id", "long", "--cron", "0 3 1 1 *", "--shell", &command]);
    place.json(&["run", "long"]);
    eventually("the command has started", || pids.exists());
    let pids = fs::read_to_string(&pids).unwrap();
    assert!(pids.split_whitespace().all(alive), "{pids}");
    service.kill();
    eventually("no process outlives the service", || !pids.split_whitespace().any(alive));
}

/// A directory with a configuration and the data of a service.
struct Place {
    dir: TempDir,
}

/// What a command said and how it ended.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Place {
    fn new() -> Self {
        Self { dir: TempDir::new().unwrap() }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    fn config(&self, text: &str) {
        fs::write(self.path().join("callboard.toml"), text).unwrap();
    }

    /// A command on this place; `--data data` is added unless it has one.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_callboard"));
        command.current_dir(self.path()).args(args).env_remove("CALLBOARD_LOG").stdin(Stdio::null());
        if args.first() != Some(&"next") && !args.contains(&"--data") {
            command.args(["--data", "data"]);
        }
        command
    }

    /// Runs a command to its end.
    fn run(&self, args: &[&str]) -> Said {
        let mut child = self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = drain(child.stdout.take().unwrap());
        let err = drain(child.stderr.take().unwrap());
        let status = wait(&mut child);
        Said { code: status.code().unwrap_or(-1), out: out.join().unwrap(), err: err.join().unwrap() }
    }

    /// Runs a command that must succeed, with `--json`, and reads its answer.
    fn json(&self, args: &[&str]) -> Value {
        let said = self.run(&[args, &["--json"]].concat());
        assert_eq!(said.code, 0, "{args:?}: {said:?}");
        serde_json::from_str(&said.out).unwrap()
    }

    /// Asks with `--json` until the answer is as wanted.
    fn until(&self, args: &[&str], wanted: impl Fn(&Value) -> bool) -> Value {
        let begin = Instant::now();
        loop {
            let answer = self.json(args);
            if wanted(&answer) {
                return answer;
            }
            assert!(begin.elapsed() < PATIENCE, "{args:?} answers still {answer:#}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Starts a service, with the configuration if there is one, and waits until it is up.
    fn serve(&self, args: &[&str]) -> Service {
        let service = self.spawn(args);
        service.line("running");
        service
    }

    fn spawn(&self, args: &[&str]) -> Service {
        self.spawn_by(|place| place.serve_command(args))
    }

    /// `serve`, with the configuration if there is one.
    fn serve_command(&self, args: &[&str]) -> Command {
        let mut all = vec!["serve"];
        if self.path().join("callboard.toml").exists() {
            all.extend(["--config", "callboard.toml"]);
        }
        all.extend(args);
        self.command(&all)
    }

    /// Starts a service from a shell, after `before`.
    fn spawn_after(&self, before: &str, change: impl FnOnce(&mut Command)) -> Service {
        self.spawn_by(|place| {
            let service = place.serve_command(&[]);
            let mut shell = Command::new("/bin/sh");
            shell.args(["-c", &format!("{before}; exec \"$@\""), "sh"]);
            shell.arg(service.get_program()).args(service.get_args());
            shell.current_dir(place.path()).env_remove("CALLBOARD_LOG").stdin(Stdio::null());
            change(&mut shell);
            shell
        })
    }

    fn spawn_by(&self, command: impl FnOnce(&Self) -> Command) -> Service {
        let mut child = command(self).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        for stream in [
            Box::new(child.stdout.take().unwrap()) as Box<dyn Read + Send>,
            Box::new(child.stderr.take().unwrap()),
        ] {
            let sender = sender.clone();
            thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let _ = sender.send(line);
                }
            });
        }
        Service { child, lines }
    }
}

/// A running service; killed at the end of a test.
struct Service {
    child: Child,
    lines: Receiver<String>,
}

impl Service {
    /// Waits for a line with this text.
    fn line(&self, text: &str) -> String {
        self.line_with(&[text])
    }

    /// Waits for a line with all of these texts.
    fn line_with(&self, texts: &[&str]) -> String {
        let begin = Instant::now();
        let mut seen = String::new();
        loop {
            let left = PATIENCE.saturating_sub(begin.elapsed());
            match self.lines.recv_timeout(left) {
                Ok(line) if texts.iter().all(|text| line.contains(text)) => return line,
                Ok(line) => seen += &format!("{line}\n"),
                Err(RecvTimeoutError::Timeout) => panic!("no line with {texts:?} but\n{seen}"),
                Err(RecvTimeoutError::Disconnected) => panic!("ended without a line with {texts:?}:\n{seen}"),
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for the end; the exit code and what was still said.
    fn end(mut self) -> (i32, String) {
        let status = wait(&mut self.child);
        let mut rest = String::new();
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            rest += &format!("{line}\n");
        }
        (status.code().unwrap_or(-1), rest)
    }

    /// Asks it to stop and waits for that; it must end well.
    fn stop(self) -> String {
        self.signal(Signal::TERM);
        let (code, rest) = self.end();
        assert_eq!(code, 0, "{rest}");
        rest
    }

    /// Kills it as a power cut would.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The library that lets a process live at another time, where the machine has it.
fn faketime() -> Option<PathBuf> {
    let library = ["libfaketimeMT.so.1", "libfaketime.so.1"]
        .iter()
        .map(|name| Path::new("/usr/lib/x86_64-linux-gnu/faketime").join(name))
        .find(|library| library.exists());
    if library.is_none() {
        println!("skipped: it takes the package faketime");
    }
    library
}

fn drain(mut stream: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Waits for the end of a child that must come.
fn wait(child: &mut Child) -> ExitStatus {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if begin.elapsed() > PATIENCE {
            let _ = child.kill();
            panic!("does not end");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until something has become true.
fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !check() {
        assert!(begin.elapsed() < PATIENCE, "still not: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Whether a process is alive; a zombie is not.
pub(crate) fn alive(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{}/stat", pid.trim()))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z'))
}
