//! Every collection as of one tick, for readers on any thread.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::LogicalPlan;

use crate::engine::runtime::operator::RowError;
use crate::engine::serve::indexes::{Indexes, Search};
use crate::engine::state::ArrangementSnapshot;
use crate::engine::{CollectionId, Delta, Tick};
use crate::error::{Error, Result};
use crate::world::Clock;

/// The whole database at one tick. Never changes; costs memory only for what has changed since.
#[derive(Clone)]
pub struct EngineSnapshot {
    /// The tick.
    pub tick: Tick,
    /// The tick's time, in microseconds since 1970.
    pub now: i64,
    clock: Clock,
    /// By identity modulo their number: a tick copies those parts alone in which something has changed.
    parts: [Part; PARTS],
}

const PARTS: usize = 64;
type Part = Arc<HashMap<CollectionId, Arc<CollectionSnapshot>>>;

impl EngineSnapshot {
    /// The empty database, before any tick.
    pub(crate) fn begin(clock: Clock) -> EngineSnapshot {
        EngineSnapshot { tick: 0, now: i64::MIN, clock, parts: std::array::from_fn(|_| Part::default()) }
    }

    /// What time it is for a read: never before the tick.
    pub fn read_time(&self) -> i64 {
        self.clock.now_micros().max(self.now)
    }

    /// A collection as of this tick; `None` when there is none of that identity.
    pub fn collection(&self, id: CollectionId) -> Option<Arc<CollectionSnapshot>> {
        self.parts[place(id)].get(&id).cloned()
    }

    /// All views.
    pub fn views(&self) -> Vec<CollectionId> {
        let views = self.parts.iter().flat_map(|part| part.iter()).filter(|(_, c)| c.plan.is_some());
        views.map(|(id, _)| *id).collect()
    }

    pub(crate) fn put(&mut self, id: CollectionId, collection: Arc<CollectionSnapshot>) {
        Arc::make_mut(&mut self.parts[place(id)]).insert(id, collection);
    }

    pub(crate) fn remove(&mut self, id: CollectionId) {
        Arc::make_mut(&mut self.parts[place(id)]).remove(&id);
    }
}

fn place(id: CollectionId) -> usize {
    (id.0 % PARTS as u64) as usize
}

/// What a view that gives windows when they close has given last.
#[derive(Clone, Debug)]
pub struct Closed {
    /// In which tick.
    pub tick: Tick,
    /// Windows that end up to this watermark were closed before, in microseconds since 1970.
    pub before: i64,
    /// Windows that end up to this one are closed.
    pub after: i64,
    /// The rows of the windows between.
    pub given: Vec<Delta>,
    /// Changed rows that have come when their window was closed, since the view is there.
    pub late_rows: u64,
}

impl Default for Closed {
    /// Nothing is closed.
    fn default() -> Self {
        Closed { tick: 0, before: i64::MIN, after: i64::MIN, given: Vec::new(), late_rows: 0 }
    }
}

/// One collection's rows, and what is wrong with them, as of one tick.
pub struct CollectionSnapshot {
    name: String,
    rows: ArrangementSnapshot,
    errors: Vec<RowError>,
    failed: Option<Error>,
    keeps_rows: bool,
    plan: Option<Arc<LogicalPlan>>,
    closed: Option<Closed>,
    indexes: Arc<Indexes>,
}

impl CollectionSnapshot {
    #[allow(clippy::too_many_arguments)] // its parts, each once
    pub(crate) fn new(
        name: String,
        rows: ArrangementSnapshot,
        errors: Vec<RowError>,
        failed: Option<Error>,
        keeps_rows: bool,
        plan: Option<Arc<LogicalPlan>>,
        closed: Option<Closed>,
        indexes: Arc<Indexes>,
    ) -> Self {
        CollectionSnapshot { name, rows, errors, failed, keeps_rows, plan, closed, indexes }
    }

    /// The collection's indexes, which all its snapshots share.
    pub(crate) fn indexes(&self) -> &Arc<Indexes> {
        &self.indexes
    }

    /// Says which columns, by position, have indexes besides the key, from now on and for all snapshots. Look-ups by
    /// values of an index's first columns, and by a range of the next, then read no other rows.
    pub fn declare_indexes(&self, indexes: &[Vec<usize>]) {
        self.indexes.declare(self.schema(), indexes);
    }

    /// Rows among which are all that `search` looks for, with these columns; `None`: so many that a scan costs less.
    ///
    /// # Errors
    /// As [`batches`](Self::batches).
    pub(super) fn find(&self, search: &Search, columns: &[usize]) -> Result<Option<RecordBatch>> {
        self.check()?;
        search.run(&self.rows, columns)
    }

    /// Whether its rows are kept at all; an input may only pass them on to views.
    pub fn keeps_rows(&self) -> bool {
        self.keeps_rows
    }

    /// A view's query as it was planned; `None` for an input.
    pub fn plan(&self) -> Option<&LogicalPlan> {
        self.plan.as_deref()
    }

    /// What a view has closed last that gives windows when they close; `None` for others.
    pub fn closed(&self) -> Option<&Closed> {
        self.closed.as_ref()
    }

    /// Its name when it was created.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its columns.
    pub fn schema(&self) -> &SchemaRef {
        self.rows.schema()
    }

    /// Rows as a reader sees them, each as often as it counts.
    pub fn num_rows(&self) -> usize {
        self.rows.num_rows()
    }

    /// The rows, each as often as it counts.
    ///
    /// # Errors
    /// The view has stopped because of an error; it says which.
    pub fn batches(&self) -> Result<Vec<RecordBatch>> {
        self.check()?;
        self.rows.batches()
    }

    /// The rows by weights, without copying where the weights allow it.
    ///
    /// # Errors
    /// As [`batches`](Self::batches).
    pub fn deltas(&self) -> Result<Vec<Delta>> {
        self.check()?;
        self.rows.deltas()
    }

    /// Rows that could not be computed, in the view itself or in a view that it reads; while there are any, its rows
    /// are not the whole answer.
    pub fn errors(&self) -> &[RowError] {
        &self.errors
    }

    /// Why the view has stopped, if it has.
    pub fn failed(&self) -> Option<&Error> {
        self.failed.as_ref()
    }

    /// An error when the view has stopped.
    fn check(&self) -> Result<()> {
        let Some(error) = &self.failed else { return Ok(()) };
        let mut error = error.clone();
        let why = format!("View \"{}\" has stopped because of this error.", self.name);
        error.detail = Some(match error.detail {
            Some(detail) => format!("{detail} {why}"),
            None => why,
        });
        Err(error)
    }
}
