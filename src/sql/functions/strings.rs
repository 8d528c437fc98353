//! Text functions that DataFusion does not have, or whose answers are not PostgreSQL's: letters' case, `substring`,
//! `split_part`, `chr`, quoting, encodings of bytes.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringViewBuilder};
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use base64::Engine;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr, ScalarUDF};

use super::define::{Arg, Call, Definition, Gives};
use crate::error::{Error, Result, SqlState};
use crate::names::{fold_str, quote, quote_literal};
use crate::types::{parse_bytea, write_text};

use Arg::{Any, Bool, Bytea, Int4, Int8, Text};

const fn text(
    name: &'static str,
    forms: &'static [&'static [Arg]],
    evaluate: fn(&Call<'_>) -> Result<ArrayRef>,
) -> Definition {
    Definition { name, forms, variadic: false, gives: Gives::Text, evaluate }
}

const DEFINITIONS: [Definition; 19] = [
    text("upper", &[&[Text]], |call| in_case(call, u8::is_ascii_lowercase, str::make_ascii_uppercase, upper)),
    text("lower", &[&[Text]], |call| in_case(call, u8::is_ascii_uppercase, str::make_ascii_lowercase, lower)),
    text("initcap", &[&[Text]], |call| cased(call, |c, first| if first { upper(c) } else { lower(c) })),
    text("chr", &[&[Int4]], chr),
    text("split_part", &[&[Text, Text, Int8]], split_part),
    Definition {
        name: "substr",
        forms: &[&[Text, Int8], &[Text, Int8, Int8], &[Bytea, Int8], &[Bytea, Int8, Int8]],
        variadic: false,
        gives: Gives::Plain(0),
        evaluate: slice,
    },
    Definition {
        name: "octet_length",
        forms: &[&[Text], &[Bytea]],
        variadic: false,
        gives: Gives::Int4,
        evaluate: byte_length,
    },
    text("quote_literal", &[&[Text], &[Any]], |call| quoted(call, None)),
    text("quote_nullable", &[&[Text], &[Any]], |call| quoted(call, Some("NULL"))),
    text("quote_ident", &[&[Text]], |call| {
        let names = call.text(0)?;
        call.texts(|row| Ok(Some(quote(names.value(row)))))
    }),
    text("to_hex", &[&[Any]], to_hex),
    text("unistr", &[&[Text]], |call| {
        let texts = call.text(0)?;
        call.texts(|row| unescaped(texts.value(row)).map(Some))
    }),
    Definition {
        name: "parse_ident",
        forms: &[&[Text], &[Text, Bool]],
        variadic: false,
        gives: Gives::TextArray,
        evaluate: |call| {
            let texts = call.text(0)?;
            let strict = if call.arrays.len() > 1 { Some(call.bool(1)?) } else { None };
            call.text_lists(|row| {
                let parts = identifiers(texts.value(row), strict.is_none_or(|s| s.value(row)))?;
                Ok(Some(parts.into_iter().map(Some).collect()))
            })
        },
    },
    text("encode", &[&[Bytea, Text]], encode),
    Definition {
        name: "decode",
        forms: &[&[Text, Text]],
        variadic: false,
        gives: Gives::Bytea,
        evaluate: decode,
    },
    Definition {
        name: "get_byte",
        forms: &[&[Bytea, Int4]],
        variadic: false,
        gives: Gives::Int4,
        evaluate: get_byte,
    },
    Definition {
        name: "set_byte",
        forms: &[&[Bytea, Int4, Int4]],
        variadic: false,
        gives: Gives::Bytea,
        evaluate: set_byte,
    },
    Definition {
        name: "string_to_array",
        forms: &[&[Text, Text], &[Text, Text, Text]],
        variadic: false,
        gives: Gives::TextArray,
        evaluate: string_to_array,
    },
    Definition {
        name: "bytea_position",
        forms: &[&[Bytea, Bytea]],
        variadic: false,
        gives: Gives::Int4,
        evaluate: byte_position,
    },
];

