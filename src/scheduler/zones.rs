//! The rules by which clocks are read, as the scheduler has them in force, and the database they are from,
//! which may change.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use actix::fut::wrap_future;
use actix::prelude::*;
use futures::channel::oneshot;

use super::actor::Scheduler;
use super::message::ReloadTimezones;
use super::replan::Replanning;
use crate::clock::Busy;
use crate::error::Error;
use crate::event::Event;
use crate::timer;
use crate::timezones::{Loaded, Release, Timezones, TimezonesError};
use crate::trigger::Zones;

/// How often the files of the database are looked at.
const LOOK: Duration = Duration::from_secs(60);

/// The rules in force. The scheduler's actor alone replaces them, and what it has under way asks for
/// them at the moment of each decision: all on one thread, so that nobody ever waits for the lock.
#[derive(Debug)]
pub(super) struct InForce(RwLock<Arc<Zones>>);

impl InForce {
    pub(super) fn new(zones: Arc<Zones>) -> Self {
        Self(RwLock::new(zones))
    }

    /// Puts others in their place, and answers which these were.
    fn replace(&self, zones: Arc<Zones>) -> Arc<Zones> {
        let mut present = self.0.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        std::mem::replace(&mut *present, zones)
    }

    pub(super) fn get(&self) -> Arc<Zones> {
        self.0.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }
}

/// What is known of the database.
#[derive(Debug, Default)]
pub(super) struct Watched {
    /// Its files, as they were when the rules in force were read.
    seen: Option<u64>,
    /// When they were looked at last, by the monotonic clock.
    looked: Option<Duration>,
    /// Why it could not be used the last time.
    problem: Option<String>,
}

impl Watched {
    /// `seen` was looked up before the rules in force were read.
    pub(super) fn new(seen: Option<u64>, looked: Duration) -> Self {
        Self { seen, looked: Some(looked), problem: None }
    }
}

type Answer = oneshot::Sender<Result<Release, Error>>;

impl Scheduler {
    /// Sees to it that the database is looked at now and then while the scheduler works.
    pub(super) fn watch_zones(&mut self, ctx: &mut Context<Self>) {
        let Some(source) = self.settings.timezones.as_ref().filter(|_| self.settings.watches_timezones)
        else {
            return;
        };
        if !self.is_open() {
            if let Some(nap) = self.zones_nap.take() {
                ctx.cancel_future(nap);
            }
        } else if self.zones_nap.is_none() && source.may_change() {
            let clock = self.clock();
            let passed = self.estate.watched.looked.map(|looked| clock.monotonic().saturating_sub(looked));
            let nap = timer::sleep(clock, LOOK.saturating_sub(passed.unwrap_or(LOOK)));
            let nap = wrap_future::<_, Self>(nap).map(|busy, scheduler, ctx| {
                scheduler.look_at_zones(false, busy, None, ctx);
            });
            self.zones_nap = Some(ctx.spawn(nap));
        }
    }

    /// Reads the database again if its files have changed, or if that is `forced`.
    fn look_at_zones(&mut self, forced: bool, busy: Busy, answer: Option<Answer>, ctx: &mut Context<Self>) {
        let Some(source) = self.settings.timezones.clone() else {
            let present = Release::of(&self.settings.zones.get());
            answer.map(|answer| answer.send(Ok(present)).ok());
            return;
        };
        let (present, today) = (self.settings.zones.get(), self.clock().now());
        let seen = self.estate.watched.seen.filter(|_| !forced);
        let looked = actix_rt::task::spawn_blocking(move || look(&source, seen, today, &present));
        ctx.spawn(wrap_future::<_, Self>(looked).map(move |looked, scheduler, ctx| {
            if !forced {
                scheduler.zones_nap = None;
            }
            scheduler.estate.watched.looked = Some(scheduler.clock().monotonic());
            let told = match looked {
                Ok(None) => Ok(()),
                Ok(Some((seen, loaded))) => scheduler.zones_read(seen, loaded),
                // It is tried again a minute later.
                Err(error) => Err(Error::Setting { setting: "timezones", reason: error.to_string() }),
            };
            let present = Release::of(&scheduler.settings.zones.get());
            answer.map(|answer| answer.send(told.map(|()| present)).ok());
            scheduler.arm(ctx);
            // A virtual clock stands still until the alarm is set.
            drop(busy);
        }));
    }

    /// The database was read, or could not be.
    fn zones_read(&mut self, seen: u64, loaded: Result<Loaded, TimezonesError>) -> Result<(), Error> {
        let in_force = self.settings.zones.get();
        let loaded = loaded.map_err(Error::from).and_then(|loaded| {
            let zone = self.settings.timezone;
            match loaded.zones.rules(zone) {
                Some(_) => Ok(loaded),
                None => Err(Error::Setting {
                    setting: "timezone",
                    reason: format!("is {zone}, which the time zone database does not have any more"),
                }),
            }
        });
        let Loaded { zones, warnings } = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                let cause = error.to_string();
                // Its files may be about to be replaced: it is read again, changed or not.
                self.estate.watched.seen = None;
                if self.estate.watched.problem.as_ref() != Some(&cause) {
                    let rules = Release::of(&in_force);
                    tracing::warn!(
                        scheduler = %self.settings.name, %cause, in_force = %rules,
                        "the time zone database has changed and cannot be used; the rules in force stay"
                    );
                    self.estate.watched.problem = Some(cause.clone());
                    self.tell(Event::TimezonesUnusable { cause, rules });
                }
                return Err(error);
            }
        };
        self.estate.watched.seen = Some(seen);
        self.estate.watched.problem = None;
        let (from, to) = (Release::of(&in_force), Release::of(&zones));
        if zones.digest() == in_force.digest() && from == to {
            return Ok(());
        }
        for warning in warnings {
            tracing::warn!(scheduler = %self.settings.name, "{warning}");
        }
        tracing::warn!(scheduler = %self.settings.name, %from, %to, "the rules of time zones have changed");
        let digest = zones.digest();
        self.settings.zones.replace(zones.clone());
        self.tell(Event::TimezonesChanged { from, to, rules: zones });
        for slot in self.estate.stores.values_mut() {
            // One that is not open says by itself by which rules its tasks are planned.
            let differs = slot.rules.as_ref().is_none_or(|rules| rules.digest != digest);
            if slot.addr.is_some() && (differs || slot.rezoning != Replanning::No) {
                slot.rezoning.want();
            }
        }
        Ok(())
    }
}

/// What is there now, if it is not what was seen.
fn look(
    source: &Timezones,
    seen: Option<u64>,
    today: chrono::DateTime<chrono::Utc>,
    present: &Zones,
) -> Option<(u64, Result<Loaded, TimezonesError>)> {
    if seen.is_some_and(|seen| source.look() == seen) {
        return None;
    }
    Some(match source.load_again(today, present) {
        Ok((loaded, seen)) => (seen, Ok(loaded)),
        Err(error) => (0, Err(error)),
    })
}

impl Handler<ReloadTimezones> for Scheduler {
    type Result = ResponseActFuture<Self, Result<Release, Error>>;

    fn handle(&mut self, _: ReloadTimezones, ctx: &mut Self::Context) -> Self::Result {
        let (answer, read) = oneshot::channel();
        let busy = self.clock().busy();
        self.look_at_zones(true, busy, Some(answer), ctx);
        Box::pin(wrap_future(async move { read.await.unwrap_or(Err(Error::Gone)) }))
    }
}
