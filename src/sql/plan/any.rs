//! `x = ANY (array)` in three-valued logic: NULL among the elements leaves open whether one is equal.

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, UnaryOperator, Value};

/// ANY over an array as NOT … ALL: of the two, DataFusion knows only of ALL that elements may be NULL.
pub(super) fn over_array(expr: &mut Expr) {
    let Expr::AnyOp { left, compare_op, right, .. } = expr else { return };
    let Some(compare_op) = negated(compare_op).filter(|_| is_array(right)) else { return };
    let null = || Box::new(Expr::Value(Value::Null.into()));
    let (left, right) = (std::mem::replace(left, null()), std::mem::replace(right, null()));
    let all = Expr::Nested(Box::new(Expr::AllOp { left, compare_op, right }));
    *expr = Expr::Nested(Box::new(Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(all) }));
}

/// Whether the right side of ANY is an array by itself: no subquery, nothing whose type ANY decides.
fn is_array(right: &Expr) -> bool {
    match right {
        Expr::Nested(inner) => is_array(inner),
        Expr::Subquery(_) | Expr::Value(_) => false,
        _ => true,
    }
}

/// The operator that is true where this one is false.
fn negated(op: &BinaryOperator) -> Option<BinaryOperator> {
    Some(match op {
        BinaryOperator::Eq => BinaryOperator::NotEq,
        BinaryOperator::NotEq => BinaryOperator::Eq,
        BinaryOperator::Lt => BinaryOperator::GtEq,
        BinaryOperator::GtEq => BinaryOperator::Lt,
        BinaryOperator::Gt => BinaryOperator::LtEq,
        BinaryOperator::LtEq => BinaryOperator::Gt,
        _ => return None,
    })
}
