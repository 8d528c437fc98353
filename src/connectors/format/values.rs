//! What a [`Cell`] means for a SQL type: PostgreSQL's input of the type, and the [`Encoding`]s that producers use.

use std::borrow::Cow;

use arrow::datatypes::IntervalMonthDayNano;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::cell::{Cell, Row};
use super::number::{self, NumberError};
use super::scan::{Malformed, Scanner};
use super::{datetime, quote};
use crate::error::{Error, SqlState};
use crate::types;

/// How a producer wrote a value, where its SQL type alone does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// As PostgreSQL reads the type from text; a JSON value where JSON has the type.
    #[default]
    Plain,
    /// A number of units since 1970 (since midnight, for a time of day).
    Epoch(Unit),
    /// A number of days since 1970.
    Days,
    /// An interval as a number of units.
    Duration(Unit),
    /// Base64 of bytes.
    Base64,
    /// Hexadecimal digits, without `\x`.
    Hex,
    /// Base64 of an unscaled integer, of this scale; `None`: of the column's.
    Decimal(Option<i32>),
    /// A string that holds a JSON document.
    JsonText,
}

/// Units of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// s
    Second,
    /// ms
    Millisecond,
    /// µs
    Microsecond,
    /// ns
    Nanosecond,
}

impl Unit {
    /// Its name in options: `s`, `ms`, `us`, `ns`.
    pub fn from_name(name: &str) -> Option<Unit> {
        match name {
            "s" => Some(Unit::Second),
            "ms" => Some(Unit::Millisecond),
            "us" => Some(Unit::Microsecond),
            "ns" => Some(Unit::Nanosecond),
            _ => None,
        }
    }

    fn to_micros(self, n: i64) -> Option<i64> {
        match self {
            Unit::Second => n.checked_mul(1_000_000),
            Unit::Millisecond => n.checked_mul(1000),
            Unit::Microsecond => Some(n),
            Unit::Nanosecond => Some(n.div_euclid(1000)),
        }
    }
}

/// Why a cell is no value of its column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// What kind of error.
    pub sqlstate: SqlState,
    /// As PostgreSQL would say it.
    pub message: String,
}

/// What became of a cell.
pub type FieldResult<T> = std::result::Result<T, FieldError>;

impl From<Error> for FieldError {
    fn from(e: Error) -> Self {
        FieldError { sqlstate: e.sqlstate, message: e.to_string() }
    }
}

impl FieldError {
    pub(super) fn syntax(type_name: &str, text: &str) -> Self {
        FieldError {
            sqlstate: SqlState::INVALID_TEXT_REPRESENTATION,
            message: format!("invalid input syntax for type {type_name}: \"{}\"", excerpt(text)),
        }
    }

    pub(super) fn range(type_name: &str, text: &str) -> Self {
        FieldError {
            sqlstate: SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
            message: format!("value \"{}\" is out of range for type {type_name}", excerpt(text)),
        }
    }

    fn number(e: NumberError, type_name: &str, text: &str) -> Self {
        match e {
            NumberError::Syntax => FieldError::syntax(type_name, text),
            NumberError::Range => FieldError::range(type_name, text),
        }
    }

    pub(super) fn kind(type_name: &str, cell: Cell<'_>) -> Self {
        FieldError {
            sqlstate: SqlState::DATATYPE_MISMATCH,
            message: format!("expected a value of type {type_name}, found {}", describe(cell)),
        }
    }
}

/// So much of a text as an error message may show.
pub fn excerpt(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_string(),
    }
}

fn describe(cell: Cell<'_>) -> String {
    match cell {
        Cell::Missing | Cell::Null => "null".to_string(),
        Cell::Bool(b) => b.to_string(),
        Cell::Number(n) => format!("the number {}", excerpt(n)),
        Cell::Text(t) => format!("the string \"{}\"", excerpt(t)),
        Cell::Nested(n) if n.starts_with('{') => format!("the object {}", excerpt(n)),
        Cell::Nested(n) => format!("the array {}", excerpt(n)),
        Cell::Document(t) => format!("the document {}", excerpt(t)),
        Cell::Typed(value) => {
            let mut text = String::new();
            super::typed::write_text(value, &mut text);
            format!("the value {}", excerpt(&text))
        }
    }
}

