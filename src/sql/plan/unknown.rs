//! String literals that mean a value of another type: in CASE, COALESCE, IN, BETWEEN, arrays and set operations they
//! take the type of what they stand beside, and fail where they are none (`CASE WHEN a THEN 1 ELSE 'x' END`).
//!
//! DataFusion would turn everything into text instead.

use std::sync::Arc;

use arrow::datatypes::FieldRef;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::{Case, InList};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Between, Expr, ExprSchemable, LogicalPlan, Projection, Union};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use crate::error::{Error, SqlState};
use crate::sql::functions::cast;
use crate::types::{SqlType, is_string};

/// Operators over CASE and its kin, whose own types are asked at once.
#[derive(Debug)]
pub(super) struct UnknownOperands;

impl ExprPlanner for UnknownOperands {
    fn plan_binary_op(
        &self,
        mut expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        for side in [&mut expr.left, &mut expr.right] {
            *side = settled(std::mem::take(side), schema)?.data;
        }
        if expr.op == BinaryOperator::StringConcat {
            // A literal beside an array is an array.
            let sides = (expr.left.clone(), expr.right.clone());
            for (literal, other) in [(&mut expr.left, &sides.1), (&mut expr.right, &sides.0)] {
                if is_unknown(literal)
                    && let other @ SqlType::Array(_) = SqlType::of(&other.to_field(schema)?.1)
                    && let Some(typed) = typed(literal, &other)?
                {
                    *literal = typed;
                }
            }
        }
        Ok(PlannerResult::Original(expr))
    }
}

/// A CASE or its kin, and those directly inside of it, [`beside`] what they stand beside.
fn settled(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let one_type = match &expr {
        Expr::Case(_) => true,
        Expr::ScalarFunction(call) => takes_one_type(call.func.name()),
        _ => false,
    };
    if !one_type {
        return Ok(Transformed::no(expr));
    }
    expr.map_children(|child| settled(child, schema))?.transform_data(|expr| beside(expr, schema))
}

/// Whether all arguments of a function have one type.
pub(super) fn takes_one_type(function: &str) -> bool {
    matches!(function, "coalesce" | "nullif" | "greatest" | "least" | "make_array")
}

/// The expression with its string literals in the type of its other operands, and known to be of that type: DataFusion
/// forgets which of the types that are text to it a CASE, COALESCE or NULLIF is of.
///
/// # Errors
/// 22P02 and its kin for a literal that is no value of that type; 42804 for types that have nothing in common.
pub(super) fn beside(mut expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let changed = match &mut expr {
        Expr::Case(Case { expr: operand, when_then_expr, else_expr }) => {
            let (whens, thens): (Vec<&mut Expr>, Vec<&mut Expr>) =
                when_then_expr.iter_mut().map(|(when, then)| (when.as_mut(), then.as_mut())).unzip();
            let compared = match operand {
                Some(operand) => unify(std::iter::once(operand.as_mut()).chain(whens), schema, None)?,
                None => {
                    check_conditions(whens, schema)?;
                    false
                }
            };
            let results = thens.into_iter().chain(else_expr.iter_mut().map(|e| e.as_mut()));
            unify(results, schema, Some("CASE"))? | compared
        }
        Expr::ScalarFunction(call) => {
            let name = call.func.name().to_uppercase();
            let named = matches!(name.as_str(), "COALESCE" | "GREATEST" | "LEAST").then_some(name.as_str());
            unify(call.args.iter_mut(), schema, named)?
        }
        Expr::InList(InList { expr, list, .. }) => {
            unify(std::iter::once(expr.as_mut()).chain(list), schema, None)?
        }
        Expr::Between(Between { expr, low, high, .. }) => {
            unify([expr, low, high].into_iter().map(|e| e.as_mut()), schema, None)?
        }
        _ => false,
    };
    let results: Vec<&Expr> = match &expr {
        Expr::Case(case) => {
            let results = case.when_then_expr.iter().map(|(_, then)| then.as_ref());
            results.chain(case.else_expr.as_deref()).collect()
        }
        Expr::ScalarFunction(call) if call.func.name() == "nullif" => call.args.iter().take(1).collect(),
        Expr::ScalarFunction(call) if call.func.name() != "make_array" => call.args.iter().collect(),
        _ => return Ok(Transformed::new_transformed(expr, changed)),
    };
    let Some(common) = common(&results, schema)? else {
        return Ok(Transformed::new_transformed(expr, changed));
    };
    let field = common.field_ref("", true);
    if field.metadata().is_empty() || !is_string(field.data_type()) {
        return Ok(Transformed::new_transformed(expr, changed));
    }
    Ok(Transformed::yes(cast::known(expr, &field)))
}

/// The one type of all operands; `None`: there are several, or it is not known.
fn common(operands: &[&Expr], schema: &DFSchema) -> Result<Option<SqlType>> {
    let mut common = None;
    for operand in operands {
        let field = operand.to_field(schema)?.1;
        if field.data_type().is_null() {
            continue;
        }
        let known = SqlType::of(&field);
        if *common.get_or_insert_with(|| known.clone()) != known {
            return Ok(None);
        }
    }
    Ok(common)
}

/// Refuses conditions of CASE that are no truths.
fn check_conditions(conditions: Vec<&mut Expr>, schema: &DFSchema) -> Result<()> {
    for condition in conditions {
        let given = SqlType::of(&condition.to_field(schema)?.1);
        if !matches!(given, SqlType::Bool | SqlType::Unknown) && !is_unknown(condition) {
            let message =
                format!("argument of CASE WHEN must be type boolean, not type {}", given.base_name());
            return Err(Error::new(SqlState::DATATYPE_MISMATCH, message).into());
        }
    }
    Ok(())
}

