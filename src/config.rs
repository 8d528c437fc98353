//! The server's settings: one [`Config`] from defaults, then a TOML file, then the environment, then flags.
//!
//! Every setting stands once, in [`SETTINGS`]: its name, what it means, its unit, its default and its bounds. In a file
//! it is `name = value`, in the environment `TIDEMILL_NAME=value`, as a flag `--name value` or `--set name=value`.
//! A name that is not known is refused in a file and as a flag. In the environment it is only reported: orchestrators
//! put variables of their own there (Kubernetes gives every process a `TIDEMILL_PORT` for a service of that name).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result, SqlState};

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The server's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The data directory; made if it is not there.
    pub data_dir: PathBuf,
    /// Where the PostgreSQL wire protocol listens.
    pub listen: SocketAddr,
    /// Where HTTP listens: health, metrics, console.
    pub http: SocketAddr,
    /// Which log lines are written: a level, or `tracing` directives (`info,tidemill::engine=debug`).
    pub log_level: String,
    /// How they are written.
    pub log_format: LogFormat,
    /// The most input rows of one tick; a transaction is never split.
    pub tick_rows: usize,
    /// Threads that compute a tick.
    pub workers: usize,
    /// Bytes of journal after which the views' state is written down.
    pub checkpoint_bytes: u64,
    /// Bytes of memory that the process may take; 0: as many as there are.
    pub memory_limit: u64,
    /// Bytes of changes that wait in memory for one sink; more wait on disk.
    pub sink_memory: usize,
    /// `tidemill.errors` keeps no more bad records than this.
    pub errors_rows: u64,
    /// Nor more bytes of them than this.
    pub errors_bytes: u64,
    /// Nor any that are older than this.
    pub errors_hours: u64,
    /// Sessions at once over the wire.
    pub connections: usize,
    /// How long shutdown waits for sources and sinks to finish, in milliseconds.
    pub drain_timeout_ms: u64,
    /// Whether to start with what is left when acknowledged rows are missing from the data directory.
    pub accept_loss: bool,
    /// Environment variables that begin with `TIDEMILL_` and are no setting.
    pub unknown_variables: Vec<String>,
}

/// One setting, as it is described.
pub struct Setting {
    /// Its name in a file; `TIDEMILL_` and upper case in the environment.
    pub name: &'static str,
    /// Its unit, or the shape of its value.
    pub unit: &'static str,
    /// Its value when nobody gives one.
    pub default: &'static str,
    /// What may be given.
    pub bounds: &'static str,
    /// What it means.
    pub about: &'static str,
    set: fn(&mut Config, &str) -> Result<(), &'static str>,
}

