use std::error::Error as StdError;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::task::panic_message;

/// An error of any type, as it is passed on and logged.
pub(super) type AnyError = Box<dyn StdError + Send + Sync>;

/// What a keyed or spawned future may come to: nothing, or a `Result`.
///
/// The error may be an error type, a boxed error or a text.
pub trait FutureEnd {
    /// What it brings when all went well.
    type Value;

    /// The value, or the error.
    fn into_result(self) -> Result<Self::Value, Box<dyn StdError + Send + Sync>>;
}

impl FutureEnd for () {
    type Value = ();

    fn into_result(self) -> Result<(), AnyError> {
        Ok(())
    }
}

impl<T, E: Into<AnyError>> FutureEnd for Result<T, E> {
    type Value = T;

    fn into_result(self) -> Result<T, AnyError> {
        self.map_err(Into::into)
    }
}

/// Runs `code`; the message of its panic when there was one.
pub(super) fn guarded<T>(code: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(code)).map_err(panic_message)
}
