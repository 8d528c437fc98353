//! A session of the protocol that Snowflake's drivers speak.
//!
//! What decides here is what may be sent twice. A statement that is harmless when it runs twice is repeated
//! after a lost answer or an overloaded server, under the same request id. A statement of a transaction never
//! is: its session is given up instead, and the next one asks the warehouse what has happened.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::auth::{Credentials, Secret, clock_ahead, login_account};
use super::config::Config;
use super::wire::{Answer, LoginData, QueryData, Rows};
use crate::connectors::StopFlag;
use crate::connectors::warehouse::{Failure, Remedy, Step};
use crate::error::{Error, SqlState};
use crate::world;

/// The longest wait for one answer. The server itself answers `still running` after about 45 seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// How often a harmless request is sent again.
pub(super) const REPEATS: u32 = 6;
/// Pauses between questions whether a statement is done; the last one stays.
const POLL_MILLIS: [u64; 7] = [500, 500, 1_000, 1_500, 2_000, 4_000, 5_000];

const STILL_RUNNING: [&str; 2] = ["333333", "333334"];
const TOKEN_EXPIRED: &str = "390112";
/// The session, or what would renew it, is gone.
const SESSION_GONE: [&str; 4] = ["390111", "390114", "390103", "390104"];

/// Whether a statement does no harm when it runs twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// It may be sent again.
    Harmless,
    /// It is sent once; without an answer nothing is known.
    Never,
}

/// A logged-in session. Dropping it logs out.
pub struct Session {
    runtime: tokio::runtime::Runtime,
    http: reqwest::Client,
    base: String,
    token: Secret,
    master_token: Secret,
    sequence: u64,
    /// The QUERY_TAG of what is sent now.
    tag: String,
    /// What Snowflake calls the statements that ran under it.
    queries: Vec<String>,
    stop: StopFlag,
    /// By how many seconds Snowflake's clock was ahead of ours in the last answer, where that matters.
    clock_ahead: Option<i64>,
    /// How much of it tokens take into account.
    ahead: i64,
}

impl Session {
    /// Logs in. `tag` names the session's statements in Snowflake's history.
    pub fn open(config: &Config, tag: &str, stop: &StopFlag) -> Step<Session> {
        let (runtime, http) = http_client()?;
        let mut session = Session {
            runtime,
            http,
            base: config.base_url(),
            token: Secret::new(""),
            master_token: Secret::new(""),
            sequence: 0,
            tag: tag.to_string(),
            queries: Vec::new(),
            stop: stop.clone(),
            clock_ahead: None,
            ahead: 0,
        };
        session.log_in(config, tag)?;
        Ok(session)
    }

    fn log_in(&mut self, config: &Config, tag: &str) -> Step<()> {
        let mut query = Vec::new();
        for (name, value) in [
            ("databaseName", &config.database),
            ("schemaName", &config.schema),
            ("warehouse", &config.warehouse),
            ("roleName", &config.role),
        ] {
            if let Some(value) = value {
                query.push((name, value.clone()));
            }
        }
        let mut attempt = 0;
        loop {
            let body = login_body(config, tag, self.ahead)?;
            let sent =
                self.send::<LoginData>(Method::POST, "/session/v1/login-request", &query, None, Some(&body));
            let answer = match sent {
                Ok(answer) => answer,
                Err(_) if attempt < REPEATS && self.pause(attempt) => {
                    attempt += 1;
                    continue;
                }
                Err(lost) => return Err(lost.failure()),
            };
            let message = answer.message.unwrap_or_default();
            return match answer.data {
                Some(LoginData { token: Some(token), master_token }) if answer.success => {
                    self.token = Secret::new(token);
                    self.master_token = Secret::new(master_token.unwrap_or_default());
                    Ok(())
                }
                _ => {
                    let by_key = matches!(config.credentials, Credentials::KeyPair(_));
                    if let Some(ahead) = self.clock_ahead.filter(|_| by_key && attempt < REPEATS) {
                        // A token of another time is refused whatever else is right.
                        tracing::warn!(
                            seconds = ahead,
                            "Snowflake's clock is ahead of this machine's by so much"
                        );
                        self.ahead = ahead;
                        attempt += 1;
                        continue;
                    }
                    let code = answer.code.unwrap_or_default();
                    Err(Failure {
                        error: Error::new(
                            SqlState::INVALID_AUTHORIZATION,
                            format!("Snowflake refused the login of {}: {message}", config.user),
                        )
                        .with_detail(format!("Code {code}.")),
                        remedy: Remedy::Nothing,
                    })
                }
            };
        }
    }

