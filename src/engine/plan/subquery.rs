//! Subqueries in expressions and LATERAL as joins, wherever DataFusion's rules would refuse or err.
//!
//! Those rules are right for EXISTS and IN as conditions of a filter over plain select-project-join subqueries, and
//! for scalar subqueries that aggregate over equalities; such are left to them, for their plans need less state.
//! They know nothing of IN's NULL, of more than one row, of subqueries in other places, and of correlation below
//! aggregates, unions, limits and windows; all that is lifted here, by [`super::dependent`] where it is correlated.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, ExprSchema, JoinType, NullEquality, ScalarValue};
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::first_last::first_value_udaf;
use datafusion::functions_aggregate::min_max::min_udaf;
use datafusion::logical_expr::expr::{AggregateFunction, Exists, InSubquery, SetComparison, SetQuantifier};
use datafusion::logical_expr::type_coercion::binary::BinaryTypeCoercer;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    BinaryExpr, Distinct, Expr, ExprSchemable, FetchType, Filter, Join, JoinConstraint, LogicalPlan,
    LogicalPlanBuilder, Operator, SkipType, Subquery, lit, when,
};

use super::dependent::{Domain, Names, or_always, outer_columns};
use super::lower::has_subquery;
use super::plain::{
    clashes, holds_subquery, is_joinable, is_plain_condition, is_plain_scalar, is_single_row,
};
use super::single_row::single_row;
use crate::error::Error;

type Planned<T> = datafusion::error::Result<T>;

/// Lifts subqueries out of a plan's nodes, children first.
#[derive(Default)]
pub(super) struct Subqueries {
    names: Names,
}

impl Subqueries {
    /// The node without subqueries, or with such as DataFusion is right about.
    pub(super) fn node(&mut self, node: LogicalPlan) -> Planned<Transformed<LogicalPlan>> {
        if let LogicalPlan::Join(join) = node {
            return self.lateral(join);
        }
        if !has_subquery(&node) {
            return Ok(Transformed::no(node));
        }
        match node {
            LogicalPlan::Filter(filter) => self.filter(filter),
            LogicalPlan::Projection(_)
            | LogicalPlan::Aggregate(_)
            | LogicalPlan::Window(_)
            | LogicalPlan::Sort(_) => self.other(node),
            node => Ok(Transformed::no(node)),
        }
    }

    fn filter(&mut self, filter: Filter) -> Planned<Transformed<LogicalPlan>> {
        let mut input = Arc::unwrap_or_clone(filter.input);
        let columns = input.schema().columns();
        let mut conditions = split_conjunction_owned(filter.predicate);
        if !conditions.iter().map(|c| is_plain_condition(c, input.schema())).all(|c| matches!(c, Ok(true))) {
            // What needs no subquery decides first, for which rows there is a subquery to compute.
            let (first, rest): (Vec<Expr>, Vec<Expr>) =
                conditions.into_iter().partition(|c| !holds_subquery(c));
            conditions = rest;
            if let Some(first) = conjunction(first) {
                input = LogicalPlanBuilder::from(input).filter(first)?.build()?;
            }
        }
        let (given, mut conditions) = (conditions, Vec::new());
        let mut changed = false;
        for condition in given {
            if is_plain_condition(&condition, input.schema())? {
                conditions.push(condition);
                continue;
            }
            let lifted = self.lift(condition.clone(), &mut input, true)?;
            changed |= lifted != condition;
            conditions.push(lifted);
        }
        let plan = LogicalPlanBuilder::from(input);
        let plan = match conjunction(conditions) {
            Some(condition) => plan.filter(condition)?,
            None => plan,
        };
        if !changed {
            return Ok(Transformed::no(plan.build()?));
        }
        Ok(Transformed::yes(plan.project(columns.into_iter().map(Expr::Column))?.build()?))
    }

