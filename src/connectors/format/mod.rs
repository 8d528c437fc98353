//! Formats: how a record's bytes become fields, and how rows become bytes.
//!
//! Reading goes in two steps. A [`RecordReader`] finds the fields of one record by column ([`cell::Row`]); a
//! [`rows::RowsBuilder`] turns them into Arrow columns. What a record *means* is up to `envelope`. All of it runs on the
//! connector's thread.

pub mod avro;
pub mod cell;
pub mod column;
pub mod csv;
pub mod datetime;
pub mod encode;
pub mod infer;
pub mod json;
pub mod number;
pub mod pointer;
pub mod protobuf;
pub mod quote;
pub mod records;
pub mod rows;
pub mod scan;
pub mod typed;
pub mod values;
pub mod xml;

use arrow::datatypes::{DataType, Field, Schema};

use crate::connectors::schema_registry::subject::Part;
use crate::connectors::{FormatSpec, OptionValue, Options};
use crate::error::{Error, Result, SqlState};
use crate::types::TYPE_KEY;
use avro::{AvroOptions, AvroReader};
use cell::{RECORD_BYTES_MAX, Row, Slot};
use csv::CsvReader;
use json::JsonReader;
use protobuf::{ProtobufOptions, ProtobufReader};
use values::{Encoding, Unit, text_of};
use xml::{XmlOptions, XmlReader};

/// Why a record as a whole was not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadFormat {
    /// What kind of error.
    pub sqlstate: SqlState,
    /// What was wrong, and where.
    pub reason: String,
}

impl BadFormat {
    /// Nothing is known of the record, because the registry that has its schema did not answer: it is to be read again.
    pub fn is_unavailable(&self) -> bool {
        is_unavailable(self.sqlstate)
    }
}

/// Whether an error of this kind is of a registry that did not answer, or refused to, rather than of a record.
pub fn is_unavailable(sqlstate: SqlState) -> bool {
    [SqlState::CONNECTION_FAILURE, SqlState::INVALID_AUTHORIZATION].contains(&sqlstate)
}

/// What FORMAT said, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a record, its members by column name.
    Json(JsonOptions),
    /// One line a record.
    Csv(CsvOptions),
    /// One XML document a record, with a row in it or several.
    Xml(XmlOptions),
    /// One Avro datum a record.
    Avro(Box<AvroOptions>),
    /// One Protobuf message a record.
    Protobuf(Box<ProtobufOptions>),
    /// The whole record is the one column, of type text.
    Text,
    /// The whole record is the one column, of type bytea.
    Bytes,
}

/// Options of FORMAT JSON. What is `None` was not said: the envelope then knows what its producers do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JsonOptions {
    /// `timestamp.format`: what numbers in time columns count; `Plain` (`iso`): they are refused, strings only.
    pub timestamp: Option<Encoding>,
    /// `binary.format`: how strings in bytea columns are to be read.
    pub binary: Option<Encoding>,
    /// `decimal.format`: how strings in numeric columns are to be read.
    pub decimal: Option<Encoding>,
}

/// Options of FORMAT CSV.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsvOptions {
    /// `header`: each record (a file, a message of several lines) starts with a line of column names.
    pub header: bool,
    /// `delimiter`, one byte.
    pub delimiter: u8,
    /// `quote`, one byte.
    pub quote: u8,
    /// `null`: what an unquoted field must be to be NULL.
    pub null: String,
}

impl Default for CsvOptions {
    fn default() -> Self {
        CsvOptions { header: false, delimiter: b',', quote: b'"', null: String::new() }
    }
}

