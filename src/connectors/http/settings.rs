//! What the options of a HTTP source say.

use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};

use super::paging::Paging;
use crate::connectors::format::pointer::Pointer;
use crate::connectors::warehouse::duration;
use crate::connectors::{Options, SourceDefinition};
use crate::error::{Error, Result, SqlState};

/// How often to ask unless the option `poll` says otherwise.
const POLL: Duration = Duration::from_secs(30);
/// The shortest that `poll` may say.
const POLL_MIN: Duration = Duration::from_millis(10);
/// How long an answer may take unless the option `timeout` says otherwise.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long a stream of events may be silent before it is taken for dead.
const SILENCE: Duration = Duration::from_secs(300);
/// An answer, or an event, has no more bytes than this unless the option `body.limit` says otherwise.
const BODY_BYTES: usize = 64 << 20;
/// The most that `body.limit` may be told.
const BODY_BYTES_MAX: usize = 1 << 30;

/// What is asked.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub url: Url,
    pub method: Method,
    pub headers: HeaderMap,
    pub body: Option<String>,
    /// How long an answer may take, from the first byte of the request to its last.
    pub timeout: Duration,
    /// The longest answer, in bytes.
    pub body_limit: usize,
}

/// What the records of a poll do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// They come; with a key they replace the rows of theirs.
    Append,
    /// They are all there is.
    Snapshot,
}

/// How to ask again and again.
#[derive(Clone, Debug)]
pub(super) struct Polls {
    /// From one beginning to the next; `None`: once.
    pub every: Option<Duration>,
    pub mode: Mode,
    /// Where the records are in a JSON answer.
    pub pointer: Option<Pointer>,
    pub paging: Option<Paging>,
}

/// How to listen to events.
#[derive(Clone, Debug)]
pub(super) struct Events {
    /// The types of event that are records; `None`: all.
    pub types: Option<Vec<String>>,
    /// How long the stream may be silent.
    pub silence: Duration,
}

/// How records come.
#[derive(Clone, Debug)]
pub(super) enum Stream {
    Polls(Polls),
    Events(Events),
}

/// What a source was told.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub request: Request,
    pub stream: Stream,
}

pub(super) fn invalid(message: impl Into<String>) -> Error {
    Error::new(SqlState::INVALID_PARAMETER_VALUE, message)
}

impl Settings {
    /// Understands a definition's options.
    ///
    /// # Errors
    /// 22023.
    pub(super) fn new(definition: &SourceDefinition) -> Result<Settings> {
        let format = definition.format.as_ref().map_or("json", |f| f.name.as_str()).to_ascii_lowercase();
        let mut options = Options::new("a HTTP source", definition.options.clone());
        let is_stream = match options.take("stream").as_deref() {
            None | Some("none") => false,
            Some("sse") => true,
            Some(other) => {
                return Err(invalid(format!(
                    "option \"stream\" of a HTTP source must be 'sse' or 'none', not \"{other}\""
                )));
            }
        };
        let request = Request::take(&mut options, &format, is_stream)?;
        let stream = match is_stream {
            true => Stream::Events(Events::take(&mut options)?),
            false => Stream::Polls(Polls::take(&mut options, &format)?),
        };
        options.finish()?;
        let settings = Settings { request, stream };
        settings.check()?;
        Ok(settings)
    }

    /// What single options do not tell.
    fn check(&self) -> Result<()> {
        match &self.stream {
            Stream::Events(_) if self.request.method != Method::GET || self.request.body.is_some() => {
                Err(invalid("a stream of events is asked for by GET, without a body"))
            }
            Stream::Polls(Polls { mode: Mode::Snapshot, paging: Some(paging), .. }) if paging.resumes() => {
                Err(invalid(
                    "mode = 'snapshot' reads all pages at each poll: it does not go with paging.resume",
                ))
            }
            _ => Ok(()),
        }
    }
}

