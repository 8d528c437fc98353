//! PostgreSQL as a source: a consistent snapshot, then logical replication (`pgoutput`), one upstream transaction
//! never split over ticks; and as a destination, in [`sink`].
//!
//! * [`settings`]: what the CONNECTION and the source say, and how to connect;
//! * [`tls`]: what it asks of TLS;
//! * [`tables`]: which tables a publication holds, with columns and keys;
//! * [`pgoutput`]: the messages of the replication stream;
//! * [`snapshot`]: the first copy, and which transactions are already in it;
//! * [`stream`]: the source itself.

pub mod pgoutput;
pub mod settings;
pub mod sink;
pub mod snapshot;
pub mod stream;
pub mod tables;
pub mod tls;

use arrow::datatypes::SchemaRef;

use super::{Discovered, Envelope, Source, SourceDefinition};
use crate::error::{Error, Result, SqlState};
use settings::{Server, SourceSettings};

/// Connects. Whether the server can be replicated from is asked when a source is made: a sink does not need it.
///
/// # Errors
/// 22023 for options that are wrong, 08006 when the server cannot be reached.
pub fn validate_connection(options: Vec<(String, String)>) -> Result<()> {
    let server = Server::from_options(options)?;
    settings::runtime()?.block_on(async { server.connect().await.map(|_| ()) })
}

/// The source that a definition describes. Asks nobody.
///
/// # Errors
/// 22023 for options that are wrong; 0A000 for FORMAT or ENVELOPE, which a replication stream does not have.
pub fn source(definition: &SourceDefinition, _schema: &SchemaRef) -> Result<Box<dyn Source>> {
    Ok(Box::new(stream::PostgresSource::new(parse(definition)?)))
}

/// The tables of the source's publication.
///
/// # Errors
/// As [`validate_connection`]; 55000 when `wal_level` is not `logical`; 42704 when there is no such publication.
pub fn discover(definition: &SourceDefinition) -> Result<Vec<Discovered>> {
    let settings = parse(definition)?;
    let tables = settings::runtime()?.block_on(async {
        let client = settings.server.connect().await?;
        settings::check_wal_level(&client).await?;
        tables::of_publication(&client, &settings.publication).await
    })?;
    if tables.is_empty() {
        return Err(Error::new(
            SqlState::UNDEFINED_OBJECT,
            format!("publication \"{}\" holds no table", settings.publication),
        )
        .with_hint(format!("Upstream: ALTER PUBLICATION {} ADD TABLE …", settings.publication)));
    }
    Ok(tables.into_iter().map(|t| t.upstream.into()).collect())
}

/// Removes the replication slot of a source that is dropped for good, so that the upstream keeps no WAL for it.
///
/// # Errors
/// 08006 when the server cannot be reached; 55006 when somebody else reads the slot.
pub fn drop_slot(definition: &SourceDefinition) -> Result<()> {
    let settings = parse(definition)?;
    settings::runtime()?.block_on(async {
        let client = settings.server.connect().await?;
        snapshot::drop_slot(&client, &settings.slot).await
    })
}

fn parse(definition: &SourceDefinition) -> Result<SourceSettings> {
    if definition.format.is_some() || definition.envelope != Envelope::None || !definition.includes.is_empty()
    {
        return Err(Error::unsupported("FORMAT, ENVELOPE or INCLUDE on a POSTGRES source"));
    }
    SourceSettings::new(definition)
}
