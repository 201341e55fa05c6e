//! One task as settings describe it: a `[task.ID]` table, or the JSON that `callboard add` sends.

use chrono::DateTime;
use serde_json::{Value as Json, json};

use super::options::{self, Clocks};
use super::value::{Kind, Problems, Section, Value};
use super::{ALIAS, ConfigError, Problem, Settings, ZONE};
use crate::task::{Alias, Task, TaskError, TaskId, TaskInfo, TaskSpec, WhenFinished};
use crate::trigger::{
    Context, Crontab, Date, Interval, IntoTrigger, Moment, Trigger, TriggerError, Zone, Zones,
};

/// A task as settings describe it, checked as far as it can be without a scheduler: whether the
/// handler exists and takes the arguments is for whoever has the handlers.
#[derive(Debug, Clone)]
pub struct TaskSettings {
    id: TaskId,
    key: String,
    line: Option<usize>,
    handler: String,
    args: Json,
    pub(super) trigger: Trigger,
    timezone: Option<Zone>,
    /// Of what counts only while it is not there yet, what the file says.
    said: Vec<&'static str>,
    /// Whether its interval is spread, where it says so.
    pub(super) spread: Option<bool>,
    pub(super) task: Task,
}

impl TaskSettings {
    /// The task's id.
    pub fn id(&self) -> &TaskId {
        &self.id
    }

    /// The handler's name.
    pub fn handler(&self) -> &str {
        &self.handler
    }

    /// What the handler is given.
    pub fn args(&self) -> &Json {
        &self.args
    }

    /// When it runs.
    pub fn trigger(&self) -> &Trigger {
        &self.trigger
    }

    /// The zone the task names itself.
    pub fn timezone(&self) -> Option<Zone> {
        self.timezone
    }

    /// The task, ready to be added. One from a file replaces the one of its id.
    pub fn task(&self) -> Task {
        self.task.clone()
    }

    /// Something that is wrong with this task.
    pub fn problem(&self, message: impl Into<String>) -> Problem {
        Problem { line: self.line, key: self.key.clone(), message: message.into() }
    }

    /// The store it names, or that of the settings.
    #[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "the program asks for it"))]
    pub(crate) fn store(&self, settings: &Settings) -> Alias {
        self.task.store.clone().unwrap_or_else(|| settings.defaults.store.clone())
    }

    /// The task with every option decided.
    #[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "the program asks for it"))]
    pub(crate) fn spec(&self, settings: &Settings) -> Result<TaskSpec, TaskError> {
        self.task.clone().resolve(&settings.defaults, settings.timezone)
    }

    /// Whether it has no run ahead of it that it could be added for, by these rules of time zones.
    #[cfg(feature = "cli")]
    pub(crate) fn is_over(&self, settings: &Settings, now: DateTime<chrono::Utc>, zones: &Zones) -> bool {
        self.spec(settings).is_ok_and(|spec| crate::scheduler::is_over(spec, now, zones))
    }

    /// What a task from a file says that counts only while it is not there yet, or not at all, and has
    /// not been said before: the notes for people. `before` is the userdata of the task that is there,
    /// if any.
    #[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "the program asks for it"))]
    pub(crate) fn unheeded(&self, before: Option<&TaskInfo>) -> Vec<String> {
        let id = &self.id;
        let says = |key| self.said.contains(&key);
        let said = |info: &TaskInfo, key: &str| info.spec.userdata["callboard"][key] == true;
        let mut notes = Vec::new();
        if says(WHEN_FINISHED) && !before.is_some_and(|info| said(info, WHEN_FINISHED)) {
            notes.push(format!(
                "task {id}: when_finished = \"remove\" waits until it leaves the configuration: a task that \
                 stands there is remembered as finished, or it would run again at each start"
            ));
        }
        let Some(info) = before else { return notes };
        if says(PAUSED) && !said(info, PAUSED) && !info.state.paused {
            notes.push(format!(
                "task {id}: paused = true is ignored: it says how a task is added, and this one is there and \
                 runs on; `callboard pause {id}` pauses it"
            ));
        }
        if said(info, PAUSED) && !says(PAUSED) && info.state.paused {
            notes.push(format!(
                "task {id}: it stays paused, although the configuration says so no longer; `callboard resume \
                 {id}` lets it run"
            ));
        }
        if says(FIRST_RUN_NOW) && !said(info, FIRST_RUN_NOW) {
            notes.push(format!(
                "task {id}: first_run_now = true is ignored: it says how a task is added, and this one is \
                 there; `callboard run {id}` runs it once"
            ));
        }
        notes
    }

