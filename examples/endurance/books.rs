//! What became of each run time.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use actix::prelude::*;
use callboard::prelude::*;
use callboard::task::Source;
use chrono::{DateTime, TimeDelta, Utc};

/// The phases of a second in which tasks begin.
const PHASES: usize = 50;

/// A run time: how often its code ran, and how often an outcome was told.
#[derive(Debug, Clone, Copy, Default)]
struct Cell {
    ran: u8,
    told: u8,
}

struct Inner {
    begin: DateTime<Utc>,
    seconds: usize,
    cells: Vec<Cell>,
    told: usize,
    outcomes: BTreeMap<&'static str, u64>,
    strangers: u64,
    /// How late runs were, in milliseconds; those of calm times, and all.
    calm: Vec<u32>,
    all: Vec<u32>,
    /// Until when what is late is late because of a fault.
    troubled_until: Option<DateTime<Utc>>,
}

#[derive(Clone)]
pub(crate) struct Books(Arc<Mutex<Inner>>);

impl Books {
    pub(crate) fn new(begin: DateTime<Utc>, tasks: usize, seconds: usize) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            begin,
            seconds,
            cells: vec![Cell::default(); tasks * seconds],
            told: 0,
            outcomes: BTreeMap::new(),
            strangers: 0,
            calm: Vec::new(),
            all: Vec::new(),
            troubled_until: None,
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The first run time of a task.
    pub(crate) fn first(&self, index: usize) -> DateTime<Utc> {
        self.inner().first(index)
    }

    /// The code of a run was called.
    pub(crate) fn ran(&self, index: usize, nominal: DateTime<Utc>, now: DateTime<Utc>) {
        let mut books = self.inner();
        let late = u32::try_from((now - nominal).num_milliseconds().max(0)).unwrap_or(u32::MAX);
        if books.troubled_until.is_none_or(|until| until < nominal) {
            books.calm.push(late);
        }
        books.all.push(late);
        match books.cell(index, nominal) {
            Some(cell) => cell.ran = cell.ran.saturating_add(1),
            None => books.strangers += 1,
        }
    }

    pub(crate) fn trouble_begins(&self, now: DateTime<Utc>) {
        // What is under way may be late already.
        self.inner().troubled_until = Some(now + TimeDelta::days(1));
    }

    pub(crate) fn trouble_ends(&self, until: DateTime<Utc>) {
        self.inner().troubled_until = Some(until);
    }

    pub(crate) fn is_complete(&self) -> bool {
        let books = self.inner();
        books.told >= books.cells.len()
    }

    pub(crate) fn close(&self) -> Account {
        let mut books = self.inner();
        let lost = books.cells.iter().filter(|cell| cell.told == 0).count();
        let doubled = books.cells.iter().filter(|cell| cell.told > 1 || cell.ran > 1).count();
        Account {
            run_times: books.cells.len(),
            lost,
            doubled: doubled + books.strangers as usize,
            outcomes: std::mem::take(&mut books.outcomes),
            calm: Lateness::of(&mut books.calm),
            all: Lateness::of(&mut books.all),
        }
    }
}

impl Inner {
    fn first(&self, index: usize) -> DateTime<Utc> {
        self.begin + TimeDelta::milliseconds(((index % PHASES) * 1000 / PHASES) as i64)
    }

    fn cell(&mut self, index: usize, nominal: DateTime<Utc>) -> Option<&mut Cell> {
        let second = usize::try_from((nominal - self.first(index)).num_seconds()).ok()?;
        let seconds = self.seconds;
        (second < seconds).then(|| self.cells.get_mut(index * seconds + second)).flatten()
    }

    fn tell(&mut self, index: usize, nominal: DateTime<Utc>) {
        let Some(cell) = self.cell(index, nominal) else {
            self.strangers += 1;
            return;
        };
        cell.told = cell.told.saturating_add(1);
        self.told += usize::from(cell.told == 1);
    }
}

/// Hears how runs end.
pub(crate) struct Listener(pub(crate) Books);

impl Actor for Listener {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(1024);
    }
}

impl Handler<Event> for Listener {
    type Result = ();

    fn handle(&mut self, event: Event, _: &mut Self::Context) {
        let Some(report) = event.report() else { return };
        let run = &report.run;
        let Some(index) = run.task.args.as_u64().filter(|_| run.source == Source::Scheduled) else { return };
        let (index, mut books) = (index as usize, self.0.inner());
        *books.outcomes.entry(report.end.outcome.word()).or_default() += 1 + run.coalesced;
        // A record of several stands for those in its span, of which its own may be one.
        match run.span {
            Some(span) => {
                let mut nominal = span.from;
                let mut others = false;
                while nominal < span.until {
                    others |= nominal == run.nominal;
                    books.tell(index, nominal);
                    nominal += TimeDelta::seconds(1);
                }
                if !others {
                    books.tell(index, run.nominal);
                }
            }
            None => books.tell(index, run.nominal),
        }
    }
}

/// How late runs were, in milliseconds.
#[derive(Debug, Default)]
struct Lateness {
    runs: usize,
    p50: u32,
    p99: u32,
    most: u32,
}

impl Lateness {
    fn of(late: &mut [u32]) -> Self {
        late.sort_unstable();
        let at = |share: f64| late.get((late.len() as f64 * share) as usize).copied().unwrap_or_default();
        Self { runs: late.len(), p50: at(0.5), p99: at(0.99), most: late.last().copied().unwrap_or_default() }
    }
}

impl fmt::Display for Lateness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p50 {} ms, p99 {} ms, at most {} ms, of {} runs", self.p50, self.p99, self.most, self.runs)
    }
}

/// The sum of it all.
pub(crate) struct Account {
    run_times: usize,
    pub(crate) lost: usize,
    pub(crate) doubled: usize,
    outcomes: BTreeMap<&'static str, u64>,
    calm: Lateness,
    all: Lateness,
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcomes: Vec<_> = self.outcomes.iter().map(|(word, times)| format!("{word} {times}")).collect();
        writeln!(f, "late, while nothing was wrong: {}", self.calm)?;
        writeln!(f, "late, over all: {}", self.all)?;
        let Self { run_times, lost, doubled, .. } = self;
        write!(f, "run times: {run_times}, lost {lost}, doubled {doubled}; {}", outcomes.join(", "))
    }
}
