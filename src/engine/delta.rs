//! A change of a collection: rows and, beside them, how often each one comes (positive) or goes (negative).
//!
//! `None` weights mean that every row comes once, so append-only work pays nothing for the generality.

use arrow::array::RecordBatch;
use arrow::buffer::ScalarBuffer;

/// Rows with weights. The same row may stand in several places; only the sum of its weights counts.
#[derive(Clone, Debug)]
pub struct Delta {
    /// The user's columns, nothing else.
    pub rows: RecordBatch,
    /// One weight per row, never 0; `None`: every weight is +1.
    pub weights: Option<ScalarBuffer<i64>>,
}
