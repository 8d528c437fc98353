//! Source and sink against librdkafka's mock cluster in this process.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use parking_lot::Mutex;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::mock::MockBroker;
use super::position::Position;
use super::shop::Shop;
use crate::connectors::{
    Changes, Envelope, Feed, Memory, SinkContext, SinkDefinition, SourceBatch, SourceContext,
    SourceDefinition, SourceOutput, Status, StopFlag,
};
use crate::engine::{CollectionId, Delta, InputChange, Tick, TickDelta};
use crate::error::Result;

/// Nothing here takes nearly as long.
const PATIENCE: Duration = Duration::from_secs(60);

fn broker() -> MockBroker {
    MockBroker::start(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap()
}

fn pairs(options: &[(&str, &str)]) -> Vec<(String, String)> {
    options.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect()
}

fn produce(broker: &MockBroker, topic: &str, partition: i32, values: &[&str]) {
    let producer: BaseProducer =
        rdkafka::ClientConfig::new().set("bootstrap.servers", broker.address().to_string()).create().unwrap();
    for value in values {
        producer
            .send(BaseRecord::<str, str>::to(topic).partition(partition).payload(value).timestamp(1000))
            .unwrap();
    }
    producer.flush(PATIENCE).unwrap();
}

/// Keeps what it is given.
#[derive(Default)]
struct Kept(Mutex<Vec<SourceBatch>>);

impl Feed for Kept {
    fn submit(&self, batch: SourceBatch) -> Result<Tick> {
        self.submit_nowait(batch).map(|()| 0)
    }

    fn wait_durable(&self, _tick: Tick) -> Result<()> {
        Ok(())
    }

    fn submit_nowait(&self, batch: SourceBatch) -> Result<()> {
        self.0.lock().push(batch);
        Ok(())
    }

    fn durable_position(&self) -> Option<Vec<u8>> {
        None
    }
}

/// A source that runs until it is dropped.
struct Running {
    feed: Arc<Kept>,
    status: Arc<Status>,
    stop: StopFlag,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Running {
    fn start(broker: &MockBroker, options: &[(&str, &str)], resume: Option<Vec<u8>>) -> Running {
        let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false)]));
        let definition = SourceDefinition {
            name: "s".into(),
            kind: "kafka".into(),
            connection: pairs(&[("brokers", &broker.address().to_string())]),
            options: pairs(options),
            format: None,
            envelope: Envelope::None,
            includes: vec![],
            key: vec![],
        };
        let source = super::source(&definition, &schema).unwrap();
        let (feed, status, stop) =
            (Arc::new(Kept::default()), Arc::new(Status::default()), StopFlag::default());
        let context = SourceContext {
            name: "s".into(),
            outputs: vec![SourceOutput {
                collection: CollectionId(1),
                upstream: "s".into(),
                schema,
                key: vec![],
            }],
            resume,
            feed: Arc::clone(&feed) as Arc<dyn Feed>,
            status: Arc::clone(&status),
            stop: stop.clone(),
        };
        Running { feed, status, stop, thread: Some(thread::spawn(move || source.run(context))) }
    }

    fn ids(&self) -> Vec<i64> {
        let batches = self.feed.0.lock();
        let changes = batches.iter().flat_map(|b| &b.changes);
        changes
            .flat_map(|(_, change)| match change {
                InputChange::Delta(delta) => {
                    delta.rows.column(0).as_primitive::<Int64Type>().values().to_vec()
                }
                other => panic!("only appends, not {other:?}"),
            })
            .collect()
    }

    fn wait(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !holds(self) {
            assert!(began.elapsed() < PATIENCE, "{what}: {:?} {:?}", self.ids(), self.status.get());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Stops it; its last position.
    fn stop(mut self) -> (Result<()>, Option<Vec<u8>>) {
        self.stop.stop();
        let result = self.thread.take().unwrap().join().unwrap();
        let position = self.feed.0.lock().iter().rev().find_map(|b| b.position.clone());
        (result, position)
    }
}

#[test]
fn a_connection_is_checked() {
    let broker = broker();
    let options = |address: String| pairs(&[("brokers", &address)]);
    super::validate_connection(options(broker.address().to_string())).unwrap();
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = super::validate_connection(options(unused.to_string())).unwrap_err();
    assert_eq!(error.sqlstate.0, "08006");
}

#[test]
fn a_topic_is_read_from_where_it_was_left() {
    let broker = broker();
    broker.create_topic("t", 2).unwrap();
    produce(&broker, "t", 0, &["{\"id\":1}", "oops", "{\"id\":2}"]);
    produce(&broker, "t", 1, &["{\"id\":3}"]);
    let first = Running::start(&broker, &[("topic", "t")], None);
    first.wait("the rows", |r| r.ids().len() == 3);
    let status = first.status.get();
    assert_eq!((status.state, status.rows, status.bad_records), ("running", 3, 1));
    assert_eq!(status.event_time_micros, Some(1_000_000));
    let bad = first.feed.0.lock().iter().flat_map(|b| b.bad.clone()).next().unwrap();
    assert_eq!(bad.position, "topic=t partition=0 offset=1");
    assert_eq!(bad.raw.as_deref(), Some(b"oops".as_slice()));
    let (result, position) = first.stop();
    result.unwrap();
    let mut expected = Position::default();
    expected.set("t", 0, 3);
    expected.set("t", 1, 1);
    assert_eq!(Position::decode(&position.clone().unwrap()), Ok(expected));

    produce(&broker, "t", 1, &["{\"id\":4}"]);
    let second = Running::start(&broker, &[("topic", "t")], position);
    second.wait("the new row", |r| !r.ids().is_empty());
    second.wait("no lag", |r| r.status.get().lag == Some(0));
    assert_eq!(second.ids(), [4]);
    second.stop().0.unwrap();
}

#[test]
fn a_source_may_begin_anywhere() {
    let broker = broker();
    broker.create_topic("t", 1).unwrap();
    produce(&broker, "t", 0, &["{\"id\":1}", "{\"id\":2}", "{\"id\":3}"]);
    let from_offset = Running::start(&broker, &[("topic", "t"), ("start", "0:2")], None);
    from_offset.wait("the last row", |r| r.ids() == [3]);
    from_offset.stop().0.unwrap();

    let latest = Running::start(&broker, &[("topic", "t"), ("start", "latest")], None);
    // Where it began is known before anything came.
    latest.wait("a position", |r| !r.feed.0.lock().is_empty());
    latest.wait("reading", |r| r.status.get().state == "running");
    produce(&broker, "t", 0, &["{\"id\":4}"]);
    latest.wait("the new row", |r| r.ids() == [4]);
    latest.stop().0.unwrap();
}

#[test]
fn topics_that_match_a_pattern_are_read_and_those_to_come() {
    let broker = broker();
    for topic in ["shop.a", "shop", "other.shop.a"] {
        broker.create_topic(topic, 1).unwrap();
        produce(&broker, topic, 0, &[if topic == "shop.a" { "{\"id\":1}" } else { "{\"id\":9}" }]);
    }
    let options =
        [("topic.pattern", "shop\\.[a-z]"), ("properties.topic.metadata.refresh.interval.ms", "200")];
    let source = Running::start(&broker, &options, None);
    source.wait("the topic that is there", |r| r.ids() == [1]);
    broker.create_topic("shop.b", 2).unwrap();
    produce(&broker, "shop.b", 1, &["{\"id\":2}"]);
    source.wait("the new topic", |r| r.ids() == [1, 2]);
    let (result, position) = source.stop();
    result.unwrap();
    let position = Position::decode(&position.unwrap()).unwrap();
    assert_eq!(
        (position.get("shop.a", 0), position.get("shop.b", 1), position.get("shop", 0)),
        (Some(1), Some(1), None)
    );
}

#[test]
fn an_offset_that_is_gone_is_an_error() {
    let broker = broker();
    broker.create_topic("t", 1).unwrap();
    produce(&broker, "t", 0, &["{\"id\":1}"]);
    let mut position = Position::default();
    position.set("t", 0, 100);
    let mut source = Running::start(&broker, &[("topic", "t")], Some(position.encode().unwrap()));
    let error = source.thread.take().unwrap().join().unwrap().unwrap_err();
    assert_eq!(error.message, "the offset to go on from is not in the topic any more");
    assert_eq!(error.detail.as_deref(), Some("topic=\"t\" partition=0: next is 100, there are 0 to 1."));
}

#[test]
fn a_broker_that_goes_away_stalls_the_source_until_it_is_back() {
    let broker = broker();
    broker.create_topic("t", 1).unwrap();
    produce(&broker, "t", 0, &["{\"id\":1}"]);
    let source = Running::start(&broker, &[("topic", "t")], None);
    source.wait("the first row", |r| r.ids() == [1]);
    broker.down().unwrap();
    source.wait("a stall", |r| r.status.get().state == "stalled" && r.status.get().error.is_some());
    broker.up().unwrap();
    source.wait("recovery", |r| r.status.get().state == "running" && r.status.get().error.is_none());
    produce(&broker, "t", 0, &["{\"id\":2}"]);
    source.wait("the second row", |r| r.ids() == [1, 2]);
    source.stop().0.unwrap();
}

/// Changes handed over one by one.
struct Scripted {
    start: Tick,
    snapshot: Option<Vec<RecordBatch>>,
    changes: std::vec::IntoIter<TickDelta>,
    stop: StopFlag,
}

impl Changes for Scripted {
    fn start_tick(&self) -> Tick {
        self.start
    }

    fn snapshot(&mut self) -> Result<Option<Vec<RecordBatch>>> {
        Ok(self.snapshot.take())
    }

    fn next(&mut self, timeout: Duration) -> Result<Option<TickDelta>> {
        let next = self.changes.next();
        if next.is_none() {
            thread::sleep(timeout);
            self.stop.stop();
        }
        Ok(next)
    }
}

#[derive(Default)]
struct Remembered(Mutex<HashMap<String, Vec<u8>>>);

impl Memory for Remembered {
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.0.lock().get(name).cloned())
    }

    fn put(&self, name: &str, value: &[u8]) -> Result<()> {
        self.0.lock().insert(name.to_string(), value.to_vec());
        Ok(())
    }
}

