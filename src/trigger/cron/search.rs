//! The search: from an instant to the next one a pattern matches.
//!
//! Fields are bit sets and the search jumps from set bit to set bit: first the time of day, then
//! the day, by whole months where the month or the year does not match. [`Pattern::wall`] walks
//! wall time and knows no zone; [`Pattern::next`] lays the result on real time by the rule of
//! gaps and folds. Nothing is allocated and every loop has a bound: wall time is walked for at
//! most one cycle of the calendar (400 years), and gaps are finitely many.

use crate::trigger::jitter;
use crate::trigger::zone::{DAY, Fold, Gap, Rules};

use super::field::{Collected, FIRST_YEAR, Kind, LAST_YEAR};

/// The last second of the year 9999, as wall seconds: no pattern matches later.
pub(crate) const LAST_WALL: i64 = 253_402_300_799;

// The calendar repeats after 400 years: 146 097 days are whole weeks.
const CYCLE: u32 = 400;
const EVERY_DAY: u32 = 0xffff_fffe;
const EVERY_WEEK: u64 = (1 << 54) - 2;
const EVERY_MONTH: u16 = 0x1ffe;

/// The numbers a pattern matches. Weekdays count from Monday = 0; days, weeks and months from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sets {
    pub(crate) seconds: u64,
    pub(crate) minutes: u64,
    pub(crate) hours: u32,
    pub(crate) days: u32,
    pub(crate) months: u16,
    pub(crate) weeks: u64,
    pub(crate) weekdays: u8,
    /// Bit n: the day n days before the last of the month.
    pub(crate) from_last: u32,
    pub(crate) last_workday: bool,
    /// Bit d: the working day nearest to day d.
    pub(crate) nearest: u32,
    /// For each weekday, bit n: its nth occurrence in the month. Counts as a weekday.
    pub(crate) nth: [u8; 7],
    pub(crate) last_of: u8,
    /// The same written as a day of the month (`3rd fri`). Counts as a day.
    pub(crate) day_nth: [u8; 7],
    pub(crate) day_last_of: u8,
    /// Day or weekday suffices.
    pub(crate) either: bool,
}

/// A stretch of years with a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct YearRange {
    pub(crate) from: u16,
    pub(crate) to: u16,
    pub(crate) step: u16,
}

/// A field whose value comes from the task's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hashed {
    pub(crate) kind: Kind,
    pub(crate) from: u8,
    pub(crate) to: u8,
    /// 0: one value; else the first value lies below the step and the others follow it.
    pub(crate) step: u8,
}

/// A pattern ready to be searched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    sets: Ready,
    /// Empty: every year.
    years: Box<[YearRange]>,
    hashed: Box<[Hashed]>,
    pub(crate) gap: Gap,
    pub(crate) fold: Fold,
}

/// How much of the calendar a pattern looks at: the less, the faster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    EveryDay,
    Weekdays,
    Months,
}

/// [`Sets`] with what can be worked out beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ready {
    sets: Sets,
    shape: Shape,
    first_time: i64,
    first_minute: u32,
    first_second: u32,
    /// Only 29 February can match: most years need no look.
    leap_only: bool,
    /// The days that match in a month of 28 + n days that begins on a weekday: bits 1 to 31.
    days: [[u32; 7]; 4],
}

impl Sets {
    /// Everything, at midnight.
    pub(crate) const MIDNIGHT: Sets = Sets {
        seconds: 1,
        minutes: 1,
        hours: 1,
        days: EVERY_DAY,
        months: EVERY_MONTH,
        weeks: EVERY_WEEK,
        weekdays: 0x7f,
        from_last: 0,
        last_workday: false,
        nearest: 0,
        nth: [0; 7],
        last_of: 0,
        day_nth: [0; 7],
        day_last_of: 0,
        either: false,
    };

