//! Printing. A reader that went away is no reason to die: a service goes on without it, and a
//! command has simply said enough. A reader that does not read holds up a command, and never a
//! service.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::thread;
use std::time::Duration;

use super::secrets;
use super::terminal::{shown, visible_json};

static GONE: AtomicBool = AtomicBool::new(false);

/// Where a service says what is wrong; set once it is one.
static STDERR: OnceLock<Printer> = OnceLock::new();

/// One line of text to standard output.
pub(super) fn line(text: &str) {
    raw_line(&shown(text));
}

/// A value as one line of JSON.
pub(super) fn to_json(value: &impl serde::Serialize) -> String {
    // What is printed here is made of strings, numbers and times: it can always be written.
    let text = serde_json::to_string(value).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"));
    visible_json(text)
}

/// The same without what is secret.
pub(super) fn to_masked_json(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(mut value) => {
            secrets::mask(&mut value);
            to_json(&value)
        }
        Err(error) => format!("{{\"error\":\"{error}\"}}"),
    }
}

/// One JSON value to standard output, in one line.
pub(super) fn json(value: &impl serde::Serialize) {
    raw_line(&to_json(value));
}

/// A line that is JSON already.
pub(super) fn json_line(text: String) {
    raw_line(&visible_json(text));
}

fn raw_line(text: &str) {
    if GONE.load(Ordering::Relaxed) {
        return;
    }
    let mut out = io::stdout().lock();
    if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
        GONE.store(true, Ordering::Relaxed);
    }
}

/// A message for people to standard error.
pub(super) fn note(text: &str) {
    let lines = text.lines().map(shown).collect::<Vec<_>>().join("\n");
    let text = format!("callboard: {lines}");
    match STDERR.get() {
        Some(printer) => printer.line(text),
        None => drop(writeln!(io::stderr().lock(), "{text}")),
    }
}

/// From here on nothing that this process says on standard error waits for a reader: notes, logs and
/// reports of panics.
pub(super) fn never_wait_for_stderr() -> io::Result<()> {
    let printer = Printer::start(Stream::Err)?;
    if STDERR.set(printer).is_ok() {
        std::panic::set_hook(Box::new(report_panic));
    }
    Ok(())
}

fn report_panic(info: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let name = thread.name().unwrap_or("<unnamed>").to_owned();
    let mut text = format!("thread '{name}' {info}");
    let backtrace = std::backtrace::Backtrace::capture();
    if backtrace.status() == std::backtrace::BacktraceStatus::Captured {
        text = format!("{text}\n{backtrace}");
    }
    for line in text.lines() {
        log_line(line);
    }
}

/// A line of the log, to standard error.
fn log_line(text: &str) {
    let text = shown(text);
    match STDERR.get() {
        Some(printer) => printer.line(text),
        None => drop(writeln!(io::stderr().lock(), "{text}")),
    }
}

/// Writes each event of the log as a line.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        log_line(String::from_utf8_lossy(bytes).trim_end());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits a moment for what has not been read on standard error.
pub(super) fn finish_stderr() {
    if let Some(printer) = STDERR.get() {
        printer.finish();
    }
}

/// How much waits for a reader that is slow, or a terminal that is halted.
const MOST_BYTES: usize = 4 << 20;

/// How long the end of a service waits for what has not been read.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy)]
pub(super) enum Stream {
    Out,
    Err,
}

impl Stream {
    /// Waits for the reader. A stream that nobody will ever read again swallows everything.
    fn write(self, text: &str) {
        match self {
            Self::Out => raw_line(text),
            Self::Err => drop(writeln!(io::stderr().lock(), "{text}")),
        }
    }
}

/// Prints on a thread of its own, for a service: whoever does not read holds up nobody else. What
/// is too much is left out, and counted.
#[derive(Debug, Clone)]
pub(super) struct Printer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<String>,
    bytes: usize,
    lost: usize,
    /// Whether a line is being written.
    writing: bool,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Queue {
    fn push(&mut self, text: String) {
        if self.bytes + text.len() > MOST_BYTES {
            self.lost += 1;
            return;
        }
        if self.lost > 0 {
            self.lines.push_back(self.left_out());
            self.lost = 0;
        }
        self.bytes += text.len();
        self.lines.push_back(text);
    }

    fn left_out(&self) -> String {
        format!("({} lines were left out: nobody read them)", self.lost)
    }

    fn pop(&mut self) -> Option<String> {
        let next = self.lines.pop_front();
        if let Some(text) = &next {
            self.bytes = self.bytes.saturating_sub(text.len());
        }
        let lost = self.lost > 0;
        next.or_else(|| {
            let text = lost.then(|| self.left_out());
            self.lost = 0;
            text
        })
    }

    fn is_idle(&self) -> bool {
        self.lines.is_empty() && self.lost == 0 && !self.writing
    }
}

impl Printer {
    pub(super) fn start(stream: Stream) -> io::Result<Self> {
        let shared = Arc::new(Shared { queue: Mutex::default(), changed: Condvar::new() });
        let mine = shared.clone();
        let name = match stream {
            Stream::Out => "callboard-out",
            Stream::Err => "callboard-err",
        };
        thread::Builder::new().name(name.to_owned()).spawn(move || print(stream, &mine))?;
        Ok(Self(shared))
    }

    /// Hands a line over; never waits for a reader.
    pub(super) fn line(&self, text: String) {
        self.0.queue().push(text);
        self.0.changed.notify_all();
    }

    /// Waits a moment for what has not been read.
    pub(super) fn finish(&self) {
        let queue = self.0.queue();
        drop(self.0.changed.wait_timeout_while(queue, PATIENCE, |queue| !queue.is_idle()));
    }
}

/// The thread ends with the process.
fn print(stream: Stream, shared: &Shared) {
    let mut queue = shared.queue();
    loop {
        match queue.pop() {
            Some(text) => {
                queue.writing = true;
                drop(queue);
                stream.write(&text);
                queue = shared.queue();
                queue.writing = false;
                shared.changed.notify_all();
            }
            None => {
                let waited = shared.changed.wait(queue);
                queue = waited.unwrap_or_else(|poisoned| poisoned.into_inner());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_reads_is_counted_and_bounded() {
        let mut queue = Queue::default();
        for _ in 0..1000 {
            queue.push("x".repeat(10_000));
        }
        assert!(queue.bytes <= MOST_BYTES && queue.lost == 1000 - MOST_BYTES / 10_000, "{}", queue.lost);
        for _ in 0..2 {
            assert_eq!(queue.pop().unwrap().len(), 10_000);
        }
        queue.push("more".to_owned());
        let lines: Vec<String> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(lines[lines.len() - 2], "(581 lines were left out: nobody read them)");
        assert_eq!(lines.last().unwrap(), "more");
        assert!(queue.is_idle() && queue.bytes == 0);
        queue.lost = 3;
        assert_eq!(queue.pop().unwrap(), "(3 lines were left out: nobody read them)", "also at the end");
        assert!(queue.pop().is_none());
    }
}
