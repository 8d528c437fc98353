//! SHOW: the system relations, chosen and ordered for reading.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::database::statements::query::stream_of;
use crate::database::{Outcome, Session};
use crate::error::Result;
use crate::names::quote_literal;
use crate::sql::ast::{ObjectKind, Show};
use crate::sql::parser::parse_query;

fn text_schema(names: &[&str]) -> SchemaRef {
    let fields = names.iter().map(|n| Field::new(*n, DataType::Utf8View, true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn text_rows(schema: &SchemaRef, rows: &[Vec<String>]) -> Result<Outcome> {
    let columns = (0..schema.fields().len()).map(|c| {
        let values = rows.iter().map(|r| r.get(c).map_or("", String::as_str));
        Arc::new(StringViewArray::from_iter_values(values)) as ArrayRef
    });
    let batch = RecordBatch::try_new(Arc::clone(schema), columns.collect())?;
    Ok(Outcome::Rows {
        schema: Arc::clone(schema),
        stream: stream_of(Arc::clone(schema), vec![batch]),
        tag: |_| "SHOW".to_string(),
        notices: Vec::new(),
    })
}

impl Session {
    /// The query that a SHOW of objects is.
    pub(crate) fn show_query(&self, show: &Show) -> Result<String> {
        Ok(match show {
            Show::Objects(kind) => match kind {
                ObjectKind::Source => {
                    "SELECT name, type, status, rows, bytes, lag, freshness, error FROM tidemill.sources ORDER BY name"
                }
                ObjectKind::Sink => {
                    "SELECT name, type, target, status, rows_committed, tick_committed, freshness, error \
                     FROM tidemill.sinks ORDER BY name"
                }
                ObjectKind::Table => "SELECT name, source, rows, comment FROM tidemill.tables ORDER BY name",
                ObjectKind::View => "SELECT name, definition, comment FROM tidemill.views ORDER BY name",
                ObjectKind::MaterializedView => {
                    "SELECT name, status, rows, bytes, tick, error FROM tidemill.materialized_views ORDER BY name"
                }
                ObjectKind::Connection => {
                    "SELECT name, type, used_by, comment FROM tidemill.connections ORDER BY name"
                }
                ObjectKind::Secret => "SELECT name, comment FROM tidemill.secrets ORDER BY name",
                ObjectKind::Schema => {
                    "SELECT schema_name AS name FROM information_schema.schemata ORDER BY schema_name"
                }
                ObjectKind::Index => "SELECT name, relation, columns FROM tidemill.indexes ORDER BY name",
            }
            .to_string(),
            Show::Columns(name) => {
                let catalog = self.catalog();
                let entry = catalog.require_relation(name)?;
                format!(
                    "SELECT name, type, nullable, \"default\", comment FROM tidemill.columns \
                     WHERE relation = {} ORDER BY position",
                    quote_literal(&catalog.full_name(entry))
                )
            }
            Show::Status => "SELECT name, value FROM tidemill.status ORDER BY name".to_string(),
            // Answered from the catalog, not by a query.
            Show::Create(..) => String::new(),
        })
    }

    pub(crate) async fn show(&mut self, show: &Show) -> Result<Outcome> {
        if let Show::Create(kind, name) = show {
            let catalog = self.catalog();
            let entry = catalog.require(*kind, name)?;
            let name = catalog.full_name(entry);
            return text_rows(&create_schema(), &[vec![name, catalog.create_statement(entry)]]);
        }
        let sql = self.show_query(show)?;
        let stream = self.rows(&*parse_query(&sql)?, &sql).await?;
        Ok(Outcome::Rows {
            schema: stream.schema(),
            stream,
            tag: |_| "SHOW".to_string(),
            notices: Vec::new(),
        })
    }

    pub(crate) fn show_setting(&mut self, name: &str) -> Result<Outcome> {
        let schema = self.setting_schema(name)?;
        if name.eq_ignore_ascii_case("all") {
            let rows: Vec<Vec<String>> =
                self.settings.all().into_iter().map(|(n, v, about)| vec![n, v, about]).collect();
            return text_rows(&schema, &rows);
        }
        let (_, value) = self.settings.show(name)?;
        text_rows(&schema, &[vec![value]])
    }

    /// Columns of SHOW of a setting.
    pub(crate) fn setting_schema(&self, name: &str) -> Result<SchemaRef> {
        if name.eq_ignore_ascii_case("all") {
            return Ok(text_schema(&["name", "setting", "description"]));
        }
        let (name, _) = self.settings.show(name)?;
        Ok(text_schema(&[&name]))
    }
}

/// Columns of SHOW CREATE.
pub(crate) fn create_schema() -> SchemaRef {
    text_schema(&["name", "create_sql"])
}
