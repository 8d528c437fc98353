//! Running a bound plan.

use std::sync::{Arc, OnceLock};

use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::SessionConfig;

use crate::engine::gather::physical_rules;
use crate::engine::plan::guard::guard;
use crate::engine::plan::optimize;
use crate::error::Result;

/// Threads that work on one read.
const PARTITIONS: usize = 2;
/// Rows that go through a plan at a time.
const BATCH_ROWS: usize = 8192;

/// The settings reads run with; cheap to call.
pub fn session_state() -> SessionState {
    static STATE: OnceLock<SessionState> = OnceLock::new();
    let state = STATE.get_or_init(|| {
        let mut config = SessionConfig::new().with_target_partitions(PARTITIONS).with_batch_size(BATCH_ROWS);
        // Subqueries are joins in views; reads do the same, so both say the same.
        config.options_mut().optimizer.enable_physical_uncorrelated_scalar_subquery = false;
        // Where a column cannot be NULL, logical and physical plans may know it to different degrees.
        config.options_mut().execution.skip_physical_aggregate_schema_check = true;
        SessionStateBuilder::new()
            .with_config(config)
            .with_default_features()
            .with_optimizer_rules(optimize::rules_of_reads())
            .with_physical_optimizer_rules(physical_rules())
            .build()
    });
    state.clone()
}

/// A bound plan, optimised, as it is run.
pub async fn physical_plan(plan: &LogicalPlan, state: &SessionState) -> Result<Arc<dyn ExecutionPlan>> {
    let plan = guard(state.optimize(plan)?)?;
    Ok(state.query_planner().create_physical_plan(&plan, state).await?)
}

/// Optimises and starts a bound plan; rows come as the stream is read.
pub async fn execute(plan: LogicalPlan, state: &SessionState) -> Result<SendableRecordBatchStream> {
    let physical = physical_plan(&plan, state).await?;
    Ok(execute_stream(physical, state.task_ctx())?)
}
