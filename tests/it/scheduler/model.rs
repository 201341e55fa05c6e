//! Control operations in random interleavings with ticks.

use callboard::task::ScheduleState;
use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Op {
    Add { id: u8, period: u8, replace: bool },
    Pause(u8),
    Resume(u8),
    Delete(u8),
    Run(u8),
    Reschedule { id: u8, period: u8 },
    PauseAll,
    ResumeAll,
    Advance(u8),
}

fn op() -> impl Strategy<Value = Op> {
    let id = 0..4u8;
    let period = 1..9u8;
    prop_oneof![
        3 => (id.clone(), period.clone(), any::<bool>()).prop_map(|(id, period, replace)| Op::Add { id, period, replace }),
        2 => id.clone().prop_map(Op::Pause),
        2 => id.clone().prop_map(Op::Resume),
        1 => id.clone().prop_map(Op::Delete),
        1 => id.clone().prop_map(Op::Run),
        1 => (id, period).prop_map(|(id, period)| Op::Reschedule { id, period }),
        1 => Just(Op::PauseAll),
        2 => Just(Op::ResumeAll),
        8 => (0..20u8).prop_map(Op::Advance),
    ]
}

/// What a task should be like: one thing after the other, second by second.
#[derive(Debug, Clone)]
struct Model {
    period: i64,
    anchor: i64,
    next: i64,
    paused: bool,
    runs: Vec<i64>,
}

impl Model {
    fn new(period: i64, now: i64) -> Self {
        Self { period, anchor: now, next: now, paused: false, runs: Vec::new() }
    }

    /// The same task with another period: that counts from the latest run, and runs nothing at once.
    fn rescheduled(&mut self, period: i64, now: i64) {
        let (runs, paused, was_due) = (std::mem::take(&mut self.runs), self.paused, self.next <= now);
        *self = Self { paused, ..Self::new(period, now) };
        if let Some(last) = runs.iter().max() {
            self.anchor = *last;
            self.next = self.first_from(if was_due { now.max(last + 1) } else { now + 1 });
            self.anchor = self.next;
        }
        self.runs = runs;
    }

    fn first_from(&self, from: i64) -> i64 {
        let mut at = self.anchor;
        while at < from {
            at += self.period;
        }
        at
    }

