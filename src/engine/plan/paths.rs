//! Inner joins of three inputs and more: each input is kept once, and a change of one looks the others up, one after
//! the other. Nothing is kept of what comes together on the way.
//!
//! Joins are taken together through mere choices of columns, as long as their keys are columns of one type and their
//! further conditions cannot fail: a condition on a pair that finds no third row must not be an error in one path
//! and unseen in another. A join that stands in the plan more often than the one above it stays apart, for what it
//! gives is kept once for all its readers.
//!
//! A path goes on to an input of which all columns of some unique key are known, so that it finds one row at most; else
//! to one that a condition makes small, to one by whose columns another path looks up already, and to the one that is
//! known by the most columns.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{JoinType, NullEquality};
use datafusion::logical_expr::{self as logical, Expr as LogicalExpr, Join, LogicalPlan, Operator};
use datafusion::physical_expr::expressions::{BinaryExpr, Column, IsNotNullExpr};
use datafusion::physical_expr::split_conjunction;
use datafusion::physical_expr::utils::collect_columns;

use super::guard::can_fail;
use super::lower::{Lowering, column, has_subquery, schema_of, type_of, unaliased};
use super::spec::{Expr, MapSpec, NodeSpec, Path, PathsSpec, Step};
use super::temporal;
use crate::error::Result;

/// Inputs from which on nothing is kept between them: two have nothing between them.
const INPUTS_MIN: usize = 3;

/// Of which input which column.
type Place = (usize, usize);

/// How often each inner join stands in a plan.
pub(super) type Counts = HashMap<LogicalPlan, usize>;

/// Counts the inner joins of a plan.
pub(super) fn counts(plan: &LogicalPlan) -> Counts {
    let mut counts = Counts::new();
    let visited = plan.apply(|node| {
        if let LogicalPlan::Join(Join { join_type: JoinType::Inner, .. }) = node {
            *counts.entry(node.clone()).or_default() += 1;
        }
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(visited.is_ok(), "the visitor never fails");
    counts
}

/// Lowers an inner join with those below it; `None` when it is one of two inputs, or cannot be done so.
pub(super) fn joined(lowering: &mut Lowering, plan: &LogicalPlan) -> Result<Option<usize>> {
    let times = lowering.joins.get(plan).copied().unwrap_or(1);
    let mut flat = Flat { times, inputs: Vec::new(), equal: Vec::new(), conditions: Vec::new() };
    let output = flat.collect(lowering, plan)?;
    if flat.inputs.len() < INPUTS_MIN {
        return Ok(None);
    }
    let mut inputs = Vec::with_capacity(flat.inputs.len());
    let mut nodes = Vec::with_capacity(flat.inputs.len());
    for input in &flat.inputs {
        let node = lowering.node(input)?;
        let schema = Arc::clone(lowering.schema(node));
        nodes.push(lowering.add(NodeSpec::Arrange(Arc::clone(&schema)), vec![node], Arc::clone(&schema)));
        inputs.push(Input {
            unique: unique(lowering, node),
            chosen: is_chosen(lowering, node),
            start: inputs.last().map_or(0, |last: &Input| last.start + last.schema.fields().len()),
            schema,
        });
    }
    let mut planner =
        Planner { classes: classes(&flat.equal), conditions: flat.conditions, lookups: Vec::new(), inputs };
    let paths = (0..planner.inputs.len()).map(|input| planner.path(input)).collect();
    let schema = schema_of(plan);
    let spec = PathsSpec {
        inputs: planner.inputs.into_iter().map(|input| input.schema).collect(),
        lookups: planner.lookups,
        paths,
        output,
        schema: Arc::clone(&schema),
    };
    Ok(Some(lowering.add(NodeSpec::Paths(spec), nodes, schema)))
}

/// Joins taken together.
struct Flat<'a> {
    /// How often the topmost one stands in the plan.
    times: usize,
    inputs: Vec<&'a LogicalPlan>,
    equal: Vec<(Place, Place)>,
    /// Each with the places of the columns that it reads, by position.
    conditions: Vec<(Expr, Vec<Place>)>,
}

impl<'a> Flat<'a> {
    /// Takes a join's inputs, and those of the joins below; where its columns are.
    fn collect(&mut self, lowering: &Lowering, plan: &'a LogicalPlan) -> Result<Vec<Place>> {
        if let Some(join) = self.below(lowering, plan)? {
            return self.join(lowering, join);
        }
        match plan {
            LogicalPlan::SubqueryAlias(alias) if self.leads_to_join(lowering, &alias.input)? => {
                self.collect(lowering, &alias.input)
            }
            LogicalPlan::Projection(chosen) if self.leads_to_join(lowering, plan)? => {
                let below = self.collect(lowering, &chosen.input)?;
                let schema = chosen.input.schema();
                let place = |e: &LogicalExpr| match unaliased(e) {
                    LogicalExpr::Column(column) => Some(below[schema.index_of_column(column).ok()?]),
                    _ => None,
                };
                let places: Option<Vec<Place>> = chosen.expr.iter().map(place).collect();
                places.ok_or_else(|| crate::Error::internal("a choice of columns that are not there"))
            }
            input => {
                self.inputs.push(input);
                let n = self.inputs.len() - 1;
                Ok((0..input.schema().fields().len()).map(|column| (n, column)).collect())
            }
        }
    }

    /// Whether a plan is a mere choice of columns of a join that can be taken.
    fn leads_to_join(&self, lowering: &Lowering, plan: &LogicalPlan) -> Result<bool> {
        match plan {
            LogicalPlan::SubqueryAlias(alias) => self.leads_to_join(lowering, &alias.input),
            LogicalPlan::Projection(chosen) => {
                let plain = chosen.expr.iter().all(|e| matches!(unaliased(e), LogicalExpr::Column(_)));
                Ok(plain && self.leads_to_join(lowering, &chosen.input)?)
            }
            plan => Ok(self.below(lowering, plan)?.is_some()),
        }
    }

    /// The join that a plan is, if it can be taken together with others.
    fn below<'p>(&self, lowering: &Lowering, plan: &'p LogicalPlan) -> Result<Option<&'p Join>> {
        let LogicalPlan::Join(join) = plan else { return Ok(None) };
        let plain = join.join_type == JoinType::Inner
            && !join.null_aware
            && join.null_equality == NullEquality::NullEqualsNothing
            && !join.on.is_empty()
            && !has_subquery(plan)
            && lowering.joins.get(plan).copied().unwrap_or(1) <= self.times;
        if !plain {
            return Ok(None);
        }
        for (l, r) in &join.on {
            let (LogicalExpr::Column(_), LogicalExpr::Column(_)) = (l, r) else { return Ok(None) };
            let (lt, rt) = (type_of(l, join.left.schema())?, type_of(r, join.right.schema())?);
            // Floats have a canonical form besides the one that is kept.
            if lt != rt || matches!(lt, DataType::Float32 | DataType::Float64) {
                return Ok(None);
            }
        }
        if let Some(filter) = &join.filter {
            let both = join.left.schema().join(join.right.schema())?;
            if temporal::is_timed(filter) || can_fail(filter, &both) {
                return Ok(None);
            }
        }
        Ok(Some(join))
    }

    fn join(&mut self, lowering: &Lowering, join: &'a Join) -> Result<Vec<Place>> {
        let left = self.collect(lowering, &join.left)?;
        let right = self.collect(lowering, &join.right)?;
        for (l, r) in &join.on {
            if let (LogicalExpr::Column(l), LogicalExpr::Column(r)) = (l, r) {
                let l = left[join.left.schema().index_of_column(l)?];
                self.equal.push((l, right[join.right.schema().index_of_column(r)?]));
            }
        }
        let places = [left, right].concat();
        let both = join.left.schema().join(join.right.schema())?;
        for condition in join.filter.iter().cloned().flat_map(logical::utils::split_conjunction_owned) {
            self.conditions.push((lowering.bind(&condition, &both)?, places.clone()));
        }
        Ok(places)
    }
}

