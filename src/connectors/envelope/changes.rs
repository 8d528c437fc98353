//! Changes of one collection under construction, in order: rows that come and go, by key or exactly, and truncations.

use arrow::array::BooleanArray;
use arrow::datatypes::SchemaRef;

use crate::connectors::format::column::ColumnBuilder;
use crate::connectors::format::rows::{BadField, RowsBuilder};
use crate::connectors::format::values::FieldError;
use crate::engine::{Delta, InputChange};
use crate::error::Result;

/// What a row of the collection is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// By all its values: what goes must be there.
    Rows,
    /// By its key: a row replaces the one of its key.
    RowsByKey,
}

/// Collects changes.
#[derive(Debug)]
pub struct ChangesBuilder {
    rows: RowsBuilder,
    /// For each good row: whether it goes.
    removes: Vec<bool>,
    means: Means,
    closed: Vec<InputChange>,
    closed_rows: usize,
}

impl ChangesBuilder {
    /// No changes yet.
    ///
    /// # Errors
    /// 0A000 for a column's type that records cannot be decoded into.
    pub fn new(schema: SchemaRef, means: Means) -> Result<Self> {
        Ok(ChangesBuilder {
            rows: RowsBuilder::new(schema)?,
            removes: Vec::new(),
            means,
            closed: Vec::new(),
            closed_rows: 0,
        })
    }

    /// How many changes there are; a truncation counts as one.
    pub fn len(&self) -> usize {
        self.closed_rows + self.removes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a row that comes, or goes; see [`RowsBuilder::push`] for `field`.
    pub fn push(
        &mut self,
        removes: bool,
        field: impl FnMut(usize, &mut ColumnBuilder) -> std::result::Result<bool, FieldError>,
    ) -> std::result::Result<(), BadField> {
        self.rows.push(field)?;
        self.removes.push(removes);
        Ok(())
    }

    /// Adds a row that replaces the one of its key but for the values of some columns, which stay; `field` leaves these out.
    ///
    /// # Errors
    /// The inner one: why the row is bad.
    pub fn push_patch(
        &mut self,
        unchanged: &[usize],
        field: impl FnMut(usize, &mut ColumnBuilder) -> std::result::Result<bool, FieldError>,
    ) -> Result<std::result::Result<(), BadField>> {
        self.close()?;
        if let Err(bad) = self.rows.push(field) {
            return Ok(Err(bad));
        }
        let stays = BooleanArray::from(vec![true]);
        let unchanged = unchanged.iter().map(|i| (*i, stays.clone())).collect();
        self.closed.push(InputChange::Patch { rows: self.rows.finish()?, unchanged });
        self.closed_rows += 1;
        Ok(Ok(()))
    }

    /// Takes the last row out again. What a truncation or a patch has closed stays.
    pub fn spoil_last(&mut self) {
        if self.removes.pop().is_some() {
            self.rows.spoil_last();
        }
    }

    /// All rows go.
    pub fn truncate(&mut self) -> Result<()> {
        self.close()?;
        self.closed.push(InputChange::Truncate);
        self.closed_rows += 1;
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        let rows = self.rows.finish()?;
        let removes = std::mem::take(&mut self.removes);
        if removes.is_empty() {
            return Ok(());
        }
        self.closed_rows += removes.len();
        let any = removes.contains(&true);
        self.closed.push(match self.means {
            Means::Rows => InputChange::Delta(Delta {
                rows,
                weights: any.then(|| removes.iter().map(|r| if *r { -1 } else { 1 }).collect()),
            }),
            Means::RowsByKey => {
                InputChange::Upsert { rows, deletes: any.then(|| BooleanArray::from(removes)) }
            }
        });
        Ok(())
    }

    /// All changes so far; the builder starts anew.
    pub fn take(&mut self) -> Result<Vec<InputChange>> {
        self.close()?;
        self.closed_rows = 0;
        Ok(std::mem::take(&mut self.closed))
    }
}
