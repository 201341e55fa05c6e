//! How many files this process may have open, and for whom those are that it makes. A service needs more than the usual 1,024; commands
//! get what the service was started with, because some go through all numbers up to their limit.

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};

/// Tells a worker process what its commands get.
pub(super) const NOFILE: &str = "CALLBOARD_NOFILE";

/// Tells a worker process the mask of its commands.
pub(super) const UMASK: &str = "CALLBOARD_UMASK";

/// What this process makes is for its owner alone, and for its owner in any case, also what a database makes in
/// its own way. Answers with the mask of before, when it was another one. To be called before there are threads.
pub(super) fn own_umask() -> Option<u32> {
    let own = Mode::RWXG | Mode::RWXO;
    let before = umask(own);
    (before != own).then_some(before.bits())
}

/// The mask of a worker's commands.
pub(super) fn umask_as_told() -> Option<u32> {
    std::env::var(UMASK).ok()?.parse().ok()
}

/// Raises the soft limit to the hard one; the answer is the soft one of before, when it was lower.
pub(super) fn raise_nofile() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let before = current.filter(|before| maximum.is_none_or(|maximum| *before < maximum))?;
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => Some(before),
        Err(error) => {
            tracing::warn!(%error, before, "the limit of open files could not be raised");
            None
        }
    }
}

/// Lowers the soft limit to what [`NOFILE`] says: a worker process does one run at a time.
pub(super) fn lower_nofile_as_told() {
    if let Some(current) = std::env::var(NOFILE).ok().and_then(|text| text.parse().ok()) {
        let maximum = getrlimit(Resource::Nofile).maximum;
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum });
    }
}

/// How many runs of each handler go on at once unless told otherwise; the others wait. Of commands 16
/// for each core, of requests 64, and never so many that their descriptors are more than a part of what
/// this process may have.
pub(super) fn runs_at_once() -> [(&'static str, u32); 2] {
    let cores =
        std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1));
    let files = getrlimit(Resource::Nofile).current.and_then(|files| u32::try_from(files).ok());
    let runs = |per_core: u32, files_each: u32| {
        let affordable = files.map_or(u32::MAX, |files| files / files_each);
        cores.saturating_mul(per_core).min(512).min(affordable).max(1)
    };
    [("shell", runs(16, 16)), ("http", runs(64, 8))]
}

/// How many files this process may have open.
pub(super) fn nofile() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}
