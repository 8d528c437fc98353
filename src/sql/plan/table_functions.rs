//! Functions in FROM: `generate_series`, `unnest` and others whose list is a set of rows, and plain functions, which
//! give one row; several side by side (`ROWS FROM`), numbered (`WITH ORDINALITY`), over columns of what stands before
//! them (`FROM t, unnest(t.a)`).
//!
//! The lists become columns beside the rows that they are computed for, and are unnested together.

use std::ops::ControlFlow;

use arrow::datatypes::DataType;
use datafusion::common::{Column, Result, ScalarValue, TableReference, UnnestOptions};
use datafusion::functions_nested::expr_fn::{array_length, gen_series, make_array};
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlannerContext};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, lit, when};
use datafusion::sql::sqlparser::ast::{
    Expr as Tree, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Query, TableAlias, TableFactor,
    Value, Visitor,
};

use super::{naming, rewrite, set_returning};
use crate::error::{Error, SqlState};
use crate::names::fold;
use crate::sql::functions::series;
use crate::sql::parser::ROWS_FROM;
use crate::sql::walk::walk;

/// One function in FROM.
struct Call {
    /// What its column is called unless it is given a name.
    name: String,
    expr: Tree,
    /// Whether its value is a list of rows.
    rows: bool,
}

/// A FROM item made of functions.
pub(super) struct Functions {
    calls: Vec<Call>,
    ordinality: bool,
    alias: Option<TableAlias>,
}

/// Whether an expression names columns, or looks into other tables.
fn refers(expr: &Tree) -> bool {
    struct Refers;
    impl Visitor for Refers {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Tree) -> ControlFlow<()> {
            match expr {
                Tree::Identifier(_) | Tree::CompoundIdentifier(_) => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
        fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            ControlFlow::Break(())
        }
    }
    walk(expr, &mut Refers).is_break()
}

/// The expressions of arguments without names.
fn plain(args: &[FunctionArg]) -> Option<Vec<Tree>> {
    args.iter()
        .map(|arg| match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
            _ => None,
        })
        .collect()
}

/// What a call gives in FROM: `unnest` of several arrays is several calls.
fn calls(name: &str, mut args: Vec<Tree>) -> Vec<Call> {
    if name == "unnest" {
        let unnested = |expr| Call { name: name.to_string(), expr, rows: true };
        return args.into_iter().map(unnested).collect();
    }
    let rows = series::returns_rows(name);
    if name == "generate_series" {
        set_returning::series_literals(args.iter_mut().collect());
    }
    vec![Call { name: name.to_string(), expr: rewrite::call(name, args), rows }]
}

fn called(expr: Tree) -> Option<Vec<Call>> {
    let Tree::Function(Function { name, args: FunctionArguments::List(list), .. }) = &expr else {
        return Some(vec![Call { name: naming::output_name(&expr), expr, rows: false }]);
    };
    let name = fold(name.0.last()?.as_ident()?);
    Some(calls(&name, plain(&list.args)?))
}

/// Takes a FROM item that is made of functions apart. `known` says whether there is a function of that name.
pub(super) fn functions(factor: &TableFactor, known: &dyn Fn(&str) -> bool) -> Option<Functions> {
    let (name, args, ordinality, alias) = match factor {
        TableFactor::UNNEST { alias, array_exprs, with_ordinality, with_offset: false, .. } => {
            ("unnest".to_string(), array_exprs.clone(), *with_ordinality, alias)
        }
        TableFactor::Table { name, args: Some(args), with_ordinality, alias, .. } => {
            (fold(name.0.last()?.as_ident()?), plain(&args.args)?, *with_ordinality, alias)
        }
        TableFactor::Function { name, args, with_ordinality, alias, .. } => {
            (fold(name.0.last()?.as_ident()?), plain(args)?, *with_ordinality, alias)
        }
        _ => return None,
    };
    let calls = match name.as_str() {
        ROWS_FROM => {
            args.into_iter().map(called).collect::<Option<Vec<_>>>()?.into_iter().flatten().collect()
        }
        "unnest" => calls("unnest", args),
        // Numbers from the source of them, however many, without a list.
        "generate_series"
            if !ordinality
                && args.iter().all(is_number)
                && alias.as_ref().is_none_or(|a| a.columns.len() < 2) =>
        {
            return None;
        }
        name if known(name) => calls(name, args),
        _ => return None,
    };
    Some(Functions { calls, ordinality, alias: alias.clone() })
}

/// A whole number as written.
fn is_number(expr: &Tree) -> bool {
    match expr {
        Tree::Value(v) => matches!(&v.value, Value::Number(n, _) if n.bytes().all(|b| b.is_ascii_digit())),
        Tree::UnaryOp { expr, .. } | Tree::Nested(expr) => is_number(expr),
        _ => false,
    }
}

/// Whether a FROM item is made of functions over columns of what stands before it.
pub(super) fn is_dependent(factor: &TableFactor) -> bool {
    // Windows over time are spelled as functions, and are none.
    let known = |name: &str| {
        set_returning::is_known(name) || crate::sql::functions::Functions::get().scalar(name).is_some()
    };
    functions(factor, &known).is_some_and(|f| f.calls.iter().any(|call| refers(&call.expr)))
}

