//! Views: those computed when they are read, and those kept up to date.

use std::sync::Arc;

use crate::database::objects::{claim, insert, queries};
use crate::database::{Database, Notice};
use crate::engine::ViewSpec;
use crate::error::{Error, Result, SqlState};
use crate::sql::ast::{CreateView, ObjectKind};
use crate::sql::catalog::{Column, Entry, MaterializedView, Object, View};
use crate::sql::parser::parse_query;
use crate::sql::plan::{Planner, SessionInfo};
use crate::sql::{Catalog, Name};

/// The engine's view for a catalog entry, planned from its text.
pub(crate) fn spec(catalog: &Catalog, entry: &Entry, view: &MaterializedView) -> Result<ViewSpec> {
    let query = parse_query(&view.query)?;
    let names: Vec<String> = view.columns.iter().map(|c| c.name.clone()).collect();
    let session = SessionInfo::default();
    let unscoped = catalog.unscoped();
    let planner = Planner::new(&unscoped, &session, None);
    let plan = match view.on_close {
        true => planner.plan_windows(&query, &names, &view.query)?,
        false => planner.plan_materialized_view(&query, &names, &view.query)?,
    };
    Ok(ViewSpec {
        id: entry.id.collection(),
        name: catalog.full_name(entry),
        schema: plan.schema,
        plan: plan.plan,
    })
}

/// What a view knows of who makes it: the same whenever its query is planned again.
fn maker(by: &SessionInfo) -> SessionInfo {
    SessionInfo { user: by.user.clone(), search_path: by.search_path.clone(), ..SessionInfo::default() }
}

fn columns_of(schema: &arrow::datatypes::SchemaRef) -> Vec<Column> {
    schema.fields().iter().map(|f| Column { not_null: false, ..Column::from_field(f) }).collect()
}

fn check_options(create: &CreateView) -> Result<()> {
    match create.options.first() {
        None => Ok(()),
        Some((name, _)) if name == "on_error" => Err(Error::unsupported("the option on_error of a view")),
        Some((name, _)) => {
            Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, format!("unknown option \"{name}\" of a view")))
        }
    }
}

/// What is replaced by OR REPLACE: a view of the same kind and name.
fn replaced(
    catalog: &Catalog,
    kind: ObjectKind,
    name: &Name,
    or_replace: bool,
) -> Result<Option<Arc<Entry>>> {
    if !or_replace {
        return Ok(None);
    }
    match catalog.find_relation(name) {
        Some(entry) if entry.kind() == kind => Ok(Some(Arc::clone(entry))),
        Some(entry) => Err(Error::new(
            SqlState::WRONG_OBJECT_TYPE,
            format!("\"{}\" is not a {}", entry.name, kind.noun()),
        )),
        None => Ok(None),
    }
}

impl Database {
    /// CREATE VIEW. `text` is the statement's.
    pub(crate) fn create_view(
        &self,
        by: &SessionInfo,
        create: &CreateView,
        text: &str,
    ) -> Result<Vec<Notice>> {
        let mut notices = Vec::new();
        check_options(create)?;
        let catalog = by.sees(&self.catalog());
        let old = replaced(&catalog, ObjectKind::View, &create.name, create.or_replace)?;
        let place = match &old {
            Some(old) => Some(old.place()),
            None => claim(&catalog, ObjectKind::View, &create.name, create.if_not_exists, &mut notices)?,
        };
        let Some(place) = place else { return Ok(notices) };
        let session = maker(by);
        let system = self.system(&session, Vec::new());
        let plan = Planner::new(&catalog, &session, Some(&system)).plan_view(
            &create.query,
            &create.columns,
            text,
        )?;
        let query = queries::stored(self, &catalog, &create.query_text, &create.columns, &plan)?;
        let object = Object::View(View { query, columns: columns_of(&plan.schema) });
        let id = match &old {
            Some(old) => old.id,
            None => self.new_id()?,
        };
        let mut entry = Entry::new(id, place, &by.user, object);
        entry.uses.extend(plan.uses.iter().filter(|used| **used != id));
        match old {
            None => self.add(&[entry])?,
            Some(old) => self.replace_view(&old, entry)?,
        }
        Ok(notices)
    }

