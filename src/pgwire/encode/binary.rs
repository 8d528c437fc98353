//! Values of result columns in PostgreSQL's binary format.

use std::fmt::Write;

use arrow::array::types::{
    Date32Type, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    IntervalMonthDayNanoType, Time64MicrosecondType, TimestampMicrosecondType, UInt32Type,
};
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, ListArray, PrimitiveArray, StringViewArray,
};
use arrow::datatypes::DataType;
use bytes::BufMut;

use crate::error::{Error, Result, SqlState};
use crate::pgwire::encode::numeric;
use crate::types::{SqlType, shortest};

/// Days from 1970-01-01 to 2000-01-01, PostgreSQL's epoch.
pub const EPOCH_DAYS: i32 = 10_957;
/// Microseconds from 1970-01-01 to 2000-01-01.
pub const EPOCH_MICROS: i64 = EPOCH_DAYS as i64 * 86_400_000_000;

/// One column of a batch, its type and format decided once.
pub enum BinaryColumn {
    /// `bool`
    Bool(BooleanArray),
    /// `int2`
    Int2(PrimitiveArray<Int16Type>),
    /// `int4`
    Int4(PrimitiveArray<Int32Type>),
    /// `int8`
    Int8(PrimitiveArray<Int64Type>),
    /// `float4`
    Float4(PrimitiveArray<Float32Type>),
    /// `float8`
    Float8(PrimitiveArray<Float64Type>),
    /// `numeric` of up to 38 digits, and its scale
    Numeric(PrimitiveArray<Decimal128Type>, i8),
    /// `numeric` of up to 76 digits, and its scale
    WideNumeric(PrimitiveArray<Decimal256Type>, i8),
    /// `text` and whatever is sent as its characters
    Text(StringViewArray),
    /// `jsonb`: a version, then text
    Jsonb(StringViewArray),
    /// `uuid`
    Uuid(StringViewArray),
    /// `bytea`
    Bytea(BinaryArray),
    /// `date`
    Date(PrimitiveArray<Date32Type>),
    /// `time`
    Time(PrimitiveArray<Time64MicrosecondType>),
    /// `timestamp` and `timestamptz`
    Timestamp(PrimitiveArray<TimestampMicrosecondType>),
    /// `interval`
    Interval(PrimitiveArray<IntervalMonthDayNanoType>),
    /// `oid` and `regclass`
    Oid(PrimitiveArray<UInt32Type>),
    /// An array; elements are encoded by the column of all lists' values.
    List {
        /// Where each list begins and ends.
        lists: ListArray,
        /// All elements.
        elements: Box<BinaryColumn>,
        /// Type of the innermost elements.
        element_oid: u32,
    },
    /// All NULL.
    Null,
}

impl BinaryColumn {
    /// A column whose array is laid out as `sql_type.arrow()` says (decimals may be of any width).
    pub fn new(array: &ArrayRef, sql_type: &SqlType) -> Result<BinaryColumn> {
        Ok(match sql_type {
            SqlType::Bool => BinaryColumn::Bool(array.as_boolean().clone()),
            SqlType::Int2 => BinaryColumn::Int2(array.as_primitive().clone()),
            SqlType::Int4 => BinaryColumn::Int4(array.as_primitive().clone()),
            SqlType::Int8 => BinaryColumn::Int8(array.as_primitive().clone()),
            SqlType::Float4 => BinaryColumn::Float4(array.as_primitive().clone()),
            SqlType::Float8 => BinaryColumn::Float8(array.as_primitive().clone()),
            SqlType::Numeric(_) => match array.data_type() {
                DataType::Decimal256(_, scale) => {
                    BinaryColumn::WideNumeric(array.as_primitive().clone(), *scale)
                }
                DataType::Decimal128(_, scale) => BinaryColumn::Numeric(array.as_primitive().clone(), *scale),
                other => return Err(Error::internal(format!("numeric column is a {other}"))),
            },
            SqlType::Text
            | SqlType::Varchar(_)
            | SqlType::Char(_)
            | SqlType::Name
            | SqlType::InternalChar
            | SqlType::Json => BinaryColumn::Text(array.as_string_view().clone()),
            SqlType::Jsonb => BinaryColumn::Jsonb(array.as_string_view().clone()),
            SqlType::Uuid => BinaryColumn::Uuid(array.as_string_view().clone()),
            SqlType::Bytea => BinaryColumn::Bytea(array.as_binary::<i32>().clone()),
            SqlType::Date => BinaryColumn::Date(array.as_primitive().clone()),
            SqlType::Time => BinaryColumn::Time(array.as_primitive().clone()),
            SqlType::Timestamp | SqlType::Timestamptz => {
                BinaryColumn::Timestamp(array.as_primitive().clone())
            }
            SqlType::Interval => BinaryColumn::Interval(array.as_primitive().clone()),
            SqlType::Oid | SqlType::Regclass => BinaryColumn::Oid(array.as_primitive().clone()),
            SqlType::Array(element) => {
                let lists = array.as_list::<i32>().clone();
                let elements = Box::new(BinaryColumn::new(lists.values(), element)?);
                BinaryColumn::List { lists, elements, element_oid: innermost(element).oid() }
            }
            SqlType::Unknown => BinaryColumn::Null,
            SqlType::Regtype | SqlType::Regproc | SqlType::Record => {
                return Err(Error::unsupported(format!("binary output of type {sql_type}")));
            }
        })
    }

