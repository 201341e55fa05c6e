//! How a service keeps hold of its data directory, which can vanish and come back while it runs: the lock
//! and the control socket are looked for now and then, and made again where they are not what they were.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::mpsc as tokio_mpsc;

use super::exit::{Exit, Failure};
use super::{data, out};
use crate::lock::FileLock;
use crate::private_file::{FileId, There};

/// So often it is looked.
const LOOK: Duration = Duration::from_secs(1);

/// Sockets that take the place of those before them; each listens already.
pub(super) type Listeners = tokio_mpsc::UnboundedReceiver<UnixListener>;

/// The data directory, held by this service until it is dropped.
#[derive(Debug)]
pub(super) struct Hold {
    shared: Arc<Mutex<Held>>,
    /// Dropped, it ends the thread that looks.
    _end: mpsc::Sender<()>,
}

#[derive(Debug)]
struct Held {
    dir: PathBuf,
    trust: bool,
    lock: FileLock,
    socket: Option<Socket>,
    /// What was told of the directory.
    told: Option<String>,
}

#[derive(Debug)]
struct Socket {
    path: PathBuf,
    id: FileId,
    to: tokio_mpsc::UnboundedSender<UnixListener>,
}

impl Hold {
    /// Takes the directory.
    pub(super) fn take(dir: &Path, trust: bool) -> Result<Self, Failure> {
        let lock = data::lock(dir)?;
        let held = Held { dir: dir.to_owned(), trust, lock, socket: None, told: None };
        let shared = Arc::new(Mutex::new(held));
        let (end, ended) = mpsc::channel();
        let theirs = shared.clone();
        // Whoever looks may have to wait for a disk.
        let thread = std::thread::Builder::new().name("callboard-data".to_owned()).spawn(move || {
            while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                let news = locked(&theirs).look();
                if let Some(news) = news {
                    out::note(&news);
                }
            }
        });
        thread.map_err(|error| Failure::new(Exit::Starved, format!("cannot start a thread: {error}")))?;
        Ok(Self { shared, _end: end })
    }

    /// Opens the control socket. What listens there is the first of the listeners, and the latest one is
    /// the one that others find.
    pub(super) fn open_socket(&self, path: &Path) -> Result<Listeners, Failure> {
        let (to, listeners) = tokio_mpsc::unbounded_channel();
        let (listener, id) = bind(path).map_err(|error| {
            Failure::new(Exit::Failed, format!("cannot open the control socket {}: {error}", path.display()))
        })?;
        to.send(listener).ok();
        locked(&self.shared).socket = Some(Socket { path: path.to_owned(), id, to });
        Ok(listeners)
    }

    /// Removes the control socket.
    pub(super) fn close_socket(&self) {
        let socket = locked(&self.shared).socket.take();
        // Another service may have put its own there.
        if let Some(Socket { path, id, .. }) = socket
            && id.compare(&path) == There::Same
        {
            fs::remove_file(&path).ok();
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.close_socket();
    }
}

fn locked(held: &Mutex<Held>) -> MutexGuard<'_, Held> {
    held.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A socket for its owner alone, in place of what is there: whoever calls holds the lock of the directory, so
/// that is what a dead service has left behind.
fn bind(path: &Path) -> io::Result<(UnixListener, FileId)> {
    // Aside first: with the mask of some processes it would be everybody's for a moment.
    let aside = path.with_file_name("callboard.new");
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&aside)?;
    let placed = fs::set_permissions(&aside, Permissions::from_mode(0o600))
        .and_then(|()| listener.set_nonblocking(true))
        .and_then(|()| fs::rename(&aside, path))
        .and_then(|()| FileId::at(path));
    match placed {
        Ok(id) => Ok((listener, id)),
        Err(error) => {
            fs::remove_file(&aside).ok();
            Err(error)
        }
    }
}

impl Held {
    /// Looks, and answers with what is to be told.
    fn look(&mut self) -> Option<String> {
        let trouble = self.keep_lock().and_then(|()| self.keep_socket()).err();
        if trouble == self.told {
            return None;
        }
        self.told.clone_from(&trouble);
        Some(trouble.unwrap_or_else(|| format!("the data directory {} is back", self.dir.display())))
    }

    /// Sees to it that no other service can start on the directory.
    fn keep_lock(&mut self) -> Result<(), String> {
        let dir = self.dir.display();
        if self.lock.is_in_place() {
            return Ok(());
        }
        // Nothing is made in a directory of another kind, such as a mount point whose volume is gone.
        let empty = fs::read_dir(&self.dir).map_or(true, |mut entries| entries.next().is_none());
        if empty {
            return Err(format!(
                "the data directory {dir} is gone; put it back (move it there, mount its volume, or restore a \
                 backup), and the service goes on by itself"
            ));
        }
        data::check_owner(&self.dir, self.trust).map_err(|failure| failure.message)?;
        self.lock = data::lock(&self.dir).map_err(|failure| match failure.exit {
            Exit::InUse => format!(
                "another service has taken the data directory {dir} while it was away from this one; stop one of \
                 them"
            ),
            _ => failure.message,
        })?;
        Ok(())
    }

    fn keep_socket(&mut self) -> Result<(), String> {
        let Some(socket) = &mut self.socket else { return Ok(()) };
        if socket.id.compare(&socket.path) == There::Same {
            return Ok(());
        }
        let (listener, id) = bind(&socket.path).map_err(|error| {
            format!("cannot open the control socket {} again: {error}", socket.path.display())
        })?;
        socket.id = id;
        // Who does not listen any more ends.
        socket.to.send(listener).ok();
        Ok(())
    }
}
