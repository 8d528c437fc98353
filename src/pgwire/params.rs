//! Parameters of a statement: bytes of either format to values of the parameters' types.

use std::sync::Arc;

use arrow::array::types::IntervalMonthDayNanoType;
use arrow::datatypes::{Field, FieldRef};
use bytes::{Buf, Bytes};
use datafusion::scalar::ScalarValue;

use crate::error::{Error, Result, SqlState};
use crate::pgwire::encode::binary::{EPOCH_DAYS, EPOCH_MICROS};
use crate::pgwire::encode::{Format, format_of, numeric};
use crate::types::{SqlType, parse_text};

/// The values a Bind message gives to parameters of these types.
pub fn decode(fields: &[FieldRef], formats: &[i16], values: &[Option<Bytes>]) -> Result<Vec<ScalarValue>> {
    if values.len() != fields.len() {
        return Err(Error::new(
            SqlState::PROTOCOL_VIOLATION,
            format!(
                "bind message supplies {} parameters, but prepared statement requires {}",
                values.len(),
                fields.len()
            ),
        ));
    }
    if formats.len() > 1 && formats.len() != values.len() {
        return Err(Error::new(
            SqlState::PROTOCOL_VIOLATION,
            format!("bind message has {} parameter formats but {} parameters", formats.len(), values.len()),
        ));
    }
    fields
        .iter()
        .zip(values)
        .enumerate()
        .map(|(i, (field, value))| {
            decode_one(field, format_of(formats, i), value.as_ref()).map_err(|mut e| {
                let place = format!("unnamed portal parameter ${}", i + 1);
                e.detail.get_or_insert(format!("The value is that of {place}."));
                e
            })
        })
        .collect()
}

fn decode_one(field: &Field, format: Format, value: Option<&Bytes>) -> Result<ScalarValue> {
    let Some(value) = value else {
        return ScalarValue::try_from(field.data_type()).map_err(Into::into);
    };
    match format {
        Format::Text => parse_text(field, utf8(value)?),
        Format::Binary => binary(field, value.clone()),
    }
}

fn utf8(value: &[u8]) -> Result<&str> {
    let text = std::str::from_utf8(value)
        .map_err(|_| Error::new(SqlState("22021"), "invalid byte sequence for encoding \"UTF8\""))?;
    if text.contains('\0') {
        return Err(Error::new(SqlState("22021"), "invalid byte sequence for encoding \"UTF8\": 0x00"));
    }
    Ok(text)
}

fn incorrect() -> Error {
    Error::new(SqlState("22P03"), "incorrect binary data format")
}

/// A value of exactly the width that its type has.
fn fixed<const N: usize>(value: &[u8]) -> Result<[u8; N]> {
    value.try_into().map_err(|_| incorrect())
}

