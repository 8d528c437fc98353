//! What a batch costs on its way into staged Parquet files: consolidated to its net effect, brought into the warehouse's
//! types, and written; beside what Arrow's own Parquet writer needs for the same rows and nothing else.
//!
//! `cargo bench --bench encode -- [--records 1000000] [--rounds 5]`
//!
//! Rows are Nexmark's bids, without a key, so that each row is hashed. The best of the rounds counts.

use std::time::Instant;

use arrow::array::RecordBatch;
use clap::Parser;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use tidemill::connectors::generate::nexmark::{EventStream, Relation};
use tidemill::connectors::snowflake::types;
use tidemill::connectors::warehouse::Shape;
use tidemill::connectors::warehouse::consolidate::Pending;
use tidemill::connectors::warehouse::staging::{staged_rows, write_files};
use tidemill::engine::Delta;
use tidemill::{Error, Result};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures encoding.
#[derive(Parser)]
struct Options {
    /// Rows of the batch.
    #[arg(long, default_value_t = 1_000_000)]
    records: usize,
    /// How often each is done.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let bids = bids(options.records)?;
    let rows = bids.num_rows();
    let shape = Shape::new(bids.schema(), &[], false);
    let columns = types::columns(&shape.schema)?;
    println!("{:<34} {:>12} {:>10}", "step", "rows/s", "MB");
    let best = |name: &str, step: &dyn Fn() -> Result<usize>| -> Result<()> {
        let (mut seconds, mut bytes) = (f64::INFINITY, 0);
        for _ in 0..options.rounds.max(1) {
            let began = Instant::now();
            bytes = step()?;
            seconds = seconds.min(began.elapsed().as_secs_f64());
        }
        println!("{name:<34} {:>12.0} {:>10.1}", rows as f64 / seconds, bytes as f64 / 1e6);
        Ok(())
    };
    let consolidated = || {
        let mut pending = Pending::new(shape.clone());
        pending.push(Delta::insert(bids.clone()))?;
        pending.take()
    };
    best("consolidate", &|| consolidated().map(|net| net.rows.get_array_memory_size()))?;
    let net = consolidated()?;
    best("bring into Snowflake's types", &|| {
        Ok(staged_rows(&shape, &net, &types::encode(&columns, &net.rows)?)?.get_array_memory_size())
    })?;
    let staged = staged_rows(&shape, &net, &types::encode(&columns, &net.rows)?)?;
    best("write staged files", &|| {
        let files = write_files(&staged, 128 << 20, |_, _| Ok(())).map_err(|failure| failure.error)?;
        Ok(files.iter().map(|f| f.bytes as usize).sum())
    })?;
    best("the same, by Arrow's writer alone", &|| bare(&staged))
}

/// The rows in one file.
fn bare(rows: &RecordBatch) -> Result<usize> {
    let properties =
        WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    let failed = |e: parquet::errors::ParquetError| Error::internal(e.to_string());
    let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties)).map_err(failed)?;
    writer.write(rows).map_err(failed)?;
    Ok(writer.into_inner().map_err(failed)?.len())
}

fn bids(records: usize) -> Result<RecordBatch> {
    // 46 of 50 events are bids.
    let batch = EventStream::new(1, 0).take_batches(records * 50 / 46 + 50)?.get(Relation::Bid).clone();
    Ok(batch.slice(0, records.min(batch.num_rows())))
}
