//! Statements through the library's own session: DML, transactions, constraints, cursors, settings.

mod database;

use database::{Db, error, rows};

#[test]
fn a_view_follows_its_table() {
    let db = Db::new();
    let mut s = db.session();
    s.run("CREATE TABLE orders (id bigint PRIMARY KEY, customer text, amount numeric(12,2))");
    s.run("CREATE MATERIALIZED VIEW totals AS SELECT customer, count(*) AS n, sum(amount) AS amount FROM orders GROUP BY customer");
    assert_eq!(
        s.tag("INSERT INTO orders VALUES (1, 'ada', 12.50), (2, 'bob', 3), (3, 'ada', 1.25)"),
        "INSERT 0 3"
    );
    assert_eq!(s.rows("SELECT * FROM totals ORDER BY customer"), rows(&["ada|2|13.75", "bob|1|3.00"]));
    assert_eq!(s.tag("UPDATE orders SET amount = amount + 1 WHERE customer = 'ada'"), "UPDATE 2");
    assert_eq!(s.tag("DELETE FROM orders WHERE id = 2"), "DELETE 1");
    assert_eq!(s.rows("SELECT * FROM totals ORDER BY customer"), rows(&["ada|2|15.75"]));
    s.run("CHECK MATERIALIZED VIEW totals");
    assert_eq!(s.tag("TRUNCATE orders"), "TRUNCATE TABLE");
    assert_eq!(s.rows("SELECT * FROM totals"), rows(&[]));
}

#[test]
fn constraints_are_told_as_postgres_tells_them() {
    let db = Db::new();
    let mut s = db.session();
    s.run(
        "CREATE TABLE t (id int PRIMARY KEY, name text NOT NULL DEFAULT 'x', at timestamptz DEFAULT now())",
    );
    s.run("INSERT INTO t (id) VALUES (1)");
    let e = s.error("INSERT INTO t VALUES (1, 'again')");
    assert_eq!(error(&e), ("23505", "duplicate key value violates unique constraint \"t_pkey\""));
    assert_eq!(e.detail.as_deref(), Some("Key (id)=(1) already exists."));
    let e = s.error("INSERT INTO t VALUES (2, NULL, NULL)");
    assert_eq!(
        error(&e),
        ("23502", "null value in column \"name\" of relation \"t\" violates not-null constraint")
    );
    assert_eq!(e.detail.as_deref(), Some("Failing row contains (2, null, null)."));
    assert_eq!(s.error("INSERT INTO t (id) VALUES (5), (5)").sqlstate.0, "23505");
    assert_eq!(s.error("UPDATE t SET id = NULL").sqlstate.0, "23502");
    assert_eq!(s.rows("SELECT id, name, at IS NOT NULL FROM t"), rows(&["1|x|t"]));
    // Keys may move among the rows of one statement.
    s.run("INSERT INTO t (id) VALUES (2), (3)");
    assert_eq!(s.tag("UPDATE t SET id = id + 1"), "UPDATE 3");
    assert_eq!(s.rows("SELECT id FROM t ORDER BY 1"), rows(&["2", "3", "4"]));
    assert_eq!(s.error("UPDATE t SET id = 7").sqlstate.0, "23505");
}

#[test]
fn on_conflict_and_returning() {
    let db = Db::new();
    let mut s = db.session();
    s.run("CREATE TABLE c (k text PRIMARY KEY, n int)");
    assert_eq!(
        s.rows("INSERT INTO c VALUES ('a', 1), ('b', 2) RETURNING k, n * 10 AS ten"),
        rows(&["a|10", "b|20"])
    );
    assert_eq!(
        s.tag("INSERT INTO c VALUES ('a', 5), ('c', 3), ('c', 4) ON CONFLICT DO NOTHING"),
        "INSERT 0 1"
    );
    assert_eq!(
        s.rows("INSERT INTO c VALUES ('d', 1), ('a', 5), ('b', 6) ON CONFLICT (k) DO UPDATE SET n = c.n + excluded.n WHERE c.n < 2 RETURNING k, n"),
        rows(&["d|1", "a|6"])
    );
    assert_eq!(s.rows("SELECT * FROM c ORDER BY k"), rows(&["a|6", "b|2", "c|3", "d|1"]));
    let e = s.error("INSERT INTO c VALUES ('a', 1), ('a', 2) ON CONFLICT (k) DO UPDATE SET n = 0");
    assert_eq!(e.sqlstate.0, "21000");
    assert_eq!(s.rows("DELETE FROM c WHERE n < 4 RETURNING k").len(), 3);
    assert_eq!(s.rows("UPDATE c SET n = 0 RETURNING *"), rows(&["a|0"]));
    s.run("BEGIN; INSERT INTO c VALUES ('z', 1); INSERT INTO c VALUES ('z', 2) ON CONFLICT (k) DO UPDATE SET n = c.n + excluded.n");
    assert_eq!(s.rows("SELECT n FROM c WHERE k = 'z'"), rows(&["3"]));
    s.run("COMMIT");
}

