//! Windows that close: what is given of them under early, late and expired rows, and what restarts of every kind make of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::common::Column;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, col};

use super::fixture::text;
use crate::engine::ops::testing::Rng;
use crate::engine::plan::CollectionSource;
use crate::engine::plan::closing::{CLOSES, ClosesAfter, Closing, ClosingNode, Part};
use crate::engine::{
    CollectionId, Delta, Engine, EngineConfig, InputChange, InputSpec, SubscribeFrom, Transaction, ViewSpec,
    Watermark, check,
};

const T: CollectionId = CollectionId(1);
const DELAY: i64 = 5;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        Field::new("g", DataType::Int64, true),
    ]))
}

fn rows(values: &[(i64, i64)]) -> RecordBatch {
    let at: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values(values.iter().map(|r| r.0)));
    let g: ArrayRef = Arc::new(Int64Array::from_iter_values(values.iter().map(|r| r.1)));
    RecordBatch::try_new(schema(), vec![at, g]).unwrap()
}

/// How many rows there are of each microsecond, once it is over.
fn plan() -> LogicalPlan {
    let source = CollectionSource { id: T, schema: schema(), key: vec![], watermark: Some(0) };
    let closing = Closing { watermarks: vec![T], length: 8 };
    let closes = || Expr::Column(Column::new_unqualified(CLOSES));
    let told = LogicalPlanBuilder::scan("t", Arc::new(source), None)
        .unwrap()
        .project([col("t.at"), col("t.g"), ClosesAfter::call(col("t.at"), 1).alias(CLOSES)])
        .unwrap();
    let gate = ClosingNode::over(Part::Gate, closing.clone(), told.build().unwrap());
    let groups = LogicalPlanBuilder::from(gate)
        .aggregate([col("t.at"), closes()], [count(col("t.g")).alias("n")])
        .unwrap();
    let closed = ClosingNode::over(Part::Close, closing, groups.build().unwrap());
    let shown = [ClosesAfter::call(col("t.at"), 0).alias("t"), col("n")];
    LogicalPlanBuilder::from(closed).project(shown).unwrap().build().unwrap()
}

fn create_view(engine: &Engine, id: CollectionId) {
    let fields = ["t", "n"].map(|name| Field::new(name, DataType::Int64, true));
    let schema = Arc::new(Schema::new(fields.to_vec()));
    engine.create_view(ViewSpec { id, name: format!("v{}", id.0), schema, plan: plan() }).unwrap();
}

/// The database with these views, as it was.
fn open(dir: &Path, compact_bytes_min: u64, views: &[CollectionId]) -> Engine {
    let config = EngineConfig { compact_bytes_min, ..super::journal::config(dir) };
    let engine = Engine::open(config).unwrap();
    let watermark = Some(Watermark { column: 0, delay: DELAY });
    let spec = InputSpec { id: T, name: "t".into(), schema: schema(), key: vec![], retain: true, watermark };
    engine.create_input(spec).unwrap();
    views.iter().for_each(|id| create_view(&engine, *id));
    engine.replay(&[]).unwrap();
    engine
}

fn shown(engine: &Engine, view: CollectionId) -> Vec<String> {
    text(&engine.snapshot().collection(view).unwrap().batches().unwrap())
}

/// The same by hand.
#[derive(Default)]
struct Model {
    rows: BTreeMap<(i64, i64), i64>,
    latest: Option<i64>,
    /// By view: up to which watermark it has closed, and what it has given.
    views: BTreeMap<CollectionId, (i64, Vec<String>)>,
}

impl Model {
    fn change(&mut self, row: (i64, i64), weight: i64) {
        *self.rows.entry(row).or_default() += weight;
        self.rows.retain(|_, weight| *weight != 0);
        if weight > 0 {
            self.latest = self.latest.max(Some(row.0));
        }
    }

