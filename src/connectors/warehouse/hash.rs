//! 128-bit hashes of rows, equal exactly where rows are equal.
//!
//! The hash is SHA-256, cut to its first half, of Arrow's row format: two different rows of one
//! collection having the same hash is not a case that anything here has to handle.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use arrow::row::{RowConverter, SortField};

use crate::error::Result;

/// The hash of each row, over the columns at these positions.
pub fn row_hashes(rows: &RecordBatch, columns: &[usize]) -> Result<Vec<u128>> {
    let columns: Vec<ArrayRef> = columns.iter().map(|&i| one_zero(rows.column(i))).collect();
    let fields = columns.iter().map(|c| SortField::new(c.data_type().clone())).collect();
    let converter = RowConverter::new(fields)?;
    let encoded = converter.convert_columns(&columns)?;
    Ok(encoded.iter().map(|row| of_bytes(row.as_ref())).collect())
}

/// The hash of some bytes.
pub fn of_bytes(bytes: &[u8]) -> u128 {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    let mut half = [0; 16];
    half.copy_from_slice(&digest.as_ref()[..16]);
    u128::from_be_bytes(half)
}

/// SQL does not tell 0.0 from -0.0, nor one NaN from another, but the row format does.
fn one_zero(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Float64 => {
            let canonical = column
                .as_primitive::<Float64Type>()
                .unary::<_, Float64Type>(|v| if v.is_nan() { f64::NAN } else { v + 0.0 });
            Arc::new(canonical)
        }
        DataType::Float32 => {
            let canonical = column
                .as_primitive::<Float32Type>()
                .unary::<_, Float32Type>(|v| if v.is_nan() { f32::NAN } else { v + 0.0 });
            Arc::new(canonical)
        }
        _ => column.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float64Array, StringViewArray};

    #[test]
    fn equal_rows_and_only_they_share_a_hash() {
        let rows = RecordBatch::try_from_iter([
            ("f", Arc::new(Float64Array::from(vec![Some(0.0), Some(-0.0), None, Some(1.0)])) as ArrayRef),
            ("s", Arc::new(StringViewArray::from(vec![Some("a"), Some("a"), Some("a"), None])) as ArrayRef),
        ])
        .unwrap();
        let both = row_hashes(&rows, &[0, 1]).unwrap();
        assert_eq!(both[0], both[1]);
        assert_eq!(both.iter().collect::<std::collections::HashSet<_>>().len(), 3);
        let texts = row_hashes(&rows, &[1]).unwrap();
        assert_eq!((texts[0], texts[1]), (texts[2], texts[2]));
        assert_ne!(texts[3], texts[0]);
    }
}
