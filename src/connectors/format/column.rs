//! A column under construction: takes [`Cell`]s of any format and appends values of the column's type.
//!
//! What a cell means is in `values`. A cell that is not understood says why, and a filler must then be appended
//! in its place: elements of an array that were read before the bad one belong to that filler.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBufferBuilder, BooleanBuilder, Date32Builder, Decimal128Builder,
    Float32Builder, Float64Builder, Int16Builder, Int32Builder, Int64Builder, IntervalMonthDayNanoBuilder,
    ListArray, StringViewBuilder, Time64MicrosecondBuilder, TimestampMicrosecondBuilder,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, IntervalMonthDayNano, IntervalUnit, TimeUnit};

use super::cell::{Cell, Row, Typed};
use super::scan::Scanner;
use super::typed;
use super::values::{self, Encoding, FieldError, FieldResult};
use crate::error::{Error, Result, SqlState};
use crate::types::TYPE_KEY;

/// A column under construction.
#[derive(Debug)]
pub struct ColumnBuilder {
    field: FieldRef,
    values: Values,
}

#[derive(Debug)]
enum Values {
    Boolean(BooleanBuilder),
    Int16(Int16Builder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    Decimal(Decimal128Builder, u8, i8),
    Text(StringViewBuilder),
    Uuid(StringViewBuilder),
    Json(StringViewBuilder),
    Jsonb(StringViewBuilder),
    Bytea(BinaryBuilder),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    Timestamp(TimestampMicrosecondBuilder, bool),
    Interval(IntervalMonthDayNanoBuilder),
    List(Box<ListBuilder>),
}

/// A list column: its elements are a column of their own.
#[derive(Debug)]
struct ListBuilder {
    items: ColumnBuilder,
    item_count: i32,
    offsets: Vec<i32>,
    validity: BooleanBufferBuilder,
    row: Row,
}

impl ColumnBuilder {
    /// A column of the field's type.
    ///
    /// # Errors
    /// 0A000 for types that records cannot be decoded into.
    pub fn new(field: &FieldRef) -> Result<Self> {
        let named = field.metadata().get(TYPE_KEY).map(String::as_str);
        let values = match field.data_type() {
            DataType::Boolean => Values::Boolean(BooleanBuilder::new()),
            DataType::Int16 => Values::Int16(Int16Builder::new()),
            DataType::Int32 => Values::Int32(Int32Builder::new()),
            DataType::Int64 => Values::Int64(Int64Builder::new()),
            DataType::Float32 => Values::Float32(Float32Builder::new()),
            DataType::Float64 => Values::Float64(Float64Builder::new()),
            DataType::Decimal128(p, s) => {
                Values::Decimal(Decimal128Builder::new().with_data_type(field.data_type().clone()), *p, *s)
            }
            DataType::Utf8View => match named {
                Some("uuid") => Values::Uuid(StringViewBuilder::new()),
                Some("json") => Values::Json(StringViewBuilder::new()),
                Some("jsonb") => Values::Jsonb(StringViewBuilder::new()),
                _ => Values::Text(StringViewBuilder::new()),
            },
            DataType::Binary => Values::Bytea(BinaryBuilder::new()),
            DataType::Date32 => Values::Date(Date32Builder::new()),
            DataType::Time64(TimeUnit::Microsecond) => Values::Time(Time64MicrosecondBuilder::new()),
            DataType::Timestamp(TimeUnit::Microsecond, zone) => Values::Timestamp(
                TimestampMicrosecondBuilder::new().with_timezone_opt(zone.clone()),
                zone.is_some(),
            ),
            DataType::Interval(IntervalUnit::MonthDayNano) => {
                Values::Interval(IntervalMonthDayNanoBuilder::new())
            }
            DataType::List(item) => Values::List(Box::new(ListBuilder {
                items: ColumnBuilder::new(item)?,
                item_count: 0,
                offsets: vec![0],
                validity: BooleanBufferBuilder::new(0),
                row: Row::new(1),
            })),
            other => return Err(Error::unsupported(format!("a source column of type {other}"))),
        };
        Ok(ColumnBuilder { field: Arc::clone(field), values })
    }

    /// The column's field.
    pub fn field(&self) -> &Field {
        &self.field
    }

