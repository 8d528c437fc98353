//! How far each sink is, as the cluster itself remembers it: the compacted topic `_tidemill_progress`.
//!
//! Every transaction of a sink ends with a record there, keyed by the sink's identity, so the tick that it says is committed if
//! and only if the data is. It is written last, so that a long transaction holds nobody else's reading up.

use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::Offset;

use super::client::QuietContext;
use super::settings::{ClientSettings, NewTopicSettings, SinkSettings};
use crate::connectors::StopFlag;
use crate::engine::Tick;
use crate::error::{Error, Result, SqlState};
use crate::world;

/// The topic, of one partition.
pub const TOPIC: &str = "_tidemill_progress";
/// Its only partition.
pub const PARTITION: i32 = 0;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(200);

/// A sink's record in the topic.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Entry {
    tick: Tick,
    sink: String,
}

/// The record's bytes.
pub fn encode(tick: Tick, sink: &str) -> Result<Vec<u8>> {
    let entry = Entry { tick, sink: sink.to_string() };
    serde_json::to_vec(&entry).map_err(|e| Error::internal(e.to_string()))
}

/// Makes the progress topic and the sink's own, where they are not there.
///
/// # Errors
/// 08006 when the brokers do not answer or refuse.
pub fn create_topics(sink: &SinkSettings) -> Result<()> {
    let (settings, target) = (&sink.client, sink.topic.as_str());
    // A consumer asks, since asking as a producer could make the topics, with the brokers' defaults.
    let asker: BaseConsumer<QuietContext> =
        settings.config().create_with_context(QuietContext).map_err(|e| settings.error("connect to", &e))?;
    let metadata = asker.fetch_metadata(None, REQUEST_TIMEOUT).map_err(|e| settings.error("reach", &e))?;
    let is_missing = |name: &str| !metadata.topics().iter().any(|t| t.name() == name);
    let mut topics = Vec::new();
    if is_missing(TOPIC) {
        let progress = NewTopic::new(TOPIC, 1, TopicReplication::Fixed(-1))
            .set("cleanup.policy", "compact")
            .set("segment.bytes", "16777216")
            .set("min.cleanable.dirty.ratio", "0.1");
        topics.push(progress);
    }
    if is_missing(target) {
        let NewTopicSettings { partitions, replication, config } = &sink.new_topic;
        let topic = NewTopic::new(target, *partitions, TopicReplication::Fixed(*replication));
        topics.push(config.iter().fold(topic, |topic, (name, value)| topic.set(name, value)));
    }
    if topics.is_empty() {
        return Ok(());
    }
    let admin: AdminClient<DefaultClientContext> =
        settings.config().create().map_err(|e| settings.error("connect to", &e))?;
    let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
    let created = futures::executor::block_on(admin.create_topics(&topics, &options));
    match created {
        Ok(results) => {
            for (topic, code) in results.into_iter().filter_map(std::result::Result::err) {
                match code {
                    RDKafkaErrorCode::TopicAlreadyExists => (),
                    code => {
                        let message = format!("could not create topic \"{topic}\": {code}");
                        return Err(Error::new(SqlState::CONNECTION_FAILURE, message));
                    }
                }
            }
            Ok(())
        }
        Err(e) => Err(settings.error("create topics in", &e)),
    }
}

/// The tick that the cluster says the sink is at; `None`: it knows nothing of the sink, or the sink was told to stop.
///
/// The sink's producer must have been fenced before: then no transaction of the sink is open.
///
/// # Errors
/// 08006 when the brokers do not answer; XX001 when the record is broken.
pub fn read(settings: &ClientSettings, sink: uuid::Uuid, stop: &StopFlag) -> Result<Option<Tick>> {
    let client = |isolation: &str| -> Result<BaseConsumer<QuietContext>> {
        settings
            .config()
            .set("group.id", format!("tidemill-progress-{sink}"))
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", isolation)
            .set("enable.partition.eof", "true")
            .create_with_context(QuietContext)
            .map_err(|e| settings.error("connect to", &e))
    };
    let end_of = |consumer: &BaseConsumer<QuietContext>| {
        let watermarks = consumer.fetch_watermarks(TOPIC, PARTITION, REQUEST_TIMEOUT);
        match watermarks {
            Ok((low, high)) => Ok((low, high)),
            Err(e) if is_unknown_topic(&e) => Ok((0, 0)),
            Err(e) => Err(settings.error("read progress from", &e)),
        }
    };
    // What is committed of the topic's present content must be waited for: another sink's transaction that is
    // being committed right now hides what comes after it.
    let (low, end) = end_of(&client("read_uncommitted")?)?;
    if low >= end {
        return Ok(None);
    }
    let consumer = client("read_committed")?;
    while end_of(&consumer)?.1 < end {
        if stop.is_set() {
            return Ok(None);
        }
        world::sleep(POLL);
    }
    let mut list = TopicPartitionList::new();
    let assigned =
        list.add_partition_offset(TOPIC, PARTITION, Offset::Beginning).and_then(|()| consumer.assign(&list));
    assigned.map_err(|e| settings.error("read progress from", &e))?;
    let key = sink.to_string();
    let mut found = None;
    while !stop.is_set() {
        match consumer.poll(POLL) {
            None => (),
            Some(Ok(message)) => {
                if message.key() == Some(key.as_bytes()) {
                    found = message.payload().map(<[u8]>::to_vec);
                }
                if message.offset() + 1 >= end {
                    break;
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) => break,
            Some(Err(e)) => tracing::debug!(target: "tidemill::kafka", error = %e, "reading progress"),
        }
    }
    let Some(value) = found else { return Ok(None) };
    let entry: Entry = serde_json::from_slice(&value).map_err(|e| {
        Error::new(
            SqlState::DATA_CORRUPTED,
            format!("the record of sink {sink} in topic \"{TOPIC}\" is broken: {e}"),
        )
    })?;
    Ok(Some(entry.tick))
}

fn is_unknown_topic(e: &KafkaError) -> bool {
    matches!(
        e.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition
        )
    )
}
