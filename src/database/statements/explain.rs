//! EXPLAIN: the circuit that would keep a query up to date, and what a sink would do.

use std::sync::Arc;

use arrow::array::{RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::database::statements::query::stream_of;
use crate::database::{Outcome, Session};
use crate::error::{Error, Result};
use crate::sql::ast::{Explain, Statement};

/// One line of the plan a row.
pub(crate) fn explain_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("QUERY PLAN", DataType::Utf8View, false)]))
}

impl Session {
    pub(crate) async fn explain(&mut self, explain: &Explain, text: &str) -> Result<Outcome> {
        if explain.analyze {
            return Err(Error::unsupported("EXPLAIN ANALYZE"));
        }
        let plan = match explain.statement.as_ref() {
            Statement::CreateSink(create) => {
                let lines = self.explain_sink(create).await?;
                return explained(&lines);
            }
            Statement::Query(query) => self.plan_query(query, text, &[])?.bind(Vec::new())?,
            Statement::CreateView(c) | Statement::CreateMaterializedView(c) => {
                let planned = self.with_planner(|p| match c.on_close {
                    true => p.plan_windows(&c.query, &c.columns, text),
                    false => p.plan_materialized_view(&c.query, &c.columns, text),
                });
                planned?.plan
            }
            _ => return Err(Error::unsupported("EXPLAIN of anything but a query, a view or a sink")),
        };
        let lines = self.database.blocking(move |db| db.engine.explain(&plan)).await?;
        explained(&lines)
    }
}

fn explained(lines: &str) -> Result<Outcome> {
    let rows = Arc::new(StringViewArray::from_iter_values(lines.lines()));
    let batch = RecordBatch::try_new(explain_schema(), vec![rows])?;
    Ok(Outcome::Rows {
        schema: explain_schema(),
        stream: stream_of(explain_schema(), vec![batch]),
        tag: |_| "EXPLAIN".to_string(),
        notices: Vec::new(),
    })
}
