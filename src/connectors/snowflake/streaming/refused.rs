//! Rows that Snowflake has refused. A channel only counts them; which they were stands in the target's error table, which
//! can be read where the connection has a warehouse.

use crate::connectors::snowflake::client::{Repeat, Session};
use crate::connectors::snowflake::config::Config;
use crate::connectors::snowflake::streaming::channel::State;
use crate::connectors::{BadRecord, StopFlag};
use crate::error::SqlState;

/// So many refused rows of a batch are shown one by one; the rest is counted.
const SHOWN_MAX: u64 = 1_000;

/// Where refused rows are to be found.
#[derive(Debug)]
pub struct Search<'a> {
    /// The target as it stands in SQL.
    pub target: &'a str,
    /// The channel's name.
    pub channel: &'a str,
    /// What the tokens of the rows' batch begin with; `None`: not known, they are counted only.
    pub tokens: Option<&'a str>,
    /// Of what they were rows, for people: `tick 7 to 9`.
    pub position: &'a str,
}

/// What becomes of `count` refused rows in `tidemill.errors`: each by itself where they can be read, and how many others.
pub fn records(
    config: &Config,
    search: &Search<'_>,
    state: &State,
    count: u64,
    stop: &StopFlag,
) -> Vec<BadRecord> {
    let reason = state.reason.clone().unwrap_or_else(|| "Snowflake has refused a row".to_string());
    let mut found = match (search.tokens, &config.warehouse) {
        (Some(tokens), Some(_)) => read(config, search, tokens, &reason, stop),
        _ => Vec::new(),
    };
    let left = count.saturating_sub(found.len() as u64);
    if left > 0 {
        let token = state.refused_at.as_deref().unwrap_or("?");
        let reason = format!("Snowflake has refused {left} rows, the last of them for: {reason}");
        found.push(BadRecord {
            sqlstate: SqlState::DATA_EXCEPTION.0,
            reason,
            raw: None,
            position: format!("{}, at or before offset token {token}", search.position),
            kept: None,
        });
    }
    found
}

/// Reads the error table; nothing when that cannot be done.
fn read(config: &Config, search: &Search<'_>, tokens: &str, reason: &str, stop: &StopFlag) -> Vec<BadRecord> {
    let sql = format!(
        "SELECT ERROR_METADATA:error_message::VARCHAR AS REASON, ERROR_DATA:\"$1\"::VARCHAR AS ROW_TEXT, \
         ERROR_METADATA:details:offset_token_upper_bound::VARCHAR AS TOKEN FROM ERROR_TABLE({}) \
         WHERE ERROR_METADATA:details:channel_name = '{}' \
         AND STARTSWITH(ERROR_METADATA:details:offset_token_upper_bound::VARCHAR, '{tokens}') LIMIT {SHOWN_MAX}",
        search.target, search.channel
    );
    let rows =
        Session::open(config, "tidemill", stop).and_then(|mut session| session.query(&sql, Repeat::Harmless));
    let rows = match rows {
        Ok(rows) => rows,
        Err(failure) => {
            tracing::warn!(error = %failure.error, "refused rows cannot be read from the target's error table");
            return Vec::new();
        }
    };
    (0..rows.len())
        .map(|i| BadRecord {
            sqlstate: SqlState::DATA_EXCEPTION.0,
            reason: rows.get(i, "REASON").unwrap_or(reason).to_string(),
            raw: rows.get(i, "ROW_TEXT").map(|text| text.as_bytes().to_vec()),
            position: format!("{}, offset token {}", search.position, rows.get(i, "TOKEN").unwrap_or("?")),
            kept: None,
        })
        .collect()
}
