//! Files: as a source, each read once, wherever `object_store` reaches (see [`mod@source`]); and as a sink, a relation kept
//! as files in a directory.
//!
//! `INTO FILES CONNECTION w (table = 'orders') [KEY (…)] FORMAT PARQUET | JSON | CSV`: the directory `orders` under
//! the connection's `url` is the table. With a key, or when rows of the relation come and go, its Parquet files hold
//! the current rows (see [`local`]); a relation that only grows gets new files with each commit, in any format.
//! Either way every change is applied exactly once.

mod avro;
mod parquet;
mod preview;
mod sample;
mod source;
pub mod store;
mod text;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{Schema, SchemaRef};

use super::envelope::include::allow;
use super::envelope::{self, Declaration, Decoder};
use super::format::Format;
use super::warehouse::local::{self, FileFormat, LocalWarehouse};
use super::warehouse::{self, check_columns, duration, sync};
use super::{Discovered, Envelope, Options, Sink, SinkContext, SinkDefinition, Source, SourceDefinition};
use crate::error::{Error, Result, SqlState};
use parquet::Columns;
pub use preview::{once, read};
use source::{FilesSource, Settings, Shape};
use store::Place;
pub(super) use store::glob;
use text::Compression;

/// How long a store may take to answer when a connection is checked.
const VALIDATE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often to look for new files unless the option `poll` says otherwise.
const POLL: Duration = Duration::from_secs(10);
/// How long a local file must have been left alone unless the option `min_age` says otherwise.
const MIN_AGE: Duration = Duration::from_secs(1);

/// Checks a connection: that a store answers, or that its directory can be written to.
pub fn validate_connection(options: Vec<(String, String)>) -> Result<()> {
    let mut taken = Options::new("OBJECT STORE connection", options);
    let url = taken.require("url")?;
    let others = taken.take_prefixed("");
    if !(url.starts_with("file:") || url.starts_with('/')) {
        let place = Place::new(&format!("{}/", url.trim_end_matches('/')), others)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        return runtime.block_on(async {
            tokio::time::timeout(VALIDATE_TIMEOUT, place.probe()).await.unwrap_or_else(|_| {
                let message = format!("{url} has not answered within {} s", VALIDATE_TIMEOUT.as_secs());
                Err(Error::new(SqlState::CONNECTION_FAILURE, message))
            })
        });
    }
    let mut options = Options::new("OBJECT STORE connection", others);
    options.take("url");
    let root = directory(&url)?;
    options.finish()?;
    std::fs::create_dir_all(&root).map_err(|e| {
        let mut error = Error::from(e);
        error.message = format!("cannot write to {}: {}", root.display(), error.message);
        error
    })
}

/// The source that a definition asks for. Touches nothing.
///
/// # Errors
/// What is wrong with the definition.
pub fn source(definition: &SourceDefinition, schema: &SchemaRef) -> Result<Box<dyn Source>> {
    if definition.envelope != Envelope::None {
        return Err(Error::unsupported("an ENVELOPE of a FILES source"));
    }
    allow(definition, "FILES", &["path", "line", "timestamp"])?;
    let settings = source_settings(definition, schema)?;
    let decoder = match &settings.shape {
        Shape::Parquet(_) | Shape::Avro(_) => None,
        _ => Some(Decoder::new(&Declaration { definition, schema, full_before_images: false })?),
    };
    Ok(Box::new(FilesSource { settings, decoder }))
}

fn source_settings(definition: &SourceDefinition, schema: &SchemaRef) -> Result<Settings> {
    let shape = match definition.format.as_ref().map(|f| f.name.to_ascii_lowercase()).as_deref() {
        Some(format @ ("parquet" | "avro")) => {
            if let Some((name, _)) = definition.format.as_ref().and_then(|f| f.options.first()) {
                let message = format!("unknown option \"{name}\" of FORMAT {}", format.to_uppercase());
                return Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, message)
                    .with_hint("The files say themselves what is in them."));
            }
            let columns = Columns::new(definition, schema)?;
            if format == "parquet" { Shape::Parquet(columns) } else { Shape::Avro(columns) }
        }
        _ => match Format::new(definition.format.as_ref())? {
            Format::Json(_) => Shape::Json,
            Format::Csv(options) => Shape::Csv(options),
            Format::Text => Shape::Text,
            Format::Avro(_) => return Err(Error::internal("FORMAT AVRO of files has no schema of its own")),
            Format::Protobuf(_) => return Err(Error::unsupported("FORMAT PROTOBUF of a FILES source")),
            Format::Bytes => return Err(Error::unsupported("FORMAT BYTES of a FILES source")),
            Format::Xml(_) => return Err(Error::unsupported("FORMAT XML of a FILES source")),
        },
    };
    let mut options = Options::new("a FILES source", definition.options.clone());
    let poll = match options.take("poll") {
        Some(text) if text.eq_ignore_ascii_case("once") => None,
        Some(text) => Some(duration("poll", &text)?),
        None => Some(POLL),
    };
    let min_age = options.take("min_age").map(|text| duration("min_age", &text)).transpose()?;
    let compression = Compression::new(options.take("compression").as_deref().unwrap_or("auto"))?;
    let (url, store) = if definition.connection.is_empty() {
        (options.require("url")?, options.take_prefixed(""))
    } else {
        let mut connection = Options::new("OBJECT STORE connection", definition.connection.clone());
        let above = connection.require("url")?;
        let below = options.require("path")?;
        options.finish()?;
        (
            format!("{}/{}", above.trim_end_matches('/'), below.trim_start_matches('/')),
            connection.take_prefixed(""),
        )
    };
    let place = Place::new(&url, store)?;
    let min_age = min_age.unwrap_or(if place.local { MIN_AGE } else { Duration::ZERO });
    Ok(Settings { place, poll, min_age, compression, shape })
}

