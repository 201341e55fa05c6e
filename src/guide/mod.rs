//! The guide: how callboard works, what it promises, and how it is run.
//!
//! | page | answers |
//! |---|---|
//! | [`architecture`] | Which actors are there, who sends what to whom, and where is the code? |
//! | [`semantics`] | What is promised, what happens in each kind of trouble, and what is still open? |
//! | [`time`] | When does a trigger fire, exactly: zones, gaps and folds, jitter? |
//! | [`asking`] | What can a task be: a function, a message to an actor, a lifecycle, a periodic task? |
//! | [`lifecycle`] | What happens to a run, step by step? Which states do runs, tasks and schedulers have? |
//! | [`events`] | Which events are there, when do they come, and what do they carry? |
//! | [`operating`] | How is a scheduler set up, watched, embedded, shut down and tested? |
//! | [`coming_from`] | What is it called here, for users of APScheduler, asyncz, sisy and tokio-cron-scheduler? |
//!
//! Every Rust block on these pages is compiled and, where it can be, run by the tests. Where a page and
//! the code disagree, that is a bug.

#[doc = include_str!("architecture.md")]
pub mod architecture {}

#[doc = include_str!("semantics.md")]
pub mod semantics {}

#[doc = include_str!("time.md")]
pub mod time {}

#[doc = include_str!("lifecycle.md")]
pub mod lifecycle {}

#[doc = include_str!("asking.md")]
pub mod asking {}

#[doc = include_str!("events.md")]
pub mod events {}

#[doc = include_str!("operating.md")]
pub mod operating {}

#[doc = include_str!("coming_from.md")]
pub mod coming_from {}
