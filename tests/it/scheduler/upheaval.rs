//! Everything at once: a store that goes wrong, a scheduler that dies, a clock that is set, and a task
//! that is paused, changed, removed and added again meanwhile. What was acknowledged holds, and what
//! `why` and the records say afterwards is what the runs themselves have written down.

use std::collections::{BTreeSet, HashMap};

use callboard::backoff::Backoff;
use callboard::executor::{AsyncExecutor, ThreadPool};
use callboard::scheduler::message::{Crash, RestoreStore, ResumeTask};
use callboard::store::{BackendSource, Faults, MemoryBackend, Op, StoreError};
use callboard::task::{Coalesce, Fate, Overlap, Refusal, Retry, RunId, RunRecord, Source};
use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
struct Play {
    naps: u64,
    retry: Option<u32>,
    recover: bool,
    coalesce: Coalesce,
    overlap: Overlap,
    /// Whether the executor is a pool that is full soon.
    pool: bool,
    acts: Vec<Act>,
}

#[derive(Debug, Clone)]
enum Act {
    Advance(u64),
    /// Nothing begins for so long.
    Stall(u64),
    Ask(Ask),
    /// The next call goes wrong.
    Fault(Op, Wrong),
    /// The next call is answered late, and meanwhile somebody asks for something.
    Late(Op, Ask),
    Crash,
    /// The clock is set, by so many seconds.
    Set(i64),
    Restart,
    /// The executor goes, and another takes its place so many seconds later.
    Executor(u64),
}

#[derive(Debug, Clone, Copy)]
enum Ask {
    Add { period: u64, replace: bool },
    Pause,
    Resume { catch_up: bool },
    Reschedule(u64),
    Run,
    Delete,
    RemoveAll,
    Recheck,
    Die,
}

#[derive(Debug, Clone, Copy)]
enum Wrong {
    /// It fails and does nothing.
    Fails,
    /// It does its work, and the answer is lost.
    Lost,
    /// Its backend panics.
    Panics,
}

fn ask() -> impl Strategy<Value = Ask> {
    prop_oneof![
        4 => (3..15u64, any::<bool>()).prop_map(|(period, replace)| Ask::Add { period, replace }),
        3 => Just(Ask::Pause),
        4 => any::<bool>().prop_map(|catch_up| Ask::Resume { catch_up }),
        2 => (3..15u64).prop_map(Ask::Reschedule),
        2 => Just(Ask::Run),
        2 => Just(Ask::Delete),
        1 => Just(Ask::RemoveAll),
        1 => Just(Ask::Recheck),
        1 => Just(Ask::Die),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => Just(Op::Commit),
        2 => Just(Op::Put),
        2 => Just(Op::Get),
        2 => Just(Op::Finish),
        1 => Just(Op::Delete),
        1 => Just(Op::Open),
        1 => Just(Op::TakeDue),
        1 => Just(Op::RemoveAll),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let wrong = prop_oneof![3 => Just(Wrong::Fails), 4 => Just(Wrong::Lost), 1 => Just(Wrong::Panics)];
    prop_oneof![
        10 => (1..40u64).prop_map(Act::Advance),
        2 => (1..60u64).prop_map(Act::Stall),
        8 => ask().prop_map(Act::Ask),
        6 => (op(), wrong).prop_map(|(op, wrong)| Act::Fault(op, wrong)),
        3 => (op(), ask()).prop_map(|(op, ask)| Act::Late(op, ask)),
        1 => Just(Act::Crash),
        1 => prop_oneof![-200_000..-1i64, 1..100i64, -100..-1i64].prop_map(Act::Set),
        1 => Just(Act::Restart),
        2 => prop_oneof![Just(0), 1..60u64].prop_map(Act::Executor),
    ]
}

fn play() -> impl Strategy<Value = Play> {
    let late = prop_oneof![Just(Coalesce::Latest), Just(Coalesce::Earliest), Just(Coalesce::All)];
    let overlap = prop_oneof![Just(Overlap::Skip), Just(Overlap::Queue(2)), Just(Overlap::Allow)];
    let naps = prop_oneof![Just(0), 1..12u64];
    let policies = (naps, prop::option::of(1..4u32), any::<bool>(), late, overlap, any::<bool>());
    (policies, prop::collection::vec(act(), 1..40)).prop_map(
        |((naps, retry, recover, coalesce, overlap, pool), acts)| Play {
            naps,
            retry,
            recover,
            coalesce,
            overlap,
            pool,
            acts,
        },
    )
}

/// What a run has written down.
#[derive(Debug, Clone)]
struct Note {
    run: RunId,
    source: Source,
    nominal: DateTime<Utc>,
    attempt: u32,
    /// Which of the tasks of its name.
    task: u64,
    ended: Option<bool>,
}

type Notes = Arc<Mutex<Vec<Note>>>;

/// Code that notes that it begins, naps, and notes how it ends.
fn registry(notes: &Notes, naps: u64) -> Registry {
    let notes = notes.clone();
    Registry::new().register("act", move |run: TaskContext, task: u64| {
        let note = Note {
            run: run.run_id(),
            source: run.source(),
            nominal: run.nominal(),
            attempt: run.attempt(),
            task,
            ended: None,
        };
        let index = {
            let mut notes = notes.lock().unwrap();
            notes.push(note);
            notes.len() - 1
        };
        let notes = notes.clone();
        async move {
            if naps > 0 {
                run.sleep(secs(naps)).await;
            }
            let well = run.attempt() > 2 || run.nominal().timestamp() % 3 != 0;
            notes.lock().unwrap()[index].ended = Some(well);
            if well { Ok(()) } else { Err("no paper") }
        }
    })
}

/// What is known of the task, of what was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Known {
    There {
        paused: bool,
    },
    Gone,
    /// An answer was an error: it may be as it was, or as it was to be.
    Perhaps,
}