/// The columns that the first file has: by its schema, or by what its first records look like; of lines of text the
/// one that they have.
///
/// # Errors
/// 58P01 when there is no file; the store's; what is wrong with the file.
pub fn discover(definition: &SourceDefinition) -> Result<Vec<Discovered>> {
    let settings = source_settings(definition, &Arc::new(Schema::empty()))?;
    let schema = sample::columns(&settings)?;
    Ok(vec![Discovered { upstream: definition.name.clone(), schema, key: Vec::new() }])
}

/// The declared key.
///
/// # Errors
/// As of the envelope.
pub fn output_key(definition: &SourceDefinition, schema: &SchemaRef) -> Result<Vec<usize>> {
    envelope::output_key(definition, schema, false)
}

/// The sink that a definition asks for. Touches nothing.
pub fn sink(def: &SinkDefinition, schema: &SchemaRef, key: &[usize]) -> Result<Box<dyn Sink>> {
    check_columns(schema)?;
    if def.envelope != Envelope::None {
        return Err(Error::unsupported("an ENVELOPE of a FILES sink"));
    }
    let mut connection = Options::new("OBJECT STORE connection", def.connection.clone());
    let mut options = Options::new("FILES sink", def.options.clone());
    let url = match connection.take("url") {
        Some(url) => url,
        None => options.require("url")?,
    };
    connection.finish()?;
    let table = options.require("table")?;
    let settings = warehouse::Settings::take(&mut options, Duration::from_secs(1))?;
    options.finish()?;
    if table.split('/').any(|part| part.is_empty() || part.starts_with('.')) {
        return Err(Error::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("option \"table\" of FILES sink must be a directory below the url, not \"{table}\""),
        ));
    }
    let format = match &def.format {
        None => FileFormat::Parquet,
        Some(format) if !format.options.is_empty() => {
            return Err(Error::unsupported(format!(
                "option \"{}\" of a FILES sink's FORMAT",
                format.options[0].0
            )));
        }
        Some(format) => match format.name.to_ascii_lowercase().as_str() {
            "parquet" => FileFormat::Parquet,
            "json" => FileFormat::Json,
            "csv" => FileFormat::Csv,
            other => {
                return Err(Error::unsupported(format!("FORMAT {} of a FILES sink", other.to_uppercase())));
            }
        },
    };
    if !key.is_empty() && format != FileFormat::Parquet {
        return Err(Error::unsupported("a FILES sink with a KEY in another format than Parquet"));
    }
    Ok(Box::new(FilesSink { uuid: def.uuid, table: directory(&url)?.join(table), format, settings }))
}

/// The directory that a url names.
fn directory(url: &str) -> Result<PathBuf> {
    let wrong = || {
        Error::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("option \"url\" must name a directory, like file:///var/lib/warehouse, not \"{url}\""),
        )
    };
    match reqwest::Url::parse(url) {
        Ok(parsed) if parsed.scheme() == "file" => parsed.to_file_path().map_err(|()| wrong()),
        Ok(parsed) => Err(Error::unsupported(format!("a FILES sink to {}://", parsed.scheme()))),
        Err(_) => Err(wrong()),
    }
}

#[derive(Debug)]
struct FilesSink {
    uuid: uuid::Uuid,
    table: PathBuf,
    format: FileFormat,
    settings: warehouse::Settings,
}

impl Sink for FilesSink {
    fn run(self: Box<Self>, cx: SinkContext) -> Result<()> {
        let shape = warehouse::Shape::new(cx.schema.clone(), &cx.key, cx.append_only);
        let mut warehouse = LocalWarehouse::new(self.table, cx.uuid, shape.clone(), self.format)?;
        sync::run(&mut warehouse, shape, &self.settings, cx)
    }

    fn target(&self) -> Option<String> {
        let path: PathBuf = self.table.components().collect();
        Some(path.display().to_string())
    }

    fn verifies(&self) -> bool {
        self.format == FileFormat::Parquet
    }

    fn clean_up(self: Box<Self>) -> Result<()> {
        local::remove_stage(&self.table, self.uuid)
    }

    fn rhythm(&self) -> Option<warehouse::Rhythm> {
        let form = match self.format {
            FileFormat::Parquet => warehouse::Form::Parquet,
            FileFormat::Json | FileFormat::Csv => warehouse::Form::Rows(None),
        };
        Some(warehouse::Rhythm { settings: self.settings.clone(), form })
    }
}
