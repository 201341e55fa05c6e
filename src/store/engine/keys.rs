//! The layout: everything lies in one table, so that one batch is one atomic write.
//!
//! ```text
//! s <id>                      → spec
//! t <id>                      → state
//! r <id> 0 <owner> <serial>   → run record; sorts by time within a task
//! o <owner> <serial>          → id of the task whose run has no end yet
//! g <number>                  → id of a task that was removed; its run records are still there
//! w                           → until when records may be missing, in milliseconds
//! l                           → the owner that sorts last among those who began runs
//! m                           → mark: format, number of the latest batch
//! i                           → identity of the store, made at random when it is first opened
//! z                           → by which rules of time zones the next runs were worked out
//! q <key>                     → since when the record under this key is in quarantine
//! x                           → there while an import is under way
//! ```
//!
//! Numbers are big-endian, so that keys sort as numbers do; an id has no control characters, so
//! that the zero byte ends it. There is no tree of due times: which task is due when follows from
//! the states, and the index of the memory store is built from them at the start.

use crate::task::{OwnerId, RunId, TaskId};

pub(in crate::store) const SPEC: &[u8] = b"s";
pub(in crate::store) const STATE: &[u8] = b"t";
pub(in crate::store) const RUN: &[u8] = b"r";
pub(super) const OPEN_RUN: &[u8] = b"o";
pub(super) const GONE: &[u8] = b"g";
#[cfg(any(feature = "sled", feature = "redb"))]
pub(in crate::store) const MARK: &[u8] = b"m";

pub(super) const LATEST_OWNER: &[u8] = b"l";
pub(super) const GONE_UNTIL: &[u8] = b"w";
pub(in crate::store) const IDENTITY: &[u8] = b"i";
pub(super) const RULES: &[u8] = b"z";
pub(super) const QUARANTINE: &[u8] = b"q";
pub(super) const IMPORTING: &[u8] = b"x";

const NUMBER: usize = size_of::<u64>();

fn joined(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

pub(super) fn spec(id: &TaskId) -> Vec<u8> {
    joined(&[SPEC, id.as_str().as_bytes()])
}

pub(super) fn state(id: &TaskId) -> Vec<u8> {
    joined(&[STATE, id.as_str().as_bytes()])
}

pub(super) fn runs(task: &TaskId) -> Vec<u8> {
    joined(&[RUN, task.as_str().as_bytes(), &[0]])
}

pub(super) fn run(task: &TaskId, run: RunId) -> Vec<u8> {
    joined(&[&runs(task), &run.owner.0.to_be_bytes(), &run.serial.to_be_bytes()])
}

pub(super) fn open_run(run: RunId) -> Vec<u8> {
    joined(&[OPEN_RUN, &run.owner.0.to_be_bytes(), &run.serial.to_be_bytes()])
}

pub(super) fn gone(number: u64) -> Vec<u8> {
    joined(&[GONE, &number.to_be_bytes()])
}

pub(super) fn quarantine(key: &[u8]) -> Vec<u8> {
    joined(&[QUARANTINE, key])
}

/// A row that says something about a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Row {
    Spec(TaskId),
    State(TaskId),
    Run(TaskId, RunId),
}

impl Row {
    /// What lies under a key; nothing when that is no row about a task, or its id cannot be one.
    pub(super) fn at(key: &[u8]) -> Option<Self> {
        match key.get(..1)? {
            SPEC => id_of(key).ok().map(Self::Spec),
            STATE => id_of(key).ok().map(Self::State),
            RUN => {
                let id = key.get(..key.len().checked_sub(2 * NUMBER + 1)?)?;
                Some(Self::Run(id_of(id).ok()?, run_of(key)?)).filter(|row| row.key() == key)
            }
            _ => None,
        }
    }

    pub(super) fn key(&self) -> Vec<u8> {
        match self {
            Self::Spec(id) => spec(id),
            Self::State(id) => state(id),
            Self::Run(id, run) => self::run(id, *run),
        }
    }

