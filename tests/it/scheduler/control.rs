//! Adding, changing, running and looking at tasks.

use callboard::Error;
use callboard::store::SledStore;
use callboard::task::{AddedAs, Coalesce, ScheduleState, SortKey};

use super::*;

#[actix::test]
async fn a_year_of_a_daily_task_takes_no_time() {
    let (scheduler, time, ran) = board(|b| b).await;
    scheduler.add(every(86_400).id("daily")).await.unwrap();
    time.advance(secs(365 * 86_400)).await;
    assert_eq!(ran.count("daily"), 366);
    let info = scheduler.task("daily").await.unwrap();
    assert_eq!((info.state.runs, info.running), (366, 0));
    scheduler.shutdown(Shutdown::default()).await.unwrap();
}

#[actix::test]
async fn what_is_not_valid_is_refused_and_named() {
    let (scheduler, _, _) = board(|b| b).await;
    let refuse = async |task: Task| scheduler.add(task).await.unwrap_err().to_string();
    assert!(refuse(every(1).id("x".repeat(300))).await.contains("300 bytes"));
    assert!(
        refuse(Task::new("nobody").trigger(Interval::seconds(1)))
            .await
            .contains("fail, flaky, hang, nap, note, panic")
    );
    assert!(refuse(every(1).executor("gpu")).await.contains("`gpu`; there are: default"));
    assert!(refuse(every(1).store("attic")).await.contains("`attic`; there are: default"));
    assert!(refuse(Task::new("note").trigger(Date::at(at(-1)))).await.contains("never fires"));
    assert!(refuse(Task::new("note")).await.contains("no trigger"));
    assert_eq!(scheduler.tasks(TaskQuery::new()).await.unwrap(), []);
    scheduler.add(every(1).id("a")).await.unwrap();
    for again in [1, 2] {
        assert!(matches!(scheduler.add(every(again).id("a")).await, Err(Error::TaskExists(_))));
    }
    assert!(matches!(scheduler.task("b").await, Err(Error::UnknownTask(_))));
    assert!(matches!(scheduler.pause_task("").await, Err(Error::Task(_))));
}

#[actix::test]
async fn registering_again_keeps_what_the_task_has_come_to() {
    let (scheduler, time, ran) = board(|b| b).await;
    let task = || every(10).id("a").replace_existing(true);
    scheduler.add(task()).await.unwrap();
    time.advance(secs(25)).await;
    scheduler.pause_task("a").await.unwrap();
    let before = scheduler.task("a").await.unwrap();
    let mut events = scheduler.events(EventMask::ALL).await.unwrap();
    for _ in 0..1000 {
        scheduler.add(task()).await.unwrap();
    }
    assert_eq!(scheduler.task("a").await.unwrap(), before);
    assert!(heard(&mut events).is_empty(), "nothing changed, so nothing is told");

    // Another option: the schedule stays.
    scheduler.add(task().max_instances(3)).await.unwrap();
    let after = scheduler.task("a").await.unwrap();
    assert_eq!((after.state.next, after.state.runs), (before.state.next, before.state.runs));
    assert_eq!((after.state.paused, after.spec.max_instances), (true, 3));

    // Another trigger: a new next run, counted from the latest one.
    scheduler.add(task().trigger(Interval::seconds(60))).await.unwrap();
    let after = scheduler.task("a").await.unwrap();
    assert_eq!(after.state.next.unwrap().nominal, at(80));
    assert_eq!((after.state.runs, after.state.paused), (3, true));
    assert_eq!(ran.of("a"), [at(0), at(10), at(20)]);
}

/// What a task takes that is there already, and what it does not, is said in the answer.
#[actix::test]
async fn adding_a_task_that_is_there_says_what_was_not_taken() {
    let (scheduler, time, ran) = board(|b| b).await;
    let task = || every(10).id("a").replace_existing(true);
    let added = scheduler.register(task().first_run(at(5))).await.unwrap();
    assert_eq!((added.what, added.kept.len()), (AddedAs::New, 0));
    let again = scheduler.register(task().first_run(at(5))).await.unwrap();
    assert_eq!((again.what, again.kept.len()), (AddedAs::Unchanged, 0), "that is the first run it has");
    time.advance(secs(12)).await;
    let given = task().first_run(at(500)).paused(true).timezone(chrono_tz::Europe::Lisbon);
    let changed = scheduler.register(given).await.unwrap();
    assert_eq!(changed.what, AddedAs::Changed);
    assert_eq!(
        changed.kept.iter().map(|kept| kept.option).collect::<Vec<_>>(),
        ["first_run", "paused", "timezone"]
    );
    time.advance(secs(10)).await;
    assert_eq!(ran.of("a"), [5, 10, 20].map(at), "and the zone means nothing to an interval");
}