/// The text of a scalar cell.
pub(super) fn scalar<'a>(cell: Cell<'a>, type_name: &str) -> FieldResult<&'a str> {
    match cell {
        Cell::Text(s) | Cell::Number(s) | Cell::Document(s) => Ok(s),
        Cell::Bool(true) => Ok("true"),
        Cell::Bool(false) => Ok("false"),
        _ => Err(FieldError::kind(type_name, cell)),
    }
}

/// Bytes that must be text.
pub fn text_of(bytes: &[u8]) -> FieldResult<&str> {
    const STATE: SqlState = SqlState("22021");
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let bad = bytes.get(e.valid_up_to()).copied().unwrap_or_default();
        FieldError {
            sqlstate: STATE,
            message: format!("invalid byte sequence for encoding \"UTF8\": 0x{bad:02x}"),
        }
    })?;
    if text.contains('\0') {
        return Err(FieldError {
            sqlstate: STATE,
            message: "invalid byte sequence for encoding \"UTF8\": 0x00".to_string(),
        });
    }
    Ok(text)
}

pub(super) fn boolean(cell: Cell<'_>) -> FieldResult<bool> {
    let text = match cell {
        Cell::Bool(b) => return Ok(b),
        _ => scalar(cell, "boolean")?.trim_ascii(),
    };
    // PostgreSQL takes every unambiguous beginning of these words.
    let begins = |word: &str, least: usize| {
        text.len() >= least && word.get(..text.len()).is_some_and(|w| w.eq_ignore_ascii_case(text))
    };
    if begins("true", 1) || begins("yes", 1) || begins("on", 2) || text == "1" {
        Ok(true)
    } else if begins("false", 1) || begins("no", 1) || begins("off", 2) || text == "0" {
        Ok(false)
    } else {
        Err(FieldError::syntax("boolean", text))
    }
}

pub(super) fn integer<T: TryFrom<i64>>(cell: Cell<'_>, type_name: &str) -> FieldResult<T> {
    let text = match cell {
        Cell::Bool(_) => return Err(FieldError::kind(type_name, cell)),
        _ => scalar(cell, type_name)?.trim_ascii(),
    };
    let value = number::parse_integer(text).map_err(|e| FieldError::number(e, type_name, text))?;
    T::try_from(value).map_err(|_| FieldError::range(type_name, text))
}

pub(super) fn float(cell: Cell<'_>, type_name: &str) -> FieldResult<f64> {
    let text = match cell {
        Cell::Bool(_) => return Err(FieldError::kind(type_name, cell)),
        _ => scalar(cell, type_name)?,
    };
    number::parse_float(text).map_err(|e| FieldError::number(e, type_name, text))
}

pub(super) fn real(cell: Cell<'_>) -> FieldResult<f32> {
    let value = float(cell, "real")?;
    let narrow = value as f32;
    if narrow.is_infinite() && value.is_finite() {
        return Err(FieldError::range("real", scalar(cell, "real")?));
    }
    Ok(narrow)
}

pub(super) fn decimal(cell: Cell<'_>, encoding: Encoding, precision: u8, scale: i8) -> FieldResult<i128> {
    const NAME: &str = "numeric";
    match (cell, encoding) {
        (Cell::Text(text), Encoding::Decimal(from)) => {
            let bytes = base64(text, NAME)?;
            let unscaled =
                number::unscaled_from_bytes(&bytes).map_err(|e| FieldError::number(e, NAME, text))?;
            number::rescale(unscaled, from.unwrap_or(scale as i32), scale, precision)
                .map_err(|e| FieldError::number(e, NAME, text))
        }
        // io.debezium.data.VariableScaleDecimal: {"scale": 2, "value": "BNI="}
        (Cell::Nested(text), _) if text.starts_with('{') => variable_scale_decimal(text, precision, scale),
        (Cell::Bool(_), _) => Err(FieldError::kind(NAME, cell)),
        _ => {
            let text = scalar(cell, NAME)?;
            number::parse_decimal(text, precision, scale).map_err(|e| match e {
                NumberError::Syntax => FieldError::syntax(NAME, text),
                NumberError::Range => FieldError {
                    sqlstate: SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
                    message: format!(
                        "numeric field overflow: {} does not fit numeric({precision},{scale})",
                        excerpt(text)
                    ),
                },
            })
        }
    }
}

