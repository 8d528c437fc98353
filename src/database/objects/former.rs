//! What queries of materialized views were before they were replaced.
//!
//! A sink's progress is a tick; a restart replays the journal from there on, and must come to the same rows as before.
//! So a view remembers a former query, and what that reads stays, until every sink has committed past its end.

use std::collections::HashSet;
use std::sync::Arc;

use crate::connectors::{MEMORY_COMMITTED, MEMORY_INTENT};
use crate::database::objects::view;
use crate::database::store::{CatalogBatch, Store, decode_u64};
use crate::engine::{CollectionId, Tick, ViewSpec};
use crate::error::{Error, Result};
use crate::sql::ast::ObjectKind;
use crate::sql::catalog::{Catalog, Entry, FormerQuery, MaterializedView, Object, ObjectId};

/// The sinks that follow a view, or something that is built on it.
pub(crate) fn sinks(catalog: &Catalog, view: ObjectId) -> Vec<ObjectId> {
    let (mut seen, mut rest, mut sinks) = (HashSet::from([view]), vec![view], Vec::new());
    while let Some(id) = rest.pop() {
        for user in catalog.dependants(id) {
            if seen.insert(user.id) {
                rest.push(user.id);
                if matches!(user.object, Object::Sink(_)) {
                    sinks.push(user.id);
                }
            }
        }
    }
    sinks
}

/// What a view's present query reads: all that the view uses, but for what only its former queries read.
pub(crate) fn present_uses<'a>(entry: &'a Entry, view: &'a MaterializedView) -> &'a [ObjectId] {
    match view.former.is_empty() {
        true => &entry.uses,
        false => &view.reads,
    }
}

/// Whether sinks are at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// Before a replay: a sink that has not committed begins with what is there after it.
    Opening,
    /// A sink that has not committed yet may be about to, with rows of before.
    Running,
}

/// The former queries of a view that some sink may go back to.
pub(crate) fn needed(
    catalog: &Catalog,
    store: &Arc<Store>,
    entry: &Entry,
    view: &MaterializedView,
    when: When,
) -> Result<Vec<FormerQuery>> {
    if view.former.is_empty() {
        return Ok(Vec::new());
    }
    let mut oldest = Tick::MAX;
    for sink in sinks(catalog, entry.id) {
        let memory = store.memory(sink.0);
        let tick =
            |name: &str| -> Result<Option<Tick>> { Ok(memory.get(name)?.as_deref().and_then(decode_u64)) };
        let at = match (tick(MEMORY_COMMITTED)?, tick(MEMORY_INTENT)?) {
            (Some(tick), _) => tick,
            (None, None) if when == When::Opening => continue,
            (None, _) => 0,
        };
        oldest = oldest.min(at);
    }
    Ok(view.former.iter().filter(|former| former.until > oldest).cloned().collect())
}

/// Gives a view, whose present query reads `reads`, its former queries, and what all of them use.
pub(crate) fn keep(entry: &mut Entry, view: &mut MaterializedView, reads: Vec<ObjectId>) {
    entry.uses = view.former.iter().flat_map(|former| &former.uses).chain(&reads).copied().collect();
    entry.uses.sort_unstable();
    entry.uses.dedup();
    view.reads = if view.former.is_empty() { Vec::new() } else { reads };
}

/// Forgets the former queries that no sink goes back to any more.
pub(crate) fn forget(
    catalog: &mut Catalog,
    batch: &mut CatalogBatch,
    store: &Arc<Store>,
    when: When,
) -> Result<()> {
    for entry in catalog.of_kind(ObjectKind::MaterializedView).into_iter().cloned().collect::<Vec<_>>() {
        let Object::MaterializedView(view) = &entry.object else { continue };
        let former = needed(catalog, store, &entry, view, when)?;
        if former.len() == view.former.len() {
            continue;
        }
        let (mut entry, mut view) = (Entry::clone(&entry), view.clone());
        let reads = present_uses(&entry, &view).to_vec();
        view.former = former;
        keep(&mut entry, &mut view, reads);
        entry.object = Object::MaterializedView(view);
        batch.put_entry(&entry)?;
        catalog.replace(entry)?;
    }
    Ok(())
}

/// A view as it was when the oldest of its former queries was in force, and what takes its place in which tick.
pub(crate) struct Versions {
    pub(crate) first: ViewSpec,
    pub(crate) then: Vec<(Tick, ViewSpec)>,
}

/// Plans a view's queries, the oldest first.
pub(crate) fn versions(
    catalog: &Catalog,
    store: &Store,
    entry: &Entry,
    view: &MaterializedView,
) -> Result<Versions> {
    let former = view.former.iter().map(|former| (&former.query, former.as_of.unwrap_or(entry.id)));
    let mut queries = former.chain([(&view.query, entry.made())]);
    let (first, made) = queries.next().ok_or_else(|| Error::internal("a view without a query"))?;
    let first = view::spec(catalog, entry, first, made)?;
    let mut then = Vec::new();
    for (former, (query, made)) in view.former.iter().zip(queries) {
        // While it is built beside the other it needs an identity of its own.
        let id = CollectionId(store.next_id()?);
        let spec = ViewSpec { id, ..view::spec(catalog, entry, query, made)? };
        then.push((former.until, spec));
    }
    Ok(Versions { first, then })
}
