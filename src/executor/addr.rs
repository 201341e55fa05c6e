use actix::dev::ToEnvelope;
use actix::prelude::*;

use super::message::*;

macro_rules! executor_addr {
    ($($field:ident: $message:ident -> $answer:ty),+ $(,)?) => {
        /// The address of an executor: any actor that handles the messages of
        /// [`message`](super::message).
        #[derive(Clone)]
        pub struct ExecutorAddr {
            $($field: Recipient<$message>,)+
        }

        impl ExecutorAddr {
            /// The executor behind `addr`.
            pub fn new<A>(addr: Addr<A>) -> Self
            where
                A: Actor $(+ Handler<$message>)+,
                A::Context: Sized $(+ ToEnvelope<A, $message>)+,
            {
                Self { $($field: addr.clone().recipient(),)+ }
            }

            $(
                /// Sends the message and waits for the answer; an error means that the actor has
                /// stopped.
                pub fn $field(&self, message: $message) -> impl Future<Output = Result<$answer, MailboxError>> + use<> {
                    self.$field.send(message)
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
