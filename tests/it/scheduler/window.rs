//! Where a schedule begins and ends: window, number of runs, what becomes of the task then.

use callboard::Error;
use callboard::task::{ScheduleState, TaskError, WhenFinished};

use super::*;

fn kept(task: Task) -> Task {
    task.when_finished(WhenFinished::Keep)
}

fn kinds(told: &[Event], id: &str) -> Vec<EventMask> {
    told.iter().filter(|e| e.task_id().is_some_and(|task| task.as_str() == id)).map(Event::mask).collect()
}

#[actix::test]
async fn run_times_outside_of_the_window_are_none() {
    let (scheduler, time, ran) = board(|b| b).await;
    let window = |task: Task| task.start_at(at(15)).end_at(at(40));
    scheduler.add(window(every(10)).id("interval")).await.unwrap();
    let cron = callboard::trigger::Cron::builder().second("*/10");
    scheduler.add(window(Task::new("note").trigger(cron)).id("cron")).await.unwrap();
    let ahead: Vec<_> = scheduler.preview("interval", 10).await.unwrap().iter().map(|t| t.to_utc()).collect();
    assert_eq!(ahead, [20, 30, 40].map(at), "both bounds are inclusive");
    let timeline = scheduler.timeline(at(1000), 100).await.unwrap();
    assert!(timeline.iter().all(|(time, _)| (at(15)..=at(40)).contains(time)), "{timeline:?}");
    assert_eq!(scheduler.task("interval").await.unwrap().next_run_time(), Some(at(20)));
    time.advance(secs(100)).await;
    assert_eq!(ran.of("interval"), [20, 30, 40].map(at));
    assert_eq!(ran.of("cron"), [20, 30, 40].map(at));
    assert!(scheduler.task("interval").await.unwrap_err().is_not_found(), "its schedule has ended");
}

#[actix::test]
async fn a_window_that_cannot_be_is_refused_and_named() {
    let (scheduler, time, _) = board(|b| b).await;
    let refuse = async |task: Task| scheduler.add(task).await.unwrap_err();
    let error = refuse(every(10).start_at(at(20)).end_at(at(10))).await;
    assert!(matches!(&error, Error::Task(TaskError::Invalid { field: "end_at", .. })), "{error}");
    time.advance(secs(100)).await;
    let error = refuse(every(10).end_at(at(50))).await;
    assert!(error.to_string().contains("never fires") && error.to_string().contains("end_at"), "{error}");
    let error = refuse(every(10).start_at(at(200)).first_run(at(150))).await;
    assert!(matches!(&error, Error::Task(TaskError::Invalid { field: "first_run", .. })), "{error}");

    scheduler.add(every(10).id("a").start_at(at(200))).await.unwrap();
    let error = scheduler.update_task("a", TaskChanges::new().end_at(at(150))).await.unwrap_err();
    assert!(matches!(&error, Error::Task(TaskError::Invalid { field: "end_at", .. })), "{error}");
    assert_eq!(scheduler.task("a").await.unwrap().spec.end_at, None, "nothing was applied");
}

#[actix::test]
async fn the_window_can_be_moved() {
    let (scheduler, time, ran) = board(|b| b).await;
    scheduler.add(every(10).id("a").start_at(at(1000))).await.unwrap();
    let next = async |changes| scheduler.update_task("a", changes).await.unwrap().next_run_time();
    assert_eq!(next(TaskChanges::new().start_at(at(35))).await, Some(at(40)));
    assert_eq!(next(TaskChanges::new().start_at(None)).await, Some(at(0)));
    time.advance(secs(15)).await;
    assert_eq!(next(TaskChanges::new().end_at(at(20))).await, Some(at(20)));
    let error = scheduler.update_task("a", TaskChanges::new().end_at(at(19))).await.unwrap_err();
    assert!(error.to_string().contains("never fires"), "a task that goes when it ends is not ended: {error}");
    time.advance(secs(100)).await;
    assert_eq!(ran.of("a"), [0, 10, 20].map(at));
}

