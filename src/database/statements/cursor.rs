//! DECLARE, FETCH, CLOSE.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;

use crate::database::statements::query::stream_of;
use crate::database::{Outcome, Session};
use crate::error::{Error, Result, SqlState};
use crate::sql::ast::{CursorOf, Declare, Fetch};
use crate::world;

/// An open cursor.
pub(crate) struct Cursor {
    schema: SchemaRef,
    stream: SendableRecordBatchStream,
    /// Read from the stream, but not fetched.
    rest: Option<RecordBatch>,
    /// Its stream has no end, and fetching waits only as long as it is told to.
    endless: bool,
    /// It outlives its transaction.
    hold: bool,
}

impl Cursor {
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The next rows, at most `count`.
    async fn fetch(&mut self, count: u64, timeout: Duration) -> Result<Vec<RecordBatch>> {
        let mut wanted = usize::try_from(count).unwrap_or(usize::MAX);
        let mut fetched = Vec::new();
        let deadline = world::instant() + timeout;
        while wanted > 0 {
            let batch = match self.rest.take() {
                Some(rest) => rest,
                None => match self.next(deadline, fetched.is_empty()).await? {
                    Some(batch) => batch,
                    None => break,
                },
            };
            if batch.num_rows() > wanted {
                self.rest = Some(batch.slice(wanted, batch.num_rows() - wanted));
                fetched.push(batch.slice(0, wanted));
                break;
            }
            wanted -= batch.num_rows();
            fetched.push(batch);
        }
        Ok(fetched)
    }

    /// The next batch; of an endless stream only what comes in time, and, once there is something, what is there.
    async fn next(&mut self, deadline: std::time::Instant, wait: bool) -> Result<Option<RecordBatch>> {
        let next = self.stream.next();
        let item = if self.endless {
            let left = match wait {
                true => deadline.saturating_duration_since(world::instant()),
                false => Duration::ZERO,
            };
            tokio::select! {
                biased;
                item = next => item,
                () = world::pause(left) => None,
            }
        } else {
            next.await
        };
        item.transpose().map_err(Error::from)
    }
}

fn no_cursor(name: &str) -> Error {
    Error::new(SqlState::INVALID_CURSOR_NAME, format!("cursor \"{name}\" does not exist"))
}

impl Session {
    pub(crate) async fn declare(&mut self, declare: &Declare, text: &str) -> Result<Outcome> {
        if !declare.hold && !self.transaction.as_ref().is_some_and(|t| t.block) {
            return Err(Error::new(
                SqlState::NO_ACTIVE_SQL_TRANSACTION,
                "DECLARE CURSOR can only be used in transaction blocks",
            ));
        }
        if self.cursors.contains_key(&declare.name) {
            return Err(Error::new(SqlState("42P03"), format!("cursor \"{}\" already exists", declare.name)));
        }
        let (stream, endless) = match &declare.what {
            CursorOf::Query(query) => (self.rows(query, text).await?, false),
            CursorOf::Subscribe(subscribe) => (self.subscription(subscribe, text).await?, true),
        };
        let cursor = Cursor { schema: stream.schema(), stream, rest: None, endless, hold: declare.hold };
        self.cursors.insert(declare.name.clone(), cursor);
        Ok(Outcome::done("DECLARE CURSOR"))
    }

    pub(crate) async fn fetch(&mut self, fetch: &Fetch) -> Result<Outcome> {
        let cursor = self.cursors.get_mut(&fetch.name).ok_or_else(|| no_cursor(&fetch.name))?;
        let timeout = Duration::from_micros(fetch.timeout_micros.unwrap_or(0));
        let batches = cursor.fetch(fetch.count.unwrap_or(u64::MAX), timeout).await?;
        let schema = Arc::clone(&cursor.schema);
        Ok(Outcome::Rows {
            schema: Arc::clone(&schema),
            stream: stream_of(schema, batches),
            tag: |n| format!("FETCH {n}"),
            notices: Vec::new(),
        })
    }

    pub(crate) fn close_cursor(&mut self, name: Option<&str>) -> Result<Outcome> {
        match name {
            None => {
                self.cursors.clear();
                Ok(Outcome::done("CLOSE CURSOR ALL"))
            }
            Some(name) => match self.cursors.remove(name) {
                Some(_) => Ok(Outcome::done("CLOSE CURSOR")),
                None => Err(no_cursor(name)),
            },
        }
    }

    /// Columns of a cursor's rows.
    pub(crate) fn cursor_schema(&self, name: &str) -> Result<SchemaRef> {
        self.cursors.get(name).map(|c| Arc::clone(c.schema())).ok_or_else(|| no_cursor(name))
    }

    /// A block ends, and with it the cursors that were not declared to outlive it.
    pub(crate) fn close_transaction_cursors(&mut self) {
        self.cursors.retain(|_, cursor| cursor.hold);
    }
}
