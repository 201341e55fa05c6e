//! A run that cannot be taken is not begun: it waits in its store for its executor, for room in it, or
//! for its handler.

use std::sync::atomic::{AtomicU64, Ordering};

use callboard::executor::{AsyncExecutor, ThreadPool};
use callboard::scheduler::message::{Crash, RunTask};
use callboard::store::message::*;
use callboard::store::{Backend, BackendSource, Capabilities, MemoryBackend, Reply};
use callboard::task::{Coalesce, Outcome, Refusal, Retry, RunRecord, Source, StoredTask};
use callboard::trigger::{Date, Trigger};

use super::*;

fn words(told: &[Event]) -> Vec<(String, &'static str)> {
    let ends = told.iter().filter_map(Event::report);
    ends.map(|report| (report.task_id().to_string(), report.end.outcome.word())).collect()
}

fn count(told: &[Event], word: &str) -> usize {
    words(told).iter().filter(|(_, outcome)| *outcome == word).count()
}

async fn waits(scheduler: &Handle, id: &str) -> Option<String> {
    scheduler.task(id).await.unwrap().waiting.map(|wait| wait.reason)
}

/// A scheduler whose executor `pool` is not there yet: it was removed.
async fn without_pool(set: impl FnOnce(Builder) -> Builder) -> (Handle, VirtualClock, Ran, EventStream) {
    let (scheduler, time, ran) = board(|b| set(b.executor("pool", AsyncExecutor::new()))).await;
    let events = scheduler.events(EventMask::ALL).await.unwrap();
    (scheduler, time, ran, events)
}

async fn remove(scheduler: &Handle) {
    scheduler.remove_executor("pool", Duration::ZERO).await.unwrap();
}

#[actix::test]
async fn one_shots_beyond_a_full_queue_run_when_there_is_room() {
    let (scheduler, time, _) = board(|b| b.executor("default", ThreadPool::new(1).queue(2))).await;
    let mut events = scheduler.events(EventMask::RUN_ENDED).await.unwrap();
    for index in 0..6 {
        let task = Task::new("nap").args(5).id(format!("{index}")).trigger(Date::at(at(10)));
        scheduler.add(task.retry(Some(Retry::times(5)))).await.unwrap();
    }
    time.advance(secs(12)).await;
    let status = scheduler.status().await.unwrap();
    assert_eq!((status.running, status.waiting, status.executors[0].waiting), (3, 3, 3));
    let listed = scheduler.tasks(TaskQuery::new()).await.unwrap();
    let waiting: Vec<_> = listed.iter().filter_map(|task| task.waiting.as_ref()).collect();
    assert_eq!(waiting.len(), 3);
    assert!(
        waiting.iter().all(|wait| wait.since == at(10) && wait.reason.contains("is full")),
        "{waiting:?}"
    );
    assert!(listed.iter().all(|task| task.waiting.is_none() || task.running == 0), "what waits does not run");
    time.advance(secs(100)).await;
    let told = heard(&mut events);
    assert_eq!((count(&told, "executed"), told.len()), (6, 6), "{:?}", words(&told));
    assert_eq!(scheduler.status().await.unwrap().waiting, 0);
}

#[actix::test]
async fn many_more_than_there_is_room_for_all_run_once_in_the_order_of_their_times() {
    let (scheduler, time, _) = board(|b| b.executor("default", ThreadPool::new(1).queue(1)).batch(7)).await;
    let mut events = scheduler.events(EventMask::RUN_ENDED).await.unwrap();
    let names: Vec<_> = (0..60).map(|index| format!("{index:02}")).collect();
    for (index, name) in names.iter().enumerate() {
        let due = at(10 + index as i64 % 5 * 10);
        scheduler.add(Task::new("nap").args(1).id(name.as_str()).trigger(Date::at(due))).await.unwrap();
    }
    time.advance(secs(200)).await;
    let told = heard(&mut events);
    let mut ran: Vec<_> = words(&told);
    assert!(ran.iter().all(|(_, word)| *word == "executed"), "{ran:?}");
    ran.sort();
    assert_eq!(ran.iter().map(|(name, _)| name).collect::<Vec<_>>(), names.iter().collect::<Vec<_>>());
    let nominal: Vec<_> = told.iter().map(|event| event.report().unwrap().run.nominal).collect();
    assert!(nominal.is_sorted(), "{nominal:?}");
}

