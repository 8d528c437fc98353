//! Filter, then project. Linear: each delta by itself, without state.

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::logical_expr::Operator as Op;
use datafusion::physical_expr::expressions::{
    BinaryExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, Literal, NotExpr,
};

use crate::engine::Delta;
use crate::engine::delta::{batch, nullable};
use crate::engine::expr::{self, cast_to};
use crate::engine::plan::spec::{Expr, MapSpec};
use crate::engine::runtime::operator::{Operator, Output, Wanted};
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

    /// Rows with another value are left out, and none of them fails: a row that fails is to be told of.
    fn wanted(&self, _port: usize) -> Option<Wanted> {
        let predicate = self.predicate.as_ref()?;
        if never_fails(predicate) { equality(predicate) } else { None }
    }
}

/// What one of the conditions that all must hold says of the value of a column.
fn equality(condition: &Expr) -> Option<Wanted> {
    let binary = condition.downcast_ref::<BinaryExpr>()?;
    let (left, right) = (binary.left(), binary.right());
    match binary.op() {
        Op::And => equality(left).or_else(|| equality(right)),
        Op::Eq => {
            let (column, literal) = match left.downcast_ref::<Column>() {
                Some(column) => (column, right.downcast_ref::<Literal>()?),
                None => (right.downcast_ref::<Column>()?, left.downcast_ref::<Literal>()?),
            };
            let value = literal.value().clone();
            (!value.is_null() && is_known_by_bytes(&value.data_type()))
                .then(|| Wanted { column: column.index(), value })
        }
        _ => None,
    }
}

/// Whether two values of the type are equal just when their bytes are.
fn is_known_by_bytes(data_type: &DataType) -> bool {
    use DataType::{Binary, BinaryView, Boolean, Date32, Decimal128, Timestamp, Utf8, Utf8View};
    data_type.is_integer()
        || matches!(
            data_type,
            Utf8 | Utf8View | Binary | BinaryView | Boolean | Date32 | Timestamp(..) | Decimal128(..)
        )
}

/// Whether an expression has a value for every row.
fn never_fails(expr: &Expr) -> bool {
    let known = expr.downcast_ref::<BinaryExpr>().is_some_and(|e| {
        matches!(e.op(), Op::And | Op::Or | Op::Eq | Op::NotEq | Op::Lt | Op::LtEq | Op::Gt | Op::GtEq)
    }) || expr.is::<Column>()
        || expr.is::<Literal>()
        || expr.is::<NotExpr>()
        || expr.is::<IsNullExpr>()
        || expr.is::<IsNotNullExpr>()
        || expr.is::<InListExpr>();
    known && expr.children().into_iter().all(never_fails)
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
