//! What the embedded durable stores have in common: memory answers, a disk is written through.
//!
//! The tasks are in memory, where everything that is asked is looked up. Each change becomes a
//! [`Batch`] for a thread that owns the [`Disk`]: it takes all batches that wait, applies them in
//! order, syncs once, and then answers them all (group commit). The actor goes on meanwhile.
//!
//! Memory is ahead of the disk by what waits for a sync. Nobody is told so: `Get`, `List`, and
//! refusals (`Exists`, `Changed`, …) are answered when what they are based on is durable.
//! `TakeDue` and `NextDue` are answered at once, because nothing comes of them without a `Commit`,
//! which waits behind all that was accepted before it.
//!
//! After a failure nobody knows what the disk holds, and memory is not what is stored: everything
//! that waits fails, the disk is let go, and the store is down until it is opened again, which
//! reads what is really there.

mod backend;
mod desk;
mod export;
mod exports;
#[cfg(test)]
pub(super) mod faults;
mod files;
mod history;
mod identity;
mod import;
mod keys;
mod load;
#[cfg(test)]
pub(super) mod lost_writes;
mod opening;
mod reading;
mod reserve;
#[cfg(any(feature = "sled", feature = "redb"))]
mod seal;
mod settings;
mod sweep;
#[cfg(test)]
mod tests;
mod upkeep;
mod vault;
mod whereabouts;
mod writer;

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

pub(super) use backend::Engine;
#[cfg(feature = "cli")]
pub(crate) use export::ExportReader;
pub use exports::Exports;
#[cfg(feature = "file")]
pub(super) use files::FILES_MARK;
#[cfg(feature = "cli")]
pub(crate) use files::holds_store;
#[cfg(feature = "sled")]
pub(super) use files::keep_private;
#[cfg(any(feature = "sled", feature = "redb"))]
pub(super) use files::place;
pub(super) use files::{
    LOCK, check_directory, check_kind, create_dir, damaged, io_error, known_format, sync_dir, take_directory,
    unreadable,
};
pub(super) use history::Chore;
#[cfg(any(feature = "sled", feature = "redb"))]
pub(super) use identity::identity_in;
pub use import::{ImportMode, Imported};
#[cfg(any(feature = "sled", feature = "redb"))]
pub(super) use keys::{IDENTITY, MARK};
#[cfg(feature = "file")]
pub(super) use keys::{Part, RUN, SPEC, STATE, part_of};
#[cfg(any(feature = "sled", feature = "redb"))]
pub(super) use reserve::is_out_of_descriptors;
#[cfg(any(feature = "sled", feature = "redb"))]
pub(super) use seal::{Mark, Seal, put_off, read_seal};
#[cfg(any(feature = "sled", feature = "redb"))]
pub(super) use settings::cache_setting;
pub(super) use settings::embedded_store;
pub use vault::{Progress, Vault};
pub(super) use whereabouts::{Whereabouts, check_known, check_there, overwritten, replaced};

use super::StoreError;
use super::envelope::Codec;
use super::retention::Retention;

/// The most bytes a task may take when it is written down: 64 KiB. sled keeps larger rows outside
/// its log; and what is written at each change should be small in any store.
pub const ROW_LIMIT: usize = 64 * 1024;

/// What a store says that was given no keys.
#[cfg(feature = "encryption")]
const NO_KEYS: StoreError = StoreError::Unsupported {
    deed: "change keys: it has none; give it some with `encrypt`, `key_file` in a configuration, or --key-file",
};

/// What a durable store means by "acknowledged", and what a crash can take.
///
/// ```
/// use std::time::Duration;
/// use callboard::store::Durability;
///
/// assert_eq!(Durability::default(), Durability::Fsync);
/// let relaxed = Durability::Interval(Duration::from_millis(200));
/// # let _ = relaxed;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Acknowledged is on the device (`fsync`): neither a killed process nor a power cut takes it
    /// back. Changes that wait at the same time share one sync. The default.
    #[default]
    Fsync,
    /// Acknowledged at once, on the device at most this much later. A killed process or a power
    /// cut can take back what was acknowledged in that time; what is left is a state that was
    /// there before, never half a change. Zero is a sync after each group of changes, for which
    /// nobody waits.
    Interval(Duration),
}

/// What the stores of this kind let be chosen.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub durability: Durability,
    /// Which run records are kept.
    pub retention: Retention,
    /// Removed tasks that keep their run records.
    pub removed: usize,
    /// How long the opening may take.
    pub open_limit: Duration,
    /// Whether a damaged directory is set aside for a fresh one.
    pub set_aside: bool,
    /// Exports that are taken by themselves.
    pub exports: Option<Exports>,
    #[cfg(feature = "encryption")]
    pub keys: Option<super::Keys>,
    /// Whether records that are not encrypted are not read, in a store that has keys.
    #[cfg(feature = "encryption")]
    pub refuse_plain: bool,
}

