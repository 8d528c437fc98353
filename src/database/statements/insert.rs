//! INSERT, with ON CONFLICT and RETURNING.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, filter_record_batch, take_record_batch};
use datafusion::scalar::ScalarValue;
use futures::TryStreamExt;
use hashbrown::{HashMap, HashSet};

use crate::database::statements::query::{stream_of, with_schema};
use crate::database::write_set::{Existing, TableRef, WriteSet};
use crate::database::writer::State;
use crate::database::{Outcome, Session};
use crate::engine::EngineSnapshot;
use crate::error::{Error, Result, SqlState};
use crate::sql::catalog::Entry;
use crate::sql::plan::{ConflictAction, InsertPlan, RowExpressions};

/// A table that statements write.
pub(crate) fn table_ref(entry: &Entry) -> Result<Arc<TableRef>> {
    let schema = entry.schema().ok_or_else(|| Error::internal("a table without columns"))?;
    let (id, name, key) = (entry.id.collection(), entry.name.clone(), entry.key().to_vec());
    Ok(Arc::new(TableRef { id, name, schema, key, checks: None }))
}

impl Session {
    pub(crate) async fn insert(&mut self, plan: &InsertPlan, values: Vec<ScalarValue>) -> Result<Outcome> {
        let table = self.table(plan.table)?;
        self.begin_write("INSERT").await?;
        let batches: Vec<RecordBatch> = self.start(plan.bind(values.clone())?).await?.try_collect().await?;
        let rows = concat(&table, &batches)?;
        let written = self.insert_rows(&table, rows, &plan.conflict, &values).await?;
        let n = written.num_rows();
        self.written(plan.returning.as_ref(), &written, &values, format!("INSERT 0 {n}"), |n| {
            format!("INSERT 0 {n}")
        })
    }

    /// Adds rows to a table; answers with those that were written, in order.
    pub(crate) async fn insert_rows(
        &mut self,
        table: &Arc<TableRef>,
        rows: RecordBatch,
        conflict: &ConflictAction,
        params: &[ScalarValue],
    ) -> Result<RecordBatch> {
        if matches!(conflict, ConflictAction::Update { .. }) {
            self.may_take_back(table.id.into(), "update")?;
        }
        let transaction =
            self.transaction.as_mut().ok_or_else(|| Error::internal("a write outside of a transaction"))?;
        let snapshot = transaction.snapshot(&self.database);
        let write = |state: &State, set: &mut WriteSet| match conflict {
            ConflictAction::Fail => {
                set.insert(state, rows.clone())?;
                Ok(rows)
            }
            ConflictAction::Nothing => {
                let free = set.existing(state, &rows)?.into_iter().map(|e| e == Existing::No);
                let rows = filter_record_batch(&rows, &free.collect::<Vec<bool>>().into())?;
                set.insert(state, rows.clone())?;
                Ok(rows)
            }
            ConflictAction::Update { row, condition } => {
                upsert(state, set, &snapshot, &rows, row, condition.as_ref(), params)
            }
        };
        transaction.write(&self.database, table, write).await
    }

    /// A table by its identity, as it is now.
    pub(crate) fn table(&self, id: crate::sql::ObjectId) -> Result<Arc<TableRef>> {
        let catalog = self.database.catalog();
        let entry = catalog.get(id).ok_or_else(|| {
            Error::new(SqlState::UNDEFINED_TABLE, "the table was dropped while the statement was planned")
        })?;
        let mut table = table_ref(entry)?;
        if let Some(checks) = self.with_planner(|p| p.plan_checks(entry))? {
            Arc::make_mut(&mut table).checks = Some(checks);
        }
        Ok(table)
    }

    /// Gets the transaction ready to write.
    pub(crate) async fn begin_write(&mut self, what: &str) -> Result<()> {
        let transaction =
            self.transaction.as_mut().ok_or_else(|| Error::internal("a write outside of a transaction"))?;
        transaction.begin_write(&self.database, what).await
    }

    /// The outcome of a statement that has written rows.
    pub(crate) fn written(
        &self,
        returning: Option<&RowExpressions>,
        rows: &RecordBatch,
        params: &[ScalarValue],
        tag: String,
        tag_of: fn(u64) -> String,
    ) -> Result<Outcome> {
        let Some(returning) = returning else { return Ok(Outcome::done(tag)) };
        let rows = returning.evaluate(rows, params)?;
        let schema = rows.schema();
        let stream = stream_of(Arc::clone(&schema), vec![rows]);
        Ok(Outcome::Rows { schema, stream, tag: tag_of, notices: Vec::new() })
    }
}

/// Batches of a table's columns as one.
pub(crate) fn concat(table: &TableRef, batches: &[RecordBatch]) -> Result<RecordBatch> {
    let all = match batches {
        [] => return Ok(RecordBatch::new_empty(Arc::clone(&table.schema))),
        [one] => one.clone(),
        several => concat_batches(several[0].schema_ref(), several)?,
    };
    with_nullable(table, &all)
}

/// A table's rows as they were computed: NULL where it is refused is found by the check that tells of it.
fn with_nullable(table: &TableRef, rows: &RecordBatch) -> Result<RecordBatch> {
    let refuses = |i: usize| !table.schema.field(i).is_nullable() && rows.column(i).null_count() > 0;
    if (0..rows.num_columns().min(table.schema.fields().len())).any(refuses) {
        let fields: Vec<_> =
            table.schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
        return with_schema(rows, &Arc::new(arrow::datatypes::Schema::new(fields)));
    }
    with_schema(rows, &table.schema)
}

