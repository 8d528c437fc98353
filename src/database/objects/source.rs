//! CREATE SOURCE.

use crate::connectors::{Discovered, FormatSpec, Include, SourceDefinition, registry};
use crate::database::objects::{claim, table};
use crate::database::{Database, Notice, connect, webhook};
use crate::error::{Error, Result, SqlState};
use crate::sql::ast::{CreateSource, ObjectKind};
use crate::sql::catalog::{Column, Entry, Object, Source};
use crate::sql::plan::SessionInfo;
use crate::sql::types::SqlType;
use crate::sql::{Name, watermark};

/// The column that an INCLUDE adds.
fn include_column(include: &Include, format: Option<&FormatSpec>) -> Result<Column> {
    let data_type = match include.what.as_str() {
        // A key has no format of its own: text, unless everything is bytes.
        "key" if format.is_some_and(|f| f.name.eq_ignore_ascii_case("bytes")) => SqlType::Bytea,
        "key" => SqlType::Text,
        "topic" | "path" => SqlType::Text,
        header if header.starts_with("header ") => SqlType::Text,
        "partition" => SqlType::Int4,
        "offset" | "line" => SqlType::Int8,
        "timestamp" => SqlType::Timestamptz,
        "headers" => SqlType::Jsonb,
        other => return Err(Error::unsupported(format!("INCLUDE {other}"))),
    };
    Ok(Column::new(include.column.clone(), data_type))
}

fn duplicate_column(name: &str) -> Error {
    Error::new(SqlState::DUPLICATE_COLUMN, format!("column \"{name}\" specified more than once"))
}

/// What a source without a column list offers: tables to be made at once (FOR ALL TABLES), or later, by
/// CREATE TABLE … FROM SOURCE; or, when it is one relation of the source's own name, the source's columns.
fn undeclared(
    name: &str,
    source: &mut Source,
    all_tables: bool,
    definition: &SourceDefinition,
) -> Result<Vec<Discovered>> {
    let mut offered = registry::discover(definition)?;
    if let [only] = &offered[..]
        && only.upstream == name
    {
        source.columns = only.schema.fields().iter().map(|f| Column::from_field(f)).collect();
        source.key = only.key.clone();
        source.key_declared = !only.key.is_empty();
        return Ok(Vec::new());
    }
    if !all_tables {
        offered.clear();
    }
    Ok(offered)
}

impl Database {
    /// CREATE SOURCE. Blocks while the upstream is asked.
    pub(crate) fn create_source(&self, by: &SessionInfo, create: &CreateSource) -> Result<Vec<Notice>> {
        let mut notices = Vec::new();
        let catalog = by.sees(&self.catalog());
        let claimed = claim(&catalog, ObjectKind::Source, &create.name, create.if_not_exists, &mut notices)?;
        let Some(place) = claimed else { return Ok(notices) };
        let name = catalog.full_place(place.schema, &place.name);
        let connection = match &create.connection {
            Some(connection) => Some(catalog.require(ObjectKind::Connection, connection)?.id),
            None => None,
        };
        let registry = match &create.registry {
            Some(registry) => Some(catalog.require(ObjectKind::Connection, registry)?.id),
            None => None,
        };
        let (columns, key) = table::columns(&create.columns, &create.key)?;
        if let Some(column) = columns.iter().find(|c| c.default.is_some()) {
            return Err(Error::unsupported(format!("a DEFAULT of a source's column (\"{}\")", column.name)));
        }
        let key_declared = !key.is_empty();
        let mut source = Source {
            kind: create.kind.clone(),
            connection,
            registry,
            options: create.options.clone(),
            format: create.format.clone(),
            envelope: create.envelope,
            includes: create.includes.clone(),
            columns,
            key,
            key_declared,
            all_tables: create.all_tables,
            retain: create.retain,
            paused: false,
            check: create.check.clone(),
            on_error: create.on_error,
            watermark: None,
            on_schema_change: create.on_schema_change,
        };
        let mut definition = connect::source_definition(&catalog, &name, &source)?;
        let mut offered = Vec::new();
        if source.columns.is_empty() {
            offered = undeclared(&name, &mut source, create.all_tables, &definition)?;
            if source.key_declared {
                definition.key = source.key.clone();
            }
        } else if create.all_tables {
            return Err(Error::new(
                SqlState::SYNTAX_ERROR,
                "a source FOR ALL TABLES has no column list: its tables have columns",
            ));
        }
        if !source.columns.is_empty() {
            for include in &create.includes {
                let column = include_column(include, create.format.as_ref())?;
                if source.columns.iter().any(|c| c.name == column.name) {
                    return Err(duplicate_column(&column.name));
                }
                source.columns.push(column);
            }
        }
        source.watermark =
            create.watermark.as_ref().map(|w| watermark::resolve(w, &source.columns)).transpose()?;
        // Tables that come with it go beside it.
        let schema_of_all = catalog.get(place.schema).map(|schema| schema.name.clone());
        let mut entry = Entry::new(self.new_id()?, place, &by.user, Object::Source(source));
        let schema = entry.schema().ok_or_else(|| Error::internal("a source without a schema"))?;
        // Every option is checked before anything exists.
        registry::source(&definition, &schema)?;
        if let Object::Source(source) = &entry.object {
            webhook::check(&catalog, source)?;
        }
        if let Object::Source(source) = &mut entry.object
            && !source.columns.is_empty()
            && !source.key_declared
        {
            source.key = registry::output_key(&definition, &schema)?;
        }
        let mut entries = vec![entry];
        for found in offered {
            let table = found.upstream.rsplit('.').next().unwrap_or(&found.upstream).to_string();
            let table = Name { schema: schema_of_all.clone(), ..Name::bare(table) };
            let table = catalog.check_free(ObjectKind::Table, &table)?;
            let source = entries[0].id;
            entries.push(table::from_discovered(self.new_id()?, table, &by.user, source, &found));
        }
        self.create_inputs(&entries)?;
        self.add_inputs(&entries)?;
        self.start_source(&entries[0]);
        Ok(notices)
    }
}
