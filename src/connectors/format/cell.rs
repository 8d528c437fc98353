//! One record's fields on their way from bytes to columns, without an allocation per field.
//!
//! A decoder of a format fills a [`Row`]: for every column a slot that says where in the record the field
//! lies. Columns then read [`Cell`]s out of it. So a record is understood as a whole before any column is
//! touched, a later duplicate of a field wins as in PostgreSQL, and all formats share one path into columns.

use std::ops::Range;

use ahash::AHashMap;
use arrow::datatypes::IntervalMonthDayNano;

/// A field as a record holds it. What it means is up to the column.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell<'a> {
    /// The record does not have it.
    Missing,
    /// It is null.
    Null,
    /// JSON's true or false.
    Bool(bool),
    /// A JSON number, as written.
    Number(&'a str),
    /// Text, unescaped.
    Text(&'a str),
    /// A JSON object or array, as written; it is known to be well formed.
    Nested(&'a str),
    /// Text that should hold a JSON document.
    Document(&'a str),
    /// A value that came in binary, and so with its type.
    Typed(Typed<'a>),
}

/// A value of a binary format.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Typed<'a> {
    /// A whole number.
    Integer(i64),
    /// A number of 64 bits.
    Float(f64),
    /// An unscaled number and its scale.
    Decimal(i128, i32),
    /// Bytes.
    Bytes(&'a [u8]),
    /// Days since 1970.
    Date(i64),
    /// A time of day, in µs.
    Time(i64),
    /// A timestamp, in µs since 1970, and whether it is a moment rather than a date and time of no zone.
    Timestamp(i64, bool),
    /// An interval.
    Interval(IntervalMonthDayNano),
}

/// A [`Cell`] as a place in the record (or in the row's own text, where it had to be unescaped).
#[derive(Clone, Copy, Debug, Default)]
pub enum Slot {
    /// See [`Cell::Missing`].
    #[default]
    Missing,
    /// See [`Cell::Null`].
    Null,
    /// See [`Cell::Bool`].
    Bool(bool),
    /// See [`Cell::Number`].
    Number(Span),
    /// See [`Cell::Text`], in the record.
    Text(Span),
    /// See [`Cell::Text`], in [`Row::unescaped`].
    Unescaped(Span),
    /// See [`Cell::Nested`].
    Nested(Span),
    /// See [`Cell::Nested`], in [`Row::unescaped`].
    Written(Span),
    /// See [`Cell::Document`], in [`Row::unescaped`].
    Document(Span),
    /// See [`Typed::Bytes`], in [`Row::bytes`].
    Bytes(Span),
    /// See [`Cell::Typed`]; never bytes.
    Typed(Typed<'static>),
}

/// A range of bytes that starts and ends between characters.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    start: u32,
    end: u32,
}

impl From<Range<usize>> for Span {
    /// Records are refused before this when they are 4 GiB or longer, see [`RECORD_BYTES_MAX`].
    fn from(r: Range<usize>) -> Self {
        Span { start: r.start as u32, end: r.end as u32 }
    }
}

impl Span {
    fn of(self, text: &str) -> &str {
        // Decoders only make spans of the text that they are read from; were one ever wrong, the field is empty.
        text.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
}

/// No record is longer than this: brokers and files keep far below, and spans are 32 bits.
pub const RECORD_BYTES_MAX: usize = 1 << 30;

/// The fields of one record, by column. Reused for record after record.
#[derive(Clone, Debug, Default)]
pub struct Row {
    slots: Vec<Slot>,
    /// Text of fields that could not be taken from the record as they are.
    pub unescaped: String,
    /// Bytes of fields of binary formats.
    pub bytes: Vec<u8>,
}

impl Row {
    /// A row of so many columns, all missing.
    pub fn new(columns: usize) -> Self {
        Row { slots: vec![Slot::Missing; columns], unescaped: String::new(), bytes: Vec::new() }
    }

    /// Forgets the fields of the record before.
    pub fn clear(&mut self) {
        self.slots.fill(Slot::Missing);
        self.unescaped.clear();
        self.bytes.clear();
    }

    /// Says where a column's field is.
    pub fn set(&mut self, column: usize, slot: Slot) {
        if let Some(s) = self.slots.get_mut(column) {
            *s = slot;
        }
    }

    /// Whether a field was found for the column.
    pub fn is_set(&self, column: usize) -> bool {
        !matches!(self.slots.get(column), None | Some(Slot::Missing))
    }

    /// The column's field; `record` is the text that the slots were found in.
    pub fn cell<'a>(&'a self, column: usize, record: &'a str) -> Cell<'a> {
        match self.slots.get(column).copied().unwrap_or_default() {
            Slot::Missing => Cell::Missing,
            Slot::Null => Cell::Null,
            Slot::Bool(b) => Cell::Bool(b),
            Slot::Number(s) => Cell::Number(s.of(record)),
            Slot::Text(s) => Cell::Text(s.of(record)),
            Slot::Unescaped(s) => Cell::Text(s.of(&self.unescaped)),
            Slot::Nested(s) => Cell::Nested(s.of(record)),
            Slot::Written(s) => Cell::Nested(s.of(&self.unescaped)),
            Slot::Document(s) => Cell::Document(s.of(&self.unescaped)),
            Slot::Bytes(s) => {
                let bytes = self.bytes.get(s.start as usize..s.end as usize);
                Cell::Typed(Typed::Bytes(bytes.unwrap_or_default()))
            }
            Slot::Typed(value) => Cell::Typed(value),
        }
    }
}

/// Finds the column of a field's name: the exact name first, else the name but for ASCII case (SQL folds
/// unquoted names to lower case, and `userId` should find its column without quotes).
#[derive(Clone, Debug)]
pub struct FieldNames {
    names: Vec<String>,
    by_folded_name: AHashMap<String, Vec<usize>>,
    folded: String,
}

impl FieldNames {
    /// The columns' names, in the columns' order.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let names: Vec<String> = names.into_iter().map(str::to_string).collect();
        let mut by_folded_name: AHashMap<String, Vec<usize>> = AHashMap::new();
        for (i, name) in names.iter().enumerate() {
            by_folded_name.entry(name.to_ascii_lowercase()).or_default().push(i);
        }
        FieldNames { names, by_folded_name, folded: String::new() }
    }

    /// How many columns there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is no column.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The column for a field, and whether the name is exact. `expected` is tried first: records mostly
    /// have their fields in one order.
    pub fn find(&mut self, field: &str, expected: usize) -> Option<(usize, bool)> {
        if self.names.get(expected).is_some_and(|n| n == field) {
            return Some((expected, true));
        }
        self.folded.clear();
        self.folded.push_str(field);
        self.folded.make_ascii_lowercase();
        let candidates = self.by_folded_name.get(&self.folded)?;
        if let Some(&exact) = candidates.iter().find(|&&i| self.names[i] == field) {
            return Some((exact, true));
        }
        match candidates[..] {
            [only] => Some((only, false)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_exactly_or_but_for_case() {
        let mut names = FieldNames::new(["id", "userid", "X", "x"]);
        assert_eq!(names.find("id", 0), Some((0, true)));
        assert_eq!(names.find("userId", 1), Some((1, false)));
        assert_eq!(names.find("x", 0), Some((3, true)));
        assert_eq!(names.find("X", 3), Some((2, true)));
        assert_eq!(names.find("nope", 0), None);
    }

    #[test]
    fn a_row_reads_back_what_was_set() {
        let record = r#"{"a":12}"#;
        let mut row = Row::new(2);
        row.set(0, Slot::Number((5..7).into()));
        assert_eq!(row.cell(0, record), Cell::Number("12"));
        assert_eq!(row.cell(1, record), Cell::Missing);
        row.clear();
        assert!(!row.is_set(0));
    }
}
