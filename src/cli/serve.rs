//! `serve`: the service in the foreground.

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures::future::{Either, select};
use futures::{FutureExt, StreamExt};
use serde_json::json;

use super::args::Serve;
use super::control::Control;
use super::exit::{Exit, Failure};
use super::handlers::Inherited;
use super::hold::Hold;
use super::registration::{Changes, LeftOut, Registration};
use super::show::Show;
use super::signals::Signals;
use super::{data, handlers, limits, means, out};
use crate::clock::Clock;
use crate::config::{ConfigError, Settings, TaskSettings};
use crate::event::{Event, EventMask, EventStream};
use crate::scheduler::{Builder, Handle, Shutdown};
use crate::task::Alias;
use crate::timer;

pub(super) fn run(args: Serve, umask: Option<u32>) -> Result<(), Failure> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |error: std::io::Error| Failure::new(Exit::Starved, format!("cannot {what}: {error}"))
    };
    log();
    let settings = settings(&args)?;
    let nofile = limits::raise_nofile();
    means::check(settings.stores.values().filter(|store| store.path(&args.data).is_some()).count())?;
    out::never_wait_for_stderr().map_err(failed("start a thread"))?;
    let signals = Signals::listen().map_err(failed("listen for signals"))?;
    let warnings = data::create(&args.data, args.trust_data)?;
    for store in settings.stores.values().filter_map(|store| store.path(&args.data)) {
        data::check_owner(&store, args.trust_data)?;
    }
    warnings.iter().for_each(|warning| out::note(warning));
    let socket = data::socket(&args.data)?;
    let hold = Hold::take(&args.data, args.trust_data)?;
    let show = Show::new(args.json, settings.timezone).map_err(failed("start a thread"))?;
    let mut service = Service {
        settings: Rc::new(settings),
        show,
        from_file: args.config.is_some(),
        nofile,
        umask,
        strict: args.strict,
        unreadable: BTreeMap::new(),
        news: false,
    };
    let builder = service.builder(&args.data)?;
    let place = Place { dir: &args.data, socket: &socket, hold: &hold };
    let result = actix_rt::System::new().block_on(service.run(place, signals, builder));
    service.show.finish();
    result
}

const QUIET: &str = "warn,callboard::scheduler::ends=off,callboard::scheduler::stores=off,callboard::scheduler::executors=off,callboard::scheduler::heir=off,\
     callboard::scheduler::lifecycle=off,callboard::scheduler::add=off,rustls_platform_verifier=off,sled=off";

/// Logs go to standard error; `CALLBOARD_LOG` says how much of them (`info`, `callboard=debug`, …).
/// By default warnings, except those that have a line of their own already.
fn log() {
    let wanted = std::env::var("CALLBOARD_LOG").unwrap_or_else(|_| QUIET.to_owned());
    let filter = tracing_subscriber::EnvFilter::builder().parse_lossy(wanted);
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| out::LogWriter)
        .with_ansi(false)
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
    // A handler that is missing is the trouble of its task; arguments that cannot be are bad syntax.
    let known = settings.tasks.iter().filter(|task| handlers::NAMES.contains(&task.handler()));
    let problems: Vec<_> = known.filter_map(check).collect();
    if !problems.is_empty() {
        return Err(invalid(settings.refuse(problems)));
    }
    if let Some(grace) = args.grace {
        settings.grace = grace;
    }
    let zones = super::time::set_rules(&settings.timezones)
        .map_err(|error| Failure::new(Exit::Invalid, format!("timezones: {error}")))?;
    tracing::info!("time zones: {}", crate::timezones::named(&zones));
    Ok(settings)
}

struct Service {
    settings: Rc<Settings>,
    show: Show,
    /// Whether the settings come from a file.
    from_file: bool,
    /// How many open files commands may have, where that is another number than the service's.
    nofile: Option<u64>,
    /// The mask of what commands make, where that is another one than the service's.
    umask: Option<u32>,
    /// Whether anything that is left out is a reason not to start.
    strict: bool,
    /// The tasks whose records cannot be read, and where these are.
    unreadable: BTreeMap<String, Alias>,
    /// Whether something has happened that lets what was left out be registered.
    news: bool,
}

/// What ended a wait.
enum Woken {
    Signal,
    /// There are no more events.
    Ended,
    /// Something that was left out may be registered.
    News,
}

/// Where the service has its things.
struct Place<'a> {
    dir: &'a Path,
    socket: &'a Path,
    hold: &'a Hold,
}

