//! Every zone, every change of its clock between 1970 and 2037, random patterns: the runs around
//! the change are those of an oracle that walks real time minute by minute and knows only the
//! rule (`src/guide/time.md`), not the engine.

use std::collections::{BTreeSet, HashMap};

use callboard::trigger::{CalendarInterval, Crontab, Fold, Gap, IntoTrigger, Trigger};
use chrono::{Datelike, Timelike};
use chrono_tz::{TZ_VARIANTS, Tz};

use super::{Dice, context, rules, seconds};

const FIRST: i64 = 0;
const LAST: i64 = 2_145_916_800; // 2038-01-01
const HOUR: i64 = 3600;

fn offset(zone: Tz, at: i64) -> i64 {
    rules(zone).offset(seconds(at)).local_minus_utc().into()
}

/// The instants at which the offset of a zone changes.
fn changes(zone: Tz) -> Vec<i64> {
    let mut found = Vec::new();
    let (mut at, mut now) = (FIRST, offset(zone, FIRST));
    while at < LAST {
        let next = at + 6 * HOUR;
        if offset(zone, next) == now {
            at = next;
            continue;
        }
        let (mut low, mut high) = (at, next);
        while high - low > 1 {
            let middle = (low + high) / 2;
            if offset(zone, middle) == now { low = middle } else { high = middle }
        }
        found.push(high);
        (at, now) = (high, offset(zone, high));
    }
    found
}

/// A pattern as sets of numbers, with the text that says the same.
struct Wanted {
    text: String,
    seconds: BTreeSet<i64>,
    minutes: BTreeSet<i64>,
    hours: BTreeSet<i64>,
    days: Option<BTreeSet<i64>>,
    weekdays: Option<BTreeSet<i64>>,
    star: bool,
}

fn field(dice: &mut Dice, low: i64, high: i64, near: i64) -> (String, BTreeSet<i64>, bool) {
    let value = |dice: &mut Dice| {
        if dice.one_in(2) { (near + dice.between(-2, 2)).clamp(low, high) } else { dice.between(low, high) }
    };
    let every = |from: i64, to: i64, step: i64| (from..=to).step_by(step as usize).collect::<BTreeSet<_>>();
    match dice.below(8) {
        0 => ("*".into(), every(low, high, 1), true),
        1 => {
            let step = dice.between(2, 20);
            (format!("*/{step}"), every(low, high, step), true)
        }
        2 | 3 => {
            let n = value(dice);
            (n.to_string(), every(n, n, 1), false)
        }
        4 => {
            let (a, b) = (value(dice), value(dice));
            (format!("{a},{b}"), [a, b].into(), false)
        }
        5 => {
            let (a, b) = (value(dice), value(dice));
            let (a, b) = (a.min(b), a.max(b));
            (format!("{a}-{b}"), every(a, b, 1), false)
        }
        6 => {
            let (a, step) = (value(dice), dice.between(1, 10));
            (format!("{a}/{step}"), every(a, high, step), false)
        }
        _ => {
            let (a, step) = (value(dice), dice.between(5, 30));
            let mut all = every(low, high, step);
            all.insert(a);
            (format!("{a},*/{step}"), all, true)
        }
    }
}

fn wanted(dice: &mut Dice, wall: i64, with_seconds: bool) -> Wanted {
    let wall = seconds(wall);
    let (minute, minutes, a) = field(dice, 0, 59, wall.minute().into());
    let (hour, hours, b) = field(dice, 0, 23, wall.hour().into());
    let (second, seconds, c) =
        if with_seconds { field(dice, 0, 59, 0) } else { (String::new(), [0].into(), false) };
    let mut restrict = |low: i64, high: i64, near: i64| {
        dice.one_in(4).then(|| {
            let (a, b) = (near.clamp(low, high), dice.between(low, high));
            (format!("{a},{b}"), BTreeSet::from([a, b]))
        })
    };
    let day = restrict(1, 31, wall.day().into());
    let weekday = restrict(0, 6, wall.weekday().num_days_from_sunday().into());
    let star =
        |field: &Option<(String, BTreeSet<i64>)>| field.as_ref().map_or("*".into(), |(text, _)| text.clone());
    Wanted {
        text: format!("{second} {minute} {hour} {} * {}", star(&day), star(&weekday)),
        seconds,
        minutes,
        hours,
        days: day.map(|(_, days)| days),
        weekdays: weekday.map(|(_, days)| days),
        star: a || b || c,
    }
}

