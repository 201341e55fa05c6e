//! From a started job to its end: the code is called, what it does is caught and given a name.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use serde_json::Value;

use super::Started;
use super::deadline::{Deadline, watches_time};
use super::job::timed_out;
use crate::task::panics::{Panic, catch};
use crate::task::{Code, Failure, Outcome, Run, TaskContext, TaskFuture};
use crate::timer;

/// The target of the span around a run.
#[cfg(all(unix, feature = "process"))]
pub(super) const TARGET: &str = module_path!();

impl Started {
    /// Runs the code and reports its end: a future for the thread it is made on. Dropping it cuts
    /// the run off; cancelling the run ends it at its next poll. Blocking code runs, and blocks,
    /// within the first poll.
    ///
    /// A run whose task has a [`timeout`](crate::task::Task::timeout) is timed out when it is over:
    /// asynchronous code is dropped, blocking code is asked to stop. Asynchronous code that has asked for
    /// time to end by itself ([`TaskContext::set_cancel_grace`]) is polled on for that time first.
    ///
    /// A panic of the code ends the run, never the thread.
    pub fn drive(self) -> Drive {
        let span = tracing::info_span!(
            "run",
            scheduler = %self.scheduler(),
            store = %self.run().store,
            task = %self.run().task.id,
            run = %self.run().id,
            attempt = self.run().attempt,
            executor = %self.executor(),
        );
        Drive { started: Some(self), future: None, context: None, deadline: Deadline::None, span }
    }
}

impl Started {
    /// Runs blocking code on this thread.
    pub(super) fn block(self) {
        let mut nothing = Context::from_waker(std::task::Waker::noop());
        // Blocking code is at its end after one poll.
        let _ = self.drive().poll_once(&mut nothing);
    }
}

/// A run going on. Made by [`Started::drive`].
pub struct Drive {
    /// Until the end.
    started: Option<Started>,
    /// From the first poll to the end, when the code is asynchronous.
    future: Option<TaskFuture>,
    /// Keeps a virtual clock still even when the code drops the context it was given.
    context: Option<TaskContext>,
    deadline: Deadline,
    span: tracing::Span,
}

impl Drive {
    /// Polls the code without leaving a waker for a cancellation: for one poll that is followed by
    /// another one soon.
    pub(super) fn poll_once(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(started) = &mut self.started else { return Poll::Ready(()) };
        // The code may drop the token it was given before its end is on its way.
        let _working = started.clock().busy();
        started.note_look();
        let asked = started.run().is_cancelled() && self.future.is_some();
        let polled = if asked && is_over(&mut self.deadline, started, cx) {
            Ok(Poll::Ready(stopped(started.run())))
        } else {
            let (future, context, deadline) = (&mut self.future, &mut self.context, &mut self.deadline);
            catch(|| self.span.in_scope(|| go_on(started, future, context, deadline, cx)))
        };
        let ended = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(outcome)) => Ok(outcome),
            Err(panic) => Err(panic),
        };
        let ended = self.drop_future().map_or(ended, Err);
        self.deadline = Deadline::None;
        match (self.started.take(), ended) {
            (Some(started), Ok(outcome)) => started.end(outcome),
            (Some(started), Err(panic)) => started.end_in(panic),
            (None, _) => {}
        }
        Poll::Ready(())
    }

    /// Drops what belongs to the code; the panic when that panics.
    fn drop_future(&mut self) -> Option<Panic> {
        let future = self.future.take()?;
        catch(|| self.span.in_scope(|| drop(future))).err()
    }
}

/// Whether code that was asked to stop has had its time to end by itself.
fn is_over(deadline: &mut Deadline, started: &Started, cx: &mut Context<'_>) -> bool {
    if !matches!(deadline, Deadline::Grace(_)) {
        let grace = started.run().cancel_grace();
        if grace.is_zero() || !watches_time(started.clock()) {
            return true;
        }
        *deadline = Deadline::Grace(Box::pin(timer::sleep_as_limit(started.clock(), grace)));
    }
    deadline.poll(cx).is_some()
}

/// What came of code that has ended by itself. An error is the answer of code that was asked to stop,
/// unless its work was over before.
fn came_to(run: &Run, result: Result<Value, Failure>) -> Outcome {
    let asked = run.is_cancelled() && (run.code.is_blocking() || !run.cancel_grace().is_zero());
    if asked && result.is_err() && run.work_over().is_none() { stopped(run) } else { outcome(result) }
}

/// How a run ends that is cut off because it was asked to stop.
fn stopped(run: &Run) -> Outcome {
    match run.task.timeout {
        Some(limit) if run.has_timed_out() => timed_out(limit),
        _ => Outcome::Cancelled,
    }
}

/// One step of the code: the call, and each poll.
fn go_on(
    started: &mut Started,
    future: &mut Option<TaskFuture>,
    kept: &mut Option<TaskContext>,
    deadline: &mut Deadline,
    cx: &mut Context<'_>,
) -> Poll<Outcome> {
    if future.is_none() {
        *deadline = started.deadline();
        let context = started.context();
        if started.clock().is_virtual() {
            *kept = Some(context.clone());
        }
        let run = started.run();
        match &run.code {
            Code::Async(code) => *future = Some(code.call(context, &run.task.args)),
            Code::Blocking(code) => {
                let result = code.call(context, &run.task.args);
                return Poll::Ready(came_to(run, result));
            }
        }
    }
    match future {
        Some(polled) => match polled.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(result) => {
                *future = None;
                Poll::Ready(came_to(started.run(), result))
            }
        },
        None => Poll::Pending,
    }
}

fn outcome(result: Result<Value, Failure>) -> Outcome {
    match result {
        Ok(value) => Outcome::Executed { value },
        Err(Failure::Refused(reason)) => Outcome::Refused { reason },
        Err(Failure::TimedOut(limit)) => timed_out(limit),
        Err(Failure::Interrupted(reason)) => Outcome::Interrupted { reason },
        Err(failure) => Outcome::Failed { error: failure.to_string() },
    }
}

impl Future for Drive {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.poll_once(cx).is_ready() {
            return Poll::Ready(());
        }
        let Some(started) = &self.started else { return Poll::Ready(()) };
        let run = started.run().clone();
        // The code has been polled since it was asked to stop; it, or the end of its time, wakes this.
        if matches!(self.deadline, Deadline::Grace(_)) {
            return Poll::Pending;
        }
        // Held until the end is on its way.
        let over = self.deadline.poll(cx);
        if over.is_some() {
            run.time_out();
        }
        if pin!(run.cancelled()).poll(cx).is_ready() { self.poll_once(cx) } else { Poll::Pending }
    }
}

impl Drop for Drive {
    fn drop(&mut self) {
        // Code that panics while it is dropped must not take the others with it. The job's own
        // drop reports the end.
        self.drop_future();
    }
}

impl std::fmt::Debug for Drive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Drive").field(&self.started).finish()
    }
}

impl TaskContext {
    /// Waits for `duration` of the scheduler's time. With a virtual clock this is what lets time
    /// pass while a run goes on.
    pub async fn sleep(&self, duration: Duration) {
        self.rest(timer::sleep(self.clock(), duration)).await;
    }
}
