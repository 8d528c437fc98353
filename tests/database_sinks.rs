//! A sink over a session: it follows, pauses, resumes, goes on after a restart, and its leavings go when it is dropped.

mod database;
#[path = "common/mock_streaming.rs"]
#[allow(dead_code)] // each test program uses a part of it
mod streaming;

use std::path::Path;

use database::{Db, rows};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// The rows of a table directory of the FILES sink, as (key, n), in order.
fn files(dir: &Path) -> Vec<(String, i64)> {
    use arrow::array::AsArray;
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "parquet") {
            continue;
        }
        let file = std::fs::File::open(path).unwrap();
        for batch in ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap() {
            let batch = batch.unwrap();
            let key = arrow::compute::cast(batch.column(0), &arrow::datatypes::DataType::Utf8).unwrap();
            let n = arrow::compute::cast(batch.column(1), &arrow::datatypes::DataType::Int64).unwrap();
            let n = n.as_primitive::<arrow::datatypes::Int64Type>();
            let key = key.as_string::<i32>();
            found.extend((0..batch.num_rows()).map(|i| (key.value(i).to_string(), n.value(i))));
        }
    }
    found.sort();
    found
}

fn expected(rows: &[(&str, i64)]) -> Vec<(String, i64)> {
    rows.iter().map(|(k, n)| (k.to_string(), *n)).collect()
}

#[test]
fn a_sink_follows_pauses_resumes_and_survives() {
    let out = tempfile::tempdir().unwrap();
    let mut db = Db::new();
    let mut s = db.session();
    s.run("CREATE TABLE t (id int PRIMARY KEY, k text)");
    s.run("CREATE MATERIALIZED VIEW v AS SELECT k, count(*) AS n FROM t GROUP BY k");
    s.run(&format!("CREATE CONNECTION w TO OBJECT STORE (url = 'file://{}')", out.path().display()));
    s.run("INSERT INTO t VALUES (1, 'a'), (2, 'b')");
    s.run("CREATE SINK s FROM v INTO FILES CONNECTION w (table = 'v') KEY (k) FORMAT PARQUET WITH (commit_interval = '100 ms')");
    let wait = "WAIT FOR SINK s TIMEOUT '30 s'";
    s.run(wait);
    let table = out.path().join("v");
    assert_eq!(files(&table), expected(&[("a", 1), ("b", 1)]));
    s.run("INSERT INTO t VALUES (3, 'a'); DELETE FROM t WHERE id = 2");
    s.run(wait);
    assert_eq!(files(&table), expected(&[("a", 2)]));
    s.run("ALTER SINK s PAUSE");
    s.run("INSERT INTO t VALUES (4, 'c')");
    assert_eq!(s.error("WAIT FOR SINK s TIMEOUT '300 ms'").sqlstate.0, "57014");
    assert_eq!(s.rows("SELECT status FROM tidemill.sinks"), rows(&["paused"]));
    // Paused it stays, and what it has not committed waits for it, over a restart as well.
    drop(s);
    db = db.reopen(false);
    let mut s = db.session();
    assert_eq!(s.rows("SELECT status FROM tidemill.sinks"), rows(&["paused"]));
    s.run("INSERT INTO t VALUES (5, 'c')");
    s.run("ALTER SINK s RESUME");
    s.run(wait);
    assert_eq!(files(&table), expected(&[("a", 2), ("c", 2)]));
    assert_eq!(s.rows("SELECT status, error FROM tidemill.sinks"), rows(&["running|NULL"]));
    assert_eq!(s.error("DROP MATERIALIZED VIEW v").sqlstate.0, "2BP01");
    assert_eq!(s.error("DROP CONNECTION w").sqlstate.0, "2BP01");
    s.run("DROP SINK s");
    s.run("DROP MATERIALIZED VIEW v");
    s.run("DROP CONNECTION w");
    assert_eq!(files(&table), expected(&[("a", 2), ("c", 2)]), "the target is the user's");
}

