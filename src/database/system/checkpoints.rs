//! `tidemill.checkpoints`: the views' state as it was written down, and as the last restart took it up.

use crate::database::Database;
use crate::database::system::cells::Kind;
use crate::database::system::{Cell, Column, Definition};
use crate::error::Result;

pub(super) const RELATIONS: &[Definition] = &[Definition {
    name: "checkpoints",
    columns: &[
        Column("tick", Kind::Int),
        Column("action", Kind::Text),
        Column("at", Kind::Timestamp),
        Column("nodes", Kind::Int),
        Column("bytes", Kind::Int),
        Column("bytes_written", Kind::Int),
        Column("paused", Kind::Interval),
        Column("took", Kind::Interval),
        Column("error", Kind::Text),
    ],
    rows,
}];

fn rows(database: &Database) -> Result<Vec<Vec<Cell>>> {
    let duration = |d: std::time::Duration| Cell::Interval(i64::try_from(d.as_micros()).unwrap_or(i64::MAX));
    let checkpoints = database.engine.stats().checkpoints.into_iter();
    let row = checkpoints.map(|c| {
        vec![
            Cell::int(c.tick),
            Cell::text(if c.restored { "restored" } else { "written" }),
            Cell::Timestamp(c.at_micros),
            Cell::int(c.nodes as u64),
            Cell::int(c.bytes),
            Cell::int(c.bytes_written),
            duration(c.paused),
            duration(c.took),
            Cell::or_null(c.error.map(|e| e.to_string()), Cell::text),
        ]
    });
    Ok(row.collect())
}
