//! Wall time and real time: the one place that knows about gaps and folds.
//!
//! A *gap* is a stretch of wall time that does not occur because the clock goes forward, a *fold*
//! one that occurs twice because it goes back. The [`Rules`] of a zone are a list of [`Segment`]s,
//! stretches of time with one offset from UTC; between two of them lies a gap, a fold or nothing.
//!
//! What lies before [`NEAR`] is a table with an index over time: a look-up is an index into an array
//! and a step or two. A zone that goes on changing its clock after that has a longer table, up to the
//! year 9999, which is made at the first question that reaches so far.

use std::sync::OnceLock;

use chrono::{DateTime, FixedOffset, NaiveDateTime, Utc};
use serde::{Deserialize, Serialize};

use super::cron::search::LAST_WALL;

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

/// The changes of the clock of a zone in one year, for a year far ahead.
pub(crate) type Yearly = Box<dyn Fn(i64) -> [(i64, i64); 2] + Send + Sync>;

/// The rules of one zone: which offset from UTC its clocks have, for every instant up to the year
/// 9999. Immutable; handed out by [`Zones::rules`](super::Zones::rules).
///
/// ```
/// use callboard::trigger::Zones;
/// use chrono::{DateTime, Utc};
///
/// let rules = Zones::bundled().rules(chrono_tz::Africa::Casablanca).unwrap();
/// let at: DateTime<Utc> = "2026-11-29T00:00:00Z".parse().unwrap();
/// assert_eq!(rules.offset(at).to_string(), "+00:00");
/// ```
pub struct Rules {
    /// Those that begin before [`NEAR`]; the last one has its true end.
    segments: Box<[Segment]>,
    /// For each bucket of time, the segment at its start; empty where there is one segment.
    index: Box<[u16]>,
    /// The changes after [`NEAR`], where there are any.
    yearly: Option<Yearly>,
    /// All segments of a zone that goes on changing its clock.
    far: OnceLock<Box<[Segment]>>,
}

// No clock was set by law before 1840. Before the first change its offset holds.
const FIRST: i64 = -4_102_444_800; // 1840-01-01
/// Where the first table ends: 2101-01-01.
pub(crate) const NEAR: i64 = 4_133_980_800;
/// The first year that is not in it.
const NEAR_YEAR: i64 = 2101;
const BUCKET: u32 = 24;
/// Offsets lie within 26 hours of UTC, local mean times included.
pub(crate) const WIDEST: i64 = 26 * 3600;
// Far outside anything asked for, near enough that adding an offset cannot overflow.
const NEVER: i64 = i64::MAX / 4;

/// Appends changes of the clock to a list of segments.
struct Chain {
    segments: Vec<Segment>,
    offset: i64,
    wall_start: i64,
    seen: i64,
}

impl Chain {
    fn new(offset: i64) -> Self {
        Self { segments: Vec::new(), offset, wall_start: -NEVER, seen: -NEVER }
    }

    fn end(&self, end: i64, wall_end: i64) -> Segment {
        Segment { end, offset: self.offset, wall_start: self.wall_start, wall_end, seen: self.seen }
    }

    fn change(&mut self, at: i64, offset: i64) {
        if offset == self.offset {
            return;
        }
        let wall_end = at + self.offset;
        self.segments.push(self.end(at, wall_end));
        self.seen = self.seen.max(wall_end);
        (self.offset, self.wall_start) = (offset, at + offset);
    }

    fn finish(mut self) -> Box<[Segment]> {
        let last = self.end(NEVER, NEVER);
        self.segments.push(last);
        self.segments.into()
    }
}

