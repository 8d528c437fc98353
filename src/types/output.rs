//! Values as PostgreSQL's text format: what the wire's text format, COPY and casts to text print.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type,
    DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType, DurationSecondType, Field,
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, IntervalDayTimeType,
    IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, IntervalYearMonthType,
    Time32MillisecondType, Time32SecondType, Time64MicrosecondType, Time64NanosecondType, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};

use super::datetime::{format_date, format_time, format_timestamp, format_timestamptz};
use super::interval::format_interval;
use super::numeric::{format_decimal, shortest};
use super::{SqlType, Zone};
use crate::error::{Error, Result};

/// What a session may choose about text output.
#[derive(Clone, Copy, Debug, Default)]
pub struct TextFormat {
    /// The session's time zone.
    pub zone: Zone,
    /// `extra_float_digits` below 1 prints floats with 15 (6) digits; otherwise the shortest exact text.
    pub rounded_floats: bool,
}

/// Appends a value to a line of COPY's text format, its special characters escaped.
pub fn escape_copy_text(value: &[u8], delimiter: u8, out: &mut Vec<u8>) {
    for &byte in value {
        let escaped = match byte {
            b'\\' => b'\\',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0x08 => b'b',
            0x0c => b'f',
            0x0b => b'v',
            other if other == delimiter => other,
            other => {
                out.push(other);
                continue;
            }
        };
        out.extend_from_slice(&[b'\\', escaped]);
    }
}

/// Writes the value at `row` in PostgreSQL's text format with the default settings; nothing for NULL, which the caller asks first.
///
/// # Errors
/// 0A000 for an Arrow type that has no PostgreSQL text.
pub fn write_text(field: &Field, array: &dyn Array, row: usize, out: &mut Vec<u8>) -> Result<()> {
    write_text_with(TextFormat::default(), field, array, row, out)
}

/// [`write_text`] with a session's settings.
///
/// # Errors
/// As [`write_text`].
pub fn write_text_with(
    format: TextFormat,
    field: &Field,
    array: &dyn Array,
    row: usize,
    out: &mut Vec<u8>,
) -> Result<()> {
    if array.is_null(row) {
        return Ok(());
    }
    match array.data_type() {
        DataType::Null => {}
        DataType::Boolean => out.push(if array.as_boolean().value(row) { b't' } else { b'f' }),
        DataType::Int8 => integer::<Int8Type>(array, row, out),
        DataType::Int16 => integer::<Int16Type>(array, row, out),
        DataType::Int32 => integer::<Int32Type>(array, row, out),
        DataType::Int64 => integer::<Int64Type>(array, row, out),
        DataType::UInt8 => integer::<UInt8Type>(array, row, out),
        DataType::UInt16 => integer::<UInt16Type>(array, row, out),
        DataType::UInt32 => integer::<UInt32Type>(array, row, out),
        DataType::UInt64 => integer::<UInt64Type>(array, row, out),
        DataType::Float16 => {
            float(f64::from(array.as_primitive::<Float16Type>().value(row)), true, format, out)
        }
        DataType::Float32 => float(array.as_primitive::<Float32Type>().value(row).into(), true, format, out),
        DataType::Float64 => float(array.as_primitive::<Float64Type>().value(row), false, format, out),
        DataType::Decimal32(_, s) => {
            format_decimal(array.as_primitive::<Decimal32Type>().value(row).into(), *s, out);
        }
        DataType::Decimal64(_, s) => {
            format_decimal(array.as_primitive::<Decimal64Type>().value(row).into(), *s, out);
        }
        DataType::Decimal128(p, s) => {
            let value = array.as_primitive::<Decimal128Type>().value(row);
            let (value, scale) = shortest(value, *p, *s);
            format_decimal(value, scale, out);
        }
        DataType::Decimal256(_, _) => out.extend_from_slice(
            array.as_primitive::<arrow::datatypes::Decimal256Type>().value_as_string(row).as_bytes(),
        ),
        DataType::Utf8 => string(field, array.as_string::<i32>().value(row), out),
        DataType::LargeUtf8 => string(field, array.as_string::<i64>().value(row), out),
        DataType::Utf8View => string(field, array.as_string_view().value(row), out),
        DataType::Binary => bytea(array.as_binary::<i32>().value(row), out),
        DataType::LargeBinary => bytea(array.as_binary::<i64>().value(row), out),
        DataType::BinaryView => bytea(array.as_binary_view().value(row), out),
        DataType::FixedSizeBinary(_) => bytea(array.as_fixed_size_binary().value(row), out),
        DataType::Date32 => format_date(array.as_primitive::<Date32Type>().value(row), out),
        DataType::Date64 => {
            let days = array.as_primitive::<Date64Type>().value(row).div_euclid(86_400_000);
            format_date(days.clamp(i32::MIN.into(), i32::MAX.into()) as i32, out);
        }
        DataType::Time32(_) | DataType::Time64(_) => format_time(time_micros(array, row), out),
        DataType::Timestamp(unit, zone) => {
            let micros = timestamp_micros(array, *unit, row);
            match zone {
                None => format_timestamp(micros, out),
                Some(_) => format_timestamptz(micros, format.zone.offset_at(micros), out),
            }
        }
        DataType::Interval(unit) => format_interval(interval(array, *unit, row), out),
        DataType::Duration(unit) => {
            let nanos = duration_nanos(array, *unit, row);
            format_interval(IntervalMonthDayNano::new(0, 0, nanos), out);
        }
        DataType::List(inner) => list(format, inner, array.as_list::<i32>().value(row), out)?,
        DataType::LargeList(inner) => list(format, inner, array.as_list::<i64>().value(row), out)?,
        DataType::FixedSizeList(inner, _) => {
            list(format, inner, array.as_fixed_size_list().value(row), out)?;
        }
        DataType::Struct(fields) => record(format, fields.iter(), array.as_struct().columns(), row, out)?,
        DataType::Dictionary(_, value) => {
            let dictionary = array.as_any_dictionary();
            let key = dictionary.normalized_keys()[row];
            let field = Field::new(field.name(), value.as_ref().clone(), true);
            write_text_with(format, &field, dictionary.values().as_ref(), key, out)?;
        }
        other => return Err(Error::unsupported(format!("text output of Arrow type {other}"))),
    }
    Ok(())
}

