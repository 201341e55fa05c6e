//! One field of a pattern: from text to numbers.
//!
//! Two dialects share the grammar of numbers, names, ranges and steps and differ in what they
//! refuse: [`Dialect::Fields`] (strict, weekday 0 is Monday, `last`, `3rd fri`) and
//! [`Dialect::Crontab`] (Vixie, weekday 0 and 7 are Sunday, `L`, `W`, `#`, `?`, `H`).

use super::search::{Hashed, Sets, YearRange};

pub(crate) const FIRST_YEAR: u16 = 1970;
pub(crate) const LAST_YEAR: u16 = 9999;

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const FROM_MONDAY: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const FROM_SUNDAY: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const POSITIONS: [&str; 5] = ["1st", "2nd", "3rd", "4th", "5th"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Fields,
    Crontab,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Year,
    Month,
    Day,
    Week,
    DayOfWeek,
    Hour,
    Minute,
    Second,
}

impl Kind {
    /// In the order of `cron` fields, from the largest unit to the smallest.
    pub(crate) const ALL: [Kind; 8] = [
        Kind::Year,
        Kind::Month,
        Kind::Day,
        Kind::Week,
        Kind::DayOfWeek,
        Kind::Hour,
        Kind::Minute,
        Kind::Second,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Year => "year",
            Kind::Month => "month",
            Kind::Day => "day",
            Kind::Week => "week",
            Kind::DayOfWeek => "day_of_week",
            Kind::Hour => "hour",
            Kind::Minute => "minute",
            Kind::Second => "second",
        }
    }

    pub(crate) fn range(self, dialect: Dialect) -> (u32, u32) {
        match self {
            Kind::Year => (FIRST_YEAR.into(), LAST_YEAR.into()),
            Kind::Month => (1, 12),
            Kind::Day => (1, 31),
            Kind::Week => (1, 53),
            Kind::DayOfWeek if dialect == Dialect::Crontab => (0, 7),
            Kind::DayOfWeek => (0, 6),
            Kind::Hour => (0, 23),
            Kind::Minute | Kind::Second => (0, 59),
        }
    }

    fn names(self, dialect: Dialect) -> &'static [&'static str] {
        match (self, dialect) {
            (Kind::Month, _) => &MONTHS,
            (Kind::DayOfWeek, Dialect::Fields) => &FROM_MONDAY,
            (Kind::DayOfWeek, Dialect::Crontab) => &FROM_SUNDAY,
            _ => &[],
        }
    }

    /// What an error message says is allowed.
    fn allowed(self, dialect: Dialect) -> &'static str {
        match (self, dialect) {
            (Kind::Year, _) => "1970-9999",
            (Kind::Month, _) => "1-12 or jan-dec",
            (Kind::Day, Dialect::Fields) => "1-31, `last`, `1st mon` to `5th sun`, `last mon` to `last sun`",
            (Kind::Day, Dialect::Crontab) => "1-31, L, L-3, LW, 15W, ? and H",
            (Kind::Week, _) => "1-53",
            (Kind::DayOfWeek, Dialect::Fields) => "0-6 (0 is Monday) or mon-sun",
            (Kind::DayOfWeek, Dialect::Crontab) => {
                "0-7 (0 and 7 are Sunday), sun-sat, 5L, mon#2, fri#L, ? and H"
            }
            (Kind::Hour, _) => "0-23",
            (Kind::Minute | Kind::Second, _) => "0-59",
        }
    }
}

/// One item of a comma list, understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Item {
    /// `*`, `*/n`: the whole range.
    Star { step: u32 },
    /// `?`
    Any,
    /// `a`
    One(u32),
    /// `a-b`, `a-b/n`; `a/n` has the field's end as `to`.
    Range { from: u32, to: u32, step: u32 },
    /// `last`, `L`, `L-3`: days before the last day of the month.
    FromLast(u32),
    /// `LW`: the last day of the month that is Monday to Friday.
    LastWorkday,
    /// `15W`: the day from Monday to Friday nearest to a day, within its month.
    Nearest(u32),
    /// `2nd mon`, `mon#2`. The weekday counts from Monday = 0.
    Nth { weekday: u32, nth: u32 },
    /// `last fri`, `5L`, `fri#L`. The weekday counts from Monday = 0.
    LastOf { weekday: u32 },
    /// `H`, `H(a-b)`, `H/n`: spread by the task's id.
    Hash { from: u32, to: u32, step: u32 },
}

