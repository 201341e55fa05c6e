//! Values from outside, with the places they stand at, and the reading of them that collects every
//! problem in place of stopping at the first.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use serde_json::Value as Json;
use toml::de::{DeArray, DeTable, DeValue};

use super::{Problem, parse_duration};
use crate::trigger::meant;

/// A value and the line it stands in, where there are lines.
#[derive(Debug, Clone)]
pub(super) struct Value {
    pub(super) kind: Kind,
    pub(super) line: Option<usize>,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    /// A date or time as TOML writes it.
    Moment(String),
    List(Vec<Value>),
    Table(Table),
}

pub(super) type Table = BTreeMap<String, Value>;

impl Value {
    /// What it is, for messages: `the number 5`.
    fn shown(&self) -> String {
        match &self.kind {
            Kind::Bool(value) => format!("`{value}`"),
            Kind::Integer(value) => format!("the number {value}"),
            Kind::Float(value) => format!("the number {value}"),
            Kind::Text(text) => format!("{text:?}"),
            Kind::Moment(text) => format!("the time {text}"),
            Kind::List(_) => "a list".to_owned(),
            Kind::Table(_) => "a table".to_owned(),
        }
    }

    /// The same as JSON; times become text.
    pub(super) fn into_json(self) -> Json {
        match self.kind {
            Kind::Bool(value) => value.into(),
            Kind::Integer(value) => value.into(),
            Kind::Float(value) => value.into(),
            Kind::Text(text) | Kind::Moment(text) => text.into(),
            Kind::List(items) => items.into_iter().map(Self::into_json).collect(),
            Kind::Table(table) => {
                Json::Object(table.into_iter().map(|(key, value)| (key, value.into_json())).collect())
            }
        }
    }

    /// A value from JSON; `None` for `null`, which says as much as leaving the key out.
    pub(super) fn from_json(json: Json) -> Option<Self> {
        let kind = match json {
            Json::Null => return None,
            Json::Bool(value) => Kind::Bool(value),
            Json::Number(number) => match number.as_i64() {
                Some(value) => Kind::Integer(value),
                None => Kind::Float(number.as_f64().unwrap_or(f64::MAX)),
            },
            Json::String(text) => Kind::Text(text),
            Json::Array(items) => Kind::List(items.into_iter().filter_map(Self::from_json).collect()),
            Json::Object(entries) => Kind::Table(
                entries.into_iter().filter_map(|(key, value)| Some((key, Self::from_json(value)?))).collect(),
            ),
        };
        Some(Self { kind, line: None })
    }
}

/// Reads TOML; what is no TOML is added to `problems`.
pub(super) fn from_toml(text: &str, problems: &Problems) -> Table {
    let lines = Lines::of(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    // What comes after is guesswork: the reader's about one mistake, ours about a broken table.
    let broken = !errors.is_empty();
    for error in errors.into_iter().take(3) {
        let line = error.span().map(|span| lines.at(span.start));
        problems.add(line, "", format!("this is no TOML: {}", error.message().trim()));
    }
    if broken {
        return Table::new();
    }
    lines.table(table.get_ref(), problems)
}

struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.match_indices('\n').map(|(at, _)| at).collect())
    }

    fn at(&self, offset: usize) -> usize {
        self.0.partition_point(|newline| *newline < offset) + 1
    }

    fn table(&self, table: &DeTable<'_>, problems: &Problems) -> Table {
        let entry =
            |(key, value): (&toml::Spanned<std::borrow::Cow<'_, str>>, &toml::Spanned<DeValue<'_>>)| {
                let line = self.at(key.span().start);
                (key.get_ref().to_string(), self.value(value.get_ref(), line, problems))
            };
        table.iter().map(entry).collect()
    }

    fn list(&self, items: &DeArray<'_>, problems: &Problems) -> Vec<Value> {
        items.iter().map(|item| self.value(item.get_ref(), self.at(item.span().start), problems)).collect()
    }

    fn value(&self, value: &DeValue<'_>, line: usize, problems: &Problems) -> Value {
        let kind = match value {
            DeValue::String(text) => Kind::Text(text.to_string()),
            DeValue::Boolean(value) => Kind::Bool(*value),
            DeValue::Integer(number) => {
                let parsed = i64::from_str_radix(number.as_str(), number.radix());
                Kind::Integer(parsed.unwrap_or_else(|_| {
                    problems.add(
                        Some(line),
                        "",
                        format!("the number {} does not fit 64 bits", number.as_str()),
                    );
                    0
                }))
            }
            DeValue::Float(number) => Kind::Float(number.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Datetime(moment) => Kind::Moment(moment.to_string()),
            DeValue::Array(items) => Kind::List(self.list(items, problems)),
            DeValue::Table(table) => Kind::Table(self.table(table, problems)),
        };
        Value { kind, line: Some(line) }
    }
}

