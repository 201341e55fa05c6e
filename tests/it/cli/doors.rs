//! Whose directories and files a service trusts, and for whom those are that it makes.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Place, eventually};

const NOBODY: u32 = 65_534;

const CONFIG: &str = "
[task.often]
every = '200ms'
shell = 'umask'
[task.red]
every = '200ms'
shell = 'true'
store = 'red'
[task.files]
every = '200ms'
shell = 'umask'
store = 'files'
executor = 'pool'
[executor.pool]
type = 'processpool'
[store.red]
type = 'redb'
exports = { every = '1s' }
[store.files]
type = 'file'
[store.default]
type = 'sled'
";

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: it takes root");
    }
    root
}

/// Everything below a directory, and it, with its mode.
fn modes(path: &Path, found: &mut Vec<(PathBuf, u32)>) {
    let Ok(metadata) = fs::symlink_metadata(path) else { return };
    found.push((path.to_owned(), metadata.mode()));
    if metadata.is_dir() {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            modes(&entry.path(), found);
        }
    }
}

#[test]
fn whatever_the_mask_what_is_made_is_for_its_owner_alone() {
    // One that lets everybody in, and one that shuts out the owner as well.
    for mask in ["0000", "0777"] {
        let place = Place::new();
        place.config(CONFIG);
        let args = ["serve", "--config", "callboard.toml", "--data", "deep/data"];
        let mut child = Command::new("sh")
            .args(["-c", &format!("umask {mask}; exec \"$@\""), "sh", env!("CARGO_BIN_EXE_callboard")])
            .args(args)
            .current_dir(place.path())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let ask = |args: &[&str]| place.run(&[args, &["--data", "deep/data", "--json"]].concat());
        eventually("it is up", || ask(&["list"]).code == 0);
        let deep = place.path().join("deep");
        eventually("an export was taken", || {
            fs::read_dir(deep.join("data/store-redb.exports"))
                .is_ok_and(|mut exports| exports.next().is_some())
        });
        eventually("files were written", || deep.join("data/store-file/tasks/files.json").exists());
        // Commands have the mask that the service was started with.
        for id in ["often", "files"] {
            let said = format!("\"stdout\":\"{mask}\\n\"");
            eventually("a command has told its mask", || ask(&["inspect", id]).out.contains(&said));
        }
        let mut found = Vec::new();
        modes(&deep, &mut found);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found.len() > 20, "{found:?}");
        for (path, mode) in found {
            assert_eq!(mode & 0o077, 0, "{mask} {}: {mode:o}", path.display());
            assert_eq!(mode & 0o600, 0o600, "{mask} {}: {mode:o}", path.display());
        }
    }
}

#[test]
fn what_somebody_has_linked_to_is_not_written_to() {
    for name in [
        "callboard.lock",
        "store/callboard-store.lock",
        "store/callboard-store.json.new",
        "store/db",
        "store/conf",
        "store-redb/callboard-store.lock",
        "store-redb/tasks.redb.new",
        "store-redb/tasks.redb",
        "store-file/callboard-store.lock",
        "store-file/journal.jsonl",
        "store-file/callboard-files.json.new",
    ] {
        let place = Place::new();
        place.config(
            "[store.default]\ntype = 'sled'\n[store.red]\ntype = 'redb'\n[store.files]\ntype = 'file'\n",
        );
        let victim = place.path().join("victim");
        fs::write(&victim, "mine").unwrap();
        let link = place.data().join(name);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        fs::set_permissions(place.data(), fs::Permissions::from_mode(0o700)).unwrap();
        symlink(&victim, &link).unwrap();
        let mut child = place.command(&["serve", "--config", "callboard.toml"]).spawn().unwrap();
        // A service whose store does not work answers, too: with the trouble.
        const NO_SERVICE: i32 = 4;
        eventually("it has started or ended", || {
            child.try_wait().unwrap().is_some() || place.run(&["list"]).code != NO_SERVICE
        });
        child.kill().ok();
        child.wait().unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "mine", "{name}");
    }
}

#[test]
fn a_link_in_place_of_the_lock_is_named() {
    let place = Place::new();
    fs::create_dir(place.data()).unwrap();
    fs::write(place.path().join("victim"), "mine").unwrap();
    symlink(place.path().join("victim"), place.data().join("callboard.lock")).unwrap();
    let said = place.run(&["serve"]);
    assert!(said.code == 1 && said.err.contains("callboard.lock: it is a symbolic link"), "{said:?}");
    assert_eq!(fs::read_to_string(place.path().join("victim")).unwrap(), "mine");
}

/// A service that was run, so that there is a store; it belongs to somebody else then.
fn foreign() -> Place {
    let place = Place::new();
    place.serve(&[]).stop();
    let mut found = Vec::new();
    modes(&place.data(), &mut found);
    found.iter().for_each(|(path, _)| chown(path, Some(NOBODY), Some(NOBODY)).unwrap());
    place
}

#[test]
fn data_of_another_user_is_refused_unless_it_is_to_be_trusted() {
    if !is_root() {
        return;
    }
    let place = foreign();
    let export = ["store", "export", "all.jsonl"];
    for args in [&["serve"][..], &["store", "check"], &export] {
        let said = place.run(args);
        assert_eq!(said.code, 12, "{args:?}: {said:?}");
        assert!(said.err.contains("belongs to another user (id 65534)"), "{said:?}");
        assert!(said.err.contains("--trust-data"), "{said:?}");
    }
    assert_eq!(place.run(&["store", "check", "--trust-data"]).code, 0);
    place.serve(&["--trust-data"]).stop();
    // The directory is ours, and what is in it is not.
    chown(place.data(), Some(0), Some(0)).unwrap();
    assert_eq!(place.run(&["serve"]).code, 12);
    chown(place.data().join("callboard.lock"), Some(0), Some(0)).unwrap();
    chown(place.data().join("store"), Some(0), Some(0)).unwrap();
    let said = place.run(&["serve"]);
    assert!(said.code == 12 && said.err.contains("data/store/"), "{said:?}");
}

#[test]
fn a_directory_that_others_can_write_to_is_warned_of() {
    let place = Place::new();
    fs::create_dir(place.data()).unwrap();
    for (mode, told) in [(0o777, "others can write to"), (0o770, "others can write to"), (0o755, "look into")]
    {
        fs::set_permissions(place.data(), fs::Permissions::from_mode(mode)).unwrap();
        let service = place.spawn(&[]);
        service.line(told);
        service.line("running");
        service.stop();
    }
    // One in whose place anybody can put another.
    let open = place.path().join("open");
    fs::create_dir_all(open.join("data")).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    fs::set_permissions(open.join("data"), fs::Permissions::from_mode(0o700)).unwrap();
    let service = place.spawn(&["--data", "open/data"]);
    service.line("put another directory in the place of");
    service.line("running");
    service.stop();
}

/// Root's own directory that everybody may write to is nobody's in particular.
#[test]
fn a_directory_of_roots_that_everybody_can_write_to_is_refused_to_others() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    fs::create_dir(place.data()).unwrap();
    for (path, mode) in [(place.path(), 0o755), (&place.data(), 0o777)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    // Where the others cannot get at the program, there is nothing to try.
    let program = place.path().join("callboard");
    fs::copy(env!("CARGO_BIN_EXE_callboard"), &program).unwrap();
    let said = Command::new("setpriv")
        .args(["--reuid", "65534", "--clear-groups"])
        .arg(&program)
        .args(["serve", "--data", "data"])
        .current_dir(place.path())
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.code() == Some(12) && err.contains("everybody can write to"), "{err}");
}
