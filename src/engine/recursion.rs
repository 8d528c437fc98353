//! Recursive queries that do not come to an end: they are stopped after so many rounds, or so many rows.
//!
//! The same holds in batch and in views, where nothing else would stop them: both run on plans that these rules made.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::StreamExt;

use crate::error::{Error, SqlState};

/// How often the recursive term of a query is computed at most.
pub const ROUNDS_MAX: u64 = 100_000;
/// How many rows all rounds together may come to.
pub const ROWS_MAX: u64 = 100_000_000;

/// Has every recursive query count its rounds.
#[derive(Debug)]
pub struct LimitRecursion;

impl PhysicalOptimizerRule for LimitRecursion {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let limited = plan.transform_up(|node| {
            if node.downcast_ref::<RecursiveQueryExec>().is_none() {
                return Ok(Transformed::no(node));
            }
            let [first, recursive] = node.children()[..] else {
                return internal_err!("a recursive query has two terms");
            };
            let counted = Arc::new(Counted::default());
            let terms = [(first, true), (recursive, false)].map(|(term, begins)| {
                Arc::new(Term { input: Arc::clone(term), begins, counted: Arc::clone(&counted) })
                    as Arc<dyn ExecutionPlan>
            });
            let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
            Ok(Transformed::yes(node.replace_children(terms.to_vec(), options)?))
        })?;
        Ok(limited.data)
    }

    fn name(&self) -> &str {
        "limit_recursion"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// What one run of a recursive query has come to.
#[derive(Debug, Default)]
struct Counted {
    rounds: AtomicU64,
    rows: AtomicU64,
}

/// A term of a recursive query, which is executed once (the first one), or once a round.
#[derive(Debug)]
struct Term {
    input: Arc<dyn ExecutionPlan>,
    /// Whether a run begins with it.
    begins: bool,
    counted: Arc<Counted>,
}

fn endless(what: &str) -> Error {
    Error::new(SqlState("54000"), format!("recursive query has not come to an end after {what}"))
        .with_hint("A round must come to no new rows at last: bound it with WHERE, or use UNION in the place of UNION ALL.")
}

impl DisplayAs for Term {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Term")
    }
}

impl ExecutionPlan for Term {
    fn name(&self) -> &str {
        "Term"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match <[Arc<dyn ExecutionPlan>; 1]>::try_from(children) {
            Ok([input]) => {
                Ok(Arc::new(Term { input, begins: self.begins, counted: Arc::clone(&self.counted) }))
            }
            Err(children) => internal_err!("Term has one input, not {}", children.len()),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if self.begins {
            self.counted.rounds.store(0, Ordering::Relaxed);
            self.counted.rows.store(0, Ordering::Relaxed);
            return self.input.execute(partition, context);
        }
        if self.counted.rounds.fetch_add(1, Ordering::Relaxed) >= ROUNDS_MAX {
            return Err(endless(&format!("{ROUNDS_MAX} rounds")).into());
        }
        let counted = Arc::clone(&self.counted);
        let rows = self.input.execute(partition, context)?.map(move |batch| {
            let batch = batch?;
            let more = batch.num_rows() as u64;
            if counted.rows.fetch_add(more, Ordering::Relaxed) + more > ROWS_MAX {
                return Err(endless(&format!("{ROWS_MAX} rows")).into());
            }
            Ok(batch)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}