    /// Whether every date of its months matches, however that is written.
    pub(crate) fn takes_every_date(&self) -> bool {
        let ready = self.ready();
        (1..=12).filter(|month| self.months >> month & 1 == 1).all(|month| {
            let mut lengths = month_length(2025, month)..=month_length(2024, month);
            lengths.all(|length| {
                let all = u32::MAX >> (31 - length) & EVERY_DAY;
                ready.days[length as usize - 28].iter().all(|days| *days == all)
            })
        })
    }

    fn ready(self) -> Ready {
        let mut ready = Ready {
            sets: self,
            shape: Shape::EveryDay,
            first_time: 0,
            first_minute: 0,
            first_second: 0,
            leap_only: false,
            days: [[0; 7]; 4],
        };
        ready.set_time(self.hours, self.minutes, self.seconds);
        let every_day = (self.days == EVERY_DAY) & (self.weekdays == 0x7f);
        let plain =
            self.months == EVERY_MONTH && self.weeks == EVERY_WEEK && !self.either && self.days == EVERY_DAY;
        if every_day && plain {
            ready.days = [28, 29, 30, 31].map(|length| [u32::MAX >> (31 - length) & EVERY_DAY; 7]);
            return ready;
        }
        ready.shape = match plain && self.nth == [0; 7] && self.last_of == 0 && self.weekdays != 0 {
            true => Shape::Weekdays,
            false => Shape::Months,
        };
        for first in 0..7 {
            let weekdays = spread(self.weekdays, &self.nth, first);
            let days = self.days | spread(0, &self.day_nth, first);
            for length in 28..=31 {
                let days = days | self.special_days(first, length);
                let weekdays = weekdays | last_of(self.last_of, first, length);
                let both = if self.either { days | weekdays } else { days & weekdays };
                ready.days[length as usize - 28][first as usize] =
                    both & (u32::MAX >> (31 - length)) & EVERY_DAY;
            }
        }
        ready.leap_only = self.months == 1 << 2 && ready.days[0] == [0; 7];
        ready
    }

    fn special_days(&self, first_weekday: u32, length: u32) -> u32 {
        let mut days = last_of(self.day_last_of, first_weekday, length);
        // Bit n is the day `length - n`.
        days |= self.from_last.reverse_bits() >> (31 - length);
        let weekday = |day: u32| (first_weekday + day - 1) % 7;
        if self.last_workday {
            days |= 1 << (length - weekday(length).saturating_sub(4));
        }
        let mut nearest = self.nearest;
        while nearest != 0 {
            let day = nearest.trailing_zeros();
            nearest &= nearest - 1;
            if day > length {
                continue;
            }
            // Saturday goes to Friday and Sunday to Monday, unless that leaves the month.
            days |= 1
                << match weekday(day) {
                    5 if day == 1 => 3,
                    5 => day - 1,
                    6 if day == length => day - 2,
                    6 => day + 1,
                    _ => day,
                };
        }
        days
    }
}

/// The days of a month that fall on one of the weekdays, or are the nth of their weekday.
fn spread(weekdays: u8, nth: &[u8; 7], first_weekday: u32) -> u32 {
    const EVERY_WEEK: u32 = 1 << 1 | 1 << 8 | 1 << 15 | 1 << 22 | 1 << 29;
    let mut days = 0;
    if weekdays != 0 || *nth != [0; 7] {
        for weekday in 0..7u32 {
            let first = (weekday + 7 - first_weekday) % 7;
            if weekdays >> weekday & 1 == 1 {
                days |= EVERY_WEEK << first;
            }
            for n in (1..=5).filter(|n| nth[weekday as usize] >> n & 1 == 1) {
                days |= 1u32.checked_shl(1 + first + 7 * (n - 1)).unwrap_or(0);
            }
        }
    }
    days
}

#[inline]
fn time(hour: u32, minute: u32, second: u32) -> i64 {
    i64::from(hour * 3600 + minute * 60 + second)
}

