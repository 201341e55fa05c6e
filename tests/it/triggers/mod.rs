//! When a trigger fires, exactly.

mod calendar;
mod clock_changes;
mod combined;
mod databases;
mod faces;
mod messages;
mod syntax;
mod tables;

use callboard::trigger::{Context, IntoTrigger, Rules, Trigger, Zones};
use chrono::{DateTime, Utc};
use chrono_tz::Tz;

/// Numbers that look random and are the same in every run (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.roll() % n
    }

    fn between(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low + 1) as u64) as i64
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize].clone()
    }
}

fn at(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).unwrap().with_timezone(&Utc)
}

fn seconds(at: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(at, 0).unwrap()
}

/// The rules of a zone, as they are compiled in.
fn rules(zone: Tz) -> &'static Rules {
    Zones::bundled().rules(zone).unwrap()
}

fn context(zone: Tz, anchor: DateTime<Utc>) -> Context<'static> {
    Context::new(zone, anchor, "task")
}

/// The first runs from `from` on, as text in the trigger's zone.
fn runs(trigger: impl IntoTrigger, zone: Tz, from: &str, count: usize) -> Vec<String> {
    let trigger = trigger.into_trigger().unwrap();
    let from = at(from);
    let cx = context(zone, from);
    let zone = trigger.zone(&cx);
    trigger.times(from, &cx).take(count).map(|run| cx.zones.time(run.unwrap(), zone).to_rfc3339()).collect()
}

fn parse(text: &str) -> Trigger {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}
