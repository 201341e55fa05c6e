//! Tasks that send messages to actors.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::prelude::*;
use callboard::messages::Delivery;
use callboard::prelude::*;
use callboard::supervision::{Guardian, Keep, Link};
use callboard::task::Refusal;
use futures::StreamExt;
use futures::channel::oneshot;
use serde::{Deserialize, Serialize};

use crate::scheduler::{at, board, secs};

/// What a clerk is asked to do.
#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[rtype(result = "Result<usize, String>")]
enum Order {
    Write(String),
    Refuse,
    Panic,
    Leave,
}

/// Answered with a number, which says by itself nothing about success.
#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[rtype(result = "usize")]
struct Count;

/// Keeps its actor from reading on until the gate opens.
#[derive(Debug, Serialize, Deserialize, Message)]
#[rtype(result = "()")]
struct Hold;

type Written = Arc<Mutex<Vec<String>>>;

#[derive(Default)]
struct Clerk {
    name: &'static str,
    written: Written,
    gate: Option<oneshot::Receiver<()>>,
    capacity: usize,
    _keep: Option<Keep>,
}

impl Actor for Clerk {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if self.capacity > 0 {
            ctx.set_mailbox_capacity(self.capacity);
        }
    }
}

impl Handler<Order> for Clerk {
    type Result = Result<usize, String>;

    fn handle(&mut self, order: Order, ctx: &mut Self::Context) -> Self::Result {
        match order {
            Order::Write(line) => {
                let mut written = self.written.lock().unwrap();
                written.push(format!("{}{line}", self.name));
                Ok(written.len())
            }
            Order::Refuse => Err("no ink".to_owned()),
            Order::Panic => panic!("on purpose"),
            Order::Leave => {
                ctx.stop();
                // Nobody reads the answer of who has left.
                Ok(0)
            }
        }
    }
}

impl Handler<Count> for Clerk {
    type Result = usize;

    fn handle(&mut self, _: Count, _: &mut Self::Context) -> usize {
        self.written.lock().unwrap().len()
    }
}

impl Handler<Hold> for Clerk {
    type Result = ();

    fn handle(&mut self, _: Hold, ctx: &mut Self::Context) {
        if let Some(gate) = self.gate.take() {
            ctx.wait(async move { gate.await.unwrap_or(()) }.into_actor(self));
        }
    }
}

/// Later than any of these tests.
const JULY: &str = "0 0 1 7 *";

/// The outcome of the next run of `task`, asked for by hand.
async fn outcome(scheduler: &Handle, ends: &mut EventStream, task: &str) -> Outcome {
    match scheduler.run_task(task).await {
        // A refusal may be the answer already.
        Ok(_) | Err(callboard::Error::Refused { .. }) => ended(ends, task).await,
        Err(error) => panic!("{error}"),
    }
}

async fn ended(ends: &mut EventStream, task: &str) -> Outcome {
    loop {
        let event = ends.next().await.unwrap();
        let report = event.report().unwrap();
        if report.task_id().as_str() == task {
            return report.end.outcome.clone();
        }
    }
}

fn order(id: &str, order: &Order) -> Task {
    Task::new("order").id(id).args(order).trigger(JULY)
}

#[actix::test]
async fn the_answer_is_the_end_of_the_run() {
    let written = Written::default();
    let clerk = Clerk { written: written.clone(), ..Clerk::default() }.start();
    let (scheduler, time, _) = board(|builder| {
        let registry = Registry::new()
            .recipient("order", clerk.clone().recipient::<Order>())
            .delivery("count", Delivery::<Count>::answered_by(clerk.recipient(), Ok::<_, String>));
        builder.registry(registry)
    })
    .await;
    let mut ends = scheduler.events(EventMask::RUN_ENDED).await.unwrap();
    let due = Task::new("order").id("due").args(Order::Write("a".into())).trigger(Date::at(at(60)));
    scheduler.add(due).await.unwrap();
    time.advance(secs(61)).await;
    assert_eq!(ended(&mut ends, "due").await, Outcome::Executed { value: 1.into() });

    scheduler.add(Task::new("count").id("count").trigger(JULY)).await.unwrap();
    assert_eq!(outcome(&scheduler, &mut ends, "count").await, Outcome::Executed { value: 1.into() });

    scheduler.add(order("refuse", &Order::Refuse)).await.unwrap();
    let failed = outcome(&scheduler, &mut ends, "refuse").await;
    assert_eq!(failed, Outcome::Failed { error: "no ink".to_owned() });

    let rubbish = Task::new("order").id("rubbish").args("Sing").trigger(JULY);
    scheduler.add(rubbish).await.unwrap();
    let failed = outcome(&scheduler, &mut ends, "rubbish").await.problem().unwrap();
    assert!(failed.contains("do not decode") && failed.contains("Sing"), "{failed}");

    let unknown = scheduler.add(Task::new("odrer").trigger(JULY)).await.unwrap_err().to_string();
    assert!(unknown.contains("odrer") && unknown.contains("registered are: count, order"), "{unknown}");
    assert_eq!(*written.lock().unwrap(), ["a"]);
}

