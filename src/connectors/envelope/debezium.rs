//! ENVELOPE DEBEZIUM: change events of a table, as Avro, or as JSON with or without Kafka Connect's schema envelope.
//!
//! With a key, an event replaces or deletes the row of its key, whatever was there: what the event says of the row
//! before is only read for its key, since by default PostgreSQL tells little more of it, padded with defaults. A
//! change of key comes as a delete and a create. Large values that an update does not tell, since they did not change,
//! stay as they are. Without a key, rows are taken back by the values they had, so every
//! event must tell the whole old row.

use arrow::datatypes::{DataType, FieldRef, Schema};

use super::changes::ChangesBuilder;
use super::key::KeyReader;
use super::mongo;
use super::schema_envelope::row_encodings;
use super::{Columns, NotUnderstood, Record, of_key};
use crate::connectors::format::avro::{AvroEvent, AvroEvents};
use crate::connectors::format::cell::{Cell, FieldNames, RECORD_BYTES_MAX, Row, Typed};
use crate::connectors::format::column::ColumnBuilder;
use crate::connectors::format::json::{malformed, scan_object};
use crate::connectors::format::scan::{self, Malformed, Scanner, Token};
use crate::connectors::format::values::{Encoding, FieldError, Unit, text_of};
use crate::connectors::format::{BadFormat, Format, JsonOptions, is_json};
use crate::error::{Error, SqlState};

/// What stands in an event for a value that PostgreSQL did not send, because it is stored aside (TOAST) and did not change.
const UNAVAILABLE: &str = "__debezium_unavailable_value";
/// The same, in a column of bytes, as JSON has it.
const UNAVAILABLE_BASE64: &str = "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==";
/// The same, in columns of arrays: of text; of uuid, by a hash of it; of integers and dates, by its bytes.
const UNAVAILABLE_TEXTS: &str = "[\"__debezium_unavailable_value\"]";
const UNAVAILABLE_UUIDS: &str = "[\"b68a35a7-17ad-35b3-af2a-ae46edb4545a\"]";
const UNAVAILABLE_INTEGERS: &str =
    "[95,95,100,101,98,101,122,105,117,109,95,117,110,97,118,97,105,108,97,98,108,101,95,118,97,108,117,101]";
/// The same bytes in an array of dates, as they are read from Avro.
const UNAVAILABLE_DATES: &str = "[\"1970-04-06\",\"1970-04-06\",\"1970-04-11\",\"1970-04-12\",\"1970-04-09\"\
     ,\"1970-04-12\",\"1970-05-03\",\"1970-04-16\",\"1970-04-28\",\"1970-04-20\"\
     ,\"1970-04-06\",\"1970-04-28\",\"1970-04-21\",\"1970-04-08\",\"1970-04-29\"\
     ,\"1970-04-08\",\"1970-04-16\",\"1970-04-19\",\"1970-04-08\",\"1970-04-09\"\
     ,\"1970-04-19\",\"1970-04-12\",\"1970-04-06\",\"1970-04-29\",\"1970-04-08\"\
     ,\"1970-04-19\",\"1970-04-28\",\"1970-04-12\"]";

/// Reads change events.
#[derive(Debug)]
pub struct DebeziumReader {
    names: FieldNames,
    before: Row,
    after: Row,
    key: KeyReader,
    /// How fields are written when an event has no schema.
    default_encodings: Vec<Encoding>,
    /// How they are written by `schema`, the last event's.
    encodings: Vec<Encoding>,
    schema: String,
    avro: Option<Box<AvroEvents>>,
}

/// What an event says, besides the rows.
#[derive(Debug, Default)]
struct Event<'a> {
    op: Option<&'a str>,
    schema: Option<&'a str>,
    has_before: bool,
    has_after: bool,
    is_tombstone: bool,
}

