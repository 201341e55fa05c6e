//! Panics and deaths: the others go on, counts are exact, each is an event.

use callboard::Error;
use callboard::scheduler::message::{Crash, PauseTask, ResumeTask};
use callboard::store::{BackendSource, Faults, MemoryBackend, MemoryStore, Op, StoreError};
use callboard::task::WhenFinished;
use callboard::trigger::{Context as TriggerContext, Custom, CustomTrigger, Trigger};

use super::*;

#[actix::test]
async fn a_handler_that_panics_hurts_nobody() {
    let (scheduler, time, ran) = board(|b| b).await;
    let mut events = scheduler.events(EventMask::TASK_ERROR).await.unwrap();
    scheduler.add(Task::new("panic").id("bad").trigger(Interval::seconds(10))).await.unwrap();
    scheduler.add(every(10).id("good")).await.unwrap();
    time.advance(secs(100)).await;
    assert_eq!(ran.count("good"), 11);
    let told = heard(&mut events);
    assert_eq!(told.len(), 11);
    let outcomes = told.iter().map(|event| event.report().unwrap().end.outcome.clone());
    for outcome in outcomes {
        let Outcome::Panicked { message } = outcome else { panic!("{outcome:?}") };
        assert!(message.starts_with("out of ink (at ") && message.contains("mod.rs:"), "{message}");
    }
    assert_eq!(scheduler.status().await.unwrap().running, 0);
}

#[actix::test]
async fn a_listener_that_panics_is_forgotten() {
    struct Bad;
    impl Actor for Bad {
        type Context = Context<Self>;
    }
    impl Handler<Event> for Bad {
        type Result = ();
        fn handle(&mut self, _: Event, _: &mut Self::Context) {
            panic!("I cannot hear you");
        }
    }
    let (scheduler, time, ran) = board(|b| b).await;
    let arbiter = Arbiter::new();
    let bad = Bad::start_in_arbiter(&arbiter.handle(), |_| Bad);
    scheduler.add_listener(EventMask::ALL, bad.recipient()).await.unwrap();
    let mut events = scheduler.events(EventMask::TASK_EXECUTED).await.unwrap();
    scheduler.add(every(10).id("a")).await.unwrap();
    time.advance(secs(100)).await;
    assert_eq!((ran.count("a"), heard(&mut events).len()), (11, 11));
}

#[actix::test]
async fn an_executor_that_dies_is_replaced_and_its_runs_are_interrupted() {
    let ran = Ran::default();
    let source = RecorderSource::with_bomb(&ran);
    let (scheduler, time, _) = board(move |b| b.executor("default", source)).await;
    let mut events =
        scheduler.events(EventMask::TASK_INTERRUPTED | EventMask::EXECUTOR_RESTARTED).await.unwrap();
    scheduler.add(every(10).id("a")).await.unwrap();
    scheduler.add(Task::new("note").id("bomb").trigger(Date::at(at(25)))).await.unwrap();
    time.advance(secs(60)).await;
    assert_eq!(ran.of("a"), [0, 10, 20, 30, 40, 50, 60].map(at));
    let told = heard(&mut events);
    let interrupted: Vec<_> = told.iter().filter_map(|event| Some(event.task_id()?.as_str())).collect();
    assert_eq!(interrupted, ["bomb"]);
    assert!(told.iter().any(|event| matches!(event, Event::ExecutorRestarted { .. })), "{told:?}");
    assert_eq!(scheduler.status().await.unwrap().running, 0);
}

