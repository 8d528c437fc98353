//! A named channel of Snowpipe Streaming's REST service: opened by one writer at a time, it takes rows in order and
//! remembers the offset token of the last ones that it has committed.
//!
//! Opening it shuts out whoever had it open, and discards what it had taken and not committed. So whatever is not known
//! after a lost answer is known again after opening: it was committed, or it never will be.

use std::collections::HashMap;

use bytes::Bytes;
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::connectors::StopFlag;
use crate::connectors::snowflake::appending::Place;
use crate::connectors::snowflake::auth::Secret;
use crate::connectors::snowflake::client::Repeat;
use crate::connectors::snowflake::config::Config;
use crate::connectors::snowflake::rest::{Reply, Request, Rest, with_path};
use crate::connectors::warehouse::{Failure, Remedy, Step};
use crate::error::{Error, SqlState};

/// Another writer has opened the channel since.
const TAKEN_OVER: &str = "ERR_CHANNEL_HAS_INVALID_CLIENT_SEQUENCER";
/// What a channel says of itself when it works.
const WORKING: [&str; 2] = ["SUCCESS", "ACTIVE"];
/// Beginnings of codes of a channel that works again once it is opened again.
const REOPEN: [&str; 3] = ["ERR_CHANNEL_", "STALE_", "ERR_ROW_SEQ"];

/// A table's own pipe, which is there without being made.
fn pipe(place: &Place) -> String {
    format!("{}-STREAMING", place.table)
}

fn path<'a>(place: &'a Place, head: &[&'a str], tail: &[&'a str]) -> Vec<&'a str> {
    let middle = ["databases", &place.database, "schemas", &place.schema, "pipes"];
    [&["v2", "streaming"], head, &middle, tail].concat()
}

/// What a channel says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// `SUCCESS`, or what is wrong.
    pub code: String,
    /// The offset token of the last rows that are in the table; `None`: there are none.
    pub committed: Option<String>,
    /// Rows that were refused so far.
    pub refused: u64,
    /// The offset token that the last refused rows had, or one after it.
    pub refused_at: Option<String>,
    /// Why they were refused.
    pub reason: Option<String>,
}

/// A state as it is answered. Two names are documented for the number of refused rows.
#[derive(Deserialize)]
struct Told {
    #[serde(default)]
    channel_status_code: String,
    last_committed_offset_token: Option<String>,
    #[serde(alias = "rows_errors", default)]
    rows_error_count: Value,
    last_error_offset_upper_bound: Option<String>,
    last_error_message: Option<String>,
}

impl From<Told> for State {
    fn from(told: Told) -> State {
        let refused = match &told.rows_error_count {
            Value::String(text) => text.parse().unwrap_or(0),
            other => other.as_u64().unwrap_or(0),
        };
        let said = |text: Option<String>| text.filter(|t| !t.is_empty());
        State {
            code: told.channel_status_code,
            committed: said(told.last_committed_offset_token),
            refused,
            refused_at: said(told.last_error_offset_upper_bound),
            reason: said(told.last_error_message),
        }
    }
}

#[derive(Deserialize)]
struct Opened {
    next_continuation_token: String,
    channel_status: Told,
}

#[derive(Deserialize)]
struct Appended {
    next_continuation_token: String,
}

#[derive(Deserialize)]
struct Channels {
    channel_statuses: HashMap<String, Told>,
}

/// An open channel.
pub struct Channel {
    rest: Rest,
    place: Place,
    name: String,
    host: Url,
    token: Secret,
    /// Goes with the next rows.
    continuation: String,
}

impl Channel {
    /// Opens the channel of this name, shutting out every other writer.
    pub fn open(config: &Config, place: &Place, name: &str, stop: &StopFlag) -> Step<(Channel, State)> {
        let mut channel = Channel::connect(config, place, name, stop)?;
        let (what, body) = ("opening a channel", json!({}));
        let url = channel.url(&[], &["channels", name]);
        let reply = channel.send(what, Method::PUT, url, Some(&body))?;
        let Opened { next_continuation_token, channel_status } = reply.read(what)?;
        channel.continuation = next_continuation_token;
        Ok((channel, channel_status.into()))
    }

    /// Removes the channel of this name and what it remembers, if it is there.
    pub fn remove(config: &Config, place: &Place, name: &str) -> Step<()> {
        let mut channel = Channel::connect(config, place, name, &StopFlag::default())?;
        let url = channel.url(&[], &["channels", name]);
        let mut request = |token: &Secret| Request {
            token: Some(token.clone()),
            ..Request::new(Method::DELETE, url.clone())
        };
        let reply = channel.ask(&mut request)?;
        match reply.status {
            status if status.is_success() || status == StatusCode::NOT_FOUND => Ok(()),
            _ => Err(reply.failure("dropping a channel")),
        }
    }

