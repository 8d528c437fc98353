//! How long a start takes: `cargo bench --bench recovery -- [--rows N]`.
//!
//! A table of N rows and two views, one of as many rows, one of a tenth as many groups, are written, closed, and opened
//! twice: from the checkpoint that closing wrote, and, with that removed, from the journal alone.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::functions_aggregate::expr_fn::{count, sum};
use datafusion::logical_expr::{LogicalPlanBuilder, col, lit};
use tidemill::engine::plan::CollectionSource;
use tidemill::engine::{
    CollectionId, Delta, Engine, EngineConfig, InputChange, InputSpec, Transaction, ViewSpec,
};
use tidemill::error::Result;

const T: CollectionId = CollectionId(1);
const TICK_ROWS: i64 = 64 << 10;

fn schema() -> SchemaRef {
    let names = ["k", "g", "v"];
    Arc::new(Schema::new(names.map(|name| Field::new(name, DataType::Int64, false)).to_vec()))
}

fn open(dir: &Path) -> Result<Engine> {
    let engine = Engine::open(EngineConfig { dir: Some(dir.to_path_buf()), ..EngineConfig::default() })?;
    engine.create_input(InputSpec {
        id: T,
        name: "t".into(),
        schema: schema(),
        key: vec![],
        retain: true,
        watermark: None,
    })?;
    let source = || Arc::new(CollectionSource { id: T, schema: schema(), key: vec![], watermark: None });
    let rows = LogicalPlanBuilder::scan("t", source(), None)?.filter(col("v").gt(lit(-1i64)))?.build()?;
    let groups = LogicalPlanBuilder::scan("t", source(), None)?
        .aggregate(vec![col("g")], vec![sum(col("v")), count(col("k"))])?
        .build()?;
    for (id, plan) in [(2, rows), (3, groups)] {
        let schema = Arc::new(plan.schema().as_arrow().clone());
        engine.create_view(ViewSpec { id: CollectionId(id), name: format!("v{id}"), schema, plan })?;
    }
    Ok(engine)
}

fn write(engine: &Engine, rows: i64) -> Result<()> {
    for first in (0..rows).step_by(TICK_ROWS as usize) {
        let ids = first..(first + TICK_ROWS).min(rows);
        let column =
            |f: fn(i64) -> i64| Arc::new(Int64Array::from_iter_values(ids.clone().map(f))) as ArrayRef;
        let columns = vec![
            column(|i| i),
            column(|i| i.wrapping_mul(0x9e37_79b9) / 7 % 1_000_003),
            column(|i| i % 1000),
        ];
        let rows = RecordBatch::try_new(schema(), columns)?;
        let changes = vec![(T, InputChange::Delta(Delta::insert(rows)))];
        engine.submit(Transaction { changes, progress: Vec::new() }).wait()?;
    }
    Ok(())
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip_while(|a| a != "--rows").skip(1);
    let rows = args.next().and_then(|n| n.parse().ok()).unwrap_or(10_000_000);
    let dir = tempfile::tempdir()?;
    let engine = open(dir.path())?;
    engine.replay(&[])?;
    let started = Instant::now();
    write(&engine, rows)?;
    println!("{rows} rows written in {:.1} s", started.elapsed().as_secs_f64());
    for c in engine.stats().checkpoints {
        println!(
            "  checkpoint at tick {}: {} MB, {} MB of which written anew, in {:?}, ticks paused {:?}",
            c.tick,
            c.bytes >> 20,
            c.bytes_written >> 20,
            c.took,
            c.paused
        );
    }
    let started = Instant::now();
    engine.shutdown();
    println!("closed in {:.1} s", started.elapsed().as_secs_f64());
    for from in ["the checkpoint", "the journal"] {
        if from == "the journal" {
            for file in std::fs::read_dir(dir.path())? {
                let path = file?.path();
                if path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("checkpoint-")) {
                    std::fs::remove_file(path)?;
                }
            }
        }
        let started = Instant::now();
        let engine = open(dir.path())?;
        let report = engine.replay(&[])?;
        println!("started from {from} in {:.2} s", started.elapsed().as_secs_f64());
        for c in engine.stats().checkpoints {
            println!("  {} MB of state taken up in {:?}", c.bytes >> 20, c.took);
        }
        println!("  {} MB of journal, {} big ticks computed", report.bytes >> 20, report.steps);
        engine.shutdown();
    }
    Ok(())
}
