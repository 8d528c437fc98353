//! Rows while a condition on the time is true of them.
//!
//! Each row tells the moments at which the condition may change. Between two of them it is evaluated once, when the row
//! comes: where it becomes true the row is to come, where it becomes false to go, and so the rows' future is an
//! [`Agenda`]. A row that is retracted puts the opposite on the agenda. The operator is linear: it keeps nothing of what
//! will not change any more.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::physical_expr::expressions::Column;

use crate::engine::Delta;
use crate::engine::delta::{batch, nullable, take_rows};
use crate::engine::expr;
use crate::engine::plan::spec::{Expr, TemporalSpec};
use crate::engine::runtime::operator::{Operator, Output};
use crate::engine::state::agenda::Agenda;
use crate::engine::state::{Restored, Saved};
use crate::error::Result;

/// A moment that never comes.
const NEVER: i64 = i64::MAX;

/// See the module.
pub struct Temporal {
    moments: Vec<Expr>,
    /// The condition before the first moment, between the first and the second, and so on, each over the input's columns
    /// and its own columns of what is reached, in `wide`.
    conditions: Vec<Expr>,
    wide: SchemaRef,
    schema: SchemaRef,
    agenda: Agenda,
    now: i64,
}

impl Temporal {
    /// Does what `spec` says.
    pub fn new(spec: &TemporalSpec) -> Temporal {
        let schema = nullable(&spec.schema);
        let (columns, moments) = (schema.fields().len(), spec.moments.len());
        let mut fields = schema.fields().to_vec();
        let conditions = (0..=moments)
            .map(|part| {
                fields.extend(
                    (0..moments)
                        .map(|i| Arc::new(Field::new(format!("{part}.{i}"), DataType::Boolean, true))),
                );
                moved(&spec.condition, columns, columns + part * moments)
            })
            .collect();
        Temporal {
            moments: spec.moments.clone(),
            conditions,
            wide: Arc::new(Schema::new(fields)),
            agenda: Agenda::new(&schema),
            schema,
            now: i64::MIN,
        }
    }

    /// The moments of each row in order, one row after the other.
    fn ordered(&self, moments: &[ArrayRef], rows: usize) -> Vec<i64> {
        let count = moments.len();
        let mut ordered = vec![NEVER; rows * count];
        for (i, column) in moments.iter().enumerate() {
            let column = column.as_primitive::<Int64Type>();
            for row in (0..rows).filter(|row| column.is_valid(*row)) {
                ordered[row * count + i] = column.value(row);
            }
        }
        ordered.chunks_mut(count).for_each(<[i64]>::sort_unstable);
        ordered
    }

    /// The rows with what is reached in each part of their time.
    fn widened(&self, delta: &Delta, moments: &[ArrayRef], ordered: &[i64]) -> Result<Delta> {
        let count = moments.len();
        let mut columns = delta.rows.columns().to_vec();
        for part in 0..=count {
            // Before the first moment only what is `-infinity` is reached.
            let begins = |row: usize| if part == 0 { i64::MIN } else { ordered[row * count + part - 1] };
            for column in moments {
                let moments = column.as_primitive::<Int64Type>();
                let reached: BooleanArray = moments
                    .iter()
                    .enumerate()
                    .map(|(row, moment)| moment.map(|moment| moment != NEVER && begins(row) >= moment))
                    .collect();
                columns.push(Arc::new(reached));
            }
        }
        let rows = batch(&self.wide, columns, delta.num_rows())?;
        Ok(Delta { rows, weights: delta.weights.clone() })
    }
}

/// The expression with the columns from `from` on moved to `to`.
fn moved(expr: &Expr, from: usize, to: usize) -> Expr {
    let moved = Arc::clone(expr).transform(|e| {
        let column = e.downcast_ref::<Column>().filter(|c| c.index() >= from);
        Ok(match column.map(|c| Column::new(c.name(), c.index() - from + to)) {
            Some(column) => Transformed::yes(Arc::new(column) as Expr),
            None => Transformed::no(e),
        })
    });
    moved.expect("the closure never fails").data
}