struct Stage {
    play: Play,
    scheduler: Handle,
    time: VirtualClock,
    faults: Faults,
    notes: Notes,
    events: Mutex<EventStream>,
    told: Mutex<Vec<Event>>,
    known: Mutex<Known>,
    /// The number of the latest task.
    tasks: Mutex<u64>,
}

/// Two runs go on, one waits.
fn small_pool() -> ThreadPool {
    ThreadPool::new(2).queue(1)
}

fn down() -> StoreError {
    StoreError::unavailable("the network is down")
}

impl Stage {
    /// What was told since the last time.
    fn hear(&self) -> Vec<Event> {
        let told = heard(&mut self.events.lock().unwrap());
        self.told.lock().unwrap().extend(told.iter().cloned());
        told
    }

    fn knows(&self, known: Known) {
        *self.known.lock().unwrap() = known;
    }

    fn known(&self) -> Known {
        *self.known.lock().unwrap()
    }

    /// Asks, and keeps what was acknowledged.
    async fn ask(&self, ask: Ask) {
        let before = self.known();
        // While it is asked nobody knows.
        self.knows(Known::Perhaps);
        let id = || TaskId::new("a").unwrap();
        let absent = |error: callboard::Error| match error.is_not_found() {
            true => Known::Gone,
            false => Known::Perhaps,
        };
        let paused = match before {
            Known::There { paused } => Some(paused),
            _ => None,
        };
        let after = match ask {
            Ask::Add { period, replace } => {
                let number = {
                    let mut tasks = self.tasks.lock().unwrap();
                    *tasks += u64::from(!replace || paused.is_none());
                    *tasks
                };
                let play = &self.play;
                let task = Task::new("act")
                    .id("a")
                    .args(number)
                    .trigger(Interval::seconds(period))
                    .max_instances(3)
                    .coalesce(play.coalesce)
                    .max_catch_up(3)
                    .overlap(play.overlap)
                    .recover(play.recover)
                    .retry(play.retry.map(|times| Retry::times(times).backoff(Backoff::fixed(secs(4)))))
                    .replace_existing(replace);
                match self.scheduler.add(task).await {
                    Ok(_) if !replace || before == Known::Gone => Known::There { paused: false },
                    Ok(_) => before,
                    Err(callboard::Error::TaskExists(_)) => before,
                    Err(_) => Known::Perhaps,
                }
            }
            Ask::Pause => match self.scheduler.pause_task("a").await {
                Ok(_) => Known::There { paused: true },
                Err(error) => absent(error),
            },
            Ask::Resume { catch_up } => match self.scheduler.send(ResumeTask::new(id(), catch_up)).await {
                Ok(Ok(_)) => Known::There { paused: false },
                Ok(Err(error)) => absent(error),
                Err(_) => Known::Perhaps,
            },
            Ask::Reschedule(period) => {
                match self.scheduler.reschedule_task("a", Interval::seconds(period)).await {
                    Ok(_) => before,
                    Err(error) => absent(error),
                }
            }
            Ask::Run => {
                self.scheduler.run_task("a").await.ok();
                before
            }
            Ask::Delete => match self.scheduler.delete_task("a").await {
                Ok(()) => Known::Gone,
                Err(error) => absent(error),
            },
            Ask::RemoveAll => match self.scheduler.remove_all_tasks(None).await {
                Ok(_) => Known::Gone,
                Err(_) => Known::Perhaps,
            },
            Ask::Recheck => {
                self.scheduler.recheck_store("default").await.ok();
                before
            }
            Ask::Die => {
                self.scheduler.send(Crash).await.unwrap_err();
                before
            }
        };
        self.knows(after);
    }

