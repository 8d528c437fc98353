//! The engine's promises when its process dies, or its disk is full.
//!
//! Each test runs this program again as a child that writes, says what was acknowledged, and is killed at a named
//! point between two steps; then the directory is opened again and asked.

#![allow(clippy::unwrap_used)] // a surprise in a test is its failure

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::logical_expr::{LogicalPlanBuilder, col, lit};
use tidemill::engine::plan::CollectionSource;
use tidemill::engine::{CollectionId, Engine, EngineConfig, InputChange, InputSpec, Transaction, ViewSpec};

const T: CollectionId = CollectionId(1);
const V: CollectionId = CollectionId(2);
/// What the child is to do, and where.
const CHILD: &str = "TIDEMILL_TEST_CHILD";
const KEYS: i64 = 50;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("v", DataType::Int64, true),
        Field::new("filler", DataType::Utf8View, true),
    ]))
}

fn open(dir: &Path) -> Engine {
    let config = EngineConfig {
        dir: Some(dir.to_path_buf()),
        compact_bytes_min: 60_000,
        checkpoint_bytes_min: 10_000,
        ..EngineConfig::default()
    };
    let engine = Engine::open(config).unwrap();
    let input =
        InputSpec { id: T, name: "t".into(), schema: schema(), key: vec![0], retain: true, watermark: None };
    engine.create_input(input).unwrap();
    let source = Arc::new(CollectionSource { id: T, schema: schema(), key: vec![0], watermark: None });
    let plan = LogicalPlanBuilder::scan("t", source, None).unwrap();
    let plan = plan.filter(col("v").gt(lit(-1i64))).unwrap().project(vec![col("k"), col("v")]).unwrap();
    let plan = plan.build().unwrap();
    let schema = Arc::new(schema().project(&[0, 1]).unwrap());
    engine.create_view(ViewSpec { id: V, name: "v".into(), schema, plan }).unwrap();
    engine.replay(&[]).unwrap();
    engine
}

/// Row number `i`: key `i % KEYS`, value `i`; with it goes the position `i`.
fn write(i: i64) -> Transaction {
    let filler = StringArray::from(vec![format!("{i} ").repeat(100)]);
    let columns: Vec<arrow::array::ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![i % KEYS])),
        Arc::new(Int64Array::from(vec![i])),
        cast(&filler, &DataType::Utf8View).unwrap(),
    ];
    let rows = RecordBatch::try_new(schema(), columns).unwrap();
    Transaction {
        changes: vec![(T, InputChange::Upsert { rows, deletes: None })],
        progress: vec![("writer".into(), i.to_be_bytes().to_vec())],
    }
}

/// How far the rows of view and table reach, having checked that they are exactly those of some prefix.
fn prefix(engine: &Engine) -> i64 {
    let values = |id: CollectionId| {
        let mut rows = Vec::new();
        for batch in engine.snapshot().collection(id).unwrap().batches().unwrap() {
            let column = |i: usize| batch.column(i).as_primitive::<Int64Type>().values().to_vec();
            rows.extend(column(0).into_iter().zip(column(1)));
        }
        rows.sort_unstable();
        rows
    };
    let rows = values(V);
    assert_eq!(rows, values(T), "the view and its table disagree");
    let last = rows.iter().map(|r| r.1).max().unwrap_or(-1);
    let mut expected: Vec<(i64, i64)> = (0..=last).rev().take(KEYS as usize).map(|i| (i % KEYS, i)).collect();
    expected.sort_unstable();
    assert_eq!(rows, expected, "not the rows of a prefix");
    let position = engine.progress("writer").map_or(-1, |p| i64::from_be_bytes(p.try_into().unwrap()));
    assert_eq!(position, last, "rows and position disagree");
    last
}

/// Whether this process is the child. Its life: it goes on where the directory stands and says which numbers are durable.
fn is_child() -> bool {
    let Ok(dir) = std::env::var(CHILD) else { return false };
    let engine = open(Path::new(&dir));
    let first = prefix(&engine) + 1;
    println!("ready");
    for i in first..first + 600 {
        match engine.submit(write(i)).wait().and_then(|tick| engine.wait_durable(tick)) {
            Ok(()) => println!("durable {i}"),
            Err(error) => {
                // Readable it still is.
                println!("refused {} {}", error.sqlstate.0, prefix(&engine));
                break;
            }
        }
    }
    true
}

/// Runs the test of this name as a child until it ends or dies; answers with what it said.
fn run(test: &str, dir: &Path, setup: &str, crash_at: &str) -> Vec<String> {
    let program = std::env::current_exe().unwrap();
    let output = Command::new("sh")
        .args(["-c", &format!("{setup} exec \"$0\" --exact {test} --nocapture"), program.to_str().unwrap()])
        .env(CHILD, dir)
        .env("TIDEMILL_CRASH_AT", crash_at)
        .stderr(Stdio::null())
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_string).collect()
}

/// The last number that the child said is durable.
fn acknowledged(said: &[String]) -> i64 {
    said.iter().filter_map(|l| l.strip_prefix("durable ")).filter_map(|n| n.parse().ok()).max().unwrap_or(-1)
}

fn kills(test: &str, points: &[&str]) {
    if is_child() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut durable = -1;
    for point in points {
        let said = run(test, dir.path(), "", point);
        assert!(said.iter().any(|l| l.contains("ready")), "{point}: {said:?}");
        assert!(!said.iter().any(|l| l.contains("test result")), "the child was not killed at {point}");
        durable = durable.max(acknowledged(&said));
        let engine = open(dir.path());
        let reached = prefix(&engine);
        assert!(reached >= durable, "{durable} was acknowledged, {reached} is there after {point}");
        // At most the one transaction in flight more.
        assert!(reached <= durable + 1, "{point}");
        durable = reached;
    }
    assert!(durable > 0);
}

#[test]
fn killed_while_it_writes() {
    let points =
        ["journal.append", "journal.append:7", "journal.fsynced:5", "tick.applied:3", "tick.applied:40"];
    kills("killed_while_it_writes", &points);
}

#[test]
fn killed_while_it_compacts() {
    let points = ["compact.written", "compact.flipped", "compact.flipped:2", "compact.written:2"];
    kills("killed_while_it_compacts", &points);
}

#[test]
fn killed_while_it_writes_a_checkpoint() {
    let points = [
        "checkpoint.tiles",
        "checkpoint.tiles:3",
        "checkpoint.written",
        "checkpoint.renamed",
        "checkpoint.renamed:3",
        "checkpoint.written:2",
        "checkpoint.renamed:5",
    ];
    kills("killed_while_it_writes_a_checkpoint", &points);
}

#[test]
fn a_full_disk_refuses_writers_only() {
    if is_child() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // No file may grow beyond 64 KiB; the signal that comes with it is ignored, so that the write just fails.
    let said = run("a_full_disk_refuses_writers_only", dir.path(), "trap '' XFSZ; ulimit -f 64;", "");
    let refused: Vec<&str> = said.iter().filter_map(|l| l.strip_prefix("refused ")).collect();
    let durable = acknowledged(&said);
    assert_eq!(refused, [format!("53100 {durable}")], "{said:?}");
    let engine = open(dir.path());
    assert_eq!(prefix(&engine), durable);
    let tick = engine.submit(write(durable + 1)).wait().unwrap();
    engine.wait_durable(tick).unwrap();
    assert_eq!(prefix(&engine), durable + 1);
}
