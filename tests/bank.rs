//! The bank of "internal consistency in streaming systems", over a real Kafka topic of several partitions: money only
//! moves, so at every tick the balances add up to nothing, and a transaction always meets itself in an outer join.
//!
//! `TIDEMILL_BANK_TRANSACTIONS` says how many transactions there are; 100,000 unless it does.

mod common;
mod database;

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use common::kafka::Kafka;
use database::{Db, TestSession};
use futures::executor::block_on;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

const PARTITIONS: i32 = 4;
const ACCOUNTS: u64 = 10;
const PATIENCE: Duration = Duration::from_secs(600);

/// A number that looks like chance, the same for the same `n`.
fn mixed(n: u64) -> u64 {
    let z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^ (z >> 27)
}

/// Transaction `i`: one in ten is declined, and times go back and forth by up to 10 s.
fn transaction(i: u64) -> String {
    let (from, to) = (mixed(i) % ACCOUNTS, mixed(i ^ 1 << 40) % ACCOUNTS);
    let (amount, declined) = (1 + mixed(i ^ 1 << 41) % 100, mixed(i ^ 1 << 42).is_multiple_of(10));
    let millis = i * 10 + mixed(i ^ 1 << 43) % 10_000;
    let (minute, second, millis) = (millis / 60_000, millis / 1000 % 60, millis % 1000);
    let (day, hour, minute) = (1 + minute / 1440, minute / 60 % 24, minute % 60);
    format!(
        "{{\"id\":{i},\"from_account\":{from},\"to_account\":{to},\"amount\":{amount},\"accepted\":{},\
         \"at\":\"2024-01-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z\"}}",
        !declined
    )
}

fn client(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("linger.ms", "5");
    config
}

fn create_topic(brokers: &str) {
    let config = client(brokers);
    let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
    let topic = NewTopic::new("transactions", PARTITIONS, TopicReplication::Fixed(1));
    for created in block_on(admin.create_topics(&[topic], &AdminOptions::new())).unwrap() {
        created.unwrap();
    }
}

/// Writes all transactions, over all partitions, while they are read.
fn produce(brokers: &str, count: u64) {
    let producer: BaseProducer = client(brokers).create().unwrap();
    for i in 0..count {
        let (value, partition) = (transaction(i), (mixed(i ^ 1 << 44) % PARTITIONS as u64) as i32);
        let mut record = BaseRecord::<(), str>::to("transactions").partition(partition).payload(&value);
        while let Err((error, unsent)) = producer.send(record) {
            assert!(matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)), "{error}");
            producer.poll(Duration::from_millis(10));
            record = unsent;
        }
        if i % 1000 == 999 {
            producer.flush(PATIENCE).unwrap();
        }
    }
    producer.flush(PATIENCE).unwrap();
}

/// What a subscription has given so far. Ticks in which nothing of it changes are not among those it tells of.
#[derive(Default)]
struct Followed {
    rows: BTreeMap<String, i64>,
    tick: Option<u64>,
    ticks: usize,
}

impl Followed {
    /// Takes rows of `tick|progressed|diff|…`, and lets `look` see the rows after each whole tick.
    fn take(&mut self, lines: Vec<String>, mut look: impl FnMut(&BTreeMap<String, i64>)) {
        for line in lines {
            let mut parts = line.splitn(4, '|');
            let mut next = || parts.next().unwrap().to_string();
            let (tick, progressed, diff, row) = (next().parse().unwrap(), next(), next(), next());
            if self.tick.is_some_and(|known| known != tick) {
                self.ticks += 1;
                look(&self.rows);
            }
            self.tick = Some(tick);
            if progressed == "f" {
                let weight = self.rows.entry(row.clone()).or_default();
                *weight += diff.parse::<i64>().unwrap();
                if *weight == 0 {
                    self.rows.remove(&row);
                }
            }
        }
    }
}

fn subscribe(db: &Db, view: &str) -> TestSession {
    let mut session = db.session();
    session.run("BEGIN");
    session.run(&format!("DECLARE c CURSOR FOR SUBSCRIBE {view} WITH (progress = true)"));
    session
}

fn fetch(session: &mut TestSession) -> Vec<String> {
    session.rows("FETCH 20000 FROM c WITH (timeout = '50 ms')")
}

