//! What becomes of run times when the rules by which clocks are read change.
//!
//! A run time on a wall clock is what the clock shows, and not the instant that this was. The offsets
//! that the clocks of a trigger had when its next run was worked out ([`Offsets`]) say what they show
//! then by the rules of that day; from that on its run times are open, whatever the rules are now.
//! What lies before it was dealt with.
//!
//! | run times | which are open |
//! |---|---|
//! | fixed, on a wall clock | those at which the clock shows no less than at the next run by the former rules |
//! | of a pattern that follows real time | the same, and all from the instant of the next run on; never an instant that ran |
//! | of an interval, and instants | those from the instant of the next run on |
//! | a wall time, once | itself, unless it is earlier than what the clock shows at the next run by the former rules |

use chrono::{DateTime, NaiveDateTime, Offset, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

use super::cron::search::Pattern;
use super::limits::Limits;
use super::zone::{Fold, Rules};
use super::{Context, Interval, Moment, SearchError, Trigger, Zone};

/// What the clocks of a trigger were away from UTC when its next run was worked out, in seconds, in the
/// order in which the trigger names their zones. Empty for a trigger that reads no clock.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Vec<i32>", into = "Vec<i32>")]
pub struct Offsets(Kept);

/// Nearly every trigger reads one clock or none: that takes no allocation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum Kept {
    #[default]
    None,
    One(i32),
    Many(Box<[i32]>),
}

impl Offsets {
    /// Whether the trigger read no clock, or nothing is known.
    pub fn is_empty(&self) -> bool {
        self.0 == Kept::None
    }

    /// The offsets, in seconds; positive to the east.
    pub fn as_slice(&self) -> &[i32] {
        match &self.0 {
            Kept::None => &[],
            Kept::One(offset) => std::slice::from_ref(offset),
            Kept::Many(offsets) => offsets,
        }
    }
}

impl From<Vec<i32>> for Offsets {
    fn from(offsets: Vec<i32>) -> Self {
        Self(match offsets[..] {
            [] => Kept::None,
            [offset] => Kept::One(offset),
            _ => Kept::Many(offsets.into()),
        })
    }
}

impl From<Offsets> for Vec<i32> {
    fn from(offsets: Offsets) -> Self {
        offsets.as_slice().to_vec()
    }
}

/// By how much the clock differs from UTC at a run time. At the end of a gap it is the offset before it:
/// what lies in the gap runs then, and all of it is open. At the end of a first pass it is that of the
/// second one.
fn offset_at(rules: &Rules, at: DateTime<Utc>) -> i32 {
    let k = rules.at(at.timestamp());
    let offset = rules.segment(k).offset;
    let before = k.checked_sub(1).map(|k| rules.segment(k));
    let changed = before.filter(|before| before.end == at.timestamp() && at.timestamp_subsec_nanos() == 0);
    let offset = changed.map_or(offset, |before| before.offset.min(offset));
    i32::try_from(offset).unwrap_or_default()
}

/// The same by the table in `chrono-tz`, which said what clocks show before offsets were kept.
fn offset_of_old(zone: Zone, at: DateTime<Utc>) -> Option<i32> {
    let tz: Tz = zone.name().parse().ok()?;
    let offset = |at: DateTime<Utc>| tz.offset_from_utc_datetime(&at.naive_utc()).fix().local_minus_utc();
    Some(offset(at).min(offset(at - TimeDelta::seconds(1))))
}

impl Trigger {
    /// The zones whose clocks say when it runs, each once.
    fn clocks(&self, cx: &Context<'_>, clocks: &mut Vec<Zone>) {
        let naive = |moment: Option<Moment>| matches!(moment, Some(Moment::Naive(_)));
        let zone = match self {
            Trigger::Date(date) if naive(date.run_at()) => date.zone(cx),
            Trigger::Interval(interval)
                if naive(interval.limits().start_at) || naive(interval.limits().end_at) =>
            {
                interval.limits().zone(cx)
            }
            Trigger::Cron(cron) => cron.limits().zone(cx),
            Trigger::Crontab(crontab) => crontab.limits().zone(cx),
            Trigger::Quartz(quartz) => quartz.limits().zone(cx),
            Trigger::CalendarInterval(interval) => interval.zone(cx),
            Trigger::And(and) => return and.triggers().iter().for_each(|part| part.clocks(cx, clocks)),
            Trigger::Or(or) => return or.triggers().iter().for_each(|part| part.clocks(cx, clocks)),
            Trigger::Except(except) => {
                except.trigger().clocks(cx, clocks);
                except.triggers().iter().for_each(|part| part.clocks(cx, clocks));
                // Dates are read on the clock of the base.
                except.trigger().zone(cx)
            }
            Trigger::Custom(_) => cx.zone,
            Trigger::Date(_) | Trigger::Interval(_) | Trigger::Shutdown => return,
        };
        if !clocks.contains(&zone) {
            clocks.push(zone);
        }
    }

