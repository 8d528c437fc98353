//! From a view's logical plan to the nodes of a circuit: one match, decided once.
//!
//! Expressions are bound to their input by position, so names never matter below this file. Whatever has no native
//! operator becomes a [`NodeSpec::Recompute`] over its lowered inputs; `super::fragment` cuts it out.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, JoinType, NullEquality, ScalarValue};
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::expr::{AggregateFunction, Sort as SortExpr};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{
    self as logical, Aggregate, Distinct, Expr as LogicalExpr, FetchType, Join, LogicalPlan, Operator,
    SkipType,
};
use datafusion::physical_expr::create_physical_expr;
use datafusion::physical_expr::expressions::{BinaryExpr, CastExpr, Column};

use super::closing::ClosingNode;
use super::spec::{
    AggregateCall, AggregateKind, AggregateSpec, Expr, JoinKind, JoinSpec, MapSpec, NodeSpec, TopKSpec,
};
use super::{CollectionSource, optimize::optimize, paths, reach, temporal, topk, windows};
use crate::engine::CollectionId;
use crate::error::{Error, Result};

/// A node and where its rows come from.
#[derive(Clone, Debug)]
pub struct LoweredNode {
    /// What it does.
    pub spec: NodeSpec,
    /// Its inputs in port order: positions of earlier nodes.
    pub inputs: Vec<usize>,
    /// Columns of its output.
    pub schema: SchemaRef,
}

/// A circuit for one view.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// Its nodes, each after its inputs. No two are equal: common parts of the plan are one node.
    pub nodes: Vec<LoweredNode>,
    /// The node whose output is the view's.
    pub root: usize,
    /// Columns of the view as the plan names them.
    pub schema: SchemaRef,
}

/// Optimises a view's plan and lowers it; `view` is whose windows the nodes close, if they close any.
///
/// # Errors
/// `0A000` with the fragment's name for what neither an operator nor DataFusion's batch execution can do.
pub fn lower(plan: &LogicalPlan, view: CollectionId) -> Result<Lowered> {
    let lowered = || {
        let schema = schema_of(plan);
        let plan = optimize(plan.clone())?;
        let mut lowering = Lowering {
            view,
            joins: paths::counts(&plan),
            keys: HashMap::new(),
            nodes: Vec::new(),
            props: ExecutionProps::new(),
        };
        let root = lowering.node(&plan)?;
        // Folded constants may give a narrower type than the plan stated before.
        let root = lowering.cast(root, &schema)?;
        let (nodes, root) = reachable(lowering.nodes, root);
        Ok(Lowered { nodes, root, schema })
    };
    // DataFusion asserts some of what it believes of plans; nothing of ours is touched when it is wrong.
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(lowered))
        .unwrap_or_else(|_| Err(Error::internal("the planner panicked on this query")))
}

/// The nodes that `root` reads, and its place among them: maps that others have taken the place of are left out.
fn reachable(nodes: Vec<LoweredNode>, root: usize) -> (Vec<LoweredNode>, usize) {
    let mut read = vec![false; nodes.len()];
    read[root] = true;
    // Inputs come before those who read them.
    for at in (0..nodes.len()).rev() {
        if read[at] {
            nodes[at].inputs.iter().for_each(|input| read[*input] = true);
        }
    }
    let mut place = vec![0; nodes.len()];
    let mut kept = Vec::with_capacity(nodes.len());
    for (at, mut node) in nodes.into_iter().enumerate() {
        if read[at] {
            place[at] = kept.len();
            node.inputs.iter_mut().for_each(|input| *input = place[*input]);
            kept.push(node);
        }
    }
    (kept, place[root])
}

/// A plan's output columns, every one nullable: plans are cleverer about NULL than operators care to be.
pub(super) fn schema_of(plan: &LogicalPlan) -> SchemaRef {
    nullable(plan.schema().as_arrow())
}

pub(super) fn nullable(schema: &Schema) -> SchemaRef {
    let fields: Vec<_> = schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
    Arc::new(Schema::new(fields))
}

