//! The beginning of a connection: encryption refused, a cancel request carried out, or a session begun.
//!
//! Whoever can reach the port is trusted to be the user he says; a user must be named.

use crate::database::{Session, SessionOptions};
use crate::error::{Error, Result, SqlState};
use crate::pgwire::cancel::{CancelKey, CancelRegistry};
use crate::pgwire::frame::Opening;
use crate::pgwire::io::{End, Io};

/// How often a client may ask for encryption before it has to begin: once for GSSAPI, once for TLS.
const ENCRYPTION_REQUESTS_MAX: usize = 2;

/// Takes the connection to the point where a session can begin. `None`: there is none to begin, all is done.
pub async fn receive(io: &mut Io, cancels: &CancelRegistry) -> Result<Option<SessionOptions>, End> {
    for _ in 0..=ENCRYPTION_REQUESTS_MAX {
        match io.opening().await? {
            None => return Ok(None),
            Some(Opening::Ssl | Opening::GssEnc) => io.refuse_encryption().await?,
            Some(Opening::Cancel { pid, secret }) => {
                cancels.cancel(pid, &secret);
                return Ok(None);
            }
            Some(Opening::Startup { minor, parameters }) => {
                let unknown: Vec<String> = parameters
                    .iter()
                    .filter(|(name, _)| name.starts_with("_pq_."))
                    .map(|(name, _)| name.clone())
                    .collect();
                if minor > 0 || !unknown.is_empty() {
                    io.out.negotiate(0, unknown).map_err(End::Fatal)?;
                }
                return options(parameters).map(Some).map_err(End::Fatal);
            }
        }
    }
    Err(End::Fatal(Error::new(SqlState::PROTOCOL_VIOLATION, "too many requests for encryption")))
}

/// Who wants what, from the start-up packet.
fn options(parameters: Vec<(String, String)>) -> Result<SessionOptions> {
    let mut options =
        SessionOptions { user: String::new(), database: String::new(), ..SessionOptions::default() };
    for (name, value) in parameters {
        match name.as_str() {
            "user" => options.user = value,
            "database" => options.database = value,
            "application_name" => options.application_name = value,
            "options" => options.settings.extend(command_line(&value)?),
            "replication" => match value.as_str() {
                "false" | "off" | "no" | "0" => {}
                _ => return Err(Error::unsupported("a replication connection")),
            },
            name if name.starts_with("_pq_.") => {}
            _ => options.settings.push((name, value)),
        }
    }
    if options.user.is_empty() {
        return Err(Error::new(
            SqlState::INVALID_AUTHORIZATION,
            "no PostgreSQL user name specified in startup packet",
        ));
    }
    // There is one database in a data directory; by whatever name it is asked for, this is it.
    if options.database.is_empty() {
        options.database.clone_from(&options.user);
    }
    Ok(options)
}

/// Settings from `-c name=value` and `--name=value`, in which a backslash keeps the next character as it is.
fn command_line(text: &str) -> Result<Vec<(String, String)>> {
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => word.get_or_insert_default().extend(chars.next()),
            c if c.is_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    let mut settings = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let pair = if word == "-c" {
            words.next()
        } else {
            word.strip_prefix("-c").or_else(|| word.strip_prefix("--")).map(str::to_string)
        };
        let setting = pair.as_deref().and_then(|pair| pair.split_once('=')).ok_or_else(|| {
            Error::new(
                SqlState::SYNTAX_ERROR,
                format!("invalid command-line argument for server process: {word}"),
            )
        })?;
        // In a command line the words of a name may be joined by dashes.
        settings.push((setting.0.replace('-', "_"), setting.1.to_string()));
    }
    Ok(settings)
}

/// Tells the client that it is in, and how things are.
pub fn welcome(io: &mut Io, session: &Session, key: &CancelKey) -> Result<()> {
    io.out.authentication_ok()?;
    for (name, value) in session.reported_settings() {
        io.out.parameter_status(name, &value)?;
    }
    io.out.backend_key(key.pid, &key.secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect()
    }

    #[test]
    fn a_user_must_be_named_and_is_the_default_database() {
        let e = options(pairs(&[("database", "d")])).unwrap_err();
        assert_eq!(e.sqlstate, SqlState::INVALID_AUTHORIZATION);
        let given = options(pairs(&[("user", "u"), ("DateStyle", "ISO")])).unwrap();
        assert_eq!((given.user.as_str(), given.database.as_str()), ("u", "u"));
        assert_eq!(given.settings, pairs(&[("DateStyle", "ISO")]));
        assert!(options(pairs(&[("user", "u"), ("replication", "database")])).is_err());
    }

    #[test]
    fn options_are_read_like_a_command_line() {
        let read = command_line(r"-c search_path=a\ b --statement-timeout=5s -cx=y\\").unwrap();
        assert_eq!(read, pairs(&[("search_path", "a b"), ("statement_timeout", "5s"), ("x", "y\\")]));
        assert_eq!(command_line("  ").unwrap(), []);
        assert!(command_line("-c").is_err());
        assert!(command_line("-f file").is_err());
    }
}
