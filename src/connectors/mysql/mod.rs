//! MySQL and MariaDB as a source: a consistent snapshot, then the binary log's row events, one upstream transaction
//! never split over ticks.
//!
//! * [`settings`]: what the CONNECTION and the source say, how to connect, and what the server must be set to;
//! * [`tables`]: which tables there are, with columns and keys;
//! * [`position`]: places in the binary log;
//! * [`values`]: the log's and the snapshot's values as PostgreSQL's text;
//! * [`layout`]: the columns of a table as the log describes them before each group of rows;
//! * [`statements`]: what the statements in the log mean to the tables that are followed;
//! * [`snapshot`]: the first copy;
//! * [`stream`]: the source itself.

pub mod layout;
pub mod position;
pub mod settings;
pub mod snapshot;
pub mod statements;
pub mod stream;
pub mod tables;
pub mod values;

use arrow::datatypes::SchemaRef;

use super::{Discovered, Envelope, Source, SourceDefinition};
use crate::error::{Error, Result, SqlState};
use settings::{Server, SourceSettings};

/// Connects, and checks that the server writes a log that can be followed.
///
/// # Errors
/// 22023 for options that are wrong, 08006 with the server's words when it cannot be reached, 55000 when its log
/// does not hold whole rows.
pub fn validate_connection(options: Vec<(String, String)>) -> Result<()> {
    let server = Server::from_options(options)?;
    settings::runtime()?.block_on(async {
        let mut session = server.connect().await?;
        let checked = settings::check_log(&mut session).await;
        settings::end(session).await;
        checked.map(|_| ())
    })
}

/// The source that a definition describes. Asks nobody.
///
/// # Errors
/// 22023 for options that are wrong; 0A000 for FORMAT or ENVELOPE, which a binary log does not have.
pub fn source(definition: &SourceDefinition, _schema: &SchemaRef) -> Result<Box<dyn Source>> {
    Ok(Box::new(stream::MysqlSource::new(parse(definition)?)))
}

/// The tables that the source's option `tables` names.
///
/// # Errors
/// As [`validate_connection`]; 42P01 when there is no such table; 0A000 for a column of a type without a counterpart.
pub fn discover(definition: &SourceDefinition) -> Result<Vec<Discovered>> {
    let settings = parse(definition)?;
    let found = settings::runtime()?.block_on(async {
        let mut session = settings.server.connect().await?;
        let found = async {
            settings::check_log(&mut session).await?;
            tables::matching(&mut session, &settings.tables).await
        }
        .await;
        settings::end(session).await;
        found
    })?;
    if found.is_empty() {
        return Err(Error::new(
            SqlState::UNDEFINED_TABLE,
            format!("no table of the MySQL server matches '{}'", settings.tables),
        )
        .with_hint("tables = 'database.*' or 'database.table, database.other'; the user must be allowed to SELECT from them."));
    }
    Ok(found.into_iter().map(Discovered::from).collect())
}

fn parse(definition: &SourceDefinition) -> Result<SourceSettings> {
    if definition.format.is_some() || definition.envelope != Envelope::None || !definition.includes.is_empty()
    {
        return Err(Error::unsupported("FORMAT, ENVELOPE or INCLUDE on a MYSQL source"));
    }
    SourceSettings::new(definition)
}
