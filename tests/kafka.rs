//! Kafka sources and sinks against a real Apache Kafka broker: what a mock cannot show. Transactions are honoured,
//! new partitions are found, a broker may go away, and a sink that is killed at any moment writes every change once.
//!
//! Killed sinks run in a process of their own, this same program told so by its environment.

mod common;
#[path = "common/history.rs"]
mod history;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Decimal128Type, Field, Int64Type, Schema, SchemaRef};
use futures::executor::block_on;
use libtest_mimic::{Arguments, Failed, Trial};
use parking_lot::Mutex;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tidemill::Result;
use tidemill::connectors::{
    Envelope, Feed, Include, SinkDefinition, SourceBatch, SourceContext, SourceDefinition, SourceOutput,
    Status, StopFlag, kafka as connector,
};
use tidemill::engine::{CollectionId, InputChange, Tick};

use common::kafka::Kafka;
use history::{History, Kind, follow, row_text};

const PATIENCE: Duration = Duration::from_secs(90);
/// The last tick of the histories.
const END: u64 = 9;
const CHILD: &str = "TIDEMILL_TEST_KAFKA_SINK";

fn main() {
    if let Ok(task) = std::env::var(CHILD) {
        std::process::exit(child(&task));
    }
    let server = Arc::new(Lazy::default());
    let mut trials = Vec::new();
    for (kind, seed) in [(Kind::Keyed, 1), (Kind::Append, 2)] {
        // At the first pass the snapshot's transaction, at the second one of changes.
        for point in
            ["kafka_sink.produced", "kafka_sink.produced:2", "kafka_sink.committed", "kafka_sink.committed:2"]
        {
            let server = Arc::clone(&server);
            let name = format!("sink_{}_killed_at_{point}", kind.name());
            trials.push(Trial::test(name, move || sink_crash(&server.get(), kind, seed, point)));
        }
    }
    let kills = Arc::clone(&server);
    trials.push(Trial::test("sink_killed_at_any_moment", move || sink_kills(&kills.get())));
    for (name, test) in [
        (
            "source_reads_committed_records_with_their_metadata",
            committed_only as fn(&Kafka) -> std::result::Result<(), Failed>,
        ),
        ("source_starts_at_a_time", start_time),
        ("source_finds_new_partitions", new_partitions),
        ("source_says_when_records_are_gone", records_gone),
        ("sink_creates_its_topics", sink_topics),
    ] {
        let server = Arc::clone(&server);
        trials.push(Trial::test(name, move || test(&server.get())));
    }
    trials.push(Trial::test("source_outlives_its_broker", broker_restart));
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials);
    drop(server); // `exit` would leave the broker running
    conclusion.exit();
}

/// One broker for all tests, started by the first that needs it.
#[derive(Default)]
struct Lazy(Mutex<Option<Arc<Kafka>>>);

impl Lazy {
    fn get(&self) -> Arc<Kafka> {
        Arc::clone(self.0.lock().get_or_insert_with(|| Arc::new(Kafka::start())))
    }
}

fn pairs(options: &[(&str, &str)]) -> Vec<(String, String)> {
    options.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect()
}

fn config(server: &Kafka) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", server.brokers());
    config
}

fn admin(server: &Kafka) -> AdminClient<DefaultClientContext> {
    config(server).create().expect("an admin client")
}

fn create_topic(server: &Kafka, name: &str, partitions: i32) {
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    let created = block_on(admin(server).create_topics(&[topic], &AdminOptions::new())).expect("an answer");
    created.into_iter().for_each(|r| {
        r.expect("a new topic");
    });
}

