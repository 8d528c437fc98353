//! Rows under construction: all columns of an output, filled row by row, in which a row that turns out to be bad
//! leaves no trace.

use arrow::array::{BooleanBuilder, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;

use super::cell::Cell;
use super::column::ColumnBuilder;
use super::values::{Encoding, FieldError};
use crate::error::Result;

/// A field that could not become a value of its column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadField {
    /// The column's name.
    pub column: String,
    /// What was wrong.
    pub error: FieldError,
}

/// Collects rows.
#[derive(Debug)]
pub struct RowsBuilder {
    schema: SchemaRef,
    columns: Vec<ColumnBuilder>,
    rows: usize,
    /// Rows that must not come out, in ascending order.
    spoiled: Vec<usize>,
}

impl RowsBuilder {
    /// No rows yet of these columns.
    ///
    /// # Errors
    /// 0A000 for a column's type that records cannot be decoded into.
    pub fn new(schema: SchemaRef) -> Result<Self> {
        let columns = schema.fields().iter().map(ColumnBuilder::new).collect::<Result<_>>()?;
        Ok(RowsBuilder { schema, columns, rows: 0, spoiled: Vec::new() })
    }

    /// How many rows will come out.
    pub fn len(&self) -> usize {
        self.rows - self.spoiled.len()
    }

    /// Whether no row will come out.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a row. `field` is asked for each column in order, and fills it; a column that it does not fill
    /// (`Ok(false)`) gets NULL, or any value where it is NOT NULL. The first column that fails makes the whole row bad.
    pub fn push(
        &mut self,
        mut field: impl FnMut(usize, &mut ColumnBuilder) -> std::result::Result<bool, FieldError>,
    ) -> std::result::Result<(), BadField> {
        let mut bad = None;
        for (i, column) in self.columns.iter_mut().enumerate() {
            if bad.is_some() {
                column.append_filler();
                continue;
            }
            match field(i, column) {
                Ok(true) => (),
                Ok(false) => column.append_filler(),
                Err(error) => {
                    column.append_filler();
                    bad = Some(BadField { column: column.field().name().clone(), error });
                }
            }
        }
        if bad.is_some() {
            self.spoiled.push(self.rows);
        }
        self.rows += 1;
        bad.map_or(Ok(()), Err)
    }

    /// Adds a row of cells.
    pub fn push_cells<'a>(
        &mut self,
        encodings: &[Encoding],
        cell: impl Fn(usize) -> Cell<'a>,
    ) -> std::result::Result<(), BadField> {
        self.push(|i, column| {
            column.append(cell(i), encodings.get(i).copied().unwrap_or_default()).map(|()| true)
        })
    }

    /// Takes the last good row out again: the record that it came from turned out to be bad.
    pub fn spoil_last(&mut self) {
        let mut row = self.rows;
        let mut place = self.spoiled.len();
        while place > 0 && self.spoiled[place - 1] + 1 == row {
            row -= 1;
            place -= 1;
        }
        if let Some(last_good) = row.checked_sub(1) {
            self.spoiled.insert(place, last_good);
        }
    }

    /// All rows so far; the builder starts anew.
    pub fn finish(&mut self) -> Result<RecordBatch> {
        let columns = self.columns.iter_mut().map(ColumnBuilder::finish).collect::<Result<_>>()?;
        let batch = RecordBatch::try_new(self.schema.clone(), columns)?;
        let rows = std::mem::take(&mut self.rows);
        let spoiled = std::mem::take(&mut self.spoiled);
        if spoiled.is_empty() {
            return Ok(batch);
        }
        let mut kept = BooleanBuilder::with_capacity(rows);
        let mut from = 0;
        for row in spoiled {
            kept.append_n(row - from, true);
            kept.append_value(false);
            from = row + 1;
        }
        kept.append_n(rows - from, true);
        Ok(filter_record_batch(&batch, &kept.finish())?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::AsArray;
    use arrow::datatypes::{DataType, Field, Int32Type, Schema};

    use super::*;

    fn builder() -> RowsBuilder {
        let item = Arc::new(Field::new("item", DataType::Int32, true));
        let inner = Arc::new(Field::new("item", DataType::List(item), true));
        RowsBuilder::new(Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int32, false),
            Field::new("lists", DataType::List(inner), true),
        ])))
        .unwrap()
    }

    fn push(rows: &mut RowsBuilder, id: &str, lists: &str) -> std::result::Result<(), BadField> {
        rows.push_cells(&[], |i| if i == 0 { Cell::Number(id) } else { Cell::Nested(lists) })
    }

    #[test]
    fn bad_rows_leave_no_trace() {
        let mut rows = builder();
        push(&mut rows, "1", "[[1,2],null,[]]").unwrap();
        let bad = push(&mut rows, "2", "[[3],[4,\"x\"],[5]]").unwrap_err();
        assert_eq!(bad.column, "lists");
        push(&mut rows, "nope", "[]").unwrap_err();
        push(&mut rows, "3", "[[6]]").unwrap();
        push(&mut rows, "4", "[[7]]").unwrap();
        push(&mut rows, "nope", "[]").unwrap_err();
        rows.spoil_last();
        assert_eq!(rows.len(), 2);
        let batch = rows.finish().unwrap();
        assert_eq!(batch.column(0).as_primitive::<Int32Type>().values().to_vec(), [1, 3]);
        let lists = batch.column(1).as_list::<i32>();
        assert_eq!(lists.value(0).len(), 3);
        let last = lists.value(1);
        assert_eq!(last.as_list::<i32>().value(0).as_primitive::<Int32Type>().values().to_vec(), [6]);
        assert!(rows.is_empty());
    }

    #[test]
    fn not_null_is_enforced() {
        let mut rows = builder();
        let bad = rows.push_cells(&[], |_| Cell::Missing).unwrap_err();
        assert_eq!((bad.column.as_str(), bad.error.sqlstate.0), ("id", "23502"));
        rows.push(|_, _| Ok(false)).unwrap();
        assert_eq!(rows.finish().unwrap().num_rows(), 1);
    }
}
