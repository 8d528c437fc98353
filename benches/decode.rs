//! How many records a second one core turns into Arrow columns, from memory: Nexmark's bids as JSON, as Avro with a
//! schema's number before each, as Protobuf, and as Debezium's change events; beside what a SIMD parser needs merely to
//! walk the same JSON, where the feature `bench-walk` brings one.
//!
//! `cargo bench --bench decode --features bench-walk -- [--records 1000000] [--rounds 5]`
//!
//! The best of the rounds counts. Avro and Protobuf take their schema from the statement, as a registry's answer would
//! be kept after the first record.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use clap::Parser;
use tidemill::connectors::envelope::{Declaration, Decoder, Record};
use tidemill::connectors::format::avro::encode as avro;
use tidemill::connectors::format::encode::{RowWriter, member_names};
use tidemill::connectors::format::protobuf::encode as protobuf;
use tidemill::connectors::generate::nexmark::{EventStream, Relation};
use tidemill::connectors::{Envelope, FormatSpec, OptionValue, SourceDefinition};
use tidemill::{Error, Result};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures decoding.
#[derive(Parser)]
struct Options {
    /// Records of each kind.
    #[arg(long, default_value_t = 1_000_000)]
    records: usize,
    /// How often each is decoded.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What one kind of record is decoded by.
struct Kind {
    name: &'static str,
    format: FormatSpec,
    envelope: Envelope,
    key: Vec<usize>,
    records: Vec<Vec<u8>>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let bids = bids(options.records)?;
    let schema = bids.schema();
    println!("{:<18} {:>10} {:>12} {:>10} {:>10}", "records", "bytes each", "records/s", "MB/s", "of a walk");
    for kind in kinds(&bids)? {
        let bytes: usize = kind.records.iter().map(Vec::len).sum();
        let mut best = f64::INFINITY;
        for _ in 0..options.rounds {
            let began = Instant::now();
            let rows = decode(&kind, &schema)?;
            best = best.min(began.elapsed().as_secs_f64());
            if rows != kind.records.len() {
                return Err(Error::internal(format!("{} of {} records were rows", rows, kind.records.len())));
            }
        }
        let walked = kind.format.name == "json";
        let share = match walked.then(|| walk(&kind.records, options.rounds)).transpose()?.flatten() {
            Some(seconds) => format!("{:.0} %", 100.0 * seconds / best),
            None => String::new(),
        };
        let count = kind.records.len() as f64;
        println!(
            "{:<18} {:>10.0} {:>12.0} {:>10.0} {share:>10}",
            kind.name,
            bytes as f64 / count,
            count / best,
            bytes as f64 / best / 1e6
        );
    }
    Ok(())
}

/// So many bids, in one batch.
fn bids(records: usize) -> Result<RecordBatch> {
    // 46 of 50 events are bids.
    let mut stream = EventStream::new(1, 0);
    let batch = stream.take_batches(records * 50 / 46 + 50)?.get(Relation::Bid).clone();
    Ok(batch.slice(0, records.min(batch.num_rows())))
}

fn kinds(bids: &RecordBatch) -> Result<Vec<Kind>> {
    let schema = bids.schema();
    let members = member_names(&schema);
    let rows = RowWriter::new(bids, &members)?;
    let nullable: Vec<bool> = schema.fields().iter().map(|f| f.is_nullable()).collect();
    let columns = || 0..schema.fields().len();
    let all = |write: &dyn Fn(usize, &mut Vec<u8>)| -> Vec<Vec<u8>> {
        (0..bids.num_rows())
            .map(|row| {
                let mut out = Vec::new();
                write(row, &mut out);
                out
            })
            .collect()
    };
    let json = |row: usize, out: &mut Vec<u8>, before: &str, after: &str| {
        let mut text = before.to_string();
        rows.write_json(row, &mut text);
        text.push_str(after);
        out.extend_from_slice(text.as_bytes());
    };
    let fields = || schema.fields().iter().map(|f| f.as_ref());
    let option = |name: &str, value: String| vec![(name.to_string(), OptionValue::Literal(value))];
    let format = |name: &str, options| FormatSpec { name: name.to_string(), options };
    Ok(vec![
        Kind {
            name: "json",
            format: format("json", Vec::new()),
            envelope: Envelope::None,
            key: Vec::new(),
            records: all(&|row, out| json(row, out, "", "")),
        },
        Kind {
            name: "debezium json",
            format: format("json", option("timestamp.format", "iso".to_string())),
            envelope: Envelope::Debezium,
            key: vec![0],
            records: all(&|row, out| {
                json(
                    row,
                    out,
                    "{\"before\":null,\"after\":",
                    ",\"source\":{\"version\":\"3.6.3.Final\",\"connector\":\"postgresql\",\"name\":\"shop\",\
                     \"ts_ms\":1709164800000,\"snapshot\":\"false\",\"db\":\"shop\",\"schema\":\"public\",\
                     \"table\":\"bid\",\"txId\":1234,\"lsn\":24023128},\"op\":\"c\",\"ts_ms\":1709164800123,\
                     \"transaction\":null}",
                );
            }),
        },
        Kind {
            name: "avro",
            format: format("avro", option("schema", avro::schema_of("Bid", fields())?.to_string())),
            envelope: Envelope::None,
            key: Vec::new(),
            records: all(&|row, out| rows.write_avro(columns(), &nullable, row, out)),
        },
        Kind {
            name: "protobuf",
            format: format("protobuf", option("schema", protobuf::schema_of("Bid", fields(), false)?)),
            envelope: Envelope::None,
            key: Vec::new(),
            records: all(&|row, out| rows.write_protobuf(columns(), row, out)),
        },
    ])
}

/// Decodes all records, in batches as a source hands them over; how many rows there were.
fn decode(kind: &Kind, schema: &SchemaRef) -> Result<usize> {
    const BATCH_ROWS: usize = 65_536;
    let definition = SourceDefinition {
        name: "bench".to_string(),
        kind: "kafka".to_string(),
        connection: Vec::new(),
        options: Vec::new(),
        format: Some(kind.format.clone()),
        envelope: kind.envelope,
        includes: Vec::new(),
        key: kind.key.clone(),
    };
    let schema: SchemaRef = Arc::new(Schema::new(schema.fields().clone()));
    let mut decoder =
        Decoder::new(&Declaration { definition: &definition, schema: &schema, full_before_images: false })?;
    let mut rows = 0;
    for record in &kind.records {
        let record = Record { value: Some(record), ..Record::default() };
        decoder.push(&record).map_err(|bad| Error::new(bad.sqlstate, bad.reason))?;
        if decoder.pending() >= BATCH_ROWS {
            rows += decoder.pending();
            std::hint::black_box(decoder.take()?);
        }
    }
    rows += decoder.pending();
    std::hint::black_box(decoder.take()?);
    Ok(rows)
}

/// Seconds that simd-json needs to make a tape of every record, at best. It works in place, so each record is copied first.
#[cfg(feature = "bench-walk")]
fn walk(records: &[Vec<u8>], rounds: usize) -> Result<Option<f64>> {
    let mut buffers = simd_json::Buffers::default();
    let mut copy = Vec::new();
    let mut best = f64::INFINITY;
    for _ in 0..rounds {
        let began = Instant::now();
        for record in records {
            copy.clear();
            copy.extend_from_slice(record);
            let tape = simd_json::to_tape_with_buffers(&mut copy, &mut buffers);
            std::hint::black_box(tape.map_err(|e| Error::internal(e.to_string()))?.0.len());
        }
        best = best.min(began.elapsed().as_secs_f64());
    }
    Ok(Some(best))
}

/// Nothing to compare with.
#[cfg(not(feature = "bench-walk"))]
fn walk(_: &[Vec<u8>], _: usize) -> Result<Option<f64>> {
    Ok(None)
}