impl Wanted {
    fn matches(&self, wall: i64) -> bool {
        let wall = seconds(wall);
        let day = self.days.as_ref().map(|days| days.contains(&wall.day().into()));
        let weekday =
            self.weekdays.as_ref().map(|days| days.contains(&wall.weekday().num_days_from_sunday().into()));
        let date = match (day, weekday) {
            (Some(a), Some(b)) => a || b,
            (a, b) => a.unwrap_or(true) && b.unwrap_or(true),
        };
        date && self.hours.contains(&wall.hour().into())
            && self.minutes.contains(&wall.minute().into())
            && self.seconds.contains(&wall.second().into())
    }
}

/// Real time in steps, and what the clock shows at each: what the oracle knows.
struct Window {
    /// Instant and wall time, in real order.
    walk: Vec<(i64, i64)>,
    /// Wall time to the first and the last instant that shows it.
    shown: HashMap<i64, (i64, i64)>,
    /// Gaps: the instant of the change, the first wall time that is missing, the first after.
    gaps: Vec<(i64, i64, i64)>,
    from: i64,
    to: i64,
    step: i64,
}

fn window(zone: Tz, change: i64, reach: i64, step: i64) -> Window {
    let (from, to) = (change - reach, change + reach);
    let mut shown = HashMap::new();
    let mut gaps = Vec::new();
    // Some hours before the window are walked too, for passes of a fold that begin there.
    let lead = (from - 4 * HOUR - change).div_euclid(step) * step + change;
    let mut walk: Vec<(i64, i64)> = Vec::new();
    for at in (lead..=to).step_by(step as usize) {
        let wall = at + offset(zone, at);
        if let Some((_, before)) = walk.last()
            && wall > before + step
        {
            gaps.push((at, before + step, wall));
        }
        shown.entry(wall).and_modify(|seen: &mut (i64, i64)| seen.1 = at).or_insert((at, at));
        walk.push((at, wall));
    }
    Window { walk, shown, gaps, from, to, step }
}

impl Window {
    fn expect(&self, wanted: &Wanted, gap: Gap, fold: Fold) -> Vec<i64> {
        let mut runs = BTreeSet::new();
        for (at, wall) in &self.walk {
            let (first, last) = self.shown[wall];
            let counts = match fold {
                Fold::First => *at == first,
                Fold::Second => *at == last,
                Fold::Both => true,
            };
            if counts && wanted.matches(*wall) {
                runs.insert(*at);
            }
        }
        if gap == Gap::FireAfter {
            for (at, missing, back) in &self.gaps {
                let skipped = |wall: i64| {
                    let midnight = wall.div_euclid(86_400) * 86_400;
                    *missing <= midnight && midnight + 86_400 <= *back
                };
                if (*missing..*back)
                    .step_by(self.step as usize)
                    .any(|wall| !skipped(wall) && wanted.matches(wall))
                {
                    runs.insert(*at);
                }
            }
        }
        runs.into_iter().filter(|at| (self.from..=self.to).contains(at)).collect()
    }
}

/// All runs of the engine in the window, found one after the other.
fn chain(trigger: &Trigger, zone: Tz, window: &Window) -> Vec<i64> {
    let cx = context(zone, seconds(window.from));
    let mut found = Vec::new();
    let mut next = trigger.next(seconds(window.from), &cx).unwrap();
    while let Some(run) = next.filter(|run| run.timestamp() <= window.to) {
        assert!(
            found.last().is_none_or(|last| *last < run.timestamp()),
            "{trigger} does not move on in {zone}"
        );
        found.push(run.timestamp());
        next = trigger.after(run, &cx).unwrap();
    }
    found
}

fn compare(dice: &mut Dice, zone: Tz, trigger: &Trigger, window: &Window, expected: &[i64], what: &str) {
    let found = chain(trigger, zone, window);
    let show = |runs: &[i64]| {
        runs.iter().map(|at| seconds(*at).with_timezone(&zone).to_rfc3339()).collect::<Vec<_>>()
    };
    assert_eq!(show(&found), show(expected), "{trigger} {what} in {zone} from {}", seconds(window.from));
    // The same answer whichever way one gets to an instant.
    let cx = context(zone, seconds(window.from));
    for _ in 0..4 {
        let from = dice.between(window.from, window.to);
        let want = expected.iter().find(|at| **at >= from);
        let next = trigger
            .next(seconds(from), &cx)
            .unwrap()
            .map(|run| run.timestamp())
            .filter(|at| *at <= window.to);
        assert_eq!(next, want.copied(), "{trigger} {what} in {zone} asked at {}", seconds(from));
    }
}