    /// Whether the value is NULL.
    pub fn is_null(&self, row: usize) -> bool {
        match self {
            BinaryColumn::Bool(a) => a.is_null(row),
            BinaryColumn::Int2(a) => a.is_null(row),
            BinaryColumn::Int4(a) => a.is_null(row),
            BinaryColumn::Int8(a) => a.is_null(row),
            BinaryColumn::Float4(a) => a.is_null(row),
            BinaryColumn::Float8(a) => a.is_null(row),
            BinaryColumn::Numeric(a, _) => a.is_null(row),
            BinaryColumn::WideNumeric(a, _) => a.is_null(row),
            BinaryColumn::Text(a) | BinaryColumn::Jsonb(a) | BinaryColumn::Uuid(a) => a.is_null(row),
            BinaryColumn::Bytea(a) => a.is_null(row),
            BinaryColumn::Date(a) => a.is_null(row),
            BinaryColumn::Time(a) => a.is_null(row),
            BinaryColumn::Timestamp(a) => a.is_null(row),
            BinaryColumn::Interval(a) => a.is_null(row),
            BinaryColumn::Oid(a) => a.is_null(row),
            BinaryColumn::List { lists, .. } => lists.is_null(row),
            BinaryColumn::Null => true,
        }
    }

    /// Appends a value that is not NULL, without its length.
    pub fn write(&self, row: usize, out: &mut Vec<u8>, scratch: &mut String) -> Result<()> {
        match self {
            BinaryColumn::Bool(a) => out.put_u8(u8::from(a.value(row))),
            BinaryColumn::Int2(a) => out.put_i16(a.value(row)),
            BinaryColumn::Int4(a) => out.put_i32(a.value(row)),
            BinaryColumn::Int8(a) => out.put_i64(a.value(row)),
            BinaryColumn::Float4(a) => out.put_f32(a.value(row)),
            BinaryColumn::Float8(a) => out.put_f64(a.value(row)),
            BinaryColumn::Numeric(a, scale) => {
                let (value, scale) = shortest(a.value(row), a.precision(), *scale);
                scratch.clear();
                // Writing to a String cannot fail.
                let _ = write!(scratch, "{value}");
                numeric::write(scratch, scale, out);
            }
            BinaryColumn::WideNumeric(a, scale) => {
                scratch.clear();
                let _ = write!(scratch, "{}", a.value(row));
                numeric::write(scratch, *scale, out);
            }
            BinaryColumn::Text(a) => out.put_slice(a.value(row).as_bytes()),
            BinaryColumn::Jsonb(a) => {
                out.put_u8(1);
                out.put_slice(a.value(row).as_bytes());
            }
            BinaryColumn::Uuid(a) => {
                let text = a.value(row);
                let uuid = uuid::Uuid::try_parse(text)
                    .map_err(|_| Error::internal(format!("a uuid column holds \"{text}\"")))?;
                out.put_slice(uuid.as_bytes());
            }
            BinaryColumn::Bytea(a) => out.put_slice(a.value(row)),
            BinaryColumn::Date(a) => out.put_i32(since_epoch(a.value(row).checked_sub(EPOCH_DAYS), "date")?),
            BinaryColumn::Time(a) => out.put_i64(a.value(row)),
            BinaryColumn::Timestamp(a) => {
                out.put_i64(since_epoch(a.value(row).checked_sub(EPOCH_MICROS), "timestamp")?);
            }
            BinaryColumn::Interval(a) => {
                let (months, days, nanos) = IntervalMonthDayNanoType::to_parts(a.value(row));
                out.put_i64(nanos / 1000);
                out.put_i32(days);
                out.put_i32(months);
            }
            BinaryColumn::Oid(a) => out.put_u32(a.value(row)),
            BinaryColumn::List { element_oid, .. } => self.write_array(row, *element_oid, out, scratch)?,
            BinaryColumn::Null => {}
        }
        Ok(())
    }