fn variable_scale_decimal(text: &str, precision: u8, scale: i8) -> FieldResult<i128> {
    let mut row = Row::new(2);
    let scanned = Scanner::new(text).object(|s, name, _| {
        let slot = s.slot(&mut row)?;
        match name {
            "scale" => row.set(0, slot),
            "value" => row.set(1, slot),
            _ => (),
        }
        Ok(())
    });
    match (scanned, row.cell(0, text), row.cell(1, text)) {
        (Ok(()), Cell::Number(from), Cell::Text(value)) => {
            let from: i32 = from.parse().map_err(|_| FieldError::syntax("numeric", text))?;
            decimal(Cell::Text(value), Encoding::Decimal(Some(from)), precision, scale)
        }
        _ => Err(FieldError::kind("numeric", Cell::Nested(text))),
    }
}

fn base64(text: &str, type_name: &str) -> FieldResult<Vec<u8>> {
    BASE64_STANDARD.decode(text).map_err(|_| FieldError {
        sqlstate: SqlState::INVALID_TEXT_REPRESENTATION,
        message: format!("invalid base64 for a value of type {type_name}: \"{}\"", excerpt(text)),
    })
}

/// `\x` and hexadecimal digits, or PostgreSQL's old escape format; or as the encoding says.
pub(super) fn bytes<'a>(cell: Cell<'a>, encoding: Encoding) -> FieldResult<Cow<'a, [u8]>> {
    const NAME: &str = "bytea";
    let Cell::Text(text) = cell else { return Err(FieldError::kind(NAME, cell)) };
    let hexadecimal =
        |digits: &str| hex::decode(digits).map(Cow::Owned).map_err(|_| FieldError::syntax(NAME, text));
    match encoding {
        Encoding::Base64 => return base64(text, NAME).map(Cow::Owned),
        Encoding::Hex => return hexadecimal(text),
        _ => (),
    }
    if let Some(digits) = text.strip_prefix("\\x") {
        return hexadecimal(digits);
    }
    if !text.contains('\\') {
        return Ok(Cow::Borrowed(text.as_bytes()));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = match (first, tail) {
            (b'\\', [b'\\', after @ ..]) => {
                out.push(b'\\');
                after
            }
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                out.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                after
            }
            (b'\\', _) => return Err(FieldError::syntax(NAME, text)),
            (&other, _) => {
                out.push(other);
                tail
            }
        };
    }
    Ok(Cow::Owned(out))
}

/// A number of units as µs. Fractions of the unit (`1700000000.25` seconds) are kept down to the µs.
fn units(text: &str, unit: Unit, type_name: &str) -> FieldResult<i64> {
    let range = || FieldError::range(type_name, text);
    match text.parse::<i64>() {
        Ok(n) => unit.to_micros(n).ok_or_else(range),
        Err(_) => {
            let nanos_per_unit = match unit {
                Unit::Second => 9,
                Unit::Millisecond => 6,
                Unit::Microsecond => 3,
                Unit::Nanosecond => 0,
            };
            let nanos = number::parse_decimal(text, 38, nanos_per_unit)
                .map_err(|e| FieldError::number(e, type_name, text))?;
            i64::try_from(nanos.div_euclid(1000)).map_err(|_| range())
        }
    }
}

