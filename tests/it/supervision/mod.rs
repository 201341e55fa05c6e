//! Children that die, and who brings them back. Time is virtual throughout.

mod odd;

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use callboard::executor::contract::{Stage, task};
use callboard::executor::message::{Status, Submit};
use callboard::executor::{CustomExecutor, ExecutorAddr, ExecutorSource, Job, Runner};
use callboard::supervision::{
    ChildChange, ChildNotice, ChildState, Death, Dismiss, Guardian, GuardianStatus, Keep, Link, LinkOwner,
    RestartPolicy, Restore,
};
use callboard::task::{Code, TaskContext};
use callboard::testing::VirtualClock;
use futures::StreamExt;
use futures::channel::mpsc;

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);

/// Passes notices on to the test, and leads a link to the child.
struct Owner<A> {
    notices: mpsc::UnboundedSender<ChildChange<A>>,
    link: LinkOwner<A>,
}

impl<A: Clone + Send + Unpin + 'static> Actor for Owner<A> {
    type Context = Context<Self>;
}

impl<A: Clone + Send + Unpin + 'static> Handler<ChildNotice<A>> for Owner<A> {
    type Result = ();

    fn handle(&mut self, notice: ChildNotice<A>, _: &mut Self::Context) {
        assert_eq!(&*notice.name, "child");
        match &notice.change {
            ChildChange::Started { child, .. } => self.link.point_to(child.clone()),
            _ => self.link.cut(),
        }
        self.notices.unbounded_send(notice.change).unwrap();
    }
}

struct House<A: Clone + Send + 'static> {
    time: VirtualClock,
    guardian: Addr<Guardian<A>>,
    notices: mpsc::UnboundedReceiver<ChildChange<A>>,
    link: Link<A>,
}

impl<A: Clone + Send + Unpin + 'static> House<A> {
    fn new(policy: RestartPolicy, factory: impl FnMut(Keep) -> A + 'static) -> Self {
        let time = VirtualClock::starting_at("2026-01-01T00:00:00Z");
        let (sender, notices) = mpsc::unbounded();
        let (owner, link) = Link::new();
        let owner = Owner { notices: sender, link: owner }.start();
        let guardian = Guardian::new("child", policy, time.clock(), factory, owner.recipient()).start();
        Self { time, guardian, notices, link }
    }

    async fn change(&mut self) -> ChildChange<A> {
        self.notices.next().await.unwrap()
    }

    /// The next notice tells of a start.
    async fn started(&mut self) -> (A, Option<Death>) {
        match self.change().await {
            ChildChange::Started { child, cause } => (child, cause),
            _ => panic!("not started"),
        }
    }

    async fn restarting(&mut self) -> (Duration, Death) {
        match self.change().await {
            ChildChange::Restarting { after, cause } => (after, cause),
            _ => panic!("not restarting"),
        }
    }

    async fn state(&self) -> ChildState {
        self.guardian.send(GuardianStatus).await.unwrap().state
    }

    /// Nothing has been told that was not read.
    fn is_quiet(&mut self) -> bool {
        self.notices.try_recv().is_err()
    }
}

/// A child that can be told how to die.
struct Child {
    _keep: Keep,
}

impl Actor for Child {
    type Context = Context<Self>;
}

#[derive(Message)]
#[rtype(result = "()")]
enum Die {
    Panic,
    Stop,
}

impl Handler<Die> for Child {
    type Result = ();

    fn handle(&mut self, how: Die, ctx: &mut Self::Context) {
        match how {
            Die::Panic => panic!("on purpose"),
            Die::Stop => ctx.stop(),
        }
    }
}

fn child(keep: Keep) -> Addr<Child> {
    Child { _keep: keep }.start()
}

fn on_stage(test: impl Future<Output = ()>) {
    System::new().block_on(test);
}

#[test]
fn a_child_that_panics_is_replaced_after_the_back_off() {
    on_stage(async {
        let mut house = House::new(RestartPolicy::on_failure(), child);
        let (first, cause) = house.started().await;
        assert_eq!(cause, None);
        assert!(first.send(Die::Panic).await.is_err());
        assert_eq!(house.restarting().await, (100 * MS, Death::Panicked));
        assert_eq!(house.link.get(), None);
        house.time.advance(99 * MS).await;
        assert_eq!(house.state().await, ChildState::Restarting { cause: Death::Panicked });
        assert!(house.is_quiet());
        house.time.advance(MS).await;
        let (second, cause) = house.started().await;
        assert_eq!(cause, Some(Death::Panicked));
        assert!(second.connected() && !first.connected());
        assert_eq!(house.link.get(), Some(second.clone()));
        second.do_send(Die::Panic);
        assert_eq!(house.restarting().await.0, 200 * MS);
        assert_eq!(house.guardian.send(GuardianStatus).await.unwrap().restarts, 2);
    });
}

