//! Envelopes: what a record means for the collection that it is read into.
//!
//! A [`Decoder`] takes record after record of one source, understands them by FORMAT and ENVELOPE, and gives out
//! the changes in order. A record that is not understood changes nothing and says why; so does one that is
//! understood only in part.

pub mod changes;
pub mod debezium;
pub mod include;
pub mod infer;
pub mod kept;
pub mod key;
mod mongo;
mod schema_envelope;

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};

use crate::connectors::envelope::changes::{ChangesBuilder, Means};
use crate::connectors::envelope::debezium::DebeziumReader;
use crate::connectors::envelope::include::Included;
use crate::connectors::envelope::key::{KeyReader, KeyText};
use crate::connectors::format::cell::Cell;
use crate::connectors::format::column::ColumnBuilder;
use crate::connectors::format::rows::BadField;
use crate::connectors::format::values::{Encoding, FieldError};
use crate::connectors::format::{BadFormat, Fields, Format, RecordReader, is_unavailable};
use crate::connectors::{Envelope, SourceDefinition};
use crate::engine::InputChange;
use crate::error::{Error, Result, SqlState};

/// A record as it came, with what its broker says of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Record<'a> {
    /// Its key's bytes.
    pub key: Option<&'a [u8]>,
    /// Its value's bytes.
    pub value: Option<&'a [u8]>,
    /// Where it came from.
    pub topic: &'a str,
    /// The partition.
    pub partition: i32,
    /// Its number in the partition.
    pub offset: i64,
    /// Its time, µs since 1970.
    pub timestamp_micros: Option<i64>,
    /// Its headers as a JSON object, when [`Decoder::wants_headers`].
    pub headers: Option<&'a str>,
}

/// Why a record was not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotUnderstood {
    /// SQLSTATE of the failure.
    pub sqlstate: SqlState,
    /// What was wrong, and in which column.
    pub reason: String,
    /// It was the record's key.
    pub of_key: bool,
}

impl NotUnderstood {
    /// Nothing is known of the record, because the registry that has its schema did not answer: the source must not
    /// go past it.
    pub fn is_unavailable(&self) -> bool {
        is_unavailable(self.sqlstate)
    }
}

impl From<BadFormat> for NotUnderstood {
    fn from(bad: BadFormat) -> Self {
        NotUnderstood { sqlstate: bad.sqlstate, reason: bad.reason, of_key: false }
    }
}

impl From<BadField> for BadFormat {
    fn from(bad: BadField) -> Self {
        BadFormat {
            sqlstate: bad.error.sqlstate,
            reason: format!("column \"{}\": {}", bad.column, bad.error.message),
        }
    }
}

/// What a source's declaration says about rows, for any system that records come from.
#[derive(Clone, Debug)]
pub struct Declaration<'a> {
    /// FORMAT, ENVELOPE, INCLUDE, PRIMARY KEY.
    pub definition: &'a SourceDefinition,
    /// Declared columns, then the INCLUDE columns.
    pub schema: &'a SchemaRef,
    /// Debezium: every update and delete tells the whole row as it was before (REPLICA IDENTITY FULL), so no key is needed.
    pub full_before_images: bool,
}

/// Turns records into changes.
#[derive(Debug)]
pub struct Decoder {
    meaning: Meaning,
    included: Vec<Included>,
    /// How the value's fields are written, by column.
    encodings: Vec<Encoding>,
    /// How many of the columns are fields of the value; the included ones follow.
    value_columns: usize,
    key: Vec<usize>,
    /// What makes text of keys that are none.
    key_text: Option<KeyText>,
    changes: ChangesBuilder,
}

/// The state of reading, by envelope.
#[derive(Debug)]
enum Meaning {
    /// Every record is a row.
    Append(Box<RecordReader>),
    /// A record replaces its key's row; without a value it deletes it.
    Upsert(Box<RecordReader>, Box<KeyReader>),
    /// Debezium's change events.
    Debezium(Box<DebeziumReader>),
}

