//! Avro and Protobuf by a real schema registry and a real broker, written by Confluent's own serializers, read by SQL.

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use parking_lot::Mutex;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};

use common::kafka::Kafka;
use common::pgclient::{PgClient, Protocol};
use common::registry::Registry;
use common::server::Server;
use tidemill::connectors::schema_registry::client::SchemaKind;

const PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    let systems = Arc::new(Lazy::default());
    let mut trials = Vec::new();
    for (name, test) in [
        ("avro_columns_are_inferred", avro_inferred as fn(&Systems) -> Result<(), Failed>),
        ("avro_schemas_change_while_running", avro_evolution),
        ("avro_by_key_and_by_every_strategy", avro_upsert),
        ("bad_records_and_a_registry_that_is_away", avro_bad),
        ("protobuf_columns_are_inferred", protobuf_inferred),
        ("protobuf_with_a_descriptor_and_references", protobuf_given),
        ("what_is_wrong_is_refused_at_create", refused),
        ("sinks_write_what_others_read", sink_read_by_others),
        ("sinks_and_sources_agree", sink_round_trip),
        ("sinks_make_their_topics_and_schemas_as_told", sink_topic),
    ] {
        let systems = Arc::clone(&systems);
        trials.push(Trial::test(name, move || test(&systems.get())));
    }
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials);
    drop(systems); // `exit` would leave the processes running
    conclusion.exit();
}

struct Systems {
    kafka: Kafka,
    registry: Registry,
}

/// One broker and one registry for all tests, started by the first.
#[derive(Default)]
struct Lazy(Mutex<Option<Arc<Systems>>>);

impl Lazy {
    fn get(&self) -> Arc<Systems> {
        let start = || Arc::new(Systems { kafka: Kafka::start(), registry: Registry::start() });
        Arc::clone(self.0.lock().get_or_insert_with(start))
    }
}

impl Systems {
    /// Writes records with Confluent's serializers; see tests/support/produce.py.
    fn produce(&self, job: Value) {
        let mut job = job;
        job["brokers"] = json!(self.kafka.brokers());
        job["registry"] = json!(self.registry.url());
        self.registry.python(include_str!("support/produce.py"), &[&job.to_string()]);
    }

    fn produce_bytes(&self, topic: &str, key: Option<&[u8]>, value: &[u8]) {
        let producer: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", self.kafka.brokers()).create().expect("a producer");
        let mut record = BaseRecord::<[u8], [u8]>::to(topic).payload(value);
        record.key = key;
        producer.send(record).map_err(|(e, _)| e).expect("room");
        producer.flush(PATIENCE).expect("delivery");
    }

    /// A server that knows the broker as `k` and the registry as `csr`.
    fn server(&self) -> (Server, Client) {
        let server = Server::start(1);
        let mut client = Client(PgClient::connect(server.addr()).expect("a connection"));
        client.run(&format!("CREATE CONNECTION k TO KAFKA (brokers = '{}')", self.kafka.brokers()));
        client.run(&format!("CREATE CONNECTION csr TO SCHEMA REGISTRY (url = '{}')", self.registry.url()));
        (server, client)
    }
}

struct Client(PgClient);

impl Client {
    fn run(&mut self, sql: &str) -> Vec<String> {
        self.try_run(sql).unwrap_or_else(|e| panic!("{sql}: {e}"))
    }

    fn try_run(&mut self, sql: &str) -> Result<Vec<String>, String> {
        let answers = self.0.run(Protocol::Simple, sql).map_err(|e| e.to_string())?;
        let rows = answers.into_iter().flat_map(|a| a.rows);
        Ok(rows
            .map(|r| r.into_iter().map(|v| v.unwrap_or("NULL".into())).collect::<Vec<_>>().join("|"))
            .collect())
    }

