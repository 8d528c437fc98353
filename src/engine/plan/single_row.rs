//! `single_row(n, x)`: the value of a scalar subquery that gave `n` rows; more than one is an error of the outer row.

use std::sync::{Arc, LazyLock};

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::error::{Error, SqlState};

/// The function's only instance.
static SINGLE_ROW: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(ScalarUDF::new_from_impl(SingleRow(Signature::any(2, Volatility::Immutable)))));

/// A call: `count` is NULL or the number of rows, `value` what to give if there is at most one.
pub(super) fn single_row(count: Expr, value: Expr) -> Expr {
    SINGLE_ROW.call(vec![count, value])
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct SingleRow(Signature);

impl ScalarUDFImpl for SingleRow {
    fn name(&self) -> &str {
        "single_row"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [DataType::Int64, value] => Ok(value.clone()),
            _ => Err(Error::internal("single_row takes a count and a value").into()),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [count, value] = <[ColumnarValue; 2]>::try_from(args.args)
            .map_err(|_| Error::internal("single_row takes a count and a value"))?;
        let rows = count.into_array(args.number_rows)?;
        if rows.as_primitive::<Int64Type>().iter().flatten().any(|n| n > 1) {
            let message = "more than one row returned by a subquery used as an expression";
            return Err(Error::new(SqlState::CARDINALITY_VIOLATION, message).into());
        }
        Ok(value)
    }
}
