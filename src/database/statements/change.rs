//! UPDATE, DELETE, TRUNCATE.

use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use datafusion::logical_expr::LogicalPlan;
use datafusion::scalar::ScalarValue;
use futures::TryStreamExt;
use hashbrown::HashMap;

use crate::database::statements::insert::table_ref;
use crate::database::statements::query::with_schema;
use crate::database::write_set::{TableRef, WriteSet};
use crate::database::writer::State;
use crate::database::{Outcome, Session};
use crate::engine::serve::Overlay;
use crate::engine::{Delta, EngineSnapshot};
use crate::error::{Error, Result, SqlState};
use crate::sql::ast::{ObjectKind, Truncate};
use crate::sql::catalog::Object;
use crate::sql::parser::parse_query;
use crate::sql::plan::ChangePlan;

impl Session {
    pub(crate) async fn update(&mut self, plan: &ChangePlan, values: Vec<ScalarValue>) -> Result<Outcome> {
        let table = self.table(plan.table)?;
        self.may_take_back(plan.table, "update")?;
        self.begin_write("UPDATE").await?;
        let both = self.all_rows(plan.bind(values.clone())?).await?;
        let width = table.schema.fields().len();
        let (mut old, mut new) = match both {
            None => (empty(&table), empty(&table)),
            Some(both) => {
                let all: Vec<usize> = (0..both.num_columns()).collect();
                let old = with_schema(&both.project(&all[..width])?, &table.schema)?;
                (old, nullable(&table, &both.project(&all[width..])?)?)
            }
        };
        let transaction =
            self.transaction.as_mut().ok_or_else(|| Error::internal("a write outside of a transaction"))?;
        let snapshot = transaction.snapshot(&self.database);
        let overlay = transaction.overlay();
        let write = |state: &State, set: &mut WriteSet| {
            if plan.may_repeat {
                let first = first_versions(set, &snapshot, &overlay, &old)?;
                old = filter_record_batch(&old, &first)?;
                new = filter_record_batch(&new, &first)?;
            }
            set.replace(state, Some(old), Some(new.clone()))?;
            Ok(new)
        };
        let written = transaction.write(&self.database, &table, write).await?;
        let tag = format!("UPDATE {}", written.num_rows());
        self.written(plan.returning.as_ref(), &written, &values, tag, |n| format!("UPDATE {n}"))
    }

    pub(crate) async fn delete(&mut self, plan: &ChangePlan, values: Vec<ScalarValue>) -> Result<Outcome> {
        let table = self.table(plan.table)?;
        self.may_take_back(plan.table, "delete from")?;
        self.begin_write("DELETE").await?;
        let old = match self.all_rows(plan.bind(values.clone())?).await? {
            Some(rows) => with_schema(&rows, &table.schema)?,
            None => empty(&table),
        };
        self.remove(&table, old.clone()).await?;
        let tag = format!("DELETE {}", old.num_rows());
        self.written(plan.returning.as_ref(), &old, &values, tag, |n| format!("DELETE {n}"))
    }

    /// TRUNCATE: a DELETE of every row that the transaction sees, over all tables together.
    pub(crate) async fn truncate(&mut self, truncate: &Truncate) -> Result<Outcome> {
        let catalog = self.catalog();
        let mut tables = Vec::with_capacity(truncate.tables.len());
        for name in &truncate.tables {
            let entry = catalog.require(ObjectKind::Table, name)?;
            if matches!(&entry.object, Object::Table(t) if t.source.is_some()) {
                return Err(Error::new(
                    SqlState::WRONG_OBJECT_TYPE,
                    format!("cannot change table \"{}\"", entry.name),
                )
                .with_detail("It is filled by a source."));
            }
            self.may_take_back(entry.id, "truncate")?;
            tables.push((table_ref(entry)?, catalog.qualified(entry)));
        }
        self.begin_write("TRUNCATE TABLE").await?;
        for (table, name) in tables {
            let query = parse_query(&format!("SELECT * FROM {name}"))?;
            let plan = self.plan_query(&query, "", &[])?.bind(Vec::new())?;
            if let Some(rows) = self.all_rows(plan).await? {
                self.remove(&table, with_schema(&rows, &table.schema)?).await?;
            }
        }
        Ok(Outcome::done("TRUNCATE TABLE"))
    }

    /// Refuses to take rows of an append-only table back.
    ///
    /// # Errors
    /// 42809 for such a table.
    pub(super) fn may_take_back(&self, table: crate::sql::ObjectId, verb: &str) -> Result<()> {
        let catalog = self.catalog();
        match catalog.get(table) {
            Some(entry) if matches!(&entry.object, Object::Table(t) if t.append_only) => {
                let message = format!("cannot {verb} table \"{}\"", entry.name);
                Err(Error::new(SqlState::WRONG_OBJECT_TYPE, message).with_detail("It is append-only."))
            }
            _ => Ok(()),
        }
    }

    async fn remove(&mut self, table: &Arc<TableRef>, rows: RecordBatch) -> Result<()> {
        self.transaction
            .as_mut()
            .ok_or_else(|| Error::internal("a write outside of a transaction"))?
            .write(&self.database, table, |state, set| set.delete(state, rows))
            .await
    }

    /// All rows of a plan as one batch; `None`: there are none.
    async fn all_rows(&mut self, plan: LogicalPlan) -> Result<Option<RecordBatch>> {
        let batches: Vec<RecordBatch> = self.start(plan).await?.try_collect().await?;
        match batches.first() {
            None => Ok(None),
            Some(first) => Ok(Some(concat_batches(first.schema_ref(), &batches)?)),
        }
    }
}

fn empty(table: &TableRef) -> RecordBatch {
    RecordBatch::new_empty(Arc::clone(&table.schema))
}

/// New rows under the table's names; NULL where it is refused is found by the check that tells of it.
fn nullable(table: &TableRef, rows: &RecordBatch) -> Result<RecordBatch> {
    crate::database::statements::insert::concat(table, std::slice::from_ref(rows))
}

/// Which of the rows to be updated count, where a join may give one row of the table several times: as many as the
/// table has, the first ones.
fn first_versions(
    set: &WriteSet,
    snapshot: &EngineSnapshot,
    overlay: &Overlay,
    old: &RecordBatch,
) -> Result<BooleanArray> {
    let encoded = set.encode(old)?;
    let mut left: HashMap<&[u8], i64> = HashMap::new();
    for i in 0..old.num_rows() {
        left.insert(encoded.row(i).data(), 0);
    }
    let collection = snapshot.collection(set.table.id).ok_or_else(|| set.table.gone())?;
    let stored = collection.batches()?.into_iter().map(|rows| Delta { rows, weights: None });
    let own = overlay.0.get(&set.table.id).into_iter().flatten().cloned();
    for delta in stored.chain(own) {
        let rows = set.encode(&delta.rows)?;
        for i in 0..delta.rows.num_rows() {
            if let Some(count) = left.get_mut(rows.row(i).data()) {
                *count += delta.weights.as_ref().map_or(1, |w| w[i]);
            }
        }
    }
    Ok((0..old.num_rows())
        .map(|i| {
            let count = left.get_mut(encoded.row(i).data())?;
            *count -= 1;
            Some(*count >= 0)
        })
        .collect())
}
