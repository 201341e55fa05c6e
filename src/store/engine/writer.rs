//! What is asked of the thread that has the disk.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use futures::channel::oneshot;
use tokio::sync::watch;
use uuid::Uuid;

use super::desk::Desk;
use super::load::Loaded;
use super::opening::{Known, bring_up};
use super::sweep::Sweep;
use super::{Batch, Place, Rules};
use crate::store::StoreError;
use crate::store::envelope::Codec;
use crate::store::message::{Failures, FindRuns, Found, SetAside};
use crate::task::{RunRecord, TaskId};

pub(super) type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

pub(super) enum Job {
    Write { batch: Batch, done: Answer<()> },
    Find { request: FindRuns, done: Answer<Found> },
    Runs { id: TaskId, limit: usize, done: Answer<Vec<RunRecord>> },
    Load { codec: Codec, done: mpsc::Sender<Result<Loaded, StoreError>> },
    Sweep(Box<Sweep>),
    Close { done: Answer<()> },
}

/// A thread with an open disk. Dropped, it writes what waits, and ends before the drop does.
pub(super) struct Writer {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    accepted: u64,
    identity: Uuid,
    export_failures: watch::Receiver<Option<StoreError>>,
    failures: watch::Receiver<Option<StoreError>>,
    shared: Arc<Shared>,
}

/// What the thread tells without being asked.
pub(super) struct Shared {
    /// How many batches are as durable as they were promised to be.
    pub durable: AtomicU64,
    failure: OnceLock<StoreError>,
    /// The same, for who listens.
    failures: watch::Sender<Option<StoreError>>,
    /// Why exports that were to be taken by themselves were not.
    pub export_failures: watch::Sender<Option<StoreError>>,
}

impl Shared {
    /// Takes the store down, unless it is.
    pub(super) fn fail(&self, error: &StoreError) {
        if self.failure.set(error.clone()).is_ok() {
            self.failures.send_replace(Some(error.clone()));
        }
    }

    /// What has failed.
    pub(super) fn failure(&self) -> Option<&StoreError> {
        self.failure.get()
    }
}

impl Writer {
    /// Opens the disk on a thread of its own and reads what is there; that of the store that is `known`, if
    /// one was open. Waits for that; a thread that
    /// takes longer than it may is added to those `left_behind`. Data that is set aside is told to
    /// `aside` whatever becomes of the opening.
    pub(super) fn open<P: Place>(
        place: &P,
        rules: &Rules,
        known: Option<Known>,
        aside: mpsc::Sender<SetAside>,
        left_behind: &mut Vec<JoinHandle<()>>,
    ) -> Result<(Self, Loaded), StoreError> {
        let (jobs, inbox) = mpsc::channel();
        let (opened, wait) = mpsc::channel();
        let (tell_exports, export_failures) = watch::channel(None);
        let (tell, failures) = watch::channel(None);
        let shared = Arc::new(Shared {
            durable: AtomicU64::new(0),
            failure: OnceLock::new(),
            failures: tell,
            export_failures: tell_exports,
        });
        let limit = rules.open_limit;
        let (place, rules, theirs) = (place.clone(), rules.clone(), shared.clone());
        let thread = std::thread::Builder::new().name("callboard-store".to_owned()).spawn(move || {
            match bring_up(&place, &rules, known, &aside) {
                Ok((disk, identity, loaded)) => {
                    let desk = Desk::new(disk, identity, &loaded, &place, &rules, theirs);
                    opened.send(Ok((identity, loaded))).ok();
                    desk.serve(&inbox);
                }
                Err(error) => drop(opened.send(Err(error))),
            }
        });
        let thread = thread.map_err(|error| StoreError::Unavailable {
            reason: format!("no thread could be started for it: {error}"),
            source: Some(Arc::new(error)),
        })?;
        let mut writer = Self {
            jobs: Some(jobs),
            thread: Some(thread),
            accepted: 0,
            identity: Uuid::nil(),
            export_failures,
            failures,
            shared,
        };
        // So long is for ever.
        let longest = if limit.is_zero() { Duration::MAX } else { limit };
        match wait.recv_timeout(longest) {
            Ok(opened) => {
                let (identity, loaded) = opened?;
                writer.identity = identity;
                Ok((writer, loaded))
            }
            Err(RecvTimeoutError::Disconnected) => Err(died()),
            Err(RecvTimeoutError::Timeout) => {
                // Whoever waited for it would hang as well. Should it come back, it lets go by itself.
                left_behind.extend(writer.thread.take());
                Err(StoreError::unavailable(format!(
                    "it was not open after {limit:?}, and the thread that opens it was left behind; when it is \
                     only slow, give it more with `open_limit`"
                )))
            }
        }
    }

