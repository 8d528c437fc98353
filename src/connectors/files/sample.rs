//! The columns of files that declare none: what a schema in them says, or what their first records look like.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use object_store::{ObjectStoreExt, path::Path};
use tokio::runtime::Runtime;

use super::source::{Settings, Shape};
use super::store::{File, store_error};
use super::text::{Broken, Records, open};
use super::{avro, parquet};
use crate::connectors::format::infer;
use crate::connectors::format::records::Splitter;
use crate::error::{Error, Result, SqlState};
use crate::types::SqlType;

/// So many records of the first file are looked at.
const RECORDS: usize = 1000;
/// Nor much more than so many bytes of it.
const BYTES: usize = 4 << 20;

/// The columns of the files, by the first of them that has something in it.
///
/// # Errors
/// 58P01 when there is none; the store's; what is wrong with the file.
pub(super) fn columns(settings: &Settings) -> Result<SchemaRef> {
    if matches!(settings.shape, Shape::Text) {
        return Ok(Arc::new(Schema::new(vec![SqlType::Text.field_ref("line", true)])));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let files = runtime.block_on(settings.place.list())?;
    let Some(first) = files.iter().find(|f| f.size > 0) else {
        return Err(Error::new(SqlState("58P01"), "there is no file yet to take the columns from")
            .with_hint("Declare the columns that are wanted."));
    };
    let wrong = |why: String| Error::new(SqlState::DATA_EXCEPTION, format!("{}: {why}", first.path));
    let schema = match &settings.shape {
        Shape::Parquet(_) => return runtime.block_on(parquet::columns_of(&settings.place, first)),
        Shape::Avro(_) => {
            let broken = Broken::default();
            let stream = runtime.block_on(settings.place.store.get(&first.location));
            let stream = stream.map_err(|e| store_error(&e))?.into_stream();
            let input = open(&runtime, stream, broken, settings.compression, &first.path)?;
            return parquet::sql_columns(&avro::Rows::new(input).map_err(wrong)?.schema(), &first.path);
        }
        Shape::Csv(options) => {
            let mut records = records(&runtime, settings, first, Splitter::quoted(options.quote))?;
            let header = (options.header && !records.is_empty()).then(|| records.remove(0));
            let texts: Vec<&str> = records.iter().map(String::as_str).collect();
            infer::csv(header.as_deref(), &texts, options).map_err(|bad| wrong(bad.reason))?
        }
        Shape::Json | Shape::Text => {
            let records = records(&runtime, settings, first, Splitter::plain())?;
            infer::json(&records.iter().map(String::as_str).collect::<Vec<_>>())?
        }
    };
    if schema.fields().is_empty() {
        return Err(wrong("there is no record to take the columns from".into())
            .with_hint("Declare the columns that are wanted."));
    }
    Ok(Arc::new(schema))
}

/// The first records of a file, but for blank ones.
fn records(runtime: &Runtime, settings: &Settings, file: &File, splitter: Splitter) -> Result<Vec<String>> {
    let location: &Path = &file.location;
    let stream = runtime.block_on(settings.place.store.get(location)).map_err(|e| store_error(&e))?;
    let stream = stream.into_stream();
    let broken = Broken::default();
    let mut records =
        Records::new(runtime, stream, Arc::clone(&broken), settings.compression, &file.path, splitter)?;
    let (mut found, mut bytes) = (Vec::new(), 0);
    while found.len() < RECORDS && bytes < BYTES {
        match records.next() {
            Ok(None) => break,
            Ok(Some((_, record))) => {
                bytes += record.len();
                if !record.iter().all(u8::is_ascii_whitespace) {
                    found.push(String::from_utf8_lossy(record).into_owned());
                }
            }
            Err(e) => {
                if let Some(error) = broken.lock().take() {
                    return Err(store_error(&error));
                }
                return Err(Error::new(SqlState::DATA_EXCEPTION, format!("{}: {e}", file.path)));
            }
        }
    }
    Ok(found)
}
