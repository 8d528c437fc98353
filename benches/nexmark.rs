//! Nexmark: how many events a second each query keeps up with, in how much memory, and whether its answer is right.
//!
//! `cargo bench --bench nexmark -- --events 1000000 --workers 1 [--queries q4,q9]`
//!
//! The events are made beforehand and fed to an engine without a journal, as Arrow batches, so that the numbers are
//! those of the engine and not of a generator or a decoder. Each query runs in a process of its own; its memory is
//! the peak of the resident set above what it was with the events in memory. Afterwards the view is compared with
//! the same query run in batch over all events. The queries' text is in `benches/nexmark/`.

mod planned;

use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use clap::Parser;
use datafusion::catalog::MemTable;
use datafusion::common::tree_node::Transformed;
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{LogicalPlan, TableScan};
use tidemill::connectors::generate::nexmark::{EventStream, Relation};
use tidemill::engine::plan::CollectionSource;
use tidemill::engine::{
    CollectionId, Delta, Engine, EngineConfig, InputChange, InputSpec, Transaction, check,
};
use tidemill::{Error, Result};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures the queries of the Nexmark benchmark.
#[derive(Parser)]
struct Options {
    /// Events to feed, of which 2 % are persons, 6 % auctions and 92 % bids.
    #[arg(long, default_value_t = 1_000_000)]
    events: usize,
    /// Threads that compute.
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Queries to run, all without it: q4,q9.
    #[arg(long, value_delimiter = ',')]
    queries: Vec<String>,
    /// Events in one transaction.
    #[arg(long, default_value_t = 10_000)]
    batch: usize,
    /// Leaves out the comparison with the batch answer.
    #[arg(long)]
    no_check: bool,
    /// Runs one query in this very process.
    #[arg(long, hide = true)]
    child: Option<String>,
    /// What `cargo bench` says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

macro_rules! queries {
    ($($name:literal),*) => {
        &[$(($name, include_str!(concat!("nexmark/", $name, ".sql")))),*]
    };
}

/// The queries by name.
const QUERIES: &[(&str, &str)] = queries![
    "q0", "q1", "q2", "q3", "q4", "q5", "q6", "q7", "q8", "q9", "q10", "q11", "q13", "q14", "q15", "q16",
    "q17", "q18", "q19", "q20", "q21", "q22"
];

/// Queries that cannot be run, and why.
const REFUSED: &[(&str, &str)] = &[(
    "q12",
    "windows of processing time: an answer that depends on when it is computed is no view of the data",
)];

/// The order in which all are run and listed.
const ORDER: std::ops::Range<usize> = 0..23;

fn main() {
    let options = Options::parse();
    let result = match &options.child {
        Some(query) => run(query, &options),
        None => all(&options),
    };
    if let Err(e) = result {
        eprintln!("error: {e}");
        std::process::exit(1);
    }
}

/// Runs each query in a process of its own.
fn all(options: &Options) -> Result<()> {
    let names: Vec<String> = match &options.queries[..] {
        [] => ORDER.map(|n| format!("q{n}")).collect(),
        chosen => chosen.to_vec(),
    };
    let known = |name: &str| QUERIES.iter().chain(REFUSED).any(|q| q.0 == name);
    if let Some(unknown) = names.iter().find(|n| !known(n)) {
        return Err(Error::unsupported(format!("query {unknown} (there are q0 to q22)")));
    }
    let program = std::env::current_exe()?;
    let mut failed = Vec::new();
    for name in names {
        if let Some((_, why)) = REFUSED.iter().find(|q| q.0 == name) {
            println!("{name:<4} not run: {why}");
            continue;
        }
        let mut command = Command::new(&program);
        command.args(["--child", &name, "--events", &options.events.to_string()]);
        command.args(["--batch", &options.batch.to_string(), "--workers", &options.workers.to_string()]);
        if options.no_check {
            command.arg("--no-check");
        }
        if !command.status()?.success() {
            println!("{name:<4} failed");
            failed.push(name);
        }
    }
    match &failed[..] {
        [] => Ok(()),
        failed => Err(Error::internal(format!("{} did not run or answered wrongly", failed.join(", ")))),
    }
}

/// Measures one query and prints its line.
fn run(name: &str, options: &Options) -> Result<()> {
    let Some((_, sql)) = QUERIES.iter().find(|q| q.0 == name) else {
        return Err(Error::unsupported(format!("query {name}")));
    };
    let events = Events::new(options)?;
    let plan = planned::plan(tables(), sql)?;
    let engine = Engine::open(EngineConfig { workers: options.workers, ..EngineConfig::default() })?;
    for (id, table, schema) in tables() {
        engine.create_input(InputSpec {
            id,
            name: table.into(),
            schema,
            key: Vec::new(),
            retain: false,
            watermark: None,
        })?;
    }
    let view = CollectionId(100);
    planned::create(&engine, view, name, plan.clone())?;
    let before = reset_peak();
    let start = Instant::now();
    let receipts: Vec<_> = events
        .transactions
        .iter()
        .map(|changes| engine.submit(Transaction { changes: changes.clone(), progress: Vec::new() }))
        .collect();
    for receipt in receipts {
        receipt.wait()?;
    }
    let seconds = start.elapsed().as_secs_f64();
    let peak = peak().saturating_sub(before);
    let verdict =
        if options.no_check { "not compared".to_string() } else { verdict(&engine, view, &plan, &events)? };
    let rate = options.events as f64 / seconds;
    println!("{name:<4} {rate:>12.0} events/s {:>8.1} MiB peak   {verdict}", peak as f64 / 1024.0);
    engine.shutdown();
    if verdict.starts_with("WRONG") {
        return Err(Error::internal(format!("{name} differs from its batch answer")));
    }
    Ok(())
}

/// The inputs: the three relations of the benchmark, and the table beside them that q13 joins.
fn tables() -> Vec<(CollectionId, &'static str, SchemaRef)> {
    let relations = Relation::ALL.map(|r| (r.name(), r.schema()));
    let side = Schema::new(vec![
        Field::new("key", DataType::Int64, false),
        Field::new("value", DataType::Utf8View, false),
    ]);
    let all = relations.into_iter().chain([("side_input", Arc::new(side))]);
    (1..).map(CollectionId).zip(all).map(|(id, (name, schema))| (id, name, schema)).collect()
}

/// Everything that is fed, as it is fed.
struct Events {
    transactions: Vec<Vec<(CollectionId, InputChange)>>,
}

impl Events {
    fn new(options: &Options) -> Result<Events> {
        let tables = tables();
        let mut stream = EventStream::new(0, 0);
        let mut transactions = Vec::new();
        if let Some((id, _, schema)) = tables.last() {
            let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(0..10_000));
            let values = StringViewArray::from_iter_values((0..10_000).map(|n| format!("value {n}")));
            let rows = RecordBatch::try_new(Arc::clone(schema), vec![keys, Arc::new(values)])?;
            transactions.push(vec![(*id, InputChange::Delta(Delta::insert(rows)))]);
        }
        let mut left = options.events;
        while left > 0 {
            let n = left.min(options.batch.max(1));
            let batches = stream.take_batches(n)?;
            let mut changes = Vec::new();
            for (relation, (id, ..)) in Relation::ALL.into_iter().zip(&tables) {
                let rows = batches.get(relation);
                if rows.num_rows() > 0 {
                    changes.push((*id, InputChange::Delta(Delta::insert(rows.clone()))));
                }
            }
            transactions.push(changes);
            left -= n;
        }
        Ok(Events { transactions })
    }

