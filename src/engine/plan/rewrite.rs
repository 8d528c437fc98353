//! What a query means where DataFusion's plans would say something else; applied to views, reads and the oracle alike.
use datafusion::logical_expr::LogicalPlan;
use crate::error::Result;
/// x
pub fn normalise(plan: LogicalPlan) -> Result<LogicalPlan> { Ok(plan) }
/// x
pub fn determine(plan: LogicalPlan) -> Result<LogicalPlan> { Ok(plan) }
