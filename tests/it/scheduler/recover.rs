//! Runs that are cut off, and begun again.

use callboard::backoff::Backoff;
use callboard::event::RunReport;
use callboard::executor::AsyncExecutor;
use callboard::store::message::{Expect, Open, Put};
use callboard::store::{
    BackendSource, Faults, MemoryBackend, MemoryStore, Op, SledStore, StoreError, StoreSource,
};
use callboard::task::{
    Attempt, MAX_RECOVERIES, OwnerId, Retry, ScheduleState, Source, StoredTask, TaskSpec, TaskState,
    WhenFinished,
};

use super::retry::{ends, second};
use super::supervised::Mortal;
use super::*;

#[actix::test]
async fn a_run_whose_executor_dies_is_begun_again_and_not_for_ever() {
    let ran = Ran::default();
    let source = RecorderSource::with_bomb(&ran);
    let (scheduler, time, _) = board(move |b| b.executor("default", source)).await;
    let mut events = scheduler.events(EventMask::ALL).await.unwrap();
    scheduler.add(Task::new("note").id("bomb").trigger(Date::at(at(5))).recover(true)).await.unwrap();
    scheduler.add(every(10).id("a").recover(true)).await.unwrap();
    for _ in 0..60 {
        time.advance(secs(60)).await;
        // Somebody looks after the executor that has died too often; what was due meanwhile waits.
        let restore = callboard::scheduler::message::RestoreExecutor("default".try_into().unwrap());
        scheduler.send(restore).await.unwrap().unwrap();
    }
    let told = heard(&mut events);
    let bomb = ends(&told, "bomb");
    let final_ones = bomb.iter().filter(|end| end.3.is_none()).count();
    assert_eq!((final_ones, bomb.last().unwrap().1), (1, MAX_RECOVERIES + 1), "{bomb:?}");
    assert!(scheduler.task("bomb").await.unwrap_err().is_not_found(), "and then it is over");
    assert_eq!(ran.count("bomb"), 0);
    // The others go on, each run time once.
    let of_a = told.iter().filter_map(Event::report).filter(|report| report.task_id().as_str() == "a");
    let settled: Vec<_> = of_a.filter(|report| report.end.retry_at.is_none()).collect();
    assert!(settled.iter().all(|report| report.end.outcome.is_success()));
    assert_eq!(settled.iter().map(|report| 1 + report.run.coalesced).sum::<u64>(), 361);
    assert_eq!(ran.of("a").len(), settled.len());
    assert_eq!(scheduler.status().await.unwrap().running, 0);
}

#[actix::test]
async fn a_run_whose_executor_went_away_once_ends_well() {
    let (scheduler, time, _) = board(|b| b).await;
    let mut events = scheduler.events(EventMask::ALL).await.unwrap();
    scheduler.add(Task::new("nap").args(5).id("again").trigger(Date::at(at(0))).recover(true)).await.unwrap();
    scheduler.add(Task::new("nap").args(5).id("plain").trigger(Date::at(at(0)))).await.unwrap();
    time.advance(secs(2)).await;
    // It takes its runs with it; what comes again waits until the scheduler goes on.
    scheduler.pause().await.unwrap();
    scheduler.remove_executor("default", Duration::ZERO).await.unwrap();
    scheduler.add_executor("default", AsyncExecutor::new()).await.unwrap();
    scheduler.resume().await.unwrap();
    time.advance(secs(20)).await;
    let told = heard(&mut events);
    assert_eq!(ends(&told, "plain"), [(0, 1, "interrupted", None)], "nothing runs twice unasked");
    let again = ends(&told, "again");
    assert_eq!(again, [(0, 1, "interrupted", Some(2)), (0, 2, "executed", None)]);
}

#[actix::test]
async fn a_shutdown_cuts_off_and_the_next_start_begins_again() {
    let time = VirtualClock::starting_at(START);
    let ran = Ran::default();
    let scheduler = Scheduler::builder().clock(time.clock()).registry(ran.registry()).start().await.unwrap();
    let mut events = scheduler.events(EventMask::ALL).await.unwrap();
    let nap = || Task::new("nap").args(5).trigger(Date::at(at(0)));
    scheduler.add(nap().id("again").recover(true)).await.unwrap();
    scheduler.add(nap().id("plain")).await.unwrap();
    time.advance(secs(2)).await;
    scheduler.shutdown(Shutdown::now()).await.unwrap();
    time.advance(secs(60)).await;
    scheduler.start().await.unwrap();
    time.advance(secs(60)).await;
    let told = heard(&mut events);
    let again = ends(&told, "again");
    assert!(matches!(again[..], [(0, 1, "interrupted", Some(2..=3)), (0, 2, "executed", None)]), "{again:?}");
    assert_eq!(ends(&told, "plain"), [(0, 1, "interrupted", None)]);
    assert_eq!(scheduler.tasks(TaskQuery::new()).await.unwrap(), []);
}

