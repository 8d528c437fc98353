//! Filters are pushed towards the inputs, but never below an aggregation that gives a row where it gets none.
//!
//! DataFusion's rule takes a predicate without columns for one on the grouping columns. Below `SELECT count(*) …`, or
//! below `ROLLUP`, it would take the input away and leave the row that such an aggregation has in any case.

use datafusion::common::Result;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Aggregate, Expr, GroupingSet, LogicalPlan};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::push_down_filter::PushDownFilter;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

/// The rule, in the place of DataFusion's of the same name.
#[derive(Debug, Default)]
pub struct PushDownFilterSafely(PushDownFilter);

impl OptimizerRule for PushDownFilterSafely {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        if would_invent_a_row(&plan) { Ok(Transformed::no(plan)) } else { self.0.rewrite(plan, config) }
    }
}

/// Whether a predicate without columns stands right above an aggregation that has a row without input.
fn would_invent_a_row(plan: &LogicalPlan) -> bool {
    let (mut node, mut without_columns) = (plan, false);
    while let LogicalPlan::Filter(filter) = node {
        let conjuncts = split_conjunction(&filter.predicate);
        without_columns |= conjuncts.iter().any(|predicate| predicate.column_refs().is_empty());
        node = &filter.input;
    }
    match node {
        LogicalPlan::Aggregate(aggregate) => without_columns && has_row_without_input(aggregate),
        _ => false,
    }
}

fn has_row_without_input(aggregate: &Aggregate) -> bool {
    match aggregate.group_expr.as_slice() {
        [] => true,
        [Expr::GroupingSet(GroupingSet::GroupingSets(sets))] => sets.iter().any(Vec::is_empty),
        [Expr::GroupingSet(_)] => true,
        _ => false,
    }
}
