//! Zones that one database lacks and another one has.

use std::collections::HashMap;

use super::{Slot, Zone, Zones, with};

impl Zones {
    /// Whether it does not have a zone that another database has.
    pub(crate) fn lacks_of(&self, other: &Zones) -> bool {
        other.slots.iter().enumerate().any(|(number, slot)| self.lacks(number) && slot.is_known())
    }

    fn lacks(&self, number: usize) -> bool {
        self.slots.get(number).is_none_or(|slot| !slot.is_known())
    }

    /// The same with the zones of another database that it does not have.
    pub(crate) fn with_missing(&self, other: &Zones) -> Zones {
        let most = self.slots.len().max(other.slots.len());
        let slot = |number: usize| match self.lacks(number) {
            true => other.slots.get(number).map_or_else(Slot::empty, Slot::share),
            false => self.slots.get(number).map_or_else(Slot::empty, Slot::share),
        };
        Zones {
            source: self.source.clone(),
            version: self.version.clone(),
            digest: self.digest,
            slots: (0..most).map(slot).collect(),
        }
    }

    /// The same with the names of another database that it does not have. Another name of a zone that it
    /// has means that zone.
    pub(crate) fn completed_by(&self, other: &Zones) -> Zones {
        let known =
            other.slots.iter().enumerate().filter(|(number, slot)| !self.lacks(*number) && slot.is_known());
        // Links are files of the same content.
        let twins: HashMap<&[u8], usize> = known.map(|(number, slot)| (slot.data, number)).collect();
        let mut completed = self.with_missing(other);
        for (number, slot) in other.slots.iter().enumerate() {
            if !self.lacks(number) || !slot.is_known() {
                continue;
            }
            let twin = twins.get(slot.data).filter(|_| !slot.data.is_empty());
            if let Some(twin) = twin.and_then(|twin| self.slots.get(*twin)) {
                completed.slots[number] = twin.share();
            }
            let name = Zone::numbered(number).map_or("", Zone::name);
            completed.digest = with(completed.digest, name, slot.data);
        }
        completed
    }
}
