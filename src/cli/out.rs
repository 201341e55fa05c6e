//! Printing. A reader that went away is no reason to die: a service goes on without it, and a
//! command has simply said enough.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

static GONE: AtomicBool = AtomicBool::new(false);

/// One line to standard output.
pub(super) fn line(text: &str) {
    if GONE.load(Ordering::Relaxed) {
        return;
    }
    let mut out = io::stdout().lock();
    if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
        GONE.store(true, Ordering::Relaxed);
    }
}

/// A value as one line of JSON.
pub(super) fn to_json(value: &impl serde::Serialize) -> String {
    // What is printed here is made of strings, numbers and times: it can always be written.
    serde_json::to_string(value).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
}

/// One JSON value to standard output, in one line.
pub(super) fn json(value: &impl serde::Serialize) {
    line(&to_json(value));
}

/// A message for people to standard error.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "callboard: {text}");
}

/// How many lines wait for a reader that is slow, or a terminal that is halted.
const WAITING: usize = 10_000;

/// Prints on a thread of its own, for a service: whoever does not read holds up neither the signals
/// nor the control socket. What is too much is left out, and counted.
#[derive(Debug)]
pub(super) struct Printer {
    lines: SyncSender<String>,
    done: Receiver<()>,
    lost: usize,
}

impl Printer {
    pub(super) fn start() -> io::Result<Self> {
        let (lines, waiting) = sync_channel::<String>(WAITING);
        let (ended, done) = sync_channel(1);
        thread::Builder::new().name("callboard-out".to_owned()).spawn(move || {
            waiting.iter().for_each(|text| line(&text));
            let _ = ended.send(());
        })?;
        Ok(Self { lines, done, lost: 0 })
    }

    /// Hands a line over; never waits.
    pub(super) fn line(&mut self, text: String) {
        if self.lost > 0 {
            match self.lines.try_send(format!("({} lines were left out: nobody read them)", self.lost)) {
                Ok(()) => self.lost = 0,
                Err(_) => {
                    self.lost += 1;
                    return;
                }
            }
        }
        if let Err(TrySendError::Full(_)) = self.lines.try_send(text) {
            self.lost = 1;
        }
    }

    /// Waits a moment for what has not been read.
    pub(super) fn finish(self) {
        drop(self.lines);
        let _ = self.done.recv_timeout(Duration::from_secs(1));
    }
}
