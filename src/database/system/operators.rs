//! `tidemill.operators`: what each operator of the views does and keeps, and what bounds that.

use crate::database::Database;
use crate::database::system::cells::Kind;
use crate::database::system::objects::name_of;
use crate::database::system::{Cell, Column, Definition};
use crate::error::Result;
use crate::sql::ObjectId;

pub(super) const RELATIONS: &[Definition] = &[Definition {
    name: "operators",
    columns: &[
        Column("view", Kind::Text),
        Column("number", Kind::Int),
        Column("operator", Kind::Text),
        Column("keeps", Kind::Text),
        Column("rows", Kind::Int),
        Column("bytes", Kind::Int),
        Column("watermark", Kind::Timestamp),
        Column("late_rows", Kind::Int),
    ],
    rows,
}];

/// A row for each view that an operator works for; inputs keep their rows outside of operators.
fn rows(database: &Database) -> Result<Vec<Vec<Cell>>> {
    let (stats, catalog) = (database.engine.stats(), database.catalog());
    let mut rows = Vec::new();
    for (number, operator) in stats.operators.iter().enumerate() {
        for view in &operator.views {
            rows.push(vec![
                name_of(&catalog, ObjectId::from(*view)),
                Cell::int(number),
                Cell::text(&operator.does),
                Cell::or_null(operator.keeps.as_ref(), Cell::text),
                Cell::int(operator.rows),
                Cell::int(operator.bytes),
                Cell::or_null(operator.watermark, Cell::Timestamp),
                Cell::int(operator.late_rows),
            ]);
        }
    }
    Ok(rows)
}
