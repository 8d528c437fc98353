//! The oracle: a view must hold what its query gives in batch over the same tick.
//!
//! The plan that runs is the view's own, unoptimised by us, with only its meaning spelled out ([`plan::rewrite`]);
//! DataFusion's batch engine optimises and runs it, so lowering, operators, hydration and ticks are all checked.
//!
//! Rows are compared as multisets, bit by bit, with the zeros equal and the NaNs equal. Only where the plan
//! aggregates floats, the order of additions shows in the last bits; there two rows are equal when all else is and
//! each float is within a relative distance of 1e-9, or within 1e-12: what should be 0 may be what additions leave.
//!
//! A view that gives windows when they close gives in a tick what its query says in that tick of the windows that close in
//! it. So its rows as a whole are what its query says of closed windows, as long as no row has come too late for it;
//! from then on what it gave in the last tick is compared, and the proof is by induction over the ticks.
//!
//! [`plan::rewrite`]: crate::engine::plan::rewrite

use std::collections::HashMap;
use std::fmt;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float32Type, Float64Type, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::physical_plan::collect;

use crate::engine::batch::block_on;
use crate::engine::delta::{batch, nullable, with_schema};
use crate::engine::expr::cast_to;
use crate::engine::plan::closing::windows_closed;
use crate::engine::plan::optimize::analyse;
use crate::engine::plan::{rewrite, temporal};
use crate::engine::serve::bind::{Overlay, scans};
use crate::engine::serve::{physical_plan, session_state};
use crate::engine::{CollectionId, Delta, Engine, EngineSnapshot, Tick};
use crate::error::{Error, Result};

/// How far floats may be apart, as a part of the greater.
const TOLERANCE: f64 = 1e-9;
/// How far they may be apart however small they are.
const LEFT_OVER: f64 = 1e-12;

/// How a view differs from its query.
#[derive(Debug)]
pub struct Difference {
    /// The tick of the comparison.
    pub tick: Tick,
    /// Rows that the view has too many of (positive weight) or lacks (negative).
    pub rows: Delta,
    /// What the view says instead of rows.
    pub view_error: Option<Error>,
    /// What the query says instead of rows.
    pub query_error: Option<Error>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "at tick {}:", self.tick)?;
        if let Some(e) = &self.view_error {
            writeln!(f, "  the view fails: {e}")?;
        }
        if let Some(e) = &self.query_error {
            writeln!(f, "  the query fails: {e}")?;
        }
        for i in 0..self.rows.num_rows().min(20) {
            writeln!(f, "  {:+} {}", self.rows.weight(i), text(&self.rows.rows, i, |_| true))?;
        }
        if self.rows.num_rows() > 20 {
            writeln!(f, "  and {} rows more", self.rows.num_rows() - 20)?;
        }
        Ok(())
    }
}

/// Compares a view with its query at the engine's current tick. Blocks while the query runs.
///
/// # Errors
/// 42P01 when there is no such view, and whatever keeps the query from being run at all.
pub fn check_view(engine: &Engine, id: CollectionId) -> Result<Option<Difference>> {
    check_at(&engine.snapshot(), id)
}

/// Compares every view with its query at one tick; the views that differ.
pub fn check_all(engine: &Engine) -> Result<Vec<(CollectionId, Difference)>> {
    let snapshot = engine.snapshot();
    let mut different = Vec::new();
    for id in snapshot.views() {
        if let Some(difference) = check_at(&snapshot, id)? {
            different.push((id, difference));
        }
    }
    Ok(different)
}

fn check_at(snapshot: &EngineSnapshot, id: CollectionId) -> Result<Option<Difference>> {
    let unknown = || Error::new(crate::SqlState::UNDEFINED_TABLE, format!("view {} does not exist", id.0));
    let view = snapshot.collection(id).ok_or_else(unknown)?;
    let plan = view.plan().ok_or_else(unknown)?;
    let (plan, rows) = match view.closed() {
        None => (plan.clone(), view.deltas()),
        // What came too late is nowhere any more: of what was given before the last tick only that was checked then.
        Some(closed) if closed.late_rows > 0 => {
            let (before, given) = match closed.tick == snapshot.tick {
                true => (closed.before, closed.given.clone()),
                false => (closed.after, Vec::new()),
            };
            (windows_closed(plan.clone(), before, closed.after)?, Ok(given))
        }
        Some(closed) => (windows_closed(plan.clone(), i64::MIN, closed.after)?, view.deltas()),
    };
    let plan = &plan;
    let expected =
        answer(plan, |plan| scans(temporal::at(plan, snapshot.now)?, snapshot, &Overlay::default()));
    let actual = match view.errors().first() {
        Some(failed) => Err(failed.error.clone()),
        None => rows,
    };
    let difference = match (actual, expected) {
        (Ok(actual), Ok(expected)) => {
            let rows = differing(plan, view.schema(), actual, expected)?;
            Difference { tick: snapshot.tick, rows, view_error: None, query_error: None }
        }
        // Both fail; which row is met first is no matter.
        (Err(_), Err(_)) => return Ok(None),
        (actual, expected) => Difference {
            tick: snapshot.tick,
            rows: Delta::empty(view.schema()),
            view_error: actual.err(),
            query_error: expected.err(),
        },
    };
    let same =
        difference.rows.is_empty() && difference.view_error.is_none() && difference.query_error.is_none();
    Ok((!same).then_some(difference))
}

