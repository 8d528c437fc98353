//! Casts that tell one aggregate or key from another: `sum(x::float8), sum(x)`.
//!
//! DataFusion names an expression without the casts in it, and two columns of an aggregation that differ by a cast
//! alone would have one name. In such a query every cast is written `"as type"('float8', x::float8)` until it is
//! planned; then the casts are computed below the aggregation, under those names, and nothing else changes.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    Aggregate, ColumnarValue, Expr as Planned, LogicalPlan, LogicalPlanBuilder, ReturnFieldArgs,
    ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, Window,
};
use datafusion::sql::sqlparser::ast::{
    Expr, Function, GroupByExpr, OrderByKind, Query, Select, SelectItem, SetExpr, Value, VisitorMut,
};

use super::rewrite::call;
use crate::error::Error;
use crate::names::fold;
use crate::sql::functions::Functions;
use crate::sql::walk::walk_mut;

/// The function that stands around a cast.
const AS_TYPE: &str = "as type";

static MARKER: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
    Arc::new(ScalarUDF::new_from_impl(AsType { signature: Signature::any(2, Volatility::Immutable) }))
});

/// The function that stands around a cast until the plan is made, if that is its name.
pub(super) fn marker(name: &str) -> Option<Arc<ScalarUDF>> {
    (name == AS_TYPE).then(|| Arc::clone(&MARKER))
}

/// Marks the casts of a query whose aggregates or keys would have one name without them.
pub(super) fn mark(query: &mut Query) {
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    if !alike(select) {
        return;
    }
    each_expr(select, &mut mark_in);
    if let Some(order_by) = &mut query.order_by
        && let OrderByKind::Expressions(exprs) = &mut order_by.kind
    {
        exprs.iter_mut().for_each(|e| mark_in(&mut e.expr));
    }
}

fn each_expr(select: &mut Select, f: &mut dyn FnMut(&mut Expr)) {
    for item in &mut select.projection {
        if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
            f(expr);
        }
    }
    if let GroupByExpr::Expressions(keys, _) = &mut select.group_by {
        keys.iter_mut().for_each(&mut *f);
    }
    select.having.iter_mut().chain(&mut select.qualify).for_each(f);
}

/// Whether two aggregates, window functions or keys differ by their casts alone.
fn alike(select: &Select) -> bool {
    let mut select = select.clone();
    let mut calls = Calls { found: Vec::new() };
    each_expr(&mut select, &mut |expr| {
        // It never breaks off.
        let _ = walk_mut(expr, &mut calls);
    });
    if let GroupByExpr::Expressions(keys, _) = &select.group_by {
        calls.found.extend(keys.iter().cloned());
    }
    let mut known: HashMap<String, String> = HashMap::new();
    calls.found.into_iter().any(|mut expr| {
        let whole = expr.to_string();
        let _ = walk_mut(&mut expr, &mut WithoutCasts);
        known.insert(expr.to_string(), whole.clone()).is_some_and(|other| other != whole)
    })
}

/// Collects calls of aggregates and window functions.
struct Calls {
    found: Vec<Expr>,
}

impl VisitorMut for Calls {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Function(Function { name, over, .. }) = expr {
            let name = name.0.last().and_then(|p| p.as_ident()).map(fold).unwrap_or_default();
            if over.is_some() || Functions::get().aggregate(&name).is_some() {
                self.found.push(expr.clone());
            }
        }
        ControlFlow::Continue(())
    }
}

/// Takes casts off.
struct WithoutCasts;

impl VisitorMut for WithoutCasts {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Cast { expr: inner, .. } | Expr::Nested(inner) = expr {
            *expr = std::mem::replace(inner.as_mut(), Expr::Value(Value::Null.into()));
        }
        ControlFlow::Continue(())
    }
}

fn mark_in(expr: &mut Expr) {
    let _ = walk_mut(expr, &mut Marks);
}

/// Puts the function around casts of anything but literals.
struct Marks;

impl VisitorMut for Marks {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Cast { expr: inner, data_type, .. } = expr
            && !matches!(inner.as_ref(), Expr::Value(_))
        {
            let name = Expr::Value(Value::SingleQuotedString(data_type.to_string()).into());
            let cast = std::mem::replace(expr, Expr::Value(Value::Null.into()));
            *expr = call(AS_TYPE, vec![name, cast]);
        }
        ControlFlow::Continue(())
    }
}