impl DebeziumReader {
    /// For events of a table with these columns.
    ///
    /// # Errors
    /// 0A000 for formats that Debezium does not write; 22023 for a schema that is none.
    pub fn new(schema: &Schema, format: &Format, key: KeyReader) -> Result<Self, Error> {
        let (encodings, avro) = match format {
            Format::Json(options) => {
                let encoding = |f: &FieldRef| default_encoding(f.data_type(), is_json(f), options);
                (schema.fields().iter().map(encoding).collect::<Vec<_>>(), None)
            }
            Format::Avro(options) => {
                let events = AvroEvents::new(schema, options)?;
                (events.encodings().to_vec(), Some(Box::new(events)))
            }
            _ => return Err(Error::unsupported("ENVELOPE DEBEZIUM with another format than JSON and AVRO")),
        };
        Ok(DebeziumReader {
            names: FieldNames::new(schema.fields().iter().map(|f| f.name().as_str())),
            before: Row::new(schema.fields().len()),
            after: Row::new(schema.fields().len()),
            key,
            default_encodings: encodings.clone(),
            encodings,
            schema: String::new(),
            avro,
        })
    }

    /// Adds the changes of an event.
    ///
    /// # Errors
    /// Why it was not understood; nothing of it stays.
    pub(super) fn push(
        &mut self,
        record: &Record<'_>,
        columns: Columns<'_>,
        key: &[usize],
        changes: &mut ChangesBuilder,
    ) -> Result<(), NotUnderstood> {
        // A tombstone follows a delete, for the broker's compaction; the delete has been read.
        let Some(value) = record.value.filter(|v| !v.is_empty()) else { return Ok(()) };
        if value.len() > RECORD_BYTES_MAX {
            return Err(bad(format!("the record has {} bytes, more than {RECORD_BYTES_MAX}", value.len())));
        }
        let (event, text) = self.event(value)?;
        if event.is_tombstone {
            return Ok(());
        }
        let op = event
            .op
            .ok_or_else(|| bad("not a Debezium change event: it has no member \"op\"".to_string()))?;
        match op {
            "c" | "r" | "u" => {
                if !event.has_after {
                    return Err(bad(format!("the event with op \"{op}\" has no row \"after\"")));
                }
                let first = changes.len();
                if key.is_empty() {
                    if op == "u" {
                        self.push_before(&event, text, columns, changes)?;
                    }
                } else if event.has_before && self.key_differs(key, text) {
                    self.push_delete(text, key, changes)?;
                }
                let unchanged = self.unchanged(text);
                if !unchanged.is_empty() && op == "u" && !key.is_empty() && changes.len() == first {
                    return self.push_patch(&unchanged, text, columns, changes);
                }
                let pushed = self.push_after(text, columns, changes);
                while pushed.is_err() && changes.len() > first {
                    changes.spoil_last();
                }
                pushed
            }
            "d" if key.is_empty() => self.push_before(&event, text, columns, changes),
            "d" => {
                self.key.read(record.key).map_err(of_key)?;
                self.push_delete(text, key, changes)
            }
            "t" => changes.truncate().map_err(|e| NotUnderstood {
                sqlstate: e.sqlstate,
                reason: e.message,
                of_key: false,
            }),
            // A message of pg_logical_emit_message, which is of no table.
            "m" => Ok(()),
            _ => Err(bad(format!("unknown Debezium op \"{op}\""))),
        }
    }

