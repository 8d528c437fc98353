//! What filters say about single columns: as much as an index can use.

use arrow::datatypes::Schema;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};

use super::indexes::Bound;

/// The bound that one filter sets to one column, by the column's position; `None` where it is of another kind.
pub(super) fn of_filter(filter: &Expr, schema: &Schema) -> Option<(usize, Bound)> {
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            let (Some((column, Bound::In(mut one))), Some((other, Bound::In(more)))) =
                (of_filter(left, schema), of_filter(right, schema))
            else {
                return None;
            };
            one.extend(more);
            (column == other).then_some((column, Bound::In(one)))
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (column, value, op) = match (&**left, &**right) {
                (Expr::Column(_), Expr::Literal(..)) => (left, right, *op),
                (Expr::Literal(..), Expr::Column(_)) => (right, left, op.swap()?),
                _ => return None,
            };
            let (column, value) = (position(column, schema)?, value_of(value, column, schema)?);
            let bound = match op {
                Operator::Eq => Bound::In(vec![value]),
                Operator::Gt | Operator::GtEq => Bound::Low(value),
                Operator::Lt | Operator::LtEq => Bound::High(value),
                _ => return None,
            };
            Some((column, bound))
        }
        Expr::InList(InList { expr, list, negated: false }) => {
            let values = list.iter().map(|value| value_of(value, expr, schema));
            Some((position(expr, schema)?, Bound::In(values.collect::<Option<_>>()?)))
        }
        _ => None,
    }
}

fn position(column: &Expr, schema: &Schema) -> Option<usize> {
    let Expr::Column(column) = column else { return None };
    schema.index_of(&column.name).ok()
}

/// A literal of the column's own type that is not NULL.
fn value_of(value: &Expr, column: &Expr, schema: &Schema) -> Option<ScalarValue> {
    let Expr::Literal(value, _) = value else { return None };
    let data_type = schema.field(position(column, schema)?).data_type();
    (!value.is_null() && value.data_type() == *data_type).then(|| value.clone())
}
