//! FORMAT PROTOBUF: records that are messages of a schema that a registry or a statement gives.

mod compile;
mod decode;
pub mod encode;

use std::sync::Arc;

use arrow::datatypes::{Field, Schema as Columns};
use prost_reflect::{FileDescriptor, Kind, MessageDescriptor};

use self::decode::{Input, Plan, WellKnown, broken, well_known};
use super::cell::{FieldNames, Row};
use super::values::Encoding;
use super::{BadFormat, JsonOptions, is_json, is_whole_document};
use crate::connectors::Options;
use crate::connectors::schema_registry::RegistrySettings;
use crate::connectors::schema_registry::client::{Registered, SchemaKind, SchemaRegistry};
use crate::connectors::schema_registry::frame::Plans;
use crate::connectors::schema_registry::subject::{Part, Subjects};
use crate::error::{Error, Result, SqlState};
use crate::types::SqlType;

/// Options of FORMAT PROTOBUF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtobufOptions {
    /// Where schemas are; `None`: `schema` or `descriptor` is the only one.
    pub registry: Option<RegistrySettings>,
    /// The text of a .proto file.
    schema: Option<String>,
    /// A compiled descriptor set.
    descriptor: Option<String>,
    /// Which messages, and under which names the registry has them.
    pub subjects: Subjects,
    /// What numbers count, in time columns.
    timestamp: Option<Encoding>,
}

impl ProtobufOptions {
    /// From the options of a FORMAT.
    pub(super) fn take(options: &mut Options) -> Result<Self> {
        let taken = ProtobufOptions {
            registry: RegistrySettings::of_format(options)?,
            schema: options.take("schema"),
            descriptor: options.take("descriptor"),
            subjects: Subjects::take(options)?,
            timestamp: JsonOptions::take_timestamp(options)?,
        };
        let given = [taken.registry.is_some(), taken.schema.is_some(), taken.descriptor.is_some()];
        if given.iter().filter(|g| **g).count() != 1 {
            return Err(Error::new(
                SqlState::INVALID_PARAMETER_VALUE,
                "FORMAT PROTOBUF needs a schema, and one only",
            )
            .with_hint(
                "FORMAT PROTOBUF USING SCHEMA REGISTRY CONNECTION name, or the option \"message\" with \"schema\" \
                 (text of a .proto file) or \"descriptor\" (a file that protoc has compiled).",
            ));
        }
        Ok(taken)
    }

    /// The message of a part, as the statement or the registry has it; `None`: there is none for the key.
    ///
    /// # Errors
    /// 42704 when the subject is not there; 22023 when its schema is none.
    pub fn message(&self, part: Part) -> Result<Option<MessageDescriptor>> {
        let name = if part == Part::Key { &self.subjects.key_message } else { &self.subjects.message };
        let Some(registry) = &self.registry else {
            return if part == Part::Key { Ok(None) } else { self.given_message(name.as_deref()).map(Some) };
        };
        let Some(subject) = self.subjects.subject(part, None) else {
            return Err(Error::new(
                SqlState::INVALID_PARAMETER_VALUE,
                "the registry's subject is named after the message, and the option \"message\" does not name it",
            ));
        };
        let version = self.subjects.version.filter(|_| part == Part::Value);
        let registered = match SchemaRegistry::new(registry.clone())?.of_subject(&subject, version) {
            Ok(registered) => registered,
            Err(e) if e.sqlstate == SqlState::UNDEFINED_OBJECT && part == Part::Key => return Ok(None),
            Err(e) => return Err(e),
        };
        let file = compiled(&registered)?;
        match name {
            Some(name) => compile::message(file.parent_pool().all_messages(), Some(name)).map(Some),
            // The first is what clients write that have no other.
            None => compile::message(file.messages().take(1), None).map(Some),
        }
    }

    fn given_message(&self, name: Option<&str>) -> Result<MessageDescriptor> {
        let file;
        let pool = match (&self.descriptor, &self.schema) {
            (Some(descriptor), _) => compile::descriptor_set(descriptor)?,
            (None, text) => {
                file = compile::compile(text.as_deref().unwrap_or_default(), &[])?;
                if name.is_none() {
                    return compile::message(file.messages(), None);
                }
                file.parent_pool().clone()
            }
        };
        compile::message(pool.all_messages(), name)
    }
}

fn compiled(registered: &Registered) -> Result<FileDescriptor> {
    if registered.kind != SchemaKind::Protobuf {
        let message = format!("the schema with the number {} is no Protobuf", registered.id);
        return Err(Error::new(SqlState::DATA_EXCEPTION, message));
    }
    compile::compile(&registered.text, &registered.references)
}

/// The plans of all messages of a file, by where they stand in it.
#[derive(Debug)]
struct FilePlans(Vec<(Vec<usize>, Plan)>);

impl FilePlans {
    fn new(file: &FileDescriptor, names: &mut FieldNames, whole_document: bool) -> Self {
        let mut plans = Vec::new();
        let mut open: Vec<(Vec<usize>, MessageDescriptor)> =
            file.messages().enumerate().map(|(i, m)| (vec![i], m)).collect();
        while let Some((path, message)) = open.pop() {
            for (i, child) in message.child_messages().enumerate() {
                open.push(([&path[..], &[i]].concat(), child));
            }
            plans.push((path, Plan::new(&message, names, whole_document)));
        }
        FilePlans(plans)
    }
}

