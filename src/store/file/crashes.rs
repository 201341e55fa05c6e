//! The power goes, the process is killed, or a call fails: between any two calls to the system.
//!
//! A store is changed by chance while a [`Watch`] notes every call. From the notes a [`Device`] is
//! built, which knows what was synced: after each call there is a directory as a kill would leave it,
//! and one as a power cut would, where what was not synced has arrived in part. Each of them has to
//! open with what was acknowledged up to that call, and with a change that was under way wholly or
//! not at all; while it is opened, and brought to the files, the power goes a second time.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::disk::{FileDisk, FilePlace};
use super::power::{Device, Dice, Image};
use super::tap::{Done, Fault, Watch};
use crate::store::StoreError;
use crate::store::engine::{Changes, Disk, Order, Part, Place};

const EIO: i32 = 5;
const EMFILE: i32 = 24;
const ENOSPC: i32 = 28;

fn restore(image: &Image, path: &Path) {
    fs::create_dir_all(path.join("tasks")).unwrap();
    for (name, bytes) in image {
        fs::write(path.join(name), bytes).unwrap();
    }
}

/// What a store holds, by key.
type Content = BTreeMap<Vec<u8>, Vec<u8>>;

fn content(disk: &FileDisk) -> Result<Content, StoreError> {
    let scan = |order| {
        let mut found = Vec::new();
        let visit = &mut |key: &[u8], value: &[u8]| {
            found.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        };
        disk.scan(&[], order, visit).map(|()| found)
    };
    let found = scan(Order::Ascending)?;
    let mut backwards = scan(Order::Descending)?;
    backwards.reverse();
    assert_eq!(found, backwards);
    for (key, value) in &found {
        assert_eq!(disk.get(key)?.as_ref(), Some(value));
    }
    Ok(found.into_iter().collect())
}

fn open(path: &Path) -> Result<FileDisk, StoreError> {
    FilePlace { path: path.to_owned() }.open()
}

/// Chance decides what is changed.
struct Story {
    dice: Dice,
    serial: u64,
}

impl Story {
    fn value(&mut self, kind: char) -> Vec<u8> {
        self.serial += 1;
        let filler = match self.dice.roll(6) {
            0 => 900,
            1 => 0,
            _ => self.dice.roll(80),
        };
        format!("{kind}\u{2}j{{\"n\":{},\"x\":\"{}\"}}", self.serial, "\u{e9}x".repeat(filler / 2))
            .into_bytes()
    }

    /// Some changes to what there is, and what is there then.
    fn batch(&mut self, content: &mut Content) -> Changes {
        let mut changes = Changes::new();
        for _ in 0..=self.dice.roll(3) {
            let task = match self.dice.roll(6) {
                0 => "ж".repeat(120),
                1 => format!("{}{}", "Z".repeat(210), self.dice.roll(2)),
                other => format!("Task {other}"),
            };
            let (spec, state) = (Part::Spec.key(&task), Part::State.key(&task));
            let run =
                |number: usize| Part::Run(&[1_u64, number as u64].map(u64::to_be_bytes).concat()).key(&task);
            match self.dice.roll(8) {
                0 if content.contains_key(&spec) => changes.extend([(spec, None), (state, None)]),
                1 => changes.push((b"o rest".to_vec(), Some(self.value('I')))),
                2 => changes.push((b"o rest".to_vec(), None)),
                3 => changes.extend((0..2 + self.dice.roll(8)).map(|number| (run(number), None))),
                4 | 5 => {
                    let from = self.dice.roll(6);
                    changes.extend((from..from + 4).map(|number| (run(number), Some(self.value('R')))));
                }
                _ if content.contains_key(&spec) => changes.push((state, Some(self.value('T')))),
                _ => changes.extend([(spec, Some(self.value('S'))), (state, Some(self.value('T')))]),
            }
            // What there is is changed by all of them in turn.
            for (key, value) in &changes {
                match value {
                    Some(value) => drop(content.insert(key.clone(), value.clone())),
                    None => drop(content.remove(key)),
                }
            }
        }
        changes
    }

    /// A step; what is there is in `content` when it was acknowledged.
    fn step(&mut self, disk: &mut FileDisk, next: &mut Content) -> Result<(), StoreError> {
        for _ in 0..=self.dice.roll(2) {
            let changes = self.batch(next);
            disk.apply(changes)?;
        }
        disk.sync()
    }
}

/// What was acknowledged, and when.
type Acknowledged = Vec<(usize, Content)>;

/// Opens a store and looks at what it holds, more often than calls fail.
fn reopened(path: &Path) -> (FileDisk, Content) {
    let mut tries = 0..;
    loop {
        let opened = open(path).and_then(|disk| content(&disk).map(|found| (disk, found)));
        match opened {
            Ok(opened) => return opened,
            Err(error) => assert!(tries.next() < Some(6), "{error}"),
        }
    }
}

