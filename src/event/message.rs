use actix::prelude::*;

use super::{Event, EventMask};
use crate::clock::Busy;

/// Names a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ListenerId(pub u64);

/// Events to hand to the listeners, in order. Sent by the scheduler.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Publish {
    /// What happened.
    pub events: Vec<Event>,
    /// Keeps a virtual clock still until the listeners have been told.
    pub busy: Busy,
}

/// Asks for events of some kinds. Each arrives as one [`Event`] message.
///
/// The bus never waits for a listener. A listener whose mailbox is closed is unsubscribed.
#[derive(Message)]
#[rtype(result = "ListenerId")]
pub struct Subscribe {
    /// Which kinds.
    pub mask: EventMask,
    /// Who gets them.
    pub listener: Recipient<Event>,
}

/// Ends a subscription; answers whether there was one.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "bool")]
pub struct Unsubscribe(pub ListenerId);

impl std::fmt::Debug for Subscribe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscribe").field("mask", &self.mask).finish_non_exhaustive()
    }
}