fn integer<T: ArrowPrimitiveType>(array: &dyn Array, row: usize, out: &mut Vec<u8>)
where
    T::Native: std::fmt::Display,
{
    use std::io::Write;
    // Writing to a Vec never fails.
    let _ = write!(out, "{}", array.as_primitive::<T>().value(row));
}

fn float(value: f64, single: bool, format: TextFormat, out: &mut Vec<u8>) {
    if value.is_nan() {
        return out.extend_from_slice(b"NaN");
    }
    if value.is_infinite() {
        return out.extend_from_slice(if value > 0.0 { b"Infinity" } else { b"-Infinity" });
    }
    // Rust's exponent form has the shortest digits that read back exactly; PostgreSQL prints the same digits,
    // with an exponent when it is below -4 or at least 6 (float4) or 15 (float8) with rounding, 16 otherwise.
    let (scientific, exponent_max) = match (single, format.rounded_floats) {
        (true, false) => (format!("{:e}", value as f32), 6),
        (true, true) => (format!("{value:.5e}"), 6),
        (false, false) => (format!("{value:e}"), 15),
        (false, true) => (format!("{value:.14e}"), 15),
    };
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(m) => ("-", m),
        None => ("", mantissa),
    };
    let mut digits = mantissa.replace('.', "");
    let kept = digits.trim_end_matches('0').len().max(1);
    digits.truncate(kept);
    out.extend_from_slice(sign.as_bytes());
    let n = digits.len() as i32;
    if exponent < -4 || exponent >= exponent_max {
        out.extend_from_slice(&digits.as_bytes()[..1]);
        if n > 1 {
            out.push(b'.');
            out.extend_from_slice(&digits.as_bytes()[1..]);
        }
        out.extend_from_slice(
            format!("e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs()).as_bytes(),
        );
    } else if exponent < 0 {
        out.extend_from_slice(b"0.");
        out.extend(std::iter::repeat_n(b'0', (-exponent - 1) as usize));
        out.extend_from_slice(digits.as_bytes());
    } else if n <= exponent + 1 {
        out.extend_from_slice(digits.as_bytes());
        out.extend(std::iter::repeat_n(b'0', (exponent + 1 - n) as usize));
    } else {
        let point = (exponent + 1) as usize;
        out.extend_from_slice(&digits.as_bytes()[..point]);
        out.push(b'.');
        out.extend_from_slice(&digits.as_bytes()[point..]);
    }
}

