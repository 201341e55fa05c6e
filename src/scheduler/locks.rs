//! Locks between processes: of several that have a store of the same name, only the one that holds the
//! store's lock begins its runs.
//!
//! A lock is a file that the system takes back when its holder dies. The others look again after each
//! `store_retry`; the holder looks now and then whether somebody has removed the file, because then
//! another process can lock a new one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use chrono::{DateTime, TimeDelta, Utc};

use super::LockStatus;
use super::actor::Scheduler;
use super::slot::StoreSlot;
use crate::clock::Busy;
use crate::error::Error;
use crate::event::Event;
use crate::lock::{FileLock, LockError};
use crate::task::Alias;
use crate::threads;

/// How often the holder looks whether the file is still there.
const CHECK: Duration = Duration::from_secs(10);

/// Where the locks of the stores are.
#[derive(Debug, Clone)]
pub(super) struct LockPath {
    template: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Store,
}

impl LockPath {
    /// Reads a template. What is the same for all stores of this process is put in at once.
    pub(super) fn parse(template: &str) -> Result<Self, Error> {
        let invalid = |reason: String| Error::Setting { setting: "lock_path", reason };
        if template.is_empty() {
            return Err(invalid("is empty; give it the path of a file".to_owned()));
        }
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut rest = template;
        while let Some(c) = rest.chars().next() {
            if let Some(after) = rest.strip_prefix("{{").or_else(|| rest.strip_prefix("}}")) {
                text.push(c);
                rest = after;
            } else if let Some(after) = rest.strip_prefix('{') {
                let Some((name, after)) = after.split_once('}') else {
                    return Err(invalid(format!(
                        "{template:?} has a `{{` without a `}}`; write `{{{{` for one"
                    )));
                };
                match name {
                    "store" => {
                        parts.push(Part::Text(std::mem::take(&mut text)));
                        parts.push(Part::Store);
                    }
                    "ppid" => text.push_str(&parent().ok_or_else(|| unknown_here(name))?.to_string()),
                    "pgrp" => text.push_str(&group().ok_or_else(|| unknown_here(name))?.to_string()),
                    _ => {
                        return Err(invalid(format!(
                            "{template:?} has `{{{name}}}`, which means nothing; there are `{{store}}`, `{{pgrp}}` \
                             (the process group) and `{{ppid}}` (the parent process), and `{{{{` for a brace"
                        )));
                    }
                }
                rest = after;
            } else if rest.starts_with('}') {
                return Err(invalid(format!("{template:?} has a `}}` without a `{{`; write `}}}}` for one")));
            } else {
                text.push(c);
                rest = rest.get(c.len_utf8()..).unwrap_or_default();
            }
        }
        parts.push(Part::Text(text));
        Ok(Self { template: template.to_owned(), parts })
    }

    /// An error unless several stores may share the template.
    pub(super) fn check_several(&self) -> Result<(), Error> {
        if self.parts.contains(&Part::Store) {
            return Ok(());
        }
        let reason =
            format!("{:?} is the same file for several stores; put `{{store}}` into it", self.template);
        Err(Error::Setting { setting: "lock_path", reason })
    }

    pub(super) fn of(&self, store: &Alias) -> PathBuf {
        let text = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Store => file_name(store.as_str()),
        };
        self.parts.iter().map(text).collect::<String>().into()
    }
}

fn unknown_here(name: &str) -> Error {
    let reason = format!(
        "`{{{name}}}` is not known here: it takes a Unix system, and for `{{pgrp}}` the cargo feature `lock`"
    );
    Error::Setting { setting: "lock_path", reason }
}

fn parent() -> Option<u32> {
    #[cfg(unix)]
    return Some(std::os::unix::process::parent_id());
    #[cfg(not(unix))]
    None
}

fn group() -> Option<i32> {
    #[cfg(all(unix, feature = "lock"))]
    return Some(rustix::process::getpgrp().as_raw_nonzero().get());
    #[cfg(not(all(unix, feature = "lock")))]
    None
}

/// An alias as part of a file's name.
fn file_name(alias: &str) -> String {
    let safe = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
    let escaped = |c: char| c.to_string().bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
    alias.chars().map(|c| if safe(c) { c.to_string() } else { escaped(c) }).collect()
}

