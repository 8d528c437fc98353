//! What was acknowledged is there again: after a shutdown, after the process is gone, after kill -9 at any moment.

mod database;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use database::{Db, rows};
use tidemill::config::Config;
use tidemill::database::Database;

#[test]
fn everything_is_there_after_a_restart() {
    let mut db = Db::new();
    let mut s = db.session();
    s.run("CREATE TABLE t (id int PRIMARY KEY, v numeric(10,2) DEFAULT 1.5)");
    s.run("CREATE VIEW doubled AS SELECT id, v * 2 AS w FROM t");
    s.run("CREATE MATERIALIZED VIEW total AS SELECT sum(w) AS w FROM doubled");
    s.run("COMMENT ON TABLE t IS 'kept'");
    s.run("CREATE SECRET pw AS 'hush'");
    drop(s);
    for clean in [true, false] {
        let mut s = db.session();
        s.run("INSERT INTO t (id) SELECT coalesce(max(id), 0) + 1 FROM t");
        let before = s.rows("SELECT * FROM t ORDER BY id");
        let total = s.rows("SELECT * FROM total");
        let tick = db.database.engine().tick();
        drop(s);
        db = db.reopen(clean);
        let mut s = db.session();
        assert_eq!(s.rows("SELECT * FROM t ORDER BY id"), before);
        assert_eq!(s.rows("SELECT * FROM total"), total);
        assert_eq!(s.rows("SELECT comment FROM tidemill.tables"), rows(&["kept"]));
        assert_eq!(s.error("INSERT INTO t VALUES (1, 1)").sqlstate.0, "23505");
        assert!(db.database.engine().tick() >= tick);
        s.run("CHECK MATERIALIZED VIEW total");
    }
    let mut s = db.session();
    s.run("DROP TABLE t CASCADE");
    drop(s);
    db = db.reopen(false);
    assert_eq!(db.session().error("SELECT * FROM total").sqlstate.0, "42P01");
}

#[test]
fn views_mean_the_same_along_every_path_and_after_a_restart() {
    let mut db = Db::new();
    let mut s = db.session();
    s.run("CREATE SCHEMA a; CREATE SCHEMA b; CREATE TABLE t (x int); CREATE TABLE a.t (x int); CREATE TABLE b.u (x int)");
    s.run("INSERT INTO t VALUES (1); INSERT INTO a.t VALUES (10); INSERT INTO b.u VALUES (100)");
    s.run("SET search_path = b, public, a");
    s.run("CREATE VIEW plain AS SELECT t.x AS x FROM t");
    s.run("CREATE MATERIALIZED VIEW kept AS WITH w AS (SELECT x FROM u) SELECT plain.x + w.x AS x FROM plain, w");
    assert_eq!(s.rows("SELECT * FROM kept"), rows(&["101"]));
    // Both would be found instead, were the queries read along that path again.
    s.run(
        "CREATE TABLE b.t (x int); INSERT INTO b.t VALUES (2); SET search_path = a; CREATE TABLE a.u (x int)",
    );
    s.run("ALTER SCHEMA b RENAME TO c");
    drop(s);
    for clean in [true, false] {
        db = db.reopen(clean);
        let mut s = db.session();
        assert_eq!(s.rows("SELECT x FROM c.kept UNION ALL SELECT x FROM c.plain"), rows(&["101", "1"]));
        s.run("CHECK MATERIALIZED VIEW c.kept");
        assert_eq!(s.rows("SELECT name FROM tidemill.materialized_views"), rows(&["c.kept"]));
        assert_eq!(
            s.rows("SELECT count(*) FROM pg_namespace WHERE nspname IN ('a', 'b', 'c')"),
            rows(&["2"])
        );
        assert_eq!(s.error("CREATE SCHEMA a").sqlstate.0, "42P06");
        assert_eq!(s.error("DROP SCHEMA c").sqlstate.0, "2BP01");
    }
    let mut s = db.session();
    s.run("DROP SCHEMA a, c CASCADE");
    drop(s);
    db = db.reopen(false);
    let mut s = db.session();
    assert_eq!(s.error("SELECT * FROM c.kept").sqlstate.0, "42P01");
    assert_eq!(s.rows("SELECT * FROM t"), rows(&["1"]));
    s.run("BEGIN; CREATE SCHEMA s; CREATE TABLE s.t (x int); ROLLBACK");
    assert_eq!(s.error("CREATE TABLE s.t (x int)").sqlstate.0, "3F000");
}