/// `character(n)` prints its padding, as PostgreSQL does.
fn string(field: &Field, value: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(value.as_bytes());
    if field.metadata().is_empty() {
        return;
    }
    if let SqlType::Char(n) = SqlType::of(field) {
        let missing = (n as usize).saturating_sub(value.chars().count());
        out.extend(std::iter::repeat_n(b' ', missing));
    }
}

fn bytea(value: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.reserve(2 + 2 * value.len());
    out.extend_from_slice(b"\\x");
    for byte in value {
        out.push(HEX[usize::from(byte >> 4)]);
        out.push(HEX[usize::from(byte & 15)]);
    }
}

/// Microseconds since midnight.
pub(super) fn time_micros(array: &dyn Array, row: usize) -> i64 {
    match array.data_type() {
        DataType::Time32(TimeUnit::Second) => {
            i64::from(array.as_primitive::<Time32SecondType>().value(row)) * 1_000_000
        }
        DataType::Time32(_) => i64::from(array.as_primitive::<Time32MillisecondType>().value(row)) * 1000,
        DataType::Time64(TimeUnit::Nanosecond) => {
            array.as_primitive::<Time64NanosecondType>().value(row) / 1000
        }
        _ => array.as_primitive::<Time64MicrosecondType>().value(row),
    }
}

/// Microseconds since 1970-01-01.
fn timestamp_micros(array: &dyn Array, unit: TimeUnit, row: usize) -> i64 {
    match unit {
        TimeUnit::Second => array.as_primitive::<TimestampSecondType>().value(row).saturating_mul(1_000_000),
        TimeUnit::Millisecond => {
            array.as_primitive::<TimestampMillisecondType>().value(row).saturating_mul(1000)
        }
        TimeUnit::Microsecond => array.as_primitive::<TimestampMicrosecondType>().value(row),
        TimeUnit::Nanosecond => array.as_primitive::<TimestampNanosecondType>().value(row).div_euclid(1000),
    }
}

fn interval(array: &dyn Array, unit: IntervalUnit, row: usize) -> IntervalMonthDayNano {
    match unit {
        IntervalUnit::YearMonth => {
            IntervalMonthDayNano::new(array.as_primitive::<IntervalYearMonthType>().value(row), 0, 0)
        }
        IntervalUnit::DayTime => {
            let value = array.as_primitive::<IntervalDayTimeType>().value(row);
            IntervalMonthDayNano::new(0, value.days, i64::from(value.milliseconds) * 1_000_000)
        }
        IntervalUnit::MonthDayNano => array.as_primitive::<IntervalMonthDayNanoType>().value(row),
    }
}

fn duration_nanos(array: &dyn Array, unit: TimeUnit, row: usize) -> i64 {
    match unit {
        TimeUnit::Second => {
            array.as_primitive::<DurationSecondType>().value(row).saturating_mul(1_000_000_000)
        }
        TimeUnit::Millisecond => {
            array.as_primitive::<DurationMillisecondType>().value(row).saturating_mul(1_000_000)
        }
        TimeUnit::Microsecond => {
            array.as_primitive::<DurationMicrosecondType>().value(row).saturating_mul(1000)
        }
        TimeUnit::Nanosecond => array.as_primitive::<DurationNanosecondType>().value(row),
    }
}

