//! Messages into rows and columns. The messages are written by `prost-reflect`; messages of other writers are in
//! `tests/kafka.rs`.

use std::sync::Arc;

use prost_reflect::{DynamicMessage, prost::Message};
use serde_json::{Value, json};

use super::*;
use crate::connectors::format::Format;
use crate::connectors::format::encode::{RowWriter, member_names};
use crate::connectors::format::rows::RowsBuilder;
use crate::connectors::{FormatSpec, OptionValue};

const SCHEMA: &str = r#"
syntax = "proto3";
package shop;
import "google/protobuf/timestamp.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/wrappers.proto";
import "google/protobuf/struct.proto";
message Order {
  int64 id = 1;
  sint32 change = 2;
  uint64 large = 3;
  optional string note = 4;
  double price = 5;
  float share = 6;
  bytes raw = 7;
  bool paid = 8;
  State state = 9;
  google.protobuf.Timestamp at = 10;
  google.protobuf.Duration took = 11;
  google.protobuf.Int64Value maybe = 12;
  repeated string tags = 13;
  repeated int32 numbers = 14;
  map<string, Line> lines = 15;
  Line first = 16;
  google.protobuf.Struct more = 17;
  fixed32 f = 18;
  sfixed64 s = 19;
  string customerName = 100;
  enum State { OPEN = 0; CLOSED = 1; }
  message Line { int32 n = 1; optional State state = 2; google.protobuf.Timestamp at = 3; }
}
"#;

fn options() -> ProtobufOptions {
    let options = [("schema", SCHEMA), ("message", "shop.Order")];
    let options = options.map(|(n, v)| (n.to_string(), OptionValue::Literal(v.to_string()))).to_vec();
    match Format::new(Some(&FormatSpec { name: "protobuf".into(), options })) {
        Ok(Format::Protobuf(options)) => *options,
        other => panic!("{other:?}"),
    }
}

/// A message from its JSON, in bytes.
fn encoded(message: &Value) -> Vec<u8> {
    let descriptor = options().message(Part::Value).unwrap().unwrap();
    DynamicMessage::deserialize(descriptor, message).unwrap().encode_to_vec()
}

fn read(columns: Vec<Field>, bytes: &[u8]) -> std::result::Result<Value, String> {
    let columns = Arc::new(Columns::new(columns));
    let mut reader = ProtobufReader::new(&columns, Part::Value, &options()).unwrap();
    let mut rows = RowsBuilder::new(Arc::clone(&columns)).unwrap();
    let row = reader.read(bytes).map_err(|e| e.reason)?;
    rows.push_cells(&[], |i| row.cell(i, "")).map_err(|e| format!("{}: {}", e.column, e.error.message))?;
    let batch = rows.finish().unwrap();
    let members = member_names(batch.schema_ref());
    let mut text = String::new();
    RowWriter::new(&batch, &members).unwrap().write_json(0, &mut text);
    Ok(serde_json::from_str(&text).unwrap())
}

fn all_columns() -> Vec<Field> {
    columns_of(&options().message(Part::Value).unwrap().unwrap())
}

#[test]
fn every_type_has_its_column() {
    let bytes = encoded(&json!({
        "id": "-5", "change": -7, "large": "18446744073709551615", "note": "é", "price": 0.1, "share": 0.5,
        "raw": "Af8=", "paid": true, "state": "CLOSED", "at": "2024-02-29T00:00:00.250Z", "took": "90.5s",
        "maybe": "0", "tags": ["a\"", ""], "numbers": [1, -2], "lines": {"b": {"n": 2}, "a": {"state": "OPEN"}},
        "first": {"n": 3, "at": "1970-01-01T00:00:01Z"}, "more": {"x": [1, null]}, "f": 4_000_000_000u32, "s": "-1",
        "customerName": "ada",
    }));
    assert_eq!(
        read(all_columns(), &bytes).unwrap(),
        json!({
            "id": -5, "change": -7, "large": 18_446_744_073_709_551_615u64, "note": "é", "price": 0.1, "share": 0.5,
            "raw": "\\x01ff", "paid": true, "state": "CLOSED", "at": "2024-02-29T00:00:00.25+00:00",
            "took": "00:01:30.5", "maybe": 0, "tags": ["a\"", ""], "numbers": [1, -2],
            "lines": {"a": {"n": 0, "state": "OPEN"}, "b": {"n": 2}},
            "first": {"n": 3, "at": "1970-01-01T00:00:01+00:00"}, "more": {"x": [1.0, null]}, "f": 4_000_000_000u32,
            "s": -1, "customerName": "ada",
        })
    );
}

#[test]
fn what_is_absent_is_null_only_where_that_can_be_told() {
    assert_eq!(
        read(all_columns(), &[]).unwrap(),
        json!({
            "id": 0, "change": 0, "large": 0, "note": null, "price": 0, "share": 0, "raw": "\\x", "paid": false,
            "state": "OPEN", "at": null, "took": null, "maybe": null, "tags": [], "numbers": [], "lines": {},
            "first": null, "more": null, "f": 0, "s": 0, "customerName": "",
        })
    );
}

#[test]
fn columns_find_fields_by_either_name_and_others_are_passed_over() {
    let bytes = encoded(&json!({"id": "7", "customerName": "bob", "first": {"n": 1}}));
    let columns = vec![SqlType::Text.field("customername", true), SqlType::Text.field("absent", true)];
    assert_eq!(read(columns, &bytes).unwrap(), json!({"customername": "bob", "absent": null}));
    let whole = read(vec![SqlType::Jsonb.field("doc", true)], &bytes).unwrap();
    assert_eq!(whole["doc"]["customerName"], "bob");
    assert_eq!(whole["doc"]["first"], json!({"n": 1}));
}

#[test]
fn what_is_no_message_says_why() {
    for (bytes, why) in [
        (&[0x08][..], "an integer is too long, or the record ends too early"),
        (&[0x22, 5, b'a'], "the record ends too early"),
        (&[0x22, 1, 0xff], "a string is no UTF-8"),
        (&[0x00, 0], "a field's number is none"),
        (&[0x0e], "an unknown wire type"),
        (&[0xff; 11], "an integer is too long"),
    ] {
        let error = read(all_columns(), bytes).unwrap_err();
        assert!(error.starts_with("invalid Protobuf: ") && error.contains(why), "{bytes:?}: {error}");
    }
    // A field of another wire type is unknown; a group is passed over.
    let odd = [0x0a, 1, b'x', 0x2b, 0x08, 1, 0x2c, 0x10, 3];
    assert_eq!(
        read(vec![SqlType::Int8.field("id", true), SqlType::Int4.field("change", true)], &odd).unwrap(),
        json!({"id": 0, "change": -2})
    );
}

#[test]
fn no_bytes_panic() {
    let mut state = 1u64;
    for _ in 0..3_000 {
        let bytes: Vec<u8> = (0..40)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            })
            .collect();
        let _ = read(all_columns(), &bytes);
    }
}
