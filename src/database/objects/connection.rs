//! SECRET and CONNECTION.

use std::sync::Arc;

use crate::connectors::registry;
use crate::database::objects::claim;
use crate::database::{Database, Notice, connect};
use crate::error::{Error, Result};
use crate::sql::ast::{CreateConnection, CreateSecret, ObjectKind};
use crate::sql::catalog::{Connection, Entry, Object, Secret};
use crate::sql::{Name, SessionInfo};

impl Database {
    /// CREATE SECRET.
    pub(crate) fn create_secret(&self, by: &SessionInfo, create: &CreateSecret) -> Result<Vec<Notice>> {
        let mut notices = Vec::new();
        let claimed = claim(
            &by.sees(&self.catalog()),
            ObjectKind::Secret,
            &create.name,
            create.if_not_exists,
            &mut notices,
        )?;
        if let Some(place) = claimed {
            let object = Object::Secret(Secret { value: create.value.clone() });
            self.add(&[Entry::new(self.new_id()?, place, &by.user, object)])?;
        }
        Ok(notices)
    }

    /// CREATE CONNECTION. Blocks while the connection is tried.
    pub(crate) fn create_connection(
        &self,
        by: &SessionInfo,
        create: &CreateConnection,
    ) -> Result<Vec<Notice>> {
        let mut notices = Vec::new();
        let catalog = by.sees(&self.catalog());
        let claimed =
            claim(&catalog, ObjectKind::Connection, &create.name, create.if_not_exists, &mut notices)?;
        let Some(place) = claimed else { return Ok(notices) };
        let options = connect::resolve(&catalog, &create.options)?;
        if create.validate {
            registry::validate_connection(&create.kind, options).map_err(|e| match e.hint {
                Some(_) => e,
                None => e.with_hint("WITH (validate = false) creates the connection without trying it."),
            })?;
        } else {
            registry::check_connection_kind(&create.kind)?;
        }
        let connection = Connection { kind: create.kind.clone(), options: create.options.clone() };
        self.add(&[Entry::new(self.new_id()?, place, &by.user, Object::Connection(connection))])?;
        Ok(notices)
    }

    /// VALIDATE CONNECTION. Blocks while the connection is tried.
    pub(crate) fn validate_connection(&self, by: &SessionInfo, name: &Name) -> Result<()> {
        let catalog = by.sees(&self.catalog());
        let entry = Arc::clone(catalog.require(ObjectKind::Connection, name)?);
        let Object::Connection(connection) = &entry.object else {
            return Err(Error::internal("a connection is not a connection"));
        };
        registry::validate_connection(&connection.kind, connect::resolve(&catalog, &connection.options)?)
    }
}
