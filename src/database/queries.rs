//! Where reads run: threads of their own, so that a query that computes for long keeps nobody else from being served.
//!
//! A batch operator may work for seconds without giving its thread back. On these threads that delays other queries
//! only; sessions stay able to answer, to be cancelled and to time out, for they just wait for rows.

use arrow::array::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, stream};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};

use crate::engine::serve;
use crate::error::{Error, Result};
use crate::world;

/// Batches that wait for a slow reader.
const BATCHES_AHEAD: usize = 2;

/// The threads that reads run on.
pub(crate) struct Queries {
    /// Taken only when this is dropped.
    runtime: Option<Runtime>,
}

impl Queries {
    /// As many threads as the machine has processors.
    pub fn new() -> Result<Queries> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_name("query")
            .thread_stack_size(world::PLANNING_STACK)
            .enable_all()
            .build()?;
        Ok(Queries { runtime: Some(runtime) })
    }

    /// Optimises and starts a bound plan. It ends when its stream is dropped.
    pub async fn start(&self, plan: LogicalPlan, state: SessionState) -> Result<SendableRecordBatchStream> {
        let Some(runtime) = &self.runtime else { return Err(Error::internal("the database is closed")) };
        let mut planning = Task(runtime.spawn(async move { serve::execute(plan, &state).await }));
        let mut rows = (&mut planning.0).await.map_err(lost)??;
        let schema = rows.schema();
        let (sender, receiver) = mpsc::channel::<Result<RecordBatch, DataFusionError>>(BATCHES_AHEAD);
        let task = Task(runtime.spawn(async move {
            while let Some(batch) = rows.next().await {
                if sender.send(batch).await.is_err() {
                    break;
                }
            }
        }));
        let rows = stream::unfold(Some((receiver, task)), |running| async move {
            let (mut receiver, mut task) = running?;
            if let Some(batch) = receiver.recv().await {
                return Some((batch, Some((receiver, task))));
            }
            // The sender is gone: the task has ended, well or in a panic.
            match (&mut task.0).await {
                Ok(()) => None,
                Err(e) => Some((Err(lost(e).into()), None)),
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }
}

impl Drop for Queries {
    fn drop(&mut self) {
        // Whoever drops this may be an async thread, which must not wait.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A task that is stopped when nobody waits for it any more.
struct Task<T>(JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn lost(e: JoinError) -> Error {
    if !e.is_panic() {
        return Error::new(crate::SqlState::ADMIN_SHUTDOWN, "the query was ended with the database");
    }
    let panic = e.into_panic();
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_string());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    Error::internal(format!("the query panicked: {}", text.unwrap_or_else(|| "unknown cause".into())))
}
