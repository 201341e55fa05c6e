use std::any::Any;
use std::error::Error as StdError;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::Refusal;

/// Why code did not end well. Each kind becomes an [`Outcome`](super::Outcome) of its own.
///
/// Code that returns a `Result` need not know it: any error fails the run. Code that knows better
/// returns a `Failure` as its error.
///
/// ```
/// use callboard::task::{Failure, Registry, TaskContext};
///
/// let registry = Registry::new().register("fetch", |_: TaskContext, ()| async {
///     Err::<(), _>(Failure::Interrupted("the other side hung up".to_owned()))
/// });
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// It failed: the error as text with the chain of its causes, `outer: inner: root`.
    #[error("{0}")]
    Failed(String),
    /// It was not begun, because what it needs takes nothing on.
    #[error(transparent)]
    Refused(Refusal),
    /// It took longer than the code itself lets it take.
    #[error("took longer than {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// It was begun, and what did the work ended before the work did.
    #[error("{0}")]
    Interrupted(String),
}

impl Failure {
    /// It failed, for this reason.
    pub fn new(error: impl Into<String>) -> Self {
        Self::Failed(error.into())
    }

    /// Collects the chain of causes.
    pub fn from_error(error: &(dyn StdError + 'static)) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            let inner_text = inner.to_string();
            // Many errors already print their source; saying it twice helps nobody.
            if !text.ends_with(&inner_text) {
                text = format!("{text}: {inner_text}");
            }
            cause = inner.source();
        }
        Self::Failed(text)
    }
}

/// What task code may return: nothing, or a `Result` whose value can be written as JSON.
pub trait TaskReturn {
    /// The value as JSON, or the failure.
    fn into_result(self) -> Result<Value, Failure>;
}

impl TaskReturn for () {
    fn into_result(self) -> Result<Value, Failure> {
        Ok(Value::Null)
    }
}

impl<T: Serialize, E: Into<Box<dyn StdError + Send + Sync>>> TaskReturn for Result<T, E> {
    fn into_result(self) -> Result<Value, Failure> {
        match self {
            Ok(value) => serde_json::to_value(value).map_err(|error| {
                Failure::new(format!("the returned value cannot be written as JSON: {error}"))
            }),
            Err(error) => match error.into().downcast::<Failure>() {
                Ok(failure) => Err(*failure),
                Err(error) => Err(Failure::from_error(&*error)),
            },
        }
    }
}

/// The text of a panic.
pub(crate) fn panic_message(panic: Box<dyn Any + Send>) -> String {
    let text = if let Some(text) = panic.downcast_ref::<&'static str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "(a value that is not text)".to_owned()
    };
    // The value is the user's, and its drop may panic again.
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(again);
    }
    text
}
