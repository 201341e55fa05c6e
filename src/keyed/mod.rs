//! BY NAME, ONCE. Futures scheduled under ids of your own.
//!
//! A [`KeyedScheduler`] runs futures now, at a time, or after a delay, and knows each by an id: any
//! value that can be hashed and printed. It is for work that hangs on something of the program (the
//! unmute of a user, the expiry of a session) and is taken back as easily as it was planned. It keeps
//! nothing over a restart; for that there are [tasks](crate::task::Task).
//!
//! ```
//! use std::time::Duration;
//! use callboard::clock::Clock;
//! use callboard::keyed::KeyedScheduler;
//!
//! # actix_rt::System::new().block_on(async {
//! let unmutes = KeyedScheduler::<u64>::start("unmutes", Clock::system())?;
//! unmutes.schedule_later(Duration::from_secs(600), 42, async { println!("42 may speak") }).await?;
//! assert!(unmutes.contains(42).await?);
//! // A moderator was quicker.
//! assert!(unmutes.cancel(42).await?);
//! # Ok::<(), callboard::keyed::KeyedError>(())
//! # }).unwrap();
//! ```
//!
//! # The rules
//!
//! - An id is **live** from the moment its future is taken until the future has ended or was
//!   cancelled; while it waits and while it runs. A second future under a live id is dropped without
//!   ever having been polled.
//! - [`cancel`](KeyedScheduler::cancel) frees the id and drops the future, wherever it stands. When
//!   it answers, the future is gone.
//! - A running future that cancels **its own** id is not cut off: it frees the id and goes on to its
//!   end. What it schedules under that id afterwards is its successor, which its own end leaves
//!   alone. "Its own" means that the method was called (or the message made) by the future's own
//!   code, not by something that it spawned.
//! - Errors and panics are logged through [`tracing`] at `ERROR`, with the fields `scheduler` (the
//!   name) and `id`; they never reach another future. Cancelling an unknown id is logged at `WARN`, a
//!   second future under a live id at `DEBUG`.
//! - Dropping the last handle cancels nothing: what was scheduled still runs. Say
//!   [`cancel_all`](KeyedScheduler::cancel_all) first if it should not. The end of the arbiter drops
//!   everything, unlogged.
//!
//! These are the rules of a coroutine scheduler well known among Python's chat bots; the ids, the
//! dropped second future, the warning, naive times as UTC and past times as "now" are its own. What it
//! leaves open is settled above.
//!
//! # Time
//!
//! The scheduler waits on a [`Clock`](crate::clock::Clock). A time
//! ([`schedule_at`](KeyedScheduler::schedule_at)) is met by the wall clock, also after somebody has
//! set it; a delay ([`schedule_later`](KeyedScheduler::schedule_later)) by the monotonic one, which
//! nobody sets. Both are exact to about a millisecond on the machine's clock and exact on a virtual
//! one, which stands still while a keyed future is being polled or has been woken. A future that
//! waits for anything but the clock (a socket, say) does not hold a virtual clock up.

mod actor;
mod end;
mod handle;
pub mod message;
mod nudge;
mod run;
mod spawn;

pub use actor::KeyedActor;
pub use end::FutureEnd;
pub use handle::{Answer, KeyedError, KeyedScheduler};
pub use spawn::{SpawnError, Spawned, Spawner, spawn};
