//! The keys of the engine in files.
//!
//! Changes go to the journal first, which is what makes them durable, and to the files a moment
//! later, many changes of a file at once and some files at a time, so that nobody waits for it.
//! Until then they are in memory as well.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::indices::Indices;
use super::journal::Journal;
use super::name::{Names, is_ours};
use super::pending::{Pending, Settling, Tasks};
use super::place::{Layout, TASKS, read_text, write_object};
use super::runs::{self, Lines};
use super::settle::{AT_ONCE, Read, Settlement, settle};
use super::text::{Cell, key_of, key_text, unsealed};
use crate::lock::FileLock;
use crate::store::StoreError;
use crate::store::engine::{
    Changes, Descriptors, Disk, LOCK, Order, Part, Place, RUN, SPEC, STATE, Visit, Whereabouts, part_of,
    unreadable,
};
use crate::store::envelope::broken;

/// How long changes may be in the journal alone.
const TIDY_AFTER: Duration = Duration::from_secs(1);
/// Lengths of the journal in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// One that is longer is reason to hurry.
    pub long: u64,
    /// With one that is longer everybody waits while some of what is in the one before it is brought to the
    /// files.
    pub longest: u64,
    /// For each so many bytes more, everybody waits for one more slice.
    pub step: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { long: 16 << 20, longest: 64 << 20, step: 1 << 20 }
    }
}

/// The files of so many tasks are written at a time.
const SLICE: usize = 64;

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
        self.open_as(None)
    }

    fn reopen(&self, identity: Uuid) -> Result<FileDisk, StoreError> {
        self.open_as(Some(identity))
    }
}

impl FilePlace {
    /// Opens the store `expected`; any, or a new one, unless one is.
    fn open_as(&self, expected: Option<Uuid>) -> Result<FileDisk, StoreError> {
        let layout = Layout::new(&self.path);
        let (lock, store) = layout.prepare(expected)?;
        let whereabouts = Whereabouts::note(&self.path, &[TASKS, LOCK])?;
        let mut names = Names::default();
        let [tasks, with_runs] = layout.clean()?;
        for name in tasks {
            let said = match Read::file(&layout, &name)? {
                Ok(Some(file)) => names.meet(&name, &file.id),
                _ => false,
            };
            if !said {
                // One that cannot be read, or is not what it says, goes by the name of its file.
                names.learn(&name, &name);
            }
        }
        for name in with_runs {
            if let Some(task) = runs::task_of(&layout.runs(&name))? {
                names.meet(&name, &task);
            }
        }
        let rest = Rest::read(&layout)?;
        let is_first = rest.is_none();
        let rest = rest.unwrap_or_default();
        let (journal, left) = Journal::open(&layout)?;
        if is_first && left.is_empty() && layout.names(".json")?.iter().any(|name| is_ours(name)) {
            return Err(layout.misses(&layout.rest()));
        }
        let is_long = runs::length(&layout.settling())? > Limits::default().long;
        let mut disk = FileDisk {
            layout,
            names,
            journal,
            rest,
            rest_changed: is_first,
            applied: Tasks::new(),
            settling: None,
            held: Tasks::new(),
            unwritten: Changes::new(),
            latest: RefCell::default(),
            indices: RefCell::default(),
            store,
            whereabouts,
            _lock: lock,
            limits: Limits::default(),
        };
        if !left.is_empty() {
            disk.take_in(left);
            disk.settling = Some(Settling { tasks: std::mem::take(&mut disk.applied), inherited: true });
        }
        if is_long {
            // Who is killed again and again before it gets to it must not let it grow.
            disk.settle_all()?;
        } else {
            // Where files cannot be written, that is known before anybody relies on it.
            disk.settle_some()?;
        }
        Ok(disk)
    }
}

/// A directory of files, open.
#[derive(Debug)]
pub(in crate::store) struct FileDisk {
    pub(super) layout: Layout,
    pub(super) names: Names,
    journal: Journal,
    /// What belongs to no task, with everything that was applied.
    pub(super) rest: Records,
    rest_changed: bool,
    /// What was applied to tasks and their runs since the journal was begun.
    pub(super) applied: Tasks,
    /// What is in the journal before it, and not in the files; all of that one, if there is one.
    pub(super) settling: Option<Settling>,
    /// What tasks were to become whose files cannot be read: it stays in the journal.
    held: Tasks,
    /// What was applied and is not in the journal.
    unwritten: Changes,
    /// The task file that was read last: its spec and its state are asked for one after the other.
    pub(super) latest: RefCell<Option<(String, Read)>>,
    /// Where the records of runs are in their files, by task.
    pub(super) indices: RefCell<Indices>,
    /// The identity that stands in the directory.
    store: Option<Uuid>,
    whereabouts: Whereabouts,
    _lock: FileLock,
    pub(super) limits: Limits,
}

