//! Conditions on `now()`: `at > now() - INTERVAL '1 hour'` is true of a row until a moment that the row tells.
//!
//! What is done to `now()` before it is compared never goes back as time goes on, so a comparison changes once, at a
//! moment that is found by doing the opposite to the other side: [`mark`] replaces the comparison by [`Reached`] of
//! that moment. The circuit turns it into an agenda of rows ([`crate::engine::ops::temporal`]). Reads and the oracle do
//! without: [`at`] puts the time of the read or of the tick in the place of `now()`, and the query runs as it is written.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{DataType, Date32Type, IntervalMonthDayNano, TimeUnit, TimestampMicrosecondType};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, JoinType, ScalarValue};
use datafusion::logical_expr::expr::{Between, Cast, ScalarFunction};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, Filter, LogicalPlan, Operator, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit, utils,
};

use crate::error::{Error, Result, SqlState};
use crate::types::Moment;

type Planned<T> = datafusion::error::Result<T>;

const DAY_MICROS: i64 = 86_400_000_000;

/// The functions that tell the time of the statement or of the tick.
const CLOCKS: [&str; 6] = [
    "now",
    "current_timestamp",
    "transaction_timestamp",
    "statement_timestamp",
    "localtimestamp",
    "current_date",
];

/// Whether an expression is a call of one of them.
fn clock(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::ScalarFunction(call) if call.args.is_empty() && CLOCKS.contains(&call.name()) => {
            Some(call.name())
        }
        _ => None,
    }
}

/// Whether an expression asks for the time.
pub fn tells_time(expr: &Expr) -> bool {
    expr.exists(|e| Ok(clock(e).is_some())).unwrap_or(true)
}

/// The plan with this time, in microseconds since 1970, in the place of `now()` and its kin.
pub fn at(plan: LogicalPlan, now: i64) -> Result<LogicalPlan> {
    let replaced = plan.transform_up_with_subqueries(|node| {
        if matches!(node, LogicalPlan::TableScan(_)) {
            return Ok(Transformed::no(node));
        }
        let mut changed = false;
        node.apply_expressions(|e| {
            changed |= tells_time(e);
            Ok(TreeNodeRecursion::Continue)
        })?;
        if !changed {
            return Ok(Transformed::no(node));
        }
        let names = datafusion::logical_expr::expr_rewriter::NamePreserver::new(&node);
        node.map_expressions(|expr| {
            let name = names.save(&expr);
            let expr = expr.transform_up(|e| {
                let Some(function) = clock(&e) else { return Ok(Transformed::no(e)) };
                let value = match (function, e.get_type(&DFSchema::empty())?) {
                    ("current_date", _) => {
                        // Days of any time that 64 bits of microseconds hold fit.
                        ScalarValue::Date32(Some(now.div_euclid(DAY_MICROS) as i32))
                    }
                    (_, DataType::Timestamp(_, zone)) => ScalarValue::TimestampMicrosecond(Some(now), zone),
                    _ => ScalarValue::TimestampMicrosecond(Some(now), None),
                };
                Ok(Transformed::yes(Expr::Literal(value, None)))
            })?;
            Ok(expr.update_data(|e| name.restore(e)))
        })
    })?;
    Ok(replaced.data)
}

