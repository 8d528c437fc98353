//! Reading topics: one thread polls librdkafka, decodes, and hands over batches with the position after them.
//!
//! Partitions are assigned by hand, each from its own offset; what the brokers' groups remember is not asked. A batch
//! is handed over when it is large, when it has waited for its time, or when the brokers have no more right now.

use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message, Timestamp};
use rdkafka::topic_partition_list::Offset;

use super::client::{self, Report};
use super::position::Position;
use super::settings::{SourceSettings, Start, Topics, reason};
use crate::connectors::envelope::{Decoder, NotUnderstood, Record};
use crate::connectors::format::quote;
use crate::connectors::{BadRecord, Source, SourceBatch, SourceContext};
use crate::error::{Error, Result, SqlState};
use crate::world;

/// A batch has no more rows than this.
const BATCH_ROWS_MAX: usize = 65_536;
/// Nor are the records that it was made of much longer, together, than this many bytes.
const BATCH_BYTES_MAX: usize = 32 << 20;
/// A batch is handed over this long after its first record at the latest.
const BATCH_AGE_MAX: Duration = Duration::from_millis(50);
/// And after this long without another record.
const BATCH_QUIET: Duration = Duration::from_millis(3);
/// The age of a batch is looked at every so many records.
const RECORDS_BETWEEN_CLOCKS: usize = 256;
/// How long a poll waits when there is nothing to hand over.
const POLL: Duration = Duration::from_millis(100);
/// How long brokers may take to answer a question.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause before a question that was not answered is asked again.
const RETRY: Duration = Duration::from_millis(500);

type Client = BaseConsumer<client::SourceContext>;

/// A source of one topic or several.
pub struct KafkaSource {
    settings: SourceSettings,
    decoder: Decoder,
}

impl KafkaSource {
    /// Ready to run.
    pub fn new(settings: SourceSettings, decoder: Decoder) -> Self {
        KafkaSource { settings, decoder }
    }
}

impl Source for KafkaSource {
    fn run(self: Box<Self>, cx: SourceContext) -> Result<()> {
        let KafkaSource { settings, decoder } = *self;
        let resumed = cx.resume.as_deref().map(Position::decode).transpose()?;
        let context = client::SourceContext::new(settings.read_uncommitted);
        let consumer: Client = settings
            .client
            .config()
            .set("group.id", &settings.group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // An offset that is gone is an error, never a silent jump.
            .set("auto.offset.reset", "error")
            .set(
                "isolation.level",
                if settings.read_uncommitted { "read_uncommitted" } else { "read_committed" },
            )
            .set("allow.auto.create.topics", "false")
            .set("statistics.interval.ms", "1000")
            .create_with_context(context)
            .map_err(|e| settings.client.error("connect to", &e))?;
        let [output] = &cx.outputs[..] else {
            return Err(Error::internal("a KAFKA source fills exactly one collection"));
        };
        let wants_headers = decoder.wants_headers();
        Reader {
            collection: output.collection,
            settings: &settings,
            consumer: &consumer,
            cx: &cx,
            decoder,
            wants_headers,
            position: resumed.clone().unwrap_or_default(),
            assigned: Vec::new(),
            topics_seen: world::instant(),
            batch: Batch::default(),
            trouble: false,
            error_since_report: false,
        }
        .run(resumed.is_some())
    }
}

/// What was read and not handed over.
#[derive(Default)]
struct Batch {
    bad: Vec<BadRecord>,
    records: usize,
    bytes: usize,
    began: Option<Instant>,
    newest_event_micros: Option<i64>,
}

struct Reader<'a> {
    collection: crate::engine::CollectionId,
    settings: &'a SourceSettings,
    consumer: &'a Client,
    cx: &'a SourceContext,
    decoder: Decoder,
    wants_headers: bool,
    position: Position,
    assigned: Vec<(String, i32)>,
    /// When all topics were last looked through.
    topics_seen: Instant,
    batch: Batch,
    /// Whether the status says that something does not work.
    trouble: bool,
    error_since_report: bool,
}

