//! Rows of system relations: few, small, written down value by value.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Int64Array, IntervalMonthDayNanoArray, ListArray, ListBuilder,
    RecordBatch, RecordBatchOptions, StringViewArray, StringViewBuilder, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, IntervalMonthDayNano, Schema, SchemaRef};

use crate::error::Result;
use crate::types::SqlType;

/// A column: its name and its type.
pub(crate) struct Column(pub &'static str, pub Kind);

/// The types that system relations have.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Text,
    /// `jsonb`, its values as texts.
    Json,
    /// `text[]`.
    Texts,
    Int,
    Bool,
    Bytes,
    Timestamp,
    Interval,
}

/// A value.
#[derive(Clone, Debug)]
pub(crate) enum Cell {
    Null,
    Text(String),
    Texts(Vec<String>),
    Int(i64),
    Bool(bool),
    Bytes(Vec<u8>),
    /// µs since 1970.
    Timestamp(i64),
    /// µs.
    Interval(i64),
}

impl Cell {
    pub fn text(value: impl Into<String>) -> Cell {
        Cell::Text(value.into())
    }

    pub fn int(value: impl TryInto<i64>) -> Cell {
        Cell::Int(value.try_into().unwrap_or(i64::MAX))
    }

    /// The value, or NULL.
    pub fn or_null<T>(value: Option<T>, cell: impl FnOnce(T) -> Cell) -> Cell {
        value.map_or(Cell::Null, cell)
    }
}

/// Columns as an Arrow schema.
pub(crate) fn schema(columns: &[Column]) -> SchemaRef {
    let fields = columns.iter().map(|Column(name, kind)| {
        let sql_type = match kind {
            Kind::Text => SqlType::Text,
            Kind::Json => SqlType::Jsonb,
            Kind::Texts => SqlType::Array(Box::new(SqlType::Text)),
            Kind::Int => SqlType::Int8,
            Kind::Bool => SqlType::Bool,
            Kind::Bytes => SqlType::Bytea,
            Kind::Timestamp => SqlType::Timestamptz,
            Kind::Interval => SqlType::Interval,
        };
        sql_type.field_ref(*name, true)
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Rows as a batch. A cell of another kind than its column is NULL.
pub(crate) fn batch(columns: &[Column], schema: &SchemaRef, rows: Vec<Vec<Cell>>) -> Result<RecordBatch> {
    let arrays = columns.iter().enumerate().map(|(i, Column(_, kind))| {
        let cells = || rows.iter().map(move |row| row.get(i));
        let ints =
            |pick: fn(&Cell) -> Option<i64>| cells().map(move |c| c.and_then(pick)).collect::<Vec<_>>();
        let array: ArrayRef = match kind {
            Kind::Text | Kind::Json => Arc::new(StringViewArray::from_iter(cells().map(|c| match c {
                Some(Cell::Text(t)) => Some(t.as_str()),
                _ => None,
            }))),
            Kind::Texts => Arc::new(texts(cells(), schema.field(i))),
            Kind::Bytes => Arc::new(BinaryArray::from_iter(cells().map(|c| match c {
                Some(Cell::Bytes(b)) => Some(b.as_slice()),
                _ => None,
            }))),
            Kind::Bool => Arc::new(BooleanArray::from_iter(cells().map(|c| match c {
                Some(Cell::Bool(b)) => Some(*b),
                _ => None,
            }))),
            Kind::Int => Arc::new(Int64Array::from(ints(|c| match c {
                Cell::Int(n) => Some(*n),
                _ => None,
            }))),
            Kind::Timestamp => Arc::new(
                TimestampMicrosecondArray::from(ints(|c| match c {
                    Cell::Timestamp(t) => Some(*t),
                    _ => None,
                }))
                .with_timezone("+00:00"),
            ),
            Kind::Interval => Arc::new(IntervalMonthDayNanoArray::from_iter(cells().map(|c| match c {
                Some(Cell::Interval(us)) => Some(IntervalMonthDayNano::new(0, 0, us.saturating_mul(1000))),
                _ => None,
            }))),
        };
        array
    });
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), arrays.collect(), &options)?)
}

/// A column of lists of texts, with the element that its field names.
fn texts<'a>(cells: impl Iterator<Item = Option<&'a Cell>>, field: &Field) -> ListArray {
    let mut builder = ListBuilder::new(StringViewBuilder::new());
    if let DataType::List(element) = field.data_type() {
        builder = builder.with_field(Arc::clone(element));
    }
    for cell in cells {
        match cell {
            Some(Cell::Texts(texts)) => builder.append_value(texts.iter().map(Some)),
            _ => builder.append_null(),
        }
    }
    builder.finish()
}
