//! A device that loses what was not synced, built from the calls that a [`Watch`](super::tap::Watch) has
//! noted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::tap::Done;

/// What a device writes at once, or not. Real ones write more; a small one tears small files as well.
const BLOCK: usize = 64;

/// Chance that is the same each time (xorshift).
#[derive(Debug)]
pub(super) struct Dice(pub u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % sides
    }
}

/// Files by their paths in the directory.
pub(super) type Image = BTreeMap<PathBuf, Vec<u8>>;

#[derive(Debug, Clone)]
enum Edit {
    Write(usize, Vec<u8>),
    Cut(usize),
}

impl Edit {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(at, new) => {
                bytes.resize(bytes.len().max(at + new.len()), 0);
                bytes[*at..at + new.len()].copy_from_slice(new);
            }
            Self::Cut(length) => bytes.resize(*length, 0),
        }
    }
}

#[derive(Debug, Default)]
struct Inode {
    /// What the system answers with.
    system: Vec<u8>,
    device: Vec<u8>,
    /// What is not on the device.
    edits: Vec<Edit>,
}

impl Inode {
    fn edit(&mut self, edit: Edit) {
        edit.apply(&mut self.system);
        self.edits.push(edit);
    }

    fn after_power_cut(&self, dice: &mut Dice) -> Vec<u8> {
        let mut left = self.device.clone();
        if self.edits.is_empty() {
            return left;
        }
        let how = dice.roll(4);
        let arrived = match how {
            0 => 0,
            1 => dice.roll(self.edits.len()),
            _ => self.edits.len(),
        };
        for edit in &self.edits[..arrived] {
            match edit {
                // The length arrives, and some blocks.
                Edit::Write(at, new) if how == 3 => {
                    left.resize(left.len().max(at + new.len()), 0);
                    for (index, block) in new.chunks(BLOCK).enumerate() {
                        if dice.roll(2) == 0 {
                            let at = at + index * BLOCK;
                            left[at..at + block.len()].copy_from_slice(block);
                        }
                    }
                }
                edit => edit.apply(&mut left),
            }
        }
        if let Some(Edit::Write(at, new)) = self.edits.get(arrived)
            && how == 1
        {
            Edit::Write(*at, new[..dice.roll(new.len() + 1)].to_vec()).apply(&mut left);
        }
        left
    }
}

/// What becomes of names.
#[derive(Debug, Clone)]
enum Naming {
    Give(PathBuf, usize),
    Change(PathBuf, PathBuf),
    Take(PathBuf),
}

impl Naming {
    fn names(&self) -> Vec<&PathBuf> {
        match self {
            Self::Give(name, _) | Self::Take(name) => vec![name],
            Self::Change(from, to) => vec![from, to],
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Give(name, inode) => drop(names.insert(name.clone(), *inode)),
            Self::Change(from, to) => {
                let inode = names.remove(from).unwrap();
                names.insert(to.clone(), inode);
            }
            Self::Take(name) => drop(names.remove(name)),
        }
    }
}

/// A device, and the system before it.
#[derive(Debug, Default)]
pub(super) struct Device {
    inodes: Vec<Inode>,
    system: BTreeMap<PathBuf, usize>,
    device: BTreeMap<PathBuf, usize>,
    /// What is not on the device.
    namings: Vec<Naming>,
}

impl Device {
    pub(super) fn holding(image: &Image) -> Self {
        let mut device = Self::default();
        for (name, bytes) in image {
            device.device.insert(name.clone(), device.inodes.len());
            device.inodes.push(Inode { system: bytes.clone(), device: bytes.clone(), edits: Vec::new() });
        }
        device.system = device.device.clone();
        device
    }

    fn name(&mut self, naming: Naming) {
        naming.apply(&mut self.system);
        self.namings.push(naming);
    }

    pub(super) fn note(&mut self, path: &Path, done: &Done) {
        let inode = self.system.get(path).copied();
        let mut edit = |edit| self.inodes[inode.unwrap()].edit(edit);
        match done {
            Done::Made => {
                self.inodes.push(Inode::default());
                self.name(Naming::Give(path.to_owned(), self.inodes.len() - 1));
            }
            Done::Emptied => edit(Edit::Cut(0)),
            Done::Cut(length) => edit(Edit::Cut(*length as usize)),
            Done::Wrote(bytes) => {
                let inode = &mut self.inodes[inode.unwrap()];
                inode.edit(Edit::Write(inode.system.len(), bytes.clone()));
            }
            Done::Synced => {
                let inode = &mut self.inodes[inode.unwrap()];
                let edits = std::mem::take(&mut inode.edits);
                edits.iter().for_each(|edit| edit.apply(&mut inode.device));
            }
            Done::NotSynced => self.inodes[inode.unwrap()].edits.clear(),
            Done::Renamed(to) => self.name(Naming::Change(path.to_owned(), to.clone())),
            Done::Removed => self.name(Naming::Take(path.to_owned())),
            Done::NamesSynced => {
                let inside = |name: &PathBuf| name.parent() == Some(path);
                let (synced, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.namings)
                    .into_iter()
                    .partition(|naming| naming.names().into_iter().all(inside));
                synced.iter().for_each(|naming| naming.apply(&mut self.device));
                self.namings = rest;
            }
        }
    }

    /// The process is killed; in the midst of the next call, if that writes.
    pub(super) fn after_kill(&self, next: Option<&(PathBuf, Done)>, dice: &mut Dice) -> Image {
        let mut image: Image = self
            .system
            .iter()
            .map(|(name, inode)| (name.clone(), self.inodes[*inode].system.clone()))
            .collect();
        if let Some((path, Done::Wrote(bytes))) = next {
            image.get_mut(path).unwrap().extend(&bytes[..dice.roll(bytes.len())]);
        }
        image
    }

    /// Names that have to do with each other arrive in their order, others in any.
    pub(super) fn after_power_cut(&self, dice: &mut Dice) -> Image {
        let mut names = self.device.clone();
        let mut groups: Vec<(Vec<&PathBuf>, Vec<&Naming>)> = Vec::new();
        for naming in &self.namings {
            let touched = naming.names();
            let (with, rest) = groups
                .into_iter()
                .partition::<Vec<_>, _>(|(names, _)| names.iter().any(|name| touched.contains(name)));
            groups = rest;
            let mut group = (touched, Vec::new());
            for (names, namings) in with {
                group.0.extend(names);
                group.1.extend(namings);
            }
            group.1.push(naming);
            groups.push(group);
        }
        for (_, namings) in groups {
            let arrived = dice.roll(namings.len() + 1);
            namings[..arrived].iter().for_each(|naming| naming.apply(&mut names));
        }
        names.into_iter().map(|(name, inode)| (name, self.inodes[inode].after_power_cut(dice))).collect()
    }
}
