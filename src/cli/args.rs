//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::trigger::Zone;
use clap::error::{ContextKind, ContextValue};
use clap::{ArgGroup, Args as ClapArgs, Parser, Subcommand, ValueEnum};

use super::data;
use super::exit::Exit;
use super::terminal::shown;
use crate::config::parse_duration;

/// Runs tasks on schedule: shell commands, HTTP requests, registered code.
#[derive(Debug, Parser)]
#[command(name = "callboard", version, after_help = Exit::TABLE, after_long_help = Exit::TABLE, max_term_width = 100)]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Reads the arguments of a process. An error repeats them, and so is one about the arguments as people get to
/// see them.
pub(super) fn read(given: impl IntoIterator<Item = OsString>) -> Result<Args, clap::Error> {
    let given: Vec<OsString> = given.into_iter().collect();
    Args::try_parse_from(&given).map_err(|mut error| {
        let seen = given.iter().map(|arg| shown(&arg.to_string_lossy()));
        Args::try_parse_from(seen).err().unwrap_or_else(|| {
            // What is wrong with the argument is not wrong with what is shown of it.
            if let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidValue) {
                let value = ContextValue::String(shown(value));
                error.insert(ContextKind::InvalidValue, value);
            }
            error
        })
    })
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the service in the foreground until SIGINT or SIGTERM.
    ///
    /// A line for each run goes to standard output, warnings to standard error; the environment
    /// variable CALLBOARD_LOG (info, callboard=debug, …) asks for more of them.
    Serve(Serve),
    /// Print when a trigger fires next. Needs no service.
    Next(Next),
    /// Look after a store: check it, export it, fill it, move it, change its keys.
    #[command(subcommand)]
    Store(Store),
    /// Print the version of the program, and which time zone database it uses.
    Version,
    /// Kills what a dead service left running; started by `serve`.
    #[command(hide = true)]
    Reap,
    #[command(flatten)]
    Control(Control),
}

#[derive(Debug, Subcommand)]
pub(super) enum Control {
    /// List the tasks of the running service.
    List(List),
    /// Show everything about a task, its next run times and its latest runs.
    Inspect(One),
    /// Say what became of each run time of a task, and why.
    ///
    /// Without a window: the latest 20 runs on record, what was passed over between them, and the next
    /// run time.
    Why(Why),
    /// Stop starting runs of a task.
    Pause(One),
    /// Start runs of a paused task again.
    Resume(One),
    /// Set the next run of a task; later ones follow its trigger.
    Reschedule(Reschedule),
    /// Remove a task.
    Remove(One),
    /// Run a task now, also when it is paused and nothing of it is due.
    Run(Run),
    /// Stop one run.
    Cancel(Cancel),
    /// Run a task for the run times of a past window, one after the other.
    Backfill(Backfill),
    /// Add a task.
    Add(Box<Add>),
}

#[derive(Debug, Subcommand)]
pub(super) enum Store {
    /// Read everything, and list what cannot be read. The exit code is 10 when there is something.
    Check(StoreCheck),
    /// Write all tasks and run records to a file. What is encrypted stays so, unless --plain is given.
    Export(StoreExport),
    /// Fill a store from an export. The service must not run.
    Import(StoreImport),
    /// Fill a store from another one, which stays as it is. The service must not run.
    Migrate(StoreMigrate),
    /// Write everything with the first key of the store's key file. Older keys are needed until then.
    Rekey(StoreRekey),
}

