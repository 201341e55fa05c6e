//! Children that end in odd ways, and guardians at odd moments.

use std::cell::RefCell;
use std::rc::Rc;

use callboard::backoff::Backoff;

use super::*;

/// Panics or stops in its first moment.
struct Stillborn {
    _keep: Keep,
    panics: bool,
}

impl Actor for Stillborn {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        assert!(!self.panics, "on purpose");
        ctx.stop();
    }
}

/// Panics while it is dropped.
struct SoreLoser {
    _keep: Keep,
}

impl Actor for SoreLoser {
    type Context = Context<Self>;
}

impl Handler<Die> for SoreLoser {
    type Result = ();

    fn handle(&mut self, _: Die, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

impl Drop for SoreLoser {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "on purpose");
    }
}

#[test]
fn a_child_that_dies_in_its_first_moment_has_died() {
    on_stage(async {
        for (panics, death) in [(true, Death::Panicked), (false, Death::Stopped)] {
            let start = move |keep| Stillborn { _keep: keep, panics }.start();
            let mut house = House::new(RestartPolicy::always().max(1, 60 * S), start);
            house.started().await;
            assert_eq!(house.restarting().await, (100 * MS, death));
            house.time.advance(S).await;
            assert_eq!(house.started().await.1, Some(death));
            assert!(matches!(house.change().await, ChildChange::Failed { .. }));
            assert!(house.is_quiet());
        }
    });
}

/// It has come and gone on another thread before its factory returns: what counts is how it ended.
#[test]
fn a_child_that_dies_before_its_factory_returns_has_died_as_it_did() {
    on_stage(async {
        for (panics, death) in [(true, Death::Panicked), (false, Death::Stopped)] {
            let start = move |keep| {
                let arbiter = Arbiter::new().handle();
                let (gone, wait) = std::sync::mpsc::channel::<()>();
                // Dropped after the child, or instead of it.
                let keep: Keep = Box::new((keep, gone));
                let addr = Stillborn::start_in_arbiter(&arbiter, move |_| Stillborn { _keep: keep, panics });
                wait.recv().unwrap_err();
                arbiter.stop();
                addr
            };
            let mut house = House::new(RestartPolicy::always().max(1, 60 * S), start);
            assert_eq!(house.restarting().await, (100 * MS, death));
            house.time.advance(S).await;
            assert!(matches!(house.change().await, ChildChange::Failed { .. }));
            let mut house = House::new(RestartPolicy::on_failure(), start);
            match death {
                Death::Stopped => assert!(matches!(house.change().await, ChildChange::Ended)),
                _ => assert_eq!(house.restarting().await.1, death),
            }
            assert!(house.is_quiet());
        }
    });
}

#[test]
fn a_child_that_panics_while_it_is_dropped_has_panicked() {
    on_stage(async {
        let mut house = House::new(RestartPolicy::on_failure(), |keep| SoreLoser { _keep: keep }.start());
        let (first, _) = house.started().await;
        first.do_send(Die::Stop);
        assert_eq!(house.restarting().await.1, Death::Panicked);
        house.time.advance(S).await;
        house.started().await;
    });
}

/// On an arbiter that has ended nothing starts. That is a failure, and one that repeats itself.
#[test]
fn a_child_that_never_starts_spends_the_budget() {
    on_stage(async {
        let mut arbiter = Arbiter::new();
        let dead = arbiter.handle();
        arbiter.stop();
        arbiter.join().unwrap();
        arbiter = Arbiter::new();
        let mut house = House::new(RestartPolicy::on_failure().max(2, 60 * S), move |keep| {
            Child::start_in_arbiter(&dead, |_| Child { _keep: keep })
        });
        for _ in 0..2 {
            assert_eq!(house.restarting().await.1, Death::NotStarted);
            assert_eq!(house.link.get(), None, "nobody is led to an address that is dead");
            house.time.advance(S).await;
        }
        let ChildChange::Failed { reason } = house.change().await else { panic!("the budget was spent") };
        assert!(reason.contains("before it had started"), "{reason}");
        assert!(house.is_quiet());
        arbiter.stop();
    });
}

