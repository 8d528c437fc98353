//! The first copy of the tables: one transaction sees them all as of a known place in the binary log.
//!
//! MariaDB tells the place that belongs to a transaction's snapshot (`binlog_snapshot_file`, `_position`), so nobody is
//! kept waiting. MySQL does not: there commits are held up (`FLUSH TABLES WITH READ LOCK`) for as long as it takes to
//! begin the snapshot and to ask for the place, and let go before the first row is read.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};

use super::position::{GtidState, Position};
use super::settings::{self, Flavour, failed, said};
use super::tables::{self, quoted};
use super::values::{RowText, Shape};
use crate::connectors::gathered::{CopyProgress, Gathered};
use crate::connectors::replicated::Effect;
use crate::connectors::shapes::{UpstreamTable, changed_before_copy, readable};
use crate::connectors::{SourceOutput, Status, StopFlag};
use crate::error::{Error, Result, SqlState};

/// About how many rows each table has.
const ROWS: &str = "
SELECT CONCAT(TABLE_SCHEMA, '.', TABLE_NAME), TABLE_ROWS FROM information_schema.TABLES WHERE TABLE_TYPE = 'BASE TABLE'";

/// Copies the tables into their builders; the answer is where the log goes on.
///
/// # Errors
/// 08006 when the server fails, 42501 when MySQL may not be held up for the moment, 57014 when told to stop.
pub async fn copy(
    session: &mut Conn,
    flavour: Flavour,
    upstream: &[UpstreamTable],
    gathered: &mut Gathered,
    status: &Status,
    stop: &StopFlag,
) -> Result<Position> {
    let Gathered { builders, bad } = gathered;
    run(session, "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
    // A large table takes a while, and we may be slower than the server's patience.
    run(session, "SET SESSION net_write_timeout = 3600").await?;
    let server = Some(settings::identity(session, flavour).await?);
    let position = match flavour {
        Flavour::Mariadb => begin_mariadb(session).await?,
        Flavour::Mysql => begin_mysql(session).await?,
    };
    let position = Position { server, ..position };
    // A column that the snapshot has and the copy leaves out would be missed for good; one that comes later is in the log.
    let outputs: Vec<SourceOutput> = builders.iter().map(|b| b.output().clone()).collect();
    if tables::of_outputs(session, &outputs).await? != upstream {
        return Err(changed_before_copy());
    }
    let counted: Vec<(String, Option<u64>)> =
        session.query(ROWS).await.map_err(|e| failed("counting the rows", &e))?;
    let ours = counted.into_iter().filter(|(name, _)| upstream.iter().any(|t| t.name == *name));
    let mut progress = CopyProgress::begin(status, ours.filter_map(|(_, rows)| rows).sum());
    for builder in builders {
        builder.truncate()?;
        let name = builder.output().upstream.clone();
        let Some(found) = upstream.iter().find(|t| t.name == name) else { continue };
        let (database, table) = name.split_once('.').unwrap_or(("", &name));
        let readable = readable(builder.output(), &found.schema);
        let columns: Vec<String> = readable.iter().map(|(_, name)| quoted(name)).collect();
        let statement = format!("SELECT {} FROM {}.{}", columns.join(", "), quoted(database), quoted(table));
        let doing = |e: mysql_async::Error| failed(&format!("copying {name}"), &e);
        let mut rows = session.exec_iter(&statement, ()).await.map_err(doing)?;
        let shapes: Vec<Shape> = rows.columns_ref().iter().map(Shape::of_result).collect();
        let place = |column| readable.iter().position(|(at, _)| *at == column).unwrap_or(usize::MAX);
        let places: Vec<usize> = (0..builder.output().schema.fields().len()).map(place).collect();
        let key: Vec<usize> = builder.output().key.iter().map(|k| places[*k]).collect();
        let mut text = RowText::default();
        while let Some(row) = rows.next().await.map_err(doing)? {
            text.clear();
            for (value, shape) in row.unwrap().iter().zip(&shapes) {
                text.push(value, shape);
            }
            bad.extend(builder.push(Effect::Put, &text.tuple(&key), &places, "snapshot")?);
            if progress.row() && stop.is_set() {
                return Err(Error::new(SqlState::QUERY_CANCELED, "the snapshot was interrupted"));
            }
        }
    }
    run(session, "COMMIT").await?;
    Ok(position)
}

async fn begin_mariadb(session: &mut Conn) -> Result<Position> {
    run(session, "START TRANSACTION WITH CONSISTENT SNAPSHOT").await?;
    let rows: Vec<(String, String)> = session
        .query("SHOW STATUS LIKE 'binlog_snapshot_%'")
        .await
        .map_err(|e| failed("asking for the snapshot's place in the binary log", &e))?;
    let value = |name: &str| {
        rows.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.clone()).ok_or_else(no_place)
    };
    let file = value("binlog_snapshot_file")?;
    let offset: u64 = value("binlog_snapshot_position")?.parse().map_err(|_| no_place())?;
    let gtid: Option<Option<String>> = session
        .exec_first("SELECT binlog_gtid_pos(?, ?)", (&file, offset))
        .await
        .map_err(|e| failed("asking for the snapshot's transaction number", &e))?;
    let gtid = gtid.flatten().map(|t| GtidState::parse(&t).ok_or_else(no_place)).transpose()?;
    Ok(Position { file, offset, gtid, server: None })
}

async fn begin_mysql(session: &mut Conn) -> Result<Position> {
    session.query_drop("FLUSH TABLES WITH READ LOCK").await.map_err(|e| {
        Error::new(
            SqlState("42501"),
            format!("beginning the snapshot: {}", said(&e)),
        )
        .with_hint("Upstream: GRANT RELOAD ON *.* TO the connection's user; commits are held up only while the snapshot begins.")
    })?;
    let begun = async {
        run(session, "START TRANSACTION WITH CONSISTENT SNAPSHOT").await?;
        // The statement changed its name in version 8.2.
        let row: Option<Row> = match session.query_first("SHOW BINARY LOG STATUS").await {
            Ok(row) => row,
            Err(_) => session
                .query_first("SHOW MASTER STATUS")
                .await
                .map_err(|e| failed("asking for the snapshot's place in the binary log", &e))?,
        };
        let row = row.ok_or_else(no_place)?;
        let file = row.get_opt::<String, _>(0).and_then(|v| v.ok()).ok_or_else(no_place)?;
        let offset = row.get_opt::<u64, _>(1).and_then(|v| v.ok()).ok_or_else(no_place)?;
        Ok(Position { file, offset, gtid: None, server: None })
    }
    .await;
    run(session, "UNLOCK TABLES").await?;
    begun
}

async fn run(session: &mut Conn, statement: &str) -> Result<()> {
    session.query_drop(statement).await.map_err(|e| failed(statement, &e))
}

fn no_place() -> Error {
    Error::new(
        SqlState::PROTOCOL_VIOLATION,
        "the server does not tell the snapshot's place in the binary log",
    )
}