/// The lock of a store.
#[derive(Debug)]
pub(super) struct StoreLock {
    path: PathBuf,
    held: Option<Arc<FileLock>>,
    /// Why it is not held, once it was tried.
    problem: Option<String>,
    /// Who has it instead, as far as it is known.
    holder: Option<u32>,
    /// Whether others had it while this scheduler asked for it.
    waited: bool,
    /// A look is under way, and which.
    looking: bool,
    look: u64,
    /// When to look next.
    look_at: Option<DateTime<Utc>>,
    /// Run times up to then were those of another process.
    others_until: Option<DateTime<Utc>>,
}

/// What a look at a lock has found.
enum Look {
    Taken(FileLock),
    /// It is held as before.
    Kept,
    /// Somebody has removed the file of the lock that was held.
    Removed,
    Refused(LockError),
}

impl StoreLock {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            held: None,
            problem: None,
            holder: None,
            waited: false,
            looking: false,
            look: 0,
            look_at: None,
            others_until: None,
        }
    }

    pub(super) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    pub(super) fn look_at(&self) -> Option<DateTime<Utc>> {
        self.look_at
    }

    pub(super) fn others_until(&self) -> Option<DateTime<Utc>> {
        self.others_until
    }

    /// See [`StoreSlot::clock_set_back`](super::slot::StoreSlot::clock_set_back).
    pub(super) fn clock_set_back(&mut self, jump: TimeDelta) {
        for at in [&mut self.look_at, &mut self.others_until] {
            *at = at.and_then(|at| at.checked_add_signed(jump));
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn status(&self) -> LockStatus {
        let (path, holder, problem) = (self.path.clone(), self.holder, self.problem.clone());
        LockStatus { path, held: self.is_held(), holder, problem }
    }

    /// What a look under way finds does not count: what it takes is given back.
    pub(super) fn forget_look(&mut self) {
        self.looking = false;
        self.look += 1;
    }

    /// Lets go. The lock is free when the answer is dropped.
    pub(super) fn release(&mut self) -> Option<Arc<FileLock>> {
        self.forget_look();
        let free = Self { look: self.look, ..Self::new(std::mem::take(&mut self.path)) };
        std::mem::replace(self, free).held
    }
}

fn look(path: &Path, held: Option<&FileLock>) -> Look {
    match held {
        Some(lock) if lock.is_in_place() => Look::Kept,
        Some(_) => Look::Removed,
        None => FileLock::take(path).map_or_else(Look::Refused, Look::Taken),
    }
}

/// An error when a lock could never be taken.
pub(super) fn check(paths: Vec<PathBuf>) -> impl Future<Output = Result<(), Error>> {
    let checked = (!paths.is_empty()).then(|| {
        threads::aside(move || {
            paths.iter().try_for_each(|path| {
                FileLock::probe(path).map_err(|error| Error::Setting {
                    setting: "lock_path",
                    reason: format!(
                        "cannot open {}: {error}; choose another, or make its directory",
                        path.display()
                    ),
                })
            })
        })
    });
    async move {
        match checked {
            Some(checked) => checked.await.unwrap_or(Ok(())),
            None => Ok(()),
        }
    }
}

impl Scheduler {
    /// Whether the runs of a store may begin here.
    pub(super) fn may_tick(&self, store: &Alias) -> bool {
        self.ticks() && self.estate.stores.get(store).is_some_and(StoreSlot::may_begin)
    }

    /// Looks at the locks whose time has come.
    pub(super) fn look_at_locks(&mut self, now: DateTime<Utc>, busy: &Busy, ctx: &mut Context<Self>) {
        let due = |lock: &StoreLock| lock.look_at.is_some_and(|at| at <= now);
        let stores = self.estate.stores.iter().filter(|(_, slot)| slot.lock.as_ref().is_some_and(due));
        let due: Vec<Alias> = stores.map(|(alias, _)| alias.clone()).collect();
        for alias in due {
            self.look_at_lock(&alias, busy.clone(), ctx);
        }
    }

    /// Takes the lock of a store that is open, or looks whether it is still held.
    pub(super) fn look_at_lock(&mut self, alias: &Alias, busy: Busy, ctx: &mut Context<Self>) {
        let Some(slot) = self.estate.stores.get_mut(alias) else { return };
        let open = slot.addr.is_some();
        let Some(lock) = slot.lock.as_mut() else { return };
        lock.look_at = None;
        // A store that is not open is left to those who can open it.
        if lock.looking || !open && !lock.is_held() {
            return;
        }
        lock.looking = true;
        let (path, held, number) = (lock.path.clone(), lock.held.clone(), lock.look);
        let looked = threads::aside(move || look(&path, held.as_deref())).into_actor(self);
        let alias = alias.clone();
        ctx.spawn(looked.map(move |looked, scheduler, ctx| {
            let failed = || LockError::Io(std::io::Error::other("it could not be looked at"));
            let looked = looked.unwrap_or_else(|| Look::Refused(failed()));
            scheduler.looked(&alias, number, looked);
            scheduler.replan_stores(&busy, ctx);
            scheduler.arm(ctx);
            // A virtual clock stands still until the alarm is set.
            drop(busy);
        }));
    }

    fn looked(&mut self, alias: &Alias, number: u64, looked: Look) {
        let (now, retry) = (self.clock().now(), self.settings.store_retry);
        let Some(slot) = self.estate.stores.get_mut(alias) else { return };
        let Some(lock) = slot.lock.as_mut().filter(|lock| lock.looking && lock.look == number) else {
            return;
        };
        lock.forget_look();
        let later = |time: Duration| now.checked_add_signed(TimeDelta::from_std(time).ok()?);
        let name = &self.settings.name;
        let event = match looked {
            Look::Kept => {
                lock.look_at = later(CHECK);
                return;
            }
            Look::Taken(taken) => {
                lock.held = Some(Arc::new(taken));
                lock.others_until = lock.waited.then_some(now);
                (lock.problem, lock.holder, lock.waited) = (None, None, false);
                lock.look_at = later(CHECK);
                tracing::info!(scheduler = %name, store = %alias, path = %lock.path.display(), "the lock of a store was taken");
                Event::LockTaken { store: alias.clone() }
            }
            Look::Removed => {
                lock.held = None;
                lock.look_at = Some(now);
                let cause = format!("the file {} was removed or replaced", lock.path.display());
                tracing::error!(scheduler = %name, store = %alias, %cause, "the lock of a store was lost");
                Event::LockLost { store: alias.clone(), cause }
            }
            Look::Refused(error) => {
                lock.look_at = later(retry);
                let cause = match error {
                    LockError::Held(holder) => {
                        (lock.holder, lock.waited) = (holder, true);
                        match holder {
                            Some(pid) => format!("process {pid} has it"),
                            None => "another process has it".to_owned(),
                        }
                    }
                    LockError::Io(error) => format!("{} cannot be locked: {error}", lock.path.display()),
                };
                let known = lock.problem.replace(cause.clone());
                if known.as_ref() == Some(&cause) {
                    return;
                }
                tracing::warn!(scheduler = %name, store = %alias, %cause, "the lock of a store is waited for");
                Event::LockAwaited { store: alias.clone(), cause }
            }
        };
        self.tell(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_filled_in() {
        let of = |template: &str, store: &str| {
            LockPath::parse(template).unwrap().of(&Alias::new(store).unwrap()).to_str().unwrap().to_owned()
        };
        assert_eq!(of("/run/app/{store}.lock", "default"), "/run/app/default.lock");
        assert_eq!(of("{{{store}}}", "день"), "{день}");
        assert_eq!(of("/run/{store}", "../a b"), "/run/%2e%2e%2fa%20b");
        #[cfg(unix)]
        {
            let parent = std::os::unix::process::parent_id();
            assert_eq!(of("{ppid}-{store}{store}", "a"), format!("{parent}-aa"));
        }
        #[cfg(all(unix, feature = "lock"))]
        assert!(of("{pgrp}", "a").parse::<u32>().is_ok());
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for (template, because) in [
            ("", "empty"),
            ("/run/{shop}", "`{shop}`"),
            ("/run/{store", "without a `}`"),
            ("a}b", "without a `{`"),
        ] {
            let error = LockPath::parse(template).unwrap_err();
            assert!(error.is_invalid() && error.to_string().contains(because), "{template}: {error}");
        }
        assert!(LockPath::parse("/run/lock").unwrap().check_several().is_err());
        assert!(LockPath::parse("/run/{store}").unwrap().check_several().is_ok());
    }
}