/// `infinity` as `true`, `-infinity` as `false`.
fn infinite(text: &str) -> Option<bool> {
    let text = text.trim_ascii();
    if text.eq_ignore_ascii_case("infinity") {
        Some(true)
    } else if text.eq_ignore_ascii_case("-infinity") {
        Some(false)
    } else {
        None
    }
}

/// Days since 1970 that are a date of PostgreSQL's, from 4714-11-24 BC to 5874897-12-31. What is beyond them, as the
/// numbers that Debezium makes of infinite dates, is no date.
pub(super) fn days(days: i64) -> FieldResult<i32> {
    const DAYS: std::ops::RangeInclusive<i64> = -2_440_588..=2_145_042_905;
    match i32::try_from(days) {
        Ok(narrow) if DAYS.contains(&days) => Ok(narrow),
        _ => Err(FieldError::range("date", &days.to_string())),
    }
}

pub(super) fn date(cell: Cell<'_>, encoding: Encoding) -> FieldResult<i32> {
    const NAME: &str = "date";
    match (cell, encoding) {
        (Cell::Number(n), Encoding::Days) => days(n.parse().map_err(|_| FieldError::range(NAME, n))?),
        (Cell::Number(n), Encoding::Epoch(unit)) => {
            days(units(n, unit, NAME)?.div_euclid(datetime::MICROS_PER_DAY))
        }
        (Cell::Text(text), _) if let Some(future) = infinite(text) => {
            Ok(if future { i32::MAX } else { i32::MIN })
        }
        (Cell::Text(text), _) => datetime::parse_date(text).ok_or_else(|| FieldError {
            sqlstate: SqlState::INVALID_DATETIME_FORMAT,
            ..FieldError::syntax(NAME, text)
        }),
        _ => Err(FieldError::kind(NAME, cell)),
    }
}

pub(super) fn time(cell: Cell<'_>, encoding: Encoding) -> FieldResult<i64> {
    const NAME: &str = "time";
    match (cell, encoding) {
        (Cell::Number(n), Encoding::Epoch(unit)) => {
            let micros = units(n, unit, NAME)?;
            if (0..=datetime::MICROS_PER_DAY).contains(&micros) {
                Ok(micros)
            } else {
                Err(FieldError::range(NAME, n))
            }
        }
        (Cell::Text(text), _) => datetime::parse_time(text).ok_or_else(|| FieldError {
            sqlstate: SqlState::INVALID_DATETIME_FORMAT,
            ..FieldError::syntax(NAME, text)
        }),
        _ => Err(FieldError::kind(NAME, cell)),
    }
}

/// A timestamp in µs, with the two that stand for infinity in PostgreSQL's JDBC driver, and so in Debezium's events.
pub(super) fn instant(micros: i64) -> i64 {
    match micros {
        9_223_372_036_825_200_000 => i64::MAX,
        -9_223_372_036_832_400_000 => i64::MIN,
        _ => micros,
    }
}

/// As in PostgreSQL, a zone in the text counts for `timestamptz` only, and without one it is UTC.
pub(super) fn timestamp(cell: Cell<'_>, encoding: Encoding, zoned: bool) -> FieldResult<i64> {
    let name = if zoned { "timestamp with time zone" } else { "timestamp" };
    match (cell, encoding) {
        (Cell::Number(n), Encoding::Epoch(unit)) => units(n, unit, name).map(instant),
        (Cell::Number(n), Encoding::Plain) => Err(FieldError {
            sqlstate: SqlState::DATATYPE_MISMATCH,
            message: format!(
                "expected a value of type {name}, found the number {} (the option timestamp.format = 's', 'ms', \
                 'us' or 'ns' says what numbers count)",
                excerpt(n)
            ),
        }),
        (Cell::Text(text), _) if let Some(future) = infinite(text) => {
            Ok(if future { i64::MAX } else { i64::MIN })
        }
        (Cell::Text(text), _) => match datetime::parse_timestamp(text) {
            Some((local, offset)) if zoned => {
                let utc = local.checked_sub(offset.unwrap_or(0));
                utc.map(instant).ok_or_else(|| FieldError::range(name, text))
            }
            Some((local, _)) => Ok(instant(local)),
            None => Err(FieldError {
                sqlstate: SqlState::INVALID_DATETIME_FORMAT,
                ..FieldError::syntax(name, text)
            }),
        },
        _ => Err(FieldError::kind(name, cell)),
    }
}