#[actix::test]
async fn a_process_that_is_killed_is_no_end_for_what_is_to_recover() {
    let base = tempfile::tempdir().unwrap();
    let store = SledStore::open(base.path().join("store")).unwrap();
    let (scheduler, time, ran) = board(move |b| b.store("default", store)).await;
    let retry = callboard::task::Retry::times(3);
    let nap = |id: &str| Task::new("nap").args(5).id(id).trigger(Date::at(at(0)));
    scheduler.add(nap("again").recover(true)).await.unwrap();
    scheduler.add(nap("plain")).await.unwrap();
    scheduler.add(nap("retried").retry(retry)).await.unwrap();
    scheduler.add(nap("kept").retry(retry).when_finished(WhenFinished::Keep)).await.unwrap();
    time.advance(secs(2)).await;
    let left = base.path().join("left");
    copy(&base.path().join("store"), &left);
    scheduler.shutdown(Shutdown::now()).await.unwrap();

    let time = VirtualClock::starting_at("2027-01-01T00:01:00Z");
    let (next, mut events) = successor(&time, &ran, &left).await;
    time.advance(secs(60)).await;
    let told = heard(&mut events);
    let mut interrupted: Vec<_> = told
        .iter()
        .filter_map(|event| match event {
            Event::RunInterrupted { record, .. } => {
                Some((record.task.to_string(), record.end.as_ref()?.retry_at.map(second)))
            }
            _ => None,
        })
        .collect();
    interrupted.sort();
    let name = str::to_owned;
    assert_eq!(
        interrupted,
        [(name("again"), Some(60)), (name("kept"), None), (name("plain"), None), (name("retried"), None)]
    );
    assert_eq!(ends(&told, "again"), [(0, 2, "executed", None)]);
    for id in ["plain", "retried", "kept"] {
        assert_eq!(ends(&told, id), [], "{id}: nothing runs twice unasked");
    }
    let records = next.history("again", 9).await.unwrap();
    let shown: Vec<_> = records
        .iter()
        .map(|record| {
            let end = record.end.as_ref().unwrap();
            (record.attempt, end.outcome.word(), end.retry_at.map(second))
        })
        .collect();
    assert_eq!(shown, [(2, "executed", None), (1, "interrupted", Some(60))]);
    let tasks = next.tasks(TaskQuery::new()).await.unwrap();
    let states: Vec<_> = tasks.iter().map(|task| (task.id().as_str(), task.schedule_state)).collect();
    assert_eq!(states, [("kept", ScheduleState::Finished)], "none goes on for ever");
    next.shutdown(Shutdown::now()).await.unwrap();
}

#[actix::test]
async fn an_attempt_whose_record_is_lost_is_not_going_on_for_ever() {
    forgets_nothing(MemoryStore::new()).await;
    let mortal = Mortal { backend: MemoryBackend::default(), armed: Arc::default() };
    forgets_nothing(BackendSource::keeping(mortal)).await;
}

async fn forgets_nothing(mut source: impl StoreSource) {
    let store = source.start(Box::new(()));
    store.open(Open { owner: OwnerId(7), now: at(0) }).await.unwrap();
    let put = async |id: &str, recover: bool, interrupted: u32| {
        let spec = TaskSpec {
            handler: callboard::task::Handler::Named("note".into()),
            retry: Some(callboard::task::Retry::times(1)),
            recover,
            ..(*callboard::store::contract::sample(id, at(-100)).spec).clone()
        };
        let attempt = Attempt {
            nominal: at(-100),
            due: at(-100),
            coalesced: 2,
            source: Source::Scheduled,
            number: interrupted + 1,
            interrupted,
            at: None,
        };
        let state = TaskState { attempts: vec![attempt], ..TaskState::new(at(-200)) };
        let task = StoredTask { spec: Arc::new(spec), state };
        store.put(Put { task, expect: Expect::Absent }).await.unwrap();
    };
    put("again", true, 1).await;
    put("too often", true, MAX_RECOVERIES).await;
    put("plain", false, 0).await;
    let source = store.clone();
    let (scheduler, time, ran) = board(move |b| b.store("default", source)).await;
    time.advance(secs(5)).await;
    assert_eq!(ran.of("again"), [at(-100)]);
    assert_eq!((ran.count("plain"), ran.count("too often")), (0, 0));
    assert_eq!(scheduler.tasks(TaskQuery::new()).await.unwrap(), []);
}

#[actix::test]
async fn a_run_that_begins_while_its_store_is_opened_is_not_lost() {
    let faults = Faults::new();
    let store = BackendSource::keeping(faults.around(MemoryBackend::default()));
    let (scheduler, time, _) = board(move |b| b.store("default", store)).await;
    let mut events = scheduler.events(EventMask::RUN_ENDED).await.unwrap();
    let retry = Retry::times(1).backoff(Backoff::fixed(secs(2)));
    let task = |id: &str| {
        let task = Task::new("hang").id(id).trigger(Interval::seconds(1000).start_at(at(9000)));
        task.retry(retry).timeout(secs(5)).max_instances(2)
    };
    for id in ["a", "b"] {
        scheduler.add(task(id)).await.unwrap();
        scheduler.run_task(id).await.unwrap();
    }
    time.advance(secs(2)).await;
    faults.fail(Op::Put, StoreError::unavailable("the network is down"));
    scheduler.pause_task("a").await.unwrap_err();
    // The store is opened, and asked about `a` and then about `b`.
    let looked = faults.hold(Op::Get);
    let turning = time.clone();
    let turn = async move { turning.advance_to(at(4)).await };
    let run = async {
        while faults.left() > 0 {
            tokio::task::yield_now().await;
        }
        let run = scheduler.run_task("b").await.unwrap();
        drop(looked);
        run
    };
    let ((), run) = futures::join!(turn, run);
    time.advance(secs(20)).await;
    let told = heard(&mut events);
    let ended = told.iter().filter_map(Event::report).find(|report| report.run.id == run).unwrap();
    assert_eq!((ended.end.outcome.word(), ended.end.retry_at.is_some()), ("timed_out", true), "{told:#?}");
    let again = |report: &&RunReport| report.run.nominal == ended.run.nominal && report.run.attempt == 2;
    assert_eq!(told.iter().filter_map(Event::report).filter(again).count(), 1, "{told:#?}");
}
