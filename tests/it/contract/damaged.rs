//! Databases in directories that are not as they should be: what goes for sled and redb alike.

use std::fs;
use std::path::{Path, PathBuf};

use callboard::store::StoreError;
use callboard::store::contract::{sample, start};
use callboard::store::message::*;

use super::sled::{Running, snapshot};
use super::{Kind, system};

const DATABASES: [Kind; 2] = [Kind::Sled, Kind::Redb];

fn data(kind: Kind, path: &Path) -> PathBuf {
    path.join(if kind == Kind::Sled { "db" } else { "tasks.redb" })
}

async fn open(kind: Kind, path: &Path) -> Result<(Running, Opened), StoreError> {
    Running::open_with(kind.open(path)).await
}

/// A directory with 300 tasks. One after the other, they leave more behind than they are.
async fn filled(kind: Kind, path: &Path) {
    let (store, _) = open(kind, path).await.unwrap();
    let put = |index| {
        let task = sample(&format!("{index:03}"), start());
        store.0.put(Put { task, expect: Expect::Absent })
    };
    for index in 0..40 {
        put(index).await.unwrap();
    }
    futures::future::try_join_all((40..300).map(put)).await.unwrap();
    store.0.close(Close).await.unwrap();
    store.stop().await;
}

/// Puts the files of a directory back as they were.
fn restore(path: &Path, files: &std::collections::BTreeMap<PathBuf, Vec<u8>>) {
    fs::remove_dir_all(path).unwrap();
    for (file, bytes) in files {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, bytes).unwrap();
    }
}

/// Damages a directory and expects a typed error that contains `reason`, and untouched files; then
/// the restored directory works.
pub(super) fn damaged(kind: Kind, reason: &str, damage: impl Fn(&Path)) {
    let base = tempfile::tempdir().unwrap();
    let path = base.path().join("tasks");
    system(async {
        filled(kind, &path).await;
        let intact = snapshot(&path);
        damage(&path);
        let before = snapshot(&path);
        for _ in 0..2 {
            let error = open(kind, &path).await.map(|_| ()).unwrap_err();
            assert!(matches!(error, StoreError::Damaged { .. }), "{kind:?} {reason}: {error:?}");
            let text = error.to_string();
            assert!(text.contains(reason) && text.contains(&*path.display().to_string()), "{kind:?}: {text}");
            assert!(text.contains("Nothing was deleted"), "{kind:?}: {text}");
            assert!(snapshot(&path) == before, "{kind:?} {reason}: the files are as they were");
        }
        restore(&path, &intact);
        let (store, opened) = open(kind, &path).await.unwrap();
        assert_eq!((store.ids().await.len(), opened.unreadable.len()), (300, 0), "{kind:?}");
    });
}

#[test]
fn data_that_is_gone_or_cut_off_is_damage() {
    for kind in DATABASES {
        let cut = |part: u64| {
            move |path: &Path| {
                let file = fs::OpenOptions::new().write(true).open(data(kind, path)).unwrap();
                file.set_len(file.metadata().unwrap().len().checked_div(part).unwrap_or(0)).unwrap();
            }
        };
        damaged(kind, "its data is gone", cut(0));
        for part in [2, 3, 10] {
            damaged(kind, "", cut(part));
        }
        let name = data(kind, Path::new("")).display().to_string();
        damaged(kind, &format!("`{name}` is missing"), |path| fs::remove_file(data(kind, path)).unwrap());
    }
}

#[test]
fn garbage_is_damage() {
    for (kind, reason) in [(Kind::Sled, "gone or cut off"), (Kind::Redb, "redb")] {
        damaged(kind, reason, |path| fs::write(data(kind, path), vec![0xab; 1 << 20]).unwrap());
    }
}

/// A seal of a newer version, one that cannot be read, and one that knows of more than there is.
#[test]
fn a_seal_that_says_otherwise_is_believed() {
    for kind in DATABASES {
        for (reason, seal) in [
            ("format 7", r#"{"format":7,"batch":1}"#),
            ("callboard-store.json", "{"),
            ("changes or more are missing", r#"{"format":1,"batch":100000}"#),
        ] {
            damaged(kind, reason, |path| fs::write(path.join("callboard-store.json"), seal).unwrap());
        }
    }
}

/// Wherever bits are flipped: the directory is damaged, or nothing is missing. A corrupt page number
/// would end the whole process if redb followed it; sled has its records one by one.
#[test]
fn overwritten_parts_never_pass_for_less_data() {
    for (kind, places) in [(Kind::Sled, 20), (Kind::Redb, 100)] {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("tasks");
        system(async {
            filled(kind, &path).await;
            let intact = snapshot(&path);
            let bytes = intact[&data(kind, &path)].clone();
            let mut damaged = 0;
            for place in (0..places).map(|part| bytes.len() * part / places) {
                let mut broken = bytes.clone();
                broken.iter_mut().skip(place).take(64).for_each(|byte| *byte ^= 0xff);
                fs::write(data(kind, &path), &broken).unwrap();
                match open(kind, &path).await {
                    // Overwritten where nothing lies, or only something newer than what is known.
                    Ok((store, opened)) => {
                        let unreadable = opened.unreadable.len();
                        assert!(kind == Kind::Sled || unreadable == 0, "{kind:?} at {place}");
                        assert_eq!(store.ids().await.len() + unreadable, 300, "{kind:?} at {place}");
                        store.stop().await;
                    }
                    Err(error) => {
                        let typed = matches!(error, StoreError::Damaged { .. });
                        assert!(typed, "{kind:?} at {place}: {error:?}");
                        assert!(fs::read(data(kind, &path)).unwrap() == broken, "{kind:?} at {place}");
                        damaged += 1;
                    }
                }
                restore(&path, &intact);
            }
            assert!(damaged > 0, "{kind:?}");
        });
    }
}

/// Also where somebody else has made the directory, and everybody may look into it.
#[cfg(unix)]
#[test]
fn data_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;

    for kind in DATABASES {
        let base = tempfile::tempdir().unwrap();
        fs::set_permissions(base.path(), fs::Permissions::from_mode(0o755)).unwrap();
        system(async {
            let (store, _) = open(kind, base.path()).await.unwrap();
            store.put("a").await;
            store.stop().await;
        });
        let mode = data(kind, base.path()).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{kind:?}");
    }
}

#[test]
fn a_directory_has_one_store_of_this_process() {
    for kind in Kind::ALL {
        let base = tempfile::tempdir().unwrap();
        system(async {
            let (first, _) = open(kind, base.path()).await.unwrap();
            let error = open(kind, base.path()).await.map(|_| ()).unwrap_err();
            assert!(matches!(error, StoreError::InUse { .. }), "{kind:?}: {error:?}");
            assert!(error.to_string().contains(&*base.path().display().to_string()), "{kind:?}: {error}");
            first.put("a").await;
            first.stop().await;
        });
    }
}