pub(super) fn interval(cell: Cell<'_>, encoding: Encoding) -> FieldResult<IntervalMonthDayNano> {
    const NAME: &str = "interval";
    match (cell, encoding) {
        (Cell::Number(n), Encoding::Duration(unit)) => {
            let nanos = units(n, unit, NAME)?.checked_mul(1000).ok_or_else(|| FieldError::range(NAME, n))?;
            Ok(IntervalMonthDayNano::new(0, 0, nanos))
        }
        (Cell::Text(text), _) => types::parse_interval(text).map_err(FieldError::from),
        _ => Err(FieldError::kind(NAME, cell)),
    }
}

fn malformed_json(m: Malformed, text: &str) -> FieldError {
    let mut error = FieldError::syntax("json", text);
    error.message.push_str(&format!(": {} at byte {}", m.what, m.at));
    error
}

/// Text that must be one JSON document, as it is.
pub(super) fn json_document(text: &str) -> FieldResult<&str> {
    let mut s = Scanner::new(text);
    s.value().and_then(|_| s.end()).map_err(|m| malformed_json(m, text))?;
    Ok(text)
}

/// The JSON document that a cell is: a string is a JSON string, unless the encoding says that it holds a document.
pub(super) fn json<'a>(cell: Cell<'a>, encoding: Encoding) -> FieldResult<Cow<'a, str>> {
    match (cell, encoding) {
        (Cell::Text(text), Encoding::JsonText) | (Cell::Document(text), _) => {
            json_document(text).map(Cow::Borrowed)
        }
        (Cell::Text(text), _) => {
            let mut quoted = String::with_capacity(text.len() + 2);
            quote::write_string(text, &mut quoted);
            Ok(Cow::Owned(quoted))
        }
        (Cell::Nested(text), _) => Ok(Cow::Borrowed(text)),
        _ => scalar(cell, "json").map(Cow::Borrowed),
    }
}

