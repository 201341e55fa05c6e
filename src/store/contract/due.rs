//! What is due, and how tasks are moved on.

use super::*;

pub(super) async fn due_tasks_come_oldest_first(subject: &Subject) {
    for (name, seconds) in [("d", 4), ("b", 2), ("c", 3), ("a", 1), ("e", 5)] {
        subject.put(&sample(name, at(seconds))).await;
    }
    let nanosecond = TimeDelta::nanoseconds(1);
    let list = |names: &str| names.chars().map(String::from).collect::<Vec<_>>();
    assert_eq!(subject.take(at(1) - nanosecond, 9).await, (list(""), false), "nothing is due early");
    assert_eq!(subject.take(at(1), 9).await, (list("a"), false), "a task is due at its very time");
    assert_eq!(subject.take(at(4), 9).await, (list("abcd"), false), "oldest first");
    assert_eq!(subject.take(at(4), 2).await, (list("ab"), true), "the limit is kept, and said");
    assert_eq!(subject.take(at(4), 4).await, (list("abcd"), false), "a limit that is reached cuts nothing");
    assert_eq!(subject.take(at(4), 0).await, (list(""), true), "a limit of none");
}

pub(super) async fn a_paused_task_is_never_due(subject: &Subject) {
    let task = sample("a", at(1));
    subject.put(&task).await;
    let paused = changed(&task, |_, state| state.paused = true);
    let put = Put { task: paused.clone(), expect: Expect::Revision(1) };
    ok(subject.store.put(put).await, "a task is paused");
    assert_eq!(subject.take(at(9), 9).await, (vec![], false), "a paused task is not due");
    assert_eq!(subject.next_due().await, None, "a paused task wakes nobody");
    assert_eq!(
        subject.commit(vec![advance(&task, Some(at(2)))]).await.refused,
        [0],
        "what was taken before the pause is refused"
    );
    let resumed = changed(&paused, |_, state| state.paused = false);
    let put = Put { task: resumed, expect: Expect::Revision(2) };
    ok(subject.store.put(put).await, "a task is resumed");
    assert_eq!(subject.take(at(9), 9).await.0, ["a"], "a resumed task is due as before");
}

pub(super) async fn a_task_stays_due_until_it_is_committed(subject: &Subject) {
    let task = sample("a", at(1));
    subject.put(&task).await;
    for _ in 0..3 {
        assert_eq!(subject.take(at(1), 9).await.0, ["a"], "what is not committed is handed out again");
    }
    subject.commit(vec![advance(&task, Some(at(2)))]).await;
    assert_eq!(subject.take(at(1), 9).await.0, [""; 0], "what is committed is not");
}

pub(super) async fn next_due_follows_every_change(subject: &Subject) {
    assert_eq!(subject.next_due().await, None);
    let (early, late) = (sample("early", at(3)), sample("late", at(7)));
    subject.put(&late).await;
    assert_eq!(subject.next_due().await, Some(at(7)));
    subject.put(&early).await;
    assert_eq!(subject.next_due().await, Some(at(3)));
    let committed = subject.commit(vec![advance(&early, Some(at(9)))]).await;
    assert_eq!((committed.next_due, subject.next_due().await), (Some(at(7)), Some(at(7))));
    ok(subject.store.delete(Delete { id: id("late"), revision: None }).await, "a task is deleted");
    assert_eq!(subject.next_due().await, Some(at(9)));
    let early = subject.get("early").await.unwrap_or_else(|| panic!("the task is there"));
    let committed = subject.commit(vec![advance(&early, None)]).await;
    assert_eq!((committed.next_due, subject.next_due().await), (None, None));
    assert!(subject.get("early").await.is_some(), "a task without a next run stays");
}

