//! The files sink: a relation kept as files in a directory.
//!
//! `INTO FILES CONNECTION w (table = 'orders') [KEY (…)] FORMAT PARQUET | JSON | CSV`: the directory `orders` under
//! the connection's `url` is the table. With a key, or when rows of the relation come and go, its Parquet files hold
//! the current rows (see [`local`]); a relation that only grows gets new files with each commit, in any format.
//! Either way every change is applied exactly once.

use std::path::PathBuf;
use std::time::Duration;

use arrow::datatypes::SchemaRef;

use super::warehouse::local::{self, FileFormat, LocalWarehouse};
use super::warehouse::{Settings, Shape, check_columns, sync};
use super::{Envelope, Options, Sink, SinkContext, SinkDefinition};
use crate::error::{Error, Result, SqlState};

/// Checks a connection to a directory: that its url names one and that it can be written to.
pub fn validate_connection(options: Vec<(String, String)>) -> Result<()> {
    let mut options = Options::new("OBJECT STORE connection", options);
    let root = directory(&options.require("url")?)?;
    options.finish()?;
    std::fs::create_dir_all(&root).map_err(|e| {
        let mut error = Error::from(e);
        error.message = format!("cannot write to {}: {}", root.display(), error.message);
        error
    })
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
    let settings = Settings::take(&mut options, Duration::from_secs(1))?;
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
    Ok(Box::new(FilesSink { table: directory(&url)?.join(table), format, settings }))
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
    table: PathBuf,
    format: FileFormat,
    settings: Settings,
}

impl Sink for FilesSink {
    fn run(self: Box<Self>, cx: SinkContext) -> Result<()> {
        let shape = Shape::new(cx.schema.clone(), &cx.key, cx.append_only);
        let mut warehouse = LocalWarehouse::new(self.table, cx.uuid, shape.clone(), self.format)?;
        sync::run(&mut warehouse, shape, &self.settings, cx)
    }

    fn clean_up(self: Box<Self>) -> Result<()> {
        local::remove_stage(&self.table)
    }
}