    /// Runs what is due at `now`, once, for the latest run time.
    fn tick(&mut self, now: i64) {
        if !self.paused && self.next <= now {
            let after = self.first_from(now + 1);
            self.runs.push(after - self.period);
            self.next = after;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn the_scheduler_agrees_with_a_sequential_model(ops in proptest::collection::vec(op(), 1..60)) {
        actix::System::new().block_on(agrees(ops));
    }
}

async fn agrees(ops: Vec<Op>) {
    let ran = Ran::default();
    let source = RecorderSource::new(&ran);
    let (scheduler, time, _) = board(move |b| b.executor("default", source)).await;
    let mut model: BTreeMap<String, Model> = BTreeMap::new();
    let mut removed: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    let (mut now, mut paused) = (0, false);
    for op in ops {
        let name = |id: u8| format!("task-{id}");
        // Due things of this very instant come first.
        time.settle().await;
        if !paused {
            model.values_mut().for_each(|task| task.tick(now));
        }
        match op.clone() {
            Op::Add { id, period, replace } => {
                let added = scheduler.add(every(period.into()).id(name(id)).replace_existing(replace)).await;
                let there = model.contains_key(&name(id));
                assert_eq!(added.is_ok(), replace || !there, "{op:?}");
                let period = i64::from(period);
                let task = model.entry(name(id)).or_insert_with(|| Model::new(period, now));
                if replace && task.period != period {
                    task.rescheduled(period, now);
                }
            }
            Op::Pause(id) => {
                let done = scheduler.pause_task(name(id)).await;
                let task = model.get_mut(&name(id));
                assert_eq!(done.is_ok(), task.is_some());
                if let Some(task) = task {
                    task.paused = true;
                }
            }
            Op::Resume(id) => {
                let done = scheduler.resume_task(name(id)).await;
                let task = model.get_mut(&name(id));
                assert_eq!(done.is_ok(), task.is_some());
                if let Some(task) = task
                    && task.paused
                {
                    task.paused = false;
                    if task.next < now {
                        task.next = task.first_from(now);
                    }
                }
            }
            Op::Delete(id) => {
                let done = scheduler.delete_task(name(id)).await;
                let task = model.remove(&name(id));
                assert_eq!(done.is_ok(), task.is_some());
                removed.entry(name(id)).or_default().extend(task.map(|task| task.runs).unwrap_or_default());
            }
            Op::Run(id) => {
                let done = scheduler.run_task(name(id)).await;
                let task = model.get_mut(&name(id));
                assert_eq!(done.is_ok(), task.is_some(), "{done:?}");
                if let Some(task) = task {
                    task.runs.push(now);
                }
            }
            Op::Reschedule { id, period } => {
                let done = scheduler.reschedule_task(name(id), Interval::seconds(period.into())).await;
                let task = model.get_mut(&name(id));
                assert_eq!(done.is_ok(), task.is_some());
                if let Some(task) = task
                    && task.period != i64::from(period)
                {
                    task.rescheduled(period.into(), now);
                }
            }
            Op::PauseAll => {
                scheduler.pause().await.unwrap();
                paused = true;
            }
            Op::ResumeAll => {
                scheduler.resume().await.unwrap();
                paused = false;
            }
            Op::Advance(seconds) => {
                for second in now..=now + i64::from(seconds) {
                    if !paused {
                        model.values_mut().for_each(|task| task.tick(second));
                    }
                }
                now += i64::from(seconds);
                time.advance(secs(seconds.into())).await;
                compare(&scheduler, &ran, &model, &removed, paused).await;
            }
        }
    }
    scheduler.shutdown(Shutdown::now()).await.unwrap();
}

async fn compare(
    scheduler: &Handle,
    ran: &Ran,
    model: &BTreeMap<String, Model>,
    removed: &BTreeMap<String, Vec<i64>>,
    all_paused: bool,
) {
    let tasks = scheduler.tasks(TaskQuery::new()).await.unwrap();
    assert_eq!(tasks.len(), model.len());
    for info in tasks {
        let id = info.id().as_str();
        let task = &model[id];
        assert_eq!(info.schedule_state == ScheduleState::Paused, task.paused, "{id}");
        if !task.paused && !all_paused {
            assert_eq!(info.next_run_time(), Some(at(task.next)), "{id}: {task:?}");
        }
        assert_eq!(info.state.runs, task.runs.len() as u64, "{id}: {task:?}");
        let earlier = removed.get(id).map(Vec::as_slice).unwrap_or_default();
        let expected: Vec<_> = earlier.iter().chain(&task.runs).map(|second| at(*second)).collect();
        assert_eq!(ran.of(id), expected, "{id}");
    }
}

#[actix::test]
async fn after_pause_or_delete_is_answered_nothing_more_is_submitted() {
    use callboard::executor::message::Status;

    let ran = Ran::default();
    let mut source = RecorderSource::new(&ran);
    let executor = source.start(Box::new(()));
    let (scheduler, time, _) = board(|b| b.executor("default", executor.clone())).await;
    let names: Vec<String> = (0..20).map(|i| format!("task-{i}")).collect();
    for name in &names {
        scheduler.add(every(1).id(name.as_str())).await.unwrap();
    }
    let turning = time.clone();
    let turn = async move { turning.advance(secs(3000)).await };
    let control = async {
        for round in 0..200 {
            let name = &names[round * 7 % names.len()];
            let delete = round % 3 == 0;
            if delete {
                scheduler.delete_task(name.as_str()).await.unwrap();
            } else {
                scheduler.pause_task(name.as_str()).await.unwrap();
            }
            // Whatever was submitted before the answer is in the executor's mailbox by now.
            executor.status(Status).await.unwrap();
            let then = ran.count(name);
            for _ in 0..5 {
                scheduler.status().await.unwrap();
                tokio::task::yield_now().await;
            }
            executor.status(Status).await.unwrap();
            assert_eq!(ran.count(name), then, "{name}, round {round}");
            if delete {
                scheduler.add(every(1).id(name.as_str())).await.unwrap();
            } else {
                scheduler.resume_task(name.as_str()).await.unwrap();
            }
        }
    };
    futures::join!(turn, control);
    assert!(names.iter().all(|name| ran.count(name) > 0));
}
