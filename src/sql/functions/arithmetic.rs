//! Arithmetic that fails where PostgreSQL's fails: integer overflow, division by zero; quotients and averages with scale.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, Decimal128Array, PrimitiveArray};
use arrow::compute::kernels::numeric;
use arrow::datatypes::{DataType, Decimal128Type, Float32Type, Float64Type, IntervalUnit, i256};
use arrow::error::ArrowError;
use datafusion::common::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::physical_expr_common::datum;

use super::temporal;
use crate::error::{Error, SqlState};
use crate::types::SqlType;

/// Decimal places that a quotient of numerics has at least.
const QUOTIENT_SCALE: i8 = 16;

/// `left op right` of two integers or floats of one type that fails on overflow.
pub fn checked(op: Operator, left: Expr, right: Expr) -> Expr {
    let function = Checked { op, signature: Signature::any(2, Volatility::Immutable) };
    Expr::ScalarFunction(ScalarFunction::new_udf(
        Arc::new(ScalarUDF::new_from_impl(function)),
        vec![left, right],
    ))
}

/// Whether a division of these types is [`divide`]'s business; integers by integers are not.
pub fn division(left: &DataType, right: &DataType) -> bool {
    let number = |t: &DataType| t.is_integer() || t.is_floating() || matches!(t, DataType::Decimal128(_, _));
    number(left) && number(right) && !(left.is_integer() && right.is_integer())
}

/// `left / right`, of which at least one is a numeric or a float.
pub fn divide(left: Expr, right: Expr) -> Expr {
    let function = Divide { signature: Signature::user_defined(Volatility::Immutable) };
    Expr::ScalarFunction(ScalarFunction::new_udf(
        Arc::new(ScalarUDF::new_from_impl(function)),
        vec![left, right],
    ))
}

/// The average of values with this sum and this count: NULL of none.
pub fn average(sum: Expr, count: Expr) -> Expr {
    let function = Average { signature: Signature::user_defined(Volatility::Immutable) };
    Expr::ScalarFunction(ScalarFunction::new_udf(
        Arc::new(ScalarUDF::new_from_impl(function)),
        vec![sum, count],
    ))
}

fn infix(op: &str, args: &[Expr]) -> String {
    match args {
        [left, right] => format!("({left} {op} {right})"),
        _ => op.to_string(),
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    op: Operator,
    signature: Signature,
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        match self.op {
            Operator::Plus => "checked_add",
            Operator::Minus => "checked_subtract",
            _ => "checked_multiply",
        }
    }

    fn display_name(&self, args: &[Expr]) -> Result<String> {
        Ok(infix(&self.op.to_string(), args))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types.first().cloned().unwrap_or(DataType::Int64))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [left, right] = args.args.as_slice() else {
            return Err(Error::internal("arithmetic needs two arguments").into());
        };
        let kernel = match self.op {
            Operator::Plus => numeric::add,
            Operator::Minus => numeric::sub,
            _ => numeric::mul,
        };
        let result = datum::apply(left, right, |l, r| {
            kernel(l, r).map_err(|e| match e {
                ArrowError::ArithmeticOverflow(_) => ArrowError::ExternalError(Box::new(Error::new(
                    SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
                    format!("{} out of range", SqlType::of(&args.return_field)),
                ))),
                other => other,
            })
        })?;
        if args.return_type().is_floating() {
            let arrays = [left.to_array(1)?, right.to_array(1)?];
            finite(self.op, &arrays, &result.to_array(1)?)?;
        }
        Ok(result)
    }
}

