//! ALTER … RENAME TO: the queries of views that name the object are written anew.
//!
//! `FROM t` becomes `FROM t2 AS t`, so whatever is qualified by the old name goes on meaning the same.

use crate::database::Database;
use crate::database::objects::queries;
use crate::database::store::CatalogBatch;
use crate::error::Result;
use crate::sql::Name;
use crate::sql::ast::ObjectKind;
use crate::sql::catalog::{Catalog, Entry};

/// Gives an object of a changing catalog another name.
pub(super) fn rename(
    database: &Database,
    catalog: &mut Catalog,
    batch: &mut CatalogBatch,
    mut entry: Entry,
    name: &str,
) -> Result<Entry> {
    let relation = matches!(
        entry.kind(),
        ObjectKind::Table | ObjectKind::Source | ObjectKind::View | ObjectKind::MaterializedView
    );
    if !relation {
        catalog.check_rename(&entry)?;
    }
    let before = catalog.unscoped();
    entry.name = name.to_string();
    catalog.replace(entry.clone())?;
    batch.put_entry(&entry)?;
    let is_it = |written: &Name| before.find_relation(written).is_some_and(|found| found.id == entry.id);
    queries::rewrite(database, catalog, batch, &[entry.id], &mut |written| {
        is_it(written).then(|| Name { name: name.to_string(), ..written.clone() })
    })?;
    Ok(entry)
}
