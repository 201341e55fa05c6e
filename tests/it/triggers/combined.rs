//! And, or, except, custom: against brute force, and that every search ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use callboard::trigger::{
    And, Context, Custom, CustomTrigger, Except, Interval, IntoTrigger, Or, SearchErrorKind, Trigger,
    TriggerError,
};
use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use serde_json::{Value, json};

use super::{Dice, at, context, parse, runs, seconds};

const START: i64 = 1_792_800_000; // 2026-10-24, the day before Berlin's clock goes back

fn part(dice: &mut Dice) -> Trigger {
    match dice.below(4) {
        0 => Interval::minutes(dice.between(1, 50) as u64)
            .start_at(seconds(START + 60 * dice.between(0, 30)))
            .into_trigger()
            .unwrap(),
        1 => parse(&format!(
            "{},{} {}-{} * * *",
            dice.below(60),
            dice.below(60),
            dice.below(12),
            dice.between(12, 23)
        )),
        2 => parse(&format!("*/{} * * * *", dice.between(1, 30))),
        _ => parse(&format!("{} {}/{} * * *", dice.below(60), dice.below(24), dice.between(1, 12))),
    }
}

/// All runs of two days, by asking at each minute whether it is one.
fn brute(trigger: &Trigger, cx: &Context<'_>) -> Vec<i64> {
    let runs_at = |at: i64| trigger.next(seconds(at), cx).unwrap() == Some(seconds(at));
    (START..START + 172_800).step_by(60).filter(|at| runs_at(*at)).collect()
}

fn found(trigger: &Trigger, cx: &Context<'_>) -> Vec<i64> {
    let runs = trigger.times(seconds(START), cx);
    let runs = runs.map(|run| run.unwrap_or_else(|error| panic!("{trigger}: {error}")).timestamp());
    runs.take_while(|at| *at < START + 172_800).collect()
}

#[test]
fn combinations_are_what_set_arithmetic_says() {
    let mut dice = Dice(7);
    let cx = context(Tz::Europe__Berlin, seconds(START));
    for _ in 0..30 {
        let parts = [part(&mut dice), part(&mut dice), part(&mut dice)];
        let [a, b, c] = parts.each_ref().map(|part| brute(part, &cx));
        let any: Vec<i64> = {
            let mut all = [a.clone(), b.clone(), c.clone()].concat();
            all.sort_unstable();
            all.dedup();
            all
        };
        let [x, y, z] = parts.each_ref();
        let or = Or::of(x).or(y).or(z).into_trigger().unwrap();
        assert_eq!(found(&or, &cx), any, "{or}");
        let both: Vec<i64> = a.iter().copied().filter(|at| b.contains(at)).collect();
        let and = And::of(x).and(y).into_trigger().unwrap();
        assert_eq!(found(&and, &cx), both, "{and}");
        let without: Vec<i64> = a.iter().copied().filter(|at| !b.contains(at)).collect();
        let except = Except::of(x).trigger(y).into_trigger().unwrap();
        if !without.is_empty() {
            assert_eq!(found(&except, &cx), without, "{except}");
        }
        let nested = And::of(or.clone()).and(Except::of(z).trigger(x)).into_trigger().unwrap();
        let expected: Vec<i64> = c.iter().copied().filter(|at| !a.contains(at)).collect();
        if !expected.is_empty() {
            assert_eq!(found(&nested, &cx), expected, "{nested}");
        }
        // Within a tolerance: runs from which the other part has one soon enough.
        let tolerance = dice.between(1, 10) * 60;
        let near = |from: &[i64], to: &[i64]| -> Vec<i64> {
            from.iter()
                .copied()
                .filter(|at| to.iter().any(|other| (*at..=*at + tolerance).contains(other)))
                .collect()
        };
        let mut expected = [near(&a, &b), near(&b, &a)].concat();
        expected.sort_unstable();
        expected.dedup();
        expected.retain(|at| *at < START + 170_000);
        let and = And::of(x).and(y).tolerance(Duration::from_secs(tolerance as u64)).into_trigger().unwrap();
        let mut near = found(&and, &cx);
        near.retain(|at| *at < START + 170_000);
        assert_eq!(near, expected, "{and}");
    }
}

