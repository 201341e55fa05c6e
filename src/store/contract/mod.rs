//! The contract of a [`Backend`](super::Backend), as tests: run them on a store of your own.
//!
//! ```
//! use callboard::store::{MemoryStore, contract};
//!
//! actix_rt::System::new().block_on(async {
//!     // An empty store each time it is called:
//!     contract::suite(MemoryStore::new).await;
//!     contract::random(MemoryStore::new, 42, 200).await;
//! });
//! ```
//!
//! A store that says that it is durable passes [`durable`] as well. A check that fails panics and
//! says which sentence of the contract does not hold. Nothing sleeps, and no check looks at the
//! clock; times are those in the messages.

mod changes;
mod due;
mod durable;
mod model;
mod records;

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use futures::channel::oneshot;

pub use durable::durable;
pub use model::random;

use super::message::*;
use super::{Capabilities, StoreAddr, StoreError, StoreSource};
use crate::task::{
    Fire, OwnerId, RunId, RunRecord, Source, StoredTask, Task, TaskDefaults, TaskId, TaskSpec, TaskState,
};
use crate::timezones::Release;
use crate::trigger::Interval;

/// Checks everything but durability. `fresh` makes an empty store each time it is called.
///
/// # Panics
/// When the store does not keep the contract.
pub async fn suite<S: StoreSource>(mut fresh: impl FnMut() -> S) {
    macro_rules! checks {
        ($($module:ident::$check:ident),+ $(,)?) => {$({
            let subject = Subject::start(&mut fresh()).await;
            $module::$check(&subject).await;
            subject.store.close(Close).await.ok();
            subject.abandon().await;
        })+};
    }
    checks![
        changes::a_task_is_found_as_it_was_put,
        changes::what_is_expected_must_be_there,
        changes::a_task_is_deleted_at_its_revision,
        changes::all_tasks_are_listed_in_order,
        changes::all_tasks_are_removed,
        changes::many_changes_at_once_all_happen,
        changes::one_of_two_rivals_wins,
        changes::closures_are_kept_or_refused,
        changes::opening_again_changes_nothing,
        changes::rules_are_told_when_it_is_opened_or_never,
        changes::a_closed_store_is_unavailable,
        due::due_tasks_come_oldest_first,
        due::a_paused_task_is_never_due,
        due::a_task_stays_due_until_it_is_committed,
        due::next_due_follows_every_change,
        due::a_commit_moves_tasks_on,
        due::a_stale_change_is_refused_by_itself,
        due::times_of_all_centuries_sort,
        due::a_commit_can_write_the_whole_task,
        due::what_is_put_off_is_not_handed_out,
        due::what_is_put_off_is_due_again_when_it_is_changed_or_the_store_opened,
        records::runs_are_recorded_and_ended,
        records::records_are_found_by_their_run_times,
        records::the_latest_records_and_failures_of_a_task_stay,
    ];
}

/// A task for tests, due at `due`, at revision 1.
///
/// # Panics
/// When `id` is not valid.
pub fn sample(id: &str, due: DateTime<Utc>) -> StoredTask {
    let task =
        Task::new("handler").id(id).trigger(Interval::seconds(1)).args(serde_json::json!({ "of": id }));
    match task.resolve(&TaskDefaults::default(), crate::trigger::Zone::UTC) {
        Ok(spec) => StoredTask { spec: Arc::new(spec), state: sample_state(Some(due)) },
        Err(error) => panic!("{id:?} is not a task: {error}"),
    }
}

fn sample_state(due: Option<DateTime<Utc>>) -> TaskState {
    let next = due.map(|due| Fire { nominal: due, due });
    TaskState { next, ..TaskState::new(start()) }
}

/// The instant at which the checks take place: 2026-01-01T00:00:00.000000001Z.
pub fn start() -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_225_600, 1).unwrap_or_default()
}

fn at(seconds: i64) -> DateTime<Utc> {
    start() + TimeDelta::seconds(seconds)
}

fn id(text: &str) -> TaskId {
    match TaskId::new(text) {
        Ok(id) => id,
        Err(error) => panic!("{error}"),
    }
}

fn rules(digest: u64) -> KeptRules {
    let release = Release { source: "bundled".to_owned(), version: Some("2026f".to_owned()) };
    KeptRules { digest, release }
}

