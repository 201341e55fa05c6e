//! What the process takes of the machine (Linux; elsewhere all is zero).

use std::fs::{self, File};

/// The most of what was looked at now and then.
#[derive(Debug, Default)]
pub(crate) struct Most {
    pub(crate) descriptors: usize,
    pub(crate) zombies: usize,
}

impl Most {
    pub(crate) fn look(&mut self) {
        self.descriptors = self.descriptors.max(descriptors());
        self.zombies = self.zombies.max(zombies());
    }
}

fn status(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or_default()
}

/// The memory that it has, in bytes.
pub(crate) fn rss() -> u64 {
    status("VmRSS:") << 10
}

/// The most that it had.
pub(crate) fn peak_rss() -> u64 {
    status("VmHWM:") << 10
}

/// How many descriptors are open.
pub(crate) fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// How many of its children have ended and were not reaped.
pub(crate) fn zombies() -> usize {
    let own = std::process::id().to_string();
    let is_zombie = |text: String| {
        let rest = text.rsplit_once(')').map(|(_, rest)| rest.to_owned()).unwrap_or_default();
        let mut parts = rest.split_whitespace();
        parts.next() == Some("Z") && parts.next() == Some(&own)
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok())
        .filter(|s| is_zombie(s.clone()))
        .count()
}

/// Lets the process open so many descriptors at most.
pub(crate) fn limit_descriptors(most: u64) {
    let text = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let hard = text.lines().find(|line| line.starts_with("Max open files")).unwrap_or_default();
    let hard = hard.split_whitespace().rev().nth(1).and_then(|number| number.parse::<u64>().ok());
    let limit = rustix::process::Rlimit { current: Some(hard.unwrap_or(most).min(most)), maximum: hard };
    if let Err(error) = rustix::process::setrlimit(rustix::process::Resource::Nofile, limit) {
        eprintln!("the limit of open files stays as it is: {error}");
    }
}

/// Every descriptor that is left.
pub(crate) fn take_all_descriptors() -> Vec<File> {
    std::iter::from_fn(|| File::open("/dev/null").ok()).take(100_000).collect()
}
