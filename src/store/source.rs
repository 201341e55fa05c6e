use std::fmt;
use std::sync::mpsc;

use super::{Backend, Keep, StoreActor, StoreAddr, StoreSource};

/// Starts a [`StoreActor`] around a [`Backend`], and a successor when it dies: how a scheduler is
/// given a store of your own.
///
/// A backend that says that it is [`blocking`](super::Capabilities::blocking) gets an arbiter of its
/// own; the others live on the scheduler's.
///
/// ```
/// use callboard::store::{BackendSource, MemoryBackend};
///
/// // A fresh backend at each start, which connects when it is opened:
/// let database = BackendSource::new(MemoryBackend::default);
/// // The same backend, handed on from the dead actor to its successor:
/// let memory = BackendSource::keeping(MemoryBackend::default());
/// ```
pub struct BackendSource<B: Backend + Send> {
    make: Maker<B>,
}

enum Maker<B> {
    Fresh(Box<dyn FnMut() -> B + Send>),
    Kept { backend: Option<B>, heir: mpsc::Sender<B>, inherited: mpsc::Receiver<B> },
}

impl<B: Backend + Send> BackendSource<B> {
    /// Makes a backend for each start with `make`, which should not block: the work of connecting
    /// belongs into [`Backend::open`].
    pub fn new(make: impl FnMut() -> B + Send + 'static) -> Self {
        Self { make: Maker::Fresh(Box::new(make)) }
    }

    /// Hands `backend` to the first actor and, when that has died, on to the next one. Its
    /// [`open`](Backend::open) must repair what a panic may have left half done.
    pub fn keeping(backend: B) -> Self {
        let (heir, inherited) = mpsc::channel();
        Self { make: Maker::Kept { backend: Some(backend), heir, inherited } }
    }
}

impl<B: Backend + Send> StoreSource for BackendSource<B> {
    // A guardian starts a successor only after the end, when a kept backend is back. Started too
    // early, the actor has none and says so.
    fn start(&mut self, keep: Keep) -> StoreAddr {
        let actor = match &mut self.make {
            Maker::Fresh(make) => StoreActor::new(make()),
            Maker::Kept { backend, heir, inherited } => {
                match backend.take().or_else(|| inherited.try_recv().ok()) {
                    Some(backend) => StoreActor::new(backend).bequeath(heir.clone()),
                    None => StoreActor::vacant(),
                }
            }
        };
        let actor = actor.keep(keep);
        if actor.is_blocking() { actor.start_on_own_arbiter() } else { actor.start_store() }
    }

    fn keeps_closures(&self) -> Option<bool> {
        match &self.make {
            Maker::Kept { backend: Some(backend), .. } => Some(backend.capabilities().closures),
            Maker::Kept { backend: None, .. } | Maker::Fresh(_) => None,
        }
    }
}

impl<B: Backend + Send> fmt::Debug for BackendSource<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BackendSource<{}>", std::any::type_name::<B>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryBackend;
    use crate::store::message::*;

    #[test]
    fn a_store_started_too_early_says_so_and_works_when_the_backend_is_back() {
        actix_rt::System::new().block_on(async {
            let mut source = BackendSource::keeping(MemoryBackend::default());
            let (keep, ended) = futures::channel::oneshot::channel::<()>();
            let first = source.start(Box::new(keep));
            assert_eq!(first.next_due(NextDue).await.unwrap(), None);
            let early = source.start(Box::new(())).next_due(NextDue).await.unwrap_err();
            assert!(early.is_retryable() && early.to_string().contains("earlier actor"), "{early}");
            first.close(Close).await.unwrap();
            ended.await.unwrap_err();
            assert_eq!(source.start(Box::new(())).next_due(NextDue).await.unwrap(), None);
        });
    }
}
