//! The companion's whole life, and how processes are ended that nobody waits for any more.

use std::collections::HashMap;
use std::io::{self, BufRead};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::cli::exit::Failure;

/// The variable of a command's environment that names its run.
pub(super) const MARK: &str = "CALLBOARD_RUN";

/// How often processes are looked for that have left their group, and how long apart.
const ROUNDS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(20);

/// Hears which groups are at work, and ends them when the service is gone: at once, for another
/// service may be about to begin the same runs.
pub(in crate::cli) fn run() -> Result<(), Failure> {
    // A companion that is stopped would not notice that the service is gone: that wakes it.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::CONT));
    let mut groups: HashMap<Pid, String> = HashMap::new();
    // An error of the pipe is as good as its end.
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        let Some((sign, rest)) = line.split_at_checked(1) else { continue };
        let (leader, run) = rest.split_once(' ').unwrap_or((rest, ""));
        match (sign, leader.parse().ok().filter(|pid| *pid > 1).and_then(Pid::from_raw)) {
            ("+", Some(leader)) => groups.insert(leader, run.to_owned()),
            ("-", Some(leader)) => groups.remove(&leader),
            _ => None,
        };
    }
    for leader in groups.keys() {
        let _ = kill_process_group(*leader, Signal::KILL);
    }
    let runs: Vec<&str> = groups.values().map(String::as_str).filter(|run| !run.is_empty()).collect();
    kill_marked(&runs);
    Ok(())
}

/// Kills every process with the mark of one of these runs in its environment, also those that have
/// left the group of their command. What has cleared its environment as well is not found, nor what
/// belongs to another user.
pub(super) fn kill_marked(runs: &[&str]) {
    let marks: Vec<String> = runs.iter().map(|run| format!("{MARK}={run}")).collect();
    for _ in 0..ROUNDS {
        // What was killed is gone a moment later; what it had begun meanwhile is found then.
        if marks.is_empty() || linux::kill(&marks) == 0 {
            return;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Whether a process of the group lives that is not only waiting to be buried.
pub(super) fn group_lives(leader: Pid) -> bool {
    rustix::process::test_kill_process_group(leader).is_ok() && linux::group_lives(leader)
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;

    use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};

    fn processes() -> impl Iterator<Item = Pid> {
        let entries = fs::read_dir("/proc").into_iter().flatten().map_while(Result::ok);
        entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
    }

    /// Kills every process with one of the marks in its environment; how many there were.
    pub(super) fn kill(marks: &[String]) -> usize {
        let marked = |pid: &Pid| {
            let environment = fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())).unwrap_or_default();
            environment
                .split(|byte| *byte == 0)
                .any(|entry| marks.iter().any(|mark| mark.as_bytes() == entry))
        };
        let kill = |pid: Pid| {
            // Opened before it is looked at, so that it is the one that was looked at.
            let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
            marked(&pid).then(|| pidfd_send_signal(process, Signal::KILL).ok())?
        };
        let this = getpid();
        processes().filter(|pid| *pid != this).filter_map(kill).count()
    }

    pub(super) fn group_lives(leader: Pid) -> bool {
        let of_group = |pid: Pid| {
            let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
            // The name before it may hold anything.
            let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
            let (state, group) = (fields.next()?, fields.nth(1)?);
            Some(state != "Z" && state != "X" && group == leader.as_raw_nonzero().to_string())
        };
        processes().any(|pid| of_group(pid) == Some(true))
    }
}

/// Elsewhere a process cannot be asked for its environment.
#[cfg(not(target_os = "linux"))]
mod linux {
    pub(super) fn kill(_: &[String]) -> usize {
        0
    }

    pub(super) fn group_lives(_: rustix::process::Pid) -> bool {
        true
    }
}
