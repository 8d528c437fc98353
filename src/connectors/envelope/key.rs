//! The key of a record, as values of key columns: a JSON object with a member for each, or, for one column, a value; or
//! what a registry's schema says that it is.

use std::collections::HashMap;

use arrow::datatypes::{DataType, Field, Schema};

use crate::connectors::envelope::mongo;
use crate::connectors::format::avro::AvroReader;
use crate::connectors::format::cell::{Cell, FieldNames, RECORD_BYTES_MAX, Row, Slot};
use crate::connectors::format::json::scan_object;
use crate::connectors::format::protobuf::ProtobufReader;
use crate::connectors::format::scan::Scanner;
use crate::connectors::format::typed;
use crate::connectors::format::values::text_of;
use crate::connectors::format::{BadFormat, Format};
use crate::connectors::schema_registry::frame::unframed;
use crate::connectors::schema_registry::subject::Part;
use crate::error::Result;
use crate::types::TYPE_KEY;

/// Reads keys. What a key does not say is missing: the columns then refuse it, where they need it.
#[derive(Debug)]
pub struct KeyReader {
    names: FieldNames,
    columns: Vec<usize>,
    is_json: bool,
    text: String,
    row: Row,
    binary: Option<BinaryKey>,
    /// The last key was binary.
    is_binary: bool,
}

/// Reads keys that have a schema.
#[derive(Debug)]
enum BinaryKey {
    Avro(Box<AvroReader>),
    Protobuf(Box<ProtobufReader>),
}

impl BinaryKey {
    fn new(format: &Format, columns: &Schema) -> Result<Option<BinaryKey>> {
        Ok(match format {
            Format::Avro(options) if options.registry.is_some() || options.key_schema.is_some() => {
                Some(BinaryKey::Avro(Box::new(AvroReader::new(columns, Part::Key, options)?)))
            }
            Format::Protobuf(options) if options.registry.is_some() => {
                Some(BinaryKey::Protobuf(Box::new(ProtobufReader::new(columns, Part::Key, options)?)))
            }
            _ => None,
        })
    }

    /// Whether a key is one of these: keys may be plain text although the values have schemas.
    fn takes(&self, key: &[u8]) -> bool {
        match self {
            BinaryKey::Avro(reader) => !reader.is_framed() || unframed(key).is_some(),
            BinaryKey::Protobuf(_) => unframed(key).is_some(),
        }
    }

    fn read(&mut self, key: &[u8]) -> std::result::Result<(), BadFormat> {
        match self {
            BinaryKey::Avro(reader) => reader.read(key).map(|_| ()),
            BinaryKey::Protobuf(reader) => reader.read(key).map(|_| ()),
        }
    }

    fn cell(&self, column: usize) -> Cell<'_> {
        match self {
            BinaryKey::Avro(reader) => reader.row().cell(column, ""),
            BinaryKey::Protobuf(reader) => reader.row().cell(column, ""),
        }
    }
}

impl KeyReader {
    /// For these columns of the schema.
    ///
    /// # Errors
    /// 22023 for a key's schema that is none.
    pub fn new(format: &Format, schema: &Schema, columns: Vec<usize>) -> Result<Self> {
        let fields: Vec<Field> = columns.iter().map(|i| schema.field(*i).clone()).collect();
        Ok(KeyReader {
            names: FieldNames::new(fields.iter().map(|f| f.name().as_str())),
            row: Row::new(columns.len()),
            is_json: matches!(format, Format::Json(_)),
            text: String::new(),
            columns,
            binary: BinaryKey::new(format, &Schema::new(fields))?,
            is_binary: false,
        })
    }

    /// Reads a record's key; [`KeyReader::cell`] then tells of it.
    ///
    /// # Errors
    /// Why a key that has a schema is not understood.
    pub fn read(&mut self, key: Option<&[u8]>) -> std::result::Result<(), BadFormat> {
        self.row.clear();
        self.text.clear();
        self.is_binary = false;
        if let (Some(binary), Some(key)) = (&mut self.binary, key)
            && binary.takes(key)
        {
            self.is_binary = true;
            return binary.read(key);
        }
        if let Some(Ok(text)) = key.filter(|k| k.len() <= RECORD_BYTES_MAX).map(text_of) {
            self.read_text(text);
        }
        Ok(())
    }

    fn read_text(&mut self, text: &str) {
        self.text.push_str(text);
        if self.is_json && self.read_json().is_some() {
            return;
        }
        // No JSON: the text itself is the value of the one column.
        self.row.clear();
        if self.columns.len() == 1 {
            self.row.set(0, Slot::Text((0..self.text.len()).into()));
        }
    }