/// The circuit so far.
pub(super) struct Lowering {
    pub(super) view: CollectionId,
    /// The plan's inner joins.
    pub(super) joins: paths::Counts,
    /// The keys of the collections that were met.
    pub(super) keys: HashMap<CollectionId, Vec<usize>>,
    nodes: Vec<LoweredNode>,
    props: ExecutionProps,
}

impl Lowering {
    /// Lowers a plan and all below it; gives the position of its node.
    pub(super) fn node(&mut self, plan: &LogicalPlan) -> Result<usize> {
        if has_subquery(plan) {
            return self.fragment(plan, "a subquery that could not be turned into a join");
        }
        match plan {
            LogicalPlan::Projection(p) => {
                if let LogicalPlan::Filter(f) = p.input.as_ref()
                    && !has_subquery(&p.input)
                {
                    return self.filter(f, Some((&p.expr, schema_of(plan))));
                }
                let input = self.node(&p.input)?;
                self.project(input, p)
            }
            LogicalPlan::Filter(f) => self.filter(f, None),
            LogicalPlan::SubqueryAlias(a) => self.node(&a.input),
            LogicalPlan::Repartition(r) => self.node(&r.input),
            LogicalPlan::TableScan(scan) => self.scan(scan),
            LogicalPlan::EmptyRelation(e) => {
                let schema = schema_of(plan);
                let rows = usize::from(e.produce_one_row);
                let columns = schema
                    .fields()
                    .iter()
                    .map(|f| arrow::array::new_null_array(f.data_type(), rows))
                    .collect();
                self.constant(schema, columns, rows)
            }
            LogicalPlan::Values(v) => self.values(v, schema_of(plan)),
            LogicalPlan::Union(u) => self.union(u, schema_of(plan)),
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let schema = schema_of(input);
                let input = self.node(input)?;
                Ok(self.add(NodeSpec::Distinct, vec![input], schema))
            }
            LogicalPlan::Join(join) => self.join(join, plan),
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate, plan),
            LogicalPlan::Sort(sort) => match sort.fetch {
                None => self.node(&sort.input),
                Some(fetch) => self.top(&sort.expr, 0, Some(fetch), &sort.input),
            },
            LogicalPlan::Limit(limit) => {
                let (SkipType::Literal(skip), FetchType::Literal(fetch)) =
                    (limit.get_skip_type()?, limit.get_fetch_type()?)
                else {
                    return Err(Error::unsupported("LIMIT or OFFSET by an expression in a view"));
                };
                self.limit(skip, fetch, &limit.input)
            }
            LogicalPlan::Window(window) => self.window(window, plan),
            LogicalPlan::Unnest(_) => self.linear_fragment(plan, "unnest"),
            LogicalPlan::RecursiveQuery(_) => self.fragment(plan, "recursion"),
            LogicalPlan::Distinct(Distinct::On(_)) => self.fragment(plan, "DISTINCT ON"),
            LogicalPlan::Extension(e) => match ClosingNode::of(plan) {
                Some(node) => windows::closing(self, node),
                None => self.fragment(plan, &format!("{} has no operator", e.node.name())),
            },
            LogicalPlan::Subquery(_) => Err(Error::unsupported("this form of LATERAL in a view")),
            other => Err(Error::unsupported(format!("{} in a view", title(other)))),
        }
    }

    /// The plan's columns at a node that is already lowered.
    pub(super) fn schema(&self, node: usize) -> &SchemaRef {
        &self.nodes[node].schema
    }

    /// What a node that is already lowered does.
    pub(super) fn spec(&self, node: usize) -> &LoweredNode {
        &self.nodes[node]
    }

    /// Lets a node that is already lowered do something else, with the same output.
    pub(super) fn replace(&mut self, node: usize, spec: NodeSpec) {
        self.nodes[node].spec = spec;
    }

    /// Adds a node unless an equal one is there.
    pub(super) fn add(&mut self, spec: NodeSpec, inputs: Vec<usize>, schema: SchemaRef) -> usize {
        let known =
            self.nodes.iter().position(|n| n.inputs == inputs && n.schema == schema && n.spec == spec);
        known.unwrap_or_else(|| {
            self.nodes.push(LoweredNode { spec, inputs, schema });
            self.nodes.len() - 1
        })
    }

    /// A logical expression, bound to the positions of `schema`.
    pub(super) fn bind(&self, expr: &LogicalExpr, schema: &DFSchema) -> Result<Expr> {
        if temporal::is_timed(expr) {
            return Err(Error::unsupported("a condition on now() that decides about other rows"));
        }
        Ok(create_physical_expr(expr, schema, &self.props, &PhysicalPlanningContext::default())?)
    }

    /// Several of them.
    pub(super) fn bind_all(&self, exprs: &[LogicalExpr], schema: &DFSchema) -> Result<Vec<Expr>> {
        exprs.iter().map(|e| self.bind(e, schema)).collect()
    }

    fn scan(&mut self, scan: &logical::TableScan) -> Result<usize> {
        let Some(source) = scan.source.downcast_ref::<CollectionSource>() else {
            return Err(Error::unsupported(format!("a view over \"{}\"", scan.table_name)));
        };
        let schema = Arc::clone(&source.schema);
        self.keys.insert(source.id, source.key.clone());
        let mut node = self.add(NodeSpec::Collection(source.id), Vec::new(), Arc::clone(&schema));
        if let Some(filter) = logical::utils::conjunction(scan.filters.iter().cloned()) {
            let all = DFSchema::try_from_qualified_schema(scan.table_name.clone(), &schema)?;
            node = self.chosen(node, &filter, &all)?;
        }
        if let Some(columns) = &scan.projection {
            let columns: Vec<Expr> =
                columns.iter().map(|&i| Arc::new(Column::new(schema.field(i).name(), i)) as Expr).collect();
            node = self.map(node, None, Some(columns), nullable(scan.projected_schema.as_arrow()));
        }
        Ok(node)
    }

    pub(super) fn project(&mut self, input: usize, p: &logical::Projection) -> Result<usize> {
        let exprs = self.bind_all(&p.expr, p.input.schema())?;
        Ok(self.map(input, None, Some(exprs), nullable(p.schema.as_arrow())))
    }

    fn filter(
        &mut self,
        f: &logical::Filter,
        projection: Option<(&[LogicalExpr], SchemaRef)>,
    ) -> Result<usize> {
        let mut node = match topk::ranked(self, f)? {
            Some(node) => node,
            None => self.node(&f.input)?,
        };
        if temporal::is_timed(&f.predicate) {
            node = self.chosen(node, &f.predicate, f.input.schema())?;
            return match projection {
                Some((exprs, schema)) => {
                    let exprs = self.bind_all(exprs, f.input.schema())?;
                    Ok(self.map(node, None, Some(exprs), schema))
                }
                None => Ok(node),
            };
        }
        let predicate = self.bind(&f.predicate, f.input.schema())?;
        node = match projection {
            Some((exprs, schema)) => {
                let exprs = self.bind_all(exprs, f.input.schema())?;
                self.map(node, Some(predicate), Some(exprs), schema)
            }
            None => self.map(node, Some(predicate), None, nullable(f.input.schema().as_arrow())),
        };
        Ok(node)
    }

    /// A map over `input`; one that only renames is no node, one over a mere choice of columns takes its place.
    pub(super) fn map(
        &mut self,
        input: usize,
        predicate: Option<Expr>,
        projection: Option<Vec<Expr>>,
        schema: SchemaRef,
    ) -> usize {
        let below = &self.nodes[input];
        let renames = |exprs: &Vec<Expr>| {
            exprs.len() == below.schema.fields().len()
                && exprs.iter().enumerate().all(|(i, e)| column(e) == Some(i))
        };
        if predicate.is_none() && projection.as_ref().is_none_or(renames) {
            return input;
        }
        if let NodeSpec::Map(MapSpec { predicate: kept, projection: Some(chosen), .. }) = &below.spec
            && chosen.iter().all(|e| column(e).is_some())
        {
            let over = |e: Expr| through(e, chosen);
            let predicate = match (kept.clone(), predicate.map(over)) {
                (Some(a), Some(b)) => Some(Arc::new(BinaryExpr::new(a, Operator::And, b)) as Expr),
                (a, b) => a.or(b),
            };
            let projection = match projection {
                Some(exprs) => exprs.into_iter().map(over).collect(),
                None => chosen.clone(),
            };
            let inputs = below.inputs.clone();
            let spec = MapSpec { predicate, projection: Some(projection), schema: Arc::clone(&schema) };
            return self.add(NodeSpec::Map(spec), inputs, schema);
        }
        let spec = MapSpec { predicate, projection, schema: Arc::clone(&schema) };
        self.add(NodeSpec::Map(spec), vec![input], schema)
    }

    fn constant(
        &mut self,
        schema: SchemaRef,
        columns: Vec<arrow::array::ArrayRef>,
        rows: usize,
    ) -> Result<usize> {
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&schema), columns, &options)?;
        let batches = if rows == 0 { Vec::new() } else { vec![batch] };
        Ok(self.add(NodeSpec::Constant(batches), Vec::new(), schema))
    }

    fn values(&mut self, values: &logical::Values, schema: SchemaRef) -> Result<usize> {
        let none = DFSchema::empty();
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(1));
        let unit = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options)?;
        let mut columns = Vec::with_capacity(schema.fields().len());
        for (i, field) in schema.fields().iter().enumerate() {
            let mut cells = Vec::with_capacity(values.values.len());
            for row in &values.values {
                let cell = self.bind(&row[i], &none)?.evaluate(&unit)?.into_array(1)?;
                let cell = arrow::compute::cast(&cell, field.data_type())?;
                cells.push(ScalarValue::try_from_array(&cell, 0)?);
            }
            columns.push(ScalarValue::iter_to_array(cells)?);
        }
        self.constant(schema, columns, values.values.len())
    }

    fn union(&mut self, union: &logical::Union, schema: SchemaRef) -> Result<usize> {
        let mut inputs = Vec::with_capacity(union.inputs.len());
        for input in &union.inputs {
            let node = self.node(input)?;
            inputs.push(self.cast(node, &schema)?);
        }
        if let [only] = inputs[..] {
            return Ok(only);
        }
        Ok(self.add(NodeSpec::Union, inputs, schema))
    }

    /// The node's rows as `schema` has them, by position.
    fn cast(&mut self, node: usize, schema: &SchemaRef) -> Result<usize> {
        let from = Arc::clone(self.schema(node));
        let exprs = schema.fields().iter().enumerate().map(|(i, to)| {
            let column: Expr = Arc::new(Column::new(from.field(i).name(), i));
            cast_to(column, from.field(i).data_type(), to.data_type())
        });
        Ok(self.map(node, None, Some(exprs.collect()), Arc::clone(schema)))
    }

    fn join(&mut self, join: &Join, plan: &LogicalPlan) -> Result<usize> {
        if let Some(node) = paths::joined(self, plan)? {
            return Ok(node);
        }
        let kind = match join.join_type {
            JoinType::Inner => JoinKind::Inner,
            JoinType::Left => JoinKind::Left,
            JoinType::Right => JoinKind::Right,
            JoinType::Full => JoinKind::Full,
            JoinType::LeftSemi => JoinKind::LeftSemi,
            JoinType::RightSemi => JoinKind::RightSemi,
            JoinType::LeftAnti => JoinKind::LeftAnti,
            JoinType::RightAnti => JoinKind::RightAnti,
            JoinType::LeftMark => JoinKind::LeftMark,
            JoinType::RightMark => return self.fragment(plan, "a right mark join"),
        };
        if join.null_aware {
            return self.fragment(plan, "a NULL-aware anti join");
        }
        let (mut left_keys, mut right_keys) = (Vec::new(), Vec::new());
        for (l, r) in &join.on {
            let (lt, rt) = (type_of(l, join.left.schema())?, type_of(r, join.right.schema())?);
            let (l, r) = (self.bind(l, join.left.schema())?, self.bind(r, join.right.schema())?);
            right_keys.push(cast_to(r, &rt, &lt));
            left_keys.push(l);
        }
        let both = join.left.schema().join(join.right.schema())?;
        let conjuncts = join.filter.iter().cloned().flat_map(logical::utils::split_conjunction_owned);
        let (timed, residual): (Vec<_>, Vec<_>) =
            conjuncts.partition(|e| kind == JoinKind::Inner && temporal::is_timed(e));
        let residual = logical::utils::conjunction(residual).map(|f| self.bind(&f, &both)).transpose()?;
        // `ON true` is no condition.
        let residual = residual.filter(|e| !is_true(e));
        let schema = schema_of(plan);
        let spec = JoinSpec {
            kind,
            left_keys,
            right_keys,
            null_equals_null: join.null_equality == NullEquality::NullEqualsNull,
            residual,
            left: schema_of(&join.left),
            right: schema_of(&join.right),
            schema: Arc::clone(&schema),
        };
        let left = self.node(&join.left)?;
        let right = self.node(&join.right)?;
        let joined = self.add(NodeSpec::Join(spec), vec![left, right], schema);
        match logical::utils::conjunction(timed) {
            Some(timed) => self.chosen(joined, &timed, &both),
            None => Ok(joined),
        }
    }

    fn aggregate(&mut self, aggregate: &Aggregate, plan: &LogicalPlan) -> Result<usize> {
        let input = aggregate.input.schema();
        if aggregate.group_expr.iter().any(|e| matches!(e, LogicalExpr::GroupingSet(_))) {
            return self.fragment(plan, "grouping sets");
        }
        let groups = aggregate.group_expr.len();
        let mut calls = Vec::with_capacity(aggregate.aggr_expr.len());
        for (i, expr) in aggregate.aggr_expr.iter().enumerate() {
            let output = Arc::new(aggregate.schema.field(groups + i).as_ref().clone().with_nullable(true));
            match self.call(expr, input, output)? {
                Some(call) => calls.push(call),
                None => {
                    let output = (0..groups)
                        .map(|i| Arc::new(Column::new(aggregate.schema.field(i).name(), i)) as Expr)
                        .collect();
                    let keys = self.bind_all(&aggregate.group_expr, input)?;
                    let name = function_name(expr);
                    return self.keyed_fragment(plan, keys, output, &format!("{name} has no operator"));
                }
            }
        }
        let keys = self.bind_all(&aggregate.group_expr, input)?;
        let schema = schema_of(plan);
        let spec =
            AggregateSpec { keys, calls, input: schema_of(&aggregate.input), schema: Arc::clone(&schema) };
        let input = self.node(&aggregate.input)?;
        Ok(self.add(NodeSpec::Aggregate(spec), vec![input], schema))
    }

    /// A call that the aggregate operator can do itself.
    fn call(
        &self,
        expr: &LogicalExpr,
        input: &DFSchema,
        output: arrow::datatypes::FieldRef,
    ) -> Result<Option<AggregateCall>> {
        let LogicalExpr::AggregateFunction(AggregateFunction { func, params }) = unaliased(expr) else {
            return Ok(None);
        };
        let kind = match func.name() {
            "count" => AggregateKind::Count,
            "sum" => AggregateKind::Sum,
            "avg" | "mean" => AggregateKind::Avg,
            "min" => AggregateKind::Min,
            "max" => AggregateKind::Max,
            "bool_and" => AggregateKind::BoolAnd,
            "bool_or" => AggregateKind::BoolOr,
            _ => return Ok(None),
        };
        let [arg] = &params.args[..] else {
            if kind == AggregateKind::Count && params.args.is_empty() {
                let filter = params.filter.as_ref().map(|f| self.bind(f, input)).transpose()?;
                return Ok(Some(AggregateCall { kind, arg: None, distinct: false, filter, output }));
            }
            return Ok(None);
        };
        let arg_type = type_of(arg, input)?;
        if !native(kind, &arg_type, output.data_type()) {
            return Ok(None);
        }
        // count(1) is how count(*) arrives.
        let rows = kind == AggregateKind::Count
            && !params.distinct
            && matches!(arg, LogicalExpr::Literal(value, _) if !value.is_null());
        let arg = if rows { None } else { Some(self.bind(arg, input)?) };
        let filter = params.filter.as_ref().map(|f| self.bind(f, input)).transpose()?;
        Ok(Some(AggregateCall { kind, arg, distinct: params.distinct, filter, output }))
    }

    /// LIMIT over nodes that keep the order; they stay above the rows' choice.
    fn limit(&mut self, skip: usize, fetch: Option<usize>, input: &LogicalPlan) -> Result<usize> {
        match input {
            LogicalPlan::Projection(p) if !has_subquery(input) => {
                let node = self.limit(skip, fetch, &p.input)?;
                self.project(node, p)
            }
            LogicalPlan::SubqueryAlias(a) => self.limit(skip, fetch, &a.input),
            LogicalPlan::Sort(s) if s.fetch.is_none() => self.top(&s.expr, skip, fetch, &s.input),
            other => self.top(&[], skip, fetch, other),
        }
    }

    fn top(
        &mut self,
        order: &[SortExpr],
        skip: usize,
        fetch: Option<usize>,
        input: &LogicalPlan,
    ) -> Result<usize> {
        let order = self.order(order, input.schema())?;
        let node = self.node(input)?;
        let schema = Arc::clone(self.schema(node));
        let spec = TopKSpec {
            partition: Vec::new(),
            order,
            offset: skip,
            limit: fetch,
            numbered: false,
            input: Arc::clone(&schema),
            schema: Arc::clone(&schema),
        };
        Ok(self.add(NodeSpec::TopK(spec), vec![node], schema))
    }

    /// A bound sort order.
    pub(super) fn order(&self, order: &[SortExpr], schema: &DFSchema) -> Result<Vec<(Expr, SortOptions)>> {
        order
            .iter()
            .map(|s| {
                let options = SortOptions { descending: !s.asc, nulls_first: s.nulls_first };
                Ok((self.bind(&s.expr, schema)?, options))
            })
            .collect()
    }

    fn window(&mut self, window: &logical::Window, plan: &LogicalPlan) -> Result<usize> {
        let input = self.node(&window.input)?;
        if let Some(node) = reach::bounded(self, window, input)? {
            return Ok(node);
        }
        // The fragment falls apart by what every window partitions by.
        let mut common: Option<Vec<LogicalExpr>> = None;
        for expr in &window.window_expr {
            let LogicalExpr::WindowFunction(function) = unaliased(expr) else { continue };
            let by = &function.params.partition_by;
            common = Some(match common {
                None => by.clone(),
                Some(common) => common.into_iter().filter(|e| by.contains(e)).collect(),
            });
        }
        let keys = self.bind_all(&common.unwrap_or_default(), window.input.schema())?;
        // A window keeps its input's columns in front, so the key reads the same from its output.
        let first = window.window_expr.first().map(function_name).unwrap_or_default();
        let reason = match first.as_str() {
            "asof_match" => "ASOF join",
            "session_start" | "session_end" => "sessions",
            _ => "window functions",
        };
        self.keyed_fragment_over(plan, vec![input], keys.clone(), keys, reason)
    }
}

