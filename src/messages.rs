//! Messages as tasks: a due task sends a typed message to an actor of yours.
//!
//! Register a recipient under a name, and every task of that name sends it the message that the
//! task's arguments spell out as JSON. The task can live in any store, durable ones included: what
//! is stored is the name and the JSON, and the actor is found when the task is due.
//!
//! ```
//! use actix::prelude::*;
//! use callboard::prelude::*;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize, Message)]
//! #[rtype(result = "Result<u64, std::io::Error>")]
//! struct SendInvoice {
//!     customer: String,
//! }
//!
//! struct Office(u64);
//!
//! impl Actor for Office {
//!     type Context = Context<Self>;
//! }
//!
//! impl Handler<SendInvoice> for Office {
//!     type Result = Result<u64, std::io::Error>;
//!
//!     fn handle(&mut self, invoice: SendInvoice, _: &mut Self::Context) -> Self::Result {
//!         println!("to {}", invoice.customer);
//!         self.0 += 1;
//!         Ok(self.0)
//!     }
//! }
//!
//! # #[actix::main]
//! # async fn main() -> Result<(), callboard::Error> {
//! let office = Office(0).start();
//! let registry = Registry::new().recipient("send_invoice", office.recipient::<SendInvoice>());
//! let scheduler = Scheduler::builder().registry(registry).start().await?;
//! let invoice = SendInvoice { customer: "Ada".to_owned() };
//! scheduler.add(Task::new("send_invoice").args(&invoice).trigger("0 8 1 * *")).await?;
//! # scheduler.shutdown(Shutdown::default()).await
//! # }
//! ```
//!
//! # What becomes of the run
//!
//! | the message | outcome |
//! |---|---|
//! | was answered with `()`, or with `Ok` | executed, with the answer as its value |
//! | was answered with `Err` | failed, with the error and its causes |
//! | was put into the mailbox, and that is [enough](Delivery::delivered) | executed |
//! | cannot be made of the task's arguments | failed |
//! | found no actor: it has ended, or is down for longer than the delivery [waits](Delivery::patience) | refused: [`RecipientGone`](crate::task::Refusal::RecipientGone) |
//! | found the mailbox full, where that is asked | refused: [`MailboxFull`](crate::task::Refusal::MailboxFull) |
//! | was lost: the actor ended or panicked before it answered | interrupted |
//! | was not answered when the run was cancelled or its time was over | cancelled, timed out; the message stays where it is |
//!
//! While an actor makes a task wait for its answer the run goes on, and `max_instances` counts it;
//! nobody else waits. A virtual clock stands still meanwhile: nobody but the actor knows whether it
//! works or waits, and one that waits for that clock before it answers never does. An answer of
//! another type than these is read by a function of yours: [`Delivery::answered_by`].
//!
//! # Which actor
//!
//! A [`Recipient`] stands for one actor and keeps it alive; a [`WeakRecipient`] does not keep it
//! alive. An actor that is started again has a new address: register a
//! [`Link`], which follows it. [`Guardian::linked`](crate::supervision::Guardian::linked) makes one
//! for an actor under a restart policy; an actor you start yourself is followed when it leads a
//! [`LinkOwner`](crate::supervision::LinkOwner) to its own address.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::WeakRecipient;
use actix::dev::{SendError, ToEnvelope};
use actix::prelude::*;
use futures::future::{BoxFuture, FutureExt, select};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::supervision::Link;
use crate::task::{Code, Failure, Refusal, Registry, TaskContext, TaskReturn};
use crate::timer;

/// Whom a message is for: made from a [`Recipient`], a [`WeakRecipient`], or a [`Link`] to a
/// recipient or an address.
pub struct Addressee<M>(Way<M>)
where
    M: Message + Send + 'static,
    M::Result: Send;

enum Way<M>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    Straight(Arc<Recipient<M>>),
    Weak(WeakRecipient<M>),
    Linked {
        link: Box<dyn Follow<M>>,
        /// The recipient found last. Each copy of an address has one place of its own in a full
        /// mailbox, so a fresh copy for each message would never find it full.
        latest: Mutex<Option<Arc<Recipient<M>>>>,
    },
}

