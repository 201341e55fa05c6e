//! WHAT IS REMEMBERED: tasks, how far they have come, and their runs.
//!
//! A store is an actor that answers the messages of [`message`]; a [`StoreAddr`] is made from any
//! actor that does. Most stores are a [`Backend`] inside a [`StoreActor`].

mod actor;
mod addr;
#[cfg(all(feature = "encryption", feature = "_durable"))]
mod cipher;
#[cfg(feature = "testing")]
pub mod contract;
#[cfg(feature = "_durable")]
mod engine;
#[cfg(feature = "_durable")]
mod envelope;
mod error;
#[cfg(feature = "testing")]
mod faulty;
#[cfg(feature = "file")]
mod file;
mod memory;
pub mod message;
#[cfg(feature = "_durable")]
mod migrate;
mod recent;
#[cfg(feature = "redb")]
mod redb;
mod retention;
#[cfg(feature = "sled")]
mod sled;
mod source;

use futures::future::LocalBoxFuture;

pub use actor::StoreActor;
pub use addr::StoreAddr;
#[cfg(all(feature = "encryption", feature = "config", feature = "_durable"))]
pub(crate) use cipher::is_key;
#[cfg(all(feature = "encryption", feature = "_durable"))]
pub use cipher::{KeyError, KeyId, Keyring, Keys};
#[cfg(feature = "_durable")]
pub use engine::{Durability, Exports, ImportMode, Imported, Progress, ROW_LIMIT, Vault};
#[cfg(feature = "cli")]
pub(crate) use engine::{ExportReader, holds_store};
pub use error::StoreError;
#[cfg(feature = "testing")]
pub use faulty::{Faults, Faulty, Op};
#[cfg(feature = "file")]
pub use file::FileStore;
pub use memory::{MemoryBackend, MemoryStore};
#[cfg(feature = "redb")]
pub use redb::RedbStore;
#[cfg(feature = "sled")]
pub use sled::SledStore;
pub use source::BackendSource;

use crate::task::StoredTask;
use message::*;

/// What a store can do beyond the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// What was acknowledged is there after a restart; run records are wanted, too.
    pub durable: bool,
    /// Run records are wanted in [`Commit`] and [`Finish`].
    pub records: bool,
    /// Closures can be kept.
    pub closures: bool,
    /// Its methods block the thread: it is given an arbiter of its own.
    pub blocking: bool,
    /// Several schedulers may share it: [`TakeDue`] claims what it hands out.
    pub shared: bool,
}

impl Capabilities {
    /// Whether it is to be told of runs.
    pub fn keeps_records(&self) -> bool {
        self.durable || self.records
    }
}

/// An answer that is there, or one that will come. Blocking and in-memory backends answer at
/// once; network backends later, in any order.
#[expect(missing_debug_implementations, reason = "a future has nothing to show")]
pub enum Reply<T> {
    /// The answer.
    Now(Result<T, StoreError>),
    /// A future of the answer. It must not borrow the backend: it holds what it needs.
    Later(LocalBoxFuture<'static, Result<T, StoreError>>),
}

impl<T> From<Result<T, StoreError>> for Reply<T> {
    fn from(result: Result<T, StoreError>) -> Self {
        Self::Now(result)
    }
}

impl<T: 'static> Reply<T> {
    /// An answer that will come.
    pub fn later(future: impl Future<Output = Result<T, StoreError>> + 'static) -> Self {
        Self::Later(Box::pin(future))
    }
}

/// Some of all tasks; see [`Backend::list_part`].
#[derive(Debug, Clone, Default)]
pub struct ListPart {
    /// The tasks.
    pub tasks: Vec<StoredTask>,
    /// Where the next part begins; `None` after the last one.
    pub next: Option<usize>,
}

