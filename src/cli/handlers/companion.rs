//! The service's side of its companion: a small process that outlives the service for a moment and
//! ends what commands the service leaves behind when it dies without a chance to.
//!
//! The companion hears of a command before the command begins, by a pipe that closes with the
//! service. A thread of its own keeps the companion: it starts it, writes to it without ever waiting
//! for it, and replaces one that is gone or does not listen.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::ioctl_fionbio;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::Inherited;
use super::command::timespec;
use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::task::RunId;

/// How long a full pipe is waited for before its reader is replaced.
const STALL: Duration = Duration::from_secs(2);

/// How long a command waits until the companion knows of it.
const PATIENCE: Duration = Duration::from_secs(5);

/// A companion that comes later than this is waited for by no command.
const SOON: Duration = Duration::from_secs(1);

/// How soon one that ended is replaced, when its successors end as well.
const BACKOFF: Backoff = Backoff::exponential(Duration::from_millis(100), Duration::from_secs(30));

/// A companion that has lived so long was none of those that end at once.
const SETTLED: Duration = Duration::from_secs(10);

const ALONE: &str = "if the service is killed, commands it runs go on";

/// Tells the companion which commands are at work. The pipe closes with the last clone.
#[derive(Debug, Clone)]
pub(super) struct Companion(Option<Arc<Line>>);

/// To the thread that keeps the companion.
#[derive(Debug)]
struct Line {
    orders: Sender<Order>,
    bell: UnixStream,
}

enum Order {
    Watch { leader: Pid, run: RunId, told: Sender<()> },
    Unwatch { leader: Pid },
}

impl Companion {
    /// Starts the companion. Without one the service works all the same.
    pub(super) fn start(inherited: Inherited) -> Self {
        Self::try_start(inherited).unwrap_or_else(|error| {
            tracing::warn!(%error, "no companion process: {ALONE}");
            Self(None)
        })
    }

    fn try_start(inherited: Inherited) -> std::io::Result<Self> {
        let (orders, inbox) = channel();
        let (bell, rung) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        rung.set_nonblocking(true)?;
        let post = Post {
            inherited,
            inbox,
            rung,
            groups: BTreeMap::new(),
            waiting: Vec::new(),
            companion: None,
            start: Process::start,
            ends: 0,
            again: Duration::ZERO,
        };
        std::thread::Builder::new().name("callboard-companion".to_owned()).spawn(move || post.keep())?;
        Ok(Self(Some(Arc::new(Line { orders, bell }))))
    }

    /// Takes charge of the process group that `leader` leads, for a run. Blocks until the companion is
    /// sure to hear of it, or it is clear that there is none.
    pub(super) fn watch(&self, leader: Pid, run: RunId) -> Watched {
        let (told, heard) = channel();
        if let Some(line) = &self.0 {
            line.say(Order::Watch { leader, run, told });
            let _ = heard.recv_timeout(PATIENCE);
        }
        Watched { leader, companion: self.clone() }
    }
}

impl Line {
    fn say(&self, order: Order) {
        if self.orders.send(order).is_ok() {
            // One that is full of rings wakes the thread as well.
            let _ = (&self.bell).write(&[0]);
        }
    }
}

/// A process group that the companion ends when the service dies, for as long as this lives.
#[derive(Debug)]
pub(super) struct Watched {
    leader: Pid,
    companion: Companion,
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(line) = &self.companion.0 {
            line.say(Order::Unwatch { leader: self.leader });
        }
    }
}

/// Keeps the companion, on a thread of its own.
struct Post {
    inherited: Inherited,
    inbox: Receiver<Order>,
    rung: UnixStream,
    /// What is at work: a successor is told of it.
    groups: BTreeMap<i32, RunId>,
    /// Who waits until the companion is sure to hear of it, and what has to be written before.
    waiting: Vec<(u64, Sender<()>)>,
    companion: Option<Process>,
    start: fn(&Inherited) -> std::io::Result<Process>,
    /// How many have ended soon, in a row.
    ends: u32,
    /// When the next one may be started, by the monotonic clock.
    again: Duration,
}

struct Process {
    child: Child,
    pipe: ChildStdin,
    since: Duration,
    unsent: Vec<u8>,
    /// Bytes so far: said, and written.
    said: u64,
    written: u64,
    /// When something was written last, or there was nothing to write.
    progress: Duration,
}

