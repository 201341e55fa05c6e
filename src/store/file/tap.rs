//! Stands between a store and the system in tests: notes what becomes of files, and has calls fail.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::device::Call;

/// What has become of a file.
#[derive(Debug, Clone)]
pub(super) enum Done {
    Made,
    Emptied,
    Wrote(Vec<u8>),
    Cut(u64),
    Synced,
    /// What was written is not on the device, and no later sync brings it there: the system has
    /// forgotten that it is not.
    NotSynced,
    Renamed(PathBuf),
    Removed,
    NamesSynced,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    /// An error instead of the call.
    Before(i32),
    /// An error after it.
    After(i32),
    /// Half of a write, and an error; else an error instead of the call.
    Half(i32),
}

/// Watches the files below a directory.
#[derive(Debug)]
pub(super) struct Tap {
    root: PathBuf,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    done: Vec<(PathBuf, Done)>,
    calls: usize,
    /// Which calls fail, and how.
    faults: Vec<(usize, Fault)>,
    /// The rest of a write that fails.
    rest: Option<(PathBuf, i32)>,
}

static TAPS: Mutex<Vec<Arc<Tap>>> = Mutex::new(Vec::new());

/// Ends the watching when it is dropped.
pub(super) struct Watch(Arc<Tap>);

impl Watch {
    pub(super) fn over(root: &Path, faults: Vec<(usize, Fault)>) -> Self {
        let seen = Mutex::new(Seen { faults, ..Seen::default() });
        let tap = Arc::new(Tap { root: root.to_owned(), seen });
        TAPS.lock().unwrap().push(tap.clone());
        Self(tap)
    }

    /// What was done so far, by path within the directory.
    pub(super) fn done(&self) -> Vec<(PathBuf, Done)> {
        self.0.seen().done.clone()
    }

    /// How much was done so far.
    pub(super) fn moment(&self) -> usize {
        self.0.seen().done.len()
    }

    /// One more call fails.
    pub(super) fn fail(&self, call: usize, fault: Fault) {
        self.0.seen().faults.push((call, fault));
    }

    pub(super) fn calls(&self) -> usize {
        self.0.seen().calls
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        TAPS.lock().unwrap().retain(|tap| !Arc::ptr_eq(tap, &self.0));
    }
}

impl Tap {
    fn at(path: &Path) -> Option<Arc<Self>> {
        TAPS.lock().unwrap().iter().find(|tap| path.starts_with(&tap.root)).cloned()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    fn inside(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.root).unwrap().to_owned()
    }
}

impl Seen {
    fn fault(&self) -> Option<Fault> {
        self.faults.iter().find(|(call, _)| *call == self.calls).map(|(_, fault)| *fault)
    }
}

pub(super) fn through<T>(path: &Path, call: Call<'_>, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let Some(tap) = Tap::at(path) else { return work() };
    // One after the other, so that what is noted is in the order in which it was done.
    let mut seen = tap.seen();
    let fault = seen.fault();
    seen.calls += 1;
    let inside = tap.inside(path);
    if let Call::Write(_) = call
        && let Some((rest, error)) = &seen.rest
        && *rest == inside
    {
        let error = *error;
        seen.rest = None;
        return Err(io::Error::from_raw_os_error(error));
    }
    let halved = matches!(call, Call::Write(_));
    if let Some(Fault::Before(error) | Fault::Half(error)) = fault
        && !(halved && matches!(fault, Some(Fault::Half(_))))
    {
        if matches!(call, Call::Sync) {
            seen.done.push((inside, Done::NotSynced));
        }
        return Err(io::Error::from_raw_os_error(error));
    }
    let was_there = path.exists();
    let result = work();
    if result.is_ok() {
        let done = match call {
            Call::Read => None,
            Call::Open { .. } if !was_there => Some(Done::Made),
            Call::Open { anew } => anew.then_some(Done::Emptied),
            Call::Write(bytes) => Some(Done::Wrote(bytes.to_vec())),
            Call::Cut(length) => Some(Done::Cut(length)),
            Call::Sync => Some(Done::Synced),
            Call::Rename(to) => Some(Done::Renamed(tap.inside(to))),
            Call::Remove => Some(Done::Removed),
            Call::SyncNames => Some(Done::NamesSynced),
        };
        seen.done.extend(done.map(|done| (inside, done)));
    }
    match fault {
        Some(Fault::After(error)) => result.and(Err(io::Error::from_raw_os_error(error))),
        _ => result,
    }
}

/// The half of a write that is to fail.
pub(super) fn portion<'a>(path: &Path, bytes: &'a [u8]) -> &'a [u8] {
    let Some(tap) = Tap::at(path) else { return bytes };
    let mut seen = tap.seen();
    match seen.fault() {
        Some(Fault::Half(error)) if bytes.len() > 1 => {
            seen.rest = Some((tap.inside(path), error));
            &bytes[..bytes.len() / 2]
        }
        _ => bytes,
    }
}