fn try_zones(part: usize, parts: usize) {
    let mut tried = 0;
    let mut known = BTreeSet::new();
    for zone in
        TZ_VARIANTS.iter().copied().skip(part * TZ_VARIANTS.len() / parts).take(TZ_VARIANTS.len() / parts + 1)
    {
        let mut dice =
            Dice(zone.name().bytes().fold(7, |hash, byte| hash.wrapping_mul(31) ^ u64::from(byte)));
        let all = changes(zone);
        // Many zones are others under an older name, or share their recent past: what two have in
        // common is tried in full once, and here and there again.
        let history: Vec<(i64, i64)> = all.iter().map(|change| (*change, offset(zone, *change))).collect();
        let again = !known.insert(history);
        for change in all {
            if again && !dice.one_in(16) {
                continue;
            }
            let (before, after) = (offset(zone, change - 1), offset(zone, change));
            // Local mean times that end within a minute would need a walk by seconds.
            if before % 60 != 0 || after % 60 != 0 || change % 60 != 0 {
                continue;
            }
            let shift = (after - before).abs();
            let reach = if shift > 3 * HOUR { 40 * HOUR } else { 4 * HOUR };
            let minutes = window(zone, change, reach, 60);
            for _ in 0..2 {
                let near = change + before + dice_near(&mut dice, after - before);
                let wanted = wanted(&mut dice, near, false);
                let (gap, fold) =
                    if wanted.star { (Gap::Skip, Fold::Both) } else { (Gap::FireAfter, Fold::First) };
                let crontab = Crontab::builder(&wanted.text[1..]);
                let trigger = crontab.clone().into_trigger().unwrap();
                compare(
                    &mut dice,
                    zone,
                    &trigger,
                    &minutes,
                    &minutes.expect(&wanted, gap, fold),
                    "by its kind",
                );
                tried += 1;
                if dice.one_in(4) {
                    let gap = dice.pick(&[Gap::FireAfter, Gap::Skip]);
                    let fold = dice.pick(&[Fold::First, Fold::Second, Fold::Both]);
                    let trigger = crontab.gap(gap).fold(fold).into_trigger().unwrap();
                    compare(
                        &mut dice,
                        zone,
                        &trigger,
                        &minutes,
                        &minutes.expect(&wanted, gap, fold),
                        "by choice",
                    );
                }
            }
            if dice.one_in(4) {
                calendar(&mut dice, zone, &minutes, change + before);
            }
            if shift <= 2 * HOUR && dice.one_in(24) {
                let walk = window(zone, change, HOUR, 1);
                let wanted = wanted(&mut dice, change + before, true);
                let (gap, fold) =
                    if wanted.star { (Gap::Skip, Fold::Both) } else { (Gap::FireAfter, Fold::First) };
                let trigger = Crontab::parse(&wanted.text).into_trigger().unwrap();
                compare(&mut dice, zone, &trigger, &walk, &walk.expect(&wanted, gap, fold), "by seconds");
            }
        }
    }
    assert!(tried > 5_000, "only {tried} patterns were tried");
}

/// A place in or near the stretch that is missing or repeated.
fn dice_near(dice: &mut Dice, shift: i64) -> i64 {
    dice.between(shift.min(0) - 1800, shift.max(0) + 1800)
}

/// Every day at a time on the wall clock is the same as a crontab line of that time.
fn calendar(dice: &mut Dice, zone: Tz, window: &Window, wall: i64) {
    let time = seconds(wall + dice_near(dice, 3600));
    let wanted = Wanted {
        text: String::new(),
        seconds: [0].into(),
        minutes: [time.minute().into()].into(),
        hours: [time.hour().into()].into(),
        days: None,
        weekdays: None,
        star: false,
    };
    let start = seconds(window.from).date_naive() - chrono::Days::new(3);
    for (gap, fold) in
        [(Gap::FireAfter, Fold::First), (Gap::Skip, Fold::Both), (Gap::FireAfter, Fold::Second)]
    {
        let interval =
            CalendarInterval::builder().days(1).at(time.hour(), time.minute(), 0).start_date(start);
        let trigger = interval.gap(gap).fold(fold).into_trigger().unwrap();
        compare(dice, zone, &trigger, window, &window.expect(&wanted, gap, fold), "as a calendar interval");
    }
}

#[test]
fn every_zone_first_quarter() {
    try_zones(0, 4);
}

#[test]
fn every_zone_second_quarter() {
    try_zones(1, 4);
}

#[test]
fn every_zone_third_quarter() {
    try_zones(2, 4);
}

#[test]
fn every_zone_fourth_quarter() {
    try_zones(3, 4);
}