fn rows(ids: &[i64]) -> RecordBatch {
    let schema = Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("n", DataType::Int64, false),
    ]));
    let n: Vec<i64> = ids.iter().map(|i| i * 10).collect();
    let columns: Vec<arrow::array::ArrayRef> = vec![
        Arc::new(arrow::array::Int64Array::from(ids.to_vec())),
        Arc::new(arrow::array::Int64Array::from(n)),
    ];
    RecordBatch::try_new(schema, columns).unwrap()
}

fn change(tick: Tick, ids: &[i64], weights: &[i64]) -> TickDelta {
    TickDelta { tick, delta: Some(Delta { rows: rows(ids), weights: Some(weights.to_vec().into()) }) }
}

/// A sink's run over the scripted changes, from what it remembers.
fn run_sink(
    broker: &MockBroker,
    envelope: Envelope,
    uuid: uuid::Uuid,
    memory: &Arc<Remembered>,
    (start, snapshot): (Tick, Option<Vec<RecordBatch>>),
    changes: Vec<TickDelta>,
) -> (Result<()>, Arc<Status>) {
    let key: &[usize] = if envelope == Envelope::None { &[] } else { &[0] };
    let definition = SinkDefinition {
        name: "k".into(),
        uuid: uuid::Uuid::nil(),
        kind: "kafka".into(),
        connection: pairs(&[("brokers", &broker.address().to_string())]),
        options: pairs(&[("topic", "out"), ("commit_interval", "10 ms")]),
        format: None,
        envelope,
        append_only: false,
    };
    let schema = rows(&[]).schema();
    let sink = super::sink(&definition, &schema, key).unwrap();
    let (status, stop) = (Arc::new(Status::default()), StopFlag::default());
    let result = sink.run(SinkContext {
        refused: Arc::new(|_| Ok(())),
        name: "k".into(),
        uuid,
        schema,
        key: key.to_vec(),
        append_only: false,
        changes: Box::new(Scripted { start, snapshot, changes: changes.into_iter(), stop: stop.clone() }),
        memory: Arc::clone(memory) as Arc<dyn Memory>,
        release: Arc::new(|_| ()),
        status: Arc::clone(&status),
        checks: Arc::new(crate::connectors::Checks::new(|| {
            Err(crate::error::Error::internal("nobody asks"))
        })),
        stop,
    });
    (result, status)
}

