//! `EMIT ON WINDOW CLOSE`: which of a query's keys tells when its group is final, and the plan that says so.
//!
//! A group is final when the watermark has reached the end of its window: of a key that is `window_start` or `window_end`
//! of TUMBLE, HOP or SESSION, or `date_trunc` or `date_bin`, over the column of a WATERMARK, or that column itself. What
//! stands above the GROUP BY must take each group by itself.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Schema, TimeUnit};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{
    Aggregate, Expr, ExprSchemable, JoinType, LogicalPlan, LogicalPlanBuilder, Projection,
};
use datafusion::physical_expr::create_physical_expr;

use crate::engine::CollectionId;
use crate::engine::plan::CollectionSource;
use crate::engine::plan::closing::{CLOSES, ClosesAfter, Closing, ClosingNode, Part};
use crate::engine::plan::temporal::tells_time;
use crate::error::{Error, Result, SqlState};

const SECOND: i64 = 1_000_000;
const DAY_MICROS: i64 = 86_400 * SECOND;

/// The plan that gives each window's rows once, when it is closed.
///
/// # Errors
/// 0A000 for a query of which no key tells when a group is final, or that does more with groups than to choose and
/// compute; 55000 without a WATERMARK.
pub(super) fn emit_on_close(plan: &LogicalPlan) -> Result<LogicalPlan> {
    match plan {
        LogicalPlan::Aggregate(aggregate) => closing(aggregate),
        LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) => over(plan),
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => over(plan),
        _ => Err(refused("another query than one that ends in a GROUP BY")),
    }
}

