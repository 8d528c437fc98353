//! Relations, their columns, keys and indexes, as `pg_class` and its neighbours tell them.
//!
//! A table is a table; so is a source, with access method `source`. A primary key is an index and a constraint, as in
//! PostgreSQL, with oids derived from the table's.

use super::oids;
use super::rows::{Rows, Value};
use super::{Context, RELATIONS};
use crate::error::Result;
use crate::names::quote;
use crate::sql::catalog::{Column, Entry, Index, Object};
use crate::types::SqlType;

/// A relation with columns, whoever made it.
pub struct Class<'a> {
    pub oid: u32,
    pub schema: &'static str,
    pub schema_oid: u32,
    pub name: &'a str,
    /// `pg_class.relkind`.
    pub kind: &'static str,
    pub columns: Vec<Column>,
    /// Positions of the primary key's columns.
    pub key: &'a [usize],
    /// The user's object, if it is one.
    pub entry: Option<&'a Entry>,
}

impl Class<'_> {
    /// The name of the primary key's index and constraint.
    pub fn key_name(&self) -> String {
        format!("{}_pkey", self.name)
    }

    /// Its oid.
    pub fn key_oid(&self) -> u32 {
        self.oid | oids::PRIMARY_KEYS
    }

    /// The key's columns as SQL.
    fn key_columns(&self) -> String {
        let names = self.key.iter().filter_map(|i| self.columns.get(*i)).map(|c| quote(&c.name));
        names.collect::<Vec<_>>().join(", ")
    }
}

/// Every relation that has columns: the user's, then the system's.
pub fn classes(cx: &Context) -> Vec<Class<'_>> {
    let users = cx.catalog.entries().filter_map(|entry| {
        let kind = match &entry.object {
            Object::Table(_) => "r",
            Object::Source(_) if entry.is_collection() => "r",
            Object::View(_) => "v",
            Object::MaterializedView(_) => "m",
            _ => return None,
        };
        Some(Class {
            oid: entry.id.oid(),
            schema: "public",
            schema_oid: oids::PUBLIC,
            name: &entry.name,
            kind,
            columns: entry.columns().unwrap_or_default().to_vec(),
            key: entry.key(),
            entry: Some(entry),
        })
    });
    let postgres = RELATIONS.iter().map(|r| (r.schema, r.name, &r.columns));
    let ours = cx.system.iter().map(|(name, schema)| ("tidemill", name.as_str(), schema));
    let system =
        postgres.chain(ours).zip(oids::SYSTEM_RELATIONS..).map(|((schema, name, columns), oid)| Class {
            oid: if name == "pg_class" { oids::PG_CLASS } else { oid },
            schema,
            schema_oid: schema_oid(schema),
            name,
            kind: "v",
            columns: columns.fields().iter().map(|f| Column::from_field(f)).collect(),
            key: &[],
            entry: None,
        });
    users.chain(system).collect()
}

fn schema_oid(schema: &str) -> u32 {
    match schema {
        "pg_catalog" => oids::PG_CATALOG,
        "information_schema" => oids::INFORMATION_SCHEMA,
        _ => oids::TIDEMILL,
    }
}

/// The user's indexes, each with the relation it is on.
fn indexes(cx: &Context) -> impl Iterator<Item = (&Entry, &Index, &Entry)> {
    cx.catalog.entries().filter_map(|entry| match &entry.object {
        Object::Index(index) => Some((entry.as_ref(), index, cx.catalog.get(index.on)?.as_ref())),
        _ => None,
    })
}

/// `pg_get_indexdef`.
pub fn index_definition(cx: &Context, oid: u32) -> Option<String> {
    if let Some((entry, index, on)) = indexes(cx).find(|(entry, ..)| entry.id.oid() == oid) {
        let columns = index.columns.iter().map(|c| quote(c)).collect::<Vec<_>>().join(", ");
        return Some(format!(
            "CREATE INDEX {} ON public.{} USING btree ({columns})",
            quote(&entry.name),
            quote(&on.name)
        ));
    }
    let classes = classes(cx);
    let class = classes.iter().find(|c| !c.key.is_empty() && c.key_oid() == oid)?;
    Some(format!(
        "CREATE UNIQUE INDEX {} ON public.{} USING btree ({})",
        quote(&class.key_name()),
        quote(class.name),
        class.key_columns()
    ))
}

/// The name of an index's column, from 1.
pub fn index_column(cx: &Context, oid: u32, column: i64) -> Option<String> {
    let i = usize::try_from(column).ok()?.checked_sub(1)?;
    if let Some((_, index, _)) = indexes(cx).find(|(entry, ..)| entry.id.oid() == oid) {
        return index.columns.get(i).map(|c| quote(c));
    }
    let classes = classes(cx);
    let class = classes.iter().find(|c| !c.key.is_empty() && c.key_oid() == oid)?;
    class.columns.get(*class.key.get(i)?).map(|c| quote(&c.name))
}

