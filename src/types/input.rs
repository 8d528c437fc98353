//! Text to one value of a type: parameters, casts from text, array elements.

use std::sync::Arc;

use arrow::array::{ArrayRef, ListArray, new_empty_array};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field};
use datafusion::common::ScalarValue;

use super::datetime::{parse_date, parse_time, parse_timestamp, parse_timestamptz};
use super::interval::parse_interval;
use super::numeric::parse_decimal;
use super::{SqlType, invalid_text, json, out_of_range};
use crate::error::{Error, Result, SqlState};

/// Reads a value of a column's type from PostgreSQL's text format. NULL has no text; it is the caller's to tell.
///
/// # Errors
/// 22P02, 22007, 22008, 22003 or 22001, as PostgreSQL's input functions.
pub fn parse_text(field: &Field, text: &str) -> Result<ScalarValue> {
    let sql_type = SqlType::of(field);
    Ok(match &sql_type {
        SqlType::Bool => ScalarValue::Boolean(Some(parse_bool(text)?)),
        SqlType::Int2 => ScalarValue::Int16(Some(parse_int(text, "smallint")?)),
        SqlType::Int4 => ScalarValue::Int32(Some(parse_int(text, "integer")?)),
        SqlType::Int8 => ScalarValue::Int64(Some(parse_int(text, "bigint")?)),
        SqlType::Oid | SqlType::Regclass => ScalarValue::UInt32(Some(parse_int(text, "oid")?)),
        SqlType::Float4 => ScalarValue::Float32(Some(parse_float4(text)?)),
        SqlType::Float8 => ScalarValue::Float64(Some(parse_float(text, "double precision")?)),
        SqlType::Numeric(_) => match *field.data_type() {
            DataType::Decimal128(p, s) => ScalarValue::Decimal128(Some(parse_decimal(text, p, s)?), p, s),
            ref other => return Err(Error::unsupported(format!("text input of Arrow type {other}"))),
        },
        SqlType::Text
        | SqlType::Varchar(_)
        | SqlType::Char(_)
        | SqlType::Name
        | SqlType::InternalChar
        | SqlType::Regtype
        | SqlType::Regproc
        | SqlType::Record => ScalarValue::Utf8View(Some(check_string(&sql_type, text)?.to_string())),
        SqlType::Uuid => ScalarValue::Utf8View(Some(parse_uuid(text)?)),
        SqlType::Json => ScalarValue::Utf8View(Some(check_json(text)?.to_string())),
        SqlType::Jsonb => ScalarValue::Utf8View(Some(normalize_jsonb(text)?)),
        SqlType::Bytea => ScalarValue::Binary(Some(parse_bytea(text)?)),
        SqlType::Date => ScalarValue::Date32(Some(parse_date(text)?)),
        SqlType::Time => ScalarValue::Time64Microsecond(Some(parse_time(text)?)),
        SqlType::Timestamp => ScalarValue::TimestampMicrosecond(Some(parse_timestamp(text)?), None),
        SqlType::Timestamptz => {
            ScalarValue::TimestampMicrosecond(Some(parse_timestamptz(text, 0)?), Some("+00:00".into()))
        }
        SqlType::Interval => ScalarValue::IntervalMonthDayNano(Some(parse_interval(text)?)),
        SqlType::Array(_) => match field.data_type() {
            DataType::List(inner) => ScalarValue::List(Arc::new(parse_array_text(inner, text)?)),
            other => return Err(Error::unsupported(format!("text input of Arrow type {other}"))),
        },
        SqlType::Unknown => ScalarValue::Utf8View(Some(text.to_string())),
    })
}

/// `t`, `true`, `yes`, `on`, `1` and their opposites, or any unique beginning of them.
pub(super) fn parse_bool(text: &str) -> Result<bool> {
    let trimmed = text.trim().to_ascii_lowercase();
    let is = |word: &str, least: usize| trimmed.len() >= least && word.starts_with(&trimmed);
    if is("true", 1) || is("yes", 1) || is("on", 2) || trimmed == "1" {
        Ok(true)
    } else if is("false", 1) || is("no", 1) || is("off", 2) || trimmed == "0" {
        Ok(false)
    } else {
        Err(invalid_text("boolean", text))
    }
}