impl Rules {
    /// The rules of a zone whose clocks begin with `offset` and are set to another one at each of
    /// `changes`, which are in order. After [`NEAR`] the changes of each year are those that `yearly`
    /// tells: two a year, in order, each to another offset than the one before.
    pub(crate) fn new(offset: i64, changes: &[(i64, i64)], yearly: Option<Yearly>) -> Rules {
        let mut chain = Chain::new(offset);
        changes.iter().for_each(|(at, offset)| chain.change(*at, *offset));
        let segments = match &yearly {
            Some(yearly) => {
                let [(at, offset), _] = yearly(NEAR_YEAR);
                chain.change(at, offset);
                chain.segments.into_boxed_slice()
            }
            None => chain.finish(),
        };
        let mut k = 0;
        let index = match (segments.len(), &yearly) {
            (1, None) => Vec::new(),
            _ => (0..=(NEAR - FIRST) >> BUCKET)
                .map(|bucket| {
                    while segments[k].end <= FIRST + (bucket << BUCKET) {
                        k += 1;
                    }
                    k as u16
                })
                .collect(),
        };
        Rules { segments, index: index.into(), yearly, far: OnceLock::new() }
    }

    /// All segments to the year 9999, the near ones first.
    #[cold]
    fn all(&self) -> &[Segment] {
        let Some(yearly) = &self.yearly else { return &self.segments };
        self.far.get_or_init(|| {
            let mut chain = Chain::new(self.segments[0].offset);
            chain.segments = self.segments.to_vec();
            let mut year = NEAR_YEAR;
            if let (Some(last), [(at, offset), (later, then)]) = (self.segments.last(), yearly(year)) {
                chain.seen = last.seen.max(last.wall_end);
                (chain.offset, chain.wall_start) = (offset, at + offset);
                chain.change(later, then);
            }
            while year <= 9999 {
                year += 1;
                yearly(year).into_iter().for_each(|(at, offset)| chain.change(at, offset));
            }
            chain.finish()
        })
    }

    /// The offset of clocks that are never changed.
    #[inline]
    pub(crate) fn fixed(&self) -> Option<i64> {
        match (&*self.index, &*self.segments) {
            ([], [only, ..]) => Some(only.offset),
            _ => None,
        }
    }

    /// The number of the segment in force at an instant.
    #[inline]
    pub(crate) fn at(&self, instant: i64) -> usize {
        if self.index.is_empty() {
            return 0;
        }
        let Some(bucket) = self.index.get(((instant - FIRST) >> BUCKET) as u64 as usize) else {
            return self.at_far(instant);
        };
        let mut k = usize::from(*bucket);
        while self.segment(k).end <= instant {
            k += 1;
        }
        k
    }

    /// The same, before and after what the index covers.
    #[cold]
    fn at_far(&self, instant: i64) -> usize {
        if instant < FIRST {
            return 0;
        }
        let all = self.all();
        all.partition_point(|segment| segment.end <= instant).min(all.len() - 1)
    }

    #[inline]
    pub(crate) fn segment(&self, k: usize) -> &Segment {
        match self.segments.get(k) {
            Some(segment) => segment,
            None => &self.all()[k],
        }
    }

    /// The segment, if the zone has so many.
    pub(crate) fn get(&self, k: usize) -> Option<&Segment> {
        self.segments.get(k).or_else(|| self.all().get(k))
    }

    /// The instants, after `from` and up to `until`, at which the clock changes.
    pub(crate) fn changes(&self, from: i64, until: i64) -> impl Iterator<Item = i64> {
        let ends = (self.at(from)..).map_while(|k| self.get(k)).map(|segment| segment.end);
        ends.take_while(move |end| *end <= until.min(LAST_WALL))
    }

    /// Wall time at an instant.
    pub(crate) fn wall(&self, instant: i64) -> i64 {
        instant + self.segment(self.at(instant)).offset
    }

    /// The first segment that ends after the wall time: it shows it, or begins after the gap that
    /// swallows it.
    #[inline]
    pub(crate) fn first_at_wall(&self, wall: i64) -> usize {
        let mut k = self.at(wall - WIDEST);
        while self.segment(k).wall_end <= wall {
            k += 1;
        }
        k
    }