#[test]
fn commits_are_remembered_over_restarts_and_forgotten_with_their_sink() {
    let out = tempfile::tempdir().unwrap();
    let mut db = Db::new();
    let mut s = db.session();
    s.run("CREATE TABLE t (id int PRIMARY KEY, n int)");
    let create = format!(
        "CREATE SINK s FROM t INTO FILES (url = 'file://{}', table = 't') KEY (id) FORMAT PARQUET WITH (commit_interval = '0 s')",
        out.path().display()
    );
    s.run(&create);
    let all = "SELECT tick_from, tick_to, inserted, updated, deleted, bytes, files, attempts, committed_at FROM tidemill.sink_commits ORDER BY committed_at";
    let mut before = Vec::new();
    for round in 0..3 {
        for n in 0..3 {
            s.run(&format!("INSERT INTO t VALUES ({}, {n})", 10 * round + n));
            s.run("WAIT FOR SINK s TIMEOUT '30 s'");
        }
        let now = s.rows(all);
        assert!(now.len() >= before.len() + 3, "{now:?}");
        assert_eq!(now[..before.len()], before);
        before = now;
        drop(s);
        db = db.reopen(round == 1);
        s = db.session();
        assert_eq!(s.rows(all), before);
    }
    s.run("DROP SINK s");
    s.run(&create);
    s.run("WAIT FOR SINK s TIMEOUT '30 s'");
    let after = s.rows("SELECT count(*), min(inserted) FROM tidemill.sink_commits WHERE tick_from IS NULL");
    assert_eq!(after, rows(&["1|9"]));
}

#[test]
fn what_waits_for_a_sink_waits_on_disk() {
    let out = tempfile::tempdir().unwrap();
    let mut db = Db::with(|config| config.sink_memory = 1 << 20);
    let mut s = db.session();
    s.run("CREATE TABLE t (id int PRIMARY KEY, k text)");
    s.run(&format!("CREATE CONNECTION w TO OBJECT STORE (url = 'file://{}')", out.path().display()));
    s.run("CREATE SINK s FROM t INTO FILES CONNECTION w (table = 't') KEY (id) FORMAT PARQUET WITH (commit_interval = '0 s')");
    s.run("WAIT FOR SINK s TIMEOUT '30 s'");
    s.run("ALTER SINK s PAUSE");
    let fill = |s: &mut database::TestSession, from: usize| {
        for n in from..from + 10 {
            s.run(&format!(
                "INSERT INTO t SELECT x, 'a rather long text ' || x FROM generate_series({}, {}) AS g(x)",
                n * 10_000,
                n * 10_000 + 9_999
            ));
        }
    };
    fill(&mut s, 0);
    let waits =
        "SELECT backlog_rows, backlog_bytes <= 2097152, backlog_disk_bytes > 100000 FROM tidemill.sinks";
    assert_eq!(s.rows(waits), rows(&["100000|t|t"]));
    // Killed and started again, what waits is there again.
    drop(s);
    db = db.reopen(false);
    let mut s = db.session();
    assert_eq!(s.rows("SELECT status, backlog_rows FROM tidemill.sinks"), rows(&["paused|100000"]));
    fill(&mut s, 10);
    assert_eq!(s.rows(waits), rows(&["200000|t|t"]));
    s.run("ALTER SINK s RESUME");
    s.run("WAIT FOR SINK s TIMEOUT '120 s'; VERIFY SINK s");
    let gone = "SELECT backlog_rows, backlog_bytes, backlog_disk_bytes FROM tidemill.sinks";
    assert_eq!(s.rows(gone), rows(&["0|0|0"]));
    // A sink that is dropped while much waits takes it along.
    s.run("ALTER SINK s PAUSE; UPDATE t SET k = k || '!'");
    assert_eq!(s.rows("SELECT backlog_disk_bytes > 100000 FROM tidemill.sinks"), rows(&["t"]));
    s.run("DROP SINK s");
    let backlog = db.database.config().data_dir.join("backlog");
    assert_eq!(std::fs::read_dir(backlog).unwrap().count(), 0);
}

