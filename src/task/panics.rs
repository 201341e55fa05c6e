//! Panics of the user's code: caught, with the place where they happened.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Once;
use std::task::Poll;

use super::panic_message;

/// The most of a backtrace that is kept: enough for a hundred calls.
const LONGEST: usize = 16 * 1024;

/// What is known of a panic.
pub(crate) struct Panic {
    pub(crate) message: String,
    pub(crate) backtrace: Option<Box<str>>,
}

struct Seen {
    place: String,
    backtrace: Backtrace,
}

thread_local! {
    /// Whether task code is being called on this thread.
    static LISTENING: Cell<bool> = const { Cell::new(false) };
    static SEEN: RefCell<Option<Seen>> = const { RefCell::new(None) };
}

/// Hooks into the report of panics, once for the process: only a hook is told where a panic
/// happened. It notes that for task code and leaves the rest to the hook that was there before. A
/// program that sets a hook of its own later on takes its place, and the messages are without
/// places.
pub(crate) fn listen() {
    static HOOKED: Once = Once::new();
    // A hook cannot be set by a thread that panics.
    if !std::thread::panicking() {
        HOOKED.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                note(info);
                before(info);
            }));
        });
    }
}

fn note(info: &PanicHookInfo<'_>) {
    // The thread may be at its end.
    if LISTENING.try_with(Cell::get) != Ok(true) {
        return;
    }
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let seen = Seen { place, backtrace: Backtrace::capture() };
    let _ = SEEN.try_with(|slot| slot.try_borrow_mut().map(|mut slot| *slot = Some(seen)));
}

/// Calls `code`; a panic ends here.
pub(crate) fn catch<T>(code: impl FnOnce() -> T) -> Result<T, Panic> {
    let outer = LISTENING.replace(true);
    // Of a panic that the code caught itself.
    drop(SEEN.take());
    let called = catch_unwind(AssertUnwindSafe(code));
    LISTENING.set(outer);
    called.map_err(|panic| Panic::new(panic, SEEN.take()))
}

/// Polls `work` to its end; a panic ends here.
pub(crate) fn catch_in<F: Future + Unpin>(mut work: F) -> impl Future<Output = Result<F::Output, Panic>> {
    poll_fn(move |cx| match catch(|| Pin::new(&mut work).poll(cx)) {
        Ok(polled) => polled.map(Ok),
        Err(panic) => Poll::Ready(Err(panic)),
    })
}

impl Panic {
    fn new(panic: Box<dyn Any + Send>, seen: Option<Seen>) -> Self {
        let panic = match panic.downcast::<Self>() {
            // It happened on another thread and has just been passed on.
            Ok(known) => return *known,
            Err(panic) => panic,
        };
        let text = panic_message(panic);
        let Some(Seen { place, backtrace }) = seen else { return Self { message: text, backtrace: None } };
        let captured = backtrace.status() == BacktraceStatus::Captured;
        let backtrace = captured.then(|| {
            let mut calls = backtrace.to_string();
            let end = (0..=LONGEST.min(calls.len())).rev().find(|end| calls.is_char_boundary(*end));
            calls.truncate(end.unwrap_or(0));
            calls.into_boxed_str()
        });
        Self { message: format!("{text} (at {place})"), backtrace }
    }

    /// Goes on as a panic of this thread, until it is caught here again.
    pub(crate) fn pass_on(self) -> ! {
        resume_unwind(Box::new(self))
    }
}