#[test]
fn a_stop_is_an_ending_for_some_policies_and_a_death_for_others() {
    on_stage(async {
        for policy in [RestartPolicy::on_failure(), RestartPolicy::always(), RestartPolicy::never()] {
            let mut house = House::new(policy, child);
            let (first, _) = house.started().await;
            first.send(Die::Stop).await.unwrap();
            match house.change().await {
                ChildChange::Ended => {
                    assert_eq!(policy, RestartPolicy::on_failure());
                    assert_eq!(house.state().await, ChildState::Ended);
                }
                ChildChange::Restarting { cause, .. } => {
                    assert_eq!((policy, cause), (RestartPolicy::always(), Death::Stopped));
                    house.time.advance(S).await;
                    assert_eq!(house.started().await.1, Some(Death::Stopped));
                }
                ChildChange::Failed { reason } => {
                    assert_eq!(policy, RestartPolicy::never());
                    assert!(reason.contains("never"), "{reason}");
                }
                ChildChange::Started { .. } => panic!("nobody asked for it"),
            }
        }
    });
}

#[test]
fn the_death_of_an_arbiter_is_noticed() {
    on_stage(async {
        let arbiters = std::sync::mpsc::channel();
        let mut house = House::new(RestartPolicy::on_failure(), move |keep| {
            let arbiter = Arbiter::new();
            let addr = Child::start_in_arbiter(&arbiter.handle(), |_| Child { _keep: keep });
            arbiters.0.send(arbiter).unwrap();
            addr
        });
        let (first, _) = house.started().await;
        arbiters.1.recv().unwrap().stop();
        assert_eq!(house.restarting().await.1, Death::ArbiterEnded);
        house.time.advance(S).await;
        let (second, _) = house.started().await;
        assert!(second.connected() && !first.connected());
        arbiters.1.recv().unwrap().stop();
        assert_eq!(house.restarting().await.1, Death::ArbiterEnded);
    });
}

#[test]
fn the_end_of_the_budget_is_final_until_somebody_restores() {
    on_stage(async {
        let mut house = House::new(RestartPolicy::on_failure().max(2, 60 * S), child);
        for round in 0..2 {
            let (mut alive, cause) = house.started().await;
            assert_eq!(cause, None, "a restored child has no predecessor to speak of");
            for _ in 0..2 {
                alive.do_send(Die::Panic);
                house.restarting().await;
                house.time.advance(S).await;
                alive = house.started().await.0;
            }
            assert!(!house.guardian.send(Restore).await.unwrap(), "it is alive");
            alive.do_send(Die::Panic);
            let ChildChange::Failed { reason } = house.change().await else { panic!("the budget was spent") };
            assert!(reason.contains("2 restart(s)"), "{reason}");
            assert_eq!(house.state().await, ChildState::Failed { reason });
            house.time.advance(3600 * S).await;
            assert!(house.is_quiet(), "round {round}");
            assert!(house.guardian.send(Restore).await.unwrap());
        }
        house.started().await;
        assert_eq!(house.guardian.send(GuardianStatus).await.unwrap().restarts, 4);
    });
}

#[test]
fn a_child_that_lives_long_enough_has_its_budget_back() {
    on_stage(async {
        let mut house = House::new(RestartPolicy::on_failure().max(1, 10 * S), child);
        for _ in 0..5 {
            let (alive, _) = house.started().await;
            alive.do_send(Die::Panic);
            assert_eq!(house.restarting().await.0, 100 * MS);
            house.time.advance(10 * S + 100 * MS).await;
        }
    });
}

#[test]
fn a_wanted_ending_is_nobodys_business() {
    on_stage(async {
        let mut house = House::new(RestartPolicy::always(), child);
        let (first, _) = house.started().await;
        house.guardian.send(Dismiss).await.unwrap();
        first.send(Die::Stop).await.unwrap();
        house.time.advance(3600 * S).await;
        assert_eq!(house.state().await, ChildState::Dismissed);
        assert!(house.is_quiet());

        // While a restart is waited for: it is called off.
        assert!(house.guardian.send(Restore).await.unwrap());
        let (second, _) = house.started().await;
        second.do_send(Die::Panic);
        house.restarting().await;
        house.guardian.send(Dismiss).await.unwrap();
        house.time.advance(3600 * S).await;
        assert!(house.is_quiet());

        // And restoring waits for nothing.
        assert!(house.guardian.send(Restore).await.unwrap());
        let (third, _) = house.started().await;
        third.do_send(Die::Panic);
        house.restarting().await;
        assert!(house.guardian.send(Restore).await.unwrap());
        house.started().await;
        house.time.advance(3600 * S).await;
        assert!(house.is_quiet(), "started once, not twice");
    });
}

