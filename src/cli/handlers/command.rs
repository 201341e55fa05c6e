//! One command, from its start to its burial: a thread for each.
//!
//! The thread starts the command, reads what it prints, keeps its time, and ends it in one way
//! whoever wants it ended: SIGTERM to its group, some mercy, SIGKILL. Neither a slow start, nor a
//! flood of output, nor an executor that is gone keeps it from that.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::sync::oneshot;

use super::companion::Companion;
use super::reaper::{group_lives, kill_marked};
use super::tail::Tail;
use crate::cli::limits;
use crate::clock::Clock;
use crate::task::RunId;

/// How often a command is looked after. When the time between two looks was much longer, this
/// process has stood still.
const TICK: Duration = Duration::from_secs(1);

/// The same where the kernel does not tell of ends, and for groups, of whose end it never tells.
const GLANCE: Duration = Duration::from_millis(10);

/// How long output is waited for when all processes of the group are gone.
const PATIENCE: Duration = Duration::from_millis(500);

/// Descriptors that the start of a command takes besides those that are open before it.
const OF_A_START: u64 = 8;

/// With fewer than so many descriptors commands leave none.
const FEW: u64 = 128;

/// The most descriptors that commands leave to everybody else: stores, the control socket, the companion.
const LEFT: u64 = 64;

/// What is wanted.
pub(super) struct Order {
    pub(super) command: Command,
    pub(super) run: RunId,
    pub(super) timeout: Option<Duration>,
    /// How long its processes have to end by themselves after SIGTERM, before SIGKILL.
    pub(super) mercy: Duration,
    pub(super) clock: Clock,
    pub(super) companion: Companion,
}

/// A command at work. It is ended when this is dropped.
pub(super) struct Running {
    stop: UnixStream,
    ended: oneshot::Receiver<io::Result<Ended>>,
}

/// How a command ended.
pub(super) struct Ended {
    pub(super) status: io::Result<ExitStatus>,
    pub(super) cause: Cause,
    /// When, by the monotonic clock.
    pub(super) over: Duration,
    pub(super) stdout: Tail,
    pub(super) stderr: Tail,
}

/// Why a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    Itself,
    /// Somebody wanted it to.
    Stopped,
    /// Its time was over.
    TimedOut,
}

/// Whether it may go better a moment later.
pub(super) fn is_scarcity(error: &io::Error) -> bool {
    let scarce = [Errno::MFILE, Errno::NFILE, Errno::AGAIN, Errno::NOMEM];
    error.raw_os_error().is_some_and(|code| scarce.iter().any(|errno| errno.raw_os_error() == code))
}

/// Starts the thread of a command. What it lacks for that, or for the process, is told and not waited for:
/// of many that wait with something in their hands, none would ever get all it needs.
pub(super) fn start(order: impl FnOnce() -> Order + Send + 'static) -> io::Result<Running> {
    let (stop, stopped) = UnixStream::pair()?;
    let starting = Starting::with(&stopped)?;
    let (sender, ended) = oneshot::channel();
    let thread = std::thread::Builder::new().name("callboard-command".to_owned()).stack_size(256 << 10);
    thread.spawn(move || drop(sender.send(Attendant { order: order(), stopped }.attend(starting))))?;
    Ok(Running { stop, ended })
}

/// A command that is being started, from when its descriptors are foreseen to when they are there.
struct Starting;

/// How many there are.
static STARTING: AtomicU64 = AtomicU64::new(0);

