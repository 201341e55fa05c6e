//! How a store is opened: on a thread that will own the disk, and then in memory.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use rustc_hash::FxHashSet;
use uuid::Uuid;

use super::backend::{Engine, is_there};
use super::files::{self, is_beyond_repair};
use super::history::History;
use super::load::{Bad, Loaded, Note};
use super::whereabouts::check_quiet;
use super::writer::Writer;
use super::{Batch, Disk, Place, Rules, identity, import, keys};
use crate::clock::Clock;
use crate::private_file::{FileId, There};
use crate::store::envelope::{Codec, Kind};
use crate::store::message::{Open, Opened, SetAside};
use crate::store::{Backend, StoreError};
use crate::task::{Outcome, RunEnd};

/// So many threads that hang in an opening are left behind; then it is not tried again until one of
/// them comes back.
const MOST_LEFT_BEHIND: usize = 4;

impl<P: Place> Engine<P> {
    pub(super) fn open_now(&mut self, Open { owner, now }: Open) -> Result<(Batch, Opened), StoreError> {
        let reloaded = match &self.writer {
            Some(writer) if writer.check().is_ok() => {
                // A store that works goes on with the keys it has.
                let codec = self.rules.codec(writer.identity()).unwrap_or_else(|error| {
                    tracing::warn!(%error, "the keys of a store were looked for and not found; it goes on with those it has");
                    self.codec.clone()
                });
                writer.load(codec)
            }
            _ => {
                // What is left of a failed one lets go of its files first.
                self.writer = None;
                self.left_behind.retain(|thread| !thread.is_finished());
                if self.left_behind.len() >= MOST_LEFT_BEHIND {
                    return Err(StoreError::unavailable(format!(
                        "{MOST_LEFT_BEHIND} threads hang that were to open it, and no more are begun: see to its \
                         device; it is opened when one of them comes back, or when the program is started again"
                    )));
                }
                let aside = self.asides.0.clone();
                let (place, known) = (&self.place, self.known);
                let opened = Writer::open(place, &self.rules, known, aside, &mut self.left_behind);
                let (writer, loaded) = opened.inspect_err(|error| self.note_gone(error))?;
                // Also when what follows fails: what is there is not made anew.
                self.known = Some(Known::of(writer.identity(), self.place.path()));
                self.writer = Some(writer);
                self.not_opened = None;
                Ok(loaded)
            }
        };
        let mut loaded = reloaded.inspect_err(|_| self.writer = None)?;
        let mut batch = Batch::default();
        self.codec = loaded.codec.clone();
        self.tasks = std::mem::take(&mut loaded.tasks);
        let healed = self.keep_quarantine(&mut batch, &loaded, now)?;
        let named = |bad: &Bad| (bad.what.id.clone(), (bad.what.cause, bad.what.reason.clone()));
        self.unreadable = loaded.unreadable.iter().map(named).collect();
        let bad = loaded.unreadable.into_iter().chain(loaded.unreadable_runs);
        let mut unreadable: Vec<_> = bad.map(|bad| bad.what).collect();
        unreadable.sort_by(|a, b| a.id.cmp(&b.id));
        let latest_owner = loaded.latest_owner;
        self.history = History::new(loaded.codec, &self.rules, loaded.gone, latest_owner);
        let mut interrupted = Vec::new();
        for record in loaded.open_runs {
            let run = record.id;
            self.history.resume(record);
            if run.owner != owner {
                let reason = "the scheduler that started it ended before the run did".to_owned();
                let end = RunEnd::unstarted(Outcome::Interrupted { reason }, now);
                let exists = is_there(&self.tasks, &self.unreadable);
                interrupted.extend(self.history.end(&mut batch, run, end, exists)?);
            }
        }
        let (capabilities, next_due) = (self.capabilities(), self.tasks.first_due());
        let unsettled = Some(self.tasks.unsettled());
        Ok((
            batch,
            Opened {
                capabilities,
                interrupted,
                unreadable,
                healed,
                next_due,
                latest_owner,
                // Those of openings that came to nothing, too.
                set_aside: self.asides.1.try_iter().last(),
                unsettled,
                latest_time: Some(self.tasks.latest_time()),
                rules: loaded.rules,
                export_failures: self.writer.as_mut().map(Writer::export_failures),
                failures: self.writer.as_ref().map(Writer::failures),
            },
        ))
    }

    fn note_gone(&mut self, error: &StoreError) {
        if let (StoreError::Gone { .. }, Some(known)) = (error, &mut self.known) {
            known.vanished = true;
            self.not_opened = Some(error.clone());
        }
    }

