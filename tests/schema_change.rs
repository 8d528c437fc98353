//! Columns that change upstream while a source follows: what becomes of the tables, of the views over them and of the
//! source, under each policy, against real servers and through kills at every step.

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::mariadb::MariaDb;
use common::postgres::Postgres;
use common::process::Tidemill;
use common::until;

/// The server that is followed: what differs between the two.
trait Upstream {
    fn run(&self, sql: &str);
    /// A table's rows, each as text with `/` between values and `-` for NULL.
    fn rows(&self, table: &str, columns: &[&str]) -> Vec<Vec<String>>;
    /// CREATE CONNECTION and CREATE SOURCE … FOR ALL TABLES with this at its end.
    fn connect(&self, policy: &str) -> String;
    /// The statement that makes `total` a bigint.
    fn widen(&self) -> &'static str;
}

impl Upstream for Postgres {
    fn run(&self, sql: &str) {
        self.psql("shop", sql);
    }

    fn rows(&self, table: &str, columns: &[&str]) -> Vec<Vec<String>> {
        let columns: Vec<String> =
            columns.iter().map(|c| format!("coalesce(\"{c}\"::text, 'NULL')")).collect();
        let text = self.psql("shop", &format!("SELECT concat_ws('/', {}) FROM {table}", columns.join(", ")));
        split(&text, '/')
    }

    fn widen(&self) -> &'static str {
        "ALTER TABLE orders ALTER COLUMN total TYPE bigint"
    }

    fn connect(&self, policy: &str) -> String {
        format!(
            "CREATE CONNECTION up TO POSTGRES (host = '127.0.0.1', port = {}, user = 'postgres', database = 'shop');
             CREATE SOURCE s FROM POSTGRES CONNECTION up (publication = 'pub') FOR ALL TABLES {policy}",
            self.port
        )
    }
}

impl Upstream for MariaDb {
    fn run(&self, sql: &str) {
        self.sql(&format!("USE shop; {sql}"));
    }

    fn rows(&self, table: &str, columns: &[&str]) -> Vec<Vec<String>> {
        let columns: Vec<String> = columns.iter().map(|c| format!("coalesce(`{c}`, 'NULL')")).collect();
        let text = self.sql(&format!("SELECT concat_ws('/', {}) FROM shop.{table}", columns.join(", ")));
        split(&text, '/')
    }

    fn widen(&self) -> &'static str {
        "ALTER TABLE orders MODIFY total bigint"
    }

    fn connect(&self, policy: &str) -> String {
        format!(
            "CREATE CONNECTION up TO MYSQL (host = '127.0.0.1', port = {}, user = 'root');
             CREATE SOURCE s FROM MYSQL CONNECTION up (tables = 'shop.*') FOR ALL TABLES {policy}",
            self.port
        )
    }
}

fn split(text: &str, by: char) -> Vec<Vec<String>> {
    let mut rows: Vec<Vec<String>> =
        text.lines().map(|line| line.split(by).map(str::to_string).collect()).collect();
    rows.sort();
    rows
}

const SCHEMA: &str = "CREATE TABLE orders (id int PRIMARY KEY, customer varchar(20), total int);
    INSERT INTO orders VALUES (1, 'ann', 10), (2, 'bob', 20), (3, 'ann', 30);
    CREATE TABLE notes (id int PRIMARY KEY, note varchar(20)); INSERT INTO notes VALUES (1, 'x')";

fn postgres() -> Postgres {
    let server = Postgres::start();
    server.psql("postgres", "CREATE DATABASE shop");
    server.psql("shop", SCHEMA);
    server.psql("shop", "CREATE PUBLICATION pub FOR ALL TABLES");
    server
}

fn mariadb() -> MariaDb {
    let server = MariaDb::start();
    server.sql(&format!("CREATE DATABASE shop; USE shop; {SCHEMA}"));
    server
}

