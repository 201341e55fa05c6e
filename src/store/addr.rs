use actix::dev::ToEnvelope;
use actix::prelude::*;

use super::StoreError;
use super::message::*;

macro_rules! store_addr {
    ($($field:ident: $message:ident -> $answer:ty),+ $(,)?) => {
        /// The address of a store: any actor that handles the messages of
        /// [`message`](super::message).
        #[derive(Clone)]
        pub struct StoreAddr {
            $($field: Recipient<$message>,)+
        }

        impl StoreAddr {
            /// The store behind `addr`.
            pub fn new<A>(addr: Addr<A>) -> Self
            where
                A: Actor $(+ Handler<$message>)+,
                A::Context: Sized $(+ ToEnvelope<A, $message>)+,
            {
                Self { $($field: addr.clone().recipient(),)+ }
            }

            $(
                /// Sends the message and waits for the answer.
                pub fn $field(&self, message: $message) -> impl Future<Output = Result<$answer, StoreError>> + use<> {
                    let request = self.$field.send(message);
                    async move { request.await? }
                }
            )+
        }
    };
}

store_addr! {
    open: Open -> Opened,
    put: Put -> (),
    delete: Delete -> crate::task::StoredTask,
    get: Get -> Option<crate::task::StoredTask>,
    list: List -> Vec<crate::task::StoredTask>,
    take_due: TakeDue -> Due,
    defer: Defer -> Option<chrono::DateTime<chrono::Utc>>,
    commit: Commit -> Committed,
    finish: Finish -> (),
    next_due: NextDue -> Option<chrono::DateTime<chrono::Utc>>,
    runs: Runs -> Vec<crate::task::RunRecord>,
    find_runs: FindRuns -> Found,
    remove_all: RemoveAll -> usize,
    check: Check -> Checked,
    rekey: Rekey -> Rekeyed,
    export: Export -> Exported,
    close: Close -> (),
}

impl std::fmt::Debug for StoreAddr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoreAddr")
    }
}
