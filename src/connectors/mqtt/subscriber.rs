//! Taking messages. They are handed over in batches with a count of all that were taken; those whose count is durable
//! are acknowledged. What the broker sends again because an acknowledgement did not reach it is recognised by its
//! number in the session and its contents, and acknowledged once more. So that all that may come again is remembered,
//! messages that come while too many are not acknowledged wait until they are.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rumqttc::{AsyncClient, Event, EventLoop, Packet, Publish, QoS, SubscribeFilter, SubscribeReasonCode};

use super::position::{Message, Position, UNACKNOWLEDGED_MAX};
use super::settings::Settings;
use crate::connectors::envelope::{Decoder, Record};
use crate::connectors::{BadRecord, Source, SourceBatch, SourceContext, SourceOutput};
use crate::error::{Error, Result, SqlState};
use crate::world;

/// A batch has no more messages than this.
const BATCH_MAX: u64 = 10_000;
/// Nor does it wait for more messages longer than this.
const BATCH_WAIT: Duration = Duration::from_millis(20);
/// How often to look what is durable by now, and whether to stop.
const POLL: Duration = Duration::from_millis(5);
/// The pause before the broker is tried again; it doubles with every failure in a row.
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Acknowledgements that wait for the network.
const REQUESTS: usize = 4096;

/// A source of messages.
pub(super) struct MqttSource {
    pub settings: Settings,
    pub decoder: Decoder,
}

struct Subscriber<'a> {
    settings: Settings,
    decoder: Decoder,
    cx: &'a SourceContext,
    output: &'a SourceOutput,
    client: AsyncClient,
    position: Position,
    bad: Vec<BadRecord>,
    bytes: u64,
    /// Messages since the last batch, and when the first of them came.
    waiting: u64,
    since: Option<Instant>,
    /// Messages that have come and were not taken yet.
    arrived: VecDeque<Publish>,
    /// Messages that are not acknowledged, each with the count of messages that must be durable before.
    unacknowledged: VecDeque<(u64, Publish)>,
}

impl Source for MqttSource {
    fn run(self: Box<Self>, cx: SourceContext) -> Result<()> {
        let [output] = &cx.outputs[..] else {
            return Err(Error::internal("a MQTT source fills exactly one collection"));
        };
        let position = cx.resume.as_deref().map_or_else(|| Ok(Position::default()), Position::decode)?;
        let (client, events) = AsyncClient::new(self.settings.options()?, REQUESTS);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut subscriber = Subscriber {
            settings: self.settings,
            decoder: self.decoder,
            cx: &cx,
            output,
            client,
            position,
            bad: Vec::new(),
            bytes: 0,
            waiting: 0,
            since: None,
            arrived: VecDeque::new(),
            unacknowledged: VecDeque::new(),
        };
        runtime.block_on(subscriber.run(events))
    }
}

