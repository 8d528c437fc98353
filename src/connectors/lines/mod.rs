//! LINES: lines of files on this machine, as they are written; logs above all, with what rotates them.
//!
//! A file is known by its number in its file system and by how it begins ([`tail::Identity`]), so that a file that is
//! renamed is still the same one, and a new file is another one whatever its name or number.

mod source;
mod tail;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{Schema, SchemaRef};
use regex::Regex;

use super::envelope::include::allow;
use super::envelope::{self, Declaration, Decoder};
use super::files::glob;
use super::format::{CsvOptions, Format};
use super::warehouse::duration;
use super::{Discovered, Envelope, Options, Source, SourceDefinition};
use crate::error::{Error, Result, SqlState};
use crate::types::SqlType;
use source::LinesSource;

/// How often to look for what is new unless the option `poll` says otherwise.
const POLL: Duration = Duration::from_millis(250);
/// How long a file that was renamed or removed is still written to, unless the option `rotate_wait` says otherwise.
const ROTATE_WAIT: Duration = Duration::from_secs(5);

/// How lines are records.
#[derive(Clone, Debug)]
enum Shape {
    /// A value a line.
    Json,
    /// A record a line, below a header if there is one.
    Csv(CsvOptions),
    /// A line is a value.
    Text,
}

/// What the source was told.
#[derive(Clone, Debug)]
struct Settings {
    /// Everything there is lies below it.
    base: PathBuf,
    /// What a path must be.
    pattern: Regex,
    /// How many directories deep below the base; `None`: any.
    depth: Option<usize>,
    /// Whether to go on when all is read.
    follow: bool,
    /// What is there at first is not read.
    from_end: bool,
    poll: Duration,
    rotate_wait: Duration,
    shape: Shape,
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(SqlState::INVALID_PARAMETER_VALUE, message)
}

impl Settings {
    fn new(definition: &SourceDefinition) -> Result<Settings> {
        let unsupported = |what: &str| Err(Error::unsupported(format!("FORMAT {what} of a LINES source")));
        let shape = match Format::new(definition.format.as_ref())? {
            Format::Json(_) => Shape::Json,
            Format::Csv(options) => Shape::Csv(options),
            Format::Text => Shape::Text,
            Format::Xml(_) => return unsupported("XML"),
            Format::Avro(_) => return unsupported("AVRO"),
            Format::Protobuf(_) => return unsupported("PROTOBUF"),
            Format::Bytes => return unsupported("BYTES"),
        };
        let mut options = Options::new("a LINES source", definition.options.clone());
        let path = options.require("path")?;
        let follow = options.parse("follow", "true or false")?.unwrap_or(true);
        let from_end = match options.take("start").as_deref() {
            None | Some("beginning") => false,
            Some("end") => true,
            Some(other) => {
                return Err(invalid(format!(
                    "option \"start\" of a LINES source must be 'beginning' or 'end', not \"{other}\""
                )));
            }
        };
        let mut time = |name: &'static str, default: Duration| match options.take(name) {
            Some(text) => duration(name, &text),
            None => Ok(default),
        };
        let (poll, rotate_wait) = (time("poll", POLL)?, time("rotate_wait", ROTATE_WAIT)?);
        options.finish()?;
        if from_end && !follow {
            return Err(invalid("start = 'end' with follow = false would read nothing"));
        }
        if !Path::new(&path).is_absolute() {
            return Err(invalid(format!(
                "option \"path\" of a LINES source must be an absolute path, like /var/log/app/*.log, not \"{path}\""
            )));
        }
        let start = path.find(['*', '?', '[', '{']).unwrap_or(path.len());
        let (base, below) =
            path.split_at(path.get(..start).and_then(|p| p.rfind('/')).map_or(0, |at| at + 1));
        let depth = (!below.contains("**")).then(|| below.matches('/').count());
        let expression = format!("^{}{}$", regex::escape(base), glob(below)?);
        let pattern = Regex::new(&expression)
            .map_err(|e| invalid(format!("option \"path\" of a LINES source is no pattern: {e}")))?;
        Ok(Settings { base: PathBuf::from(base), pattern, depth, follow, from_end, poll, rotate_wait, shape })
    }

    /// The files that are there now, by name.
    fn list(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut directories = vec![(self.base.clone(), 0)];
        while let Some((directory, depth)) = directories.pop() {
            // What cannot be read, or is gone by now, has no files for us.
            let Ok(entries) = std::fs::read_dir(&directory) else { continue };
            for entry in entries.flatten() {
                let path = entry.path();
                let Ok(meta) = std::fs::metadata(&path) else { continue };
                if meta.is_dir() {
                    // A link to a directory may lead back to where it is.
                    let is_link = entry.file_type().is_ok_and(|t| t.is_symlink());
                    if self.depth.map_or(!is_link, |deepest| depth < deepest) {
                        directories.push((path, depth + 1));
                    }
                } else if meta.is_file() && path.to_str().is_some_and(|p| self.pattern.is_match(p)) {
                    found.push(path);
                }
            }
        }
        found.sort();
        found
    }
}

/// The source that a definition asks for. Touches nothing.
///
/// # Errors
/// What is wrong with the definition.
pub fn source(definition: &SourceDefinition, schema: &SchemaRef) -> Result<Box<dyn Source>> {
    if definition.envelope != Envelope::None {
        return Err(Error::unsupported("an ENVELOPE of a LINES source"));
    }
    allow(definition, "LINES", &["path", "line", "timestamp"])?;
    let settings = Settings::new(definition)?;
    let decoder = Decoder::new(&Declaration { definition, schema, full_before_images: false })?;
    Ok(Box::new(LinesSource { settings, decoder }))
}

/// The one column that lines have when none is declared.
///
/// # Errors
/// 42601 for a format whose columns must be declared.
pub fn discover(definition: &SourceDefinition) -> Result<Vec<Discovered>> {
    let line = match Settings::new(definition)?.shape {
        Shape::Text => SqlType::Text,
        Shape::Json => SqlType::Jsonb,
        Shape::Csv(_) => {
            let message = "a LINES source of FORMAT CSV needs a column list";
            return Err(Error::new(SqlState::SYNTAX_ERROR, message).with_hint(
                "For example: CREATE SOURCE s (id bigint, name text) FROM LINES (path = '/var/log/app/*.csv') FORMAT CSV.",
            ));
        }
    };
    let schema = Arc::new(Schema::new(vec![line.field_ref("line", true)]));
    Ok(vec![Discovered { upstream: definition.name.clone(), schema, key: Vec::new() }])
}

/// The declared key.
///
/// # Errors
/// As of the envelope.
pub fn output_key(definition: &SourceDefinition, schema: &SchemaRef) -> Result<Vec<usize>> {
    envelope::output_key(definition, schema, false)
}
