use std::fmt;
use std::process::ExitCode;

use crate::Error;
use crate::store::StoreError;

/// How the program ends. The numbers are a promise to scripts; `callboard --help` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Success = 0,
    /// Something failed that has no number of its own.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// A configuration, a task or a trigger is not valid.
    Invalid = 3,
    /// No service runs on the data directory.
    NotRunning = 4,
    /// Another service has the data directory.
    InUse = 5,
    /// What is stored cannot be read. Nothing was deleted.
    Damaged = 6,
    /// There is no such task, or no such store.
    NotFound = 7,
    /// The task exists already, or its state does not allow it, or a store to be filled is not empty.
    Conflict = 8,
    /// The service ended before its runs did: the grace was over, or a second signal came.
    CutOff = 9,
    /// Done, but for records of a store, or whole stores, that cannot be read.
    Partly = 10,
    /// The system does not give what the program needs: file descriptors, threads, or a clock.
    Starved = 11,
    /// A directory belongs to another user, or everybody may write to it.
    Untrusted = 12,
}

impl Exit {
    /// The exit codes for people, one a line.
    pub(super) const TABLE: &str = "\
Exit codes:
   0  done
   1  something failed that has no number of its own
   2  the command line is wrong
   3  a configuration, a task or a trigger is not valid
   4  no service runs on the data directory
   5  another service has the data directory
   6  what is stored cannot be read (nothing was deleted)
   7  there is no such task, or no such store
   8  the task exists already, or its state does not allow it, or a store to be filled is not empty
   9  the service ended before its runs did: the grace was over, or a second signal came
  10  done, but some records, or the tasks of a store, cannot be read: they were left, or taken along, as they are
  11  the system does not give what the program needs: file descriptors, threads, or a clock
  12  a directory belongs to another user, or everybody may write to it (--trust-data takes it)";

    fn of_store(error: &StoreError) -> Self {
        match error {
            StoreError::NotFound(_) => Self::NotFound,
            StoreError::Exists(_) | StoreError::Changed(_) => Self::Conflict,
            StoreError::InUse { .. } => Self::InUse,
            StoreError::Damaged { .. } | StoreError::Unreadable { .. } => Self::Damaged,
            StoreError::TooLarge { .. } | StoreError::Unstorable { .. } | StoreError::Keys(_) => {
                Self::Invalid
            }
            StoreError::Occupied { .. } => Self::Conflict,
            StoreError::Unsupported { .. } => Self::Invalid,
            _ => Self::Failed,
        }
    }

    /// The word for it in the control protocol.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::Invalid => "invalid",
            Self::NotRunning => "not_running",
            Self::InUse => "in_use",
            Self::Damaged => "damaged",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::CutOff => "cut_off",
            Self::Partly => "partly",
            Self::Starved => "starved",
            Self::Untrusted => "untrusted",
        }
    }

    /// The code a word stands for; words of later versions are plain failures.
    pub(super) fn from_word(word: &str) -> Self {
        use Exit::*;
        let all = [
            Usage, Invalid, NotRunning, InUse, Damaged, NotFound, Conflict, CutOff, Partly, Starved,
            Untrusted,
        ];
        all.into_iter().find(|exit| exit.word() == word).unwrap_or(Failed)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// Why a command did not succeed: what is printed, and the exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    pub(super) message: String,
}

impl Failure {
    pub(super) fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit, message: message.to_string() }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::new(Exit::of_store(&error), error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match &error {
            Error::Store { source, .. } => Exit::of_store(source),
            Error::Refused { .. } => Exit::Conflict,
            Error::NotDue { id, next } => {
                let until = next.map(|next| format!(" before {}", next.to_rfc3339())).unwrap_or_default();
                let message = format!(
                    "nothing of task `{id}` is due{until}; leave --only-if-due out to run it all the same"
                );
                return Self::new(Exit::Conflict, message);
            }
            Error::UnknownExecutor { .. } | Error::UnknownStore { .. } => Exit::Invalid,
            Error::TaskExists(id) => {
                let message = format!("a task `{id}` exists already; choose another --id, or add --replace");
                return Self::new(Exit::Conflict, message);
            }
            Error::UnknownTask(id) => {
                let message = format!("there is no task `{id}`; `callboard list` shows the tasks there are");
                return Self::new(Exit::NotFound, message);
            }
            error if error.is_not_found() => Exit::NotFound,
            error if error.is_conflict() => Exit::Conflict,
            error if error.is_invalid() => Exit::Invalid,
            _ => Exit::Failed,
        };
        Self::new(exit, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_listed_and_has_a_word_of_its_own() {
        for (number, word) in [
            (Exit::Usage, "usage"),
            (Exit::Invalid, "invalid"),
            (Exit::NotRunning, "not_running"),
            (Exit::InUse, "in_use"),
            (Exit::Damaged, "damaged"),
            (Exit::NotFound, "not_found"),
            (Exit::Conflict, "conflict"),
            (Exit::CutOff, "cut_off"),
            (Exit::Partly, "partly"),
            (Exit::Starved, "starved"),
            (Exit::Untrusted, "untrusted"),
        ] {
            assert_eq!(Exit::from_word(word), number);
            assert!(Exit::TABLE.contains(&format!("\n  {:>2}  ", number as u8)));
        }
        assert_eq!(Exit::from_word("something newer"), Exit::Failed);
    }
}
