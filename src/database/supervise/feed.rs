//! Where a source puts its batches: rows, bad records and position become one transaction of the engine.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use arrow::array::{ArrayRef, BinaryArray, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use arrow::datatypes::{FieldRef, SchemaRef};
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;

use crate::connectors::{BadRecord, Feed, Refused, SourceBatch, StopFlag};
use crate::database::{Database, system};
use crate::declared::{OnError, OnSchemaChange};
use crate::engine::{CollectionId, Delta, Engine, InputChange, Tick, Transaction};
use crate::error::{Error, Result, SqlState};
use crate::sql::ObjectId;
use crate::sql::catalog::Source;
use crate::world;

/// So much of a bad record is shown in the error that it causes.
const SHOWN_CHARS: usize = 200;

/// The feed of one source.
pub(crate) struct EngineFeed {
    engine: Engine,
    /// What its position is stored under.
    progress: String,
    /// Which source it is.
    id: ObjectId,
    /// What becomes of bad records.
    on_error: OnError,
    /// Its name, for `tidemill.errors`.
    name: String,
    /// What becomes of its tables when their columns change upstream.
    on_schema_change: OnSchemaChange,
    database: Weak<Database>,
    /// Tells the source to finish.
    stop: StopFlag,
    /// Batches handed over without waiting, whose outcome is not known yet, oldest first.
    unsettled: Mutex<VecDeque<BoxFuture<'static, Result<Tick>>>>,
}

impl EngineFeed {
    /// The feed of a source of that name, whose position is stored under `progress`.
    pub fn new(
        database: &Arc<Database>,
        progress: String,
        id: ObjectId,
        source: &Source,
        name: String,
        stop: StopFlag,
    ) -> Arc<EngineFeed> {
        Arc::new(EngineFeed {
            engine: database.engine.clone(),
            progress,
            id,
            on_error: source.on_error,
            name,
            on_schema_change: source.on_schema_change,
            database: Arc::downgrade(database),
            stop,
            unsettled: Mutex::default(),
        })
    }

    fn transaction(&self, batch: SourceBatch) -> Result<Transaction> {
        let mut changes = batch.changes;
        match (self.on_error, batch.bad.first()) {
            (OnError::Store, Some(_)) => {
                changes.push((system::ERRORS, error_rows(&self.name, "source", &batch.bad)?));
            }
            (OnError::Fail, Some(bad)) => return Err(stopped_by(bad)),
            (OnError::Skip, _) | (_, None) => (),
        }
        if !batch.finished.is_empty() {
            changes.push((system::FILES, system::finished_rows(self.id, &batch.finished)?));
        }
        let progress = batch.position.into_iter().map(|p| (self.progress.clone(), p)).collect();
        Ok(Transaction { changes, progress })
    }

    /// Learns what became of batches handed over before. One that failed must stop the source before it hands over
    /// what comes after.
    fn settle(&self) -> Result<()> {
        let mut unsettled = self.unsettled.lock();
        while let Some(receipt) = unsettled.front_mut() {
            let Some(result) = receipt.now_or_never() else { break };
            unsettled.pop_front();
            result?;
        }
        Ok(())
    }
}

impl Feed for EngineFeed {
    fn submit(&self, batch: SourceBatch) -> Result<Tick> {
        self.settle()?;
        self.engine.submit(self.transaction(batch)?).wait()
    }

    fn wait_durable(&self, tick: Tick) -> Result<()> {
        self.engine.wait_durable(tick)
    }

    fn submit_nowait(&self, batch: SourceBatch) -> Result<()> {
        self.settle()?;
        let receipt = self.engine.submit(self.transaction(batch)?);
        self.unsettled.lock().push_back(receipt.applied().boxed());
        Ok(())
    }

    fn durable_position(&self) -> Option<Vec<u8>> {
        self.engine.progress(&self.progress)
    }

    fn on_schema_change(&self) -> OnSchemaChange {
        self.on_schema_change
    }

    fn add_columns(&self, to: CollectionId, columns: &[FieldRef]) -> Result<SchemaRef> {
        let gone = || Error::new(SqlState::ADMIN_SHUTDOWN, "the database is closed");
        self.database.upgrade().ok_or_else(gone)?.add_columns(to.into(), columns, &self.stop)
    }

    fn finished_files(&self) -> Result<Vec<(String, String)>> {
        system::finished_files(&self.engine, self.id)
    }
}

/// Why a source that is to stop at bad records has stopped.
fn stopped_by(bad: &BadRecord) -> Error {
    let error = Error::new(SqlState(bad.sqlstate), format!("a record was not understood: {}", bad.reason));
    let raw = bad.raw.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
    let shown: String = raw.chars().take(SHOWN_CHARS).collect();
    error
        .with_detail(format!("It is at {}: {shown}", bad.position))
        .with_hint("Mend it upstream, or create the source with another on_error: 'store' or 'skip'.")
}

/// Where rows go that a sink's destination has refused: into `tidemill.errors`, durably.
pub(crate) fn refused(engine: Engine, sink: String) -> Refused {
    Arc::new(move |bad| {
        let changes = vec![(system::ERRORS, error_rows(&sink, "sink", bad)?)];
        let tick = engine.submit(Transaction { changes, progress: Vec::new() }).wait()?;
        engine.wait_durable(tick)
    })
}

/// Rows of `tidemill.errors` for bad records of a source, or rows that were refused to a sink.
fn error_rows(object: &str, kind: &str, bad: &[BadRecord]) -> Result<InputChange> {
    let now = world::now_micros();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringViewArray::from_iter_values(bad.iter().map(|_| object))),
        Arc::new(StringViewArray::from_iter_values(bad.iter().map(|_| kind))),
        Arc::new(StringViewArray::from_iter_values(bad.iter().map(|b| b.sqlstate))),
        Arc::new(StringViewArray::from_iter_values(bad.iter().map(|b| b.reason.as_str()))),
        Arc::new(BinaryArray::from_iter(bad.iter().map(|b| b.raw.as_deref()))),
        Arc::new(StringViewArray::from_iter_values(bad.iter().map(|b| b.position.as_str()))),
        Arc::new(
            TimestampMicrosecondArray::from_iter_values(bad.iter().map(|_| now)).with_timezone("+00:00"),
        ),
        Arc::new(BinaryArray::from_iter(bad.iter().map(|b| b.kept.as_ref().and_then(|k| k.key.as_deref())))),
        Arc::new(StringViewArray::from_iter(
            bad.iter().map(|b| b.kept.as_ref().map(|k| k.metadata.as_str())),
        )),
    ];
    let rows = RecordBatch::try_new(system::errors_schema(), columns)?;
    Ok(InputChange::Delta(Delta { rows, weights: None }))
}
