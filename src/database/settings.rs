//! A session's settings: what SET, SHOW and RESET know, with PostgreSQL's names, values and errors.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::error::{Error, Result, SqlState};
use crate::names::identifier_list;
use crate::types::Zone;

/// The version of PostgreSQL whose behaviour clients may count on.
pub const SERVER_VERSION: &str = "17.0";

/// What values a setting takes.
#[derive(Clone, Copy)]
enum Kind {
    /// Anything.
    Text,
    /// on or off.
    Bool,
    /// A whole number within bounds.
    Integer(i64, i64),
    /// A time in milliseconds, or with a unit; 0 is none.
    Milliseconds,
    /// One of these, in this spelling.
    OneOf(&'static [&'static str]),
    /// Encodings; only UTF8 is spoken.
    Encoding,
    /// A time zone's name, or an offset.
    TimeZone,
    /// Output format and field order; output is always ISO.
    DateStyle,
    /// Names of schemas.
    Schemas,
    /// Cannot be changed.
    Fixed,
}

struct Definition {
    /// Its name as SHOW ALL spells it.
    name: &'static str,
    default: &'static str,
    kind: Kind,
    /// Whether the client is told when it changes.
    reported: bool,
    about: &'static str,
}

const fn setting(name: &'static str, default: &'static str, kind: Kind, about: &'static str) -> Definition {
    Definition { name, default, kind, reported: false, about }
}

const fn reported(name: &'static str, default: &'static str, kind: Kind, about: &'static str) -> Definition {
    Definition { name, default, kind, reported: true, about }
}

/// A transaction is always repeatable read, which is no less than the weaker levels promise.
const ISOLATION: Kind = Kind::OneOf(&["repeatable read", "read committed", "read uncommitted"]);
/// A time limit that is not enforced can only be none.
const NEVER: Kind = Kind::OneOf(&["0"]);

const DEFINITIONS: &[Definition] = &[
    reported("application_name", "", Kind::Text, "The client program's name."),
    setting("bytea_output", "hex", Kind::OneOf(&["hex"]), "How bytea is written."),
    setting("client_min_messages", "notice", Kind::OneOf(LEVELS), "Which notices are sent."),
    reported("client_encoding", "UTF8", Kind::Encoding, "The client's character encoding."),
    reported("DateStyle", "ISO, MDY", Kind::DateStyle, "How dates are written."),
    setting("default_transaction_isolation", "repeatable read", ISOLATION, "Isolation of new transactions."),
    reported("default_transaction_read_only", "off", Kind::Bool, "Whether new transactions only read."),
    setting("extra_float_digits", "1", Kind::Integer(-15, 3), "Digits of floating-point output."),
    setting("idle_in_transaction_session_timeout", "0", NEVER, "Blocks are never ended for being idle."),
    reported("in_hot_standby", "off", Kind::Fixed, "Whether this is a standby."),
    reported("integer_datetimes", "on", Kind::Fixed, "Whether times are integers."),
    reported("IntervalStyle", "postgres", Kind::OneOf(&["postgres"]), "How intervals are written."),
    setting("jit", "off", Kind::OneOf(&["off"]), "Expressions are vectorised, not compiled."),
    setting("lock_timeout", "0", NEVER, "There are no locks that are waited for long."),
    setting("max_identifier_length", "63", Kind::Fixed, "Length of identifiers."),
    setting("rw_implicit_flush", "on", Kind::OneOf(&["on", "true"]), "Writes are visible once answered."),
    setting("row_security", "off", Kind::Bool, "There are no row policies."),
    setting("search_path", "\"$user\", public", Kind::Schemas, "Where names without a schema are looked up."),
    reported("server_encoding", "UTF8", Kind::Fixed, "The server's character encoding."),
    reported("server_version", SERVER_VERSION, Kind::Fixed, "The PostgreSQL version that is spoken."),
    setting("server_version_num", "170000", Kind::Fixed, "The same as a number."),
    reported("session_authorization", "tidemill", Kind::Fixed, "The session's user."),
    reported("is_superuser", "on", Kind::Fixed, "Whether the user may do everything."),
    reported("standard_conforming_strings", "on", Kind::OneOf(&["on"]), "Backslashes in '…' are plain."),
    setting("statement_timeout", "0", Kind::Milliseconds, "The longest a statement may take; 0 is none."),
    setting("synchronous_commit", "on", Kind::OneOf(&["on"]), "A commit is durable when it returns."),
    reported("TimeZone", "UTC", Kind::TimeZone, "The session's time zone."),
    setting("transaction_isolation", "repeatable read", ISOLATION, "Isolation of this transaction."),
    setting("transaction_read_only", "off", Kind::Bool, "Whether this transaction only reads."),
];

