//! What stands before AND or OR guards what stands behind.
//!
//! `b <> 0 AND a / b > 1` must not divide where `b` is 0. A vectorised AND evaluates its right side for every row of a
//! batch unless the left side is false for all, so a right side that can fail goes into a CASE, whose branches are
//! evaluated for their own rows only. This is the last thing done to a plan: rules that move and simplify conditions
//! see them as they were written, and `SimplifyExpressions` makes an AND of a CASE between booleans.

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{Case, Cast};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, binary_expr, lit};

use arrow::datatypes::DataType;

/// Guards every AND and OR of a plan whose right side can fail.
pub fn guard(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|plan| {
        if matches!(plan, LogicalPlan::TableScan(_)) {
            return Ok(Transformed::no(plan));
        }
        let schema = merge_schema(&plan.inputs());
        let names = NamePreserver::new(&plan);
        plan.map_expressions(|expr| {
            let name = names.save(&expr);
            Ok(guarded(expr, &schema)?.update_data(|e| name.restore(e)))
        })
    })
    .map(|t| t.data)
}

/// Top-down, so that a chain of ANDs is seen as a whole.
fn guarded(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
            let mut operands = Vec::new();
            flatten(*left, op, &mut operands);
            flatten(*right, op, &mut operands);
            let mut changed = false;
            let operands = operands
                .into_iter()
                .map(|e| {
                    let e = guarded(e, schema)?;
                    changed |= e.transformed;
                    Ok(e.data)
                })
                .collect::<Result<Vec<_>>>()?;
            let (expr, rebuilt) = chain(op, operands, schema);
            Ok(if changed || rebuilt { Transformed::yes(expr) } else { Transformed::no(expr) })
        }
        other => other.map_children(|e| guarded(e, schema)),
    }
}

/// The operands of a chain of ANDs or ORs, in the order they were written.
fn flatten(expr: Expr, op: Operator, operands: &mut Vec<Expr>) {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: own, right }) if own == op => {
            flatten(*left, op, operands);
            flatten(*right, op, operands);
        }
        other => operands.push(other),
    }
}

/// The operands as one expression, and whether any of them is guarded.
fn chain(op: Operator, operands: Vec<Expr>, schema: &DFSchema) -> (Expr, bool) {
    let join = |exprs: Vec<Expr>| exprs.into_iter().reduce(|a, b| binary_expr(a, op, b));
    // The first operand has nothing before it.
    let Some(fails) = operands.iter().skip(1).position(|e| can_fail(e, schema)).map(|i| i + 1) else {
        return (join(operands).unwrap_or_else(|| lit(op == Operator::And)), false);
    };
    let mut before = operands;
    let behind = before.split_off(fails);
    let (behind, _) = chain(op, behind, schema);
    // Never empty: the operand that fails is not the first.
    let before = join(before).unwrap_or_else(|| lit(op == Operator::And));
    let decided = op == Operator::Or;
    let open = if decided {
        Expr::IsNotTrue(Box::new(before.clone()))
    } else {
        Expr::IsNotFalse(Box::new(before.clone()))
    };
    let case = Case {
        expr: None,
        when_then_expr: vec![(Box::new(open), Box::new(binary_expr(before, op, behind)))],
        else_expr: Some(Box::new(Expr::Literal(ScalarValue::Boolean(Some(decided)), None))),
    };
    (Expr::Case(case), true)
}

/// Whether evaluating an expression may be an error. Functions are taken for such that may.
pub(super) fn can_fail(expr: &Expr, schema: &DFSchema) -> bool {
    let fails = expr.exists(|e| {
        Ok(match e {
            // Its argument can.
            Expr::ScalarFunction(call) => call.name() != "now_reaches",
            Expr::BinaryExpr(BinaryExpr { op, .. }) => {
                matches!(
                    op,
                    Operator::Divide
                        | Operator::Modulo
                        | Operator::Plus
                        | Operator::Minus
                        | Operator::Multiply
                )
            }
            Expr::Cast(Cast { expr, field }) => {
                expr.get_type(schema).map_or(true, |from| !widens(&from, field.data_type()))
            }
            _ => false,
        })
    });
    fails.unwrap_or(true)
}

/// Whether a cast succeeds for every value.
fn widens(from: &DataType, to: &DataType) -> bool {
    use DataType::{
        Date32, Decimal128, Float32, Float64, Int8, Int16, Int32, Int64, LargeUtf8, Null, Timestamp, Utf8,
        Utf8View,
    };
    from == to
        || match (from, to) {
            (Null, _) | (_, Utf8 | LargeUtf8 | Utf8View) | (Float32, Float64) => true,
            (Int8 | Int16 | Int32 | Int64, Float32 | Float64) => true,
            (Int8, Int16 | Int32 | Int64) | (Int16, Int32 | Int64) | (Int32, Int64) => true,
            (Int8 | Int16 | Int32 | Int64, Decimal128(p, s)) => i16::from(*p) - i16::from(*s) >= 19,
            (Decimal128(p, s), Decimal128(wide, scale)) => {
                scale >= s && i16::from(*wide) - i16::from(*scale) >= i16::from(*p) - i16::from(*s)
            }
            (Decimal128(_, _), Float32 | Float64) | (Date32, Timestamp(_, _)) => true,
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::{Field, Schema};
    use datafusion::logical_expr::col;

    fn shown(expr: Expr) -> String {
        let fields = ["a", "b"].map(|n| Field::new(n, DataType::Int32, true));
        let schema = DFSchema::try_from(Schema::new(fields.to_vec())).unwrap();
        guarded(expr, &schema).unwrap().data.to_string()
    }

    #[test]
    fn what_can_fail_is_guarded_and_nothing_else() {
        let safe = col("a").gt(lit(1)).and(col("b").is_null()).or(col("a").lt(col("b")));
        assert_eq!(shown(safe.clone()), safe.to_string());
        let ratio = || binary_expr(col("a"), Operator::Divide, col("b")).gt(lit(1));
        assert_eq!(shown(ratio().and(col("a").gt(lit(1)))), ratio().and(col("a").gt(lit(1))).to_string());
        assert_eq!(
            shown(col("b").not_eq(lit(0)).and(ratio())),
            "CASE WHEN b != Int32(0) IS NOT FALSE THEN b != Int32(0) AND a / b > Int32(1) ELSE Boolean(false) END"
        );
        assert_eq!(
            shown(col("b").eq(lit(0)).or(ratio())),
            "CASE WHEN b = Int32(0) IS NOT TRUE THEN b = Int32(0) OR a / b > Int32(1) ELSE Boolean(true) END"
        );
    }

    #[test]
    fn a_long_chain_stays_as_long_as_it_is() {
        let ratio = || binary_expr(col("a"), Operator::Divide, col("b")).gt(lit(1));
        let long = (0..20).fold(ratio(), |e, _| e.and(ratio()));
        assert!(shown(long).len() < 20 * 200);
    }
}
