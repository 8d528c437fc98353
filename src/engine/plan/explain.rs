//! A circuit as text: one operator a line above its inputs, with its keys, its conditions and what it keeps.
//!
//! State is `bounded` when no history makes it grow, and `grows with …` when it holds something for every row, key or
//! group that is there; nothing is kept of what has gone. A node with several readers is spelled out once. What a view
//! that is there already computes is shared with it and keeps nothing more.

use std::fmt::Write;

use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, NotExpr};
use datafusion::physical_expr_common::physical_expr::fmt_sql;

use super::lower::Lowered;
use datafusion::logical_expr::Expr as LogicalExpr;

use super::spec::{
    AggregateCall, AggregateKind, AggregateSpec, Expr, JoinKind, JoinSpec, MapSpec, NodeSpec, Path,
    PathsSpec, RecomputeSpec, TopKSpec, Touch, WindowSpec,
};
use crate::engine::CollectionId;

/// What the node keeps that a view is read from; `go`: whether all its rows go with time.
pub fn view_keeps(go: bool) -> &'static str {
    if go { "keeps its rows: bounded by time" } else { "keeps its rows: grows with the rows" }
}

/// Whether every row that an operator gives goes again as time passes, by whether its inputs' rows do.
pub fn rows_go(spec: &NodeSpec, inputs: &[bool]) -> bool {
    let all = || inputs.iter().all(|go| *go);
    match spec {
        NodeSpec::Collection(_) | NodeSpec::Constant(_) | NodeSpec::Close(_) | NodeSpec::Expiring(_) => false,
        NodeSpec::Temporal(temporal) => {
            all() || at_last(&temporal.condition, temporal.schema.fields().len()) == Some(false)
        }
        NodeSpec::Paths(_) => inputs.contains(&true),
        NodeSpec::Join(join) => match join.kind {
            JoinKind::Inner | JoinKind::LeftSemi | JoinKind::RightSemi => inputs.contains(&true),
            JoinKind::Left | JoinKind::LeftAnti | JoinKind::LeftMark => inputs.first() == Some(&true),
            JoinKind::Right | JoinKind::RightAnti => inputs.get(1) == Some(&true),
            JoinKind::Full => all(),
        },
        _ => all(),
    }
}

/// What a condition is when all moments are reached, which stand as columns behind the first ones; `None`: who knows.
fn at_last(e: &Expr, columns: usize) -> Option<bool> {
    if let Some(column) = e.downcast_ref::<Column>() {
        return (column.index() >= columns).then_some(true);
    }
    if let Some(not) = e.downcast_ref::<NotExpr>() {
        return at_last(not.arg(), columns).map(|value| !value);
    }
    let binary = e.downcast_ref::<BinaryExpr>()?;
    let operands = [at_last(binary.left(), columns), at_last(binary.right(), columns)];
    match binary.op() {
        Operator::And if operands.contains(&Some(false)) => Some(false),
        Operator::Or if operands.contains(&Some(true)) => Some(true),
        Operator::And | Operator::Or if operands[0] == operands[1] => operands[0],
        _ => None,
    }
}

/// The circuit as a tree under the view; `shared` says by node with which view it is shared, `name` what collections
/// are called.
pub fn explain(
    lowered: &Lowered,
    shared: &[Option<CollectionId>],
    name: impl Fn(CollectionId) -> String,
) -> String {
    let mut readers = vec![0; lowered.nodes.len()];
    for input in lowered.nodes.iter().flat_map(|n| &n.inputs) {
        readers[*input] += 1;
    }
    // Inputs come before those who read them.
    let mut go: Vec<bool> = Vec::with_capacity(lowered.nodes.len());
    for node in &lowered.nodes {
        let inputs: Vec<bool> = node.inputs.iter().map(|input| go[*input]).collect();
        go.push(rows_go(&node.spec, &inputs));
    }
    let mut text = format!("view [{}]", view_keeps(go[lowered.root]));
    let mut shown = vec![false; lowered.nodes.len()];
    // Nodes still to be written with how far they are indented, the next one last.
    let mut todo = vec![(lowered.root, 1)];
    while let Some((at, depth)) = todo.pop() {
        let node = &lowered.nodes[at];
        let common = readers[at] > 1 && !matches!(node.spec, NodeSpec::Collection(_));
        let label = if common { format!("#{at} ") } else { String::new() };
        let indent = "  ".repeat(depth);
        // Writing to a String cannot fail.
        if std::mem::replace(&mut shown[at], true) && common {
            let _ = write!(text, "\n{indent}{label}as above");
            continue;
        }
        let (line, keeps) = match &node.spec {
            NodeSpec::Collection(id) => (format!("collection {}", name(*id)), None),
            spec => {
                let inputs: Vec<bool> = node.inputs.iter().map(|input| go[*input]).collect();
                describe(spec, &node.schema, &inputs)
            }
        };
        let _ = write!(text, "\n{indent}{label}{line}");
        let keeps = match shared.get(at).copied().flatten() {
            Some(view) => Some(format!("shared with {}", name(view))),
            None => keeps,
        };
        if let Some(keeps) = keeps {
            let _ = write!(text, " [{keeps}]");
        }
        todo.extend(node.inputs.iter().rev().map(|input| (*input, depth + 1)));
    }
    text
}