/// A field, parsed, for those who look at how it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) kind: Kind,
    pub(crate) items: Vec<Item>,
}

/// What is wrong with an item, and where it stands in the field.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) offset: usize,
    pub(crate) reason: String,
}

/// Parses the items of a field one by one, so that building a pattern needs no list of them.
pub(crate) fn items(
    kind: Kind,
    dialect: Dialect,
    text: &str,
    each: &mut dyn FnMut(Item),
) -> Result<(), Fault> {
    let mut offset = 0;
    for part in text.split(',') {
        let item = if dialect == Dialect::Fields { part.trim() } else { part };
        let at = offset + (part.len() - part.trim_start().len());
        let parsed = parse_item(kind, dialect, item).map_err(|reason| Fault { offset: at, reason })?;
        if parsed == Item::Any && part.len() != text.len() {
            return Err(Fault { offset: at, reason: "`?` stands alone in its field".into() });
        }
        each(parsed);
        offset += part.len() + 1;
    }
    Ok(())
}

/// Whether a crontab's day field counts as unrestricted: it starts with `*` or is `?`.
pub(crate) fn is_open(text: &str) -> bool {
    text.starts_with(['*', '?'])
}

impl Item {
    /// The numbers from `from` to `to` by `step` that the item names, as written (a crontab's
    /// Sunday may be 0 or 7); `None` when they depend on the month or the task.
    pub(crate) fn span(self, kind: Kind, dialect: Dialect) -> Option<(u32, u32, u32)> {
        let (min, max) = kind.range(dialect);
        // `*` as weekday means each day once, so that `*/2` does not count Sunday twice.
        let max = if kind == Kind::DayOfWeek { 6 } else { max };
        match self {
            Item::Star { step } => Some((min, max, step)),
            Item::Any => Some((min, max, 1)),
            Item::One(n) => Some((n, n, 1)),
            Item::Range { from, to, step } => Some((from, to, step)),
            _ => None,
        }
    }
}

/// What building a pattern collects.
#[derive(Debug)]
pub(crate) struct Collected {
    pub(crate) sets: Sets,
    pub(crate) years: Vec<YearRange>,
    pub(crate) hashed: Vec<Hashed>,
    /// A `*` stands in a time field: the pattern follows real time.
    pub(crate) follows: bool,
}

impl Collected {
    /// Nothing yet; fields that are not added stay as they are in [`Sets::MIDNIGHT`].
    pub(crate) fn new() -> Self {
        Self { sets: Sets::MIDNIGHT, years: Vec::new(), hashed: Vec::new(), follows: false }
    }

    /// Adds a field.
    pub(crate) fn field(&mut self, kind: Kind, dialect: Dialect, text: &str) -> Result<(), Fault> {
        if text == "*" {
            // As most fields are.
            match kind {
                Kind::Hour => self.sets.hours = 0xff_ffff,
                Kind::Minute => self.sets.minutes = EVERY_MINUTE,
                Kind::Second => self.sets.seconds = EVERY_MINUTE,
                _ => return Ok(()),
            }
            self.follows = true;
            return Ok(());
        }
        let mut bits = 0u64;
        let time = matches!(kind, Kind::Hour | Kind::Minute | Kind::Second);
        items(kind, dialect, text, &mut |item| {
            match item.span(kind, dialect) {
                Some((from, to, step)) if kind == Kind::Year => {
                    let step = step.min(LAST_YEAR.into()) as u16;
                    self.years.push(YearRange { from: from as u16, to: to as u16, step });
                }
                Some((from, to, 1)) => bits |= (u64::MAX >> (63 - to)) & (u64::MAX << from),
                Some((from, to, step)) => (from..=to).step_by(step as usize).for_each(|n| bits |= 1 << n),
                None => self.special(kind, item),
            }
            self.follows |= time && matches!(item, Item::Star { .. });
        })?;
        let sets = &mut self.sets;
        match kind {
            Kind::Year => {}
            Kind::Month => sets.months = bits as u16,
            Kind::Day => sets.days = bits as u32,
            Kind::Week => sets.weeks = bits,
            // From Sunday = 0 or 7 to Monday = 0.
            Kind::DayOfWeek if dialect == Dialect::Crontab => {
                sets.weekdays = (bits >> 1 & 0x7f | (bits & 1) << 6) as u8;
            }
            Kind::DayOfWeek => sets.weekdays = bits as u8,
            Kind::Hour => sets.hours = bits as u32,
            Kind::Minute => sets.minutes = bits,
            Kind::Second => sets.seconds = bits,
        }
        Ok(())
    }

