//! A stand-in for a database across a network that several schedulers share: every answer takes
//! some turns of the executor, so that answers come out of order; due tasks are claimed with a
//! lease; and the connection can break before a change, or after it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use callboard::store::contract::{durable, random, sample, start, suite};
use callboard::store::message::*;
use callboard::store::{
    Backend, BackendSource, Capabilities, Faults, Op, Reply, StoreAddr, StoreError, StoreSource, in_order,
};
use callboard::task::{Handler, Outcome, OwnerId, RunEnd, RunId, RunRecord, StoredTask, TaskId, TaskState};
use chrono::{DateTime, TimeDelta, Utc};
use futures::future::join_all;

use super::system;

type Time = DateTime<Utc>;

const LEASE: TimeDelta = TimeDelta::seconds(30);

/// The database. Every request locks it once: that is its transaction.
#[derive(Default)]
struct Server {
    tasks: BTreeMap<TaskId, Row>,
    runs: BTreeMap<(TaskId, RunId), RunRecord>,
    /// The present owner of each node, by node.
    nodes: HashMap<usize, OwnerId>,
    turns: u64,
}

struct Row {
    task: StoredTask,
    claim: Option<(usize, Time)>,
    /// The nodes that have put it off.
    deferred: HashMap<usize, Until>,
}

impl Row {
    /// When `node` may have the task.
    fn due_for(&self, node: usize) -> Option<Time> {
        let until = self.deferred.get(&node).copied().unwrap_or(Until::Now);
        let due = until.from(self.task.state.due()?)?;
        match self.claim {
            Some((owner, until)) if owner != node => Some(due.max(until)),
            _ => Some(due),
        }
    }
}

impl Server {
    fn next_due(&self, node: usize) -> Option<Time> {
        self.tasks.values().filter_map(|row| row.due_for(node)).min()
    }

    fn open(&mut self, node: usize, Open { owner, now }: Open) -> Opened {
        // What this node's earlier life began and did not end; the other nodes live.
        self.nodes.insert(node, owner);
        for row in self.tasks.values_mut() {
            row.deferred.remove(&node);
        }
        let living: Vec<_> = self.nodes.values().copied().collect();
        let dead = self.runs.values_mut().filter(|run| run.end.is_none() && !living.contains(&run.id.owner));
        let interrupted = dead
            .map(|run| {
                let reason = "its node is gone".to_owned();
                run.end = Some(RunEnd::unstarted(Outcome::Interrupted { reason }, now));
                run.clone()
            })
            .collect();
        Opened { capabilities: Node::can(), interrupted, next_due: self.next_due(node), ..Default::default() }
    }

    fn put(&mut self, Put { task, expect }: Put) -> Result<(), StoreError> {
        let id = task.spec.id.clone();
        if matches!(task.spec.handler, Handler::Closure(_)) {
            return Err(StoreError::Unstorable { id, reason: "it is a closure".to_owned() });
        }
        match (self.tasks.get(&id).map(|row| row.task.state.revision), expect) {
            (Some(_), Expect::Absent) => return Err(StoreError::Exists(id)),
            (None, Expect::Revision(_)) => return Err(StoreError::NotFound(id)),
            (Some(there), Expect::Revision(revision)) if there != revision => {
                return Err(StoreError::Changed(id));
            }
            _ => {}
        }
        self.tasks.insert(id, Row { task, claim: None, deferred: HashMap::new() });
        Ok(())
    }

    fn delete(&mut self, Delete { id, revision }: Delete) -> Result<StoredTask, StoreError> {
        match self.tasks.get(&id) {
            None => Err(StoreError::NotFound(id)),
            Some(row) if revision.is_some_and(|wanted| wanted != row.task.state.revision) => {
                Err(StoreError::Changed(id))
            }
            Some(_) => Ok(self.tasks.remove(&id).unwrap().task),
        }
    }

    fn list(&self) -> Vec<StoredTask> {
        let mut tasks: Vec<_> = self.tasks.values().map(|row| row.task.clone()).collect();
        tasks.sort_by(in_order);
        tasks
    }