/// What an operator with output `schema` does, and what it keeps, if anything; `go` says by input whether all rows go
/// with time.
pub fn describe(spec: &NodeSpec, schema: &SchemaRef, go: &[bool]) -> (String, Option<String>) {
    let (line, keeps) = described(spec, schema);
    let keeps = match (spec, keeps) {
        (NodeSpec::Temporal(_) | NodeSpec::Close(_) | NodeSpec::Expiring(_), keeps) => keeps,
        (_, Some(keeps)) if go.iter().all(|go| *go) && !go.is_empty() => {
            Some(format!("{}: bounded by time", keeps.split(':').next().unwrap_or_default()))
        }
        (NodeSpec::Join(_), Some(_)) if go.contains(&true) => {
            let (bounded, other) = if go[0] { ("left", "right") } else { ("right", "left") };
            Some(format!(
                "keeps both sides: the {bounded} one bounded by time, the {other} one grows with the rows"
            ))
        }
        (_, keeps) => keeps,
    };
    (line, keeps)
}

fn described(spec: &NodeSpec, schema: &SchemaRef) -> (String, Option<String>) {
    match spec {
        NodeSpec::Collection(_) => ("collection".to_string(), None),
        NodeSpec::Constant(rows) => {
            (format!("constant: {} rows", rows.iter().map(|b| b.num_rows()).sum::<usize>()), None)
        }
        NodeSpec::Map(map) => (describe_map(map), None),
        NodeSpec::Union => ("union all".to_string(), None),
        NodeSpec::Join(join) => describe_join(join),
        NodeSpec::Arrange(_) => {
            ("rows for joins".to_string(), Some("keeps its input: grows with the rows".to_string()))
        }
        NodeSpec::Paths(paths) => (describe_paths(paths), None),
        NodeSpec::Aggregate(aggregate) => describe_aggregate(aggregate),
        NodeSpec::Distinct => {
            let columns: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
            let keeps = "keeps counts: grows with distinct rows".to_string();
            (format!("distinct on {}", columns.join(", ")), Some(keeps))
        }
        NodeSpec::TopK(top) => describe_top(top),
        NodeSpec::Window(window) => describe_window(window),
        NodeSpec::Temporal(temporal) => {
            let keeps = "keeps rows until their last moment: bounded by time".to_string();
            (format!("rows while {}", sql(&temporal.condition)), Some(keeps))
        }
        NodeSpec::Gate(_) => ("rows of windows that are not closed".to_string(), None),
        NodeSpec::Close(_) => {
            let keeps = "keeps the rows of open windows: bounded by the watermark".to_string();
            ("rows of each window when it closes".to_string(), Some(keeps))
        }
        NodeSpec::Expiring(expiring) => {
            let (line, keeps) = described(&expiring.inner, schema);
            let keeps = keeps.map(|keeps| {
                let what = keeps.split(':').next().unwrap_or_default();
                format!("{what}, of open windows only: bounded by the watermark")
            });
            (line, keeps)
        }
        NodeSpec::Recompute(part) => describe_recompute(part),
    }
}

fn describe_map(map: &MapSpec) -> String {
    let mut text = match &map.projection {
        Some(exprs) => {
            let columns = exprs.iter().zip(map.schema.fields()).map(|(e, field)| {
                let e = sql(e);
                if &e == field.name() { e } else { format!("{e} as {}", field.name()) }
            });
            format!("map to {}", columns.collect::<Vec<_>>().join(", "))
        }
        None => "filter".to_string(),
    };
    if let Some(predicate) = &map.predicate {
        text += &format!(" where {}", sql(predicate));
    }
    text
}

