//! The redb store on directories that are not as they should be. What it shares with the sled store
//! is tested in `damaged`.

use std::fs;
use std::path::Path;

use ::redb::{Database, ReadableDatabase, TableDefinition};
use callboard::store::message::*;
use callboard::store::{RedbStore, StoreError};

use super::sled::{Running, id, moved_on, run};
use super::system;

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("callboard");

async fn open(path: &Path) -> Result<(Running, Opened), StoreError> {
    Running::open_with(RedbStore::open(path)?).await
}

#[test]
fn the_data_of_another_program_is_left_alone() {
    let base = tempfile::tempdir().unwrap();
    let db = Database::create(base.path().join("tasks.redb")).unwrap();
    let write = db.begin_write().unwrap();
    write.open_table(TableDefinition::<u64, u64>::new("theirs")).unwrap().insert(1, 2).unwrap();
    write.commit().unwrap();
    drop(db);
    let error = system(async { open(base.path()).await.map(|_| ()).unwrap_err() });
    assert!(error.to_string().contains("another program"), "{error}");
}

#[test]
fn what_cannot_be_read_is_reported_and_left_alone() {
    let base = tempfile::tempdir().unwrap();
    system(async {
        let (store, _) = open(base.path()).await.unwrap();
        let task = store.put("fine").await;
        store.put("newer").await;
        let runs = vec![run("fine", 1), run("fine", 2)];
        store.0.commit(Commit { changes: vec![moved_on(&task, runs)] }).await.unwrap();
        store.stop().await;

        let file = base.path().join("tasks.redb");
        let db = Database::create(&file).unwrap();
        let write = db.begin_write().unwrap();
        let broken = [b"rfine\0".as_slice(), &1_u64.to_be_bytes(), &2_u64.to_be_bytes()].concat();
        {
            let mut table = write.open_table(TABLE).unwrap();
            table.insert(b"snewer".as_slice(), b"S\x09j{}".as_slice()).unwrap();
            assert!(table.insert(broken.as_slice(), b"R\x01j{".as_slice()).unwrap().is_some());
        }
        write.commit().unwrap();
        drop(db);

        let (store, opened) = open(base.path()).await.unwrap();
        let reported: Vec<_> = opened.unreadable.iter().map(|u| u.id.as_str()).collect();
        assert_eq!(reported, ["fine", "newer"]);
        assert!(opened.unreadable[0].reason.contains("run 0000000000000001-2"), "{:?}", opened.unreadable);
        assert!(opened.unreadable[1].reason.contains("format 9"), "{:?}", opened.unreadable);
        assert_eq!(store.0.runs(Runs { id: id("fine"), limit: 9 }).await.unwrap(), [run("fine", 1)]);
        store.0.get(Get { id: id("newer") }).await.unwrap_err();
        assert_eq!(store.0.remove_all(RemoveAll).await.unwrap(), 1);
        store.stop().await;
        let db = Database::create(&file).unwrap();
        let table = db.begin_read().unwrap().open_table(TABLE).unwrap();
        assert_eq!(table.get(b"snewer".as_slice()).unwrap().unwrap().value(), b"S\x09j{}");
        assert_eq!(table.get(broken.as_slice()).unwrap().unwrap().value(), b"R\x01j{");
    });
}

/// redb itself does not open what it has not made to its end. A process can be killed at any moment, so
/// nothing unfinished may ever lie where the data is looked for.
#[test]
fn a_beginning_that_is_cut_short_is_no_damage() {
    use std::sync::atomic::{AtomicBool, Ordering};

    let base = tempfile::tempdir().unwrap();
    for round in 0..10 {
        let path = base.path().join(round.to_string());
        let made = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let seen = scope.spawn(|| {
                let mut unfinished = 0;
                while !made.load(Ordering::Acquire) {
                    let begin = fs::read(path.join("tasks.redb"));
                    unfinished += usize::from(begin.is_ok_and(|bytes| !bytes.starts_with(b"redb")));
                }
                unfinished
            });
            system(async { open(&path).await.unwrap().0.stop().await });
            made.store(true, Ordering::Release);
            assert_eq!(seen.join().unwrap(), 0, "round {round}");
        });
        // What a killed process leaves behind is in nobody's way.
        fs::remove_dir_all(&path).unwrap();
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("tasks.redb.new"), vec![0; 1 << 20]).unwrap();
        system(async { open(&path).await.unwrap().0.stop().await });
    }
}
