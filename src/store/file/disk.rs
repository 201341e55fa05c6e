//! The keys of the engine in files.
//!
//! Changes go to the journal first, which is what makes them durable, and to the files a moment
//! later, many changes of a file at once. Until then they are in memory as well.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::journal::Journal;
use super::name::{Names, is_short_for};
use super::place::{Layout, read_text, remove, write_object};
use super::runs::RunsFile;
use super::text::{Cell, key_of, key_text, unsealed};
use crate::lock::FileLock;
use crate::store::StoreError;
use crate::store::engine::{
    Changes, Disk, Order, Part, Place, RUN, SPEC, STATE, Visit, damaged, io_error, part_of, sync_dir,
    unreadable,
};
use crate::store::envelope::broken;

/// How long changes may be in the journal alone.
const TIDY_AFTER: Duration = Duration::from_secs(1);
/// A journal that is longer, in bytes, is brought to the files at once.
const LONGEST_JOURNAL: u64 = 32 << 20;

/// A directory for files.
#[derive(Debug, Clone)]
pub(in crate::store) struct FilePlace {
    pub path: PathBuf,
}

impl Place for FilePlace {
    type Disk = FileDisk;

    fn path(&self) -> &Path {
        &self.path
    }

    fn open(&self) -> Result<FileDisk, StoreError> {
        let layout = Layout::new(&self.path);
        let lock = layout.prepare()?;
        let mut names = Names::default();
        for name in layout.names(".json")?.iter().filter(|name| is_short_for(name)) {
            let said = read_text(&layout.task(name))?.and_then(|text| unsealed::<TaskFile>(&text).ok());
            // One that cannot be read goes by the name of its file.
            names.learn(name, &said.map_or_else(|| name.clone(), |file| file.id));
        }
        for name in layout.names(".runs.jsonl")?.iter().filter(|name| is_short_for(name)) {
            if let Some(task) = RunsFile::read(&layout.runs(name))?.task {
                names.learn(name, &task);
            }
        }
        let rest = Rest::read(&layout)?;
        let (journal, waiting) = Journal::open(&layout)?;
        let mut disk = FileDisk {
            layout,
            names,
            journal,
            rest,
            rest_changed: false,
            applied: BTreeMap::new(),
            unwritten: Changes::new(),
            latest: RefCell::default(),
            opening: true,
            _lock: lock,
        };
        disk.take_in(waiting);
        disk.tidy()?;
        disk.opening = false;
        Ok(disk)
    }
}

/// A directory of files, open.
#[derive(Debug)]
pub(in crate::store) struct FileDisk {
    layout: Layout,
    names: Names,
    journal: Journal,
    /// What belongs to no task, with everything that was applied.
    rest: BTreeMap<Vec<u8>, Vec<u8>>,
    rest_changed: bool,
    /// What was applied to tasks and their runs and is not in their files.
    applied: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// What was applied and is not in the journal.
    unwritten: Changes,
    /// The task file that was read last: its spec and its state are asked for one after the other.
    latest: RefCell<Option<(String, Read)>>,
    opening: bool,
    _lock: FileLock,
}

/// The file of a task.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TaskFile {
    id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    spec: Option<Cell>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state: Option<Cell>,
}

/// What became of reading the file of a task.
#[derive(Debug, Clone)]
enum Read {
    Nothing,
    Task(Box<TaskFile>),
    /// Why it cannot be read.
    Damaged(String),
}

/// The file of what belongs to no task.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rest {
    records: BTreeMap<String, Cell>,
}

impl Rest {
    fn read(layout: &Layout) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, StoreError> {
        let path = layout.rest();
        let Some(text) = read_text(&path)? else { return Ok(BTreeMap::new()) };
        let read = unsealed::<Self>(&text).and_then(|rest| {
            rest.records.into_iter().map(|(key, cell)| Ok((key_of(&key)?, cell.value()?))).collect()
        });
        read.map_err(|reason: String| {
            let name = path.file_name().unwrap_or_default().display();
            unreadable(&layout.root, &format!("`{name}`: {reason}"))
        })
    }
}