/// `pg_get_constraintdef`: of a primary key, the only constraint there is.
pub fn constraint_definition(cx: &Context, oid: u32) -> Option<String> {
    let classes = classes(cx);
    let class = classes.iter().find(|c| !c.key.is_empty() && c.key_oid() == oid)?;
    Some(format!("PRIMARY KEY ({})", class.key_columns()))
}

/// `pg_get_viewdef`.
pub fn view_definition(cx: &Context, oid: u32) -> Option<String> {
    let entry = cx.catalog.entries().find(|entry| entry.id.oid() == oid)?;
    match &entry.object {
        Object::View(view) => Some(format!(" {};", view.query)),
        Object::MaterializedView(view) => Some(format!(" {};", view.query)),
        _ => None,
    }
}

/// What COMMENT ON says of the object, or of one of its columns (from 1; 0: of itself).
pub fn comment(cx: &Context, oid: u32, column: i32) -> Option<String> {
    let entry = cx.catalog.entries().find(|entry| entry.id.oid() == oid)?;
    match usize::try_from(column).ok()?.checked_sub(1) {
        None => entry.comment.clone(),
        Some(i) => entry.column_comments.get(&entry.columns()?.get(i)?.name).cloned(),
    }
}

/// The name of a relation by its oid, qualified unless it is found without.
pub fn class_name(cx: &Context, oid: u32) -> Option<String> {
    if let Some((entry, ..)) = indexes(cx).find(|(entry, ..)| entry.id.oid() == oid) {
        return Some(quote(&entry.name));
    }
    let classes = classes(cx);
    if let Some(class) = classes.iter().find(|c| c.oid == oid) {
        let visible = matches!(class.schema, "public" | "pg_catalog");
        let name = quote(class.name);
        return Some(if visible { name } else { format!("{}.{name}", class.schema) });
    }
    classes.iter().find(|c| !c.key.is_empty() && c.key_oid() == oid).map(|c| quote(&c.key_name()))
}

/// The oid of a relation by its name; without a schema it is looked up in `pg_catalog`, then in `public`.
pub fn class_oid(cx: &Context, schema: Option<&str>, name: &str) -> Option<u32> {
    let classes = classes(cx);
    let in_schema = |wanted: &str| {
        classes.iter().find(|c| c.schema == wanted && c.name == name).map(|c| c.oid).or_else(|| {
            let public = wanted == "public";
            let index =
                indexes(cx).find(|(entry, ..)| public && entry.name == name).map(|(e, ..)| e.id.oid());
            index.or_else(|| {
                let key = classes.iter().find(|c| public && !c.key.is_empty() && c.key_name() == name);
                key.map(Class::key_oid)
            })
        })
    };
    match schema {
        Some(schema) => in_schema(schema),
        None => in_schema("pg_catalog").or_else(|| in_schema("public")),
    }
}

pub fn pg_class(cx: &Context, out: &mut Rows) -> Result<()> {
    let has_index = |class: &Class<'_>| {
        !class.key.is_empty() || indexes(cx).any(|(_, index, _)| Some(index.on) == class.entry.map(|e| e.id))
    };
    for class in classes(cx) {
        let access = match class.entry.map(|e| &e.object) {
            Some(Object::Source(_)) => super::settings::SOURCE_ACCESS,
            Some(Object::View(_)) | None => 0,
            Some(_) => oids::HEAP,
        };
        out.push([
            ("oid", class.oid.into()),
            ("relname", class.name.into()),
            ("relnamespace", class.schema_oid.into()),
            ("relowner", oids::OWNER.into()),
            ("relam", access.into()),
            ("reltuples", (-1).into()),
            ("relhasindex", has_index(&class).into()),
            ("relpersistence", "p".into()),
            ("relkind", class.kind.into()),
            ("relnatts", (class.columns.len() as i32).into()),
            ("relispopulated", true.into()),
            ("relreplident", "d".into()),
            ("tableoid", oids::PG_CLASS.into()),
        ])?;
        if !class.key.is_empty() {
            index_class(out, class.key_oid(), &class.key_name(), class.key.len())?;
        }
    }
    for (entry, index, _) in indexes(cx) {
        index_class(out, entry.id.oid(), &entry.name, index.columns.len())?;
    }
    Ok(())
}

