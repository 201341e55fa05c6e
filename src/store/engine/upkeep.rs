//! Lets go of run records that are too old, too many or too large together: the part of the thread that
//! has the disk.

use std::collections::BTreeMap;
use std::ops::ControlFlow::{Break, Continue};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::history::Chore;
use super::load::Loaded;
use super::{Batch, Disk, Order, keys};
use crate::store::StoreError;
use crate::store::envelope::{Codec, Kind};
use crate::store::retention::{Class, Entry, Ledger, Retention};
use crate::task::{RunRecord, TaskId};

/// So many records are looked at or let go in a moment in which nobody asks for anything.
const SLICE: usize = 256;
/// So many records go with a batch, and two more for each that it has.
const AT_ONCE: usize = 16;

/// A clock that is ahead by more than this all at once may be wrong,
const LEAP: TimeDelta = TimeDelta::hours(1);
/// and records are not too old by it before it has been that late for so long.
const DOUBT: Duration = Duration::from_secs(600);

/// Keeps the book of the records on a disk.
pub(super) struct Upkeep {
    pub codec: Codec,
    bounds: Retention,
    ledger: Ledger,
    /// What has not been read since the store was opened.
    unread: Unread,
    calendar: Calendar,
}

/// The tasks whose records are not in the book yet, and whether they are there.
#[derive(Debug, Default)]
struct Unread {
    tasks: BTreeMap<TaskId, bool>,
    /// The one being read, whether it is there, and the last of its rows that was.
    current: Option<(TaskId, bool, Vec<u8>)>,
}

impl Unread {
    fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.current.is_none()
    }

    /// Whether a record will be read anyway.
    fn has(&self, task: &TaskId, key: &[u8]) -> bool {
        let ahead = |(current, _, past): &(TaskId, bool, Vec<u8>)| current == task && key > past.as_slice();
        self.tasks.contains_key(task) || self.current.as_ref().is_some_and(ahead)
    }

    fn note(&mut self, task: &TaskId, is_there: bool) {
        if let Some(there) = self.tasks.get_mut(task) {
            *there = is_there;
        }
        if let Some((current, there, _)) = &mut self.current
            && current == task
        {
            *there = is_there;
        }
    }
}

/// What time it is, as far as that can be told from runs.
#[derive(Debug)]
struct Calendar {
    /// The latest time, and when that was, by the monotonic clock.
    latest: Option<(DateTime<Utc>, Duration)>,
    doubted_until: Duration,
}

impl Calendar {
    /// `now`, unless it is doubtful.
    fn trust(&mut self, now: DateTime<Utc>, monotonic: Duration) -> Option<DateTime<Utc>> {
        if let Some((before, then)) = self.latest {
            let passed = TimeDelta::from_std(monotonic.saturating_sub(then)).unwrap_or(TimeDelta::MAX);
            if now.signed_duration_since(before) > LEAP.checked_add(&passed).unwrap_or(TimeDelta::MAX) {
                self.doubted_until = monotonic.saturating_add(DOUBT);
            }
        }
        self.latest = Some((now, monotonic));
        (monotonic >= self.doubted_until).then_some(now)
    }
}

impl Upkeep {
    /// The book of what was found, at `monotonic`; it is read bit by bit.
    pub(super) fn new(bounds: Retention, loaded: &Loaded, monotonic: Duration) -> Self {
        let mut ledger = Ledger::new(bounds);
        ledger.note_gone_until(loaded.gone_until);
        let unread = Unread { tasks: loaded.with_records(), current: None };
        // The first run may be one by a clock that has not been set yet.
        let doubted_until = if unread.is_empty() { monotonic } else { monotonic.saturating_add(DOUBT) };
        let calendar = Calendar { latest: None, doubted_until };
        Self { codec: loaded.codec.clone(), bounds, ledger, unread, calendar }
    }

