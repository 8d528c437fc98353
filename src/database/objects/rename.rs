//! ALTER … RENAME TO and SWAP WITH: the queries of views that name the object are written anew.
//!
//! `FROM t` becomes `FROM t2 AS t`, so whatever is qualified by the old name goes on meaning the same. A view goes on
//! reading the objects it was made over, whatever they are called: names are only how text finds them.

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

/// Exchanges the names, and the schemas, of two objects of a changing catalog.
pub(super) fn swap(
    database: &Database,
    catalog: &mut Catalog,
    batch: &mut CatalogBatch,
    a: &Entry,
    b: &Entry,
) -> Result<()> {
    let before = catalog.unscoped();
    catalog.swap(a.id, b.id)?;
    let mut names = Vec::new();
    for id in [a.id, b.id] {
        if let Some(entry) = catalog.get(id) {
            batch.put_entry(entry)?;
            names.push((id, catalog.qualified(entry)));
        }
    }
    if !matches!(
        a.kind(),
        ObjectKind::Table | ObjectKind::Source | ObjectKind::View | ObjectKind::MaterializedView
    ) {
        return Ok(());
    }
    queries::rewrite(database, catalog, batch, &[a.id, b.id], &mut |written| {
        let found = before.find_relation(written)?.id;
        names.iter().find(|(id, _)| *id == found).map(|(_, name)| name.clone())
    })
}
