//! Functions of all rows up to the current one: they go on from what they were at a row before.

use std::sync::Arc;

use arrow::array::{ArrayRef, ArrowNativeTypeOp, AsArray, PrimitiveArray};
use arrow::compute::kernels::{cmp, zip::zip};
use arrow::datatypes::{ArrowPrimitiveType, Decimal128Type, Int64Type, UInt64Type};
use datafusion::common::ScalarValue;

use super::{FENCE, Fence, Merged, Window};
use crate::engine::plan::spec::Running;
use crate::error::{Error, Result};

impl Window {
    /// Results of a part with those of running functions going on from its fence.
    pub(super) fn go_on(&self, part: &Merged, results: Vec<ArrayRef>) -> Result<Vec<ArrayRef>> {
        let Some(fence) = &part.fence else { return Ok(results) };
        let mut fence = fence.iter();
        let results = results.into_iter().zip(&self.running).map(|(result, running)| match running {
            Some(running) => match fence.next() {
                Some(from) => from_there(*running, from, result),
                None => Err(Error::internal("a fence without a result")),
            },
            None => Ok(result),
        });
        results.collect()
    }

    /// The fences of a part, out of its results as it is.
    pub(super) fn fences(&self, part: &Merged, results: &[ArrayRef]) -> Result<Vec<Fence>> {
        let mut fences = Vec::new();
        if !self.runs() {
            return Ok(fences);
        }
        let (mut rows, mut computed) = (part.list.start, 0usize);
        for (_, after) in part.weights.iter().filter(|w| w.1 > 0) {
            rows += 1;
            computed += *after as usize;
            if rows.is_multiple_of(FENCE) {
                let running = results.iter().zip(&self.running).filter(|(_, running)| running.is_some());
                let fence = running.map(|(r, _)| ScalarValue::try_from_array(r, computed - 1));
                fences.push(fence.collect::<datafusion::error::Result<Fence>>()?);
            }
        }
        Ok(fences)
    }
}

/// A running function's results after rows that gave `from`, where by themselves they are `result`.
fn from_there(running: Running, from: &ScalarValue, result: ArrayRef) -> Result<ArrayRef> {
    fn added<T: ArrowPrimitiveType>(result: &ArrayRef, from: T::Native) -> ArrayRef {
        let values = result.as_primitive::<T>();
        // NULL: nothing has come since.
        let sums = values.iter().map(|v| Some(v.map_or(from, |v| v.add_wrapping(from))));
        let sums: PrimitiveArray<T> = sums.collect();
        Arc::new(sums.with_data_type(result.data_type().clone()))
    }
    if from.is_null() {
        return Ok(result);
    }
    Ok(match (running, from) {
        (Running::Sum, ScalarValue::Int64(Some(n))) => added::<Int64Type>(&result, *n),
        (Running::Sum, ScalarValue::UInt64(Some(n))) => added::<UInt64Type>(&result, *n),
        (Running::Sum, ScalarValue::Decimal128(Some(n), ..)) => added::<Decimal128Type>(&result, *n),
        (Running::Min | Running::Max, from) => {
            let from = from.to_scalar()?;
            let better =
                if running == Running::Min { cmp::lt(&result, &from)? } else { cmp::gt(&result, &from)? };
            // Where nothing has come since it is NULL, and stays what it was.
            zip(&better, &result, &from)?
        }
        (Running::Sum, other) => {
            return Err(Error::internal(format!("a running sum of {}", other.data_type())));
        }
    })
}
