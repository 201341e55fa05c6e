//! A pool's end of one worker: messages to it, and whatever comes from it, in one poll.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io::ErrorKind;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::{Either, select};
use serde::Serialize;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

use super::keeper::{self, GroupHold, Launch, Process};
use super::output::{Lines, Speaker};
use super::wire::{Frames, FromWorker, WireError, encode};
use crate::clock::Clock;
use crate::task::{Alias, Run};
use crate::timer;

/// How long a worker that has closed its end may take to be gone.
const CLOSING: Duration = Duration::from_secs(1);

/// How much of its output is read between two messages: more than its pipe holds.
const DRAIN: usize = 1 << 20;

/// How often each of its pipes is read in one turn. One that says more than anybody can listen to
/// must not keep the rest of the arbiter from its turn, nor its own deadline.
const TURN: usize = 4;

/// A worker that is ready, or was. Its process group is killed when this is dropped.
pub(super) struct Worker {
    group: GroupHold,
    socket: UnixStream,
    frames: Frames,
    unsent: VecDeque<u8>,
    streams: [Stream; 2],
    ended: oneshot::Receiver<String>,
    /// What came of that.
    end: Option<String>,
    closing: Option<Pin<Box<dyn Future<Output = ()>>>>,
    fate: Option<Fate>,
    pub(super) speaker: Speaker,
    /// How many runs it has been given.
    pub(super) runs: u64,
    /// It is to end.
    retired: bool,
    /// The last thing it printed on standard error.
    last_words: String,
}

struct Stream {
    name: &'static str,
    pipe: Option<pipe::Receiver>,
    lines: Lines,
}

/// What a worker does.
#[derive(Debug)]
pub(super) enum News {
    /// It says something; its log is not among it.
    Message(FromWorker),
    /// It is of no more use.
    Lost(Fate),
}

/// How a worker was lost. Each continues "its worker process …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fate {
    #[error("{0}")]
    Ended(String),
    #[error("closed its pipe and was killed")]
    Closed,
    #[error("was killed, for its messages cannot be understood: {0}")]
    Garbled(#[from] WireError),
    #[error("was killed, for it could not be listened to: {0}")]
    Deaf(String),
}

/// Why there is no worker.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error("{0}")]
    Process(#[from] std::io::Error),
    #[error(
        "it said nothing within {}; does its `main` call `callboard::executor::worker::run_if_asked` before anything else?",
        humane(.0)
    )]
    Silent(Duration),
    #[error("its process {fate} before it was ready{}", quoted(last_words))]
    Lost { fate: Fate, last_words: String },
    #[error("it cannot work: {0}")]
    Broken(String),
    #[error("it is of version {theirs} of callboard, and this program of {ours}; build both with the same", ours = env!("CARGO_PKG_VERSION"))]
    Version { theirs: String },
}

fn humane(duration: &Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}

fn quoted(last_words: &str) -> String {
    if last_words.is_empty() { String::new() } else { format!("; its last words: {last_words}") }
}

impl Worker {
    /// Starts a worker and waits until it is ready, `limit` at most.
    pub(super) async fn start(launch: Launch, executor: Alias, limit: Duration) -> Result<Self, StartError> {
        // Processes live in real time, whatever clock the scheduler has.
        let mut silence = pin!(timer::sleep_as_limit(&Clock::system(), limit));
        let process = match select(keeper::start(launch), silence.as_mut()).await {
            Either::Left((process, _)) => {
                process.map_err(|_| std::io::Error::other("its thread is gone"))??
            }
            Either::Right(_) => return Err(StartError::Silent(limit)),
        };
        let mut worker = Self::new(process, executor)?;
        let news = match select(pin!(worker.news()), silence).await {
            Either::Left((news, _)) => news,
            Either::Right(_) => return Err(StartError::Silent(limit)),
        };
        match news {
            News::Message(FromWorker::Hello { version }) if version == env!("CARGO_PKG_VERSION") => {
                Ok(worker)
            }
            News::Message(FromWorker::Hello { version }) => Err(StartError::Version { theirs: version }),
            News::Message(FromWorker::Broken { problem }) => Err(StartError::Broken(problem)),
            News::Message(_) => {
                Err(StartError::Broken("it says other things than that it is ready".to_owned()))
            }
            News::Lost(fate) => {
                Err(StartError::Lost { fate, last_words: std::mem::take(&mut worker.last_words) })
            }
        }
    }

