//! The stored queries of views, written anew where a name in them changes.
//!
//! What is stored is read with the eyes of nobody in particular: names without a schema are those of `public`. Every
//! rewritten query is planned before anything changes, and must read the same objects as before.

use std::sync::Arc;

use crate::database::Database;
use crate::database::store::CatalogBatch;
use crate::error::{Error, Result, SqlState};
use crate::sql::ast::ObjectKind;
use crate::sql::catalog::{Catalog, Entry, Object, PathSchema};
use crate::sql::parser::{parse_query, query_text};
use crate::sql::plan::{Planner, SessionInfo, SystemCatalog, ViewPlan, rename_relations};
use crate::sql::{Name, ObjectId};

/// The query of a new view as it is stored: what a session's `search_path` finds is named with its schema.
///
/// # Errors
/// 0A000 when it cannot be written so that it means the same.
pub(super) fn stored(
    database: &Database,
    seen: &Catalog,
    text: &str,
    columns: &[String],
    plan: &ViewPlan,
) -> Result<String> {
    if seen.is_unscoped() {
        return Ok(text.to_string());
    }
    let session = SessionInfo::default();
    let system = database.system(&session, Vec::new());
    let mut query = parse_query(text)?;
    rename_relations(&mut query, &mut |name| qualified(seen, &system, name))?;
    let text = query_text(&query);
    check(database, &seen.unscoped(), &text, columns, &plan.uses).map_err(|e| {
        Error::unsupported("a view over these relations with this search_path")
            .with_detail(format!("Its query cannot be written without search_path: {e}"))
            .with_hint("Write the names with their schemas.")
    })?;
    Ok(text)
}

/// A name with the schema in which it is found, unless that is understood.
fn qualified(seen: &Catalog, system: &dyn SystemCatalog, name: &Name) -> Option<Name> {
    if name.schema.is_some()
        || (name.name.starts_with("pg_") && system.table("pg_catalog", &name.name).is_some())
    {
        return None;
    }
    seen.path().iter().find_map(|schema| match schema {
        PathSchema::System(schema) => {
            system.table(schema, &name.name).map(|_| Name::qualified(*schema, name.name.as_str()))
        }
        PathSchema::Users(id) => seen.relation_in(*id, &name.name).map(|entry| seen.qualified(entry)),
    })
}

/// Writes the queries of the views that read one of `changed` anew: `rename` says what is called otherwise from now on.
/// `catalog` has the new names already.
///
/// # Errors
/// 2BP01 when one of them cannot be.
pub(super) fn rewrite(
    database: &Database,
    catalog: &mut Catalog,
    batch: &mut CatalogBatch,
    changed: &[ObjectId],
    rename: &mut dyn FnMut(&Name) -> Option<Name>,
) -> Result<()> {
    let views: Vec<Arc<Entry>> = catalog
        .entries()
        .filter(|e| matches!(e.kind(), ObjectKind::View | ObjectKind::MaterializedView))
        .filter(|e| e.uses.iter().any(|id| changed.contains(id)))
        .cloned()
        .collect();
    for view in views {
        let rewritten = rewritten(database, catalog, &view, rename).map_err(|why| {
            let (kind, name) = (view.kind().noun(), catalog.shown(&view));
            Error::new(
                SqlState::DEPENDENT_OBJECTS_STILL_EXIST,
                format!("cannot change a name because the query of {kind} {name} cannot be written anew"),
            )
            .with_detail(why.to_string())
        })?;
        catalog.replace(rewritten.clone())?;
        batch.put_entry(&rewritten)?;
    }
    Ok(())
}

fn rewritten(
    database: &Database,
    catalog: &Catalog,
    view: &Entry,
    rename: &mut dyn FnMut(&Name) -> Option<Name>,
) -> Result<Entry> {
    let mut entry = view.clone();
    let columns: Vec<String> = view.columns().unwrap_or_default().iter().map(|c| c.name.clone()).collect();
    let made = view.made();
    let mut texts: Vec<(&mut String, &[ObjectId], ObjectId)> = match &mut entry.object {
        Object::View(v) => vec![(&mut v.query, &view.uses, made)],
        Object::MaterializedView(v) => {
            let reads = if v.former.is_empty() { &view.uses } else { &v.reads };
            let former = v
                .former
                .iter_mut()
                .map(|former| (&mut former.query, &former.uses[..], former.as_of.unwrap_or(view.id)));
            std::iter::once((&mut v.query, &reads[..], made)).chain(former).collect()
        }
        _ => return Err(Error::internal("a view is not a view")),
    };
    for (text, uses, made) in &mut texts {
        let mut query = parse_query(text)?;
        rename_relations(&mut query, rename)?;
        **text = query_text(&query);
        check(database, &catalog.unscoped().as_of(*made), text, &columns, uses)?;
    }
    Ok(entry)
}

/// The proof that a query means what it meant: it reads these objects and no others.
fn check(
    database: &Database,
    catalog: &Catalog,
    text: &str,
    columns: &[String],
    uses: &[ObjectId],
) -> Result<()> {
    let session = SessionInfo::default();
    let system = database.system(&session, Vec::new());
    let plan =
        Planner::new(catalog, &session, Some(&system)).plan_view(&*parse_query(text)?, columns, text)?;
    let sorted = |ids: &[ObjectId]| {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids
    };
    if sorted(&plan.uses) != sorted(uses) {
        return Err(Error::internal("the rewritten query reads other objects"));
    }
    Ok(())
}
