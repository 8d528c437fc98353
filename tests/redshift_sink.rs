//! The Redshift sink, the whole way: statements in, a real PostgreSQL behind a stand-in for Redshift's COPY out, with
//! files in an S3 emulator and kills on the way.

mod common;

use std::time::{Duration, Instant};

use common::process::Tidemill;
use common::redshift::Redshift;

fn wait(tidemill: &Tidemill, sink: &str) {
    tidemill.sql(&format!("WAIT FOR SINK {sink} CURRENT TIMEOUT '60 s'"));
}

fn there(redshift: &Redshift, query: &str) -> Vec<String> {
    let mut rows: Vec<String> =
        redshift.postgres.psql("postgres", query).lines().map(str::to_string).collect();
    rows.sort();
    rows
}

fn ours(tidemill: &Tidemill, query: &str) -> Vec<String> {
    let mut rows: Vec<String> = tidemill.rows(query).into_iter().map(|r| r.join("|")).collect();
    rows.sort();
    rows
}

#[test]
fn values_of_every_type_arrive_through_a_manifest() {
    let redshift = Redshift::start();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let tidemill = Tidemill::start(&directory.path().join("data"));
    tidemill.sql(
        "CREATE TABLE t (id int PRIMARY KEY, b boolean, l bigint, n numeric(20,4), f float8, x text, y bytea, d date, tm time, ts timestamp, tz timestamptz, i interval, u uuid, j jsonb, a int[])",
    );
    tidemill.sql(
        r#"INSERT INTO t VALUES (1, true, 9223372036854775807, -0.5, 1e300, E'tab\t \\ é', '\x00ff', '2024-02-29', '23:59:59.999999', '2024-02-29 12:34:56.789012', '2024-02-29 12:34:56+05', '1 mon 2 days 03:00:00', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{"a": [1, null]}', ARRAY[1, NULL]), (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)"#,
    );
    tidemill.sql(&format!("CREATE CONNECTION rs TO REDSHIFT ({})", redshift.options()));
    tidemill.sql("CREATE SINK s FROM t INTO REDSHIFT CONNECTION rs (table = 'types') KEY (id) WITH (commit_interval = '20 ms')");
    wait(&tidemill, "s");
    tidemill.sql("UPDATE t SET x = 'changed', y = NULL WHERE id = 1; DELETE FROM t WHERE id = 2; INSERT INTO t (id, tm) VALUES (3, '00:00')");
    wait(&tidemill, "s");
    tidemill.sql("UPDATE t SET y = '\\x01' WHERE id = 1");
    wait(&tidemill, "s");
    assert_eq!(
        there(
            &redshift,
            "SELECT id, b, l, n, f, x, y, d, tm, ts, tz AT TIME ZONE 'UTC', i, u, j, a FROM types"
        ),
        [
            r#"1|t|9223372036854775807|-0.5000|1e+300|changed|\x01|2024-02-29|23:59:59.999999|2024-02-29 12:34:56.789012|2024-02-29 07:34:56|1 mon 2 days 03:00:00|a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11|{"a": [1, null]}|[1, null]"#,
            "3||||||||00:00:00||||||",
        ]
    );
    let copies = redshift.copies();
    assert!(copies.len() >= 3, "{copies:?}");
    assert!(copies.iter().all(|c| c.contains("/manifest' IAM_ROLE 'arn:aws:iam::123456789012:role/loader'")));
    // Nothing stays in the bucket, and nothing beside the target once the sink is gone.
    let counts = "SELECT sum(inserted), sum(updated), sum(deleted), count(*) FILTER (WHERE files = 1 AND bytes > 0) = count(*) FROM tidemill.sink_commits";
    assert_eq!(ours(&tidemill, counts), ["3|2|1|t"]);
    tidemill.sql("DROP SINK s");
    assert_eq!(
        there(&redshift, "SELECT relname FROM pg_class WHERE relname LIKE 'tidemill%'"),
        Vec::<String>::new()
    );
}

