//! Every kind of external system there is, and what each can do.

use arrow::datatypes::SchemaRef;

use super::envelope::{Declaration, Decoder};
use super::generate::nexmark::EventStream;
use super::generate::shop::Shop;
use super::generate::{datagen, stream};
use super::{
    Discovered, Sink, SinkDefinition, Source, SourceDefinition, files, http, kafka, lines, mqtt, mysql,
    postgres, redshift, schema_registry, snowflake, webhook,
};
use crate::error::{Error, Result};

type Validate = fn(Vec<(String, String)>) -> Result<()>;
type MakeSource = fn(&SourceDefinition, &SchemaRef) -> Result<Box<dyn Source>>;
type Discover = fn(&SourceDefinition) -> Result<Vec<Discovered>>;
type OutputKey = fn(&SourceDefinition, &SchemaRef) -> Result<Vec<usize>>;
type MakeSink = fn(&SinkDefinition, &SchemaRef, &[usize]) -> Result<Box<dyn Sink>>;
type MakeDecoder = fn(&SourceDefinition, &SchemaRef) -> Result<Decoder>;
type DropSource = fn(&SourceDefinition) -> Result<()>;

/// What one kind can do; `None` is refused with 0A000.
struct Kind {
    name: &'static str,
    validate: Option<Validate>,
    source: Option<MakeSource>,
    discover: Option<Discover>,
    output_key: Option<OutputKey>,
    decoder: Option<MakeDecoder>,
    sink: Option<MakeSink>,
    drop_source: Option<DropSource>,
}

const NOTHING: Kind = Kind {
    name: "",
    validate: None,
    source: None,
    discover: None,
    output_key: None,
    decoder: None,
    sink: None,
    drop_source: None,
};

const KINDS: &[Kind] = &[
    Kind {
        name: "kafka",
        validate: Some(kafka::validate_connection),
        source: Some(kafka::source),
        discover: Some(kafka::discover),
        output_key: Some(kafka::output_key),
        decoder: Some(records),
        sink: Some(kafka::sink),
        ..NOTHING
    },
    Kind {
        name: "postgres",
        validate: Some(postgres::validate_connection),
        source: Some(postgres::source),
        discover: Some(postgres::discover),
        sink: Some(postgres::sink::sink),
        drop_source: Some(postgres::drop_slot),
        ..NOTHING
    },
    Kind {
        name: "mysql",
        validate: Some(mysql::validate_connection),
        source: Some(mysql::source),
        discover: Some(mysql::discover),
        ..NOTHING
    },
    Kind {
        name: "snowflake",
        validate: Some(snowflake::validate_connection),
        sink: Some(snowflake::sink),
        ..NOTHING
    },
    Kind {
        name: "redshift",
        validate: Some(redshift::validate_connection),
        sink: Some(redshift::sink),
        ..NOTHING
    },
    Kind {
        name: "nexmark",
        source: Some(stream::source::<EventStream>),
        discover: Some(stream::discover::<EventStream>),
        ..NOTHING
    },
    Kind {
        name: "shop",
        source: Some(stream::source::<Shop>),
        discover: Some(stream::discover::<Shop>),
        ..NOTHING
    },
    Kind {
        name: "datagen",
        source: Some(datagen::source),
        discover: Some(datagen::discover),
        output_key: Some(datagen::output_key),
        ..NOTHING
    },
    Kind {
        name: "http",
        source: Some(http::source),
        discover: Some(http::discover),
        output_key: Some(http::output_key),
        decoder: Some(http::decoder),
        ..NOTHING
    },
    Kind {
        name: "lines",
        source: Some(lines::source),
        discover: Some(lines::discover),
        output_key: Some(lines::output_key),
        decoder: Some(records),
        ..NOTHING
    },
    Kind {
        name: "mqtt",
        source: Some(mqtt::source),
        discover: Some(mqtt::discover),
        output_key: Some(mqtt::output_key),
        decoder: Some(records),
        drop_source: Some(mqtt::drop_session),
        ..NOTHING
    },
    Kind {
        name: "webhook",
        source: Some(webhook::source),
        discover: Some(webhook::discover),
        output_key: Some(webhook::output_key),
        decoder: Some(webhook::decoder),
        sink: Some(webhook::sink::sink),
        ..NOTHING
    },
    Kind { name: "schema registry", validate: Some(schema_registry::validate_connection), ..NOTHING },
    Kind { name: "object store", validate: Some(files::validate_connection), ..NOTHING },
    Kind {
        name: "files",
        validate: Some(files::validate_connection),
        source: Some(files::source),
        discover: Some(files::discover),
        output_key: Some(files::output_key),
        decoder: Some(records),
        sink: Some(files::sink),
        ..NOTHING
    },
];

