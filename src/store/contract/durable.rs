//! What is there after a restart.

use super::*;
use crate::task::{Outcome, RunEnd};

/// Checks that what was acknowledged is there again. `again` makes a store on the same, at first
/// empty place each time it is called.
///
/// # Panics
/// When the store does not keep the contract, or does not say that it is durable.
pub async fn durable<S: StoreSource>(mut again: impl FnMut() -> S) {
    let subject = Subject::start(&mut again()).await;
    assert!(subject.can.durable, "the store says that it is durable");
    let [a, b, c] = [("a", 1), ("б", 2), ("c", 3)].map(|(name, due)| sample(name, at(due)));
    for task in [&a, &b, &c] {
        subject.put(task).await;
    }
    let mut change = advance(&a, Some(at(9)));
    change.runs = vec![record(&a, OWNER, 1), record(&a, OWNER, 2), record(&a, OWNER, 3)];
    subject.commit(vec![change]).await;
    let end = RunEnd::unstarted(Outcome::Cancelled, at(2));
    let ends = vec![(RunId { owner: OWNER, serial: 2 }, id("a"), end.clone())];
    ok(subject.store.finish(Finish { ends }).await, "a run is ended");
    ok(subject.store.delete(Delete { id: id("c"), revision: None }).await, "a task is deleted");
    let paused = changed(&b, |_, state| state.paused = true);
    ok(subject.store.put(Put { task: paused, expect: Expect::Revision(1) }).await, "a task is paused");
    ok(subject.store.keep_rules(KeepRules(rules(7))).await, "rules are kept");
    let before = subject.list().await;
    // Without `Close`, as when the process is killed.
    subject.abandon().await;

    let next = OwnerId(OWNER.0 + (1 << 32));
    let subject = Subject::start_as(&mut again(), next).await;
    assert_eq!(subject.list().await, before, "what was acknowledged is there");
    assert_eq!(subject.opened.next_due, Some(at(9)), "what is due is known");
    assert!(
        subject.opened.rules.as_ref().is_none_or(|kept| *kept == rules(7)),
        "rules that are kept are known"
    );
    assert_eq!(subject.take(at(9), 9).await.0, ["a"]);
    let mut interrupted: Vec<_> = subject.opened.interrupted.iter().map(|run| run.id.serial).collect();
    interrupted.sort_unstable();
    assert_eq!(interrupted, [1, 3], "runs that never ended are reported");
    for run in &subject.opened.interrupted {
        let end = run.end.as_ref().unwrap_or_else(|| panic!("an interrupted run has an end"));
        assert!(matches!(end.outcome, Outcome::Interrupted { .. }) && end.ended_at == start());
    }
    let runs = subject.runs("a", 9).await;
    assert_eq!(runs.iter().map(|run| run.id.serial).collect::<Vec<_>>(), [3, 2, 1]);
    assert!(runs.iter().all(|run| run.end.is_some()), "and recorded as interrupted");
    assert_eq!(runs.get(1).and_then(|run| run.end.clone()), Some(end), "an end stays as it was");
    let mut change = advance(&before[0], Some(at(10)));
    change.runs = vec![record(&before[0], next, 1)];
    subject.commit(vec![change]).await;
    let opened = ok(subject.store.open(Open { owner: next, now: at(3) }).await, "it is opened again");
    assert!(opened.interrupted.is_empty(), "the runs of the living are not interrupted");
    subject.close().await;

    let subject = Subject::start_as(&mut again(), OwnerId(next.0 + 1)).await;
    assert_eq!(subject.opened.interrupted.len(), 1, "a run is interrupted once");
    assert_eq!(ok(subject.store.remove_all(RemoveAll).await, "all tasks are removed"), 2);
    subject.abandon().await;
    let subject = Subject::start(&mut again()).await;
    assert_eq!(subject.list().await, [], "what was removed stays removed");
    assert_eq!(subject.runs("a", 9).await.len(), 4, "the records are still there");
    subject.close().await;
}
