//! VERIFY SINK, the whole way: a target that somebody else has changed is found out, shown and mended.

mod common;

use std::time::Instant;

use common::fakesnow::Fakesnow;
use common::process::Tidemill;

fn connection(server: &Fakesnow) -> String {
    format!(
        "CREATE CONNECTION sf TO SNOWFLAKE (account = 'org-test', user = 'LOADER', password = 'pw', \
         database = 'DB', schema = 'PUBLIC', url = '{}')",
        server.url
    )
}

/// How many rows of the large relation; more by the environment, for figures.
fn large() -> u64 {
    std::env::var("TIDEMILL_VERIFY_ROWS").ok().and_then(|n| n.parse().ok()).unwrap_or(120_000)
}

/// The bytes of the newest commit of a sink.
fn newest_bytes(tidemill: &Tidemill, sink: &str) -> u64 {
    let newest = format!(
        "SELECT bytes FROM tidemill.sink_commits WHERE sink = '{sink}' ORDER BY committed_at DESC LIMIT 1"
    );
    tidemill.rows(&newest)[0][0].parse().expect("a number")
}

#[test]
fn ten_differences_among_very_many_rows_are_found_and_only_their_ranges_are_sent() {
    let snowflake = Fakesnow::start();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let tidemill = Tidemill::start(&directory.path().join("data"));
    let rows = large();
    tidemill.sql("CREATE TABLE t (id bigint PRIMARY KEY, g int, v numeric(12,2), name text, at timestamptz, d date, ok boolean, raw bytea, t time)");
    let mut from = 0;
    while from < rows {
        let to = (from + 100_000).min(rows);
        tidemill.sql(&format!(
            "INSERT INTO t SELECT n, CASE WHEN n % 11 > 0 THEN n % 7 END, n * 0.25 - 100, 'näme ' || n, \
             timestamptz '2024-01-01 00:00+00' + n * interval '1 second', date '1960-01-01' + (n % 40000)::int, n % 3 = 0, \
             decode(lpad(to_hex(n), 8, '0'), 'hex'), time '00:00' + (n % 86400) * interval '1 second' \
             FROM generate_series({from}, {}) AS s(n)",
            to - 1
        ));
        from = to;
    }
    tidemill.sql(&connection(&snowflake));
    tidemill.sql("CREATE SINK s FROM t INTO SNOWFLAKE CONNECTION sf (table = 'T') KEY (id) WITH (commit_interval = '50 ms')");
    tidemill.sql("WAIT FOR SINK s CURRENT TIMEOUT '300 s'");
    let whole = newest_bytes(&tidemill, "s");
    let began = Instant::now();
    tidemill.sql("VERIFY SINK s");
    println!("{rows} rows agree: {:?}", began.elapsed());

    snowflake.query("DELETE FROM \"T\" WHERE \"ID\" IN (7, 70001, 119999)");
    snowflake.query("UPDATE \"T\" SET \"V\" = \"V\" + 0.01 WHERE \"ID\" IN (11, 80011)");
    snowflake.query("UPDATE \"T\" SET \"G\" = NULL WHERE \"ID\" = 101");
    snowflake.query("UPDATE \"T\" SET \"OK\" = NOT \"OK\" WHERE \"ID\" = 1001");
    for id in [5_000_001, 5_000_002, 5_000_003] {
        snowflake.query(&format!("INSERT INTO \"T\" (\"ID\", \"NAME\") VALUES ({id}, 'stranger')"));
    }
    let began = Instant::now();
    let error = tidemill.try_sql("VERIFY SINK s").expect_err("ten differences").to_string();
    println!("ten differences: {:?}", began.elapsed());
    assert!(error.contains("XX001") && error.contains("3 rows missing, 3 too many, 4 changed"), "{error}");
    for part in [
        r#"lacks {"AT":"#,
        r#""ID":"7","NAME":"näme 7""#,
        r#""ID":"5000002","NAME":"stranger""#,
        r#""ID":"11","NAME":"näme 11""#,
        r#""V":"-97.24"#,
        r#""V":"-97.25"#,
    ] {
        assert!(error.contains(part), "{part} is not in {error}");
    }
    // The sink goes on, and what it verifies next is at its new tick.
    tidemill.sql("UPDATE t SET v = v + 1 WHERE id % 10000 = 5");
    let began = Instant::now();
    tidemill.sql("VERIFY SINK s REPAIR");
    println!("mended: {:?}", began.elapsed());
    let mended = newest_bytes(&tidemill, "s");
    assert!(mended > 0 && mended * 5 < whole, "{mended} of {whole} bytes were sent");
    tidemill.sql("VERIFY SINK s");
    tidemill.sql("DELETE FROM t WHERE id < 100; INSERT INTO t VALUES (9000000, 1, 1, 'new', now(), NULL, true, NULL, NULL)");
    tidemill.sql("WAIT FOR SINK s CURRENT TIMEOUT '60 s'");
    tidemill.sql("VERIFY SINK s");
    let there = snowflake.query("SELECT COUNT(*) AS N, SUM(\"V\") AS V FROM \"T\"");
    let ours = tidemill.rows("SELECT count(*), sum(v) FROM t");
    assert_eq!(there.get(0, "N"), Some(ours[0][0].as_str()));
    let number = |text: &str| text.parse::<f64>().expect("a number");
    assert_eq!(there.get(0, "V").map(number), Some(number(&ours[0][1])));
    // Neither the comparison nor the mending made the sink start over.
    let fills = "SELECT count(*) FROM tidemill.sink_commits WHERE sink = 's' AND tick_from IS NULL";
    assert_eq!(tidemill.rows(fills), [["2"]]);
}

