//! Exports that a store takes by itself.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, Utc};
use uuid::Uuid;

use super::export::{PART, origin_of, remove_left_behind};
use super::history::Chore;
use super::load::Loaded;
use super::sweep::Sweep;
use super::{Batch, Place, Rules, keys};
use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::store::StoreError;
use crate::task::TaskId;

const STAMP: &str = "%Y%m%dT%H%M%SZ";
const END: &str = ".jsonl";
/// How long after a failure the next try is made.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// Exports that a store takes by itself while it runs: how often, how many are kept, and where.
///
/// Each is a file of its own, written beside the work and synced before it gets its name,
/// `callboard-<directory>-<time in UTC>.jsonl`; then the oldest beyond those to keep are removed, but
/// none that says it is of another store. While nothing changes none is taken; a new
/// key counts as a change. An encrypted store is exported as it is, encrypted.
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
    /// The identity of the store: other stores may have exports of such names there.
    store: Uuid,
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
    pub(super) fn begin<P: Place>(place: &P, rules: &Rules, store: Uuid, loaded: &Loaded) -> Option<Self> {
        let exports = rules.exports.clone()?;
        let path = place.path();
        let dir = exports.directory(path);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let prefix = format!("callboard-{name}-");
        let clock = Clock::system();
        // A store that is started again and again has its exports, too.
        let now = clock.now();
        let latest = taken(&dir, &prefix, store).into_iter().map(|(at, _)| at).filter(|at| *at <= now).max();
        let age = latest.and_then(|at| (now - at).to_std().ok());
        let wait = age.map_or(Duration::ZERO, |age| exports.every.saturating_sub(age));
        let gone = loaded.gone.iter().map(|(_, task)| task.clone());
        let named = loaded.unreadable.iter().filter_map(|bad| TaskId::new(&bad.what.id).ok());
        let tasks = loaded.tasks.ids().into_iter().chain(gone).chain(named).collect();
        let next = clock.monotonic().saturating_add(wait);
        Some(Self { exports, dir, prefix, store, tasks, next, changed: true, underway: None, failures: 0 })
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
            if let Chore::Forgotten(_, task) = chore {
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
            self.prune(clock.now());
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
        let path = self.dir.join(format!("{}{}{END}", self.prefix, clock.now().format(STAMP)));
        if path.exists() {
            // Another store of this name was faster, or a clock was set back.
            self.next = clock.monotonic().saturating_add(FIRST_RETRY);
            return None;
        }
        self.changed = false;
        let (done, underway) = mpsc::channel();
        self.underway = Some(underway);
        let done = move |exported: Result<_, StoreError>| drop(done.send(exported.map(drop)));
        Some(Sweep::export_then(self.tasks.clone(), path, false, done))
    }
}

/// The exports of a store that are there.
fn taken(dir: &Path, prefix: &str, store: Uuid) -> Vec<(DateTime<Utc>, PathBuf)> {
    let mut taken = stamped(dir, prefix, END);
    taken.retain(|(_, path)| origin_of(path).is_none_or(|origin| origin == store));
    taken
}

/// The files with such names, with the times in these.
fn stamped(dir: &Path, prefix: &str, end: &str) -> Vec<(DateTime<Utc>, PathBuf)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let stamped = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let stamp = name.strip_prefix(prefix)?.strip_suffix(end)?;
        let at = NaiveDateTime::parse_from_str(stamp, STAMP).ok()?;
        Some((at.and_utc(), entry.path()))
    });
    stamped.collect()
}

impl Automatic {
    /// Removes the oldest beyond those to keep, and what exports that were cut off have left.
    fn prune(&self, now: DateTime<Utc>) {
        let mut taken = taken(&self.dir, &self.prefix, self.store);
        // What is of a later time than now was taken while the clock was wrong: before those of now.
        taken.sort_by_key(|(at, _)| (*at <= now, *at));
        let excess = taken.len().saturating_sub(self.exports.keep);
        for (_, path) in taken.drain(..excess) {
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "an old export could not be removed");
            }
        }
        for (_, path) in stamped(&self.dir, &self.prefix, &format!("{END}{PART}")) {
            // One that somebody is writing stays.
            remove_left_behind(&path).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::store::engine::export::ExportWriter;
    use crate::store::engine::tests::id;

    fn automatic(dir: &Path, store: Uuid) -> Automatic {
        Automatic {
            exports: Exports::every(Duration::from_secs(60)).keep(2),
            dir: dir.to_owned(),
            prefix: "callboard-tasks-".to_owned(),
            store,
            tasks: BTreeSet::new(),
            next: Duration::ZERO,
            changed: false,
            underway: None,
            failures: 0,
        }
    }

    #[test]
    fn tasks_are_known_as_long_as_there_is_something_of_them() {
        let mut automatic = automatic(Path::new(""), Uuid::nil());
        let batch = |chores| Batch {
            changes: ["a", "b"].map(|name| (keys::spec(&id(name)), Some(vec![]))).to_vec(),
            chores,
            now: None,
        };
        automatic.note(&batch(vec![Chore::Leaves(id("a"))]));
        assert_eq!(automatic.tasks, [id("a"), id("b")].into(), "its records are there still");
        automatic.note(&batch(vec![Chore::Forgotten(0, id("a"))]));
        assert_eq!(automatic.tasks, [id("b")].into());
    }

    /// What is left of the exports in a directory that several stores share.
    #[test]
    fn the_oldest_of_this_store_go_and_no_others() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path();
        let (store, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let export = |name: &str, store| {
            ExportWriter::create(&dir.join(name), store, false).unwrap().finish().unwrap();
        };
        for stamp in ["20260301T000000Z", "20260302T000000Z", "20260303T000000Z", "20990101T000000Z"] {
            export(&format!("callboard-tasks-{stamp}.jsonl"), store);
        }
        // Of a store in another directory of that name, and of one whose name goes on.
        export("callboard-tasks-20260101T000000Z.jsonl", other);
        export("callboard-tasks-b-20260101T000000Z.jsonl", other);
        let left = dir.join("callboard-tasks-20260201T000000Z.jsonl.part");
        fs::write(&left, "cut off").unwrap();
        let underway = ["callboard-tasks-20260304T000000Z.jsonl", "callboard-tasks-b-20260304T000000Z.jsonl"]
            .map(|name| ExportWriter::create(&dir.join(name), other, false).unwrap());

        automatic(dir, store).prune("2026-03-05T00:00:00Z".parse().unwrap());
        for writer in underway {
            writer.finish().unwrap();
        }
        let there: BTreeSet<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        // The one of 2099 was taken while the clock was wrong, and is older than those of now.
        let expected = [
            "callboard-tasks-20260101T000000Z.jsonl",
            "callboard-tasks-20260302T000000Z.jsonl",
            "callboard-tasks-20260303T000000Z.jsonl",
            "callboard-tasks-20260304T000000Z.jsonl",
            "callboard-tasks-b-20260101T000000Z.jsonl",
            "callboard-tasks-b-20260304T000000Z.jsonl",
        ];
        assert_eq!(there.iter().map(String::as_str).collect::<Vec<_>>(), expected);
    }
}
