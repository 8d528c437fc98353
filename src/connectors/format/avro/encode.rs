//! Rows as Avro data, for sinks: the schema of some columns, and their values by it.

use arrow::array::Array;
use arrow::datatypes::Field;
use serde_json::{Value, json};

pub use super::defaults::{write_bytes, write_long};
use crate::connectors::format::encode::Column;
use crate::error::{Error, Result, SqlState};
use crate::types::SqlType;

/// The schema of a record of these columns. Columns that may be NULL are unions with null, null being their default.
///
/// # Errors
/// 22023 for a column whose name cannot be a field's; 0A000 for a type that is not written.
pub fn schema_of<'a>(name: &str, columns: impl IntoIterator<Item = &'a Field>) -> Result<Value> {
    let mut fields = Vec::new();
    for column in columns {
        check_name(column.name())?;
        let of = type_of(&SqlType::of(column))?;
        fields.push(match column.is_nullable() {
            true => json!({"name": column.name(), "type": ["null", of], "default": null}),
            false => json!({"name": column.name(), "type": of}),
        });
    }
    let (namespace, name) = name.rsplit_once('.').unwrap_or(("", name));
    let mut record = json!({"type": "record", "name": name, "fields": fields});
    if !namespace.is_empty() {
        record["namespace"] = json!(namespace);
    }
    Ok(record)
}

/// The schema of Debezium's change events of such records.
pub fn envelope_of(name: &str, row: &Value) -> Value {
    let (namespace, _) = name.rsplit_once('.').unwrap_or(("", name));
    let member = |m: &str| row.get(m).and_then(Value::as_str).unwrap_or_default();
    let row_name = match member("namespace") {
        "" => member("name").to_string(),
        namespace => format!("{namespace}.{}", member("name")),
    };
    let mut envelope = json!({"type": "record", "name": "Envelope", "fields": [
        {"name": "before", "type": ["null", row], "default": null},
        {"name": "after", "type": ["null", row_name], "default": null},
        {"name": "op", "type": "string"},
        {"name": "ts_ms", "type": ["null", "long"], "default": null},
    ]});
    if !namespace.is_empty() {
        envelope["namespace"] = json!(namespace);
    }
    envelope
}

/// Whether a name may be a field's, in Avro and in Protobuf.
///
/// # Errors
/// 22023.
pub fn check_name(name: &str) -> Result<()> {
    let valid = |(i, b): (usize, u8)| b == b'_' || b.is_ascii_alphabetic() || (i > 0 && b.is_ascii_digit());
    if !name.is_empty() && name.bytes().enumerate().all(valid) {
        return Ok(());
    }
    Err(Error::new(
        SqlState::INVALID_PARAMETER_VALUE,
        format!("column \"{name}\" cannot be a field of Avro or Protobuf by this name"),
    )
    .with_hint("Names have letters, digits and underscores: rename the column in a view."))
}

fn type_of(of: &SqlType) -> Result<Value> {
    let logical = |kind: &str, logical: &str| json!({"type": kind, "logicalType": logical});
    Ok(match of {
        SqlType::Bool => json!("boolean"),
        SqlType::Int2 | SqlType::Int4 => json!("int"),
        SqlType::Int8 => json!("long"),
        SqlType::Float4 => json!("float"),
        SqlType::Float8 => json!("double"),
        SqlType::Numeric(_) => {
            let arrow::datatypes::DataType::Decimal128(precision, scale) = of.arrow() else {
                return Err(Error::internal("a numeric column that is none"));
            };
            json!({"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale})
        }
        SqlType::Text | SqlType::Varchar(_) | SqlType::Char(_) | SqlType::Interval => json!("string"),
        SqlType::Uuid => logical("string", "uuid"),
        // What readers of Debezium's events know for a document.
        SqlType::Json | SqlType::Jsonb => json!({"type": "string", "connect.name": "io.debezium.data.Json"}),
        SqlType::Bytea => json!("bytes"),
        SqlType::Date => logical("int", "date"),
        SqlType::Time => logical("long", "time-micros"),
        SqlType::Timestamp => logical("long", "local-timestamp-micros"),
        SqlType::Timestamptz => logical("long", "timestamp-micros"),
        SqlType::Array(item) => json!({"type": "array", "items": ["null", type_of(item)?]}),
        other => return Err(Error::unsupported(format!("a column of type {other} in Avro"))),
    })
}

impl Column<'_> {
    /// Appends a value; where `nullable`, as that of a union with null.
    pub(in crate::connectors::format) fn write_avro(&self, row: usize, nullable: bool, out: &mut Vec<u8>) {
        if nullable {
            let is_null = self.is_null(row);
            out.push(if is_null { 0 } else { 2 });
            if is_null {
                return;
            }
        }
        match self {
            Column::Boolean(a) => out.push(u8::from(a.value(row))),
            Column::Int16(a) => write_long(i64::from(a.value(row)), out),
            Column::Int32(a) => write_long(i64::from(a.value(row)), out),
            Column::Int64(a) => write_long(a.value(row), out),
            Column::Float32(a) => out.extend_from_slice(&a.value(row).to_le_bytes()),
            Column::Float64(a) => out.extend_from_slice(&a.value(row).to_le_bytes()),
            Column::Decimal(a, _) => write_bytes(shortest(&a.value(row).to_be_bytes()), out),
            Column::Text(a) | Column::Json(a) => write_bytes(a.value(row).as_bytes(), out),
            Column::Bytea(a) => write_bytes(a.value(row), out),
            Column::Date(a) => write_long(i64::from(a.value(row)), out),
            Column::Time(a) => write_long(a.value(row), out),
            Column::Timestamp(a, _) => write_long(a.value(row), out),
            Column::Interval(_) => {
                let mut text = String::new();
                self.write_plain(row, ' ', &mut text);
                write_bytes(text.as_bytes(), out);
            }
            Column::List(list, items) => {
                let offsets = list.value_offsets();
                let (from, to) = (offsets[row] as usize, offsets[row + 1] as usize);
                if to > from {
                    write_long((to - from) as i64, out);
                    for item in from..to {
                        items.write_avro(item, true, out);
                    }
                }
                out.push(0);
                debug_assert!(to <= list.values().len());
            }
        }
    }
}

/// A number's bytes without those at the front that its sign implies.
fn shortest(bytes: &[u8]) -> &[u8] {
    let mut bytes = bytes;
    while let [first @ (0 | 0xff), rest @ ..] = bytes
        && let Some(next) = rest.first()
        && (next & 0x80 == first & 0x80)
    {
        bytes = rest;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_as_short_as_can_be() {
        for (n, expected) in [
            (0i128, &[0][..]),
            (127, &[0x7f]),
            (128, &[0, 0x80]),
            (-1, &[0xff]),
            (-129, &[0xff, 0x7f]),
            (-128, &[0x80]),
        ] {
            assert_eq!(shortest(&n.to_be_bytes()), expected, "{n}");
        }
    }

    #[test]
    fn names_are_checked() {
        assert!(check_name("a_1").is_ok());
        for name in ["", "1a", "a b", "é"] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
