//! The Redshift sink: a table in Amazon Redshift kept in step with a relation, every change exactly once.
//!
//! `INTO REDSHIFT CONNECTION rs (table = 'public.t') KEY (id)`. A batch is written as Parquet files and a manifest into a
//! bucket of the user's; one transaction moves the sink's progress, loads the manifest and applies it. Redshift speaks
//! PostgreSQL's protocol. [`columns`] maps types, [`statements`] holds the SQL, [`apply`] is the transaction; the loop
//! around them is `connectors::warehouse::sync`.

pub mod apply;
pub mod columns;
pub mod statements;

use std::time::Duration;

use arrow::datatypes::SchemaRef;

use super::postgres::settings::Server;
use super::warehouse::bucket::Bucket;
use super::warehouse::{Form, Rhythm, Settings, Shape, check_columns, may_replace, sync};
use super::{Envelope, Options, Sink, SinkContext, SinkDefinition};
use crate::error::{Error, Result, SqlState};
use apply::{RedshiftTable, Stage};
use statements::Names;

/// A commit costs Redshift more than a row does.
const COMMIT_INTERVAL: Duration = Duration::from_secs(60);
/// Where Redshift listens unless told otherwise.
const PORT: u16 = 5439;

/// What a connection says: the cluster, and the stage that it reads from.
fn connection(options: Vec<(String, String)>) -> Result<(Server, Stage)> {
    let mut options = Options::new("REDSHIFT connection", options);
    // No session settings: Redshift knows few of PostgreSQL's, and refuses a session that asks for others.
    let server = Server::take(&mut options, PORT, "Redshift", "")?;
    let role = options.require("iam_role")?;
    let is_arn = |role: &str| role.starts_with("arn:") && !role.contains(['\'', ' ']);
    if role != "default" && !role.split(',').all(is_arn) {
        let message =
            format!("option \"iam_role\" must be an ARN, several with commas, or default, not \"{role}\"");
        return Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, message));
    }
    let url = options.require("stage")?;
    if !url.starts_with("s3://") {
        let message = format!("option \"stage\" must be like s3://bucket/prefix, not \"{url}\"");
        return Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, message));
    }
    let bucket = Bucket::new(&url, options.take_prefixed("stage."))?;
    options.finish()?;
    Ok((server, Stage { bucket, role }))
}

/// Connects.
///
/// # Errors
/// 22023 for options that are wrong, 08006 when the cluster cannot be reached.
pub fn validate_connection(options: Vec<(String, String)>) -> Result<()> {
    let (server, _) = connection(options)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async { server.connect().await.map(|_| ()) })
}

/// The sink that a definition asks for. Asks nobody.
///
/// # Errors
/// 22023 for options that are wrong; 0A000 for what Redshift has nothing for.
pub fn sink(def: &SinkDefinition, schema: &SchemaRef, key: &[usize]) -> Result<Box<dyn Sink>> {
    check_columns(schema)?;
    if def.format.is_some() || def.envelope != Envelope::None {
        return Err(Error::unsupported("FORMAT or ENVELOPE on a REDSHIFT sink"));
    }
    apply::check_key(&Shape::new(schema.clone(), key, false), &columns::columns(schema)?)?;
    let (server, stage) = connection(def.connection.clone())?;
    let mut options = Options::new("REDSHIFT sink", def.options.clone());
    let names = Names::new(&options.require("table")?, def.uuid)?;
    let settings = Settings::take(&mut options, COMMIT_INTERVAL)?;
    let replace = may_replace(&mut options)?;
    options.finish()?;
    Ok(Box::new(RedshiftSink { server, stage, names, uuid: def.uuid, settings, replace }))
}

struct RedshiftSink {
    server: Server,
    stage: Stage,
    names: Names,
    uuid: uuid::Uuid,
    settings: Settings,
    /// Whether rows that stand in the target before the first commit may be replaced.
    replace: bool,
}

impl Sink for RedshiftSink {
    fn run(self: Box<Self>, cx: SinkContext) -> Result<()> {
        let shape = Shape::new(cx.schema.clone(), &cx.key, cx.append_only);
        let who = (cx.name.clone(), cx.uuid);
        let mut table =
            RedshiftTable::new(self.server, self.stage, self.names, shape.clone(), who, self.replace)?;
        sync::run(&mut table, shape, &self.settings, cx)
    }

    fn target(&self) -> Option<String> {
        Some(format!("{}/{}", self.server.place(), self.names.target))
    }

    fn clean_up(self: Box<Self>) -> Result<()> {
        apply::remove(&self.server, &self.stage, &self.names, self.uuid)
    }

    fn rhythm(&self) -> Option<Rhythm> {
        let form = Form::Parquet;
        Some(Rhythm { settings: self.settings.clone(), form })
    }
}
