//! Views: those computed when they are read, and those kept up to date.

use std::collections::HashSet;
use std::sync::Arc;

use crate::database::objects::former::{self, When};
use crate::database::objects::{claim, insert, queries};
use crate::database::store::CatalogBatch;
use crate::database::{Database, Hydrating, Notice};
use crate::engine::plan::collections;
use crate::engine::{Hydration, Tick, ViewSpec};
use crate::error::{Error, Result, SqlState};
use crate::sql::ast::{CreateView, ObjectKind};
use crate::sql::catalog::{Column, Entry, FormerQuery, Index, MaterializedView, Object, View};
use crate::sql::parser::parse_query;
use crate::sql::plan::{Planner, SessionInfo};
use crate::sql::{Catalog, Name, ObjectId};

/// The engine's view for a catalog entry with one of its queries, planned from its text as when it was `made`.
pub(crate) fn spec(catalog: &Catalog, entry: &Entry, query: &str, made: ObjectId) -> Result<ViewSpec> {
    let columns = entry.columns().unwrap_or_default();
    let names: Vec<String> = columns.iter().map(|c| c.name.clone()).collect();
    let session = SessionInfo::default();
    let unscoped = catalog.unscoped().as_of(made);
    let planner = Planner::new(&unscoped, &session, None);
    let parsed = parse_query(query)?;
    let on_close = matches!(&entry.object, Object::MaterializedView(view) if view.on_close);
    let plan = match on_close {
        true => planner.plan_windows(&parsed, &names, query)?,
        false => planner.plan_materialized_view(&parsed, &names, query)?,
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
        // Given before the catalog is looked at, so that what changes from then on can be told.
        let made = self.new_id()?;
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
        let id = old.as_ref().map_or(made, |old| old.id);
        let mut entry = Entry::new(id, place, &by.user, object);
        entry.as_of = old.as_ref().map(|_| made);
        entry.uses.extend(plan.uses.iter().filter(|used| **used != id));
        match old {
            None => self.add(&[entry])?,
            Some(old) => self.replace_view(&old, entry)?,
        }
        Ok(notices)
    }

    fn replace_view(&self, old: &Entry, mut entry: Entry) -> Result<()> {
        check_columns(old, &entry)?;
        entry.comment = old.comment.clone();
        self.change_catalog(|catalog, batch| {
            catalog.check_seen_whole(&entry.uses, entry.made())?;
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
        hydration: &Arc<Hydration>,
    ) -> Result<Vec<Notice>> {
        let mut notices = Vec::new();
        check_options(create)?;
        // As in CREATE VIEW.
        let made = self.new_id()?;
        let catalog = by.sees(&self.catalog());
        let kind = ObjectKind::MaterializedView;
        let old = replaced(&catalog, kind, &create.name, create.or_replace)?;
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
            reads: Vec::new(),
            former: Vec::new(),
        });
        let mut entry = Entry::new(made, place, &by.user, object);
        entry.uses.extend(&plan.uses);
        let spec = ViewSpec {
            id: entry.id.collection(),
            name: catalog.full_name(&entry),
            schema: plan.schema,
            plan: plan.plan,
        };
        let shown = old.as_ref().map_or(entry.id, |old| old.id);
        let _shown = Shown::new(self, shown, &spec.name, &create.query_text, hydration);
        let Some(old) = old else {
            self.engine.create_view_watched(spec, hydration)?;
            self.add_inputs(std::slice::from_ref(&entry))?;
            return Ok(notices);
        };
        check_no_cycle(&catalog, &old, &entry)?;
        if self.can_stay(&catalog, &old, &entry, &spec) {
            self.replace_in_place(&old, entry, spec, hydration)?;
        } else {
            check_replaceable(&catalog, &old, &entry)?;
            self.replace_by_another(&old, entry, spec, hydration)?;
        }
        Ok(notices)
    }

    /// Whether a view can go on under its identity with another query: who reads or follows it is told what differs.
    fn can_stay(&self, catalog: &Catalog, old: &Entry, new: &Entry, spec: &ViewSpec) -> bool {
        if old.columns() != new.columns() {
            return false;
        }
        let users = catalog.dependants(old.id).into_iter().any(|e| e.kind() != ObjectKind::Index);
        let snapshot = self.engine.snapshot();
        let running = snapshot.collection(old.id.collection()).filter(|c| c.failed().is_none());
        let plans = running.iter().filter_map(|view| view.plan()).chain([&spec.plan]);
        let passing = plans
            .flat_map(collections)
            .filter_map(|id| snapshot.collection(id))
            .any(|collection| !collection.keeps_rows());
        users || (running.is_some() && !passing)
    }

    /// The new query takes the old one's place under the same identity: indexes, comments, dependants and subscriptions
    /// stay as they are.
    fn replace_in_place(&self, old: &Entry, new: Entry, spec: ViewSpec, hydration: &Hydration) -> Result<()> {
        let replacement = self.engine.replacement(old.id.collection(), spec, hydration)?;
        // Taken before the tick thread is asked: who holds it may wait for a connector, and that for the tick thread.
        let _changing = self.changing.lock();
        let mut catalog = (*self.catalog()).clone();
        let current = catalog.get(old.id).cloned();
        let current = current.ok_or_else(|| Error::internal("the view was dropped meanwhile"))?;
        let (Object::MaterializedView(before), Object::MaterializedView(after)) =
            (&current.object, &new.object)
        else {
            return Err(Error::internal("what is replaced is no materialized view"));
        };
        check_no_cycle(&catalog, &current, &new)?;
        catalog.check_seen_whole(&new.uses, new.made())?;
        if let Some(gone) = new.uses.iter().find(|id| catalog.get(**id).is_none()) {
            return Err(Error::internal(format!("object {} was dropped meanwhile", gone.0)));
        }
        let (mut entry, mut after) = (Entry::clone(&current), after.clone());
        after.former = former::needed(&catalog, &self.store, &current, before, When::Running)?;
        if !former::sinks(&catalog, old.id).is_empty() {
            let uses = former::present_uses(&current, before).to_vec();
            let (query, as_of) = (before.query.clone(), current.as_of);
            after.former.push(FormerQuery { query, uses, until: Tick::MAX, as_of });
        }
        entry.as_of = Some(new.made());
        former::keep(&mut entry, &mut after, new.uses.clone());
        let (store, recorded) = (Arc::clone(&self.store), self.engine.recorded());
        let at = move |tick: Tick| {
            let mut view = after.clone();
            view.former.iter_mut().filter(|f| f.until == Tick::MAX).for_each(|f| f.until = tick);
            Entry { object: Object::MaterializedView(view), ..entry.clone() }
        };
        let stored = at.clone();
        let tick = replacement.put_in_place(move |tick| {
            let mut batch = CatalogBatch::default();
            batch.put_entry(&stored(tick))?;
            batch.note_recorded(recorded);
            store.commit(batch)
        })?;
        catalog.replace(at(tick))?;
        self.catalog.store(Arc::new(catalog));
        Ok(())
    }

    /// The new view is another one, which takes over the name, comments and indexes: nothing else is there to be told.
    fn replace_by_another(
        &self,
        old: &Entry,
        mut entry: Entry,
        spec: ViewSpec,
        hydration: &Hydration,
    ) -> Result<()> {
        self.engine.create_view_watched(spec, hydration)?;
        let id = entry.id;
        // Both are there and up to date: the name goes from one to the other in one step.
        let swapped = self.change_catalog(|catalog, batch| {
            check_replaceable(catalog, old, &entry)?;
            let order = catalog.drop_order(&[old.id], true)?;
            for gone in &order.all {
                catalog.remove(gone.id);
                batch.remove(gone.id.0);
            }
            entry.comment.clone_from(&old.comment);
            let columns = entry.columns().unwrap_or_default();
            let has = |name: &String| columns.iter().any(|c| c.name == *name);
            let kept = old.column_comments.iter().filter(|(name, _)| has(name));
            let kept = kept.map(|(name, text)| (name.clone(), text.clone())).collect();
            let indexes: Vec<Entry> =
                order.all.iter().filter_map(|e| moved_index(e, entry.id, has)).collect();
            entry.column_comments = kept;
            insert(catalog, batch, &entry)?;
            indexes.iter().try_for_each(|index| insert(catalog, batch, index))?;
            Ok(order)
        });
        match swapped {
            Ok(order) => {
                let gone: Vec<_> =
                    order.all.into_iter().filter(|e| e.kind() == ObjectKind::MaterializedView).collect();
                self.after_drop(&gone);
                Ok(())
            }
            Err(error) => {
                self.discard(&[id]);
                Err(error)
            }
        }
    }
}

