//! Defaults of a schema's fields, which are written there as JSON, in Avro's own encoding.

use serde_json::Value;

use super::schema::{Kind, Schema, Type};

/// Appends a default; `None` when it is no value of the type.
pub fn write(value: &Value, of: &Type, schema: &Schema, out: &mut Vec<u8>) -> Option<()> {
    match (&of.kind, value) {
        (Kind::Null, Value::Null) => (),
        (Kind::Boolean, Value::Bool(b)) => out.push(u8::from(*b)),
        (Kind::Int | Kind::Long, Value::Number(n)) => write_long(n.as_i64()?, out),
        (Kind::Float, Value::Number(n)) => out.extend_from_slice(&(n.as_f64()? as f32).to_le_bytes()),
        (Kind::Double, Value::Number(n)) => out.extend_from_slice(&n.as_f64()?.to_le_bytes()),
        (Kind::String, Value::String(text)) => write_bytes(text.as_bytes(), out),
        (Kind::Bytes, Value::String(text)) => write_bytes(&latin1(text)?, out),
        (Kind::Fixed(size), Value::String(text)) => {
            let bytes = latin1(text)?;
            if bytes.len() != *size {
                return None;
            }
            out.extend_from_slice(&bytes);
        }
        (Kind::Enum(symbols), Value::String(text)) => {
            write_long(symbols.iter().position(|s| s == text)? as i64, out);
        }
        (Kind::Array(item), Value::Array(values)) => {
            if !values.is_empty() {
                write_long(values.len() as i64, out);
            }
            for value in values {
                write(value, item, schema, out)?;
            }
            write_long(0, out);
        }
        (Kind::Map(item), Value::Object(members)) => {
            if !members.is_empty() {
                write_long(members.len() as i64, out);
            }
            for (name, value) in members {
                write_bytes(name.as_bytes(), out);
                write(value, item, schema, out)?;
            }
            write_long(0, out);
        }
        (Kind::Union(branches), value) => {
            // The first branch that takes it: the specification's first, or what newer ones allow.
            for (i, branch) in branches.iter().enumerate() {
                let start = out.len();
                write_long(i as i64, out);
                if write(value, branch, schema, out).is_some() {
                    return Some(());
                }
                out.truncate(start);
            }
            return None;
        }
        (Kind::Record(i), Value::Object(members)) => {
            for field in &schema.records.get(*i)?.fields {
                let value = members.get(&field.name).or(field.default.as_ref())?;
                write(value, &field.of, schema, out)?;
            }
        }
        _ => return None,
    }
    Some(())
}

/// Appends a variable-length integer.
pub fn write_long(value: i64, out: &mut Vec<u8>) {
    let mut n = ((value << 1) ^ (value >> 63)) as u64;
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Appends a length and bytes.
pub fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    write_long(bytes.len() as i64, out);
    out.extend_from_slice(bytes);
}

/// Bytes that a default has as characters of these codes.
fn latin1(text: &str) -> Option<Vec<u8>> {
    text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect()
}