/// Changes a store `steps` times while calls of it fail. It is opened again then, and has to hold what was
/// acknowledged.
fn tell(path: &Path, seed: u64, steps: usize, watch: &Watch) -> Acknowledged {
    let mut story = Story { dice: Dice(seed | 1), serial: 0 };
    let mut acknowledged: Acknowledged = vec![(0, Content::new())];
    let mut open = None;
    for step in 0..steps {
        let before = acknowledged.last().unwrap().1.clone();
        let mut disk = open.take().unwrap_or_else(|| {
            let (disk, found) = reopened(path);
            assert_eq!(found, before, "step {step}, after opening");
            disk
        });
        let mut next = before.clone();
        let told = story.step(&mut disk, &mut next);
        if told.is_ok() {
            acknowledged.push((watch.moment(), next.clone()));
        }
        let went = told.and_then(|()| {
            if story.dice.roll(3) == 0 {
                assert_eq!(content(&disk)?, next, "step {step}");
            }
            for _ in 0..story.dice.roll(4) {
                if disk.untidy().is_some() {
                    disk.tidy()?;
                }
            }
            if story.dice.roll(12) == 0 {
                return disk.close();
            }
            open = Some(disk);
            Ok(())
        });
        if went.is_err() {
            // What was under way may have happened.
            drop(open.take());
            let (disk, found) = reopened(path);
            let before = &acknowledged.last().unwrap().1;
            assert!(found == *before || found == next, "step {step}: {went:?}: {found:?}");
            acknowledged.push((watch.moment(), found));
            open = Some(disk);
        }
    }
    drop(open.map(FileDisk::close));
    assert_eq!(reopened(path).1, acknowledged.last().unwrap().1, "in the end");
    acknowledged
}

/// In memory, where that can be: nothing here depends on a device.
fn place() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// Of each key that differs, what it was to be and what it is.
fn differences(expected: &Content, found: &Content) -> Vec<String> {
    let text = |content: &Content, key: &Vec<u8>| {
        content.get(key).map(|value| String::from_utf8_lossy(value).chars().take(30).collect::<String>())
    };
    let keys: std::collections::BTreeSet<_> = expected.keys().chain(found.keys()).collect();
    keys.into_iter()
        .filter(|key| expected.get(*key) != found.get(*key))
        .map(|key| {
            format!("{}: {:?}, and it is {:?}", key.escape_ascii(), text(expected, key), text(found, key))
        })
        .collect()
}

/// Opens a store on what was left, and has the power go again.
fn survives(image: &Image, allowed: [&Content; 2], dice: &mut Dice, context: &str) {
    let base = place();
    let path = base.path().join("left");
    restore(image, &path);
    let watch = Watch::over(&path, Vec::new());
    let mut disk = open(&path).unwrap_or_else(|error| panic!("{context}: it does not open: {error}"));
    let found = content(&disk).unwrap();
    let wrong = allowed.map(|content| differences(content, &found));
    let names = image.keys();
    assert!(
        wrong.iter().any(Vec::is_empty),
        "{context}: neither as before nor as after: {wrong:#?} of {names:?}"
    );
    while disk.untidy().is_some() {
        disk.tidy().unwrap();
        assert_eq!(content(&disk).unwrap(), found, "{context}, in the files");
    }
    drop(disk);
    let done = watch.done();
    drop(watch);
    let mut device = Device::holding(image);
    let moment = dice.roll(done.len() + 1);
    done[..moment].iter().for_each(|(path, done)| device.note(path, done));
    let base = place();
    restore(&device.after_power_cut(dice), &base.path().join("left"));
    let disk = open(&base.path().join("left"));
    let disk = disk.unwrap_or_else(|error| panic!("{context}: it does not open again: {error}"));
    assert_eq!(content(&disk).unwrap(), found, "{context}, after a second cut at {moment}");
}

fn check_each_moment(done: &[(PathBuf, Done)], acknowledged: &Acknowledged, seed: u64, odds: usize) -> usize {
    let mut dice = Dice(seed | 1);
    let mut device = Device::default();
    let mut checked = 0;
    for moment in 0..=done.len() {
        let known = acknowledged.iter().rposition(|(at, _)| *at <= moment).unwrap();
        let next = acknowledged.get(known + 1).unwrap_or(&acknowledged[known]);
        let allowed = [&acknowledged[known].1, &next.1];
        let context = format!("seed {seed}, call {moment}: {:?}", done.get(moment).map(|(path, _)| path));
        // A sync that has failed is heard of later.
        let from = moment.saturating_sub(40);
        let failed = done[from..moment].iter().any(|(_, done)| matches!(done, Done::NotSynced));
        let odds = if failed { odds.min(4) } else { odds };
        if dice.roll(odds) == 0 {
            checked += 1;
            survives(&device.after_power_cut(&mut dice), allowed, &mut dice, &format!("cut, {context}"));
        }
        if dice.roll(odds * 2) == 0 {
            let image = device.after_kill(done.get(moment), &mut dice);
            survives(&image, allowed, &mut dice, &format!("kill, {context}"));
        }
        if let Some((path, done)) = done.get(moment) {
            device.note(path, done);
        }
    }
    checked
}

