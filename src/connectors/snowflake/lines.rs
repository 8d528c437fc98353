//! A batch as Snowpipe takes it: rows as JSON objects, a line each, in parts of a certain size.
//!
//! A batch that was interrupted is made again and goes on where it was, so that the same rows must give the same parts:
//! they are put in the order of their text, and cut where their text has a certain size.

use std::ops::Range;

use arrow::array::{
    Array, AsArray, BinaryArray, BooleanArray, Decimal128Array, PrimitiveArray, RecordBatch, StringArray,
};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Float64Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::types::Column;
use crate::connectors::format::{datetime, number, quote};
use crate::error::{Error, Result, SqlState};

/// What goes out at once.
#[derive(Clone, Debug)]
pub struct Part {
    /// Lines of JSON, compressed with zstd.
    pub body: Bytes,
    /// How many.
    pub rows: u64,
}

/// The values of one column, as they are staged.
enum Values<'a> {
    Boolean(&'a BooleanArray),
    Int32(&'a PrimitiveArray<Int32Type>),
    Int64(&'a PrimitiveArray<Int64Type>),
    Decimal(&'a Decimal128Array, i8),
    Float(&'a PrimitiveArray<Float64Type>),
    Text(&'a StringArray),
    /// JSON already.
    Document(&'a StringArray),
    Binary(&'a BinaryArray),
    Date(&'a PrimitiveArray<Date32Type>),
    Time(&'a PrimitiveArray<Time64MicrosecondType>),
    Timestamp(&'a PrimitiveArray<TimestampMicrosecondType>, bool),
}

impl<'a> Values<'a> {
    fn new(column: &Column, values: &'a dyn Array) -> Result<Self> {
        Ok(match values.data_type() {
            DataType::Boolean => Values::Boolean(values.as_boolean()),
            DataType::Int32 => Values::Int32(values.as_primitive()),
            DataType::Int64 => Values::Int64(values.as_primitive()),
            DataType::Decimal128(_, scale) => {
                Values::Decimal(values.as_primitive::<Decimal128Type>(), *scale)
            }
            DataType::Float64 => Values::Float(values.as_primitive()),
            DataType::Utf8 if column.variant => Values::Document(values.as_string()),
            DataType::Utf8 => Values::Text(values.as_string()),
            DataType::Binary => Values::Binary(values.as_binary()),
            DataType::Date32 => Values::Date(values.as_primitive()),
            DataType::Time64(TimeUnit::Microsecond) => Values::Time(values.as_primitive()),
            DataType::Timestamp(TimeUnit::Microsecond, zone) => {
                Values::Timestamp(values.as_primitive(), zone.is_some())
            }
            other => {
                return Err(Error::internal(format!("column {} is staged as {other}", column.name)));
            }
        })
    }

    /// Appends `"NAME":value` and answers `true`, or appends nothing for a document that is not there: a JSON null
    /// would become a VARIANT that is not NULL.
    fn write(&self, member: &str, row: usize, out: &mut String) -> bool {
        match self {
            Values::Boolean(a) => value(*a, member, row, out, |a, out| {
                out.push_str(if a.value(row) { "true" } else { "false" });
            }),
            Values::Int32(a) => integer(a, member, row, out),
            Values::Int64(a) => integer(a, member, row, out),
            // As text, so that no digit depends on how a reader of JSON takes numbers.
            Values::Decimal(a, scale) => quoted(*a, member, row, out, |a, out| {
                number::write_decimal(a.value(row), *scale, out);
            }),
            Values::Float(a) => match a.value(row) {
                v if v.is_nan() => quoted(*a, member, row, out, |_, out| out.push_str("NaN")),
                v if v.is_infinite() => quoted(*a, member, row, out, |_, out| {
                    out.push_str(if v > 0.0 { "inf" } else { "-inf" });
                }),
                v => value(*a, member, row, out, |_, out| display(v, out)),
            },
            Values::Text(a) => value(*a, member, row, out, |a, out| quote::write_string(a.value(row), out)),
            Values::Document(a) if a.is_null(row) => return false,
            Values::Document(a) => value(*a, member, row, out, |a, out| {
                // Outside of strings, where a line's end is escaped, it means as much as a space.
                out.extend(a.value(row).chars().map(|c| if matches!(c, '\n' | '\r') { ' ' } else { c }));
            }),
            Values::Binary(a) => quoted(*a, member, row, out, |a, out| {
                STANDARD.encode_string(a.value(row), out);
            }),
            Values::Date(a) => quoted(*a, member, row, out, |a, out| {
                datetime::write_date(a.value(row).into(), out);
            }),
            Values::Time(a) => quoted(*a, member, row, out, |a, out| datetime::write_time(a.value(row), out)),
            Values::Timestamp(a, zoned) => quoted(*a, member, row, out, |a, out| {
                datetime::write_timestamp(a.value(row), 'T', out);
                out.push_str(if *zoned { "+00:00" } else { "" });
            }),
        }
        true
    }
}

/// Appends a member whose value `write` appends, or null.
fn value<A: Array>(
    array: &A,
    member: &str,
    row: usize,
    out: &mut String,
    write: impl FnOnce(&A, &mut String),
) {
    out.push_str(member);
    if array.is_null(row) { out.push_str("null") } else { write(array, out) }
}

/// [`value`] for text without anything that JSON escapes.
fn quoted<A: Array>(
    array: &A,
    member: &str,
    row: usize,
    out: &mut String,
    write: impl FnOnce(&A, &mut String),
) {
    value(array, member, row, out, |array, out| {
        out.push('"');
        write(array, out);
        out.push('"');
    });
}

fn integer<T: ArrowPrimitiveType<Native: std::fmt::Display>>(
    array: &PrimitiveArray<T>,
    member: &str,
    row: usize,
    out: &mut String,
) {
    value(array, member, row, out, |array, out| display(array.value(row), out));
}

fn display(value: impl std::fmt::Display, out: &mut String) {
    use std::fmt::Write as _;
    let written = write!(out, "{value}");
    debug_assert!(written.is_ok(), "writing to a String does not fail");
}

/// The rows' lines, one after the other, and where each is.
fn lines(columns: &[Column], rows: &RecordBatch) -> Result<(String, Vec<Range<usize>>)> {
    let mut members = Vec::with_capacity(columns.len());
    for (column, values) in columns.iter().zip(rows.columns()) {
        let mut member = String::new();
        quote::write_string(&column.name, &mut member);
        member.push(':');
        members.push((member, Values::new(column, values)?));
    }
    let (mut text, mut places) = (String::new(), Vec::with_capacity(rows.num_rows()));
    for row in 0..rows.num_rows() {
        let start = text.len();
        text.push('{');
        let mut comma = false;
        for (member, values) in &members {
            if comma {
                text.push(',');
            }
            comma = values.write(member, row, &mut text);
        }
        if !comma && text.ends_with(',') {
            text.pop();
        }
        text.push_str("}\n");
        places.push(start..text.len());
    }
    Ok((text, places))
}

/// Rows, encoded as for a stage, as what goes out, in parts of at most so much text, where one row has no more. No rows,
/// no parts.
///
/// # Errors
/// A column that cannot be written.
pub fn parts(columns: &[Column], rows: &RecordBatch, bytes: usize) -> Result<Vec<Part>> {
    let (text, mut places) = lines(columns, rows)?;
    places.sort_unstable_by(|a, b| text[a.clone()].cmp(&text[b.clone()]));
    let (mut parts, mut body, mut count) = (Vec::new(), Vec::new(), 0);
    for place in places {
        let line = &text.as_bytes()[place];
        if !body.is_empty() && body.len() + line.len() > bytes {
            parts.push(Part { body: compressed(&body)?, rows: std::mem::take(&mut count) });
            body.clear();
        }
        body.extend_from_slice(line);
        count += 1;
    }
    if !body.is_empty() {
        parts.push(Part { body: compressed(&body)?, rows: count });
    }
    Ok(parts)
}

fn compressed(body: &[u8]) -> Result<Bytes> {
    let compressed = zstd::bulk::compress(body, 1)
        .map_err(|e| Error::new(SqlState::IO_ERROR, format!("rows cannot be compressed: {e}")))?;
    Ok(Bytes::from(compressed))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, Int64Array, StringViewArray, TimestampMicrosecondArray};
    use arrow::datatypes::{Field, Schema};

    use super::*;
    use crate::connectors::snowflake::types::{columns, encode};

    fn text_of(parts: &[Part]) -> String {
        let text = |p: &Part| {
            let bytes = zstd::bulk::decompress(&p.body, 16 << 20).unwrap();
            assert_eq!(bytes.iter().filter(|b| **b == b'\n').count() as u64, p.rows);
            String::from_utf8(bytes).unwrap()
        };
        parts.iter().map(text).collect()
    }

    fn made(fields: Vec<Field>, arrays: Vec<ArrayRef>) -> Vec<Part> {
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap();
        let columns = columns(&rows.schema()).unwrap();
        parts(&columns, &encode(&columns, &rows).unwrap(), 3 << 20).unwrap()
    }

    #[test]
    fn every_type_is_written_as_the_service_reads_it() {
        let json = Field::new("doc", DataType::Utf8View, true)
            .with_metadata([("tidemill.type".to_string(), "json".to_string())].into());
        let fields = vec![
            Field::new("id", DataType::Int64, false),
            json,
            Field::new("f", DataType::Float64, true),
            Field::new("s", DataType::Utf8View, true),
            Field::new("d", DataType::Decimal128(12, 2), true),
            Field::new("b", DataType::Binary, true),
            Field::new("day", DataType::Date32, true),
            Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())), true),
            Field::new("naive", DataType::Timestamp(TimeUnit::Microsecond, None), true),
            Field::new("ok", DataType::Boolean, true),
        ];
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![1, 2])),
            Arc::new(StringViewArray::from(vec![Some("{\"a\":\n 1}"), None])),
            Arc::new(Float64Array::from(vec![Some(f64::NEG_INFINITY), Some(0.5)])),
            Arc::new(StringViewArray::from(vec![Some("a\n\"b\""), None])),
            Arc::new(Decimal128Array::from(vec![Some(-7), None]).with_precision_and_scale(12, 2).unwrap()),
            Arc::new(BinaryArray::from_opt_vec(vec![Some(&[0_u8, 255][..]), None])),
            Arc::new(PrimitiveArray::<Date32Type>::from(vec![Some(-719_162), None])),
            Arc::new(TimestampMicrosecondArray::from(vec![Some(1_500_000), None]).with_timezone("+00:00")),
            Arc::new(TimestampMicrosecondArray::from(vec![Some(0), None])),
            Arc::new(BooleanArray::from(vec![Some(true), None])),
        ];
        let expected = "{\"ID\":1,\"DOC\":{\"a\":  1},\"F\":\"-inf\",\"S\":\"a\\n\\\"b\\\"\",\"D\":\"-0.07\",\"B\":\"AP8=\",\
            \"DAY\":\"0001-01-01\",\"AT\":\"1970-01-01T00:00:01.5+00:00\",\"NAIVE\":\"1970-01-01T00:00:00\",\"OK\":true}\n\
            {\"ID\":2,\"F\":0.5,\"S\":null,\"D\":null,\"B\":null,\"DAY\":null,\"AT\":null,\"NAIVE\":null,\"OK\":null}\n";
        assert_eq!(text_of(&made(fields, arrays)), expected);
    }

    #[test]
    fn documents_that_are_not_there_leave_no_comma() {
        let json = |name: &str| {
            Field::new(name, DataType::Utf8View, true)
                .with_metadata([("tidemill.type".to_string(), "jsonb".to_string())].into())
        };
        let texts = |t: Option<&str>| Arc::new(StringViewArray::from(vec![t])) as ArrayRef;
        let made = |a, b| text_of(&made(vec![json("a"), json("b")], vec![texts(a), texts(b)]));
        assert_eq!(made(None, Some("1")), "{\"B\":1}\n");
        assert_eq!(made(Some("1"), None), "{\"A\":1}\n");
        assert_eq!(made(None, None), "{}\n");
    }

    #[test]
    fn the_same_rows_give_the_same_parts_in_whatever_order_they_come() {
        let numbers: Vec<i64> = (0..40_000).collect();
        let texts = |n: &i64| Some(format!("{:0>200}", n.wrapping_mul(7_919) % 40_009));
        let made = |order: Vec<i64>| {
            let fields =
                vec![Field::new("n", DataType::Int64, false), Field::new("s", DataType::Utf8View, true)];
            let text: StringViewArray = order.iter().map(texts).collect();
            made(fields, vec![Arc::new(Int64Array::from(order)), Arc::new(text)])
        };
        let there = made(numbers.clone());
        let back = made(numbers.iter().rev().copied().collect());
        assert!(there.len() > 2, "{}", there.len());
        assert!(there.iter().zip(&back).all(|(a, b)| a.body == b.body && a.rows == b.rows));
        assert_eq!(there.iter().map(|p| p.rows).sum::<u64>(), 40_000);
        assert!(made(Vec::new()).is_empty());
    }
}
