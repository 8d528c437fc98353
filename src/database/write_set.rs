//! What a transaction has written to one table, and the constraints it had to keep.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, Rows, SortField};
use hashbrown::{HashMap, HashSet};

use crate::database::writer::{State, delta_of};
use crate::engine::{CollectionId, Delta};
use crate::error::{Error, Result, SqlState};
use crate::sql::plan::RowExpressions;
use crate::sql::types::write_text;

/// A table that statements may write.
#[derive(Clone, Debug)]
pub(crate) struct TableRef {
    pub id: CollectionId,
    pub name: String,
    pub schema: SchemaRef,
    /// Positions of the key's columns; empty: none.
    pub key: Vec<usize>,
    /// CHECK constraints: a boolean column for each, by its name.
    pub checks: Option<RowExpressions>,
}

impl TableRef {
    /// The table was dropped since the statement was planned.
    pub fn gone(&self) -> Error {
        Error::new(SqlState::UNDEFINED_TABLE, format!("relation \"{}\" does not exist any more", self.name))
    }
}

/// Encodes what tells rows of a table apart: the key, or the whole row where there is none.
pub(crate) struct RowKeys {
    converter: RowConverter,
    columns: Vec<usize>,
}

impl RowKeys {
    pub fn of(table: &TableRef) -> Result<RowKeys> {
        let columns: Vec<usize> =
            if table.key.is_empty() { (0..table.schema.fields().len()).collect() } else { table.key.clone() };
        let fields = columns.iter().map(|c| SortField::new(table.schema.field(*c).data_type().clone()));
        Ok(RowKeys { converter: RowConverter::new(fields.collect())?, columns })
    }

    pub fn encode(&self, rows: &RecordBatch) -> Result<Rows> {
        let columns: Vec<_> = self.columns.iter().map(|c| Arc::clone(rows.column(*c))).collect();
        Ok(self.converter.convert_columns(&columns)?)
    }
}

/// What a transaction has written to one table.
#[derive(Clone)]
pub(crate) struct WriteSet {
    pub table: Arc<TableRef>,
    /// The changes, in order: what the transaction's own reads lay over the rows.
    pub deltas: Vec<Delta>,
    /// With a key: every key that was written, and whether its row exists afterwards.
    pub keys: HashMap<Box<[u8]>, bool>,
    /// Without a key: rows that were taken away.
    taken: HashSet<Box<[u8]>>,
    encoder: Arc<RowKeys>,
}

impl WriteSet {
    pub fn new(table: Arc<TableRef>) -> Result<WriteSet> {
        let encoder = Arc::new(RowKeys::of(&table)?);
        Ok(WriteSet { table, deltas: Vec::new(), keys: HashMap::new(), taken: HashSet::new(), encoder })
    }

    /// What tells the given rows of the table apart.
    pub fn encode(&self, rows: &RecordBatch) -> Result<Rows> {
        self.encoder.encode(rows)
    }

    /// What another transaction must not have touched.
    pub fn touched(&self) -> impl Iterator<Item = &[u8]> {
        self.keys.keys().chain(&self.taken).map(AsRef::as_ref)
    }

    /// Says of each row whether one of its key exists already, in the table or earlier among these rows.
    pub fn existing(&self, state: &State, rows: &RecordBatch) -> Result<Vec<Existing>> {
        if self.table.key.is_empty() {
            return Ok(vec![Existing::No; rows.num_rows()]);
        }
        let encoded = self.encoder.encode(rows)?;
        let mut seen: HashSet<&[u8]> = HashSet::with_capacity(rows.num_rows());
        let mut existing = Vec::with_capacity(rows.num_rows());
        for i in 0..rows.num_rows() {
            let key = encoded.row(i).data();
            existing.push(if !seen.insert(key) {
                Existing::SameStatement
            } else if self.exists(state, key) {
                Existing::Stored
            } else {
                Existing::No
            });
        }
        Ok(existing)
    }

    fn exists(&self, state: &State, key: &[u8]) -> bool {
        match self.keys.get(key) {
            Some(exists) => *exists,
            None => state.contains(self.table.id, key),
        }
    }

    /// Adds rows.
    ///
    /// # Errors
    /// 23502 and 23505.
    pub fn insert(&mut self, state: &State, rows: RecordBatch) -> Result<()> {
        self.replace(state, None, Some(rows))
    }

    /// Takes rows away; they are what a read of this transaction gave.
    pub fn delete(&mut self, state: &State, rows: RecordBatch) -> Result<()> {
        self.replace(state, Some(rows), None)
    }