/// Settings of other streaming databases that say how work is done and when it is seen, never what the answers are.
/// Here they may be set, so that scripts run, and change nothing.
const FOREIGN: &[&str] = &[
    "auto_route_catalog_queries",
    "auto_route_introspection_queries",
    "backfill_rate_limit",
    "background_ddl",
    "batch_enable_distributed_dml",
    "batch_enable_lookup_join",
    "batch_enable_sort_agg",
    "batch_parallelism",
    "cluster",
    "cluster_replica",
    "create_compaction_group_for_mv",
    "current_object_missing_warnings",
    "dml_rate_limit",
    "emit_introspection_query_notice",
    "emit_plan_insights_notice",
    "emit_timestamp_notice",
    "enable_join_ordering",
    "enable_share_plan",
    "enable_two_phase_agg",
    "force_two_phase_agg",
    "implicit_flush",
    "query_mode",
    "real_time_recency",
    "real_time_recency_timeout",
    "rw_streaming_over_window_cache_policy",
    "sink_decouple",
    "sink_rate_limit",
    "source_rate_limit",
    "streaming_enable_bushy_join",
    "streaming_enable_delta_join",
    "streaming_over_window_cache_policy",
    "streaming_parallelism",
    "streaming_parallelism_for_index",
    "streaming_parallelism_for_materialized_view",
    "streaming_parallelism_for_sink",
    "streaming_parallelism_for_source",
    "streaming_parallelism_for_table",
    "streaming_use_arrangement_backfill",
    "streaming_use_snapshot_backfill",
    "visibility_mode",
    "welcome_message",
];

/// Whether a setting is another database's, and changes nothing.
pub(crate) fn is_foreign(name: &str) -> bool {
    FOREIGN.iter().any(|known| known.eq_ignore_ascii_case(name))
}

const LEVELS: &[&str] =
    &["debug5", "debug4", "debug3", "debug2", "debug1", "log", "notice", "warning", "error"];

/// The settings of one session.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// Values that are not the default, by lower-case name.
    values: BTreeMap<String, String>,
    /// Defaults given at the session's start, by lower-case name: what RESET goes back to.
    start: BTreeMap<String, String>,
    /// Values at the beginning of the block, to go back to when it is rolled back.
    before_block: Option<BTreeMap<String, String>>,
    /// Values to go back to when the block ends, whatever its end (SET LOCAL).
    local: BTreeMap<String, Option<String>>,
    /// Reported settings that changed since the client was told.
    changed: Vec<&'static str>,
}

fn definition(name: &str) -> Option<&'static Definition> {
    DEFINITIONS.iter().find(|d| d.name.eq_ignore_ascii_case(name))
}

/// What is said of a setting that there is not.
pub(crate) fn unknown(name: &str) -> Error {
    Error::new(SqlState::UNDEFINED_OBJECT, format!("unrecognized configuration parameter \"{name}\""))
}

impl Settings {
    /// The settings of a new session. What a startup packet asks for and is not known is passed over with its error.
    pub fn new(user: &str, start: &[(String, String)]) -> (Settings, Vec<Error>) {
        let mut settings = Settings::default();
        settings.start.insert("session_authorization".into(), user.to_string());
        let mut errors = Vec::new();
        for (name, value) in start {
            match settings.check(name, value) {
                Ok((key, value)) => {
                    settings.start.insert(key, value);
                }
                Err(e) => errors.push(e),
            }
        }
        (settings, errors)
    }

