use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures::Stream;
use futures::channel::mpsc;

use super::Event;

/// Events as a stream, from `Handle::events`.
///
/// The stream has room for a fixed number of events. A reader that falls behind by more loses the
/// newest ones, and [`lagged`](Self::lagged) counts them: the scheduler never waits for a reader.
/// The stream ends when the scheduler does; dropping it ends the subscription.
///
/// ```
/// use callboard::prelude::*;
/// use futures::StreamExt;
///
/// # #[actix::main]
/// # async fn main() -> Result<(), callboard::Error> {
/// # let registry = Registry::new().register("sweep", |_: TaskContext, ()| async {});
/// # let scheduler = Scheduler::builder().registry(registry).start().await?;
/// let mut ends = scheduler.events(EventMask::RUN_ENDED).await?;
/// scheduler.add(Task::new("sweep").id("now").trigger(Interval::seconds(3600))).await?;
/// let event = ends.next().await;
/// assert!(matches!(&event, Some(Event::TaskExecuted(report)) if report.task_id().as_str() == "now"));
/// # scheduler.shutdown(Shutdown::default()).await
/// # }
/// ```
#[derive(Debug)]
pub struct EventStream {
    pub(super) events: mpsc::Receiver<Event>,
    pub(super) lagged: Arc<AtomicU64>,
}

impl EventStream {
    /// How many events were lost because the reader was too slow.
    pub fn lagged(&self) -> u64 {
        self.lagged.load(Ordering::Relaxed)
    }
}

impl Stream for EventStream {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        Pin::new(&mut self.events).poll_next(cx)
    }
}
