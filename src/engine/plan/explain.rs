//! A circuit as text: one operator a line, after its inputs, with its keys and with what it keeps.

use std::fmt::{Display, Write};

use super::lower::Lowered;
use super::spec::{AggregateCall, Expr, JoinSpec, NodeSpec, Touch};
use crate::engine::CollectionId;

/// The circuit, one node a line; `name` says what collections are called.
pub fn explain(lowered: &Lowered, name: impl Fn(CollectionId) -> String) -> String {
    let mut text = String::new();
    for (i, node) in lowered.nodes.iter().enumerate() {
        let inputs: Vec<String> = node.inputs.iter().map(|n| format!("#{n}")).collect();
        let inputs = if inputs.is_empty() { String::new() } else { format!(" ({})", inputs.join(", ")) };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "#{i} {}{inputs}", describe(&node.spec, &name));
    }
    let _ = write!(text, "#{} view (#{}) [keeps: rows]", lowered.nodes.len(), lowered.root);
    text
}

fn describe(spec: &NodeSpec, name: &impl Fn(CollectionId) -> String) -> String {
    match spec {
        NodeSpec::Collection(id) => format!("collection {}", name(*id)),
        NodeSpec::Constant(rows) => {
            format!("constant {} rows", rows.iter().map(|b| b.num_rows()).sum::<usize>())
        }
        NodeSpec::Map(map) => {
            let mut text = "map".to_string();
            if let Some(predicate) = &map.predicate {
                text += &format!(" where {predicate}");
            }
            if let Some(projection) = &map.projection {
                text += &format!(" to {}", list(projection));
            }
            text
        }
        NodeSpec::Union => "union".to_string(),
        NodeSpec::Join(join) => describe_join(join),
        NodeSpec::Aggregate(aggregate) => {
            let calls: Vec<String> = aggregate.calls.iter().map(describe_call).collect();
            format!("aggregate by {}: {} [keeps: one row a group]", list(&aggregate.keys), calls.join(", "))
        }
        NodeSpec::Distinct => "distinct [keeps: counts of rows]".to_string(),
        NodeSpec::TopK(top) => {
            let order: Vec<String> = top.order.iter().map(|(e, o)| format!("{e} {o}")).collect();
            let limit = top.limit.map_or(String::new(), |l| format!(" limit {l}"));
            let offset = if top.offset > 0 { format!(" offset {}", top.offset) } else { String::new() };
            format!("top by {} order {}{limit}{offset} [keeps: rows]", list(&top.partition), order.join(", "))
        }
        NodeSpec::Recompute(part) => {
            let by = match &part.touch {
                Touch::Rows => "changed rows".to_string(),
                Touch::Keys { inputs, .. } => {
                    let keys: Vec<String> = inputs.iter().map(|k| list(k)).collect();
                    format!("{} [keeps: inputs, output]", keys.join(" = "))
                }
                Touch::Whole => "everything [keeps: inputs, output]".to_string(),
            };
            format!("recompute by {by} ({})", part.reason)
        }
    }
}

fn describe_join(join: &JoinSpec) -> String {
    let on: Vec<String> =
        join.left_keys.iter().zip(&join.right_keys).map(|(l, r)| format!("{l} = {r}")).collect();
    let on = if on.is_empty() { "every pair".to_string() } else { on.join(" and ") };
    let residual = join.residual.as_ref().map_or(String::new(), |r| format!(" where {r}"));
    format!("join {:?} on {on}{residual} [keeps: rows of both sides]", join.kind)
}

fn describe_call(call: &AggregateCall) -> String {
    let arg = call.arg.as_ref().map_or("*".to_string(), |a| a.to_string());
    let distinct = if call.distinct { "distinct " } else { "" };
    let filter = call.filter.as_ref().map_or(String::new(), |f| format!(" where {f}"));
    format!("{:?}({distinct}{arg}){filter}", call.kind).to_lowercase()
}

fn list(exprs: &[Expr]) -> String {
    let all: Vec<String> = exprs.iter().map(|e| (e as &dyn Display).to_string()).collect();
    format!("[{}]", all.join(", "))
}
