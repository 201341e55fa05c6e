//! Policies of one task together: whatever they make of it, each run time has one outcome, and
//! nothing is left over.

use callboard::backoff::Backoff;
use callboard::task::{Coalesce, MisfireGrace, Overlap, Retry, RunId, Source, TaskChanges, WhenFinished};
use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
struct Play {
    handler: &'static str,
    seconds: u64,
    overlap: Overlap,
    max_instances: u32,
    timeout: Option<u64>,
    retry: Option<u32>,
    max_runs: Option<u64>,
    end: Option<i64>,
    coalesce: Coalesce,
    grace: Option<u64>,
    steps: Vec<Step>,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Advance(u64),
    /// Nothing begins for so long: what is due meanwhile is late.
    Stall(u64),
    /// Cancels the latest run but so many.
    Cancel(usize),
    RunNow,
    Backfill,
    Overlap(Overlap),
}

fn overlap() -> impl Strategy<Value = Overlap> {
    prop_oneof![
        Just(Overlap::Skip),
        (1..4u32).prop_map(Overlap::Queue),
        Just(Overlap::CancelRunning),
        Just(Overlap::Allow),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..60u64).prop_map(Step::Advance),
        2 => (1..120u64).prop_map(Step::Stall),
        2 => (0..4usize).prop_map(Step::Cancel),
        1 => Just(Step::RunNow),
        1 => Just(Step::Backfill),
        1 => overlap().prop_map(Step::Overlap),
    ]
}

fn play() -> impl Strategy<Value = Play> {
    let what = (prop_oneof![Just("nap"), Just("flaky")], 0..40u64, overlap(), 1..3u32);
    let limits = (
        prop::option::of(3..30u64),
        prop::option::of(1..4u32),
        prop::option::of(1..9u64),
        prop::option::of(20..200i64),
    );
    let late = (
        prop_oneof![Just(Coalesce::Latest), Just(Coalesce::Earliest), Just(Coalesce::All)],
        prop::option::of(1..30u64),
    );
    (what, limits, late, prop::collection::vec(step(), 1..25)).prop_map(
        |(
            (handler, seconds, overlap, max_instances),
            (timeout, retry, max_runs, end),
            (coalesce, grace),
            steps,
        )| {
            Play {
                handler,
                seconds,
                overlap,
                max_instances,
                timeout,
                retry,
                max_runs,
                end,
                coalesce,
                grace,
                steps,
            }
        },
    )
}

async fn perform(play: Play) {
    let (scheduler, time, _) = board(|b| b).await;
    let mut events = scheduler.events(EventMask::ALL).await.unwrap();
    let argument = if play.handler == "nap" { play.seconds } else { 1 + play.seconds % 4 };
    let mut task = Task::new(play.handler)
        .args(argument)
        .id("a")
        .trigger(Interval::seconds(10))
        .first_run(at(0))
        .overlap(play.overlap)
        .max_instances(play.max_instances)
        .coalesce(play.coalesce)
        .max_catch_up(3)
        .when_finished(WhenFinished::Keep)
        .timeout(play.timeout.map(secs))
        .retry(play.retry.map(|times| Retry::times(times).backoff(Backoff::fixed(secs(4)))))
        .max_runs(play.max_runs)
        .end_at(play.end.map(at));
    if let Some(grace) = play.grace {
        task = task.misfire_grace(MisfireGrace::from(secs(grace)));
    }
    scheduler.add(task).await.unwrap();
    let (mut told, mut filled) = (Vec::new(), 0);
    for step in &play.steps {
        match *step {
            Step::Advance(seconds) => time.advance(secs(seconds)).await,
            Step::Stall(seconds) => {
                scheduler.pause().await.unwrap();
                time.advance(secs(seconds)).await;
                scheduler.resume().await.unwrap();
            }
            Step::Cancel(back) => {
                let run = submitted(&told).into_iter().rev().nth(back);
                if let Some(run) = run {
                    scheduler.cancel_run(run).await.unwrap();
                }
            }
            Step::RunNow => drop(scheduler.run_task("a").await),
            Step::Backfill => {
                // Another window each time.
                let end = at(-5 - 50 * filled);
                let begun = scheduler.backfill("a", end - chrono::TimeDelta::seconds(40), end, secs(3)).await;
                filled += i64::from(begun.is_ok());
            }
            Step::Overlap(overlap) => {
                scheduler.update_task("a", TaskChanges::new().overlap(overlap)).await.unwrap();
            }
        }
        time.settle().await;
        told.extend(heard(&mut events));
    }
    // What is due has its run, and then nothing more comes.
    time.settle().await;
    let last = (time.clock().now() - at(0)).num_seconds();
    scheduler.pause_task("a").await.unwrap();
    time.advance(secs(10_000)).await;
    told.extend(heard(&mut events));
    // Attempts that wait have their turn, and nothing new.
    let over = TaskChanges::new().end_at(at(play.end.unwrap_or(i64::MAX).min(last)));
    scheduler.update_task("a", over).await.unwrap();
    scheduler.resume_task("a").await.unwrap();
    time.advance(secs(10_000)).await;
    told.extend(heard(&mut events));
    account(&play, &told, last);
    assert_eq!(scheduler.status().await.unwrap().running, 0);
    let info = scheduler.task("a").await.unwrap();
    assert_eq!((info.running, info.state.attempts.len()), (0, 0), "{info:?}");
}