fn now() -> Duration {
    Clock::system().monotonic()
}

impl Post {
    fn keep(mut self) {
        loop {
            loop {
                match self.inbox.try_recv() {
                    Ok(order) => self.take(order),
                    Err(TryRecvError::Empty) => break,
                    // The pipe closes with this.
                    Err(TryRecvError::Disconnected) => return,
                }
            }
            if self.companion.is_none() && self.again <= now() {
                self.replace();
            }
            self.write();
            self.wait();
        }
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Watch { leader, run, told } => {
                self.groups.insert(leader.as_raw_nonzero().get(), run);
                match &mut self.companion {
                    Some(process) => {
                        process.say(&watch(leader.as_raw_nonzero().get(), run));
                        self.waiting.push((process.said, told));
                    }
                    // Told with all others when there is one.
                    None if self.again <= now().saturating_add(SOON) => self.waiting.push((u64::MAX, told)),
                    // Nobody waits for what comes too late; it hears of the command all the same.
                    None => drop(told),
                }
            }
            Order::Unwatch { leader } => {
                let leader = leader.as_raw_nonzero().get();
                if self.groups.remove(&leader).is_some()
                    && let Some(process) = &mut self.companion
                {
                    process.say(&format!("-{leader}\n"));
                }
            }
        }
    }

    /// Starts a companion and tells it of everything that is at work.
    fn replace(&mut self) {
        match (self.start)(&self.inherited) {
            Ok(mut process) => {
                self.groups.iter().for_each(|(leader, run)| process.say(&watch(*leader, *run)));
                self.waiting.iter_mut().for_each(|(at, _)| *at = process.said);
                self.companion = Some(process);
            }
            Err(error) => {
                tracing::warn!(%error, "no companion process: {ALONE}");
                self.put_off();
            }
        }
    }

    fn put_off(&mut self) {
        self.again = now().saturating_add(BACKOFF.delay(self.ends, 0));
        self.ends = self.ends.saturating_add(1);
        // Nobody is to wait for what may not come.
        self.waiting.clear();
    }

    fn write(&mut self) {
        let Some(process) = &mut self.companion else { return };
        if process.is_stopped() {
            return self.lose("it was stopped");
        }
        match process.write() {
            Ok(()) => {
                let written = process.written;
                // Whoever waited too long is not there any more.
                self.waiting.retain(|(at, told)| {
                    let waits = *at > written;
                    if !waits {
                        let _ = told.send(());
                    }
                    waits
                });
                if !process.unsent.is_empty() && now().saturating_sub(process.progress) >= STALL {
                    self.lose("it does not listen");
                }
            }
            Err(error) => self.lose(&error.to_string()),
        }
    }

    /// The companion is of no more use.
    fn lose(&mut self, reason: &str) {
        let Some(mut process) = self.companion.take() else { return };
        // Ends one that was stopped, too.
        let _ = process.child.kill();
        let _ = process.child.wait();
        tracing::warn!(reason, "the companion process is gone and is replaced");
        if now().saturating_sub(process.since) >= SETTLED {
            self.ends = 0;
        }
        match self.ends {
            0 => self.ends = 1,
            _ => self.put_off(),
        }
    }

    /// Waits until there is something to do.
    fn wait(&mut self) {
        let left = match &self.companion {
            None => Some(self.again.saturating_sub(now())),
            Some(process) if process.unsent.is_empty() => None,
            Some(process) => Some((process.progress + STALL).saturating_sub(now())),
        };
        let left = left.map(timespec);
        let mut fds = vec![PollFd::new(&self.rung, PollFlags::IN)];
        if let Some(process) = &self.companion {
            let write = if process.unsent.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            fds.push(PollFd::new(&process.pipe, write));
        }
        // Whatever it says, what there is to do is looked for.
        let _ = poll(&mut fds, left.as_ref());
        let gone = fds.get(1).is_some_and(|pipe| pipe.revents().intersects(PollFlags::ERR | PollFlags::HUP));
        drop(fds);
        if gone {
            self.lose("it has ended");
        }
        while matches!((&self.rung).read(&mut [0; 256]), Ok(1..)) {}
    }
}

fn watch(leader: i32, run: RunId) -> String {
    format!("+{leader} {run}\n")
}