/// Writes records `(partition, value)` with time `millis`.
fn produce(server: &Kafka, topic: &str, records: &[(i32, &str)], millis: i64) {
    let producer: BaseProducer = config(server).create().expect("a producer");
    for (partition, value) in records {
        let record = BaseRecord::<str, str>::to(topic).partition(*partition).payload(value).timestamp(millis);
        producer.send(record).map_err(|(e, _)| e).expect("room");
    }
    producer.flush(PATIENCE).expect("delivery");
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

/// A source that runs until it is stopped.
struct Running {
    schema: SchemaRef,
    feed: Arc<Kept>,
    status: Arc<Status>,
    stop: StopFlag,
    thread: JoinHandle<Result<()>>,
}

impl Running {
    /// Columns: `id bigint`, then what is included.
    fn start(server: &Kafka, options: &[(&str, &str)], includes: &[(&str, DataType)]) -> Running {
        let mut fields = vec![Field::new("id", DataType::Int64, false)];
        fields.extend(includes.iter().map(|(name, t)| Field::new(*name, t.clone(), true)));
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        let include =
            |(name, _): &(&str, DataType)| Include { what: name.to_string(), column: name.to_string() };
        let definition = SourceDefinition {
            name: "s".to_string(),
            kind: "kafka".to_string(),
            connection: pairs(&[("brokers", server.brokers())]),
            options: pairs(options),
            format: None,
            envelope: Envelope::None,
            includes: includes.iter().map(include).collect(),
            key: vec![],
        };
        let source = connector::source(&definition, &schema).expect("a source");
        let (feed, status, stop) =
            (Arc::new(Kept::default()), Arc::new(Status::default()), StopFlag::default());
        let output = SourceOutput {
            collection: CollectionId(1),
            upstream: "s".into(),
            schema: Arc::clone(&schema),
            key: vec![],
        };
        let context = SourceContext {
            name: "s".to_string(),
            outputs: vec![output],
            resume: None,
            feed: Arc::clone(&feed) as Arc<dyn Feed>,
            status: Arc::clone(&status),
            stop: stop.clone(),
        };
        Running { schema, feed, status, stop, thread: thread::spawn(move || source.run(context)) }
    }

    fn rows(&self) -> RecordBatch {
        let batches = self.feed.0.lock();
        let rows: Vec<RecordBatch> = batches
            .iter()
            .flat_map(|b| &b.changes)
            .map(|(_, change)| match change {
                InputChange::Delta(delta) => delta.rows.clone(),
                other => panic!("only appends, not {other:?}"),
            })
            .collect();
        concat_batches(&self.schema, &rows).expect("batches of one schema")
    }

    /// Sorted: partitions come in any order.
    fn ids(&self) -> Vec<i64> {
        let mut ids = self.rows().column(0).as_primitive::<Int64Type>().values().to_vec();
        ids.sort_unstable();
        ids
    }

    fn wait(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < deadline, "{what}: {:?} {:?}", self.ids(), self.status.get());
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn stop(self) {
        self.stop.stop();
        self.thread.join().expect("no panic").expect("an orderly end");
    }
}

fn committed_only(server: &Kafka) -> std::result::Result<(), Failed> {
    create_topic(server, "tx", 1);
    let producer: BaseProducer =
        config(server).set("transactional.id", "writer").create().expect("a transactional producer");
    producer.init_transactions(PATIENCE)?;
    for (value, commits) in [("{\"id\":1}", true), ("{\"id\":2}", false), ("{\"id\":3}", true)] {
        producer.begin_transaction()?;
        let headers = OwnedHeaders::new().insert(Header { key: "trace", value: Some("a\"b") });
        let record = BaseRecord::to("tx").key("k").payload(value).timestamp(1_500).headers(headers);
        producer.send(record).map_err(|(e, _)| e)?;
        producer.flush(PATIENCE)?;
        if commits {
            producer.commit_transaction(PATIENCE)?;
        } else {
            producer.abort_transaction(PATIENCE)?;
        }
    }
    let timestamp = DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some("+00:00".into()));
    let includes = [
        ("key", DataType::Binary),
        ("topic", DataType::Utf8View),
        ("partition", DataType::Int32),
        ("offset", DataType::Int64),
        ("timestamp", timestamp),
        ("headers", DataType::Utf8View),
    ];
    let source = Running::start(server, &[("topic", "tx")], &includes);
    source.wait("committed rows", |s| s.ids() == [1, 3]);
    // At the end, behind the last transaction's own record.
    source.wait("no lag", |s| s.status.get().lag == Some(0));
    let rows = source.rows();
    assert_eq!(rows.column(1).as_binary::<i32>().value(0), b"k");
    assert_eq!(rows.column(2).as_string_view().value(0), "tx");
    assert_eq!(rows.column(4).as_primitive::<Int64Type>().values().to_vec(), [0, 4]);
    let micros = rows.column(5).as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
    assert_eq!(micros.value(0), 1_500_000);
    assert_eq!(rows.column(6).as_string_view().value(1), "{\"trace\":\"a\\\"b\"}");
    source.stop();

    let everything = Running::start(server, &[("topic", "tx"), ("isolation.level", "read_uncommitted")], &[]);
    everything.wait("all rows", |s| s.ids() == [1, 2, 3]);
    everything.stop();
    Ok(())
}

