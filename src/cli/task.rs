//! The commands that talk to a running service.

use serde_json::{Map, Value, json};

use super::args::{Add, Backfill, Control, List, One, Reschedule, Run, Sort, State, Why};
use super::client::ask;
use super::exit::{Exit, Failure};
use super::protocol::Request;
use super::{handlers, out, render, time};
use crate::clock::Clock;
use crate::config::TaskSettings;
use crate::task::{ScheduleState, SortKey, TaskId};
use crate::trigger::Zone;

pub(super) fn run(command: Control) -> Result<(), Failure> {
    match command {
        Control::List(list) => self::list(list),
        Control::Inspect(one) => {
            let answer = ask(&one.common.data, Request::Inspect { id: checked(&one)? })?;
            let json = one.common.json;
            print(json, &answer, || render::inspect(&answer, Clock::system().now()));
            Ok(())
        }
        Control::Why(why) => self::why(why),
        Control::Pause(one) => change(one, |id| Request::Pause { id }, "paused"),
        Control::Resume(one) => change(one, |id| Request::Resume { id }, "resumed"),
        Control::Reschedule(Reschedule { id, next_run, timezone, common }) => {
            change(One { id, common }, |id| Request::Reschedule { id, next_run, timezone }, "rescheduled")
        }
        Control::Remove(one) => change(one, |id| Request::Remove { id }, "removed"),
        Control::Run(Run { one, only_if_due, beyond_max_instances }) => {
            let id = checked(&one)?;
            let request = Request::Run { id: id.clone(), only_if_due, beyond_max_instances };
            let answer = ask(&one.common.data, request)?;
            print(one.common.json, &answer, || {
                vec![format!("{id} runs now, as run {}", answer["run"].as_str().unwrap_or("?"))]
            });
            Ok(())
        }
        Control::Cancel(cancel) => {
            let answer = ask(&cancel.common.data, Request::Cancel { run: cancel.run.clone() })?;
            print(cancel.common.json, &answer, || vec![format!("run {} was asked to stop", cancel.run)]);
            Ok(())
        }
        Control::Backfill(backfill) => self::backfill(backfill),
        Control::Add(add) => self::add(*add),
    }
}

fn print(json: bool, answer: &Value, text: impl FnOnce() -> Vec<String>) {
    if json {
        out::json(answer);
    } else {
        text().iter().for_each(|line| out::line(line));
    }
}

/// Refuses what cannot be an id before anybody is asked.
fn checked(one: &One) -> Result<String, Failure> {
    id(&one.id)
}

fn id(text: &str) -> Result<String, Failure> {
    TaskId::new(text).map(|_| text.to_owned()).map_err(invalid)
}

fn why(Why { id, from, to, timezone, limit, common }: Why) -> Result<(), Failure> {
    let request = Request::Why { id: self::id(&id)?, from, to, timezone, limit };
    let answer = ask(&common.data, request)?;
    print(common.json, &answer, || render::why(&answer));
    Ok(())
}

fn change(one: One, request: impl FnOnce(String) -> Request, done: &str) -> Result<(), Failure> {
    let id = checked(&one)?;
    let answer = ask(&one.common.data, request(id.clone()))?;
    print(one.common.json, &answer, || vec![render::changed(&id, done, &answer, Clock::system().now())]);
    Ok(())
}

fn backfill(backfill: Backfill) -> Result<(), Failure> {
    let Backfill { id, from, to, every, timezone, common, .. } = backfill;
    TaskId::new(&id).map_err(invalid)?;
    let (Some(from), Some(to)) = (from, to) else {
        let answer = ask(&common.data, Request::CancelBackfill { id: id.clone() })?;
        print(common.json, &answer, || vec![format!("the back-fill of {id} was called off")]);
        return Ok(());
    };
    let every = u64::try_from(every.as_millis()).unwrap_or(u64::MAX);
    let answer = ask(&common.data, Request::Backfill { id: id.clone(), from, to, every, timezone })?;
    print(common.json, &answer, || {
        let next = answer["task"]["backfill"]["next"].as_str().and_then(|next| next.parse().ok());
        let zone = answer["timezone"].as_str().and_then(|zone| zone.parse().ok()).unwrap_or(Zone::UTC);
        let next = next.map_or_else(|| "?".to_owned(), |next| time::shown(next, zone));
        vec![format!("{id} is being back-filled, beginning with the run of {next}")]
    });
    Ok(())
}

