//! Functions of `bytea` and of what is trimmed from texts and bytes alike.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, Int32Type};
use datafusion::logical_expr::ScalarUDF;

use super::define::{Arg, Call, Definition, Gives};
use crate::error::{Error, Result, SqlState};

use Arg::{Bytea, Int4, Int8, Text};

const fn trimmer(name: &'static str, evaluate: fn(&Call<'_>) -> Result<ArrayRef>) -> Definition {
    let forms: &[&[Arg]] = &[&[Text], &[Text, Text], &[Bytea, Bytea]];
    Definition { name, forms, variadic: false, gives: Gives::Plain(0), evaluate }
}

const DEFINITIONS: [Definition; 7] = [
    trimmer("btrim", |call| trim(call, true, true)),
    trimmer("ltrim", |call| trim(call, true, false)),
    trimmer("rtrim", |call| trim(call, false, true)),
    Definition {
        name: "convert_from",
        forms: &[&[Bytea, Text]],
        variadic: false,
        gives: Gives::Text,
        evaluate: |call| {
            let (bytes, encodings) = (call.bytea(0)?, call.text(1)?);
            call.texts(|row| decoded(bytes.value(row), encodings.value(row)).map(Some))
        },
    },
    Definition {
        name: "convert_to",
        forms: &[&[Text, Text]],
        variadic: false,
        gives: Gives::Bytea,
        evaluate: |call| {
            let (texts, encodings) = (call.text(0)?, call.text(1)?);
            call.bytes(|row| encoded(texts.value(row), encodings.value(row)).map(Some))
        },
    },
    Definition {
        name: "get_bit",
        forms: &[&[Bytea, Int8]],
        variadic: false,
        gives: Gives::Int4,
        evaluate: |call| {
            let (bytes, positions) = (call.bytea(0)?, call.int8(1)?);
            call.values::<Int32Type>(|row| {
                let (byte, bit) = place(bytes.value(row), positions.value(row))?;
                Ok(Some(i32::from(bytes.value(row)[byte] >> bit & 1)))
            })
        },
    },
    Definition {
        name: "set_bit",
        forms: &[&[Bytea, Int8, Int4]],
        variadic: false,
        gives: Gives::Bytea,
        evaluate: |call| {
            let (bytes, positions, values) = (call.bytea(0)?, call.int8(1)?, call.int4(2)?);
            call.bytes(|row| {
                let mut out = bytes.value(row).to_vec();
                let (byte, bit) = place(&out, positions.value(row))?;
                match values.value(row) {
                    0 => out[byte] &= !(1 << bit),
                    1 => out[byte] |= 1 << bit,
                    _ => {
                        return Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, "new bit must be 0 or 1"));
                    }
                }
                Ok(Some(out))
            })
        },
    },
];

/// The functions of this file.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    DEFINITIONS.into_iter().map(Definition::udf).collect()
}

/// Takes blanks, or the characters or bytes of the second argument, off the ends.
fn trim(call: &Call<'_>, start: bool, end: bool) -> Result<ArrayRef> {
    if *call.array(0)?.data_type() == DataType::Binary {
        let (values, sets) = (call.bytea(0)?, call.bytea(1)?);
        return call.bytes(|row| {
            let (mut value, set) = (values.value(row), sets.value(row));
            while let [first, rest @ ..] = value
                && start
                && set.contains(first)
            {
                value = rest;
            }
            while let [rest @ .., last] = value
                && end
                && set.contains(last)
            {
                value = rest;
            }
            Ok(Some(value.to_vec()))
        });
    }
    let values = call.text(0)?;
    let sets = if call.arrays.len() > 1 { Some(call.text(1)?) } else { None };
    call.texts(|row| {
        let set = sets.map_or(" ", |sets| sets.value(row));
        let mut value = values.value(row);
        if start {
            value = value.trim_start_matches(|c| set.contains(c));
        }
        if end {
            value = value.trim_end_matches(|c| set.contains(c));
        }
        Ok(Some(value))
    })
}

/// The byte and the bit in it that have a number; bits are counted from the lowest of the first byte.
fn place(bytes: &[u8], position: i64) -> Result<(usize, u32)> {
    let bits = bytes.len() as i64 * 8;
    if !(0..bits).contains(&position) {
        let message = format!("index {position} out of valid range, 0..{}", bits - 1);
        return Err(Error::new(SqlState("2202E"), message));
    }
    // Within the bytes, by the check above.
    Ok(((position / 8) as usize, (position % 8) as u32))
}

/// An encoding that is known by this name.
fn encoding(name: &str) -> Result<Encoding> {
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    match plain.to_ascii_lowercase().as_str() {
        "utf8" | "unicode" => Ok(Encoding::Utf8),
        "latin1" | "iso88591" => Ok(Encoding::Latin1),
        "sqlascii" => Ok(Encoding::Ascii),
        _ => Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, format!("invalid encoding name \"{name}\""))
            .with_hint("Encodings are UTF8, LATIN1 and SQL_ASCII.")),
    }
}

enum Encoding {
    Utf8,
    Latin1,
    Ascii,
}

fn decoded(bytes: &[u8], name: &str) -> Result<String> {
    match encoding(name)? {
        Encoding::Latin1 => Ok(bytes.iter().map(|b| char::from(*b)).collect()),
        Encoding::Utf8 | Encoding::Ascii => {
            let text = std::str::from_utf8(bytes).map_err(|e| {
                let at = e.valid_up_to();
                let byte = bytes.get(at).copied().unwrap_or_default();
                let message = format!("invalid byte sequence for encoding \"UTF8\": 0x{byte:02x}");
                Error::new(SqlState("22021"), message)
            })?;
            if text.contains('\0') {
                let message = "invalid byte sequence for encoding \"UTF8\": 0x00";
                return Err(Error::new(SqlState("22021"), message));
            }
            Ok(text.to_string())
        }
    }
}

fn encoded(text: &str, name: &str) -> Result<Vec<u8>> {
    match encoding(name)? {
        Encoding::Utf8 | Encoding::Ascii => Ok(text.as_bytes().to_vec()),
        Encoding::Latin1 => text
            .chars()
            .map(|c| {
                u8::try_from(u32::from(c)).map_err(|_| {
                    let message = format!("character \"{c}\" has no equivalent in encoding \"LATIN1\"");
                    Error::new(SqlState("22P05"), message)
                })
            })
            .collect(),
    }
}
