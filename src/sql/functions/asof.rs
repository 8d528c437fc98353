//! What an ASOF join computes: the last row of the other side, in the order of time.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, UInt64Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{
    ColumnarValue, Expr, PartitionEvaluator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility, WindowUDF, WindowUDFImpl,
};

use crate::error::Error;

/// `asof_match(value, flag)`: the value of the last row up to this one whose flag is true; NULL before the first.
pub fn asof_match() -> Arc<WindowUDF> {
    let signature = Signature::any(2, Volatility::Immutable);
    Arc::new(WindowUDF::new_from_impl(AsofMatch { signature }))
}

/// The key of rows that are joined without one: the same for all of them. It is given a column of the row, for of a
/// constant the optimiser concludes that all is in order already where both sides meet.
pub fn no_key(row: Expr) -> Expr {
    let signature = Signature::any(1, Volatility::Immutable);
    let key = Arc::new(ScalarUDF::new_from_impl(NoKey { signature }));
    Expr::ScalarFunction(ScalarFunction::new_udf(key, vec![row]))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct NoKey {
    signature: Signature,
}

impl ScalarUDFImpl for NoKey {
    fn name(&self) -> &str {
        "no_key"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(ColumnarValue::Scalar(ScalarValue::Boolean(Some(true))))
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct AsofMatch {
    signature: Signature,
}

impl WindowUDFImpl for AsofMatch {
    fn name(&self) -> &str {
        "asof_match"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn partition_evaluator(&self, _: PartitionEvaluatorArgs) -> Result<Box<dyn PartitionEvaluator>> {
        Ok(Box::new(LastFlagged))
    }

    fn field(&self, args: WindowUDFFieldArgs) -> Result<FieldRef> {
        let Some(value) = args.get_input_field(0) else {
            return Err(Error::internal("asof_match without a value").into());
        };
        Ok(Arc::new(value.as_ref().clone().with_name(args.name()).with_nullable(true)))
    }
}

#[derive(Debug)]
struct LastFlagged;

impl PartitionEvaluator for LastFlagged {
    fn evaluate_all(&mut self, values: &[ArrayRef], _rows: usize) -> Result<ArrayRef> {
        let [values, flags] = values else {
            return Err(Error::internal("asof_match needs a value and a flag").into());
        };
        let flags = flags.as_boolean();
        let last: UInt64Array = (0..flags.len())
            .scan(None, |last, row| {
                if flags.is_valid(row) && flags.value(row) {
                    *last = Some(row as u64);
                }
                Some(*last)
            })
            .collect();
        Ok(take(values, &last, None)?)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{BooleanArray, Int64Array};

    use super::*;

    #[test]
    fn the_last_flagged_row_is_carried_on() {
        let values: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), Some(2), None, Some(4), Some(5)]));
        let flags: ArrayRef = Arc::new(BooleanArray::from(vec![false, true, false, false, true]));
        let carried = LastFlagged.evaluate_all(&[values, Arc::clone(&flags)], 5).unwrap();
        assert_eq!(*carried, Int64Array::from(vec![None, Some(2), Some(2), Some(2), Some(5)]));
        // A flagged NULL is a row like others.
        let values: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3), Some(4), Some(5)]));
        let carried = LastFlagged.evaluate_all(&[values, flags], 5).unwrap();
        assert_eq!(*carried, Int64Array::from(vec![None, None, None, None, Some(5)]));
    }
}
