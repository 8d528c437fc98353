//! GROUP BY ROLLUP, CUBE and GROUPING SETS over expressions: the expressions are computed below and grouped by name.
//!
//! What is above an aggregation finds its keys by their names, and these would change with every rewriting of an
//! expression inside of a grouping set.

use std::sync::Arc;

use datafusion::common::Column;
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::expr::GroupingSet;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::sqlparser::ast::Expr as Tree;

use super::collecting::given_arguments;
use crate::names::fold;

/// ROLLUP and CUBE over several columns at a time, and within GROUPING SETS, as the sets that they stand for.
pub(super) fn spell_out(keys: &mut [Tree]) {
    let wide = |sets: &[Vec<Tree>]| sets.iter().any(|set| set.len() != 1);
    for key in keys {
        let sets = match key {
            Tree::Rollup(sets) if wide(sets) => rolled(sets),
            Tree::Cube(sets) if wide(sets) => cubed(sets),
            Tree::GroupingSets(sets) if sets.iter().any(|set| nested(set).is_some()) => {
                sets.iter().flat_map(|set| nested(set).unwrap_or_else(|| vec![set.clone()])).collect()
            }
            _ => continue,
        };
        *key = Tree::GroupingSets(sets);
    }
}

/// The sets of a ROLLUP or CUBE that is one of the GROUPING SETS, where it looks like a call.
fn nested(set: &[Tree]) -> Option<Vec<Vec<Tree>>> {
    let [Tree::Function(function)] = set else { return None };
    let [name] = function.name.0.as_slice() else { return None };
    let parts = || {
        let columns = given_arguments(function).into_iter().map(|arg| match arg {
            Tree::Tuple(columns) => columns,
            Tree::Nested(column) => vec![*column],
            column => vec![column],
        });
        columns.collect::<Vec<_>>()
    };
    match fold(name.as_ident()?).as_str() {
        "rollup" => Some(rolled(&parts())),
        "cube" => Some(cubed(&parts())),
        _ => None,
    }
}

fn rolled(parts: &[Vec<Tree>]) -> Vec<Vec<Tree>> {
    (0..=parts.len()).rev().map(|n| parts[..n].concat()).collect()
}

fn cubed(parts: &[Vec<Tree>]) -> Vec<Vec<Tree>> {
    match parts.split_first() {
        None => vec![vec![]],
        Some((first, rest)) => {
            let rest = cubed(rest);
            rest.iter().map(|set| [first.clone(), set.clone()].concat()).chain(rest.clone()).collect()
        }
    }
}

/// The plan with grouping sets over columns only.
pub(super) fn name_keys(plan: LogicalPlan) -> Result<LogicalPlan> {
    Ok(plan.transform_up_with_subqueries(named)?.data)
}

fn named(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Aggregate(aggregate) = plan else { return Ok(Transformed::no(plan)) };
    let mut computed: Vec<Expr> = Vec::new();
    for expr in &aggregate.group_expr {
        let Expr::GroupingSet(sets) = expr else { continue };
        for key in keys(sets) {
            if !matches!(key, Expr::Column(_)) && !computed.contains(key) {
                computed.push(key.clone());
            }
        }
    }
    if computed.is_empty() {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let column = |key: &Expr| Expr::Column(Column::from_name(key.schema_name().to_string()));
    let input = aggregate.input.schema().columns().into_iter().map(Expr::Column);
    let input = input.chain(computed.iter().map(|key| key.clone().alias(key.schema_name().to_string())));
    let input = LogicalPlanBuilder::from(Arc::clone(&aggregate.input)).project(input)?.build()?;
    let replace = |expr: Expr| {
        expr.transform_down(|e| {
            Ok(if computed.contains(&e) { Transformed::yes(column(&e)) } else { Transformed::no(e) })
        })
    };
    let groups = aggregate.group_expr.into_iter().map(|e| Ok(replace(e)?.data)).collect::<Result<_>>()?;
    // `grouping(key)` must name the key as the sets do; other aggregates read their own input.
    let calls = aggregate.aggr_expr.into_iter().map(|e| match &e {
        Expr::AggregateFunction(call) if call.func.name() == "grouping" => Ok(replace(e)?.data),
        _ => Ok(e),
    });
    let calls = calls.collect::<Result<_>>()?;
    Ok(Transformed::yes(LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(input), groups, calls)?)))
}

/// The keys of grouping sets; those of several sets repeat.
fn keys(sets: &GroupingSet) -> Vec<&Expr> {
    match sets {
        GroupingSet::Rollup(keys) | GroupingSet::Cube(keys) => keys.iter().collect(),
        GroupingSet::GroupingSets(sets) => sets.iter().flatten().collect(),
    }
}