impl Ready {
    fn set_time(&mut self, hours: u32, minutes: u64, seconds: u64) {
        (self.sets.hours, self.sets.minutes, self.sets.seconds) = (hours, minutes, seconds);
        (self.first_minute, self.first_second) = (minutes.trailing_zeros(), seconds.trailing_zeros());
        self.first_time = time(hours.trailing_zeros(), self.first_minute, self.first_second);
    }

    /// The first time of day at or after `second` (of the day).
    #[inline]
    fn time_from(&self, second: u32) -> Option<i64> {
        let (h, m, s) = (second / 3600, second / 60 % 60, second % 60);
        if self.sets.hours >> h & 1 == 1 {
            if self.sets.minutes >> m & 1 == 1 {
                let seconds = self.sets.seconds >> s;
                if seconds != 0 {
                    return Some(time(h, m, s + seconds.trailing_zeros()));
                }
            }
            let minutes = self.sets.minutes >> (m + 1);
            if minutes != 0 {
                return Some(time(h, m + 1 + minutes.trailing_zeros(), self.first_second));
            }
        }
        let hours = self.sets.hours >> (h + 1);
        (hours != 0).then(|| time(h + 1 + hours.trailing_zeros(), self.first_minute, self.first_second))
    }

    /// Keeps the days that lie in one of the ISO weeks.
    fn in_weeks(&self, days: u32, year: i64, before: i64, first_weekday: u32) -> u32 {
        let mut left = days;
        let mut kept = 0;
        while left != 0 {
            let day = left.trailing_zeros();
            left &= left - 1;
            let weekday = (first_weekday + day - 1) % 7;
            if self.sets.weeks >> iso_week(year, before + i64::from(day), weekday) & 1 == 1 {
                kept |= 1 << day;
            }
        }
        kept
    }
}

fn last_of(weekdays: u8, first_weekday: u32, length: u32) -> u32 {
    if weekdays == 0 {
        return 0;
    }
    (length - 6..=length)
        .filter(|day| weekdays >> ((first_weekday + day - 1) % 7) & 1 == 1)
        .fold(0, |bits, day| bits | 1 << day)
}

/// For a common and a leap year, by month from 1: the days in it, and those before it.
const LENGTH: [[u8; 13]; 2] = [
    [0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31],
    [0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31],
];
const DAYS_BEFORE: [[u16; 13]; 2] = [
    [0, 0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334],
    [0, 0, 31, 60, 91, 121, 152, 182, 213, 244, 274, 305, 335],
];

#[inline]
pub(crate) fn leap(year: i64) -> bool {
    year & 3 == 0 && (year % 100 != 0 || year & 15 == 0)
}

#[inline]
pub(crate) fn month_length(year: i64, month: u32) -> u32 {
    LENGTH[usize::from(leap(year))][month as usize].into()
}

/// ISO 8601: week 1 is the one with the year's first Thursday. `day` counts from 1.
fn iso_week(year: i64, day: i64, weekday: u32) -> u32 {
    let week = (day - i64::from(weekday) + 9) / 7;
    // The weekday of 31 December tells whether a year has 53 weeks.
    let weeks = |year: i64| {
        let p = |y: i64| (y + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400)).rem_euclid(7);
        if p(year) == 4 || p(year - 1) == 3 { 53 } else { 52 }
    };
    match week {
        0 => weeks(year - 1),
        53 if weeks(year) == 52 => 1,
        week => week as u32,
    }
}

// Days and years are shifted by a whole number of 400-year eras, so that the arithmetic is on
// unsigned numbers, for which the compiler knows how to divide by a constant quickly.
const ERAS: i64 = 28;
const SHIFT_DAYS: i64 = ERAS * 146_097 + 719_468;
const SHIFT_YEARS: i64 = ERAS * 400;

