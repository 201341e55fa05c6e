//! Exports that a store takes by itself.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, Utc};

use super::history::Chore;
use super::load::Loaded;
use super::sweep::Sweep;
use super::{Batch, Place, Rules, keys};
use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::store::StoreError;
use crate::task::TaskId;

const STAMP: &str = "%Y%m%dT%H%M%SZ";
/// How long after a failure the next try is made.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// Exports that a store takes by itself while it runs: how often, how many are kept, and where.
///
/// Each is a file of its own, written beside the work and synced before it gets its name,
/// `callboard-<directory>-<time in UTC>.jsonl`; then the oldest beyond those to keep are removed.
/// While nothing changes none is taken; a new key counts as a change. An encrypted store is exported
/// as it is, encrypted.
///
/// One that fails is told by the event [`StoreExportFailed`](crate::event::Event::StoreExportFailed),
/// once, and tried again, also when nothing changes: after a second, then after twice that each time, at
/// most after the time between two.
///
/// ```no_run
/// use std::time::Duration;
/// use callboard::store::{Exports, SledStore};
///
/// let store = SledStore::open("data/store")?.exports(Exports::every(Duration::from_secs(3600)).keep(24));
/// # Ok::<(), callboard::store::StoreError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exports {
    every: Duration,
    keep: usize,
    dir: Option<PathBuf>,
}

impl Exports {
    /// One every so often, at least a second apart. The last seven are kept, in a directory beside
    /// that of the store, with `.exports` after its name.
    pub fn every(time: Duration) -> Self {
        Self { every: time.max(Duration::from_secs(1)), keep: 7, dir: None }
    }

    /// How many are kept, at least one.
    pub fn keep(mut self, exports: usize) -> Self {
        self.keep = exports.max(1);
        self
    }

    /// The directory they are written to. It is made when it is needed.
    pub fn dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.dir = Some(path.into());
        self
    }

    /// With a directory that is relative to `base`, if it is relative.
    #[cfg(feature = "config")]
    pub(crate) fn below(mut self, base: &Path) -> Self {
        self.dir = self.dir.map(|dir| base.join(dir));
        self
    }

    fn directory(&self, store: &Path) -> PathBuf {
        self.dir.clone().unwrap_or_else(|| {
            let mut name = store.file_name().unwrap_or_default().to_owned();
            name.push(".exports");
            store.with_file_name(name)
        })
    }
}

/// The writer's part.
pub(super) struct Automatic {
    exports: Exports,
    dir: PathBuf,
    /// What comes before the time in the name of a file.
    prefix: String,
    /// All tasks, and those removed that have records still.
    tasks: BTreeSet<TaskId>,
    /// When the next one is taken, in monotonic time.
    next: Duration,
    /// Whether something has changed since the last one.
    changed: bool,
    /// What becomes of the one under way.
    underway: Option<mpsc::Receiver<Result<(), StoreError>>>,
    /// How many have failed since one did not.
    failures: u32,
}

impl Automatic {
    pub(super) fn begin<P: Place>(place: &P, rules: &Rules, loaded: &Loaded) -> Option<Self> {
        let exports = rules.exports.clone()?;
        let path = place.path();
        let dir = exports.directory(path);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let prefix = format!("callboard-{name}-");
        let clock = Clock::system();
        // A store that is started again and again has its exports, too.
        let latest = taken(&dir, &prefix).pop().map(|(at, _)| at);
        let age = latest.and_then(|at| (clock.now() - at).to_std().ok());
        let wait = age.map_or(Duration::ZERO, |age| exports.every.saturating_sub(age));
        let gone = loaded.gone.iter().map(|(_, task)| task.clone());
        let named = loaded.unreadable.iter().filter_map(|bad| TaskId::new(&bad.what.id).ok());
        let tasks = loaded.tasks.ids().into_iter().chain(gone).chain(named).collect();
        let next = clock.monotonic().saturating_add(wait);
        Some(Self { exports, dir, prefix, tasks, next, changed: true, underway: None, failures: 0 })
    }

    pub(super) fn next(&self) -> Duration {
        self.next
    }

