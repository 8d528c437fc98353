//! Server-sent events: a stream of text that a server writes to as things happen. Each event is a record; the id of the
//! last one is the position, which the server is told when the stream is opened again.

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use super::client::{Client, Trouble, lost, pause, unless_stopped, wait};
use super::settings::Events;
use crate::connectors::envelope::{Decoder, Record};
use crate::connectors::{BadRecord, Source, SourceBatch, SourceContext, SourceOutput};
use crate::error::{Error, Result};
use crate::world;

/// How long to wait before a stream that has ended is opened again, unless the server says otherwise.
const RETRY: Duration = Duration::from_secs(1);
/// The longest that the server may say.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// A batch has no more rows than this.
const BATCH_ROWS_MAX: usize = 65_536;

/// A source of events.
pub(super) struct EventSource {
    pub client: Client,
    pub settings: Events,
    pub decoder: Decoder,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    last_event_id: String,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Event {
    /// Its type.
    name: String,
    data: String,
    /// The id that is the last one with it.
    id: String,
}

/// Takes a stream apart, as it comes.
#[derive(Debug, Default)]
struct Parser {
    /// Bytes of a line whose end has not come yet.
    line: Vec<u8>,
    /// The line before ended with a carriage return, whose line feed may still come.
    after_return: bool,
    begun: bool,
    name: String,
    data: String,
    has_data: bool,
    /// The last id that was said.
    id: String,
    retry: Option<Duration>,
}

impl Parser {
    fn new(id: String) -> Parser {
        Parser { id, ..Parser::default() }
    }

    /// Bytes of the event that is being read.
    fn held(&self) -> usize {
        self.line.len() + self.data.len()
    }

    /// Takes the next bytes; appends the events that end in them.
    fn push(&mut self, bytes: &[u8], events: &mut Vec<Event>) {
        for byte in bytes {
            match byte {
                b'\n' if std::mem::take(&mut self.after_return) => {}
                b'\n' => self.end_line(events),
                b'\r' => {
                    self.end_line(events);
                    self.after_return = true;
                }
                other => {
                    self.after_return = false;
                    self.line.push(*other);
                }
            }
        }
    }

    fn end_line(&mut self, events: &mut Vec<Event>) {
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line);
        let mut line = text.as_ref();
        if !std::mem::replace(&mut self.begun, true) {
            line = line.strip_prefix('\u{feff}').unwrap_or(line);
        }
        if line.is_empty() {
            return self.end_event(events);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.name = value.to_string(),
            "data" => {
                if self.has_data {
                    self.data.push('\n');
                }
                self.has_data = true;
                self.data.push_str(value);
            }
            "id" if !value.contains('\0') => self.id = value.to_string(),
            "retry" => {
                if let Ok(millis) = value.parse::<u64>() {
                    self.retry = Some(Duration::from_millis(millis).min(RETRY_MAX));
                }
            }
            // Comments, and fields that nobody knows.
            _ => {}
        }
    }

    fn end_event(&mut self, events: &mut Vec<Event>) {
        let (name, data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
        if std::mem::take(&mut self.has_data) {
            let name = if name.is_empty() { "message".to_string() } else { name };
            events.push(Event { name, data, id: self.id.clone() });
        }
    }
}

/// How a stream has ended.
enum End {
    /// It was told to.
    Stopped,
    /// There are no more events, ever.
    Finished,
    /// It broke off, or the server closed it: it is to be opened again.
    Closed,
}

struct Listener<'a> {
    source: EventSource,
    cx: &'a SourceContext,
    output: &'a SourceOutput,
    position: Position,
    retry: Duration,
    bad: Vec<BadRecord>,
    bytes: u64,
}