/// Year, month and day of a day counted from 1970-01-01, for the years -11 000 to 20 000.
///
/// The way of Cassio Neri and Lorenz Schneider ("Euclidean affine functions and their application
/// to calendar algorithms"), with years that begin in March.
#[inline]
pub(crate) fn civil(day: i64) -> (i64, u32, u32) {
    let days = 4 * (day + SHIFT_DAYS) as u32 + 3;
    let (century, rest) = (days / 146_097, days % 146_097);
    let scaled = 2_939_745 * u64::from(rest | 3);
    let (year_of, day_of) = ((scaled >> 32) as u32, (scaled as u32) / 2_939_745 / 4);
    let month = 2_141 * day_of + 197_913;
    let (month, day) = (month >> 16, (month & 0xffff) / 2_141);
    let next = day_of >= 306;
    let year = i64::from(100 * century + year_of + u32::from(next)) - SHIFT_YEARS;
    (year, if next { month - 12 } else { month }, day + 1)
}

/// Days from 1970-01-01 to a date of the years -11 000 to 20 000.
#[inline]
pub(crate) fn day_number(year: i64, month: u32, day: u32) -> i64 {
    let early = u32::from(month <= 2);
    let year = (year + SHIFT_YEARS) as u32 - early;
    let month = month + 12 * early;
    let century = year / 100;
    let days = 1461 * year / 4 - century + century / 4 + (979 * month - 2919) / 32 + day - 1;
    i64::from(days) - SHIFT_DAYS
}

/// The day of a wall time of the years -11 000 to 20 000, and the second of the day.
#[inline]
fn day_and_second(wall: i64) -> (i64, u32) {
    const SECONDS: u64 = DAY as u64;
    let shifted = (wall + SHIFT_DAYS * DAY) as u64;
    ((shifted / SECONDS) as i64 - SHIFT_DAYS, (shifted % SECONDS) as u32)
}

/// Monday = 0. 1970-01-01 was a Thursday.
#[inline]
pub(crate) fn weekday(day: i64) -> u32 {
    const WEEKS: i64 = 7_000_000;
    ((day + WEEKS + 3) as u32) % 7
}

impl Pattern {
    pub(crate) fn new(collected: Collected, gap: Gap, fold: Fold) -> Pattern {
        Pattern {
            sets: collected.sets.ready(),
            years: collected.years.into(),
            hashed: collected.hashed.into(),
            gap,
            fold,
        }
    }

    /// Whether what it runs at depends on the task's id.
    pub(crate) fn is_hashed(&self) -> bool {
        !self.hashed.is_empty()
    }

    pub(crate) fn years(&self) -> &[YearRange] {
        &self.years
    }

    /// The sets with the `H` fields filled in for a task.
    pub(crate) fn resolved(&self, key: &str) -> Sets {
        let mut sets = self.sets.sets;
        for hashed in &self.hashed {
            let span = u64::from(hashed.to - hashed.from) + 1;
            let seed = jitter::hash(key, hashed.kind as u64 + 1);
            let (first, step) = match u64::from(hashed.step) {
                0 => (seed % span, span),
                step => (seed % step.min(span), step),
            };
            let mut value = first;
            while value < span {
                let bit = value + u64::from(hashed.from);
                match hashed.kind {
                    Kind::Second => sets.seconds |= 1 << bit,
                    Kind::Minute => sets.minutes |= 1 << bit,
                    Kind::Hour => sets.hours |= 1 << bit,
                    Kind::Day => sets.days |= 1 << bit,
                    Kind::Month => sets.months |= 1 << bit,
                    // From Sunday = 0 or 7 to Monday = 0.
                    Kind::DayOfWeek => sets.weekdays |= 1 << ((bit + 6) % 7),
                    Kind::Year | Kind::Week => {}
                }
                value += step;
            }
        }
        sets
    }