    /// The value of a setting; `None`: there is none of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        let key = name.to_ascii_lowercase();
        // A setting with a dot in its name is an extension's, and exists once it has been set.
        self.values
            .get(&key)
            .or_else(|| self.start.get(&key))
            .map(String::as_str)
            .or_else(|| definition(&key).map(|d| d.default))
    }

    /// The name as it is spelled, and the value of a setting.
    pub fn show(&self, name: &str) -> Result<(String, String)> {
        let value = self.get(name).ok_or_else(|| unknown(name))?.to_string();
        Ok((definition(name).map_or_else(|| name.to_string(), |d| d.name.to_string()), value))
    }

    /// Every setting: name, value, description.
    pub fn all(&self) -> Vec<(String, String, String)> {
        let own = DEFINITIONS.iter().map(|d| {
            (d.name.to_string(), self.get(d.name).unwrap_or(d.default).to_string(), d.about.to_string())
        });
        let extensions = self.values.iter().filter(|(key, _)| definition(key).is_none());
        own.chain(extensions.map(|(key, value)| (key.clone(), value.clone(), String::new()))).collect()
    }

    /// Every setting that a client is told at its start.
    pub fn reported(&self) -> Vec<(&'static str, String)> {
        DEFINITIONS
            .iter()
            .filter(|d| d.reported)
            .map(|d| (d.name, self.get(d.name).unwrap_or(d.default).to_string()))
            .collect()
    }

    /// SET name = value; `None`: its default.
    pub fn set(&mut self, name: &str, value: Option<&str>, local: bool) -> Result<()> {
        let (key, value) = match value {
            Some(v) => {
                let (key, value) = self.check(name, v)?;
                (key, Some(value))
            }
            None => (self.known(name)?, None),
        };
        if local {
            self.local.entry(key.clone()).or_insert_with(|| self.values.get(&key).cloned());
        } else {
            self.local.remove(&key);
        }
        self.store(&key, value);
        Ok(())
    }

    /// RESET ALL.
    pub fn reset_all(&mut self) {
        for key in self.values.keys().cloned().collect::<Vec<_>>() {
            self.store(&key, None);
        }
        self.local.clear();
    }

    /// A block begins.
    pub fn begin(&mut self) {
        self.before_block = Some(self.values.clone());
    }

    /// Goes back to settings of this session as they were earlier in the block.
    pub fn restore(&mut self, earlier: Settings) {
        let keys: Vec<String> = earlier.values.keys().chain(self.values.keys()).cloned().collect();
        for key in keys {
            self.store(&key, earlier.values.get(&key).cloned());
        }
        self.local = earlier.local;
    }

    /// A block ends.
    pub fn end(&mut self, committed: bool) {
        let before = self.before_block.take();
        let local = std::mem::take(&mut self.local);
        match before {
            Some(before) if !committed => {
                let keys: Vec<String> = before.keys().chain(self.values.keys()).cloned().collect();
                for key in keys {
                    self.store(&key, before.get(&key).cloned());
                }
            }
            _ => local.into_iter().for_each(|(key, value)| self.store(&key, value)),
        }
    }

    /// Reported settings that changed since the last call.
    pub fn take_changed(&mut self) -> Vec<(&'static str, String)> {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().map(|name| (name, self.get(name).unwrap_or_default().to_string())).collect()
    }

    /// `statement_timeout`.
    pub fn statement_timeout(&self) -> Option<Duration> {
        let ms = self.get("statement_timeout").and_then(milliseconds).unwrap_or(0);
        (ms > 0).then(|| Duration::from_millis(ms))
    }

    /// `TimeZone`.
    pub fn zone(&self) -> Zone {
        // What is set was checked.
        self.get("timezone").and_then(Zone::parse).unwrap_or_default()
    }

    /// `search_path`: identifiers, `$user` among them.
    pub fn search_path(&self) -> Vec<String> {
        // What is set was checked.
        self.get("search_path").and_then(identifier_list).unwrap_or_default()
    }

    /// Whether floats are written with fewer digits than they have.
    pub fn rounded_floats(&self) -> bool {
        self.get("extra_float_digits").and_then(|v| v.parse::<i32>().ok()).is_some_and(|digits| digits < 1)
    }

    fn store(&mut self, key: &str, value: Option<String>) {
        let before = self.get(key).map(str::to_string);
        match value {
            Some(v) => self.values.insert(key.to_string(), v),
            None => self.values.remove(key),
        };
        if let Some(d) = definition(key)
            && d.reported
            && self.get(key) != before.as_deref()
            && !self.changed.contains(&d.name)
        {
            self.changed.push(d.name);
        }
    }

    fn known(&self, name: &str) -> Result<String> {
        let key = name.to_ascii_lowercase();
        match definition(&key) {
            Some(_) => Ok(key),
            None if key.contains('.') || is_foreign(&key) => Ok(key),
            None => Err(unknown(name)),
        }
    }

    fn check(&self, name: &str, value: &str) -> Result<(String, String)> {
        let key = self.known(name)?;
        let Some(d) = definition(&key) else { return Ok((key, value.to_string())) };
        let invalid = || {
            Error::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("invalid value for parameter \"{}\": \"{value}\"", d.name),
            )
        };
        let value = match d.kind {
            Kind::Text => value.to_string(),
            Kind::Bool => match boolean(value) {
                Some(true) => "on".into(),
                Some(false) => "off".into(),
                None => {
                    return Err(Error::new(
                        SqlState::INVALID_PARAMETER_VALUE,
                        format!("parameter \"{}\" requires a Boolean value", d.name),
                    ));
                }
            },
            Kind::Integer(min, max) => {
                let n: i64 = value.trim().parse().map_err(|_| invalid())?;
                if !(min..=max).contains(&n) {
                    return Err(Error::new(
                        SqlState::INVALID_PARAMETER_VALUE,
                        format!(
                            "{n} is outside the valid range for parameter \"{}\" ({min} .. {max})",
                            d.name
                        ),
                    ));
                }
                n.to_string()
            }
            Kind::Milliseconds => {
                let ms = milliseconds(value).ok_or_else(invalid)?;
                const UNITS: [(u64, &str); 4] =
                    [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1000, "s")];
                match UNITS.iter().find(|(unit, _)| ms % unit == 0) {
                    _ if ms == 0 => "0".into(),
                    Some((unit, name)) => format!("{}{name}", ms / unit),
                    None => format!("{ms}ms"),
                }
            }
            Kind::OneOf(values) => {
                let canonical = match boolean(value) {
                    // `SET standard_conforming_strings = true` means on.
                    Some(true) if values.contains(&"on") => "on".to_string(),
                    _ => value.to_ascii_lowercase(),
                };
                match values.iter().find(|v| **v == canonical) {
                    Some(v) => (*v).to_string(),
                    None => {
                        return Err(invalid().with_hint(format!("Available values: {}.", values.join(", "))));
                    }
                }
            }
            Kind::Encoding => {
                let plain: String = value.chars().filter(char::is_ascii_alphanumeric).collect();
                match plain.to_ascii_uppercase().as_str() {
                    "UTF8" | "UNICODE" | "SQLASCII" => "UTF8".into(),
                    _ => return Err(invalid().with_detail("Only UTF8 is spoken.")),
                }
            }
            Kind::TimeZone => time_zone(value).ok_or_else(invalid)?,
            Kind::DateStyle => {
                date_style(self.get("datestyle").unwrap_or("ISO, MDY"), value).ok_or_else(invalid)?
            }
            Kind::Schemas if identifier_list(value).is_some() => value.to_string(),
            Kind::Schemas => return Err(invalid().with_detail("List syntax is invalid.")),
            // Clients set what they were told again; that changes nothing.
            Kind::Fixed if self.get(&key) == Some(value) => value.to_string(),
            Kind::Fixed => {
                return Err(Error::new(
                    SqlState("55P02"),
                    format!("parameter \"{}\" cannot be changed", d.name),
                ));
            }
        };
        Ok((key, value))
    }
}

