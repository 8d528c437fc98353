//! Which of DataFusion's rules a view's plan goes through, and with which options.
//!
//! A view's plan is used again at every tick on rows that did not exist when it was planned, so no rule may look
//! at the data, freeze a value, or cut a stream short. What is off, and why:
//!
//! * `PushDownLimit` writes limits into scans and below joins and unions, where they would truncate a changing stream.
//! * `SingleDistinctToGroupBy` doubles the state of a distinct aggregate, which the aggregate operator counts itself.
//! * `UnionsToFilter`, `ExtractLeafExpressions`, `PushDownLeafProjections` only pay for scans of files.
//! * `RewriteSetComparison` has nothing left to do: [`super::rewrite`] expresses ANY and ALL by EXISTS.
//! * `PushDownFilter` is replaced by [`PushDownFilterSafely`], in reads as well.
//! * all physical rules: views are lowered from the logical plan.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::common_subexpr_eliminate::CommonSubexprEliminate;
use datafusion::optimizer::decorrelate_lateral_join::DecorrelateLateralJoin;
use datafusion::optimizer::decorrelate_predicate_subquery::DecorrelatePredicateSubquery;
use datafusion::optimizer::eliminate_cross_join::EliminateCrossJoin;
use datafusion::optimizer::eliminate_duplicated_expr::EliminateDuplicatedExpr;
use datafusion::optimizer::eliminate_filter::EliminateFilter;
use datafusion::optimizer::eliminate_group_by_constant::EliminateGroupByConstant;
use datafusion::optimizer::eliminate_join::EliminateJoin;
use datafusion::optimizer::eliminate_limit::EliminateLimit;
use datafusion::optimizer::eliminate_outer_join::EliminateOuterJoin;
use datafusion::optimizer::extract_equijoin_predicate::ExtractEquijoinPredicate;
use datafusion::optimizer::filter_null_join_keys::FilterNullJoinKeys;
use datafusion::optimizer::optimize_projections::OptimizeProjections;
use datafusion::optimizer::optimize_unions::OptimizeUnions;
use datafusion::optimizer::propagate_empty_relation::PropagateEmptyRelation;
use datafusion::optimizer::replace_distinct_aggregate::ReplaceDistinctWithAggregate;
use datafusion::optimizer::scalar_subquery_to_join::ScalarSubqueryToJoin;
use datafusion::optimizer::simplify_expressions::SimplifyExpressions;
use datafusion::optimizer::{Analyzer, AnalyzerRule, Optimizer, OptimizerContext, OptimizerRule};

use super::guard::guard;
use super::push_down::PushDownFilterSafely;
use super::{bounds, rewrite, temporal};
use crate::error::Result;

/// The rules for views, in their order.
pub fn rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    vec![
        Arc::new(OptimizeUnions::new()),
        Arc::new(SimplifyExpressions::new()),
        Arc::new(ReplaceDistinctWithAggregate::new()),
        Arc::new(EliminateJoin::new()),
        Arc::new(DecorrelatePredicateSubquery::new()),
        Arc::new(ScalarSubqueryToJoin::new()),
        Arc::new(DecorrelateLateralJoin::new()),
        Arc::new(ExtractEquijoinPredicate::new()),
        Arc::new(EliminateDuplicatedExpr::new()),
        Arc::new(EliminateFilter::new()),
        Arc::new(EliminateCrossJoin::new()),
        Arc::new(EliminateLimit::new()),
        Arc::new(PropagateEmptyRelation::new()),
        Arc::new(FilterNullJoinKeys::default()),
        Arc::new(EliminateOuterJoin::new()),
        Arc::new(PushDownFilterSafely::default()),
        Arc::new(EliminateGroupByConstant::new()),
        Arc::new(CommonSubexprEliminate::new()),
        Arc::new(OptimizeProjections::new()),
    ]
}

/// The rules for reads: DataFusion's own, but for the one that is replaced, and one that is off here too: its sum of
/// sums has another type than the sum, when that is a numeric.
pub fn rules_of_reads() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let safely: Arc<dyn OptimizerRule + Send + Sync> = Arc::new(PushDownFilterSafely::default());
    let off = "single_distinct_aggregation_to_group_by";
    let own = Optimizer::new().rules.into_iter().filter(|rule| rule.name() != off);
    own.map(|rule| if rule.name() == safely.name() { Arc::clone(&safely) } else { rule }).collect()
}

/// The options the rules run with.
pub fn options() -> ConfigOptions {
    let mut options = ConfigOptions::default();
    // Otherwise an uncorrelated scalar subquery stays for a physical node that evaluates it once.
    options.optimizer.enable_physical_uncorrelated_scalar_subquery = false;
    // A NULL key matches nothing: such rows need not be kept.
    options.optimizer.filter_null_join_keys = true;
    options.optimizer.skip_failed_rules = false;
    options
}

/// Resolves types and grouping functions. Does nothing to a plan that was analysed before.
pub fn analyse(plan: LogicalPlan) -> Result<LogicalPlan> {
    Ok(analyse_by(&Analyzer::new().rules, plan, &options())?)
}

/// Analyses by these rules, without DataFusion's check of whether it could run the plan as it stands: most subqueries
/// that it could not are joins after [`rewrite::normalise`].
pub fn analyse_by(
    rules: &[Arc<dyn AnalyzerRule + Send + Sync>],
    plan: LogicalPlan,
    options: &ConfigOptions,
) -> datafusion::error::Result<LogicalPlan> {
    rules.iter().try_fold(plan, |plan, rule| rule.analyze(plan, options))
}

/// A view's plan, ready to be lowered: with one possible answer, and optimised.
pub fn optimize(plan: LogicalPlan) -> Result<LogicalPlan> {
    let plan = temporal::mark(rewrite::determine(rewrite::normalise(analyse(plan)?)?)?)?;
    let plan = bounds::spread(plan)?;
    let context =
        OptimizerContext::new_with_config_options(Arc::new(options())).without_query_execution_start_time();
    let plan = Optimizer::with_rules(rules()).optimize(plan, &context, |_, _| {})?;
    Ok(guard(temporal::apart(plan)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rules of the pinned DataFusion, so that an upgrade that adds, drops or renames one is looked at.
    #[test]
    fn every_rule_of_datafusion_is_known() {
        let ours: Vec<String> = rules().iter().map(|r| r.name().to_string()).collect();
        let off = [
            "rewrite_set_comparison",
            "unions_to_filter",
            "push_down_limit",
            "single_distinct_aggregation_to_group_by",
            "extract_leaf_expressions",
            "push_down_leaf_projections",
        ];
        let known: Vec<String> = Optimizer::new().rules.iter().map(|r| r.name().to_string()).collect();
        let kept: Vec<String> = known.iter().filter(|n| !off.contains(&n.as_str())).cloned().collect();
        assert_eq!(ours, kept, "all rules: {known:?}");
        assert_eq!(known.len(), ours.len() + off.len());
    }
}
