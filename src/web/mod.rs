//! callboard in an actix-web server: one call that ends both in order (feature `web`).
//!
//! actix-web stops its whole actix system when a signal comes, and the scheduler's actors live in that
//! system: they would die with runs going on, whatever grace a later line asks for. [`run`] takes the
//! signals over and ends one after the other.

mod signals;

use std::fmt;
use std::io;
use std::time::Duration;

use actix_http::{Request, Response};
use actix_service::{IntoServiceFactory, Service, ServiceFactory};
use actix_web::HttpServer;
use actix_web::body::MessageBody;
use actix_web::dev::{AppConfig, Server, ServerHandle};
use futures::future::{Either, LocalBoxFuture, join, select};
use futures::{FutureExt, StreamExt};

use crate::clock::Clock;
use crate::error::Error;
use crate::event::EventMask;
use crate::scheduler::{Handle, SchedulerState, Shutdown};
use signals::{Signals, Wish};

/// Runs an actix-web server and a scheduler until one of them ends, and then ends both in order.
///
/// Await what it returns: nothing happens before. A scheduler that is stopped is started first.
///
/// What ends them is SIGINT or SIGTERM (Ctrl-C where there are no signals), a stop of the server through
/// its [handle](Run::server), or a shutdown of the scheduler, whichever comes first. Then:
///
/// ```text
/// no run begins any more, no connection is accepted
///   → requests may end, within the server's own `shutdown_timeout` (30 s unless set)
///   → runs may end, within the grace, which counts from the signal
///   → what has not ended is cut off as interrupted → stores are closed → the future is ready
/// ```
///
/// A second signal, half a second later or more, or SIGQUIT at any time, ends at once: runs are cut off
/// with the process, and a durable store tells of them as interrupted at the next start.
///
/// The server must leave signals alone: a `shutdown_signal` or `system_exit` that it was given stops the
/// actix system with the scheduler in it. Stop the server through [`Run::server`] instead.
///
/// ```no_run
/// use actix_web::web::Data;
/// use actix_web::{App, HttpServer};
/// use callboard::prelude::*;
///
/// #[actix_web::main]
/// async fn main() -> std::io::Result<()> {
///     let scheduler = Scheduler::builder().build().map_err(std::io::Error::other)?;
///     let data = Data::new(scheduler.clone());
///     let server = HttpServer::new(move || App::new().app_data(data.clone())).bind(("127.0.0.1", 8080))?;
///     callboard::web::run(server, scheduler).await?;
///     Ok(())
/// }
/// ```
pub fn run<F, I, S, B>(server: HttpServer<F, I, S, B>, scheduler: Handle) -> Run
where
    F: Fn() -> I + Send + Clone + 'static,
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Error: Into<actix_web::Error> + 'static,
    S::InitError: fmt::Debug,
    S::Response: Into<Response<B>> + 'static,
    <S::Service as Service<Request>>::Future: 'static,
    S::Service: 'static,
    B: MessageBody + 'static,
{
    Run { server: server.disable_signals().run(), scheduler, shutdown: Shutdown::default() }
}

/// A server and a scheduler that end together, from [`run`]: a future to await.
#[must_use = "nothing runs until it is awaited"]
pub struct Run {
    server: Server,
    scheduler: Handle,
    shutdown: Shutdown,
}

impl Run {
    /// How the scheduler is shut down. Default: [`Shutdown::default`], a grace of thirty seconds. The
    /// shutdown undoes all nested starts, because the program ends.
    pub fn shutdown(mut self, shutdown: Shutdown) -> Self {
        self.shutdown = shutdown;
        self
    }

    /// What stops the server, and with it the scheduler, without a signal: `stop(true)` of it.
    pub fn server(&self) -> ServerHandle {
        self.server.handle()
    }

    async fn until_ended(self) -> Result<(), WebError> {
        let Self { server, scheduler, shutdown } = self;
        // Listening begins before anything that takes time, so that a signal during the start ends what
        // was started instead of the process.
        let mut signals = Signals::new().map_err(WebError::Signals)?;
        let mut stops = scheduler.events(EventMask::SCHEDULER_SHUTDOWN).await?;
        if scheduler.status().await?.state == SchedulerState::Stopped {
            scheduler.start().await?;
        }
        let stop = server.handle();
        let mut server = server.fuse();
        let first = {
            let others = select(Box::pin(signals.next()), stops.next());
            match select(&mut server, others).await {
                Either::Left((ended, _)) => First::Server(ended),
                Either::Right((Either::Left((wish, _)), _)) => First::Signal(wish),
                Either::Right((Either::Right(_), _)) => First::Scheduler,
            }
        };
        let asked = matches!(first, First::Signal(_));
        let failed = match first {
            First::Signal(Wish::AtOnce) => return Err(WebError::CutOff),
            First::Server(Err(error)) => Some(WebError::Server(error)),
            _ => None,
        };
        let ending = async {
            let began = Clock::system().monotonic();
            // An error means that nothing runs: the shutdown says whether something is wrong.
            let quiet = scheduler.pause().map(drop);
            let closed = async {
                if futures::future::FusedFuture::is_terminated(&server) {
                    return Ok(());
                }
                // The server carries out the order to stop only while it is driven.
                join(stop.stop(true), &mut server).await.1
            };
            let ((), closed) = join(quiet, closed).await;
            let passed = Clock::system().monotonic().saturating_sub(began);
            let ended = scheduler.shutdown(shutdown.after(passed).force()).await;
            closed.map_err(WebError::Server)?;
            Ok(ended?)
        };
        match select(Box::pin(ending), Box::pin(signals.again(asked))).await {
            Either::Left((ended, _)) => failed.map_or(ended, Err),
            Either::Right(((), _)) => Err(WebError::CutOff),
        }
    }
}

impl IntoFuture for Run {
    type Output = Result<(), WebError>;
    type IntoFuture = LocalBoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.until_ended().boxed_local()
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("shutdown", &self.shutdown).finish_non_exhaustive()
    }
}

/// What has ended, or asked for the end, before anything else.
enum First {
    Signal(Wish),
    Server(io::Result<()>),
    Scheduler,
}

/// Why a server and a scheduler did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WebError {
    /// The server could not be started or failed; the scheduler was shut down in order.
    #[error("the HTTP server failed: {0}")]
    Server(#[source] io::Error),
    /// The scheduler could not be started, or ended by itself; the server was stopped.
    #[error(transparent)]
    Scheduler(#[from] Error),
    /// Nobody can be told of signals; nothing was started.
    #[error("cannot listen for signals: {0}")]
    Signals(#[source] io::Error),
    /// A second signal came: runs that went on are cut off with the process.
    #[error("stopped at once by a second signal; runs that went on are cut off")]
    CutOff,
}

impl From<WebError> for io::Error {
    fn from(error: WebError) -> Self {
        match error {
            WebError::Server(error) | WebError::Signals(error) => error,
            other => io::Error::other(other),
        }
    }
}

/// How long after a signal the same one is an echo of it: whoever stops a whole process group sends it
/// twice.
const ECHO: Duration = Duration::from_millis(500);