#[test]
fn money_is_neither_made_nor_lost_at_any_tick() {
    let count = std::env::var("TIDEMILL_BANK_TRANSACTIONS").map_or(100_000, |n| n.parse().unwrap());
    let (broker, db) = (Kafka::start(), Db::new());
    let mut s = db.session();
    let brokers = broker.brokers().to_string();
    create_topic(&brokers);
    s.run(&format!("CREATE CONNECTION k TO KAFKA (brokers = '{brokers}')"));
    let source = "CREATE SOURCE transactions (id bigint, from_account int, to_account int, amount bigint, \
                  accepted boolean, at timestamptz, WATERMARK FOR at AS at - INTERVAL '1 minute') \
                  FROM KAFKA CONNECTION k (topic = 'transactions', start = 'earliest') FORMAT JSON";
    s.run(source);
    for view in [
        "accepted AS SELECT id, from_account, to_account, amount, at FROM transactions WHERE accepted",
        "credits AS SELECT to_account AS account, sum(amount) AS credits FROM accepted GROUP BY to_account",
        "debits AS SELECT from_account AS account, sum(amount) AS debits FROM accepted GROUP BY from_account",
        "balance AS SELECT account, coalesce(credits, 0) - coalesce(debits, 0) AS balance \
         FROM credits FULL JOIN debits USING (account)",
        "total AS SELECT sum(balance) AS total FROM balance",
        "itself AS SELECT a.id, b.id AS other FROM accepted a LEFT JOIN accepted b ON a.id = b.id AND a.at = b.at",
        "alone AS SELECT id FROM itself WHERE other IS NULL",
        "met AS SELECT count(*) AS n, count(other) AS others FROM itself",
        "minutes AS SELECT window_start, count(*) AS n, sum(amount) AS amount \
         FROM TUMBLE(transactions, at, INTERVAL '1 minute') GROUP BY window_start EMIT ON WINDOW CLOSE",
    ] {
        s.run(&format!("CREATE MATERIALIZED VIEW {view}"));
    }
    let (mut totals, mut alone, mut met) =
        (subscribe(&db, "total"), subscribe(&db, "alone"), subscribe(&db, "met"));
    let (mut total, mut nobody, mut pairs) = (Followed::default(), Followed::default(), Followed::default());
    let accepted = (0..count).filter(|i| !mixed(i ^ 1 << 42).is_multiple_of(10)).count();
    let begun = Instant::now();
    let producer = thread::spawn(move || produce(&brokers, count));
    let all = format!("{accepted}|{accepted}");
    let deadline = Instant::now() + PATIENCE;
    while !pairs.rows.contains_key(&all) {
        assert!(Instant::now() < deadline, "only {:?} of {all} came", pairs.rows);
        total.take(fetch(&mut totals), |rows| {
            let sum: Vec<_> = rows.iter().collect();
            assert!(matches!(sum[..], [(total, 1)] if total == "0" || total == "NULL"), "{rows:?}");
        });
        nobody.take(fetch(&mut alone), |rows| assert!(rows.is_empty(), "{rows:?} met nobody"));
        pairs.take(fetch(&mut met), |rows| {
            let (row, weight) = rows.iter().next().unwrap();
            let (n, others) = row.split_once('|').unwrap();
            assert!(rows.len() == 1 && *weight == 1 && n == others, "{rows:?}");
        });
    }
    let took = begun.elapsed();
    producer.join().unwrap();
    println!(
        "{count} transactions in {took:?}, {:.0} a second; in each of {} ticks that brought some, total was 0 and nobody alone",
        count as f64 / took.as_secs_f64(),
        pairs.ticks
    );
    assert!(pairs.ticks > 10, "{} ticks", pairs.ticks);
    for view in ["accepted", "credits", "debits", "balance", "total", "itself", "alone", "met", "minutes"] {
        s.run(&format!("CHECK MATERIALIZED VIEW {view}"));
    }
    assert_eq!(s.rows("SELECT count(*), min(total)::text FROM total"), ["1|0"]);
    let kept = s
        .rows("SELECT sum(rows) < 100 FROM tidemill.operators WHERE view = 'minutes' AND operator <> 'view'");
    assert_eq!(kept, ["t"], "what is kept is of open minutes");
}
