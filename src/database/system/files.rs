//! `tidemill.files`: which files the sources have read to their end, in the same transactions as their rows.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Int64Type, SchemaRef, TimestampMicrosecondType};

use crate::connectors::FinishedFile;
use crate::database::Database;
use crate::database::system::cells::{self, Kind};
use crate::database::system::objects::name_of;
use crate::database::system::{Cell, Column, Definition};
use crate::engine::{CollectionId, Engine, InputChange, InputSpec};
use crate::error::{Error, Result};
use crate::sql::ObjectId;
use crate::world;

/// The collection of files that were read. Identities of users' objects begin far above it.
pub(crate) const FILES: CollectionId = CollectionId(2);

/// As stored: by source and path there is one row.
const STORED: &[Column] = &[
    Column("source", Kind::Int),
    Column("path", Kind::Text),
    Column("version", Kind::Text),
    Column("size", Kind::Int),
    Column("rows", Kind::Int),
    Column("bad_records", Kind::Int),
    Column("at", Kind::Timestamp),
];

pub(super) const RELATIONS: &[Definition] = &[Definition {
    name: "files",
    columns: &[
        Column("source", Kind::Text),
        Column("path", Kind::Text),
        Column("size", Kind::Int),
        Column("rows", Kind::Int),
        Column("bad_records", Kind::Int),
        Column("at", Kind::Timestamp),
    ],
    rows,
}];

fn schema() -> SchemaRef {
    static SCHEMA: std::sync::OnceLock<SchemaRef> = std::sync::OnceLock::new();
    Arc::clone(SCHEMA.get_or_init(|| cells::schema(STORED)))
}

/// The engine's input for files that were read.
pub(crate) fn files_input() -> InputSpec {
    InputSpec {
        id: FILES,
        name: "tidemill.files".into(),
        schema: schema(),
        key: vec![0, 1],
        retain: true,
        watermark: None,
    }
}

/// The change that tells of files read by a source.
pub(crate) fn finished_rows(source: ObjectId, files: &[FinishedFile]) -> Result<InputChange> {
    let now = world::now_micros();
    let row = |file: &FinishedFile| {
        vec![
            Cell::int(source.0),
            Cell::text(&file.path),
            Cell::text(&file.version),
            Cell::int(file.size),
            Cell::int(file.rows),
            Cell::int(file.bad_records),
            Cell::Timestamp(now),
        ]
    };
    let rows = cells::batch(STORED, &schema(), files.iter().map(row).collect())?;
    Ok(InputChange::Upsert { rows, deletes: None })
}

/// All that is stored.
fn stored(engine: &Engine) -> Result<Vec<RecordBatch>> {
    let snapshot = engine.snapshot();
    let files =
        snapshot.collection(FILES).ok_or_else(|| Error::internal("there is no collection of files"))?;
    files.batches()
}

/// Url and version of every file that a source has read.
pub(crate) fn finished_files(engine: &Engine, source: ObjectId) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for batch in stored(engine)? {
        let sources = batch.column(0).as_primitive::<Int64Type>();
        let (paths, versions) = (batch.column(1).as_string_view(), batch.column(2).as_string_view());
        let of_source =
            (0..batch.num_rows()).filter(|row| u64::try_from(sources.value(*row)) == Ok(source.0));
        found.extend(of_source.map(|row| (paths.value(row).to_string(), versions.value(row).to_string())));
    }
    Ok(found)
}

/// The change that forgets what a source has read; `None`: it has read nothing.
pub(crate) fn forgotten_rows(engine: &Engine, source: ObjectId) -> Result<Option<InputChange>> {
    let mut kept = Vec::new();
    for batch in stored(engine)? {
        let sources = batch.column(0).as_primitive::<Int64Type>();
        let of_source: BooleanArray =
            sources.values().iter().map(|id| Some(u64::try_from(*id) == Ok(source.0))).collect();
        kept.push(filter_record_batch(&batch, &of_source)?);
    }
    let rows = arrow::compute::concat_batches(&schema(), &kept)?;
    let deletes = Some(BooleanArray::from(vec![true; rows.num_rows()]));
    Ok((rows.num_rows() > 0).then_some(InputChange::Upsert { rows, deletes }))
}

fn rows(database: &Database) -> Result<Vec<Vec<Cell>>> {
    let catalog = database.catalog();
    let mut rows = Vec::new();
    for batch in stored(&database.engine)? {
        let int = |c: usize, row: usize| {
            let column = batch.column(c).as_primitive::<Int64Type>();
            if column.is_null(row) { Cell::Null } else { Cell::Int(column.value(row)) }
        };
        let sources = batch.column(0).as_primitive::<Int64Type>();
        let paths = batch.column(1).as_string_view();
        let at = batch.column(6).as_primitive::<TimestampMicrosecondType>();
        for row in 0..batch.num_rows() {
            let source = ObjectId(u64::try_from(sources.value(row)).unwrap_or(0));
            if catalog.get(source).is_none() {
                continue;
            }
            rows.push(vec![
                name_of(&catalog, source),
                Cell::text(paths.value(row)),
                int(3, row),
                int(4, row),
                int(5, row),
                Cell::Timestamp(at.value(row)),
            ]);
        }
    }
    Ok(rows)
}
