use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use actix::prelude::*;

use super::message::*;
use super::obituary::{Birth, Obituary};
use super::{Death, Link, LinkOwner, RestartHistory, RestartPolicy, Verdict};
use crate::clock::{Busy, Clock};
use crate::timer;

/// What a child keeps among its fields for as long as it lives: its drop is the child's ending.
pub type Keep = Box<dyn Send>;

/// Keeps one child alive as its [`RestartPolicy`] says. `A` is the child's address, of any kind.
///
/// Starting the guardian starts the child. The guardian ends when nobody holds its address and the
/// child is dead; dropping its address alone does not stop the child.
///
/// ```
/// use actix::prelude::*;
/// use callboard::clock::Clock;
/// use callboard::supervision::{ChildNotice, Dismiss, Guardian, Keep, Link, LinkOwner, RestartPolicy};
///
/// struct Prompter(#[expect(dead_code)] Keep);
/// impl Actor for Prompter {
///     type Context = Context<Self>;
/// }
///
/// /// Leads the link to each new prompter.
/// struct Owner(LinkOwner<Addr<Prompter>>);
/// impl Actor for Owner {
///     type Context = Context<Self>;
/// }
/// impl Handler<ChildNotice<Addr<Prompter>>> for Owner {
///     type Result = ();
///     fn handle(&mut self, notice: ChildNotice<Addr<Prompter>>, _: &mut Self::Context) {
///         use callboard::supervision::ChildChange;
///         match notice.change {
///             ChildChange::Started { child, .. } => self.0.point_to(child),
///             _ => self.0.cut(),
///         }
///     }
/// }
///
/// System::new().block_on(async {
///     let (owner, link) = Link::new();
///     let owner = Owner(owner).start();
///     let guardian = Guardian::new(
///         "prompter",
///         RestartPolicy::on_failure(),
///         Clock::system(),
///         |keep| Prompter(keep).start(),
///         owner.recipient(),
///     )
///     .start();
///     assert!(link.wait().await.is_some());
///     guardian.send(Dismiss).await.unwrap();
/// });
/// ```
pub struct Guardian<A: Clone + Send + 'static> {
    name: Arc<str>,
    policy: RestartPolicy,
    clock: Clock,
    factory: Box<dyn FnMut(Keep) -> A>,
    notices: Recipient<ChildNotice<A>>,
    generation: u64,
    state: ChildState,
    history: RestartHistory,
    seed: u64,
    /// The wait for the next restart.
    wait: Option<SpawnHandle>,
    /// Keeps a virtual clock still until the first child has been started.
    beginning: Option<Busy>,
}