    /// Waits while the clock goes on, because somebody may be waited for who waits for it.
    async fn in_time<T>(&self, work: impl Future<Output = T>) -> T {
        turning(&self.time, work).await
    }

    async fn ask_in_time(&self, ask: Ask) {
        self.in_time(self.ask(ask)).await;
    }

    /// Lets the next call of `op` wait until it was asked, and goes on for a while.
    async fn late(&self, op: Op, ask: Ask) {
        let left = self.faults.left();
        let held = self.faults.hold(op);
        let work = async {
            for _ in 0..200 {
                if self.faults.left() <= left {
                    break;
                }
                tokio::task::yield_now().await;
            }
            let release = async {
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
                drop(held);
            };
            let work = async { futures::join!(self.ask(ask), release) };
            work.await;
        };
        self.in_time(work).await;
        self.time.advance(secs(20)).await;
    }

    async fn act(&self, act: Act) {
        match act {
            Act::Advance(seconds) => self.time.advance(secs(seconds)).await,
            Act::Stall(seconds) => {
                self.in_time(self.scheduler.pause()).await.ok();
                self.time.advance(secs(seconds)).await;
                self.in_time(self.scheduler.resume()).await.ok();
            }
            Act::Ask(ask) => self.ask_in_time(ask).await,
            Act::Fault(op, Wrong::Fails) => self.faults.fail(op, down()),
            Act::Fault(op, Wrong::Lost) => self.faults.lose(op, down()),
            Act::Fault(op, Wrong::Panics) => self.faults.panic(op),
            Act::Late(op, ask) => self.late(op, ask).await,
            Act::Crash => self.ask_in_time(Ask::Die).await,
            Act::Set(by) => {
                self.time.set(self.time.clock().now() + chrono::TimeDelta::seconds(by)).await;
            }
            Act::Restart => {
                self.in_time(self.scheduler.shutdown(Shutdown::now().force())).await.ok();
                while self.in_time(self.scheduler.start()).await.is_err() {}
            }
            Act::Executor(later) => {
                self.in_time(self.scheduler.remove_executor("default", Duration::ZERO)).await.unwrap();
                self.time.advance(secs(later)).await;
                match self.play.pool {
                    true => self.in_time(self.scheduler.add_executor("default", small_pool())).await.unwrap(),
                    false => self
                        .in_time(self.scheduler.add_executor("default", AsyncExecutor::new()))
                        .await
                        .unwrap(),
                }
            }
        }
        // Two things at one instant have no order in the records.
        self.time.advance(Duration::from_millis(7)).await;
    }

