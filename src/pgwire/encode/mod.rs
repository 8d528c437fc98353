//! Result rows: columns to wire types, batches to DataRow messages.
//!
//! A batch's columns are made ready once; then a row costs no allocation.

pub mod binary;
pub mod numeric;
#[cfg(test)]
mod tests;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use bytes::BufMut;
use pgwire::messages::data::FieldDescription;

use crate::error::{Error, Result, SqlState};
use crate::types::{SqlType, TextFormat, write_text_with};
use binary::{BinaryColumn, put_length};

/// How a value is written on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As in SQL literals.
    Text,
    /// As in PostgreSQL's memory, in network byte order.
    Binary,
}

/// The format of column `i` by a message's list of codes: none (all text), one for all, or one each.
pub fn format_of(codes: &[i16], i: usize) -> Format {
    let code = if codes.len() == 1 { codes.first() } else { codes.get(i) };
    if code == Some(&1) { Format::Binary } else { Format::Text }
}

/// How a result's columns go out.
#[derive(Clone, Debug)]
pub struct RowEncoder {
    columns: Vec<OutputColumn>,
    text: TextFormat,
}

#[derive(Clone, Debug)]
struct OutputColumn {
    field: FieldRef,
    sql_type: SqlType,
    format: Format,
}

impl RowEncoder {
    /// An encoder of rows of `schema`. `formats` is a Bind message's list.
    pub fn new(schema: &SchemaRef, formats: &[i16], text: TextFormat) -> Result<RowEncoder> {
        if formats.len() > 1 && formats.len() != schema.fields().len() {
            return Err(Error::new(
                SqlState::PROTOCOL_VIOLATION,
                format!(
                    "bind message has {} result formats but query has {} columns",
                    formats.len(),
                    schema.fields().len()
                ),
            ));
        }
        let columns = schema
            .fields()
            .iter()
            .enumerate()
            .map(|(i, field)| OutputColumn {
                field: field.clone(),
                sql_type: SqlType::of(field),
                format: format_of(formats, i),
            })
            .collect();
        Ok(RowEncoder { columns, text })
    }

    /// How many columns a row has.
    pub fn width(&self) -> usize {
        self.columns.len()
    }

    /// The columns' names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|c| c.field.name().as_str())
    }

    /// The columns as RowDescription tells them.
    pub fn description(&self) -> Vec<FieldDescription> {
        self.columns
            .iter()
            .map(|c| {
                // PostgreSQL shows a column that nothing gave a type as text; clients know no other answer.
                let sql_type = if c.sql_type == SqlType::Unknown { &SqlType::Text } else { &c.sql_type };
                let format = if c.format == Format::Binary { 1 } else { 0 };
                FieldDescription::new(
                    c.field.name().replace('\0', ""),
                    0,
                    0,
                    sql_type.oid(),
                    sql_type.size(),
                    sql_type.modifier(),
                    format,
                )
            })
            .collect()
    }

    /// Makes a batch's rows ready to be written.
    pub fn batch(&self, batch: &RecordBatch) -> Result<EncodableBatch> {
        if batch.num_columns() != self.columns.len() {
            return Err(Error::internal(format!(
                "a batch of {} columns in a result of {}",
                batch.num_columns(),
                self.columns.len()
            )));
        }
        let columns = self
            .columns
            .iter()
            .zip(batch.columns())
            .map(|(column, array)| {
                Ok(match column.format {
                    Format::Text => Cells::Text(array.clone(), column.field.clone()),
                    Format::Binary => Cells::Binary(BinaryColumn::new(
                        &canonical(array, &column.sql_type)?,
                        &column.sql_type,
                    )?),
                })
            })
            .collect::<Result<_>>()?;
        Ok(EncodableBatch { columns, n_rows: batch.num_rows(), text: self.text, scratch: String::new() })
    }
}

/// The array, laid out as its SQL type is.
fn canonical(array: &ArrayRef, sql_type: &SqlType) -> Result<ArrayRef> {
    let wanted = match array.data_type() {
        // Every width of decimal is understood as it is.
        DataType::Decimal128(..) | DataType::Decimal256(..) => return Ok(array.clone()),
        _ => sql_type.arrow(),
    };
    if *array.data_type() == wanted { Ok(array.clone()) } else { Ok(arrow::compute::cast(array, &wanted)?) }
}

enum Cells {
    Text(ArrayRef, FieldRef),
    Binary(BinaryColumn),
}

/// A batch whose rows can be written.
pub struct EncodableBatch {
    columns: Vec<Cells>,
    n_rows: usize,
    text: TextFormat,
    scratch: String,
}

impl EncodableBatch {
    /// How many rows it has.
    pub fn num_rows(&self) -> usize {
        self.n_rows
    }

    /// Appends one value as text (COPY's way). `false`: it is NULL, nothing was appended.
    pub fn write_text(&self, row: usize, column: usize, out: &mut Vec<u8>) -> Result<bool> {
        match self.columns.get(column) {
            Some(Cells::Text(array, field)) if array.is_valid(row) => {
                write_text_with(self.text, field, array, row, out)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// How many columns it has.
    pub fn width(&self) -> usize {
        self.columns.len()
    }

    /// Appends row `row` as a DataRow message. After an error `out` is as it was before.
    pub fn write_data_row(&mut self, row: usize, out: &mut Vec<u8>) -> Result<()> {
        let start = out.len();
        let written = self.try_write_data_row(row, out);
        if written.is_err() {
            out.truncate(start);
        }
        written
    }

    fn try_write_data_row(&mut self, row: usize, out: &mut Vec<u8>) -> Result<()> {
        out.put_u8(b'D');
        let start = out.len();
        out.put_i32(0);
        // RowDescription has refused more columns than 16 bits count.
        out.put_i16(self.columns.len() as i16);
        for column in &self.columns {
            let at = out.len();
            match column {
                Cells::Text(array, _) if array.is_null(row) => out.put_i32(-1),
                Cells::Text(array, field) => {
                    out.put_i32(0);
                    write_text_with(self.text, field, array, row, out)?;
                    put_length(out, at)?;
                }
                Cells::Binary(column) if column.is_null(row) => out.put_i32(-1),
                Cells::Binary(column) => {
                    out.put_i32(0);
                    column.write(row, out, &mut self.scratch)?;
                    put_length(out, at)?;
                }
            }
        }
        let length = i32::try_from(out.len() - start)
            .map_err(|_| Error::new(SqlState("54000"), "a row is too long for the protocol"))?;
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }
}
