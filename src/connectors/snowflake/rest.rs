//! Snowflake's REST services: requests that say who we are by a bearer token.
//!
//! What may be sent twice is decided as in [`super::client`]: a request that is harmless twice is repeated after a lost
//! answer, any other only when it was certainly refused (429), or when its token was.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;

use super::auth::{Credentials, PrivateKey, Secret, clock_ahead};
use super::client::{REPEATS, Repeat, http_client, pause, transport_error, wait};
use super::config::Config;
use crate::connectors::StopFlag;
use crate::connectors::warehouse::{Failure, Remedy, Step};
use crate::error::{Error, Result, SqlState};
use crate::world;

/// The longest wait that a server may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// So much of an answer stands in an error.
const SHOWN_CHARS: usize = 300;

/// One request. It goes out under one id, however often it is sent.
#[derive(Clone, Debug)]
pub struct Request {
    /// GET, PUT and so on.
    pub method: Method,
    /// Scheme, host and path.
    pub url: reqwest::Url,
    /// What stands behind the question mark, besides the request's id.
    pub query: Vec<(&'static str, String)>,
    /// What kind of body, and the body.
    pub body: Option<(&'static str, Bytes)>,
    /// Whether the body is compressed with zstd.
    pub compressed: bool,
    /// Whether it may be sent again when its answer is lost.
    pub repeat: Repeat,
    /// What it carries; `None`: a token signed with the user's key.
    pub token: Option<Secret>,
}

impl Request {
    /// A harmless request without a body, with a token signed with the user's key.
    pub fn new(method: Method, url: reqwest::Url) -> Self {
        let (query, body) = (Vec::new(), None);
        Request { method, url, query, body, compressed: false, repeat: Repeat::Harmless, token: None }
    }
}

/// An answer: its status and what it says.
#[derive(Debug)]
pub struct Reply {
    /// 200 and so on; never 429, which was waited out.
    pub status: StatusCode,
    /// JSON, mostly.
    pub body: Bytes,
}

/// A client of the services of one account, as one user.
pub struct Rest {
    runtime: tokio::runtime::Runtime,
    http: reqwest::Client,
    base: reqwest::Url,
    account: String,
    user: String,
    key: PrivateKey,
    /// By how many seconds Snowflake's clock is ahead of ours, as far as tokens take it into account.
    ahead: i64,
    stop: StopFlag,
}

/// Refuses connections whose user cannot sign tokens.
///
/// # Errors
/// 22023.
pub fn check_key(config: &Config) -> Result<()> {
    match config.credentials {
        Credentials::KeyPair(_) => Ok(()),
        Credentials::Password(_) => Err(Error::new(
            SqlState::INVALID_PARAMETER_VALUE,
            "Snowpipe knows users by their key alone, and the connection has a password",
        )
        .with_hint("Give the connection a private_key, whose public half is the user's RSA_PUBLIC_KEY.")),
    }
}

impl Rest {
    /// Nothing is sent yet.
    ///
    /// # Errors
    /// 22023 for a connection without a key.
    pub fn new(config: &Config, stop: &StopFlag) -> Step<Rest> {
        check_key(config)?;
        let Credentials::KeyPair(key) = &config.credentials else {
            return Err(Error::internal("a connection without a key").into());
        };
        let (runtime, http) = http_client()?;
        Ok(Rest {
            runtime,
            http,
            base: parse(&config.base_url())?,
            account: config.account.clone(),
            user: config.user.clone(),
            key: (**key).clone(),
            ahead: 0,
            stop: stop.clone(),
        })
    }

    /// The url of a path of the account's own host.
    pub fn url<'s>(&self, path: impl IntoIterator<Item = &'s str>) -> reqwest::Url {
        with_path(&self.base, path)
    }

    /// The url that a host name stands for: the account's scheme and the host.
    ///
    /// # Errors
    /// 08P01 for what is no host name.
    pub fn host(&self, name: &str) -> Step<reqwest::Url> {
        parse(&format!("{}://{name}", self.base.scheme()))
    }

    /// Whether the sink was told to stop.
    pub fn stopped(&self) -> bool {
        self.stop.is_set()
    }

    /// Waits; `false`: the sink was told to stop.
    pub fn wait(&self, time: Duration) -> bool {
        wait(&self.stop, time)
    }

    /// Sends a request until it is answered. Which statuses are failures is for the caller to say.
    pub fn send(&mut self, request: &Request) -> Step<Reply> {
        let id = world::uuid().to_string();
        let mut attempt = 0;
        loop {
            let token = match &request.token {
                Some(token) => token.clone(),
                None => self.key.token(&self.account, &self.user, self.ahead)?,
            };
            let mut sent = self
                .http
                .request(request.method.clone(), request.url.clone())
                .query(&request.query)
                .query(&[("requestId", &id)])
                .header(AUTHORIZATION, format!("Bearer {}", token.reveal()))
                .header("Accept", "application/json");
            if request.token.is_none() {
                sent = sent.header("X-Snowflake-Authorization-Token-Type", "KEYPAIR_JWT");
            }
            if let Some((kind, body)) = &request.body {
                sent = sent.header(CONTENT_TYPE, *kind).body(body.clone());
            }
            if request.compressed {
                sent = sent.header(CONTENT_ENCODING, "zstd");
            }
            let answer = self.runtime.block_on(async {
                let response = sent.send().await?;
                let (status, headers) = (response.status(), response.headers().clone());
                Ok((status, headers, response.bytes().await?))
            });
            let (lost, delay) = match answer {
                Ok((StatusCode::UNAUTHORIZED, headers, body)) => {
                    let own = request.token.is_none() && attempt < REPEATS;
                    let ahead = clock_ahead(&headers, self.ahead).filter(|_| own);
                    let Some(ahead) = ahead else {
                        return Ok(Reply { status: StatusCode::UNAUTHORIZED, body });
                    };
                    tracing::warn!(
                        seconds = ahead,
                        "Snowflake's clock is ahead of this machine's by so much"
                    );
                    self.ahead = ahead;
                    attempt += 1;
                    continue;
                }
                Ok((status @ StatusCode::TOO_MANY_REQUESTS, headers, _)) => {
                    let asked = headers.get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.trim().parse().ok());
                    let asked = asked.map(|s| Duration::from_secs(s).min(RETRY_AFTER_MAX));
                    (answered(status), Some(asked.unwrap_or_default().max(pause(attempt))))
                }
                Ok((status, _, _)) if passes(status) => (answered(status), None),
                Ok((status, _, body)) => return Ok(Reply { status, body }),
                Err(e) => {
                    let e: reqwest::Error = e;
                    (transport_error(&e.without_url()), None)
                }
            };
            // What was refused for there being too many has not happened.
            let again = delay.is_some() || request.repeat == Repeat::Harmless;
            let waited = again && attempt < REPEATS && self.wait(delay.unwrap_or_else(|| pause(attempt)));
            if !waited {
                return Err(Failure::retry(lost));
            }
            attempt += 1;
        }
    }
}

