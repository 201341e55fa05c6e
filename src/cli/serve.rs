//! `serve`: the service in the foreground.

use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use futures::future::{Either, select};
use futures::{FutureExt, StreamExt};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::args::Serve;
use super::control::Control;
use super::exit::{Exit, Failure};
use super::handlers::Inherited;
use super::hold::Hold;
use super::show::Show;
use super::{data, handlers, limits, means, out};
use crate::clock::Clock;
use crate::config::{ConfigError, Settings, TaskSettings};
use crate::event::{Event, EventMask, EventStream};
use crate::scheduler::{Builder, Handle, Shutdown};
use crate::task::TaskQuery;
use crate::timer;
use crate::trigger::Context;

pub(super) fn run(args: Serve) -> Result<(), Failure> {
    log();
    let settings = settings(&args)?;
    let nofile = limits::raise_nofile();
    means::check(settings.stores.values().filter(|store| store.path(&args.data).is_some()).count())?;
    let warnings = data::create(&args.data, args.trust_data)?;
    for store in settings.stores.values().filter_map(|store| store.path(&args.data)) {
        data::check_owner(&store, args.trust_data)?;
    }
    warnings.iter().for_each(|warning| out::note(warning));
    let socket = data::socket(&args.data)?;
    let hold = Hold::take(&args.data, args.trust_data)?;
    let show = Show::new(args.json, settings.timezone)
        .map_err(|error| Failure::new(Exit::Failed, format!("cannot start a thread: {error}")))?;
    let mut service = Service { settings, show, from_file: args.config.is_some(), nofile };
    let result = actix_rt::System::new().block_on(service.run(&args.data, &socket, &hold));
    service.show.finish();
    result
}

const QUIET: &str = "warn,callboard::scheduler::ends=off,callboard::scheduler::stores=off,callboard::scheduler::executors=off,callboard::scheduler::heir=off,\
     callboard::scheduler::lifecycle=off,rustls_platform_verifier=off,sled=off";

/// Logs go to standard error; `CALLBOARD_LOG` says how much of them (`info`, `callboard=debug`, …).
/// By default warnings, except those that have a line of their own already.
fn log() {
    let wanted = std::env::var("CALLBOARD_LOG").unwrap_or_else(|_| QUIET.to_owned());
    let filter = tracing_subscriber::EnvFilter::builder().parse_lossy(wanted);
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        // Otherwise a standard error that nobody reads any more would end the service.
        .log_internal_errors(false);
    let _ = subscriber.try_init();
}

/// The settings with everything checked that can be before anything is touched.
fn settings(args: &Serve) -> Result<Settings, Failure> {
    let invalid = |error: ConfigError| Failure::new(Exit::Invalid, error);
    let mut settings = match &args.config {
        Some(file) => Settings::read(file).map_err(invalid)?,
        None => Settings::default(),
    };
    let check = |task: &TaskSettings| Some(task.problem(handlers::check(task.handler(), task.args()).err()?));
    let problems: Vec<_> = settings.tasks.iter().filter_map(check).collect();
    if !problems.is_empty() {
        return Err(invalid(settings.refuse(problems)));
    }
    if let Some(grace) = args.grace {
        settings.grace = grace;
    }
    Ok(settings)
}

struct Service {
    settings: Settings,
    show: Show,
    /// Whether the settings come from a file.
    from_file: bool,
    /// How many open files commands may have, where that is another number than the service's.
    nofile: Option<u64>,
}

/// How long after a signal the same one is an echo of it.
const ECHO: Duration = Duration::from_millis(500);

/// The signals that end the service.
struct Signals([Signal; 3]);

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self([
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ]))
    }

    async fn next(&mut self) {
        let [a, b, c] = &mut self.0;
        let waiting = [a, b, c].map(|signal| Box::pin(signal.recv()));
        futures::future::select_all(waiting).await;
    }

    /// The next one that is meant as a second one: whoever stops a whole process group sends the
    /// same signal twice.
    async fn again(&mut self) {
        timer::sleep(&Clock::system(), ECHO).await;
        while self.next().now_or_never().is_some() {}
        self.next().await;
    }
}

impl Service {
    async fn run(&mut self, dir: &Path, socket: &Path, hold: &Hold) -> Result<(), Failure> {
        let mut signals = Signals::new()
            .map_err(|error| Failure::new(Exit::Failed, format!("cannot listen for signals: {error}")))?;
        let handle = self.builder(dir)?.build()?;
        let mut events = handle.events(EventMask::ALL).await?;
        // Paused until the tasks are those of the file: a task that has left it does not run again.
        handle.start_paused().await?;
        let changes = self.register(&handle).await?;
        let control = Control::open(socket, hold, handle.clone())?;
        self.say(dir, socket, &changes);
        handle.resume().await?;

        let ended = self.watch(&mut events, pin!(signals.next())).await;
        drop(control);
        if !ended {
            return Err(Failure::new(
                Exit::Failed,
                "the scheduler has ended by itself; CALLBOARD_LOG=debug says more",
            ));
        }
        self.shut_down(handle, events, signals).await
    }

