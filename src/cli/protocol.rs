//! What commands and the service say to each other over the control socket.
//!
//! One JSON object a line, one reply a line:
//!
//! ```text
//! → {"v":1,"do":"pause","id":"backup"}
//! ← {"v":1,"rules":{"source":"bundled","version":"2026f","digest":"5f0c0d9e3a1b2c4d"},"ok":null}
//! → {"v":1,"do":"inspect","id":"nosuch"}
//! ← {"v":1,"error":{"kind":"not_found","message":"there is no task `nosuch`"}}
//! ```
//!
//! `rules` are those of time zones by which the service reads clocks; the digest is that of
//! [`Zones`](crate::trigger::Zones::digest), in hexadecimal digits.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::exit::{Exit, Failure};
use crate::task::{ScheduleState, SortKey};
use crate::timezones::Release;
use crate::trigger::Zones;

/// The version of the protocol. It changes when an old command and a new service would
/// misunderstand each other.
pub(super) const VERSION: u32 = 1;

/// The longest request, in bytes. A task may not be larger either.
pub(super) const MAX_REQUEST: usize = 256 * 1024;

/// What a command asks for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(super) enum Request {
    List {
        #[serde(default)]
        text: Option<String>,
        #[serde(default)]
        state: Option<ScheduleState>,
        #[serde(default)]
        sort: SortKey,
        #[serde(default)]
        descending: bool,
    },
    Inspect {
        id: String,
    },
    Why {
        id: String,
        #[serde(default)]
        from: Option<String>,
        #[serde(default)]
        to: Option<String>,
        #[serde(default)]
        timezone: Option<crate::trigger::Zone>,
        limit: u32,
    },
    Pause {
        id: String,
    },
    Resume {
        id: String,
    },
    Remove {
        id: String,
    },
    Run {
        id: String,
        #[serde(default)]
        only_if_due: bool,
        #[serde(default)]
        beyond_max_instances: bool,
    },
    Reschedule {
        id: String,
        next_run: String,
        #[serde(default)]
        timezone: Option<crate::trigger::Zone>,
    },
    Cancel {
        run: String,
    },
    Backfill {
        id: String,
        /// A time; without an offset on the clock of `timezone`, else of the task.
        from: String,
        to: String,
        #[serde(default)]
        timezone: Option<crate::trigger::Zone>,
        /// In milliseconds.
        every: u64,
    },
    CancelBackfill {
        id: String,
    },
    CheckStore {
        store: String,
    },
    ExportStore {
        store: String,
        path: PathBuf,
        #[serde(default)]
        plain: bool,
    },
    RekeyStore {
        store: String,
    },
    Add {
        /// The keys of a `[task.ID]` table, with `id` and `replace`.
        task: Value,
    },
}

impl Request {
    /// Whether it may take as long as reading all that a store holds.
    pub(super) fn goes_through_a_store(&self) -> bool {
        matches!(self, Self::CheckStore { .. } | Self::ExportStore { .. } | Self::RekeyStore { .. })
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Envelope {
    pub(super) v: u32,
    #[serde(flatten)]
    pub(super) request: Request,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Reply<T = Value> {
    v: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rules: Option<Rules>,
    #[serde(flatten)]
    answer: Answer<T>,
}

/// Which rules of time zones the service has in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Rules {
    #[serde(flatten)]
    pub(super) release: Release,
    digest: String,
}

impl Rules {
    pub(super) fn of(zones: &Zones) -> Self {
        Self { release: Release::of(zones), digest: format!("{:016x}", zones.digest()) }
    }

    pub(super) fn digest(&self) -> Option<u64> {
        u64::from_str_radix(&self.digest, 16).ok()
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer<T> {
    Ok(T),
    Error { kind: String, message: String },
}

impl Envelope {
    /// Reads a request; an error is a reply already.
    pub(super) fn read(line: &[u8]) -> Result<Request, Failure> {
        #[derive(Deserialize)]
        struct Version {
            v: u32,
        }
        let refuse =
            |error: serde_json::Error| Failure::new(Exit::Usage, format!("this is no request: {error}"));
        let Version { v } = serde_json::from_slice(line).map_err(refuse)?;
        if v != VERSION {
            let message = format!(
                "the service speaks version {VERSION} of the control protocol and was asked in version {v}; \
                 use the `callboard` that the service was started with"
            );
            return Err(Failure::new(Exit::Usage, message));
        }
        let envelope: Envelope = serde_json::from_slice(line).map_err(refuse)?;
        Ok(envelope.request)
    }
}

impl<T> From<Result<T, Failure>> for Reply<T> {
    fn from(result: Result<T, Failure>) -> Self {
        let answer = match result {
            Ok(value) => Answer::Ok(value),
            Err(Failure { exit, message }) => Answer::Error { kind: exit.word().to_owned(), message },
        };
        Self { v: VERSION, rules: None, answer }
    }
}

impl<T> Reply<T> {
    /// The same with the rules that are in force, unless it is an error.
    pub(super) fn by(self, zones: &Zones) -> Self {
        let rules = matches!(self.answer, Answer::Ok(_)).then(|| Rules::of(zones));
        Self { rules, ..self }
    }

    /// By which rules the service reads clocks, where it says so.
    pub(super) fn rules(&self) -> Option<&Rules> {
        self.rules.as_ref()
    }
}

impl From<Reply> for Result<Value, Failure> {
    fn from(reply: Reply) -> Self {
        match reply.answer {
            Answer::Ok(value) => Ok(value),
            Answer::Error { kind, message } => Err(Failure { exit: Exit::from_word(&kind), message }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_replies_look_as_documented() {
        let request = Envelope { v: 1, request: Request::Pause { id: "backup".to_owned() } };
        assert_eq!(serde_json::to_string(&request).unwrap(), r#"{"v":1,"do":"pause","id":"backup"}"#);
        let ok = Reply::from(Ok(Value::Null));
        assert_eq!(serde_json::to_string(&ok).unwrap(), r#"{"v":1,"ok":null}"#);
        let ok = serde_json::to_string(&ok.by(Zones::bundled())).unwrap();
        assert!(ok.starts_with(r#"{"v":1,"rules":{"source":"bundled","version":"20"#), "{ok}");
        let ok: Reply = serde_json::from_str(&ok).unwrap();
        assert_eq!(ok.rules().unwrap().digest(), Some(Zones::bundled().digest()));
        let error = Failure::new(Exit::NotFound, "there is no task `x`");
        let text = serde_json::to_string(&Reply::<Value>::from(Err(error.clone()))).unwrap();
        assert_eq!(text, r#"{"v":1,"error":{"kind":"not_found","message":"there is no task `x`"}}"#);
        let reply: Reply = serde_json::from_str(&text).unwrap();
        assert_eq!(Result::from(reply), Err(error));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let refused = |line: &str| Envelope::read(line.as_bytes()).unwrap_err().message;
        assert!(refused("hello").contains("no request"));
        assert!(refused("[]").contains("no request"));
        assert!(refused(r#"{"v":2,"do":"list"}"#).contains("version 2"));
        assert!(refused(r#"{"v":1,"do":"dance"}"#).contains("dance"));
        assert!(refused(r#"{"v":1,"do":"pause"}"#).contains("id"));
        assert!(matches!(Envelope::read(br#"{"v":1,"do":"list"}"#), Ok(Request::List { .. })));
    }
}
