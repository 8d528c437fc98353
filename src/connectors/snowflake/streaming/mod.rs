//! Snowpipe Streaming: rows of a relation that only grows are in Snowflake after seconds, without a warehouse that runs.
//!
//! A batch of the sync loop is cut into parts; each goes out with an offset token that says of which batch it is, and
//! which part. The channel commits rows and token together, and that token is the sink's progress: a start opens the
//! channel, which discards what was not committed, and goes on behind the token, in the middle of a batch if need be.
//! Batches are therefore made again exactly as they were (see [`lines`]), and end where the last intention ended.
//!
//! What a channel cannot hold, the sink's own memory does: ticks without rows have no token, and a channel that nobody
//! has written to for 30 days forgets its own.

pub mod channel;
pub mod refused;
pub mod token;

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use serde::{Deserialize, Serialize};

use crate::connectors::snowflake::appending::{Target, recall, remember};
use crate::connectors::snowflake::apply::SinkTag;
use crate::connectors::snowflake::lines::{self, Part};
use crate::connectors::snowflake::types::{self, Column};
use crate::connectors::warehouse::{
    Applied, Batch, Effect, Failure, Form, Progress, Rhythm, Settings, Shape, StagedFile, Step, Warehouse,
    sync,
};
use crate::connectors::{
    MEMORY_INTENT, Memory, Options, Refused, Sink, SinkContext, SinkDefinition, StopFlag,
};
use crate::engine::Tick;
use crate::error::{Error, Result, SqlState};
use crate::world;
use channel::{Channel, State};
use token::Token;

/// Between two batches, unless `commit_interval` says otherwise. While one is being committed, the next one gathers.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);
/// Changes of this size are sent at once unless `batch_size` says otherwise: their text is held until they are committed.
const BATCH_BYTES: usize = 16 << 20;
/// A part is cut before it has more text than this, unless `file_size` says less. Compressed, it stays below
/// [`BODY_MAX`], but for one row that has more.
const PART_BYTES: usize = 3 << 20;
/// What the service takes at most in one request, compressed.
const BODY_MAX: usize = 4 << 20;
/// How long Snowflake may take to commit some of the rows that it has taken, before they are sent again.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(180);
/// The first and the longest pause between two questions how far the channel is.
const POLL: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// What the sink remembers besides its channel: [`Memory`] name; [`Known`] as JSON.
const MEMORY_KNOWN: &str = "streaming";

/// What is known to be in the target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    /// The channel's token after the last batch with rows; `None`: there was none.
    token: Option<String>,
    /// How often the target was filled: 0 or 1.
    generation: u64,
    /// The tick that the target is at, which ticks without rows may have moved past the token's.
    epoch: Tick,
    /// Refused rows that stand in `tidemill.errors`.
    refused: u64,
    /// The token that the last of them had.
    refused_at: Option<String>,
}

/// A sink by Snowpipe Streaming that a definition asks for.
#[derive(Debug)]
pub struct StreamingSink {
    target: Target,
    uuid: uuid::Uuid,
    settings: Settings,
}

impl StreamingSink {
    /// Takes the rest of the options of a sink into `table`. Nothing is sent yet.
    pub fn new(mut options: Options, def: &SinkDefinition, table: &str) -> Result<Self> {
        let settings = Settings::take_with(&mut options, COMMIT_INTERVAL, BATCH_BYTES)?;
        let target = Target::new(&mut options, def, table)?;
        options.finish()?;
        Ok(StreamingSink { target, uuid: def.uuid, settings })
    }
}

/// The channel of a sink: nobody else's.
fn channel_name(sink: uuid::Uuid) -> String {
    format!("TIDEMILL_{:X}", sink.simple())
}

impl Sink for StreamingSink {
    fn run(self: Box<Self>, cx: SinkContext) -> Result<()> {
        let shape = Shape::new(cx.schema.clone(), &cx.key, cx.append_only);
        let mut streaming = Streaming {
            columns: types::columns(&shape.schema)?,
            channel_name: channel_name(cx.uuid),
            tag: SinkTag { name: cx.name.clone(), uuid: cx.uuid },
            target: self.target,
            memory: Arc::clone(&cx.memory),
            refused: Arc::clone(&cx.refused),
            stop: cx.stop.clone(),
            channel: None,
            known: Known::default(),
            at: Progress::default(),
            under_way: None,
            parts: Vec::new(),
        };
        sync::run(&mut streaming, shape, &self.settings, cx)
    }

    fn target(&self) -> Option<String> {
        Some(self.target.key())
    }

    fn clean_up(self: Box<Self>) -> Result<()> {
        Channel::remove(&self.target.config, &self.target.place, &channel_name(self.uuid))
            .map_err(|f| f.error)
    }