    fn builder(&mut self, dir: &Path) -> Result<Builder, Failure> {
        for (handler, runs) in limits::runs_at_once() {
            self.settings.limit_handler(handler, runs);
        }
        let inherited = Inherited::new(self.settings.secret_variables(), self.nofile);
        let for_workers: Vec<_> =
            self.nofile.iter().map(|limit| (limits::NOFILE, limit.to_string())).collect();
        let registry = handlers::registry(inherited);
        Ok(self.settings.builder_with(dir, &for_workers)?.registry(registry))
    }

    /// Makes the tasks those of the file.
    async fn register(&self, handle: &Handle) -> Result<Changes, Failure> {
        let mut changes = Changes::default();
        let stored = handle.tasks(TaskQuery::new()).await?;
        for task in &stored {
            let listed = self.settings.tasks.iter().any(|listed| listed.id() == task.id());
            // Without a file nothing is known about what it holds.
            if self.from_file && TaskSettings::is_from_file(&task.spec.userdata) && !listed {
                handle.delete_task(task.id()).await?;
                changes.removed.push(task.id().to_string());
            }
        }
        let now = Clock::system().now();
        for task in &self.settings.tasks {
            let zone = task.timezone().unwrap_or(self.settings.timezone);
            let cx = Context { zone, anchor: now, key: task.id().as_str() };
            if task.trigger().check(now, &cx).is_err() {
                // Its time was before the service started, and a task that is still there has its
                // last run ahead of it.
                changes.over.push(task.id().to_string());
                continue;
            }
            let warnings = task.trigger().warnings(&cx);
            changes.warnings.extend(warnings.iter().map(|warning| format!("task {}: {warning}", task.id())));
            handle.add(task.task()).await.map_err(|error| {
                let failure = Failure::from(error);
                let problem = task.problem(failure.message);
                Failure::new(failure.exit, self.settings.refuse(vec![problem]))
            })?;
        }
        changes.tasks = handle.tasks(TaskQuery::new()).await?.len();
        changes.kept = stored.len() - changes.removed.len();
        Ok(changes)
    }

    fn say(&mut self, dir: &Path, socket: &Path, changes: &Changes) {
        let Changes { tasks, kept, removed, over, warnings } = changes;
        let version = env!("CARGO_PKG_VERSION");
        self.show.json(&json!({
            "event": "service_started", "version": version, "data": dir, "socket": socket,
            "config": self.settings.origin, "tasks": tasks, "kept": kept, "removed": removed, "over": over,
            "warnings": warnings,
        }));
        let show = &mut self.show;
        show.text(format!(
            "callboard {version}: {tasks} tasks ({kept} of them kept from before), data in {}",
            dir.display()
        ));
        show.text(format!("configuration: {}; control socket: {}", self.settings.origin, socket.display()));
        if !removed.is_empty() {
            show.text(format!("removed, because they left the configuration: {}", removed.join(", ")));
        }
        if !over.is_empty() {
            show.text(format!("not added, because their time is over: {}", over.join(", ")));
        }
        warnings.iter().for_each(|warning| show.text(format!("warning: {warning}")));
        show.text("running; Ctrl-C ends it".to_owned());
    }

    /// Prints events until `until` ends (true) or there are no more (false).
    async fn watch(&mut self, events: &mut EventStream, mut until: impl Future<Output = ()> + Unpin) -> bool {
        let mut lagged = 0;
        loop {
            match select(&mut until, events.next()).await {
                Either::Left(_) => return true,
                Either::Right((None, _)) => return false,
                Either::Right((Some(event), _)) => self.show.event(&event),
            }
            if events.lagged() > lagged {
                out::note(&format!("{} events came too fast to be shown", events.lagged() - lagged));
                lagged = events.lagged();
            }
        }
    }

    async fn shut_down(
        &mut self,
        handle: Handle,
        mut events: EventStream,
        mut signals: Signals,
    ) -> Result<(), Failure> {
        let grace = self.settings.grace;
        self.show.text(format!(
            "stopping; runs have {} to end (a second signal stops at once)",
            humantime::format_duration(grace)
        ));
        let mut cut_off = 0;
        let mut shutdown = Box::pin(handle.shutdown(Shutdown::wait(grace)));
        let mut again = Box::pin(signals.again());
        let result = loop {
            let interrupted = select(&mut again, events.next());
            match select(&mut shutdown, interrupted).await {
                Either::Left((result, _)) => break result,
                Either::Right((Either::Left(_), _)) => {
                    return Err(Failure::new(Exit::CutOff, "stopped at once; runs were cut off"));
                }
                Either::Right((Either::Right((Some(event), _)), _)) => {
                    cut_off += usize::from(matches!(event, Event::TaskInterrupted(_)));
                    self.show.event(&event);
                }
                Either::Right((Either::Right((None, _)), _)) => break shutdown.await,
            }
        };
        // What happened during the last moments is on its way.
        while let Some(Some(event)) = events.next().now_or_never() {
            cut_off += usize::from(matches!(event, Event::TaskInterrupted(_)));
            self.show.event(&event);
        }
        result?;
        if cut_off > 0 {
            return Err(Failure::new(
                Exit::CutOff,
                format!("stopped; {cut_off} runs were cut off after the grace"),
            ));
        }
        self.show.text("stopped".to_owned());
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Changes {
    tasks: usize,
    kept: usize,
    removed: Vec<String>,
    over: Vec<String>,
    warnings: Vec<String>,
}
