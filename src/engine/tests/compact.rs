//! A journal that stays short, and what may not be forgotten.

use std::path::Path;
use std::time::{Duration, Instant};

use super::fixture::Db;
use super::journal::config;
use crate::engine::{EngineConfig, SubscribeFrom, Tick, Transaction};
use crate::error::SqlState;

fn open(dir: &Path) -> Db {
    let mut db = Db::open(EngineConfig { compact_bytes_min: 20_000, ..config(dir) });
    db.input("k", &[0]);
    db.view("v", "select k, v from k where v >= 0");
    db
}

/// Many small ticks over few keys; answers with the last one.
fn churn(db: &Db, ticks: i64) -> Tick {
    let mut last = 0;
    for i in 0..ticks {
        let change = crate::engine::InputChange::Upsert {
            rows: super::fixture::rows(&[(i % 10, "some text to fill the journal", i)]),
            deletes: None,
        };
        let progress = vec![("s".to_string(), i.to_be_bytes().to_vec())];
        let changes = vec![(db.id("k"), change)];
        last = db.engine.submit(Transaction { changes, progress }).wait().unwrap();
    }
    last
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "waited for {what} in vain");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_compacted_journal_says_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    db.engine.replay(&[]).unwrap();
    churn(&db, 100);
    wait_for("a base", || {
        churn(&db, 1);
        db.engine.stats().base_bytes > 0
    });
    churn(&db, 100);
    wait_for("a short journal", || {
        churn(&db, 1);
        db.engine.stats().journal_bytes < 30_000
    });
    let last = churn(&db, 5);
    let rows = db.rows("v");
    assert_eq!(db.engine.stats().compaction_error, None);
    drop(db);
    for _ in 0..2 {
        let db = open(dir.path());
        let report = db.engine.replay(&[]).unwrap();
        assert!(report.base_tick > 0 && report.base_tick <= last, "{report:?}");
        assert_eq!(db.engine.tick(), last);
        assert_eq!(db.rows("v"), rows);
        assert_eq!(db.engine.progress("s"), Some(4i64.to_be_bytes().to_vec()));
    }
}

#[test]
fn a_held_tick_can_still_be_gone_back_to() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    db.engine.replay(&[]).unwrap();
    let held = churn(&db, 10);
    let rows = db.rows("v");
    db.engine.hold_journal("sink", Some(held));
    let last = churn(&db, 200);
    std::thread::sleep(Duration::from_millis(50));
    churn(&db, 1);
    assert_eq!(db.engine.stats().base_bytes, 0);
    drop(db);

    let db = open(dir.path());
    db.engine.hold_journal("sink", Some(held));
    let followed = db.engine.subscribe_kept(db.id("v"), SubscribeFrom::After(held)).unwrap();
    let all = db.engine.subscribe_kept(db.id("v"), SubscribeFrom::After(0)).unwrap();
    db.engine.replay(&[0, held]).unwrap();
    let before = all.try_recv().unwrap().unwrap();
    assert_eq!(before.tick, held);
    let then: Vec<String> = super::fixture::delta_text(&before.delta.unwrap());
    assert_eq!(then, rows.iter().map(|r| format!("+1 {r}")).collect::<Vec<_>>());
    assert!(followed.try_recv().unwrap().unwrap().tick > last);

    // Let go of, it is forgotten, and can be asked for no longer.
    churn(&db, 1);
    db.engine.hold_journal("sink", None);
    wait_for("a base", || {
        churn(&db, 1);
        db.engine.stats().base_bytes > 0
    });
    drop((db, followed, all));
    let db = open(dir.path());
    assert_eq!(db.engine.replay(&[held]).unwrap_err().sqlstate, SqlState::DATA_CORRUPTED);
}

#[test]
fn history_of_inputs_that_keep_no_rows_is_carried_over() {
    let dir = tempfile::tempdir().unwrap();
    let make = |views: usize| {
        let mut db = Db::open(EngineConfig { compact_bytes_min: 20_000, ..config(dir.path()) });
        db.input_with("s", &[], false);
        db.input("k", &[0]);
        for view in 0..views {
            db.view(&format!("v{view}"), "select k from s");
        }
        db.engine.replay(&[]).unwrap();
        db
    };
    let mut db = make(0);
    db.insert("s", &[(1, "a", 1)]);
    db.view("v0", "select k from s");
    db.insert("s", &[(2, "b", 2)]);
    churn(&db, 50);
    db.view("v1", "select k from s");
    db.insert("s", &[(3, "c", 3)]);
    wait_for("two bases, one after the other", || {
        churn(&db, 20);
        let stats = db.engine.stats();
        stats.base_bytes > 0 && stats.tick > 400
    });
    db.insert("s", &[(4, "d", 4)]);
    let (k, last) = (db.rows("k"), db.engine.tick());
    drop(db);
    let db = make(2);
    assert_eq!(db.engine.tick(), last);
    assert_eq!(db.rows("v0"), ["2", "3", "4"]);
    assert_eq!(db.rows("v1"), ["3", "4"]);
    assert_eq!(db.rows("k"), k);
}

#[test]
fn an_interrupted_compaction_is_cleared_away() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    db.engine.replay(&[]).unwrap();
    churn(&db, 20);
    let rows = db.rows("v");
    drop(db);
    std::fs::write(dir.path().join("base-00000000000000000007"), b"half a base").unwrap();
    std::fs::write(dir.path().join("CURRENT.tmp"), b"7").unwrap();
    let db = open(dir.path());
    db.engine.replay(&[]).unwrap();
    assert_eq!(db.rows("v"), rows);
    assert!(!dir.path().join("base-00000000000000000007").exists());
    assert!(!dir.path().join("CURRENT.tmp").exists());
    drop(db);
    std::fs::write(dir.path().join("CURRENT"), b"7 00000000\n").unwrap();
    let error = crate::engine::Engine::open(config(dir.path())).err().unwrap();
    assert_eq!(error.sqlstate, SqlState::DATA_CORRUPTED);
}
