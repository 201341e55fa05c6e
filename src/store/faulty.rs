use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use futures::channel::oneshot;

use super::message::*;
use super::{Backend, Capabilities, ListPart, Reply, StoreError};
use crate::task::{RunRecord, StoredTask};

/// The methods of a [`Backend`], to say which one is to go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "they are called as the methods are")]
pub enum Op {
    Open,
    Put,
    Delete,
    Get,
    List,
    TakeDue,
    Defer,
    Commit,
    Finish,
    NextDue,
    Runs,
    FindRuns,
    RemoveAll,
    Check,
    Rekey,
    Export,
    KeepRules,
    Close,
}

#[derive(Debug)]
enum Fault {
    Panic,
    Fail(StoreError),
    Lose(StoreError),
    Hold(oneshot::Receiver<()>),
}

/// What is to go wrong with a store, decided by a test while the store is at work.
///
/// Each fault befalls the next call of its method, once; several wait in line.
///
/// ```
/// use callboard::store::{BackendSource, Faults, MemoryBackend, Op, StoreError, StoreSource, message::NextDue};
///
/// # actix_rt::System::new().block_on(async {
/// let faults = Faults::new();
/// let store = BackendSource::keeping(faults.around(MemoryBackend::default())).start(Box::new(()));
/// faults.fail(Op::NextDue, StoreError::unavailable("the network is down"));
/// assert!(store.next_due(NextDue).await.is_err());
/// assert!(store.next_due(NextDue).await.is_ok());
/// # });
/// ```
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Mutex<VecDeque<(Op, Fault)>>>);

impl Faults {
    /// Nothing goes wrong yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// `backend`, with these faults.
    pub fn around<B: Backend>(&self, backend: B) -> Faulty<B> {
        Faulty { backend, faults: self.clone() }
    }

    /// The next call panics before it does anything.
    pub fn panic(&self, op: Op) {
        self.add(op, Fault::Panic);
    }

    /// The next call fails and does nothing.
    pub fn fail(&self, op: Op, error: StoreError) {
        self.add(op, Fault::Fail(error));
    }

    /// The next call does its work, but its answer is lost: `error` is answered instead.
    pub fn lose(&self, op: Op, error: StoreError) {
        self.add(op, Fault::Lose(error));
    }

    /// The next call does its work, and answers when the sender that this gives is used or dropped.
    pub fn hold(&self, op: Op) -> oneshot::Sender<()> {
        let (release, held) = oneshot::channel();
        self.add(op, Fault::Hold(held));
        release
    }

    /// How many faults have not come true yet.
    pub fn left(&self) -> usize {
        self.lock().len()
    }

    fn add(&self, op: Op, fault: Fault) {
        self.lock().push_back((op, fault));
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Op, Fault)>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn next(&self, op: Op) -> Option<Fault> {
        let mut faults = self.lock();
        let index = faults.iter().position(|(at, _)| *at == op)?;
        faults.remove(index).map(|(_, fault)| fault)
    }
}

/// A [`Backend`] that goes wrong when a test says so; see [`Faults`].
#[derive(Debug)]
pub struct Faulty<B> {
    backend: B,
    faults: Faults,
}

impl<B: Backend> Faulty<B> {
    fn call<T: 'static>(&mut self, op: Op, call: impl FnOnce(&mut B) -> Reply<T>) -> Reply<T> {
        match self.faults.next(op) {
            None => call(&mut self.backend),
            Some(Fault::Panic) => panic!("{op:?} panics, as the test asked for"),
            Some(Fault::Fail(error)) => Reply::Now(Err(error)),
            Some(Fault::Lose(error)) => match call(&mut self.backend) {
                Reply::Now(_) => Reply::Now(Err(error)),
                Reply::Later(work) => Reply::later(async move { work.await.and(Err(error)) }),
            },
            Some(Fault::Hold(held)) => {
                let reply = call(&mut self.backend);
                Reply::later(async move {
                    held.await.ok();
                    match reply {
                        Reply::Now(result) => result,
                        Reply::Later(work) => work.await,
                    }
                })
            }
        }
    }
}

impl<B: Backend> Backend for Faulty<B> {
    fn capabilities(&self) -> Capabilities {
        self.backend.capabilities()
    }

    fn open(&mut self, request: Open) -> Reply<Opened> {
        self.call(Op::Open, |backend| backend.open(request))
    }

    fn put(&mut self, request: Put) -> Reply<()> {
        self.call(Op::Put, |backend| backend.put(request))
    }

    fn delete(&mut self, request: Delete) -> Reply<StoredTask> {
        self.call(Op::Delete, |backend| backend.delete(request))
    }

    fn get(&mut self, request: Get) -> Reply<Option<StoredTask>> {
        self.call(Op::Get, |backend| backend.get(request))
    }

    fn list(&mut self, request: List) -> Reply<Vec<StoredTask>> {
        self.call(Op::List, |backend| backend.list(request))
    }

    fn list_part(&mut self, from: usize) -> Reply<ListPart> {
        self.call(Op::List, |backend| backend.list_part(from))
    }

    fn take_due(&mut self, request: TakeDue) -> Reply<Due> {
        self.call(Op::TakeDue, |backend| backend.take_due(request))
    }

    fn defer(&mut self, request: Defer) -> Reply<Option<chrono::DateTime<chrono::Utc>>> {
        self.call(Op::Defer, |backend| backend.defer(request))
    }

    fn commit(&mut self, request: Commit) -> Reply<Committed> {
        self.call(Op::Commit, |backend| backend.commit(request))
    }

    fn finish(&mut self, request: Finish) -> Reply<()> {
        self.call(Op::Finish, |backend| backend.finish(request))
    }

    fn next_due(&mut self, request: NextDue) -> Reply<Option<chrono::DateTime<chrono::Utc>>> {
        self.call(Op::NextDue, |backend| backend.next_due(request))
    }

    fn runs(&mut self, request: Runs) -> Reply<Vec<RunRecord>> {
        self.call(Op::Runs, |backend| backend.runs(request))
    }

    fn find_runs(&mut self, request: FindRuns) -> Reply<Found> {
        self.call(Op::FindRuns, |backend| backend.find_runs(request))
    }

    fn remove_all(&mut self, request: RemoveAll) -> Reply<usize> {
        self.call(Op::RemoveAll, |backend| backend.remove_all(request))
    }

    fn check(&mut self, request: Check) -> Reply<Checked> {
        self.call(Op::Check, |backend| backend.check(request))
    }

    fn rekey(&mut self, request: Rekey) -> Reply<Rekeyed> {
        self.call(Op::Rekey, |backend| backend.rekey(request))
    }

    fn export(&mut self, request: Export) -> Reply<Exported> {
        self.call(Op::Export, |backend| backend.export(request))
    }

    fn keep_rules(&mut self, request: KeepRules) -> Reply<()> {
        self.call(Op::KeepRules, |backend| backend.keep_rules(request))
    }

    fn close(&mut self, request: Close) -> Reply<()> {
        self.call(Op::Close, |backend| backend.close(request))
    }
}