#[actix::test]
async fn an_executor_that_keeps_dying_fails_visibly_and_can_be_restored() {
    let ran = Ran::default();
    let source = RecorderSource::with_bomb(&ran);
    let (scheduler, time, _) =
        board(move |b| b.executor("default", source).restart(RestartPolicy::on_failure().max(2, secs(3600))))
            .await;
    let mut events = scheduler.events(EventMask::ALL).await.unwrap();
    scheduler.add(every(10).id("bomb")).await.unwrap();
    time.advance(secs(100)).await;
    let told = heard(&mut events);
    let count = |mask: EventMask| told.iter().filter(|event| event.mask() == mask).count();
    assert_eq!((count(EventMask::EXECUTOR_RESTARTED), count(EventMask::EXECUTOR_FAILED)), (2, 1));
    // Three runs killed it; the next one waits, for the other run times as well.
    assert_eq!((count(EventMask::TASK_INTERRUPTED), count(EventMask::TASK_REFUSED)), (3, 0));
    assert!(scheduler.status().await.unwrap().executors[0].problem.is_some());
    let wait = scheduler.task("bomb").await.unwrap().waiting.unwrap();
    assert!(wait.reason.contains("for good"), "{wait:?}");

    scheduler.delete_task("bomb").await.unwrap();
    scheduler.add(every(10).id("a")).await.unwrap();
    let restore = callboard::scheduler::message::RestoreExecutor("default".try_into().unwrap());
    scheduler.send(restore).await.unwrap().unwrap();
    time.advance(secs(20)).await;
    assert!(ran.count("a") >= 2);
    assert_eq!(scheduler.status().await.unwrap().executors[0].problem, None);
    let told = heard(&mut events);
    let recovered = |event: &&Event| matches!(event, Event::ExecutorRecovered { executor } if executor.as_str() == "default");
    assert_eq!(told.iter().filter(recovered).count(), 1, "{told:#?}");
}

#[actix::test]
async fn the_scheduler_itself_dies_and_the_handle_goes_on_working() {
    let (scheduler, time, ran) = board(|b| b).await;
    let mut events = scheduler.events(EventMask::ALL).await.unwrap();
    scheduler.add(every(10).id("a")).await.unwrap();
    scheduler.add(Task::new("nap").args(30).id("long").trigger(Date::at(at(25)))).await.unwrap();
    time.advance(secs(30)).await;
    assert!(scheduler.send(Crash).await.unwrap_err().is_retryable());
    // The guardian waits before it starts a successor; the handle waits with it.
    let (answer, ()) = futures::join!(scheduler.status(), time.advance_to(at(100)));
    assert!(answer.unwrap().is_running());
    assert_eq!(ran.of("a"), [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100].map(at));
    let info = scheduler.task("a").await.unwrap();
    assert_eq!((info.state.runs, info.running), (11, 0));
    let told = heard(&mut events);
    let long: Vec<_> = told.iter().filter(|e| e.task_id().is_some_and(|id| id.as_str() == "long")).collect();
    assert!(matches!(long.last(), Some(Event::TaskExecuted(_))), "a run in flight goes on: {long:?}");
    assert!(told.iter().any(|event| matches!(event, Event::SchedulerRestarted { .. })), "{told:?}");
    assert_eq!(scheduler.status().await.unwrap().running, 0);
    scheduler.shutdown(Shutdown::default()).await.unwrap();
}

/// Waits are lengths of time, whatever becomes of the wall clock meanwhile.
#[actix::test]
async fn a_store_is_tried_again_although_the_clock_was_set_back() {
    let faults = Faults::new();
    let (scheduler, time, ran) = faulty_board(&faults).await;
    let mut events = scheduler.events(EventMask::STORE_RECOVERED).await.unwrap();
    scheduler.add(every(10).id("a")).await.unwrap();
    time.advance(secs(5)).await;
    faults.fail(Op::TakeDue, StoreError::unavailable("the network is down"));
    time.advance(secs(5)).await;
    assert_eq!((faults.left(), ran.count("a")), (0, 1));
    time.set(at(-3600)).await;
    time.advance(secs(10)).await;
    assert_eq!(heard(&mut events).len(), 1);
    scheduler.shutdown(Shutdown::now()).await.unwrap();
}

#[actix::test]
async fn absurd_lengths_of_time_are_no_panics() {
    let faults = Faults::new();
    let store = BackendSource::keeping(faults.around(MemoryBackend::default()));
    let longest = Duration::MAX;
    let (scheduler, time, ran) =
        board(|b| b.store("default", store).store_retry(longest).store_deadline(longest)).await;
    scheduler.add(every(10).id("a")).await.unwrap();
    time.advance(secs(15)).await;
    assert_eq!(ran.count("a"), 2);
    faults.fail(Op::TakeDue, StoreError::unavailable("the network is down"));
    time.advance(secs(10)).await;
    assert_eq!(faults.left(), 0);
    assert!(scheduler.status().await.unwrap().stores[0].problem.is_some());
    scheduler.shutdown(Shutdown::wait(longest)).await.unwrap();
}

