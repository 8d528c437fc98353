//! Asking a server, and what its answers mean for the next question: later, never mind, or here it is.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use chrono::DateTime;
use reqwest::header::{
    ETAG, HeaderMap, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, RETRY_AFTER,
};
use reqwest::redirect::Policy;
use reqwest::{Method, StatusCode, Url};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::settings::Request;
use crate::connectors::StopFlag;
use crate::error::{Error, Result, SqlState};
use crate::world;

/// How often to look whether to stop.
const POLL: Duration = Duration::from_millis(50);
/// The pause after a first failure; it doubles with every failure in a row.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest pause of one's own accord.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// The longest that a server may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);
/// How many redirections are followed.
const REDIRECTS_MAX: usize = 10;
/// So much of an answer is shown in an error.
const SHOWN_CHARS: usize = 200;

/// Why there is no answer to work with.
#[derive(Debug)]
pub(super) struct Trouble {
    pub error: Error,
    /// How long the server wants to be left alone.
    pub retry_after: Option<Duration>,
}

impl Trouble {
    /// An answer that is not what it should be.
    pub(super) fn answer(url: &Url, why: impl std::fmt::Display) -> Trouble {
        let error = Error::new(SqlState::DATA_EXCEPTION, format!("the answer of {}: {why}", shown(url)));
        Trouble { error, retry_after: None }
    }
}

/// How long to wait after so many failures in a row.
pub(super) fn pause(failures: u32, retry_after: Option<Duration>) -> Duration {
    let own = PAUSE_MIN * 2u32.saturating_pow(failures.saturating_sub(1).min(10));
    let own = own.min(PAUSE_MAX).mul_f64(0.5 + world::jitter());
    own.max(retry_after.unwrap_or_default())
}

/// What tells whether an answer is still the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Validators {
    e_tag: Option<String>,
    last_modified: Option<String>,
}

impl Validators {
    fn of(headers: &HeaderMap) -> Validators {
        let text = |name| headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok()).map(str::to_string);
        Validators { e_tag: text(ETAG), last_modified: text(LAST_MODIFIED) }
    }
}

/// An answer with its whole body.
pub(super) struct Answer {
    pub headers: HeaderMap,
    pub validators: Validators,
    pub body: Bytes,
}

impl Answer {
    /// The headers as a JSON object: values of one name are joined by commas, bytes that are no text are replaced.
    pub(super) fn headers_json(&self) -> String {
        let mut object = Map::new();
        for name in self.headers.keys() {
            let values: Vec<_> =
                self.headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes())).collect();
            object.insert(name.as_str().to_string(), Value::String(values.join(", ")));
        }
        Value::Object(object).to_string()
    }
}

/// Asks one server.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    request: Request,
}

/// A url as it may be shown: its parameters may be secrets.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

/// Waits for a future; `None`: the source was told to stop before.
pub(super) async fn unless_stopped<T>(stop: &StopFlag, future: impl Future<Output = T>) -> Option<T> {
    tokio::pin!(future);
    loop {
        tokio::select! {
            biased;
            done = &mut future => return Some(done),
            () = world::pause(POLL) => {
                if stop.is_set() {
                    return None;
                }
            }
        }
    }
}

/// Waits, but not when told to stop.
pub(super) fn wait(stop: &StopFlag, pause: Duration) {
    let until = world::instant() + pause;
    while !stop.is_set() {
        let left = until.saturating_duration_since(world::instant());
        if left.is_zero() {
            return;
        }
        world::sleep(left.min(POLL));
    }
}

