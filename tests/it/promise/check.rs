//! What a killed program has left, held against the promise.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::path::Path;

use callboard::prelude::*;
use callboard::scheduler::message::Why;
use callboard::task::{Fate, MAX_RECOVERIES, Outcome, RunId, RunRecord, Source};
use callboard::trigger::Trigger;
use chrono::{DateTime, TimeDelta, Utc};

use super::kill::Model;
use super::program::{RECOVERED, RETRIED, RETRIES, registry};
use super::{Known, LINES, durable};

/// What was there.
#[derive(Debug, Default)]
pub(super) struct Found {
    tasks: usize,
    run_times: usize,
    fates: BTreeMap<Fate, usize>,
    records: usize,
    lines: usize,
    /// Records of runs that were begun again.
    again: usize,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} run times of {} tasks (", self.run_times, self.tasks)?;
        for (index, (fate, count)) in self.fates.iter().enumerate() {
            write!(f, "{}{count} {}", if index > 0 { ", " } else { "" }, fate.word())?;
        }
        let Self { records, again, lines, .. } = self;
        write!(f, "), {records} records ({again} of further attempts), {lines} lines")
    }
}

/// Opens the store once more, runs nothing, and checks everything.
pub(super) fn all(kind: &str, place: &Path, model: &Model) -> Found {
    actix_rt::System::new().block_on(async {
        let builder = durable(kind, place).registry(registry(place)).executor("pool", ThreadPool::new(1));
        let scheduler = builder.build().unwrap();
        scheduler.start_paused().await.unwrap();
        let mut found = Found::default();
        let tasks = scheduler.tasks(TaskQuery::new()).await.unwrap();
        acknowledged(&tasks, model);
        let mut records = HashMap::new();
        let mut names: HashSet<TaskId> = tasks.iter().map(|task| task.id().clone()).collect();
        let lines = read_lines(place);
        names.extend(lines.values().map(|(task, _)| task.clone()));
        for id in &names {
            let runs = scheduler.history(id, usize::MAX).await.unwrap();
            one_outcome_each(id, &runs);
            records.extend(runs.into_iter().map(|run| (run.id, run)));
        }
        let chains = chains(records.values());
        for task in &tasks {
            final_outcomes(task, &chains);
            accounted(&scheduler, task, &chains, &mut found).await;
        }
        ran_once(&lines, &records);
        (found.tasks, found.records, found.lines) = (tasks.len(), records.len(), lines.len());
        found.again = records.values().filter(|run| run.attempt > 1).count();
        scheduler.shutdown(Shutdown::now()).await.unwrap();
        found
    })
}

fn acknowledged(tasks: &[TaskInfo], model: &Model) {
    let there = tasks.iter().map(|task| {
        let Trigger::Interval(interval) = &task.spec.trigger else { panic!("{:?}", task.spec.trigger) };
        let known = Known {
            paused: task.state.paused,
            name: task.spec.name.as_deref().unwrap_or_default().to_owned(),
            period: interval.length().num_milliseconds() as u64,
        };
        (task.id().to_string(), known)
    });
    model.clone().settle(there.collect(), "at the end");
}

/// The stretches of run times that the records stand for do not overlap: none has two outcomes.
fn one_outcome_each(id: &TaskId, runs: &[RunRecord]) {
    let scheduled = runs.iter().filter(|run| run.source == Source::Scheduled && run.attempt == 1);
    let mut stretches: Vec<(DateTime<Utc>, DateTime<Utc>)> = scheduled
        .map(|run| {
            let own = run.nominal + TimeDelta::nanoseconds(1);
            (run.begins(), run.span.map_or(own, |span| span.until.max(own)))
        })
        .collect();
    stretches.sort_unstable();
    for pair in stretches.windows(2) {
        assert!(pair[0].1 <= pair[1].0, "`{id}` has two outcomes at {}", pair[1].0);
    }
    let open = runs.iter().find(|run| run.end.is_none());
    assert!(open.is_none(), "`{id}`: a run of a dead program goes on: {open:?}");
}

/// The attempts for each scheduled run time, in the order in which they were made.
type Chains<'a> = HashMap<(&'a TaskId, DateTime<Utc>), Vec<&'a RunRecord>>;

fn chains<'a>(records: impl Iterator<Item = &'a RunRecord>) -> Chains<'a> {
    let mut chains = Chains::new();
    for run in records.filter(|run| run.source == Source::Scheduled) {
        chains.entry((&run.task, run.nominal)).or_default().push(run);
    }
    for chain in chains.values_mut() {
        chain.sort_unstable_by_key(|run| run.attempt);
    }
    chains
}