#[test]
fn whatever_call_is_the_last_one_what_was_acknowledged_is_there() {
    for seed in seeds(1..=2) {
        let base = place();
        let path = base.path().join("live");
        fs::create_dir(&path).unwrap();
        let watch = Watch::over(&path, Vec::new());
        let acknowledged = tell(&path, seed, 40, &watch);
        let anew = |(_, done): &(_, Done)| matches!(done, Done::Renamed(to) if to.extension() == Some("jsonl".as_ref()));
        let rewritten =
            watch.done().into_iter().filter(anew).filter(|(from, _)| from.starts_with("tasks")).count();
        assert!(rewritten > 0, "runs were written anew");
        let checked = check_each_moment(&watch.done(), &acknowledged, seed, 3);
        assert!(checked > 100, "{checked}");
    }
}

#[test]
fn whatever_call_fails_what_was_acknowledged_is_there() {
    let steps = 25;
    for seed in seeds(1..=2) {
        let base = place();
        let watch = Watch::over(base.path(), Vec::new());
        tell(&base.path().join("whole"), seed, steps, &watch);
        let calls = watch.calls();
        drop(watch);
        let mut dice = Dice(seed * 77 + 1);
        for round in 0..30 {
            let path = base.path().join(format!("{round}"));
            fs::create_dir(&path).unwrap();
            let fault = |dice: &mut Dice| {
                let error = [EIO, EMFILE, ENOSPC][dice.roll(3)];
                [Fault::Before(error), Fault::After(error), Fault::Half(error)][dice.roll(3)]
            };
            let at = dice.roll(calls);
            let faults = vec![(at, fault(&mut dice)), (at + 1 + dice.roll(20), fault(&mut dice))];
            let watch = Watch::over(&path, faults);
            let acknowledged = tell(&path, seed, steps, &watch);
            check_each_moment(&watch.done(), &acknowledged, seed * 1000 + round, 60);
        }
    }
}

/// Whoever edits files after the store was closed is not overruled by a journal that comes back.
#[test]
fn a_journal_is_gone_for_good_when_the_store_was_closed() {
    let base = place();
    let watch = Watch::over(base.path(), Vec::new());
    let mut disk = open(base.path()).unwrap();
    let parts = [Part::Spec, Part::State].map(|part| (part.key("a"), Some(b"S\x02j{}".to_vec())));
    disk.apply(parts.to_vec()).unwrap();
    disk.sync().unwrap();
    disk.close().unwrap();
    let mut device = Device::default();
    watch.done().iter().for_each(|(path, done)| device.note(path, done));
    for seed in 1..20 {
        let image = device.after_power_cut(&mut Dice(seed));
        assert!(
            !image.contains_key(Path::new("journal.old.jsonl"))
                && image[Path::new("journal.jsonl")].is_empty()
        );
        assert!(image.contains_key(Path::new("tasks/a.json")));
    }
}

/// A change whose sync failed can be read, and is on no device: what is done after it must not rely on it.
#[test]
fn what_a_sync_did_not_bring_to_the_device_gets_there_before_it_is_built_upon() {
    let base = place();
    let path = base.path();
    let watch = Watch::over(path, Vec::new());
    let mut disk = open(path).unwrap();
    let value = |serial: u64| Some(format!("T\u{2}j{{\"n\":{serial}}}").into_bytes());
    let change = |serial| vec![(Part::State.key("a"), value(serial))];
    disk.apply(vec![(Part::Spec.key("a"), Some(b"S\x02j{}".to_vec()))]).unwrap();
    disk.apply(change(1)).unwrap();
    watch.fail(watch.calls() + 1, Fault::Before(EIO));
    disk.sync().unwrap_err();
    drop(disk);
    let mut disk = open(path).unwrap();
    assert_eq!(disk.get(&Part::State.key("a")).unwrap(), value(1));
    disk.apply(change(2)).unwrap();
    disk.sync().unwrap();
    let expected = content(&disk).unwrap();
    let done = watch.done();
    drop((disk, watch));
    assert!(done.iter().any(|(_, done)| matches!(done, Done::NotSynced)));
    let mut device = Device::default();
    done.iter().for_each(|(path, done)| device.note(path, done));
    for seed in 1..20 {
        survives(&device.after_power_cut(&mut Dice(seed)), [&expected; 2], &mut Dice(seed), "a failed sync");
    }
}

/// More of them with `CALLBOARD_SEEDS=<how many>`.
fn seeds(few: std::ops::RangeInclusive<u64>) -> Vec<u64> {
    match std::env::var("CALLBOARD_SEEDS").ok().and_then(|many| many.parse::<u64>().ok()) {
        Some(many) => (1..=many).collect(),
        None => few.collect(),
    }
}
