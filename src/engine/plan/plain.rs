//! Which subqueries DataFusion's own rules plan rightly; such are left to them, for their plans need less state.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, JoinType};
use datafusion::logical_expr::utils::{split_conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, Distinct, Expr, FetchType, LogicalPlan, Operator, Subquery,
};

use super::lower::has_subquery;

type Planned<T> = datafusion::error::Result<T>;

/// A filter's conjunct that is no subquery, or a plain EXISTS or IN that may become a semi or anti join.
pub(super) fn is_plain_condition(e: &Expr, scope: &DFSchema) -> Planned<bool> {
    Ok(match e {
        Expr::Exists(exists) => is_joinable(&exists.subquery.subquery, scope, false)?,
        Expr::Not(inner) if matches!(inner.as_ref(), Expr::Exists(_)) => is_plain_condition(inner, scope)?,
        Expr::InSubquery(i) if !i.negated => {
            !holds_subquery(&i.expr) && is_joinable(&i.subquery.subquery, scope, false)?
        }
        e => !holds_subquery(e),
    })
}

pub(super) fn holds_subquery(e: &Expr) -> bool {
    let found = e.exists(|e| {
        Ok(matches!(
            e,
            Expr::Exists(_) | Expr::InSubquery(_) | Expr::ScalarSubquery(_) | Expr::SetComparison(_)
        ))
    });
    found.unwrap_or(true)
}

/// A scalar subquery that DataFusion joins rightly: one aggregation, correlated by equalities below it or not at all.
pub(super) fn is_plain_scalar(subquery: &Subquery, scope: &DFSchema) -> Planned<bool> {
    let mut plan = subquery.subquery.as_ref();
    if !is_correlated(plan) {
        return is_single_row(plan);
    }
    if clashes(plan, plan)? {
        return Ok(false);
    }
    loop {
        match plan {
            LogicalPlan::Projection(p) if !plan.contains_outer_reference() && !has_subquery(plan) => {
                plan = &p.input
            }
            LogicalPlan::SubqueryAlias(a) => plan = &a.input,
            LogicalPlan::Aggregate(a) => {
                let plain =
                    a.group_expr.is_empty() && !plan.contains_outer_reference() && !has_subquery(plan);
                return Ok(plain && is_liftable(&a.input, scope, true)?);
            }
            _ => return Ok(false),
        }
    }
}

/// Whether the plan gives at most one row, whatever its input.
pub(super) fn is_single_row(plan: &LogicalPlan) -> Planned<bool> {
    Ok(match plan {
        LogicalPlan::Aggregate(Aggregate { group_expr, .. }) => group_expr.is_empty(),
        LogicalPlan::Projection(p) => is_single_row(&p.input)?,
        LogicalPlan::Filter(f) => is_single_row(&f.input)?,
        LogicalPlan::SubqueryAlias(a) => is_single_row(&a.input)?,
        LogicalPlan::Sort(s) => is_single_row(&s.input)?,
        LogicalPlan::Distinct(Distinct::All(input)) => is_single_row(input)?,
        LogicalPlan::Limit(limit) => {
            matches!(limit.get_fetch_type()?, FetchType::Literal(Some(0 | 1))) || is_single_row(&limit.input)?
        }
        LogicalPlan::EmptyRelation(_) => true,
        LogicalPlan::Values(v) => v.values.len() <= 1,
        _ => false,
    })
}

/// Whether anything in the plan refers to the rows around it.
fn is_correlated(plan: &LogicalPlan) -> bool {
    let mut found = false;
    let visited = plan.apply_with_subqueries(|node| {
        found |= node.contains_outer_reference();
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    debug_assert!(visited.is_ok(), "the visitor never fails");
    found
}

/// Whether DataFusion may make a join of the subquery; see [`is_liftable`].
pub(super) fn is_joinable(plan: &LogicalPlan, scope: &DFSchema, equal: bool) -> Planned<bool> {
    Ok(is_liftable(plan, scope, equal)? && !clashes(plan, plan)?)
}

/// Whether the columns that conditions in `plan` compare with the rows around it would meet others of their names when
/// they are added to the columns of `top`, which DataFusion does to make a join of it.
pub(super) fn clashes(top: &LogicalPlan, plan: &LogicalPlan) -> Planned<bool> {
    let mut columns = top.schema().columns();
    let mut clash = false;
    plan.apply(|node| {
        let LogicalPlan::Filter(filter) = node else { return Ok(TreeNodeRecursion::Continue) };
        for condition in split_conjunction(&filter.predicate) {
            for column in condition.column_refs() {
                if condition.contains_outer() && !columns.contains(column) {
                    clash |= columns.iter().any(|c| c.name == column.name);
                    columns.push(column.clone());
                }
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(clash)
}

/// A select-project-join that refers to the rows around it, all of `scope`, in filters only; `equal`: by nothing but
/// equalities of one of its columns.
fn is_liftable(plan: &LogicalPlan, scope: &DFSchema, equal: bool) -> Planned<bool> {
    if !is_correlated(plan) {
        return Ok(true);
    }
    Ok(match plan {
        LogicalPlan::Filter(filter) => {
            if has_subquery(plan) || !is_liftable(&filter.input, scope, equal)? {
                return Ok(false);
            }
            let mut known = true;
            filter.predicate.apply(|e| {
                if let Expr::OuterReferenceColumn(_, c) = e {
                    known &= scope.has_column(c);
                }
                Ok(TreeNodeRecursion::Continue)
            })?;
            let conditions = split_conjunction_owned(filter.predicate.clone());
            known && (!equal || conditions.iter().all(is_equality))
        }
        LogicalPlan::Projection(p) => {
            !plan.contains_outer_reference() && !has_subquery(plan) && is_liftable(&p.input, scope, equal)?
        }
        LogicalPlan::SubqueryAlias(a) => is_liftable(&a.input, scope, equal)?,
        LogicalPlan::Join(join) if join.join_type == JoinType::Inner => {
            !plan.contains_outer_reference()
                && !has_subquery(plan)
                && is_liftable(&join.left, scope, equal)?
                && is_liftable(&join.right, scope, equal)?
        }
        _ => false,
    })
}

/// A condition without outer columns, or `column = outer expression`.
fn is_equality(e: &Expr) -> bool {
    if !e.contains_outer() {
        return true;
    }
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = e else { return false };
    let outside = |e: &Expr| e.contains_outer() && e.column_refs().is_empty();
    matches!((left.as_ref(), right.as_ref()), (Expr::Column(_), r) if outside(r))
        || matches!((left.as_ref(), right.as_ref()), (l, Expr::Column(_)) if outside(l))
}