/// The positions of the columns that rows are told apart by, under the definition's envelope; empty: none.
///
/// # Errors
/// 42P16 when the envelope needs a key and the definition has none.
pub fn output_key(
    definition: &SourceDefinition,
    schema: &Schema,
    full_before_images: bool,
) -> Result<Vec<usize>> {
    if !definition.key.is_empty() {
        return Ok(definition.key.clone());
    }
    let missing = |message: &str, hint: &str| {
        Err(Error::new(SqlState::INVALID_TABLE_DEFINITION, message).with_hint(hint))
    };
    match definition.envelope {
        Envelope::None => Ok(Vec::new()),
        Envelope::Upsert => {
            let value_columns = schema.fields().len().saturating_sub(definition.includes.len());
            let key = definition.includes.iter().position(|i| i.what.eq_ignore_ascii_case("key"));
            match key {
                Some(i) => Ok(vec![value_columns + i]),
                None => missing(
                    "ENVELOPE UPSERT needs a key",
                    "Declare a PRIMARY KEY, or name the record's key by INCLUDE key.",
                ),
            }
        }
        Envelope::Debezium if full_before_images => Ok(Vec::new()),
        Envelope::Debezium => missing(
            "ENVELOPE DEBEZIUM needs a PRIMARY KEY",
            "Declare a PRIMARY KEY. A table without one can be read when its change events tell whole old rows \
             (REPLICA IDENTITY FULL in PostgreSQL): say so by the option replica.identity = 'full'.",
        ),
    }
}

impl Decoder {
    /// For records of the declared source.
    ///
    /// # Errors
    /// What does not fit together in the declaration.
    pub fn new(declaration: &Declaration<'_>) -> Result<Decoder> {
        let Declaration { definition, schema, full_before_images } = declaration;
        let mut format = Format::new(definition.format.as_ref())?;
        if let Some((_, topics)) = definition.options.iter().find(|(name, _)| name == "topic")
            && !topics.contains(',')
        {
            format.set_topic(topics);
        }
        let Some(value_columns) = schema.fields().len().checked_sub(definition.includes.len()) else {
            return Err(Error::internal("a source has more INCLUDE columns than columns"));
        };
        let value_schema = Arc::new(Schema::new(schema.fields()[..value_columns].to_vec()));
        let included = definition.includes.iter().map(Included::new).collect::<Result<Vec<_>>>()?;
        let key = output_key(definition, schema, *full_before_images)?;
        let meaning = match definition.envelope {
            Envelope::None => Meaning::Append(Box::new(format.reader(&value_schema)?)),
            Envelope::Upsert => {
                let columns: Vec<usize> = key.iter().copied().filter(|i| *i < value_columns).collect();
                Meaning::Upsert(
                    Box::new(format.reader(&value_schema)?),
                    Box::new(KeyReader::new(&format, &value_schema, columns)?),
                )
            }
            Envelope::Debezium => {
                if key.is_empty() && !included.is_empty() {
                    return Err(Error::new(
                        SqlState::INVALID_TABLE_DEFINITION,
                        "INCLUDE needs a PRIMARY KEY under ENVELOPE DEBEZIUM",
                    )
                    .with_detail("Without one, old rows are taken back by their values, which INCLUDE columns are not part of."));
                }
                if let Some(i) = key.iter().find(|i| **i >= value_columns) {
                    return Err(Error::new(
                        SqlState::INVALID_TABLE_DEFINITION,
                        format!(
                            "INCLUDE column \"{}\" cannot be a key under ENVELOPE DEBEZIUM",
                            schema.field(*i).name()
                        ),
                    ));
                }
                let key_reader = KeyReader::new(&format, &value_schema, key.clone())?;
                Meaning::Debezium(Box::new(DebeziumReader::new(&value_schema, &format, key_reader)?))
            }
        };
        let encodings = match &meaning {
            Meaning::Append(reader) | Meaning::Upsert(reader, _) => reader.encodings().to_vec(),
            Meaning::Debezium(_) => Vec::new(),
        };
        let key_text = match included.contains(&Included::Key) {
            true => KeyText::new(&format)?,
            false => None,
        };
        let means = if key.is_empty() { Means::Rows } else { Means::RowsByKey };
        let changes = ChangesBuilder::new(Arc::clone(schema), means)?;
        Ok(Decoder { meaning, included, encodings, value_columns, key, key_text, changes })
    }

    /// The positions of the key's columns; empty: rows have none.
    pub fn key(&self) -> &[usize] {
        &self.key
    }

    /// Whether [`Record::headers`] is read.
    pub fn wants_headers(&self) -> bool {
        self.included.iter().any(|i| matches!(i, Included::Headers | Included::Header(_)))
    }

    /// Says what the columns of the CSV records that follow are; see [`RecordReader::set_header`].
    ///
    /// # Errors
    /// Why it was not understood.
    pub fn set_header(&mut self, header: &[u8]) -> std::result::Result<(), NotUnderstood> {
        match &mut self.meaning {
            Meaning::Append(reader) | Meaning::Upsert(reader, _) => Ok(reader.set_header(header)?),
            Meaning::Debezium(_) => Ok(()),
        }
    }

    /// How many row changes wait to be taken.
    pub fn pending(&self) -> usize {
        self.changes.len()
    }