/// Where stores are, and how to print.
#[derive(Debug, ClapArgs)]
pub(super) struct StorePlace {
    /// The configuration of the service, which says what stores there are. Default: one called
    /// `default`, of the type sled.
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// The data directory of the service.
    #[arg(long, value_name = "DIR", default_value = data::DEFAULT)]
    pub(super) data: PathBuf,
    /// The keys of stores for which the configuration has none: a file with one a line.
    #[arg(long, value_name = "FILE")]
    pub(super) key_file: Option<PathBuf>,
    /// Take directories that belong to another user, or that everybody may write to.
    #[arg(long)]
    pub(super) trust_data: bool,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(super) struct StoreCheck {
    /// The store: its alias, or its type and directory as in sled:data/store.
    #[arg(long, value_name = "STORE", default_value = "default")]
    pub(super) store: String,
    #[command(flatten)]
    pub(super) place: StorePlace,
}

#[derive(Debug, ClapArgs)]
pub(super) struct StoreExport {
    /// The file to write. One that is there is replaced when the export is complete.
    pub(super) file: PathBuf,
    /// The store: its alias, or its type and directory as in sled:data/store.
    #[arg(long, value_name = "STORE", default_value = "default")]
    pub(super) store: String,
    /// Write what is encrypted so that anybody can read it.
    #[arg(long)]
    pub(super) plain: bool,
    #[command(flatten)]
    pub(super) place: StorePlace,
}

/// What becomes of what is there already.
#[derive(Debug, ClapArgs)]
pub(super) struct Filling {
    /// Remove what the store holds first.
    #[arg(long, conflicts_with = "merge")]
    pub(super) replace: bool,
    /// Keep what the store holds; where both have a task, that of the store stays, unless it is damaged.
    #[arg(long)]
    pub(super) merge: bool,
}

#[derive(Debug, ClapArgs)]
pub(super) struct StoreImport {
    /// The export.
    pub(super) file: PathBuf,
    /// The store: its alias, or its type and directory as in sled:data/store.
    #[arg(long, value_name = "STORE", default_value = "default")]
    pub(super) store: String,
    #[command(flatten)]
    pub(super) filling: Filling,
    #[command(flatten)]
    pub(super) place: StorePlace,
}

#[derive(Debug, ClapArgs)]
pub(super) struct StoreMigrate {
    /// The store to read: its alias, or its type and directory as in sled:data/store.
    pub(super) from: String,
    /// The store to fill, named in the same way.
    pub(super) to: String,
    #[command(flatten)]
    pub(super) filling: Filling,
    #[command(flatten)]
    pub(super) place: StorePlace,
}

#[derive(Debug, ClapArgs)]
pub(super) struct StoreRekey {
    /// The store: its alias, or its type and directory as in sled:data/store.
    #[arg(long, value_name = "STORE", default_value = "default")]
    pub(super) store: String,
    #[command(flatten)]
    pub(super) place: StorePlace,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Serve {
    /// The configuration. Without one, tasks come from `callboard add` alone.
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Where tasks, their history and the control socket are kept.
    #[arg(long, value_name = "DIR", default_value = data::DEFAULT)]
    pub(super) data: PathBuf,
    /// Take a data directory that belongs to another user, or that everybody may write to. Whoever can write
    /// to it decides which commands run.
    #[arg(long)]
    pub(super) trust_data: bool,
    /// Print events as JSON, one a line.
    #[arg(long)]
    pub(super) json: bool,
    /// Refuse to start when any store cannot be opened or any task of the configuration cannot be
    /// added. Default: what works is started, and the rest is said.
    #[arg(long)]
    pub(super) strict: bool,
    /// How long a shutdown waits for runs, such as 30s. Default: the configuration's, else 10s.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(super) grace: Option<Duration>,
}

#[derive(Debug, ClapArgs)]
#[command(group = ArgGroup::new("what").required(true).args(["trigger", "jsonl"]))]
pub(super) struct Next {
    /// A trigger: a crontab expression ("0 3 * * mon-fri"), other text ("every 5m"), or JSON.
    #[arg(value_name = "EXPR|JSON")]
    pub(super) trigger: Option<String>,
    /// The zone in which the trigger is read where it names none. Default: UTC.
    #[arg(long, value_name = "ZONE", value_parser = super::time::zone)]
    pub(super) timezone: Option<Zone>,
    /// Where the search starts: a time with an offset, or without one on the clock of --timezone, else of
    /// the trigger. Default: now.
    #[arg(long, value_name = "TIME")]
    pub(super) after: Option<String>,
    /// The id of the task: what `H` stands for depends on it.
    #[arg(long, value_name = "ID", value_parser = super::next::id)]
    pub(super) id: Option<String>,
    /// An interval as the task of --id has it when its first run is spread.
    #[arg(long, requires = "id")]
    pub(super) spread: bool,
    /// How many run times.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) count: u32,
    /// Print one JSON object.
    #[arg(long)]
    pub(super) json: bool,
    /// Answer questions in JSON from standard input, one a line.
    #[arg(long, conflicts_with_all = ["timezone", "after", "id", "spread", "count", "json"])]
    pub(super) jsonl: bool,
}

/// Where the service is, and how to print.
#[derive(Debug, ClapArgs)]
pub(super) struct Common {
    /// The data directory of the service.
    #[arg(long, value_name = "DIR", default_value = data::DEFAULT)]
    pub(super) data: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(super) struct One {
    /// The task's id.
    pub(super) id: String,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Run {
    #[command(flatten)]
    pub(super) one: One,
    /// Only when a run time of its schedule is due; the schedule goes on from there. The exit code is 8
    /// when none is.
    #[arg(long)]
    pub(super) only_if_due: bool,
    /// Also when as many runs of it go on as max_instances allows.
    #[arg(long)]
    pub(super) beyond_max_instances: bool,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Cancel {
    /// The run, as `run`, `inspect` and the service show it.
    pub(super) run: String,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, ClapArgs)]
#[command(group = ArgGroup::new("which").required(true).args(["from", "cancel"]))]
pub(super) struct Backfill {
    /// The task's id.
    pub(super) id: String,
    /// The beginning of the window: a time with an offset, or without one on the task's clock.
    #[arg(long, value_name = "TIME", requires = "to")]
    pub(super) from: Option<String>,
    /// The end of the window; a run time at this very instant is outside.
    #[arg(long, value_name = "TIME", requires = "from")]
    pub(super) to: Option<String>,
    /// The time between two of the runs, at least.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_duration)]
    pub(super) every: Duration,
    /// The zone of times without an offset. Default: the task's.
    #[arg(long, value_name = "ZONE", value_parser = super::time::zone)]
    pub(super) timezone: Option<Zone>,
    /// Call off the one under way.
    #[arg(long, conflicts_with_all = ["from", "to", "every", "timezone"])]
    pub(super) cancel: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Reschedule {
    /// The task's id.
    pub(super) id: String,
    /// The next run: a time to come, with an offset, or without one on the task's clock. Run times of
    /// the trigger before it are left out.
    #[arg(long, value_name = "TIME")]
    pub(super) next_run: String,
    /// The zone of a time without an offset. Default: the task's.
    #[arg(long, value_name = "ZONE", value_parser = super::time::zone)]
    pub(super) timezone: Option<Zone>,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Why {
    /// The task's id.
    pub(super) id: String,
    /// The beginning of the window: a time with an offset, or without one on the task's clock.
    #[arg(long, value_name = "TIME")]
    pub(super) from: Option<String>,
    /// The end of the window. Default: the next run time, or now when --from is given.
    #[arg(long, value_name = "TIME")]
    pub(super) to: Option<String>,
    /// The zone of times without an offset. Default: the task's; the service's where there is no task.
    #[arg(long, value_name = "ZONE", value_parser = super::time::zone)]
    pub(super) timezone: Option<Zone>,
    /// How many run times.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) limit: u32,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, ClapArgs)]
pub(super) struct List {
    /// Only tasks with this text in their id, name, handler or trigger.
    pub(super) text: Option<String>,
    /// Only tasks in this state.
    #[arg(long)]
    pub(super) state: Option<State>,
    /// The order.
    #[arg(long, value_name = "KEY", default_value = "next")]
    pub(super) sort: Sort,
    /// The other way round.
    #[arg(long)]
    pub(super) descending: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum State {
    Paused,
    Scheduled,
    Finished,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Sort {
    Next,
    Id,
    Name,
    State,
    Executor,
    Store,
    Trigger,
}

#[derive(Debug, ClapArgs)]
#[command(
    group = ArgGroup::new("when").required(true).args(["cron", "every", "at", "trigger"]),
    group = ArgGroup::new("what").required(true).args(["shell", "http", "handler"]),
)]
pub(super) struct Add {
    /// The task's id. Default: a random one.
    #[arg(long)]
    pub(super) id: Option<String>,
    /// When: a crontab expression.
    #[arg(long, value_name = "EXPR")]
    pub(super) cron: Option<String>,
    /// When: every so often, such as 90s, 5m or 1h30m.
    #[arg(long, value_name = "DURATION")]
    pub(super) every: Option<String>,
    /// When: once, at a time with an offset, or without one on the clock of --timezone.
    #[arg(long, value_name = "TIME")]
    pub(super) at: Option<String>,
    /// When: any trigger, as text or JSON.
    #[arg(long, value_name = "TEXT|JSON")]
    pub(super) trigger: Option<String>,
    /// What: a command line for /bin/sh.
    #[arg(long, value_name = "COMMAND")]
    pub(super) shell: Option<String>,
    /// What: an HTTP request.
    #[arg(long, num_args = 2, value_names = ["METHOD", "URL"])]
    pub(super) http: Option<Vec<String>>,
    /// What: a handler of the service, by name.
    #[arg(long, value_name = "NAME")]
    pub(super) handler: Option<String>,
    /// What --handler is given, as JSON.
    #[arg(long, value_name = "JSON", conflicts_with_all = ["shell", "http"])]
    pub(super) args: Option<String>,
    /// The working directory of --shell.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["http", "handler"])]
    pub(super) cwd: Option<String>,
    /// A variable in the environment of --shell; may be repeated.
    #[arg(long, value_name = "NAME=VALUE", conflicts_with_all = ["http", "handler"])]
    pub(super) env: Vec<String>,
    /// Start --shell with HOME, PATH, LANG, TZ, USER, SHELL and --env alone, instead of the service's environment.
    #[arg(long, conflicts_with_all = ["http", "handler"])]
    pub(super) env_clear: bool,
    /// A header of --http; may be repeated.
    #[arg(long, value_name = "NAME: VALUE", conflicts_with_all = ["shell", "handler"])]
    pub(super) header: Vec<String>,
    /// The body of --http.
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["shell", "handler"])]
    pub(super) body: Option<String>,
    /// How long processes of --shell have to end after SIGTERM, before SIGKILL. [default: 5s]
    #[arg(long, value_name = "LENGTH", conflicts_with_all = ["http", "handler"])]
    pub(super) kill_after: Option<String>,
    /// Which redirections --http follows: none, safe, or all as browsers do. [default: safe]
    #[arg(long, value_name = "WHICH", conflicts_with_all = ["shell", "handler"])]
    pub(super) redirects: Option<String>,
    /// How long a run of --shell or --http may take.
    #[arg(long, value_name = "DURATION", conflicts_with = "handler")]
    pub(super) timeout: Option<String>,
    /// A label for people.
    #[arg(long)]
    pub(super) name: Option<String>,
    /// The zone in which the trigger is read. Default: the service's.
    #[arg(long, value_name = "ZONE", value_parser = super::time::zone)]
    pub(super) timezone: Option<Zone>,
    /// Runs of the task at once.
    #[arg(long, value_name = "N")]
    pub(super) max_instances: Option<u32>,
    /// How late a run may start: a duration, or "unlimited".
    #[arg(long, value_name = "DURATION")]
    pub(super) misfire_grace: Option<String>,
    /// The alias of the executor.
    #[arg(long, value_name = "ALIAS")]
    pub(super) executor: Option<String>,
    /// Run an interval first at a place of its own within one length, which follows from the id.
    #[arg(long)]
    pub(super) spread: bool,
    /// Add it paused.
    #[arg(long)]
    pub(super) paused: bool,
    /// Replace a task of the same id.
    #[arg(long)]
    pub(super) replace: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        super::Args::command().debug_assert();
    }
}
