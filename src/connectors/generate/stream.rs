//! Sources that make the events of several relations: each relation goes into the output that refers to it.

use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::datatypes::SchemaRef;

use super::pace::{Pace, decode_position, encode_position};
use crate::connectors::{
    Discovered, Options, Source, SourceBatch, SourceContext, SourceDefinition, SourceOutput,
};
use crate::engine::{CollectionId, Delta, InputChange};
use crate::error::{Error, Result, SqlState};

/// Events one after another. Event `n` is a function of a seed and `n` alone.
pub trait Stream: Sized {
    /// What `CREATE SOURCE … FROM` calls it.
    const NAME: &'static str;

    /// Its relations, in the order in which [`take`](Self::take) gives their rows. Without a key, rows only ever come.
    fn relations() -> Vec<Discovered>;

    /// The events from number `first` (0 is the first of all) on.
    fn new(seed: u32, first: u64) -> Self;

    /// The number of the next event.
    fn position(&self) -> u64;

    /// What the next `n` events do to each relation.
    fn take(&mut self, n: usize) -> Result<Vec<Events>>;
}

/// What some consecutive events do to one relation, in their order.
pub struct Events {
    /// Rows that come, or, in a relation with a key, take the place of those of their keys.
    pub rows: RecordBatch,
    /// Which of them go, in a relation with a key.
    pub deletes: Option<BooleanArray>,
}

/// Options of the source.
struct Generator<S> {
    /// How many events there are; `None`: without end.
    events: Option<u64>,
    /// Events a second; 0: as fast as they are taken.
    rate: u64,
    seed: u32,
    of: PhantomData<fn() -> S>,
}

impl<S: Stream> Generator<S> {
    fn new(definition: &SourceDefinition) -> Result<Self> {
        let mut options = Options::new(format!("a {} source", S::NAME), definition.options.clone());
        const WHOLE: &str = "a whole number, 0 or more";
        let source = Generator {
            events: options.parse("events", WHOLE)?,
            rate: options.parse("rate", WHOLE)?.unwrap_or(0),
            seed: options.parse("seed", WHOLE)?.unwrap_or(0),
            of: PhantomData,
        };
        options.finish()?;
        Ok(source)
    }
}

/// The source: options `events`, `rate` (events a second, 0 for as fast as they are taken) and `seed`.
///
/// # Errors
/// 22023 for options.
pub fn source<S: Stream + 'static>(
    definition: &SourceDefinition,
    _schema: &SchemaRef,
) -> Result<Box<dyn Source>> {
    Ok(Box::new(Generator::<S>::new(definition)?))
}

/// Its relations.
///
/// # Errors
/// 22023 for options.
pub fn discover<S: Stream>(definition: &SourceDefinition) -> Result<Vec<Discovered>> {
    Generator::<S>::new(definition)?;
    Ok(S::relations())
}

impl<S: Stream> Source for Generator<S> {
    fn run(self: Box<Self>, cx: SourceContext) -> Result<()> {
        let relations = S::relations();
        let outputs: Vec<Output> =
            cx.outputs.iter().map(|output| Output::new::<S>(output, &relations)).collect::<Result<_>>()?;
        let from = decode_position(cx.resume.as_deref())?;
        let mut events = S::new(self.seed, from);
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
            let taken = events.take(due)?;
            let mut changes = Vec::with_capacity(outputs.len());
            let mut row_count = 0;
            for output in &outputs {
                let Some(Events { rows, deletes }) = taken.get(output.relation) else { continue };
                if rows.num_rows() > 0 {
                    row_count += rows.num_rows() as u64;
                    let rows = RecordBatch::try_new(Arc::clone(&output.schema), rows.columns().to_vec())?;
                    let change = match output.keyed {
                        true => InputChange::Upsert { rows, deletes: deletes.clone() },
                        false => InputChange::Delta(Delta { rows, weights: None }),
                    };
                    changes.push((output.collection, change));
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
    /// Its place among the relations.
    relation: usize,
    keyed: bool,
    collection: CollectionId,
    schema: SchemaRef,
}

impl Output {
    fn new<S: Stream>(output: &SourceOutput, relations: &[Discovered]) -> Result<Self> {
        // A name may come qualified: public.bid.
        let name = output.upstream.rsplit('.').next().unwrap_or_default();
        let Some(relation) = relations.iter().position(|r| r.upstream.eq_ignore_ascii_case(name)) else {
            let known: Vec<&str> = relations.iter().map(|r| r.upstream.as_str()).collect();
            return Err(Error::new(
                SqlState::UNDEFINED_TABLE,
                format!("a {} source has no relation \"{}\"", S::NAME, output.upstream),
            )
            .with_hint(format!("There are {}.", known.join(", "))));
        };
        let own = &relations[relation];
        let same = own.schema.fields().len() == output.schema.fields().len()
            && own
                .schema
                .fields()
                .iter()
                .zip(output.schema.fields())
                .all(|(a, b)| a.data_type() == b.data_type());
        if !same {
            return Err(Error::new(
                SqlState::DATATYPE_MISMATCH,
                format!("the columns of \"{}\" are not those of the {} source", output.upstream, S::NAME),
            ));
        }
        let keyed = !own.key.is_empty();
        if keyed && output.key != own.key {
            let key: Vec<&str> = own.key.iter().map(|at| own.schema.field(*at).name().as_str()).collect();
            return Err(Error::new(
                SqlState::INVALID_TABLE_DEFINITION,
                format!("\"{}\" of a {} source has another key", output.upstream, S::NAME),
            )
            .with_hint(format!("Declare PRIMARY KEY ({}).", key.join(", "))));
        }
        Ok(Output { relation, keyed, collection: output.collection, schema: Arc::clone(&output.schema) })
    }
}
