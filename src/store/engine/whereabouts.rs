//! Where an open store is: whether others find under its path what is open here.
//!
//! Within one opening, that is told by device and inode, which nobody writes down: they change when a
//! volume is mounted again or a backup is restored. From one opening to the next, it is told by the
//! identity of the store.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use uuid::Uuid;

use super::files::{io_error, place};
use crate::private_file::{FileId, There, is_absence};
use crate::store::StoreError;

const PUT_BACK: &str =
    "put it back (move it there, mount its volume, or restore a backup), and it goes on by itself";
const PUT_BACK_OR_RESTART: &str = "put the one that was open back, and it goes on by itself; to go on with what is \
                                   there, start the program again";
/// How long nothing may have changed in a directory that was put back.
const QUIET: Duration = Duration::from_secs(1);

/// The store is not where it was.
fn gone(path: &Path, reason: impl Into<String>) -> StoreError {
    StoreError::Gone { place: place(path), reason: reason.into(), advice: PUT_BACK.to_owned() }
}

/// Something else is where it was.
pub(in crate::store) fn replaced(path: &Path, reason: &str) -> StoreError {
    let advice = PUT_BACK_OR_RESTART.to_owned();
    StoreError::Gone { place: place(path), reason: reason.to_owned(), advice }
}

/// What is open in a directory: that, and things in it by their names.
#[derive(Debug)]
pub(in crate::store) struct Whereabouts {
    root: PathBuf,
    things: Vec<(PathBuf, FileId)>,
}

impl Whereabouts {
    /// Notes the directory and what has these names in it.
    pub(in crate::store) fn note(root: &Path, names: &[&str]) -> Result<Self, StoreError> {
        let paths = names.iter().map(|name| root.join(name));
        let noted = std::iter::once(root.to_owned()).chain(paths).map(|path| match FileId::at(&path) {
            Ok(id) => Ok((path, id)),
            Err(error) => Err(io_error(&path, "look at", error)),
        });
        Ok(Self { root: root.to_owned(), things: noted.collect::<Result<_, _>>()? })
    }

    /// An error unless everything is where it was.
    pub(in crate::store) fn check(&self) -> Result<(), StoreError> {
        for (path, id) in &self.things {
            match id.compare(path) {
                There::Same => {}
                There::Nothing if *path == self.root => return Err(self.missing()),
                There::Nothing => return Err(self.missing_in_it(path)),
                There::Other if *path == self.root => {
                    let reason = match is_empty(path) {
                        true => EMPTY,
                        false => "another directory is there",
                    };
                    return Err(gone(&self.root, reason));
                }
                There::Other => {
                    let name = name(path);
                    return Err(gone(
                        &self.root,
                        format!("`{name}` is another one, somebody has replaced it"),
                    ));
                }
            }
        }
        Ok(())
    }

    fn missing(&self) -> StoreError {
        gone(&self.root, MISSING)
    }

    fn missing_in_it(&self, path: &Path) -> StoreError {
        // It may have vanished as a whole in this moment.
        if !self.root.exists() { self.missing() } else { gone(&self.root, lacks(path)) }
    }
}

const MISSING: &str = "the directory is missing";
const EMPTY: &str = "the directory is empty, as that of a volume which is not mounted";

fn lacks(path: &Path) -> String {
    format!("`{}` is missing, somebody has removed it", name(path))
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().display().to_string()
}

