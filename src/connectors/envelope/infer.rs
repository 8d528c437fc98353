//! The columns and the key of a source that declares none: what its format's schemas say, under its envelope.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema};

use crate::connectors::format::avro::columns::columns_of;
use crate::connectors::format::avro::schema::{Kind, Record, Schema as AvroSchema};
use crate::connectors::format::{Format, protobuf};
use crate::connectors::schema_registry::subject::Part;
use crate::connectors::{Discovered, Envelope, SourceDefinition};
use crate::error::{Error, Result, SqlState};

/// The columns of a topic's records. Those of the key come last where the value does not have them; only they are
/// NOT NULL, since a later writer's schema may leave a field out.
///
/// # Errors
/// 42601 when the format has no schema; 42P16 when the envelope needs a key and the records' keys have no fields.
pub fn columns(definition: &SourceDefinition, topic: Option<&str>) -> Result<Discovered> {
    let mut format = Format::new(definition.format.as_ref())?;
    if let Some(topic) = topic {
        format.set_topic(topic);
    }
    let (value, key) = match &format {
        Format::Avro(options) => {
            let value = options.reader_schema(Part::Value)?.ok_or_else(|| no_record("value"))?;
            let value = avro_value(&value, definition.envelope)?;
            let key = match definition.envelope {
                Envelope::None => None,
                _ => options.reader_schema(Part::Key)?,
            };
            (value, key.as_ref().and_then(AvroSchema::root_record).map(columns_of))
        }
        Format::Protobuf(options) => {
            let value = options.message(Part::Value)?.ok_or_else(|| no_record("value"))?;
            let key = match definition.envelope {
                Envelope::None => None,
                _ => options.message(Part::Key)?,
            };
            (protobuf::columns_of(&value), key.as_ref().map(protobuf::columns_of))
        }
        _ => {
            return Err(Error::new(
                SqlState::SYNTAX_ERROR,
                "the source has no list of columns, and its FORMAT no schema",
            )
            .with_hint("Declare the columns: CREATE SOURCE name (id bigint, …) FROM KAFKA …"));
        }
    };
    let mut fields: Vec<Field> = value.into_iter().map(|f| f.with_nullable(true)).collect();
    let mut positions = Vec::new();
    for column in key.unwrap_or_default() {
        let at = fields.iter().position(|f| f.name() == column.name()).unwrap_or(fields.len());
        let column = column.with_nullable(false);
        if at == fields.len() {
            fields.push(column);
        } else {
            fields[at] = fields[at].clone().with_nullable(false);
        }
        positions.push(at);
    }
    Ok(Discovered { upstream: String::new(), schema: Arc::new(Schema::new(fields)), key: positions })
}

fn no_record(what: &str) -> Error {
    Error::new(SqlState::INVALID_TABLE_DEFINITION, format!("the schema of the records' {what} is no record"))
        .with_hint("Declare the columns: CREATE SOURCE name (id bigint, …) FROM KAFKA …")
}

/// The columns of a value; of a change event, those of its rows.
fn avro_value(schema: &AvroSchema, envelope: Envelope) -> Result<Vec<Field>> {
    let record = schema.root_record().ok_or_else(|| no_record("value"))?;
    if envelope != Envelope::Debezium {
        return Ok(columns_of(record));
    }
    let row = |name: &str| -> Option<&Record> {
        let field = record.fields.iter().find(|f| f.name == name)?;
        match field.of.not_null()?.kind {
            Kind::Record(i) => schema.records.get(i),
            _ => None,
        }
    };
    let row = row("after").or_else(|| row("before"));
    row.map(columns_of).ok_or_else(|| {
        Error::new(
            SqlState::INVALID_TABLE_DEFINITION,
            "the schema of the records is not that of Debezium's change events: it has no row \"after\"",
        )
    })
}