/// Whether the aggregate operator does this function over these types.
fn native(kind: AggregateKind, arg: &DataType, output: &DataType) -> bool {
    use DataType::{
        Binary, BinaryView, Boolean, Date32, Decimal128, Float32, Float64, Int16, Int32, Int64, Interval,
    };
    use DataType::{Time64, Timestamp, UInt8, UInt16, UInt32, UInt64, Utf8, Utf8View};
    match kind {
        AggregateKind::Count => output == &Int64,
        AggregateKind::Sum => matches!(
            (arg, output),
            (DataType::Int8 | Int16 | Int32 | Int64, Int64)
                | (UInt8 | UInt16 | UInt32 | UInt64, UInt64)
                | (Float32 | Float64, Float64)
                | (Decimal128(..), Decimal128(..))
        ),
        AggregateKind::Avg => matches!((arg, output), (Float64, Float64) | (Decimal128(..), Decimal128(..))),
        AggregateKind::Min | AggregateKind::Max => {
            arg == output
                && matches!(
                    arg,
                    Boolean
                        | DataType::Int8
                        | Int16
                        | Int32
                        | Int64
                        | UInt8
                        | UInt16
                        | UInt32
                        | UInt64
                        | Float32
                        | Float64
                        | Decimal128(..)
                        | Utf8
                        | Utf8View
                        | Binary
                        | BinaryView
                        | Date32
                        | Time64(_)
                        | Timestamp(..)
                        | Interval(_)
                )
        }
        AggregateKind::BoolAnd | AggregateKind::BoolOr => arg == &Boolean,
    }
}