#[derive(Debug)]
enum Writers {
    Registry(Plans<FilePlans>),
    One(Box<Plan>),
}

/// Reads records into rows.
#[derive(Debug)]
pub struct ProtobufReader {
    writers: Writers,
    names: FieldNames,
    whole_document: bool,
    row: Row,
    encodings: Vec<Encoding>,
    path: Vec<usize>,
}

impl ProtobufReader {
    /// For a part of records, with these columns.
    ///
    /// # Errors
    /// 22023 for a schema that is none.
    pub fn new(columns: &Columns, part: Part, options: &ProtobufOptions) -> Result<Self> {
        let mut names = FieldNames::new(columns.fields().iter().map(|f| f.name().as_str()));
        let whole_document = is_whole_document(columns);
        let writers = match (&options.registry, options.message_if_given(part)?) {
            (Some(registry), _) => {
                Writers::Registry(Plans::new(Arc::new(SchemaRegistry::new(registry.clone())?)))
            }
            (None, Some(message)) => Writers::One(Box::new(Plan::new(&message, &mut names, whole_document))),
            (None, None) => return Err(Error::internal("a key in Protobuf without a schema")),
        };
        let json = JsonOptions { timestamp: options.timestamp, ..JsonOptions::default() };
        Ok(ProtobufReader {
            writers,
            names,
            whole_document,
            row: Row::new(columns.fields().len()),
            encodings: columns
                .fields()
                .iter()
                // A message has no documents of its own: text in their place holds one.
                .map(|f| if is_json(f) { Encoding::JsonText } else { json.encoding(f.data_type()) })
                .collect(),
            path: Vec::new(),
        })
    }

    /// How the fields are written, where their types do not tell.
    pub fn encodings(&self) -> &[Encoding] {
        &self.encodings
    }

    /// The row that was read last.
    pub fn row(&self) -> &Row {
        &self.row
    }

    /// Reads a record.
    ///
    /// # Errors
    /// Why it is bad; see [`BadFormat::is_unavailable`].
    pub fn read(&mut self, record: &[u8]) -> std::result::Result<&Row, BadFormat> {
        let ProtobufReader { writers, names, whole_document, row, path, .. } = self;
        row.clear();
        match writers {
            Writers::One(plan) => plan.read(record, row)?,
            Writers::Registry(plans) => {
                let make = |_: &SchemaRegistry, registered: &Registered| {
                    Ok(FilePlans::new(&compiled(registered)?, names, *whole_document))
                };
                let (file, bytes) = plans.of(record, make)?;
                let mut input = Input(bytes);
                read_path(&mut input, path)?;
                let plan = file.0.iter().find(|(p, _)| p == path);
                let (_, plan) =
                    plan.ok_or_else(|| broken("the schema has no message at the place that is named"))?;
                plan.read(input.0, row)?;
            }
        }
        Ok(row)
    }
}

impl ProtobufOptions {
    fn message_if_given(&self, part: Part) -> Result<Option<MessageDescriptor>> {
        if self.registry.is_some() { Ok(None) } else { self.message(part) }
    }
}

/// Which message of the schema follows: the number of positions and these, or a zero for the first of all.
fn read_path(input: &mut Input<'_>, path: &mut Vec<usize>) -> std::result::Result<(), BadFormat> {
    const DEPTH_MAX: i64 = 64;
    let mut signed = || input.varint().map(|n| (n >> 1) as i64 ^ -((n & 1) as i64));
    path.clear();
    let count = signed()?;
    if !(0..=DEPTH_MAX).contains(&count) {
        return Err(broken("the message's place in the schema is none"));
    }
    for _ in 0..count {
        path.push(
            usize::try_from(signed()?).map_err(|_| broken("the message's place in the schema is none"))?,
        );
    }
    if path.is_empty() {
        path.push(0);
    }
    Ok(())
}

/// A column for each field of a message.
pub fn columns_of(message: &MessageDescriptor) -> Vec<Field> {
    message
        .fields()
        .map(|field| {
            let item = plain_type(&field.kind());
            let of = match item {
                _ if field.is_map() => SqlType::Jsonb,
                SqlType::Jsonb => SqlType::Jsonb,
                item if field.is_list() => SqlType::Array(Box::new(item)),
                item => item,
            };
            of.field(field.name(), true)
        })
        .collect()
}

fn plain_type(kind: &Kind) -> SqlType {
    match kind {
        Kind::Bool => SqlType::Bool,
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => SqlType::Int4,
        Kind::Uint32 | Kind::Fixed32 | Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => SqlType::Int8,
        Kind::Uint64 | Kind::Fixed64 => SqlType::Numeric(Some((20, 0))),
        Kind::Float => SqlType::Float4,
        Kind::Double => SqlType::Float8,
        Kind::String | Kind::Enum(_) => SqlType::Text,
        Kind::Bytes => SqlType::Bytea,
        Kind::Message(message) => match well_known(message) {
            Some(WellKnown::Timestamp) => SqlType::Timestamptz,
            Some(WellKnown::Duration) => SqlType::Interval,
            Some(WellKnown::Wrapped(kind)) => plain_type(&kind),
            None => SqlType::Jsonb,
        },
    }
}

#[cfg(test)]
mod tests;