    fn new(process: Process, executor: Alias) -> std::io::Result<Self> {
        let Process { group, socket, stdout, stderr, ended } = process;
        let stream = |name, pipe| {
            let pipe = Some(pipe::Receiver::from_owned_fd(pipe)?);
            Ok::<_, std::io::Error>(Stream { name, pipe, lines: Lines::default() })
        };
        let speaker = Speaker { executor, pid: group.0.pid, run: None };
        Ok(Self {
            socket: UnixStream::from_std(socket)?,
            frames: Frames::default(),
            unsent: VecDeque::new(),
            streams: [stream("stdout", stdout)?, stream("stderr", stderr)?],
            ended,
            end: None,
            closing: None,
            fate: None,
            speaker,
            runs: 0,
            retired: false,
            last_words: String::new(),
            group,
        })
    }

    /// How it was lost, if it was.
    pub(super) fn fate(&self) -> Option<&Fate> {
        self.fate.as_ref()
    }

    /// Whether its process lives, as far as anybody knows.
    pub(super) fn lives(&self) -> bool {
        let lives = self.fate.is_none() && self.group.0.lives();
        if !lives {
            let Speaker { executor, pid, .. } = &self.speaker;
            tracing::warn!(%executor, pid, "a worker process has died without a run; the next run gets another one");
        }
        lives
    }

    pub(super) fn group(&self) -> &Arc<keeper::Group> {
        &self.group.0
    }

    /// Puts a message on its way; it goes while [`news`](Self::news) is waited for.
    pub(super) fn say(&mut self, message: &impl Serialize) -> Result<(), WireError> {
        self.unsent.extend(encode(message)?);
        Ok(())
    }

    /// Whose lines it prints from now on.
    pub(super) fn assign(&mut self, run: Option<Arc<Run>>) {
        self.speaker.run = run;
    }

    /// Lets it end by itself, `grace` at most.
    pub(super) async fn retire(mut self, grace: Duration) {
        self.retired = true;
        if self.say(&super::wire::ToWorker::Retire).is_err() {
            return;
        }
        let gone = pin!(async { while !matches!(self.news().await, News::Lost(_)) {} });
        select(gone, pin!(timer::sleep_as_limit(&Clock::system(), grace))).await;
    }

    /// The next thing it does. Nothing is lost when this is dropped.
    pub(super) async fn news(&mut self) -> News {
        poll_fn(|cx| self.poll_news(cx)).await
    }

    pub(super) fn poll_news(&mut self, cx: &mut Context<'_>) -> Poll<News> {
        if let Some(fate) = &self.fate {
            return Poll::Ready(News::Lost(fate.clone()));
        }
        self.send(cx);
        let mut more = self.poll_output(cx);
        let mut reads = 0;
        loop {
            match self.frames.next() {
                Ok(Some(FromWorker::Log(line))) => {
                    self.speaker.logged(&line);
                    continue;
                }
                Ok(Some(message)) => {
                    // What was printed before it is there, and belongs before it.
                    self.drain_output();
                    return Poll::Ready(News::Message(message));
                }
                Ok(None) => {}
                Err(error) => return self.lost(error.into()),
            }
            if let Some(end) = &self.end {
                let end = end.clone();
                // What it said before it died counts.
                if self.read_rest() {
                    continue;
                }
                return self.lost(Fate::Ended(end));
            }
            if reads == TURN {
                more = true;
            } else if self.closing.is_none() {
                match self.poll_socket(cx) {
                    Poll::Ready(Ok(true)) => {
                        reads += 1;
                        continue;
                    }
                    Poll::Ready(Ok(false)) => {
                        let gone = timer::sleep_as_limit(&Clock::system(), CLOSING);
                        self.closing = Some(Box::pin(async move { drop(gone.await) }));
                    }
                    Poll::Ready(Err(error)) => return self.lost(Fate::Deaf(error.to_string())),
                    Poll::Pending => {}
                }
            }
            match Pin::new(&mut self.ended).poll(cx) {
                Poll::Ready(end) => self.end = Some(end.unwrap_or_else(|_| "ended".to_owned())),
                Poll::Pending => break,
            }
        }
        if let Some(closing) = &mut self.closing
            && closing.as_mut().poll(cx).is_ready()
        {
            let torn = self.frames.finish().err();
            return self.lost(torn.map_or(Fate::Closed, Fate::Garbled));
        }
        if more {
            // Its next turn comes when all others have had theirs, timers and pipes among them.
            let _ = pin!(tokio::task::yield_now()).poll(cx);
        }
        Poll::Pending
    }

