//! CREATE INDEX: checked, recorded, and declared to the engine.

use std::collections::BTreeMap;

use crate::database::objects::claim;
use crate::database::{Database, Notice};
use crate::error::{Error, Result, SqlState};
use crate::sql::ast::{CreateIndex, ObjectKind};
use crate::sql::catalog::{Entry, Index, Object};
use crate::sql::{Catalog, Name, ObjectId, SessionInfo};

/// The name PostgreSQL would choose: `orders_customer_id_idx`, with a number when it is taken.
fn chosen_name(catalog: &Catalog, on: &Entry, columns: &[String]) -> Name {
    let base = format!("{}_{}_idx", on.name, columns.join("_"));
    let beside = |name: &str| Name { name: name.to_string(), ..catalog.qualified(on) };
    let taken = |name: &str| catalog.check_free(ObjectKind::Index, &beside(name)).is_err();
    let mut name = base.clone();
    let mut n = 1;
    while taken(&name) {
        name = format!("{base}{n}");
        n += 1;
    }
    beside(&name)
}

/// A name that was written, in the schema of the relation: an index has no other.
///
/// # Errors
/// 42601 for another schema.
fn name_beside(catalog: &Catalog, on: &Entry, written: &Name) -> Result<Name> {
    let beside = Name { name: written.name.clone(), ..catalog.qualified(on) };
    match &written.schema {
        Some(schema) if Some(schema) != beside.schema.as_ref() => Err(Error::new(
            SqlState::SYNTAX_ERROR,
            format!("an index is in the schema of its relation: \"{}\"", written.shown()),
        )),
        _ => Ok(beside),
    }
}

impl Database {
    /// Tells the engine which columns have indexes now, of every relation that has some or had some `before`.
    pub(crate) fn declare_indexes(&self, before: &Catalog) {
        let (catalog, snapshot) = (self.catalog(), self.engine.snapshot());
        let mut indexed: BTreeMap<ObjectId, Vec<Vec<usize>>> = BTreeMap::new();
        for (is_now, entry) in
            before.entries().map(|e| (false, e)).chain(catalog.entries().map(|e| (true, e)))
        {
            let Object::Index(index) = &entry.object else { continue };
            let indexes = indexed.entry(index.on).or_default();
            let Some(on) = catalog.get(index.on).filter(|_| is_now) else { continue };
            let position = |name: &String| on.columns()?.iter().position(|column| column.name == *name);
            indexes.extend(index.columns.iter().map(position).collect::<Option<Vec<_>>>());
        }
        for (on, indexes) in indexed {
            // A plain view is no collection: what reads it reads what it is made of.
            if let Some(collection) = snapshot.collection(on.collection()) {
                collection.declare_indexes(&indexes);
            }
        }
    }

    /// CREATE INDEX.
    pub(crate) fn create_index(&self, by: &SessionInfo, create: &CreateIndex) -> Result<Vec<Notice>> {
        let mut notices = Vec::new();
        let catalog = by.sees(&self.catalog());
        let on = catalog.require_relation(&create.on)?;
        let columns = on.columns().unwrap_or_default();
        for column in &create.columns {
            if !columns.iter().any(|c| c.name == *column) {
                return Err(Error::new(
                    SqlState::UNDEFINED_COLUMN,
                    format!("column \"{column}\" does not exist"),
                ));
            }
        }
        let name = match &create.name {
            Some(name) => name_beside(&catalog, on, name)?,
            None => chosen_name(&catalog, on, &create.columns),
        };
        let place = claim(&catalog, ObjectKind::Index, &name, create.if_not_exists, &mut notices)?;
        if let Some(place) = place {
            let object = Object::Index(Index { on: on.id, columns: create.columns.clone() });
            self.add(&[Entry::new(self.new_id()?, place, &by.user, object)])?;
        }
        Ok(notices)
    }
}