/// The plan of a view with [`Reached`] in the place of every comparison with the time.
///
/// # Errors
/// 0A000 for `now()` where the view would have to change all the time, or at moments that cannot be told.
pub fn mark(plan: LogicalPlan) -> Result<LogicalPlan> {
    let marked = plan.transform_up_with_subqueries(|node| {
        let mut found = None;
        node.apply_expressions(|e| {
            e.apply(|e| {
                found = found.take().or(clock(e).map(str::to_string));
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        let Some(function) = found else { return Ok(Transformed::no(node)) };
        match node {
            LogicalPlan::Filter(mut filter) => {
                filter.predicate = compared(filter.predicate, filter.input.schema())?;
                Ok(Transformed::yes(LogicalPlan::Filter(filter)))
            }
            LogicalPlan::Join(mut join) if join.join_type == JoinType::Inner => {
                if join.on.iter().any(|(l, r)| tells_time(l) || tells_time(r)) {
                    return Err(refused(&function).into());
                }
                let schema = merge_schema(&[join.left.as_ref(), join.right.as_ref()]);
                join.filter = join.filter.map(|filter| compared(filter, &schema)).transpose()?;
                Ok(Transformed::yes(LogicalPlan::Join(join)))
            }
            _ => Err(refused(&function).into()),
        }
    })?;
    Ok(marked.data)
}

/// The plan with what stands before a condition on the time decided before it, in a filter of its own: it may guard
/// what tells the moment.
pub(super) fn apart(plan: LogicalPlan) -> Planned<LogicalPlan> {
    let apart = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::Filter(filter) = node else { return Ok(Transformed::no(node)) };
        if !is_timed(&filter.predicate) {
            return Ok(Transformed::no(LogicalPlan::Filter(filter)));
        }
        let mut before = utils::split_conjunction_owned(filter.predicate);
        let timed = before.iter().position(is_timed).unwrap_or(0);
        let timed = utils::conjunction(before.split_off(timed)).unwrap_or_else(|| lit(true));
        let input = match utils::conjunction(before) {
            Some(before) => Arc::new(LogicalPlan::Filter(Filter::try_new(before, filter.input)?)),
            None => filter.input,
        };
        Ok(Transformed::yes(LogicalPlan::Filter(Filter::try_new(timed, input)?)))
    })?;
    Ok(apart.data)
}

fn refused(function: &str) -> Error {
    Error::new(
        SqlState::FEATURE_NOT_SUPPORTED,
        format!("a materialized view cannot call \"{function}\" in this place"),
    )
    .with_detail("Its result changes with time, without a change of the view's inputs.")
    .with_hint("It may be compared in WHERE with what a row tells: at > now() - INTERVAL '1 hour'.")
}

/// A condition without `now()`.
fn compared(condition: Expr, schema: &DFSchema) -> Planned<Expr> {
    let mut left = None;
    let condition = condition.transform_down(|e| {
        if !tells_time(&e) {
            return Ok(Transformed::new(e, false, TreeNodeRecursion::Jump));
        }
        match e {
            Expr::Between(Between { expr, negated, low, high }) => {
                let from = BinaryExpr::new(expr.clone(), Operator::GtEq, low);
                let to = BinaryExpr::new(expr, Operator::LtEq, high);
                let both = Expr::BinaryExpr(from).and(Expr::BinaryExpr(to));
                Ok(Transformed::yes(if negated { Expr::Not(Box::new(both)) } else { both }))
            }
            Expr::BinaryExpr(comparison) if is_order(comparison.op) => {
                let moment = comparison_with_time(&comparison, schema)?;
                Ok(Transformed::new(moment, true, TreeNodeRecursion::Jump))
            }
            e => {
                left = left.take().or(clock(&e).map(str::to_string));
                Ok(Transformed::no(e))
            }
        }
    })?;
    match left {
        Some(function) => Err(refused(&function).into()),
        None => Ok(condition.data),
    }
}

fn is_order(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq)
}

/// `f(now()) op x` by the moment, or moments, at which it changes.
fn comparison_with_time(comparison: &BinaryExpr, schema: &DFSchema) -> Planned<Expr> {
    let BinaryExpr { left, op, right } = comparison;
    let (time, op, value) = match (tells_time(left), tells_time(right)) {
        (true, false) => (left.as_ref(), *op, right.as_ref()),
        (false, true) => (right.as_ref(), op.swap().unwrap_or(*op), left.as_ref()),
        _ => return Err(shape("It is compared with itself.").into()),
    };
    let (time, op, value, steps) = match age(time, op, value, schema)? {
        Some(age) => age,
        None => {
            let mut steps = Vec::new();
            undo(time, &mut steps)?;
            (time.clone(), op, value.clone(), steps)
        }
    };
    let data_type = value.get_type(schema)?;
    let domain = time.get_type(schema)?;
    let fits = matches!(
        (&data_type, &domain),
        (DataType::Timestamp(TimeUnit::Microsecond, _), DataType::Timestamp(..))
            | (DataType::Date32, DataType::Date32)
            | (DataType::Null, _)
    );
    if !fits {
        return Err(shape(&format!("It is compared with a value of type {data_type}.")).into());
    }
    let reached = |after: bool| {
        let function = Arc::new(ScalarUDF::new_from_impl(Reached::new(steps.clone(), after, true)));
        Expr::ScalarFunction(ScalarFunction::new_udf(function, vec![value.clone()]))
    };
    let not = |e: Expr| Expr::Not(Box::new(e));
    Ok(match op {
        Operator::GtEq => reached(false),
        Operator::Gt => reached(true),
        Operator::Lt => not(reached(false)),
        Operator::LtEq => not(reached(true)),
        Operator::Eq => reached(false).and(not(reached(true))),
        _ => not(reached(false)).or(reached(true)),
    })
}

fn shape(detail: &str) -> Error {
    refused("now").with_detail(detail)
}

/// A function of the time, how it is compared with what, and the steps back from that.
type Compared = (Expr, Operator, Expr, Vec<Step>);

/// `now() - x op length` as `now() - length op x`.
fn age(time: &Expr, op: Operator, length: &Expr, schema: &DFSchema) -> Planned<Option<Compared>> {
    let (Expr::ScalarFunction(age), length) = (time, length) else { return Ok(None) };
    if age.name() != "interval_length" {
        return Ok(None);
    }
    let [Expr::ScalarFunction(difference)] = age.args.as_slice() else { return Ok(None) };
    let (true, [end, start]) = (difference.name() == "difference", difference.args.as_slice()) else {
        return Ok(None);
    };
    let nanoseconds = match length {
        Expr::Literal(ScalarValue::Decimal128(Some(n), ..), _) => Some(*n),
        Expr::ScalarFunction(of) if of.name() == "interval_length" => match of.args.as_slice() {
            [Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(i)), _)] => {
                let days = i128::from(i.months) * 30 + i128::from(i.days);
                Some(days * i128::from(DAY_MICROS) * 1000 + i128::from(i.nanoseconds))
            }
            _ => None,
        },
        _ => None,
    };
    let Some(micros) = nanoseconds.and_then(|n| i64::try_from(n / 1000).ok()) else {
        return Err(shape("The age is compared with something else than a constant interval.").into());
    };
    let (clock, value, op, shift) = match (tells_time(end), tells_time(start)) {
        (true, false) => (end, start, op, micros.saturating_neg()),
        (false, true) => (start, end, op.swap().unwrap_or(op), micros),
        _ => return Err(shape("It is compared with itself.").into()),
    };
    let mut steps = vec![Step::Shift(shift)];
    undo(clock, &mut steps)?;
    if !matches!(value.get_type(schema)?, DataType::Timestamp(TimeUnit::Microsecond, _)) {
        return Ok(None);
    }
    Ok(Some((clock.clone(), op, value.clone(), steps)))
}

