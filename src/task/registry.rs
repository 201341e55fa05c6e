use std::collections::hash_map::Entry;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use rustc_hash::FxHashMap;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Failure, TaskContext, TaskError, TaskReturn};
use crate::trigger::{CustomTrigger, Trigger, TriggerError};

/// A run of asynchronous code: the value it returned as JSON, or why it failed.
pub type TaskFuture = LocalBoxFuture<'static, Result<Value, Failure>>;

/// Asynchronous task code. The future need not be `Send`: it stays on the arbiter it starts on.
pub trait AsyncCode: Send + Sync + 'static {
    /// Starts a run.
    fn call(&self, context: TaskContext, args: &Value) -> TaskFuture;
}

/// Task code that blocks its thread.
pub trait BlockingCode: Send + Sync + 'static {
    /// Does the whole run.
    fn call(&self, context: TaskContext, args: &Value) -> Result<Value, Failure>;
}

/// Code a run can be made of.
#[derive(Clone)]
#[non_exhaustive]
pub enum Code {
    /// Asynchronous.
    Async(Arc<dyn AsyncCode>),
    /// Blocking.
    Blocking(Arc<dyn BlockingCode>),
}

impl Code {
    /// Code from an asynchronous function.
    pub fn from_async<F, A, Fut>(function: F) -> Self
    where
        F: Fn(TaskContext, A) -> Fut + Send + Sync + 'static,
        A: DeserializeOwned + 'static,
        Fut: Future + 'static,
        Fut::Output: TaskReturn,
    {
        Self::Async(Arc::new(Function { function, args: PhantomData }))
    }

    /// Code from a blocking function.
    pub fn from_blocking<F, A, R>(function: F) -> Self
    where
        F: Fn(TaskContext, A) -> R + Send + Sync + 'static,
        A: DeserializeOwned + 'static,
        R: TaskReturn,
    {
        Self::Blocking(Arc::new(Function { function, args: PhantomData }))
    }

    /// Whether it blocks its thread.
    pub fn is_blocking(&self) -> bool {
        matches!(self, Self::Blocking(_))
    }

    pub(crate) fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Async(a), Self::Async(b)) => Arc::ptr_eq(a, b),
            (Self::Blocking(a), Self::Blocking(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Async(_) => "Code::Async",
            Self::Blocking(_) => "Code::Blocking",
        })
    }
}

struct Function<F, A> {
    function: F,
    args: PhantomData<fn() -> A>,
}

fn decode<A: DeserializeOwned>(args: &Value) -> Result<A, Failure> {
    A::deserialize(args).map_err(|error| Failure::new(format!("the arguments do not decode: {error}")))
}

impl<F, A, Fut> AsyncCode for Function<F, A>
where
    F: Fn(TaskContext, A) -> Fut + Send + Sync + 'static,
    A: DeserializeOwned + 'static,
    Fut: Future + 'static,
    Fut::Output: TaskReturn,
{
    fn call(&self, context: TaskContext, args: &Value) -> TaskFuture {
        match decode(args) {
            Ok(args) => (self.function)(context, args).map(TaskReturn::into_result).boxed_local(),
            Err(failure) => std::future::ready(Err(failure)).boxed_local(),
        }
    }
}

impl<F, A, R> BlockingCode for Function<F, A>
where
    F: Fn(TaskContext, A) -> R + Send + Sync + 'static,
    A: DeserializeOwned + 'static,
    R: TaskReturn,
{
    fn call(&self, context: TaskContext, args: &Value) -> Result<Value, Failure> {
        (self.function)(context, decode(args)?).into_result()
    }
}

/// Handler names and the code they stand for. Stored tasks carry the name; the code is found here
/// at each run, so that a task outlives the program that made it.
///
/// ```
/// use callboard::task::{Registry, TaskContext};
///
/// #[derive(serde::Deserialize)]
/// struct Letter { list: String }
///
/// async fn send(_: TaskContext, letter: Letter) -> Result<usize, std::io::Error> {
///     Ok(letter.list.len())
/// }
///
/// let registry = Registry::new()
///     .register("send_newsletter", send)
///     .register_blocking("compress", |_: TaskContext, path: String| std::fs::metadata(path).map(|m| m.len()));
/// assert_eq!(registry.names(), ["compress", "send_newsletter"]);
/// ```
#[derive(Default, Clone)]
pub struct Registry {
    code: FxHashMap<Arc<str>, Code>,
    triggers: FxHashMap<String, Arc<dyn CustomTrigger>>,
    problem: Option<TaskError>,
}

impl Registry {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an asynchronous function. Its second parameter is decoded from the task's arguments
    /// (take `()` when there are none).
    pub fn register<F, A, Fut>(self, name: impl Into<String>, function: F) -> Self
    where
        F: Fn(TaskContext, A) -> Fut + Send + Sync + 'static,
        A: DeserializeOwned + 'static,
        Fut: Future + 'static,
        Fut::Output: TaskReturn,
    {
        self.register_code(name, Code::from_async(function))
    }

    /// Adds a function that blocks its thread.
    pub fn register_blocking<F, A, R>(self, name: impl Into<String>, function: F) -> Self
    where
        F: Fn(TaskContext, A) -> R + Send + Sync + 'static,
        A: DeserializeOwned + 'static,
        R: TaskReturn,
    {
        self.register_code(name, Code::from_blocking(function))
    }

    /// Adds code of any kind. A name that is taken is reported by [`check`](Self::check), which
    /// the scheduler's builder calls.
    pub fn register_code(mut self, name: impl Into<String>, code: Code) -> Self {
        let name = name.into();
        if self.code.contains_key(name.as_str()) {
            self.problem.get_or_insert(TaskError::DuplicateHandler(name));
        } else {
            self.code.insert(name.into(), code);
        }
        self
    }

    /// Adds a trigger of your own, for tasks whose trigger is a
    /// [`Custom`](crate::trigger::Custom) of this name. A name that is taken is reported by
    /// [`check`](Self::check).
    pub fn register_trigger(
        mut self,
        name: impl Into<String>,
        trigger: impl CustomTrigger + 'static,
    ) -> Self {
        let name = name.into();
        match self.triggers.entry(name) {
            Entry::Occupied(taken) => {
                self.problem.get_or_insert(TaskError::DuplicateHandler(taken.key().clone()));
            }
            Entry::Vacant(free) => {
                free.insert(Arc::new(trigger));
            }
        }
        self
    }

    /// The trigger with the implementations of its custom parts.
    pub(crate) fn resolve(&self, trigger: &Trigger) -> Result<Trigger, TriggerError> {
        trigger.resolve(&|name| self.triggers.get(name).cloned())
    }

    /// What went wrong while registering, if anything did.
    pub fn check(&self) -> Result<(), TaskError> {
        self.problem.clone().map_or(Ok(()), Err)
    }

    /// The code called `name`.
    pub fn get(&self, name: &str) -> Option<&Code> {
        self.code.get(name)
    }

    /// The code called `name`, or an error that lists the names there are.
    pub fn find(&self, name: &str) -> Result<&Code, TaskError> {
        self.get(name).ok_or_else(|| TaskError::UnknownHandler {
            name: name.to_owned(),
            known: self.names().into_iter().map(str::to_owned).collect(),
        })
    }

    /// The registry's own copy of a name, for tasks to share.
    pub(crate) fn shared_name(&self, name: &str) -> Option<Arc<str>> {
        self.code.get_key_value(name).map(|(name, _)| name.clone())
    }

    /// All names, in order.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.code.keys().map(|name| &**name).collect();
        names.sort_unstable();
        names
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}
