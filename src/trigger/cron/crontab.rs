//! The crontab line: Vixie's fields and Quartz's letters, weekday 0 and 7 = Sunday.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::field::{Collected, Dialect, Fault, Field, Kind, is_open};
use super::search::Pattern;
use super::{limit_setters, policy, tidy};
use crate::trigger::limits::Limits;
use crate::trigger::{Fold, Gap, Moment, Trigger, TriggerError, Zone, meant};

/// A crontab line.
///
/// Five fields — minute, hour, day of month, month, weekday — or six with the second in front, or
/// seven with the year at the end. Or a nickname: `@hourly`, `@daily` (`@midnight`), `@weekly`,
/// `@monthly`, `@yearly` (`@annually`).
///
/// | written | meaning |
/// |---|---|
/// | `*`, `a`, `a-b`, `a,b` | all, one, a range, a list |
/// | `*/n`, `a-b/n`, `a/n` | every nth; `a/n` is `a-max/n` (weekdays count to 7, which is Sunday) |
/// | `jan`–`dec`, `sun`–`sat` | names, in any case; 0 and 7 are both Sunday; ranges may end in 7 or `sun` |
/// | `?` | the same as `*`, in the day fields |
/// | `L`, `L-3` | last day of the month, three days before it |
/// | `15W`, `LW` | the Monday-to-Friday day nearest to the 15th, the last one of the month |
/// | `mon#2`, `fri#L`, `5L` | second Monday, last Friday |
/// | `H`, `H(0-29)`, `H/15` | a value derived from the task's id: spreads a thousand hourly tasks |
///
/// When both day of month and weekday are restricted, **either** may match; a field that starts
/// with `*` or is `?` does not count as restricted, and then both must. A `+` before the weekday,
/// or [`CrontabBuilder::both_days`], asks for both.
///
/// Clock changes: a line with a `*` in its time fields follows real time; the others run once
/// after a gap and in the first pass of a fold.
///
/// ```
/// use callboard::trigger::{Context, Crontab, IntoTrigger};
/// use chrono::{DateTime, Utc};
///
/// let trigger = Crontab::parse("30 2 * * *")?.into_trigger()?;
/// let from: DateTime<Utc> = "2027-03-27T12:00:00Z".parse().unwrap();
/// let cx = Context::new(chrono_tz::Europe::Berlin, from, "backup");
/// // 02:30 does not exist on 28 March: the run is moved to 03:00.
/// assert_eq!(trigger.next(from, &cx)?.unwrap().to_rfc3339(), "2027-03-28T01:00:00+00:00");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "CrontabBuilder", into = "CrontabBuilder")]
pub struct Crontab {
    given: CrontabBuilder,
    pattern: Pattern,
}

impl Crontab {
    /// A line as it stands.
    ///
    /// # Errors
    /// [`TriggerError::Invalid`] names the field, where in the line the fault is, and what is
    /// allowed.
    pub fn parse(expression: &str) -> Result<Crontab, TriggerError> {
        Crontab::builder(expression).build()
    }

    /// A line to which a zone, bounds or options are added.
    pub fn builder(expression: impl AsRef<str>) -> CrontabBuilder {
        CrontabBuilder { expression: tidy(expression.as_ref()), both_days: false, limits: Limits::default() }
    }

    /// The line, its blanks tidied.
    pub fn expression(&self) -> &str {
        &self.given.expression
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.given.limits
    }

    pub(crate) fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    /// The fields the line has.
    pub(crate) fn fields(&self) -> Vec<Field> {
        let mut fields = Vec::new();
        // The line was read once before, so there is no error to meet.
        let _ = each_field(&self.given.expression, &mut |kind, text| {
            fields.push(Field::parse(kind, Dialect::Crontab, text)?);
            Ok(())
        });
        fields
    }
}

impl fmt::Display for Crontab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.given.expression)?;
        self.given.limits.write(f)
    }
}