async fn faulty_board(faults: &Faults) -> (Handle, VirtualClock, Ran) {
    let store = BackendSource::keeping(faults.around(MemoryBackend::default()));
    board(move |b| b.store("default", store)).await
}

/// Every run time from 0 to `last` ran, or stands in another run's count.
fn accounted(told: &[Event], last: i64) {
    let mut seen = Vec::new();
    for report in told.iter().filter_map(Event::report) {
        let nominal = (report.run.nominal - at(0)).num_seconds() / 10;
        seen.extend(nominal - report.run.coalesced as i64..=nominal);
    }
    seen.sort();
    assert_eq!(seen, (0..=last / 10).collect::<Vec<_>>(), "each run time has one outcome: {told:#?}");
}

#[actix::test]
async fn a_store_that_panics_is_replaced_and_no_run_time_is_lost() {
    for op in [Op::TakeDue, Op::Commit] {
        let faults = Faults::new();
        let (scheduler, time, _) = faulty_board(&faults).await;
        let mut events = scheduler.events(EventMask::ALL).await.unwrap();
        scheduler.add(every(10).id("a")).await.unwrap();
        time.advance(secs(25)).await;
        faults.panic(op);
        time.advance(secs(100)).await;
        assert_eq!(faults.left(), 0);
        let told = heard(&mut events);
        let count = |mask: EventMask| told.iter().filter(|event| event.mask() == mask).count();
        assert_eq!(
            (count(EventMask::STORE_UNAVAILABLE), count(EventMask::STORE_RECOVERED)),
            (1, 1),
            "{op:?}"
        );
        accounted(&told, 120);
        assert_eq!(scheduler.status().await.unwrap().running, 0);
    }
}

#[actix::test]
async fn a_store_that_fails_is_tried_again_and_virtual_time_waits_for_it() {
    let faults = Faults::new();
    let (scheduler, time, ran) = faulty_board(&faults).await;
    let mut events = scheduler.events(EventMask::ALL).await.unwrap();
    scheduler.add(every(10).id("a")).await.unwrap();
    time.advance(secs(25)).await;
    for _ in 0..3 {
        faults.fail(Op::TakeDue, StoreError::unavailable("the network is down"));
        faults.fail(Op::Open, StoreError::unavailable("the network is down"));
    }
    time.advance(secs(10_000)).await;
    accounted(&heard(&mut events), 10_020);
    assert!(ran.count("a") > 990, "{}", ran.count("a"));

    faults.fail(Op::Commit, StoreError::unavailable("the disk is full"));
    let error = scheduler.run_task("a").await.unwrap_err();
    assert!(matches!(error, Error::Store { .. }) && error.is_retryable(), "{error}");
    time.advance(secs(10)).await;
    assert_eq!(scheduler.status().await.unwrap().stores[0].problem, None);
}

#[actix::test]
async fn a_commit_whose_answer_is_lost_leaves_one_outcome() {
    let faults = Faults::new();
    let (scheduler, time, ran) = faulty_board(&faults).await;
    let mut events = scheduler.events(EventMask::ALL).await.unwrap();
    let lost = || StoreError::unavailable("the connection broke");
    scheduler.add(every(10).id("a")).await.unwrap();
    time.advance(secs(25)).await;
    faults.lose(Op::Commit, lost());
    time.advance(secs(100)).await;
    let told = heard(&mut events);
    accounted(&told, 120);
    assert_eq!(
        told.iter().filter(|event| matches!(event, Event::TaskInterrupted(_))).count(),
        1,
        "{told:#?}"
    );

    // A one-shot is not gone without a trace.
    scheduler.delete_task("a").await.unwrap();
    scheduler.add(Task::new("note").id("once").trigger(Date::at(at(200)))).await.unwrap();
    faults.lose(Op::Commit, lost());
    time.advance(secs(100)).await;
    let told = heard(&mut events);
    let once: Vec<_> = told.iter().filter(|e| e.task_id().is_some_and(|id| id.as_str() == "once")).collect();
    assert!(once.iter().any(|event| matches!(event, Event::TaskInterrupted(_))), "{once:#?}");
    assert!(once.iter().any(|event| matches!(event, Event::TaskRemoved { .. })), "{once:#?}");
    assert_eq!(ran.count("once"), 0);

    // Nor is a run that somebody asked for.
    scheduler.add(every(1000).id("b").first_run(at(9000))).await.unwrap();
    faults.lose(Op::Commit, lost());
    scheduler.run_task("b").await.unwrap_err();
    time.advance(secs(100)).await;
    let told = heard(&mut events);
    assert!(told.iter().any(|event| matches!(event, Event::TaskInterrupted(_))), "{told:#?}");
    assert_eq!(scheduler.status().await.unwrap().running, 0);

    // A request that fails is enough to have the store opened again.
    faults.fail(Op::Put, lost());
    scheduler.pause_task("b").await.unwrap_err();
    assert!(scheduler.status().await.unwrap().stores[0].problem.is_some());
    time.advance(secs(10)).await;
    assert_eq!(scheduler.status().await.unwrap().stores[0].problem, None);
}