/// A view that is being filled is shown as long as this lives.
struct Shown<'a>(&'a Database, ObjectId);

impl<'a> Shown<'a> {
    fn new(
        database: &'a Database,
        id: ObjectId,
        name: &str,
        query: &str,
        hydration: &Arc<Hydration>,
    ) -> Shown<'a> {
        let (name, query, hydration) = (name.to_string(), query.to_string(), Arc::clone(hydration));
        database.hydrating.lock().insert(id, Hydrating { name, query, hydration });
        Shown(database, id)
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.0.hydrating.lock().remove(&self.1);
    }
}

/// An index of a view that is replaced, on the new one; `None` when that lacks one of its columns.
fn moved_index(index: &Entry, on: ObjectId, has: impl Fn(&String) -> bool) -> Option<Entry> {
    let Object::Index(Index { columns, .. }) = &index.object else { return None };
    let object = Object::Index(Index { on, columns: columns.clone() });
    columns.iter().all(has).then(|| Entry { uses: vec![on], object, ..index.clone() })
}

/// PostgreSQL's rule for columns: those that are there stay as they are, new ones come after them.
fn check_columns(old: &Entry, new: &Entry) -> Result<()> {
    let (before, after) = (old.columns().unwrap_or_default(), new.columns().unwrap_or_default());
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
    Ok(())
}

/// Refuses a query over the view itself, or over what is built on it.
fn check_no_cycle(catalog: &Catalog, old: &Entry, new: &Entry) -> Result<()> {
    let mut seen: HashSet<ObjectId> = new.uses.iter().copied().collect();
    let mut rest: Vec<ObjectId> = new.uses.clone();
    while let Some(used) = rest.pop() {
        if used == old.id {
            return Err(Error::unsupported(format!(
                "replacing materialized view \"{}\" by a query over itself",
                old.name
            )));
        }
        let further = catalog.get(used).map(|e| e.uses.clone()).unwrap_or_default();
        rest.extend(further.into_iter().filter(|id| seen.insert(*id)));
    }
    Ok(())
}

/// What others are built on keeps its columns.
fn check_replaceable(catalog: &Catalog, old: &Entry, new: &Entry) -> Result<()> {
    let Some(user) = catalog.dependants(old.id).into_iter().find(|e| e.kind() != ObjectKind::Index) else {
        return Ok(());
    };
    check_columns(old, new)?;
    Err(Error::unsupported(format!(
        "adding columns to materialized view \"{}\" while {} \"{}\" uses it",
        old.name,
        user.kind().noun(),
        user.name
    )))
}
