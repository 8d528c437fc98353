//! The columns that a plan gives out: names as PostgreSQL's, each in the Arrow type of its PostgreSQL type.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use datafusion::common::Column as PlanColumn;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};

use super::{naming, semantics};
use crate::error::{Error, Result, SqlState};
use crate::names::quote;
use crate::types::{SqlType, is_string};

/// The plan with its columns in canonical types, and the schema with the names that PostgreSQL shows.
pub(super) fn canonical(plan: LogicalPlan) -> Result<(LogicalPlan, SchemaRef)> {
    let open = holds_scalar_subquery(&plan)?;
    let fields: Vec<FieldRef> = plan
        .schema()
        .fields()
        .iter()
        .map(|f| {
            let field = canonical_field(f).with_name(naming::shown(f.name()));
            let nullable = open || field.is_nullable();
            Arc::new(field.with_nullable(nullable))
        })
        .collect();
    let schema = Arc::new(Schema::new(fields));
    let plan = cast_to(plan, &schema, |_, field| field.name().clone())?;
    Ok((plan, schema))
}

/// Whether a column may hold a subquery's value: NULL without a row, though DataFusion calls it what the subquery's
/// column is.
fn holds_scalar_subquery(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            found |= expr.exists(|e| Ok(matches!(e, Expr::ScalarSubquery(_))))?;
            Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })
    })?;
    Ok(found)
}

/// A column in the Arrow type that carries its PostgreSQL type, its metadata only what tells that type.
pub(super) fn canonical_field(field: &Field) -> Field {
    let sql_type = match field.data_type() {
        // What counts rows is a bigint in PostgreSQL.
        DataType::UInt64 => SqlType::Int8,
        // NULL without a type is text.
        DataType::Null => SqlType::Text,
        DataType::List(inner) if inner.data_type().is_null() => SqlType::Array(Box::new(SqlType::Text)),
        _ => SqlType::of(field),
    };
    sql_type.field(field.name(), field.is_nullable())
}

/// Casts columns whose Arrow type differs; `name` gives each plan column its name.
fn cast_to(
    plan: LogicalPlan,
    schema: &SchemaRef,
    name: impl Fn(usize, &Field) -> String,
) -> Result<LogicalPlan> {
    let differs = plan.schema().fields().iter().zip(schema.fields()).enumerate().any(|(i, (have, want))| {
        have.data_type() != want.data_type()
            || *have.name() != name(i, have)
            || have.metadata() != want.metadata()
    });
    if !differs {
        return Ok(plan);
    }
    let columns: Vec<Expr> = plan
        .schema()
        .iter()
        .zip(schema.fields())
        .enumerate()
        .map(|(i, ((qualifier, have), want))| {
            let column = Expr::Column(PlanColumn::new(qualifier.cloned(), have.name()));
            let name = name(i, have);
            let same = have.data_type() == want.data_type() && have.metadata() == want.metadata();
            match (same, name == *have.name()) {
                // Columns of one name are told apart by their relations.
                (true, true) => column,
                (true, false) => column.alias(name),
                (false, true) => convert(column, have, want).alias_qualified(qualifier.cloned(), name),
                (false, false) => convert(column, have, want).alias(name),
            }
        })
        .collect();
    Ok(LogicalPlanBuilder::from(plan).project(columns)?.build()?)
}

/// A column in another Arrow type of the same PostgreSQL type, or cast to another one.
fn convert(expr: Expr, have: &Field, want: &FieldRef) -> Expr {
    let simple = (is_string(have.data_type()) && is_string(want.data_type()) && want.metadata().is_empty())
        || matches!(
            (have.data_type(), want.data_type()),
            (DataType::Timestamp(a, _), DataType::Timestamp(TimeUnit::Microsecond, _)) if *a != TimeUnit::Microsecond
        );
    if simple {
        Expr::Cast(Cast::new_from_field(Box::new(expr), Arc::clone(want)))
    } else {
        semantics::cast_expr(expr, have, want)
    }
}

/// The plan with its columns in the types and by the names of `schema`.
pub(super) fn with_schema(plan: LogicalPlan, schema: &SchemaRef) -> Result<LogicalPlan> {
    if plan.schema().fields().len() != schema.fields().len() {
        return Err(Error::internal(
            "a view's query gives another number of columns than when it was created",
        ));
    }
    cast_to(plan, schema, |i, _| schema.field(i).name().clone())
}

/// The plan with its columns by the names of `schema`, whose types it has.
pub(super) fn with_names(plan: LogicalPlan, schema: &SchemaRef) -> Result<LogicalPlan> {
    with_schema(plan, schema)
}

/// New names for the first columns.
pub(super) fn rename(schema: &SchemaRef, names: &[String]) -> Result<SchemaRef> {
    if names.len() > schema.fields().len() {
        return Err(Error::new(
            SqlState::SYNTAX_ERROR,
            "CREATE VIEW specifies more column names than columns",
        ));
    }
    let fields: Vec<FieldRef> = schema
        .fields()
        .iter()
        .enumerate()
        .map(|(i, field)| match names.get(i) {
            Some(name) => Arc::new(field.as_ref().clone().with_name(name)),
            None => Arc::clone(field),
        })
        .collect();
    Ok(Arc::new(Schema::new(fields)))
}

/// Refuses column names that repeat.
pub(super) fn check_unique(schema: &Schema) -> Result<()> {
    let mut seen = std::collections::HashSet::new();
    match schema.fields().iter().find(|f| !seen.insert(f.name())) {
        None => Ok(()),
        Some(field) => Err(Error::new(
            SqlState::DUPLICATE_COLUMN,
            format!("column \"{}\" specified more than once", field.name()),
        )
        .with_hint(format!("Give one of them another name: {} AS ….", quote(field.name())))),
    }
}