#[test]
fn a_block_is_one_tick_and_sees_itself() {
    let db = Db::new();
    let (mut a, mut b) = (db.session(), db.session());
    a.run("CREATE TABLE t (id int PRIMARY KEY, v int)");
    let before = db.database.engine().tick();
    a.run("BEGIN");
    a.run("INSERT INTO t VALUES (1, 1)");
    a.run("INSERT INTO t VALUES (2, 2)");
    a.run("UPDATE t SET v = v * 10 WHERE id = 2");
    assert_eq!(a.rows("SELECT sum(v) FROM t"), rows(&["21"]));
    assert_eq!(b.rows("SELECT count(*) FROM t"), rows(&["0"]));
    a.run("COMMIT");
    assert_eq!(db.database.engine().tick(), before + 1);
    assert_eq!(b.rows("SELECT * FROM t ORDER BY id"), rows(&["1|1", "2|20"]));
    a.run("BEGIN");
    a.run("DELETE FROM t");
    a.run("ROLLBACK");
    assert_eq!(a.rows("SELECT count(*) FROM t"), rows(&["2"]));
    // A string of statements is one transaction, too.
    assert_eq!(a.error("INSERT INTO t VALUES (3, 3); INSERT INTO t VALUES (3, 4)").sqlstate.0, "23505");
    assert_eq!(a.rows("SELECT count(*) FROM t"), rows(&["2"]));
}

#[test]
fn reads_of_a_block_are_repeatable_and_the_first_committer_wins() {
    let db = Db::new();
    let (mut a, mut b) = (db.session(), db.session());
    a.run("CREATE TABLE t (id int PRIMARY KEY, v int)");
    a.run("INSERT INTO t VALUES (1, 1), (2, 2)");
    a.run("BEGIN");
    assert_eq!(a.rows("SELECT v FROM t WHERE id = 1"), rows(&["1"]));
    b.run("UPDATE t SET v = 100 WHERE id = 1");
    assert_eq!(a.rows("SELECT v FROM t WHERE id = 1"), rows(&["1"]));
    a.run("UPDATE t SET v = v + 1 WHERE id = 1");
    assert_eq!(a.error("COMMIT").sqlstate.0, "40001");
    assert_eq!(b.rows("SELECT v FROM t ORDER BY id"), rows(&["100", "2"]));
    // Another row is no conflict.
    a.run("BEGIN");
    a.run("UPDATE t SET v = 7 WHERE id = 2");
    b.run("UPDATE t SET v = 101 WHERE id = 1");
    a.run("COMMIT");
    assert_eq!(b.rows("SELECT v FROM t ORDER BY id"), rows(&["101", "7"]));
    // The same for rows without a key.
    a.run("CREATE TABLE bag (v int)");
    a.run("INSERT INTO bag VALUES (1), (2)");
    a.run("BEGIN");
    a.run("DELETE FROM bag WHERE v = 1");
    b.run("DELETE FROM bag WHERE v = 1");
    assert_eq!(a.error("COMMIT").sqlstate.0, "40001");
    assert_eq!(b.rows("SELECT * FROM bag"), rows(&["2"]));
}

