//! Brings changes to the files of their tasks, those of several tasks at once: devices sync many files
//! together in little more time than one.

use std::fs;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::thread;

use serde::{Deserialize, Serialize};

use super::pending::Pending;
use super::place::{Layout, read_text, remove, write_object};
use super::runs::{self, Index};
use super::text::{Cell, unsealed};
use crate::store::StoreError;
use crate::store::engine::damaged;

/// So many files are written or read at a time.
pub(super) const AT_ONCE: usize = 8;

/// The file of a task.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TaskFile {
    pub id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<Cell>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<Cell>,
}

/// What became of reading the file of a task.
#[derive(Debug, Clone)]
pub(super) enum Read {
    Nothing,
    Task(Box<TaskFile>),
    /// Why it cannot be read.
    Damaged(String),
}

impl Read {
    /// Reads the file `name`, which should be that of `task`.
    pub(super) fn of(layout: &Layout, name: &str, task: &str) -> Result<Self, StoreError> {
        Ok(match Self::file(layout, name)? {
            Ok(None) => Self::Nothing,
            Ok(Some(file)) if file.id == task => Self::Task(file),
            Ok(Some(file)) => Self::Damaged(format!(
                "its file `{name}.json` is that of another task, `{}`; a copy needs an id and a name of its own",
                file.id
            )),
            Err(reason) => Self::Damaged(format!("its file `{name}.json`: {reason}")),
        })
    }

    /// The file `name`, or why it cannot be read.
    pub(super) fn file(
        layout: &Layout,
        name: &str,
    ) -> Result<Result<Option<Box<TaskFile>>, String>, StoreError> {
        let path = layout.task(name);
        let read = read_text(&path);
        // A link that leads nowhere is there, too, and trouble with one file is none with the others.
        if !matches!(read, Ok(Some(_)))
            && let Ok(there) = fs::symlink_metadata(&path)
        {
            match &read {
                Ok(_) if there.is_symlink() => return Ok(Err("it is a link that leads nowhere".to_owned())),
                Err(error) if !there.is_file() || is_denied(error) => return Ok(Err(error.to_string())),
                _ => {}
            }
        }
        Ok(match read? {
            None => Ok(None),
            Some(text) => unsealed(&text).map(|file| Some(Box::new(file))),
        })
    }
}

fn is_denied(error: &StoreError) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|source| source.kind() == io::ErrorKind::PermissionDenied)
}

/// What is to be done about a task.
#[derive(Debug)]
pub(super) struct Settlement {
    pub task: String,
    pub name: String,
    pub pending: Pending,
    /// Of its runs, if it is known.
    pub index: Option<Index>,
    /// The changes were left by another process: the file may have been damaged since.
    pub inherited: bool,
    /// It was: what the task was to become waits until its file can be read.
    pub is_held: bool,
}

impl Settlement {
    fn settle(&mut self, layout: &Layout) -> Result<(), StoreError> {
        if self.pending.spec.is_some() || self.pending.state.is_some() {
            self.is_held = !self.write_task(layout)?;
        }
        if self.pending.runs.is_empty() {
            return Ok(());
        }
        let path = layout.runs(&self.name);
        runs::change(&path, &self.task, &self.pending.runs, &mut self.index, self.inherited)
    }

    /// Answers whether it was.
    fn write_task(&self, layout: &Layout) -> Result<bool, StoreError> {
        let (name, path) = (&self.name, layout.task(&self.name));
        let Pending { spec, state, .. } = &self.pending;
        let mut file = TaskFile { id: self.task.clone(), spec: None, state: None };
        if spec.is_none() || state.is_none() {
            let (reason, is_there) = match Read::of(layout, name, &self.task)? {
                Read::Task(there) => {
                    file = *there;
                    (None, true)
                }
                Read::Nothing => (Some("it is missing".to_owned()), false),
                Read::Damaged(reason) => (Some(reason), true),
            };
            if let Some(reason) = reason {
                if !self.inherited {
                    let advice = "the task does not run until its file can be read again";
                    return Err(damaged(&layout.root, &format!("`{name}.json`: {reason}"), advice));
                }
                // The task was reported when it was loaded. Somebody who has removed its file has removed it.
                tracing::error!(file = %path.display(), %reason, "a task was changed and its file cannot be read");
                return Ok(!is_there);
            }
        }
        if let Some(spec) = spec {
            file.spec = spec.as_deref().map(Cell::new);
        }
        if let Some(state) = state {
            file.state = state.as_deref().map(Cell::new);
        }
        if file.spec.is_none() && file.state.is_none() {
            remove(&path)?;
        } else {
            write_object(&path, &file)?;
        }
        Ok(true)
    }
}

/// Settles all of them; the caller syncs the directory.
pub(super) fn settle(layout: &Layout, all: &mut [Settlement]) -> Result<(), StoreError> {
    side_by_side(all, |one| one.settle(layout))
}

/// Does something with each of them, with several at a time. All that was begun comes to its end, whatever
/// becomes of one.
pub(super) fn side_by_side<T: Send>(
    all: &mut [T],
    each: impl Fn(&mut T) -> Result<(), StoreError> + Sync,
) -> Result<(), StoreError> {
    let others = AT_ONCE.min(all.len()).saturating_sub(1);
    let queue = Mutex::new(all.iter_mut());
    let work = || {
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(one) = next else { return Ok(()) };
            each(one)?;
        }
    };
    thread::scope(|scope| {
        // Without a thread more it takes longer.
        let start = |_| {
            let thread = thread::Builder::new().name("callboard-files".to_owned());
            thread.spawn_scoped(scope, work).ok()
        };
        let threads: Vec<_> = (0..others).map_while(start).collect();
        let own = work();
        let panicked = |_| Err(StoreError::unavailable("a thread that works on its files has panicked"));
        let ends: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect();
        ends.into_iter().fold(own, Result::and)
    })
}
