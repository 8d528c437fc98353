//! What a statement will answer, before it runs: parameters and columns.

use std::sync::Arc;

use arrow::datatypes::{FieldRef, SchemaRef};

use crate::database::Session;
use crate::database::statements::explain::explain_schema;
use crate::database::statements::show::create_schema;
use crate::database::statements::subscribe::subscription_schema;
use crate::error::Result;
use crate::sql::ast::{Parsed, Show, Statement};
use crate::sql::parser::parse_query;

/// What is known of a statement before it runs.
#[derive(Debug, Default)]
pub(crate) struct Description {
    /// Types of its parameters.
    pub params: Vec<FieldRef>,
    /// Columns of its rows; `None`: it gives none.
    pub columns: Option<SchemaRef>,
}

impl Description {
    fn columns(columns: SchemaRef) -> Description {
        Description { params: Vec::new(), columns: Some(columns) }
    }
}

impl Session {
    /// Says what a statement will answer.
    pub(crate) fn describe(&self, parsed: &Parsed, types: &[Option<FieldRef>]) -> Result<Description> {
        let text = parsed.text.as_str();
        Ok(match &parsed.statement {
            Statement::Query(query) => {
                let planned = self.plan_query(query, text, types)?;
                Description { params: planned.params, columns: Some(planned.schema) }
            }
            Statement::Insert(insert) => {
                let plan = self.with_planner(|p| p.plan_insert(insert, text, types))?;
                let columns = plan.returning.map(|r| r.schema);
                Description { params: plan.params, columns }
            }
            Statement::Update(update) => {
                let plan = self.with_planner(|p| p.plan_update(update, text, types))?;
                let columns = plan.returning.map(|r| r.schema);
                Description { params: plan.params, columns }
            }
            Statement::Delete(delete) => {
                let plan = self.with_planner(|p| p.plan_delete(delete, text, types))?;
                let columns = plan.returning.map(|r| r.schema);
                Description { params: plan.params, columns }
            }
            Statement::Show(Show::Create(..)) => Description::columns(create_schema()),
            Statement::Show(show) => {
                let sql = self.show_query(show)?;
                Description::columns(self.plan_query(&*parse_query(&sql)?, &sql, &[])?.schema)
            }
            Statement::ShowVariable(name) => Description::columns(self.setting_schema(name)?),
            Statement::Explain(_) => Description::columns(explain_schema()),
            Statement::Subscribe(subscribe) => {
                let of = self.followed_columns(&subscribe.what, text)?;
                Description::columns(subscription_schema(&of))
            }
            Statement::Fetch(fetch) => Description::columns(self.cursor_schema(&fetch.name)?),
            Statement::Execute(execute) => Description {
                params: Vec::new(),
                columns: self.prepared(&execute.name).and_then(|p| p.columns.as_ref().map(Arc::clone)),
            },
            _ => Description::default(),
        })
    }
}