#[test]
fn a_failed_block_takes_nothing_but_its_end() {
    let db = Db::new();
    let mut s = db.session();
    s.run("CREATE TABLE t (id int PRIMARY KEY)");
    s.run("BEGIN");
    s.run("INSERT INTO t VALUES (1)");
    assert_eq!(s.error("SELECT nothing FROM t").sqlstate.0, "42703");
    assert_eq!(s.error("SELECT 1").sqlstate.0, "25P02");
    assert_eq!(s.tag("COMMIT"), "ROLLBACK");
    assert_eq!(s.rows("SELECT count(*) FROM t"), rows(&["0"]));
    s.run("BEGIN READ ONLY");
    assert_eq!(s.error("INSERT INTO t VALUES (1)").sqlstate.0, "25006");
    s.run("ROLLBACK");
    // What a block has created goes with it; what cannot be undone is refused.
    s.run("BEGIN");
    s.run("CREATE TABLE u (id int)");
    s.run("INSERT INTO u VALUES (1)");
    assert_eq!(s.rows("SELECT * FROM u"), rows(&["1"]));
    s.run("ROLLBACK");
    assert_eq!(s.error("SELECT * FROM u").sqlstate.0, "42P01");
    s.run("BEGIN");
    assert_eq!(s.error("DROP TABLE t").sqlstate.0, "25001");
    s.run("ROLLBACK");
}

