//! Which run records a store keeps and which go: a book that knows of each record when it was made, how
//! large it is and how it ended.
//!
//! It is told of each record once and of each end once, and moves an entry a constant number of times:
//! what a run costs depends neither on how many records there are nor on how many tasks. An entry takes
//! 32 bytes, and what its record takes where that is kept in the book.

use std::cmp::Reverse;
use std::collections::{BTreeSet, VecDeque};

use chrono::{DateTime, TimeDelta, Utc};
use rustc_hash::FxHashMap;

use crate::task::{Outcome, Refusal, RunId, RunRecord, TaskId};

/// So many records of each task, and so many of its failures, stay whatever else is said.
pub(super) const LEAST: usize = 20;

/// So many tasks give up a record, or turn out to have none to give, at one look.
const HAND: usize = 64;

/// How long records are kept, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Retention {
    /// The most records of a task.
    pub most: Option<usize>,
    /// The latest records of a task that neither age nor size takes, and as many of its failures.
    pub least: usize,
    /// Older ones go.
    pub age: Option<TimeDelta>,
    /// All records together, in bytes.
    pub size: u64,
    /// Whether `size` counts more than `least`.
    pub strict: bool,
}

impl Retention {
    /// What durable stores keep: what was seen in a week, in 256 MiB.
    #[cfg(feature = "_durable")]
    pub(super) const DURABLE: Self =
        Self { most: None, least: LEAST, age: Some(TimeDelta::days(7)), size: 256 << 20, strict: false };

    /// What memory stores keep: what goes into 32 MiB.
    pub(super) const MEMORY: Self =
        Self { most: None, least: LEAST, age: None, size: 32 << 20, strict: true };

    /// For people.
    pub(super) fn kept(&self) -> String {
        let least = self.most.map_or(self.least, |most| most.min(self.least));
        let mut bounds = Vec::new();
        if let Some(most) = self.most {
            bounds.push(format!("the latest {most} runs of a task"));
        }
        if let Some(age) = self.age {
            bounds.push(format!("runs of the last {}", words(age)));
        }
        bounds.push(format!("at most {} of records", size(self.size)));
        let bounds = bounds.join(", ");
        match least {
            _ if self.most.is_some_and(|most| most <= least) => bounds,
            0 => bounds,
            _ => format!("{bounds}; of each task the latest {least} and the latest {least} that went wrong"),
        }
    }
}

fn words(age: TimeDelta) -> String {
    match age.num_seconds() {
        seconds if seconds > 0 && seconds % 86_400 == 0 => format!("{} days", seconds / 86_400),
        seconds if seconds > 0 && seconds % 3600 == 0 => format!("{} h", seconds / 3600),
        seconds => format!("{seconds} s"),
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        bytes if bytes >= 1 << 20 && bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        bytes if bytes >= 1 << 10 && bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
        bytes => format!("{bytes} bytes"),
    }
}

/// How a run ended, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Not yet.
    Open,
    /// Well, or as its task wants it: nothing to look into.
    Routine,
    /// Otherwise.
    Failure,
}

impl Class {
    pub(super) fn of(record: &RunRecord) -> Self {
        match record.end.as_ref().map(|end| &end.outcome) {
            None => Self::Open,
            Some(Outcome::Executed { .. } | Outcome::Coalesced { .. } | Outcome::Skipped { .. }) => {
                Self::Routine
            }
            // A task that is due more often than it is done has many of these, by its own policy.
            Some(Outcome::Refused {
                reason: Refusal::MaxInstances { .. } | Refusal::TaskQueueFull { .. },
            }) => Self::Routine,
            Some(_) => Self::Failure,
        }
    }
}

/// A record: the record itself (`T`) where it is kept in the book, nothing where it is kept elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry<T = ()> {
    pub run: RunId,
    /// When it was submitted, in milliseconds.
    pub at: i64,
    /// In bytes.
    pub size: u32,
    pub class: Class,
    pub record: T,
}

impl Entry {
    pub(super) fn new(record: &RunRecord, size: usize) -> Self {
        Self {
            run: record.id,
            at: record.submitted_at.timestamp_millis(),
            size: u32::try_from(size).unwrap_or(u32::MAX),
            class: Class::of(record),
            record: (),
        }
    }

    pub(super) fn keeping<T>(self, record: T) -> Entry<T> {
        let Self { run, at, size, class, record: () } = self;
        Entry { run, at, size, class, record }
    }
}

/// The records of a task, each in one of these, by run.
#[derive(Debug)]
struct Account<T> {
    task: Option<TaskId>,
    /// Its latest.
    latest: VecDeque<Entry<T>>,
    /// How many of those went wrong.
    failing: usize,
    /// Its latest failures, but for those.
    failures: VecDeque<Entry<T>>,
    /// Older ones that have not ended.
    open: VecDeque<Entry<T>>,
    /// Those that may go.
    spare: Spare<VecDeque<Entry<T>>>,
    /// The task was removed: all that has ended may go.
    is_removed: bool,
}

