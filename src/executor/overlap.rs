//! What becomes of runs for which there is no instance.

use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::slot::Instances;
use crate::task::{Alias, Overlap, Refusal, Run, RunId, TaskId, TaskSpec};

/// The runs that wait for an earlier run of their task to end.
#[derive(Default)]
pub(super) struct Waiting {
    lines: FxHashMap<(Alias, TaskId), VecDeque<Arc<Run>>>,
    len: usize,
}

/// What becomes of a run.
pub(super) enum Verdict {
    /// It is refused.
    Refuse(Refusal),
    /// It waits. Those that waited are cancelled, and the run that is going on is asked to stop.
    Wait { replaced: VecDeque<Arc<Run>>, stop: Option<Arc<Run>> },
}

impl Waiting {
    /// How many wait, of all tasks.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether `run`, for which there may be an instance, has to stand in line behind others.
    pub(super) fn is_behind(&self, run: &Run) -> bool {
        self.len > 0
            && !run.beyond_max_instances
            && matches!(run.task.overlap, Overlap::Queue(_) | Overlap::CancelRunning)
            && self.lines.contains_key(&line(run))
    }

    /// Whether runs of this task wait in a line.
    pub(super) fn has_line(&self, store: &Alias, task: &TaskSpec) -> bool {
        self.len > 0 && self.lines.contains_key(&(store.clone(), task.id.clone()))
    }

    /// Does as the task's overlap policy says with a run for which there is no instance.
    pub(super) fn overlap(&mut self, run: &Arc<Run>, instances: &Instances) -> Verdict {
        let full = Refusal::MaxInstances { max: run.task.max_instances };
        if run.task.max_instances == 0 {
            // Nothing would ever end in its favour.
            return Verdict::Refuse(full);
        }
        match run.task.overlap {
            Overlap::Skip | Overlap::Allow => Verdict::Refuse(full),
            Overlap::Queue(limit) => {
                let line = self.lines.entry(line(run)).or_default();
                if line.len() >= limit.max(1) as usize {
                    return Verdict::Refuse(Refusal::TaskQueueFull { limit });
                }
                run.note_queued();
                line.push_back(run.clone());
                self.len += 1;
                Verdict::Wait { replaced: VecDeque::new(), stop: None }
            }
            Overlap::CancelRunning => {
                let mut going_on = instances.of_task(run).peekable();
                let oldest = going_on.peek().map(|run| Arc::clone(run));
                // One that was asked before has not ended yet: it makes room enough.
                let stop = oldest.filter(|_| !going_on.any(|run| run.is_cancelled()));
                let line = self.lines.entry(line(run)).or_default();
                let replaced = std::mem::take(line);
                run.note_queued();
                line.push_back(run.clone());
                self.len = self.len + 1 - replaced.len();
                Verdict::Wait { replaced, stop }
            }
        }
    }

    /// Takes the first of those that wait for a run like `ended`, if `admit` lets it in.
    pub(super) fn next<K>(
        &mut self,
        ended: &Run,
        admit: impl FnOnce(&Arc<Run>) -> Option<K>,
    ) -> Option<(Arc<Run>, K)> {
        let place = line(ended);
        let waiting = self.lines.get_mut(&place)?;
        let key = admit(waiting.front()?)?;
        let run = waiting.pop_front()?;
        self.len -= 1;
        if waiting.is_empty() {
            self.lines.remove(&place);
        }
        Some((run, key))
    }

    /// Takes one run out of its line. Looks at all of them: made for the rare request.
    pub(super) fn remove(&mut self, id: RunId) -> Option<Arc<Run>> {
        let found = self.lines.iter_mut().find_map(|(place, line)| {
            let at = line.iter().position(|run| run.id == id)?;
            Some((place.clone(), line.remove(at)?, line.is_empty()))
        });
        let (place, run, empty) = found?;
        self.len -= 1;
        if empty {
            self.lines.remove(&place);
        }
        Some(run)
    }

    /// Takes all of them.
    pub(super) fn take_all(&mut self) -> Vec<Arc<Run>> {
        self.len = 0;
        self.lines.drain().flat_map(|(_, line)| line).collect()
    }
}

fn line(run: &Run) -> (Alias, TaskId) {
    (run.store.clone(), run.task.id.clone())
}
