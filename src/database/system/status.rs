//! How it is going: `tidemill.sources`, `sinks`, `materialized_views`, `status`.

use crate::connectors::StatusValues;
use crate::database::Database;
use crate::database::system::cells::Kind;
use crate::database::system::objects::name_of;
use crate::database::system::{Cell, Column, Definition};
use crate::error::Result;
use crate::sql::ast::ObjectKind;
use crate::sql::catalog::{Entry, Object};
use crate::{memory, world};

pub(super) const RELATIONS: &[Definition] = &[
    Definition {
        name: "sources",
        columns: &[
            Column("id", Kind::Int),
            Column("name", Kind::Text),
            Column("type", Kind::Text),
            Column("status", Kind::Text),
            Column("rows", Kind::Int),
            Column("bytes", Kind::Int),
            Column("bad_records", Kind::Int),
            Column("lag", Kind::Int),
            Column("event_time", Kind::Timestamp),
            Column("freshness", Kind::Interval),
            Column("on_error", Kind::Text),
            Column("watermark", Kind::Timestamp),
            Column("error", Kind::Text),
            Column("on_schema_change", Kind::Text),
            Column("copied_rows", Kind::Int),
            Column("copy_rows", Kind::Int),
        ],
        rows: sources,
    },
    Definition {
        name: "sinks",
        columns: &[
            Column("id", Kind::Int),
            Column("name", Kind::Text),
            Column("type", Kind::Text),
            Column("relation", Kind::Text),
            Column("target", Kind::Text),
            Column("status", Kind::Text),
            Column("rows_committed", Kind::Int),
            Column("bytes", Kind::Int),
            Column("commits", Kind::Int),
            Column("tick_committed", Kind::Int),
            Column("freshness", Kind::Interval),
            Column("event_time", Kind::Timestamp),
            Column("error", Kind::Text),
            Column("backlog_rows", Kind::Int),
            Column("backlog_bytes", Kind::Int),
            Column("backlog_disk_bytes", Kind::Int),
        ],
        rows: sinks,
    },
    Definition {
        name: "materialized_views",
        columns: &[
            Column("id", Kind::Int),
            Column("name", Kind::Text),
            Column("status", Kind::Text),
            Column("rows", Kind::Int),
            Column("state_rows", Kind::Int),
            Column("bytes", Kind::Int),
            Column("tick", Kind::Int),
            Column("row_errors", Kind::Int),
            Column("error", Kind::Text),
            Column("definition", Kind::Text),
            Column("comment", Kind::Text),
            Column("hydrated_rows", Kind::Int),
            Column("hydration_rows", Kind::Int),
        ],
        rows: materialized_views,
    },
    Definition {
        name: "status",
        columns: &[Column("name", Kind::Text), Column("value", Kind::Text)],
        rows: status,
    },
];

/// How a connector is doing, with what is to be said of one that was never started.
fn values(database: &Database, entry: &Entry) -> StatusValues {
    let mut values = database.workers.status(entry.id).unwrap_or_default();
    if values.state.is_empty() {
        values.state = "starting";
    }
    // An error is shown until it works again; a source that was paused meanwhile has none.
    if matches!(values.state, "running" | "paused" | "snapshot") {
        values.error = None;
    }
    values
}

fn sources(database: &Database) -> Result<Vec<Vec<Cell>>> {
    let now = world::now_micros();
    let stats = database.engine.stats();
    let watermark = |id| stats.collections.iter().find(|c| c.id == id).and_then(|c| c.watermark);
    let catalog = database.catalog();
    let rows = catalog.of_kind(ObjectKind::Source).into_iter().filter_map(|e| {
        let Object::Source(source) = &e.object else { return None };
        let s = values(database, e);
        let copied = (s.state == "snapshot").then_some(s.copied);
        Some(vec![
            Cell::int(e.id.0),
            Cell::text(catalog.full_name(e)),
            Cell::text(&source.kind),
            Cell::text(s.state),
            Cell::int(s.rows),
            Cell::int(s.bytes),
            Cell::int(s.bad_records),
            Cell::or_null(s.lag, Cell::int),
            Cell::or_null(s.event_time_micros, Cell::Timestamp),
            Cell::or_null(s.event_time_micros, |t| Cell::Interval(now.saturating_sub(t).max(0))),
            Cell::text(source.on_error.name()),
            Cell::or_null(watermark(e.id.collection()), Cell::Timestamp),
            Cell::or_null(s.error, Cell::text),
            match source.kind.as_str() {
                "postgres" | "mysql" => Cell::text(source.on_schema_change.name()),
                _ => Cell::Null,
            },
            Cell::or_null(copied, |(done, _)| Cell::int(done)),
            Cell::or_null(copied, |(_, total)| Cell::int(total)),
        ])
    });
    Ok(rows.collect())
}