    pub(super) fn task(&self) -> &TaskId {
        match self {
            Self::Spec(id) | Self::State(id) | Self::Run(id, _) => id,
        }
    }
}

/// The id in a key of a spec or a state, as far as it can be read.
pub(super) fn id_of(key: &[u8]) -> Result<TaskId, String> {
    let bytes = key.get(1..).unwrap_or_default();
    let text = String::from_utf8_lossy(bytes);
    TaskId::new(&text).ok().filter(|id| id.as_str().as_bytes() == bytes).ok_or_else(|| text.into_owned())
}

/// The run that the end of a key names.
pub(super) fn run_of(key: &[u8]) -> Option<RunId> {
    let (rest, serial) = key.split_last_chunk::<NUMBER>()?;
    let (_, owner) = rest.split_last_chunk::<NUMBER>()?;
    Some(RunId { owner: OwnerId(u64::from_be_bytes(*owner)), serial: u64::from_be_bytes(*serial) })
}

/// The number at the end of a key.
pub(super) fn number_of(key: &[u8]) -> Option<u64> {
    key.last_chunk::<NUMBER>().map(|bytes| u64::from_be_bytes(*bytes))
}

/// What a key has to do with a task.
#[cfg(feature = "file")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Part<'a> {
    Spec,
    State,
    /// A run; the rest of the key names it.
    Run(&'a [u8]),
}

#[cfg(feature = "file")]
impl Part<'_> {
    /// The key of this part of a task; the other way round is [`part_of`].
    pub(in crate::store) fn key(self, task: &str) -> Vec<u8> {
        match self {
            Self::Spec => joined(&[SPEC, task.as_bytes()]),
            Self::State => joined(&[STATE, task.as_bytes()]),
            Self::Run(run) => joined(&[RUN, task.as_bytes(), &[0], run]),
        }
    }
}

/// The task that a key belongs to, and as what; `None` for keys of the store as a whole.
#[cfg(feature = "file")]
pub(in crate::store) fn part_of(key: &[u8]) -> Option<(&str, Part<'_>)> {
    let (kind, rest) = key.split_at_checked(1)?;
    let (task, part) = match kind {
        SPEC => (rest, Part::Spec),
        STATE => (rest, Part::State),
        RUN => {
            let end = rest.iter().position(|byte| *byte == 0)?;
            (rest.get(..end)?, Part::Run(rest.get(end + 1..)?))
        }
        _ => return None,
    };
    let task = std::str::from_utf8(task).ok()?;
    TaskId::new(task).is_ok().then_some((task, part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_and_read_back() {
        let task = TaskId::new("день").unwrap();
        let id = |owner, serial| RunId { owner: OwnerId(owner), serial };
        assert!(run(&task, id(1, 0x1ff)) < run(&task, id(2, 3)));
        assert!(run(&task, id(2, 3)) < run(&task, id(2, 0x100)));
        assert_eq!(run_of(&run(&task, id(7, 9))), Some(id(7, 9)));
        assert_eq!(run_of(&open_run(id(7, 9))), Some(id(7, 9)));
        assert_eq!(id_of(&spec(&task)), Ok(task.clone()));
        assert_eq!(id_of(b"s\xff"), Err("\u{fffd}".to_owned()));
        for row in [Row::Spec(task.clone()), Row::State(task.clone()), Row::Run(task.clone(), id(7, 9))] {
            assert_eq!(Row::at(&row.key()), Some(row));
        }
        assert!(
            [MARK, IDENTITY, &quarantine(&spec(&task)), b"", b"r", b"ra\0", b"s"]
                .iter()
                .all(|key| Row::at(key).is_none())
        );
        // The records of `a` are not among those of `a b`, nor the other way round.
        let (a, ab) = (TaskId::new("a").unwrap(), TaskId::new("a b").unwrap());
        assert!(!run(&ab, id(1, 1)).starts_with(&runs(&a)));
    }
}