    /// Everything worked out for a task. `H` seldom stands in a day field, and the rest is quick.
    fn ready_for(&self, key: &str) -> Ready {
        let sets = self.resolved(key);
        if self.hashed.iter().any(|hashed| matches!(hashed.kind, Kind::Day | Kind::DayOfWeek | Kind::Month)) {
            return sets.ready();
        }
        let mut ready = self.sets;
        ready.set_time(sets.hours, sets.minutes, sets.seconds);
        ready
    }

    /// The first year at or after `year` the pattern allows.
    #[inline]
    fn year_from(&self, year: i64) -> Option<i64> {
        if self.years.is_empty() {
            return (year <= LAST_YEAR.into()).then_some(year);
        }
        let from = |range: &YearRange| {
            let (from, to, step) = (i64::from(range.from), i64::from(range.to), i64::from(range.step));
            let next = if year <= from { from } else { from + (year - from + step - 1) / step * step };
            (next <= to).then_some(next)
        };
        self.years.iter().filter_map(from).min()
    }

    /// The first matching day at or after `day`.
    #[inline]
    fn day_from(&self, sets: &Ready, day: i64) -> Option<i64> {
        if self.years.is_empty() {
            match sets.shape {
                Shape::EveryDay => return Some(day),
                Shape::Weekdays => {
                    let today = weekday(day);
                    let twice = u32::from(sets.sets.weekdays) * 0x81;
                    return Some(day + i64::from((twice >> today).trailing_zeros()));
                }
                Shape::Months => {}
            }
        }
        self.day_by_months(sets, day)
    }

    #[inline]
    fn day_by_months(&self, sets: &Ready, day: i64) -> Option<i64> {
        let (year, month, today) = civil(day);
        let mut at = self.year_from(year)?;
        let (mut months, mut keep) = (u32::from(sets.sets.months), u32::MAX);
        if at == year {
            // The months that are over are out, and of this one the days that are.
            months &= u32::MAX << month;
            keep = if months >> month & 1 == 1 { u32::MAX << today } else { u32::MAX };
        }
        for _ in 0..=CYCLE {
            if months != 0 && (!sets.leap_only || leap(at)) {
                let january = day_number(at, 1, 1);
                let leap = usize::from(leap(at));
                while months != 0 {
                    let month = months.trailing_zeros() as usize;
                    let first = january + i64::from(DAYS_BEFORE[leap][month]);
                    let first_weekday = weekday(first);
                    let mut days =
                        sets.days[LENGTH[leap][month] as usize - 28][first_weekday as usize] & keep;
                    if sets.sets.weeks != EVERY_WEEK {
                        days = sets.in_weeks(days, at, first - january, first_weekday);
                    }
                    if days != 0 {
                        return Some(first + i64::from(days.trailing_zeros()) - 1);
                    }
                    (months, keep) = (months & (months - 1), u32::MAX);
                }
            }
            at = self.year_from(at + 1)?;
            (months, keep) = (u32::from(sets.sets.months), u32::MAX);
        }
        None
    }

    /// The first matching wall time at or after `wall`.
    #[inline]
    fn wall_from(&self, sets: &Ready, wall: i64) -> Option<i64> {
        let (day, second) = day_and_second(wall);
        let found = match self.day_from(sets, day)? {
            same if same == day => match sets.time_from(second) {
                Some(time) => day * DAY + time,
                None => self.day_from(sets, day + 1)? * DAY + sets.first_time,
            },
            later => later * DAY + sets.first_time,
        };
        (found <= LAST_WALL).then_some(found)
    }

    /// The first matching wall time at or after `wall`, gaps and folds aside.
    pub(crate) fn wall(&self, wall: i64, key: &str) -> Option<i64> {
        match self.hashed.is_empty() {
            true => self.wall_from(&self.sets, wall),
            false => self.wall_from(&self.ready_for(key), wall),
        }
    }

