use std::sync::Arc;

use actix::dev::ToEnvelope;
use actix::prelude::*;

use super::Seats;
use super::message::*;

macro_rules! executor_addr {
    ($($field:ident: $message:ident -> $answer:ty),+ $(,)?) => {
        /// The address of an executor: any actor that handles the messages of
        /// [`message`](super::message).
        #[derive(Clone)]
        pub struct ExecutorAddr(Arc<Recipients>);

        /// One for each message; a clone of all of them costs much more than that of the `Arc`.
        struct Recipients {
            $($field: Recipient<$message>,)+
            reserve: Option<Recipient<Reserve>>,
        }

        impl ExecutorAddr {
            /// The executor behind `addr`. It takes any number of runs.
            pub fn new<A>(addr: Addr<A>) -> Self
            where
                A: Actor $(+ Handler<$message>)+,
                A::Context: Sized $(+ ToEnvelope<A, $message>)+,
            {
                Self(Arc::new(Recipients { $($field: addr.clone().recipient(),)+ reserve: None }))
            }

            /// The executor behind `addr`, which is asked for places before runs begin.
            pub fn bounded<A>(addr: Addr<A>) -> Self
            where
                A: Actor + Handler<Reserve> $(+ Handler<$message>)+,
                A::Context: Sized + ToEnvelope<A, Reserve> $(+ ToEnvelope<A, $message>)+,
            {
                let reserve = Some(addr.clone().recipient());
                Self(Arc::new(Recipients { $($field: addr.clone().recipient(),)+ reserve }))
            }

            /// Whether it has to be asked for places.
            pub fn is_bounded(&self) -> bool {
                self.0.reserve.is_some()
            }

            /// Asks for places; an error means that the actor has stopped. One that is not bounded
            /// takes any number.
            pub fn reserve(&self, message: Reserve) -> impl Future<Output = Result<Reserved, MailboxError>> + use<> {
                let tasks = message.tasks.len();
                let asked = self.0.reserve.as_ref().map(|reserve| reserve.send(message));
                async move {
                    match asked {
                        Some(asked) => asked.await,
                        None => Ok(Reserved { granted: vec![true; tasks], seats: Seats::none(), problem: None }),
                    }
                }
            }

            $(
                /// Sends the message and waits for the answer; an error means that the actor has
                /// stopped.
                pub fn $field(&self, message: $message) -> impl Future<Output = Result<$answer, MailboxError>> + use<> {
                    self.0.$field.send(message)
                }
            )+
        }
    };
}

executor_addr! {
    attach: Attach -> (),
    submit: Submit -> (),
    cancel: Cancel -> bool,
    drain: Drain -> Drained,
    status: Status -> ExecutorStatus,
}

impl std::fmt::Debug for ExecutorAddr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ExecutorAddr")
    }
}
