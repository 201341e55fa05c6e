//! What was promised, what was told, and what does not fit.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use actix::prelude::*;
use callboard::prelude::*;
use callboard::task::{Coalesce, RunEnd, RunId, RunRecord, Source, TaskInfo};
use chrono::{DateTime, TimeDelta, Utc};

/// One task after the other under one id.
pub(crate) struct Slot {
    pub(crate) id: String,
    pub(crate) there: bool,
    pub(crate) active: bool,
    /// Counts the tasks.
    pub(crate) life: u64,
    lives: Vec<Life>,
}

/// One task, from when it was added until it was deleted.
struct Life {
    life: u64,
    first: DateTime<Utc>,
    period: Duration,
    stretches: Vec<Stretch>,
    deleted: bool,
}

/// A time during which the task is scheduled: the first run time in it, and the first one after it.
/// Where one is not known, it follows from what ran.
#[derive(Debug)]
struct Stretch {
    from: Option<DateTime<Utc>>,
    to: Option<DateTime<Utc>>,
}

impl Slot {
    pub(crate) fn new(index: usize) -> Self {
        Self { id: format!("task-{index}"), there: false, active: false, life: 0, lives: Vec::new() }
    }

    /// `known` when it was there before its first run time.
    pub(crate) fn added(&mut self, first: DateTime<Utc>, period: Duration, known: bool) {
        (self.there, self.active) = (true, true);
        let stretches = vec![Stretch { from: known.then_some(first), to: None }];
        self.lives.push(Life { life: self.life, first, period, stretches, deleted: false });
    }

    pub(crate) fn began(&mut self, next: Option<DateTime<Utc>>) {
        self.active = true;
        if let Some(life) = self.lives.last_mut() {
            life.stretches.push(Stretch { from: next, to: None });
        }
    }

    pub(crate) fn ended(&mut self, next: Option<DateTime<Utc>>) {
        self.active = false;
        if let Some(stretch) = self.lives.last_mut().and_then(|life| life.stretches.last_mut()) {
            stretch.to = next;
        }
    }

    pub(crate) fn deleted(&mut self) {
        (self.there, self.active) = (false, false);
        if let Some(life) = self.lives.last_mut() {
            life.deleted = true;
        }
    }
}

/// The end of a run, as an event told it.
struct Told {
    task: String,
    life: u64,
    nominal: DateTime<Utc>,
    coalesced: u64,
    forwards: bool,
    source: Source,
    attempt: u32,
    end: Arc<RunEnd>,
}

#[derive(Default)]
struct Books {
    flying: Vec<RunId>,
    /// What those are runs of.
    submitted: HashMap<RunId, String>,
    ends: HashMap<RunId, Vec<Told>>,
    promised: Vec<RunId>,
    /// Tasks whose last run time may still be tried again.
    waiting: HashMap<String, HashSet<DateTime<Utc>>>,
    problems: Vec<String>,
}

#[derive(Clone, Default)]
pub(crate) struct Account(Arc<Mutex<Books>>);

/// Hears everything.
pub(crate) struct Listener(pub(crate) Account);

impl Actor for Listener {
    type Context = Context<Self>;
}

impl Handler<Event> for Listener {
    type Result = ();

    fn handle(&mut self, event: Event, _: &mut Self::Context) {
        let mut books = self.0.books();
        match &event {
            Event::TaskSubmitted(fact) => {
                let (run, task) = (&fact.0, &fact.0.task);
                books.flying.push(run.id);
                let about = format!(
                    "{} life {} in {} on {}: {} {:?} for {} and {} more, attempt {}, {:?} {:?} {:?}, timeout {:?}, recover {}",
                    task.id,
                    task.userdata,
                    run.store,
                    task.executor,
                    task.handler.name(),
                    run.source,
                    run.nominal,
                    run.coalesced,
                    run.attempt,
                    task.overlap,
                    task.coalesce,
                    task.retry,
                    task.timeout,
                    task.recover
                );
                books.submitted.insert(run.id, about);
            }
            Event::RunInterrupted { record, .. } => {
                let problem = format!("{} was found without an end: {:?}", record.id, record.task);
                books.problems.push(problem);
            }
            Event::TaskStalled { id, cause, .. } => books.problems.push(format!("{id} stalled: {cause}")),
            Event::ExecutorFailed { executor, cause } => {
                books.problems.push(format!("{executor} is given up: {cause}"));
            }
            event => {
                let Some(report) = event.report() else { return };
                let run = &report.run;
                books.flying.retain(|flying| *flying != run.id);
                books.submitted.remove(&run.id);
                let told = Told {
                    task: run.task.id.to_string(),
                    life: run.task.userdata.as_u64().unwrap_or_default(),
                    nominal: run.nominal,
                    coalesced: run.coalesced,
                    forwards: run.task.coalesce != Coalesce::Latest,
                    source: run.source,
                    attempt: run.attempt,
                    end: report.end.clone(),
                };
                books.ends.entry(run.id).or_default().push(told);
            }
        }
    }
}