/// By key.
type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// The file of what belongs to no task.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rest {
    records: BTreeMap<String, Cell>,
}

impl Rest {
    /// `None` before anything was brought to the files for the first time.
    fn read(layout: &Layout) -> Result<Option<Records>, StoreError> {
        let path = layout.rest();
        let Some(text) = read_text(&path)? else { return Ok(None) };
        let read = unsealed::<Self>(&text).and_then(|rest| {
            rest.records.into_iter().map(|(key, cell)| Ok((key_of(&key)?, cell.value()?))).collect()
        });
        read.map(Some).map_err(|reason: String| {
            let name = path.file_name().unwrap_or_default().display();
            unreadable(&layout.root, &format!("`{name}`: {reason}"))
        })
    }
}

impl Disk for FileDisk {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let Some((task, part)) = part_of(key) else { return Ok(self.rest.get(key).cloned()) };
        if let Some(value) = self.pending(task).find_map(|pending| pending.get(part)) {
            return Ok(value.clone());
        }
        let Ok(name) = self.names.find(task) else { return Ok(None) };
        if let Part::Run(run) = part {
            let path = self.layout.runs(&name);
            return match self.indices.borrow().get(task) {
                None => runs::find(&path, run),
                Some(index) => match index.runs.get(run) {
                    None => Ok(None),
                    Some(span) => Lines::of(&path)?.record(*span, false),
                },
            };
        }
        self.recall(&name, task, |read| {
            let cell = match read {
                Read::Nothing => None,
                Read::Damaged(reason) => return Some(broken(reason)),
                Read::Task(file) if part == Part::Spec => file.spec.as_ref(),
                Read::Task(file) => file.state.as_ref(),
            };
            cell.map(|cell| cell.value().unwrap_or_else(|reason| broken(&reason)))
        })
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
                SPEC | STATE => self.show_tasks(prefix, order, &|_| false, visit),
                RUN => self.show_runs(prefix, order, visit),
                _ => Ok(self.show_rest(prefix, order, visit)),
            };
            if shown?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn scan_others(
        &self,
        prefix: &[u8],
        known: &dyn Fn(&[u8]) -> bool,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        if prefix == SPEC || prefix == STATE {
            return self.show_tasks(prefix, Order::Ascending, known, visit).map(drop);
        }
        self.scan(prefix, Order::Ascending, &mut |key, value| {
            if known(key) { ControlFlow::Continue(()) } else { visit(key, value) }
        })
    }

    fn scan_beyond(
        &self,
        prefix: &[u8],
        past: &[u8],
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        if let (Some((task, Part::Run(_))), Some((_, Part::Run(past)))) = (part_of(prefix), part_of(past)) {
            return self.show_runs_of(task, &[], Some(past), order, visit).map(drop);
        }
        let is_beyond = |key: &[u8]| if order == Order::Ascending { key > past } else { key < past };
        self.scan(prefix, order, &mut |key, value| {
            if is_beyond(key) { visit(key, value) } else { ControlFlow::Continue(()) }
        })
    }

    fn apply(&mut self, changes: Changes) -> Result<(), StoreError> {
        self.unwritten.extend(changes.iter().cloned());
        self.take_in(changes);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.write_journal()?;
        // It cannot grow for ever: the longer it gets, the more is done before the next change is taken.
        let excess = self.journal.length().saturating_sub(self.limits.longest);
        for _ in 0..excess.div_ceil(self.limits.step) {
            if self.settling.is_none() {
                break;
            }
            self.settle_some()?;
        }
        Ok(())
    }

    fn descriptors(&self) -> Descriptors {
        // Each thread that brings changes to files has some open.
        Descriptors { sync: 0, tidy: 2 * AT_ONCE + 2, read: 3 }
    }

    fn set_identity(&mut self, identity: Uuid) -> Result<(), StoreError> {
        if self.store != Some(identity) {
            self.layout.write_mark(Some(identity))?;
            self.store = Some(identity);
        }
        Ok(())
    }

    fn check_place(&self) -> Result<(), StoreError> {
        self.whereabouts.check()?;
        self.journal.check_place()
    }

    fn check_identity(&self) -> Result<(), StoreError> {
        self.layout.check_identity(self.store)
    }

    fn untidy(&self) -> Option<Duration> {
        match &self.settling {
            Some(_) => Some(Duration::ZERO),
            None if !self.has_changed() => None,
            None if self.journal.length() > self.limits.long => Some(Duration::ZERO),
            None => Some(TIDY_AFTER),
        }
    }

    fn is_pressed(&self) -> bool {
        let inherited = self.settling.as_ref().is_some_and(|settling| settling.inherited);
        inherited || self.journal.length() > self.limits.long
    }

    /// Brings some of the changes to the files.
    fn tidy(&mut self) -> Result<(), StoreError> {
        self.write_journal()?;
        // On a mount point whose volume is gone, files would be the beginning of another store.
        self.check_place()?;
        if self.settling.is_none() {
            if !self.has_changed() {
                return Ok(());
            }
            self.journal.succeed(&self.layout)?;
            self.settling = Some(Settling { tasks: std::mem::take(&mut self.applied), inherited: false });
        }
        self.settle_some()
    }

    fn close(mut self) -> Result<(), StoreError> {
        self.write_journal()?;
        while self.untidy().is_some() {
            self.tidy()?;
        }
        self.journal.close(&self.layout)
    }
}

