//! Writing a collection's changes into a topic, exactly once.
//!
//! Each transaction carries some ticks' records and, last, how far they go (`progress`). The transactional identity is
//! the sink's own, so whoever starts fences whoever wrote before. What the sink remembers itself may lag behind the
//! cluster, by the one transaction whose answer was lost; the cluster decides.
//!
//! The first transaction is the snapshot. Its tick is remembered as committed *before* it is written, so that the
//! history after it is kept; a start that finds the cluster without progress knows that it never happened, and forgets.

use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::client::QuietContext;
use super::progress;
use super::schemas::{Schemas, Written};
use super::settings::{SinkFormat, SinkSettings, reason};
use crate::connectors::format::encode::member_names;
use crate::connectors::kafka::records::{Message, Messages};
use crate::connectors::{MEMORY_COMMITTED, MEMORY_INTENT, Phases, Sink, SinkCommit, SinkContext};
use crate::engine::{Delta, Tick, TickDelta};
use crate::error::{Error, Result, SqlState};
use crate::world;

/// Memory: set once the snapshot is known to be committed.
const MEMORY_SNAPSHOT_DONE: &str = "kafka.snapshot_done";
/// How long the brokers let a transaction stay open: the most that they allow by default.
const TRANSACTION_TIMEOUT_MS: &str = "900000";
/// A transaction is committed when so many records are in it, whatever its age.
const TRANSACTION_RECORDS_MAX: u64 = 100_000;
/// Ticks that changed nothing here are recorded this often, so that the history before them is let go.
const IDLE_COMMIT: Duration = Duration::from_secs(60);
/// Longest wait before the stop flag is looked at.
const WAIT: Duration = Duration::from_millis(200);

/// A sink into one topic.
pub struct KafkaSink {
    settings: SinkSettings,
    members: Vec<String>,
    schemas: Option<Schemas>,
}

impl KafkaSink {
    /// Ready to run.
    ///
    /// # Errors
    /// 0A000 for a column's type that is not written.
    pub fn new(settings: SinkSettings, schema: &SchemaRef) -> Result<Self> {
        let members = member_names(schema);
        // The same check that every batch goes through later.
        Messages::new(&settings, &members, None, &RecordBatch::new_empty(schema.clone()))?;
        let schemas = match &settings.format {
            SinkFormat::Schema(kind, of) => {
                Some(Schemas::new(*kind, of, &settings.topic, settings.envelope, schema, &settings.key)?)
            }
            _ => None,
        };
        Ok(KafkaSink { settings, members, schemas })
    }
}

impl Sink for KafkaSink {
    fn run(self: Box<Self>, mut cx: SinkContext) -> Result<()> {
        cx.status.update(|s| {
            s.state = "starting";
            s.error = None;
        });
        let settings = &self.settings;
        progress::create_topics(settings)?;
        let written = self.schemas.as_ref().map(Schemas::register).transpose()?;
        let mut config = settings.client.config();
        if config.get("partitioner").is_none() {
            // The partition of a key is the one that Java's clients choose.
            config.set("partitioner", "murmur2_random");
        }
        let producer: BaseProducer<QuietContext> = config
            .set("transactional.id", format!("tidemill-{}", cx.uuid))
            .set("transaction.timeout.ms", TRANSACTION_TIMEOUT_MS)
            .set("message.timeout.ms", TRANSACTION_TIMEOUT_MS)
            .set("compression.type", "zstd")
            .create_with_context(QuietContext)
            .map_err(|e| settings.client.error("connect to", &e))?;
        let Some(()) = until_answered(&cx, || producer.init_transactions(WAIT * 10))
            .map_err(|e| settings.client.error("begin transactions in", &e))?
        else {
            return Ok(());
        };
        let at = progress::read(&settings.client, cx.uuid, &cx.stop)?;
        if cx.stop.is_set() {
            return Ok(());
        }
        let writer = Writer { sink: &self, written, producer, at: 0, began: None, records: 0, bytes: 0 };
        writer.run(at, &mut cx)
    }
}

/// Repeats what timed out, or may be repeated for another reason, until told to stop (`None`); asks at least once.
fn until_answered(
    cx: &SinkContext,
    mut ask: impl FnMut() -> std::result::Result<(), KafkaError>,
) -> std::result::Result<Option<()>, KafkaError> {
    loop {
        match ask() {
            Ok(()) => return Ok(Some(())),
            Err(KafkaError::Transaction(e)) if e.is_retriable() => {
                cx.status.update(|s| {
                    s.state = "stalled";
                    s.error = Some(e.to_string());
                });
            }
            Err(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut)) => (),
            Err(e) => return Err(e),
        }
        if cx.stop.is_set() {
            return Ok(None);
        }
    }
}

