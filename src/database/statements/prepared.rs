//! PREPARE, EXECUTE, DEALLOCATE: prepared statements by SQL, the same ones that the extended protocol makes.

use std::sync::Arc;

use datafusion::logical_expr::LogicalPlan;
use datafusion::scalar::ScalarValue;
use futures::TryStreamExt;

use crate::database::statements::Params;
use crate::database::{Outcome, Session};
use crate::error::{Error, Result, SqlState};
use crate::names::quote_literal;
use crate::sql::ast::{Execute, Expr, Parsed, Prepare, Statement};
use crate::sql::parser::parse_query;
use crate::types::SqlType;

fn missing(name: &str) -> Error {
    Error::new(SqlState::INVALID_SQL_STATEMENT_NAME, format!("prepared statement \"{name}\" does not exist"))
}

impl Session {
    pub(crate) fn prepare_statement(&mut self, prepare: &Prepare) -> Result<Outcome> {
        let types: Vec<_> = prepare
            .types
            .iter()
            .enumerate()
            .map(|(i, t)| Some(t.field_ref(format!("${}", i + 1), true)))
            .collect();
        let parsed = Parsed { statement: prepare.statement.clone(), text: prepare.text.clone(), offset: 0 };
        self.keep_prepared(&prepare.name, &prepare.text, Some(parsed), &types)?;
        Ok(Outcome::done("PREPARE"))
    }

    pub(crate) async fn execute_statement(&mut self, execute: &Execute) -> Result<Outcome> {
        let prepared = self.prepared(&execute.name).ok_or_else(|| missing(&execute.name))?;
        if prepared.params.len() != execute.args.len() {
            return Err(Error::new(
                SqlState::SYNTAX_ERROR,
                format!("wrong number of parameters for prepared statement \"{}\"", execute.name),
            )
            .with_detail(format!(
                "Expected {} parameters but got {}.",
                prepared.params.len(),
                execute.args.len()
            )));
        }
        let mut params: Params = Vec::with_capacity(execute.args.len());
        for (field, arg) in prepared.params.iter().zip(&execute.args) {
            params.push((Arc::clone(field), self.argument(arg, &SqlType::of(field)).await?));
        }
        let Some(parsed) = prepared.statement.clone() else { return Ok(Outcome::Empty) };
        if matches!(parsed.statement, Statement::Execute(_)) {
            return Err(Error::unsupported("a prepared EXECUTE"));
        }
        Box::pin(self.run(&parsed, params, prepared.plan.as_ref())).await
    }

    /// The value of an argument: any expression without columns, cast to the parameter's type.
    async fn argument(&mut self, arg: &Expr, to: &SqlType) -> Result<ScalarValue> {
        let query = parse_query(&format!("SELECT CAST(({arg}) AS {to})"))?;
        let planned = self.plan_query(&query, "", &[])?;
        // A literal needs no run.
        let plan: LogicalPlan = planned.bind(Vec::new())?;
        let batches: Vec<_> = self.start(plan).await?.try_collect().await?;
        match batches.iter().find(|b| b.num_rows() > 0) {
            Some(batch) => Ok(ScalarValue::try_from_array(batch.column(0), 0)?),
            None => {
                Err(Error::internal(format!("argument {} has no value", quote_literal(&arg.to_string()))))
            }
        }
    }

    pub(crate) fn deallocate(&mut self, name: Option<&str>) -> Result<Outcome> {
        match name {
            None => {
                self.prepared.clear();
                Ok(Outcome::done("DEALLOCATE ALL"))
            }
            Some(name) => match self.prepared.remove(name) {
                Some(_) => Ok(Outcome::done("DEALLOCATE")),
                None => Err(missing(name)),
            },
        }
    }
}