pub(super) async fn a_commit_moves_tasks_on(subject: &Subject) {
    let tasks: Vec<_> = (0..300).map(|index| sample(&format!("{index:03}"), at(index))).collect();
    for task in &tasks {
        subject.put(task).await;
    }
    let changes: Vec<_> = tasks
        .iter()
        .enumerate()
        .map(|(index, task)| match index % 3 {
            0 => Change { then: Then::Remove, ..advance(task, None) },
            _ => advance(task, task.state.next.map(|fire| fire.due + TimeDelta::seconds(1000))),
        })
        .collect();
    let expected: Vec<_> = changes.iter().filter(|change| change.then != Then::Remove).cloned().collect();
    let committed = subject.commit(changes).await;
    assert_eq!(committed, Committed { refused: vec![], next_due: Some(at(1001)) });
    let list = subject.list().await;
    assert_eq!(list.len(), expected.len(), "tasks whose schedule has ended are removed");
    for (task, change) in list.iter().zip(expected) {
        assert_eq!(task.spec.id, change.id);
        assert_eq!(Then::State(task.state.clone()), change.then, "the state is as it was committed");
    }
    assert_eq!(subject.commit(vec![]).await, Committed { refused: vec![], next_due: Some(at(1001)) });
}

pub(super) async fn a_stale_change_is_refused_by_itself(subject: &Subject) {
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| sample(name, at(1)));
    for task in [&a, &b, &c, &d] {
        subject.put(task).await;
    }
    let newer = changed(&b, |spec, _| spec.max_instances = 7);
    ok(
        subject.store.put(Put { task: newer.clone(), expect: Expect::Revision(1) }).await,
        "changed meanwhile",
    );
    ok(subject.store.delete(Delete { id: id("c"), revision: None }).await, "deleted meanwhile");
    let mut late = advance(&a, Some(at(6)));
    late.revision = 2;
    let mut rival = advance(&a, Some(at(7)));
    rival.revision = 1;
    let mut removal = advance(&b, None);
    removal.then = Then::Remove;
    let committed = subject
        .commit(vec![
            advance(&a, Some(at(5))),
            removal,
            advance(&c, Some(at(5))),
            rival,
            advance(&d, Some(at(4))),
        ])
        .await;
    assert_eq!(
        committed.refused,
        [1, 2, 3],
        "what was changed, deleted or moved on is refused, the rest not"
    );
    assert_eq!(subject.get("b").await, Some(newer), "the newer task stays as it is");
    assert_eq!(subject.get("c").await, None, "a deleted task does not come back");
    assert_eq!(subject.take(at(5), 9).await.0, ["b", "d", "a"]);
    assert_eq!(subject.commit(vec![late]).await.refused, [0; 0], "the present revision goes ahead");
}

pub(super) async fn times_of_all_centuries_sort(subject: &Subject) {
    let seconds = [-8_000_000_000_i64, -2, -1, 0, 1, 2_147_483_648, 4_102_444_800, 32_503_680_000];
    let mut times: Vec<_> = seconds
        .into_iter()
        .flat_map(|seconds| [0, 1, 999_999_999].map(|nanos| DateTime::from_timestamp(seconds, nanos)))
        .flatten()
        .collect();
    times.sort_unstable();
    for (index, due) in times.iter().enumerate().rev() {
        subject.put(&sample(&format!("{index:02}"), *due)).await;
    }
    for (index, due) in times.iter().enumerate() {
        let expected: Vec<_> = (0..=index).map(|index| format!("{index:02}")).collect();
        assert_eq!(subject.take(*due, 99).await.0, expected, "due at {due}");
    }
    assert_eq!(subject.next_due().await, times.first().copied());
}

pub(super) async fn a_commit_can_write_the_whole_task(subject: &Subject) {
    let (task, other) = (sample("a", at(1)), sample("b", at(2)));
    subject.put(&task).await;
    subject.put(&other).await;
    let new = changed(&task, |spec, state| {
        spec.args = serde_json::json!({ "of": "another" });
        state.next = Some(Fire { nominal: at(7), due: at(7) });
    });
    let change = Change { then: Then::Task(new.clone()), ..advance(&task, None) };
    let committed = subject.commit(vec![change.clone(), advance(&other, Some(at(9)))]).await;
    assert_eq!((committed.refused, committed.next_due), (Vec::new(), Some(at(7))));
    assert_eq!(subject.get("a").await, Some(new.clone()), "the whole task is written anew");
    assert_eq!(subject.take(at(8), 9).await.0, ["a"]);
    assert_eq!(subject.commit(vec![change]).await.refused, [0], "a stale one is refused");
    assert_eq!(subject.get("a").await, Some(new));
}

