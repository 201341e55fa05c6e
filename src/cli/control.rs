//! The side of the control socket that answers.

use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use actix_rt::task::JoinHandle;
use chrono_tz::Tz;
use futures::future::{Either, select};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use super::exit::{Exit, Failure};
use super::handlers;
use super::hold::{Hold, Listeners};
use super::protocol::{Envelope, MAX_REQUEST, Reply, Request};
use crate::clock::Clock;
use crate::config::TaskSettings;
use crate::scheduler::Handle;
use crate::scheduler::message::{RunTask, Why};
use crate::task::{Account, RunId, RunRecord, TaskChanges, TaskId, TaskInfo, TaskQuery};
use crate::timer;

/// How long a connection may be silent.
const IDLE: Duration = Duration::from_secs(60);

/// Run times and runs that `inspect` shows.
const SHOWN: usize = 5;
const RECORDS: usize = 10;
/// Run times that `why` tells at most.
const MOST_WHY: u32 = 10_000;
/// Runs that `why` goes back over when it is given no window.
const LATEST: usize = 20;

/// The open socket; dropping it closes and removes it.
#[derive(Debug)]
pub(super) struct Control<'a> {
    listening: JoinHandle<()>,
    hold: &'a Hold,
}

impl<'a> Control<'a> {
    /// Opens the socket at `path`, in the directory of `hold`.
    pub(super) fn open(path: &Path, hold: &'a Hold, handle: Handle) -> Result<Self, Failure> {
        let listening = actix_rt::spawn(listen(hold.open_socket(path)?, handle));
        Ok(Self { listening, hold })
    }
}

impl Drop for Control<'_> {
    fn drop(&mut self) {
        self.listening.abort();
        self.hold.close_socket();
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

async fn listen(mut listeners: Listeners, handle: Handle) {
    let clock = Clock::system();
    let mut current = None;
    loop {
        match accept(&mut current, &mut listeners).await {
            Ok(None) => {}
            Ok(Some(stream)) => {
                let handle = handle.clone();
                actix_rt::spawn(async move {
                    if let Err(error) = talk(stream, handle).await {
                        tracing::debug!(%error, "a control connection broke");
                    }
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: that passes.
                tracing::warn!(%error, "a control connection could not be accepted");
                timer::sleep(&clock, Duration::from_millis(200)).await;
            }
        }
    }
}

async fn talk(stream: UnixStream, handle: Handle) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = (&mut reader).take(MAX_REQUEST as u64);
        let Some(read) = within(IDLE, limited.read_until(b'\n', &mut line)).await else { return Ok(()) };
        if read? == 0 {
            return Ok(());
        }
        let whole = line.ends_with(b"\n") || line.len() < MAX_REQUEST;
        let result = match whole {
            true => match Envelope::read(&line) {
                Ok(request) => answer(&handle, request).await,
                Err(failure) => Err(failure),
            },
            false => {
                Err(Failure::new(Exit::Usage, format!("a request may be {MAX_REQUEST} bytes long at most")))
            }
        };
        let reply = aside(move || {
            let mut reply = serde_json::to_vec(&Reply::from(result))?;
            reply.push(b'\n');
            Ok(reply)
        });
        let reply: serde_json::Result<Vec<u8>> =
            reply.await.map_err(|failure| std::io::Error::other(failure.message))?;
        let reply = reply?;
        let Some(written) = within(IDLE, writer.write_all(&reply)).await else { return Ok(()) };
        written?;
        if !whole {
            // The rest of the line would be taken for requests.
            return Ok(());
        }
    }
}

/// The result, unless it takes too long.
async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    let limit = std::pin::pin!(timer::sleep(&Clock::system(), limit));
    match futures::future::select(std::pin::pin!(work), limit).await {
        futures::future::Either::Left((result, _)) => Some(result),
        futures::future::Either::Right(_) => None,
    }
}

/// Does what takes long on another thread.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    let done = actix_rt::task::spawn_blocking(work).await;
    done.map_err(|error| Failure::new(Exit::Failed, format!("the answer could not be made: {error}")))
}

