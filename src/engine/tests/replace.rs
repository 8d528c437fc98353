//! Views that take others' places: live, with readers and followers, and again in a replay.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::fixture::{Db, insert};
use super::journal::{config, copy};
use super::replay::{drain, sum};
use crate::engine::{CollectionId, EngineConfig, Hydration, SubscribeFrom, Tick, Transaction};
use crate::error::{Error, SqlState};

/// Replaces the view `name`; answers with the tick.
fn replace(db: &Db, name: &str, sql: &str, building: u64) -> crate::error::Result<Tick> {
    let spec = crate::engine::ViewSpec { id: CollectionId(building), ..db.view_spec(name, sql) };
    db.engine.replacement(db.id(name), spec, &Hydration::default())?.put_in_place(|_| Ok(()))
}

fn right(db: &Db) {
    let wrong = crate::engine::check::check_all(&db.engine).unwrap();
    assert!(wrong.is_empty(), "{wrong:?}");
}

const QUERIES: [&str; 4] = [
    "select g, sum(v) as s, count(*) as n from t group by g",
    "select g, max(v) as s, count(*) + 1 as n from t where k > 3 group by g",
    "select t.g, t.v as s, u.n from t join u on t.k = u.k",
    "select g, s, n from w",
];

/// `v` and, over it, `over` and `both`; beside it `u` and `w`.
fn views(db: &mut Db) {
    views_with(db, QUERIES[0]);
}

fn views_with(db: &mut Db, v: &str) {
    db.input("t", &[]);
    db.view("u", "select k, count(*) as n from t group by k");
    db.view("v", v);
    db.view("over", "select n, count(*) as c, min(s) as s from v group by n");
    db.view("both", "select v.g, v.s, t.k from v join t on v.s = t.v");
    // Younger than those that read `v`.
    db.view("w", "select g, min(v) as s, count(*) as n from t where v < 900 group by g");
}

#[test]
fn readers_and_followers_are_given_what_differs() {
    let mut db = Db::volatile();
    views(&mut db);
    let row = |i: i64| (i % 10, ["a", "b", "c"][i as usize % 3], i);
    (0..30).for_each(|i| {
        db.insert("t", &[row(i)]);
    });
    let followed: Vec<_> = ["v", "over", "both"]
        .map(|name| (name, db.engine.subscribe(db.id(name), SubscribeFrom::Snapshot).unwrap()))
        .into();
    for (round, query) in QUERIES.iter().cycle().skip(1).take(9).enumerate() {
        let before = db.engine.tick();
        let tick = replace(&db, "v", query, 1000 + round as u64).unwrap();
        assert_eq!(tick, before + 1);
        right(&db);
        for i in 0..3 {
            db.insert("t", &[row(30 + 3 * round as i64 + i)]);
        }
        db.delete("t", &[row(round as i64)]);
        right(&db);
    }
    for (name, subscription) in followed {
        let begun = super::fixture::text(&subscription.snapshot().unwrap().batches().unwrap());
        let mut sum = sum(&drain(&subscription), subscription.start_tick(), db.engine.tick());
        begun.into_iter().for_each(|row| *sum.entry(row).or_default() += 1);
        sum.retain(|_, n| *n != 0);
        assert!(sum.values().all(|n| *n > 0), "{name}: {sum:?}");
        let rows: Vec<String> =
            sum.into_iter().flat_map(|(row, n)| std::iter::repeat_n(row, n as usize)).collect();
        assert_eq!(rows, db.rows(name), "{name}");
    }
    // Nothing of the former ones is left: each of the views counts its own nodes alone, and goes.
    for name in ["both", "over", "v", "w", "u", "t"] {
        db.engine.drop_collections(&[db.id(name)]).unwrap();
    }
    assert!(db.engine.stats().collections.is_empty());
}

#[test]
fn the_same_query_changes_nothing() {
    let mut db = Db::volatile();
    views(&mut db);
    db.insert("t", &[(1, "a", 1), (2, "b", 2)]);
    let followed = db.engine.subscribe(db.id("over"), SubscribeFrom::Now).unwrap();
    replace(&db, "v", QUERIES[0], 1000).unwrap();
    assert!(drain(&followed).iter().all(|(_, rows)| rows.is_empty()));
    db.insert("t", &[(3, "a", 3)]);
    right(&db);
}