/// What was found wrong so far.
#[derive(Debug, Default)]
pub(super) struct Problems(RefCell<Vec<Problem>>);

impl Problems {
    pub(super) fn add(&self, line: Option<usize>, key: impl Into<String>, message: impl Into<String>) {
        self.0.borrow_mut().push(Problem { line, key: key.into(), message: message.into() });
    }

    pub(super) fn into_vec(self) -> Vec<Problem> {
        let mut problems = self.0.into_inner();
        problems.sort_by_key(|problem| problem.line);
        problems
    }
}

/// A table being read: keys are taken out one by one, and what is left at the end is unknown.
pub(super) struct Section<'p> {
    path: String,
    pub(super) line: Option<usize>,
    entries: Table,
    known: Vec<&'static str>,
    problems: &'p Problems,
}

impl<'p> Section<'p> {
    pub(super) fn root(entries: Table, problems: &'p Problems) -> Self {
        Self { path: String::new(), line: None, entries, known: Vec::new(), problems }
    }

    /// A table that stands by itself, called `path` in messages.
    pub(super) fn new(path: impl Into<String>, value: Value, problems: &'p Problems) -> Option<Self> {
        let path = path.into();
        match value.kind {
            Kind::Table(entries) => {
                Some(Self { path, line: value.line, entries, known: Vec::new(), problems })
            }
            _ => {
                problems.add(value.line, path, format!("is {}; it must be a table", value.shown()));
                None
            }
        }
    }

    fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Reports that `key` has a value it cannot have.
    pub(super) fn problem(&self, line: Option<usize>, key: &str, message: impl Into<String>) {
        let key = if key.is_empty() { self.path.clone() } else { self.key(key) };
        self.problems.add(line.or(self.line), key, message);
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Whether a key is there, and in which line; nothing is taken.
    pub(super) fn peek(&mut self, key: &'static str) -> Option<(&Value, Option<usize>)> {
        self.note_known(&[key]);
        self.entries.get(key).map(|value| (value, value.line))
    }

    /// Names keys that are valid here although nobody has asked for them.
    pub(super) fn note_known(&mut self, keys: &[&'static str]) {
        let new = keys.iter().filter(|key| !self.known.contains(key)).copied().collect::<Vec<_>>();
        self.known.extend(new);
    }

    pub(super) fn take(&mut self, key: &'static str) -> Option<Value> {
        self.note_known(&[key]);
        self.entries.remove(key)
    }

    fn read<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Value) -> Option<Result<T, String>>,
        wanted: &str,
    ) -> Option<T> {
        let value = self.take(key)?;
        match read(&value) {
            Some(Ok(read)) => return Some(read),
            Some(Err(message)) => self.problem(value.line, key, message),
            None => self.problem(value.line, key, format!("is {}; it must be {wanted}", value.shown())),
        }
        None
    }

    pub(super) fn text(&mut self, key: &'static str) -> Option<String> {
        let read = |value: &Value| match &value.kind {
            Kind::Text(text) => Some(Ok(text.clone())),
            _ => None,
        };
        self.read(key, read, "text in quotes")
    }

    /// A time: text, or a date and time as TOML knows them.
    pub(super) fn moment(&mut self, key: &'static str) -> Option<String> {
        let read = |value: &Value| match &value.kind {
            Kind::Text(text) | Kind::Moment(text) => Some(Ok(text.clone())),
            _ => None,
        };
        self.read(key, read, "a time such as 2027-01-01T08:00:00+01:00")
    }

    /// `true` or `false`; as text too, because environments know nothing else.
    pub(super) fn flag(&mut self, key: &'static str) -> Option<bool> {
        let read = |value: &Value| match &value.kind {
            Kind::Bool(value) => Some(Ok(*value)),
            Kind::Text(text) => text.parse().ok().map(Ok),
            _ => None,
        };
        self.read(key, read, "`true` or `false`")
    }

    /// A whole number of at least 1; as text too.
    pub(super) fn count(&mut self, key: &'static str) -> Option<u32> {
        let read = |value: &Value| {
            let number = match &value.kind {
                Kind::Integer(number) => *number,
                Kind::Text(text) => text.parse().ok()?,
                _ => return None,
            };
            u32::try_from(number).ok().filter(|number| *number > 0).map(Ok)
        };
        self.read(key, read, "a whole number of at least 1")
    }

