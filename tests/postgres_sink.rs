//! The PostgreSQL sink, the whole way: statements in, a real PostgreSQL server out, with kills on both sides.

mod common;

use std::time::{Duration, Instant};

use common::pgclient::{PgClient, Protocol};
use common::postgres::Postgres;
use common::process::Tidemill;

fn connection(postgres: &Postgres) -> String {
    format!(
        "CREATE CONNECTION pg TO POSTGRES (host = '127.0.0.1', port = {}, user = 'postgres', database = 'postgres')",
        postgres.port
    )
}

/// The rows of a query in PostgreSQL, as text, sorted; NULL is `NULL`.
fn there(postgres: &Postgres, columns: &str, table: &str) -> Vec<Vec<String>> {
    let texts = columns.split(", ").map(|c| format!("coalesce({c}::text, 'NULL')"));
    let query = format!("SELECT concat_ws('~', {}) FROM {table}", texts.collect::<Vec<_>>().join(", "));
    let text = postgres.psql("postgres", &query);
    let mut rows: Vec<Vec<String>> =
        text.lines().map(|l| l.split('~').map(str::to_string).collect()).collect();
    rows.sort();
    rows
}

/// Changes rows at random until the time is over, over the server's deaths; answers with the statements that succeeded.
fn change(address: impl Fn() -> std::net::SocketAddr, seed: u64, until: Instant) -> u64 {
    let mut random = seed;
    let mut next = move |n: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % n
    };
    let mut done = 0;
    while Instant::now() < until {
        let Ok(mut client) = PgClient::connect(address()) else {
            std::thread::sleep(Duration::from_millis(20));
            continue;
        };
        while Instant::now() < until {
            let (id, group, value) = (next(300), next(20), next(10_000));
            let group = if group == 0 { "NULL".to_string() } else { group.to_string() };
            let sql = match next(4) {
                0 => format!("DELETE FROM t WHERE id IN ({id}, {})", next(300)),
                _ => format!(
                    "INSERT INTO t VALUES ({id}, {group}, {value}.25, 'n{}') \
                     ON CONFLICT (id) DO UPDATE SET g = excluded.g, v = excluded.v, note = excluded.note",
                    next(3)
                ),
            };
            if client.run(Protocol::Simple, &sql).is_err() {
                break; // killed: whether it happened is for the server to say
            }
            done += 1;
        }
    }
    done
}

#[test]
fn target_and_view_agree_to_the_row_after_kills_of_both_servers() {
    let postgres = Postgres::start();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut tidemill = Tidemill::start(&directory.path().join("data"));
    tidemill.sql("CREATE TABLE t (id int PRIMARY KEY, g int, v numeric(12,2), note text)");
    tidemill.sql("CREATE MATERIALIZED VIEW sums AS SELECT g, count(*) AS n, sum(v) AS v FROM t GROUP BY g");
    tidemill.sql("CREATE MATERIALIZED VIEW notes AS SELECT g, note FROM t");
    tidemill
        .sql("CREATE MATERIALIZED VIEW joined AS SELECT t.id, t.v, s.n FROM t LEFT JOIN sums s ON s.g = t.g");
    tidemill.sql(&connection(&postgres));
    let sinks =
        [("sums", "g, n, v", "KEY (g)"), ("notes", "g, note", ""), ("joined", "id, v, n", "KEY (id)")];
    for (name, _, key) in sinks {
        tidemill.sql(&format!(
            "CREATE SINK {name}_pg FROM {name} INTO POSTGRES CONNECTION pg (table = '{name}') {key} \
             WITH (commit_interval = '20 ms', retry = '50 ms')"
        ));
    }
    let address = parking_lot::Mutex::new(tidemill.addr());
    let until = Instant::now() + Duration::from_secs(9);
    let done: u64 = std::thread::scope(|scope| {
        let writers: Vec<_> = (1..=2)
            .map(|seed| {
                scope.spawn({
                    let address = &address;
                    move || change(|| *address.lock(), seed, until)
                })
            })
            .collect();
        for round in 0..5 {
            std::thread::sleep(Duration::from_millis(900 + 130 * round));
            if round == 2 {
                postgres.restart();
            } else {
                tidemill.kill_and_restart();
                *address.lock() = tidemill.addr();
            }
        }
        writers.into_iter().map(|w| w.join().expect("a writer")).sum()
    });
    assert!(done > 20, "{done} statements");
    for (name, columns, _) in sinks {
        tidemill.sql(&format!("WAIT FOR SINK {name}_pg CURRENT TIMEOUT '60 s'"));
        let cast = columns.split(", ").map(|c| format!("{c}::text")).collect::<Vec<_>>().join(", ");
        let ours = tidemill.rows(&format!("SELECT {cast} FROM {name}"));
        assert!(!ours.is_empty());
        assert_eq!(there(&postgres, columns, name), ours, "{name}\n{}", tidemill.log());
    }
    // No sink had to start over.
    assert_eq!(
        postgres.psql(
            "postgres",
            "SELECT string_agg(sink || generation, ' ' ORDER BY sink) FROM tidemill_progress"
        ),
        "joined_pg1 notes_pg1 sums_pg1"
    );
    for (name, ..) in sinks {
        tidemill.sql(&format!("DROP SINK {name}_pg"));
    }
    assert_eq!(postgres.psql("postgres", "SELECT to_regclass('tidemill_progress')"), "");
    assert_ne!(postgres.psql("postgres", "SELECT count(*) FROM joined"), "0");
}