    /// Whether userdata belongs to a task that came from a file: such a task goes when it leaves
    /// the file, and others stay.
    pub fn is_from_file(userdata: &Json) -> bool {
        userdata["callboard"]["from"] == "config"
    }

    /// Reads one task from JSON with the keys of a `[task.ID]` table, and `id` and `replace`. A time
    /// without an offset is read in the task's zone, which has to be named then, by the rules that are
    /// compiled in.
    pub fn from_json(json: Json) -> Result<Self, ConfigError> {
        Self::from_json_in(json, None, Zones::bundled())
    }

    /// The same where times without an offset are read by `zones`, and in `zone` unless the task names
    /// one.
    pub fn from_json_in(json: Json, zone: Option<Zone>, zones: &Zones) -> Result<Self, ConfigError> {
        let problems = Problems::default();
        let read = |value: Value| {
            let mut section = Section::new("task", value, &problems)?;
            let id = section.text("id");
            let replace = section.flag("replace").unwrap_or(false);
            let mut task = Self::read(id.as_deref().unwrap_or_default(), section, (zone, zones), false)?;
            task.task = task.task.replace_existing(replace);
            Some(task)
        };
        let task = read(
            Value::from_json(json).unwrap_or(Value { kind: Kind::Table(Default::default()), line: None }),
        );
        let problems = problems.into_vec();
        match task {
            Some(task) if problems.is_empty() => Ok(task),
            _ => Err(ConfigError { origin: "the new task".to_owned(), problems }),
        }
    }

    /// Whether its store and executor are there is a matter of each start: what one task lacks keeps
    /// no other from running.
    pub(super) fn from_file(
        id: &str,
        section: Section<'_>,
        settings: &Settings,
        zones: &Zones,
    ) -> Option<Self> {
        Self::read(id, section, (Some(settings.timezone), zones), true).map(|mut task| {
            // A schedule that has ended is remembered for as long as the task stands in the file:
            // otherwise it would be taken for new at the next start, and run again.
            task.task = task.task.replace_existing(true).when_finished(WhenFinished::Keep);
            task
        })
    }

    /// `zone` is for times without an offset, in tasks without a zone; `zones` are the rules by which
    /// they are read.
    fn read(
        id: &str,
        mut section: Section<'_>,
        (zone, zones): (Option<Zone>, &Zones),
        from_file: bool,
    ) -> Option<Self> {
        let key = section.path().to_owned();
        let line = section.line;
        let id_ok = match TaskId::new(id) {
            Ok(id) => Some(id),
            Err(error) => {
                section.problem(None, "", error.to_string());
                None
            }
        };
        let trigger = trigger(&mut section);
        let what = what(&mut section);
        let timezone: Option<Zone> = section.parsed("timezone", ZONE);
        let mut task = Task::new(what.as_ref().map_or("", |(handler, _)| handler));
        if let Some(zone) = timezone {
            task = task.timezone(zone);
        }
        if let Some(alias) = section.parsed::<Alias>("store", ALIAS) {
            task = task.store(&alias);
        }
        let options = options::options(&mut section, Clocks { zone: timezone.or(zone), zones });
        let removes = options.when_finished == Some(WhenFinished::Remove);
        task = task.set(options);
        if section.flag("first_run_now").unwrap_or(false) {
            task = task.first_run_now();
        }
        task = task.paused(section.flag("paused").unwrap_or(false));
        let spread = section.flag("spread");
        task = task.spread(spread.unwrap_or(false));
        let said =
            [(PAUSED, task.paused), (FIRST_RUN_NOW, task.first_run.is_some()), (WHEN_FINISHED, removes)];
        let said: Vec<_> = said.into_iter().filter_map(|(key, said)| said.then_some(key)).collect();
        task = task.userdata(userdata(&mut section, from_file.then_some(&said)));

        // From the beginning of time, so that a date that has passed is no mistake in a file: only
        // what could never fire is.
        if let Some(trigger) = &trigger {
            let epoch = DateTime::UNIX_EPOCH;
            let cx = Context::new(timezone.or(zone).unwrap_or(Zone::UTC), epoch, id).with_zones(zones);
            if let Err(error) = trigger.check(epoch, &cx) {
                section.problem(None, "", error.to_string());
            }
        }
        section.finish();
        let (id, trigger, (handler, args)) = (id_ok?, trigger?, what?);
        task = task.id(&id).args(&args).trigger(trigger.clone());
        Some(Self { id, key, line, handler, args, trigger, timezone, said, spread, task })
    }
}