/// Views over what changes: all columns, a join in which a new column may be ambiguous, an aggregate, one upon another.
const VIEWS: &str = "
    CREATE MATERIALIZED VIEW everything AS SELECT * FROM orders;
    CREATE VIEW plain AS SELECT * FROM orders WHERE total > 0;
    CREATE MATERIALIZED VIEW over_plain AS SELECT * FROM plain;
    CREATE MATERIALIZED VIEW joined AS SELECT o.id, note FROM orders o LEFT JOIN notes n ON n.id = o.id;
    CREATE MATERIALIZED VIEW spent AS SELECT customer, sum(total) AS total FROM orders GROUP BY customer";

fn start(data: &Path, upstream: &dyn Upstream, policy: &str) -> Tidemill {
    let server = Tidemill::start(data);
    server.sql(&upstream.connect(policy));
    until(&server, "SELECT count(*) FROM orders", &[&["3"]]);
    server.sql(VIEWS);
    server
}

/// Our table has come to be the one upstream, and every view is what its query gives.
fn same(server: &Tidemill, upstream: &dyn Upstream, columns: &[&str]) {
    let start = Instant::now();
    let here: Vec<String> = columns.iter().map(|c| format!("coalesce(\"{c}\"::text, 'NULL')")).collect();
    loop {
        let wanted = upstream.rows("orders", columns);
        let rows = server.try_sql(&format!("SELECT {} FROM orders", here.join(", "))).map(|mut a| {
            let rows = a.pop().unwrap_or_default().rows;
            let mut rows: Vec<Vec<String>> =
                rows.into_iter().map(|r| r.into_iter().map(Option::unwrap_or_default).collect()).collect();
            rows.sort();
            rows
        });
        if rows.as_ref().is_ok_and(|rows| *rows == wanted) {
            break;
        }
        let sources = server.rows("SELECT status, error FROM tidemill.sources");
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "{rows:?}\nnot {wanted:?}\n{sources:?}\n{}",
            server.log()
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    views_are_right(server);
}

fn views_are_right(server: &Tidemill) {
    for view in ["everything", "over_plain", "joined", "spent"] {
        server.sql(&format!("CHECK MATERIALIZED VIEW {view}"));
    }
    let columns = |view: &str| {
        server.rows(&format!("SELECT name FROM tidemill.columns WHERE relation = '{view}' ORDER BY position"))
    };
    for view in ["everything", "plain", "over_plain"] {
        assert_eq!(columns(view).concat(), ["customer", "id", "total"], "{view}");
    }
}

fn evolves(upstream: &dyn Upstream) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let data = directory.path().join("data");
    let mut server = start(&data, upstream, "ON SCHEMA CHANGE EVOLVE");
    assert_eq!(server.rows("SELECT on_schema_change FROM tidemill.sources"), [["evolve"]]);
    let created = server.rows("SHOW CREATE SOURCE s").concat().concat();
    assert!(created.contains("ON SCHEMA CHANGE EVOLVE"), "{created}");
    // A column without a default; its name makes the view `joined` ambiguous, were it planned today.
    upstream.run("ALTER TABLE orders ADD COLUMN note varchar(20)");
    upstream
        .run("INSERT INTO orders VALUES (4, 'cid', 40, 'new'); UPDATE orders SET note = 'old' WHERE id = 1");
    same(&server, upstream, &["id", "customer", "total", "note"]);
    server.kill_and_restart();
    same(&server, upstream, &["id", "customer", "total", "note"]);
    // What is made now sees it.
    server.sql("CREATE MATERIALIZED VIEW later AS SELECT * FROM orders");
    server.sql("CHECK MATERIALIZED VIEW later");
    assert_eq!(server.rows("SELECT count(*) FROM tidemill.columns WHERE relation = 'later'"), [["4"]]);
    // A column with a default has a value in every row, and the log does not tell of it.
    upstream.run("ALTER TABLE orders ADD COLUMN state varchar(10) DEFAULT 'open'");
    upstream.run("INSERT INTO orders (id, customer, total) VALUES (5, 'dan', 50)");
    same(&server, upstream, &["id", "customer", "total", "note", "state"]);
    // Another name is another column; the old one is NULL from then on.
    upstream.run("ALTER TABLE orders RENAME COLUMN customer TO buyer");
    upstream.run("INSERT INTO orders (id, buyer, total) VALUES (6, 'eve', 60)");
    same(&server, upstream, &["id", "buyer", "total", "note", "state"]);
    until(&server, "SELECT DISTINCT customer FROM orders", &[&["NULL"]]);
    until(&server, "SELECT total FROM spent", &[&["210"]]);
    let differs = "SELECT upstream_differs FROM tidemill.tables WHERE name = 'orders'";
    until(&server, differs, &[&["column \"customer\" is gone upstream"]]);
    // Wider: what fits is taken, the rest is in tidemill.errors.
    upstream.run(upstream.widen());
    upstream.run("INSERT INTO orders (id, buyer, total) VALUES (7, 'fay', 70)");
    same(&server, upstream, &["id", "buyer", "total", "note", "state"]);
    upstream.run("INSERT INTO orders (id, buyer, total) VALUES (8, 'gus', 8000000000), (9, 'hal', 90)");
    until(&server, "SELECT id, total FROM orders WHERE id > 7", &[&["9", "90"]]);
    until(&server, "SELECT sqlstate FROM tidemill.errors", &[&["22003"]]);
    until(
        &server,
        differs,
        &[&["column \"customer\" is gone upstream; column \"total\" is bigint upstream and integer here"]],
    );
    upstream.run("DELETE FROM orders WHERE id = 8");
    // Gone.
    upstream.run("ALTER TABLE orders DROP COLUMN note");
    upstream.run("INSERT INTO orders (id, buyer, total) VALUES (10, 'ian', 100)");
    same(&server, upstream, &["id", "buyer", "total", "state"]);
    until(&server, "SELECT note FROM orders WHERE id = 10", &[&["NULL"]]);
    server.kill_and_restart();
    same(&server, upstream, &["id", "buyer", "total", "state"]);
    server.sql("CHECK MATERIALIZED VIEW later");
    // A view that is replaced sees what there is now, and keeps doing so.
    server.sql("CREATE VIEW newer AS SELECT id, customer, total, state FROM orders");
    server.sql("CREATE OR REPLACE VIEW newer AS SELECT id, customer, total, state, buyer FROM orders");
    server.kill_and_restart();
    until(&server, "SELECT buyer FROM newer WHERE id = 10", &[&["ian"]]);
}

