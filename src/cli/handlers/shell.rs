//! `shell`: a command line for `/bin/sh`, in a process group of its own.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::pin::pin;
use std::process::{Command, Stdio};
use std::time::Duration;

use futures::future::{Either, select};
use serde::{Deserialize, Serialize};

use super::Inherited;
use super::command::{self, Cause, Ended, Order, Running};
use super::companion::Companion;
use super::reaper::MARK;
use crate::backoff::Backoff;
use crate::task::{Failure, TaskContext};
use crate::timer;

/// How long processes have to end by themselves after SIGTERM, before SIGKILL, unless told otherwise.
const MERCY: Duration = Duration::from_secs(5);

/// How much longer than that the end of a command is waited for. One that the kernel itself does not
/// let go ends later.
const LEAD: Duration = Duration::from_secs(5);

/// How soon a command is tried again that could not be started for want of descriptors, processes, threads or
/// memory.
const AGAIN: Backoff = Backoff::exponential(Duration::from_millis(50), Duration::from_secs(2)).jitter(0.5);

/// After so many attempts the log says so.
const TOLD: u32 = 8;

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
    /// How long its processes have to end by themselves after SIGTERM, before SIGKILL.
    #[serde(default, deserialize_with = "super::duration")]
    kill_after: Option<Duration>,
}

/// What a command said.
#[derive(Debug, Serialize)]
pub(super) struct Said {
    stdout: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    stderr: String,
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

/// Runs the command. Whatever ends the run ends the command as well, with all processes of its group;
/// and the run goes on until they are gone.
pub(super) async fn run(
    context: TaskContext,
    args: ShellArgs,
    companion: Companion,
    inherited: Inherited,
) -> Result<Said, Failure> {
    let mercy = args.kill_after.unwrap_or(MERCY);
    context.set_cancel_grace(mercy.saturating_add(LEAD));
    let place = args.cwd.as_ref().map_or_else(String::new, |dir| format!(" in {}", dir.display()));
    let failed = |error| Failure::new(format!("cannot start /bin/sh{place}: {error}"));
    let mut waits = 0;
    let ended = loop {
        let order = {
            let (context, args, companion) = (context.clone(), args.clone(), companion.clone());
            let inherited = inherited.clone();
            move || Order {
                command: command_of(&context, &args, &inherited),
                run: context.run_id(),
                timeout: args.timeout,
                mercy,
                clock: context.clock().clone(),
                companion,
            }
        };
        let ended = match command::start(order) {
            Ok(mut running) => attend(&context, &mut running).await,
            Err(error) => Err(error),
        };
        match ended {
            // Nothing has begun: the run waits as it would for a place.
            Err(error) if command::is_scarcity(&error) && !context.is_cancelled() => {
                if waits == TOLD {
                    let task = context.task_id();
                    tracing::warn!(%task, %error, "a command cannot be started yet; it is tried again");
                }
                let delay = AGAIN.delay(waits, context.run_id().serial);
                let again = timer::sleep(context.clock(), delay);
                select(pin!(again), pin!(context.cancelled())).await;
                waits = waits.saturating_add(1);
            }
            ended => break ended.map_err(failed)?,
        }
    };
    judge(&context, &args, ended)
}

/// Waits for the end of a command, and ends it when its run is cancelled.
async fn attend(context: &TaskContext, running: &mut Running) -> io::Result<Ended> {
    match select(pin!(running.ended()), pin!(context.cancelled())).await {
        Either::Left((ended, _)) => return ended,
        Either::Right(_) => {}
    }
    running.stop();
    running.ended().await
}

fn judge(context: &TaskContext, args: &ShellArgs, ended: Ended) -> Result<Said, Failure> {
    let Ended { status, cause, over, stdout, stderr } = ended;
    let said = Said { stdout: stdout.into_text(), stderr: stderr.into_text() };
    if cause == Cause::Itself {
        context.set_work_over(over);
    }
    let failure = match (cause, status) {
        (Cause::TimedOut, _) => Failure::TimedOut(args.timeout.unwrap_or_default()),
        (Cause::Stopped, _) => Failure::new("the command was stopped"),
        (Cause::Itself, Err(error)) => Failure::new(format!("cannot wait for the command: {error}")),
        (Cause::Itself, Ok(status)) => match (status.code(), status.signal()) {
            (Some(0), _) => return Ok(said),
            (Some(code), _) => Failure::new(format!("exit code {code}")),
            (None, signal) => Failure::new(format!("killed by signal {}", signal.unwrap_or_default())),
        },
    };
    if let Ok(output) = serde_json::to_value(said) {
        context.set_output(output);
    }
    Err(failure)
}

fn command_of(context: &TaskContext, args: &ShellArgs, inherited: &Inherited) -> Command {
    let mut command = inherited.shell(&args.command, args.env_clear);
    command
        .envs(&args.env)
        .env("CALLBOARD_TASK", context.task_id().as_str())
        .env(MARK, context.run_id().to_string())
        .env("CALLBOARD_NOMINAL", context.nominal().to_rfc3339())
        // The gate; nothing to read for the command.
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    if let Some(dir) = &args.cwd {
        command.current_dir(dir);
    }
    command
}