    fn close(&mut self) {
        let Some(after) = self.latest.map(|latest| latest - DELAY) else { return };
        for (before, given) in self.views.values_mut() {
            let mut counts: BTreeMap<i64, i64> = BTreeMap::new();
            let closing = self.rows.iter().filter(|((at, _), _)| *at + 1 > *before && *at < after);
            closing.for_each(|((at, _), weight)| *counts.entry(*at).or_default() += weight);
            given.extend(counts.iter().map(|(at, n)| format!("{at}|{n}")));
            given.sort();
            *before = after;
        }
    }
}

/// A tick of rows around the watermark: early, on time, late and expired, which come and go.
fn tick(rng: &mut Rng, clock: &mut i64, model: &mut Model, engine: &Engine) {
    *clock += rng.below(3) as i64;
    let mut deltas = Vec::new();
    for _ in 0..rng.below(6) {
        let there: Vec<(i64, i64)> = model.rows.keys().copied().filter(|(at, _)| *at > *clock - 25).collect();
        let (row, weight) = match there.is_empty() || !rng.one_in(3) {
            true => ((*clock + 3 - rng.below(20) as i64, rng.below(3) as i64), 1),
            false => (there[rng.below(there.len())], -1),
        };
        model.change(row, weight);
        deltas.push(Delta::weighted(rows(&[row]), vec![weight]).unwrap());
    }
    let changes = deltas.into_iter().map(|delta| (T, InputChange::Delta(delta))).collect();
    engine.submit(Transaction { changes, progress: Vec::new() }).wait().unwrap();
    model.close();
}

/// Histories with restarts: after an orderly end with a checkpoint or without one, and from a base of the journal.
fn live(seed: u64, compact_bytes_min: u64, keep_checkpoints: bool) {
    let dir = tempfile::tempdir().unwrap();
    let (mut rng, mut clock, mut model) = (Rng::new(seed), 100, Model::default());
    let mut views: Vec<CollectionId> = Vec::new();
    let mut compacted = false;
    for round in 0..4 {
        let engine = open(dir.path(), compact_bytes_min, &views);
        for view in &views {
            assert_eq!(shown(&engine, *view), model.views[view].1, "after restart {round} of {seed}");
        }
        if round % 2 == 0 {
            let view = CollectionId(10 + round);
            create_view(&engine, view);
            views.push(view);
            model.views.insert(view, (i64::MIN, Vec::new()));
            model.close();
        }
        let first = views[0];
        let followed = engine.subscribe(first, SubscribeFrom::Now).unwrap();
        for _ in 0..25 {
            tick(&mut rng, &mut clock, &mut model, &engine);
            let wrong = check::check_all(&engine).unwrap();
            assert!(
                wrong.is_empty(),
                "{seed} {round}: {:?}",
                wrong.iter().map(|(_, d)| d.to_string()).collect::<Vec<_>>()
            );
            for view in &views {
                assert_eq!(
                    shown(&engine, *view),
                    model.views[view].1,
                    "view {} in {round} of {seed}",
                    view.0
                );
            }
        }
        while let Some(change) = followed.try_recv().unwrap() {
            assert!(change.delta.is_none_or(|delta| !delta.has_negative()), "nothing is taken back");
        }
        let operators = engine.stats().operators;
        let kept: usize =
            operators.iter().filter(|o| o.views == [first] && o.does != "view").map(|o| o.rows).sum();
        assert!(kept < 60, "{kept} rows are kept of at most 20 microseconds");
        compacted |= engine.stats().base_bytes > 0;
        drop(engine);
        if !keep_checkpoints {
            for file in fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap()) {
                if file.file_name().to_str().unwrap().starts_with("checkpoint-") {
                    fs::remove_file(file.path()).unwrap();
                }
            }
        }
    }
    let given: usize = model.views.values().map(|(_, given)| given.len()).sum();
    assert!(given > 50, "{given}");
    assert_eq!(compacted, compact_bytes_min < u64::MAX, "a base of the journal told what was given");
}

#[test]
fn a_window_is_given_once_whatever_restarts_there_are() {
    for seed in 0..2 {
        live(seed, u64::MAX, true);
        live(seed, u64::MAX, false);
        live(seed, 2000, true);
        live(seed, 2000, false);
    }
}
