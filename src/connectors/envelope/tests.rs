//! Records in, changes out: every envelope over the formats that it takes.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use super::*;
use crate::connectors::format::encode::{RowWriter, member_names};
use crate::connectors::{FormatSpec, Include, OptionValue};
use crate::types::TYPE_KEY;

fn field(name: &str, sql_type: &str) -> Field {
    let data_type = match sql_type.trim_end_matches('!') {
        "int" => DataType::Int32,
        "bigint" => DataType::Int64,
        "numeric" => DataType::Decimal128(12, 2),
        "bytea" => DataType::Binary,
        "date" => DataType::Date32,
        "time" => DataType::Time64(TimeUnit::Microsecond),
        "timestamp" => DataType::Timestamp(TimeUnit::Microsecond, None),
        "timestamptz" => DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())),
        "interval" => DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano),
        "text[]" => DataType::List(Arc::new(Field::new("item", DataType::Utf8View, true))),
        "date[]" => DataType::List(Arc::new(Field::new("item", DataType::Date32, true))),
        _ => DataType::Utf8View,
    };
    let field = Field::new(name, data_type, !sql_type.ends_with('!'));
    match sql_type {
        "jsonb" | "uuid" => field.with_metadata(HashMap::from([(TYPE_KEY.into(), sql_type.into())])),
        _ => field,
    }
}

/// A source under test.
struct Source {
    definition: SourceDefinition,
    schema: SchemaRef,
    full: bool,
}

/// Columns as `name type`, `!` after the type meaning NOT NULL; the key's positions.
fn source(columns: &[(&str, &str)], envelope: Envelope, key: &[usize]) -> Source {
    let definition = SourceDefinition {
        name: "s".into(),
        kind: "kafka".into(),
        connection: vec![],
        options: vec![],
        format: Some(FormatSpec { name: "json".into(), options: vec![] }),
        envelope,
        includes: vec![],
        key: key.to_vec(),
    };
    let fields: Vec<Field> = columns.iter().map(|(n, t)| field(n, t)).collect();
    Source { definition, schema: Arc::new(Schema::new(fields)), full: false }
}

impl Source {
    fn format(mut self, name: &str, options: &[(&str, &str)]) -> Self {
        let options =
            options.iter().map(|(n, v)| (n.to_string(), OptionValue::Literal(v.to_string()))).collect();
        self.definition.format = Some(FormatSpec { name: name.into(), options });
        self
    }

    fn include(mut self, whats: &[&str]) -> Self {
        self.definition.includes =
            whats.iter().map(|w| Include { what: w.to_string(), column: w.to_string() }).collect();
        self
    }

    fn decoder(&self) -> Result<Decoder> {
        Decoder::new(&Declaration {
            definition: &self.definition,
            schema: &self.schema,
            full_before_images: self.full,
        })
    }

    /// Pushes records given as `key => value` (an absent side is `-`); answers the changes as text, and the reasons of the bad ones.
    fn run(&self, records: &[&str]) -> (Vec<String>, Vec<String>) {
        let mut decoder = self.decoder().unwrap();
        let mut bad = Vec::new();
        for (offset, record) in records.iter().enumerate() {
            let (key, value) = record.split_once(" => ").unwrap_or(("-", record));
            let side = |s: &str| (s != "-").then(|| s.as_bytes().to_vec());
            let (key, value) = (side(key), side(value));
            let record = Record {
                key: key.as_deref(),
                value: value.as_deref(),
                topic: "t",
                partition: 2,
                offset: offset as i64,
                timestamp_micros: Some(1_000_000),
                headers: Some("{\"h\":\"v\"}"),
            };
            if let Err(e) = decoder.push(&record) {
                bad.push(format!("{} {}", e.sqlstate.0, e.reason));
            }
        }
        let changes = decoder.take().unwrap();
        assert_eq!(decoder.pending(), 0);
        (changes.iter().flat_map(show).collect(), bad)
    }

    fn check(&self, records: &[&str], changes: &[&str], bad: &[&str]) {
        let (got_changes, got_bad) = self.run(records);
        assert_eq!(got_changes, changes);
        assert_eq!(got_bad.len(), bad.len(), "{got_bad:?}");
        for (got, wanted) in got_bad.iter().zip(bad) {
            assert!(got.contains(wanted), "{got:?} lacks {wanted:?}");
        }
    }
}