/// An integer with optional sign and surrounding space.
pub(super) fn parse_int<T: std::str::FromStr<Err = std::num::ParseIntError>>(
    text: &str,
    what: &str,
) -> Result<T> {
    use std::num::IntErrorKind;
    text.trim().parse().map_err(|e: std::num::ParseIntError| match e.kind() {
        IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => out_of_range(what, text),
        _ => invalid_text(what, text),
    })
}

pub(super) fn parse_float4(text: &str) -> Result<f32> {
    let value: f32 = match parse_float(text, "real") {
        Ok(wide) if wide.is_finite() => text.trim().parse().map_err(|_| invalid_text("real", text))?,
        Ok(special) => special as f32,
        Err(e) => return Err(e),
    };
    let overflowed = value.is_infinite() && !text.to_ascii_lowercase().contains("inf");
    if overflowed || value == 0.0 && parse_float(text, "real")? != 0.0 {
        Err(out_of_range("real", text))
    } else {
        Ok(value)
    }
}

pub(super) fn parse_float(text: &str, what: &str) -> Result<f64> {
    let trimmed = text.trim();
    let digits = trimmed.strip_prefix(['+', '-']).unwrap_or(trimmed);
    let special = ["nan", "inf", "infinity"].iter().any(|w| digits.eq_ignore_ascii_case(w));
    if !special && !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Err(invalid_text(what, text));
    }
    let value: f64 = trimmed.parse().map_err(|_| invalid_text(what, text))?;
    let digit = |b: u8| matches!(b, b'1'..=b'9');
    let underflowed = value == 0.0 && trimmed.bytes().take_while(|b| !matches!(b, b'e' | b'E')).any(digit);
    if value.is_infinite() && !special || underflowed {
        return Err(Error::new(
            SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
            format!("\"{text}\" is out of range for type {what}"),
        ));
    }
    Ok(value)
}

/// A string cut to what its type holds: trailing spaces beyond the length are dropped, anything else is an error.
pub(super) fn check_string<'a>(sql_type: &SqlType, text: &'a str) -> Result<&'a str> {
    let limit = match sql_type {
        SqlType::Varchar(Some(n)) => *n as usize,
        SqlType::Char(n) => {
            let trimmed = text.trim_end_matches(' ');
            return check_length(sql_type, trimmed, *n as usize);
        }
        _ => return Ok(text),
    };
    check_length(sql_type, text, limit)
}

fn check_length<'a>(sql_type: &SqlType, text: &'a str, limit: usize) -> Result<&'a str> {
    match text.char_indices().nth(limit) {
        Some((end, _)) if text[end..].bytes().all(|b| b == b' ') => Ok(&text[..end]),
        Some(_) => Err(Error::new(SqlState("22001"), format!("value too long for type {sql_type}"))),
        None => Ok(text),
    }
}

/// A uuid in any of PostgreSQL's spellings, as lower-case text with dashes.
pub(super) fn parse_uuid(text: &str) -> Result<String> {
    let inner = text.trim();
    let inner = inner.strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap_or(inner);
    let hex: String = inner.chars().filter(|c| *c != '-').collect();
    match uuid::Uuid::try_parse(&hex) {
        Ok(uuid) if hex.len() == 32 => Ok(uuid.hyphenated().to_string()),
        _ => Err(invalid_text("uuid", text)),
    }
}

/// JSON is kept as it was written.
pub(super) fn check_json(text: &str) -> Result<&str> {
    serde_json::from_str::<serde::de::IgnoredAny>(text)
        .map(|_| text)
        .map_err(|e| invalid_text("json", text).with_detail(format!("{e}.")))
}

/// JSONB is kept in one form: keys sorted (by length, then bytes) and unique, a space after `:` and `,`.
pub(super) fn normalize_jsonb(text: &str) -> Result<String> {
    json::normalize(text).map_err(|e| match e.sqlstate {
        SqlState::INVALID_TEXT_REPRESENTATION => Error { detail: e.detail, ..invalid_text("json", text) },
        _ => e,
    })
}

