//! The worked examples of the guide: `0 9 * * *` at Vancouver, planned for 17:00Z, and a law that comes early, late
//! and too late.

use callboard::task::{MisfireGrace, Outcome};
use callboard::trigger::{Moment, Trigger};

use super::*;

const DAY: &str = "2026-11-02";

fn on(day: &str, hour: &str) -> DateTime<Utc> {
    utc(&format!("{day}T{hour}:00Z"))
}

/// Begins early on the day, by one law, and lives until another one comes.
async fn until(arrives: &str, first: &str) -> (Database, VirtualClock, Ran, Handle, EventStream) {
    let (database, ran) = (Database::new(), Ran::default());
    database.put("2026a", first);
    let time = VirtualClock::new(on(DAY, "12:00"));
    let (scheduler, mut events) = vancouver(&database, &time, &ran, None).await;
    scheduler.add(task("nine", "0 9 * * *")).await.unwrap();
    let grace = task("in time", "0 9 * * *").misfire_grace(MisfireGrace::Within(secs(600)));
    scheduler.add(grace).await.unwrap();
    scheduler.add(task("once", "once at 2026-12-24T09:00:00")).await.unwrap();
    time.advance_to(on(DAY, arrives)).await;
    heard(&mut events);
    (database, time, ran, scheduler, events)
}

/// The task, and its run time before and after.
fn moves(told: &[Event]) -> Vec<(&str, DateTime<Utc>, DateTime<Utc>)> {
    let moves = told.iter().filter_map(|event| match event {
        Event::TaskMoved { id, from, to, .. } => Some((id.as_str(), *from, to.unwrap())),
        _ => None,
    });
    let mut moves: Vec<_> = moves.collect();
    moves.sort();
    moves
}

const NEXT_DAY: &str = "2026-11-03";
const ONCE: (&str, &str, &str) = ("once", "2026-12-24T17:00:00Z", "2026-12-24T16:00:00Z");

#[actix::test]
async fn rules_that_arrive_in_time_move_the_next_run() {
    let (database, time, ran, scheduler, mut events) = until("15:30", "America/Los_Angeles").await;
    database.put("2026f", "America/Vancouver");
    scheduler.reload_timezones().await.unwrap();
    time.settle().await;
    let told = heard(&mut events);
    let (from, to) = (on(DAY, "17:00"), on(DAY, "16:00"));
    assert_eq!(moves(&told), [("in time", from, to), ("nine", from, to), (ONCE.0, utc(ONCE.1), utc(ONCE.2))]);
    // What a person wrote is what is kept, and shown by the rules in force.
    let once = scheduler.task("once").await.unwrap();
    let Trigger::Date(date) = &once.spec.trigger else { panic!("{:?}", once.spec.trigger) };
    assert_eq!(date.run_at(), Some(Moment::Naive("2026-12-24T09:00:00".parse().unwrap())));
    assert_eq!(scheduler.preview("once", 1).await.unwrap()[0].to_rfc3339(), "2026-12-24T09:00:00-07:00");
    time.advance_to(on(NEXT_DAY, "18:00")).await;
    for id in ["nine", "in time"] {
        assert_eq!(ran.of(id), [on(DAY, "16:00"), on(NEXT_DAY, "16:00")], "{id}");
    }
}

#[actix::test]
async fn a_time_that_has_passed_by_the_new_rules_is_late() {
    let (database, time, ran, scheduler, mut events) = until("16:30", "America/Los_Angeles").await;
    database.put("2026f", "America/Vancouver");
    scheduler.reload_timezones().await.unwrap();
    time.settle().await;
    let told = heard(&mut events);
    let (from, to) = (on(DAY, "17:00"), on(DAY, "16:00"));
    assert_eq!(moves(&told), [("in time", from, to), ("nine", from, to), (ONCE.0, utc(ONCE.1), utc(ONCE.2))]);
    // At once, or not at all.
    let record = &scheduler.history("nine", 1).await.unwrap()[0];
    assert_eq!((record.nominal, record.submitted_at), (on(DAY, "16:00"), on(DAY, "16:30")));
    let missed = told.iter().filter_map(|event| match event {
        Event::TaskMissed(report) => Some((report.task_id().as_str(), report.run.nominal)),
        _ => None,
    });
    assert_eq!(missed.collect::<Vec<_>>(), [("in time", on(DAY, "16:00"))]);
    time.advance_to(on(NEXT_DAY, "18:00")).await;
    assert_eq!(ran.of("nine"), [on(DAY, "16:00"), on(NEXT_DAY, "16:00")]);
    assert_eq!(ran.of("in time"), [on(NEXT_DAY, "16:00")]);
    let day = scheduler.why("in time", on(DAY, "00:00"), on(NEXT_DAY, "00:00")).await.unwrap();
    assert_eq!(day.times.len(), 1, "{day:#?}");
    assert!(matches!(day.times[0].fate, Fate::Missed), "{day:#?}");
}

