//! What commands inherit of the service: its environment without its secrets, and the limit of open
//! files and the mask of new ones that it was started with.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;

use crate::cli::limits;

/// What is left of the environment by `env_clear`.
const KEPT: [&str; 6] = ["HOME", "LANG", "PATH", "SHELL", "TZ", "USER"];

/// What is the service's own business and no command's.
const OWN: [&str; 3] = ["CALLBOARD_WORKER", limits::NOFILE, limits::UMASK];

/// What commands inherit.
#[derive(Debug, Clone, Default)]
pub(in crate::cli) struct Inherited {
    /// Names of variables that hold secrets.
    hidden: Arc<BTreeSet<String>>,
    /// The soft limit of open files, where it is another than that of this process.
    nofile: Option<u64>,
    /// The mask of new files, where it is another than that of this process.
    umask: Option<u32>,
}

impl Inherited {
    pub(in crate::cli) fn new(hidden: BTreeSet<String>, nofile: Option<u64>, umask: Option<u32>) -> Self {
        Self { hidden: Arc::new(hidden), nofile, umask }
    }

    /// A command for the line `line` of `/bin/sh`, behind a gate: it begins when a line comes by its
    /// standard input, and ends when that is closed before.
    pub(super) fn shell(&self, line: &str, clear: bool) -> Command {
        let mut command = Command::new("/bin/sh");
        // The shell waits, takes its limit and its mask, and becomes the one that was asked for: what lies
        // between the start of a process and its first step cannot be reached without `unsafe`.
        let limit = self.nofile.map_or_else(String::new, |limit| format!("ulimit -S -n {limit}; "));
        let mask = self.umask.map_or_else(String::new, |mask| format!("umask {mask:04o}; "));
        let gate = format!(r#"read -r gate || exit 125; {limit}{mask}exec /bin/sh -c "$1" </dev/null"#);
        command.args(["-c", &gate, "/bin/sh", line]);
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