/// What may go, the one before the other.
#[derive(Debug, Default)]
struct Spare<T> {
    routine: T,
    failures: T,
}

impl<T> Spare<T> {
    fn of(&mut self, class: Class) -> &mut T {
        if class == Class::Failure { &mut self.failures } else { &mut self.routine }
    }
}

impl<T> Account<T> {
    fn of(task: Option<TaskId>) -> Self {
        let list = VecDeque::new;
        let spare = Spare { routine: list(), failures: list() };
        Self { task, latest: list(), failing: 0, failures: list(), open: list(), spare, is_removed: false }
    }

    /// Whether a run is later than all those of the account.
    fn is_new(&self, run: RunId) -> bool {
        // Those elsewhere are older than the latest.
        self.latest.back().map_or_else(|| self.is_empty(), |last| last.run < run)
    }

    fn lists(&self) -> [&VecDeque<Entry<T>>; 5] {
        let Self { latest, failures, open, spare, .. } = self;
        [latest, open, failures, &spare.routine, &spare.failures]
    }

    fn ended(&self) -> usize {
        self.latest.len() + self.failures.len() + self.spare.routine.len() + self.spare.failures.len()
    }

    fn is_empty(&self) -> bool {
        self.ended() == 0 && self.open.is_empty()
    }
}

/// Adds an entry at its place, which is the end as a rule; says whether it is the first.
fn enter<T>(list: &mut VecDeque<Entry<T>>, entry: Entry<T>) -> bool {
    let at = match list.back() {
        Some(last) if last.run > entry.run => list.partition_point(|other| other.run < entry.run),
        _ => list.len(),
    };
    list.insert(at, entry);
    at == 0
}

fn place<T>(list: &VecDeque<Entry<T>>, run: RunId) -> Option<usize> {
    list.binary_search_by_key(&run, |entry| entry.run).ok()
}

/// The records of a store.
#[derive(Debug)]
pub(super) struct Ledger<T = ()> {
    bounds: Retention,
    by_task: FxHashMap<TaskId, u32>,
    accounts: Vec<Account<T>>,
    free: Vec<u32>,
    /// The accounts with something to spare, by the time of the first of it.
    spare: Spare<BTreeSet<(i64, u32)>>,
    /// More than a task may have.
    surplus: VecDeque<(TaskId, Entry<T>)>,
    /// All records together.
    total: u64,
    /// When the latest of those was submitted that are gone.
    gone_until: Option<i64>,
    /// Whose turn it is to give something up.
    hand: usize,
}

impl<T> Ledger<T> {
    pub(super) fn new(bounds: Retention) -> Self {
        Self {
            bounds,
            by_task: FxHashMap::default(),
            accounts: Vec::new(),
            free: Vec::new(),
            spare: Spare::default(),
            surplus: VecDeque::new(),
            total: 0,
            gone_until: None,
            hand: 0,
        }
    }

    /// The bytes of all records.
    #[cfg(test)]
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Whether something is to go, and can.
    #[cfg(feature = "_durable")]
    pub(super) fn is_over(&self) -> bool {
        let spare = !self.spare.routine.is_empty() || !self.spare.failures.is_empty();
        !self.surplus.is_empty() || (self.total > self.bounds.size && spare)
    }

    /// Until when records may be missing: the latest submission among those that are gone.
    pub(super) fn gone_until(&self) -> Option<DateTime<Utc>> {
        self.gone_until.and_then(DateTime::from_timestamp_millis)
    }

    /// Takes over what an earlier book knew.
    pub(super) fn note_gone_until(&mut self, time: Option<DateTime<Utc>>) {
        self.gone_until = self.gone_until.max(time.map(|time| time.timestamp_millis()));
    }

    fn least(&self) -> usize {
        self.bounds.most.map_or(self.bounds.least, |most| most.min(self.bounds.least))
    }

