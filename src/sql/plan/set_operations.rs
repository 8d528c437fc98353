//! INTERSECT ALL and EXCEPT ALL by SQL's multiplicities.
//!
//! A row that is n times on the left and m times on the right is min(n, m) times in the intersection and
//! max(n − m, 0) times in the difference. DataFusion plans both as a semi or anti join on all columns, which keeps
//! all n copies or none. Here equal rows are numbered on both sides, and the numbers are joined as well.

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, JoinType, NullEquality, Result};
use datafusion::functions_window::row_number::row_number_udwf;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{Distinct, Expr, Join, LogicalPlan, LogicalPlanBuilder};

const LEFT_NUMBER: &str = "copy on the left";
const RIGHT_NUMBER: &str = "copy on the right";

/// The same plan with set operations that count copies.
pub(super) fn keep_multiplicities(plan: LogicalPlan) -> Result<LogicalPlan> {
    let numbered = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Join(join) if counts_copies(&join) => Ok(Transformed::yes(numbered(join)?)),
        node => Ok(Transformed::no(node)),
    })?;
    Ok(numbered.data)
}

/// Whether a join stands for a set operation with ALL.
///
/// Of what the planner makes, only set operations are semi joins where NULL equals NULL. Without ALL the left side is
/// made distinct; a distinct left side gives the same answer with ALL. A view's plan has its numbers already.
fn counts_copies(join: &Join) -> bool {
    matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti)
        && join.null_equality == NullEquality::NullEqualsNull
        && !matches!(join.left.as_ref(), LogicalPlan::Distinct(Distinct::All(_)))
        && join.on.last().is_none_or(|(left, _)| *left != number_column(LEFT_NUMBER))
}

/// The join on the copies' numbers too; its columns stay.
fn numbered(mut join: Join) -> Result<LogicalPlan> {
    let columns = join.left.schema().columns();
    let (left, left_number) = number_copies(&join.left, LEFT_NUMBER)?;
    let (right, right_number) = number_copies(&join.right, RIGHT_NUMBER)?;
    (join.left, join.right) = (Arc::new(left), Arc::new(right));
    join.on.push((left_number, right_number));
    let joined = LogicalPlan::Join(join).recompute_schema()?;
    LogicalPlanBuilder::from(joined).project(columns.into_iter().map(Expr::Column))?.build()
}

fn number_column(name: &str) -> Expr {
    Expr::Column(Column::from_name(name))
}

/// The plan with a number for each of its rows, from 1 among equal rows, and the column of the number.
fn number_copies(plan: &Arc<LogicalPlan>, name: &str) -> Result<(LogicalPlan, Expr)> {
    let mut number = WindowFunction::new(row_number_udwf(), Vec::new());
    number.params.partition_by = plan.schema().columns().into_iter().map(Expr::Column).collect();
    let number = Expr::from(number);
    let numbered = Expr::Column(Column::from_name(number.schema_name().to_string())).alias(name);
    let columns: Vec<Expr> = plan.schema().columns().into_iter().map(Expr::Column).collect();
    // The number is named by a projection: a window node takes bare window functions only.
    let plan = LogicalPlanBuilder::from(Arc::clone(plan))
        .window([number])?
        .project(columns.into_iter().chain([numbered]))?
        .build()?;
    Ok((plan, number_column(name)))
}
