//! Correlated subqueries without correlation, whatever they are made of (Neumann and Kemper, "Unnesting arbitrary queries").
//!
//! The values that the subquery refers to, each combination once, are its *domain*. The subquery is computed for all
//! of the domain at once: the domain is joined to its leaves and carried up through every operator, which does what
//! it does for each combination apart. The domain is a part of the plan like any other, so it is maintained like any.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, JoinType};
use datafusion::functions_window::row_number::row_number_udwf;
use datafusion::logical_expr::expr::{Sort as SortExpr, WindowFunction};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{
    Aggregate, Distinct, DistinctOn, Expr, FetchType, Filter, Join, LogicalPlan, LogicalPlanBuilder,
    Projection, SkipType, Union, Window, cast, lit, when,
};

use super::lower::unaliased;
use super::subquery::same;
use crate::error::Error;

type Planned<T> = datafusion::error::Result<T>;
/// A plan and its columns that hold the domain's values, in the domain's order.
type Carried = (LogicalPlan, Vec<Column>);

/// Names that nothing else in the plan has.
#[derive(Default)]
pub(super) struct Names(usize);

impl Names {
    /// A name that begins with `prefix`.
    pub(super) fn next(&mut self, prefix: &str) -> String {
        self.0 += 1;
        format!("{prefix}_{}", self.0)
    }
}

/// The combinations of outer values for which a subquery is computed.
pub(super) struct Domain {
    /// One row for each combination.
    values: LogicalPlan,
    outer: Vec<Column>,
}

impl Domain {
    /// The values of some columns of the plan around the subquery.
    pub(super) fn new(around: &LogicalPlan, outer: &[Column]) -> Planned<Domain> {
        let columns =
            outer.iter().enumerate().map(|(i, c)| Expr::Column(c.clone()).alias(format!("__domain_{i}")));
        let around = factor(around, outer).clone();
        let values = LogicalPlanBuilder::from(around).project(columns)?.distinct()?.build()?;
        Ok(Domain { values, outer: outer.to_vec() })
    }

    /// The subquery for every combination, with the combination beside its columns.
    pub(super) fn apply(&self, plan: &LogicalPlan, names: &mut Names) -> Planned<Carried> {
        let (plan, keys) = self.carry(plan, names)?;
        // Whoever joins it may give it one name, so its own must do without.
        let name = names.next("__key");
        let renamed: Vec<Column> =
            (0..keys.len()).map(|i| Column::from_name(format!("{name}_{i}"))).collect();
        let columns = plan.schema().columns().into_iter().filter(|c| !keys.contains(c)).map(Expr::Column);
        let columns: Vec<Expr> = columns
            .chain(keys.iter().zip(&renamed).map(|(k, r)| Expr::Column(k.clone()).alias(r.name.clone())))
            .collect();
        Ok((LogicalPlanBuilder::from(plan).project(columns)?.build()?, renamed))
    }

    /// The domain itself, under names of its own.
    fn fresh(&self, names: &mut Names) -> Planned<Carried> {
        let name = names.next("__dom");
        let keys: Vec<Column> =
            (0..self.outer.len()).map(|i| Column::from_name(format!("{name}_{i}"))).collect();
        let columns = self.values.schema().columns().into_iter().zip(&keys);
        let columns = columns.map(|(c, k)| Expr::Column(c).alias(k.name.clone()));
        Ok((LogicalPlanBuilder::from(self.values.clone()).project(columns)?.build()?, keys))
    }

    fn refers(&self, plan: &LogicalPlan) -> bool {
        let mut found = Vec::new();
        collect(plan, &mut found);
        found.iter().any(|c| self.outer.contains(c))
    }

    /// The expression with the domain's columns in the place of the outer ones.
    fn inside(&self, e: Expr, keys: &[Column]) -> Planned<Expr> {
        let moved = e.transform(|e| {
            Ok(match &e {
                Expr::OuterReferenceColumn(_, c) => match self.outer.iter().position(|o| o == c) {
                    Some(i) => Transformed::yes(Expr::Column(keys[i].clone())),
                    None => Transformed::no(e),
                },
                _ => Transformed::no(e),
            })
        })?;
        Ok(moved.data)
    }

