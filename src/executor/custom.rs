use actix::prelude::*;

use super::{ExecutorActor, ExecutorAddr, ExecutorSource, Keep, Runner};

/// An executor made of your own [`Runner`]; a new runner is made for each life of its actor.
///
/// ```
/// use callboard::executor::{CustomExecutor, Job, Runner};
///
/// /// Runs every task on a new thread, which then drives it alone.
/// struct ThreadEach;
///
/// impl Runner for ThreadEach {
///     fn kind(&self) -> &'static str {
///         "thread each"
///     }
///
///     fn start(&mut self, job: Job) {
///         std::thread::spawn(|| {
///             let Some(started) = job.begin() else { return };
///             let runtime = actix::System::new();
///             runtime.block_on(started.drive());
///         });
///     }
/// }
///
/// let executor = CustomExecutor::new(|| ThreadEach);
/// ```
pub struct CustomExecutor<F> {
    runner: F,
    own_arbiter: bool,
}

impl<R: Runner, F: FnMut() -> R + Send + Clone + 'static> CustomExecutor<F> {
    /// An executor whose actor lives on the arbiter that starts it: in a scheduler, the
    /// scheduler's.
    pub fn new(runner: F) -> Self {
        Self { runner, own_arbiter: false }
    }

    /// Gives the actor, and with it the runner, an arbiter of its own.
    pub fn on_own_arbiter(mut self) -> Self {
        self.own_arbiter = true;
        self
    }
}

impl<R: Runner, F: FnMut() -> R + Send + Clone + 'static> ExecutorSource for CustomExecutor<F> {
    fn start(&mut self, keep: Keep) -> ExecutorAddr {
        if !self.own_arbiter {
            return ExecutorActor::new((self.runner)(), keep).start().into();
        }
        let home = Arbiter::new();
        let own = OwnArbiter::of(&home);
        let mut runner = self.runner.clone();
        ExecutorActor::start_in_arbiter(&home.handle(), move |_| {
            ExecutorActor::new(runner(), keep).at_home(own)
        })
        .into()
    }
}

/// An arbiter that ends with its owner.
pub(super) struct OwnArbiter(ArbiterHandle);

impl OwnArbiter {
    pub(super) fn of(arbiter: &Arbiter) -> Self {
        Self(arbiter.handle())
    }
}

impl Drop for OwnArbiter {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl<F> std::fmt::Debug for CustomExecutor<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CustomExecutor")
    }
}
