//! Files read for one query: the source of files once more, with a feed that hands the rows to whoever asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::connectors::{
    Feed, Source, SourceBatch, SourceContext, SourceDefinition, SourceOutput, Status, StopFlag,
};
use crate::engine::{CollectionId, InputChange, Tick};
use crate::error::{Error, Result, SqlState};

/// Takes rows; says whether more are wanted.
pub type Rows = Box<dyn Fn(RecordBatch) -> bool + Send + Sync>;

/// The options of a source that is read once, whatever its files' age.
const ONCE: [(&str, &str); 2] = [("poll", "once"), ("min_age", "0 s")];

struct Forward {
    rows: Rows,
    /// Nobody wants more.
    enough: AtomicBool,
}

impl Feed for Forward {
    fn submit(&self, batch: SourceBatch) -> Result<Tick> {
        for (_, change) in batch.changes {
            let InputChange::Delta(delta) = change else {
                return Err(Error::internal("a preview of files with a key"));
            };
            if !(self.rows)(delta.rows) {
                self.enough.store(true, Ordering::Release);
                return Err(Error::internal("nobody wants more rows of a preview"));
            }
        }
        // Who has enough with the rows before does not come here.
        if let Some(bad) = batch.bad.first() {
            let message = format!("a record was not understood: {}", bad.reason);
            return Err(Error::new(SqlState(bad.sqlstate), message)
                .with_detail(format!("It is at {}.", bad.position))
                .with_hint("A source puts such records into tidemill.errors, and goes on."));
        }
        Ok(0)
    }

    fn submit_nowait(&self, batch: SourceBatch) -> Result<()> {
        self.submit(batch).map(|_| ())
    }

    fn wait_durable(&self, _: Tick) -> Result<()> {
        Ok(())
    }

    fn durable_position(&self) -> Option<Vec<u8>> {
        None
    }
}

/// A definition with which files are read once.
pub fn once(mut definition: SourceDefinition) -> SourceDefinition {
    definition.options.extend(ONCE.map(|(name, value)| (name.to_string(), value.to_string())));
    definition
}

/// Reads all files of a definition, in the columns of `schema`, until nobody wants more. Blocks.
///
/// # Errors
/// The store's; of the first record that is not understood.
pub fn read(definition: &SourceDefinition, schema: &SchemaRef, rows: Rows) -> Result<()> {
    let source: Box<dyn Source> = super::source(definition, schema)?;
    let feed = Arc::new(Forward { rows, enough: AtomicBool::new(false) });
    let output = SourceOutput {
        collection: CollectionId(0),
        upstream: definition.name.clone(),
        schema: Arc::clone(schema),
        key: Vec::new(),
    };
    let result = source.run(SourceContext {
        name: definition.name.clone(),
        outputs: vec![output],
        resume: None,
        feed: Arc::clone(&feed) as Arc<dyn Feed>,
        status: Arc::new(Status::default()),
        stop: StopFlag::default(),
    });
    match result {
        Err(_) if feed.enough.load(Ordering::Acquire) => Ok(()),
        other => other,
    }
}