    /// Waits until a query gives these rows.
    fn wait(&mut self, sql: &str, rows: &[&str]) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let got = self.run(sql);
            if got == rows {
                return;
            }
            if Instant::now() > deadline {
                let state = self.run("SELECT name, status, error FROM tidemill.sources");
                let errors = self.run("SELECT object, sqlstate, reason FROM tidemill.errors");
                panic!("{sql}\n got {got:#?}\nwant {rows:#?}\n{state:#?}\n{errors:#?}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn order_schema(fields: Value) -> Value {
    json!({"type": "record", "name": "Order", "namespace": "shop", "fields": fields})
}

fn avro_inferred(systems: &Systems) -> Result<(), Failed> {
    let schema = order_schema(json!([
        {"name": "id", "type": "long"},
        {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "t", "type": {"type": "long", "logicalType": "time-micros"}},
        {"name": "uid", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "note", "type": ["null", "string"]},
        {"name": "raw", "type": "bytes"},
        {"name": "state", "type": {"type": "enum", "name": "State", "symbols": ["OPEN", "PAID"]}},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "customer", "type": {"type": "record", "name": "Customer", "fields": [
            {"name": "name", "type": "string"}, {"name": "scores", "type": {"type": "map", "values": "double"}}]}},
        {"name": "r", "type": "float"},
        {"name": "ok", "type": "boolean"},
    ]));
    systems.produce(json!({"kind": "avro", "topic": "inferred", "schema": schema, "records": [
        ["a", {"id": 1, "amount": "!dec 12.34", "at": 1_709_164_800_250i64, "day": 19_782, "t": 3_600_000_001i64,
               "uid": "00000000-0000-0000-0000-000000000001", "note": null, "raw": "!hex 01ff", "state": "PAID",
               "tags": ["x", "y"], "customer": {"name": "ada", "scores": {"b": 1.5}}, "r": 0.25, "ok": true}],
        ["b", {"id": -2, "amount": "!dec -0.05", "at": -1, "day": -1, "t": 0,
               "uid": "00000000-0000-0000-0000-000000000002", "note": "é", "raw": "!hex ", "state": "OPEN",
               "tags": [], "customer": {"name": "", "scores": {}}, "r": -1.0, "ok": false}],
    ]}));
    let (_server, mut client) = systems.server();
    client.run(
        "CREATE SOURCE orders FROM KAFKA CONNECTION k (topic = 'inferred')
         FORMAT AVRO USING SCHEMA REGISTRY CONNECTION csr INCLUDE key AS k, offset",
    );
    client
        .run("CREATE MATERIALIZED VIEW v AS SELECT state, sum(amount) AS amount FROM orders GROUP BY state");
    client.wait(
        "SELECT id, amount, at, day, t, uid, note, raw, state, tags, customer, r, ok, k FROM orders ORDER BY id",
        &[
            "-2|-0.05|1969-12-31 23:59:59.999+00|1969-12-31|00:00:00|00000000-0000-0000-0000-000000000002|é|\\x|OPEN|{}|{\"name\": \"\", \"scores\": {}}|-1|f|b",
            "1|12.34|2024-02-29 00:00:00.25+00|2024-02-29|01:00:00.000001|00000000-0000-0000-0000-000000000001|NULL|\\x01ff|PAID|{x,y}|{\"name\": \"ada\", \"scores\": {\"b\": 1.5}}|0.25|t|a",
        ],
    );
    client.wait("SELECT * FROM v ORDER BY state", &["OPEN|-0.05", "PAID|12.34"]);
    // Some of the columns, of other types; the whole record as one document.
    client.run(
        "CREATE SOURCE few (ID numeric(10,1), day text, missing int) FROM KAFKA CONNECTION k (topic = 'inferred')
         FORMAT AVRO USING SCHEMA REGISTRY CONNECTION csr",
    );
    client.wait("SELECT * FROM few ORDER BY id", &["-2.0|1969-12-31|NULL", "1.0|2024-02-29|NULL"]);
    client.run(
        "CREATE SOURCE docs (doc jsonb) FROM KAFKA CONNECTION k (topic = 'inferred')
         FORMAT AVRO USING SCHEMA REGISTRY CONNECTION csr",
    );
    client.wait(
        "SELECT doc->>'amount', doc->'customer'->>'name' FROM docs ORDER BY doc->>'id'",
        &["-0.05|", "12.34|ada"],
    );
    let shown = client.run("SHOW CREATE SOURCE orders");
    assert!(shown[0].contains("FORMAT AVRO USING SCHEMA REGISTRY CONNECTION csr"), "{shown:?}");
    let refused = client.try_run("DROP CONNECTION csr").expect_err("a connection in use");
    assert!(refused.starts_with("2BP01"), "{refused}");
    Ok(())
}

fn avro_evolution(systems: &Systems) -> Result<(), Failed> {
    let write = |fields: Value, record: Value| {
        systems.produce(json!({"kind": "avro", "topic": "evolves", "schema": order_schema(fields), "records": [["k", record]]}));
    };
    write(
        json!([{"name": "id", "type": "int"}, {"name": "old", "type": ["null", "string"], "default": null}]),
        json!({"id": 1, "old": "a"}),
    );
    let (_server, mut client) = systems.server();
    client.run(
        "CREATE SOURCE s (id bigint, old text, price double precision, fresh text) FROM KAFKA CONNECTION k (topic = 'evolves')
         FORMAT AVRO USING SCHEMA REGISTRY CONNECTION csr",
    );
    client.wait("SELECT * FROM s ORDER BY id", &["1|a|NULL|NULL"]);
    // A field is added, another gone, a type widened: the source goes on.
    write(
        json!([{"name": "price", "type": "int", "default": 7}, {"name": "id", "type": "long"}]),
        json!({"price": 3, "id": 2}),
    );
    client.wait("SELECT * FROM s ORDER BY id", &["1|a|NULL|NULL", "2|NULL|3|NULL"]);
    write(
        json!([{"name": "id", "type": "long"}, {"name": "fresh", "type": "string", "default": "none", "aliases": ["old"]},
               {"name": "price", "type": "double", "default": 7.5}]),
        json!({"id": 3, "fresh": "new", "price": 1.5}),
    );
    client.wait("SELECT * FROM s ORDER BY id", &["1|a|NULL|NULL", "2|NULL|3|NULL", "3|NULL|1.5|new"]);
    // Who starts now reads the old records by the newest schema: it says what a field was called before, and what it
    // is where it was not written.
    client.run(
        "CREATE SOURCE later FROM KAFKA CONNECTION k (topic = 'evolves')
         FORMAT AVRO USING SCHEMA REGISTRY CONNECTION csr",
    );
    client.wait("SELECT id, price, fresh FROM later ORDER BY id", &["1|7.5|a", "2|3|none", "3|1.5|new"]);
    Ok(())
}

fn avro_upsert(systems: &Systems) -> Result<(), Failed> {
    let value = order_schema(json!([{"name": "total", "type": "double"}]));
    let key = json!({"type": "record", "name": "OrderKey", "namespace": "shop", "fields": [
        {"name": "region", "type": "string"}, {"name": "id", "type": "long"}]});
    let key_of = |id: i64| json!({"region": "eu", "id": id});
    for (strategy, options) in [
        ("topic", "FORMAT AVRO USING SCHEMA REGISTRY CONNECTION csr"),
        (
            "record",
            "FORMAT AVRO (subject.name.strategy = 'record', message = 'shop.Order', key.message = 'shop.OrderKey') USING SCHEMA REGISTRY CONNECTION csr",
        ),
        (
            "topic_record",
            "FORMAT AVRO USING SCHEMA REGISTRY CONNECTION csr (subject = 'upsert_topic_record-shop.Order', key.subject = 'upsert_topic_record-shop.OrderKey')",
        ),
    ] {
        let topic = format!("upsert_{strategy}");
        systems.produce(json!({"kind": "avro", "topic": topic, "strategy": strategy, "schema": value, "key_schema": key, "records": [
            [key_of(1), {"total": 1.0}], [key_of(2), {"total": 2.0}], [key_of(1), {"total": 3.5}], [key_of(2), null],
            [key_of(4), {"total": 4.0}],
        ]}));
        let (_server, mut client) = systems.server();
        client.run(&format!(
            "CREATE SOURCE s FROM KAFKA CONNECTION k (topic = '{topic}') {options} ENVELOPE UPSERT"
        ));
        client.wait("SELECT total, region, id FROM s ORDER BY id", &["3.5|eu|1", "4|eu|4"]);
        client.run(&format!(
            "CREATE SOURCE t (total double precision) FROM KAFKA CONNECTION k (topic = '{topic}') {options} INCLUDE key AS k ENVELOPE UPSERT"
        ));
        client.wait("SELECT k::jsonb->>'id', total FROM t ORDER BY total", &["1|3.5", "4|4"]);
    }
    Ok(())
}

fn avro_bad(systems: &Systems) -> Result<(), Failed> {
    let schema = order_schema(json!([{"name": "id", "type": "long"}]));
    systems.produce(json!({"kind": "avro", "topic": "bad", "schema": schema, "records": [["k", {"id": 1}]]}));
    systems.produce_bytes("bad", None, b"{\"id\": 2}");
    systems.produce_bytes("bad", None, &[0, 0x7f, 0, 0, 1, 2]);
    systems.produce(json!({"kind": "avro", "topic": "bad", "schema": schema, "records": [["k", {"id": 3}]]}));
    let (_server, mut client) = systems.server();
    // A registry that does not answer keeps the source where it is; no record becomes an error but what is no Avro
    // whatever a registry says, if that is read by itself.
    client.run(
        "CREATE CONNECTION away TO SCHEMA REGISTRY (url = 'http://127.0.0.1:9') WITH (validate = false)",
    );
    client.run(
        "CREATE SOURCE waits (id bigint) FROM KAFKA CONNECTION k (topic = 'bad')
         FORMAT AVRO USING SCHEMA REGISTRY CONNECTION away",
    );
    client.run(
        "CREATE SOURCE s FROM KAFKA CONNECTION k (topic = 'bad') FORMAT AVRO USING SCHEMA REGISTRY CONNECTION csr",
    );
    client.wait("SELECT id FROM s ORDER BY id", &["1", "3"]);
    client.wait(
        "SELECT sqlstate, reason FROM tidemill.errors WHERE object = 's' ORDER BY reason",
        &[
            "22000|the record does not begin with a zero byte and the number of its schema",
            "42704|the schema registry has no schema with the number 2130706433",
        ],
    );
    client.wait(
        "SELECT count(*) FROM tidemill.sources WHERE name = 'waits' AND error LIKE 'could not reach the schema registry%'",
        &["1"],
    );
    let missed = "SELECT count(*) FROM tidemill.errors WHERE object = 'waits' AND sqlstate <> '22000'";
    assert_eq!(client.run(missed), ["0"]);
    Ok(())
}

const ORDER_PROTO: &str = r#"syntax = "proto3";
package shop;
import "google/protobuf/timestamp.proto";
message Ignored { int32 x = 1; }
message Order {
  int64 id = 1;
  string customer = 2;
  optional double price = 3;
  google.protobuf.Timestamp at = 4;
  repeated string tags = 5;
  map<string, int32> counts = 6;
  Line line = 7;
  State state = 8;
  enum State { OPEN = 0; PAID = 1; }
  message Line { int32 n = 1; }
}
"#;

/// A descriptor set of a .proto file, in hexadecimal digits.
fn descriptors(text: &str) -> String {
    let directory = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(directory.path().join("order.proto"), text).expect("a file");
    let mut compiler = protox::Compiler::new([directory.path()]).expect("a compiler");
    compiler.include_imports(true).open_file("order.proto").expect("a schema");
    hex::encode(compiler.encode_file_descriptor_set())
}

fn order_records() -> Value {
    json!([
        ["k", {"id": "7", "customer": "ada", "price": 1.5, "at": "2024-02-29T00:00:00Z", "tags": ["a", "b"],
               "counts": {"x": 1}, "line": {"n": 3}, "state": "PAID"}],
        ["k", {}],
    ])
}

const ORDER_ROWS: [&str; 2] =
    ["0||NULL|NULL|{}|{}|NULL|OPEN", "7|ada|1.5|2024-02-29 00:00:00+00|{a,b}|{\"x\": 1}|{\"n\": 3}|PAID"];

fn protobuf_inferred(systems: &Systems) -> Result<(), Failed> {
    systems.produce(json!({"kind": "protobuf", "topic": "proto", "descriptor": descriptors(ORDER_PROTO),
        "message": "shop.Order", "records": order_records()}));
    let (_server, mut client) = systems.server();
    client.run(
        "CREATE SOURCE s FROM KAFKA CONNECTION k (topic = 'proto')
         FORMAT PROTOBUF (message = 'shop.Order') USING SCHEMA REGISTRY CONNECTION csr",
    );
    client.wait("SELECT id, customer, price, at, tags, counts, line, state FROM s ORDER BY id", &ORDER_ROWS);
    client.run(
        "CREATE SOURCE d (doc jsonb) FROM KAFKA CONNECTION k (topic = 'proto')
         FORMAT PROTOBUF USING SCHEMA REGISTRY CONNECTION csr",
    );
    client.wait("SELECT doc->'line'->>'n' FROM d WHERE doc->>'id' = '7'", &["3"]);
    Ok(())
}

fn protobuf_given(systems: &Systems) -> Result<(), Failed> {
    // Records without a registry: the bare message.
    let message = [0x08, 7, 0x12, 3, b'a', b'd', b'a', 0x40, 1];
    systems.produce_bytes("bare", Some(b"k"), &message);
    let (_server, mut client) = systems.server();
    let descriptors = descriptors(ORDER_PROTO);
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), hex::decode(&descriptors)?)?;
    let path = file.path().display().to_string();
    for (name, given) in [
        ("of_file", format!("descriptor = '{path}'")),
        ("of_bytes", format!("descriptor = '\\x{descriptors}'")),
        ("of_text", format!("schema = '{ORDER_PROTO}'")),
    ] {
        client.run(&format!(
            "CREATE SOURCE {name} FROM KAFKA CONNECTION k (topic = 'bare')
             FORMAT PROTOBUF (message = 'shop.Order', {given}) INCLUDE key AS k"
        ));
        client.wait(&format!("SELECT id, customer, state, line, k FROM {name}"), &["7|ada|PAID|NULL|k"]);
    }
    // Text in the registry, as Java's serializers put it there.
    let id = systems.registry.register("text-value", SchemaKind::Protobuf, ORDER_PROTO);
    // The number of the schema, the path [1] to the message, the message.
    let framed = [&[0][..], &id.to_be_bytes(), &[2, 2], &message].concat();
    systems.produce_bytes("text", None, &framed);
    client.run(
        "CREATE SOURCE t FROM KAFKA CONNECTION k (topic = 'text')
         FORMAT PROTOBUF (message = 'shop.Order') USING SCHEMA REGISTRY CONNECTION csr",
    );
    client.wait("SELECT id, customer, state FROM t", &["7|ada|PAID"]);
    Ok(())
}