#[test]
fn many_single_statements_at_once_never_fail() {
    let db = Db::new();
    db.session().run("CREATE TABLE counters (id int PRIMARY KEY, n int); INSERT INTO counters VALUES (1, 0)");
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let mut s = db.session();
            std::thread::spawn(move || {
                for _ in 0..20 {
                    s.run("UPDATE counters SET n = n + 1 WHERE id = 1");
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
    assert_eq!(db.session().rows("SELECT n FROM counters"), rows(&["160"]));
}

#[test]
fn copy_fills_a_table() {
    let db = Db::new();
    let mut s = db.session();
    s.run("CREATE TABLE t (id int PRIMARY KEY, name text NOT NULL, tag text DEFAULT 'none')");
    assert_eq!(
        s.copy("COPY t (id, name) FROM STDIN", &["1\ta", "b\n2\t\\N\n"]).unwrap_err().sqlstate.0,
        "23502"
    );
    assert_eq!(s.copy("COPY t (id, name) FROM STDIN", &["1\ta", "b\n2\tc\n"]).unwrap(), "COPY 2");
    assert_eq!(
        s.copy("COPY t FROM STDIN WITH (FORMAT csv, HEADER)", &["id,name,tag\n3,\"x,y\",\n"]).unwrap(),
        "COPY 1"
    );
    assert_eq!(s.rows("SELECT * FROM t ORDER BY id"), rows(&["1|ab|none", "2|c|none", "3|x,y|NULL"]));
    assert_eq!(s.copy("COPY t (id, name) FROM STDIN", &["3\tz\n"]).unwrap_err().sqlstate.0, "23505");
    assert_eq!(s.rows("SELECT count(*) FROM t"), rows(&["3"]));
}

#[test]
fn prepared_statements_have_parameters() {
    let db = Db::new();
    let mut s = db.session();
    s.run("CREATE TABLE t (id bigint PRIMARY KEY, name text)");
    s.run("PREPARE put (bigint, text) AS INSERT INTO t VALUES ($1, $2)");
    s.run("EXECUTE put (1, 'one')");
    s.run("EXECUTE put (1 + 1, upper('two'))");
    s.run("PREPARE get AS SELECT name FROM t WHERE id = $1");
    assert_eq!(s.rows("EXECUTE get (2)"), rows(&["TWO"]));
    assert_eq!(s.error("EXECUTE get").sqlstate.0, "42601");
    assert_eq!(s.error("PREPARE get AS SELECT 1").sqlstate.0, "42P05");
    s.run("DEALLOCATE get");
    assert_eq!(s.error("EXECUTE get (2)").sqlstate.0, "26000");
    assert_eq!(s.error("EXECUTE put (1, 'again')").sqlstate.0, "23505");
}

#[test]
fn settings_are_kept_and_unknown_ones_refused() {
    let db = Db::new();
    let mut s = db.session();
    assert_eq!(s.rows("SHOW client_encoding"), rows(&["UTF8"]));
    s.run("SET application_name = 'me'");
    assert_eq!(s.rows("SHOW application_name"), rows(&["me"]));
    assert_eq!(s.error("SET nonsense = 1").sqlstate.0, "42704");
    assert_eq!(s.error("SHOW nonsense").sqlstate.0, "42704");
    s.run("BEGIN; SET application_name = 'you'; ROLLBACK");
    assert_eq!(s.rows("SHOW application_name"), rows(&["me"]));
    s.run("RESET application_name");
    assert_eq!(s.rows("SHOW application_name"), rows(&[""]));
    s.run("SET statement_timeout = '50ms'");
    let e = s.error(
        "SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 100000) b WHERE a.a + b.b < 0",
    );
    assert_eq!(error(&e), ("57014", "canceling statement due to statement timeout"));
}

#[test]
fn a_running_statement_can_be_cancelled() {
    let db = Db::new();
    let mut s = db.session();
    s.run("CREATE TABLE t (id int PRIMARY KEY)");
    let handle = s.cancel_handle();
    let canceller = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        handle.cancel();
    });
    let e = s.error("SUBSCRIBE t");
    assert_eq!(error(&e), ("57014", "canceling statement due to user request"));
    canceller.join().unwrap();
    assert_eq!(s.rows("SELECT 1"), rows(&["1"]));
}

#[test]
fn a_cursor_reads_a_query_and_a_subscription() {
    let db = Db::new();
    let (mut s, mut other) = (db.session(), db.session());
    s.run("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2), (3)");
    assert_eq!(s.error("DECLARE c CURSOR FOR SELECT 1").sqlstate.0, "25P01");
    s.run("BEGIN");
    s.run("DECLARE c CURSOR FOR SELECT id FROM t ORDER BY id");
    assert_eq!(s.rows("FETCH 2 FROM c"), rows(&["1", "2"]));
    assert_eq!(s.rows("FETCH ALL FROM c"), rows(&["3"]));
    s.run("CLOSE c");
    s.run("DECLARE f CURSOR FOR SUBSCRIBE (SELECT id * 10 AS ten FROM t)");
    let first = s.rows("FETCH ALL FROM f WITH (timeout = '2 s')");
    assert_eq!(first.len(), 3, "{first:?}");
    assert!(first.iter().all(|r| r.contains("|f|1|")), "{first:?}");
    other.run("BEGIN; DELETE FROM t WHERE id = 1; INSERT INTO t VALUES (4); COMMIT");
    let mut changes = s.rows("FETCH ALL FROM f WITH (timeout = '2 s')");
    changes.sort();
    let shown: Vec<&str> = changes.iter().filter_map(|r| r.split_once('|').map(|(_, rest)| rest)).collect();
    assert_eq!(shown, ["f|-1|10", "f|1|40"]);
    s.run("COMMIT");
    assert_eq!(s.error("FETCH 1 FROM f").sqlstate.0, "34000");
    assert_eq!(s.rows("SELECT count(*) FROM tidemill.subscriptions"), rows(&["0"]));
}

#[test]
fn objects_are_listed_described_and_dropped() {
    let db = Db::new();
    let mut s = db.session();
    s.run("CREATE SECRET pw AS 'hush'; CREATE TABLE t (id int PRIMARY KEY); CREATE VIEW v AS SELECT id + 1 AS next FROM t");
    s.run("CREATE MATERIALIZED VIEW m AS SELECT next * 2 AS twice FROM v; CREATE INDEX ON m (twice)");
    s.run("COMMENT ON TABLE t IS 'numbers'; COMMENT ON COLUMN t.id IS 'the number'");
    s.run("INSERT INTO t VALUES (1)");
    assert_eq!(s.rows("SELECT name, rows, comment FROM tidemill.tables"), rows(&["t|1|numbers"]));
    assert_eq!(s.rows("SELECT name, status, rows FROM tidemill.materialized_views"), rows(&["m|running|1"]));
    assert_eq!(s.rows("SHOW COLUMNS FROM t"), rows(&["id|integer|f|NULL|the number"]));
    assert_eq!(s.rows("SHOW INDEXES"), rows(&["m_twice_idx|m|twice"]));
    let secret = s.rows("SHOW CREATE SECRET pw").join("");
    assert!(!secret.contains("hush"), "{secret}");
    assert!(s.rows("SHOW CREATE MATERIALIZED VIEW m").join("").contains("next * 2"));
    assert_eq!(s.error("CREATE TABLE t (x int)").sqlstate.0, "42P07");
    s.run("CREATE TABLE IF NOT EXISTS t (x int)");
    let e = s.error("DROP TABLE t");
    assert_eq!(e.sqlstate.0, "2BP01");
    s.run("CREATE OR REPLACE MATERIALIZED VIEW m AS SELECT next * 3 AS thrice FROM v");
    assert_eq!(s.rows("SELECT thrice FROM m"), rows(&["6"]));
    assert_eq!(s.rows("SELECT count(*) FROM tidemill.indexes"), rows(&["0"]));
    s.run("DROP TABLE t CASCADE");
    assert_eq!(s.error("SELECT * FROM m").sqlstate.0, "42P01");
    assert_eq!(s.rows("SELECT count(*) FROM tidemill.materialized_views"), rows(&["0"]));
    s.run("DROP TABLE IF EXISTS t");
    s.run("CREATE TABLE made AS SELECT 1 AS a, 'x' AS b");
    assert_eq!(s.rows("SELECT * FROM made"), rows(&["1|x"]));
    assert!(s.rows("EXPLAIN SELECT a, count(*) FROM made GROUP BY a").len() > 1);
    s.run("ALTER TABLE made RENAME TO named");
    assert_eq!(s.rows("SELECT a FROM named"), rows(&["1"]));
}

#[test]
fn a_subscription_ends_when_what_it_reads_is_dropped() {
    let db = Db::new();
    let mut s = db.session();
    s.run("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)");
    let mut follower = db.session();
    let thread = std::thread::spawn(move || follower.error("SUBSCRIBE (SELECT id FROM t WHERE id > 0)"));
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while s.rows("SELECT count(*) FROM tidemill.subscriptions") != rows(&["1"]) {
        assert!(std::time::Instant::now() < until);
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    s.run("DROP TABLE t");
    let e = thread.join().unwrap();
    assert_eq!(e.sqlstate.0, "42P01", "{e}");
    // Its identity is free in the engine, too: nothing of it was left.
    assert_eq!(s.rows("SELECT count(*) FROM tidemill.subscriptions"), rows(&["0"]));
    let names: Vec<String> = db.database.engine().stats().collections.into_iter().map(|c| c.name).collect();
    assert_eq!(names, ["tidemill.errors", "tidemill.files"]);
}

#[test]
fn a_broken_off_block_leaves_nothing() {
    let db = Db::new();
    let mut gone = db.session();
    gone.run("BEGIN; CREATE TABLE made (id int); INSERT INTO made VALUES (1)");
    drop(gone);
    let mut s = db.session();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while s.rows("SELECT count(*) FROM tidemill.tables") != rows(&["0"]) {
        assert!(std::time::Instant::now() < until);
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn prepared_statements_follow_what_is_changed_under_them() {
    let db = Db::new();
    let mut s = db.session();
    s.run("CREATE TABLE t (id int PRIMARY KEY, v int); CREATE VIEW v AS SELECT id, v FROM t; INSERT INTO t VALUES (1, 1)");
    s.run("PREPARE get AS SELECT v FROM v WHERE id = $1");
    s.run("PREPARE put AS UPDATE t SET v = v + $2 WHERE id = $1 RETURNING v");
    assert_eq!(s.rows("EXECUTE put (1, 5)"), rows(&["6"]));
    assert_eq!(s.rows("EXECUTE get (1)"), rows(&["6"]));
    s.run("CREATE OR REPLACE VIEW v AS SELECT id, v * 100 AS v FROM t");
    assert_eq!(s.rows("EXECUTE get (1)"), rows(&["600"]));
    s.run("DROP TABLE t CASCADE; CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 40)");
    assert_eq!(s.rows("EXECUTE put (1, 2)"), rows(&["42"]));
    assert_eq!(s.error("EXECUTE get (1)").sqlstate.0, "42P01");
}
