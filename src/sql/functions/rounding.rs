//! `round`, `trunc`, `ceil` and `floor`: of a numeric with as many decimal places as PostgreSQL gives, of a float to the
//! nearest even number.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Float64Array, Int64Array};
use arrow::datatypes::{DataType, Decimal128Type, FieldRef, Float64Type, Int64Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::cast::rescale;
use crate::error::{Error, SqlState};
use crate::types::SqlType;

/// The functions of this file.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    [Way::Round, Way::Trunc, Way::Ceil, Way::Floor]
        .into_iter()
        .map(|way| {
            let signature = Signature::user_defined(Volatility::Immutable);
            let aliases = if way == Way::Ceil { vec!["ceiling".to_string()] } else { vec![] };
            Arc::new(ScalarUDF::new_from_impl(Rounding { way, aliases, signature }))
        })
        .collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Way {
    Round,
    Trunc,
    Ceil,
    Floor,
}

impl Way {
    fn float(self, value: f64) -> f64 {
        match self {
            Way::Round => value.round_ties_even(),
            Way::Trunc => value.trunc(),
            Way::Ceil => value.ceil(),
            Way::Floor => value.floor(),
        }
    }

    /// A scaled integer with fewer decimal places; half goes away from zero.
    fn decimal(self, value: i128, from: i8, to: i8) -> Option<i128> {
        if to >= from || self == Way::Round {
            return rescale(value, from, to);
        }
        let places = u32::from((i16::from(from) - i16::from(to)).unsigned_abs());
        let Some(unit) = 10i128.checked_pow(places) else {
            // More places go than there are digits.
            return Some(match self {
                Way::Ceil if value > 0 => 1,
                Way::Floor if value < 0 => -1,
                _ => 0,
            });
        };
        let (whole, rest) = (value / unit, value % unit);
        Some(match self {
            Way::Ceil if rest > 0 => whole + 1,
            Way::Floor if rest < 0 => whole - 1,
            _ => whole,
        })
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Rounding {
    way: Way,
    aliases: Vec<String>,
    signature: Signature,
}

/// Decimal places that may be asked for.
fn places(wanted: i64) -> i8 {
    // Within an i8 by far.
    wanted.clamp(-38, 38) as i8
}

impl ScalarUDFImpl for Rounding {
    fn name(&self) -> &str {
        match self.way {
            Way::Round => "round",
            Way::Trunc => "trunc",
            Way::Ceil => "ceil",
            Way::Floor => "floor",
        }
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let may_have_places = matches!(self.way, Way::Round | Way::Trunc);
        let coerced = match types {
            [DataType::Decimal128(p, s)] => Some(vec![DataType::Decimal128(*p, *s)]),
            [t] if t.is_numeric() || t.is_null() || t.is_string() => Some(vec![DataType::Float64]),
            [t, n] if may_have_places && (n.is_integer() || n.is_null() || n.is_string()) => match t {
                DataType::Decimal128(..) => Some(vec![t.clone(), DataType::Int64]),
                DataType::Int16 | DataType::Int32 => Some(vec![DataType::Decimal128(10, 0), DataType::Int64]),
                DataType::Int64 => Some(vec![DataType::Decimal128(19, 0), DataType::Int64]),
                t if t.is_null() || t.is_string() => {
                    Some(vec![SqlType::Numeric(None).arrow(), DataType::Int64])
                }
                _ => None,
            },
            _ => None,
        };
        coerced.ok_or_else(|| {
            let types: Vec<String> = types.iter().map(ToString::to_string).collect();
            datafusion::error::DataFusionError::Plan(format!(
                "No function matches the given name and argument types '{}({})'",
                self.name(),
                types.join(", ")
            ))
        })
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Err(Error::internal("the result of rounding depends on the number of places").into())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let given = args.arg_fields.first().map(|f| f.data_type());
        let sql_type = match given {
            Some(DataType::Decimal128(p, s)) => {
                let scale = match args.scalar_arguments.get(1) {
                    None => 0,
                    Some(Some(ScalarValue::Int64(Some(n)))) => places(*n).max(0),
                    // How many places there will be is not known yet: as many as there are.
                    Some(_) => *s,
                };
                // Rounding up can need one more digit before the point.
                let whole = i16::from(*p) - i16::from(*s) + 1;
                let precision = (whole + i16::from(scale)).clamp(1, 38);
                SqlType::Numeric(Some((precision as u8, scale)))
            }
            _ => SqlType::Float8,
        };
        Ok(sql_type.field_ref(self.name(), true))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalar = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let rows = if scalar { 1 } else { args.number_rows };
        let arrays = args.args.iter().map(|a| a.to_array(rows)).collect::<Result<Vec<_>>>()?;
        let result: ArrayRef = match (arrays.as_slice(), args.return_field.data_type()) {
            ([values], DataType::Float64) => {
                let values = values.as_primitive::<Float64Type>();
                Arc::new(values.unary::<_, Float64Type>(|v| self.way.float(v))) as ArrayRef
            }
            ([values], DataType::Decimal128(p, s)) => Arc::new(self.decimals(values, None, *p, *s)?),
            ([values, n], DataType::Decimal128(p, s)) => {
                Arc::new(self.decimals(values, Some(n.as_primitive::<Int64Type>()), *p, *s)?)
            }
            ([values, _], _) => Arc::new(Float64Array::new_null(values.len())),
            _ => return Err(Error::internal("rounding needs one or two arguments").into()),
        };
        if scalar {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }
}

impl Rounding {
    fn decimals(
        &self,
        values: &ArrayRef,
        wanted: Option<&Int64Array>,
        precision: u8,
        scale: i8,
    ) -> crate::Result<Decimal128Array> {
        let DataType::Decimal128(_, from) = *values.data_type() else {
            return Err(Error::internal("rounding of something else than a numeric"));
        };
        let limit = 10i128.pow(u32::from(precision.min(38)));
        let values = values.as_primitive::<Decimal128Type>();
        let rounded: Decimal128Array = values
            .iter()
            .enumerate()
            .map(|(row, value)| {
                let (Some(value), to) = (value, wanted) else { return Ok(None) };
                let to = match to {
                    None => 0,
                    Some(wanted) if wanted.is_null(row) => return Ok(None),
                    Some(wanted) => places(wanted.value(row)),
                };
                let cut = self.way.decimal(value, from, to).and_then(|v| rescale(v, to, scale));
                cut.filter(|v| v.abs() < limit)
                    .map(Some)
                    .ok_or_else(|| Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "numeric field overflow"))
            })
            .collect::<crate::Result<_>>()?;
        Ok(rounded.with_precision_and_scale(precision, scale)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_cut_each_in_its_way() {
        for (way, expected) in [
            (Way::Round, [13, -13, 12]),
            (Way::Trunc, [12, -12, 12]),
            (Way::Ceil, [13, -12, 13]),
            (Way::Floor, [12, -13, 12]),
        ] {
            let cut = [1250, -1250, 1201].map(|v| way.decimal(v, 2, 0).unwrap());
            assert_eq!(cut, expected, "{way:?}");
        }
        assert_eq!(Way::Round.decimal(12_345, 1, -2), Some(12));
        assert_eq!(Way::Ceil.decimal(1, 38, -1), Some(1));
    }
}
