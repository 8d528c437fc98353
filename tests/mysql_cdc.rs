//! The MySQL source against a real MariaDB server, by SQL alone: in the end every table here is the table there, through
//! kills of either side, and what cannot be followed is said.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::mariadb::MariaDb;
use common::postgres::free_port;
use common::process::Tidemill;

const PATIENCE: Duration = Duration::from_secs(60);

fn eventually<T: PartialEq + std::fmt::Debug>(what: &str, wanted: &T, mut now: impl FnMut() -> T) {
    let start = Instant::now();
    loop {
        let is = now();
        if is == *wanted {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{what}: still {is:?}, not {wanted:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A database of ours that follows `tables` of the server.
fn following(server: &MariaDb, tables: &str) -> (tempfile::TempDir, Tidemill) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let tidemill = Tidemill::start(&directory.path().join("data"));
    tidemill.sql(&connection(server.port, ""));
    tidemill.sql(&format!("CREATE SOURCE s FROM MYSQL CONNECTION my (tables = '{tables}') FOR ALL TABLES"));
    (directory, tidemill)
}

fn connection(port: u16, more: &str) -> String {
    format!("CREATE CONNECTION my TO MYSQL (host = '127.0.0.1', port = {port}, user = 'root'{more})")
}

fn one(tidemill: &Tidemill, sql: &str) -> String {
    let answer = tidemill.try_sql(sql).map(|mut a| a.pop().unwrap_or_default().rows);
    match answer {
        Ok(rows) => rows.first().and_then(|r| r.first().cloned().flatten()).unwrap_or_default(),
        Err(e) => e.to_string(),
    }
}

/// A type, a literal of MySQL's, and the text it has here.
const VALUES: [(&str, &str, &str); 40] = [
    ("tinyint", "-128", "-128"),
    ("tinyint unsigned", "255", "255"),
    ("smallint unsigned", "65535", "65535"),
    ("mediumint", "-8388608", "-8388608"),
    ("mediumint unsigned", "16777215", "16777215"),
    ("year", "2155", "2155"),
    ("year", "0", "0"),
    ("int", "-2147483648", "-2147483648"),
    ("int unsigned", "4294967295", "4294967295"),
    ("bigint", "-9223372036854775808", "-9223372036854775808"),
    ("bigint unsigned", "18446744073709551615", "18446744073709551615"),
    ("float", "1.25e-7", "1.25e-07"),
    ("float", "16777217.3", "1.6777218e+07"),
    ("double", "0.1", "0.1"),
    (
        "decimal(38,10)",
        "-1234567890123456789012345678.0123456789",
        "-1234567890123456789012345678.0123456789",
    ),
    ("decimal(5,2)", "-0.07", "-0.07"),
    ("bit(1)", "b'1'", "t"),
    ("bit(10)", "b'1000000001'", "513"),
    (
        "bit(64)",
        "b'1111111111111111111111111111111111111111111111111111111111111111'",
        "18446744073709551615",
    ),
    ("date", "'2024-02-29'", "2024-02-29"),
    ("date", "'0000-00-00'", "NULL"),
    ("datetime", "'1000-01-01 00:00:01'", "1000-01-01 00:00:01"),
    ("datetime(6)", "'2024-02-29 23:59:59.123456'", "2024-02-29 23:59:59.123456"),
    ("datetime(3)", "'0000-00-00'", "NULL"),
    ("timestamp NULL", "'2024-07-01 02:00:00'", "2024-07-01 00:00:00+00"),
    ("timestamp(3) NULL", "'2024-07-01 02:00:00.25'", "2024-07-01 00:00:00.25+00"),
    ("timestamp NULL", "'0000-00-00'", "NULL"),
    ("time", "'23:59:59'", "23:59:59"),
    ("time(6)", "'00:00:00.000001'", "00:00:00.000001"),
    ("char(10)", "'grün '", "grün"),
    ("varchar(300)", "''", ""),
    ("varchar(20) CHARACTER SET latin1", "'€ – grün'", "€ – grün"),
    ("mediumtext", "repeat('🦀', 3)", "🦀🦀🦀"),
    ("enum('klein','groß') CHARACTER SET latin1", "'groß'", "groß"),
    ("set('a','b','c','d','e','f','g','h','i')", "'a,i'", "a,i"),
    ("json", r#"'{"a": [1, 2.5, "x"], "b": null}'"#, r#"{"a": [1, 2.5, "x"], "b": null}"#),
    ("binary(4)", "x'ab00'", "\\xab000000"),
    ("varbinary(10)", "x'00ff00'", "\\x00ff00"),
    ("blob", "x'5c27'", "\\x5c27"),
    ("int", "NULL", "NULL"),
];

#[test]
fn every_type_is_the_same_from_the_copy_and_from_the_log() {
    let server = MariaDb::start();
    let columns: Vec<String> =
        VALUES.iter().enumerate().map(|(i, (kind, ..))| format!("c{i} {kind}")).collect();
    let values: Vec<&str> = VALUES.iter().map(|(_, value, _)| *value).collect();
    server.sql(&format!(
        "SET NAMES utf8mb4; CREATE DATABASE shop CHARACTER SET utf8mb4; CREATE TABLE shop.days (day date PRIMARY KEY, n int); CREATE TABLE shop.t (id int PRIMARY KEY, {}); INSERT INTO shop.t VALUES (1, {})",
        columns.join(", "),
        values.join(", ")
    ));
    let (_directory, tidemill) = following(&server, "shop.*");
    eventually("the copy", &"1".to_string(), || one(&tidemill, "SELECT count(*) FROM t"));
    server.sql(&format!("SET NAMES utf8mb4; INSERT INTO shop.t VALUES (2, {})", values.join(", ")));
    eventually("the log", &"2".to_string(), || one(&tidemill, "SELECT count(*) FROM t"));
    for (id, from) in [(1, "copy"), (2, "log")] {
        let row = &tidemill.rows(&format!("SELECT * FROM t WHERE id = {id}"))[0];
        for (i, (kind, literal, wanted)) in VALUES.iter().enumerate() {
            assert_eq!(row[i + 1], *wanted, "{kind} {literal} from the {from}");
        }
    }
    assert_eq!(one(&tidemill, "SELECT count(*) FROM tidemill.errors"), "0");
    // No time of day: a bad record, and the rest goes on.
    server.sql("UPDATE shop.t SET c27 = '100:00:00' WHERE id = 1; INSERT INTO shop.t (id) VALUES (3)");
    eventually("a bad record", &"2,3".to_string(), || {
        one(&tidemill, "SELECT string_agg(id::text, ',' ORDER BY id) FROM t")
    });
    assert_eq!(one(&tidemill, "SELECT count(*) FROM tidemill.errors"), "1");
    // A date of zero is no key.
    server.sql("INSERT INTO shop.days VALUES ('0000-00-00', 1), ('2024-01-02', 2)");
    eventually("a day", &"2".to_string(), || one(&tidemill, "SELECT string_agg(n::text, ',') FROM days"));
    assert_eq!(one(&tidemill, "SELECT count(*) FROM tidemill.errors"), "2");
}

/// What the server and we hold of the tables that change below.
fn same(server: &MariaDb, tidemill: &Tidemill) {
    for (there, here) in [
        (
            "SELECT coalesce(group_concat(concat_ws('/', id, name, cast(n AS decimal(10,4))) ORDER BY id), '') FROM shop.keyed",
            "SELECT string_agg(concat_ws('/', id, name, n), ',' ORDER BY id) FROM keyed",
        ),
        (
            "SELECT coalesce(group_concat(concat_ws('/', a, b) ORDER BY a, b), '') FROM shop.bag",
            "SELECT string_agg(concat_ws('/', a, b), ',' ORDER BY a NULLS FIRST, b NULLS FIRST) FROM bag",
        ),
    ] {
        eventually(here, &server.sql(there), || one(tidemill, here));
    }
}

#[test]
fn follows_every_kind_of_change() {
    let server = MariaDb::start();
    server.sql(
        "CREATE DATABASE shop; USE shop; CREATE TABLE shop.keyed (id int, name varchar(20), n decimal(10,4), PRIMARY KEY (id, name));
         CREATE TABLE shop.bag (a int, b text); CREATE TABLE shop.hidden (a int);
         INSERT INTO shop.keyed SELECT seq, concat('n', seq), seq / 7 FROM shop.hidden RIGHT JOIN seq_1_to_30 ON 1;
         INSERT INTO shop.bag VALUES (1, 'x'), (1, 'x'), (NULL, NULL)",
    );
    let (_directory, tidemill) = following(&server, "shop.keyed, shop.b*");
    same(&server, &tidemill);
    for sql in [
        "UPDATE keyed SET n = n + 1 WHERE id % 3 = 0",
        "UPDATE keyed SET id = id + 100 WHERE id < 5",
        "UPDATE keyed SET name = upper(name) WHERE id > 25",
        "DELETE FROM keyed WHERE id BETWEEN 10 AND 15",
        "BEGIN; DELETE FROM keyed WHERE id = 20; INSERT INTO keyed VALUES (20, 'n20', 5); COMMIT",
        "BEGIN; INSERT INTO keyed VALUES (999, 'never', 1); ROLLBACK",
        "DELETE FROM bag LIMIT 1",
        "UPDATE bag SET b = 'y' WHERE a IS NULL",
        "INSERT INTO hidden VALUES (1)",
        "ALTER TABLE keyed ADD COLUMN extra text FIRST, ADD INDEX (n)",
        "INSERT INTO keyed VALUES ('new', 500, 'e', 2)",
        "TRUNCATE bag",
        "INSERT INTO bag VALUES (7, 'after')",
        // Rounds what is there, and the log has no rows of it.
        "ALTER TABLE keyed MODIFY n decimal(10,1)",
        "INSERT INTO keyed VALUES ('new', 501, 'e', 2.25)",
        "ALTER TABLE keyed DROP COLUMN extra",
        "INSERT INTO keyed VALUES (502, 'e', 2.25)",
        "CREATE OR REPLACE TABLE bag (b text, a bigint)",
        "INSERT INTO bag VALUES ('z', 8)",
    ] {
        server.sql(&format!("USE shop; {sql}"));
        if sql.starts_with("ALTER") || sql.starts_with("TRUNCATE") {
            same(&server, &tidemill);
        }
    }
    same(&server, &tidemill);
    assert_eq!(one(&tidemill, "SELECT count(*) FROM tidemill.errors"), "0");
    // A table that is made later from a source that has been copied.
    tidemill.sql("CREATE SOURCE later FROM MYSQL CONNECTION my (tables = 'shop.*')");
    tidemill.sql("CREATE TABLE h1 FROM SOURCE later (REFERENCE shop.hidden)");
    eventually("the first table", &"1".to_string(), || one(&tidemill, "SELECT count(*) FROM h1"));
    tidemill.sql("CREATE TABLE h2 FROM SOURCE later (REFERENCE shop.keyed)");
    let count = server.sql("SELECT count(*) FROM shop.keyed");
    eventually("the second table", &count, || one(&tidemill, "SELECT count(*) FROM h2"));
    // The log that is needed goes away while nobody reads it.
    tidemill.sql("ALTER SOURCE s PAUSE");
    server.sql("DELETE FROM shop.keyed WHERE id < 9; FLUSH BINARY LOGS; INSERT INTO shop.bag VALUES ('q', 9); FLUSH BINARY LOGS");
    let newest = server
        .sql("SHOW BINARY LOGS")
        .lines()
        .last()
        .unwrap_or_default()
        .split('\t')
        .next()
        .map(String::from);
    server.sql(&format!("PURGE BINARY LOGS TO '{}'", newest.expect("a log")));
    tidemill.sql("ALTER SOURCE s RESUME");
    same(&server, &tidemill);
    assert!(tidemill.log().contains("copied again"), "{}", tidemill.log());
    // A column that is gone cannot be followed, which is said; nothing else stops.
    server.sql("ALTER TABLE shop.bag DROP COLUMN a");
    let said = "column \"a\" of shop.bag is gone upstream".to_string();
    eventually("the column is missed", &true, || {
        one(&tidemill, "SELECT error FROM tidemill.sources WHERE name = 's'").contains(&said)
    });
}

#[test]
fn counts_are_exact_whoever_is_killed() {
    let mut server = MariaDb::start();
    server.sql(
        "CREATE DATABASE shop; USE shop; CREATE TABLE shop.accounts (id int PRIMARY KEY, balance bigint) ENGINE=InnoDB;
         CREATE TABLE shop.log (a int, b int); INSERT INTO shop.accounts SELECT seq, 100 FROM mysql.db RIGHT JOIN seq_1_to_100 ON 1;
         DELIMITER //
         CREATE PROCEDURE shop.work(n int) BEGIN
           WHILE n > 0 DO
             START TRANSACTION;
             UPDATE shop.accounts SET balance = balance - 1 WHERE id = 1 + floor(rand() * 100);
             UPDATE shop.accounts SET balance = balance + 1 WHERE id = (SELECT 1 + connection_id() % 100);
             INSERT INTO shop.log VALUES (n, n);
             COMMIT;
             SET n = n - 1;
           END WHILE;
         END //",
    );
    let (_directory, mut tidemill) = following(&server, "shop.*");
    tidemill.sql("CREATE MATERIALIZED VIEW total AS SELECT sum(balance) AS sum FROM accounts");
    eventually("the copy", &"10000".to_string(), || one(&tidemill, "SELECT sum FROM total"));
    let stop = AtomicBool::new(false);
    for round in 0..3 {
        std::thread::scope(|s| {
            let (stop, port) = (&stop, server.port);
            stop.store(false, Ordering::Release);
            let writer = s.spawn(move || {
                while !stop.load(Ordering::Acquire) {
                    // The server is killed under it.
                    let _ = std::process::Command::new("mariadb")
                        .args(["--no-defaults", "-h", "127.0.0.1", "-u", "root", "-P", &port.to_string()])
                        .args(["-e", "CALL shop.work(200)"])
                        .output();
                }
            });
            std::thread::sleep(Duration::from_millis(1500));
            if round != 1 {
                tidemill.kill_and_restart();
            }
            if round != 0 {
                server.kill();
                server.run();
            }
            std::thread::sleep(Duration::from_millis(1000));
            stop.store(true, Ordering::Release);
            writer.join().expect("the writer ends");
        });
        let there = server.sql("SELECT count(*), sum(a), sum(b) FROM shop.log").replace('\t', "/");
        eventually("the log", &there, || {
            one(&tidemill, "SELECT count(*) || '/' || sum(a) || '/' || sum(b) FROM log")
        });
        let there =
            server.sql("SELECT sum(balance), sum(balance * id) FROM shop.accounts").replace('\t', "/");
        eventually("balances", &there, || {
            one(&tidemill, "SELECT sum(balance) || '/' || sum(balance * id) FROM accounts")
        });
        assert_eq!(one(&tidemill, "SELECT count(*) FROM tidemill.errors"), "0");
    }
    assert!(server.sql("SELECT count(*) FROM shop.log").parse::<u64>().is_ok_and(|n| n > 10));
}

#[test]
fn goes_on_at_a_replica_behind_the_last_transaction() {
    let mut first = MariaDb::start();
    first.sql("CREATE DATABASE shop; CREATE TABLE shop.t (id int PRIMARY KEY, n int); INSERT INTO shop.t VALUES (1, 1)");
    let mut second = MariaDb::replica_of(&first);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut tidemill = Tidemill::start(&directory.path().join("data"));
    tidemill.sql(&format!(
        "CREATE CONNECTION my TO MYSQL (host = '127.0.0.1, 127.0.0.1', port = '{}, {}', user = 'root');
         CREATE SOURCE s FROM MYSQL CONNECTION my (tables = 'shop.*') FOR ALL TABLES;
         CREATE MATERIALIZED VIEW total AS SELECT count(*) AS rows, sum(n) AS n FROM t",
        first.port, second.port
    ));
    let same = |server: &MariaDb, tidemill: &Tidemill| {
        let there = server.sql("SELECT count(*), sum(n), sum(id) FROM shop.t").replace('\t', "/");
        eventually("the table", &there, || {
            one(tidemill, "SELECT count(*) || '/' || sum(n) || '/' || sum(id) FROM t")
        });
        tidemill.sql("CHECK MATERIALIZED VIEW total");
    };
    // The log of the second has other files and offsets for the same transactions.
    first.sql("USE shop; INSERT INTO shop.t SELECT seq, seq FROM mysql.db RIGHT JOIN seq_2_to_50 ON 1; FLUSH BINARY LOGS; UPDATE shop.t SET n = n + 1");
    same(&first, &tidemill);
    let position = first.sql("SELECT @@gtid_binlog_pos");
    eventually("the replica", &position, || second.sql("SELECT @@gtid_binlog_pos"));
    first.kill();
    second.sql("STOP SLAVE; DELETE FROM shop.t WHERE id = 7; INSERT INTO shop.t VALUES (100, 100)");
    same(&second, &tidemill);
    tidemill.kill_and_restart();
    second.sql("UPDATE shop.t SET n = 0 WHERE id < 5");
    same(&second, &tidemill);
    assert!(!tidemill.log().contains("copied again"), "{}", tidemill.log());
    // The first comes back without what happened meanwhile: what follows our last transaction is not known there.
    second.kill();
    first.run();
    same(&first, &tidemill);
    eventually("a new copy is told of", &true, || {
        tidemill.log().contains("does not have the binary log that is needed")
    });
}

#[test]
fn follows_by_tls_as_far_as_the_certificate_is_trusted() {
    let mut server = MariaDb::start();
    let authority = server.require_tls();
    server
        .sql("CREATE DATABASE shop; CREATE TABLE shop.t (id int PRIMARY KEY); INSERT INTO shop.t VALUES (1)");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let tidemill = Tidemill::start(&directory.path().join("data"));
    let connection = |name: &str, more: &str| {
        format!(
            "CREATE CONNECTION {name} TO MYSQL (host = '127.0.0.1', port = {}, user = 'secure'{more})",
            server.port
        )
    };
    let error = tidemill.try_sql(&connection("plain", "")).expect_err("without TLS").to_string();
    assert!(error.contains("Access denied"), "{error}");
    let error = tidemill
        .try_sql(&connection("untrusted", ", sslmode = 'verify-full'"))
        .expect_err("unknown authority");
    assert!(error.to_string().contains("08006"), "{error}");
    for (name, more) in [
        ("required", ", sslmode = 'require'".to_string()),
        ("full", format!(", sslmode = 'verify-full', sslrootcert = '{}'", authority.display())),
    ] {
        tidemill.sql(&connection(name, &more));
        tidemill.sql(&format!(
            "CREATE SOURCE s_{name} FROM MYSQL CONNECTION {name} (tables = 'shop.*');
             CREATE TABLE t_{name} FROM SOURCE s_{name} (REFERENCE shop.t)"
        ));
    }
    server.sql("INSERT INTO shop.t VALUES (2)");
    for name in ["required", "full"] {
        eventually("the table", &"2".to_string(), || {
            one(&tidemill, &format!("SELECT count(*) FROM t_{name}"))
        });
    }
}

#[test]
fn what_is_wrong_is_said_at_once() {
    let server = MariaDb::start();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let tidemill = Tidemill::start(&directory.path().join("data"));
    let refused = |sql: &str, state: &str, words: &str| {
        let error = tidemill.try_sql(sql).expect_err(sql).to_string();
        assert!(error.contains(state) && error.contains(words), "{sql}\n{error}");
    };
    refused(&connection(free_port(), ""), "08006", "refused");
    refused(&connection(server.port, ", password = 'wrong'"), "08006", "Access denied for user");
    refused(&connection(server.port, ", colour = 'red'"), "22023", "colour");
    refused(
        "CREATE CONNECTION my TO MYSQL (host = 'a, b, c', port = '1, 2', user = 'root')",
        "22023",
        "2 ports are given for 3 hosts",
    );
    refused(&connection(server.port, ", sslmode = 'perhaps'"), "22023", "perhaps");
    // It has no certificate.
    refused(&connection(server.port, ", sslmode = 'require'"), "08006", "");
    server.sql("SET GLOBAL binlog_row_image = 'MINIMAL'");
    refused(&connection(server.port, ""), "55000", "binlog_row_image is MINIMAL");
    server.sql("SET GLOBAL binlog_row_image = 'FULL'; SET GLOBAL binlog_row_metadata = 'NO_LOG'");
    refused(&connection(server.port, ""), "55000", "binlog_row_metadata is NO_LOG");
    server.sql("SET GLOBAL binlog_row_metadata = 'FULL'; CREATE DATABASE shop; CREATE TABLE shop.t (u uuid)");
    tidemill.sql(&connection(server.port, ""));
    refused(
        "CREATE SOURCE s FROM MYSQL CONNECTION my (tables = 'nowhere.*') FOR ALL TABLES",
        "42P01",
        "nowhere.*",
    );
    refused(
        "CREATE SOURCE s FROM MYSQL CONNECTION my (tables = 'shop.*') FOR ALL TABLES",
        "0A000",
        "the type uuid",
    );
    refused("CREATE SOURCE s FROM MYSQL CONNECTION my FOR ALL TABLES", "22023", "tables");
}
