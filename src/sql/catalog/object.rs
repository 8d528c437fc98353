//! The objects of the catalog: what was declared, with names resolved to ids.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use serde::{Deserialize, Serialize};

use super::Place;
use crate::declared::{Envelope, FormatSpec, Include, OnError, OnSchemaChange, OptionList};
use crate::engine::{CollectionId, Tick};
use crate::sql::ast::ObjectKind;
use crate::types::SqlType;

/// Names an object for the life of the data directory; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectId(pub u64);

impl ObjectId {
    /// Schema `public`, which is always there.
    pub const PUBLIC: ObjectId = ObjectId(0);

    fn is_public(&self) -> bool {
        *self == ObjectId::PUBLIC
    }

    /// The collection that holds a relation's rows.
    pub fn collection(self) -> CollectionId {
        CollectionId(self.0)
    }

    /// The object's id in the system catalogs, above those that PostgreSQL keeps for itself.
    pub fn oid(self) -> u32 {
        u32::try_from(self.0).unwrap_or(u32::MAX - 16_384).saturating_add(16_384)
    }
}

impl From<CollectionId> for ObjectId {
    fn from(id: CollectionId) -> Self {
        ObjectId(id.0)
    }
}

/// What entries are in that were stored before there were schemas.
fn public() -> ObjectId {
    ObjectId::PUBLIC
}

/// An object and what every object has.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Its identity.
    pub id: ObjectId,
    /// The schema it is in; that of `public`, too, for what is in none.
    #[serde(default = "public", skip_serializing_if = "ObjectId::is_public")]
    pub schema: ObjectId,
    /// Its name in its schema.
    pub name: String,
    /// Who made it.
    pub owner: String,
    /// What COMMENT ON says.
    pub comment: Option<String>,
    /// What COMMENT ON COLUMN says, by column.
    #[serde(default)]
    pub column_comments: BTreeMap<String, String>,
    /// What it needs to exist.
    pub uses: Vec<ObjectId>,
    /// The newest identity when its query was made, where that is a later one than its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<ObjectId>,
    /// What it is.
    pub object: Object,
}

/// What an object is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Object {
    /// A secret value.
    Secret(Secret),
    /// The way to an external system.
    Connection(Connection),
    /// A table.
    Table(Table),
    /// A source.
    Source(Source),
    /// A view that is computed when it is read.
    View(View),
    /// A view that is kept up to date.
    MaterializedView(MaterializedView),
    /// A sink.
    Sink(Sink),
    /// An index: look-ups are fast without one; it is kept for its name.
    Index(Index),
    /// A schema.
    Schema,
}

/// A column of a relation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type.
    pub data_type: SqlType,
    /// Whether NULL is refused.
    pub not_null: bool,
    /// The expression of its DEFAULT, as SQL.
    pub default: Option<String>,
}

impl Column {
    /// A column that may be NULL and has no default.
    pub fn new(name: impl Into<String>, data_type: SqlType) -> Self {
        Column { name: name.into(), data_type, not_null: false, default: None }
    }

    /// The column as an Arrow field.
    pub fn field(&self) -> FieldRef {
        self.data_type.field_ref(&self.name, !self.not_null)
    }

    /// The column that an Arrow field is.
    pub fn from_field(field: &arrow::datatypes::Field) -> Self {
        Column {
            name: field.name().clone(),
            data_type: SqlType::of(field),
            not_null: !field.is_nullable(),
            default: None,
        }
    }
}

/// Columns as an Arrow schema.
fn schema_of(columns: &[Column]) -> SchemaRef {
    Arc::new(Schema::new(columns.iter().map(Column::field).collect::<Vec<_>>()))
}

/// CREATE SECRET.
#[derive(Clone, Serialize, Deserialize)]
pub struct Secret {
    /// Its value. Never printed.
    pub value: String,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// CREATE CONNECTION.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Connection {
    /// `kafka`, `postgres`, `snowflake`, `object store`.
    pub kind: String,
    /// Its options; secrets by name.
    pub options: OptionList,
}

/// CREATE TABLE.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Table {
    /// Its columns.
    pub columns: Vec<Column>,
    /// Positions of the primary key's columns; empty: none.
    pub key: Vec<usize>,
    /// The source that fills it and the upstream's name of it; `None`: it is written by statements.
    pub source: Option<(ObjectId, String)>,
    /// CHECK constraints.
    #[serde(default)]
    pub checks: Vec<Check>,
    /// Whether rows only ever come: no UPDATE, no DELETE.
    #[serde(default)]
    pub append_only: bool,
    /// WATERMARK FOR.
    #[serde(default)]
    pub watermark: Option<Watermark>,
    /// When it got columns that came upstream, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grown: Vec<Growth>,
}