#[actix::test]
async fn a_task_in_a_store_that_is_down_is_not_taken_for_deleted() {
    let faults = Faults::new();
    let (scheduler, time, _) = faulty_board(&faults).await;
    scheduler.add(every(10).id("a")).await.unwrap();
    time.advance(secs(5)).await;
    faults.panic(Op::TakeDue);
    // Up to the very instant at which it dies; its successor comes a little later.
    time.advance(secs(5)).await;
    let error = scheduler.task("a").await.unwrap_err();
    assert!(!error.is_not_found() && error.is_retryable(), "{error}");
    assert!(scheduler.tasks(TaskQuery::new()).await.is_err());
    time.advance(secs(10)).await;
    assert!(scheduler.task("a").await.is_ok());
}

#[actix::test]
async fn a_scheduler_that_dies_between_commit_and_submission_leaves_one_outcome() {
    let faults = Faults::new();
    let (scheduler, time, _) = faulty_board(&faults).await;
    let mut events = scheduler.events(EventMask::ALL).await.unwrap();
    scheduler.add(every(10).id("a")).await.unwrap();
    time.advance(secs(25)).await;
    let committed = faults.hold(Op::Commit);
    let turning = time.clone();
    let turn = async move { turning.advance(secs(75)).await };
    let crash = async {
        while faults.left() > 0 {
            tokio::task::yield_now().await;
        }
        scheduler.send(Crash).await.unwrap_err();
        drop(committed);
    };
    futures::join!(turn, crash);
    time.advance(secs(10)).await;
    let told = heard(&mut events);
    accounted(&told, 110);
    assert!(told.iter().any(|event| matches!(event, Event::TaskInterrupted(_))), "{told:#?}");
    assert_eq!(scheduler.status().await.unwrap().running, 0);
}

/// A store that fails, one that does not, and an executor that a run of the task `bomb` kills.
async fn board_with_bomb(faults: &Faults) -> (Handle, VirtualClock, EventStream) {
    let store = BackendSource::keeping(faults.around(MemoryBackend::default()));
    let source = RecorderSource::with_bomb(&Ran::default());
    let set = |b: Builder| b.store("default", MemoryStore::new()).store("shaky", store);
    let (scheduler, time, _) = board(move |b| set(b).executor("default", source)).await;
    let events = scheduler.events(EventMask::ALL).await.unwrap();
    (scheduler, time, events)
}

/// What was told of the runs of the task `a` with this nominal time.
fn told_of(told: &[Event], nominal: i64) -> Vec<String> {
    let about = |event: &&Event| event.task_id().is_some_and(|id| id.as_str() == "a");
    let word = |event: &Event| match event {
        Event::TaskSubmitted(fact) if fact.0.nominal == at(nominal) => Some("submitted".to_owned()),
        event => {
            let report = event.report().filter(|report| report.run.nominal == at(nominal))?;
            Some(report.end.outcome.word().to_owned())
        }
    };
    told.iter().filter(about).filter_map(word).collect()
}