fn start_time(server: &Kafka) -> std::result::Result<(), Failed> {
    create_topic(server, "times", 2);
    let day = 86_400_000;
    produce(server, "times", &[(0, "{\"id\":1}"), (1, "{\"id\":2}")], 10 * day);
    produce(server, "times", &[(0, "{\"id\":3}")], 20 * day);
    let source = Running::start(server, &[("topic", "times"), ("start", "1970-01-15 00:00:00Z")], &[]);
    source.wait("the later row", |s| s.ids() == [3]);
    // Nothing in partition 1 was that new: it goes on at its end.
    produce(server, "times", &[(1, "{\"id\":4}")], 21 * day);
    source.wait("the new row", |s| s.ids() == [3, 4]);
    source.stop();
    Ok(())
}

fn new_partitions(server: &Kafka) -> std::result::Result<(), Failed> {
    create_topic(server, "grows", 1);
    produce(server, "grows", &[(0, "{\"id\":1}")], 1);
    let options = [("topic", "grows"), ("properties.topic.metadata.refresh.interval.ms", "500")];
    let source = Running::start(server, &options, &[]);
    source.wait("the first row", |s| s.ids() == [1]);
    block_on(admin(server).create_partitions(&[NewPartitions::new("grows", 3)], &AdminOptions::new()))?;
    produce(server, "grows", &[(2, "{\"id\":2}"), (1, "{\"id\":3}"), (0, "{\"id\":4}")], 1);
    source.wait("rows of the new partitions", |s| s.ids() == [1, 2, 3, 4]);
    source.stop();
    Ok(())
}

fn records_gone(server: &Kafka) -> std::result::Result<(), Failed> {
    create_topic(server, "gone", 1);
    produce(server, "gone", &[(0, "{\"id\":1}"), (0, "{\"id\":2}"), (0, "{\"id\":3}")], 1);
    let mut before = TopicPartitionList::new();
    before.add_partition_offset("gone", 0, Offset::Offset(2))?;
    block_on(admin(server).delete_records(&before, &AdminOptions::new()))?;
    let source = Running::start(server, &[("topic", "gone"), ("start", "0:1")], &[]);
    let error = source.thread.join().expect("no panic").expect_err("an offset that is gone");
    assert_eq!(error.detail.as_deref(), Some("topic=\"gone\" partition=0: next is 1, there are 2 to 3."));
    let earliest = Running::start(server, &[("topic", "gone")], &[]);
    earliest.wait("what is left", |s| s.ids() == [3]);
    earliest.stop();
    Ok(())
}

fn broker_restart() -> std::result::Result<(), Failed> {
    let mut server = Kafka::start();
    create_topic(&server, "t", 1);
    produce(&server, "t", &[(0, "{\"id\":1}")], 1);
    let source = Running::start(&server, &[("topic", "t")], &[]);
    source.wait("the first row", |s| s.ids() == [1]);
    server.kill();
    source.wait("a stall with its reason", |s| {
        let status = s.status.get();
        status.state == "stalled" && status.error.is_some()
    });
    server.restart();
    source.wait("recovery", |s| s.status.get().state == "running");
    produce(&server, "t", &[(0, "{\"id\":2}")], 1);
    source.wait("the second row", |s| s.ids() == [1, 2]);
    source.stop();
    Ok(())
}

fn sink_definition(address: &str, topic: &str, kind: Kind) -> SinkDefinition {
    SinkDefinition {
        name: "s".to_string(),
        uuid: uuid::Uuid::nil(),
        kind: "kafka".to_string(),
        connection: pairs(&[("brokers", address)]),
        options: pairs(&[("topic", topic), ("commit_interval", "1 ms")]),
        format: None,
        envelope: if kind == Kind::Keyed { Envelope::Upsert } else { Envelope::None },
        append_only: kind == Kind::Append,
    }
}

