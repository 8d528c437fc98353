//! The Postgres source against a real PostgreSQL server: what it hands over, applied by its own rules, is the table.

#[allow(dead_code)] // other tests use the rest
#[path = "common/postgres.rs"]
mod postgres;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, RecordBatch};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parking_lot::Mutex;
use postgres::Postgres;
use tidemill::connectors::postgres as pg;
use tidemill::connectors::{
    Envelope, Feed, SourceBatch, SourceContext, SourceDefinition, SourceOutput, Status, StopFlag,
};
use tidemill::engine::{CollectionId, InputChange, Tick};
use tidemill::{Error, Result};

type Row = Vec<Option<String>>;

/// Applies batches as the engine does, to rows as text.
#[derive(Default)]
struct Model {
    keys: BTreeMap<u64, Vec<usize>>,
    rows: BTreeMap<u64, BTreeMap<Row, i64>>,
    position: Option<Vec<u8>>,
    bad: Vec<String>,
    batches: u64,
    /// Sums of the column `balance` seen after each batch: a transfer must never be seen half done.
    sums: Vec<i64>,
}

struct ModelFeed(Mutex<Model>);

impl ModelFeed {
    fn new(outputs: &[SourceOutput]) -> Arc<Self> {
        let keys = outputs.iter().map(|o| (o.collection.0, o.key.clone())).collect();
        Arc::new(ModelFeed(Mutex::new(Model { keys, ..Model::default() })))
    }

    fn table(&self, id: u64) -> Vec<Row> {
        let model = self.0.lock();
        let rows = model.rows.get(&id).cloned().unwrap_or_default();
        rows.into_iter()
            .flat_map(|(row, n)| {
                assert!(n >= 0, "a row was retracted that was not there: {row:?}");
                std::iter::repeat_n(row, n as usize)
            })
            .collect()
    }
}

fn text_rows(batch: &RecordBatch) -> Vec<Row> {
    let options = FormatOptions::default();
    let columns: Vec<_> = batch
        .columns()
        .iter()
        .map(|c| (c, ArrayFormatter::try_new(c, &options).expect("printable")))
        .collect();
    (0..batch.num_rows())
        .map(|i| columns.iter().map(|(c, f)| c.is_valid(i).then(|| f.value(i).to_string())).collect())
        .collect()
}

impl Feed for ModelFeed {
    fn submit(&self, batch: SourceBatch) -> Result<Tick> {
        let mut model = self.0.lock();
        for (id, change) in batch.changes {
            let key = model.keys[&id.0].clone();
            let table = model.rows.entry(id.0).or_default();
            match change {
                InputChange::Truncate => table.clear(),
                InputChange::Replace(_) => panic!("a publication tells of changes, not of all that there is"),
                InputChange::Delta(delta) => {
                    for (i, row) in text_rows(&delta.rows).into_iter().enumerate() {
                        let weight = delta.weights.as_ref().map_or(1, |w| w[i]);
                        *table.entry(row).or_default() += weight;
                    }
                    table.retain(|_, n| *n != 0);
                }
                InputChange::Patch { rows, unchanged } => {
                    for (i, mut row) in text_rows(&rows).into_iter().enumerate() {
                        let old = table.keys().find(|old| key.iter().all(|k| old[*k] == row[*k])).cloned();
                        let old = old.expect("a patched row is there");
                        for (column, stays) in &unchanged {
                            if stays.value(i) {
                                row[*column] = old[*column].clone();
                            }
                        }
                        table.remove(&old);
                        table.insert(row, 1);
                    }
                }
                InputChange::Upsert { rows, deletes } => {
                    for (i, row) in text_rows(&rows).into_iter().enumerate() {
                        table.retain(|old, _| key.iter().any(|k| old[*k] != row[*k]));
                        if !deletes.as_ref().is_some_and(|d| d.value(i)) {
                            table.insert(row, 1);
                        }
                    }
                }
            }
        }
        model.bad.extend(batch.bad.into_iter().map(|b| format!("{}: {}", b.position, b.reason)));
        model.position = batch.position.or(model.position.take());
        model.batches += 1;
        let sum = model
            .rows
            .get(&1)
            .map_or(0, |t| t.keys().filter_map(|r| r.get(1)?.as_ref()?.parse::<i64>().ok()).sum());
        model.sums.push(sum);
        Ok(model.batches)
    }

