//! The runs in flight: submitted, or about to be, and not yet ended.

use std::sync::Arc;

use futures::channel::oneshot;

use crate::task::{Alias, Refusal, Run, RunEnd, RunId, TaskId};

/// Whoever reports the end of a run first removes it from here, so each run ends once: a late
/// report of a run that was already written off finds nothing.
#[derive(Default)]
pub(super) struct Flight {
    slots: Vec<Option<Passenger>>,
    free: Vec<u32>,
}

struct Passenger {
    run: Arc<Run>,
    refused: Option<oneshot::Sender<Refusal>>,
    departed: bool,
    /// How it ends, when it was decided that it does not begin.
    end: Option<RunEnd>,
}

impl Flight {
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Takes the run that `make` builds for its slot on board.
    pub(super) fn board(&mut self, make: impl FnOnce(u32) -> Run) -> Arc<Run> {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            (self.slots.len() - 1) as u32
        });
        let run = Arc::new(make(slot));
        self.slots[slot as usize] =
            Some(Passenger { run: run.clone(), refused: None, departed: false, end: None });
        run
    }

    /// Tells `refused` if the run is not let in.
    pub(super) fn watch(&mut self, run: &Run, refused: oneshot::Sender<Refusal>) {
        if let Some(Some(passenger)) = self.slots.get_mut(run.slot as usize)
            && passenger.run.id == run.id
        {
            passenger.refused = Some(refused);
        }
    }

    /// The run is handed to its executor now.
    pub(super) fn depart(&mut self, run: &Run) {
        if let Some(Some(passenger)) = self.slots.get_mut(run.slot as usize)
            && passenger.run.id == run.id
        {
            passenger.departed = true;
        }
    }

    /// The run ends so without having begun, once that is written down.
    pub(super) fn doom(&mut self, run: &Run, end: RunEnd) {
        if let Some(Some(passenger)) = self.slots.get_mut(run.slot as usize)
            && passenger.run.id == run.id
        {
            passenger.end = Some(end);
        }
    }

    /// The runs that were decided and not handed over, with the ends of those that were not to be: of
    /// a scheduler that died meanwhile.
    pub(super) fn stranded(&self) -> Vec<(Arc<Run>, Option<RunEnd>)> {
        let boarded = self.slots.iter().flatten().filter(|passenger| !passenger.departed);
        boarded.map(|passenger| (passenger.run.clone(), passenger.end.clone())).collect()
    }

    pub(super) fn is_on_board(&self, run: &Run) -> bool {
        let passenger = self.slots.get(run.slot as usize).and_then(Option::as_ref);
        passenger.is_some_and(|passenger| passenger.run.id == run.id)
    }

    /// Takes the run off board; `None` when it has left already.
    pub(super) fn leave(&mut self, run: &Run) -> Option<Option<oneshot::Sender<Refusal>>> {
        let slot = self.slots.get_mut(run.slot as usize)?;
        let passenger = slot.take_if(|passenger| passenger.run.id == run.id)?;
        self.free.push(run.slot);
        Some(passenger.refused)
    }

    /// The runs that were handed to an executor. Of one that was not, it is not even known yet
    /// whether it comes to be.
    pub(super) fn departed(&self) -> Vec<Arc<Run>> {
        let departed = self.slots.iter().flatten().filter(|passenger| passenger.departed);
        departed.map(|passenger| passenger.run.clone()).collect()
    }

    /// The runs that were handed to this executor.
    pub(super) fn on_executor(&self, executor: &Alias) -> Vec<Arc<Run>> {
        let mut runs = self.departed();
        runs.retain(|run| run.task.executor == *executor);
        runs
    }

    /// How many runs of a task are on board. The same id in another store is another task.
    pub(super) fn running(&self, store: &Alias, id: &TaskId) -> u32 {
        self.iter().filter(|run| run.task.id == *id && run.store == *store).count() as u32
    }

    /// How many of them wait in their executor.
    pub(super) fn queued(&self, store: &Alias, id: &TaskId) -> u32 {
        let of_task = |run: &&Arc<Run>| run.task.id == *id && run.store == *store && run.is_queued();
        self.iter().filter(of_task).count() as u32
    }

    /// The run of this id, and whether it was handed over.
    pub(super) fn find(&self, id: RunId) -> Option<(&Arc<Run>, bool)> {
        let found = self.slots.iter().flatten().find(|passenger| passenger.run.id == id)?;
        Some((&found.run, found.departed))
    }

    /// All runs on board.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Run>> + Clone {
        self.slots.iter().flatten().map(|passenger| &passenger.run)
    }
}

#[cfg(test)]
mod tests {
    use chrono::Utc;

    use super::*;
    use crate::task::{Code, OwnerId, Task, TaskContext, TaskDefaults};
    use crate::trigger::Interval;

    #[test]
    fn a_run_leaves_once_and_its_slot_is_used_again() {
        let spec = Task::new("x").trigger(Interval::seconds(1));
        let spec = Arc::new(spec.resolve(&TaskDefaults::default(), crate::trigger::Zone::UTC).unwrap());
        let make = |serial: u64| {
            let spec = spec.clone();
            move |slot: u32| {
                let mut run = Run::new(
                    RunId { owner: OwnerId(1), serial },
                    spec,
                    Alias::default_alias(),
                    chrono::DateTime::<Utc>::UNIX_EPOCH,
                    Code::from_async(|_: TaskContext, ()| async {}),
                );
                run.slot = slot;
                run
            }
        };
        let mut flight = Flight::default();
        let first = flight.board(make(1));
        assert!(flight.leave(&first).is_some());
        assert!(flight.leave(&first).is_none());
        let second = flight.board(make(2));
        assert_eq!(first.slot, second.slot);
        assert!(flight.leave(&first).is_none(), "a late report must not take another run off");
        assert_eq!((flight.len(), flight.running(&Alias::default_alias(), &spec.id)), (1, 1));
        assert_eq!(flight.running(&Alias::new("another").unwrap(), &spec.id), 0);
    }
}
