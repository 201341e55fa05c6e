//! What is owed between the scheduler and one store: the one list of it.
//!
//! | debt | where it comes from | paid by |
//! |---|---|---|
//! | an unanswered commit | the store did not say whether it wrote a decision down, or the scheduler's actor died before it heard | asking the store about each run |
//! | an unwritten end | a run ended | `Finish` |
//! | an undecided end | a run ended that may come again | the step that says what comes of it |
//! | an unconfirmed removal | a step that was not answered would have removed a task | asking the store for the task |
//! | an unconfirmed clearing | so would one that removes all tasks | asking the store for its tasks |
//!
//! Debts outlive the store's actor and the scheduler's: [`reopened`](Ledger::reopened) makes everything
//! that was on its way owed again.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures::channel::oneshot;

use crate::task::{Run, RunEnd, RunId, TaskId};

/// A run whose commit was not answered, and its end when it was to end before it began.
pub(super) type Unanswered = (Arc<Run>, Option<RunEnd>);

/// An end as a store writes it.
pub(super) type WrittenEnd = (RunId, TaskId, RunEnd);

#[derive(Default)]
pub(super) struct Ledger {
    /// Commits that the store is to be asked about.
    unanswered: Vec<Unanswered>,
    /// How many it is being asked about.
    asked: usize,
    /// Those of tasks that cannot be read: the store is asked about them when it is opened again.
    unreadable: Vec<Unanswered>,
    unwritten: Vec<WrittenEnd>,
    /// Ends on their way. Here, and not with who waits for the answer, so that a successor of the
    /// scheduler's actor has them.
    on_their_way: Option<Vec<WrittenEnd>>,
    undecided: Vec<(Arc<Run>, RunEnd)>,
    deciding: bool,
    removals: BTreeSet<TaskId>,
    /// When the store was told to remove all tasks.
    clearing: Option<DateTime<Utc>>,
    /// Who waits until no end is owed, or nothing can be done about it.
    bells: Vec<oneshot::Sender<()>>,
}

/// What a store is asked about unanswered steps.
pub(super) struct Questions {
    pub runs: Vec<Unanswered>,
    pub removals: Vec<TaskId>,
    pub clearing: Option<DateTime<Utc>>,
}

/// What is left of a store that was removed.
pub(super) struct Remains {
    pub unanswered: Vec<Unanswered>,
    /// Ends that nobody will try again.
    pub undecided: Vec<(Arc<Run>, RunEnd)>,
}

impl Ledger {
    /// Whether it is not known of some runs whether they are to be. The tasks tell, and so they are not
    /// moved on meanwhile.
    pub(super) fn has_unanswered(&self) -> bool {
        self.asked > 0 || !self.unanswered.is_empty()
    }

    /// Whether the store is still to be asked about some.
    pub(super) fn has_questions(&self) -> bool {
        !self.unanswered.is_empty()
    }

    /// Whether the store is still to be asked about this run.
    pub(super) fn is_unanswered(&self, run: RunId) -> bool {
        self.unanswered.iter().any(|(unanswered, _)| unanswered.id == run)
    }

    pub(super) fn owe_answers(&mut self, runs: impl IntoIterator<Item = Unanswered>) {
        self.unanswered.extend(runs);
    }

    /// What the store is to be asked. The runs are on their way with that: each comes back by
    /// [`answered`](Self::answered), and what is still not known is owed anew.
    pub(super) fn ask(&mut self) -> Questions {
        let mut runs = std::mem::take(&mut self.unanswered);
        runs.append(&mut self.unreadable);
        self.asked += runs.len();
        Questions { runs, removals: self.removals.iter().cloned().collect(), clearing: self.clearing }
    }

    /// The store has answered a question about one run, or failed to.
    pub(super) fn answered(&mut self) {
        self.asked = self.asked.saturating_sub(1);
    }

    /// The task of this run cannot be read, which is no trouble of the store's: it is asked again when it
    /// is opened the next time.
    pub(super) fn cannot_read(&mut self, run: Unanswered) {
        self.unreadable.push(run);
    }

    pub(super) fn owe_end(&mut self, run: &Run, end: RunEnd) {
        self.unwritten.push((run.id, run.task.id.clone(), end));
    }

    /// The ends to tell the store of now; `None` when there are none, or some are on their way: those
    /// that come in meanwhile share the next message.
    pub(super) fn write_ends(&mut self) -> Option<Vec<WrittenEnd>> {
        if self.on_their_way.is_some() || self.unwritten.is_empty() {
            return None;
        }
        let ends = std::mem::take(&mut self.unwritten);
        self.on_their_way = Some(ends.clone());
        Some(ends)
    }