fn describe_join(join: &JoinSpec) -> (String, Option<String>) {
    let kind = match join.kind {
        JoinKind::Inner => "join",
        JoinKind::Left => "left join",
        JoinKind::Right => "right join",
        JoinKind::Full => "full join",
        JoinKind::LeftSemi => "left semi join",
        JoinKind::LeftAnti => "left anti join",
        JoinKind::RightSemi => "right semi join",
        JoinKind::RightAnti => "right anti join",
        JoinKind::LeftMark => "mark join",
    };
    let equal = if join.null_equals_null { "is not distinct from" } else { "=" };
    let on = join.left_keys.iter().zip(&join.right_keys);
    let on: Vec<String> = on.map(|(l, r)| format!("{} {equal} {}", sql(l), sql(r))).collect();
    let on = if on.is_empty() { " of every pair".to_string() } else { format!(" on {}", on.join(" and ")) };
    let residual = join.residual.as_ref().map_or(String::new(), |r| format!(" where {}", sql(r)));
    (format!("{kind}{on}{residual}"), Some("keeps both sides: grows with the rows".to_string()))
}

/// The join in one line: of each input, by which columns of which others it is looked up, in order.
fn describe_paths(paths: &PathsSpec) -> String {
    let name = |(input, column): (usize, usize)| paths.inputs[input].field(column).name().as_str();
    let path = |(input, path): (usize, &Path)| {
        let steps = path.steps.iter().map(|step| {
            let (next, columns) = &paths.lookups[step.lookup];
            let on = columns
                .iter()
                .zip(&step.from)
                .map(|(c, from)| format!("{} = {}", name((*next, *c)), name(*from)));
            let condition = step.condition.as_ref().map_or(String::new(), |c| format!(" where {}", sql(c)));
            format!("{} on {}{condition}", next + 1, on.collect::<Vec<_>>().join(" and "))
        });
        let condition = path.condition.as_ref().map_or(String::new(), |c| format!(" where {}", sql(c)));
        format!("{}{condition} finds {}", input + 1, steps.collect::<Vec<_>>().join(", "))
    };
    let all: Vec<String> = paths.paths.iter().enumerate().map(path).collect();
    format!("join of {} by paths: {}", paths.inputs.len(), all.join("; "))
}

fn describe_aggregate(aggregate: &AggregateSpec) -> (String, Option<String>) {
    let calls: Vec<String> = aggregate.calls.iter().map(describe_call).collect();
    let calls = if calls.is_empty() { "groups only".to_string() } else { calls.join(", ") };
    let distinct = aggregate.calls.iter().any(|c| c.distinct);
    let values = aggregate.calls.iter().any(|c| matches!(c.kind, AggregateKind::Min | AggregateKind::Max));
    let mut keeps = if aggregate.keys.is_empty() {
        "keeps one row: bounded".to_string()
    } else {
        "keeps a row for each group: grows with the groups".to_string()
    };
    if distinct || values {
        keeps = format!("{keeps}, and their distinct values: grows with the values");
    }
    let by = if aggregate.keys.is_empty() { String::new() } else { format!(" by {}", list(&aggregate.keys)) };
    (format!("aggregate {calls}{by}"), Some(keeps))
}

fn describe_call(call: &AggregateCall) -> String {
    let arg = call.arg.as_ref().map_or("*".to_string(), sql);
    let distinct = if call.distinct { "distinct " } else { "" };
    let filter = call.filter.as_ref().map_or(String::new(), |f| format!(" where {}", sql(f)));
    let kind = match call.kind {
        AggregateKind::BoolAnd => "bool_and".to_string(),
        AggregateKind::BoolOr => "bool_or".to_string(),
        kind => format!("{kind:?}").to_lowercase(),
    };
    format!("{kind}({distinct}{arg}){filter}")
}