/// A child that nobody will ever hear of does not hide the panic of the factory that made it.
#[test]
fn a_factory_that_panics_too_late_counts_once() {
    on_stage(async {
        let mut starts = 0;
        let mut house = House::new(RestartPolicy::on_failure(), move |keep| {
            let addr = child(keep);
            starts += 1;
            assert!(starts > 1, "on purpose");
            addr
        });
        assert_eq!(house.restarting().await.1, Death::Panicked);
        house.time.advance(S).await;
        let (second, cause) = house.started().await;
        assert_eq!(cause, Some(Death::Panicked));
        house.time.advance(3600 * S).await;
        assert!(house.is_quiet() && second.connected(), "the end of the first is nobody's business");
    });
}

/// The time between a death and the next start is no life: waiting long does not make the waits short
/// again.
#[test]
fn a_child_that_dies_at_once_waits_longer_and_longer() {
    on_stage(async {
        let policy = RestartPolicy::always().unlimited(60 * S);
        let mut house = House::new(policy, |keep| Stillborn { _keep: keep, panics: true }.start());
        let mut waits = Vec::new();
        for _ in 0..20 {
            house.started().await;
            let (after, _) = house.restarting().await;
            waits.push(after.as_millis());
            house.time.advance(after).await;
        }
        let growing = (0..9).map(|power| 100 << power);
        let expected: Vec<u128> = growing.chain(std::iter::repeat_n(30_000, 11)).collect();
        assert_eq!(waits, expected);
    });
}

#[test]
fn children_of_one_name_do_not_come_back_together() {
    on_stage(async {
        let backoff = Backoff::fixed(S).jitter(1.0);
        let policy = RestartPolicy::on_failure().backoff(backoff);
        let mut waits = Vec::new();
        for _ in 0..2 {
            let mut house = House::new(policy, child);
            house.started().await.0.do_send(Die::Panic);
            waits.push(house.restarting().await.0);
        }
        assert!(waits[0] != waits[1] && waits.iter().all(|wait| *wait <= S), "{waits:?}");
    });
}

#[test]
fn a_guardian_whose_address_nobody_holds_does_its_work() {
    on_stage(async {
        let time = VirtualClock::starting_at("2026-01-01T00:00:00Z");
        let (sender, mut notices) = mpsc::unbounded();
        let (owner, link) = Link::new();
        let owner = Owner { notices: sender, link: owner }.start();
        let policy = RestartPolicy::on_failure();
        drop(Guardian::new("child", policy, time.clock(), child, owner.recipient()).start());
        for _ in 0..3 {
            let first = link.wait().await.unwrap();
            first.do_send(Die::Panic);
            drop(first);
            while !matches!(notices.next().await.unwrap(), ChildChange::Restarting { .. }) {}
            time.advance(S).await;
        }
        assert!(link.wait().await.unwrap().connected());
    });
}

/// Budgets and waits are elapsed time: whoever sets the clock changes neither.
#[test]
fn setting_the_clock_neither_refills_a_budget_nor_stretches_a_wait() {
    on_stage(async {
        let mut house = House::new(RestartPolicy::on_failure().max(1, 60 * S), child);
        let begin = house.time.clock().now();
        let day = chrono::TimeDelta::days(1);
        house.started().await.0.do_send(Die::Panic);
        house.restarting().await;
        house.time.set(begin - day).await;
        house.time.advance(99 * MS).await;
        assert!(house.is_quiet());
        house.time.advance(MS).await;
        let (second, _) = house.started().await;
        house.time.set(begin + day).await;
        second.do_send(Die::Panic);
        assert!(matches!(house.change().await, ChildChange::Failed { .. }));
    });
}

