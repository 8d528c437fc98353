//! What the follower of a database's log has read and not handed over yet: whole transactions, gathered until the log
//! pauses or a batch is full, and handed over together with the place behind the last one.

use super::replicated::RowBuilder;
use super::{BadRecord, SourceBatch, SourceContext, SourceOutput, Status};
use crate::error::Result;

/// Rows after which gathered transactions are handed over although more are waiting.
const BATCH_ROWS: usize = 32_768;

/// Rows of a copy between two looks at how far it is, and whether it is to stop.
const COPY_STEP: u64 = 1024;

/// How far a copy is.
pub struct CopyProgress<'a> {
    status: &'a Status,
    done: u64,
    total: u64,
}

impl<'a> CopyProgress<'a> {
    /// A copy of about so many rows begins.
    pub fn begin(status: &'a Status, total: u64) -> Self {
        status.update(|s| (s.state, s.copied) = ("snapshot", (0, total)));
        CopyProgress { status, done: 0, total }
    }

    /// A row was read; says every so many rows that it is time to look whether to stop.
    pub fn row(&mut self) -> bool {
        self.done += 1;
        let told = self.done.is_multiple_of(COPY_STEP);
        if told {
            self.status.update(|s| s.copied = (self.done, self.total.max(self.done)));
        }
        told
    }
}

/// Rows for all outputs of a source, and records that could not be read.
pub struct Gathered {
    /// One an output, in their order.
    pub builders: Vec<RowBuilder>,
    /// What could not be read.
    pub bad: Vec<BadRecord>,
}

impl Gathered {
    /// Nothing yet.
    ///
    /// # Errors
    /// 0A000 for a column type that no table can have.
    pub fn new(outputs: &[SourceOutput]) -> Result<Self> {
        let builders = outputs.iter().cloned().map(RowBuilder::new).collect::<Result<_>>()?;
        Ok(Gathered { builders, bad: Vec::new() })
    }

    /// Output `i` has other columns from now on.
    ///
    /// # Errors
    /// As [`Gathered::new`].
    pub fn redefine(&mut self, i: usize, output: SourceOutput) -> Result<()> {
        self.builders[i] = RowBuilder::new(output)?;
        Ok(())
    }

    /// The place of a table's output.
    pub fn place_of(&self, upstream: &str) -> Option<usize> {
        self.builders.iter().position(|b| b.output().upstream == upstream)
    }

    /// Forgets everything: half a transaction, and what was gathered but not handed over, comes again.
    ///
    /// # Errors
    /// Only when Arrow refuses a batch.
    pub fn discard(&mut self) -> Result<()> {
        self.bad.clear();
        self.builders.iter_mut().try_for_each(|b| b.take().map(|_| ()))
    }

    /// Rows waiting.
    pub fn pending(&self) -> usize {
        self.builders.iter().map(RowBuilder::pending).sum()
    }

    /// Whether so many rows wait that they should be handed over.
    pub fn is_full(&self) -> bool {
        self.pending() >= BATCH_ROWS
    }

    /// Whether changes of rows of whole tables, or rows, wait.
    pub fn is_empty(&self) -> bool {
        self.bad.is_empty() && self.builders.iter().all(RowBuilder::is_empty)
    }

    /// Hands everything over with the position behind it, as one batch.
    ///
    /// # Errors
    /// The engine's, of this batch or one before.
    pub fn hand_over(
        &mut self,
        cx: &SourceContext,
        position: Option<Vec<u8>>,
        event_time_micros: Option<i64>,
    ) -> Result<()> {
        let mut batch =
            SourceBatch { bad: std::mem::take(&mut self.bad), position, ..SourceBatch::default() };
        let mut rows = 0;
        for builder in &mut self.builders {
            let collection = builder.output().collection;
            for change in builder.take()? {
                rows += change.rows().map_or(0, |r| r.num_rows());
                batch.changes.push((collection, change));
            }
        }
        let bad = batch.bad.len() as u64;
        cx.feed.submit_nowait(batch)?;
        cx.status.update(|s| {
            s.rows += rows as u64;
            s.bad_records += bad;
            s.event_time_micros = event_time_micros.or(s.event_time_micros);
        });
        Ok(())
    }
}
