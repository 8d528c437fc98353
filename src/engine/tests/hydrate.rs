//! Views that come and go while data flows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use super::fixture::{Db, delete, insert, rows};
use crate::engine::serve;
use crate::engine::{InputChange, SubscribeFrom, Transaction};
use crate::error::SqlState;

#[test]
fn a_late_view_has_what_came_before() {
    let mut db = Db::volatile();
    db.input("t", &[]);
    for i in 0..40 {
        let values: Vec<(i64, &str, i64)> = (0..1000).map(|k| (i * 1000 + k, "a", k)).collect();
        db.insert("t", &values);
    }
    db.delete("t", &[(5, "a", 5)]);
    db.view("v", "select k from t where v < 10");
    db.view("w", "select k + 1 as k from v");
    assert_eq!(db.rows("v").len(), 399);
    assert_eq!(db.rows("w").len(), 399);
    db.view("one", "select 1 as x union all select 2");
    assert_eq!(db.rows("one"), ["1", "2"]);
}

#[test]
fn a_view_created_while_data_flows_equals_its_query() {
    let mut db = Db::volatile();
    let t = db.input("t", &[]);
    let k = db.input("k", &[0]);
    let stop = Arc::new(AtomicBool::new(false));
    let next = Arc::new(AtomicI64::new(0));
    // Four writers at once, of inserts, deletes of what they inserted, and updates by key.
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let (engine, stop, next) = (db.engine.clone(), Arc::clone(&stop), Arc::clone(&next));
            std::thread::spawn(move || {
                let mut mine = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let values: Vec<(i64, &str, i64)> = (0..50).map(|j| (i * 50 + j, "g", i % 7)).collect();
                    let mut changes = vec![insert(t, &values)];
                    let upsert = rows(&[(i % 100, "h", i)]);
                    changes.push((k, InputChange::Upsert { rows: upsert, deletes: None }));
                    mine.push(values);
                    if mine.len() > 10 {
                        changes.push(delete(t, &mine.remove(3)));
                    }
                    engine.submit(Transaction { changes, progress: vec![] }).wait().unwrap();
                }
            })
        })
        .collect();
    let queries = [
        "select k, v from t where v > 2",
        "select k * 2 as x, v from k where k < 60",
        "select k, g, v from t union all select k, g, v from k",
    ];
    let mut views = Vec::new();
    for (round, query) in queries.iter().cycle().take(12).enumerate() {
        while next.load(Ordering::Relaxed) < 20 * round as i64 {
            std::thread::yield_now();
        }
        let name = format!("v{round}");
        db.view(&name, query);
        views.push((name, *query));
        if round % 3 == 2 {
            let (name, _) = views.remove(0);
            db.engine.drop_collections(&[db.id(&name)]).unwrap();
        }
    }
    // While everything still moves: each snapshot is consistent in itself.
    for _ in 0..20 {
        for (name, query) in &views {
            assert_equals_query(&db, name, query);
        }
    }
    stop.store(true, Ordering::Relaxed);
    writers.into_iter().for_each(|w| w.join().unwrap());
    for (name, query) in &views {
        assert_equals_query(&db, name, query);
    }
}

/// The view's rows and its query's, of one snapshot.
fn assert_equals_query(db: &Db, name: &str, query: &str) {
    let snapshot = db.engine.snapshot();
    let view = super::fixture::text(&snapshot.collection(db.id(name)).unwrap().batches().unwrap());
    let plan = serve::bind(db.plan(query), &snapshot, &Default::default()).unwrap();
    let state = serve::session_state();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let batches = runtime.block_on(async {
        use futures::TryStreamExt;
        let stream = serve::execute(plan, &state).await.unwrap();
        stream.try_collect::<Vec<_>>().await.unwrap()
    });
    assert_eq!(view, super::fixture::text(&batches), "{name} at tick {}", snapshot.tick);
}

#[test]
fn followed_changes_add_up_to_the_view() {
    let mut db = Db::volatile();
    let t = db.input("t", &[0]);
    let v = db.view("v", "select k, v from t where v <> 3");
    let followed = db.engine.subscribe(v, SubscribeFrom::Now).unwrap();
    for i in 0..500i64 {
        let change = InputChange::Upsert { rows: rows(&[(i % 13, "a", i % 5)]), deletes: None };
        // Nobody reads meanwhile: what waits is merged.
        drop(db.engine.submit(Transaction { changes: vec![(t, change)], progress: vec![] }));
    }
    db.upsert("t", &[(100, "a", 100)]);
    let mut sum: BTreeMap<String, i64> = BTreeMap::new();
    let mut last = 0;
    while let Some(change) = followed.try_recv().unwrap() {
        assert!(change.tick > last);
        last = change.tick;
        for line in change.delta.iter().flat_map(super::fixture::delta_text) {
            let (weight, row) = line.split_once(' ').unwrap();
            *sum.entry(row.to_string()).or_default() += weight.parse::<i64>().unwrap();
        }
    }
    assert_eq!(last, db.engine.tick());
    sum.retain(|_, n| *n != 0);
    assert!(sum.values().all(|n| *n == 1));
    assert_eq!(sum.into_keys().collect::<Vec<_>>(), db.rows("v"));
}

#[test]
fn what_cannot_be_created_leaves_nothing() {
    let mut db = Db::volatile();
    let t = db.input("t", &[]);
    db.insert("t", &[(1, "a", 1)]);
    let taken = {
        let mut spec = db.view_spec("v", "select k from t");
        spec.id = t;
        db.engine.create_view(spec).unwrap_err()
    };
    assert_eq!(taken.sqlstate, SqlState::DUPLICATE_OBJECT);
    let spec = db.view_spec("v", "select k from t");
    db.engine.drop_collections(&[t]).unwrap();
    assert_eq!(db.engine.create_view(spec).unwrap_err().sqlstate, SqlState::UNDEFINED_TABLE);
    assert!(db.engine.stats().collections.is_empty());
}

#[test]
fn an_input_that_keeps_no_rows_shows_what_comes_after() {
    let mut db = Db::volatile();
    db.input_with("s", &[], false);
    db.insert("s", &[(1, "a", 1)]);
    db.view("v", "select k from s");
    db.insert("s", &[(2, "b", 2)]);
    db.view("w", "select k from s");
    db.insert("s", &[(3, "c", 3)]);
    assert!(db.rows("s").is_empty());
    assert_eq!(db.rows("v"), ["2", "3"]);
    assert_eq!(db.rows("w"), ["3"]);
}

#[test]
fn stats_count() {
    let mut db = Db::volatile();
    db.input("t", &[]);
    db.view("v", "select k from t where v > 1");
    let tick = db.insert("t", &[(1, "a", 1), (2, "b", 2)]);
    let stats = db.engine.stats();
    assert_eq!((stats.tick, stats.durable_tick, stats.queued_rows), (tick, tick, 0));
    let [t, v] = &stats.collections[..] else { panic!("{stats:?}") };
    assert_eq!((t.rows_in, t.rows_out, t.state_rows, t.last_tick, t.view), (2, 2, 2, tick, false));
    assert_eq!((v.rows_in, v.rows_out, v.state_rows, v.last_tick, v.view), (2, 1, 1, tick, true));
    assert!(v.state_bytes > 0);
}
