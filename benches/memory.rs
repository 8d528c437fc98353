//! State beyond memory: `cargo bench --bench memory -- [--limit MB]`.
//!
//! A join and an aggregate take in rows until their state is ten times a memory limit. Printed for each: rows a second
//! when the state is as large as the limit, four and ten times as large, and the most memory that the process took; with
//! the limit and without, each in a process of its own.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::JoinType;
use datafusion::functions_aggregate::expr_fn::{count, sum};
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, col};
use tidemill::engine::plan::CollectionSource;
use tidemill::engine::{
    CollectionId, Delta, Engine, EngineConfig, InputChange, InputSpec, Transaction, ViewSpec,
};
use tidemill::error::{Error, Result};
use tidemill::memory;

#[global_allocator]
static ALLOCATOR: memory::Allocator = memory::Allocator;

const TICK_ROWS: i64 = 16 << 10;
const LEFT: CollectionId = CollectionId(1);
const RIGHT: CollectionId = CollectionId(2);

/// Multiples of the limit at which the speed is printed.
const MULTIPLES: [u64; 3] = [1, 4, 10];

fn schema(names: [&str; 2]) -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new(names[0], DataType::Int64, false),
        Field::new(names[1], DataType::Utf8View, false),
    ]))
}

fn scan(name: &str, id: CollectionId, schema: SchemaRef) -> Result<LogicalPlanBuilder> {
    let source = Arc::new(CollectionSource { id, schema, key: vec![], watermark: None });
    Ok(LogicalPlanBuilder::scan(name, source, None)?)
}

fn plan(what: &str) -> Result<LogicalPlan> {
    let left = scan("l", LEFT, schema(["k", "note"]))?;
    Ok(if what == "join" {
        let right = scan("r", RIGHT, schema(["rk", "name"]))?.build()?;
        left.join(right, JoinType::Inner, (vec!["k"], vec!["rk"]), None)?
            .project(vec![col("k"), col("name")])?
            .build()?
    } else {
        left.aggregate(vec![col("k")], vec![count(col("note")), sum(col("k"))])?.build()?
    })
}

/// Rows of keys that lie scattered, with some text.
fn rows(first: i64, names: [&str; 2], text: usize) -> Result<RecordBatch> {
    let key = |i: i64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15u64 as i64) >> 8;
    let note = |i: i64| format!("{i:0text$}");
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values((first..first + TICK_ROWS).map(key))),
        Arc::new(StringViewArray::from_iter_values((first..first + TICK_ROWS).map(note))),
    ];
    Ok(RecordBatch::try_new(schema(names), columns)?)
}

fn most_in_memory() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kib.ok_or_else(|| Error::internal("no VmHWM"))? << 10)
}

/// In a process of its own: grows the state of `what` to ten times `limit` bytes, kept to the limit or not.
fn grow(what: &str, limit: u64, keep: bool, dir: &Path) -> Result<()> {
    if keep {
        memory::keep_to(limit, &dir.join("spill"))?;
    }
    let engine = Engine::open(EngineConfig::default())?;
    for (id, names) in [(LEFT, ["k", "note"]), (RIGHT, ["rk", "name"])] {
        // The view's operators keep what they need; the inputs keep nothing.
        engine.create_input(InputSpec {
            id,
            name: names[1].into(),
            schema: schema(names),
            key: vec![],
            retain: false,
            watermark: None,
        })?;
    }
    let plan = plan(what)?;
    let schema = Arc::new(plan.schema().as_arrow().clone());
    engine.create_view(ViewSpec { id: CollectionId(3), name: what.into(), schema, plan })?;
    let (mut next, mut at, mut spent, mut since) = (0, 0, Duration::ZERO, 0);
    while at < MULTIPLES.len() {
        let mut changes = vec![(LEFT, InputChange::Delta(Delta::insert(rows(next, ["k", "note"], 100)?)))];
        if what == "join" {
            // Each row meets one that came long before.
            let names = rows(next / 2 / TICK_ROWS * TICK_ROWS, ["rk", "name"], 20)?;
            changes.push((RIGHT, InputChange::Delta(Delta::insert(names))));
        }
        let started = Instant::now();
        engine.submit(Transaction { changes, progress: Vec::new() }).wait()?;
        spent += started.elapsed();
        next += TICK_ROWS;
        since += TICK_ROWS;
        if next % (16 * TICK_ROWS) != 0 {
            continue;
        }
        let state: u64 = engine.stats().collections.iter().map(|c| c.state_bytes as u64).sum();
        if state >= MULTIPLES[at] * limit {
            println!(
                "{what:<10} {:<8} {:>3} x {:>6} MB   {:>9.0} rows/s   {:>6} MB in memory at most",
                if keep { "limited" } else { "free" },
                MULTIPLES[at],
                limit >> 20,
                since as f64 / spent.as_secs_f64(),
                most_in_memory()? >> 20,
            );
            at += 1;
        }
        if since >= 64 * TICK_ROWS {
            (spent, since) = (Duration::ZERO, 0);
        }
    }
    engine.shutdown();
    Ok(())
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().collect();
    if let [_, mode, what, limit, keep, dir] = &args[..]
        && mode == "--grow"
    {
        let limit = limit.parse().map_err(|_| Error::internal("a number of bytes"))?;
        return grow(what, limit, keep == "limited", Path::new(dir));
    }
    let mib: u64 =
        args.iter().skip_while(|a| *a != "--limit").nth(1).and_then(|n| n.parse().ok()).unwrap_or(256);
    let dir = tempfile::tempdir_in(".")?;
    for what in ["join", "aggregate"] {
        for keep in ["free", "limited"] {
            let status = std::process::Command::new(&args[0])
                .args(["--grow", what, &(mib << 20).to_string(), keep])
                .arg(dir.path())
                .status()?;
            if !status.success() {
                return Err(Error::internal(format!("{what}, {keep}: {status}")));
            }
        }
    }
    Ok(())
}
