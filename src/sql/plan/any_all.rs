//! `x op ANY (array)` and `x op ALL (array)` in the tree.

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Value,
};

use super::rewrite::call;
use crate::names::fold;
use crate::sql::functions;

/// `x op ANY (array)` as a call, or as `x IN (…)` where the elements are written.
pub(super) fn quantified(expr: &mut Expr) {
    let (left, op, right, all) = match expr {
        Expr::AnyOp { left, compare_op, right, .. } => (left, compare_op, right, false),
        Expr::AllOp { left, compare_op, right } => (left, compare_op, right, true),
        _ => return,
    };
    if matches!(right.as_ref(), Expr::Subquery(_)) {
        return;
    }
    let Some(name) = functions::quantified::name(&op.to_string(), all) else { return };
    let take = |e: &mut Expr| std::mem::replace(e, Expr::Value(Value::Null.into()));
    let listed = matches!((&op, all), (BinaryOperator::Eq, false) | (BinaryOperator::NotEq, true));
    *expr = match elements(right).filter(|_| listed) {
        Some(list) => Expr::InList { expr: Box::new(take(left)), list, negated: all },
        None => call(name, vec![take(left), take(right)]),
    };
}

/// The elements of an array that is written out; `ARRAY[…]` is a call of `make_array` by now.
fn elements(array: &Expr) -> Option<Vec<Expr>> {
    let Expr::Function(function) = array else { return None };
    let [name] = function.name.0.as_slice() else { return None };
    let FunctionArguments::List(list) = &function.args else { return None };
    if fold(name.as_ident()?) != "make_array" || list.args.is_empty() {
        return None;
    }
    list.args
        .iter()
        .map(|arg| match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(element)) => Some(element.clone()),
            _ => None,
        })
        .collect()
}