    fn take_due(&mut self, node: usize, TakeDue { now, limit }: TakeDue) -> Due {
        let mut rows: Vec<_> = self.tasks.values_mut().collect();
        rows.retain(|row| row.due_for(node).is_some_and(|due| due <= now));
        rows.sort_by(|a, b| in_order(&a.task, &b.task));
        rows.sort_by_key(|row| row.due_for(node));
        let more = rows.len() > limit;
        rows.truncate(limit);
        let claimed = rows.into_iter().map(|row| {
            row.claim = Some((node, now + LEASE));
            row.task.clone()
        });
        Due { tasks: claimed.collect(), more }
    }

    fn defer(&mut self, node: usize, Defer { tasks }: Defer) -> Option<Time> {
        for Deferral { id, revision, until } in tasks {
            let row = self.tasks.get_mut(&id).filter(|row| row.task.state.revision == revision);
            let Some(row) = row else { continue };
            row.deferred.insert(node, until);
            // The others may have it.
            row.claim = row.claim.filter(|(owner, _)| *owner != node);
        }
        self.next_due(node)
    }

    fn commit(&mut self, node: usize, Commit { changes }: Commit) -> Committed {
        let mut refused = Vec::new();
        for (index, change) in changes.into_iter().enumerate() {
            match self.tasks.get_mut(&change.id) {
                Some(row) if row.task.state.revision == change.revision => match change.then {
                    Then::State(state) => {
                        row.task.state = state;
                        row.claim = None;
                        row.deferred.clear();
                    }
                    Then::Task(task) => {
                        row.task = task;
                        row.claim = None;
                        row.deferred.clear();
                    }
                    Then::Remove => drop(self.tasks.remove(&change.id)),
                },
                _ => {
                    refused.push(index);
                    continue;
                }
            }
            self.runs.extend(change.runs.into_iter().map(|run| ((run.task.clone(), run.id), run)));
        }
        Committed { refused, next_due: self.next_due(node) }
    }

    fn finish(&mut self, Finish { ends }: Finish) {
        for (id, task, end) in ends {
            if let Some(run) = self.runs.get_mut(&(task, id)) {
                run.end = Some(end);
            }
        }
    }

    fn runs(&self, Runs { id, limit }: Runs) -> Vec<RunRecord> {
        self.runs
            .iter()
            .rev()
            .filter(|((task, _), _)| *task == id)
            .take(limit)
            .map(|(_, r)| r.clone())
            .collect()
    }

    /// Answers are on their way for 0 to 6 turns.
    fn turns(&mut self) -> u64 {
        self.turns =
            self.turns.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.turns >> 33) % 7
    }
}

/// One scheduler's connection.
struct Node {
    number: usize,
    server: Arc<Mutex<Server>>,
}

impl Node {
    fn can() -> Capabilities {
        Capabilities { durable: true, records: true, closures: false, blocking: false, shared: true }
    }

    fn ask<T: 'static>(
        &self,
        request: impl FnOnce(&mut Server, usize) -> Result<T, StoreError> + 'static,
    ) -> Reply<T> {
        let (server, number) = (self.server.clone(), self.number);
        Reply::later(async move {
            let way = async || {
                let turns = server.lock().unwrap().turns();
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
            };
            way().await;
            let answer = request(&mut server.lock().unwrap(), number);
            way().await;
            answer
        })
    }
}

