//! The thread that has the disk.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use uuid::Uuid;

use super::exports::Automatic;
use super::load::Loaded;
use super::opening::guarded;
use super::reading::Reading;
use super::reserve::{Reserve, is_out_of_descriptors};
use super::sweep::Sweeps;
use super::upkeep::Upkeep;
use super::writer::{Answer, Job, Shared, died};
use super::{Batch, Descriptors, Disk, Durability, Place, Rules};
use crate::clock::Clock;
use crate::store::StoreError;
use crate::store::envelope::Codec;
use crate::store::retention::Retention;

/// So many batches share one sync at most, lest the first of them waits for ever.
const GROUP: usize = 4096;

/// So often it is looked whether the files are still those that were opened, also when nothing is written.
const LOOK: Duration = Duration::from_secs(2);

/// So long the upkeep waits for descriptors.
const SHORTAGE: Duration = Duration::from_millis(200);

/// The thread's side of a [`Writer`](super::writer::Writer).
pub(super) struct Desk<D> {
    /// `None` after a failure.
    disk: Option<D>,
    reserve: Reserve,
    upkeep: Upkeep,
    /// When it goes on with what it has to do; by the clock below.
    upkeep_at: Duration,
    retention: Retention,
    sweeps: Sweeps,
    /// They take turns.
    readings: VecDeque<Reading>,
    automatic: Option<Automatic>,
    durability: Durability,
    /// Whoever waits for the next sync.
    waiting: Vec<Answer<()>>,
    /// When what is applied and not synced must be synced, in the relaxed mode; by the clock below.
    unsynced: Option<Duration>,
    /// When the disk is to be tidied; by the clock below.
    untidy: Option<Duration>,
    /// When it is looked whether the disk is still there; by the clock below.
    look: Duration,
    /// The machine's, also where a test turns the time: it is the device that must keep up.
    clock: Clock,
    shared: Arc<Shared>,
}

impl<D: Disk> Desk<D> {
    pub(super) fn new<P: Place>(
        disk: D,
        identity: Uuid,
        loaded: &Loaded,
        place: &P,
        rules: &Rules,
        shared: Arc<Shared>,
    ) -> Self {
        let clock = Clock::system();
        let Descriptors { sync, tidy, read } = disk.descriptors();
        Self {
            reserve: Reserve::new(sync.max(tidy).max(read)),
            untidy: disk.untidy().map(|after| clock.monotonic().saturating_add(after)),
            disk: Some(disk),
            upkeep: Upkeep::new(rules.retention, loaded, clock.monotonic()),
            upkeep_at: Duration::ZERO,
            retention: rules.retention,
            sweeps: Sweeps::new(identity),
            readings: VecDeque::new(),
            automatic: Automatic::begin(place, rules, identity, loaded),
            durability: rules.durability,
            waiting: Vec::new(),
            unsynced: None,
            look: clock.monotonic().saturating_add(LOOK),
            clock,
            shared,
        }
    }

