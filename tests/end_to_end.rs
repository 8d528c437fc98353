//! The whole way, with real systems and kills: PostgreSQL under pgbench and Kafka topics in, views, and out again into
//! the Snowflake emulator, another PostgreSQL database and a topic. In the end all agree, to the cent and to the row:
//! nothing is lost, nothing is doubled. `TIDEMILL_KILLS=300` kills the server so often, instead of twenty times.

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::fakesnow::Fakesnow;
use common::kafka::Kafka;
use common::postgres::Postgres;
use common::process::Tidemill;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

/// Each view: name, columns, key, and its query, as PostgreSQL says it for itself (`$NOTES`: the topic's last values as a VALUES list).
const VIEWS: [(&str, &[&str], &str, &str); 4] = [
    (
        "by_branch",
        &["BID", "ACCOUNTS", "BALANCE"],
        "bid",
        "SELECT bid, count(*) AS accounts, sum(abalance) AS balance FROM pgbench_accounts GROUP BY bid",
    ),
    (
        "by_teller",
        &["TID", "TRANSFERS", "TOTAL", "LARGEST"],
        "tid",
        "SELECT tid, count(*) AS transfers, sum(delta) AS total, max(delta) AS largest
         FROM pgbench_history GROUP BY tid",
    ),
    (
        "top_accounts",
        &["AID", "BID", "ABALANCE"],
        "aid",
        "SELECT aid, bid, abalance FROM pgbench_accounts ORDER BY abalance DESC, aid LIMIT 10",
    ),
    (
        "by_region",
        &["REGION", "TRANSFERS", "TOTAL"],
        "region",
        "SELECT n.region, count(*) AS transfers, sum(h.delta) AS total
         FROM pgbench_history h JOIN notes n ON n.tid = h.tid GROUP BY n.region",
    ),
];

const TELLERS: usize = 10;

/// Kills, unless `TIDEMILL_KILLS` says another number.
const KILLS: u64 = 20;

/// Region of a teller after the n-th note about it.
fn region(teller: usize, n: usize) -> &'static str {
    ["north", "south", "east", "west"][(teller * 7 + n * 3) % 4]
}

/// Writes notes about tellers and entries of a ledger into their topics until it is told to stop; answers with each
/// teller's last region and the number of entries.
fn produce(brokers: &str, stop: &AtomicBool) -> (Vec<&'static str>, usize) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("acks", "all")
        .create()
        .expect("a producer");
    let mut last = vec![""; TELLERS];
    let (mut n, mut entries) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        for (teller, last) in last.iter_mut().enumerate() {
            *last = region(teller + 1, n);
            let (key, value) = (
                format!("{{\"tid\": {}}}", teller + 1),
                format!("{{\"tid\": {}, \"region\": \"{last}\"}}", teller + 1),
            );
            producer.send(BaseRecord::to("notes").key(&key).payload(&value)).expect("room in the queue");
        }
        for id in entries..entries + 50 {
            let value = format!("{{\"id\": {id}, \"amount\": {}}}", amount(id));
            producer.send(BaseRecord::<(), _>::to("ledger").payload(&value)).expect("room in the queue");
        }
        entries += 50;
        producer.flush(Duration::from_secs(10)).expect("the broker takes it");
        n += 1;
        std::thread::sleep(Duration::from_millis(200));
    }
    (last, entries)
}

/// What an entry of the ledger is about.
fn amount(id: usize) -> usize {
    id * 31 % 1000
}

fn set_up(tidemill: &Tidemill, postgres: &Postgres, kafka: &Kafka, snowflake: &Fakesnow) {
    tidemill.sql(&format!(
        "CREATE CONNECTION pg TO POSTGRES (host = '127.0.0.1', port = {}, user = 'postgres', database = 'bank');
         CREATE SOURCE bank FROM POSTGRES CONNECTION pg (publication = 'pub') FOR ALL TABLES;
         CREATE CONNECTION k TO KAFKA (brokers = '{}');
         CREATE SOURCE notes (tid int PRIMARY KEY, region text)
             FROM KAFKA CONNECTION k (topic = 'notes', start = 'earliest') FORMAT JSON ENVELOPE UPSERT;
         CREATE SOURCE ledger (id bigint, amount int)
             FROM KAFKA CONNECTION k (topic = 'ledger', start = 'earliest') FORMAT JSON;
         CREATE MATERIALIZED VIEW entries AS SELECT id, amount * 2 AS twice FROM ledger;
         CREATE SINK entries_sink FROM entries INTO KAFKA CONNECTION k (topic = 'entries', partitions = 2)
             KEY (id) FORMAT JSON ENVELOPE NONE WITH (commit_interval = '100 ms');
         CREATE CONNECTION reports TO POSTGRES (host = '127.0.0.1', port = {}, user = 'postgres', database = 'reports');
         CREATE SECRET sf_password AS 'pw';
         CREATE CONNECTION sf TO SNOWFLAKE (account = 'org-test', url = '{}', user = 'LOADER',
             password = SECRET sf_password, database = 'DB', schema = 'PUBLIC');",
        postgres.port,
        kafka.brokers(),
        postgres.port,
        snowflake.url,
    ));
    for (name, _, key, query) in VIEWS {
        tidemill.sql(&format!("CREATE MATERIALIZED VIEW {name} AS {query}"));
        tidemill.sql(&format!(
            "CREATE SINK {name}_sink FROM {name} INTO SNOWFLAKE CONNECTION sf (table = '{}') KEY ({key})
             WITH (commit_interval = '1 s');
             CREATE SINK {name}_pg FROM {name} INTO POSTGRES CONNECTION reports (table = 'public.{name}') KEY ({key})
             WITH (commit_interval = '100 ms')",
            name.to_uppercase()
        ));
    }
}

