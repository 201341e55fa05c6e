//! Run records.

use super::*;
use crate::task::{Outcome, RunEnd};

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
    if !subject.can.durable {
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
