//! `tidemill.errors`: records that sources did not understand, and rows that views could not compute.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};

use crate::database::Database;
use crate::database::system::cells::{self, Kind};
use crate::database::system::{Cell, Column, Definition};
use crate::engine::{CollectionId, Engine, InputSpec};
use crate::error::{Error, Result};
use crate::sql::catalog::Object;

/// The collection of bad records. Identities of users' objects begin far above it.
pub(crate) const ERRORS: CollectionId = CollectionId(1);

const COLUMNS: &[Column] = &[
    Column("object", Kind::Text),
    Column("kind", Kind::Text),
    Column("sqlstate", Kind::Text),
    Column("reason", Kind::Text),
    Column("raw", Kind::Bytes),
    Column("position", Kind::Text),
    Column("at", Kind::Timestamp),
    Column("key", Kind::Bytes),
    Column("metadata", Kind::Json),
];

pub(super) const RELATIONS: &[Definition] = &[Definition { name: "errors", columns: COLUMNS, rows }];

/// Columns of the collection of bad records, and of the relation.
pub(crate) fn errors_schema() -> SchemaRef {
    static SCHEMA: std::sync::OnceLock<SchemaRef> = std::sync::OnceLock::new();
    Arc::clone(SCHEMA.get_or_init(|| cells::schema(COLUMNS)))
}

/// The engine's input for bad records.
pub(crate) fn errors_input() -> InputSpec {
    InputSpec {
        id: ERRORS,
        name: "tidemill.errors".into(),
        schema: errors_schema(),
        key: Vec::new(),
        retain: true,
        watermark: None,
    }
}

/// All bad records that are kept.
pub(crate) fn stored_errors(engine: &Engine) -> Result<Vec<RecordBatch>> {
    let snapshot = engine.snapshot();
    let errors = snapshot.collection(ERRORS);
    errors.ok_or_else(|| Error::internal("there is no collection of errors"))?.batches()
}

fn rows(database: &Database) -> Result<Vec<Vec<Cell>>> {
    let snapshot = database.engine.snapshot();
    let mut rows = Vec::new();
    for batch in stored_errors(&database.engine)? {
        let text = |c: usize, row: usize| {
            let column = batch.column(c).as_string_view();
            if column.is_null(row) { Cell::Null } else { Cell::text(column.value(row)) }
        };
        let bytes = |c: usize, row: usize| {
            let column = batch.column(c).as_binary::<i32>();
            if column.is_null(row) { Cell::Null } else { Cell::Bytes(column.value(row).to_vec()) }
        };
        let at = batch.column(6).as_primitive::<TimestampMicrosecondType>();
        for row in 0..batch.num_rows() {
            let at = if at.is_null(row) { Cell::Null } else { Cell::Timestamp(at.value(row)) };
            rows.push(vec![
                text(0, row),
                text(1, row),
                text(2, row),
                text(3, row),
                bytes(4, row),
                text(5, row),
                at,
                bytes(7, row),
                text(8, row),
            ]);
        }
    }
    let catalog = database.catalog();
    for entry in catalog.entries() {
        if !matches!(entry.object, Object::MaterializedView(_)) {
            continue;
        }
        let view = |error: &Error, position: String| {
            vec![
                Cell::text(catalog.full_name(entry)),
                Cell::text("materialized view"),
                Cell::text(error.sqlstate.0),
                Cell::text(error.to_string()),
                Cell::Null,
                Cell::text(position),
                Cell::Null,
                Cell::Null,
                Cell::Null,
            ]
        };
        if let Some(error) = database.failed.lock().get(&entry.id) {
            rows.push(view(error, "view".into()));
        }
        let Some(collection) = snapshot.collection(entry.id.collection()) else { continue };
        if let Some(error) = collection.failed() {
            rows.push(view(error, "view".into()));
        }
        for row in collection.errors() {
            rows.push(view(&row.error, format!("{} row(s)", row.weight)));
        }
    }
    Ok(rows)
}