const OWNER: OwnerId = OwnerId(0x6955_b900_0000_0001);

/// A store that was started and opened.
struct Subject {
    store: StoreAddr,
    can: Capabilities,
    opened: Opened,
    ended: oneshot::Receiver<()>,
}

impl Subject {
    async fn start<S: StoreSource>(source: &mut S) -> Self {
        Self::start_as(source, OWNER).await
    }

    async fn start_as<S: StoreSource>(source: &mut S, owner: OwnerId) -> Self {
        let (keep, ended) = oneshot::channel::<()>();
        let store = source.start(Box::new(keep));
        let opened = ok(store.open(Open { owner, now: start() }).await, "the store opens");
        Self { store, can: opened.capabilities, opened, ended }
    }

    async fn put(&self, task: &StoredTask) {
        let request = Put { task: task.clone(), expect: Expect::Absent };
        ok(self.store.put(request).await, "a new task is put");
    }

    async fn get(&self, name: &str) -> Option<StoredTask> {
        ok(self.store.get(Get { id: id(name) }).await, "a task is looked up")
    }

    async fn list(&self) -> Vec<StoredTask> {
        ok(self.store.list(List).await, "tasks are listed")
    }

    async fn take(&self, now: DateTime<Utc>, limit: usize) -> (Vec<String>, bool) {
        let due = ok(self.store.take_due(TakeDue { now, limit }).await, "due tasks are taken");
        (names(&due.tasks), due.more)
    }

    async fn commit(&self, changes: Vec<Change>) -> Committed {
        ok(self.store.commit(Commit { changes }).await, "a batch is committed")
    }

    async fn defer(&self, task: &StoredTask, until: Until) -> Option<DateTime<Utc>> {
        let deferral = Deferral { id: task.spec.id.clone(), revision: task.state.revision, until };
        ok(self.store.defer(Defer { tasks: vec![deferral] }).await, "a task is put off")
    }

    async fn next_due(&self) -> Option<DateTime<Utc>> {
        ok(self.store.next_due(NextDue).await, "the next due time is told")
    }

    async fn runs(&self, name: &str, limit: usize) -> Vec<RunRecord> {
        ok(self.store.runs(Runs { id: id(name), limit }).await, "run records are told")
    }

    /// Closes the store and waits for the end of its actor.
    async fn close(self) {
        let Self { store, ended, .. } = self;
        ok(store.close(Close).await, "the store closes");
        drop(store);
        ended.await.ok();
    }

    /// Lets go of the store without a word.
    async fn abandon(self) {
        let Self { store, ended, .. } = self;
        drop(store);
        ended.await.ok();
    }
}

fn ok<T>(result: Result<T, StoreError>, sentence: &str) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{sentence}: {error}"),
    }
}

fn names(tasks: &[StoredTask]) -> Vec<String> {
    tasks.iter().map(|task| task.spec.id.to_string()).collect()
}

/// `task`, changed by somebody: one revision later.
fn changed(task: &StoredTask, change: impl FnOnce(&mut TaskSpec, &mut TaskState)) -> StoredTask {
    let (mut spec, mut state) = (TaskSpec::clone(&task.spec), task.state.clone());
    change(&mut spec, &mut state);
    state.revision += 1;
    StoredTask { spec: Arc::new(spec), state }
}

/// The change that moves `task` on to `due`.
fn advance(task: &StoredTask, due: Option<DateTime<Utc>>) -> Change {
    let next = due.map(|due| Fire { nominal: due, due });
    let state = TaskState {
        revision: task.state.revision + 1,
        next,
        last_run: task.state.next.map(|fire| fire.nominal),
        runs: task.state.runs + 1,
        ..task.state.clone()
    };
    let revision = task.state.revision;
    Change { id: task.spec.id.clone(), revision, then: Then::State(state), runs: Vec::new() }
}

fn record(task: &StoredTask, owner: OwnerId, serial: u64) -> RunRecord {
    RunRecord {
        id: RunId { owner, serial },
        task: task.spec.id.clone(),
        nominal: task.state.next.map_or(start(), |fire| fire.nominal),
        offset: None,
        coalesced: serial,
        span: None,
        source: Source::Scheduled,
        attempt: 1,
        submitted_at: at(serial as i64),
        end: None,
    }
}
