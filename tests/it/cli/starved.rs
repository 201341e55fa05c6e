//! Where the system gives too little, a service says so and ends with a code of its own: no panic, and no
//! hanging.

use std::path::Path;
use std::process::{Command, Stdio};

use super::{Place, drain, wait};

/// A command that is given little; how it ended, and what it said.
fn given(place: &Place, how: &[&str], program: &Path, args: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(how[0]);
    command.args(&how[1..]).arg(program).args(args).current_dir(place.path());
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let err = drain(child.stderr.take().unwrap());
    let status = wait(&mut child);
    (status.code(), err.join().unwrap())
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_callboard");

#[test]
fn too_few_descriptors_are_told() {
    let place = Place::new();
    for kind in ["sled", "redb", "file"] {
        place.config(&format!("[store.default]\ntype = '{kind}'\n"));
        for limit in [6, 8, 10, 12, 14, 16, 18, 20, 24, 28] {
            let limit = format!("--nofile={limit}:{limit}");
            let serve = ["serve", "--config", "callboard.toml"];
            let (code, err) = given(&place, &["prlimit", &limit], Path::new(PROGRAM), &serve);
            assert!(code == Some(11) && err.contains("file descriptors"), "{limit}: {code:?} {err}");
            assert!(!err.contains("panicked"), "{limit}: {err}");
        }
    }
    assert!(!place.path().join("callboard-data").exists(), "nothing was begun");
}

/// What is enough for the check is enough for the service.
#[test]
fn what_is_enough_is_enough() {
    for kind in ["sled", "redb", "file"] {
        let place = Place::new();
        place.config(&format!(
            "[store.default]\ntype = '{kind}'\n[task.often]\nevery = '100ms'\nshell = 'true'\n"
        ));
        let needed = (28..90).step_by(4).find(|limit| {
            let limit = format!("--nofile={limit}:{limit}");
            let args = ["serve", "--config", "callboard.toml", "--data", "/dev/null/none"];
            given(&place, &["prlimit", &limit], Path::new(PROGRAM), &args).0 != Some(11)
        });
        let limit = format!("ulimit -n {}; exec \"$@\"", needed.unwrap());
        let mut child = Command::new("sh")
            .args(["-c", &limit, "sh", PROGRAM, "serve", "--config", "callboard.toml", "--data", "data"])
            .current_dir(place.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        super::eventually("runs are executed", || {
            let said = place.run(&["inspect", "often", "--json"]);
            said.code == 0 && said.out.contains("\"executed\"")
        });
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// Limits on processes do not concern root.
#[test]
fn too_few_threads_are_told() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: it takes root, to become a user who has no other processes");
        return;
    }
    let place = Place::new();
    place.serve(&[]).stop();
    let user = (u32::MAX / 2 + std::process::id()).to_string();
    let own = Command::new("chown").args(["-R", &user]).arg(place.path()).status().unwrap();
    assert!(own.success());
    let program = place.path().join("callboard");
    std::fs::copy(PROGRAM, &program).unwrap();
    for limit in [1, 2, 3, 4, 6, 9] {
        let limit = format!("--nproc={limit}:{limit}");
        let how = ["setpriv", "--reuid", &user, "--clear-groups", "prlimit", &limit];
        let (code, err) = given(&place, &how, &program, &["serve", "--data", "data"]);
        assert!(code == Some(11) && err.contains("threads"), "{limit}: {code:?} {err}");
        // A store that cannot start its threads is not damaged.
        let (code, err) = given(&place, &how, &program, &["store", "check", "--data", "data"]);
        assert!(code == Some(1) && err.contains("needs 10 threads"), "{limit}: {code:?} {err}");
        assert!(!err.contains("panicked") && !err.contains("damaged"), "{limit}: {err}");
    }
}

/// A machine without a battery for its clock, and with one that is far off.
#[test]
fn a_clock_that_was_never_set_is_told() {
    let Some(library) = super::faketime() else { return };
    let place = Place::new();
    let preload = format!("LD_PRELOAD={}", library.display());
    for (time, expected) in [
        ("1700-01-01 00:00:00", 11),
        ("1901-01-01 00:00:00", 11),
        ("1903-01-01 00:00:00", 11),
        ("1969-12-31 00:00:00", 11),
    ] {
        let time = format!("FAKETIME={time}");
        for args in [&["serve", "--data", "data"][..], &["store", "check", "--data", "data"]] {
            let (code, err) = given(&place, &["env", &preload, &time], Path::new(PROGRAM), args);
            assert!(code == Some(expected) && err.contains("clock"), "{time} {args:?}: {code:?} {err}");
            assert!(!err.contains("panicked"), "{time}: {err}");
        }
        // What needs no service does its part.
        let next = ["next", "--count", "1", "0 3 * * *"];
        let (code, err) = given(&place, &["env", &preload, &time], Path::new(PROGRAM), &next);
        assert!(code == Some(0), "{time}: {code:?} {err}");
    }
}