    /// Finds the service and gets a token for it.
    fn connect(config: &Config, place: &Place, name: &str, stop: &StopFlag) -> Step<Channel> {
        let mut rest = Rest::new(config, stop)?;
        let what = "the question where rows are taken";
        let reply = rest.send(&Request::new(Method::GET, rest.url(["v2", "streaming", "hostname"])))?;
        if !reply.status.is_success() {
            return Err(reply.failure(what));
        }
        // JSON by one page of the documentation, the bare name by another.
        let text = String::from_utf8_lossy(&reply.body).trim().to_string();
        let told: Option<Value> = serde_json::from_str(&text).ok();
        let host = match &told {
            Some(Value::Object(told)) => told.get("hostname").and_then(Value::as_str).unwrap_or_default(),
            Some(Value::String(host)) => host,
            _ => &text,
        };
        // An account's underscore is no character of a host name.
        let host = rest.host(&host.replace('_', "-"))?;
        let (place, name) = (place.clone(), name.to_string());
        let (token, continuation) = (Secret::new(""), String::new());
        let mut channel = Channel { rest, place, name, host, token, continuation };
        channel.authorize()?;
        Ok(channel)
    }

    fn authorize(&mut self) -> Step<()> {
        let authority = self.host.authority().replace(':', "%3A");
        let body =
            format!("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&scope={authority}");
        let mut request = Request::new(Method::POST, self.rest.url(["oauth", "token"]));
        request.body = Some(("application/x-www-form-urlencoded", Bytes::from(body)));
        let reply = self.rest.send(&request)?;
        if !reply.status.is_success() {
            return Err(reply.failure("a token for Snowpipe Streaming"));
        }
        let text = String::from_utf8_lossy(&reply.body).trim().to_string();
        let told: Option<Value> = serde_json::from_str(&text).ok();
        let token = match &told {
            Some(Value::Object(told)) => {
                let token = told.get("token").or_else(|| told.get("access_token"));
                token.and_then(Value::as_str).unwrap_or_default()
            }
            Some(Value::String(token)) => token,
            _ => &text,
        };
        self.token = Secret::new(token);
        Ok(())
    }

    fn url(&self, head: &[&str], tail: &[&str]) -> Url {
        let pipe = pipe(&self.place);
        with_path(&self.host, path(&self.place, head, &[&[pipe.as_str()], tail].concat()))
    }

    /// Sends a request; once more with a new token when the old one has expired.
    fn ask(&mut self, request: &mut dyn FnMut(&Secret) -> Request) -> Step<Reply> {
        let token = self.token.clone();
        let reply = self.rest.send(&request(&token))?;
        if reply.status != StatusCode::UNAUTHORIZED {
            return Ok(reply);
        }
        self.authorize()?;
        let token = self.token.clone();
        self.rest.send(&request(&token))
    }

    /// A request that is harmless twice.
    fn send(&mut self, what: &str, method: Method, url: Url, body: Option<&Value>) -> Step<Reply> {
        let body = body.map(|body| ("application/json", Bytes::from(body.to_string())));
        let reply = self.ask(&mut |token| Request {
            body: body.clone(),
            token: Some(token.clone()),
            ..Request::new(method.clone(), url.clone())
        })?;
        if reply.status.is_success() { Ok(reply) } else { Err(failure(&reply, what)) }
    }

    /// Hands rows over, whose last one has this offset token. They are in the table once the channel says so.
    pub fn append(&mut self, token: &str, body: &Bytes) -> Step<()> {
        let what = "rows";
        let url = self.url(&["data"], &["channels", &self.name, "rows"]);
        let query = [
            ("continuationToken", self.continuation.clone()),
            ("startOffsetToken", token.to_string()),
            ("endOffsetToken", token.to_string()),
        ];
        let reply = self.ask(&mut |token| Request {
            query: query.to_vec(),
            body: Some(("application/x-ndjson", body.clone())),
            compressed: true,
            // Whether rows were taken whose answer is lost, only opening the channel again tells.
            repeat: Repeat::Never,
            token: Some(token.clone()),
            ..Request::new(Method::POST, url.clone())
        })?;
        if !reply.status.is_success() {
            return Err(failure(&reply, what));
        }
        let Appended { next_continuation_token } = reply.read(what)?;
        self.continuation = next_continuation_token;
        Ok(())
    }