/// The steps back from a value of `expr` to the moment when it is reached.
fn undo(expr: &Expr, steps: &mut Vec<Step>) -> Result<()> {
    match expr {
        e if clock(e).is_some() => {
            if clock(e) == Some("current_date") {
                steps.push(Step::Midnight);
            }
            Ok(())
        }
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Plus | Operator::Minus), right }) => {
            let (inner, moved) = match (left.as_ref(), op, right.as_ref()) {
                (inner, Operator::Plus, Expr::Literal(i, _)) => (inner, moved(i, 1)?),
                (inner, Operator::Minus, Expr::Literal(i, _)) => (inner, moved(i, -1)?),
                (Expr::Literal(i, _), Operator::Plus, inner) => (inner, moved(i, 1)?),
                _ => return Err(shape("What is added to it or taken away must be a constant interval.")),
            };
            steps.push(Step::Shift(moved));
            undo(inner, steps)
        }
        Expr::Cast(Cast { expr: inner, field }) => {
            cast(inner, field.data_type(), steps)?;
            undo(inner, steps)
        }
        Expr::ScalarFunction(call) if call.name() == "date_trunc" => match call.args.as_slice() {
            [Expr::Literal(unit, _), inner] => {
                let unit = unit.try_as_str().flatten().and_then(Unit::parse);
                let unit = unit.ok_or_else(|| shape("This unit of date_trunc cannot be told ahead."))?;
                steps.push(Step::Trunc(unit));
                undo(inner, steps)
            }
            _ => Err(shape("date_trunc must be given a constant unit.")),
        },
        _ => Err(shape(
            "Of what can be done to it, +, -, date_trunc and casts between dates and timestamps are known.",
        )),
    }
}

