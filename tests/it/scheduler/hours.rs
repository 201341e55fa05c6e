//! Every time that is handed out has the hour of the rules in force: each is formatted, for a zone whose
//! law is another one than in the table compiled into `chrono-tz`.

use callboard::scheduler::message::Why;
use callboard::trigger::{Context, Custom, CustomTrigger, IntoTrigger, ZonedTime};
use chrono::{DateTime, FixedOffset, TimeDelta};
use chrono_tz::America::Vancouver;
use serde_json::{Value, json};

use super::*;

/// Eight hours before nine o'clock in Vancouver, on a day on which the table of 2025 has another offset.
const NIGHT: &str = "2026-12-01T08:00:00Z";
const NINE: &str = "2026-12-01T09:00:00-07:00";

/// At nine by the clock that it is told, and notes what that clock shows.
#[derive(Debug, Clone, Default)]
struct AtNine(Arc<Mutex<Vec<String>>>);

impl CustomTrigger for AtNine {
    fn next(
        &self,
        _: &Value,
        from: DateTime<Utc>,
        cx: &Context<'_>,
    ) -> Result<Option<DateTime<Utc>>, String> {
        self.0.lock().unwrap().push(cx.time(from).to_string());
        let rules = cx.zones.rules(cx.zone).ok_or("no such zone")?;
        let nine =
            |from: DateTime<Utc>| rules.instant(rules.local(from).date().and_hms_opt(9, 0, 0).unwrap());
        let today = nine(from);
        Ok(Some(if today < from { nine(from + TimeDelta::days(1)) } else { today }))
    }
}

#[actix::test]
async fn every_time_that_is_handed_out_has_the_hour_of_the_law() {
    let time = VirtualClock::starting_at(NIGHT);
    let ran = Ran::default();
    let told = AtNine::default();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let note = seen.clone();
    let registry = ran.registry().register_trigger("nine", told.clone()).register(
        "tell",
        move |run: TaskContext, _: Value| {
            note.lock().unwrap().push((run.nominal(), format!("{} {}", run.nominal(), run.local_time())));
            async {}
        },
    );
    let scheduler = Scheduler::builder()
        .clock(time.clock())
        .timezones(callboard::timezones::Timezones::Bundled)
        .registry(registry)
        .start()
        .await
        .unwrap();
    let mut events = scheduler.events(EventMask::ALL).await.unwrap();
    let nine: DateTime<FixedOffset> = NINE.parse().unwrap();
    for (id, trigger) in [
        ("crontab", "0 9 * * *".into_trigger().unwrap()),
        ("cron", "cron hour=9".into_trigger().unwrap()),
        ("quartz", "quartz 0 0 9 * * ?".into_trigger().unwrap()),
        ("calendar", "calendar 1d at 09:00".into_trigger().unwrap()),
        ("once", "once at 2026-12-01T09:00:00".into_trigger().unwrap()),
        ("custom", Custom::new("nine", Value::Null).into_trigger().unwrap()),
    ] {
        scheduler.add(Task::new("tell").id(id).trigger(trigger).timezone(Vancouver)).await.unwrap();
        // Previews.
        let next: ZonedTime = scheduler.preview(id, 1).await.unwrap()[0];
        assert_eq!(next.to_string(), format!("{NINE}[America/Vancouver]"), "{id}");
        assert_eq!(next.to_rfc3339(), NINE, "{id}");
        assert_eq!(json!(next), format!("{NINE}[America/Vancouver]"), "{id}");
        assert_eq!(DateTime::<FixedOffset>::from(next).to_string(), "2026-12-01 09:00:00 -07:00", "{id}");
        assert_eq!(DateTime::<Utc>::from(next), nine, "{id}");
        // Snapshots hold instants.
        let info = scheduler.task(id).await.unwrap();
        assert_eq!(info.next_run_time().unwrap(), nine, "{id}");
        let text = json!(info).to_string();
        assert!(text.contains("2026-12-01T16:00:00Z"), "{text}");
        assert!(!text.contains("-08:00") && !text.contains("17:00:00"), "{text}");
        // Accounts say the hour in words.
        let account =
            scheduler.send(Why::new(TaskId::new(id).unwrap(), nine.to_utc(), nine.to_utc(), 9)).await;
        let account = account.unwrap().unwrap();
        assert_eq!(account.times[0].nominal, nine, "{id}");
        let reason = &account.times[0].reason;
        assert!(reason.contains(NINE), "{id}: {reason}");
    }
    // Arguments of custom triggers.
    let asked = told.0.lock().unwrap().clone();
    assert!(!asked.is_empty());
    assert!(asked.iter().all(|at| at.contains("-07:00[America/Vancouver]")), "{asked:?}");
    // What lies ahead.
    let ahead = scheduler.timeline(nine.to_utc(), 99).await.unwrap();
    assert_eq!(ahead.len(), 6);
    assert!(ahead.iter().all(|(at, _)| *at == nine), "{ahead:?}");

    time.advance(secs(8 * 3600 - 1)).await;
    assert!(seen.lock().unwrap().is_empty(), "before nine");
    time.advance(secs(1)).await;
    // Contexts of runs.
    let runs = seen.lock().unwrap().clone();
    assert_eq!(runs.len(), 6);
    for (nominal, text) in runs {
        assert_eq!(nominal, nine);
        assert_eq!(text, format!("2026-12-01 16:00:00 UTC {NINE}[America/Vancouver]"));
    }
    // Records, and accounts of what has run.
    let history = scheduler.history("crontab", 9).await.unwrap();
    assert_eq!(history[0].nominal, nine);
    assert!(json!(history[0]).to_string().contains("2026-12-01T16:00:00Z"));
    let later = scheduler.preview("crontab", 1).await.unwrap()[0];
    assert_eq!(later.to_rfc3339(), "2026-12-02T09:00:00-07:00");
    // Events.
    time.settle().await;
    let mut texts = String::new();
    for event in heard(&mut events) {
        texts += &format!("{event:?}\n{}\n", json!(event));
    }
    assert!(texts.contains("2026-12-01T16:00:00Z"), "{texts}");
    for wrong in ["-08:00", "PST", "2026-12-01T17:00:00", "T08:00:00-"] {
        assert!(!texts.contains(wrong), "{wrong} in {texts}");
    }
}
