//! `shell`: a command line for `/bin/sh`, in a process group of its own.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{Either, FusedFuture, join, pending, select};
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use super::Inherited;
use super::reaper::{Group, Reaper};
use super::tail::Tail;
use crate::task::TaskContext;
use crate::timer;

/// How long processes have to end by themselves after SIGTERM, before SIGKILL.
const MERCY: Duration = Duration::from_secs(1);

/// How long output is waited for when all processes of the group are gone.
const PATIENCE: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ShellArgs {
    command: String,
    #[serde(default)]
    cwd: Option<PathBuf>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// Whether the command starts with a bare environment.
    #[serde(default)]
    env_clear: bool,
    #[serde(default, deserialize_with = "super::duration")]
    timeout: Option<Duration>,
}

/// What a command that ended well said.
#[derive(Debug, Serialize)]
pub(super) struct Said {
    stdout: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    stderr: String,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ShellError {
    #[error("cannot start /bin/sh{place}: {error}")]
    Start { place: String, error: std::io::Error },
    #[error("cannot wait for the command: {0}")]
    Wait(std::io::Error),
    #[error("exit code {code}{said}")]
    Code { code: i32, said: String },
    #[error("killed by signal {signal}{said}")]
    Signal { signal: i32, said: String },
    #[error("took longer than its timeout of {after} and was killed with all its processes{said}")]
    TimedOut { after: humantime::FormattedDuration, said: String },
}

impl ShellArgs {
    pub(super) fn check(&self) -> Result<(), String> {
        if self.command.trim().is_empty() {
            return Err("command is empty; give it a command line for /bin/sh".to_owned());
        }
        if self.command.contains('\0') {
            return Err("command contains a NUL character, which no command line can".to_owned());
        }
        match self
            .env
            .iter()
            .find(|(name, value)| name.is_empty() || name.contains(['=', '\0']) || value.contains('\0'))
        {
            Some((name, _)) => Err(format!("env has the variable {name:?}, which no environment can hold")),
            None => Ok(()),
        }
    }
}

enum End {
    Ended(std::io::Result<ExitStatus>),
    TimedOut(Duration),
}

/// Runs the command. When this future is dropped, which is what a cancellation and the end of the
/// service do, the whole process group is killed.
pub(super) async fn run(
    context: TaskContext,
    args: ShellArgs,
    reaper: Reaper,
    inherited: Inherited,
) -> Result<Said, ShellError> {
    let mut command = Command::from(inherited.shell(&args.command, args.env_clear));
    command
        .envs(&args.env)
        .env("CALLBOARD_TASK", context.task_id().as_str())
        .env("CALLBOARD_RUN", context.run_id().to_string())
        .env("CALLBOARD_NOMINAL", context.nominal().to_rfc3339())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    if let Some(dir) = &args.cwd {
        command.current_dir(dir);
    }
    let mut child = command.spawn().map_err(|error| ShellError::Start {
        place: args.cwd.as_ref().map_or_else(String::new, |dir| format!(" in {}", dir.display())),
        error,
    })?;
    // A child that was not waited for has a pid.
    let leader = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    let group = leader.map(|leader| reaper.watch(leader));
    let (stdout, stderr) = (RefCell::default(), RefCell::default());
    let mut reading =
        Box::pin(join(read(child.stdout.take(), &stdout), read(child.stderr.take(), &stderr)).fuse());

    let end = {
        let timeout = async {
            match args.timeout {
                Some(after) => {
                    timer::sleep(context.clock(), after).await;
                    End::TimedOut(after)
                }
                None => pending().await,
            }
        };
        let ended = child.wait().map(End::Ended);
        let ending = pin!(async { first(pin!(ended), pin!(timeout)).await });
        alongside(ending, &mut reading).await
    };
    if !matches!(end, End::Ended(_)) {
        signal(&group, Signal::TERM);
        let mercy = pin!(timer::sleep(context.clock(), MERCY).map(|_| ()));
        let gone = pin!(child.wait().map(|_| ()));
        let waiting = pin!(async { first(gone, mercy).await });
        alongside(waiting, &mut reading).await;
    }
    // What the shell left in the background goes with it.
    signal(&group, Signal::KILL);
    let _ = child.wait().await;
    drop(group);
    // Now the pipes are closed, unless somebody has left the group on purpose.
    if !reading.is_terminated() {
        select(&mut reading, pin!(timer::sleep(context.clock(), PATIENCE))).await;
    }
    drop(reading);

    let (stdout, stderr) = (stdout.into_inner(), stderr.into_inner());
    judge(end, stdout, stderr)
}

fn judge(end: End, stdout: Tail, stderr: Tail) -> Result<Said, ShellError> {
    let stderr = stderr.into_text();
    let said = match stderr.trim() {
        "" => String::new(),
        text => format!("; stderr: {text}"),
    };
    let status = match end {
        End::Ended(status) => status.map_err(ShellError::Wait)?,
        End::TimedOut(after) => {
            return Err(ShellError::TimedOut { after: humantime::format_duration(after), said });
        }
    };
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(Said { stdout: stdout.into_text(), stderr }),
        (Some(code), _) => Err(ShellError::Code { code, said }),
        (None, signal) => Err(ShellError::Signal { signal: signal.unwrap_or_default(), said }),
    }
}

fn signal(group: &Option<Group>, signal: Signal) {
    if let Some(group) = group {
        group.signal(signal);
    }
}

/// The result of whichever future ends first.
async fn first<T>(a: impl Future<Output = T> + Unpin, b: impl Future<Output = T> + Unpin) -> T {
    select(a, b).await.factor_first().0
}

/// Waits for `main` and drives `side` meanwhile.
async fn alongside<T, U>(
    main: impl Future<Output = T> + Unpin,
    side: &mut (impl FusedFuture<Output = U> + Unpin),
) -> T {
    if side.is_terminated() {
        return main.await;
    }
    match select(main, side).await {
        Either::Left((result, _)) => result,
        Either::Right((_, main)) => main.await,
    }
}

/// Reads to the end, keeping the last part. A pipe that breaks has ended.
async fn read(pipe: Option<impl AsyncRead + Unpin>, tail: &RefCell<Tail>) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        tail.borrow_mut().push(&buffer[..count]);
    }
}
