//! Very many tasks that a new law moves, while others run.

use std::sync::atomic::{AtomicUsize, Ordering};

use callboard::store::message::*;
use callboard::store::{
    Backend, BackendSource, Capabilities, Faults, Faulty, ListPart, MemoryBackend, Op, Reply,
};
use callboard::task::{Coalesce, Overlap, RunRecord, StoredTask};
use chrono::SubsecRound;
use futures::StreamExt;

use super::*;

const TASKS: usize = 20_000;

/// No more than this is looked at, worked out or written in one step.
const STEP: usize = 512;

/// What a store was asked for.
#[derive(Default)]
struct Asked {
    /// The largest part of a list, and the most changes of one commit.
    part: AtomicUsize,
    commit: AtomicUsize,
}

struct Measured {
    backend: Faulty<MemoryBackend>,
    asked: Arc<Asked>,
    /// Whether its lists have parts.
    in_parts: bool,
}

macro_rules! pass_on {
    ($($op:ident($message:ident) -> $answer:ty;)*) => {$(
        fn $op(&mut self, request: $message) -> Reply<$answer> {
            self.backend.$op(request)
        }
    )*};
}

impl Backend for Measured {
    fn capabilities(&self) -> Capabilities {
        self.backend.capabilities()
    }

    fn list_part(&mut self, from: usize) -> Reply<ListPart> {
        if !self.in_parts {
            return match self.backend.list(List) {
                Reply::Now(tasks) => Reply::Now(tasks.map(|tasks| ListPart { tasks, next: None })),
                Reply::Later(_) => panic!("memory answers at once"),
            };
        }
        let part = self.backend.list_part(from);
        if let Reply::Now(Ok(part)) = &part {
            self.asked.part.fetch_max(part.tasks.len(), Ordering::Relaxed);
        }
        part
    }

    fn commit(&mut self, request: Commit) -> Reply<Committed> {
        self.asked.commit.fetch_max(request.changes.len(), Ordering::Relaxed);
        self.backend.commit(request)
    }

    pass_on! {
        open(Open) -> Opened;
        put(Put) -> ();
        delete(Delete) -> StoredTask;
        get(Get) -> Option<StoredTask>;
        list(List) -> Vec<StoredTask>;
        take_due(TakeDue) -> Due;
        defer(Defer) -> Option<DateTime<Utc>>;
        finish(Finish) -> ();
        next_due(NextDue) -> Option<DateTime<Utc>>;
        runs(Runs) -> Vec<RunRecord>;
        remove_all(RemoveAll) -> usize;
        keep_rules(KeepRules) -> ();
        close(Close) -> ();
    }
}

/// In real time: a virtual clock stands still until all is moved.
async fn others_run_meanwhile(in_parts: bool) {
    let (database, ran, faults, asked) = (Database::new(), Ran::default(), Faults::new(), Arc::default());
    database.put("2026a", "Etc/GMT+8");
    let backend =
        Measured { backend: faults.around(MemoryBackend::default()), asked: Arc::clone(&asked), in_parts };
    let scheduler = Scheduler::builder()
        .registry(ran.registry())
        .timezones(Timezones::Path(database.0.path().into()))
        .timezone("America/Vancouver".parse::<callboard::trigger::Zone>().unwrap())
        .store("many", BackendSource::keeping(backend))
        .start()
        .await
        .unwrap();
    for n in 0..TASKS {
        let trigger = format!("cron year=2090 month=1 day=1 hour=9 minute={} second={}", n / 60 % 60, n % 60);
        scheduler.add(task(&format!("t{n}"), &trigger).store("many")).await.unwrap();
    }
    let begin = Clock::system().now().trunc_subsecs(0);
    let beat = format!("every 50ms from {}", begin.to_rfc3339());
    scheduler.add(task("beat", &beat).coalesce(Coalesce::All).overlap(Overlap::Allow)).await.unwrap();
    let mut events = scheduler.events(EventMask::TASK_MOVED | EventMask::TASKS_MOVED).await.unwrap();
    let turn = async |count: usize| {
        while ran.count("beat") < count {
            tokio::task::yield_now().await;
        }
    };
    turn(3).await;

    // The first half of the batches is written, and the next one waits.
    asked.commit.store(0, Ordering::Relaxed);
    (0..TASKS / STEP / 2).for_each(|_| drop(faults.hold(Op::Commit)));
    let release = faults.hold(Op::Commit);
    database.put("2026f", "Etc/GMT+7");
    scheduler.reload_timezones().await.unwrap();
    while faults.left() > 0 {
        tokio::task::yield_now().await;
    }
    // Others run, one after the other, and whoever asks is answered.
    let before = ran.count("beat");
    turn(before + 10).await;
    let of_many = |event: &Event| match event {
        Event::TaskMoved { store, .. } | Event::TasksMoved { store, .. } => store.as_str() == "many",
        _ => false,
    };
    let moved: Vec<Event> = heard(&mut events).into_iter().filter(of_many).collect();
    assert!(moved.iter().all(|event| matches!(event, Event::TaskMoved { .. })), "it goes on");
    // Those of a page are told of when all of it is written.
    assert!(moved.len() <= TASKS / 2, "{}", moved.len());
    let runs = ran.of("beat");
    assert!(runs.windows(2).all(|two| two[1] - two[0] == TimeDelta::milliseconds(50)), "{runs:?}");
    let task = scheduler.task("t0").await.unwrap();
    let next = |hour: &str| Some(utc(&format!("2090-01-01T{hour}:00:00Z")));
    assert_eq!(task.next_run_time(), next("16"));
    drop(release);

    loop {
        if let Event::TasksMoved { tasks, store, .. } = events.next().await.unwrap()
            && store.as_str() == "many"
        {
            assert_eq!(tasks, TASKS as u64);
            break;
        }
    }
    let tasks = scheduler.tasks(TaskQuery::default().store("many")).await.unwrap();
    assert_eq!(tasks.len(), TASKS);
    for (info, hour) in tasks.iter().map(|info| (info, info.next_run_time().unwrap().to_string())) {
        // Each was written once.
        assert_eq!((info.state.revision, &hour[11..13]), (2, "16"), "{}", info.spec.id);
    }
    let (part, commit) = (asked.part.load(Ordering::Relaxed), asked.commit.load(Ordering::Relaxed));
    assert!(part <= STEP && commit <= STEP, "{part} {commit}");
    scheduler.shutdown(Shutdown::now()).await.unwrap();
}

#[actix::test]
async fn others_run_while_very_many_are_moved() {
    others_run_meanwhile(true).await;
}

/// A store of the user's own, whose lists are in one piece.
#[actix::test]
async fn others_run_while_very_many_are_moved_in_a_store_without_pages() {
    others_run_meanwhile(false).await;
}