/// A change, a line a row: `+` comes, `-` goes, `=` replaces by key, `x` goes by key,
/// `~` replaces by key but for the columns of these positions.
fn show(change: &InputChange) -> Vec<String> {
    let lines = |rows: &RecordBatch, sign: &dyn Fn(usize) -> &'static str| -> Vec<String> {
        let members = member_names(rows.schema_ref());
        let writer = RowWriter::new(rows, &members).unwrap();
        (0..rows.num_rows())
            .map(|row| {
                let mut line = sign(row).to_string();
                writer.write_json(row, &mut line);
                line
            })
            .collect()
    };
    match change {
        InputChange::Delta(delta) => lines(&delta.rows, &|row| match &delta.weights {
            Some(w) if w[row] < 0 => "-",
            _ => "+",
        }),
        InputChange::Upsert { rows, deletes } => lines(rows, &|row| match deletes {
            Some(d) if d.value(row) => "x",
            _ => "=",
        }),
        InputChange::Patch { rows, unchanged } => {
            let columns: Vec<usize> = unchanged.iter().map(|(column, _)| *column).collect();
            lines(rows, &|_| "~").into_iter().map(|line| format!("{line} but {columns:?}")).collect()
        }
        InputChange::Truncate => vec!["truncate".to_string()],
        InputChange::Replace(_) => panic!("no envelope replaces all rows"),
    }
}

const ID_NAME: &[(&str, &str)] = &[("id", "int!"), ("name", "text")];