/// Bytes from `\x` and hexadecimal digits, or from the old escape format.
///
/// # Errors
/// 22P02 when it is neither, 22023 for hexadecimal digits that are none.
pub fn parse_bytea(text: &str) -> Result<Vec<u8>> {
    if let Some(digits) = text.strip_prefix("\\x") {
        let compact: String = digits.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        return hex::decode(&compact).map_err(|_| {
            Error::new(SqlState::INVALID_PARAMETER_VALUE, "invalid hexadecimal data for type bytea")
        });
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&b, tail)) = rest.split_first() {
        rest = tail;
        match (b, tail) {
            (b'\\', [b'\\', after @ ..]) => {
                out.push(b'\\');
                rest = after;
            }
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                out.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                rest = after;
            }
            (b'\\', _) => return Err(invalid_text("bytea", text)),
            (b, _) => out.push(b),
        }
    }
    Ok(out)
}

/// An array from its text: `{1,2,NULL,"a b"}`; one value of a list column whose element is `element`.
///
/// # Errors
/// 22P02 when it is malformed; the element type's own errors.
pub fn parse_array_text(element: &Arc<Field>, text: &str) -> Result<ListArray> {
    let mut parser = ArrayText { text, rest: text.trim() };
    let list = parser.list(element)?;
    if parser.rest.trim().is_empty() {
        Ok(list)
    } else {
        Err(parser.malformed("Junk after closing right brace."))
    }
}

struct ArrayText<'a> {
    text: &'a str,
    rest: &'a str,
}

impl ArrayText<'_> {
    fn malformed(&self, why: &str) -> Error {
        Error::new(
            SqlState::INVALID_TEXT_REPRESENTATION,
            format!("malformed array literal: \"{}\"", self.text),
        )
        .with_detail(why)
    }

    fn list(&mut self, element: &Arc<Field>) -> Result<ListArray> {
        let Some(rest) = self.rest.strip_prefix('{') else {
            return Err(self.malformed("Array value must start with \"{\"."));
        };
        self.rest = rest.trim_start();
        let mut items: Vec<ArrayRef> = Vec::new();
        if let Some(rest) = self.rest.strip_prefix('}') {
            self.rest = rest;
        } else {
            loop {
                items.push(self.item(element)?);
                self.rest = self.rest.trim_start();
                match self.rest.chars().next() {
                    Some(',') => self.rest = self.rest[1..].trim_start(),
                    Some('}') => {
                        self.rest = &self.rest[1..];
                        break;
                    }
                    _ => return Err(self.malformed("Unexpected end of input.")),
                }
            }
        }
        let values = if items.is_empty() {
            new_empty_array(element.data_type())
        } else {
            let refs: Vec<&dyn arrow::array::Array> = items.iter().map(AsRef::as_ref).collect();
            arrow::compute::concat(&refs)?
        };
        let offsets = OffsetBuffer::from_lengths([values.len()]);
        Ok(ListArray::try_new(Arc::clone(element), offsets, values, None)?)
    }

    fn item(&mut self, element: &Arc<Field>) -> Result<ArrayRef> {
        if let DataType::List(inner) = element.data_type() {
            let inner = Arc::clone(inner);
            return Ok(Arc::new(self.list(&inner)?));
        }
        let scalar = match self.token()? {
            Some(token) => parse_text(element, &token)?,
            None => ScalarValue::try_from(element.data_type())?,
        };
        Ok(scalar.to_array()?)
    }

    /// The next element's text, unquoted; `None` for NULL.
    fn token(&mut self) -> Result<Option<String>> {
        let mut token = String::new();
        let mut quoted = false;
        let mut chars = self.rest.char_indices();
        if let Some(inner) = self.rest.strip_prefix('"') {
            quoted = true;
            self.rest = inner;
            chars = inner.char_indices();
        }
        while let Some((i, c)) = chars.next() {
            match c {
                '\\' => match chars.next() {
                    Some((_, escaped)) => token.push(escaped),
                    None => break,
                },
                '"' if quoted => {
                    self.rest = &self.rest[i + 1..];
                    return Ok(Some(token));
                }
                ',' | '}' if !quoted => {
                    self.rest = &self.rest[i..];
                    let trimmed = token.trim_end();
                    if trimmed.is_empty() {
                        return Err(self.malformed(&format!("Unexpected \"{c}\" character.")));
                    }
                    return Ok((!trimmed.eq_ignore_ascii_case("null")).then(|| trimmed.to_string()));
                }
                '{' if !quoted && token.is_empty() => {
                    return Err(Error::unsupported(
                        "an array of arrays as a value of a type with one dimension",
                    )
                    .with_hint("A type has as many dimensions as its name says: int[][]."));
                }
                '{' | '"' if !quoted => return Err(self.malformed(&format!("Unexpected \"{c}\" character."))),
                c => token.push(c),
            }
        }
        Err(self.malformed("Unexpected end of input."))
    }
}