fn binary(field: &Field, mut value: Bytes) -> Result<ScalarValue> {
    Ok(match SqlType::of(field) {
        SqlType::Bool => ScalarValue::Boolean(Some(fixed::<1>(&value)? != [0])),
        SqlType::Int2 => ScalarValue::Int16(Some(i16::from_be_bytes(fixed(&value)?))),
        SqlType::Int4 => ScalarValue::Int32(Some(i32::from_be_bytes(fixed(&value)?))),
        SqlType::Int8 => ScalarValue::Int64(Some(i64::from_be_bytes(fixed(&value)?))),
        SqlType::Float4 => ScalarValue::Float32(Some(f32::from_be_bytes(fixed(&value)?))),
        SqlType::Float8 => ScalarValue::Float64(Some(f64::from_be_bytes(fixed(&value)?))),
        SqlType::Oid | SqlType::Regclass => ScalarValue::UInt32(Some(u32::from_be_bytes(fixed(&value)?))),
        SqlType::Numeric(_) => return parse_text(field, &numeric::read(value)?),
        // The text form is the binary form; the type still has its say (json must be json, a varchar has a length).
        SqlType::Text
        | SqlType::Varchar(_)
        | SqlType::Char(_)
        | SqlType::Name
        | SqlType::InternalChar
        | SqlType::Json
        | SqlType::Unknown => return parse_text(field, utf8(&value)?),
        SqlType::Jsonb => {
            if value.try_get_u8().map_err(|_| incorrect())? != 1 {
                return Err(Error::new(SqlState("22P03"), "unsupported jsonb version number"));
            }
            return parse_text(field, utf8(&value)?);
        }
        SqlType::Uuid => {
            let uuid = uuid::Uuid::from_bytes(fixed(&value)?);
            ScalarValue::Utf8View(Some(uuid.hyphenated().to_string()))
        }
        SqlType::Bytea => ScalarValue::Binary(Some(value.to_vec())),
        SqlType::Date => {
            let days = i32::from_be_bytes(fixed(&value)?);
            ScalarValue::Date32(Some(days.checked_add(EPOCH_DAYS).ok_or_else(|| out_of_range("date"))?))
        }
        SqlType::Time => {
            let micros = i64::from_be_bytes(fixed(&value)?);
            if !(0..=86_400_000_000).contains(&micros) {
                return Err(out_of_range("time"));
            }
            ScalarValue::Time64Microsecond(Some(micros))
        }
        SqlType::Timestamp => ScalarValue::TimestampMicrosecond(Some(micros(&value)?), None),
        SqlType::Timestamptz => {
            ScalarValue::TimestampMicrosecond(Some(micros(&value)?), Some(Arc::from("+00:00")))
        }
        SqlType::Interval => {
            let bytes: [u8; 16] = fixed(&value)?;
            let mut bytes = &bytes[..];
            let (micros, days, months) = (bytes.get_i64(), bytes.get_i32(), bytes.get_i32());
            let nanos = micros.checked_mul(1000).ok_or_else(|| out_of_range("interval"))?;
            ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNanoType::make_value(months, days, nanos)))
        }
        SqlType::Array(element) => return array(&element, value),
        other @ (SqlType::Regtype | SqlType::Regproc | SqlType::Record) => {
            return Err(Error::unsupported(format!("binary input of type {other}")));
        }
    })
}

fn micros(value: &[u8]) -> Result<i64> {
    let micros = i64::from_be_bytes(fixed(value)?);
    micros.checked_add(EPOCH_MICROS).ok_or_else(|| out_of_range("timestamp"))
}

fn out_of_range(what: &str) -> Error {
    Error::new(SqlState("22008"), format!("{what} out of range"))
}

/// An array as it comes: dimensions, then the innermost elements in row-major order.
fn array(element: &SqlType, mut value: Bytes) -> Result<ScalarValue> {
    let next = |value: &mut Bytes| value.try_get_u32().map_err(|_| incorrect());
    let n_dimensions = next(&mut value)?;
    next(&mut value)?; // whether there are NULLs
    let sent = next(&mut value)?;
    if sent != element.oid() && !(is_text(sent) && element.is_string()) {
        return Err(Error::new(
            SqlState::DATATYPE_MISMATCH,
            format!("wrong element type {sent} of an array"),
        ));
    }
    if n_dimensions > 1 {
        return Err(Error::unsupported("a multidimensional array in binary format"));
    }
    let length = if n_dimensions == 0 { 0 } else { next(&mut value)? };
    if n_dimensions == 1 {
        next(&mut value)?; // lower bound: arrays here begin at 1
    }
    // Every element costs at least the four bytes of its length.
    if length as usize > value.len() / 4 {
        return Err(incorrect());
    }
    let field = element.field("item", true);
    let mut values = Vec::with_capacity(length as usize);
    for _ in 0..length {
        values.push(match next(&mut value)? as i32 {
            -1 => ScalarValue::try_from(field.data_type())?,
            n => {
                let n = usize::try_from(n).map_err(|_| incorrect())?;
                if n > value.len() {
                    return Err(incorrect());
                }
                binary(&field, value.split_to(n))?
            }
        });
    }
    if !value.is_empty() {
        return Err(incorrect());
    }
    // The list's inner field keeps the element's own metadata, by which a uuid stays a uuid.
    let items = if values.is_empty() {
        arrow::array::new_empty_array(field.data_type())
    } else {
        ScalarValue::iter_to_array(values)?
    };
    let offsets = arrow::buffer::OffsetBuffer::from_lengths([items.len()]);
    let list = arrow::array::ListArray::try_new(Arc::new(field), offsets, items, None)?;
    Ok(ScalarValue::List(Arc::new(list)))
}

/// Text, varchar, bpchar, name, unknown: characters by any name.
fn is_text(oid: u32) -> bool {
    matches!(oid, 25 | 1043 | 1042 | 19 | 705)
}