fn answered(status: StatusCode) -> Error {
    Error::new(SqlState::CONNECTION_FAILURE, format!("Snowflake answered HTTP {status}"))
}

fn passes(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT
}

fn parse(url: &str) -> Step<reqwest::Url> {
    Ok(reqwest::Url::parse(url).map_err(|e| {
        Error::new(SqlState::PROTOCOL_VIOLATION, format!("\"{url}\" is no address of Snowflake's: {e}"))
    })?)
}

/// A url with another path, whose parts are escaped as they must be.
pub fn with_path<'s>(base: &reqwest::Url, path: impl IntoIterator<Item = &'s str>) -> reqwest::Url {
    let mut url = base.clone();
    // Urls with a host have a path, and those of `parse` have a host.
    if let Ok(mut parts) = url.path_segments_mut() {
        parts.clear().extend(path);
    }
    url
}

impl Reply {
    /// What the answer holds.
    ///
    /// # Errors
    /// 08P01, to be tried again, when it is something else.
    pub fn read<T: DeserializeOwned>(&self, what: &str) -> Step<T> {
        serde_json::from_slice(&self.body).map_err(|e| {
            let text = format!("Snowflake's answer to {what} is not understood: {e}");
            Failure::retry(Error::new(SqlState::PROTOCOL_VIOLATION, text))
        })
    }

    /// The code by which the service names the failure; empty: none.
    pub fn code(&self) -> String {
        let member = |name: &str| {
            let body: serde_json::Value = serde_json::from_slice(&self.body).ok()?;
            match body.get(name)? {
                serde_json::Value::String(text) => Some(text.clone()),
                serde_json::Value::Number(number) => Some(number.to_string()),
                _ => None,
            }
        };
        member("code").or_else(|| member("status_code")).unwrap_or_default()
    }

    /// Why a request was not done. Rights and names do not mend themselves.
    pub fn failure(&self, what: &str) -> Failure {
        let sqlstate = match self.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => SqlState::INVALID_AUTHORIZATION,
            StatusCode::NOT_FOUND => SqlState::UNDEFINED_OBJECT,
            _ => SqlState("HV000"),
        };
        let shown: String = String::from_utf8_lossy(&self.body).trim().chars().take(SHOWN_CHARS).collect();
        let message = format!("Snowflake refused {what}: HTTP {}", self.status);
        let error = Error::new(sqlstate, message);
        let error = if shown.is_empty() { error } else { error.with_detail(shown) };
        let error = match self.status {
            StatusCode::UNAUTHORIZED => error.with_hint(
                "The public half of private_key must be the user's RSA_PUBLIC_KEY, account and user must be right.",
            ),
            StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => error.with_hint(
                "Names must be right, and the user's default role must have the rights: services do not take another role.",
            ),
            _ => error,
        };
        Failure { error, remedy: Remedy::Nothing }
    }
}
