//! Ticks made by time: their moments, their journal, and what a restart makes of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, IntervalMonthDayNano, Schema, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{ColumnarValue, LogicalPlanBuilder, Volatility, cast, col, create_udf, lit};

use super::fixture::{Db, delta_text, text};
use super::journal::config;
use crate::engine::{CollectionId, Engine, EngineConfig, SubscribeFrom, Subscription, Tick, ViewSpec, check};
use crate::world::Clock;

const VIEW: CollectionId = CollectionId(50);

/// A database with `t`, at this time in microseconds.
fn open(dir: Option<&Path>, clock: &Clock) -> Db {
    let base = dir.map_or_else(EngineConfig::default, config);
    let mut db = Db::open(EngineConfig { clock: clock.clone(), ..base });
    db.input("t", &[]);
    db
}

/// The view of the rows from the moment that is their `k`, for 100 µs.
fn view(db: &Db) {
    let instant = DataType::Timestamp(TimeUnit::Microsecond, None);
    let unknown = |_: &[ColumnarValue]| -> datafusion::error::Result<ColumnarValue> {
        datafusion::common::internal_err!("only views and reads know the time")
    };
    let unknown = Arc::new(unknown);
    let now = create_udf("now", vec![], instant.clone(), Volatility::Stable, unknown);
    let moment = || cast(col("k"), instant.clone());
    let age = lit(ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(0, 0, 100_000))));
    let recent = moment().lt_eq(now.call(vec![])).and((now.call(vec![]) - age).lt(moment()));
    let plan = LogicalPlanBuilder::from(db.plan("select k from t")).filter(recent).unwrap().build().unwrap();
    let schema = Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true)]));
    db.engine.create_view(ViewSpec { id: VIEW, name: "v".into(), schema, plan }).unwrap();
}

fn shown(engine: &Engine) -> Vec<String> {
    assert!(check::check_view(engine, VIEW).unwrap().is_none());
    text(&engine.snapshot().collection(VIEW).unwrap().batches().unwrap())
}

fn drain(subscription: &Subscription) -> Vec<(Tick, Vec<String>)> {
    let mut all = Vec::new();
    while let Some(change) = subscription.try_recv().unwrap() {
        all.push((change.tick, change.delta.as_ref().map(delta_text).unwrap_or_default()));
    }
    all
}

#[test]
fn rows_come_and_go_at_their_moments() {
    let clock = Clock::settable();
    clock.set(15);
    let db = open(None, &clock);
    db.insert("t", &[(10, "a", 0), (20, "b", 0), (30, "c", 0)]);
    view(&db);
    assert_eq!(shown(&db.engine), ["10"]);
    let tick = db.engine.tick();
    clock.set(19);
    assert_eq!(db.engine.pass_time().unwrap(), tick, "nothing is due");
    clock.set(25);
    assert_eq!(db.engine.pass_time().unwrap(), tick + 1);
    assert_eq!(shown(&db.engine), ["10", "20"]);
    // Back it does not go.
    clock.set(5);
    db.insert("t", &[(24, "d", 0), (26, "e", 0)]);
    assert_eq!(shown(&db.engine), ["10", "20", "24"]);
    assert_eq!(db.engine.snapshot().now, 25);
    clock.set(115);
    db.delete("t", &[(26, "e", 0), (24, "d", 0)]);
    assert_eq!(shown(&db.engine), ["20", "30"]);
    clock.set(1_000_000);
    db.engine.pass_time().unwrap();
    assert!(shown(&db.engine).is_empty());
    let stats = db.engine.stats();
    let view = stats.collections.iter().find(|c| c.id == VIEW).unwrap();
    assert_eq!(view.state_rows, 0, "nothing is kept of what has gone for good");
}

/// Nobody has to ask for the tick.
#[test]
fn the_engine_wakes_by_itself() {
    let clock = Clock::settable();
    clock.set(0);
    let db = open(None, &clock);
    db.insert("t", &[(10, "a", 0)]);
    view(&db);
    let followed = db.engine.subscribe(VIEW, SubscribeFrom::Now).unwrap();
    clock.set(10);
    let change = followed.recv_timeout(Duration::from_secs(60)).unwrap().expect("a tick within a minute");
    assert_eq!(delta_text(&change.delta.unwrap()), ["+1 10"]);
}

/// At every tick of its life, whatever the clock says after the restart.
#[test]
fn a_replay_gives_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::settable();
    clock.set(1000);
    let (lived, last) = {
        let db = open(Some(dir.path()), &clock);
        view(&db);
        db.engine.replay(&[]).unwrap();
        let followed = db.engine.subscribe(VIEW, SubscribeFrom::Now).unwrap();
        for i in 0..40i64 {
            clock.set(1000 + i * 7 - if i % 5 == 0 { 30 } else { 0 });
            match i % 3 {
                0 => db.insert("t", &[(1000 + i * 5, "a", i), (1000 + i * 9, "b", i)]),
                1 => db.delete("t", &[(1000 + (i - 1) * 5, "a", i - 1)]),
                _ => db.engine.pass_time().unwrap(),
            };
            shown(&db.engine);
        }
        (drain(&followed), db.engine.tick())
    };
    let state = |changes: &[(Tick, Vec<String>)], upto: Tick| {
        let mut sum: BTreeMap<String, i64> = BTreeMap::new();
        for line in changes.iter().filter(|c| c.0 <= upto).flat_map(|c| &c.1) {
            let (weight, row) = line.split_once(' ').unwrap();
            *sum.entry(row.to_string()).or_default() += weight.parse::<i64>().unwrap();
        }
        sum.retain(|_, n| *n != 0);
        sum
    };
    clock.set(0);
    let db = open(Some(dir.path()), &clock);
    view(&db);
    let followed = db.engine.subscribe_kept(VIEW, SubscribeFrom::After(0)).unwrap();
    let stops: Vec<Tick> = (0..=last).collect();
    db.engine.replay(&stops).unwrap();
    let again = drain(&followed);
    for tick in 0..=last {
        assert_eq!(state(&again, tick), state(&lived, tick), "after tick {tick}");
    }
    clock.set(1_000_000);
    db.engine.pass_time().unwrap();
    assert!(shown(&db.engine).is_empty());
}