impl<M> Addressee<M>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    /// The actor, if it lives.
    fn find(&self) -> Option<Arc<Recipient<M>>> {
        let found = match &self.0 {
            Way::Straight(recipient) => recipient.clone(),
            Way::Weak(recipient) => Arc::new(recipient.upgrade()?),
            Way::Linked { link, latest } => {
                let now = link.now();
                let mut latest = latest.lock().unwrap_or_else(|e| e.into_inner());
                if latest.as_deref() != now.as_ref() {
                    *latest = now.map(Arc::new);
                }
                latest.clone()?
            }
        };
        found.connected().then_some(found)
    }

    /// Waits up to `patience` for a successor, if there may be one.
    async fn wait(&self, run: &TaskContext, patience: Duration) -> Option<Arc<Recipient<M>>> {
        if let Way::Linked { link, .. } = &self.0
            && !patience.is_zero()
        {
            let clock = run.clock().clone();
            run.rest(async {
                let limit = timer::sleep_as_limit(&clock, patience).map(drop);
                select(link.there(), Box::pin(limit)).await;
                clock.busy()
            })
            .await;
        }
        self.find()
    }
}

impl<M> From<Recipient<M>> for Addressee<M>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    fn from(recipient: Recipient<M>) -> Self {
        Self(Way::Straight(Arc::new(recipient)))
    }
}

impl<M> From<WeakRecipient<M>> for Addressee<M>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    fn from(recipient: WeakRecipient<M>) -> Self {
        Self(Way::Weak(recipient))
    }
}

impl<M> From<Link<Recipient<M>>> for Addressee<M>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    fn from(link: Link<Recipient<M>>) -> Self {
        Self(Way::Linked { link: Box::new(link), latest: Mutex::default() })
    }
}

impl<M, A> From<Link<Addr<A>>> for Addressee<M>
where
    M: Message + Send + 'static,
    M::Result: Send,
    A: Actor + Handler<M>,
    A::Context: ToEnvelope<A, M>,
{
    fn from(link: Link<Addr<A>>) -> Self {
        Self(Way::Linked { link: Box::new(link), latest: Mutex::default() })
    }
}

/// A link to something that gets messages.
trait Follow<M>: Send + Sync
where
    M: Message + Send,
    M::Result: Send,
{
    /// Where it leads now.
    fn now(&self) -> Option<Recipient<M>>;

    /// Ends when it leads to a living actor, or never will again.
    fn there(&self) -> BoxFuture<'_, ()>;
}

impl<M> Follow<M> for Link<Recipient<M>>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    fn now(&self) -> Option<Recipient<M>> {
        self.get()
    }

    fn there(&self) -> BoxFuture<'_, ()> {
        self.wait_for(Recipient::connected).map(drop).boxed()
    }
}

impl<M, A> Follow<M> for Link<Addr<A>>
where
    M: Message + Send + 'static,
    M::Result: Send,
    A: Actor + Handler<M>,
    A::Context: ToEnvelope<A, M>,
{
    fn now(&self) -> Option<Recipient<M>> {
        self.get().map(Addr::recipient)
    }

    fn there(&self) -> BoxFuture<'_, ()> {
        self.wait_for(Addr::connected).map(drop).boxed()
    }
}

type Reader<M> = Box<dyn Fn(<M as Message>::Result) -> Result<Value, Failure> + Send + Sync>;

/// How a message is sent, and when the run that sends it has ended. For
/// [`Registry::delivery`](Registry#method.delivery).
///
/// ```
/// use std::time::Duration;
/// use actix::prelude::*;
/// use callboard::messages::Delivery;
/// use callboard::prelude::*;
///
/// #[derive(serde::Deserialize, Message)]
/// #[rtype(result = "u32")]
/// struct Count;
/// # struct Counter;
/// # impl Actor for Counter { type Context = Context<Self>; }
/// # impl Handler<Count> for Counter {
/// #     type Result = u32;
/// #     fn handle(&mut self, _: Count, _: &mut Self::Context) -> u32 { 1 }
/// # }
/// # System::new().block_on(async {
/// # let counter = Counter.start();
///
/// let registry = Registry::new()
///     .delivery("count", Delivery::<Count>::delivered(counter.downgrade().recipient()))
///     .delivery("count_on", Delivery::<Count>::answered_by(counter.recipient(), |count| match count {
///         0 => Err("nothing was counted"),
///         count => Ok(count),
///     }));
/// # drop(registry);
/// # });
/// ```
pub struct Delivery<M>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    to: Addressee<M>,
    /// `None`: delivered is enough.
    read: Option<Reader<M>>,
    patience: Duration,
}

