//! The book beside the simplest thing that could be one: a list of all records, gone through each time.

use std::collections::BTreeSet;

use super::*;
use crate::task::OwnerId;

fn id(text: &str) -> TaskId {
    TaskId::new(text).unwrap()
}

fn run(serial: u64) -> RunId {
    RunId { owner: OwnerId(1), serial }
}

/// Chance that is the same each time (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}

/// All records there are, by run: the task's name is a number.
struct Model {
    bounds: Retention,
    records: Vec<(u64, Entry)>,
    /// Those that have been free to go.
    freed: BTreeSet<RunId>,
    removed: BTreeSet<u64>,
}

impl Model {
    fn least(&self) -> usize {
        self.bounds.most.map_or(self.bounds.least, |most| most.min(self.bounds.least))
    }

    /// Whether a record has others of its task that are later, as many as are kept.
    fn is_beyond(&self, task: u64, entry: &Entry) -> bool {
        let later = |other: &&(u64, Entry)| other.0 == task && other.1.run > entry.run;
        let all = self.records.iter().filter(later).count();
        let failing = |other: &&(u64, Entry)| later(other) && other.1.class == Class::Failure;
        let failures = self.records.iter().filter(failing).count();
        all >= self.least() && (entry.class != Class::Failure || failures >= self.least())
    }

    /// What was passed by as many others once is free from then on, and so is what is left of a task.
    fn free(&mut self) {
        let free = |(task, entry): &&(u64, Entry)| {
            entry.class != Class::Open && (self.removed.contains(task) || self.is_beyond(*task, entry))
        };
        let freed: Vec<_> = self.records.iter().filter(free).map(|(_, entry)| entry.run).collect();
        self.freed.extend(freed);
    }

    fn total(&self) -> u64 {
        self.records.iter().map(|(_, entry)| u64::from(entry.size)).sum()
    }

    /// The oldest of those that may go, successes before failures.
    fn first_to_go(&self, too_old: Option<i64>) -> Option<RunId> {
        [Class::Routine, Class::Failure]
            .into_iter()
            .find_map(|class| {
                let free = |(_, entry): &&(u64, Entry)| {
                    entry.class == class
                        && self.freed.contains(&entry.run)
                        && too_old.is_none_or(|before| entry.at < before)
                };
                self.records.iter().filter(free).map(|(_, entry)| (entry.at, entry.run)).min()
            })
            .map(|(_, run)| run)
    }

    fn sweep(&mut self, before: Option<i64>) {
        if let Some(most) = self.bounds.most {
            let tasks: BTreeSet<u64> = self.records.iter().map(|(task, _)| *task).collect();
            for task in tasks {
                loop {
                    let kept = |(other, entry): &&(u64, Entry)| {
                        *other == task
                            && (self.freed.contains(&entry.run) || self.is_among_latest(task, entry))
                    };
                    let count = self.records.iter().filter(kept).count();
                    let spare = [Class::Routine, Class::Failure].into_iter().find_map(|class| {
                        let free = |(other, entry): &&(u64, Entry)| {
                            *other == task && entry.class == class && self.freed.contains(&entry.run)
                        };
                        self.records.iter().filter(free).map(|(_, entry)| entry.run).min()
                    });
                    match spare {
                        Some(run) if count > most => self.records.retain(|(_, entry)| entry.run != run),
                        _ => break,
                    }
                }
            }
        }
        while self.total() > self.bounds.size
            && let Some(run) = self.first_to_go(None)
        {
            self.records.retain(|(_, entry)| entry.run != run);
        }
        while before.is_some()
            && let Some(run) = self.first_to_go(before)
        {
            self.records.retain(|(_, entry)| entry.run != run);
        }
    }

    fn is_among_latest(&self, task: u64, entry: &Entry) -> bool {
        !self.removed.contains(&task)
            && self.records.iter().filter(|(other, later)| *other == task && later.run > entry.run).count()
                < self.least()
    }
}