    /// Takes `old` away and adds `new`, as one statement: keys may move among the rows.
    ///
    /// # Errors
    /// 23502, 23505 and 23514; nothing has been written then, and the transaction is to be given up.
    pub fn replace(
        &mut self,
        state: &State,
        old: Option<RecordBatch>,
        new: Option<RecordBatch>,
    ) -> Result<()> {
        if let Some(new) = &new {
            check_not_null(&self.table, new)?;
            check_conditions(&self.table, new)?;
        }
        if let Some(old) = &old {
            let encoded = self.encoder.encode(old)?;
            for row in encoded.iter() {
                if self.table.key.is_empty() {
                    self.taken.insert(Box::from(row.data()));
                } else {
                    self.keys.insert(Box::from(row.data()), false);
                }
            }
        }
        if let Some(new) = &new
            && !self.table.key.is_empty()
        {
            let encoded = self.encoder.encode(new)?;
            for i in 0..new.num_rows() {
                let key = encoded.row(i).data();
                if self.exists(state, key) {
                    return Err(duplicate(&self.table, new, i));
                }
                self.keys.insert(Box::from(key), true);
            }
        }
        let old = old.filter(|r| r.num_rows() > 0).map(|r| delta_of(r, -1));
        let new = new.filter(|r| r.num_rows() > 0).map(|r| delta_of(r, 1));
        self.deltas.extend(old.into_iter().chain(new));
        Ok(())
    }
}

/// Whether a row's key is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Existing {
    /// It is free.
    No,
    /// A row of the table has it.
    Stored,
    /// An earlier row of the same statement has it.
    SameStatement,
}

fn check_not_null(table: &TableRef, rows: &RecordBatch) -> Result<()> {
    for (i, field) in table.schema.fields().iter().enumerate() {
        if field.is_nullable() && !table.key.contains(&i) {
            continue;
        }
        let column = rows.column(i);
        if column.null_count() > 0
            && let Some(row) = (0..column.len()).find(|r| column.is_null(*r))
        {
            return Err(Error::new(
                SqlState::NOT_NULL_VIOLATION,
                format!(
                    "null value in column \"{}\" of relation \"{}\" violates not-null constraint",
                    field.name(),
                    table.name
                ),
            )
            .with_detail(format!("Failing row contains ({}).", values(rows, row, 0..rows.num_columns()))));
        }
    }
    Ok(())
}

fn check_conditions(table: &TableRef, rows: &RecordBatch) -> Result<()> {
    let Some(checks) = table.checks.as_ref().filter(|_| rows.num_rows() > 0) else { return Ok(()) };
    let answers = checks.evaluate(rows, &[])?;
    for (column, field) in answers.columns().iter().zip(checks.schema.fields()) {
        // What is unknown is let through, as PostgreSQL does.
        if let Some(row) = column.as_boolean().iter().position(|answer| answer == Some(false)) {
            return Err(Error::new(
                SqlState("23514"),
                format!(
                    "new row for relation \"{}\" violates check constraint \"{}\"",
                    table.name,
                    field.name()
                ),
            )
            .with_detail(format!("Failing row contains ({}).", values(rows, row, 0..rows.num_columns()))));
        }
    }
    Ok(())
}

fn duplicate(table: &TableRef, rows: &RecordBatch, row: usize) -> Error {
    let names: Vec<&str> = table.key.iter().map(|c| table.schema.field(*c).name().as_str()).collect();
    Error::new(
        SqlState::UNIQUE_VIOLATION,
        format!("duplicate key value violates unique constraint \"{}_pkey\"", table.name),
    )
    .with_detail(format!(
        "Key ({})=({}) already exists.",
        names.join(", "),
        values(rows, row, table.key.iter().copied())
    ))
}

/// Values of a row as text, as PostgreSQL shows them in a DETAIL.
fn values(rows: &RecordBatch, row: usize, columns: impl Iterator<Item = usize>) -> String {
    let shown = columns.map(|c| {
        let column = rows.column(c);
        if column.is_null(row) {
            return "null".to_string();
        }
        let mut text = Vec::new();
        // A value that has no text is left out of a message about something else.
        match write_text(rows.schema_ref().field(c), column, row, &mut text) {
            Ok(()) => String::from_utf8_lossy(&text).into_owned(),
            Err(_) => "?".into(),
        }
    });
    shown.collect::<Vec<_>>().join(", ")
}
