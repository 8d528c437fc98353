//! Inner join: every pair of rows with equal keys that passes the residual condition.
//!
//! Δ(A⋈B) = ΔA ⋈ B before + A after ⋈ ΔB. Changes of A probe B at once, streaming; those of B wait until all of A's
//! have been stored. Without keys every pair is a candidate (a cross or theta join): the cost of a change is then
//! the size of the other side.

use crate::engine::Delta;
use crate::engine::ops::outer::Outer;
use crate::engine::ops::side::{Change, Pairs, Side};
use crate::engine::plan::spec::{JoinKind, JoinSpec};
use crate::engine::runtime::operator::{Operator, Output};
use crate::engine::state::{Restored, Saved};
use crate::error::Result;

/// A join of two inputs.
pub struct Join {
    sides: [Side; 2],
    pairs: Pairs,
    // Of port 1, in this tick.
    waiting: Vec<Change>,
}

impl Join {
    /// An inner join.
    pub fn new(spec: &JoinSpec) -> Result<Join> {
        debug_assert_eq!(spec.kind, JoinKind::Inner, "other kinds are done by the outer join");
        Ok(Join { sides: Side::both(spec)?, pairs: Pairs::new(spec)?, waiting: Vec::new() })
    }

    /// The operator for a join of any kind.
    pub fn of_kind(spec: &JoinSpec) -> Result<Box<dyn Operator>> {
        Ok(match spec.kind {
            JoinKind::Inner => Box::new(Join::new(spec)?),
            _ => Box::new(Outer::new(spec)?),
        })
    }

    fn emit(&mut self, port: usize, change: &Change, out: &mut Output) -> Result<()> {
        let Output { deltas, errors } = out;
        self.pairs.each(port, change, &mut self.sides[1 - port], errors, |other, matches, weights| {
            deltas.push(self.pairs.rows(port, change, other, matches, weights)?);
            Ok(())
        })
    }
}

