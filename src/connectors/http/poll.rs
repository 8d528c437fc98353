//! Asking again and again. A poll reads all pages, and then hands everything over in one transaction together with
//! what the next poll needs to know; one that fails on the way leaves nothing behind and is tried again.
//!
//! A source that resumes at a cursor is the exception: each page is a transaction of its own, with the cursor after it.

use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use ring::digest;
use serde::{Deserialize, Serialize};

use super::client::{Answer, Client, Trouble, Validators, pause, unless_stopped, wait};
use super::paging::Page;
use super::settings::{Mode, Polls};
use crate::connectors::bodies::BodyDecoder;
use crate::connectors::envelope::Record;
use crate::connectors::{BadRecord, Source, SourceBatch, SourceContext, SourceOutput};
use crate::engine::InputChange;
use crate::error::{Error, Result};
use crate::world;

/// A poll has no more records than this in memory.
const ROWS_MAX: usize = 10_000_000;
/// So many bad records of a poll are remembered, so that they are not told again by the next.
const TOLD_MAX: usize = 1000;

/// A source of answers.
pub(super) struct PollSource {
    pub client: Client,
    pub settings: Polls,
    pub bodies: BodyDecoder,
    /// Rows have a key, so that a record that comes again changes nothing.
    pub is_keyed: bool,
    /// Rows do not tell when they came.
    pub is_timeless: bool,
}

/// What the next poll needs to know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    /// When the last poll began, µs since 1970.
    polled_at: i64,
    /// What the last answer was.
    validators: Option<Validators>,
    /// Where the last poll has ended.
    cursor: Option<String>,
    /// The one poll that was asked for is over.
    finished: bool,
    /// The bad records of the last poll: the first bytes of their digests.
    told: Vec<u64>,
}

/// How a poll has ended.
enum End {
    Polled,
    Stopped,
}

/// Why a poll has failed.
enum Failure {
    /// It is to be tried again.
    Upstream(Trouble),
    /// Not for its sake.
    Ours(Error),
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        Failure::Upstream(trouble)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Ours(error)
    }
}

/// What a poll has brought so far.
#[derive(Default)]
struct Gathered {
    bad: Vec<BadRecord>,
    bytes: u64,
    at_micros: i64,
    digests: Vec<u8>,
}

struct Poller<'a> {
    source: PollSource,
    cx: &'a SourceContext,
    output: &'a SourceOutput,
    runtime: tokio::runtime::Runtime,
    position: Position,
    /// The digest of the last poll's answers, if they were handed over by this very process.
    handed_over: Option<Vec<u8>>,
}

impl Source for PollSource {
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
        Poller { source: *self, cx: &cx, output, runtime, position, handed_over: None }.run()
    }
}