#[actix::test]
async fn the_next_run_can_be_set_and_outlives_a_restart() {
    let base = tempfile::tempdir().unwrap();
    let (scheduler, time, ran) = board(|b| b.store("default", SledStore::open(base.path()).unwrap())).await;
    scheduler.add(every(10).id("a").end_at(at(100))).await.unwrap();
    time.advance(secs(12)).await;
    let set = async |scheduler: &Handle, seconds| {
        scheduler.update_task("a", TaskChanges::new().next_run(at(seconds))).await
    };
    let info = set(&scheduler, 45).await.unwrap();
    assert_eq!((info.next_run_time(), info.state.paused), (Some(at(45)), false));
    for (seconds, why) in [(11, "past"), (101, "end_at")] {
        let error = set(&scheduler, seconds).await.unwrap_err().to_string();
        assert!(error.contains("next_run") && error.contains(why), "{error}");
    }
    scheduler.shutdown(Shutdown::now()).await.unwrap();
    let (scheduler, _) = successor(&time, &ran, base.path()).await;
    time.advance(secs(60)).await;
    assert_eq!(ran.of("a"), [0, 10, 45, 50, 60, 70].map(at), "later ones follow the trigger");
    scheduler.pause_task("a").await.unwrap();
    assert_eq!(set(&scheduler, 95).await.unwrap().state.next.unwrap().nominal, at(95));
    scheduler.resume_task("a").await.unwrap();
    time.advance(secs(40)).await;
    assert_eq!(ran.of("a").split_off(6), [95, 100].map(at));
    scheduler.shutdown(Shutdown::now()).await.unwrap();
}

#[actix::test]
async fn pause_resume_and_run_now() {
    let (scheduler, time, ran) = board(|b| b).await;
    scheduler.add(every(10).id("a").first_run(at(10))).await.unwrap();
    let info = scheduler.pause_task("a").await.unwrap();
    assert_eq!((info.schedule_state, info.next_run_time()), (ScheduleState::Paused, None));
    time.advance(secs(35)).await;
    assert_eq!(ran.count("a"), 0);

    // Run now works while it is paused, and leaves the schedule alone.
    scheduler.run_task("a").await.unwrap();
    time.settle().await;
    assert_eq!(ran.of("a"), [at(35)]);
    assert_eq!(scheduler.task("a").await.unwrap().schedule_state, ScheduleState::Paused);

    let info = scheduler.resume_task("a").await.unwrap().unwrap();
    assert_eq!(info.next_run_time(), Some(at(40)), "what passed during the pause is skipped");
    time.advance(secs(5)).await;
    assert_eq!(ran.of("a"), [at(35), at(40)]);
    assert_eq!(scheduler.task("a").await.unwrap().state.runs, 2);

    // A schedule that ended during its pause is removed when it is resumed.
    scheduler.add(Task::new("note").id("once").trigger(Date::at(at(50))).paused(true)).await.unwrap();
    time.advance(secs(60)).await;
    assert_eq!(scheduler.resume_task("once").await.unwrap(), None);
    assert!(scheduler.task("once").await.unwrap_err().is_not_found());
}

#[actix::test]
async fn run_now_says_when_it_is_refused() {
    let (scheduler, time, _) = board(|b| b).await;
    scheduler
        .add(Task::new("hang").id("a").trigger(Interval::seconds(1000)).first_run(at(500)))
        .await
        .unwrap();
    scheduler.run_task("a").await.unwrap();
    let refused = scheduler.run_task("a").await.unwrap_err();
    assert!(matches!(&refused, Error::Refused { .. }), "{refused}");
    assert!(refused.to_string().contains("max_instances"), "{refused}");
    scheduler
        .send(callboard::scheduler::message::RunTask::new("a".parse().unwrap()).beyond_max_instances())
        .await
        .unwrap()
        .unwrap();
    // Their code begins on another thread.
    time.settle().await;
    assert_eq!(scheduler.task("a").await.unwrap().running, 2);
    assert!(matches!(scheduler.run_task("b").await, Err(Error::UnknownTask(_))));
    scheduler.shutdown(Shutdown::now()).await.unwrap();
    assert!(matches!(scheduler.run_task("a").await, Err(Error::NotRunning)));
    drop(time);
}

