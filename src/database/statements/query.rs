//! SELECT and whatever else reads: planning, binding to the transaction's tick, running.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{FieldRef, SchemaRef};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::scalar::ScalarValue;
use futures::{StreamExt, TryStreamExt};

use crate::database::files::{self, Previews};
use crate::database::statements::Params;
use crate::database::{CopyFormat, Outcome, Session, pg_catalog};
use crate::engine::plan::collections;
use crate::engine::serve;
use crate::engine::serve::point::PointRead;
use crate::error::{Error, Result};
use crate::sql::ast::Query;
use crate::sql::plan::{Planned, Planner};

/// The same columns under another schema's names; types must agree.
pub(crate) fn with_schema(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), batch.columns().to_vec(), &options)?)
}

/// The same rows under another schema's names.
pub(crate) fn rename(stream: SendableRecordBatchStream, schema: &SchemaRef) -> SendableRecordBatchStream {
    let names = Arc::clone(schema);
    let rows = stream.map(move |batch| Ok(with_schema(&batch?, &names)?));
    Box::pin(RecordBatchStreamAdapter::new(Arc::clone(schema), rows))
}

/// Rows that are there already.
pub(crate) fn stream_of(schema: SchemaRef, batches: Vec<RecordBatch>) -> SendableRecordBatchStream {
    let rows = futures::stream::iter(batches.into_iter().map(Ok));
    Box::pin(RecordBatchStreamAdapter::new(schema, rows))
}

/// Refuses `set_config` where nobody would do what it asks for.
pub(crate) fn refuse_assignments(plan: &LogicalPlan, place: &str) -> Result<()> {
    match pg_catalog::sets_settings(plan) {
        Some(_) => Err(Error::unsupported(format!("set_config in {place}"))),
        None => Ok(()),
    }
}

impl Session {
    /// Plans with what there is now.
    pub(crate) fn with_planner<T>(&self, plan: impl FnOnce(&Planner<'_>) -> Result<T>) -> Result<T> {
        self.with_previews(Previews::default(), plan)
    }

    fn with_previews<T>(
        &self,
        previews: Previews,
        plan: impl FnOnce(&Planner<'_>) -> Result<T>,
    ) -> Result<T> {
        let info = self.info();
        let catalog = info.sees(&self.database.catalog());
        let system = self.database.system(&info, self.settings.all()).with_previews(previews);
        plan(&Planner::new(&catalog, &info, Some(&system)))
    }

    /// Plans a query; `text` is its statement's.
    pub(crate) fn plan_query(
        &self,
        query: &Query,
        text: &str,
        params: &[Option<FieldRef>],
    ) -> Result<Planned> {
        let mut query = query.clone();
        pg_catalog::rewrite(&mut query);
        let previews = files::open(&self.catalog(), &mut query)?;
        self.with_previews(previews, |planner| planner.plan_query(&query, text, params))
    }

    /// Runs a plan over the transaction's tick and its own writes.
    pub(crate) async fn start(&mut self, plan: LogicalPlan) -> Result<SendableRecordBatchStream> {
        self.check_built(&plan)?;
        let transaction =
            self.transaction.as_mut().ok_or_else(|| Error::internal("a read outside of a transaction"))?;
        let snapshot = transaction.snapshot(&self.database);
        let bound = serve::bind(plan, &snapshot, &transaction.overlay())?;
        let mut state = serve::session_state();
        // now() is the time at which the statement began.
        state.mark_start_execution();
        self.database.queries.start(bound, state).await
    }

    /// Runs a kept look-up over the transaction's tick; `None` if it has to be run as any other query.
    pub(crate) fn look_up(
        &mut self,
        point: &PointRead,
        planned: &Planned,
        params: &Params,
    ) -> Result<Option<Outcome>> {
        let Some(transaction) = self.transaction.as_mut().filter(|t| !t.has_written()) else {
            return Ok(None);
        };
        if !self.database.failed.lock().is_empty() {
            return Ok(None);
        }
        let snapshot = transaction.snapshot(&self.database);
        let values: Vec<ScalarValue> = params.iter().map(|(_, value)| value.clone()).collect();
        let Some(rows) = point.run(&snapshot, &values)? else { return Ok(None) };
        let rows = with_schema(&rows, &planned.schema)?;
        Ok(Some(Outcome::select(stream_of(Arc::clone(&planned.schema), vec![rows]))))
    }

    /// A view that could not be built when the database was opened says why.
    fn check_built(&self, plan: &LogicalPlan) -> Result<()> {
        let failed = self.database.failed.lock();
        if failed.is_empty() {
            return Ok(());
        }
        for id in collections(plan) {
            if let Some(error) = failed.get(&id.into()) {
                let mut error = error.clone();
                error.position = None;
                let why = "The view could not be built when the database was opened.";
                error.detail =
                    Some(error.detail.map_or_else(|| why.to_string(), |detail| format!("{detail} {why}")));
                return Err(error);
            }
        }
        Ok(())
    }

    /// The rows of a query, under PostgreSQL's column names.
    pub(crate) async fn rows(&mut self, query: &Query, text: &str) -> Result<SendableRecordBatchStream> {
        let planned = self.plan_query(query, text, &[])?;
        refuse_assignments(&planned.plan, "a cursor or COPY")?;
        self.planned_rows(&planned, Vec::new()).await
    }

    async fn planned_rows(
        &mut self,
        planned: &Planned,
        params: Vec<ScalarValue>,
    ) -> Result<SendableRecordBatchStream> {
        let stream = self.start(planned.bind(params)?).await?;
        Ok(rename(stream, &planned.schema))
    }

    pub(crate) async fn query(&mut self, planned: &Planned, params: Vec<ScalarValue>) -> Result<Outcome> {
        let rows = self.planned_rows(planned, params).await?;
        let Some(context) = pg_catalog::sets_settings(&planned.plan) else {
            return Ok(Outcome::select(rows));
        };
        let schema = rows.schema();
        let batches = rows.try_collect().await?;
        for (name, value, local) in context.assigned.lock().drain(..) {
            self.settings.set(&name, Some(&value), local)?;
        }
        Ok(Outcome::select(stream_of(schema, batches)))
    }

    pub(crate) async fn copy_query(
        &mut self,
        query: &Query,
        text: &str,
        format: CopyFormat,
    ) -> Result<Outcome> {
        let stream = self.rows(query, text).await?;
        Ok(Outcome::CopyOut { schema: stream.schema(), format, stream })
    }
}