    /// Notes what a batch is about to change.
    pub(super) fn note(&mut self, batch: &Batch) {
        self.changed = true;
        for (key, value) in &batch.changes {
            if let (true, Some(_), Ok(id)) = (key.starts_with(keys::SPEC), value, keys::id_of(key)) {
                self.tasks.insert(id);
            }
        }
        // A task that leaves has records still, until these go too.
        for chore in &batch.chores {
            if let Chore::Forgotten(task) = chore {
                self.tasks.remove(task);
            }
        }
    }

    /// Notes that everything is to be written with other keys, so that what was exported before may
    /// not be readable for long.
    pub(super) fn note_keys(&mut self) {
        self.changed = true;
    }

    /// Looks at what has become of the one under way; says why, when it is the first that failed.
    pub(super) fn settle(&mut self, clock: &Clock) -> Option<StoreError> {
        let exported = match self.underway.as_ref()?.try_recv() {
            Err(mpsc::TryRecvError::Empty) => return None,
            Err(mpsc::TryRecvError::Disconnected) => Err(StoreError::unavailable("it was given up")),
            Ok(exported) => exported,
        };
        self.underway = None;
        let Err(error) = exported else {
            if self.failures > 0 {
                tracing::info!(dir = %self.dir.display(), "the store is exported again");
            }
            self.failures = 0;
            prune(&self.dir, &self.prefix, self.exports.keep);
            return None;
        };
        let again = Backoff::exponential(FIRST_RETRY, self.exports.every.max(FIRST_RETRY));
        let again = again.delay(self.failures, 0);
        tracing::error!(
            dir = %self.dir.display(), %error, ?again, "the store could not be exported; it is tried again"
        );
        self.changed = true;
        self.next = clock.monotonic().saturating_add(again);
        self.failures = self.failures.saturating_add(1);
        (self.failures == 1).then_some(error)
    }

    /// The export whose time has come.
    pub(super) fn take(&mut self, clock: &Clock) -> Option<Sweep> {
        if clock.monotonic() < self.next {
            return None;
        }
        self.next = clock.monotonic().saturating_add(self.exports.every);
        if !self.changed || self.underway.is_some() {
            return None;
        }
        self.changed = false;
        let path = self.dir.join(format!("{}{}.jsonl", self.prefix, clock.now().format(STAMP)));
        let (done, underway) = mpsc::channel();
        self.underway = Some(underway);
        let done = move |exported: Result<_, StoreError>| drop(done.send(exported.map(drop)));
        Some(Sweep::export_then(self.tasks.clone(), path, false, done))
    }
}

/// The exports that are there, oldest first.
fn taken(dir: &Path, prefix: &str) -> Vec<(DateTime<Utc>, PathBuf)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut taken: Vec<_> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let stamp = name.strip_prefix(prefix)?.strip_suffix(".jsonl")?;
            let at = NaiveDateTime::parse_from_str(stamp, STAMP).ok()?;
            Some((at.and_utc(), entry.path()))
        })
        .collect();
    taken.sort();
    taken
}

fn prune(dir: &Path, prefix: &str, keep: usize) {
    let mut taken = taken(dir, prefix);
    let excess = taken.len().saturating_sub(keep);
    for (_, path) in taken.drain(..excess) {
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "an old export could not be removed");
        }
    }
    // Exports that were cut off by the end of the process.
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(prefix) && name.ends_with(".jsonl.part") {
            fs::remove_file(entry.path()).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::engine::tests::id;

    fn automatic() -> Automatic {
        Automatic {
            exports: Exports::every(Duration::from_secs(60)),
            dir: PathBuf::new(),
            prefix: String::new(),
            tasks: BTreeSet::new(),
            next: Duration::ZERO,
            changed: false,
            underway: None,
            failures: 0,
        }
    }

    #[test]
    fn tasks_are_known_as_long_as_there_is_something_of_them() {
        let mut automatic = automatic();
        let batch = |chores| Batch {
            changes: ["a", "b"].map(|name| (keys::spec(&id(name)), Some(vec![]))).to_vec(),
            chores,
        };
        automatic.note(&batch(vec![Chore::Leaves(id("a"))]));
        assert_eq!(automatic.tasks, [id("a"), id("b")].into(), "its records are there still");
        automatic.note(&batch(vec![Chore::Forgotten(id("a"))]));
        assert_eq!(automatic.tasks, [id("b")].into());
    }
}