/// The functions of this file.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    DEFINITIONS.into_iter().map(Definition::udf).collect()
}

/// `substring(value from start for length)`.
pub(super) fn substring_of(args: Vec<Expr>) -> Expr {
    let [_, _, _, _, _, substring, ..] = DEFINITIONS;
    Expr::ScalarFunction(ScalarFunction::new_udf(substring.udf(), args))
}

/// One letter's capital; of those that become two (`ß`) the letter itself, as the C library has it.
fn upper(c: char) -> char {
    let mut capitals = c.to_uppercase();
    match (capitals.next(), capitals.next()) {
        (Some(capital), None) => capital,
        _ => c,
    }
}

fn lower(c: char) -> char {
    let mut letters = c.to_lowercase();
    match (letters.next(), letters.next()) {
        (Some(letter), None) => letter,
        _ => c,
    }
}

/// All letters in one case: `other` says which ASCII letters are in the other one. Where there are none the texts are
/// given as they are.
fn in_case(
    call: &Call<'_>,
    other: fn(&u8) -> bool,
    ascii: fn(&mut str),
    any: fn(char) -> char,
) -> Result<ArrayRef> {
    let texts = call.text(0)?;
    let changes = |text: &str| text.bytes().any(|b| other(&b) || !b.is_ascii());
    if !texts.iter().flatten().any(changes) {
        return Ok(Arc::clone(call.array(0)?));
    }
    let mut scratch = String::new();
    let mut out = StringViewBuilder::with_capacity(call.rows);
    for text in texts {
        let Some(text) = text else {
            out.append_null();
            continue;
        };
        scratch.clear();
        if text.is_ascii() {
            scratch.push_str(text);
            ascii(&mut scratch);
        } else {
            scratch.extend(text.chars().map(any));
        }
        out.append_value(&scratch);
    }
    Ok(Arc::new(out.finish()))
}

/// Every letter in its case; whether it is the first of a word is told.
fn cased(call: &Call<'_>, case: impl Fn(char, bool) -> char) -> Result<ArrayRef> {
    let texts = call.text(0)?;
    call.texts(|row| {
        let mut first = true;
        let text: String = texts
            .value(row)
            .chars()
            .map(|c| {
                let cased = case(c, first);
                first = !c.is_alphanumeric();
                cased
            })
            .collect();
        Ok(Some(text))
    })
}

fn chr(call: &Call<'_>) -> Result<ArrayRef> {
    let codes = call.int4(0)?;
    call.texts(|row| {
        let code = codes.value(row);
        match u32::try_from(code).ok().and_then(char::from_u32) {
            Some('\0') => Err(Error::new(SqlState("54000"), "null character not permitted")),
            Some(c) => Ok(Some(c.to_string())),
            None if code < 0 => {
                Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, "character number must be positive"))
            }
            None => Err(Error::new(
                SqlState("54000"),
                format!("requested character too large for encoding: {code}"),
            )),
        }
    })
}

fn split_part(call: &Call<'_>) -> Result<ArrayRef> {
    let (texts, separators, numbers) = (call.text(0)?, call.text(1)?, call.int8(2)?);
    call.texts(|row| {
        let (text, separator, n) = (texts.value(row), separators.value(row), numbers.value(row));
        let Some(from_end) = n.checked_abs().and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0) else {
            return Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, "field position must not be zero"));
        };
        if separator.is_empty() {
            return Ok(Some(if from_end == 1 { text } else { "" }));
        }
        let part = if n > 0 {
            text.split(separator).nth(from_end - 1)
        } else {
            text.rsplit(separator).nth(from_end - 1)
        };
        Ok(Some(part.unwrap_or_default()))
    })
}

