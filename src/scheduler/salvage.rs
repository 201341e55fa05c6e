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

/// An attempt, by what tells it from others.
type Name = (TaskId, DateTime<Utc>, Source, u32);

fn name(id: &TaskId, attempt: &Attempt) -> Name {
    (id.clone(), attempt.nominal, attempt.source, attempt.number)
}

/// The attempts of a store that this scheduler will still hear of.
pub(super) struct Live(HashSet<Name>);

impl Scheduler {
    pub(super) fn live(&self, store: &Alias) -> Live {
        let here = |run: &&Run| run.store == *store && may_come_again(run);
        let name = |run: &Run| (run.task.id.clone(), run.nominal, run.source, run.attempt);
        let flying = self.estate.flight.iter().map(|run| &**run).filter(here).map(name);
        let ended = self.estate.stores.get(store).into_iter().flat_map(|slot| &slot.unsettled);
        Live(flying.chain(ended.map(|(run, _)| name(run))).collect())
    }
}

/// Settles the attempts in a store, just opened, that are going on for ever: they come again if
/// their tasks ask for that, and are forgotten otherwise. The records in `opened` are told when
/// their runs come again. Answers with the tasks whose schedule has ended with that.
pub(super) async fn salvage(
    settings: &Settings,
    store: &StoreAddr,
    opened: &mut Opened,
    live: &Live,
) -> Result<Vec<(TaskId, bool)>, StoreError> {
    let now = settings.clock.now();
    let mut finished = Vec::new();
    let mut unsettled = Vec::new();
    match opened.unsettled.take() {
        Some(ids) => {
            for id in ids {
                unsettled.extend(within(settings, store.get(Get { id })).await?);
            }
        }
        None => unsettled = within(settings, store.list(List)).await?,
    }
    for task in unsettled {
        let id = task.spec.id.clone();
        let lost = |attempt: &Attempt| !live.0.contains(&name(&id, attempt));
        // What is lost by now; what begins from now on is somebody's.
        let lost: HashSet<Name> = task
            .state
            .attempts
            .iter()
            .filter(|attempt| attempt.at.is_none() && lost(attempt))
            .map(|attempt| name(&id, attempt))
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
        let is_lost = |attempt: &Attempt| lost.contains(&name(&id, attempt));
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
            if let Some(record) = opened.interrupted.iter_mut().find(of_attempt)
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