    /// The store has answered; ends that it did not write are owed still, in their order.
    pub(super) fn ends_answered(&mut self, written: bool) {
        let ends = self.on_their_way.take().unwrap_or_default();
        if written {
            self.ring_if_paid();
        } else {
            self.unwritten.splice(0..0, ends);
            self.ring();
        }
    }

    pub(super) fn owe_decision(&mut self, run: Arc<Run>, end: RunEnd) {
        self.undecided.push((run, end));
    }

    /// The runs that have ended and may come again.
    pub(super) fn undecided(&self) -> impl Iterator<Item = &Arc<Run>> + Clone {
        self.undecided.iter().map(|(run, _)| run)
    }

    /// At most so many ends to decide about now; `None` when there are none, or some are being decided.
    pub(super) fn decide_ends(&mut self, most: usize) -> Option<Vec<(Arc<Run>, RunEnd)>> {
        if self.deciding || self.undecided.is_empty() {
            return None;
        }
        self.deciding = true;
        Some(self.undecided.iter().take(most).cloned().collect())
    }

    /// That step has ended, whatever came of it.
    pub(super) fn decisions_answered(&mut self) {
        self.deciding = false;
    }

    /// Strikes runs off the list; answers with those that were on it. Whoever takes one off tells of it.
    pub(super) fn decided(&mut self, runs: impl Iterator<Item = RunId>) -> HashSet<RunId> {
        let mut done: HashSet<RunId> = runs.collect();
        let mut struck = HashSet::with_capacity(done.len());
        self.undecided.retain(|(run, _)| {
            let decided = done.remove(&run.id);
            if decided {
                struck.insert(run.id);
            }
            !decided
        });
        struck
    }

    pub(super) fn owe_removals(&mut self, tasks: impl IntoIterator<Item = TaskId>) {
        self.removals.extend(tasks);
    }

    /// Whether it is not known of a task whether it was removed.
    pub(super) fn may_be_removed(&self, task: &TaskId) -> bool {
        self.removals.contains(task)
    }

    /// It is known now; answers whether it was not before.
    pub(super) fn removal_known(&mut self, task: &TaskId) -> bool {
        self.removals.remove(task)
    }

    /// The earliest one counts: what was added since is not of those that it may have removed.
    pub(super) fn owe_clearing(&mut self, at: DateTime<Utc>) {
        self.clearing.get_or_insert(at);
    }

    /// What came of the clearing of this time is known; answers whether it was owed.
    pub(super) fn clearing_known(&mut self, at: DateTime<Utc>) -> bool {
        self.clearing.take_if(|owed| *owed == at).is_some()
    }

    /// Rings when every end has been written, or cannot be; `None` when none is on its way.
    pub(super) fn after_ends(&mut self) -> Option<oneshot::Receiver<()>> {
        (self.on_their_way.is_some() || self.deciding).then(|| {
            let (bell, wait) = oneshot::channel();
            self.bells.push(bell);
            wait
        })
    }

    /// Whoever waits for the ends goes on, if there are none.
    pub(super) fn ring_if_paid(&mut self) {
        let working = self.on_their_way.is_some() || self.deciding;
        if !working && self.unwritten.is_empty() && self.undecided.is_empty() {
            self.ring();
        }
    }

    /// Whoever waits for the ends goes on: nothing can be done about them now.
    pub(super) fn ring(&mut self) {
        for bell in self.bells.drain(..) {
            bell.send(()).ok();
        }
    }

    /// The store's actor is gone, and with it what was on its way: that is owed again. Runs that it was
    /// being asked about come back by themselves.
    pub(super) fn reopened(&mut self) {
        self.ends_answered(false);
        self.deciding = false;
        self.asked = 0;
    }

