//! Text to whole columns: what COPY FROM uses.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder,
    Float64Builder, Int16Builder, Int32Builder, Int64Builder, IntervalMonthDayNanoBuilder, StringViewBuilder,
    Time64MicrosecondBuilder, TimestampMicrosecondBuilder, UInt32Builder, new_empty_array, new_null_array,
};
use arrow::datatypes::{DataType, FieldRef};

use super::SqlType;
use super::datetime::{parse_date, parse_time, parse_timestamp, parse_timestamptz};
use super::input::{
    check_json, check_string, normalize_jsonb, parse_array_text, parse_bool, parse_bytea, parse_float,
    parse_float4, parse_int, parse_uuid,
};
use super::interval::parse_interval;
use super::numeric::parse_decimal;
use crate::error::{Error, Result};

/// Collects a column of a type from text values.
#[derive(Debug)]
pub struct TextBuilder {
    field: FieldRef,
    sql_type: SqlType,
    values: Values,
}

#[derive(Debug)]
enum Values {
    Bool(BooleanBuilder),
    Int2(Int16Builder),
    Int4(Int32Builder),
    Int8(Int64Builder),
    Oid(UInt32Builder),
    Float4(Float32Builder),
    Float8(Float64Builder),
    Numeric(Decimal128Builder, u8, i8),
    Text(StringViewBuilder),
    Bytea(BinaryBuilder),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    Interval(IntervalMonthDayNanoBuilder),
    /// One-row lists, joined at the end.
    Lists(Vec<ArrayRef>),
}

impl TextBuilder {
    /// An empty column.
    ///
    /// # Errors
    /// 0A000 when the column's Arrow type is none that tables have.
    pub fn new(field: FieldRef) -> Result<Self> {
        let sql_type = SqlType::of(&field);
        let values = match field.data_type() {
            DataType::Boolean => Values::Bool(BooleanBuilder::new()),
            DataType::Int16 => Values::Int2(Int16Builder::new()),
            DataType::Int32 => Values::Int4(Int32Builder::new()),
            DataType::Int64 => Values::Int8(Int64Builder::new()),
            DataType::UInt32 => Values::Oid(UInt32Builder::new()),
            DataType::Float32 => Values::Float4(Float32Builder::new()),
            DataType::Float64 => Values::Float8(Float64Builder::new()),
            DataType::Decimal128(p, s) => {
                let builder = Decimal128Builder::new().with_data_type(field.data_type().clone());
                Values::Numeric(builder, *p, *s)
            }
            DataType::Utf8View => Values::Text(StringViewBuilder::new()),
            DataType::Binary => Values::Bytea(BinaryBuilder::new()),
            DataType::Date32 => Values::Date(Date32Builder::new()),
            DataType::Time64(_) => Values::Time(Time64MicrosecondBuilder::new()),
            DataType::Timestamp(_, zone) => {
                Values::Timestamp(TimestampMicrosecondBuilder::new().with_timezone_opt(zone.clone()))
            }
            DataType::Interval(_) => Values::Interval(IntervalMonthDayNanoBuilder::new()),
            DataType::List(_) => Values::Lists(Vec::new()),
            other => return Err(Error::unsupported(format!("text input of Arrow type {other}"))),
        };
        Ok(TextBuilder { field, sql_type, values })
    }

    /// Adds a value from its text.
    ///
    /// # Errors
    /// As [`super::parse_text`].
    pub fn push(&mut self, text: &str) -> Result<()> {
        match &mut self.values {
            Values::Bool(b) => b.append_value(parse_bool(text)?),
            Values::Int2(b) => b.append_value(parse_int(text, "smallint")?),
            Values::Int4(b) => b.append_value(parse_int(text, "integer")?),
            Values::Int8(b) => b.append_value(parse_int(text, "bigint")?),
            Values::Oid(b) => b.append_value(parse_int(text, "oid")?),
            Values::Float4(b) => b.append_value(parse_float4(text)?),
            Values::Float8(b) => b.append_value(parse_float(text, "double precision")?),
            Values::Numeric(b, p, s) => b.append_value(parse_decimal(text, *p, *s)?),
            Values::Text(b) => match &self.sql_type {
                SqlType::Uuid => b.append_value(parse_uuid(text)?),
                SqlType::Json => b.append_value(check_json(text)?),
                SqlType::Jsonb => b.append_value(normalize_jsonb(text)?),
                other => b.append_value(check_string(other, text)?),
            },
            Values::Bytea(b) => b.append_value(parse_bytea(text)?),
            Values::Date(b) => b.append_value(parse_date(text)?),
            Values::Time(b) => b.append_value(parse_time(text)?),
            Values::Timestamp(b) => b.append_value(match self.sql_type {
                SqlType::Timestamptz => parse_timestamptz(text, 0)?,
                _ => parse_timestamp(text)?,
            }),
            Values::Interval(b) => b.append_value(parse_interval(text)?),
            Values::Lists(lists) => {
                if let DataType::List(element) = self.field.data_type() {
                    lists.push(Arc::new(parse_array_text(element, text)?));
                }
            }
        }
        Ok(())
    }

