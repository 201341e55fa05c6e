//! What the service can run without any code of yours: shell commands and HTTP requests.

mod command;
mod companion;
mod http;
mod inherited;
mod peer;
pub(super) mod reaper;
mod shell;
mod tail;

use std::time::Duration;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::config::parse_duration;
use crate::task::{Registry, TaskContext};
use companion::Companion;
use http::HttpArgs;
pub(super) use inherited::Inherited;
use shell::ShellArgs;

/// The handlers of the service, and of its worker processes: each has a companion, which ends what
/// is left running.
pub(super) fn registry(inherited: Inherited) -> Registry {
    let companion = Companion::start(inherited.clone());
    let client = http::Client::new();
    Registry::new()
        .register("shell", move |context: TaskContext, args: ShellArgs| {
            shell::run(context, args, companion.clone(), inherited.clone())
        })
        .register("http", move |context: TaskContext, args: HttpArgs| {
            http::run(context, args, client.clone())
        })
}

/// The names of the handlers.
pub(super) const NAMES: [&str; 2] = ["http", "shell"];

/// Whether there is such a handler and it understands such arguments; if not, what is wrong.
pub(super) fn check(handler: &str, args: &Value) -> Result<(), String> {
    let named = |error: String| format!("{handler}: {error}");
    match handler {
        "shell" => {
            ShellArgs::deserialize(args).map_err(|error| named(error.to_string()))?.check().map_err(named)
        }
        "http" => {
            HttpArgs::deserialize(args).map_err(|error| named(error.to_string()))?.check().map_err(named)
        }
        other => Err(format!("there is no handler {other:?}; there are: {}", NAMES.join(", "))),
    }
}

/// A length of time in a handler's arguments: text with a unit.
fn duration<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Duration>, D::Error> {
    let text: Option<String> = Option::deserialize(d).map_err(|_| {
        serde::de::Error::custom("a length of time must be text with a unit, such as \"30s\"")
    })?;
    text.map(|text| parse_duration(&text).map_err(serde::de::Error::custom)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn arguments_are_checked_before_anything_runs() {
        let refused = |handler, args| check(handler, &args).unwrap_err();
        assert_eq!(
            check("shell", &json!({ "command": "true", "timeout": "5s", "env": { "A": "b" } })),
            Ok(())
        );
        assert!(refused("shell", json!({})).contains("command"));
        assert!(refused("shell", json!({ "command": " " })).contains("empty"));
        assert!(refused("shell", json!({ "command": "x", "cmd": "y" })).contains("unknown field `cmd`"));
        assert!(refused("shell", json!({ "command": "x", "timeout": 5 })).contains("unit"));
        assert!(refused("shell", json!({ "command": "x\0y" })).contains("NUL"));
        assert!(refused("shell", json!({ "command": "x", "env": { "A=B": "c" } })).contains("A=B"));
        assert_eq!(check("http", &json!({ "url": "http://localhost:1/x" })), Ok(()));
        assert!(refused("http", json!({ "url": "localhost" })).contains("url"));
        assert!(refused("http", json!({ "url": "ftp://x/" })).contains("http"));
        assert!(refused("http", json!({ "url": "http://x/", "method": "G ET" })).contains("method"));
        assert!(refused("http", json!({ "url": "http://x/", "headers": { "a b": "c" } })).contains("a b"));
        assert!(refused("backup", json!({})).contains("there are: http, shell"));
    }
}
