//! The values of MySQL's binary log and of its result sets, as text by which PostgreSQL's types read them.
//!
//! The log is leaner than a result set: an ENUM is its number, a SET its bits, a `timestamp` seconds, text stands in
//! the column's own character set, and the zeros at the end of a `binary(n)` are left out.
//! A date with a month or a day of zero is no date, and comes as NULL.

use std::fmt::Write;
use std::ops::Range;

use hashbrown::HashMap;
use mysql_async::Value;
use mysql_async::binlog::jsonb::{JsonContainer, JsonDom, JsonNumber, JsonScalar};
use mysql_async::binlog::value::BinlogValue;
use mysql_async::consts::{ColumnFlags, ColumnType};

use crate::connectors::replicated;
use crate::types::format_timestamp;

/// The collation that stands for bytes.
const BINARY: u16 = 63;

/// How text is written in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charset {
    /// No text.
    Binary,
    /// UTF-8 and ASCII.
    Utf8,
    /// Windows code page 1252, which MySQL calls latin1.
    Latin1,
    /// None of those.
    Other,
}

impl Charset {
    fn named(name: &str) -> Self {
        match name {
            "binary" => Charset::Binary,
            "utf8" | "utf8mb3" | "utf8mb4" | "ascii" => Charset::Utf8,
            "latin1" => Charset::Latin1,
            _ => Charset::Other,
        }
    }
}

/// Whether text in a character set can be read.
pub fn charset_is_known(name: &str) -> bool {
    Charset::named(name) != Charset::Other
}

/// The server's collations by number.
#[derive(Clone, Debug, Default)]
pub struct Charsets(HashMap<u16, Charset>);

impl Charsets {
    /// From rows of numbers and names of character sets.
    pub fn new(rows: Vec<(u16, String)>) -> Self {
        Charsets(rows.into_iter().map(|(id, name)| (id, Charset::named(&name))).collect())
    }

    /// How text of a collation is written.
    pub fn of(&self, collation: u16) -> Charset {
        if collation == BINARY {
            return Charset::Binary;
        }
        self.0.get(&collation).copied().unwrap_or(Charset::Other)
    }
}

/// What must be known of a column to read its values.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// MySQL's type.
    pub column_type: ColumnType,
    /// How its text is written.
    pub charset: Charset,
    /// `binary(n)`: n; `bit(n)`: n; otherwise 0.
    pub length: usize,
    /// It holds no numbers below zero.
    pub unsigned: bool,
    /// Names of the values of an ENUM or SET.
    pub labels: Vec<String>,
}

impl Shape {
    /// Of a column of a result set, whose text is UTF-8.
    pub fn of_result(column: &mysql_async::Column) -> Self {
        let charset = if column.character_set() == BINARY { Charset::Binary } else { Charset::Utf8 };
        let bits = column.column_type() == ColumnType::MYSQL_TYPE_BIT;
        let length = if bits { column.column_length() as usize } else { 0 };
        let unsigned = column.flags().contains(ColumnFlags::UNSIGNED_FLAG);
        Shape { column_type: column.column_type(), charset, length, unsigned, labels: Vec::new() }
    }
}

#[derive(Clone, Debug)]
enum Cell {
    Null,
    Text(Range<usize>),
    Unreadable(Range<usize>),
}

/// The text of one row's values: a place of its own for all rows, so that values need no memory of their own.
#[derive(Debug, Default)]
pub struct RowText {
    text: String,
    raw: Vec<u8>,
    cells: Vec<Cell>,
}

impl RowText {
    /// Begins another row.
    pub fn clear(&mut self) {
        self.text.clear();
        self.raw.clear();
        self.cells.clear();
    }