    fn special(&mut self, kind: Kind, item: Item) {
        let sets = &mut self.sets;
        match item {
            Item::FromLast(days) => sets.from_last |= 1 << days,
            Item::LastWorkday => sets.last_workday = true,
            Item::Nearest(day) => sets.nearest |= 1 << day,
            // As a day of the month it is one of the days, as a weekday one of the weekdays.
            Item::Nth { weekday, nth } if kind == Kind::Day => sets.day_nth[weekday as usize] |= 1 << nth,
            Item::Nth { weekday, nth } => sets.nth[weekday as usize] |= 1 << nth,
            Item::LastOf { weekday } if kind == Kind::Day => sets.day_last_of |= 1 << weekday,
            Item::LastOf { weekday } => sets.last_of |= 1 << weekday,
            Item::Hash { from, to, step } => {
                let step = step.min(255) as u8;
                self.hashed.push(Hashed { kind, from: from as u8, to: to as u8, step });
            }
            Item::Star { .. } | Item::Any | Item::One(_) | Item::Range { .. } => {}
        }
    }
}

const EVERY_MINUTE: u64 = (1 << 60) - 1;

impl Field {
    pub(crate) fn parse(kind: Kind, dialect: Dialect, text: &str) -> Result<Field, Fault> {
        let mut list = Vec::new();
        items(kind, dialect, text, &mut |item| list.push(item))?;
        Ok(Field { kind, items: list })
    }
}

fn parse_item(kind: Kind, dialect: Dialect, text: &str) -> Result<Item, String> {
    let allowed = kind.allowed(dialect);
    if text.is_empty() {
        return Err(format!("an item is empty; allowed are {allowed}"));
    }
    if dialect == Dialect::Crontab {
        if let Some(item) = crontab_special(kind, text)? {
            return Ok(item);
        }
    } else if kind == Kind::Day
        && let Some(item) = position(text)?
    {
        return Ok(item);
    }
    let (min, max) = kind.range(dialect);
    let (base, step) = match text.split_once('/') {
        None => (text, None),
        Some((base, step)) => match number(step) {
            Some(0) => return Err(format!("the step of `{text}` is 0; it has to be 1 or more")),
            Some(step) => (base, Some(step)),
            None => {
                return Err(format!("the step `{step}` of `{text}` is not a whole number"));
            }
        },
    };
    if base == "*" {
        let step = step.unwrap_or(1);
        if dialect == Dialect::Fields && step > max - min {
            return Err(format!("the step {step} is larger than the range {min}-{max}"));
        }
        return Ok(Item::Star { step });
    }
    let (from, to) = match base.split_once('-') {
        Some((from, to)) => (from, Some(to)),
        None => (base, None),
    };
    let item = text;
    let value = |text: &str| -> Result<u32, String> {
        let value = number(text).or_else(|| {
            let named = kind.names(dialect).iter().position(|name| name.eq_ignore_ascii_case(text));
            named.map(|index| index as u32 + u32::from(kind == Kind::Month))
        });
        match value {
            Some(value) if (min..=max).contains(&value) => Ok(value),
            _ => {
                let what = if text.is_empty() { item } else { text };
                Err(format!(
                    "`{what}` is not valid; allowed are {allowed}, *, lists, ranges a-b and steps /n"
                ))
            }
        }
    };
    let first = value(from)?;
    let last = match to {
        None if step.is_none() => return Ok(Item::One(first)),
        None => max,
        // A range may end in Sunday: SUN counts as 7 there, unless the range also starts with it.
        Some(to) if max == 7 && first > 0 && to.eq_ignore_ascii_case("sun") => 7,
        Some(to) => value(to)?,
    };
    let step = step.unwrap_or(1);
    if last < first {
        let items = forwards(kind, first, last, step, (min, max));
        return Err(format!("the range `{base}` runs backwards; write {items}"));
    }
    if dialect == Dialect::Fields && text.contains('/') && step > last - first {
        return Err(format!("the step {step} is larger than the range {first}-{last}"));
    }
    Ok(Item::Range { from: first, to: last, step })
}

