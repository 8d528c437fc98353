//! `a ASOF [LEFT] JOIN b ON a.k = b.k AND a.at >= b.at`: to each row of a the last row of b until then.
//!
//! Both sides become one relation, in the order of time within each key; a window function carries b's last row on to
//! a's rows, which are what stays. So one pass over a key's rows joins them, and what changes in a key touches no other.
//! Rows of b of one time are told apart by their columns from the left: the least one is taken.

use std::sync::Arc;

use datafusion::common::metadata::FieldMetadata;
use datafusion::common::{Column, DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::expr_rewriter::normalize_col_with_schemas_and_ambiguity_check;
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use datafusion::logical_expr::{
    BinaryExpr, Cast, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Operator, lit, utils,
};
use datafusion::sql::sqlparser::ast::{
    JoinConstraint as Constraint, JoinOperator, TableFactor, TableWithJoins,
};

use super::naming;
use crate::error::{Error, SqlState};
use crate::sql::functions::asof::{asof_match, no_key};
use crate::sql::functions::cast::FromField as _;

/// Makes a relation of its own of every ASOF join of a FROM item, with all that stands before it.
pub(super) fn isolate(item: &mut TableWithJoins) {
    let Some(last) = item.joins.iter().rposition(|join| join.global) else { return };
    let after = item.joins.split_off(last + 1);
    let joins = item.joins.split_off(last);
    let joins_before = std::mem::take(&mut item.joins);
    let mut before = TableWithJoins { relation: item.relation.clone(), joins: joins_before };
    isolate(&mut before);
    let relation = match before {
        TableWithJoins { relation, joins } if joins.is_empty() => relation,
        before => TableFactor::NestedJoin { table_with_joins: Box::new(before), alias: None },
    };
    let joined = TableWithJoins { relation, joins };
    item.relation = TableFactor::NestedJoin { table_with_joins: Box::new(joined), alias: None };
    item.joins = after;
}

/// Whether this is one ASOF join and nothing else.
pub(super) fn is_asof(item: &TableWithJoins) -> bool {
    matches!(item.joins.as_slice(), [join] if join.global)
}

/// Plans what [`isolate`] has made.
#[derive(Debug)]
pub(super) struct AsofJoins;

impl RelationPlanner for AsofJoins {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        match relation {
            TableFactor::NestedJoin { table_with_joins, alias } if is_asof(&table_with_joins) => {
                let plan = planned(*table_with_joins, context)?;
                Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
            }
            other => Ok(RelationPlanning::Original(Box::new(other))),
        }
    }
}

/// What the condition says.
struct Condition {
    /// What must be equal: of a, of b.
    keys: Vec<(Expr, Expr)>,
    /// The times.
    at: (Expr, Expr),
    /// How a's time compares to b's.
    op: Operator,
}

fn planned(item: TableWithJoins, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
    let TableWithJoins { relation, mut joins } = item;
    let Some(join) = joins.pop() else { return Err(Error::internal("an ASOF join of nothing").into()) };
    let (outer, constraint) = match join.join_operator {
        JoinOperator::Join(constraint) | JoinOperator::Inner(constraint) => (false, constraint),
        JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => (true, constraint),
        _ => return Err(Error::unsupported("ASOF JOIN that is neither inner nor LEFT").into()),
    };
    let Constraint::On(condition) = constraint else {
        return Err(shape("It needs a condition.").into());
    };
    if matches!(
        join.relation,
        TableFactor::Derived { lateral: true, .. } | TableFactor::Function { lateral: true, .. }
    ) {
        return Err(Error::unsupported("ASOF JOIN with LATERAL").into());
    }
    let (left, right) = (context.plan(relation)?, context.plan(join.relation)?);
    let both = left.schema().join(right.schema())?;
    let condition = context.sql_to_expr(condition, &both)?;
    let condition = normalize_col_with_schemas_and_ambiguity_check(
        condition,
        &[&[left.schema().as_ref(), right.schema().as_ref()]],
        &[],
    )?;
    let condition = conditions(condition, left.schema(), right.schema())?;
    combined(left, right, condition, outer)
}

fn shape(detail: &str) -> Error {
    Error::new(
        SqlState::FEATURE_NOT_SUPPORTED,
        "ASOF JOIN must compare columns of its two sides: some with =, and one with <, <=, > or >=",
    )
    .with_detail(detail)
}