impl Account {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(crate) fn complain(&self, problem: String) {
        self.books().problems.push(problem);
    }

    /// A run by hand was acknowledged.
    pub(crate) fn promised(&self, run: RunId) {
        self.books().promised.push(run);
    }

    pub(crate) fn one_in_flight(&self, chance: u64) -> Option<RunId> {
        let books = self.books();
        let index = chance.checked_rem(books.flying.len() as u64)?;
        books.flying.get(index as usize).copied()
    }

    /// What a task that is still there has to try again.
    pub(crate) fn waiting(&self, slot: &Slot, info: &TaskInfo) {
        let nominals = info.state.attempts.iter().map(|attempt| attempt.nominal).collect();
        self.books().waiting.insert(slot.id.clone(), nominals);
    }

    /// Compares what a store has written down with what was told.
    pub(crate) fn compare(&self, slot: &Slot, records: &[RunRecord]) {
        let mut books = self.books();
        let mut problems = Vec::new();
        for record in records {
            let Some(end) = &record.end else {
                problems.push(format!("{}: the record of {} has no end", slot.id, record.id));
                continue;
            };
            if end.outcome.word() == "skipped" {
                // Those that passed while the task was paused are on no list.
                continue;
            }
            let told = books.ends.get(&record.id).and_then(|told| told.first());
            let same = told.is_some_and(|told| {
                *told.end == *end && (told.nominal, told.attempt) == (record.nominal, record.attempt)
            });
            if !same {
                let told = told.map(|told| &told.end);
                problems
                    .push(format!("{}: {} is written as {end:?} and told as {told:?}", slot.id, record.id));
            }
        }
        if !records.is_empty() {
            let written: HashSet<_> = records.iter().map(|record| record.id).collect();
            let mut told: Vec<_> =
                books.ends.iter().filter(|(_, told)| told.iter().any(|told| told.task == slot.id)).collect();
            told.sort_by_key(|(run, told)| (told[0].end.ended_at, run.serial));
            // Older ones may have been forgotten.
            for (run, _) in told.iter().rev().take(40) {
                if !written.contains(run) {
                    problems.push(format!("{}: {run} was told of and is not written down", slot.id));
                }
            }
        }
        books.problems.append(&mut problems);
    }

    /// Says what the account comes to; the number of problems.
    pub(crate) fn close(&self, slots: &[Slot]) -> usize {
        let mut books = std::mem::take(&mut *self.books());
        let mut problems = std::mem::take(&mut books.problems);
        for run in &books.flying {
            problems.push(format!("{run} was submitted and has not ended: {:?}", books.submitted.get(run)));
        }
        for run in books.promised.iter().filter(|run| !books.ends.contains_key(run)) {
            problems.push(format!("{run}, asked for by hand, has no end"));
        }
        let mut words: BTreeMap<&str, u64> = BTreeMap::new();
        let mut lives: HashMap<(&str, u64), Vec<&Told>> = HashMap::new();
        for (run, told) in &books.ends {
            if told.len() > 1 {
                problems.push(format!("{run} has {} ends", told.len()));
            }
            for told in told {
                let word = if told.end.retry_at.is_some() { "tried again" } else { told.end.outcome.word() };
                *words.entry(word).or_default() += 1;
                if told.source == Source::Scheduled {
                    lives.entry((&told.task, told.life)).or_default().push(told);
                }
            }
        }
        let mut times = 0;
        for slot in slots {
            for life in &slot.lives {
                let told = lives.remove(&(slot.id.as_str(), life.life)).unwrap_or_default();
                let waiting = books.waiting.get(&slot.id);
                let told = finals(&slot.id, life, told, waiting, &mut problems);
                times += life.check(&slot.id, &told, &mut problems);
            }
        }
        for ((task, life), told) in lives.iter().filter(|((task, _), _)| task.starts_with("task-")) {
            problems.push(format!("{task}, life {life}: {} runs of nobody", told.len()));
        }
        let words: Vec<_> = words.iter().map(|(word, count)| format!("{word} {count}")).collect();
        println!("{times} run times, {} runs: {}", books.ends.len(), words.join(", "));
        problems.iter().take(50).for_each(|problem| eprintln!("{problem}"));
        problems.len()
    }
}