/// What to write for a range that goes past the end of its field, with every number once.
fn forwards(kind: Kind, first: u32, last: u32, step: u32, (min, max): (u32, u32)) -> String {
    // Sunday has two numbers in a crontab.
    if max == 7 && last == 0 && step == 1 {
        return format!("`{first}-7`");
    }
    let max = if kind == Kind::DayOfWeek { 6 } else { max };
    let span = |from: u32, to: u32| match (to - from, step) {
        (length, step) if length < step => from.to_string(),
        (_, 1) => format!("{from}-{to}"),
        _ => format!("{from}-{to}/{step}"),
    };
    let upper = span(first, max);
    // Where the steps come out beyond the end of the field.
    let beyond = min + (step - (max - first) % step) - 1;
    if beyond > last {
        return format!("`{upper}`");
    }
    format!("it as two items, `{upper},{}`", span(beyond, last))
}

/// `last`, `last fri`, `3rd fri`
fn position(text: &str) -> Result<Option<Item>, String> {
    let mut words = text.split_ascii_whitespace();
    let first = words.next().unwrap_or_default().to_ascii_lowercase();
    let nth = POSITIONS.iter().position(|p| *p == first).map(|index| index as u32 + 1);
    if nth.is_none() && first != "last" {
        return Ok(None);
    }
    let Some(name) = words.next() else {
        return match nth {
            None => Ok(Some(Item::FromLast(0))),
            Some(_) => Err(format!("`{text}` needs a weekday after it, for instance `{text} fri`")),
        };
    };
    let weekday = FROM_MONDAY.iter().position(|day| day.eq_ignore_ascii_case(name));
    match (weekday, words.next()) {
        (Some(weekday), None) => {
            let weekday = weekday as u32;
            Ok(Some(nth.map_or(Item::LastOf { weekday }, |nth| Item::Nth { weekday, nth })))
        }
        _ => Err(format!("`{text}`: after `{first}` comes one weekday, mon to sun")),
    }
}

