//! callboard beside saffron, cron and croner: the next run of the same patterns from the same
//! starts, in one process, turn by turn so that a busy machine hurts all alike. Prints
//! nanoseconds and ratios, as a table for the guide.
//!
//! ```text
//! cargo run --release --manifest-path benches/versus/Cargo.toml
//! ```

use std::hint::black_box;
use std::str::FromStr;
use std::time::{Duration, Instant};

use callboard::trigger::{Context, Trigger};
use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;

/// Name, crontab, the same for the `cron` crate (seconds first, 1 = Sunday) where it can say it,
/// the same for saffron where it can.
const PATTERNS: [(&str, &str, Option<&str>, Option<&str>); 8] = [
    ("every minute", "* * * * *", Some("0 * * * * *"), Some("* * * * *")),
    ("every 5 minutes", "*/5 * * * *", Some("0 */5 * * * *"), Some("*/5 * * * *")),
    ("daily", "0 0 * * *", Some("0 0 0 * * *"), Some("0 0 * * *")),
    ("weekdays 08:30", "30 8 * * 1-5", Some("0 30 8 * * 2-6"), Some("30 8 * * MON-FRI")),
    ("29 February", "0 0 29 2 *", Some("0 0 0 29 2 *"), Some("0 0 29 2 *")),
    ("yearly", "0 0 1 1 *", Some("0 0 0 1 1 *"), Some("0 0 1 1 *")),
    ("every 10 s", "*/10 * * * * *", Some("*/10 * * * * *"), None),
    ("last Friday", "0 22 * * 5L", None, Some("0 22 * * 6L")),
];

const ROUNDS: usize = 15;

/// Nanoseconds per call: the best of several rounds.
fn best(times: &mut Option<f64>, calls: usize, work: &mut dyn FnMut()) {
    let start = Instant::now();
    work();
    let each = start.elapsed().as_nanos() as f64 / calls as f64;
    *times = Some(times.map_or(each, |best| best.min(each)));
}

struct Row {
    name: &'static str,
    ours: Option<f64>,
    saffron: Option<f64>,
    cron: Option<f64>,
    croner: Option<f64>,
}

fn next(zone: Tz, starts: &[DateTime<Utc>]) -> Vec<Row> {
    let local: Vec<_> = starts.iter().map(|at| at.with_timezone(&zone)).collect();
    let mut rows = Vec::new();
    for (name, crontab, quartz, saffron) in PATTERNS {
        let ours: Trigger = crontab.parse().unwrap();
        let cx = Context::new(zone, starts[0], "task");
        let quartz = quartz.map(|line| cron::Schedule::from_str(line).unwrap());
        let croner = croner::parser::CronParser::builder()
            .seconds(croner::parser::Seconds::Optional)
            .build()
            .parse(crontab)
            .unwrap();
        // saffron knows UTC only.
        let saffron = saffron.filter(|_| zone == Tz::UTC).map(|line| line.parse::<saffron::Cron>().unwrap());
        let mut row = Row { name, ours: None, saffron: None, cron: None, croner: None };
        for _ in 0..ROUNDS {
            best(&mut row.ours, starts.len(), &mut || {
                for from in starts {
                    black_box(ours.after(black_box(*from), &cx)).unwrap();
                }
            });
            if let Some(saffron) = &saffron {
                best(&mut row.saffron, starts.len(), &mut || {
                    for from in starts {
                        black_box(saffron.next_after(black_box(*from)));
                    }
                });
            }
            if let Some(quartz) = &quartz {
                best(&mut row.cron, starts.len(), &mut || {
                    for from in &local {
                        black_box(quartz.after(black_box(from)).next());
                    }
                });
            }
            best(&mut row.croner, starts.len() / 16, &mut || {
                for from in local.iter().step_by(16) {
                    let _ = black_box(croner.find_next_occurrence(black_box(from), false));
                }
            });
        }
        rows.push(row);
    }
    rows
}

fn parse() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, crontab, quartz, saffron) in PATTERNS {
        let mut row = Row { name, ours: None, saffron: None, cron: None, croner: None };
        let parser = croner::parser::CronParser::builder().seconds(croner::parser::Seconds::Optional).build();
        for _ in 0..ROUNDS {
            best(&mut row.ours, 500, &mut || {
                for _ in 0..500 {
                    black_box(black_box(crontab).parse::<Trigger>()).unwrap();
                }
            });
            if let Some(line) = saffron {
                best(&mut row.saffron, 500, &mut || {
                    for _ in 0..500 {
                        let _ = black_box(black_box(line).parse::<saffron::Cron>());
                    }
                });
            }
            if let Some(line) = quartz {
                best(&mut row.cron, 500, &mut || {
                    for _ in 0..500 {
                        let _ = black_box(cron::Schedule::from_str(black_box(line)));
                    }
                });
            }
            best(&mut row.croner, 500, &mut || {
                for _ in 0..500 {
                    let _ = black_box(parser.parse(black_box(crontab)));
                }
            });
        }
        rows.push(row);
    }
    rows
}

fn table(title: &str, rows: &[Row]) {
    println!("\n{title}, ns a call (times ours)\n");
    println!("| pattern | callboard | saffron | cron | croner |");
    println!("|---|--:|--:|--:|--:|");
    let mut means = [(0.0, 0); 3];
    for row in rows {
        let ours = row.ours.unwrap_or(f64::NAN);
        let mut cells = String::new();
        for (index, other) in [row.saffron, row.cron, row.croner].into_iter().enumerate() {
            match other {
                Some(other) => {
                    means[index] = (means[index].0 + (other / ours).ln(), means[index].1 + 1);
                    cells += &format!(" {other:.0} ({:.1}×) |", other / ours);
                }
                None => cells += " – |",
            }
        }
        println!("| {} | {ours:.0} |{cells}", row.name);
    }
    let mean = |(sum, n): (f64, i32)| {
        if n > 0 { format!("{:.1}×", (sum / f64::from(n)).exp()) } else { "–".into() }
    };
    println!("| geometric mean | 1× | {} | {} | {} |", mean(means[0]), mean(means[1]), mean(means[2]));
}

fn main() {
    let first = DateTime::from_timestamp(1_767_225_600, 0).unwrap();
    let starts: Vec<DateTime<Utc>> = (0..1024).map(|n| first + TimeDelta::seconds(n * 92_821)).collect();
    let began = Instant::now();
    table("Next run in UTC", &next(Tz::UTC, &starts));
    table("Next run in America/New_York", &next(Tz::America__New_York, &starts));
    table("Parsing", &parse());
    eprintln!("\n{:.0?} in all", Duration::from_secs(began.elapsed().as_secs()));
}