impl FileDisk {
    /// Whether there is something to bring to the files.
    fn has_changed(&self) -> bool {
        !self.applied.is_empty() || (self.rest_changed && !self.journal.is_empty())
    }

    fn write_journal(&mut self) -> Result<(), StoreError> {
        if !self.unwritten.is_empty() {
            self.whereabouts.check()?;
            self.journal.write(&self.unwritten)?;
            self.unwritten.clear();
        }
        Ok(())
    }

    fn take_in(&mut self, changes: Changes) {
        for (key, value) in changes {
            if let Some((task, part)) = part_of(&key) {
                match self.applied.get_mut(task) {
                    Some(pending) => pending.set(part, value),
                    None => self.applied.entry(task.to_owned()).or_default().set(part, value),
                }
                continue;
            }
            self.rest_changed = true;
            match value {
                Some(value) => drop(self.rest.insert(key, value)),
                None => drop(self.rest.remove(&key)),
            }
        }
    }

    /// What is not in the files of a task, the latest first.
    pub(super) fn pending(&self, task: &str) -> impl Iterator<Item = &Pending> {
        let settling = self.settling.as_ref().and_then(|settling| settling.tasks.get(task));
        self.applied.get(task).into_iter().chain(settling).chain(self.held.get(task))
    }

    fn settle_all(&mut self) -> Result<(), StoreError> {
        while self.settling.is_some() {
            self.settle_some()?;
        }
        Ok(())
    }

    /// Brings changes of the journal before this one to some files, and lets it go after the last one.
    fn settle_some(&mut self) -> Result<(), StoreError> {
        let Some(settling) = &mut self.settling else { return Ok(()) };
        self.latest.take();
        let mut some = Vec::with_capacity(SLICE);
        while some.len() < SLICE
            && let Some((task, pending)) = settling.tasks.pop_first()
        {
            let (name, index) = (self.names.of(&task), self.indices.get_mut().take(&task));
            let inherited = settling.inherited || self.held.contains_key(&task);
            some.push(Settlement { task, name, pending, index, inherited, is_held: false });
        }
        settle(&self.layout, &mut some)?;
        for Settlement { task, index, pending: Pending { spec, state, .. }, is_held, .. } in some {
            if is_held {
                let held = self.held.entry(task.clone()).or_default();
                held.spec = spec.or(held.spec.take());
                held.state = state.or(held.state.take());
            } else if let Some(held) = self.held.get_mut(&task) {
                // Its file was repaired meanwhile.
                held.spec = held.spec.take().filter(|_| spec.is_none());
                held.state = held.state.take().filter(|_| state.is_none());
            }
            if let Some(index) = index.filter(|index| !index.runs.is_empty()) {
                self.indices.get_mut().keep(task, index);
            }
        }
        if !settling.tasks.is_empty() {
            return Ok(());
        }
        self.layout.sync_tasks()?;
        if self.rest_changed {
            let records = self.rest.iter().map(|(key, value)| (key_text(key), Cell::new(value))).collect();
            write_object(&self.layout.rest(), &Rest { records })?;
            self.layout.sync_root()?;
            self.rest_changed = false;
        }
        self.keep_held()?;
        self.journal.settled()?;
        self.settling = None;
        Ok(())
    }

    /// Writes to the journal what cannot be brought to files that cannot be read: it is for the next start
    /// then, as it was for this one.
    fn keep_held(&mut self) -> Result<(), StoreError> {
        let mut changes = Changes::new();
        for (task, held) in &self.held {
            for (part, value) in [(Part::Spec, &held.spec), (Part::State, &held.state)] {
                let later = self.applied.get(task).and_then(|later| later.get(part));
                changes
                    .extend(value.clone().filter(|_| later.is_none()).map(|value| (part.key(task), value)));
            }
        }
        if changes.is_empty() { Ok(()) } else { self.journal.write(&changes) }
    }

    /// Shows what is in the file `name`, which should be that of `task`.
    fn recall<T>(&self, name: &str, task: &str, show: impl FnOnce(&Read) -> T) -> Result<T, StoreError> {
        if let Some((latest, read)) = &*self.latest.borrow()
            && latest == name
        {
            return Ok(show(read));
        }
        let read = Read::of(&self.layout, name, task)?;
        let shown = show(&read);
        self.latest.replace(Some((name.to_owned(), read)));
        Ok(shown)
    }
}
