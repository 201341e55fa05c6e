//! What the system has to give before anything is begun: where it is too little, a message now is better
//! than a thread or a file that is missing in mid-run.

use std::fs::File;

use chrono::Datelike;

use super::exit::{Exit, Failure};
use crate::clock::Clock;
use crate::threads;

/// Descriptors of a service besides those of its stores and runs.
const DESCRIPTORS: usize = 40;
/// The same of one store.
const DESCRIPTORS_OF_STORE: usize = 24;
/// Threads of a service besides those of its stores.
const THREADS: usize = 15;
/// The same of one store.
const THREADS_OF_STORE: usize = 8;
/// Years that a clock may show.
const YEARS: std::ops::RangeInclusive<i32> = 1970..=9000;

/// An error where the system does not give what a service with so many stores needs.
pub(super) fn check(stores: usize) -> Result<(), Failure> {
    check_clock()?;
    check_descriptors(DESCRIPTORS + DESCRIPTORS_OF_STORE * stores)?;
    check_threads(THREADS + THREADS_OF_STORE * stores)
}

fn starved(message: String) -> Failure {
    Failure::new(Exit::Starved, message)
}

/// An error when the clock shows a time at which nobody runs this.
pub(super) fn check_clock() -> Result<(), Failure> {
    let now = Clock::system().now();
    if YEARS.contains(&now.year()) {
        return Ok(());
    }
    Err(starved(format!("the system's clock says that it is {now}; set it, and start again")))
}

fn check_descriptors(needed: usize) -> Result<(), Failure> {
    let mut files = Vec::with_capacity(needed);
    while files.len() < needed {
        match File::open("/dev/null") {
            Ok(file) => files.push(file),
            Err(error) => {
                return Err(starved(format!(
                    "a service needs {needed} file descriptors at least, and the system gives {}: {error}; raise \
                     the limit (`ulimit -n`, LimitNOFILE= of a systemd unit)",
                    files.len()
                )));
            }
        }
    }
    Ok(())
}

fn check_threads(needed: usize) -> Result<(), Failure> {
    threads::probe(needed).map_err(|(given, error)| {
        starved(format!(
            "a service needs {needed} threads at least, and the system gives {given}: {error}; raise the limit \
             (`ulimit -u`, TasksMax= of a systemd unit, `--pids-limit` of a container)"
        ))
    })
}