    fn account(&mut self, task: &TaskId) -> u32 {
        if let Some(index) = self.by_task.get(task) {
            return *index;
        }
        let account = Account::of(Some(task.clone()));
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.accounts.push(Account::of(None));
                (self.accounts.len() - 1) as u32
            }
        };
        if let Some(place) = self.accounts.get_mut(index as usize) {
            *place = account;
        }
        self.by_task.insert(task.clone(), index);
        index
    }

    /// Lets go of an account without records.
    fn close_if_empty(&mut self, index: u32) {
        let Some(account) = self.accounts.get_mut(index as usize) else { return };
        if account.is_empty()
            && let Some(task) = account.task.take()
        {
            self.by_task.remove(&task);
            self.free.push(index);
        }
    }

    /// Notes a record that is new, or has changed, of a task that exists or has been removed.
    pub(super) fn note(&mut self, task: &TaskId, entry: Entry<T>, exists: bool) {
        let index = self.account(task);
        let Some(account) = self.accounts.get_mut(index as usize) else { return };
        self.total += u64::from(entry.size);
        let is_new = account.is_new(entry.run);
        let there = if is_new { None } else { place(&account.latest, entry.run) };
        if let Some(there) = there.and_then(|at| account.latest.get_mut(at)) {
            self.total -= u64::from(there.size);
            account.failing += usize::from(entry.class == Class::Failure);
            account.failing -= usize::from(there.class == Class::Failure);
            *there = entry;
        } else if !is_new && let Some(before) = self.take(index, entry.run) {
            self.total -= u64::from(before.size);
            self.leave_latest(index, entry);
        } else if let Some(account) = self.accounts.get_mut(index as usize) {
            account.is_removed = !exists;
            if !exists && entry.class != Class::Open && account.latest.is_empty() {
                return self.put_to_spare(index, entry.class, entry);
            }
            account.failing += usize::from(entry.class == Class::Failure);
            enter(&mut account.latest, entry);
        }
        self.settle(index);
    }

    /// All records with their tasks, in no order.
    pub(super) fn into_entries(self) -> impl Iterator<Item = (TaskId, Entry<T>)> {
        self.accounts.into_iter().flat_map(|account| {
            let Account { task, latest, failures, open, spare, .. } = account;
            let lists = [latest, failures, open, spare.routine, spare.failures];
            lists.into_iter().flatten().filter_map(move |entry| Some((task.clone()?, entry)))
        })
    }

    /// Takes an entry out of where it is, when that is none of the latest.
    fn take(&mut self, index: u32, run: RunId) -> Option<Entry<T>> {
        let account = self.accounts.get_mut(index as usize)?;
        if let Some(at) = place(&account.open, run) {
            return account.open.remove(at);
        }
        if let Some(at) = place(&account.failures, run) {
            return account.failures.remove(at);
        }
        for class in [Class::Routine, Class::Failure] {
            let account = self.accounts.get_mut(index as usize)?;
            let list = account.spare.of(class);
            if let Some(at) = place(list, run) {
                let first = list.front().map(|first| first.at);
                let taken = list.remove(at);
                let now_first = list.front().map(|first| first.at);
                self.requeue(index, class, first, now_first);
                return taken;
            }
        }
        None
    }

    /// What there is to spare of an account begins at another time.
    fn requeue(&mut self, index: u32, class: Class, before: Option<i64>, after: Option<i64>) {
        if before != after {
            let queue = self.spare.of(class);
            before.map(|at| queue.remove(&(at, index)));
            after.map(|at| queue.insert((at, index)));
        }
    }

    /// Finds the place of an entry that is none of the latest.
    fn leave_latest(&mut self, index: u32, entry: Entry<T>) {
        let Some(account) = self.accounts.get_mut(index as usize) else { return };
        match entry.class {
            Class::Open => drop(enter(&mut account.open, entry)),
            Class::Failure if !account.is_removed => drop(enter(&mut account.failures, entry)),
            class => self.put_to_spare(index, class, entry),
        }
    }

    fn put_to_spare(&mut self, index: u32, class: Class, entry: Entry<T>) {
        let Some(account) = self.accounts.get_mut(index as usize) else { return };
        let list = account.spare.of(class);
        let (first, at) = (list.front().map(|first| first.at), entry.at);
        if enter(list, entry) {
            self.requeue(index, class, first, Some(at));
        }
    }

    /// Moves on what has become too old to be among the latest of its task.
    fn settle(&mut self, index: u32) {
        let (least, most) = (self.least(), self.bounds.most);
        loop {
            let Some(account) = self.accounts.get_mut(index as usize) else { return };
            if account.latest.len() > least || account.is_removed {
                let Some(entry) = account.latest.pop_front() else { break };
                account.failing -= usize::from(entry.class == Class::Failure);
                self.leave_latest(index, entry);
            } else {
                break;
            }
        }
        loop {
            let Some(account) = self.accounts.get_mut(index as usize) else { return };
            let excess = account.failing + account.failures.len() > least || account.is_removed;
            let Some(entry) = excess.then(|| account.failures.pop_front()).flatten() else { break };
            self.put_to_spare(index, Class::Failure, entry);
        }
        if let Some(most) = most {
            while self.accounts.get(index as usize).is_some_and(|account| {
                let spare = account.spare.routine.len() + account.spare.failures.len();
                spare > 0 && account.latest.len() + spare > most
            }) {
                let gone = self.give(index, Class::Routine).or_else(|| self.give(index, Class::Failure));
                self.surplus.extend(gone);
            }
        }
    }

    /// The first of what an account has to spare.
    fn give(&mut self, index: u32, class: Class) -> Option<(TaskId, Entry<T>)> {
        let account = self.accounts.get_mut(index as usize)?;
        let task = account.task.clone()?;
        let list = account.spare.of(class);
        let entry = list.pop_front()?;
        let now_first = list.front().map(|first| first.at);
        self.requeue(index, class, Some(entry.at), now_first);
        self.written_off(&entry);
        self.close_if_empty(index);
        Some((task, entry))
    }

    fn written_off(&mut self, entry: &Entry<T>) {
        self.total -= u64::from(entry.size);
        self.gone_until = self.gone_until.max(Some(entry.at));
    }

    /// Notes that a task was removed: its records stay while there is room and they are young.
    pub(super) fn leave(&mut self, task: &TaskId) {
        let Some(&index) = self.by_task.get(task) else { return };
        if let Some(account) = self.accounts.get_mut(index as usize) {
            account.is_removed = true;
            self.settle(index);
        }
    }

    /// Notes that a record is gone for a reason of its own.
    #[cfg(feature = "_durable")]
    pub(super) fn forget(&mut self, task: &TaskId, run: RunId) {
        let Some(&index) = self.by_task.get(task) else { return };
        let Some(account) = self.accounts.get_mut(index as usize) else { return };
        let taken = if let Some(at) = place(&account.latest, run) {
            let entry = account.latest.remove(at);
            account.failing -= usize::from(entry.as_ref().is_some_and(|entry| entry.class == Class::Failure));
            entry
        } else {
            self.take(index, run)
        };
        self.total -= taken.map_or(0, |entry| u64::from(entry.size));
        self.close_if_empty(index);
    }

    /// Writes off up to `limit` records that are too many, too large together or, submitted before
    /// `before`, too old. What goes is added to `gone`.
    pub(super) fn excess(
        &mut self,
        before: Option<DateTime<Utc>>,
        limit: usize,
        gone: &mut Vec<(TaskId, Entry<T>)>,
    ) {
        let end = gone.len() + limit;
        while gone.len() < end
            && let Some(surplus) = self.surplus.pop_front()
        {
            gone.push(surplus);
        }
        while gone.len() < end && self.total > self.bounds.size {
            let Some(next) = self.first_to_go() else { break };
            gone.push(next);
        }
        let Some(before) = before.map(|before| before.timestamp_millis()) else { return };
        for class in [Class::Routine, Class::Failure] {
            while gone.len() < end
                && let Some(&(at, index)) = self.spare.of(class).first()
                && at < before
            {
                let Some(next) = self.give(index, class) else { break };
                gone.push(next);
            }
        }
    }

    fn first_to_go(&mut self) -> Option<(TaskId, Entry<T>)> {
        for class in [Class::Routine, Class::Failure] {
            if let Some(&(_, index)) = self.spare.of(class).first() {
                return self.give(index, class);
            }
        }
        if self.bounds.strict { self.give_up() } else { None }
    }

    /// The tasks take turns to give up what they were to keep, the oldest first and failures last.
    fn give_up(&mut self) -> Option<(TaskId, Entry<T>)> {
        for _ in 0..HAND.min(self.accounts.len()) {
            let index = self.hand % self.accounts.len();
            self.hand = index + 1;
            let Some(account) = self.accounts.get_mut(index) else { continue };
            let Some(task) = account.task.clone() else { continue };
            let routine = account.latest.iter().position(|entry| entry.class == Class::Routine);
            let entry = if let Some(at) = routine {
                account.latest.remove(at)
            } else if let Some(entry) = account.failures.pop_front() {
                Some(entry)
            } else if let Some(at) = account.latest.iter().position(|entry| entry.class == Class::Failure) {
                account.failing -= 1;
                account.latest.remove(at)
            } else {
                None
            };
            if let Some(entry) = entry {
                self.written_off(&entry);
                self.close_if_empty(index as u32);
                return Some((task, entry));
            }
        }
        None
    }

    /// The records of a task, the latest first.
    pub(super) fn newest_first(&self, task: &TaskId) -> impl Iterator<Item = &Entry<T>> + '_ {
        let account = self.by_task.get(task).and_then(|index| self.accounts.get(*index as usize));
        let lists = account.into_iter().flat_map(Account::lists);
        let mut lists: Vec<_> = lists.map(|list| list.iter().rev().peekable()).collect();
        std::iter::from_fn(move || {
            let heads = lists.iter_mut().enumerate().filter_map(|(at, list)| Some((list.peek()?.run, at)));
            let (_, Reverse(at)) = heads.map(|(run, at)| (run, Reverse(at))).max()?;
            lists.get_mut(at)?.next()
        })
    }
}

#[cfg(test)]
mod tests;