fn index_class(out: &mut Rows, oid: u32, name: &str, n_columns: usize) -> Result<()> {
    out.push([
        ("oid", oid.into()),
        ("relname", name.into()),
        ("relnamespace", oids::PUBLIC.into()),
        ("relowner", oids::OWNER.into()),
        ("relam", oids::BTREE.into()),
        ("relpersistence", "p".into()),
        ("relkind", "i".into()),
        ("relnatts", (n_columns as i32).into()),
        ("relispopulated", true.into()),
        ("relreplident", "n".into()),
        ("tableoid", oids::PG_CLASS.into()),
    ])
}

pub fn pg_attribute(cx: &Context, out: &mut Rows) -> Result<()> {
    for class in classes(cx) {
        for (i, column) in class.columns.iter().enumerate() {
            attribute(out, class.oid, i, column, column.not_null || class.key.contains(&i))?;
        }
        for (i, position) in class.key.iter().enumerate() {
            if let Some(column) = class.columns.get(*position) {
                attribute(out, class.key_oid(), i, column, false)?;
            }
        }
    }
    for (entry, index, on) in indexes(cx) {
        let columns = on.columns().unwrap_or_default();
        for (i, name) in index.columns.iter().enumerate() {
            if let Some(column) = columns.iter().find(|c| c.name == *name) {
                attribute(out, entry.id.oid(), i, column, false)?;
            }
        }
    }
    Ok(())
}

fn attribute(out: &mut Rows, class_oid: u32, i: usize, column: &Column, not_null: bool) -> Result<()> {
    let sql_type = &column.data_type;
    let shape = super::types::shape(sql_type);
    out.push([
        ("attrelid", class_oid.into()),
        ("attname", column.name.as_str().into()),
        ("atttypid", sql_type.oid().into()),
        ("attstattarget", (-1).into()),
        ("attlen", sql_type.size().into()),
        ("attnum", (i as i32 + 1).into()),
        ("attndims", i32::from(matches!(sql_type, SqlType::Array(_))).into()),
        ("attcacheoff", (-1).into()),
        ("atttypmod", sql_type.modifier().into()),
        ("attbyval", shape.by_value.into()),
        ("attalign", shape.align.into()),
        ("attstorage", shape.storage.into()),
        ("attcompression", "".into()),
        ("attnotnull", not_null.into()),
        ("atthasdef", column.default.is_some().into()),
        ("attidentity", "".into()),
        ("attgenerated", "".into()),
        ("attislocal", true.into()),
        ("attcollation", shape.collation.into()),
    ])
}

pub fn pg_attrdef(cx: &Context, out: &mut Rows) -> Result<()> {
    for class in classes(cx) {
        for (i, column) in class.columns.iter().enumerate() {
            if let Some(default) = &column.default {
                out.push([
                    ("oid", (class.oid | oids::PRIMARY_KEYS).into()),
                    ("adrelid", class.oid.into()),
                    ("adnum", (i as i32 + 1).into()),
                    ("adbin", default.as_str().into()),
                ])?;
            }
        }
    }
    Ok(())
}

pub fn pg_index(cx: &Context, out: &mut Rows) -> Result<()> {
    let mut push = |index: u32, on: u32, positions: Vec<i32>, primary: bool| {
        let n = positions.len();
        out.push([
            ("indexrelid", index.into()),
            ("indrelid", on.into()),
            ("indnatts", (n as i32).into()),
            ("indnkeyatts", (n as i32).into()),
            ("indisunique", primary.into()),
            ("indisprimary", primary.into()),
            ("indimmediate", true.into()),
            ("indisvalid", true.into()),
            ("indisready", true.into()),
            ("indislive", true.into()),
            ("indkey", positions.into()),
            ("indcollation", vec![0u32; n].into()),
            ("indclass", vec![0u32; n].into()),
            ("indoption", vec![0i16; n].into()),
        ])
    };
    for class in classes(cx).iter().filter(|c| !c.key.is_empty()) {
        push(class.key_oid(), class.oid, class.key.iter().map(|i| *i as i32 + 1).collect(), true)?;
    }
    for (entry, index, on) in indexes(cx) {
        let columns = on.columns().unwrap_or_default();
        let position =
            |name: &String| columns.iter().position(|c| c.name == *name).map_or(0, |i| i as i32 + 1);
        push(entry.id.oid(), on.id.oid(), index.columns.iter().map(position).collect(), false)?;
    }
    Ok(())
}

pub fn pg_constraint(cx: &Context, out: &mut Rows) -> Result<()> {
    for class in classes(cx).iter().filter(|c| !c.key.is_empty()) {
        let columns: Vec<i32> = class.key.iter().map(|i| *i as i32 + 1).collect();
        out.push([
            ("oid", class.key_oid().into()),
            ("conname", class.key_name().into()),
            ("connamespace", class.schema_oid.into()),
            ("contype", "p".into()),
            ("convalidated", true.into()),
            ("conrelid", class.oid.into()),
            ("conindid", class.key_oid().into()),
            ("confupdtype", " ".into()),
            ("confdeltype", " ".into()),
            ("confmatchtype", " ".into()),
            ("conislocal", true.into()),
            ("connoinherit", true.into()),
            ("conkey", columns.into()),
            ("tableoid", oids::PG_CONSTRAINT.into()),
        ])?;
    }
    Ok(())
}

