//! Runs that could not start on time.

use super::*;

async fn paused_for(seconds: u64, task: Task) -> (Handle, VirtualClock, Ran, EventStream) {
    let (scheduler, time, ran) = board(|b| b).await;
    let events = scheduler.events(EventMask::RUN_ENDED).await.unwrap();
    scheduler.pause().await.unwrap();
    scheduler.add(task).await.unwrap();
    time.advance(secs(seconds)).await;
    scheduler.resume().await.unwrap();
    time.advance(Duration::ZERO).await;
    (scheduler, time, ran, events)
}

#[actix::test]
async fn what_is_due_together_runs_once_by_default() {
    let (scheduler, time, ran, mut events) = paused_for(95, every(10).id("a")).await;
    assert_eq!(ran.of("a"), [at(90)]);
    let told = heard(&mut events);
    let [Event::TaskExecuted(report)] = &told[..] else { panic!("{told:?}") };
    assert_eq!((report.run.coalesced, report.lateness().num_seconds()), (9, 5));
    time.advance(secs(10)).await;
    assert_eq!(ran.of("a"), [at(90), at(100)]);
    drop(scheduler);
}

#[actix::test]
async fn without_coalescing_the_latest_run_and_the_rest_is_missed_and_counted() {
    let task = every(10).id("a").coalesce(false).max_catch_up(3).max_instances(10);
    let (scheduler, _, ran, mut events) = paused_for(95, task).await;
    assert_eq!(ran.of("a"), [at(70), at(80), at(90)]);
    let missed: Vec<_> = heard(&mut events)
        .into_iter()
        .filter_map(|event| match event {
            Event::TaskMissed(report) => Some((report.run.nominal, report.run.coalesced)),
            _ => None,
        })
        .collect();
    assert_eq!(missed, [(at(0), 6)], "seven run times: the first, and six more");
    drop(scheduler);
}

#[actix::test]
async fn the_misfire_grace_is_judged_at_the_start() {
    let grace = |seconds| every(10).id("a").misfire_grace(secs(seconds));
    let (_scheduler, _, ran, mut events) = paused_for(95, grace(4)).await;
    assert_eq!(ran.count("a"), 0);
    let told = heard(&mut events);
    let [Event::TaskMissed(report)] = &told[..] else { panic!("{told:?}") };
    assert_eq!(report.end.outcome, Outcome::Missed { late_ms: 5000 });
    let (_scheduler, _, ran, _) = paused_for(95, grace(5)).await;
    assert_eq!(ran.count("a"), 1);
}

#[actix::test]
async fn ten_years_of_seconds_are_dealt_with_at_once() {
    let ten_years: u64 = 10 * 365 * 86_400;
    let (_scheduler, _, ran, mut events) = paused_for(ten_years, every(1).id("a")).await;
    assert_eq!(ran.of("a"), [at(ten_years as i64)]);
    let told = heard(&mut events);
    let [Event::TaskExecuted(report)] = &told[..] else { panic!("{told:?}") };
    assert_eq!(report.run.coalesced, ten_years);

    let task = every(1).id("a").coalesce(false).max_catch_up(50).max_instances(50);
    let (_scheduler, _, ran, mut events) = paused_for(ten_years, task).await;
    assert_eq!(ran.count("a"), 50);
    let missed = heard(&mut events).into_iter().find_map(|event| match event {
        Event::TaskMissed(report) => Some(report.run.coalesced + 1),
        _ => None,
    });
    assert_eq!(missed, Some(ten_years + 1 - 50), "every run time is accounted for");
}

#[actix::test]
async fn max_instances_refuses_and_tells() {
    let (scheduler, time, _) = board(|b| b).await;
    let mut events = scheduler.events(EventMask::RUN_ENDED).await.unwrap();
    scheduler.add(Task::new("nap").args(25).id("a").trigger(Interval::seconds(10))).await.unwrap();
    time.advance(secs(60)).await;
    let words: Vec<_> =
        heard(&mut events).iter().map(|event| event.report().unwrap().end.outcome.word()).collect();
    // Starts at 0 and 30 run for 25 s; what is due meanwhile is refused; the one at 60 still runs.
    assert_eq!(words, ["refused", "refused", "executed", "refused", "refused", "executed"]);
}

#[actix::test]
async fn a_clock_that_is_set_neither_doubles_nor_stalls() {
    let (scheduler, time, ran) = board(|b| b).await;
    let mut events = scheduler.events(EventMask::CLOCK_JUMPED).await.unwrap();
    scheduler.add(every(10).id("a")).await.unwrap();
    time.advance(secs(25)).await;
    time.set(at(5)).await;
    assert_eq!(ran.of("a"), [at(0), at(10), at(20)]);
    time.advance(secs(30)).await;
    assert_eq!(ran.of("a"), [at(0), at(10), at(20), at(30)], "no run time twice");
    time.set(at(1000)).await;
    assert_eq!(ran.of("a").last(), Some(&at(1000)), "forward is an ordinary misfire");
    let jumps: Vec<_> = heard(&mut events)
        .into_iter()
        .map(|event| match event {
            Event::ClockJumped { by_ms } => by_ms / 1000,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(jumps, [-20, 965]);
}

#[actix::test]
async fn a_run_that_sleeps_sleeps_in_elapsed_time() {
    let (scheduler, time, _) = board(|b| b).await;
    let mut events = scheduler.events(EventMask::RUN_ENDED).await.unwrap();
    scheduler.add(Task::new("nap").args(60).id("a").trigger(Date::at(at(0)))).await.unwrap();
    time.advance(secs(10)).await;
    time.set(at(-3600)).await;
    time.advance(secs(49)).await;
    assert!(heard(&mut events).is_empty());
    time.advance(secs(1)).await;
    let told = heard(&mut events);
    let [Event::TaskExecuted(report)] = &told[..] else { panic!("{told:?}") };
    assert_eq!(report.duration(), secs(60));
}