#[actix::test]
async fn a_dead_actor_loses_the_message_in_its_hands_and_refuses_later_ones() {
    for death in [Order::Panic, Order::Leave] {
        let clerk = Clerk::default().start();
        let (scheduler, ..) = board(|builder| {
            builder.registry(
                Registry::new()
                    .recipient("order", clerk.clone().recipient::<Order>())
                    .delivery("post", Delivery::<Order>::delivered(clerk.recipient())),
            )
        })
        .await;
        let mut ends = scheduler.events(EventMask::RUN_ENDED).await.unwrap();
        scheduler.add(order("last", &death)).await.unwrap();
        scheduler.add(order("late", &Order::Write("b".into()))).await.unwrap();
        scheduler
            .add(Task::new("post").id("post").args(Order::Write("c".into())).trigger(JULY))
            .await
            .unwrap();
        let lost = outcome(&scheduler, &mut ends, "last").await;
        if matches!(death, Order::Panic) {
            let Outcome::Interrupted { reason } = lost else { panic!("{lost:?}") };
            assert!(reason.contains("`order` ended before it answered"), "{reason}");
        }
        for (task, handler) in [("late", "order"), ("post", "post")] {
            let refused = outcome(&scheduler, &mut ends, task).await;
            let reason = Refusal::RecipientGone { handler: handler.to_owned() };
            assert_eq!(refused, Outcome::Refused { reason });
        }
    }
}

#[actix::test]
async fn delivered_is_enough_until_the_mailbox_is_full() {
    let (open, gate) = oneshot::channel();
    let written = Written::default();
    let clerk = Clerk { written: written.clone(), gate: Some(gate), capacity: 1, ..Clerk::default() }.start();
    let (owner, link) = Link::new();
    owner.point_to(clerk.clone());
    let (scheduler, time, ran) = board(|builder| {
        let registry = crate::scheduler::Ran::registry(&Default::default())
            .delivery("straight", Delivery::<Order>::delivered(clerk.clone().recipient()))
            .delivery("linked", Delivery::<Order>::delivered(link))
            .recipient("hold", clerk.clone().recipient::<Hold>());
        builder.registry(registry)
    })
    .await;
    drop(ran);
    let mut ends = scheduler.events(EventMask::RUN_ENDED).await.unwrap();
    for (id, handler) in [("straight", "straight"), ("linked", "linked")] {
        let task = Task::new(handler).id(id).args(Order::Write(id.into()));
        scheduler.add(task.trigger(JULY)).await.unwrap();
    }
    // The clerk answers, and then reads nothing more.
    clerk.send(Hold).await.unwrap();
    for task in ["straight", "linked"] {
        assert!(outcome(&scheduler, &mut ends, task).await.is_success(), "a sender has one place of its own");
        let refused = outcome(&scheduler, &mut ends, task).await;
        let reason = Refusal::MailboxFull { handler: task.to_owned() };
        assert_eq!(refused, Outcome::Refused { reason });
    }
    // Nobody else waits for it.
    scheduler.add(crate::scheduler::every(10).id("other")).await.unwrap();
    time.advance(secs(20)).await;
    for _ in 0..3 {
        assert!(ended(&mut ends, "other").await.is_success());
    }
    open.send(()).unwrap();
    while written.lock().unwrap().len() < 2 {
        actix::clock::sleep(Duration::from_millis(1)).await;
    }
    assert!(outcome(&scheduler, &mut ends, "straight").await.is_success());
}

#[actix::test]
async fn an_actor_that_does_not_answer_holds_up_its_own_run_only() {
    let (_open, gate) = oneshot::channel();
    let clerk = Clerk { gate: Some(gate), ..Clerk::default() }.start();
    clerk.send(Hold).await.unwrap();
    let (scheduler, ..) = board(|builder| {
        let registry = crate::scheduler::Ran::registry(&Default::default());
        builder.registry(registry.recipient("order", clerk.recipient::<Order>()))
    })
    .await;
    let mut ends = scheduler.events(EventMask::RUN_ENDED).await.unwrap();
    scheduler.add(order("stuck", &Order::Write("d".into()))).await.unwrap();
    scheduler.add(crate::scheduler::every(3600).first_run(at(3600)).id("other")).await.unwrap();
    scheduler.run_task("stuck").await.unwrap();
    assert!(outcome(&scheduler, &mut ends, "other").await.is_success());
    let refused = scheduler.run_task("stuck").await.unwrap_err();
    assert!(refused.to_string().contains("max_instances"), "{refused}");
    scheduler.shutdown(Shutdown::now()).await.unwrap();
    loop {
        if let Outcome::Interrupted { .. } = ended(&mut ends, "stuck").await {
            break;
        }
    }
}

