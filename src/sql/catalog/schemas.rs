//! Schemas: which there are, along which path a session looks for names, and where a new object goes.
//!
//! `public` is always there, with the id 0; others are objects of the catalog. The system's schemas are none: the
//! database layer fills them. Tables, sources, views, materialized views, indexes and sinks are in schemas. Connections
//! and secrets belong to the whole database, as servers and their users do in PostgreSQL.

use std::sync::{Arc, LazyLock};

use super::{Catalog, Entry, Namespace, Object, ObjectId, already_exists};
use crate::error::{Error, Result, SqlState};
use crate::names::{Name, PUBLIC, SYSTEM_SCHEMAS};
use crate::sql::ast::ObjectKind;

/// A schema that names without one are looked for in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathSchema {
    /// One with users' objects.
    Users(ObjectId),
    /// One that the database layer fills.
    System(&'static str),
}

/// How names are looked up: the eyes of one session.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    /// What the session's database is called; `None`: any name is its name.
    database: Option<String>,
    path: Vec<PathSchema>,
}

impl Default for Scope {
    fn default() -> Self {
        Scope { database: None, path: vec![PathSchema::Users(ObjectId::PUBLIC)] }
    }
}

/// Where an object is: its schema and its name in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The schema; that of `public` for what belongs to the whole database.
    pub schema: ObjectId,
    /// The name.
    pub name: String,
}

impl From<&str> for Place {
    /// In `public`.
    fn from(name: &str) -> Self {
        Place { schema: ObjectId::PUBLIC, name: name.to_string() }
    }
}

/// Schema `public` as an object.
pub(super) static PUBLIC_SCHEMA: LazyLock<Arc<Entry>> =
    LazyLock::new(|| Arc::new(Entry::new(ObjectId::PUBLIC, PUBLIC, "tidemill", Object::Schema)));

impl Namespace {
    /// Whether its objects are in schemas, rather than in the whole database.
    pub(super) fn is_by_schema(self) -> bool {
        matches!(self, Namespace::Relation | Namespace::Sink)
    }
}

impl Catalog {
    /// The catalog as it looks to a session of this user, in a database of this name, with this `search_path`
    /// (identifiers, `$user` among them). Schemas that do not exist are passed over.
    pub fn seen_by(&self, user: &str, database: &str, path: &[String]) -> Catalog {
        let mut found: Vec<PathSchema> = Vec::with_capacity(path.len());
        for name in path {
            // A user that is called like a schema of the system has none of its own.
            let schema = match name.as_str() {
                "$user" => self.schema(user).map(|entry| PathSchema::Users(entry.id)),
                name => self.path_schema(name),
            };
            if let Some(schema) = schema
                && !found.contains(&schema)
            {
                found.push(schema);
            }
        }
        let scope = Scope { database: Some(database.to_string()), path: found };
        Catalog { maps: Arc::clone(&self.maps), scope: Arc::new(scope), made: self.made }
    }

    /// The catalog as it looks to nobody in particular, which is how the queries of views are stored: names without a
    /// schema mean those in `public`.
    pub fn unscoped(&self) -> Catalog {
        Catalog { maps: Arc::clone(&self.maps), scope: Arc::default(), made: self.made }
    }

    /// The catalog as a query sees it that was made when `made` was the newest identity: tables have the columns that
    /// they had then.
    pub fn as_of(&self, made: ObjectId) -> Catalog {
        Catalog { made: Some(made), ..self.clone() }
    }

    /// How many of a relation's columns are seen, the first ones.
    pub fn columns_seen(&self, entry: &Entry) -> usize {
        match (&entry.object, self.made) {
            (Object::Table(table), Some(made)) => table.columns_for(made),
            _ => entry.columns().unwrap_or_default().len(),
        }
    }

    /// Whether a query that was made when `made` was the newest identity sees all columns that the relations which it
    /// uses have now.
    ///
    /// # Errors
    /// 40001 when it does not.
    pub fn check_seen_whole(&self, uses: &[ObjectId], made: ObjectId) -> Result<()> {
        let then = self.as_of(made);
        let grown = uses
            .iter()
            .filter_map(|id| self.get(*id))
            .find(|used| then.columns_seen(used) < used.columns().unwrap_or_default().len());
        match grown {
            None => Ok(()),
            Some(table) => Err(Error::new(
                SqlState::SERIALIZATION_FAILURE,
                format!("table \"{}\" has got columns meanwhile", table.name),
            )
            .with_hint("Try again.")),
        }
    }

    /// Whether names mean to this session what they mean to nobody in particular.
    pub fn is_unscoped(&self) -> bool {
        self.scope.path == [PathSchema::Users(ObjectId::PUBLIC)]
    }

    /// The schemas that names without one are looked for in, in this order.
    pub fn path(&self) -> &[PathSchema] {
        &self.scope.path
    }

    /// The names of the schemas of the path.
    pub fn path_names(&self) -> Vec<&str> {
        let name = |schema: &PathSchema| match schema {
            PathSchema::Users(id) => self.get(*id).map(|e| e.name.as_str()),
            PathSchema::System(name) => Some(*name),
        };
        self.scope.path.iter().filter_map(name).collect()
    }