    /// Appends a cell. After an error, [`ColumnBuilder::append_filler`] must be called in its place.
    pub fn append(&mut self, cell: Cell<'_>, encoding: Encoding) -> FieldResult<()> {
        if matches!(cell, Cell::Missing | Cell::Null) {
            if !self.field.is_nullable() {
                return Err(FieldError {
                    sqlstate: SqlState::NOT_NULL_VIOLATION,
                    message: match cell {
                        Cell::Missing => {
                            "the record has no such field, and the column is NOT NULL".to_string()
                        }
                        _ => "the field is null, and the column is NOT NULL".to_string(),
                    },
                });
            }
            self.append_filler();
            return Ok(());
        }
        if let Cell::Typed(value) = cell {
            return self.append_typed(value, encoding);
        }
        match &mut self.values {
            Values::Boolean(b) => b.append_value(values::boolean(cell)?),
            Values::Int16(b) => b.append_value(values::integer(cell, "smallint")?),
            Values::Int32(b) => b.append_value(values::integer(cell, "integer")?),
            Values::Int64(b) => b.append_value(values::integer(cell, "bigint")?),
            Values::Float32(b) => b.append_value(values::real(cell)?),
            Values::Float64(b) => b.append_value(values::float(cell, "double precision")?),
            Values::Decimal(b, p, s) => b.append_value(values::decimal(cell, encoding, *p, *s)?),
            Values::Text(b) => match cell {
                Cell::Nested(text) | Cell::Document(text) => b.append_value(text),
                _ => b.append_value(values::scalar(cell, "text")?),
            },
            Values::Uuid(b) => {
                let text = values::scalar(cell, "uuid")?;
                let id = uuid::Uuid::try_parse(text).map_err(|_| FieldError::syntax("uuid", text))?;
                b.append_value(id.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()));
            }
            Values::Json(b) => b.append_value(values::json(cell, encoding)?),
            Values::Jsonb(b) => b.append_value(values::json_normalised(cell, encoding)?),
            Values::Bytea(b) => b.append_value(values::bytes(cell, encoding)?),
            Values::Date(b) => b.append_value(values::date(cell, encoding)?),
            Values::Time(b) => b.append_value(values::time(cell, encoding)?),
            Values::Timestamp(b, zoned) => b.append_value(values::timestamp(cell, encoding, *zoned)?),
            Values::Interval(b) => b.append_value(values::interval(cell, encoding)?),
            Values::List(list) => list.append(cell, encoding)?,
        }
        Ok(())
    }