    /// The last segment that begins at or before the wall time, or the one after the gap.
    pub(crate) fn last_at_wall(&self, wall: i64) -> usize {
        let mut k = self.at(wall + WIDEST);
        while self.segment(k).wall_start > wall {
            k -= 1;
        }
        // In a gap: the segment that begins at its end.
        if self.segment(k).wall_end <= wall { k + 1 } else { k }
    }

    /// Whether the whole civil date of a wall time inside the gap before segment `k` lies in it.
    pub(crate) fn date_skipped(&self, k: usize, wall: i64) -> bool {
        let midnight = wall.div_euclid(DAY) * DAY;
        k > 0 && self.segment(k - 1).wall_end <= midnight && midnight + DAY <= self.segment(k).wall_start
    }

    /// When the clock shows `wall`: none, one or two instants, by the given rules.
    pub(crate) fn instants(&self, wall: i64, gap: Gap, fold: Fold) -> [Option<i64>; 2] {
        let first = self.first_at_wall(wall);
        let start = self.segment(first).wall_start;
        if wall < start {
            let kept = gap == Gap::FireAfter && !self.date_skipped(first, wall);
            return [kept.then(|| start - self.segment(first).offset), None];
        }
        let last = self.last_at_wall(wall);
        let (a, b) = (wall - self.segment(first).offset, wall - self.segment(last).offset);
        match fold {
            Fold::First => [Some(a), None],
            Fold::Second => [Some(b), None],
            Fold::Both => [Some(a), (a != b).then_some(b)],
        }
    }

    /// The instant at which the clock shows a wall time: inside a fold the first pass, inside a gap
    /// its end.
    pub fn instant(&self, wall: NaiveDateTime) -> DateTime<Utc> {
        let wall = wall.and_utc();
        let seconds = wall.timestamp();
        let segment = self.segment(self.first_at_wall(seconds));
        let at = seconds.max(segment.wall_start) - segment.offset;
        DateTime::from_timestamp(at, wall.timestamp_subsec_nanos()).unwrap_or(wall)
    }

    /// Whether the clock shows a wall time twice.
    pub(crate) fn is_repeated(&self, wall: NaiveDateTime) -> bool {
        let wall = wall.and_utc().timestamp();
        matches!(self.instants(wall, Gap::Skip, Fold::Both), [Some(_), Some(_)])
    }

    /// The offset from UTC at an instant: positive to the east.
    pub fn offset(&self, at: DateTime<Utc>) -> FixedOffset {
        let seconds = self.segment(self.at(at.timestamp())).offset;
        let offset = i32::try_from(seconds).ok().and_then(FixedOffset::east_opt);
        // A table holds no offset of more than a day.
        offset.unwrap_or_else(|| chrono::Offset::fix(&Utc))
    }

    /// What the clock shows at an instant.
    pub fn local(&self, at: DateTime<Utc>) -> NaiveDateTime {
        at.naive_utc().checked_add_offset(self.offset(at)).unwrap_or(at.naive_utc())
    }

    /// A number that differs where the clocks differ at any time since 1970: for instance between the
    /// rules of two databases. The same from one run of a program to the next.
    pub fn digest(&self) -> u64 {
        let mut digest = 0xcbf2_9ce4_8422_2325_u64;
        for segment in self.segments.iter().filter(|segment| segment.end > 0) {
            for byte in [segment.offset, segment.end].into_iter().flat_map(i64::to_le_bytes) {
                digest = (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
        digest
    }

    /// How much memory it takes, in bytes.
    pub(crate) fn memory(&self) -> usize {
        let segments = self.segments.len() + self.far.get().map_or(0, |far| far.len());
        size_of::<Self>() + segments * size_of::<Segment>() + self.index.len() * size_of::<u16>()
    }
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rules").field("digest", &self.digest()).finish_non_exhaustive()
    }
}

/// Whole seconds since 1970, a fraction rounded up: the search works in whole seconds.
#[inline]
pub(crate) fn ceil_seconds(at: DateTime<Utc>) -> i64 {
    at.timestamp() + i64::from(at.timestamp_subsec_nanos() > 0)
}