    fn replace_view(&self, old: &Entry, mut entry: Entry) -> Result<()> {
        let (before, after) = (old.columns().unwrap_or_default(), entry.columns().unwrap_or_default());
        if before.len() > after.len() {
            return Err(Error::new(SqlState::INVALID_TABLE_DEFINITION, "cannot drop columns from view"));
        }
        for (b, a) in before.iter().zip(after) {
            if b.name != a.name {
                return Err(Error::new(
                    SqlState::INVALID_TABLE_DEFINITION,
                    format!("cannot change name of view column \"{}\" to \"{}\"", b.name, a.name),
                ));
            }
            if b.data_type != a.data_type {
                return Err(Error::new(
                    SqlState::INVALID_TABLE_DEFINITION,
                    format!(
                        "cannot change data type of view column \"{}\" from {} to {}",
                        b.name, b.data_type, a.data_type
                    ),
                ));
            }
        }
        entry.comment = old.comment.clone();
        self.change_catalog(|catalog, batch| {
            // What is kept up to date was built from the old query.
            let kept = catalog
                .drop_order(&[old.id], true)?
                .all
                .into_iter()
                .find(|e| e.kind() == ObjectKind::MaterializedView);
            if let Some(kept) = kept {
                return Err(Error::unsupported(format!(
                    "replacing view \"{}\" while materialized view \"{}\" is built on it",
                    old.name, kept.name
                )));
            }
            catalog.replace(entry.clone())?;
            batch.put_entry(&entry)
        })
    }

    /// CREATE MATERIALIZED VIEW. Blocks until it is filled; everything else goes on. `text` is the statement's.
    pub(crate) fn create_materialized_view(
        &self,
        by: &SessionInfo,
        create: &CreateView,
        text: &str,
    ) -> Result<Vec<Notice>> {
        let mut notices = Vec::new();
        check_options(create)?;
        let catalog = by.sees(&self.catalog());
        let kind = ObjectKind::MaterializedView;
        let old = replaced(&catalog, kind, &create.name, create.or_replace)?;
        if let Some(old) = &old {
            check_replaceable(&catalog, old)?;
        }
        let place = match &old {
            Some(old) => Some(old.place()),
            None => claim(&catalog, kind, &create.name, create.if_not_exists, &mut notices)?,
        };
        let Some(place) = place else { return Ok(notices) };
        let session = maker(by);
        let system = self.system(&session, Vec::new());
        let planner = Planner::new(&catalog, &session, Some(&system));
        let plan = match create.on_close {
            true => planner.plan_windows(&create.query, &create.columns, text)?,
            false => planner.plan_materialized_view(&create.query, &create.columns, text)?,
        };
        let object = Object::MaterializedView(MaterializedView {
            query: queries::stored(self, &catalog, &create.query_text, &create.columns, &plan)?,
            on_close: create.on_close,
            columns: columns_of(&plan.schema),
        });
        let mut entry = Entry::new(self.new_id()?, place, &by.user, object);
        entry.uses.extend(&plan.uses);
        if old.as_ref().is_some_and(|old| entry.uses.contains(&old.id)) {
            return Err(Error::unsupported("replacing a materialized view by a query over itself"));
        }
        self.engine.create_view(ViewSpec {
            id: entry.id.collection(),
            name: catalog.full_name(&entry),
            schema: plan.schema,
            plan: plan.plan,
        })?;
        let Some(old) = old else {
            self.add_inputs(std::slice::from_ref(&entry))?;
            return Ok(notices);
        };
        // Both are there and up to date: the name goes from one to the other in one step.
        let swapped = self.change_catalog(|catalog, batch| {
            check_replaceable(catalog, &old)?;
            let order = catalog.drop_order(&[old.id], true)?;
            for gone in &order.all {
                catalog.remove(gone.id);
                batch.remove(gone.id.0);
            }
            insert(catalog, batch, &entry)?;
            Ok(order)
        });
        match swapped {
            Ok(order) => self.after_drop(&order.all),
            Err(error) => {
                self.discard(&[entry.id]);
                return Err(error);
            }
        }
        Ok(notices)
    }
}

/// A materialized view that others are built on cannot be replaced yet.
fn check_replaceable(catalog: &Catalog, old: &Entry) -> Result<()> {
    match catalog.dependants(old.id).into_iter().find(|e| e.kind() != ObjectKind::Index) {
        None => Ok(()),
        Some(user) => Err(Error::unsupported(format!(
            "replacing materialized view \"{}\" while {} \"{}\" uses it",
            old.name,
            user.kind().noun(),
            user.name
        ))),
    }
}
