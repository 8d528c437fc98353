//! From the rows that a database's log tells to changes: one builder per output, emptied when a batch is handed over.
//!
//! A table with a key is changed by key; of a table without one the log must tell whole old rows (PostgreSQL's
//! REPLICA IDENTITY FULL, MySQL's binlog_row_image = FULL), and its changes are exact. Changes of one table stay in
//! their order. A large value that an update did not touch is not sent; such a row is handed over as a patch of the
//! row that is there.

use std::sync::Arc;

use arrow::array::{BooleanArray, BooleanBuilder, RecordBatch, new_null_array};
use arrow::buffer::ScalarBuffer;
use arrow::compute::filter_record_batch;

use crate::connectors::{BadRecord, SourceOutput};
use crate::engine::{Delta, InputChange};
use crate::error::{Error, Result, SqlState};
use crate::types::TextBuilder;

/// Rows above which a builder is closed and another one begun, so that arrays stay small.
const ROWS_MAX: usize = 65_536;

/// A row's values, in the order of the upstream's columns.
pub type Tuple<'a> = Vec<Value<'a>>;

/// One value of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// NULL.
    Null,
    /// As before the update: a large value that was not sent.
    Unchanged,
    /// The value's text.
    Text(&'a str),
    /// Bytes that are not what the upstream says of them.
    Unreadable(&'a [u8]),
}

/// What a row does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It comes, or replaces the row of its key.
    Put,
    /// It goes.
    Remove,
}

/// Collects the changes of one output.
pub struct RowBuilder {
    output: SourceOutput,
    columns: Vec<TextBuilder>,
    /// Per row: whether it goes.
    removes: BooleanBuilder,
    /// Per row: whether it could be read.
    good: BooleanBuilder,
    rows: usize,
    any_bad: bool,
    any_remove: bool,
    /// The columns whose value the one row at hand leaves as it is.
    unchanged: Vec<usize>,
    closed: Vec<InputChange>,
}

impl RowBuilder {
    /// Nothing yet.
    ///
    /// # Errors
    /// 0A000 for a column type that no table can have.
    pub fn new(output: SourceOutput) -> Result<Self> {
        let columns =
            output.schema.fields().iter().map(|f| TextBuilder::new(Arc::clone(f))).collect::<Result<_>>()?;
        Ok(RowBuilder {
            output,
            columns,
            removes: BooleanBuilder::new(),
            good: BooleanBuilder::new(),
            rows: 0,
            any_bad: false,
            any_remove: false,
            unchanged: Vec::new(),
            closed: Vec::new(),
        })
    }

    /// The output it builds for.
    pub fn output(&self) -> &SourceOutput {
        &self.output
    }

    /// Whether the output has a key.
    pub fn keyed(&self) -> bool {
        !self.output.key.is_empty()
    }

    /// Adds a row; `places` says where each of the output's columns stands in `tuple`.
    /// A row that cannot be read comes back as a [`BadRecord`]; if its key can, the key's row goes away.
    ///
    /// # Errors
    /// 55000 when a large value was not sent and no row is there to have it from.
    pub fn push(
        &mut self,
        effect: Effect,
        tuple: &Tuple<'_>,
        places: &[usize],
        position: &str,
    ) -> Result<Option<BadRecord>> {
        // A patch is a change of its own.
        let patch = effect == Effect::Put && places.iter().any(|p| tuple.get(*p) == Some(&Value::Unchanged));
        if patch {
            self.close()?;
        }
        let mut bad = self.fill(effect, tuple, places, position)?;
        if bad.is_some() && self.keyed() && effect == Effect::Put {
            // What the table held under this key is no longer true.
            if let Some(worse) = self.fill(Effect::Remove, tuple, places, position)? {
                bad = Some(worse);
            }
            self.unchanged.clear();
        }
        if patch || self.rows >= ROWS_MAX {
            self.close()?;
        }
        Ok(bad)
    }

