//! The last line of defence against processes that outlive the service.
//!
//! A run's process group is killed by the run itself. When the service dies without a chance to
//! (SIGKILL, a crash), a small companion process notices that the pipe to it has closed and kills
//! the groups that were still at work.

use std::collections::HashSet;
use std::io::{self, BufRead, Write};
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process_group};

use super::Inherited;
use crate::cli::exit::Failure;

/// Tells the companion which process groups are at work. The pipe closes with the last clone.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Reaper {
    pipe: Option<Arc<ChildStdin>>,
}

impl Reaper {
    /// Starts the companion: this very program in another role. Without one the service works all
    /// the same.
    pub(in crate::cli) fn start(inherited: &Inherited) -> Self {
        let started = std::env::current_exe().and_then(|program| {
            let mut command = Command::new(program);
            inherited.hide(&mut command);
            command
                .arg("reap")
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                // Away from the signals that the terminal sends to the service.
                .process_group(0)
                .spawn()
        });
        match started {
            Ok(child) => Self { pipe: child.stdin.map(Arc::new) },
            Err(error) => {
                tracing::warn!(%error, "no companion process: if the service is killed, commands it runs go on");
                Self { pipe: None }
            }
        }
    }

    /// Takes charge of the process group that `leader` leads.
    pub(super) fn watch(&self, leader: Pid) -> Group {
        self.tell('+', leader);
        Group { leader, reaper: self.clone() }
    }

    fn tell(&self, sign: char, leader: Pid) {
        if let Some(pipe) = &self.pipe {
            // One short write to a pipe is not torn, whoever else writes.
            let line = format!("{sign}{}\n", leader.as_raw_nonzero());
            if let Err(error) = (&**pipe).write_all(line.as_bytes()) {
                tracing::warn!(%error, "the companion process is gone: if the service is killed, commands it runs go on");
            }
        }
    }
}

/// A process group at work; killed when this is dropped.
#[derive(Debug)]
pub(super) struct Group {
    leader: Pid,
    reaper: Reaper,
}

impl Group {
    /// Sends a signal to every process of the group; nothing happens when there is none.
    pub(super) fn signal(&self, signal: Signal) {
        let _ = kill_process_group(self.leader, signal);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        self.reaper.tell('-', self.leader);
    }
}

/// The companion's whole life.
pub(in crate::cli) fn run() -> Result<(), Failure> {
    let mut groups = HashSet::new();
    // An error of the pipe is as good as its end.
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        let Some((sign, leader)) = line.split_at_checked(1) else { continue };
        match (sign, leader.parse().ok().filter(|pid| *pid > 1).and_then(Pid::from_raw)) {
            ("+", Some(leader)) => groups.insert(leader),
            ("-", Some(leader)) => groups.remove(&leader),
            _ => false,
        };
    }
    for leader in groups {
        let _ = kill_process_group(leader, Signal::KILL);
    }
    Ok(())
}
