//! Connections to the control socket: how many there are, how long they may be silent, how much
//! waits for those that do not read.
//!
//! All of them live on one thread, so that what they share needs no lock.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use actix_rt::task::JoinHandle;
use futures::future::{Either, select};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::{Answered, Answering};
use crate::cli::exit::{Exit, Failure};
use crate::cli::hold::Listeners;
use crate::cli::limits;
use crate::cli::protocol::{Envelope, MAX_REQUEST, Reply, Request};
use crate::clock::Clock;
use crate::timer;

/// How long a connection may take for its next request.
const IDLE: Duration = Duration::from_secs(60);

/// How long a part of a reply may wait for its reader.
const STALLED: Duration = Duration::from_secs(10);

/// How long the whole of it may.
const READING: Duration = Duration::from_secs(60);

/// How much of a reply is written at a time.
const PART: usize = 64 * 1024;

/// How long a request may take, and how long one that goes through everything a store holds.
const ANSWERING: Duration = Duration::from_secs(30);
const ANSWERING_MUCH: Duration = Duration::from_secs(3600);

/// The most connections at once; fewer where few files may be open.
const MOST: usize = 64;

/// How many requests are answered at once; others wait.
const AT_ONCE: usize = 4;

/// How much may wait for readers altogether. A single reply may be longer.
const UNREAD: usize = 64 << 20;

/// How long nothing is accepted after that has failed.
const PAUSE: Duration = Duration::from_millis(200);

/// Accepts connections for ever.
pub(super) async fn listen(mut listeners: Listeners, answering: Answering) {
    let few = usize::try_from(limits::nofile() / 8).unwrap_or(MOST);
    let shared = Rc::new(Shared {
        answering,
        most: few.clamp(2, MOST),
        places: Semaphore::new(AT_ONCE),
        patient: Semaphore::new(1),
        open: RefCell::default(),
    });
    let (mut current, mut serial, mut failing) = (None, 0, false);
    loop {
        match accept(&mut current, &mut listeners).await {
            Ok(None) => {}
            Ok(Some(stream)) => {
                failing = false;
                serial += 1;
                shared.take(serial, stream);
            }
            Err(error) => {
                // Out of file descriptors, most likely: that passes. The silent ones make room.
                if !failing {
                    tracing::warn!(%error, "control connections cannot be accepted; it is tried again");
                }
                failing = true;
                shared.make_room();
                timer::sleep(&Clock::system(), PAUSE).await;
            }
        }
    }
}

/// Whoever connects to the socket that others find.
async fn accept(
    current: &mut Option<UnixListener>,
    listeners: &mut Listeners,
) -> std::io::Result<Option<UnixStream>> {
    let next = |current: &mut Option<UnixListener>, listener: std::os::unix::net::UnixListener| {
        *current = Some(UnixListener::from_std(listener)?);
        Ok(None)
    };
    let Some(listener) = &*current else {
        return match listeners.recv().await {
            Some(listener) => next(current, listener),
            None => std::future::pending().await,
        };
    };
    let news = match select(pin!(listener.accept()), pin!(listeners.recv())).await {
        Either::Left((accepted, _)) => return accepted.map(|(stream, _)| Some(stream)),
        Either::Right((listener, _)) => listener,
    };
    match news {
        Some(listener) => next(current, listener),
        // Nobody opens another one any more.
        None => listener.accept().await.map(|(stream, _)| Some(stream)),
    }
}

/// What connections share.
struct Shared {
    answering: Answering,
    most: usize,
    places: Semaphore,
    /// For what may take an hour.
    patient: Semaphore,
    open: RefCell<BTreeMap<u64, Connection>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        for connection in self.open.get_mut().values() {
            connection.task.abort();
        }
    }
}

struct Connection {
    task: JoinHandle<()>,
    doing: Doing,
    /// Since when, by the monotonic clock.
    since: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Doing {
    /// Waits for a request.
    Silent,
    /// Waits for its answer.
    Asking,
    /// So many bytes wait for it.
    Reading(usize),
}

impl Shared {
    fn take(self: &Rc<Self>, serial: u64, stream: UnixStream) {
        if self.open.borrow().len() >= self.most && !self.make_room() {
            refuse(stream);
            return;
        }
        let shared = self.clone();
        // Spawned on this very thread: it does not begin before it has its place.
        let task = actix_rt::spawn(async move {
            if let Err(error) = shared.talk(serial, stream).await {
                tracing::debug!(%error, "a control connection broke");
            }
            shared.open.borrow_mut().remove(&serial);
        });
        let connection = Connection { task, doing: Doing::Silent, since: Clock::system().monotonic() };
        self.open.borrow_mut().insert(serial, connection);
    }