/// The window slides: a start counts until so much time has passed since.
#[test]
fn the_window_of_a_budget_slides() {
    on_stage(async {
        let policy = RestartPolicy::on_failure().max(2, 10 * S).backoff(Backoff::NONE);
        let mut house = House::new(policy, child);
        // Restarts at 0, 6, 10, 16, 20, … : never three within ten seconds.
        for lives in [0, 6, 4, 6, 4, 6, 4] {
            let (alive, _) = house.started().await;
            house.time.advance(lives * S).await;
            alive.do_send(Die::Panic);
            house.restarting().await;
            house.time.settle().await;
        }
        let (alive, _) = house.started().await;
        house.time.advance(5 * S).await;
        alive.do_send(Die::Panic);
        assert!(matches!(house.change().await, ChildChange::Failed { .. }), "at 30, and at 35 the third");
    });
}

/// Whoever holds the link gets through to each successor, and what was sent to a dead one comes back
/// as an error.
#[test]
fn a_link_leads_past_an_address_that_is_dead() {
    on_stage(async {
        let mut house = House::new(RestartPolicy::on_failure(), child);
        let (first, _) = house.started().await;
        first.do_send(Die::Panic);
        assert!(first.send(Die::Stop).await.is_err());
        // The death is not known here yet: the link still leads to the dead one.
        let stale = house.link.get();
        let (link, time) = (house.link.clone(), house.time.clone());
        let (next, ()) = futures::join!(link.wait_for(Addr::connected), time.advance(S));
        assert!(next.is_some_and(|next| next != first && next.connected()), "{:?}", stale.is_some());
        drop(house);
        let (owner, link) = Link::<u8>::new();
        let (gone, ()) = futures::join!(link.wait(), async { drop(owner) });
        assert_eq!(gone, None);
    });
}

/// Any order of deaths, dismissals and restorations: the notices tell one story, at most one child
/// counts, and none is started that nobody asked for.
#[test]
fn the_notices_tell_one_story() {
    on_stage(async {
        for seed in 1..60_u64 {
            let mut dice = seed;
            let mut roll = |sides: u64| {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (dice >> 33) % sides
            };
            let children = Rc::new(RefCell::new(Vec::<Addr<Child>>::new()));
            let made = children.clone();
            let mut house = House::new(RestartPolicy::always().max(3, 2 * S), move |keep| {
                let addr = child(keep);
                made.borrow_mut().push(addr.clone());
                addr
            });
            let mut story = Vec::new();
            for _ in 0..40 {
                let latest = children.borrow().last().cloned();
                match (roll(7), latest) {
                    (0 | 1, Some(latest)) => latest.do_send(Die::Panic),
                    (2, Some(latest)) => latest.do_send(Die::Stop),
                    (3, _) => house.guardian.send(Dismiss).await.unwrap(),
                    (4, _) => drop(house.guardian.send(Restore).await.unwrap()),
                    (_, _) => house.time.advance(roll(300) as u32 * MS).await,
                }
                if roll(2) == 0 {
                    house.time.settle().await;
                }
            }
            // Who was told to die does so first.
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            house.time.advance(3600 * S).await;
            let state = house.state().await;
            while let Ok(change) = house.notices.try_recv() {
                story.push(change);
            }
            let starts = story.iter().filter(|change| matches!(change, ChildChange::Started { .. })).count();
            assert_eq!(starts, children.borrow().len(), "seed {seed}: each start is told once");
            for pair in story.windows(2) {
                if matches!(pair[0], ChildChange::Restarting { .. } | ChildChange::Failed { .. }) {
                    assert!(matches!(pair[1], ChildChange::Started { .. }), "seed {seed}");
                }
            }
            let told = match story.last() {
                Some(ChildChange::Started { child, .. }) => Some(child.clone()),
                _ => None,
            };
            match state {
                ChildState::Alive => {
                    let alive = told.filter(Addr::connected);
                    assert!(alive.is_some() && house.link.get() == alive, "seed {seed}");
                }
                ChildState::Failed { .. } => {
                    assert!(matches!(story.last(), Some(ChildChange::Failed { .. })), "seed {seed}");
                }
                ChildState::Dismissed => {}
                other => panic!("seed {seed}: {other:?} is no end"),
            }
        }
    });
}
