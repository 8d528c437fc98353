//! Cuts the part of a plan that has no operator out of it: its inputs become ports, the rest runs in batch.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr as LogicalExpr, LogicalPlan, LogicalPlanBuilder, TableSource, col};

use super::lower::{Lowering, schema_of};
use super::spec::{Expr, NodeSpec, RecomputeSpec, Touch};
use super::{CollectionSource, PortSource, temporal};
use crate::engine::batch::Fragment;
use crate::error::{Error, Result};

/// The ports of a fragment being cut.
struct Ports<'a> {
    lowering: &'a mut Lowering,
    /// The lowered node behind each port.
    nodes: Vec<usize>,
    schemas: Vec<SchemaRef>,
}

impl Lowering {
    /// Recomputes the node as a whole.
    pub(super) fn fragment(&mut self, plan: &LogicalPlan, reason: &str) -> Result<usize> {
        self.cut(plan, None, Touch::Whole, reason)
    }

    /// Recomputes only for the changed rows; only for a node that treats each row of its one input by itself.
    pub(super) fn linear_fragment(&mut self, plan: &LogicalPlan, reason: &str) -> Result<usize> {
        self.cut(plan, None, Touch::Rows, reason)
    }

    /// Recomputes by key: `input` over the node's one input is `output` over its own columns. No key: as a whole.
    pub(super) fn keyed_fragment(
        &mut self,
        plan: &LogicalPlan,
        input: Vec<Expr>,
        output: Vec<Expr>,
        reason: &str,
    ) -> Result<usize> {
        self.cut(plan, None, keyed(input, output), reason)
    }

    /// The same with the node's inputs already lowered.
    pub(super) fn keyed_fragment_over(
        &mut self,
        plan: &LogicalPlan,
        inputs: Vec<usize>,
        input: Vec<Expr>,
        output: Vec<Expr>,
        reason: &str,
    ) -> Result<usize> {
        self.cut(plan, Some(inputs), keyed(input, output), reason)
    }

    fn cut(
        &mut self,
        plan: &LogicalPlan,
        lowered: Option<Vec<usize>>,
        touch: Touch,
        reason: &str,
    ) -> Result<usize> {
        let mut ports = Ports { lowering: self, nodes: Vec::new(), schemas: Vec::new() };
        let fragment = match lowered {
            Some(nodes) => {
                let inputs = plan.inputs().into_iter().zip(nodes);
                let inputs: Vec<_> =
                    inputs.map(|(input, node)| ports.port(input, node)).collect::<Result<_>>()?;
                plan.with_new_exprs(plan.expressions(), inputs)?
            }
            None => ports.over(plan)?,
        };
        let Ports { nodes, schemas, .. } = ports;
        let mut timed = false;
        fragment.apply_with_subqueries(|node| {
            node.apply_expressions(|e| {
                timed |= temporal::is_timed(e);
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        if timed {
            return Err(Error::unsupported(format!("a condition on now() among {reason}")));
        }
        Fragment::new(&fragment, &schemas).map_err(|e| {
            if e.sqlstate == crate::SqlState::FEATURE_NOT_SUPPORTED {
                Error::unsupported(format!("{reason} in a view")).with_detail(e.to_string())
            } else {
                e
            }
        })?;
        let schema = schema_of(plan);
        let spec = RecomputeSpec {
            plan: fragment,
            inputs: schemas,
            touch,
            schema: Arc::clone(&schema),
            reason: reason.to_string(),
        };
        Ok(self.add(NodeSpec::Recompute(spec), nodes, schema))
    }
}

fn keyed(input: Vec<Expr>, output: Vec<Expr>) -> Touch {
    if input.is_empty() { Touch::Whole } else { Touch::Keys { inputs: vec![input], output } }
}

impl Ports<'_> {
    /// The node with ports for inputs, and for the plans of the subqueries in its expressions.
    fn over(&mut self, plan: &LogicalPlan) -> Result<LogicalPlan> {
        let plan = plan.clone().map_children(|child| Ok(Transformed::yes(self.input(child)?)))?.data;
        let plan = plan.map_subqueries(|subquery| Ok(Transformed::yes(self.subquery(subquery)?)))?.data;
        Ok(plan.recompute_schema()?)
    }

    /// An input: a port, unless it reads the rows of a recursion in progress, which only the fragment has.
    fn input(&mut self, plan: LogicalPlan) -> Result<LogicalPlan> {
        if reads_foreign(&plan)? {
            return self.over(&plan);
        }
        let node = self.lowering.node(&plan)?;
        self.port(&plan, node)
    }

    /// A subquery keeps its shape where it refers to the rows around it; then only its scans become ports.
    fn subquery(&mut self, plan: LogicalPlan) -> Result<LogicalPlan> {
        let LogicalPlan::Subquery(mut subquery) = plan else { return self.input(plan) };
        subquery.subquery = Arc::new(if subquery.outer_ref_columns.is_empty() {
            self.input(Arc::unwrap_or_clone(subquery.subquery))?
        } else {
            let scans = Arc::unwrap_or_clone(subquery.subquery).transform_down_with_subqueries(|node| {
                let leaf = matches!(&node, LogicalPlan::TableScan(s) if s.source.is::<CollectionSource>());
                Ok(if leaf { Transformed::yes(self.input(node)?) } else { Transformed::no(node) })
            });
            scans?.data
        });
        Ok(LogicalPlan::Subquery(subquery))
    }

    /// A scan of a new port with the plan's columns by the plan's names.
    fn port(&mut self, plan: &LogicalPlan, node: usize) -> Result<LogicalPlan> {
        let port = self.nodes.len();
        // Positions for names: unlike the plan's own they are unique without a qualifier.
        let fields = plan.schema().fields().iter().enumerate();
        let fields: Vec<_> =
            fields.map(|(i, f)| f.as_ref().clone().with_name(format!("c{i}")).with_nullable(true)).collect();
        let schema = Arc::new(Schema::new(fields));
        self.nodes.push(node);
        self.schemas.push(Arc::clone(&schema));
        let source: Arc<dyn TableSource> = Arc::new(PortSource { port, schema });
        let names = plan.schema().iter().enumerate();
        let names: Vec<LogicalExpr> = names
            .map(|(i, (qualifier, field))| {
                col(format!("c{i}")).alias_qualified(qualifier.cloned(), field.name())
            })
            .collect();
        Ok(LogicalPlanBuilder::scan(format!("port{port}"), source, None)?.project(names)?.build()?)
    }
}

/// Whether the plan scans something that is no collection: the work table of a recursion around it. That of a
/// recursion which is as a whole in the plan is its own.
fn reads_foreign(plan: &LogicalPlan) -> Result<bool> {
    let (mut recursions, mut scanned) = (Vec::new(), Vec::new());
    plan.apply_with_subqueries(|node| {
        match node {
            LogicalPlan::RecursiveQuery(recursion) => recursions.push(recursion.name.clone()),
            LogicalPlan::TableScan(s) if !s.source.is::<CollectionSource>() => {
                scanned.push(s.table_name.table().to_string());
            }
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(scanned.iter().any(|name| !recursions.contains(name)))
}