    /// Tags what comes from now on. Answers with Snowflake's ids of the statements that have run since the last time.
    pub fn begin(&mut self, tag: &str) -> Vec<String> {
        self.tag = tag.to_string();
        std::mem::take(&mut self.queries)
    }

    /// Runs a statement and gives its rows, all of them.
    pub fn query(&mut self, sql: &str, repeat: Repeat) -> Step<Rows> {
        let mut data = self.execute(sql, repeat)?;
        let mut rows = Rows::new(&data.rowtype);
        rows.extend(&mut data)?;
        for chunk in &data.chunks {
            let bytes = self.fetch_chunk(&chunk.url, &data.chunk_headers)?;
            // An Arrow stream begins with a continuation mark; JSON chunks are rows without their brackets.
            if bytes.starts_with(&[0xff; 4]) {
                rows.extend_arrow(&data.rowtype, &bytes)?;
            } else {
                let text = [b"[", bytes.as_slice(), b"]"].concat();
                rows.extend_json(serde_json::from_slice(&text).map_err(|e| {
                    Error::new(SqlState::PROTOCOL_VIOLATION, format!("Snowflake's rows are no JSON: {e}"))
                })?);
            }
        }
        Ok(rows)
    }

    /// Runs a statement and gives its answer as it came.
    pub fn execute(&mut self, sql: &str, repeat: Repeat) -> Step<QueryData> {
        self.sequence += 1;
        let request = world::uuid().to_string();
        let body = json!({
            "sqlText": sql,
            "asyncExec": false,
            "sequenceId": self.sequence,
            "isInternal": false,
            "describeOnly": false,
            "parameters": { "QUERY_TAG": self.tag },
        });
        let mut lost_answers = 0;
        let mut renewed = false;
        let mut answer = loop {
            let mut query = vec![("requestId", request.clone())];
            if lost_answers > 0 {
                query.push(("retryCount", lost_answers.to_string()));
            }
            let token = self.token.clone();
            match self.send::<QueryData>(
                Method::POST,
                "/queries/v1/query-request",
                &query,
                Some(&token),
                Some(&body),
            ) {
                // Refused before it could run.
                Ok(answer) if answer.code.as_deref() == Some(TOKEN_EXPIRED) && !renewed => {
                    self.renew()?;
                    renewed = true;
                }
                Ok(answer) => break answer,
                Err(_)
                    if repeat == Repeat::Harmless && lost_answers < REPEATS && self.pause(lost_answers) =>
                {
                    lost_answers += 1;
                }
                Err(lost) => return Err(lost.failure()),
            }
        };
        let mut polls = 0;
        while answer.code.as_deref().is_some_and(|c| STILL_RUNNING.contains(&c)) {
            let url = answer.data.as_ref().and_then(|d| d.get_result_url.clone()).ok_or_else(|| {
                Error::new(SqlState::PROTOCOL_VIOLATION, "Snowflake does not say where the result will be")
            })?;
            answer = self.poll(&url, &request, polls)?;
            polls += 1;
        }
        if !answer.success {
            return Err(statement_failure(sql, answer));
        }
        let data = answer.data.unwrap_or_default();
        self.queries.extend(data.query_id.clone());
        Ok(data)
    }

