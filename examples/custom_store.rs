//! A store of your own: tasks in memory, and in one JSON file after each change.
//!
//! ```sh
//! cargo run --example custom_store
//! ```
//!
//! Starts a scheduler, adds a task, shuts down; a second scheduler finds the task in the file.

use std::path::{Path, PathBuf};

use callboard::prelude::*;
use callboard::store::message::*;
use callboard::store::{Backend, BackendSource, Capabilities, MemoryBackend, Reply, StoreError};
use callboard::task::{RunRecord, StoredTask};

/// Memory answers; the file remembers. (Writing everything at each change is good for a few hundred
/// tasks.)
struct JsonFile {
    memory: MemoryBackend,
    path: PathBuf,
}

impl JsonFile {
    fn load(&mut self) -> Result<(), StoreError> {
        let Ok(text) = std::fs::read_to_string(&self.path) else { return Ok(()) };
        let tasks: Vec<(_, _)> = serde_json::from_str(&text).map_err(|error| StoreError::Damaged {
            place: self.path.display().to_string(),
            reason: error.to_string(),
            advice: "repair the file or put it aside".to_owned(),
        })?;
        for (spec, state) in tasks {
            let task = StoredTask { spec, state };
            now(self.memory.put(Put { task, expect: Expect::Absent }))?;
        }
        Ok(())
    }

    fn save<T>(&mut self, reply: Reply<T>) -> Reply<T> {
        let write = |memory: &mut MemoryBackend, path: &Path| {
            let tasks = now(memory.list(List))?;
            let tasks: Vec<_> = tasks.iter().map(|task| (&task.spec, &task.state)).collect();
            let text = serde_json::to_string_pretty(&tasks).map_err(std::io::Error::other);
            // Written aside first: a crash leaves the old file or the new one.
            let aside = path.with_extension("new");
            text.and_then(|text| std::fs::write(&aside, text))
                .and_then(|()| std::fs::rename(&aside, path))
                .map_err(|error| StoreError::unavailable(error.to_string()))
        };
        write(&mut self.memory, &self.path).and_then(|()| now(reply)).into()
    }
}

/// The memory backend answers at once. A network backend would answer [`Reply::later`].
fn now<T>(reply: Reply<T>) -> Result<T, StoreError> {
    match reply {
        Reply::Now(result) => result,
        Reply::Later(_) => Err(StoreError::unavailable("memory was slow")),
    }
}

/// Those that read are passed on, those that change are saved.
macro_rules! pass_on {
    ($($method:ident($request:ty) -> $answer:ty $(, $then:ident)?;)*) => {$(
        fn $method(&mut self, request: $request) -> Reply<$answer> {
            let reply = self.memory.$method(request);
            $(let reply = self.$then(reply);)?
            reply
        }
    )*};
}

impl Backend for JsonFile {
    fn capabilities(&self) -> Capabilities {
        // It blocks, so it gets a thread of its own. It keeps no records of runs and cannot be sure
        // of the disk, so it does not call itself durable.
        Capabilities { blocking: true, ..Capabilities::default() }
    }

    fn open(&mut self, request: Open) -> Reply<Opened> {
        match self.load() {
            Ok(()) => self.memory.open(request),
            Err(error) => Reply::Now(Err(error)),
        }
    }

    pass_on! {
        put(Put) -> (), save;
        delete(Delete) -> StoredTask, save;
        commit(Commit) -> Committed, save;
        remove_all(RemoveAll) -> usize, save;
        get(Get) -> Option<StoredTask>;
        list(List) -> Vec<StoredTask>;
        take_due(TakeDue) -> Due;
        defer(Defer) -> Option<chrono::DateTime<chrono::Utc>>;
        finish(Finish) -> ();
        next_due(NextDue) -> Option<chrono::DateTime<chrono::Utc>>;
        runs(Runs) -> Vec<RunRecord>;
        close(Close) -> ();
    }
}

async fn scheduler(path: &Path) -> Result<Handle, callboard::Error> {
    let path = path.to_owned();
    let store = BackendSource::new(move || JsonFile { memory: MemoryBackend::default(), path: path.clone() });
    let registry = Registry::new().register("report", |_: TaskContext, ()| async { println!("running") });
    Scheduler::builder().registry(registry).store("default", store).start().await
}

#[actix::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::temp_dir().join(format!("callboard-example-{}.json", std::process::id()));

    let first = scheduler(&path).await?;
    first.add(Task::new("report").id("monthly").trigger("0 8 1 * *")).await?;
    first.pause_task("monthly").await?;
    first.shutdown(Shutdown::now()).await?;
    println!("the file has {} bytes", std::fs::metadata(&path)?.len());

    let second = scheduler(&path).await?;
    let task = second.task("monthly").await?;
    println!("found `{}`, {}, paused: {}", task.id(), task.when, task.state.paused);
    second.shutdown(Shutdown::now()).await?;
    Ok(std::fs::remove_file(&path)?)
}
