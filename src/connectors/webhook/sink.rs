//! WEBHOOK as a destination: changes are posted, batch by batch, in order, to a server of the user's.
//!
//! A server that is posted to does not say how far it is, so each body carries what makes a repetition harmless: the
//! sink's id and the ticks that it leads from and to. What was posted and not acknowledged is posted again under the
//! same key with the same rows in the same order, after a crash as well: the sync loop ends the first batch of a new
//! start where the last intention ended, and rows are put in an order of their own.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{StatusCode, redirect};
use ring::hmac;

use crate::connectors::format::encode::{RowWriter, member_names};
use crate::connectors::warehouse::consolidate::select;
use crate::connectors::warehouse::hash::row_hashes;
use crate::connectors::warehouse::{
    Applied, Batch, Effect, Failure, Form, Op, Progress, Rhythm, Settings, Shape, StagedFile, Step,
    Warehouse, check_reserved, column, duration, sync,
};
use crate::connectors::{Envelope, Memory, Options, Sink, SinkContext, SinkDefinition, StopFlag};
use crate::error::{Error, Result, SqlState};
use crate::world;

/// Between two posts, unless `commit_interval` says otherwise.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);
/// Rows in one body unless `body.rows` says otherwise.
const BODY_ROWS: usize = 1_000;
/// How long a server may take to answer unless `timeout` says otherwise.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Changes of this size are posted at once unless `batch_size` says otherwise: their bodies are held until they are answered.
const BATCH_BYTES: usize = 8 << 20;
/// The longest wait that a server may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);
/// How often a request that waits looks whether the sink is to stop.
const POLL: Duration = Duration::from_millis(100);
/// So much of a server's answer stands in an error.
const SHOWN_CHARS: usize = 300;
/// What is known of the progress: [`Memory`] name; generation, fence and tick, 8 bytes each, big-endian.
const MEMORY_PROGRESS: &str = "webhook";

