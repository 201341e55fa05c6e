//! What a store understands. Every message is answered with a `Result<_, StoreError>`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use actix::prelude::*;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::{Capabilities, StoreError};
use crate::task::{OwnerId, RunEnd, RunId, RunRecord, StoredTask, TaskId, TaskState};
use crate::timezones::Release;

/// Makes the store ready. The runs of earlier owners that never ended are closed as interrupted
/// and reported in [`Opened`].
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Opened, StoreError>")]
pub struct Open {
    /// The scheduler's present life.
    pub owner: OwnerId,
    /// The time, for the ends of interrupted runs.
    pub now: DateTime<Utc>,
}

/// The answer to [`Open`].
#[derive(Debug, Clone, Default)]
pub struct Opened {
    /// What the store can do.
    pub capabilities: Capabilities,
    /// Runs of dead owners, now ended as interrupted.
    pub interrupted: Vec<RunRecord>,
    /// Records that could not be read; they were left as they are.
    pub unreadable: Vec<Unreadable>,
    /// The ids of tasks that were in quarantine when the store was last open, and are readable again.
    pub healed: Vec<String>,
    /// The earliest due time.
    pub next_due: Option<DateTime<Utc>>,
    /// The owner that sorts last among those who began runs here: a scheduler whose clock was set back
    /// takes one that sorts after it.
    pub latest_owner: Option<OwnerId>,
    /// The data that was found damaged and set aside: the store began anew.
    pub set_aside: Option<SetAside>,
    /// The tasks with an [`Attempt`](crate::task::Attempt) that is going on; `None` when the store
    /// cannot tell without more ado, and then all tasks are listed to find them.
    pub unsettled: Option<Vec<TaskId>>,
    /// The latest of the times in its tasks that must be past; `None` when the store cannot tell without
    /// more ado. One that is later than now was taken from a clock that was ahead.
    pub latest_time: Option<DateTime<Utc>>,
    /// By which rules of time zones the next runs of its tasks were worked out: the latest that a
    /// [`KeepRules`] said. `None` when none did, or the store does not keep that: then each task is looked
    /// at.
    pub rules: Option<KeptRules>,
    /// Tells of exports that the store takes by itself and that fail; `None` for a store that takes
    /// none.
    pub export_failures: Option<Failures>,
    /// Tells when the store fails while nobody asks it, so that it is opened again at once and not when
    /// somebody does; `None` for a store that fails only in its answers.
    pub failures: Option<Failures>,
}

/// Tells of what failed in a store without an answer to say so, for as long as it is open.
#[derive(Debug, Clone)]
pub struct Failures(pub(crate) tokio::sync::watch::Receiver<Option<StoreError>>);

impl Failures {
    /// Waits for the next one and answers why it failed; nothing when the store is open no more.
    /// Of several since the last call, only the latest is told.
    pub async fn next(&mut self) -> Option<StoreError> {
        loop {
            self.0.changed().await.ok()?;
            let failure = self.0.borrow_and_update().clone();
            if failure.is_some() {
                return failure;
            }
        }
    }
}

/// By which rules of time zones the next runs of a store's tasks were worked out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptRules {
    /// [`Zones::digest`](crate::trigger::Zones::digest).
    pub digest: u64,
    /// For people.
    pub release: Release,
}

/// Has the store keep by which rules the next runs of its tasks were worked out: it says so when it is
/// opened. A store need not understand it.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), StoreError>")]
pub struct KeepRules(pub KeptRules);

/// Damaged data that was given another name; the store was told to do that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// Where it is.
    pub place: String,
    /// What is wrong with it.
    pub reason: String,
}

/// A record that could not be read. It stays in the store, untouched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The task's id, as far as it could be told.
    pub id: String,
    /// What kind of trouble it is.
    pub cause: Cause,
    /// What is wrong with the record, for people.
    pub reason: String,
}