fn tick_of(bytes: Option<Vec<u8>>) -> Result<Option<Tick>> {
    match bytes.as_deref() {
        // Forgotten: no tick.
        None | Some([]) => Ok(None),
        Some(bytes) => match bytes.try_into() {
            Ok(bytes) => Ok(Some(Tick::from_be_bytes(bytes))),
            Err(_) => Err(Error::new(SqlState::DATA_CORRUPTED, "a KAFKA sink's memory is broken")),
        },
    }
}

struct Writer<'a> {
    sink: &'a KafkaSink,
    /// The registered schemas, where the format has some.
    written: Option<Written>,
    producer: BaseProducer<QuietContext>,
    /// The tick that the topic is at.
    at: Tick,
    /// When the open transaction began; `None`: none is open.
    began: Option<Instant>,
    /// Records in the open transaction.
    records: u64,
    /// Bytes in it.
    bytes: u64,
}

impl Writer<'_> {
    /// `committed`: what the cluster says.
    fn run(mut self, committed: Option<Tick>, cx: &mut SinkContext) -> Result<()> {
        let remembered = tick_of(cx.memory.get(MEMORY_COMMITTED)?)?;
        let start = cx.changes.start_tick();
        match (cx.changes.snapshot()?, committed) {
            (Some(rows), None) if remembered.is_none() => {
                cx.status.update(|s| s.state = "snapshot");
                cx.memory.put(MEMORY_INTENT, &start.to_be_bytes())?;
                cx.memory.put(MEMORY_COMMITTED, &start.to_be_bytes())?;
                for rows in &rows {
                    self.write(&Delta { rows: rows.clone(), weights: None }, true, cx)?;
                }
                if !self.commit(start, world::now_micros(), cx)? {
                    return Ok(());
                }
            }
            (None, None) if cx.memory.get(MEMORY_SNAPSHOT_DONE)?.is_none() => {
                // The snapshot's transaction never happened, and its rows are not to be had any more.
                cx.memory.put(MEMORY_COMMITTED, &[])?;
                cx.memory.put(MEMORY_INTENT, &[])?;
                return Err(Error::new(
                    SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                    "the sink was interrupted in its first transaction, and starts over",
                ));
            }
            (None, Some(at)) if at >= start => {
                self.at = at;
                self.record(cx)?;
            }
            (_, at) => {
                let says = at.map_or("nothing of it".to_string(), |t| format!("tick {t}"));
                let knows = remembered.map_or("no tick".to_string(), |t| format!("tick {t}"));
                return Err(Error::new(
                    SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                    format!("the sink and its topic disagree: topic \"{}\" says {says}, the sink remembers {knows}", progress::TOPIC),
                )
                .with_hint("Drop the sink and create it again, into another topic or an empty one."));
            }
        }
        cx.status.update(|s| {
            s.state = "running";
            s.error = None;
        });
        self.follow(start, cx)
    }

    fn follow(&mut self, start: Tick, cx: &mut SinkContext) -> Result<()> {
        let interval = self.sink.settings.commit_interval;
        // Ticks up to here may come again although the topic has them.
        let mut reached = start;
        let mut seen = self.at;
        let mut since = 0;
        let mut committed_at = world::instant();
        while !cx.stop.is_set() {
            let wait = self.began.map_or(WAIT, |b| interval.saturating_sub(b.elapsed()).min(WAIT));
            if let Some(change) = cx.changes.next(wait)? {
                let TickDelta { tick, delta } = change;
                if reached < self.at && tick > self.at && delta.is_some() {
                    return Err(Error::internal(format!(
                        "a change to tick {tick} holds ticks that the topic has, which is at {}",
                        self.at
                    )));
                }
                reached = reached.max(tick);
                if tick > self.at {
                    seen = seen.max(tick);
                    if let Some(delta) = delta {
                        if self.began.is_none() {
                            since = world::now_micros();
                        }
                        self.write(&delta, false, cx)?;
                    }
                }
            } else {
                self.producer.poll(Duration::ZERO);
            }
            match self.began {
                Some(began) if began.elapsed() >= interval || self.records >= TRANSACTION_RECORDS_MAX => {
                    if !self.commit(seen, since, cx)? {
                        return Ok(());
                    }
                    committed_at = world::instant();
                }
                None if seen > self.at && committed_at.elapsed() >= IDLE_COMMIT => {
                    if !self.commit(seen, world::now_micros(), cx)? {
                        return Ok(());
                    }
                    committed_at = world::instant();
                }
                // Nothing of this changed anything here: the topic is at this tick without being told.
                None if seen > self.at => cx.status.update(|s| s.tick_committed = Some(seen)),
                _ => (),
            }
        }
        self.abandon();
        Ok(())
    }

    /// Puts the records of a change into the open transaction, and opens one where none is.
    fn write(&mut self, delta: &Delta, is_snapshot: bool, cx: &SinkContext) -> Result<()> {
        let KafkaSink { settings, members, .. } = self.sink;
        if self.began.is_none() {
            self.producer
                .begin_transaction()
                .map_err(|e| settings.client.error("begin a transaction in", &e))?;
            self.began = Some(world::instant());
        }
        let schemas = self.written.clone();
        let messages = Messages::new(settings, members, schemas.as_ref(), &delta.rows)?;
        let written = messages.of_change(delta.weights.as_deref(), is_snapshot, |message| {
            self.records += 1;
            self.bytes += (message.key.map_or(0, <[u8]>::len) + message.value.map_or(0, <[u8]>::len)) as u64;
            self.send(message, cx)
        });
        if written.is_err() {
            self.abandon();
        }
        written
    }

    fn send(&self, message: Message<'_>, cx: &SinkContext) -> Result<()> {
        let settings = &self.sink.settings;
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&settings.topic);
        record.key = message.key;
        record.payload = message.value;
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) => {
                    if cx.stop.is_set() {
                        return Err(Error::new(SqlState::ADMIN_SHUTDOWN, "the sink was told to stop"));
                    }
                    self.producer.poll(WAIT);
                    record = again;
                }
                Err((e, _)) => return Err(settings.client.error("write to", &e)),
            }
        }
    }

    /// Commits the open transaction, an empty one if there is none: the topic is then at `tick`. `false`: told to stop,
    /// and it is not known whether it happened.
    fn commit(&mut self, tick: Tick, since: i64, cx: &SinkContext) -> Result<bool> {
        let settings = &self.sink.settings;
        let error = |what: &str, e: &KafkaError| settings.client.error(what, e);
        if self.began.is_none() {
            self.producer.begin_transaction().map_err(|e| error("begin a transaction in", &e))?;
        }
        cx.memory.put(MEMORY_INTENT, &tick.to_be_bytes())?;
        let key = cx.uuid.to_string();
        let value = progress::encode(tick, &cx.name)?;
        let record = BaseRecord::to(progress::TOPIC)
            .partition(progress::PARTITION)
            .key(key.as_str())
            .payload(value.as_slice());
        self.producer.send(record).map_err(|(e, _)| error("write progress to", &e))?;
        world::crash_point("kafka_sink.produced");
        let committing = world::instant();
        match until_answered(cx, || self.producer.commit_transaction(WAIT * 5)) {
            Ok(Some(())) => (),
            Ok(None) => return Ok(false),
            Err(e) => {
                self.abandon();
                return Err(error("commit a transaction in", &e));
            }
        }
        world::crash_point("kafka_sink.committed");
        let from = cx.memory.get(MEMORY_SNAPSHOT_DONE)?.map(|_| self.at);
        self.at = tick;
        let now = world::now_micros();
        let commit = SinkCommit {
            at_micros: now,
            from,
            to: tick,
            rows: std::mem::take(&mut self.records),
            bytes: std::mem::take(&mut self.bytes),
            attempts: 1,
            phases: Phases { commit: committing.elapsed(), ..Phases::default() },
            freshness_micros: now - since,
            ..SinkCommit::default()
        };
        self.began = None;
        // Before the note of the tick, which makes both durable.
        cx.status.committed(commit);
        self.record(cx)?;
        Ok(true)
    }

    /// Remembers that the topic is certainly at this tick and lets go of the history before it.
    fn record(&self, cx: &SinkContext) -> Result<()> {
        cx.memory.put(MEMORY_SNAPSHOT_DONE, &[1])?;
        cx.memory.put(MEMORY_COMMITTED, &self.at.to_be_bytes())?;
        (cx.release)(self.at);
        cx.status.update(|s| s.tick_committed = Some(self.at));
        Ok(())
    }

    /// Gives the open transaction up. Where that fails, the next start's fence does it.
    fn abandon(&mut self) {
        if self.began.take().is_some()
            && let Err(e) = self.producer.abort_transaction(WAIT * 5)
        {
            tracing::debug!(target: "tidemill::kafka", error = %reason(&e), "abort");
        }
    }
}
