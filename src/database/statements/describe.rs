//! What a statement will answer, before it runs: parameters and columns.

use std::sync::Arc;

use arrow::datatypes::{FieldRef, SchemaRef};

use crate::database::Session;
use crate::database::statements::explain::explain_schema;
use crate::database::statements::plan::{KeptPlan, Plan};
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
    /// Its plan, where one can be kept.
    pub plan: Option<KeptPlan>,
}

impl Description {
    fn columns(columns: SchemaRef) -> Description {
        Description { columns: Some(columns), ..Description::default() }
    }
}

impl Session {
    /// Says what a statement will answer.
    pub(crate) fn describe(&self, parsed: &Parsed, types: &[Option<FieldRef>]) -> Result<Description> {
        if let Some(plan) = self.plan_statement(parsed, types)? {
            let (params, columns) = match &plan {
                Plan::Query(p) => (p.params.clone(), Some(Arc::clone(&p.schema))),
                Plan::Insert(p) => (p.params.clone(), p.returning.as_ref().map(|r| Arc::clone(&r.schema))),
                Plan::Change(p) => (p.params.clone(), p.returning.as_ref().map(|r| Arc::clone(&r.schema))),
            };
            return Ok(Description { params, columns, plan: self.keep_plan(plan) });
        }
        let text = parsed.text.as_str();
        Ok(match &parsed.statement {
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
                columns: self.prepared(&execute.name).and_then(|p| p.columns.as_ref().map(Arc::clone)),
                ..Description::default()
            },
            _ => Description::default(),
        })
    }
}