/// A constant interval in microseconds.
fn moved(interval: &ScalarValue, sign: i64) -> Result<i64> {
    let ScalarValue::IntervalMonthDayNano(Some(interval)) = interval else {
        return Err(shape("What is added to it or taken away must be an interval."));
    };
    let IntervalMonthDayNano { months, days, nanoseconds } = *interval;
    if months != 0 {
        return Err(shape("Months differ in length, so that an earlier now() minus a month can be later.")
            .with_hint("Add the interval to the other side: at + INTERVAL '1 month' > now()."));
    }
    let micros = i64::from(days).saturating_mul(DAY_MICROS).saturating_add(nanoseconds / 1000);
    Ok(micros.saturating_mul(sign))
}

/// What a cast does to a time: all but those between dates and timestamps change nothing.
fn cast(inner: &Expr, to: &DataType, steps: &mut Vec<Step>) -> Result<()> {
    let from = inner.get_type(&DFSchema::empty())?;
    match (from, to) {
        (DataType::Timestamp(..), DataType::Timestamp(TimeUnit::Microsecond, _))
        | (DataType::Date32, DataType::Date32) => Ok(()),
        (DataType::Timestamp(..), DataType::Date32) => {
            steps.push(Step::Midnight);
            Ok(())
        }
        (DataType::Date32, DataType::Timestamp(TimeUnit::Microsecond, _)) => {
            steps.push(Step::Day);
            Ok(())
        }
        (_, to) => Err(shape(&format!("It is cast to {to}."))),
    }
}

/// One step back: from a value of a function that never falls to the least argument with at least that value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    /// Of adding so many microseconds.
    Shift(i64),
    /// Of `date_trunc`.
    Trunc(Unit),
    /// Of taking the date of a timestamp.
    Midnight,
    /// Of making a timestamp of a date.
    Day,
}

impl Step {
    fn undo(self, value: i64) -> i64 {
        match self {
            Step::Shift(by) => value.saturating_sub(by),
            Step::Trunc(unit) => unit.ceil(value),
            Step::Midnight => value.saturating_mul(DAY_MICROS),
            Step::Day => value.div_euclid(DAY_MICROS) + i64::from(value.rem_euclid(DAY_MICROS) != 0),
        }
    }
}

/// A unit of `date_trunc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Unit {
    /// As long as so many microseconds, counted from a Monday.
    Micros(i64),
    /// Months.
    Months(i64),
}

impl Unit {
    fn parse(name: &str) -> Option<Unit> {
        Some(match name.to_ascii_lowercase().as_str() {
            "microsecond" | "microseconds" => Unit::Micros(1),
            "millisecond" | "milliseconds" => Unit::Micros(1000),
            "second" => Unit::Micros(1_000_000),
            "minute" => Unit::Micros(60_000_000),
            "hour" => Unit::Micros(3_600_000_000),
            "day" => Unit::Micros(DAY_MICROS),
            "week" => Unit::Micros(7 * DAY_MICROS),
            "month" => Unit::Months(1),
            "quarter" => Unit::Months(3),
            "year" => Unit::Months(12),
            _ => return None,
        })
    }

