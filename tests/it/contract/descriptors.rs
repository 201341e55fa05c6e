//! Stores go on when everything else in the process has used up the file descriptors.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use callboard::store::contract::start;
use callboard::store::message::*;
use callboard::task::{Outcome, RunEnd};

use super::sled::{Running, id, moved_on, run};
use super::{Kind, system};

#[test]
fn a_store_goes_on_without_descriptors_of_others() {
    for kind in Kind::ALL {
        let base = tempfile::tempdir().unwrap();
        let child = Command::new("prlimit")
            .arg("--nofile=128:128")
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "contract::descriptors::use_them_up", "--nocapture", "--ignored"])
            .env("CALLBOARD_STARVED", base.path())
            .env("CALLBOARD_STARVED_KIND", format!("{kind:?}"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(said.contains("went on"), "{kind:?}: {said}{}", String::from_utf8_lossy(&child.stderr));
        system(async {
            let (store, opened) = Running::open_with(kind.open(base.path())).await.unwrap();
            assert_eq!((store.ids().await.len(), opened.unreadable.len()), (701, 0), "{kind:?}");
            store.stop().await;
        });
    }
}

#[test]
#[ignore = "the process of `a_store_goes_on_without_descriptors_of_others`"]
fn use_them_up() {
    let Some(path) = std::env::var_os("CALLBOARD_STARVED") else { return };
    let (path, kind) = (Path::new(&path), Kind::named(&std::env::var("CALLBOARD_STARVED_KIND").unwrap()));
    system(async {
        let (store, _) = Running::open_with(kind.open(path)).await.unwrap();
        let task = store.put("first").await;
        let mut taken = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            taken.push(file);
        }
        assert!(taken.len() > 20, "{}", taken.len());
        // More than a seal is renewed after.
        for number in 0..700 {
            store.put(&format!("{number:03}")).await;
        }
        store.0.commit(Commit { changes: vec![moved_on(&task, vec![run("first", 1)])] }).await.unwrap();
        let end = RunEnd::unstarted(Outcome::Cancelled, start());
        store.0.finish(Finish { ends: vec![(run("first", 1).id, id("first"), end)] }).await.unwrap();
        assert_eq!(store.0.runs(Runs { id: id("first"), limit: 9 }).await.unwrap().len(), 1);
        assert_eq!(store.0.check(Check).await.unwrap().tasks, 701);
        if kind == Kind::File {
            let begin = Instant::now();
            while !path.join("tasks/699.json").exists() {
                assert!(begin.elapsed() < Duration::from_secs(60), "its files are written");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        store.0.close(Close).await.unwrap();
        println!("\nwent on");
    });
}
