//! The lines of the log: of each change that somebody makes, and of what runs say themselves.

use std::collections::BTreeSet;

use callboard::executor::{AsyncExecutor, ThreadPool};
use callboard::scheduler::message::RestoreExecutor;
use callboard::task::Alias;

use super::*;
use crate::log::{self, Line};

/// The lines about changes in a scheduler, as `what change: its store, task and executor`.
fn changes(scheduler: &str) -> Vec<String> {
    let lines = log::heard().lock().unwrap();
    let of = |line: &&Line| {
        line.fields.get("scheduler").is_some_and(|name| name == scheduler)
            && line.fields.contains_key("change")
    };
    let told = |line: &Line| {
        let field = |name: &str| line.fields.get(name).map_or("-", |value| value.trim_matches('"'));
        format!("{} {} {} {}", field("change"), field("store"), field("task"), field("executor"))
    };
    lines.iter().filter(of).map(told).collect()
}

#[actix::test]
async fn each_change_that_somebody_makes_has_a_line() {
    log::heard();
    let name = "changes";
    let spare = MemoryStore::new;
    let (scheduler, time, _) = board(|b| b.name(name).store("spare", spare())).await;
    let mut seen = changes(name).len();
    let mut news = |what: &str, expected: &[&str]| {
        let told = changes(name).split_off(seen);
        seen += told.len();
        assert_eq!(told, expected, "{what}");
    };
    scheduler.pause().await.unwrap();
    scheduler.resume().await.unwrap();
    news("the scheduler", &["paused - - -", "resumed - - -"]);

    scheduler.add(every(10).id("a")).await.unwrap();
    scheduler.add(every(20).id("a").replace_existing(true)).await.unwrap();
    scheduler.add(every(20).id("a").replace_existing(true)).await.unwrap();
    news(
        "adding; what changes nothing is no change",
        &["added default a default", "replaced default a default"],
    );
    scheduler.update_task("a", TaskChanges::new().name("other")).await.unwrap();
    scheduler.update_task("a", TaskChanges::new().next_run(at(30))).await.unwrap();
    scheduler.reschedule_task("a", Interval::seconds(40)).await.unwrap();
    news("options", &["updated default a default", "updated default a default", "updated default a default"]);
    scheduler.pause_task("a").await.unwrap();
    scheduler.pause_task("a").await.unwrap();
    scheduler.resume_task("a").await.unwrap();
    news("a pause", &["paused default a default", "resumed default a default"]);
    scheduler.run_task("a").await.unwrap();
    time.settle().await;
    news("a run by hand", &["run default a default"]);
    let long = Task::new("hang").id("long").trigger(Interval::hours(1));
    scheduler.add(long).await.unwrap();
    time.settle().await;
    let run = scheduler.history("long", 1).await.unwrap()[0].id;
    assert!(scheduler.cancel_run(run).await.unwrap());
    news("a run that is stopped", &["added default long default", "cancelled default long default"]);
    scheduler.backfill("a", at(-100), at(0), secs(1)).await.unwrap();
    assert!(scheduler.cancel_backfill("a").await.unwrap());
    news("a back-fill", &["back-filled default a default", "back-fill called off default a default"]);
    time.settle().await;
    scheduler.move_task("a", "spare").await.unwrap();
    scheduler.move_task("a", "spare").await.unwrap();
    news("a move", &["moved spare a -"]);
    scheduler.delete_task("a").await.unwrap();
    scheduler.delete_task("a").await.unwrap_err();
    news("a removal", &["removed spare a -"]);
    scheduler.remove_all_tasks(None).await.unwrap();
    let all: BTreeSet<_> = changes(name).split_off(seen).into_iter().collect();
    seen = changes(name).len();
    assert!(all.contains("all tasks removed default - -"), "{all:?}");

    let mut news = |what: &str, expected: &[&str]| {
        let told = changes(name).split_off(seen);
        seen += told.len();
        assert_eq!(told, expected, "{what}");
    };
    scheduler.pause_store("spare").await.unwrap();
    scheduler.pause_store("spare").await.unwrap();
    scheduler.resume_store("spare").await.unwrap();
    news("the pause of a store", &["paused spare - -", "resumed spare - -"]);
    scheduler.add_store("more", spare()).await.unwrap();
    scheduler.remove_store("more").await.unwrap();
    news("a store", &["added more - -", "removed more - -"]);
    scheduler.add_executor("pool", AsyncExecutor::new()).await.unwrap();
    scheduler.send(RestoreExecutor(Alias::new("pool").unwrap())).await.unwrap().unwrap();
    scheduler.remove_executor("pool", secs(1)).await.unwrap();
    news("an executor", &["added - - pool", "restored - - pool", "removed - - pool"]);
    scheduler.shutdown(Shutdown::now()).await.unwrap();
}

#[actix::test]
async fn what_a_run_logs_says_which_run_of_which_scheduler_it_is() {
    log::heard();
    let (scheduler, time, _) = board(|b| {
        let registry = Registry::new().register("talk", |_: TaskContext, ()| async {
            tracing::info!(target: "theatre::span", "said");
        });
        b.name("spans")
            .registry(registry)
            .store("spare", MemoryStore::new())
            .executor("threads", ThreadPool::new(1))
    })
    .await;
    for executor in ["default", "threads"] {
        let task =
            Task::new("talk").id(executor).store("spare").executor(executor).trigger(Interval::hours(1));
        scheduler.add(task).await.unwrap();
        time.settle().await;
        let run = scheduler.history(executor, 1).await.unwrap()[0].id.to_string();
        let lines = log::heard().lock().unwrap();
        let span =
            lines.iter().rev().find(|line| line.target == "theatre::span").map(|line| line.span.clone());
        let span = span.unwrap();
        let expected = [
            ("scheduler", "spans"),
            ("store", "spare"),
            ("task", executor),
            ("run", &run),
            ("attempt", "1"),
            ("executor", executor),
        ];
        for (field, value) in expected {
            assert_eq!(span.get(field).map(String::as_str), Some(value), "{executor}: {field}: {span:?}");
        }
    }
    scheduler.shutdown(Shutdown::now()).await.unwrap();
}
