//! The data directory vanishes under a running service, and comes back: real processes, real directories, a
//! real volume that is mounted and unmounted.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{Place, Service, eventually};

const KINDS: [&str; 3] = ["sled", "redb", "file"];

/// A service with a task in a store of this type that runs all the time, and one that hardly ever does.
fn served(kind: &str) -> (Place, Service) {
    let place = Place::new();
    place.config(&format!(
        "[scheduler]\nstore_retry = '200ms'\n[store.default]\ntype = '{kind}'\n\
         [task.often]\nevery = '200ms'\nshell = 'echo ran >> {}'\n\
         [task.rare]\ncron = '0 3 1 1 *'\nshell = 'true'\n",
        place.path().join("ran").display()
    ));
    let service = place.serve(&[]);
    service.line_with(&["often", "executed"]);
    (place, service)
}

fn away(place: &Place) -> PathBuf {
    place.path().join("away")
}

fn shell(command: &str, paths: &[&Path]) {
    let status = Command::new("sh").args(["-euc", command, "sh"]).args(paths).status().unwrap();
    assert!(status.success(), "{command} {paths:?}");
}

/// Copies a directory that is in use, as a backup of a running service does: what is gone when its turn comes
/// is left out.
fn copy_of_a_busy_one(from: &Path, to: &Path) {
    shell("cp -a \"$1\" \"$2\" 2>/dev/null || test -d \"$2\"", &[from, to]);
}

/// Removes a directory that is in use: what is made in it meanwhile has to be removed as well.
fn remove_a_busy_one(path: &Path) {
    eventually("it is removed", || {
        let removed = fs::remove_dir_all(path);
        removed.is_ok() || !path.exists()
    });
}

/// How many runs there were.
fn runs(place: &Place) -> usize {
    fs::read_to_string(place.path().join("ran")).unwrap_or_default().lines().count()
}

/// The store is down, loudly, and nothing runs: what is not written down is not begun.
fn is_down(place: &Place, service: &Service, because: &str) {
    let line = service.line_with(&["store", "default", because]);
    assert!(line.contains("put it back") || line.contains("put the one that was open back"), "{line}");
    let before = runs(place);
    std::thread::sleep(std::time::Duration::from_millis(700));
    assert!(runs(place) <= before + 1, "a run that was under way ends, and no other begins");
}

fn works_again(place: &Place, service: &Service) {
    service.line_with(&["default", "works again"]);
    service.line_with(&["often", "executed"]);
    eventually("the socket is there", || place.data().join("callboard.sock").exists());
    let ids: Vec<Value> = place.json(&["list", "--sort", "id"]).as_array().unwrap().clone();
    let ids: Vec<_> = ids.iter().map(|task| task["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["often", "rare"]);
}

#[test]
fn a_directory_is_moved_away_and_back() {
    for kind in KINDS {
        let (place, service) = served(kind);
        fs::rename(place.data(), away(&place)).unwrap();
        is_down(&place, &service, "the directory is missing");
        assert!(!place.data().exists(), "{kind}: nothing was made in its place");
        let said = place.run(&["list"]);
        assert!(said.code == 4 && said.err.contains("is missing"), "{kind}: {said:?}");
        // Whoever starts a service on it where it is now hears of the one that has it.
        let other = place.run(&["serve", "--data", "away"]);
        let pid = service.pid().to_string();
        assert!(other.code == 5 && other.err.contains(&pid), "{kind}: {other:?}");
        fs::rename(away(&place), place.data()).unwrap();
        works_again(&place, &service);
        service.stop();
    }
}

#[test]
fn a_directory_is_removed_and_restored() {
    for kind in KINDS {
        let (place, service) = served(kind);
        copy_of_a_busy_one(&place.data(), &away(&place));
        remove_a_busy_one(&place.data());
        is_down(&place, &service, "is gone");
        assert!(!place.data().exists(), "{kind}: nothing was made in its place");
        // The service looks for its directory once a second: what comes back sooner was never away.
        std::thread::sleep(std::time::Duration::from_secs(2));
        shell("cp -a \"$1\" \"$2\"", &[&away(&place), &place.data()]);
        // The copy of a busy database may lack its latest moments, or be no whole one.
        if kind == "file" {
            works_again(&place, &service);
        } else {
            service.line("the data directory data is back");
        }
        // The directory is this one's again: no other service can start on it.
        eventually("the lock is taken", || {
            let lock = fs::read_to_string(place.data().join("callboard.lock"));
            lock.is_ok_and(|pid| pid.trim() == service.pid().to_string())
        });
        let other = place.run(&["serve"]);
        assert!(other.code == 5, "{kind}: {other:?}");
        let mode = place.data().join("callboard.sock").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{kind}");
        service.kill();
    }
}

#[test]
fn a_backup_of_a_stopped_service_is_put_back_under_a_running_one() {
    for kind in KINDS {
        let (place, service) = served(kind);
        service.stop();
        shell("cp -a \"$1\" \"$2\"", &[&place.data(), &away(&place)]);
        let service = place.serve(&[]);
        service.line_with(&["often", "executed"]);
        remove_a_busy_one(&place.data());
        is_down(&place, &service, "is gone");
        shell("cp -a \"$1\" \"$2\"", &[&away(&place), &place.data()]);
        works_again(&place, &service);
        service.stop();
    }
}

#[test]
fn another_store_is_put_in_its_place() {
    for kind in KINDS {
        let (other, stranger) = served(kind);
        stranger.stop();
        let (place, service) = served(kind);
        fs::rename(place.data(), away(&place)).unwrap();
        shell("cp -a \"$1\" \"$2\"", &[&other.data(), &place.data()]);
        is_down(&place, &service, "is gone");
        eventually("it is known for what it is", || {
            place.run(&["pause", "rare"]).err.contains("another store is there")
        });
        fs::remove_dir_all(place.data()).unwrap();
        fs::rename(away(&place), place.data()).unwrap();
        works_again(&place, &service);
        service.stop();
    }
}

/// A volume that holds the data, mounted in a directory.
struct Volume<'a> {
    device: PathBuf,
    point: &'a Path,
}

impl<'a> Volume<'a> {
    /// `None`, with a notice, where nobody may mount anything.
    fn mounted(place: &Place, point: &'a Path) -> Option<Self> {
        let device = place.path().join("device");
        fs::create_dir_all(&device).unwrap();
        fs::create_dir_all(point).unwrap();
        let mount = |args: &[&str], on: &Path| {
            let status = Command::new("mount").args(args).arg(on).stderr(Stdio::null()).status();
            status.is_ok_and(|status| status.success())
        };
        if !mount(&["-t", "tmpfs", "-o", "size=64m,mode=700", "tmpfs"], &device) {
            println!("skipped: it takes a user who may mount a tmpfs");
            return None;
        }
        let volume = Self { device, point };
        volume.mount();
        Some(volume)
    }

    fn mount(&self) {
        shell("mount --bind \"$1\" \"$2\"", &[&self.device, self.point]);
    }

    fn unmount(&self) {
        shell("umount -l \"$1\"", &[self.point]);
    }
}

impl Drop for Volume<'_> {
    fn drop(&mut self) {
        for path in [self.point, &self.device] {
            Command::new("umount").arg("-l").arg(path).stderr(Stdio::null()).status().ok();
        }
    }
}