/// Reads again what may have changed whenever the program is told to, for as long as it lives.
struct Reloads(actix_rt::task::JoinHandle<()>);

impl Reloads {
    fn begin(handle: Handle, mut signals: Signals) -> Self {
        Self(actix_rt::spawn(async move {
            while signals.hang_up().await {
                match handle.reload_timezones().await {
                    Ok(rules) => out::note(&format!("SIGHUP: the rules of time zones in force are {rules}")),
                    Err(error) => {
                        out::note(&format!("SIGHUP: the rules of time zones in force stay: {error}"))
                    }
                }
            }
        }))
    }
}

impl Drop for Reloads {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How long a shutdown may take beyond its grace, for runs to be ended and stores to be closed.
const MARGIN: Duration = Duration::from_secs(10);

impl Service {
    async fn run(&mut self, place: Place<'_>, mut signals: Signals, builder: Builder) -> Result<(), Failure> {
        let handle = builder.strict(self.strict).build()?;
        let mut events = handle.events(EventMask::ALL).await?;
        let _reloads = Reloads::begin(handle.clone(), signals.clone());
        // Paused until no task runs that has left the configuration.
        let started = handle.start_paused();
        let Some(started) = self.meanwhile(&mut events, &mut signals, started).await else {
            self.show.text("stopped before anything had begun".to_owned());
            return Ok(());
        };
        started?;
        let control = Control::open(place.socket, place.hold, handle.clone(), self.settings.timezone)?;
        let mut registration = Registration::new(handle.clone(), self.settings.clone(), self.from_file);
        let registered = self.register(&place, &mut registration, &handle, &mut events, &mut signals).await;
        let ended = match registered {
            Ok(Some(())) => self.watch(&mut registration, &mut events, &mut signals).await,
            // Whatever is not registered yet is at the next start.
            Ok(None) => Ok(true),
            Err(failure) => {
                drop(control);
                handle.shutdown(Shutdown::now()).await?;
                return Err(failure);
            }
        };
        drop(control);
        if !ended? {
            return Err(Failure::new(
                Exit::Failed,
                "the scheduler has ended by itself; CALLBOARD_LOG=debug says more",
            ));
        }
        self.shut_down(handle, events, signals).await
    }

    fn builder(&mut self, dir: &Path) -> Result<Builder, Failure> {
        for (handler, runs) in limits::runs_at_once() {
            Rc::make_mut(&mut self.settings).limit_handler(handler, runs);
        }
        let inherited = Inherited::new(self.settings.secret_variables(), self.nofile, self.umask);
        let mut for_workers: Vec<_> =
            self.nofile.iter().map(|limit| (limits::NOFILE, limit.to_string())).collect();
        for_workers.extend(self.umask.map(|mask| (limits::UMASK, mask.to_string())));
        let registry = handlers::registry(inherited);
        let builder = self.settings.builder_with(dir, &for_workers)?.registry(registry);
        // One and the same set of rules for what is planned and what is shown.
        Ok(builder.timezones_read(self.settings.timezones.clone(), super::time::rules()))
    }

    /// Makes the tasks those of the configuration, and lets them run; `None` when a signal came first.
    async fn register(
        &mut self,
        place: &Place<'_>,
        registration: &mut Registration,
        handle: &Handle,
        events: &mut EventStream,
        signals: &mut Signals,
    ) -> Result<Option<()>, Failure> {
        // Whatever the stores have told by now is in the stream when this is answered.
        handle.status().await?;
        let unreadable = self.unreadable(events);
        let prepared = registration.prepare(&unreadable);
        let Some(prepared) = self.meanwhile(events, signals, prepared).await else { return Ok(None) };
        let (mut changes, add) = prepared?;
        let mut left_out = Vec::new();
        if self.strict {
            let Some(missing) = self.meanwhile(events, signals, registration.add(add)).await else {
                return Ok(None);
            };
            changes.left_out.extend(missing.left_out);
            changes.strictly(&self.settings)?;
            self.say(place, &changes);
            handle.resume().await?;
        } else {
            self.say(place, &changes);
            handle.resume().await?;
            let Some(missing) = self.meanwhile(events, signals, registration.add(add)).await else {
                return Ok(None);
            };
            left_out = missing.left_out;
        }
        self.say_left_out(&left_out);
        self.show.json(
            &json!({ "event": "tasks_registered", "left_out": left_out.len() + changes.left_out.len() }),
        );
        self.show.text("running; Ctrl-C ends it".to_owned());
        Ok(Some(()))
    }

