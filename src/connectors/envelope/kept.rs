//! What is kept of a record that was not understood, so that it can be decoded again when its source has learnt to.

use serde::{Deserialize, Serialize};

use super::{Decoder, NotUnderstood, Record};
use crate::connectors::BadRecord;
use crate::error::SqlState;

/// What a bad record had besides its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// The rest of it, as a JSON object.
    pub metadata: String,
}

/// The metadata, member by member; what a record does not have is left out.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Metadata {
    #[serde(skip_serializing_if = "String::is_empty")]
    topic: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<i64>,
    /// µs since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<serde_json::Value>,
    /// The line that names the columns, when it is not in the record itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    columns: Option<String>,
}

impl BadRecord {
    /// A record of a source that was not understood. `columns` is the line that has named the columns of CSV records,
    /// if it is not in the records themselves.
    pub fn of(
        record: &Record<'_>,
        why: NotUnderstood,
        position: String,
        columns: Option<&[u8]>,
    ) -> BadRecord {
        let raw = if why.of_key { record.key } else { record.value };
        let metadata = Metadata {
            topic: record.topic.to_string(),
            partition: (record.partition != 0).then_some(record.partition),
            offset: (record.offset != 0).then_some(record.offset),
            timestamp: record.timestamp_micros,
            headers: record.headers.and_then(|h| serde_json::from_str(h).ok()),
            columns: columns.map(|c| String::from_utf8_lossy(c).into_owned()),
        };
        // Of a bad key the value is not kept; members of plain types are always written.
        let metadata = serde_json::to_string(&metadata).ok().filter(|_| !why.of_key);
        let key = record.key.map(<[u8]>::to_vec);
        BadRecord {
            sqlstate: why.sqlstate.0,
            reason: why.reason,
            raw: raw.map(<[u8]>::to_vec),
            position,
            kept: metadata.map(|metadata| Kept { key, metadata }),
        }
    }
}

impl Decoder {
    /// Decodes a record again: its value, and what was kept of the rest of it.
    ///
    /// # Errors
    /// Why it is not understood, still; nothing of it stays.
    pub fn push_kept(
        &mut self,
        value: Option<&[u8]>,
        key: Option<&[u8]>,
        metadata: &str,
    ) -> Result<(), NotUnderstood> {
        let metadata: Metadata = serde_json::from_str(metadata).map_err(|e| NotUnderstood {
            sqlstate: SqlState::DATA_CORRUPTED,
            reason: format!("what was kept of the record cannot be read: {e}"),
            of_key: false,
        })?;
        if let Some(columns) = &metadata.columns {
            self.set_header(columns.as_bytes())?;
        }
        let headers = metadata.headers.map(|h| h.to_string());
        self.push(&Record {
            key,
            value,
            topic: &metadata.topic,
            partition: metadata.partition.unwrap_or(0),
            offset: metadata.offset.unwrap_or(0),
            timestamp_micros: metadata.timestamp,
            headers: headers.as_deref(),
        })
    }
}
