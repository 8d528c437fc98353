//! Which PostgreSQL type holds which column, whether an existing column will do, and rows as COPY reads them.

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{Field, SchemaRef};

use crate::error::Result;
use crate::types::SqlType;
use crate::types::{escape_copy_text, write_text};

/// A column of the target.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its name, as it is.
    pub name: String,
    /// Its type where the sink makes it.
    pub sql_type: SqlType,
    /// Whether it can be NULL.
    pub nullable: bool,
}

/// The columns of a target, in the relation's order.
pub fn columns(schema: &SchemaRef) -> Vec<Column> {
    let column = |f: &Field| Column {
        name: f.name().clone(),
        sql_type: stored(SqlType::of(f)),
        nullable: f.is_nullable(),
    };
    schema.fields().iter().map(|f| column(f)).collect()
}

/// What only has a meaning inside this database becomes text.
fn stored(sql_type: SqlType) -> SqlType {
    match sql_type {
        SqlType::Name
        | SqlType::InternalChar
        | SqlType::Regclass
        | SqlType::Regtype
        | SqlType::Regproc
        | SqlType::Record
        | SqlType::Unknown => SqlType::Text,
        SqlType::Array(element) => SqlType::Array(Box::new(stored(*element))),
        other => other,
    }
}

/// A column that is there already.
#[derive(Clone, Debug)]
pub struct Existing {
    /// Its name.
    pub name: String,
    /// `pg_attribute.atttypid`.
    pub oid: u32,
    /// `pg_attribute.atttypmod`.
    pub modifier: i32,
    /// The type as PostgreSQL prints it.
    pub printed: String,
    /// NOT NULL without a default.
    pub demanding: bool,
}

/// Whether an existing column holds every value of ours as it is, or refuses it; never one that is cut or rounded.
pub fn takes(there: &Existing, ours: &SqlType) -> bool {
    SqlType::from_oid(there.oid).is_some_and(|theirs| holds(&theirs, there.modifier, ours))
}

fn holds(theirs: &SqlType, modifier: i32, ours: &SqlType) -> bool {
    let any = modifier < 0;
    match (ours, theirs) {
        (SqlType::Array(ours), SqlType::Array(theirs)) => holds(theirs, modifier, ours),
        (SqlType::Int2, SqlType::Int2 | SqlType::Int4 | SqlType::Int8)
        | (SqlType::Int4, SqlType::Int4 | SqlType::Int8)
        | (SqlType::Int8, SqlType::Int8)
        | (SqlType::Float4, SqlType::Float4 | SqlType::Float8)
        | (SqlType::Float8, SqlType::Float8)
        | (SqlType::Json | SqlType::Jsonb, SqlType::Json | SqlType::Jsonb) => true,
        (SqlType::Int2 | SqlType::Int4 | SqlType::Int8, SqlType::Numeric(_)) => any,
        (SqlType::Numeric(ours), SqlType::Numeric(_)) => {
            any || ours.is_some_and(|(p, s)| {
                let packed = modifier - 4;
                let (precision, scale) = ((packed >> 16) & 0xffff, packed & 0x7ff);
                let (p, s) = (i32::from(p), i32::from(s));
                scale >= s && precision - scale >= p - s
            })
        }
        // Text that is too long is refused.
        (SqlType::Text | SqlType::Varchar(_) | SqlType::Char(_), SqlType::Text | SqlType::Varchar(_)) => true,
        (SqlType::Char(n), SqlType::Char(_)) => any || modifier - 4 == i32::try_from(*n).unwrap_or(-1),
        (SqlType::Time, SqlType::Time)
        | (SqlType::Timestamp, SqlType::Timestamp)
        | (SqlType::Timestamptz, SqlType::Timestamptz) => any || modifier == 6,
        (ours, theirs) => ours == theirs && any,
    }
}

/// Appends rows in COPY's text format.
pub fn copy_rows(rows: &RecordBatch, from: usize, to: usize, out: &mut Vec<u8>) -> Result<()> {
    let schema = rows.schema_ref();
    let mut value = Vec::new();
    for row in from..to {
        for (i, column) in rows.columns().iter().enumerate() {
            if i > 0 {
                out.push(b'\t');
            }
            if column.is_null(row) {
                out.extend_from_slice(b"\\N");
                continue;
            }
            value.clear();
            write_text(schema.field(i), column.as_ref(), row, &mut value)?;
            escape_copy_text(&value, b'\t', out);
        }
        out.push(b'\n');
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_takes_what_it_can_hold_or_refuse_and_nothing_that_it_would_change() {
        let numeric = |p: i32, s: i32| ((p << 16) | s) + 4;
        let there = |oid, modifier| Existing {
            name: "c".into(),
            oid,
            modifier,
            printed: String::new(),
            demanding: false,
        };
        for (ours, oid, modifier, fits) in [
            (SqlType::Int4, 20, -1, true),
            (SqlType::Int8, 23, -1, false),
            (SqlType::Int8, 1700, -1, true),
            (SqlType::Int8, 1700, numeric(38, 2), false),
            (SqlType::Numeric(Some((12, 2))), 1700, numeric(14, 3), true),
            (SqlType::Numeric(Some((12, 2))), 1700, numeric(12, 3), false),
            (SqlType::Numeric(Some((12, 2))), 1700, numeric(12, 1), false),
            (SqlType::Numeric(None), 1700, numeric(38, 9), false),
            (SqlType::Numeric(None), 1700, -1, true),
            (SqlType::Numeric(None), 701, -1, false),
            (SqlType::Float8, 700, -1, false),
            (SqlType::Text, 1043, 14, true),
            (SqlType::Text, 1042, 14, false),
            (SqlType::Char(10), 1042, 14, true),
            (SqlType::Timestamptz, 1184, 3, false),
            (SqlType::Timestamptz, 1184, 6, true),
            (SqlType::Timestamptz, 1114, -1, false),
            (SqlType::Jsonb, 114, -1, true),
            (SqlType::Uuid, 2950, -1, true),
            (SqlType::Uuid, 25, -1, false),
            (SqlType::Array(Box::new(SqlType::Int4)), 1016, -1, true),
            (SqlType::Array(Box::new(SqlType::Int8)), 1007, -1, false),
            (SqlType::Text, 424_242, -1, false),
        ] {
            assert_eq!(takes(&there(oid, modifier), &ours), fits, "{ours} in {oid} {modifier}");
        }
    }
}