/// From and to where a substring goes, counted from 0.
fn bounds(call: &Call<'_>, row: usize) -> Result<(usize, usize)> {
    let start = call.int8(1)?.value(row);
    let end = match call.arrays.len() {
        2 => i64::MAX,
        _ => match call.int8(2)?.value(row) {
            length if length < 0 => {
                return Err(Error::new(SqlState("22011"), "negative substring length not allowed"));
            }
            length => start.saturating_add(length),
        },
    };
    let at = |position: i64| usize::try_from(position.saturating_sub(1)).unwrap_or(0);
    Ok((at(start), at(end)))
}

fn slice(call: &Call<'_>) -> Result<ArrayRef> {
    let Ok(texts) = call.text(0) else { return byte_slice(call) };
    call.texts(|row| {
        let (start, end) = bounds(call, row)?;
        let text = texts.value(row);
        let byte = |n: usize| text.char_indices().nth(n).map_or(text.len(), |(at, _)| at);
        let from = byte(start);
        Ok(Some(text.get(from..byte(end).max(from)).unwrap_or_default()))
    })
}

fn byte_length(call: &Call<'_>) -> Result<ArrayRef> {
    // A value has less than 2³¹ bytes.
    if let Ok(texts) = call.text(0) {
        return call.values::<Int32Type>(|row| Ok(Some(texts.value(row).len() as i32)));
    }
    let values = call.bytea(0)?;
    call.values::<Int32Type>(|row| Ok(Some(values.value(row).len() as i32)))
}

fn byte_slice(call: &Call<'_>) -> Result<ArrayRef> {
    let values = call.bytea(0)?;
    call.bytes(|row| {
        let (start, end) = bounds(call, row)?;
        let bytes = values.value(row);
        let (start, end) = (start.min(bytes.len()), end.min(bytes.len()));
        Ok(Some(bytes[start..end.max(start)].to_vec()))
    })
}

/// A value of any type as its text.
pub(super) fn text_of(call: &Call<'_>, argument: usize, row: usize) -> Result<Option<String>> {
    let array = call.array(argument)?;
    if array.is_null(row) || array.data_type().is_null() {
        return Ok(None);
    }
    let mut text = Vec::new();
    match call.fields.get(argument) {
        // A constant may come in another form of its type.
        Some(field) if field.data_type() == array.data_type() => {
            write_text(field, array.as_ref(), row, &mut text)?
        }
        _ => {
            let field = arrow::datatypes::Field::new("", array.data_type().clone(), true);
            write_text(&field, array.as_ref(), row, &mut text)?;
        }
    }
    Ok(Some(String::from_utf8_lossy(&text).into_owned()))
}

/// A text as a literal; with backslashes it is one with escapes.
pub(super) fn literal(text: &str) -> String {
    match text.contains('\\') {
        true => format!("E{}", quote_literal(&text.replace('\\', "\\\\"))),
        false => quote_literal(text),
    }
}

fn quoted(call: &Call<'_>, null: Option<&str>) -> Result<ArrayRef> {
    call.texts_of(|row| {
        Ok(match text_of(call, 0, row)? {
            Some(text) => Some(literal(&text)),
            None => null.map(str::to_string),
        })
    })
}

/// Text with `\\0041`, `\\+000041`, `\\u0041` and `\\U00000041` as the characters that they name.
fn unescaped(text: &str) -> Result<String> {
    let invalid = || {
        Error::new(SqlState("42601"), "invalid Unicode escape")
            .with_hint("Unicode escapes must be \\XXXX, \\+XXXXXX, \\uXXXX, or \\UXXXXXXXX.")
    };
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('\\') {
            out.push('\\');
            rest = after;
            continue;
        }
        let (start, digits) = match rest.as_bytes().first() {
            Some(b'+') => (1, 6),
            Some(b'u') => (1, 4),
            Some(b'U') => (1, 8),
            _ => (0, 4),
        };
        let hex = rest.get(start..start + digits).ok_or_else(invalid)?;
        if !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(invalid());
        }
        let code = u32::from_str_radix(hex, 16).map_err(|_| invalid())?;
        out.push(
            char::from_u32(code)
                .ok_or_else(|| Error::new(SqlState::INVALID_PARAMETER_VALUE, "invalid Unicode code point"))?,
        );
        rest = &rest[start + digits..];
    }
    out.push_str(rest);
    Ok(out)
}

