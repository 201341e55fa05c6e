//! Brings changes to the files of their tasks, those of several tasks at once: devices sync many files
//! together in little more time than one.

use std::fs;
use std::io;
use std::num::NonZero;
use std::sync::Arc;
use std::thread;

use serde::{Deserialize, Serialize};

use super::pending::Pending;
use super::place::{Layout, read_text, remove, write_object};
use super::runs::{self, Index};
use super::text::{Cell, unsealed};
use crate::store::StoreError;
use crate::store::engine::damaged;

/// So many files are written at a time.
const AT_ONCE: usize = 8;

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
}

impl Settlement {
    fn settle(&mut self, layout: &Layout) -> Result<(), StoreError> {
        if self.pending.spec.is_some() || self.pending.state.is_some() {
            self.write_task(layout)?;
        }
        if self.pending.runs.is_empty() {
            return Ok(());
        }
        let path = layout.runs(&self.name);
        runs::change(&path, &self.task, &self.pending.runs, &mut self.index, self.inherited)
    }

    fn write_task(&self, layout: &Layout) -> Result<(), StoreError> {
        let (name, path) = (&self.name, layout.task(&self.name));
        let Pending { spec, state, .. } = &self.pending;
        let mut file = TaskFile { id: self.task.clone(), spec: None, state: None };
        if spec.is_none() || state.is_none() {
            let lost = match Read::of(layout, name, &self.task)? {
                Read::Task(there) => {
                    file = *there;
                    None
                }
                Read::Nothing => Some("it is missing".to_owned()),
                Read::Damaged(reason) => Some(reason),
            };
            if let Some(reason) = lost {
                // The task was reported when it was loaded; what it was to become means nothing without
                // the rest of it.
                if self.inherited {
                    tracing::error!(file = %path.display(), %reason, "a task was changed and its file cannot be read");
                    return Ok(());
                }
                let advice = "the task does not run until its file can be read again";
                return Err(damaged(&layout.root, &format!("`{name}.json`: {reason}"), advice));
            }
        }
        if let Some(spec) = spec {
            file.spec = spec.as_deref().map(Cell::new);
        }
        if let Some(state) = state {
            file.state = state.as_deref().map(Cell::new);
        }
        if file.spec.is_none() && file.state.is_none() { remove(&path) } else { write_object(&path, &file) }
    }
}

/// Settles all of them; the caller syncs the directory.
pub(super) fn settle(layout: &Layout, all: &mut [Settlement]) -> Result<(), StoreError> {
    let each = |some: &mut [Settlement]| some.iter_mut().try_for_each(|one| one.settle(layout));
    let share = all.len().div_ceil(AT_ONCE);
    let Some(share) = NonZero::new(share).filter(|_| all.len() > 1) else { return each(all) };
    thread::scope(|scope| {
        let mut threads = Vec::with_capacity(AT_ONCE);
        for some in all.chunks_mut(share.get()) {
            let thread = thread::Builder::new().name("callboard-files".to_owned());
            threads.push(thread.spawn_scoped(scope, move || each(some)));
        }
        // All of them come to their end, whatever becomes of one.
        let ends: Vec<Result<(), StoreError>> = threads
            .into_iter()
            .map(|thread| match thread.map(thread::ScopedJoinHandle::join) {
                Ok(Ok(end)) => end,
                Ok(Err(_)) => Err(StoreError::unavailable("a thread that writes files for it has panicked")),
                Err(error) => {
                    let reason = format!("no thread could be started to write its files: {error}");
                    Err(StoreError::Unavailable { reason, source: Some(Arc::new(error)) })
                }
            })
            .collect();
        ends.into_iter().collect()
    })
}
