//! Large answers, made bit by bit: whatever somebody asks for, runs and other messages have their turn.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeSet, BinaryHeap};
use std::rc::Rc;

use chrono::{DateTime, Utc};

use super::handover::Standing;
use super::plan::{self, Ahead, Stretch};
use crate::error::Error;
use crate::task::{Alias, Fire, StoredTask, TaskId, TaskInfo, TaskQuery};
use crate::trigger::{SearchError, Zones};

/// The most run times in one answer of [`Preview`](super::message::Preview) and
/// [`Timeline`](super::message::Timeline).
pub(super) const MOST_TIMES: usize = 10_000;

/// The most run times in one answer of [`Why`](super::message::Why), which says where to go on.
pub(super) const MOST_ACCOUNTED: usize = 1000;

/// The most records in one answer of [`History`](super::message::History).
pub(super) const MOST_RECORDS: usize = 100_000;

/// So many run times are worked out, or so many tasks looked at, between two turns of others.
const SLICE: usize = 64;

/// The steps of searches between two turns of others.
const SLICE_EFFORT: u64 = 20_000;

/// The steps that the searches for one answer may take: ten times as many as one search.
const MOST_EFFORT: u64 = 10_000_000;

/// Counts what is done, and lets others have their turn.
#[derive(Debug, Default)]
struct Turns {
    done: usize,
    /// The steps of searches since the last turn of others, and all of them.
    since: u64,
    effort: u64,
}

impl Turns {
    async fn step(&mut self) {
        self.done += 1;
        if self.done >= SLICE || self.since >= SLICE_EFFORT {
            (self.done, self.since) = (0, 0);
            tokio::task::yield_now().await;
        }
    }

    /// Counts the steps of a search, and refuses to go on when an answer takes too many.
    fn count(&mut self, effort: u64, found: usize) -> Result<(), SearchError> {
        (self.since, self.effort) = (self.since + effort, self.effort + effort);
        if self.effort <= MOST_EFFORT {
            return Ok(());
        }
        Err(SearchError::limit(format!(
            "one answer takes {MOST_EFFORT} steps at most, and these found {found} run times; ask for fewer, or \
             for a shorter window"
        )))
    }
}

/// The run times of a task from `from` to `to`, both inclusive, at most `limit`.
pub(super) async fn between(
    task: &StoredTask,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    limit: usize,
    zones: &Zones,
) -> Result<Vec<Fire>, SearchError> {
    let (mut found, mut from, mut turns) = (Vec::new(), from, Turns::default());
    loop {
        let wanted = SLICE.min(limit - found.len());
        let Stretch { fires, rest, effort } = plan::between(task, from, to, wanted, zones)?;
        found.extend(fires);
        match rest {
            Some(rest) if found.len() < limit => from = rest,
            _ => return Ok(found),
        }
        turns.count(effort, found.len())?;
        tokio::task::yield_now().await;
    }
}

/// The next run times of a task.
pub(super) async fn preview(
    task: &StoredTask,
    now: DateTime<Utc>,
    count: usize,
    zones: &Zones,
) -> Result<Vec<DateTime<Utc>>, SearchError> {
    let (mut ahead, mut times, mut turns) = (Ahead::of(task, now), Vec::new(), Turns::default());
    while times.len() < count.min(MOST_TIMES)
        && let Some(time) = ahead.step(task, zones)?
    {
        times.push(time);
        turns.count(std::mem::take(&mut ahead.effort), times.len())?;
        turns.step().await;
    }
    Ok(times)
}

/// The run times of all of these up to `until`, in order.
pub(super) async fn timeline(
    tasks: Vec<TaskInfo>,
    now: DateTime<Utc>,
    until: DateTime<Utc>,
    limit: usize,
    zones: &Zones,
) -> Result<Vec<(DateTime<Utc>, TaskId)>, Error> {
    let mut turns = Turns::default();
    let (mut tracks, mut heads, mut times) = (Vec::new(), BinaryHeap::new(), Vec::new());
    let step = |ahead: &mut Ahead, task: &StoredTask, turns: &mut Turns, found: usize| {
        let step = ahead.step(task, zones);
        let counted = turns.count(std::mem::take(&mut ahead.effort), found);
        let step = step.and_then(|step| counted.map(|()| step));
        let step = step.map_err(|source| Error::Search { id: task.spec.id.clone(), source })?;
        Ok::<_, Error>(step.filter(|at| *at <= until).map(|at| (at, task.spec.id.clone())))
    };
    for info in tasks.into_iter().filter(|info| !info.state.paused) {
        let task = StoredTask { spec: info.spec, state: info.state };
        let mut ahead = Ahead::of(&task, now);
        if let Some((at, id)) = step(&mut ahead, &task, &mut turns, 0)? {
            heads.push(Reverse((at, id, tracks.len())));
            tracks.push((task, ahead));
        }
        turns.step().await;
    }
    while times.len() < limit.min(MOST_TIMES)
        && let Some(Reverse((at, id, track))) = heads.pop()
    {
        times.push((at, id));
        if let Some((task, ahead)) = tracks.get_mut(track)
            && let Some((at, id)) = step(ahead, task, &mut turns, times.len())?
        {
            heads.push(Reverse((at, id, track)));
        }
        turns.step().await;
    }
    Ok(times)
}

/// A snapshot at its place in a list.
struct Ranked {
    info: TaskInfo,
    query: Rc<TaskQuery>,
    /// Tells two from each other that are the same to the query.
    number: usize,
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        self.query.compare(&self.info, &other.info).then(self.number.cmp(&other.number))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Ranked {}

/// Snapshots of those tasks that a query selects, in its order; some are made already.
pub(super) async fn snapshots(
    made: Vec<TaskInfo>,
    tasks: Vec<(Alias, StoredTask)>,
    standing: &Standing,
    query: TaskQuery,
) -> Vec<TaskInfo> {
    let (query, mut turns) = (Rc::new(query), Turns::default());
    let mut ranked = BTreeSet::new();
    let make = |(store, task)| standing.snapshot(store, task);
    for (number, info) in made.into_iter().chain(tasks.into_iter().map(make)).enumerate() {
        if query.matches(&info) {
            ranked.insert(Ranked { info, query: query.clone(), number });
        }
        turns.step().await;
    }
    let mut listed = Vec::with_capacity(ranked.len());
    while let Some(Ranked { info, .. }) = ranked.pop_first() {
        listed.push(info);
        turns.step().await;
    }
    listed
}
