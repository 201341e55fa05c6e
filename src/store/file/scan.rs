//! What lies under a prefix, from the files and from what is not in them yet.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;
use std::ops::{Bound, ControlFlow};
use std::path::Path;

use super::disk::FileDisk;
use super::pending::Pending;
use super::runs::{Index, Lines, Span};
use super::settle::{Read, side_by_side};
use crate::store::StoreError;
use crate::store::engine::{Disk, Order, Part, SPEC, Visit, part_of};

/// So many files of tasks are read before they are looked at.
const AHEAD: usize = 256;

impl FileDisk {
    /// The tasks that have a file or are about to have one, in the order of their ids.
    fn tasks(&self, end: &str, of: impl Fn(&Pending) -> bool) -> Result<BTreeSet<String>, StoreError> {
        let names = self.layout.names(end)?;
        let mut tasks: BTreeSet<_> = names.iter().filter_map(|name| self.names.id(name)).collect();
        let settling = self.settling.iter().flat_map(|settling| &settling.tasks);
        let pending = self.applied.iter().chain(settling).filter(|(_, pending)| of(pending));
        tasks.extend(pending.map(|(task, _)| task.clone()));
        Ok(tasks)
    }

    pub(super) fn show_tasks(
        &self,
        prefix: &[u8],
        order: Order,
        known: &dyn Fn(&[u8]) -> bool,
        visit: &mut Visit<'_>,
    ) -> Result<ControlFlow<()>, StoreError> {
        let part = if prefix.starts_with(SPEC) { Part::Spec } else { Part::State };
        let tasks = self.tasks(".json", |pending| pending.spec.is_some() || pending.state.is_some())?;
        let wanted =
            |task: &String| Some(part.key(task)).filter(|key| key.starts_with(prefix) && !known(key));
        let tasks = ordered(tasks, order);
        let mut tasks = tasks.iter().filter_map(|task| Some((task, wanted(task)?))).peekable();
        let (layout, names) = (&self.layout, &self.names);
        while tasks.peek().is_some() {
            let mut some: Vec<_> = tasks.by_ref().take(AHEAD).map(|(task, key)| (task, key, None)).collect();
            side_by_side(&mut some, |(task, _, read)| {
                let Ok(name) = names.find(task) else { return Ok(()) };
                *read = Some((Read::of(layout, &name, task)?, name));
                Ok(())
            })?;
            for (_, key, read) in some {
                if let Some((read, name)) = read {
                    self.latest.replace(Some((name, read)));
                }
                if let Some(value) = self.get(&key)?
                    && visit(&key, &value).is_break()
                {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    pub(super) fn show_runs(
        &self,
        prefix: &[u8],
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<ControlFlow<()>, StoreError> {
        let tasks = match part_of(prefix) {
            Some((task, _)) => BTreeSet::from([task.to_owned()]),
            None => self.tasks(".runs.jsonl", |pending| !pending.runs.is_empty())?,
        };
        for task in ordered(tasks, order) {
            let start = Part::Run(&[]).key(&task);
            if (start.starts_with(prefix) || prefix.starts_with(&start))
                && self
                    .show_runs_of(&task, prefix.get(start.len()..).unwrap_or_default(), None, order, visit)?
                    .is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Shows the runs of a task whose names begin with `prefix`, beyond the one named `past`.
    pub(super) fn show_runs_of(
        &self,
        task: &str,
        prefix: &[u8],
        past: Option<&[u8]>,
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<ControlFlow<()>, StoreError> {
        let path = match self.names.find(task) {
            Ok(name) => Some(self.layout.runs(&name)),
            Err(_) => None,
        };
        if let Some(path) = &path {
            self.learn_runs(task, path)?;
        }
        let indices = self.indices.borrow();
        let backwards = order == Order::Descending;
        let mut sources: Vec<Peekable<Records<'_>>> = Vec::with_capacity(3);
        // The latest first: of two with the same name, it counts.
        for pending in self.pending(task) {
            let changes = beyond(&pending.runs, prefix, past, order)
                .map(|(run, record)| (run, Source::Journal(record)));
            sources.push(in_order(changes, backwards).peekable());
        }
        if let Some(index) = indices.get(task) {
            let lines =
                beyond(&index.runs, prefix, past, order).map(|(run, span)| (run, Source::File(*span)));
            sources.push(in_order(lines, backwards).peekable());
        }
        let mut lines = None;
        loop {
            let heads = sources.iter_mut().filter_map(|source| source.peek().map(|(run, _)| *run));
            let next = if backwards { heads.max() } else { heads.min() };
            let Some(run) = next else { return Ok(ControlFlow::Continue(())) };
            let mut same = sources.iter_mut().filter_map(|source| source.next_if(|(other, _)| *other == run));
            let latest = same.next();
            same.for_each(drop);
            let record = match (latest, &path) {
                (Some((_, Source::Journal(record))), _) => record.clone(),
                (Some((_, Source::File(span))), Some(path)) => {
                    let lines = match &mut lines {
                        Some(lines) => lines,
                        none => none.insert(Lines::of(path)?),
                    };
                    lines.record(span, backwards)?
                }
                _ => None,
            };
            if let Some(record) = record
                && visit(&Part::Run(run).key(task), &record).is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
        }
    }

    /// Goes through the runs of a task, unless that was done.
    fn learn_runs(&self, task: &str, path: &Path) -> Result<(), StoreError> {
        let mut indices = self.indices.borrow_mut();
        if indices.get(task).is_none() {
            indices.keep(task.to_owned(), Index::read(path)?);
        }
        Ok(())
    }

    pub(super) fn show_rest(&self, prefix: &[u8], order: Order, visit: &mut Visit<'_>) -> ControlFlow<()> {
        let mut found: Vec<_> = under(&self.rest, prefix).collect();
        if order == Order::Descending {
            found.reverse();
        }
        found.into_iter().try_for_each(|(key, value)| visit(key, value))
    }
}

/// Where the record of a run is.
#[derive(Clone, Copy)]
enum Source<'a> {
    Journal(&'a Option<Vec<u8>>),
    File(Span),
}

type Records<'a> = Box<dyn Iterator<Item = (&'a Vec<u8>, Source<'a>)> + 'a>;

fn in_order<'a>(
    records: impl DoubleEndedIterator<Item = (&'a Vec<u8>, Source<'a>)> + 'a,
    backwards: bool,
) -> Records<'a> {
    if backwards { Box::new(records.rev()) } else { Box::new(records) }
}

fn ordered(tasks: BTreeSet<String>, order: Order) -> Vec<String> {
    let mut tasks: Vec<_> = tasks.into_iter().collect();
    if order == Order::Descending {
        tasks.reverse();
    }
    tasks
}

/// What lies under a prefix.
fn under<'a, T>(
    map: &'a BTreeMap<Vec<u8>, T>,
    prefix: &[u8],
) -> impl DoubleEndedIterator<Item = (&'a Vec<u8>, &'a T)> + use<'a, T> {
    let end = after(prefix);
    let end = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    map.range::<[u8], _>((Bound::Included(prefix), end))
}

/// What lies under a prefix, beyond a key.
fn beyond<'a, T>(
    map: &'a BTreeMap<Vec<u8>, T>,
    prefix: &[u8],
    past: Option<&[u8]>,
    order: Order,
) -> impl DoubleEndedIterator<Item = (&'a Vec<u8>, &'a T)> + use<'a, T> {
    let end = after(prefix);
    let mut range = (Bound::Included(prefix), end.as_deref().map_or(Bound::Unbounded, Bound::Excluded));
    match (past, order) {
        (Some(past), Order::Ascending) => range.0 = Bound::Excluded(past),
        (Some(past), Order::Descending) => range.1 = Bound::Excluded(past),
        (None, _) => {}
    }
    map.range::<[u8], _>(range)
}

/// The first key that sorts after all that begin with `prefix`.
fn after(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte < u8::MAX)?;
    let mut end = prefix.get(..=last)?.to_vec();
    if let Some(byte) = end.last_mut() {
        *byte += 1;
    }
    Some(end)
}