impl Reader<'_> {
    fn run(mut self, resumed: bool) -> Result<()> {
        self.cx.status.update(|s| {
            s.state = "starting";
            s.error = None;
        });
        let Some(partitions) = self.retried(Self::partitions)? else { return Ok(()) };
        if !resumed && self.settings.start != Start::Earliest {
            let Some(start) = self.retried(|reader| reader.first_offsets(&partitions))? else {
                return Ok(());
            };
            self.position = start;
            // From now on it is known where reading began, whatever happens before the first record.
            let batch = SourceBatch { position: Some(self.position.encode()?), ..SourceBatch::default() };
            self.cx.feed.submit_nowait(batch)?;
        }
        self.assign(partitions)?;
        self.cx.status.update(|s| s.state = "running");
        while !self.cx.stop.is_set() {
            self.poll()?;
        }
        self.hand_over()
    }

    /// Asks until there is an answer; `None`: told to stop.
    fn retried<T>(&mut self, ask: impl Fn(&Self) -> std::result::Result<T, String>) -> Result<Option<T>> {
        while !self.cx.stop.is_set() {
            match ask(self) {
                Ok(answer) => {
                    self.works_again();
                    return Ok(Some(answer));
                }
                Err(why) => self.stall(why),
            }
            world::sleep(RETRY);
        }
        Ok(None)
    }

    /// Every partition of the topics.
    fn partitions(&self) -> std::result::Result<Vec<(String, i32)>, String> {
        let ask = |topic: Option<&str>| {
            self.consumer.fetch_metadata(topic, REQUEST_TIMEOUT).map_err(|e| {
                format!("could not reach Kafka at {}: {}", self.settings.client.brokers, reason(&e))
            })
        };
        let mut found = Vec::new();
        let names = match &self.settings.topics {
            Topics::Named(names) => names,
            Topics::Pattern(pattern) => {
                for t in ask(None)?.topics().iter().filter(|t| self.settings.topics.contains(t.name())) {
                    found.extend(t.partitions().iter().map(|p| (t.name().to_string(), p.id())));
                }
                return match found.is_empty() {
                    true => Err(format!("no topic matches the pattern \"{pattern}\"")),
                    false => Ok(found),
                };
            }
        };
        for topic in names {
            let metadata = ask(Some(topic))?;
            let described = metadata.topics().iter().find(|t| t.name() == topic);
            match described {
                Some(t) if t.error().is_none() && !t.partitions().is_empty() => {
                    found.extend(t.partitions().iter().map(|p| (topic.clone(), p.id())));
                }
                Some(t) => {
                    let why = t.error().map_or("it has no partitions".to_string(), |e| {
                        RDKafkaErrorCode::from(e).to_string()
                    });
                    return Err(format!("topic \"{topic}\" cannot be read: {why}"));
                }
                None => return Err(format!("topic \"{topic}\" does not exist")),
            }
        }
        Ok(found)
    }

    /// Where reading begins, when it does not begin at the oldest records.
    fn first_offsets(&self, partitions: &[(String, i32)]) -> std::result::Result<Position, String> {
        let mut position = Position::default();
        let end = |topic: &str, partition| {
            let watermarks = self.consumer.fetch_watermarks(topic, partition, REQUEST_TIMEOUT);
            watermarks.map(|(_, high)| high).map_err(|e| format!("topic \"{topic}\": {}", reason(&e)))
        };
        match &self.settings.start {
            Start::Earliest => (),
            Start::Latest => {
                for (topic, partition) in partitions {
                    position.set(topic, *partition, end(topic, *partition)?);
                }
            }
            Start::Offsets(offsets) => {
                for (partition, offset) in offsets {
                    position.set(self.settings.topics.only().unwrap_or_default(), *partition, *offset);
                }
            }
            Start::Time(millis) => {
                let mut times = TopicPartitionList::new();
                for (topic, partition) in partitions {
                    let added = times.add_partition_offset(topic, *partition, Offset::Offset(*millis));
                    added.map_err(|e| reason(&e))?;
                }
                let found =
                    self.consumer.offsets_for_times(times, REQUEST_TIMEOUT).map_err(|e| reason(&e))?;
                for element in found.elements() {
                    let (topic, partition) = (element.topic(), element.partition());
                    let next = match element.offset() {
                        Offset::Offset(n) => n,
                        // Nothing is that new yet.
                        _ => end(topic, partition)?,
                    };
                    position.set(topic, partition, next);
                }
            }
        }
        Ok(position)
    }

    /// Reads these partitions from where they were left, or from their oldest records.
    fn assign(&mut self, partitions: Vec<(String, i32)>) -> Result<()> {
        let mut list = TopicPartitionList::new();
        let mut failed = None;
        for (topic, partition) in &partitions {
            let offset = self.position.get(topic, *partition).map_or(Offset::Beginning, Offset::Offset);
            failed = list.add_partition_offset(topic, *partition, offset).err().or(failed);
        }
        let assigned = match failed {
            None => self.consumer.assign(&list),
            Some(e) => Err(e),
        };
        assigned.map_err(|e| self.settings.client.error("read from", &e))?;
        self.assigned = partitions;
        Ok(())
    }

    /// Takes the next record, or what else librdkafka has to say.
    fn poll(&mut self) -> Result<()> {
        let wait = if self.batch.began.is_some() { BATCH_QUIET } else { POLL };
        // The consumer outlives the message, and the reader's other parts are free meanwhile.
        let consumer = self.consumer;
        match consumer.poll(wait) {
            Some(Ok(message)) => {
                let read = self.read(&message);
                drop(message);
                read?;
                let looks_at_clock = self.batch.records.is_multiple_of(RECORDS_BETWEEN_CLOCKS);
                if self.decoder.pending() + self.batch.bad.len() >= BATCH_ROWS_MAX
                    || self.batch.bytes >= BATCH_BYTES_MAX
                    || (looks_at_clock && self.batch.began.is_some_and(|b| b.elapsed() >= BATCH_AGE_MAX))
                {
                    self.hand_over()?;
                    self.look_at_report()?;
                }
                Ok(())
            }
            Some(Err(e)) => self.upstream_error(&e),
            None => {
                self.hand_over()?;
                self.look_at_report()
            }
        }
    }

    /// Decodes a record.
    ///
    /// # Errors
    /// The schema registry does not answer: what was read before is handed over, and the record is read again later.
    fn read(&mut self, message: &BorrowedMessage<'_>) -> Result<()> {
        let headers = self.wants_headers.then(|| headers_json(message));
        let timestamp_micros = match message.timestamp() {
            Timestamp::NotAvailable => None,
            Timestamp::CreateTime(ms) | Timestamp::LogAppendTime(ms) => Some(ms.saturating_mul(1000)),
        };
        let record = Record {
            key: message.key(),
            value: message.payload(),
            topic: message.topic(),
            partition: message.partition(),
            offset: message.offset(),
            timestamp_micros,
            headers: headers.as_deref(),
        };
        if let Err(not_understood) = self.decoder.push(&record) {
            if not_understood.is_unavailable() {
                self.hand_over()?;
                return Err(Error::new(not_understood.sqlstate, not_understood.reason));
            }
            self.batch.bad.push(bad_record(&record, not_understood));
        }
        self.position.set(record.topic, record.partition, record.offset + 1);
        let batch = &mut self.batch;
        batch.records += 1;
        batch.bytes += message.payload_len() + message.key_len();
        batch.newest_event_micros = batch.newest_event_micros.max(timestamp_micros);
        if batch.began.is_none() {
            batch.began = Some(world::instant());
            self.works_again();
        }
        Ok(())
    }

    fn hand_over(&mut self) -> Result<()> {
        if self.batch.began.is_none() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.batch);
        let rows = self.decoder.pending() as u64;
        let bad_records = batch.bad.len() as u64;
        let changes = self.decoder.take()?.into_iter().map(|c| (self.collection, c)).collect();
        self.cx.feed.submit_nowait(SourceBatch {
            changes,
            bad: batch.bad,
            position: Some(self.position.encode()?),
            ..SourceBatch::default()
        })?;
        self.cx.status.update(|s| {
            s.rows += rows;
            s.bytes += batch.bytes as u64;
            s.bad_records += bad_records;
            s.event_time_micros = s.event_time_micros.max(batch.newest_event_micros);
        });
        Ok(())
    }

    /// Follows librdkafka's statistics: lag, whether the brokers are there, and partitions that are new.
    fn look_at_report(&mut self) -> Result<()> {
        let Some(report) = self.consumer.context().take_report() else { return Ok(()) };
        let lag = self.lag(&report);
        self.cx.status.update(|s| s.lag = lag);
        if report.connected && !std::mem::take(&mut self.error_since_report) {
            self.works_again();
        }
        let is_new = |p: &&(String, i32)| self.settings.topics.contains(&p.0) && !self.assigned.contains(p);
        let mut new: Vec<(String, i32)> = report.partitions.keys().filter(is_new).cloned().collect();
        if matches!(self.settings.topics, Topics::Pattern(_))
            && self.topics_seen.elapsed() >= self.settings.refresh
        {
            self.topics_seen = world::instant();
            // A broker that does not answer now does so the next time.
            let found = self.partitions().unwrap_or_default();
            new = found.into_iter().filter(|p| !self.assigned.contains(p)).collect();
        }
        if new.is_empty() {
            return Ok(());
        }
        tracing::info!(source = %self.cx.name, ?new, "reading new partitions");
        self.hand_over()?;
        let all = self.assigned.iter().cloned().chain(new).collect();
        self.assign(all)
    }

    /// Records that are there and not read; `None` before every partition's end is known.
    fn lag(&self, report: &Report) -> Option<u64> {
        self.assigned.iter().try_fold(0u64, |sum, (topic, partition)| {
            let p = report.partitions.get(&(topic.clone(), *partition)).filter(|p| p.assigned)?;
            let end = p.end?;
            // Transactions end with records of their own that nobody reads: at the end means no lag.
            if p.queued == 0 && p.next_fetch >= end {
                return Some(sum);
            }
            let next = self.position.get(topic, *partition).unwrap_or(p.next_fetch - p.queued).max(0);
            Some(sum + u64::try_from(end - next).unwrap_or(0))
        })
    }

    fn upstream_error(&mut self, e: &KafkaError) -> Result<()> {
        let fatal = |reader: &mut Self, error: Error| {
            // What was read before the error is good.
            reader.hand_over()?;
            Err(error)
        };
        match (e, e.rdkafka_error_code()) {
            (_, Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)) => {
                let error = self.offset_gone();
                fatal(self, error)
            }
            (KafkaError::MessageConsumptionFatal(_), _) => {
                let error = self.settings.client.error("read from", e);
                fatal(self, error)
            }
            _ => {
                self.error_since_report = true;
                self.stall(format!("Kafka at {}: {}", self.settings.client.brokers, reason(e)));
                Ok(())
            }
        }
    }

    /// Says which partition's offset the brokers do not have, as far as they tell.
    fn offset_gone(&self) -> Error {
        let mut details = Vec::new();
        for (topic, partition) in &self.assigned {
            let Some(next) = self.position.get(topic, *partition) else { continue };
            if let Ok((low, high)) = self.consumer.fetch_watermarks(topic, *partition, REQUEST_TIMEOUT)
                && !(low..=high).contains(&next)
            {
                details.push(format!(
                    "topic=\"{topic}\" partition={partition}: next is {next}, there are {low} to {high}."
                ));
            }
        }
        Error::new(SqlState::DATA_EXCEPTION, "the offset to go on from is not in the topic any more")
            .with_detail(details.join(" "))
            .with_hint("Records were deleted before they were read, or the topic was made anew. Drop the source and create it again, with the start that is wanted.")
    }

    fn stall(&mut self, why: String) {
        if !self.trouble {
            tracing::warn!(source = %self.cx.name, "{why}");
        }
        self.trouble = true;
        self.cx.status.update(|s| {
            s.state = "stalled";
            s.error = Some(why);
        });
    }

    fn works_again(&mut self) {
        if std::mem::take(&mut self.trouble) {
            tracing::info!(source = %self.cx.name, "Kafka answers again");
            self.cx.status.update(|s| {
                s.state = "running";
                s.error = None;
            });
        }
    }
}

fn bad_record(record: &Record<'_>, why: NotUnderstood) -> BadRecord {
    let position = format!("topic={} partition={} offset={}", record.topic, record.partition, record.offset);
    BadRecord::of(record, why, position, None)
}

/// Headers as a JSON object of strings; bytes that are no text as `\x` and hexadecimal digits.
fn headers_json(message: &BorrowedMessage<'_>) -> String {
    let mut out = String::from("{");
    for header in message.headers().iter().flat_map(|h| h.iter()) {
        if out.len() > 1 {
            out.push(',');
        }
        quote::write_string(header.key, &mut out);
        out.push(':');
        match header.value.map(std::str::from_utf8) {
            None => out.push_str("null"),
            Some(Ok(text)) if !text.contains('\0') => quote::write_string(text, &mut out),
            Some(_) => {
                let digits = hex::encode(header.value.unwrap_or_default());
                quote::write_string(&format!("\\x{digits}"), &mut out);
            }
        }
    }
    out.push('}');
    out
}