/// Why a record cannot be read, and so what would make it readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Cause {
    /// A newer version of callboard wrote it: that one reads it.
    Newer,
    /// It is encrypted, and the store has not got the key: with the key it is readable.
    UnknownKey,
    /// It is encrypted, and is not what was encrypted for this row of this store: it was changed, or
    /// copied here. The original is readable.
    Forged,
    /// It is not encrypted, in a store that takes nothing else.
    NotEncrypted,
    /// It is damaged. A backup has it.
    Corrupt,
    /// Something that belongs to it is missing. A backup has it.
    Incomplete,
}

impl Cause {
    /// Whether the record can be readable one day as it is: with another program, key or setting.
    #[cfg(feature = "_durable")]
    pub(super) fn may_pass(self) -> bool {
        match self {
            Self::Newer | Self::UnknownKey | Self::NotEncrypted => true,
            Self::Forged | Self::Corrupt | Self::Incomplete => false,
        }
    }

    /// What to do, for people.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Newer => "use another id, or a version of callboard that can read it",
            Self::UnknownKey => "use another id, or give the store the key",
            Self::NotEncrypted => {
                "use another id, or let the store take plain records once more and rekey it"
            }
            Self::Forged | Self::Corrupt | Self::Incomplete => {
                "use another id, or bring it back with `callboard store import EXPORT --merge` while the program is stopped"
            }
        }
    }
}

/// What must be there for a [`Put`] to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// No task of this id.
    Absent,
    /// The task at this revision.
    Revision(u64),
}

/// Writes a whole task. Refused with `Exists`, `NotFound` or `Changed` when what is there is not
/// as expected.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), StoreError>")]
pub struct Put {
    /// The task, with the revision it is to have.
    pub task: StoredTask,
    /// What must be there.
    pub expect: Expect,
}

/// Removes a task and answers with it; its run records stay. `NotFound` when there is none.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<StoredTask, StoreError>")]
pub struct Delete {
    /// The task.
    pub id: TaskId,
    /// Only at this revision (else `Changed`).
    pub revision: Option<u64>,
}

/// Looks a task up.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Option<StoredTask>, StoreError>")]
pub struct Get {
    /// The task.
    pub id: TaskId,
}

/// All tasks: by due time, those without one last, by id among equals.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Vec<StoredTask>, StoreError>")]
pub struct List;

/// Some of all tasks, in no order that means anything; the rest with further requests.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<Page, StoreError>")]
pub struct Leaf {
    /// Where to go on: 0 to begin, then what [`Page::next`] said.
    pub from: usize,
}

/// The answer to [`Leaf`]. A task that was there all the time is in one of the pages.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The tasks.
    pub tasks: Vec<StoredTask>,
    /// Where to go on; `None` when that was all.
    pub next: Option<usize>,
}

/// The tasks that are due, oldest first. A shared store claims them for the asking owner.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<Due, StoreError>")]
pub struct TakeDue {
    /// The time.
    pub now: DateTime<Utc>,
    /// At most this many.
    pub limit: usize,
}

/// The answer to [`TakeDue`].
#[derive(Debug, Clone, Default)]
pub struct Due {
    /// The tasks. They stay due until a [`Commit`] moves them on.
    pub tasks: Vec<StoredTask>,
    /// Whether the limit cut the list short.
    pub more: bool,
}

/// Puts tasks off that are due and cannot run here now, so that [`TakeDue`] does not bring them up
/// again and again; or brings them back. Nothing is written: on disk they stay due, and [`Open`]
/// forgets what was put off. So does every change of the task: the changed one is due as it says.
/// Answered with the earliest due time afterwards.
///
/// A shared store gives its claim on them up: other schedulers may take them.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Option<DateTime<Utc>>, StoreError>")]
pub struct Defer {
    /// The tasks.
    pub tasks: Vec<Deferral>,
}