impl Subscriber<'_> {
    async fn run(&mut self, mut events: EventLoop) -> Result<()> {
        let mut failures = 0u32;
        loop {
            let event = {
                let next = events.poll();
                tokio::pin!(next);
                loop {
                    tokio::select! {
                        biased;
                        event = &mut next => break event,
                        () = world::pause(POLL) => {
                            self.hand_over()?;
                            self.acknowledge();
                            self.take_arrived()?;
                            if self.cx.stop.is_set() {
                                return Ok(());
                            }
                        }
                    }
                }
            };
            match event {
                Ok(Event::Incoming(Packet::ConnAck(answer))) => {
                    failures = 0;
                    // A session that is there has its subscriptions; subscribing again would bring what is retained again.
                    self.reconnected(answer.session_present);
                    if !answer.session_present {
                        self.subscribe()?;
                    }
                    self.cx.status.update(|s| {
                        s.state = "running";
                        s.error = None;
                    });
                }
                Ok(Event::Incoming(Packet::SubAck(answer))) => {
                    if answer.return_codes.contains(&SubscribeReasonCode::Failure) {
                        let message = format!("{} refuses the subscription", self.settings.shown());
                        return Err(Error::new(SqlState::INVALID_AUTHORIZATION, message)
                            .with_hint("The user may not be allowed to read the topics."));
                    }
                }
                Ok(Event::Incoming(Packet::Publish(message))) => self.arrived.push_back(message),
                Ok(_) => {}
                Err(error) => {
                    failures += 1;
                    self.disconnected(self.settings.lost(&error), failures).await?;
                }
            }
            self.acknowledge();
            self.take_arrived()?;
            if self.is_due() {
                self.hand_over()?;
            }
            if self.cx.stop.is_set() {
                return Ok(());
            }
        }
    }

    fn subscribe(&self) -> Result<()> {
        let filters = self.settings.topics.iter().map(|t| SubscribeFilter::new(t.clone(), self.settings.qos));
        let asked = self.client.try_subscribe_many(filters.collect::<Vec<_>>());
        asked.map_err(|e| Error::new(SqlState::CONNECTION_FAILURE, format!("cannot subscribe: {e}")))
    }

    /// What was not acknowledged comes again, if the session is the same: what of it was not taken is not taken now.
    fn reconnected(&mut self, session_present: bool) {
        self.unacknowledged.clear();
        if session_present {
            self.arrived.retain(|message| message.qos == QoS::AtMostOnce);
        }
    }

    /// Takes what has come, as long as not too much is unacknowledged.
    fn take_arrived(&mut self) -> Result<()> {
        while self.unacknowledged.len() < UNACKNOWLEDGED_MAX
            && let Some(message) = self.arrived.pop_front()
        {
            self.take(message)?;
        }
        Ok(())
    }

    /// The connection is lost.
    async fn disconnected(&mut self, error: Error, failures: u32) -> Result<()> {
        self.hand_over()?;
        let pause = (PAUSE_MIN * 2u32.saturating_pow(failures.saturating_sub(1).min(10))).min(PAUSE_MAX);
        let pause = pause.mul_f64(0.5 + world::jitter());
        tracing::warn!(source = self.cx.name, %error, retry_in_ms = pause.as_millis() as u64, "disconnected");
        self.cx.status.update(|s| {
            s.state = "stalled";
            s.error = Some(error.to_string());
        });
        let until = world::instant() + pause;
        while !self.cx.stop.is_set() && world::instant() < until {
            world::pause(POLL * 10).await;
        }
        Ok(())
    }

    fn take(&mut self, message: Publish) -> Result<()> {
        let acknowledged = message.qos != QoS::AtMostOnce;
        let known = acknowledged.then(|| Message::new(message.pkid, &message.topic, &message.payload));
        let is_again = message.dup && known.is_some_and(|known| self.position.has(known));
        if !is_again && (self.settings.retained || !message.retain) {
            self.decode(&message)?;
        }
        if !is_again {
            self.position.take(known);
            self.waiting += 1;
            self.since.get_or_insert_with(world::instant);
        }
        if acknowledged {
            self.unacknowledged.push_back((self.position.taken, message));
        }
        Ok(())
    }

    fn decode(&mut self, message: &Publish) -> Result<()> {
        let record = Record {
            key: Some(message.topic.as_bytes()),
            value: Some(&message.payload),
            topic: &message.topic,
            timestamp_micros: Some(world::now_micros()),
            ..Record::default()
        };
        self.bytes += message.payload.len() as u64;
        let Err(why) = self.decoder.push(&record) else { return Ok(()) };
        if why.is_unavailable() {
            return Err(Error::new(why.sqlstate, why.reason));
        }
        self.bad.push(BadRecord::of(&record, why, format!("topic={}", message.topic), None));
        Ok(())
    }

    fn is_due(&self) -> bool {
        let now = world::instant();
        self.waiting >= BATCH_MAX || self.since.is_some_and(|since| now - since >= BATCH_WAIT)
    }

    /// Hands over what has come.
    fn hand_over(&mut self) -> Result<()> {
        if self.waiting == 0 {
            return Ok(());
        }
        let rows = self.decoder.pending() as u64;
        let bad = std::mem::take(&mut self.bad);
        let (bytes, bad_records) = (std::mem::take(&mut self.bytes), bad.len() as u64);
        (self.waiting, self.since) = (0, None);
        let changes = self.decoder.take()?.into_iter().map(|c| (self.output.collection, c)).collect();
        self.cx.feed.submit_nowait(SourceBatch {
            changes,
            bad,
            position: Some(self.position.encode()),
            ..SourceBatch::default()
        })?;
        world::crash_point("mqtt.handed_over");
        self.cx.status.update(|s| {
            s.rows += rows;
            s.bytes += bytes;
            s.bad_records += bad_records;
            s.event_time_micros = Some(world::now_micros());
        });
        Ok(())
    }

    /// Acknowledges what is durable, as far as the network takes it.
    fn acknowledge(&mut self) {
        if self.unacknowledged.is_empty() {
            return;
        }
        let durable = self.cx.feed.durable_position();
        let durable = durable.and_then(|p| Position::decode(&p).ok()).map_or(0, |p| p.taken);
        while let Some((count, message)) = self.unacknowledged.front() {
            if *count > durable {
                break;
            }
            world::crash_point("mqtt.durable");
            if self.client.try_ack(message).is_err() {
                break;
            }
            self.unacknowledged.pop_front();
        }
    }
}