impl Disk for FileDisk {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if let Some(value) = self.applied.get(key) {
            return Ok(value.clone());
        }
        let Some((task, part)) = part_of(key) else { return Ok(self.rest.get(key).cloned()) };
        let Ok(name) = self.names.find(task) else { return Ok(None) };
        let cell = match part {
            Part::Run(run) => {
                return Ok(RunsFile::read(&self.layout.runs(&name))?.records.remove(run));
            }
            Part::Spec | Part::State => match self.read(&name, task)? {
                Read::Nothing => None,
                Read::Damaged(reason) => return Ok(Some(broken(&reason))),
                Read::Task(file) if part == Part::Spec => file.spec,
                Read::Task(file) => file.state,
            },
        };
        Ok(cell.map(|cell| cell.value().unwrap_or_else(|reason| broken(&reason))))
    }

    fn scan(&self, prefix: &[u8], order: Order, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let mut kinds: BTreeSet<u8> = [SPEC, STATE, RUN].concat().into_iter().collect();
        kinds.extend(self.rest.keys().filter_map(|key| key.first()));
        kinds.retain(|kind| prefix.first().is_none_or(|first| first == kind));
        let mut kinds: Vec<_> = kinds.into_iter().collect();
        if order == Order::Descending {
            kinds.reverse();
        }
        for kind in kinds {
            let prefix = if prefix.is_empty() { &[kind] } else { prefix };
            let shown = match [kind].as_slice() {
                SPEC | STATE => self.show_tasks(prefix, order, visit),
                RUN => self.show_runs(prefix, order, visit),
                _ => Ok(show(&self.rest, prefix, order, visit)),
            };
            if shown?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn apply(&mut self, changes: Changes) -> Result<(), StoreError> {
        self.unwritten.extend(changes.iter().cloned());
        self.take_in(changes);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.write_journal()?;
        if self.journal.length() > LONGEST_JOURNAL { self.tidy() } else { Ok(()) }
    }

    fn untidy(&self) -> Option<Duration> {
        (!self.journal.is_empty()).then_some(TIDY_AFTER)
    }

    /// Brings the journal to the files.
    fn tidy(&mut self) -> Result<(), StoreError> {
        self.write_journal()?;
        if self.journal.is_empty() {
            return Ok(());
        }
        let mut runs: BTreeMap<String, BTreeMap<_, _>> = BTreeMap::new();
        let mut tasks: BTreeMap<String, [Option<Option<Vec<u8>>>; 2]> = BTreeMap::new();
        for (key, value) in &self.applied {
            match part_of(key) {
                Some((task, Part::Run(run))) => {
                    runs.entry(task.to_owned()).or_default().insert(run.to_vec(), value.clone());
                }
                Some((task, part)) => {
                    let entry = tasks.entry(task.to_owned()).or_default();
                    entry[usize::from(part == Part::State)] = Some(value.clone());
                }
                None => {}
            }
        }
        for (task, [spec, state]) in tasks {
            self.write_task(&task, spec, state)?;
        }
        for (task, changes) in runs {
            let name = self.names.of(&task);
            RunsFile::change(&self.layout.runs(&name), &task, changes)?;
        }
        sync_dir(&self.layout.tasks).map_err(|error| io_error(&self.layout.tasks, "sync", error))?;
        if self.rest_changed {
            let records = self.rest.iter().map(|(key, value)| (key_text(key), Cell::new(value))).collect();
            write_object(&self.layout.rest(), &Rest { records })?;
            sync_dir(&self.layout.root).map_err(|error| io_error(&self.layout.root, "sync", error))?;
        }
        self.journal.clear()?;
        self.applied.clear();
        self.rest_changed = false;
        Ok(())
    }

    fn close(mut self) -> Result<(), StoreError> {
        self.tidy()
    }
}

impl FileDisk {
    fn write_journal(&mut self) -> Result<(), StoreError> {
        if !self.unwritten.is_empty() {
            self.journal.write(&self.unwritten)?;
            self.unwritten.clear();
        }
        Ok(())
    }

    fn take_in(&mut self, changes: Changes) {
        for (key, value) in changes {
            if part_of(&key).is_some() {
                self.applied.insert(key, value);
                continue;
            }
            self.rest_changed = true;
            match value {
                Some(value) => drop(self.rest.insert(key, value)),
                None => drop(self.rest.remove(&key)),
            }
        }
    }

    fn write_task(
        &mut self,
        task: &str,
        spec: Option<Option<Vec<u8>>>,
        state: Option<Option<Vec<u8>>>,
    ) -> Result<(), StoreError> {
        let name = self.names.of(task);
        let path = self.layout.task(&name);
        self.latest.take();
        let mut file = TaskFile { id: task.to_owned(), spec: None, state: None };
        if spec.is_none() || state.is_none() {
            let lost = match self.read(&name, task)? {
                Read::Task(there) => {
                    file = *there;
                    None
                }
                Read::Nothing => Some("it is missing".to_owned()),
                Read::Damaged(reason) => Some(reason),
            };
            self.latest.take();
            if let Some(reason) = lost {
                // The task is reported when it is loaded; what it was to become means nothing without
                // the rest of it.
                if self.opening {
                    tracing::error!(file = %path.display(), %reason, "a task was changed and its file cannot be read");
                    return Ok(());
                }
                let advice = "the task does not run until its file can be read again";
                return Err(damaged(&self.layout.root, &format!("`{name}.json`: {reason}"), advice));
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

    /// Reads the file `name`, which should be that of `task`.
    fn read(&self, name: &str, task: &str) -> Result<Read, StoreError> {
        if let Some((latest, read)) = &*self.latest.borrow()
            && latest == name
        {
            return Ok(read.clone());
        }
        let read = match read_text(&self.layout.task(name))? {
            None => Read::Nothing,
            Some(text) => match unsealed::<TaskFile>(&text) {
                Ok(file) if file.id == task => Read::Task(Box::new(file)),
                Ok(file) => Read::Damaged(format!(
                    "its file `{name}.json` is that of another task, `{}`; a copy needs an id of its own",
                    file.id
                )),
                Err(reason) => Read::Damaged(format!("its file `{name}.json`: {reason}")),
            },
        };
        self.latest.replace(Some((name.to_owned(), read.clone())));
        Ok(read)
    }

    /// The tasks that have a file or are about to have one, in the order of their ids.
    fn tasks(&self, end: &str, of: impl Fn(&Part<'_>) -> bool) -> Result<BTreeSet<String>, StoreError> {
        let names = self.layout.names(end)?;
        let mut tasks: BTreeSet<_> = names.iter().filter_map(|name| self.names.id(name)).collect();
        let applied = self.applied.keys().filter_map(|key| part_of(key));
        tasks.extend(applied.filter(|(_, part)| of(part)).map(|(task, _)| task.to_owned()));
        Ok(tasks)
    }

    fn show_tasks(
        &self,
        prefix: &[u8],
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<ControlFlow<()>, StoreError> {
        let part = if prefix.starts_with(SPEC) { Part::Spec } else { Part::State };
        let tasks = self.tasks(".json", |part| !matches!(part, Part::Run(_)))?;
        for task in ordered(tasks, order) {
            let key = part.key(&task);
            if key.starts_with(prefix)
                && let Some(value) = self.get(&key)?
                && visit(&key, &value).is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn show_runs(
        &self,
        prefix: &[u8],
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<ControlFlow<()>, StoreError> {
        let tasks = match part_of(prefix) {
            Some((task, _)) => BTreeSet::from([task.to_owned()]),
            None => self.tasks(".runs.jsonl", |part| matches!(part, Part::Run(_)))?,
        };
        for task in ordered(tasks, order) {
            let start = Part::Run(&[]).key(&task);
            if !start.starts_with(prefix) && !prefix.starts_with(&start) {
                continue;
            }
            let file = match self.names.find(&task) {
                Ok(name) => RunsFile::read(&self.layout.runs(&name))?,
                Err(_) => RunsFile::default(),
            };
            let mut records: BTreeMap<_, _> =
                file.records.into_iter().map(|(run, record)| (Part::Run(&run).key(&task), record)).collect();
            for (key, value) in from(&self.applied, &start).take_while(|(key, _)| key.starts_with(&start)) {
                match value {
                    Some(value) => drop(records.insert(key.clone(), value.clone())),
                    None => drop(records.remove(key)),
                }
            }
            if show(&records, prefix, order, visit).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

fn ordered(tasks: BTreeSet<String>, order: Order) -> Vec<String> {
    let mut tasks: Vec<_> = tasks.into_iter().collect();
    if order == Order::Descending {
        tasks.reverse();
    }
    tasks
}

fn from<'a, T>(map: &'a BTreeMap<Vec<u8>, T>, start: &[u8]) -> impl Iterator<Item = (&'a Vec<u8>, &'a T)> {
    map.range::<[u8], _>((Bound::Included(start), Bound::Unbounded))
}

fn show(
    records: &BTreeMap<Vec<u8>, Vec<u8>>,
    prefix: &[u8],
    order: Order,
    visit: &mut Visit<'_>,
) -> ControlFlow<()> {
    let mut found: Vec<_> = from(records, prefix).take_while(|(key, _)| key.starts_with(prefix)).collect();
    if order == Order::Descending {
        found.reverse();
    }
    found.into_iter().try_for_each(|(key, value)| visit(key, value))
}
