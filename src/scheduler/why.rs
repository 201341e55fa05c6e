//! What became of each run time, as plain functions: no actor, no clock, no store.

use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, NaiveDateTime, SecondsFormat, TimeDelta, Utc};

use super::{SchedulerState, plan};
use crate::store::message::Found;
use crate::task::{
    Coalesce, Fate, Fire, Outcome, RunEnd, RunId, RunRecord, RunTime, Skip, Source, Span, StoredTask,
    TaskSpec, TaskState, standing_for,
};
use crate::trigger::{Zone, Zones};

/// Run times that are counted one by one when they are passed over.
const COUNTED: usize = 10_000;

/// What the clock of a task's trigger is away from UTC at a run time, in seconds; `None` in UTC.
pub(super) fn offset(
    spec: &TaskSpec,
    anchor: DateTime<Utc>,
    nominal: DateTime<Utc>,
    zones: &Zones,
) -> Option<i32> {
    let zone = spec.trigger.zone(&spec.context(anchor, zones));
    let rules = zones.rules(zone).filter(|_| zone != Zone::UTC);
    rules.map(|rules| rules.offset(nominal).local_minus_utc())
}

/// The record of the run times that a change of a task passes over: those from its next one up to
/// now, unless they are dealt with afterwards. `after` is `None` when the task is removed.
pub(super) fn passed_over(
    before: &StoredTask,
    after: Option<&TaskState>,
    now: DateTime<Utc>,
    id: RunId,
    zones: &Zones,
) -> Option<RunRecord> {
    let state = &before.state;
    // What was decided a moment ago holds from then on: its run times are not passed over.
    let now = after.map_or(now, |after| after.modified_at.min(now));
    let next = state.next.filter(|next| next.nominal < now)?;
    if after.is_some_and(|after| after.next == state.next) {
        return None;
    }
    let because = match after {
        _ if state.paused => Skip::Paused,
        Some(_) => Skip::Rescheduled,
        None => Skip::Removed,
    };
    let last = now - TimeDelta::nanoseconds(1);
    let passed = plan::between(before, next.nominal, last, COUNTED, zones);
    let passed = passed.map_or(1, |passed| passed.fires.len());
    Some(RunRecord {
        id,
        task: before.spec.id.clone(),
        nominal: next.nominal,
        offset: offset(&before.spec, state.anchor, next.nominal, zones),
        coalesced: passed.saturating_sub(1) as u64,
        span: Some(Span { from: next.nominal, until: now }),
        source: Source::Scheduled,
        attempt: 1,
        submitted_at: now,
        end: Some(RunEnd::unstarted(Outcome::Skipped { because }, now)),
    })
}

/// What is asked, and how things are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question<'a> {
    pub now: DateTime<Utc>,
    pub from: DateTime<Utc>,
    pub to: DateTime<Utc>,
    /// At most so many run times.
    pub limit: usize,
    pub scheduler: SchedulerState,
    /// The runs of the task that are in flight.
    pub flight: &'a HashSet<RunId>,
    /// Those of them that wait in their executor.
    pub queued: &'a HashSet<RunId>,
    /// What the task waits for, if it does.
    pub waiting: Option<&'a str>,
    /// The rules in force.
    pub zones: &'a Zones,
}