#[test]
fn its_volume_is_unmounted_and_mounted_again() {
    for kind in KINDS {
        let place = Place::new();
        let point = place.data();
        let Some(volume) = Volume::mounted(&place, &point) else { return };
        place.config(&format!(
            "[scheduler]\nstore_retry = '200ms'\n[store.default]\ntype = '{kind}'\n\
             [task.often]\nevery = '200ms'\nshell = 'echo ran >> {}'\n\
             [task.rare]\ncron = '0 3 1 1 *'\nshell = 'true'\n",
            place.path().join("ran").display()
        ));
        let service = place.serve(&[]);
        service.line_with(&["often", "executed"]);
        volume.unmount();
        is_down(&place, &service, "the directory is missing");
        assert_eq!(fs::read_dir(&point).unwrap().count(), 0, "{kind}: nothing is made on the mount point");
        volume.mount();
        works_again(&place, &service);
        service.stop();
        drop(volume);
    }
}

/// The store alone lies on a volume: its mount point is there, and empty.
#[test]
fn the_volume_of_the_store_alone_is_unmounted() {
    for (kind, name) in [("sled", "store"), ("redb", "store-redb"), ("file", "store-file")] {
        let place = Place::new();
        shell("mkdir -m 700 \"$1\"", &[&place.data()]);
        let point = place.data().join(name);
        let Some(volume) = Volume::mounted(&place, &point) else { return };
        place.config(&format!(
            "[scheduler]\nstore_retry = '200ms'\n[store.default]\ntype = '{kind}'\n\
             [task.often]\nevery = '200ms'\nshell = 'echo ran >> {}'\n\
             [task.rare]\ncron = '0 3 1 1 *'\nshell = 'true'\n",
            place.path().join("ran").display()
        ));
        let service = place.serve(&[]);
        service.line_with(&["often", "executed"]);
        volume.unmount();
        is_down(&place, &service, "the directory is empty");
        eventually("commands say so", || {
            let told = place.run(&["pause", "rare"]);
            told.code == 1 && told.err.contains("not mounted")
        });
        assert_eq!(fs::read_dir(&point).unwrap().count(), 0, "{kind}: nothing is made on the mount point");
        volume.mount();
        works_again(&place, &service);
        service.stop();
        drop(volume);
    }
}

/// Whoever takes the directory while it is away from this service does so loudly, and keeps it.
#[test]
fn another_service_that_has_taken_it_is_told_of() {
    let (place, service) = served("file");
    copy_of_a_busy_one(&place.data(), &away(&place));
    remove_a_busy_one(&place.data());
    is_down(&place, &service, "is gone");
    let other = place.serve(&["--data", "away"]);
    fs::rename(away(&place), place.data()).unwrap();
    service.line("another service has taken the data directory data");
    let ino = || place.data().join("callboard.sock").metadata().unwrap().ino();
    let theirs = ino();
    service.stop();
    assert_eq!(ino(), theirs, "its socket stays");
    other.stop();
}