#[actix::test]
async fn the_task_s_timeout_limits_how_long_an_answer_is_waited_for() {
    let (_open, gate) = oneshot::channel();
    let clerk = Clerk { gate: Some(gate), ..Clerk::default() }.start();
    clerk.send(Hold).await.unwrap();
    // By the machine's clock: a virtual one stands still while an answer is waited for.
    let registry = Registry::new().recipient("order", clerk.recipient::<Order>());
    let scheduler = Scheduler::builder().registry(registry).start().await.unwrap();
    let mut ends = scheduler.events(EventMask::RUN_ENDED).await.unwrap();
    let task = order("late", &Order::Write("h".into())).timeout(Duration::from_millis(20));
    scheduler.add(task).await.unwrap();
    assert_eq!(outcome(&scheduler, &mut ends, "late").await, Outcome::TimedOut { after_ms: 20 });
    scheduler.shutdown(Shutdown::now()).await.unwrap();
}

#[actix::test]
async fn a_link_finds_the_successor_of_a_supervised_actor() {
    let time = callboard::testing::VirtualClock::starting_at(crate::scheduler::START);
    let written = Written::default();
    let lives = ["first: ", "second: ", "third: "];
    let (guardian, link) = Guardian::linked("clerk", RestartPolicy::always(), time.clock(), {
        let (written, mut lives) = (written.clone(), lives.into_iter());
        move |keep| {
            let name = lives.next().unwrap();
            Clerk { name, written: written.clone(), _keep: Some(keep), ..Clerk::default() }.start()
        }
    });
    let registry = Registry::new()
        .recipient::<Order>("order", link.clone())
        .delivery("at once", Delivery::<Order>::answered(link.clone()).patience(Duration::ZERO));
    let scheduler = Scheduler::builder().clock(time.clock()).registry(registry).start().await.unwrap();
    let mut ends = scheduler.events(EventMask::RUN_ENDED).await.unwrap();
    let write = |handler: &str| Task::new(handler).args(Order::Write("e".into()));
    scheduler.add(write("order").id("hourly").trigger(Interval::hours(1))).await.unwrap();
    time.advance(secs(1)).await;
    assert!(ended(&mut ends, "hourly").await.is_success());

    // It dies in an hour's middle, and its successor gets the next message.
    scheduler.add(order("kill", &Order::Panic)).await.unwrap();
    assert_eq!(outcome(&scheduler, &mut ends, "kill").await.word(), "interrupted");
    time.advance(secs(3600)).await;
    assert!(ended(&mut ends, "hourly").await.is_success());
    assert_eq!(*written.lock().unwrap(), ["first: e", "second: e"]);

    // It is down when two messages are due: one waits for the successor, one does not.
    scheduler.add(write("at once").id("now").trigger(JULY)).await.unwrap();
    assert_eq!(outcome(&scheduler, &mut ends, "kill").await.word(), "interrupted");
    time.settle().await;
    assert!(link.get().is_none());
    assert_eq!(outcome(&scheduler, &mut ends, "now").await.word(), "refused");
    scheduler.run_task("hourly").await.unwrap();
    time.advance(secs(1)).await;
    assert!(ended(&mut ends, "hourly").await.is_success());
    assert_eq!(written.lock().unwrap().last().unwrap(), "third: e");
    drop(guardian);
}