/// The last end of each nominal time, after the attempts before it.
fn finals<'a>(
    id: &str,
    life: &Life,
    told: Vec<&'a Told>,
    waiting: Option<&HashSet<DateTime<Utc>>>,
    problems: &mut Vec<String>,
) -> Vec<&'a Told> {
    let mut times: BTreeMap<DateTime<Utc>, Vec<&Told>> = BTreeMap::new();
    for told in told {
        times.entry(told.nominal).or_default().push(told);
    }
    let mut finals = Vec::new();
    for (nominal, mut attempts) in times {
        attempts.sort_by_key(|told| told.attempt);
        let numbers: Vec<_> = attempts.iter().map(|told| told.attempt).collect();
        if !numbers.iter().copied().eq(1..=numbers.len() as u32) {
            problems.push(format!("{id} at {nominal}: attempts {numbers:?}"));
        }
        if let Some((last, before)) = attempts.split_last() {
            if before.iter().any(|told| told.end.retry_at.is_none()) {
                problems.push(format!("{id} at {nominal}: an outcome, and more after it: {numbers:?}"));
            }
            let waits = || life.deleted || waiting.is_some_and(|waiting| waiting.contains(&nominal));
            if last.end.retry_at.is_some() && !waits() {
                problems.push(format!("{id} at {nominal}: was to be tried again: {:?}", last.end));
            }
            finals.push(*last);
        }
    }
    finals
}

impl Life {
    fn index(&self, at: DateTime<Utc>) -> Option<i64> {
        let passed = (at - self.first).num_nanoseconds()?;
        let period = i64::try_from(self.period.as_nanos()).ok()?;
        (passed % period == 0).then_some(passed / period)
    }

    fn time(&self, index: i64) -> DateTime<Utc> {
        self.first + TimeDelta::from_std(self.period).unwrap_or_default() * index as i32
    }

    /// Whether each run time has one outcome; how many there are.
    fn check(&self, id: &str, told: &[&Told], problems: &mut Vec<String>) -> usize {
        let mut complain = |problem: String| problems.push(format!("{id}, life {}: {problem}", self.life));
        let mut outcomes: BTreeMap<i64, u32> = BTreeMap::new();
        for told in told {
            let Some(index) = self.index(told.nominal) else {
                complain(format!("{} is no run time", told.nominal));
                continue;
            };
            let others = told.coalesced as i64;
            let range = if told.forwards { index..=index + others } else { index - others..=index };
            range.for_each(|index| *outcomes.entry(index).or_default() += 1);
        }
        for (index, count) in outcomes.iter().filter(|(_, count)| **count > 1) {
            complain(format!("{} has {count} outcomes", self.time(*index)));
        }
        let mut left: std::collections::BTreeSet<i64> = outcomes.keys().copied().collect();
        let count = left.len();
        let mut done = 0;
        for (number, stretch) in self.stretches.iter().enumerate() {
            let to = stretch.to.and_then(|to| self.index(to));
            let from = stretch.from.and_then(|from| self.index(from));
            let from = from.or_else(|| left.range(done..).next().copied()).or(to).unwrap_or(done);
            let next =
                self.stretches.get(number + 1).and_then(|next| next.from).and_then(|at| self.index(at));
            let last = || left.range(from..next.unwrap_or(i64::MAX).max(from)).next_back().copied();
            let to = to.unwrap_or_else(|| last().map_or(from, |last| last + 1));
            let missing: Vec<_> = (from..to).filter(|index| !left.remove(index)).collect();
            if let (Some(first), Some(last)) = (missing.first(), missing.last()) {
                let (first, last) = (self.time(*first), self.time(*last));
                let missing = missing.len();
                complain(format!(
                    "{missing} run times from {first} to {last} have no outcome, in {stretch:?}"
                ));
            }
            done = to.max(done);
        }
        for index in left {
            complain(format!("{} has an outcome and is outside of its schedule", self.time(index)));
        }
        count
    }
}
