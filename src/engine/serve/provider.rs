//! A collection as of one tick, as DataFusion scans it.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Statistics;
use datafusion::common::stats::Precision;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;

use super::bounds;
use super::snapshot::CollectionSnapshot;
use crate::engine::Delta;
use crate::error::{Error, Result, SqlState};

/// The rows of one collection at one tick, with the changes an open transaction has made to them.
pub struct SnapshotTable {
    collection: Arc<CollectionSnapshot>,
    /// The rows with the transaction's changes; `None`: it has made none.
    changed: Option<RecordBatch>,
}

impl std::fmt::Debug for SnapshotTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnapshotTable").field("rows", &self.num_rows()).finish()
    }
}

impl SnapshotTable {
    /// A collection's rows and the changes over them.
    ///
    /// # Errors
    /// A view some of whose rows failed has no answer: the first failure is the error. 55000 for an input that keeps
    /// no rows.
    pub fn new(collection: Arc<CollectionSnapshot>, overlay: &[Delta]) -> Result<Self> {
        if let Some(failed) = collection.errors().first() {
            return Err(failed.error.clone());
        }
        if !collection.keeps_rows() {
            let message = format!("\"{}\" keeps no rows that could be read", collection.name());
            return Err(Error::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message)
                .with_hint("Create a materialized view over it and read that."));
        }
        let changed = match overlay {
            [] => None,
            changes => {
                let mut deltas = collection.deltas()?;
                deltas.extend(changes.iter().cloned());
                Some(Delta::concat(collection.schema(), &deltas)?.consolidate()?.expand()?)
            }
        };
        Ok(SnapshotTable { collection, changed })
    }

    /// The rows that an index finds by these filters, and maybe more; `None` when there is no such index.
    fn look_up(&self, filters: &[Expr], projection: Option<&Vec<usize>>) -> Result<Option<RecordBatch>> {
        if filters.is_empty() || self.changed.is_some() {
            return Ok(None);
        }
        let schema = self.collection.schema();
        let bounds: Vec<_> = filters.iter().filter_map(|f| bounds::of_filter(f, schema)).collect();
        let Some(search) = self.collection.indexes().search(&bounds)? else { return Ok(None) };
        let all: Vec<usize>;
        let columns = match projection {
            Some(columns) => columns,
            None => {
                all = (0..schema.fields().len()).collect();
                &all
            }
        };
        self.collection.find(&search, columns)
    }

    fn num_rows(&self) -> usize {
        self.changed.as_ref().map_or_else(|| self.collection.num_rows(), RecordBatch::num_rows)
    }
}

#[async_trait]
impl TableProvider for SnapshotTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.collection.schema())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
        if let Some(rows) = self.look_up(filters, projection)? {
            let schema = rows.schema();
            return Ok(MemorySourceConfig::try_new_exec(&[vec![rows]], schema, None)?);
        }
        let batches = match &self.changed {
            Some(rows) => vec![rows.clone()],
            None => self.collection.batches()?,
        };
        let schema = self.schema();
        let partitions = state.config().target_partitions().clamp(1, batches.len().max(1));
        let mut parts = vec![Vec::new(); partitions];
        for (i, batch) in batches.into_iter().enumerate() {
            parts[i % partitions].push(batch);
        }
        Ok(MemorySourceConfig::try_new_exec(&parts, schema, projection.cloned())?)
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> datafusion::error::Result<Vec<TableProviderFilterPushDown>> {
        let schema = self.schema();
        let indexed = |filter: &&Expr| {
            self.changed.is_none()
                && bounds::of_filter(filter, &schema)
                    .is_some_and(|(column, _)| self.collection.indexes().has(column))
        };
        // An index gives what is asked for and may give more: the filter stays.
        let answer = |filter| match indexed(filter) {
            true => TableProviderFilterPushDown::Inexact,
            false => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(answer).collect())
    }

    fn statistics(&self) -> Option<Statistics> {
        let statistics = Statistics::new_unknown(&self.schema());
        Some(statistics.with_num_rows(Precision::Exact(self.num_rows())))
    }
}