    /// Does `work` and shows events meanwhile; `None` when a signal came first.
    async fn meanwhile<T>(
        &mut self,
        events: &mut EventStream,
        signals: &mut Signals,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let (mut work, mut signal) = (pin!(work), pin!(signals.stop()));
        loop {
            match select(select(&mut signal, &mut work), events.next()).await {
                Either::Left((Either::Left(_), _)) => return None,
                Either::Left((Either::Right((done, _)), _)) => return Some(done),
                Either::Right((Some(event), _)) => self.event(&event),
                // Without a scheduler the work is answered with an error.
                Either::Right((None, _)) => match select(&mut signal, &mut work).await {
                    Either::Left(_) => return None,
                    Either::Right((done, _)) => return Some(done),
                },
            }
        }
    }

    /// The tasks that cannot be read, as far as has been told.
    fn unreadable(&mut self, events: &mut EventStream) -> BTreeMap<String, Alias> {
        while let Some(Some(event)) = events.next().now_or_never() {
            self.event(&event);
        }
        self.unreadable.clone()
    }

    /// Shows an event, and takes note of what lets a task be registered that could not be before.
    fn event(&mut self, event: &Event) {
        match event {
            Event::RecordUnreadable { store, id, .. } => {
                self.unreadable.insert(id.clone(), store.clone());
            }
            Event::RecordReadable { id, .. } => {
                self.unreadable.remove(id);
                self.news = true;
            }
            Event::TimezonesChanged { rules, .. } => super::time::use_rules(rules.clone()),
            Event::StoreRecovered { .. } | Event::SchedulerRestarted { .. } => self.news = true,
            _ => {}
        }
        self.show.event(event);
    }

    fn say(&mut self, place: &Place<'_>, changes: &Changes) {
        let Place { dir, socket, .. } = place;
        let Changes { tasks, kept, removed, moved, over, ignored, spread, waiting, warnings, left_out } =
            changes;
        let version = env!("CARGO_PKG_VERSION");
        let zones = super::time::rules();
        self.show.json(&json!({
            "event": "service_started", "version": version, "data": dir, "socket": socket,
            "config": self.settings.origin,
            "timezones": { "source": zones.source(), "version": zones.version() }, "tasks": tasks, "kept": kept, "removed": removed, "moved": moved,
            "over": over, "ignored": ignored, "spread": spread, "waiting": waiting, "warnings": warnings,
        }));
        let show = &mut self.show;
        show.text(format!(
            "callboard {version}: {tasks} tasks ({kept} of them kept from before), data in {}",
            dir.display()
        ));
        show.text(format!("configuration: {}; control socket: {}", self.settings.origin, socket.display()));
        show.text(format!("time zones: {}", crate::timezones::named(&zones)));
        self.say_changes(changes);
        if !over.is_empty() {
            self.show.text(format!("not added, because their time is over: {}", over.join(", ")));
        }
        if *spread > 0 {
            self.show.text(format!(
                "{spread} tasks run first at places of their own within their intervals (`spread`)"
            ));
        }
        warnings.iter().for_each(|warning| self.show.text(format!("warning: {warning}")));
        self.say_left_out(left_out);
    }

    fn say_changes(&mut self, Changes { removed, moved, ignored, waiting, .. }: &Changes) {
        let show = &mut self.show;
        if !removed.is_empty() {
            show.text(format!("removed, because they left the configuration: {}", removed.join(", ")));
        }
        moved.iter().chain(ignored).for_each(|line| show.text(line.clone()));
        for (store, tasks) in waiting {
            show.text(format!("store {store} is down; {tasks} tasks of the configuration wait for it"));
        }
    }

    fn say_left_out(&mut self, left_out: &[LeftOut]) {
        for LeftOut { id, problem, .. } in left_out {
            let error = self.settings.refuse(vec![problem.clone()]);
            self.show.json(&json!({
                "event": "task_left_out", "id": id, "line": problem.line, "problem": problem.message,
            }));
            self.show.text(format!("left out: {error}"));
        }
    }

