//! The first copy of the tables: one transaction sees them all as of a known place in the binary log.
//!
//! MariaDB tells the place that belongs to a transaction's snapshot (`binlog_snapshot_file`, `_position`), so nobody is
//! kept waiting. MySQL does not: there commits are held up (`FLUSH TABLES WITH READ LOCK`) for as long as it takes to
//! begin the snapshot and to ask for the place, and let go before the first row is read.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};

use super::position::{GtidState, Position};
use super::settings::{Flavour, failed, said};
use super::tables::quoted;
use super::values::{RowText, Shape};
use crate::connectors::replicated::{Effect, RowBuilder};
use crate::connectors::{BadRecord, StopFlag};
use crate::error::{Error, Result, SqlState};

/// Rows between two looks at the stop flag.
const STOP_EVERY: u64 = 1024;

/// Copies the tables into their builders; the answer is where the log goes on.
///
/// # Errors
/// 08006 when the server fails, 42501 when MySQL may not be held up for the moment, 57014 when told to stop.
pub async fn copy(
    session: &mut Conn,
    flavour: Flavour,
    builders: &mut [RowBuilder],
    bad: &mut Vec<BadRecord>,
    stop: &StopFlag,
) -> Result<Position> {
    run(session, "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
    // A large table takes a while, and we may be slower than the server's patience.
    run(session, "SET SESSION net_write_timeout = 3600").await?;
    let position = match flavour {
        Flavour::Mariadb => begin_mariadb(session).await?,
        Flavour::Mysql => begin_mysql(session).await?,
    };
    for builder in builders {
        builder.truncate()?;
        let name = builder.output().upstream.clone();
        let (database, table) = name.split_once('.').unwrap_or(("", &name));
        let columns: Vec<String> =
            builder.output().schema.fields().iter().map(|f| quoted(f.name())).collect();
        let statement = format!("SELECT {} FROM {}.{}", columns.join(", "), quoted(database), quoted(table));
        let doing = |e: mysql_async::Error| failed(&format!("copying {name}"), &e);
        let mut rows = session.exec_iter(&statement, ()).await.map_err(doing)?;
        let shapes: Vec<Shape> = rows.columns_ref().iter().map(Shape::of_result).collect();
        let places: Vec<usize> = (0..columns.len()).collect();
        let key = builder.output().key.clone();
        let mut text = RowText::default();
        let mut count = 0u64;
        while let Some(row) = rows.next().await.map_err(doing)? {
            text.clear();
            for (value, shape) in row.unwrap().iter().zip(&shapes) {
                text.push(value, shape);
            }
            bad.extend(builder.push(Effect::Put, &text.tuple(&key), &places, "snapshot")?);
            count += 1;
            if count.is_multiple_of(STOP_EVERY) && stop.is_set() {
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
    Ok(Position { file, offset, gtid })
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
        Ok(Position { file, offset, gtid: None })
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
