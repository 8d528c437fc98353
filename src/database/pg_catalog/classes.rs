//! Relations, their columns, keys and indexes, as `pg_class` and its neighbours tell them.
//!
//! A table is a table; so is a source, with access method `source`. A primary key is an index and a constraint, as in
//! PostgreSQL, with oids derived from the table's.

use super::oids;
use super::rows::{Rows, Value};
use super::{Context, RELATIONS};
use crate::error::Result;
use crate::names::quote;
use crate::sql::catalog::{Column, Entry, Index, Object, ObjectId};
use crate::types::SqlType;

/// A relation with columns, whoever made it.
pub struct Class<'a> {
    pub oid: u32,
    pub schema: &'a str,
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
        let (schema_oid, schema) = schema_of(cx, entry);
        Some(Class {
            oid: entry.id.oid(),
            schema,
            schema_oid,
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

/// The schema of a user's object.
fn schema_of<'a>(cx: &'a Context, entry: &Entry) -> (u32, &'a str) {
    let name = cx.catalog.get(entry.schema).map_or("public", |schema| schema.name.as_str());
    (namespace_oid(entry.schema), name)
}

/// The oid of a user's schema.
fn namespace_oid(schema: ObjectId) -> u32 {
    if schema == ObjectId::PUBLIC { oids::PUBLIC } else { schema.oid() }
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
            "CREATE INDEX {} ON {} USING btree ({columns})",
            quote(&entry.name),
            cx.catalog.qualified(on)
        ));
    }
    let classes = classes(cx);
    let class = classes.iter().find(|c| !c.key.is_empty() && c.key_oid() == oid)?;
    Some(format!(
        "CREATE UNIQUE INDEX {} ON {}.{} USING btree ({})",
        quote(&class.key_name()),
        quote(class.schema),
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
        Object::MaterializedView(view) => Some(format!(" {};", view.definition())),
        _ => None,
    }
}

/// What COMMENT ON says of the object, or of one of its columns (from 1; 0: of itself).
pub fn comment(cx: &Context, oid: u32, column: i32) -> Option<String> {
    let is_it = |entry: &&std::sync::Arc<Entry>| match entry.object {
        Object::Schema => namespace_oid(entry.id) == oid,
        _ => entry.id.oid() == oid,
    };
    let entry = cx.catalog.entries().find(is_it)?;
    match usize::try_from(column).ok()?.checked_sub(1) {
        None => entry.comment.clone(),
        Some(i) => entry.column_comments.get(&entry.columns()?.get(i)?.name).cloned(),
    }
}

/// The name of a relation by its oid, qualified unless it is found without.
pub fn class_name(cx: &Context, oid: u32) -> Option<String> {
    let (schema, name) = place_of(cx, oid)?;
    let visible = class_oid(cx, None, &name) == Some(oid);
    let quoted = quote(&name);
    Some(if visible { quoted } else { format!("{}.{quoted}", quote(&schema)) })
}

/// Whether a relation is found by its bare name; `None`: there is none of that oid.
pub fn is_visible(cx: &Context, oid: u32) -> Option<bool> {
    if let Some(entry) = cx.catalog.entries().find(|e| e.id.oid() == oid) {
        let hidden = super::relation("pg_catalog", &entry.name).is_some();
        return Some(!hidden && cx.catalog.shown(entry) == entry.name);
    }
    let (_, name) = place_of(cx, oid)?;
    Some(class_oid(cx, None, &name) == Some(oid))
}

/// The schema and name of a relation or an index by its oid.
fn place_of(cx: &Context, oid: u32) -> Option<(String, String)> {
    if let Some((entry, ..)) = indexes(cx).find(|(entry, ..)| entry.id.oid() == oid) {
        return Some((schema_of(cx, entry).1.to_string(), entry.name.clone()));
    }
    let classes = classes(cx);
    if let Some(class) = classes.iter().find(|c| c.oid == oid) {
        return Some((class.schema.to_string(), class.name.to_string()));
    }
    let key = classes.iter().find(|c| !c.key.is_empty() && c.key_oid() == oid)?;
    Some((key.schema.to_string(), key.key_name()))
}

