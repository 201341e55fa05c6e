//! Run records that somebody asks for: many of them are read in slices, between the writes.

use std::ops::ControlFlow::{Break, Continue};

use chrono::{DateTime, Utc};

use super::load::gone_until;
use super::writer::Answer;
use super::{Disk, Order, keys};
use crate::store::StoreError;
use crate::store::envelope::{Codec, Kind};
use crate::store::message::{FindRuns, Found, Pick};
use crate::task::{RunRecord, TaskId};

/// So many records are read at a time.
const SLICE: usize = 256;

/// So many records in a row are submitted long before a window, and the search for it ends: fewer can
/// be those of a clock that was set back since.
const LONG_BEFORE: usize = 1000;

/// Records that are being read, from the newest to the oldest.
pub(super) struct Reading {
    task: TaskId,
    /// The last row that was read.
    past: Option<Vec<u8>>,
    wanted: Wanted,
}

enum Wanted {
    Latest {
        limit: usize,
        found: Vec<RunRecord>,
        done: Answer<Vec<RunRecord>>,
    },
    /// They lie in the order in which they were submitted, which is not that of their run times, so the
    /// search goes on to those that were submitted long before the window.
    Found {
        pick: Pick,
        /// Those before need not be looked at,
        end: DateTime<Utc>,
        /// when there are many of them.
        early: usize,
        found: Found,
        done: Answer<Found>,
    },
}

impl Reading {
    pub(super) fn latest(task: TaskId, limit: usize, done: Answer<Vec<RunRecord>>) -> Self {
        Self { task, past: None, wanted: Wanted::Latest { limit, found: Vec::new(), done } }
    }

    pub(super) fn find(request: FindRuns, done: Answer<Found>) -> Self {
        let end = request.from.checked_sub_signed(FindRuns::SLACK).unwrap_or(DateTime::<Utc>::MIN_UTC);
        let task = request.id.clone();
        Self {
            task,
            past: None,
            wanted: Wanted::Found { pick: Pick::new(&request), end, early: 0, found: Found::default(), done },
        }
    }

    /// Reads a slice; says whether that was all.
    pub(super) fn go_on<D: Disk>(&mut self, disk: &D, codec: &Codec) -> Result<bool, StoreError> {
        let (mut rows, mut enough) = (0, false);
        let from = self.past.clone();
        let Self { task, past, wanted } = self;
        let mut visit = |key: &[u8], bytes: &[u8]| {
            enough = wanted.is_enough();
            if rows == SLICE || enough {
                return Break(());
            }
            rows += 1;
            *past = Some(key.to_vec());
            if let Ok(record) = codec.decode::<RunRecord>(Kind::Run, key, bytes) {
                wanted.take(record);
            }
            Continue(())
        };
        let prefix = keys::runs(task);
        match from {
            None => disk.scan(&prefix, Order::Descending, &mut visit)?,
            Some(from) => disk.scan_beyond(&prefix, &from, Order::Descending, &mut visit)?,
        }
        if rows == SLICE && !enough {
            return Ok(false);
        }
        if let Wanted::Found { found, .. } = &mut self.wanted {
            found.oldest = oldest(disk, codec, &self.task)?;
            found.complete_since = gone_until(disk)?;
        }
        Ok(true)
    }

    /// Answers with what was read, or why that came to nothing.
    pub(super) fn answer(self, read: Result<(), StoreError>) {
        match self.wanted {
            Wanted::Latest { found, done, .. } => drop(done.send(read.map(|()| found))),
            Wanted::Found { pick, found, done, .. } => {
                let Found { oldest, complete_since, .. } = found;
                drop(done.send(read.map(|()| Found { oldest, complete_since, ..pick.found() })));
            }
        }
    }
}

impl Wanted {
    fn take(&mut self, record: RunRecord) {
        match self {
            Self::Latest { found, .. } => found.push(record),
            Self::Found { pick, end, early, .. } => {
                *early = if record.submitted_at < *end { *early + 1 } else { 0 };
                pick.offer(record);
            }
        }
    }

    fn is_enough(&self) -> bool {
        match self {
            Self::Latest { found, limit, .. } => found.len() >= *limit,
            Self::Found { early, .. } => *early > LONG_BEFORE,
        }
    }
}

/// When the first record of a task that can be read was submitted.
fn oldest<D: Disk>(disk: &D, codec: &Codec, task: &TaskId) -> Result<Option<DateTime<Utc>>, StoreError> {
    let mut oldest = None;
    disk.scan(&keys::runs(task), Order::Ascending, &mut |key, bytes| match codec.decode::<RunRecord>(
        Kind::Run,
        key,
        bytes,
    ) {
        Ok(record) => {
            oldest = Some(record.submitted_at);
            Break(())
        }
        Err(_) => Continue(()),
    })?;
    Ok(oldest)
}
