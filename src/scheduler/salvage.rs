//! Runs that an earlier life of the scheduler began: nobody will report their ends any more.

use std::collections::HashSet;

use chrono::{DateTime, Utc};

use super::actor::{Scheduler, Settings};
use super::plan;
use super::session::within;
use super::settle::may_come_again;
use crate::store::message::{Change, Commit, Get, List, Opened, Then};
use crate::store::{StoreAddr, StoreError};
use crate::task::{Alias, Attempt, Run, RunRecord, Source, StoredTask, TaskId};

/// How often a change is tried against a task that others keep changing.
const TRIES: usize = 100;

/// An attempt, by what tells it from others: its task, which is more than an id that another may have
/// had before, its run time, who asked for it, and its number.
type Name = (TaskId, DateTime<Utc>, DateTime<Utc>, Source, u32);

fn name(StoredTask { spec, state }: &StoredTask, attempt: &Attempt) -> Name {
    (spec.id.clone(), state.created_at, attempt.nominal, attempt.source, attempt.number)
}

/// The attempts of a store that this scheduler will still hear of.
pub(super) struct Live(HashSet<Name>);

impl Scheduler {
    pub(super) fn live(&self, store: &Alias) -> Live {
        let here = |run: &&Run| run.store == *store && may_come_again(run);
        let name = |run: &Run| (run.task.id.clone(), run.added_at, run.nominal, run.source, run.attempt);
        let flying = self.estate.flight.iter().map(|run| &**run).filter(here).map(name);
        let ended = self.estate.stores.get(store).into_iter().flat_map(|slot| slot.ledger.undecided());
        Live(flying.chain(ended.map(|run| name(run))).collect())
    }
}

/// The tasks of a store, just opened, in which attempts may be going on.
pub(super) async fn unsettled(
    settings: &Settings,
    store: &StoreAddr,
    opened: &mut Opened,
) -> Result<Vec<StoredTask>, StoreError> {
    let Some(ids) = opened.unsettled.take() else { return within(settings, store.list(List)).await };
    let mut unsettled = Vec::new();
    for id in ids {
        unsettled.extend(within(settings, store.get(Get { id })).await?);
    }
    Ok(unsettled)
}

/// Settles the attempts of `unsettled` tasks that are going on for ever: they come again if their
/// tasks ask for that, and are forgotten otherwise. `live` is what was known after the tasks were
/// read, so that it has every attempt that began before. The records in `opened` are told when
/// their runs come again. Answers with the tasks whose schedule has ended with that.
pub(super) async fn salvage(
    settings: &Settings,
    store: &StoreAddr,
    opened: &mut Opened,
    unsettled: Vec<StoredTask>,
    live: &Live,
) -> Result<Vec<(TaskId, bool)>, StoreError> {
    let now = settings.clock.now();
    let mut finished = Vec::new();
    for task in unsettled {
        let lost = |attempt: &Attempt| !live.0.contains(&name(&task, attempt));
        // What is lost by now; what begins from now on is somebody's.
        let lost: HashSet<Name> = task
            .state
            .attempts
            .iter()
            .filter(|attempt| attempt.at.is_none() && lost(attempt))
            .map(|attempt| name(&task, attempt))
            .collect();
        if lost.is_empty() {
            continue;
        }
        finished.extend(settle(settings, store, opened, task, &lost, now).await?);
    }
    Ok(finished)
}

async fn settle(
    settings: &Settings,
    store: &StoreAddr,
    opened: &mut Opened,
    task: StoredTask,
    lost: &HashSet<Name>,
    now: DateTime<Utc>,
) -> Result<Option<(TaskId, bool)>, StoreError> {
    let id = task.spec.id.clone();
    let mut task = Some(task);
    for _ in 0..TRIES {
        let Some(present) = task else { return Ok(None) };
        let is_lost = |attempt: &Attempt| lost.contains(&name(&present, attempt));
        let Some(plan::Salvage { then, finished, again }) = plan::salvage(&present, is_lost, now) else {
            return Ok(None);
        };
        let mut amended = Vec::new();
        for (attempt, at) in again {
            let of_attempt = |record: &&mut RunRecord| {
                record.task == id
                    && (record.nominal, record.source, record.attempt)
                        == (attempt.nominal, attempt.source, attempt.number)
            };
            // An earlier one is of a task that had the id before.
            let latest = opened.interrupted.iter_mut().filter(of_attempt).max_by_key(|record| record.id);
            if let Some(record) = latest
                && let Some(end) = &mut record.end
            {
                end.retry_at = Some(at);
                amended.push(record.clone());
            }
        }
        let gone = then == Then::Remove;
        let runs = if opened.capabilities.keeps_records() { amended } else { Vec::new() };
        let change = Change { id: id.clone(), revision: present.state.revision, then, runs };
        let committed = within(settings, store.commit(Commit { changes: vec![change] })).await?;
        if committed.refused.is_empty() {
            opened.next_due = committed.next_due;
            return Ok(finished.then_some((id, gone)));
        }
        task = within(settings, store.get(Get { id: id.clone() })).await?;
    }
    Err(StoreError::Changed(id))
}