    /// Asks how far the channel is.
    pub fn state(&mut self) -> Step<State> {
        let what = "the state of a channel";
        let pipe = format!("{}:bulk-channel-status", pipe(&self.place));
        let url = with_path(&self.host, path(&self.place, &[], &[&pipe]));
        let body = json!({ "channel_names": [&self.name] });
        let reply = self.send(what, Method::POST, url, Some(&body))?;
        let Channels { mut channel_statuses } = reply.read(what)?;
        let told = channel_statuses.remove(&self.name).ok_or_else(|| {
            let text = format!("the channel {} is gone", self.name);
            Failure::retry(Error::new(SqlState::CONNECTION_FAILURE, text))
        })?;
        let state = State::from(told);
        if !WORKING.contains(&state.code.as_str()) {
            return Err(broken(&state.code, state.reason.clone()));
        }
        Ok(state)
    }

    /// Whether the sink was told to stop.
    pub fn stopped(&self) -> bool {
        self.rest.stopped()
    }

    /// Waits; `false`: the sink was told to stop.
    pub fn wait(&self, time: std::time::Duration) -> bool {
        self.rest.wait(time)
    }
}

/// Why a request to a channel was not done.
fn failure(reply: &Reply, what: &str) -> Failure {
    let code = reply.code();
    let of_channel = REOPEN.iter().any(|beginning| code.starts_with(beginning));
    if code == TAKEN_OVER || of_channel || reply.status == StatusCode::CONFLICT {
        return broken(&code, reply.failure(what).error.detail);
    }
    reply.failure(what)
}

/// A channel that does not take rows any more. Whoever was shut out stays so until somebody starts it again.
fn broken(code: &str, reason: Option<String>) -> Failure {
    let detail = reason.map_or(format!("Code {code}."), |reason| format!("Code {code}: {reason}"));
    if code == TAKEN_OVER {
        let error = Error::new(SqlState::SERIALIZATION_FAILURE, "another writer has taken the sink over");
        return Failure {
            error: error.with_detail(detail).with_hint(
                "Two servers run a copy of the same sink: drop it in one of them. Each rows once all the same.",
            ),
            remedy: Remedy::Nothing,
        };
    }
    let missing = code.contains("DOES_NOT_EXIST") && !code.starts_with("ERR_CHANNEL_");
    let error = Error::new(SqlState::CONNECTION_FAILURE, "the channel must be opened again");
    let remedy = if missing { Remedy::Nothing } else { Remedy::Retry };
    Failure { error: error.with_detail(detail), remedy }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_read_by_either_name_and_as_text() {
        let read = |json: &str| State::from(serde_json::from_str::<Told>(json).unwrap());
        let opened = read(
            r#"{"channel_status_code":"ACTIVE","last_committed_offset_token":"x","rows_error_count":2,
                "last_error_offset_upper_bound":"x","last_error_message":"no"}"#,
        );
        let said = |text: &str| Some(text.to_string());
        let expected = State {
            code: "ACTIVE".to_string(),
            committed: said("x"),
            refused: 2,
            refused_at: said("x"),
            reason: said("no"),
        };
        assert_eq!(opened, expected);
        let bulk =
            read(r#"{"channel_status_code":"SUCCESS","last_committed_offset_token":null,"rows_errors":"7"}"#);
        assert_eq!((bulk.committed, bulk.refused, bulk.refused_at), (None, 7, None));
        assert_eq!(read("{}").refused, 0);
    }

    #[test]
    fn what_a_channel_says_decides_what_can_help() {
        assert_eq!(broken(TAKEN_OVER, None).error.sqlstate, SqlState::SERIALIZATION_FAILURE);
        assert_eq!(broken(TAKEN_OVER, None).remedy, Remedy::Nothing);
        assert_eq!(broken("ERR_CHANNEL_MUST_BE_REOPENED", None).remedy, Remedy::Retry);
        let gone = broken("ERR_TABLE_DOES_NOT_EXIST_NOT_AUTHORIZED", Some("no table".to_string()));
        assert_eq!(gone.remedy, Remedy::Nothing);
        assert!(gone.error.detail.unwrap().contains("no table"));
        let reply = |status, body: &'static str| Reply { status, body: Bytes::from_static(body.as_bytes()) };
        let stale = reply(StatusCode::BAD_REQUEST, r#"{"code":"STALE_CONTINUATION_TOKEN_SEQUENCER"}"#);
        assert_eq!(failure(&stale, "rows").remedy, Remedy::Retry);
        let wrong = reply(StatusCode::BAD_REQUEST, r#"{"code":"ERR_MALFORMED","message":"no JSON"}"#);
        assert_eq!(failure(&wrong, "rows").remedy, Remedy::Nothing);
        assert_eq!(failure(&reply(StatusCode::CONFLICT, ""), "rows").remedy, Remedy::Retry);
    }
}
