//! CREATE INDEX: recorded and checked; look-ups need no help yet.

use crate::database::objects::claim;
use crate::database::{Database, Notice};
use crate::error::{Error, Result, SqlState};
use crate::sql::ast::{CreateIndex, ObjectKind};
use crate::sql::catalog::{Entry, Index, Object};
use crate::sql::{Catalog, Name};

/// The name PostgreSQL would choose: `orders_customer_id_idx`, with a number when it is taken.
fn chosen_name(catalog: &Catalog, on: &str, columns: &[String]) -> String {
    let base = format!("{on}_{}_idx", columns.join("_"));
    let taken = |name: &str| catalog.check_free(ObjectKind::Index, &Name::bare(name)).is_err();
    let mut name = base.clone();
    let mut n = 1;
    while taken(&name) {
        name = format!("{base}{n}");
        n += 1;
    }
    name
}

impl Database {
    /// CREATE INDEX.
    pub(crate) fn create_index(&self, owner: &str, create: &CreateIndex) -> Result<Vec<Notice>> {
        let mut notices = Vec::new();
        let catalog = self.catalog();
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
            Some(name) => claim(&catalog, ObjectKind::Index, name, create.if_not_exists, &mut notices)?,
            None => Some(chosen_name(&catalog, &on.name, &create.columns)),
        };
        if let Some(name) = name {
            let object = Object::Index(Index { on: on.id, columns: create.columns.clone() });
            self.add(&[Entry::new(self.new_id()?, name, owner, object)])?;
        }
        Ok(notices)
    }
}
