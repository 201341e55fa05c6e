//! Whether the system gives more threads. Libraries that need some do not always take a refusal well: they
//! panic, or wait for ever.

use std::io;
use std::sync::{Arc, Mutex, mpsc};

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