/// The parts of a qualified name; what follows the last one is passed over unless `strict`.
fn identifiers(text: &str, strict: bool) -> Result<Vec<String>> {
    let invalid = || {
        Error::new(SqlState::INVALID_PARAMETER_VALUE, format!("string is not a valid identifier: \"{text}\""))
    };
    let mut parts = Vec::new();
    let mut rest = text.trim_start();
    loop {
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut name = String::new();
            let mut after = quoted;
            loop {
                let end = after
                    .find('"')
                    .ok_or_else(|| invalid().with_detail("String has unclosed double quotes."))?;
                name.push_str(&after[..end]);
                after = &after[end + 1..];
                match after.strip_prefix('"') {
                    Some(more) => {
                        name.push('"');
                        after = more;
                    }
                    None => break,
                }
            }
            if name.is_empty() {
                return Err(invalid().with_detail("Quoted identifier must not be empty."));
            }
            parts.push(name);
            rest = after;
        } else {
            let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$') || !c.is_ascii();
            let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
            if end == 0 || rest.starts_with(|c: char| c.is_ascii_digit() || c == '$') {
                return Err(match parts.is_empty() {
                    true => invalid(),
                    false => invalid().with_detail("No valid identifier after \".\"."),
                });
            }
            parts.push(fold_str(&rest[..end]));
            rest = &rest[end..];
        }
        rest = rest.trim_start();
        match rest.strip_prefix('.') {
            Some(after) => rest = after.trim_start(),
            None if rest.is_empty() || !strict => return Ok(parts),
            None => return Err(invalid()),
        }
    }
}

fn to_hex(call: &Call<'_>) -> Result<ArrayRef> {
    if let Ok(numbers) = call.int4(0) {
        return call.texts(|row| Ok(Some(format!("{:x}", numbers.value(row)))));
    }
    let numbers = arrow::compute::cast(call.array(0)?, &DataType::Int64)?;
    let numbers = numbers.as_primitive::<Int64Type>();
    call.texts(|row| Ok(Some(format!("{:x}", numbers.value(row)))))
}

fn unknown_encoding(name: &str) -> Error {
    Error::new(SqlState::INVALID_PARAMETER_VALUE, format!("unrecognized encoding: \"{name}\""))
}

fn encode(call: &Call<'_>) -> Result<ArrayRef> {
    let (values, formats) = (call.bytea(0)?, call.text(1)?);
    call.texts(|row| {
        let bytes = values.value(row);
        Ok(Some(match formats.value(row).to_ascii_lowercase().as_str() {
            "hex" => hex::encode(bytes),
            "base64" => {
                let all = base64::engine::general_purpose::STANDARD.encode(bytes);
                // MIME's lines.
                let lines: Vec<&str> =
                    (0..all.len()).step_by(76).map(|i| &all[i..(i + 76).min(all.len())]).collect();
                lines.join("\n")
            }
            "escape" => {
                let mut out = String::with_capacity(bytes.len());
                for byte in bytes {
                    match byte {
                        b'\\' => out.push_str("\\\\"),
                        0 | 0x80.. => out.push_str(&format!("\\{byte:03o}")),
                        other => out.push(char::from(*other)),
                    }
                }
                out
            }
            _ => return Err(unknown_encoding(formats.value(row))),
        }))
    })
}