/// The same in jsonb's one form.
pub(super) fn json_normalised(cell: Cell<'_>, encoding: Encoding) -> FieldResult<String> {
    types::json::normalize(&json(cell, encoding)?).map_err(FieldError::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_as_postgresql_reads_them() {
        for (text, expected) in [
            ("t", true),
            ("TRUE", true),
            ("y", true),
            ("on", true),
            ("1", true),
            ("f", false),
            ("No", false),
            ("of", false),
            ("0", false),
        ] {
            assert_eq!(boolean(Cell::Text(text)), Ok(expected), "{text}");
        }
        for text in ["", "o", "truee", "2", "é"] {
            assert!(boolean(Cell::Text(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn integers_keep_to_their_range() {
        assert_eq!(integer::<i16>(Cell::Number("-32768"), "smallint"), Ok(-32768));
        let error = integer::<i16>(Cell::Number("32768"), "smallint").unwrap_err();
        assert_eq!(error.sqlstate, SqlState::NUMERIC_VALUE_OUT_OF_RANGE);
        assert_eq!(error.message, "value \"32768\" is out of range for type smallint");
        let error = integer::<i32>(Cell::Text("abc"), "integer").unwrap_err();
        assert_eq!(error.message, "invalid input syntax for type integer: \"abc\"");
        assert!(integer::<i32>(Cell::Bool(true), "integer").is_err());
        assert!(integer::<i32>(Cell::Nested("{}"), "integer").is_err());
    }

    #[test]
    fn decimals_in_every_encoding_of_debezium() {
        let precise = Encoding::Decimal(None);
        assert_eq!(decimal(Cell::Text("BNI="), precise, 10, 2), Ok(1234));
        assert_eq!(decimal(Cell::Text("BNI="), Encoding::Decimal(Some(3)), 10, 2), Ok(123));
        assert_eq!(decimal(Cell::Nested(r#"{"scale":1,"value":"BNI="}"#), precise, 10, 2), Ok(12340));
        assert_eq!(decimal(Cell::Text("12.34"), Encoding::Plain, 10, 2), Ok(1234));
        assert_eq!(decimal(Cell::Number("12.34"), precise, 10, 2), Ok(1234));
        assert!(decimal(Cell::Text("12.34"), precise, 10, 2).is_err());
        assert!(decimal(Cell::Nested(r#"{"scale":"x"}"#), precise, 10, 2).is_err());
        assert!(decimal(Cell::Nested("{"), precise, 10, 2).is_err());
    }

    #[test]
    fn times_by_text_and_by_number() {
        let ms = Encoding::Epoch(Unit::Millisecond);
        assert_eq!(timestamp(Cell::Number("1500"), ms, true), Ok(1_500_000));
        assert_eq!(timestamp(Cell::Number("1.5"), Encoding::Epoch(Unit::Second), true), Ok(1_500_000));
        assert_eq!(timestamp(Cell::Number("-1"), Encoding::Epoch(Unit::Nanosecond), true), Ok(-1));
        assert!(timestamp(Cell::Number("9223372036854775807"), ms, true).is_err());
        assert!(timestamp(Cell::Number("1500"), Encoding::Plain, true).is_err());
        assert_eq!(timestamp(Cell::Text("1970-01-01 01:00:00+01"), ms, true), Ok(0));
        assert_eq!(timestamp(Cell::Text("1970-01-01 01:00:00+01"), ms, false), Ok(3_600_000_000));
        assert_eq!(date(Cell::Number("19849"), Encoding::Days), Ok(19849));
        assert!(date(Cell::Number("-2147472692"), Encoding::Days).is_err());
        assert!(date(Cell::Number("2147483647"), Encoding::Days).is_err());
        assert_eq!(date(Cell::Text("-Infinity"), Encoding::Days), Ok(i32::MIN));
        for infinity in [
            timestamp(Cell::Number("9223372036825200"), ms, false),
            timestamp(Cell::Text("+294247-01-10T04:00:25.2Z"), ms, false),
            timestamp(Cell::Text("infinity"), ms, true),
        ] {
            assert_eq!(infinity, Ok(i64::MAX));
        }
        assert_eq!(timestamp(Cell::Text("-290308-12-21T19:59:27.6Z"), ms, true), Ok(i64::MIN));
        assert!(timestamp(Cell::Text("294247-01-10 04:00:54-15"), ms, true).is_err());
        assert!(time(Cell::Number("86400000001"), Encoding::Epoch(Unit::Microsecond)).is_err());
        let hour = interval(Cell::Number("3600000000"), Encoding::Duration(Unit::Microsecond)).unwrap();
        assert_eq!(hour, IntervalMonthDayNano::new(0, 0, 3_600_000_000_000));
        assert_eq!(
            interval(Cell::Text("1 mon 2 days"), Encoding::Plain),
            Ok(IntervalMonthDayNano::new(1, 2, 0))
        );
    }

    #[test]
    fn bytes_in_every_encoding() {
        let plain = |t| bytes(Cell::Text(t), Encoding::Plain).map(Cow::into_owned);
        assert_eq!(plain("\\x00ff"), Ok(vec![0, 255]));
        assert_eq!(plain("a\\000\\\\"), Ok(vec![b'a', 0, b'\\']));
        assert!(plain("\\x0").is_err());
        assert!(plain("\\9").is_err());
        assert_eq!(bytes(Cell::Text("AP8="), Encoding::Base64).unwrap().as_ref(), [0, 255]);
        assert_eq!(bytes(Cell::Text("00ff"), Encoding::Hex).unwrap().as_ref(), [0, 255]);
        assert!(bytes(Cell::Text("é"), Encoding::Base64).is_err());
    }
}
