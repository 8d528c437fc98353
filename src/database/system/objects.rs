//! What was created: `tidemill.tables`, `views`, `columns`, `connections`, `secrets`, `indexes`.

use crate::database::Database;
use crate::database::system::cells::Kind;
use crate::database::system::{Cell, Column, Definition};
use crate::engine::CollectionId;
use crate::error::Result;
use crate::sql::catalog::{Entry, Object};
use crate::sql::{Catalog, ObjectId};

pub(super) const RELATIONS: &[Definition] = &[
    Definition {
        name: "tables",
        columns: &[
            Column("id", Kind::Int),
            Column("name", Kind::Text),
            Column("source", Kind::Text),
            Column("rows", Kind::Int),
            Column("watermark", Kind::Timestamp),
            Column("comment", Kind::Text),
            Column("upstream_differs", Kind::Text),
        ],
        rows: tables,
    },
    Definition {
        name: "views",
        columns: &[
            Column("id", Kind::Int),
            Column("name", Kind::Text),
            Column("definition", Kind::Text),
            Column("comment", Kind::Text),
        ],
        rows: views,
    },
    Definition {
        name: "columns",
        columns: &[
            Column("relation", Kind::Text),
            Column("position", Kind::Int),
            Column("name", Kind::Text),
            Column("type", Kind::Text),
            Column("nullable", Kind::Bool),
            Column("default", Kind::Text),
            Column("comment", Kind::Text),
        ],
        rows: columns,
    },
    Definition {
        name: "connections",
        columns: &[
            Column("id", Kind::Int),
            Column("name", Kind::Text),
            Column("type", Kind::Text),
            Column("used_by", Kind::Int),
            Column("comment", Kind::Text),
        ],
        rows: connections,
    },
    Definition {
        name: "secrets",
        columns: &[Column("id", Kind::Int), Column("name", Kind::Text), Column("comment", Kind::Text)],
        rows: secrets,
    },
    Definition {
        name: "indexes",
        columns: &[
            Column("id", Kind::Int),
            Column("name", Kind::Text),
            Column("relation", Kind::Text),
            Column("columns", Kind::Text),
        ],
        rows: indexes,
    },
];

/// The name of an object, with its schema unless that is `public`.
pub(super) fn name_of(catalog: &Catalog, id: ObjectId) -> Cell {
    Cell::or_null(catalog.get(id), |e| Cell::text(catalog.full_name(e)))
}

fn comment(entry: &Entry) -> Cell {
    Cell::or_null(entry.comment.as_ref(), Cell::text)
}

/// Objects of one kind as rows.
fn each(database: &Database, row: impl Fn(&Catalog, &Entry) -> Option<Vec<Cell>>) -> Result<Vec<Vec<Cell>>> {
    let catalog = database.catalog();
    Ok(catalog.entries().filter_map(|e| row(&catalog, e)).collect())
}

fn tables(database: &Database) -> Result<Vec<Vec<Cell>>> {
    let (snapshot, stats) = (database.engine.snapshot(), database.engine.stats());
    let watermark = |id| stats.collections.iter().find(|c| c.id == id).and_then(|c| c.watermark);
    let differs = |source: Option<ObjectId>, e: &Entry| {
        let status = database.workers.status(source?)?;
        let of = |(id, _): &(CollectionId, String)| *id == e.id.collection();
        status.differences.into_iter().find(of).map(|(_, what)| what)
    };
    each(database, |catalog, e| {
        let Object::Table(table) = &e.object else { return None };
        let rows = snapshot.collection(e.id.collection()).map(|c| c.num_rows());
        Some(vec![
            Cell::int(e.id.0),
            Cell::text(catalog.full_name(e)),
            Cell::or_null(table.source.as_ref(), |(id, _)| name_of(catalog, *id)),
            Cell::or_null(rows, Cell::int),
            Cell::or_null(watermark(e.id.collection()), Cell::Timestamp),
            comment(e),
            Cell::or_null(differs(table.source.as_ref().map(|(id, _)| *id), e), Cell::Text),
        ])
    })
}

fn views(database: &Database) -> Result<Vec<Vec<Cell>>> {
    each(database, |catalog, e| {
        let Object::View(view) = &e.object else { return None };
        Some(vec![Cell::int(e.id.0), Cell::text(catalog.full_name(e)), Cell::text(&view.query), comment(e)])
    })
}

fn columns(database: &Database) -> Result<Vec<Vec<Cell>>> {
    let catalog = database.catalog();
    let mut rows = Vec::new();
    for entry in catalog.entries() {
        for (i, c) in entry.columns().unwrap_or_default().iter().enumerate() {
            rows.push(vec![
                Cell::text(catalog.full_name(entry)),
                Cell::int(i + 1),
                Cell::text(&c.name),
                Cell::text(c.data_type.to_string()),
                Cell::Bool(!c.not_null),
                Cell::or_null(c.default.as_ref(), Cell::text),
                Cell::or_null(entry.column_comments.get(&c.name), Cell::text),
            ]);
        }
    }
    Ok(rows)
}

fn connections(database: &Database) -> Result<Vec<Vec<Cell>>> {
    each(database, |catalog, e| {
        let Object::Connection(connection) = &e.object else { return None };
        Some(vec![
            Cell::int(e.id.0),
            Cell::text(catalog.full_name(e)),
            Cell::text(&connection.kind),
            Cell::int(catalog.dependants(e.id).len()),
            comment(e),
        ])
    })
}

fn secrets(database: &Database) -> Result<Vec<Vec<Cell>>> {
    each(database, |catalog, e| {
        let Object::Secret(_) = &e.object else { return None };
        Some(vec![Cell::int(e.id.0), Cell::text(catalog.full_name(e)), comment(e)])
    })
}

fn indexes(database: &Database) -> Result<Vec<Vec<Cell>>> {
    each(database, |catalog, e| {
        let Object::Index(index) = &e.object else { return None };
        Some(vec![
            Cell::int(e.id.0),
            Cell::text(catalog.full_name(e)),
            name_of(catalog, index.on),
            Cell::text(index.columns.join(", ")),
        ])
    })
}