#[test]
fn postgres_tables_evolve() {
    evolves(&postgres());
}

#[test]
fn mariadb_tables_evolve() {
    evolves(&mariadb());
}

fn pauses_and_ignores(upstream: &dyn Upstream) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let data = directory.path().join("data");
    let mut server = start(&data, upstream, "ON SCHEMA CHANGE PAUSE");
    upstream.run("INSERT INTO orders VALUES (4, 'cid', 40)");
    upstream.run("ALTER TABLE orders ADD COLUMN state varchar(10)");
    upstream.run("INSERT INTO orders VALUES (5, 'dan', 50, 'open')");
    let paused = "SELECT status, error LIKE '%columns of % changed upstream%' FROM tidemill.sources";
    until(&server, paused, &[&["stalled", "t"]]);
    let rows = "SELECT string_agg(id::text, ',' ORDER BY id) FROM orders";
    until(&server, rows, &[&["1,2,3,4"]]);
    server.kill_and_restart();
    until(&server, paused, &[&["stalled", "t"]]);
    assert_eq!(server.rows(rows), [["1,2,3,4"]]);
    // Passed over: the row comes without its column.
    server.sql("ALTER SOURCE s ON SCHEMA CHANGE IGNORE");
    until(&server, rows, &[&["1,2,3,4,5"]]);
    until(
        &server,
        "SELECT upstream_differs LIKE 'column \"state\" (%) is not here' FROM tidemill.tables WHERE name = 'orders'",
        &[&["t"]],
    );
    views_are_right(&server);
    // Followed after all: what was passed over comes.
    server.sql("ALTER SOURCE s ON SCHEMA CHANGE EVOLVE");
    same(&server, upstream, &["id", "customer", "total", "state"]);
    // A sink that follows the table itself keeps it from getting columns.
    let out = directory.path().join("out");
    std::fs::create_dir(&out).expect("a directory");
    server.sql(&format!(
        "CREATE CONNECTION out TO OBJECT STORE (url = 'file://{}');
         CREATE SINK f FROM orders INTO FILES CONNECTION out (table = 'x') KEY (id) FORMAT PARQUET",
        out.display()
    ));
    upstream.run("ALTER TABLE orders ADD COLUMN extra int");
    upstream.run("INSERT INTO orders VALUES (6, 'eve', 60, 'open', 7)");
    until(&server, rows, &[&["1,2,3,4,5,6"]]);
    until(
        &server,
        "SELECT upstream_differs FROM tidemill.tables WHERE name = 'orders'",
        &[&["column \"extra\" (integer) is not here"]],
    );
    server.sql("DROP SINK f; ALTER SOURCE s PAUSE; ALTER SOURCE s RESUME");
    same(&server, upstream, &["id", "customer", "total", "state", "extra"]);
}

