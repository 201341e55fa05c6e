//! What this process logs: one ear for all tests.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Mutex, OnceLock};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

pub(crate) type Fields = BTreeMap<String, String>;

/// An event of the log.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) target: String,
    pub(crate) level: Level,
    pub(crate) fields: Fields,
    /// Those of the innermost span.
    pub(crate) span: Fields,
}

/// What callboard, its workers and the targets of these tests log, on any thread, from the first call on.
pub(crate) fn heard() -> &'static Mutex<Vec<Line>> {
    static HEARD: OnceLock<Mutex<Vec<Line>>> = OnceLock::new();
    HEARD.get_or_init(|| {
        let subscriber = tracing_subscriber::registry().with(Ear);
        tracing::subscriber::set_global_default(subscriber).unwrap();
        Mutex::default()
    })
}

struct Ear;

struct Read<'a>(&'a mut Fields);

impl Visit for Read<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Ear {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        let most = if metadata.target() == "callboard::worker" { Level::DEBUG } else { Level::INFO };
        *metadata.level() <= most
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::new();
        attributes.record(&mut Read(&mut fields));
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::new();
        event.record(&mut Read(&mut fields));
        let span = context.event_span(event);
        let span = span.and_then(|span| span.extensions().get::<Fields>().cloned()).unwrap_or_default();
        let metadata = event.metadata();
        let line = Line { target: metadata.target().to_owned(), level: *metadata.level(), fields, span };
        heard().lock().unwrap().push(line);
    }
}
