//! Expressions that are computed for rows at hand: RETURNING, ON CONFLICT DO UPDATE.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use datafusion::common::{DFSchemaRef, ParamValues, ScalarValue};
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr as PlanExpr, LogicalPlan};
use datafusion::physical_expr::create_physical_expr;

use crate::error::{Error, Result};

/// Expressions over given rows.
#[derive(Clone, Debug)]
pub struct RowExpressions {
    /// Projections to be applied one after another; the first one over the given rows.
    stages: Vec<(DFSchemaRef, Vec<PlanExpr>)>,
    /// Columns of the result, by PostgreSQL's names.
    pub schema: SchemaRef,
}

impl RowExpressions {
    /// The projections that a plan over plain rows is made of.
    ///
    /// # Errors
    /// 0A000 when it is made of anything else.
    pub(super) fn new(plan: &LogicalPlan, schema: SchemaRef) -> Result<Self> {
        let mut stages = Vec::new();
        let mut node = plan;
        while let LogicalPlan::Projection(projection) = node {
            stages.push((Arc::clone(projection.input.schema()), projection.expr.clone()));
            node = projection.input.as_ref();
        }
        let plain =
            matches!(node, LogicalPlan::TableScan(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::Join(_));
        if !plain || stages.iter().any(|(_, exprs)| exprs.iter().any(has_subquery)) {
            return Err(Error::unsupported(
                "aggregates, window functions and subqueries in RETURNING or ON CONFLICT",
            ));
        }
        stages.reverse();
        Ok(RowExpressions { stages, schema })
    }

    /// Computes the expressions for each of the given rows, whose columns are matched by position.
    ///
    /// # Errors
    /// Whatever the expressions raise.
    pub fn evaluate(&self, rows: &RecordBatch, params: &[ScalarValue]) -> Result<RecordBatch> {
        let props = ExecutionProps::new();
        let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
        let options = || RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        for (input, exprs) in &self.stages {
            let batch = RecordBatch::try_new_with_options(Arc::clone(input.inner()), columns, &options())?;
            columns = exprs
                .iter()
                .map(|expr| {
                    let expr = with_params(expr.clone(), params)?;
                    let physical =
                        create_physical_expr(&expr, input, &props, &PhysicalPlanningContext::default())?;
                    Ok(physical.evaluate(&batch)?.into_array(rows.num_rows())?)
                })
                .collect::<Result<_>>()?;
        }
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options())?)
    }
}

fn with_params(expr: PlanExpr, params: &[ScalarValue]) -> Result<PlanExpr> {
    use datafusion::common::tree_node::{Transformed, TreeNode};
    if params.is_empty() {
        return Ok(expr);
    }
    let values = ParamValues::from(params.to_vec());
    let bound = expr.transform_up(|e| match e {
        PlanExpr::Placeholder(p) => {
            let (value, metadata) = values.get_placeholders_with_values(&p.id)?.into_inner();
            Ok(Transformed::yes(PlanExpr::Literal(value, metadata)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(bound.data)
}

fn has_subquery(expr: &PlanExpr) -> bool {
    use datafusion::common::tree_node::TreeNode;
    expr.exists(|e| {
        Ok(matches!(e, PlanExpr::ScalarSubquery(_) | PlanExpr::InSubquery(_) | PlanExpr::Exists(_)))
    })
    .unwrap_or(true)
}