#[actix::test]
async fn changes_are_made_whole_or_not_at_all() {
    let (scheduler, time, ran) = board(|b| b).await;
    scheduler.add(every(10).id("a")).await.unwrap();
    time.advance(secs(1)).await;
    let before = scheduler.task("a").await.unwrap();
    for bad in [
        TaskChanges::new().name("new").max_instances(0),
        TaskChanges::new().name("new").executor("gpu"),
        TaskChanges::new().name("new").handler("nobody"),
        TaskChanges::new().name("new").trigger(Date::at(at(-5))),
    ] {
        scheduler.update_task("a", bad).await.unwrap_err();
        assert_eq!(scheduler.task("a").await.unwrap(), before);
    }
    let info = scheduler.update_task("a", TaskChanges::new().name("new").coalesce(false)).await.unwrap();
    assert_eq!(
        (info.spec.label(), info.spec.coalesce, info.state.next),
        ("new", Coalesce::All, before.state.next)
    );
    let info = scheduler.reschedule_task("a", Interval::seconds(100)).await.unwrap();
    assert_eq!(info.state.next.unwrap().nominal, at(100), "it counts from the latest run");
    time.advance(secs(150)).await;
    assert_eq!(ran.of("a"), [at(0), at(100)]);
    scheduler.delete_task("a").await.unwrap();
    assert!(scheduler.delete_task("a").await.unwrap_err().is_not_found());
    time.advance(secs(500)).await;
    assert_eq!(ran.count("a"), 2);
}

#[actix::test]
async fn lists_are_filtered_and_sorted() {
    let (scheduler, _, _) = board(|b| {
        b.store("default", callboard::store::MemoryStore::new()).store("spare", MemoryStore::new())
    })
    .await;
    for (id, name, start, store) in
        [("b", "Zebra", 30, "default"), ("a", "apple", 20, "spare"), ("c", "mango", 10, "default")]
    {
        scheduler.add(every(60).id(id).name(name).store(store).first_run(at(start))).await.unwrap();
    }
    scheduler.pause_task("c").await.unwrap();
    let ids = async |query: TaskQuery| -> Vec<String> {
        scheduler.tasks(query).await.unwrap().iter().map(|task| task.id().to_string()).collect()
    };
    assert_eq!(ids(TaskQuery::new()).await, ["a", "b", "c"], "by next run, paused last");
    assert_eq!(ids(TaskQuery::new().sort(SortKey::Id).descending()).await, ["c", "b", "a"]);
    assert_eq!(ids(TaskQuery::new().sort(SortKey::Name)).await, ["b", "a", "c"]);
    assert_eq!(ids(TaskQuery::new().sort(SortKey::Store)).await, ["b", "c", "a"]);
    assert_eq!(ids(TaskQuery::new().sort(SortKey::ScheduleState)).await, ["c", "a", "b"]);
    assert_eq!(ids(TaskQuery::new().store("spare")).await, ["a"]);
    assert_eq!(ids(TaskQuery::new().state(ScheduleState::Paused)).await, ["c"]);
    assert_eq!(ids(TaskQuery::new().text("ZEB")).await, ["b"]);
    assert_eq!(ids(TaskQuery::new().executor("default").text("mango")).await, ["c"]);
    let preview = scheduler.preview("a", 3).await.unwrap();
    assert_eq!(preview.iter().map(|t| t.to_utc()).collect::<Vec<_>>(), [at(20), at(60), at(120)]);
    let line = scheduler.timeline(at(65), 10).await.unwrap();
    let line: Vec<_> = line.iter().map(|(time, id)| (*time, id.as_str())).collect();
    assert_eq!(line, [(at(20), "a"), (at(30), "b"), (at(60), "a"), (at(60), "b")]);
    assert_eq!(scheduler.remove_all_tasks(Some("spare".try_into().unwrap())).await.unwrap(), 1);
    assert_eq!(scheduler.remove_all_tasks(None).await.unwrap(), 2);
    assert_eq!(ids(TaskQuery::new()).await, [""; 0]);
}

#[actix::test]
async fn events_tell_the_life_of_a_task_in_order() {
    let (scheduler, time, _) = board(|b| b).await;
    let mut events = scheduler.events(EventMask::ALL).await.unwrap();
    scheduler.add(Task::new("note").id("a").trigger(Date::at(at(5)))).await.unwrap();
    scheduler.add(Task::new("fail").id("b").trigger(Date::at(at(6)))).await.unwrap();
    scheduler.update_task("a", TaskChanges::new().name("x")).await.unwrap();
    time.advance(secs(10)).await;
    let told = heard(&mut events);
    let of = |id: &str| -> Vec<String> {
        let about = told.iter().filter(|event| event.task_id().is_some_and(|task| task.as_str() == id));
        about
            .map(|event| serde_json::to_value(event).unwrap()["event"].as_str().unwrap().to_owned())
            .collect()
    };
    let mut a = of("a");
    // The end and the removal are told by different messages; the submission comes first.
    a[3..].sort();
    assert_eq!(a, ["task_added", "task_modified", "task_submitted", "task_executed", "task_removed"]);
    assert!(of("b").contains(&"task_error".to_owned()));
    let failed = told.iter().find(|event| matches!(event, Event::TaskError(_))).unwrap();
    let json = serde_json::to_value(failed).unwrap();
    assert_eq!((json["outcome"].as_str(), json["error"].as_str()), (Some("failed"), Some("no paper")));
    drop(events);
    scheduler.shutdown(Shutdown::default()).await.unwrap();
}