    /// The first beginning of a unit that is not before `value`.
    fn ceil(self, value: i64) -> i64 {
        // 1970-01-05 was a Monday.
        const MONDAY: i128 = 4 * DAY_MICROS as i128;
        let saturated = |n: i128| i64::try_from(n).unwrap_or(if n > 0 { i64::MAX } else { i64::MIN });
        match self {
            Unit::Micros(length) => {
                let (value, length) = (i128::from(value) - MONDAY, i128::from(length));
                saturated(-(-value).div_euclid(length) * length + MONDAY)
            }
            Unit::Months(months) => {
                let at = Moment::of(value);
                let month = (at.year * 12 + i64::from(at.month) - 1).div_euclid(months) * months;
                let begin = |month: i64| i128::from(Moment::month_begins(month)) * i128::from(DAY_MICROS);
                let begins = begin(month);
                saturated(if begins < i128::from(value) { begin(month + months) } else { begins })
            }
        }
    }
}

/// Whether the time has reached a moment that the argument tells; or, for the circuit, the moment itself in
/// microseconds. Stands in views' plans only, and is never called as a condition.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Reached {
    steps: Vec<Step>,
    /// Not when the value is reached but when it has passed.
    after: bool,
    /// A condition and not the moment.
    condition: bool,
    signature: Signature,
}

impl Reached {
    fn new(steps: Vec<Step>, after: bool, condition: bool) -> Self {
        Reached { steps, after, condition, signature: Signature::any(1, Volatility::Immutable) }
    }

    /// The condition in a call, if it is one, and the value that tells the moment.
    pub(super) fn of(expr: &Expr) -> Option<(&Reached, &Expr)> {
        let Expr::ScalarFunction(ScalarFunction { func, args }) = expr else { return None };
        let reached = func.inner().downcast_ref::<Reached>()?;
        match args.as_slice() {
            [value] if reached.condition => Some((reached, value)),
            _ => None,
        }
    }

    /// The moment of a condition, as an expression in microseconds.
    pub(super) fn moment_of(&self, value: &Expr) -> Expr {
        let moment = Reached::new(self.steps.clone(), self.after, false);
        Expr::ScalarFunction(ScalarFunction::new_udf(
            Arc::new(ScalarUDF::new_from_impl(moment)),
            vec![value.clone()],
        ))
    }

    /// The condition on a value that is so many microseconds earlier.
    pub(super) fn moved(&self, micros: i64, value: Expr) -> Expr {
        let earlier = std::iter::once(Step::Shift(micros.saturating_neg()));
        let moved = Reached::new(earlier.chain(self.steps.iter().copied()).collect(), self.after, true);
        Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(ScalarUDF::new_from_impl(moved)), vec![value]))
    }

    /// The condition on a value as text, for EXPLAIN.
    pub(super) fn shown(&self, value: &Expr) -> String {
        let mut text = format!("now() {} {value}", if self.after { ">" } else { ">=" });
        for step in &self.steps {
            match step {
                Step::Shift(by) => {
                    let seconds = by.unsigned_abs() as f64 / 1e6;
                    text += &format!(" {} {seconds} s", if *by > 0 { '-' } else { '+' });
                }
                Step::Trunc(Unit::Micros(micros)) => {
                    text += &format!(", in steps of {} s", *micros as f64 / 1e6);
                }
                Step::Trunc(Unit::Months(months)) => text += &format!(", in steps of {months} months"),
                Step::Midnight | Step::Day => text += ", in steps of days",
            }
        }
        text
    }

    fn moment(&self, value: i64) -> i64 {
        if value == i64::MAX || value == i64::MIN {
            return value;
        }
        let value = if self.after { value.saturating_add(1) } else { value };
        self.steps.iter().fold(value, |value, step| step.undo(value))
    }

    fn moments(&self, values: &ArrayRef) -> Result<Int64Array> {
        Ok(match values.data_type() {
            DataType::Date32 => values
                .as_primitive::<Date32Type>()
                .iter()
                .map(|day| {
                    day.map(|day| match day {
                        i32::MAX => i64::MAX,
                        i32::MIN => i64::MIN,
                        day => self.moment(day.into()),
                    })
                })
                .collect(),
            DataType::Timestamp(TimeUnit::Microsecond, _) => values
                .as_primitive::<TimestampMicrosecondType>()
                .iter()
                .map(|at| at.map(|at| self.moment(at)))
                .collect(),
            DataType::Null => Int64Array::new_null(values.len()),
            other => return Err(Error::internal(format!("a moment told by a value of type {other}"))),
        })
    }
}

