//! The NEXMARK source: the benchmark's events, each relation into the output that refers to it.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::nexmark::{EventStream, Relation};
use super::pace::{Pace, decode_position, encode_position};
use crate::connectors::{Discovered, Options, Source, SourceBatch, SourceContext, SourceDefinition};
use crate::engine::{CollectionId, Delta, InputChange};
use crate::error::{Error, Result, SqlState};

/// Options of the source.
#[derive(Clone, Copy, Debug)]
struct NexmarkSource {
    /// How many events there are; `None`: without end.
    events: Option<u64>,
    /// Events a second; 0: as fast as they are taken.
    rate: u64,
    seed: u32,
}

fn options(definition: &SourceDefinition) -> Result<NexmarkSource> {
    let mut options = Options::new("a NEXMARK source", definition.options.clone());
    const WHOLE: &str = "a whole number, 0 or more";
    let source = NexmarkSource {
        events: options.parse("events", WHOLE)?,
        rate: options.parse("rate", WHOLE)?.unwrap_or(0),
        seed: options.parse("seed", WHOLE)?.unwrap_or(0),
    };
    options.finish()?;
    Ok(source)
}

/// The source: options `events`, `rate` (events a second, 0 for as fast as they are taken) and `seed`.
///
/// # Errors
/// 22023 for options.
pub fn source(definition: &SourceDefinition, _schema: &SchemaRef) -> Result<Box<dyn Source>> {
    options(definition).map(|s| Box::new(s) as Box<dyn Source>)
}

/// Its relations: person, auction and bid.
///
/// # Errors
/// 22023 for options.
pub fn discover(definition: &SourceDefinition) -> Result<Vec<Discovered>> {
    options(definition)?;
    let relation =
        |r: Relation| Discovered { upstream: r.name().to_string(), schema: r.schema(), key: Vec::new() };
    Ok(Relation::ALL.map(relation).to_vec())
}

/// Events are only ever appended: no relation has a key.
///
/// # Errors
/// None.
pub fn output_key(_definition: &SourceDefinition, _schema: &SchemaRef) -> Result<Vec<usize>> {
    Ok(Vec::new())
}

impl Source for NexmarkSource {
    fn run(self: Box<Self>, cx: SourceContext) -> Result<()> {
        let outputs = cx.outputs.iter().map(Output::new).collect::<Result<Vec<_>>>()?;
        let from = decode_position(cx.resume.as_deref())?;
        let mut events = EventStream::new(self.seed, from);
        let pace = Pace::new(self.rate, self.events, from);
        cx.status.update(|s| {
            s.state = "running";
            s.error = None;
        });
        loop {
            let due = pace.due(events.position(), &cx.stop);
            if due == 0 {
                break;
            }
            let batches = events.take_batches(due)?;
            let mut changes = Vec::with_capacity(outputs.len());
            let mut row_count = 0;
            for output in &outputs {
                let rows = batches.get(output.relation);
                if rows.num_rows() > 0 {
                    row_count += rows.num_rows() as u64;
                    let rows = RecordBatch::try_new(Arc::clone(&output.schema), rows.columns().to_vec())?;
                    changes.push((output.collection, InputChange::Delta(Delta { rows, weights: None })));
                }
            }
            let position = Some(encode_position(events.position()));
            cx.feed.submit_nowait(SourceBatch { changes, position, ..SourceBatch::default() })?;
            let left = self.events.map(|end| end.saturating_sub(events.position()));
            cx.status.update(|s| {
                s.rows += row_count;
                s.lag = left;
            });
        }
        if !cx.stop.is_set() {
            cx.status.update(|s| s.state = "finished");
        }
        Ok(())
    }
}

/// Where a relation goes.
struct Output {
    relation: Relation,
    collection: CollectionId,
    schema: SchemaRef,
}

impl Output {
    fn new(output: &crate::connectors::SourceOutput) -> Result<Self> {
        // A name may come qualified: public.bid.
        let name = output.upstream.rsplit('.').next().unwrap_or_default();
        let Some(relation) = Relation::ALL.into_iter().find(|r| r.name().eq_ignore_ascii_case(name)) else {
            return Err(Error::new(
                SqlState::UNDEFINED_TABLE,
                format!("a NEXMARK source has no relation \"{}\"", output.upstream),
            )
            .with_hint("There are person, auction and bid."));
        };
        let own = relation.schema();
        let same = own.fields().len() == output.schema.fields().len()
            && own.fields().iter().zip(output.schema.fields()).all(|(a, b)| a.data_type() == b.data_type());
        if !same {
            return Err(Error::new(
                SqlState::DATATYPE_MISMATCH,
                format!("the columns of \"{}\" are not those of the NEXMARK source", output.upstream),
            ));
        }
        Ok(Output { relation, collection: output.collection, schema: Arc::clone(&output.schema) })
    }
}
