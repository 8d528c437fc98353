//! Replays that pause where followers have to go on from.

use std::collections::BTreeMap;

use super::fixture::{Db, delta_text};
use super::journal::{config, open, replayed};
use crate::engine::{SubscribeFrom, Subscription, Tick};
use crate::error::SqlState;

/// All that waits, tick by tick.
pub(super) fn drain(subscription: &Subscription) -> Vec<(Tick, Vec<String>)> {
    let mut all = Vec::new();
    while let Some(change) = subscription.try_recv().unwrap() {
        all.push((change.tick, change.delta.as_ref().map(delta_text).unwrap_or_default()));
    }
    all
}

/// The sum of changes with tick in `(after, upto]`.
pub(super) fn sum(changes: &[(Tick, Vec<String>)], after: Tick, upto: Tick) -> BTreeMap<String, i64> {
    let mut sum: BTreeMap<String, i64> = BTreeMap::new();
    for (tick, lines) in changes {
        if *tick > after && *tick <= upto {
            for line in lines {
                let (weight, row) = line.split_once(' ').unwrap();
                *sum.entry(row.to_string()).or_default() += weight.parse::<i64>().unwrap();
            }
        }
    }
    sum.retain(|_, n| *n != 0);
    sum
}

#[test]
fn followers_get_exactly_what_comes_after_their_tick() {
    let dir = tempfile::tempdir().unwrap();
    let (lived, last) = {
        let db = replayed(dir.path());
        let followed = db.engine.subscribe(db.id("v"), SubscribeFrom::Now).unwrap();
        for i in 0..30i64 {
            match i % 4 {
                0 => db.insert("t", &[(i, "t", i - 5), (i, "u", 1)]),
                3 => db.delete("t", &[(i - 3, "u", 1)]),
                _ => db.upsert("k", &[(i % 5, "k", i)]),
            };
        }
        (drain(&followed), db.engine.tick())
    };
    for stops in [vec![], vec![0], vec![7], vec![3, 11], vec![11, 12, 29], vec![last], (0..=last).collect()] {
        let db = open(dir.path());
        let v = db.id("v");
        let followed: Vec<(Tick, Subscription)> = stops
            .iter()
            .map(|t| (*t, db.engine.subscribe_kept(v, SubscribeFrom::After(*t)).unwrap()))
            .collect();
        let report = db.engine.replay(&stops).unwrap();
        assert_eq!((report.tick, report.base_tick), (last, 0));
        for (after, subscription) in followed {
            let got = drain(&subscription);
            // Each later stop is a boundary: the changes up to it can be told from those after it.
            let mut from = after;
            for stop in stops.iter().copied().filter(|s| *s > after).chain([last]) {
                assert_eq!(sum(&got, from, stop), sum(&lived, from, stop), "({from}, {stop}] of {stops:?}");
                assert!(stop == after || got.iter().any(|(t, _)| *t == stop), "{stop} of {stops:?}: {got:?}");
                from = stop;
            }
            assert!(got.iter().all(|(t, _)| *t > after));
        }
    }
}

#[test]
fn what_is_not_released_comes_again() {
    let dir = tempfile::tempdir().unwrap();
    let db = replayed(dir.path());
    let followed = db.engine.subscribe_kept(db.id("t"), SubscribeFrom::Now).unwrap();
    let ticks: Vec<Tick> = (0..5).map(|i| db.insert("t", &[(i, "a", i)])).collect();
    let first = drain(&followed);
    assert_eq!(first.iter().map(|c| c.0).collect::<Vec<_>>(), ticks);
    followed.release(ticks[1]);
    assert_eq!(followed.rewind(), ticks[1]);
    assert_eq!(drain(&followed), first[2..]);
    followed.release(ticks[4]);
    assert_eq!(followed.rewind(), ticks[4]);
    assert!(drain(&followed).is_empty());
}

