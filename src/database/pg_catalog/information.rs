//! `information_schema`: the standard's view of the same things.

use super::Context;
use super::classes::{Class, classes, schemas, view_definition};
use super::rows::{Rows, Value};
use crate::error::Result;
use crate::types::SqlType;

/// Relations that the standard knows: materialized views are none, as in PostgreSQL.
fn relations(cx: &Context) -> impl Iterator<Item = Class<'_>> {
    classes(cx).into_iter().filter(|c| matches!(c.kind, "r" | "v"))
}

pub fn tables(cx: &Context, out: &mut Rows) -> Result<()> {
    for class in relations(cx) {
        let is_table = class.kind == "r";
        let insertable = matches!(
            class.entry.map(|e| &e.object),
            Some(crate::sql::Object::Table(t)) if t.source.is_none()
        );
        out.push([
            ("table_catalog", cx.database.as_str().into()),
            ("table_schema", class.schema.into()),
            ("table_name", class.name.into()),
            ("table_type", if is_table { "BASE TABLE" } else { "VIEW" }.into()),
            ("is_insertable_into", yes(insertable)),
            ("is_typed", yes(false)),
        ])?;
    }
    Ok(())
}

pub fn columns(cx: &Context, out: &mut Rows) -> Result<()> {
    for class in relations(cx) {
        for (i, column) in class.columns.iter().enumerate() {
            let not_null = column.not_null || class.key.contains(&i);
            let sql_type = &column.data_type;
            let (precision, radix, scale) = numeric_shape(sql_type);
            out.push([
                ("table_catalog", cx.database.as_str().into()),
                ("table_schema", class.schema.into()),
                ("table_name", class.name.into()),
                ("column_name", column.name.as_str().into()),
                ("ordinal_position", (i as i32 + 1).into()),
                ("column_default", column.default.clone().into()),
                ("is_nullable", yes(!not_null)),
                ("data_type", data_type(sql_type).into()),
                ("character_maximum_length", length(sql_type).into()),
                ("numeric_precision", precision.into()),
                ("numeric_precision_radix", radix.into()),
                ("numeric_scale", scale.into()),
                ("datetime_precision", datetime_precision(sql_type).into()),
                ("udt_catalog", cx.database.as_str().into()),
                ("udt_schema", "pg_catalog".into()),
                ("udt_name", sql_type.internal_name().into()),
                ("dtd_identifier", (i + 1).to_string().into()),
                ("is_self_referencing", yes(false)),
                ("is_identity", yes(false)),
                ("identity_cycle", yes(false)),
                ("is_generated", "NEVER".into()),
                ("is_updatable", yes(class.kind == "r")),
            ])?;
        }
    }
    Ok(())
}

pub fn views(cx: &Context, out: &mut Rows) -> Result<()> {
    for class in relations(cx).filter(|c| c.kind == "v") {
        out.push([
            ("table_catalog", cx.database.as_str().into()),
            ("table_schema", class.schema.into()),
            ("table_name", class.name.into()),
            ("view_definition", view_definition(cx, class.oid).into()),
            ("check_option", "NONE".into()),
            ("is_updatable", yes(false)),
            ("is_insertable_into", yes(false)),
            ("is_trigger_updatable", yes(false)),
            ("is_trigger_deletable", yes(false)),
            ("is_trigger_insertable_into", yes(false)),
        ])?;
    }
    Ok(())
}

pub fn schemata(cx: &Context, out: &mut Rows) -> Result<()> {
    for schema in schemas(cx) {
        out.push([
            ("catalog_name", cx.database.as_str().into()),
            ("schema_name", schema.name.into()),
            ("schema_owner", schema.owner.unwrap_or(&cx.user).into()),
        ])?;
    }
    Ok(())
}