    fn fill(
        &mut self,
        effect: Effect,
        tuple: &Tuple<'_>,
        places: &[usize],
        position: &str,
    ) -> Result<Option<BadRecord>> {
        let mut bad = None;
        let remove_by_key = effect == Effect::Remove && self.keyed();
        for (i, (column, place)) in self.columns.iter_mut().zip(places).enumerate() {
            if remove_by_key && !self.output.key.contains(&i) {
                column.push_null();
                continue;
            }
            match tuple.get(*place).copied().unwrap_or(Value::Null) {
                Value::Null => column.push_null(),
                Value::Text(text) => {
                    if let Err(e) = column.push(text) {
                        column.push_null();
                        bad.get_or_insert_with(|| BadRecord {
                            sqlstate: e.sqlstate.0,
                            reason: format!(
                                "column \"{}\": {}",
                                self.output.schema.field(i).name(),
                                e.message
                            ),
                            raw: Some(text.as_bytes().to_vec()),
                            position: format!("{} {position}", self.output.upstream),
                            kept: None,
                        });
                    }
                }
                Value::Unreadable(raw) => {
                    column.push_null();
                    bad.get_or_insert_with(|| BadRecord {
                        sqlstate: "22021",
                        reason: format!(
                            "column \"{}\": its bytes are not what its type says",
                            self.output.schema.field(i).name()
                        ),
                        raw: Some(raw.to_vec()),
                        position: format!("{} {position}", self.output.upstream),
                        kept: None,
                    });
                }
                Value::Unchanged if self.output.key.is_empty() || self.output.key.contains(&i) => {
                    return Err(untold(&self.output, i));
                }
                Value::Unchanged => {
                    column.push_null();
                    self.unchanged.push(i);
                }
            }
        }
        self.removes.append_value(effect == Effect::Remove);
        self.good.append_value(bad.is_none());
        self.any_remove |= effect == Effect::Remove;
        self.any_bad |= bad.is_some();
        self.rows += 1;
        Ok(bad)
    }

    /// Every row of the output goes away, before what comes next.
    ///
    /// # Errors
    /// As [`RowBuilder::take`].
    pub fn truncate(&mut self) -> Result<()> {
        // What came before in this batch goes with the rest.
        self.close()?;
        self.closed.clear();
        self.closed.push(InputChange::Truncate);
        Ok(())
    }

    /// The changes so far, in order.
    ///
    /// # Errors
    /// Only when Arrow refuses the batch (a column past 2 GiB).
    pub fn take(&mut self) -> Result<Vec<InputChange>> {
        self.close()?;
        Ok(std::mem::take(&mut self.closed))
    }

    /// Whether there are no changes.
    pub fn is_empty(&self) -> bool {
        self.rows == 0 && self.closed.is_empty()
    }

    /// Rows waiting.
    pub fn pending(&self) -> usize {
        self.rows
    }

    fn close(&mut self) -> Result<()> {
        if self.rows == 0 {
            return Ok(());
        }
        let mut arrays = Vec::with_capacity(self.columns.len());
        for (column, field) in self.columns.iter_mut().zip(self.output.schema.fields()) {
            let mut array = column.finish()?;
            if array.len() != self.rows {
                // A column of lists that saw no value at all has no array to show for it.
                array = new_null_array(field.data_type(), self.rows);
            }
            arrays.push(array);
        }
        // Keys and NULLs are upstream's promise; a removal by key carries NULL elsewhere, whatever the column says.
        let relaxed = Arc::new(arrow::datatypes::Schema::new(
            self.output
                .schema
                .fields()
                .iter()
                .map(|f| f.as_ref().clone().with_nullable(true))
                .collect::<Vec<_>>(),
        ));
        let mut rows = RecordBatch::try_new(relaxed, arrays)?;
        let mut removes = self.removes.finish();
        let good = self.good.finish();
        if self.any_bad {
            rows = filter_record_batch(&rows, &good)?;
            let kept = arrow::compute::filter(&removes, &good)?;
            removes = BooleanArray::from(kept.to_data());
        }
        if rows.num_rows() > 0 {
            self.closed.push(if !self.unchanged.is_empty() {
                let all = BooleanArray::from(vec![true; rows.num_rows()]);
                let unchanged = std::mem::take(&mut self.unchanged).into_iter().map(|c| (c, all.clone()));
                InputChange::Patch { rows, unchanged: unchanged.collect() }
            } else if self.keyed() {
                InputChange::Upsert { rows, deletes: self.any_remove.then_some(removes) }
            } else {
                let weights = self.any_remove.then(|| {
                    removes.values().iter().map(|r| if r { -1 } else { 1 }).collect::<ScalarBuffer<i64>>()
                });
                InputChange::Delta(Delta { rows, weights })
            });
        }
        (self.rows, self.any_bad, self.any_remove) = (0, false, false);
        Ok(())
    }
}

/// The error for a large value that is needed and was not sent.
pub fn untold(output: &SourceOutput, column: usize) -> Error {
    Error::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!(
            "an update of {} did not send the unchanged large value of column \"{}\"",
            output.upstream,
            output.schema.field(column).name()
        ),
    )
    .with_hint(format!("Upstream: ALTER TABLE {} REPLICA IDENTITY FULL;", output.upstream))
}