    /// Reads again what is there, after everything that waits was written. Waits for that.
    pub(super) fn load(&self, codec: Codec) -> Result<Loaded, StoreError> {
        let (done, wait) = mpsc::channel();
        self.send(Job::Load { codec, done });
        wait.recv().unwrap_or_else(|_| Err(died()))
    }

    /// An error when something has failed: the disk is gone then.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        match self.shared.failure() {
            None => Ok(()),
            Some(error) => Err(StoreError::Unavailable {
                reason: format!("it failed ({error}) and has not been opened again yet"),
                source: Some(Arc::new(error.clone())),
            }),
        }
    }

    /// Takes the store down from the actor's side.
    pub(super) fn spoil(&self, error: &StoreError) {
        self.shared.fail(error);
    }

    /// Whether nothing that was accepted waits any more.
    pub(super) fn is_even(&self) -> bool {
        self.shared.durable.load(Ordering::Acquire) == self.accepted
    }

    /// Hands a batch over; the future ends when it is as durable as promised. An empty one is a
    /// way to wait for those before it.
    pub(super) fn write(&mut self, batch: Batch) -> impl Future<Output = Result<(), StoreError>> + use<> {
        let (done, receipt) = oneshot::channel();
        self.accepted += 1;
        self.send(Job::Write { batch, done });
        answer(receipt)
    }

    /// The latest run records of a task, newest first, with all that was accepted before.
    pub(super) fn runs(
        &self,
        id: TaskId,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<RunRecord>, StoreError>> + use<> {
        let (done, receipt) = oneshot::channel();
        self.send(Job::Runs { id, limit, done });
        answer(receipt)
    }

    /// The run records that concern a window, with all that was accepted before.
    pub(super) fn find(&self, request: FindRuns) -> impl Future<Output = Result<Found, StoreError>> + use<> {
        let (done, receipt) = oneshot::channel();
        self.send(Job::Find { request, done });
        answer(receipt)
    }

    /// Tells of exports that fail, and of those that have failed since this was asked for last.
    pub(super) fn export_failures(&mut self) -> Failures {
        let untold = self.export_failures.clone();
        self.export_failures.borrow_and_update();
        Failures(untold)
    }

    /// Tells of what takes the store down, also when nobody asks.
    pub(super) fn failures(&self) -> Failures {
        Failures(self.failures.clone())
    }

    /// The identity of the store.
    pub(super) fn identity(&self) -> Uuid {
        self.identity
    }

    /// Hands over work that goes through everything that was accepted before.
    pub(super) fn sweep(&self, sweep: Sweep) {
        self.send(Job::Sweep(Box::new(sweep)));
    }

    /// Writes what waits and lets go of the files.
    pub(super) fn close(self) -> impl Future<Output = Result<(), StoreError>> + use<> {
        let (done, receipt) = oneshot::channel();
        self.send(Job::Close { done });
        let closed = answer(receipt);
        async move {
            let closed = closed.await;
            drop(self);
            closed
        }
    }

    fn send(&self, job: Job) {
        // A thread that is gone drops the job, and with it whoever waits for an answer hears of it.
        if let Some(jobs) = &self.jobs {
            jobs.send(job).ok();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        // The files are free when the store's actor has ended, not a moment later.
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

pub(super) async fn answer<T>(receipt: oneshot::Receiver<Result<T, StoreError>>) -> Result<T, StoreError> {
    receipt.await.unwrap_or_else(|_| Err(died()))
}

pub(super) fn died() -> StoreError {
    StoreError::unavailable("the thread that writes for it has ended")
}
