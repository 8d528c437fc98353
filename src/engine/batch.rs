//! The one place where the engine waits for an async plan: batch execution on the calling thread.

use std::fmt;
use std::sync::{Arc, OnceLock};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::datasource::provider_as_source;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{LogicalPlan, TableScan};
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::memory::MemoryStream;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::SessionConfig;
use parking_lot::Mutex;

use crate::engine::gather::physical_rules;
use crate::engine::plan::PortSource;
use crate::error::{Error, Result};

thread_local! {
    /// Polls plans. Without drivers: an in-memory plan waits for nothing but itself.
    static RUNTIME: std::io::Result<tokio::runtime::Runtime> =
        tokio::runtime::Builder::new_current_thread().build();
}

/// Runs a future to its end on this thread, which must not be inside an async task.
pub fn block_on<F: Future>(future: F) -> Result<F::Output> {
    RUNTIME.with(|runtime| match runtime {
        Ok(runtime) => Ok(runtime.block_on(future)),
        Err(e) => Err(Error::internal(format!("no runtime for a batch plan: {e}"))),
    })
}

/// The rows of one port, handed to the plan that scans it.
#[derive(Debug)]
struct PortRows {
    schema: SchemaRef,
    rows: Mutex<Vec<RecordBatch>>,
}

/// The scan's view of a port; shared with the fragment that fills it.
#[derive(Debug)]
struct PortStream(Arc<PortRows>);

impl PartitionStream for PortStream {
    fn schema(&self) -> &SchemaRef {
        &self.0.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = self.0.rows.lock().clone();
        let stream = MemoryStream::try_new(rows, Arc::clone(&self.0.schema), None);
        match stream {
            Ok(stream) => Box::pin(stream),
            Err(e) => Box::pin(datafusion::physical_plan::stream::RecordBatchStreamAdapter::new(
                Arc::clone(&self.0.schema),
                futures::stream::once(async move { Err(e) }),
            )),
        }
    }
}

/// A plan fragment over ports, planned once and run again and again.
pub struct Fragment {
    state: SessionState,
    logical: LogicalPlan,
    physical: Arc<dyn ExecutionPlan>,
    ports: Vec<Arc<PortRows>>,
    /// Recursion keeps its work table in places that cannot be reset: such a plan is planned for each run.
    recursive: bool,
}

impl fmt::Debug for Fragment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.logical.display_indent())
    }
}

impl Fragment {
    /// Plans a fragment whose leaves are scans of [`PortSource`]s, one port for each of `inputs`.
    ///
    /// # Errors
    /// What DataFusion cannot run is refused as not supported.
    pub fn new(plan: &LogicalPlan, inputs: &[SchemaRef]) -> Result<Self> {
        let ports: Vec<Arc<PortRows>> = inputs
            .iter()
            .map(|schema| Arc::new(PortRows { schema: Arc::clone(schema), rows: Mutex::default() }))
            .collect();
        let logical = plan
            .clone()
            .transform_down_with_subqueries(|node| {
                let LogicalPlan::TableScan(scan) = node else { return Ok(Transformed::no(node)) };
                let Some(port) = scan.source.downcast_ref::<PortSource>().map(|s| s.port) else {
                    return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
                };
                let Some(rows) = ports.get(port) else {
                    return Err(
                        Error::internal(format!("a fragment scans port {port} of {}", ports.len())).into()
                    );
                };
                let table = StreamingTable::try_new(
                    Arc::clone(&rows.schema),
                    vec![Arc::new(PortStream(Arc::clone(rows)))],
                )?;
                Ok(Transformed::yes(LogicalPlan::TableScan(TableScan {
                    source: provider_as_source(Arc::new(table)),
                    ..scan
                })))
            })?
            .data;
        let mut recursive = false;
        logical.apply_with_subqueries(|node| {
            recursive |= matches!(node, LogicalPlan::RecursiveQuery(_));
            Ok(TreeNodeRecursion::Continue)
        })?;
        let state = fragment_state();
        let physical = physical_plan(&logical, &state)
            .map_err(|e| Error { sqlstate: crate::SqlState::FEATURE_NOT_SUPPORTED, ..e })?;
        Ok(Fragment { state, logical, physical, ports, recursive })
    }

    /// Runs the fragment over these rows, one vector for each port.
    pub fn run(&mut self, inputs: Vec<Vec<RecordBatch>>) -> Result<Vec<RecordBatch>> {
        for (port, rows) in self.ports.iter().zip(inputs) {
            *port.rows.lock() = rows;
        }
        self.physical = if self.recursive {
            physical_plan(&self.logical, &self.state)?
        } else {
            reset_plan_states(Arc::clone(&self.physical))?
        };
        let batches = block_on(collect(Arc::clone(&self.physical), self.state.task_ctx()))?;
        for port in &self.ports {
            port.rows.lock().clear();
        }
        Ok(batches?)
    }
}

/// Plans without optimising: a fragment was optimised as part of its view.
fn physical_plan(plan: &LogicalPlan, state: &SessionState) -> Result<Arc<dyn ExecutionPlan>> {
    Ok(block_on(state.query_planner().create_physical_plan(plan, state))??)
}

/// One partition, nothing that adapts to earlier rows.
fn fragment_state() -> SessionState {
    static STATE: OnceLock<SessionState> = OnceLock::new();
    let state = STATE.get_or_init(|| {
        let mut config = SessionConfig::new().with_target_partitions(1).with_batch_size(8192);
        config.options_mut().optimizer.enable_dynamic_filter_pushdown = false;
        config.options_mut().execution.skip_physical_aggregate_schema_check = true;
        SessionStateBuilder::new()
            .with_config(config)
            .with_default_features()
            .with_optimizer_rules(Vec::new())
            .with_physical_optimizer_rules(physical_rules())
            .build()
    });
    state.clone()
}
