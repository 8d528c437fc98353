//! What was created: an immutable snapshot of all objects, cheap to clone, changed by making a new one.
//!
//! Everything a user creates is in schema `public`. Tables, sources, views, materialized views and indexes share
//! one namespace, as relations do in PostgreSQL; sinks, connections and secrets have one each.
//! The schemas `tidemill`, `pg_catalog` and `information_schema` are the database layer's.

mod depend;
mod object;
mod show;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub use depend::DropOrder;
pub use object::uuid_text::UuidText;
pub use object::{
    Check, Column, Connection, Entry, Index, MaterializedView, Object, ObjectId, Secret, Sink, Source, Table,
    View,
};

use crate::error::{Error, Result, SqlState};
use crate::names::{Name, PUBLIC, SYSTEM_SCHEMAS};
use crate::sql::ast::ObjectKind;

/// All objects at one moment.
#[derive(Clone, Debug, Default)]
pub struct Catalog(Arc<Maps>);

#[derive(Clone, Debug, Default)]
struct Maps {
    by_id: BTreeMap<ObjectId, Arc<Entry>>,
    by_name: HashMap<(Namespace, String), ObjectId>,
    next_id: u64,
}

/// Kinds whose names may not clash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Namespace {
    Relation,
    Sink,
    Connection,
    Secret,
}

impl Namespace {
    fn of(kind: ObjectKind) -> Self {
        match kind {
            ObjectKind::Table
            | ObjectKind::Source
            | ObjectKind::View
            | ObjectKind::MaterializedView
            | ObjectKind::Index => Namespace::Relation,
            ObjectKind::Sink => Namespace::Sink,
            ObjectKind::Connection => Namespace::Connection,
            ObjectKind::Secret => Namespace::Secret,
        }
    }
}

impl Catalog {
    /// The catalog that holds these objects, as they were stored; `next_id` is the first id that was never given away.
    ///
    /// # Errors
    /// XX001 when two objects have one name or id.
    pub fn from_entries(entries: impl IntoIterator<Item = Entry>, next_id: u64) -> Result<Self> {
        let mut maps = Maps { next_id, ..Maps::default() };
        for entry in entries {
            maps.next_id = maps.next_id.max(entry.id.0 + 1);
            let key = (Namespace::of(entry.kind()), entry.name.clone());
            let id = entry.id;
            let name_taken = maps.by_name.insert(key, id).is_some();
            let id_taken = maps.by_id.insert(id, Arc::new(entry)).is_some();
            if name_taken || id_taken {
                return Err(Error::new(
                    SqlState::DATA_CORRUPTED,
                    format!("object {} is in the catalog twice", id.0),
                ));
            }
        }
        Ok(Catalog(Arc::new(maps)))
    }

    /// The first id that was never given away: what is stored so that ids are not reused after a restart.
    pub fn next_id(&self) -> u64 {
        self.0.next_id.max(1)
    }

    /// Gives away an id. Ids are positive and never reused.
    pub fn allocate(&mut self) -> ObjectId {
        let maps = Arc::make_mut(&mut self.0);
        let id = maps.next_id.max(1);
        maps.next_id = id + 1;
        ObjectId(id)
    }

    /// An object by its id.
    pub fn get(&self, id: ObjectId) -> Option<&Arc<Entry>> {
        self.0.by_id.get(&id)
    }