/// Where tasks are kept: the part of a store that differs from one to the next.
///
/// The contract, which `contract::suite` checks:
///
/// - Every method is atomic: it happens wholly or not at all, also when the process dies. `Ok` from
///   a durable backend means that it stays so.
/// - A task is found under its id; times keep their nanoseconds.
/// - [`put`](Backend::put) and [`commit`](Backend::commit) compare revisions: a change against a
///   revision that is no longer there is refused, and the newer task stays as it is.
/// - [`take_due`](Backend::take_due) gives tasks in the order of their due times, never one that is
///   not due, paused, or (in a shared store) claimed by somebody else.
/// - What is handed out stays due until a commit moves it on: taken again before that, it is handed
///   out again, and in a shared store to the same owner only.
/// - What is put off ([`defer`](Backend::defer)) is not handed out before its time, and costs nothing
///   meanwhile. Every change of the task ends that, and so does [`open`](Backend::open): it is never
///   written down.
/// - [`next_due`](Backend::next_due) is the earliest time at which `take_due` has something to give.
///   In a shared store a task that somebody else has claimed counts from the end of the claim.
/// - No method deletes what it cannot read, and none trips over it either: it is reported once, when
///   the store is opened, and left out from then on.
/// - A store that keeps run records keeps the latest 20 of each task, and the latest 20 of its runs that
///   failed, unless it was told otherwise; runs that have not ended are always kept.
/// - Nothing is O(all tasks) except [`open`](Backend::open), [`list`](Backend::list) and
///   [`remove_all`](Backend::remove_all).
///
/// Methods may overlap when they answer [`Reply::Later`]; the store's actor does not wait for one
/// before it calls the next.
pub trait Backend: Unpin + 'static {
    /// What it can do.
    fn capabilities(&self) -> Capabilities;
    /// Called once before anything else, and again after a failure: it leaves the backend sound,
    /// whatever state a panic left it in.
    fn open(&mut self, request: Open) -> Reply<Opened>;
    /// Writes a whole task, if the one that is there is as expected.
    fn put(&mut self, request: Put) -> Reply<()>;
    /// Removes a task and gives it back.
    fn delete(&mut self, request: Delete) -> Reply<StoredTask>;
    /// One task.
    fn get(&mut self, request: Get) -> Reply<Option<StoredTask>>;
    /// All tasks, by due time, those without one last, and by id among equals.
    fn list(&mut self, request: List) -> Reply<Vec<StoredTask>>;
    /// A part of all tasks, in any order: some that begin at place `from`, and where the next part
    /// begins. The store's actor asks part by part and has its other messages dealt with in between. A
    /// task that is there all the while is in exactly one part. Unless it is implemented, all are one part.
    fn list_part(&mut self, _from: usize) -> Reply<ListPart> {
        let all = |tasks| ListPart { tasks, next: None };
        match self.list(List) {
            Reply::Now(tasks) => Reply::Now(tasks.map(all)),
            Reply::Later(tasks) => Reply::later(async move { tasks.await.map(all) }),
        }
    }
    /// The tasks due at `now`, oldest first, at most `limit`.
    fn take_due(&mut self, request: TakeDue) -> Reply<Due>;
    /// Puts tasks off, in memory alone, or brings them back; says the earliest due time afterwards.
    fn defer(&mut self, request: Defer) -> Reply<Option<chrono::DateTime<chrono::Utc>>>;
    /// Writes the new states and run records of tasks taken before, in one batch.
    fn commit(&mut self, request: Commit) -> Reply<Committed>;
    /// Records how runs ended.
    fn finish(&mut self, request: Finish) -> Reply<()>;
    /// The earliest due time.
    fn next_due(&mut self, request: NextDue) -> Reply<Option<chrono::DateTime<chrono::Utc>>>;
    /// The latest run records of a task, newest first.
    fn runs(&mut self, request: Runs) -> Reply<Vec<crate::task::RunRecord>>;
    /// The run records that concern a window of run times, oldest first. Unless it is implemented,
    /// all records of the task are read by [`runs`](Backend::runs) and searched.
    fn find_runs(&mut self, request: FindRuns) -> Reply<Found> {
        let all = Runs { id: request.id.clone(), limit: usize::MAX };
        let pick = move |runs| Found::among(&request, runs);
        match self.runs(all) {
            Reply::Now(runs) => Reply::Now(runs.map(pick)),
            Reply::Later(runs) => Reply::later(async move { runs.await.map(pick) }),
        }
    }
    /// Removes every task; says how many.
    fn remove_all(&mut self, request: RemoveAll) -> Reply<usize>;
    /// Reads everything and lists what cannot be read. Without it, that is refused.
    fn check(&mut self, _request: Check) -> Reply<Checked> {
        Reply::Now(Err(StoreError::Unsupported { deed: "check what it holds" }))
    }
    /// Writes everything with the current key. Without it, that is refused.
    fn rekey(&mut self, _request: Rekey) -> Reply<Rekeyed> {
        Reply::Now(Err(StoreError::Unsupported { deed: "change keys: it is not encrypted" }))
    }
    /// Writes everything to a file. Without it, that is refused.
    fn export(&mut self, _request: Export) -> Reply<Exported> {
        Reply::Now(Err(StoreError::Unsupported { deed: "be exported" }))
    }
    /// Keeps by which rules of time zones the next runs of its tasks were worked out, to say so in
    /// [`Opened::rules`]. Without it, all tasks are looked at whenever the store is opened anew.
    fn keep_rules(&mut self, _request: KeepRules) -> Reply<()> {
        Reply::Now(Ok(()))
    }
    /// Called last: writes out what is still in memory.
    fn close(&mut self, request: Close) -> Reply<()>;
}

/// A guard that the actor of a supervised store keeps for as long as it lives: its drop tells the
/// guardian that the actor has ended.
pub type Keep = Box<dyn Send>;

/// Something that can start the actor of a store, again if need be: what a scheduler's builder
/// accepts.
pub trait StoreSource: Send + 'static {
    /// Starts the actor, which holds `keep` until it ends. Called in an actix system; a store that
    /// blocks starts its actor on an arbiter of its own.
    fn start(&mut self, keep: Keep) -> StoreAddr;

    /// Whether the actor is started again after its death. An actor that somebody else owns is not.
    fn supervised(&self) -> bool {
        true
    }

    /// Whether tasks that run closures can be kept, where that is known before the store is opened:
    /// a task that cannot be kept is then refused when it is added, and not at the start.
    fn keeps_closures(&self) -> Option<bool> {
        None
    }
}

impl StoreSource for StoreAddr {
    fn start(&mut self, _keep: Keep) -> StoreAddr {
        self.clone()
    }

    fn supervised(&self) -> bool {
        false
    }
}

/// The order of [`List`]: by due time, those without one last, by id among equals.
pub fn in_order(a: &StoredTask, b: &StoredTask) -> std::cmp::Ordering {
    let last = |task: &StoredTask| task.state.due().is_none();
    (last(a), a.state.due(), &a.spec.id).cmp(&(last(b), b.state.due(), &b.spec.id))
}
