//! The thread that has the disk.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use uuid::Uuid;

use super::exports::Automatic;
use super::history::{Upkeep, find, latest};
use super::load::Loaded;
use super::opening::guarded;
use super::sweep::Sweeps;
use super::writer::{Answer, Job, Shared, died};
use super::{Batch, Disk, Durability, Place, Rules};
use crate::clock::Clock;
use crate::store::StoreError;
use crate::store::envelope::Codec;

/// So many batches share one sync at most, lest the first of them waits for ever.
const GROUP: usize = 4096;

/// The thread's side of a [`Writer`](super::writer::Writer).
pub(super) struct Desk<D> {
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
    pub(super) fn new<P: Place>(
        disk: D,
        identity: Uuid,
        loaded: &Loaded,
        place: &P,
        rules: &Rules,
        shared: Arc<Shared>,
    ) -> Self {
        let clock = Clock::system();
        Self {
            untidy: disk.untidy().map(|after| clock.monotonic().saturating_add(after)),
            disk: Some(disk),
            upkeep: Upkeep::new(loaded.codec.clone(), rules.history),
            sweeps: Sweeps::new(identity),
            automatic: Automatic::begin(place, rules, identity, loaded),
            durability: rules.durability,
            waiting: Vec::new(),
            unsynced: None,
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
                    self.write_with(&codec);
                    drop(done.send(self.ask(|disk| Loaded::from_disk(disk, codec))));
                }
                Ok(Job::Sweep(sweep)) => {
                    if let Some(codec) = sweep.codec() {
                        self.write_with(codec);
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

    fn write_with(&mut self, codec: &Codec) {
        self.upkeep.codec = codec.clone();
        if let Some(automatic) = &mut self.automatic {
            automatic.note_keys();
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
            self.shared.export_failures.send_replace(Some(error));
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
            return self.sweeps.fail(&self.shared.failure().cloned().unwrap_or_else(died));
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
        self.shared.failure().cloned().map_or(Ok(()), Err)
    }

    /// Reads from the disk, where everything is synced. One that cannot be read is not written to
    /// either.
    fn ask<T>(&mut self, ask: impl FnOnce(&D) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let Some(disk) = &self.disk else {
            return Err(self.shared.failure().cloned().unwrap_or_else(died));
        };
        guarded(|| ask(disk)).inspect_err(|error| self.fail(error.clone()))
    }

    fn write(&mut self, mut batch: Batch, done: Answer<()>) {
        let Some(disk) = &mut self.disk else {
            let error = self.shared.failure().cloned().unwrap_or_else(died);
            done.send(Err(error)).ok();
            return;
        };
        if !batch.is_empty() {
            let (upkeep, sweeps) = (&mut self.upkeep, &mut self.sweeps);
            if let Some(automatic) = &mut self.automatic {
                automatic.note(&batch);
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
        self.shared.fail(&error);
        // A database whose files are gone may panic when it is dropped.
        let disk = self.disk.take();
        catch_unwind(AssertUnwindSafe(|| drop(disk))).ok();
        (self.unsynced, self.untidy) = (None, None);
        self.sweeps.fail(&error);
        self.waiting.drain(..).for_each(|done| drop(done.send(Err(error.clone()))));
    }
}
