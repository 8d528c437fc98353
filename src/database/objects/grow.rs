//! A table gets columns that have come upstream.
//!
//! Queries of views that were made before do not see them: what `*` and names without a table mean in them stays as it
//! was. The catalog's entry is durable before a row with the new columns can be written; a kill before that leaves the
//! table as it was, and the source finds the columns again.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{FieldRef, SchemaRef};

use crate::connectors::StopFlag;
use crate::database::store::CatalogBatch;
use crate::database::{Database, open};
use crate::error::{Error, Result, SqlState};
use crate::sql::ObjectId;
use crate::sql::catalog::{Column, Entry, Growth, Object};

/// How long it is waited for the catalog before the stop flag is looked at again: who changes it may wait for this source.
const POLL: Duration = Duration::from_millis(50);

impl Database {
    /// Adds columns to a table that a source fills, on that source's thread; those it has already are left out.
    /// Answers with all columns of the table.
    ///
    /// # Errors
    /// 2BP01 when a sink follows the table itself; 57014 when told to stop before it could be done.
    pub(crate) fn add_columns(
        &self,
        id: ObjectId,
        columns: &[FieldRef],
        stop: &StopFlag,
    ) -> Result<SchemaRef> {
        let _changing = loop {
            if let Some(changing) = self.changing.try_lock_for(POLL) {
                break changing;
            }
            if stop.is_set() {
                return Err(Error::new(SqlState::QUERY_CANCELED, "the source was told to stop"));
            }
        };
        let before = self.catalog();
        let mut catalog = (*before).clone();
        let current = catalog.get(id).cloned();
        let current = current.ok_or_else(|| Error::internal("the table was dropped meanwhile"))?;
        let mut entry = Entry::clone(&current);
        let Object::Table(table) = &mut entry.object else {
            return Err(Error::internal("what gets columns is no table"));
        };
        let new = columns.iter().filter(|new| !table.columns.iter().any(|c| c.name == *new.name()));
        let new: Vec<Column> =
            new.map(|field| Column { not_null: false, ..Column::from_field(field) }).collect();
        if !new.is_empty() {
            let sinks = catalog.dependants(id).into_iter().find(|e| matches!(e.object, Object::Sink(_)));
            if let Some(sink) = sinks {
                return Err(Error::new(
                    SqlState::DEPENDENT_OBJECTS_STILL_EXIST,
                    format!("sink \"{}\" follows table \"{}\" itself", sink.name, entry.name),
                )
                .with_hint("Let the sink follow a view with the columns that it needs."));
            }
            table.grown.push(Growth { columns: table.columns.len(), at: self.new_id()? });
            table.columns.extend(new);
            let spec = open::input(&entry).ok_or_else(|| Error::internal("a table without columns"))?;
            let (store, stored, recorded) = (Arc::clone(&self.store), entry.clone(), self.engine.recorded());
            self.engine.widen_input(spec, move || {
                let mut batch = CatalogBatch::default();
                batch.put_entry(&stored)?;
                batch.note_recorded(recorded);
                store.commit(batch)
            })?;
            catalog.replace(entry.clone())?;
            self.catalog.store(Arc::new(catalog));
            self.declare_indexes(&before);
        }
        entry.schema().ok_or_else(|| Error::internal("a table without columns"))
    }
}
