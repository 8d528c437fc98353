//! The generators as sources: what they hand over, and that going on from a position changes nothing.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use parking_lot::Mutex;

use super::nexmark::EventStream;
use super::shop::Shop;
use super::{datagen, stream};
use crate::connectors::{
    Envelope, Feed, Source, SourceBatch, SourceContext, SourceDefinition, SourceOutput, Status, StopFlag,
};
use crate::engine::{CollectionId, InputChange, Tick};
use crate::error::Result;

/// Keeps what it is given.
#[derive(Default)]
struct Kept(Mutex<Vec<SourceBatch>>);

impl Feed for Kept {
    fn submit(&self, batch: SourceBatch) -> Result<Tick> {
        self.submit_nowait(batch).map(|()| 0)
    }

    fn wait_durable(&self, _tick: Tick) -> Result<()> {
        Ok(())
    }

    fn submit_nowait(&self, batch: SourceBatch) -> Result<()> {
        self.0.lock().push(batch);
        Ok(())
    }

    fn durable_position(&self) -> Option<Vec<u8>> {
        None
    }
}

fn definition(kind: &str, options: &[(&str, &str)]) -> SourceDefinition {
    SourceDefinition {
        name: "s".into(),
        kind: kind.into(),
        connection: vec![],
        options: options.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect(),
        format: None,
        envelope: Envelope::None,
        includes: vec![],
        key: vec![],
    }
}

/// Runs a source to its end; the rows of each output, and the last position.
fn run(
    source: Box<dyn Source>,
    outputs: &[(&str, SchemaRef)],
    resume: Option<&[u8]>,
) -> (Vec<RecordBatch>, Vec<u8>, Arc<Status>) {
    let feed = Arc::new(Kept::default());
    let status = Arc::new(Status::default());
    let output = |(i, (name, schema)): (usize, &(&str, SchemaRef))| SourceOutput {
        collection: CollectionId(i as u64),
        upstream: name.to_string(),
        schema: Arc::clone(schema),
        key: vec![0],
    };
    source
        .run(SourceContext {
            name: "s".into(),
            outputs: outputs.iter().enumerate().map(output).collect(),
            resume: resume.map(<[u8]>::to_vec),
            feed: Arc::clone(&feed) as Arc<dyn Feed>,
            status: Arc::clone(&status),
            stop: StopFlag::default(),
        })
        .unwrap();
    let batches = std::mem::take(&mut *feed.0.lock());
    let position = batches.last().and_then(|b| b.position.clone()).unwrap_or_default();
    let rows = outputs.iter().enumerate().map(|(i, (_, schema))| {
        let of_output = batches.iter().flat_map(|b| &b.changes).filter(|(id, _)| id.0 == i as u64);
        let rows: Vec<RecordBatch> = of_output
            .map(|(_, change)| match change {
                InputChange::Delta(delta) => delta.rows.clone(),
                InputChange::Upsert { rows, .. } => rows.clone(),
                other => panic!("generators only add rows, not {other:?}"),
            })
            .collect();
        concat_batches(schema, &rows).unwrap()
    });
    (rows.collect(), position, status)
}

#[test]
fn nexmark_fills_its_relations_and_goes_on_from_a_position() {
    let whole = definition("nexmark", &[("events", "20000"), ("seed", "2")]);
    let discovered = stream::discover::<EventStream>(&whole).unwrap();
    let outputs: Vec<(&str, SchemaRef)> =
        discovered.iter().map(|d| (d.upstream.as_str(), Arc::clone(&d.schema))).collect();
    let build = |d: &SourceDefinition| stream::source::<EventStream>(d, &outputs[0].1).unwrap();
    let (rows, position, status) = run(build(&whole), &outputs, None);
    assert_eq!(rows.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [400, 1200, 18_400]);
    assert_eq!((status.get().state, status.get().rows), ("finished", 20_000));
    assert_eq!(position, b"20000");

    let half = definition("nexmark", &[("events", "12345"), ("seed", "2")]);
    let (first, position, _) = run(build(&half), &outputs, None);
    let (rest, _, _) = run(build(&whole), &outputs, Some(&position));
    for (i, (_, schema)) in outputs.iter().enumerate() {
        assert_eq!(concat_batches(schema, [&first[i], &rest[i]]).unwrap(), rows[i]);
    }
}

#[test]
fn nexmark_keeps_to_its_rate() {
    let slow = definition("nexmark", &[("events", "100"), ("rate", "1000")]);
    let outputs = [("public.bid", super::nexmark::Relation::Bid.schema())];
    let began = std::time::Instant::now();
    let (rows, _, _) = run(stream::source::<EventStream>(&slow, &outputs[0].1).unwrap(), &outputs, None);
    assert_eq!(rows[0].num_rows(), 92);
    assert!(began.elapsed() >= std::time::Duration::from_millis(95));
}

