//! Documents of MongoDB as Debezium's connector tells them: the row after (and before) is the text of a document in
//! MongoDB's extended JSON, and the record's key has the text of its `_id`.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value};

use crate::connectors::format::cell::{FieldNames, Row, Slot, Typed};
use crate::connectors::format::{datetime, number};

/// Puts a document's members into the columns of their names; `None` when the text is no document.
pub fn read_document(text: &str, names: &mut FieldNames, row: &mut Row) -> Option<()> {
    let Ok(Value::Object(members)) = serde_json::from_str::<Value>(text) else { return None };
    for exactly in [false, true] {
        for (i, (name, value)) in members.iter().enumerate() {
            if let Some((column, exact)) = names.find(name, i)
                && exact == exactly
            {
                let slot = slot_of(value, row);
                row.set(column, slot);
            }
        }
    }
    Some(())
}

/// Puts the value that a key's member `id` holds, as text of extended JSON, into a column.
pub fn read_id(text: &str, column: usize, row: &mut Row) -> Option<()> {
    let value: Value = serde_json::from_str(text).ok()?;
    let slot = slot_of(&value, row);
    row.set(column, slot);
    Some(())
}

fn slot_of(value: &Value, row: &mut Row) -> Slot {
    let text = |text: &str, row: &mut Row| {
        let start = row.unescaped.len();
        row.unescaped.push_str(text);
        start..row.unescaped.len()
    };
    match value {
        Value::Null => Slot::Null,
        Value::Bool(b) => Slot::Bool(*b),
        Value::Number(n) => match (n.as_i64(), n.as_f64()) {
            (Some(n), _) => Slot::Typed(Typed::Integer(n)),
            (None, Some(x)) => Slot::Typed(Typed::Float(x)),
            _ => Slot::Unescaped(text(&n.to_string(), row).into()),
        },
        Value::String(string) => Slot::Unescaped(text(string, row).into()),
        Value::Object(members) if let Some(slot) = extended(members, row) => slot,
        Value::Object(_) | Value::Array(_) => Slot::Written(text(&plain(value).to_string(), row).into()),
    }
}

/// The value that an object of extended JSON stands for, if it is one.
fn extended(members: &Map<String, Value>, row: &mut Row) -> Option<Slot> {
    let (name, value) = members.iter().next().filter(|_| members.len() == 1)?;
    let integer = |v: &Value| v.as_i64().or_else(|| v.as_str()?.parse().ok());
    Some(match name.as_str() {
        "$numberDecimal" => {
            let (unscaled, scale) = decimal(value.as_str()?)?;
            Slot::Typed(Typed::Decimal(unscaled, scale))
        }
        "$oid" | "$uuid" | "$symbol" => {
            let start = row.unescaped.len();
            row.unescaped.push_str(value.as_str()?);
            Slot::Unescaped((start..row.unescaped.len()).into())
        }
        "$numberLong" | "$numberInt" => Slot::Typed(Typed::Integer(integer(value)?)),
        "$numberDouble" => {
            Slot::Typed(Typed::Float(value.as_f64().or_else(|| value.as_str()?.parse().ok())?))
        }
        "$date" => {
            let millis = integer(value).or_else(|| integer(value.get("$numberLong")?));
            let micros = match millis {
                Some(millis) => millis.checked_mul(1000)?,
                None => {
                    let (local, offset) = datetime::parse_timestamp(value.as_str()?)?;
                    local.checked_sub(offset.unwrap_or(0))?
                }
            };
            Slot::Typed(Typed::Timestamp(micros, true))
        }
        "$timestamp" => {
            Slot::Typed(Typed::Timestamp(integer(value.get("t")?)?.checked_mul(1_000_000)?, true))
        }
        "$binary" => {
            let bytes = BASE64_STANDARD.decode(value.get("base64")?.as_str()?).ok()?;
            let start = row.bytes.len();
            row.bytes.extend_from_slice(&bytes);
            Slot::Bytes((start..row.bytes.len()).into())
        }
        _ => return None,
    })
}

/// A decimal with as many digits behind the point as its text has.
fn decimal(text: &str) -> Option<(i128, i32)> {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let digits = mantissa.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    let exponent: i32 = exponent.trim_start_matches('+').parse().ok()?;
    let scale = i32::try_from(digits).ok()?.checked_sub(exponent)?.clamp(0, 38);
    Some((number::parse_decimal(text, 38, i8::try_from(scale).ok()?).ok()?, scale))
}

/// A nested value without the marks of extended JSON, where JSON has the type.
fn plain(value: &Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.iter().map(plain).collect()),
        Value::Object(members) => {
            let mut scratch = Row::new(1);
            match extended(members, &mut scratch) {
                Some(Slot::Typed(Typed::Integer(n))) => Value::from(n),
                Some(Slot::Typed(Typed::Float(x))) => Value::from(x),
                Some(Slot::Typed(Typed::Timestamp(micros, _))) => {
                    let mut text = String::new();
                    datetime::write_timestamp(micros, 'T', &mut text);
                    Value::from(text + "+00:00")
                }
                Some(Slot::Unescaped(_)) => Value::from(scratch.unescaped),
                Some(_) => members.values().next().cloned().unwrap_or_default(),
                None => Value::Object(members.iter().map(|(k, v)| (k.clone(), plain(v))).collect()),
            }
        }
        other => other.clone(),
    }
}
