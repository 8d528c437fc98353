//! Lowers the two nodes of `EMIT ON WINDOW CLOSE`, and lets the aggregate between them forget windows that are closed.

use datafusion::logical_expr::LogicalPlan;

use super::closing::{CLOSES, ClosingNode, Part};
use super::lower::{LoweredNode, Lowering};
use super::spec::{ClosingSpec, ExpiringSpec, NodeSpec, Touch};
use crate::error::{Error, Result};

/// Lowers one of the nodes and all below it.
pub(super) fn closing(lowering: &mut Lowering, node: &ClosingNode) -> Result<usize> {
    let input = lowering.node(node.input())?;
    let spec = spec(lowering, node, node.input(), input)?;
    let schema = lowering.schema(input).clone();
    Ok(match node.part {
        Part::Gate => lowering.add(NodeSpec::Gate(spec), vec![input], schema),
        Part::Close => {
            expire(lowering, node, input)?;
            lowering.add(NodeSpec::Close(spec), vec![input], schema)
        }
    })
}

/// What a node over `plan`, lowered as `input`, is told of windows.
fn spec(lowering: &Lowering, node: &ClosingNode, plan: &LogicalPlan, input: usize) -> Result<ClosingSpec> {
    let closes = plan.schema().index_of_column_by_name(None, CLOSES);
    Ok(ClosingSpec {
        view: lowering.view,
        watermarks: node.closing.watermarks.clone(),
        closes: closes.ok_or_else(|| Error::internal("rows that do not tell when their window closes"))?,
        schema: lowering.schema(input).clone(),
    })
}

/// Puts the aggregate below into copies, if each of its groups is of one window and it has no other input.
fn expire(lowering: &mut Lowering, node: &ClosingNode, lowered: usize) -> Result<()> {
    let (mut plan, mut at) = (node.input(), lowered);
    // The optimiser may have put a choice of columns between them.
    while let (LogicalPlan::Projection(p), NodeSpec::Map(_)) = (plan, &lowering.spec(at).spec) {
        (plan, at) = (&p.input, lowering.spec(at).inputs[0]);
    }
    let LogicalPlan::Aggregate(aggregate) = plan else { return Ok(()) };
    let LoweredNode { spec: inner, inputs, .. } = lowering.spec(at).clone();
    let by_window = match &inner {
        NodeSpec::Aggregate(_) => true,
        NodeSpec::Recompute(part) => matches!(part.touch, Touch::Keys { .. }),
        _ => false,
    };
    let &[input] = inputs.as_slice() else { return Ok(()) };
    if by_window {
        let closing = spec(lowering, node, &aggregate.input, input)?;
        let length = node.closing.length;
        lowering.replace(at, NodeSpec::Expiring(ExpiringSpec { inner: Box::new(inner), closing, length }));
    }
    Ok(())
}
