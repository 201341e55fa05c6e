//! Changes that are in a journal and not in the files.

use std::collections::BTreeMap;

use super::runs::RunChanges;
use crate::store::engine::Part;

/// A value that is to be, or none; `None` when it stays as it is.
pub(super) type Then = Option<Option<Vec<u8>>>;

/// What changes of a task.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub spec: Then,
    pub state: Then,
    pub runs: RunChanges,
}

impl Pending {
    pub(super) fn set(&mut self, part: Part<'_>, value: Option<Vec<u8>>) {
        match part {
            Part::Spec => self.spec = Some(value),
            Part::State => self.state = Some(value),
            Part::Run(run) => drop(self.runs.insert(run.to_vec(), value)),
        }
    }

    pub(super) fn get(&self, part: Part<'_>) -> Option<&Option<Vec<u8>>> {
        match part {
            Part::Spec => self.spec.as_ref(),
            Part::State => self.state.as_ref(),
            Part::Run(run) => self.runs.get(run),
        }
    }
}

/// By task.
pub(super) type Tasks = BTreeMap<String, Pending>;

/// The changes of the journal that are being brought to the files.
#[derive(Debug)]
pub(super) struct Settling {
    /// What is left of them.
    pub tasks: Tasks,
    /// They were left by the process before this one.
    pub inherited: bool,
}