    /// Asks once more for the result of a statement that runs. Asking is harmless.
    fn poll(&mut self, url: &str, request: &str, polls: usize) -> Step<Answer<QueryData>> {
        let mut lost_answers = 0;
        loop {
            let millis = POLL_MILLIS.get(polls).or(POLL_MILLIS.last()).copied().unwrap_or(5_000);
            if !wait(&self.stop, Duration::from_millis(millis)) {
                self.cancel(request);
                return Err(Failure::retry(Error::new(SqlState::QUERY_CANCELED, "the sink is stopping")));
            }
            let token = self.token.clone();
            match self.send::<QueryData>(Method::GET, url, &[], Some(&token), None) {
                Ok(answer) if answer.code.as_deref() == Some(TOKEN_EXPIRED) && lost_answers < REPEATS => {
                    lost_answers += 1;
                    self.renew()?;
                }
                Ok(answer) => return Ok(answer),
                Err(_) if lost_answers < REPEATS => lost_answers += 1,
                Err(lost) => return Err(lost.failure()),
            }
        }
    }

    /// Stops a statement, if it still runs. Best effort.
    fn cancel(&mut self, request: &str) {
        let body = json!({ "requestId": request });
        let query = [("requestId", world::uuid().to_string())];
        let token = self.token.clone();
        if let Err(lost) =
            self.send::<Value>(Method::POST, "/queries/v1/abort-request", &query, Some(&token), Some(&body))
        {
            tracing::debug!(error = %lost.what, "a statement could not be cancelled");
        }
    }

    /// Gets a new token for this session.
    fn renew(&mut self) -> Step<()> {
        let body = json!({ "oldSessionToken": self.token.reveal(), "requestType": "RENEW" });
        let query = [("requestId", world::uuid().to_string())];
        let master = self.master_token.clone();
        let answer = self
            .send::<LoginData>(Method::POST, "/session/token-request", &query, Some(&master), Some(&body))
            .map_err(Lost::failure)?;
        match answer.data {
            Some(LoginData { token: Some(token), master_token }) if answer.success => {
                self.token = Secret::new(token);
                if let Some(master_token) = master_token {
                    self.master_token = Secret::new(master_token);
                }
                Ok(())
            }
            _ => Err(Failure::retry(Error::new(
                SqlState::CONNECTION_FAILURE,
                format!("Snowflake did not renew the session: {}", answer.message.unwrap_or_default()),
            ))),
        }
    }

    /// Tells Snowflake that the session is still wanted. A failure shows at the next statement.
    pub fn heartbeat(&mut self) {
        let query = [("requestId", world::uuid().to_string())];
        let token = self.token.clone();
        let body = json!({});
        let beat = self.send::<Value>(Method::POST, "/session/heartbeat", &query, Some(&token), Some(&body));
        match beat {
            Ok(answer) if answer.code.as_deref() == Some(TOKEN_EXPIRED) => {
                if let Err(failure) = self.renew() {
                    tracing::debug!(error = %failure.error, "the session was not renewed");
                }
            }
            Ok(_) => {}
            Err(lost) => tracing::debug!(error = %lost.what, "heartbeat failed"),
        }
    }

    /// Puts bytes at a url that a stage gave. Answers with the status; the body only on failure.
    pub(super) fn put(
        &self,
        url: &str,
        headers: &[(&str, String)],
        bytes: bytes::Bytes,
    ) -> std::result::Result<(StatusCode, String), Error> {
        let mut request = self.http.put(url).body(bytes);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        self.runtime.block_on(async {
            // The url holds a signature: it stays out of errors.
            let response = request.send().await.map_err(|e| transport_error(&e.without_url()))?;
            let status = response.status();
            let body =
                if status.is_success() { String::new() } else { response.text().await.unwrap_or_default() };
            Ok((status, body.chars().take(300).collect()))
        })
    }

    /// Runs a future to its end, for stages that have clients of their own.
    pub(super) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// Whether the connection itself was allowed to go without TLS.
    pub(super) fn plain_http(&self) -> bool {
        self.base.starts_with("http://")
    }

