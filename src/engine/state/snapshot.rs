//! The rows of an arrangement as they were at one moment, for readers on other threads.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::engine::Delta;
use crate::engine::delta::batch;
use crate::engine::state::weights::Weights;
use crate::error::Result;

/// An unchanging copy of an arrangement's rows; it shares all memory with the arrangement until that changes.
#[derive(Clone)]
pub struct ArrangementSnapshot {
    schema: SchemaRef,
    tiles: Vec<Arc<RecordBatch>>,
    weights: Weights,
    num_rows: i64,
}

impl ArrangementSnapshot {
    pub(super) fn new(
        schema: &SchemaRef,
        tiles: Vec<Arc<RecordBatch>>,
        weights: Weights,
        num_rows: i64,
    ) -> ArrangementSnapshot {
        ArrangementSnapshot { schema: Arc::clone(schema), tiles, weights, num_rows }
    }

    /// No rows.
    pub fn empty(schema: &SchemaRef) -> ArrangementSnapshot {
        ArrangementSnapshot::new(schema, Vec::new(), Weights::default(), 0)
    }

    /// The rows' columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The tiles, in order of their rows' numbers.
    pub(in crate::engine) fn tiles(&self) -> &[Arc<RecordBatch>] {
        &self.tiles
    }

    /// How often a row counts, by its number.
    pub(in crate::engine) fn weight(&self, id: u32) -> i64 {
        self.weights.get(id)
    }

    /// How many rows a reader sees, each as often as it counts.
    pub fn num_rows(&self) -> usize {
        self.num_rows as usize
    }

    /// The rows by weights; one delta a tile.
    pub fn deltas(&self) -> Result<Vec<Delta>> {
        let mut first = 0;
        let mut deltas = Vec::with_capacity(self.tiles.len());
        for tile in &self.tiles {
            let end = first + tile.num_rows() as u32;
            let delta = if self.weights.ones_between(first, end) {
                Delta::insert(RecordBatch::clone(tile))
            } else {
                Delta::weighted(
                    RecordBatch::clone(tile),
                    (first..end).map(|id| self.weights.get(id)).collect(),
                )?
            };
            if !delta.is_empty() {
                deltas.push(delta);
            }
            first = end;
        }
        Ok(deltas)
    }

    /// The rows as a reader sees them: each as often as it counts. Rows that went before they came are left out.
    pub fn batches(&self) -> Result<Vec<RecordBatch>> {
        let batches = self.deltas()?.into_iter().map(|d| d.expand());
        batches.filter(|b| b.as_ref().map_or(true, |b| b.num_rows() > 0)).collect()
    }

    /// The same rows with only their first `width` columns, named and typed by `schema`.
    pub fn project(&self, schema: &SchemaRef) -> Result<ArrangementSnapshot> {
        if self.schema.fields() == schema.fields() {
            // Nothing to leave out: a snapshot is taken in every tick, and must not cost a step for each tile.
            return Ok(self.clone());
        }
        let width = schema.fields().len();
        let tile = |t: &Arc<RecordBatch>| -> Result<Arc<RecordBatch>> {
            Ok(Arc::new(batch(schema, t.columns()[..width].to_vec(), t.num_rows())?))
        };
        let tiles = self.tiles.iter().map(tile).collect::<Result<Vec<_>>>()?;
        Ok(ArrangementSnapshot::new(schema, tiles, self.weights.clone(), self.num_rows))
    }
}