#[actix::test]
async fn a_run_whose_executor_dies_before_it_is_written_down_has_one_end_after_its_submission() {
    let faults = Faults::new();
    let (scheduler, time, mut events) = board_with_bomb(&faults).await;
    scheduler.add(every(10).id("a").store("shaky")).await.unwrap();
    scheduler.add(every(1000).id("bomb").first_run(at(9000))).await.unwrap();
    time.advance(secs(5)).await;
    let committed = faults.hold(Op::Commit);
    let turning = time.clone();
    let turn = async move { turning.advance_to(at(10)).await };
    let die = async {
        while faults.left() > 0 {
            tokio::task::yield_now().await;
        }
        scheduler.run_task("bomb").await.ok();
        while scheduler.status().await.unwrap().executors[0].problem.is_none() {
            tokio::task::yield_now().await;
        }
        drop(committed);
    };
    futures::join!(turn, die);
    time.advance(secs(12)).await;
    let told = heard(&mut events);
    // It was written down, and had not begun: it begins when the executor is back.
    assert_eq!(told_of(&told, 10), ["submitted", "executed"], "{told:#?}");
    assert_eq!(told_of(&told, 20), ["submitted", "executed"], "{told:#?}");
    assert_eq!(scheduler.status().await.unwrap().running, 0);
}

#[actix::test]
async fn a_run_in_doubt_whose_executor_dies_has_one_outcome() {
    let faults = Faults::new();
    let (scheduler, time, mut events) = board_with_bomb(&faults).await;
    scheduler.add(every(10).id("a").store("shaky")).await.unwrap();
    scheduler.add(every(1000).id("bomb").first_run(at(9000))).await.unwrap();
    time.advance(secs(5)).await;
    faults.fail(Op::Commit, StoreError::unavailable("the disk is full"));
    time.advance(secs(5)).await;
    assert_eq!(faults.left(), 0);
    scheduler.run_task("bomb").await.ok();
    time.advance(secs(12)).await;
    let told = heard(&mut events);
    assert_eq!(told_of(&told, 10), ["submitted", "executed"], "{told:#?}");
}

#[actix::test]
async fn a_run_by_hand_does_not_stand_for_a_run_in_doubt() {
    let faults = Faults::new();
    let (scheduler, time, mut events) = board_with_bomb(&faults).await;
    scheduler.add(every(10).id("a").store("shaky")).await.unwrap();
    time.advance(secs(5)).await;
    faults.fail(Op::Commit, StoreError::unavailable("the disk is full"));
    time.advance(Duration::from_millis(5100)).await;
    assert_eq!(faults.left(), 0);
    scheduler.run_task("a").await.unwrap();
    time.advance(secs(5)).await;
    let told = heard(&mut events);
    assert_eq!(told_of(&told, 10), ["submitted", "executed"], "{told:#?}");
}

#[actix::test]
async fn a_removal_that_was_not_answered_is_told_once() {
    let faults = Faults::new();
    let (scheduler, time, mut events) = board_with_bomb(&faults).await;
    scheduler.add(every(1000).id("a").store("shaky").first_run(at(9000))).await.unwrap();
    scheduler.add(every(1000).id("b").store("shaky").first_run(at(9000))).await.unwrap();
    faults.lose(Op::Delete, StoreError::unavailable("the connection broke"));
    scheduler.delete_task("a").await.unwrap_err();
    faults.fail(Op::Delete, StoreError::unavailable("the connection broke"));
    scheduler.delete_task("b").await.unwrap_err();
    time.advance(secs(10)).await;
    assert!(scheduler.delete_task("a").await.unwrap_err().is_not_found());
    let told = heard(&mut events);
    let removed: Vec<_> = told
        .iter()
        .filter(|event| matches!(event, Event::TaskRemoved { .. }))
        .filter_map(|event| Some(event.task_id()?.as_str()))
        .collect();
    assert_eq!(removed, ["a"], "{told:#?}");
}