    /// What its clocks are away from UTC at a run time.
    pub(crate) fn offsets(&self, at: DateTime<Utc>, cx: &Context<'_>) -> Offsets {
        let of = |zone: Zone| cx.zones.rules(zone).map_or(0, |rules| offset_at(rules, at));
        // As nearly always; without a list.
        match self {
            Trigger::Cron(cron) => return Offsets(Kept::One(of(cron.limits().zone(cx)))),
            Trigger::Crontab(crontab) => return Offsets(Kept::One(of(crontab.limits().zone(cx)))),
            Trigger::Quartz(quartz) => return Offsets(Kept::One(of(quartz.limits().zone(cx)))),
            _ => {}
        }
        let mut clocks = Vec::new();
        self.clocks(cx, &mut clocks);
        clocks.into_iter().map(of).collect::<Vec<_>>().into()
    }

    /// Whether it reads a clock.
    pub(crate) fn reads_clocks(&self, cx: &Context<'_>) -> bool {
        let mut clocks = Vec::new();
        self.clocks(cx, &mut clocks);
        !clocks.is_empty()
    }
}

/// The question which run times of a trigger are open under rules that may be others than those by which
/// its next run was worked out.
pub(crate) struct Reread<'a> {
    trigger: &'a Trigger,
    cx: &'a Context<'a>,
    /// The next run time by the former rules.
    next: DateTime<Utc>,
    /// When the trigger was set: what is earlier was never a run time.
    since: DateTime<Utc>,
    clocks: Vec<(Zone, i32)>,
}

impl<'a> Reread<'a> {
    /// `next` is the next run time as it was worked out when the clocks of the trigger had `offsets`.
    pub(crate) fn new(
        trigger: &'a Trigger,
        cx: &'a Context<'a>,
        next: DateTime<Utc>,
        since: DateTime<Utc>,
        offsets: &Offsets,
    ) -> Result<Self, SearchError> {
        let mut zones = Vec::new();
        trigger.clocks(cx, &mut zones);
        let known = offsets.as_slice();
        // Those of another trigger say nothing.
        let known = if known.len() == zones.len() { known } else { &[] };
        let mut clocks = Vec::with_capacity(zones.len());
        for (index, zone) in zones.into_iter().enumerate() {
            let now = offset_at(cx.rules(zone)?, next);
            let then = known.get(index).copied().or_else(|| offset_of_old(zone, next));
            clocks.push((zone, then.unwrap_or(now)));
        }
        Ok(Self { trigger, cx, next, since, clocks })
    }

    fn former(&self, zone: Zone) -> Option<i32> {
        self.clocks.iter().find(|(clock, _)| *clock == zone).map(|(_, offset)| *offset)
    }

    /// What the clock of a zone shows at the next run by the former rules.
    fn shown(&self, zone: Zone) -> Option<NaiveDateTime> {
        let offset = TimeDelta::seconds(self.former(zone)?.into());
        self.next.naive_utc().checked_add_signed(offset)
    }

    /// From when on the wall times of a zone are open.
    fn instant_of(&self, zone: Zone) -> Result<DateTime<Utc>, SearchError> {
        let rules = self.cx.rules(zone)?;
        match (self.former(zone), self.shown(zone)) {
            (Some(then), Some(shown)) if then != offset_at(rules, self.next) => {
                Ok(rules.instant(shown).max(self.since.min(self.next)))
            }
            _ => Ok(self.next),
        }
    }

    fn of_pattern(&self, pattern: &Pattern, limits: &Limits) -> Result<DateTime<Utc>, SearchError> {
        let from = self.instant_of(limits.zone(self.cx))?;
        Ok(if pattern.fold == Fold::Both { from.min(self.next) } else { from })
    }