#[actix::test]
async fn what_is_due_while_its_executor_is_gone_runs_when_it_is_back() {
    for recover in [false, true] {
        let (scheduler, time, ran, mut events) = without_pool(|b| b).await;
        remove(&scheduler).await;
        scheduler.add_executor("pool", AsyncExecutor::new()).await.unwrap();
        let once = Task::new("note").id("once").trigger(Date::at(at(10))).executor("pool");
        scheduler.add(once.recover(recover)).await.unwrap();
        scheduler.add(every(10).id("other")).await.unwrap();
        remove(&scheduler).await;
        time.advance(secs(100)).await;
        assert_eq!(ran.count("other"), 11, "the others go on");
        let reason = waits(&scheduler, "once").await.unwrap();
        assert!(reason.contains("no executor is called `pool`"), "{reason}");
        assert_eq!(scheduler.task("once").await.unwrap().running, 0);
        scheduler.add_executor("pool", AsyncExecutor::new()).await.unwrap();
        time.settle().await;
        assert_eq!(ran.of("once"), [at(10)]);
        let told = heard(&mut events);
        assert_eq!(words(&told).iter().filter(|(id, _)| id == "once").count(), 1);
    }
}

#[actix::test]
async fn what_is_due_while_its_executor_is_started_again_runs() {
    let ran = Ran::default();
    let source = RecorderSource::with_bomb(&ran);
    let (scheduler, time, _) = board(move |b| b.executor("default", source)).await;
    let mut events = scheduler.events(EventMask::RUN_ENDED).await.unwrap();
    scheduler.add(Task::new("note").id("bomb").trigger(Date::at(at(10)))).await.unwrap();
    let soon = at(10) + chrono::TimeDelta::milliseconds(20);
    scheduler.add(Task::new("note").id("once").trigger(Date::at(soon))).await.unwrap();
    time.advance(secs(30)).await;
    assert_eq!(ran.of("once"), [soon]);
    let told = heard(&mut events);
    assert_eq!(words(&told), [("bomb".to_owned(), "interrupted"), ("once".to_owned(), "executed")]);
}

#[actix::test]
async fn further_run_times_join_the_one_that_waits() {
    let (scheduler, time, _, mut events) = without_pool(|b| b).await;
    let task = |id: &str| every(10).id(id).executor("pool").max_instances(9);
    scheduler.add(task("latest")).await.unwrap();
    scheduler.add(task("earliest").coalesce(Coalesce::Earliest)).await.unwrap();
    scheduler.add(task("all").coalesce(Coalesce::All).max_catch_up(3)).await.unwrap();
    time.advance(secs(5)).await;
    remove(&scheduler).await;
    heard(&mut events);
    time.advance(secs(50)).await;
    assert_eq!(words(&heard(&mut events)), [], "nothing has an outcome meanwhile");
    scheduler.add_executor("pool", AsyncExecutor::new()).await.unwrap();
    time.settle().await;
    let told = heard(&mut events);
    let mut ran: Vec<_> = told
        .iter()
        .filter_map(Event::report)
        .map(|report| {
            let nominal = (report.run.nominal - at(0)).num_seconds();
            (report.task_id().to_string(), report.end.outcome.word(), nominal, report.run.coalesced)
        })
        .collect();
    ran.sort();
    let expected = [
        ("all", "executed", 30, 0),
        ("all", "executed", 40, 0),
        ("all", "executed", 50, 0),
        ("all", "missed", 10, 1),
        ("earliest", "executed", 10, 4),
        ("latest", "executed", 50, 4),
    ];
    assert_eq!(ran, expected.map(|(id, word, nominal, others)| (id.to_owned(), word, nominal, others)));
}