#[test]
fn none_appends_every_record() {
    source(ID_NAME, Envelope::None, &[]).check(
        &[
            r#"{"id":1,"name":"a"}"#,
            r#"{"id":2}"#,
            r#"{"id":"x","name":"b"}"#,
            r#"{"name":"b"}"#,
            "{\"id\":3,",
            "-",
            r#"{"id":4,"name":{"x":1}}"#,
        ],
        &[r#"+{"id":1,"name":"a"}"#, r#"+{"id":2,"name":null}"#, r#"+{"id":4,"name":"{\"x\":1}"}"#],
        &[
            "22P02 column \"id\": invalid input syntax for type integer: \"x\"",
            "23502 column \"id\": the record has no such field, and the column is NOT NULL",
            "22P02 invalid JSON: unexpected end of JSON (byte 8)",
            "22P02 invalid JSON: unexpected end of JSON (byte 0)",
        ],
    );
}

#[test]
fn none_with_a_primary_key_keeps_one_row_a_key() {
    source(ID_NAME, Envelope::None, &[0]).check(
        &[r#"{"id":1,"name":"a"}"#, r#"{"id":1,"name":"b"}"#],
        &[r#"={"id":1,"name":"a"}"#, r#"={"id":1,"name":"b"}"#],
        &[],
    );
}

#[test]
fn metadata_stands_after_the_columns() {
    let columns = [
        ("id", "int!"),
        ("key", "bytea"),
        ("topic", "text"),
        ("partition", "int"),
        ("offset", "bigint"),
        ("timestamp", "timestamptz"),
        ("headers", "jsonb"),
    ];
    let s = source(&columns, Envelope::None, &[]).include(&[
        "key",
        "topic",
        "PARTITION",
        "offset",
        "timestamp",
        "headers",
    ]);
    assert!(s.decoder().unwrap().wants_headers());
    s.check(
        &["k => {\"id\":1}"],
        &["+{\"id\":1,\"key\":\"\\\\x6b\",\"topic\":\"t\",\"partition\":2,\"offset\":0,\
          \"timestamp\":\"1970-01-01T00:00:01+00:00\",\"headers\":{\"h\": \"v\"}}"],
        &[],
    );
    // One header as text, by its exact name; NULL where a record does not have it.
    let one = [("id", "int!"), ("h", "text"), ("absent", "text")];
    let s = source(&one, Envelope::None, &[]).include(&["header 'h'", "header 'H'"]);
    assert!(s.decoder().unwrap().wants_headers());
    s.check(&["{\"id\":1}"], &["+{\"id\":1,\"h\":\"v\",\"absent\":null}"], &[]);
    let unknown = source(ID_NAME, Envelope::None, &[]).include(&["nope"]);
    assert_eq!(unknown.decoder().unwrap_err().message, "unknown INCLUDE column \"nope\"");
}

#[test]
fn upsert_replaces_and_deletes_by_the_value_s_or_the_record_s_key() {
    source(ID_NAME, Envelope::Upsert, &[0]).check(
        &[
            r#"{"id":1} => {"id":1,"name":"a"}"#,
            r#"{"id":2} => {"name":"from the key"}"#,
            r#"3 => {"name":"scalar key"}"#,
            r#"{"id":1} => -"#,
            r#"2 => -"#,
            r#"- => -"#,
            r#"{"id":"x"} => -"#,
        ],
        &[
            r#"={"id":1,"name":"a"}"#,
            r#"={"id":2,"name":"from the key"}"#,
            r#"={"id":3,"name":"scalar key"}"#,
            r#"x{"id":1,"name":null}"#,
            r#"x{"id":2,"name":null}"#,
        ],
        &["23502 column \"id\"", "22P02 column \"id\": invalid input syntax"],
    );
}

#[test]
fn upsert_by_an_included_key() {
    let columns = [("name", "text!"), ("key", "text!")];
    source(&columns, Envelope::Upsert, &[]).include(&["key"]).check(
        &["a => {\"name\":\"x\"}", "a => -"],
        &[r#"={"name":"x","key":"a"}"#, r#"x{"name":"","key":"a"}"#],
        &[],
    );
    let error = source(ID_NAME, Envelope::Upsert, &[]).decoder().unwrap_err();
    assert_eq!(error.message, "ENVELOPE UPSERT needs a key");
}

#[test]
fn other_formats() {
    source(&[("a", "int"), ("b", "text")], Envelope::None, &[]).format("csv", &[("delimiter", ";")]).check(
        &["1;x\n2;\n", "3;y\nbad;z", "4"],
        &[r#"+{"a":1,"b":"x"}"#, r#"+{"a":2,"b":null}"#],
        &["column \"a\"", "missing data for column \"b\""],
    );
    source(&[("line", "text")], Envelope::None, &[]).format("text", &[]).check(
        &["some {text", "-"],
        &[r#"+{"line":"some {text"}"#, r#"+{"line":null}"#],
        &[],
    );
    source(&[("data", "bytea!")], Envelope::None, &[]).format("BYTES", &[]).check(
        &["ab", "-"],
        &[r#"+{"data":"\\x6162"}"#],
        &["23502"],
    );
    source(&[("doc", "jsonb")], Envelope::None, &[]).check(
        &["[1,{\"b\":1,\"a\":2}]"],
        &["+{\"doc\":[1, {\"a\": 2, \"b\": 1}]}"],
        &[],
    );
    let wrong = source(ID_NAME, Envelope::None, &[]).format("text", &[]).decoder().unwrap_err();
    assert_eq!(wrong.message, "FORMAT TEXT needs exactly one column, of type text");
    let unbuilt = source(ID_NAME, Envelope::None, &[]).format("yaml", &[]).decoder().unwrap_err();
    assert_eq!(unbuilt.message, "FORMAT YAML is not supported yet");
    let option = source(ID_NAME, Envelope::None, &[]).format("json", &[("x", "1")]).decoder().unwrap_err();
    assert_eq!(option.message, "unknown option \"x\" of FORMAT JSON");
}

#[test]
fn debezium_of_mongodb() {
    let columns = &[
        ("_id", "text!"),
        ("n", "bigint"),
        ("at", "timestamptz"),
        ("price", "numeric"),
        ("tags", "text[]"),
        ("more", "jsonb"),
    ];
    let key = r#"{"id":"{\"$oid\":\"65e0\"}"}"#;
    let after = r#"{\"_id\":{\"$oid\":\"65e0\"},\"n\":{\"$numberLong\":\"5\"},\"at\":{\"$date\":1709164800250},\"price\":{\"$numberDecimal\":\"1.25\"},\"tags\":[\"a\",\"b\"],\"more\":{\"x\":{\"$numberInt\":\"1\"},\"d\":{\"$date\":\"2024-02-29T00:00:00Z\"}}}"#;
    source(columns, Envelope::Debezium, &[0]).check(
        &[
            &format!("{key} => {{\"before\":null,\"after\":\"{after}\",\"updateDescription\":null,\"op\":\"c\"}}"),
            &format!("{key} => {{\"before\":null,\"after\":null,\"op\":\"d\"}}"),
            r#"{"schema":{},"payload":{"id":"7"}} => {"before":null,"after":null,"op":"d"}"#,
            &format!("{key} => {{\"before\":null,\"after\":\"[1]\",\"op\":\"u\"}}"),
        ],
        &[
            r#"={"_id":"65e0","n":5,"at":"2024-02-29T00:00:00.25+00:00","price":1.25,"tags":["a","b"],"more":{"d": "2024-02-29T00:00:00+00:00", "x": 1}}"#,
            r#"x{"_id":"65e0","n":null,"at":null,"price":null,"tags":null,"more":null}"#,
            r#"x{"_id":"7","n":null,"at":null,"price":null,"tags":null,"more":null}"#,
        ],
        &["the document is no JSON object"],
    );
}

#[test]
fn debezium_by_key() {
    source(ID_NAME, Envelope::Debezium, &[0]).check(
        &[
            r#"{"id":1} => {"before":null,"after":{"id":1,"name":"a"},"op":"r","source":{"snapshot":"first"}}"#,
            r#"{"id":1} => {"before":null,"after":{"id":1,"name":"b"},"op":"u"}"#,
            r#"{"id":1} => {"before":{"id":1,"name":null},"after":null,"op":"d"}"#,
            r#"{"id":1} => -"#,
            r#"{"schema":null,"payload":{"before":null,"after":{"id":2,"name":"c"},"op":"c"}}"#,
            r#"{"id":2} => {"op":"d","before":null,"after":null}"#,
            r#"{"op":"u","before":{"id":5,"name":"x"},"after":{"id":6,"name":"x"}}"#,
            r#"{"op":"t","before":null,"after":null}"#,
            r#"{"op":"c","after":{"id":7}}"#,
            r#"{"op":"m","message":{}}"#,
        ],
        &[
            r#"={"id":1,"name":"a"}"#,
            r#"={"id":1,"name":"b"}"#,
            r#"x{"id":1,"name":null}"#,
            r#"={"id":2,"name":"c"}"#,
            r#"x{"id":2,"name":null}"#,
            r#"x{"id":5,"name":null}"#,
            r#"={"id":6,"name":"x"}"#,
            "truncate",
            r#"={"id":7,"name":null}"#,
        ],
        &[],
    );
}

#[test]
fn debezium_without_a_key_is_exact() {
    let mut s = source(ID_NAME, Envelope::Debezium, &[]);
    assert_eq!(s.decoder().unwrap_err().message, "ENVELOPE DEBEZIUM needs a PRIMARY KEY");
    s.full = true;
    s.check(
        &[
            r#"{"op":"c","before":null,"after":{"id":1,"name":"a"}}"#,
            r#"{"op":"u","before":{"id":1,"name":"a"},"after":{"id":1,"name":"b"}}"#,
            r#"{"op":"u","before":{"id":1,"name":"a"},"after":{"id":null,"name":"b"}}"#,
            r#"{"op":"u","before":null,"after":{"id":1,"name":"b"}}"#,
            r#"{"op":"d","before":{"id":1,"name":"b"},"after":null}"#,
        ],
        &[
            r#"+{"id":1,"name":"a"}"#,
            r#"-{"id":1,"name":"a"}"#,
            r#"+{"id":1,"name":"b"}"#,
            r#"-{"id":1,"name":"b"}"#,
        ],
        &["23502 column \"id\": the field is null", "REPLICA IDENTITY FULL"],
    );
}

#[test]
fn debezium_events_that_are_none() {
    source(ID_NAME, Envelope::Debezium, &[0]).check(
        &[
            r#"{"id":1,"name":"a"}"#,
            r#"{"op":"z"}"#,
            r#"{"op":"c","after":null}"#,
            r#"{"op":"d","before":null}"#,
            "[]",
            r#"{"payload":null}"#,
        ],
        &[],
        &[
            "no member \"op\"",
            "unknown Debezium op \"z\"",
            "no row \"after\"",
            "23502",
            "expected a JSON object",
        ],
    );
}

const TYPES: &[(&str, &str)] = &[
    ("id", "int!"),
    ("n", "numeric"),
    ("d", "date"),
    ("t", "time"),
    ("ts", "timestamp"),
    ("tz", "timestamptz"),
    ("i", "interval"),
    ("b", "bytea"),
    ("j", "jsonb"),
    ("u", "uuid"),
    ("l", "text[]"),
];
const TYPES_SHOWN: &str = "={\"id\":1,\"n\":12.34,\"d\":\"2024-02-29\",\"t\":\"12:30:00.25\",\
    \"ts\":\"2024-02-29T12:30:00.25\",\"tz\":\"2024-02-29T11:30:00.25+00:00\",\"i\":\"01:00:00\",\"b\":\"\\\\xdead\",\
    \"j\":{\"a\": [1]},\"u\":\"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\",\"l\":[\"x\",null]}";

#[test]
fn debezium_types_without_a_schema_go_by_the_columns() {
    let row = r#"{"id":1,"n":"BNI=","d":19782,"t":45000250000,"ts":1709209800250000,
        "tz":"2024-02-29T12:30:00.250000+01:00","i":3600000000,"b":"3q0=","j":"{\"a\":[1]}",
        "u":"A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11","l":["x",null]}"#;
    let event = format!("{{\"op\":\"c\",\"before\":null,\"after\":{row}}}");
    source(TYPES, Envelope::Debezium, &[0]).check(&[&event], &[TYPES_SHOWN], &[]);
    let text = event
        .replace("\"BNI=\"", "\"12.34\"")
        .replace("1709209800250000", "1709209800250")
        .replace("45000250000", "45000250");
    source(TYPES, Envelope::Debezium, &[0])
        .format("json", &[("decimal.format", "text"), ("timestamp.format", "ms")])
        .check(&[&text], &[TYPES_SHOWN], &[]);
}

#[test]
fn debezium_types_with_a_schema_go_by_their_semantic_names() {
    let field = |name: &str, kind: &str, semantic: &str| {
        format!(r#"{{"type":"{kind}","optional":true,"name":"{semantic}","version":1,"field":"{name}"}}"#)
    };
    let fields = [
        r#"{"type":"int32","optional":false,"field":"id"}"#.to_string(),
        r#"{"type":"bytes","name":"org.apache.kafka.connect.data.Decimal","version":1,"parameters":{"scale":"3","connect.decimal.precision":"10"},"field":"n"}"#.to_string(),
        field("d", "int32", "io.debezium.time.Date"),
        field("t", "int32", "io.debezium.time.Time"),
        field("ts", "int64", "io.debezium.time.NanoTimestamp"),
        field("tz", "string", "io.debezium.time.ZonedTimestamp"),
        field("i", "int64", "io.debezium.time.MicroDuration"),
        r#"{"type":"bytes","optional":true,"field":"b"}"#.to_string(),
        field("j", "string", "io.debezium.data.Json"),
        field("u", "string", "io.debezium.data.Uuid"),
        r#"{"type":"array","items":{"type":"string","optional":true},"field":"l"}"#.to_string(),
    ]
    .join(",");
    let schema = format!(
        r#"{{"type":"struct","fields":[{{"type":"struct","fields":[{fields}],"field":"before"}},{{"type":"struct","fields":[{fields}],"optional":true,"field":"after"}},{{"type":"string","field":"op"}}]}}"#
    );
    let row = r#"{"id":1,"n":"MDQ=","d":19782,"t":45000250,"ts":1709209800250000000,
        "tz":"2024-02-29T11:30:00.25Z","i":3600000000,"b":"3q0=","j":"{\"a\":[1]}",
        "u":"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11","l":["x",null]}"#;
    let event = format!(r#"{{"schema":{schema},"payload":{{"op":"u","before":null,"after":{row}}}}}"#);
    // An event of another shape in between must not leave its encodings behind.
    let plain = r#"{"op":"c","after":{"id":2,"n":"BNI="}}"#;
    let (changes, bad) = source(TYPES, Envelope::Debezium, &[0]).run(&[&event, plain, &event]);
    assert_eq!(bad, Vec::<String>::new());
    assert_eq!(changes[0], TYPES_SHOWN);
    assert!(changes[1].starts_with("={\"id\":2,\"n\":12.34,"), "{}", changes[1]);
    assert_eq!(changes[2], changes[0]);
}

#[test]
fn debezium_values_left_out_stay_as_they_are() {
    let left_out = "__debezium_unavailable_value";
    source(ID_NAME, Envelope::Debezium, &[0]).check(
        &[
            r#"{"op":"u","before":null,"after":{"id":1,"name":"new"}}"#,
            &format!(r#"{{"op":"u","before":null,"after":{{"id":1,"name":"{left_out}"}}}}"#),
            &format!(
                r#"{{"op":"u","before":{{"id":1,"name":"old"}},"after":{{"id":1,"name":"{left_out}"}}}}"#
            ),
            // The row that would have the value is another one.
            &format!(r#"{{"op":"u","before":{{"id":2}},"after":{{"id":1,"name":"{left_out}"}}}}"#),
            &format!(r#"{{"op":"u","before":null,"after":{{"id":"x","name":"{left_out}"}}}}"#),
        ],
        &[r#"={"id":1,"name":"new"}"#, r#"~{"id":1,"name":null} but [1]"#, r#"={"id":1,"name":"old"}"#],
        &["column \"name\": the event leaves the value out", "column \"id\""],
    );
    let bytes = [("id", "int!"), ("b", "bytea!")];
    source(&bytes, Envelope::Debezium, &[0]).check(
        &[r#"{"op":"u","after":{"id":1,"b":"X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ=="}}"#],
        &[r#"~{"id":1,"b":"\\x"} but [1]"#],
        &[],
    );
    let arrays = [("id", "int!"), ("texts", "text[]"), ("days", "date[]")];
    let bytes: Vec<String> = left_out.bytes().map(|b| b.to_string()).collect();
    source(&arrays, Envelope::Debezium, &[0]).check(
        &[
            &format!(r#"{{"op":"u","after":{{"id":1,"texts":["{left_out}"],"days":[1]}}}}"#),
            &format!(r#"{{"op":"u","after":{{"id":1,"texts":["a"],"days":[{}]}}}}"#, bytes.join(",")),
        ],
        &[
            r#"~{"id":1,"texts":null,"days":["1970-01-02"]} but [1]"#,
            r#"~{"id":1,"texts":["a"],"days":null} but [2]"#,
        ],
        &[],
    );
}

#[test]
fn broken_bytes_never_panic_and_never_leave_half_a_row() {
    let event = r#"{"schema":{"fields":[{"field":"after","fields":[{"field":"id","parameters":{"scale":"2"}}]}]},"payload":{"op":"u","before":{"id":1,"name":"\u00e9\ud83d\ude00"},"after":{"id":2,"name":"é"}}}"#;
    let plain = r#"{"id":12.0e1,"name":["a",{"b":"\u00e9"}],"x":[[]]}"#;
    let csv = "1,\"a\"\"b\"\r\n2,é";
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let cases = [
        (source(ID_NAME, Envelope::Debezium, &[0]), event),
        (source(ID_NAME, Envelope::Upsert, &[0]), plain),
        (source(ID_NAME, Envelope::None, &[]), plain),
        (source(&[("doc", "jsonb")], Envelope::None, &[]), plain),
        (source(ID_NAME, Envelope::None, &[]).format("csv", &[]), csv),
    ];
    for (s, good) in &cases {
        let mut decoder = s.decoder().unwrap();
        let mut understood = 0;
        for _ in 0..4000 {
            let mut bytes = good.as_bytes().to_vec();
            for _ in 0..=random(3) {
                let at = random(bytes.len());
                match random(4) {
                    0 => bytes[at] = random(256) as u8,
                    1 => bytes.truncate(at.max(1)),
                    2 => bytes.insert(at, b"{}[]\",:\\u0\n"[random(11)]),
                    _ => bytes.swap(at, 0),
                }
            }
            let key = bytes.get(random(bytes.len())..);
            let before = decoder.pending();
            let record = Record { key, value: Some(&bytes), ..Record::default() };
            match decoder.push(&record) {
                Ok(()) => understood += 1,
                Err(_) => assert_eq!(decoder.pending(), before),
            }
        }
        let pending = decoder.pending();
        let rows: usize = decoder.take().unwrap().iter().map(|c| show(c).len()).sum();
        assert_eq!(rows, pending);
        assert!(understood > 0, "the mutations are too rough to test anything");
    }
}