fn boolean(value: &str) -> Option<bool> {
    match value.trim().to_ascii_lowercase().as_str() {
        "on" | "true" | "yes" | "1" | "t" | "y" => Some(true),
        "off" | "false" | "no" | "0" | "f" | "n" => Some(false),
        _ => None,
    }
}

/// A time as PostgreSQL's settings write it: a number of milliseconds, or with `us`, `ms`, `s`, `min`, `h`, `d`.
fn milliseconds(value: &str) -> Option<u64> {
    let value = value.trim();
    let split = value.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(value.len());
    let (number, unit) = value.split_at(split);
    let number: f64 = number.parse().ok()?;
    let factor = match unit.trim() {
        "" | "ms" => 1.0,
        "us" => 0.001,
        "s" => 1e3,
        "min" => 60e3,
        "h" => 3_600e3,
        "d" => 86_400e3,
        _ => return None,
    };
    let ms = (number * factor).round();
    (0.0..=2_147_483_647.0).contains(&ms).then_some(ms as u64)
}

fn time_zone(value: &str) -> Option<String> {
    let value = value.trim();
    if value.eq_ignore_ascii_case("local") || value.eq_ignore_ascii_case("default") {
        return Some("UTC".into());
    }
    for known in ["UTC", "GMT"] {
        if value.eq_ignore_ascii_case(known) {
            return Some(known.into());
        }
    }
    // A plain number is hours east of Greenwich; POSIX, whose notation this is, counts to the west.
    if let Ok(hours) = value.parse::<i32>() {
        return (-15..=15).contains(&hours).then(|| format!("<{hours:+03}>{:+03}", -hours));
    }
    Zone::parse(value).map(|_| value.to_string())
}

