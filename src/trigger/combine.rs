//! Triggers made of triggers: any of them, all of them at once.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::footprint;
use super::limits::seconds;
use super::{Context, IntoTrigger, SearchError, Trigger, TriggerError, text};

/// How far an `and` or an `except` looks ahead: beyond it there is "no more".
///
/// The calendar repeats after 400 years, and so do the rules by which clocks go on after the last change
/// that a database lists: whatever has not happened by then is not going to.
pub(super) const HORIZON: TimeDelta = TimeDelta::days(500 * 366);

/// How many steps one search may take, whatever is nested in what.
pub(super) const STEPS: u32 = 1_000_000;

/// After this many steps without an answer it is worth while to look whether there can be one.
pub(super) const PATIENCE: u32 = 64;

/// The steps one search has left. Shared by everything nested in a trigger, so that depth does
/// not multiply the time a search can take.
#[derive(Debug)]
pub(super) struct Budget(u32);

impl Budget {
    pub(super) fn new() -> Self {
        Budget(STEPS)
    }

    /// How many steps were taken.
    pub(super) fn spent(&self) -> u32 {
        STEPS - self.0
    }

    pub(super) fn spend(&mut self, steps: u32, what: &str) -> Result<(), SearchError> {
        match self.0.checked_sub(steps) {
            Some(left) => self.0 = left,
            None => {
                return Err(SearchError::limit(format!(
                    "{STEPS} steps of {what} found neither a run nor the end"
                )));
            }
        }
        Ok(())
    }
}

/// Whenever any of its parts runs: the sorted union, each run once.
///
/// The parts know nothing of each other. It ends when all of them have.
///
/// ```
/// use callboard::trigger::{Context, Cron, IntoTrigger, Or};
/// use chrono::{DateTime, Utc};
///
/// let trigger = Or::of(Cron::builder().hour(9)).or(Cron::builder().day_of_week("mon").hour(17)).into_trigger()?;
/// let from: DateTime<Utc> = "2026-01-05T09:00:01Z".parse().unwrap();
/// let cx = Context::new(chrono_tz::UTC, from, "task");
/// assert_eq!(trigger.next(from, &cx)?.unwrap().to_rfc3339(), "2026-01-05T17:00:00+00:00");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "OrParts")]
pub struct Or {
    triggers: Box<[Trigger]>,
}

/// Whenever all of its parts run at once: the intersection, each run once.
///
/// With a [tolerance](AndBuilder::tolerance) the parts need not meet exactly: it runs at each
/// run of a part from which every other part has one no later than the tolerance after it.
///
/// The search leaps from part to part. Parts that can never meet are found out by arithmetic
/// where they are periodic (minutes and seconds of the week, the remainders of intervals);
/// otherwise the search ends at a horizon of 500 years, which is more than one cycle of the
/// calendar. A search of more than a million steps is given up with a
/// [`SearchError`].
///
/// ```
/// use callboard::trigger::{And, Context, Cron, IntoTrigger};
/// use chrono::{DateTime, Utc};
///
/// let trigger = And::of(Cron::builder().day(13).hour(9)).and(Cron::builder().day_of_week("fri").hour(9)).into_trigger()?;
/// let from: DateTime<Utc> = "2026-01-01T00:00:00Z".parse().unwrap();
/// let cx = Context::new(chrono_tz::UTC, from, "task");
/// assert_eq!(trigger.next(from, &cx)?.unwrap().to_rfc3339(), "2026-02-13T09:00:00+00:00");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "AndParts")]
pub struct And {
    triggers: Box<[Trigger]>,
    #[serde(skip_serializing_if = "Duration::is_zero", with = "seconds")]
    tolerance: Duration,
}

impl Or {
    /// A union that begins with this part.
    pub fn of(part: impl IntoTrigger) -> OrBuilder {
        OrBuilder { parts: Parts::default().with(part) }
    }

    /// The parts.
    pub fn triggers(&self) -> &[Trigger] {
        &self.triggers
    }

    pub(super) fn new(triggers: Vec<Trigger>) -> Result<Self, TriggerError> {
        Ok(Or { triggers: some("or", triggers)? })
    }

    pub(super) fn map(
        &self,
        change: &dyn Fn(&Trigger) -> Result<Trigger, TriggerError>,
    ) -> Result<Self, TriggerError> {
        Ok(Or { triggers: self.triggers.iter().map(change).collect::<Result<_, _>>()? })
    }

    pub(super) fn next(
        &self,
        from: DateTime<Utc>,
        cx: &Context<'_>,
        budget: &mut Budget,
    ) -> Result<Option<DateTime<Utc>>, SearchError> {
        let mut first: Option<DateTime<Utc>> = None;
        budget.spend(self.triggers.len() as u32, "an `or`")?;
        for trigger in &self.triggers {
            let next = trigger.seek(from, cx, budget)?;
            first = match (first, next) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
        Ok(first)
    }
}

impl And {
    /// An intersection that begins with this part.
    pub fn of(part: impl IntoTrigger) -> AndBuilder {
        AndBuilder { parts: Parts::default().with(part), tolerance: Duration::ZERO }
    }

    /// The parts.
    pub fn triggers(&self) -> &[Trigger] {
        &self.triggers
    }

    /// How far apart the parts may run.
    pub fn tolerance(&self) -> Duration {
        self.tolerance
    }

    pub(super) fn new(triggers: Vec<Trigger>, tolerance: Duration) -> Result<Self, TriggerError> {
        Ok(And { triggers: some("and", triggers)?, tolerance })
    }