/// Columns that are equal in every row of the join, together.
fn classes(equal: &[(Place, Place)]) -> Vec<Vec<Place>> {
    let mut classes: Vec<Vec<Place>> = Vec::new();
    for (l, r) in equal {
        let of = |place: &Place, classes: &[Vec<Place>]| classes.iter().position(|c| c.contains(place));
        match (of(l, &classes), of(r, &classes)) {
            (Some(a), Some(b)) if a == b => {}
            (Some(a), Some(b)) => {
                let moved = classes.remove(a.max(b));
                classes[a.min(b)].extend(moved);
            }
            (Some(a), None) => classes[a].push(*r),
            (None, Some(b)) => classes[b].push(*l),
            (None, None) => classes.push(vec![*l, *r]),
        }
    }
    classes.iter_mut().for_each(|class| class.sort_unstable());
    classes
}

/// What is known of an input.
struct Input {
    schema: SchemaRef,
    /// Where its columns begin among those of all.
    start: usize,
    /// Columns of which no two rows have the same values.
    unique: Vec<Vec<usize>>,
    /// Whether a condition chooses its rows.
    chosen: bool,
}

struct Planner {
    inputs: Vec<Input>,
    classes: Vec<Vec<Place>>,
    conditions: Vec<(Expr, Vec<Place>)>,
    lookups: Vec<(usize, Vec<usize>)>,
}

impl Planner {
    /// How a change of an input comes to rows of all.
    fn path(&mut self, input: usize) -> Path {
        let mut on = vec![input];
        let condition = self.condition(&[], input);
        let mut steps = Vec::with_capacity(self.inputs.len() - 1);
        while on.len() < self.inputs.len() {
            let candidates = (0..self.inputs.len()).filter(|next| !on.contains(next));
            let known = candidates.map(|next| (next, self.known(&on, next)));
            // Joins have keys, so that some input is always known by a column.
            let next = known
                .filter(|(_, key)| !key.is_empty())
                .max_by_key(|(next, key)| (self.preference(*next, key), std::cmp::Reverse(*next)));
            let Some((next, key)) = next else { break };
            let condition = self.condition(&on, next);
            let (columns, from): (Vec<usize>, Vec<Place>) = key.into_iter().unzip();
            let lookup = self.lookups.iter().position(|(of, by)| *of == next && *by == columns);
            let lookup = lookup.unwrap_or_else(|| {
                self.lookups.push((next, columns));
                self.lookups.len() - 1
            });
            steps.push(Step { lookup, from, condition });
            on.push(next);
        }
        Path { condition, steps }
    }

