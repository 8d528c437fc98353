//! Points in time from seconds and from other zones: `to_timestamp`, `timezone`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Float64Type, TimestampMicrosecondType};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};

use super::define::Call;
use super::to_char;
use crate::error::{Error, SqlState};
use crate::types::{SqlType, Zone, is_string};

/// The functions of this file.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    let exact = |types: Vec<DataType>| TypeSignature::Exact(types);
    [
        (Kind::Timezone, vec![TypeSignature::UserDefined]),
        (
            Kind::ToTimestamp,
            vec![exact(vec![DataType::Utf8View, DataType::Utf8View]), exact(vec![DataType::Float64])],
        ),
    ]
    .into_iter()
    .map(|(kind, types)| {
        let signature = Signature::one_of(types, Volatility::Immutable);
        Arc::new(ScalarUDF::new_from_impl(Function { kind, signature }))
    })
    .collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Timezone,
    ToTimestamp,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Function {
    kind: Kind,
    signature: Signature,
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        match self.kind {
            Kind::Timezone => "timezone",
            Kind::ToTimestamp => "to_timestamp",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Of `timezone` only, whose result depends on whether a zone was given: neither may become the other.
    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let at = match types {
            [_, DataType::Timestamp(_, Some(_)) | DataType::Date32 | DataType::Date64] => {
                SqlType::Timestamptz
            }
            [_, DataType::Timestamp(_, None)] => SqlType::Timestamp,
            [_, DataType::Null] => SqlType::Timestamptz,
            [_, other] if is_string(other) => SqlType::Timestamptz,
            _ => {
                let types: Vec<String> = types.iter().map(ToString::to_string).collect();
                return Err(datafusion::error::DataFusionError::Plan(format!(
                    "No function matches the given name and argument types '{}({})'",
                    self.name(),
                    types.join(", ")
                )));
            }
        };
        Ok(vec![DataType::Utf8View, at.arrow()])
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(match self.kind {
            Kind::ToTimestamp => SqlType::Timestamptz.arrow(),
            // A moment in a zone is local time there; a local time in a zone is a moment.
            Kind::Timezone => match types.get(1) {
                Some(DataType::Timestamp(_, Some(_))) => SqlType::Timestamp.arrow(),
                _ => SqlType::Timestamptz.arrow(),
            },
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalar = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let to = args.return_type().clone();
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let result = match (self.kind, arrays.as_slice()) {
            (Kind::Timezone, [zone, at]) => timezone(zone, at)?,
            (Kind::ToTimestamp, [seconds]) => to_timestamp(seconds)?,
            (Kind::ToTimestamp, arrays) => to_char::to_timestamp(&Call {
                name: "to_timestamp",
                arrays,
                fields: &args.arg_fields,
                gives: &args.return_field,
                rows: arrays.first().map_or(0, |a| a.len()),
            })?,
            _ => return Err(Error::internal(format!("{} with other arguments", self.name())).into()),
        };
        debug_assert_eq!(result.data_type(), &to);
        if scalar {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }
}

fn to_timestamp(seconds: &ArrayRef) -> crate::Result<ArrayRef> {
    let micros: TimestampMicrosecondArray = seconds.as_primitive::<Float64Type>().try_unary(|s| {
        let micros = (s * 1e6).round();
        if micros.abs() < 9.2e18 {
            Ok(micros as i64)
        } else {
            Err(Error::new(SqlState("22008"), format!("timestamp out of range: \"{s}\"")))
        }
    })?;
    Ok(Arc::new(micros.with_timezone("+00:00")))
}

fn timezone(zone: &ArrayRef, at: &ArrayRef) -> crate::Result<ArrayRef> {
    let zones = zone.as_string_view();
    let zoned = matches!(at.data_type(), DataType::Timestamp(_, Some(_)));
    let at = at.as_primitive::<TimestampMicrosecondType>();
    let shifted: TimestampMicrosecondArray = zones
        .iter()
        .zip(at)
        .map(|(zone, at)| {
            let (Some(zone), Some(at)) = (zone, at) else { return Ok(None) };
            let zone = Zone::parse(zone).ok_or_else(|| {
                Error::new(SqlState::INVALID_PARAMETER_VALUE, format!("time zone \"{zone}\" not recognized"))
                    .with_hint("Use UTC, an offset such as +02:00, or a name such as Europe/Berlin.")
            })?;
            let shift = if zoned { zone.offset_at(at) } else { -zone.offset_of_local(at) };
            Ok(Some(at.saturating_add(i64::from(shift) * 1_000_000)))
        })
        .collect::<crate::Result<_>>()?;
    Ok(if zoned { Arc::new(shifted) } else { Arc::new(shifted.with_timezone("+00:00")) })
}