    fn inside_all(&self, exprs: &[Expr], keys: &[Column]) -> Planned<Vec<Expr>> {
        exprs.iter().map(|e| self.inside(e.clone(), keys)).collect()
    }

    fn order(&self, order: &[SortExpr], keys: &[Column]) -> Planned<Vec<SortExpr>> {
        order.iter().map(|s| Ok(SortExpr { expr: self.inside(s.expr.clone(), keys)?, ..s.clone() })).collect()
    }

    fn carry(&self, plan: &LogicalPlan, names: &mut Names) -> Planned<Carried> {
        if !self.refers(plan) {
            let (values, keys) = self.fresh(names)?;
            return Ok((LogicalPlanBuilder::from(plan.clone()).cross_join(values)?.build()?, keys));
        }
        match plan {
            LogicalPlan::Projection(p) => {
                let (input, keys) = self.carry(&p.input, names)?;
                let mut exprs = Vec::with_capacity(p.expr.len() + keys.len());
                for (e, (qualifier, field)) in p.expr.iter().zip(p.schema.iter()) {
                    let moved = self.inside(e.clone(), &keys)?;
                    let kept = moved == *e || matches!(moved, Expr::Alias(_));
                    exprs.push(if kept {
                        moved
                    } else {
                        moved.alias_qualified(qualifier.cloned(), field.name())
                    });
                }
                exprs.extend(keys.iter().cloned().map(Expr::Column));
                Ok((LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(input))?), keys))
            }
            LogicalPlan::Filter(f) => {
                let (input, keys) = self.carry(&f.input, names)?;
                let predicate = self.inside(f.predicate.clone(), &keys)?;
                Ok((LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(input))?), keys))
            }
            LogicalPlan::SubqueryAlias(a) => {
                let (input, keys) = self.carry(&a.input, names)?;
                let keys = keys.into_iter().map(|k| Column::new(Some(a.alias.clone()), k.name)).collect();
                Ok((LogicalPlanBuilder::from(input).alias(a.alias.clone())?.build()?, keys))
            }
            LogicalPlan::Subquery(s) => self.carry(&s.subquery, names),
            LogicalPlan::Sort(s) if s.fetch.is_none() => self.carry(&s.input, names),
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let (input, keys) = self.carry(input, names)?;
                Ok((LogicalPlanBuilder::from(input).distinct()?.build()?, keys))
            }
            LogicalPlan::Distinct(Distinct::On(on)) => self.distinct_on(on, names),
            LogicalPlan::Union(u) => self.union(u, names),
            LogicalPlan::Join(join) => self.join(join, names),
            LogicalPlan::Aggregate(a) => self.aggregate(a, names),
            LogicalPlan::Window(w) => self.window(w, names),
            LogicalPlan::Limit(limit) => {
                let (SkipType::Literal(skip), FetchType::Literal(fetch)) =
                    (limit.get_skip_type()?, limit.get_fetch_type()?)
                else {
                    return Err(Error::unsupported("LIMIT by an expression in a correlated subquery").into());
                };
                self.limit(&limit.input, skip, fetch, names)
            }
            LogicalPlan::Unnest(u) => {
                let (input, keys) = self.carry(&u.input, names)?;
                let unnested = LogicalPlanBuilder::from(input)
                    .unnest_columns_with_options(u.exec_columns.clone(), u.options.clone())?;
                Ok((unnested.build()?, keys))
            }
            other => {
                let kind = other.display().to_string();
                let kind = kind.split([':', '(']).next().unwrap_or_default().trim().to_string();
                Err(Error::unsupported(format!("{kind} in a correlated subquery")).into())
            }
        }
    }

    fn distinct_on(&self, on: &DistinctOn, names: &mut Names) -> Planned<Carried> {
        let (input, keys) = self.carry(&on.input, names)?;
        // An order begins with what the rows are told apart by.
        let domain = || keys.iter().cloned().map(Expr::Column);
        let by: Vec<Expr> = domain().chain(self.inside_all(&on.on_expr, &keys)?).collect();
        let mut select = self.inside_all(&on.select_expr, &keys)?;
        select.extend(keys.iter().cloned().map(Expr::Column));
        let order = on.sort_expr.as_ref().map(|s| self.order(s, &keys)).transpose()?;
        let order = order.map(|order| domain().map(|key| key.sort(true, false)).chain(order).collect());
        Ok((LogicalPlanBuilder::from(input).distinct_on(by, select, order)?.build()?, keys))
    }

    fn union(&self, union: &Union, names: &mut Names) -> Planned<Carried> {
        let name = names.next("__dom");
        let keys: Vec<Column> =
            (0..self.outer.len()).map(|i| Column::from_name(format!("{name}_{i}"))).collect();
        let mut inputs = Vec::with_capacity(union.inputs.len());
        for input in &union.inputs {
            let own = input.schema().columns();
            let (plan, found) = self.carry(input, names)?;
            // All branches agree on names and order; the union's own names come back above it.
            let columns = own.into_iter().enumerate().map(|(i, c)| Expr::Column(c).alias(format!("u{i}")));
            let domain = found.into_iter().zip(&keys).map(|(f, k)| Expr::Column(f).alias(k.name.clone()));
            let columns: Vec<Expr> = columns.chain(domain).collect();
            inputs.push(Arc::new(LogicalPlanBuilder::from(plan).project(columns)?.build()?));
        }
        let all = LogicalPlan::Union(Union::try_new_with_loose_types(inputs)?);
        let columns = union.schema.iter().enumerate();
        let columns = columns.map(|(i, (q, f))| {
            cast(Expr::Column(Column::from_name(format!("u{i}"))), f.data_type().clone())
                .alias_qualified(q.cloned(), f.name())
        });
        let columns: Vec<Expr> = columns.chain(keys.iter().cloned().map(Expr::Column)).collect();
        Ok((LogicalPlanBuilder::from(all).project(columns)?.build()?, keys))
    }

    fn join(&self, join: &Join, names: &mut Names) -> Planned<Carried> {
        let (in_left, in_right) = (self.refers(&join.left), self.refers(&join.right));
        let conditions: Vec<Expr> =
            join.on.iter().map(|(l, r)| l.clone().eq(r.clone())).chain(join.filter.clone()).collect();
        use JoinType::{
            Full, Inner, Left, LeftAnti, LeftMark, LeftSemi, Right, RightAnti, RightMark, RightSemi,
        };
        // The side whose rows come out on their own account must know for which combination they do.
        let (carry_left, carry_right) = match join.join_type {
            Inner => (in_left || !in_right, in_right),
            Left | LeftSemi | LeftAnti | LeftMark => (true, in_right),
            Right | RightSemi | RightAnti | RightMark => (in_left, true),
            Full => (true, true),
        };
        let (left, left_keys) = self.side(&join.left, carry_left, names)?;
        let (right, right_keys) = self.side(&join.right, carry_right, names)?;
        let keys = match (carry_left, join.join_type) {
            (true, Right | RightSemi | RightAnti | RightMark) | (false, _) => right_keys.clone(),
            (true, _) => left_keys.clone(),
        };
        let mut conditions = self.inside_all(&conditions, &keys)?;
        if carry_left && carry_right {
            let pairs = left_keys.iter().cloned().zip(right_keys.iter().cloned());
            conditions.extend(pairs.map(|(l, r)| same(Expr::Column(l), Expr::Column(r))));
        }
        let joined = LogicalPlanBuilder::from(left).join_on(
            right,
            join.join_type,
            or_always(join.join_type, conditions),
        )?;
        if join.join_type != Full {
            return Ok((joined.build()?, keys));
        }
        let name = names.next("__dom");
        let both: Vec<Column> = (0..keys.len()).map(|i| Column::from_name(format!("{name}_{i}"))).collect();
        let either = left_keys.into_iter().zip(right_keys).zip(&both).map(|((l, r), k)| {
            let either =
                when(Expr::Column(l.clone()).is_null(), Expr::Column(r)).otherwise(Expr::Column(l))?;
            Planned::Ok(either.alias(k.name.clone()))
        });
        let columns = join.schema.columns().into_iter().map(|c| Ok(Expr::Column(c)));
        let columns: Vec<Expr> = columns.chain(either).collect::<Planned<_>>()?;
        Ok((joined.project(columns)?.build()?, both))
    }

    fn side(&self, plan: &LogicalPlan, carry: bool, names: &mut Names) -> Planned<Carried> {
        if carry { self.carry(plan, names) } else { Ok((plan.clone(), Vec::new())) }
    }

    fn aggregate(&self, aggregate: &Aggregate, names: &mut Names) -> Planned<Carried> {
        let (input, keys) = self.carry(&aggregate.input, names)?;
        let input_columns =
            aggregate.schema.iter().zip(aggregate.group_expr.iter().chain(&aggregate.aggr_expr));
        let mut exprs = Vec::with_capacity(aggregate.schema.fields().len());
        for ((qualifier, field), e) in input_columns {
            let moved = self.inside(e.clone(), &keys)?;
            let kept = moved == *e || matches!(moved, Expr::Alias(_));
            exprs.push(if kept { moved } else { moved.alias_qualified(qualifier.cloned(), field.name()) });
        }
        let calls = exprs.split_off(aggregate.group_expr.len());
        let grouped = !exprs.is_empty();
        exprs.extend(keys.iter().cloned().map(Expr::Column));
        let plan = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(input), exprs, calls)?);
        if grouped {
            return Ok((plan, keys));
        }
        // An aggregation without groups answers for every combination, also for those without rows.
        let marker = names.next("__some");
        let mut columns: Vec<Expr> = plan.schema().columns().into_iter().map(Expr::Column).collect();
        columns.push(lit(true).alias(marker.clone()));
        let some = LogicalPlanBuilder::from(plan).project(columns)?.build()?;
        let (values, all) = self.fresh(names)?;
        let pairs = all.iter().cloned().zip(keys);
        let on: Vec<Expr> = pairs.map(|(l, r)| same(Expr::Column(l), Expr::Column(r))).collect();
        let joined =
            LogicalPlanBuilder::from(values).join_on(some, JoinType::Left, or_always(JoinType::Left, on))?;
        let mut columns = Vec::new();
        for (e, (qualifier, field)) in aggregate.aggr_expr.iter().zip(aggregate.schema.iter()) {
            let value = Expr::Column(Column::new(qualifier.cloned(), field.name()));
            let empty = match unaliased(e) {
                Expr::AggregateFunction(f) => f.func.default_value(field.data_type())?,
                _ => return Err(Error::internal("an aggregation computes something else").into()),
            };
            columns.push(if empty.is_null() {
                value
            } else {
                when(Expr::Column(Column::from_name(marker.clone())).is_null(), lit(empty))
                    .otherwise(value)?
                    .alias_qualified(qualifier.cloned(), field.name())
            });
        }
        columns.extend(all.iter().cloned().map(Expr::Column));
        Ok((joined.project(columns)?.build()?, all))
    }

    fn window(&self, window: &Window, names: &mut Names) -> Planned<Carried> {
        let (input, keys) = self.carry(&window.input, names)?;
        let mut exprs = Vec::new();
        let mut select: Vec<Expr> = window.input.schema().columns().into_iter().map(Expr::Column).collect();
        let outputs = window.schema.iter().skip(select.len());
        for (e, (qualifier, field)) in window.window_expr.iter().zip(outputs) {
            let Expr::WindowFunction(mut function) = unaliased(&self.inside(e.clone(), &keys)?).clone()
            else {
                return Err(Error::internal("a window computes something else").into());
            };
            function.params.partition_by.extend(keys.iter().cloned().map(Expr::Column));
            let e = Expr::WindowFunction(function);
            let name = Column::from_name(e.schema_name().to_string());
            select.push(Expr::Column(name).alias_qualified(qualifier.cloned(), field.name()));
            exprs.push(e);
        }
        select.extend(keys.iter().cloned().map(Expr::Column));
        Ok((LogicalPlanBuilder::from(input).window(exprs)?.project(select)?.build()?, keys))
    }

    /// LIMIT for each combination, by row number.
    fn limit(
        &self,
        input: &LogicalPlan,
        skip: usize,
        fetch: Option<usize>,
        names: &mut Names,
    ) -> Planned<Carried> {
        match input {
            // The number is that of the rows below, in whose order the limit cuts.
            LogicalPlan::Projection(p) => {
                let rows = LogicalPlanBuilder::from(p.input.as_ref().clone()).limit(skip, fetch)?.build()?;
                let plan = Projection::try_new(p.expr.clone(), Arc::new(rows))?;
                self.carry(&LogicalPlan::Projection(plan), names)
            }
            LogicalPlan::SubqueryAlias(a) => {
                let rows = LogicalPlanBuilder::from(a.input.as_ref().clone()).limit(skip, fetch)?;
                self.carry(&rows.alias(a.alias.clone())?.build()?, names)
            }
            other => {
                let (order, rows) = match other {
                    LogicalPlan::Sort(s) if s.fetch.is_none() => (&s.expr[..], s.input.as_ref()),
                    other => (&[][..], other),
                };
                let (plan, keys) = self.carry(rows, names)?;
                let columns = plan.schema().columns();
                let mut number = WindowFunction::new(row_number_udwf(), Vec::new());
                number.params.partition_by = keys.iter().cloned().map(Expr::Column).collect();
                number.params.order_by = self.order(order, &keys)?;
                let number = Expr::from(number);
                let rank = Expr::Column(Column::from_name(number.schema_name().to_string()));
                let last = fetch.map(|n| rank.clone().lt_eq(lit(skip.saturating_add(n) as u64)));
                let bounds = [Some(rank.gt(lit(skip as u64))), last];
                let kept = conjunction(bounds.into_iter().flatten()).unwrap_or_else(|| lit(true));
                let limited = LogicalPlanBuilder::from(plan).window([number])?.filter(kept)?;
                Ok((limited.project(columns.into_iter().map(Expr::Column))?.build()?, keys))
            }
        }
    }
}