#[test]
fn documents_floats_and_equal_rows_are_compared_too() {
    let snowflake = Fakesnow::start();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let tidemill = Tidemill::start(&directory.path().join("data"));
    tidemill.sql("CREATE TABLE t (id int PRIMARY KEY, g int, f float8, doc jsonb, tags text[])");
    tidemill.sql(
        "INSERT INTO t SELECT n, n % 3, n / 7.0, jsonb_build_object('n', n % 2), ARRAY['a', NULL] FROM generate_series(1, 50) AS s(n)",
    );
    tidemill.sql("CREATE MATERIALIZED VIEW groups AS SELECT g, doc FROM t; CREATE MATERIALIZED VIEW names AS SELECT g, id % 2 AS odd FROM t");
    tidemill.sql(&connection(&snowflake));
    for (name, from, key) in [("a", "t", "KEY (id)"), ("b", "groups", ""), ("c", "names", "")] {
        tidemill.sql(&format!(
            "CREATE SINK {name} FROM {from} INTO SNOWFLAKE CONNECTION sf (table = '{name}') {key} WITH (commit_interval = '50 ms')"
        ));
        tidemill.sql(&format!("WAIT FOR SINK {name} CURRENT TIMEOUT '60 s'"));
        tidemill.sql(&format!("VERIFY SINK {name}"));
    }
    snowflake.query("UPDATE \"A\" SET \"F\" = \"F\" + 0.0000001 WHERE \"ID\" = 5");
    snowflake.query("UPDATE \"A\" SET \"DOC\" = PARSE_JSON('{\"n\": 7}') WHERE \"ID\" = 6");
    snowflake.query(
        "UPDATE \"B\" SET \"DOC\" = PARSE_JSON('{\"n\": 7}') WHERE \"G\" = 0 AND \"_TIDEMILL_SEQ\" = 0",
    );
    snowflake.query("DELETE FROM \"C\" WHERE \"G\" = 2 AND \"_TIDEMILL_SEQ\" < 2");
    for (name, found) in [
        ("a", "0 rows missing, 0 too many, 2 changed"),
        ("b", "2 rows missing, 2 too many, 0 changed"),
        ("c", "4 rows missing, 0 too many, 0 changed"),
    ] {
        let error = tidemill.try_sql(&format!("VERIFY SINK {name}")).expect_err("differences").to_string();
        assert!(error.contains(found), "{error}");
        tidemill.sql(&format!("VERIFY SINK {name} REPAIR"));
        tidemill.sql(&format!("VERIFY SINK {name}"));
    }
    tidemill.sql("DELETE FROM t WHERE id % 4 = 0; UPDATE t SET g = 2 WHERE g = 0 AND id < 20");
    for name in ["a", "b", "c"] {
        tidemill.sql(&format!("WAIT FOR SINK {name} CURRENT TIMEOUT '60 s'"));
        tidemill.sql(&format!("VERIFY SINK {name}"));
        let fills =
            format!("SELECT count(*) FROM tidemill.sink_commits WHERE sink = '{name}' AND tick_from IS NULL");
        assert_eq!(tidemill.rows(&fills), [["2"]], "{name}\n{}", tidemill.log());
    }
}