    fn rhythm(&self) -> Option<Rhythm> {
        Some(Rhythm { settings: self.settings.clone(), form: Form::Rows(None) })
    }
}

/// A channel at work.
struct Streaming {
    target: Target,
    columns: Vec<Column>,
    channel_name: String,
    tag: SinkTag,
    memory: Arc<dyn Memory>,
    refused: Refused,
    stop: StopFlag,
    channel: Option<Channel>,
    known: Known,
    /// What the target is at.
    at: Progress,
    /// The last committed part of a batch that is not there whole.
    under_way: Option<Token>,
    /// The batch in hand.
    parts: Vec<Part>,
}

impl Streaming {
    /// Where the target is by the channel's token and what is remembered: its progress, and the last committed part of
    /// a batch that is not there whole.
    fn place_at(&self, committed: Option<&str>) -> Result<(Progress, Option<Token>)> {
        let known = &self.known;
        let remembered = Progress { generation: known.generation, fence: self.at.fence, epoch: known.epoch };
        if committed == known.token.as_deref() {
            return Ok((remembered, None));
        }
        let Some(committed) = committed else {
            // The channel is gone with what it knew. Unless something was sent since, the sink knows as much.
            let intent = self.memory.get(MEMORY_INTENT)?.and_then(|tick| tick.try_into().ok());
            if intent.map(Tick::from_be_bytes).is_some_and(|intent| intent > known.epoch) {
                return Err(
                    self.lost("The channel is new, and whether the last batch had arrived is not known.")
                );
            }
            return Ok((remembered, None));
        };
        let token = Token::parse(committed).ok_or_else(|| {
            self.lost(&format!("The channel has the token \"{committed}\", which is not the sink's."))
        })?;
        // Only while the target is filled for the first time does a batch lead to a generation that is not remembered.
        let filling = u64::from(token.generation > known.generation);
        let begun = Progress { generation: token.generation - filling, ..remembered };
        if token.is_whole() && token.to > known.epoch {
            return Ok((Progress { generation: token.generation, epoch: token.to, ..remembered }, None));
        }
        if !token.is_whole() && token.from >= known.epoch {
            return Ok((Progress { epoch: token.from, ..begun }, Some(token)));
        }
        Err(self.lost(&format!(
            "The channel is at tick {} and the sink had brought it to tick {}.",
            if token.is_whole() { token.to } else { token.from },
            known.epoch
        )))
    }

    fn lost(&self, detail: &str) -> Error {
        Error::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("the sink and its channel {} disagree", self.channel_name),
        )
        .with_detail(detail)
        .with_hint("Drop the sink, empty the table, and create the sink again.")
    }

    /// Tells of rows that were refused since the last time.
    fn tell_refused(&mut self, state: &State, tokens: Option<&str>, position: &str) -> Step<()> {
        // A count that is smaller than it was has begun anew.
        let since = if state.refused < self.known.refused { 0 } else { self.known.refused };
        let elsewhere = state.refused_at.is_some() && state.refused_at != self.known.refused_at;
        let count = (state.refused - since).max(u64::from(elsewhere));
        if count > 0 {
            let search = refused::Search {
                target: &self.target.names.target,
                channel: &self.channel_name,
                tokens,
                position,
            };
            let records = refused::records(&self.target.config, &search, state, count, &self.stop);
            tracing::warn!(sink = %self.tag.name, count, "rows were refused");
            (self.refused)(&records)?;
        }
        world::crash_point("streaming.told");
        if (self.known.refused, &self.known.refused_at) != (state.refused, &state.refused_at) {
            (self.known.refused, self.known.refused_at) = (state.refused, state.refused_at.clone());
            remember(&*self.memory, MEMORY_KNOWN, &self.known)?;
        }
        Ok(())
    }

    /// Sends the parts of the batch from this one on, and waits until they are in the table.
    fn send(&mut self, batch: &Batch, token: Token) -> Step<Applied> {
        let channel = self.channel.as_mut().ok_or_else(|| Failure::fenced(self.at, batch.from))?;
        let mut applied = Applied::default();
        let began = world::instant();
        let done = self.under_way.map_or(0, |done| done.part);
        for (part, sent) in (1..).zip(&self.parts).skip(done as usize) {
            channel.append(&Token { part, ..token }.to_string(), &sent.body)?;
            world::crash_point("streaming.appended");
        }
        applied.load = began.elapsed();
        let waiting = world::instant();
        // How far the channel was, and since when.
        let mut before = (None, waiting);
        let whole = Token { part: token.parts, ..token }.to_string();
        let mut pause = POLL.0;
        let state = loop {
            let state = channel.state()?;
            match state.committed.as_deref() {
                Some(committed) if committed == whole => break state,
                Some(other)
                    if Token::parse(other)
                        .is_none_or(|t| !t.same_batch(&token) && t.to > batch.from.epoch) =>
                {
                    return Err(Failure::fenced(self.at, batch.from));
                }
                _ => {}
            }
            if state.committed != before.0 {
                before = (state.committed, world::instant());
            }
            if before.1.elapsed() > COMMIT_TIMEOUT {
                let text = format!("Snowflake has not committed rows within {} s", COMMIT_TIMEOUT.as_secs());
                return Err(Failure::retry(Error::new(SqlState::CONNECTION_FAILURE, text)));
            }
            if !channel.wait(pause) {
                return Err(Failure::retry(Error::new(SqlState::QUERY_CANCELED, "the sink is stopping")));
            }
            pause = (pause * 2).min(POLL.1);
        };
        world::crash_point("streaming.committed");
        applied.commit = waiting.elapsed();
        self.known.token = Some(whole);
        let position = format!("tick {} to {}", token.from, token.to);
        // What is known of the batch is written down with what was refused of it, or right after.
        self.known = Known { generation: batch.to.generation, epoch: batch.to.epoch, ..self.known.clone() };
        self.tell_refused(&state, Some(&token.batch()), &position)?;
        Ok(applied)
    }
}