#[test]
fn parts_that_can_never_meet_are_found_out_soon() {
    let from = at("2026-01-01T00:00:00Z");
    let cx = context(Tz::Europe__Berlin, from);
    for text in [
        "and(cron minute=10; cron minute=40)",
        "and(*/2 * * * * *; 1/2 * * * * *)",
        "and(0 9 * * mon; 0 9 * * tue)",
        "and(0 9 * 1 *; 0 9 * 2 *)",
        "and(0 9 13 * *; 0 9 14 * *)",
        "and(* * 1-15 * *; * * 16-31 * *)",
        "and(* * */2 * *; * * 2-30/2 * *)",
        "and(every 6m from 2026-01-01; every 4m from 2026-01-01T00:01:00)",
        "and(every 7d from 2026-01-01; every 14d from 2026-01-03)",
        "and(every 1h from 2026-01-01; cron minute=30)",
        "and(cron minute=10 in Asia/Kolkata; cron minute=10 in UTC)",
        "and(cron minute=10; cron minute=40) within 5m",
        "and(cron minute=10 in Australia/Lord_Howe; cron minute=40 in Australia/Lord_Howe)",
        "and(cron hour=9 minute=10 in America/New_York; cron hour=14 minute=40 in Europe/Lisbon)",
        "and(calendar 1mo at 09:00 from 2026-01-15; 0 9 16 * *)",
        "and(calendar 1w at 09:00 from 2026-01-05; 0 9 * * 2)",
        "and(* * * * *; 0 0 30 2 *)",
        "or(and(cron minute=10; cron minute=40); and(cron second=1; cron second=2))",
        "and(and(cron minute=10; * * * * *); or(cron minute=40; cron minute=41))",
        "except(* * * * *; * * * * * *)",
        "except(0 9 * * *; * * * * *; 12-25)",
    ] {
        let began = Instant::now();
        assert_eq!(parse(text).next(from, &cx), Ok(None), "{text}");
        assert!(began.elapsed() < Duration::from_secs(4), "{text} took {:?}", began.elapsed());
    }
}

#[test]
fn rare_meetings_are_found() {
    let from = "2026-01-01T00:00:00Z";
    assert_eq!(runs("and(0 0 29 2 *; 0 0 * * mon)", Tz::UTC, from, 1), ["2044-02-29T00:00:00+00:00"]);
    assert_eq!(
        runs(
            "and(every 1h 1ns from 2026-01-01; every 1h from 2026-01-01)",
            Tz::UTC,
            "2026-01-01T00:00:01Z",
            1
        ),
        [""; 0]
    );
    assert_eq!(
        runs(
            "and(every 86401s from 2026-01-01; every 86400s from 2026-01-01)",
            Tz::UTC,
            "2026-01-01T00:00:01Z",
            1
        ),
        ["2262-07-24T00:00:00+00:00"]
    );
    // Both are moved to the end of the gap, and meet there.
    assert_eq!(
        runs("and(15 2 * * *; 45 2 * * *)", Tz::Europe__Berlin, from, 2),
        ["2026-03-29T03:00:00+02:00", "2027-03-28T03:00:00+02:00"]
    );
}

