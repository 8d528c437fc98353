//! Sinks that only add rows, by Snowpipe in one form or the other: what can be followed, and the target that is added to.
//! None of it needs a warehouse that runs.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::apply::SinkTag;
use super::client::{Repeat, Session};
use super::config::Config;
use super::rest::check_key;
use super::statements::{Names, definitions, whole_parts};
use super::target_key;
use super::types::{self, Column};
use crate::connectors::warehouse::{Step, target_gone};
use crate::connectors::{Memory, Options, SinkDefinition, StopFlag};
use crate::error::{Error, Result, SqlState};

/// A table, by names that Snowflake's services find it by: those that SQL needs no quotes for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its database.
    pub database: String,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub table: String,
}

/// Refuses what Snowpipe cannot do: replace and remove rows.
///
/// # Errors
/// 0A000, with what to do instead.
pub fn check_appends(mode: &str, key: &[usize], append_only: bool) -> Result<()> {
    let what = match (key.is_empty(), append_only) {
        (false, _) => format!("mode '{mode}' of a SNOWFLAKE sink with a KEY"),
        (true, false) => {
            format!("mode '{mode}' of a SNOWFLAKE sink that follows a relation whose rows come and go")
        }
        (true, true) => return Ok(()),
    };
    Err(Error::unsupported(what).with_detail("Snowpipe only adds rows.").with_hint(
        "Leave the option mode out: changes are staged, copied and merged in one transaction. Or follow an APPEND ONLY \
         table or a source without a key.",
    ))
}

impl Place {
    /// Where a table is.
    ///
    /// # Errors
    /// 22023 when the database or schema is not said, 0A000 for names that need quotes.
    pub fn new(table: &str, config: &Config) -> Result<Place> {
        let whole = whole_parts(table, config.database.as_deref(), config.schema.as_deref());
        let [database, schema, table] = whole.ok_or_else(|| {
            let text = "Snowpipe needs to know the database and the schema of the table";
            Error::new(SqlState::INVALID_PARAMETER_VALUE, text)
                .with_hint("Name them in the option table, like db.schema.t, or in the connection.")
        })?;
        let plain = |name: &String| {
            name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || "_$".contains(c))
        };
        if let Some(name) = [&database, &schema, &table].into_iter().find(|name| !plain(name)) {
            return Err(Error::unsupported(format!("a name like \"{name}\" with Snowpipe"))
                .with_detail("Its services do not tell upper case from lower case.")
                .with_hint("Use a name that needs no quotes, or leave the option mode out."));
        }
        Ok(Place { database, schema, table })
    }
}

/// What a sink has written down under a name; nothing at first.
///
/// # Errors
/// XX001 when it cannot be read.
pub fn recall<T: DeserializeOwned + Default>(memory: &dyn Memory, name: &str) -> Result<T> {
    let Some(json) = memory.get(name)? else { return Ok(T::default()) };
    serde_json::from_slice(&json)
        .map_err(|e| Error::new(SqlState::DATA_CORRUPTED, format!("the sink's memory cannot be read: {e}")))
}

/// Writes something down, durably.
///
/// # Errors
/// The memory's.
pub fn remember<T: Serialize>(memory: &dyn Memory, name: &str, known: &T) -> Result<()> {
    let json = serde_json::to_vec(known)
        .map_err(|e| Error::internal(format!("the sink's memory cannot be written: {e}")))?;
    memory.put(name, &json)
}

/// The table that is added to.
#[derive(Debug)]
pub struct Target {
    /// How it is reached.
    pub config: Config,
    /// Its name and those of what is the sink's own.
    pub names: Names,
    /// Where it is.
    pub place: Place,
    /// What other sinks into it call it, too.
    key: String,
    /// Whether rows that stand in it before the first batch may stay there.
    keep: bool,
    /// Whether there were some when it was looked at; `None`: it was not yet.
    rows_there: Option<bool>,
}

impl Target {
    /// The target of a sink into `table`; takes the option `existing_rows`. Nothing is sent yet.
    ///
    /// # Errors
    /// 22023 for a connection without a key and the like.
    pub fn new(options: &mut Options, def: &SinkDefinition, table: &str) -> Result<Target> {
        let keep = match options.take("existing_rows").as_deref() {
            None | Some("refuse") => false,
            Some("keep") => true,
            Some("replace") => {
                return Err(Error::unsupported("existing_rows = 'replace' of a sink that only adds rows")
                    .with_hint("Empty the table yourself, or leave the option mode out."));
            }
            Some(other) => {
                let text = format!("option \"existing_rows\" must be refuse or keep, not \"{other}\"");
                return Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, text));
            }
        };
        let config = Config::new(def.connection.clone())?;
        check_key(&config)?;
        let (place, names) = (Place::new(table, &config)?, Names::new(table, def.uuid)?);
        let key = target_key(&config, &names, table);
        Ok(Target { config, names, place, key, keep, rows_there: None })
    }

    /// What every sink into this table calls it.
    pub fn key(&self) -> String {
        self.key.clone()
    }

    /// Makes the target, or checks the one that is there; once in a sink's run. `filled`: the sink has added to it before.
    pub fn prepare(&mut self, columns: &[Column], tag: &SinkTag, filled: bool, stop: &StopFlag) -> Step<()> {
        if self.rows_there.is_some() {
            return Ok(());
        }
        let mut session = Session::open(&self.config, &tag.text(None), stop)?;
        let target = &self.names.target;
        let described = match session.query(&format!("DESCRIBE TABLE {target}"), Repeat::Harmless) {
            Ok(rows) => rows,
            Err(failure) if failure.error.sqlstate == SqlState::UNDEFINED_TABLE => {
                if filled {
                    return Err(target_gone(target).into());
                }
                let columns = definitions(columns).join(", ");
                // Rows that are refused later are kept beside it.
                let create = format!("CREATE TABLE IF NOT EXISTS {target} ({columns}) ERROR_LOGGING = TRUE");
                session.query(&create, Repeat::Harmless)?;
                self.rows_there = Some(false);
                return Ok(());
            }
            Err(failure) => return Err(failure),
        };
        types::check_target(target, columns, &[], &described)?;
        let Place { database, schema, table } = &self.place;
        // Not counted, which a warehouse would have to do.
        let show = format!("SHOW TABLES LIKE '{table}' IN SCHEMA \"{database}\".\"{schema}\"");
        let shown = session.query(&show, Repeat::Harmless)?;
        let own = (0..shown.len()).find(|&i| shown.get(i, "name") == Some(table));
        self.rows_there = Some(own.and_then(|i| shown.get(i, "rows")).is_some_and(|rows| rows != "0"));
        Ok(())
    }

    /// Refuses to add the first rows to others, unless the user has said that it may be.
    ///
    /// # Errors
    /// 55000.
    pub fn check_empty(&self) -> Result<()> {
        if self.keep || self.rows_there != Some(true) {
            return Ok(());
        }
        let text = format!("{} has rows already", self.names.target);
        Err(Error::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, text)
            .with_hint("Empty it, or let the sink add to them: existing_rows = 'keep'."))
    }

    /// The target would have to be filled anew, which only whoever can remove rows can do.
    pub fn cannot_replace(&self) -> Error {
        let text = format!(
            "the rows of {} would have to be replaced, and Snowpipe only adds rows",
            self.names.target
        );
        Error::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, text)
            .with_detail("The relation's history since the last batch is gone.")
            .with_hint("Drop the sink, empty the table, and create the sink again.")
    }
}