/// Every setting.
pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "data_dir",
        unit: "directory",
        default: "tidemill-data",
        bounds: "any path",
        about: "holds everything that lasts; made if it is not there",
        set: |c, v| {
            if v.is_empty() {
                return Err("a path");
            }
            c.data_dir = PathBuf::from(v);
            Ok(())
        },
    },
    Setting {
        name: "listen",
        unit: "address:port",
        default: "127.0.0.1:7432",
        bounds: "port 0 takes a free one",
        about: "where the PostgreSQL wire protocol listens",
        set: |c, v| address(v).map(|a| c.listen = a),
    },
    Setting {
        name: "http",
        unit: "address:port",
        default: "127.0.0.1:7433",
        bounds: "port 0 takes a free one",
        about: "where HTTP listens: health, metrics, console",
        set: |c, v| address(v).map(|a| c.http = a),
    },
    Setting {
        name: "log_level",
        unit: "level or directives",
        default: "info",
        bounds: "error, warn, info, debug, trace, or tracing's directives",
        about: "which log lines are written to standard error",
        set: |c, v| {
            v.parse::<tracing_subscriber::EnvFilter>()
                .map_err(|_| "a level (error, warn, info, debug, trace) or tracing's directives")?;
            c.log_level = v.to_string();
            Ok(())
        },
    },
    Setting {
        name: "log_format",
        unit: "text or json",
        default: "text",
        bounds: "text, json",
        about: "how log lines are written",
        set: |c, v| {
            c.log_format = match v {
                "text" => LogFormat::Text,
                "json" => LogFormat::Json,
                _ => return Err("text or json"),
            };
            Ok(())
        },
    },
    Setting {
        name: "tick_rows",
        unit: "rows",
        default: "65536",
        bounds: "1 to 10000000",
        about: "the most input rows of one tick; a transaction is never split",
        set: |c, v| {
            number(v, 1, 10_000_000, "a whole number from 1 to 10000000").map(|n| c.tick_rows = n as usize)
        },
    },
    Setting {
        name: "workers",
        unit: "threads",
        default: "1",
        bounds: "1 to 64",
        about: "how many threads compute a tick; the answers do not depend on it",
        set: |c, v| number(v, 1, 64, "a whole number from 1 to 64").map(|n| c.workers = n as usize),
    },
    Setting {
        name: "checkpoint_bytes",
        unit: "bytes",
        default: "33554432",
        bounds: "1 or more",
        about: "the views' state is written down again when the journal has grown by so much, and by half of what the state took",
        set: |c, v| {
            number(v, 1, u64::MAX, "a whole number of bytes, 1 or more").map(|n| c.checkpoint_bytes = n)
        },
    },
    Setting {
        name: "memory_limit",
        unit: "bytes, or a number with kB, MB, GB or TB",
        default: "0",
        bounds: "0 for none, or 64MB or more",
        about: "memory that the process may take; state that does not fit lives in a file in the data directory",
        set: |c, v| {
            const WANTED: &str = "a number of bytes, alone or with kB, MB, GB or TB: 0, or 64MB or more";
            let bytes = bytes(v).ok_or(WANTED)?;
            if bytes != 0 && bytes < MEMORY_LIMIT_MIN {
                return Err(WANTED);
            }
            c.memory_limit = bytes;
            Ok(())
        },
    },
    Setting {
        name: "sink_memory",
        unit: "bytes",
        default: "67108864",
        bounds: "1048576 or more",
        about: "how much of what waits for a sink that does not get on is kept in memory; the rest waits on disk",
        set: |c, v| {
            number(v, 1 << 20, 1 << 40, "a whole number of bytes, 1048576 or more")
                .map(|n| c.sink_memory = n as usize)
        },
    },
    Setting {
        name: "errors_rows",
        unit: "records",
        default: "100000",
        bounds: "0 or more",
        about: "tidemill.errors keeps no more bad records than this; the oldest go first",
        set: |c, v| number(v, 0, u64::MAX, "a whole number, 0 or more").map(|n| c.errors_rows = n),
    },
    Setting {
        name: "errors_bytes",
        unit: "bytes",
        default: "268435456",
        bounds: "0 or more",
        about: "tidemill.errors keeps no more bytes of bad records than this",
        set: |c, v| number(v, 0, u64::MAX, "a whole number of bytes, 0 or more").map(|n| c.errors_bytes = n),
    },
    Setting {
        name: "errors_hours",
        unit: "hours",
        default: "720",
        bounds: "1 or more",
        about: "how long tidemill.errors keeps bad records",
        set: |c, v| number(v, 1, u64::MAX, "a whole number of hours, 1 or more").map(|n| c.errors_hours = n),
    },
    Setting {
        name: "connections",
        unit: "sessions",
        default: "200",
        bounds: "1 to 10000",
        about: "sessions at once over the PostgreSQL wire protocol",
        set: |c, v| {
            number(v, 1, 10_000, "a whole number from 1 to 10000").map(|n| c.connections = n as usize)
        },
    },
    Setting {
        name: "drain_timeout_ms",
        unit: "milliseconds",
        default: "10000",
        bounds: "0 to 600000",
        about: "how long shutdown waits for sources and sinks to finish",
        set: |c, v| {
            number(v, 0, 600_000, "a whole number of milliseconds, up to 600000")
                .map(|n| c.drain_timeout_ms = n)
        },
    },
    Setting {
        name: "accept_loss",
        unit: "on or off",
        default: "off",
        bounds: "on, off",
        about: "start with what is left when acknowledged rows are missing from the data directory",
        set: |c, v| {
            c.accept_loss = match v {
                "on" | "true" => true,
                "off" | "false" => false,
                _ => return Err("on or off"),
            };
            Ok(())
        },
    },
];

fn address(v: &str) -> Result<SocketAddr, &'static str> {
    use std::net::ToSocketAddrs;
    const WANTED: &str = "an address and a port: 127.0.0.1:7432";
    v.to_socket_addrs().map_err(|_| WANTED)?.next().ok_or(WANTED)
}

/// Less than this the process takes without any state.
const MEMORY_LIMIT_MIN: u64 = 64 << 20;

