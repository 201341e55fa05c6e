//! A process that is killed while it changes a durable store: what it was told is there.
//!
//! The process is this test binary again, running only the test `serve_a_store`.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use callboard::store::contract::{sample, start};
use callboard::store::message::*;
use callboard::task::{OwnerId, RunId};
use chrono::TimeDelta;

use super::sled::{Running, id, moved_on, run};
use super::{Kind, system};

const PLACE: &str = "CALLBOARD_KILLED";
const KIND: &str = "CALLBOARD_KILLED_KIND";

#[test]
fn what_sled_acknowledged_survives_a_kill() {
    survives_a_kill(Kind::Sled);
}

#[test]
fn what_redb_acknowledged_survives_a_kill() {
    survives_a_kill(Kind::Redb);
}

#[test]
fn what_files_acknowledged_survives_a_kill() {
    survives_a_kill(Kind::File);
}

fn survives_a_kill(kind: Kind) {
    let base = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 0..3 {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "contract::killed::serve_a_store", "--nocapture", "--ignored"])
            .env(PLACE, base.path())
            .env(KIND, format!("{kind:?}"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut told = 0;
        // In the midst of the next changes.
        while told < 60 + round * 37 {
            if lines.next().unwrap().unwrap().starts_with("acknowledged") {
                told += 1;
            }
        }
        process.kill().unwrap();
        // What it managed to say before it died; the last line may be cut short.
        told += lines.map_while(Result::ok).filter(|line| line.starts_with("acknowledged ")).count();
        process.wait().unwrap();
        acknowledged += told;
        system(async {
            let (store, opened) = Running::open_with(kind.open(base.path())).await.unwrap();
            assert_eq!(opened.unreadable, []);
            let tasks = store.0.list(List).await.unwrap();
            assert!(tasks.len() >= acknowledged, "{} tasks of {acknowledged}", tasks.len());
            // Each task was put, then committed with two runs, of which the first ended. What the
            // process had not been told of yet, at most the last task, is there wholly or not.
            let mut ended = 0;
            for task in &tasks {
                let runs = store.0.runs(Runs { id: task.spec.id.clone(), limit: 9 }).await.unwrap();
                match (task.state.revision, runs.as_slice()) {
                    (1, []) => {}
                    (2, [second, first]) => {
                        assert!(second.id.serial > first.id.serial);
                        assert_eq!(task.state.due(), Some(start() + TimeDelta::days(1)));
                        ended += usize::from(
                            first.end.as_ref().is_some_and(|end| end.outcome.word() == "cancelled"),
                        );
                    }
                    other => panic!("{}: half a commit: {other:?}", task.spec.id),
                }
            }
            assert!(ended >= acknowledged, "{ended} ends of {acknowledged}");
            store.stop().await;
            // With what happened without having been acknowledged.
            acknowledged = ended;
        });
    }
}

#[test]
#[ignore = "the process that `survives_a_kill` kills"]
fn serve_a_store() {
    use callboard::task::{Outcome, RunEnd};

    let Some(path) = std::env::var_os(PLACE) else { return };
    let kind = Kind::named(&std::env::var(KIND).unwrap());
    system(async {
        let (store, _) = Running::open_with(kind.open(Path::new(&path))).await.unwrap();
        let there = store.ids().await.len() as u64;
        for serial in there.. {
            let name = format!("{serial:06}");
            let task = sample(&name, start());
            store.0.put(Put { task: task.clone(), expect: Expect::Absent }).await.unwrap();
            let (first, second) = (run(&name, serial * 2), run(&name, serial * 2 + 1));
            let mut change = moved_on(&task, vec![first, second]);
            if let Then::State(state) = &mut change.then
                && let Some(fire) = &mut state.next
            {
                fire.due += TimeDelta::days(1);
            }
            store.0.commit(Commit { changes: vec![change] }).await.unwrap();
            let run = RunId { owner: OwnerId(1), serial: serial * 2 };
            let end = RunEnd::unstarted(Outcome::Cancelled, start());
            store.0.finish(Finish { ends: vec![(run, id(&name), end)] }).await.unwrap();
            let mut out = std::io::stdout().lock();
            writeln!(out, "acknowledged {serial}").and_then(|()| out.flush()).unwrap();
        }
    });
}