#[actix::test]
async fn a_weak_recipient_does_not_keep_the_actor_alive() {
    let clerk = Clerk::default().start();
    let (scheduler, ..) = board(|builder| {
        builder.registry(Registry::new().recipient("order", clerk.downgrade().recipient::<Order>()))
    })
    .await;
    let mut ends = scheduler.events(EventMask::RUN_ENDED).await.unwrap();
    scheduler.add(order("a", &Order::Write("f".into()))).await.unwrap();
    assert!(outcome(&scheduler, &mut ends, "a").await.is_success());
    let weak = clerk.downgrade();
    drop(clerk);
    while weak.upgrade().is_some() {
        actix::clock::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(outcome(&scheduler, &mut ends, "a").await.word(), "refused");
}

#[actix::test]
async fn a_stored_message_reaches_the_actor_of_the_next_program() {
    use callboard::store::SledStore;

    let folder = tempfile::tempdir().unwrap();
    let time = callboard::testing::VirtualClock::starting_at(crate::scheduler::START);
    let written = Written::default();
    for name in ["one: ", "two: "] {
        let clerk = Clerk { name, written: written.clone(), ..Clerk::default() }.start();
        let scheduler = Scheduler::builder()
            .clock(time.clock())
            .registry(Registry::new().recipient("order", clerk.recipient::<Order>()))
            .store("default", SledStore::open(folder.path()).unwrap())
            .start()
            .await
            .unwrap();
        if name == "one: " {
            let task = order("kept", &Order::Write("g".into())).trigger(Interval::hours(1));
            scheduler.add(task).await.unwrap();
        }
        time.advance(secs(3600)).await;
        scheduler.shutdown(Shutdown::now()).await.unwrap();
    }
    let written = written.lock().unwrap();
    assert!(written.contains(&"one: g".to_owned()) && written.last().unwrap() == "two: g", "{written:?}");
}

/// The store knows the name and the JSON; what the program makes of them can change.
#[actix::test]
async fn a_stored_message_that_the_next_program_does_not_know_is_an_outcome_and_stays() {
    use callboard::store::SledStore;

    let folder = tempfile::tempdir().unwrap();
    let time = callboard::testing::VirtualClock::starting_at(crate::scheduler::START);
    let written = Written::default();
    let clerk = || Clerk { written: written.clone(), ..Clerk::default() }.start();
    let start = async |registry: Registry| {
        let store = SledStore::open(folder.path()).unwrap();
        Scheduler::builder()
            .clock(time.clock())
            .registry(registry)
            .store("default", store)
            .start()
            .await
            .unwrap()
    };
    let knows = || Registry::new().recipient("order", clerk().recipient::<Order>());
    let others = || Registry::new().recipient("order", clerk().downgrade().recipient::<Letter>());
    let mut outcomes = Vec::new();
    for (turn, registry) in [knows(), Registry::new(), others(), knows()].into_iter().enumerate() {
        let scheduler = start(registry).await;
        let mut ends = scheduler.events(EventMask::RUN_ENDED).await.unwrap();
        if turn == 0 {
            let task = order("kept", &Order::Write("g".into())).trigger(Interval::hours(1));
            scheduler.add(task).await.unwrap();
        }
        time.advance(secs(3600)).await;
        if turn == 1 {
            // Nobody can send it: it waits, and the next program finds it due.
            let wait = loop {
                match scheduler.task("kept").await.unwrap().waiting {
                    Some(wait) => break wait,
                    None => tokio::task::yield_now().await,
                }
            };
            assert!(wait.reason.contains("no handler is registered under `order`"), "{wait:?}");
            scheduler.shutdown(Shutdown::now()).await.unwrap();
            continue;
        }
        let ended = ends.next().await.unwrap();
        outcomes.push(ended.report().unwrap().end.outcome.clone());
        assert!(scheduler.task("kept").await.is_ok(), "nothing is deleted silently");
        scheduler.shutdown(Shutdown::now()).await.unwrap();
    }
    let words: Vec<_> = outcomes.iter().map(Outcome::word).collect();
    assert_eq!(words, ["executed", "failed", "executed"], "{outcomes:?}");
    let Outcome::Failed { error } = &outcomes[1] else { panic!("{outcomes:?}") };
    assert!(error.contains("do not decode"), "{error}");
}

/// What `order` stood for in another life.
#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[rtype(result = "()")]
struct Letter {
    to: String,
}

impl Handler<Letter> for Clerk {
    type Result = ();

    fn handle(&mut self, letter: Letter, _: &mut Self::Context) {
        self.written.lock().unwrap().push(letter.to);
    }
}

#[actix::test]
async fn patience_without_end_waits_and_none_does_not() {
    let (owner, link) = Link::<Addr<Clerk>>::new();
    let patient = Delivery::<Order>::answered(link.clone()).patience(Duration::MAX);
    let hasty = Delivery::<Order>::answered(link).patience(Duration::ZERO);
    let registry = Registry::new().delivery("patient", patient).delivery("hasty", hasty);
    let (scheduler, time, _) = board(move |b| b.registry(registry)).await;
    let mut ends = scheduler.events(EventMask::RUN_ENDED).await.unwrap();
    for handler in ["patient", "hasty"] {
        let args = Order::Write("h".into());
        let task = Task::new(handler).args(&args).id(handler).trigger(callboard::trigger::Date::at(at(10)));
        scheduler.add(task).await.unwrap();
    }
    time.advance(secs(100_000)).await;
    let ended = ends.next().await.unwrap();
    let report = ended.report().unwrap();
    assert_eq!((report.task_id().as_str(), report.end.outcome.word()), ("hasty", "refused"));
    let written = Written::default();
    owner.point_to(Clerk { written: written.clone(), ..Clerk::default() }.start());
    let ended = ends.next().await.unwrap();
    let report = ended.report().unwrap();
    assert_eq!((report.task_id().as_str(), report.end.outcome.word()), ("patient", "executed"));
    assert_eq!(*written.lock().unwrap(), ["h"]);
}