    /// Adds NULL.
    pub fn push_null(&mut self) {
        match &mut self.values {
            Values::Bool(b) => b.append_null(),
            Values::Int2(b) => b.append_null(),
            Values::Int4(b) => b.append_null(),
            Values::Int8(b) => b.append_null(),
            Values::Oid(b) => b.append_null(),
            Values::Float4(b) => b.append_null(),
            Values::Float8(b) => b.append_null(),
            Values::Numeric(b, _, _) => b.append_null(),
            Values::Text(b) => b.append_null(),
            Values::Bytea(b) => b.append_null(),
            Values::Date(b) => b.append_null(),
            Values::Time(b) => b.append_null(),
            Values::Timestamp(b) => b.append_null(),
            Values::Interval(b) => b.append_null(),
            Values::Lists(lists) => lists.push(new_null_array(self.field.data_type(), 1)),
        }
    }

    /// The column so far; the builder starts anew.
    ///
    /// # Errors
    /// Only when the column is too large for Arrow.
    pub fn finish(&mut self) -> Result<ArrayRef> {
        Ok(match &mut self.values {
            Values::Bool(b) => Arc::new(b.finish()),
            Values::Int2(b) => Arc::new(b.finish()),
            Values::Int4(b) => Arc::new(b.finish()),
            Values::Int8(b) => Arc::new(b.finish()),
            Values::Oid(b) => Arc::new(b.finish()),
            Values::Float4(b) => Arc::new(b.finish()),
            Values::Float8(b) => Arc::new(b.finish()),
            Values::Numeric(b, _, _) => Arc::new(b.finish()),
            Values::Text(b) => Arc::new(b.finish()),
            Values::Bytea(b) => Arc::new(b.finish()),
            Values::Date(b) => Arc::new(b.finish()),
            Values::Time(b) => Arc::new(b.finish()),
            Values::Timestamp(b) => Arc::new(b.finish()),
            Values::Interval(b) => Arc::new(b.finish()),
            Values::Lists(lists) => {
                let lists = std::mem::take(lists);
                if lists.is_empty() {
                    return Ok(new_empty_array(self.field.data_type()));
                }
                let refs: Vec<&dyn arrow::array::Array> = lists.iter().map(AsRef::as_ref).collect();
                arrow::compute::concat(&refs)?
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{parse_text, write_text};
    use super::*;

    #[test]
    fn columns_hold_what_single_values_hold() {
        for (type_name, text) in [
            ("bool", "t"),
            ("int2", "7"),
            ("int4", "7"),
            ("int8", "7"),
            ("oid", "7"),
            ("float4", "1.5"),
            ("float8", "1.5"),
            ("numeric(5,1)", "1.5"),
            ("text", "x"),
            ("jsonb", "{\"a\": 1}"),
            ("uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
            ("bytea", "\\x01"),
            ("date", "2024-01-01"),
            ("time", "01:02:03"),
            ("timestamp", "2024-01-01 00:00:00"),
            ("timestamptz", "2024-01-01 00:00:00+00"),
            ("interval", "1 day"),
            ("int4[]", "{1,2}"),
        ] {
            let field = type_name.parse::<SqlType>().unwrap().field_ref("c", true);
            let mut builder = TextBuilder::new(Arc::clone(&field)).unwrap();
            builder.push(text).unwrap();
            builder.push_null();
            let column = builder.finish().unwrap();
            assert_eq!(column.data_type(), field.data_type());
            assert_eq!((column.len(), column.null_count()), (2, 1));
            let single = parse_text(&field, text).unwrap().to_array().unwrap();
            assert_eq!(&column.slice(0, 1), &single, "{type_name}");
            let mut out = Vec::new();
            write_text(&field, column.as_ref(), 0, &mut out).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), text);
            assert_eq!(builder.finish().unwrap().len(), 0);
        }
    }
}
