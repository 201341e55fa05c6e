//! The signals that end a server and its scheduler.

use std::io;

use actix_rt::signal;
use futures::FutureExt;

use super::ECHO;
use crate::clock::Clock;
use crate::timer;

/// What somebody asks for by a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// To end in order.
    InOrder,
    /// To end at once.
    AtOnce,
}

/// Where signals arrive from the moment this is made.
pub(super) struct Signals {
    #[cfg(unix)]
    in_order: [signal::unix::Signal; 2],
    #[cfg(unix)]
    at_once: signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        use signal::unix::{SignalKind, signal};
        Ok(Self {
            in_order: [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?],
            at_once: signal(SignalKind::quit())?,
        })
    }

    /// The next signal.
    pub(super) async fn next(&mut self) -> Wish {
        let [interrupt, terminate] = &mut self.in_order;
        futures::select_biased! {
            _ = Box::pin(self.at_once.recv()).fuse() => Wish::AtOnce,
            _ = Box::pin(interrupt.recv()).fuse() => Wish::InOrder,
            _ = Box::pin(terminate.recv()).fuse() => Wish::InOrder,
        }
    }
}

#[cfg(not(unix))]
impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    /// The next Ctrl-C.
    pub(super) async fn next(&mut self) -> Wish {
        match signal::ctrl_c().await {
            Ok(()) => Wish::InOrder,
            // Nobody can ask in this way.
            Err(_) => futures::future::pending().await,
        }
    }
}

impl Signals {
    /// Waits for the signal that asks to end at once. `asked`: a signal to end in order has come before.
    pub(super) async fn again(mut self, asked: bool) {
        if !asked && self.next().await == Wish::AtOnce {
            return;
        }
        let echo = Box::pin(timer::sleep(&Clock::system(), ECHO));
        if !self.is_at_once_before(echo).await {
            self.next().await;
        }
    }

    /// Lets signals to end in order pass until `over`; says whether one to end at once came.
    async fn is_at_once_before<T>(&mut self, mut over: impl Future<Output = T> + Unpin) -> bool {
        loop {
            match futures::future::select(Box::pin(self.next()), &mut over).await {
                futures::future::Either::Left((Wish::AtOnce, _)) => return true,
                futures::future::Either::Left((Wish::InOrder, _)) => {}
                futures::future::Either::Right(_) => return false,
            }
        }
    }
}