    /// The event that a value is, its rows in `before` and `after`, and the text that these are of.
    fn event<'a>(&mut self, value: &'a [u8]) -> Result<(Event<'a>, &'a str), BadFormat> {
        if let Some(avro) = &mut self.avro {
            self.before.clear();
            self.after.clear();
            let AvroEvent { op, has_before, has_after } =
                avro.read(value, &mut self.before, &mut self.after)?;
            return Ok((Event { op, has_before, has_after, ..Event::default() }, ""));
        }
        let text = text_of(value).map_err(|e| BadFormat { sqlstate: e.sqlstate, reason: e.message })?;
        let event = self.read(text).map_err(|m| malformed(m, text))?;
        self.use_schema(event.schema).map_err(|m| malformed(m, text))?;
        Ok((event, text))
    }

    /// Finds the parts of an event in JSON; its rows go to `before` and `after`.
    fn read<'a>(&mut self, text: &'a str) -> Result<Event<'a>, Malformed> {
        let DebeziumReader { names, before, after, .. } = self;
        before.clear();
        after.clear();
        let mut event = Event::default();
        let mut s = Scanner::new(text);
        let mut member = |s: &mut Scanner<'a>, name: &str, event: &mut Event<'a>| {
            s.skip_space();
            let is_object = s.peek() == Some(b'{');
            let is_text = s.peek() == Some(b'"');
            match name {
                // MongoDB's documents are text.
                "before" if is_text => {
                    event.has_before = true;
                    document(s, names, before)
                }
                "after" if is_text => {
                    event.has_after = true;
                    document(s, names, after)
                }
                "before" if is_object => {
                    event.has_before = true;
                    scan_object(s, names, before)
                }
                "after" if is_object => {
                    event.has_after = true;
                    scan_object(s, names, after)
                }
                "op" => {
                    event.op = match s.value()? {
                        Token::String(op, _) => Some(op),
                        _ => None,
                    };
                    Ok(())
                }
                _ => s.value().map(|_| ()),
            }
        };
        s.object(|s, name, _| {
            s.skip_space();
            match (name, s.peek()) {
                ("payload", Some(b'{')) => s.object(|s, name, _| member(s, name, &mut event)),
                ("payload", _) => {
                    event.is_tombstone = s.value()? == Token::Null;
                    Ok(())
                }
                ("schema", Some(b'{')) => {
                    if let Token::Nested(schema) = s.value()? {
                        event.schema = Some(schema);
                    }
                    Ok(())
                }
                _ => member(s, name, &mut event),
            }
        })?;
        s.end()?;
        Ok(event)
    }

    /// Takes the encodings from the event's schema; they are understood anew only where the schema is another one.
    fn use_schema(&mut self, schema: Option<&str>) -> Result<(), Malformed> {
        let schema = schema.unwrap_or_default();
        if schema == self.schema {
            return Ok(());
        }
        self.encodings.clone_from(&self.default_encodings);
        self.schema.clear();
        if !schema.is_empty() {
            row_encodings(schema, &mut self.names, &mut self.encodings)?;
            self.schema.push_str(schema);
        }
        Ok(())
    }

    /// Whether the row before had another key: producers other than Debezium may tell so by one event.
    fn key_differs(&self, key: &[usize], text: &str) -> bool {
        key.iter().any(|&i| self.before.is_set(i) && self.before.cell(i, text) != self.after.cell(i, text))
    }

    fn encoding(&self, column: usize) -> Encoding {
        self.encodings.get(column).copied().unwrap_or_default()
    }

    /// The row after as it is told; what it does not tell, the row before may.
    fn cell_after<'a>(&'a self, column: usize, text: &'a str) -> Cell<'a> {
        match self.after.cell(column, text) {
            after if !is_unavailable(after) => after,
            after => match self.before.cell(column, text) {
                Cell::Missing => after,
                before => before,
            },
        }
    }

    /// The columns whose values the event does not tell, because they stay as they are.
    fn unchanged(&self, text: &str) -> Vec<usize> {
        (0..self.names.len()).filter(|i| is_unavailable(self.cell_after(*i, text))).collect()
    }

    fn push_after(
        &self,
        text: &str,
        columns: Columns<'_>,
        changes: &mut ChangesBuilder,
    ) -> Result<(), NotUnderstood> {
        let row = |i: usize, column: &mut ColumnBuilder| {
            if let Some(appended) = columns.append_included(i, column) {
                return appended;
            }
            match self.cell_after(i, text) {
                cell if is_unavailable(cell) => Err(unavailable()),
                cell => column.append(cell, self.encoding(i)).map(|()| true),
            }
        };
        changes.push(false, row).map_err(|bad| BadFormat::from(bad).into())
    }

    /// Changes the key's row in all columns but those that stay.
    fn push_patch(
        &self,
        unchanged: &[usize],
        text: &str,
        columns: Columns<'_>,
        changes: &mut ChangesBuilder,
    ) -> Result<(), NotUnderstood> {
        let row = |i: usize, column: &mut ColumnBuilder| {
            if unchanged.contains(&i) {
                return Ok(false);
            }
            match columns.append_included(i, column) {
                Some(appended) => appended,
                None => column.append(self.cell_after(i, text), self.encoding(i)).map(|()| true),
            }
        };
        match changes.push_patch(unchanged, row) {
            Ok(pushed) => pushed.map_err(|bad| BadFormat::from(bad).into()),
            Err(e) => Err(NotUnderstood { sqlstate: e.sqlstate, reason: e.message, of_key: false }),
        }
    }

    /// Takes the row before back, by all its values.
    fn push_before(
        &self,
        event: &Event<'_>,
        text: &str,
        columns: Columns<'_>,
        changes: &mut ChangesBuilder,
    ) -> Result<(), NotUnderstood> {
        if !event.has_before {
            let reason = "the event does not tell the row as it was before (REPLICA IDENTITY FULL does), and the source has no PRIMARY KEY";
            return Err(bad(reason.to_string()));
        }
        let row = |i: usize, column: &mut ColumnBuilder| match columns.append_included(i, column) {
            Some(appended) => appended,
            None => column.append(self.before.cell(i, text), self.encoding(i)).map(|()| true),
        };
        changes.push(true, row).map_err(|bad| BadFormat::from(bad).into())
    }

    /// Deletes the row of the key that the row before had; where the event does not tell it, the record's key does.
    fn push_delete(
        &self,
        text: &str,
        key: &[usize],
        changes: &mut ChangesBuilder,
    ) -> Result<(), NotUnderstood> {
        let row = |i: usize, column: &mut ColumnBuilder| {
            if !key.contains(&i) {
                return Ok(false);
            }
            let cell = match self.before.cell(i, text) {
                Cell::Missing => self.key.cell(i),
                cell => cell,
            };
            column.append(cell, self.encoding(i)).map(|()| true)
        };
        changes.push(true, row).map_err(|bad| BadFormat::from(bad).into())
    }
}