fn list(list: List) -> Result<(), Failure> {
    let request = Request::List {
        text: list.text,
        state: list.state.map(|state| match state {
            State::Paused => ScheduleState::Paused,
            State::Scheduled => ScheduleState::Scheduled,
            State::Finished => ScheduleState::Finished,
        }),
        sort: match list.sort {
            Sort::Next => SortKey::NextRunTime,
            Sort::Id => SortKey::Id,
            Sort::Name => SortKey::Name,
            Sort::State => SortKey::ScheduleState,
            Sort::Executor => SortKey::Executor,
            Sort::Store => SortKey::Store,
            Sort::Trigger => SortKey::Trigger,
        },
        descending: list.descending,
    };
    let answer = ask(&list.common.data, request)?;
    let tasks = &answer["tasks"];
    print(list.common.json, tasks, || render::list(tasks, Clock::system().now()));
    let unasked = answer["unasked"].as_array().map(Vec::as_slice).unwrap_or_default();
    match render::unasked(unasked) {
        Some(message) => Err(Failure::new(Exit::Partly, message)),
        None => Ok(()),
    }
}

fn add(add: Add) -> Result<(), Failure> {
    let common = &add.common;
    let task = describe(&add)?;
    // The service checks it all again; here the words are those of the command line.
    let settings = TaskSettings::from_json(task.clone()).map_err(invalid)?;
    if add.handler.is_none() {
        handlers::check(settings.handler(), settings.args())
            .map_err(|error| invalid(format!("--{error}")))?;
    }
    let answer = ask(&common.data, Request::Add { task })?;
    print(common.json, &answer, || {
        let id = answer["task"]["id"].as_str().unwrap_or("?");
        let done = match answer["added"].as_str() {
            Some("changed") => "replaced",
            Some("unchanged") => "is there already, just so",
            _ => "added",
        };
        let added = render::changed(id, done, &answer, Clock::system().now());
        std::iter::once(added).chain(render::kept(&answer)).chain(render::warnings(&answer)).collect()
    });
    Ok(())
}

fn invalid(error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Invalid, error)
}

/// The task with the keys of a `[task.ID]` table.
fn describe(add: &Add) -> Result<Value, Failure> {
    let mut task = Map::new();
    let mut set = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            task.insert(key.to_owned(), value);
        }
    };
    let text = |value: &Option<String>| value.clone().map(Value::from);
    let id = match &add.id {
        Some(id) => id.clone(),
        None => TaskId::generate().as_str().to_owned(),
    };
    set("id", Some(id.into()));
    set("cron", text(&add.cron));
    set("every", text(&add.every));
    set("at", text(&add.at));
    set("trigger", text(&add.trigger));
    set("handler", text(&add.handler));
    set("args", parse_json("--args", &add.args)?);
    set("name", text(&add.name));
    set("timezone", add.timezone.map(|zone| zone.name().into()));
    set("max_instances", add.max_instances.map(Value::from));
    set("misfire_grace", text(&add.misfire_grace));
    set("executor", text(&add.executor));
    set("spread", add.spread.then_some(true.into()));
    set("paused", add.paused.then_some(true.into()));
    set("replace", add.replace.then_some(true.into()));
    if let Some(command) = &add.shell {
        let env = pairs("--env", &add.env, '=', "NAME=VALUE")?;
        let mut shell =
            json!({ "command": command, "cwd": directory(&add.cwd)?, "env": env, "timeout": add.timeout });
        if add.env_clear {
            shell["env_clear"] = true.into();
        }
        if let Some(mercy) = &add.kill_after {
            shell["kill_after"] = mercy.as_str().into();
        }
        set("shell", Some(shell));
    }
    if let Some([method, url]) = add.http.as_deref() {
        let headers = pairs("--header", &add.header, ':', "NAME: VALUE")?;
        let mut http = json!({
            "method": method, "url": url, "headers": headers, "body": add.body, "timeout": add.timeout,
        });
        if let Some(which) = &add.redirects {
            http["redirects"] = which.as_str().into();
        }
        set("http", Some(http));
    }
    Ok(task.into())
}

/// The directory as the service sees it, which was started somewhere else.
fn directory(dir: &Option<String>) -> Result<Option<String>, Failure> {
    let Some(dir) = dir else { return Ok(None) };
    match std::path::absolute(dir).ok().and_then(|path| path.into_os_string().into_string().ok()) {
        Some(path) => Ok(Some(path)),
        None => Err(invalid(format!("--cwd: {dir:?} is no path that can be written down"))),
    }
}

fn parse_json(option: &str, text: &Option<String>) -> Result<Option<Value>, Failure> {
    let Some(text) = text else { return Ok(None) };
    serde_json::from_str(text)
        .map(Some)
        .map_err(|error| invalid(format!("{option}: {text:?} is no JSON: {error}")))
}

fn pairs(option: &str, texts: &[String], sign: char, form: &str) -> Result<Map<String, Value>, Failure> {
    let pair = |text: &String| match text.split_once(sign) {
        Some((name, value)) if sign == ':' => Ok((name.trim().to_owned(), value.trim().into())),
        Some((name, value)) => Ok((name.to_owned(), value.into())),
        None => Err(invalid(format!("{option}: {text:?} must have the form {form}"))),
    };
    texts.iter().map(pair).collect()
}
