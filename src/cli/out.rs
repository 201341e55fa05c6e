//! Printing. A reader that went away is no reason to die: a service goes on without it, and a
//! command has simply said enough.

use std::cell::Cell;
use std::io::{self, Write};

thread_local! {
    static GONE: Cell<bool> = const { Cell::new(false) };
}

/// One line to standard output.
pub(super) fn line(text: &str) {
    if GONE.get() {
        return;
    }
    let mut out = io::stdout().lock();
    if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
        GONE.set(true);
    }
}

/// One JSON value to standard output, in one line.
pub(super) fn json(value: &impl serde::Serialize) {
    // What is printed here is made of strings, numbers and times: it can always be written.
    line(&serde_json::to_string(value).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}")));
}

/// A message for people to standard error.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "callboard: {text}");
}
