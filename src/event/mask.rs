use bitflags::bitflags;

use super::Event;

bitflags! {
    /// Kinds of events, to say which ones a listener wants.
    ///
    /// ```
    /// use callboard::event::EventMask;
    ///
    /// let mask = EventMask::TASK_ERROR | EventMask::TASK_MISSED;
    /// assert!(EventMask::TASK.contains(mask));
    /// ```
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct EventMask: u64 {
        /// [`Event::SchedulerStarted`]
        const SCHEDULER_STARTED = 1;
        /// [`Event::SchedulerShutdown`]
        const SCHEDULER_SHUTDOWN = 1 << 1;
        /// [`Event::SchedulerPaused`]
        const SCHEDULER_PAUSED = 1 << 2;
        /// [`Event::SchedulerResumed`]
        const SCHEDULER_RESUMED = 1 << 3;
        /// [`Event::ExecutorAdded`]
        const EXECUTOR_ADDED = 1 << 4;
        /// [`Event::ExecutorRemoved`]
        const EXECUTOR_REMOVED = 1 << 5;
        /// [`Event::ExecutorRestarted`]
        const EXECUTOR_RESTARTED = 1 << 6;
        /// [`Event::ExecutorFailed`]
        const EXECUTOR_FAILED = 1 << 7;
        /// [`Event::StoreAdded`]
        const STORE_ADDED = 1 << 8;
        /// [`Event::StoreRemoved`]
        const STORE_REMOVED = 1 << 9;
        /// [`Event::StoreUnavailable`]
        const STORE_UNAVAILABLE = 1 << 10;
        /// [`Event::StoreRecovered`]
        const STORE_RECOVERED = 1 << 11;
        /// [`Event::RecordUnreadable`]
        const RECORD_UNREADABLE = 1 << 12;
        /// [`Event::AllTasksRemoved`]
        const ALL_TASKS_REMOVED = 1 << 13;
        /// [`Event::TaskAdded`]
        const TASK_ADDED = 1 << 14;
        /// [`Event::TaskRemoved`]
        const TASK_REMOVED = 1 << 15;
        /// [`Event::TaskModified`]
        const TASK_MODIFIED = 1 << 16;
        /// [`Event::TaskSubmitted`]
        const TASK_SUBMITTED = 1 << 17;
        /// [`Event::TaskExecuted`]
        const TASK_EXECUTED = 1 << 18;
        /// [`Event::TaskError`]
        const TASK_ERROR = 1 << 19;
        /// [`Event::TaskMissed`]
        const TASK_MISSED = 1 << 20;
        /// [`Event::TaskMaxInstances`]
        const TASK_MAX_INSTANCES = 1 << 21;
        /// [`Event::TaskRefused`]
        const TASK_REFUSED = 1 << 22;
        /// [`Event::TaskCancelled`]
        const TASK_CANCELLED = 1 << 23;
        /// [`Event::TaskTimedOut`]
        const TASK_TIMED_OUT = 1 << 24;
        /// [`Event::TaskInterrupted`] and [`Event::RunInterrupted`]
        const TASK_INTERRUPTED = 1 << 25;
        /// [`Event::TaskStalled`]
        const TASK_STALLED = 1 << 26;
        /// [`Event::ClockJumped`]
        const CLOCK_JUMPED = 1 << 27;
        /// [`Event::TasksReplanned`]
        const TASKS_REPLANNED = 1 << 52;
        /// [`Event::TimezonesChanged`]
        const TIMEZONES_CHANGED = 1 << 53;
        /// [`Event::TimezonesUnusable`]
        const TIMEZONES_UNUSABLE = 1 << 54;
        /// [`Event::TaskMoved`]
        const TASK_MOVED = 1 << 55;
        /// [`Event::TasksMoved`]
        const TASKS_MOVED = 1 << 56;
        /// [`Event::SchedulerRestarted`]
        const SCHEDULER_RESTARTED = 1 << 28;
        /// [`Event::TaskFinished`]
        const TASK_FINISHED = 1 << 29;
        /// [`Event::TaskRetried`]
        const TASK_RETRIED = 1 << 30;
        /// [`Event::StoreSetAside`]
        const STORE_SET_ASIDE = 1 << 40;
        /// [`Event::LifecycleSetUp`], [`Event::LifecycleFailed`] and [`Event::LifecycleCleanedUp`]
        const LIFECYCLE = 1 << 41;
        /// [`Event::LockTaken`]
        const LOCK_TAKEN = 1 << 42;
        /// [`Event::LockAwaited`]
        const LOCK_AWAITED = 1 << 43;
        /// [`Event::LockLost`]
        const LOCK_LOST = 1 << 44;
        /// [`Event::RecordReadable`]
        const RECORD_READABLE = 1 << 45;
        /// [`Event::StoreExportFailed`]
        const STORE_EXPORT_FAILED = 1 << 46;
        /// [`Event::ExecutorRecovered`]
        const EXECUTOR_RECOVERED = 1 << 47;

        /// Every end of a run, also of one that is tried again.
        const RUN_ENDED = Self::TASK_EXECUTED.bits() | Self::TASK_ERROR.bits() | Self::TASK_MISSED.bits()
            | Self::TASK_MAX_INSTANCES.bits() | Self::TASK_REFUSED.bits() | Self::TASK_CANCELLED.bits()
            | Self::TASK_TIMED_OUT.bits() | Self::TASK_INTERRUPTED.bits() | Self::TASK_RETRIED.bits();
        /// Everything about tasks.
        const TASK = Self::RUN_ENDED.bits() | Self::TASK_ADDED.bits() | Self::TASK_REMOVED.bits()
            | Self::TASK_MODIFIED.bits() | Self::TASK_SUBMITTED.bits() | Self::TASK_STALLED.bits()
            | Self::TASK_FINISHED.bits() | Self::TASK_MOVED.bits();
        /// Everything, also what later versions add.
        const ALL = u64::MAX;
    }
}

