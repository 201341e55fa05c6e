//! What the service says about its runs: lines for people, or events as JSON.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use super::out::{Printer, Stream, to_masked_json};
use super::terminal::shown;
use super::time::rules;
use super::{render, time};
use crate::event::{Event, RunReport};
use crate::task::{Outcome, RunRecord, TaskId, standing_for};
use crate::trigger::Zone;

/// One of the two languages, and the printer.
#[derive(Debug)]
pub(super) struct Show {
    printer: Printer,
    json: bool,
    zone: Zone,
}

impl Show {
    pub(super) fn new(json: bool, zone: Zone) -> std::io::Result<Self> {
        Ok(Self { printer: Printer::start(Stream::Out)?, json, zone })
    }

    /// Something for people alone.
    pub(super) fn text(&mut self, line: String) {
        if !self.json {
            self.printer.line(shown(&line));
        }
    }

    /// Something for programs alone.
    pub(super) fn json(&mut self, value: &impl Serialize) {
        if self.json {
            self.printer.line(to_masked_json(value));
        }
    }

    /// An event, for whoever listens. People are spared those that only programs count.
    pub(super) fn event(&mut self, event: &Event) {
        if self.json {
            self.json(event);
        } else if let Some(report) = event.report() {
            self.text(run_line(report, self.zone));
        } else if let Event::RunInterrupted { record, .. } = event {
            self.text(interrupted_line(record, self.zone));
        } else if let Some(line) = event_line(event, self.zone) {
            self.text(line);
        }
    }

    /// Waits a moment until all is printed.
    pub(super) fn finish(&self) {
        self.printer.finish();
    }
}

/// `2026-11-21 10:00:05 +00:00  heartbeat  executed  took 3ms  late 1ms  what it said`
fn run_line(report: &RunReport, zone: Zone) -> String {
    let end = &report.end;
    let at = time::stamp(end.ended_at, zone);
    let note = end.problem_in(report.run.is_backlog()).or_else(|| match &end.outcome {
        Outcome::Executed { value } => render::result(value),
        _ => None,
    });
    let again = end.retry_at.map(|at| rules().time(at, zone).format("again at %H:%M:%S"));
    let note = [again, standing_for(report.run.coalesced), note]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(": ");
    // A run that was refused or missed took no time, and was not late but not at all.
    let shown = |span| if end.started_at.is_some() { time::length(span) } else { "-".to_owned() };
    let line = format!(
        "{at}  {:<16}  {:<9}  took {:<6}  late {:<6}  {}",
        report.task_id(),
        end.outcome.word(),
        shown(TimeDelta::from_std(end.duration).unwrap_or_default()),
        shown(report.lateness()),
        render::brief(&note, if end.outcome.is_success() { 120 } else { 600 })
    );
    line.trim_end().to_owned()
}

/// A run that an earlier life of the service left behind.
fn interrupted_line(record: &RunRecord, zone: Zone) -> String {
    let shown = |at: DateTime<Utc>| time::stamp(at, zone);
    let problem = record.end.as_ref().and_then(|end| end.outcome.problem());
    let again = record.end.as_ref().and_then(|end| end.retry_at);
    format!(
        "{}  {:<16}  interrupted  {}{}",
        shown(record.nominal),
        record.task,
        problem.unwrap_or_else(|| "the service ended meanwhile".to_owned()),
        again.map(|at| format!("; again at {}", shown(at))).unwrap_or_default()
    )
}

/// The events that a person at the terminal wants to know of, besides runs.
fn event_line(event: &Event, zone: Zone) -> Option<String> {
    Some(match event {
        Event::TaskStalled { id, cause, .. } => format!("task {id} was paused: {cause}"),
        Event::TaskFinished { id, .. } => format!("the schedule of task {id} has ended"),
        Event::StoreUnavailable { store, cause } => {
            format!("store {store} does not work: {cause}; trying again")
        }
        Event::LockTaken { store } => format!("the runs of store {store} begin here"),
        Event::LockAwaited { store, cause } => {
            format!("the runs of store {store} do not begin here: its lock is waited for; {cause}")
        }
        Event::LockLost { store, cause } => format!("the lock of store {store} was lost: {cause}"),
        Event::StoreSetAside { store, place, cause } => {
            format!("store {store} began anew, empty; its damaged data is in {place}: {cause}")
        }
        Event::StoreExportFailed { store, cause } => {
            format!("store {store} could not be exported: {cause}; trying again")
        }
        Event::StoreRecovered { store } => format!("store {store} works again"),
        Event::RecordUnreadable { store, id, cause } => {
            format!("store {store}: the record of task {id} cannot be read ({cause}); it was left as it is")
        }
        Event::RecordReadable { store, id } => {
            format!("store {store}: the record of task {id} can be read again")
        }
        Event::ExecutorRestarted { executor, cause } => {
            format!("executor {executor} was started again: {cause}")
        }
        Event::ExecutorFailed { executor, cause } => format!("executor {executor} has failed: {cause}"),
        Event::ExecutorRecovered { executor } => format!("executor {executor} works again"),
        Event::SchedulerRestarted { cause } => format!("the scheduler was started again: {cause}"),
        Event::ClockJumped { by_ms } => {
            let way = if *by_ms < 0 { "back" } else { "forward" };
            let by = TimeDelta::try_milliseconds(*by_ms).unwrap_or(TimeDelta::MAX).abs();
            // A look takes its time: an hour is not 59m 59s.
            let by = match by.checked_add(&TimeDelta::milliseconds(500)) {
                Some(rounded) if by >= TimeDelta::minutes(1) => rounded,
                _ => by,
            };
            format!("the clock was set {way} by {}", time::length(by))
        }
        Event::TimezonesChanged { from, to, .. } => {
            format!("the rules of time zones have changed: {to} (before: {from})")
        }
        Event::TimezonesUnusable { cause, rules } => {
            format!("the time zone database cannot be used, and the rules in force stay ({rules}): {cause}")
        }
        Event::TaskMoved { id, from, to, .. } => {
            let to =
                to.map_or_else(|| "nowhere: its schedule has ended".to_owned(), |to| time::shown(to, zone));
            let from = time::shown(*from, zone);
            format!(
                "task {id}: its next run moved from {from} to {to}, because the rules of its zone have changed"
            )
        }
        Event::TasksMoved { store, tasks, from, to } => {
            let from = from.as_ref().map_or_else(|| "an earlier version's".to_owned(), ToString::to_string);
            format!(
                "store {store}: planned by the rules of {to} (before: {from}); next runs that moved: {tasks}"
            )
        }
        Event::TasksReplanned { store, tasks, back, over } => {
            let names = |ids: &[TaskId]| ids.iter().map(TaskId::as_str).collect::<Vec<_>>().join(", ");
            let mut line = format!(
                "store {store}: the clock had been ahead; the next runs of {tasks} tasks were worked out again"
            );
            if !back.is_empty() {
                line = format!("{line}; ended meanwhile, and back: {}", names(back));
            }
            if !over.is_empty() {
                line = format!("{line}; ran for the last time, and over: {}", names(over));
            }
            line
        }
        _ => return None,
    })
}
