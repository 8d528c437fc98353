//! CREATE SINK.

use std::sync::Arc;

use crate::connectors::registry;
use crate::database::objects::{claim, insert};
use crate::database::supervise::Followed;
use crate::database::workers::hold_key;
use crate::database::{Database, Notice, connect};
use crate::engine::SubscribeFrom;
use crate::error::{Error, Result, SqlState};
use crate::sql::ast::{CreateSink, ObjectKind};
use crate::sql::catalog::{Entry, Object, Sink, UuidText};
use crate::sql::{Catalog, SessionInfo};
use crate::world;

/// A new sink's subscription: first the rows as they are now.
pub(crate) fn follow(database: &Database, entry: &Entry) -> Result<Arc<Followed>> {
    let collection = sink_of(entry)?.from.collection();
    let subscription = database.engine.subscribe_kept(collection, SubscribeFrom::Snapshot)?;
    Ok(Followed::new(database.engine.clone(), collection, subscription, hold_key(entry.id)))
}

fn sink_of(entry: &Entry) -> Result<&Sink> {
    match &entry.object {
        Object::Sink(sink) => Ok(sink),
        _ => Err(Error::internal("what follows is no sink")),
    }
}

/// Two sinks would replace each other's rows: a target belongs to one.
fn refuse_taken(catalog: &Catalog, kind: &str, target: &str) -> Result<()> {
    for entry in catalog.of_kind(ObjectKind::Sink) {
        let Object::Sink(sink) = &entry.object else { continue };
        if sink.kind != kind {
            continue;
        }
        // One whose options are no longer valid cannot run either: it takes nobody's place.
        let Ok(theirs) = target_of(catalog, &catalog.full_name(entry), sink) else { continue };
        if theirs.as_deref() == Some(target) {
            return Err(Error::new(
                SqlState::OBJECT_IN_USE,
                format!("the target belongs to sink \"{}\" already", entry.name),
            )
            .with_detail("The rows of a target are replaced by its sink: two would undo each other's work.")
            .with_hint("Name another target, or drop that sink first."));
        }
    }
    Ok(())
}

fn target_of(catalog: &Catalog, name: &str, sink: &Sink) -> Result<Option<String>> {
    let definition = connect::sink_definition(catalog, name, sink)?;
    let (_, schema) = connect::followed_schema(catalog, sink)?;
    Ok(registry::sink(&definition, &schema, &connect::sink_key(sink, &schema)?)?.target())
}

/// The sink that a statement describes, with an identity of its own. Nothing is made yet.
pub(crate) fn new_sink(catalog: &Catalog, create: &CreateSink) -> Result<Sink> {
    let from = catalog.require_relation(&create.from)?;
    if !from.is_collection() {
        return Err(Error::new(
            SqlState::WRONG_OBJECT_TYPE,
            format!("a sink cannot follow {} \"{}\"", from.kind().noun(), from.name),
        )
        .with_hint("A sink follows a table, a source with columns or a materialized view."));
    }
    let connection = match &create.connection {
        Some(connection) => Some(catalog.require(ObjectKind::Connection, connection)?.id),
        None => None,
    };
    let registry = match &create.registry {
        Some(registry) => Some(catalog.require(ObjectKind::Connection, registry)?.id),
        None => None,
    };
    Ok(Sink {
        uuid: UuidText(world::uuid()),
        from: from.id,
        kind: create.kind.clone(),
        connection,
        registry,
        options: create.options.clone(),
        key: create.key.clone(),
        format: create.format.clone(),
        envelope: create.envelope,
        paused: false,
    })
}

impl Database {
    /// CREATE SINK.
    pub(crate) fn create_sink(&self, by: &SessionInfo, create: &CreateSink) -> Result<Vec<Notice>> {
        let mut notices = Vec::new();
        let catalog = by.sees(&self.catalog());
        let claimed = claim(&catalog, ObjectKind::Sink, &create.name, create.if_not_exists, &mut notices)?;
        let Some(place) = claimed else { return Ok(notices) };
        let sink = new_sink(&catalog, create)?;
        let name = catalog.full_place(place.schema, &place.name);
        let definition = connect::sink_definition(&catalog, &name, &sink)?;
        let (_, schema) = connect::followed_schema(&catalog, &sink)?;
        // Every option is checked before anything exists.
        let made = registry::sink(&definition, &schema, &connect::sink_key(&sink, &schema)?)?;
        let target = made.target();
        let entry = Entry::new(self.new_id()?, place, &by.user, Object::Sink(sink));
        let followed = follow(self, &entry)?;
        let added = self.change_catalog(|catalog, batch| {
            if connect::followed_schema(catalog, sink_of(&entry)?)?.1 != schema {
                let message = format!("the columns of \"{}\" have changed meanwhile", create.from.shown());
                return Err(Error::new(SqlState::SERIALIZATION_FAILURE, message).with_hint("Try again."));
            }
            if let Some(target) = &target {
                refuse_taken(catalog, &create.kind, target)?;
            }
            insert(catalog, batch, &entry)
        });
        if let Err(error) = added {
            followed.end();
            return Err(error);
        }
        self.start_sink(&entry, followed);
        Ok(notices)
    }
}