    /// The earliest instant at which a run of a part can be open.
    fn from(&self, part: &Trigger) -> Result<DateTime<Utc>, SearchError> {
        let cx = self.cx;
        Ok(match part {
            Trigger::Date(date) => {
                let at = date.instant(cx)?;
                match date.run_at() {
                    Some(Moment::Naive(wall))
                        if self.shown(date.zone(cx)).is_none_or(|shown| shown <= wall) =>
                    {
                        at.min(self.next)
                    }
                    Some(Moment::Naive(_)) => at.checked_add_signed(TimeDelta::nanoseconds(1)).unwrap_or(at),
                    _ => self.next,
                }
            }
            Trigger::Interval(interval) => match interval.limits().start_at {
                // One that has not begun yet begins at its wall time.
                Some(Moment::Naive(wall)) if self.shown(interval.limits().zone(cx)) == Some(wall) => {
                    interval.start(cx)?.min(self.next)
                }
                _ => self.next,
            },
            Trigger::Cron(cron) => self.of_pattern(cron.pattern(), cron.limits())?,
            Trigger::Crontab(crontab) => self.of_pattern(crontab.pattern(), crontab.limits())?,
            Trigger::Quartz(quartz) => self.of_pattern(quartz.pattern(), quartz.limits())?,
            Trigger::CalendarInterval(interval) => match interval.chosen().1 {
                Some(Fold::Both) => self.instant_of(interval.zone(cx))?.min(self.next),
                _ => self.instant_of(interval.zone(cx))?,
            },
            Trigger::Or(or) => {
                let parts = or.triggers().iter().map(|part| self.from(part));
                parts.reduce(|a, b| Ok(a?.min(b?))).unwrap_or(Ok(self.next))?
            }
            // The parts that are read on a clock say what was had.
            Trigger::And(and) => {
                let parts = and.triggers().iter().filter(|part| part.reads_clocks(cx));
                let parts = parts.map(|part| self.from(part));
                parts.reduce(|a, b| Ok(a?.max(b?))).unwrap_or(Ok(self.next))?
            }
            Trigger::Except(except) => self.from(except.trigger())?,
            // One whose run time is one still does not go by the clock, or the clock has not changed.
            Trigger::Custom(custom) => match custom.next(self.next, cx)? == Some(self.next) {
                true => self.next,
                false => self.instant_of(cx.zone)?,
            },
            Trigger::Shutdown => self.next,
        })
    }

    /// When an interval began whose start is a time on a wall clock; `None` of one that has not begun, and of
    /// one that began when the present rules say.
    pub(crate) fn has_begun(&self, interval: &Interval) -> Result<Option<DateTime<Utc>>, SearchError> {
        let Some(Moment::Naive(wall)) = interval.limits().start_at else { return Ok(None) };
        if self.shown(interval.limits().zone(self.cx)) == Some(wall) {
            return Ok(None);
        }
        // Its next run time lies on the grid that hangs on its start.
        let (start, length) = (interval.start(self.cx)?, interval.length());
        let (apart, length) = match ((self.next - start).num_nanoseconds(), length.num_nanoseconds()) {
            (Some(apart), Some(length)) if length > 0 => (apart, length),
            _ => return Ok(None),
        };
        let late = apart.rem_euclid(length);
        let off = if late > length / 2 { late - length } else { late };
        Ok(start.checked_add_signed(TimeDelta::nanoseconds(off)).filter(|begun| *begun != start))
    }

    /// Whether a pattern that follows real time ran at an instant before the next run, by the offset that
    /// the clock had.
    fn ran(&self, pattern: &Pattern, limits: &Limits, at: DateTime<Utc>) -> bool {
        let Some(offset) = self.former(limits.zone(self.cx)) else { return false };
        let rules = Rules::new(offset.into(), &[], None);
        at < self.next
            && pattern.fold == Fold::Both
            && pattern.next(at.timestamp(), &rules, self.cx.key) == Some(at.timestamp())
    }

    /// Whether a run of a part is open at an instant, if there is one.
    fn may_run(&self, part: &Trigger, at: DateTime<Utc>) -> Result<bool, SearchError> {
        let open = at >= self.from(part)?;
        Ok(match part {
            Trigger::Cron(cron) => open && !self.ran(cron.pattern(), cron.limits(), at),
            Trigger::Crontab(crontab) => open && !self.ran(crontab.pattern(), crontab.limits(), at),
            Trigger::Quartz(quartz) => open && !self.ran(quartz.pattern(), quartz.limits(), at),
            Trigger::Or(or) => {
                for part in or.triggers() {
                    if part.next(at, self.cx)? == Some(at) && self.may_run(part, at)? {
                        return Ok(true);
                    }
                }
                false
            }
            Trigger::Except(except) => self.may_run(except.trigger(), at)?,
            _ => open,
        })
    }

    /// Whether the run time at an instant is open.
    pub(crate) fn is_open(&self, at: DateTime<Utc>) -> Result<bool, SearchError> {
        self.may_run(self.trigger, at)
    }

    /// The earliest instant at which a run can be open, and one from which on all run times are.
    pub(crate) fn bounds(&self) -> Result<(DateTime<Utc>, DateTime<Utc>), SearchError> {
        fn latest(reread: &Reread<'_>, part: &Trigger) -> Result<DateTime<Utc>, SearchError> {
            let parts = match part {
                Trigger::Or(or) => or.triggers(),
                Trigger::Except(except) => return latest(reread, except.trigger()),
                _ => &[],
            };
            parts.iter().try_fold(reread.from(part)?, |most, part| Ok(most.max(latest(reread, part)?)))
        }
        let from = self.from(self.trigger)?;
        Ok((from, latest(self, self.trigger)?.max(self.next)))
    }
}
