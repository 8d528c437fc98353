//! The records that a change of a collection is written as, by envelope.

use std::collections::hash_map::Entry;

use ahash::AHashMap;
use arrow::array::RecordBatch;

use super::settings::SinkSettings;
use crate::connectors::Envelope;
use crate::connectors::format::encode::RowWriter;
use crate::error::{Error, Result, SqlState};
use crate::world;

/// A record to be written.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// The key's text; `None`: no key.
    pub key: Option<&'a str>,
    /// The value's text; `None`: a tombstone.
    pub value: Option<&'a str>,
}

/// Writes the rows of one batch.
pub struct Messages<'a> {
    settings: &'a SinkSettings,
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
    /// For a batch; `members` are the names of its columns' JSON members.
    ///
    /// # Errors
    /// 0A000 for a column's type that is not written.
    pub fn new(settings: &'a SinkSettings, members: &'a [String], batch: &'a RecordBatch) -> Result<Self> {
        Ok(Messages { settings, rows: RowWriter::new(batch, members)?, count: batch.num_rows() })
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
        let mut value = String::new();
        for (key, rows) in &order {
            let key = Some(key.as_str());
            value.clear();
            match (self.settings.envelope, rows.added, rows.removed) {
                (_, None, None) => (),
                (Envelope::Debezium, added, removed) => {
                    self.debezium(added, removed, is_snapshot, &mut value);
                    send(Message { key, value: Some(&value) })?;
                    if added.is_none() {
                        send(Message { key, value: None })?;
                    }
                }
                (_, Some(row), _) => {
                    self.value(row, &mut value);
                    send(Message { key, value: Some(&value) })?;
                }
                (_, None, Some(_)) => send(Message { key, value: None })?,
            }
        }
        Ok(())
    }

    fn append(
        &self,
        weight: impl Fn(usize) -> i64,
        mut send: impl FnMut(Message<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut value = String::new();
        for row in 0..self.count {
            let times = weight(row);
            if times < 0 {
                return Err(Error::new(
                    SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                    "a row goes, and a sink with ENVELOPE NONE can only append",
                )
                .with_hint("Use ENVELOPE UPSERT or DEBEZIUM, with a KEY."));
            }
            value.clear();
            self.value(row, &mut value);
            let key = (!self.settings.key.is_empty()).then(|| self.key(row));
            for _ in 0..times {
                send(Message { key: key.as_deref(), value: Some(&value) })?;
            }
        }
        Ok(())
    }

    fn key(&self, row: usize) -> String {
        let mut key = String::new();
        self.rows.write_json_object(self.settings.key.iter().copied(), row, &mut key);
        key
    }

    fn value(&self, row: usize, out: &mut String) {
        match &self.settings.csv {
            None => self.rows.write_json(row, out),
            Some(options) => self.rows.write_csv(row, options, out),
        }
    }

    fn debezium(&self, added: Option<usize>, removed: Option<usize>, is_snapshot: bool, out: &mut String) {
        let image = |name: &str, row: Option<usize>, out: &mut String| {
            out.push_str(name);
            match row {
                Some(row) => self.rows.write_json(row, out),
                None => out.push_str("null"),
            }
        };
        image("{\"before\":", removed, out);
        image(",\"after\":", added, out);
        let op = match (added, removed) {
            (Some(_), Some(_)) => 'u',
            (None, _) => 'd',
            (Some(_), None) if is_snapshot => 'r',
            (Some(_), None) => 'c',
        };
        out.push_str(",\"op\":\"");
        out.push(op);
        out.push_str("\",\"ts_ms\":");
        out.push_str(&(world::now_micros() / 1000).to_string());
        out.push('}');
    }
}
