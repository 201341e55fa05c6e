//! Tasks declared next to their functions, and added by one call.
//!
//! A [`Declaration`] is a handler with the tasks that run it; [`Declarations`] are those of a
//! program. They can be written by hand. With the feature `macros` the attribute
//! [`#[callboard::task(…)]`](macro@crate::task) writes them next to a function, and
//! [`tasks!`](crate::tasks) lists them:
//!
#![cfg_attr(feature = "macros", doc = "```")]
#![cfg_attr(not(feature = "macros"), doc = "```text")]
//! use callboard::prelude::*;
//!
//! #[callboard::task(id = "weekly", cron = "0 8 * * mon", args = "weekly")]
//! #[callboard::task(id = "daily", cron = "0 8 * * *", args = "daily", max_instances = 2)]
//! async fn send(run: TaskContext, list: String) {
//!     println!("{}: to {list}", run.nominal());
//! }
//!
//! #[callboard::task(id = "sweep", every = "1h")]
//! fn sweep() -> std::io::Result<()> {
//!     Ok(())
//! }
//!
//! # #[actix::main]
//! # async fn main() -> Result<(), callboard::Error> {
//! let declared = callboard::tasks![send, sweep];
//! let scheduler = Scheduler::builder().registry(declared.register(Registry::new())).start().await?;
//! let ids = declared.add_to(&scheduler).await?;
//! assert_eq!(ids.len(), 3);
//! # scheduler.shutdown(Shutdown::default()).await
//! # }
//! ```
//!
//! Nothing is collected behind the program's back: what is not listed is not added. (A private
//! function that is declared and not listed is reported by the compiler as never used.)

use crate::error::Error;
use crate::scheduler::Handle;
use crate::task::{Code, Registry, Task, TaskError, TaskId};

/// A handler, and the tasks that run it.
///
/// ```
/// use callboard::declare::Declaration;
/// use callboard::task::{Code, TaskContext};
///
/// async fn send(_: TaskContext, list: String) {
///     println!("to {list}");
/// }
///
/// let declaration = Declaration::new("send", Code::from_async(send))
///     .task(|task| task.id("weekly").trigger("0 8 * * mon").args("weekly").replace_existing(true))
///     .task(|task| task.id("daily").trigger("0 8 * * *").args("daily").replace_existing(true));
/// assert_eq!((declaration.handler(), declaration.tasks().len()), ("send", 2));
/// ```
#[derive(Debug, Clone)]
pub struct Declaration {
    handler: String,
    code: Code,
    tasks: Vec<Task>,
}

impl Declaration {
    /// Code, and the name it is registered under.
    pub fn new(handler: impl Into<String>, code: Code) -> Self {
        Self { handler: handler.into(), code, tasks: Vec::new() }
    }

    /// Declares a task: `write` gets a [`Task`] of this handler and sets its options.
    pub fn task(mut self, write: impl FnOnce(Task) -> Task) -> Self {
        self.tasks.push(write(Task::new(&self.handler)));
        self
    }

    /// The name of the handler.
    pub fn handler(&self) -> &str {
        &self.handler
    }

    /// The tasks, in the order they were declared.
    pub fn tasks(&self) -> &[Task] {
        &self.tasks
    }
}

/// All declarations of a program, or of a part of it; from [`tasks!`](crate::tasks) or by hand.
///
/// ```
/// use callboard::declare::{Declaration, Declarations};
/// use callboard::prelude::*;
/// use callboard::task::Code;
///
/// # #[actix::main]
/// # async fn main() -> Result<(), callboard::Error> {
/// let beat = Declaration::new("beat", Code::from_async(|_: TaskContext, ()| async {}))
///     .task(|task| task.trigger("every 10s"));
/// let declared = Declarations::from_iter([beat]);
/// let scheduler = Scheduler::builder().registry(declared.register(Registry::new())).start().await?;
/// declared.add_to(&scheduler).await?;
/// # scheduler.shutdown(Shutdown::default()).await
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Declarations(Vec<Declaration>);

impl Declarations {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// These and others: those of another module, say.
    pub fn and(mut self, others: impl IntoIterator<Item = Declaration>) -> Self {
        self.0.extend(others);
        self
    }

    /// The registry with their handlers. A name that is taken is reported when the scheduler is
    /// built.
    pub fn register(&self, registry: Registry) -> Registry {
        self.0.iter().fold(registry, |registry, declaration| {
            registry.register_code(&declaration.handler, declaration.code.clone())
        })
    }

    /// Adds every task, in order, and says their ids. A task without an id gets a fresh one each
    /// time this is called. Before the start the tasks are pending, as with [`Handle::add`].
    ///
    /// # Errors
    /// When an option of a task is not valid or two tasks have one id: then none is added. And as
    /// [`Handle::add`]: then those before it are.
    pub async fn add_to(&self, scheduler: &Handle) -> Result<Vec<TaskId>, Error> {
        self.check()?;
        let mut ids = Vec::new();
        for task in self.0.iter().flat_map(Declaration::tasks) {
            ids.push(scheduler.add(task.clone()).await?);
        }
        Ok(ids)
    }

    /// What can be checked without a scheduler; [`add_to`](Self::add_to) begins with it.
    ///
    /// # Errors
    /// When an option of a task is not valid, or two tasks of one store have one id.
    pub fn check(&self) -> Result<(), TaskError> {
        let mut seen = std::collections::HashSet::new();
        for task in self.0.iter().flat_map(Declaration::tasks) {
            task.check()?;
            // The second would replace the first, and nobody would notice.
            if let Some(id) = task.get_id()
                && !seen.insert((id, &task.store))
            {
                let reason = format!("`{id}` is declared twice; give each task its own");
                return Err(TaskError::Invalid { field: "id", reason });
            }
        }
        Ok(())
    }
}

impl FromIterator<Declaration> for Declarations {
    fn from_iter<I: IntoIterator<Item = Declaration>>(declarations: I) -> Self {
        Self(declarations.into_iter().collect())
    }
}

impl IntoIterator for Declarations {
    type Item = Declaration;
    type IntoIter = std::vec::IntoIter<Declaration>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// The [`Declarations`] of the functions listed, by name or path:
/// `tasks![send, maintenance::sweep]`. Anything goes that has a function `declaration()`.
///
/// ```
/// use callboard::declare::Declaration;
/// use callboard::task::{Code, TaskContext};
///
/// enum Beat {}
///
/// impl Beat {
///     fn declaration() -> Declaration {
///         let code = Code::from_async(|_: TaskContext, ()| async {});
///         Declaration::new("beat", code).task(|task| task.trigger("every 10s"))
///     }
/// }
///
/// let declared = callboard::tasks![Beat];
/// assert_eq!(declared.into_iter().count(), 1);
/// ```
#[macro_export]
macro_rules! tasks {
    ($($function:path),* $(,)?) => {
        <$crate::declare::Declarations as ::core::iter::FromIterator<$crate::declare::Declaration>>::from_iter(
            [$(<$function>::declaration()),*]
        )
    };
}
