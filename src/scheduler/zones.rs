//! The rules by which clocks are read, as the scheduler has them in force.

use std::sync::{Arc, RwLock};

use crate::trigger::Zones;

/// The rules in force. The scheduler's actor alone replaces them, and what it has under way asks for
/// them at the moment of each decision: all on one thread, so that nobody ever waits for the lock.
#[derive(Debug)]
pub(super) struct InForce(RwLock<Arc<Zones>>);

impl InForce {
    pub(super) fn new(zones: Arc<Zones>) -> Self {
        Self(RwLock::new(zones))
    }

    pub(super) fn get(&self) -> Arc<Zones> {
        self.0.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }
}
