//! What a query means where DataFusion's plans would say something else; applied to views, reads and the oracle alike.
use crate::error::Result;
use datafusion::logical_expr::LogicalPlan;
/// x
pub fn normalise(plan: LogicalPlan) -> Result<LogicalPlan> {
    Ok(plan)
}
/// x
pub fn determine(plan: LogicalPlan) -> Result<LogicalPlan> {
    Ok(plan)
}
