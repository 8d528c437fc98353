//! How long a tick takes: through a chain of operators, and beside many views that it does not concern.
//!
//! `cargo bench --bench latency -- [--ticks 20000] [--views 1000,10000]`
//!
//! Times are from handing a transaction over until it is answered, in an engine without a journal: the way to the tick
//! thread and back (two wake-ups) is in them.

mod planned;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use clap::Parser;
use tidemill::engine::{
    CollectionId, Delta, Engine, EngineConfig, InputChange, InputSpec, Transaction, check,
};
use tidemill::{Error, Result};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures ticks.
#[derive(Parser)]
struct Options {
    /// Ticks of one row; a tenth as many of a thousand rows.
    #[arg(long, default_value_t = 20_000)]
    ticks: usize,
    /// How many views there are beside the one that a tick concerns; each number is a run.
    #[arg(long, value_delimiter = ',', default_value = "1000,10000")]
    views: Vec<usize>,
    /// What `cargo bench` says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Views over views that a row of `t` goes through: with the views' own, more than ten operators that all have something
/// to do, and none of which makes many changes of one.
const CHAIN: &[(&str, &str)] = &[
    ("kept", "SELECT k, g, v * 2 AS v FROM t WHERE v >= 0"),
    ("named", "SELECT kept.k, kept.g, kept.v, d.v AS weight FROM kept JOIN d ON d.g = kept.g"),
    ("sums", "SELECT g, sum(v * weight) AS s, count(*) AS n FROM named GROUP BY g"),
    ("classes", "SELECT n % 1000 AS class, sum(s) AS s, max(n) AS n FROM sums GROUP BY n % 1000"),
    ("weighted", "SELECT sums.g, sums.s * d.v AS s FROM sums JOIN d ON d.g = sums.g"),
    ("first", "SELECT g, s FROM weighted ORDER BY s DESC, g LIMIT 10"),
];

const T: CollectionId = CollectionId(1);
const D: CollectionId = CollectionId(2);
/// Groups of the chain's aggregates.
const GROUPS: i64 = 10_000;

fn main() {
    let options = Options::parse();
    if let Err(e) = chain(&options).and_then(|()| options.views.iter().try_for_each(|n| beside(*n, &options)))
    {
        eprintln!("error: {e}");
        std::process::exit(1);
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(["k", "g", "v"].map(|name| Field::new(name, DataType::Int64, false)).to_vec()))
}

fn engine() -> Result<Engine> {
    let engine = Engine::open(EngineConfig::default())?;
    for (id, name) in [(T, "t"), (D, "d")] {
        engine.create_input(InputSpec {
            id,
            name: name.into(),
            schema: schema(),
            key: Vec::new(),
            retain: true,
            watermark: None,
        })?;
    }
    Ok(engine)
}

/// Rows `from` to `from + n`, spread over the groups.
fn rows(from: i64, n: i64) -> Result<InputChange> {
    let ids = from..from + n;
    let column = |f: fn(i64) -> i64| Arc::new(Int64Array::from_iter_values(ids.clone().map(f))) as ArrayRef;
    let columns = vec![column(|i| i), column(|i| i.wrapping_mul(7919) % GROUPS), column(|i| i % 97)];
    Ok(InputChange::Delta(Delta::insert(RecordBatch::try_new(schema(), columns)?)))
}

fn tick(engine: &Engine, to: CollectionId, change: InputChange) -> Result<Duration> {
    let began = Instant::now();
    engine.submit(Transaction { changes: vec![(to, change)], progress: Vec::new() }).wait()?;
    Ok(began.elapsed())
}

fn line(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6;
    println!(
        "{what:<60} p50 {:>8.1} µs  p90 {:>8.1}  p99 {:>8.1}  max {:>9.1}",
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0)
    );
}

fn chain(options: &Options) -> Result<()> {
    let engine = engine()?;
    let mut known = vec![(T, "t", schema()), (D, "d", schema())];
    for ((name, sql), id) in CHAIN.iter().zip(10..) {
        let id = CollectionId(id);
        let schema = planned::create(&engine, id, name, planned::plan(known.clone(), sql)?)?;
        known.push((id, name, schema));
    }
    tick(&engine, D, rows(0, GROUPS)?)?;
    tick(&engine, T, rows(0, 200_000)?)?;
    let mut next = 200_000;
    for (n, ticks) in [(1, options.ticks), (1000, options.ticks / 10)] {
        let mut times = Vec::with_capacity(ticks);
        for _ in 0..ticks {
            times.push(tick(&engine, T, rows(next, n)?)?);
            next += n;
        }
        line(&format!("{n} rows through a chain of six views"), times);
    }
    finish(&engine)
}

fn beside(views: usize, options: &Options) -> Result<()> {
    let engine = engine()?;
    let began = Instant::now();
    for i in 0..views {
        let sql = format!("SELECT k, v FROM t WHERE g = {i} AND v >= 0");
        let plan = planned::plan([(T, "t", schema())], &sql)?;
        planned::create(&engine, CollectionId(10 + i as u64), &format!("v{i}"), plan)?;
    }
    println!(
        "{:<60} {:.2} s",
        format!("{views} views of one group each, created"),
        began.elapsed().as_secs_f64()
    );
    let ticks = options.ticks.min(5000);
    let mut times = Vec::with_capacity(ticks);
    for i in 0..ticks as i64 {
        times.push(tick(&engine, T, rows(i, 1)?)?);
    }
    line(&format!("1 row that concerns one of {views} views"), times);
    let mut times = Vec::new();
    for i in 0..20 {
        times.push(tick(&engine, T, rows(ticks as i64 + i * 1000, 1000)?)?);
    }
    line(&format!("1,000 rows for {views} views"), times);
    finish(&engine)
}

/// Views that are not their queries make every figure worthless.
fn finish(engine: &Engine) -> Result<()> {
    let wrong = check::check_all(engine)?;
    engine.shutdown();
    match wrong.first() {
        None => Ok(()),
        Some((view, _)) => Err(Error::internal(format!("view {view:?} is not its query"))),
    }
}