/// What a view's plan gives in batch; `bind` gives its scans their rows.
pub fn answer(
    plan: &LogicalPlan,
    bind: impl FnOnce(LogicalPlan) -> Result<LogicalPlan>,
) -> Result<Vec<RecordBatch>> {
    let plan = rewrite::determine(rewrite::normalise(analyse(plan.clone())?)?)?;
    let plan = bind(plan)?;
    let state = session_state();
    block_on(async {
        let physical = physical_plan(&plan, &state).await?;
        Ok(collect(physical, state.task_ctx()).await?)
    })?
}

/// The rows by which `actual` differs from `expected`, both answers to `plan`.
pub fn differing(
    plan: &LogicalPlan,
    schema: &SchemaRef,
    actual: Vec<Delta>,
    expected: Vec<RecordBatch>,
) -> Result<Delta> {
    let schema = nullable(schema);
    let mut all = Vec::with_capacity(actual.len() + expected.len());
    for delta in actual {
        all.push(Delta { rows: with_schema(&delta.rows, &schema)?, weights: delta.weights });
    }
    for rows in expected {
        let columns =
            rows.columns().iter().zip(schema.fields()).map(|(c, f)| cast_to(c.clone(), f.data_type()));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        all.push(Delta::delete(batch(&schema, columns, rows.num_rows())?));
    }
    let left = Delta::concat(&schema, &all)?.consolidate()?;
    if left.is_empty() || !aggregates_floats(plan)? { Ok(left) } else { unlike(left) }
}

/// Whether the plan anywhere sums floats up, or does the like.
fn aggregates_floats(plan: &LogicalPlan) -> Result<bool> {
    use datafusion::logical_expr::ExprSchemable;
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        let schema = node.inputs().first().map(|input| std::sync::Arc::clone(input.schema()));
        node.apply_expressions(|e| {
            e.apply(|e| {
                if let (Expr::AggregateFunction(_) | Expr::WindowFunction(_), Some(schema)) = (e, &schema) {
                    found |= e.get_type(schema).map_or(true, |t| t.is_floating());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(found)
}

/// What is left when rows that differ in the last bits of floats are set off against each other.
fn unlike(left: Delta) -> Result<Delta> {
    let float = |t: &DataType| matches!(t, DataType::Float32 | DataType::Float64);
    let columns = left.rows.columns();
    let floats_of = |i: usize| -> Vec<Option<f64>> {
        let floats = columns.iter().filter(|c| float(c.data_type()));
        floats.map(|c| value(c.as_ref(), i)).collect()
    };
    let mut weights = left.weights_vec();
    let mut groups: HashMap<String, (Vec<usize>, Vec<usize>)> = HashMap::new();
    for (i, weight) in weights.iter().enumerate() {
        let group = groups.entry(text(&left.rows, i, |t| !float(t))).or_default();
        if *weight > 0 { group.0.push(i) } else { group.1.push(i) }
    }
    for (more, fewer) in groups.into_values() {
        let fewer: Vec<_> = fewer.into_iter().map(|i| (i, floats_of(i))).collect();
        for i in more {
            let values = floats_of(i);
            for (j, others) in &fewer {
                if values.iter().zip(others).all(|(a, b)| close(*a, *b)) {
                    let set_off = weights[i].min(-weights[*j]);
                    weights[i] -= set_off;
                    weights[*j] += set_off;
                }
                if weights[i] == 0 {
                    break;
                }
            }
        }
    }
    Delta::weighted(left.rows, weights)
}

fn value(column: &dyn Array, i: usize) -> Option<f64> {
    if column.is_null(i) {
        return None;
    }
    match column.data_type() {
        DataType::Float32 => column.as_primitive_opt::<Float32Type>().map(|c| f64::from(c.value(i))),
        _ => column.as_primitive_opt::<Float64Type>().map(|c| c.value(i)),
    }
}

fn close(a: Option<f64>, b: Option<f64>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => {
            let apart = (TOLERANCE * a.abs().max(b.abs())).max(LEFT_OVER);
            a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= apart
        }
        (a, b) => a.is_none() && b.is_none(),
    }
}

/// A row as text, of the columns whose type is wanted.
fn text(rows: &RecordBatch, i: usize, wanted: impl Fn(&DataType) -> bool) -> String {
    let options = FormatOptions::default().with_null("NULL");
    let columns = rows.columns().iter().filter(|c| wanted(c.data_type()));
    let cells = columns.map(|c| match ArrayFormatter::try_new(c.as_ref(), &options) {
        Ok(cell) => cell.value(i).to_string(),
        Err(e) => e.to_string(),
    });
    cells.collect::<Vec<_>>().join(" | ")
}