/// Every record of the topic as `key value`, read to its end.
fn records(broker: &MockBroker, topic: &str) -> Vec<String> {
    use rdkafka::Message;
    use rdkafka::consumer::{BaseConsumer, Consumer};
    let consumer: BaseConsumer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", broker.address().to_string())
        .set("group.id", "reader")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).unwrap();
    let partitions: Vec<i32> = metadata.topics()[0].partitions().iter().map(|p| p.id()).collect();
    let mut list = rdkafka::TopicPartitionList::new();
    for p in &partitions {
        list.add_partition_offset(topic, *p, rdkafka::Offset::Beginning).unwrap();
    }
    consumer.assign(&list).unwrap();
    let (mut found, mut ended) = (Vec::new(), std::collections::HashSet::new());
    let began = Instant::now();
    while ended.len() < partitions.len() {
        assert!(began.elapsed() < PATIENCE);
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(m)) => {
                let text =
                    |b: Option<&[u8]>| b.map_or("-".to_string(), |b| String::from_utf8_lossy(b).into_owned());
                found.push((m.partition(), m.offset(), format!("{} {}", text(m.key()), text(m.payload()))));
            }
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(p))) => {
                ended.insert(p);
            }
            _ => (),
        }
    }
    found.sort();
    found.into_iter().map(|(_, _, r)| r).collect()
}

