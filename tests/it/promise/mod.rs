//! The promise, tested from outside: whatever moment a program is killed at, what it acknowledged
//! is there, and each run time has exactly one outcome.
//!
//! `kill` drives a program (`program`) that it kills again and again; `check` looks at what is left.

mod check;
mod kill;
mod program;

use std::path::Path;

use callboard::prelude::*;
use callboard::scheduler::Builder;
use callboard::store::{FileStore, RedbStore, SledStore};
use serde::{Deserialize, Serialize};

/// Where the program keeps its tasks, and where its tasks write what they did.
const STORE: &str = "store";
const LINES: &str = "lines";

/// A builder with the durable store of this kind, which keeps all run records.
fn durable(kind: &str, place: &Path) -> Builder {
    let path = place.join(STORE);
    let all = 1_000_000_000;
    match kind {
        "sled" => Scheduler::builder().store("default", SledStore::open(path).unwrap().history(all)),
        "redb" => Scheduler::builder().store("default", RedbStore::open(path).unwrap().history(all)),
        "file" => Scheduler::builder().store("default", FileStore::open(path).unwrap().history(all)),
        _ => panic!("no durable store is called {kind:?}"),
    }
}

/// What is done to a task while it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Deed {
    Add { period: u64 },
    Pause,
    Resume,
    Rename { name: String },
    Reschedule { period: u64 },
    Delete,
    Run,
}

/// What is to be known of a task, apart from its runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    paused: bool,
    name: String,
    /// In milliseconds.
    period: u64,
}

/// What the program says, one a line.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Said {
    /// It runs, and has this task.
    There { task: String, known: Known },
    /// That was all of them.
    Listed,
    /// It begins with a deed.
    Tries { task: String, deed: Deed },
    /// The deed was acknowledged.
    Did,
}

impl Deed {
    /// What becomes of a task.
    fn done(&self, task: Option<Known>) -> Option<Known> {
        match (self, task) {
            (Self::Add { period }, _) => Some(Known { paused: false, name: String::new(), period: *period }),
            (Self::Delete, _) | (_, None) => None,
            (deed, Some(mut known)) => {
                match deed {
                    Self::Pause => known.paused = true,
                    Self::Resume => known.paused = false,
                    Self::Rename { name } => known.name = name.clone(),
                    Self::Reschedule { period } => known.period = *period,
                    Self::Add { .. } | Self::Delete | Self::Run => {}
                }
                Some(known)
            }
        }
    }
}

/// Chance that is the same each time (xorshift).
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}
