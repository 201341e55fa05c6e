//! Any text, to every parser of triggers: crontab, cron by fields, Quartz, the text form, JSON.
//!
//! What is taken must print to text that parses to the same trigger, and be searched without a
//! panic, forwards only. A hang is libFuzzer's business: run it with
//! `-timeout=10`.
//!
//! ```text
//! cargo +nightly fuzz run trigger -- -dict=fuzz/trigger.dict -timeout=10 -max_len=200 -max_total_time=600
//! ```

#![no_main]

use callboard::trigger::{Context, Cron, IntoTrigger, Quartz, Trigger};
use chrono::{DateTime, TimeDelta};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let quoted = format!("{{\"type\": \"crontab\", \"expression\": {text:?}}}");
    let taken = [
        text.parse::<Trigger>(),
        quoted.parse(),
        Quartz::parse(text).into_trigger(),
        Cron::builder().day(text).into_trigger(),
        Cron::builder().minute(text).day_of_week("mon-fri").into_trigger(),
    ];
    let zones = [
        chrono_tz::UTC,
        chrono_tz::Europe::Berlin,
        chrono_tz::Pacific::Apia,
        chrono_tz::Australia::Lord_Howe,
    ];
    let zone = zones[text.len() % zones.len()];
    let anchor =
        DateTime::from_timestamp(1_325_150_000 + 7_000_000 * text.len() as i64, 0).unwrap_or_default();
    let cx = Context::new(zone, anchor, "task");
    for trigger in taken.into_iter().flatten() {
        let again: Trigger = trigger.to_string().parse().expect("what was printed is read");
        assert_eq!(again, trigger);
        let mut from = anchor;
        for _ in 0..3 {
            let Ok(Some(run)) = trigger.next(from, &cx) else {
                break;
            };
            assert!(run >= from);
            assert!(trigger.due(run, &cx) >= run);
            let Some(later) = run.checked_add_signed(TimeDelta::seconds(1)) else {
                break;
            };
            from = later;
        }
        trigger.describe(&cx);
        trigger.warnings(&cx);
    }
});