/// Only what asked for it is begun again, only after what it is begun again for, one attempt after
/// the other, and for as long as it was asked for.
fn final_outcomes(task: &TaskInfo, chains: &Chains<'_>) {
    let id = task.id();
    for ((_, nominal), chain) in chains.iter().filter(|((of, _), _)| *of == id) {
        let mut interrupted = 0;
        for (index, run) in chain.iter().enumerate() {
            assert_eq!(run.attempt as usize, index + 1, "`{id}` at {nominal}: {chain:?}");
            let outcome = &run.end.as_ref().unwrap().outcome;
            let again = match outcome {
                Outcome::Interrupted { .. } if id.as_str().starts_with(RECOVERED) => {
                    interrupted += 1;
                    interrupted <= MAX_RECOVERIES
                }
                Outcome::Failed { .. } if id.as_str().starts_with(RETRIED) => run.attempt <= RETRIES,
                // A further attempt that finds no room waits for some.
                Outcome::Refused { .. } => run.attempt > 1,
                _ => false,
            };
            let waits = task.state.attempts.iter().any(|attempt| {
                attempt.nominal == *nominal && attempt.number == run.attempt + 1 && attempt.at.is_some()
            });
            let goes_on = index + 1 < chain.len() || waits;
            assert_eq!(goes_on, again, "`{id}` at {nominal}, attempt {}: {chain:?}", run.attempt);
        }
    }
}

/// Each run time of the task, since it was given its trigger, has an outcome.
async fn accounted(scheduler: &Handle, task: &TaskInfo, chains: &Chains<'_>, found: &mut Found) {
    let (mut from, to) = (task.state.anchor, task.state.next.unwrap().nominal - TimeDelta::nanoseconds(1));
    let mut expected = task.state.anchor;
    let Trigger::Interval(interval) = &task.spec.trigger else { panic!("{:?}", task.spec.trigger) };
    loop {
        let why = Why::new(task.id().clone(), from, to, 5000);
        let account = scheduler.send(why).await.unwrap().unwrap();
        for time in &account.times {
            *found.fates.entry(time.fate).or_default() += 1;
            if time.run.as_ref().is_some_and(|run| run.source != Source::Scheduled) {
                continue;
            }
            found.run_times += 1;
            assert_eq!(time.nominal, expected, "`{}`: no run time is left out or told twice", task.id());
            expected += interval.length();
            let last = chains.get(&(task.id(), time.nominal)).and_then(|chain| chain.last());
            if let Some(last) = last {
                let waits = task.state.attempts.iter().any(|attempt| attempt.nominal == time.nominal);
                let end = last.end.as_ref().unwrap();
                let fate = if waits { Fate::Retrying } else { Fate::of(&end.outcome) };
                assert_eq!(time.fate, fate, "`{}` at {}: {last:?}", task.id(), time.nominal);
            }
            let settled = (time.fate.is_settled() || time.fate == Fate::Retrying)
                && !matches!(time.fate, Fate::Unknown | Fate::Forgotten | Fate::Outside);
            assert!(settled, "`{}` at {}: {time:?}", task.id(), time.nominal);
        }
        match account.next {
            Some(next) => from = next,
            None => break,
        }
    }
    assert!(expected > to, "`{}`: nothing is told of {expected}", task.id());
}

fn read_lines(place: &Path) -> HashMap<RunId, (TaskId, i64)> {
    let text = std::fs::read_to_string(place.join(LINES)).unwrap();
    let mut lines = HashMap::new();
    for line in text.lines() {
        let mut parts = line.split('\t');
        let mut next = || parts.next().unwrap_or_else(|| panic!("half a line: {line:?}"));
        let (task, nominal, run) = (next(), next(), next());
        let run: RunId = run.parse().unwrap();
        let twice = lines.insert(run, (TaskId::new(task).unwrap(), nominal.parse().unwrap()));
        assert!(twice.is_none(), "run {run} of {task} ran twice");
    }
    lines
}

/// Whatever ran was on record before it ran, and what is on record as executed ran.
fn ran_once(lines: &HashMap<RunId, (TaskId, i64)>, records: &HashMap<RunId, RunRecord>) {
    let mut nominals = HashSet::new();
    for (run, (task, nominal)) in lines {
        let record = records.get(run).unwrap_or_else(|| panic!("run {run} of `{task}` is not on record"));
        assert_eq!((&record.task, record.nominal.timestamp_nanos_opt()), (task, Some(*nominal)));
        let outcome = &record.end.as_ref().unwrap().outcome;
        let word = outcome.word();
        let fails = word == "failed" && task.as_str().starts_with(RETRIED);
        assert!(
            fails || matches!(word, "executed" | "interrupted"),
            "run {run} of `{task}` ran and is {word}"
        );
        if record.source == Source::Scheduled {
            assert!(
                nominals.insert((task, *nominal, record.attempt)),
                "`{task}` ran twice for {}",
                record.nominal
            );
            let asked = [RECOVERED, RETRIED].iter().any(|kind| task.as_str().starts_with(kind));
            assert!(asked || record.attempt == 1, "`{task}` ran again for {}", record.nominal);
        }
    }
    for record in records.values() {
        let executed = record.end.as_ref().is_some_and(|end| end.outcome.is_success());
        assert!(!executed || lines.contains_key(&record.id), "run {} is executed and never ran", record.id);
    }
}
