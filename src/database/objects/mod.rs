//! Creating, changing and dropping objects, one file a family.
//!
//! The order of effects is the same everywhere: first what vanishes with the process (collections of the engine,
//! subscriptions), then the catalog's entry, durably, then the threads. A kill between any two leaves a directory in
//! which the object either exists as a whole or does not exist.

pub(crate) mod alter;
pub(crate) mod connection;
pub(crate) mod drop;
pub(crate) mod former;
mod grow;
pub(crate) mod index;
pub(crate) mod leavings;
mod queries;
mod rename;
pub(crate) mod schema;
pub(crate) mod sink;
pub(crate) mod source;
pub(crate) mod table;
pub(crate) mod view;

use std::sync::Arc;

use crate::database::store::CatalogBatch;
use crate::database::{Database, Notice};
use crate::error::{Error, Result, SqlState};
use crate::sql::ast::ObjectKind;
use crate::sql::catalog::{Entry, Place};
use crate::sql::{Catalog, Name, ObjectId};

impl CatalogBatch {
    /// Stores an object.
    pub fn put_entry(&mut self, entry: &Entry) -> Result<()> {
        let json = serde_json::to_vec(entry)
            .map_err(|e| Error::internal(format!("object \"{}\" cannot be stored: {e}", entry.name)))?;
        self.put(entry.id.0, json);
        Ok(())
    }
}

impl Database {
    /// Changes the catalog: what `change` does to it becomes durable and visible, all or nothing.
    pub(crate) fn change_catalog<T>(
        &self,
        change: impl FnOnce(&mut Catalog, &mut CatalogBatch) -> Result<T>,
    ) -> Result<T> {
        let _changing = self.changing.lock();
        let mut catalog = (*self.catalog()).clone();
        let mut batch = CatalogBatch::default();
        let result = change(&mut catalog, &mut batch)?;
        batch.note_recorded(self.engine.recorded());
        self.store.commit(batch)?;
        let before = self.catalog.swap(Arc::new(catalog));
        self.declare_indexes(&before);
        Ok(result)
    }

    /// Adds objects, together. What they use must still be there.
    pub(crate) fn add(&self, entries: &[Entry]) -> Result<()> {
        self.change_catalog(|catalog, batch| {
            for entry in entries {
                insert(catalog, batch, entry)?;
            }
            Ok(())
        })
    }

    /// A new identity for an object.
    pub(crate) fn new_id(&self) -> Result<ObjectId> {
        self.store.next_id().map(ObjectId)
    }

    /// Takes collections of the engine away that no catalog entry stands for.
    pub(crate) fn discard(&self, ids: &[ObjectId]) {
        let mut collections: Vec<_> = ids.iter().map(|id| id.collection()).collect();
        collections.extend(self.subscriptions.take_readers(&collections));
        if let Err(error) = self.engine.drop_collections(&collections) {
            tracing::warn!(?collections, %error, "collections could not be dropped; they go with the process");
        }
    }
}

/// Puts an object into a changing catalog.
pub(crate) fn insert(catalog: &mut Catalog, batch: &mut CatalogBatch, entry: &Entry) -> Result<()> {
    for id in entry.uses.iter().chain([&entry.schema]) {
        if catalog.get(*id).is_none() {
            return Err(Error::new(
                SqlState::UNDEFINED_OBJECT,
                format!(
                    "something that {} \"{}\" uses was dropped meanwhile",
                    entry.kind().noun(),
                    entry.name
                ),
            ));
        }
    }
    if matches!(entry.kind(), ObjectKind::View | ObjectKind::MaterializedView) {
        catalog.check_seen_whole(&entry.uses, entry.made())?;
    }
    catalog.insert(entry.clone())?;
    batch.put_entry(entry)
}

/// Whether a new object's name is free: where it goes, or `None` and a notice with IF NOT EXISTS.
pub(crate) fn claim(
    catalog: &Catalog,
    kind: ObjectKind,
    name: &Name,
    if_not_exists: bool,
    notices: &mut Vec<Notice>,
) -> Result<Option<Place>> {
    match catalog.check_free(kind, name) {
        Ok(place) => Ok(Some(place)),
        Err(e)
            if if_not_exists
                && (e.sqlstate == SqlState::DUPLICATE_TABLE || e.sqlstate == SqlState::DUPLICATE_OBJECT) =>
        {
            let mut notice = Notice::new(format!("{}, skipping", e.message));
            notice.sqlstate = e.sqlstate.0;
            notices.push(notice);
            Ok(None)
        }
        Err(e) => Err(e),
    }
}
