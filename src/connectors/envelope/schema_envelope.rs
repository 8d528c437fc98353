//! The schema that Kafka Connect's JSON converter puts before each record: which semantic type every field has, and
//! thereby how it is written.

use crate::connectors::format::cell::FieldNames;
use crate::connectors::format::scan::{self, Malformed, Scanner, Token};
use crate::connectors::format::values::{Encoding, Unit};

/// A field's schema, as far as it says how the field is written.
#[derive(Clone, Debug, Default)]
struct FieldSchema {
    field: String,
    kind: String,
    name: String,
    scale: Option<i32>,
    fields: Vec<FieldSchema>,
    items: Option<Box<FieldSchema>>,
}

/// How the fields of `before` and `after` are written, for the columns that they are read into; columns that the
/// schema does not have stay as they are.
///
/// # Errors
/// Where the schema is not the JSON that it should be.
pub fn row_encodings(
    schema: &str,
    names: &mut FieldNames,
    encodings: &mut [Encoding],
) -> Result<(), Malformed> {
    let envelope = read(&mut Scanner::new(schema), 0)?;
    let Some(row) = envelope.fields.iter().find(|f| f.field == "after") else { return Ok(()) };
    for (i, field) in row.fields.iter().enumerate() {
        if let Some((column, _)) = names.find(&field.field, i)
            && let Some(encoding) = encodings.get_mut(column)
        {
            *encoding = field.encoding();
        }
    }
    Ok(())
}

impl FieldSchema {
    fn encoding(&self) -> Encoding {
        match self.name.as_str() {
            "io.debezium.time.Date" | "org.apache.kafka.connect.data.Date" => Encoding::Days,
            "io.debezium.time.Time" | "org.apache.kafka.connect.data.Time" => {
                Encoding::Epoch(Unit::Millisecond)
            }
            "io.debezium.time.Timestamp" | "org.apache.kafka.connect.data.Timestamp" => {
                Encoding::Epoch(Unit::Millisecond)
            }
            "io.debezium.time.MicroTime" | "io.debezium.time.MicroTimestamp" => {
                Encoding::Epoch(Unit::Microsecond)
            }
            "io.debezium.time.NanoTime" | "io.debezium.time.NanoTimestamp" => {
                Encoding::Epoch(Unit::Nanosecond)
            }
            "io.debezium.time.MicroDuration" => Encoding::Duration(Unit::Microsecond),
            "io.debezium.time.NanoDuration" => Encoding::Duration(Unit::Nanosecond),
            "org.apache.kafka.connect.data.Decimal" => Encoding::Decimal(Some(self.scale.unwrap_or(0))),
            "io.debezium.data.Json" => Encoding::JsonText,
            _ => match (self.kind.as_str(), &self.items) {
                ("bytes", _) => Encoding::Base64,
                ("array", Some(items)) => items.encoding(),
                _ => Encoding::Plain,
            },
        }
    }
}

/// Reads the schema that comes next; `depth` schemas are around it.
fn read(s: &mut Scanner<'_>, depth: usize) -> Result<FieldSchema, Malformed> {
    // Debezium's own are four deep; a row's nested structs add to that.
    const DEPTH_MAX: usize = 64;
    if depth > DEPTH_MAX {
        return Err(Malformed { what: "a schema is nested too deeply", at: s.position() });
    }
    let mut schema = FieldSchema::default();
    s.object(|s, member, _| {
        s.skip_space();
        match (member, s.peek()) {
            ("fields", Some(b'[')) => s.array(|s| {
                schema.fields.push(read(s, depth + 1)?);
                Ok(())
            }),
            ("items", Some(b'{')) => {
                schema.items = Some(Box::new(read(s, depth + 1)?));
                Ok(())
            }
            ("parameters", Some(b'{')) => {
                schema.scale = scale(s)?;
                Ok(())
            }
            ("field", _) => string(s, &mut schema.field),
            ("type", _) => string(s, &mut schema.kind),
            ("name", _) => string(s, &mut schema.name),
            _ => s.value().map(|_| ()),
        }
    })?;
    Ok(schema)
}

fn string(s: &mut Scanner<'_>, out: &mut String) -> Result<(), Malformed> {
    if let Token::String(text, escaped) = s.value()? {
        out.clear();
        if escaped {
            scan::unescape(text, s.position(), out)?;
        } else {
            out.push_str(text);
        }
    }
    Ok(())
}

/// The parameter `scale`, a number in a string.
fn scale(s: &mut Scanner<'_>) -> Result<Option<i32>, Malformed> {
    let mut found = None;
    s.object(|s, name, _| {
        let value = s.value()?;
        if name == "scale" {
            found = match value {
                Token::String(text, _) | Token::Number(text) => text.parse().ok(),
                _ => None,
            };
        }
        Ok(())
    })?;
    Ok(found)
}