/// A table has got columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Growth {
    /// How many it had before.
    pub columns: usize,
    /// The first identity that was given to an object afterwards: queries made before do not see the new ones.
    pub at: ObjectId,
}

impl Table {
    /// How many of its columns a query sees that was made when `made` was the newest identity.
    pub fn columns_for(&self, made: ObjectId) -> usize {
        let later = self.grown.iter().find(|growth| growth.at > made);
        later.map_or(self.columns.len(), |growth| growth.columns)
    }
}

/// WATERMARK FOR.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watermark {
    /// The position of the column that it follows.
    pub column: usize,
    /// How far it is behind, in microseconds.
    pub delay: i64,
    /// What it is after AS, as SQL.
    pub expr: String,
}

impl Watermark {
    /// As the engine needs it.
    pub fn engine(&self) -> crate::engine::Watermark {
        crate::engine::Watermark { column: self.column, delay: self.delay }
    }
}

/// A CHECK constraint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Its name, another for each of a table.
    pub name: String,
    /// What every row must fulfil, or leave unknown, as SQL.
    pub condition: String,
}

/// CREATE SOURCE.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Source {
    /// `kafka`, `postgres`, `mysql`, `webhook`, `nexmark`, `datagen`.
    pub kind: String,
    /// The CONNECTION it uses.
    pub connection: Option<ObjectId>,
    /// The schema registry that FORMAT uses.
    #[serde(default)]
    pub registry: Option<ObjectId>,
    /// Its options; secrets by name.
    pub options: OptionList,
    /// FORMAT.
    pub format: Option<FormatSpec>,
    /// ENVELOPE.
    pub envelope: Envelope,
    /// INCLUDE columns; they are the last ones of `columns`.
    pub includes: Vec<Include>,
    /// Its columns, those of INCLUDE at the end; empty: its rows are in the tables made from it.
    pub columns: Vec<Column>,
    /// Positions of the key's columns; empty: none.
    pub key: Vec<usize>,
    /// Whether PRIMARY KEY was declared, rather than inferred.
    pub key_declared: bool,
    /// FOR ALL TABLES.
    pub all_tables: bool,
    /// Whether its rows are kept.
    pub retain: bool,
    /// ALTER SOURCE … PAUSE.
    #[serde(default)]
    pub paused: bool,
    /// What becomes of records that are not understood.
    #[serde(default)]
    pub on_error: OnError,
    /// What becomes of its tables when their columns change upstream.
    #[serde(default)]
    pub on_schema_change: OnSchemaChange,
    /// CHECK: what a request to a webhook must fulfil, as SQL in which `SECRET name` is a text.
    #[serde(default)]
    pub check: Option<String>,
    /// WATERMARK FOR.
    #[serde(default)]
    pub watermark: Option<Watermark>,
}

/// CREATE VIEW.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct View {
    /// Its query, as SQL.
    pub query: String,
    /// Its columns.
    pub columns: Vec<Column>,
}

/// CREATE MATERIALIZED VIEW.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MaterializedView {
    /// Its query, as SQL.
    pub query: String,
    /// EMIT ON WINDOW CLOSE.
    #[serde(default)]
    pub on_close: bool,
    /// Its columns.
    pub columns: Vec<Column>,
    /// What its query reads, where former queries read more; empty: all that the entry says it uses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reads: Vec<ObjectId>,
    /// What its query was before, oldest first, for as long as a sink may have to go back to then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<FormerQuery>,
}

/// A query that a materialized view had until it was replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerQuery {
    /// The query, as SQL.
    pub query: String,
    /// What it reads.
    pub uses: Vec<ObjectId>,
    /// The tick in which the next one took its place.
    pub until: Tick,
    /// The newest identity when it was made, where that is a later one than the view's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<ObjectId>,
}

impl MaterializedView {
    /// What stands behind AS.
    pub fn definition(&self) -> String {
        let emit = if self.on_close { " EMIT ON WINDOW CLOSE" } else { "" };
        format!("{}{emit}", self.query)
    }
}

