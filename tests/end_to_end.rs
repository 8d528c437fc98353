//! The whole way, with real systems and kills: PostgreSQL under pgbench and a Kafka topic in, views, the Snowflake
//! emulator out. In the end all three agree, to the cent and to the row.

mod common;

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
const LOAD: Duration = Duration::from_secs(20);

/// Region of a teller after the n-th note about it.
fn region(teller: usize, n: usize) -> &'static str {
    ["north", "south", "east", "west"][(teller * 7 + n * 3) % 4]
}

/// Writes notes about tellers into the topic for as long as the load lasts; answers with each teller's last region.
fn produce(brokers: &str, until: Instant) -> Vec<&'static str> {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("acks", "all")
        .create()
        .expect("a producer");
    let mut last = vec![""; TELLERS];
    let mut n = 0;
    while Instant::now() < until {
        for (teller, last) in last.iter_mut().enumerate() {
            *last = region(teller + 1, n);
            let (key, value) = (
                format!("{{\"tid\": {}}}", teller + 1),
                format!("{{\"tid\": {}, \"region\": \"{last}\"}}", teller + 1),
            );
            producer.send(BaseRecord::to("notes").key(&key).payload(&value)).expect("room in the queue");
        }
        producer.flush(Duration::from_secs(10)).expect("the broker takes it");
        n += 1;
        std::thread::sleep(Duration::from_millis(200));
    }
    last
}

fn set_up(tidemill: &Tidemill, postgres: &Postgres, kafka: &Kafka, snowflake: &Fakesnow) {
    tidemill.sql(&format!(
        "CREATE CONNECTION pg TO POSTGRES (host = '127.0.0.1', port = {}, user = 'postgres', database = 'bank');
         CREATE SOURCE bank FROM POSTGRES CONNECTION pg (publication = 'pub') FOR ALL TABLES;
         CREATE CONNECTION k TO KAFKA (brokers = '{}');
         CREATE SOURCE notes (tid int PRIMARY KEY, region text)
             FROM KAFKA CONNECTION k (topic = 'notes', start = 'earliest') FORMAT JSON ENVELOPE UPSERT;
         CREATE SECRET sf_password AS 'pw';
         CREATE CONNECTION sf TO SNOWFLAKE (account = 'org-test', url = '{}', user = 'LOADER',
             password = SECRET sf_password, database = 'DB', schema = 'PUBLIC');",
        postgres.port,
        kafka.brokers(),
        snowflake.url,
    ));
    for (name, _, key, query) in VIEWS {
        tidemill.sql(&format!("CREATE MATERIALIZED VIEW {name} AS {query}"));
        tidemill.sql(&format!(
            "CREATE SINK {name}_sink FROM {name} INTO SNOWFLAKE CONNECTION sf (table = '{}') KEY ({key})
             WITH (commit_interval = '1 s')",
            name.to_uppercase()
        ));
    }
}

#[test]
fn postgres_views_and_warehouse_agree_after_kills_under_load() {
    let postgres = Postgres::start();
    postgres.psql("postgres", "CREATE DATABASE bank");
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

    let until = Instant::now() + LOAD;
    let seconds = LOAD.as_secs().to_string();
    let mut load = pgbench(&["-n", "-c", "4", "-R", "400", "-T", &seconds]).spawn().expect("pgbench runs");
    let last = std::thread::scope(|scope| {
        let producer = scope.spawn(|| produce(kafka.brokers(), until));
        for _ in 0..2 {
            std::thread::sleep(LOAD / 3);
            tidemill.kill_and_restart();
        }
        producer.join().expect("the producer")
    });
    assert!(load.wait().expect("pgbench's end").success());

    let notes: Vec<String> =
        last.iter().enumerate().map(|(i, region)| format!("({}, '{region}')", i + 1)).collect();
    let notes = format!("WITH notes (tid, region) AS (VALUES {}) ", notes.join(", "));
    for (name, columns, _, query) in VIEWS {
        let text = postgres.psql("bank", &format!("{notes}{query}"));
        let mut truth: Vec<Vec<String>> =
            text.lines().map(|l| l.split('|').map(str::to_string).collect()).collect();
        truth.sort();
        let deadline = Instant::now() + Duration::from_secs(60);
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
        tidemill.sql(&format!("CHECK MATERIALIZED VIEW {name}"));
        println!(
            "{name}: {} rows agree in PostgreSQL, Tidemill and the warehouse; totals {:?}",
            truth.len(),
            total(&truth)
        );
    }
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