impl Backend for Node {
    fn capabilities(&self) -> Capabilities {
        Self::can()
    }
    fn open(&mut self, request: Open) -> Reply<Opened> {
        self.ask(|server, node| Ok(server.open(node, request)))
    }
    fn put(&mut self, request: Put) -> Reply<()> {
        self.ask(|server, _| server.put(request))
    }
    fn delete(&mut self, request: Delete) -> Reply<StoredTask> {
        self.ask(|server, _| server.delete(request))
    }
    fn get(&mut self, request: Get) -> Reply<Option<StoredTask>> {
        self.ask(move |server, _| Ok(server.tasks.get(&request.id).map(|row| row.task.clone())))
    }
    fn list(&mut self, _: List) -> Reply<Vec<StoredTask>> {
        self.ask(|server, _| Ok(server.list()))
    }
    fn take_due(&mut self, request: TakeDue) -> Reply<Due> {
        self.ask(move |server, node| Ok(server.take_due(node, request)))
    }
    fn defer(&mut self, request: Defer) -> Reply<Option<Time>> {
        self.ask(|server, node| Ok(server.defer(node, request)))
    }
    fn commit(&mut self, request: Commit) -> Reply<Committed> {
        self.ask(|server, node| Ok(server.commit(node, request)))
    }
    fn finish(&mut self, request: Finish) -> Reply<()> {
        self.ask(|server, _| {
            server.finish(request);
            Ok(())
        })
    }
    fn next_due(&mut self, _: NextDue) -> Reply<Option<Time>> {
        self.ask(|server, node| Ok(server.next_due(node)))
    }
    fn runs(&mut self, request: Runs) -> Reply<Vec<RunRecord>> {
        self.ask(|server, _| Ok(server.runs(request)))
    }
    fn remove_all(&mut self, _: RemoveAll) -> Reply<usize> {
        self.ask(|server, _| Ok(std::mem::take(&mut server.tasks).len()))
    }
    fn close(&mut self, _: Close) -> Reply<()> {
        Reply::Now(Ok(()))
    }
}

fn connect(server: &Arc<Mutex<Server>>, number: usize) -> BackendSource<Node> {
    let server = server.clone();
    BackendSource::new(move || Node { number, server: server.clone() })
}

async fn node(server: &Arc<Mutex<Server>>, number: usize) -> StoreAddr {
    let store = connect(server, number).start(Box::new(()));
    store.open(Open { owner: OwnerId(number as u64), now: start() }).await.unwrap();
    store
}

fn fresh() -> BackendSource<Node> {
    connect(&Arc::default(), 0)
}

fn moved_on(task: &StoredTask, by: TimeDelta) -> Change {
    let mut state = TaskState { revision: task.state.revision + 1, ..task.state.clone() };
    if let Some(fire) = &mut state.next {
        fire.due += by;
    }
    Change {
        id: task.spec.id.clone(),
        revision: task.state.revision,
        then: Then::State(state),
        runs: Vec::new(),
    }
}

#[test]
fn a_network_store_keeps_the_contract() {
    system(suite(fresh));
}

#[test]
fn a_network_store_agrees_with_the_model() {
    for seed in 0..10 {
        system(random(fresh, seed, 300));
    }
}

#[test]
fn a_network_store_is_durable() {
    let server = Arc::default();
    system(durable(|| connect(&server, 0)));
}

/// Two schedulers on one database: each due task goes to one of them, and on when the lease ends.
#[test]
fn leases_share_out_what_is_due() {
    system(async {
        let server = Arc::default();
        let (one, two) = (node(&server, 1).await, node(&server, 2).await);
        for index in 0..20 {
            let task = sample(&format!("{index:02}"), start());
            one.put(Put { task, expect: Expect::Absent }).await.unwrap();
        }
        let take = |limit| TakeDue { now: start(), limit };
        let taken = join_all([one.take_due(take(7)), two.take_due(take(7)), one.take_due(take(7))]).await;
        let [first, second, again]: [_; 3] =
            taken.into_iter().map(|due| due.unwrap().tasks).collect::<Vec<_>>().try_into().unwrap();
        assert!(first.iter().all(|task| !second.contains(task)), "no task goes to both");
        assert_eq!(first, again, "the owner of a claim is handed the same again");
        let rest = two.take_due(take(99)).await.unwrap().tasks;
        assert_eq!(rest.len(), 13, "a node has its own claims and what nobody has claimed");
        // Node 1 has nothing but its claims; it wakes up again when those of the other end.
        let changes = first.iter().map(|task| moved_on(task, TimeDelta::days(1))).collect();
        let committed = one.commit(Commit { changes }).await.unwrap();
        assert_eq!(committed, Committed { refused: vec![], next_due: Some(start() + LEASE) });
        assert_eq!(one.take_due(take(99)).await.unwrap().tasks, []);
        let late = TakeDue { now: start() + LEASE, limit: 99 };
        assert_eq!(one.take_due(late).await.unwrap().tasks, rest, "the claims of a silent node pass on");
        let changes: Vec<_> = rest.iter().map(|task| moved_on(task, TimeDelta::days(1))).collect();
        let (a, b) = futures::join!(
            one.commit(Commit { changes: changes.clone() }),
            two.commit(Commit { changes: changes.clone() })
        );
        let refused = [a.unwrap().refused.len(), b.unwrap().refused.len()];
        assert!(refused == [0, 13] || refused == [13, 0], "each task is moved on once: {refused:?}");
    });
}