#[test]
fn data_flows_while_views_are_replaced() {
    let mut db = Db::volatile();
    views(&mut db);
    let (t, stop) = (db.id("t"), Arc::new(AtomicBool::new(false)));
    let writer = {
        let (engine, stop) = (db.engine.clone(), Arc::clone(&stop));
        std::thread::spawn(move || {
            let mut i = 0;
            while !stop.load(Ordering::Relaxed) {
                let rows: Vec<_> =
                    (i..i + 20).map(|i| (i % 50, ["a", "b"][i as usize % 2], i % 97)).collect();
                let changes = vec![insert(t, &rows)];
                engine.submit(Transaction { changes, progress: vec![] }).wait().unwrap();
                i += 20;
            }
        })
    };
    for (round, query) in QUERIES.iter().cycle().take(12).enumerate() {
        replace(&db, "v", query, 1000 + round as u64).unwrap();
        right(&db);
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    right(&db);
}

#[test]
fn what_cannot_be_replaced_stays() {
    let mut db = Db::volatile();
    views(&mut db);
    db.insert("t", &[(1, "a", 1)]);
    let before = db.rows("v");
    let spec = || crate::engine::ViewSpec { id: CollectionId(1000), ..db.view_spec("v", QUERIES[1]) };
    // What is to be done before it is seen fails: it was never there.
    let refuse = |_| Err(Error::new(SqlState::DISK_FULL, "full"));
    let failed =
        db.engine.replacement(db.id("v"), spec(), &Hydration::default()).unwrap().put_in_place(refuse);
    assert_eq!(failed.unwrap_err().sqlstate, SqlState::DISK_FULL);
    assert_eq!(db.rows("v"), before);
    let hydration = Hydration::default();
    hydration.stop();
    let stopped = db.engine.replacement(db.id("v"), spec(), &hydration).err().unwrap();
    assert_eq!(stopped.sqlstate, SqlState::QUERY_CANCELED);
    right(&db);
    // Nothing of either is left, not even its identity.
    replace(&db, "v", QUERIES[1], 1000).unwrap();
    right(&db);
    // Of two views with one query, which both have readers, nobody can tell whose is whose.
    db.view("twin", QUERIES[1]);
    db.view("over_twin", "select s from twin where n > 1");
    assert_eq!(replace(&db, "v", QUERIES[0], 1001).unwrap_err().sqlstate, SqlState::FEATURE_NOT_SUPPORTED);
    right(&db);
}

#[test]
fn a_former_query_is_nobody_elses() {
    let dir = tempfile::tempdir().unwrap();
    let mut db = Db::open(config(dir.path()));
    db.input("t", &[]);
    db.engine.replay(&[]).unwrap();
    for _ in 0..2 {
        db.insert("t", &[(1, "a", 1), (2, "a", 2), (3, "a", 3)]);
    }
    db.engine.shutdown();
    let mut db = Db::open(config(dir.path()));
    db.input("t", &[]);
    let (former, next) = ("select k from t where v > 1", "select k from t where v < 2");
    db.engine.create_former_view(db.view_spec("v", former)).unwrap();
    db.known("v", former);
    // Younger than the replacement, with the query of before.
    db.view("twin", former);
    db.view("over", "select count(*) as n from v");
    db.view("over_twin", "select count(*) as n from twin");
    let spec = crate::engine::ViewSpec { id: CollectionId(1000), ..db.view_spec("v", next) };
    db.engine.replace_view_at(1, db.id("v"), spec).unwrap();
    db.engine.replay(&[]).unwrap();
    right(&db);
    assert_eq!((db.rows("over"), db.rows("over_twin")), (vec!["2".to_string()], vec!["4".to_string()]));
}

#[test]
fn a_replay_replaces_at_the_same_tick() {
    let dir = tempfile::tempdir().unwrap();
    let open = |dir: &Path, first: &str, then: &[(Tick, &str)]| {
        let mut db = Db::open(EngineConfig { checkpoint_bytes_min: 1, ..config(dir) });
        views_with(&mut db, first);
        for (n, (tick, sql)) in then.iter().enumerate() {
            let spec =
                crate::engine::ViewSpec { id: CollectionId(1000 + n as u64), ..db.view_spec("v", sql) };
            db.engine.replace_view_at(*tick, db.id("v"), spec).unwrap();
        }
        db
    };
    let row = |i: i64| (i % 10, ["a", "b", "c"][i as usize % 3], i);
    let (lived, versions, last, held) = {
        let db = open(dir.path(), QUERIES[0], &[]);
        db.engine.replay(&[]).unwrap();
        let followed = ["v", "over"].map(|n| db.engine.subscribe(db.id(n), SubscribeFrom::Now).unwrap());
        let (mut versions, mut held) = (Vec::new(), 0);
        for (round, query) in [QUERIES[1], QUERIES[2], QUERIES[3]].into_iter().enumerate() {
            for i in 0..5 {
                db.insert("t", &[row(5 * round as i64 + i)]);
            }
            if round == 1 {
                held = db.engine.tick();
                db.engine.hold_journal("sink", Some(held));
            }
            versions.push((replace(&db, "v", query, 2000 + round as u64).unwrap(), query));
            db.insert("t", &[row(40 + round as i64)]);
        }
        (followed.map(|f| drain(&f)), versions, db.engine.tick(), held)
    };
    let switched = versions[1].0;
    for stops in [vec![0], vec![held], vec![held, switched], vec![switched - 1], vec![0, last]] {
        let from = stops[0];
        let image = tempfile::tempdir().unwrap();
        copy(dir.path(), image.path());
        // A query that was over by then is not told.
        let db = match from {
            0 => open(image.path(), QUERIES[0], &versions),
            _ => open(image.path(), versions[0].1, &versions[1..]),
        };
        let followed =
            ["v", "over"].map(|n| db.engine.subscribe_kept(db.id(n), SubscribeFrom::After(from)).unwrap());
        db.engine.replay(&stops).unwrap();
        for (lived, followed) in lived.iter().zip(&followed) {
            let (got, mut from) = (drain(followed), from);
            for stop in stops.iter().copied().filter(|s| *s > from).chain([last]).collect::<Vec<_>>() {
                assert_eq!(sum(&got, from, stop), sum(lived, from, stop), "({from}, {stop}] of {stops:?}");
                from = stop;
            }
        }
        right(&db);
        db.insert("t", &[row(99)]);
        right(&db);
    }
}