#[test]
fn a_view_is_replaced_under_a_sink_that_gets_what_differs() {
    let out = tempfile::tempdir().unwrap();
    let mut db = Db::new();
    let mut s = db.session();
    s.run("CREATE TABLE t (id int PRIMARY KEY, k text); CREATE TABLE u (id int PRIMARY KEY, k text)");
    s.run("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'b'); INSERT INTO u VALUES (1, 'a'), (2, 'a')");
    s.run("CREATE MATERIALIZED VIEW inner_v AS SELECT k, count(*) AS n FROM t GROUP BY k");
    s.run("CREATE MATERIALIZED VIEW v AS SELECT k, n * 10 AS n FROM inner_v");
    s.run(&format!("CREATE CONNECTION w TO OBJECT STORE (url = 'file://{}')", out.path().display()));
    s.run("CREATE SINK s FROM v INTO FILES CONNECTION w (table = 'v') KEY (k) FORMAT PARQUET WITH (commit_interval = '100 ms')");
    let (wait, table) = ("WAIT FOR SINK s TIMEOUT '30 s'", out.path().join("v"));
    s.run(wait);
    assert_eq!(files(&table), expected(&[("a", 10), ("b", 20)]));
    // At work: the difference comes in a commit like any other.
    s.run("CREATE OR REPLACE MATERIALIZED VIEW inner_v AS SELECT k, count(*) + 1 AS n FROM t GROUP BY k");
    s.run(wait);
    assert_eq!(files(&table), expected(&[("a", 20), ("b", 30)]));
    // Paused, and over restarts: it goes on from the tick that it has committed.
    s.run("ALTER SINK s PAUSE");
    s.run("INSERT INTO t VALUES (4, 'c')");
    s.run("CREATE OR REPLACE MATERIALIZED VIEW inner_v AS SELECT k, count(*) AS n FROM u GROUP BY k");
    s.run("INSERT INTO u VALUES (3, 'd')");
    s.run("CREATE OR REPLACE MATERIALIZED VIEW v AS SELECT k, n + 100 AS n FROM inner_v");
    s.run("ALTER TABLE t RENAME TO t2");
    s.run("INSERT INTO u VALUES (4, 'd'); INSERT INTO t2 VALUES (5, 'c')");
    assert_eq!(s.error("DROP TABLE t2").sqlstate.0, "2BP01", "the sink may go back to it");
    for clean in [true, false] {
        drop(s);
        db = db.reopen(clean);
        s = db.session();
        assert_eq!(s.rows("SELECT k, n FROM v ORDER BY k"), rows(&["a|102", "d|102"]));
        s.run("CHECK MATERIALIZED VIEW inner_v; CHECK MATERIALIZED VIEW v");
        assert_eq!(files(&table), expected(&[("a", 20), ("b", 30)]));
    }
    s.run("ALTER SINK s RESUME");
    s.run(wait);
    assert_eq!(files(&table), expected(&[("a", 102), ("d", 102)]));
    s.run("DROP TABLE t2");
    drop(s);
    db = db.reopen(false);
    let mut s = db.session();
    s.run("DELETE FROM u WHERE k = 'a'");
    s.run(wait);
    assert_eq!(files(&table), expected(&[("d", 102)]));
    s.run("CHECK MATERIALIZED VIEW inner_v; CHECK MATERIALIZED VIEW v");
}

#[test]
fn what_a_sink_would_do_is_explained_before_it_exists() {
    let db = Db::new();
    let mut s = db.session();
    s.run("CREATE TABLE t (id int PRIMARY KEY, k text, i interval)");
    s.run("INSERT INTO t SELECT x, 'some text ' || x, '1 hour' FROM generate_series(1, 3000) AS g(x)");
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    let lines = s.rows(
        "EXPLAIN CREATE SINK s FROM t INTO FILES (url = 'file:///nowhere', table = 'x', file_size = 4096) KEY (id) WITH (commit_interval = '10 s')",
    );
    assert_eq!(lines[0], "Sink from t into FILES: /nowhere/x");
    assert!(lines[1].contains("by (id)"), "{lines:?}");
    let files =
        lines[2].strip_prefix("  first commit: 3000 rows, about ").and_then(|l| l.split(" in ").nth(1));
    let files: u64 = files.and_then(|f| f.split(' ').next()?.parse().ok()).expect("a number of files");
    assert!((2..50).contains(&files), "{lines:?}");
    assert!(lines[3].contains("every 10s"), "{lines:?}");
    assert!(lines[5].contains("at most 360 commits"), "{lines:?}");
    let webhook = s
        .rows("EXPLAIN CREATE SINK s FROM t INTO WEBHOOK (url = 'http://nowhere', body.rows = 100) KEY (id)");
    assert!(webhook[2].ends_with("in 30 files"), "{webhook:?}");
    assert_eq!(
        s.error("EXPLAIN CREATE SINK s FROM t INTO FILES (url = 'file:///nowhere', table = 'x') KEY (no)")
            .sqlstate
            .0,
        "42703"
    );
    assert_eq!(s.rows("SELECT count(*) FROM tidemill.sinks"), rows(&["0"]));
}

