//! How long a run may take.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use futures::future::{Either, select};
use tokio::sync::{mpsc, oneshot};

use super::Started;
use crate::clock::{Busy, Clock};
use crate::task::Run;
use crate::timer;

type Sleep = Pin<Box<dyn Future<Output = Busy> + Send>>;

/// What watches the time of one run.
pub(super) enum Deadline {
    /// Nothing: it may take as long as it likes, or has not begun.
    None,
    /// Who polls the code polls this.
    Timer(Sleep),
    /// The same, for the time that code has to end by itself since it was asked to stop.
    Grace(Sleep),
    /// The executor's keeper of deadlines, until this is dropped.
    Kept(#[expect(dead_code, reason = "its drop calls the keeper off")] oneshot::Sender<()>),
}

impl Started {
    /// The deadline of this run, which begins to run down.
    pub(super) fn deadline(&self) -> Deadline {
        let Some(limit) = self.run().task.timeout else { return Deadline::None };
        // An end that is there after a pause counts before the deadline that passed in it.
        let sleep: Sleep = Box::pin(timer::sleep_as_limit(self.clock(), limit));
        // Blocking code does not let its thread look at the time.
        if watches_time(self.clock()) && !self.run().code.is_blocking() {
            return Deadline::Timer(sleep);
        }
        let (deadline, off) = oneshot::channel();
        self.0.keeper().watch(Watch { run: self.run().clone(), sleep, off });
        Deadline::Kept(deadline)
    }
}

/// Whether whoever polls on this thread can wait for the time: a timer needs a runtime.
pub(super) fn watches_time(clock: &Clock) -> bool {
    clock.is_virtual() || tokio::runtime::Handle::try_current().is_ok()
}

impl Deadline {
    /// Whether the time is over. Says so once.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Option<Busy> {
        let (Self::Timer(sleep) | Self::Grace(sleep)) = self else { return None };
        let Poll::Ready(busy) = sleep.as_mut().poll(cx) else { return None };
        *self = Self::None;
        Some(busy)
    }
}

struct Watch {
    run: Arc<Run>,
    sleep: Sleep,
    off: oneshot::Receiver<()>,
}

/// Asks code to stop that nobody polls, when its time is over: a thread for each executor that has
/// such a run with a time-out, from its first one on.
#[derive(Default)]
pub(super) struct Keeper(OnceLock<Option<mpsc::UnboundedSender<Watch>>>);

impl Keeper {
    fn watch(&self, watch: Watch) {
        if let Some(thread) = self.0.get_or_init(start) {
            let _ = thread.send(watch);
        }
    }
}

/// Starts the thread, which ends when nothing is sent to it any more.
fn start() -> Option<mpsc::UnboundedSender<Watch>> {
    let (sender, mut watches) = mpsc::unbounded_channel::<Watch>();
    let work = move || match actix_rt::Runtime::new() {
        Ok(runtime) => runtime.block_on(async {
            while let Some(watch) = watches.recv().await {
                actix_rt::spawn(watch.keep());
            }
        }),
        Err(error) => tracing::error!(%error, "blocking code is not told when its timeout is over"),
    };
    let thread = std::thread::Builder::new().name("callboard-deadline".to_owned());
    match thread.spawn(work) {
        Ok(_) => Some(sender),
        Err(error) => {
            tracing::error!(%error, "blocking code is not told when its timeout is over");
            None
        }
    }
}

impl Watch {
    async fn keep(self) {
        if let Either::Left((busy, _)) = select(self.sleep, self.off).await {
            // Whoever waits for it is not ours, and may panic.
            let _ = catch_unwind(AssertUnwindSafe(|| self.run.time_out()));
            drop(busy);
        }
    }
}