    /// The columns of an input that equal some of those on the path, each with such a one.
    fn known(&self, on: &[usize], next: usize) -> Vec<(usize, Place)> {
        let mut key = Vec::new();
        for class in &self.classes {
            // The changed rows are at hand, those found later are read by their numbers.
            let from = on.iter().find_map(|input| class.iter().find(|place| place.0 == *input));
            if let Some(from) = from {
                key.extend(class.iter().filter(|place| place.0 == next).map(|place| (place.1, *from)));
            }
        }
        key.sort_unstable();
        key
    }

    /// How good it is to go on to an input; the greater, the better.
    fn preference(&self, next: usize, key: &[(usize, Place)]) -> (bool, bool, bool, bool, usize) {
        let has = |column: &usize| key.iter().any(|(known, _)| known == column);
        let Input { unique, chosen, .. } = &self.inputs[next];
        let one_row = unique.iter().any(|columns| columns.iter().all(has));
        let by: Vec<usize> = key.iter().map(|(column, _)| *column).collect();
        let used = self.lookups.iter().any(|(of, columns)| *of == next && *columns == by);
        let part_of_key = unique.iter().flatten().any(has);
        (one_row, *chosen, used, part_of_key, key.len())
    }

    /// What has to be true of rows when `next` comes to those `on` the path, and could not be asked before.
    fn condition(&self, on: &[usize], next: usize) -> Option<Expr> {
        let mut all: Vec<Expr> = Vec::new();
        for class in &self.classes {
            // Columns of one input that must be equal, though nothing on the path says to what.
            if !class.iter().any(|place| on.contains(&place.0)) {
                let own: Vec<&Place> = class.iter().filter(|place| place.0 == next).collect();
                let equal = |pair: &[&Place]| {
                    Arc::new(BinaryExpr::new(self.column(*pair[0]), Operator::Eq, self.column(*pair[1])))
                };
                all.extend(own.windows(2).map(|pair| equal(pair) as Expr));
            }
        }
        for (condition, places) in &self.conditions {
            let reads: Vec<Place> = collect_columns(condition).iter().map(|c| places[c.index()]).collect();
            let there = |place: &Place| place.0 == next || on.contains(&place.0);
            let now = reads.iter().any(|place| place.0 == next) || reads.is_empty() && on.is_empty();
            if now && reads.iter().all(there) {
                let moved = Arc::clone(condition).transform_up(|e| {
                    Ok(match column(&e) {
                        Some(at) => Transformed::yes(self.column(places[at])),
                        None => Transformed::no(e),
                    })
                });
                all.push(moved.expect("the closure never fails").data);
            }
        }
        all.into_iter().reduce(|a, b| Arc::new(BinaryExpr::new(a, Operator::And, b)))
    }

    /// A column among those of all inputs.
    fn column(&self, (input, column): Place) -> Expr {
        let Input { schema, start, .. } = &self.inputs[input];
        Arc::new(Column::new(schema.field(column).name(), start + column))
    }
}

/// Columns of a node of which no two rows have the same values, as far as that is known.
fn unique(lowering: &Lowering, node: usize) -> Vec<Vec<usize>> {
    let node = lowering.spec(node);
    let all = || (0..node.schema.fields().len()).collect();
    match &node.spec {
        NodeSpec::Collection(id) => {
            lowering.keys.get(id).filter(|k| !k.is_empty()).cloned().into_iter().collect()
        }
        NodeSpec::Distinct => vec![all()],
        NodeSpec::Aggregate(aggregate) => vec![(0..aggregate.keys.len()).collect()],
        NodeSpec::Map(MapSpec { projection, .. }) => {
            let below = unique(lowering, node.inputs[0]);
            let Some(projection) = projection else { return below };
            let place = |of: &usize| projection.iter().position(|e| column(e) == Some(*of));
            below.iter().filter_map(|columns| columns.iter().map(place).collect()).collect()
        }
        NodeSpec::Temporal(_) | NodeSpec::Gate(_) => unique(lowering, node.inputs[0]),
        _ => Vec::new(),
    }
}

/// Whether a node has a condition that says more than that keys are not NULL.
fn is_chosen(lowering: &Lowering, node: usize) -> bool {
    match &lowering.spec(node).spec {
        NodeSpec::Map(MapSpec { predicate: Some(predicate), .. }) => {
            split_conjunction(predicate).into_iter().any(|e| !e.is::<IsNotNullExpr>())
        }
        NodeSpec::Temporal(_) => true,
        _ => false,
    }
}