    /// Appends a value that has a type: as it is into a column of this type, through its text into others.
    fn append_typed(&mut self, value: Typed<'_>, encoding: Encoding) -> FieldResult<()> {
        match (&mut self.values, value) {
            (Values::Int64(b), Typed::Integer(n)) => b.append_value(n),
            (Values::Int32(b), Typed::Integer(n)) => b.append_value(typed::narrowed(n, "integer")?),
            (Values::Int16(b), Typed::Integer(n)) => b.append_value(typed::narrowed(n, "smallint")?),
            (Values::Float64(b), Typed::Float(x)) => b.append_value(x),
            (Values::Float64(b), Typed::Integer(n)) => b.append_value(n as f64),
            (Values::Float32(b), Typed::Float(x)) => b.append_value(typed::real(x)?),
            (Values::Decimal(b, p, s), Typed::Decimal(unscaled, from)) => {
                b.append_value(typed::decimal(unscaled, from, *p, *s)?);
            }
            (Values::Decimal(b, p, s), Typed::Integer(n)) => {
                b.append_value(typed::decimal(i128::from(n), 0, *p, *s)?);
            }
            (Values::Bytea(b), Typed::Bytes(bytes)) => b.append_value(bytes),
            (Values::Date(b), Typed::Date(days)) => b.append_value(values::days(days)?),
            (Values::Time(b), Typed::Time(micros)) => b.append_value(micros),
            (Values::Timestamp(b, _), Typed::Timestamp(micros, _)) => b.append_value(values::instant(micros)),
            (Values::Interval(b), Typed::Interval(value)) => b.append_value(value),
            (Values::Uuid(b), Typed::Bytes(bytes)) if let Ok(id) = uuid::Uuid::from_slice(bytes) => {
                b.append_value(id.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()));
            }
            (Values::Text(b), Typed::Bytes(bytes)) => b.append_value(values::text_of(bytes)?),
            _ => {
                let mut text = String::new();
                let is_number = typed::write_text(value, &mut text);
                let cell = if is_number { Cell::Number(&text) } else { Cell::Text(&text) };
                return self.append(cell, encoding);
            }
        }
        Ok(())
    }

    /// Appends bytes of no format, such as a record's key: as they are into `bytea`; as text else.
    pub fn append_bytes(&mut self, bytes: Option<&[u8]>) -> FieldResult<()> {
        let Some(bytes) = bytes else { return self.append(Cell::Null, Encoding::Plain) };
        if let Values::Bytea(b) = &mut self.values {
            b.append_value(bytes);
            return Ok(());
        }
        let text = values::text_of(bytes)?;
        match &self.values {
            Values::Json(_) | Values::Jsonb(_) => self.append(Cell::Text(text), Encoding::JsonText),
            _ => self.append(Cell::Text(text), Encoding::Plain),
        }
    }

    /// Appends a whole number: metadata such as an offset, or µs since 1970 into a timestamp.
    pub fn append_integer(&mut self, value: i64) -> FieldResult<()> {
        match &mut self.values {
            Values::Int64(b) => b.append_value(value),
            Values::Timestamp(b, _) => b.append_value(value),
            _ => {
                let text = value.to_string();
                return self.append(Cell::Number(&text), Encoding::Plain);
            }
        }
        Ok(())
    }

    /// Appends NULL, or where the column has none, any value: for rows that only their key is read of, and
    /// for rows that are taken out again.
    pub fn append_filler(&mut self) {
        let null = self.field.is_nullable();
        match &mut self.values {
            Values::Boolean(b) => b.append_option((!null).then_some(false)),
            Values::Int16(b) => b.append_option((!null).then_some(0)),
            Values::Int32(b) => b.append_option((!null).then_some(0)),
            Values::Int64(b) => b.append_option((!null).then_some(0)),
            Values::Float32(b) => b.append_option((!null).then_some(0.0)),
            Values::Float64(b) => b.append_option((!null).then_some(0.0)),
            Values::Decimal(b, _, _) => b.append_option((!null).then_some(0)),
            Values::Text(b) | Values::Uuid(b) => b.append_option((!null).then_some("")),
            Values::Json(b) | Values::Jsonb(b) => b.append_option((!null).then_some("null")),
            Values::Bytea(b) => b.append_option((!null).then_some(&[] as &[u8])),
            Values::Date(b) => b.append_option((!null).then_some(0)),
            Values::Time(b) => b.append_option((!null).then_some(0)),
            Values::Timestamp(b, _) => b.append_option((!null).then_some(0)),
            Values::Interval(b) => b.append_option((!null).then_some(IntervalMonthDayNano::ZERO)),
            Values::List(list) => list.close(!null),
        }
    }

    /// The column so far; the builder starts anew.
    pub fn finish(&mut self) -> Result<ArrayRef> {
        Ok(match &mut self.values {
            Values::Boolean(b) => Arc::new(b.finish()),
            Values::Int16(b) => Arc::new(b.finish()),
            Values::Int32(b) => Arc::new(b.finish()),
            Values::Int64(b) => Arc::new(b.finish()),
            Values::Float32(b) => Arc::new(b.finish()),
            Values::Float64(b) => Arc::new(b.finish()),
            Values::Decimal(b, _, _) => Arc::new(b.finish()),
            Values::Text(b) | Values::Uuid(b) | Values::Json(b) | Values::Jsonb(b) => Arc::new(b.finish()),
            Values::Bytea(b) => Arc::new(b.finish()),
            Values::Date(b) => Arc::new(b.finish()),
            Values::Time(b) => Arc::new(b.finish()),
            Values::Timestamp(b, _) => Arc::new(b.finish()),
            Values::Interval(b) => Arc::new(b.finish()),
            Values::List(list) => list.finish()?,
        })
    }
}

impl ListBuilder {
    fn append(&mut self, cell: Cell<'_>, encoding: Encoding) -> FieldResult<()> {
        let Cell::Nested(text) = cell else { return Err(FieldError::kind("array", cell)) };
        let ListBuilder { items, item_count, row, .. } = self;
        let mut failure = None;
        let scanned = Scanner::new(text).array(|s| {
            row.clear();
            let slot = s.slot(row)?;
            row.set(0, slot);
            if failure.is_none() {
                *item_count += 1;
                if let Err(e) = items.append(row.cell(0, text), encoding) {
                    items.append_filler();
                    failure = Some(e);
                }
            }
            Ok(())
        });
        if let Err(malformed) = scanned {
            failure = Some(FieldError {
                sqlstate: SqlState::INVALID_TEXT_REPRESENTATION,
                message: malformed.what.to_string(),
            });
        }
        match failure {
            Some(failure) => Err(failure),
            None => {
                self.close(true);
                Ok(())
            }
        }
    }

    /// Ends a row: its elements are those appended since the last one.
    fn close(&mut self, valid: bool) {
        self.offsets.push(self.item_count);
        self.validity.append(valid);
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        let offsets = std::mem::replace(&mut self.offsets, vec![0]);
        let nulls = NullBuffer::new(self.validity.finish());
        self.item_count = 0;
        let item = Arc::clone(&self.items.field);
        let items = self.items.finish()?;
        Ok(Arc::new(ListArray::try_new(item, OffsetBuffer::new(offsets.into()), items, Some(nulls))?))
    }
}
