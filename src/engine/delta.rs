//! A change of a collection: rows and, beside them, how often each one comes (positive) or goes (negative).
//!
//! `None` weights mean that every row comes once, so append-only work pays nothing for the generality.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array, new_empty_array,
};
use arrow::buffer::ScalarBuffer;
use arrow::compute::{concat, filter_record_batch, take};
use arrow::datatypes::{Schema, SchemaRef};

use crate::engine::keys::Keys;
use crate::engine::state::Table;
use crate::error::Result;

/// Rows per chunk that operators emit: small enough for a core's second-level cache, large enough to amortise a call.
pub const CHUNK_ROWS: usize = 8192;

/// Rows with weights. The same row may stand in several places; only the sum of its weights counts.
#[derive(Clone, Debug)]
pub struct Delta {
    /// The user's columns, nothing else.
    pub rows: RecordBatch,
    /// One weight per row, never 0; `None`: every weight is +1.
    pub weights: Option<ScalarBuffer<i64>>,
}

impl Delta {
    /// Every row comes once.
    pub fn insert(rows: RecordBatch) -> Delta {
        Delta { rows, weights: None }
    }

    /// Every row goes once.
    pub fn delete(rows: RecordBatch) -> Delta {
        let weights = vec![-1; rows.num_rows()];
        Delta { rows, weights: Some(weights.into()) }
    }

    /// Rows by weights, of the same length; rows of weight 0 are left out, weights of only +1 become `None`.
    pub fn weighted(rows: RecordBatch, weights: Vec<i64>) -> Result<Delta> {
        debug_assert_eq!(rows.num_rows(), weights.len(), "one weight per row");
        if weights.contains(&0) {
            let keep = BooleanArray::from_iter(weights.iter().map(|w| Some(*w != 0)));
            let rows = filter_record_batch(&rows, &keep)?;
            let weights = weights.into_iter().filter(|w| *w != 0).collect();
            return Ok(Delta::from_parts(rows, weights));
        }
        Ok(Delta::from_parts(rows, weights))
    }

    /// As [`Delta::weighted`], where no weight is 0.
    fn from_parts(rows: RecordBatch, weights: Vec<i64>) -> Delta {
        let weights = if weights.iter().all(|w| *w == 1) { None } else { Some(weights.into()) };
        Delta { rows, weights }
    }

    /// No rows of these columns.
    pub fn empty(schema: &SchemaRef) -> Delta {
        Delta::insert(RecordBatch::new_empty(Arc::clone(schema)))
    }

    /// Rows, not weights: a row of weight 3 counts once.
    pub fn num_rows(&self) -> usize {
        self.rows.num_rows()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.rows.num_rows() == 0
    }

    /// The weight of row `i`.
    pub fn weight(&self, i: usize) -> i64 {
        self.weights.as_ref().map_or(1, |w| w[i])
    }

    /// All weights, spelled out.
    pub fn weights_vec(&self) -> Vec<i64> {
        self.weights.as_ref().map_or_else(|| vec![1; self.num_rows()], |w| w.to_vec())
    }

    /// Whether any row goes.
    pub fn has_negative(&self) -> bool {
        self.weights.as_ref().is_some_and(|w| w.iter().any(|w| *w < 0))
    }

    /// The sum of all weights: by how much the collection grows.
    pub fn net_rows(&self) -> i64 {
        self.weights.as_ref().map_or(self.num_rows() as i64, |w| w.iter().sum())
    }

    /// What came goes, what went comes.
    pub fn negate(self) -> Delta {
        let weights: Vec<i64> = match &self.weights {
            None => vec![-1; self.num_rows()],
            Some(w) => w.iter().map(|w| -w).collect(),
        };
        Delta::from_parts(self.rows, weights)
    }

    /// The rows for which `keep` is true; NULL is not true.
    pub fn filter(&self, keep: &BooleanArray) -> Result<Delta> {
        let rows = filter_record_batch(&self.rows, keep)?;
        let weights = self.weights.as_ref().map(|w| {
            let kept = |i: &usize| keep.is_valid(*i) && keep.value(*i);
            (0..w.len()).filter(kept).map(|i| w[i]).collect::<Vec<i64>>().into()
        });
        Ok(Delta { rows, weights })
    }

