//! The records that a change of a collection is written as, by envelope.

use std::collections::hash_map::Entry;

use ahash::AHashMap;
use arrow::array::RecordBatch;

use super::schemas::Written;
use super::settings::{SinkFormat, SinkSettings};
use crate::connectors::Envelope;
use crate::connectors::format::avro::encode as avro;
use crate::connectors::format::encode::RowWriter;
use crate::connectors::format::protobuf::encode as protobuf;
use crate::connectors::schema_registry::client::SchemaKind;
use crate::error::{Error, Result, SqlState};
use crate::world;

/// A record to be written.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// The key; `None`: no key.
    pub key: Option<&'a [u8]>,
    /// The value; `None`: a tombstone.
    pub value: Option<&'a [u8]>,
}

/// Writes the rows of one batch.
pub struct Messages<'a> {
    settings: &'a SinkSettings,
    schemas: Option<&'a Written>,
    rows: RowWriter<'a>,
    count: usize,
}

/// The rows of one key in a change.
#[derive(Clone, Copy, Default)]
struct OfKey {
    removed: Option<usize>,
    added: Option<usize>,
}

impl<'a> Messages<'a> {
    /// For a batch; `members` are the names of its columns' JSON members, `schemas` those that binary formats go by.
    ///
    /// # Errors
    /// 0A000 for a column's type that is not written.
    pub fn new(
        settings: &'a SinkSettings,
        members: &'a [String],
        schemas: Option<&'a Written>,
        batch: &'a RecordBatch,
    ) -> Result<Self> {
        Ok(Messages { settings, schemas, rows: RowWriter::new(batch, members)?, count: batch.num_rows() })
    }