    /// Prints events until a signal comes (true) or there are no more (false), and registers what could
    /// not be before.
    async fn watch(
        &mut self,
        registration: &mut Registration,
        events: &mut EventStream,
        signals: &mut Signals,
    ) -> Result<bool, Failure> {
        loop {
            match self.woken(registration.is_incomplete(), events, signals).await {
                Woken::Signal => return Ok(true),
                Woken::Ended => return Ok(false),
                Woken::News => {}
            }
            self.news = false;
            let unreadable = self.unreadable.clone();
            let Some(again) = self.meanwhile(events, signals, registration.again(&unreadable)).await else {
                return Ok(true);
            };
            match again {
                Ok(changes) if changes.is_empty() => {}
                Ok(changes) => {
                    self.say_changes(&changes);
                    self.say_left_out(&changes.left_out);
                }
                // The next news is another chance.
                Err(failure) => out::note(&failure.message),
            }
        }
    }

    /// Prints events until something else is to be done.
    async fn woken(&mut self, incomplete: bool, events: &mut EventStream, signals: &mut Signals) -> Woken {
        let mut signal = pin!(signals.stop());
        let mut lagged = events.lagged();
        while !(self.news && incomplete) {
            match select(&mut signal, events.next()).await {
                Either::Left(_) => return Woken::Signal,
                Either::Right((None, _)) => return Woken::Ended,
                Either::Right((Some(event), _)) => self.event(&event),
            }
            if events.lagged() > lagged {
                out::note(&format!("{} events came too fast to be shown", events.lagged() - lagged));
                lagged = events.lagged();
                // One that counts may be among them.
                self.news = true;
            }
        }
        Woken::News
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
        let limit = timer::sleep_as_limit(&Clock::system(), grace.saturating_add(MARGIN));
        let mut shutdown = Box::pin(handle.shutdown(Shutdown::wait(grace)));
        let mut enough = select(Box::pin(signals.stop_at_once()), Box::pin(limit));
        let result = loop {
            let interrupted = select(&mut enough, events.next());
            match select(&mut shutdown, interrupted).await {
                Either::Left((result, _)) => break result,
                Either::Right((Either::Left((Either::Left(_), _)), _)) => {
                    return Err(Failure::new(Exit::CutOff, "stopped at once; runs were cut off"));
                }
                Either::Right((Either::Left((Either::Right(_), _)), _)) => {
                    let message = "stopped; something did not end after the grace and was cut off";
                    return Err(Failure::new(Exit::CutOff, message));
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

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rustix::process::{Signal, getpid, kill_process};

    use super::*;
    use crate::cli::client::ask;
    use crate::cli::protocol::Request;
    use crate::task::{Registry, SortKey, TaskContext};

    /// Runs that never yield, on every arbiter of the executor.
    const WEDGED: &str = "
        [scheduler]
        grace = '200ms'
        [store.default]
        type = 'memory'
        [defaults]
        max_instances = 100
        overlap = 'allow'
        [task.wedge]
        every = '5ms'
        handler = 'wedge'
    ";

    #[test]
    fn control_and_signals_share_no_thread_with_runs() {
        let dir = tempfile::TempDir::new().unwrap();
        let data = dir.path().to_owned();
        let socket = data::socket(&data).unwrap();
        let (begun, beginning) = std::sync::mpsc::channel();
        let ended = std::thread::spawn({
            let data = data.clone();
            move || {
                let registry =
                    Registry::new().register("wedge", move |_: TaskContext, _: serde_json::Value| {
                        let begun = begun.clone();
                        async move {
                            while begun.send(()).is_ok() {
                                std::thread::park();
                            }
                        }
                    });
                let settings = Settings::from_toml(WEDGED, "the test").unwrap();
                let builder = settings.builder(&data).unwrap().registry(registry);
                let show = Show::new(false, settings.timezone).unwrap();
                let hold = Hold::take(&data, false).unwrap();
                let place = Place { dir: &data, socket: &socket, hold: &hold };
                let mut service = Service {
                    settings: Rc::new(settings),
                    show,
                    from_file: true,
                    nofile: None,
                    umask: None,
                    strict: false,
                    unreadable: BTreeMap::new(),
                    news: false,
                };
                let signals = Signals::listen().unwrap();
                actix_rt::System::new().block_on(service.run(place, signals, builder))
            }
        });
        beginning.recv_timeout(Duration::from_secs(30)).unwrap();
        let list = || Request::List { text: None, state: None, sort: SortKey::Id, descending: false };
        assert_eq!(ask(&data, list()).unwrap()["tasks"][0]["id"], "wedge");
        let begin = Instant::now();
        kill_process(getpid(), Signal::TERM).unwrap();
        let result = ended.join().unwrap();
        assert!(begin.elapsed() < MARGIN + Duration::from_secs(10), "{:?}", begin.elapsed());
        assert_eq!(result.unwrap_err().exit, Exit::CutOff);
    }
}
