//! Random changes on a store and on the simplest thing that could be one.

use std::collections::BTreeMap;

use super::*;
use crate::store::in_order;

/// Makes `steps` random changes, chosen by `seed`, on a store and on a model, and compares all
/// answers.
///
/// # Panics
/// When an answer differs; the message has the seed and the step.
pub async fn random<S: StoreSource>(mut fresh: impl FnMut() -> S, seed: u64, steps: usize) {
    let subject = Subject::start(&mut fresh()).await;
    let mut model = Model::default();
    let mut dice = Dice(seed.wrapping_mul(2).wrapping_add(1));
    for step in 0..steps {
        let place = format!("seed {seed}, step {step}");
        match dice.roll(10) {
            0..4 => {
                let (task, expect) = model.some_put(&mut dice);
                let expected = model.put(&task, expect);
                let result = subject.store.put(Put { task, expect }).await;
                assert_eq!(kind(&result), expected, "{place}: put");
            }
            4 => {
                let (id, revision) = model.some_task(&mut dice);
                let revision = (dice.roll(2) == 0).then_some(revision);
                let expected = model.delete(&id, revision);
                let result = subject.store.delete(Delete { id, revision }).await;
                assert_eq!(result.map_err(|error| word(&error)), expected, "{place}: delete");
            }
            5 => {
                let (id, _) = model.some_task(&mut dice);
                let found = ok(subject.store.get(Get { id: id.clone() }).await, &place);
                assert_eq!(found.as_ref(), model.0.get(&id), "{place}: get");
            }
            6 if dice.roll(2) == 0 => {
                let (id, revision) = model.some_task(&mut dice);
                let until = match dice.roll(4) {
                    0 => Until::Now,
                    1 => Until::Recalled,
                    _ => Until::At(at(dice.roll(60) as i64)),
                };
                let deferral = Deferral { id, revision, until };
                model.defer(&deferral);
                let next = subject.store.defer(Defer { tasks: vec![deferral] }).await;
                assert_eq!(ok(next, &place), model.next_due(), "{place}: defer");
            }
            6 => {
                let expected = model.commit(&model.some_changes(&mut dice));
                let committed = ok(subject.store.commit(Commit { changes: expected.0 }).await, &place);
                assert_eq!(committed, expected.1, "{place}: commit");
            }
            _ => {
                let (now, limit) = (at(dice.roll(50) as i64), dice.roll(30) as usize);
                let due = ok(subject.store.take_due(TakeDue { now, limit }).await, &place);
                model.check_due(&due, now, limit, &place);
                let changes: Vec<_> = due
                    .tasks
                    .iter()
                    .map(|task| match dice.roll(8) {
                        0 => Change { then: Then::Remove, ..advance(task, None) },
                        _ => advance(task, Some(now + TimeDelta::seconds(1 + dice.roll(20) as i64))),
                    })
                    .collect();
                let expected = model.commit(&changes);
                let committed = ok(subject.store.commit(Commit { changes }).await, &place);
                assert_eq!(committed, expected.1, "{place}: commit of what is due");
            }
        }
        assert_eq!(subject.next_due().await, model.next_due(), "{place}: next due");
        if step % 16 == 0 {
            assert_eq!(subject.list().await, model.list(), "{place}: list");
        }
    }
    assert_eq!(subject.list().await, model.list(), "seed {seed}, at the end");
    subject.close().await;
}

#[derive(Default)]
struct Model(BTreeMap<TaskId, StoredTask>, BTreeMap<TaskId, Until>);

impl Model {
    fn some_task(&self, dice: &mut Dice) -> (TaskId, u64) {
        let id = id(&format!("task {}", dice.roll(40)));
        // Mostly the revision that is there.
        let revision = self.0.get(&id).map_or(1, |task| task.state.revision);
        (id, if dice.roll(5) == 0 { dice.roll(9) } else { revision })
    }

    fn some_put(&self, dice: &mut Dice) -> (StoredTask, Expect) {
        let (id, revision) = self.some_task(dice);
        let mut task = sample(id.as_str(), at(dice.roll(60) as i64));
        task.state.paused = dice.roll(4) == 0;
        if dice.roll(6) == 0 {
            task.state.next = None;
        }
        match dice.roll(2) {
            0 => (task, Expect::Absent),
            _ => {
                task.state.revision = revision + 1;
                (task, Expect::Revision(revision))
            }
        }
    }

