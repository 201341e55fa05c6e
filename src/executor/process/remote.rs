//! In a worker: the pool's clock, when that is a virtual one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::channel::oneshot;

use super::wire::{FromWorker, Time};
use super::worker::Outlet;
use crate::clock::{Busy, BusyCount, TimeSource};
use crate::task::RunId;

/// What a run in a worker sees of a virtual clock: it stands still while the run works, and the pool
/// is told when the run does nothing but wait for it.
pub(super) struct RemoteClock {
    run: RunId,
    outlet: Outlet,
    state: Mutex<State>,
}

struct State {
    time: Time,
    busy: usize,
    /// How many calls of the pool have been heard: what the pool is told in between may be late.
    heard: u64,
    serial: u64,
    alarms: HashMap<u64, oneshot::Sender<Busy>>,
}

impl RemoteClock {
    pub(super) fn new(run: RunId, time: Time, outlet: Outlet) -> Self {
        let state = State { time, busy: 0, heard: 0, serial: 0, alarms: HashMap::new() };
        Self { run, outlet, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The pool has rung an alarm.
    pub(super) fn ring(self: &Arc<Self>, alarm: u64, time: Time) {
        let bell = {
            let mut state = self.state();
            state.heard += 1;
            state.time = time;
            state.alarms.remove(&alarm)
        };
        // Made in any case: when it is dropped, the pool hears that nothing came of the call.
        let busy = Busy::counted(self.clone());
        if let Some(bell) = bell {
            drop(bell.send(busy));
        }
    }

    /// The pool has asked the run to stop.
    pub(super) fn called(&self) {
        self.state().heard += 1;
    }
}

impl TimeSource for RemoteClock {
    fn now(&self) -> DateTime<Utc> {
        self.state().time.now
    }

    fn monotonic(&self) -> Duration {
        self.state().time.elapsed
    }

    fn alarm(self: Arc<Self>, at: DateTime<Utc>) -> oneshot::Receiver<Busy> {
        let (bell, rung) = oneshot::channel();
        let mut state = self.state();
        if at <= state.time.now {
            drop(state);
            drop(bell.send(Busy::counted(self)));
        } else {
            state.serial += 1;
            let alarm = state.serial;
            state.alarms.insert(alarm, bell);
            self.outlet.say(&FromWorker::Alarm { run: self.run, alarm, at });
        }
        rung
    }

    fn busy(self: Arc<Self>) -> Busy {
        Busy::counted(self)
    }
}

impl BusyCount for RemoteClock {
    fn begin(&self) {
        self.state().busy += 1;
    }

    fn end(&self) {
        let mut state = self.state();
        state.busy -= 1;
        if state.busy == 0 {
            self.outlet.say(&FromWorker::Idle { run: self.run, heard: state.heard });
        }
    }
}
