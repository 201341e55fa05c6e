//! What comes out of a worker becomes tracing events of this process.

use std::sync::Arc;

use tracing::Level;

use super::wire::{self, LINE};
use crate::task::{Alias, Run};

/// Bytes of an output stream, cut into lines of bounded length.
#[derive(Debug, Default)]
pub(super) struct Lines {
    partial: Vec<u8>,
    /// Bytes of the present line that were too many.
    dropped: usize,
}

impl Lines {
    /// Passes every line that is complete to `line`.
    pub(super) fn push(&mut self, bytes: &[u8], mut line: impl FnMut(&str)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            let kept = text.len().min(LINE - self.partial.len());
            self.partial.extend_from_slice(&text[..kept]);
            self.dropped += text.len() - kept;
            if ended {
                self.end(&mut line);
            }
        }
    }

    /// Passes on what has no end of line yet.
    pub(super) fn flush(&mut self, mut line: impl FnMut(&str)) {
        if !self.partial.is_empty() {
            self.end(&mut line);
        }
    }

    fn end(&mut self, line: &mut impl FnMut(&str)) {
        let text = String::from_utf8_lossy(&self.partial);
        let text = text.trim_end_matches('\r');
        match self.dropped {
            0 => line(text),
            dropped => line(&format!("{text} [{dropped} bytes left out]")),
        }
        self.partial.clear();
        self.dropped = 0;
    }
}

/// Whom a line is from.
#[derive(Debug)]
pub(super) struct Speaker {
    pub(super) executor: Alias,
    pub(super) pid: u32,
    /// The run that goes on.
    pub(super) run: Option<Arc<Run>>,
}

/// The target of everything that comes from workers.
const TARGET: &str = "callboard::worker";

/// For each level, with the level as a constant: tracing wants one.
macro_rules! for_level {
    ($level:expr, $go:ident) => {
        match $level {
            Level::ERROR => $go!(Level::ERROR),
            Level::WARN => $go!(Level::WARN),
            Level::INFO => $go!(Level::INFO),
            Level::DEBUG => $go!(Level::DEBUG),
            _ => $go!(Level::TRACE),
        }
    };
}

/// The finest level at which anybody listens to workers; `off` when nobody does.
pub(super) fn level() -> String {
    macro_rules! wanted {
        ($level:expr) => {
            tracing::enabled!(target: TARGET, $level)
        };
    }
    [Level::TRACE, Level::DEBUG, Level::INFO, Level::WARN, Level::ERROR]
        .into_iter()
        .find(|level| for_level!(*level, wanted))
        .map_or_else(|| "off".to_owned(), |level| level.to_string())
}

impl Speaker {
    /// A line of standard output or standard error.
    pub(super) fn printed(&self, stream: &'static str, text: &str) {
        self.say(if stream == "stderr" { Level::WARN } else { Level::INFO }, stream, text, "");
    }

    /// An event of the worker's own tracing.
    pub(super) fn logged(&self, line: &wire::Line) {
        self.say(line.level.parse().unwrap_or(Level::INFO), &line.target, &line.text, &line.spans);
    }

    fn say(&self, level: Level, origin: &str, text: &str, spans: &str) {
        let task = self.run.as_ref().map(|run| tracing::field::display(&run.task.id));
        let run = self.run.as_ref().map(|run| tracing::field::display(run.id));
        let spans = (!spans.is_empty()).then(|| tracing::field::display(spans));
        let (executor, pid) = (&self.executor, self.pid);
        macro_rules! event {
            ($level:expr) => {
                tracing::event!(target: TARGET, $level, task, run, %executor, pid, origin, spans, "{text}")
            };
        }
        for_level!(level, event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_where_they_end_or_get_too_long() {
        let mut lines = Lines::default();
        let mut said = Vec::new();
        for piece in [&b"one\r\nt"[..], b"wo\n\nthr", b"ee"] {
            lines.push(piece, |line| said.push(line.to_owned()));
        }
        assert_eq!(said, ["one", "two", ""]);
        lines.flush(|line| said.push(line.to_owned()));
        lines.flush(|line| said.push(line.to_owned()));
        assert_eq!(said[3..], ["three"]);
        said.clear();
        for _ in 0..3 {
            lines.push(&[b'x'; LINE / 2], |line| said.push(line.to_owned()));
        }
        lines.push(b"\nnext\n", |line| said.push(line.to_owned()));
        assert_eq!(said, [format!("{} [{} bytes left out]", "x".repeat(LINE), LINE / 2), "next".to_owned()]);
    }
}
