//! The thread that has the disk, and what is asked of it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use futures::channel::oneshot;
use tokio::sync::watch;
use uuid::Uuid;

use super::exports::Automatic;
use super::files::{self, is_beyond_repair};
use super::history::{Upkeep, find, latest};
use super::load::Loaded;
use super::sweep::{Sweep, Sweeps};
use super::{Batch, Disk, Durability, Place, Rules, identity, import};
use crate::clock::Clock;
use crate::store::StoreError;
use crate::store::envelope::Codec;
use crate::store::message::{ExportFailures, FindRuns, Found, SetAside};
use crate::task::{RunRecord, TaskId};

/// So many batches share one sync at most, lest the first of them waits for ever.
const GROUP: usize = 4096;

pub(super) type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

enum Job {
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
    export_failures: watch::Receiver<Option<String>>,
    shared: Arc<Shared>,
}

/// What the thread tells without being asked.
struct Shared {
    /// How many batches are as durable as they were promised to be.
    durable: AtomicU64,
    failure: OnceLock<StoreError>,
    /// Why exports that were to be taken by themselves were not.
    export_failures: watch::Sender<Option<String>>,
}

impl Writer {
    /// Opens the disk on a thread of its own and reads what is there. Waits for that.
    pub(super) fn open<P: Place>(place: &P, rules: &Rules) -> Result<(Self, Loaded), StoreError> {
        let (jobs, inbox) = mpsc::channel();
        let (opened, wait) = mpsc::channel();
        let (tell, export_failures) = watch::channel(None);
        let shared =
            Arc::new(Shared { durable: AtomicU64::new(0), failure: OnceLock::new(), export_failures: tell });
        let limit = rules.open_limit;
        let (place, rules, theirs) = (place.clone(), rules.clone(), shared.clone());
        let thread = std::thread::Builder::new().name("callboard-store".to_owned()).spawn(move || {
            match bring_up(&place, &rules) {
                Ok((disk, identity, loaded)) => {
                    let automatic = Automatic::begin(&place, &rules, identity, &loaded);
                    let codec = loaded.codec.clone();
                    opened.send(Ok((identity, loaded))).ok();
                    let clock = Clock::system();
                    Desk {
                        untidy: disk.untidy().map(|after| clock.monotonic().saturating_add(after)),
                        disk: Some(disk),
                        upkeep: Upkeep::new(codec, rules.history),
                        sweeps: Sweeps::new(identity),
                        automatic,
                        durability: rules.durability,
                        waiting: Vec::new(),
                        unsynced: None,
                        clock,
                        shared: theirs,
                    }
                    .serve(&inbox);
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
                writer.thread = None;
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
        match self.shared.failure.get() {
            None => Ok(()),
            Some(error) => Err(StoreError::Unavailable {
                reason: format!("it failed ({error}) and has not been opened again yet"),
                source: Some(Arc::new(error.clone())),
            }),
        }
    }

    /// Takes the store down from the actor's side.
    pub(super) fn spoil(&self, error: &StoreError) {
        self.shared.failure.get_or_init(|| error.clone());
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
    pub(super) fn export_failures(&mut self) -> ExportFailures {
        let untold = self.export_failures.clone();
        self.export_failures.borrow_and_update();
        ExportFailures(untold)
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

fn died() -> StoreError {
    StoreError::unavailable("the thread that writes for it has ended")
}

/// Files are let go a moment after a database was dropped, and those of a killed process a moment
/// after its successor was started.
pub(super) fn open_patiently<P: Place>(place: &P) -> Result<P::Disk, StoreError> {
    let mut patience = 20;
    loop {
        match place.open() {
            Err(StoreError::InUse { .. }) if patience > 0 => {
                patience -= 1;
                std::thread::sleep(Duration::from_millis(25));
            }
            other => return other,
        }
    }
}

/// Opens the disk and reads what is there. A directory that is damaged beyond repair is set aside, if
/// that was asked for.
fn bring_up<P: Place>(place: &P, rules: &Rules) -> Result<(P::Disk, Uuid, Loaded), StoreError> {
    let open = || {
        let mut disk = guarded(|| open_patiently(place))?;
        let (identity, loaded) = guarded(|| {
            import::check_complete(&disk, place.path())?;
            let identity = identity::establish(&mut disk)?;
            Ok((identity, Loaded::from_disk(&disk, rules.codec(identity)?)?))
        })?;
        Ok((disk, identity, loaded))
    };
    match open() {
        Err(error) if rules.set_aside && is_beyond_repair(&error) => {
            let aside = files::set_aside(place.path(), Clock::system().now())?;
            let (disk, identity, mut loaded) = open()?;
            let place = aside.display().to_string();
            loaded.set_aside = Some(SetAside { place, reason: error.to_string() });
            Ok((disk, identity, loaded))
        }
        opened => opened,
    }
}

/// The panic of a database is an error like others.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let said = message(&panic);
        Err(StoreError::unavailable(format!("its database panicked: {said}")))
    })
}

fn message(panic: &Box<dyn Any + Send>) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

/// The thread's side.
struct Desk<D> {
    /// `None` after a failure.
    disk: Option<D>,
    upkeep: Upkeep,
    sweeps: Sweeps,
    automatic: Option<Automatic>,
    durability: Durability,
    /// Whoever waits for the next sync.
    waiting: Vec<Answer<()>>,
    /// When what is applied and not synced must be synced, in the relaxed mode; by the clock below.
    unsynced: Option<Duration>,
    /// When the disk is to be tidied; by the clock below.
    untidy: Option<Duration>,
    /// The machine's, also where a test turns the time: it is the device that must keep up.
    clock: Clock,
    shared: Arc<Shared>,
}

impl<D: Disk> Desk<D> {
    fn serve(mut self, inbox: &mpsc::Receiver<Job>) {
        loop {
            let mut next = match self.until() {
                None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => inbox.recv_timeout(at.saturating_sub(self.clock.monotonic())),
            };
            if let Err(RecvTimeoutError::Disconnected) = next {
                self.sync();
                return;
            }
            // Everything that is there already shares the next sync.
            let mut group = 0;
            while let Ok(Job::Write { batch, done }) = next {
                self.write(batch, done);
                group += 1;
                next = if group < GROUP {
                    inbox.try_recv().map_err(|_| RecvTimeoutError::Timeout)
                } else {
                    Err(RecvTimeoutError::Timeout)
                };
            }
            if matches!(self.durability, Durability::Fsync) || next.is_ok() || self.is_overdue() {
                self.sync();
            }
            self.tidy();
            match next {
                Ok(Job::Runs { id, limit, done }) => {
                    let codec = self.upkeep.codec.clone();
                    drop(done.send(self.ask(|disk| latest(disk, &codec, &id, limit))))
                }
                Ok(Job::Find { request, done }) => {
                    let codec = self.upkeep.codec.clone();
                    drop(done.send(self.ask(|disk| find(disk, &codec, &request))));
                }
                Ok(Job::Load { codec, done }) => {
                    self.upkeep.clear();
                    self.upkeep.codec = codec.clone();
                    drop(done.send(self.ask(|disk| Loaded::from_disk(disk, codec))));
                }
                Ok(Job::Sweep(sweep)) => {
                    if let Some(codec) = sweep.codec() {
                        self.upkeep.codec = codec.clone();
                    }
                    self.sweeps.add(*sweep);
                }
                Ok(Job::Close { done }) => {
                    let closed = match self.disk.take() {
                        Some(disk) => guarded(|| disk.close()),
                        None => self.failure(),
                    };
                    done.send(closed).ok();
                    return;
                }
                Ok(Job::Write { .. }) | Err(_) => {}
            }
            self.go_on();
            self.take_exports();
        }
    }

    /// When there is something to do although nobody asks; by the clock below.
    fn until(&self) -> Option<Duration> {
        if !self.sweeps.is_empty() {
            return Some(Duration::ZERO);
        }
        // A store that is down takes no exports.
        let export = self.automatic.as_ref().filter(|_| self.disk.is_some()).map(Automatic::next);
        self.unsynced.into_iter().chain(self.untidy).chain(export).min()
    }

    /// Tells of the export that failed, and begins the one whose time has come.
    fn take_exports(&mut self) {
        let (Some(automatic), Some(_)) = (&mut self.automatic, &self.disk) else { return };
        if let Some(error) = automatic.settle(&self.clock) {
            self.shared.export_failures.send_replace(Some(error.to_string()));
        }
        if let Some(sweep) = automatic.take(&self.clock) {
            self.sweeps.add(sweep);
        }
    }

    /// Goes on with what goes through everything, for a moment.
    fn go_on(&mut self) {
        if self.sweeps.is_empty() {
            return;
        }
        let Some(disk) = &mut self.disk else {
            return self.sweeps.fail(&self.shared.failure.get().cloned().unwrap_or_else(died));
        };
        let (sweeps, codec) = (&mut self.sweeps, &self.upkeep.codec);
        match guarded(|| sweeps.go_on(disk, codec)) {
            Ok(false) => {}
            Ok(true) => {
                self.unsynced.get_or_insert(Duration::ZERO);
                self.sync();
                if self.disk.is_some() {
                    self.sweeps.answer();
                }
            }
            Err(error) => self.fail(error),
        }
    }

    fn is_overdue(&self) -> bool {
        self.unsynced.is_some_and(|at| at <= self.clock.monotonic())
    }

    fn failure(&self) -> Result<(), StoreError> {
        self.shared.failure.get().cloned().map_or(Ok(()), Err)
    }

    /// Reads from the disk, where everything is synced. One that cannot be read is not written to
    /// either.
    fn ask<T>(&mut self, ask: impl FnOnce(&D) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let Some(disk) = &self.disk else {
            return Err(self.shared.failure.get().cloned().unwrap_or_else(died));
        };
        guarded(|| ask(disk)).inspect_err(|error| self.fail(error.clone()))
    }

    fn write(&mut self, mut batch: Batch, done: Answer<()>) {
        let Some(disk) = &mut self.disk else {
            let error = self.shared.failure.get().cloned().unwrap_or_else(died);
            done.send(Err(error)).ok();
            return;
        };
        if !batch.is_empty() {
            let (upkeep, sweeps) = (&mut self.upkeep, &mut self.sweeps);
            if let Some(automatic) = &mut self.automatic {
                automatic.note(&batch.changes);
            }
            let applied = guarded(|| {
                upkeep.complete(disk, &mut batch)?;
                sweeps.keep(disk, &batch.changes)?;
                disk.apply(batch.changes)
            });
            if let Err(error) = applied {
                self.waiting.push(done);
                return self.fail(error);
            }
        }
        match self.durability {
            Durability::Fsync => self.waiting.push(done),
            Durability::Interval(most) => {
                self.unsynced.get_or_insert_with(|| self.clock.monotonic().saturating_add(most));
                self.shared.durable.fetch_add(1, Ordering::Release);
                done.send(Ok(())).ok();
            }
        }
    }

    /// Syncs what was applied, and answers those who wait for it.
    fn sync(&mut self) {
        if self.waiting.is_empty() && self.unsynced.take().is_none() {
            return;
        }
        let Some(disk) = &mut self.disk else { return };
        match guarded(|| disk.sync()) {
            Ok(()) => {
                self.shared.durable.fetch_add(self.waiting.len() as u64, Ordering::Release);
                self.waiting.drain(..).for_each(|done| drop(done.send(Ok(()))));
            }
            Err(error) => return self.fail(error),
        }
        if self.untidy.is_none() {
            self.untidy = disk.untidy().map(|after| self.clock.monotonic().saturating_add(after));
        }
    }

    /// Has the disk do what it put off, when its time has come.
    fn tidy(&mut self) {
        let begun = self.clock.monotonic();
        if self.untidy.is_none_or(|at| at > begun) {
            return;
        }
        self.untidy = None;
        let Some(disk) = &mut self.disk else { return };
        if let Err(error) = guarded(|| disk.tidy()) {
            return self.fail(error);
        }
        // At most a tenth of the time goes into it, or half.
        let ended = self.clock.monotonic();
        let rest = (ended - begun) * if disk.is_pressed() { 1 } else { 9 };
        self.untidy = disk.untidy().map(|after| ended.saturating_add(after.max(rest)));
    }

    /// Nobody knows what is written. That is told before anybody is answered, so that whoever has
    /// heard of the failure finds the store down.
    fn fail(&mut self, error: StoreError) {
        tracing::error!(%error, "the disk of a durable store failed; the store is down until it is opened again");
        self.shared.failure.get_or_init(|| error.clone());
        // A database whose files are gone may panic when it is dropped.
        let disk = self.disk.take();
        catch_unwind(AssertUnwindSafe(|| drop(disk))).ok();
        (self.unsynced, self.untidy) = (None, None);
        self.sweeps.fail(&error);
        self.waiting.drain(..).for_each(|done| drop(done.send(Err(error.clone()))));
    }
}
