//! PostgreSQL's meaning of expressions, on top of DataFusion's: casts, division, overflow, sums and averages.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{AggregateFunction, Cast, InSubquery, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, Volatility};
use datafusion::optimizer::AnalyzerRule;
use datafusion::optimizer::analyzer::resolve_grouping_function::ResolveGroupingFunction;
use datafusion::optimizer::analyzer::type_coercion::TypeCoercion;

use super::{intervals, unknown};
use crate::engine::plan::CollectionSource;
use crate::engine::plan::optimize::analyse_by;
use crate::engine::plan::temporal::mark;
use crate::error::{Error, SqlState};
use crate::sql::functions::{arithmetic, arrays, cast, length, quantified, regexp, temporal};
use crate::types::{SqlType, is_string};

/// Makes a plan executable: types coerced, with PostgreSQL's semantics.
pub(super) fn analyze(plan: LogicalPlan, config: &ConfigOptions) -> Result<LogicalPlan> {
    let rules: [Arc<dyn AnalyzerRule + Send + Sync>; 4] = [
        Arc::new(ResolveGroupingFunction::new()),
        Arc::new(BeforeCoercion),
        Arc::new(TypeCoercion::new()),
        Arc::new(AfterCoercion),
    ];
    analyse_by(&rules, plan, config)
}

/// What must be decided by the types that were written: results of sums, averages and divisions; literals' types.
#[derive(Debug)]
struct BeforeCoercion;

impl AnalyzerRule for BeforeCoercion {
    fn name(&self) -> &str {
        "postgresql_types"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let plan = rewrite_expressions(plan, &before)?;
        Ok(plan.transform_up_with_subqueries(unknown::in_union)?.data)
    }
}

/// Whether a value has a sign; text and parameters may turn out to have one.
fn is_negatable(data_type: &DataType) -> bool {
    !matches!(
        data_type,
        DataType::Boolean
            | DataType::Date32
            | DataType::Timestamp(..)
            | DataType::Time32(_)
            | DataType::Time64(_)
            | DataType::List(_)
    )
}

/// What depends on the types after coercion: casts and checked arithmetic.
#[derive(Debug)]
struct AfterCoercion;

impl AnalyzerRule for AfterCoercion {
    fn name(&self) -> &str {
        "postgresql_semantics"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let plan = rewrite_expressions(plan, &after)?;
        Ok(plan.transform_up_with_subqueries(intervals::sorted)?.data)
    }
}

type Rewrite = dyn Fn(Expr, &DFSchema) -> Result<Transformed<Expr>>;

/// Rewrites every expression of a plan bottom-up; names of columns stay as they were.
fn rewrite_expressions(plan: LogicalPlan, rewrite: &Rewrite) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|plan| {
        if matches!(plan, LogicalPlan::TableScan(_)) {
            return Ok(Transformed::no(plan));
        }
        let schema = merge_schema(&plan.inputs());
        let names = NamePreserver::new(&plan);
        plan.map_expressions(|expr| {
            let name = names.save(&expr);
            Ok(expr.transform_up(|e| rewrite(e, &schema))?.update_data(|e| name.restore(e)))
        })?
        .map_data(LogicalPlan::recompute_schema)
    })
    .map(|t| t.data)
}

