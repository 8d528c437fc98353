//! The Snowflake sink: a table in Snowflake kept in step with a relation, every change exactly once.
//!
//! `INTO SNOWFLAKE CONNECTION sf (table = 'ORDERS_BY_DAY') KEY (day) WITH (commit_interval = '5 s')`. The target is
//! made from the relation's columns if it is not there; its rows belong to the sink. Beside it, in the same
//! schema, the sink keeps its progress, a table for changes and a stage; `DROP SINK` removes those.
//!
//! A relation that only grows can also go by Snowpipe Streaming ([`streaming`]) or, as files, by Snowpipe ([`snowpipe`]):
//! without a warehouse that runs.
//!
//! [`client`] speaks the protocol of Snowflake's drivers, [`stage`] uploads, [`statements`] holds the SQL,
//! [`apply`] is the transaction, [`compare`] how target and relation are compared; the loop around them is `connectors::warehouse::sync`.

pub mod appending;
pub mod apply;
pub mod auth;
pub mod client;
pub mod compare;
pub mod config;
pub mod lines;
pub mod rest;
pub mod snowpipe;
pub mod stage;
pub mod statements;
pub mod streaming;
pub mod types;
pub mod wire;

use std::time::Duration;

use arrow::datatypes::SchemaRef;

use super::warehouse::bucket::Bucket;
use super::warehouse::{Form, Rhythm, Settings, Shape, check_columns, may_replace, sync};
use super::{Envelope, Options, Sink, SinkContext, SinkDefinition, StopFlag};
use crate::error::{Error, Result, SqlState};
use appending::check_appends;
use apply::{SinkTag, Snowflake};
use client::{Repeat, Session};
use config::Config;
use snowpipe::SnowpipeSink;
use statements::{Names, whole_name};
use streaming::StreamingSink;

/// A warehouse is billed for at least a minute each time it wakes up.
const COMMIT_INTERVAL: Duration = Duration::from_secs(60);

/// Logs in and asks for the connection's database and schema.
pub fn validate_connection(options: Vec<(String, String)>) -> Result<()> {
    let config = Config::new(options)?;
    let mut session = Session::open(&config, "tidemill", &StopFlag::default()).map_err(|f| f.error)?;
    let rows = session
        .query("SELECT CURRENT_DATABASE() AS D, CURRENT_SCHEMA() AS S", Repeat::Harmless)
        .map_err(|f| f.error)?;
    for (what, wanted, column) in [("database", &config.database, "D"), ("schema", &config.schema, "S")] {
        if let Some(wanted) = wanted
            && rows.get(0, column).is_none()
        {
            return Err(Error::new(
                SqlState::UNDEFINED_OBJECT,
                format!(
                    "Snowflake's {what} \"{wanted}\" does not exist or is not accessible to {}",
                    config.user
                ),
            ));
        }
    }
    Ok(())
}

/// The sink that a definition asks for. Nothing is sent yet.
pub fn sink(def: &SinkDefinition, schema: &SchemaRef, key: &[usize]) -> Result<Box<dyn Sink>> {
    check_columns(schema)?;
    types::columns(schema)?;
    if let Some(format) = &def.format {
        return Err(Error::unsupported(format!("FORMAT {} of a SNOWFLAKE sink", format.name.to_uppercase())));
    }
    if def.envelope != Envelope::None {
        return Err(Error::unsupported("an ENVELOPE of a SNOWFLAKE sink"));
    }
    let mut options = Options::new("SNOWFLAKE sink", def.options.clone());
    let table = options.require("table")?;
    match options.take("mode").as_deref() {
        None | Some("merge") => {}
        Some(mode @ "snowpipe_streaming") => {
            check_appends(mode, key, def.append_only)?;
            return Ok(Box::new(StreamingSink::new(options, def, &table)?));
        }
        Some(mode @ "snowpipe") => {
            check_appends(mode, key, def.append_only)?;
            return Ok(Box::new(SnowpipeSink::new(options, def, &table)?));
        }
        Some(other) => {
            let message = format!(
                "option \"mode\" of SNOWFLAKE sink must be merge, snowpipe_streaming or snowpipe, not \"{other}\""
            );
            return Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, message));
        }
    }
    let names = Names::new(&table, def.uuid)?;
    let settings = Settings::take(&mut options, COMMIT_INTERVAL)?;
    let replace = may_replace(&mut options)?;
    let external = external_stage(&mut options)?;
    options.finish()?;
    let (external, names) = match external {
        Some((stage, bucket)) => (Some(bucket), names.with_stage(stage)),
        None => (None, names),
    };
    let config = Config::new(def.connection.clone())?;
    let target = target_key(&config, &names, &table);
    Ok(Box::new(SnowflakeSink { config, names, uuid: def.uuid, external, target, settings, replace }))
}

