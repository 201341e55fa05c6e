//! The side of the control socket that answers.

mod connections;

use std::path::Path;
use std::time::Duration;

use actix_rt::Arbiter;
use chrono::{DateTime, Utc};
use serde::ser::{Error, Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::{Value, json};

use super::exit::{Exit, Failure};
use super::handlers;
use super::hold::Hold;
use super::protocol::Request;
use super::secrets;
use crate::clock::Clock;
use crate::config::TaskSettings;
use crate::scheduler::message::{RunTask, TaskList, Why};
use crate::scheduler::{Handle, arbiter};
use crate::task::{Account, Alias, RunId, RunRecord, TaskChanges, TaskId, TaskInfo, TaskQuery};
use crate::threads;
use crate::trigger::Zone;

/// Run times and runs that `inspect` shows.
const SHOWN: usize = 5;
const RECORDS: usize = 10;
/// Run times that `why` tells at most.
const MOST_WHY: u32 = 10_000;
/// Runs that `why` goes back over when it is given no window.
const LATEST: usize = 20;

/// The open socket, on an arbiter of its own: whatever holds up a run or the scheduler, commands are
/// heard. Dropping it closes and removes it.
#[derive(Debug)]
pub(super) struct Control<'a> {
    arbiter: Arbiter,
    hold: &'a Hold,
}

impl<'a> Control<'a> {
    /// Opens the socket at `path`, in the directory of `hold`. `zone` is the service's.
    pub(super) fn open(path: &Path, hold: &'a Hold, handle: Handle, zone: Zone) -> Result<Self, Failure> {
        let listeners = hold.open_socket(path)?;
        let arbiter = arbiter::start().map_err(|error| {
            Failure::new(Exit::Starved, format!("cannot start the thread of the control socket: {error}"))
        })?;
        let answering = Answering { handle, zone };
        // It ends with the arbiter.
        arbiter.spawn_fn(move || drop(actix_rt::spawn(connections::listen(listeners, answering))));
        Ok(Self { arbiter, hold })
    }
}

impl Drop for Control<'_> {
    fn drop(&mut self) {
        self.arbiter.stop();
        self.hold.close_socket();
    }
}

/// What answers take.
struct Answering {
    handle: Handle,
    /// The service's.
    zone: Zone,
}

impl Answering {
    /// The answer, with what is secret in it.
    async fn answer(&self, request: Request) -> Result<Answered, Failure> {
        answer(&self.handle, self.zone, request).await
    }
}

/// What a request is answered with.
enum Answered {
    Value(Value),
    Tasks(TaskList),
}

impl Answered {
    /// The answer without what is secret.
    fn masked(self) -> Self {
        match self {
            Self::Value(value) => Self::Value(secrets::masked(value)),
            // Masked while they are written.
            tasks @ Self::Tasks(_) => tasks,
        }
    }
}

/// Tasks are looked through one after the other: many of them take many times their room as one value.
impl Serialize for Answered {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Value(value) => value.serialize(serializer),
            Self::Tasks(list) => {
                let unasked = |(store, error): &(Alias, crate::Error)| {
                    secrets::masked(json!({ "store": store, "message": error.to_string() }))
                };
                let mut map = serializer.serialize_map(Some(2))?;
                map.serialize_entry("tasks", &Masked(&list.tasks))?;
                map.serialize_entry("unasked", &list.unasked.iter().map(unasked).collect::<Vec<_>>())?;
                map.end()
            }
        }
    }
}

struct Masked<'a>(&'a [TaskInfo]);

impl Serialize for Masked<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(Some(self.0.len()))?;
        for task in self.0 {
            let task = serde_json::to_value(task).map_err(S::Error::custom)?;
            seq.serialize_element(&secrets::masked(task))?;
        }
        seq.end()
    }
}

/// Does what takes long on another thread.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    let done = threads::aside(work).await;
    done.ok_or_else(|| Failure::new(Exit::Failed, "the answer could not be made; the log says why"))
}