/// Makes a [`Crontab`]; errors come when it is built or handed to a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CrontabBuilder {
    expression: String,
    #[serde(default, skip_serializing)]
    both_days: bool,
    #[serde(flatten)]
    limits: Limits,
}

impl CrontabBuilder {
    limit_setters!(limits);

    /// Day of month *and* weekday must match. The same as a `+` before the weekday, and stored so.
    pub fn both_days(mut self) -> Self {
        self.both_days = true;
        self
    }

    pub(crate) fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The finished trigger.
    ///
    /// # Errors
    /// As for [`Crontab::parse`].
    pub fn build(mut self) -> Result<Crontab, TriggerError> {
        self.expression = tidy(&self.expression);
        if self.both_days {
            self.expression = with_plus(&self.expression);
            self.both_days = false;
        }
        let mut collected = Collected::new();
        let mut restricted = true;
        let both = each_field(&self.expression, &mut |kind, text| {
            if matches!(kind, Kind::Day | Kind::DayOfWeek) {
                restricted &= !is_open(text);
            }
            collected.field(kind, Dialect::Crontab, text)
        })?;
        collected.sets.either = restricted && !both;
        let (gap, fold) = policy(collected.follows, &self.limits);
        Ok(Crontab { pattern: Pattern::new(collected, gap, fold), given: self })
    }
}

/// The line with a `+` before its weekday.
fn with_plus(line: &str) -> String {
    let mut words: Vec<&str> = line.split(' ').collect();
    let at = if words.len() == 5 { 4 } else { 5 };
    let plus = words.get(at).map(|weekday| format!("+{}", weekday.trim_start_matches('+')));
    if let (Some(plus), 5..=7) = (&plus, words.len()) {
        words[at] = plus;
    }
    words.join(" ")
}

impl TryFrom<CrontabBuilder> for Crontab {
    type Error = TriggerError;

    fn try_from(given: CrontabBuilder) -> Result<Self, TriggerError> {
        given.build()
    }
}

impl From<Crontab> for CrontabBuilder {
    fn from(crontab: Crontab) -> CrontabBuilder {
        crontab.given
    }
}

const NICKNAMES: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

const ORDER: [Kind; 7] =
    [Kind::Second, Kind::Minute, Kind::Hour, Kind::Day, Kind::Month, Kind::DayOfWeek, Kind::Year];

/// What other programs put where a crontab line stands, and what to write instead.
fn foreign(line: &str) -> Option<String> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    if word.eq_ignore_ascii_case("@every") {
        let length = if is_trigger(&format!("every {rest}")) { rest } else { "5m" };
        return Some(format!(
            "`@every` is an interval and no crontab line; write the trigger `every {length}`, in a configuration `every = \"{length}\"` in place of `cron`"
        ));
    }
    let zone = word.strip_prefix("CRON_TZ=").or_else(|| word.strip_prefix("TZ="));
    if let Some(zone) = zone {
        let zone = if zone.is_empty() { "Europe/Lisbon" } else { zone };
        let line = if rest.is_empty() { "0 3 * * *" } else { rest };
        return Some(format!(
            "a zone does not stand before the fields; give the task `timezone = \"{zone}\"`, or write the trigger `{line} in {zone}`"
        ));
    }
    let inner = |name: &str| line.strip_prefix(name)?.strip_prefix('(')?.strip_suffix(')').map(str::trim);
    if let Some(fields) = inner("cron") {
        let fields: Vec<&str> = fields.split(' ').collect();
        let written = match fields[..] {
            [minute, hour, day, month, weekday, year] => {
                // Both count it: one weekday from 1 = Sunday, the other from 0.
                let shifted: String = weekday.split(',').map(from_sunday).collect::<Vec<_>>().join(",");
                let line = format!("{minute} {hour} {day} {month} {shifted}");
                // A year takes the line of seven fields.
                if year == "*" { line } else { format!("0 {line} {year}") }
            }
            _ => String::new(),
        };
        let written = if is_trigger(&written) { format!(": `{written}`") } else { String::new() };
        return Some(format!(
            "`cron(…)` is AWS's form, with the year at the end and weekdays from 1 = Sunday; write a crontab line, with weekdays from 0 = Sunday{written}"
        ));
    }
    let zone = |word: &str| (word.contains('/') || word == "UTC") && Zone::known(word).is_some();
    if let Some((fields, word)) = line.rsplit_once(' ').filter(|(_, word)| zone(word)) {
        return Some(format!(
            "a zone is no field; write the trigger `{fields} in {word}`, or give the task `timezone = \"{word}\"`"
        ));
    }
    inner("rate").map(|rate| {
        let rate = if is_trigger(&format!("every {rate}")) { rate } else { "5 minutes" };
        format!("`rate(…)` is AWS's form of an interval; write the trigger `every {rate}`, in a configuration `every = \"{rate}\"` in place of `cron`")
    })
}

