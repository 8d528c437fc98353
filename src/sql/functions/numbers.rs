//! Functions of numbers that DataFusion does not have, or computes less exactly.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Int64Array};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int32Type, i256};
use datafusion::logical_expr::ScalarUDF;

use super::define::{Arg, Call, Definition, Gives};
use crate::error::{Error, Result, SqlState};

use Arg::{Float8, Int4, Numeric};

const DEFINITIONS: [Definition; 10] = [
    Definition { name: "log10", forms: &[&[Float8]], variadic: false, gives: Gives::Float8, evaluate: log10 },
    Definition {
        name: "log",
        forms: &[&[Float8], &[Float8, Float8]],
        variadic: false,
        gives: Gives::Float8,
        evaluate: log10,
    },
    Definition {
        name: "sign",
        forms: &[&[Float8]],
        variadic: false,
        gives: Gives::Float8,
        evaluate: |call| {
            let values = call.float8(0)?;
            call.values::<Float64Type>(|row| {
                let value = values.value(row);
                Ok(Some(f64::from(i8::from(value > 0.0) - i8::from(value < 0.0))))
            })
        },
    },
    Definition {
        name: "div",
        forms: &[&[Numeric, Numeric]],
        variadic: false,
        gives: Gives::Whole,
        evaluate: quotient,
    },
    Definition {
        name: "width_bucket",
        forms: &[&[Float8, Float8, Float8, Int4]],
        variadic: false,
        gives: Gives::Int4,
        evaluate: width_bucket,
    },
    Definition { name: "scale", forms: &[&[Numeric]], variadic: false, gives: Gives::Int4, evaluate: scale },
    Definition {
        name: "min_scale",
        forms: &[&[Numeric]],
        variadic: false,
        gives: Gives::Int4,
        evaluate: min_scale,
    },
    Definition {
        name: "limit_count",
        forms: &[&[Arg::Int8]],
        variadic: false,
        gives: Gives::Int8,
        evaluate: |call| count(call, i64::MAX, (SqlState::INVALID_LIMIT, "LIMIT must not be negative")),
    },
    Definition {
        name: "offset_count",
        forms: &[&[Arg::Int8]],
        variadic: false,
        gives: Gives::Int8,
        evaluate: |call| count(call, 0, (SqlState::INVALID_OFFSET, "OFFSET must not be negative")),
    },
    Definition {
        name: "bit_count",
        forms: &[&[Arg::Bytea]],
        variadic: false,
        gives: Gives::Int8,
        evaluate: super::strings::bit_count,
    },
];

/// The functions of this file.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    DEFINITIONS.into_iter().map(Definition::udf).collect()
}

/// A computed LIMIT or OFFSET; of NULL it is the one that leaves all rows.
fn count(call: &Call<'_>, all: i64, negative: (SqlState, &str)) -> Result<ArrayRef> {
    let counts = call.int8(0)?.iter().map(|count| match count.unwrap_or(all) {
        ..0 => Err(Error::new(negative.0, negative.1)),
        count => Ok(count),
    });
    Ok(Arc::new(counts.collect::<Result<Int64Array>>()?))
}

/// The logarithm to base 10, or to the base that comes first.
fn log10(call: &Call<'_>) -> Result<ArrayRef> {
    let checked = |x: f64| -> Result<f64> {
        if x == 0.0 {
            Err(Error::new(SqlState("2201E"), "cannot take logarithm of zero"))
        } else if x < 0.0 {
            Err(Error::new(SqlState("2201E"), "cannot take logarithm of a negative number"))
        } else {
            Ok(x)
        }
    };
    let first = call.float8(0)?;
    if call.arrays.len() == 1 {
        return call.values::<Float64Type>(|row| Ok(Some(checked(first.value(row))?.log10())));
    }
    let second = call.float8(1)?;
    call.values::<Float64Type>(|row| {
        let (base, x) = (checked(first.value(row))?.ln(), checked(second.value(row))?.ln());
        if base == 0.0 {
            return Err(Error::new(SqlState::DIVISION_BY_ZERO, "division by zero"));
        }
        Ok(Some(x / base))
    })
}

/// A numeric argument and its scale.
fn decimal<'c>(call: &'c Call<'_>, argument: usize) -> Result<(&'c Decimal128Array, i8)> {
    let array = call.array(argument)?;
    match array.data_type() {
        DataType::Decimal128(_, scale) => Ok((array.as_primitive::<Decimal128Type>(), *scale)),
        _ => Err(Error::internal(format!("argument {} of {} is no numeric", argument + 1, call.name))),
    }
}

/// How often the second goes into the first, as a whole number.
fn quotient(call: &Call<'_>) -> Result<ArrayRef> {
    let ((left, a), (right, b)) = (decimal(call, 0)?, decimal(call, 1)?);
    let overflow = || Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "numeric field overflow");
    let scaled = |value: i128, scale: i8| {
        let factor = i256::from_i128(10).checked_pow(u32::from(scale.max(0).unsigned_abs()))?;
        i256::from_i128(value).checked_mul(factor)
    };
    call.values::<Decimal128Type>(|row| {
        let (l, r) = (left.value(row), right.value(row));
        if r == 0 {
            return Err(Error::new(SqlState::DIVISION_BY_ZERO, "division by zero"));
        }
        let (l, r) = (scaled(l, b).ok_or_else(overflow)?, scaled(r, a).ok_or_else(overflow)?);
        l.checked_div(r).and_then(i256::to_i128).map(Some).ok_or_else(overflow)
    })
}

fn width_bucket(call: &Call<'_>) -> Result<ArrayRef> {
    let (values, lows, highs, counts) = (call.float8(0)?, call.float8(1)?, call.float8(2)?, call.int4(3)?);
    let refused = |message: &str| Error::new(SqlState("2201G"), message);
    call.values::<Int32Type>(|row| {
        let (value, low, high, count) =
            (values.value(row), lows.value(row), highs.value(row), counts.value(row));
        if count <= 0 {
            return Err(refused("count must be greater than zero"));
        }
        if value.is_nan() || low.is_nan() || high.is_nan() {
            return Err(refused("operand, lower bound, and upper bound cannot be NaN"));
        }
        if !low.is_finite() || !high.is_finite() {
            return Err(refused("lower and upper bounds must be finite"));
        }
        if low == high {
            return Err(refused("lower bound cannot equal upper bound"));
        }
        // Bounds the other way round count downwards.
        let (from_low, width) =
            if low < high { (value - low, high - low) } else { (low - value, low - high) };
        let bucket = if from_low < 0.0 {
            0
        } else if from_low >= width {
            count
                .checked_add(1)
                .ok_or_else(|| Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "integer out of range"))?
        } else {
            // Less than the count.
            (f64::from(count) * from_low / width) as i32 + 1
        };
        Ok(Some(bucket))
    })
}

fn scale(call: &Call<'_>) -> Result<ArrayRef> {
    let (_, scale) = decimal(call, 0)?;
    call.values::<Int32Type>(|_| Ok(Some(scale.into())))
}

fn min_scale(call: &Call<'_>) -> Result<ArrayRef> {
    let (values, scale) = decimal(call, 0)?;
    call.values::<Int32Type>(|row| {
        let (mut value, mut places) = (values.value(row), i32::from(scale));
        while places > 0 && value % 10 == 0 {
            value /= 10;
            places -= 1;
        }
        Ok(Some(places))
    })
}