/// One task's part of a [`Defer`]. One that was changed or deleted meanwhile is left as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deferral {
    /// The task.
    pub id: TaskId,
    /// The revision that was taken.
    pub revision: u64,
    /// From when on it is due again.
    pub until: Until,
}

/// How long a task is put off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// No longer: it is due when its state says.
    Now,
    /// Till this time, or longer if it is not due before.
    At(DateTime<Utc>),
    /// Till it is brought back.
    Recalled,
}

impl Until {
    /// When a task is due that is put off so, and would be due at `due`.
    pub fn from(self, due: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self {
            Self::Now => Some(due),
            Self::At(time) => Some(due.max(time)),
            Self::Recalled => None,
        }
    }
}

/// What becomes of a task after its due run times were dealt with.
#[derive(Debug, Clone, PartialEq)]
pub enum Then {
    /// This is its state from now on (with a new revision).
    State(TaskState),
    /// The whole task is written anew.
    Task(StoredTask),
    /// It is removed: its schedule has ended, or somebody asked for it.
    Remove,
}

/// One task's part of a [`Commit`].
#[derive(Debug, Clone)]
pub struct Change {
    /// The task.
    pub id: TaskId,
    /// The revision that was taken.
    pub revision: u64,
    /// What becomes of it.
    pub then: Then,
    /// The records of its runs: those about to be submitted have no end yet. One with an end takes
    /// the place of the record of that run, if there is one. A store that keeps no records leaves
    /// them alone.
    pub runs: Vec<RunRecord>,
}

/// Moves tasks on, in one atomic batch. A task that was changed or deleted meanwhile is refused by
/// itself; the others go ahead.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Committed, StoreError>")]
pub struct Commit {
    /// A change a task.
    pub changes: Vec<Change>,
}

/// The answer to [`Commit`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Committed {
    /// The indices, ascending, of the changes that were refused.
    pub refused: Vec<usize>,
    /// The earliest due time afterwards.
    pub next_due: Option<DateTime<Utc>>,
}

/// Records how runs ended. A run the store does not know is ignored.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), StoreError>")]
pub struct Finish {
    /// The runs, their tasks and their ends.
    pub ends: Vec<(RunId, TaskId, RunEnd)>,
}

/// The earliest due time.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<Option<DateTime<Utc>>, StoreError>")]
pub struct NextDue;

/// The latest run records of a task, newest first. Empty in a store that keeps none.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Vec<RunRecord>, StoreError>")]
pub struct Runs {
    /// The task.
    pub id: TaskId,
    /// At most this many.
    pub limit: usize,
}

/// The run records of a task that concern run times in a window (see [`RunRecord::concerns`]), in the
/// order of their ids. Nothing in a store that keeps none.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Found, StoreError>")]
pub struct FindRuns {
    /// The task.
    pub id: TaskId,
    /// The beginning of the window, inclusive.
    pub from: DateTime<Utc>,
    /// Its end, inclusive.
    pub to: DateTime<Utc>,
    /// At most this many: those whose run times begin earliest.
    pub limit: usize,
}

impl FindRuns {
    /// How long before the window a run that concerns it may have been submitted, by a clock that
    /// was set since. A store that looks back in time need not look further.
    pub const SLACK: TimeDelta = TimeDelta::hours(1);
}

/// The answer to [`FindRuns`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Found {
    /// The records.
    pub runs: Vec<RunRecord>,
    /// Where the run times of those begin that the limit left out.
    pub rest: Option<DateTime<Utc>>,
    /// When the oldest record that is kept of the task was submitted.
    pub oldest: Option<DateTime<Utc>>,
    /// Since when nothing is missing between the records that are kept: of runs that were submitted
    /// before, some are on record and others are not. `None` when none was ever let go.
    pub complete_since: Option<DateTime<Utc>>,
    /// What records are kept, for people: `runs of the last 7 days, at most 256 MiB of records`.
    pub kept: Option<String>,
}

