//! Run times that are due together, and which of them run.

use callboard::task::Coalesce;

use super::*;

/// A task that was late for `seconds`, and what was told of it: nominal second, outcome, run times
/// stood for.
async fn late(seconds: u64, task: Task) -> (Vec<(i64, &'static str, u64)>, Handle, VirtualClock) {
    let (scheduler, time, _) = board(|b| b).await;
    let mut events = scheduler.events(EventMask::RUN_ENDED).await.unwrap();
    scheduler.pause().await.unwrap();
    scheduler.add(task).await.unwrap();
    time.advance(secs(seconds)).await;
    scheduler.resume().await.unwrap();
    time.settle().await;
    let told = heard(&mut events);
    let mut ends: Vec<_> = told
        .iter()
        .filter_map(Event::report)
        .map(|report| {
            let nominal = (report.run.nominal - at(0)).num_seconds();
            (nominal, report.end.outcome.word(), report.run.coalesced)
        })
        .collect();
    ends.sort();
    (ends, scheduler, time)
}

#[actix::test]
async fn the_earliest_stands_for_those_after_it() {
    let (ends, scheduler, _) = late(35, every(10).id("a").coalesce(Coalesce::Earliest)).await;
    assert_eq!(ends, [(0, "executed", 3)]);
    let info = scheduler.task("a").await.unwrap();
    assert_eq!((info.next_run_time(), info.state.fired), (Some(at(40)), 1));
}

#[actix::test]
async fn the_earliest_of_ten_years_of_seconds() {
    let ten_years: u64 = 10 * 365 * 86_400;
    let (ends, scheduler, _) = late(ten_years, every(1).id("a").coalesce(Coalesce::Earliest)).await;
    assert_eq!(ends, [(0, "executed", ten_years)]);
    assert_eq!(scheduler.task("a").await.unwrap().next_run_time(), Some(at(ten_years as i64 + 1)));
}

#[actix::test]
async fn a_window_that_closed_long_ago_is_no_long_way() {
    let year: u64 = 365 * 86_400;
    let end = at(5 * year as i64);
    let task = || every(1).id("a").max_catch_up(2).max_instances(2);
    let (ends, ..) = late(10 * year, task().end_at(end)).await;
    assert_eq!(ends, [(5 * year as i64, "executed", 5 * year)]);
    // The same for an end that only the trigger knows.
    let (ends, ..) = late(10 * year, task().trigger(Interval::seconds(1).end_at(end))).await;
    assert_eq!(ends, [(5 * year as i64, "executed", 5 * year)]);
}

#[actix::test]
async fn catching_up_goes_no_further_than_the_last_run() {
    let task = || every(10).id("a").coalesce(Coalesce::All).max_instances(10);
    let (ends, scheduler, time) = late(95, task().max_runs(3)).await;
    assert_eq!(ends, [0, 10, 20].map(|nominal| (nominal, "executed", 0)));
    assert!(scheduler.task("a").await.unwrap_err().is_not_found());
    time.advance(secs(100)).await;
    // Of those that `max_catch_up` leaves.
    let (ends, ..) = late(95, task().max_catch_up(4).max_runs(3)).await;
    assert_eq!(ends, [(0, "missed", 5), (60, "executed", 0), (70, "executed", 0), (80, "executed", 0)]);
    // One that stands for many counts once.
    let (ends, scheduler, _) = late(95, every(10).id("a").max_runs(2)).await;
    assert_eq!(ends, [(90, "executed", 9)]);
    assert_eq!(scheduler.preview("a", 5).await.unwrap().len(), 1);
}

#[actix::test]
async fn the_window_closes_on_what_is_late() {
    let (ends, ..) = late(95, every(10).id("a").start_at(at(25)).end_at(at(45))).await;
    assert_eq!(ends, [(40, "executed", 1)]);
    let all = every(10).id("a").start_at(at(25)).end_at(at(45)).coalesce(false).max_instances(9);
    let (ends, ..) = late(95, all).await;
    assert_eq!(ends, [(30, "executed", 0), (40, "executed", 0)]);
}
