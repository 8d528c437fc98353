//! ALTER … RENAME TO: the queries of views that name the object are written anew.
//!
//! `FROM t` becomes `FROM t2 AS t`, so whatever is qualified by the old name goes on meaning the same. Every rewritten
//! query is planned before anything changes: it must read the same objects and give the same columns.

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::sql::sqlparser::ast::{Ident, Query, TableAlias, TableFactor, VisitorMut};

use crate::database::Database;
use crate::database::store::CatalogBatch;
use crate::error::{Error, Result, SqlState};
use crate::names::fold;
use crate::sql::ast::ObjectKind;
use crate::sql::catalog::{Catalog, Entry, Object};
use crate::sql::parser::{parse_query, query_text};
use crate::sql::plan::{Planner, SessionInfo, windowed_relation};
use crate::sql::walk::walk_mut;

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
    let old = std::mem::replace(&mut entry.name, name.to_string());
    let views: Vec<Arc<Entry>> = catalog
        .dependants(entry.id)
        .into_iter()
        .filter(|e| matches!(e.kind(), ObjectKind::View | ObjectKind::MaterializedView))
        .cloned()
        .collect();
    catalog.replace(entry.clone())?;
    batch.put_entry(&entry)?;
    for view in views {
        let rewritten =
            rewritten(database, catalog, &view, &old, name).map_err(|e| refused(&entry, &old, &view, &e))?;
        catalog.replace(rewritten.clone())?;
        batch.put_entry(&rewritten)?;
    }
    Ok(entry)
}

fn refused(entry: &Entry, old: &str, view: &Entry, why: &Error) -> Error {
    Error::new(
        SqlState::DEPENDENT_OBJECTS_STILL_EXIST,
        format!(
            "cannot rename {} {old} because the query of {} {} cannot be written anew",
            entry.kind().noun(),
            view.kind().noun(),
            view.name
        ),
    )
    .with_detail(why.to_string())
}

/// A view whose query names the object by its new name.
fn rewritten(database: &Database, catalog: &Catalog, view: &Entry, old: &str, new: &str) -> Result<Entry> {
    let mut entry = view.clone();
    let text = match &mut entry.object {
        Object::View(v) => &mut v.query,
        Object::MaterializedView(v) => &mut v.query,
        _ => return Err(Error::internal("a view is not a view")),
    };
    let mut query = parse_query(text)?;
    let mut renaming = Renaming { old, new, shadowed: false };
    let _ = walk_mut(&mut *query, &mut renaming);
    if renaming.shadowed {
        return Err(Error::new(
            SqlState::DEPENDENT_OBJECTS_STILL_EXIST,
            format!("a WITH query of the same name stands in it: \"{old}\""),
        ));
    }
    *text = query_text(&query);
    // The proof that it means the same.
    let session = SessionInfo::default();
    let system = database.system(&session.user, &session.database, Vec::new());
    let columns: Vec<String> = view.columns().unwrap_or_default().iter().map(|c| c.name.clone()).collect();
    let plan =
        Planner::new(catalog, &session, Some(&system)).plan_view(&*parse_query(text)?, &columns, text)?;
    let mut uses = plan.uses;
    let mut before = view.uses.clone();
    uses.sort_unstable();
    before.sort_unstable();
    if uses != before {
        return Err(Error::internal("the rewritten query reads other objects"));
    }
    Ok(entry)
}

struct Renaming<'a> {
    old: &'a str,
    new: &'a str,
    /// A WITH query has the old name.
    shadowed: bool,
}

impl VisitorMut for Renaming<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if let Some(with) = &query.with {
            self.shadowed |= with.cte_tables.iter().any(|cte| fold(&cte.alias.name) == self.old);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let Some(relation) = windowed_relation(factor) {
            if fold(relation) == self.old {
                let kept = std::mem::replace(relation, Ident::with_quote('"', self.new));
                if let TableFactor::Table { alias: alias @ None, .. }
                | TableFactor::TableFunction { alias: alias @ None, .. } = factor
                {
                    *alias = Some(TableAlias { explicit: true, name: kept, columns: Vec::new(), at: None });
                }
            }
            return ControlFlow::Continue(());
        }
        let TableFactor::Table { name, alias, .. } = factor else { return ControlFlow::Continue(()) };
        let Some(last) = name.0.last_mut().and_then(|part| match part {
            datafusion::sql::sqlparser::ast::ObjectNamePart::Identifier(ident) => Some(ident),
            _ => None,
        }) else {
            return ControlFlow::Continue(());
        };
        if fold(last) == self.old {
            let kept = std::mem::replace(last, Ident::with_quote('"', self.new));
            if alias.is_none() {
                *alias = Some(TableAlias { explicit: true, name: kept, columns: Vec::new(), at: None });
            }
        }
        ControlFlow::Continue(())
    }
}