fn before(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        Expr::AggregateFunction(call) => widen_aggregate(call, schema),
        Expr::WindowFunction(mut call) if call.fun.name() == "sum" => {
            let widened = widen_sum(&mut call.params.args, schema)?;
            Ok(widened.update_data(|()| Expr::WindowFunction(call)))
        }
        Expr::ScalarSubquery(subquery) if subquery.subquery.schema().fields().len() != 1 => {
            Err(Error::new(SqlState::SYNTAX_ERROR, "subquery must return only one column").into())
        }
        Expr::InSubquery(InSubquery { subquery, .. }) if subquery.subquery.schema().fields().len() != 1 => {
            Err(Error::new(SqlState::SYNTAX_ERROR, "subquery has too many columns").into())
        }
        Expr::Negative(operand) => match operand.to_field(schema)?.1 {
            field if is_negatable(field.data_type()) => Ok(Transformed::no(Expr::Negative(operand))),
            field => Err(Error::new(
                SqlState::UNDEFINED_FUNCTION,
                format!("operator does not exist: - {}", SqlType::of(&field)),
            )
            .into()),
        },
        expr @ (Expr::Case(_) | Expr::InList(_) | Expr::Between(_)) => unknown::beside(expr, schema),
        Expr::ScalarFunction(mut call) => {
            if matches!(call.func.name(), "character_length" | "octet_length")
                && let [arg] = call.args.as_slice()
                && arg.get_type(schema)? == DataType::Binary
            {
                call.func = length::byte_length();
                return Ok(Transformed::yes(Expr::ScalarFunction(call)));
            }
            if quantified::is_quantified(&call.func) {
                return quantified::typed(call, schema).map(Transformed::yes);
            }
            if call.func.name() == "substr"
                && let [text, pattern] = call.args.as_slice()
                && is_string(&pattern.get_type(schema)?)
            {
                return Ok(Transformed::yes(regexp::substring_of(text.clone(), pattern.clone())));
            }
            if let Some(ours) = arrays::instead_of(call.func.name()) {
                call.func = ours;
                return Ok(Transformed::yes(Expr::ScalarFunction(call)));
            }
            if unknown::takes_one_type(call.func.name()) {
                return unknown::beside(Expr::ScalarFunction(call), schema);
            }
            Ok(Transformed::no(Expr::ScalarFunction(call)))
        }
        // The cast of a literal is a literal: whoever needs one (LIKE, window functions, index look-ups) finds it.
        Expr::Cast(Cast { expr, field }) => {
            if let Expr::Literal(value, _) = expr.as_ref()
                && let Some(literal) = cast::literal(value, &field)?
            {
                return Ok(Transformed::yes(literal));
            }
            check_cast(&expr.to_field(schema)?.1, &field)?;
            Ok(Transformed::no(Expr::Cast(Cast { expr, field })))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// Refuses a cast that PostgreSQL does not have.
fn check_cast(from: &Field, to: &Field) -> crate::Result<()> {
    let (from, to) = (SqlType::of(from), SqlType::of(to));
    if from.castable_to(&to) {
        return Ok(());
    }
    Err(Error::new(SqlState("42846"), format!("cannot cast type {from} to {to}")))
}

fn after(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        Expr::Cast(Cast { expr, field }) => {
            if let Expr::Literal(value, _) = expr.as_ref()
                && let Some(literal) = cast::literal(value, &field)?
            {
                return Ok(Transformed::yes(literal));
            }
            let (_, from) = expr.to_field(schema)?;
            Ok(Transformed::yes(cast_expr(*expr, &from, &field)))
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let checked = matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply)
                && (left.get_type(schema)?.is_signed_integer() || left.get_type(schema)?.is_floating())
                && left.get_type(schema)? == right.get_type(schema)?;
            if checked {
                Ok(Transformed::yes(arithmetic::checked(op, *left, *right)))
            } else if op == Operator::Minus
                && matches!(left.get_type(schema)?, DataType::Timestamp(..))
                && matches!(right.get_type(schema)?, DataType::Timestamp(..))
            {
                // Of operands whose types were not written, parameters.
                Ok(Transformed::yes(temporal::difference(*left, *right)))
            } else if op.supports_propagation() && intervals::is_interval(&left, schema)? {
                let (left, right) = (temporal::length(*left), temporal::length(*right));
                Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))))
            } else {
                Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })))
            }
        }
        // A negative literal is a literal already.
        Expr::Negative(inner) if !matches!(*inner, Expr::Literal(..)) => {
            let data_type = inner.get_type(schema)?;
            if !data_type.is_signed_integer() {
                return Ok(Transformed::no(Expr::Negative(inner)));
            }
            let zero = Expr::Literal(ScalarValue::new_zero(&data_type)?, None);
            Ok(Transformed::yes(arithmetic::checked(Operator::Minus, zero, *inner)))
        }
        other => intervals::compared(other, schema),
    }
}

/// A cast as PostgreSQL does it; Arrow's where they agree.
pub(super) fn cast_expr(expr: Expr, from: &Field, to: &FieldRef) -> Expr {
    if cast::differs(from, to) {
        cast::call(expr, to)
    } else {
        Expr::Cast(Cast::new_from_field(Box::new(expr), Arc::clone(to)))
    }
}

/// sum(bigint) is numeric and cannot overflow.
fn widen_aggregate(mut call: AggregateFunction, schema: &DFSchema) -> Result<Transformed<Expr>> {
    if call.func.name() != "sum" {
        return Ok(Transformed::no(Expr::AggregateFunction(call)));
    }
    Ok(widen_sum(&mut call.params.args, schema)?.update_data(|()| Expr::AggregateFunction(call)))
}

