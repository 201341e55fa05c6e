//! Whether the system gives more threads. Libraries that need some do not always take a refusal well: they
//! panic, or wait for ever.

use std::io;
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use futures::channel::oneshot;

/// Starts so many threads at once and lets them end; an error says how many the system gave, and why no more.
pub(crate) fn probe(needed: usize) -> Result<(), (usize, io::Error)> {
    // Each waits until they are let go.
    let (hold, held) = mpsc::channel::<()>();
    let held = Arc::new(Mutex::new(held));
    let mut threads = Vec::with_capacity(needed);
    let mut refusal = None;
    while threads.len() < needed && refusal.is_none() {
        let held = held.clone();
        let thread = std::thread::Builder::new().name("callboard-probe".to_owned()).stack_size(64 << 10);
        match thread.spawn(move || drop(held.lock().map(|held| held.recv()))) {
            Ok(thread) => threads.push(thread),
            Err(error) => refusal = Some(error),
        }
    }
    drop(hold);
    let given = threads.len();
    for thread in threads {
        thread.join().ok();
    }
    refusal.map_or(Ok(()), |error| Err((given, error)))
}

/// Does `work` on a thread of its own, so that whoever waits for it holds up nobody; and here and now where the
/// system gives none. `None` when it panicked.
pub(crate) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (tell, told) = oneshot::channel();
    let work = Arc::new(Mutex::new(Some(move || drop(tell.send(work())))));
    let take = |work: &Mutex<Option<_>>| work.lock().unwrap_or_else(PoisonError::into_inner).take();
    let theirs = work.clone();
    let thread = std::thread::Builder::new().name("callboard-aside".to_owned());
    let spawned = thread.spawn(move || {
        if let Some(work) = take(&theirs) {
            work();
        }
    });
    if spawned.is_err()
        && let Some(work) = take(&work)
    {
        work();
    }
    told.await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_aside_is_done_elsewhere_and_may_panic() {
        let here = std::thread::current().id();
        futures::executor::block_on(async {
            assert_ne!(aside(|| std::thread::current().id()).await, Some(here));
            assert_eq!(aside(|| assert!(std::thread::panicking(), "on purpose")).await, None);
        });
    }
}
