//! FORMAT JSON: an object's members by column name, or the whole document as the one jsonb column.

use arrow::datatypes::Schema;

use super::cell::{FieldNames, Row, Slot};
use super::scan::{self, Malformed, Scanner};
use super::values::{Encoding, excerpt};
use super::{BadFormat, JsonOptions, is_whole_document};
use crate::error::SqlState;

/// Reads JSON records.
#[derive(Debug)]
pub struct JsonReader {
    names: FieldNames,
    row: Row,
    encodings: Vec<Encoding>,
    whole_document: bool,
}

impl JsonReader {
    /// For records with these columns.
    pub fn new(schema: &Schema, options: &JsonOptions) -> Self {
        JsonReader {
            names: FieldNames::new(schema.fields().iter().map(|f| f.name().as_str())),
            row: Row::new(schema.fields().len()),
            encodings: schema.fields().iter().map(|f| options.encoding(f.data_type())).collect(),
            whole_document: is_whole_document(schema),
        }
    }

    /// How the fields are written.
    pub fn encodings(&self) -> &[Encoding] {
        &self.encodings
    }

    /// Finds the fields of a record.
    ///
    /// # Errors
    /// 22P02 when the text is not a JSON object.
    pub fn read(&mut self, text: &str) -> Result<&Row, BadFormat> {
        self.row.clear();
        let mut scanner = Scanner::new(text);
        let scanned = if self.whole_document {
            scanner.slot(&mut self.row).map(|slot| self.row.set(0, slot))
        } else {
            scan_object(&mut scanner, &mut self.names, &mut self.row)
        };
        scanned.and_then(|()| scanner.end()).map_err(|m| malformed(m, text))?;
        Ok(&self.row)
    }
}

/// Puts the members of the object that comes next into the columns of their names. Of members of one name the last
/// one counts, but never one that matches but for case over one that matches exactly.
pub fn scan_object(s: &mut Scanner<'_>, names: &mut FieldNames, row: &mut Row) -> Result<(), Malformed> {
    let mut expected = 0;
    let mut unescaped = String::new();
    // Columns that an exactly matching member has filled; a bit each, of the first 64.
    let mut exact_columns = 0u64;
    s.object(|s, name, escaped| {
        let found = if escaped {
            unescaped.clear();
            scan::unescape(name, s.position(), &mut unescaped)?;
            names.find(&unescaped, expected)
        } else {
            names.find(name, expected)
        };
        let Some((column, exact)) = found else { return s.value().map(|_| ()) };
        expected = column + 1;
        let slot: Slot = s.slot(row)?;
        let bit = 1u64.checked_shl(column as u32).unwrap_or(0);
        if exact || exact_columns & bit == 0 {
            row.set(column, slot);
        }
        exact_columns |= if exact { bit } else { 0 };
        Ok(())
    })
}

/// The error of a text that is not the JSON it should be.
pub fn malformed(m: Malformed, text: &str) -> BadFormat {
    let found = text.get(m.at..).map(excerpt).filter(|t| !t.is_empty());
    let at = found.map_or(String::new(), |t| format!(" at \"{t}\""));
    BadFormat {
        sqlstate: SqlState::INVALID_TEXT_REPRESENTATION,
        reason: format!("invalid JSON: {} (byte {}){at}", m.what, m.at),
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field};

    use super::*;
    use crate::connectors::format::cell::Cell;

    fn reader() -> JsonReader {
        let fields = ["id", "name"].map(|n| Field::new(n, DataType::Utf8View, true));
        JsonReader::new(&Schema::new(fields.to_vec()), &JsonOptions::default())
    }

    #[test]
    fn members_find_their_columns() {
        let mut r = reader();
        let text = r#"{"x":{"id":5},"name":"a","ID":1,"id":2,"NAME":"b","\u0069d":3}"#;
        let row = r.read(text).unwrap();
        assert_eq!(row.cell(0, text), Cell::Number("3"));
        assert_eq!(row.cell(1, text), Cell::Text("a"));
        let text = "{}";
        assert_eq!(r.read(text).unwrap().cell(0, text), Cell::Missing);
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in ["", "[]", "1", "{} x", "{\"id\":}", "null"] {
            let error = reader().read(text).unwrap_err();
            assert!(error.reason.starts_with("invalid JSON: "), "{text}: {}", error.reason);
        }
    }
}