fn date_style(now: &str, value: &str) -> Option<String> {
    let mut order = now.rsplit(", ").next().unwrap_or("MDY").to_string();
    for word in value.split(',') {
        match word.trim().to_ascii_uppercase().as_str() {
            "ISO" | "DEFAULT" => {}
            "MDY" | "US" | "NONEURO" | "NONEUROPEAN" => order = "MDY".into(),
            "DMY" | "EURO" | "EUROPEAN" => order = "DMY".into(),
            "YMD" => order = "YMD".into(),
            _ => return None,
        }
    }
    Some(format!("ISO, {order}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked_and_spelled_as_postgres_does() {
        let (mut s, errors) =
            Settings::new("u", &[("nope".into(), "1".into()), ("TimeZone".into(), "utc".into())]);
        assert_eq!(errors.len(), 1);
        assert_eq!(s.show("timezone").unwrap(), ("TimeZone".into(), "UTC".into()));
        s.set("timezone", Some("Europe/Berlin"), false).unwrap();
        assert_eq!(s.take_changed(), vec![("TimeZone", "Europe/Berlin".to_string())]);
        s.set("statement_timeout", Some("2 s"), false).unwrap();
        assert_eq!(s.statement_timeout(), Some(Duration::from_secs(2)));
        assert_eq!(s.get("STATEMENT_TIMEOUT"), Some("2s"));
        s.set("datestyle", Some("German"), false).unwrap_err();
        s.set("datestyle", Some("dmy"), false).unwrap();
        assert_eq!(s.get("DateStyle"), Some("ISO, DMY"));
        for (name, value, state) in [
            ("nope", "1", "42704"),
            ("client_encoding", "LATIN1", "22023"),
            ("extra_float_digits", "99", "22023"),
            ("server_version", "9", "55P02"),
            ("timezone", "Mars/Olympus", "22023"),
            ("default_transaction_read_only", "maybe", "22023"),
        ] {
            assert_eq!(s.set(name, Some(value), false).unwrap_err().sqlstate.0, state, "{name}");
        }
        s.set("my.own", Some("x"), false).unwrap();
        assert_eq!(s.get("my.own"), Some("x"));
        s.reset_all();
        assert_eq!(s.get("timezone"), Some("UTC"));
        assert_eq!(s.get("my.own"), None);
    }

    #[test]
    fn a_block_gives_back_what_it_must() {
        let (mut s, _) = Settings::new("u", &[]);
        s.set("application_name", Some("a"), false).unwrap();
        s.begin();
        s.set("application_name", Some("b"), false).unwrap();
        s.end(false);
        assert_eq!(s.get("application_name"), Some("a"));
        s.begin();
        s.set("application_name", Some("c"), true).unwrap();
        assert_eq!(s.get("application_name"), Some("c"));
        s.end(true);
        assert_eq!(s.get("application_name"), Some("a"));
        s.begin();
        s.set("application_name", Some("d"), false).unwrap();
        s.end(true);
        assert_eq!(s.get("application_name"), Some("d"));
    }
}