#[actix::test]
async fn a_time_that_has_run_by_the_former_rules_does_not_run_again() {
    let (database, time, ran, scheduler, mut events) = until("17:30", "America/Los_Angeles").await;
    database.put("2026f", "America/Vancouver");
    scheduler.reload_timezones().await.unwrap();
    time.settle().await;
    let told = heard(&mut events);
    let (from, to) = (on(NEXT_DAY, "17:00"), on(NEXT_DAY, "16:00"));
    assert_eq!(moves(&told), [("in time", from, to), ("nine", from, to), (ONCE.0, utc(ONCE.1), utc(ONCE.2))]);
    time.advance_to(on(NEXT_DAY, "18:00")).await;
    for id in ["nine", "in time"] {
        assert_eq!(ran.of(id), [on(DAY, "17:00"), on(NEXT_DAY, "16:00")], "{id}");
    }
    // The hour at which it ran is the one that its clock showed.
    let records = scheduler.history("nine", 2).await.unwrap();
    let shown =
        records.iter().map(|record| (record.nominal, record.offset, record.end.clone().unwrap().outcome));
    let executed = || Outcome::Executed { value: serde_json::Value::Null };
    let expected = [
        (on(NEXT_DAY, "16:00"), Some(-7 * 3600), executed()),
        (on(DAY, "17:00"), Some(-8 * 3600), executed()),
    ];
    assert_eq!(shown.collect::<Vec<_>>(), expected);
    let day = scheduler.why("nine", on(DAY, "00:00"), on(NEXT_DAY, "00:00")).await.unwrap();
    let times: Vec<_> = day.times.iter().map(|time| (time.nominal, time.fate)).collect();
    assert_eq!(times, [(on(DAY, "17:00"), Fate::Executed)], "{day:#?}");
}

#[actix::test]
async fn nor_does_it_when_the_law_goes_back() {
    let (database, time, ran, scheduler, mut events) = until("16:30", "America/Vancouver").await;
    database.put("2026g", "America/Los_Angeles");
    scheduler.reload_timezones().await.unwrap();
    time.settle().await;
    let told = heard(&mut events);
    let (from, to) = (on(NEXT_DAY, "16:00"), on(NEXT_DAY, "17:00"));
    assert_eq!(moves(&told), [("in time", from, to), ("nine", from, to), (ONCE.0, utc(ONCE.2), utc(ONCE.1))]);
    time.advance_to(on(NEXT_DAY, "18:00")).await;
    for id in ["nine", "in time"] {
        assert_eq!(ran.of(id), [on(DAY, "16:00"), on(NEXT_DAY, "17:00")], "{id}");
    }
}

/// An interval is read on the clock until it has begun.
#[actix::test]
async fn an_interval_begins_at_its_wall_time_and_goes_on_in_elapsed_time() {
    let (database, time, ran, scheduler, mut events) = until("15:30", "America/Los_Angeles").await;
    scheduler.add(task("begins", "every 18h from 2026-11-02T09:00:00")).await.unwrap();
    scheduler.add(task("has begun", "every 18h from 2026-11-02T05:00:00")).await.unwrap();
    let next = async |id: &str| scheduler.task(id).await.unwrap().next_run_time().unwrap();
    assert_eq!((next("begins").await, next("has begun").await), (on(DAY, "17:00"), on(NEXT_DAY, "07:00")));
    database.put("2026f", "America/Vancouver");
    scheduler.reload_timezones().await.unwrap();
    time.settle().await;
    let told = heard(&mut events);
    assert!(moves(&told).contains(&("begins", on(DAY, "17:00"), on(DAY, "16:00"))), "{told:#?}");
    assert!(moves(&told).iter().all(|(id, ..)| *id != "has begun"), "{told:#?}");
    time.advance_to(on(NEXT_DAY, "18:00")).await;
    assert_eq!(ran.of("begins"), [on(DAY, "16:00"), on(NEXT_DAY, "10:00")]);
    assert_eq!(ran.of("has begun"), [on(NEXT_DAY, "07:00")]);
}
