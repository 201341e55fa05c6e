//! The attribute behind `#[callboard::task(…)]`.
//!
//! Use it through [callboard](https://docs.rs/callboard) with its feature `macros`; the options are
//! listed there, at `callboard::task`. What it writes is what anybody could write by hand with
//! `callboard::declare`: it decides nothing of its own.

mod expand;
mod options;
mod signature;
mod table;
mod text;

use proc_macro::TokenStream;

/// Declares a task next to its function: see `callboard::task`.
///
/// ```text
/// #[callboard::task(id = "weekly", cron = "0 8 * * mon", args = "weekly")]
/// async fn send(run: TaskContext, list: String) -> Result<usize, SendError> { … }
/// ```
#[proc_macro_attribute]
pub fn task(options: TokenStream, function: TokenStream) -> TokenStream {
    expand::task(options.into(), function.into()).into()
}