impl Functions {
    /// Rewrites the calls.
    pub(super) fn arguments(&mut self, rewrite: impl Fn(Tree) -> Tree) {
        for call in &mut self.calls {
            let null = Tree::Value(Value::Null.into());
            call.expr = rewrite(std::mem::replace(&mut call.expr, null));
        }
    }

    /// Plans the functions alone.
    pub(super) fn alone(self, context: &mut dyn RelationPlannerContext) -> Result<PlannedRelation> {
        let one = LogicalPlanBuilder::empty(true).build()?;
        Ok(PlannedRelation::new(self.beside(one, false, context)?, None))
    }

    /// Plans the functions for each row of `left`, beside it. `outer` keeps rows of it that they give no rows for.
    pub(super) fn beside(
        self,
        left: LogicalPlan,
        outer: bool,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<LogicalPlan> {
        let kept: Vec<Column> = left.schema().columns();
        let schema = std::sync::Arc::clone(left.schema());
        let mut values = Vec::with_capacity(self.calls.len() + 1);
        for call in &self.calls {
            let expr = context.sql_to_expr(call.expr.clone(), &schema)?;
            values.push(expr);
        }
        let lists = self.ordinality || outer || self.calls.len() > 1 || self.calls.iter().any(|c| c.rows);
        if lists {
            for (value, call) in values.iter_mut().zip(&self.calls) {
                let expr = std::mem::take(value);
                *value = if call.rows { listed(expr, &schema)? } else { make_array(vec![expr]) };
            }
        }
        if self.ordinality {
            let sizes = values.iter().map(|list| size(list.clone()));
            let longest =
                sizes.reduce(|a, b| when(a.clone().gt_eq(b.clone()), a).otherwise(b).unwrap_or_default());
            let longest = longest.ok_or_else(|| Error::internal("a FROM item without functions"))?;
            values.push(gen_series(lit(1i64), longest, lit(1i64)));
        }
        if outer {
            // Of a list without elements nothing would be left; of NULL, NULL.
            for value in &mut values {
                let list = std::mem::take(value);
                *value = when(size(list.clone()).gt(lit(0i64)), list).end()?;
            }
        }
        let names: Vec<Column> =
            (0..values.len()).map(|n| Column::new_unqualified(naming::marked("rows", n))).collect();
        let columns = kept.iter().cloned().map(Expr::Column);
        let beside = values.into_iter().zip(&names).map(|(value, name)| value.alias(&name.name));
        let mut plan = LogicalPlanBuilder::from(left).project(columns.chain(beside).collect::<Vec<_>>())?;
        if lists {
            let options = UnnestOptions::new().with_preserve_nulls(outer);
            plan = plan.unnest_columns_with_options(names.clone(), options)?;
        }
        let (qualifier, shown) = self.names()?;
        let columns = kept.into_iter().map(Expr::Column);
        let new = names.into_iter().zip(shown).map(|(column, name)| {
            Expr::Column(column).alias_qualified(Some(TableReference::bare(qualifier.clone())), name)
        });
        plan.project(columns.chain(new).collect::<Vec<_>>())?.build()
    }

    /// What the item is called, and its columns.
    fn names(&self) -> Result<(String, Vec<String>)> {
        let alias = self.alias.as_ref().map(|a| fold(&a.name));
        let mut names: Vec<String> = self.calls.iter().map(|call| call.name.clone()).collect();
        // The one column of one function is called as the item.
        if let (Some(alias), [name]) = (&alias, names.as_mut_slice()) {
            name.clone_from(alias);
        }
        let qualifier = alias.unwrap_or_else(|| names.first().cloned().unwrap_or_default());
        if self.ordinality {
            names.push("ordinality".to_string());
        }
        let given = self.alias.iter().flat_map(|a| &a.columns).map(|c| fold(&c.name));
        let given: Vec<String> = given.collect();
        if given.len() > names.len() {
            return Err(Error::new(
                SqlState("42P10"),
                format!(
                    "table \"{qualifier}\" has {} columns available but {} columns specified",
                    names.len(),
                    given.len()
                ),
            )
            .into());
        }
        for (name, given) in names.iter_mut().zip(given) {
            *name = given;
        }
        let mut seen = std::collections::HashSet::new();
        for (n, name) in names.iter_mut().enumerate() {
            if !seen.insert(name.clone()) {
                *name = naming::marked(name, n);
            }
        }
        Ok((qualifier, names))
    }
}

/// The value as a list, whose elements are the rows.
fn listed(expr: Expr, schema: &datafusion::common::DFSchema) -> Result<Expr> {
    match expr.get_type(schema)? {
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => Ok(expr),
        DataType::Null => Ok(lit(ScalarValue::new_null_list(DataType::Utf8, true, 1))),
        _ => Err(Error::new(
            SqlState::UNDEFINED_FUNCTION,
            "unnest() of something else than an array does not exist",
        )
        .into()),
    }
}

/// How many elements a list has; none in NULL.
fn size(list: Expr) -> Expr {
    use datafusion::functions::expr_fn::coalesce;
    use datafusion::logical_expr::cast;
    coalesce(vec![cast(array_length(list), DataType::Int64), lit(0i64)])
}