/// A number of bytes with PostgreSQL's units, which are powers of 1024.
fn bytes(v: &str) -> Option<u64> {
    let digits = v.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match v[digits.len()..].trim_start() {
        "" | "B" => 0,
        "kB" => 10,
        "MB" => 20,
        "GB" => 30,
        "TB" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

fn number(v: &str, min: u64, max: u64, wanted: &'static str) -> Result<u64, &'static str> {
    v.parse().ok().filter(|n| (min..=max).contains(n)).ok_or(wanted)
}

impl Default for Config {
    fn default() -> Self {
        let mut config = Config {
            data_dir: PathBuf::new(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            http: SocketAddr::from(([127, 0, 0, 1], 0)),
            log_level: String::new(),
            log_format: LogFormat::Text,
            tick_rows: 0,
            workers: 0,
            checkpoint_bytes: 0,
            memory_limit: 0,
            sink_memory: 0,
            errors_rows: 0,
            errors_bytes: 0,
            errors_hours: 0,
            connections: 0,
            drain_timeout_ms: 0,
            accept_loss: false,
            unknown_variables: Vec::new(),
        };
        for setting in SETTINGS {
            let set = (setting.set)(&mut config, setting.default);
            debug_assert!(set.is_ok(), "the default of {} is within its bounds", setting.name);
        }
        config
    }
}

impl Config {
    /// A configuration with all defaults and this data directory: what an embedding program and a test start from.
    pub fn at(data_dir: impl Into<PathBuf>) -> Config {
        Config { data_dir: data_dir.into(), ..Config::default() }
    }

    /// Reads all layers: the TOML file, if one is named; `environment`, of which only names that begin with
    /// `TIDEMILL_` count; and `flags`, by setting name.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: &[(String, String)],
    ) -> Result<Config> {
        let mut config = Config::default();
        if let Some(path) = file {
            let text = std::fs::read_to_string(path).map_err(|e| {
                Error::new(
                    SqlState::IO_ERROR,
                    format!("cannot read configuration file {}: {e}", path.display()),
                )
            })?;
            config.apply_file(&text, &path.display().to_string())?;
        }
        for (variable, value) in environment {
            let Some(name) = variable.strip_prefix("TIDEMILL_") else { continue };
            // These two are read elsewhere: the configuration file's path, and the crash point of a test.
            if name == "CONFIG" || name == "CRASH_AT" {
                continue;
            }
            let name = name.to_ascii_lowercase();
            if SETTINGS.iter().any(|s| s.name == name) {
                config.set(&name, &value, &format!("environment variable {variable}"))?;
            } else {
                config.unknown_variables.push(variable);
            }
        }
        for (name, value) in flags {
            config.set(&name.replace('-', "_"), value, "the command line")?;
        }
        Ok(config)
    }

    fn apply_file(&mut self, text: &str, origin: &str) -> Result<()> {
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
            Error::new(SqlState::SYNTAX_ERROR, format!("{origin} is not TOML: {}", e.message()))
        })?;
        for (name, value) in table {
            let value = match value {
                toml::Value::String(s) => s,
                toml::Value::Integer(i) => i.to_string(),
                toml::Value::Boolean(b) => b.to_string(),
                toml::Value::Float(f) => f.to_string(),
                _ => {
                    return Err(Error::new(
                        SqlState::INVALID_PARAMETER_VALUE,
                        format!("setting \"{name}\" in {origin} must be a single value"),
                    ));
                }
            };
            self.set(&name, &value, origin)?;
        }
        Ok(())
    }

    /// Changes one setting; `origin` says in errors where the value stood.
    pub fn set(&mut self, name: &str, value: &str, origin: &str) -> Result<()> {
        let Some(setting) = SETTINGS.iter().find(|s| s.name == name) else {
            let known: Vec<&str> = SETTINGS.iter().map(|s| s.name).collect();
            return Err(Error::new(
                SqlState::UNDEFINED_OBJECT,
                format!("unknown setting \"{name}\" in {origin}"),
            )
            .with_hint(format!("Known settings: {}.", known.join(", "))));
        };
        (setting.set)(self, value).map_err(|wanted| {
            Error::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("setting \"{name}\" in {origin} must be {wanted}, not \"{value}\""),
            )
        })
    }

    /// All settings as a table for people.
    pub fn reference() -> String {
        let mut text = String::new();
        for s in SETTINGS {
            text.push_str(&format!(
                "  {:<17} {}\n  {:<17} unit: {}; default: {}; bounds: {}\n",
                s.name, s.about, "", s.unit, s.default, s.bounds
            ));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_layers_win() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("t.toml");
        std::fs::write(&file, "data_dir = \"a\"\ntick_rows = 10\nconnections = 5\n").unwrap();
        let env = [("TIDEMILL_TICK_ROWS".to_string(), "20".to_string()), ("HOME".into(), "/".into())];
        let flags = [("tick-rows".to_string(), "30".to_string())];
        let c = Config::load(Some(&file), env.clone(), &[]).unwrap();
        assert_eq!((c.data_dir.to_str().unwrap(), c.tick_rows, c.connections), ("a", 20, 5));
        let c = Config::load(Some(&file), env, &flags).unwrap();
        assert_eq!(c.tick_rows, 30);
        assert_eq!(c.listen.port(), 7432);
    }

    #[test]
    fn unknown_names_and_bad_values_are_refused() {
        let foreign = [("TIDEMILL_PORT_7432_TCP".to_string(), "x".to_string())];
        assert_eq!(Config::load(None, foreign, &[]).unwrap().unknown_variables, ["TIDEMILL_PORT_7432_TCP"]);
        let e = Config::load(None, [], &[("listn".to_string(), "x".to_string())]).unwrap_err();
        assert_eq!(e.sqlstate, SqlState::UNDEFINED_OBJECT);
        assert!(e.hint.unwrap().contains("listen"));
        let mut c = Config::default();
        for (name, value) in [
            ("tick_rows", "0"),
            ("listen", "nowhere"),
            ("log_format", "xml"),
            ("connections", "-1"),
            ("workers", "0"),
        ] {
            let e = c.set(name, value, "a test").unwrap_err();
            assert_eq!(e.sqlstate, SqlState::INVALID_PARAMETER_VALUE, "{name}");
        }
        assert_eq!(c, Config::default());
        assert!(c.apply_file("a = [1]", "f").is_err());
        assert!(c.apply_file("a = ", "f").is_err());
    }
}
