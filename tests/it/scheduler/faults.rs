//! Panics and deaths: the others go on, counts are exact, each is an event.

use callboard::scheduler::message::Crash;

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
    let expected = Outcome::Panicked { message: "out of ink".to_owned() };
    assert!(told.iter().all(|event| event.report().unwrap().end.outcome == expected));
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
    // Three runs killed it; the other eight were refused, and each run time has an outcome.
    assert_eq!((count(EventMask::TASK_INTERRUPTED), count(EventMask::TASK_REFUSED)), (3, 8));
    assert!(scheduler.status().await.unwrap().executors[0].problem.is_some());

    scheduler.delete_task("bomb").await.unwrap();
    scheduler.add(every(10).id("a")).await.unwrap();
    let restore = callboard::scheduler::message::RestoreExecutor("default".try_into().unwrap());
    scheduler.send(restore).await.unwrap().unwrap();
    time.advance(secs(20)).await;
    assert!(ran.count("a") >= 2);
    assert_eq!(scheduler.status().await.unwrap().executors[0].problem, None);
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
    let answers = async { while scheduler.status().await.is_err() {} };
    let turning = async {
        loop {
            time.advance(Duration::from_millis(10)).await;
            tokio::task::yield_now().await;
        }
    };
    futures::future::select(Box::pin(answers), Box::pin(turning)).await;
    time.advance_to(at(100)).await;
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