/// Whether what is recommended is a trigger.
fn is_trigger(text: &str) -> bool {
    text.parse::<Trigger>().is_ok()
}

/// A weekday of a list as a crontab has it, from one that counts from 1 = Sunday.
fn from_sunday(item: &str) -> String {
    let day = |text: &str| text.parse().ok().and_then(|n: u32| n.checked_sub(1)).map(|n| n.to_string());
    let day = |text: &str| day(text).unwrap_or_else(|| text.to_owned());
    // A number behind `#` or `/` is no weekday, and `L` may stand behind one.
    let (item, position) = item.find(['#', '/']).map_or((item, ""), |at| item.split_at(at));
    let (item, last) =
        item.strip_suffix('L').filter(|day| !day.is_empty()).map_or((item, ""), |day| (day, "L"));
    let ends: Vec<String> = item.split('-').map(day).collect();
    format!("{}{last}{position}", ends.join("-"))
}

/// Hands over each field the line has, and says whether `+` asks for both day fields.
fn each_field(
    expression: &str,
    each: &mut dyn FnMut(Kind, &str) -> Result<(), Fault>,
) -> Result<bool, TriggerError> {
    let mut line = expression;
    if let Some(reason) = foreign(line) {
        return Err(TriggerError::invalid("crontab", format!("{reason} (at character 1 of `{line}`)")));
    }
    if line.starts_with('@') {
        let Some((_, same)) = NICKNAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(line)) else {
            let names = NICKNAMES.map(|(name, _)| name);
            let hint = meant::hint(line, names);
            let names = names.join(", ");
            return Err(TriggerError::invalid(
                "crontab",
                format!(
                    "`{line}` is not known; the nicknames are {names}{hint} (at character 1 of `{line}`)"
                ),
            ));
        };
        line = same;
    }
    let count = if line.is_empty() { 0 } else { line.split(' ').count() };
    let kinds = match count {
        5 => &ORDER[1..6],
        6 => &ORDER[..6],
        7 => &ORDER[..],
        _ => {
            let reason = format!(
                "`{line}` has {count} field{}; 5 are needed, 6 with the second in front, 7 with the year at the end",
                if count == 1 { "" } else { "s" }
            );
            return Err(TriggerError::invalid("crontab", reason));
        }
    };
    let mut both = false;
    for (text, kind) in line.split(' ').zip(kinds) {
        let mut place = text.as_ptr() as usize - line.as_ptr() as usize;
        let mut text = text;
        if *kind == Kind::DayOfWeek
            && let Some(rest) = text.strip_prefix('+')
        {
            (text, both) = (rest, true);
            place += 1;
        }
        each(*kind, text).map_err(|fault| {
            let at = line[..place].chars().count() + fault.offset + 1;
            TriggerError::invalid(kind.name(), format!("{} (at character {at} of `{line}`)", fault.reason))
        })?;
    }
    Ok(both)
}