    /// A node whose expressions become plain ones over an input with more columns.
    fn other(&mut self, node: LogicalPlan) -> Planned<Transformed<LogicalPlan>> {
        let [input] = node.inputs()[..] else { return Ok(Transformed::no(node)) };
        let mut input = input.clone();
        let leave = matches!(node, LogicalPlan::Projection(_));
        let mut exprs = Vec::new();
        let mut changed = false;
        for expr in node.expressions() {
            let lifted = self.lift(expr.clone(), &mut input, leave)?;
            changed |= lifted != expr;
            // A projection's or aggregate's column is called as before.
            let named = matches!(
                node,
                LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_) | LogicalPlan::Window(_)
            );
            exprs.push(if named && lifted != expr && !matches!(lifted, Expr::Alias(_)) {
                lifted.alias_qualified(expr.qualified_name().0, expr.qualified_name().1)
            } else {
                lifted
            });
        }
        if !changed {
            return Ok(Transformed::no(node));
        }
        let columns = node.schema().columns();
        let plan = node.with_new_exprs(exprs, vec![input])?;
        if plan.schema().fields().len() == columns.len() {
            return Ok(Transformed::yes(plan));
        }
        let kept = LogicalPlanBuilder::from(plan).project(columns.into_iter().map(Expr::Column))?;
        Ok(Transformed::yes(kept.build()?))
    }

    /// The expression with its subqueries read from columns that joins have added to `input`. `leave`: in this place
    /// DataFusion's own rule may have those scalar subqueries that it is right about.
    fn lift(&mut self, expr: Expr, input: &mut LogicalPlan, leave: bool) -> Planned<Expr> {
        let lifted = expr.transform_up(|e| {
            Ok(match e {
                Expr::Exists(Exists { subquery, negated }) => {
                    let mark = self.mark(input, &subquery.subquery)?;
                    Transformed::yes(if negated { Expr::Not(Box::new(mark)) } else { mark })
                }
                Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
                    let found = self.contains(input, *expr, &subquery.subquery)?;
                    Transformed::yes(if negated { Expr::Not(Box::new(found)) } else { found })
                }
                Expr::SetComparison(comparison) => Transformed::yes(self.compare(input, comparison)?),
                Expr::ScalarSubquery(subquery) => {
                    if leave && is_plain_scalar(&subquery, input.schema())? {
                        Transformed::no(Expr::ScalarSubquery(subquery))
                    } else {
                        Transformed::yes(self.scalar(input, subquery, leave)?)
                    }
                }
                e => Transformed::no(e),
            })
        })?;
        Ok(lifted.data)
    }

    /// `x IN (…)` in three-valued logic.
    fn contains(&mut self, input: &mut LogicalPlan, x: Expr, subquery: &LogicalPlan) -> Planned<Expr> {
        let y = only_column(subquery)?;
        // It comes to stand among the subquery's own columns, where no subquery of it would be plain.
        let x = self.lift(x, input, false)?;
        let x_null = x.nullable(input.schema())?;
        let found = if matches!(x, Expr::Column(_)) && outer_columns(subquery, input.schema()).is_empty() {
            self.listed(input, &x, &y, subquery)?
        } else {
            let equal = Expr::Column(y.clone()).eq(outer(&x, input.schema())?);
            let equal = coerced(equal, subquery)?;
            let equal = LogicalPlanBuilder::from(subquery.clone()).filter(equal)?.build()?;
            self.mark(input, &equal)?
        };
        let mut cases = when(found, lit(true));
        if x_null {
            let any = self.mark(input, subquery)?;
            cases = cases.when(any.and(x.is_null()), lit(ScalarValue::Boolean(None)));
        }
        if subquery.schema().field(0).is_nullable() {
            let nulls = Expr::Column(y).is_null();
            let nulls = LogicalPlanBuilder::from(subquery.clone()).filter(nulls)?.build()?;
            let null = self.mark(input, &nulls)?;
            cases = cases.when(null, lit(ScalarValue::Boolean(None)));
        }
        cases.otherwise(lit(false))
    }

    /// `x op ANY (…)`, `x op ALL (…)` in three-valued logic.
    fn compare(&mut self, input: &mut LogicalPlan, comparison: SetComparison) -> Planned<Expr> {
        let SetComparison { expr, subquery, op, quantifier } = comparison;
        let x = self.lift(*expr, input, false)?;
        let subquery = subquery.subquery.as_ref();
        let y = Expr::Column(only_column(subquery)?);
        let compared =
            Expr::BinaryExpr(BinaryExpr::new(Box::new(outer(&x, input.schema())?), op, Box::new(y)));
        let compared = coerced(compared, subquery)?;
        let decided = quantifier == SetQuantifier::Any;
        let decisive = if decided { compared.clone() } else { Expr::Not(Box::new(compared.clone())) };
        let decisive = LogicalPlanBuilder::from(subquery.clone()).filter(decisive)?.build()?;
        let unknown = LogicalPlanBuilder::from(subquery.clone()).filter(compared.is_null())?.build()?;
        let decisive = self.mark(input, &decisive)?;
        let unknown = self.mark(input, &unknown)?;
        when(decisive, lit(decided)).when(unknown, lit(ScalarValue::Boolean(None))).otherwise(lit(!decided))
    }

    /// A column that says whether the subquery has rows.
    fn mark(&mut self, input: &mut LogicalPlan, subquery: &LogicalPlan) -> Planned<Expr> {
        let subquery = bare(subquery)?;
        let outer = outer_columns(subquery, input.schema());
        let name = self.names.next("__mark");
        let (right, pairs) = if outer.is_empty() {
            let one =
                LogicalPlanBuilder::from(subquery.clone()).project([lit(1i64).alias("one")])?.build()?;
            (one, Vec::new())
        } else {
            let domain = Domain::new(input, &outer)?;
            let (plan, keys) = domain.apply(subquery, &mut self.names)?;
            let keep = keys.iter().cloned().map(Expr::Column).collect::<Vec<_>>();
            let distinct = LogicalPlanBuilder::from(plan).project(keep)?.distinct()?.build()?;
            (distinct, keys)
        };
        self.join(input, right, outer, pairs, &name, JoinType::LeftMark)?;
        Ok(Expr::Column(Column::new(Some(name), "mark")))
    }

    /// A column that says whether `y` of a subquery that does not depend on the row has the value of `x`.
    fn listed(
        &mut self,
        input: &mut LogicalPlan,
        x: &Expr,
        y: &Column,
        subquery: &LogicalPlan,
    ) -> Planned<Expr> {
        let types = (x.get_type(input.schema())?, subquery.schema().field(0).data_type());
        let (of_x, of_y) = BinaryTypeCoercer::new(&types.0, &Operator::Eq, types.1).get_input_types()?;
        let value = Expr::Column(y.clone()).cast_to(&of_y, subquery.schema())?.alias("value");
        let right = LogicalPlanBuilder::from(bare(subquery)?.clone()).project([value])?.build()?;
        let name = self.names.next("__mark");
        let value = Expr::Column(Column::new(Some(name.clone()), "value"));
        let on = vec![(x.clone().cast_to(&of_x, input.schema())?, value)];
        join_as(input, right, on, &name, JoinType::LeftMark, NullEquality::NullEqualsNothing)?;
        Ok(Expr::Column(Column::new(Some(name), "mark")))
    }

    /// The subquery's one value, NULL without a row, an error with more than one.
    fn scalar(&mut self, input: &mut LogicalPlan, subquery: Subquery, leave: bool) -> Planned<Expr> {
        let plan = Arc::unwrap_or_clone(subquery.subquery.clone());
        let value = Expr::Column(only_column(&plan)?);
        if is_single_row(&plan)? {
            return self.value(input, &plan, vec![only_column(&plan)?]).map(|mut v| v.swap_remove(0));
        }
        let value_type = plan.schema().field(0).data_type().clone();
        let function = if value_type.is_nested() { first_value_udaf() } else { min_udaf() };
        let calls = [(count_udaf(), lit(1i64), "n"), (function, value, "v")].map(|(function, arg, name)| {
            Expr::AggregateFunction(AggregateFunction::new_udf(
                function,
                vec![arg],
                false,
                None,
                vec![],
                None,
            ))
            .alias(name)
        });
        let counted = LogicalPlanBuilder::from(plan.clone()).aggregate(Vec::<Expr>::new(), calls)?.build()?;
        if leave && is_joinable(&plan, input.schema(), true)? && !clashes(&counted, &plan)? {
            let [count, value] = ["n", "v"].map(|name| {
                let one =
                    LogicalPlanBuilder::from(counted.clone()).project([Column::from_name(name)])?.build()?;
                Planned::Ok(Expr::ScalarSubquery(Subquery { subquery: Arc::new(one), ..subquery.clone() }))
            });
            return Ok(single_row(count?, value?));
        }
        let mut columns =
            self.value(input, &counted, vec![Column::from_name("n"), Column::from_name("v")])?.into_iter();
        match (columns.next(), columns.next()) {
            (Some(count), Some(value)) => Ok(single_row(count, value)),
            _ => Err(Error::internal("a scalar subquery lost its columns").into()),
        }
    }

    /// Columns of a subquery that gives at most one row.
    fn value(
        &mut self,
        input: &mut LogicalPlan,
        plan: &LogicalPlan,
        columns: Vec<Column>,
    ) -> Planned<Vec<Expr>> {
        let outer = outer_columns(plan, input.schema());
        let name = self.names.next("__value");
        let (right, keys) = if outer.is_empty() {
            (plan.clone(), Vec::new())
        } else {
            Domain::new(input, &outer)?.apply(plan, &mut self.names)?
        };
        let values = columns.iter().enumerate().map(|(i, c)| Expr::Column(c.clone()).alias(format!("v{i}")));
        let keep: Vec<Expr> = values.chain(keys.iter().cloned().map(Expr::Column)).collect();
        let right = LogicalPlanBuilder::from(right).project(keep)?.build()?;
        self.join(input, right, outer, keys, &name, JoinType::Left)?;
        Ok((0..columns.len())
            .map(|i| Expr::Column(Column::new(Some(name.clone()), format!("v{i}"))))
            .collect())
    }

    /// Joins the subquery's rows, under `name`, to the rows around it.
    fn join(
        &mut self,
        input: &mut LogicalPlan,
        right: LogicalPlan,
        outer: Vec<Column>,
        keys: Vec<Column>,
        name: &str,
        kind: JoinType,
    ) -> Planned<()> {
        let keys = keys.into_iter().map(|k| Expr::Column(Column::new(Some(name.to_string()), k.name)));
        let on: Vec<(Expr, Expr)> = outer.into_iter().map(Expr::Column).zip(keys).collect();
        let nulls =
            if on.is_empty() { NullEquality::NullEqualsNothing } else { NullEquality::NullEqualsNull };
        join_as(input, right, on, name, kind, nulls)
    }

    /// A join whose right side refers to its left side.
    fn lateral(&mut self, join: Join) -> Planned<Transformed<LogicalPlan>> {
        let Some(subquery) = lateral_side(&join.right) else {
            let node = LogicalPlan::Join(join);
            return if has_subquery(&node) { self.join_condition(node) } else { Ok(Transformed::no(node)) };
        };
        let mut left = Arc::unwrap_or_clone(join.left.clone());
        let outer = outer_columns(&subquery, left.schema());
        if outer.is_empty() {
            let node = LogicalPlan::Join(Join { right: Arc::new(subquery), ..join });
            return if has_subquery(&node) { self.join_condition(node) } else { Ok(Transformed::yes(node)) };
        }
        if !matches!(join.join_type, JoinType::Inner | JoinType::Left) {
            return Err(Error::unsupported(format!("LATERAL in a {} join", join.join_type)).into());
        }
        let names = join.schema.columns();
        let (mut right, keys) = Domain::new(&left, &outer)?.apply(&subquery, &mut self.names)?;
        let same = outer.into_iter().zip(keys).map(|(o, k)| same(Expr::Column(o), Expr::Column(k)));
        let on = join.on.iter().map(|(l, r)| l.clone().eq(r.clone()));
        let filter = join.filter.map(split_conjunction_owned).unwrap_or_default();
        let (lifted, plain): (Vec<Expr>, Vec<Expr>) = on.chain(filter).partition(holds_subquery);
        let mut condition: Vec<Expr> = same.chain(plain).collect();
        let mut above = None;
        if join.join_type == JoinType::Inner {
            above = conjunction(lifted);
        } else {
            for expr in lifted {
                condition.push(self.lift_beside(expr, &mut left, &mut right)?);
            }
        }
        let mut joined = LogicalPlanBuilder::from(left)
            .join_on(right, join.join_type, or_always(join.join_type, condition))?
            .build()?;
        if let Some(condition) = above {
            joined = self.filter(Filter::try_new(condition, Arc::new(joined))?)?.data;
        }
        let joined = LogicalPlanBuilder::from(joined).project(names.into_iter().map(Expr::Column))?;
        Ok(Transformed::yes(joined.build()?))
    }

    /// Subqueries in the condition of an inner join are those of a filter over all pairs; those of an outer join are
    /// lifted on the side that they refer to.
    fn join_condition(&mut self, node: LogicalPlan) -> Planned<Transformed<LogicalPlan>> {
        let LogicalPlan::Join(join) = node else { return Ok(Transformed::no(node)) };
        if join.join_type != JoinType::Inner {
            return self.outer_join(join);
        }
        let on = join.on.iter().map(|(l, r)| l.clone().eq(r.clone()));
        let condition = conjunction(on.chain(join.filter.clone())).unwrap_or_else(|| lit(true));
        let pairs =
            LogicalPlanBuilder::from(join.left).cross_join(Arc::unwrap_or_clone(join.right))?.build()?;
        let filtered = self.filter(Filter::try_new(condition, Arc::new(pairs))?)?;
        Ok(Transformed::yes(filtered.data))
    }

    fn outer_join(&mut self, join: Join) -> Planned<Transformed<LogicalPlan>> {
        let names = join.schema.columns();
        let (mut left, mut right) = (Arc::unwrap_or_clone(join.left), Arc::unwrap_or_clone(join.right));
        let filter = join.filter.map(|f| self.lift_beside(f, &mut left, &mut right)).transpose()?;
        let mut on = Vec::with_capacity(join.on.len());
        for (l, r) in join.on {
            on.push((self.lift(l, &mut left, false)?, self.lift(r, &mut right, false)?));
        }
        let joined = LogicalPlan::Join(Join::try_new(
            Arc::new(left),
            Arc::new(right),
            on,
            filter,
            join.join_type,
            join.join_constraint,
            join.null_equality,
            join.null_aware,
        )?);
        let joined = LogicalPlanBuilder::from(joined).project(names.into_iter().map(Expr::Column))?;
        Ok(Transformed::yes(joined.build()?))
    }

    /// The expression over both sides of a join with each subquery read from columns of the side that it refers to.
    fn lift_beside(&mut self, expr: Expr, left: &mut LogicalPlan, right: &mut LogicalPlan) -> Planned<Expr> {
        let lifted = expr.transform_up(|e| {
            let subquery = match &e {
                Expr::Exists(exists) => &exists.subquery,
                Expr::InSubquery(contains) => &contains.subquery,
                Expr::SetComparison(comparison) => &comparison.subquery,
                Expr::ScalarSubquery(subquery) => subquery,
                _ => return Ok(Transformed::no(e)),
            };
            let refers = |side: &LogicalPlan| {
                !outer_columns(&subquery.subquery, side.schema()).is_empty()
                    || e.column_refs().into_iter().any(|c| side.schema().has_column(c))
            };
            let side = match (refers(left), refers(right)) {
                (true, true) => {
                    let what = "a subquery over both sides in the condition of an outer join";
                    return Err(Error::unsupported(what).into());
                }
                (false, true) => &mut *right,
                _ => &mut *left,
            };
            Ok(Transformed::yes(self.lift(e, side, false)?))
        })?;
        Ok(lifted.data)
    }
}