impl Poller<'_> {
    fn run(&mut self) -> Result<()> {
        let mut failures = 0;
        // After a restart the next poll is when it would have been.
        if let (Some(every), true) = (self.source.settings.every, self.position.polled_at > 0) {
            let since = world::now_micros() - self.position.polled_at;
            let since = Duration::from_micros(u64::try_from(since).unwrap_or(u64::MAX));
            self.works();
            wait(&self.cx.stop, every.saturating_sub(since));
        }
        if self.position.finished {
            return Ok(());
        }
        while !self.cx.stop.is_set() {
            let began = world::instant();
            match self.poll() {
                Ok(End::Stopped) => break,
                Ok(End::Polled) => {
                    failures = 0;
                    self.works();
                    let Some(every) = self.source.settings.every else { return Ok(()) };
                    wait(&self.cx.stop, every.saturating_sub(world::instant() - began));
                }
                Err(Failure::Ours(error)) => return Err(error),
                Err(Failure::Upstream(Trouble { error, retry_after })) => {
                    self.source.bodies.decoder().take()?;
                    failures += 1;
                    let pause = pause(failures, retry_after);
                    tracing::warn!(source = self.cx.name, %error, retry_in_ms = pause.as_millis() as u64, "not polled");
                    self.cx.status.update(|s| {
                        s.state = "stalled";
                        s.error = Some(error.to_string());
                    });
                    wait(&self.cx.stop, pause);
                }
            }
        }
        Ok(())
    }

    fn works(&self) {
        self.cx.status.update(|s| {
            s.state = "running";
            s.error = None;
        });
    }

    /// Reads all pages.
    fn poll(&mut self) -> std::result::Result<End, Failure> {
        let polled_at = world::now_micros();
        let once = self.source.settings.every.is_none();
        let paging = self.source.settings.paging.clone();
        let resumes = paging.as_ref().is_some_and(|p| p.resumes());
        let mut url = match &paging {
            None => self.source.client.url().clone(),
            Some(paging) => paging.first(self.source.client.url(), self.position.cursor.as_deref()),
        };
        let known = self.position.validators.clone().filter(|_| self.source.client.is_conditional());
        let mut gathered = Gathered::default();
        let mut validators = None;
        let limit = paging.as_ref().map_or(1, |p| p.limit);
        for n in 0.. {
            let known = known.as_ref().filter(|_| n == 0 && !resumes);
            let asked = unless_stopped(&self.cx.stop, self.source.client.ask(&url, known));
            let Some(answer) = self.runtime.block_on(asked) else {
                self.source.bodies.decoder().take()?;
                return Ok(End::Stopped);
            };
            let Some(answer) = answer? else {
                self.position.polled_at = polled_at;
                return Ok(End::Polled);
            };
            let records = self.decode(&url, &answer, &mut gathered)?;
            let next = match &paging {
                None => Page::Last,
                Some(paging) => paging
                    .next(&url, n, &answer.headers, &answer.body, records)
                    .map_err(|why| Trouble::answer(&url, why))?,
            };
            if next == Page::Last && n == 0 {
                // What tells whether the first page is the same tells nothing of the others.
                validators = Some(answer.validators.clone());
            }
            if resumes {
                let cursor = paging.as_ref().map_or(Ok(None), |p| p.cursor(&answer.body));
                match cursor.map_err(|why| Trouble::answer(&url, why))? {
                    Some(cursor) => self.position.cursor = Some(cursor),
                    None if records == 0 => {}
                    None => {
                        let why = "it has records and no cursor, which paging.resume goes on from";
                        return Err(Trouble::answer(&url, why).into());
                    }
                }
                self.position.polled_at = polled_at;
                self.position.finished = once && next == Page::Last;
                self.hand_over(std::mem::take(&mut gathered), false)?;
            }
            match next {
                Page::Last => break,
                Page::At(_) if n + 1 >= limit => {
                    if resumes {
                        break;
                    }
                    let why = format!("there are more than {limit} pages (option \"paging.limit\")");
                    return Err(Trouble::answer(&url, why).into());
                }
                Page::At(next) => url = next,
            }
        }
        if !resumes {
            self.position.polled_at = polled_at;
            self.position.validators = validators;
            self.position.finished = once;
            self.hand_over(gathered, true)?;
        }
        Ok(End::Polled)
    }

    /// Decodes a page; answers with the number of its records.
    fn decode(
        &mut self,
        url: &reqwest::Url,
        answer: &Answer,
        gathered: &mut Gathered,
    ) -> std::result::Result<usize, Failure> {
        let body = match &self.source.settings.pointer {
            None => &answer.body[..],
            Some(pointer) => {
                let text = std::str::from_utf8(&answer.body)
                    .map_err(|e| Trouble::answer(url, format!("it is no text: {e}")))?;
                let found = pointer.find(text);
                match found
                    .map_err(|m| Trouble::answer(url, format!("it is no JSON: {} (byte {})", m.what, m.at)))?
                {
                    Some("null") => &[],
                    Some(value) => value.as_bytes(),
                    None => {
                        let why = "there is nothing at the option \"json_pointer\"";
                        return Err(Trouble::answer(url, why).into());
                    }
                }
            }
        };
        let headers = answer.headers_json();
        let at_micros = world::now_micros();
        let of = Record {
            topic: url.as_str(),
            timestamp_micros: Some(at_micros),
            headers: Some(&headers),
            ..Record::default()
        };
        let position = |n: usize| format!("url={url} record={n}");
        let counts = self.source.bodies.decode(body, &of, position, &mut gathered.bad);
        gathered.bytes += answer.body.len() as u64;
        gathered.at_micros = at_micros;
        gathered.digests.extend(digest::digest(&digest::SHA256, body).as_ref());
        if self.source.bodies.decoder().pending() > ROWS_MAX {
            let why = format!("a poll cannot have more than {ROWS_MAX} records");
            return Err(Trouble::answer(url, why).into());
        }
        Ok((counts.rows + counts.bad) as usize)
    }

    /// Hands over what was gathered, and where that leads; `whole`: it is a whole poll.
    fn hand_over(&mut self, gathered: Gathered, whole: bool) -> Result<()> {
        let Gathered { mut bad, bytes, at_micros, digests } = gathered;
        let changes = self.source.bodies.decoder().take()?;
        let repeats = whole && self.source.is_keyed && self.source.is_timeless;
        if repeats && self.handed_over.as_ref() == Some(&digests) {
            // The same records once more.
            return Ok(());
        }
        if whole && self.source.is_keyed {
            let mut told: Vec<u64> = bad.iter().map(fingerprint).collect();
            bad.retain(|b| !self.position.told.contains(&fingerprint(b)));
            told.truncate(TOLD_MAX);
            self.position.told = told;
        }
        let rows: usize = changes.iter().filter_map(InputChange::rows).map(RecordBatch::num_rows).sum();
        let changes = match self.source.settings.mode {
            Mode::Append => changes,
            Mode::Snapshot => vec![InputChange::Replace(all_rows(self.output, changes)?)],
        };
        let bad_records = bad.len() as u64;
        let position = serde_json::to_vec(&self.position)
            .map_err(|e| Error::internal(format!("the position cannot be written: {e}")))?;
        self.cx.feed.submit(SourceBatch {
            changes: changes.into_iter().map(|c| (self.output.collection, c)).collect(),
            bad,
            position: Some(position),
            ..SourceBatch::default()
        })?;
        world::crash_point("http.handed_over");
        self.handed_over = Some(digests);
        self.cx.status.update(|s| {
            s.rows += rows as u64;
            s.bytes += bytes;
            s.bad_records += bad_records;
            s.event_time_micros = Some(at_micros);
        });
        Ok(())
    }
}

/// What a bad record is known by.
fn fingerprint(bad: &BadRecord) -> u64 {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(bad.reason.as_bytes());
    context.update(bad.raw.as_deref().unwrap_or_default());
    let digest = context.finish();
    digest.as_ref().first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// The rows of changes that only bring rows.
fn all_rows(output: &SourceOutput, changes: Vec<InputChange>) -> Result<RecordBatch> {
    let mut rows = Vec::with_capacity(changes.len());
    for change in changes {
        match change {
            InputChange::Upsert { rows: some, deletes: None } => rows.push(some),
            InputChange::Delta(delta) if delta.weights.is_none() => rows.push(delta.rows),
            _ => return Err(Error::internal("a poll has taken rows away")),
        }
    }
    Ok(concat_batches(&output.schema, &rows)?)
}
