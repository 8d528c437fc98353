//! What the joins share: one input's stored rows by join key, and pairs of rows of both inputs.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::utils::collect_columns;

use crate::engine::Delta;
use crate::engine::delta::{CHUNK_ROWS, batch, nullable};
use crate::engine::expr;
use crate::engine::keys::{KeySpec, Keys};
use crate::engine::plan::spec::{Expr, JoinSpec};
use crate::engine::runtime::operator::RowError;
use crate::engine::state::{Arrangement, Cursor, Matches};
use crate::error::{Error, Result};

/// One input of a join, by join key.
pub(super) struct Side {
    pub(super) key: KeySpec,
    pub(super) rows: Arrangement,
    nulls_match: bool,
}

/// Changed rows of one side, ready to be stored and to probe.
pub(super) struct Change {
    /// With the columns of the side's stored rows.
    pub(super) delta: Delta,
    pub(super) keys: Keys,
}

impl Side {
    /// Both sides of a join.
    pub(super) fn both(spec: &JoinSpec) -> Result<[Side; 2]> {
        let side = |keys: &[Expr], schema: &SchemaRef| -> Result<Side> {
            let key = KeySpec::new(keys, schema)?;
            let rows = Arrangement::new(key.stored_schema(), key.positions().to_vec());
            Ok(Side { key, rows, nulls_match: spec.null_equals_null })
        };
        let sides = [side(&spec.left_keys, &spec.left)?, side(&spec.right_keys, &spec.right)?];
        if sides[0].key.types() != sides[1].key.types() {
            return Err(Error::internal("the keys of a join's sides are not of the same types"));
        }
        Ok(sides)
    }

    /// Splits a delta into rows that may find partners and (own columns only) rows that never will, because their key
    /// is NULL.
    pub(super) fn prepare(
        &self,
        delta: Delta,
        errors: &mut Vec<RowError>,
    ) -> Result<(Change, Option<Delta>)> {
        let (delta, keys) = self.key.evaluate(delta, errors)?;
        let Some(nulls) = keys.nulls.as_ref().filter(|_| !self.nulls_match) else {
            let delta = self.key.store(delta, &keys)?;
            return Ok((Change { delta, keys }, None));
        };
        let split =
            |valid: bool| (0..keys.len() as u32).filter(move |i| nulls.is_valid(*i as usize) == valid);
        let with_key: Vec<u32> = split(true).collect();
        let without = delta.take(&split(false).collect::<Vec<_>>())?;
        let positions = UInt32Array::from(with_key.clone());
        let columns =
            keys.columns.iter().map(|c| Ok(take(c, &positions, None)?)).collect::<Result<Vec<_>>>()?;
        let hashes = with_key.iter().map(|i| keys.hashes[*i as usize]).collect();
        let keys = Keys { columns, hashes, nulls: None };
        let delta = self.key.store(delta.take(&with_key)?, &keys)?;
        Ok((Change { delta, keys }, Some(without)))
    }

    /// Columns of rows, as they came in.
    pub(super) fn own_columns(&self, ids: &[u32]) -> Result<Vec<ArrayRef>> {
        self.rows.gather(ids, 0..self.key.width())
    }
}

/// Makes pairs of rows and drops those that the residual condition does not let pass.
pub(super) struct Pairs {
    schema: SchemaRef,
    left_width: usize,
    residual: Option<Residual>,
}

/// A condition over the few columns that it reads of rows put together, and such a row's position behind them.
pub(super) struct Residual {
    condition: Expr,
    /// Which columns it reads.
    pub(super) columns: Vec<usize>,
    schema: SchemaRef,
}

impl Pairs {
    /// Pairs as `spec` wants them: columns left ++ right.
    pub(super) fn new(spec: &JoinSpec) -> Result<Pairs> {
        let fields = spec.left.fields().iter().chain(spec.right.fields());
        let both = nullable(&Schema::new(fields.cloned().collect::<Vec<_>>()));
        let residual = spec.residual.as_ref().map(|condition| Residual::new(condition, &both)).transpose()?;
        Ok(Pairs { schema: both, left_width: spec.left.fields().len(), residual })
    }

    /// Whether there is a residual condition.
    pub(super) fn conditional(&self) -> bool {
        self.residual.is_some()
    }

    /// Calls `passed` with every pair of a change of side `port` and a stored row of the other, chunk by chunk, and
    /// with the products of their weights (`None`: all 1).
    pub(super) fn each(
        &self,
        port: usize,
        change: &Change,
        other: &mut Side,
        errors: &mut Vec<RowError>,
        mut passed: impl FnMut(&Side, &Matches, Option<Vec<i64>>) -> Result<()>,
    ) -> Result<()> {
        let (mut cursor, mut matches) = (Cursor::default(), Matches::default());
        loop {
            let nulls_match = other.nulls_match;
            let more = other.rows.probe(&change.keys, nulls_match, &mut cursor, CHUNK_ROWS, &mut matches)?;
            if !matches.ids.is_empty() {
                let weights = self.check(port, change, other, &mut matches, errors)?;
                if !matches.ids.is_empty() {
                    passed(other, &matches, weights)?;
                }
            }
            if !more {
                return Ok(());
            }
        }
    }