/// Each run time of `task` in the window with what became of it, each run that was asked for, and
/// where to go on when that was not all. Of a task that is gone only what is on record is known.
/// `fires` are its run times, one more than the limit when there are so many.
pub(super) fn account(
    task: Option<&StoredTask>,
    found: Found,
    fires: Vec<Fire>,
    question: &Question<'_>,
) -> (Vec<RunTime>, Option<DateTime<Utc>>) {
    let mut to = question.to;
    let mut next = None;
    let mut cut = |to: &mut DateTime<Utc>, at: DateTime<Utc>| {
        // Something always comes of the first instant, or there would be no end of asking.
        let at = at.max(question.from + TimeDelta::nanoseconds(1));
        if at <= *to {
            *to = at - TimeDelta::nanoseconds(1);
            next = Some(at);
        }
    };
    if let Some(rest) = found.rest {
        cut(&mut to, rest);
    }
    if fires.len() > question.limit
        && let Some(last) = fires.last()
    {
        cut(&mut to, last.nominal);
    }
    let teller = Teller {
        task,
        question,
        zone: task.map_or(Zone::UTC, |task| {
            task.spec.trigger.zone(&task.spec.context(task.state.anchor, question.zones))
        }),
        // Between records that are older than that, others may have been let go.
        oldest: found.oldest.map(|oldest| found.complete_since.map_or(oldest, |since| since.max(oldest))),
        newest: found.runs.iter().filter(|run| run.source == Source::Scheduled).map(|run| run.nominal).max(),
        shown: found.runs.iter().filter(|run| run.source == Source::Scheduled).filter_map(shown).collect(),
        kept: found.kept.as_deref(),
    };
    let mut times: BTreeMap<(DateTime<Utc>, usize), RunTime> = BTreeMap::new();
    let groups = attempts(found.runs.iter().filter(|record| !is_open(task, record)));
    let mut scheduled = HashSet::new();
    for (index, group) in groups.iter().enumerate() {
        let Some(last) = group.last() else { continue };
        let own = last.source == Source::Scheduled;
        if question.from <= last.nominal && last.nominal <= to {
            times.insert((last.nominal, index), teller.ran(group));
        }
        if own {
            scheduled.insert(last.nominal);
        }
    }
    // The first attempt says what the run stands for, the last one what came of it.
    let mut spans = Spans::new(
        groups
            .iter()
            .filter_map(|group| {
                let record = group.iter().find(|record| record.span.is_some())?;
                Some((honest(task, record)?, *group.last()?))
            })
            .collect(),
    );
    let wrong: Vec<&RunRecord> =
        found.runs.iter().filter(|record| corrected(task, record).is_some()).collect();
    for Fire { nominal, due } in
        fires.into_iter().filter(|fire| fire.nominal <= to && !scheduled.contains(&fire.nominal))
    {
        let told = match spans.first_with(nominal) {
            Some(record) if !teller.is_foreign(nominal) => teller.stood_for(nominal, record),
            _ => teller.unrecorded(nominal, due),
        };
        let passed = |record: &&&RunRecord| {
            record.nominal == nominal || record.span.is_some_and(|span| span.contains(nominal))
        };
        let told = match wrong.iter().find(passed).and_then(|record| corrected(task, record)) {
            Some(at) if nominal > at => teller.open_again(told, at),
            _ => told,
        };
        if told.run.is_none() && teller.is_of_other_rules(nominal) {
            continue;
        }
        times.insert((nominal, groups.len()), told);
    }
    if times.len() > question.limit
        && let Some(((at, _), _)) = times.iter().nth(question.limit)
    {
        cut(&mut to, *at);
        times.retain(|(nominal, _), _| *nominal <= to);
    }
    (times.into_values().map(|told| teller.was_moved(told)).collect(), next)
}

/// Records that stand for stretches of run times, asked for one run time after the other.
struct Spans<'a> {
    /// By where they begin, the last first, with their places in the order of the runs.
    ahead: Vec<(usize, Span, &'a RunRecord)>,
    /// Those that have begun.
    begun: BTreeMap<usize, (Span, &'a RunRecord)>,
}

impl<'a> Spans<'a> {
    fn new(spans: Vec<(Span, &'a RunRecord)>) -> Self {
        let mut ahead: Vec<_> =
            spans.into_iter().enumerate().map(|(place, (span, record))| (place, span, record)).collect();
        ahead.sort_by_key(|(_, span, _)| std::cmp::Reverse(span.from));
        Self { ahead, begun: BTreeMap::new() }
    }

    /// The first that stands for `nominal`, which is later each time.
    fn first_with(&mut self, nominal: DateTime<Utc>) -> Option<&'a RunRecord> {
        while let Some((place, span, record)) = self.ahead.pop_if(|(_, span, _)| span.from <= nominal) {
            self.begun.insert(place, (span, record));
        }
        while let Some(first) = self.begun.first_entry() {
            let (span, record) = *first.get();
            if span.contains(nominal) {
                return Some(record);
            }
            first.remove();
        }
        None
    }
}

/// When it turned out that a record was made under a clock that was ahead.
fn corrected(task: Option<&StoredTask>, record: &RunRecord) -> Option<DateTime<Utc>> {
    let marked = record.end.as_ref().and_then(|end| end.wrong_clock);
    let replanned = task.and_then(|task| task.state.replanned.as_ref());
    let of_then = replanned.filter(|replanned| {
        let later =
            record.nominal > replanned.at || record.span.is_some_and(|span| span.until > replanned.at);
        later && record.id < replanned.before
    });
    marked.or(of_then.map(|replanned| replanned.at))
}

/// Whether the run time of a record is open again: it was passed over under a clock that was ahead.
fn is_open(task: Option<&StoredTask>, record: &RunRecord) -> bool {
    let began = !matches!(
        record.end.as_ref().map(|end| &end.outcome),
        Some(
            Outcome::Missed { .. }
                | Outcome::Refused { .. }
                | Outcome::Coalesced { .. }
                | Outcome::Skipped { .. }
        )
    );
    !began && corrected(task, record).is_some_and(|at| record.nominal > at)
}

/// Where the run times lie that a record stands for: no later than when the clock was corrected.
fn honest(task: Option<&StoredTask>, record: &RunRecord) -> Option<Span> {
    let span = record.span?;
    let until =
        corrected(task, record).map_or(span.until, |at| span.until.min(at + TimeDelta::nanoseconds(1)));
    Some(Span { until, ..span })
}

/// The records of one run time, attempt by attempt; runs that were asked for stand alone.
fn attempts<'a>(records: impl Iterator<Item = &'a RunRecord>) -> Vec<Vec<&'a RunRecord>> {
    let mut groups: Vec<Vec<&RunRecord>> = Vec::new();
    let mut latest: BTreeMap<(DateTime<Utc>, &'static str), usize> = BTreeMap::new();
    for record in records {
        let key = (record.nominal, word(record.source));
        let same = latest.get(&key).and_then(|index| groups.get_mut(*index));
        match same {
            Some(group) if group.last().is_some_and(|last| last.attempt < record.attempt) => {
                group.push(record)
            }
            _ => {
                latest.insert(key, groups.len());
                groups.push(vec![record]);
            }
        }
    }
    groups
}

