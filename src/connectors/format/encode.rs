//! Rows to bytes, for sinks: JSON objects and CSV lines. Numbers are written with all their digits.

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, ListArray, PrimitiveArray, RecordBatch,
    StringViewArray,
};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    IntervalMonthDayNanoType, IntervalUnit, Schema, Time64MicrosecondType, TimeUnit,
    TimestampMicrosecondType,
};

use super::{CsvOptions, datetime, is_json, number, quote};
use crate::error::{Error, Result};
use crate::types;

/// The columns of a batch, ready to be written value by value.
#[derive(Debug)]
pub struct RowWriter<'a> {
    columns: Vec<Column<'a>>,
    /// `"name":` of each column.
    members: &'a [String],
}

/// The members' names of JSON objects, quoted once for all batches.
pub fn member_names(schema: &Schema) -> Vec<String> {
    let member = |name: &str| {
        let mut out = String::new();
        quote::write_string(name, &mut out);
        out.push(':');
        out
    };
    schema.fields().iter().map(|f| member(f.name())).collect()
}

/// A column's values, by type.
#[derive(Debug)]
pub(super) enum Column<'a> {
    Boolean(&'a BooleanArray),
    Int16(&'a PrimitiveArray<Int16Type>),
    Int32(&'a PrimitiveArray<Int32Type>),
    Int64(&'a PrimitiveArray<Int64Type>),
    Float32(&'a PrimitiveArray<Float32Type>),
    Float64(&'a PrimitiveArray<Float64Type>),
    Decimal(&'a PrimitiveArray<Decimal128Type>, i8),
    Text(&'a StringViewArray),
    Json(&'a StringViewArray),
    Bytea(&'a BinaryArray),
    Date(&'a PrimitiveArray<Date32Type>),
    Time(&'a PrimitiveArray<Time64MicrosecondType>),
    Timestamp(&'a PrimitiveArray<TimestampMicrosecondType>, bool),
    Interval(&'a PrimitiveArray<IntervalMonthDayNanoType>),
    List(&'a ListArray, Box<Column<'a>>),
}

impl<'a> Column<'a> {
    fn new(array: &'a ArrayRef, as_json: bool) -> Result<Self> {
        Ok(match array.data_type() {
            DataType::Boolean => Column::Boolean(array.as_boolean()),
            DataType::Int16 => Column::Int16(array.as_primitive()),
            DataType::Int32 => Column::Int32(array.as_primitive()),
            DataType::Int64 => Column::Int64(array.as_primitive()),
            DataType::Float32 => Column::Float32(array.as_primitive()),
            DataType::Float64 => Column::Float64(array.as_primitive()),
            DataType::Decimal128(_, scale) => Column::Decimal(array.as_primitive(), *scale),
            DataType::Utf8View if as_json => Column::Json(array.as_string_view()),
            DataType::Utf8View => Column::Text(array.as_string_view()),
            DataType::Binary => Column::Bytea(array.as_binary()),
            DataType::Date32 => Column::Date(array.as_primitive()),
            DataType::Time64(TimeUnit::Microsecond) => Column::Time(array.as_primitive()),
            DataType::Timestamp(TimeUnit::Microsecond, zone) => {
                Column::Timestamp(array.as_primitive(), zone.is_some())
            }
            DataType::Interval(IntervalUnit::MonthDayNano) => Column::Interval(array.as_primitive()),
            DataType::List(item) => {
                let list = array.as_list::<i32>();
                Column::List(list, Box::new(Column::new(list.values(), is_json(item))?))
            }
            other => return Err(Error::unsupported(format!("writing a column of type {other}"))),
        })
    }

    pub(super) fn is_null(&self, row: usize) -> bool {
        match self {
            Column::Boolean(a) => a.is_null(row),
            Column::Int16(a) => a.is_null(row),
            Column::Int32(a) => a.is_null(row),
            Column::Int64(a) => a.is_null(row),
            Column::Float32(a) => a.is_null(row),
            Column::Float64(a) => a.is_null(row),
            Column::Decimal(a, _) => a.is_null(row),
            Column::Text(a) | Column::Json(a) => a.is_null(row),
            Column::Bytea(a) => a.is_null(row),
            Column::Date(a) => a.is_null(row),
            Column::Time(a) => a.is_null(row),
            Column::Timestamp(a, _) => a.is_null(row),
            Column::Interval(a) => a.is_null(row),
            Column::List(a, _) => a.is_null(row),
        }
    }

    /// Appends a value as JSON. What JSON has no type for is a string as PostgreSQL's `to_json` writes it.
    fn write_json(&self, row: usize, out: &mut String) {
        if self.is_null(row) {
            out.push_str("null");
            return;
        }
        match self {
            Column::Boolean(_)
            | Column::Int16(_)
            | Column::Int32(_)
            | Column::Int64(_)
            | Column::Decimal(..)
            | Column::Json(_) => self.write_plain(row, 'T', out),
            Column::Float32(a) if a.value(row).is_finite() => self.write_plain(row, 'T', out),
            Column::Float64(a) if a.value(row).is_finite() => self.write_plain(row, 'T', out),
            Column::Text(a) => quote::write_string(a.value(row), out),
            // The text of all others has no character that JSON would escape, but for bytea's backslash.
            Column::Bytea(_) => {
                out.push_str("\"\\");
                self.write_plain(row, 'T', out);
                out.push('"');
            }
            Column::Float32(_)
            | Column::Float64(_)
            | Column::Date(_)
            | Column::Time(_)
            | Column::Timestamp(..)
            | Column::Interval(_) => {
                out.push('"');
                self.write_plain(row, 'T', out);
                out.push('"');
            }
            Column::List(list, items) => {
                out.push('[');
                let offsets = list.value_offsets();
                let (from, to) = (offsets[row] as usize, offsets[row + 1] as usize);
                for item in from..to {
                    if item > from {
                        out.push(',');
                    }
                    items.write_json(item, out);
                }
                out.push(']');
            }
        }
    }

    /// Appends a value that is not NULL as text; `separator` stands between a timestamp's date and time.
    pub(super) fn write_plain(&self, row: usize, separator: char, out: &mut String) {
        match self {
            Column::Boolean(a) => out.push_str(if a.value(row) { "true" } else { "false" }),
            Column::Int16(a) => write_integer(a.value(row) as i64, out),
            Column::Int32(a) => write_integer(a.value(row) as i64, out),
            Column::Int64(a) => write_integer(a.value(row), out),
            Column::Float32(a) => write_float(a.value(row) as f64, a.value(row), out),
            Column::Float64(a) => write_float(a.value(row), a.value(row), out),
            Column::Decimal(a, scale) => number::write_decimal(a.value(row), *scale, out),
            Column::Text(a) | Column::Json(a) => out.push_str(a.value(row)),
            Column::Bytea(a) => {
                out.push_str("\\x");
                out.push_str(&hex::encode(a.value(row)));
            }
            Column::Date(a) => datetime::write_date(a.value(row) as i64, out),
            Column::Time(a) => datetime::write_time(a.value(row), out),
            Column::Timestamp(a, zoned) => {
                datetime::write_timestamp(a.value(row), separator, out);
                if *zoned {
                    out.push_str("+00:00");
                }
            }
            Column::Interval(a) => {
                let mut text = Vec::new();
                types::format_interval(a.value(row), &mut text);
                out.push_str(&String::from_utf8_lossy(&text));
            }
            Column::List(..) => self.write_json(row, out),
        }
    }
}

pub(super) fn write_integer(value: i64, out: &mut String) {
    use std::fmt::Write;
    let written = write!(out, "{value}");
    debug_assert!(written.is_ok(), "writing to a String does not fail");
}

/// The shortest text that reads back as the same number; `shown` is the value in its own width.
pub(super) fn write_float(value: f64, shown: impl std::fmt::Debug, out: &mut String) {
    use std::fmt::Write;
    if value.is_nan() {
        out.push_str("NaN");
    } else if value.is_infinite() {
        out.push_str(if value > 0.0 { "Infinity" } else { "-Infinity" });
    } else {
        let start = out.len();
        let written = write!(out, "{shown:?}");
        debug_assert!(written.is_ok(), "writing to a String does not fail");
        if out.get(start..).is_some_and(|t| t.ends_with(".0")) {
            out.truncate(out.len() - 2);
        }
    }
}

impl<'a> RowWriter<'a> {
    /// For a batch; `members` are [`member_names`] of its schema.
    ///
    /// # Errors
    /// 0A000 for a column's type that is not written.
    pub fn new(batch: &'a RecordBatch, members: &'a [String]) -> Result<Self> {
        let schema = batch.schema_ref();
        let columns = batch
            .columns()
            .iter()
            .zip(schema.fields())
            .map(|(array, field)| Column::new(array, is_json(field)))
            .collect::<Result<_>>()?;
        Ok(RowWriter { columns, members })
    }

    /// Appends a row as a JSON object of all columns.
    pub fn write_json(&self, row: usize, out: &mut String) {
        self.write_json_object(0..self.columns.len(), row, out);
    }

    /// Appends a row as a JSON object of some columns.
    pub fn write_json_object(&self, columns: impl IntoIterator<Item = usize>, row: usize, out: &mut String) {
        out.push('{');
        let mut first = true;
        for i in columns {
            let (Some(column), Some(member)) = (self.columns.get(i), self.members.get(i)) else { continue };
            if !std::mem::take(&mut first) {
                out.push(',');
            }
            out.push_str(member);
            column.write_json(row, out);
        }
        out.push('}');
    }

    /// Appends some columns of a row as the fields of an Avro record; `nullable` says of each column whether the
    /// record's schema lets it be null.
    pub fn write_avro(
        &self,
        columns: impl IntoIterator<Item = usize>,
        nullable: &[bool],
        row: usize,
        out: &mut Vec<u8>,
    ) {
        for i in columns {
            if let Some(column) = self.columns.get(i) {
                column.write_avro(row, nullable.get(i).copied().unwrap_or(true), out);
            }
        }
    }

    /// Appends some columns of a row as the fields of a Protobuf message, numbered in this order.
    pub fn write_protobuf(&self, columns: impl IntoIterator<Item = usize>, row: usize, out: &mut Vec<u8>) {
        for (n, i) in columns.into_iter().enumerate() {
            if let Some(column) = self.columns.get(i) {
                column.write_protobuf(row, n + 1, out);
            }
        }
    }

    /// Appends a row as a CSV line, without the line's end.
    pub fn write_csv(&self, row: usize, options: &CsvOptions, out: &mut String) {
        let mut plain = String::new();
        for (i, column) in self.columns.iter().enumerate() {
            if i > 0 {
                out.push(options.delimiter as char);
            }
            if column.is_null(row) {
                out.push_str(&options.null);
                continue;
            }
            plain.clear();
            column.write_plain(row, ' ', &mut plain);
            write_csv_field(&plain, options, out);
        }
    }
}

/// Appends a CSV field, quoted where it would else be read as something different.
fn write_csv_field(text: &str, options: &CsvOptions, out: &mut String) {
    let special = |b: u8| b == options.delimiter || b == options.quote || b == b'\n' || b == b'\r';
    if text != options.null && !text.bytes().any(special) {
        out.push_str(text);
        return;
    }
    let quote = options.quote as char;
    out.push(quote);
    for (i, part) in text.split(quote).enumerate() {
        if i > 0 {
            out.push(quote);
            out.push(quote);
        }
        out.push_str(part);
    }
    out.push(quote);
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use arrow::datatypes::{Field, FieldRef};

    use super::*;
    use crate::connectors::format::cell::Cell;
    use crate::connectors::format::column::ColumnBuilder;
    use crate::connectors::format::values::Encoding;
    use crate::types::TYPE_KEY;

    fn batch(columns: &[(&str, DataType, Option<&str>, &[Cell<'_>])]) -> RecordBatch {
        let mut fields = Vec::new();
        let mut arrays = Vec::new();
        for (name, data_type, sql_type, cells) in columns {
            let mut field = Field::new(*name, data_type.clone(), true);
            if let Some(t) = sql_type {
                field = field.with_metadata(HashMap::from([(TYPE_KEY.to_string(), t.to_string())]));
            }
            let field: FieldRef = Arc::new(field);
            let mut builder = ColumnBuilder::new(&field).unwrap();
            for cell in *cells {
                builder.append(*cell, Encoding::Plain).unwrap();
            }
            fields.push(field);
            arrays.push(builder.finish().unwrap());
        }
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
    }

    fn zoned() -> DataType {
        DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()))
    }

    #[test]
    fn json_has_every_type_without_loss() {
        let list = DataType::List(Arc::new(Field::new("item", DataType::Utf8View, true)));
        let b = batch(&[
            ("i", DataType::Int64, None, &[Cell::Number("-9223372036854775808")]),
            (
                "n",
                DataType::Decimal128(38, 10),
                None,
                &[Cell::Number("1234567890123456789012345678.0000000001")],
            ),
            ("f", DataType::Float64, None, &[Cell::Number("0.1")]),
            ("r", DataType::Float32, None, &[Cell::Number("3")]),
            ("x", DataType::Float64, None, &[Cell::Text("NaN")]),
            ("t", DataType::Utf8View, None, &[Cell::Text("a\"é\n")]),
            ("j", DataType::Utf8View, Some("jsonb"), &[Cell::Nested("{\"b\":[1],\"a\":null}")]),
            ("b", DataType::Binary, None, &[Cell::Text("\\xdead")]),
            ("d", DataType::Date32, None, &[Cell::Text("2024-02-29")]),
            ("at", zoned(), None, &[Cell::Text("2024-02-29 12:00:00.25+02")]),
            ("l", list, None, &[Cell::Nested("[\"x\",null]")]),
            (
                "v",
                DataType::Interval(IntervalUnit::MonthDayNano),
                None,
                &[Cell::Text("14 mons -3 days 00:00:01")],
            ),
            ("z", DataType::Boolean, None, &[Cell::Null]),
        ]);
        let members = member_names(b.schema_ref());
        let mut out = String::new();
        RowWriter::new(&b, &members).unwrap().write_json(0, &mut out);
        assert_eq!(
            out,
            "{\"i\":-9223372036854775808,\"n\":1234567890123456789012345678.0000000001,\"f\":0.1,\"r\":3,\
             \"x\":\"NaN\",\"t\":\"a\\\"é\\n\",\"j\":{\"a\": null, \"b\": [1]},\"b\":\"\\\\xdead\",\
             \"d\":\"2024-02-29\",\"at\":\"2024-02-29T10:00:00.25+00:00\",\"l\":[\"x\",null],\
             \"v\":\"1 year 2 mons -3 days +00:00:01\",\"z\":null}"
        );
    }

    #[test]
    fn csv_quotes_what_needs_it() {
        let b = batch(&[
            ("a", DataType::Utf8View, None, &[Cell::Text("x,\"y\""), Cell::Text(""), Cell::Null]),
            ("b", DataType::Int32, None, &[Cell::Number("1"), Cell::Null, Cell::Number("3")]),
        ]);
        let writer_names = member_names(b.schema_ref());
        let writer = RowWriter::new(&b, &writer_names).unwrap();
        let lines: Vec<String> = (0..3)
            .map(|row| {
                let mut out = String::new();
                writer.write_csv(row, &CsvOptions::default(), &mut out);
                out
            })
            .collect();
        assert_eq!(lines, ["\"x,\"\"y\"\"\",1", "\"\",", ",3"]);
    }
}