    fn fetch_chunk(&self, url: &str, headers: &std::collections::HashMap<String, String>) -> Step<Vec<u8>> {
        let mut attempt = 0;
        loop {
            let mut request = self.http.get(url);
            for (name, value) in headers {
                request = request.header(name, value);
            }
            let fetched = self.runtime.block_on(async {
                let response = request.send().await?.error_for_status()?;
                response.bytes().await
            });
            match fetched {
                Ok(bytes) => return Ok(bytes.to_vec()),
                Err(_) if attempt < REPEATS && self.pause(attempt) => attempt += 1,
                Err(e) => return Err(Failure::retry(transport_error(&e.without_url()))),
            }
        }
    }

    /// One request, one answer; what lost it otherwise. Nothing is repeated here.
    fn send<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        token: Option<&Secret>,
        body: Option<&Value>,
    ) -> std::result::Result<Answer<T>, Lost> {
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.base))
            .query(query)
            .query(&[("request_guid", world::uuid().to_string())])
            .header("Accept", "application/snowflake");
        if let Some(token) = token {
            request = request.header("Authorization", format!("Snowflake Token=\"{}\"", token.reveal()));
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let (status, ahead, bytes) = self
            .runtime
            .block_on(async {
                let response = request.send().await?;
                let ahead = clock_ahead(response.headers(), self.ahead);
                Ok((response.status(), ahead, response.bytes().await?))
            })
            .map_err(|e: reqwest::Error| Lost { what: transport_error(&e.without_url()) })?;
        self.clock_ahead = ahead;
        match serde_json::from_slice::<Answer<T>>(&bytes) {
            Ok(answer) if status.is_success() => Ok(answer),
            // The service itself says what failed; whatever stands before it does not speak like this.
            Ok(answer) if answer.code.is_some() => Ok(answer),
            Err(e) if status.is_success() => Err(Lost {
                what: Error::new(
                    SqlState::PROTOCOL_VIOLATION,
                    format!("Snowflake's answer is not understood: {e}"),
                ),
            }),
            _ => Err(Lost {
                what: Error::new(SqlState::CONNECTION_FAILURE, format!("Snowflake answered HTTP {status}")),
            }),
        }
    }

    /// Waits before the next attempt, longer each time; `false`: the sink was told to stop.
    fn pause(&self, attempt: u32) -> bool {
        wait(&self.stop, pause(attempt))
    }
}

/// How long to wait before the next attempt, longer each time.
pub(super) fn pause(attempt: u32) -> Duration {
    let base = Duration::from_millis(250) * 2_u32.pow(attempt.min(6));
    base.mul_f64(0.5 + world::jitter()).min(Duration::from_secs(16))
}

/// Waits; `false`: the sink was told to stop.
pub(super) fn wait(stop: &StopFlag, time: Duration) -> bool {
    let until = world::instant() + time;
    while let Some(left) = until.checked_duration_since(world::instant()).filter(|d| !d.is_zero()) {
        if stop.is_set() {
            return false;
        }
        world::sleep(left.min(Duration::from_millis(100)));
    }
    !stop.is_set()
}

/// What requests are sent with, and what runs them.
///
/// # Errors
/// The operating system's.
pub(super) fn http_client() -> Step<(tokio::runtime::Runtime, reqwest::Client)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::new(SqlState::IO_ERROR, format!("cannot start a runtime: {e}")))?;
    let http = reqwest::Client::builder()
        .user_agent(concat!("Tidemill/", env!("CARGO_PKG_VERSION")))
        .timeout(ANSWER_TIMEOUT)
        .connect_timeout(Duration::from_secs(15))
        .build()
        .map_err(|e| Error::new(SqlState::IO_ERROR, format!("cannot start an HTTP client: {e}")))?;
    Ok((runtime, http))
}

impl Drop for Session {
    /// Ends the session, and with it a transaction that is still open.
    fn drop(&mut self) {
        let request = self
            .http
            .post(format!("{}/session?delete=true", self.base))
            .timeout(Duration::from_secs(5))
            .header("Accept", "application/snowflake")
            .header("Authorization", format!("Snowflake Token=\"{}\"", self.token.reveal()))
            .json(&json!({}));
        if !self.token.reveal().is_empty()
            && let Err(error) = self.runtime.block_on(async { request.send().await })
        {
            tracing::debug!(error = %error.without_url(), "logging out failed");
        }
    }
}