/// What the userdata of a task from a file remembers of what the file said, so that it is told once
/// that it is ignored.
const PAUSED: &str = "paused";
const FIRST_RUN_NOW: &str = "first_run_now";
const WHEN_FINISHED: &str = "when_finished_remove";

/// When: exactly one of `cron`, `every`, `at`, `trigger`.
fn trigger(section: &mut Section<'_>) -> Option<Trigger> {
    const KEYS: [&str; 4] = ["cron", "every", "at", "trigger"];
    section.note_known(&KEYS);
    let given: Vec<&'static str> = KEYS.into_iter().filter(|key| section.peek(key).is_some()).collect();
    let [key] = given[..] else {
        let forms = "`cron = \"0 3 * * *\"`, `every = \"5m\"`, `at = \"2027-01-01T08:00:00\"` or `trigger = { type = … }`";
        section.problem(
            None,
            "",
            match given.is_empty() {
                true => format!("says not when it runs; give it {forms}"),
                false => format!("has {}; it can have only one of them", given.join(" and ")),
            },
        );
        given.into_iter().for_each(|key| drop(section.take(key)));
        return None;
    };
    let line = section.peek(key).and_then(|(_, line)| line);
    let trigger = match key {
        "cron" => Crontab::builder(section.text(key)?).into_trigger(),
        "every" => Interval::every(section.duration(key)?).into_trigger(),
        "at" => section.moment(key)?.parse::<Moment>().map(Date::at).into_trigger(),
        _ => match section.take(key)? {
            Value { kind: Kind::Text(text), .. } => text.parse(),
            table => serde_json::from_value(table.into_json()).map_err(|error| TriggerError::Invalid {
                field: "trigger".to_owned(),
                reason: error.to_string(),
            }),
        },
    };
    // What is stored is read as it is; what is said anew has to be as long as a trigger may be.
    let trigger = trigger.and_then(|trigger| trigger.check_lengths().map(|()| trigger));
    trigger.map_err(|error| section.problem(line, key, said(key, &error))).ok()
}

/// The error without a field that repeats the key.
fn said(key: &str, error: &TriggerError) -> String {
    let text = error.to_string();
    text.strip_prefix(&format!("{key}: ")).map_or(text.clone(), str::to_owned)
}

/// What: exactly one of `shell`, `http`, `handler` (with `args`).
fn what(section: &mut Section<'_>) -> Option<(String, Json)> {
    let shell = section.take("shell");
    let http = section.take("http");
    let handler = section.text("handler");
    let args = section.take("args");
    if args.is_some() && handler.is_none() {
        section.problem(None, "args", "belongs to `handler`; `shell` and `http` are tables of their own");
    }
    match (shell, http, handler) {
        (Some(shell), None, None) => {
            let args = match shell.kind {
                Kind::Text(command) => json!({ "command": command }),
                _ => shell.into_json(),
            };
            Some(("shell".to_owned(), args))
        }
        (None, Some(http), None) => {
            let args = match http.kind {
                Kind::Text(text) => match text.trim().split_once(char::is_whitespace) {
                    Some((method, url)) => json!({ "method": method, "url": url.trim() }),
                    None => json!({ "url": text.trim() }),
                },
                _ => http.into_json(),
            };
            Some(("http".to_owned(), args))
        }
        (None, None, Some(handler)) => Some((handler, args.map_or(Json::Null, Value::into_json))),
        (None, None, None) => {
            const KEYS: &str = "`shell = \"…\"`, `http = \"https://…\"` or `handler = \"…\"`";
            section.problem(None, "", format!("says not what it does; give it {KEYS}"));
            None
        }
        _ => {
            section.problem(None, "", "has more than one of shell, http and handler; it can have only one");
            None
        }
    }
}

/// `said`: what is remembered of a file, if it comes from one.
fn userdata(section: &mut Section<'_>, said: Option<&Vec<&'static str>>) -> Json {
    let value = section.take("userdata");
    let Some(said) = said else { return value.map_or(Json::Null, Value::into_json) };
    let line = value.as_ref().and_then(|value| value.line);
    let mut userdata = match value.map(Value::into_json) {
        None => Json::Object(Default::default()),
        Some(Json::Object(object)) => Json::Object(object),
        Some(_) => {
            section.problem(line, "userdata", "must be a table");
            return Json::Null;
        }
    };
    userdata["callboard"] = json!({ "from": "config" });
    said.iter().for_each(|key| userdata["callboard"][*key] = true.into());
    userdata
}