/// A column: its name and type here, two values, its type there.
type Case = (&'static str, &'static str, &'static str, &'static str, &'static str);

#[test]
fn values_of_every_type_arrive_as_they_are() {
    let postgres = Postgres::start();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let tidemill = Tidemill::start(&directory.path().join("data"));
    let columns: [Case; 19] = [
        ("id", "int PRIMARY KEY", "1", "2", "integer"),
        ("b", "boolean", "true", "NULL", "boolean"),
        ("s", "smallint", "-32768", "0", "smallint"),
        ("l", "bigint", "9223372036854775807", "-9223372036854775808", "bigint"),
        ("r", "real", "0.1", "'NaN'", "real"),
        ("f", "double precision", "1e300", "'-Infinity'", "double precision"),
        ("n", "numeric(38,9)", "12345678901234567890123456789.123456789", "-0.000000001", "numeric(38,9)"),
        ("x", "text", r"E'tab\there\nline \\N back\\slash \\. é'", "''", "text"),
        ("w", "varchar(10)", "'ten  chars'", "NULL", "character varying(10)"),
        ("y", "bytea", r"'\x00ff5c0a'", r"'\x'", "bytea"),
        ("d", "date", "'0001-01-01'", "'9999-12-31'", "date"),
        ("t", "time", "'23:59:59.999999'", "'00:00'", "time without time zone"),
        ("ts", "timestamp", "'2024-02-29 12:34:56.789012'", "'1900-01-01'", "timestamp without time zone"),
        ("tz", "timestamptz", "'2024-02-29 12:34:56.789012+05'", "NULL", "timestamp with time zone"),
        ("i", "interval", "'-1 year 2 mons 3 days -04:05:06.789'", "'0'", "interval"),
        ("u", "uuid", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "NULL", "uuid"),
        ("j", "jsonb", r#"'{"a": [1, null, "\\ \" é"], "n": 1.50}'"#, "'null'", "jsonb"),
        ("ia", "int[]", "ARRAY[1, NULL, -3]", "'{}'", "integer[]"),
        ("ta", "text[]", r#"ARRAY['a,b', 'NULL', NULL, '', '{"\']"#, "NULL", "text[]"),
    ];
    let list = |f: fn(&Case) -> String| columns.iter().map(f).collect::<Vec<_>>().join(", ");
    tidemill.sql(&format!("CREATE TABLE t ({})", list(|c| format!("{} {}", c.0, c.1))));
    tidemill.sql(&connection(&postgres));
    tidemill.sql(&format!("INSERT INTO t VALUES ({})", list(|c| c.2.to_string())));
    tidemill.sql(
        "CREATE SINK s FROM t INTO POSTGRES CONNECTION pg (table = 'public.types', commit_interval = '20 ms') KEY (id)",
    );
    tidemill.sql("WAIT FOR SINK s CURRENT TIMEOUT '30 s'");
    tidemill.sql(&format!("INSERT INTO t VALUES ({})", list(|c| c.3.to_string())));
    tidemill.sql("WAIT FOR SINK s CURRENT TIMEOUT '30 s'");
    let kinds = "SELECT string_agg(format_type(atttypid, atttypmod), ', ' ORDER BY attnum) FROM pg_attribute \
                 WHERE attrelid = 'types'::regclass AND attnum > 0";
    assert_eq!(postgres.psql("postgres", kinds), list(|c| c.4.to_string()));
    // PostgreSQL finds each value equal to its own reading of it.
    for (name, _, first, second, kind) in columns {
        for (id, value) in [(1, first), (2, second)] {
            let query =
                format!("SELECT {name} IS NOT DISTINCT FROM ({value})::{kind} FROM types WHERE id = {id}");
            let same = postgres.psql("postgres", &query);
            assert_eq!(
                same,
                "t",
                "{name}: {value}: {}",
                postgres.psql("postgres", &format!("SELECT {name} FROM types"))
            );
        }
    }
}

#[test]
fn verify_finds_planted_differences_while_rows_change_and_repair_mends_them() {
    let postgres = Postgres::start();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let tidemill = Tidemill::start(&directory.path().join("data"));
    tidemill.sql("CREATE TABLE t (id int PRIMARY KEY, g int, v numeric(12,2), note jsonb)");
    tidemill.sql(
        "INSERT INTO t SELECT n, n % 7, n * 0.25, '{\"a\": [1, null]}' FROM generate_series(1000, 20999) AS s(n)",
    );
    tidemill.sql("CREATE MATERIALIZED VIEW kept AS SELECT id, g, v, note FROM t");
    tidemill.sql("CREATE MATERIALIZED VIEW groups AS SELECT g, note FROM t WHERE id >= 1000");
    tidemill.sql(&connection(&postgres));
    for (name, key) in [("kept", "KEY (id)"), ("groups", "")] {
        tidemill.sql(&format!(
            "CREATE SINK {name}_pg FROM {name} INTO POSTGRES CONNECTION pg (table = '{name}') {key} \
             WITH (commit_interval = '20 ms')"
        ));
        tidemill.sql(&format!("WAIT FOR SINK {name}_pg CURRENT TIMEOUT '60 s'"));
    }
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Rows below 1000 come, change and go all the time.
        let writer = scope.spawn(|| {
            let mut client = PgClient::connect(tidemill.addr()).expect("a connection");
            let mut n = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                n += 1;
                let id = n % 900;
                let sql = format!(
                    "INSERT INTO t VALUES ({id}, {n}, 1, 'null') ON CONFLICT (id) DO UPDATE SET g = {n}; \
                     DELETE FROM t WHERE id = {}",
                    (id + 450) % 900
                );
                client.run(Protocol::Simple, &sql).expect("a statement");
            }
            n
        });
        for _ in 0..5 {
            tidemill.sql("VERIFY SINK kept_pg");
            tidemill.sql("VERIFY SINK groups_pg");
        }
        postgres.psql(
            "postgres",
            "DELETE FROM kept WHERE id IN (1001, 1002, 1003); \
             UPDATE kept SET note = '{\"a\": [1, 2]}' WHERE id IN (1004, 1005); UPDATE kept SET g = NULL WHERE id IN (1006, 1007); \
             INSERT INTO kept VALUES (30001, 1, 1, '1'), (30002, 1, 1, '1'), (30003, NULL, NULL, NULL)",
        );
        let error = tidemill.try_sql("VERIFY SINK kept_pg").expect_err("ten differences").to_string();
        assert!(
            error.contains("XX001") && error.contains("3 rows missing, 3 too many, 4 changed"),
            "{error}"
        );
        for part in [
            r#"lacks {"g": 0, "v": 250.25, "id": 1001"#,
            r#"has {"g": 1, "v": 1.00, "id": 30002, "note": 1}"#,
            r#"has {"g": 3, "v": 251.00, "id": 1004, "note": {"a": [1, 2]}}"#,
        ] {
            assert!(error.contains(part), "{part} is not in {error}");
        }
        postgres.psql(
            "postgres",
            "DELETE FROM groups WHERE ctid IN (SELECT ctid FROM groups WHERE g = 3 LIMIT 2)",
        );
        let error = tidemill.try_sql("VERIFY SINK groups_pg").expect_err("two rows are gone").to_string();
        assert!(error.contains("2 rows missing, 0 too many, 0 changed"), "{error}");
        for name in ["kept", "groups"] {
            tidemill.sql(&format!("VERIFY SINK {name}_pg REPAIR"));
            tidemill.sql(&format!("VERIFY SINK {name}_pg"));
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(writer.join().expect("the writer") > 20);
    });
    // The sinks have gone on meanwhile and go on now.
    tidemill.sql("UPDATE t SET v = v + 1 WHERE id % 100 = 0");
    for (name, columns) in [("kept", "id, g, v, note"), ("groups", "g, note")] {
        tidemill.sql(&format!("WAIT FOR SINK {name}_pg CURRENT TIMEOUT '60 s'"));
        let cast = columns.split(", ").map(|c| format!("{c}::text")).collect::<Vec<_>>().join(", ");
        assert!(
            there(&postgres, columns, name) == tidemill.rows(&format!("SELECT {cast} FROM {name}")),
            "{name}"
        );
        let fills = format!(
            "SELECT count(*) FROM tidemill.sink_commits WHERE sink = '{name}_pg' AND tick_from IS NULL"
        );
        assert_eq!(tidemill.rows(&fills), [["2"]]);
    }
    tidemill.sql("ALTER SINK kept_pg PAUSE");
    let error = tidemill.try_sql("VERIFY SINK kept_pg").expect_err("it is paused").to_string();
    assert!(error.contains("55000") && error.contains("paused"), "{error}");
}

#[test]
fn tls_is_as_strict_as_sslmode_says() {
    let postgres = Postgres::start();
    let authority = postgres.require_tls();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let tidemill = Tidemill::start(&directory.path().join("data"));
    let try_to = |name: &str, host: &str, options: &str| {
        tidemill.try_sql(&format!(
            "CREATE CONNECTION {name} TO POSTGRES (host = '{host}', port = {}, user = 'postgres', database = 'postgres'{options})",
            postgres.port
        ))
    };
    let root = format!(", sslrootcert = '{}'", authority.display());
    let refused = |host: &str, options: &str, part: &str| {
        let error = try_to("no", host, options).expect_err("refused").to_string();
        assert!(error.contains("08006") && error.contains(part), "{options}: {error}");
    };
    refused("127.0.0.1", ", sslmode = 'disable'", "no encryption");
    refused("127.0.0.1", ", sslmode = 'verify-ca'", "UnknownIssuer");
    refused("127.0.0.1", ", sslmode = 'verify-full'", "UnknownIssuer");
    refused("localhost", &format!(", sslmode = 'verify-full'{root}"), "not valid for name");
    for (name, host, options) in [
        ("a", "127.0.0.1", String::new()),
        ("b", "127.0.0.1", ", sslmode = 'require'".to_string()),
        ("c", "localhost", format!(", sslmode = 'verify-ca'{root}")),
        ("d", "localhost", format!(", sslmode = 'require'{root}")),
        ("pg", "127.0.0.1", format!(", sslmode = 'verify-full'{root}")),
    ] {
        try_to(name, host, &options).unwrap_or_else(|e| panic!("{options}: {e}"));
    }
    let error = try_to("no", "127.0.0.1", ", sslrootcert = '/nowhere'").expect_err("no file").to_string();
    assert!(error.contains("22023") && error.contains("/nowhere"), "{error}");
    tidemill.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2)");
    tidemill.sql(
        "CREATE SINK s FROM t INTO POSTGRES CONNECTION pg (table = 't', commit_interval = '20 ms') KEY (id)",
    );
    tidemill.sql("WAIT FOR SINK s CURRENT TIMEOUT '30 s'; VERIFY SINK s");
    let encrypted = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name LIKE 'tidemill sink%'";
    assert_eq!(postgres.psql("postgres", encrypted), "t");
    // What would go without it is refused.
    let error = tidemill.try_sql("CREATE SOURCE src FROM POSTGRES CONNECTION pg (publication = 'p')");
    let error = error.expect_err("replication has no TLS").to_string();
    assert!(error.contains("0A000") && error.contains("sslmode"), "{error}");
}