#[actix::test]
async fn after_unroutable_after_it_is_refused_once_and_after_its_grace_it_is_missed() {
    let (scheduler, time, ran, mut events) = without_pool(|b| b.unroutable_after(secs(60))).await;
    let once = |id: &str| Task::new("note").id(id).trigger(Date::at(at(10))).executor("pool");
    scheduler.add(once("patient")).await.unwrap();
    scheduler.add(once("hasty").misfire_grace(secs(20))).await.unwrap();
    scheduler.add(every(25).id("often").executor("pool")).await.unwrap();
    time.advance(secs(5)).await;
    remove(&scheduler).await;
    heard(&mut events);
    time.advance_to(at(30)).await;
    assert_eq!(words(&heard(&mut events)), []);
    time.advance_to(at(31)).await;
    assert_eq!(words(&heard(&mut events)), [("hasty".to_owned(), "missed")]);
    time.advance_to(at(69)).await;
    assert_eq!(words(&heard(&mut events)), []);
    time.advance_to(at(70)).await;
    let told = heard(&mut events);
    assert_eq!(words(&told), [("patient".to_owned(), "refused")]);
    let Outcome::Refused { reason } = &told.iter().find_map(Event::report).unwrap().end.outcome else {
        panic!()
    };
    assert!(matches!(reason, Refusal::UnknownExecutor { .. }), "{reason:?}");
    let history = scheduler.history("patient", 9).await.unwrap();
    assert_eq!(history.len(), 1);
    assert_eq!(history[0].end.as_ref().unwrap().outcome.word(), "refused");
    // It has waited since 25; the one of 75 stands for it and those between.
    time.advance_to(at(86)).await;
    let told = heard(&mut events);
    assert_eq!(words(&told), [("often".to_owned(), "refused")]);
    let report = told.iter().find_map(Event::report).unwrap();
    assert_eq!((report.run.nominal, report.run.coalesced), (at(75), 2));
    assert_eq!(ran.of("often"), [at(0)], "and its schedule goes on");
    assert_eq!(scheduler.task("often").await.unwrap().next_run_time(), Some(at(100)));
}

