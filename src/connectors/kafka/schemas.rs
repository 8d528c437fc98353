//! The schemas of a sink's records: made from the columns, registered when the sink starts, and how rows are written
//! by them.

use arrow::datatypes::Schema;

use super::settings::SchemaSettings;
use crate::connectors::Envelope;
use crate::connectors::format::avro::encode as avro;
use crate::connectors::format::protobuf::encode as protobuf;
use crate::connectors::schema_registry::client::{SchemaKind, SchemaRegistry};
use crate::connectors::schema_registry::frame::write_frame;
use crate::connectors::schema_registry::subject::Part;
use crate::error::{Error, Result, SqlState};

/// Schemas that are not registered yet.
#[derive(Clone, Debug)]
pub struct Schemas {
    kind: SchemaKind,
    settings: SchemaSettings,
    /// Full name and text.
    value: (String, String),
    /// Full name and text; `None`: records have no key.
    key: Option<(String, String)>,
    nullable: Vec<bool>,
}

/// How rows are written by registered schemas.
#[derive(Clone, Debug)]
pub struct Written {
    /// The language.
    pub kind: SchemaKind,
    /// The number of the value's schema.
    pub value: i32,
    /// The number of the key's schema.
    pub key: i32,
    /// Which columns may be NULL.
    pub nullable: Vec<bool>,
}

impl Written {
    /// Appends what stands before a record of one of the schemas: its number and, in Protobuf, that the first message
    /// of the file follows.
    pub fn write_head(&self, id: i32, out: &mut Vec<u8>) {
        write_frame(id, out);
        if self.kind == SchemaKind::Protobuf {
            out.push(0);
        }
    }
}

impl Schemas {
    /// For rows of these columns with this key.
    ///
    /// # Errors
    /// 22023 for a name, 0A000 for a type that the language does not have.
    pub fn new(
        kind: SchemaKind,
        settings: &SchemaSettings,
        topic: &str,
        envelope: Envelope,
        columns: &Schema,
        key: &[usize],
    ) -> Result<Self> {
        // As Kafka Connect names them: namespaces have no dashes.
        let space: String =
            topic.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' }).collect();
        let space = match space.bytes().next() {
            Some(b'0'..=b'9' | b'.') => format!("_{space}"),
            _ => space,
        };
        let named = |name: &Option<String>, default: &str| match name {
            Some(name) => name.clone(),
            None => format!("{space}.{default}"),
        };
        let value_name = named(&settings.subjects.message, "Value");
        let key_name = named(&settings.subjects.key_message, "Key");
        let all = columns.fields().iter().map(|f| f.as_ref());
        let of_key = key.iter().filter_map(|i| columns.fields().get(*i)).map(|f| f.as_ref());
        let is_event = envelope == Envelope::Debezium;
        let envelope_name = match value_name.rsplit_once('.') {
            Some((space, _)) => format!("{space}.Envelope"),
            None => "Envelope".to_string(),
        };
        let (value, key_text) = match kind {
            SchemaKind::Protobuf => (
                protobuf::schema_of(&value_name, all, is_event)?,
                protobuf::schema_of(&key_name, of_key, false)?,
            ),
            _ => {
                let row = avro::schema_of(&value_name, all)?;
                let value = if is_event { avro::envelope_of(&envelope_name, &row) } else { row };
                (value.to_string(), avro::schema_of(&key_name, of_key)?.to_string())
            }
        };
        let value_name = if is_event { envelope_name } else { value_name };
        let schemas = Schemas {
            kind,
            settings: settings.clone(),
            value: (value_name, value),
            key: (!key.is_empty()).then_some((key_name, key_text)),
            nullable: columns.fields().iter().map(|f| f.is_nullable()).collect(),
        };
        schemas.subject(Part::Value, &schemas.value.0)?;
        Ok(schemas)
    }

    fn subject(&self, part: Part, name: &str) -> Result<String> {
        self.settings.subjects.subject(part, Some(name)).ok_or_else(|| {
            Error::new(
                SqlState::INVALID_PARAMETER_VALUE,
                "nothing says which subject the sink's schema belongs to",
            )
        })
    }

    /// Registers them where they are not.
    ///
    /// # Errors
    /// What the registry says; 22023 when a schema does not go with the subject's others.
    pub fn register(&self) -> Result<Written> {
        let registry = SchemaRegistry::new(self.settings.registry.clone())?;
        let register = |part: Part, (name, text): &(String, String)| {
            registry.register(&self.subject(part, name)?, self.kind, text)
        };
        Ok(Written {
            kind: self.kind,
            value: register(Part::Value, &self.value)?,
            key: self.key.as_ref().map_or(Ok(0), |key| register(Part::Key, key))?,
            nullable: self.nullable.clone(),
        })
    }
}
