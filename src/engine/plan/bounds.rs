//! What a condition on the time on one side of a join says about the other side.
//!
//! `a.at > now() - INTERVAL '1 hour'` and `b.at >= a.at - INTERVAL '5 minutes'` together say that
//! `b.at > now() - INTERVAL '1 hour 5 minutes'`. The query does not need that condition, as it follows from the others; but
//! where it is pushed below the join, rows of `b` go when nothing can match them any more, and with them what the join
//! keeps of them. Every condition that is added holds for every row that there is without it, so no answer changes.
//!
//! Equalities need nothing of this: what is said of a join's key on one side, the optimiser says of the other.

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::logical_expr::expr::Between;
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, Filter, JoinType, LogicalPlan, Operator, utils,
};

use super::temporal::Reached;
use crate::error::Result;

const DAY_MICROS: i64 = 86_400_000_000;

/// `early <= late + micros`, of two columns.
struct Bound {
    early: Column,
    late: Column,
    micros: i64,
}

/// The plan with what its conditions on the time say of other columns.
pub(super) fn spread(plan: LogicalPlan) -> Result<LogicalPlan> {
    let spread = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::Filter(filter) = node else { return Ok(Transformed::no(node)) };
        let mut conditions: Vec<Expr> =
            utils::split_conjunction(&filter.predicate).into_iter().cloned().collect();
        let mut timed: Vec<Expr> = conditions.iter().filter(|e| not_reached(e).is_some()).cloned().collect();
        if timed.is_empty() {
            return Ok(Transformed::no(LogicalPlan::Filter(filter)));
        }
        gather(&filter.input, &mut conditions);
        let schema = filter.input.schema();
        let bounds: Vec<Bound> = conditions.iter().flat_map(|e| bounds_of(e, schema)).collect();
        let known = timed.len();
        for at in 0..known {
            for follows in following(&timed[at], &bounds) {
                if !timed.contains(&follows) {
                    timed.push(follows);
                }
            }
        }
        let input = below(Arc::unwrap_or_clone(filter.input), &timed)?;
        let added = timed.split_off(known);
        let changed = input.transformed || !added.is_empty();
        let predicate = added.into_iter().fold(filter.predicate, Expr::and);
        let filter = LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(input.data))?);
        Ok(if changed { Transformed::yes(filter) } else { Transformed::no(filter) })
    })?;
    Ok(spread.data)
}

/// Where the filter stands above an outer join: what follows for the side that may be missing holds for its rows that can
/// match a row that is shown, so it is said below the join.
fn below(input: LogicalPlan, timed: &[Expr]) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Join(mut join) = input else { return Ok(Transformed::no(input)) };
    let optional = match join.join_type {
        JoinType::Left => &mut join.right,
        JoinType::Right => &mut join.left,
        _ => return Ok(Transformed::no(LogicalPlan::Join(join))),
    };
    let mut conditions: Vec<Expr> = Vec::new();
    if let Some(filter) = &join.filter {
        conditions.extend(utils::split_conjunction(filter).into_iter().cloned());
    }
    conditions.extend(join.on.iter().map(|(l, r)| l.clone().eq(r.clone())));
    let bounds: Vec<Bound> = conditions.iter().flat_map(|e| bounds_of(e, &join.schema)).collect();
    let follows: Vec<Expr> = timed.iter().flat_map(|e| following(e, &bounds)).collect();
    let own = |e: &Expr| e.column_refs().iter().all(|c| optional.schema().has_column(c));
    match utils::conjunction(follows.into_iter().filter(own)) {
        None => Ok(Transformed::no(LogicalPlan::Join(join))),
        Some(predicate) => {
            *optional = Arc::new(LogicalPlan::Filter(Filter::try_new(predicate, Arc::clone(optional))?));
            Ok(Transformed::yes(LogicalPlan::Join(join)))
        }
    }
}