pub(super) async fn what_is_put_off_is_not_handed_out(subject: &Subject) {
    let [a, b, c] = [("a", 1), ("b", 2), ("c", 3)].map(|(name, due)| sample(name, at(due)));
    for task in [&a, &b, &c] {
        subject.put(task).await;
    }
    subject.take(at(9), 9).await;
    assert_eq!(subject.defer(&a, Until::Recalled).await, Some(at(2)), "what is put off wakes nobody");
    assert_eq!(subject.defer(&b, Until::At(at(20))).await, Some(at(3)));
    assert_eq!(subject.take(at(9), 9).await, (vec!["c".to_owned()], false), "nor is it handed out");
    assert!(!subject.take(at(9), 1).await.1, "nor does it count");
    assert_eq!(subject.take(at(20), 9).await.0, ["c", "b"], "its time has come, and its place is by that");
    assert_eq!(subject.get("a").await, Some(a.clone()), "it stays as it is");
    let listed: Vec<_> = subject.list().await;
    assert_eq!(listed, [a.clone(), b.clone(), c.clone()], "and is listed by when it is due");
    assert_eq!(subject.defer(&a, Until::Now).await, Some(at(1)), "it is brought back");
    assert_eq!(subject.take(at(2), 9).await.0, ["a"]);
    assert_eq!(
        subject.defer(&b, Until::At(at(1))).await,
        Some(at(1)),
        "a time before its own changes nothing"
    );
    assert_eq!(subject.take(at(9), 9).await.0, ["a", "b", "c"]);
    let stale = changed(&a, |_, _| {});
    assert_eq!(subject.defer(&stale, Until::Recalled).await, Some(at(1)), "another revision is left alone");
    let gone = sample("gone", at(1));
    assert_eq!(subject.defer(&gone, Until::Recalled).await, Some(at(1)), "and what is not there");
    for task in [&a, &b, &c] {
        subject.defer(task, Until::Recalled).await;
    }
    assert_eq!((subject.next_due().await, subject.take(at(99), 9).await.0), (None, vec![]));
}

pub(super) async fn what_is_put_off_is_due_again_when_it_is_changed_or_the_store_opened(subject: &Subject) {
    let tasks = ["a", "b", "c", "d"].map(|name| sample(name, at(1)));
    for task in &tasks {
        subject.put(task).await;
    }
    subject.take(at(1), 9).await;
    for task in &tasks {
        subject.defer(task, Until::Recalled).await;
    }
    let [a, b, c, d] = &tasks;
    let put = Put { task: changed(a, |_, _| {}), expect: Expect::Revision(1) };
    ok(subject.store.put(put).await, "what is put off can be changed");
    assert_eq!(subject.take(at(1), 9).await.0, ["a"], "the changed one is due as it says");
    assert_eq!(subject.commit(vec![advance(b, Some(at(5)))]).await.refused, [0; 0]);
    assert_eq!(subject.take(at(5), 9).await.0, ["a", "b"], "and one that was moved on");
    ok(subject.store.delete(Delete { id: id("c"), revision: None }).await, "it can be deleted");
    subject.put(c).await;
    assert_eq!(subject.take(at(5), 9).await.0, ["a", "c", "b"], "another one of its id is not put off");
    let opened = ok(subject.store.open(Open { owner: OWNER, now: start() }).await, "it is opened again");
    assert_eq!(opened.next_due, Some(at(1)));
    let mut due = subject.take(at(1), 9).await.0;
    due.sort();
    assert_eq!(due, ["a", "c", "d"], "opening forgets what was put off");
    assert_eq!(subject.get("d").await.as_ref(), Some(d), "which was never written");
}
