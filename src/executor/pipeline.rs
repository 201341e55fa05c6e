//! From a started job to its end: the code is called, what it does is caught and given a name.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use serde_json::Value;

use super::Started;
use crate::task::{Code, Failure, Outcome, TaskContext, TaskFuture, panic_message};
use crate::timer;

impl Started {
    /// Runs the code and reports its end: a future for the thread it is made on. Dropping it cuts
    /// the run off; cancelling the run ends it at its next poll. Blocking code runs, and blocks,
    /// within the first poll.
    ///
    /// A panic of the code ends the run, never the thread.
    pub fn drive(self) -> Drive {
        let span = tracing::info_span!(
            "run",
            task = %self.run().task.id,
            run = %self.run().id,
            attempt = self.run().attempt,
            executor = %self.executor(),
        );
        Drive { started: Some(self), future: None, context: None, span }
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
    span: tracing::Span,
}

impl Drive {
    /// Polls the code without leaving a waker for a cancellation: for one poll that is followed by
    /// another one soon.
    pub(super) fn poll_once(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(started) = &mut self.started else { return Poll::Ready(()) };
        // The code may drop the token it was given before its end is on its way.
        let _working = started.clock().busy();
        let polled = if started.run().is_cancelled() && self.future.is_some() {
            Ok(Poll::Ready(Outcome::Cancelled))
        } else {
            let (future, context) = (&mut self.future, &mut self.context);
            let turn = AssertUnwindSafe(|| self.span.in_scope(|| go_on(started, future, context, cx)));
            catch_unwind(turn)
        };
        let outcome = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(outcome)) => outcome,
            Err(panic) => Outcome::Panicked { message: panic_message(panic) },
        };
        let outcome = self.drop_future().map_or(outcome, |message| Outcome::Panicked { message });
        if let Some(started) = self.started.take() {
            started.end(outcome);
        }
        Poll::Ready(())
    }

    /// Drops what belongs to the code; the message when that panics.
    fn drop_future(&mut self) -> Option<String> {
        let future = self.future.take()?;
        catch_unwind(AssertUnwindSafe(|| self.span.in_scope(|| drop(future)))).err().map(panic_message)
    }
}

/// One step of the code: the call, and each poll.
fn go_on(
    started: &mut Started,
    future: &mut Option<TaskFuture>,
    kept: &mut Option<TaskContext>,
    cx: &mut Context<'_>,
) -> Poll<Outcome> {
    if future.is_none() {
        let context = started.context();
        if started.clock().is_virtual() {
            *kept = Some(context.clone());
        }
        let run = started.run();
        match &run.code {
            Code::Async(code) => *future = Some(code.call(context, &run.task.args)),
            Code::Blocking(code) => {
                let result = code.call(context, &run.task.args);
                // Code that stops because it was asked to says so by an error.
                let stopped = run.is_cancelled() && result.is_err();
                return Poll::Ready(if stopped { Outcome::Cancelled } else { outcome(result) });
            }
        }
    }
    match future {
        Some(polled) => match polled.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(result) => {
                *future = None;
                Poll::Ready(outcome(result))
            }
        },
        None => Poll::Pending,
    }
}

fn outcome(result: Result<Value, Failure>) -> Outcome {
    match result {
        Ok(value) => Outcome::Executed { value },
        Err(Failure::Refused(reason)) => Outcome::Refused { reason },
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
        let cancelled = match &self.started {
            Some(started) => pin!(started.run().cancelled()).poll(cx).is_ready(),
            None => false,
        };
        if cancelled { self.poll_once(cx) } else { Poll::Pending }
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
