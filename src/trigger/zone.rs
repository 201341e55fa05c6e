//! Wall time and real time: the one place that knows about gaps and folds.
//!
//! A *gap* is a stretch of wall time that does not occur because the clock goes forward, a *fold*
//! one that occurs twice because it goes back. Each zone is a list of [`Segment`]s, stretches of
//! time with one offset from UTC; between two of them lies a gap, a fold or nothing.
//!
//! The segments come from `chrono-tz` by asking it for offsets, once for each zone that is used:
//! after that a look-up is an index into an array and a step or two, instead of a binary search.

use std::sync::OnceLock;

use chrono::{DateTime, Offset, TimeZone, Utc};
use chrono_tz::{TZ_VARIANTS, Tz};
use serde::{Deserialize, Serialize};

pub(crate) const DAY: i64 = 86_400;

/// What becomes of a run whose wall time falls into a gap.
///
/// The default depends on the pattern: [`Gap::FireAfter`] for fixed times, [`Gap::Skip`] for
/// patterns that follow real time because they have a `*` in their time fields.
///
/// A civil date that the zone skipped altogether (Pacific/Apia had no 30 December 2011) has no
/// runs in either case: nobody lived it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gap {
    /// All runs inside the gap become one, at the first instant after it.
    FireAfter,
    /// Runs inside the gap do not happen.
    Skip,
}

/// Which of the two occurrences of a repeated wall time counts.
///
/// The default depends on the pattern: [`Fold::First`] for fixed times, [`Fold::Both`] for
/// patterns that follow real time because they have a `*` in their time fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fold {
    /// The first pass, before the clock goes back.
    First,
    /// The second pass, after the clock went back.
    Second,
    /// Both, in the order in which they happen.
    Both,
}

/// A stretch of time with one offset. Seconds since 1970, as everywhere in this module; wall
/// seconds count as if the wall clock showed UTC.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment {
    /// First instant after the segment.
    pub(crate) end: i64,
    /// Wall time minus UTC.
    pub(crate) offset: i64,
    /// What the clock shows at the first instant.
    pub(crate) wall_start: i64,
    /// What the clock would show at `end` had it not been changed.
    pub(crate) wall_end: i64,
    /// The latest wall time that any earlier segment came to. Later than `wall_start`: a fold.
    pub(crate) seen: i64,
}

/// All segments of a zone, with an index over time.
#[derive(Debug)]
pub(crate) struct Zone {
    segments: Box<[Segment]>,
    /// For each bucket of time, the segment at its start.
    index: Box<[u16]>,
}

// chrono-tz has transitions between 1844 and 2099; before and after, the first and the last
// offset of a zone hold.
const FIRST: i64 = -4_102_444_800; // 1840-01-01
const LAST: i64 = 4_133_980_800; // 2101-01-01
const PROBE: i64 = DAY;
const BUCKET: u32 = 24;
// Offsets lie within 16 hours of UTC, local mean times included.
const WIDEST: i64 = 16 * 3600;
// Far outside anything asked for, near enough that adding an offset cannot overflow.
const NEVER: i64 = i64::MAX / 4;

static ZONES: [OnceLock<Zone>; TZ_VARIANTS.len()] = [const { OnceLock::new() }; TZ_VARIANTS.len()];