impl Rules {
    /// What the store of this identity reads and writes its records with.
    #[cfg_attr(
        not(feature = "encryption"),
        expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "there are no keys")
    )]
    fn codec(&self, _identity: Uuid) -> Result<Codec, StoreError> {
        #[cfg(feature = "encryption")]
        if let Some(keys) = &self.keys {
            let cipher = super::cipher::Cipher {
                keys: keys.read()?,
                store: _identity.into_bytes(),
                refuse_plain: self.refuse_plain,
            };
            return Ok(Codec { cipher: Some(cipher) });
        }
        Ok(Codec::plain())
    }

    /// The same, to read what was written by another store: it takes what is plain.
    fn codec_to_read(&self, identity: Uuid) -> Result<Codec, StoreError> {
        #[cfg(feature = "encryption")]
        return Self { refuse_plain: false, ..self.clone() }.codec(identity);
        #[cfg(not(feature = "encryption"))]
        self.codec(identity)
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            durability: Durability::default(),
            retention: Retention::DURABLE,
            removed: 10_000,
            open_limit: Duration::from_secs(60),
            set_aside: false,
            exports: None,
            #[cfg(feature = "encryption")]
            keys: None,
            #[cfg(feature = "encryption")]
            refuse_plain: false,
        }
    }
}

/// Where a disk is, and how it is opened.
pub(super) trait Place: Clone + std::fmt::Debug + Send + Unpin + 'static {
    /// What is opened there.
    type Disk: Disk;

    /// The directory.
    fn path(&self) -> &Path;

    /// Opens the disk, or makes it. Called on the thread that will own it; a panic is caught.
    fn open(&self) -> Result<Self::Disk, StoreError>;

    /// Opens the disk of the store `identity`, which was open before: nothing is made, and one that says
    /// that it is another store's is not touched.
    fn reopen(&self, _identity: Uuid) -> Result<Self::Disk, StoreError> {
        self.open()
    }
}

/// Ordered keys with their values on a device: what differs between the embedded stores. One
/// thread has it; every method may block.
pub(super) trait Disk: 'static {
    /// One value.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Shows `visit` what lies under a prefix, in the order of the keys or from the last to the
    /// first, until it breaks. What was applied is seen, synced or not. `visit` calls
    /// [`get`](Self::get) only when everything is synced.
    fn scan(&self, prefix: &[u8], order: Order, visit: &mut Visit<'_>) -> Result<(), StoreError>;

    /// Shows `visit` what lies under a prefix and is not `known`, in the order of the keys. As
    /// [`scan`](Self::scan), where what is known costs nothing less.
    fn scan_others(
        &self,
        prefix: &[u8],
        known: &dyn Fn(&[u8]) -> bool,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        self.scan(prefix, Order::Ascending, &mut |key, value| {
            if known(key) { ControlFlow::Continue(()) } else { visit(key, value) }
        })
    }

    /// As [`scan`](Self::scan), but shows only what comes beyond a key, which lies under the prefix: where
    /// one look left off, the next goes on.
    fn scan_beyond(
        &self,
        prefix: &[u8],
        past: &[u8],
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError>;

    /// Makes the changes of a batch: after a crash either all of them are there or none, and none
    /// without those applied before.
    fn apply(&mut self, changes: Changes) -> Result<(), StoreError>;

    /// Returns when everything applied would survive a power cut.
    fn sync(&mut self) -> Result<(), StoreError>;

    /// Has the store's identity written beside its data, where that is not there yet.
    fn set_identity(&mut self, _identity: Uuid) -> Result<(), StoreError> {
        Ok(())
    }

    /// An error unless others find what is open here under the path of the store. It costs little: it is
    /// asked before anything is acknowledged.
    fn check_place(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// An error unless what stands beside the data is what this disk has written there. Asked now and then.
    fn check_identity(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// How many files it may open at a time. They are kept for it.
    fn descriptors(&self) -> Descriptors {
        Descriptors::default()
    }

    /// How long what was synced may wait for [`tidy`](Self::tidy); `None` when there is nothing to do.
    fn untidy(&self) -> Option<Duration> {
        None
    }

    /// Whether that is urgent: it may take half of the time then, instead of a tenth.
    fn is_pressed(&self) -> bool {
        false
    }

    /// Does a part of the work that nobody waits for. Everything is synced.
    fn tidy(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Lets go of the files. Everything is synced.
    fn close(self) -> Result<(), StoreError>
    where
        Self: Sized;
}

/// How many files a disk may open at a time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Descriptors {
    /// To sync.
    pub sync: usize,
    /// To tidy.
    pub tidy: usize,
    /// To be read.
    pub read: usize,
}

/// Keys with their new values, or none to remove them; a later change of a key wins.
pub(super) type Changes = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// What [`Disk::scan`] shows keys and values to.
pub(super) type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// The order of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Ascending,
    Descending,
}

/// What becomes of one request: changes, and what is left to whoever can see the disk.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub changes: Changes,
    pub chores: Vec<Chore>,
    /// When that was asked for, where it is about runs.
    pub now: Option<DateTime<Utc>>,
}

impl Batch {
    fn insert(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.changes.push((key, Some(value)));
    }

    fn remove(&mut self, key: Vec<u8>) {
        self.changes.push((key, None));
    }

    fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.chores.is_empty()
    }
}