    fn wait_durable(&self, _tick: Tick) -> Result<()> {
        Ok(())
    }

    fn submit_nowait(&self, batch: SourceBatch) -> Result<()> {
        self.submit(batch).map(|_| ())
    }

    fn durable_position(&self) -> Option<Vec<u8>> {
        self.0.lock().position.clone()
    }
}

fn definition(server: &Postgres) -> SourceDefinition {
    let option = |n: &str, v: &str| (n.to_string(), v.to_string());
    SourceDefinition {
        name: "Shop".into(),
        kind: "postgres".into(),
        connection: vec![
            option("host", "127.0.0.1"),
            option("port", &server.port.to_string()),
            option("user", "postgres"),
            option("database", "shop"),
        ],
        options: vec![option("publication", "pub")],
        format: None,
        envelope: Envelope::None,
        includes: Vec::new(),
        key: Vec::new(),
    }
}

fn outputs(definition: &SourceDefinition) -> Vec<SourceOutput> {
    let tables = pg::discover(definition).expect("the publication's tables");
    tables
        .into_iter()
        .enumerate()
        .map(|(i, t)| SourceOutput {
            collection: CollectionId(i as u64 + 1),
            upstream: t.upstream,
            schema: t.schema,
            key: t.key,
        })
        .collect()
}

struct Running {
    stop: StopFlag,
    status: Arc<Status>,
    thread: std::thread::JoinHandle<Result<()>>,
}

impl Running {
    fn start(definition: &SourceDefinition, outputs: &[SourceOutput], feed: &Arc<ModelFeed>) -> Self {
        let stop = StopFlag::default();
        let status = Arc::new(Status::default());
        let source = pg::source(definition, &outputs[0].schema).expect("a source");
        let cx = SourceContext {
            name: definition.name.clone(),
            outputs: outputs.to_vec(),
            resume: feed.durable_position(),
            feed: Arc::clone(feed) as Arc<dyn Feed>,
            status: Arc::clone(&status),
            stop: stop.clone(),
        };
        Running { stop, status, thread: std::thread::spawn(move || source.run(cx)) }
    }

    fn stop(self) -> Result<()> {
        self.stop.stop();
        self.thread.join().expect("the source does not panic")
    }
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(30), "still not so after 30 s: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn upstream(server: &Postgres, table: &str) -> Vec<Row> {
    let text =
        server.psql("shop", &format!("SELECT to_json(array(SELECT (to_json(t.*))::text FROM {table} t))"));
    let rows: Vec<String> = serde_json::from_str(&text).expect("a JSON array");
    let mut rows: Vec<Row> = rows
        .iter()
        .map(|r| {
            // keeps column order, which a parsed object would not
            server_row(r)
        })
        .collect();
    rows.sort();
    rows
}