#[test]
fn a_shop_goes_on_from_a_position_with_what_would_have_come() {
    let shop = |events: &str, seed: &str| {
        let definition = definition("shop", &[("events", events), ("seed", seed)]);
        let outputs: Vec<(String, SchemaRef)> = stream::discover::<Shop>(&definition)
            .unwrap()
            .into_iter()
            .map(|d| (d.upstream, d.schema))
            .collect();
        (stream::source::<Shop>(&definition, &outputs[0].1).unwrap(), outputs)
    };
    let all = |events: &str, seed: &str, resume: Option<&[u8]>| {
        let (source, outputs) = shop(events, seed);
        let outputs: Vec<(&str, SchemaRef)> =
            outputs.iter().map(|(name, schema)| (name.as_str(), Arc::clone(schema))).collect();
        run(source, &outputs, resume)
    };
    let (rows, position, status) = all("20000", "7", None);
    assert_eq!(rows.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [2000, 14_000, 4000]);
    assert_eq!((position.as_slice(), status.get().rows), (b"20000".as_slice(), 20_000));
    let (first, position, _) = all("11113", "7", None);
    let (rest, _, _) = all("20000", "7", Some(&position));
    for (i, rows) in rows.iter().enumerate() {
        assert_eq!(&concat_batches(&rows.schema(), [&first[i], &rest[i]]).unwrap(), rows);
    }
    let (others, ..) = all("20000", "8", None);
    assert!(rows.iter().zip(&others).all(|(a, b)| a != b));
}

#[test]
fn options_are_checked() {
    let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
    let nexmark = |o: &[(&str, &str)]| {
        stream::source::<EventStream>(&definition("nexmark", o), &schema).err().unwrap().message
    };
    assert_eq!(
        nexmark(&[("events", "x")]),
        "option \"events\" of a NEXMARK source must be a whole number, 0 or more, not \"x\""
    );
    assert_eq!(nexmark(&[("nope", "1")]), "unknown option \"nope\" of a NEXMARK source");
    let datagen =
        |o: &[(&str, &str)]| datagen::source(&definition("datagen", o), &schema).err().unwrap().message;
    assert_eq!(datagen(&[("fields.b.min", "1")]), "unknown option \"fields.b.min\" of a DATAGEN source");
    assert_eq!(
        datagen(&[("fields.a.min", "1"), ("fields.a.max", "0")]),
        "options of field \"a\": max is less than min"
    );
    assert_eq!(
        datagen(&[("fields.a.kind", "x")]),
        "option \"fields.a.kind\" must be 'sequence' or 'random', not \"x\""
    );
}

#[test]
fn datagen_makes_every_type_and_goes_on_from_a_position() {
    let schema: SchemaRef = Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("small", DataType::Int16, false),
        Field::new("amount", DataType::Decimal128(5, 2), false),
        Field::new("ratio", DataType::Float64, false),
        Field::new("name", DataType::Utf8View, false),
        Field::new("data", DataType::Binary, false),
        Field::new("day", DataType::Date32, false),
        Field::new("clock", DataType::Time64(TimeUnit::Microsecond), false),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())), false),
        Field::new("flag", DataType::Boolean, false),
        crate::types::SqlType::Uuid.field("u", false),
        crate::types::SqlType::Jsonb.field("j", false),
    ]));
    let options = [
        ("rows", "10000"),
        ("seed", "9"),
        ("fields.small.min", "-3"),
        ("fields.small.max", "3"),
        ("fields.name.length", "4"),
    ];
    let build = |rows: &str| {
        let mut options = options;
        options[0].1 = rows;
        datagen::source(&definition("datagen", &options), &schema).unwrap()
    };
    let outputs = [("d", Arc::clone(&schema))];
    let (all, position, status) = run(build("10000"), &outputs, None);
    assert_eq!(
        (all[0].num_rows(), position.as_slice(), status.get().state),
        (10_000, b"10000".as_slice(), "finished")
    );
    let ids = all[0].column(0).as_primitive::<Int64Type>();
    assert!(ids.values().iter().enumerate().all(|(i, id)| *id == i as i64));
    let small = all[0].column(1).as_primitive::<arrow::datatypes::Int16Type>();
    assert_eq!(small.values().iter().min(), Some(&-3));
    assert_eq!(small.values().iter().max(), Some(&3));
    assert!(all[0].column(4).as_string_view().iter().all(|s| s.is_some_and(|s| s.len() == 4)));

    let (first, position, _) = run(build("777"), &outputs, None);
    let (rest, _, _) = run(build("10000"), &outputs, Some(&position));
    assert_eq!(concat_batches(&schema, [&first[0], &rest[0]]).unwrap(), all[0]);
}