pub fn table_constraints(cx: &Context, out: &mut Rows) -> Result<()> {
    for class in relations(cx).filter(|c| !c.key.is_empty()) {
        out.push([
            ("constraint_catalog", cx.database.as_str().into()),
            ("constraint_schema", class.schema.into()),
            ("constraint_name", class.key_name().into()),
            ("table_catalog", cx.database.as_str().into()),
            ("table_schema", class.schema.into()),
            ("table_name", class.name.into()),
            ("constraint_type", "PRIMARY KEY".into()),
            ("is_deferrable", yes(false)),
            ("initially_deferred", yes(false)),
            ("enforced", yes(true)),
        ])?;
    }
    Ok(())
}

pub fn key_column_usage(cx: &Context, out: &mut Rows) -> Result<()> {
    key_columns(cx, |class, name, position| {
        out.push([
            ("constraint_catalog", cx.database.as_str().into()),
            ("constraint_schema", class.schema.into()),
            ("constraint_name", class.key_name().into()),
            ("table_catalog", cx.database.as_str().into()),
            ("table_schema", class.schema.into()),
            ("table_name", class.name.into()),
            ("column_name", name.into()),
            ("ordinal_position", position.into()),
        ])
    })
}

pub fn constraint_column_usage(cx: &Context, out: &mut Rows) -> Result<()> {
    key_columns(cx, |class, name, _| {
        out.push([
            ("table_catalog", cx.database.as_str().into()),
            ("table_schema", class.schema.into()),
            ("table_name", class.name.into()),
            ("column_name", name.into()),
            ("constraint_catalog", cx.database.as_str().into()),
            ("constraint_schema", class.schema.into()),
            ("constraint_name", class.key_name().into()),
        ])
    })
}

pub fn enabled_roles(cx: &Context, out: &mut Rows) -> Result<()> {
    out.push([("role_name", cx.user.as_str().into())])
}

/// Every column of every primary key, with its place in the key from 1.
fn key_columns(cx: &Context, mut each: impl FnMut(&Class<'_>, &str, i32) -> Result<()>) -> Result<()> {
    for class in relations(cx) {
        for (position, i) in (1..).zip(class.key) {
            if let Some(column) = class.columns.get(*i) {
                each(&class, &column.name, position)?;
            }
        }
    }
    Ok(())
}

fn yes(it_is: bool) -> Value {
    if it_is { "YES" } else { "NO" }.into()
}

/// The type's name without its modifier; arrays are just arrays.
fn data_type(sql_type: &SqlType) -> String {
    match sql_type {
        SqlType::Array(_) => "ARRAY".into(),
        SqlType::Numeric(_) => SqlType::Numeric(None).to_string(),
        SqlType::Varchar(_) => SqlType::Varchar(None).to_string(),
        SqlType::Char(_) => "character".into(),
        other => other.to_string(),
    }
}

fn length(sql_type: &SqlType) -> Option<u32> {
    match sql_type {
        SqlType::Varchar(n) => *n,
        SqlType::Char(n) => Some(*n),
        _ => None,
    }
}

/// Precision, its radix, scale.
fn numeric_shape(sql_type: &SqlType) -> (Option<i32>, Option<i32>, Option<i32>) {
    match sql_type {
        SqlType::Int2 => (Some(16), Some(2), Some(0)),
        SqlType::Int4 => (Some(32), Some(2), Some(0)),
        SqlType::Int8 => (Some(64), Some(2), Some(0)),
        SqlType::Float4 => (Some(24), Some(2), None),
        SqlType::Float8 => (Some(53), Some(2), None),
        SqlType::Numeric(Some((p, s))) => (Some((*p).into()), Some(10), Some((*s).into())),
        SqlType::Numeric(None) => (None, Some(10), None),
        _ => (None, None, None),
    }
}

fn datetime_precision(sql_type: &SqlType) -> Option<i32> {
    match sql_type {
        SqlType::Date => Some(0),
        SqlType::Time | SqlType::Timestamp | SqlType::Timestamptz | SqlType::Interval => Some(6),
        _ => None,
    }
}
