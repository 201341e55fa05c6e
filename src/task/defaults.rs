use std::time::Duration;

use super::table::task_policies;
use super::{Alias, Coalesce, MisfireGrace, Overlap, Retry};
use crate::trigger::Trigger;

macro_rules! defaults {
    ($(
            $(#[doc = $doc:literal])+
            $name:ident: ($type:ty), $whose:ident($default:expr), $field:literal;
            serde($($serde:tt)*);
            set($arg:ident: $arg_type:ty) ($set:expr);
            check($check:ident); file($file:ident);
            attribute($kind:expr, $example:literal $(,)?); shown($shown:expr);
        )*) => {
        /// What tasks are given that leave an option out. Read when a task is committed, not when it is
        /// written.
        #[derive(Debug, Clone, PartialEq)]
        pub struct TaskDefaults {
            $(
                #[doc = $field]
                pub $name: $type,
            )*
            /// The store. Default: `default`.
            pub store: Alias,
            /// The schedule of [periodic tasks](super::Periodic) that name none. Default: every minute,
            /// `* * * * *`. Other tasks have to have a trigger of their own.
            pub schedule: Option<Trigger>,
        }

        impl Default for TaskDefaults {
            fn default() -> Self {
                Self { $($name: $default,)* store: Alias::default_alias(), schedule: None }
            }
        }
    };
}
task_policies!(defaults);

/// The schedule of periodic tasks, if nobody says otherwise.
pub(super) const EVERY_MINUTE: &str = "* * * * *";