#[test]
fn files_go_through_an_external_stage_and_leave_nothing_there() {
    let snowflake = Fakesnow::start();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let tidemill = Tidemill::start(&directory.path().join("data"));
    let place = directory.path().join("stage");
    std::fs::create_dir(&place).expect("a directory");
    let url = format!("file://{}/", place.display());
    snowflake.query(&format!("CREATE STAGE LOADS URL='{url}'"));
    tidemill.sql("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'), (2, 'b')");
    tidemill.sql(&connection(&snowflake));
    let create = |options: &str| {
        format!(
            "CREATE SINK s FROM t INTO SNOWFLAKE CONNECTION sf (table = 'T', {options}) KEY (id) WITH (commit_interval = '50 ms')"
        )
    };
    let error = tidemill.try_sql(&create("stage = 'LOADS'")).expect_err("half of it").to_string();
    assert!(error.contains("22023") && error.contains("go together"), "{error}");
    tidemill.sql(&create(&format!("stage = 'LOADS', stage.url = '{url}'")));
    for change in ["DELETE FROM t WHERE id = 1", "INSERT INTO t VALUES (3, 'c')", "UPDATE t SET v = 'z'"] {
        tidemill.sql("WAIT FOR SINK s CURRENT TIMEOUT '60 s'; VERIFY SINK s");
        tidemill.sql(change);
    }
    tidemill.sql("WAIT FOR SINK s CURRENT TIMEOUT '60 s'; VERIFY SINK s");
    snowflake.query("DELETE FROM \"T\" WHERE \"ID\" = 2");
    tidemill.sql("VERIFY SINK s REPAIR; VERIFY SINK s");
    let stages = snowflake.query("SHOW STAGES");
    assert_eq!((stages.len(), stages.get(0, "name")), (1, Some("LOADS")), "the sink has made none");
    tidemill.sql("DROP SINK s");
    let mut left = vec![place];
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            assert!(path.is_dir(), "{} stays", path.display());
            left.push(path);
        }
    }
}

#[test]
fn files_are_verified_and_mended() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let tidemill = Tidemill::start(&directory.path().join("data"));
    let (kept, other) = (directory.path().join("kept"), directory.path().join("other"));
    tidemill.sql("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE u (id int PRIMARY KEY, v text)");
    tidemill.sql("INSERT INTO t VALUES (1, 'a'), (2, NULL), (3, 'c'); INSERT INTO u VALUES (1, 'a'), (2, 'b'), (4, 'd')");
    for (sink, from, url) in [("s", "t", &kept), ("o", "u", &other)] {
        let url = format!("file://{}", url.display());
        tidemill.sql(&format!("CREATE SINK {sink} FROM {from} INTO FILES (url = '{url}', table = 'x') KEY (id) FORMAT PARQUET WITH (commit_interval = '50 ms')"));
        tidemill.sql(&format!("WAIT FOR SINK {sink} CURRENT TIMEOUT '30 s'; VERIFY SINK {sink}"));
    }
    // Another table's rows in the place of this one's.
    std::fs::copy(other.join("x/p00000.parquet"), kept.join("x/p00000.parquet")).expect("copied");
    let error = tidemill.try_sql("VERIFY SINK s").expect_err("other rows").to_string();
    assert!(error.contains("1 rows missing, 1 too many, 1 changed"), "{error}");
    assert!(
        error.contains(r#"lacks {"id":2,"v":null}"#) && error.contains(r#"has {"id":4,"v":"d"}"#),
        "{error}"
    );
    tidemill.sql("VERIFY SINK s REPAIR; VERIFY SINK s; DELETE FROM t WHERE id = 2");
    tidemill.sql("WAIT FOR SINK s CURRENT TIMEOUT '30 s'; VERIFY SINK s");
    tidemill.sql("CREATE SOURCE d (n bigint) FROM DATAGEN (rate = 0, rows = 3, seed = 1)");
    tidemill.sql(&format!(
        "CREATE SINK j FROM d INTO FILES (url = 'file://{}', table = 'j') FORMAT JSON",
        kept.display()
    ));
    let error = tidemill.try_sql("VERIFY SINK j").expect_err("JSON has no types").to_string();
    assert!(error.contains("0A000") && error.contains("VERIFY of a FILES sink"), "{error}");
}