/// Whatever begins, ends and is removed, in whatever order: what is kept is what the list says.
#[test]
fn the_book_keeps_what_a_list_of_everything_would_keep() {
    for seed in 1..=60 {
        let mut dice = Dice(seed * 2 + 1);
        let bounds = Retention {
            most: (dice.roll(3) == 0).then(|| dice.roll(12) as usize + 1),
            least: dice.roll(5) as usize,
            age: None,
            size: 200 + dice.roll(4000),
            strict: false,
        };
        let mut ledger = Ledger::new(bounds);
        let mut model =
            Model { bounds, records: Vec::new(), freed: BTreeSet::new(), removed: BTreeSet::new() };
        // A task that is removed does not come back: what does is another one.
        let mut names = [0, 1, 2, 3];
        for step in 0..400_u64 {
            let place = dice.roll(4) as usize;
            let task = names[place];
            let (name, size) = (id(&task.to_string()), dice.roll(90) as u32 + 10);
            let class = [Class::Open, Class::Routine, Class::Routine, Class::Failure][dice.roll(4) as usize];
            match dice.roll(10) {
                0..6 => {
                    let entry = Entry { run: run(step), at: step as i64, size, class, record: () };
                    ledger.note(&name, entry, true);
                    model.records.push((task, entry));
                }
                6..9 => {
                    let open = |(_, entry): &&mut (u64, Entry)| entry.class == Class::Open;
                    let open: Vec<_> = model.records.iter_mut().filter(open).collect();
                    let at = dice.roll(open.len().max(1) as u64) as usize;
                    if let Some((task, entry)) = open.into_iter().nth(at) {
                        let class = if class == Class::Open { Class::Routine } else { class };
                        *entry = Entry { size, class, ..*entry };
                        ledger.note(&id(&task.to_string()), *entry, true);
                    }
                }
                _ => {
                    ledger.leave(&name);
                    model.removed.insert(task);
                    names[place] += 4;
                }
            }
            model.free();
            let before = (dice.roll(9) == 0).then(|| step as i64 - 60);
            let mut gone = Vec::new();
            ledger.excess(before.and_then(DateTime::from_timestamp_millis), usize::MAX / 2, &mut gone);
            model.sweep(before);
            for task in 0..names.into_iter().max().unwrap() + 1 {
                let kept: Vec<_> =
                    ledger.newest_first(&id(&task.to_string())).map(|entry| entry.run).collect();
                let own = model.records.iter().rev().filter(|(other, _)| *other == task);
                let expected: Vec<_> = own.map(|(_, entry)| entry.run).collect();
                assert_eq!(kept, expected, "seed {seed}, step {step}, task {task}, {bounds:?}");
            }
            assert_eq!(ledger.total(), model.total(), "seed {seed}, step {step}");
        }
    }
}

#[test]
fn successes_go_before_failures_and_the_latest_of_both_stay() {
    let mut ledger = Ledger::new(Retention { size: 100, ..Retention::DURABLE });
    let name = id("a");
    for serial in 0..200 {
        let class = if serial < 50 { Class::Failure } else { Class::Routine };
        ledger.note(&name, Entry { run: run(serial), at: serial as i64, size: 1, class, record: () }, true);
        ledger.excess(None, 9, &mut Vec::new());
    }
    let kept: Vec<_> = ledger.newest_first(&name).map(|entry| entry.run.serial).collect();
    let expected: Vec<_> = (150..200).chain(0..50).collect::<BTreeSet<_>>().into_iter().rev().collect();
    assert_eq!(kept, expected, "the successes that there is room for, and every failure");
    // A week later the twenty latest of each are left.
    let mut gone = Vec::new();
    ledger.excess(DateTime::from_timestamp_millis(i64::MAX / 2_000_000), usize::MAX / 2, &mut gone);
    let kept: Vec<_> = ledger.newest_first(&name).map(|entry| entry.run.serial).collect();
    assert_eq!(kept, (180..200).rev().chain((30..50).rev()).collect::<Vec<_>>());
    assert_eq!(ledger.gone_until(), DateTime::from_timestamp_millis(179));
}

/// What there is to do for a run is a number of entries that are moved: it is the same with a thousand
/// tasks and a hundred thousand records, and work that is left over waits for its turn.
#[test]
fn what_goes_at_once_is_bounded_however_much_there_is() {
    let mut ledger = Ledger::new(Retention { size: 1 << 40, ..Retention::DURABLE });
    for serial in 0..100_000 {
        let entry =
            Entry { run: run(serial), at: serial as i64, size: 100, class: Class::Routine, record: () };
        ledger.note(&id(&(serial % 1000).to_string()), entry, true);
    }
    ledger.bounds.size = 1;
    for _ in 0..3 {
        let mut gone = Vec::new();
        ledger.excess(DateTime::from_timestamp_millis(i64::MAX / 2_000_000), 10, &mut gone);
        assert_eq!(gone.len(), 10);
    }
    assert_eq!(ledger.total(), 100 * (100_000 - 30));
}