/// An answer that did not come, or not as one.
struct Lost {
    what: Error,
}

impl Lost {
    fn failure(self) -> Failure {
        Failure::retry(self.what)
    }
}

fn login_body(config: &Config, tag: &str, ahead: i64) -> Step<Value> {
    let mut data = json!({
        // The server chooses the protocol's details by the driver that asks; ours are those of the Go driver.
        "CLIENT_APP_ID": "Go",
        "CLIENT_APP_VERSION": "1.18.0",
        "ACCOUNT_NAME": login_account(&config.account),
        "LOGIN_NAME": config.user,
        "SESSION_PARAMETERS": {
            "AUTOCOMMIT": true,
            "TRANSACTION_ABORT_ON_ERROR": true,
            "ERROR_ON_NONDETERMINISTIC_MERGE": true,
            "LOCK_TIMEOUT": 120,
            "STATEMENT_TIMEOUT_IN_SECONDS": 3600,
            "CLIENT_SESSION_KEEP_ALIVE": true,
            "TIMEZONE": "UTC",
            "QUERY_TAG": tag,
        },
        "CLIENT_ENVIRONMENT": { "APPLICATION": "Tidemill", "OS": std::env::consts::OS },
    });
    match &config.credentials {
        Credentials::Password(password) => data["PASSWORD"] = json!(password.reveal()),
        Credentials::KeyPair(key) => {
            data["AUTHENTICATOR"] = json!("SNOWFLAKE_JWT");
            data["TOKEN"] = json!(key.token(&config.account, &config.user, ahead)?.reveal());
        }
    }
    Ok(json!({ "data": data }))
}

/// Why a request was not answered.
pub(super) fn transport_error(e: &reqwest::Error) -> Error {
    let mut text = e.to_string();
    let mut cause = std::error::Error::source(e);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    Error::new(SqlState::CONNECTION_FAILURE, format!("no answer from Snowflake: {text}"))
}

/// Why a statement failed, and whether trying again can help.
fn statement_failure(sql: &str, answer: Answer<QueryData>) -> Failure {
    let code = answer.code.unwrap_or_default();
    let data = answer.data.unwrap_or_default();
    let state = data.sql_state.unwrap_or_default();
    let message = answer.message.unwrap_or_default();
    let head: String = sql.chars().take(200).collect();
    let error = Error::new(sqlstate(&state), format!("Snowflake: {}", message.trim()))
        .with_detail(format!("Code {code}, query {}, in: {head}", data.query_id.unwrap_or_default()));
    Failure { error, remedy: remedy(&code, &state) }
}

/// Locks, timeouts, lost sessions and an exhausted service pass; wrong statements, data and rights do not.
fn remedy(code: &str, state: &str) -> Remedy {
    /// Cancelled, transaction gone, too many waiting for a lock, timed out, too many requests.
    const PASSING: [&str; 7] = ["000604", "000605", "000625", "000629", "000630", "000610", "390505"];
    if PASSING.contains(&code) || SESSION_GONE.contains(&code) {
        return Remedy::Retry;
    }
    match state.get(..2) {
        Some("02" | "0A" | "22" | "23" | "28" | "42") => Remedy::Nothing,
        _ => Remedy::Retry,
    }
}

/// Snowflake's SQLSTATEs that PostgreSQL has too; anything else is an error of a foreign system.
fn sqlstate(state: &str) -> SqlState {
    match state {
        "42S02" => SqlState::UNDEFINED_TABLE,
        "42501" => SqlState("42501"),
        "42601" | "42000" => SqlState::SYNTAX_ERROR,
        "57014" => SqlState::QUERY_CANCELED,
        s if s.starts_with("22") => SqlState::DATA_EXCEPTION,
        s if s.starts_with("28") => SqlState::INVALID_AUTHORIZATION,
        s if s.starts_with("40") => SqlState::SERIALIZATION_FAILURE,
        s if s.starts_with("08") => SqlState::CONNECTION_FAILURE,
        _ => SqlState("HV000"),
    }
}