fn submitted(told: &[Event]) -> Vec<RunId> {
    told.iter()
        .filter_map(|event| match event {
            Event::TaskSubmitted(fact) => Some(fact.0.id),
            _ => None,
        })
        .collect()
}

fn account(play: &Play, told: &[Event], last: i64) {
    let reports: Vec<_> = told.iter().filter_map(Event::report).collect();
    // Each run ends once.
    let mut ended = BTreeMap::new();
    for report in &reports {
        *ended.entry(report.run.id).or_insert(0) += 1;
    }
    assert!(ended.values().all(|times| *times == 1), "{told:#?}");
    assert!(submitted(told).iter().all(|run| ended.contains_key(run)), "{told:#?}");
    // Each run time ends once for good, after as many attempts as its number says.
    let mut chains: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for report in &reports {
        // Two by hand may share a moment.
        if report.run.source != Source::Manual {
            let chain = chains.entry((report.run.source as u8, report.run.nominal)).or_default();
            chain.push((report.run.attempt, report.end.retry_at.is_some()));
        }
    }
    for (key, chain) in &chains {
        let wanted: Vec<_> = (1..=chain.len() as u32).map(|n| (n, n < chain.len() as u32)).collect();
        assert_eq!(*chain, wanted, "{key:?}: {told:#?}");
        assert!(chain.len() <= 1 + play.retry.unwrap_or(0) as usize, "{told:#?}");
    }
    // And no run time is left out, or told of twice.
    let mut covered = Vec::new();
    for report in reports.iter().filter(|r| r.run.source == Source::Scheduled && r.end.retry_at.is_none()) {
        let nominal = (report.run.nominal - at(0)).num_seconds() / 10;
        let others = report.run.coalesced as i64;
        let backwards = play.coalesce == Coalesce::Latest;
        covered.extend(if backwards { nominal - others..=nominal } else { nominal..=nominal + others });
    }
    covered.sort();
    let most = play.end.unwrap_or(i64::MAX).min(last) / 10;
    if play.max_runs.is_none() {
        assert_eq!(covered, (0..=most).collect::<Vec<_>>(), "{play:?}: {told:#?}");
    } else {
        let upto = covered.last().copied().unwrap_or(-1);
        assert!(upto <= most, "{told:#?}");
        assert_eq!(covered, (0..=upto).collect::<Vec<_>>(), "{play:?}: {told:#?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn whatever_the_policies_each_run_time_has_one_outcome(play in play()) {
        System::new().block_on(perform(play));
    }
}