/// The sink that a definition asks for. Nothing is sent yet.
pub fn sink(def: &SinkDefinition, schema: &SchemaRef, _key: &[usize]) -> Result<Box<dyn Sink>> {
    check_reserved(schema)?;
    if def.envelope != Envelope::None {
        return Err(Error::unsupported("an ENVELOPE of a WEBHOOK sink"));
    }
    match &def.format {
        Some(format) if !format.name.eq_ignore_ascii_case("json") => {
            let name = format.name.to_uppercase();
            return Err(Error::unsupported(format!("FORMAT {name} of a WEBHOOK sink")));
        }
        Some(format) if !format.options.is_empty() => {
            let name = &format.options[0].0;
            return Err(Error::unsupported(format!("option \"{name}\" of a WEBHOOK sink's FORMAT")));
        }
        _ => {}
    }
    RowWriter::new(&RecordBatch::new_empty(schema.clone()), &member_names(schema))?;
    let mut options = Options::new("WEBHOOK sink", def.options.clone());
    let url = options.require("url")?;
    let parsed = reqwest::Url::parse(&url).ok().filter(|u| ["http", "https"].contains(&u.scheme()));
    let url = parsed.ok_or_else(|| {
        invalid(format!("option \"url\" must begin with https:// or http://, not \"{url}\""))
    })?;
    let secret = options.take("secret");
    let mut headers = HeaderMap::new();
    for (name, value) in options.take_prefixed("header.") {
        let parsed = (HeaderName::from_bytes(name.as_bytes()).ok(), HeaderValue::from_str(&value).ok());
        let (Some(name), Some(mut value)) = parsed else {
            return Err(invalid(format!("option \"header.{name}\" is no header of HTTP")));
        };
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    let body_rows = options.parse::<usize>("body.rows", "a number of rows")?.unwrap_or(BODY_ROWS).max(1);
    let timeout = options.take("timeout").map(|t| duration("timeout", &t)).transpose()?.unwrap_or(TIMEOUT);
    let settings = Settings::take_with(&mut options, COMMIT_INTERVAL, BATCH_BYTES)?;
    options.finish()?;
    let key = secret.map(|s| hmac::Key::new(hmac::HMAC_SHA256, s.as_bytes()));
    let to = Receiver { url, headers, key, body_rows, timeout };
    Ok(Box::new(WebhookSink { name: def.name.clone(), to, settings }))
}

fn invalid(message: String) -> Error {
    Error::new(SqlState::INVALID_PARAMETER_VALUE, message)
}

/// Where to, and what goes with each body.
struct Receiver {
    url: reqwest::Url,
    headers: HeaderMap,
    key: Option<hmac::Key>,
    body_rows: usize,
    timeout: Duration,
}

struct WebhookSink {
    name: String,
    to: Receiver,
    settings: Settings,
}

impl Sink for WebhookSink {
    fn run(self: Box<Self>, cx: SinkContext) -> Result<()> {
        let shape = Shape::new(cx.schema.clone(), &cx.key, cx.append_only);
        let http = reqwest::Client::builder()
            .user_agent(concat!("Tidemill/", env!("CARGO_PKG_VERSION")))
            .default_headers(self.to.headers.clone())
            .timeout(self.to.timeout)
            .connect_timeout(self.to.timeout.min(Duration::from_secs(15)))
            // A redirection would become a GET without the body.
            .redirect(redirect::Policy::none())
            .build()
            .map_err(|e| Error::new(SqlState::IO_ERROR, format!("cannot start an HTTP client: {e}")))?;
        let mut posting = Posting {
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()?,
            http,
            to: self.to,
            members: member_names(&shape.schema),
            shape: shape.clone(),
            name: self.name,
            uuid: cx.uuid,
            memory: Arc::clone(&cx.memory),
            stop: cx.stop.clone(),
            bodies: Vec::new(),
            answered: (Progress::default(), 0),
        };
        sync::run(&mut posting, shape, &self.settings, cx)
    }

    fn rhythm(&self) -> Option<Rhythm> {
        let form = Form::Rows(Some(self.to.body_rows));
        Some(Rhythm { settings: self.settings.clone(), form })
    }
}

/// A receiver at work.
struct Posting {
    runtime: tokio::runtime::Runtime,
    http: reqwest::Client,
    to: Receiver,
    members: Vec<String>,
    shape: Shape,
    name: String,
    uuid: uuid::Uuid,
    memory: Arc<dyn Memory>,
    stop: StopFlag,
    /// The bodies of the batch in hand.
    bodies: Vec<Bytes>,
    /// How many bodies of the batch that leads there were answered already.
    answered: (Progress, usize),
}

impl Posting {
    fn read(&self) -> Result<Progress> {
        let Some(bytes) = self.memory.get(MEMORY_PROGRESS)? else { return Ok(Progress::default()) };
        let numbers: Vec<u64> =
            bytes.chunks_exact(8).filter_map(|b| b.try_into().ok().map(u64::from_be_bytes)).collect();
        match numbers[..] {
            [generation, fence, epoch] => Ok(Progress { generation, fence, epoch }),
            _ => Err(Error::new(SqlState::DATA_CORRUPTED, "the webhook's progress cannot be read")),
        }
    }

    fn write(&self, progress: Progress) -> Result<()> {
        let numbers = [progress.generation, progress.fence, progress.epoch];
        self.memory.put(MEMORY_PROGRESS, &numbers.map(u64::to_be_bytes).concat())
    }

    /// What names a batch, the same whenever it is posted: sink, generation, and the ticks that it leads from and to.
    fn range(&self, batch: &Batch) -> String {
        let (from, to) = (batch.from, batch.to);
        let start = if batch.effect == Effect::Advance { from.epoch.to_string() } else { "0".to_string() };
        format!("{}/{}/{start}-{}", self.uuid, to.generation, to.epoch)
    }

    /// Rows as a body says them.
    fn body(&self, batch: &Batch, rows: &RecordBatch, part: usize, parts: usize) -> Result<Bytes> {
        let user = self.shape.schema.fields().len();
        let own = rows.num_columns() - user;
        let columns = rows.columns()[own..].to_vec();
        let values = RecordBatch::try_new(self.shape.schema.clone(), columns)?;
        let writer = RowWriter::new(&values, &self.members)?;
        let ops = rows.column_by_name(column::OP).map(|c| c.as_string::<i32>());
        let head = serde_json::json!({
            "sink": self.name,
            "sink_id": self.uuid.to_string(),
            "from_tick": (batch.effect == Effect::Advance).then_some(batch.from.epoch),
            "to_tick": batch.to.epoch,
            "part": part,
            "parts": parts,
        });
        let mut text = head.to_string();
        text.pop();
        text.push_str(",\"changes\":[");
        for row in 0..rows.num_rows() {
            let op = ops.map_or(Ok(Op::Insert), |ops| Op::from_letter(ops.value(row)))?;
            let op = match op {
                Op::Insert => "insert",
                Op::Update => "update",
                Op::Delete => "delete",
            };
            if row > 0 {
                text.push(',');
            }
            text.push_str("{\"op\":\"");
            text.push_str(op);
            text.push_str("\",\"row\":");
            writer.write_json(row, &mut text);
            text.push('}');
        }
        text.push_str("]}");
        Ok(Bytes::from(text))
    }

    /// Posts one body and waits for its answer.
    fn post(&self, key: &str, body: &Bytes) -> Step<()> {
        let mut request = self
            .http
            .post(self.to.url.clone())
            .header("Content-Type", "application/json")
            .header("Idempotency-Key", key)
            .body(body.clone());
        if let Some(secret) = &self.to.key {
            let signature = hex::encode(hmac::sign(secret, body).as_ref());
            request = request.header("X-Tidemill-Signature", format!("sha256={signature}"));
        }
        let sending = async {
            let response = request.send().await?;
            let (status, headers) = (response.status(), response.headers().clone());
            let text =
                if status.is_success() { String::new() } else { response.text().await.unwrap_or_default() };
            Ok((status, headers, text))
        };
        let sent = self.runtime.block_on(async {
            let mut sending = std::pin::pin!(sending);
            loop {
                match tokio::time::timeout(POLL, &mut sending).await {
                    Ok(sent) => return Some(sent),
                    // Whether it has arrived is not known: it is posted again at the next start.
                    Err(_) if self.stop.is_set() => return None,
                    Err(_) => {}
                }
            }
        });
        let stopping = || Failure::retry(Error::new(SqlState::QUERY_CANCELED, "the sink is stopping"));
        let sent = sent.ok_or_else(stopping)?;
        // The url may hold a token: it stays out of errors.
        let (status, headers, text) = sent.map_err(|e: reqwest::Error| {
            let what = format!("the webhook has not answered: {}", chain(&e.without_url()));
            Failure::retry(Error::new(SqlState::CONNECTION_FAILURE, what))
        })?;
        if status.is_success() {
            return Ok(());
        }
        let shown: String = text.chars().take(SHOWN_CHARS).collect();
        let error = Error::new(SqlState::CONNECTION_FAILURE, format!("the webhook answered {status}"));
        let error = if shown.is_empty() { error } else { error.with_detail(shown) };
        let passes = status.is_server_error()
            || [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS]
                .contains(&status);
        if !passes {
            let error = match status {
                StatusCode::PAYLOAD_TOO_LARGE => error.with_hint("A smaller body.rows makes shorter bodies."),
                _ => error,
            };
            return Err(error.into());
        }
        self.pause(&headers);
        Err(Failure::retry(error))
    }

    /// Waits as long as a server asks for, which comes on top of the loop's own pause.
    fn pause(&self, headers: &HeaderMap) {
        let seconds = headers.get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.trim().parse().ok());
        let Some(seconds) = seconds else { return };
        let until = world::instant() + Duration::from_secs(seconds).min(RETRY_AFTER_MAX);
        while world::instant() < until && !self.stop.is_set() {
            world::sleep(POLL);
        }
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

impl Warehouse for Posting {
    fn open(&mut self, _stop: &StopFlag) -> Step<Progress> {
        let mut progress = self.read()?;
        progress.fence += 1;
        self.write(progress)?;
        Ok(progress)
    }

    fn encode(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        Ok(rows.clone())
    }

    fn stage(&mut self, batch: &Batch, rows: &RecordBatch, _file_bytes: usize) -> Step<Vec<StagedFile>> {
        // By what they hold, so that a batch that is posted again has the same parts.
        let hashes = row_hashes(rows, &(0..rows.num_columns()).collect::<Vec<_>>())?;
        let mut order: Vec<usize> = (0..rows.num_rows()).collect();
        order.sort_unstable_by_key(|&row| hashes[row]);
        let rows = select(rows, &order)?;
        // A snapshot without rows is posted, too: it says that there are none.
        let whole = batch.effect == Effect::Replace;
        let parts = rows.num_rows().div_ceil(self.to.body_rows).max(usize::from(whole));
        let mut files = Vec::with_capacity(parts);
        self.bodies.clear();
        for part in 0..parts {
            let from = part * self.to.body_rows;
            let slice = rows.slice(from, self.to.body_rows.min(rows.num_rows() - from));
            let body = self.body(batch, &slice, part, parts)?;
            let (name, bytes) = (part.to_string(), body.len() as u64);
            files.push(StagedFile { name, rows: slice.num_rows() as u64, bytes });
            self.bodies.push(body);
        }
        Ok(files)
    }

    fn apply(&mut self, batch: &Batch) -> Step<Applied> {
        world::crash_point("sink.begin");
        let now = self.read()?;
        if now != batch.from {
            return Err(Failure::fenced(now, batch.from));
        }
        let began = world::instant();
        let range = self.range(batch);
        // The fence tells attempts apart, not batches.
        let to = Progress { fence: 0, ..batch.to };
        if self.answered.0 != to {
            self.answered = (to, 0);
        }
        for part in self.answered.1..self.bodies.len() {
            self.post(&format!("{range}/{part}"), &self.bodies[part])?;
            self.answered.1 = part + 1;
            world::crash_point("sink.posted");
        }
        let mut applied = Applied { load: began.elapsed(), ..Applied::default() };
        let committing = world::instant();
        self.write(batch.to)?;
        applied.commit = committing.elapsed();
        self.bodies.clear();
        Ok(applied)
    }

    fn discard(&mut self, _batch: &Batch) {}

    fn remembers_ranges(&self) -> bool {
        false
    }
}
