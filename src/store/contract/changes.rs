//! One task at a time: put, get, delete, list.

use futures::future::join_all;

use super::*;
use crate::task::{Handler, MisfireGrace, Task};

pub(super) async fn a_task_is_found_as_it_was_put(subject: &Subject) {
    let names = ["a", "день выплат 💰", "a\u{301}", "\u{1d518}/../.. %s'\"\\", &"ü".repeat(127)];
    for (index, name) in names.into_iter().enumerate() {
        let mut task = sample(name, at(index as i64));
        task.state.last_run = DateTime::from_timestamp(-62_135_596_800 + 7, 999_999_999);
        task.state.created_at = DateTime::from_timestamp(4_102_444_800, 123_456_789).unwrap_or_default();
        task.state.runs = u64::MAX;
        task.state.paused = index % 2 == 1;
        let task = changed(&task, |spec, _| {
            spec.misfire_grace = MisfireGrace::Within(std::time::Duration::from_millis(1500));
            spec.userdata = serde_json::json!({ "deep": [1, 0.1, null, { "": "\u{0}" }] });
        });
        subject.put(&task).await;
        assert_eq!(subject.get(name).await.as_ref(), Some(&task), "a task is found as it was put");
    }
    assert_eq!(subject.get("á").await, None, "ids are compared byte by byte");
    assert_eq!(subject.list().await.len(), names.len());
}

pub(super) async fn what_is_expected_must_be_there(subject: &Subject) {
    let first = sample("a", at(5));
    let second = changed(&first, |_, state| state.paused = true);
    let put = |task: &StoredTask, expect| subject.store.put(Put { task: task.clone(), expect });
    let refused = put(&second, Expect::Revision(1)).await;
    assert!(matches!(refused, Err(StoreError::NotFound(_))), "there is nothing to replace: {refused:?}");
    subject.put(&first).await;
    let refused = put(&second, Expect::Absent).await;
    assert!(matches!(refused, Err(StoreError::Exists(_))), "a new task must be new: {refused:?}");
    let refused = put(&second, Expect::Revision(2)).await;
    assert!(matches!(refused, Err(StoreError::Changed(_))), "the revision must be there: {refused:?}");
    assert_eq!(subject.get("a").await, Some(first), "a refused change changes nothing");
    ok(put(&second, Expect::Revision(1)).await, "a task is replaced at its revision");
    assert_eq!(subject.get("a").await, Some(second));
}

pub(super) async fn a_task_is_deleted_at_its_revision(subject: &Subject) {
    let task = sample("a", at(5));
    subject.put(&task).await;
    let delete = |revision| subject.store.delete(Delete { id: id("a"), revision });
    let refused = delete(Some(7)).await;
    assert!(matches!(refused, Err(StoreError::Changed(_))), "another revision is refused: {refused:?}");
    assert_eq!(ok(delete(Some(1)).await, "a task is deleted"), task, "a deleted task is given back");
    assert_eq!(subject.get("a").await, None);
    for revision in [None, Some(1)] {
        let refused = delete(revision).await;
        assert!(matches!(refused, Err(StoreError::NotFound(_))), "it is gone: {refused:?}");
    }
    assert_eq!(subject.next_due().await, None, "a deleted task is not due");
    subject.put(&task).await;
    assert_eq!(ok(delete(None).await, "a task is deleted at any revision"), task);
}

pub(super) async fn all_tasks_are_listed_in_order(subject: &Subject) {
    let mut tasks = vec![sample("z", at(1)), sample("m", at(2)), sample("b", at(3)), sample("c", at(3))];
    let mut paused = sample("a", at(0));
    paused.state.paused = true;
    let mut done = sample("d", at(0));
    done.state.next = None;
    tasks.extend([paused, done]);
    for task in tasks.iter().rev() {
        subject.put(task).await;
    }
    assert_eq!(subject.list().await, tasks, "by due time, those without one last, by id among equals");
}

pub(super) async fn all_tasks_are_removed(subject: &Subject) {
    for index in 0..20 {
        subject.put(&sample(&format!("task {index}"), at(index))).await;
    }
    let removed = ok(subject.store.remove_all(RemoveAll).await, "all tasks are removed");
    assert_eq!((removed, subject.list().await.len(), subject.next_due().await), (20, 0, None));
    assert_eq!(ok(subject.store.remove_all(RemoveAll).await, "nothing is removed"), 0);
    subject.put(&sample("task 1", at(1))).await;
    assert_eq!(subject.take(at(1), 9).await, (vec!["task 1".to_owned()], false));
}