impl Operator for Join {
    fn push(&mut self, port: usize, delta: Delta, out: &mut Output) -> Result<()> {
        for delta in delta.chunks() {
            // Rows whose key is NULL have no partners, ever.
            let (change, _) = self.sides[port].prepare(delta, &mut out.errors)?;
            if change.delta.is_empty() {
                continue;
            }
            if port == 1 {
                self.waiting.push(change);
            } else {
                self.emit(0, &change, out)?;
                self.sides[0].rows.apply(&change.delta, Some(&change.keys.hashes))?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Output) -> Result<()> {
        for change in std::mem::take(&mut self.waiting) {
            self.emit(1, &change, out)?;
            self.sides[1].rows.apply(&change.delta, Some(&change.keys.hashes))?;
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<()> {
        for side in &mut self.sides {
            side.rows.compact()?;
        }
        Ok(())
    }

    fn save(&self, state: &mut Saved) -> Result<()> {
        self.sides.iter().for_each(|side| side.rows.save(state));
        Ok(())
    }

    fn restore(&mut self, state: &mut Restored) -> Result<()> {
        self.sides.iter_mut().try_for_each(|side| side.rows.restore(state))
    }

    fn state_bytes(&self) -> usize {
        self.sides.iter().map(|s| s.rows.bytes()).sum()
    }

    fn state_rows(&self) -> usize {
        self.sides.iter().map(|s| s.rows.live_rows()).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::logical_expr::Operator as Op;
    use datafusion::physical_expr::expressions::{BinaryExpr, Column, lit};

    use super::*;
    use crate::engine::keys::weak;
    use crate::engine::ops::testing::{Multiset, check_operator, key_text, sample_schema};
    use crate::engine::plan::spec::Expr;

    /// A condition over left ++ right, as an expression and over texts; `None`: it fails.
    #[derive(Clone, Copy, Debug)]
    enum Condition {
        Nothing,
        /// l.a <= r.a
        Ordered,
        /// 12 / l.a > r.a
        Failing,
    }

    const KINDS: [JoinKind; 9] = [
        JoinKind::Inner,
        JoinKind::Left,
        JoinKind::Right,
        JoinKind::Full,
        JoinKind::LeftSemi,
        JoinKind::LeftAnti,
        JoinKind::RightSemi,
        JoinKind::RightAnti,
        JoinKind::LeftMark,
    ];

    fn spec(kind: JoinKind, keys: &[usize], null_equals_null: bool, condition: Condition) -> JoinSpec {
        let schema = sample_schema();
        let names = ["a", "f", "s"];
        let column = |c: usize| Arc::new(Column::new(names[c % 3], c)) as Expr;
        let binary = |l: Expr, op: Op, r: Expr| Arc::new(BinaryExpr::new(l, op, r)) as Expr;
        let residual = match condition {
            Condition::Nothing => None,
            Condition::Ordered => Some(binary(column(0), Op::LtEq, column(3))),
            Condition::Failing => Some(binary(binary(lit(12i64), Op::Divide, column(0)), Op::Gt, column(3))),
        };
        let both = schema.fields().iter().chain(schema.fields()).cloned().collect::<Vec<_>>();
        let output = match kind {
            JoinKind::Inner | JoinKind::Left | JoinKind::Right | JoinKind::Full => both,
            JoinKind::LeftMark => {
                let mark = Arc::new(Field::new("mark", DataType::Boolean, false));
                schema.fields().iter().cloned().chain([mark]).collect()
            }
            _ => schema.fields().iter().cloned().collect(),
        };
        JoinSpec {
            kind,
            left_keys: keys.iter().map(|c| column(*c)).collect(),
            right_keys: keys.iter().map(|c| column(*c)).collect(),
            null_equals_null,
            residual,
            left: sample_schema(),
            right: sample_schema(),
            schema: Arc::new(Schema::new(output)),
        }
    }

    fn holds(condition: Condition, left: &[String], right: &[String]) -> Option<bool> {
        let (l, r) = (left[0].parse::<i64>(), right[0].parse::<i64>());
        match (condition, l, r) {
            (Condition::Nothing, ..) => Some(true),
            (Condition::Ordered, Ok(l), Ok(r)) => Some(l <= r),
            (Condition::Failing, Ok(0), _) => None,
            (Condition::Failing, Ok(l), Ok(r)) => Some(12 / l > r),
            _ => Some(false),
        }
    }

    /// The join by its definition: every row with every row.
    fn naive(
        inputs: &[Multiset],
        kind: JoinKind,
        keys: &[usize],
        null_equals_null: bool,
        condition: Condition,
    ) -> (Multiset, i64) {
        let (mut rows, mut failing) = (Multiset::new(), 0);
        let mut degrees = [vec![0; inputs[0].len()], vec![0; inputs[1].len()]];
        let pairs = matches!(kind, JoinKind::Inner | JoinKind::Left | JoinKind::Right | JoinKind::Full);
        for (i, (left, l)) in inputs[0].iter().enumerate() {
            for (j, (right, r)) in inputs[1].iter().enumerate() {
                let equal = |c: &usize| {
                    key_text(&left[*c]) == key_text(&right[*c]) && (null_equals_null || left[*c] != "∅")
                };
                if !keys.iter().all(equal) {
                    continue;
                }
                match holds(condition, left, right) {
                    None => failing += l * r,
                    Some(false) => {}
                    Some(true) => {
                        degrees[0][i] += r;
                        degrees[1][j] += l;
                        if pairs {
                            *rows.entry([&left[..], &right[..]].concat()).or_default() += l * r;
                        }
                    }
                }
            }
        }
        let missing = vec!["∅".to_string(); 3];
        for (port, input) in inputs.iter().enumerate() {
            for (at, (row, weight)) in input.iter().enumerate() {
                let matched = degrees[port][at] > 0;
                let alone = match (kind, port) {
                    (JoinKind::Left | JoinKind::Full, 0) if !matched => {
                        [row.clone(), missing.clone()].concat()
                    }
                    (JoinKind::Right | JoinKind::Full, 1) if !matched => {
                        [missing.clone(), row.clone()].concat()
                    }
                    (JoinKind::LeftSemi, 0) | (JoinKind::RightSemi, 1) if matched => row.clone(),
                    (JoinKind::LeftAnti, 0) | (JoinKind::RightAnti, 1) if !matched => row.clone(),
                    (JoinKind::LeftMark, 0) => [row.clone(), vec![matched.to_string()]].concat(),
                    _ => continue,
                };
                *rows.entry(alone).or_default() += weight;
            }
        }
        rows.retain(|_, w| *w != 0);
        (rows, failing)
    }

    fn check(seed: u64, kind: JoinKind) {
        let keys: &[usize] = [&[0][..], &[2], &[1], &[2, 0], &[0, 1, 2], &[]][seed as usize % 6];
        let condition = [Condition::Nothing, Condition::Ordered, Condition::Failing][(seed / 6) as usize % 3];
        let null_equals_null = seed.is_multiple_of(5);
        check_operator(
            seed,
            2,
            12,
            || Join::of_kind(&spec(kind, keys, null_equals_null, condition)).unwrap(),
            |inputs| naive(inputs, kind, keys, null_equals_null, condition),
        );
    }

    #[test]
    fn every_kind_is_what_its_definition_says() {
        for kind in KINDS {
            (0..18).for_each(|seed| check(seed, kind));
        }
    }

    #[test]
    fn colliding_hashes_do_no_harm() {
        weak::with(|| {
            for kind in KINDS {
                (20..26).for_each(|seed| check(seed, kind));
            }
        });
    }

    /// A key with many rows on both sides comes out in chunks, and dead rows are forgotten on the way.
    #[test]
    fn heavy_keys_come_in_chunks() {
        use crate::engine::delta::CHUNK_ROWS;
        use crate::engine::ops::testing::{Rng, random_delta, tally};
        let mut join = Join::new(&spec(JoinKind::Inner, &[], false, Condition::Nothing)).unwrap();
        let mut rng = Rng::new(9);
        let (left, right) = (random_delta(&mut rng, 300, false), random_delta(&mut rng, 200, false));
        let mut out = Output::default();
        join.push(1, right.clone(), &mut out).unwrap();
        join.push(0, left, &mut out).unwrap();
        join.finish(&mut out).unwrap();
        join.commit().unwrap();
        assert!(out.deltas.iter().all(|d| d.num_rows() <= CHUNK_ROWS));
        assert_eq!(out.deltas.iter().map(Delta::net_rows).sum::<i64>(), 60_000);
        for _ in 0..60 {
            join.push(1, right.clone().negate(), &mut out).unwrap();
            join.push(1, right.clone(), &mut out).unwrap();
            join.finish(&mut out).unwrap();
            join.commit().unwrap();
            assert_eq!(join.state_rows(), 500);
            out.deltas = vec![];
        }
        join.push(1, right.negate(), &mut out).unwrap();
        join.finish(&mut out).unwrap();
        assert_eq!(tally(&out.deltas).values().sum::<i64>(), -60_000);
    }
}