    /// The row's values; what is NULL in one of the columns `never_null` stood for a date that is none.
    pub fn tuple(&self, never_null: &[usize]) -> replicated::Tuple<'_> {
        let value = |(i, cell): (usize, &Cell)| match cell {
            Cell::Null if never_null.contains(&i) => replicated::Value::Text("0000-00-00"),
            Cell::Null => replicated::Value::Null,
            Cell::Text(at) => replicated::Value::Text(&self.text[at.clone()]),
            Cell::Unreadable(at) => replicated::Value::Unreadable(&self.raw[at.clone()]),
        };
        self.cells.iter().enumerate().map(value).collect()
    }

    /// Adds a value of the log.
    pub fn push_logged(&mut self, value: Option<&BinlogValue<'_>>, shape: &Shape) {
        match value {
            None => self.cells.push(Cell::Null),
            Some(BinlogValue::Value(value)) => self.push(value, shape),
            Some(BinlogValue::Jsonb(json)) => {
                let start = self.text.len();
                match json.clone().parse() {
                    Ok(document) => {
                        write_json(&document, &mut self.text);
                        self.cells.push(Cell::Text(start..self.text.len()));
                    }
                    Err(e) => self.unreadable(e.to_string().as_bytes()),
                }
            }
            Some(BinlogValue::JsonDiff(_)) => self.unreadable(b"a part of a JSON document"),
        }
    }

    /// Adds a value.
    pub fn push(&mut self, value: &Value, shape: &Shape) {
        let start = self.text.len();
        let out = &mut self.text;
        let written = match value {
            Value::NULL => Ok(false),
            Value::Int(n) if shape.column_type == ColumnType::MYSQL_TYPE_ENUM => label(*n, shape, out),
            Value::Int(n) if is_timestamp(shape.column_type) => timestamp(&n.to_string(), out),
            // The log's 24 bits come without their sign.
            Value::Int(n @ 0x80_0000..)
                if shape.column_type == ColumnType::MYSQL_TYPE_INT24 && !shape.unsigned =>
            {
                wrote(write!(out, "{}", n - 0x100_0000))
            }
            Value::Int(n) => wrote(write!(out, "{n}")),
            Value::UInt(n) => wrote(write!(out, "{n}")),
            Value::Float(x) => wrote(write!(out, "{x}")),
            Value::Double(x) => wrote(write!(out, "{x}")),
            Value::Date(_, 0, ..) | Value::Date(_, _, 0, ..) => Ok(false),
            Value::Date(y, m, d, h, min, s, us) => {
                let date = write!(out, "{y:04}-{m:02}-{d:02}");
                match shape.column_type {
                    ColumnType::MYSQL_TYPE_DATE | ColumnType::MYSQL_TYPE_NEWDATE => wrote(date),
                    other => {
                        let zone = if is_timestamp(other) { "+00" } else { "" };
                        wrote(date.and_then(|()| write!(out, " {h:02}:{min:02}:{s:02}.{us:06}{zone}")))
                    }
                }
            }
            Value::Time(negative, days, h, min, s, us) => {
                let sign = if *negative { "-" } else { "" };
                let hours = days * 24 + u32::from(*h);
                wrote(write!(out, "{sign}{hours:02}:{min:02}:{s:02}.{us:06}"))
            }
            Value::Bytes(bytes) => bytes_text(bytes, shape, out),
        };
        match written {
            Ok(true) => self.cells.push(Cell::Text(start..self.text.len())),
            Ok(false) => self.cells.push(Cell::Null),
            Err(raw) => {
                self.text.truncate(start);
                self.unreadable(&raw);
            }
        }
    }

    fn unreadable(&mut self, raw: &[u8]) {
        let start = self.raw.len();
        self.raw.extend_from_slice(raw);
        self.cells.push(Cell::Unreadable(start..self.raw.len()));
    }
}

/// Whether there is a value, or the bytes that could not be read.
type Written = Result<bool, Vec<u8>>;

/// Writing to a String does not fail.
fn wrote(result: std::fmt::Result) -> Written {
    result.map(|()| true).map_err(|_| Vec::new())
}

fn is_timestamp(column_type: ColumnType) -> bool {
    matches!(column_type, ColumnType::MYSQL_TYPE_TIMESTAMP | ColumnType::MYSQL_TYPE_TIMESTAMP2)
}

fn bytes_text(bytes: &[u8], shape: &Shape, out: &mut String) -> Written {
    use ColumnType::*;
    match shape.column_type {
        MYSQL_TYPE_TIMESTAMP | MYSQL_TYPE_TIMESTAMP2 => match std::str::from_utf8(bytes) {
            Ok(seconds) => timestamp(seconds, out),
            Err(_) => Err(bytes.to_vec()),
        },
        // The log counts from 1900, and has the year 0000 there too.
        MYSQL_TYPE_YEAR if bytes == b"1900" => wrote(write!(out, "0")),
        MYSQL_TYPE_BIT => {
            let number = bytes.iter().fold(0u64, |n, b| (n << 8) | u64::from(*b));
            match shape.length {
                1 => wrote(write!(out, "{}", number != 0)),
                _ => wrote(write!(out, "{number}")),
            }
        }
        MYSQL_TYPE_SET if !shape.labels.is_empty() => {
            let mut first = true;
            for (i, label) in shape.labels.iter().enumerate() {
                if bytes.get(i / 8).is_some_and(|b| b >> (i % 8) & 1 == 1) {
                    if !std::mem::take(&mut first) {
                        out.push(',');
                    }
                    out.push_str(label);
                }
            }
            Ok(true)
        }
        MYSQL_TYPE_NEWDECIMAL | MYSQL_TYPE_DECIMAL | MYSQL_TYPE_YEAR | MYSQL_TYPE_JSON => {
            decode(bytes, Charset::Utf8, out)
        }
        _ if shape.charset == Charset::Binary => {
            out.push_str("\\x");
            let padding = shape.length.saturating_sub(bytes.len());
            for b in bytes.iter().chain(std::iter::repeat_n(&0, padding)) {
                for digit in [b >> 4, b & 15] {
                    out.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
                }
            }
            Ok(true)
        }
        _ => decode(bytes, shape.charset, out),
    }
}