impl Format {
    /// Understands what FORMAT said; without any it is JSON.
    ///
    /// # Errors
    /// 0A000 for formats that are not built, 22023 for options.
    pub fn new(spec: Option<&FormatSpec>) -> Result<Format> {
        let Some(spec) = spec else { return Ok(Format::Json(JsonOptions::default())) };
        let name = spec.name.to_ascii_lowercase();
        let mut values = Vec::with_capacity(spec.options.len());
        for (option, value) in &spec.options {
            match value {
                OptionValue::Literal(text) => values.push((option.clone(), text.clone())),
                OptionValue::Secret(_) => {
                    let message =
                        format!("option \"{option}\" of FORMAT {} cannot be a secret", name.to_uppercase());
                    return Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, message));
                }
            }
        }
        let mut options = Options::new(format!("FORMAT {}", name.to_uppercase()), values);
        let format = match name.as_str() {
            "json" => Format::Json(JsonOptions::take(&mut options)?),
            "csv" => Format::Csv(CsvOptions::take(&mut options)?),
            "xml" => Format::Xml(XmlOptions::take(&mut options)?),
            "protobuf" => Format::Protobuf(Box::new(ProtobufOptions::take(&mut options)?)),
            "avro" => Format::Avro(Box::new(AvroOptions::take(&mut options)?)),
            "text" => Format::Text,
            "bytes" => Format::Bytes,
            _ => return Err(Error::unsupported(format!("FORMAT {}", name.to_uppercase()))),
        };
        options.finish()?;
        Ok(format)
    }

    /// Says which topic the records are in, which subjects of a registry are named after.
    pub fn set_topic(&mut self, topic: &str) {
        match self {
            Format::Avro(options) => options.subjects.set_topic(topic),
            Format::Protobuf(options) => options.subjects.set_topic(topic),
            _ => (),
        }
    }

    /// What reads records of the format into the columns of `schema`.
    ///
    /// # Errors
    /// 42P16 when the columns do not suit the format.
    pub fn reader(&self, schema: &Schema) -> Result<RecordReader> {
        Ok(match self {
            Format::Json(options) => RecordReader::Json(JsonReader::new(schema, options)),
            Format::Csv(options) => RecordReader::Csv(CsvReader::new(schema, options)),
            Format::Xml(options) => RecordReader::Xml(Box::new(XmlReader::new(schema, options)?)),
            Format::Avro(options) => {
                RecordReader::Avro(Box::new(AvroReader::new(schema, Part::Value, options)?))
            }
            Format::Protobuf(options) => {
                RecordReader::Protobuf(Box::new(ProtobufReader::new(schema, Part::Value, options)?))
            }
            Format::Text => {
                one_column(schema, "TEXT", "text", |f| *f.data_type() == DataType::Utf8View)?;
                RecordReader::Whole(Whole::Text)
            }
            Format::Bytes => {
                one_column(schema, "BYTES", "bytea", |f| *f.data_type() == DataType::Binary)?;
                RecordReader::Whole(Whole::Bytes)
            }
        })
    }
}

fn one_column(schema: &Schema, format: &str, type_name: &str, suits: impl Fn(&Field) -> bool) -> Result<()> {
    match &schema.fields()[..] {
        [only] if suits(only) => Ok(()),
        _ => Err(Error::new(
            SqlState::INVALID_TABLE_DEFINITION,
            format!("FORMAT {format} needs exactly one column, of type {type_name}"),
        )),
    }
}

/// Whether the column's SQL type is jsonb or json.
pub fn is_json(field: &Field) -> bool {
    matches!(field.metadata().get(TYPE_KEY).map(String::as_str), Some("jsonb" | "json"))
}

/// Whether the columns are one jsonb or json column that takes whole documents: it is the only one, and named so by
/// its type.
pub fn is_whole_document(schema: &Schema) -> bool {
    let is_json =
        |f: &Field| matches!(f.metadata().get(TYPE_KEY).map(String::as_str), Some("jsonb" | "json"));
    matches!(&schema.fields()[..], [only] if is_json(only))
}

fn one_of<T>(options: &mut Options, name: &'static str, of: &[(&str, T)]) -> Result<Option<T>>
where
    T: Clone,
{
    let Some(value) = options.take(name) else { return Ok(None) };
    match of.iter().find(|(n, _)| n.eq_ignore_ascii_case(&value)) {
        Some((_, found)) => Ok(Some(found.clone())),
        None => {
            let names: Vec<&str> = of.iter().map(|(n, _)| *n).collect();
            Err(Error::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("option \"{name}\" must be one of {}, not \"{value}\"", names.join(", ")),
            ))
        }
    }
}

impl JsonOptions {
    /// Takes `timestamp.format`.
    pub(super) fn take_timestamp(options: &mut Options) -> Result<Option<Encoding>> {
        let timestamps = [
            ("iso", Encoding::Plain),
            ("s", Encoding::Epoch(Unit::Second)),
            ("ms", Encoding::Epoch(Unit::Millisecond)),
            ("us", Encoding::Epoch(Unit::Microsecond)),
            ("ns", Encoding::Epoch(Unit::Nanosecond)),
        ];
        one_of(options, "timestamp.format", &timestamps)
    }

    fn take(options: &mut Options) -> Result<Self> {
        let binaries = [("escape", Encoding::Plain), ("base64", Encoding::Base64), ("hex", Encoding::Hex)];
        let decimals = [("text", Encoding::Plain), ("base64", Encoding::Decimal(None))];
        Ok(JsonOptions {
            timestamp: Self::take_timestamp(options)?,
            binary: one_of(options, "binary.format", &binaries)?,
            decimal: one_of(options, "decimal.format", &decimals)?,
        })
    }

    /// How a column's fields are written by a producer of plain JSON.
    pub fn encoding(&self, data_type: &DataType) -> Encoding {
        match data_type {
            DataType::Date32 | DataType::Time64(_) | DataType::Timestamp(..) => {
                self.timestamp.unwrap_or_default()
            }
            DataType::Binary => self.binary.unwrap_or_default(),
            DataType::Decimal128(..) => self.decimal.unwrap_or_default(),
            DataType::List(item) => self.encoding(item.data_type()),
            _ => Encoding::Plain,
        }
    }
}

