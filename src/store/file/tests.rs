//! What the disk of files costs, and what is there while it is at work.

use std::ops::ControlFlow;
use std::path::Path;

use super::disk::{FileDisk, FilePlace, Limits};
use super::runs;
use crate::store::engine::{Disk, Order, Part, Place, SPEC};

fn run(serial: u64) -> Vec<u8> {
    Part::Run(&[1_u64.to_be_bytes(), serial.to_be_bytes()].concat()).key("a")
}

fn record(serial: u64) -> Vec<u8> {
    format!("R\u{3}j{{\"n\":{serial},\"what\":\"{}\"}}", "x".repeat(300)).into_bytes()
}

fn open(path: &Path) -> FileDisk {
    FilePlace { path: path.to_owned() }.open().unwrap()
}

/// How many bytes this thread has read and written so far.
fn moved() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/io").unwrap();
    let counts = text.lines().filter(|line| line.starts_with("rchar") || line.starts_with("wchar"));
    counts.map(|line| line.split_once(": ").unwrap().1.parse::<u64>().unwrap()).sum()
}

/// A run that begins, is brought to the files, ends, and is brought there again.
fn step(disk: &mut FileDisk, serial: u64) {
    for value in [record(serial), record(serial)] {
        let state = format!("T\u{3}j{{\"revision\":{serial}}}").into_bytes();
        disk.apply(vec![(run(serial), Some(value)), (Part::State.key("a"), Some(state))]).unwrap();
        disk.sync().unwrap();
        while disk.untidy().is_some() {
            disk.tidy().unwrap();
        }
    }
}

#[test]
fn what_a_run_costs_does_not_grow_with_the_history() {
    let base = tempfile::tempdir().unwrap();
    let mut disk = open(base.path());
    disk.apply(vec![(Part::Spec.key("a"), Some(b"S\x02j{}".to_vec()))]).unwrap();
    step(&mut disk, 0);
    let cost = |disk: &mut FileDisk, serial| {
        let before = moved();
        step(disk, serial);
        moved() - before
    };
    let first = cost(&mut disk, 1);
    let many = (2..20_000).map(|serial| (run(serial), Some(record(serial)))).collect();
    disk.apply(many).unwrap();
    disk.sync().unwrap();
    while disk.untidy().is_some() {
        disk.tidy().unwrap();
    }
    let size = std::fs::metadata(base.path().join("tasks/a.runs.jsonl")).unwrap().len();
    assert!(size > 5_000_000, "{size}");
    let later = cost(&mut disk, 20_000);
    assert!(later < first * 3 / 2 && later < 20_000, "{first} bytes at first, {later} later");
    drop(disk);

    // The first run after a start, with the look at a run that was under way.
    let begun = moved();
    let mut disk = open(base.path());
    assert_eq!(disk.get(&run(20_000)).unwrap(), Some(record(20_000)));
    step(&mut disk, 20_001);
    let start = moved() - begun;
    assert!(start < later + 100_000, "{start} bytes for a start, of {size}");

    // Records that go are not a reason to write those that stay, once it is known where they are.
    disk.scan(&run(0)[..3], Order::Ascending, &mut |_, _| ControlFlow::Continue(())).unwrap();
    let before = moved();
    for serial in 0..100 {
        disk.apply(vec![(run(serial), None)]).unwrap();
        step(&mut disk, 20_002 + serial);
    }
    let each = (moved() - before) / 100;
    assert!(each < later * 2, "{each} bytes where records go, {later} where none do");
}

/// Bringing changes to files goes in steps, and between them everything is there.
#[test]
fn between_the_steps_nothing_is_missing() {
    let base = tempfile::tempdir().unwrap();
    let mut disk = open(base.path());
    let id = |index: usize| format!("task {index:03}");
    let spec = |index: usize, word: &str| format!("S\u{2}j{{\"{word}\":{index}}}").into_bytes();
    let all = |word| (0..200).map(move |index| (Part::Spec.key(&id(index)), Some(spec(index, word))));
    let states = (0..200).map(|index| (Part::State.key(&id(index)), Some(b"T\x03j{}".to_vec())));
    disk.apply(all("old").chain(states).collect()).unwrap();
    disk.sync().unwrap();
    let mut steps = 0;
    while disk.untidy().is_some() {
        disk.tidy().unwrap();
        steps += 1;
        if steps == 1 {
            disk.apply(all("new").take(150).collect()).unwrap();
            let gone = [Part::Spec, Part::State].map(|part| (part.key(&id(150)), None));
            disk.apply(gone.to_vec()).unwrap();
            disk.sync().unwrap();
        }
        let expected: Vec<_> = all("new").take(150).chain(all("old").skip(151)).collect();
        for order in [Order::Ascending, Order::Descending] {
            let mut found = Vec::new();
            disk.scan(SPEC, order, &mut |key, value| {
                found.push((key.to_vec(), Some(value.to_vec())));
                ControlFlow::Continue(())
            })
            .unwrap();
            if order == Order::Descending {
                found.reverse();
            }
            assert!(found == expected, "step {steps}, {order:?}");
        }
    }
    assert!(steps > 4, "{steps}");
}

/// While one journal is brought to the files, the next one does not grow for ever, and nobody waits for all
/// of it.
#[test]
fn a_journal_that_grows_faster_than_files_are_written_slows_changes_down() {
    let base = tempfile::tempdir().unwrap();
    let mut disk = open(base.path());
    disk.limits = Limits { long: 20_000, longest: 50_000, step: 10_000 };
    let put = |disk: &mut FileDisk, tasks: std::ops::Range<usize>| {
        let value = format!("S\u{2}j{{\"x\":\"{}\"}}", "x".repeat(100)).into_bytes();
        let change = |task| {
            [Part::Spec, Part::State].map(|part| (part.key(&format!("task {task}")), Some(value.clone())))
        };
        disk.apply(tasks.flat_map(change).collect()).unwrap();
        disk.sync().unwrap();
    };
    put(&mut disk, 0..2000);
    disk.tidy().unwrap();
    let left = |disk: &FileDisk| disk.settling.as_ref().map_or(0, |settling| settling.tasks.len());
    let all = left(&disk);
    assert!(all > 1500, "{all}");
    let (mut most, mut longest, mut changes) = (0, 0, 0);
    while left(&disk) > 0 {
        let before = left(&disk);
        put(&mut disk, 3000 + changes * 20..3020 + changes * 20);
        changes += 1;
        most = most.max(before - left(&disk));
        let length = runs::length(&base.path().join("journal.jsonl")).unwrap();
        assert!(length > 50_000 || before == left(&disk), "nobody waits with a short one");
        longest = longest.max(length);
    }
    assert!(most < all / 2, "{most} at once, of {all}");
    assert!(longest < 200_000, "{longest}");
    assert_eq!(disk.untidy(), Some(std::time::Duration::ZERO), "the next one is begun at once");
}
