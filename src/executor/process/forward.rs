//! In a worker: events of `tracing` go to the pool, with the spans around them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::{Debug, Write};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{Interest, Subscriber};
use tracing::{Event, Level, Metadata};

use super::wire::{FromWorker, LINE, Line};
use super::worker::Outlet;

/// The finest level anybody wants, as a number of [`rank`].
static WANTED: AtomicU8 = AtomicU8::new(3);

thread_local! {
    /// The spans this thread is in, the innermost last.
    static ENTERED: RefCell<Vec<Id>> = const { RefCell::new(Vec::new()) };
}

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
    let forward = Forward { outlet, serial: AtomicU64::new(0), spans: Mutex::default() };
    let _ = tracing::subscriber::set_global_default(forward);
}

struct Forward {
    outlet: Outlet,
    serial: AtomicU64,
    spans: Mutex<HashMap<Id, Span>>,
}

/// A span that somebody holds.
struct Span {
    meta: &'static Metadata<'static>,
    fields: String,
    parent: Option<Id>,
    /// How many hold it, spans within it among them.
    holders: usize,
}

impl Span {
    /// The span of the run itself: the pool's event names task and run.
    fn is_of_the_run(&self) -> bool {
        self.meta.name() == "run" && self.meta.target() == crate::executor::pipeline::TARGET
    }
}

fn innermost() -> Option<Id> {
    ENTERED.try_with(|entered| entered.try_borrow().ok()?.last().cloned()).ok().flatten()
}

impl Forward {
    fn spans(&self) -> MutexGuard<'_, HashMap<Id, Span>> {
        self.spans.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The spans from the outermost down to `id`.
    fn around(&self, id: Option<Id>) -> String {
        let spans = self.spans();
        let outwards = std::iter::successors(id, |id| spans.get(id)?.parent.clone());
        let named = outwards.filter_map(|id| spans.get(&id)).filter(|span| !span.is_of_the_run());
        let mut named: Vec<_> = named.collect();
        named.reverse();
        let mut text = String::new();
        for Span { meta, fields, .. } in named {
            let colon = if text.is_empty() { "" } else { ":" };
            let _ = match fields.is_empty() {
                true => write!(text, "{colon}{}", meta.name()),
                false => write!(text, "{colon}{}{{{fields}}}", meta.name()),
            };
        }
        cut(text)
    }
}

impl Subscriber for Forward {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        // What is wanted changes from run to run.
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        rank(*metadata.level()) <= WANTED.load(Ordering::Relaxed)
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut text = Text::default();
        span.record(&mut text);
        let parent = match span.is_contextual() {
            true => innermost(),
            false => span.parent().cloned(),
        };
        let id = Id::from_u64(self.serial.fetch_add(1, Ordering::Relaxed).wrapping_add(1).max(1));
        let mut spans = self.spans();
        if let Some(parent) = parent.as_ref().and_then(|parent| spans.get_mut(parent)) {
            parent.holders += 1;
        }
        let fields = cut(text.into_fields());
        spans.insert(id.clone(), Span { meta: span.metadata(), fields, parent, holders: 1 });
        id
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        let mut text = Text::default();
        // The user's code, which may log.
        values.record(&mut text);
        if let Some(span) = self.spans().get_mut(id) {
            let space = if span.fields.is_empty() { "" } else { " " };
            span.fields = cut(format!("{}{space}{}", span.fields, text.into_fields()));
        }
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        let inner = match event.is_contextual() {
            true => innermost(),
            false => event.parent().cloned(),
        };
        let spans = if inner.is_some() { self.around(inner) } else { String::new() };
        let meta = event.metadata();
        let (level, target) = (meta.level().to_string(), meta.target().to_owned());
        self.outlet.say(&FromWorker::Log(Line { level, target, text: text.into_line(), spans }));
    }

    fn enter(&self, id: &Id) {
        let _ = ENTERED.try_with(|entered| entered.borrow_mut().push(id.clone()));
    }

    fn exit(&self, id: &Id) {
        let _ = ENTERED.try_with(|entered| {
            let mut entered = entered.borrow_mut();
            if let Some(at) = entered.iter().rposition(|entered| entered == id) {
                entered.remove(at);
            }
        });
    }

    fn clone_span(&self, id: &Id) -> Id {
        if let Some(span) = self.spans().get_mut(id) {
            span.holders += 1;
        }
        id.clone()
    }

    fn try_close(&self, id: Id) -> bool {
        let mut spans = self.spans();
        let mut closed = false;
        let mut next = Some(id);
        // The last span within another one lets go of that.
        while let Some(id) = next.take()
            && let Some(span) = spans.get_mut(&id)
        {
            span.holders -= 1;
            if span.holders == 0 {
                next = spans.remove(&id).and_then(|span| span.parent);
                closed = true;
            }
        }
        closed
    }
}

/// The message of an event, and fields.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    /// The fields behind the message.
    fn into_line(self) -> String {
        cut(self.message + &self.fields)
    }

    fn into_fields(mut self) -> String {
        if self.fields.starts_with(' ') {
            self.fields.remove(0);
        }
        self.fields
    }
}

/// Cuts a line that is too long.
fn cut(mut line: String) -> String {
    if line.len() > LINE {
        let cut = (0..=LINE).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
        let dropped = line.len() - cut;
        line.truncate(cut);
        let _ = write!(line, " [{dropped} bytes left out]");
    }
    line
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