#[actix::test]
async fn an_actor_can_listen_and_stop_listening() {
    #[derive(Default)]
    struct Ear(usize);
    impl Actor for Ear {
        type Context = Context<Self>;
    }
    impl Handler<Event> for Ear {
        type Result = ();
        fn handle(&mut self, _: Event, _: &mut Self::Context) {
            self.0 += 1;
        }
    }
    #[derive(Message)]
    #[rtype(result = "usize")]
    struct Count;
    impl Handler<Count> for Ear {
        type Result = usize;
        fn handle(&mut self, _: Count, _: &mut Self::Context) -> usize {
            self.0
        }
    }
    let (scheduler, time, _) = board(|b| b).await;
    let ear = Ear::default().start();
    let id = scheduler.add_listener(EventMask::TASK_EXECUTED, ear.clone().recipient()).await.unwrap();
    scheduler.add(every(1).id("a")).await.unwrap();
    time.advance(secs(9)).await;
    assert!(scheduler.remove_listener(id).await.unwrap());
    assert_eq!(ear.send(Count).await.unwrap(), 10);
    time.advance(secs(9)).await;
    assert!(!scheduler.remove_listener(id).await.unwrap());
    assert_eq!(ear.send(Count).await.unwrap(), 10);
}

#[actix::test]
async fn closures_run_from_memory() {
    let (scheduler, time, _) = board(|b| b).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    let task = Task::from_fn(move |run: TaskContext, word: String| {
        sink.lock().unwrap().push((run.nominal(), word));
        async {}
    });
    scheduler.add(task.args("hello").trigger(Interval::seconds(10))).await.unwrap();
    time.advance(secs(10)).await;
    assert_eq!(*seen.lock().unwrap(), [(at(0), "hello".to_owned()), (at(10), "hello".to_owned())]);
}

#[actix::test]
async fn a_closure_is_not_moved_to_where_it_cannot_run() {
    let pool = callboard::executor::ProcessPool::new(1);
    let here = callboard::executor::AsyncExecutor::new();
    let (scheduler, _, _) = board(|b| b.executor("default", here).executor("away", pool)).await;
    let task = Task::from_fn(|_: TaskContext, ()| async {}).trigger(Interval::seconds(10));
    scheduler.add(task.id("a")).await.unwrap();
    let moved = scheduler.update_task("a", TaskChanges::new().executor("away")).await.unwrap_err();
    assert!(
        matches!(moved, callboard::Error::Task(callboard::task::TaskError::ClosureNotPortable { .. })),
        "{moved}"
    );
    scheduler.shutdown(Shutdown::now()).await.unwrap();
}

/// What a store cannot keep is known before it is opened, and so told before the start.
#[actix::test]
async fn a_closure_for_a_store_on_disk_is_refused_before_the_start() {
    let base = tempfile::tempdir().unwrap();
    let disk = callboard::store::SledStore::open(base.path().join("store")).unwrap();
    let time = VirtualClock::starting_at(START);
    let builder = Scheduler::builder().clock(time.clock()).registry(Ran::default().registry());
    let scheduler = builder
        .store("default", callboard::store::MemoryStore::new())
        .store("disk", disk)
        .executor("default", callboard::executor::AsyncExecutor::new())
        .executor("away", callboard::executor::ProcessPool::new(1))
        .build()
        .unwrap();
    let task = || Task::from_fn(|_: TaskContext, ()| async {}).trigger(Interval::seconds(10)).id("a");
    let refused = scheduler.add(task().store("disk")).await.unwrap_err();
    assert!(
        matches!(refused, callboard::Error::Task(callboard::task::TaskError::ClosureNotStorable { .. })),
        "{refused}"
    );
    scheduler.add(task()).await.unwrap();
    let moved = scheduler.update_task("a", TaskChanges::new().executor("away")).await.unwrap_err();
    assert!(
        matches!(moved, callboard::Error::Task(callboard::task::TaskError::ClosureNotPortable { .. })),
        "{moved}"
    );
    scheduler.start().await.unwrap();
    assert_eq!(scheduler.tasks(TaskQuery::new()).await.unwrap().len(), 1, "the start goes on without it");
    scheduler.shutdown(Shutdown::now()).await.unwrap();
}
