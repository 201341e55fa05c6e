use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use actix::prelude::*;
use futures::channel::mpsc;

use super::{Event, EventMask, EventStream, ListenerId, Publish, Subscribe, Unsubscribe};

/// The most events a stream may have room for: more than fit into memory. The channel bears no
/// number near that of all integers.
const MOST: usize = 1 << 28;

/// Hands events to the listeners that asked for their kind. Owns the subscriptions.
#[derive(Default)]
pub struct EventBus {
    listeners: Vec<Listener>,
    last_id: u64,
    watcher: Option<Recipient<Wanted>>,
}

struct Listener {
    id: ListenerId,
    mask: EventMask,
    ear: Ear,
}

enum Ear {
    Actor(Recipient<Event>),
    Stream { events: mpsc::Sender<Event>, lagged: Arc<AtomicU64> },
}

/// The kinds that anybody wants, for the publisher: other events need not be built.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub(crate) struct Wanted(pub EventMask);

/// Tells the bus who wants to know which kinds are wanted; answered by a first [`Wanted`].
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Watch(pub Recipient<Wanted>);

/// Asks for a stream of events.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "EventStream")]
pub(crate) struct OpenStream {
    pub mask: EventMask,
    pub capacity: usize,
}

impl EventBus {
    /// A bus without listeners.
    pub fn new() -> Self {
        Self::default()
    }

    fn wanted(&self) -> EventMask {
        self.listeners.iter().fold(EventMask::empty(), |all, listener| all | listener.mask)
    }

    fn tell_watcher(&self) {
        if let Some(watcher) = &self.watcher {
            watcher.do_send(Wanted(self.wanted()));
        }
    }

    fn add(&mut self, mask: EventMask, ear: Ear) -> ListenerId {
        self.last_id += 1;
        let id = ListenerId(self.last_id);
        self.listeners.push(Listener { id, mask, ear });
        self.tell_watcher();
        id
    }
}

impl Listener {
    /// Hands over one event; `false` when the listener is gone.
    fn hear(&mut self, event: &Event) -> bool {
        match &mut self.ear {
            Ear::Actor(listener) => {
                if !listener.connected() {
                    return false;
                }
                // `do_send` never waits and never drops for want of room: a slow listener costs
                // its own mailbox only.
                listener.do_send(event.clone());
                true
            }
            Ear::Stream { events, lagged } => match events.try_send(event.clone()) {
                Ok(()) => true,
                Err(error) if error.is_full() => {
                    lagged.fetch_add(1, Ordering::Relaxed);
                    true
                }
                Err(_) => false,
            },
        }
    }
}

impl Actor for EventBus {
    type Context = Context<Self>;
}

impl Handler<Publish> for EventBus {
    type Result = ();

    fn handle(&mut self, Publish { events, busy }: Publish, _: &mut Self::Context) {
        let before = self.listeners.len();
        self.listeners.retain_mut(|listener| {
            let mask = listener.mask;
            events.iter().filter(|event| mask.intersects(event.mask())).all(|event| listener.hear(event))
        });
        if self.listeners.len() != before {
            self.tell_watcher();
        }
        drop(busy);
    }
}

impl Handler<Subscribe> for EventBus {
    type Result = MessageResult<Subscribe>;

    fn handle(&mut self, request: Subscribe, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.add(request.mask, Ear::Actor(request.listener)))
    }
}

impl Handler<Unsubscribe> for EventBus {
    type Result = bool;

    fn handle(&mut self, Unsubscribe(id): Unsubscribe, _: &mut Self::Context) -> bool {
        let before = self.listeners.len();
        self.listeners.retain(|listener| listener.id != id);
        self.tell_watcher();
        self.listeners.len() != before
    }
}

impl Handler<OpenStream> for EventBus {
    type Result = MessageResult<OpenStream>;

    fn handle(&mut self, request: OpenStream, _: &mut Self::Context) -> Self::Result {
        let (sender, events) = mpsc::channel(request.capacity.min(MOST));
        let lagged = Arc::new(AtomicU64::new(0));
        self.add(request.mask, Ear::Stream { events: sender, lagged: lagged.clone() });
        MessageResult(EventStream { events, lagged })
    }
}

impl Handler<Watch> for EventBus {
    type Result = ();

    fn handle(&mut self, Watch(watcher): Watch, _: &mut Self::Context) {
        self.watcher = Some(watcher);
        self.tell_watcher();
    }
}

impl std::fmt::Debug for EventBus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventBus").field("listeners", &self.listeners.len()).finish_non_exhaustive()
    }
}
