//! Avro data into rows and columns. The data are written by `defaults`, which shares only schemas with the reading side;
//! data of other writers are in `tests/kafka.rs`.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Decimal128Type, Float32Type, Int32Type, Int64Type};
use serde_json::{Value, json};

use super::*;
use crate::connectors::FormatSpec;
use crate::connectors::OptionValue;
use crate::connectors::format::Format;
use crate::connectors::format::encode::{RowWriter, member_names};
use crate::connectors::format::rows::RowsBuilder;
use crate::types::SqlType;

fn options(schema: &Value) -> AvroOptions {
    let options = vec![("schema".to_string(), OptionValue::Literal(schema.to_string()))];
    match Format::new(Some(&FormatSpec { name: "avro".into(), options })) {
        Ok(Format::Avro(options)) => *options,
        other => panic!("{other:?}"),
    }
}

fn encoded(schema: &Value, datum: &Value) -> Vec<u8> {
    let schema = Schema::parse(&schema.to_string(), &[]).unwrap();
    let mut bytes = Vec::new();
    defaults::write(datum, &schema.root, &schema, &mut bytes).expect("a datum of the schema");
    bytes
}

/// Reads a datum into columns.
fn read(
    columns: &[(&str, SqlType)],
    schema: &Value,
    bytes: &[u8],
) -> std::result::Result<RecordBatch, String> {
    let fields: Vec<_> = columns.iter().map(|(name, t)| t.field(*name, true)).collect();
    let columns = Arc::new(Columns::new(fields));
    let mut reader = AvroReader::new(&columns, Part::Value, &options(schema)).unwrap();
    let mut rows = RowsBuilder::new(Arc::clone(&columns)).unwrap();
    let row = reader.read(bytes).map_err(|e| e.reason)?;
    rows.push_cells(&[], |i| row.cell(i, "")).map_err(|e| format!("{}: {}", e.column, e.error.message))?;
    Ok(rows.finish().unwrap())
}

fn shown(batch: &RecordBatch) -> Value {
    let members = member_names(batch.schema_ref());
    let mut text = String::new();
    RowWriter::new(batch, &members).unwrap().write_json(0, &mut text);
    serde_json::from_str(&text).unwrap()
}

fn record(fields: Value) -> Value {
    json!({"type": "record", "name": "R", "fields": fields})
}

