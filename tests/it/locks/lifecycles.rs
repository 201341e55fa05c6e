//! Lifecycles of several processes with one lock: each sets up and cleans up, and the holder ticks.

use std::os::unix::process::CommandExt;
use std::process::ExitStatus;

use callboard::task::Lifecycle;
use rustix::process::{Pid, Signal, kill_process};

use super::*;

/// How long anything may take before a test gives up on it.
const PATIENCE: Duration = Duration::from_secs(60);

const PLACE: &str = "CALLBOARD_LIVES";
const STORE: &str = "CALLBOARD_LIVES_STORE";
const LOCK: &str = "CALLBOARD_LIVES_LOCK";

/// What a process has noted: which, what, and of a tick for when.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Note {
    pid: u32,
    what: String,
    nominal: String,
}

/// Processes with the same lifecycle; each notes what it does in one file.
struct Company {
    base: tempfile::TempDir,
    store: &'static str,
    lock: &'static str,
    members: Vec<Child>,
}

impl Company {
    fn new(store: &'static str, lock: &'static str) -> Self {
        Self { base: tempfile::tempdir().unwrap(), store, lock, members: Vec::new() }
    }

    /// Starts a process; it has set up when this returns. `group`: 0 for a process group of its own.
    fn add(&mut self, group: Option<u32>) -> u32 {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "locks::lifecycles::live_until_terminated", "--nocapture", "--ignored"])
            .env(PLACE, self.base.path())
            .env(STORE, self.store)
            .env(LOCK, self.base.path().join(self.lock))
            // Closed when the test ends, in whatever way.
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        if let Some(group) = group {
            command.process_group(group.try_into().unwrap());
        }
        let member = command.spawn().unwrap();
        let pid = member.id();
        self.members.push(member);
        self.until("it is set up", |notes| notes.iter().any(|note| note.pid == pid).then_some(pid))
    }

    fn notes(&self) -> Vec<Note> {
        let text = fs::read_to_string(self.base.path().join("notes")).unwrap_or_default();
        // What has no end of line yet is not written yet.
        let lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        let note = |line: &str| {
            let mut words = line.split(' ');
            let pid = words.next()?.parse().ok()?;
            Some(Note { pid, what: words.next()?.to_owned(), nominal: words.next()?.to_owned() })
        };
        lines.map(|line| note(line).unwrap_or_else(|| panic!("{line:?}"))).collect()
    }

    /// Looks again and again until there is something.
    fn until<T>(&self, what: &str, mut look: impl FnMut(&[Note]) -> Option<T>) -> T {
        let patience = Instant::now() + PATIENCE;
        loop {
            let notes = self.notes();
            if let Some(seen) = look(&notes) {
                return seen;
            }
            assert!(Instant::now() < patience, "not within {PATIENCE:?}: {what}; {notes:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for five more ticks of one of `candidates`, which is answered.
    fn five_of_one(&self, candidates: &[u32]) -> u32 {
        let before = self.notes();
        self.until("five ticks of one", |notes| {
            let count = |notes: &[Note], pid| ticks(notes).filter(|note| note.pid == pid).count();
            let more = |pid: &u32| count(notes, *pid) >= count(&before, *pid) + 5;
            candidates.iter().copied().find(more)
        })
    }

    fn signal(&self, pid: u32, signal: Signal) {
        kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), signal).unwrap();
    }

    fn ended(&mut self, pid: u32) -> ExitStatus {
        let patience = Instant::now() + PATIENCE;
        let member = self.members.iter_mut().find(|member| member.id() == pid).unwrap();
        loop {
            if let Some(status) = member.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < patience, "{pid} does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn kill(&mut self, pid: u32) {
        self.signal(pid, Signal::KILL);
        assert!(!self.ended(pid).success());
    }

    /// Asks a process to end, which it does by a shutdown of its scheduler.
    fn terminate(&mut self, pid: u32) {
        self.signal(pid, Signal::TERM);
        let status = self.ended(pid);
        assert!(status.success(), "{pid}: {status}");
    }

    /// What one process did, a run of ticks as one word.
    fn life(&self, pid: u32) -> Vec<String> {
        let done = self.notes().into_iter().filter(|note| note.pid == pid && note.what != "beat");
        let mut life: Vec<_> = done.map(|note| note.what).collect();
        life.dedup();
        life
    }
}

impl Drop for Company {
    fn drop(&mut self) {
        for member in &mut self.members {
            member.kill().ok();
            member.wait().ok();
        }
    }
}

fn ticks(notes: &[Note]) -> impl Iterator<Item = &Note> {
    notes.iter().filter(|note| note.what == "tick")
}

fn but(all: &[u32], gone: &[u32]) -> Vec<u32> {
    all.iter().copied().filter(|pid| !gone.contains(pid)).collect()
}

/// Three with one lock. The first holder is killed, the second asked to end, and the third is left.
fn relay(company: &mut Company, group: impl Fn(&[u32]) -> Option<u32>) {
    let mut all = Vec::new();
    for _ in 0..3 {
        let group = group(&all);
        all.push(company.add(group));
    }
    let first = company.five_of_one(&all);
    company.kill(first);
    let second = company.five_of_one(&but(&all, &[first]));
    company.terminate(second);
    let third = company.five_of_one(&but(&all, &[first, second]));
    company.terminate(third);

    let notes: Vec<Note> = company.notes().into_iter().filter(|note| all.contains(&note.pid)).collect();
    let mut holders: Vec<u32> = ticks(&notes).map(|note| note.pid).collect();
    holders.dedup();
    assert_eq!(holders, [first, second, third], "one after the other: {notes:?}");
    let times: BTreeSet<_> = ticks(&notes).map(|note| &note.nominal).collect();
    assert_eq!(times.len(), ticks(&notes).count(), "no tick twice: {notes:?}");
    let ends = |pid| notes.iter().filter(|note| note.pid == pid && note.what == "clean-up").count();
    assert_eq!([first, second, third].map(ends), [0, 1, 1]);
    assert_eq!(company.life(first), ["set-up", "tick"], "who is killed cannot clean up");
    assert_eq!(company.life(second), ["set-up", "tick", "clean-up"]);
    assert_eq!(company.life(third), ["set-up", "tick", "clean-up"]);
}

#[test]
fn lifecycles_with_memory_stores_take_over_from_each_other() {
    relay(&mut Company::new("memory", "{store}.lock"), |_| None);
}

#[test]
fn lifecycles_take_over_a_file_store_from_each_other() {
    relay(&mut Company::new("file", "{store}-{ppid}.lock"), |_| None);
}

#[test]
fn lifecycles_take_over_a_redb_store_from_each_other() {
    relay(&mut Company::new("redb", "{store}.lock"), |_| None);
}

#[test]
fn one_lifecycle_ticks_in_each_process_group() {
    let mut company = Company::new("memory", "{store}-{pgrp}.lock");
    // A stranger in a group of its own has a lock of its own.
    let stranger = company.add(Some(0));
    company.five_of_one(&[stranger]);
    relay(&mut company, |all| Some(all.first().copied().unwrap_or(0)));
    company.five_of_one(&[stranger]);
    company.terminate(stranger);
    assert_eq!(company.life(stranger), ["set-up", "tick", "clean-up"]);
}

#[test]
fn one_that_waits_for_the_lock_cleans_up_as_well() {
    let mut company = Company::new("file", "{store}.lock");
    let holder = company.add(None);
    company.five_of_one(&[holder]);
    let waiting = company.add(None);
    company.five_of_one(&[holder]);
    company.terminate(waiting);
    assert_eq!(company.life(waiting), ["set-up", "clean-up"]);
    company.terminate(holder);
    assert_eq!(company.life(holder), ["set-up", "tick", "clean-up"]);
}

#[test]
fn a_holder_that_is_stopped_keeps_its_lock() {
    let mut company = Company::new("memory", "{store}.lock");
    let holder = company.add(None);
    company.five_of_one(&[holder]);
    let waiting = company.add(None);
    company.signal(holder, Signal::STOP);
    // It looks at the lock as often as its heart beats.
    let beats =
        |notes: &[Note]| notes.iter().filter(|note| note.pid == waiting && note.what == "beat").count();
    let so_far = beats(&company.notes());
    company.until("twenty beats", |notes| (beats(notes) >= so_far + 20).then_some(()));
    assert_eq!(company.life(waiting), ["set-up"]);
    company.signal(holder, Signal::CONT);
    company.five_of_one(&[holder]);
    assert_eq!(company.life(waiting), ["set-up"]);
    company.terminate(holder);
    company.five_of_one(&[waiting]);
    company.terminate(waiting);
    assert_eq!(company.life(holder), ["set-up", "tick", "clean-up"]);
    assert_eq!(company.life(waiting), ["set-up", "tick", "clean-up"]);
}

fn note(mut file: &fs::File, what: &str, nominal: &str) -> std::io::Result<()> {
    // At once: others write to the file as well.
    file.write_all(format!("{} {what} {nominal}\n", std::process::id()).as_bytes())
}

fn open(path: &Path) -> std::io::Result<fs::File> {
    fs::OpenOptions::new().append(true).create(true).open(path)
}

/// A lifecycle that notes what it does at `path`.
fn pulse(path: PathBuf) -> Lifecycle<fs::File> {
    // The same run times in each process.
    let trigger = Interval::every(Duration::from_millis(100)).start_at(at(-31_536_000));
    Lifecycle::new("pulse", async move || {
        let file = open(&path)?;
        note(&file, "set-up", "-")?;
        Ok::<_, std::io::Error>(file)
    })
    .tick(trigger, async |file: &mut fs::File, run: TaskContext| {
        note(file, "tick", &run.nominal().to_rfc3339())
    })
    .clean_up(async |file: fs::File| note(&file, "clean-up", "-"))
}

#[test]
#[ignore = "a process of the tests above"]
fn live_until_terminated() {
    let Some(base) = std::env::var_os(PLACE).map(PathBuf::from) else { return };
    let (store, lock) = (std::env::var(STORE).unwrap(), std::env::var(LOCK).unwrap());
    actix_rt::System::new().block_on(async {
        let kind = tokio::signal::unix::SignalKind::terminate();
        let mut terminated = tokio::signal::unix::signal(kind).unwrap();
        let builder = Scheduler::builder()
            .lock_path(lock)
            .startup_delay(Duration::from_millis(50))
            .store_retry(Duration::from_millis(100));
        let place = base.join("store");
        let builder = match store.as_str() {
            "file" => builder.store("default", FileStore::open(place).unwrap()),
            "redb" => builder.store("default", RedbStore::open(place).unwrap()),
            _ => builder,
        };
        let scheduler = builder.build().unwrap();
        // Before the start: where another process has the store, the task waits for it.
        scheduler.add_lifecycle(pulse(base.join("notes"))).await.unwrap();
        scheduler.send(callboard::scheduler::message::Start::default()).await.unwrap().unwrap();
        let heart = open(&base.join("notes")).unwrap();
        actix_rt::spawn(async move {
            loop {
                actix_rt::time::sleep(Duration::from_millis(100)).await;
                note(&heart, "beat", "-").unwrap();
            }
        });
        let (sender, left_alone) = futures::channel::oneshot::channel::<()>();
        std::thread::spawn(move || {
            std::io::read_to_string(std::io::stdin()).ok();
            drop(sender);
        });
        futures::future::select(Box::pin(terminated.recv()), left_alone).await;
        scheduler.shutdown(Shutdown::wait(secs(20))).await.unwrap();
    });
}
