//! Places in an executor whose room is bounded, and those who wait for one.

use std::fmt;
use std::time::Duration;

use actix::prelude::*;

use super::message::Vacant;

/// How much more a runner takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Room {
    /// Any number of jobs.
    Any,
    /// So many jobs.
    Places(usize),
    /// None, because something is the matter with it.
    Closed {
        /// What it is.
        reason: String,
        /// After how long it is worth while to look again, in real time.
        look_again: Duration,
    },
}

/// Places that were reserved in an executor. Dropped, they are given back.
pub struct Seats {
    count: usize,
    home: Option<Recipient<GiveBack>>,
}

/// Places that nobody needs any more.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct GiveBack(pub(super) usize);

impl Seats {
    /// No places: whoever has them to submit runs waits for some.
    pub fn none() -> Self {
        Self { count: 0, home: None }
    }

    pub(super) fn new(count: usize, home: Recipient<GiveBack>) -> Self {
        Self { count, home: Some(home) }
    }

    /// How many places they are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Ends the reservation: the runs are there that it was made for.
    pub(super) fn settle(mut self) -> usize {
        std::mem::take(&mut self.count)
    }
}

impl Drop for Seats {
    fn drop(&mut self) {
        if let Some(home) = self.home.take().filter(|_| self.count > 0) {
            home.do_send(GiveBack(self.count));
        }
    }
}

impl fmt::Debug for Seats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Seats").field(&self.count).finish()
    }
}

/// The places of one executor that are reserved, and who is to be told of free ones.
#[derive(Default)]
pub(super) struct Places {
    reserved: usize,
    watcher: Option<Recipient<Vacant>>,
}

impl Places {
    /// How many of `room` places are free, when `overflow` runs wait for one already.
    pub(super) fn free(&self, room: &Room, overflow: usize) -> usize {
        match room {
            Room::Any => usize::MAX,
            Room::Places(places) => places.saturating_sub(self.reserved).saturating_sub(overflow),
            Room::Closed { .. } => 0,
        }
    }

    /// Gives `free` places to those who need one, in order; whether each is taken, and how many
    /// places that takes.
    pub(super) fn grant(&mut self, free: usize, needs: impl Iterator<Item = bool>) -> (Vec<bool>, usize) {
        let mut taken = 0;
        let granted = needs.map(|needs| {
            let place = needs && taken < free;
            taken += usize::from(place);
            place || !needs
        });
        let granted = granted.collect();
        self.reserved += taken;
        (granted, taken)
    }

    pub(super) fn give_back(&mut self, places: usize) {
        self.reserved = self.reserved.saturating_sub(places);
    }

    /// Somebody waits for a place.
    pub(super) fn watch(&mut self, watcher: Recipient<Vacant>) {
        self.watcher = Some(watcher);
    }

    pub(super) fn is_watched(&self) -> bool {
        self.watcher.is_some()
    }

    /// Who is to be told, once.
    pub(super) fn take_watcher(&mut self) -> Option<Recipient<Vacant>> {
        self.watcher.take()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn those_who_need_a_place_get_one_in_order() {
        let mut places = Places::default();
        let (granted, taken) = places.grant(2, [true, false, true, true, false].into_iter());
        assert_eq!((granted, taken), (vec![true, true, true, false, true], 2));
        assert_eq!(places.free(&Room::Places(3), 0), 1);
        assert_eq!(places.free(&Room::Places(3), 1), 0, "who waits already comes first");
        let closed = Room::Closed { reason: String::new(), look_again: Duration::ZERO };
        assert_eq!(places.free(&closed, 0), 0);
        places.give_back(2);
        assert_eq!(places.free(&Room::Places(3), 0), 3);
    }

    proptest! {
        /// However places are asked for and given back, no more are out than there are.
        #[test]
        fn no_more_are_given_than_there_are(steps in prop::collection::vec((0usize..9, any::<bool>()), 0..60)) {
            let mut places = Places::default();
            let mut out = Vec::new();
            for (number, ask) in steps {
                if ask {
                    let free = places.free(&Room::Places(10), 0);
                    let (granted, taken) = places.grant(free, (0..number).map(|_| true));
                    prop_assert_eq!(granted.iter().filter(|granted| **granted).count(), taken);
                    prop_assert_eq!(taken, number.min(free));
                    out.push(taken);
                } else if let Some(taken) = out.pop() {
                    places.give_back(taken);
                }
                prop_assert!(out.iter().sum::<usize>() <= 10);
                prop_assert_eq!(places.free(&Room::Places(10), 0), 10 - out.iter().sum::<usize>());
            }
        }
    }
}