    /// Leaves the pairs that pass the residual condition; gives their weights.
    fn check(
        &self,
        port: usize,
        change: &Change,
        other: &Side,
        matches: &mut Matches,
        errors: &mut Vec<RowError>,
    ) -> Result<Option<Vec<i64>>> {
        let weights = (change.delta.weights.is_some() || !other.rows.all_ones()).then(|| {
            let pairs = matches.probe.iter().zip(&matches.ids);
            pairs
                .map(|(row, id)| change.delta.weight(*row as usize) * other.rows.weight(*id))
                .collect::<Vec<_>>()
        });
        let Some(residual) = &self.residual else { return Ok(weights) };
        let columns = self.columns(port, change, other, matches, residual.columns.iter().copied())?;
        let (kept, weights) = residual.passing(columns, matches.ids.len(), weights, errors)?;
        if let Some(kept) = kept {
            for (to, from) in kept.iter().map(|p| *p as usize).enumerate() {
                (matches.probe[to], matches.ids[to]) = (matches.probe[from], matches.ids[from]);
            }
            matches.probe.truncate(kept.len());
            matches.ids.truncate(kept.len());
        }
        Ok(weights)
    }

    /// The pairs' rows.
    pub(super) fn rows(
        &self,
        port: usize,
        change: &Change,
        other: &Side,
        matches: &Matches,
        weights: Option<Vec<i64>>,
    ) -> Result<Delta> {
        let columns = self.columns(port, change, other, matches, 0..self.schema.fields().len())?;
        Ok(Delta { rows: batch(&self.schema, columns, matches.ids.len())?, weights: weights.map(Into::into) })
    }

    /// Some columns of left ++ right, by position, for pairs of a change of side `port` with stored rows of the other.
    fn columns(
        &self,
        port: usize,
        change: &Change,
        other: &Side,
        matches: &Matches,
        wanted: impl Iterator<Item = usize>,
    ) -> Result<Vec<ArrayRef>> {
        let wanted: Vec<(bool, usize)> = wanted
            .map(|c| if c < self.left_width { (port == 0, c) } else { (port == 1, c - self.left_width) })
            .collect();
        let stored = wanted.iter().filter(|(of_change, _)| !of_change).map(|(_, c)| *c);
        let mut stored = other.rows.gather(&matches.ids, stored)?.into_iter();
        // Every row of the change with exactly one partner: its columns are the result's.
        let as_is = matches.probe.len() == change.delta.num_rows()
            && matches.probe.iter().zip(0..).all(|(row, i): (&u32, u32)| *row == i);
        let positions = UInt32Array::from(if as_is { Vec::new() } else { matches.probe.clone() });
        let column = |(of_change, c): (bool, usize)| -> Result<ArrayRef> {
            if of_change {
                let column = change.delta.rows.column(c);
                return Ok(if as_is { Arc::clone(column) } else { take(column, &positions, None)? });
            }
            Ok(stored.next().expect("one gathered column for each one wanted"))
        };
        wanted.into_iter().map(column).collect()
    }
}

/// Positions of the rows that pass (`None`: all of them), and their weights (`None`: all 1).
type Passing = (Option<Vec<u32>>, Option<Vec<i64>>);

impl Residual {
    /// The condition over rows of `both`.
    pub(super) fn new(condition: &Expr, both: &SchemaRef) -> Result<Residual> {
        let mut columns: Vec<usize> = collect_columns(condition).iter().map(Column::index).collect();
        columns.sort_unstable();
        let condition = Arc::clone(condition).transform_up(|e| {
            let moved = e.downcast_ref::<Column>().map(|c| {
                // Every column of the condition was collected from it.
                let at = columns.binary_search(&c.index()).unwrap_or_default();
                Arc::new(Column::new(c.name(), at)) as Expr
            });
            Ok(moved.map_or(Transformed::no(e), Transformed::yes))
        })?;
        let mut fields: Vec<Arc<Field>> = columns.iter().map(|c| Arc::clone(&both.fields()[*c])).collect();
        fields.push(Arc::new(Field::new("position of the pair", DataType::UInt32, false)));
        Ok(Residual { condition: condition.data, columns, schema: Arc::new(Schema::new(fields)) })
    }

    /// The positions of those of `count` rows that pass (`None`: all) and their weights (`None`: all 1), out of the
    /// columns that the condition reads.
    pub(super) fn passing(
        &self,
        mut columns: Vec<ArrayRef>,
        count: usize,
        weights: Option<Vec<i64>>,
        errors: &mut Vec<RowError>,
    ) -> Result<Passing> {
        columns.push(Arc::new(UInt32Array::from_iter_values(0..count as u32)));
        let rows = batch(&self.schema, columns, count)?;
        let candidates = Delta { rows, weights: weights.map(Into::into) };
        let kept = expr::filter(&self.condition, candidates, errors)?;
        let positions = (kept.num_rows() < count)
            .then(|| kept.rows.column(self.columns.len()).as_primitive::<UInt32Type>().values().to_vec());
        Ok((positions, kept.weights.map(|w| w.to_vec())))
    }
}
