//! How long it takes to find the next run, and to parse a pattern.

use std::hint::black_box;

use callboard::trigger::{Context, Trigger};
use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const PATTERNS: [(&str, &str); 8] = [
    ("every minute", "* * * * *"),
    ("every 5 minutes", "*/5 * * * *"),
    ("daily", "0 0 * * *"),
    ("weekdays 08:30", "30 8 * * 1-5"),
    ("29 February", "0 0 29 2 *"),
    ("yearly", "0 0 1 1 *"),
    ("every 10 s", "*/10 * * * * *"),
    ("last Friday", "0 22 * * 5L"),
];

/// Searches start all over three years, so that no branch is learnt by heart.
fn starts() -> Vec<DateTime<Utc>> {
    let first = DateTime::from_timestamp(1_767_225_600, 0).unwrap_or_default();
    (0..1024).map(|n| first + TimeDelta::seconds(n * 92_821)).collect()
}

fn next_fire(c: &mut Criterion) {
    let starts = starts();
    for zone in [Tz::UTC, Tz::America__New_York] {
        let mut group = c.benchmark_group(format!("next/{zone}"));
        group.throughput(Throughput::Elements(starts.len() as u64));
        for (name, pattern) in PATTERNS {
            let Ok(trigger) = pattern.parse::<Trigger>() else {
                continue;
            };
            let cx = Context::new(zone, starts[0], "task");
            group.bench_function(name, |b| {
                b.iter(|| {
                    for from in &starts {
                        let _ = black_box(trigger.next(black_box(*from), &cx));
                    }
                });
            });
        }
        group.finish();
    }
    let mut group = c.benchmark_group("parse");
    for (name, pattern) in PATTERNS {
        group.bench_function(name, |b| b.iter(|| black_box(pattern).parse::<Trigger>()));
    }
    group.finish();
}

criterion_group!(benches, next_fire);
criterion_main!(benches);
