//! `files('…')` in queries, columns that files tell themselves, and Avro files as fastavro writes them.

mod common;

use std::path::Path;
use std::process::Command;

use common::process::Tidemill;
use common::s3::S3;
use common::until;

/// Runs a Python program that has fastavro, in a directory.
fn python(dir: &Path, program: &str) {
    let deps = std::env::var("TEST_DEPS")
        .unwrap_or_else(|_| format!("{}/.cache/tidemill/test-deps", std::env::var("HOME").expect("a home")));
    let ran = Command::new(format!("{deps}/registry-client/bin/python"))
        .args(["-c", program])
        .current_dir(dir)
        .output()
        .expect("starting Python: run scripts/test-deps registry first");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

/// Numbered rows in three codecs; and one file that breaks off.
const AVRO: &str = r#"
import datetime, decimal, fastavro
schema = fastavro.parse_schema({"type": "record", "name": "r", "fields": [
    {"name": "id", "type": "long"},
    {"name": "name", "type": ["null", "string"]},
    {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    {"name": "day", "type": {"type": "int", "logicalType": "date"}},
    {"name": "tags", "type": {"type": "array", "items": "string"}},
    {"name": "kind", "type": {"type": "enum", "name": "k", "symbols": ["A", "B"]}}]})
def rows(n, m):
    for i in range(n, m):
        yield {"id": i, "name": None if i % 10 == 0 else f"n{i}", "price": decimal.Decimal(i) / 4,
               "at": datetime.datetime(2024, 5, 1, 10, tzinfo=datetime.timezone.utc) + datetime.timedelta(seconds=i),
               "day": datetime.date(2024, 5, 1), "tags": ["x", str(i)], "kind": "AB"[i % 2]}
for name, codec, n, m in [("a", "null", 0, 10), ("b", "deflate", 10, 20000), ("c", "snappy", 20000, 20003), ("d", "zstandard", 20003, 20005)]:
    try:
        with open(name + ".avro", "wb") as f:
            fastavro.writer(f, schema, rows(n, m), codec=codec)
    except ValueError:
        with open(name + ".avro", "wb") as f:
            fastavro.writer(f, schema, rows(n, m), codec="null")
whole = open("a.avro", "rb").read()
open("e.avro", "wb").write(whole[:-20])
"#;

#[test]
fn files_are_read_where_they_are() {
    let home = tempfile::tempdir().expect("a directory");
    let dir = home.path().join("in");
    std::fs::create_dir(&dir).expect("a directory");
    let server = Tidemill::start(&home.path().join("data"));
    let write = |name: &str, text: &[u8]| std::fs::write(dir.join(name), text).expect("written");
    write(
        "a.csv",
        b"id,city,weight,at\n1,Oslo,2.5,2024-05-01T10:00:00Z\n2,\"R\nome\",3,2024-05-02T10:00:00Z\n",
    );
    write("b.csv", b"city,id\nParis,3\n");
    write("c.csv.gz", &{
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut packed, b"id,city\n4,Bonn\n").expect("packed");
        packed.finish().expect("packed")
    });
    write("d.tsv", b"id\tcity\n5\tRiga\n");
    write("e.jsonl", b"{\"id\": 6, \"o\": {\"a\": [1]}, \"ok\": true}\n{\"id\": 7.5}\n");
    write("f.log", b"a line\nanother\n");
    write("g.data", b"1;x\n2;y\n");
    write("h.csv", format!("id\n{}many\n", "1\n".repeat(1500)).as_bytes());
    let path = dir.display();
    let rows = |sql: &str| server.rows(&sql.replace("DIR", &path.to_string()));
    assert_eq!(
        rows("SELECT id, city, weight, at > '2024-05-01' FROM files('DIR/a.csv') ORDER BY id LIMIT 1"),
        [["1", "Oslo", "2.5", "t"]]
    );
    assert_eq!(rows("SELECT sum(id), count(at), count(*) FROM files('DIR/[ab].csv')"), [["6", "2", "3"]]);
    assert_eq!(rows("SELECT f.city FROM files('DIR/c.csv.gz') AS f WHERE f.id = 4"), [["Bonn"]]);
    assert_eq!(rows("SELECT files.id, files.city FROM files('DIR/d.tsv')"), [["5", "Riga"]]);
    assert_eq!(rows("SELECT o->'a'->>0, ok FROM files('DIR/e.jsonl') WHERE id = 6"), [["1", "t"]]);
    assert_eq!(rows("SELECT count(*) FROM files('DIR/f.log')"), [["2"]]);
    assert_eq!(
        rows(
            "SELECT * FROM files('DIR/g.data', format => 'csv', header => false, delimiter => ';') WHERE column1 = 2"
        ),
        [["2", "y"]]
    );
    server.sql(&format!("CREATE CONNECTION here TO OBJECT STORE (url = 'file://{path}')"));
    let joined = "SELECT a.city, b.city FROM files('a.csv', connection => here) a JOIN files('d.tsv', connection => 'here') b ON b.id = a.id + 4";
    assert_eq!(rows(joined), [["Oslo", "Riga"]]);
    rows("CREATE TABLE cities AS SELECT id, city FROM files('DIR/[ab].csv')");
    assert_eq!(rows("SELECT count(*) FROM cities"), [["3"]]);

    let refused = |sql: &str| server.try_sql(&sql.replace("DIR", &path.to_string())).expect_err("refused");
    // What is behind the rows that were asked for is not looked at.
    assert_eq!(rows("SELECT id FROM files('DIR/h.csv') LIMIT 2"), [["1"], ["1"]]);
    let bad = refused("SELECT count(*) FROM files('DIR/h.csv')");
    assert_eq!(bad.sqlstate, "22P02", "{bad}");
    assert!(bad.to_string().contains("line=1502"), "{bad}");
    assert_eq!(refused("SELECT * FROM files('DIR/nothing.csv')").sqlstate, "58P01");
    assert_eq!(refused("SELECT * FROM files('DIR/g.data')").sqlstate, "22023");
    assert_eq!(refused("SELECT * FROM files('DIR/a.csv', nosuch => 1)").sqlstate, "22023");
    assert_eq!(refused("SELECT * FROM files(lower('DIR/a.csv'))").sqlstate, "42883");
    assert_eq!(refused("SELECT * FROM files('DIR/a.csv', connection => nosuch)").sqlstate, "42704");
    assert_eq!(refused("SELECT nosuch FROM files('DIR/a.csv')").sqlstate, "42703");
    assert_eq!(refused("CREATE VIEW v AS SELECT * FROM files('DIR/a.csv')").sqlstate, "0A000");
}

#[test]
fn sources_take_their_columns_from_files() {
    let home = tempfile::tempdir().expect("a directory");
    let dir = home.path().join("in");
    std::fs::create_dir(&dir).expect("a directory");
    let mut server = Tidemill::start(&home.path().join("data"));
    std::fs::write(dir.join("a.csv"), "id,city,at\n1,Oslo,2024-05-01\n2,Rome,\n").expect("written");
    std::fs::write(dir.join("a.json"), "{\"id\": 1, \"tags\": [\"x\"]}\n{\"id\": 2, \"more\": \"y\"}\n")
        .expect("written");
    python(&dir, AVRO);
    let path = dir.display();
    server.sql(&format!(
        "CREATE SOURCE c FROM FILES (url = '{path}/*.csv', min_age = 0, poll = '50 ms') FORMAT CSV (header) INCLUDE line AS n;
         CREATE SOURCE j FROM FILES (url = '{path}/*.json', min_age = 0) FORMAT JSON;
         CREATE SOURCE v FROM FILES (url = '{path}/*.avro', min_age = 0, poll = once) FORMAT AVRO INCLUDE path, line AS n;
         CREATE SOURCE declared (ID int, price float8, missing text, name text NOT NULL)
           FROM FILES (url = '{path}/a.avro', min_age = 0, poll = once) FORMAT AVRO"
    ));
    until(&server, "SELECT * FROM c", &[&["1", "Oslo", "2024-05-01", "2"], &["2", "Rome", "NULL", "3"]]);
    until(&server, "SELECT id, tags->>0, more FROM j", &[&["1", "x", "NULL"], &["2", "NULL", "y"]]);
    until(&server, "SELECT status FROM tidemill.sources WHERE name = 'v'", &[&["finished"]]);
    let expected = [["20005", "20005", "2000", "200090008"]];
    for _ in 0..2 {
        let all = "SELECT count(*), count(DISTINCT id), count(*) - count(name) - 1, sum(id) - 2 FROM v WHERE path NOT LIKE '%e.avro'";
        assert_eq!(server.rows(all), expected);
        server.kill_and_restart();
    }
    assert_eq!(
        server.rows("SELECT name, price, at AT TIME ZONE 'UTC', day, tags, kind, n FROM v WHERE id = 3 AND path LIKE '%a.avro'"),
        [["n3", "0.75", "2024-05-01 10:00:03", "2024-05-01", "{x,3}", "B", "4"]]
    );
    assert_eq!(
        server.rows("SELECT count(*), sum(price), count(missing) FROM declared"),
        [["9", "11.25", "0"]]
    );
    let errors = "SELECT object, sqlstate, count(*) FROM tidemill.errors GROUP BY 1, 2";
    assert_eq!(server.rows(errors), [["declared", "23502", "1"], ["v", "22000", "1"]]);
    assert_eq!(server.rows(&format!("SELECT count(*) FROM files('{path}/[a-d].avro')")), [["20005"]]);
    std::fs::write(dir.join("b.csv"), "city,id\nParis,3\n").expect("written");
    until(&server, "SELECT count(*), max(city) FROM c", &[&["3", "Rome"]]);
}

#[test]
fn previews_reach_into_object_stores() {
    let home = tempfile::tempdir().expect("a directory");
    let server = Tidemill::start(&home.path().join("data"));
    let store = S3::start();
    store.put("lake", b"");
    store.put("lake/in/a.csv", b"id,name\n1,x\n");
    store.put("lake/in/b.csv", b"id,name\n2,y\n");
    server
        .sql(&format!("CREATE CONNECTION lake TO OBJECT STORE (url = 's3://lake/in', {})", store.options()));
    assert_eq!(server.rows("SELECT * FROM files('*.csv', connection => lake)"), [["1", "x"], ["2", "y"]]);
    let error = server.try_sql("SELECT * FROM files('*.json', connection => lake)").expect_err("no file");
    assert_eq!(error.sqlstate, "58P01", "{error}");
}
