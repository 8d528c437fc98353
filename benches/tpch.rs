//! TPC-H: how many rows a second each of the 22 queries keeps up with, in small transactions and in large ones.
//!
//! `cargo bench --bench tpch -- --scale 0.1 --workers 1 [--queries q5,q9] [--batches 1000,100000]`
//!
//! Rows are made beforehand and fed to an engine without a journal, as Arrow batches: first the six small relations, then
//! orders, each transaction with the lineitems of its orders. Rates are of the rows of the relations that a query reads.
//! At the end each view is compared with its query in batch.

#[path = "tpch/data.rs"]
mod data;
mod planned;

use std::io::Cursor;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::csv::ReaderBuilder;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use clap::Parser;
use data::{QUERIES, TABLES, order_of, rows};
use tidemill::engine::{
    CollectionId, Delta, Engine, EngineConfig, InputChange, InputSpec, Transaction, check, plan,
};
use tidemill::{Error, Result};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures the queries of TPC-H.
#[derive(Parser)]
struct Options {
    /// The scale factor: 1 is six million lineitems.
    #[arg(long, default_value_t = 0.1)]
    scale: f64,
    /// Threads that compute.
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Queries to run, all without it: q5,q9.
    #[arg(long, value_delimiter = ',')]
    queries: Vec<String>,
    /// Rows in one transaction, about; each number is a run.
    #[arg(long, value_delimiter = ',', default_value = "1000,100000")]
    batches: Vec<usize>,
    /// Leaves out the comparison with the batch answer.
    #[arg(long)]
    no_check: bool,
    /// What `cargo bench` says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A relation with all its rows.
struct Relation {
    id: CollectionId,
    name: String,
    schema: SchemaRef,
    rows: RecordBatch,
    /// By row, its order's number, of the two relations that have one.
    orders: Vec<i64>,
}

fn main() {
    if let Err(e) = all(&Options::parse()) {
        eprintln!("error: {e}");
        std::process::exit(1);
    }
}

fn all(options: &Options) -> Result<()> {
    let relations = relations(options.scale)?;
    let heads: String =
        options.batches.iter().map(|n| format!(" {:>14}", format!("rows/s by {n}"))).collect();
    println!("{:<4}{heads}", "");
    let mut wrong = Vec::new();
    for (name, sql) in QUERIES {
        if !options.queries.is_empty() && !options.queries.iter().any(|q| q == name) {
            continue;
        }
        let mut line = format!("{name:<4}");
        for batch in &options.batches {
            let (rate, right) = run(name, sql, &relations, *batch, options)?;
            line += &format!(" {rate:>14.0}");
            if !right {
                wrong.push(name);
                line += " (WRONG)";
            }
        }
        println!("{line}");
    }
    if wrong.is_empty() { Ok(()) } else { Err(Error::internal(format!("wrong answers: {wrong:?}"))) }
}

/// Feeds one query; its rate, and whether its view is its query.
fn run(
    name: &str,
    sql: &str,
    relations: &[Relation],
    batch: usize,
    options: &Options,
) -> Result<(f64, bool)> {
    let known = relations.iter().map(|r| (r.id, r.name.as_str(), Arc::clone(&r.schema)));
    let plan = planned::plan(known, sql)?;
    let read = plan::collections(&plan);
    let relations: Vec<&Relation> = relations.iter().filter(|r| read.contains(&r.id)).collect();
    let engine = Engine::open(EngineConfig { workers: options.workers, ..EngineConfig::default() })?;
    for r in &relations {
        let (name, schema) = (r.name.clone(), Arc::clone(&r.schema));
        engine.create_input(InputSpec {
            id: r.id,
            name,
            schema,
            key: Vec::new(),
            retain: !options.no_check,
            watermark: None,
        })?;
    }
    let view = CollectionId(100);
    planned::create(&engine, view, name, plan)?;
    let transactions = transactions(&relations, batch);
    let total: usize = relations.iter().map(|r| r.rows.num_rows()).sum();
    let start = Instant::now();
    let receipts: Vec<_> = transactions
        .into_iter()
        .map(|changes| engine.submit(Transaction { changes, progress: Vec::new() }))
        .collect();
    for receipt in receipts {
        receipt.wait()?;
    }
    let rate = total as f64 / start.elapsed().as_secs_f64();
    let right = options.no_check || check::check_view(&engine, view)?.is_none();
    engine.shutdown();
    Ok((rate, right))
}

/// All rows of these relations in transactions of about `batch` rows.
fn transactions(relations: &[&Relation], batch: usize) -> Vec<Vec<(CollectionId, InputChange)>> {
    let change = |r: &Relation, from: usize, to: usize| {
        (r.id, InputChange::Delta(Delta::insert(r.rows.slice(from, to - from))))
    };
    let (moving, still): (Vec<&Relation>, Vec<&Relation>) =
        relations.iter().partition(|r| !r.orders.is_empty());
    let mut transactions = Vec::new();
    for r in still {
        let all = r.rows.num_rows();
        let steps = (0..all).step_by(batch);
        transactions.extend(steps.map(|at| vec![change(r, at, all.min(at + batch))]));
    }
    let mut at = vec![0; moving.len()];
    // The relation with the most rows sets the pace; the other follows up to the same order.
    while let Some(pace) = (0..moving.len()).max_by_key(|i| moving[*i].orders.len() - at[*i])
        && at[pace] < moving[pace].orders.len()
    {
        let orders = &moving[pace].orders;
        let last = orders[(at[pace] + batch).min(orders.len()) - 1];
        let mut changes = Vec::new();
        for (r, from) in moving.iter().zip(&mut at) {
            let to = r.orders.partition_point(|order| *order <= last);
            if to > *from {
                changes.push(change(r, *from, to));
                *from = to;
            }
        }
        transactions.push(changes);
    }
    transactions
}

/// The relations as `tables.sql` declares them.
fn relations(scale: f64) -> Result<Vec<Relation>> {
    let declared = TABLES.lines().filter_map(|line| line.strip_prefix("CREATE TABLE ")?.split_once(" ("));
    let relation = |(id, (name, columns)): (u64, (&str, &str))| {
        let schema = Arc::new(Schema::new(columns.split(", ").filter_map(column).collect::<Vec<_>>()));
        let lines = rows(name, scale);
        let orders = match name {
            "orders" | "lineitem" => lines.iter().map(|l| order_of(l)).collect(),
            _ => Vec::new(),
        };
        let reader =
            ReaderBuilder::new(Arc::clone(&schema)).with_delimiter(b'|').with_batch_size(lines.len());
        let mut batches = reader.build(Cursor::new(lines.join("\n")))?;
        let rows = batches.next().ok_or_else(|| Error::internal(format!("{name} has no rows")))??;
        Ok(Relation { id: CollectionId(id), name: name.to_string(), schema, rows, orders })
    };
    (1..).zip(declared).map(relation).collect()
}

/// A column out of its declaration; `None` for what is no column.
fn column(declared: &str) -> Option<Field> {
    let mut words = declared.trim_end_matches([')', ';']).split(' ');
    let name = words.next()?;
    let kind = match words.next()? {
        "int" => DataType::Int32,
        "bigint" => DataType::Int64,
        "date" => DataType::Date32,
        "text" => DataType::Utf8View,
        numeric if numeric.starts_with("numeric") => DataType::Decimal128(15, 2),
        _ => return None,
    };
    Some(Field::new(name, kind, true))
}