    /// Does what comes in until nobody is left who could send more.
    pub(super) fn serve(mut self, inbox: &mpsc::Receiver<Job>) {
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
            self.look();
            self.tidy();
            match next {
                Ok(Job::Runs { id, limit, done }) => {
                    self.readings.push_back(Reading::latest(id, limit, done));
                }
                Ok(Job::Find { request, done }) => self.readings.push_back(Reading::find(request, done)),
                Ok(Job::Load { codec, done }) => {
                    let loaded = self.ask(|disk| Loaded::from_disk(disk, codec));
                    if let Ok(loaded) = &loaded {
                        self.upkeep = Upkeep::new(self.retention, loaded, self.clock.monotonic());
                        self.write_with(&loaded.codec);
                    }
                    drop(done.send(loaded));
                }
                Ok(Job::Sweep(sweep)) => {
                    if let Some(codec) = sweep.codec() {
                        self.write_with(codec);
                    }
                    self.sweeps.add(*sweep);
                }
                Ok(Job::Close { done }) => {
                    self.reserve.release();
                    let closed = match self.disk.take() {
                        Some(disk) => guarded(|| disk.close()),
                        None => self.failure(),
                    };
                    done.send(closed).ok();
                    return;
                }
                Ok(Job::Write { .. }) | Err(_) => {}
            }
            self.read_on();
            self.go_on();
            self.keep_up();
            self.take_exports();
        }
    }

    fn write_with(&mut self, codec: &Codec) {
        self.upkeep.codec = codec.clone();
        if let Some(automatic) = &mut self.automatic {
            automatic.note_keys();
        }
    }

    /// When there is something to do although nobody asks; by the clock below.
    fn until(&self) -> Option<Duration> {
        if !self.sweeps.is_empty() || !self.readings.is_empty() {
            return Some(Duration::ZERO);
        }
        // A store that is down takes no exports, and is not looked after.
        let works = self.disk.is_some();
        let export = self.automatic.as_ref().filter(|_| works).map(Automatic::next);
        let upkeep = (works && self.upkeep.has_work()).then_some(self.upkeep_at);
        self.unsynced
            .into_iter()
            .chain(self.untidy)
            .chain(export)
            .chain(works.then_some(self.look))
            .chain(upkeep)
            .min()
    }

    /// Tells of the export that failed, and begins the one whose time has come.
    fn take_exports(&mut self) {
        let (Some(automatic), Some(_)) = (&mut self.automatic, &self.disk) else { return };
        if let Some(error) = automatic.settle(&self.clock) {
            self.shared.export_failures.send_replace(Some(error));
        }
        let Some(sweep) = automatic.take(&self.clock) else { return };
        // Its directory may be one beside the store's: it is not made where that has vanished.
        match self.disk.as_ref().map_or(Ok(()), |disk| guarded(|| disk.check_place())) {
            Ok(()) => self.sweeps.add(sweep),
            Err(error) => self.fail(error),
        }
    }

    /// Reads records that somebody waits for, for a moment.
    fn read_on(&mut self) {
        let Some(mut reading) = self.readings.pop_front() else { return };
        let codec = self.upkeep.codec.clone();
        match self.ask(|disk| reading.go_on(disk, &codec)) {
            Ok(false) => self.readings.push_back(reading),
            Ok(true) => reading.answer(Ok(())),
            Err(error) => reading.answer(Err(error)),
        }
    }

    /// Sees to the records that are kept and to those that are not, for a moment.
    fn keep_up(&mut self) {
        let now = self.clock.monotonic();
        let is_due = self.upkeep.has_work() && self.upkeep_at <= now;
        let Some(disk) = self.disk.as_mut().filter(|_| is_due) else { return };
        let (upkeep, sweeps) = (&mut self.upkeep, &mut self.sweeps);
        // It is not urgent: when they are short, it is tried again.
        let Ok(loan) = self.reserve.lend(disk.descriptors().read) else {
            self.upkeep_at = now.saturating_add(SHORTAGE);
            return;
        };
        let kept = guarded(|| {
            let batch = upkeep.go_on(disk)?;
            if batch.is_empty() {
                return Ok(false);
            }
            sweeps.keep(disk, &batch.changes)?;
            disk.apply(batch.changes).map(|()| true)
        });
        drop(loan);
        match kept {
            Ok(false) => {}
            Ok(true) => {
                self.unsynced.get_or_insert(Duration::ZERO);
            }
            Err(error) => self.fail(error),
        }
    }

    /// Goes on with what goes through everything, for a moment.
    fn go_on(&mut self) {
        if self.sweeps.is_empty() {
            return;
        }
        let Some(disk) = &mut self.disk else {
            return self.sweeps.fail(&self.shared.failure().cloned().unwrap_or_else(died));
        };
        let (sweeps, codec) = (&mut self.sweeps, &self.upkeep.codec);
        let loan = match self.reserve.lend(disk.descriptors().read) {
            Ok(loan) => loan,
            Err(error) => return sweeps.fail(&exhausted(error)),
        };
        let went = guarded(|| sweeps.go_on(disk, codec));
        drop(loan);
        match went {
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
        self.shared.failure().cloned().map_or(Ok(()), Err)
    }

    /// Reads from the disk, where everything is synced. One that cannot be read is not written to
    /// either.
    fn ask<T>(&mut self, ask: impl FnOnce(&D) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let Some(disk) = &self.disk else {
            return Err(self.shared.failure().cloned().unwrap_or_else(died));
        };
        let loan = self.reserve.lend(disk.descriptors().read).map_err(exhausted)?;
        let answer = guarded(|| ask(disk));
        drop(loan);
        answer.inspect_err(|error| {
            if !is_out_of_descriptors(error) {
                self.fail(error.clone());
            }
        })
    }

    fn write(&mut self, mut batch: Batch, done: Answer<()>) {
        let Some(disk) = &mut self.disk else {
            let error = self.shared.failure().cloned().unwrap_or_else(died);
            done.send(Err(error)).ok();
            return;
        };
        if !batch.is_empty() {
            let (upkeep, sweeps, now) = (&mut self.upkeep, &mut self.sweeps, self.clock.monotonic());
            if let Some(automatic) = &mut self.automatic {
                automatic.note(&batch);
            }
            // Without them it is tried all the same.
            let read = if batch.chores.is_empty() { 0 } else { disk.descriptors().read };
            let loan = self.reserve.lend(read).ok();
            let applied = guarded(|| {
                upkeep.complete(disk, &mut batch, now)?;
                sweeps.keep(disk, &batch.changes)?;
                disk.apply(batch.changes)
            });
            drop(loan);
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
        let loan = self.reserve.lend(disk.descriptors().sync).ok();
        // What lies in files that nobody else finds is not acknowledged.
        let synced = guarded(|| disk.sync().and_then(|()| disk.check_place()));
        drop(loan);
        match synced {
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

    /// Looks now and then whether the disk is still there, and still this store's.
    fn look(&mut self) {
        let now = self.clock.monotonic();
        if self.look > now {
            return;
        }
        self.look = now.saturating_add(LOOK);
        self.reserve.fill();
        let Some(disk) = &self.disk else { return };
        let loan = self.reserve.lend(1).ok();
        let looked = guarded(|| disk.check_place().and_then(|()| disk.check_identity()));
        drop(loan);
        if let Err(error) = looked {
            self.fail(error);
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
        let Ok(loan) = self.reserve.lend(disk.descriptors().tidy) else {
            // What is not tidied is durable all the same.
            self.untidy = Some(begun.saturating_add(LOOK));
            return;
        };
        let tidied = guarded(|| disk.tidy());
        drop(loan);
        if let Err(error) = tidied {
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
        // That its files are gone says more than what the system has made of it.
        let gone = self.disk.as_ref().and_then(|disk| guarded(|| disk.check_place()).err());
        let error = match gone {
            Some(gone @ StoreError::Gone { .. }) => gone,
            _ => error,
        };
        tracing::error!(%error, "the disk of a durable store failed; the store is down until it is opened again");
        self.shared.fail(&error);
        // A database whose files are gone may panic when it is dropped.
        let disk = self.disk.take();
        catch_unwind(AssertUnwindSafe(|| drop(disk))).ok();
        (self.unsynced, self.untidy) = (None, None);
        self.sweeps.fail(&error);
        self.waiting.drain(..).for_each(|done| drop(done.send(Err(error.clone()))));
    }
}

/// Nothing can be opened. What is stored is not touched by that.
fn exhausted(error: std::io::Error) -> StoreError {
    StoreError::Unavailable {
        reason: format!("no file can be opened: {error}; try again when others have closed theirs"),
        source: Some(Arc::new(error)),
    }
}