#[test]
fn postgres_sources_pause_and_ignore() {
    pauses_and_ignores(&postgres());
}

#[test]
fn mariadb_sources_pause_and_ignore() {
    pauses_and_ignores(&mariadb());
}

fn survives_kills(upstream: &dyn Upstream, copied: &str) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let data = directory.path().join("data");
    let mut columns = vec!["id".to_string(), "customer".to_string(), "total".to_string()];
    drop(start(&data, upstream, "ON SCHEMA CHANGE EVOLVE"));
    // The catalog is written once when the directory is opened.
    let points =
        ["catalog-before:2", "catalog-after:2", "input.widened", "source.grown", copied, "tick.applied"];
    for (i, point) in points.into_iter().enumerate() {
        let default = if i % 2 == 0 { "DEFAULT 'd'" } else { "" };
        let dying = Tidemill::start_with(&data, &[("TIDEMILL_CRASH_AT", point)]);
        upstream.run(&format!("ALTER TABLE orders ADD COLUMN c{i} varchar(10) {default}"));
        upstream.run(&format!(
            "INSERT INTO orders (id, customer, total, c{i}) VALUES ({}, 'z', 1, 'n')",
            100 + i
        ));
        upstream.run(&format!("UPDATE orders SET total = total + 1, c{i} = 'u' WHERE id = 2"));
        columns.push(format!("c{i}"));
        let start = Instant::now();
        // Not every point is passed by every change.
        while dying.try_sql("SELECT 1").is_ok() && start.elapsed() < Duration::from_secs(6) {
            std::thread::sleep(Duration::from_millis(50));
        }
        drop(dying);
        let server = Tidemill::start(&data);
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        same(&server, upstream, &columns);
    }
}

#[test]
fn postgres_tables_evolve_through_kills() {
    survives_kills(&postgres(), "postgres.copied");
}

#[test]
fn mariadb_tables_evolve_through_kills() {
    survives_kills(&mariadb(), "mysql.copied");
}

#[test]
fn only_sources_with_tables_upstream_have_a_policy() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let server = Tidemill::start(&directory.path().join("data"));
    for (sql, state) in [
        ("CREATE SOURCE n FROM NEXMARK (events = 1) ON SCHEMA CHANGE EVOLVE", "0A000"),
        ("CREATE SOURCE n FROM NEXMARK (events = 1) ON SCHEMA CHANGE SOMETIMES", "42601"),
        (
            "CREATE SOURCE d FROM DATAGEN (rate = 1) FOR ALL TABLES; ALTER SOURCE d ON SCHEMA CHANGE PAUSE",
            "0A000",
        ),
    ] {
        let error = server.try_sql(sql).expect_err(sql).to_string();
        assert!(error.contains(state), "{sql}: {error}");
    }
}
