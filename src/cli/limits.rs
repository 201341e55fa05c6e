//! How many files this process may have open. A service needs more than the usual 1,024; commands
//! get what the service was started with, because some go through all numbers up to their limit.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Tells a worker process what its commands get.
pub(super) const NOFILE: &str = "CALLBOARD_NOFILE";

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
