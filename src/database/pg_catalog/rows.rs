//! Rows of a system relation, given column by column name; what is not given has the column's resting value.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::scalar::ScalarValue;

use crate::error::{Error, Result};

/// A value of a system relation, before it is known how wide its column's integers are.
#[derive(Clone, Debug)]
pub enum Value {
    /// NULL.
    Null,
    /// A truth value.
    Bool(bool),
    /// An integer or oid.
    Int(i64),
    /// Text, a name or a `"char"`.
    Text(String),
    /// An array.
    List(Vec<Value>),
}

impl From<bool> for Value {
    fn from(v: bool) -> Self {
        Value::Bool(v)
    }
}

impl From<i16> for Value {
    fn from(v: i16) -> Self {
        Value::Int(v.into())
    }
}

impl From<i32> for Value {
    fn from(v: i32) -> Self {
        Value::Int(v.into())
    }
}

impl From<u32> for Value {
    fn from(v: u32) -> Self {
        Value::Int(v.into())
    }
}

impl From<&str> for Value {
    fn from(v: &str) -> Self {
        Value::Text(v.to_string())
    }
}

impl From<String> for Value {
    fn from(v: String) -> Self {
        Value::Text(v)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(v: Option<T>) -> Self {
        v.map_or(Value::Null, Into::into)
    }
}

impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(v: Vec<T>) -> Self {
        Value::List(v.into_iter().map(Into::into).collect())
    }
}

/// Collects a relation's rows.
pub struct Rows {
    schema: SchemaRef,
    positions: HashMap<String, usize>,
    resting: Vec<ScalarValue>,
    columns: Vec<Vec<ScalarValue>>,
    n_rows: usize,
}

impl Rows {
    /// No rows yet. With `zeros`, a number, oid or truth value that is not given is zero or false, as the system
    /// catalogs have it; otherwise NULL, as the information schema has it.
    pub fn new(schema: SchemaRef, zeros: bool) -> Result<Rows> {
        let positions = schema.fields().iter().enumerate().map(|(i, f)| (f.name().clone(), i)).collect();
        let resting = schema
            .fields()
            .iter()
            .map(|f| match f.data_type() {
                DataType::Boolean if zeros => Ok(ScalarValue::Boolean(Some(false))),
                number if zeros && number.is_numeric() => ScalarValue::new_zero(number),
                other => ScalarValue::try_from(other),
            })
            .collect::<Result<_, _>>()?;
        let columns = vec![Vec::new(); schema.fields().len()];
        Ok(Rows { schema, positions, resting, columns, n_rows: 0 })
    }

    /// Adds a row.
    pub fn push<const N: usize>(&mut self, values: [(&str, Value); N]) -> Result<()> {
        for (column, resting) in self.columns.iter_mut().zip(&self.resting) {
            column.push(resting.clone());
        }
        for (name, value) in values {
            let i = *self
                .positions
                .get(name)
                .ok_or_else(|| Error::internal(format!("a system relation has no column \"{name}\"")))?;
            self.columns[i][self.n_rows] = scalar(value, self.schema.field(i).data_type())?;
        }
        self.n_rows += 1;
        Ok(())
    }

    /// All rows as one batch.
    pub fn finish(self) -> Result<RecordBatch> {
        let columns = self
            .columns
            .into_iter()
            .zip(self.schema.fields())
            .map(|(values, field)| {
                if values.is_empty() {
                    Ok(arrow::array::new_empty_array(field.data_type()))
                } else {
                    ScalarValue::iter_to_array(values)
                }
            })
            .collect::<Result<_, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(self.n_rows));
        Ok(RecordBatch::try_new_with_options(self.schema, columns, &options)?)
    }
}

fn scalar(value: Value, data_type: &DataType) -> Result<ScalarValue> {
    Ok(match (value, data_type) {
        (Value::Null, other) => ScalarValue::try_from(other)?,
        (Value::Bool(v), DataType::Boolean) => ScalarValue::Boolean(Some(v)),
        (Value::Int(v), DataType::Int16) => ScalarValue::Int16(Some(v as i16)),
        (Value::Int(v), DataType::Int32) => ScalarValue::Int32(Some(v as i32)),
        (Value::Int(v), DataType::Int64) => ScalarValue::Int64(Some(v)),
        (Value::Int(v), DataType::UInt32) => ScalarValue::UInt32(Some(v as u32)),
        (Value::Int(v), DataType::Float32) => ScalarValue::Float32(Some(v as f32)),
        (Value::Text(v), DataType::Utf8View) => ScalarValue::Utf8View(Some(v)),
        (Value::List(values), DataType::List(item)) => {
            let values =
                values.into_iter().map(|v| scalar(v, item.data_type())).collect::<Result<Vec<_>>>()?;
            let items = if values.is_empty() {
                arrow::array::new_empty_array(item.data_type())
            } else {
                ScalarValue::iter_to_array(values)?
            };
            let offsets = arrow::buffer::OffsetBuffer::from_lengths([items.len()]);
            let list = arrow::array::ListArray::try_new(Arc::clone(item), offsets, items, None)?;
            ScalarValue::List(Arc::new(list))
        }
        (value, other) => {
            return Err(Error::internal(format!("{value:?} in a system column of type {other}")));
        }
    })
}
