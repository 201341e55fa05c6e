use std::sync::Arc;

use crate::task::TaskId;

/// Why a store did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// There is no such task.
    #[error("there is no task `{0}`")]
    NotFound(TaskId),
    /// A task of this id exists already.
    #[error("a task `{0}` exists already; choose another id, or add it with `replace_existing(true)`")]
    Exists(TaskId),
    /// The task was changed meanwhile.
    #[error("task `{0}` was changed by somebody else meanwhile; read it and try again")]
    Changed(TaskId),
    /// The task is larger than a row may be.
    #[error(
        "task `{id}` takes {size} bytes, more than the {limit} a row may have; keep large arguments elsewhere and pass a key"
    )]
    TooLarge {
        /// The task.
        id: TaskId,
        /// Its size encoded, in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The task cannot be written down (a closure, say).
    #[error("task `{id}` cannot be stored: {reason}")]
    Unstorable {
        /// The task.
        id: TaskId,
        /// Why.
        reason: String,
    },
    /// Another process has the store (or this one has it twice).
    #[error("{place} is in use by {}; stop it, or use another directory", process(*holder))]
    InUse {
        /// The store's directory or address.
        place: String,
        /// The id of the process, where it is known.
        holder: Option<u32>,
    },
    /// What is stored cannot be read.
    #[error("{place} is damaged: {reason}. Nothing was deleted; {advice}")]
    Damaged {
        /// The store's directory or address.
        place: String,
        /// What was found.
        reason: String,
        /// What to do.
        advice: String,
    },
    /// A record cannot be read as things are, and is not damaged: its key is missing, or it takes a newer
    /// version.
    #[error("{place} cannot be read: {reason}. Nothing was deleted; {advice}")]
    Unreadable {
        /// Which record.
        place: String,
        /// What is missing.
        reason: String,
        /// What to do.
        advice: String,
    },
    /// The store that was open is not where it was: its directory has vanished, is another one, or lacks its
    /// files. It is back when they are.
    #[error("the store that was open in {place} is gone: {reason}. Nothing was made in its place; {advice}")]
    Gone {
        /// The store's directory.
        place: String,
        /// What was found there.
        reason: String,
        /// What to do.
        advice: String,
    },
    /// The keys of an encrypted store cannot be had. Trying again may help.
    #[cfg(all(feature = "encryption", feature = "_durable"))]
    #[error("the store has no keys: {0}")]
    Keys(#[from] super::KeyError),
    /// What it holds is in the way.
    #[error("{reason}")]
    Occupied {
        /// What there is, and what to do.
        reason: String,
    },
    /// Stores of this kind cannot do it.
    #[error("the store cannot {deed}")]
    Unsupported {
        /// What.
        deed: &'static str,
    },
    /// The file of an export cannot be written or read. The store has no part in it. Trying again may
    /// help.
    #[error("{reason}")]
    File {
        /// Which file, and what the system says.
        reason: String,
        /// The error below, if there is one.
        #[source]
        source: Option<Arc<dyn std::error::Error + Send + Sync>>,
    },
    /// The store does not answer, or answered with an error of its own. Trying again may help.
    #[error("the store is unavailable: {reason}")]
    Unavailable {
        /// What the store or its connection said.
        reason: String,
        /// The error below, if there is one.
        #[source]
        source: Option<Arc<dyn std::error::Error + Send + Sync>>,
    },
}

impl StoreError {
    /// The store is unavailable, for `reason`, which may be the text of such an error.
    ///
    /// ```
    /// use callboard::store::StoreError;
    ///
    /// let error = StoreError::unavailable("no answer");
    /// assert_eq!(error.to_string(), "the store is unavailable: no answer");
    /// assert_eq!(StoreError::unavailable(error.to_string()).to_string(), error.to_string());
    /// ```
    pub fn unavailable(reason: impl Into<String>) -> Self {
        let mut reason = reason.into();
        if let Some(bare) = reason.strip_prefix("the store is unavailable: ") {
            reason = bare.to_owned();
        }
        Self::Unavailable { reason, source: None }
    }

    /// Whether trying the same again later may succeed.
    pub fn is_retryable(&self) -> bool {
        #[cfg(all(feature = "encryption", feature = "_durable"))]
        if matches!(self, Self::Keys(_)) {
            return true;
        }
        matches!(self, Self::Unavailable { .. } | Self::InUse { .. } | Self::Gone { .. } | Self::File { .. })
    }
}

fn process(id: Option<u32>) -> String {
    id.map_or_else(|| "another process".to_owned(), |id| format!("process {id}"))
}

impl From<actix::MailboxError> for StoreError {
    fn from(error: actix::MailboxError) -> Self {
        Self::Unavailable { reason: "its actor has stopped".to_owned(), source: Some(Arc::new(error)) }
    }
}
