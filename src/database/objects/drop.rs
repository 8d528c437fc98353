//! DROP.

use std::collections::HashSet;
use std::sync::Arc;

use crate::database::objects::former::{self, When};
use crate::database::objects::{leavings, schema};
use crate::database::{Database, Notice, system};
use crate::engine::Transaction;
use crate::error::{Result, SqlState};
use crate::sql::ast::{Drop, ObjectKind};
use crate::sql::catalog::{Catalog, DropOrder, Entry, Object};
use crate::sql::{ObjectId, SessionInfo};

/// What goes, by the names of the statement.
fn named(catalog: &Catalog, drop: &Drop, notices: &mut Vec<Notice>) -> Result<Vec<ObjectId>> {
    let mut ids = Vec::new();
    for name in &drop.names {
        if drop.kind == ObjectKind::Schema {
            schema::check_droppable(&name.name)?;
        }
        match catalog.require(drop.kind, name) {
            Ok(entry) => ids.push(entry.id),
            Err(e)
                if drop.if_exists
                    && matches!(
                        e.sqlstate,
                        SqlState::UNDEFINED_TABLE
                            | SqlState::UNDEFINED_OBJECT
                            | SqlState::INVALID_SCHEMA_NAME
                    ) =>
            {
                notices.push(Notice::new(format!("{}, skipping", e.message)));
            }
            Err(e) => return Err(e),
        }
    }
    Ok(ids)
}

fn cascade_notice(catalog: &Catalog, order: &DropOrder) -> Option<Notice> {
    let what = |e: &Arc<Entry>| format!("drop cascades to {} {}", e.kind().noun(), catalog.shown(e));
    match &order.cascaded[..] {
        [] => None,
        [one] => Some(Notice::new(what(one))),
        several => {
            let mut notice = Notice::new(format!("drop cascades to {} other objects", several.len()));
            notice.detail = Some(several.iter().map(what).collect::<Vec<_>>().join("\n"));
            Some(notice)
        }
    }
}

impl Database {
    /// DROP. Blocks until connectors have stopped.
    pub(crate) fn drop_objects(&self, by: &SessionInfo, drop: &Drop) -> Result<Vec<Notice>> {
        let mut notices = Vec::new();
        let ids = named(&by.sees(&self.catalog()), drop, &mut notices)?;
        notices.extend(self.drop_ids(by, &ids, drop.cascade)?);
        Ok(notices)
    }

    /// Drops what a transaction has created and what has come to depend on it.
    pub(crate) fn drop_created(&self, created: Vec<ObjectId>) -> Result<()> {
        let catalog = self.catalog();
        let there: Vec<_> = created.into_iter().filter(|id| catalog.get(*id).is_some()).collect();
        self.drop_ids(&SessionInfo::default(), &there, true).map(|_| ())
    }

    /// Drops objects by identity. Blocks until connectors have stopped.
    pub(crate) fn drop_ids(&self, by: &SessionInfo, ids: &[ObjectId], cascade: bool) -> Result<Vec<Notice>> {
        let mut notices = Vec::new();
        if ids.is_empty() {
            return Ok(notices);
        }
        let mut stopped = Vec::new();
        let dropped = self.change_catalog(|catalog, batch| {
            former::forget(catalog, batch, &self.store, When::Running)?;
            let seen = by.sees(catalog);
            let order = seen.drop_order(ids, cascade)?;
            let notice = cascade_notice(&seen, &order);
            let mut noted = Vec::new();
            for entry in &order.all {
                // Something that cannot be reached any more must not keep its object from being dropped.
                match leavings::note(catalog, entry) {
                    Ok(Some(json)) => {
                        batch.leave(entry.id.0, json.clone());
                        noted.push((Arc::clone(entry), json));
                    }
                    Ok(None) => {}
                    Err(error) => tracing::warn!(object = entry.name, %error, "dropped without a clean-up"),
                }
            }
            // Connectors write through the catalog's objects: they stop before these go.
            for entry in &order.all {
                self.workers.stop(entry.id)?;
                stopped.push(Arc::clone(entry));
            }
            for entry in &order.all {
                batch.remove(entry.id.0);
                catalog.remove(entry.id);
            }
            Ok((order, noted, notice))
        });
        let (order, noted, cascaded) = match dropped {
            Ok(dropped) => dropped,
            Err(error) => {
                // Nothing was dropped: what was stopped for it goes on.
                for entry in stopped {
                    if let Err(error) = self.pause_or_resume(&entry) {
                        self.workers.fail(entry.id, &error);
                    }
                }
                return Err(error);
            }
        };
        notices.extend(cascaded);
        self.after_drop(&order.all);
        for (entry, json) in noted {
            if let Err(error) = self.remove_leavings(entry.id.0, &json) {
                let (kind, name) = (entry.kind().noun(), &entry.name);
                let message = format!("what {kind} \"{name}\" left behind could not be removed: {error}");
                tracing::warn!("{message}");
                let mut notice = Notice::warning(error.sqlstate.0, message);
                notice.hint = Some("It is tried again when the database is opened.".into());
                notices.push(notice);
            }
        }
        Ok(notices)
    }

    /// Nobody asks any more which files a dropped source has read.
    fn forget_files(&self, id: ObjectId) -> Result<()> {
        let Some(rows) = system::forgotten_rows(&self.engine, id)? else { return Ok(()) };
        let transaction = Transaction { changes: vec![(system::FILES, rows)], progress: Vec::new() };
        self.engine.submit(transaction).wait().map(|_| ())
    }

    /// Takes away what dropped objects were in the process, and lets sources know of tables that are gone.
    pub(crate) fn after_drop(&self, dropped: &[Arc<Entry>]) {
        let mut collections: Vec<ObjectId> = Vec::new();
        for entry in dropped {
            self.workers.remove(entry.id);
            let failed = self.failed.lock().remove(&entry.id).is_some();
            if entry.is_collection() && !failed {
                collections.push(entry.id);
            }
        }
        let catalog = self.catalog();
        let mut restarted = HashSet::new();
        for entry in dropped {
            if let Object::Table(table) = &entry.object
                && let Some((source, _)) = &table.source
                && let Some(source) = catalog.get(*source)
                && restarted.insert(source.id)
            {
                // Before the collection goes, so that no batch is on its way to it.
                self.start_source(source);
            }
        }
        if !collections.is_empty() {
            self.discard(&collections);
        }
        for entry in dropped {
            if let Object::Source(source) = &entry.object
                && source.kind == "files"
                && let Err(error) = self.forget_files(entry.id)
            {
                tracing::warn!(source = entry.name, %error, "what is remembered of its files stays");
            }
        }
        for entry in dropped.iter().filter(|e| e.kind() == ObjectKind::Table) {
            self.writer.forget(entry.id.collection());
        }
    }
}
