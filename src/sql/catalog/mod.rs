//! What was created: an immutable snapshot of all objects, cheap to clone, changed by making a new one.
//!
//! Tables, sources, views, materialized views and indexes of a schema share one namespace, as relations do in
//! PostgreSQL; its sinks have one of their own. Connections, secrets and schemas have one each in the whole database.
//! The schemas `tidemill`, `pg_catalog` and `information_schema` are the database layer's.

mod depend;
mod object;
mod schemas;
mod show;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub use depend::DropOrder;
pub use object::uuid_text::UuidText;
pub use object::{
    Check, Column, Connection, Entry, FormerQuery, Growth, Index, MaterializedView, Object, ObjectId, Secret,
    Sink, Source, Table, View, Watermark,
};

pub use schemas::{PathSchema, Place, no_schema};

use crate::error::{Error, Result, SqlState};
use crate::names::{Name, PUBLIC};
use crate::sql::ast::ObjectKind;
use schemas::{PUBLIC_SCHEMA, Scope};

/// All objects at one moment, as one session sees them: `search_path` says what names without a schema mean.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    maps: Arc<Maps>,
    scope: Arc<Scope>,
    /// The newest identity when what is planned was made; `None`: it is made now.
    made: Option<ObjectId>,
}

#[derive(Clone, Debug)]
struct Maps {
    by_id: BTreeMap<ObjectId, Arc<Entry>>,
    by_name: HashMap<(Namespace, ObjectId, String), ObjectId>,
    next_id: u64,
}

impl Default for Maps {
    /// Nothing but schema `public`.
    fn default() -> Self {
        let public = Arc::clone(&PUBLIC_SCHEMA);
        Maps {
            by_name: HashMap::from([(key(&public), public.id)]),
            by_id: BTreeMap::from([(public.id, public)]),
            next_id: 0,
        }
    }
}

/// What nothing else may be called.
fn key(entry: &Entry) -> (Namespace, ObjectId, String) {
    (Namespace::of(entry.kind()), entry.schema, entry.name.clone())
}