    /// A whole number, 0 or more; as text too.
    pub(super) fn number(&mut self, key: &'static str) -> Option<u32> {
        let read = |value: &Value| match &value.kind {
            Kind::Integer(number) => u32::try_from(*number).ok().map(Ok),
            Kind::Text(text) => text.parse().ok().map(Ok),
            _ => None,
        };
        self.read(key, read, "a whole number of 0 or more")
    }

    /// A number within `range`.
    pub(super) fn share(&mut self, key: &'static str, range: RangeInclusive<f64>) -> Option<f64> {
        let wanted = format!("a number from {} to {}", range.start(), range.end());
        let read = |value: &Value| {
            let number = match &value.kind {
                Kind::Integer(number) => *number as f64,
                Kind::Float(number) => *number,
                _ => return None,
            };
            range.contains(&number).then_some(Ok(number))
        };
        self.read(key, read, &wanted)
    }

    /// So many bytes: `"256MB"`, `"1GiB"`, `"0"`.
    pub(super) fn size(&mut self, key: &'static str) -> Option<u64> {
        let read = |value: &Value| match &value.kind {
            Kind::Text(text) => bytes(text).map(Ok),
            Kind::Integer(0) => Some(Ok(0)),
            Kind::Integer(number) => Some(Err(format!(
                "is the number {number}, which says nothing about the unit; write \"{number}B\" for bytes, or one \
                 of KB, MB, GB (thousands) and KiB, MiB, GiB (1024s)"
            ))),
            _ => None,
        };
        self.read(key, read, "a size such as \"64MB\", \"256MiB\" or \"2GB\"")
    }

    pub(super) fn duration(&mut self, key: &'static str) -> Option<Duration> {
        self.duration_or(key, "")
    }

    /// A duration; `word` stands for what no duration can say and reads as [`Duration::MAX`].
    pub(super) fn duration_or(&mut self, key: &'static str, word: &str) -> Option<Duration> {
        let read = |value: &Value| match &value.kind {
            Kind::Text(text) if !word.is_empty() && text == word => Some(Ok(Duration::MAX)),
            Kind::Text(text) => Some(parse_duration(text).map_err(|error| error.to_string())),
            Kind::Integer(number) => Some(Err(format!(
                "is the number {number}, which says nothing about the unit; write {:?} for seconds, or another of \"250ms\", \"5m\", \"1h30m\"",
                format!("{number}s")
            ))),
            _ => None,
        };
        let wanted = match word {
            "" => "a duration such as \"90s\", \"5m\" or \"1h30m\"".to_owned(),
            word => format!("a duration such as \"90s\", \"5m\" or \"1h30m\", or {word:?}"),
        };
        self.read(key, read, &wanted)
    }

    /// Text of a type that reads itself.
    pub(super) fn parsed<T: FromStr<Err: fmt::Display>>(
        &mut self,
        key: &'static str,
        wanted: &str,
    ) -> Option<T> {
        let read = |value: &Value| match &value.kind {
            Kind::Text(text) => {
                Some(text.parse::<T>().map_err(|error| format!("is {text:?}: {error}; it is {wanted}")))
            }
            _ => None,
        };
        self.read(key, read, wanted)
    }

    /// A table below this one.
    pub(super) fn section(&mut self, key: &'static str) -> Option<Section<'p>> {
        let value = self.take(key)?;
        Section::new(self.key(key), value, self.problems)
    }

    /// A table below this one whose keys are names, with the tables they name.
    pub(super) fn named(&mut self, key: &'static str) -> Vec<(String, Section<'p>)> {
        let Some(Section { path, entries, problems, .. }) = self.section(key) else {
            return Vec::new();
        };
        let section = |(name, value): (String, Value)| {
            let path = if name.contains(['.', ' ']) || name.is_empty() {
                format!("{path}.{name:?}")
            } else {
                format!("{path}.{name}")
            };
            Section::new(path, value, problems).map(|section| (name, section))
        };
        entries.into_iter().filter_map(section).collect()
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn finish(self) {
        let known = self.known.join(", ");
        for (key, value) in &self.entries {
            let hint = meant::hint(key, self.known.iter().copied());
            self.problem(value.line, key, format!("unknown key; valid here are {known}{hint}"));
        }
    }
}

/// The bytes that a size with its unit says.
fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    let factor = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" if number == 0 => 1,
        "b" => 1,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(factor)
}
