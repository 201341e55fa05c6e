//! What commands inherit of the service: its environment without its secrets, and the limit of open
//! files that it was started with.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;

use crate::cli::limits;

/// What is left of the environment by `env_clear`.
const KEPT: [&str; 6] = ["HOME", "LANG", "PATH", "SHELL", "TZ", "USER"];

/// What is the service's own business and no command's.
const OWN: [&str; 2] = ["CALLBOARD_WORKER", limits::NOFILE];

const GATE: &str = r#"read -r gate || exit 125; exec /bin/sh -c "$1" </dev/null"#;
const LIMITED_GATE: &str = r#"read -r gate || exit 125; ulimit -S -n "$2"; exec /bin/sh -c "$1" </dev/null"#;

/// What commands inherit.
#[derive(Debug, Clone, Default)]
pub(in crate::cli) struct Inherited {
    /// Names of variables that hold secrets.
    hidden: Arc<BTreeSet<String>>,
    /// The soft limit of open files, where it is another than that of this process.
    nofile: Option<u64>,
}

impl Inherited {
    pub(in crate::cli) fn new(hidden: BTreeSet<String>, nofile: Option<u64>) -> Self {
        Self { hidden: Arc::new(hidden), nofile }
    }

    /// A command for the line `line` of `/bin/sh`, behind a gate: it begins when a line comes by its
    /// standard input, and ends when that is closed before.
    pub(super) fn shell(&self, line: &str, clear: bool) -> Command {
        let mut command = Command::new("/bin/sh");
        // The shell waits, lowers its limit, and becomes the one that was asked for: what lies between
        // the start of a process and its first step cannot be reached without `unsafe`.
        let (gate, limit) = match self.nofile {
            Some(limit) => (LIMITED_GATE, limit.to_string()),
            None => (GATE, String::new()),
        };
        command.args(["-c", gate, "/bin/sh", line, &limit]);
        if clear {
            command
                .env_clear()
                .envs(KEPT.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        }
        self.hide(&mut command);
        command
    }

    /// Takes away from a command what it is not to inherit.
    pub(super) fn hide(&self, command: &mut Command) {
        for name in OWN.into_iter().chain(self.hidden.iter().map(String::as_str)) {
            command.env_remove(name);
        }
    }
}