/// Gives the literals among the operands the type of the others. `construct` is what PostgreSQL names when the others
/// have no type in common; `None` leaves that to the coercion of types.
fn unify<'e>(
    operands: impl Iterator<Item = &'e mut Expr>,
    schema: &DFSchema,
    construct: Option<&str>,
) -> Result<bool> {
    let mut literals = Vec::new();
    let mut numbers = Vec::new();
    let mut common = None;
    for operand in operands {
        if is_unknown(operand) {
            literals.push(operand);
        } else if let Some(known) = known_type(operand.to_field(schema)?.1) {
            if known.is_numeric() {
                numbers.push((operand, known.clone()));
            }
            common = Some(wider(common, known, construct)?);
        }
    }
    let Some(mut target) = common.filter(|t| !t.is_string()) else { return Ok(false) };
    let mut changed = false;
    if matches!(target, SqlType::Float4 | SqlType::Float8)
        && numbers.iter().any(|(_, known)| *known != target)
    {
        // What is only compared is so as `double precision`, which holds both.
        if construct.is_none() {
            target = SqlType::Float8;
        }
        for (operand, _) in numbers.into_iter().filter(|(_, known)| *known != target) {
            *operand = std::mem::take(operand).cast_to(&target.arrow(), schema)?;
            changed = true;
        }
    }
    for operand in literals {
        if let Some(typed) = typed(operand, &target)? {
            *operand = typed;
            changed = true;
        }
    }
    Ok(changed)
}

/// A string literal without a type of its own.
fn is_unknown(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(value, metadata)
        if is_string(&value.data_type()) && !value.is_null() && metadata.is_none())
}

/// The type that decides for others: none for NULL, parameters and records.
fn known_type(field: FieldRef) -> Option<SqlType> {
    match SqlType::of(&field) {
        SqlType::Unknown | SqlType::Record => None,
        _ if field.data_type().is_null() => None,
        // A literal is cast to what any value of the type is.
        SqlType::Numeric(_) => Some(SqlType::Numeric(None)),
        known => Some(known),
    }
}

/// The type of two that holds the values of both.
fn wider(common: Option<SqlType>, other: SqlType, construct: Option<&str>) -> Result<SqlType> {
    let Some(common) = common else { return Ok(other) };
    let alike = common.comparable_with(&other);
    match construct {
        Some(construct) if !alike || common.is_string() != other.is_string() => {
            let (common, other) = (common.base_name(), other.base_name());
            let message = format!("{construct} types {common} and {other} cannot be matched");
            return Err(Error::new(SqlState::DATATYPE_MISMATCH, message).into());
        }
        None if !alike => {
            let message = format!("operator does not exist: {} = {}", common.base_name(), other.base_name());
            return Err(Error::new(SqlState::UNDEFINED_FUNCTION, message).into());
        }
        _ => {}
    }
    Ok(if rank(&other) > rank(&common) { other } else { common })
}

fn rank(sql_type: &SqlType) -> u8 {
    match sql_type {
        SqlType::Int4 | SqlType::Timestamp => 1,
        SqlType::Int8 | SqlType::Timestamptz => 2,
        SqlType::Numeric(_) => 3,
        SqlType::Float4 => 4,
        SqlType::Float8 => 5,
        _ => 0,
    }
}

fn typed(literal: &Expr, to: &SqlType) -> Result<Option<Expr>> {
    match literal {
        Expr::Literal(value, _) => Ok(cast::literal(value, &to.field_ref("", true))?),
        _ => Ok(None),
    }
}

/// A union whose branches' literals have the type of the other branches.
pub(super) fn in_union(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Union(union) = plan else { return Ok(Transformed::no(plan)) };
    let mut inputs: Vec<LogicalPlan> = union.inputs.iter().map(|i| i.as_ref().clone()).collect();
    let mut changed = false;
    for column in 0..union.schema.fields().len() {
        let mut common = None;
        for input in &inputs {
            if literal(input, column).is_none()
                && let Some(field) = input.schema().fields().get(column)
                && let Some(known) = known_type(Arc::clone(field))
            {
                common = Some(wider(common, known, Some("UNION"))?);
            }
        }
        let Some(target) = common.filter(|t| !t.is_string()) else { continue };
        for input in &mut inputs {
            let Some(typed) = literal(input, column).map(|l| typed(l, &target)).transpose()?.flatten() else {
                continue;
            };
            if let LogicalPlan::Projection(projection) = input {
                let mut exprs = projection.expr.clone();
                let name = projection.schema.qualified_field(column);
                exprs[column] = typed.alias_qualified(name.0.cloned(), name.1.name());
                *input = LogicalPlan::Projection(Projection::try_new(exprs, Arc::clone(&projection.input))?);
                changed = true;
            }
        }
    }
    if !changed {
        return Ok(Transformed::no(LogicalPlan::Union(union)));
    }
    let inputs = inputs.into_iter().map(Arc::new).collect();
    Ok(Transformed::yes(LogicalPlan::Union(Union::try_new_with_loose_types(inputs)?)))
}

/// The literal without a type that a column of a query is.
fn literal(plan: &LogicalPlan, column: usize) -> Option<&Expr> {
    let LogicalPlan::Projection(projection) = plan else { return None };
    let mut expr = projection.expr.get(column)?;
    while let Expr::Alias(alias) = expr {
        expr = &alias.expr;
    }
    is_unknown(expr).then_some(expr)
}