impl Process {
    /// This very program in another role.
    fn start(inherited: &Inherited) -> std::io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        inherited.hide(&mut command);
        command.arg("reap");
        Self::spawn(&mut command)
    }

    fn spawn(command: &mut Command) -> std::io::Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Away from the signals that the terminal sends to the service.
            .process_group(0)
            .spawn()?;
        let pipe = child.stdin.take().ok_or_else(|| std::io::Error::other("it has no pipe"))?;
        ioctl_fionbio(&pipe, true)?;
        let since = now();
        Ok(Self { child, pipe, since, unsent: Vec::new(), said: 0, written: 0, progress: since })
    }

    /// Whether somebody has stopped it, as far as is known without waiting.
    fn is_stopped(&self) -> bool {
        let look = WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        matches!(waitid(WaitId::Pid(Pid::from_child(&self.child)), look), Ok(Some(_)))
    }

    fn say(&mut self, line: &str) {
        if self.unsent.is_empty() {
            self.progress = now();
        }
        self.unsent.extend_from_slice(line.as_bytes());
        self.said += line.len() as u64;
    }

    fn write(&mut self) -> std::io::Result<()> {
        while !self.unsent.is_empty() {
            match self.pipe.write(&self.unsent) {
                Ok(count) => {
                    self.unsent.drain(..count);
                    self.written += count as u64;
                    self.progress = now();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::thread::JoinHandle;

    use super::*;
    use crate::task::OwnerId;

    type Start = fn(&Inherited) -> std::io::Result<Process>;

    /// One that is there and never reads: no wait tells it from one that listens.
    fn deaf(_: &Inherited) -> std::io::Result<Process> {
        Process::spawn(Command::new("sleep").arg("600"))
    }

    fn listening(_: &Inherited) -> std::io::Result<Process> {
        Process::spawn(&mut Command::new("cat"))
    }

    fn none(_: &Inherited) -> std::io::Result<Process> {
        Err(ErrorKind::OutOfMemory.into())
    }

    fn kept(start: Start, change: impl FnOnce(&mut Post)) -> (Companion, JoinHandle<()>) {
        let (orders, inbox) = channel();
        let (bell, rung) = UnixStream::pair().unwrap();
        bell.set_nonblocking(true).unwrap();
        rung.set_nonblocking(true).unwrap();
        let mut post = Post {
            inherited: Inherited::default(),
            inbox,
            rung,
            groups: BTreeMap::new(),
            waiting: Vec::new(),
            companion: None,
            start,
            ends: 0,
            again: Duration::ZERO,
        };
        change(&mut post);
        (Companion(Some(Arc::new(Line { orders, bell }))), std::thread::spawn(move || post.keep()))
    }

    fn run(serial: u64) -> RunId {
        RunId { owner: OwnerId(1), serial }
    }

    fn leader(number: u64) -> Pid {
        Pid::from_raw(i32::try_from(number).unwrap() + 1).unwrap()
    }

    #[test]
    fn one_that_never_reads_is_replaced_once_its_pipe_is_full() {
        let mut pid = None;
        let (companion, thread) = kept(listening, |post| {
            let process = deaf(&post.inherited).unwrap();
            pid = Some(process.child.id());
            post.companion = Some(process);
        });
        let exists = |pid: u32| std::path::Path::new(&format!("/proc/{pid}")).exists();
        // A pipe holds 64 KiB. Nobody waits for long, and nobody for ever.
        let mut longest = Duration::ZERO;
        let mut watched = Vec::new();
        for number in 0..10_000 {
            let begin = now();
            watched.push(companion.watch(leader(number), run(number)));
            longest = longest.max(now() - begin);
        }
        assert!(longest < PATIENCE, "{longest:?}: the successor hears of what the pipe did not take");
        assert!(longest >= STALL / 2, "{longest:?}: the pipe was full");
        assert!(!exists(pid.unwrap()), "it was ended and buried");
        drop((watched, companion));
        thread.join().unwrap();
    }

    #[test]
    fn nobody_waits_for_one_that_comes_late() {
        for start in [none as Start, deaf] {
            let (companion, thread) = kept(start, |post| {
                post.again = now() + Duration::from_secs(3600);
                post.ends = 20;
            });
            let begin = now();
            let watched: Vec<_> =
                (0..1000).map(|number| companion.watch(leader(number), run(number))).collect();
            assert!(now() - begin < PATIENCE, "{:?}", now() - begin);
            drop((watched, companion));
            thread.join().unwrap();
        }
    }
}