    fn some_changes(&self, dice: &mut Dice) -> Vec<Change> {
        (0..dice.roll(12))
            .map(|_| {
                let (id, revision) = self.some_task(dice);
                let mut task = sample(id.as_str(), at(0));
                task.state.revision = revision;
                let due = Some(at(dice.roll(60) as i64));
                match dice.roll(6) {
                    0 => {
                        let new = changed(&task, |spec, state| {
                            spec.args = serde_json::json!({ "roll": dice.roll(99) });
                            state.next = due.map(|due| Fire { nominal: due, due });
                        });
                        Change { then: Then::Task(new), ..advance(&task, due) }
                    }
                    _ => advance(&task, due),
                }
            })
            .collect()
    }

    fn put(&mut self, task: &StoredTask, expect: Expect) -> &'static str {
        let there = self.0.get(&task.spec.id).map(|task| task.state.revision);
        match (there, expect) {
            (Some(_), Expect::Absent) => return "exists",
            (None, Expect::Revision(_)) => return "not found",
            (Some(there), Expect::Revision(revision)) if there != revision => return "changed",
            _ => {}
        }
        self.0.insert(task.spec.id.clone(), task.clone());
        self.1.remove(&task.spec.id);
        "ok"
    }

    fn delete(&mut self, id: &TaskId, revision: Option<u64>) -> Result<StoredTask, &'static str> {
        let there = self.0.get(id).map(|task| task.state.revision).ok_or("not found")?;
        if revision.is_some_and(|revision| revision != there) {
            return Err("changed");
        }
        self.1.remove(id);
        self.0.remove(id).ok_or("not found")
    }

    fn defer(&mut self, Deferral { id, revision, until }: &Deferral) {
        if self.0.get(id).is_some_and(|task| task.state.revision == *revision) {
            self.1.insert(id.clone(), *until);
        }
    }

    /// When a task is handed out.
    fn due(&self, task: &StoredTask) -> Option<DateTime<Utc>> {
        let until = self.1.get(&task.spec.id).copied().unwrap_or(Until::Now);
        task.state.due().and_then(|due| until.from(due))
    }

    fn commit(&mut self, changes: &[Change]) -> (Vec<Change>, Committed) {
        let mut refused = Vec::new();
        for (index, change) in changes.iter().enumerate() {
            match (self.0.get_mut(&change.id), &change.then) {
                (Some(task), Then::State(state)) if task.state.revision == change.revision => {
                    task.state = state.clone();
                }
                (Some(task), Then::Task(new)) if task.state.revision == change.revision => {
                    *task = new.clone();
                }
                (Some(task), Then::Remove) if task.state.revision == change.revision => {
                    self.0.remove(&change.id);
                }
                _ => {
                    refused.push(index);
                    continue;
                }
            }
            self.1.remove(&change.id);
        }
        (changes.to_vec(), Committed { refused, next_due: self.next_due() })
    }

    /// Among tasks that are due at the same time any order will do, and any of them may be cut off.
    fn check_due(&self, due: &Due, now: DateTime<Utc>, limit: usize, place: &str) {
        let times = |tasks: &[StoredTask]| tasks.iter().map(|task| self.due(task)).collect::<Vec<_>>();
        let mut expected: Vec<_> = self.list();
        expected.retain(|task| self.due(task).is_some_and(|due| due <= now));
        expected.sort_by_key(|task| self.due(task));
        assert_eq!(due.more, expected.len() > limit, "{place}: more");
        expected.truncate(limit);
        assert_eq!(times(&due.tasks), times(&expected), "{place}: due times");
        for task in &due.tasks {
            assert_eq!(Some(task), self.0.get(&task.spec.id), "{place}: a due task");
        }
        let mut taken = names(&due.tasks);
        taken.sort_unstable();
        taken.dedup();
        assert_eq!(taken.len(), due.tasks.len(), "{place}: a task is handed out once");
    }

    fn next_due(&self) -> Option<DateTime<Utc>> {
        self.0.values().filter_map(|task| self.due(task)).min()
    }

    fn list(&self) -> Vec<StoredTask> {
        let mut tasks: Vec<_> = self.0.values().cloned().collect();
        tasks.sort_by(in_order);
        tasks
    }
}

fn kind<T>(result: &Result<T, StoreError>) -> &'static str {
    result.as_ref().map_or_else(word, |_| "ok")
}

fn word(error: &StoreError) -> &'static str {
    match error {
        StoreError::NotFound(_) => "not found",
        StoreError::Exists(_) => "exists",
        StoreError::Changed(_) => "changed",
        _ => "another error",
    }
}

/// Chance that is the same each time (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}