#[test]
fn a_sink_writes_a_snapshot_then_changes_and_goes_on_after_what_the_topic_has() {
    let broker = broker();
    broker.create_topic("out", 1).unwrap();
    let (uuid, memory) = (uuid::Uuid::from_u128(7), Arc::new(Remembered::default()));
    let changes = vec![change(6, &[1, 2], &[-1, 1]), change(7, &[2, 2], &[-1, 1])];
    let (result, status) =
        run_sink(&broker, Envelope::Upsert, uuid, &memory, (5, Some(vec![rows(&[1])])), changes);
    result.unwrap();
    let expected = [
        "{\"id\":1} {\"id\":1,\"n\":10}",
        "{\"id\":1} -",
        "{\"id\":2} {\"id\":2,\"n\":20}",
        "{\"id\":2} {\"id\":2,\"n\":20}",
    ];
    assert_eq!(records(&broker, "out"), expected);
    assert_eq!(status.get().tick_committed, Some(7));
    assert_eq!(status.get().rows, 4);

    // The answer of the last commit was lost: the topic is at 7, the memory at 6, and tick 7 comes again.
    memory.put("committed", &6u64.to_be_bytes()).unwrap();
    let again = vec![change(7, &[2, 2], &[-1, 1]), change(9, &[3], &[1])];
    let (result, _) = run_sink(&broker, Envelope::Upsert, uuid, &memory, (6, None), again);
    result.unwrap();
    let after = records(&broker, "out");
    assert_eq!(after[..4], expected);
    assert_eq!(after[4..], ["{\"id\":3} {\"id\":3,\"n\":30}"]);
    assert_eq!(memory.get("committed").unwrap(), Some(9u64.to_be_bytes().to_vec()));
}

