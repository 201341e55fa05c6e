//! A program is killed with SIGKILL at random moments and started again.
//!
//! `CALLBOARD_KILL_ROUNDS` says how often (20 unless set), `CALLBOARD_KILL_SEED` makes another
//! sequence of moments and changes; `tests/kill.sh` runs the long one.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::program::{CHANGES, KIND, PLACE, SEED};
use super::{Deed, Dice, Known, Said, check};

#[test]
fn a_program_on_sled_is_killed() {
    killed_again_and_again("sled");
}

#[test]
fn a_program_on_redb_is_killed() {
    killed_again_and_again("redb");
}

#[test]
fn a_program_on_files_is_killed() {
    killed_again_and_again("file");
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn killed_again_and_again(kind: &str) {
    let (rounds, seed) = (number("CALLBOARD_KILL_ROUNDS", 20), number(SEED, 1));
    let place = tempfile::tempdir().unwrap();
    let mut dice = Dice::new(seed);
    let mut model = Model::default();
    let (began, mut early) = (Instant::now(), 0);
    for round in 0..rounds {
        let context = format!("{kind}, seed {seed}, round {round}");
        let program = Program::start(kind, place.path(), seed.wrapping_add(round));
        // A kill in the midst of the start finds other things half done.
        if dice.roll(5) == 0 {
            program.listen_for(Duration::from_millis(dice.roll(120)), &mut model, &context);
            early += u64::from(!model.listed);
        } else {
            program.listen_until_listed(&mut model, &context);
            program.listen_for(Duration::from_millis(20 + dice.roll(250)), &mut model, &context);
        }
        program.kill(&mut model, &context);
    }
    let found = check::all(kind, place.path(), &model);
    println!(
        "{kind}: {rounds} kills ({early} of them during a start) in {:.1} s, seed {seed}: {found}, {} changes \
         acknowledged",
        began.elapsed().as_secs_f64(),
        model.acknowledged
    );
}

/// What the store must have, by what the program said.
#[derive(Clone, Default)]
pub(super) struct Model {
    pub tasks: BTreeMap<String, Known>,
    /// What was begun and not acknowledged: it may have been done.
    pub trying: Option<(String, Deed)>,
    pub acknowledged: u64,
    /// What the present program has.
    there: BTreeMap<String, Known>,
    listed: bool,
}

impl Model {
    fn hear(&mut self, said: Said, context: &str) {
        match said {
            Said::There { task, known } => drop(self.there.insert(task, known)),
            Said::Listed => {
                let there = std::mem::take(&mut self.there);
                self.settle(there, context);
                self.listed = true;
            }
            Said::Tries { task, deed } => self.trying = Some((task, deed)),
            Said::Did => {
                let (task, deed) = self.trying.take().unwrap();
                self.acknowledged += 1;
                self.put(task, &deed);
            }
        }
    }

    fn put(&mut self, task: String, deed: &Deed) {
        if let Some(known) = deed.done(self.tasks.remove(&task)) {
            self.tasks.insert(task, known);
        }
    }

    /// Compares with what is there: what was acknowledged is, what was begun is wholly or not. The
    /// steady tasks are known from when they are seen first.
    pub(super) fn settle(&mut self, there: BTreeMap<String, Known>, context: &str) {
        for (task, known) in there.iter().filter(|(task, _)| !task.starts_with(CHANGES)) {
            self.tasks.entry(task.clone()).or_insert_with(|| known.clone());
        }
        if self.tasks != there
            && let Some((task, deed)) = self.trying.clone()
        {
            self.put(task, &deed);
        }
        self.trying = None;
        for (task, known) in &self.tasks {
            assert_eq!(there.get(task), Some(known), "{context}: task `{task}` was acknowledged");
        }
        for task in there.keys() {
            assert!(self.tasks.contains_key(task), "{context}: task `{task}` was deleted");
        }
    }
}

struct Program {
    child: Child,
    lines: Receiver<String>,
}

impl Program {
    fn start(kind: &str, place: &Path, seed: u64) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "promise::program::serve", "--nocapture", "--ignored"])
            .env(PLACE, place)
            .env(KIND, kind)
            .env(SEED, seed.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            // The last line may be cut short.
            out.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)));
        });
        Self { child, lines }
    }

    fn hear(line: &str, model: &mut Model, context: &str) {
        if let Some(said) = line.strip_prefix("> ").and_then(|line| serde_json::from_str(line).ok()) {
            model.hear(said, context);
        }
    }

    fn listen_for(&self, time: Duration, model: &mut Model, context: &str) {
        let end = Instant::now() + time;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => Self::hear(&line, model, context),
                Err(RecvTimeoutError::Timeout) => return,
                Err(RecvTimeoutError::Disconnected) => panic!("{context}: the program ended by itself"),
            }
        }
    }

    fn listen_until_listed(&self, model: &mut Model, context: &str) {
        while !model.listed {
            match self.lines.recv_timeout(Duration::from_secs(60)) {
                Ok(line) => Self::hear(&line, model, context),
                Err(error) => panic!("{context}: the program does not start: {error}"),
            }
        }
    }

    /// Kills it, and hears what it had said before it died.
    fn kill(mut self, model: &mut Model, context: &str) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.lines.iter().for_each(|line| Self::hear(&line, model, context));
        model.listed = false;
        model.there.clear();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
