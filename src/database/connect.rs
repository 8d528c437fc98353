//! From catalog objects to what connectors are given: options with secrets resolved, schemas, keys.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use crate::connectors::schema_registry::format_option;
use crate::connectors::{
    FormatSpec, OptionList, OptionValue, SinkDefinition, SourceDefinition, SourceOutput,
};
use crate::error::{Error, Result, SqlState};
use crate::sql::ast::ObjectKind;
use crate::sql::catalog::{Entry, Sink, Source};
use crate::sql::{Catalog, Name, Object, ObjectId};

/// Options with secrets' values in the place of their names.
pub(crate) fn resolve(catalog: &Catalog, options: &OptionList) -> Result<Vec<(String, String)>> {
    options
        .iter()
        .map(|(name, value)| {
            let value = match value {
                OptionValue::Literal(text) => text.clone(),
                OptionValue::Secret(name) => secret(catalog, &Name::bare(name.clone()))?,
            };
            Ok((name.clone(), value))
        })
        .collect()
}

/// A secret's value.
pub(crate) fn secret(catalog: &Catalog, name: &Name) -> Result<String> {
    match &catalog.require(ObjectKind::Secret, name)?.object {
        Object::Secret(secret) => Ok(secret.value.clone()),
        _ => Err(Error::internal("a secret is not a secret")),
    }
}

/// The options of a connection, which must be one for this kind of source or sink; none: there is none.
///
/// # Errors
/// 42809 for a connection to something else; 42704 for a secret that is not there.
pub(crate) fn connection(
    catalog: &Catalog,
    id: Option<ObjectId>,
    kind: &str,
) -> Result<Vec<(String, String)>> {
    let Some(id) = id else { return Ok(Vec::new()) };
    let entry = catalog.get(id).ok_or_else(|| Error::internal(format!("connection {} is gone", id.0)))?;
    let Object::Connection(connection) = &entry.object else {
        return Err(Error::internal(format!("object {} is no connection", id.0)));
    };
    // Files may be on any object store; otherwise a source or sink and its connection are of one kind.
    let fits = connection.kind == kind || (kind == "files" && connection.kind == "object store");
    if !fits {
        return Err(Error::new(
            SqlState::WRONG_OBJECT_TYPE,
            format!(
                "connection \"{}\" is a connection to {}, not to {}",
                entry.name,
                connection.kind.to_uppercase(),
                kind.to_uppercase()
            ),
        ));
    }
    resolve(catalog, &connection.options)
}

/// A FORMAT with secrets resolved, and the registry that it uses spelled out in its options.
fn format(
    catalog: &Catalog,
    format: Option<&FormatSpec>,
    registry: Option<ObjectId>,
) -> Result<Option<FormatSpec>> {
    let Some(format) = format else { return Ok(None) };
    let mut options = resolve(catalog, &format.options)?;
    for (name, value) in connection(catalog, registry, "schema registry")? {
        options.push((format_option(&name), value));
    }
    let literal = |(name, value)| (name, OptionValue::Literal(value));
    Ok(Some(FormatSpec { name: format.name.clone(), options: options.into_iter().map(literal).collect() }))
}

/// What a source's connector is given.
pub(crate) fn source_definition(catalog: &Catalog, name: &str, source: &Source) -> Result<SourceDefinition> {
    Ok(SourceDefinition {
        name: name.to_string(),
        kind: source.kind.clone(),
        connection: connection(catalog, source.connection, &source.kind)?,
        options: resolve(catalog, &source.options)?,
        format: format(catalog, source.format.as_ref(), source.registry)?,
        envelope: source.envelope,
        includes: source.includes.clone(),
        key: if source.key_declared { source.key.clone() } else { Vec::new() },
    })
}

/// What a sink's connector is given.
pub(crate) fn sink_definition(catalog: &Catalog, name: &str, sink: &Sink) -> Result<SinkDefinition> {
    Ok(SinkDefinition {
        name: name.to_string(),
        uuid: sink.uuid.0,
        kind: sink.kind.clone(),
        connection: connection(catalog, sink.connection, &sink.kind)?,
        options: resolve(catalog, &sink.options)?,
        format: format(catalog, sink.format.as_ref(), sink.registry)?,
        envelope: sink.envelope,
        append_only: is_append_only(catalog, sink.from),
    })
}

/// Whether what a sink follows is known never to retract: a source or table without key that only grows.
pub(crate) fn is_append_only(catalog: &Catalog, from: ObjectId) -> bool {
    catalog.get(from).is_some_and(|from| match &from.object {
        Object::Source(source) => source.key.is_empty(),
        Object::Table(table) => table.append_only,
        _ => false,
    })
}

/// Positions of a sink's key in the columns it follows.
///
/// # Errors
/// 42703 for a column that is not there.
pub(crate) fn sink_key(sink: &Sink, schema: &SchemaRef) -> Result<Vec<usize>> {
    let position = |column: &String| {
        schema.index_of(column).map_err(|_| {
            Error::new(SqlState::UNDEFINED_COLUMN, format!("column \"{column}\" named in KEY does not exist"))
        })
    };
    let mut key = Vec::with_capacity(sink.key.len());
    for column in &sink.key {
        let position = position(column)?;
        if key.contains(&position) {
            return Err(Error::new(
                SqlState::DUPLICATE_COLUMN,
                format!("column \"{column}\" named in KEY appears twice"),
            ));
        }
        key.push(position);
    }
    Ok(key)
}

/// Everything that a source fills: its own rows, and the tables made from it.
pub(crate) fn outputs(catalog: &Catalog, entry: &Entry) -> Vec<SourceOutput> {
    let own = entry.schema().filter(|s| !s.fields().is_empty()).map(|schema| SourceOutput {
        collection: entry.id.collection(),
        upstream: catalog.full_name(entry),
        schema,
        key: entry.key().to_vec(),
    });
    let tables = catalog.entries().filter_map(|e| match &e.object {
        Object::Table(table) => match &table.source {
            Some((source, upstream)) if *source == entry.id => Some(SourceOutput {
                collection: e.id.collection(),
                upstream: upstream.clone(),
                schema: e.schema()?,
                key: table.key.clone(),
            }),
            _ => None,
        },
        _ => None,
    });
    own.into_iter().chain(tables).collect()
}

/// The columns a sink follows.
pub(crate) fn followed_schema(catalog: &Catalog, sink: &Sink) -> Result<(Arc<Entry>, SchemaRef)> {
    let from = catalog.get(sink.from).ok_or_else(|| Error::internal("what a sink follows is gone"))?;
    let schema = from.schema().ok_or_else(|| Error::internal("a sink follows what has no columns"))?;
    Ok((Arc::clone(from), schema))
}