fn describe_top(top: &TopKSpec) -> (String, Option<String>) {
    let order = top.order.iter().map(|(e, o)| {
        let direction = if o.descending { " desc" } else { "" };
        // NULLs come first where the order descends and last where it ascends, unless it is said.
        let nulls = match (o.nulls_first, o.descending) {
            (true, false) => " nulls first",
            (false, true) => " nulls last",
            _ => "",
        };
        format!("{}{direction}{nulls}", sql(e))
    });
    let order = order.collect::<Vec<_>>().join(", ");
    let count = top.limit.map_or("all rows".to_string(), |l| format!("first {l} rows"));
    let count = if top.numbered { format!("{count}, numbered,") } else { count };
    let offset = if top.offset > 0 { format!(" after {}", top.offset) } else { String::new() };
    let by =
        if top.partition.is_empty() { String::new() } else { format!(" of each {}", list(&top.partition)) };
    (format!("{count}{offset}{by} by {order}"), Some("keeps its input: grows with the rows".to_string()))
}

fn describe_window(window: &WindowSpec) -> (String, Option<String>) {
    let names = window.functions.iter().map(|f| match f {
        LogicalExpr::WindowFunction(f) => f.fun.name().to_string(),
        LogicalExpr::Alias(a) => a.name.clone(),
        other => other.to_string(),
    });
    let names = names.collect::<Vec<_>>().join(", ");
    let by = if window.partition.is_empty() {
        String::new()
    } else {
        format!(" of each {}", list(&window.partition))
    };
    let reach = match window.running.iter().all(Option::is_none) {
        true => format!("{} rows before and {} after what changes", window.after, window.before),
        false => "from what changes on".to_string(),
    };
    (format!("windows {names}{by}, {reach}"), Some("keeps its input: grows with the rows".to_string()))
}

fn describe_recompute(part: &RecomputeSpec) -> (String, Option<String>) {
    let everything = "keeps input and output: grows with the rows".to_string();
    let (by, keeps) = match &part.touch {
        Touch::Rows => ("for changed rows".to_string(), None),
        Touch::Keys { inputs, .. } => {
            let keys: Vec<String> = inputs.iter().map(|k| list(k)).collect();
            (format!("for changed {}", keys.join(" = ")), Some(everything))
        }
        Touch::Whole => ("as a whole".to_string(), Some(everything)),
    };
    (format!("recompute {by}: {}", part.reason), keeps)
}

fn list(exprs: &[Expr]) -> String {
    exprs.iter().map(sql).collect::<Vec<_>>().join(", ")
}

fn sql(e: &Expr) -> String {
    fmt_sql(e.as_ref()).to_string()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::functions_aggregate::expr_fn::{array_agg, sum};
    use datafusion::logical_expr::{JoinType, LogicalPlanBuilder, col, lit};

    use super::*;
    use crate::engine::plan::CollectionSource;
    use crate::engine::plan::lower::lower;

    fn table(id: u64) -> LogicalPlanBuilder {
        let fields = ["a", "b"].map(|n| Field::new(n, DataType::Int64, true)).to_vec();
        let source = CollectionSource {
            id: CollectionId(id),
            schema: Arc::new(Schema::new(fields)),
            key: vec![],
            watermark: None,
        };
        LogicalPlanBuilder::scan(format!("t{id}"), Arc::new(source), None).unwrap()
    }

    #[test]
    fn each_operator_says_what_it_does_and_keeps() {
        let right = table(2).aggregate([col("a")], [array_agg(col("b"))]).unwrap().build().unwrap();
        let plan = table(1)
            .filter(col("t1.b").gt(lit(2i64)))
            .unwrap()
            .join(right, JoinType::Inner, (vec!["t1.a"], vec!["t2.a"]), None)
            .unwrap()
            .aggregate([col("t1.a")], [sum(col("t1.b"))])
            .unwrap()
            .build()
            .unwrap();
        let text = explain(&lower(&plan, CollectionId(9)).unwrap(), &[], |id| format!("t{}", id.0));
        let expected = "\
view [keeps its rows: grows with the rows]
  aggregate sum(b) by a [keeps a row for each group: grows with the groups]
    left semi join on a = a [keeps both sides: grows with the rows]
      filter where b > 2 AND a IS NOT NULL
        collection t1
      aggregate groups only by a [keeps a row for each group: grows with the groups]
        map to a where a IS NOT NULL
          collection t2";
        assert_eq!(text, expected);
        let plan = table(2).aggregate([col("a")], [array_agg(col("b"))]).unwrap().build().unwrap();
        let text = explain(&lower(&plan, CollectionId(9)).unwrap(), &[], |id| format!("t{}", id.0));
        let expected = "\
view [keeps its rows: grows with the rows]
  recompute for changed a: array_agg has no operator [keeps input and output: grows with the rows]
    collection t2";
        assert_eq!(text, expected);
    }
}