#[test]
fn views_are_taken_up_from_a_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { checkpoint_bytes: 1, ..Config::at(dir.path()) };
    let in_turn = |work: &dyn Fn(&mut database::TestSession)| {
        let database = Database::open(&config).unwrap();
        let mut session = Db::session_of(&database);
        work(&mut session);
        drop(session);
        database.shutdown();
    };
    in_turn(&|s| {
        s.run("CREATE TABLE t (id int PRIMARY KEY, g text, v numeric(10,2))");
        s.run(
            "CREATE MATERIALIZED VIEW totals AS SELECT g, sum(v) AS total, max(id) AS last FROM t GROUP BY g",
        );
        s.run("CREATE MATERIALIZED VIEW shares AS SELECT id, 1 / v AS share FROM t");
        s.run("INSERT INTO t SELECT i, 'g' || i % 3, i - 2 FROM generate_series(1, 20) AS x(i)");
        assert_eq!(s.rows("SELECT count(*) FROM tidemill.checkpoints WHERE error IS NOT NULL"), rows(&["0"]));
    });
    let restored = "SELECT nodes > 0, bytes > 0, took >= paused, error IS NULL FROM tidemill.checkpoints \
                    WHERE action = 'restored'";
    for _ in 0..2 {
        in_turn(&|s| {
            assert_eq!(s.rows(restored), rows(&["t|t|t|t"]));
            s.run("CHECK MATERIALIZED VIEW totals");
            assert_eq!(s.error("SELECT * FROM shares").sqlstate.0, "22012");
            s.run("UPDATE t SET v = v + 1 WHERE id > 5");
            s.run("CHECK MATERIALIZED VIEW totals");
        });
    }
    // A row that failed before the restarts is mended, and its error goes.
    in_turn(&|s| {
        s.run("UPDATE t SET v = 7 WHERE v = 0");
        s.run("CHECK MATERIALIZED VIEW shares");
        assert_eq!(s.rows("SELECT count(*) FROM shares"), rows(&["20"]));
    });
}

#[test]
fn a_directory_is_open_once_and_private() {
    use std::os::unix::fs::PermissionsExt;
    let db = Db::new();
    let config = db.database.config().clone();
    let e = Database::open(&config).unwrap_err();
    assert_eq!(e.sqlstate.0, "55006");
    let mode = std::fs::metadata(&config.data_dir).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn a_directory_of_which_a_part_is_gone_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config::at(dir.path().join("data"));
    let write = |sql: &str| {
        let database = Database::open(&config).unwrap();
        Db::session_of(&database).run(sql);
        database.shutdown();
    };
    write("CREATE TABLE t (id int)");
    write("INSERT INTO t VALUES (1), (2)");
    let (journal, meta) = (config.data_dir.join("journal"), config.data_dir.join("meta"));

    let kept = dir.path().join("kept");
    std::fs::rename(&meta, &kept).unwrap();
    let e = Database::open(&config).unwrap_err();
    assert_eq!(e.sqlstate.0, "XX001");
    assert!(e.message.contains("meta is empty"), "{e}");
    std::fs::remove_dir_all(&meta).unwrap();
    std::fs::rename(&kept, &meta).unwrap();

    std::fs::rename(&journal, &kept).unwrap();
    let e = Database::open(&config).unwrap_err();
    assert_eq!(e.sqlstate.0, "XX001");
    assert!(e.message.contains("journal ends at tick 0"), "{e}");
    assert!(e.hint.unwrap().contains("accept_loss"));
    std::fs::remove_dir_all(&journal).unwrap();
    std::fs::rename(&kept, &journal).unwrap();

    let database = Database::open(&config).unwrap();
    assert_eq!(Db::session_of(&database).rows("SELECT id FROM t ORDER BY id"), rows(&["1", "2"]));
    database.shutdown();
    drop(database);

    std::fs::remove_dir_all(&journal).unwrap();
    let lossy = Config { accept_loss: true, ..config.clone() };
    let database = Database::open(&lossy).unwrap();
    assert_eq!(Db::session_of(&database).rows("SELECT count(*) FROM t"), rows(&["0"]));
    database.shutdown();
    drop(database);
    // What was lost is accepted once.
    Database::open(&config).unwrap();
}