#[cfg(test)]
mod tests {
    use super::super::write_text;
    use super::*;

    fn round_trip(type_name: &str, text: &str) -> Result<String> {
        let field = type_name.parse::<SqlType>()?.field("c", true);
        let array = parse_text(&field, text)?.to_array()?;
        assert_eq!(array.data_type(), field.data_type(), "{type_name}");
        let mut out = Vec::new();
        write_text(&field, array.as_ref(), 0, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn every_type_reads_what_it_prints() {
        for (type_name, text) in [
            ("bool", "t"),
            ("int2", "-32768"),
            ("int4", "2147483647"),
            ("int8", "-9223372036854775808"),
            ("float4", "1.5"),
            ("float8", "-1e-07"),
            ("numeric(12,2)", "-1.50"),
            ("numeric", "3.14"),
            ("text", "any \"text\""),
            ("varchar(3)", "abc"),
            ("char(5)", "ab   "),
            ("bytea", "\\x00ff10"),
            ("date", "2024-02-29"),
            ("time", "23:59:59.999999"),
            ("timestamp", "2024-02-29 01:02:03.4"),
            ("timestamptz", "2024-02-29 01:02:03.4+00"),
            ("interval", "1 year 2 mons -3 days +04:05:06"),
            ("uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
            ("json", "{\"b\":1,\"a\":[]}"),
            ("jsonb", "{\"a\": [1, \"x\"], \"bb\": null}"),
            ("int4[]", "{1,NULL,3}"),
            ("text[]", "{\"a b\",NULL,\"\",\"null\",\"x\\\"y\"}"),
            ("int4[][]", "{{1,2},{3,4}}"),
            ("int4[]", "{}"),
            ("timestamptz[]", "{\"2024-02-29 01:02:03+00\"}"),
        ] {
            assert_eq!(round_trip(type_name, text).unwrap(), text, "{type_name}");
        }
    }

    #[test]
    fn other_spellings_are_normalised() {
        assert_eq!(round_trip("bool", " YES ").unwrap(), "t");
        assert_eq!(round_trip("bool", "of").unwrap(), "f");
        assert_eq!(round_trip("int4", " +7 ").unwrap(), "7");
        assert_eq!(
            round_trip("uuid", "{A0EEBC999C0B4EF8BB6D6BB9BD380A11}").unwrap(),
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
        );
        assert_eq!(round_trip("jsonb", "{\"bb\":1, \"a\":2,\"a\":3}").unwrap(), "{\"a\": 3, \"bb\": 1}");
        assert_eq!(round_trip("varchar(3)", "abc  ").unwrap(), "abc");
        assert_eq!(round_trip("bytea", "a\\\\b\\001").unwrap(), "\\x615c6201");
        assert_eq!(round_trip("float8", "-inf").unwrap(), "-Infinity");
    }

    #[test]
    fn what_does_not_fit_is_refused_with_its_state() {
        for (type_name, text, state) in [
            ("bool", "maybe", "22P02"),
            ("bool", "o", "22P02"),
            ("int4", "abc", "22P02"),
            ("int4", "2147483648", "22003"),
            ("int4", "1.0", "22P02"),
            ("float8", "1e400", "22003"),
            ("float8", "x", "22P02"),
            ("float4", "1e40", "22003"),
            ("numeric(3,1)", "100", "22003"),
            ("varchar(2)", "abc", "22001"),
            ("uuid", "a0eebc99", "22P02"),
            ("json", "{", "22P02"),
            ("jsonb", "{'a':1}", "22P02"),
            ("date", "2024-02-30", "22008"),
            ("date", "soon", "22007"),
            ("interval", "soon", "22007"),
            ("bytea", "\\xzz", "22023"),
            ("bytea", "\\9", "22P02"),
            ("int4[]", "1,2", "22P02"),
            ("int4[]", "{1,2", "22P02"),
            ("int4[]", "{1,,2}", "22P02"),
            ("int4[]", "{1}x", "22P02"),
        ] {
            let error = round_trip(type_name, text).unwrap_err();
            assert_eq!(error.sqlstate.0, state, "{type_name} {text}: {error}");
        }
    }
}
