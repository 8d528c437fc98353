//! Operators that PostgreSQL defines otherwise than DataFusion's planner, decided by the types that were written.

use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result};
use datafusion::functions::string::starts_with;
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::expr::{
    AggregateFunction, Cast, ScalarFunction, WindowFunction, WindowFunctionParams,
};
use datafusion::logical_expr::planner::{
    ExprPlanner, PlannerResult, RawAggregateExpr, RawBinaryExpr, RawWindowExpr,
};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator, WindowFunctionDefinition};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use super::{arithmetic, cast, regexp, strings, temporal};
use crate::error::{Error, SqlState};
use crate::types::{SqlType, is_string};

/// Plans arithmetic and comparison.
#[derive(Debug)]
pub struct Arithmetic;

impl ExprPlanner for Arithmetic {
    fn plan_binary_op(
        &self,
        mut expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        use BinaryOperator as B;
        let computes = matches!(expr.op, B::Plus | B::Minus | B::Multiply | B::Divide | B::Modulo);
        let compares = matches!(expr.op, B::Eq | B::NotEq | B::Lt | B::LtEq | B::Gt | B::GtEq);
        if let Some((insensitive, negated)) = pattern_match(&expr.op) {
            let found = regexp::matches(expr.left, expr.right, insensitive);
            return Ok(PlannerResult::Planned(if negated { !found } else { found }));
        }
        if expr.op == B::PGStartsWith {
            let call = ScalarFunction::new_udf(starts_with(), vec![expr.left, expr.right]);
            return Ok(PlannerResult::Planned(Expr::ScalarFunction(call)));
        }
        if !computes && !compares {
            return Ok(PlannerResult::Original(expr));
        }
        type_literal(&expr.op, &mut expr.left, &expr.right, schema)?;
        type_literal(&expr.op, &mut expr.right, &expr.left, schema)?;
        if compares {
            check_comparable(&expr, schema)?;
            share_moments(&mut expr, schema)?;
        }
        widen_floats(&mut expr, schema)?;
        if !computes {
            return Ok(PlannerResult::Original(expr));
        }
        let (left, right) = (expr.left.get_type(schema)?, expr.right.get_type(schema)?);
        if expr.op == B::Modulo && (left.is_floating() || right.is_floating()) {
            return Err(Error::new(
                SqlState::UNDEFINED_FUNCTION,
                format!("operator does not exist: {} % {}", named(&left), named(&right)),
            )
            .into());
        }
        let interval = |t: &DataType| matches!(t, DataType::Interval(_));
        let moment = |t: &DataType| matches!(t, DataType::Date32 | DataType::Timestamp(..));
        Ok(match expr.op {
            // A date and a time of day make a timestamp.
            B::Plus if left == DataType::Date32 && is_time(&right) => {
                expr.left = expr.left.cast_to(&SqlType::Timestamp.arrow(), schema)?;
                expr.right = Expr::Cast(Cast::new(Box::new(expr.right), SqlType::Interval.arrow()));
                PlannerResult::Original(expr)
            }
            B::Plus if is_time(&left) && right == DataType::Date32 => {
                let time = Expr::Cast(Cast::new(Box::new(expr.left), SqlType::Interval.arrow()));
                let date = expr.right.cast_to(&SqlType::Timestamp.arrow(), schema)?;
                PlannerResult::Original(RawBinaryExpr { op: B::Plus, left: date, right: time })
            }
            // A date is a timestamp as soon as a span of time is added to it.
            B::Plus | B::Minus if left == DataType::Date32 && interval(&right) => {
                expr.left = expr.left.cast_to(&SqlType::Timestamp.arrow(), schema)?;
                PlannerResult::Original(expr)
            }
            B::Plus if interval(&left) && moment(&right) => {
                let moment = match right {
                    DataType::Date32 => expr.right.cast_to(&SqlType::Timestamp.arrow(), schema)?,
                    _ => expr.right,
                };
                PlannerResult::Original(RawBinaryExpr { op: B::Plus, left: moment, right: expr.left })
            }
            B::Multiply if interval(&left) && right.is_numeric() => {
                PlannerResult::Planned(temporal::multiply(expr.left, expr.right))
            }
            B::Multiply if interval(&right) && left.is_numeric() => {
                PlannerResult::Planned(temporal::multiply(expr.right, expr.left))
            }
            B::Divide if interval(&left) && right.is_numeric() => {
                PlannerResult::Planned(temporal::divide(expr.left, expr.right))
            }
            B::Divide if arithmetic::division(&left, &right) => {
                PlannerResult::Planned(arithmetic::divide(expr.left, expr.right))
            }
            // The days between two dates are an integer.
            B::Minus if left == DataType::Date32 && right == DataType::Date32 => {
                let days = BinaryExpr::new(Box::new(expr.left), Operator::Minus, Box::new(expr.right));
                PlannerResult::Planned(Expr::Cast(Cast::new(
                    Box::new(Expr::BinaryExpr(days)),
                    DataType::Int32,
                )))
            }
            B::Minus if moment(&left) && moment(&right) || is_time(&left) && is_time(&right) => {
                PlannerResult::Planned(temporal::difference(expr.left, expr.right))
            }
            _ => PlannerResult::Original(expr),
        })
    }

    /// `avg(x)` is `sum(x) / count(x)`, with the scale and the rounding of a division.
    fn plan_aggregate(&self, expr: RawAggregateExpr) -> Result<PlannerResult<RawAggregateExpr>> {
        if expr.func.name() != "avg" || expr.args.len() != 1 {
            return Ok(PlannerResult::Original(expr));
        }
        let call = |func| {
            Expr::AggregateFunction(AggregateFunction::new_udf(
                func,
                expr.args.clone(),
                expr.distinct,
                expr.filter.clone(),
                vec![],
                expr.null_treatment,
            ))
        };
        Ok(PlannerResult::Planned(arithmetic::average(call(sum_udaf()), call(count_udaf()))))
    }