/// The node over the plan that gives its input's windows when they close.
fn over(plan: &LogicalPlan) -> Result<LogicalPlan> {
    let inputs = plan.inputs();
    let [input] = inputs[..] else { return Err(Error::internal("a node of one input has another number")) };
    let mut depends = None;
    plan.apply_expressions(|expr| {
        if tells_time(expr) {
            depends = Some("now() beside");
        }
        let subquery = expr.exists(|e| {
            Ok(matches!(
                e,
                Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_)
            ))
        })?;
        if subquery {
            depends = Some("a subquery beside");
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    match depends {
        Some(what) => Err(refused(&format!("{what} the aggregates"))
            .with_detail("What is given of a window must not change afterwards.")),
        None => Ok(plan.with_new_exprs(plan.expressions(), vec![emit_on_close(input)?])?),
    }
}

fn refused(what: &str) -> Error {
    Error::unsupported(format!("EMIT ON WINDOW CLOSE of {what}"))
        .with_hint("Make a materialized view of the windows, and another one over it.")
}

/// GROUP BY with what closes its groups.
fn closing(aggregate: &Aggregate) -> Result<LogicalPlan> {
    let input = &aggregate.input;
    let watermarks = watermarks(input)?;
    if watermarks.is_empty() {
        return Err(Error::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            "EMIT ON WINDOW CLOSE needs a relation with a WATERMARK",
        )
        .with_hint(
            "Declare it where the relation is created: WATERMARK FOR at AS at - INTERVAL '5 seconds'.",
        ));
    }
    if aggregate.group_expr.iter().any(|e| matches!(e, Expr::GroupingSet(_))) {
        return Err(refused("grouping sets"));
    }
    let told = aggregate.group_expr.iter().find_map(|key| Some((key, kind_of(key, input)?)));
    let Some((key, kind)) = told else {
        return Err(Error::unsupported(
            "EMIT ON WINDOW CLOSE without a window, or the column of a WATERMARK, in GROUP BY",
        )
        .with_hint(
            "GROUP BY window_start, window_end of TUMBLE, HOP or SESSION over the column of the WATERMARK.",
        ));
    };
    let key = match key {
        Expr::Alias(alias) => alias.expr.as_ref().clone(),
        key => key.clone(),
    };
    let (closes, length) = match kind {
        // A time that the watermark has reached may still come.
        Kind::Time => (ClosesAfter::call(key, 1), SECOND),
        Kind::Start(length) => (ClosesAfter::call(key, length), length),
        Kind::End(length) => (ClosesAfter::call(key, 0), length),
    };
    let closing = Closing { watermarks, length };
    let columns = |plan: &LogicalPlan| -> Vec<Expr> {
        plan.schema()
            .iter()
            .map(|(qualifier, field)| Expr::Column(Column::new(qualifier.cloned(), field.name())))
            .collect()
    };
    let mut with_closes = columns(input);
    with_closes.push(closes.alias(CLOSES));
    let told = LogicalPlan::Projection(Projection::try_new(with_closes, Arc::clone(input))?);
    let gate = ClosingNode::over(Part::Gate, closing.clone(), told);
    let mut keys = aggregate.group_expr.clone();
    keys.push(Expr::Column(Column::new_unqualified(CLOSES)));
    let groups = Aggregate::try_new(Arc::new(gate), keys, aggregate.aggr_expr.clone())?;
    let closed = ClosingNode::over(Part::Close, closing, LogicalPlan::Aggregate(groups));
    let own = columns(&LogicalPlan::Aggregate(aggregate.clone()));
    Ok(LogicalPlanBuilder::from(closed).project(own)?.build()?)
}

/// The relations with a WATERMARK that a plan reads.
fn watermarks(plan: &LogicalPlan) -> Result<Vec<CollectionId>> {
    let mut found = Vec::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(source) = scan.source.downcast_ref::<CollectionSource>()
            && source.watermark.is_some()
            && !found.contains(&source.id)
        {
            found.push(source.id);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// What a value tells of its row's event time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It is the event time.
    Time,
    /// It begins the row's window of so many microseconds.
    Start(i64),
    /// It ends that window.
    End(i64),
}

/// What an expression over the plan's columns tells.
fn kind_of(expr: &Expr, plan: &LogicalPlan) -> Option<Kind> {
    match expr {
        Expr::Alias(alias) => kind_of(&alias.expr, plan),
        Expr::Column(column) => kind_of_column(column, plan),
        Expr::Cast(Cast { expr: inner, field }) => {
            let is_time = |t: &DataType| matches!(t, DataType::Timestamp(TimeUnit::Microsecond, _));
            let from = inner.get_type(plan.schema()).ok()?;
            (is_time(&from) && is_time(field.data_type())).then(|| kind_of(inner, plan))?
        }
        Expr::ScalarFunction(call) => {
            let args = call.args.as_slice();
            let time = |at: usize| args.get(at).and_then(|e| kind_of(e, plan)) == Some(Kind::Time);
            let length = |at: usize| args.get(at).and_then(micros);
            match call.name() {
                "tumble_start" if time(0) => Some(Kind::Start(length(1)?)),
                "hop_starts" if time(0) => Some(Kind::Start(length(2)?)),
                "hop_ends" if time(0) => Some(Kind::End(length(2)?)),
                "window_end" => match kind_of(args.first()?, plan)? {
                    Kind::Start(length) => Some(Kind::End(length)),
                    _ => None,
                },
                "date_trunc" if time(1) => Some(Kind::Start(unit(args.first()?)?)),
                "date_bin" if time(1) => Some(Kind::Start(length(0)?)),
                _ => None,
            }
        }
        Expr::WindowFunction(call) => match (call.fun.name(), call.params.args.as_slice()) {
            ("session_end", [time, gap]) if kind_of(time, plan)? == Kind::Time => {
                Some(Kind::End(micros(gap)?))
            }
            _ => None,
        },
        _ => None,
    }
}

/// What a column of the plan tells.
fn kind_of_column(column: &Column, plan: &LogicalPlan) -> Option<Kind> {
    let at = plan.schema().maybe_index_of_column(column)?;
    let nth = |plan: &LogicalPlan, at: usize| {
        let (qualifier, field) = plan.schema().qualified_field(at);
        kind_of_column(&Column::new(qualifier.cloned(), field.name()), plan)
    };
    match plan {
        LogicalPlan::TableScan(scan) => {
            let source = scan.source.downcast_ref::<CollectionSource>()?;
            let position = source.schema.index_of(&column.name).ok()?;
            (source.watermark == Some(position)).then_some(Kind::Time)
        }
        LogicalPlan::Projection(p) => kind_of(&p.expr[at], &p.input),
        LogicalPlan::SubqueryAlias(a) => nth(&a.input, at),
        LogicalPlan::Filter(f) => nth(&f.input, at),
        LogicalPlan::Sort(s) if s.fetch.is_none() => nth(&s.input, at),
        LogicalPlan::Window(w) => match at.checked_sub(w.input.schema().fields().len()) {
            None => nth(&w.input, at),
            Some(function) => kind_of(w.window_expr.get(function)?, &w.input),
        },
        LogicalPlan::Unnest(u) => nth(&u.input, *u.dependency_indices.get(at)?),
        LogicalPlan::Join(join) => {
            let left = join.left.schema().fields().len();
            match join.join_type {
                JoinType::Inner | JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti if at < left => {
                    nth(&join.left, at)
                }
                JoinType::Inner | JoinType::Right if at >= left => nth(&join.right, at - left),
                _ => None,
            }
        }
        LogicalPlan::Union(union) => {
            let mut kinds = union.inputs.iter().map(|input| nth(input, at));
            let first = kinds.next()??;
            kinds.all(|kind| kind == Some(first)).then_some(first)
        }
        _ => None,
    }
}

/// A constant.
fn constant(expr: &Expr) -> Option<ScalarValue> {
    if let Expr::Literal(value, _) = expr {
        return Some(value.clone());
    }
    let free = expr.column_refs().is_empty();
    let (schema, context) = (DFSchema::empty(), PhysicalPlanningContext::default());
    let expr = create_physical_expr(expr, &schema, &ExecutionProps::new(), &context).ok().filter(|_| free)?;
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    let unit = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options).ok()?;
    let value = expr.evaluate(&unit).ok()?.into_array(1).ok()?;
    ScalarValue::try_from_array(&value, 0).ok()
}

/// A constant interval of one length, in microseconds.
fn micros(expr: &Expr) -> Option<i64> {
    let ScalarValue::IntervalMonthDayNano(Some(interval)) = constant(expr)? else { return None };
    let days = i64::from(interval.days).checked_mul(DAY_MICROS)?;
    (interval.months == 0).then(|| days.checked_add(interval.nanoseconds / 1000))?
}

/// The length of a unit of `date_trunc`, in microseconds, if it has one.
fn unit(expr: &Expr) -> Option<i64> {
    Some(match constant(expr)?.try_as_str()??.to_ascii_lowercase().as_str() {
        "second" => SECOND,
        "minute" => 60 * SECOND,
        "hour" => 3600 * SECOND,
        "day" => DAY_MICROS,
        "week" => 7 * DAY_MICROS,
        _ => return None,
    })
}