    /// Whether nothing of the schedule may be submitted.
    fn is_still(&self) -> bool {
        matches!(self.known(), Known::Gone | Known::There { paused: true })
    }

    /// Until the store works and, if nothing may begin, nothing goes on any more.
    async fn come_to_rest(&self) {
        for _ in 0..50 {
            self.time.advance(secs(300)).await;
            self.hear();
            let status = self.in_time(self.scheduler.status()).await.unwrap();
            match &status.stores[0].problem {
                None if status.running == 0 || !self.is_still() => return,
                None => {}
                Some(problem) if problem.contains("for good") => {
                    let restore = RestoreStore("default".try_into().unwrap());
                    drop(self.in_time(self.scheduler.send(restore)).await);
                }
                Some(_) => {}
            }
        }
        panic!("it does not come to rest: {:#?}", self.scheduler.status().await);
    }
}

async fn perform(play: Play) {
    let (faults, notes) = (Faults::new(), Notes::default());
    let time = VirtualClock::starting_at(START);
    let store = BackendSource::keeping(faults.around(MemoryBackend::default().history(90_000)));
    let builder = Scheduler::builder().clock(time.clock()).registry(registry(&notes, play.naps));
    let builder = builder.store("default", store).store_retry(secs(1));
    let builder = match play.pool {
        true => builder.executor("default", small_pool()),
        false => builder,
    };
    let scheduler = builder.start().await.unwrap();
    let events = scheduler.events(EventMask::ALL).await.unwrap();
    let stage = Stage {
        play: play.clone(),
        scheduler,
        time,
        faults,
        notes,
        events: Mutex::new(events),
        told: Mutex::default(),
        known: Mutex::new(Known::Gone),
        tasks: Mutex::new(0),
    };
    stage.ask(Ask::Add { period: 10, replace: false }).await;
    for act in play.acts.clone() {
        // What was submitted before is told by now.
        stage.time.settle().await;
        stage.hear();
        let still = stage.is_still();
        let stirs = matches!(&act, Act::Ask(Ask::Add { .. } | Ask::Resume { .. }) | Act::Late(..));
        stage.act(act.clone()).await;
        stage.time.settle().await;
        let told = stage.hear();
        if still && !stirs {
            let submitted = |event: &&Event| matches!(event, Event::TaskSubmitted(fact) if fact.0.source != Source::Manual);
            assert_eq!(told.iter().find(submitted).map(Event::mask), None, "{act:?}: {told:#?}");
        }
    }
    // Nothing new comes, and what is under way ends.
    stage.in_time(stage.scheduler.resume()).await.ok();
    stage.come_to_rest().await;
    while stage.known() != Known::Gone && stage.known() != (Known::There { paused: true }) {
        let before = stage.known();
        stage.ask_in_time(Ask::Pause).await;
        assert!(!(stage.known() == Known::Gone && matches!(before, Known::There { .. })), "it was lost");
        stage.come_to_rest().await;
    }
    stage.come_to_rest().await;
    let task = loop {
        match stage.in_time(stage.scheduler.task("a")).await {
            Ok(task) => break Some(task),
            Err(error) if error.is_not_found() => break None,
            Err(_) => stage.come_to_rest().await,
        }
    };
    assert_eq!(task.is_some(), stage.known() != Known::Gone, "{:?}", stage.known());
    check(&stage).await;
    stage.in_time(stage.scheduler.shutdown(Shutdown::now().force())).await.unwrap();
}

