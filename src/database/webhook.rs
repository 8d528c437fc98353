//! Requests to webhooks: from the HTTP port through CHECK into a source's mailbox, and back when it is durable.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, RecordBatch, StringViewArray};
use bytes::Bytes;

use crate::connectors::webhook::mailbox::{Mailbox, NoRoom, Room};
use crate::database::{Database, connect};
use crate::error::Result;
use crate::sql::ast::ObjectKind;
use crate::sql::catalog::{Check, Column, Entry, Object, ObjectId, Source, Table};
use crate::sql::parser::parse_request_check;
use crate::sql::plan::{Planner, RowExpressions, SessionInfo};
use crate::sql::{Catalog, Name};
use crate::types::SqlType;
use crate::world;

/// What became of a body, durably.
pub use crate::connectors::webhook::mailbox::Taken;

/// Why a request is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no webhook of that name.
    Unknown,
    /// The source is paused, failed, or is being stopped.
    Closed,
    /// Too many bodies wait already.
    Full,
    /// The body is longer than this many bytes.
    TooLong(usize),
    /// CHECK is not true of it.
    Forbidden,
}

impl From<NoRoom> for Refused {
    fn from(why: NoRoom) -> Self {
        match why {
            NoRoom::Full => Refused::Full,
            NoRoom::Closed => Refused::Closed,
        }
    }
}

/// CHECK, planned: over a row of headers, body and secrets.
pub(crate) struct RequestCheck {
    conditions: RowExpressions,
    schema: arrow::datatypes::SchemaRef,
    secrets: Vec<String>,
}

/// Plans the CHECK of a source; `None`: it has none.
///
/// # Errors
/// PostgreSQL's for expressions; 42704 for a secret that is not there.
pub(crate) fn check(catalog: &Catalog, source: &Source) -> Result<Option<RequestCheck>> {
    let Some(text) = &source.check else { return Ok(None) };
    let parsed = parse_request_check(text)?;
    let mut columns = vec![Column::new("headers", SqlType::Jsonb), Column::new("body", SqlType::Bytea)];
    let mut secrets = Vec::with_capacity(parsed.secrets.len());
    for (name, column) in &parsed.secrets {
        secrets.push(connect::secret(catalog, name)?);
        columns.push(Column::new(column, SqlType::Text));
    }
    let checks = vec![Check { name: "check".into(), condition: parsed.condition }];
    let table = Table { columns, checks, ..Table::default() };
    // A catalog of its own: a request is judged by itself alone.
    let request = Entry::new(ObjectId(1), "request", "", Object::Table(table));
    let alone = Catalog::from_entries([request.clone()], 2)?;
    let planned = Planner::new(&alone, &SessionInfo::default(), None).plan_checks(&request)?;
    let schema = request.schema().unwrap_or_else(|| Arc::new(arrow::datatypes::Schema::empty()));
    Ok(planned.map(|conditions| RequestCheck { conditions, schema, secrets }))
}

impl RequestCheck {
    /// Whether it is true of a request; NULL is not, and neither is a condition that fails.
    fn holds(&self, headers: &str, body: &[u8]) -> Result<bool> {
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(StringViewArray::from_iter_values([headers])),
            Arc::new(BinaryArray::from_iter_values([body])),
        ];
        for secret in &self.secrets {
            columns.push(Arc::new(StringViewArray::from_iter_values([secret.as_str()])));
        }
        let row = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        let answer = self.conditions.evaluate(&row, &[])?;
        let answer = answer.column(0).as_boolean();
        Ok(answer.is_valid(0) && answer.value(0))
    }
}

/// Where requests to one webhook go.
pub struct Webhook {
    name: String,
    mailbox: Arc<Mailbox>,
    check: Option<RequestCheck>,
}

/// Room that a body has been given before it is read.
pub struct Reserved(Room);

impl Webhook {
    /// The door of a source with this mailbox.
    pub(crate) fn new(name: &str, mailbox: Arc<Mailbox>, check: Option<RequestCheck>) -> Arc<Webhook> {
        Arc::new(Webhook { name: name.to_string(), mailbox, check })
    }

    /// What its source reads.
    pub(crate) fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    /// The longest body, in bytes.
    pub fn body_limit(&self) -> usize {
        self.mailbox.limits().body
    }

    /// Reserves room for a body of so many bytes; `None`: it does not say how many.
    ///
    /// # Errors
    /// It is too long, or there is no room.
    pub fn reserve(&self, bytes: Option<u64>) -> Result<Reserved, Refused> {
        let limit = self.body_limit();
        let bytes = match bytes.map(usize::try_from) {
            None => limit,
            Some(Ok(bytes)) if bytes <= limit => bytes,
            Some(_) => return Err(Refused::TooLong(limit)),
        };
        Ok(Reserved(self.mailbox.reserve(bytes)?))
    }

    /// Hands a request to the source, if CHECK is true of it, and waits until its rows are durable.
    /// `headers`: a JSON object.
    ///
    /// # Errors
    /// Why nothing of it was taken; after [`Refused::Closed`] it may have been, unheard.
    pub async fn deliver(&self, room: Reserved, headers: String, body: Bytes) -> Result<Taken, Refused> {
        let Reserved(mut room) = room;
        if let Some(check) = &self.check {
            match check.holds(&headers, &body) {
                Ok(true) => {}
                Ok(false) => return Err(Refused::Forbidden),
                Err(error) => {
                    tracing::warn!(source = self.name, %error, "CHECK of a request failed");
                    return Err(Refused::Forbidden);
                }
            }
        }
        room.shrink(body.len());
        let answer = self.mailbox.post(room, headers, body, world::now_micros())?;
        answer.await.map_err(|_| Refused::Closed)
    }
}

impl Database {
    /// The webhook of a source, by its name; with its schema before a dot, unless that is `public`.
    ///
    /// # Errors
    /// There is none of that name, or it is not at work.
    pub fn webhook(&self, source: &str) -> Result<Arc<Webhook>, Refused> {
        let catalog = self.catalog();
        let in_schema = || {
            let (schema, name) = source.split_once('.')?;
            catalog.find(ObjectKind::Source, &Name::qualified(schema, name))
        };
        let entry = catalog
            .find(ObjectKind::Source, &Name::bare(source.to_string()))
            .or_else(in_schema)
            .ok_or(Refused::Unknown)?;
        match &entry.object {
            Object::Source(object) if object.kind == "webhook" => {}
            _ => return Err(Refused::Unknown),
        }
        self.workers.webhook(entry.id).ok_or(Refused::Closed)
    }
}
