//! Rows as Protobuf messages, for sinks: the .proto text of some columns, and their values by it.

use arrow::datatypes::Field;

use crate::connectors::format::avro::encode::check_name;
use crate::connectors::format::encode::Column;
use crate::error::{Error, Result};
use crate::types::SqlType;

/// The text of a file with one message of these columns; or, for `envelope`, with Debezium's change events of such.
/// Fields are numbered as the columns are; all are optional, so that NULL can be told.
///
/// # Errors
/// 22023 for a column whose name cannot be a field's; 0A000 for a type that is not written.
pub fn schema_of<'a>(
    name: &str,
    columns: impl IntoIterator<Item = &'a Field>,
    envelope: bool,
) -> Result<String> {
    let (package, name) = name.rsplit_once('.').unwrap_or(("", name));
    let mut fields = String::new();
    for (i, column) in columns.into_iter().enumerate() {
        check_name(column.name())?;
        let of = type_of(&SqlType::of(column))?;
        // Messages are optional without being told so.
        let optional = if of.starts_with("google") { "" } else { "optional " };
        fields.push_str(&format!("  {optional}{of} {} = {};\n", column.name(), i + 1));
    }
    let mut text = "syntax = \"proto3\";\n".to_string();
    if !package.is_empty() {
        text.push_str(&format!("package {package};\n"));
    }
    if fields.contains("google.protobuf.Timestamp") {
        text.push_str("import \"google/protobuf/timestamp.proto\";\n");
    }
    if envelope {
        text.push_str(&format!(
            "message Envelope {{\n  {name} before = 1;\n  {name} after = 2;\n  string op = 3;\n  int64 ts_ms = 4;\n}}\n"
        ));
    }
    text.push_str(&format!("message {name} {{\n{fields}}}\n"));
    Ok(text)
}

fn type_of(of: &SqlType) -> Result<&'static str> {
    Ok(match of {
        SqlType::Bool => "bool",
        SqlType::Int2 | SqlType::Int4 => "int32",
        SqlType::Int8 => "int64",
        SqlType::Float4 => "float",
        SqlType::Float8 => "double",
        SqlType::Bytea => "bytes",
        SqlType::Timestamptz => "google.protobuf.Timestamp",
        SqlType::Numeric(_)
        | SqlType::Text
        | SqlType::Varchar(_)
        | SqlType::Char(_)
        | SqlType::Uuid
        | SqlType::Json
        | SqlType::Jsonb
        | SqlType::Date
        | SqlType::Time
        | SqlType::Timestamp
        | SqlType::Interval => "string",
        other => {
            return Err(Error::unsupported(format!("a column of type {other} in Protobuf"))
                .with_hint("Cast it to jsonb or text in a view."));
        }
    })
}

/// Appends a variable-length integer.
pub fn write_varint(value: u64, out: &mut Vec<u8>) {
    let mut n = value;
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Appends a field of bytes.
pub fn write_field(number: usize, bytes: &[u8], out: &mut Vec<u8>) {
    write_varint((number as u64) << 3 | 2, out);
    write_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Appends a field of a whole number.
pub fn write_integer(number: usize, value: i64, out: &mut Vec<u8>) {
    write_varint((number as u64) << 3, out);
    write_varint(value as u64, out);
}

impl Column<'_> {
    /// Appends a value as the field of this number; NULL is no field.
    pub(in crate::connectors::format) fn write_protobuf(&self, row: usize, number: usize, out: &mut Vec<u8>) {
        if self.is_null(row) {
            return;
        }
        match self {
            Column::Boolean(a) => write_integer(number, i64::from(a.value(row)), out),
            Column::Int16(a) => write_integer(number, i64::from(a.value(row)), out),
            Column::Int32(a) => write_integer(number, i64::from(a.value(row)), out),
            Column::Int64(a) => write_integer(number, a.value(row), out),
            Column::Float32(a) => {
                write_varint((number as u64) << 3 | 5, out);
                out.extend_from_slice(&a.value(row).to_le_bytes());
            }
            Column::Float64(a) => {
                write_varint((number as u64) << 3 | 1, out);
                out.extend_from_slice(&a.value(row).to_le_bytes());
            }
            Column::Bytea(a) => write_field(number, a.value(row), out),
            Column::Text(a) | Column::Json(a) => write_field(number, a.value(row).as_bytes(), out),
            Column::Timestamp(a, true) => {
                let micros = a.value(row);
                let mut moment = Vec::with_capacity(16);
                write_integer(1, micros.div_euclid(1_000_000), &mut moment);
                write_integer(2, micros.rem_euclid(1_000_000) * 1000, &mut moment);
                write_field(number, &moment, out);
            }
            Column::Decimal(..)
            | Column::Date(_)
            | Column::Time(_)
            | Column::Timestamp(..)
            | Column::Interval(_)
            | Column::List(..) => {
                let mut text = String::new();
                self.write_plain(row, ' ', &mut text);
                write_field(number, text.as_bytes(), out);
            }
        }
    }
}