impl ScalarUDFImpl for Reached {
    fn name(&self) -> &str {
        if self.condition { "now_reaches" } else { "moment" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Planned<DataType> {
        Ok(if self.condition { DataType::Boolean } else { DataType::Int64 })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Planned<ColumnarValue> {
        let values = ColumnarValue::values_to_arrays(&args.args)?;
        let [values] = values.as_slice() else {
            return Err(Error::internal("a moment is told by one value").into());
        };
        let moments = self.moments(values)?;
        if !self.condition {
            return Ok(ColumnarValue::Array(Arc::new(moments)));
        }
        // The optimiser asks what becomes of NULL.
        if moments.null_count() == moments.len() {
            return Ok(ColumnarValue::Scalar(ScalarValue::Boolean(None)));
        }
        Err(Error::internal("the time is not known where a plan is made").into())
    }
}

/// Whether a plan node's own expression holds a condition on the time.
pub(super) fn is_timed(expr: &Expr) -> bool {
    expr.exists(|e| Ok(Reached::of(e).is_some())).unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(all: &[Step], after: bool, value: i64) -> i64 {
        Reached::new(all.to_vec(), after, true).moment(value)
    }

    /// Against the definition: the moment is the least time at which the function of the time has the value.
    #[test]
    fn a_moment_is_the_first_time_that_is_not_before() {
        let hour = 3_600_000_000;
        let date = |t: i64| t.div_euclid(DAY_MICROS);
        let trunc = |unit: i64| move |t: i64| t.div_euclid(unit) * unit;
        type Function = Box<dyn Fn(i64) -> i64>;
        let cases: Vec<(Vec<Step>, Function, i64)> = vec![
            (vec![Step::Shift(-hour)], Box::new(move |t| t - hour), 1),
            (vec![Step::Trunc(Unit::Micros(hour))], Box::new(trunc(hour)), 1),
            (vec![Step::Midnight], Box::new(date), DAY_MICROS),
            (vec![Step::Day, Step::Midnight], Box::new(move |t| date(t) * DAY_MICROS), 1),
            (
                vec![Step::Shift(-hour), Step::Trunc(Unit::Micros(DAY_MICROS))],
                Box::new(move |t| trunc(DAY_MICROS)(t) - hour),
                1,
            ),
        ];
        for (all, function, unit) in cases {
            for micros in
                [-3 * DAY_MICROS - 1, -hour, -1, 0, 1, hour, DAY_MICROS - 1, DAY_MICROS, 40 * hour + 7]
            {
                let value = micros.div_euclid(unit);
                for after in [false, true] {
                    let moment = steps(&all, after, value);
                    let reached = |t: i64| if after { function(t) > value } else { function(t) >= value };
                    assert!(reached(moment) && !reached(moment - 1), "{all:?} {value} {after}: {moment}");
                }
            }
        }
    }

    #[test]
    fn weeks_begin_on_mondays_and_months_where_they_do() {
        let day = |d: i64| d * DAY_MICROS;
        // 2024-01-01 was a Monday, day 19723.
        let week = Unit::parse("week").unwrap();
        assert_eq!(week.ceil(day(19_723)), day(19_723));
        assert_eq!(week.ceil(day(19_723) + 1), day(19_730));
        let month = Unit::parse("MONTH").unwrap();
        assert_eq!(month.ceil(day(19_723)), day(19_723));
        assert_eq!(month.ceil(day(19_723) + 1), day(19_754));
        assert_eq!(Unit::parse("quarter").unwrap().ceil(day(19_724)), day(19_814));
        assert_eq!(Unit::parse("year").unwrap().ceil(day(19_724)), day(20_089));
        assert_eq!(month.ceil(-1), 0);
        assert_eq!(Unit::parse("fortnight"), None);
    }

    #[test]
    fn infinities_stay() {
        let all = [Step::Shift(-5), Step::Trunc(Unit::Months(1)), Step::Midnight];
        for value in [i64::MIN, i64::MAX] {
            assert_eq!(steps(&all, true, value), value);
        }
    }
}