impl Event {
    /// The event's kind: exactly one bit.
    pub fn mask(&self) -> EventMask {
        match self {
            Self::SchedulerStarted => EventMask::SCHEDULER_STARTED,
            Self::SchedulerShutdown => EventMask::SCHEDULER_SHUTDOWN,
            Self::SchedulerPaused => EventMask::SCHEDULER_PAUSED,
            Self::SchedulerResumed => EventMask::SCHEDULER_RESUMED,
            Self::ExecutorAdded { .. } => EventMask::EXECUTOR_ADDED,
            Self::ExecutorRemoved { .. } => EventMask::EXECUTOR_REMOVED,
            Self::ExecutorRestarted { .. } => EventMask::EXECUTOR_RESTARTED,
            Self::ExecutorFailed { .. } => EventMask::EXECUTOR_FAILED,
            Self::ExecutorRecovered { .. } => EventMask::EXECUTOR_RECOVERED,
            Self::StoreAdded { .. } => EventMask::STORE_ADDED,
            Self::StoreRemoved { .. } => EventMask::STORE_REMOVED,
            Self::StoreUnavailable { .. } => EventMask::STORE_UNAVAILABLE,
            Self::StoreRecovered { .. } => EventMask::STORE_RECOVERED,
            Self::LockTaken { .. } => EventMask::LOCK_TAKEN,
            Self::LockAwaited { .. } => EventMask::LOCK_AWAITED,
            Self::LockLost { .. } => EventMask::LOCK_LOST,
            Self::StoreSetAside { .. } => EventMask::STORE_SET_ASIDE,
            Self::StoreExportFailed { .. } => EventMask::STORE_EXPORT_FAILED,
            Self::RecordUnreadable { .. } => EventMask::RECORD_UNREADABLE,
            Self::RecordReadable { .. } => EventMask::RECORD_READABLE,
            Self::AllTasksRemoved { .. } => EventMask::ALL_TASKS_REMOVED,
            Self::TaskAdded { .. } => EventMask::TASK_ADDED,
            Self::TaskRemoved { .. } => EventMask::TASK_REMOVED,
            Self::TaskModified { .. } => EventMask::TASK_MODIFIED,
            Self::TaskFinished { .. } => EventMask::TASK_FINISHED,
            Self::TaskSubmitted(_) => EventMask::TASK_SUBMITTED,
            Self::TaskExecuted(_) => EventMask::TASK_EXECUTED,
            Self::TaskError(_) => EventMask::TASK_ERROR,
            Self::TaskRetried(_) => EventMask::TASK_RETRIED,
            Self::TaskMissed(_) => EventMask::TASK_MISSED,
            Self::TaskMaxInstances(_) => EventMask::TASK_MAX_INSTANCES,
            Self::TaskRefused(_) => EventMask::TASK_REFUSED,
            Self::TaskCancelled(_) => EventMask::TASK_CANCELLED,
            Self::TaskTimedOut(_) => EventMask::TASK_TIMED_OUT,
            Self::TaskInterrupted(_) | Self::RunInterrupted { .. } => EventMask::TASK_INTERRUPTED,
            Self::TaskStalled { .. } => EventMask::TASK_STALLED,
            Self::ClockJumped { .. } => EventMask::CLOCK_JUMPED,
            Self::TasksReplanned { .. } => EventMask::TASKS_REPLANNED,
            Self::TimezonesChanged { .. } => EventMask::TIMEZONES_CHANGED,
            Self::TimezonesUnusable { .. } => EventMask::TIMEZONES_UNUSABLE,
            Self::TaskMoved { .. } => EventMask::TASK_MOVED,
            Self::TasksMoved { .. } => EventMask::TASKS_MOVED,
            Self::LifecycleSetUp { .. } | Self::LifecycleFailed { .. } | Self::LifecycleCleanedUp { .. } => {
                EventMask::LIFECYCLE
            }
            Self::SchedulerRestarted { .. } => EventMask::SCHEDULER_RESTARTED,
        }
    }
}

#[cfg(test)]
mod tests {
    use bitflags::Flags;

    use super::*;

    #[test]
    fn no_two_kinds_share_a_bit() {
        let mut taken = EventMask::empty();
        for kind in EventMask::FLAGS.iter().filter(|kind| kind.value().bits().count_ones() == 1) {
            assert!(!taken.intersects(*kind.value()), "{}", kind.name());
            taken |= *kind.value();
        }
        assert!(taken.bits().count_ones() > 30);
    }
}
