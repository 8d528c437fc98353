//! REPLAY ERRORS: records that a source did not understand are decoded again. Those that it understands now become rows,
//! and leave `tidemill.errors` in the same tick.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::row::{OwnedRow, RowConverter, SortField};
use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, SetExpr};
use futures::TryStreamExt;

use crate::connectors::registry;
use crate::database::statements::query::stream_of;
use crate::database::system::{self, Cell, Column, Kind};
use crate::database::{Database, Outcome, Session, connect};
use crate::engine::{Delta, InputChange, Transaction};
use crate::error::{Error, Result};
use crate::names::quote_literal;
use crate::sql::ast::{ObjectKind, Query, ReplayErrors};
use crate::sql::catalog::{Entry, Object};
use crate::sql::parser::parse_query;

/// Columns of `tidemill.errors` that a record is decoded from.
const RAW: usize = 4;
const KEY: usize = 7;
const METADATA: usize = 8;

/// What the statement answers.
const ANSWER: &[Column] = &[Column("replayed", Kind::Int), Column("left", Kind::Int)];

/// The bad records of a source that can be decoded again and that a condition is true of.
fn chosen(source: &str, condition: Option<&Expr>) -> Result<Box<Query>> {
    let mut query = parse_query(&format!(
        "SELECT * FROM tidemill.errors WHERE object = {} AND kind = 'source' AND metadata IS NOT NULL",
        quote_literal(source)
    ))?;
    if let (SetExpr::Select(select), Some(condition)) = (query.body.as_mut(), condition) {
        let first =
            select.selection.take().ok_or_else(|| Error::internal("a query without its condition"))?;
        let both = |left: Expr, right: Expr| Expr::BinaryOp {
            left: Box::new(left),
            op: BinaryOperator::And,
            right: Box::new(Expr::Nested(Box::new(right))),
        };
        select.selection = Some(both(first, condition.clone()));
    }
    Ok(query)
}

impl Session {
    pub(crate) async fn replay_errors(&mut self, replay: &ReplayErrors, text: &str) -> Result<Outcome> {
        self.refuse_in_block("REPLAY ERRORS")?;
        let catalog = self.catalog();
        let entry = Arc::clone(catalog.require(ObjectKind::Source, &replay.source)?);
        let query = chosen(&catalog.full_name(&entry), replay.condition.as_ref())?;
        let records: Vec<RecordBatch> = self.rows(&query, text).await?.try_collect().await?;
        let (replayed, left) = self.database.blocking(move |db| db.replay(&entry, &records)).await?;
        let schema = system::schema(ANSWER);
        let row = vec![vec![Cell::int(replayed), Cell::int(left)]];
        let answer = system::batch(ANSWER, &schema, row)?;
        let (tag, stream): (fn(u64) -> String, _) =
            (|_| "REPLAY".to_string(), stream_of(schema, vec![answer]));
        Ok(Outcome::Rows { schema: stream.schema(), stream, tag, notices: Vec::new() })
    }
}

impl Database {
    /// Decodes bad records of a source again; how many became rows, and how many are still not understood.
    fn replay(&self, entry: &Entry, records: &[RecordBatch]) -> Result<(usize, usize)> {
        let Object::Source(source) = &entry.object else {
            return Err(Error::internal("what is replayed is no source"));
        };
        if !entry.key().is_empty() {
            return Err(Error::unsupported("REPLAY ERRORS of a source with a key")
                .with_detail(
                    "Records of the same key may have come since; which of them is the newest is not known any more.",
                )
                .with_hint("Have the records sent again, or create the source anew from where they are."));
        }
        let definition = connect::source_definition(&self.catalog(), &entry.name, source)?;
        let schema = entry.schema().ok_or_else(|| Error::internal("a source without a schema"))?;
        let mut decoder = registry::decoder(&definition, &schema)?;
        // Nobody else takes rows out of the errors meanwhile.
        let _alone = self.errors.lock();
        let records = self.still_there(records)?;
        let (raw, key) = (records.column(RAW).as_binary::<i32>(), records.column(KEY).as_binary::<i32>());
        let metadata = records.column(METADATA).as_string_view();
        let value = |bytes: &arrow::array::BinaryArray, row: usize| -> Option<Vec<u8>> {
            bytes.is_valid(row).then(|| bytes.value(row).to_vec())
        };
        let mut understood = Vec::with_capacity(records.num_rows());
        for row in 0..records.num_rows() {
            let (raw, key) = (value(raw, row), value(key, row));
            understood.push(match decoder.push_kept(raw.as_deref(), key.as_deref(), metadata.value(row)) {
                Ok(()) => true,
                Err(why) if why.is_unavailable() => return Err(Error::new(why.sqlstate, why.reason)),
                Err(_) => false,
            });
        }
        let replayed = understood.iter().filter(|u| **u).count();
        if replayed > 0 {
            let gone = filter_record_batch(&records, &BooleanArray::from(understood))?;
            let collection = entry.id.collection();
            let mut changes: Vec<_> = decoder.take()?.into_iter().map(|c| (collection, c)).collect();
            changes.push((system::ERRORS, InputChange::Delta(Delta::delete(gone))));
            let tick = self.engine.submit(Transaction { changes, progress: Vec::new() }).wait()?;
            self.engine.wait_durable(tick)?;
        }
        Ok((replayed, records.num_rows() - replayed))
    }

    /// Those of the records that are still among the errors.
    fn still_there(&self, records: &[RecordBatch]) -> Result<RecordBatch> {
        let schema = system::errors_schema();
        let fields = schema.fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
        let converter = RowConverter::new(fields)?;
        let mut there: HashMap<OwnedRow, usize> = HashMap::new();
        for batch in system::stored_errors(&self.engine)? {
            for row in &converter.convert_columns(batch.columns())? {
                *there.entry(row.owned()).or_default() += 1;
            }
        }
        let mut kept = Vec::with_capacity(records.len());
        for batch in records {
            let rows = converter.convert_columns(batch.columns())?;
            let is_there = rows.iter().map(|row| {
                let left = there.get_mut(&row.owned()).filter(|left| **left > 0);
                left.map(|left| *left -= 1).is_some()
            });
            let is_there = BooleanArray::from(is_there.collect::<Vec<_>>());
            let batch = RecordBatch::try_new(Arc::clone(&schema), batch.columns().to_vec())?;
            kept.push(filter_record_batch(&batch, &is_there)?);
        }
        Ok(concat_batches(&schema, &kept)?)
    }
}
