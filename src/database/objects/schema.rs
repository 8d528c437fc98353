//! CREATE SCHEMA, ALTER SCHEMA … RENAME TO, and ALTER … SET SCHEMA.
//!
//! Objects name their schema by its id, so nothing in it changes with its name but the queries of views that write it.

use crate::database::objects::queries;
use crate::database::store::CatalogBatch;
use crate::database::{Database, Notice};
use crate::error::{Error, Result, SqlState};
use crate::names::{Name, PUBLIC, SYSTEM_SCHEMAS};
use crate::sql::ast::{CreateSchema, ObjectKind};
use crate::sql::catalog::{Catalog, Entry, Object, ObjectId, no_schema};
use crate::sql::plan::SessionInfo;

/// Whether a schema of this name may be dropped.
///
/// # Errors
/// 2BP01 for the system's, 0A000 for `public`.
pub(super) fn check_droppable(name: &str) -> Result<()> {
    if SYSTEM_SCHEMAS.contains(&name) {
        return Err(Error::new(
            SqlState::DEPENDENT_OBJECTS_STILL_EXIST,
            format!("cannot drop schema {name} because it is required by the database system"),
        ));
    }
    if name == PUBLIC {
        return Err(Error::unsupported("DROP SCHEMA public").with_hint(
            "Drop what is in it, or put what is to be dropped together into a schema of its own.",
        ));
    }
    Ok(())
}

/// Whether a schema of this name may be given another name or owner.
///
/// # Errors
/// 42501 for the system's, 0A000 for `public`.
pub(super) fn check_changeable(name: &str) -> Result<()> {
    if SYSTEM_SCHEMAS.contains(&name) {
        return Err(Error::new(SqlState("42501"), format!("permission denied for schema {name}"))
            .with_detail("System schemas cannot be changed."));
    }
    if name == PUBLIC {
        return Err(
            Error::unsupported("ALTER SCHEMA public").with_hint("Create a schema of that name instead.")
        );
    }
    Ok(())
}

impl Database {
    /// CREATE SCHEMA.
    pub(crate) fn create_schema(&self, by: &SessionInfo, create: &CreateSchema) -> Result<Vec<Notice>> {
        let mut notices = Vec::new();
        let catalog = by.sees(&self.catalog());
        catalog.check_database(&create.name)?;
        match catalog.check_new_schema(&create.name.name) {
            Ok(()) => {
                let owner = create.owner.as_ref().unwrap_or(&by.user);
                let name = create.name.name.as_str();
                self.add(&[Entry::new(self.new_id()?, name, owner, Object::Schema)])?;
            }
            Err(e) if create.if_not_exists && e.sqlstate == SqlState::DUPLICATE_SCHEMA => {
                let mut notice = Notice::new(format!("{}, skipping", e.message));
                notice.sqlstate = e.sqlstate.0;
                notices.push(notice);
            }
            Err(e) => return Err(e),
        }
        Ok(notices)
    }
}

/// Gives a schema of a changing catalog another name.
pub(super) fn rename(
    database: &Database,
    catalog: &mut Catalog,
    batch: &mut CatalogBatch,
    mut schema: Entry,
    name: &str,
) -> Result<Entry> {
    catalog.check_new_schema(name)?;
    let old = std::mem::replace(&mut schema.name, name.to_string());
    catalog.replace(schema.clone())?;
    batch.put_entry(&schema)?;
    let inside: Vec<ObjectId> = catalog.entries().filter(|e| e.schema == schema.id).map(|e| e.id).collect();
    queries::rewrite(database, catalog, batch, &inside, &mut |written| {
        (written.schema.as_ref() == Some(&old))
            .then(|| Name { schema: Some(name.to_string()), ..written.clone() })
    })?;
    Ok(schema)
}

/// Moves an object of a changing catalog into another schema; the indexes of a relation go with it.
pub(super) fn move_to(
    database: &Database,
    catalog: &mut Catalog,
    batch: &mut CatalogBatch,
    mut entry: Entry,
    name: &str,
) -> Result<Entry> {
    match entry.kind() {
        ObjectKind::Table
        | ObjectKind::Source
        | ObjectKind::View
        | ObjectKind::MaterializedView
        | ObjectKind::Sink => {}
        kind => return Err(Error::unsupported(format!("ALTER {} … SET SCHEMA", kind.keyword()))),
    }
    if SYSTEM_SCHEMAS.contains(&name) {
        return Err(Error::new(SqlState("42501"), format!("permission denied for schema {name}"))
            .with_detail("System schemas cannot be changed."));
    }
    let schema = catalog.schema(name).ok_or_else(|| no_schema(name))?.id;
    if schema == entry.schema {
        return Ok(entry);
    }
    let before = catalog.unscoped();
    entry.schema = schema;
    catalog.replace(entry.clone()).map_err(|e| match e.sqlstate {
        SqlState::DUPLICATE_TABLE => {
            Error::new(e.sqlstate, format!("relation \"{}\" already exists in schema \"{name}\"", entry.name))
        }
        _ => e,
    })?;
    batch.put_entry(&entry)?;
    let indexes: Vec<Entry> = catalog
        .entries()
        .filter(|e| matches!(&e.object, Object::Index(index) if index.on == entry.id))
        .map(|e| Entry { schema, ..Entry::clone(e) })
        .collect();
    for index in indexes {
        catalog.replace(index.clone())?;
        batch.put_entry(&index)?;
    }
    if entry.kind() != ObjectKind::Sink {
        let is_it = |written: &Name| before.find_relation(written).is_some_and(|found| found.id == entry.id);
        queries::rewrite(database, catalog, batch, &[entry.id], &mut |written| {
            is_it(written).then(|| Name::qualified(name, written.name.as_str()))
        })?;
    }
    Ok(entry)
}