/// A table of every type that both languages have.
const THINGS: &str = "
    CREATE TABLE things (id bigint PRIMARY KEY, region text NOT NULL, n numeric(12,2), i int, s smallint, f real,
        d double precision, b boolean, y bytea, day date, t time, ts timestamp, tz timestamptz, u uuid, j jsonb, iv interval);
    INSERT INTO things VALUES
        (1, 'eu', -12.34, 2147483647, -1, 0.5, 0.1, true, '\\x01ff', '2024-02-29', '01:02:03.000004',
         '1969-12-31 23:59:59.999999', '2024-02-29 12:00:00.25+02', '00000000-0000-0000-0000-000000000001',
         '{\"a\": [1, null]}', '1 day 02:00:00'),
        (2, 'us', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
        (3, 'é', 0, 0, 0, 0, 0, false, '\\x', '1970-01-01', '00:00:00', '1970-01-01', '1970-01-01', NULL, '1', '0');";
const THINGS_COLUMNS: &str = "id, region, n, i, s, f, d, b, y, day, t, ts, tz, u, j, iv";
const THINGS_LIST: &str = "id bigint, region text, n numeric(12,2), i int, s smallint, f real, d double precision, b boolean, \
     y bytea, day date, t time, ts timestamp, tz timestamptz, u uuid, j jsonb, iv interval, PRIMARY KEY (id)";

fn sink_round_trip(systems: &Systems) -> Result<(), Failed> {
    let (_server, mut client) = systems.server();
    client.run(THINGS);
    for (format, envelope) in
        [("AVRO", "UPSERT"), ("AVRO", "DEBEZIUM"), ("PROTOBUF", "UPSERT"), ("JSON", "DEBEZIUM")]
    {
        let name = format!("{format}_{envelope}").to_lowercase();
        let using = if format == "JSON" { "" } else { "USING SCHEMA REGISTRY CONNECTION csr" };
        client.run(&format!(
            "CREATE SINK out_{name} FROM things INTO KAFKA CONNECTION k (topic = '{name}', commit_interval = '10 ms')
             KEY (id) FORMAT {format} {using} ENVELOPE {envelope}"
        ));
        client.run(&format!("WAIT FOR SINK out_{name} CURRENT TIMEOUT '60 s'"));
        // What Debezium's JSON leaves to settings is told.
        let plain = if format == "JSON" {
            "(timestamp.format = 'iso', decimal.format = 'text', binary.format = 'escape')"
        } else {
            ""
        };
        client.run(&format!(
            "CREATE SOURCE in_{name} ({THINGS_LIST}) FROM KAFKA CONNECTION k (topic = '{name}')
             FORMAT {format} {plain} {using} ENVELOPE {envelope}"
        ));
    }
    let compare = |client: &mut Client| {
        let expected = client.run(&format!("SELECT {THINGS_COLUMNS} FROM things ORDER BY id"));
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        for name in ["avro_upsert", "avro_debezium", "protobuf_upsert", "json_debezium"] {
            client.wait(&format!("SELECT {THINGS_COLUMNS} FROM in_{name} ORDER BY id"), &expected);
        }
    };
    compare(&mut client);
    client.run("BEGIN; UPDATE things SET n = 1.5, tz = NULL WHERE id = 1; DELETE FROM things WHERE id = 3; INSERT INTO things (id, region) VALUES (4, ''); COMMIT");
    compare(&mut client);
    // Columns and keys come back from the registry, too.
    client.run(
        "CREATE SOURCE inferred FROM KAFKA CONNECTION k (topic = 'avro_debezium')
         FORMAT AVRO USING SCHEMA REGISTRY CONNECTION csr ENVELOPE DEBEZIUM",
    );
    client.wait(
        "SELECT id, n, j, tz FROM inferred ORDER BY id",
        &["1|1.50|{\"a\": [1, null]}|NULL", "2|NULL|NULL|NULL", "4|NULL|NULL|NULL"],
    );
    Ok(())
}

fn sink_read_by_others(systems: &Systems) -> Result<(), Failed> {
    let (_server, mut client) = systems.server();
    client.run(THINGS);
    client.run("CREATE TABLE tags (id int PRIMARY KEY, of text[]); INSERT INTO tags VALUES (1, '{a,NULL}'), (2, NULL)");
    client.run(
        "CREATE SINK s FROM things INTO KAFKA CONNECTION k (topic = 'others', commit_interval = '10 ms') KEY (region, id)
         FORMAT AVRO USING SCHEMA REGISTRY CONNECTION csr ENVELOPE UPSERT;
         CREATE SINK l FROM tags INTO KAFKA CONNECTION k (topic = 'others_tags') KEY (id)
         FORMAT AVRO (subject.name.strategy = 'record', message = 'shop.Tags', key.message = 'shop.TagsKey')
         USING SCHEMA REGISTRY CONNECTION csr ENVELOPE UPSERT;
         WAIT FOR SINK s CURRENT TIMEOUT '60 s'; WAIT FOR SINK l CURRENT TIMEOUT '60 s';
         DELETE FROM things WHERE id = 2; WAIT FOR SINK s CURRENT TIMEOUT '60 s'",
    );
    let read = |topic: &str| {
        let url = systems.registry.url();
        let text = systems
            .registry
            .python(include_str!("support/consume.py"), &[systems.kafka.brokers(), &url, topic]);
        let mut lines: Vec<String> = text.lines().map(str::to_string).collect();
        lines.sort();
        lines
    };
    assert_eq!(
        read("others"),
        [
            "{'region': 'eu', 'id': 1} {'id': 1, 'region': 'eu', 'n': '-12.34', 'i': 2147483647, 's': -1, 'f': 0.5, 'd': 0.1, 'b': True, 'y': '01ff', 'day': '2024-02-29', 't': '01:02:03.000004', 'ts': '1969-12-31 23:59:59.999999', 'tz': '2024-02-29 10:00:00.250000+00:00', 'u': '00000000-0000-0000-0000-000000000001', 'j': '{\"a\": [1, null]}', 'iv': '1 day 02:00:00'}",
            "{'region': 'us', 'id': 2} None",
            "{'region': 'us', 'id': 2} {'id': 2, 'region': 'us', 'n': None, 'i': None, 's': None, 'f': None, 'd': None, 'b': None, 'y': None, 'day': None, 't': None, 'ts': None, 'tz': None, 'u': None, 'j': None, 'iv': None}",
            "{'region': 'é', 'id': 3} {'id': 3, 'region': 'é', 'n': '0.00', 'i': 0, 's': 0, 'f': 0.0, 'd': 0.0, 'b': False, 'y': '', 'day': '1970-01-01', 't': '00:00:00', 'ts': '1970-01-01 00:00:00', 'tz': '1970-01-01 00:00:00+00:00', 'u': None, 'j': '1', 'iv': '00:00:00'}",
        ]
    );
    assert_eq!(
        read("others_tags"),
        ["{'id': 1} {'id': 1, 'of': ['a', None]}", "{'id': 2} {'id': 2, 'of': None}"]
    );
    Ok(())
}

fn sink_topic(systems: &Systems) -> Result<(), Failed> {
    let (_server, mut client) = systems.server();
    client.run("CREATE TABLE t (id int PRIMARY KEY, \"a b\" int, x int)");
    let refused = client
        .try_run(
            "CREATE SINK s FROM t INTO KAFKA CONNECTION k (topic = 'x') KEY (id)
             FORMAT AVRO USING SCHEMA REGISTRY CONNECTION csr ENVELOPE UPSERT",
        )
        .expect_err("a name that is none");
    assert!(refused.starts_with("22023: column \"a b\" cannot be a field"), "{refused}");
    client.run("CREATE MATERIALIZED VIEW v AS SELECT id, x FROM t");
    client.run(
        "CREATE SINK s FROM v INTO KAFKA CONNECTION k (topic = 'as_told', partitions = 3, replication.factor = 1,
             cleanup.policy = 'compact', topic.config.retention.ms = '3600000') KEY (id)
         FORMAT AVRO USING SCHEMA REGISTRY CONNECTION csr ENVELOPE UPSERT;
         WAIT FOR SINK s CURRENT TIMEOUT '60 s'",
    );
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", systems.kafka.brokers());
    let admin: AdminClient<DefaultClientContext> = config.create()?;
    let consumer: BaseConsumer = config.create()?;
    assert_eq!(consumer.fetch_metadata(Some("as_told"), PATIENCE)?.topics()[0].partitions().len(), 3);
    let described = futures::executor::block_on(
        admin.describe_configs([&ResourceSpecifier::Topic("as_told")], &AdminOptions::new()),
    )?;
    let topic = described.into_iter().next().ok_or("no answer")?.map_err(|e| e.to_string())?;
    let setting = |name: &str| topic.get(name).and_then(|e| e.value.clone());
    assert_eq!(setting("cleanup.policy").as_deref(), Some("compact"));
    assert_eq!(setting("retention.ms").as_deref(), Some("3600000"));
    // A schema that does not go with the subject's others stops the sink, which says why.
    systems.registry.register("clash-value", SchemaKind::Avro, "\"string\"");
    systems.registry.set_compatibility("clash-value", "FULL");
    client.run(
        "CREATE SINK c FROM v INTO KAFKA CONNECTION k (topic = 'clash') KEY (id)
         FORMAT AVRO USING SCHEMA REGISTRY CONNECTION csr ENVELOPE UPSERT",
    );
    client.wait(
        "SELECT count(*) FROM tidemill.sinks WHERE name = 'c' AND error LIKE 'the schema registry at % says: %'",
        &["1"],
    );
    Ok(())
}

fn refused(systems: &Systems) -> Result<(), Failed> {
    let (_server, mut client) = systems.server();
    for (sql, why) in [
        (
            "CREATE SOURCE s FROM KAFKA CONNECTION k (topic = 'nowhere') FORMAT AVRO USING SCHEMA REGISTRY CONNECTION csr",
            "42704: the schema registry at",
        ),
        (
            "CREATE SOURCE s FROM KAFKA CONNECTION k (topic = 't') FORMAT AVRO (subject.name.strategy = 'record') USING SCHEMA REGISTRY CONNECTION csr",
            "22023: the registry's subject is named after the record",
        ),
        (
            "CREATE CONNECTION c TO SCHEMA REGISTRY (url = 'http://127.0.0.1:9')",
            "08006: could not reach the schema registry at http://127.0.0.1:9",
        ),
    ] {
        let error = client.try_run(sql).expect_err(sql);
        assert!(error.starts_with(why), "{error}");
    }
    Ok(())
}
