//! Mathematical functions outside of their domain: errors as PostgreSQL's, where DataFusion gives NaN or wraps around.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray};
use arrow::datatypes::{DataType, FieldRef, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type};
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

use crate::error::{Error, SqlState};
use crate::types::SqlType;

/// The function, guarded if its domain has limits.
pub(super) fn guarded(function: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    let limit = match function.name() {
        "abs" => Limit::Magnitude,
        "sqrt" => Limit::SquareRoot,
        "ln" | "log2" => Limit::Logarithm,
        "asin" | "acos" => Limit::Sine,
        "exp" => Limit::Growth,
        "power" => Limit::Power,
        _ => return function,
    };
    Arc::new(ScalarUDF::new_from_impl(Guarded { function, limit }))
}

/// What a function cannot do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Limit {
    /// The least integer has no positive counterpart.
    Magnitude,
    /// Negative numbers have no root.
    SquareRoot,
    /// No angle has a sine above 1 or below -1.
    Sine,
    /// Zero and negative numbers have no logarithm.
    Logarithm,
    /// The result may be more than a float holds.
    Growth,
    /// As growth; and negative numbers have no broken powers, zero no negative ones.
    Power,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Guarded {
    function: Arc<ScalarUDF>,
    limit: Limit,
}

impl ScalarUDFImpl for Guarded {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn aliases(&self) -> &[String] {
        self.function.aliases()
    }

    fn signature(&self) -> &Signature {
        self.function.signature()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.function.coerce_types(types)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.function.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.function.return_field_from_args(args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let given = args.args.clone();
        match (self.limit, given.as_slice()) {
            (Limit::Magnitude, [x]) => least(&array(x)?)?,
            (Limit::SquareRoot, [x]) => {
                refuse(&array(x)?, |x| {
                    (x < 0.0).then(|| domain("2201F", "cannot take square root of a negative number"))
                })?;
            }
            (Limit::Sine, [x]) => refuse(&array(x)?, |x| {
                (x.abs() > 1.0)
                    .then(|| Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "input is out of range"))
            })?,
            (Limit::Logarithm, numbers) => {
                for x in numbers {
                    refuse(&array(x)?, logarithm)?;
                }
            }
            (Limit::Power, [base, exponent]) => powers(&array(base)?, &array(exponent)?)?,
            _ => {}
        }
        let result = self.function.invoke_with_args(args)?;
        if matches!(self.limit, Limit::Growth | Limit::Power) {
            let finite = given.iter().map(array).collect::<Result<Vec<_>>>()?;
            overflowed(&finite, &array(&result)?)?;
        }
        Ok(result)
    }
}

/// The values, one for a scalar.
fn array(value: &ColumnarValue) -> Result<ArrayRef> {
    value.to_array(1)
}

fn domain(state: &'static str, message: &str) -> Error {
    Error::new(SqlState(state), message)
}

fn least(values: &ArrayRef) -> crate::Result<()> {
    fn has<T: ArrowPrimitiveType>(values: &ArrayRef, least: T::Native) -> bool {
        values.as_primitive::<T>().iter().flatten().any(|v| v == least)
    }
    let found = match values.data_type() {
        DataType::Int16 => has::<Int16Type>(values, i16::MIN),
        DataType::Int32 => has::<Int32Type>(values, i32::MIN),
        DataType::Int64 => has::<Int64Type>(values, i64::MIN),
        _ => false,
    };
    if !found {
        return Ok(());
    }
    let field = arrow::datatypes::Field::new("", values.data_type().clone(), true);
    Err(Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, format!("{} out of range", SqlType::of(&field))))
}

/// The numbers of an array, whatever their type; none of what is no number.
fn numbers(values: &ArrayRef) -> Result<Vec<Option<f64>>> {
    Ok(match values.data_type() {
        DataType::Float64 => values.as_primitive::<Float64Type>().iter().collect(),
        DataType::Float32 => values.as_primitive::<Float32Type>().iter().map(|v| v.map(f64::from)).collect(),
        _ => {
            let floats = arrow::compute::cast(values, &DataType::Float64)?;
            floats.as_primitive::<Float64Type>().iter().collect()
        }
    })
}

fn refuse(values: &ArrayRef, error: impl Fn(f64) -> Option<Error>) -> Result<()> {
    match numbers(values)?.into_iter().flatten().find_map(error) {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

fn logarithm(x: f64) -> Option<Error> {
    if x == 0.0 {
        Some(domain("2201E", "cannot take logarithm of zero"))
    } else if x < 0.0 {
        Some(domain("2201E", "cannot take logarithm of a negative number"))
    } else {
        None
    }
}

fn powers(bases: &ArrayRef, exponents: &ArrayRef) -> Result<()> {
    let (bases, exponents) = (numbers(bases)?, numbers(exponents)?);
    let rows = bases.len().max(exponents.len());
    // A scalar has one value for all rows.
    let at =
        |values: &[Option<f64>], row: usize| values.get(if values.len() == 1 { 0 } else { row }).copied();
    for row in 0..rows {
        let (Some(Some(base)), Some(Some(exponent))) = (at(&bases, row), at(&exponents, row)) else {
            continue;
        };
        if base == 0.0 && exponent < 0.0 {
            return Err(domain("2201F", "zero raised to a negative power is undefined").into());
        }
        if base < 0.0 && exponent.is_finite() && exponent.fract() != 0.0 {
            let message = "a negative number raised to a non-integer power yields a complex result";
            return Err(domain("2201F", message).into());
        }
    }
    Ok(())
}

/// An infinite result of finite arguments is too large for its type.
fn overflowed(arguments: &[ArrayRef], result: &ArrayRef) -> Result<()> {
    if !result.data_type().is_floating() {
        return Ok(());
    }
    let results = numbers(result)?;
    if !results.iter().flatten().any(|r| r.is_infinite()) {
        return Ok(());
    }
    let arguments = arguments.iter().map(numbers).collect::<Result<Vec<_>>>()?;
    for (row, result) in results.iter().enumerate() {
        let infinite = |values: &Vec<Option<f64>>| {
            values
                .get(if values.len() == 1 { 0 } else { row })
                .copied()
                .flatten()
                .is_some_and(f64::is_infinite)
        };
        if result.is_some_and(f64::is_infinite) && !arguments.iter().any(infinite) {
            return Err(
                Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "value out of range: overflow").into()
            );
        }
    }
    Ok(())
}