/// The plan with casts as they were: below aggregations and windows under the names that are asked for.
pub(super) fn restore(plan: LogicalPlan) -> Result<LogicalPlan> {
    Ok(plan.transform_up_with_subqueries(restored)?.data)
}

fn is_marked(expr: &Planned) -> bool {
    matches!(expr, Planned::ScalarFunction(f) if f.func.name() == AS_TYPE)
}

fn restored(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let marked = plan.expressions().iter().any(|e| e.exists(|e| Ok(is_marked(e))).unwrap_or(false));
    if !marked {
        return Ok(Transformed::no(plan));
    }
    match plan {
        LogicalPlan::Aggregate(Aggregate { input, group_expr: mut keys, aggr_expr: mut calls, .. }) => {
            let input = below(&input, &mut [&mut keys, &mut calls])?;
            Ok(Transformed::yes(LogicalPlan::Aggregate(Aggregate::try_new(input, keys, calls)?)))
        }
        LogicalPlan::Window(Window { input, window_expr: mut calls, .. }) => {
            let input = below(&input, &mut [&mut calls])?;
            Ok(Transformed::yes(LogicalPlan::Window(Window::try_new(calls, input)?)))
        }
        other => {
            let names = NamePreserver::new(&other);
            let plan = other.map_expressions(|expr| {
                let name = names.save(&expr);
                Ok(expr.transform_up(unmarked)?.update_data(|expr| name.restore(expr)))
            })?;
            plan.map_data(LogicalPlan::recompute_schema)
        }
    }
}

/// The input with a column for each marked cast; the expressions read these columns from now on.
fn below(input: &Arc<LogicalPlan>, exprs: &mut [&mut Vec<Planned>]) -> Result<Arc<LogicalPlan>> {
    let mut casts: Vec<Planned> = Vec::new();
    for expr in exprs.iter().flat_map(|list| list.iter()) {
        expr.apply(|e| {
            if !is_marked(e) {
                return Ok(TreeNodeRecursion::Continue);
            }
            if !casts.contains(e) {
                casts.push(e.clone());
            }
            Ok(TreeNodeRecursion::Jump)
        })?;
    }
    let computed = casts
        .iter()
        .map(|cast| Ok(cast.clone().transform_up(unmarked)?.data.alias(cast.schema_name().to_string())))
        .collect::<Result<Vec<_>>>()?;
    let columns = input.schema().columns().into_iter().map(Planned::Column).chain(computed);
    let input = LogicalPlanBuilder::from(Arc::clone(input)).project(columns)?.build()?;
    for expr in exprs.iter_mut().flat_map(|list| list.iter_mut()) {
        let name = expr.schema_name().to_string();
        let read = std::mem::take(expr).transform_down(|e| {
            Ok(match is_marked(&e) {
                true => Transformed::yes(Planned::Column(Column::from_name(e.schema_name().to_string()))),
                false => Transformed::no(e),
            })
        });
        let read = read?.data;
        // An order within an aggregate is named with its casts.
        *expr = if read.schema_name().to_string() == name { read } else { read.alias(name) };
    }
    Ok(Arc::new(input))
}

fn unmarked(expr: Planned) -> Result<Transformed<Planned>> {
    Ok(match expr {
        Planned::ScalarFunction(mut f) if f.func.name() == AS_TYPE => match f.args.pop() {
            Some(cast) => Transformed::yes(cast),
            None => Transformed::no(Planned::ScalarFunction(f)),
        },
        other => Transformed::no(other),
    })
}

/// `"as type"(name, value)` is the value.
#[derive(Debug, PartialEq, Eq, Hash)]
struct AsType {
    signature: Signature,
}

impl ScalarUDFImpl for AsType {
    fn name(&self) -> &str {
        AS_TYPE
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types.last().cloned().unwrap_or(DataType::Null))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let value = args.arg_fields.last().cloned();
        value.ok_or_else(|| Error::internal("a cast without arguments").into())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let value = args.args.into_iter().last();
        value.ok_or_else(|| Error::internal("a cast without arguments").into())
    }
}