/// Reads the text of a document that comes next.
fn document(s: &mut Scanner<'_>, names: &mut FieldNames, row: &mut Row) -> Result<(), Malformed> {
    let at = s.position();
    let (text, escaped) = s.string()?;
    let mut unescaped = String::new();
    if escaped {
        scan::unescape(text, at + 1, &mut unescaped)?;
    }
    let text = if escaped { &unescaped } else { text };
    mongo::read_document(text, names, row).ok_or(Malformed { what: "the document is no JSON object", at })
}

fn is_unavailable(cell: Cell<'_>) -> bool {
    matches!(
        cell,
        Cell::Text(UNAVAILABLE | UNAVAILABLE_BASE64)
            | Cell::Document(UNAVAILABLE)
            | Cell::Nested(UNAVAILABLE_TEXTS | UNAVAILABLE_UUIDS | UNAVAILABLE_INTEGERS | UNAVAILABLE_DATES)
    ) || cell == Cell::Typed(Typed::Bytes(UNAVAILABLE.as_bytes()))
}

fn unavailable() -> FieldError {
    FieldError {
        sqlstate: SqlState::DATA_EXCEPTION,
        message: "the event leaves the value out, because it is stored out of line and did not change \
                  (REPLICA IDENTITY FULL makes events complete)"
            .to_string(),
    }
}

fn bad(reason: String) -> NotUnderstood {
    NotUnderstood { sqlstate: SqlState::DATA_EXCEPTION, reason, of_key: false }
}

/// How Debezium writes a type by its default settings; options of FORMAT JSON say otherwise.
fn default_encoding(data_type: &DataType, is_json: bool, options: &JsonOptions) -> Encoding {
    match data_type {
        DataType::Date32 => Encoding::Days,
        DataType::Time64(_) | DataType::Timestamp(..) => {
            options.timestamp.unwrap_or(Encoding::Epoch(Unit::Microsecond))
        }
        DataType::Interval(_) => Encoding::Duration(Unit::Microsecond),
        DataType::Binary => options.binary.unwrap_or(Encoding::Base64),
        DataType::Decimal128(..) => options.decimal.unwrap_or(Encoding::Decimal(None)),
        DataType::List(item) => default_encoding(item.data_type(), self::is_json(item), options),
        _ if is_json => Encoding::JsonText,
        _ => Encoding::Plain,
    }
}
