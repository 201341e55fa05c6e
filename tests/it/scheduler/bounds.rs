//! Requests with numbers in them that nobody should have to work off.

use std::cell::RefCell;
use std::rc::Rc;

use callboard::scheduler::message::{GetStatus, History, ListTasks, Preview, Timeline, Why};
use callboard::task::TaskQuery;
use futures::future::join;

use super::*;

const DENSE: u64 = 1;

async fn crowded() -> (Handle, VirtualClock, Ran) {
    let (scheduler, time, ran) = board(|b| b).await;
    for index in 0..3 {
        let task = Task::new("note").id(format!("task {index}")).trigger(Interval::seconds(DENSE));
        scheduler.add(task).await.unwrap();
    }
    time.advance(secs(20)).await;
    (scheduler, time, ran)
}

/// Windows over all of time, and as many as a number can say.
#[actix::test]
async fn no_answer_is_as_large_as_somebody_likes() {
    let (scheduler, _time, _ran) = crowded().await;
    let id: TaskId = "task 1".parse().unwrap();
    let (first, last) = (DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC);
    let ages = [(first, last), (at(0), last), (first, at(10)), (at(0), at(100_000_000))];
    for (from, to) in ages {
        for limit in [0, 5, 4_000_000_000, usize::MAX] {
            let account = scheduler.send(Why::new(id.clone(), from, to, limit)).await.unwrap().unwrap();
            assert!(account.times.len() <= limit.clamp(1, 1000), "{}", account.times.len());
            assert!(account.next.is_some() || to < at(100), "and it says where to go on");
        }
    }
    // Page by page it is all there.
    let (mut from, mut count) = (at(0), 0);
    while count < 2500 {
        let account = scheduler.send(Why::new(id.clone(), from, last, usize::MAX)).await.unwrap().unwrap();
        assert_eq!(account.times[0].nominal, at(count));
        count += account.times.len() as i64;
        from = account.next.unwrap();
    }
    let times = scheduler.send(Preview::new(id.clone(), usize::MAX)).await.unwrap().unwrap();
    assert_eq!(times.len(), 10_000);
    let query = TaskQuery::new();
    let timeline = Timeline { query: query.clone(), until: last, limit: usize::MAX };
    let times = scheduler.send(timeline).await.unwrap().unwrap();
    assert!(times.len() == 10_000 && times.is_sorted(), "{}", times.len());
    assert_eq!((&times[0].0, &times[3].0), (&at(21), &at(22)), "of all tasks, in order");
    let records = scheduler.send(History::new(id, usize::MAX)).await.unwrap().unwrap();
    assert_eq!(records.len(), 21);
    scheduler.shutdown(Shutdown::now()).await.unwrap();
}

/// What was asked for first takes long; what was asked for after it is answered first. (The thread that
/// asks may be held up between the two by others of the machine: it asks again then.)
async fn is_overtaken<T, F: Future<Output = T>>(scheduler: &Handle, long: impl Fn() -> F) -> T {
    let mut answered = Vec::new();
    for _ in 0..20 {
        let order = Rc::new(RefCell::new(Vec::new()));
        let large = async {
            let answer = long().await;
            order.borrow_mut().push("large");
            answer
        };
        let small = async {
            scheduler.send(GetStatus).await.unwrap();
            order.borrow_mut().push("small");
        };
        let (answer, ()) = join(large, small).await;
        answered = order.take();
        if answered == ["small", "large"] {
            return answer;
        }
    }
    panic!("the large answer comes first: {answered:?}");
}

#[actix::test]
async fn others_have_their_turn_while_a_large_answer_is_made() {
    let (scheduler, _time, _ran) = crowded().await;
    let id: TaskId = "task 1".parse().unwrap();
    let last = DateTime::<Utc>::MAX_UTC;
    let preview = Preview::new(id.clone(), 10_000);
    is_overtaken(&scheduler, || scheduler.send(preview.clone())).await.unwrap().unwrap();
    let why = Why::new(id, at(0), last, 1000);
    is_overtaken(&scheduler, || scheduler.send(why.clone())).await.unwrap().unwrap();
    let timeline = Timeline { query: TaskQuery::new(), until: last, limit: 10_000 };
    is_overtaken(&scheduler, || scheduler.send(timeline.clone())).await.unwrap().unwrap();
    scheduler.shutdown(Shutdown::now()).await.unwrap();
}

/// Of many tasks none is listed twice or left out, in the order that was asked for, and nobody waits for it.
#[actix::test]
async fn many_tasks_are_listed_bit_by_bit() {
    let (scheduler, time, _ran) = board(|b| b).await;
    for index in 0..2000 {
        let task = Task::new("note").id(format!("{index:05}")).trigger(Interval::seconds(100 + index % 7));
        scheduler.add(task).await.unwrap();
    }
    time.advance(secs(1)).await;
    let query = TaskQuery::new().sort(callboard::task::SortKey::Id).descending();
    let list = ListTasks(query);
    let listed = is_overtaken(&scheduler, || scheduler.send(list.clone())).await.unwrap().unwrap();
    let names: Vec<_> = listed.tasks.iter().map(|task| task.id().to_string()).collect();
    assert_eq!(names, (0..2000).rev().map(|index| format!("{index:05}")).collect::<Vec<_>>());
    let by_time = scheduler.tasks(TaskQuery::new().text("0001")).await.unwrap();
    assert!(by_time.len() > 10 && by_time.is_sorted_by_key(|task| task.next_run_time()));
    scheduler.shutdown(Shutdown::now()).await.unwrap();
}