async fn answer(handle: &Handle, request: Request) -> Result<Value, Failure> {
    match request {
        Request::List { text, state, sort, descending } => {
            let mut query = TaskQuery::new().sort(sort);
            if let Some(text) = text {
                query = query.text(text);
            }
            if let Some(state) = state {
                query = query.state(state);
            }
            if descending {
                query = query.descending();
            }
            let tasks = handle.tasks(query).await?;
            // Of many tasks that takes a while, and others are served on this thread.
            aside(move || json!(tasks)).await
        }
        Request::Inspect { id } => {
            let id = checked(&id)?;
            let task = handle.task(&id).await?;
            let next = handle.preview(&id, SHOWN).await?;
            let runs = handle.history(&id, RECORDS).await?;
            let next: Vec<String> = next.iter().map(|at| at.to_rfc3339()).collect();
            Ok(json!({ "warnings": warnings(&task), "task": task, "next": next, "runs": runs }))
        }
        Request::Why { id, from, to, limit } => {
            let id = checked(&id)?;
            if !(1..=MOST_WHY).contains(&limit) {
                let message = format!(
                    "limit: is {limit}; from 1 to {MOST_WHY} run times are told at a time, and where to go on from"
                );
                return Err(Failure::new(Exit::Invalid, message));
            }
            let (account, zone) = why(handle, id, from, to, limit).await?;
            let mut answer = json!(account);
            answer["timezone"] = zone.name().into();
            Ok(answer)
        }
        Request::Pause { id } => {
            let id = checked(&id)?;
            Ok(json!({ "task": handle.pause_task(&id).await? }))
        }
        Request::Resume { id } => {
            let id = checked(&id)?;
            // A schedule that ended while the task was paused has left nothing but its id.
            match handle.resume_task(&id).await? {
                Some(task) => Ok(json!({ "task": task })),
                None => Ok(json!({ "task": { "id": id }, "ended": true })),
            }
        }
        Request::Remove { id } => {
            let id = checked(&id)?;
            let from_file = TaskSettings::is_from_file(&handle.task(&id).await?.spec.userdata);
            handle.delete_task(&id).await?;
            Ok(json!({ "id": id, "in_configuration": from_file }))
        }
        Request::Run { id, only_if_due, beyond_max_instances } => {
            let id = checked(&id)?;
            let request = RunTask { only_if_due, beyond_max_instances, ..RunTask::new(id.clone()) };
            let run = handle.send(request).await??;
            Ok(json!({ "id": id, "run": run }))
        }
        Request::Reschedule { id, next_run, timezone } => {
            let id = checked(&id)?;
            let zone = match timezone {
                Some(zone) => zone,
                None => handle.task(&id).await?.spec.timezone,
            };
            let at = super::time::parse(&next_run, zone)
                .map_err(|error| Failure::new(Exit::Invalid, format!("--next-run: {error}")))?;
            let task = handle.update_task(&id, TaskChanges::new().next_run(at)).await?;
            Ok(json!({ "task": task }))
        }
        Request::Cancel { run } => {
            let run: RunId = run.parse().map_err(|error| Failure::new(Exit::Invalid, error))?;
            match handle.cancel_run(run).await? {
                true => Ok(json!({ "run": run })),
                false => {
                    let message = format!("run {run} is not going on; look for it with `inspect`");
                    Err(Failure::new(Exit::NotFound, message))
                }
            }
        }
        Request::Backfill { id, from, to, every } => {
            let id = checked(&id)?;
            let task = handle.backfill(&id, from, to, Duration::from_millis(every)).await?;
            Ok(json!({ "task": task }))
        }
        Request::CancelBackfill { id } => {
            let id = checked(&id)?;
            match handle.cancel_backfill(&id).await? {
                true => Ok(json!({ "id": id })),
                false => Err(Failure::new(Exit::Conflict, format!("task `{id}` is not being back-filled"))),
            }
        }
        request @ (Request::CheckStore { .. } | Request::ExportStore { .. } | Request::RekeyStore { .. }) => {
            super::store::answer(handle, request).await
        }
        Request::Add { task } => {
            let settings =
                TaskSettings::from_json(task).map_err(|error| Failure::new(Exit::Invalid, error))?;
            handlers::check(settings.handler(), settings.args())
                .map_err(|error| Failure::new(Exit::Invalid, error))?;
            let added = handle.register(settings.task()).await?;
            let mut answer = show(handle, &added.id).await?;
            answer["added"] = json!(added.what);
            answer["kept"] = json!(added.kept);
            Ok(answer)
        }
    }
}

/// The account of a window; without one, of the latest runs.
async fn why(
    handle: &Handle,
    id: TaskId,
    from: Option<String>,
    to: Option<String>,
    limit: u32,
) -> Result<(Account, Tz), Failure> {
    let task = match handle.task(&id).await {
        Ok(task) => Some(task),
        // Its records may still be there.
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error.into()),
    };
    let zone = task.as_ref().map_or(Tz::UTC, |task| task.spec.timezone);
    let read = |name: &str, text: &str| {
        let invalid = |error| Failure::new(Exit::Invalid, format!("{name}: {error}"));
        super::time::parse(text, zone).map_err(invalid)
    };
    let now = Clock::system().now();
    let next = task.as_ref().and_then(|task| task.state.next).map(|next| next.nominal);
    let end = match &to {
        Some(text) => read("--to", text)?,
        None if from.is_some() => now,
        None => next.map_or(now, |next| next.max(now)),
    };
    let begin = match &from {
        Some(text) => read("--from", text)?,
        None => {
            let runs = handle.history(&id, LATEST).await?;
            runs.iter().map(RunRecord::begins).chain(next).min().unwrap_or(now)
        }
    };
    if begin > end {
        return Err(Failure::new(Exit::Invalid, "--from is later than --to"));
    }
    let mut account = handle.send(Why::new(id.clone(), begin, end, limit as usize)).await??;
    // The scheduler answers page by page.
    while let Some(next) = account.next
        && account.times.len() < limit as usize
    {
        let left = limit as usize - account.times.len();
        let page = handle.send(Why::new(id.clone(), next, end, left)).await??;
        account.times.extend(page.times);
        account.next = page.next;
    }
    Ok((account, zone))
}

fn checked(id: &str) -> Result<TaskId, Failure> {
    TaskId::new(id).map_err(|error| Failure::new(Exit::Invalid, error))
}

/// The task as it is now, and what its author may not have meant; a schedule that ended meanwhile
/// has left nothing but its id.
async fn show(handle: &Handle, id: &TaskId) -> Result<Value, Failure> {
    match handle.task(id).await {
        Ok(task) => Ok(json!({ "warnings": warnings(&task), "task": task })),
        Err(error) if error.is_not_found() => Ok(json!({ "task": { "id": id } })),
        Err(error) => Err(error.into()),
    }
}

/// What the trigger of a task warns of, as text.
fn warnings(task: &TaskInfo) -> Vec<String> {
    let cx = task.spec.context(Clock::system().now());
    task.spec.trigger.warnings(&cx).iter().map(ToString::to_string).collect()
}
