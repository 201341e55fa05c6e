//! In a worker: events of `tracing` go to the pool.

use std::fmt::{Debug, Write};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{Interest, Subscriber};
use tracing::{Event, Level, Metadata};

use super::wire::{FromWorker, LINE, Line};
use super::worker::Outlet;

/// The finest level anybody wants, as a number of [`rank`].
static WANTED: AtomicU8 = AtomicU8::new(3);

fn rank(level: Level) -> u8 {
    match level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        _ => 5,
    }
}

/// Nothing finer than `level` is passed on from now on.
pub(super) fn want(level: &str) {
    let level = level.parse().unwrap_or(LevelFilter::INFO);
    WANTED.store(level.into_level().map_or(0, rank), Ordering::Relaxed);
}

/// Passes events on, unless the program has a subscriber of its own already: what that prints goes
/// to the pool as well.
pub(super) fn install(outlet: Outlet) {
    let _ = tracing::subscriber::set_global_default(Forward { outlet, spans: AtomicU64::new(0) });
}

struct Forward {
    outlet: Outlet,
    spans: AtomicU64,
}

impl Subscriber for Forward {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        // What is wanted changes from run to run.
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        rank(*metadata.level()) <= WANTED.load(Ordering::Relaxed)
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(self.spans.fetch_add(1, Ordering::Relaxed).wrapping_add(1).max(1))
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        let meta = event.metadata();
        let (level, target) = (meta.level().to_string(), meta.target().to_owned());
        self.outlet.say(&FromWorker::Log(Line { level, target, text: text.into_line() }));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The message of an event, and its fields behind it.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    fn into_line(self) -> String {
        let mut line = self.message + &self.fields;
        if line.len() > LINE {
            let cut = (0..=LINE).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
            let dropped = line.len() - cut;
            line.truncate(cut);
            let _ = write!(line, " [{dropped} bytes left out]");
        }
        line
    }
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