fn decode(call: &Call<'_>) -> Result<ArrayRef> {
    let (texts, formats) = (call.text(0)?, call.text(1)?);
    call.bytes(|row| {
        let compact =
            || -> String { texts.value(row).chars().filter(|c| !c.is_ascii_whitespace()).collect() };
        let refused = |what: &str| Error::new(SqlState::INVALID_PARAMETER_VALUE, what.to_string());
        Ok(Some(match formats.value(row).to_ascii_lowercase().as_str() {
            "hex" => hex::decode(compact()).map_err(|e| match e {
                hex::FromHexError::InvalidHexCharacter { c, .. } => {
                    refused(&format!("invalid hexadecimal digit: \"{c}\""))
                }
                _ => refused("invalid hexadecimal data: odd number of digits"),
            })?,
            "base64" => base64::engine::general_purpose::STANDARD
                .decode(compact())
                .map_err(|_| refused("invalid symbol found while decoding base64 sequence"))?,
            "escape" => match texts.value(row) {
                text if text.starts_with("\\x") => {
                    return Err(refused("invalid input syntax for type bytea"));
                }
                text => parse_bytea(text)?,
            },
            _ => return Err(unknown_encoding(formats.value(row))),
        }))
    })
}

/// The place of a byte that must be there.
fn byte_at(index: i32, length: usize) -> Result<usize> {
    usize::try_from(index).ok().filter(|i| *i < length).ok_or_else(|| {
        let last = length as i64 - 1;
        Error::new(SqlState("2202E"), format!("index {index} out of valid range, 0..{last}"))
    })
}

fn get_byte(call: &Call<'_>) -> Result<ArrayRef> {
    let (values, places) = (call.bytea(0)?, call.int4(1)?);
    call.values::<Int32Type>(|row| {
        let bytes = values.value(row);
        Ok(Some(bytes[byte_at(places.value(row), bytes.len())?].into()))
    })
}

fn set_byte(call: &Call<'_>) -> Result<ArrayRef> {
    let (values, places, new) = (call.bytea(0)?, call.int4(1)?, call.int4(2)?);
    call.bytes(|row| {
        let mut bytes = values.value(row).to_vec();
        let place = byte_at(places.value(row), bytes.len())?;
        // The lowest eight bits count.
        bytes[place] = new.value(row) as u8;
        Ok(Some(bytes))
    })
}

fn byte_position(call: &Call<'_>) -> Result<ArrayRef> {
    let (values, parts) = (call.bytea(0)?, call.bytea(1)?);
    call.values::<Int32Type>(|row| {
        let (bytes, part) = (values.value(row), parts.value(row));
        if part.is_empty() {
            return Ok(Some(1));
        }
        let found = bytes.windows(part.len()).position(|w| w == part);
        // A value has less than 2³¹ bytes.
        Ok(Some(found.map_or(0, |at| at as i32 + 1)))
    })
}

fn string_to_array(call: &Call<'_>) -> Result<ArrayRef> {
    let (texts, separators) = (call.text(0)?, call.text(1)?);
    let nulls = match call.arrays.len() {
        3 => Some(call.text(2)?),
        _ => None,
    };
    let lists = Call { arrays: &call.arrays[..1], ..*call };
    lists.text_lists(|row| {
        let text = texts.value(row);
        let is_null = |part: &str| nulls.is_some_and(|n| n.is_valid(row) && n.value(row) == part);
        let parts: Vec<String> = if text.is_empty() {
            vec![]
        } else if separators.is_null(row) {
            text.chars().map(String::from).collect()
        } else if separators.value(row).is_empty() {
            vec![text.to_string()]
        } else {
            text.split(separators.value(row)).map(str::to_string).collect()
        };
        Ok(Some(parts.into_iter().map(|p| if is_null(&p) { None } else { Some(p) }).collect()))
    })
}

/// The number of a value's bytes that are not zero, for `bit_count`.
pub(super) fn bit_count(call: &Call<'_>) -> Result<ArrayRef> {
    let values = call.bytea(0)?;
    call.values::<Int64Type>(|row| {
        Ok(Some(values.value(row).iter().map(|b| i64::from(b.count_ones())).sum()))
    })
}