/// The column an expression is, if it is no more than that.
pub(super) fn column(e: &Expr) -> Option<usize> {
    e.downcast_ref::<Column>().map(Column::index)
}

fn is_true(e: &Expr) -> bool {
    e.downcast_ref::<datafusion::physical_expr::expressions::Literal>()
        .is_some_and(|l| l.value() == &ScalarValue::Boolean(Some(true)))
}

/// `e` over the input of a choice of columns instead of over its output.
fn through(e: Expr, chosen: &[Expr]) -> Expr {
    let moved = e.transform(|e| {
        Ok(match column(&e).and_then(|i| chosen.get(i)) {
            Some(below) => Transformed::yes(Arc::clone(below)),
            None => Transformed::no(e),
        })
    });
    moved.expect("the closure never fails").data
}

fn cast_to(e: Expr, from: &DataType, to: &DataType) -> Expr {
    if from == to { e } else { Arc::new(CastExpr::new(e, to.clone(), None)) }
}

pub(super) fn type_of(e: &LogicalExpr, schema: &DFSchema) -> Result<DataType> {
    use datafusion::logical_expr::ExprSchemable;
    Ok(e.get_type(schema)?)
}

/// The expression under its aliases.
pub(super) fn unaliased(e: &LogicalExpr) -> &LogicalExpr {
    match e {
        LogicalExpr::Alias(a) => unaliased(&a.expr),
        e => e,
    }
}

fn function_name(e: &LogicalExpr) -> String {
    match unaliased(e) {
        LogicalExpr::AggregateFunction(f) => f.func.name().to_string(),
        LogicalExpr::WindowFunction(f) => f.fun.name().to_string(),
        e => e.schema_name().to_string(),
    }
}

/// Whether one of the node's own expressions holds a subquery.
pub(super) fn has_subquery(plan: &LogicalPlan) -> bool {
    use datafusion::common::tree_node::TreeNodeRecursion;
    let mut found = false;
    let visited = plan.apply_expressions(|e| {
        e.apply(|e| {
            found |= matches!(
                e,
                LogicalExpr::ScalarSubquery(_)
                    | LogicalExpr::Exists(_)
                    | LogicalExpr::InSubquery(_)
                    | LogicalExpr::SetComparison(_)
            );
            Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })
    });
    debug_assert!(visited.is_ok(), "the visitor never fails");
    found
}

/// A plan node's kind, for messages.
fn title(plan: &LogicalPlan) -> String {
    let text = plan.display().to_string();
    text.split([':', '(']).next().unwrap_or_default().trim().to_string()
}