/// The one factor of a product of relations that all the columns are of, or the plan itself. The factor may have
/// values that the rest would keep out: the subquery is computed for them, too, and nobody asks for that.
fn factor<'a>(plan: &'a LogicalPlan, columns: &[Column]) -> &'a LogicalPlan {
    let mut part = match plan {
        LogicalPlan::Filter(filter) => filter.input.as_ref(),
        plan => plan,
    };
    let mut alone = None;
    while let LogicalPlan::Join(Join { left, right, on, filter: None, join_type: JoinType::Inner, .. }) = part
        && on.is_empty()
    {
        let has = |side: &&Arc<LogicalPlan>| columns.iter().all(|c| side.schema().has_column(c));
        let Some(side) = [left, right].into_iter().find(has) else { break };
        part = side;
        alone = Some(part);
    }
    alone.unwrap_or(plan)
}

/// The columns of `around` that a subquery refers to.
pub(super) fn outer_columns(plan: &LogicalPlan, around: &DFSchema) -> Vec<Column> {
    let mut found = Vec::new();
    collect(plan, &mut found);
    found.retain(|c| around.has_column(c));
    found
}

/// The outer columns of a plan: those of its own expressions, and those of subqueries in them that they themselves
/// do not find in the rows around them.
fn collect(plan: &LogicalPlan, found: &mut Vec<Column>) {
    let inner: HashMap<Column, ()> =
        plan.inputs().iter().flat_map(|i| i.schema().columns()).map(|c| (c, ())).collect();
    let visited = plan.apply_expressions(|e| {
        e.apply(|e| {
            let subquery = match e {
                Expr::OuterReferenceColumn(_, c) => {
                    if !found.contains(c) {
                        found.push(c.clone());
                    }
                    None
                }
                Expr::Exists(e) => Some(&e.subquery),
                Expr::InSubquery(e) => Some(&e.subquery),
                Expr::SetComparison(e) => Some(&e.subquery),
                Expr::ScalarSubquery(s) => Some(s),
                _ => None,
            };
            if let Some(subquery) = subquery {
                let mut below = Vec::new();
                collect(&subquery.subquery, &mut below);
                below.retain(|c| !inner.contains_key(c) && !found.contains(c));
                found.append(&mut below);
            }
            Ok(TreeNodeRecursion::Continue)
        })
    });
    debug_assert!(visited.is_ok(), "the visitor never fails");
    for input in plan.inputs() {
        collect(input, found);
    }
}

/// The conditions of a join; of one that is not an inner one there must be some.
pub(super) fn or_always(kind: JoinType, mut conditions: Vec<Expr>) -> Vec<Expr> {
    if conditions.is_empty() && kind != JoinType::Inner {
        conditions.push(lit(true));
    }
    conditions
}