    /// Notes what is in quarantine from now on, and answers with the tasks whose records were and
    /// can be read again.
    fn keep_quarantine(
        &self,
        batch: &mut Batch,
        loaded: &Loaded,
        now: DateTime<Utc>,
    ) -> Result<Vec<String>, StoreError> {
        let bad: Vec<&Bad> = loaded.unreadable.iter().chain(&loaded.unreadable_runs).collect();
        for bad in bad.iter().filter(|bad| !loaded.noted.contains_key(&bad.row)) {
            let key = keys::quarantine(&bad.row);
            let note = Codec::plain().encode(Kind::Quarantine, &key, &Note { since: now });
            batch.insert(key, note.map_err(StoreError::unavailable)?);
        }
        let rows: FxHashSet<&[u8]> = bad.iter().map(|bad| &*bad.row).collect();
        let ids: FxHashSet<&str> = bad.iter().map(|bad| &*bad.what.id).collect();
        let mut healed = Vec::new();
        for row in loaded.noted.keys().filter(|row| !rows.contains(&***row)) {
            batch.remove(keys::quarantine(row));
            let Some(row) = keys::Row::at(row) else { continue };
            let back = match &row {
                keys::Row::Spec(id) | keys::Row::State(id) => self.tasks.find(id).is_some(),
                keys::Row::Run(..) => !ids.contains(row.task().as_str()),
            };
            if back {
                healed.push(row.task().to_string());
            }
        }
        healed.sort_unstable();
        healed.dedup();
        Ok(healed)
    }
}

/// A store that was open.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    identity: Uuid,
    /// Its directory, as long as nobody has moved or restored it.
    directory: Option<FileId>,
    /// It was looked for and not found.
    vanished: bool,
}

impl Known {
    fn of(identity: Uuid, path: &Path) -> Self {
        Self { identity, directory: FileId::at(path).ok(), vanished: false }
    }

    /// Whether what lies under its path is the directory that was open, and not one that somebody puts there.
    fn is_untouched(&self, path: &Path) -> bool {
        !self.vanished && self.directory.is_some_and(|directory| directory.compare(path) == There::Same)
    }
}

/// Files are let go a moment after a database was dropped, and those of a killed process a moment
/// after its successor was started.
pub(super) fn open_patiently<P: Place>(place: &P, known: Option<Known>) -> Result<P::Disk, StoreError> {
    let mut patience = 20;
    loop {
        let opened = match known {
            Some(known) => place.reopen(known.identity),
            None => place.open(),
        };
        match opened {
            Err(StoreError::InUse { .. }) if patience > 0 => {
                patience -= 1;
                std::thread::sleep(Duration::from_millis(25));
            }
            other => return other,
        }
    }
}

/// Opens the disk and reads what is there. A directory that is damaged beyond repair is set aside, if
/// that was asked for, and `aside` is told.
pub(super) fn bring_up<P: Place>(
    place: &P,
    rules: &Rules,
    known: Option<Known>,
    aside: &mpsc::Sender<SetAside>,
) -> Result<(P::Disk, Uuid, Loaded), StoreError> {
    let open = |known: Option<Known>| {
        let mut disk = guarded(|| open_patiently(place, known))?;
        let (identity, loaded) = guarded(|| {
            import::check_complete(&disk, place.path())?;
            let identity = match known {
                Some(known) => {
                    identity::recognize(&mut disk, known.identity, place)?;
                    known.identity
                }
                None => identity::establish(&mut disk)?,
            };
            Ok((identity, Loaded::from_disk(&disk, rules.codec(identity)?)?))
        })?;
        disk.check_place()?;
        Ok((disk, identity, loaded))
    };
    if known.is_some_and(|known| !known.is_untouched(place.path())) {
        check_quiet(place.path())?;
    }
    let may_set_aside = rules.set_aside && known.is_none_or(|known| known.is_untouched(place.path()));
    match open(known) {
        // What is being put back may be half there.
        Err(error) if may_set_aside && is_beyond_repair(&error) => {
            let found = place.path().display();
            let place = files::set_aside(place.path(), Clock::system().now())?.display().to_string();
            // At once: the process may end before anybody is told.
            tracing::error!(path = %found, %place, %error, "a damaged directory was set aside; a fresh one is begun");
            aside.send(SetAside { place, reason: error.to_string() }).ok();
            open(None)
        }
        opened => opened,
    }
}

/// The panic of a database is an error like others.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let said = message(&panic);
        Err(StoreError::unavailable(format!("its database panicked: {said}")))
    })
}

fn message(panic: &Box<dyn Any + Send>) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}