    /// Takes all changes since the last time, in order.
    pub fn take(&mut self) -> Result<Vec<InputChange>> {
        self.changes.take()
    }

    /// Understands a record.
    ///
    /// # Errors
    /// Why it was not understood; nothing of it stays.
    pub fn push(&mut self, record: &Record<'_>) -> std::result::Result<(), NotUnderstood> {
        let Decoder { meaning, included, encodings, value_columns, key, key_text, changes } = self;
        let with_key_text;
        let mut columns = Columns { included, value_columns: *value_columns, record };
        if let (Some(key_text), Some(bytes)) = (key_text, record.key) {
            let text = key_text.of(bytes).map_err(of_key)?;
            with_key_text = Record { key: Some(text), ..*record };
            columns.record = &with_key_text;
        }
        match meaning {
            Meaning::Append(reader) => push_rows(reader, encodings, None, columns, changes),
            Meaning::Upsert(reader, key_reader) => {
                key_reader.read(record.key).map_err(of_key)?;
                if record.value.is_none_or(<[u8]>::is_empty) {
                    return push_delete(key_reader, encodings, key, columns, changes);
                }
                push_rows(reader, encodings, Some(key_reader), columns, changes)
            }
            Meaning::Debezium(reader) => reader.push(record, columns, key, changes),
        }
    }
}

/// The columns of a record's rows: fields of its value, then what is included of the rest of it.
#[derive(Clone, Copy)]
pub(crate) struct Columns<'a> {
    included: &'a [Included],
    value_columns: usize,
    pub(crate) record: &'a Record<'a>,
}

impl Columns<'_> {
    /// Appends an included column; `None` when the column is a field of the value.
    pub(crate) fn append_included(
        &self,
        i: usize,
        column: &mut ColumnBuilder,
    ) -> Option<std::result::Result<bool, FieldError>> {
        let included = self.included.get(i.checked_sub(self.value_columns)?)?;
        Some(included.append(self.record, column).map(|()| true))
    }
}

fn of_key(bad: BadFormat) -> NotUnderstood {
    NotUnderstood { of_key: true, ..bad.into() }
}

/// Adds the rows of a record's value. Key columns that the value does not have are taken from the record's key.
fn push_rows(
    reader: &mut RecordReader,
    encodings: &[Encoding],
    key_reader: Option<&KeyReader>,
    columns: Columns<'_>,
    changes: &mut ChangesBuilder,
) -> std::result::Result<(), NotUnderstood> {
    let is_whole = matches!(reader, RecordReader::Whole(_));
    let record = columns.record;
    let before = changes.len();
    let no_value: Option<&[u8]> = if is_whole { None } else { Some(&[]) };
    let Some(value) = record.value.or(no_value) else {
        // FORMAT TEXT and BYTES: no value is NULL.
        let row = |i: usize, column: &mut ColumnBuilder| match columns.append_included(i, column) {
            Some(appended) => appended,
            None => column.append(Cell::Null, Encoding::Plain).map(|()| true),
        };
        return changes.push(false, row).map_err(|bad| BadFormat::from(bad).into());
    };
    let result = reader.read(value, |fields| {
        let row = |i: usize, column: &mut ColumnBuilder| {
            if let Some(appended) = columns.append_included(i, column) {
                return appended;
            }
            let encoding = encodings.get(i).copied().unwrap_or_default();
            match fields {
                Fields::Bytes(bytes) => column.append_bytes(Some(bytes))?,
                Fields::Row(row, text) => match (row.cell(i, text), key_reader) {
                    (Cell::Missing, Some(key)) => column.append(key.cell(i), encoding)?,
                    (cell, _) => column.append(cell, encoding)?,
                },
            }
            Ok(true)
        };
        changes.push(false, row).map_err(BadFormat::from)
    });
    if result.is_err() {
        // Rows of the record before the bad one.
        while changes.len() > before {
            changes.spoil_last();
        }
    }
    result.map_err(NotUnderstood::from)
}

/// Adds the deletion of the row of the record's key.
fn push_delete(
    key_reader: &KeyReader,
    encodings: &[Encoding],
    key: &[usize],
    columns: Columns<'_>,
    changes: &mut ChangesBuilder,
) -> std::result::Result<(), NotUnderstood> {
    let row = |i: usize, column: &mut ColumnBuilder| {
        if !key.contains(&i) {
            return Ok(false);
        }
        match columns.append_included(i, column) {
            Some(appended) => appended,
            None => {
                let encoding = encodings.get(i).copied().unwrap_or_default();
                column.append(key_reader.cell(i), encoding).map(|()| true)
            }
        }
    };
    changes.push(true, row).map_err(|bad| of_key(bad.into()))
}

#[cfg(test)]
mod tests;
