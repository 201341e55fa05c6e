//! The actor around a backend: panics, late answers, requesters that went away, closing.

use callboard::store::contract::{sample, start};
use callboard::store::message::*;
use callboard::store::{BackendSource, Faults, MemoryBackend, Op, StoreAddr, StoreSource};
use callboard::task::{OwnerId, TaskId};
use futures::channel::oneshot;
use futures::poll;

use super::system;

fn faulty() -> (Faults, impl StoreSource) {
    let faults = Faults::new();
    let source = BackendSource::keeping(faults.around(MemoryBackend::default()));
    (faults, source)
}

fn launch(source: &mut impl StoreSource) -> (StoreAddr, oneshot::Receiver<()>) {
    let (keep, ended) = oneshot::channel::<()>();
    (source.start(Box::new(keep)), ended)
}

fn put(id: &str) -> Put {
    Put { task: sample(id, start()), expect: Expect::Absent }
}

fn get(id: &str) -> Get {
    Get { id: TaskId::new(id).unwrap() }
}

#[test]
fn a_panic_is_answered_and_the_successor_has_all_tasks() {
    system(async {
        let (faults, mut source) = faulty();
        let (store, ended) = launch(&mut source);
        store.put(put("a")).await.unwrap();
        for op in [Op::Put, Op::TakeDue] {
            faults.panic(op);
        }
        // Sent before anybody knows of the panic: answered all the same.
        let (panicked, behind) = futures::join!(store.put(put("b")), store.get(get("a")));
        let panicked = panicked.unwrap_err();
        assert!(
            panicked.is_retryable() && panicked.to_string().contains("as the test asked for"),
            "{panicked}"
        );
        assert!(behind.unwrap_err().is_retryable());
        ended.await.unwrap_err();
        assert!(store.get(get("a")).await.unwrap_err().is_retryable(), "the dead actor's address is dead");

        let (store, ended) = launch(&mut source);
        let opened = store.open(Open { owner: OwnerId(1), now: start() }).await.unwrap();
        assert_eq!(opened.next_due, Some(start()));
        store.take_due(TakeDue { now: start(), limit: 9 }).await.unwrap_err();
        ended.await.unwrap_err();

        let (store, _) = launch(&mut source);
        store.open(Open { owner: OwnerId(1), now: start() }).await.unwrap();
        store.put(put("b")).await.unwrap();
        let due = store.take_due(TakeDue { now: start(), limit: 9 }).await.unwrap();
        assert_eq!((due.tasks.len(), store.list(List).await.unwrap().len()), (2, 2));
    });
}

/// A backend on an arbiter of its own lets go of everything when it panics.
#[test]
fn a_panic_ends_the_own_arbiter_too() {
    struct Blocking(Option<oneshot::Sender<()>>);
    let (hold, thread_ended) = oneshot::channel::<()>();
    thread_local!(static HELD: std::cell::RefCell<Option<oneshot::Sender<()>>> = const { std::cell::RefCell::new(None) });

    macro_rules! unused {
        ($($method:ident($request:ident) -> $answer:ty),+ $(,)?) => {$(
            fn $method(&mut self, _: $request) -> callboard::store::Reply<$answer> {
                unreachable!("not part of this test")
            }
        )+};
    }
    impl callboard::store::Backend for Blocking {
        fn capabilities(&self) -> callboard::store::Capabilities {
            callboard::store::Capabilities { blocking: true, ..Default::default() }
        }
        fn next_due(&mut self, _: NextDue) -> callboard::store::Reply<Option<chrono::DateTime<chrono::Utc>>> {
            // Dropped with the thread that the arbiter is.
            HELD.set(self.0.take());
            panic!("on purpose")
        }
        unused! {
            open(Open) -> Opened, put(Put) -> (), delete(Delete) -> callboard::task::StoredTask,
            get(Get) -> Option<callboard::task::StoredTask>, list(List) -> Vec<callboard::task::StoredTask>,
            take_due(TakeDue) -> Due, defer(Defer) -> Option<chrono::DateTime<chrono::Utc>>, commit(Commit) -> Committed, finish(Finish) -> (),
            runs(Runs) -> Vec<callboard::task::RunRecord>, remove_all(RemoveAll) -> usize, close(Close) -> (),
        }
    }
    system(async {
        let mut hold = Some(hold);
        let mut source = BackendSource::new(move || Blocking(hold.take()));
        let (store, ended) = launch(&mut source);
        store.next_due(NextDue).await.unwrap_err();
        ended.await.unwrap_err();
        thread_ended.await.unwrap_err();
    });
}

#[test]
fn a_late_answer_holds_nothing_up() {
    system(async {
        let (faults, mut source) = faulty();
        let (store, _ended) = launch(&mut source);
        let release = faults.hold(Op::Put);
        let mut late = Box::pin(store.put(put("a")));
        assert!(poll!(&mut late).is_pending());
        store.put(put("b")).await.unwrap();
        assert!(poll!(&mut late).is_pending());
        drop(release);
        late.await.unwrap();
    });
}

#[test]
fn closing_waits_for_what_is_under_way_and_lets_nothing_else_in() {
    system(async {
        let (faults, mut source) = faulty();
        let (store, ended) = launch(&mut source);
        let release = faults.hold(Op::Commit);
        let mut commit = Box::pin(store.commit(Commit { changes: vec![] }));
        assert!(poll!(&mut commit).is_pending());
        let mut close = Box::pin(store.close(Close));
        assert!(poll!(&mut close).is_pending());
        let refused = store.put(put("a")).await.unwrap_err();
        assert!(refused.to_string().contains("being closed"), "{refused}");
        assert!(poll!(&mut close).is_pending());
        drop(release);
        commit.await.unwrap();
        close.await.unwrap();
        ended.await.unwrap_err();
    });
}