impl Warehouse for Streaming {
    fn open(&mut self, stop: &StopFlag) -> Step<Progress> {
        self.channel = None;
        self.known = recall(&*self.memory, MEMORY_KNOWN)?;
        self.target.prepare(&self.columns, &self.tag, self.known.generation > 0, stop)?;
        let Target { config, place, .. } = &self.target;
        let (channel, state) = Channel::open(config, place, &self.channel_name, stop)?;
        (self.at, self.under_way) = self.place_at(state.committed.as_deref())?;
        self.at.fence += 1;
        if self.at.generation == 0 && self.under_way.is_none() {
            self.target.check_empty()?;
        }
        if self.under_way.is_none() && state.committed.is_some() && state.committed != self.known.token {
            // The last start had not come to write it down.
            self.known.token.clone_from(&state.committed);
            (self.known.generation, self.known.epoch) = (self.at.generation, self.at.epoch);
            remember(&*self.memory, MEMORY_KNOWN, &self.known)?;
        }
        self.channel = Some(channel);
        self.tell_refused(&state, None, "before the sink's start")?;
        Ok(self.at)
    }

    fn encode(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        types::encode(&self.columns, rows)
    }

    fn stage(&mut self, _batch: &Batch, rows: &RecordBatch, file_bytes: usize) -> Step<Vec<StagedFile>> {
        self.parts = lines::parts(&self.columns, rows, file_bytes.min(PART_BYTES))?;
        if let Some(part) = self.parts.iter().find(|part| part.body.len() > BODY_MAX) {
            let text =
                format!("a row has {} bytes, compressed, and Snowpipe Streaming takes 4 MB", part.body.len());
            let hint = "Follow a relation without such rows, or leave the option mode out.";
            return Err(Error::new(SqlState("54000"), text).with_hint(hint).into());
        }
        let file = |(i, part): (usize, &Part)| StagedFile {
            name: i.to_string(),
            rows: part.rows,
            bytes: part.body.len() as u64,
        };
        Ok(self.parts.iter().enumerate().map(file).collect())
    }

    fn apply(&mut self, batch: &Batch) -> Step<Applied> {
        world::crash_point("sink.begin");
        if batch.effect != Effect::Advance && batch.from.generation > 0 {
            return Err(self.target.cannot_replace().into());
        }
        if self.at != batch.from {
            return Err(Failure::fenced(self.at, batch.from));
        }
        let from = if batch.effect == Effect::Advance { batch.from.epoch } else { 0 };
        let (to, parts) = (batch.to.epoch, self.parts.len() as u64);
        let token = Token { generation: batch.to.generation, from, to, part: 1, parts };
        if let Some(done) = self.under_way.filter(|done| !done.same_batch(&token)) {
            let detail = format!(
                "It has part {} of {} up to tick {}, and this is another batch.",
                done.part, done.parts, done.to
            );
            return Err(self.lost(&detail).into());
        }
        let sent = if parts > 0 {
            self.send(batch, token)
        } else {
            self.known = Known { generation: batch.to.generation, epoch: to, ..self.known.clone() };
            Ok(Applied::default())
        };
        let applied = match sent {
            Ok(applied) => applied,
            Err(failure) => {
                self.channel = None;
                return Err(failure);
            }
        };
        remember(&*self.memory, MEMORY_KNOWN, &self.known)?;
        (self.at, self.under_way) = (batch.to, None);
        self.parts.clear();
        Ok(applied)
    }

    fn discard(&mut self, _batch: &Batch) {}

    fn remembers_ranges(&self) -> bool {
        false
    }
}