#[actix::test]
async fn a_pause_over_the_end_leaves_nothing() {
    let (scheduler, time, ran) = board(|b| b).await;
    scheduler.add(every(10).id("gone").end_at(at(50))).await.unwrap();
    scheduler.add(kept(every(10).id("kept").end_at(at(50)))).await.unwrap();
    time.advance(secs(5)).await;
    scheduler.pause_task("gone").await.unwrap();
    scheduler.pause_task("kept").await.unwrap();
    time.advance(secs(100)).await;
    assert_eq!(scheduler.resume_task("gone").await.unwrap(), None);
    let info = scheduler.resume_task("kept").await.unwrap().unwrap();
    assert_eq!((info.schedule_state, info.next_run_time()), (ScheduleState::Finished, None));
    assert_eq!((ran.of("gone"), ran.of("kept")), (vec![at(0)], vec![at(0)]));
}

#[actix::test]
async fn a_schedule_ends_after_so_many_runs() {
    let (scheduler, time, ran) = board(|b| b).await;
    let mut events = scheduler.events(EventMask::TASK).await.unwrap();
    scheduler.add(every(10).id("gone").max_runs(3)).await.unwrap();
    scheduler.add(kept(every(10).id("kept").max_runs(3))).await.unwrap();
    assert_eq!(scheduler.preview("gone", 10).await.unwrap().len(), 2, "one ran at once");
    time.advance(secs(5)).await;
    // A run that somebody asked for does not count.
    scheduler.run_task("kept").await.unwrap();
    time.advance(secs(100)).await;
    assert_eq!(ran.of("gone"), [0, 10, 20].map(at));
    assert_eq!(ran.of("kept"), [0, 5, 10, 20].map(at));
    assert!(scheduler.task("gone").await.unwrap_err().is_not_found());
    let info = scheduler.task("kept").await.unwrap();
    assert_eq!((info.schedule_state, info.state.fired, info.state.runs), (ScheduleState::Finished, 3, 4));
    let told = heard(&mut events);
    let ends = |id| {
        let kinds = kinds(&told, id);
        let count = |kind| kinds.iter().filter(|other| **other == kind).count();
        (count(EventMask::TASK_REMOVED), count(EventMask::TASK_FINISHED))
    };
    assert_eq!((ends("gone"), ends("kept")), ((1, 0), (0, 1)));
    assert!(scheduler.preview("kept", 10).await.unwrap().is_empty());
    let finished = scheduler.tasks(TaskQuery::new().state(ScheduleState::Finished)).await.unwrap();
    assert_eq!(finished.len(), 1);
}

#[actix::test]
async fn a_kept_task_comes_back_when_it_is_given_more() {
    let (scheduler, time, ran) = board(|b| b).await;
    scheduler.add(kept(every(10).id("a").max_runs(2))).await.unwrap();
    time.advance(secs(35)).await;
    assert_eq!(ran.of("a"), [0, 10].map(at));
    scheduler.run_task("a").await.unwrap();
    time.settle().await;
    let state = async |changes| scheduler.update_task("a", changes).await.unwrap();
    let info = state(TaskChanges::new().max_runs(4)).await;
    assert_eq!((info.schedule_state, info.next_run_time()), (ScheduleState::Scheduled, Some(at(40))));
    time.advance(secs(10)).await;
    let info = state(TaskChanges::new().max_runs(3)).await;
    assert_eq!((info.schedule_state, info.next_run_time()), (ScheduleState::Finished, None));
    // Another trigger begins anew, and counts from the latest run.
    let info = scheduler.reschedule_task("a", Interval::seconds(20)).await.unwrap();
    assert_eq!((info.next_run_time(), info.state.fired), (Some(at(60)), 0));
    time.advance(secs(100)).await;
    assert_eq!(ran.of("a"), [0, 10, 35, 40, 60, 80, 100].map(at));
    let error =
        scheduler.update_task("a", TaskChanges::new().when_finished(WhenFinished::Remove)).await.unwrap_err();
    assert!(error.to_string().contains("max_runs"), "it would be gone, and that is for delete_task: {error}");
    scheduler
        .send(callboard::scheduler::message::RunTask::new("a".parse().unwrap()).remove_finished())
        .await
        .unwrap()
        .unwrap();
    assert!(scheduler.task("a").await.unwrap_err().is_not_found(), "remove_finished says what it does");
}