/// Refuses infinite results of finite operands, and products and quotients too small to tell from zero.
fn finite(op: Operator, operands: &[ArrayRef; 2], results: &ArrayRef) -> crate::Result<()> {
    fn check<T>(op: Operator, operands: &[ArrayRef; 2], results: &ArrayRef) -> crate::Result<()>
    where
        T: ArrowPrimitiveType,
        T::Native: Into<f64>,
    {
        let results = results.as_primitive::<T>();
        let shrinks = matches!(op, Operator::Multiply | Operator::Divide);
        let suspicious = |v: f64| v.is_infinite() || shrinks && v == 0.0;
        // Values of NULLs may be anything; they are told apart below.
        if !results.values().iter().any(|v| suspicious((*v).into())) {
            return Ok(());
        }
        let [left, right] = operands.each_ref().map(|a| a.as_primitive::<T>());
        // A constant operand has one value for all rows.
        let at =
            |a: &PrimitiveArray<T>, row: usize| -> f64 { a.value(if a.len() == 1 { 0 } else { row }).into() };
        for row in (0..results.len()).filter(|row| results.is_valid(*row)) {
            let (result, left, right): (f64, f64, f64) =
                (results.value(row).into(), at(left, row), at(right, row));
            let from_nothing = left == 0.0 || op == Operator::Multiply && right == 0.0;
            if result.is_infinite() && left.is_finite() && right.is_finite() {
                return Err(Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "value out of range: overflow"));
            }
            if shrinks && result == 0.0 && !from_nothing && right.is_finite() {
                return Err(Error::new(
                    SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
                    "value out of range: underflow",
                ));
            }
        }
        Ok(())
    }
    match results.data_type() {
        DataType::Float32 => check::<Float32Type>(op, operands, results),
        _ => check::<Float64Type>(op, operands, results),
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Divide {
    signature: Signature,
}

impl ScalarUDFImpl for Divide {
    fn name(&self) -> &str {
        "divide"
    }

    fn display_name(&self, args: &[Expr]) -> Result<String> {
        Ok(infix("/", args))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        if types.iter().any(DataType::is_floating) {
            let single = types.iter().all(|t| matches!(t, DataType::Float32));
            let to = if single { DataType::Float32 } else { DataType::Float64 };
            return Ok(vec![to; types.len()]);
        }
        Ok(types
            .iter()
            .map(|t| match t {
                DataType::Int8 | DataType::UInt8 | DataType::Int16 => DataType::Decimal128(5, 0),
                DataType::UInt16 | DataType::Int32 => DataType::Decimal128(10, 0),
                DataType::UInt32 | DataType::Int64 | DataType::UInt64 | DataType::Null => {
                    DataType::Decimal128(20, 0)
                }
                other => other.clone(),
            })
            .collect())
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(match types {
            [DataType::Decimal128(_, a), DataType::Decimal128(_, b)] => {
                DataType::Decimal128(38, QUOTIENT_SCALE.max(*a).max(*b))
            }
            [DataType::Float32, DataType::Float32] => DataType::Float32,
            _ => DataType::Float64,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalar = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [left, right] = arrays.as_slice() else {
            return Err(Error::internal("division needs two arguments").into());
        };
        let quotient: ArrayRef = match left.data_type() {
            DataType::Decimal128(_, _) => decimals(left, right, args.return_type())?,
            DataType::Float32 => {
                no_zero(right.as_primitive::<Float32Type>().iter().flatten().any(|v| v == 0.0))?;
                numeric::div(left, right)?
            }
            _ => {
                no_zero(right.as_primitive::<Float64Type>().iter().flatten().any(|v| v == 0.0))?;
                numeric::div(left, right)?
            }
        };
        if quotient.data_type().is_floating() {
            finite(Operator::Divide, &[Arc::clone(left), Arc::clone(right)], &quotient)?;
        }
        if scalar {
            let value = datafusion::common::ScalarValue::try_from_array(&quotient, 0)?;
            return Ok(ColumnarValue::Scalar(value));
        }
        Ok(ColumnarValue::Array(quotient))
    }
}

/// A sum divided by a count, which is zero only where the sum is NULL.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Average {
    signature: Signature,
}

impl ScalarUDFImpl for Average {
    fn name(&self) -> &str {
        "avg"
    }

    fn display_name(&self, args: &[Expr]) -> Result<String> {
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        Ok(format!("avg({})", args.join(", ")))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let [sum, _] = types else {
            return Err(Error::internal("an average needs a sum and a count").into());
        };
        Ok(match sum {
            DataType::Decimal128(..) => vec![sum.clone(), DataType::Decimal128(20, 0)],
            t if t.is_integer() => vec![DataType::Decimal128(20, 0), DataType::Decimal128(20, 0)],
            DataType::Interval(_) => {
                vec![DataType::Interval(IntervalUnit::MonthDayNano), DataType::Float64]
            }
            _ => vec![DataType::Float64, DataType::Float64],
        })
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(match types {
            [DataType::Decimal128(_, scale), _] => DataType::Decimal128(38, QUOTIENT_SCALE.max(*scale)),
            [interval @ DataType::Interval(_), _] => interval.clone(),
            _ => DataType::Float64,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalar = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let to = args.return_type().clone();
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [sum, count] = arrays.as_slice() else {
            return Err(Error::internal("an average needs a sum and a count").into());
        };
        let average: ArrayRef = match sum.data_type() {
            DataType::Decimal128(..) => decimals(sum, count, &to)?,
            DataType::Interval(_) => temporal::divided(sum, count)?,
            _ => numeric::div(sum, count)?,
        };
        if scalar {
            let value = datafusion::common::ScalarValue::try_from_array(&average, 0)?;
            return Ok(ColumnarValue::Scalar(value));
        }
        Ok(ColumnarValue::Array(average))
    }
}

fn no_zero(has_zero: bool) -> crate::Result<()> {
    if has_zero { Err(division_by_zero()) } else { Ok(()) }
}

fn division_by_zero() -> Error {
    Error::new(SqlState::DIVISION_BY_ZERO, "division by zero")
}

fn decimals(left: &ArrayRef, right: &ArrayRef, to: &DataType) -> crate::Result<ArrayRef> {
    let (DataType::Decimal128(_, a), DataType::Decimal128(_, b), DataType::Decimal128(p, s)) =
        (left.data_type(), right.data_type(), to)
    else {
        return Err(Error::internal("division of something else than numerics"));
    };
    // l·10⁻ᵃ ÷ r·10⁻ᵇ at scale s is l·10^(s-a+b) ÷ r; the exponent is never negative, s being the largest.
    let shift = u32::from((i16::from(*s) - i16::from(*a) + i16::from(*b)).unsigned_abs());
    let factor = i256::from_i128(10).checked_pow(shift).ok_or_else(overflow)?;
    let (left, right) = (left.as_primitive::<Decimal128Type>(), right.as_primitive::<Decimal128Type>());
    let limit = 10i128.pow(38);
    let quotients: Decimal128Array = left
        .iter()
        .zip(right)
        .map(|(l, r)| {
            let (Some(l), Some(r)) = (l, r) else { return Ok(None) };
            if r == 0 {
                return Err(division_by_zero());
            }
            let numerator = i256::from_i128(l).checked_mul(factor).ok_or_else(overflow)?;
            let divisor = i256::from_i128(r);
            let quotient = numerator.checked_div(divisor).ok_or_else(overflow)?;
            let rest = numerator.checked_rem(divisor).ok_or_else(overflow)?;
            let (rest, divisor) = (rest.wrapping_abs(), divisor.wrapping_abs());
            let up = rest >= divisor.wrapping_sub(rest);
            let sign = if (l < 0) == (r < 0) { i256::ONE } else { i256::MINUS_ONE };
            let rounded = if up { quotient.wrapping_add(sign) } else { quotient };
            rounded
                .to_i128()
                .filter(|q| q.unsigned_abs() < limit.unsigned_abs())
                .map(Some)
                .ok_or_else(overflow)
        })
        .collect::<crate::Result<_>>()?;
    debug_assert_eq!(quotients.len(), left.len());
    Ok(Arc::new(quotients.with_precision_and_scale(*p, *s)?))
}

fn overflow() -> Error {
    Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "numeric field overflow")
}
