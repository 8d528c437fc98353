//! `pg_type`: the types that columns can have, and their arrays.

use super::Context;
use super::oids;
use super::rows::Rows;
use crate::error::Result;
use crate::types::SqlType;

/// How PostgreSQL keeps values of a type; clients and psql's `\d+` ask for it.
pub struct Shape {
    /// Passed by value.
    pub by_value: bool,
    /// c, s, i, d: char, short, int, double alignment.
    pub align: &'static str,
    /// p plain, x extended, m main.
    pub storage: &'static str,
    /// 0, or the default collation.
    pub collation: u32,
    /// A letter for a family of types.
    category: &'static str,
    /// The preferred type of its family.
    preferred: bool,
    /// b base, p pseudo.
    kind: &'static str,
    /// `typinput` and so on are called this, `in`, `out`, `recv`, `send`.
    function_stem: &'static str,
}

/// The shape of a type.
pub fn shape(sql_type: &SqlType) -> Shape {
    // by value, align, storage, collation, category, preferred, kind, function stem
    let (by_value, align, storage, collation, category, preferred, kind, function_stem) = match sql_type {
        SqlType::Bool => (true, "c", "p", 0, "B", true, "b", "bool"),
        SqlType::Bytea => (false, "i", "x", 0, "U", false, "b", "bytea"),
        SqlType::InternalChar => (true, "c", "p", 0, "Z", false, "b", "char"),
        SqlType::Name => (false, "c", "p", 950, "S", false, "b", "name"),
        SqlType::Int8 => (true, "d", "p", 0, "N", false, "b", "int8"),
        SqlType::Int2 => (true, "s", "p", 0, "N", false, "b", "int2"),
        SqlType::Int4 => (true, "i", "p", 0, "N", false, "b", "int4"),
        SqlType::Regproc => (true, "i", "p", 0, "N", false, "b", "regproc"),
        SqlType::Text => (false, "i", "x", 100, "S", true, "b", "text"),
        SqlType::Oid => (true, "i", "p", 0, "N", true, "b", "oid"),
        SqlType::Json => (false, "i", "x", 0, "U", false, "b", "json_"),
        SqlType::Float4 => (true, "i", "p", 0, "N", false, "b", "float4"),
        SqlType::Float8 => (true, "d", "p", 0, "N", true, "b", "float8"),
        SqlType::Unknown => (false, "c", "p", 0, "X", false, "p", "unknown"),
        SqlType::Char(_) => (false, "i", "x", 100, "S", false, "b", "bpchar"),
        SqlType::Varchar(_) => (false, "i", "x", 100, "S", false, "b", "varchar"),
        SqlType::Date => (true, "i", "p", 0, "D", false, "b", "date_"),
        SqlType::Time => (true, "d", "p", 0, "D", false, "b", "time_"),
        SqlType::Timestamp => (true, "d", "p", 0, "D", false, "b", "timestamp_"),
        SqlType::Timestamptz => (true, "d", "p", 0, "D", true, "b", "timestamptz_"),
        SqlType::Interval => (false, "d", "p", 0, "T", true, "b", "interval_"),
        SqlType::Numeric(_) => (false, "i", "m", 0, "N", false, "b", "numeric_"),
        SqlType::Regclass => (true, "i", "p", 0, "N", false, "b", "regclass"),
        SqlType::Regtype => (true, "i", "p", 0, "N", false, "b", "regtype"),
        SqlType::Record => (false, "d", "x", 0, "P", false, "p", "record_"),
        SqlType::Uuid => (false, "c", "p", 0, "U", false, "b", "uuid_"),
        SqlType::Jsonb => (false, "i", "x", 0, "U", false, "b", "jsonb_"),
        SqlType::Array(element) => (false, "i", "x", shape(element).collation, "A", false, "b", "array_"),
    };
    Shape { by_value, align, storage, collation, category, preferred, kind, function_stem }
}

/// Every type, without modifiers.
const TYPES: [SqlType; 27] = [
    SqlType::Bool,
    SqlType::Bytea,
    SqlType::InternalChar,
    SqlType::Name,
    SqlType::Int8,
    SqlType::Int2,
    SqlType::Int4,
    SqlType::Regproc,
    SqlType::Text,
    SqlType::Oid,
    SqlType::Json,
    SqlType::Float4,
    SqlType::Float8,
    SqlType::Unknown,
    SqlType::Char(1),
    SqlType::Varchar(None),
    SqlType::Date,
    SqlType::Time,
    SqlType::Timestamp,
    SqlType::Timestamptz,
    SqlType::Interval,
    SqlType::Numeric(None),
    SqlType::Regclass,
    SqlType::Regtype,
    SqlType::Record,
    SqlType::Uuid,
    SqlType::Jsonb,
];

pub fn pg_type(_: &Context, out: &mut Rows) -> Result<()> {
    for element in TYPES {
        let array = match element {
            SqlType::Unknown => None,
            ref element => Some(SqlType::Array(Box::new(element.clone()))),
        };
        push(out, &element, 0, array.as_ref().map_or(0, SqlType::oid))?;
        if let Some(array) = array {
            push(out, &array, element.oid(), 0)?;
        }
    }
    Ok(())
}

fn push(out: &mut Rows, sql_type: &SqlType, element: u32, array: u32) -> Result<()> {
    let shape = shape(sql_type);
    let function = |what: &str| format!("{}{what}", shape.function_stem);
    out.push([
        ("oid", sql_type.oid().into()),
        ("typname", sql_type.internal_name().into()),
        ("typnamespace", oids::PG_CATALOG.into()),
        ("typowner", oids::OWNER.into()),
        ("typlen", sql_type.size().into()),
        ("typbyval", shape.by_value.into()),
        ("typtype", shape.kind.into()),
        ("typcategory", shape.category.into()),
        ("typispreferred", shape.preferred.into()),
        ("typisdefined", true.into()),
        ("typdelim", ",".into()),
        ("typsubscript", if element == 0 { "-" } else { "array_subscript_handler" }.into()),
        ("typelem", element.into()),
        ("typarray", array.into()),
        ("typinput", function("in").into()),
        ("typoutput", function("out").into()),
        ("typreceive", function("recv").into()),
        ("typsend", function("send").into()),
        ("typmodin", "-".into()),
        ("typmodout", "-".into()),
        ("typanalyze", "-".into()),
        ("typalign", shape.align.into()),
        ("typstorage", shape.storage.into()),
        ("typtypmod", (-1).into()),
        ("typcollation", shape.collation.into()),
        ("tableoid", oids::PG_TYPE.into()),
    ])
}