/// What two sinks into the same table both call it.
fn target_key(config: &Config, names: &Names, table: &str) -> String {
    // What is not said is the user's default; two users may have different ones.
    let whole = whole_name(table, config.database.as_deref(), config.schema.as_deref());
    let whole = whole.unwrap_or_else(|| format!("{} of {}", names.target, config.user.to_uppercase()));
    format!("{}/{whole}", config.base_url().to_lowercase())
}

/// The options `stage`, an external stage that is there, and `stage.url` and others, how we write where it points to.
fn external_stage(options: &mut Options) -> Result<Option<(String, Bucket)>> {
    let (stage, url) = (options.take("stage"), options.take("stage.url"));
    let store = options.take_prefixed("stage.");
    match (stage, url) {
        (None, None) if store.is_empty() => Ok(None),
        (Some(stage), Some(url)) => {
            let parts = crate::names::name_parts(&stage, str::to_uppercase).ok_or_else(|| {
                let message =
                    format!("option \"stage\" of SNOWFLAKE sink must be a stage's name, not \"{stage}\"");
                Error::new(SqlState::INVALID_PARAMETER_VALUE, message)
            })?;
            let name = parts.iter().map(|p| statements::quoted(p)).collect::<Vec<_>>().join(".");
            Ok(Some((name, Bucket::new(&url, store)?)))
        }
        _ => Err(Error::new(
            SqlState::INVALID_PARAMETER_VALUE,
            "options \"stage\" and \"stage.url\" of SNOWFLAKE sink go together",
        )
        .with_hint("stage names an external stage in Snowflake, stage.url the place that it points to.")),
    }
}

struct SnowflakeSink {
    config: Config,
    names: Names,
    uuid: uuid::Uuid,
    /// The place that an external stage points to; `None`: the stage is the sink's own.
    external: Option<Bucket>,
    target: String,
    settings: Settings,
    /// Whether rows that stand in the target before the first commit may be replaced.
    replace: bool,
}

impl Sink for SnowflakeSink {
    fn run(self: Box<Self>, cx: SinkContext) -> Result<()> {
        let shape = Shape::new(cx.schema.clone(), &cx.key, cx.append_only);
        let sink = SinkTag { name: cx.name.clone(), uuid: cx.uuid };
        let mut warehouse = Snowflake::new(self.config, self.names, shape.clone(), sink, self.replace)?;
        if let Some(bucket) = self.external {
            warehouse.stage_in(bucket)?;
        }
        sync::run(&mut warehouse, shape, &self.settings, cx)
    }

    fn target(&self) -> Option<String> {
        Some(self.target.clone())
    }

    fn verifies(&self) -> bool {
        true
    }

    fn clean_up(self: Box<Self>) -> Result<()> {
        if let Some(bucket) = &self.external {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
            bucket.remove(&runtime, &self.uuid.to_string());
        }
        apply::remove(&self.config, &self.names, self.external.is_none()).map_err(|f| f.error)
    }

    fn rhythm(&self) -> Option<Rhythm> {
        let form = Form::Parquet;
        Some(Rhythm { settings: self.settings.clone(), form })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(connection: &[(&str, &str)], name: &str, table: &str) -> String {
        let pairs = |p: &[(&str, &str)]| p.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        let mut connection: Vec<(String, String)> = pairs(connection);
        connection.push(("password".to_string(), "p".to_string()));
        let def = SinkDefinition {
            name: name.to_string(),
            uuid: uuid::Uuid::nil(),
            kind: "snowflake".to_string(),
            connection,
            options: pairs(&[("table", table)]),
            format: None,
            envelope: Envelope::None,
            append_only: false,
        };
        sink(&def, &types::test_schema(), &[]).unwrap().target().unwrap()
    }

    #[test]
    fn a_target_is_known_again_over_another_connection() {
        let ada = [("account", "Org-Acct"), ("user", "ada"), ("database", "d"), ("schema", "s")];
        let bob = [("account", "org-acct"), ("user", "bob"), ("role", "r"), ("database", "D")];
        assert_eq!(target(&ada, "one", "t"), target(&bob, "two", "s.T"));
        assert_ne!(target(&ada, "one", "t"), target(&bob, "two", "other.t"));
        let elsewhere = [("account", "org-acct2"), ("user", "ada"), ("database", "d"), ("schema", "s")];
        assert_ne!(target(&ada, "one", "t"), target(&elsewhere, "one", "t"));
        // Without a schema the name is the user's default one's.
        assert_ne!(target(&bob, "two", "t"), target(&ada, "one", "t"));
        assert_eq!(target(&bob, "two", "t"), target(&bob, "three", "T"));
    }
}