fn is_empty(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

/// An error unless the directory of a store that was open is there, with what a store has in it. Touches
/// nothing.
pub(in crate::store) fn check_there(root: &Path, names: &[&str]) -> Result<(), StoreError> {
    match fs::metadata(root) {
        Ok(there) if there.is_dir() => {}
        Ok(_) => return Err(gone(root, "a file is there in place of its directory")),
        Err(error) if is_absence(&error) => return Err(gone(root, MISSING)),
        Err(error) => return Err(io_error(root, "look at", error)),
    }
    for path in names.iter().map(|name| root.join(name)) {
        match fs::metadata(&path) {
            Ok(_) => {}
            Err(error) if is_absence(&error) => {
                let reason = if is_empty(root) { EMPTY.to_owned() } else { lacks(&path) };
                return Err(gone(root, reason));
            }
            Err(error) => return Err(io_error(&path, "look at", error)),
        }
    }
    Ok(())
}

/// An error when what stands beside the data of a store says that it is another one than that which was open.
pub(in crate::store) fn check_known(root: &Path, known: Uuid, found: Option<Uuid>) -> Result<(), StoreError> {
    match found {
        Some(found) if found != known => Err(replaced(root, "another store is there")),
        _ => Ok(()),
    }
}

/// What stands beside the data is not what this store has written there.
pub(in crate::store) fn overwritten(root: &Path, name: &str) -> StoreError {
    gone(root, format!("somebody has written `{name}` while it was open"))
}

/// An error while a directory that had vanished is being put back. Waits for a moment: files that are still
/// being copied would be taken for damaged ones, or for all there are.
pub(super) fn check_quiet(root: &Path) -> Result<(), StoreError> {
    let Some(before) = contents(root).map_err(|error| io_error(root, "read", error))? else {
        // That it is missing is told by whoever opens it.
        return Ok(());
    };
    std::thread::sleep(QUIET);
    if contents(root).map_err(|error| io_error(root, "read", error))? == Some(before) {
        return Ok(());
    }
    Err(gone(root, "it is being put back, its files still change"))
}

/// What is in a directory and those in it.
type Contents = BTreeSet<(PathBuf, u64, Option<SystemTime>)>;

fn contents(root: &Path) -> io::Result<Option<Contents>> {
    let mut found = Contents::new();
    let mut left = vec![root.to_owned()];
    while let Some(dir) = left.pop() {
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if is_absence(&error) && dir == root => return Ok(None),
            Err(error) if is_absence(&error) => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => left.push(entry.path()),
                Ok(metadata) => drop(found.insert((entry.path(), metadata.len(), metadata.modified().ok()))),
                Err(error) if is_absence(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(Some(found))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn what_happens_to_a_directory_is_told() {
        let base = tempfile::tempdir().unwrap();
        let (root, away) = (base.path().join("store"), base.path().join("away"));
        fs::create_dir(&root).unwrap();
        fs::write(root.join("data"), "1").unwrap();
        let noted = Whereabouts::note(&root, &["data"]).unwrap();
        let told = |expected: &str| {
            let error = noted.check().unwrap_err();
            assert!(matches!(error, StoreError::Gone { .. }) && error.is_retryable(), "{error:?}");
            assert!(error.to_string().contains(expected), "{error}");
        };
        noted.check().unwrap();
        fs::rename(&root, &away).unwrap();
        told("the directory is missing");
        assert!(check_there(&root, &["data"]).unwrap_err().to_string().contains("missing"));
        fs::create_dir(&root).unwrap();
        told("not mounted");
        assert!(check_there(&root, &["data"]).unwrap_err().to_string().contains("not mounted"));
        fs::write(root.join("data"), "1").unwrap();
        told("another directory");
        check_there(&root, &["data"]).unwrap();
        fs::remove_dir_all(&root).unwrap();
        fs::rename(&away, &root).unwrap();
        noted.check().unwrap();
        fs::rename(root.join("data"), root.join("old")).unwrap();
        told("`data` is missing");
        fs::write(root.join("data"), "1").unwrap();
        told("somebody has replaced it");
    }

    #[test]
    fn what_is_being_put_back_is_waited_for() {
        let base = tempfile::tempdir().unwrap();
        let root = base.path().join("store");
        check_quiet(&root).unwrap();
        fs::create_dir_all(root.join("tasks")).unwrap();
        fs::write(root.join("tasks/a"), "1").unwrap();
        check_quiet(&root).unwrap();
        let copied = root.clone();
        let copying = std::thread::spawn(move || {
            for number in 0.. {
                fs::write(copied.join("tasks").join(number.to_string()), "1").ok();
                std::thread::sleep(Duration::from_millis(20));
                if copied.join("enough").exists() {
                    break;
                }
            }
        });
        let error = check_quiet(&root).unwrap_err().to_string();
        assert!(error.contains("being put back"), "{error}");
        fs::write(root.join("enough"), "").unwrap();
        copying.join().unwrap();
        check_quiet(&root).unwrap();
    }
}
