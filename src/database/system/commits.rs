//! `tidemill.sink_commits`: what each sink's newest commits were.

use std::time::Duration;

use crate::connectors::SinkCommit;
use crate::database::Database;
use crate::database::system::cells::Kind;
use crate::database::system::{Cell, Column, Definition};
use crate::error::Result;
use crate::sql::ast::ObjectKind;

pub(super) const RELATIONS: &[Definition] = &[Definition {
    name: "sink_commits",
    columns: &[
        Column("sink", Kind::Text),
        Column("committed_at", Kind::Timestamp),
        Column("tick_from", Kind::Int),
        Column("tick_to", Kind::Int),
        Column("rows", Kind::Int),
        Column("inserted", Kind::Int),
        Column("updated", Kind::Int),
        Column("deleted", Kind::Int),
        Column("bytes", Kind::Int),
        Column("files", Kind::Int),
        Column("attempts", Kind::Int),
        Column("encode_time", Kind::Interval),
        Column("stage_time", Kind::Interval),
        Column("load_time", Kind::Interval),
        Column("merge_time", Kind::Interval),
        Column("commit_time", Kind::Interval),
        Column("freshness", Kind::Interval),
        Column("query_ids", Kind::Texts),
    ],
    rows: sink_commits,
}];

fn sink_commits(database: &Database) -> Result<Vec<Vec<Cell>>> {
    let catalog = database.catalog();
    let of_sinks = catalog.of_kind(ObjectKind::Sink).into_iter().flat_map(|e| {
        let commits = database.workers.commits(e.id);
        commits.into_iter().map(|commit| row(&catalog.full_name(e), &commit)).collect::<Vec<_>>()
    });
    Ok(of_sinks.collect())
}

fn row(sink: &str, c: &SinkCommit) -> Vec<Cell> {
    let time = |d: Duration| Cell::Interval(i64::try_from(d.as_micros()).unwrap_or(i64::MAX));
    vec![
        Cell::text(sink),
        Cell::Timestamp(c.at_micros),
        Cell::or_null(c.from, Cell::int),
        Cell::int(c.to),
        Cell::int(c.rows),
        Cell::or_null(c.counts, |e| Cell::int(e.inserts)),
        Cell::or_null(c.counts, |e| Cell::int(e.updates)),
        Cell::or_null(c.counts, |e| Cell::int(e.deletes)),
        Cell::int(c.bytes),
        Cell::int(c.files),
        Cell::int(c.attempts),
        time(c.phases.encode),
        time(c.phases.stage),
        time(c.phases.load),
        time(c.phases.merge),
        time(c.phases.commit),
        Cell::Interval(c.freshness_micros),
        Cell::Texts(c.queries.clone()),
    ]
}