/// INSERT … ON CONFLICT DO UPDATE.
fn upsert(
    state: &State,
    set: &mut WriteSet,
    snapshot: &EngineSnapshot,
    proposed: &RecordBatch,
    new_row: &RowExpressions,
    condition: Option<&RowExpressions>,
    params: &[ScalarValue],
) -> Result<RecordBatch> {
    let existing = set.existing(state, proposed)?;
    if existing.contains(&Existing::SameStatement) {
        return Err(twice());
    }
    let free: BooleanArray = existing.iter().map(|e| Some(*e == Existing::No)).collect();
    let inserted = filter_record_batch(proposed, &free)?;
    let taken: UInt32Array =
        (0u32..).zip(&existing).filter(|(_, e)| **e == Existing::Stored).map(|(i, _)| Some(i)).collect();
    let excluded = take_record_batch(proposed, &taken)?;
    let old = rows_of_keys(set, snapshot, &excluded)?;
    let mut both = old.columns().to_vec();
    both.extend(excluded.columns().iter().cloned());
    let both = beside(&old, &excluded, both)?;
    let kept = match condition {
        None => BooleanArray::from(vec![true; old.num_rows()]),
        Some(condition) => {
            let answer = condition.evaluate(&both, params)?;
            answer.column(0).as_boolean().iter().map(|b| Some(b == Some(true))).collect()
        }
    };
    let updated = new_row.evaluate(&filter_record_batch(&both, &kept)?, params)?;
    let updated = with_nullable(&set.table.clone(), &updated)?;
    let old = filter_record_batch(&old, &kept)?;
    set.replace(state, Some(old), Some(updated.clone()))?;
    let inserted = with_nullable(&set.table.clone(), &inserted)?;
    set.insert(state, inserted.clone())?;
    // The rows written, in the order in which they were proposed.
    let (mut next_inserted, mut next_updated, mut next_taken) = (0u32, inserted.num_rows() as u32, 0usize);
    let mut order = Vec::with_capacity(inserted.num_rows() + updated.num_rows());
    for e in &existing {
        if *e == Existing::No {
            order.push(next_inserted);
            next_inserted += 1;
        } else {
            if kept.value(next_taken) {
                order.push(next_updated);
                next_updated += 1;
            }
            next_taken += 1;
        }
    }
    let schema = inserted.schema();
    let all = concat_batches(&schema, [&inserted, &with_schema(&updated, &schema)?])?;
    Ok(take_record_batch(&all, &UInt32Array::from(order))?)
}

fn twice() -> Error {
    Error::new(
        SqlState::CARDINALITY_VIOLATION,
        "ON CONFLICT DO UPDATE command cannot affect row a second time",
    )
    .with_hint(
        "Ensure that no rows proposed for insertion within the same command have duplicate constrained values.",
    )
}

/// Two batches of as many rows, side by side.
fn beside(
    left: &RecordBatch,
    right: &RecordBatch,
    columns: Vec<arrow::array::ArrayRef>,
) -> Result<RecordBatch> {
    let fields: Vec<_> = left
        .schema()
        .fields()
        .iter()
        .chain(right.schema().fields())
        .map(|f| f.as_ref().clone().with_nullable(true))
        .collect();
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(left.num_rows()));
    let schema = Arc::new(arrow::datatypes::Schema::new(fields));
    Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
}

/// The rows that have the keys of `like`, in the same order, as this transaction sees them.
fn rows_of_keys(set: &WriteSet, snapshot: &EngineSnapshot, like: &RecordBatch) -> Result<RecordBatch> {
    let wanted_rows = set.encode(like)?;
    let wanted: HashSet<&[u8]> = (0..like.num_rows()).map(|i| wanted_rows.row(i).data()).collect();
    let collection = snapshot.collection(set.table.id).ok_or_else(|| set.table.gone())?;
    let mut found: HashMap<Box<[u8]>, RecordBatch> = HashMap::with_capacity(wanted.len());
    let mut look = |rows: &RecordBatch, weights: Option<&[i64]>| -> Result<()> {
        let encoded = set.encode(rows)?;
        for i in 0..rows.num_rows() {
            let key = encoded.row(i).data();
            if !wanted.contains(key) {
                continue;
            }
            if weights.is_none_or(|w| w[i] > 0) {
                found.insert(Box::from(key), rows.slice(i, 1));
            } else {
                found.remove(key);
            }
        }
        Ok(())
    };
    for batch in collection.batches()? {
        look(&batch, None)?;
    }
    for delta in &set.deltas {
        look(&delta.rows, delta.weights.as_deref())?;
    }
    let mut rows = Vec::with_capacity(like.num_rows());
    for i in 0..like.num_rows() {
        // The key exists now, but not at the tick that this transaction reads at.
        let row = found.get(wanted_rows.row(i).data()).ok_or_else(|| {
            Error::new(SqlState::SERIALIZATION_FAILURE, "could not serialize access due to concurrent update")
        })?;
        rows.push(with_schema(row, &set.table.schema)?);
    }
    Ok(concat_batches(&set.table.schema, &rows)?)
}