impl<M> Delivery<M>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    fn new(to: Addressee<M>, read: Option<Reader<M>>) -> Self {
        Self { to, read, patience: Duration::from_secs(10) }
    }

    /// The run ends with the answer: `()`, or a `Result` whose `Err` fails the run. The message is
    /// put into the mailbox also when that is full.
    pub fn answered(to: impl Into<Addressee<M>>) -> Self
    where
        M::Result: TaskReturn,
    {
        Self::new(to.into(), Some(Box::new(TaskReturn::into_result)))
    }

    /// The run ends with what `read` makes of the answer. The message is put into the mailbox also
    /// when that is full.
    pub fn answered_by<R: TaskReturn>(
        to: impl Into<Addressee<M>>,
        read: impl Fn(M::Result) -> R + Send + Sync + 'static,
    ) -> Self {
        Self::new(to.into(), Some(Box::new(move |answer| read(answer).into_result())))
    }

    /// The run ends, executed, when the message is in the mailbox; what becomes of it there is not
    /// told. A full mailbox refuses the run. (A weak recipient never finds a mailbox full.)
    pub fn delivered(to: impl Into<Addressee<M>>) -> Self {
        Self::new(to.into(), None)
    }

    /// How long a run waits for a successor while a [`Link`] leads nowhere. Zero means not at all.
    /// Default: 10 s.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    async fn carry_out(&self, run: TaskContext, message: M) -> Result<Value, Failure> {
        let handler = || run.run().task.handler.name().to_owned();
        let gone = || Failure::Refused(Refusal::RecipientGone { handler: handler() });
        let found = match self.to.find() {
            Some(recipient) => Some(recipient),
            None => self.to.wait(&run, self.patience).await,
        };
        let recipient = found.ok_or_else(gone)?;
        let Some(read) = &self.read else {
            return match recipient.try_send(message) {
                Ok(()) => Ok(Value::Null),
                Err(SendError::Full(_)) => Err(Failure::Refused(Refusal::MailboxFull { handler: handler() })),
                Err(SendError::Closed(_)) => Err(gone()),
            };
        };
        match recipient.send(message).await {
            Ok(answer) => read(answer),
            Err(_) => Err(Failure::Interrupted(format!(
                "the actor that got `{}` ended before it answered; how far it came is not known",
                handler()
            ))),
        }
    }
}

/// Messages as tasks; see [`messages`](crate::messages).
impl Registry {
    /// Registers the actor that gets the messages of tasks called `name`; the answer is the end of
    /// the run. The task's arguments are the message as JSON. The same as [`delivery`](Self::delivery)
    /// with [`Delivery::answered`].
    pub fn recipient<M>(self, name: impl Into<String>, to: impl Into<Addressee<M>>) -> Self
    where
        M: Message + DeserializeOwned + Send + 'static,
        M::Result: Send + TaskReturn,
    {
        self.delivery(name, Delivery::answered(to))
    }

    /// Registers a way to deliver the messages of tasks called `name`.
    pub fn delivery<M>(self, name: impl Into<String>, delivery: Delivery<M>) -> Self
    where
        M: Message + DeserializeOwned + Send + 'static,
        M::Result: Send,
    {
        let delivery = Arc::new(delivery);
        let code = Code::from_async(move |run: TaskContext, message: M| {
            let delivery = delivery.clone();
            async move { delivery.carry_out(run, message).await }
        });
        self.register_code(name, code)
    }
}

impl<M> fmt::Debug for Addressee<M>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Way::Straight(_) => "Addressee(recipient)",
            Way::Weak(_) => "Addressee(weak recipient)",
            Way::Linked { .. } => "Addressee(link)",
        })
    }
}

impl<M> fmt::Debug for Delivery<M>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("to", &self.to)
            .field("answered", &self.read.is_some())
            .finish_non_exhaustive()
    }
}