/// `{1,NULL,"two words"}`
fn list(format: TextFormat, field: &Field, values: ArrayRef, out: &mut Vec<u8>) -> Result<()> {
    let nested = matches!(
        values.data_type(),
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(_, _)
    );
    out.push(b'{');
    let mut element = Vec::new();
    for row in 0..values.len() {
        if row > 0 {
            out.push(b',');
        }
        if values.is_null(row) {
            out.extend_from_slice(b"NULL");
            continue;
        }
        element.clear();
        write_text_with(format, field, values.as_ref(), row, &mut element)?;
        if nested || !needs_quotes(&element, b"{},\"\\") {
            out.extend_from_slice(&element);
        } else {
            push_quoted(&element, b"\\", out);
        }
    }
    out.push(b'}');
    Ok(())
}

/// `(1,,"two words")`
fn record<'a>(
    format: TextFormat,
    fields: impl Iterator<Item = &'a std::sync::Arc<Field>>,
    columns: &[ArrayRef],
    row: usize,
    out: &mut Vec<u8>,
) -> Result<()> {
    out.push(b'(');
    let mut element = Vec::new();
    for (i, (field, column)) in fields.zip(columns).enumerate() {
        if i > 0 {
            out.push(b',');
        }
        if column.is_null(row) {
            continue;
        }
        element.clear();
        write_text_with(format, field, column.as_ref(), row, &mut element)?;
        if needs_quotes(&element, b"(),\"\\") {
            push_quoted(&element, b"", out);
        } else {
            out.extend_from_slice(&element);
        }
    }
    out.push(b')');
    Ok(())
}

fn needs_quotes(text: &[u8], special: &[u8]) -> bool {
    text.is_empty()
        || text.iter().any(|b| special.contains(b) || b.is_ascii_whitespace())
        || text.eq_ignore_ascii_case(b"null")
}

/// Arrays escape with a backslash, records by doubling.
fn push_quoted(text: &[u8], escape: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for &b in text {
        if b == b'"' || b == b'\\' {
            if escape.is_empty() {
                out.push(b);
            } else {
                out.extend_from_slice(escape);
            }
        }
        out.push(b);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{BinaryArray, Float32Array, Float64Array, ListArray, StringViewArray};
    use arrow::datatypes::Int32Type;

    use super::*;

    fn text(array: &dyn Array, row: usize) -> String {
        let mut out = Vec::new();
        write_text(&Field::new("c", array.data_type().clone(), true), array, row, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn floats_are_shortest_and_switch_to_exponents_as_in_postgresql() {
        for (value, expected) in [
            (0.1, "0.1"),
            (1.0, "1"),
            (-0.0, "-0"),
            (100_000.0, "100000"),
            (1e15, "1e+15"),
            (123_456_789_012_345.0, "123456789012345"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1.5e300, "1.5e+300"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
            (1.0 / 3.0, "0.3333333333333333"),
        ] {
            assert_eq!(text(&Float64Array::from(vec![value]), 0), expected);
        }
        assert_eq!(text(&Float32Array::from(vec![0.1f32]), 0), "0.1");
        assert_eq!(text(&Float32Array::from(vec![1_000_000.0f32]), 0), "1e+06");
        assert_eq!(text(&Float32Array::from(vec![123_456.0f32]), 0), "123456");
    }

    #[test]
    fn arrays_quote_what_would_be_misread() {
        let ints = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None, Some(3)])]);
        assert_eq!(text(&ints, 0), "{1,NULL,3}");
        let strings: ArrayRef = Arc::new(StringViewArray::from(vec![
            Some("a b"),
            Some(""),
            Some("null"),
            Some("x\"y\\z"),
            Some("ok"),
        ]));
        let mut out = Vec::new();
        let field = Field::new("item", DataType::Utf8View, true);
        list(TextFormat::default(), &field, strings, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), r#"{"a b","","null","x\"y\\z",ok}"#);
    }

    #[test]
    fn bytes_are_hexadecimal_and_char_is_padded() {
        assert_eq!(text(&BinaryArray::from_vec(vec![b"\x00\xff"]), 0), "\\x00ff");
        let mut out = Vec::new();
        let field = SqlType::Char(4).field("c", true);
        write_text(&field, &StringViewArray::from(vec!["ab"]), 0, &mut out).unwrap();
        assert_eq!(out, b"ab  ");
    }
}