/// A real server on a free port.
struct Server {
    process: Child,
    port: u16,
}

impl Server {
    fn start(dir: &Path, crash_at: Option<&str>) -> Server {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir"])
            .arg(dir)
            .env("TIDEMILL_CHECKPOINT_BYTES", "4096")
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if let Some(point) = crash_at {
            command.env("TIDEMILL_CRASH_AT", point);
        }
        let mut process = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.split(" -p ").nth(1).and_then(|rest| rest.split_whitespace().next());
        let port = port.unwrap_or_else(|| panic!("the server said: {line}")).parse().unwrap();
        Server { process, port }
    }

    async fn connect(&self) -> tokio_postgres::Client {
        let config = format!("host=127.0.0.1 port={} user=tidemill dbname=tidemill", self.port);
        let (client, connection) = tokio_postgres::connect(&config, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(async move {
            // It ends with an error when the server is killed, which is the point.
            let _ = connection.await;
        });
        client
    }

    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn statements_as_deep_as_they_may_be_do_not_end_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"), None);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = server.connect().await;
        client.batch_execute("CREATE TABLE t (a int, b int); INSERT INTO t VALUES (1, 2)").await.unwrap();
        let ors: String = (0..900).map(|i| format!(" OR a = {i}")).collect();
        for (sql, rows) in [
            (format!("SELECT a FROM t{}", " UNION ALL SELECT b FROM t".repeat(900)), 901),
            (format!("SELECT a FROM t WHERE a = 1{ors}"), 1),
            (format!("SELECT a{} FROM t", " + b".repeat(60)), 1),
        ] {
            assert_eq!(client.query(&sql, &[]).await.unwrap().len(), rows);
        }
        let mut below = "t".to_string();
        for n in 0..60 {
            client.batch_execute(&format!("CREATE VIEW v{n} AS SELECT a, b FROM {below}")).await.unwrap();
            below = format!("v{n}");
        }
        client
            .batch_execute(&format!("CREATE MATERIALIZED VIEW top AS SELECT a FROM {below}"))
            .await
            .unwrap();
        assert_eq!(client.query("SELECT a FROM top", &[]).await.unwrap().len(), 1);
    });
}