/// Compares what the runs have written down with what is on record of them.
async fn check(stage: &Stage) {
    let notes = stage.notes.lock().unwrap().clone();
    // From now on the clock stands still.
    let records = stage.scheduler.history("a", usize::MAX).await.unwrap();
    let by_run: HashMap<RunId, &RunRecord> = records.iter().map(|record| (record.id, record)).collect();
    assert_eq!(by_run.len(), records.len(), "each run has one record");
    let cut_off = stage.play.acts.iter().any(|act| matches!(act, Act::Restart | Act::Executor(_)));
    let mut seen = BTreeSet::new();
    for note in &notes {
        if note.source == Source::Scheduled {
            let once = seen.insert((note.task, note.nominal, note.attempt));
            assert!(once, "it ran twice: {note:?} {notes:#?}");
        }
        let record = by_run.get(&note.run).unwrap_or_else(|| panic!("there is no record of {note:?}"));
        assert_eq!(
            (record.nominal, record.attempt, record.source),
            (note.nominal, note.attempt, note.source)
        );
        let end = record.end.as_ref().unwrap_or_else(|| panic!("its record has no end: {note:?}"));
        let wanted = match note.ended {
            Some(true) => "executed",
            Some(false) => "failed",
            None => "interrupted",
        };
        let word = end.outcome.word();
        assert!(word == wanted || (cut_off && word == "interrupted"), "{note:?} {record:?}");
    }
    // Each record has one event, of the same end, and each event has a record.
    stage.hear();
    let mut told: HashMap<RunId, Vec<&'static str>> = HashMap::new();
    let events = stage.told.lock().unwrap().clone();
    for report in events.iter().filter_map(Event::report) {
        told.entry(report.run.id).or_default().push(report.end.outcome.word());
    }
    for (run, words) in &told {
        assert!(words.len() == 1 && by_run.contains_key(run), "{run}: {words:?}");
    }
    for record in records.iter().filter(|_| !cut_off) {
        let word = record.end.as_ref().map(|end| end.outcome.word());
        let skipped = word == Some("skipped");
        let words = told.get(&record.id);
        assert!(skipped || words.is_some_and(|words| words.first().copied() == word), "{words:?} {record:?}");
    }
    let noted: BTreeSet<RunId> = notes.iter().map(|note| note.run).collect();
    for record in &records {
        let end = record.end.as_ref().unwrap_or_else(|| panic!("it has no end: {record:?}"));
        let began = matches!(end.outcome, Outcome::Executed { .. } | Outcome::Failed { .. });
        assert!(!began || noted.contains(&record.id), "nothing ran: {record:?}");
    }
    // Whatever became of its executor: no run was turned away for want of it.
    for record in &records {
        let outcome = record.end.as_ref().map(|end| &end.outcome);
        let turned_away = matches!(
            outcome,
            Some(Outcome::Refused {
                reason: Refusal::QueueFull { .. }
                    | Refusal::ExecutorUnavailable { .. }
                    | Refusal::UnknownExecutor { .. }
            })
        );
        assert!(!turned_away, "{record:?}");
    }
    // Each run time has an account, and those of the runs are as the runs say.
    let (mut from, mut times) = (at(-400_000), Vec::new());
    let now = stage.time.clock().now().max(at(20_000));
    loop {
        match stage.scheduler.why("a", from, now).await {
            Ok(account) => {
                times.extend(account.times);
                let Some(next) = account.next else { break };
                from = next;
            }
            Err(error) if error.is_not_found() => break,
            // A fault that nobody has come upon before.
            Err(_) => {}
        }
    }
    let set_back = stage.play.acts.iter().any(|act| matches!(act, Act::Set(..0)));
    for time in &times {
        let settled = !matches!(time.fate, Fate::Running | Fate::Retrying);
        // What is to be tried again waits while the task is paused.
        let waits = time.fate == Fate::Retrying && stage.known() == (Known::There { paused: true });
        assert!(settled || waits, "{time:?}");
        // A trigger that is set after the clock was set back goes on after what has run.
        assert!(time.fate != Fate::Unknown || set_back, "{time:?} {records:#?}");
    }
    for note in &notes {
        let told = times.iter().flat_map(|time| time.run.iter().chain(&time.attempts));
        assert!(told.into_iter().any(|record| record.id == note.run), "{note:?} {times:#?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_the_account_is_what_the_runs_say(play in play()) {
        System::new().block_on(perform(play));
    }
}
