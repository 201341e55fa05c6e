//! Run records.

use super::*;
use crate::task::{Outcome, RunEnd, Span};

pub(super) async fn runs_are_recorded_and_ended(subject: &Subject) {
    let mut task = sample("a", at(0));
    subject.put(&task).await;
    subject.put(&sample("a b", at(0))).await;
    let mut records = Vec::new();
    for serial in 1..=5 {
        let record = record(&task, OWNER, serial);
        let mut change = advance(&task, Some(at(serial as i64)));
        change.runs = vec![record.clone()];
        let then = change.then.clone();
        assert_eq!(subject.commit(vec![change]).await.refused, [0; 0]);
        if let Then::State(state) = then {
            task.state = state;
        }
        records.insert(0, record);
    }
    if !subject.can.keeps_records() {
        assert_eq!(subject.runs("a", 9).await, [], "a store that keeps no records has none");
        return;
    }
    assert_eq!(subject.runs("a", 9).await, records, "newest first");
    assert_eq!(subject.runs("a", 2).await, records[..2], "at most as many as asked for");
    assert_eq!(subject.runs("a b", 9).await, [], "each task has its own");
    let ends = [
        Outcome::Executed { value: serde_json::json!({ "sent": 3 }) },
        Outcome::Failed { error: "outer: inner".to_owned() },
        Outcome::Missed { late_ms: 12 },
    ];
    let mut finish = Vec::new();
    for (record, outcome) in records.iter_mut().zip(ends) {
        let duration = std::time::Duration::from_nanos(1_500_000_001);
        let end = RunEnd { started_at: Some(at(10)), duration, ..RunEnd::unstarted(outcome, at(11)) };
        record.end = Some(end.clone());
        finish.push((record.id, record.task.clone(), end));
    }
    let stranger = RunId { owner: OWNER, serial: 99 };
    finish.push((stranger, id("a"), RunEnd::unstarted(Outcome::Cancelled, at(3))));
    ok(subject.store.finish(Finish { ends: finish }).await, "runs are ended, unknown ones ignored");
    assert_eq!(subject.runs("a", 9).await, records, "a run has its end");
    let mut ended = record(&task, OWNER, 6);
    ended.end = Some(RunEnd::unstarted(Outcome::Coalesced { into: at(9) }, at(9)));
    let mut change = advance(&task, None);
    change.runs = vec![ended.clone()];
    change.revision = 1;
    assert_eq!(subject.commit(vec![change.clone()]).await.refused, [0]);
    assert_eq!(subject.runs("a", 9).await, records, "a refused change leaves no records");
    change.revision = task.state.revision;
    change.then = Then::Remove;
    subject.commit(vec![change]).await;
    records.insert(0, ended);
    assert_eq!(subject.runs("a", 9).await, records, "the records of a removed task stay");
}

pub(super) async fn records_are_found_by_their_run_times(subject: &Subject) {
    let task = sample("a", at(0));
    subject.put(&task).await;
    let find = |from, to, limit| FindRuns { id: id("a"), from: at(from), to: at(to), limit };
    let nothing = ok(subject.store.find_runs(find(0, 99, 9)).await, "a task without runs is asked for");
    assert_eq!((nothing.runs, nothing.oldest), (Vec::new(), None), "a task without runs has none");
    let mut records: Vec<_> = (1..=6).map(|serial| record(&task, OWNER, serial)).collect();
    for (record, second) in records.iter_mut().zip([10, 20, 30, 15, 40, 50]) {
        record.nominal = at(second);
        record.submitted_at = at(100 + record.id.serial as i64);
    }
    // The fourth fills in what was before; the fifth stands for what lies between.
    let [first, second, third, fourth, fifth, sixth] = [0, 1, 2, 3, 4, 5];
    records[fifth].span = Some(Span { from: at(32), until: at(40) });
    let mut change = advance(&task, Some(at(60)));
    change.runs = records.clone();
    subject.commit(vec![change]).await;
    if !subject.can.keeps_records() {
        let found = ok(subject.store.find_runs(find(0, 99, 9)).await, "a store without records answers");
        assert_eq!((found.runs, found.oldest), (Vec::new(), None), "a store that keeps no records has none");
        return;
    }
    let oldest = Some(records[first].submitted_at);
    for (from, to, expected) in [
        (0, 99, vec![first, second, third, fourth, fifth, sixth]),
        (10, 15, vec![first, fourth]),
        (16, 29, vec![second]),
        (33, 35, vec![fifth]),
        (31, 31, vec![]),
        (39, 50, vec![fifth, sixth]),
        (51, 99, vec![]),
    ] {
        let found = ok(subject.store.find_runs(find(from, to, 9)).await, "records are looked for");
        let expected: Vec<_> = expected.into_iter().map(|index| records[index].clone()).collect();
        assert_eq!(found.runs, expected, "those that concern {from} to {to}, by id");
        assert!(found.rest.is_none() && found.oldest == oldest, "{from} to {to}: {found:?}");
    }
    let found = ok(subject.store.find_runs(find(0, 45, 2)).await, "few records are looked for");
    assert_eq!(found.runs, [first, fourth].map(|index| records[index].clone()), "the earliest run times");
    assert_eq!(found.rest, Some(at(20)), "and where those begin that were left out");
    let other = FindRuns { id: id("a b"), ..find(0, 99, 9) };
    let found = ok(subject.store.find_runs(other).await, "another task is asked for");
    assert_eq!(found.runs, [], "each task has its own");
}

pub(super) async fn the_latest_records_and_failures_of_a_task_stay(subject: &Subject) {
    if !subject.can.keeps_records() {
        return;
    }
    let mut task = sample("a", at(0));
    subject.put(&task).await;
    let mut all = Vec::new();
    for serial in 1..=60 {
        let outcome = match serial {
            ..=20 => Outcome::Failed { error: "on purpose".to_owned() },
            _ => Outcome::Executed { value: serde_json::Value::Null },
        };
        let end = Some(RunEnd::unstarted(outcome, at(serial as i64)));
        let record = RunRecord { end, ..record(&task, OWNER, serial) };
        all.insert(0, record.clone());
        let mut change = advance(&task, Some(at(serial as i64)));
        change.runs = vec![record];
        let then = change.then.clone();
        subject.commit(vec![change]).await;
        if let Then::State(state) = then {
            task.state = state;
        }
    }
    let kept = subject.runs("a", 100).await;
    assert_eq!(kept.get(..20), all.get(..20), "the latest 20 records stay");
    let failed = |records: &[RunRecord]| -> Vec<RunRecord> {
        records.iter().filter(|record| record.id.serial <= 20).cloned().collect()
    };
    assert_eq!(failed(&kept), failed(&all), "and so do the latest 20 of runs that failed");
}
