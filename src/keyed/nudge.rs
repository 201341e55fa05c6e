use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};

use futures::task::AtomicWaker;

use crate::clock::{Busy, Clock};

/// A future that holds a virtual clock still from being woken until it has been polled: the time
/// between the two belongs to the work. On the machine's clock it adds nothing.
pub(super) struct Nudged<F> {
    inner: F,
    nudge: Option<Arc<Nudge>>,
}

/// The waker it gives to the future inside.
struct Nudge {
    clock: Clock,
    outer: AtomicWaker,
    state: Mutex<State>,
}

enum State {
    /// Waits for something; the clock may move.
    Quiet,
    /// Was woken, or has never been polled.
    Woken(#[expect(dead_code, reason = "held, not read")] Busy),
    /// Gone. Wakers that outlive the future must not hold the clock.
    Over,
}

impl<F> Nudged<F> {
    pub(super) fn new(inner: F, clock: &Clock) -> Self {
        let nudge = clock.is_virtual().then(|| {
            Arc::new(Nudge {
                clock: clock.clone(),
                outer: AtomicWaker::new(),
                state: Mutex::new(State::Woken(clock.busy())),
            })
        });
        Self { inner, nudge }
    }
}

impl<F: Future + Unpin> Future for Nudged<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        let Some(nudge) = &this.nudge else {
            return Pin::new(&mut this.inner).poll(cx);
        };
        nudge.outer.register(cx.waker());
        // Kept until this poll is over; being woken meanwhile brings a token of its own.
        let working = nudge.replace(State::Quiet);
        let waker = Waker::from(nudge.clone());
        let polled = Pin::new(&mut this.inner).poll(&mut Context::from_waker(&waker));
        drop(working);
        polled
    }
}

impl<F> Drop for Nudged<F> {
    fn drop(&mut self) {
        if let Some(nudge) = &self.nudge {
            drop(nudge.replace(State::Over));
        }
    }
}

impl Nudge {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Hands the old state out, because a token must not be dropped under the lock: that may wake
    /// whoever waits for the clock to settle.
    fn replace(&self, new: State) -> State {
        std::mem::replace(&mut *self.state(), new)
    }
}

impl Wake for Nudge {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        {
            let mut state = self.state();
            if matches!(*state, State::Quiet) {
                *state = State::Woken(self.clock.busy());
            }
        }
        self.outer.wake();
    }
}