#[actix::test]
async fn a_task_added_while_a_commit_is_answered_late_is_not_overlooked() {
    let faults = Faults::new();
    let (scheduler, time, ran) = faulty_board(&faults).await;
    scheduler.add(every(1000).id("a")).await.unwrap();
    time.advance(secs(5)).await;
    let committed = faults.hold(Op::Commit);
    let turning = time.clone();
    let turn = async move { turning.advance_to(at(1000)).await };
    let add = async {
        while faults.left() > 0 {
            tokio::task::yield_now().await;
        }
        // The commit was answered, in the store, before this: its answer knows nothing of `b`.
        scheduler.add(every(1).id("b")).await.unwrap();
        drop(committed);
    };
    futures::join!(turn, add);
    time.advance(secs(3)).await;
    assert_eq!(ran.of("b"), [1000, 1001, 1002, 1003].map(at));
}

#[actix::test]
async fn messages_about_one_task_take_effect_in_the_order_in_which_they_were_sent() {
    let (scheduler, _, _) = board(|b| b).await;
    scheduler.add(every(10).id("a")).await.unwrap();
    let addr = scheduler.addr().unwrap();
    for _ in 0..100 {
        addr.do_send(PauseTask::new("a".parse().unwrap()));
        addr.do_send(ResumeTask::new("a".parse().unwrap(), false));
    }
    assert!(
        !scheduler.task("a").await.unwrap().state.paused || {
            // `task` is no change and does not wait in line; one that does comes after all of them.
            !scheduler.update_task("a", TaskChanges::new().name("x")).await.unwrap().state.paused
        }
    );
    addr.do_send(callboard::scheduler::message::AddTask(every(10).id("b")));
    assert!(scheduler.pause_task("b").await.unwrap().state.paused);
}

#[derive(Debug)]
struct Moody;

impl CustomTrigger for Moody {
    fn next(
        &self,
        params: &serde_json::Value,
        from: DateTime<Utc>,
        _: &TriggerContext<'_>,
    ) -> Result<Option<DateTime<Utc>>, String> {
        assert!(from < at(30), "not in the mood");
        let step = params["step"].as_i64().ok_or("give it a `step` in seconds")?;
        let (passed, length) = ((from - at(0)).num_nanoseconds().unwrap(), step * 1_000_000_000);
        Ok(Some(at((passed + length - 1) / length * step)))
    }

    fn check(&self, params: &serde_json::Value) -> Result<(), String> {
        params["step"].as_i64().map(drop).ok_or_else(|| "give it a `step` in seconds".to_owned())
    }
}

#[actix::test]
async fn a_custom_trigger_runs_and_one_that_panics_stalls_its_own_task_only() {
    let (scheduler, _, _) = board(|b| b).await;
    let unknown = Trigger::Custom(Arc::new(Custom::new("moody", serde_json::json!({ "step": 10 }))));
    assert!(
        scheduler
            .add(Task::new("note").trigger(unknown.clone()))
            .await
            .unwrap_err()
            .to_string()
            .contains("moody")
    );

    let ran = Ran::default();
    let registry = ran.registry().register_trigger("moody", Moody);
    let time = VirtualClock::starting_at(START);
    let scheduler = Scheduler::builder().clock(time.clock()).registry(registry).start().await.unwrap();
    let mut events = scheduler.events(EventMask::TASK_STALLED).await.unwrap();
    let bad = Trigger::Custom(Arc::new(Custom::new("moody", serde_json::json!({}))));
    assert!(scheduler.add(Task::new("note").trigger(bad)).await.unwrap_err().to_string().contains("`step`"));
    scheduler.add(Task::new("note").id("moody").trigger(unknown)).await.unwrap();
    scheduler.add(every(10).id("steady")).await.unwrap();
    time.advance(secs(60)).await;
    assert_eq!(ran.of("moody"), [0, 10, 20, 30].map(at));
    assert_eq!(ran.count("steady"), 7);
    assert_eq!(heard(&mut events).len(), 1);
    assert!(scheduler.task("moody").await.unwrap().state.paused);
}

