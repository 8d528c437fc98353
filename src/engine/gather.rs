//! The physical rules of batch plans, and one stream of all branches of a union.
//!
//! DataFusion takes a column that is constant in each branch of a union for constant in the union, and a sort of the
//! union for one of its branches; its own check of the plan then refuses it. Nothing can be said about what comes out
//! of a [`Gathered`] but its columns, so nothing wrong is concluded.

use std::fmt;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_optimizer::projection_pushdown::ProjectionPushdown;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
};

use crate::engine::recursion::LimitRecursion;

/// DataFusion's physical rules, after the one that gathers unions and before the one that bounds recursion, and without
/// the one that computes a select list before a filter where that makes rows narrower: expressions would fail on rows
/// that are not in the answer.
pub fn physical_rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let mut rules: Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> = vec![Arc::new(GatherUnions)];
    let own = PhysicalOptimizer::new().rules.into_iter();
    rules.extend(own.filter(|rule| rule.name() != ProjectionPushdown::new().name()));
    rules.push(Arc::new(LimitRecursion));
    rules
}

/// Puts a [`Gathered`] over every union.
#[derive(Debug)]
struct GatherUnions;

impl PhysicalOptimizerRule for GatherUnions {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let gathered = plan.transform_up(|node| {
            Ok(match node.downcast_ref::<UnionExec>() {
                Some(_) => Transformed::yes(Arc::new(Gathered::new(node)) as Arc<dyn ExecutionPlan>),
                None => Transformed::no(node),
            })
        })?;
        Ok(gathered.data)
    }

    fn name(&self) -> &str {
        "gather_unions"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The rows of all partitions of its input as one, in no order.
#[derive(Debug)]
struct Gathered {
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl Gathered {
    fn new(input: Arc<dyn ExecutionPlan>) -> Gathered {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(input.schema()),
            Partitioning::UnknownPartitioning(1),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        Gathered { input, properties: Arc::new(properties) }
    }
}

impl DisplayAs for Gathered {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gathered")
    }
}

impl ExecutionPlan for Gathered {
    fn name(&self) -> &str {
        "Gathered"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
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
            Ok([input]) => Ok(Arc::new(Gathered::new(input))),
            Err(children) => internal_err!("Gathered has one input, not {}", children.len()),
        }
    }

    fn execute(&self, _partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let partitions = 0..self.input.output_partitioning().partition_count();
        let streams = partitions.map(|i| self.input.execute(i, Arc::clone(&context)));
        let rows = futures::stream::select_all(streams.collect::<Result<Vec<_>>>()?);
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}
