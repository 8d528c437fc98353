//! The PostgreSQL sink: a table in PostgreSQL kept in step with a relation, every change exactly once.
//!
//! `INTO POSTGRES CONNECTION pg (table = 'public.t') KEY (id)`. A batch is copied into a temporary table of the
//! sink's session; one transaction moves the sink's row of `tidemill_progress`, in the target's schema, and
//! applies the batch. [`columns`] maps types, [`statements`] holds the SQL, [`apply`] is the transaction; the
//! loop around them is `connectors::warehouse::sync`.

pub mod apply;
pub mod columns;
pub mod statements;

use std::time::Duration;

use arrow::datatypes::SchemaRef;

use super::settings::Server;
use crate::connectors::warehouse::{Form, Rhythm, Settings, Shape, check_reserved, may_replace, sync};
use crate::connectors::{Envelope, Options, Sink, SinkContext, SinkDefinition};
use crate::error::{Error, Result};
use apply::PostgresTable;
use statements::Names;

/// A transaction a second is nothing to a database.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);

/// The sink that a definition asks for. Asks nobody.
///
/// # Errors
/// 22023 for options that are wrong; 0A000 for FORMAT or ENVELOPE, which a table does not have.
pub fn sink(def: &SinkDefinition, schema: &SchemaRef, _key: &[usize]) -> Result<Box<dyn Sink>> {
    check_reserved(schema)?;
    if def.format.is_some() || def.envelope != Envelope::None {
        return Err(Error::unsupported("FORMAT or ENVELOPE on a POSTGRES sink"));
    }
    let server = Server::from_options(def.connection.clone())?;
    let mut options = Options::new("POSTGRES sink", def.options.clone());
    let names = Names::new(&options.require("table")?)?;
    let settings = Settings::take(&mut options, COMMIT_INTERVAL)?;
    let replace = may_replace(&mut options)?;
    options.finish()?;
    Ok(Box::new(PostgresSink { server, names, uuid: def.uuid, settings, replace }))
}

struct PostgresSink {
    server: Server,
    names: Names,
    uuid: uuid::Uuid,
    settings: Settings,
    /// Whether rows that stand in the target before the first commit may be replaced.
    replace: bool,
}

impl Sink for PostgresSink {
    fn run(self: Box<Self>, cx: SinkContext) -> Result<()> {
        let shape = Shape::new(cx.schema.clone(), &cx.key, cx.append_only);
        let (name, uuid) = (cx.name.clone(), cx.uuid);
        let mut table = PostgresTable::new(self.server, self.names, shape.clone(), name, uuid, self.replace)?;
        sync::run(&mut table, shape, &self.settings, cx)
    }

    fn target(&self) -> Option<String> {
        Some(format!("{}/{}", self.server.place(), self.names.target))
    }

    fn verifies(&self) -> bool {
        true
    }

    fn clean_up(self: Box<Self>) -> Result<()> {
        apply::remove(&self.server, &self.names, self.uuid)
    }

    fn rhythm(&self) -> Option<Rhythm> {
        let form = Form::Rows(None);
        Some(Rhythm { settings: self.settings.clone(), form })
    }
}