/// The argument of a sum over bigint as a numeric.
fn widen_sum(args: &mut [Expr], schema: &DFSchema) -> Result<Transformed<()>> {
    let [arg] = args else { return Ok(Transformed::no(())) };
    if !matches!(arg.get_type(schema)?, DataType::Int64 | DataType::UInt64) {
        return Ok(Transformed::no(()));
    }
    let value = std::mem::take(arg);
    *arg = Expr::Cast(Cast::new(Box::new(value), DataType::Decimal128(28, 0)));
    Ok(Transformed::yes(()))
}

/// Refuses aggregates and window functions where rows are still being chosen, and aggregates that are an outer query's.
///
/// # Errors
/// 42803 and 42P20, naming the clause; 0A000.
pub(super) fn check_conditions(plan: &LogicalPlan) -> crate::Result<()> {
    let mut refused = None;
    plan.apply_with_subqueries(|node| {
        // After planning, HAVING and QUALIFY name the columns that hold the functions' results.
        let clause = match node {
            LogicalPlan::Filter(_) => "WHERE",
            LogicalPlan::Join(_) => "JOIN conditions",
            LogicalPlan::Aggregate(aggregate) => {
                if aggregate.aggr_expr.iter().any(is_outer) {
                    refused =
                        Some(Error::unsupported("an aggregate of an outer query's columns in a subquery"));
                    return Ok(TreeNodeRecursion::Stop);
                }
                return Ok(TreeNodeRecursion::Continue);
            }
            _ => return Ok(TreeNodeRecursion::Continue),
        };
        node.apply_expressions(|expr| {
            expr.apply(|e| {
                let (state, what) = match e {
                    Expr::AggregateFunction(_) => (SqlState::GROUPING_ERROR, "aggregate"),
                    Expr::WindowFunction(_) => (SqlState::WINDOWING_ERROR, "window"),
                    _ => return Ok(TreeNodeRecursion::Continue),
                };
                refused = Some(Error::new(state, format!("{what} functions are not allowed in {clause}")));
                Ok(TreeNodeRecursion::Stop)
            })
        })
    })?;
    refused.map_or(Ok(()), Err)
}

/// Whether an aggregate, of an outer query's columns alone, is that query's and not the one's in which it stands.
fn is_outer(aggregate: &Expr) -> bool {
    let has = |wanted: fn(&Expr) -> bool| aggregate.exists(|e| Ok(wanted(e))).unwrap_or(false);
    has(|e| matches!(e, Expr::OuterReferenceColumn(..))) && !has(|e| matches!(e, Expr::Column(_)))
}

/// Refuses what would make a kept view change by itself.
///
/// # Errors
/// 0A000, naming the function or relation.
pub(super) fn check_maintainable(plan: &LogicalPlan) -> crate::Result<()> {
    let plan = mark(plan.clone())?;
    let mut refused = None;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && scan.source.downcast_ref::<CollectionSource>().is_none()
            && scan.table_name.table() != "generate_series()"
            && !is_work_table(scan)
        {
            refused = Some(Error::new(
                SqlState::FEATURE_NOT_SUPPORTED,
                format!("a materialized view cannot read \"{}\"", scan.table_name.table()),
            ));
            return Ok(TreeNodeRecursion::Stop);
        }
        node.apply_expressions(|expr| {
            expr.apply(|e| {
                if let Expr::ScalarFunction(ScalarFunction { func, .. }) = e
                    && func.signature().volatility != Volatility::Immutable
                {
                    refused = Some(not_maintainable(func.name()));
                    return Ok(TreeNodeRecursion::Stop);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    refused.map_or(Ok(()), Err)
}

fn is_work_table(scan: &datafusion::logical_expr::TableScan) -> bool {
    use datafusion::catalog::cte_worktable::CteWorkTable;
    use datafusion::catalog::default_table_source::source_as_provider;
    source_as_provider(&scan.source).is_ok_and(|p| p.downcast_ref::<CteWorkTable>().is_some())
}

fn not_maintainable(function: &str) -> Error {
    let error = Error::new(
        SqlState::FEATURE_NOT_SUPPORTED,
        format!("a materialized view cannot call \"{function}\""),
    );
    match function {
        "clock_timestamp" | "current_time" | "localtime" => error
            .with_detail("Its result changes with time, without a change of the view's inputs.")
            .with_hint("Conditions on now() are kept up to date: at > now() - INTERVAL '1 hour'."),
        _ => error.with_detail("Its result is not decided by its arguments."),
    }
}
