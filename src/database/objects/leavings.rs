//! What dropped sources and sinks leave behind in other systems, until it is removed there.
//!
//! The note of it is durable before the object is gone, with everything that is needed to reach the system, so a
//! crash or an unreachable system only delays the removal: it is tried again when the directory is opened.

use std::sync::Arc;

use arrow::datatypes::Schema;
use serde::{Deserialize, Serialize};

use crate::connectors::{Envelope, FormatSpec, Include, SinkDefinition, SourceDefinition, registry};
use crate::database::{Database, connect};
use crate::error::{Error, Result};
use crate::sql::Catalog;
use crate::sql::catalog::{Column, Entry, Object, UuidText};

/// What is to be removed.
#[derive(Serialize, Deserialize)]
enum Leaving {
    Sink {
        name: String,
        uuid: UuidText,
        kind: String,
        connection: Vec<(String, String)>,
        options: Vec<(String, String)>,
        format: Option<FormatSpec>,
        envelope: Envelope,
        columns: Vec<Column>,
        key: Vec<usize>,
    },
    Source {
        name: String,
        kind: String,
        connection: Vec<(String, String)>,
        options: Vec<(String, String)>,
        format: Option<FormatSpec>,
        envelope: Envelope,
        includes: Vec<Include>,
        key: Vec<usize>,
    },
}

/// The note for an object that is being dropped; `None` for one that leaves nothing.
///
/// # Errors
/// A secret or connection it needs is gone.
pub(crate) fn note(catalog: &Catalog, entry: &Entry) -> Result<Option<Vec<u8>>> {
    let leaving = match &entry.object {
        Object::Sink(sink) => {
            let d = connect::sink_definition(catalog, &catalog.full_name(entry), sink)?;
            let (from, schema) = connect::followed_schema(catalog, sink)?;
            Leaving::Sink {
                name: d.name,
                uuid: sink.uuid,
                kind: d.kind,
                connection: d.connection,
                options: d.options,
                format: d.format,
                envelope: d.envelope,
                columns: from.columns().unwrap_or_default().to_vec(),
                key: connect::sink_key(sink, &schema)?,
            }
        }
        Object::Source(source) => {
            let d = connect::source_definition(catalog, &catalog.full_name(entry), source)?;
            Leaving::Source {
                name: d.name,
                kind: d.kind,
                connection: d.connection,
                options: d.options,
                format: d.format,
                envelope: d.envelope,
                includes: d.includes,
                key: d.key,
            }
        }
        _ => return Ok(None),
    };
    let json = serde_json::to_vec(&leaving);
    json.map(Some).map_err(|e| Error::internal(format!("a note cannot be stored: {e}")))
}

fn remove(json: &[u8]) -> Result<()> {
    let leaving: Leaving =
        serde_json::from_slice(json).map_err(|e| Error::internal(format!("a note cannot be read: {e}")))?;
    match leaving {
        Leaving::Sink { name, uuid, kind, connection, options, format, envelope, columns, key } => {
            // Whatever it followed was good enough for what it was.
            let (uuid, append_only) = (uuid.0, true);
            let definition =
                SinkDefinition { name, uuid, kind, connection, options, format, envelope, append_only };
            let schema = Arc::new(Schema::new(columns.iter().map(Column::field).collect::<Vec<_>>()));
            registry::sink(&definition, &schema, &key)?.clean_up()
        }
        Leaving::Source { name, kind, connection, options, format, envelope, includes, key } => {
            let definition =
                SourceDefinition { name, kind, connection, options, format, envelope, includes, key };
            registry::drop_source(&definition)
        }
    }
}

impl Database {
    /// Removes what one dropped object has left; the note goes with it.
    pub(crate) fn remove_leavings(&self, id: u64, json: &[u8]) -> Result<()> {
        remove(json)?;
        self.store.left_clean(id)
    }
}

/// Tries again, on a thread of its own, what an earlier drop could not remove.
pub(crate) fn sweep(database: &Arc<Database>) {
    let noted = match database.store.leavings() {
        Ok(noted) if noted.is_empty() => return,
        Ok(noted) => noted,
        Err(error) => {
            tracing::warn!(%error, "notes of dropped objects cannot be read");
            return;
        }
    };
    let database = Arc::clone(database);
    let work = move || {
        for (id, json) in noted {
            if let Err(error) = database.remove_leavings(id, &json) {
                tracing::warn!(object = id, %error, "what a dropped object left behind could not be removed");
            }
        }
    };
    if let Err(error) = std::thread::Builder::new().name("leavings".into()).spawn(work) {
        tracing::warn!(%error, "what dropped objects left behind is not removed");
    }
}
