use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;

use actix::prelude::*;
use futures::FutureExt;
use tokio::task::JoinHandle;

use super::message::{Cancel, CancelAll, Contains, Count, Schedule, When};
use super::nudge::Nudged;
use super::run::{Run, RunToken, Slot};
use crate::clock::{Busy, Clock};
use crate::timer::{sleep, sleep_until};

/// The actor behind a [`KeyedScheduler`](super::KeyedScheduler): owns the ids and their futures,
/// which run on its arbiter. Understands [`keyed::message`](super::message).
pub struct KeyedActor<K> {
    name: Arc<str>,
    clock: Clock,
    live: HashMap<Arc<K>, Entry>,
}

struct Entry {
    token: RunToken,
    slot: Slot,
    task: JoinHandle<()>,
}

/// A run has come to its end.
pub(super) struct Ended<K> {
    pub(super) id: Arc<K>,
    pub(super) token: RunToken,
    /// Dropped with the message: a virtual clock waits until the id is free.
    pub(super) _busy: Busy,
}

impl<K: 'static> Message for Ended<K> {
    type Result = ();
}

impl<K: Eq + Hash + fmt::Debug + Send + Sync + 'static> KeyedActor<K> {
    pub(super) fn new(name: Arc<str>, clock: Clock) -> Self {
        Self { name, clock, live: HashMap::new() }
    }

    fn is_live(&self, id: &K) -> bool {
        // The future may have ended while the news of it is on its way.
        self.live.get(id).is_some_and(|entry| !entry.slot.has_ended())
    }

    /// Drops the future of an entry that is no longer in the table, unless it is `by` itself.
    fn cut(&self, id: &K, entry: &Entry, by: Option<RunToken>) {
        if by == Some(entry.token) {
            return;
        }
        if let Err(panic) = entry.slot.cut() {
            tracing::error!(scheduler = %self.name, ?id, %panic, "a keyed future panicked while it was cancelled");
        }
        entry.task.abort();
    }
}

// Nothing in it is ever pinned; an id need not be `Unpin`.
impl<K> Unpin for KeyedActor<K> {}

impl<K: 'static> Actor for KeyedActor<K> {
    type Context = Context<Self>;
}

impl<K: Eq + Hash + fmt::Debug + Send + Sync + 'static> Handler<Schedule<K>> for KeyedActor<K> {
    type Result = bool;

    fn handle(&mut self, message: Schedule<K>, ctx: &mut Self::Context) -> bool {
        let Schedule { id, when, work, busy } = message;
        if self.is_live(&id) {
            tracing::debug!(scheduler = %self.name, ?id, "the id is live; the second future is dropped");
            if let Err(panic) = super::end::guarded(|| drop(work)) {
                tracing::error!(scheduler = %self.name, ?id, %panic, "a second future panicked while it was dropped");
            }
            return false;
        }
        let (id, token) = (Arc::new(id), RunToken::fresh());
        let wait = wait(&self.clock, when);
        let slot = Slot::new(
            async move {
                drop(wait.await);
                work().await
            }
            .boxed_local(),
        );
        let run = Run {
            token,
            id: id.clone(),
            scheduler: self.name.clone(),
            slot: slot.clone(),
            clock: self.clock.clone(),
            actor: ctx.address(),
        };
        let task = actix_rt::spawn(Nudged::new(run, &self.clock));
        self.live.insert(id, Entry { token, slot, task });
        drop(busy);
        true
    }
}

impl<K: Eq + Hash + fmt::Debug + Send + Sync + 'static> Handler<Cancel<K>> for KeyedActor<K> {
    type Result = bool;

    fn handle(&mut self, Cancel { id, by, busy }: Cancel<K>, _: &mut Self::Context) -> bool {
        let entry = self.live.remove(&id).filter(|entry| !entry.slot.has_ended());
        match &entry {
            Some(entry) => self.cut(&id, entry, by),
            None => {
                tracing::warn!(scheduler = %self.name, ?id, "nothing is scheduled under this id; nothing was cancelled");
            }
        }
        drop(busy);
        entry.is_some()
    }
}

impl<K: Eq + Hash + fmt::Debug + Send + Sync + 'static> Handler<CancelAll> for KeyedActor<K> {
    type Result = usize;

    fn handle(&mut self, CancelAll { by, busy }: CancelAll, _: &mut Self::Context) -> usize {
        let mut live = std::mem::take(&mut self.live);
        live.retain(|_, entry| !entry.slot.has_ended());
        for (id, entry) in &live {
            self.cut(id, entry, by);
        }
        drop(busy);
        live.len()
    }
}

impl<K: Eq + Hash + fmt::Debug + Send + Sync + 'static> Handler<Contains<K>> for KeyedActor<K> {
    type Result = bool;

    fn handle(&mut self, Contains(id): Contains<K>, _: &mut Self::Context) -> bool {
        self.is_live(&id)
    }
}

impl<K: Eq + Hash + fmt::Debug + Send + Sync + 'static> Handler<Count> for KeyedActor<K> {
    type Result = usize;

    fn handle(&mut self, _: Count, _: &mut Self::Context) -> usize {
        self.live.values().filter(|entry| !entry.slot.has_ended()).count()
    }
}

impl<K: Eq + Hash + fmt::Debug + Send + Sync + 'static> Handler<Ended<K>> for KeyedActor<K> {
    type Result = ();

    fn handle(&mut self, ended: Ended<K>, _: &mut Self::Context) {
        // The id may belong to a successor by now.
        if self.live.get(&*ended.id).is_some_and(|entry| entry.token == ended.token) {
            self.live.remove(&*ended.id);
        }
    }
}

impl<K> fmt::Debug for KeyedActor<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedActor").field("name", &self.name).field("live", &self.live.len()).finish()
    }
}

/// Waits until it is time. The alarm is set before this returns.
fn wait(clock: &Clock, when: When) -> impl Future<Output = Busy> + use<> {
    match when {
        When::At(at) if at > clock.now() => sleep_until(clock, at).boxed_local(),
        When::After(delay) if !delay.is_zero() => sleep(clock, delay).boxed_local(),
        _ => std::future::ready(clock.busy()).boxed_local(),
    }
}
