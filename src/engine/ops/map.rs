//! Filter, then project. Linear: each delta by itself, without state.

use arrow::datatypes::SchemaRef;

use crate::engine::Delta;
use crate::engine::delta::{batch, nullable};
use crate::engine::expr::{self, cast_to};
use crate::engine::plan::spec::{Expr, MapSpec};
use crate::engine::runtime::operator::{Operator, Output};
use crate::error::Result;

/// The rows for which the predicate is true, projected.
pub struct Map {
    predicate: Option<Expr>,
    projection: Option<Vec<Expr>>,
    schema: SchemaRef,
}

impl Map {
    /// Does what `spec` says.
    pub fn new(spec: MapSpec) -> Map {
        Map { predicate: spec.predicate, projection: spec.projection, schema: nullable(&spec.schema) }
    }
}

impl Operator for Map {
    fn push(&mut self, _port: usize, mut delta: Delta, out: &mut Output) -> Result<()> {
        if let Some(predicate) = &self.predicate {
            delta = expr::filter(predicate, delta, &mut out.errors)?;
        }
        let columns = match &self.projection {
            Some(exprs) => {
                let columns;
                (delta, columns) = expr::evaluate(exprs, delta, &mut out.errors)?;
                columns
            }
            None => delta.rows.columns().to_vec(),
        };
        if delta.is_empty() {
            return Ok(());
        }
        let columns = columns.into_iter().zip(self.schema.fields()).map(|(c, f)| cast_to(c, f.data_type()));
        let rows = batch(&self.schema, columns.collect::<Result<Vec<_>>>()?, delta.num_rows())?;
        out.deltas.push(Delta { rows, weights: delta.weights });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::logical_expr::Operator as Op;
    use datafusion::physical_expr::expressions::{BinaryExpr, col, lit};

    use super::*;
    use crate::engine::ops::testing::{Rng, random_delta, row_at, sample_schema, tally};
    use crate::engine::runtime::operator::RowError;
    use std::collections::BTreeMap;

    fn binary(left: Expr, op: Op, right: Expr) -> Expr {
        Arc::new(BinaryExpr::new(left, op, right))
    }

    /// Output and errors follow each input row by itself, and a retraction takes back exactly what its row gave.
    #[test]
    fn failing_rows_are_errors_and_the_rest_goes_on() {
        let schema = sample_schema();
        let a = || col("a", &schema).unwrap();
        let spec = MapSpec {
            predicate: Some(binary(a(), Op::LtEq, lit(3i64))),
            projection: Some(vec![binary(lit(12i64), Op::Divide, a()), col("s", &schema).unwrap()]),
            schema: Arc::new(Schema::new(vec![
                Field::new("q", DataType::Int64, false),
                Field::new("s", DataType::Utf8View, true),
            ])),
        };
        let mut map = Map::new(spec);
        let mut rng = Rng::new(11);
        for n in [0, 1, 2, 50, 500] {
            let delta = random_delta(&mut rng, n, true);
            let mut out = Output::default();
            map.push(0, delta.clone(), &mut out).unwrap();
            let mut expected: BTreeMap<Vec<String>, i64> = BTreeMap::new();
            let mut failing = 0;
            for i in 0..delta.num_rows() {
                let row = row_at(&delta.rows, i);
                let quotient = match row[0].parse::<i64>() {
                    Ok(a) if a > 3 => continue,
                    Ok(0) => {
                        failing += delta.weight(i);
                        continue;
                    }
                    Ok(a) => (12 / a).to_string(),
                    Err(_) => continue, // NULL <= 3 is not true
                };
                *expected.entry(vec![quotient, row[2].clone()]).or_default() += delta.weight(i);
            }
            expected.retain(|_, w| *w != 0);
            assert_eq!(tally(&out.deltas), expected);
            let sum = |errors: &[RowError]| errors.iter().map(|e| e.weight).sum::<i64>();
            assert_eq!(sum(&out.errors), failing);
            assert!(out.errors.iter().all(|e| e.error.sqlstate == crate::error::SqlState::DIVISION_BY_ZERO));

            map.push(0, delta.negate(), &mut out).unwrap();
            assert!(tally(&out.deltas).is_empty());
            assert_eq!(sum(&out.errors), 0);
        }
    }
}
