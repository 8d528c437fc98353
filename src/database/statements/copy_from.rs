//! COPY … FROM STDIN: what the session does before and after the data.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int8Array, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use futures::TryStreamExt;

use crate::database::statements::insert::{concat, table_ref};
use crate::database::{CopyFormat, CopyIn, Outcome, Session};
use crate::error::{Error, Result, SqlState};
use crate::sql::Name;
use crate::sql::ast::ObjectKind;
use crate::sql::catalog::{Column, Object, ObjectId};
use crate::sql::plan::{ConflictAction, insert_columns};

impl Session {
    pub(crate) async fn copy_from(
        &mut self,
        table: &Name,
        columns: &[String],
        format: &CopyFormat,
    ) -> Result<Outcome> {
        let catalog = self.catalog();
        let entry = catalog.require(ObjectKind::Table, table)?;
        if matches!(&entry.object, Object::Table(t) if t.source.is_some()) {
            return Err(Error::new(
                SqlState::WRONG_OBJECT_TYPE,
                format!("cannot change table \"{}\"", entry.name),
            )
            .with_detail("It is filled by a source."));
        }
        let positions = insert_columns(entry, columns)?;
        let table = table_ref(entry)?;
        // NULL is checked with the whole row, which the message shows.
        let fields: Vec<Field> =
            positions.iter().map(|p| table.schema.field(*p).clone().with_nullable(true)).collect();
        let columns = Arc::new(Schema::new(fields));
        let copy = CopyIn::new(&table.name, (entry.id.0, positions), columns, format.clone())?;
        Ok(Outcome::CopyIn(Box::new(copy)))
    }

    /// Writes the rows of a COPY whose data has come.
    pub(crate) async fn copy_rows(&mut self, copy: CopyIn) -> Result<Outcome> {
        let (id, positions) = copy.target.clone();
        let given = copy.finish()?;
        let table = self.table(ObjectId(id))?;
        let catalog = self.catalog();
        let columns =
            catalog.get(ObjectId(id)).and_then(|e| e.columns().map(<[Column]>::to_vec)).unwrap_or_default();
        self.begin_write("COPY FROM").await?;
        let count: usize = given.iter().map(RecordBatch::num_rows).sum();
        let rows = if given.is_empty() {
            RecordBatch::new_empty(Arc::clone(&table.schema))
        } else {
            let given = arrow::compute::concat_batches(given[0].schema_ref(), &given)?;
            let mut arrays: Vec<ArrayRef> = Vec::with_capacity(columns.len());
            for (i, column) in columns.iter().enumerate() {
                arrays.push(match positions.iter().position(|p| *p == i) {
                    Some(at) => Arc::clone(given.column(at)),
                    None => self.default_values(column, count).await?,
                });
            }
            let fields: Vec<Field> =
                table.schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
            let options = RecordBatchOptions::new().with_row_count(Some(count));
            let whole = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)?;
            concat(&table, &[whole])?
        };
        self.insert_rows(&table, rows, &ConflictAction::Fail, &[]).await?;
        Ok(Outcome::done(format!("COPY {count}")))
    }

    /// A column's default for each of `count` rows: one that is random is another one in each.
    async fn default_values(&mut self, column: &Column, count: usize) -> Result<ArrayRef> {
        let plan = self.with_planner(|p| p.plan_default(column))?;
        let batches: Vec<RecordBatch> = self.start(for_each(plan, count)?).await?.try_collect().await?;
        let arrays: Vec<&dyn arrow::array::Array> = batches.iter().map(|b| b.column(0).as_ref()).collect();
        Ok(arrow::compute::concat(&arrays)?)
    }
}

/// A plan over no table, computed once for each of `count` rows.
fn for_each(plan: LogicalPlan, count: usize) -> Result<LogicalPlan> {
    let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int8, false)]));
    let rows = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(Int8Array::from(vec![0; count]))])?;
    let table = provider_as_source(Arc::new(MemTable::try_new(schema, vec![vec![rows]])?));
    let replaced = plan.transform_up(|node| match node {
        LogicalPlan::EmptyRelation(_) => {
            let scan = LogicalPlanBuilder::scan("rows", Arc::clone(&table), None)?.build()?;
            Ok(Transformed::yes(scan))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(replaced.data)
}