impl Zone {
    /// The table of `tz`, built at the first call.
    pub(crate) fn of(tz: Tz) -> &'static Zone {
        ZONES[tz as usize].get_or_init(|| Zone::probe(tz))
    }

    fn probe(tz: Tz) -> Zone {
        let offset = |at: i64| -> i64 {
            let at = DateTime::from_timestamp(at, 0).unwrap_or_default();
            tz.offset_from_utc_datetime(&at.naive_utc()).fix().local_minus_utc().into()
        };
        let mut segments = Vec::new();
        let (mut at, mut current) = (FIRST, offset(FIRST));
        let mut wall_start = -NEVER;
        let mut seen = -NEVER;
        while at < LAST {
            let next = at + PROBE;
            if offset(next) == current {
                at = next;
                continue;
            }
            // Somewhere in (at, next] the offset leaves `current`: halve until it is one second.
            let (mut before, mut after) = (at, next);
            while after - before > 1 {
                let middle = before + (after - before) / 2;
                if offset(middle) == current { before = middle } else { after = middle }
            }
            segments.push(Segment {
                end: after,
                offset: current,
                wall_start,
                wall_end: after + current,
                seen,
            });
            seen = seen.max(after + current);
            (at, current) = (after, offset(after));
            wall_start = after + current;
        }
        segments.push(Segment { end: NEVER, offset: current, wall_start, wall_end: NEVER, seen });
        let mut k = 0;
        let index = match segments.len() {
            1 => Vec::new(),
            _ => (0..=(LAST - FIRST) >> BUCKET)
                .map(|bucket| {
                    while segments[k].end <= FIRST + (bucket << BUCKET) {
                        k += 1;
                    }
                    k as u16
                })
                .collect(),
        };
        Zone { segments: segments.into(), index: index.into() }
    }

    /// The number of the segment in force at an instant.
    #[inline]
    pub(crate) fn at(&self, instant: i64) -> usize {
        if self.segments.len() == 1 {
            return 0;
        }
        let bucket = ((instant - FIRST) >> BUCKET).clamp(0, self.index.len() as i64 - 1);
        let mut k = self.index[bucket as usize] as usize;
        while self.segments[k].end <= instant {
            k += 1;
        }
        k
    }

    #[inline]
    pub(crate) fn segment(&self, k: usize) -> &Segment {
        &self.segments[k]
    }

    /// The segments, in order.
    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Wall time at an instant.
    pub(crate) fn wall(&self, instant: i64) -> i64 {
        instant + self.segments[self.at(instant)].offset
    }

    /// The first segment that ends after the wall time: it shows it, or begins after the gap that
    /// swallows it.
    #[inline]
    pub(crate) fn first_at_wall(&self, wall: i64) -> usize {
        let mut k = self.at(wall - WIDEST);
        while self.segments[k].wall_end <= wall {
            k += 1;
        }
        k
    }

    /// The last segment that begins at or before the wall time, or the one after the gap.
    pub(crate) fn last_at_wall(&self, wall: i64) -> usize {
        let mut k = self.at(wall + WIDEST);
        while self.segments[k].wall_start > wall {
            k -= 1;
        }
        // In a gap: the segment that begins at its end.
        if self.segments[k].wall_end <= wall { k + 1 } else { k }
    }

    /// Whether the whole civil date of a wall time inside the gap before segment `k` lies in it.
    pub(crate) fn date_skipped(&self, k: usize, wall: i64) -> bool {
        let midnight = wall.div_euclid(DAY) * DAY;
        k > 0 && self.segments[k - 1].wall_end <= midnight && midnight + DAY <= self.segments[k].wall_start
    }

    /// When the clock shows `wall`: none, one or two instants, by the given rules.
    pub(crate) fn instants(&self, wall: i64, gap: Gap, fold: Fold) -> [Option<i64>; 2] {
        let first = self.first_at_wall(wall);
        let start = self.segments[first].wall_start;
        if wall < start {
            let kept = gap == Gap::FireAfter && !self.date_skipped(first, wall);
            return [kept.then(|| start - self.segments[first].offset), None];
        }
        let last = self.last_at_wall(wall);
        let (a, b) = (wall - self.segments[first].offset, wall - self.segments[last].offset);
        match fold {
            Fold::First => [Some(a), None],
            Fold::Second => [Some(b), None],
            Fold::Both => [Some(a), (a != b).then_some(b)],
        }
    }

    /// The instant a naive time stands for: inside a fold the first pass, inside a gap its end.
    pub(crate) fn instant(&self, wall: i64) -> i64 {
        let segment = &self.segments[self.first_at_wall(wall)];
        wall.max(segment.wall_start) - segment.offset
    }
}

/// Whole seconds since 1970, a fraction rounded up: the search works in whole seconds.
#[inline]
pub(crate) fn ceil_seconds(at: DateTime<Utc>) -> i64 {
    at.timestamp() + i64::from(at.timestamp_subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Probing day by day would miss an offset that came and went between two probes; none does.
    #[test]
    fn tables_say_what_chrono_tz_says() {
        // A step that shares no factor with a day, so that all hours are met.
        const STEP: usize = 360_007;
        for tz in TZ_VARIANTS {
            let zone = Zone::of(tz);
            for at in (FIRST..LAST + 1000 * DAY).step_by(STEP) {
                let naive = DateTime::from_timestamp(at, 0).unwrap_or_default().naive_utc();
                let offset = i64::from(tz.offset_from_utc_datetime(&naive).fix().local_minus_utc());
                assert_eq!(zone.wall(at), at + offset, "{tz} at {naive}");
            }
            for segment in zone.segments() {
                assert!(segment.offset.abs() < WIDEST, "{tz}");
            }
        }
    }
}
