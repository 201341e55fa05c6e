//! A worker's process, from its start to its burial: a thread of this process for each.
//!
//! The thread starts the process, waits for its end, sees to it that nothing is left of its group,
//! and buries it. So no arbiter waits for a process to start, and no process is left unburied.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, test_kill_process_group, waitid,
};
use tokio::sync::oneshot;

use crate::clock::Clock;

/// How a process knows that it was started as a worker: the variable names the socket that is its
/// standard input, so that a process which merely inherits the environment is not taken for one.
pub(super) const ASKED: &str = "CALLBOARD_WORKER";

/// How often the members of a group that were asked to end are looked after.
const GLANCE: Duration = Duration::from_millis(10);

/// What is started.
#[derive(Debug, Clone, Default)]
pub(super) struct Launch {
    /// `None`: this program.
    pub(super) program: Option<PathBuf>,
    pub(super) args: Vec<OsString>,
    pub(super) env: Vec<(OsString, OsString)>,
    /// Variables of this process that are none of the worker's.
    pub(super) env_remove: Vec<OsString>,
}

/// A process that has been started. It is killed when this is dropped, with all of its group.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) group: GroupHold,
    /// Does not block.
    pub(super) socket: UnixStream,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    /// How it ended; comes when nothing is left of its group.
    pub(super) ended: oneshot::Receiver<String>,
}

/// What names a socket among all that there are.
pub(super) fn name_of(socket: &File) -> io::Result<String> {
    let meta = socket.metadata()?;
    Ok(format!("{}:{}", meta.dev(), meta.ino()))
}

/// Starts a process, on a thread that then stays with it.
pub(super) fn start(launch: Launch) -> oneshot::Receiver<io::Result<Process>> {
    let (sender, started) = oneshot::channel();
    // The kernel's news of a parent's death is that of the thread which started the child: this
    // thread must live as long as the process.
    let thread = std::thread::Builder::new().name("callboard-worker".to_owned());
    let kept = Arc::new(Mutex::new(Some(sender)));
    let sender = kept.clone();
    let take = |slot: &Mutex<Option<oneshot::Sender<_>>>| slot.lock().ok().and_then(|mut slot| slot.take());
    let spawned = thread.spawn(move || {
        let Some(sender) = take(&sender) else { return };
        match spawn(launch) {
            Ok((process, child, ended)) => {
                let group = process.group.0.clone();
                // Nobody wants it any more: then this drops it, and so kills it.
                drop(sender.send(Ok(process)));
                let end = group.bury(child);
                let _ = ended.send(end);
            }
            Err(error) => drop(sender.send(Err(error))),
        }
    });
    if let Err(error) = spawned
        && let Some(sender) = take(&kept)
    {
        let _ = sender.send(Err(error));
    }
    started
}

fn spawn(launch: Launch) -> io::Result<(Process, Child, oneshot::Sender<String>)> {
    let program = match launch.program {
        Some(program) => program,
        None => std::env::current_exe()?,
    };
    let (socket, theirs) = UnixStream::pair()?;
    socket.set_nonblocking(true)?;
    let theirs = File::from(OwnedFd::from(theirs));
    let mut command = Command::new(&program);
    command
        .args(launch.args)
        .envs(launch.env)
        .env(ASKED, name_of(&theirs)?)
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    for name in &launch.env_remove {
        command.env_remove(name);
    }
    let mut child = command.spawn().map_err(|error| {
        io::Error::new(error.kind(), format!("`{}` cannot be started: {error}", program.display()))
    })?;
    // The copy of the socket that is meant for the child closes with the command.
    drop(command);
    let leader = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let (Some(leader), Some(stdout), Some(stderr)) = (leader, child.stdout.take(), child.stderr.take())
    else {
        let _ = child.kill();
        let _ = child.wait();
        return Err(io::Error::other("the process has no pid or no output"));
    };
    let (ended, end) = oneshot::channel();
    let group =
        Arc::new(Group { pid: child.id(), state: Mutex::new(State { leader: Some(leader), mercy: None }) });
    let process =
        Process { group: GroupHold(group), socket, stdout: stdout.into(), stderr: stderr.into(), ended: end };
    Ok((process, child, ended))
}