impl Client {
    /// For these requests; asks nothing.
    ///
    /// # Errors
    /// The client cannot be made.
    pub(super) fn new(request: &Request) -> Result<Client> {
        // What is asked with is meant for this server alone.
        let redirects = Policy::custom(|attempt| {
            let from = attempt.previous().first().map(Url::origin);
            if attempt.previous().len() > REDIRECTS_MAX {
                attempt.error("too many redirections")
            } else if from.is_some_and(|from| from != attempt.url().origin()) {
                attempt.error("a redirection to another server")
            } else {
                attempt.follow()
            }
        });
        let http = reqwest::Client::builder()
            .user_agent(concat!("Tidemill/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(request.timeout)
            .redirect(redirects)
            .build();
        let http =
            http.map_err(|e| Error::new(SqlState::IO_ERROR, format!("cannot start an HTTP client: {e}")))?;
        Ok(Client { http, request: request.clone() })
    }

    /// Where the questions go.
    pub(super) fn url(&self) -> &Url {
        &self.request.url
    }

    /// The longest answer, in bytes.
    pub(super) fn body_limit(&self) -> usize {
        self.request.body_limit
    }

    /// Whether an answer may be asked for only if it is another one.
    pub(super) fn is_conditional(&self) -> bool {
        self.request.method == Method::GET
    }

    /// Asks for a page; `None`: it is still what the validators were of.
    pub(super) async fn ask(
        &self,
        url: &Url,
        known: Option<&Validators>,
    ) -> std::result::Result<Option<Answer>, Trouble> {
        let mut headers = HeaderMap::new();
        if let Some(known) = known {
            let mut condition = |name, value: &Option<String>| {
                if let Some(value) = value.as_deref().and_then(|v| HeaderValue::from_str(v).ok()) {
                    headers.insert(name, value);
                }
            };
            condition(IF_NONE_MATCH, &known.e_tag);
            condition(IF_MODIFIED_SINCE, &known.last_modified);
        }
        let mut request = self.request(url, headers).timeout(self.request.timeout);
        if let Some(body) = &self.request.body {
            request = request.body(body.clone());
        }
        let response = request.send().await.map_err(|e| lost(url, e))?;
        if response.status() == StatusCode::NOT_MODIFIED && known.is_some() {
            return Ok(None);
        }
        let headers = response.headers().clone();
        let response = success(url, response, self.request.body_limit).await?;
        let body = read(url, response, self.request.body_limit).await?;
        Ok(Some(Answer { validators: Validators::of(&headers), headers, body }))
    }

    /// Asks for a stream, whose body is still to come.
    pub(super) async fn open(&self, headers: HeaderMap) -> std::result::Result<reqwest::Response, Trouble> {
        let url = &self.request.url;
        let answer = tokio::time::timeout(self.request.timeout, self.request(url, headers).send()).await;
        match answer {
            Ok(response) => success(url, response.map_err(|e| lost(url, e))?, self.request.body_limit).await,
            Err(_) => Err(unanswered(url, &format!("within {:?}", self.request.timeout))),
        }
    }

    fn request(&self, url: &Url, headers: HeaderMap) -> reqwest::RequestBuilder {
        let request = self.http.request(self.request.method.clone(), url.clone());
        request.headers(self.request.headers.clone()).headers(headers)
    }
}

fn unanswered(url: &Url, why: &str) -> Trouble {
    let message = format!("{} has not answered: {why}", shown(url));
    Trouble { error: Error::new(SqlState::CONNECTION_FAILURE, message), retry_after: None }
}

/// What went wrong on the way.
pub(super) fn lost(url: &Url, error: reqwest::Error) -> Trouble {
    let error = error.without_url();
    let mut why = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(inner) = source {
        why = format!("{why}: {inner}");
        source = inner.source();
    }
    unanswered(url, &why)
}

/// Refuses what is no answer to work with.
async fn success(
    url: &Url,
    response: reqwest::Response,
    limit: usize,
) -> std::result::Result<reqwest::Response, Trouble> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()).and_then(retry_after);
    let sqlstate = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => SqlState::INVALID_AUTHORIZATION,
        _ => SqlState::CONNECTION_FAILURE,
    };
    let mut error = Error::new(sqlstate, format!("{} has answered {status}", shown(url)));
    if let Ok(body) = read(url, response, limit).await {
        let text: String = String::from_utf8_lossy(&body).chars().take(SHOWN_CHARS).collect();
        if !text.trim().is_empty() {
            error = error.with_detail(text.trim().to_string());
        }
    }
    Err(Trouble { error, retry_after })
}

/// Seconds, or a moment.
fn retry_after(text: &str) -> Option<Duration> {
    let wait = match text.trim().parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let until = DateTime::parse_from_rfc2822(text.trim()).ok()?.timestamp_micros();
            Duration::from_micros(u64::try_from(until - world::now_micros()).unwrap_or(0))
        }
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

async fn read(
    url: &Url,
    mut response: reqwest::Response,
    limit: usize,
) -> std::result::Result<Bytes, Trouble> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| lost(url, e))? {
        if body.len() + chunk.len() > limit {
            return Err(Trouble::answer(
                url,
                format!("it has more than {limit} bytes (option \"body.limit\")"),
            ));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_say_when_to_come_again() {
        assert_eq!(retry_after("7"), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("100000"), Some(RETRY_AFTER_MAX));
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert_eq!(retry_after("soon"), None);
        assert!(pause(1, None) < PAUSE_MIN * 2);
        assert!(pause(40, None) <= PAUSE_MAX.mul_f64(1.5));
        assert_eq!(pause(1, Some(Duration::from_secs(70))), Duration::from_secs(70));
    }
}