    /// Notes what a batch that is about to be applied means for the records, and adds to its changes what
    /// goes.
    pub(super) fn complete<D: Disk>(
        &mut self,
        disk: &D,
        batch: &mut Batch,
        monotonic: Duration,
    ) -> Result<(), StoreError> {
        let mut limit = AT_ONCE;
        for chore in std::mem::take(&mut batch.chores) {
            match chore {
                Chore::Noted(task, entry) => {
                    limit += 2;
                    // A task that runs is there; an end can be that of a run whose task is not.
                    if entry.class == Class::Open {
                        self.unread.note(&task, true);
                    }
                    if !self.unread.has(&task, &keys::run(&task, entry.run)) {
                        self.ledger.note(&task, entry, true);
                    }
                }
                Chore::Dropped(task, run) => self.ledger.forget(&task, run),
                Chore::Leaves(task) => {
                    self.unread.note(&task, false);
                    self.ledger.leave(&task);
                }
                Chore::Forgotten(number, task) => self.forget(disk, batch, number, &task)?,
            }
        }
        let now = batch.now.and_then(|now| self.calendar.trust(now, monotonic));
        self.let_go(batch, now, limit);
        Ok(())
    }

    /// Adds to a batch what may go.
    fn let_go(&mut self, batch: &mut Batch, now: Option<DateTime<Utc>>, limit: usize) {
        if !self.unread.is_empty() {
            return;
        }
        let before = now.zip(self.bounds.age).and_then(|(now, age)| now.checked_sub_signed(age));
        let (mut gone, known) = (Vec::new(), self.ledger.gone_until());
        self.ledger.excess(before, limit, &mut gone);
        for (task, entry) in gone {
            batch.remove(keys::run(&task, entry.run));
        }
        if let Some(until) = self.ledger.gone_until().filter(|until| Some(*until) > known) {
            batch.insert(keys::GONE_UNTIL.to_vec(), until.timestamp_millis().to_be_bytes().to_vec());
        }
    }

    /// Removes some records of a task that was removed long ago; when those are not all, it is its turn
    /// again one day.
    fn forget<D: Disk>(
        &mut self,
        disk: &D,
        batch: &mut Batch,
        number: u64,
        task: &TaskId,
    ) -> Result<(), StoreError> {
        let (mut seen, mut rest) = (0, false);
        let (codec, ledger, changes) = (&self.codec, &mut self.ledger, &mut batch.changes);
        disk.scan(&keys::runs(task), Order::Ascending, &mut |key, bytes| {
            if seen == SLICE {
                rest = true;
                return Break(());
            }
            seen += 1;
            if let Ok(record) = codec.decode::<RunRecord>(Kind::Run, key, bytes)
                && record.end.is_some()
            {
                changes.push((key.to_vec(), None));
                ledger.forget(task, record.id);
            }
            Continue(())
        })?;
        if rest {
            batch.insert(keys::gone(number), task.as_str().as_bytes().to_vec());
        }
        Ok(())
    }

    /// Whether there is something to do although nobody asks.
    pub(super) fn has_work(&self) -> bool {
        !self.unread.is_empty() || self.ledger.is_over()
    }

    /// Reads a bit more of what there is, or lets go of something: in a batch that is to be applied.
    pub(super) fn go_on<D: Disk>(&mut self, disk: &D) -> Result<Batch, StoreError> {
        let mut batch = Batch::default();
        if self.unread.is_empty() {
            self.let_go(&mut batch, None, SLICE);
        } else {
            self.read_on(disk)?;
        }
        Ok(batch)
    }

    fn read_on<D: Disk>(&mut self, disk: &D) -> Result<(), StoreError> {
        let mut rows = 0;
        while rows < SLICE {
            let current = self.unread.current.take();
            let next = || self.unread.tasks.pop_first().map(|(task, there)| (task, there, Vec::new()));
            let Some((task, is_there, from)) = current.or_else(next) else { break };
            let (codec, ledger, mut past) = (&self.codec, &mut self.ledger, from.clone());
            let mut visit = |key: &[u8], bytes: &[u8]| {
                if rows >= SLICE {
                    return Break(());
                }
                rows += 1;
                past = key.to_vec();
                // What cannot be read is left alone, and counts for nothing.
                if let Ok(record) = codec.decode::<RunRecord>(Kind::Run, key, bytes) {
                    ledger.note(&task, Entry::new(&record, key.len() + bytes.len()), is_there);
                }
                Continue(())
            };
            let prefix = keys::runs(&task);
            if from.is_empty() {
                disk.scan(&prefix, Order::Ascending, &mut visit)?;
            } else {
                disk.scan_beyond(&prefix, &from, Order::Ascending, &mut visit)?;
            }
            if rows >= SLICE {
                self.unread.current = Some((task, is_there, past));
            }
            rows += 1;
        }
        Ok(())
    }
}