    /// Closes the connection that has waited longest for its own client: to ask, or else to read.
    fn make_room(&self) -> bool {
        let longest = |wanted: fn(Doing) -> bool| {
            let open = self.open.borrow();
            let waiting = open.iter().filter(|(_, connection)| wanted(connection.doing));
            waiting.min_by_key(|(_, connection)| connection.since).map(|(serial, _)| *serial)
        };
        let silent = longest(|doing| doing == Doing::Silent);
        match silent.or_else(|| longest(|doing| matches!(doing, Doing::Reading(_)))) {
            Some(serial) => {
                self.close(serial);
                true
            }
            None => false,
        }
    }

    fn close(&self, serial: u64) {
        if let Some(connection) = self.open.borrow_mut().remove(&serial) {
            connection.task.abort();
        }
    }

    fn now(&self, serial: u64, doing: Doing) {
        if let Some(connection) = self.open.borrow_mut().get_mut(&serial) {
            connection.doing = doing;
            connection.since = Clock::system().monotonic();
        }
    }

    /// Makes room in memory for a reply of so many bytes, at the expense of those who do not read.
    fn admit(&self, serial: u64, bytes: usize) {
        loop {
            let open = self.open.borrow();
            let unread = |connection: &Connection| match connection.doing {
                Doing::Reading(bytes) => bytes,
                _ => 0,
            };
            let sum: usize = open.values().map(unread).sum();
            let slowest = open.iter().filter(|(_, it)| unread(it) > 0).min_by_key(|(_, it)| it.since);
            let Some((slowest, _)) = slowest.filter(|_| sum + bytes > UNREAD) else { break };
            let slowest = *slowest;
            drop(open);
            self.close(slowest);
        }
        self.now(serial, Doing::Reading(bytes));
    }

    async fn talk(&self, serial: u64, stream: UnixStream) -> std::io::Result<()> {
        let (reader, mut writer) = stream.into_split();
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        loop {
            // What a long request took is given back.
            line = Vec::with_capacity(line.capacity().min(4096));
            self.now(serial, Doing::Silent);
            let mut limited = (&mut reader).take(MAX_REQUEST as u64);
            let Some(read) = within(IDLE, limited.read_until(b'\n', &mut line)).await else { return Ok(()) };
            if read? == 0 {
                return Ok(());
            }
            self.now(serial, Doing::Asking);
            let whole = line.ends_with(b"\n") || line.len() < MAX_REQUEST;
            let result = match whole {
                true => Envelope::read(&line),
                false => {
                    let message = format!("a request may be {MAX_REQUEST} bytes long at most");
                    Err(Failure::new(Exit::Usage, message))
                }
            };
            let reply = match result {
                Ok(request) => self.answer(request).await?,
                Err(failure) => bytes_of(Err(failure))?,
            };
            self.admit(serial, reply.len());
            match within(READING, write(&mut writer, &reply)).await {
                Some(written) => written?,
                None => return Ok(()),
            }
            if !whole {
                // The rest of the line would be taken for requests.
                return Ok(());
            }
        }
    }

    async fn answer(&self, request: Request) -> std::io::Result<Vec<u8>> {
        let (places, limit) = match request.goes_through_a_store() {
            true => (&self.patient, ANSWERING_MUCH),
            false => (&self.places, ANSWERING),
        };
        let answered = async {
            // Never closed.
            let _place = places.acquire().await.ok();
            let result = self.answering.answer(request).await;
            // A long one holds up nobody else.
            super::aside(move || bytes_of(result.map(Answered::masked)))
                .await
                .map_err(|failure| std::io::Error::other(failure.message))?
        };
        let late = || {
            let message = format!("the scheduler did not answer within {} s", limit.as_secs());
            bytes_of(Err(Failure::new(Exit::Failed, message)))
        };
        within(limit, answered).await.unwrap_or_else(late)
    }
}

fn bytes_of(result: Result<Answered, Failure>) -> std::io::Result<Vec<u8>> {
    let mut reply = serde_json::to_vec(&Reply::from(result).by(&crate::cli::time::rules()))?;
    reply.push(b'\n');
    Ok(reply)
}

/// Writes to somebody who must not stop reading.
async fn write(writer: &mut (impl AsyncWriteExt + Unpin), reply: &[u8]) -> std::io::Result<()> {
    for part in reply.chunks(PART) {
        let stalled = || Err(std::io::ErrorKind::TimedOut.into());
        within(STALLED, writer.write_all(part)).await.unwrap_or_else(stalled)?;
    }
    Ok(())
}

/// There is no place: every connection is being answered.
fn refuse(stream: UnixStream) {
    let failure = Failure::new(Exit::Failed, "too many commands are being answered; try again");
    if let Ok(reply) = bytes_of(Err(failure)) {
        // A reply this short finds room in the socket, or nobody is there.
        let _ = stream.try_write(&reply);
    }
}

/// The result, unless it takes too long.
async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    let limit = pin!(timer::sleep_as_limit(&Clock::system(), limit));
    match select(pin!(work), limit).await {
        Either::Left((result, _)) => Some(result),
        Either::Right(_) => None,
    }
}