    /// The first run at or after an instant, both in seconds.
    #[inline]
    pub(crate) fn next(&self, from: i64, zone: &Rules, key: &str) -> Option<i64> {
        // Years a pattern cannot mean; also keeps the arithmetic below from overflowing.
        if !(-LAST_WALL..=LAST_WALL + 2 * DAY).contains(&from) {
            return if from > 0 { None } else { self.next(-LAST_WALL, zone, key) };
        }
        if self.hashed.is_empty() {
            self.lay(&self.sets, from, zone)
        } else {
            self.lay(&self.ready_for(key), from, zone)
        }
    }

    #[inline]
    fn lay(&self, sets: &Ready, from: i64, zone: &Rules) -> Option<i64> {
        if let Some(offset) = zone.fixed() {
            // Clocks that are never changed have neither gaps nor folds.
            return Some(self.wall_from(sets, from + offset)? - offset);
        }
        match self.fold {
            Fold::First => self.lay_once(sets, from, zone, true),
            Fold::Second => self.lay_once(sets, from, zone, false),
            Fold::Both => self.lay_both(sets, from, zone),
        }
    }

    /// Where each wall time has one instant: real time never goes back while wall time goes on,
    /// so the answer is the first wall time whose instant is not before `from`.
    #[inline]
    fn lay_once(&self, sets: &Ready, from: i64, zone: &Rules, first: bool) -> Option<i64> {
        let k = zone.at(from);
        let segment = zone.segment(k);
        let mut wall = from + segment.offset;
        if first && segment.seen > segment.wall_start {
            // In a second pass: the first one has had its runs.
            wall = wall.max(segment.seen);
        } else if wall == segment.wall_start && self.gap == Gap::FireAfter && k > 0 {
            // At the very end of a gap the runs it swallowed still count.
            wall = wall.min(zone.segment(k - 1).wall_end);
        }
        if !first && let Some(after) = zone.get(k + 1) {
            // From here on wall times belong to the second pass.
            wall = wall.min(after.wall_start);
        }
        loop {
            let found = self.wall_from(sets, wall)?;
            if found >= segment.wall_start && found < segment.wall_end && first {
                return Some(found - segment.offset);
            }
            let j = if first { zone.first_at_wall(found) } else { zone.last_at_wall(found) };
            let there = zone.segment(j);
            if found >= there.wall_start {
                return Some(found - there.offset);
            }
            if self.gap == Gap::Skip {
                wall = there.wall_start;
            } else if zone.date_skipped(j, found) {
                wall = (found.div_euclid(DAY) + 1) * DAY;
            } else {
                return Some(there.wall_start - there.offset);
            }
        }
    }

    /// Where a repeated wall time has two instants: segment by segment.
    #[inline]
    fn lay_both(&self, sets: &Ready, from: i64, zone: &Rules) -> Option<i64> {
        let mut k = zone.at(from);
        let mut segment = zone.segment(k);
        let mut wall = from + segment.offset;
        if wall == segment.wall_start && self.gap == Gap::FireAfter && k > 0 {
            wall = wall.min(zone.segment(k - 1).wall_end);
        }
        loop {
            let found = self.wall_from(sets, wall)?;
            if found < segment.wall_end && found >= segment.wall_start {
                return Some(found - segment.offset);
            }
            if found >= segment.wall_end && zone.segment(k + 1).wall_start < wall {
                // The fold that follows reaches back behind the place the search began.
                k += 1;
                segment = zone.segment(k);
                wall = segment.wall_start;
                continue;
            }
            // Between `wall` and `found` is nothing, so the folds in between have nothing to repeat.
            k = zone.first_at_wall(found);
            segment = zone.segment(k);
            if found >= segment.wall_start {
                return Some(found - segment.offset);
            }
            if self.gap == Gap::FireAfter {
                if !zone.date_skipped(k, found) {
                    return Some(segment.wall_start - segment.offset);
                }
                wall = (found.div_euclid(DAY) + 1) * DAY;
            } else {
                wall = segment.wall_start;
            }
        }
    }
}

const _: () = assert!(FIRST_YEAR == 1970, "`*/n` as a year counts from 1970");
