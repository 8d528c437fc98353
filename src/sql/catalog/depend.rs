//! Who needs whom: dependants, and the order in which a drop goes.

use std::collections::HashSet;
use std::sync::Arc;

use super::{Catalog, Entry, Namespace, ObjectId};
use crate::declared::OptionValue;
use crate::error::{Error, Result, SqlState};
use crate::names::{Name, PUBLIC};
use crate::sql::ast::ObjectKind;
use crate::sql::catalog::Object;

/// What a DROP does.
#[derive(Clone, Debug)]
pub struct DropOrder {
    /// Every object that goes, dependants before what they need.
    pub all: Vec<Arc<Entry>>,
    /// Those of them that only CASCADE takes along, for the notice.
    pub cascaded: Vec<Arc<Entry>>,
}

impl Catalog {
    /// The objects that need this one directly, oldest first. A secret is needed by whatever names it in its options,
    /// a schema by whatever is in it.
    pub fn dependants(&self, id: ObjectId) -> Vec<&Arc<Entry>> {
        let kind = self.get(id).map(|e| e.kind());
        let secret = self.get(id).filter(|_| kind == Some(ObjectKind::Secret));
        let is_in = |e: &Entry| {
            kind == Some(ObjectKind::Schema) && e.schema == id && Namespace::of(e.kind()).is_by_schema()
        };
        self.entries()
            .filter(|e| {
                e.uses.contains(&id) || is_in(e) || secret.is_some_and(|s| names_secret(&e.object, &s.name))
            })
            .collect()
    }

    /// What goes when these objects are dropped, in an order that never leaves anything without what it needs.
    ///
    /// # Errors
    /// 2BP01 without `cascade` when something else needs one of them. Indexes go silently, as in PostgreSQL.
    pub fn drop_order(&self, ids: &[ObjectId], cascade: bool) -> Result<DropOrder> {
        let mut all = Vec::new();
        let mut seen = HashSet::new();
        for id in ids {
            self.visit(*id, &mut seen, &mut all);
        }
        let cascaded: Vec<_> = all
            .iter()
            .filter(|e| !ids.contains(&e.id) && e.kind() != ObjectKind::Index)
            .cloned()
            .rev()
            .collect();
        if cascaded.is_empty() || cascade {
            return Ok(DropOrder { all, cascaded });
        }
        let dropped = ids.first().and_then(|id| self.get(*id));
        let what = match (dropped, ids.len()) {
            (Some(entry), 1) => format!("{} {}", entry.kind().noun(), self.shown(entry)),
            _ => "desired object(s)".to_string(),
        };
        let details: Vec<_> = cascaded
            .iter()
            .flat_map(|dependant| {
                let needed = all.iter().filter(|e| {
                    e.id != dependant.id && self.dependants(e.id).iter().any(|d| d.id == dependant.id)
                });
                needed.map(|needed| {
                    format!(
                        "{} {} depends on {} {}",
                        dependant.kind().noun(),
                        self.shown(dependant),
                        needed.kind().noun(),
                        self.shown(needed)
                    )
                })
            })
            .collect();
        Err(Error::new(
            SqlState::DEPENDENT_OBJECTS_STILL_EXIST,
            format!("cannot drop {what} because other objects depend on it"),
        )
        .with_detail(details.join("\n"))
        .with_hint("Use DROP ... CASCADE to drop the dependent objects too."))
    }

    /// Refuses what would make the text of a view mean something else: a new name for a relation that a view's query names.
    ///
    /// # Errors
    /// 2BP01 when views name it.
    pub fn check_rename(&self, entry: &Entry) -> Result<()> {
        let views: Vec<_> = self
            .dependants(entry.id)
            .into_iter()
            .filter(|e| {
                matches!(e.kind(), ObjectKind::View | ObjectKind::MaterializedView)
                    || entry.kind() == ObjectKind::Secret
            })
            .map(|e| format!("{} {} names it", e.kind().noun(), e.name))
            .collect();
        if views.is_empty() {
            return Ok(());
        }
        Err(Error::new(
            SqlState::DEPENDENT_OBJECTS_STILL_EXIST,
            format!("cannot rename {} {} because other objects name it", entry.kind().noun(), entry.name),
        )
        .with_detail(views.join("\n")))
    }

    fn visit(&self, id: ObjectId, seen: &mut HashSet<ObjectId>, all: &mut Vec<Arc<Entry>>) {
        let Some(entry) = self.get(id) else { return };
        if !seen.insert(id) {
            return;
        }
        for dependant in self.dependants(id) {
            self.visit(dependant.id, seen, all);
        }
        all.push(Arc::clone(entry));
    }
}

fn names_secret(object: &Object, secret: &str) -> bool {
    let options = match object {
        Object::Connection(c) => &c.options,
        Object::Source(s) => &s.options,
        Object::Sink(s) => &s.options,
        _ => return false,
    };
    options.iter().any(|(_, value)| match value {
        OptionValue::Secret(name) => {
            *name == Name::bare(secret).to_string() || *name == Name::qualified(PUBLIC, secret).to_string()
        }
        OptionValue::Literal(_) => false,
    })
}