/// What a killed process was to do: `address topic kind envelope end seed memory`.
fn child(task: &str) -> i32 {
    let parts: Vec<&str> = task.splitn(7, ' ').collect();
    let [address, topic, kind, envelope, end, seed, memory] = parts[..] else { panic!("no task: {task}") };
    let kind = Kind::parse(kind);
    let history = History::new(kind, seed.parse().expect("a seed"), end.parse().expect("a tick"));
    let mut definition = sink_definition(address, topic, kind);
    if envelope == "debezium" {
        definition.envelope = Envelope::Debezium;
    }
    let sink = connector::sink(&definition, &History::schema(), &kind.key()).expect("a sink");
    // The same sink every time it is started for this topic.
    let uuid = uuid::Uuid::from_u128(
        topic.bytes().fold(1, |n, b| u128::wrapping_add(n.wrapping_mul(31), u128::from(b))),
    );
    match follow(sink, history, uuid, PathBuf::from(memory), Arc::new(Status::default())) {
        Ok(()) => 0,
        // An orderly failure: started again, it goes on.
        Err(e) => {
            eprintln!("{e}");
            3
        }
    }
}

/// A value as the history writes its rows.
fn value_text(value: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(value).expect("JSON");
    let v = value["v"].as_i64().expect("a value");
    let text = row_text(value["k"].as_i64(), v);
    // The other columns follow from the value; they must have come as they are.
    let name = value["name"].as_str().unwrap_or("NULL");
    assert!(text.contains(&format!("|{name}|")), "{value}");
    assert_eq!(value["doc"]["v"], v);
    assert_eq!(value["flag"], v % 2 == 0);
    text
}

fn sink_crash(server: &Kafka, kind: Kind, seed: u64, point: &str) -> std::result::Result<(), Failed> {
    let memory = tempfile::tempdir()?;
    let topic = format!("out_{}_{}", kind.name(), point.replace([':'], "_"));
    let task =
        format!("{} {topic} {} - {END} {seed} {}", server.brokers(), kind.name(), memory.path().display());
    let run = |crash_at: Option<&str>| {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.env(CHILD, &task).env_remove("TIDEMILL_CRASH_AT");
        if let Some(point) = crash_at {
            command.env("TIDEMILL_CRASH_AT", point);
        }
        command.output().expect("a child process")
    };
    let killed = run(Some(point));
    assert_eq!(killed.status.code(), None, "not killed: {}", String::from_utf8_lossy(&killed.stderr));
    let mut starts = 0;
    loop {
        let output = run(None);
        match output.status.code() {
            Some(0) => break,
            Some(3) if starts < 3 => starts += 1,
            other => panic!("{other:?}: {}", String::from_utf8_lossy(&output.stderr)),
        }
    }
    let records = server.committed(&topic);
    let mut rows: Vec<String> = if kind == Kind::Keyed {
        let mut by_key = BTreeMap::new();
        for (key, value) in records {
            by_key.insert(key.expect("a key"), value);
        }
        by_key.into_values().flatten().map(|v| value_text(&v)).collect()
    } else {
        records.into_iter().map(|(_, value)| value_text(&value.expect("a value"))).collect()
    };
    rows.sort();
    assert_eq!(rows, History::new(kind, seed, END).model(END));
    Ok(())
}

/// A sink of change events is killed again and again, whatever it is doing. Who reads what is committed sees every change
/// once, and those of a key in order: each begins with the row that the one before it ended with.
fn sink_kills(server: &Kafka) -> std::result::Result<(), Failed> {
    const TICKS: u64 = 600;
    const KILLS: u32 = 25;
    const SEED: u64 = 11;
    let memory = tempfile::tempdir()?;
    let task =
        format!("{} killed keyed debezium {TICKS} {SEED} {}", server.brokers(), memory.path().display());
    let start = || {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.env(CHILD, &task).env_remove("TIDEMILL_CRASH_AT").spawn().expect("a child process")
    };
    let mut kills = 0;
    let mut millis = 150;
    loop {
        let mut child = start();
        thread::sleep(Duration::from_millis(millis));
        if kills < KILLS {
            millis = 150 + millis * 7 % 611;
            child.kill().expect("a child of this process");
        }
        match child.wait().expect("its end").code() {
            None => kills += 1,
            Some(0) => break,
            Some(3) => (),
            other => panic!("{other:?}"),
        }
    }
    assert!(kills > 5, "only {kills} kills before it was done");
    let mut rows = BTreeMap::new();
    let mut events = 0;
    for (key, value) in server.committed("killed") {
        let key = key.expect("a key");
        let Some(value) = value else {
            assert_eq!(
                rows.get(&key),
                Some(&serde_json::Value::Null),
                "a tombstone of a row that is there: {key}"
            );
            continue;
        };
        let mut event: serde_json::Value = serde_json::from_str(&value)?;
        let before = rows.insert(key.clone(), event["after"].take()).unwrap_or_default();
        assert_eq!(event["before"], before, "event {events}, of {key}, does not follow the one before");
        events += 1;
    }
    let mut rows: Vec<String> =
        rows.into_values().filter(|r| !r.is_null()).map(|r| value_text(&r.to_string())).collect();
    rows.sort();
    assert_eq!(rows, History::new(Kind::Keyed, SEED, TICKS).model(TICKS));
    println!("{kills} kills, {events} events");
    Ok(())
}