fn conditions(condition: Expr, left: &DFSchema, right: &DFSchema) -> Result<Condition> {
    let mut keys = Vec::new();
    let mut order = None;
    for conjunct in utils::split_conjunction_owned(condition) {
        let shown = conjunct.to_string();
        let Expr::BinaryExpr(BinaryExpr { left: a, op, right: b }) = conjunct else {
            return Err(shape(&format!("The condition says {shown}.")).into());
        };
        let of = |e: &Expr, schema: &DFSchema| {
            let foreign = e.column_refs().into_iter().any(|c| !schema.has_column(c));
            !foreign && !e.contains_outer() && !e.contains_scalar_subquery()
        };
        let (a, op, b) = if of(&a, left) && of(&b, right) {
            (*a, op, *b)
        } else if of(&b, left)
            && of(&a, right)
            && let Some(op) = op.swap()
        {
            (*b, op, *a)
        } else {
            return Err(shape(&format!("The condition says {shown}.")).into());
        };
        let (of_a, of_b) = (a.get_type(left)?, b.get_type(right)?);
        let Some(common) = comparison_coercion(&of_a, &of_b) else {
            return Err(Error::new(
                SqlState::UNDEFINED_FUNCTION,
                format!("the sides of ASOF JOIN's condition {shown} cannot be compared"),
            )
            .into());
        };
        let cast = |e: Expr, from| match from == common {
            true => e,
            false => Expr::Cast(Cast::new(Box::new(e), common.clone())),
        };
        let pair = (cast(a, of_a), cast(b, of_b));
        match op {
            Operator::Eq => keys.push(pair),
            Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq if order.is_none() => {
                order = Some((pair, op));
            }
            _ => return Err(shape(&format!("The condition says {shown}.")).into()),
        }
    }
    let Some((at, op)) = order else { return Err(shape("The condition has no inequality.").into()) };
    Ok(Condition { keys, at, op })
}

/// The join itself.
fn combined(left: LogicalPlan, right: LogicalPlan, condition: Condition, outer: bool) -> Result<LogicalPlan> {
    let Condition { mut keys, at, op } = condition;
    if keys.is_empty() {
        keys.push((no_key(at.0.clone()), no_key(at.1.clone())));
    }
    let (left_schema, right_schema) = (Arc::clone(left.schema()), Arc::clone(right.schema()));
    let (keys_left, keys_right): (Vec<Expr>, Vec<Expr>) = keys.into_iter().unzip();
    // What equals nothing is no row of b's.
    let present = keys_right.iter().chain([&at.1]).map(|e| e.clone().is_not_null());
    let present = present.reduce(Expr::and).unwrap_or_else(|| lit(true));
    let right = LogicalPlanBuilder::from(right).filter(present)?.build()?;
    let side = |plan: LogicalPlan, keys: Vec<Expr>, at: Expr, is_right: bool| {
        let mut columns: Vec<Expr> =
            keys.into_iter().enumerate().map(|(i, key)| key.alias(naming::marked("key", i))).collect();
        columns.push(at.alias(naming::marked("at", 0)));
        columns.push(lit(is_right).alias(naming::marked("right", 0)));
        for (schema, name, own) in [(&left_schema, "l", !is_right), (&right_schema, "r", is_right)] {
            for (i, (qualifier, field)) in schema.iter().enumerate() {
                let value = match own {
                    true => Expr::Column(Column::new(qualifier.cloned(), field.name())),
                    false => Expr::Literal(
                        ScalarValue::try_from(field.data_type())?,
                        FieldMetadata::new_from_field_opt(field),
                    ),
                };
                columns.push(value.alias(naming::marked(name, i)));
            }
        }
        LogicalPlanBuilder::from(plan).project(columns)?.build()
    };
    let keys = keys_left.len();
    let left = side(left, keys_left, at.0, false)?;
    let right = side(right, keys_right, at.1, true)?;
    let all = LogicalPlanBuilder::from(right).union(left)?.build()?;
    let column = |name: &str, i: usize| Expr::Column(Column::from_name(naming::marked(name, i)));
    let is_right = column("right", 0);
    let (later, strict) =
        (matches!(op, Operator::Lt | Operator::LtEq), matches!(op, Operator::Lt | Operator::Gt));
    // A row of a without a time comes first, before all that it could be joined with.
    let mut order = vec![column("at", 0).sort(!later, true), is_right.clone().sort(strict, true)];
    order.extend((0..right_schema.fields().len()).map(|i| column("r", i).sort(false, true)));
    let carried = |value: Expr| {
        let mut function = WindowFunction::new(asof_match(), vec![value, is_right.clone()]);
        function.params.partition_by = (0..keys).map(|i| column("key", i)).collect();
        function.params.order_by = order.clone();
        function.params.window_frame = datafusion::logical_expr::WindowFrame::new(Some(false));
        Expr::from(function)
    };
    let found = carried(is_right.clone());
    let values: Vec<Expr> = (0..right_schema.fields().len()).map(|i| carried(column("r", i))).collect();
    let named = |e: &Expr| Expr::Column(Column::from_name(e.schema_name().to_string()));
    let mut kept = Expr::Not(Box::new(is_right.clone()));
    if !outer {
        kept = kept.and(named(&found).is_not_null());
    }
    let as_before = |value: Expr, (qualifier, field): (Option<&_>, &Arc<arrow::datatypes::Field>)| {
        let metadata = FieldMetadata::new_from_field_opt(field);
        let qualifier: Option<datafusion::common::TableReference> = qualifier.cloned();
        value.alias_qualified_with_metadata(qualifier, field.name(), metadata)
    };
    let from_left = left_schema.iter().enumerate().map(|(i, field)| as_before(column("l", i), field));
    let from_right = right_schema.iter().zip(&values).map(|(field, value)| as_before(named(value), field));
    let columns: Vec<Expr> = from_left.chain(from_right).collect();
    let windows = values.iter().cloned().chain((!outer).then_some(found));
    let windows: Vec<Expr> = windows.collect();
    LogicalPlanBuilder::from(LogicalPlanBuilder::window_plan(all, windows)?)
        .filter(kept)?
        .project(columns)?
        .build()
}