    /// Gives out the records of a consolidated change, whose rows have these weights.
    ///
    /// # Errors
    /// 55000 when a row goes and the envelope has no way to say so; 23505 when the key does not tell rows apart.
    pub fn of_change(
        &self,
        weights: Option<&[i64]>,
        is_snapshot: bool,
        mut send: impl FnMut(Message<'_>) -> Result<()>,
    ) -> Result<()> {
        let weight = |row: usize| weights.map_or(1, |w| w.get(row).copied().unwrap_or(0));
        if self.settings.envelope == Envelope::None {
            return self.append(weight, send);
        }
        let mut order: Vec<(String, OfKey)> = Vec::new();
        let mut by_key: AHashMap<String, usize> = AHashMap::new();
        for row in 0..self.count {
            let key = self.key(row);
            let at = match by_key.entry(key) {
                Entry::Occupied(found) => *found.get(),
                Entry::Vacant(free) => {
                    order.push((free.key().clone(), OfKey::default()));
                    *free.insert(order.len() - 1)
                }
            };
            let (key, rows) = &mut order[at];
            match weight(row) {
                1 if rows.added.is_none() => rows.added = Some(row),
                -1 if rows.removed.is_none() => rows.removed = Some(row),
                0 => (),
                _ => {
                    return Err(Error::new(
                        SqlState::UNIQUE_VIOLATION,
                        "the sink's KEY does not tell the rows apart",
                    )
                    .with_detail(format!("Several rows have the key {key}.")));
                }
            }
        }
        let (mut key_bytes, mut value) = (Vec::new(), Vec::new());
        for (text, rows) in &order {
            let Some(row) = rows.added.or(rows.removed) else { continue };
            self.write_key(row, text, &mut key_bytes);
            let key = Some(key_bytes.as_slice());
            match (self.settings.envelope, rows.added) {
                (Envelope::Debezium, added) => {
                    self.write_event(added, rows.removed, is_snapshot, &mut value);
                    send(Message { key, value: Some(&value) })?;
                    if added.is_none() {
                        send(Message { key, value: None })?;
                    }
                }
                (_, Some(row)) => {
                    self.write_value(row, &mut value);
                    send(Message { key, value: Some(&value) })?;
                }
                (_, None) => send(Message { key, value: None })?,
            }
        }
        Ok(())
    }

    fn append(
        &self,
        weight: impl Fn(usize) -> i64,
        mut send: impl FnMut(Message<'_>) -> Result<()>,
    ) -> Result<()> {
        let (mut key, mut value) = (Vec::new(), Vec::new());
        for row in 0..self.count {
            let times = weight(row);
            if times < 0 {
                return Err(Error::new(
                    SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                    "a row goes, and a sink with ENVELOPE NONE can only append",
                )
                .with_hint("Use ENVELOPE UPSERT or DEBEZIUM, with a KEY."));
            }
            self.write_value(row, &mut value);
            let has_key = !self.settings.key.is_empty();
            if has_key {
                self.write_key(row, &self.key(row), &mut key);
            }
            for _ in 0..times {
                send(Message { key: has_key.then_some(&key), value: Some(&value) })?;
            }
        }
        Ok(())
    }

    /// The key as text, which tells keys apart whatever they are written as.
    fn key(&self, row: usize) -> String {
        let mut key = String::new();
        self.rows.write_json_object(self.settings.key.iter().copied(), row, &mut key);
        key
    }

    fn write_key(&self, row: usize, text: &str, out: &mut Vec<u8>) {
        out.clear();
        let Some(schemas) = self.schemas else { return out.extend_from_slice(text.as_bytes()) };
        schemas.write_head(schemas.key, out);
        self.write_columns(schemas, self.settings.key.iter().copied(), row, out);
    }

    fn write_value(&self, row: usize, out: &mut Vec<u8>) {
        out.clear();
        if let Some(schemas) = self.schemas {
            schemas.write_head(schemas.value, out);
            return self.write_columns(schemas, 0..schemas.nullable.len(), row, out);
        }
        let mut text = String::from_utf8(std::mem::take(out)).unwrap_or_default();
        match &self.settings.format {
            SinkFormat::Csv(options) => self.rows.write_csv(row, options, &mut text),
            _ => self.rows.write_json(row, &mut text),
        }
        *out = text.into_bytes();
    }

    fn write_columns(
        &self,
        schemas: &Written,
        columns: impl IntoIterator<Item = usize>,
        row: usize,
        out: &mut Vec<u8>,
    ) {
        match schemas.kind {
            SchemaKind::Protobuf => self.rows.write_protobuf(columns, row, out),
            _ => self.rows.write_avro(columns, &schemas.nullable, row, out),
        }
    }

    /// A change event of Debezium's.
    fn write_event(
        &self,
        added: Option<usize>,
        removed: Option<usize>,
        is_snapshot: bool,
        out: &mut Vec<u8>,
    ) {
        out.clear();
        let op = match (added, removed) {
            (Some(_), Some(_)) => "u",
            (None, _) => "d",
            (Some(_), None) if is_snapshot => "r",
            (Some(_), None) => "c",
        };
        let millis = world::now_micros() / 1000;
        let Some(schemas) = self.schemas else {
            return self.write_json_event([removed, added], op, millis, out);
        };
        schemas.write_head(schemas.value, out);
        let columns = 0..schemas.nullable.len();
        for (n, row) in [removed, added].into_iter().enumerate() {
            match (schemas.kind, row) {
                (SchemaKind::Protobuf, Some(row)) => {
                    let mut message = Vec::new();
                    self.rows.write_protobuf(columns.clone(), row, &mut message);
                    protobuf::write_field(n + 1, &message, out);
                }
                (SchemaKind::Protobuf, None) => (),
                (_, Some(row)) => {
                    out.push(2);
                    self.rows.write_avro(columns.clone(), &schemas.nullable, row, out);
                }
                (_, None) => out.push(0),
            }
        }
        if schemas.kind == SchemaKind::Protobuf {
            protobuf::write_field(3, op.as_bytes(), out);
            protobuf::write_integer(4, millis, out);
        } else {
            avro::write_bytes(op.as_bytes(), out);
            out.push(2);
            avro::write_long(millis, out);
        }
    }

    fn write_json_event(&self, images: [Option<usize>; 2], op: &str, millis: i64, out: &mut Vec<u8>) {
        let mut text = String::new();
        for (name, row) in ["{\"before\":", ",\"after\":"].into_iter().zip(images) {
            text.push_str(name);
            match row {
                Some(row) => self.rows.write_json(row, &mut text),
                None => text.push_str("null"),
            }
        }
        text.push_str(&format!(",\"op\":\"{op}\",\"ts_ms\":{millis}}}"));
        out.extend_from_slice(text.as_bytes());
    }
}