fn sink_topics(server: &Kafka) -> std::result::Result<(), Failed> {
    let memory = tempfile::tempdir()?;
    let history = History::new(Kind::Keyed, 5, END);
    let sink =
        connector::sink(&sink_definition(server.brokers(), "made", Kind::Keyed), &History::schema(), &[0])?;
    let status = Arc::new(Status::default());
    follow(sink, history, uuid::Uuid::from_u128(5), memory.path().to_path_buf(), Arc::clone(&status))?;
    assert_eq!(status.get().tick_committed, Some(END));
    // The topic was made with the broker's default, the progress topic to be compacted.
    let consumer: BaseConsumer = config(server).create()?;
    let metadata = consumer.fetch_metadata(Some("made"), PATIENCE)?;
    assert_eq!(metadata.topics()[0].partitions().len(), 2);
    let resource = rdkafka::admin::ResourceSpecifier::Topic("_tidemill_progress");
    let described = block_on(admin(server).describe_configs([&resource], &AdminOptions::new()))?;
    let policy = described.into_iter().next().ok_or("no answer")?.map_err(|e| e.to_string())?;
    assert_eq!(policy.get("cleanup.policy").and_then(|e| e.value.clone()).as_deref(), Some("compact"));

    // Numbers come back as they went.
    let fields = vec![Field::new("amount", DataType::Decimal128(12, 2), false)];
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    let mut source = SourceDefinition {
        name: "back".to_string(),
        kind: "kafka".to_string(),
        connection: pairs(&[("brokers", server.brokers())]),
        options: pairs(&[("topic", "made")]),
        format: None,
        envelope: Envelope::Upsert,
        includes: vec![Include { what: "key".to_string(), column: "key".to_string() }],
        key: vec![],
    };
    let mut all = schema.fields().to_vec();
    all.push(Arc::new(Field::new("key", DataType::Utf8View, true)));
    let schema: SchemaRef = Arc::new(Schema::new(all));
    source.key = connector::output_key(&source, &schema)?;
    let (feed, stop) = (Arc::new(Kept::default()), StopFlag::default());
    let output = SourceOutput {
        collection: CollectionId(1),
        upstream: "s".into(),
        schema: Arc::clone(&schema),
        key: vec![1],
    };
    let context = SourceContext {
        name: "back".to_string(),
        outputs: vec![output],
        resume: None,
        feed: Arc::clone(&feed) as Arc<dyn Feed>,
        status: Arc::new(Status::default()),
        stop: stop.clone(),
    };
    let reader = connector::source(&source, &schema)?;
    let thread = thread::spawn(move || reader.run(context));
    let expected: i128 = read_back(&server.committed("made"));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut by_key = BTreeMap::new();
        for batch in feed.0.lock().iter() {
            for (_, change) in &batch.changes {
                let InputChange::Upsert { rows, deletes } = change else { panic!("not by key: {change:?}") };
                for row in 0..rows.num_rows() {
                    let key = rows.column(1).as_string_view().value(row).to_string();
                    let gone = deletes.as_ref().is_some_and(|d| d.value(row));
                    let amount = rows.column(0).as_primitive::<Decimal128Type>().value(row);
                    by_key.insert(key, if gone { 0 } else { amount });
                }
            }
        }
        if by_key.values().sum::<i128>() == expected && !by_key.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "{by_key:?} do not sum up to {expected}");
        thread::sleep(Duration::from_millis(20));
    }
    stop.stop();
    thread.join().expect("no panic")?;
    Ok(())
}

/// The sum of the amounts of a compacted topic, in cents.
fn read_back(records: &[(Option<String>, Option<String>)]) -> i128 {
    let last: BTreeMap<_, _> = records.iter().map(|(k, v)| (k, v)).collect();
    let cents = |value: &String| {
        let (_, rest) = value.split_once("\"amount\":").expect("an amount");
        let (amount, _) = rest.split_once(',').expect("another member");
        amount.replace('.', "").parse::<i128>().expect("a decimal of two digits")
    };
    last.into_values().flatten().map(cents).sum()
}
