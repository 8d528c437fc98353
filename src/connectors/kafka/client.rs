//! What librdkafka tells of itself while it works: its statistics and its log.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{DeliveryResult, ProducerContext};
use rdkafka::statistics::Statistics;

/// What a source needs of one statistics report.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// A broker's connection is up.
    pub connected: bool,
    /// Every partition of the topics, with what is known of it.
    pub partitions: BTreeMap<(String, i32), PartitionReport>,
}

/// One partition in a [`Report`].
#[derive(Clone, Copy, Debug)]
pub struct PartitionReport {
    /// It is being read.
    pub assigned: bool,
    /// The end of what may be read; `None`: not known yet.
    pub end: Option<i64>,
    /// The next offset to be fetched.
    pub next_fetch: i64,
    /// Records fetched and not read yet.
    pub queued: i64,
}

/// Keeps the last report until it is taken.
#[derive(Debug)]
pub struct SourceContext {
    report: Mutex<Option<Report>>,
    read_uncommitted: bool,
}

impl SourceContext {
    /// `read_uncommitted`: a partition ends at its last record, else at the last one before an open transaction.
    pub fn new(read_uncommitted: bool) -> Self {
        SourceContext { report: Mutex::new(None), read_uncommitted }
    }

    /// The newest report since the last call.
    pub fn take_report(&self) -> Option<Report> {
        self.report.lock().take()
    }
}

impl ClientContext for SourceContext {
    fn stats(&self, statistics: Statistics) {
        let connected = statistics.brokers.values().any(|b| b.state == "UP" && b.nodeid >= 0);
        let mut partitions = BTreeMap::new();
        for (name, topic) in statistics.topics {
            for p in topic.partitions.into_values().filter(|p| p.partition >= 0 && !p.unknown) {
                let end = if self.read_uncommitted || p.ls_offset < 0 { p.hi_offset } else { p.ls_offset };
                let report = PartitionReport {
                    assigned: p.desired,
                    end: (end >= 0).then_some(end),
                    next_fetch: p.next_offset,
                    queued: p.fetchq_cnt,
                };
                partitions.insert((name.clone(), p.partition), report);
            }
        }
        *self.report.lock() = Some(Report { connected, partitions });
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "tidemill::kafka", %error, reason, "client error");
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }
}

impl ConsumerContext for SourceContext {}

/// The context of clients that only log.
#[derive(Clone, Copy, Debug, Default)]
pub struct QuietContext;

impl ClientContext for QuietContext {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "tidemill::kafka", %error, reason, "client error");
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }
}

impl ConsumerContext for QuietContext {}

impl ProducerContext for QuietContext {
    type DeliveryOpaque = ();

    /// A record that was not delivered makes its transaction fail; that is where it is handled.
    fn delivery(&self, delivery: &DeliveryResult<'_>, _: ()) {
        if let Err((error, _)) = delivery {
            tracing::debug!(target: "tidemill::kafka", %error, "record not delivered");
        }
    }
}

/// Keeps what a client that is only tried says is wrong: a failed request itself does not say why.
#[derive(Debug, Default)]
pub struct TrialContext(Mutex<Option<(RDKafkaErrorCode, String)>>);

impl TrialContext {
    /// What went wrong first.
    pub fn failure(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.0.lock().clone()
    }
}

impl ClientContext for TrialContext {
    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
        // That all brokers are down follows from what was said before.
        if code != RDKafkaErrorCode::AllBrokersDown {
            self.0.lock().get_or_insert_with(|| (code, reason.to_string()));
        }
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }
}

impl ConsumerContext for TrialContext {}

/// librdkafka's messages, a step quieter: what fails shows in the connector's status.
fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::warn!(target: "tidemill::kafka", facility, "{message}");
        }
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice => {
            tracing::info!(target: "tidemill::kafka", facility, "{message}");
        }
        RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
            tracing::debug!(target: "tidemill::kafka", facility, "{message}");
        }
    }
}