    /// The rows at these positions, in this order; a position may repeat.
    pub fn take(&self, positions: &[u32]) -> Result<Delta> {
        let rows = take_rows(&self.rows, positions)?;
        let weights = self
            .weights
            .as_ref()
            .map(|w| positions.iter().map(|i| w[*i as usize]).collect::<Vec<i64>>().into());
        Ok(Delta { rows, weights })
    }

    /// `len` rows from `offset` on, without copying.
    pub fn slice(&self, offset: usize, len: usize) -> Delta {
        Delta {
            rows: self.rows.slice(offset, len),
            weights: self.weights.as_ref().map(|w| w.slice(offset, len)),
        }
    }

    /// The same in pieces of at most [`CHUNK_ROWS`] rows, without copying.
    pub fn chunks(self) -> Vec<Delta> {
        let rows = self.num_rows();
        if rows <= CHUNK_ROWS {
            return if rows == 0 { Vec::new() } else { vec![self] };
        }
        let piece = |at: usize| self.slice(at, CHUNK_ROWS.min(rows - at));
        (0..rows).step_by(CHUNK_ROWS).map(piece).collect()
    }

    /// All rows of all deltas, in order; every delta has the columns of `schema`.
    pub fn concat(schema: &SchemaRef, deltas: &[Delta]) -> Result<Delta> {
        if let [one] = deltas {
            return Ok(one.clone());
        }
        let rows: usize = deltas.iter().map(Delta::num_rows).sum();
        let column = |c: usize| -> Result<ArrayRef> {
            let parts: Vec<&dyn Array> = deltas.iter().map(|d| d.rows.column(c).as_ref()).collect();
            if parts.is_empty() {
                return Ok(new_empty_array(schema.field(c).data_type()));
            }
            Ok(concat(&parts)?)
        };
        let columns = (0..schema.fields().len()).map(column).collect::<Result<Vec<_>>>()?;
        let weights = deltas.iter().any(|d| d.weights.is_some()).then(|| {
            let mut all = Vec::with_capacity(rows);
            for d in deltas {
                match &d.weights {
                    Some(w) => all.extend_from_slice(w),
                    None => all.resize(all.len() + d.num_rows(), 1),
                }
            }
            all.into()
        });
        Ok(Delta { rows: batch(schema, columns, rows)?, weights })
    }

    /// The same change with each distinct row at most once, in order of first mention. Rows are equal when every
    /// column is equal bit by bit; NULL equals NULL.
    pub fn consolidate(&self) -> Result<Delta> {
        if self.num_rows() < 2 {
            return Ok(self.clone());
        }
        let mut distinct =
            Table::new(self.rows.schema().fields().iter().map(|f| f.data_type().clone()).collect());
        let keys = Keys::exact(self.rows.columns().to_vec(), self.num_rows());
        let slots = distinct.upsert(&keys)?;
        if distinct.len() == self.num_rows() {
            return Ok(self.clone());
        }
        let mut sums = vec![0; distinct.slots()];
        slots.iter().enumerate().for_each(|(i, slot)| sums[*slot as usize] += self.weight(i));
        let mut first: Vec<u32> = Vec::with_capacity(distinct.len());
        let mut weights: Vec<i64> = Vec::with_capacity(distinct.len());
        for (slot, i) in slots.iter().zip(0..) {
            // A row that has been given its weight is not mentioned again.
            let weight = std::mem::take(&mut sums[*slot as usize]);
            if weight != 0 {
                first.push(i);
                weights.push(weight);
            }
        }
        Ok(Delta::from_parts(take_rows(&self.rows, &first)?, weights))
    }

    /// The rows as a reader sees them: each as often as its weight says; rows of negative weight are left out.
    pub fn expand(&self) -> Result<RecordBatch> {
        let Some(weights) = &self.weights else { return Ok(self.rows.clone()) };
        let mut positions = Vec::with_capacity(weights.len());
        for (i, w) in weights.iter().enumerate() {
            positions.resize(positions.len() + (*w).max(0) as usize, i as u32);
        }
        take_rows(&self.rows, &positions)
    }
}