#[test]
fn target_and_view_agree_to_the_row_after_kills() {
    let redshift = Redshift::start();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut tidemill = Tidemill::start(&directory.path().join("data"));
    tidemill.sql("CREATE TABLE t (id int PRIMARY KEY, g int, v numeric(12,2))");
    tidemill.sql("CREATE MATERIALIZED VIEW sums AS SELECT g, count(*) AS n, sum(v) AS v FROM t GROUP BY g");
    tidemill.sql("CREATE MATERIALIZED VIEW bag AS SELECT g, id % 2 AS odd FROM t");
    tidemill.sql("CREATE TABLE log (id int, what text) APPEND ONLY");
    tidemill.sql(&format!("CREATE CONNECTION rs TO REDSHIFT ({})", redshift.options()));
    for (from, key) in [("sums", "KEY (g)"), ("bag", ""), ("log", "")] {
        tidemill.sql(&format!(
            "CREATE SINK {from}_rs FROM {from} INTO REDSHIFT CONNECTION rs (table = '{from}') {key} WITH (commit_interval = '20 ms', retry = '50 ms')"
        ));
    }
    let mut random = 11_u64;
    let mut next = move |n: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % n
    };
    let mut written = 0;
    for round in 0..5 {
        let until = Instant::now() + Duration::from_millis(700 + 190 * round);
        while Instant::now() < until {
            let group = if next(9) == 0 { "NULL".to_string() } else { next(6).to_string() };
            let sql = match next(4) {
                0 => format!("DELETE FROM t WHERE id IN ({}, {})", next(90), next(90)),
                1 => format!("INSERT INTO log VALUES ({written}, 'w')"),
                _ => format!(
                    "INSERT INTO t VALUES ({}, {group}, {}.5) ON CONFLICT (id) DO UPDATE SET g = excluded.g, v = excluded.v",
                    next(90),
                    next(100)
                ),
            };
            tidemill.sql(&sql);
            written += 1;
        }
        tidemill.kill_and_restart();
    }
    for (from, columns) in [("sums", "g, n, v"), ("bag", "g, odd"), ("log", "id, what")] {
        wait(&tidemill, &format!("{from}_rs"));
        let texts = columns
            .split(", ")
            .map(|c| format!("coalesce({c}::text, 'NULL')"))
            .collect::<Vec<_>>()
            .join(", ");
        let query = format!("SELECT {texts} FROM {from}");
        assert!(!ours(&tidemill, &query).is_empty());
        assert_eq!(there(&redshift, &query), ours(&tidemill, &query), "{from}\n{}", tidemill.log());
    }
    // Somebody removes a row that the sink changes next: the target is filled again.
    redshift.postgres.psql("postgres", "DELETE FROM sums WHERE g = 1");
    tidemill.sql("UPDATE t SET v = v + 1 WHERE g = 1; INSERT INTO t VALUES (1000, 1, 1)");
    wait(&tidemill, "sums_rs");
    let query = "SELECT coalesce(g::text, 'NULL'), n, v FROM sums";
    assert_eq!(there(&redshift, query), ours(&tidemill, query), "{}", tidemill.log());
}

#[test]
fn what_does_not_fit_is_refused() {
    let redshift = Redshift::start();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let tidemill = Tidemill::start(&directory.path().join("data"));
    tidemill.sql("CREATE TABLE t (id int PRIMARY KEY, j jsonb, x text)");
    let refused = |sql: &str, parts: &[&str]| {
        let error = tidemill.try_sql(sql).expect_err("refused").to_string();
        assert!(parts.iter().all(|p| error.contains(p)), "{error}");
    };
    let options = redshift.options();
    refused(
        &format!("CREATE CONNECTION c TO REDSHIFT ({})", options.replace("arn:aws:iam", "nobody")),
        &["22023", "iam_role"],
    );
    refused(
        &format!("CREATE CONNECTION c TO REDSHIFT ({})", options.replace("s3://stage", "gs://stage")),
        &["22023", "stage"],
    );
    refused(&format!("CREATE CONNECTION c TO REDSHIFT ({options}, speed = 9)"), &["22023", "speed"]);
    tidemill.sql(&format!("CREATE CONNECTION rs TO REDSHIFT ({options})"));
    refused("CREATE SINK s FROM t INTO REDSHIFT CONNECTION rs (table = 't') KEY (j)", &["0A000", "SUPER"]);
    refused(
        "CREATE SINK s FROM t INTO REDSHIFT CONNECTION rs (table = 'a.b.c') KEY (id)",
        &["22023", "a.b.c"],
    );
    redshift.postgres.psql("postgres", "CREATE TABLE misfit (id smallint, x bigint, other int NOT NULL)");
    tidemill.sql("CREATE SINK s FROM t INTO REDSHIFT CONNECTION rs (table = 'misfit') KEY (id)");
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let shown = tidemill.rows("SELECT coalesce(error, '') FROM tidemill.sinks")[0][0].clone();
        if ["id is smallint", "j is missing", "x is bigint", "other is NOT NULL"]
            .iter()
            .all(|p| shown.contains(p))
        {
            break;
        }
        assert!(Instant::now() < until, "{shown}");
        std::thread::sleep(Duration::from_millis(50));
    }
    refused("VERIFY SINK s", &["0A000", "VERIFY of a REDSHIFT sink"]);
}