/// The values of a flat JSON object of numbers, strings and nulls, in the order written.
fn server_row(json: &str) -> Row {
    let mut values = Vec::new();
    let mut depth_string = false;
    let mut escaped = false;
    let mut start = 1;
    let inner = &json[..json.len() - 1];
    let mut parts = Vec::new();
    for (i, c) in inner.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => depth_string = !depth_string,
            ',' if !depth_string => {
                parts.push(&inner[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&inner[start..]);
    for part in parts {
        let value: serde_json::Value =
            serde_json::from_str(part[part.find("\":").expect("a name") + 2..].trim()).expect("a JSON value");
        values.push(match value {
            serde_json::Value::Null => None,
            serde_json::Value::String(s) => Some(s),
            other => Some(other.to_string()),
        });
    }
    values
}

fn same(feed: &ModelFeed, server: &Postgres, id: u64, table: &str) -> bool {
    let mut ours = feed.table(id);
    ours.sort();
    ours == upstream(server, table)
}

const SCHEMA: &str = "
    CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL, note text);
    CREATE TABLE bag (a int, b text);
    ALTER TABLE bag REPLICA IDENTITY FULL;
    CREATE PUBLICATION pub FOR ALL TABLES;
    INSERT INTO accounts SELECT i, 100, 'n' || i FROM generate_series(1, 1000) i;
    INSERT INTO bag SELECT i % 3, E'tab\\tnew\\nline' FROM generate_series(1, 9) i";

fn shop() -> Postgres {
    let server = Postgres::start();
    server.psql("postgres", "CREATE DATABASE shop");
    server.psql("shop", SCHEMA);
    server
}

#[test]
fn copies_then_follows_every_kind_of_change() {
    let server = shop();
    let definition = definition(&server);
    let outputs = outputs(&definition);
    assert_eq!(
        outputs.iter().map(|o| o.upstream.as_str()).collect::<Vec<_>>(),
        ["public.accounts", "public.bag"]
    );
    assert_eq!((outputs[0].key.clone(), outputs[1].key.clone()), (vec![0], vec![]));
    let feed = ModelFeed::new(&outputs);
    let running = Running::start(&definition, &outputs, &feed);
    eventually("the copy", || same(&feed, &server, 1, "accounts") && same(&feed, &server, 2, "bag"));
    for sql in [
        "UPDATE accounts SET balance = balance + 1, note = NULL WHERE id % 7 = 0",
        // A value too large to stand in its row is not sent again when another column changes.
        "ALTER TABLE accounts ALTER note SET STORAGE EXTERNAL",
        "UPDATE accounts SET note = repeat('large', 2000) WHERE id BETWEEN 700 AND 702",
        "UPDATE accounts SET balance = balance + 1 WHERE id BETWEEN 700 AND 702",
        "UPDATE accounts SET balance = balance + 1 WHERE id BETWEEN 699 AND 701",
        "UPDATE accounts SET id = id + 5000 WHERE id < 10",
        "DELETE FROM accounts WHERE id BETWEEN 100 AND 200",
        "INSERT INTO bag VALUES (1, 'x'), (1, 'x'), (NULL, NULL)",
        "DELETE FROM bag WHERE ctid = (SELECT ctid FROM bag WHERE a = 1 AND b = 'x' LIMIT 1)",
        "UPDATE bag SET b = 'y' WHERE a = 2",
        "BEGIN; DELETE FROM accounts WHERE id = 300; INSERT INTO accounts VALUES (300, 5, 'again'); COMMIT",
        "BEGIN; INSERT INTO accounts VALUES (99999, 1, 'never'); ROLLBACK",
        "TRUNCATE bag",
        "INSERT INTO bag VALUES (7, 'after')",
    ] {
        server.psql("shop", sql);
    }
    eventually("all changes", || same(&feed, &server, 1, "accounts") && same(&feed, &server, 2, "bag"));
    running.stop().expect("a clean stop");
    assert_eq!(feed.0.lock().bad, Vec::<String>::new());
}

#[test]
fn a_transfer_is_never_seen_half_done_even_while_copying() {
    let server = shop();
    let definition = definition(&server);
    let outputs = outputs(&definition);
    let feed = ModelFeed::new(&outputs);
    // With pauses, so that the changes come in many batches, however fast the machine is.
    let transfers = "DO $$ DECLARE a int; b int; BEGIN FOR i IN 1..3000 LOOP
        a := 1 + (random() * 999)::int; b := 1 + (random() * 999)::int;
        UPDATE accounts SET balance = balance - 1 WHERE id = a; UPDATE accounts SET balance = balance + 1 WHERE id = b;
        COMMIT; PERFORM pg_sleep(0.001); END LOOP; END $$";
    let sum = std::thread::scope(|s| {
        let writers: Vec<_> = (0..2).map(|_| s.spawn(|| transact(&server, transfers))).collect();
        let running = Running::start(&definition, &outputs, &feed);
        eventually("rows", || !feed.table(1).is_empty());
        // The connection drops twice under load; the source goes on by itself.
        for _ in 0..2 {
            std::thread::sleep(Duration::from_millis(300));
            server.psql(
                "shop",
                "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active",
            );
        }
        for writer in writers {
            writer.join().unwrap();
        }
        let sum: i64 = server.psql("shop", "SELECT sum(balance) FROM accounts").parse().unwrap();
        eventually("the end", || same(&feed, &server, 1, "accounts"));
        running.stop().expect("a clean stop");
        sum
    });
    let model = feed.0.lock();
    assert!(model.sums.iter().all(|s| *s == sum), "a sum other than {sum} was seen: {:?}", model.sums);
    assert!(model.batches > 3, "only {} batches", model.batches);
}

fn transact(server: &Postgres, block: &str) {
    // Deadlocks between the two writers end a block early, which is as good.
    let _ = std::process::Command::new("psql")
        .args(["-h", "127.0.0.1", "-U", "postgres", "-X", "-q", "-d", "shop", "-c", block])
        .args(["-p", &server.port.to_string()])
        .output();
}

#[test]
fn resumes_after_a_stop_and_confirms_only_what_is_durable() {
    let server = shop();
    let definition = definition(&server);
    let outputs = outputs(&definition);
    let feed = ModelFeed::new(&outputs);
    let running = Running::start(&definition, &outputs, &feed);
    eventually("the copy", || same(&feed, &server, 1, "accounts"));
    running.stop().expect("a clean stop");
    server.psql("shop", "UPDATE accounts SET balance = 7 WHERE id = 7; INSERT INTO bag VALUES (5, 'missed')");
    server.restart();
    let running = Running::start(&definition, &outputs, &feed);
    eventually("what was missed", || same(&feed, &server, 1, "accounts") && same(&feed, &server, 2, "bag"));
    // An upstream whose changes do not concern us need not keep its log either.
    let confirmed = || {
        server.psql(
            "shop",
            "SELECT confirmed_flush_lsn >= pg_current_wal_lsn() - 1048576 FROM pg_replication_slots",
        )
    };
    server.psql("shop", "CREATE UNLOGGED TABLE other AS SELECT generate_series(1, 1000) i; SELECT pg_logical_emit_message(false, 'p', repeat('x', 3000000))");
    eventually("the slot moves on", || confirmed() == "t");
    running.stop().expect("a clean stop");
}

#[test]
fn a_slot_that_is_gone_means_a_new_copy() {
    let server = shop();
    let definition = definition(&server);
    let outputs = outputs(&definition);
    let feed = ModelFeed::new(&outputs);
    Running::start(&definition, &outputs, &feed).also(|| same(&feed, &server, 1, "accounts")).stop().unwrap();
    pg::drop_slot(&definition).expect("the slot is dropped");
    server.psql("shop", "DELETE FROM accounts WHERE id < 500");
    Running::start(&definition, &outputs, &feed).also(|| same(&feed, &server, 1, "accounts")).stop().unwrap();
}

impl Running {
    fn also(self, holds: impl FnMut() -> bool) -> Self {
        eventually("the state wanted", holds);
        self
    }
}

#[test]
fn a_slot_whose_log_is_lost_means_a_new_copy() {
    let server = shop();
    server.psql("shop", "ALTER SYSTEM SET max_slot_wal_keep_size = '16MB'");
    server.psql("shop", "SELECT pg_reload_conf()");
    let definition = definition(&server);
    let outputs = outputs(&definition);
    let feed = ModelFeed::new(&outputs);
    Running::start(&definition, &outputs, &feed).also(|| same(&feed, &server, 1, "accounts")).stop().unwrap();
    server.psql("shop", "DELETE FROM accounts WHERE id < 500");
    eventually("the log is lost", || {
        let filler =
            "SELECT pg_logical_emit_message(false, 'p', repeat('x', 9000000)), pg_switch_wal() IS NULL";
        (0..4).for_each(|_| drop(server.psql("shop", filler)));
        server.psql("shop", "CHECKPOINT");
        server.psql("shop", "SELECT wal_status FROM pg_replication_slots") == "lost"
    });
    Running::start(&definition, &outputs, &feed).also(|| same(&feed, &server, 1, "accounts")).stop().unwrap();
}

#[test]
fn a_slot_that_somebody_else_reads_is_waited_for() {
    let server = shop();
    let definition = definition(&server);
    let outputs = outputs(&definition);
    let first_feed = ModelFeed::new(&outputs);
    let first = Running::start(&definition, &outputs, &first_feed);
    eventually("the first", || first.status.get().state == "running");
    // One that would have to make it anew stops with the reason.
    let feed = ModelFeed::new(&outputs);
    let other = Running::start(&definition, &outputs, &feed);
    eventually("the end", || other.thread.is_finished());
    assert_eq!(other.stop().unwrap_err().sqlstate.0, "55006");
    // One that goes on from a place of its own waits.
    let (keys, rows) = {
        let model = first_feed.0.lock();
        (model.keys.clone(), model.rows.clone())
    };
    let position = first_feed.durable_position();
    *feed.0.lock() = Model { keys, rows, position, ..Model::default() };
    let other = Running::start(&definition, &outputs, &feed);
    eventually("the wait", || {
        let status = other.status.get();
        status.state == "stalled" && status.error.is_some_and(|e| e.contains("active"))
    });
    first.stop().unwrap();
    server.psql("shop", "UPDATE accounts SET balance = 3 WHERE id = 3");
    eventually("its turn", || same(&feed, &server, 1, "accounts"));
    other.stop().unwrap();
}

#[test]
fn a_promoted_standby_is_followed_by_a_new_copy() {
    let server = shop();
    let mut definition = definition(&server);
    let outputs = outputs(&definition);
    let feed = ModelFeed::new(&outputs);
    let running = Running::start(&definition, &outputs, &feed);
    eventually("the copy", || same(&feed, &server, 1, "accounts"));
    let promoted = server.promoted_standby();
    running.stop().unwrap();
    // What the old server did since is not in the new one's history.
    server.psql("shop", "DELETE FROM accounts WHERE id = 1");
    promoted.psql("shop", "DELETE FROM accounts WHERE id > 900; INSERT INTO bag VALUES (5, 'new timeline')");
    definition.connection[1].1 = promoted.port.to_string();
    let running = Running::start(&definition, &outputs, &feed);
    eventually("the new server", || {
        same(&feed, &promoted, 1, "accounts") && same(&feed, &promoted, 2, "bag")
    });
    promoted.psql("shop", "UPDATE accounts SET balance = 1 WHERE id = 2");
    eventually("what follows", || same(&feed, &promoted, 1, "accounts"));
    running.stop().unwrap();
}

#[test]
fn partitions_are_one_table_or_each_a_table() {
    let server = Postgres::start();
    server.psql("postgres", "CREATE DATABASE shop");
    server.psql(
        "shop",
        "CREATE TABLE p (id int, year int, v text, PRIMARY KEY (id, year)) PARTITION BY RANGE (year);
         CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (2000) TO (2010);
         CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (2010) TO (2020);
         INSERT INTO p SELECT i, 2000 + i, 'v' || i FROM generate_series(1, 19) i;
         CREATE PUBLICATION pub FOR TABLE p WITH (publish_via_partition_root = true);
         CREATE PUBLICATION parts FOR TABLE p",
    );
    let whole = definition(&server);
    let mut parts = definition(&server);
    parts.options = vec![("publication".into(), "parts".into()), ("slot".into(), "parts".into())];
    let (one, two) = (outputs(&whole), outputs(&parts));
    let names = |outputs: &[SourceOutput]| outputs.iter().map(|o| o.upstream.clone()).collect::<Vec<_>>();
    assert_eq!(
        (names(&one), names(&two)),
        (vec!["public.p".into()], vec!["public.p1".into(), "public.p2".into()])
    );
    let (feed, feeds) = (ModelFeed::new(&one), ModelFeed::new(&two));
    let running = [Running::start(&whole, &one, &feed), Running::start(&parts, &two, &feeds)];
    let all =
        || same(&feed, &server, 1, "p") && same(&feeds, &server, 1, "p1") && same(&feeds, &server, 2, "p2");
    eventually("the copies", all);
    // From one partition to the other, and a partition that comes.
    server.psql(
        "shop",
        "UPDATE p SET year = 2015 WHERE id = 5; DELETE FROM p WHERE id = 6; UPDATE p SET v = 'w'",
    );
    server.psql("shop", "CREATE TABLE p3 PARTITION OF p FOR VALUES FROM (2020) TO (2030); INSERT INTO p VALUES (20, 2020, 'x')");
    eventually("the changes", all);
    running.into_iter().for_each(|r| r.stop().unwrap());
}

#[test]
fn tables_that_are_made_or_published_anew_are_copied_again() {
    let server = Postgres::start();
    server.psql("postgres", "CREATE DATABASE shop");
    server.psql(
        "shop",
        "CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE b (id int PRIMARY KEY, v text);
         CREATE PUBLICATION pub FOR TABLE a, b; INSERT INTO a VALUES (1, 'a'); INSERT INTO b VALUES (1, 'b')",
    );
    let definition = definition(&server);
    let outputs = outputs(&definition);
    let feed = ModelFeed::new(&outputs);
    let running = Running::start(&definition, &outputs, &feed);
    let both = || same(&feed, &server, 1, "a") && same(&feed, &server, 2, "b");
    eventually("the copy", both);
    server.psql("shop", "ALTER PUBLICATION pub DROP TABLE b; INSERT INTO b VALUES (2, 'unseen'); INSERT INTO a VALUES (2, 'a')");
    eventually("the end", || running.thread.is_finished());
    let error = running.stop().unwrap_err();
    assert_eq!(
        (error.sqlstate.0, error.message.as_str()),
        ("42P01", "table public.b is no longer in publication \"pub\"")
    );
    assert!(same(&feed, &server, 1, "a"), "what came before is in");
    server.psql("shop", "ALTER PUBLICATION pub ADD TABLE b");
    let running = Running::start(&definition, &outputs, &feed);
    eventually("what was not published", both);
    server.psql(
        "shop",
        "DROP TABLE a; CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a VALUES (7, 'made anew')",
    );
    server.psql("shop", "ALTER PUBLICATION pub ADD TABLE a");
    eventually("a table that was made anew", || {
        // It stops when it sees the table missing; the database would start it again.
        running.thread.is_finished() || both()
    });
    let _ = running.stop();
    let running = Running::start(&definition, &outputs, &feed);
    eventually("a table that was made anew", both);
    running.stop().unwrap();
}

#[test]
fn what_cannot_be_followed_is_said() {
    let server = Postgres::start();
    server.psql("postgres", "CREATE DATABASE shop");
    let definition = definition(&server);
    let error = |e: Error| (e.sqlstate.0, e.message);
    let (state, message) = error(pg::discover(&definition).unwrap_err());
    assert_eq!(
        (state, message.as_str()),
        ("42704", "publication \"pub\" does not exist on the PostgreSQL server")
    );
    server.psql(
        "shop",
        "CREATE TABLE t (id int PRIMARY KEY, at numeric, big text); CREATE PUBLICATION pub FOR TABLE t",
    );
    let outputs = outputs(&definition);
    let feed = ModelFeed::new(&outputs);
    let running = Running::start(&definition, &outputs, &feed);
    eventually("the start", || running.status.get().state == "running");
    // A value that we have no room for is a bad record, and the row under its key goes.
    server.psql("shop", "INSERT INTO t VALUES (1, 1.5, ''), (2, 'Infinity', ''), (3, 2, '')");
    eventually("two rows", || feed.table(1).len() == 2);
    assert_eq!(feed.0.lock().bad.len(), 1);
    assert!(feed.0.lock().bad[0].contains("\"at\""), "{:?}", feed.0.lock().bad);
    server.psql("shop", "ALTER TABLE t DROP COLUMN at; INSERT INTO t VALUES (4, '')");
    eventually("the end", || running.thread.is_finished());
    let (state, message) = error(running.stop().unwrap_err());
    assert_eq!((state, message.as_str()), ("42703", "column \"at\" of public.t is gone upstream"));
    let mut wrong = definition.clone();
    wrong.connection[1].1 = postgres::free_port().to_string();
    assert_eq!(pg::discover(&wrong).unwrap_err().sqlstate.0, "08006");
    wrong.options.push(("colour".into(), "red".into()));
    assert_eq!(pg::discover(&wrong).unwrap_err().sqlstate.0, "22023");
}