/// A batch of `rows` rows; right for batches without columns too.
pub fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

/// The rows of a batch at these positions, in this order.
pub fn take_rows(rows: &RecordBatch, positions: &[u32]) -> Result<RecordBatch> {
    let indices = UInt32Array::from(positions.to_vec());
    let columns = rows.columns().iter().map(|c| Ok(take(c, &indices, None)?)).collect::<Result<Vec<_>>>()?;
    batch(rows.schema_ref(), columns, positions.len())
}

/// The same columns, each of which may be NULL. Operators state their outputs so: a plan's promise that a column
/// has no NULL is an optimiser's hint, and no reason to refuse a row.
pub fn nullable(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|f| Arc::new(f.as_ref().clone().with_nullable(true)));
    Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone()))
}

/// A batch under another schema of the same types.
pub fn with_schema(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    batch(schema, rows.columns().to_vec(), rows.num_rows())
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringViewArray};
    use arrow::datatypes::{DataType, Field};

    fn sample(rows: &[(Option<i64>, &str)], weights: &[i64]) -> Delta {
        let schema = Arc::new(Schema::new(vec![
            Field::new("n", DataType::Int64, true),
            Field::new("s", DataType::Utf8View, true),
        ]));
        let n = Int64Array::from_iter(rows.iter().map(|r| r.0));
        let s = StringViewArray::from_iter_values(rows.iter().map(|r| r.1));
        Delta::weighted(batch(&schema, vec![Arc::new(n), Arc::new(s)], rows.len()).unwrap(), weights.to_vec())
            .unwrap()
    }

    #[test]
    fn consolidation_sums_equal_rows_and_drops_the_cancelled() {
        let long = "a string longer than the twelve bytes of a view";
        let d = sample(
            &[(Some(1), "a"), (None, long), (Some(1), "a"), (None, long), (Some(2), "b"), (None, "")],
            &[1, 1, 2, -1, -1, 1],
        );
        let c = d.consolidate().unwrap();
        assert_eq!(c.rows, sample(&[(Some(1), "a"), (Some(2), "b"), (None, "")], &[3, -1, 1]).rows);
        assert_eq!(c.weights_vec(), vec![3, -1, 1]);
        assert_eq!(c.net_rows(), 3);
        assert_eq!(c.expand().unwrap().num_rows(), 4);
    }

    #[test]
    fn weights_follow_their_rows() {
        let d = sample(&[(Some(1), "a"), (Some(2), "b"), (Some(3), "c")], &[1, -2, 3]);
        assert_eq!(d.take(&[2, 0, 2]).unwrap().weights_vec(), vec![3, 1, 3]);
        let keep = BooleanArray::from(vec![Some(true), None, Some(true)]);
        assert_eq!(d.filter(&keep).unwrap().weights_vec(), vec![1, 3]);
        assert_eq!(d.clone().negate().weights_vec(), vec![-1, 2, -3]);
        assert_eq!(d.slice(1, 2).weights_vec(), vec![-2, 3]);
        let twice = Delta::concat(&d.rows.schema(), &[d.clone(), Delta::insert(d.rows.clone())]).unwrap();
        assert_eq!(twice.weights_vec(), vec![1, -2, 3, 1, 1, 1]);
    }

    #[test]
    fn rows_without_columns_are_counted() {
        let schema: SchemaRef = Arc::new(Schema::empty());
        let d = Delta::insert(batch(&schema, vec![], 20_000).unwrap());
        let chunks = d.clone().chunks();
        assert_eq!(chunks.iter().map(Delta::num_rows).collect::<Vec<_>>(), vec![8192, 8192, 3616]);
        assert_eq!(Delta::concat(&schema, &chunks).unwrap().num_rows(), 20_000);
        assert_eq!(d.consolidate().unwrap().weights_vec(), vec![20_000]);
        assert_eq!(d.take(&[1, 2]).unwrap().num_rows(), 2);
    }
}