/// `seconds[.micros]` since 1970; 0 stands for the zero date.
fn timestamp(text: &str, out: &mut String) -> Written {
    let unreadable = || text.as_bytes().to_vec();
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let mut seconds: i64 = seconds.parse().map_err(|_| unreadable())?;
    let fraction: i64 = fraction.parse().map_err(|_| unreadable())?;
    if (seconds, fraction) == (0, 0) {
        return Ok(false);
    }
    if seconds < 0 {
        // 32 bits without a sign, read as if they had one.
        seconds += 1 << 32;
    }
    let mut bytes = Vec::with_capacity(32);
    format_timestamp(seconds * 1_000_000 + fraction, &mut bytes);
    out.push_str(std::str::from_utf8(&bytes).map_err(|_| unreadable())?);
    out.push_str("+00");
    Ok(true)
}

/// An ENUM's value by its number; 0 is the empty string that MySQL puts in the place of what it refused.
fn label(number: i64, shape: &Shape, out: &mut String) -> Written {
    match usize::try_from(number) {
        Ok(0) => Ok(true),
        Ok(n) if n <= shape.labels.len() => {
            out.push_str(&shape.labels[n - 1]);
            Ok(true)
        }
        _ => Err(number.to_string().into_bytes()),
    }
}

/// Text of a character set as UTF-8.
pub fn decode(bytes: &[u8], charset: Charset, out: &mut String) -> Written {
    // Windows' code page, whose holes MySQL fills with the control characters of those numbers.
    const HIGH: [char; 32] = [
        '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}',
        '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
    ];
    match charset {
        Charset::Utf8 => out.push_str(std::str::from_utf8(bytes).map_err(|_| bytes.to_vec())?),
        Charset::Latin1 => out.extend(bytes.iter().map(|b| match b {
            0x80..=0x9f => HIGH[usize::from(b - 0x80)],
            other => char::from(*other),
        })),
        Charset::Binary | Charset::Other => return Err(bytes.to_vec()),
    }
    Ok(true)
}

/// A document of MySQL's JSON type; its dates and decimals are strings and numbers, as the server prints them.
fn write_json(document: &JsonDom, out: &mut String) {
    let string = |text: &str, out: &mut String| out.push_str(&serde_json::Value::from(text).to_string());
    match document {
        JsonDom::Container(JsonContainer::Array(items)) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i == 0 { "" } else { "," });
                write_json(item, out);
            }
            out.push(']');
        }
        JsonDom::Container(JsonContainer::Object(entries)) => {
            out.push('{');
            for (i, (name, value)) in entries.iter().enumerate() {
                out.push_str(if i == 0 { "" } else { "," });
                string(name, out);
                out.push(':');
                write_json(value, out);
            }
            out.push('}');
        }
        JsonDom::Scalar(JsonScalar::Boolean(b)) => out.push_str(if *b { "true" } else { "false" }),
        JsonDom::Scalar(JsonScalar::Null) => out.push_str("null"),
        JsonDom::Scalar(JsonScalar::String(text)) => string(text, out),
        JsonDom::Scalar(JsonScalar::Number(JsonNumber::Decimal(n))) => out.push_str(&n.to_string()),
        JsonDom::Scalar(JsonScalar::Number(JsonNumber::Double(x))) => {
            out.push_str(&serde_json::Value::from(*x).to_string());
        }
        JsonDom::Scalar(JsonScalar::Number(JsonNumber::Int(n))) => out.push_str(&n.to_string()),
        JsonDom::Scalar(JsonScalar::Number(JsonNumber::Uint(n))) => out.push_str(&n.to_string()),
        JsonDom::Scalar(JsonScalar::DateTime(value)) => string(&format!("{value:.6}"), out),
        JsonDom::Scalar(JsonScalar::Opaque(value)) => string(&value.to_string(), out),
    }
}