impl CsvOptions {
    fn take(options: &mut Options) -> Result<Self> {
        let defaults = CsvOptions::default();
        let mut byte = |name: &'static str, default: u8| match options.take(name).as_deref() {
            None => Ok(default),
            Some("\\t") => Ok(b'\t'),
            Some(text) => match text.as_bytes() {
                [byte] if !matches!(byte, b'\n' | b'\r') => Ok(*byte),
                _ => Err(Error::new(
                    SqlState::INVALID_PARAMETER_VALUE,
                    format!("option \"{name}\" of FORMAT CSV must be a single one-byte character"),
                )),
            },
        };
        let delimiter = byte("delimiter", defaults.delimiter)?;
        let quote = byte("quote", defaults.quote)?;
        if delimiter == quote {
            let message = "delimiter and quote of FORMAT CSV must be different";
            return Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, message));
        }
        let header = options.parse("header", "true or false")?.unwrap_or(defaults.header);
        let null = options.take("null").unwrap_or(defaults.null);
        Ok(CsvOptions { header, delimiter, quote, null })
    }
}

/// A format that takes the record as one value.
#[derive(Clone, Copy, Debug)]
pub enum Whole {
    /// As text.
    Text,
    /// As bytes.
    Bytes,
}

/// Reads records of one format.
#[derive(Debug)]
pub enum RecordReader {
    /// FORMAT JSON.
    Json(JsonReader),
    /// FORMAT CSV.
    Csv(CsvReader),
    /// FORMAT XML.
    Xml(Box<XmlReader>),
    /// FORMAT AVRO.
    Avro(Box<AvroReader>),
    /// FORMAT PROTOBUF.
    Protobuf(Box<ProtobufReader>),
    /// FORMAT TEXT and BYTES.
    Whole(Whole),
}

impl RecordReader {
    /// Reads a record: for each row in it, `emit` gets the row and the text that its slots are of.
    ///
    /// FORMAT BYTES has no text; its rows come with the record's bytes as [`Fields::Bytes`].
    ///
    /// # Errors
    /// What is wrong with the record as a whole; rows of it may have been emitted before.
    pub fn read(
        &mut self,
        record: &[u8],
        mut emit: impl FnMut(Fields<'_>) -> std::result::Result<(), BadFormat>,
    ) -> std::result::Result<(), BadFormat> {
        if record.len() > RECORD_BYTES_MAX {
            return Err(BadFormat {
                sqlstate: SqlState::DATA_EXCEPTION,
                reason: format!("the record has {} bytes, more than {RECORD_BYTES_MAX}", record.len()),
            });
        }
        match self {
            RecordReader::Whole(Whole::Bytes) => return emit(Fields::Bytes(record)),
            // What is text in it is the row's own.
            RecordReader::Avro(reader) => return emit(Fields::Row(reader.read(record)?, "")),
            RecordReader::Protobuf(reader) => return emit(Fields::Row(reader.read(record)?, "")),
            _ => (),
        }
        let text = text_of(record).map_err(|e| BadFormat { sqlstate: e.sqlstate, reason: e.message })?;
        match self {
            RecordReader::Json(reader) => emit(Fields::Row(reader.read(text)?, text)),
            RecordReader::Csv(reader) => reader.read(text, |row| emit(Fields::Row(row, text))),
            RecordReader::Xml(reader) => reader.read(text, |row| emit(Fields::Row(row, text))),
            RecordReader::Avro(_) | RecordReader::Protobuf(_) | RecordReader::Whole(_) => {
                let mut row = Row::new(1);
                row.set(0, Slot::Text((0..text.len()).into()));
                emit(Fields::Row(&row, text))
            }
        }
    }

    /// Says what the columns of the CSV records that follow are, which then have no header of their own.
    ///
    /// # Errors
    /// 22P04 when it is none.
    pub fn set_header(&mut self, header: &[u8]) -> std::result::Result<(), BadFormat> {
        let text = text_of(header).map_err(|e| BadFormat { sqlstate: e.sqlstate, reason: e.message })?;
        match self {
            RecordReader::Csv(reader) => reader.set_header(text),
            _ => Ok(()),
        }
    }

    /// How the fields of each column are written.
    pub fn encodings(&self) -> &[Encoding] {
        match self {
            RecordReader::Json(reader) => reader.encodings(),
            RecordReader::Xml(reader) => reader.encodings(),
            RecordReader::Avro(reader) => reader.encodings(),
            RecordReader::Protobuf(reader) => reader.encodings(),
            RecordReader::Csv(_) | RecordReader::Whole(_) => &[],
        }
    }
}

/// One row of a record, not yet understood.
#[derive(Clone, Copy, Debug)]
pub enum Fields<'a> {
    /// Fields by column, and the text that they are of.
    Row(&'a Row, &'a str),
    /// The record is the one column's value.
    Bytes(&'a [u8]),
}