/// The process group of a worker.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) pid: u32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// `None` when the group is gone and its number may be somebody else's.
    leader: Option<Pid>,
    /// Until when those who were asked to end may take, by the monotonic clock.
    mercy: Option<Duration>,
}

/// A hold on a group, which is killed when it ends.
#[derive(Debug)]
pub(super) struct GroupHold(pub(super) Arc<Group>);

impl Drop for GroupHold {
    fn drop(&mut self) {
        self.0.kill();
    }
}

impl Group {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Whether the leader lives, as the kernel has it: others may not have been told yet.
    pub(super) fn lives(&self) -> bool {
        let state = self.state();
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        state.leader.is_some_and(|leader| matches!(waitid(WaitId::Pid(leader), look), Ok(None)))
    }

    /// Asks every process of the group to end. What is left after `mercy`, when the leader is
    /// gone, is killed.
    pub(super) fn terminate(&self, mercy: Duration) {
        let mut state = self.state();
        state.mercy = Some(Clock::system().monotonic().saturating_add(mercy));
        if let Some(leader) = state.leader {
            let _ = kill_process_group(leader, Signal::TERM);
        }
    }

    /// Kills the leader. The others keep the time they have been given.
    pub(super) fn kill_leader(&self) {
        if let Some(leader) = self.state().leader {
            let _ = kill_process(leader, Signal::KILL);
        }
    }

    /// Kills every process of the group.
    pub(super) fn kill(&self) {
        let mut state = self.state();
        state.mercy = None;
        if let Some(leader) = state.leader {
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }

    /// Waits for the end of the leader, lets nobody of the group outlive it, and says how it ended.
    fn bury(&self, mut child: Child) -> String {
        let leader = self.state().leader;
        if let Some(leader) = leader {
            // Leaves it unburied, so that its number stays its own.
            let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            while matches!(waitid(WaitId::Pid(leader), ended), Err(Errno::INTR)) {}
            if self.state().mercy.is_none() {
                let _ = kill_process_group(leader, Signal::KILL);
            }
        }
        let status = child.wait();
        while let Some(leader) = leader {
            let mut state = self.state();
            // A group that has members keeps its number.
            if test_kill_process_group(leader).is_err() {
                state.leader = None;
                break;
            }
            let mercy = state.mercy.filter(|until| Clock::system().monotonic() < *until);
            if mercy.is_none() {
                let _ = kill_process_group(leader, Signal::KILL);
                state.leader = None;
                break;
            }
            drop(state);
            std::thread::sleep(GLANCE);
        }
        match status {
            Ok(status) => describe(status),
            Err(error) => format!("ended, and nobody knows how: {error}"),
        }
    }
}

/// Continues "its worker process …".
fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => match name(signal) {
            Some(name) => format!("was killed by signal {signal} ({name})"),
            None => format!("was killed by signal {signal}"),
        },
        (None, None) => format!("ended: {status}"),
    }
}

fn name(signal: i32) -> Option<&'static str> {
    const NAMES: [(Signal, &str); 15] = [
        (Signal::HUP, "SIGHUP"),
        (Signal::INT, "SIGINT"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::ILL, "SIGILL"),
        (Signal::TRAP, "SIGTRAP"),
        (Signal::ABORT, "SIGABRT"),
        (Signal::BUS, "SIGBUS"),
        (Signal::FPE, "SIGFPE"),
        (Signal::KILL, "SIGKILL"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::PIPE, "SIGPIPE"),
        (Signal::ALARM, "SIGALRM"),
        (Signal::TERM, "SIGTERM"),
        (Signal::XCPU, "SIGXCPU"),
        (Signal::SYS, "SIGSYS"),
    ];
    NAMES.iter().find(|(known, _)| known.as_raw() == signal).map(|(_, name)| *name)
}