/// An error may mean that nothing happened or that only the answer was lost. Either way trying
/// again is safe: revisions tell whether it was done.
#[test]
fn a_lost_answer_does_no_harm() {
    system(async {
        let server: Arc<Mutex<Server>> = Arc::default();
        let faults = Faults::new();
        let mut source = BackendSource::new({
            let (server, faults) = (server.clone(), faults.clone());
            move || faults.around(Node { number: 1, server: server.clone() })
        });
        let store = source.start(Box::new(()));
        let broken = || StoreError::unavailable("connection reset");
        let task = sample("a", start());
        let put = || store.put(Put { task: task.clone(), expect: Expect::Absent });
        faults.fail(Op::Put, broken());
        faults.lose(Op::Put, broken());
        assert!(put().await.unwrap_err().is_retryable());
        assert_eq!(store.get(Get { id: task.spec.id.clone() }).await.unwrap(), None);
        assert!(put().await.unwrap_err().is_retryable());
        assert!(matches!(put().await, Err(StoreError::Exists(_))), "it was done after all");

        let commit = || store.commit(Commit { changes: vec![moved_on(&task, TimeDelta::seconds(5))] });
        faults.fail(Op::Commit, broken());
        faults.lose(Op::Commit, broken());
        commit().await.unwrap_err();
        commit().await.unwrap_err();
        assert_eq!(commit().await.unwrap().refused, [0], "it is not done twice");
        assert_eq!(store.next_due(NextDue).await.unwrap(), Some(start() + TimeDelta::seconds(5)));
        assert_eq!(faults.left(), 0);
    });
}

/// Requests overtake each other; each is whole all the same.
#[test]
fn answers_come_out_of_order() {
    system(async {
        let store = node(&Arc::default(), 1).await;
        let order = std::cell::RefCell::new(Vec::new());
        let puts = (0..50).map(|index| {
            let request =
                store.put(Put { task: sample(&format!("{index:02}"), start()), expect: Expect::Absent });
            let order = &order;
            async move {
                request.await.unwrap();
                order.borrow_mut().push(index);
            }
        });
        join_all(puts).await;
        assert!(!order.borrow().is_sorted(), "the double does mix up its answers");
        assert_eq!(store.list(List).await.unwrap().len(), 50);
    });
}

/// Once the store has begun with a change, it is made even if nobody waits for it any more, and
/// closing the store waits for it.
#[test]
fn a_change_is_completed_without_its_requester() {
    system(async {
        let server: Arc<Mutex<Server>> = Arc::default();
        let store = node(&server, 1).await;
        let mut requests: Vec<_> = (0..50)
            .map(|index| {
                let task = sample(&format!("{index:02}"), start());
                Box::pin(store.put(Put { task, expect: Expect::Absent }))
            })
            .collect();
        for request in &mut requests {
            assert!(futures::poll!(request).is_pending());
        }
        // Handled behind the others, so that those have been begun with; most are still under way.
        let mut close = Box::pin(store.close(Close));
        assert!(futures::poll!(&mut close).is_pending());
        tokio::task::yield_now().await;
        drop((requests, store));
        close.await.unwrap();
        assert_eq!(server.lock().unwrap().tasks.len(), 50);
    });
}