    pub(super) fn into_remains(self) -> Remains {
        let unanswered = self.unanswered.into_iter().chain(self.unreadable).collect();
        Remains { unanswered, undecided: self.undecided }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{Alias, Code, Outcome, OwnerId, Task, TaskContext, TaskDefaults};
    use crate::trigger::{Interval, Zone};

    fn run(serial: u64) -> Arc<Run> {
        let spec = Task::new("x").id(format!("t{serial}").as_str()).trigger(Interval::seconds(1));
        let spec = Arc::new(spec.resolve(&TaskDefaults::default(), Zone::UTC).unwrap());
        let id = RunId { owner: OwnerId(1), serial };
        let code = Code::from_async(|_: TaskContext, ()| async {});
        Arc::new(Run::new(id, spec, Alias::default_alias(), DateTime::UNIX_EPOCH, code))
    }

    fn end() -> RunEnd {
        RunEnd::unstarted(Outcome::Interrupted { reason: "of the test".to_owned() }, DateTime::UNIX_EPOCH)
    }

    fn serials(ends: Option<Vec<WrittenEnd>>) -> Vec<u64> {
        ends.into_iter().flatten().map(|(run, ..)| run.serial).collect()
    }

    #[test]
    fn ends_are_written_one_message_at_a_time_and_in_their_order() {
        let mut ledger = Ledger::default();
        assert!(ledger.write_ends().is_none());
        ledger.owe_end(&run(1), end());
        ledger.owe_end(&run(2), end());
        assert_eq!(serials(ledger.write_ends()), [1, 2]);
        ledger.owe_end(&run(3), end());
        assert!(ledger.write_ends().is_none(), "some are on their way");
        ledger.ends_answered(false);
        assert_eq!(serials(ledger.write_ends()), [1, 2, 3], "what was not written is owed, first");
        ledger.ends_answered(true);
        assert!(ledger.write_ends().is_none());
    }

    #[test]
    fn what_was_on_its_way_to_an_actor_that_is_gone_is_owed_again() {
        let mut ledger = Ledger::default();
        ledger.owe_end(&run(1), end());
        ledger.owe_decision(run(2), end());
        ledger.owe_answers([(run(3), None)]);
        assert_eq!(serials(ledger.write_ends()), [1]);
        assert_eq!(ledger.decide_ends(9).unwrap().len(), 1);
        assert_eq!(ledger.ask().runs.len(), 1);
        let mut waits = ledger.after_ends().unwrap();
        ledger.reopened();
        assert_eq!(waits.try_recv(), Ok(Some(())), "who waits for the ends is not kept for ever");
        assert_eq!(serials(ledger.write_ends()), [1]);
        assert_eq!(ledger.decide_ends(9).unwrap().len(), 1);
        assert!(!ledger.has_unanswered(), "whoever asked about it owes it anew");
    }

    #[test]
    fn no_tick_begins_before_every_question_has_its_answer() {
        let mut ledger = Ledger::default();
        ledger.owe_answers([(run(1), None), (run(2), Some(end()))]);
        assert!(ledger.has_unanswered() && ledger.is_unanswered(run(1).id));
        let Questions { runs, .. } = ledger.ask();
        assert!(ledger.has_unanswered() && !ledger.has_questions() && !ledger.is_unanswered(run(1).id));
        for (place, run) in runs.into_iter().enumerate() {
            ledger.answered();
            if place == 1 {
                ledger.cannot_read(run);
            }
        }
        assert!(!ledger.has_unanswered(), "a task that cannot be read keeps no other from running");
        assert_eq!(ledger.ask().runs.len(), 1, "it is asked about when the store is opened again");
    }

    #[test]
    fn who_strikes_an_end_off_tells_of_it_and_nobody_else() {
        let mut ledger = Ledger::default();
        (1..=3).for_each(|serial| ledger.owe_decision(run(serial), end()));
        let batch = ledger.decide_ends(2).unwrap();
        assert_eq!(batch.len(), 2);
        assert!(ledger.decide_ends(2).is_none(), "one step at a time");
        let ids: Vec<RunId> = batch.iter().map(|(run, _)| run.id).collect();
        assert_eq!(ledger.decided(ids.iter().copied()).len(), 2);
        assert!(ledger.decided(ids.iter().copied()).is_empty(), "they were told of");
        let waits = ledger.after_ends();
        ledger.decisions_answered();
        ledger.ring_if_paid();
        assert_eq!(waits.unwrap().try_recv(), Ok(None), "one is owed still");
        assert_eq!(ledger.undecided().count(), 1);
    }

    #[test]
    fn removals_and_clearings_are_told_of_once() {
        let mut ledger = Ledger::default();
        let (early, late) = (DateTime::UNIX_EPOCH, DateTime::UNIX_EPOCH + chrono::TimeDelta::seconds(1));
        ledger.owe_removals([run(1).task.id.clone(), run(1).task.id.clone()]);
        ledger.owe_clearing(early);
        ledger.owe_clearing(late);
        let asked = ledger.ask();
        assert_eq!((asked.removals.len(), asked.clearing), (1, Some(early)));
        assert!(ledger.may_be_removed(&run(1).task.id));
        assert!(ledger.removal_known(&run(1).task.id) && !ledger.removal_known(&run(1).task.id));
        assert!(!ledger.clearing_known(late), "that is not the one that is owed");
        assert!(ledger.clearing_known(early) && !ledger.clearing_known(early));
    }

    #[test]
    fn of_a_store_that_is_removed_nothing_is_forgotten() {
        let mut ledger = Ledger::default();
        ledger.owe_answers([(run(1), None)]);
        ledger.cannot_read((run(2), Some(end())));
        ledger.owe_decision(run(3), end());
        let Remains { unanswered, undecided } = ledger.into_remains();
        assert_eq!((unanswered.len(), undecided.len()), (2, 1));
    }
}