    fn lost(&mut self, fate: Fate) -> Poll<News> {
        self.group.0.kill();
        self.drain_output();
        if self.speaker.run.is_none() && self.runs > 0 && !self.retired {
            let Speaker { executor, pid, .. } = &self.speaker;
            tracing::warn!(%executor, pid, "a worker process without a run {fate}; the next run gets another one");
        }
        self.fate = Some(fate.clone());
        Poll::Ready(News::Lost(fate))
    }

    fn send(&mut self, cx: &mut Context<'_>) {
        while !self.unsent.is_empty() {
            match self.socket.poll_write_ready(cx) {
                Poll::Ready(Ok(())) => match self.socket.try_write(self.unsent.as_slices().0) {
                    Ok(count) => drop(self.unsent.drain(..count)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    // It is gone, which is noticed when it is read from.
                    Err(_) => self.unsent.clear(),
                },
                Poll::Ready(Err(_)) => self.unsent.clear(),
                Poll::Pending => return,
            }
        }
        // A long message leaves no long buffer.
        self.unsent.shrink_to(64 << 10);
    }

    /// Reads some bytes; `false` at the end.
    fn poll_socket(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<bool>> {
        let mut buffer = [0; 16 << 10];
        loop {
            match self.socket.poll_read_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
            match self.socket.try_read(&mut buffer) {
                Ok(0) => return Poll::Ready(Ok(false)),
                Ok(count) => {
                    self.frames.push(&buffer[..count]);
                    return Poll::Ready(Ok(true));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // It died with something unread.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Poll::Ready(Ok(false)),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Reads what is left when the process is gone, past what tokio knows of it; whether there was
    /// anything.
    fn read_rest(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        match rustix::io::read(&self.socket, &mut buffer) {
            Ok(count @ 1..) => {
                self.frames.push(&buffer[..count]);
                true
            }
            _ => false,
        }
    }

    /// Reads output as it comes; whether there is more than this turn has room for.
    fn poll_output(&mut self, cx: &mut Context<'_>) -> bool {
        let mut buffer = [0; 8 << 10];
        let mut more = false;
        for index in 0..self.streams.len() {
            let mut reads = 0;
            while let Some(pipe) = &self.streams[index].pipe {
                if reads == TURN {
                    more = true;
                    break;
                }
                reads += 1;
                match pipe.poll_read_ready(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => self.streams[index].pipe = None,
                    Poll::Pending => break,
                }
                let Some(pipe) = &self.streams[index].pipe else { break };
                match pipe.try_read(&mut buffer) {
                    Ok(count @ 1..) => self.printed(index, &buffer[..count]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    _ => self.streams[index].pipe = None,
                }
            }
        }
        more
    }

    /// Reads the output that is there, past what tokio knows of it, and ends the last lines.
    fn drain_output(&mut self) {
        let mut buffer = [0; 8 << 10];
        for index in 0..self.streams.len() {
            let mut left = DRAIN;
            while let Some(pipe) = &self.streams[index].pipe
                && left > 0
                && let Ok(count @ 1..) = rustix::io::read(pipe, &mut buffer)
            {
                left = left.saturating_sub(count);
                self.printed(index, &buffer[..count]);
            }
            let Stream { name, lines, .. } = &mut self.streams[index];
            let (speaker, last) = (&self.speaker, &mut self.last_words);
            lines.flush(|line| print(speaker, name, line, last));
        }
    }

    fn printed(&mut self, index: usize, bytes: &[u8]) {
        let Stream { name, lines, .. } = &mut self.streams[index];
        let (speaker, last) = (&self.speaker, &mut self.last_words);
        lines.push(bytes, |line| print(speaker, name, line, last));
    }
}

fn print(speaker: &Speaker, stream: &'static str, line: &str, last_words: &mut String) {
    speaker.printed(stream, line);
    if stream == "stderr" && !line.trim().is_empty() {
        line.clone_into(last_words);
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("speaker", &self.speaker)
            .field("runs", &self.runs)
            .finish_non_exhaustive()
    }
}