fn word(source: Source) -> &'static str {
    match source {
        Source::Scheduled => "",
        Source::Manual => "run by hand: ",
        Source::Shutdown => "run at the shutdown: ",
        Source::Backfill => "run to fill in: ",
    }
}

/// `1.5 s`.
fn length(time: TimeDelta) -> String {
    let seconds = time.num_milliseconds() as f64 / 1000.0;
    format!("{seconds} s")
}

/// Says what became of run times.
struct Teller<'a> {
    task: Option<&'a StoredTask>,
    question: &'a Question<'a>,
    zone: Zone,
    /// Since when there is a record of each run time; `None` when there is none at all.
    oldest: Option<DateTime<Utc>>,
    /// The latest of the schedule's run times that are on record.
    newest: Option<DateTime<Utc>>,
    /// What the clock showed at the schedule's run times that are on record.
    shown: HashSet<NaiveDateTime>,
    kept: Option<&'a str>,
}

/// What the clock of its zone showed at the run time of a record, by the rules of that day.
fn shown(record: &RunRecord) -> Option<NaiveDateTime> {
    record.nominal.naive_utc().checked_add_signed(TimeDelta::seconds(record.offset?.into()))
}

impl Teller<'_> {
    fn at(&self, time: DateTime<Utc>) -> String {
        self.question.zones.time(time, self.zone).fixed_offset().to_rfc3339_opts(SecondsFormat::AutoSi, true)
    }

    /// A run time that has records of its own.
    fn ran(&self, group: &[&RunRecord]) -> RunTime {
        let (last, before) = match group.split_last() {
            Some((last, before)) => (*last, before),
            None => return self.told(DateTime::UNIX_EPOCH, Fate::Unknown, String::new()),
        };
        let (fate, reason) = self.fate(last);
        let mut reason = format!("{}{reason}", word(last.source));
        if last.attempt > 1 {
            reason = format!("{reason} (attempt {})", last.attempt);
        }
        RunTime {
            run: Some(last.clone()),
            attempts: before.iter().map(|record| (*record).clone()).collect(),
            ..self.told(last.nominal, fate, reason)
        }
    }

    /// What a record says of its own run time.
    fn fate(&self, record: &RunRecord) -> (Fate, String) {
        let Some(end) = &record.end else {
            let since = self.at(record.submitted_at);
            let reason = if self.question.queued.contains(&record.id) {
                format!("its run was submitted at {since} and waits in its executor for its turn")
            } else if self.question.flight.contains(&record.id) {
                format!("its run was submitted at {since} and is going on")
            } else {
                format!("its run was submitted at {since}; no end is on record yet")
            };
            return (Fate::Running, reason);
        };
        let problem = || end.problem().unwrap_or_default();
        if let Some(again) = end.retry_at.filter(|_| !end.outcome.is_success()) {
            let word = end.outcome.word();
            // A task that was added since under its id knows nothing of it.
            if self.task.is_none_or(|task| record.submitted_at < task.state.created_at) {
                let reason = format!(
                    "{word}: {}; the task was removed before it was tried again, at {}",
                    problem(),
                    self.at(again)
                );
                return (Fate::of(&end.outcome), reason);
            }
            return (
                Fate::Retrying,
                format!("{word}: {}; it is tried again at {}", problem(), self.at(again)),
            );
        }
        let reason = match &end.outcome {
            Outcome::Executed { .. } => "executed".to_owned(),
            Outcome::Failed { .. } => format!("failed: {}", problem()),
            Outcome::Panicked { .. } => format!("panicked: {}", problem()),
            Outcome::Missed { late_ms } if self.is_backlog(record) => self.one_too_many(*late_ms),
            Outcome::Missed { late_ms } => {
                let late = length(TimeDelta::milliseconds(i64::try_from(*late_ms).unwrap_or(i64::MAX)));
                format!("missed: {late} late, more than its misfire grace")
            }
            Outcome::Refused { .. } => format!("refused: {}", problem()),
            Outcome::Coalesced { into } => format!("coalesced into the run of {}", self.at(*into)),
            Outcome::Skipped { .. } => format!("skipped: {}", problem()),
            Outcome::Interrupted { .. } => format!("interrupted: {}", problem()),
            Outcome::TimedOut { .. } => format!("timed out: {}", problem()),
            Outcome::Cancelled if end.replaced => format!("cancelled: {}", problem()),
            Outcome::Cancelled => {
                let said = ["somebody cancelled its run".to_owned()];
                said.into_iter().chain(end.shown()).collect::<Vec<_>>().join("; ")
            }
        };
        let others =
            standing_for(record.coalesced).filter(|_| !matches!(end.outcome, Outcome::Skipped { .. }));
        let reason = others.map(|others| format!("{reason}, {others}")).unwrap_or(reason);
        (Fate::of(&end.outcome), reason)
    }

    /// Whether a record is that of run times that were too many, and not of a late run.
    fn is_backlog(&self, record: &RunRecord) -> bool {
        let all = self.task.is_none_or(|task| task.spec.coalesce == Coalesce::All);
        all && record.span.is_some_and(|span| span.from == record.nominal)
    }

    fn one_too_many(&self, late_ms: u64) -> String {
        let late = length(TimeDelta::milliseconds(i64::try_from(late_ms).unwrap_or(i64::MAX)));
        format!("missed: {late} late, and more run times were due together than max_catch_up lets run")
    }

    /// A run time that the record of another one stands for.
    fn stood_for(&self, nominal: DateTime<Utc>, record: &RunRecord) -> RunTime {
        let (fate, reason) = match record.end.as_ref().map(|end| (&end.outcome, end.ended_at)) {
            Some((Outcome::Missed { .. }, at)) if self.is_backlog(record) => {
                let late = (at - nominal).num_milliseconds().max(0);
                (Fate::Missed, self.one_too_many(late.unsigned_abs()))
            }
            Some((outcome @ Outcome::Skipped { .. }, _)) => {
                (Fate::Skipped, format!("skipped: {}", outcome.problem().unwrap_or_default()))
            }
            _ => {
                let (_, reason) = self.fate(record);
                (Fate::Coalesced, format!("coalesced into the run of {}: {reason}", self.at(record.nominal)))
            }
        };
        RunTime { run: Some(record.clone()), ..self.told(nominal, fate, reason) }
    }

    /// Whether the task had another trigger then, or was not there.
    fn is_foreign(&self, nominal: DateTime<Utc>) -> bool {
        self.task.is_some_and(|task| nominal < task.state.trigger_since())
    }

    /// Whether a run time is one by the rules of time zones that are in force and was none when its time
    /// came: the task had other ones then, which are on record.
    fn is_of_other_rules(&self, nominal: DateTime<Utc>) -> bool {
        let moved = self.task.and_then(|task| task.state.moved.as_ref());
        // Another run time was what the clock shows at this one now.
        let ran = || self.shown.contains(&self.question.zones.time(nominal, self.zone).naive_local());
        let recorded = self.oldest.is_some_and(|oldest| oldest <= nominal) || self.newest.is_none() || ran();
        moved.is_some_and(|moved| nominal < moved.to || moved.ran.iter().any(|span| span.contains(nominal)))
            && recorded
            && self.task.is_some_and(|task| task.state.trigger_since() <= nominal)
    }

    /// That a run time was moved to where it is, because the rules of its zone had changed.
    fn was_moved(&self, told: RunTime) -> RunTime {
        let moved = self.task.and_then(|task| task.state.moved.as_ref());
        let Some(moved) = moved.filter(|moved| moved.to == told.nominal && moved.from != moved.to) else {
            return told;
        };
        let reason = format!(
            "{}; moved from {} when the rules of its time zone changed, at {}",
            told.reason,
            self.at(moved.from),
            self.at(moved.at)
        );
        RunTime { reason, ..told }
    }

    /// A run time of the trigger that no record stands for.
    fn unrecorded(&self, nominal: DateTime<Utc>, due: DateTime<Utc>) -> RunTime {
        let Some(task) = self.task else {
            return self.told(nominal, Fate::Unknown, "there is no record of it".to_owned());
        };
        let state = &task.state;
        let (fate, reason) = if nominal < state.created_at {
            (Fate::Outside, format!("before the task was added, at {}", self.at(state.created_at)))
        } else if nominal < state.trigger_since() {
            let since = self.at(state.trigger_since());
            (Fate::Outside, format!("before the task was given its present trigger, at {since}"))
        } else if let Some(begins) = state.begins.filter(|begins| nominal < *begins) {
            (Fate::Outside, format!("before the first run that was asked for, at {}", self.at(begins)))
        } else {
            match state.next {
                Some(next) if nominal >= next.nominal => {
                    self.ahead(state, if nominal == next.nominal { next.due } else { due })
                }
                None if self.is_over(nominal) => (Fate::Outside, "after the end of the schedule".to_owned()),
                _ => self.forgotten(nominal),
            }
        };
        self.told(nominal, fate, reason)
    }

    /// Whether the schedule, which has no next run time, had ended before this one.
    fn is_over(&self, nominal: DateTime<Utc>) -> bool {
        let on_record = self.oldest.is_none_or(|oldest| oldest <= nominal);
        nominal > self.question.now || (on_record && self.newest.is_none_or(|newest| newest < nominal))
    }

    /// The next run time, or a later one.
    fn ahead(&self, state: &TaskState, due: DateTime<Utc>) -> (Fate, String) {
        let now = self.question.now;
        if state.paused {
            let when = if due <= now {
                "it is skipped when the task is resumed, unless with catch_up"
            } else {
                "it runs only if the task is resumed by then"
            };
            return (Fate::Paused, format!("the task is paused; {when}"));
        }
        if due > now {
            return (Fate::Waiting, format!("not due yet; it is due at {}", self.at(due)));
        }
        let late = length(now - due);
        let reason = match self.question.scheduler {
            SchedulerState::Running => match self.question.waiting {
                Some(reason) => format!("due since {late}, and waits: {reason}"),
                None => format!("due since {late}, and about to be dealt with"),
            },
            SchedulerState::Paused => format!("due since {late}; the scheduler is paused"),
            _ => format!("due since {late}; the scheduler is not running"),
        };
        (Fate::Due, reason)
    }

    /// What was said of a run time, and that it was passed over while the clock was ahead.
    fn open_again(&self, told: RunTime, at: DateTime<Utc>) -> RunTime {
        let reason = format!(
            "{}; it was passed over while the clock was ahead, and is open again since that was corrected, at {}",
            told.reason,
            self.at(at)
        );
        RunTime { reason, ..told }
    }

    /// A run time that was dealt with, and no record says how.
    fn forgotten(&self, nominal: DateTime<Utc>) -> (Fate, String) {
        let reason = match (self.oldest, self.kept) {
            (Some(oldest), _) if oldest <= nominal => {
                return (Fate::Unknown, "there is no record of it".to_owned());
            }
            (None, None) => "its store keeps no records of runs".to_owned(),
            (_, None) => "no record of it is kept any more".to_owned(),
            (_, Some(kept)) => format!("no record of it is kept any more (kept are {kept})"),
        };
        (Fate::Forgotten, reason)
    }

    fn told(&self, nominal: DateTime<Utc>, fate: Fate, reason: String) -> RunTime {
        RunTime { nominal, fate, reason, run: None, attempts: Vec::new() }
    }
}