#[test]
fn what_a_sink_cannot_be_is_refused_before_it_exists() {
    let db = Db::new();
    let mut s = db.session();
    s.run("CREATE TABLE t (id int PRIMARY KEY); CREATE VIEW v AS SELECT * FROM t");
    let create = |from: &str, rest: &str| format!("CREATE SINK s FROM {from} INTO {rest}");
    let files = "FILES (url = 'file:///nowhere', table = 'x')";
    assert_eq!(s.error(&create("v", files)).sqlstate.0, "42809");
    assert_eq!(s.error(&create("nope", files)).sqlstate.0, "42P01");
    assert_eq!(
        s.error(&create("t", "FILES (url = 'file:///nowhere', table = 'x', speed = 9)")).sqlstate.0,
        "22023"
    );
    assert_eq!(
        s.error(&create("t", "FILES (url = 'file:///nowhere', table = 'x') KEY (other)")).sqlstate.0,
        "42703"
    );
    assert_eq!(s.error("CREATE CONNECTION c TO MQTT (url = 'x')").sqlstate.0, "0A000");
    assert_eq!(s.rows("SELECT count(*) FROM tidemill.sinks"), rows(&["0"]));
}

#[test]
fn rows_that_stream_into_snowflake_wait_on_disk_while_it_is_cut_off() {
    let server = streaming::MockStreaming::start();
    let mut db = Db::with(|config| config.sink_memory = 1 << 20);
    let mut s = db.session();
    s.run(&format!(
        "CREATE CONNECTION sf TO SNOWFLAKE (account = 'org-test', user = 'loader', private_key = '{}', database = 'DB', \
         schema = 'PUBLIC', url = '{}') WITH (validate = false)",
        streaming::KEY,
        server.url
    ));
    s.run("CREATE TABLE t (id bigint NOT NULL, v bigint, note text) APPEND ONLY");
    s.run("INSERT INTO t VALUES (1, 1, 'before the sink')");
    let create = "CREATE SINK s FROM t INTO SNOWFLAKE CONNECTION sf (table = 'rows', mode = 'snowpipe_streaming') \
                  WITH (commit_interval = '0 s', retry = '100 ms')";
    s.run(create);
    assert_eq!(s.error(&create.replace("SINK s", "SINK other")).sqlstate.0, "55006");
    s.run("WAIT FOR SINK s TIMEOUT '30 s'");
    assert_eq!(s.rows("SELECT status, error FROM tidemill.sinks"), rows(&["running|NULL"]));

    // A row that is refused is told, and the others are there.
    server.refuse(&[-13]);
    s.run("INSERT INTO t VALUES (2, -13, 'refused'), (3, 14, 'taken')");
    s.run("WAIT FOR SINK s TIMEOUT '30 s'");
    let told = s.rows(
        "SELECT object, kind, sqlstate, reason LIKE 'Snowflake has refused 1 rows%' FROM tidemill.errors",
    );
    assert_eq!(told, rows(&["s|sink|22000|t"]));

    server.down(true);
    let mut from = 10;
    let fill = |s: &mut database::TestSession, from: &mut i64| {
        for _ in 0..10 {
            let to = *from + 9_999;
            s.run(&format!("INSERT INTO t SELECT x, x, 'a rather long text ' || x FROM generate_series({from}, {to}) AS g(x)"));
            *from = to + 1;
        }
    };
    fill(&mut s, &mut from);
    let waits = "SELECT backlog_rows > 50000, backlog_bytes <= 2097152, backlog_disk_bytes > 100000 FROM tidemill.sinks";
    assert_eq!(s.rows(waits), rows(&["t|t|t"]));
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while s.rows("SELECT error LIKE '%no answer from Snowflake%' FROM tidemill.sinks") != rows(&["t"]) {
        assert!(
            std::time::Instant::now() < until,
            "{:?}",
            s.rows("SELECT status, error FROM tidemill.sinks")
        );
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    // Killed and started again while it is cut off, what waits is there again.
    drop(s);
    db = db.reopen(false);
    let mut s = db.session();
    fill(&mut s, &mut from);
    server.down(false);
    s.run("WAIT FOR SINK s TIMEOUT '120 s'");
    let mut ids: Vec<i64> = server.rows().iter().map(|row| row["ID"].as_i64().unwrap()).collect();
    ids.sort_unstable();
    let expected: Vec<i64> = [1, 3].into_iter().chain(10..from).collect();
    assert_eq!(ids.len(), expected.len());
    assert_eq!(ids, expected);
    let fresh =
        "SELECT count(*) > 2, min(freshness) > interval '0 s' FROM tidemill.sink_commits WHERE sink = 's'";
    assert_eq!(s.rows(fresh), rows(&["t|t"]));
    s.run("DROP SINK s");
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while server.seen("drop") == 0 {
        assert!(std::time::Instant::now() < until, "the channel was not dropped");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}