/// Kinds whose names may not clash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Namespace {
    Relation,
    Sink,
    Connection,
    Secret,
    Schema,
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
            ObjectKind::Schema => Namespace::Schema,
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
            let id = entry.id;
            let name_taken = maps.by_name.insert(key(&entry), id).is_some_and(|_| id != ObjectId::PUBLIC);
            let id_taken = maps.by_id.insert(id, Arc::new(entry)).is_some_and(|_| id != ObjectId::PUBLIC);
            if name_taken || id_taken {
                return Err(Error::new(
                    SqlState::DATA_CORRUPTED,
                    format!("object {} is in the catalog twice", id.0),
                ));
            }
        }
        Ok(Catalog { maps: Arc::new(maps), scope: Arc::default(), made: None })
    }

    /// The first id that was never given away: what is stored so that ids are not reused after a restart.
    pub fn next_id(&self) -> u64 {
        self.maps.next_id.max(1)
    }

    /// Gives away an id. Ids are positive and never reused.
    pub fn allocate(&mut self) -> ObjectId {
        let maps = Arc::make_mut(&mut self.maps);
        let id = maps.next_id.max(1);
        maps.next_id = id + 1;
        ObjectId(id)
    }

    /// An object by its id.
    pub fn get(&self, id: ObjectId) -> Option<&Arc<Entry>> {
        self.maps.by_id.get(&id)
    }

    /// All objects, oldest first.
    pub fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.maps.by_id.values()
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
    /// 42P01, 42704 or 3F000 when there is none, 42809 when the name is that of another kind of relation, 0A000 for
    /// another database.
    pub fn require(&self, kind: ObjectKind, name: &Name) -> Result<&Arc<Entry>> {
        self.check_database(name)?;
        let namespace = Namespace::of(kind);
        let Some(entry) = self.lookup(namespace, name) else {
            return Err(match &name.schema {
                Some(schema) if namespace.is_by_schema() && !self.has_schema(schema) => no_schema(schema),
                _ => undefined(kind, name),
            });
        };
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
    /// 42P01 when there is none, 42809 when it is an index, 0A000 for another database.
    pub fn require_relation(&self, name: &Name) -> Result<&Arc<Entry>> {
        self.check_database(name)?;
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

    /// Adds an object.
    ///
    /// # Errors
    /// 42P07 or 42710 when its name is taken.
    pub fn insert(&mut self, entry: Entry) -> Result<()> {
        let key = key(&entry);
        if let Some(taken) = self.maps.by_name.get(&key).and_then(|id| self.get(*id)) {
            return Err(already_exists(taken));
        }
        let maps = Arc::make_mut(&mut self.maps);
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
        let (old_key, key) = (key(&old), key(&entry));
        if key != old_key
            && let Some(taken) = self.maps.by_name.get(&key).and_then(|id| self.get(*id))
        {
            return Err(already_exists(taken));
        }
        let maps = Arc::make_mut(&mut self.maps);
        maps.by_name.remove(&old_key);
        maps.by_name.insert(key, entry.id);
        maps.by_id.insert(entry.id, Arc::new(entry));
        Ok(())
    }

    /// Exchanges the names of two objects of one kind.
    ///
    /// # Errors
    /// XX000 when one of them is not there, or they have kinds whose names have nothing to do with each other.
    pub fn swap(&mut self, a: ObjectId, b: ObjectId) -> Result<()> {
        let (Some(first), Some(second)) = (self.get(a).cloned(), self.get(b).cloned()) else {
            return Err(Error::internal("what is swapped is not in the catalog"));
        };
        if Namespace::of(first.kind()) != Namespace::of(second.kind()) {
            return Err(Error::internal("what is swapped is not of one kind"));
        }
        let maps = Arc::make_mut(&mut self.maps);
        for (entry, place) in [(&first, &second), (&second, &first)] {
            let moved = Entry { name: place.name.clone(), schema: place.schema, ..Entry::clone(entry) };
            maps.by_name.insert(key(&moved), moved.id);
            maps.by_id.insert(moved.id, Arc::new(moved));
        }
        Ok(())
    }

    /// Removes an object; whoever calls it has removed what depends on it before.
    pub fn remove(&mut self, id: ObjectId) -> Option<Arc<Entry>> {
        let maps = Arc::make_mut(&mut self.maps);
        let entry = maps.by_id.remove(&id)?;
        maps.by_name.remove(&key(&entry));
        Some(entry)
    }

    fn lookup(&self, namespace: Namespace, name: &Name) -> Option<&Arc<Entry>> {
        match name.schema.as_deref() {
            Some(schema) if namespace.is_by_schema() => {
                self.schema(schema).and_then(|schema| self.at(namespace, schema.id, &name.name))
            }
            None if namespace.is_by_schema() => self.path().iter().find_map(|schema| match schema {
                PathSchema::Users(id) => self.at(namespace, *id, &name.name),
                PathSchema::System(_) => None,
            }),
            None | Some(PUBLIC) => self.at(namespace, ObjectId::PUBLIC, &name.name),
            Some(_) => None,
        }
    }

    /// What is at a place.
    fn at(&self, namespace: Namespace, schema: ObjectId, name: &str) -> Option<&Arc<Entry>> {
        // A borrowed key would need a second map type; names are short and look-ups are per statement.
        let key = (namespace, schema, name.to_string());
        self.maps.by_name.get(&key).and_then(|id| self.maps.by_id.get(id))
    }

    /// A relation of a schema that can be read (no index).
    pub fn relation_in(&self, schema: ObjectId, name: &str) -> Option<&Arc<Entry>> {
        self.at(Namespace::Relation, schema, name).filter(|e| e.kind() != ObjectKind::Index)
    }
}

fn already_exists(taken: &Entry) -> Error {
    match Namespace::of(taken.kind()) {
        Namespace::Schema => {
            Error::new(SqlState::DUPLICATE_SCHEMA, format!("schema \"{}\" already exists", taken.name))
        }
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
    Error::new(SqlState::UNDEFINED_TABLE, format!("relation \"{}\" does not exist", name.shown()))
}

fn undefined(kind: ObjectKind, name: &Name) -> Error {
    let state = match Namespace::of(kind) {
        Namespace::Schema => SqlState::INVALID_SCHEMA_NAME,
        Namespace::Relation if kind != ObjectKind::Index => SqlState::UNDEFINED_TABLE,
        _ => SqlState::UNDEFINED_OBJECT,
    };
    Error::new(state, format!("{} \"{}\" does not exist", kind.noun(), name.shown()))
}

#[cfg(test)]
mod tests;