    pub(super) fn map(
        &self,
        change: &dyn Fn(&Trigger) -> Result<Trigger, TriggerError>,
    ) -> Result<Self, TriggerError> {
        let triggers = self.triggers.iter().map(change).collect::<Result<_, _>>()?;
        Ok(And { triggers, tolerance: self.tolerance })
    }

    pub(super) fn next(
        &self,
        from: DateTime<Utc>,
        cx: &Context<'_>,
        budget: &mut Budget,
    ) -> Result<Option<DateTime<Utc>>, SearchError> {
        let tolerance = TimeDelta::from_std(self.tolerance).unwrap_or(TimeDelta::MAX);
        let horizon = from.checked_add_signed(HORIZON).unwrap_or(DateTime::<Utc>::MAX_UTC);
        let mut at = from;
        let mut lattice = None;
        for step in 0u32.. {
            let (mut low, mut high) = (None, at);
            for trigger in &self.triggers {
                // Exact meetings: whatever the next part says, nothing happens before `high`.
                let ask = if tolerance.is_zero() { high } else { at };
                let Some(next) = trigger.seek(ask, cx, budget)? else {
                    return Ok(None);
                };
                low = Some(low.map_or(next, |low: DateTime<Utc>| low.min(next)));
                high = high.max(next);
            }
            let Some(low) = low else { return Ok(None) };
            if high - low <= tolerance {
                return Ok(Some(low));
            }
            // A run before `high - tolerance` has no partner at `high` or later.
            at = high.checked_sub_signed(tolerance).unwrap_or(at).max(at);
            if at > horizon {
                return Ok(None);
            }
            budget.spend(self.triggers.len() as u32, "an `and`")?;
            if step == PATIENCE {
                budget.spend(1000, "an `and`")?;
                if !footprint::can_meet(&self.triggers, tolerance, at, cx) {
                    return Ok(None);
                }
                if tolerance.is_zero() {
                    match footprint::lattice(&self.triggers, cx) {
                        Ok(found) => lattice = found,
                        Err(footprint::NeverMeet) => return Ok(None),
                    }
                }
            }
            if let Some(lattice) = &lattice {
                match lattice.next(at) {
                    Some(next) => at = next,
                    None => return Ok(None),
                }
            }
        }
        Ok(None)
    }
}

fn some(name: &str, triggers: Vec<Trigger>) -> Result<Box<[Trigger]>, TriggerError> {
    match triggers.is_empty() {
        true => Err(TriggerError::invalid(name, "it has no parts; give it at least one trigger")),
        false => Ok(triggers.into()),
    }
}

/// Parts being collected; the first error is kept until the end.
#[derive(Debug, Clone, Default)]
struct Parts {
    triggers: Vec<Trigger>,
    error: Option<TriggerError>,
}

impl Parts {
    fn with(mut self, part: impl IntoTrigger) -> Self {
        match part.into_trigger() {
            Ok(trigger) => self.triggers.push(trigger),
            Err(error) => self.error = self.error.or(Some(error)),
        }
        self
    }

    fn done(self) -> Result<Vec<Trigger>, TriggerError> {
        self.error.map_or(Ok(self.triggers), Err)
    }
}

/// Makes an [`Or`]; errors in its parts come when it is built or handed to a task.
#[derive(Debug, Clone)]
pub struct OrBuilder {
    parts: Parts,
}

impl OrBuilder {
    /// One more part.
    pub fn or(mut self, part: impl IntoTrigger) -> Self {
        self.parts = self.parts.with(part);
        self
    }

    /// The finished trigger.
    ///
    /// # Errors
    /// The first error of its parts.
    pub fn build(self) -> Result<Or, TriggerError> {
        Or::new(self.parts.done()?)
    }
}

/// Makes an [`And`]; errors in its parts come when it is built or handed to a task.
#[derive(Debug, Clone)]
pub struct AndBuilder {
    parts: Parts,
    tolerance: Duration,
}

impl AndBuilder {
    /// One more part.
    pub fn and(mut self, part: impl IntoTrigger) -> Self {
        self.parts = self.parts.with(part);
        self
    }

    /// How far apart the parts may run and still count as meeting. Default: not at all.
    pub fn tolerance(mut self, most: Duration) -> Self {
        self.tolerance = most;
        self
    }

    /// The finished trigger.
    ///
    /// # Errors
    /// The first error of its parts.
    pub fn build(self) -> Result<And, TriggerError> {
        And::new(self.parts.done()?, self.tolerance)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OrParts {
    triggers: Vec<Trigger>,
}

impl TryFrom<OrParts> for Or {
    type Error = TriggerError;

    fn try_from(parts: OrParts) -> Result<Self, TriggerError> {
        Or::new(parts.triggers)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AndParts {
    triggers: Vec<Trigger>,
    #[serde(default, with = "seconds")]
    tolerance: Duration,
}

impl TryFrom<AndParts> for And {
    type Error = TriggerError;

    fn try_from(parts: AndParts) -> Result<Self, TriggerError> {
        And::new(parts.triggers, parts.tolerance)
    }
}

fn list(f: &mut fmt::Formatter<'_>, name: &str, triggers: &[Trigger]) -> fmt::Result {
    write!(f, "{name}(")?;
    for (index, trigger) in triggers.iter().enumerate() {
        write!(f, "{}{trigger}", if index > 0 { "; " } else { "" })?;
    }
    f.write_str(")")
}

impl fmt::Display for Or {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(f, "or", &self.triggers)
    }
}

impl fmt::Display for And {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(f, "and", &self.triggers)?;
        match self.tolerance.is_zero() {
            true => Ok(()),
            false => write!(f, " within {}", text::duration(self.tolerance)),
        }
    }
}