impl Operator for Temporal {
    fn push(&mut self, _port: usize, delta: Delta, out: &mut Output) -> Result<()> {
        let (delta, moments) = expr::evaluate(&self.moments, delta, &mut out.errors)?;
        let count = moments.len();
        let mut ordered = self.ordered(&moments, delta.num_rows());
        let wide = self.widened(&delta, &moments, &ordered)?;
        let (wide, truths) = expr::evaluate(&self.conditions, wide, &mut out.errors)?;
        let columns = wide.rows.columns()[..self.schema.fields().len()].to_vec();
        let rows = batch(&self.schema, columns, wide.num_rows())?;
        let mut delta = Delta { rows, weights: wide.weights };
        if delta.num_rows() * count < ordered.len() {
            // Rows for which the condition fails are gone; for the rest, the moments do not fail again.
            let moments;
            (delta, moments) = expr::evaluate(&self.moments, delta, &mut out.errors)?;
            ordered = self.ordered(&moments, delta.num_rows());
        }
        let truths = truths.iter().map(expr::boolean).collect::<Result<Vec<_>>>()?;
        let is_true = |part: usize, row: usize| truths[part].is_valid(row) && truths[part].value(row);
        let mut shown = Vec::with_capacity(delta.num_rows());
        let (mut positions, mut due, mut weights) = (Vec::<u32>::new(), Vec::new(), Vec::new());
        for row in 0..delta.num_rows() {
            let moments = &ordered[row * count..(row + 1) * count];
            let part = moments.partition_point(|moment| *moment <= self.now && *moment != NEVER);
            let mut shows = is_true(part, row);
            shown.push(shows);
            for (later, moment) in moments.iter().enumerate().skip(part).take_while(|(_, m)| **m != NEVER) {
                let then = is_true(later + 1, row);
                if then != shows {
                    positions.push(row as u32);
                    due.push(*moment);
                    weights.push(if then { delta.weight(row) } else { -delta.weight(row) });
                    shows = then;
                }
            }
        }
        let dated = take_rows(&delta.rows, &positions)?;
        self.agenda.add(&dated, due, weights)?;
        let shown = delta.filter(&BooleanArray::from(shown))?;
        if !shown.is_empty() {
            out.deltas.push(shown);
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Output) -> Result<()> {
        out.deltas.extend(self.agenda.take(self.now)?);
        Ok(())
    }

    fn is_timed(&self) -> bool {
        true
    }

    fn set_now(&mut self, now: i64) {
        self.now = self.now.max(now);
    }

    fn next_due(&self) -> Option<i64> {
        self.agenda.next()
    }

    fn save(&self, state: &mut Saved) -> Result<()> {
        self.agenda.save(state);
        state.numbers(&[self.now]);
        Ok(())
    }

    fn restore(&mut self, state: &mut Restored) -> Result<()> {
        self.agenda.restore(state)?;
        self.now = state.number()?;
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        self.agenda.bytes()
    }

    fn state_rows(&self) -> usize {
        self.agenda.rows()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use datafusion::logical_expr::Operator as Op;
    use datafusion::physical_expr::expressions::{BinaryExpr, NotExpr, binary, col, lit};

    use super::*;
    use crate::engine::ops::testing::{Rng, random_delta, row_at, sample_schema, tally};

    /// `now() >= a AND NOT now() >= a + 5 OR now() >= a + 9 AND a > 2`, against evaluating it at each tick.
    #[test]
    fn rows_are_there_while_the_condition_is_true() {
        let schema = sample_schema();
        let a = || col("a", &schema).unwrap();
        let plus = |n: i64| binary(a(), Op::Plus, lit(n), &schema).unwrap();
        let columns = schema.fields().len();
        let reached = |i: usize| Arc::new(Column::new("reached", columns + i)) as Expr;
        let and = |l: Expr, r: Expr| Arc::new(BinaryExpr::new(l, Op::And, r)) as Expr;
        let between = and(reached(0), Arc::new(NotExpr::new(reached(1))));
        let late = and(reached(2), binary(a(), Op::Gt, lit(2i64), &schema).unwrap());
        let condition = Arc::new(BinaryExpr::new(between, Op::Or, late)) as Expr;
        let spec =
            TemporalSpec { moments: vec![plus(0), plus(5), plus(9)], condition, schema: Arc::clone(&schema) };
        let mut operator = Temporal::new(&spec);
        let mut rng = Rng::new(5);
        let mut rows: BTreeMap<Vec<String>, i64> = BTreeMap::new();
        let mut shown: BTreeMap<Vec<String>, i64> = BTreeMap::new();
        let mut now = -20;
        for step in 0..300 {
            now += rng.below(3) as i64;
            operator.set_now(now);
            let mut out = Output::default();
            if step % 3 != 0 {
                let delta = random_delta(&mut rng, step % 7, true);
                for i in 0..delta.num_rows() {
                    *rows.entry(row_at(&delta.rows, i)).or_default() += delta.weight(i);
                }
                operator.push(0, delta, &mut out).unwrap();
            }
            operator.finish(&mut out).unwrap();
            for (row, weight) in tally(&out.deltas) {
                *shown.entry(row).or_default() += weight;
            }
            shown.retain(|_, weight| *weight != 0);
            let mut expected = rows.clone();
            expected.retain(|row, weight| {
                let at = row[0].parse::<i64>();
                let holds = at.is_ok_and(|a| now >= a && now < a + 5 || now >= a + 9 && a > 2);
                *weight != 0 && holds
            });
            assert_eq!(shown, expected, "at {now}");
            assert!(operator.next_due().is_none_or(|due| due > now));
        }
        // Long after the last moment nothing is kept.
        operator.set_now(1000);
        operator.finish(&mut Output::default()).unwrap();
        assert_eq!((operator.state_rows(), operator.next_due()), (0, None));
    }
}
