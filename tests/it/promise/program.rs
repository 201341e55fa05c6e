//! The program that is killed: a scheduler with hundreds of tasks that are due many times a second,
//! each of which writes a line, while its tasks are changed. It is this test binary again, running
//! only the test `serve`.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use callboard::backoff::Backoff;
use callboard::prelude::*;
use callboard::task::{Coalesce, Retry};
use serde_json::Value;

use super::{Deed, Dice, Known, LINES, Said, durable};

pub(super) const PLACE: &str = "CALLBOARD_KILL_PLACE";
pub(super) const KIND: &str = "CALLBOARD_KILL_STORE";
pub(super) const SEED: &str = "CALLBOARD_KILL_SEED";

/// Tasks that stay as they are, by how they are run, and how many of each.
const STEADY: [(&str, usize); 7] = [
    ("plain", 40),
    ("all", 40),
    ("graced", 40),
    ("slow", 40),
    ("blocking", 40),
    (RECOVERED, 40),
    (RETRIED, 40),
];
/// Those that are run again when they were cut off, and those that fail and are tried again.
pub(super) const RECOVERED: &str = "recovered";
pub(super) const RETRIED: &str = "retried";
/// So often.
pub(super) const RETRIES: u32 = 2;
/// Tasks that are changed all the time.
const CHANGING: u64 = 40;
/// How their ids begin.
pub(super) const CHANGES: &str = "changing ";

/// The code of the tasks: each run writes one line, in one call.
pub(super) fn registry(place: &Path) -> Registry {
    let file = OpenOptions::new().append(true).create(true).open(place.join(LINES)).unwrap();
    let file = Arc::new(file);
    let (slow, blocking, flaky) = (file.clone(), file.clone(), file.clone());
    Registry::new()
        .register("write", move |run: TaskContext, _: Value| {
            line(&file, &run);
            async {}
        })
        .register("slow", move |run: TaskContext, _: Value| {
            line(&slow, &run);
            async move { run.sleep(Duration::from_millis(30)).await }
        })
        .register("flaky", move |run: TaskContext, _: Value| {
            line(&flaky, &run);
            // One in three fails at first, one in three always.
            let fails = match run.nominal().timestamp_millis().rem_euclid(3) {
                0 => false,
                1 => run.attempt() == 1,
                _ => true,
            };
            async move { if fails { Err("not this time") } else { Ok(()) } }
        })
        .register_blocking("blocking", move |run: TaskContext, _: Value| line(&blocking, &run))
}

fn line(mut file: &File, run: &TaskContext) {
    let nominal = run.nominal().timestamp_nanos_opt().unwrap();
    let line = format!("{}\t{nominal}\t{}\n", run.task_id(), run.run_id());
    file.write_all(line.as_bytes()).unwrap();
}

fn say(said: &Said) {
    let mut out = std::io::stdout().lock();
    let line = serde_json::to_string(said).unwrap();
    // Whoever reads may have killed us.
    writeln!(out, "> {line}").and_then(|()| out.flush()).ok();
}

fn interval(period: u64) -> Interval {
    Interval::every(Duration::from_millis(period))
}

fn steady(kind: &str, index: usize) -> Task {
    let code = match kind {
        "slow" | "blocking" => kind,
        RECOVERED => "slow",
        RETRIED => "flaky",
        _ => "write",
    };
    let task = Task::new(code).id(format!("{kind} {index}")).trigger(interval(20 + index as u64));
    match kind {
        "all" => task.coalesce(Coalesce::All).max_catch_up(3).max_instances(2),
        "graced" => task.misfire_grace(Duration::from_millis(3)),
        "slow" => task.max_instances(2),
        "blocking" => task.executor("pool"),
        RECOVERED => task.recover(true).max_instances(50),
        RETRIED => {
            let backoff = Backoff::fixed(Duration::from_millis(15));
            task.retry(Retry::times(RETRIES).backoff(backoff)).max_instances(50)
        }
        _ => task,
    }
}

#[test]
#[ignore = "the program that the tests of `kill` kill"]
fn serve() {
    let Some(place) = std::env::var_os(PLACE) else { return };
    let kind = std::env::var(KIND).unwrap();
    let seed = std::env::var(SEED).unwrap().parse().unwrap();
    actix_rt::System::new().block_on(run(Path::new(&place), &kind, seed));
}

async fn run(place: &Path, kind: &str, seed: u64) {
    let builder = durable(kind, place).registry(registry(place)).executor("pool", ThreadPool::new(2));
    let scheduler = builder.executor("default", AsyncExecutor::new()).start().await.unwrap();
    let known = |task: &TaskInfo| {
        let Trigger::Interval(interval) = &task.spec.trigger else { panic!("{:?}", task.spec.trigger) };
        Known {
            paused: task.state.paused,
            name: task.spec.name.as_deref().unwrap_or_default().to_owned(),
            period: interval.length().num_milliseconds() as u64,
        }
    };
    // Those that an earlier start was killed before it had added.
    let steady = STEADY.iter().flat_map(|(kind, each)| (0..*each).map(move |index| steady(kind, index)));
    let added = steady.map(|task| scheduler.add(task.replace_existing(true)));
    futures::future::join_all(added).await.into_iter().for_each(|added| drop(added.unwrap()));
    let mut tasks = BTreeMap::new();
    for task in scheduler.tasks(TaskQuery::new()).await.unwrap() {
        let (task, known) = (task.id().to_string(), known(&task));
        say(&Said::There { task: task.clone(), known: known.clone() });
        tasks.insert(task, known);
    }
    say(&Said::Listed);
    let mut dice = Dice::new(seed);
    loop {
        let id = format!("{CHANGES}{}", dice.roll(CHANGING));
        let there = tasks.remove(&id);
        let period = 15 + dice.roll(60);
        let deed = match (&there, dice.roll(12)) {
            (None, _) => Deed::Add { period },
            (Some(known), 0..5) if known.paused => Deed::Resume,
            (Some(_), 0..5) => Deed::Pause,
            (Some(_), 5 | 6) => Deed::Rename { name: format!("name {}", dice.roll(1000)) },
            (Some(_), 7 | 8) => Deed::Reschedule { period },
            (Some(_), 9 | 10) => Deed::Run,
            (Some(_), _) => Deed::Delete,
        };
        say(&Said::Tries { task: id.clone(), deed: deed.clone() });
        tasks.extend(deed.done(there).map(|known| (id.clone(), known)));
        let id = id.as_str();
        match deed {
            Deed::Add { period } => {
                let task = Task::new("write").id(id).trigger(interval(period)).max_instances(50);
                drop(scheduler.add(task).await.unwrap());
            }
            Deed::Pause => drop(scheduler.pause_task(id).await.unwrap()),
            Deed::Resume => drop(scheduler.resume_task(id).await.unwrap()),
            Deed::Rename { name } => {
                drop(scheduler.update_task(id, TaskChanges::new().name(name)).await.unwrap());
            }
            Deed::Reschedule { period } => {
                drop(scheduler.reschedule_task(id, interval(period)).await.unwrap());
            }
            Deed::Delete => scheduler.delete_task(id).await.unwrap(),
            Deed::Run => drop(scheduler.run_task(id).await.unwrap()),
        }
        say(&Said::Did);
    }
}