/// CREATE SINK.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sink {
    /// Never changes, never reused: what names this sink at the destination.
    pub uuid: uuid_text::UuidText,
    /// What it follows.
    pub from: ObjectId,
    /// `snowflake`, `kafka`, `files`.
    pub kind: String,
    /// The CONNECTION it uses.
    pub connection: Option<ObjectId>,
    /// The schema registry that FORMAT uses.
    #[serde(default)]
    pub registry: Option<ObjectId>,
    /// Its options; secrets by name.
    pub options: OptionList,
    /// Columns of the declared key.
    pub key: Vec<String>,
    /// FORMAT.
    pub format: Option<FormatSpec>,
    /// ENVELOPE.
    pub envelope: Envelope,
    /// ALTER SINK … PAUSE.
    #[serde(default)]
    pub paused: bool,
}

/// CREATE INDEX.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Index {
    /// On which relation.
    pub on: ObjectId,
    /// Which columns.
    pub columns: Vec<String>,
}

impl Entry {
    /// A new object without comment.
    pub fn new(id: ObjectId, place: impl Into<Place>, owner: impl Into<String>, object: Object) -> Self {
        let uses = object.uses();
        let Place { schema, name } = place.into();
        Entry {
            id,
            schema,
            name,
            owner: owner.into(),
            comment: None,
            column_comments: BTreeMap::new(),
            uses,
            as_of: None,
            object,
        }
    }

    /// The newest identity when its query was made: it reads relations as they were then.
    pub fn made(&self) -> ObjectId {
        self.as_of.unwrap_or(self.id)
    }

    /// Where it is.
    pub fn place(&self) -> Place {
        Place { schema: self.schema, name: self.name.clone() }
    }

    /// What kind of object it is.
    pub fn kind(&self) -> ObjectKind {
        match &self.object {
            Object::Secret(_) => ObjectKind::Secret,
            Object::Connection(_) => ObjectKind::Connection,
            Object::Table(_) => ObjectKind::Table,
            Object::Source(_) => ObjectKind::Source,
            Object::View(_) => ObjectKind::View,
            Object::MaterializedView(_) => ObjectKind::MaterializedView,
            Object::Sink(_) => ObjectKind::Sink,
            Object::Index(_) => ObjectKind::Index,
            Object::Schema => ObjectKind::Schema,
        }
    }

    /// Its columns, when it is a relation that has some.
    pub fn columns(&self) -> Option<&[Column]> {
        match &self.object {
            Object::Table(t) => Some(&t.columns),
            Object::Source(s) => Some(&s.columns),
            Object::View(v) => Some(&v.columns),
            Object::MaterializedView(v) => Some(&v.columns),
            _ => None,
        }
    }

    /// Its columns as an Arrow schema, when it is a relation that has some.
    pub fn schema(&self) -> Option<SchemaRef> {
        self.columns().map(schema_of)
    }

    /// Positions of its key's columns; empty: none.
    pub fn key(&self) -> &[usize] {
        match &self.object {
            Object::Table(t) => &t.key,
            Object::Source(s) => &s.key,
            _ => &[],
        }
    }

    /// Its WATERMARK, if it has one.
    pub fn watermark(&self) -> Option<&Watermark> {
        match &self.object {
            Object::Table(t) => t.watermark.as_ref(),
            Object::Source(s) => s.watermark.as_ref(),
            _ => None,
        }
    }

    /// Whether its rows are a collection of the engine's.
    pub fn is_collection(&self) -> bool {
        match &self.object {
            Object::Table(_) | Object::MaterializedView(_) => true,
            Object::Source(s) => !s.columns.is_empty(),
            _ => false,
        }
    }
}

impl Object {
    /// The objects it names by id. Views add what their plans read.
    fn uses(&self) -> Vec<ObjectId> {
        match self {
            Object::Table(t) => t.source.iter().map(|(id, _)| *id).collect(),
            Object::Source(s) => s.connection.into_iter().chain(s.registry).collect(),
            Object::Sink(s) => std::iter::once(s.from).chain(s.connection).chain(s.registry).collect(),
            Object::Index(i) => vec![i.on],
            Object::Secret(_)
            | Object::Connection(_)
            | Object::View(_)
            | Object::MaterializedView(_)
            | Object::Schema => Vec::new(),
        }
    }
}

/// A UUID stored as its text.
pub mod uuid_text {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// A UUID that is stored as its text.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct UuidText(pub uuid::Uuid);

    impl Serialize for UuidText {
        fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
            s.collect_str(&self.0.hyphenated())
        }
    }

    impl<'de> Deserialize<'de> for UuidText {
        fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
            let text = String::deserialize(d)?;
            uuid::Uuid::parse_str(&text).map(UuidText).map_err(serde::de::Error::custom)
        }
    }
}
