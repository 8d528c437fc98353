//! `rank(3) WITHIN GROUP (ORDER BY x)` and its kin: where a row would stand among those of the group, by counting the
//! rows before it.

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, DataType, DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArguments, OrderByExpr, Value,
};

use super::collecting::given_arguments;
use super::rewrite::{binary, call, cast, count_rows};
use crate::error::{Error, Result, SqlState};

/// The counts that such a call stands for.
///
/// # Errors
/// 42883 when there are not as many values as keys, 0A000 for `dense_rank` of several keys.
pub(super) fn rank(function: &Function, name: &str) -> Result<Expr> {
    let (values, keys) = (given_arguments(function), &function.within_group);
    if values.len() != keys.len() {
        let message = format!("function {name}() does not exist");
        return Err(Error::new(SqlState::UNDEFINED_FUNCTION, message).with_hint(format!(
            "To use the hypothetical-set aggregate {name}, the number of hypothetical direct arguments (here {}) \
             must match the number of ordering columns (here {}).",
            values.len(),
            keys.len()
        )));
    }
    let among = |condition: Expr| match &function.filter {
        Some(filter) => both(Expr::Nested(filter.clone()), condition),
        None => condition,
    };
    let before = among(before(&values, keys, false));
    let float = |count: Expr| cast(nested(count), DataType::DoublePrecision);
    let all = || count_rows(function.filter.as_deref().cloned());
    Ok(nested(match name {
        "rank" => plus_one(count_rows(Some(before))),
        "dense_rank" => {
            let [key] = keys.as_slice() else {
                return Err(Error::unsupported("dense_rank WITHIN GROUP of several columns"));
            };
            // NULLs before the row have a rank, too, and are not counted.
            let mut different = count_rows(Some(before.clone()));
            if let Expr::Function(Function { args: FunctionArguments::List(list), .. }) = &mut different {
                list.duplicate_treatment = Some(DuplicateTreatment::Distinct);
                list.args = vec![FunctionArg::Unnamed(FunctionArgExpr::Expr(key.expr.clone()))];
            }
            let nulls = count_rows(Some(both(before, Expr::IsNull(Box::new(nested(key.expr.clone()))))));
            let null_rank = call("least", vec![nulls, number(1)]);
            plus_one(binary(different, BinaryOperator::Plus, null_rank))
        }
        "percent_rank" => {
            let ratio = binary(
                float(count_rows(Some(before))),
                BinaryOperator::Divide,
                call("nullif", vec![float(all()), number(0)]),
            );
            call("coalesce", vec![ratio, float(number(0))])
        }
        _ => {
            let not_after = among(self::before(&values, keys, true));
            let up_to = float(plus_one(count_rows(Some(not_after))));
            binary(up_to, BinaryOperator::Divide, float(plus_one(all())))
        }
    }))
}

/// Whether a row's keys come before the values, or are equal to them if `or_equal`.
fn before(values: &[Expr], keys: &[OrderByExpr], or_equal: bool) -> Expr {
    let (Some(value), Some(key)) = (values.first(), keys.first()) else {
        return Expr::Value(Value::Boolean(or_equal).into());
    };
    let descending = key.options.asc == Some(false);
    let nulls_first = key.options.nulls_first.unwrap_or(descending);
    let (k, v) = (nested(key.expr.clone()), nested(value.clone()));
    let op = if descending { BinaryOperator::Gt } else { BinaryOperator::Lt };
    let (null, present) = if nulls_first { (&k, &v) } else { (&v, &k) };
    let by_null = both(Expr::IsNull(Box::new(null.clone())), Expr::IsNotNull(Box::new(present.clone())));
    let less = call("coalesce", vec![binary(k.clone(), op, v.clone()), by_null]);
    let equal = Expr::IsNotDistinctFrom(Box::new(k), Box::new(v));
    let rest = before(&values[1..], &keys[1..], or_equal);
    nested(binary(less, BinaryOperator::Or, nested(both(nested(equal), rest))))
}

fn both(left: Expr, right: Expr) -> Expr {
    nested(binary(left, BinaryOperator::And, right))
}

fn nested(expr: Expr) -> Expr {
    Expr::Nested(Box::new(expr))
}

fn number(n: u8) -> Expr {
    Expr::Value(Value::Number(n.to_string(), true).into())
}

fn plus_one(count: Expr) -> Expr {
    nested(binary(count, BinaryOperator::Plus, number(1)))
}