/// The oid of a relation by its name; without a schema it is looked up in `pg_catalog`, then along the path.
pub fn class_oid(cx: &Context, schema: Option<&str>, name: &str) -> Option<u32> {
    let classes = classes(cx);
    let in_schema = |wanted: &str| {
        let class = classes.iter().find(|c| c.schema == wanted && c.name == name).map(|c| c.oid);
        let index = || {
            let mut found = indexes(cx).filter(|(e, ..)| e.name == name && schema_of(cx, e).1 == wanted);
            found.next().map(|(e, ..)| e.id.oid())
        };
        let key = || {
            let mut keys = classes.iter().filter(|c| c.schema == wanted && !c.key.is_empty());
            keys.find(|c| c.key_name() == name).map(Class::key_oid)
        };
        class.or_else(index).or_else(key)
    };
    match schema {
        Some(schema) => in_schema(schema),
        None => search_path(cx).into_iter().find_map(in_schema),
    }
}

/// The schemas that names without one are looked for in; `pg_catalog` comes first unless it is in the path.
pub fn search_path(cx: &Context) -> Vec<&str> {
    let path = cx.catalog.path_names();
    let implicit = if path.contains(&"pg_catalog") { None } else { Some("pg_catalog") };
    implicit.into_iter().chain(path).collect()
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
            index_class(out, class.key_oid(), &class.key_name(), class.schema_oid, class.key.len())?;
        }
    }
    for (entry, index, _) in indexes(cx) {
        index_class(out, entry.id.oid(), &entry.name, namespace_oid(entry.schema), index.columns.len())?;
    }
    Ok(())
}

fn index_class(out: &mut Rows, oid: u32, name: &str, schema: u32, n_columns: usize) -> Result<()> {
    out.push([
        ("oid", oid.into()),
        ("relname", name.into()),
        ("relnamespace", schema.into()),
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
    for entry in cx.catalog.entries() {
        let (oid, class) = match &entry.object {
            Object::Schema => (namespace_oid(entry.id), oids::PG_NAMESPACE),
            Object::Index(_) => (entry.id.oid(), oids::PG_CLASS),
            _ if entry.columns().is_some() => (entry.id.oid(), oids::PG_CLASS),
            _ => continue,
        };
        let columns = entry.columns().unwrap_or_default();
        let of_columns =
            columns.iter().zip(1..).filter_map(|(c, i)| Some((i, entry.column_comments.get(&c.name)?)));
        for (position, text) in entry.comment.iter().map(|text| (0, text)).chain(of_columns) {
            out.push([
                ("objoid", oid.into()),
                ("classoid", class.into()),
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

pub fn pg_namespace(cx: &Context, out: &mut Rows) -> Result<()> {
    for schema in schemas(cx) {
        out.push([
            ("oid", schema.oid.into()),
            ("nspname", schema.name.into()),
            ("nspowner", oids::OWNER.into()),
            ("tableoid", oids::PG_NAMESPACE.into()),
        ])?;
    }
    Ok(())
}

/// A schema.
pub struct Namespace<'a> {
    pub oid: u32,
    pub name: &'a str,
    /// Who made it; `None`: the system.
    pub owner: Option<&'a str>,
}

/// All schemas, the system's first.
pub fn schemas(cx: &Context) -> Vec<Namespace<'_>> {
    let system = [
        (oids::PG_CATALOG, "pg_catalog"),
        (oids::INFORMATION_SCHEMA, "information_schema"),
        (oids::TIDEMILL, "tidemill"),
    ];
    let users = cx.catalog.entries().filter(|e| matches!(e.object, Object::Schema)).map(|e| Namespace {
        oid: namespace_oid(e.id),
        name: e.name.as_str(),
        owner: Some(e.owner.as_str()).filter(|_| e.id != ObjectId::PUBLIC),
    });
    system.into_iter().map(|(oid, name)| Namespace { oid, name, owner: None }).chain(users).collect()
}

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
    let mut push = |schema: &str, table: &str, name: &str, definition: Option<String>| {
        out.push([
            ("schemaname", Value::from(schema)),
            ("tablename", table.into()),
            ("indexname", name.into()),
            ("indexdef", definition.into()),
        ])
    };
    for class in classes(cx).iter().filter(|c| !c.key.is_empty()) {
        push(class.schema, class.name, &class.key_name(), index_definition(cx, class.key_oid()))?;
    }
    for (entry, _, on) in indexes(cx) {
        push(schema_of(cx, entry).1, &on.name, &entry.name, index_definition(cx, entry.id.oid()))?;
    }
    Ok(())
}

fn owner<'a>(cx: &'a Context, class: &Class<'a>) -> &'a str {
    class.entry.map_or(&cx.user, |e| &e.owner)
}
