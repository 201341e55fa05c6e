//! Triggers that take much work: what is worked out about one task has an end, and others have their turn.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use callboard::executor::DebugExecutor;
use callboard::scheduler::message::{Preview, Timeline, Why};
use callboard::task::TaskQuery;
use callboard::trigger::{
    And, Context, Custom, CustomTrigger, Except, Interval, IntoTrigger, Or, SearchErrorKind, Trigger,
};
use chrono::TimeDelta;

use super::*;

/// How far apart the run times of [`rare`] are.
const RARE: i64 = 20_000;

/// The steps of one answer, and of the search that is the last of them.
const MOST: u64 = 11_000_000;

/// How often a trigger was asked.
#[derive(Debug, Clone, Default)]
struct Asked {
    count: Arc<AtomicU64>,
    looks: Arc<Mutex<Vec<u64>>>,
}

impl Asked {
    fn count(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
    }

    /// How often since this was asked for last.
    fn take(&self) -> u64 {
        self.count.swap(0, Ordering::SeqCst)
    }

    /// Notes how often since it was noted last.
    fn look(&self) {
        self.looks.lock().unwrap().push(self.take());
    }
}

/// All milliseconds but those of every twentieth second.
#[derive(Debug)]
struct AllBut(Asked);

impl CustomTrigger for AllBut {
    fn next(
        &self,
        _: &serde_json::Value,
        from: DateTime<Utc>,
        _: &Context<'_>,
    ) -> Result<Option<DateTime<Utc>>, String> {
        self.0.count();
        let millis = (from + TimeDelta::nanoseconds(999_999)).timestamp_millis();
        Ok(DateTime::from_timestamp_millis(millis + i64::from(millis % RARE == 0)))
    }
}

/// Each even millisecond.
#[derive(Debug)]
struct Even(Asked);

impl CustomTrigger for Even {
    fn next(
        &self,
        _: &serde_json::Value,
        from: DateTime<Utc>,
        _: &Context<'_>,
    ) -> Result<Option<DateTime<Utc>>, String> {
        self.0.count();
        let millis = (from + TimeDelta::nanoseconds(999_999)).timestamp_millis();
        Ok(DateTime::from_timestamp_millis(millis + millis % 2))
    }
}

/// Each millisecond but those: a search walks through 20,000 to find one that is left.
fn rare() -> Trigger {
    let all_but = Custom::new("all_but", serde_json::Value::Null);
    Except::of(Interval::every(Duration::from_millis(1)).start_at(at(0)))
        .trigger(all_but)
        .into_trigger()
        .unwrap()
}

async fn stage() -> (Handle, VirtualClock, Ran, Asked) {
    let time = VirtualClock::starting_at(START);
    let (ran, asked) = (Ran::default(), Asked::default());
    let registry = ran.registry().register_trigger("all_but", AllBut(asked.clone()));
    let seen = asked.clone();
    let registry = registry.register("look", move |_: TaskContext, ()| {
        seen.look();
        async {}
    });
    let scheduler = Scheduler::builder()
        .clock(time.clock())
        .registry(registry)
        .executor("inline", DebugExecutor)
        .start()
        .await
        .unwrap();
    (scheduler, time, ran, asked)
}

fn is_limit(error: &Error) -> bool {
    let said = error.to_string();
    matches!(error, Error::Search { source, .. } if source.kind == SearchErrorKind::Limit)
        && said.contains("ask for fewer")
}

#[actix::test]
async fn an_answer_that_takes_too_much_work_is_refused_and_a_smaller_one_is_given() {
    let (scheduler, _time, _ran, asked) = stage().await;
    let id: TaskId = "rare".parse().unwrap();
    scheduler.add(Task::new("note").id("rare").trigger(rare()).paused(true)).await.unwrap();
    let preview = |count| scheduler.send(Preview::new(id.clone(), count));
    let times = preview(5).await.unwrap().unwrap();
    assert_eq!(times[4].to_utc(), at(80));
    asked.take();
    assert!(is_limit(&preview(10_000).await.unwrap().unwrap_err()));
    assert!(asked.take() <= MOST, "a preview");
    let why = |until| scheduler.send(Why::new(id.clone(), at(0), until, 1000));
    assert_eq!(why(at(60)).await.unwrap().unwrap().times.len(), 4);
    asked.take();
    assert!(is_limit(&why(at(1_000_000)).await.unwrap().unwrap_err()));
    assert!(asked.take() <= MOST, "an account");
    scheduler.resume_task("rare").await.unwrap();
    let timeline = |limit| scheduler.send(Timeline { query: TaskQuery::new(), until: at(1_000_000), limit });
    assert_eq!(timeline(3).await.unwrap().unwrap().len(), 3);
    asked.take();
    assert!(is_limit(&timeline(10_000).await.unwrap().unwrap_err()));
    assert!(asked.take() <= MOST, "a timeline");
    scheduler.shutdown(Shutdown::now()).await.unwrap();
}

/// A week of such a trigger is 30,000 run times, of a billion steps.
#[actix::test]
async fn a_backlog_that_takes_too_much_work_is_one_run_and_the_schedule_goes_on() {
    let (scheduler, time, ran, asked) = stage().await;
    for coalesce in [true, false] {
        let id = format!("rare {coalesce}");
        let task = Task::new("note").trigger(rare()).coalesce(coalesce).max_catch_up(3).max_instances(3);
        scheduler.add(task.id(id.as_str())).await.unwrap();
    }
    scheduler.add(every(3600).id("plain")).await.unwrap();
    time.advance(secs(1)).await;
    asked.take();
    time.set(at(7 * 86_400 + 5)).await;
    let steps = asked.take();
    assert!(steps < 10_000_000, "{steps}");
    assert_eq!(ran.of("plain"), [at(0), at(7 * 86_400)]);
    assert_eq!((ran.count("rare true"), ran.count("rare false")), (2, 4));
    for id in ["rare true", "rare false"] {
        let next = scheduler.task(id).await.unwrap().next_run_time().unwrap();
        assert_eq!(next, at(7 * 86_400 + 20), "{id}");
    }
    time.advance(secs(20)).await;
    assert_eq!((ran.count("rare true"), ran.count("rare false")), (3, 5));
    scheduler.shutdown(Shutdown::now()).await.unwrap();
}