async fn answer(handle: &Handle, service: Zone, request: Request) -> Result<Answered, Failure> {
    let answer = match request {
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
            return Ok(Answered::Tasks(handle.list_tasks(query).await?));
        }
        Request::Inspect { id } => {
            let id = checked(&id)?;
            let task = handle.task(&id).await?;
            let next = handle.preview(&id, SHOWN).await?;
            let runs = handle.history(&id, RECORDS).await?;
            let next: Vec<String> = next.iter().map(|at| at.to_rfc3339()).collect();
            Ok(json!({ "warnings": warnings(&task), "task": task, "next": next, "runs": runs }))
        }
        Request::Why { id, from, to, timezone, limit } => {
            let id = checked(&id)?;
            if !(1..=MOST_WHY).contains(&limit) {
                let message = format!(
                    "limit: is {limit}; from 1 to {MOST_WHY} run times are told at a time, and where to go on from"
                );
                return Err(Failure::new(Exit::Invalid, message));
            }
            let (account, zone) = why(handle, id, from, to, timezone, service, limit).await?;
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
            let at = read("--next-run", &next_run, zone_of(handle, &id, timezone).await?)?;
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
        Request::Backfill { id, from, to, every, timezone } => {
            let id = checked(&id)?;
            let zone = zone_of(handle, &id, timezone).await?;
            let (from, to) = (read("--from", &from, zone)?, read("--to", &to, zone)?);
            let task = handle.backfill(&id, from, to, Duration::from_millis(every.max(1))).await?;
            Ok(json!({ "task": task, "timezone": zone.name() }))
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
            let settings = TaskSettings::from_json_in(task, Some(service), &super::time::rules())
                .map_err(|error| Failure::new(Exit::Invalid, error))?;
            handlers::check(settings.handler(), settings.args())
                .map_err(|error| Failure::new(Exit::Invalid, error))?;
            let added = handle.register(settings.task()).await?;
            let mut answer = show(handle, &added.id).await?;
            answer["added"] = json!(added.what);
            answer["kept"] = json!(added.kept);
            Ok(answer)
        }
    };
    answer.map(Answered::Value)
}

/// The account of a window; without one, of the latest runs.
async fn why(
    handle: &Handle,
    id: TaskId,
    from: Option<String>,
    to: Option<String>,
    timezone: Option<Zone>,
    service: Zone,
    limit: u32,
) -> Result<(Account, Zone), Failure> {
    let task = match handle.task(&id).await {
        Ok(task) => Some(task),
        // Its records may still be there.
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error.into()),
    };
    let zone = timezone.unwrap_or_else(|| task.as_ref().map_or(service, |task| task.spec.timezone));
    let now = Clock::system().now();
    let next = task.as_ref().and_then(|task| task.state.next).map(|next| next.nominal);
    let end = match &to {
        Some(text) => read("--to", text, zone)?,
        None if from.is_some() => now,
        None => next.map_or(now, |next| next.max(now)),
    };
    let begin = match &from {
        Some(text) => read("--from", text, zone)?,
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

/// The zone that was named, else that of the task, which must be there.
async fn zone_of(handle: &Handle, id: &TaskId, named: Option<Zone>) -> Result<Zone, Failure> {
    match named {
        Some(zone) => Ok(zone),
        None => Ok(handle.task(id).await?.spec.timezone),
    }
}

/// A time of an option, on the clock of `zone` where it has no offset.
///
/// One rule for every command that takes a time: the zone that was named, else the task's, else,
/// where there is no task, the service's.
fn read(option: &str, text: &str, zone: Zone) -> Result<DateTime<Utc>, Failure> {
    super::time::parse(text, zone).map_err(|error| Failure::new(Exit::Invalid, format!("{option}: {error}")))
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
    let zones = super::time::rules();
    let cx = task.spec.context(Clock::system().now(), &zones);
    task.spec.trigger.warnings(&cx).iter().map(ToString::to_string).collect()
}