/// Resumed after its only run time, it has nothing to come.
#[actix::test]
async fn a_resume_that_removes_a_task_is_told_also_when_its_answer_is_lost() {
    let faults = Faults::new();
    let (scheduler, time, _) = faulty_board(&faults).await;
    let mut events = scheduler.events(EventMask::TASK_REMOVED).await.unwrap();
    scheduler.add(Task::new("note").id("a").trigger(Date::at(at(10)))).await.unwrap();
    scheduler.pause_task("a").await.unwrap();
    time.advance(secs(20)).await;
    faults.lose(Op::Commit, StoreError::unavailable("the network is down"));
    scheduler.send(ResumeTask::new("a".parse().unwrap(), false)).await.unwrap().unwrap_err();
    assert!(heard(&mut events).is_empty(), "nobody knows yet");
    time.advance(secs(60)).await;
    assert_eq!(faults.left(), 0);
    assert_eq!(heard(&mut events).len(), 1);
    assert!(scheduler.task("a").await.unwrap_err().is_not_found());
}

/// The store had the decision (`written`) or not when it stopped answering: the shutdown cannot know,
/// and what becomes of the run time is told once.
#[actix::test]
async fn a_run_in_doubt_at_the_shutdown_is_told_of_when_its_store_works_again() {
    for (written, history) in [(true, 0), (false, 0), (true, 10), (false, 10)] {
        let faults = Faults::new();
        let store = BackendSource::keeping(faults.around(MemoryBackend::default().history(history)));
        let (scheduler, time, ran) = board(move |b| b.store("default", store)).await;
        let mut events = scheduler.events(EventMask::RUN_ENDED).await.unwrap();
        scheduler
            .add(Task::new("note").id("a").trigger(Date::at(at(10))).when_finished(WhenFinished::Keep))
            .await
            .unwrap();
        let down = || StoreError::unavailable("the network is down");
        match written {
            true => faults.lose(Op::Commit, down()),
            false => faults.fail(Op::Commit, down()),
        }
        (0..9).for_each(|_| faults.fail(Op::Open, down()));
        time.advance(secs(15)).await;
        assert_eq!(scheduler.status().await.unwrap().running, 1, "nobody knows yet");
        let (stopped, ()) = futures::join!(scheduler.shutdown(Shutdown::now()), time.advance(secs(5)));
        stopped.unwrap();
        assert_eq!(scheduler.status().await.unwrap().running, 0);
        assert!(heard(&mut events).is_empty(), "nor now");
        while faults.left() > 0 {
            let _ = scheduler.start().await;
        }
        if !scheduler.status().await.unwrap().is_running() {
            scheduler.start().await.unwrap();
        }
        time.advance(secs(60)).await;
        let told = heard(&mut events);
        let words: Vec<_> = told
            .iter()
            .map(|event| match event {
                Event::RunInterrupted { .. } => "interrupted",
                event => event.report().unwrap().end.outcome.word(),
            })
            .collect();
        let (word, runs) = if written { ("interrupted", 0) } else { ("executed", 1) };
        assert_eq!((words, ran.count("a")), (vec![word], runs));
    }
}

/// The answer of a store that is gone says nothing about the one that has its alias now.
#[actix::test]
async fn a_run_on_demand_does_not_begin_when_its_store_is_another_by_now() {
    let faults = Faults::new();
    let (scheduler, time, ran) = faulty_board(&faults).await;
    let mut events = scheduler.events(EventMask::ALL).await.unwrap();
    scheduler.add(every(1000).id("a").first_run(at(900))).await.unwrap();
    let held = faults.hold(Op::Commit);
    let asked = scheduler.run_task("a");
    let change = async {
        while faults.left() > 0 {
            tokio::task::yield_now().await;
        }
        let answer = async {
            // From then on nobody has anything to do with it.
            while scheduler.task("a").await.is_ok() {}
            drop(held);
        };
        let (removed, ()) = futures::join!(scheduler.remove_store("default"), answer);
        removed.unwrap();
        scheduler.add_store("default", MemoryStore::new()).await.unwrap();
    };
    let (asked, ()) = futures::join!(asked, change);
    assert!(asked.unwrap_err().is_retryable());
    time.advance(secs(60)).await;
    let told = heard(&mut events);
    let words: Vec<_> =
        told.iter().filter_map(Event::report).map(|report| report.end.outcome.word()).collect();
    assert_eq!((words, ran.count("a")), (vec!["interrupted"], 0), "{told:#?}");
    assert!(!told.iter().any(|event| matches!(event, Event::StoreUnavailable { .. })), "{told:#?}");
    assert_eq!(scheduler.status().await.unwrap().running, 0);
}