/// Joins `right`, under `name`, to `input`.
fn join_as(
    input: &mut LogicalPlan,
    right: LogicalPlan,
    on: Vec<(Expr, Expr)>,
    name: &str,
    kind: JoinType,
    nulls: NullEquality,
) -> Planned<()> {
    let right = LogicalPlanBuilder::from(right).alias(name)?.build()?;
    let left = Arc::new(input.clone());
    let join = Join::try_new(left, Arc::new(right), on, None, kind, JoinConstraint::On, nulls, false)?;
    *input = LogicalPlan::Join(join);
    Ok(())
}

/// `a IS NOT DISTINCT FROM b`.
pub(super) fn same(a: Expr, b: Expr) -> Expr {
    Expr::BinaryExpr(BinaryExpr::new(Box::new(a), Operator::IsNotDistinctFrom, Box::new(b)))
}

/// The plan inside a LATERAL, under the names the query gives it.
fn lateral_side(plan: &LogicalPlan) -> Option<LogicalPlan> {
    match plan {
        LogicalPlan::Subquery(s) => Some(s.subquery.as_ref().clone()),
        LogicalPlan::SubqueryAlias(a) => {
            let inner = lateral_side(&a.input)?;
            LogicalPlanBuilder::from(inner).alias(a.alias.clone()).ok()?.build().ok()
        }
        _ => None,
    }
}