#[test]
fn every_acknowledged_row_survives_kill_9_once() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut next = [0i64; 4];
    let mut acknowledged: Vec<i64> = Vec::new();
    for round in 0..3 {
        let server = Server::start(&data, None);
        let (rows, tried) = runtime.block_on(async {
            let client = server.connect().await;
            if round == 0 {
                client.batch_execute("CREATE TABLE t (id bigint PRIMARY KEY)").await.unwrap();
                client.batch_execute("CREATE TABLE bag (id bigint)").await.unwrap();
                let view = "CREATE MATERIALIZED VIEW n AS SELECT count(*) AS n, sum(id) AS s FROM bag";
                client.batch_execute(view).await.unwrap();
            }
            let until = Instant::now() + Duration::from_millis(700 + 300 * round);
            let writers = next.iter().enumerate().map(|(w, from)| {
                let (from, server) = (*from, &server);
                async move {
                    let client = server.connect().await;
                    let (mut n, mut done) = (from, Vec::new());
                    while Instant::now() < until {
                        let id = n * 4 + w as i64;
                        n += 1;
                        let both = format!(
                            "BEGIN; INSERT INTO t VALUES ({id}); INSERT INTO bag VALUES ({id}); COMMIT"
                        );
                        if client.batch_execute(&both).await.is_ok() {
                            done.push(id);
                        }
                    }
                    (n, done)
                }
            });
            let (next, done): (Vec<i64>, Vec<Vec<i64>>) =
                futures::future::join_all(writers).await.into_iter().unzip();
            // One more is on its way when the server dies.
            let client = server.connect().await;
            let last = tokio::spawn(async move {
                let both = "BEGIN; INSERT INTO t VALUES (-1); INSERT INTO bag VALUES (-1); COMMIT";
                client.batch_execute(both).await.is_ok()
            });
            tokio::time::sleep(Duration::from_millis(2)).await;
            let rows: Vec<i64> = done.concat();
            drop(last);
            (rows, next)
        });
        server.kill();
        acknowledged.extend(rows);
        next.copy_from_slice(&tried);
        // What the killed server has promised is what the library finds.
        let database = Database::open(&Config::at(&data)).unwrap();
        let mut s = Db::session_of(&database);
        s.run("DELETE FROM t WHERE id = -1");
        s.run("DELETE FROM bag WHERE id = -1");
        let parse = |rows: Vec<String>| rows.iter().map(|r| r.parse().unwrap()).collect::<Vec<i64>>();
        let (t, bag) =
            (parse(s.rows("SELECT id FROM t ORDER BY id")), parse(s.rows("SELECT id FROM bag ORDER BY id")));
        assert_eq!(t, bag, "a block is there whole or not at all, and once");
        acknowledged.sort_unstable();
        let missing: Vec<_> = acknowledged.iter().filter(|id| t.binary_search(id).is_err()).collect();
        assert!(missing.is_empty(), "acknowledged, but gone: {missing:?}");
        assert!(!acknowledged.is_empty());
        assert_eq!(s.rows("SELECT n, s FROM n"), s.rows("SELECT count(*), sum(id) FROM bag"));
        s.run("CHECK MATERIALIZED VIEW n");
        drop(s);
        database.shutdown();
    }
}

#[test]
fn a_kill_between_the_steps_of_a_statement_leaves_all_of_it_or_nothing() {
    // The catalog is written for the table, the view, their replacement and their drop: a kill before and after each.
    let script = [
        "CREATE TABLE t (id int PRIMARY KEY)",
        "CREATE MATERIALIZED VIEW m AS SELECT count(*) AS n FROM t",
        "CREATE TABLE filled AS SELECT 1 AS a",
        "CREATE OR REPLACE MATERIALIZED VIEW m AS SELECT count(*) + 1 AS n FROM t",
        "DROP TABLE t CASCADE",
    ];
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for (step, _) in script.iter().enumerate() {
        for point in ["catalog-before", "catalog-after"] {
            let dir = tempfile::tempdir().unwrap();
            let data = dir.path().join("data");
            // Opening commits once, too.
            let server = Server::start(&data, Some(&format!("{point}:{}", step + 2)));
            let done = runtime.block_on(async {
                let client = server.connect().await;
                let mut done = 0;
                for statement in script {
                    if client.batch_execute(statement).await.is_err() {
                        break;
                    }
                    done += 1;
                }
                done
            });
            drop(server);
            assert_eq!(done, step, "it crashed at {point} of {}", script[step]);
            let database = Database::open(&Config::at(&data)).unwrap();
            let mut s = Db::session_of(&database);
            let there = point == "catalog-after";
            let steps = if there { step + 1 } else { step };
            let objects = s.rows("SELECT relname FROM pg_catalog.pg_class WHERE relnamespace = 2200 AND relkind IN ('r', 'm') ORDER BY 1");
            let expected: &[&str] = match steps {
                0 => &[],
                1 => &["t"],
                2 => &["m", "t"],
                3 | 4 => &["filled", "m", "t"],
                _ => &["filled"],
            };
            assert_eq!(objects, rows(expected), "{point} of {}", script[step]);
            if steps >= 3 {
                assert_eq!(s.rows("SELECT * FROM filled"), rows(&["1"]));
            }
            match steps {
                2 | 3 => assert_eq!(s.rows("SELECT n FROM m"), rows(&["0"])),
                4 => assert_eq!(s.rows("SELECT n FROM m"), rows(&["1"])),
                _ => {}
            }
            // And it goes on.
            s.run("CREATE TABLE after_all (id int); INSERT INTO after_all VALUES (1)");
            assert_eq!(s.rows("SELECT * FROM after_all"), rows(&["1"]));
            drop(s);
            database.shutdown();
        }
    }
}