#[test]
fn dropped_collections_stay_dropped() {
    let dir = tempfile::tempdir().unwrap();
    {
        let mut db = Db::open(config(dir.path()));
        let a = db.input("a", &[]);
        db.input("b", &[]);
        db.engine.replay(&[]).unwrap();
        db.insert("a", &[(1, "a", 1)]);
        db.insert("b", &[(2, "b", 2)]);
        db.engine.drop_collections(&[a]).unwrap();
    }
    let mut db = Db::open(config(dir.path()));
    db.input("gone", &[]);
    db.input("b", &[]);
    db.engine.drop_collections(&[db.id("gone")]).unwrap();
    let report = db.engine.replay(&[]).unwrap();
    assert_eq!((report.rows, report.steps), (1, 1));
    assert_eq!(db.rows("b"), ["2|b|2"]);
}

#[test]
fn a_view_of_an_input_that_keeps_no_rows_is_the_same_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let make = |views: usize| {
        let mut db = Db::open(config(dir.path()));
        db.input_with("s", &[], false);
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
    db.view("v1", "select k from s");
    let last = db.insert("s", &[(3, "c", 3)]);
    let rows = (db.rows("v0"), db.rows("v1"));
    assert_eq!(rows, (vec!["2".to_string(), "3".to_string()], vec!["3".to_string()]));
    drop(db);
    for _ in 0..2 {
        let db = make(2);
        assert_eq!((db.rows("v0"), db.rows("v1")), rows);
        assert_eq!(db.engine.tick(), last);
    }
    let db = make(2);
    db.insert("s", &[(4, "d", 4)]);
    assert_eq!(db.rows("v1"), ["3", "4"]);
}

#[test]
fn a_journal_that_does_not_fit_the_catalog_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    {
        let db = replayed(dir.path());
        db.insert("t", &[(1, "a", 1)]);
    }
    let db = Db::open(config(dir.path()));
    let schema = std::sync::Arc::new(arrow::datatypes::Schema::empty());
    let id = crate::engine::CollectionId(1);
    let spec =
        crate::engine::InputSpec { id, name: "t".into(), schema, key: vec![], retain: true, watermark: None };
    db.engine.create_input(spec).unwrap();
    assert_eq!(db.engine.replay(&[]).unwrap_err().sqlstate, SqlState::DATA_CORRUPTED);
}

#[test]
fn who_follows_from_the_beginning_begins_with_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let make = || {
        let mut db = Db::open(config(dir.path()));
        db.input("t", &[]);
        db.view("v", "select 0 as k union all select k from t");
        db.view("constant", "select 1 as x");
        db
    };
    {
        let db = make();
        db.engine.replay(&[]).unwrap();
        db.insert("t", &[(5, "a", 1)]);
        db.insert("t", &[(6, "a", 1)]);
    }
    let db = make();
    let v = db.engine.subscribe_kept(db.id("v"), SubscribeFrom::After(0)).unwrap();
    let constant = db.engine.subscribe_kept(db.id("constant"), SubscribeFrom::After(0)).unwrap();
    let later = db.engine.subscribe_kept(db.id("v"), SubscribeFrom::After(1)).unwrap();
    db.engine.replay(&[1]).unwrap();
    let lines = |l: &[&str]| l.iter().map(|s| s.to_string()).collect::<Vec<_>>();
    assert_eq!(drain(&v), [(1, lines(&["+1 0", "+1 5"])), (2, lines(&["+1 6"]))]);
    assert_eq!(drain(&constant)[0], (1, lines(&["+1 1"])));
    assert_eq!(drain(&later), [(2, lines(&["+1 6"]))]);
}

#[test]
fn a_view_that_was_there_before_the_first_replay_sees_all_that_comes() {
    let dir = tempfile::tempdir().unwrap();
    for (n, rows) in [(1, vec!["1"]), (2, vec!["1", "2"]), (3, vec!["1", "2", "3"])] {
        let mut db = Db::open(config(dir.path()));
        db.input_with("s", &[], false);
        db.view("v", "select k from s");
        db.engine.replay(&[]).unwrap();
        db.insert("s", &[(n, "a", n)]);
        assert_eq!(db.rows("v"), rows);
    }
}