impl Found {
    /// Picks what `request` asks for from the records of its task, newest first: for stores that
    /// have them all at hand.
    pub fn among(request: &FindRuns, newest_first: impl IntoIterator<Item = RunRecord>) -> Self {
        let (mut pick, mut oldest) = (Pick::new(request), None);
        for record in newest_first {
            oldest = Some(record.submitted_at);
            pick.offer(record);
        }
        Self { oldest, ..pick.found() }
    }
}

/// The records that a [`FindRuns`] asks for, among those that are offered.
#[derive(Debug)]
pub(super) struct Pick {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    limit: usize,
    picked: BTreeMap<(DateTime<Utc>, RunId), RunRecord>,
    rest: Option<DateTime<Utc>>,
}

impl Pick {
    pub(super) fn new(request: &FindRuns) -> Self {
        let FindRuns { from, to, limit, .. } = *request;
        Self { from, to, limit, picked: BTreeMap::new(), rest: None }
    }

    pub(super) fn offer(&mut self, record: RunRecord) {
        if !record.concerns(self.from, self.to) {
            return;
        }
        self.picked.insert((record.begins(), record.id), record);
        if self.picked.len() > self.limit
            && let Some(((begins, _), _)) = self.picked.pop_last()
        {
            // What is left out begins earlier and earlier.
            self.rest = Some(begins);
        }
    }

    pub(super) fn found(self) -> Found {
        let mut runs: Vec<_> = self.picked.into_values().collect();
        runs.sort_unstable_by_key(|record| record.id);
        Found { runs, rest: self.rest, ..Found::default() }
    }
}

/// Removes every task; answers with how many there were.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<usize, StoreError>")]
pub struct RemoveAll;

/// Reads everything and lists what cannot be read, without holding up other requests for long.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<Checked, StoreError>")]
pub struct Check;

/// The answer to [`Check`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Tasks that can be read.
    pub tasks: u64,
    /// Run records that can be read.
    pub runs: u64,
    /// What cannot be read.
    pub quarantine: Vec<Quarantined>,
}

/// A record that cannot be read, with all that is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Quarantined {
    /// The task's id, as far as it could be told.
    pub id: String,
    /// Which record it is: `spec`, `state`, or the id of a run.
    pub record: String,
    /// What kind of trouble it is.
    pub cause: Cause,
    /// What is wrong with it, for people.
    pub reason: String,
    /// When a scheduler first came upon it. Run records that have ended are looked at by nobody but
    /// [`Check`], and have none.
    pub since: Option<DateTime<Utc>>,
    /// The record, as it lies in the store.
    #[serde(skip)]
    pub bytes: Vec<u8>,
}

/// Looks for the store's keys anew and writes everything with the current one that was written with
/// another, or with none; requests are answered meanwhile. Refused by a store without keys.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<Rekeyed, StoreError>")]
pub struct Rekey;

/// The answer to [`Rekey`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Rekeyed {
    /// The id of the key that everything is written with.
    pub key: String,
    /// Records that were written again.
    pub rewritten: u64,
    /// Records that had it already.
    pub current: u64,
    /// Records that cannot be read; they stay as they are.
    pub unreadable: u64,
}

/// Writes all tasks and run records to a file, as they are at one moment; requests are answered
/// meanwhile.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Exported, StoreError>")]
pub struct Export {
    /// The file. One that is there is replaced when the export is complete.
    pub path: PathBuf,
    /// Whether an encrypted store is written so that anybody can read it.
    pub plain: bool,
}

/// The answer to [`Export`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// The file.
    pub path: PathBuf,
    /// How many tasks are in it.
    pub tasks: u64,
    /// How many run records are in it.
    pub runs: u64,
    /// How many records are in it that could not be read: they are in it as they are.
    pub unreadable: u64,
    /// The SHA-256 of what it says, in hexadecimal digits.
    pub sha256: String,
}

/// Writes out what is still in memory and ends the store.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<(), StoreError>")]
pub struct Close;