    /// All rows of one input.
    fn rows(&self, id: CollectionId) -> Vec<RecordBatch> {
        let changes = self.transactions.iter().flatten().filter(|c| c.0 == id);
        let rows = changes.filter_map(|(_, change)| match change {
            InputChange::Delta(delta) => Some(delta.rows.clone()),
            _ => None,
        });
        rows.collect()
    }
}

/// Whether the view holds what the query gives over all events in batch.
fn verdict(engine: &Engine, view: CollectionId, plan: &LogicalPlan, events: &Events) -> Result<String> {
    let snapshot = engine.snapshot();
    let Some(view) = snapshot.collection(view) else { return Err(Error::internal("the view is gone")) };
    if let Some(failed) = view.errors().first() {
        return Ok(format!("WRONG: {}", failed.error));
    }
    let expected = check::answer(plan, |plan| {
        let bound = plan.transform_down_with_subqueries(|node| {
            let LogicalPlan::TableScan(scan) = node else { return Ok(Transformed::no(node)) };
            let Some(source) = scan.source.downcast_ref::<CollectionSource>() else {
                return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
            };
            let rows = MemTable::try_new(Arc::clone(&source.schema), vec![events.rows(source.id)])?;
            let source = provider_as_source(Arc::new(rows));
            Ok(Transformed::yes(LogicalPlan::TableScan(TableScan { source, ..scan })))
        })?;
        Ok(bound.data)
    })?;
    let rows = view.num_rows();
    let different = check::differing(plan, view.schema(), view.deltas()?, expected)?;
    Ok(match different.num_rows() {
        0 => format!("right ({rows} rows)"),
        n => format!("WRONG: {n} of {rows} rows differ from the batch answer"),
    })
}

/// Starts a new peak; the resident set now, in KiB.
fn reset_peak() -> u64 {
    // 5 resets the peak; where the kernel does not allow it, the peak is that of the process's life.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    status("VmRSS:")
}

/// The peak of the resident set, in KiB.
fn peak() -> u64 {
    status("VmHWM:")
}

fn status(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix(field));
    line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse().ok()).unwrap_or(0)
}