impl Starting {
    /// An error when what it takes would be among the last descriptors there are. `newest` is its latest one:
    /// a descriptor gets the lowest number that is free.
    fn with(newest: &impl AsRawFd) -> io::Result<Self> {
        let all = limits::nofile();
        let others = STARTING.fetch_add(1, Ordering::Relaxed);
        let starting = Self;
        // Where there are few, they are for the service that was started with them.
        if all < FEW {
            return Ok(starting);
        }
        let left = (all / 8).min(LEFT) + others.saturating_add(1).saturating_mul(OF_A_START);
        match u64::try_from(newest.as_raw_fd()) {
            Ok(number) if number.saturating_add(left) >= all => Err(Errno::MFILE.into()),
            _ => Ok(starting),
        }
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        STARTING.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Running {
    /// Ends the command.
    pub(super) fn stop(&self) {
        // A stream that holds no byte more holds one already.
        let _ = (&self.stop).write(&[0]);
    }

    /// Waits until nothing of the command is left. An error says that it has not begun.
    pub(super) async fn ended(&mut self) -> io::Result<Ended> {
        (&mut self.ended).await.unwrap_or_else(|_| Err(io::Error::other("its thread has ended")))
    }
}

/// The thread's work.
struct Attendant {
    order: Order,
    stopped: UnixStream,
}

/// What a command prints.
struct Outputs {
    stdout: (Option<ChildStdout>, Tail),
    stderr: (Option<ChildStderr>, Tail),
}

impl Attendant {
    fn attend(mut self, starting: Starting) -> io::Result<Ended> {
        // It waits behind a gate until it is let go, and ends when it never is.
        let mut child = self.order.command.spawn()?;
        drop(starting);
        let leader = Pid::from_child(&child);
        let watched = self.order.companion.watch(leader, self.order.run);
        let mut outputs = Outputs {
            stdout: (child.stdout.take(), Tail::default()),
            stderr: (child.stderr.take(), Tail::default()),
        };
        let gate = child.stdin.take();
        let stopped = self.is_stopped(Duration::ZERO);
        if !stopped && let Some(mut gate) = gate {
            // When it has ended before, that is seen below.
            let _ = gate.write_all(b"\n");
        }
        let (cause, over, mercy) = self.watch(leader, &mut outputs, stopped);
        let status = self.bury(&mut child, leader, mercy, &mut outputs);
        if cause != Cause::Itself {
            kill_marked(&[&self.order.run.to_string()]);
        }
        // Now the pipes are closed, unless somebody has left the group on purpose.
        let patience = self.now() + PATIENCE;
        while outputs.are_open() && self.now() < patience {
            outputs.read(None, None, patience.saturating_sub(self.now()));
        }
        drop(watched);
        Ok(Ended { status, cause, over, stdout: outputs.stdout.1, stderr: outputs.stderr.1 })
    }

    fn now(&self) -> Duration {
        self.order.clock.monotonic()
    }

    /// Whether the command is to end; waits so long to hear it.
    fn is_stopped(&self, wait: Duration) -> bool {
        let mut fds = [PollFd::new(&self.stopped, PollFlags::IN)];
        matches!(poll(&mut fds, Some(&timespec(wait))), Ok(1..))
    }

    /// Watches the command until its first process has ended, which stays unburied. Says why, when, and
    /// until when the others have to end.
    fn watch(
        &self,
        leader: Pid,
        outputs: &mut Outputs,
        mut stopped: bool,
    ) -> (Cause, Duration, Option<Duration>) {
        #[cfg(target_os = "linux")]
        let process = rustix::process::pidfd_open(leader, rustix::process::PidfdFlags::empty()).ok();
        #[cfg(not(target_os = "linux"))]
        let process: Option<OwnedFd> = None;
        let began = self.now();
        let deadline = self.order.timeout.map(|timeout| began.saturating_add(timeout));
        let mut looked = began;
        // Until when it may go on, once it was asked to end; and whether it was killed then.
        let mut asked: Option<(Cause, Duration)> = None;
        let mut killed = false;
        loop {
            let now = self.now();
            // The end of a command counts before everything that has come meanwhile.
            if has_ended(leader) {
                let stood_still = now.saturating_sub(looked) > TICK * 2;
                let over = if stood_still { looked } else { now };
                return match asked {
                    Some((cause, until)) => (cause, over, Some(until)),
                    None => (Cause::Itself, over, None),
                };
            }
            looked = now;
            match asked {
                None => {
                    let cause = match deadline {
                        _ if stopped => Some(Cause::Stopped),
                        Some(deadline) if deadline <= now => Some(Cause::TimedOut),
                        _ => None,
                    };
                    if let Some(cause) = cause {
                        terminate(leader);
                        asked = Some((cause, now.saturating_add(self.order.mercy)));
                    }
                }
                Some((_, until)) if until <= now && !killed => {
                    let _ = kill_process_group(leader, Signal::KILL);
                    killed = true;
                }
                Some(_) => {}
            }
            let next = match asked {
                None => deadline,
                Some((_, until)) => Some(until).filter(|_| !killed),
            };
            let tick = if process.is_some() { TICK } else { GLANCE };
            let wait = next.map_or(tick, |next| next.saturating_sub(now).min(tick));
            let ear = asked.is_none().then(|| self.stopped.as_fd());
            stopped |= outputs.read(process.as_ref().map(OwnedFd::as_fd), ear, wait);
        }
    }

    /// Buries the first process, and lets nobody of its group outlive it for long.
    fn bury(
        &self,
        child: &mut Child,
        leader: Pid,
        mercy: Option<Duration>,
        outputs: &mut Outputs,
    ) -> io::Result<ExitStatus> {
        // What the shell left in the background ends with it. Its number is its own until it is buried,
        // and that of its group for as long as that has members.
        terminate(leader);
        let until = mercy.unwrap_or_else(|| self.now().saturating_add(self.order.mercy));
        let status = child.wait();
        while group_lives(leader) {
            if until <= self.now() {
                let _ = kill_process_group(leader, Signal::KILL);
                break;
            }
            outputs.read(None, None, GLANCE);
        }
        status
    }
}

/// Asks every process of the group to end, also those that were stopped.
fn terminate(leader: Pid) {
    let _ = kill_process_group(leader, Signal::TERM);
    let _ = kill_process_group(leader, Signal::CONT);
}

/// Whether the process has ended; it stays unburied, so that its number stays its own.
fn has_ended(process: Pid) -> bool {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    !matches!(waitid(WaitId::Pid(process), look), Ok(None) | Err(Errno::INTR))
}

impl Outputs {
    fn are_open(&self) -> bool {
        self.stdout.0.is_some() || self.stderr.0.is_some()
    }

    /// Waits, `wait` at most, until there is something to read, and reads a piece of it; or until
    /// `process` ends or `ear` hears something, which is the answer. A flood of output is read a piece at
    /// a time, so that whoever calls this sees to everything else in between.
    fn read(&mut self, process: Option<BorrowedFd<'_>>, ear: Option<BorrowedFd<'_>>, wait: Duration) -> bool {
        let mut fds = Vec::with_capacity(4);
        let stdout = place(&mut fds, self.stdout.0.as_ref().map(AsFd::as_fd));
        let stderr = place(&mut fds, self.stderr.0.as_ref().map(AsFd::as_fd));
        let heard = place(&mut fds, ear);
        place(&mut fds, process);
        if poll(&mut fds, Some(&timespec(wait))).is_err() {
            return false;
        }
        let is_ready = |at: Option<usize>| at.is_some_and(|at| !fds[at].revents().is_empty());
        let (stdout, stderr, heard) = (is_ready(stdout), is_ready(stderr), is_ready(heard));
        drop(fds);
        if stdout {
            read(&mut self.stdout.0, &mut self.stdout.1);
        }
        if stderr {
            read(&mut self.stderr.0, &mut self.stderr.1);
        }
        heard
    }
}

fn place<'a>(fds: &mut Vec<PollFd<'a>>, fd: Option<BorrowedFd<'a>>) -> Option<usize> {
    fds.push(PollFd::from_borrowed_fd(fd?, PollFlags::IN));
    Some(fds.len() - 1)
}

/// Reads a piece, and closes what is at its end or broken.
fn read(pipe: &mut Option<impl Read>, tail: &mut Tail) {
    let mut buffer = [0; 64 << 10];
    match pipe.as_mut().map(|pipe| pipe.read(&mut buffer)) {
        Some(Ok(count @ 1..)) => tail.push(&buffer[..count]),
        Some(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
        _ => *pipe = None,
    }
}

/// A length of time for `poll`.
pub(super) fn timespec(time: Duration) -> Timespec {
    // Rounded up: a wait that ends too early is waited again.
    let time = time.saturating_add(Duration::from_micros(999));
    Timespec::try_from(time).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 })
}
