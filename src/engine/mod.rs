//! The incremental engine: collections of rows that change in ticks, and views that follow them.
//!
//! The engine knows nothing of SQL text, sockets or async. It is given logical plans over *collections*
//! and transactions of *changes*; it applies transactions one tick at a time, keeps every view equal to
//! its query at that tick, journals what cannot be had again, and lets anybody read or follow a
//! collection at a consistent tick.

mod batch;
pub mod check;
pub mod delta;
pub(crate) mod durable;
pub mod expr;
mod gather;
pub mod handle;
mod ipc;
pub mod keys;
pub mod ops;
pub mod plan;
mod recursion;
pub mod runtime;
pub mod serve;
pub mod state;
#[cfg(test)]
mod tests;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::LogicalPlan;

pub use delta::Delta;
pub use durable::inspect;
pub use handle::{Engine, EngineConfig, Replacement};
pub use runtime::hydrate::Hydration;
pub use runtime::operator::RowError;
pub use runtime::replay::ReplayReport;
pub use runtime::stats::{CheckpointStats, CollectionStats, EngineStats, OperatorStats};
pub use runtime::subscribe::{Backlog, SubscribeFrom, Subscription};
pub use serve::snapshot::{CollectionSnapshot, EngineSnapshot};

use crate::error::Result;

/// Names a collection (a table, a source's output or a view) for the life of the data directory; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct CollectionId(pub u64);

/// The number of an atomic step of the whole database. 0 is the empty database.
pub type Tick = u64;

/// A collection that is written from outside: a table or a source's output.
#[derive(Clone, Debug)]
pub struct InputSpec {
    /// Its identity.
    pub id: CollectionId,
    /// For logs and EXPLAIN.
    pub name: String,
    /// Columns as stored.
    pub schema: SchemaRef,
    /// Positions of the key's columns. With a key there is at most one row per key. Empty: a bag of rows.
    pub key: Vec<usize>,
    /// Whether its rows are kept, for SELECT and for views created later. A keyed input always keeps them.
    pub retain: bool,
    /// What its watermark follows; `None`: it has none.
    pub watermark: Option<Watermark>,
}

/// How far an input's event time has come: its latest time so far, minus a delay. It never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Watermark {
    /// The position of the column with the event time, a timestamp.
    pub column: usize,
    /// The delay, in microseconds.
    pub delay: i64,
}

/// A view to be kept up to date.
#[derive(Clone, Debug)]
pub struct ViewSpec {
    /// Its identity.
    pub id: CollectionId,
    /// For logs and EXPLAIN.
    pub name: String,
    /// Its output columns, by the names the user gave.
    pub schema: SchemaRef,
    /// The analysed, unoptimised plan; its scans are of [`plan::CollectionSource`]s, its output matches `schema` by position.
    pub plan: LogicalPlan,
}

/// A change to one input.
#[derive(Clone, Debug)]
pub enum InputChange {
    /// Exact: these rows by these weights. What is retracted must be there.
    Delta(Delta),
    /// By key, in order, the last one of a key wins: the row replaces the key's row, or, where `deletes` is true,
    /// the key's row goes away (only the key's columns of that row are read). A key that is not there is no error.
    Upsert {
        /// The rows, in the input's columns.
        rows: RecordBatch,
        /// Which of them delete; `None`: none.
        deletes: Option<BooleanArray>,
    },
    /// By key, each key once: the row replaces the key's row, but for the values that were not told, which stay as
    /// they are (an upstream does not send large values that did not change).
    Patch {
        /// The rows, in the input's columns; a value that stays is NULL here.
        rows: RecordBatch,
        /// Per column with such values: its position, and in which rows the value stays.
        unchanged: Vec<(usize, BooleanArray)>,
    },
    /// Every row goes away.
    Truncate,
    /// These rows, and no others: what is there already stays as it is. By key the last row of a key wins.
    Replace(RecordBatch),
}

impl InputChange {
    /// The rows that it tells of; `None`: it tells of none.
    pub fn rows(&self) -> Option<&RecordBatch> {
        match self {
            InputChange::Delta(delta) => Some(&delta.rows),
            InputChange::Upsert { rows, .. }
            | InputChange::Patch { rows, .. }
            | InputChange::Replace(rows) => Some(rows),
            InputChange::Truncate => None,
        }
    }
}

/// Changes that become visible together, in one tick.
#[derive(Clone, Debug, Default)]
pub struct Transaction {
    /// Applied in order.
    pub changes: Vec<(CollectionId, InputChange)>,
    /// How far a source has been read once this is applied: an opaque position by source name, durable with the rows.
    pub progress: Vec<(String, Vec<u8>)>,
}

/// The promise of a submitted transaction.
#[derive(Debug)]
pub struct Receipt {
    rx: tokio::sync::oneshot::Receiver<Result<Tick>>,
}

/// What became of one tick in a followed collection.
#[derive(Clone, Debug)]
pub struct TickDelta {
    /// The tick after which the collection is as it is once `delta` is applied.
    pub tick: Tick,
    /// The net change since the tick before in this subscription; `None` says only that time has passed.
    pub delta: Option<Delta>,
}