    fn read_json(&mut self) -> Option<()> {
        let KeyReader { names, columns, text, row, .. } = self;
        let mut s = Scanner::new(text);
        s.skip_space();
        if s.peek() != Some(b'{') {
            let slot = s.slot(row).ok()?;
            if columns.len() == 1 {
                row.set(0, slot);
            }
            return s.end().ok();
        }
        scan_object(&mut s, names, row).ok()?;
        s.end().ok()?;
        if (0..columns.len()).any(|i| row.is_set(i)) {
            return Some(());
        }
        // Kafka Connect may put the key into a schema envelope.
        let mut payload_at = None;
        Scanner::new(text)
            .object(|s, name, _| {
                s.skip_space();
                if name == "payload" {
                    payload_at = Some(s.position());
                }
                s.value().map(|_| ())
            })
            .ok()?;
        if let Some(at) = payload_at {
            let mut payload = Scanner::starting_at(text, at);
            if payload.peek() == Some(b'{') {
                scan_object(&mut payload, names, row).ok()?;
            } else if columns.len() == 1 {
                let slot = payload.slot(row).ok()?;
                row.set(0, slot);
            }
        }
        if let (Some((column, true)), false) = (self.names.find("_id", 0), self.row.is_set(0)) {
            self.read_mongo(payload_at.unwrap_or(0), column);
        }
        Some(())
    }

    /// Debezium's key of a document of MongoDB: a member `id` with the text of its `_id`.
    fn read_mongo(&mut self, at: usize, column: usize) {
        let mut id = Row::new(1);
        let mut names = FieldNames::new(["id"]);
        let scanned = scan_object(&mut Scanner::starting_at(&self.text, at), &mut names, &mut id);
        if let (Ok(()), Cell::Text(text)) = (scanned, id.cell(0, &self.text))
            && mongo::read_id(text, column, &mut self.row).is_none()
        {
            self.row.set(column, Slot::Missing);
        }
    }

    /// What the key last read says for a column of the schema.
    pub fn cell(&self, column: usize) -> Cell<'_> {
        match self.columns.iter().position(|c| *c == column) {
            Some(i) => match &self.binary {
                Some(binary) if self.is_binary => binary.cell(i),
                _ => self.row.cell(i, &self.text),
            },
            None => Cell::Missing,
        }
    }
}

/// Makes text of keys that have a schema, for INCLUDE key: a JSON document, or a plain value's own text.
#[derive(Debug)]
pub struct KeyText {
    key: BinaryKey,
    text: String,
}

impl KeyText {
    /// `None` when keys are text as they are.
    ///
    /// # Errors
    /// 22023 for a key's schema that is none.
    pub fn new(format: &Format) -> Result<Option<Self>> {
        let document = HashMap::from([(TYPE_KEY.to_string(), "jsonb".to_string())]);
        let column = Field::new("key", DataType::Utf8View, true).with_metadata(document);
        let key = BinaryKey::new(format, &Schema::new(vec![column]))?;
        Ok(key.map(|key| KeyText { key, text: String::new() }))
    }

    /// The text of a key; what is no such key stays as it is.
    ///
    /// # Errors
    /// Why the key is not understood.
    pub fn of<'a>(&'a mut self, key: &'a [u8]) -> std::result::Result<&'a [u8], BadFormat> {
        if !self.key.takes(key) {
            return Ok(key);
        }
        self.key.read(key)?;
        self.text.clear();
        match self.key.cell(0) {
            Cell::Missing | Cell::Null => self.text.push_str("null"),
            Cell::Bool(b) => self.text.push_str(if b { "true" } else { "false" }),
            Cell::Number(t) | Cell::Text(t) | Cell::Nested(t) | Cell::Document(t) => self.text.push_str(t),
            Cell::Typed(value) => {
                typed::write_text(value, &mut self.text);
            }
        }
        Ok(self.text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field};

    use super::*;
    use crate::connectors::format::JsonOptions;

    #[test]
    fn keys_come_as_objects_values_and_text() {
        let schema = Schema::new(["x", "id"].map(|n| Field::new(n, DataType::Utf8View, true)).to_vec());
        let mut reader = KeyReader::new(&Format::Json(JsonOptions::default()), &schema, vec![1]).unwrap();
        for (key, expected) in [
            (r#"{"id":7,"x":1}"#, Cell::Number("7")),
            (r#"{"schema":{"type":"struct"},"payload":{"id":7}}"#, Cell::Number("7")),
            (r#"{"schema":{"type":"int32"},"payload":7}"#, Cell::Number("7")),
            (r#"{"other":7}"#, Cell::Missing),
            ("7", Cell::Number("7")),
            ("\"a\\u0062\"", Cell::Text("ab")),
            ("user-7", Cell::Text("user-7")),
            ("{broken", Cell::Text("{broken")),
            ("", Cell::Text("")),
        ] {
            reader.read(Some(key.as_bytes())).unwrap();
            assert_eq!(reader.cell(1), expected, "{key}");
            assert_eq!(reader.cell(0), Cell::Missing);
        }
        reader.read(None).unwrap();
        assert_eq!(reader.cell(1), Cell::Missing);
        reader.read(Some(b"\xff")).unwrap();
        assert_eq!(reader.cell(1), Cell::Missing);
    }
}
