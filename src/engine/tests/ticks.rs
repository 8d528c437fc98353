//! Transactions, ticks, views and those who follow them, without a journal.

use std::time::Duration;

use super::fixture::{Db, delete, delta_text, insert, rows, text};
use crate::engine::{CollectionId, Delta, InputChange, SubscribeFrom, TickDelta, Transaction};
use crate::error::SqlState;

const SECOND: Duration = Duration::from_secs(5);

#[test]
fn a_view_follows_its_input() {
    let mut db = Db::volatile();
    db.input("t", &[]);
    db.view("v", "select k, v + 1 as w from t where v > 0");
    db.insert("t", &[(1, "a", 10), (2, "b", -1)]);
    assert_eq!(db.rows("v"), ["1|11"]);
    db.insert("t", &[(3, "c", 5)]);
    db.delete("t", &[(1, "a", 10)]);
    assert_eq!(db.rows("v"), ["3|6"]);
    assert_eq!(db.rows("t"), ["2|b|-1", "3|c|5"]);
}

#[test]
fn a_transaction_is_seen_whole_in_every_view() {
    let mut db = Db::volatile();
    let (a, b) = (db.input("a", &[]), db.input("b", &[]));
    db.view("va", "select k from a");
    db.view("vb", "select k from b");
    let engine = db.engine.clone();
    let (va, vb) = (db.id("va"), db.id("vb"));
    let writer = std::thread::spawn(move || {
        for i in 0..300 {
            let changes = vec![insert(a, &[(i, "", 0)]), insert(b, &[(i, "", 0)])];
            engine.submit(Transaction { changes, progress: vec![] }).wait().unwrap();
        }
    });
    while !writer.is_finished() {
        let snapshot = db.engine.snapshot();
        let count = |id| snapshot.collection(id).unwrap().num_rows();
        assert_eq!(count(va), count(vb));
        assert_eq!(count(va), count(a));
    }
    writer.join().unwrap();
    assert_eq!(db.rows("va").len(), 300);
}

#[test]
fn a_failing_transaction_fails_alone_and_whole() {
    let mut db = Db::volatile();
    let t = db.input("t", &[]);
    let k = db.input("k", &[0]);
    db.view("v", "select * from t");
    db.upsert("k", &[(1, "a", 1)]);
    let nobody = CollectionId(99);
    let bad = db.submit(vec![
        insert(t, &[(1, "a", 1)]),
        (k, InputChange::Upsert { rows: rows(&[(1, "b", 2), (2, "c", 3)]), deletes: None }),
        (k, InputChange::Truncate),
        insert(nobody, &[(2, "a", 2)]),
    ]);
    let good = db.submit(vec![insert(t, &[(3, "a", 3)])]);
    assert_eq!(bad.wait().unwrap_err().sqlstate, SqlState::UNDEFINED_TABLE);
    good.wait().unwrap();
    assert_eq!(db.rows("v"), ["3|a|3"]);
    assert_eq!(db.rows("k"), ["1|a|1"]);
    let into_view = db.submit(vec![insert(db.id("v"), &[(1, "a", 1)])]);
    assert_eq!(into_view.wait().unwrap_err().sqlstate, SqlState::WRONG_OBJECT_TYPE);
    let other_columns = Delta::insert(rows(&[(1, "a", 1)]).project(&[1]).unwrap());
    let receipt = db.submit(vec![(t, InputChange::Delta(other_columns))]);
    assert!(receipt.wait().is_err());
    assert_eq!(db.rows("v"), ["3|a|3"]);
}

#[test]
fn a_key_has_one_row() {
    let mut db = Db::volatile();
    let t = db.input("t", &[0]);
    db.view("v", "select g, v from t");
    db.upsert("t", &[(1, "a", 1), (2, "b", 2), (1, "c", 3)]);
    assert_eq!(db.rows("v"), ["b|2", "c|3"]);
    let deletes = Some(vec![true, false].into());
    let change = InputChange::Upsert { rows: rows(&[(2, "", 0), (7, "z", 9)]), deletes };
    db.submit(vec![(t, change)]).wait().unwrap();
    assert_eq!(db.rows("v"), ["c|3", "z|9"]);
    db.submit(vec![(t, InputChange::Truncate)]).wait().unwrap();
    assert!(db.rows("v").is_empty());
}

#[test]
fn views_on_views_and_dropping_them() {
    let mut db = Db::volatile();
    let t = db.input("t", &[]);
    db.insert("t", &[(1, "a", 1), (2, "b", 2)]);
    let v = db.view("v", "select k, v * 10 as v from t");
    let w = db.view("w", "select v + 1 as x from v where k > 1");
    assert_eq!(db.rows("w"), ["21"]);
    db.insert("t", &[(3, "c", 3)]);
    assert_eq!(db.rows("w"), ["21", "31"]);
    let error = db.engine.drop_collections(&[t, v]).unwrap_err();
    assert_eq!(error.sqlstate, SqlState::DEPENDENT_OBJECTS_STILL_EXIST);
    let followed = db.engine.subscribe(w, SubscribeFrom::Now).unwrap();
    db.engine.drop_collections(&[w, v]).unwrap();
    assert_eq!(followed.recv_timeout(SECOND).unwrap_err().sqlstate, SqlState::UNDEFINED_TABLE);
    assert!(db.engine.snapshot().collection(v).is_none());
    db.insert("t", &[(4, "d", 4)]);
    assert_eq!(db.rows("t").len(), 4);
    // Slots are used again, and the new view has nothing of the old one.
    db.view("u", "select k from t where k <> 2");
    db.insert("t", &[(5, "e", 5)]);
    assert_eq!(db.rows("u"), ["1", "3", "4", "5"]);
    assert_eq!(db.engine.drop_collections(&[w]).unwrap_err().sqlstate, SqlState::UNDEFINED_TABLE);
}