    /// All objects, oldest first.
    pub fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.0.by_id.values()
    }

    /// All objects of a kind, by name.
    pub fn of_kind(&self, kind: ObjectKind) -> Vec<&Arc<Entry>> {
        let mut all: Vec<_> = self.entries().filter(|e| e.kind() == kind).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// An object of a kind by name, if there is one of that very kind.
    pub fn find(&self, kind: ObjectKind, name: &Name) -> Option<&Arc<Entry>> {
        self.lookup(Namespace::of(kind), name).filter(|e| e.kind() == kind)
    }

    /// A relation that can be read (no index) by name.
    pub fn find_relation(&self, name: &Name) -> Option<&Arc<Entry>> {
        self.lookup(Namespace::Relation, name).filter(|e| e.kind() != ObjectKind::Index)
    }

    /// An object of a kind by name.
    ///
    /// # Errors
    /// 42P01 or 42704 when there is none, 42809 when the name is that of another kind of relation.
    pub fn require(&self, kind: ObjectKind, name: &Name) -> Result<&Arc<Entry>> {
        let Some(entry) = self.lookup(Namespace::of(kind), name) else { return Err(undefined(kind, name)) };
        if entry.kind() == kind {
            return Ok(entry);
        }
        let article = if kind == ObjectKind::Index { "an" } else { "a" };
        let error = Error::new(
            SqlState::WRONG_OBJECT_TYPE,
            format!("\"{}\" is not {article} {}", entry.name, kind.noun()),
        );
        Err(error.with_hint(format!("It is a {}.", entry.kind().noun())))
    }

    /// A relation that can be read, by name.
    ///
    /// # Errors
    /// 42P01 when there is none, 42809 when it is an index.
    pub fn require_relation(&self, name: &Name) -> Result<&Arc<Entry>> {
        match self.lookup(Namespace::Relation, name) {
            None => Err(undefined_relation(name)),
            Some(entry) if entry.kind() == ObjectKind::Index => Err(Error::new(
                SqlState::WRONG_OBJECT_TYPE,
                format!("cannot open relation \"{}\"", entry.name),
            )
            .with_detail("This operation is not supported for indexes.")),
            Some(entry) => Ok(entry),
        }
    }

    /// Where a new object of this kind and name goes; answers with the name inside its schema.
    ///
    /// # Errors
    /// 42P07 or 42710 when the name is taken, 3F000 or 42501 when its schema cannot take it.
    pub fn check_free(&self, kind: ObjectKind, name: &Name) -> Result<String> {
        match name.schema.as_deref() {
            None | Some(PUBLIC) => {}
            Some(schema) if SYSTEM_SCHEMAS.contains(&schema) => {
                return Err(Error::new(
                    SqlState("42501"),
                    format!("permission denied to create \"{schema}.{}\"", name.name),
                )
                .with_detail("System schemas cannot be changed."));
            }
            Some(schema) => {
                return Err(Error::new(
                    SqlState::INVALID_SCHEMA_NAME,
                    format!("schema \"{schema}\" does not exist"),
                ));
            }
        }
        match self.lookup(Namespace::of(kind), name) {
            None => Ok(name.name.clone()),
            Some(taken) => Err(already_exists(taken)),
        }
    }

    /// Adds an object.
    ///
    /// # Errors
    /// 42P07 or 42710 when its name is taken.
    pub fn insert(&mut self, entry: Entry) -> Result<()> {
        let key = (Namespace::of(entry.kind()), entry.name.clone());
        if let Some(taken) = self.0.by_name.get(&key).and_then(|id| self.get(*id)) {
            return Err(already_exists(taken));
        }
        let maps = Arc::make_mut(&mut self.0);
        maps.next_id = maps.next_id.max(entry.id.0 + 1);
        maps.by_name.insert(key, entry.id);
        maps.by_id.insert(entry.id, Arc::new(entry));
        Ok(())
    }

    /// Puts a changed object (another name, comment, query …) in the place of the one with its id.
    ///
    /// # Errors
    /// 42P07 or 42710 when its new name is taken; XX000 when there is none with its id.
    pub fn replace(&mut self, entry: Entry) -> Result<()> {
        let Some(old) = self.get(entry.id).cloned() else {
            return Err(Error::internal(format!("object {} is not in the catalog", entry.id.0)));
        };
        let old_key = (Namespace::of(old.kind()), old.name.clone());
        let key = (Namespace::of(entry.kind()), entry.name.clone());
        if key != old_key
            && let Some(taken) = self.0.by_name.get(&key).and_then(|id| self.get(*id))
        {
            return Err(already_exists(taken));
        }
        let maps = Arc::make_mut(&mut self.0);
        maps.by_name.remove(&old_key);
        maps.by_name.insert(key, entry.id);
        maps.by_id.insert(entry.id, Arc::new(entry));
        Ok(())
    }

    /// Removes an object; whoever calls it has removed what depends on it before.
    pub fn remove(&mut self, id: ObjectId) -> Option<Arc<Entry>> {
        let maps = Arc::make_mut(&mut self.0);
        let entry = maps.by_id.remove(&id)?;
        maps.by_name.remove(&(Namespace::of(entry.kind()), entry.name.clone()));
        Some(entry)
    }

    fn lookup(&self, namespace: Namespace, name: &Name) -> Option<&Arc<Entry>> {
        match name.schema.as_deref() {
            None | Some(PUBLIC) => {
                // A borrowed key would need a second map type; names are short and look-ups are per statement.
                self.0.by_name.get(&(namespace, name.name.clone())).and_then(|id| self.0.by_id.get(id))
            }
            Some(_) => None,
        }
    }
}

fn already_exists(taken: &Entry) -> Error {
    match Namespace::of(taken.kind()) {
        Namespace::Relation => {
            Error::new(SqlState::DUPLICATE_TABLE, format!("relation \"{}\" already exists", taken.name))
        }
        _ => Error::new(
            SqlState::DUPLICATE_OBJECT,
            format!("{} \"{}\" already exists", taken.kind().noun(), taken.name),
        ),
    }
}

/// `relation "x" does not exist`
pub fn undefined_relation(name: &Name) -> Error {
    let shown = match &name.schema {
        Some(schema) => format!("{schema}.{}", name.name),
        None => name.name.clone(),
    };
    Error::new(SqlState::UNDEFINED_TABLE, format!("relation \"{shown}\" does not exist"))
}

fn undefined(kind: ObjectKind, name: &Name) -> Error {
    let shown = match &name.schema {
        Some(schema) => format!("{schema}.{}", name.name),
        None => name.name.clone(),
    };
    let state = match Namespace::of(kind) {
        Namespace::Relation if kind != ObjectKind::Index => SqlState::UNDEFINED_TABLE,
        _ => SqlState::UNDEFINED_OBJECT,
    };
    Error::new(state, format!("{} \"{shown}\" does not exist", kind.noun()))
}

#[cfg(test)]
mod tests;