impl Request {
    fn take(options: &mut Options, format: &str, is_stream: bool) -> Result<Request> {
        let text = options.require("url")?;
        let wrong = |why: &dyn std::fmt::Display| {
            invalid(format!(
                "option \"url\" of a HTTP source must be like https://api.example.com/orders, not \"{text}\": {why}"
            ))
        };
        let url = Url::parse(&text).map_err(|e| wrong(&e))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong(&"it is neither http nor https"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(invalid("option \"url\" of a HTTP source must not have a password in it").with_hint(
                "Use the options user and password, or bearer_token, which can be secrets: password = SECRET p.",
            ));
        }
        let body = options.take("body");
        let method = match options.take("method").map(|m| m.to_ascii_uppercase()).as_deref() {
            None if body.is_some() => Method::POST,
            None | Some("GET") => Method::GET,
            Some("POST") => Method::POST,
            Some("PUT") => Method::PUT,
            Some(other) => {
                return Err(invalid(format!(
                    "option \"method\" of a HTTP source must be GET, POST or PUT, not \"{other}\""
                )));
            }
        };
        if method == Method::GET && body.is_some() {
            return Err(invalid("a HTTP source sends its body by POST or PUT, not by GET"));
        }
        let timeout =
            options.take("timeout").map(|t| duration("timeout", &t)).transpose()?.unwrap_or(TIMEOUT);
        let body_limit = match options.parse("body.limit", "a number of bytes")? {
            None => BODY_BYTES,
            Some(n) if (1..=BODY_BYTES_MAX).contains(&n) => n,
            Some(n) => {
                return Err(invalid(format!(
                    "option \"body.limit\" of a HTTP source must be 1 to {BODY_BYTES_MAX} bytes, not {n}"
                )));
            }
        };
        let headers = headers(options, format, is_stream, body.is_some())?;
        Ok(Request { url, method, headers, body, timeout, body_limit })
    }
}

/// Options `headers.NAME`, `bearer_token`, `user` and `password`, above what goes without saying.
fn headers(options: &mut Options, format: &str, is_stream: bool, has_body: bool) -> Result<HeaderMap> {
    let value = |option: &str, text: &str| {
        let mut value = HeaderValue::from_str(text).map_err(|_| {
            invalid(format!("option \"{option}\" of a HTTP source cannot be a header's value"))
        })?;
        value.set_sensitive(true);
        Ok::<_, Error>(value)
    };
    let (accept, content) = match format {
        "json" => ("application/json", "application/json"),
        "xml" => ("text/xml, application/xml, application/soap+xml", "text/xml; charset=utf-8"),
        "csv" => ("text/csv, */*;q=0.5", "text/plain; charset=utf-8"),
        _ => ("*/*", "text/plain; charset=utf-8"),
    };
    let mut headers = HeaderMap::new();
    let accept = if is_stream { "text/event-stream" } else { accept };
    headers.insert(ACCEPT, HeaderValue::from_static(accept));
    if has_body {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content));
    }
    let (token, user, password) =
        (options.take("bearer_token"), options.take("user"), options.take("password"));
    match (token, user, password) {
        (None, None, None) => {}
        (Some(token), None, None) => {
            headers.insert(AUTHORIZATION, value("bearer_token", &format!("Bearer {token}"))?);
        }
        (None, Some(user), password) => {
            use base64::Engine;
            let both = format!("{user}:{}", password.unwrap_or_default());
            let both = base64::prelude::BASE64_STANDARD.encode(both);
            headers.insert(AUTHORIZATION, value("password", &format!("Basic {both}"))?);
        }
        _ => return Err(invalid("a HTTP source has a bearer_token, or a user and a password")),
    }
    for (name, text) in options.take_prefixed("headers.") {
        let header = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| invalid(format!("option \"headers.{name}\" of a HTTP source names no header")))?;
        headers.insert(header, value(&format!("headers.{name}"), &text)?);
    }
    Ok(headers)
}

impl Polls {
    fn take(options: &mut Options, format: &str) -> Result<Polls> {
        let every = match options.take("poll") {
            Some(text) if text.eq_ignore_ascii_case("once") => None,
            Some(text) => Some(duration("poll", &text)?.max(POLL_MIN)),
            None => Some(POLL),
        };
        let mode = match options.take("mode").as_deref() {
            None | Some("append") => Mode::Append,
            Some("snapshot") => Mode::Snapshot,
            Some(other) => {
                return Err(invalid(format!(
                    "option \"mode\" of a HTTP source must be 'append' or 'snapshot', not \"{other}\""
                )));
            }
        };
        let pointer = options.take("json_pointer").map(|text| Pointer::new(&text)).transpose()?;
        if pointer.is_some() && format != "json" {
            return Err(invalid("option \"json_pointer\" of a HTTP source needs FORMAT JSON")
                .with_hint("Where rows are in XML is said by FORMAT XML (rows = '/path/of/elements')."));
        }
        Ok(Polls { every, mode, pointer, paging: Paging::take(options, format)? })
    }
}

impl Events {
    fn take(options: &mut Options) -> Result<Events> {
        let types = options.take("events").map(|list| {
            list.split(',').map(|name| name.trim().to_string()).filter(|name| !name.is_empty()).collect()
        });
        let silence = options.take("idle_timeout").map(|t| duration("idle_timeout", &t)).transpose()?;
        Ok(Events { types, silence: silence.unwrap_or(SILENCE) })
    }
}
