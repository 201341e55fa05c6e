//! The `callboard` program: arguments become decided settings, settings become a run, a run
//! becomes an [`Exit`]. Nothing outside this folder prints.

mod args;
mod client;
mod control;
mod data;
mod exit;
mod handlers;
mod hold;
mod limits;
mod means;
mod next;
mod out;
mod protocol;
mod registration;
mod render;
mod secrets;
mod serve;
mod show;
mod signals;
mod store;
mod task;
mod terminal;
mod time;

use std::collections::BTreeSet;
use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

pub use exit::Exit;

use args::Command;
use exit::Failure;

/// Runs the program with the arguments of this process.
pub fn main() -> ExitCode {
    // A worker starts a companion of its own: what its commands have started ends with it.
    crate::executor::worker::run_if_asked(|| {
        limits::lower_nofile_as_told();
        // The pool has kept secrets from it.
        handlers::registry(handlers::Inherited::new(BTreeSet::new(), None, limits::umask_as_told()))
    });
    let umask = limits::own_umask();
    let args = match args::read(env::args_os()) {
        Ok(args) => args,
        Err(error) => {
            // Help and version come this way too, and are no failure.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Success }.into();
        }
    };
    let run = || match args.command {
        Command::Serve(serve) => serve::run(serve, umask),
        Command::Next(next) => next::run(next),
        Command::Version => {
            out::line(concat!("callboard ", env!("CARGO_PKG_VERSION")));
            out::line(&format!("time zones: {}", crate::timezones::named(&time::rules())));
            Ok(())
        }
        Command::Reap => handlers::reaper::run(),
        Command::Store(command) => store::run(command),
        Command::Control(command) => task::run(command),
    };
    // What is said about a panic is on standard error already.
    let result = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
        Err(Failure::new(Exit::Failed, "it failed in a way that it should not; see the message above"))
    });
    let exit = match result {
        Ok(()) => Exit::Success,
        Err(failure) => {
            out::note(&failure.message);
            failure.exit
        }
    };
    out::finish_stderr();
    exit.into()
}