#[actix::test]
async fn what_waits_for_its_handler_runs_when_it_names_another() {
    let (time, ran) = (VirtualClock::starting_at(START), Ran::default());
    let folder = tempfile::tempdir().unwrap();
    let start = async |registry: Registry| {
        let store = callboard::store::SledStore::open(folder.path()).unwrap();
        let builder = Scheduler::builder().clock(time.clock()).registry(registry);
        builder.store("default", store).start().await.unwrap()
    };
    let first = start(ran.registry().register("note2", |_: TaskContext, ()| async {})).await;
    first.add(Task::new("note2").id("a").trigger(Interval::hours(1)).first_run(at(10))).await.unwrap();
    first.shutdown(Shutdown::now()).await.unwrap();
    let second = start(ran.registry()).await;
    turning(&time, async {
        while waits(&second, "a").await.is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(waits(&second, "a").await.unwrap().contains("no handler is registered under `note2`"));
    second.update_task("a", TaskChanges::new().handler("note")).await.unwrap();
    turning(&time, async {
        while ran.count("a") == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(ran.of("a"), [at(10)]);
    second.shutdown(Shutdown::now()).await.unwrap();
}

#[actix::test]
async fn somebody_who_asks_for_a_run_hears_at_once_why_it_cannot_be() {
    let (scheduler, time, _) = board(|b| b.executor("default", ThreadPool::new(1).queue(0))).await;
    for id in ["a", "b"] {
        scheduler
            .add(Task::new("nap").args(50).id(id).trigger(Interval::hours(1)).paused(true))
            .await
            .unwrap();
    }
    scheduler.run_task("a").await.unwrap();
    time.advance(secs(1)).await;
    let refused = scheduler.run_task("b").await.unwrap_err();
    let full = |error: &callboard::Error| {
        matches!(error, callboard::Error::Refused { reason: Refusal::QueueFull { .. }, .. })
    };
    assert!(full(&refused), "{refused:?}");
    let again = scheduler.run_task("a").await.unwrap_err();
    assert!(again.to_string().contains("max_instances"), "its own count comes first: {again}");
    scheduler.remove_executor("default", Duration::ZERO).await.unwrap();
    let refused = scheduler.run_task("b").await.unwrap_err();
    assert!(refused.to_string().contains("no executor is called `default`"), "{refused}");
    assert!(scheduler.history("b", 9).await.unwrap().is_empty(), "nothing was begun");
    assert_eq!(scheduler.task("b").await.unwrap().state.runs, 0);
    scheduler.add_executor("default", ThreadPool::new(1).queue(0)).await.unwrap();
    scheduler.run_task("b").await.unwrap();
}

#[actix::test]
async fn a_back_fill_waits_and_a_run_of_the_shutdown_has_an_outcome() {
    let (scheduler, time, ran, mut events) = without_pool(|b| b.unroutable_after(secs(5))).await;
    scheduler.add(every(10).id("a").executor("pool").paused(true)).await.unwrap();
    scheduler.add(Task::new("note").id("sweep").executor("pool").trigger(Trigger::Shutdown)).await.unwrap();
    time.advance(secs(30)).await;
    scheduler.update_task("a", TaskChanges::new().max_runs(Some(1))).await.unwrap();
    remove(&scheduler).await;
    scheduler.backfill("a", at(0), at(30), secs(1)).await.unwrap();
    scheduler.resume_task("a").await.unwrap();
    time.advance_to(at(39)).await;
    assert_eq!(ran.count("a"), 0);
    assert!(scheduler.task("a").await.unwrap().state.backfill.is_some());
    scheduler.add_executor("pool", AsyncExecutor::new()).await.unwrap();
    time.advance_to(at(50)).await;
    // The schedule's own run was refused after a while, the back-fill was not.
    assert_eq!(ran.of("a"), [at(0), at(10), at(20)]);
    remove(&scheduler).await;
    heard(&mut events);
    scheduler.shutdown(Shutdown::wait(secs(5))).await.unwrap();
    let told = heard(&mut events);
    let report = told.iter().filter_map(Event::report).find(|report| report.task_id().as_str() == "sweep");
    assert_eq!(
        report.map(|report| (report.end.outcome.word(), report.run.source)),
        Some(("refused", Source::Shutdown))
    );
}

#[actix::test]
async fn a_further_attempt_waits_like_a_first_one() {
    let (scheduler, time, _, mut events) = without_pool(|b| b).await;
    let retry = Retry::times(2).backoff(callboard::backoff::Backoff::fixed(secs(10)));
    let task = Task::new("flaky").args(2).id("flaky").trigger(Date::at(at(10))).executor("pool");
    scheduler.add(task.retry(Some(retry))).await.unwrap();
    time.advance(secs(12)).await;
    remove(&scheduler).await;
    time.advance(secs(100)).await;
    assert!(waits(&scheduler, "flaky").await.is_some());
    assert_eq!(words(&heard(&mut events)), [("flaky".to_owned(), "failed")]);
    scheduler.add_executor("pool", AsyncExecutor::new()).await.unwrap();
    time.settle().await;
    assert_eq!(words(&heard(&mut events)), [("flaky".to_owned(), "executed")], "the attempt was not used up");
}

#[actix::test]
async fn what_waits_outlives_the_scheduler_s_actor_and_a_change() {
    let (scheduler, time, ran, _events) = without_pool(|b| b).await;
    for id in ["a", "b", "c", "d"] {
        scheduler.add(Task::new("note").id(id).trigger(Date::at(at(10))).executor("pool")).await.unwrap();
    }
    remove(&scheduler).await;
    time.advance(secs(20)).await;
    assert_eq!(scheduler.status().await.unwrap().waiting, 4);
    scheduler.update_task("b", TaskChanges::new().executor("default")).await.unwrap();
    scheduler.pause_task("c").await.unwrap();
    scheduler.delete_task("d").await.unwrap();
    time.settle().await;
    assert_eq!(ran.of("b"), [at(10)], "with another executor it runs at once");
    assert_eq!(scheduler.status().await.unwrap().waiting, 1);
    scheduler.send(Crash).await.unwrap_err();
    time.advance(secs(20)).await;
    assert_eq!(scheduler.status().await.unwrap().waiting, 1);
    assert!(waits(&scheduler, "a").await.is_some() && waits(&scheduler, "c").await.is_none());
    scheduler.add_executor("pool", AsyncExecutor::new()).await.unwrap();
    time.settle().await;
    assert_eq!((ran.of("a"), ran.of("c")), (vec![at(10)], vec![]));
    scheduler.recheck_store("default").await.unwrap();
}

#[actix::test]
async fn what_waits_is_due_after_a_kill() {
    let (time, ran) = (VirtualClock::starting_at(START), Ran::default());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("here");
    let builder = Scheduler::builder().clock(time.clock()).registry(ran.registry());
    let builder = builder.store("default", callboard::store::SledStore::open(&path).unwrap());
    let scheduler = builder.executor("default", ThreadPool::new(1).queue(0)).start().await.unwrap();
    scheduler.add(Task::new("nap").args(1000).id("long").trigger(Date::at(at(5)))).await.unwrap();
    scheduler.add(Task::new("note").id("once").trigger(Date::at(at(10)))).await.unwrap();
    turning(&time, async {
        while scheduler.status().await.unwrap().waiting == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let left = folder.path().join("left");
    copy(&path, &left);
    let (next, mut events) = successor(&time, &ran, &left).await;
    turning(&time, async {
        while ran.count("once") == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(ran.of("once"), [at(10)]);
    next.shutdown(Shutdown::now()).await.unwrap();
    let ends = heard(&mut events);
    assert!(words(&ends).contains(&("once".to_owned(), "executed")), "{:?}", words(&ends));
}

/// Counts what it is asked about what is due.
struct Counted {
    backend: MemoryBackend,
    asked: Arc<AtomicU64>,
}

macro_rules! pass_on {
    ($($op:ident($message:ident) -> $answer:ty;)*) => {$(
        fn $op(&mut self, request: $message) -> Reply<$answer> {
            self.backend.$op(request)
        }
    )*};
}

impl Backend for Counted {
    fn capabilities(&self) -> Capabilities {
        self.backend.capabilities()
    }

    fn take_due(&mut self, request: TakeDue) -> Reply<Due> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.backend.take_due(request)
    }

    fn defer(&mut self, request: Defer) -> Reply<Option<DateTime<Utc>>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.backend.defer(request)
    }

    pass_on! {
        open(Open) -> Opened;
        put(Put) -> ();
        delete(Delete) -> StoredTask;
        get(Get) -> Option<StoredTask>;
        list(List) -> Vec<StoredTask>;
        commit(Commit) -> Committed;
        finish(Finish) -> ();
        next_due(NextDue) -> Option<DateTime<Utc>>;
        runs(Runs) -> Vec<RunRecord>;
        remove_all(RemoveAll) -> usize;
        close(Close) -> ();
    }
}

#[actix::test]
async fn waiting_costs_nothing() {
    let asked = Arc::new(AtomicU64::new(0));
    let counted = Counted { backend: MemoryBackend::default(), asked: asked.clone() };
    let (scheduler, time, ran, _events) =
        without_pool(|b| b.store("default", BackendSource::keeping(counted)).batch(100)).await;
    remove(&scheduler).await;
    scheduler.add_executor("pool", AsyncExecutor::new()).await.unwrap();
    for index in 0..1000 {
        scheduler.add(every(10).id(format!("{index}")).executor("pool").first_run(at(10))).await.unwrap();
    }
    remove(&scheduler).await;
    time.advance(secs(10)).await;
    assert_eq!(scheduler.status().await.unwrap().waiting, 1000);
    let before = asked.load(Ordering::Relaxed);
    time.advance(secs(100_000)).await;
    assert_eq!(asked.load(Ordering::Relaxed), before, "nobody asks about those who wait");
    scheduler.add(every(10_000).id("other")).await.unwrap();
    time.advance(secs(100_001)).await;
    let ticks = asked.load(Ordering::Relaxed) - before;
    assert_eq!(ran.count("other"), 11);
    assert!(ticks <= 22, "{ticks} for eleven ticks of another task");
    scheduler.add_executor("pool", AsyncExecutor::new()).await.unwrap();
    time.settle().await;
    assert!((0..1000).all(|index| ran.count(&index.to_string()) == 1));
}

#[actix::test]
async fn a_run_that_is_asked_for_goes_past_no_full_queue() {
    let (scheduler, time, _) = board(|b| b.executor("default", ThreadPool::new(1).queue(0))).await;
    for id in ["a", "b"] {
        scheduler
            .add(Task::new("nap").args(50).id(id).trigger(Interval::hours(1)).paused(true))
            .await
            .unwrap();
    }
    scheduler.run_task("a").await.unwrap();
    let beyond = RunTask::new(TaskId::new("b").unwrap()).beyond_max_instances();
    assert!(matches!(scheduler.send(beyond).await.unwrap(), Err(callboard::Error::Refused { .. })));
    time.advance(secs(60)).await;
    scheduler.run_task("b").await.unwrap();
}
