//! ALTER and COMMENT ON.

use std::sync::Arc;

use crate::database::objects::{rename, schema};
use crate::database::{Database, Notice};
use crate::error::{Error, Result, SqlState};
use crate::sql::ast::{Alter, AlterChange, Comment, ObjectKind};
use crate::sql::catalog::{Entry, Object, ObjectId};
use crate::sql::parser::check_follows_schema_changes;
use crate::sql::{Name, SessionInfo};

impl Database {
    /// ALTER. Blocks until a paused connector has stopped.
    pub(crate) fn alter(&self, by: &SessionInfo, alter: &Alter) -> Result<Vec<Notice>> {
        let mut notices = Vec::new();
        if alter.kind == ObjectKind::Schema {
            schema::check_changeable(&alter.name.name)?;
        }
        let found = match by.sees(&self.catalog()).require(alter.kind, &alter.name) {
            Ok(entry) => Arc::clone(entry),
            Err(e)
                if alter.if_exists
                    && matches!(
                        e.sqlstate,
                        SqlState::UNDEFINED_TABLE
                            | SqlState::UNDEFINED_OBJECT
                            | SqlState::INVALID_SCHEMA_NAME
                    ) =>
            {
                notices.push(Notice::new(format!("{}, skipping", e.message)));
                return Ok(notices);
            }
            Err(e) => return Err(e),
        };
        if let AlterChange::Swap(with) = &alter.change {
            self.swap(by, alter, found.id, with)?;
            return Ok(notices);
        }
        let changed = self.change_catalog(|catalog, batch| {
            let current =
                catalog.get(found.id).ok_or_else(|| Error::internal("the object was dropped meanwhile"))?;
            let mut entry = Entry::clone(current);
            match &alter.change {
                AlterChange::Rename(name) if alter.kind == ObjectKind::Schema => {
                    return schema::rename(self, catalog, batch, entry, name);
                }
                AlterChange::SetSchema(name) => {
                    return schema::move_to(self, catalog, batch, entry, name);
                }
                AlterChange::Rename(name) => return rename::rename(self, catalog, batch, entry, name),
                AlterChange::Owner(owner) => entry.owner = owner.clone(),
                AlterChange::Pause => set_paused(&mut entry, true)?,
                AlterChange::Resume => set_paused(&mut entry, false)?,
                AlterChange::OnSchemaChange(policy) => match &mut entry.object {
                    Object::Source(source) => {
                        check_follows_schema_changes(&source.kind)?;
                        source.on_schema_change = *policy;
                    }
                    _ => return Err(Error::internal("a source is not a source")),
                },
                // Two objects change then: see above.
                AlterChange::Swap(_) => return Err(Error::internal("a swap changes two objects")),
            }
            catalog.replace(entry.clone())?;
            batch.put_entry(&entry)?;
            Ok(entry)
        })?;
        if matches!(alter.change, AlterChange::Pause | AlterChange::Resume | AlterChange::OnSchemaChange(_)) {
            self.pause_or_resume(&changed)?;
        }
        Ok(notices)
    }

    /// SWAP WITH: both names change hands in one step of the catalog.
    fn swap(&self, by: &SessionInfo, alter: &Alter, id: ObjectId, with: &Name) -> Result<()> {
        self.change_catalog(|catalog, batch| {
            let other = Arc::clone(by.sees(catalog).require(alter.kind, with)?);
            let entry = catalog.get(id).cloned();
            let entry = entry.ok_or_else(|| Error::internal("the object was dropped meanwhile"))?;
            if entry.id == other.id {
                return Err(Error::new(
                    SqlState::INVALID_PARAMETER_VALUE,
                    format!("cannot swap {} {} with itself", entry.kind().noun(), entry.name),
                ));
            }
            rename::swap(self, catalog, batch, &entry, &other)
        })
    }

    /// Sets a source or sink to work again, or to rest, as its entry says.
    pub(crate) fn pause_or_resume(&self, entry: &Entry) -> Result<()> {
        match &entry.object {
            Object::Source(_) => self.start_source(entry),
            Object::Sink(_) => match self.workers.followed(entry.id) {
                Some(followed) => self.start_sink(entry, followed),
                None => {
                    return Err(Error::new(
                        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                        format!("what sink \"{}\" follows could not be built", entry.name),
                    ));
                }
            },
            _ => {}
        }
        Ok(())
    }

    /// COMMENT ON.
    pub(crate) fn comment(&self, by: &SessionInfo, comment: &Comment) -> Result<()> {
        self.change_catalog(|catalog, batch| {
            let seen = by.sees(catalog);
            let current = match &comment.column {
                Some(_) => seen.require_relation(&comment.name)?,
                None => seen.require(comment.kind, &comment.name)?,
            };
            let mut entry = Entry::clone(current);
            match &comment.column {
                None => entry.comment = comment.text.clone(),
                Some(column) => {
                    if !entry.columns().unwrap_or_default().iter().any(|c| c.name == *column) {
                        return Err(Error::new(
                            SqlState::UNDEFINED_COLUMN,
                            format!("column \"{column}\" of relation \"{}\" does not exist", entry.name),
                        ));
                    }
                    match &comment.text {
                        Some(text) => entry.column_comments.insert(column.clone(), text.clone()),
                        None => entry.column_comments.remove(column),
                    };
                }
            }
            catalog.replace(entry.clone())?;
            batch.put_entry(&entry)
        })
    }
}

fn set_paused(entry: &mut Entry, paused: bool) -> Result<()> {
    match &mut entry.object {
        Object::Source(source) => source.paused = paused,
        Object::Sink(sink) => sink.paused = paused,
        _ => return Err(Error::unsupported(format!("pausing a {}", entry.kind().noun()))),
    }
    Ok(())
}
