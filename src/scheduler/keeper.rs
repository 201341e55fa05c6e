//! Who looks after the actor of a store or an executor.

use actix::prelude::*;

use crate::clock::Clock;
use crate::executor::{ExecutorAddr, ExecutorSource};
use crate::store::{StoreAddr, StoreSource};
use crate::supervision::{ChildNotice, Dismiss, Guardian, GuardianStatus, Keep, RestartPolicy, Restore};
use crate::task::Alias;

/// What can start an actor, again if need be.
pub(super) trait Source: Send + 'static {
    type Address: Clone + Send + 'static;

    fn begin(&mut self, keep: Keep) -> Self::Address;
    fn is_supervised(&self) -> bool;
}

impl Source for Box<dyn StoreSource> {
    type Address = StoreAddr;

    fn begin(&mut self, keep: Keep) -> StoreAddr {
        self.start(keep)
    }

    fn is_supervised(&self) -> bool {
        self.supervised()
    }
}

impl Source for Box<dyn ExecutorSource> {
    type Address = ExecutorAddr;

    fn begin(&mut self, keep: Keep) -> ExecutorAddr {
        self.start(keep)
    }

    fn is_supervised(&self) -> bool {
        self.supervised()
    }
}

/// What looks after an actor.
pub(super) enum Keeper<S: Source> {
    /// Nobody yet: it has not been started.
    Source(S, RestartPolicy),
    /// A guardian of ours.
    Guardian(Addr<Guardian<S::Address>>),
    /// Somebody else.
    Owner(S::Address),
    /// Being replaced; never seen from outside.
    Moving,
}

impl<S: Source> Keeper<S> {
    /// Has the actor started. Its address is answered where it is there at once; otherwise
    /// `notices` hears of it.
    pub(super) fn raise(
        &mut self,
        alias: &Alias,
        clock: Clock,
        notices: Recipient<ChildNotice<S::Address>>,
    ) -> Option<S::Address> {
        match std::mem::replace(self, Self::Moving) {
            Self::Source(mut source, policy) if source.is_supervised() => {
                let factory = move |keep| source.begin(keep);
                let guardian = Guardian::new(alias.as_str(), policy, clock, factory, notices);
                *self = Self::Guardian(guardian.start());
                None
            }
            Self::Source(mut source, _) => {
                let addr = source.begin(Box::new(()));
                *self = Self::Owner(addr.clone());
                Some(addr)
            }
            Self::Owner(addr) => {
                *self = Self::Owner(addr.clone());
                Some(addr)
            }
            Self::Guardian(guardian) => {
                guardian.do_send(Restore);
                *self = Self::Guardian(guardian);
                None
            }
            Self::Moving => None,
        }
    }

    /// Ends when the actor was started, or could not be.
    pub(super) fn raised(&self) -> impl Future<Output = ()> + use<S> {
        let guardian = self.guardian();
        async move {
            if let Some(guardian) = guardian {
                guardian.send(GuardianStatus).await.ok();
            }
        }
    }

    /// Has the actor started again after its restarts were used up; ends when that is decided. Sent
    /// at once: it stands, however long somebody waits for it.
    pub(super) fn restore(&self) -> impl Future<Output = ()> + use<S> {
        if let Self::Guardian(guardian) = self {
            guardian.do_send(Restore);
        }
        self.raised()
    }

    /// Lets the actor end without a successor; ends when its guardian knows. Sent at once: it
    /// stands, however long somebody waits for it.
    pub(super) fn dismiss(&self) -> impl Future<Output = ()> + use<S> {
        if let Self::Guardian(guardian) = self {
            guardian.do_send(Dismiss);
        }
        self.raised()
    }

    fn guardian(&self) -> Option<Addr<Guardian<S::Address>>> {
        match self {
            Self::Guardian(guardian) => Some(guardian.clone()),
            _ => None,
        }
    }
}