fn only_column(plan: &LogicalPlan) -> Planned<Column> {
    match <[Column; 1]>::try_from(plan.schema().columns()) {
        Ok([column]) => Ok(column),
        Err(_) => {
            Err(Error::new(crate::SqlState::SYNTAX_ERROR, "subquery must return only one column").into())
        }
    }
}

/// The expression as it is written inside a subquery.
fn outer(e: &Expr, schema: &DFSchema) -> Planned<Expr> {
    let inside = e.clone().transform(|e| match e {
        Expr::Column(c) => {
            let field = Arc::clone(schema.field_from_column(&c)?);
            Ok(Transformed::yes(Expr::OuterReferenceColumn(field, c)))
        }
        e => Ok(Transformed::no(e)),
    })?;
    Ok(inside.data)
}

/// A comparison with both sides of one type, as type coercion would have it.
fn coerced(e: Expr, plan: &LogicalPlan) -> Planned<Expr> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = e else { return Ok(e) };
    let (l, r) = (left.get_type(plan.schema())?, right.get_type(plan.schema())?);
    let (lt, rt) = BinaryTypeCoercer::new(&l, &op, &r).get_input_types()?;
    let left = left.cast_to(&lt, plan.schema())?;
    let right = right.cast_to(&rt, plan.schema())?;
    Ok(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right))))
}

/// A subquery of EXISTS without what cannot change whether it has rows.
fn bare(plan: &LogicalPlan) -> Planned<&LogicalPlan> {
    Ok(match plan {
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => bare(&sort.input)?,
        LogicalPlan::Distinct(Distinct::All(input)) => bare(input)?,
        LogicalPlan::Limit(limit)
            if matches!(limit.get_skip_type()?, SkipType::Literal(0))
                && matches!(
                    limit.get_fetch_type()?,
                    FetchType::Literal(Some(1..)) | FetchType::Literal(None)
                ) =>
        {
            bare(&limit.input)?
        }
        plan => plan,
    })
}