/// What reads the records of a source that hands its records to a decoder as they are.
fn records(definition: &SourceDefinition, schema: &SchemaRef) -> Result<Decoder> {
    Decoder::new(&Declaration { definition, schema, full_before_images: false })
}

fn kind(name: &str) -> &'static Kind {
    KINDS.iter().find(|k| k.name == name).unwrap_or(&NOTHING)
}

fn missing(kind: &str, what: &str) -> Error {
    Error::unsupported(format!("a {} {what}", kind.to_uppercase()))
}

/// Tries a connection: blocks for at most a few seconds.
///
/// # Errors
/// Why it does not work; 0A000 for a kind that has no connections.
pub fn validate_connection(kind_name: &str, options: Vec<(String, String)>) -> Result<()> {
    kind(kind_name).validate.ok_or_else(|| missing(kind_name, "connection"))?(options)
}

/// Refuses a kind that has no connections.
///
/// # Errors
/// 0A000.
pub fn check_connection_kind(kind_name: &str) -> Result<()> {
    kind(kind_name).validate.map(|_| ()).ok_or_else(|| missing(kind_name, "connection"))
}

/// The source that a definition asks for; checks every option and touches nothing.
///
/// # Errors
/// 22023 and the like for options; 0A000 for a kind that is no source.
pub fn source(def: &SourceDefinition, schema: &SchemaRef) -> Result<Box<dyn Source>> {
    kind(&def.kind).source.ok_or_else(|| missing(&def.kind, "source"))?(def, schema)
}

/// The relations that a source offers; asks the external system.
///
/// # Errors
/// The system's; 0A000 for a kind whose columns must be declared.
pub fn discover(def: &SourceDefinition) -> Result<Vec<Discovered>> {
    let discover = kind(&def.kind).discover;
    discover.ok_or_else(|| missing(&def.kind, "source without a column list"))?(def)
}

/// The key that the envelope gives the source's own columns; empty: none.
///
/// # Errors
/// 42P16 when the envelope needs a key and there is none.
pub fn output_key(def: &SourceDefinition, schema: &SchemaRef) -> Result<Vec<usize>> {
    kind(&def.kind).output_key.map_or_else(|| Ok(Vec::new()), |f| f(def, schema))
}

/// What decodes single records of a source again.
///
/// # Errors
/// 0A000 for a kind whose records cannot be.
pub fn decoder(def: &SourceDefinition, schema: &SchemaRef) -> Result<Decoder> {
    let name = &def.kind;
    let refused = || Error::unsupported(format!("REPLAY ERRORS of a {} source", name.to_uppercase()));
    kind(name).decoder.ok_or_else(refused)?(def, schema)
}

/// The sink that a definition asks for; checks every option and touches nothing.
///
/// # Errors
/// 22023 and the like for options; 0A000 for a kind that is no sink.
pub fn sink(def: &SinkDefinition, schema: &SchemaRef, key: &[usize]) -> Result<Box<dyn Sink>> {
    kind(&def.kind).sink.ok_or_else(|| missing(&def.kind, "sink"))?(def, schema, key)
}

/// Removes what a dropped source has left upstream (a replication slot).
///
/// # Errors
/// The system's.
pub fn drop_source(def: &SourceDefinition) -> Result<()> {
    kind(&def.kind).drop_source.map_or(Ok(()), |f| f(def))
}