#[test]
fn postgres_views_and_warehouse_agree_after_kills_under_load() {
    let postgres = Postgres::start();
    postgres.psql("postgres", "CREATE DATABASE bank");
    postgres.psql("postgres", "CREATE DATABASE reports");
    let pgbench = |args: &[&str]| {
        let mut command = postgres.command("pgbench");
        command
            .args(["-h", "127.0.0.1", "-U", "postgres", "-p", &postgres.port.to_string()])
            .args(args)
            .arg("bank");
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        command
    };
    assert!(pgbench(&["-i", "-q", "-s", "1"]).status().expect("pgbench runs").success());
    postgres.psql("bank", "CREATE PUBLICATION pub FOR ALL TABLES");
    let kafka = Kafka::start();
    let snowflake = Fakesnow::start();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut tidemill = Tidemill::start(&directory.path().join("data"));
    set_up(&tidemill, &postgres, &kafka, &snowflake);

    let kills = std::env::var("TIDEMILL_KILLS").map_or(KILLS, |n| n.parse().expect("a number of kills"));
    let mut load = pgbench(&["-n", "-c", "4", "-R", "200", "-T", "100000"]).spawn().expect("pgbench runs");
    let stop = AtomicBool::new(false);
    let (last, entries) = std::thread::scope(|scope| {
        let producer = scope.spawn(|| produce(kafka.brokers(), &stop));
        for kill in 0..kills {
            // From amid the start to some commits later.
            std::thread::sleep(Duration::from_millis(kill * 7919 % 1500));
            tidemill.kill_and_restart();
        }
        stop.store(true, Ordering::Relaxed);
        producer.join().expect("the producer")
    });
    // What it has begun ends or is undone with its connections, and it ends when it has none.
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgbench'";
    while load.try_wait().expect("pgbench's end").is_none() {
        postgres.psql("bank", end);
        std::thread::sleep(Duration::from_millis(100));
    }

    let notes: Vec<String> =
        last.iter().enumerate().map(|(i, region)| format!("({}, '{region}')", i + 1)).collect();
    let notes = format!("WITH notes (tid, region) AS (VALUES {}) ", notes.join(", "));
    for (name, columns, _, query) in VIEWS {
        let text = postgres.psql("bank", &format!("{notes}{query}"));
        let mut truth: Vec<Vec<String>> =
            text.lines().map(|l| l.split('|').map(str::to_string).collect()).collect();
        truth.sort();
        let deadline = Instant::now() + Duration::from_secs(120);
        let mut ours = tidemill.rows(&format!("SELECT * FROM {name}"));
        while ours != truth {
            assert!(
                Instant::now() < deadline,
                "{name} is not what PostgreSQL says\n ours: {ours:?}\ntruth: {truth:?}\n{}",
                tidemill.log()
            );
            std::thread::sleep(Duration::from_millis(200));
            ours = tidemill.rows(&format!("SELECT * FROM {name}"));
        }
        tidemill.sql(&format!("WAIT FOR SINK {name}_sink CURRENT TIMEOUT '60 s'"));
        let warehouse = in_warehouse(&snowflake, &name.to_uppercase(), columns);
        assert_eq!(warehouse, truth, "{name} in the warehouse");
        tidemill.sql(&format!("WAIT FOR SINK {name}_pg CURRENT TIMEOUT '60 s'"));
        let reported = postgres.psql("reports", &format!("SELECT * FROM {name}"));
        let mut reported: Vec<&str> = reported.lines().collect();
        reported.sort_unstable();
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        assert_eq!(reported, lines, "{name} in the other PostgreSQL database");
        tidemill.sql(&format!("CHECK MATERIALIZED VIEW {name}"));
        println!(
            "{name}: {} rows agree in PostgreSQL, Tidemill, the warehouse and the other database; totals {:?}",
            truth.len(),
            total(&truth)
        );
    }
    tidemill.sql("WAIT FOR SINK entries_sink CURRENT TIMEOUT '60 s'");
    let mut written: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (_, value) in kafka.committed("entries") {
        let value: serde_json::Value = serde_json::from_str(&value.expect("no tombstones")).expect("JSON");
        let number = |name: &str| value[name].as_u64().expect("a number") as usize;
        written.entry(number("id")).or_default().push(number("twice"));
    }
    let once: BTreeMap<usize, Vec<usize>> = (0..entries).map(|id| (id, vec![2 * amount(id)])).collect();
    assert_eq!(written, once, "every entry stands in the topic once");
    println!("{entries} entries stand in the topic once each; {kills} kills");
    let bad = tidemill.rows("SELECT count(*) FROM tidemill.errors");
    assert_eq!(bad, [["0"]]);
}

/// A table's rows in the emulator, sorted.
fn in_warehouse(snowflake: &Fakesnow, table: &str, columns: &[&str]) -> Vec<Vec<String>> {
    let rows = snowflake.query(&format!("SELECT {} FROM DB.PUBLIC.{table}", columns.join(", ")));
    let value = |i, c: &&str| rows.get(i, c).unwrap_or("NULL").to_string();
    let mut rows: Vec<Vec<String>> =
        (0..rows.len()).map(|i| columns.iter().map(|c| value(i, c)).collect()).collect();
    rows.sort();
    rows
}

/// Sums of the numeric columns.
fn total(rows: &[Vec<String>]) -> Vec<i64> {
    let width = rows.first().map_or(0, Vec::len);
    (0..width).map(|c| rows.iter().filter_map(|r| r[c].parse::<i64>().ok()).sum()).collect()
}
