use std::sync::Arc;

use actix::dev::ToEnvelope;
use actix::prelude::*;

use super::StoreError;
use super::message::*;

macro_rules! store_addr {
    ($($field:ident: $message:ident -> $answer:ty),+ $(,)?) => {
        /// The address of a store: any actor that handles the messages of
        /// [`message`](super::message).
        #[derive(Clone)]
        pub struct StoreAddr(Arc<Recipients>);

        /// One for each message. Each is a box that counts as an address of the actor, so a clone of all of
        /// them costs much more than the one count of the `Arc` around them.
        #[derive(Clone)]
        struct Recipients {
            $($field: Recipient<$message>,)+
            leaf: Option<Recipient<Leaf>>,
            keep_rules: Option<Recipient<KeepRules>>,
        }

        impl StoreAddr {
            /// The store behind `addr`.
            pub fn new<A>(addr: Addr<A>) -> Self
            where
                A: Actor $(+ Handler<$message>)+,
                A::Context: Sized $(+ ToEnvelope<A, $message>)+,
            {
                let plain = Recipients { $($field: addr.clone().recipient(),)+ leaf: None, keep_rules: None };
                Self(Arc::new(plain))
            }

            $(
                /// Sends the message and waits for the answer.
                pub fn $field(&self, message: $message) -> impl Future<Output = Result<$answer, StoreError>> + use<> {
                    let request = self.0.$field.send(message);
                    async move { request.await? }
                }
            )+
        }
    };
}

impl StoreAddr {
    /// The store gives its tasks page by page to who asks `leaf` for them.
    pub(super) fn paged(self, leaf: Recipient<Leaf>) -> Self {
        Self(Arc::new(Recipients { leaf: Some(leaf), ..Arc::unwrap_or_clone(self.0) }))
    }

    /// The store keeps what whoever asks `keep_rules` tells it.
    pub(super) fn keeping_rules(self, keep_rules: Recipient<KeepRules>) -> Self {
        Self(Arc::new(Recipients { keep_rules: Some(keep_rules), ..Arc::unwrap_or_clone(self.0) }))
    }

    /// Has a store that can keep by which rules its tasks are planned.
    pub(crate) fn keep_rules(
        &self,
        message: KeepRules,
    ) -> impl Future<Output = Result<(), StoreError>> + use<> {
        let kept = self.0.keep_rules.as_ref().map(|keep_rules| keep_rules.send(message));
        async move {
            match kept {
                Some(kept) => kept.await?,
                None => Ok(()),
            }
        }
    }

    /// Some of all tasks: of a store that knows no pages, all of them.
    pub(crate) fn leaf(&self, message: Leaf) -> impl Future<Output = Result<Page, StoreError>> + use<> {
        let (leaf, list) = match &self.0.leaf {
            Some(leaf) => (Some(leaf.send(message)), None),
            None => (None, Some(self.list(List))),
        };
        async move {
            match (leaf, list) {
                (Some(page), _) => page.await?,
                (None, Some(list)) => Ok(Page { tasks: list.await?, next: None }),
                (None, None) => Ok(Page::default()),
            }
        }
    }
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