#[test]
fn a_kill_while_a_view_is_made_or_replaced_leaves_the_old_or_the_new_one() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let script = [
        "CREATE TABLE t (id int PRIMARY KEY, v int)",
        "INSERT INTO t SELECT i, i % 10 FROM generate_series(1, 1000) AS g(i)",
        "CREATE MATERIALIZED VIEW m AS SELECT v, count(*) AS n FROM t GROUP BY v",
        "CREATE MATERIALIZED VIEW over AS SELECT sum(n) AS n, max(v) AS v FROM m",
        "CREATE OR REPLACE MATERIALIZED VIEW m AS SELECT v, count(*) AS n FROM t WHERE v > 4 GROUP BY v",
    ];
    // Opening commits the catalog once; the table and the views each once.
    let crashes = [
        ("view.filled:1", 2, None),
        ("view.filled:3", 4, Some("1000|9")),
        ("catalog-before:5", 4, Some("1000|9")),
        ("catalog-after:5", 4, Some("500|9")),
        ("view.replaced:1", 4, Some("500|9")),
    ];
    for (point, done, over) in crashes {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let server = Server::start(&data, Some(point));
        let ran = runtime.block_on(async {
            let client = server.connect().await;
            let mut ran = 0;
            for statement in script {
                if client.batch_execute(statement).await.is_err() {
                    break;
                }
                ran += 1;
            }
            ran
        });
        drop(server);
        assert_eq!(ran, done, "it crashed at {point}");
        let database = Database::open(&Config::at(&data)).unwrap();
        let mut s = Db::session_of(&database);
        let views = s.rows("SELECT name FROM tidemill.materialized_views ORDER BY name");
        match over {
            None => assert_eq!(views, rows(&[]), "{point}"),
            Some(over) => {
                assert_eq!(views, rows(&["m", "over"]), "{point}");
                assert_eq!(s.rows("SELECT n, v FROM over"), rows(&[over]), "{point}");
                s.run("INSERT INTO t VALUES (1001, 9)");
                s.run("CHECK MATERIALIZED VIEW m; CHECK MATERIALIZED VIEW over");
            }
        }
        drop(s);
        database.shutdown();
    }
}

#[test]
fn a_view_that_is_filled_is_shown_and_can_be_stopped() {
    let db = Db::new();
    let mut s = db.session();
    s.run("CREATE TABLE t (id int PRIMARY KEY, v int)");
    s.run("INSERT INTO t SELECT i, i % 500 FROM generate_series(1, 100000) AS g(i)");
    let mut other = db.session();
    let cancel = other.cancel_handle();
    // So many pairs that it takes seconds.
    let create = "CREATE MATERIALIZED VIEW slow AS SELECT a.v, count(*) AS n FROM t a JOIN t b ON a.v = b.v GROUP BY a.v";
    let creating = std::thread::spawn(move || other.error(create));
    let shown = "SELECT name, status, hydrated_rows <= hydration_rows, hydration_rows FROM tidemill.materialized_views";
    let until = Instant::now() + Duration::from_secs(60);
    let mut seen = Vec::new();
    while seen != rows(&["slow|hydrating|t|100000"]) && Instant::now() < until {
        seen = s.rows(shown);
    }
    assert_eq!(seen, rows(&["slow|hydrating|t|100000"]));
    // Others go on.
    s.run("INSERT INTO t VALUES (0, -1)");
    cancel.cancel();
    assert_eq!(creating.join().unwrap().sqlstate.0, "57014");
    // What it is in the midst of it ends first.
    let until = Instant::now() + Duration::from_secs(120);
    while !s.rows(shown).is_empty() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(s.rows(shown), rows(&[]));
    let left: Vec<u64> =
        db.database.engine().stats().collections.iter().filter(|c| c.view).map(|c| c.id.0).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn sigterm_drains_and_exits_0() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&dir.path().join("data"), None);
    let killed = Command::new("kill").arg("-TERM").arg(server.process.id().to_string()).status().unwrap();
    assert!(killed.success());
    let until = Instant::now() + Duration::from_secs(20);
    let status = loop {
        if let Some(status) = server.process.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < until, "the server did not stop");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(status.code(), Some(0));
}
