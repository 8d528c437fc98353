//! The key of a record, as values of key columns: a JSON object with a member for each, or, for one column, a value.

use arrow::datatypes::Schema;

use crate::connectors::format::Format;
use crate::connectors::format::cell::{Cell, FieldNames, RECORD_BYTES_MAX, Row, Slot};
use crate::connectors::format::json::scan_object;
use crate::connectors::format::scan::Scanner;
use crate::connectors::format::values::text_of;

/// Reads keys. What a key does not say is missing: the columns then refuse it, where they need it.
#[derive(Debug)]
pub struct KeyReader {
    names: FieldNames,
    columns: Vec<usize>,
    is_json: bool,
    text: String,
    row: Row,
}

impl KeyReader {
    /// For these columns of the schema.
    pub fn new(format: &Format, schema: &Schema, columns: Vec<usize>) -> Self {
        let names = columns.iter().map(|i| schema.field(*i).name().as_str());
        KeyReader {
            names: FieldNames::new(names),
            row: Row::new(columns.len()),
            is_json: matches!(format, Format::Json(_)),
            text: String::new(),
            columns,
        }
    }

    /// Reads a record's key; [`KeyReader::cell`] then tells of it.
    pub fn read(&mut self, key: Option<&[u8]>) {
        self.row.clear();
        self.text.clear();
        let Some(Ok(text)) = key.filter(|k| k.len() <= RECORD_BYTES_MAX).map(text_of) else { return };
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
        Some(())
    }

    /// What the key last read says for a column of the schema.
    pub fn cell(&self, column: usize) -> Cell<'_> {
        match self.columns.iter().position(|c| *c == column) {
            Some(i) => self.row.cell(i, &self.text),
            None => Cell::Missing,
        }
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
        let mut reader = KeyReader::new(&Format::Json(JsonOptions::default()), &schema, vec![1]);
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
            reader.read(Some(key.as_bytes()));
            assert_eq!(reader.cell(1), expected, "{key}");
            assert_eq!(reader.cell(0), Cell::Missing);
        }
        reader.read(None);
        assert_eq!(reader.cell(1), Cell::Missing);
        reader.read(Some(b"\xff"));
        assert_eq!(reader.cell(1), Cell::Missing);
    }
}