impl<A: Clone + Send + 'static> Guardian<A> {
    /// A guardian that will start its child through `factory`, which is called again for each
    /// successor, and tell `notices` about it.
    ///
    /// The factory must hand its argument to the actor it starts, and the actor must keep it: when
    /// it is dropped, the child counts as dead, and when the factory itself drops it, as one that [never
    /// started](Death::NotStarted). A factory that panics counts as a child that did.
    pub fn new(
        name: impl Into<Arc<str>>,
        policy: RestartPolicy,
        clock: Clock,
        factory: impl FnMut(Keep) -> A + 'static,
        notices: Recipient<ChildNotice<A>>,
    ) -> Self {
        Self {
            name: name.into(),
            policy,
            beginning: Some(clock.busy()),
            clock,
            factory: Box::new(factory),
            notices,
            generation: 0,
            state: ChildState::Ended,
            history: RestartHistory::default(),
            // Chance, so that jitter keeps those apart that died together, in this process or in many.
            seed: RandomState::new().hash_one(()),
            wait: None,
        }
    }

    /// Starts a guardian, and answers with the link that leads to its child and to each successor:
    /// for who only wants to reach the child. To be called inside of an actix system; the link is cut
    /// while the child is down.
    ///
    /// ```
    /// use actix::prelude::*;
    /// use callboard::clock::Clock;
    /// use callboard::supervision::{Guardian, Keep, RestartPolicy};
    ///
    /// struct Prompter(#[expect(dead_code)] Keep);
    /// impl Actor for Prompter {
    ///     type Context = Context<Self>;
    /// }
    ///
    /// System::new().block_on(async {
    ///     let policy = RestartPolicy::always();
    ///     let (guardian, prompter) =
    ///         Guardian::linked("prompter", policy, Clock::system(), |keep| Prompter(keep).start());
    ///     assert!(prompter.wait().await.is_some_and(|addr| addr.connected()));
    /// #   drop(guardian);
    /// });
    /// ```
    pub fn linked(
        name: impl Into<Arc<str>>,
        policy: RestartPolicy,
        clock: Clock,
        factory: impl FnMut(Keep) -> A + 'static,
    ) -> (Addr<Self>, Link<A>) {
        let (owner, link) = Link::new();
        let guardian = Self::new(name, policy, clock, factory, Pointer(owner).start().recipient());
        (guardian.start(), link)
    }

    fn tell(&self, change: ChildChange<A>) {
        self.notices.do_send(ChildNotice { name: self.name.clone(), change, busy: self.clock.busy() });
    }

    fn start_child(&mut self, cause: Option<Death>, ctx: &mut Context<Self>) {
        self.generation += 1;
        let birth = Birth::begin();
        let obituary = Obituary {
            generation: self.generation,
            clock: self.clock.clone(),
            guardian: ctx.address().recipient(),
            birth: birth.clone(),
        };
        self.state = ChildState::Alive;
        // What the obituary itself has to say comes later, and is then known already.
        match catch_unwind(AssertUnwindSafe(|| (self.factory)(Box::new(obituary)))) {
            Ok(child) => match birth.end() {
                None => self.tell(ChildChange::Started { child, cause }),
                Some(death) => self.child_died(death, ctx),
            },
            Err(_) => self.child_died(Death::Panicked, ctx),
        }
    }

    /// Does what the policy says about the death of the present child.
    fn child_died(&mut self, death: Death, ctx: &mut Context<Self>) {
        let now = self.clock.monotonic();
        match self.policy.judge(death, &self.history, now, self.seed.wrapping_add(self.history.total())) {
            Verdict::Restart { after } => {
                tracing::warn!(child = %self.name, cause = %death, ?after, "a child died and will be restarted");
                self.history.note(now, after);
                self.state = ChildState::Restarting { cause: death };
                self.tell(ChildChange::Restarting { after, cause: death });
                // The alarm is set here and now, while whoever told of the death holds the clock.
                let wait = timer::sleep(&self.clock, after).into_actor(self);
                self.wait = Some(ctx.spawn(wait.map(move |busy, guardian, ctx| {
                    guardian.wait = None;
                    guardian.start_child(Some(death), ctx);
                    drop(busy);
                })));
            }
            Verdict::GiveUp { reason } => {
                tracing::error!(child = %self.name, %reason, "a child died and is given up");
                self.state = ChildState::Failed { reason: reason.clone() };
                self.tell(ChildChange::Failed { reason });
            }
            Verdict::Ignore => {
                self.state = ChildState::Ended;
                self.tell(ChildChange::Ended);
            }
        }
    }

    fn call_off_wait(&mut self, ctx: &mut Context<Self>) {
        if let Some(wait) = self.wait.take() {
            ctx.cancel_future(wait);
        }
    }
}

impl<A: Clone + Send + 'static> Actor for Guardian<A> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let busy = self.beginning.take();
        self.start_child(None, ctx);
        drop(busy);
    }
}

impl<A: Clone + Send + 'static> Handler<Exited> for Guardian<A> {
    type Result = ();

    fn handle(&mut self, exited: Exited, ctx: &mut Self::Context) {
        if exited.generation == self.generation && self.state == ChildState::Alive {
            self.child_died(exited.death, ctx);
        }
    }
}

impl<A: Clone + Send + 'static> Handler<Dismiss> for Guardian<A> {
    type Result = ();

    fn handle(&mut self, _: Dismiss, ctx: &mut Self::Context) {
        self.call_off_wait(ctx);
        self.state = ChildState::Dismissed;
    }
}

impl<A: Clone + Send + 'static> Handler<Restore> for Guardian<A> {
    type Result = bool;

    fn handle(&mut self, _: Restore, ctx: &mut Self::Context) -> bool {
        if self.state == ChildState::Alive {
            return false;
        }
        self.call_off_wait(ctx);
        self.history.reset();
        self.start_child(None, ctx);
        true
    }
}

impl<A: Clone + Send + 'static> Handler<GuardianStatus> for Guardian<A> {
    type Result = MessageResult<GuardianStatus>;

    fn handle(&mut self, _: GuardianStatus, _: &mut Self::Context) -> Self::Result {
        MessageResult(GuardianReport {
            name: self.name.clone(),
            state: self.state.clone(),
            restarts: self.history.total(),
        })
    }
}

/// Leads a link to the child, whoever it is.
struct Pointer<A>(LinkOwner<A>);

impl<A: Clone + Send + 'static> Actor for Pointer<A> {
    type Context = Context<Self>;
}

impl<A: Clone + Send + 'static> Handler<ChildNotice<A>> for Pointer<A> {
    type Result = ();

    fn handle(&mut self, notice: ChildNotice<A>, _: &mut Self::Context) {
        match notice.change {
            ChildChange::Started { child, .. } => self.0.point_to(child),
            _ => self.0.cut(),
        }
    }
}

impl<A: Clone + Send + 'static> fmt::Debug for Guardian<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guardian")
            .field("name", &self.name)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}