/// `?`, `L`, `L-3`, `LW`, `15W`, `5L`, `mon#2`, `fri#L`, `H`, `H(0-29)`, `H/15`
fn crontab_special(kind: Kind, text: &str) -> Result<Option<Item>, String> {
    if text.contains('~') {
        return Err(tilde(kind, text));
    }
    if let Some(rest) = text.strip_prefix(['H', 'h']) {
        return hash(kind, text, rest).map(Some);
    }
    match kind {
        Kind::Day | Kind::DayOfWeek if text == "?" => Ok(Some(Item::Any)),
        Kind::Day if text.eq_ignore_ascii_case("L") => Ok(Some(Item::FromLast(0))),
        Kind::Day if text.eq_ignore_ascii_case("LW") => Ok(Some(Item::LastWorkday)),
        Kind::Day if text.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("LW")) => Err(format!(
            "`{text}`: nothing is counted from the last working day; `LW` is that day, `L-2` two days before the last day, `20W` the working day nearest to the 20th"
        )),
        Kind::Day => {
            let from_last = text.strip_prefix("L-").or_else(|| text.strip_prefix("l-"));
            match (from_last, text.strip_suffix(['W', 'w'])) {
                (Some(days), _) => match number(days) {
                    Some(days @ 0..=30) => Ok(Some(Item::FromLast(days))),
                    _ => Err(format!("`{text}`: after `L-` comes a number of days, 1-30")),
                },
                (None, Some(day)) => match number(day) {
                    Some(day @ 1..=31) => Ok(Some(Item::Nearest(day))),
                    _ => Err(format!("`{text}`: before `W` stands a single day, 1-31, or `L`")),
                },
                (None, None) => Ok(None),
            }
        }
        Kind::DayOfWeek => {
            let (day, nth) = match (text.split_once('#'), text.strip_suffix(['L', 'l'])) {
                (Some((day, nth)), _) => (day, nth),
                (None, Some(day)) => (day, "L"),
                (None, None) => return Ok(None),
            };
            let named = FROM_SUNDAY.iter().position(|name| name.eq_ignore_ascii_case(day));
            let weekday = match named.map(|index| index as u32).or_else(|| number(day)) {
                // From Sunday = 0 or 7 to Monday = 0.
                Some(day @ 0..=7) => (day + 6) % 7,
                _ => {
                    return Err(format!("`{text}`: before `#` or `L` stands one weekday, 0-7 or sun-sat"));
                }
            };
            match number(nth) {
                _ if nth.eq_ignore_ascii_case("L") => Ok(Some(Item::LastOf { weekday })),
                Some(nth @ 1..=5) => Ok(Some(Item::Nth { weekday, nth })),
                _ => Err(format!("`{text}`: after `#` comes 1-5 or L")),
            }
        }
        _ => Ok(None),
    }
}

/// Other crons draw lots with `~`.
fn tilde(kind: Kind, text: &str) -> String {
    let (range, step) = text.split_once('/').unwrap_or((text, ""));
    let slash = if step.is_empty() { "" } else { "/" };
    let (min, max) = kind.range(Dialect::Crontab);
    let (from, to) = range.split_once('~').unwrap_or((range, ""));
    let inner = match (number(from).unwrap_or(min), number(to).unwrap_or(max)) {
        whole if whole == (min, max) => String::new(),
        (from, to) => format!("({from}-{to})"),
    };
    format!(
        "`{text}`: `~` is not known; write `H{inner}{slash}{step}`, which takes its number from the task's id and keeps it"
    )
}

fn hash(kind: Kind, text: &str, rest: &str) -> Result<Item, String> {
    // Days stop at 28 so that the run comes every month, weekdays at 6 so that Sunday counts once.
    let (min, max) = match kind {
        Kind::Year | Kind::Week => return Err(format!("`{text}`: H cannot stand here")),
        Kind::Day => (1, 28),
        Kind::DayOfWeek => (0, 6),
        _ => kind.range(Dialect::Crontab),
    };
    let wrong = || format!("`{text}`: H is written H, H/n, H(a-b) or H(a-b)/n");
    let (range, step) = match rest.split_once('/') {
        Some((range, step)) => (range, number(step).filter(|step| *step > 0).ok_or_else(wrong)?),
        None => (rest, 0),
    };
    if range.is_empty() {
        return Ok(Item::Hash { from: min, to: max, step });
    }
    let inner = range.strip_prefix('(').and_then(|range| range.strip_suffix(')')).ok_or_else(wrong)?;
    let (from, to) = inner.split_once('-').ok_or_else(wrong)?;
    let (from, to) = (number(from).ok_or_else(wrong)?, number(to).ok_or_else(wrong)?);
    let (min, max) = kind.range(Dialect::Crontab);
    if from < min || to > max || from > to {
        return Err(format!("`{text}`: the range of H runs upwards within {min}-{max}"));
    }
    Ok(Item::Hash { from, to, step })
}

/// Digits only; a number too large to matter stays as large as fits.
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u32::MAX))
}