#[test]
fn a_late_obituary_does_not_count_against_a_successor() {
    on_stage(async {
        let mut house = House::new(RestartPolicy::always(), child);
        let (first, _) = house.started().await;
        house.guardian.send(Dismiss).await.unwrap();
        house.guardian.send(Restore).await.unwrap();
        let (second, _) = house.started().await;
        assert!(first.send(Die::Panic).await.is_err());
        house.time.advance(S).await;
        assert_eq!(house.state().await, ChildState::Alive);
        assert!(house.is_quiet() && second.connected());
    });
}

#[test]
fn a_factory_that_panics_spends_the_budget_too() {
    on_stage(async {
        let mut house =
            House::<Addr<Child>>::new(RestartPolicy::on_failure().max(2, 60 * S), |_| panic!("no child"));
        for _ in 0..2 {
            assert_eq!(house.restarting().await.1, Death::Panicked);
            house.time.advance(S).await;
        }
        assert!(matches!(house.change().await, ChildChange::Failed { .. }));
    });
}

/// Panics in the executor's own actor when it is given the run of a task called `poison`.
struct Fragile;

impl Runner for Fragile {
    fn kind(&self) -> &'static str {
        "fragile"
    }

    fn start(&mut self, job: Job) {
        if job.run().task.id.as_str() == "poison" {
            panic!("on purpose");
        }
        if let Some(started) = job.begin() {
            actix::spawn(started.drive());
        }
    }
}

fn endless(dropped: mpsc::UnboundedSender<()>) -> Code {
    Code::from_async(move |context: TaskContext, ()| {
        let end = CallOnDrop(dropped.clone());
        async move {
            context.sleep(Duration::from_secs(1_000_000)).await;
            drop(end);
        }
    })
}

struct CallOnDrop(mpsc::UnboundedSender<()>);

impl Drop for CallOnDrop {
    fn drop(&mut self) {
        let _ = self.0.unbounded_send(());
    }
}

fn supervised(mut source: impl ExecutorSource) -> House<ExecutorAddr> {
    House::new(RestartPolicy::on_failure(), move |keep| source.start(keep))
}

/// Starts two endless runs, kills the executor with a run of `killer`, and sees to it that the runs
/// ended with it and a successor counts from zero.
async fn dies_and_comes_back(source: impl ExecutorSource, name: &str, killer: Code, death: Death) {
    let mut house = supervised(source);
    let (first, _) = house.started().await;
    let mut stage = Stage::unattached(first, house.time.clock());
    stage.attach().await;
    let (dropped, mut ends) = mpsc::unbounded();
    let long = task("long", |task| task.max_instances(2));
    let runs = [stage.run(&long, &endless(dropped.clone())), stage.run(&long, &endless(dropped))];
    stage.submit(runs).await;
    let poison = stage.run(&task(name, |task| task), &killer);
    let submit = Submit { runs: vec![Arc::new(poison)], seats: None, busy: house.time.clock().busy() };
    // The executor may die before it answers.
    let _ = stage.executor.submit(submit).await;
    for _ in 0..2 {
        assert!(ends.next().await.is_some());
    }
    assert_eq!(house.restarting().await.1, death);
    house.time.advance(S).await;
    let (second, cause) = house.started().await;
    assert_eq!(cause, Some(death));
    assert!(stage.executor.status(Status).await.is_err(), "the first is gone");
    stage.executor = second;
    stage.attach().await;
    stage.is_empty().await;
    let run = stage.run(&long, &Code::from_async(|_: TaskContext, ()| async {}));
    stage.submit([run]).await;
    assert!(stage.end().await.1.outcome.is_success());
}

#[test]
fn an_executor_whose_actor_panics_takes_its_runs_with_it_and_comes_back() {
    let ok = || Code::from_async(|_: TaskContext, ()| async {});
    on_stage(dies_and_comes_back(CustomExecutor::new(|| Fragile), "poison", ok(), Death::Panicked));
    let own = CustomExecutor::new(|| Fragile).on_own_arbiter();
    on_stage(dies_and_comes_back(own, "poison", ok(), Death::Panicked));
}

#[test]
fn an_executor_whose_arbiter_ends_comes_back_on_another() {
    let vandal = Code::from_async(|_: TaskContext, ()| {
        Arbiter::current().stop();
        async {}
    });
    // An async executor's runs have arbiters that are not their executor's.
    let executor = CustomExecutor::new(|| Beside).on_own_arbiter();
    on_stage(dies_and_comes_back(executor, "vandal", vandal, Death::ArbiterEnded));
}

/// Runs tasks on the arbiter of the executor.
struct Beside;

impl Runner for Beside {
    fn kind(&self) -> &'static str {
        "beside"
    }

    fn start(&mut self, job: Job) {
        if let Some(started) = job.begin() {
            actix::spawn(started.drive());
        }
    }
}
