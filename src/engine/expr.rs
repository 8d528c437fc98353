//! Evaluating lists of expressions over a batch, with rows that fail set apart.
//!
//! A kernel fails a whole batch for one bad row. The batch is then halved until each bad row stands alone; what it
//! says alone is its error, so the same row gives the same error when it comes and when it goes.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::compute::{cast_with_options, concat};
use arrow::datatypes::DataType;

use crate::engine::Delta;
use crate::engine::delta::take_rows;
use crate::engine::plan::spec::Expr;
use crate::engine::runtime::operator::RowError;
use crate::error::{Error, Result};

/// The values of `exprs` for the rows of a delta. A row for which any of them fails leaves the delta for `errors`.
pub fn evaluate(exprs: &[Expr], delta: Delta, errors: &mut Vec<RowError>) -> Result<(Delta, Vec<ArrayRef>)> {
    let rows = delta.num_rows();
    if rows == 0 {
        let columns = exprs.iter().map(|e| {
            let data_type = e.data_type(delta.rows.schema_ref())?;
            Ok(arrow::array::new_empty_array(&data_type))
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        return Ok((delta, columns));
    }
    match evaluate_all(exprs, &delta) {
        Ok(columns) => Ok((delta, columns)),
        Err(error) => isolate(exprs, delta, error, errors),
    }
}

/// The rows of a delta for which `predicate` is true. A row for which it fails goes to `errors`.
pub fn filter(predicate: &Expr, delta: Delta, errors: &mut Vec<RowError>) -> Result<Delta> {
    let (delta, columns) = evaluate(std::slice::from_ref(predicate), delta, errors)?;
    let keep = boolean(&columns[0])?;
    if keep.true_count() == keep.len() && keep.null_count() == 0 {
        return Ok(delta);
    }
    delta.filter(keep)
}

/// The column as truth values.
pub fn boolean(column: &ArrayRef) -> Result<&BooleanArray> {
    column.as_boolean_opt().ok_or_else(|| {
        Error::internal(format!("a condition is of type {} instead of boolean", column.data_type()))
    })
}

/// The column in the type that the plan stated for it; planning coerces, so there is seldom anything to do.
pub fn cast_to(column: ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    if column.data_type() == data_type {
        return Ok(column);
    }
    let options = arrow::compute::CastOptions { safe: false, ..Default::default() };
    Ok(cast_with_options(&column, data_type, &options)?)
}

fn evaluate_all(exprs: &[Expr], delta: &Delta) -> Result<Vec<ArrayRef>> {
    let rows = delta.num_rows();
    exprs.iter().map(|e| Ok(e.evaluate(&delta.rows)?.into_array(rows)?)).collect()
}

/// As [`evaluate`] for a delta that is known to fail as a whole, with `error`.
fn isolate(
    exprs: &[Expr],
    delta: Delta,
    error: Error,
    errors: &mut Vec<RowError>,
) -> Result<(Delta, Vec<ArrayRef>)> {
    let mut parts: Vec<Vec<ArrayRef>> = Vec::new();
    let mut kept: Vec<u32> = Vec::new();
    // Pieces still to do, the first on top; with the error of the piece where it is known.
    let mut todo = vec![(0, delta.num_rows(), Some(error))];
    while let Some((start, len, error)) = todo.pop() {
        let error = match error {
            Some(error) => error,
            None => match evaluate_all(exprs, &delta.slice(start, len)) {
                Ok(columns) => {
                    parts.push(columns);
                    kept.extend(start as u32..(start + len) as u32);
                    continue;
                }
                Err(error) => error,
            },
        };
        if len == 1 {
            errors.push(RowError { error, weight: delta.weight(start) });
            continue;
        }
        let half = len / 2;
        todo.push((start + half, len - half, None));
        todo.push((start, half, None));
    }
    if kept.is_empty() {
        return evaluate(exprs, delta.slice(0, 0), errors);
    }
    let column = |c: usize| -> Result<ArrayRef> {
        let pieces: Vec<&dyn Array> = parts.iter().map(|p| p[c].as_ref()).collect();
        Ok(concat(&pieces)?)
    };
    let columns = (0..exprs.len()).map(column).collect::<Result<Vec<_>>>()?;
    let weights =
        delta.weights.as_ref().map(|w| kept.iter().map(|i| w[*i as usize]).collect::<Vec<_>>().into());
    Ok((Delta { rows: take_rows(&delta.rows, &kept)?, weights }, columns))
}