#[test]
fn every_type_has_its_column() {
    let schema = record(json!([
        {"name": "passed", "type": {"type": "map", "values": ["null", "string"]}},
        {"name": "b", "type": "boolean"},
        {"name": "i", "type": "int"},
        {"name": "l", "type": ["null", "long"]},
        {"name": "f", "type": "float"},
        {"name": "d", "type": "double"},
        {"name": "s", "type": "string"},
        {"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["A", "B"]}},
        {"name": "y", "type": "bytes"},
        {"name": "n", "type": {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "time", "type": {"type": "int", "logicalType": "time-millis"}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "local", "type": {"type": "long", "logicalType": "local-timestamp-millis"}},
        {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "list", "type": {"type": "array", "items": ["null", "string"]}},
        {"name": "nested", "type": {"type": "record", "name": "N", "fields": [
            {"name": "x", "type": ["int", "string"]}, {"name": "m", "type": {"type": "map", "values": "E"}}]}},
    ]));
    let datum = json!({
        "passed": {"k": null}, "b": true, "i": -5, "l": 1i64 << 40, "f": 0.5, "d": 0.1, "s": "é", "e": "B",
        "y": "\u{1}\u{ff}", "n": "\u{fb}\u{2e}", "day": 19_782, "time": 3_600_001, "at": 1_709_164_800_250_000i64,
        "local": 1_709_164_800_001i64, "id": "AAAAAAAA-0000-0000-0000-000000000001", "list": ["a\"", null],
        "nested": {"x": "q", "m": {"k": "A"}},
    });
    let columns = [
        ("b", SqlType::Bool),
        ("i", SqlType::Int4),
        ("l", SqlType::Int8),
        ("f", SqlType::Float4),
        ("d", SqlType::Float8),
        ("s", SqlType::Text),
        ("e", SqlType::Text),
        ("y", SqlType::Bytea),
        ("n", SqlType::Numeric(Some((6, 2)))),
        ("day", SqlType::Date),
        ("time", SqlType::Time),
        ("at", SqlType::Timestamptz),
        ("local", SqlType::Timestamp),
        ("id", SqlType::Uuid),
        ("list", SqlType::Array(Box::new(SqlType::Text))),
        ("nested", SqlType::Jsonb),
        ("absent", SqlType::Text),
    ];
    let batch = read(&columns, &schema, &encoded(&schema, &datum)).unwrap();
    assert_eq!(
        shown(&batch),
        json!({
            "b": true, "i": -5, "l": 1i64 << 40, "f": 0.5, "d": 0.1, "s": "é", "e": "B", "y": "\\x01ff", "n": -12.34,
            "day": "2024-02-29", "time": "01:00:00.001", "at": "2024-02-29T00:00:00.25+00:00",
            "local": "2024-02-29T00:00:00.001", "id": "aaaaaaaa-0000-0000-0000-000000000001", "list": ["a\"", null],
            "nested": {"m": {"k": "A"}, "x": "q"}, "absent": null,
        })
    );
    assert_eq!(batch.column(1).as_primitive::<Int32Type>().value(0), -5);
    assert_eq!(batch.column(3).as_primitive::<Float32Type>().value(0), 0.5);
    assert_eq!(batch.column(8).as_primitive::<Decimal128Type>().value(0), -1234);
}

#[test]
fn a_column_may_have_another_type_that_holds_the_value() {
    let schema = record(json!([
        {"name": "i", "type": "long"},
        {"name": "d", "type": {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "y", "type": "bytes"},
    ]));
    let datum = json!({"i": 7, "d": "\u{4}\u{d2}", "day": 1, "y": "text"});
    let bytes = encoded(&schema, &datum);
    let text = [("i", SqlType::Text), ("d", SqlType::Text), ("day", SqlType::Text), ("y", SqlType::Text)];
    assert_eq!(
        shown(&read(&text, &schema, &bytes).unwrap()),
        json!({"i": "7", "d": "12.34", "day": "1970-01-02", "y": "text"})
    );
    let json_columns = [("i", SqlType::Jsonb), ("d", SqlType::Jsonb), ("day", SqlType::Jsonb)];
    assert_eq!(
        shown(&read(&json_columns, &schema, &bytes).unwrap()),
        json!({"i": 7, "d": 12.34, "day": "1970-01-02"})
    );
    let other = [("i", SqlType::Int2), ("d", SqlType::Float8), ("day", SqlType::Date)];
    assert_eq!(
        shown(&read(&other, &schema, &bytes).unwrap()),
        json!({"i": 7, "d": 12.34, "day": "1970-01-02"})
    );
    let wrong = read(&[("y", SqlType::Int4)], &schema, &bytes).unwrap_err();
    assert!(wrong.starts_with("y: invalid input syntax for type integer"), "{wrong}");
    let large = encoded(&schema, &json!({"i": 40_000, "d": "\u{4}", "day": 1, "y": ""}));
    assert!(read(&[("i", SqlType::Int2)], &schema, &large).unwrap_err().contains("out of range"));
}

#[test]
fn the_only_column_takes_the_whole_datum() {
    let schema =
        record(json!([{"name": "a", "type": "int"}, {"name": "b", "type": {"type": "array", "items": "R"}}]));
    let bytes = encoded(&schema, &json!({"a": 1, "b": [{"a": 2, "b": []}]}));
    let batch = read(&[("doc", SqlType::Jsonb)], &schema, &bytes).unwrap();
    assert_eq!(shown(&batch), json!({"doc": {"a": 1, "b": [{"a": 2, "b": []}]}}));
    let batch = read(&[("id", SqlType::Int8)], &json!("long"), &encoded(&json!("long"), &json!(-3))).unwrap();
    assert_eq!(batch.column(0).as_primitive::<Int64Type>().value(0), -3);
}

#[test]
fn what_is_no_datum_of_the_schema_says_where() {
    let schema = record(json!([
        {"name": "u", "type": ["null", "string"]},
        {"name": "l", "type": {"type": "array", "items": "null"}},
        {"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["A"]}},
    ]));
    let columns = [("u", SqlType::Text), ("l", SqlType::Jsonb), ("e", SqlType::Text)];
    let check = |bytes: &[u8], why: &str| {
        let error = read(&columns, &schema, bytes).unwrap_err();
        assert_eq!(error, format!("invalid Avro: {why}"), "{bytes:?}");
    };
    assert!(read(&columns, &schema, &[0, 0, 0]).is_ok());
    check(&[], "the record ends too early (byte 0)");
    check(&[4], "a union has no such branch (byte 1)");
    check(&[2, 10, b'a'], "the record ends too early (byte 2)");
    check(&[2, 1], "a length is negative (byte 2)");
    check(&[2, 2, 0xff, 0, 0], "a string is no UTF-8, or has a zero byte (byte 3)");
    check(&[0, 0, 4], "an enum has no such symbol (byte 3)");
    check(&[0, 0, 0, 9], "bytes behind the record's end (byte 3)");
    check(&[0xff; 12], "an integer is too long (byte 10)");
    // 2^62 nulls in ten bytes.
    let mut bomb = vec![0];
    defaults::write_long(1 << 62, &mut bomb);
    bomb.push(0);
    check(&bomb, "too many items of no bytes (byte 11)");
}

#[test]
fn no_bytes_panic() {
    let schema = record(json!([
        {"name": "a", "type": ["null", "R", {"type": "map", "values": ["bytes", "double"]}]},
        {"name": "b", "type": {"type": "fixed", "name": "F", "size": 12, "logicalType": "duration"}},
        {"name": "c", "type": {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 1}},
        {"name": "d", "type": {"type": "long", "logicalType": "time-micros"}},
    ]));
    let columns = [
        ("a", SqlType::Jsonb),
        ("b", SqlType::Interval),
        ("c", SqlType::Numeric(None)),
        ("d", SqlType::Time),
    ];
    let mut state = 1u64;
    for _ in 0..5_000 {
        let bytes: Vec<u8> = (0..40)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                // Mostly small numbers: branches, lengths.
                let byte = (state >> 56) as u8;
                if state >> 33 & 3 == 0 { byte } else { byte % 6 }
            })
            .collect();
        let _ = read(&columns, &schema, &bytes);
    }
}