    fn path_schema(&self, name: &str) -> Option<PathSchema> {
        match SYSTEM_SCHEMAS.iter().find(|system| **system == name) {
            Some(system) => Some(PathSchema::System(system)),
            None => self.schema(name).map(|entry| PathSchema::Users(entry.id)),
        }
    }

    /// A schema with users' objects, by its name.
    pub fn schema(&self, name: &str) -> Option<&Arc<Entry>> {
        self.at(Namespace::Schema, ObjectId::PUBLIC, name)
    }

    /// Whether there is a schema of this name, the system's included.
    pub fn has_schema(&self, name: &str) -> bool {
        self.path_schema(name).is_some()
    }

    /// The name by which an object is found whatever the path is.
    pub fn qualified(&self, entry: &Entry) -> Name {
        match self.get(entry.schema) {
            Some(schema) if Namespace::of(entry.kind()).is_by_schema() => {
                Name::qualified(schema.name.as_str(), entry.name.as_str())
            }
            _ => Name::bare(entry.name.as_str()),
        }
    }

    /// What an object is called where everything of the database is told about: with its schema, unless that is
    /// `public`.
    pub fn full_name(&self, entry: &Entry) -> String {
        self.full_place(entry.schema, &entry.name)
    }

    /// As [`Catalog::full_name`], of what is still to be made.
    pub fn full_place(&self, schema: ObjectId, name: &str) -> String {
        match self.get(schema) {
            Some(schema) if schema.id != ObjectId::PUBLIC => format!("{}.{name}", schema.name),
            _ => name.to_string(),
        }
    }

    /// What an object is called in messages: with its schema, unless it is found without.
    pub fn shown(&self, entry: &Entry) -> String {
        let found = self.lookup(Namespace::of(entry.kind()), &Name::bare(entry.name.as_str()));
        match found {
            Some(found) if found.id == entry.id => entry.name.clone(),
            _ => self.qualified(entry).shown(),
        }
    }

    /// Refuses the name of another database.
    ///
    /// # Errors
    /// 0A000 for one.
    pub fn check_database(&self, name: &Name) -> Result<()> {
        match (&name.database, &self.scope.database) {
            (Some(written), Some(own)) if written != own => Err(Error::new(
                SqlState::FEATURE_NOT_SUPPORTED,
                format!("cross-database references are not implemented: \"{}\"", name.shown()),
            )),
            _ => Ok(()),
        }
    }

    /// The schema in which a name without one is made, or the one that is written.
    ///
    /// # Errors
    /// 3F000 when there is none, 42501 when it is the system's, 0A000 for another database.
    fn target(&self, name: &Name) -> Result<ObjectId> {
        self.check_database(name)?;
        let schema = match &name.schema {
            Some(schema) => self.path_schema(schema).ok_or_else(|| no_schema(schema))?,
            None => *self.scope.path.first().ok_or_else(|| {
                Error::new(SqlState::INVALID_SCHEMA_NAME, "no schema has been selected to create in")
            })?,
        };
        match schema {
            PathSchema::Users(id) => Ok(id),
            PathSchema::System(schema) => Err(Error::new(
                SqlState("42501"),
                format!("permission denied to create \"{schema}.{}\"", name.name),
            )
            .with_detail("System schemas cannot be changed.")),
        }
    }

    /// Where a new object of this kind and name goes.
    ///
    /// # Errors
    /// 42P07 or 42710 when the name is taken, 3F000 or 42501 when its schema cannot take it, 42601 for a schema of what
    /// belongs to the whole database.
    pub fn check_free(&self, kind: ObjectKind, name: &Name) -> Result<Place> {
        let namespace = Namespace::of(kind);
        let schema = if namespace.is_by_schema() {
            self.target(name)?
        } else {
            self.check_database(name)?;
            match name.schema.as_deref() {
                None | Some(PUBLIC) => ObjectId::PUBLIC,
                Some(_) => {
                    return Err(Error::new(
                        SqlState::SYNTAX_ERROR,
                        format!("a {} belongs to the whole database, not to a schema: {name}", kind.noun()),
                    ));
                }
            }
        };
        match self.at(namespace, schema, &name.name) {
            None => Ok(Place { schema, name: name.name.clone() }),
            Some(taken) => Err(already_exists(taken)),
        }
    }

    /// Whether a schema can be made of this name, or be given it.
    ///
    /// # Errors
    /// 42P06 when there is one, 42939 when the name is kept for the system.
    pub fn check_new_schema(&self, name: &str) -> Result<()> {
        if name.starts_with("pg_") {
            return Err(Error::new(SqlState("42939"), format!("unacceptable schema name \"{name}\""))
                .with_detail("The prefix \"pg_\" is reserved for system schemas."));
        }
        if self.has_schema(name) {
            return Err(Error::new(SqlState::DUPLICATE_SCHEMA, format!("schema \"{name}\" already exists")));
        }
        Ok(())
    }
}

/// `schema "x" does not exist`
pub fn no_schema(name: &str) -> Error {
    Error::new(SqlState::INVALID_SCHEMA_NAME, format!("schema \"{name}\" does not exist"))
}