    /// Appends dimensions, whether there are NULLs, the element type, then the innermost elements in row-major order.
    fn write_array(
        &self,
        row: usize,
        element_oid: u32,
        out: &mut Vec<u8>,
        scratch: &mut String,
    ) -> Result<()> {
        let depth = self.depth();
        let mut dimensions = [0i32; DIMENSIONS_MAX];
        if depth > DIMENSIONS_MAX {
            return Err(Error::new(
                SqlState("54000"),
                format!("an array can have at most {DIMENSIONS_MAX} dimensions, not {depth}"),
            ));
        }
        // The first list of each level tells the dimension; that the others agree is checked when they are written.
        let (mut level, mut at) = (self, row);
        for dimension in &mut dimensions[..depth] {
            let BinaryColumn::List { lists, elements, .. } = level else { break };
            if lists.is_null(at) {
                return Err(ragged());
            }
            *dimension = lists.value_length(at);
            if *dimension == 0 {
                break;
            }
            at = lists.value_offsets()[at] as usize;
            level = elements;
        }
        // As in PostgreSQL, an array without elements has no dimensions.
        let dimensions = if dimensions[..depth].contains(&0) { &[] } else { &dimensions[..depth] };
        let start = out.len();
        out.put_i32(dimensions.len() as i32);
        out.put_i32(0);
        out.put_u32(element_oid);
        for dimension in dimensions {
            out.put_i32(*dimension);
            out.put_i32(1); // lower bound
        }
        let has_null = match dimensions {
            [] => false,
            dimensions => self.write_elements(row, dimensions, out, scratch)?,
        };
        out[start + 4..start + 8].copy_from_slice(&i32::from(has_null).to_be_bytes());
        Ok(())
    }

    /// Appends the innermost elements of one list, each with its length; answers whether one was NULL.
    fn write_elements(
        &self,
        row: usize,
        dimensions: &[i32],
        out: &mut Vec<u8>,
        scratch: &mut String,
    ) -> Result<bool> {
        let (BinaryColumn::List { lists, elements, .. }, [length, inner @ ..]) = (self, dimensions) else {
            return Err(ragged());
        };
        if lists.is_null(row) || lists.value_length(row) != *length {
            return Err(ragged());
        }
        let begin = lists.value_offsets()[row] as usize;
        let mut has_null = false;
        for i in begin..begin + *length as usize {
            if !inner.is_empty() {
                has_null |= elements.write_elements(i, inner, out, scratch)?;
            } else if elements.is_null(i) {
                has_null = true;
                out.put_i32(-1);
            } else {
                let at = out.len();
                out.put_i32(0);
                elements.write(i, out, scratch)?;
                put_length(out, at)?;
            }
        }
        Ok(has_null)
    }

    fn depth(&self) -> usize {
        match self {
            BinaryColumn::List { elements, .. } => 1 + elements.depth(),
            _ => 0,
        }
    }
}

/// The most dimensions of an array, as in PostgreSQL.
const DIMENSIONS_MAX: usize = 6;

fn ragged() -> Error {
    Error::new(SqlState("2202E"), "multidimensional arrays must have sub-arrays with matching dimensions")
}

/// Writes at `at` how many bytes follow its four.
pub fn put_length(out: &mut [u8], at: usize) -> Result<()> {
    let length = i32::try_from(out.len() - at - 4)
        .map_err(|_| Error::new(SqlState("54000"), "a value is too long for the protocol"))?;
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

fn innermost(sql_type: &SqlType) -> &SqlType {
    match sql_type {
        SqlType::Array(element) => innermost(element),
        other => other,
    }
}

fn since_epoch<T>(value: Option<T>, what: &str) -> Result<T> {
    value.ok_or_else(|| Error::new(SqlState("22008"), format!("{what} out of range")))
}