impl Source for EventSource {
    fn run(self: Box<Self>, cx: SourceContext) -> Result<()> {
        let [output] = &cx.outputs[..] else {
            return Err(Error::internal("a HTTP source fills exactly one collection"));
        };
        let position = match &cx.resume {
            None => Position::default(),
            Some(bytes) => serde_json::from_slice(bytes)
                .map_err(|e| Error::internal(format!("the position of a HTTP source cannot be read: {e}")))?,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut listener =
            Listener { source: *self, cx: &cx, output, position, retry: RETRY, bad: Vec::new(), bytes: 0 };
        let mut failures = 0;
        while !cx.stop.is_set() {
            match runtime.block_on(listener.listen())? {
                Ok(End::Stopped | End::Finished) => break,
                Ok(End::Closed) => {
                    failures = 0;
                    wait(&cx.stop, listener.retry);
                }
                Err(Trouble { error, retry_after }) => {
                    failures += 1;
                    let pause = pause(failures, retry_after).max(listener.retry);
                    tracing::warn!(source = cx.name, %error, retry_in_ms = pause.as_millis() as u64, "no events");
                    cx.status.update(|s| {
                        s.state = "stalled";
                        s.error = Some(error.to_string());
                    });
                    wait(&cx.stop, pause);
                }
            }
        }
        Ok(())
    }
}

impl Listener<'_> {
    /// Opens the stream and listens until it ends. The outer error is ours.
    async fn listen(&mut self) -> Result<std::result::Result<End, Trouble>> {
        let mut headers = HeaderMap::new();
        if let Ok(id) = HeaderValue::from_str(&self.position.last_event_id)
            && !id.is_empty()
        {
            headers.insert(HeaderName::from_static("last-event-id"), id);
        }
        let url = self.source.client.url().clone();
        let opened = unless_stopped(&self.cx.stop, self.source.client.open(headers)).await;
        let mut response = match opened {
            None => return Ok(Ok(End::Stopped)),
            Some(Err(trouble)) => return Ok(Err(trouble)),
            Some(Ok(response)) => response,
        };
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(Ok(End::Finished));
        }
        let kind = response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        if !kind.trim().to_ascii_lowercase().starts_with("text/event-stream") {
            return Ok(Err(Trouble::answer(&url, format!("it is \"{kind}\", no text/event-stream"))));
        }
        self.cx.status.update(|s| {
            s.state = "running";
            s.error = None;
        });
        let mut parser = Parser::new(self.position.last_event_id.clone());
        let mut events = Vec::new();
        loop {
            let silence = self.source.settings.silence;
            let next = tokio::time::timeout(silence, response.chunk());
            let chunk = match unless_stopped(&self.cx.stop, next).await {
                None => return Ok(Ok(End::Stopped)),
                Some(Err(_)) => return Ok(Ok(End::Closed)),
                Some(Ok(Err(error))) => {
                    tracing::info!(source = self.cx.name, error = %lost(&url, error).error, "the stream broke off");
                    return Ok(Ok(End::Closed));
                }
                Some(Ok(Ok(None))) => return Ok(Ok(End::Closed)),
                Some(Ok(Ok(Some(chunk)))) => chunk,
            };
            parser.push(&chunk, &mut events);
            self.bytes += chunk.len() as u64;
            self.retry = parser.retry.unwrap_or(self.retry);
            if parser.held() > self.source.client.body_limit() {
                let limit = self.source.client.body_limit();
                let why = format!("an event has more than {limit} bytes (option \"body.limit\")");
                return Ok(Err(Trouble::answer(&url, why)));
            }
            for event in events.drain(..) {
                self.take(&event)?;
            }
            self.hand_over()?;
        }
    }

    fn take(&mut self, event: &Event) -> Result<()> {
        self.position.last_event_id.clone_from(&event.id);
        if self.source.settings.types.as_ref().is_some_and(|types| !types.contains(&event.name)) {
            return Ok(());
        }
        let key = Some(event.id.as_bytes()).filter(|id| !id.is_empty());
        let record = Record {
            key,
            value: Some(event.data.as_bytes()),
            topic: &event.name,
            timestamp_micros: Some(world::now_micros()),
            ..Record::default()
        };
        if let Err(why) = self.source.decoder.push(&record) {
            let position = format!("event={} id={}", event.name, event.id);
            self.bad.push(BadRecord::of(&record, why, position, None));
        }
        if self.source.decoder.pending() >= BATCH_ROWS_MAX { self.hand_over() } else { Ok(()) }
    }

    /// Hands over what has come, with the id of the last event.
    fn hand_over(&mut self) -> Result<()> {
        let rows = self.source.decoder.pending() as u64;
        let bad = std::mem::take(&mut self.bad);
        if rows == 0 && bad.is_empty() {
            return Ok(());
        }
        let position = serde_json::to_vec(&self.position)
            .map_err(|e| Error::internal(format!("the position cannot be written: {e}")))?;
        let (bytes, bad_records) = (std::mem::take(&mut self.bytes), bad.len() as u64);
        let changes = self.source.decoder.take()?.into_iter().map(|c| (self.output.collection, c)).collect();
        self.cx.feed.submit_nowait(SourceBatch {
            changes,
            bad,
            position: Some(position),
            ..SourceBatch::default()
        })?;
        world::crash_point("http.handed_over");
        self.cx.status.update(|s| {
            s.rows += rows;
            s.bytes += bytes;
            s.bad_records += bad_records;
            s.event_time_micros = Some(world::now_micros());
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_in_any_pieces() {
        let stream = "\u{feff}: hello\r\nid: 1\r\ndata: a\r\ndata:  b\r\n\r\nevent: up\rdata\r\rid\ndata: {\"x\": 1}\nretry: 20\nother: y\n\nid: 9\n\ndata: unfinished\n";
        for piece in [1, 2, 3, 1000] {
            let (mut parser, mut events) = (Parser::new("0".into()), Vec::new());
            stream.as_bytes().chunks(piece).for_each(|bytes| parser.push(bytes, &mut events));
            let event = |name: &str, data: &str, id: &str| Event {
                name: name.into(),
                data: data.into(),
                id: id.into(),
            };
            let expected =
                [event("message", "a\n b", "1"), event("up", "", "1"), event("message", "{\"x\": 1}", "")];
            assert_eq!(events, expected, "{piece} bytes at once");
            assert_eq!(parser.retry, Some(Duration::from_millis(20)));
        }
    }
}