/// What a sink writes to, as far as its options say it.
fn target(options: &crate::connectors::OptionList) -> Cell {
    let named = |wanted: &str| {
        options.iter().find_map(|(name, value)| match value {
            crate::connectors::OptionValue::Literal(text) if name == wanted => Some(text.clone()),
            _ => None,
        })
    };
    Cell::or_null(["table", "topic", "url", "path"].into_iter().find_map(named), Cell::text)
}

fn sinks(database: &Database) -> Result<Vec<Vec<Cell>>> {
    let catalog = database.catalog();
    let rows = catalog.of_kind(ObjectKind::Sink).into_iter().filter_map(|e| {
        let Object::Sink(sink) = &e.object else { return None };
        let s = values(database, e);
        let backlog = database.workers.followed(e.id).map(|f| f.backlog());
        Some(vec![
            Cell::int(e.id.0),
            Cell::text(catalog.full_name(e)),
            Cell::text(&sink.kind),
            name_of(&catalog, sink.from),
            target(&sink.options),
            Cell::text(s.state),
            Cell::int(s.rows),
            Cell::int(s.bytes),
            Cell::int(s.commits),
            Cell::or_null(s.tick_committed, Cell::int),
            Cell::or_null(s.freshness_micros, Cell::Interval),
            Cell::or_null(s.event_time_micros, Cell::Timestamp),
            Cell::or_null(s.error, Cell::text),
            Cell::or_null(backlog, |b| Cell::int(b.rows)),
            Cell::or_null(backlog, |b| Cell::int(b.memory_bytes)),
            Cell::or_null(backlog, |b| Cell::int(b.disk_bytes)),
        ])
    });
    Ok(rows.collect())
}

fn materialized_views(database: &Database) -> Result<Vec<Vec<Cell>>> {
    let stats = database.engine.stats();
    let snapshot = database.engine.snapshot();
    let failed = database.failed.lock().clone();
    let catalog = database.catalog();
    let mut hydrating = database.hydrating.lock().clone();
    let mut rows: Vec<Vec<Cell>> = Vec::new();
    for e in catalog.of_kind(ObjectKind::MaterializedView) {
        let Object::MaterializedView(view) = &e.object else { continue };
        let filled = hydrating.remove(&e.id).map(|new| new.hydration.rows());
        let id = e.id.collection();
        let numbers = stats.collections.iter().find(|c| c.id == id);
        let collection = snapshot.collection(id);
        let error = failed.get(&e.id).cloned().or_else(|| numbers.and_then(|n| n.failed.clone()));
        let row_errors = numbers.map_or(0, |n| n.errors);
        let state = match (&error, row_errors) {
            (Some(_), _) => "failed",
            (None, 0) => "running",
            (None, _) => "row errors",
        };
        rows.push(vec![
            Cell::int(e.id.0),
            Cell::text(catalog.full_name(e)),
            Cell::text(state),
            Cell::or_null(collection, |c| Cell::int(c.num_rows())),
            Cell::or_null(numbers, |n| Cell::int(n.state_rows)),
            Cell::or_null(numbers, |n| Cell::int(n.state_bytes)),
            Cell::or_null(numbers, |n| Cell::int(n.last_tick)),
            Cell::int(row_errors),
            Cell::or_null(error, |e| Cell::text(e.to_string())),
            Cell::Text(view.definition()),
            Cell::or_null(e.comment.as_ref(), Cell::text),
            Cell::or_null(filled, |(done, _)| Cell::int(done)),
            Cell::or_null(filled, |(_, total)| Cell::int(total)),
        ]);
    }
    // What is left is not in the catalog yet.
    for (id, new) in hydrating {
        let (done, total) = new.hydration.rows();
        let mut row = vec![Cell::int(id.0), Cell::text(&new.name), Cell::text("hydrating")];
        row.extend((3..9).map(|_| Cell::Null));
        row.extend([Cell::text(&new.query), Cell::Null, Cell::int(done), Cell::int(total)]);
        rows.push(row);
    }
    Ok(rows)
}

fn status(database: &Database) -> Result<Vec<Vec<Cell>>> {
    let stats = database.engine.stats();
    let state_bytes: usize = stats.collections.iter().map(|c| c.state_bytes).sum();
    let memory = memory::usage();
    let values = [
        ("version", env!("CARGO_PKG_VERSION").to_string()),
        ("data_dir", database.config.data_dir.display().to_string()),
        ("tick", stats.tick.to_string()),
        ("durable_tick", stats.durable_tick.to_string()),
        ("queued_rows", stats.queued_rows.to_string()),
        ("state_bytes", state_bytes.to_string()),
        ("journal_bytes", stats.journal_bytes.to_string()),
        ("journal_base_bytes", stats.base_bytes.to_string()),
        ("memory_limit_bytes", memory.limit.to_string()),
        ("memory_resident_bytes", memory.resident.to_string()),
        ("memory_paged_bytes", memory.paged.to_string()),
    ];
    Ok(values.into_iter().map(|(name, value)| vec![Cell::text(name), Cell::Text(value)]).collect())
}