pub(super) async fn many_changes_at_once_all_happen(subject: &Subject) {
    let puts = (0..100).map(|index| {
        let task = sample(&format!("{index:03}"), at(index));
        subject.store.put(Put { task, expect: Expect::Absent })
    });
    for result in join_all(puts).await {
        ok(result, "a task is put among others");
    }
    let deletes =
        (0..50).map(|index| subject.store.delete(Delete { id: id(&format!("{index:03}")), revision: None }));
    for result in join_all(deletes).await {
        ok(result, "a task is deleted among others");
    }
    let expected: Vec<_> = (50..100).map(|index| format!("{index:03}")).collect();
    assert_eq!(names(&subject.list().await), expected);
    assert_eq!(subject.take(at(100), 1000).await, (expected, false), "what is listed is due as well");
}

pub(super) async fn one_of_two_rivals_wins(subject: &Subject) {
    let task = sample("a", at(5));
    let adds = (0..10).map(|_| subject.store.put(Put { task: task.clone(), expect: Expect::Absent }));
    let won = join_all(adds).await.into_iter().filter(Result::is_ok).count();
    assert_eq!(won, 1, "of ten who add the same task one wins");
    let changes = (0..10).map(|index| {
        let task = changed(&task, |_, state| state.runs = index);
        subject.store.put(Put { task, expect: Expect::Revision(1) })
    });
    let results = join_all(changes).await;
    let winners: Vec<u64> =
        results.iter().enumerate().filter(|(_, r)| r.is_ok()).map(|(index, _)| index as u64).collect();
    assert_eq!(winners.len(), 1, "of ten who change the same revision one wins");
    assert_eq!(subject.get("a").await.map(|task| task.state.runs), winners.first().copied());
}

pub(super) async fn closures_are_kept_or_refused(subject: &Subject) {
    let code = Task::from_fn(|_: crate::task::TaskContext, ()| async {});
    let spec = code
        .id("a")
        .trigger(Interval::seconds(1))
        .resolve(&TaskDefaults::default(), crate::trigger::Zone::UTC)
        .unwrap_or_else(|error| panic!("{error}"));
    let task = StoredTask { spec: Arc::new(spec), state: sample_state(Some(at(1))) };
    assert!(matches!(task.spec.handler, Handler::Closure(_)));
    let put = subject.store.put(Put { task: task.clone(), expect: Expect::Absent }).await;
    if subject.can.closures {
        ok(put, "a closure is kept");
        assert_eq!(subject.get("a").await, Some(task));
    } else {
        assert!(matches!(put, Err(StoreError::Unstorable { .. })), "a closure is refused: {put:?}");
        assert_eq!(subject.get("a").await, None);
    }
}

pub(super) async fn opening_again_changes_nothing(subject: &Subject) {
    let task = sample("a", at(5));
    subject.put(&task).await;
    let opened = ok(subject.store.open(Open { owner: OWNER, now: at(1) }).await, "a store is opened again");
    assert_eq!(opened.next_due, Some(at(5)), "opening tells the next due time");
    assert!(opened.interrupted.is_empty() && opened.unreadable.is_empty());
    assert_eq!(opened.capabilities, subject.can);
    assert_eq!(subject.list().await, [task]);
}

pub(super) async fn rules_are_told_when_it_is_opened_or_never(subject: &Subject) {
    assert_eq!(subject.opened.rules, None, "a new store was planned by no rules");
    let task = sample("a", at(5));
    subject.put(&task).await;
    for digest in [1, 2] {
        let kept = rules(digest);
        ok(subject.store.keep_rules(KeepRules(kept.clone())).await, "rules are kept");
        let opened =
            ok(subject.store.open(Open { owner: OWNER, now: at(1) }).await, "a store is opened again");
        assert!(opened.rules.is_none_or(|rules| rules == kept), "the latest are told, or none");
    }
    assert_eq!(subject.list().await, [task], "they are no task");
}

pub(super) async fn a_closed_store_is_unavailable(subject: &Subject) {
    ok(subject.store.close(Close).await, "the store closes");
    let late = subject.store.get(Get { id: id("a") }).await;
    assert!(late.as_ref().is_err_and(StoreError::is_retryable), "a closed store says so: {late:?}");
}