/// The conditions that hold for every row of a plan, as far as joins and filters tell them.
fn gather(plan: &LogicalPlan, conditions: &mut Vec<Expr>) {
    let mut add = |e: &Expr| conditions.extend(utils::split_conjunction(e).into_iter().cloned());
    match plan {
        LogicalPlan::Filter(filter) => {
            add(&filter.predicate);
            gather(&filter.input, conditions);
        }
        LogicalPlan::Join(join) if join.join_type == JoinType::Inner => {
            join.filter.iter().for_each(&mut add);
            conditions.extend(join.on.iter().map(|(l, r)| l.clone().eq(r.clone())));
            gather(&join.left, conditions);
            gather(&join.right, conditions);
        }
        _ => {}
    }
}

/// The moment up to which a condition is true, if it is `NOT now() >= moment` and a column tells the moment.
fn not_reached(e: &Expr) -> Option<(&Reached, &Column)> {
    let Expr::Not(inner) = e else { return None };
    match Reached::of(inner)? {
        (reached, Expr::Column(column)) => Some((reached, column)),
        _ => None,
    }
}

/// What a condition says of the columns that are at least as late as its own, but for a constant, over as many of the
/// bounds as there are.
fn following(timed: &Expr, bounds: &[Bound]) -> Vec<Expr> {
    let Some((reached, own)) = not_reached(timed) else { return Vec::new() };
    // By column the least constant: what it says with a greater one follows from that.
    let mut found: Vec<(&Column, i64)> = vec![(own, 0)];
    for _ in 0..bounds.len() {
        for bound in bounds {
            let Some((_, by)) = found.iter().find(|(column, _)| **column == bound.early) else { continue };
            let Some(by) = by.checked_add(bound.micros) else { continue };
            match found.iter_mut().find(|(column, _)| **column == bound.late) {
                Some((_, known)) => *known = by.min(*known),
                None => found.push((&bound.late, by)),
            }
        }
    }
    let others = found.into_iter().filter(|(column, _)| *column != own);
    others.map(|(column, by)| Expr::Not(Box::new(reached.moved(by, Expr::Column(column.clone()))))).collect()
}

/// What a condition says of two columns.
fn bounds_of(condition: &Expr, schema: &DFSchema) -> Vec<Bound> {
    let bound = |low: &Expr, high: &Expr| {
        let ((early, less), (late, more)) = (moved(low)?, moved(high)?);
        let time = |column: &Column| {
            let data_type = Expr::Column(column.clone()).get_type(schema).ok()?;
            matches!(data_type, DataType::Timestamp(TimeUnit::Microsecond, _)).then_some(data_type)
        };
        (time(&early)? == time(&late)?).then_some(Bound { early, late, micros: more.checked_sub(less)? })
    };
    let both: Vec<Option<Bound>> = match condition {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
            Operator::Lt | Operator::LtEq => vec![bound(left, right)],
            Operator::Gt | Operator::GtEq => vec![bound(right, left)],
            Operator::Eq => vec![bound(left, right), bound(right, left)],
            _ => vec![],
        },
        Expr::Between(Between { expr, negated: false, low, high }) => {
            vec![bound(low, expr), bound(expr, high)]
        }
        _ => vec![],
    };
    both.into_iter().flatten().collect()
}

/// A column plus so many microseconds.
fn moved(e: &Expr) -> Option<(Column, i64)> {
    match e {
        Expr::Column(column) => Some((column.clone(), 0)),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus, right }) => {
            match (moved(left), micros(right)) {
                (Some((column, by)), Some(more)) => Some((column, by.checked_add(more)?)),
                _ => moved(right).and_then(|(column, by)| Some((column, by.checked_add(micros(left)?)?))),
            }
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right }) => {
            let (column, by) = moved(left)?;
            Some((column, by.checked_sub(micros(right)?)?))
        }
        _ => None,
    }
}

/// A constant interval without months, in microseconds.
fn micros(e: &Expr) -> Option<i64> {
    let Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) = e else { return None };
    let days = i64::from(interval.days).checked_mul(DAY_MICROS)?;
    (interval.months == 0).then(|| days.checked_add(interval.nanoseconds.div_euclid(1000)))?
}