#[test]
fn a_search_at_its_limit_is_an_error_never_the_end() {
    let from = at("2026-01-01T00:00:00Z");
    let cx = context(Tz::UTC, from);
    // Everything is left out second by second for longer than the search may take.
    let text = "except(* * * * * *; * * * 1-30 * *; * * * 31 * *)";
    let began = Instant::now();
    let error = parse(text).next(from, &cx).unwrap_err();
    assert_eq!(error.kind, SearchErrorKind::Limit, "{error}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn except_leaves_out_dates_ranges_and_triggers() {
    let berlin = |text: &str, from: &str, count| runs(text, Tz::Europe__Berlin, from, count);
    assert_eq!(
        berlin("except(0 9 * * *; 12-25; 2026-12-26; 2026-12-28..2027-01-02)", "2026-12-24T12:00:00Z", 2),
        ["2026-12-27T09:00:00+01:00", "2027-01-03T09:00:00+01:00"]
    );
    assert_eq!(
        berlin("except(0 * * * *; 2026-10-25T01:00:00..2026-10-25T04:00:00)", "2026-10-24T22:00:00Z", 2),
        ["2026-10-25T00:00:00+02:00", "2026-10-25T05:00:00+01:00"]
    );
    assert_eq!(
        berlin("except(0 9 * * *; 0 9 * * mon-fri)", "2026-01-01T00:00:00Z", 2),
        ["2026-01-03T09:00:00+01:00", "2026-01-04T09:00:00+01:00"]
    );
    // A date whose last hour comes twice is left out whole.
    assert_eq!(
        runs("except(30 * * * *; 2018-02-17)", Tz::America__Sao_Paulo, "2018-02-17T01:00:00Z", 2),
        ["2018-02-16T23:30:00-02:00", "2018-02-18T00:30:00-03:00"]
    );
}

#[test]
fn shutdown_has_no_times_and_is_found_inside_others() {
    let from = at("2026-01-01T00:00:00Z");
    let cx = context(Tz::UTC, from);
    assert_eq!(Trigger::Shutdown.next(from, &cx), Ok(None));
    assert!(parse("or(@daily; shutdown)").on_shutdown());
    assert!(parse("or(@daily; shutdown)").next(from, &cx).unwrap().is_some());
    assert!(!parse("and(@daily; shutdown)").on_shutdown());
    assert!(!parse("@daily").on_shutdown());
}

/// Every `step` seconds of the Unix clock.
#[derive(Debug)]
struct Beat;

impl CustomTrigger for Beat {
    fn next(
        &self,
        params: &Value,
        from: DateTime<Utc>,
        _cx: &Context<'_>,
    ) -> Result<Option<DateTime<Utc>>, String> {
        let step = params["step"].as_i64().ok_or("no step")?;
        let from = from.timestamp() + i64::from(from.timestamp_subsec_nanos() > 0);
        Ok(DateTime::from_timestamp(from + (-from).rem_euclid(step), 0))
    }

    fn check(&self, params: &Value) -> Result<(), String> {
        params["step"].as_i64().filter(|step| *step > 0).map(|_| ()).ok_or("step has to be 1 or more".into())
    }

    fn describe(&self, params: &Value) -> Option<String> {
        Some(format!("every {} beats", params["step"]))
    }
}

#[derive(Debug)]
struct Backwards;

impl CustomTrigger for Backwards {
    fn next(&self, _: &Value, from: DateTime<Utc>, _: &Context<'_>) -> Result<Option<DateTime<Utc>>, String> {
        Ok(Some(from - TimeDelta::seconds(1)))
    }
}

fn lookup(name: &str) -> Option<Arc<dyn CustomTrigger>> {
    match name {
        "beat" => Some(Arc::new(Beat)),
        "backwards" => Some(Arc::new(Backwards)),
        _ => None,
    }
}

#[test]
fn custom_triggers_are_resolved_by_name_at_any_depth() {
    let from = at("2026-01-01T00:00:01Z");
    let cx = context(Tz::UTC, from);
    let stored =
        parse(r#"except(or(custom beat {"step": 60}; @yearly); and(custom beat {"step": 120}; * * * * *))"#);
    assert!(!stored.is_resolved());
    assert_eq!(stored.next(from, &cx).unwrap_err().kind, SearchErrorKind::Unresolved);
    let trigger = stored.resolve(&lookup).unwrap();
    assert!(trigger.is_resolved());
    assert_eq!(trigger, stored);
    assert_eq!(trigger.next(from, &cx).unwrap(), Some(at("2026-01-01T00:01:00Z")));
    assert_eq!(trigger.after(at("2026-01-01T00:01:00Z"), &cx).unwrap(), Some(at("2026-01-01T00:03:00Z")));

    let unknown = Custom::new("tides", json!({})).into_trigger().unwrap();
    assert_eq!(unknown.resolve(&lookup), Err(TriggerError::UnknownCustom { name: "tides".into() }));
    let wrong = Custom::new("beat", json!({"step": 0})).into_trigger().unwrap();
    assert_eq!(wrong.resolve(&lookup).unwrap_err().to_string(), "beat: step has to be 1 or more");
    let backwards = Custom::new("backwards", Value::Null).with(Arc::new(Backwards)).into_trigger().unwrap();
    assert_eq!(backwards.next(from, &cx).unwrap_err().kind, SearchErrorKind::Custom);
    let beat = Custom::new("beat", json!({"step": 5})).with(Arc::new(Beat)).into_trigger().unwrap();
    assert_eq!(beat.describe(&cx), "every 5 beats");
}

#[test]
fn intervals_never_drift() {
    let start = seconds(1_000_000_007);
    let cx = context(Tz::Europe__Berlin, start);
    let trigger = parse("every 7m 13s");
    let mut from = start;
    let mut dice = Dice(8);
    for _ in 0..100_000 {
        let run = trigger.next(from, &cx).unwrap().unwrap();
        assert_eq!((run - start).num_seconds() % 433, 0);
        assert!((run - from).num_seconds() < 433);
        // As late as may be.
        from = run + TimeDelta::milliseconds(dice.between(1, 10_000_000));
    }
    let fraction = parse("every 1s 250ms");
    let run = fraction.next(start + TimeDelta::milliseconds(1), &cx).unwrap().unwrap();
    assert_eq!(run - start, TimeDelta::milliseconds(1250));
}