#[test]
fn a_subscription_sees_net_changes_of_each_tick() {
    let mut db = Db::volatile();
    let t = db.input("t", &[0]);
    db.upsert("t", &[(1, "a", 1)]);
    let v = db.view("v", "select k, v from t");
    let mut from_snapshot = db.engine.subscribe(v, SubscribeFrom::Snapshot).unwrap();
    assert_eq!(text(&from_snapshot.snapshot().unwrap().batches().unwrap()), ["1|1"]);
    let of_input = db.engine.subscribe(t, SubscribeFrom::Now).unwrap();
    let tick = db.upsert("t", &[(1, "a", 2), (2, "b", 5)]);
    let change = futures::executor::block_on(from_snapshot.recv()).unwrap();
    assert_eq!(change.tick, tick);
    assert_eq!(delta_text(&change.delta.unwrap()), ["+1 1|2", "+1 2|5", "-1 1|1"]);
    let change = of_input.recv_timeout(SECOND).unwrap().unwrap();
    assert_eq!(delta_text(&change.delta.unwrap()), ["+1 1|a|2", "+1 2|b|5", "-1 1|a|1"]);
    // What cancels within a tick is not seen; that time has passed is.
    let changes = vec![insert(t, &[(9, "x", 9)]), delete(t, &[(9, "x", 9)])];
    let tick = db.submit(changes).wait().unwrap();
    let passed = from_snapshot.recv_timeout(Duration::from_millis(1)).unwrap().unwrap();
    assert_eq!((passed.tick, passed.delta.is_none()), (tick, true));
    assert!(from_snapshot.try_recv().unwrap().is_none());
    // A column that the view does not show changes: nothing for its followers.
    db.upsert("t", &[(2, "other", 5)]);
    assert!(from_snapshot.try_recv().unwrap().unwrap().delta.is_none());
    assert!(matches!(of_input.try_recv(), Ok(Some(TickDelta { delta: Some(_), .. }))));
    db.engine.shutdown();
    let mut last = from_snapshot.try_recv();
    while let Ok(Some(_)) = last {
        last = from_snapshot.try_recv();
    }
    assert_eq!(last.unwrap_err().sqlstate, SqlState::ADMIN_SHUTDOWN);
}

#[test]
fn an_error_of_a_row_is_an_error_of_the_views_that_lack_it() {
    let mut db = Db::volatile();
    db.input("t", &[]);
    db.view("v", "select k, 10 / v as q from t");
    db.view("w", "select q from v");
    db.view("other", "select k from t");
    db.insert("t", &[(1, "a", 2), (2, "b", 0)]);
    let errors =
        |db: &Db, name: &str| db.engine.snapshot().collection(db.id(name)).unwrap().errors().to_vec();
    for view in ["v", "w"] {
        let errors = errors(&db, view);
        assert_eq!(errors.len(), 1, "{view}");
        assert_eq!(errors[0].error.sqlstate, SqlState::DIVISION_BY_ZERO);
    }
    assert!(errors(&db, "other").is_empty());
    assert_eq!(db.rows("other"), ["1", "2"]);
    db.view("late", "select q + 1 as q from v");
    assert_eq!(errors(&db, "late").len(), 1);
    db.delete("t", &[(2, "b", 0)]);
    for view in ["v", "w", "late"] {
        assert!(errors(&db, view).is_empty(), "{view}");
    }
    assert_eq!(db.rows("late"), ["6"]);
}

#[test]
fn a_source_goes_on_from_what_was_applied() {
    let mut db = Db::volatile();
    let t = db.input("t", &[]);
    let nobody = CollectionId(99);
    let batch = |id, n: i64| Transaction {
        changes: vec![insert(id, &[(n, "a", n)])],
        progress: vec![("s".to_string(), n.to_be_bytes().to_vec())],
    };
    assert_eq!(db.engine.resume_source("s").unwrap(), None);
    // Handed over without waiting: what follows the one that fails must not be applied either.
    let receipts: Vec<_> = [(t, 1), (t, 2), (nobody, 3), (t, 4), (t, 5)]
        .into_iter()
        .map(|(id, n)| db.engine.submit(batch(id, n)))
        .collect();
    let applied: Vec<bool> = receipts.into_iter().map(|r| r.wait().is_ok()).collect();
    assert_eq!(applied, [true, true, false, false, false]);
    assert!(db.engine.submit(batch(t, 6)).wait().is_err());
    let other = Transaction { progress: vec![("other".to_string(), vec![1])], ..batch(t, 100) };
    db.engine.submit(other).wait().unwrap();
    assert_eq!(db.engine.resume_source("s").unwrap(), Some(2i64.to_be_bytes().to_vec()));
    for n in 3..6 {
        drop(db.engine.submit(batch(t, n)));
    }
    // The position is that of the last one queued before, applied in the same tick or not.
    assert_eq!(db.engine.resume_source("s").unwrap(), Some(5i64.to_be_bytes().to_vec()));
    assert_eq!(db.rows("t"), ["100|a|100", "1|a|1", "2|a|2", "3|a|3", "4|a|4", "5|a|5"]);
}