#[actix::test]
async fn a_date_is_kept_and_added_again_at_the_next_start() {
    let (scheduler, time, ran) = board(|b| b).await;
    let once = || kept(Task::new("note").id("once").trigger(Date::at(at(10))).replace_existing(true));
    scheduler.add(once()).await.unwrap();
    time.advance(secs(20)).await;
    scheduler.add(once()).await.unwrap();
    assert_eq!(scheduler.task("once").await.unwrap().schedule_state, ScheduleState::Finished);
    time.advance(secs(20)).await;
    assert_eq!(ran.of("once"), [at(10)]);
    scheduler.delete_task("once").await.unwrap();
    let mut events = scheduler.events(EventMask::TASK).await.unwrap();
    scheduler.add(once()).await.unwrap();
    assert_eq!(scheduler.task("once").await.unwrap().schedule_state, ScheduleState::Finished);
    let told = heard(&mut events);
    assert_eq!(kinds(&told, "once"), [EventMask::TASK_ADDED, EventMask::TASK_FINISHED]);
    let never = kept(Task::new("note").trigger("0 0 30 2 *"));
    assert!(scheduler.add(never).await.is_err(), "what could never run is a mistake");
}

#[actix::test]
async fn the_first_run_now_and_then_on_schedule() {
    let time = VirtualClock::starting_at(START);
    let ran = Ran::default();
    let scheduler = Scheduler::builder().clock(time.clock()).registry(ran.registry()).build().unwrap();
    scheduler.add(every(10).id("pending").first_run_now()).await.unwrap();
    time.advance(secs(3)).await;
    scheduler.start().await.unwrap();
    scheduler.add(every(10).id("now").first_run_now()).await.unwrap();
    scheduler.add(every(10).id("later").first_run_now().start_at(at(7))).await.unwrap();
    scheduler.add(Task::new("note").id("cron").trigger("* * * * *").first_run_now()).await.unwrap();
    time.advance(secs(60)).await;
    assert_eq!(ran.of("pending"), [3, 10, 20, 30, 40, 50, 60].map(at), "counted from when it was added");
    assert_eq!(ran.of("now"), [3, 13, 23, 33, 43, 53, 63].map(at));
    assert_eq!(ran.of("later"), [13, 23, 33, 43, 53, 63].map(at));
    assert_eq!(ran.of("cron"), [3, 60].map(at));
}

#[actix::test]
async fn a_first_run_that_was_had_does_not_come_again_with_another_trigger() {
    let (scheduler, time, ran) = board(|b| b).await;
    let task = |cron: &str| Task::new("note").id("a").trigger(cron).first_run(at(5)).replace_existing(true);
    scheduler.add(task("*/10 * * * * *")).await.unwrap();
    time.advance(secs(22)).await;
    scheduler.add(task("*/15 * * * * *")).await.unwrap();
    time.advance(secs(10)).await;
    assert_eq!(ran.of("a"), [5, 10, 20, 30].map(at));

    // Nor twice at one instant.
    let task = |every| super::every(every).id("b").first_run_now().replace_existing(true);
    for every in [10, 7] {
        scheduler.add(task(every)).await.unwrap();
        time.settle().await;
    }
    time.advance(secs(1)).await;
    assert_eq!(ran.of("b"), [at(32)]);
}

#[actix::test]
async fn times_that_no_calendar_has_are_refused_by_name() {
    let (scheduler, time, _) = board(|b| b).await;
    time.advance(secs(100)).await;
    scheduler.add(every(1000).id("a").first_run(at(900))).await.unwrap();
    let (never, ever) = (DateTime::<Utc>::MAX_UTC, DateTime::<Utc>::MIN_UTC);
    let refused = |error: callboard::Error, name: &str| {
        let callboard::Error::Task(callboard::task::TaskError::Invalid { field, .. }) = &error else {
            panic!("{error:?}")
        };
        assert_eq!(*field, name);
        let told = error.to_string();
        assert!(told.contains("0001-01-01") && told.contains("9999-12-31"), "{told}");
    };
    refused(scheduler.add(every(10).start_at(never)).await.unwrap_err(), "start_at");
    refused(scheduler.add(every(10).start_at(ever)).await.unwrap_err(), "start_at");
    refused(scheduler.add(every(10).first_run(never)).await.unwrap_err(), "first_run");
    let changes = TaskChanges::new().start_at(never);
    refused(scheduler.update_task("a", changes).await.unwrap_err(), "start_at");
    refused(scheduler.backfill("a", ever, at(50), secs(1)).await.unwrap_err(), "from");
    assert_eq!(scheduler.tasks(TaskQuery::new()).await.unwrap().len(), 1);
}