    fn plan_window(&self, expr: RawWindowExpr) -> Result<PlannerResult<RawWindowExpr>> {
        if expr.func_def.name() != "avg" || expr.args.len() != 1 {
            return Ok(PlannerResult::Original(expr));
        }
        let call = |func| {
            Expr::from(WindowFunction {
                fun: WindowFunctionDefinition::AggregateUDF(func),
                params: WindowFunctionParams {
                    args: expr.args.clone(),
                    partition_by: expr.partition_by.clone(),
                    order_by: expr.order_by.clone(),
                    window_frame: expr.window_frame.clone(),
                    filter: expr.filter.clone(),
                    null_treatment: expr.null_treatment,
                    distinct: expr.distinct,
                },
            })
        };
        Ok(PlannerResult::Planned(arithmetic::average(call(sum_udaf()), call(count_udaf()))))
    }

    fn plan_substring(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(PlannerResult::Planned(strings::substring_of(args)))
    }

    fn plan_extract(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(PlannerResult::Planned(temporal::extract(args)))
    }
}

/// Whether an operator is one of the regular expressions' four: without regard to case, and negated.
fn pattern_match(op: &BinaryOperator) -> Option<(bool, bool)> {
    match op {
        BinaryOperator::PGRegexMatch => Some((false, false)),
        BinaryOperator::PGRegexIMatch => Some((true, false)),
        BinaryOperator::PGRegexNotMatch => Some((false, true)),
        BinaryOperator::PGRegexNotIMatch => Some((true, true)),
        _ => None,
    }
}

/// A float beside another number: both are `double precision`.
fn widen_floats(expr: &mut RawBinaryExpr, schema: &DFSchema) -> Result<()> {
    let (left, right) = (expr.left.get_type(schema)?, expr.right.get_type(schema)?);
    let mixed = left != right && left.is_numeric() && right.is_numeric();
    if mixed && (left.is_floating() || right.is_floating()) {
        for side in [&mut expr.left, &mut expr.right] {
            *side = std::mem::take(side).cast_to(&DataType::Float64, schema)?;
        }
    }
    Ok(())
}

/// A date beside a timestamp is one, of microseconds, and so is a timestamp beside one in a zone.
fn share_moments(expr: &mut RawBinaryExpr, schema: &DFSchema) -> Result<()> {
    let (left, right) = (expr.left.get_type(schema)?, expr.right.get_type(schema)?);
    let moment = |t: &DataType| matches!(t, DataType::Date32 | DataType::Timestamp(..));
    if left != right && moment(&left) && moment(&right) {
        let zoned = |t: &DataType| matches!(t, DataType::Timestamp(_, Some(_)));
        let to = if zoned(&left) || zoned(&right) { SqlType::Timestamptz } else { SqlType::Timestamp };
        for (side, data_type) in [(&mut expr.left, left), (&mut expr.right, right)] {
            if data_type != to.arrow() {
                *side = std::mem::take(side).cast_to(&to.arrow(), schema)?;
            }
        }
    }
    Ok(())
}

/// Refuses to compare what PostgreSQL has no operator for; DataFusion would turn both into text.
fn check_comparable(expr: &RawBinaryExpr, schema: &DFSchema) -> Result<()> {
    if matches!(expr.left, Expr::Placeholder(_)) || matches!(expr.right, Expr::Placeholder(_)) {
        return Ok(());
    }
    let left = SqlType::of(&expr.left.to_field(schema)?.1);
    let right = SqlType::of(&expr.right.to_field(schema)?.1);
    if left.comparable_with(&right) {
        return Ok(());
    }
    let message = format!("operator does not exist: {} {} {}", left.base_name(), expr.op, right.base_name());
    Err(Error::new(SqlState::UNDEFINED_FUNCTION, message).into())
}

/// PostgreSQL's name of a type that has no modifiers.
fn named(data_type: &DataType) -> String {
    SqlType::of(&arrow::datatypes::Field::new("", data_type.clone(), true)).base_name()
}

fn is_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Time32(_) | DataType::Time64(_))
}

/// A string literal beside an operand of another type means a value of that type (`id = '5'`, `at > '2024-01-01'`).
fn type_literal(op: &BinaryOperator, this: &mut Expr, other: &Expr, schema: &DFSchema) -> Result<()> {
    use BinaryOperator as B;
    let Expr::Literal(value, _) = &*this else { return Ok(()) };
    if !is_string(&value.data_type()) || value.is_null() || matches!(other, Expr::Placeholder(_)) {
        return Ok(());
    }
    let (_, field) = other.to_field(schema)?;
    let computes = !matches!(op, B::Eq | B::NotEq | B::Lt | B::LtEq | B::Gt | B::GtEq);
    let wanted = match SqlType::of(&field) {
        // Spaces at the end of a `character(n)` mean nothing.
        SqlType::Char(_) => {
            if let Some(text) = value.try_as_str().flatten() {
                *this = datafusion::logical_expr::lit(text.trim_end_matches(' ').to_string());
            }
            return Ok(());
        }
        plain if plain.is_string() => return Ok(()),
        SqlType::Record => return Ok(()),
        // What is added to a point in time is a span of it; what is taken from it is another point.
        SqlType::Timestamp | SqlType::Timestamptz | SqlType::Time if computes && *op == B::Plus => {
            SqlType::Interval
        }
        known => known,
    };
    if let Some(literal) = cast::literal(value, &wanted.field_ref("", true))? {
        *this = literal;
    }
    Ok(())
}