/// Ten hours of seconds of a hundred tasks are more than one turn works off: none is lost or runs twice.
#[actix::test]
async fn a_large_backlog_of_many_tasks_is_dealt_with_turn_by_turn() {
    const TASKS: usize = 100;
    let (scheduler, time, ran, _) = stage().await;
    for index in 0..TASKS {
        let task = Task::new("note").id(format!("t{index}")).trigger("* * * * * *");
        scheduler.add(task).await.unwrap();
    }
    time.advance(secs(1)).await;
    let before: Vec<_> = (0..TASKS).map(|index| ran.count(&format!("t{index}"))).collect();
    let now = at(36_000);
    time.set(now).await;
    for (index, before) in before.into_iter().enumerate() {
        let runs = ran.of(&format!("t{index}"));
        assert_eq!((runs.len(), runs.last()), (before + 1, Some(&now)), "t{index}");
        assert_eq!(
            scheduler.task(format!("t{index}").as_str()).await.unwrap().next_run_time(),
            Some(at(36_001))
        );
    }
    scheduler.shutdown(Shutdown::now()).await.unwrap();
}

/// The run of the first of many such backlogs does not wait for the others to be worked out.
#[actix::test]
async fn while_many_backlogs_are_worked_off_runs_begin() {
    const TASKS: u64 = 8;
    let (scheduler, time, _ran, asked) = stage().await;
    for index in 0..TASKS {
        let task = Task::new("look").trigger(rare()).executor("inline");
        scheduler.add(task.id(format!("t{index}"))).await.unwrap();
    }
    time.advance(secs(1)).await;
    asked.take();
    asked.looks.lock().unwrap().clear();
    time.set(at(86_405)).await;
    let steps = asked.looks.lock().unwrap().clone();
    assert_eq!(steps.len() as u64, TASKS);
    let all = steps.iter().sum::<u64>();
    // Each took its share, and none that of two.
    assert!(all > TASKS * 250_000, "{steps:?}");
    assert!(steps.iter().all(|steps| *steps * TASKS < all * 2), "{steps:?}");
    scheduler.shutdown(Shutdown::now()).await.unwrap();
}

/// Each millisecond two of nine hundred parts agree on nothing: what one step asks counts.
#[actix::test]
async fn a_search_counts_the_parts_that_it_asks() {
    let asked = Asked::default();
    let even = Custom::new("even", serde_json::Value::Null).with(Arc::new(Even(asked.clone())));
    let odd = Interval::every(Duration::from_millis(2)).start_at(at(0) + TimeDelta::milliseconds(1));
    let other =
        Interval::every(Duration::from_millis(3_602_500)).start_at(at(1) + TimeDelta::microseconds(500));
    let many = (1..900).fold(Or::of(even.clone()), |or, _| or.or(even.clone()));
    let trigger = And::of(many).and(Or::of(odd).or(other)).into_trigger().unwrap();
    let cx = Context::new(chrono_tz::UTC, at(0), "x");
    assert_eq!(trigger.next(at(0), &cx).unwrap_err().kind, SearchErrorKind::Limit);
    let steps = asked.take();
    assert!((900_000..=1_000_000).contains(&steps), "{steps}");
}

#[actix::test]
async fn a_length_below_a_millisecond_is_refused_wherever_it_stands() {
    let (scheduler, _time, _ran, _) = stage().await;
    let nano = r#"{"type":"interval","seconds":1e-9}"#;
    let jitter = |kind: &str| format!(r#"{{"type":{kind},"jitter":0.0005}}"#);
    let mut refused = vec![
        nano.to_owned(),
        format!(r#"{{"type":"or","triggers":[{{"type":"interval","hours":1}},{nano}]}}"#),
        format!(r#"{{"type":"and","triggers":[{nano}]}}"#),
        format!(r#"{{"type":"except","trigger":{nano}}}"#),
        format!(r#"{{"type":"except","trigger":{{"type":"interval","hours":1}},"triggers":[{nano}]}}"#),
    ];
    let kinds = [
        r#""interval","hours":1"#,
        r#""cron","minute":5"#,
        r#""crontab","expression":"5 * * * *""#,
        r#""quartz","expression":"0 5 * * * ?""#,
        r#""calendar_interval","days":1"#,
    ];
    refused.extend(kinds.map(jitter));
    refused.push(format!(r#"{{"type":"or","triggers":[{}]}}"#, jitter(kinds[0])));
    for json in refused {
        // As it may be stored it can be read; handed in anew it is refused.
        let trigger: Trigger = serde_json::from_str(&json).unwrap();
        let error = scheduler.add(Task::new("note").trigger(trigger)).await;
        let error = error.expect_err(&json).to_string();
        assert!(error.contains("1ms"), "{json}: {error}");
    }
    let least = r#"{"type":"interval","seconds":0.001,"jitter":0.001}"#;
    let trigger: Trigger = serde_json::from_str(least).unwrap();
    scheduler.add(Task::new("note").trigger(trigger).paused(true)).await.unwrap();
    scheduler.shutdown(Shutdown::now()).await.unwrap();
}