#[test]
fn a_first_transaction_that_never_happened_is_forgotten() {
    let broker = broker();
    broker.create_topic("out", 1).unwrap();
    let (uuid, memory) = (uuid::Uuid::from_u128(8), Arc::new(Remembered::default()));
    // As after a crash between the memory's writing and the commit.
    memory.put("intent", &5u64.to_be_bytes()).unwrap();
    memory.put("committed", &5u64.to_be_bytes()).unwrap();
    let (result, _) = run_sink(&broker, Envelope::None, uuid, &memory, (5, None), vec![]);
    assert!(result.unwrap_err().message.contains("starts over"));
    assert_eq!(memory.get("committed").unwrap(), Some(vec![]));
    let (result, _) = run_sink(&broker, Envelope::None, uuid, &memory, (6, Some(vec![rows(&[4])])), vec![]);
    result.unwrap();
    assert_eq!(records(&broker, "out"), ["- {\"id\":4,\"n\":40}"]);
}

#[test]
fn append_only_sinks_refuse_what_goes_and_keys_must_tell_rows_apart() {
    let broker = broker();
    broker.create_topic("out", 1).unwrap();
    let run = |envelope, n, change| {
        let memory = Arc::new(Remembered::default());
        run_sink(&broker, envelope, uuid::Uuid::from_u128(n), &memory, (1, Some(vec![])), vec![change]).0
    };
    let error = run(Envelope::None, 10, change(2, &[1], &[-1])).unwrap_err();
    assert_eq!(error.sqlstate.0, "55000");
    let error = run(Envelope::Upsert, 11, change(2, &[1], &[2])).unwrap_err();
    assert_eq!(
        (error.sqlstate.0, error.detail.as_deref()),
        ("23505", Some("Several rows have the key {\"id\":1}."))
    );
}

#[test]
fn debezium_records_tell_before_and_after() {
    let broker = broker();
    broker.create_topic("out", 1).unwrap();
    let memory = Arc::new(Remembered::default());
    let changes = vec![change(2, &[1, 1, 2], &[-1, 1, 1]), change(3, &[2], &[-1])];
    run_sink(
        &broker,
        Envelope::Debezium,
        uuid::Uuid::from_u128(12),
        &memory,
        (1, Some(vec![rows(&[1])])),
        changes,
    )
    .0
    .unwrap();
    let without_time: Vec<String> = records(&broker, "out")
        .into_iter()
        .map(|r| r.split_once(",\"ts_ms\"").map_or(r.clone(), |(head, _)| head.to_string()))
        .collect();
    assert_eq!(
        without_time,
        [
            "{\"id\":1} {\"before\":null,\"after\":{\"id\":1,\"n\":10},\"op\":\"r\"",
            "{\"id\":1} {\"before\":{\"id\":1,\"n\":10},\"after\":{\"id\":1,\"n\":10},\"op\":\"u\"",
            "{\"id\":2} {\"before\":null,\"after\":{\"id\":2,\"n\":20},\"op\":\"c\"",
            "{\"id\":2} {\"before\":{\"id\":2,\"n\":20},\"after\":null,\"op\":\"d\"",
            "{\"id\":2} -",
        ]
    );
}

#[test]
fn the_shop_goes_on_where_it_was_although_the_broker_starts_empty() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("shop");
    let open = || {
        let broker = broker();
        for topic in super::shop::TOPICS {
            broker.create_topic(topic, 1).unwrap();
        }
        let shop = Shop::open(&broker.address().to_string(), &state, 500).unwrap();
        (broker, shop)
    };
    let (broker, shop) = open();
    let source = Running::start(&broker, &[("topic", "orders")], None);
    source.wait("orders", |r| r.ids().len() > 300);
    let (result, position) = source.stop();
    result.unwrap();
    drop((shop, broker));
    let next = Position::decode(position.as_ref().unwrap()).unwrap().get("orders", 0).unwrap();

    let (broker, shop) = open();
    let source = Running::start(&broker, &[("topic", "orders")], position);
    source.wait("more orders", |r| r.ids().len() > 300);
    assert_eq!(source.ids()[0], next);
    assert!(source.ids().is_sorted_by(|a, b| *b == a + 1));
    source.stop().0.unwrap();
    drop((shop, broker));
}