pub fn pg_description(cx: &Context, out: &mut Rows) -> Result<()> {
    for entry in
        cx.catalog.entries().filter(|e| e.columns().is_some() || matches!(e.object, Object::Index(_)))
    {
        let columns = entry.columns().unwrap_or_default();
        let of_columns =
            columns.iter().zip(1..).filter_map(|(c, i)| Some((i, entry.column_comments.get(&c.name)?)));
        for (position, text) in entry.comment.iter().map(|text| (0, text)).chain(of_columns) {
            out.push([
                ("objoid", entry.id.oid().into()),
                ("classoid", oids::PG_CLASS.into()),
                ("objsubid", position.into()),
                ("description", text.as_str().into()),
            ])?;
        }
    }
    Ok(())
}

pub fn pg_depend(cx: &Context, out: &mut Rows) -> Result<()> {
    for entry in
        cx.catalog.entries().filter(|e| e.columns().is_some() || matches!(e.object, Object::Index(_)))
    {
        for used in &entry.uses {
            out.push([
                ("classid", oids::PG_CLASS.into()),
                ("objid", entry.id.oid().into()),
                ("refclassid", oids::PG_CLASS.into()),
                ("refobjid", used.oid().into()),
                ("deptype", "n".into()),
            ])?;
        }
    }
    Ok(())
}

pub fn pg_namespace(_: &Context, out: &mut Rows) -> Result<()> {
    for (oid, name) in SCHEMAS {
        out.push([
            ("oid", oid.into()),
            ("nspname", name.into()),
            ("nspowner", oids::OWNER.into()),
            ("tableoid", oids::PG_NAMESPACE.into()),
        ])?;
    }
    Ok(())
}

/// All schemas.
pub const SCHEMAS: [(u32, &str); 4] = [
    (oids::PG_CATALOG, "pg_catalog"),
    (oids::PUBLIC, "public"),
    (oids::INFORMATION_SCHEMA, "information_schema"),
    (oids::TIDEMILL, "tidemill"),
];

pub fn pg_tables(cx: &Context, out: &mut Rows) -> Result<()> {
    for class in classes(cx).iter().filter(|c| c.kind == "r") {
        out.push([
            ("schemaname", class.schema.into()),
            ("tablename", class.name.into()),
            ("tableowner", owner(cx, class).into()),
            ("hasindexes", (!class.key.is_empty()).into()),
        ])?;
    }
    Ok(())
}

pub fn pg_views(cx: &Context, out: &mut Rows) -> Result<()> {
    for class in classes(cx).iter().filter(|c| c.kind == "v") {
        out.push([
            ("schemaname", class.schema.into()),
            ("viewname", class.name.into()),
            ("viewowner", owner(cx, class).into()),
            ("definition", view_definition(cx, class.oid).into()),
        ])?;
    }
    Ok(())
}

pub fn pg_matviews(cx: &Context, out: &mut Rows) -> Result<()> {
    for class in classes(cx).iter().filter(|c| c.kind == "m") {
        let id = class.entry.map(|e| e.id);
        out.push([
            ("schemaname", class.schema.into()),
            ("matviewname", class.name.into()),
            ("matviewowner", owner(cx, class).into()),
            ("hasindexes", indexes(cx).any(|(_, index, _)| Some(index.on) == id).into()),
            ("ispopulated", true.into()),
            ("definition", view_definition(cx, class.oid).into()),
        ])?;
    }
    Ok(())
}

pub fn pg_indexes(cx: &Context, out: &mut Rows) -> Result<()> {
    let mut push = |table: &str, name: &str, definition: Option<String>| {
        out.push([
            ("schemaname", Value::from("public")),
            ("tablename", table.into()),
            ("indexname", name.into()),
            ("indexdef", definition.into()),
        ])
    };
    for class in classes(cx).iter().filter(|c| !c.key.is_empty()) {
        push(class.name, &class.key_name(), index_definition(cx, class.key_oid()))?;
    }
    for (entry, _, on) in indexes(cx) {
        push(&on.name, &entry.name, index_definition(cx, entry.id.oid()))?;
    }
    Ok(())
}

fn owner<'a>(cx: &'a Context, class: &Class<'a>) -> &'a str {
    class.entry.map_or(&cx.user, |e| &e.owner)
}
